"""The gate of one process."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.errors import GateUnavailable, QueueFull, QueueTimeout
from thrtwisted.gate import Counter, IAdmission, IGate, Ticket, run
from thrtwisted.gate.local import LocalGate

ONE = (Counter("one", 1),)
TWO = (Counter("two", 2),)


class LocalGateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.gate = LocalGate(self.clock, max_waiting=1000)
        self.admitted: list[str] = []

    def tearDown(self) -> None:
        self.assertTrue(self.gate.idle, self.gate)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def acquire(
        self,
        counters: tuple[Counter, ...] = ONE,
        priority: int = 50,
        timeout: float | None = None,
        name: str = "",
    ) -> Deferred[IAdmission]:
        waiting = self.gate.acquire(Ticket(counters, priority, timeout))

        def note(admission: IAdmission) -> IAdmission:
            self.admitted.append(name)
            return admission

        return waiting.addCallback(note)

    def test_interface(self) -> None:
        """It provides IGate."""
        self.assertTrue(IGate.providedBy(self.gate))

    def test_limit(self) -> None:
        """As many as the counter has slots are admitted at once; a release admits the next."""
        first, second = self.successResultOf(self.acquire(TWO)), self.successResultOf(self.acquire(TWO))
        waiting = self.acquire(TWO)
        self.assertNoResult(waiting)
        first.release()
        self.successResultOf(waiting).release()
        second.release()

    def test_no_counters(self) -> None:
        """A ticket without counters is admitted."""
        self.successResultOf(self.acquire(())).release()

    def test_slots_of_all_counters_or_none(self) -> None:
        """A ticket that waits for one counter takes no slot of the other."""
        held = self.successResultOf(self.acquire(ONE))
        both = self.acquire(ONE + TWO)
        others = [self.successResultOf(self.acquire(TWO)) for _ in range(2)]
        held.release()
        self.assertNoResult(both)
        for other in others:
            other.release()
        self.successResultOf(both).release()

    def test_priority_then_arrival(self) -> None:
        """The best priority goes first, then the earliest arrival."""
        held = self.successResultOf(self.acquire())
        arrivals = [("c", 50), ("d", 50), ("a", 1), ("e", 99), ("b", 2)]
        waiting = [self.acquire(priority=priority, name=name) for name, priority in arrivals]
        self.admitted.clear()
        for deferred in waiting:
            deferred.addCallback(_release)
        held.release()
        self.assertEqual("".join(self.admitted), "abcde")

    def test_aging(self) -> None:
        """With aging, so many seconds of waiting make up for one step of priority."""
        self.gate = LocalGate(self.clock, aging=10.0)
        held = self.successResultOf(self.acquire())
        early = self.acquire(priority=51, name="early")
        self.clock.advance(9)
        late = self.acquire(priority=50, name="late")
        self.clock.advance(2)
        later = self.acquire(priority=50, name="later")
        self.admitted.clear()
        held.release()
        self.successResultOf(late).release()
        self.successResultOf(early).release()
        self.successResultOf(later).release()
        self.assertEqual(self.admitted, ["late", "early", "later"])

    def test_waited(self) -> None:
        """The admission says how long the ticket has waited."""
        held = self.successResultOf(self.acquire())
        waiting = self.acquire()
        self.clock.advance(3)
        held.release()
        admission = self.successResultOf(waiting)
        self.assertEqual((held.waited, admission.waited), (0, 3))
        admission.release()

    def test_cancel(self) -> None:
        """Cancelling leaves the queue; the next takes the place."""
        held = self.successResultOf(self.acquire())
        leaving, staying = self.acquire(), self.acquire()
        leaving.cancel()
        self.failureResultOf(leaving)
        held.release()
        self.successResultOf(staying).release()

    def test_timeout(self) -> None:
        """A ticket that waits for too long gets QueueTimeout, with a time to come back after, and leaves."""
        held = self.successResultOf(self.acquire())
        waiting = self.acquire(timeout=5)
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        problem = self.failureResultOf(waiting, QueueTimeout).value
        self.assertGreaterEqual(problem.retry_after, 1)
        held.release()

    def test_full(self) -> None:
        """When as many wait as may, one more gets QueueFull; one that need not wait is admitted."""
        self.gate = LocalGate(self.clock, max_waiting=1)
        held = self.successResultOf(self.acquire())
        waiting = self.acquire()
        self.assertGreaterEqual(self.failureResultOf(self.acquire(), QueueFull).value.retry_after, 1)
        self.successResultOf(self.acquire(TWO)).release()
        held.release()
        self.successResultOf(waiting).release()

    def test_full_for_one(self) -> None:
        """When as many wait for one counter as may, one more gets QueueFull and leaves nothing; others may wait."""
        alice = Counter.of("user", 1, b"alice", max_waiting=2)
        bob = Counter.of("user", 1, b"bob", max_waiting=2)
        held = [self.successResultOf(self.acquire((user, *TWO))) for user in (alice, bob)]
        waiting = [self.acquire((alice, *TWO)) for _ in range(2)]
        for counters in ((alice,), (alice, *TWO), (Counter("new", 1), alice)):
            problem = self.failureResultOf(self.acquire(counters), QueueFull).value
            self.assertEqual(str(problem), "Too many requests of this kind are waiting already.")
            self.assertGreaterEqual(problem.retry_after, 1)
        waiting += [self.acquire((bob, *TWO)) for _ in range(2)]
        self.failureResultOf(self.acquire((bob,)), QueueFull)
        for admission in held:
            admission.release()
        for deferred in waiting:
            self.successResultOf(deferred).release()

    def test_full_for_all(self) -> None:
        """When the whole queue is full, that is what the message says."""
        self.gate = LocalGate(self.clock, max_waiting=1)
        held = self.successResultOf(self.acquire())
        waiting = self.acquire()
        problem = self.failureResultOf(self.acquire((Counter("one", 1, max_waiting=1),)), QueueFull).value
        self.assertEqual(str(problem), "Too many requests are waiting already.")
        held.release()
        self.successResultOf(waiting).release()

    def test_heavy_among_light(self) -> None:
        """Light tickets do not pass a heavy one for ever, nor does it keep them waiting after its turn."""
        light, heavy = (Counter("c", 3),), (Counter("c", 3, weight=3),)
        held = [self.successResultOf(self.acquire(light)) for _ in range(3)]
        waiting = self.acquire(heavy)
        crowd = []
        for admission in held:
            self.assertNoResult(waiting)
            crowd.append(self.acquire(light))
            admission.release()
        self.assertEqual([deferred.called for deferred in crowd], [False] * 3)
        self.successResultOf(waiting).release()
        for deferred in crowd:
            self.successResultOf(deferred).release()

    def test_heavy_leaves(self) -> None:
        """When a heavy ticket's time is over, those go at once from whom slots were kept."""
        held = self.successResultOf(self.acquire((Counter("c", 3),)))
        heavy = self.acquire((Counter("c", 3, weight=3),), timeout=5)
        light = self.acquire((Counter("c", 3),))
        self.clock.advance(5)
        self.failureResultOf(heavy, QueueTimeout)
        self.successResultOf(light).release()
        held.release()

    def test_heavy_leaves_at_the_end(self) -> None:
        """But not when all are sent away, because the gate closes."""
        held = self.successResultOf(self.acquire((Counter("c", 3),)))
        waiting = [self.acquire((Counter("c", 3, weight=weight),)) for weight in (3, 1, 1)]
        self.gate.close()
        for deferred in waiting:
            self.failureResultOf(deferred, GateUnavailable)
        self.assertEqual(self.admitted, [""])
        held.release()

    def test_release_twice(self) -> None:
        """A second release is logged as a mistake, and frees nothing."""
        first = self.successResultOf(self.acquire())
        waiting = self.acquire()
        first.release()
        first.release()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        second = self.successResultOf(waiting)
        self.assertNoResult(third := self.acquire())
        second.release()
        self.successResultOf(third).release()

    def test_thousand_at_once(self) -> None:
        """A queue in which each releases as soon as it is admitted empties in one go, and not in depth."""
        held = self.successResultOf(self.acquire())
        waiting = [self.acquire().addCallback(_release) for _ in range(999)]
        held.release()
        for deferred in waiting:
            self.successResultOf(deferred)

    def test_leaves_while_being_told(self) -> None:
        """A ticket that is admitted together with another, and cancelled by that one, gives its slot back."""
        held = self.successResultOf(self.acquire())
        first, second = self.acquire(), self.acquire()

        def cancel_second(admission: IAdmission) -> IAdmission:
            second.cancel()
            return admission

        first.addCallback(cancel_second)
        newcomer = self.acquire((Counter("one", 3),))  # lets both through
        self.failureResultOf(second)
        for admission in (held, self.successResultOf(first), self.successResultOf(newcomer)):
            admission.release()

    def test_raised_limit(self) -> None:
        """A ticket that brings a higher limit lets those through who wait."""
        held = self.successResultOf(self.acquire())
        waiting = self.acquire()
        newcomer = self.acquire((Counter("one", 3),))
        for deferred in (waiting, newcomer):
            self.successResultOf(deferred).release()
        held.release()

    def test_limit_of_none(self) -> None:
        """A limit of 0 lets nobody through until it is raised."""
        waiting = [self.acquire((Counter("one", 0),)) for _ in range(3)]
        self.assertEqual([deferred.called for deferred in waiting], [False] * 3)
        newcomer = self.acquire((Counter("one", 3),))
        self.assertNoResult(newcomer)
        for deferred in [*waiting, newcomer]:
            self.successResultOf(deferred).release()

    def test_limit_raised_while_full(self) -> None:
        """Even if the queue is full, and the ticket that brings the higher limit is refused for another's sake."""
        self.gate = LocalGate(self.clock, max_waiting=3)
        waiting = [self.acquire((Counter("one", 0),)) for _ in range(2)]
        other = self.acquire((Counter("two", 0, max_waiting=1),))
        newcomer = self.acquire((Counter("one", 1), Counter("two", 0, max_waiting=1)))
        self.failureResultOf(newcomer, QueueFull)
        for deferred in waiting:
            self.successResultOf(deferred).release()
        other.cancel()
        self.failureResultOf(other)

    def test_close(self) -> None:
        """After close, those who wait and those who come get GateUnavailable; slots are still released."""
        held = self.successResultOf(self.acquire())
        waiting = self.acquire()
        self.successResultOf(self.gate.stop())
        self.failureResultOf(waiting, GateUnavailable)
        self.failureResultOf(self.acquire(TWO), GateUnavailable)
        held.release()

    def test_close_with_callbacks(self) -> None:
        """Who is sent away by close may cancel others, and release: all are sent away, nobody is admitted."""
        held = self.successResultOf(self.acquire())
        first, second, third = (self.acquire() for _ in range(3))

        def react(failure: Failure) -> None:
            second.cancel()
            held.release()

        first.addErrback(react)
        self.gate.close()
        self.successResultOf(first)
        self.failureResultOf(second)
        self.failureResultOf(third, GateUnavailable)

    def test_estimate_when_stuck(self) -> None:
        """When nothing is released any more, the time to come back after grows."""
        self.gate = LocalGate(self.clock, max_waiting=1)
        held = self.successResultOf(self.acquire())
        waiting = self.acquire()
        for _ in range(10):
            self.clock.advance(0.1)
            held.release()
            held, waiting = self.successResultOf(waiting), self.acquire()
        estimates = []
        for _ in range(2):
            estimates.append(self.failureResultOf(self.acquire(), QueueFull).value.retry_after)
            self.clock.advance(50)
        self.assertEqual(estimates[0], 1)
        self.assertGreater(estimates[1], 4)
        held.release()
        self.successResultOf(waiting).release()

    def test_close_lets_nobody_in(self) -> None:
        """Not even who was admitted and not told yet."""
        held = self.successResultOf(self.acquire())
        first = self.acquire().addCallback(lambda admission: self.gate.close() or admission)
        second, third = self.acquire(), self.acquire()
        newcomer = self.acquire((Counter("one", 3),))
        for deferred in (second, third, newcomer):
            self.failureResultOf(deferred, GateUnavailable)
        self.successResultOf(first).release()
        held.release()


def _release(admission: IAdmission) -> None:
    admission.release()


class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gate = LocalGate(Clock())

    def test_result(self) -> None:
        """The function is called once admitted; its result is passed on, and the slot released."""
        calls: dict[str, Deferred[str]] = {}

        def function(argument: str) -> Deferred[str]:
            calls[argument] = Deferred()
            return calls[argument]

        running = run(self.gate, Ticket(ONE), function, "x")
        waiting = run(self.gate, Ticket(ONE), function, "y")
        self.assertEqual(list(calls), ["x"])
        calls["x"].callback("result")
        self.assertEqual(self.successResultOf(running), "result")
        self.assertNoResult(waiting)
        calls["y"].callback("another")
        self.assertEqual(self.successResultOf(waiting), "another")
        self.assertTrue(self.gate.idle)

    def test_failure(self) -> None:
        """A function that raises releases the slot too."""

        def function() -> Deferred[str]:
            raise ZeroDivisionError

        self.failureResultOf(run(self.gate, Ticket(ONE), function), ZeroDivisionError)
        self.assertTrue(self.gate.idle)


class TicketTests(SynchronousTestCase):
    def test_mistakes(self) -> None:
        """A ticket that no gate could account for is refused where it is made."""
        for counters, priority in ((ONE, 0), (ONE, 100), (ONE + TWO + ONE, 50)):
            with self.assertRaises(ValueError):
                Ticket(counters, priority)
        for delay in (-0.1, float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                Ticket(ONE, reclaim_delay=delay)

    def test_wrong_keys(self) -> None:
        """So is a counter whose key is of other characters: with a space, Redis would take it for two."""
        for key in ("", "per user", "us\xe9r", "a\n", "\udc80"):
            with self.assertRaises(ValueError):
                Ticket((Counter(key, 1),))


class CounterTests(SynchronousTestCase):
    def test_mistakes(self) -> None:
        """Numbers that no gate could hold are refused."""
        for slots, weight, max_waiting in (
            (-1, 1, None),
            (0.5, 1, None),
            (1, 0, None),
            (1, 1.5, None),
            (1, 1, -1),
            (1, 1, 0.5),
        ):
            with self.assertRaises(ValueError):
                Counter("c", slots, weight, max_waiting)  # type: ignore[arg-type]

    def test_of(self) -> None:
        """A limit's counter has its weight and its bound of the queue."""
        counter = Counter.of("user", 5, b"alice", weight=3, max_waiting=0)
        self.assertEqual(counter, Counter("user=alice", 5, 3, 0))
        self.assertEqual(Counter.of("user", 5), Counter("user", 5, weight=1, max_waiting=None))

    def test_keys(self) -> None:
        """A counter's key is printable ASCII without spaces; a long value is replaced by its digest."""
        cases: list[tuple[bytes | None, str]] = [
            (None, "user"),
            (b"", "user="),
            (b"alice", "user=alice"),
            (b"a b\n\xe9%", "user=a%20b%0A%E9%25"),
            (b"x" * 64, "user=" + "x" * 64),
        ]
        for value, key in cases:
            self.assertEqual(Counter.of("user", 1, value).key, key)
        long = [Counter.of("user", 1, b"x" * 65 + end).key for end in (b"", b"y")]
        self.assertEqual(len(set(long)), 2)
        self.assertTrue(all(len(key) == len("user=sha256:") + 64 for key in long))
