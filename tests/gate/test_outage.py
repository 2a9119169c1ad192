"""The gate over Redis while that does not answer, and what it notes of it."""

from __future__ import annotations

import time
from typing import Any

from msgspec import msgpack
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.gate.test_redis import ONE, TWO, RedisGateTestCase, Steps, until
from thrtwisted.gate import Counter, IAdmission, Ticket
from thrtwisted.gate.redis import RedisGate
from thrtwisted.redis.link import RedisGone
from thrtwisted.redis.url import RedisAddress


class SilentLink:
    """
    A link on which nothing happens but what a test says.

    @ivar replies: to the batches that were sent, in order.
    """

    def __init__(self, gate: RedisGate) -> None:
        self.replies: list[Deferred[bytes]] = []
        self._gate = gate
        self._stands = False

    def start(self) -> None:
        """Connect, unless the connections stand."""
        if not self._stands:
            self._stands = True
            self._gate.up()

    def script(self, script: bytes, key: str, argument: bytes) -> Deferred[bytes]:
        """See L{Link.script}."""
        self.replies.append(Deferred())
        return self.replies[-1]

    def reset(self) -> None:
        """The connections end."""
        if self._stands:
            self._stands = False
            if not self.replies[-1].called:
                self.replies[-1].errback(RedisGone("reset"))
            self._gate.down()

    def working(self) -> None:
        """See L{Link.working}."""

    def answer(self, admitted: list[int]) -> None:
        """Answer to the batch that was sent last, if nobody has given it up."""
        if not self.replies[-1].called:
            reply = [
                "ok",
                1000,
                "1",
                1,
                admitted,
                [],
                [],
                len(admitted),
                0,
                0,
                1,
                0,
                0,
                0,
                [],
                [],
                [],
                [],
                [],
            ]
            self.replies[-1].callback(msgpack.encode(reply))


class DoubtTests(SynchronousTestCase):
    """The C{timeout} after which Redis counts as gone."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.gate = RedisGate(self.clock, timeout=0.25, lease=5.0)
        self.link = SilentLink(self.gate)

    def pass_time(self, milliseconds: int) -> None:
        self.clock.pump([0.001] * milliseconds)

    def acquire(self) -> Deferred[IAdmission]:
        return self.gate.acquire(Ticket(ONE))

    def test_first_answer(self) -> None:
        """It ends before a connection that has just come brings its first answer: the gate goes on all the same."""
        self.gate.connect(self.link)  # type: ignore[arg-type]
        self.link.answer([])
        self.link.reset()
        self.pass_time(200)
        self.link.start()
        early = self.acquire()
        self.pass_time(100)
        self.assertEqual(self.gate.figures.outages, 1)
        self.link.answer([1])
        self.successResultOf(early).release()
        self.link.answer([])
        late = self.acquire()
        self.assertNoResult(late)
        self.link.answer([2])
        self.successResultOf(late)

    def test_no_answer(self) -> None:
        """Nor does the connection bring one: the gate goes on alone."""
        self.gate.connect(self.link)  # type: ignore[arg-type]
        self.link.answer([])
        self.link.reset()
        self.pass_time(200)
        self.link.start()
        waiting = self.acquire()
        self.pass_time(260)
        self.successResultOf(waiting)


class LongTests(RedisGateTestCase):
    """An outage that does not end."""

    @inlineCallbacks
    def check_nothing_left(self, outage: str) -> Steps:
        """Whatever comes and goes meanwhile, nothing of it stays in memory."""
        nowhere = RedisAddress("unix", path="/nonexistent/redis.sock")
        gate = self.gate(nowhere, timeout=0.05, lease=1.0, outage=outage)
        yield until(lambda: gate._outages._alone)
        for number in range(2000):
            staying, leaving = (
                gate.acquire(Ticket((Counter(f"{number % 50}", 1), *more))) for more in ((), TWO)
            )
            for ticket in (leaving, staying):
                ticket.addCallbacks(lambda admission: admission.release(), lambda _: None)
                ticket.cancel()
        places = gate._places
        self.assertEqual((len(places), places.held, places._outbox, places._freed), (0, 0, [], None))
        self.assertFalse(gate._admitted)
        if gate._outages.deciding:
            self.assertTrue(gate._outages._fallback._lanes.idle)

    def test_local(self) -> Any:
        """Where the process goes on alone."""
        return self.check_nothing_left("local")

    def test_closed(self) -> Any:
        """Where nobody is admitted."""
        return self.check_nothing_left("closed")

    def test_open(self) -> Any:
        """Where everybody is."""
        return self.check_nothing_left("open")


class FiguresTests(RedisGateTestCase):
    """L{RedisGate.figures}"""

    @inlineCallbacks
    def test_overshoot(self) -> Steps:
        """A request counts as over the limit where another was admitted by a Redis that had forgotten this one."""
        known = self.gate(lease=1.0)
        first = yield self.acquire(known)
        self.client.delete(*self.keys())
        stranger = self.gate()
        second = yield self.acquire(stranger)
        yield until(lambda: known.figures.overshoot)
        self.assertEqual((known.figures.overshoot, stranger.figures.overshoot), (1, 0))
        self.assertEqual(self.held("one"), 2)
        for admission in (first, second):
            admission.release()
        yield until(lambda: not self.held("one"))

    @inlineCallbacks
    def test_latest(self) -> Steps:
        """How late a heartbeat was at most."""
        gate = self.gate(lease=0.8)
        (yield self.acquire(gate)).release()
        time.sleep(0.4)
        yield until(lambda: gate.figures.latest >= 0.2)

    @inlineCallbacks
    def test_outages(self) -> Steps:
        """How often Redis was gone."""
        gate = self.gate(timeout=0.3)
        for number in range(1, 3):
            (yield self.acquire(gate)).release()
            self.client.client_pause(600, all=True)
            gate._beat()
            yield until(lambda number=number: gate.figures.outages == number)
            yield until(lambda: not gate._outages.gone)
