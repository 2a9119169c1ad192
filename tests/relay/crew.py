"""What the tests of workers stand on: a gate's crew in memory, a front by hand, and a real backend's connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.forward.support import Wire
from tests.relay.support import MemoryPost, MemoryPosts, Talker
from thrtwisted.config import Backend, Relay
from thrtwisted.errors import GateUnavailable
from thrtwisted.forward import Forwarder
from thrtwisted.forward.disk import Disk
from thrtwisted.relay import IPostUser
from thrtwisted.relay.codec import Frame, Head, Kind, Opening, Problem, decode_payload, encode_payload
from thrtwisted.relay.conversation import Conversation, answer_unknown
from thrtwisted.relay.worker import Worker

#: Bytes of one exchange that are under way in these tests.
WINDOW = 4096


class MemoryCrew:
    """
    What the gate says to one worker, by hand.

    @ivar assigned: tickets that are there to be taken, each a front and a serial.
    @ivar taken: those that were.
    @ivar dead: fronts that are.
    @ivar elsewhere: places that other workers have, for each queue.
    @ivar inherited: what was said of dead fronts' tickets.
    @ivar slow: questions wait for L{answer}.
    """

    def __init__(self) -> None:
        self.assigned: set[tuple[str, int]] = set()
        self.taken: set[tuple[str, int]] = set()
        self.dead: set[str] = set()
        self.elsewhere: dict[str, int] = {}
        self.concurrency = 0
        self.queues: tuple[str, ...] = ()
        self.inherited: list[tuple[str, list[int]]] = []
        self.watched: dict[str, Callable[[], None]] = {}
        self.left = 0
        self.slow = False
        self.pending: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.stopped = False

    def answer(self) -> None:
        """Answer all that was asked."""
        pending, self.pending = self.pending, []
        for asked, answer in pending:
            if not asked.called:
                asked.callback(answer())

    def stop(self) -> None:
        """The gate stops."""
        self.stopped = True
        pending, self.pending = self.pending, []
        for asked, _ in pending:
            if not asked.called:
                asked.errback(GateUnavailable.stopping())

    def die(self, front: str) -> None:
        """A front's lease has run out."""
        self.dead.add(front)
        self.watched.pop(front)()

    def _ask(self, answer: Callable[[], Any]) -> Deferred[Any]:
        if not self.slow and not self.stopped:
            return succeed(answer())
        asked: Deferred[Any] = Deferred()
        self.pending.append((asked, answer))
        if self.stopped:
            self.stop()
        return asked

    def serve(self, concurrency: int, queues: Sequence[str]) -> Deferred[int]:
        def answer() -> int:
            self.concurrency, self.queues = concurrency, tuple(queues)
            return self.left

        return self._ask(answer)

    def take(self, front: str, serial: int) -> Deferred[bool]:
        def answer() -> bool:
            if (front, serial) not in self.assigned:
                return False
            self.taken.add((front, serial))
            return True

        return self._ask(answer)

    def inherit(self, front: str, serials: Callable[[], Iterable[int]]) -> Deferred[bool]:
        def answer() -> bool:
            self.inherited.append((front, list(serials())))
            return front in self.dead

        return self._ask(answer)

    def watch(self, owner: str, lost: Callable[[], None]) -> Callable[[], None]:
        assert owner not in self.watched
        self.watched[owner] = lost
        return lambda: None if self.watched.get(owner) is not lost else void(self.watched.pop(owner))

    def served(self, queues: Iterable[str]) -> Deferred[dict[str, int]]:
        def answer() -> dict[str, int]:
            own = dict.fromkeys(self.queues, self.concurrency)
            return {queue: own.get(queue, 0) + self.elsewhere.get(queue, 0) for queue in queues}

        return self._ask(answer)


def void(_: object) -> None:
    """Nothing."""


class MemoryGate:
    """As much of a gate as a worker uses."""

    def __init__(self) -> None:
        self.crew = MemoryCrew()
        self.leased = True
        self.answering = True


class Asker(Talker):
    """A front's side of one exchange."""

    def __init__(self, desk: Desk, number: int, *, greedy: bool = True) -> None:
        super().__init__(greedy=greedy)
        self.number = number
        self.conversation = Conversation(desk.post, "worker", desk.name, number, WINDOW, self)

    @property
    def kinds(self) -> list[Kind]:
        """What was heard, in its order."""
        return [kind for kind, _ in self.heard]

    @property
    def head(self) -> Head:
        """The response's head."""
        [payload] = [payload for kind, payload in self.heard if kind == Kind.HEAD]
        head: Head = decode_payload(payload, Head)
        return head

    @property
    def problem(self) -> Problem:
        """Why there is no response."""
        [payload] = [payload for kind, payload in self.heard if kind == Kind.FAILED]
        problem: Problem = decode_payload(payload, Problem)
        return problem

    @property
    def body(self) -> bytes:
        """What has come of the response's body."""
        return b"".join(payload for kind, payload in self.heard if kind == Kind.DATA)


@implementer(IPostUser)
class Desk:
    """A front, by hand."""

    def __init__(self, posts: MemoryPosts, crew: MemoryCrew, name: str = "front") -> None:
        self.name = name
        self.crew = crew
        self.post: MemoryPost = posts.post(name)
        self.askers: dict[int, Asker] = {}
        self.unknown: list[Frame] = []
        self.opened = 0
        self.post.start(self)

    def up(self) -> None:
        for asker in self.askers.values():
            asker.up()

    def down(self) -> None:
        pass

    def received(self, frame: Frame) -> None:
        if frame.number in self.askers:
            self.askers[frame.number].received(frame)
        else:
            self.unknown.append(frame)
            answer_unknown(self.post, frame)

    def forget(self, asker: Asker) -> None:
        """It is over for this side."""
        del self.askers[asker.number]
        asker.conversation.end()

    def open(
        self,
        method: bytes = b"GET",
        length: int = 0,
        *,
        queue: str = "app",
        assigned: bool = True,
        greedy: bool = True,
        headers: list[tuple[bytes, list[bytes]]] | None = None,
    ) -> Asker:
        """Open an exchange whose ticket's serial is ten times its number."""
        self.opened += 1
        asker = Asker(self, self.opened, greedy=greedy)
        self.askers[asker.number] = asker
        if assigned:
            self.crew.assigned.add((self.name, 10 * asker.number))
        fields = [(b"Host", [b"h"])] if headers is None else headers
        if length:
            fields.append((b"Content-Length", [b"%d" % length]))
        opening = Opening(10 * asker.number, queue, method, b"/path", fields, b"HTTP/1.1", length)
        asker.conversation.say(Kind.OPEN, encode_payload(opening))
        if not length:
            asker.conversation.say(Kind.END)
        return asker


class WorkerRig:
    """
    A worker in memory, with the front that talks to it, and its backends.

    @ivar backends: the connections to the backends, in the order in which they were accepted.
    @ivar said: what the worker's log says of its start.
    """

    def __init__(
        self, test: SynchronousTestCase, concurrency: int = 2, lease: float = 5.0, **backend: Any
    ) -> None:
        self.test = test
        self.clock = MemoryReactorClock()
        self.posts = MemoryPosts(self.clock)
        self.gate = MemoryGate()
        self.crew = self.gate.crew
        self.disk = Disk(10_000_000)
        backend = {"url": "http://127.0.0.1:9999", "keep_alive": 0, **backend}
        self.forwarders = {
            name: Forwarder(self.clock, name, Backend(**backend), self.disk) for name in ("app", "api")
        }
        relay = Relay(role="worker", concurrency=concurrency, max_inline=2 * WINDOW)
        self.post = self.posts.post("worker")
        self.worker = Worker(
            self.clock, relay, ["app", "api"], self.gate, self.post, self.forwarders, lease=lease
        )
        with capturedLogs() as log:
            self.worker.start()
        self.said = [formatEvent(event) for event in log]
        self.front = Desk(self.posts, self.crew)
        self.backends: list[Wire] = []
        test.addCleanup(self.check_nothing_left)

    def open(self, *arguments: Any, **options: Any) -> Asker:
        """The front opens an exchange."""
        asker = self.front.open(*arguments, **options)
        self.turn()
        return asker

    def turn(self) -> None:
        """All frames arrive."""
        self.clock.advance(0)

    @property
    def connections(self) -> int:
        """How many connections to the backend were asked for."""
        return len(self.clock.tcpClients)

    def accept(self, **attributes: Any) -> Wire:
        """The backend accepts the next connection."""
        factory = self.clock.tcpClients[len(self.backends)][2]
        wire = Wire.__new__(Wire)
        for name, value in attributes.items():
            setattr(wire, name, value)
        wire.__init__(self.clock, factory.buildProtocol(None))  # type: ignore[misc]
        self.backends.append(wire)
        self.turn()
        return wire

    def refuse(self, error: Exception) -> None:
        """The last connection to the backend fails."""
        self.clock.tcpClients[-1][2].clientConnectionFailed(None, Failure(error))
        self.turn()

    def answer(self, wire: Wire, data: bytes) -> None:
        """The backend says something."""
        wire.receive(data)
        self.turn()

    def check_nothing_left(self) -> None:
        """All ends: no delayed call, no open file, no exchange, nobody watched."""
        self.crew.stop()
        closed = [forwarder.close() for forwarder in self.forwarders.values()]
        for wire in self.backends:
            wire.lose()
        self.turn()
        for deferred in closed:
            self.test.successResultOf(deferred)
        self.worker.end()
        self.turn()
        self.test.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        self.test.assertEqual(self.crew.watched, {})
        self.test.assertEqual(repr(self.disk), "<Disk 0 of 10000000, 0 waiting>")
        self.test.assertRegex(repr(self.worker), "<Worker 0 of [0-9]+ places taken, 0 exchanges>")


def garbage() -> bytes:
    """What is no opening."""
    return msgspec.msgpack.encode({"no": "opening"})
