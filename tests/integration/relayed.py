"""
What the tests of the relay share: fronts and workers, each a process; and the same tests over the relay as without it.

Whoever puts L{Relayed} before a case has a front and a worker wherever the case has a proxy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from threading import Event, Thread
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from tests.integration.harness import LEASE, Answer, Backend, Client, IntegrationCase, Running, until
from thrtwisted.relay.codec import decode
from thrtwisted.relay.flow import OVERHEAD

#: Requests that the worker of a proxy that became two has at once: so many that it is limits that count.
PLENTY = 200

#: What Redis says of the time to live of a key that is not there.
GONE = -2

#: What there is in Redis as long as there are fronts or workers.
_ROSTER = (b"}:workers", b"}:owners", b"}:gate")


class Relayed(IntegrationCase):
    """
    A front and a worker wherever there would be a proxy. Both are made from one configuration.

    @ivar workers: those that run, or did.
    """

    outage = "closed"  # what it is in a relay

    def setUp(self) -> None:
        super().setUp()
        self.workers: list[Running] = []

    async def twistd(self, *arguments: str, covered: bool = True) -> Running:
        """The front of a configuration, once a worker with the same one is registered."""
        flag, path = arguments
        assert flag == "--config"
        with open(path) as file:
            config = file.read()
        if "[redis]" not in config:
            config += self.redis_table()
        starting = ensureDeferred(self.start_front(config, covered=covered))
        await self.start_worker(config, concurrency=PLENTY, covered=covered)
        return await starting

    async def start_front(self, config: str, *, covered: bool = True, **relay: Any) -> Running:
        """
        A front that listens.

        @param config: all of its file, but for C{[relay]}, to which there may be more arguments.
        """
        path = self.written(f"{config}\n{relay_table('front', **relay)}")
        return await super().twistd("--config", path, covered=covered)

    async def start_worker(self, config: str, *, covered: bool = True, **relay: Any) -> Running:
        """A worker that is registered. See L{start_front}."""
        path = self.written(f"{config}\n{relay_table('worker', **relay)}")
        worker = self.spawned("--config", path, covered=covered)
        self.workers.append(worker)
        await worker.child.said(b"Worker of ")
        return worker

    async def gone(self) -> None:
        """Nothing is left in Redis of the fronts, all of which were stopped, and of the workers."""
        for worker in self.workers:
            if not worker.child.ended.called:
                await worker.signal("TERM")
        # What was still said to a front that had gone passes by itself.
        await until(lambda: self.keys() == self.inboxes())
        await until(lambda: not self.inboxes(), limit=3 * LEASE)

    def inboxes(self) -> list[bytes]:
        """The keys of all inboxes."""
        return [key for key in self.keys() if b"}:inbox:" in key]

    def says_who_is_there(self, key: bytes) -> bool:
        """See L{IntegrationCase}; inboxes and the workers' free places are such, too."""
        return key.endswith(_ROSTER) or any(part in key for part in (b"}:serving:", b"}:inbox:"))


def relay_table(role: str, **settings: Any) -> str:
    """The table C{[relay]}."""
    lines = [f'role = "{role}"']
    for name, value in settings.items():
        # Strings and lists of strings are written in TOML as in Python, but for the quotes.
        lines.append(f"{name} = {value!r}".replace("'", '"'))
    return "\n".join(["[relay]", *lines, ""])


class RelayCase(Relayed):
    """
    Fronts and workers that start and stop when a test wants it.

    @ivar config: the tables of all of them, but for C{[redis]}.
    """

    timeout = 120
    config = """
[backend.app]
url = "{url}"

[[limit]]
name = "one"
key = "header:One"
max_concurrent = 1
"""

    def file(self, backend: Backend | str, *, url: str = "", shutdown_timeout: float = 5.0) -> str:
        """
        All of a configuration, but for C{[relay]}.

        @param url: of Redis, if other than the tests'.
        """
        config = self.config.format(url=backend if isinstance(backend, str) else backend.url)
        place = 'listen = "tcp:0:interface=127.0.0.1"'
        return f"{place}\nshutdown_timeout = {shutdown_timeout}\n{config}\n{self.redis_table(url)}"

    async def front(
        self, backend: Backend | str, *, url: str = "", covered: bool = True, **relay: Any
    ) -> Running:
        """A front that is connected."""
        front = await self.start_front(self.file(backend, url=url), covered=covered, **relay)
        await front.child.said(b"is connected")
        return front

    async def worker(
        self,
        backend: Backend | str,
        *,
        url: str = "",
        shutdown_timeout: float = 5.0,
        covered: bool = True,
        **relay: Any,
    ) -> Running:
        """A worker that is registered."""
        file = self.file(backend, url=url, shutdown_timeout=shutdown_timeout)
        return await self.start_worker(file, covered=covered, **relay)

    async def pair(self, backend: Backend | str, **worker: Any) -> tuple[Running, Running]:
        """
        A front and a worker.

        @param worker: what L{worker} is given.
        """
        starting = ensureDeferred(self.front(backend))
        registered = await self.worker(backend, **worker)
        return await starting, registered

    async def done(self, *clients: Client) -> list[int]:
        """The statuses of answers, all of which are complete or none."""
        answers = await gatherResults([client.answer for client in clients])
        self.assertEqual([answer.complete for answer in answers], [answer.status != 0 for answer in answers])
        return [answer.status for answer in answers]

    def lost(self, answer: Answer, since: float) -> None:
        """It says that the worker is gone, in time."""
        self.assertEqual((answer.status, answer.complete), (502, True))
        self.assertIn("error=connection_terminated", answer.headers["Proxy-Status"])
        self.assertLess(answer.at - since, LEASE + 1.0)

    # What is in Redis

    def places(self) -> list[bytes]:
        """The places of workers that are taken, and by whom: C{t} for a front's request, C{o} for a dead front's."""
        with self.database() as redis:
            keys = redis.scan_iter(match=f"{{{self.namespace}}}:at:*")
            return [place for key in keys for place in redis.hvals(key)]

    def taken(self) -> int:
        """How many places of workers are taken."""
        return len(self.places())

    @contextmanager
    def watched(self) -> Iterator[Peaks]:
        """Look at the inboxes again and again, in a thread."""
        peaks, end = Peaks(), Event()

        def look() -> None:
            with self.database() as redis:
                while not end.wait(0.002):
                    keys = self.inboxes()
                    with redis.pipeline(transaction=True) as together:
                        for key in keys:
                            together.xrange(key).pttl(key).memory_usage(key)
                        peaks.see(together.execute())

        watching = Thread(target=look)
        watching.start()
        try:
            yield peaks
        finally:
            end.set()
            watching.join()


@attrs.define
class Peaks:
    """
    What was seen of inboxes.

    @ivar times: how often somebody looked, and there was something.
    @ivar exchange: bytes of one exchange's frames together, in both directions, at the worst moment.
    @ivar flow: bytes of one exchange's numbered frames in one direction, as its window counts them.
    @ivar memory: bytes of all inboxes, as Redis counts them.
    @ivar left: the times (ms) that inboxes had to live; -1 if one had no end.
    """

    times: int = 0
    exchange: int = 0
    flow: int = 0
    memory: int = 0
    left: set[int] = attrs.field(factory=set)

    def see(self, seen: list[Any]) -> None:
        """For each inbox, its entries, the time that it has to live and its memory."""
        sizes: Counter[tuple[str, int]] = Counter()
        for entries in seen[::3]:
            flows: Counter[tuple[str, int]] = Counter()
            for _, fields in entries or []:
                for frame in decode(next(iter(fields.values()))):
                    cost = OVERHEAD + len(frame.payload)
                    sizes[frame.front, frame.number] += cost
                    flows[frame.front, frame.number] += cost if frame.seq else 0
            self.flow = max([self.flow, *flows.values()])
        self.times += bool(sizes)
        self.exchange = max([self.exchange, *sizes.values()])
        self.memory = max(self.memory, sum(size or 0 for size in seen[2::3]))
        self.left |= {left for left in seen[1::3] if left != GONE}


class Upload(Protocol):
    """A connection to L{Uploads}."""

    transport: Any
    factory: Uploads

    def connectionMade(self) -> None:
        self._head = b""
        self._digest = sha256()
        self._left = -1
        self.factory.connections.append(self)
        if self.factory.paused:
            self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            [length] = re.findall(rb"content-length: (\d+)", head, re.IGNORECASE)
            self._left = int(length)
        self._digest.update(data)
        self._left -= len(data)
        if not self._left:
            self._left = -1
            said = self._digest.hexdigest().encode()
            self.factory.done.append(said.decode())
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(said)
            self.transport.write(head + said)
            self.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.factory.connections.remove(self)


class Uploads(Factory):
    """
    An application that answers with the digest of what it was sent; it reads when it is told to.

    @ivar paused: whether it does not read yet from connections that are opened from now on.
    @ivar connections: those that stand.
    @ivar done: the digests.
    """

    protocol = Upload
    noisy = False

    def __init__(self) -> None:
        self.paused = False
        self.connections: list[Upload] = []
        self.done: list[str] = []

    async def listen(self, case: IntegrationCase) -> str:
        """Begin; its URL."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self)
        case.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def resume(self) -> None:
        """Read."""
        self.paused = False
        for connection in self.connections:
            connection.transport.resumeProducing()
