"""Processes that are not of one mind: other limits, other settings, another idea of the time."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks

from tests import valkey
from tests.gate.model import ScriptOwner, acquire_operation, needs
from tests.gate.test_redis import RedisGateTestCase, Steps, until
from tests.gate.test_script import ScriptTestCase
from thrtwisted.errors import QueueFull
from thrtwisted.gate import Counter, IAdmission
from thrtwisted.gate.redis import RedisGate

#: Milliseconds: by as much are clocks wrong here.
MINUTES = 7 * 60_000


def limit(slots: int) -> tuple[Counter, ...]:
    """The same counter, with another number of slots."""
    return (Counter("one", slots),)


class LimitsTests(RedisGateTestCase):
    """Two gates with different values for one limit. No heartbeat can help here."""

    def two(self, max_waiting: int = 1000) -> tuple[RedisGate, RedisGate]:
        a, b = (self.gate(lease=3600.0, max_waiting=max_waiting) for _ in range(2))
        return a, b

    @inlineCallbacks
    def wait(self, *gates: RedisGate, slots: int = 0) -> Steps:
        """A ticket of each gate waits, in this order; what they will get."""
        tickets = []
        for gate in gates:
            tickets.append(self.acquire(gate, limit(slots)))
            yield until(lambda: self.waiting() == len(tickets))
        return tickets

    @inlineCallbacks
    def test_rolling_change(self) -> Steps:
        """What is in flight counts for the new limit as for the old one; the limit that was said last holds."""
        old, new = self.two()
        held = yield gatherResults([self.acquire(old, limit(4)) for _ in range(4)])
        first = self.acquire(new, limit(2))
        yield until(self.waiting)
        for left in (3, 2):
            held.pop().release()
            yield until(lambda left=left: self.held("one") == left)
        self.assertNoResult(first)
        held.pop().release()
        admission = yield first
        self.assertEqual(self.held("one"), 2)
        # The old process is still there, and has another request: 4 are allowed again.
        more = yield gatherResults([self.acquire(old, limit(4)) for _ in range(2)])
        self.assertEqual(self.held("one"), 4)
        second = self.acquire(new, limit(2))
        yield until(self.waiting)
        for each in (*held, *more):
            self.assertNoResult(second)
            each.release()
        (yield second).release()
        admission.release()

    @inlineCallbacks
    def test_lowered(self) -> Steps:
        """Nobody is admitted by the end of a request while there are more than the new limit allows."""
        old, new = self.two()
        held = yield gatherResults([self.acquire(old, limit(3)) for _ in range(3)])
        [second] = yield self.wait(old, slots=3)
        first = self.acquire(new, limit(1))
        yield until(lambda: self.waiting() == 2)
        for left in (2, 1):
            held.pop().release()
            yield until(lambda left=left: self.held("one") == left)
        self.assertNoResult(first)
        self.assertNoResult(second)
        held.pop().release()
        (yield second).release()
        (yield first).release()

    @inlineCallbacks
    def test_opened(self) -> Steps:
        """When a limit of 0 is raised, those who wait go at once, on whichever process, before who raised it."""
        closed, opened = self.two()
        waiting = yield self.wait(closed, opened, closed)
        last = self.acquire(opened, limit(3))
        admissions = yield gatherResults(waiting)
        self.assertNoResult(last)
        self.assertEqual((self.held("one"), self.waiting()), (3, 1))
        admissions[1].release()
        admissions.append((yield last))
        for admission in (admissions[0], *admissions[2:]):
            admission.release()

    @inlineCallbacks
    def test_opened_by_one_that_has_no_place(self) -> Steps:
        """So they do when the queue is full, though whoever brings the news be refused."""
        closed, opened = self.two(max_waiting=3)
        waiting = yield self.wait(closed, opened, closed)
        yield self.assertFailure(self.acquire(closed, limit(0)), QueueFull)
        newcomers = [self.acquire(opened, limit(1)) for _ in range(2)]
        for ticket in waiting:
            (yield ticket).release()
        (yield newcomers[0]).release()
        yield self.assertFailure(newcomers[1], QueueFull)

    @inlineCallbacks
    def test_closed_and_opened_again(self) -> Steps:
        """A limit that is set to 0 lets those end who are in the backend, and nobody in until it is raised."""
        a, b = self.two()
        held = yield gatherResults([self.acquire(gate, limit(2)) for gate in (a, b)])
        waiting = yield self.wait(b, a)
        for left, admission in enumerate(reversed(held)):
            admission.release()
            yield until(lambda left=left: self.held("one") == 1 - left)
        for ticket in waiting:
            self.assertNoResult(ticket)
        third = self.acquire(b, limit(2))
        admissions: list[IAdmission] = yield gatherResults(waiting)
        self.assertNoResult(third)
        for admission in admissions:
            admission.release()
        (yield third).release()


class SettingsTests(ScriptTestCase):
    """Owners with different settings, batch by batch."""

    def test_bounds(self) -> None:
        """Each process keeps to its own bound of the one queue."""
        few, many = self.owner("few"), self.owner("many")
        few.max_waiting, many.max_waiting = 1, 3
        few.batch(acquire_operation(1, limit(1)))
        self.assertEqual(
            many.batch(acquire_operation(1, limit(1)), acquire_operation(2, limit(1))).waiting, 2
        )
        self.assertEqual(few.batch(acquire_operation(2, limit(1))).full, [2])
        self.assertEqual(many.batch(acquire_operation(3, limit(1))).full, [])

    def test_aging(self) -> None:
        """While aging is changed, who goes first is anybody's guess; but nobody too many goes, and nobody is left."""
        old, new = self.owner("old"), self.owner("new", aging=1.0)
        for serial in range(1, 6):
            for owner in (old, new):
                owner.batch(acquire_operation(serial, limit(1), priority=10 * serial))
        ended = 0
        holding: list[tuple[ScriptOwner, int]] = [(old, 1)]
        while holding:
            owner, serial = holding.pop()
            holding += [(owner, each) for each in owner.batch(["release", serial]).admitted]
            for other in (old, new):
                holding += [(other, each) for each in other.published()]
            self.assertLessEqual(len(holding), 1)
            ended += 1
        self.assertEqual(ended, 10)

    def test_leases(self) -> None:
        """Each process has the lease that it says, whatever others have."""
        short, long = self.owner("short", lease=1000), self.owner("long", lease=600_000)
        short.batch(acquire_operation(1, limit(1)))
        long.batch(acquire_operation(1, limit(1)))
        ends = dict(self.client.zrange(f"{short.key}:owners", 0, -1, withscores=True))
        self.assertGreater(ends[b"long"] - ends[b"short"], 500_000)
        self.expire(short)
        self.assertEqual(long.batch().admitted, [1])


class RedisClockTests(ScriptTestCase):
    """The clock of Redis is set: to the script it is as if all that it has noted were of another time."""

    def shift(self, milliseconds: int) -> None:
        """All that was noted is so much later."""
        prefix = "{" + self.namespace + "}"
        for owner in self.owners:
            self.client.zincrby(f"{prefix}:owners", milliseconds, owner.name)
        self.client.hincrby(f"{prefix}:gate", "last", milliseconds)

    def crowd(self) -> tuple[ScriptOwner, ScriptOwner]:
        """Both slots are taken and one ticket of each owner waits."""
        a, b = self.owner("a"), self.owner("b")
        for serial in (1, 2):
            for owner in (a, b):
                owner.batch(acquire_operation(serial, limit(2)))
        return a, b

    def test_set_forward(self) -> None:
        """All leases seem to have run out: nobody is taken for dead, and nobody is admitted before all are back."""
        a, b = self.crowd()
        self.shift(-MINUTES)
        self.assertEqual(a.batch(), "unknown")
        announced = [[serial, int(serial == 1), 0, 50, "", *needs(limit(2))] for serial in (1, 2)]
        reply = a.batch(["release", 1], announced=announced)
        self.assertEqual((reply.admitted, reply.held, reply.waiting, reply.owners), ([], 0, 2, 2))
        self.assertGreater(reply.grace, 0)
        self.assertEqual(b.batch(), "unknown")
        reply = b.batch(announced=announced)
        self.assertEqual((reply.held, reply.overshoot, reply.grace), (1, 0, 0))
        self.assertEqual(a.published(), [2])

    def test_set_back(self) -> None:
        """The living go on; and the dead are not found out so much later."""
        a, b = self.crowd()
        self.shift(MINUTES)
        self.assertEqual(b.batch(["release", 1]).waiting, 1)
        self.assertEqual((a.published(), b.published()), ([2], []))
        self.assertEqual(a.batch(["release", 1], ["release", 2]).held, 0)
        self.assertEqual(b.published(), [2])
        last = float(self.client.zscore(f"{a.key}:owners", "a"))
        seconds, _ = self.client.time()
        self.assertLess(last, seconds * 1000 + 2 * a.lease)


class GateClockTests(RedisGateTestCase):
    """A gate whose reactor does not measure time by the time of day."""

    @inlineCallbacks
    def test_aging_before_redis_was_seen(self) -> Steps:
        """Who has come before Redis was there has no years of waiting to show for it."""
        steady = _SteadyReactor()
        gate = RedisGate(steady, namespace=self.namespace, timeout=5.0, aging=1.0)
        gate.give_up()
        self.addCleanup(gate.stop)
        held = yield self.acquire(gate)
        early = self.acquire(gate, priority=99)
        gate.start(valkey.address())
        yield until(self.waiting)
        other = self.gate(aging=1.0)
        urgent = self.acquire(other, priority=1)
        yield until(lambda: self.waiting() == 2)
        held.release()
        (yield urgent).release()
        (yield early).release()


class _SteadyReactor:
    """The reactor, with a time that begins with itself."""

    def __init__(self) -> None:
        self._began = reactor.seconds()

    def seconds(self) -> float:
        return reactor.seconds() - self._began

    def __getattr__(self, name: str) -> object:
        return getattr(reactor, name)
