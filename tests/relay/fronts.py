"""What the tests of fronts stand on: admissions and workers by hand, and a client that takes a response."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from zope.interface import implementer

from tests.relay.crew import MemoryGate
from tests.relay.support import MemoryPosts, Talker
from thrtwisted.config import Backend, Config, Redis, Relay
from thrtwisted.errors import ExchangeError
from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.forward import RequestBody
from thrtwisted.forward.disk import Disk
from thrtwisted.gate import AlreadyTaken, IAdmission, Quota
from thrtwisted.relay import IPostUser
from thrtwisted.relay.codec import Frame, Head, Kind, Opening, Problem, decode_payload, encode_payload
from thrtwisted.relay.conversation import Conversation, answer_unknown
from thrtwisted.relay.forwarding import RelayedForwarding
from thrtwisted.relay.front import Front

#: Bytes of one exchange that are under way in these tests.
WINDOW = 4096


@implementer(IAdmission)
class Place:
    """
    An admission to a worker, by hand.

    @ivar held: nobody has given it back, and it is not spent.
    @ivar when_left: the place that it has had already when it leaves the queue.
    @ivar is_answered: the gate has said that no worker has begun.
    @ivar queued: what C{again} has returned last, and with which C{taken_too}.
    """

    waited = 0.0

    def __init__(self, serial: int, worker: str | None) -> None:
        self.serial = serial
        self.worker = worker
        self.quotas: dict[str, Quota] = {}
        self.held = True
        self.releases = 0
        self.when_left: Place | None = None
        self.is_answered = True
        self.queued: tuple[Deferred[Any], bool] | None = None

    def release(self) -> None:
        assert self.held, "released in vain"
        self.held = False
        self.releases += 1

    def again(self, *, taken_too: bool) -> Deferred[IAdmission]:
        assert self.held, "nothing to give back"
        self.held = False
        waiting: Deferred[IAdmission] = Deferred(self._left)
        self.queued = waiting, taken_too
        return waiting

    def _left(self, waiting: Deferred[IAdmission]) -> None:
        if self.when_left is not None:
            waiting.callback(self.when_left)
        elif not self.is_answered:
            self.was_taken()

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.queued is not None and not self.queued[0].called

    def admit(self, place: Place) -> Place:
        """The gate has another place for its ticket."""
        assert self.queued is not None
        self.queued[0].callback(place)
        return place

    def was_taken(self) -> None:
        """The gate says that the worker has taken the ticket."""
        assert self.queued is not None and not self.queued[1]
        self.held = True
        self.queued[0].errback(AlreadyTaken())

    def refuse(self, error: Exception) -> None:
        """The gate admits it no more."""
        assert self.queued is not None
        self.queued[0].errback(error)


class Hand(Talker):
    """A worker's side of one exchange."""

    def __init__(self, worker: HandWorker, frame: Frame) -> None:
        super().__init__(greedy=worker.greedy)
        self.conversation = Conversation(worker.post, frame.front, frame.front, frame.number, WINDOW, self)

    @property
    def kinds(self) -> list[Kind]:
        """What the front has said, in its order."""
        return [kind for kind, _ in self.heard]

    @property
    def opening(self) -> Opening:
        """The request's head."""
        [payload] = [payload for kind, payload in self.heard if kind == Kind.OPEN]
        opening: Opening = decode_payload(payload, Opening)
        return opening

    @property
    def body(self) -> bytes:
        """What has come of the request's body."""
        return b"".join(payload for kind, payload in self.heard if kind == Kind.DATA)

    def say(self, *kinds: Kind) -> None:
        """Words that have no payload."""
        for kind in kinds:
            self.conversation.say(kind)

    def head(
        self, status: int = 200, length: int | None = None, phrase: bytes = b"Fine", **fields: bytes
    ) -> None:
        """
        The response begins.

        @param fields: that it has besides; C{Content_Length} in place of that with the length.
        """
        if length is not None:
            fields = {"Content_Length": b"%d" % length, **fields}
        more = [(name.replace("_", "-").encode(), [value]) for name, value in fields.items() if value]
        head = Head(status, phrase, [(b"X-A", [b"1", b"2"]), *more], length)
        self.conversation.say(Kind.HEAD, encode_payload(head))

    def fail(self, error: str, text: str = "No.", retry_after: float | None = None) -> None:
        """There is no response."""
        self.conversation.say(Kind.FAILED, encode_payload(Problem(error, text, retry_after)))

    def answer(self, body: bytes = b"ok") -> None:
        """All of a response, as a worker says it that has it all at once."""
        self.head()
        self.conversation.write(body)
        self.conversation.tell(Kind.DONE)
        self.say(Kind.END, Kind.DONE)


@implementer(IPostUser)
class HandWorker:
    """A worker, by hand."""

    def __init__(self, posts: MemoryPosts, name: str, *, greedy: bool = True) -> None:
        self.post = posts.post(name)
        self.greedy = greedy
        self.hands: dict[int, Hand] = {}
        self.unknown: list[Frame] = []
        self.post.start(self)

    def up(self) -> None:
        for hand in self.hands.values():
            hand.up()

    def down(self) -> None:
        pass

    def received(self, frame: Frame) -> None:
        if frame.number not in self.hands and frame.kind == Kind.OPEN and frame.seq == 1:
            self.hands[frame.number] = Hand(self, frame)
        if frame.number in self.hands:
            self.hands[frame.number].received(frame)
        else:
            self.unknown.append(frame)
            answer_unknown(self.post, frame)

    @property
    def hand(self) -> Hand:
        """The latest exchange."""
        return self.hands[max(self.hands)]

    def forget(self) -> None:
        """It knows nothing any more, and says nothing."""
        self.hands.clear()


class Client:
    """What a response is delivered to: as much as that uses of a client's request."""

    def __init__(self) -> None:
        self.transport = self
        self.body = b""
        self.finished = False
        self.aborted = False
        self.producer: Any = None
        self.gone: Deferred[None] = Deferred()

    def notifyFinish(self) -> Deferred[None]:
        return self.gone

    def write(self, data: bytes) -> None:
        self.body += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def finish(self) -> None:
        self.finished = True

    def abortConnection(self) -> None:
        self.aborted = True

    def leave(self) -> None:
        """The client leaves amidst the response."""
        self.gone.errback(ConnectionError("left"))
        self.gone.addErrback(lambda _: None)  # perhaps nobody has looked


class FrontRig:
    """
    A front in memory, with workers and a gate by hand.

    @ivar files: the requests' bodies.
    @ivar heads: what became of each exchange's head: a L{ResponseHead} or an L{ExchangeError}.
    @ivar done: the forwardings that are done, as often as they were.
    @ivar left: places that nobody has given back, at most, when the way was closed.
    """

    def __init__(self, test: SynchronousTestCase, retry: Any = "never", **backend: Any) -> None:
        self.test = test
        self.clock = Clock()
        self.posts = MemoryPosts(self.clock)
        self.gate = MemoryGate()
        self.crew = self.gate.crew
        self.disk = Disk(10_000_000)
        config = Config(
            backend={"app": Backend(**backend), "api": Backend()},
            redis=Redis(url="redis://nowhere"),
            relay=Relay(role="front", max_inline=2 * WINDOW, retry=retry),
        )
        self.front = Front(self.clock, config, self.gate, self.posts.post("front"), self.disk)
        self.way = self.front.forwarder("app")
        self.workers: dict[str, HandWorker] = {}
        self.places: list[Place] = []
        self.forwardings: list[RelayedForwarding] = []
        self.files: list[BytesIO] = []
        self.heads: dict[RelayedForwarding, list[ResponseHead | ExchangeError]] = {}
        self.done: list[RelayedForwarding] = []
        self.left = 0
        test.addCleanup(self.check_nothing_left)

    def worker(self, name: str = "w1", **options: Any) -> HandWorker:
        """A worker; there is one of each name."""
        if name not in self.workers:
            self.workers[name] = HandWorker(self.posts, name, **options)
        return self.workers[name]

    def place(self, worker: str = "w1") -> Place:
        """An admission."""
        self.worker(worker)
        self.places.append(Place(100 + len(self.places), worker))
        return self.places[-1]

    def send(self, method: bytes = b"GET", body: bytes = b"", worker: str = "w1") -> RelayedForwarding:
        """An exchange is forwarded."""
        file = BytesIO(body)
        self.files.append(file)
        headers = Headers({b"Host": [b"h"], b"X-B": [b"1", b"2"], b"X-Number": [b"%d" % len(self.files)]})
        exchange = Exchange(method, b"/path?q", headers, "", "app", version=b"HTTP/1.0")
        forwarding = self.way.send(exchange, RequestBody(file), self.place(worker))
        exchange.headers = Headers()  # whoever changes it later changes nothing
        heads = self.heads[forwarding] = []
        self.forwardings.append(forwarding)
        forwarding.done.addCallback(lambda _: self.done.append(forwarding))
        forwarding.head.addCallbacks(heads.append, lambda failure: heads.append(failure.value))
        self.turn()
        return forwarding

    def turn(self) -> None:
        """All frames arrive."""
        self.clock.advance(0)

    def head(self, forwarding: RelayedForwarding) -> ResponseHead:
        """The response's head."""
        [head] = self.heads[forwarding]
        assert isinstance(head, ResponseHead), head
        return head

    def error(self, forwarding: RelayedForwarding) -> ExchangeError:
        """Why there is no response."""
        [error] = self.heads[forwarding]
        assert isinstance(error, ExchangeError)
        return error

    def deliver(self, forwarding: RelayedForwarding) -> Client:
        """The response goes to a client."""
        client = Client()
        forwarding.deliver(client)
        self.turn()
        return client

    def die(self, worker: str = "w1") -> None:
        """A worker's lease runs out; it says nothing more."""
        self.workers[worker].forget()
        self.crew.watched[worker]()
        self.test.assertNotIn(worker, self.crew.watched)  # nobody waits for what is known
        self.turn()

    def close(self) -> None:
        """The way to the backend is closed. What is not finished, and does not queue, is left to the gate."""
        queued = sum(place.waits for place in self.places)
        self.left += len(self.forwardings) - len(self.done) - queued
        self.test.successResultOf(self.way.close())
        self.turn()

    def check_nothing_left(self) -> None:
        """
        All ends: each is done once, each place given back once, or left to the gate if a worker may be at work; no
        timer, no file, nobody watched or talked to.
        """
        self.close()
        self.crew.stop()
        closed = self.front.stop()
        self.turn()
        self.test.successResultOf(closed)
        self.test.assertEqual(sorted(map(id, self.done)), sorted(map(id, self.forwardings)))
        for forwarding in self.forwardings:
            self.test.assertEqual(len(self.heads[forwarding]), 1)
        self.test.assertLessEqual(sum(place.held for place in self.places), self.left)
        self.test.assertFalse(any(place.waits for place in self.places))
        self.test.assertTrue(all(file.closed for file in self.files))
        self.test.assertEqual(self.crew.watched, {})
        self.test.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        self.test.assertEqual(repr(self.disk), "<Disk 0 of 10000000, 0 waiting>")
        self.test.assertEqual(repr(self.front), "<Front front, 0 exchanges at 0 workers>")
