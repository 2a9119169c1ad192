"""Whatever clients, workers, the gate and Redis do, in whatever order: each exchange ends once, and gives back once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.relay.fronts import Client, FrontRig, Hand, HandWorker, Place
from thrtwisted.errors import QueueTimeout
from thrtwisted.exchange import ResponseHead
from thrtwisted.relay.codec import Frame, Head, Kind, Opening, Problem, encode_payload
from thrtwisted.relay.forwarding import RelayedForwarding

WORKERS = ("w1", "w2")


class History:
    """A front, and what happens to its exchanges. What cannot happen now does not."""

    def __init__(self, rig: FrontRig) -> None:
        self.rig = rig
        self.clients: dict[RelayedForwarding, Client] = {}
        self.taken: set[int] = set()
        self.executed: Counter[tuple[bytes, bytes]] = Counter()

    def send(self, number: int) -> None:
        """An exchange is admitted."""
        method = (b"GET", b"POST")[number % 2]
        forwarding = self.rig.send(method, bytes(3000 * (number % 3)), WORKERS[number % 2])
        forwarding.head.addCallback(lambda _: self.deliver(forwarding))

    def deliver(self, forwarding: RelayedForwarding) -> None:
        if isinstance(self.rig.heads[forwarding][0], ResponseHead):
            client = self.clients[forwarding] = Client()
            forwarding.deliver(client)

    def worker(self, number: int) -> HandWorker:
        return self.rig.worker(WORKERS[number % 2])

    def speak(self, number: int) -> None:
        """A worker says the next of what it has to say about an exchange."""
        worker = self.worker(number)
        if worker.hands:
            self.say_next(sorted(worker.hands.items())[number % len(worker.hands)][1], number)

    def say_next(self, hand: Hand, number: int) -> None:
        if Kind.OPEN not in hand.kinds:
            return
        said = getattr(hand, "said_so_far", 0)
        if Kind.ABANDON in hand.kinds and said == 0:
            hand.say(Kind.DONE)
            said = 9
        elif said == 0 and number % 7 == 0:
            hand.say(Kind.REFUSED)
            said = 9
        elif said == 0:
            self.execute(hand.opening)
            if number % 5 == 0:
                hand.fail("BackendClosed")
                said = 3
            else:
                hand.head()
                said = 1
        elif said == 1:
            hand.conversation.write(bytes(number * 500))
            said = 2
        elif said == 2:
            if number % 3 == 0:
                hand.conversation.tell(Kind.DONE)
            hand.say(Kind.CUT if number % 11 == 0 else Kind.END)
            said = 3
        elif said == 3:
            hand.say(Kind.DONE)
            said = 9
        hand.said_so_far = said  # type: ignore[attr-defined]

    def execute(self, opening: Opening) -> None:
        """A worker takes a ticket, and begins."""
        self.taken.add(opening.serial)
        [number] = dict(opening.headers)[b"X-Number"]
        self.executed[opening.method, number] += 1

    def forget(self, number: int) -> None:
        """A worker forgets an exchange, and says so when it is asked."""
        worker = self.worker(number)
        if worker.hands:
            del worker.hands[sorted(worker.hands)[number % len(worker.hands)]]

    def die(self, number: int) -> None:
        """A worker dies; another of its name begins."""
        worker = self.worker(number)
        worker.forget()
        if worker.post.owner in self.rig.crew.watched:
            self.rig.die(worker.post.owner)

    def admit(self, number: int) -> None:
        """The gate answers one who queues again."""
        waiting = [place for place in self.rig.places if place.waits]
        if not waiting:
            return
        place: Place = waiting[number % len(waiting)]
        assert place.queued is not None
        if place.serial in self.taken and not place.queued[1]:
            place.was_taken()
        elif number % 5 == 0:
            place.refuse(QueueTimeout("It waited."))
        else:
            place.admit(self.rig.place(WORKERS[number % 2]))

    def leave(self, number: int) -> None:
        """A client leaves."""
        if self.rig.forwardings:
            forwarding = self.rig.forwardings[number % len(self.rig.forwardings)]
            client = self.clients.pop(forwarding, None)
            if client is not None and not (client.finished or client.aborted):
                client.leave()
            else:
                forwarding.abandon()

    def pause(self, number: int) -> None:
        """A client takes nothing for now."""
        for client in self.clients.values():
            if client.producer is not None:
                client.producer.pauseProducing()

    def resume(self, number: int) -> None:
        """All take what there is."""
        for client in self.clients.values():
            if client.producer is not None:
                client.producer.resumeProducing()

    def cut(self, number: int) -> None:
        """Redis is gone."""
        self.rig.posts.cut(number % 3)

    def mend(self, number: int) -> None:
        """Redis is back."""
        if not self.rig.posts.is_up:
            self.rig.posts.mend()

    def turn(self, number: int) -> None:
        """Frames arrive."""
        self.rig.turn()

    def time(self, number: int) -> None:
        """Time passes."""
        self.rig.clock.advance(number)


STEPS = [
    *("send", "admit", "turn", "speak") * 3,
    "speak",
    "forget",
    "die",
    "leave",
    "pause",
    "resume",
    "cut",
    "mend",
    "time",
]


frames = st.builds(
    Frame,
    front=st.sampled_from(["front", "front", "front", "w1"]),
    number=st.integers(1, 4),
    kind=st.sampled_from([*map(int, Kind), 0, 99]),
    seq=st.integers(0, 4),
    ack=st.integers(0, 4),
    more=st.booleans(),
    payload=st.sampled_from(
        [
            b"",
            b"x" * 100,
            encode_payload(Problem("BackendClosed", "x")),
            encode_payload(Head(200, b"", [], 3)),
            encode_payload(Head(200, b"", [(b"Content-Length", [b"3"])], 3)),
            encode_payload(Head(200, b"", [], None)),
        ]
    ),
    sender=st.sampled_from(["", "w1", "nobody"]),
)


class NoCleanup(SynchronousTestCase):
    """For a rig that is looked at by hand."""

    def addCleanup(self, *_: Any, **__: Any) -> None:
        """Not at the end of the test, which has many rigs."""


class HistoryTests(SynchronousTestCase):
    """Random histories."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 40)), max_size=60),
        st.sampled_from(["never", "safe"]),
        st.sampled_from([0.0, 10.0]),
        st.booleans(),
    )
    def test_any(self, steps: list[tuple[str, int]], retry: str, delay: float, twice: bool) -> None:
        """All ends once, when the front stops at the latest. What was begun is begun again only if that is wanted."""
        rig = FrontRig(NoCleanup(), retry=retry, reclaim_delay=delay, max_spool=0)
        rig.posts.repeats = lambda frame: 2 if twice else 1
        history = History(rig)
        for step, number in steps:
            getattr(history, step)(number)
        for (method, _), times in history.executed.items():
            self.assertLessEqual(times, 2 if (retry, method) == ("safe", b"GET") else 1)
        rig.check_nothing_left()

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 40)), max_size=60))
    def test_comes_to_an_end(self, steps: list[tuple[str, int]]) -> None:
        """When everybody does his part again, every exchange ends without any help."""
        rig = FrontRig(NoCleanup())
        rig.way.start()
        history = History(rig)
        for step, number in steps:
            getattr(history, step)(number)
        history.mend(0)
        for _ in range(60):
            for worker in rig.workers.values():
                for hand in list(worker.hands.values()):
                    history.say_next(hand, 1)
            history.admit(1)
            history.resume(0)
            rig.clock.advance(1)
        self.assertEqual(len(rig.done), len(rig.forwardings))
        self.assertFalse(any(place.held or place.waits for place in rig.places))
        self.assertEqual(repr(rig.front), "<Front front, 0 exchanges at 0 workers>")
        rig.check_nothing_left()

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 40)) | frames, max_size=60),
        st.sampled_from(["never", "safe"]),
    )
    def test_garbage(self, steps: list[tuple[str, int] | Frame], retry: str) -> None:
        """Whatever a worker says, nothing worse comes of it than that exchanges end."""
        rig = FrontRig(NoCleanup(), retry=retry)
        history = History(rig)
        for step in steps:
            if isinstance(step, Frame):
                rig.worker("w1").post.send("front", step)
            else:
                getattr(history, step[0])(step[1])
        rig.check_nothing_left()
