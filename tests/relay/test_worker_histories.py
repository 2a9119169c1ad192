"""Whatever fronts, backends, the gate and Redis do, in whatever order: nothing is begun twice, or too much, or left."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.forward.support import Wire
from tests.relay.crew import Asker, WorkerRig
from thrtwisted.relay import worker
from thrtwisted.relay.codec import Kind

CONCURRENCY = 2

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + bytes(20_000),
    b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + bytes(10_000),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"nonsense\r\n\r\n",
)


class History:
    """A worker, and what happens to its exchanges. What cannot happen now does not."""

    def __init__(self, rig: WorkerRig) -> None:
        self.rig = rig
        self.askers: list[Asker] = []
        self.missing: dict[Asker, int] = {}
        self.connecting = 0
        self.busy: list[Wire] = []
        self.executed: list[bytes] = []

    # Fronts

    def open(self, number: int) -> None:
        """An exchange is opened."""
        length = (0, 5, 9000)[number % 3]
        fields = [(b"X-Number", [b"%d" % self.rig.front.opened])]
        asker = self.rig.front.open(
            b"POST", length, assigned=number % 7 > 0, greedy=number % 2 > 0, headers=fields
        )
        self.askers.append(asker)
        self.missing[asker] = length

    def upload(self, number: int) -> None:
        """More of a request comes."""
        if self.askers:
            asker = self.asker(number)
            left = self.missing[asker]
            size = min(left, (1, 4000, left)[number % 3])
            self.missing[asker] = left - size
            if size:
                asker.conversation.write(bytes(size))
                if size == left:
                    asker.conversation.say(Kind.END)

    def take(self, number: int) -> None:
        """The front takes some of an answer."""
        if self.askers:
            self.asker(number).take((100, 5000)[number % 2])

    def abandon(self, number: int) -> None:
        """A client leaves."""
        if self.askers:
            self.asker(number).conversation.tell(Kind.ABANDON)

    def forget(self, number: int) -> None:
        """An exchange is over for the front."""
        if self.askers:
            asker = self.asker(number)
            self.askers.remove(asker)
            self.rig.front.forget(asker)

    def die(self, number: int) -> None:
        """The front's lease runs out, and it is back perhaps."""
        if "front" in self.rig.crew.watched:
            lost = self.rig.crew.watched["front"]
            if number % 2:
                self.rig.crew.dead.add("front")
                self.rig.crew.assigned.clear()
            lost()
            self.rig.crew.dead.clear()

    def asker(self, number: int) -> Asker:
        return self.askers[number % len(self.askers)]

    # Backends

    def connect(self, number: int) -> None:
        """A connection to a backend is accepted, or refused."""
        if self.connecting < self.rig.connections:
            factory: Any = self.rig.clock.tcpClients[self.connecting][2]
            connector: Any = self.rig.clock.connectors[self.connecting]
            self.connecting += 1
            if connector.stoppedConnecting:
                return
            if number % 4 == 0:
                factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
                return
            wire = Wire(self.rig.clock, factory.buildProtocol(None))
            wire.congested = number % 3 == 0
            self.rig.backends.append(wire)
            self.busy.append(wire)
            self.executed += re.findall(rb"X-Number: (\d+)\r\n", wire.value())

    def answer(self, number: int) -> None:
        """A backend answers, and closes perhaps."""
        if self.busy:
            wire = self.busy.pop(number % len(self.busy))
            if not wire.lost:
                wire.receive(ANSWERS[number % len(ANSWERS)])
                if number % 2 or number % len(ANSWERS) == 3:
                    wire.lose()

    def relieve(self, number: int) -> None:
        """A backend reads on."""
        for wire in self.busy:
            if wire.congested and wire.producer is not None and not wire.lost:
                wire.relieve()

    # The rest

    def post(self, number: int) -> None:
        """The post is down, or up again."""
        if self.rig.posts.is_up:
            self.rig.posts.cut(kept=number % 3)
        else:
            self.rig.posts.mend()

    def gate(self, number: int) -> None:
        """The gate is slow, or answers."""
        crew = self.rig.crew
        crew.slow = number % 2 > 0
        self.rig.gate.leased = number % 5 > 0
        crew.elsewhere["app"] = number % 3
        if not crew.slow:
            self.rig.gate.leased = True
            crew.answer()

    def wait(self, number: int) -> None:
        """Time goes by."""
        self.rig.clock.advance((0.5, 3, 20)[number % 3])

    def turn(self, number: int) -> None:
        """What is on its way arrives."""
        self.rig.turn()

    def check(self, test: SynchronousTestCase) -> None:
        """No more than its places are in use, and nothing was executed twice."""
        asked = self.rig.connections - self.connecting
        stopped = sum(each.stoppedConnecting for each in self.rig.clock.connectors[self.connecting :])
        at_work = sum(not (wire.lost or wire.disconnecting) for wire in self.busy)
        test.assertLessEqual(at_work + asked - stopped, CONCURRENCY)
        test.assertEqual(len(self.executed), len(set(self.executed)))

    def end(self, test: SynchronousTestCase) -> None:
        """All comes to its end: the worker drains, and has nothing left."""
        self.rig.crew.slow, self.rig.gate.leased = False, True
        self.rig.crew.answer()
        drained = self.rig.worker.drain()
        if not self.rig.posts.is_up:
            self.rig.posts.mend()
        for _ in range(100):
            for asker in self.askers:
                asker.greedy = True
                asker.take()
                asker.conversation.check()  # as a front does that has heard nothing for long
                self.upload(self.askers.index(asker) + 2 * len(self.askers) * 3)
            for action in (self.turn, self.connect, self.relieve, self.turn, self.answer, self.wait):
                action(1)
                self.check(test)
            for asker in list(self.askers):
                if {Kind.DONE, Kind.REFUSED, Kind.GONE} & set(asker.kinds):
                    self.askers.remove(asker)
                    self.rig.front.forget(asker)
            if drained.called and not self.askers and not self.rig.worker.busy:
                break
        test.assertEqual(self.askers, [])
        test.successResultOf(drained)
        test.assertEqual(repr(self.rig.worker), f"<Worker 0 of {CONCURRENCY} places taken, 0 exchanges>")


ACTIONS = (
    *("open", "open", "upload", "upload", "take", "abandon", "forget", "die"),
    *("connect", "connect", "connect", "answer", "answer", "relieve", "post", "gate", "wait"),
    *("turn", "turn", "turn", "turn"),
)


class HistoryTests(SynchronousTestCase):
    """Random histories of L{thrtwisted.relay.worker.Worker}."""

    @settings(deadline=None, max_examples=150)
    @given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 200)), max_size=50))
    def test_histories(self, steps: list[tuple[str, int]]) -> None:
        """Each request is executed once at most, no more than the places at once; at the end nothing is left."""
        self.patch(worker, "LINGERING", 1)
        said: list[Any] = []
        globalLogPublisher.addObserver(said.append)
        try:
            rig = WorkerRig(
                self, CONCURRENCY, response_timeout=7, abandon_timeout=9, idle_timeout=8, down_time=3
            )
            history = History(rig)
            for action, number in steps:
                getattr(history, action)(number)
                history.check(self)
            history.end(self)
        finally:
            globalLogPublisher.removeObserver(said.append)
        self.assertEqual([event for event in said if "log_failure" in event], [])
