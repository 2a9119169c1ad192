"""
What the tests of this directory share: processes, clients, and the wait for a condition.

Every process of a test has a directory of the test's to work in and for its temporary files, and so has what it starts
itself: the end of a test sees whether anything is left of a proxy.
"""

from __future__ import annotations

import http.client
import io
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, ClassVar

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase
from valkey import Valkey

from tests import valkey
from tests.integration.cutter import Cutter
from tests.process import Child, python
from thrtwisted.redis.embedded import READY, SOCKET, installed_server, private_directory, server_command

#: Of all proxies (seconds).
LEASE = 1.0

#: How often a figure is measured until it is good.
ATTEMPTS = 4

#: Ports below those that the kernel chooses by itself: a connection may take one of those before it is listened at.
_ports = iter(random.sample(range(15_000, 32_768), 17_768))

#: The share of the processors that others may have had while a figure was measured that is to be believed.
NOISE = 0.1


async def until(condition: Callable[[], object], limit: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come about in {limit:g} s")
        await deferLater(reactor, 0.01)


def unused_port() -> int:
    """A port at which nobody listens, another one each time."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are in use")


# Clients --------------------------------------------------------------------------------------------------------------


class Answer:
    """
    What a client got. It is read when somebody looks: while a proxy is measured there is no time for it.

    @ivar at: when (C{time.monotonic}).
    @ivar status: 0 if the connection ended before there was a head.
    @ivar complete: whether the body came to its end.
    """

    def __init__(self, received: bytes) -> None:
        self.at = time.monotonic()
        self._received = received

    @cached_property
    def _response(self) -> http.client.HTTPResponse | None:
        response = http.client.HTTPResponse(_Received(self._received))  # type: ignore[arg-type]
        try:
            response.begin()
        except (http.client.HTTPException, ConnectionError):
            return None
        return response

    @cached_property
    def _body(self) -> tuple[bytes, bool]:
        if self._response is None:
            return b"", False
        try:
            return self._response.read(), True
        except http.client.IncompleteRead as cut:
            return cut.partial, False

    @property
    def status(self) -> int:
        return 0 if self._response is None else self._response.status

    @property
    def headers(self) -> Any:
        return {} if self._response is None else self._response.headers

    @property
    def body(self) -> bytes:
        return self._body[0]

    @property
    def complete(self) -> bool:
        return self._body[1]


class _Received:
    """A socket that was read to its end."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._received)


class Client(Protocol):
    """
    One request, on a connection of its own.

    @ivar answer: fires with the L{Answer} when the connection ends.
    @ivar received: the bytes so far, the head's among them.
    """

    transport: Any

    def __init__(self, request: bytes) -> None:
        self.answer: Deferred[Answer] = Deferred()
        self.received = bytearray()
        self._request = request

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.answer.callback(Answer(bytes(self.received)))

    def leave(self) -> None:
        """Close the connection at once."""
        if self.connected:
            self.transport.abortConnection()

    def pause(self) -> None:
        """Read no more."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self.transport.resumeProducing()


# Processes ------------------------------------------------------------------------------------------------------------


@attrs.define
class Running:
    """
    A process that listens.

    @ivar child: its output and its end.
    @ivar port: where it listens on 127.0.0.1.
    """

    child: Child
    process: Any
    port: int = 0

    @property
    def said(self) -> list[str]:
        """What a proxy's log says of Redis and of the gate, but for how late its heartbeats are on a busy machine."""
        line = (
            rb"\[thrtwisted\.(?:gate|redis)\.[^#\]]+#(?:info|warn|error|critical)\] (?!A heartbeat ran )(.*)"
        )
        return [text.decode() for text in re.findall(line, self.child.output)]

    @property
    def pid(self) -> int:
        return self.process.pid  # type: ignore[no-any-return]

    def signal(self, name: str) -> Deferred[int]:
        """Send a signal; fires with the exit status, as C{child.ended}."""
        self.process.signalProcess(name)
        return self.child.ended

    def freeze(self) -> None:
        """Let it do nothing at all, while its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self, field: str) -> int:
        """C{VmRSS} or C{VmHWM}, in bytes (proc(5))."""
        with open(f"/proc/{self.pid}/status") as status:
            [size] = re.findall(rf"^{field}:\s+(\d+) kB$", status.read(), re.MULTILINE)
        return int(size) * 1024


@attrs.frozen
class Work:
    """One request as the application saw it; its end is infinite as long as it is at work."""

    name: str
    begin: float
    end: float


class Looping(Running):
    """Clients that ask again and again."""

    async def end(self) -> dict[str, int]:
        """Let each come to its end; how many answers there were of each status."""
        self.process.closeStdin()
        assert await self.child.ended == 0, self.child.errors
        return json.loads(self.child.output)  # type: ignore[no-any-return]


class Backend(Running):
    """An application's process, which tells what it does."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begun(self, name: str) -> Deferred[None]:
        """Fires when the request of this name is in the application."""
        return self.child.said(f" begin {name}\n".encode())

    def ended(self, name: str) -> Deferred[None]:
        """Fires when the application has finished with the request of this name."""
        return self.child.said(f" end {name}\n".encode())

    def work(self, prefix: str = "") -> list[Work]:
        """What was done, in the order in which it began; or what was done under names that begin so."""
        done: dict[str, Work] = {}
        for seconds, what, name in re.findall(
            r"^(\S+) (begin|end) (\S+)\n", self.child.output.decode(), re.M
        ):
            if what == "begin":
                assert name not in done, f"{name} was forwarded twice"
                done[name] = Work(name, float(seconds), float("inf"))
            else:
                done[name] = attrs.evolve(done[name], end=float(seconds))
        return sorted(
            (work for work in done.values() if work.name.startswith(prefix)), key=lambda work: work.begin
        )

    def names(self) -> list[str]:
        """Whose work it was, in order."""
        return [work.name for work in self.work()]


def most_at_once(work: list[Work]) -> int:
    """How many were in the application together, at the worst moment."""
    changes = sorted([(each.begin, 1) for each in work] + [(each.end, -1) for each in work])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def most_begun(work: list[Work], since: float) -> int:
    """How many were in the application together when one of those began that began since then; 0 if there are none."""
    begun = [each for each in work if each.begin >= since]
    return max((sum(other.begin <= each.begin < other.end for other in work) for each in begun), default=0)


def busy(work: list[Work], slots: int) -> float:
    """The share of the time, from the first begin to the last end, in which the slots were in use."""
    span = max(each.end for each in work) - min(each.begin for each in work)
    return sum(each.end - each.begin for each in work) / (slots * span)


def working_in(directory: str) -> list[int]:
    """The processes that work in a directory or below. (Redis removes its environment, so that cannot be a mark.)"""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if f"{os.readlink(f'/proc/{name}/cwd')}/".startswith(f"{directory}/"):
                    found.append(int(name))
    return found


@attrs.frozen
class Missed:
    """
    A figure that is not as good as it should be.

    @ivar said: what it is.
    @ivar times: how often it is what it may be, where that can be told.
    """

    said: str
    times: float = 1.0


def is_excused(missed: list[tuple[Missed, float]], ceiling: float) -> bool:
    """
    Whether the noise may be why a figure was missed each time: it was never quiet, nor was all of it grossly missed.

    @param missed: what was measured, each time with the share of the processors that others had meanwhile.
    @param ceiling: how often a figure may be what it should be, with any noise.
    """
    return all(noise >= NOISE for _, noise in missed) and any(each.times <= ceiling for each, _ in missed)


def own_time() -> float:
    """The processor time (seconds) of this process and its descendants, be they gone or not."""
    parents, times = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
                # Its own time, and that of children that have ended: of those nothing else is left.
                parents[int(name)], times[int(name)] = int(fields[1]), sum(map(int, fields[11:15]))

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    return sum(times[pid] for pid in times if is_ours(pid)) / os.sysconf("SC_CLK_TCK")


def strangers() -> float:
    """The processor time (seconds, since the machine was started) of all but this process and its descendants."""
    with open("/proc/stat") as stat:
        # Interrupts are left out: those of the network are our own as well as others'.
        user, nice, system, _idle, _iowait, _irq, _softirq, stolen = map(int, stat.readline().split()[1:9])
    return (user + nice + system + stolen) / os.sysconf("SC_CLK_TCK") - own_time()


# The case -------------------------------------------------------------------------------------------------------------


class IntegrationCase(TestCase):
    """
    A test with processes, none of which it leaves behind.

    @ivar redis: the URL of the Redis of all tests, or of one of the test's own.
    @ivar namespace: of this test alone.
    @ivar outage: the policy of its proxies.
    @ivar settings: what else their table C{[redis]} says.
    """

    timeout = 60
    outage = "local"
    settings: ClassVar[dict[str, float]] = {"lease": LEASE}

    if not os.path.isdir("/proc/self"):
        skip = "processes are looked at through /proc"

    def setUp(self) -> None:
        self.redis = valkey.url()
        self.namespace = valkey.namespace()
        self._place = private_directory()
        self._proxies: list[Running] = []
        self._others: list[Child] = []
        self._clients: list[Client] = []
        self._lines: list[Cutter] = []
        self.addCleanup(self._tear_down)

    async def _tear_down(self) -> None:
        """Stop everything: the proxies as a user would."""
        for client in self._clients:
            client.leave()
        await gatherResults([client.answer for client in self._clients], consumeErrors=True)
        proxies = [proxy for proxy in self._proxies if not proxy.child.ended.called]
        for proxy in proxies:
            proxy.thaw()
        stopped = await gatherResults([proxy.signal("TERM") for proxy in proxies])
        for line in self._lines:
            await line.stop()
        orphans = self.of_proxies()
        for pid in working_in(self._place):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await gatherResults([child.ended for child in self._others])
        await until(lambda: not working_in(self._place))
        shutil.rmtree(self._place)
        self.assertEqual(orphans, [], "the processes that proxies have left")
        self.assertEqual(stopped, [-signal.SIGTERM] * len(stopped))
        for proxy in self._proxies:
            said = (proxy.child.output + proxy.child.errors).decode()
            self.assertNotIn("Traceback", said)
            self.assertNotIn("Unhandled", said)

    # Proxies

    async def proxy(
        self,
        config: str,
        *,
        url: str = "",
        listen: str = "tcp:0:interface=127.0.0.1",
        covered: bool = True,
    ) -> Running:
        """
        A proxy process that listens.

        @param config: the tables of its configuration, but for C{[redis]}.
        @param url: of Redis, if other than the tests'.
        @param listen: where it listens, at port 0.
        """
        config = f'listen = "{listen}"\nshutdown_timeout = 5.0\n{config}\n{self.redis_table(url)}'
        return await self.twistd("--config", self.written(config), covered=covered)

    def redis_table(self, url: str = "") -> str:
        """
        The table C{[redis]} of its configuration.

        @param url: if other than the tests'.
        """
        settings = "\n".join(f"{name} = {value}" for name, value in self.settings.items())
        return (
            f'[redis]\nurl = "{url or self.redis}"\nnamespace = "{self.namespace}"\n'
            f'outage = "{self.outage}"\n{settings}\n'
        )

    def written(self, text: str) -> str:
        """A file with this text."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write(text)
        return path

    async def twistd(self, *arguments: str, covered: bool = True) -> Running:
        """
        The command C{twistd thrproxy}, once it listens.

        @param covered: whether coverage may slow it down.
        """
        proxy = self.spawned(*arguments, covered=covered)
        # As ProxyResource's site says it; the demonstration's application has a Site of its own.
        proxy.port = await self._listening(proxy.child, rb"Site(?: \(\w+\))* starting on (\d+)\n")
        return proxy

    def spawned(self, *arguments: str, covered: bool = True) -> Running:
        """The command C{twistd thrproxy}, which is only just being started."""
        command = ("-m", "tests.integration.twistd", "-n", "--pidfile=", "thrproxy", *arguments)
        proxy = Running(*self._start("proxies", *command, covered=covered))
        self._proxies.append(proxy)
        return proxy

    def of_proxies(self) -> list[int]:
        """The processes that are proxies, or were started by one, be it gone or not."""
        return working_in(self._of("proxies"))

    def files_of_proxies(self) -> list[str]:
        """What proxies have in their directory for temporary files."""
        return os.listdir(self._of("proxies"))

    async def measured(
        self, measure: Callable[[str], Awaitable[Missed | None]], ceiling: float = math.inf
    ) -> None:
        """
        Measure something until it is as good as it should be. It is no failure if others have had the processors.

        @param measure: given the prefix of its requests' names, it says what is not good.
        @param ceiling: how often a figure may be what it should be when others have had them: more always fails.
        """
        missed = []
        for attempt in range(ATTEMPTS):
            since, before = time.monotonic(), strangers()
            problem = await measure(f"{attempt}-")
            if problem is None:
                return
            noise = (strangers() - before) / (time.monotonic() - since) / (os.cpu_count() or 1)
            missed.append((problem, noise))
        said = "; ".join(f"{each.said} (others had {noise:.0%} of the processors)" for each, noise in missed)
        if is_excused(missed, ceiling):
            raise SkipTest(f"the machine is at work on something else: {said}")
        self.fail(said)

    # Backends

    async def lean(self) -> Backend:
        """The application on a server with little overhead."""
        return await self._backend(rb"listens on \S+:(\d+)\n", "tests.integration.lean")

    async def waitress(self, threads: int) -> Backend:
        """The application on waitress."""
        return await self._backend(
            rb"Serving on \S+:(\d+)\n",
            *("waitress", "--listen=127.0.0.1:0", f"--threads={threads}"),
            "tests.integration.application:application",
        )

    async def gunicorn(self, threads: int) -> Backend:
        """The application on gunicorn."""
        return await self._backend(
            rb"Listening at: \S+:(\d+) ",
            *("gunicorn", "--bind=127.0.0.1:0", "--worker-class=gthread", f"--threads={threads}"),
            "tests.integration.application",
        )

    async def _backend(self, listening: bytes, *command: str) -> Backend:
        backend = Backend(*self.other("-m", *command))
        backend.port = await self._listening(backend.child, listening)
        return backend

    def other(self, *command: str) -> tuple[Child, Any]:
        """Any other process of the test's, which is killed in the end."""
        child, process = self._start("others", *command, covered=False)
        self._others.append(child)
        return child, process

    def _of(self, part: str) -> str:
        """The directory of a part of the test's processes."""
        directory = os.path.join(self._place, part)
        os.makedirs(directory, exist_ok=True)
        return directory

    def _start(self, part: str, *command: str, covered: bool) -> tuple[Child, Any]:
        kept = dict(os.environ)
        os.environ["TMPDIR"] = self._of(part)
        os.environ["UNCOVERED"] = "" if covered else "1"
        try:
            return python(*command, directory=self._of(part))
        finally:
            os.environ.clear()
            os.environ.update(kept)

    async def _listening(self, child: Child, line: bytes) -> int:
        """The port that a process says in a line."""
        pattern = re.compile(line)

        def ports() -> list[bytes]:
            if child.ended.called:
                raise AssertionError((child.output + child.errors).decode())
            return pattern.findall(child.output + child.errors)

        await until(ports)
        return int(ports()[0])

    # Clients

    def ask(
        self,
        server: Running,
        target: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes = b"",
    ) -> Client:
        """Send a request."""
        fields = {"Host": "localhost", "Connection": "close", **(headers or {})}
        if body:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        client = Client("\r\n".join([*lines, "", ""]).encode() + body)
        self._clients.append(client)
        connecting = connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", server.port), client)
        connecting.addErrback(lambda failure: client.answer.errback(failure))
        return client

    async def crowd(
        self, count: int, target: str, *servers: Running, per_second: float = math.inf
    ) -> dict[str, int]:
        """Send many requests at once from a process of their own; how many answers there are of each status."""
        ports = [str(server.port) for server in servers]
        arguments = (str(count), target, str(1 / per_second), *ports)
        child, _ = self.other("-m", "tests.integration.crowd", *arguments)
        self.assertEqual(await child.ended, 0, child.errors)
        return json.loads(child.output)  # type: ignore[no-any-return]

    def looping(self, clients: int, target: str, *servers: Running) -> Looping:
        """Clients in a process of their own, each of which asks again as soon as it is answered."""
        ports = [str(server.port) for server in servers]
        return Looping(*self.other("-m", "tests.integration.loop", str(clients), target, *ports))

    async def let(self, backend: Backend, name: str) -> None:
        """Let a request of C{/hold/NAME} end."""
        answer = await self.ask(backend, f"/let/{name}").answer
        self.assertEqual(answer.status, 200)

    # Redis

    async def server(self, *options: str, program: str = "") -> Running:
        """
        A Redis server of the test's own, which listens on a unix socket: the same one when it is started again.

        @param options: more of them, which say where else it listens.
        @param program: other than the embedded one.
        """
        directory = self._of("others")
        command = server_command(program or installed_server(), directory)
        server = Running(*self.other(*command[1:], *options))
        await server.child.said(READY.encode())
        self.redis = f"unix://{directory}/{SOCKET}"
        return server

    def line(self, upstream: str) -> tuple[Cutter, str]:
        """A line to the server with a socket, and the URL for a proxy."""
        line = Cutter(upstream)
        url = line.listen(f"{self._of('others')}/{len(self._lines)}.sock")
        self._lines.append(line)
        return line, url

    def database(self) -> Any:
        """A blocking client of Redis, a context manager."""
        return Valkey.from_url(self.redis)

    def waiting(self) -> int:
        """How many tickets wait, as Redis has it."""
        with self.database() as redis:
            return int(redis.hget(f"{{{self.namespace}}}:gate", "waiting") or 0)

    def admitted(self) -> int:
        """How many slots are taken, as Redis has it."""
        with self.database() as redis:
            return sum(map(int, redis.hvals(f"{{{self.namespace}}}:used")))

    async def gone(self) -> None:
        """Nothing is left in Redis of the proxies, all of which were stopped."""
        self.assertEqual(self.keys(), [])

    async def idle(self) -> None:
        """Nobody waits, and no slot is taken: then nothing is left in Redis but who is there."""
        own = f"{{{self.namespace}}}".encode()
        await until(lambda: not [key for key in self.keys() if not self.says_who_is_there(key)])
        with self.database() as redis:
            gate = redis.hgetall(own + b":gate")
        counts = {name: int(count) for name, count in gate.items() if name.startswith((b"waiting", b"held"))}
        self.assertEqual([count for count in counts.values() if count], [])

    def says_who_is_there(self, key: bytes) -> bool:
        """Whether a key is there as long as there are proxies, though nobody asks."""
        return key.endswith((b"}:owners", b"}:gate"))

    def keys(self) -> list[bytes]:
        """What this test has in Redis."""
        with self.database() as redis:
            return list(redis.scan_iter(match=f"{{{self.namespace}}}*"))
