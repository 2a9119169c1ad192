"""The rates of counters, at the gate of one process: who waits for time, who is turned away, and who gives way."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.errors import GateUnavailable, QueueFull, QueueTimeout, RateExceeded
from thrtwisted.gate import UNLIMITED, Counter, IAdmission, Quota, Rate, Ticket
from thrtwisted.gate.local import LocalGate
from thrtwisted.gate.meter import Meters

#: Ten a second, three at once.
TENTHS = Rate(100_000, 3)


class RateTestCase(SynchronousTestCase):
    """
    Tickets come to a gate at whose clock it is a thousand seconds past the beginning.

    @ivar admitted: the seconds since then at which tickets were admitted, with their names.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.gate = LocalGate(self.clock, max_waiting=1000)
        self.admitted: list[tuple[float, str]] = []
        self.holding: list[IAdmission] = []

    def tearDown(self) -> None:
        for admission in self.holding:
            admission.release()
        self.assertTrue(self.gate.idle, self.gate)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def come(
        self,
        *counters: Counter,
        name: str = "",
        hold: bool = False,
        priority: int = 50,
        timeout: float | None = None,
        fair: str | None = None,
    ) -> Deferred[IAdmission]:
        """A ticket comes; it is released at once unless it is to be held until the end."""

        def note(admission: IAdmission) -> IAdmission:
            self.admitted.append((round(self.clock.seconds() - 1000.0, 6), name))
            if hold:
                self.holding.append(admission)
            else:
                admission.release()
            return admission

        return self.gate.acquire(Ticket(counters, priority, timeout, fair=fair)).addCallback(note)

    def let_pass(self, seconds: float) -> None:
        """Each timer goes off in time."""
        end = round(self.clock.seconds() + seconds, 6)
        while (calls := self.clock.getDelayedCalls()) and min(call.getTime() for call in calls) <= end:
            self.clock.rightNow = min(call.getTime() for call in calls)
            self.clock.advance(0)
        self.clock.rightNow = end

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.admitted]

    @property
    def names(self) -> str:
        return "".join(name for _, name in self.admitted)


class WaitTests(RateTestCase):
    """Over a rate, tickets wait."""

    def test_burst_then_spaced(self) -> None:
        """The burst goes at once, then one each interval, in order; nobody is turned away."""
        for name in "abcdefgh":
            self.come(Counter("c", rate=TENTHS), name=name)
        self.assertEqual(self.names, "abc")
        self.let_pass(1)
        self.assertEqual(self.names, "abcdefgh")
        self.assertEqual(self.times, [0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.5])

    def test_burst_comes_back(self) -> None:
        """After a quiet time as many as the burst go at once again, and not more."""
        for _ in range(2):
            for _ in range(5):
                self.come(Counter("c", rate=TENTHS))
            self.let_pass(10)
        self.assertEqual(self.times, [0, 0, 0, 0.1, 0.2, 10, 10, 10, 10.1, 10.2])

    def test_late_timer(self) -> None:
        """A busy reactor, whose timers are late, costs no rate; what it missed by far is not made up for."""
        for _ in range(100):
            self.come(Counter("c", rate=Rate(100_000)))
        self.clock.pump([1 / 32] * 160)
        self.assertEqual(len(self.times), 51)
        self.clock.advance(2.0)
        self.assertEqual(len(self.times), 53)
        self.let_pass(10)

    def test_by_priority(self) -> None:
        """The best goes first when it is time."""
        for name, priority in (("a", 50), ("b", 90), ("c", 50), ("d", 1)):
            self.come(Counter("c", rate=Rate(100_000)), name=name, priority=priority)
        self.let_pass(1)
        self.assertEqual(self.names, "adcb")

    def test_time_here_and_slots_there(self) -> None:
        """A ticket that lacks time at one counter and slots at another goes when it has both, whichever comes first."""
        rate, slot = Counter("rate", rate=Rate(1_000_000)), Counter("slot", 1)
        for release_after in (0.5, 1.5):
            began = self.clock.seconds() - 1000.0
            self.come(rate)
            held = self.successResultOf(self.gate.acquire(Ticket((slot,))))
            self.come(rate, slot, name="both")
            self.let_pass(release_after)
            self.assertEqual(self.names, "")
            held.release()
            self.let_pass(2)
            self.assertEqual(
                self.admitted, [(began, ""), (round(began + max(1.0, release_after), 6), "both")]
            )
            self.admitted.clear()
            self.let_pass(5)

    def test_other_counter_is_free(self) -> None:
        """Who waits for time holds up nobody who does not need that counter."""
        rate, slot = Counter("rate", rate=Rate(1_000_000)), Counter("slot", 1)
        self.come(rate)
        self.come(rate, slot, name="a")
        self.come(slot, name="b")
        self.assertEqual(self.names, "b")
        self.let_pass(1)
        self.assertEqual(self.names, "ba")

    def test_one_timer(self) -> None:
        """Hundreds wait for time by one timer."""
        for _ in range(500):
            self.come(Counter("c", rate=Rate(1_000)), Counter("d", rate=Rate(2_000)))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.let_pass(1.0)
        self.assertEqual(len(self.times), 500)

    def test_all_leave(self) -> None:
        """When those who waited for time have left there is no timer any more; the next to come is in nobody's way."""
        self.come(Counter("c", rate=Rate(1_000_000)))
        leaving = [self.come(Counter("c", rate=Rate(1_000_000))) for _ in range(3)]
        for deferred in leaving:
            deferred.cancel()
            self.failureResultOf(deferred)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.come(Counter("c", rate=Rate(1_000_000)))
        self.let_pass(1)
        self.assertEqual(self.times, [0, 1])

    def test_timeout(self) -> None:
        """Nobody waits for time longer than its timeout."""
        for _ in range(2):
            waiting = self.come(Counter("c", rate=Rate(5_000_000)), timeout=2.0)
        self.clock.advance(2.0)
        self.failureResultOf(waiting, QueueTimeout)

    def test_closed(self) -> None:
        """A gate that closes has no timer."""
        for _ in range(2):
            waiting = self.come(Counter("c", rate=Rate(1_000_000)))
        self.gate.close()
        self.failureResultOf(waiting, GateUnavailable)

    def test_other_rate(self) -> None:
        """
        A rate that is changed takes effect for those who wait, when the first ticket brings it; a higher one at once.
        """
        for _ in range(4):
            self.come(Counter("c", rate=Rate(3600_000_000)))
        self.clock.advance(1.0)
        self.come(Counter("c", rate=Rate(100_000)))
        self.let_pass(2.0)
        self.assertEqual(self.times, [0, 1.1, 1.2, 1.3, 1.4])
        self.come(Counter("c", rate=Rate(100_000)))
        for _ in range(2):
            self.come(Counter("c", rate=Rate(500_000)))
        self.let_pass(3.0)
        self.assertEqual(self.times[5:], [3.0, 3.1, 3.6])

    def test_no_rate_any_more(self) -> None:
        """When a limit has no rate any more, those who waited for it go."""
        for _ in range(4):
            self.come(Counter("c", rate=Rate(3600_000_000)))
        self.come(Counter("c"))
        self.assertEqual(len(self.times), 5)

    def test_raised_limit(self) -> None:
        """Slots that are raised are given as the rate allows."""
        counter = Counter("c", 1, rate=Rate(100_000, 2))
        self.come(counter, hold=True)
        for _ in range(4):
            self.come(counter)
        self.assertEqual(self.times, [0])
        self.come(Counter("c", 5, rate=Rate(100_000, 2)))
        self.let_pass(1.0)
        self.assertEqual(self.times, [0, 0, 0.1, 0.2, 0.3, 0.4])

    def test_heavier_than_burst(self) -> None:
        """
        A ticket heavier than the burst goes when nothing is used up, and counts in full; lighter ones do not pass.
        """
        rate = Rate(100_000, 2)
        self.come(Counter("c", rate=rate), name="a")
        self.come(Counter("c", weight=5, rate=rate), name="H")
        self.come(Counter("c", rate=rate), name="b")
        self.let_pass(2.0)
        self.assertEqual(self.admitted, [(0, "a"), (0.1, "H"), (0.5, "b")])

    def test_clock_set_back(self) -> None:
        """When the clock is set back, nobody waits for the difference."""
        for _ in range(3):
            self.come(Counter("c", rate=TENTHS))
        waiting = self.come(Counter("c", rate=TENTHS))
        self.clock.rightNow -= 500.0
        self.come(Counter("d"))  # whatever comes sees it
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertEqual(self.times, [0, 0, 0, -500, -499.9])
        self.clock.rightNow = 1010.0

    def test_released_late(self) -> None:
        """
        Those who wait for slots alone do not lose the rate that they did not use, but for what is left of the burst.
        """
        counter = Counter("c", 1, rate=TENTHS)
        held = self.successResultOf(self.gate.acquire(Ticket((counter,))))
        for _ in range(6):
            self.come(counter)
        self.clock.advance(60)
        held.release()
        self.let_pass(1)
        self.assertEqual([round(time - 60, 6) for time in self.times], [0, 0, 0, 0, 0.1, 0.2])


class RejectTests(RateTestCase):
    """Over a rate that rejects, tickets are turned away."""

    REJECT = Rate(1_000_000, 2, "reject")

    def test_rejected(self) -> None:
        """Who comes over the rate gets RateExceeded, with the seconds after which it may come again."""
        for _ in range(2):
            self.come(Counter("c", rate=self.REJECT))
        self.clock.advance(0.25)
        problem = self.failureResultOf(self.come(Counter("c", rate=self.REJECT)), RateExceeded).value
        self.assertEqual(problem.retry_after, 0.75)
        self.clock.advance(0.75)
        self.come(Counter("c", rate=self.REJECT))
        self.assertEqual(self.times, [0, 0, 1])

    def test_longest(self) -> None:
        """Of several rates that reject, the one that does so longest says when to come again."""
        counters = [Counter(f"c{n}", rate=Rate(n * 1_000_000, 1, "reject")) for n in (1, 3, 2)]
        self.come(*counters)
        self.assertEqual(self.failureResultOf(self.come(*counters), RateExceeded).value.retry_after, 3.0)

    def test_charges_nothing(self) -> None:
        """What is rejected counts nowhere: neither where it was rejected, nor at the other rates, of any policy."""
        rates = {policy: Rate(1_000_000, 2, policy) for policy in ("wait", "reject", "demote")}  # type: ignore[arg-type]
        others = [Counter(policy, rate=rate, shown=True) for policy, rate in rates.items()]
        full = Counter("full", rate=self.REJECT)
        for _ in range(2):
            self.come(full)
        for _ in range(5):
            self.failureResultOf(self.come(*others, full), RateExceeded)
        self.clock.advance(1)
        admission = self.successResultOf(self.come(*others, full))
        self.assertEqual({quota.tickets for quota in admission.quotas.values()}, {1})

    def test_waiting_counts(self) -> None:
        """A ticket counts when it arrives, though it waits for slots then; later it is not rejected any more."""
        slot = Counter("slot", 1)
        held = self.successResultOf(self.gate.acquire(Ticket((slot,))))
        waiting = [self.come(slot, Counter("c", rate=self.REJECT)) for _ in range(2)]
        self.failureResultOf(self.come(slot, Counter("c", rate=self.REJECT)), RateExceeded)
        held.release()
        for deferred in waiting:
            self.successResultOf(deferred)

    def test_queue_full(self) -> None:
        """What the queue has no room for counts nowhere."""
        slot = Counter("slot", 1, max_waiting=0)
        held = self.successResultOf(self.gate.acquire(Ticket((slot,))))
        for _ in range(5):
            self.failureResultOf(self.come(slot, Counter("c", rate=self.REJECT)), QueueFull)
        held.release()
        for _ in range(2):
            self.successResultOf(self.come(slot, Counter("c", rate=self.REJECT)))

    def test_invented_values(self) -> None:
        """Whoever is over the rate stays so, however many others come once; of these not all are remembered."""
        self.patch(Meters, "MOST", 100)
        daily = Rate(86_400_000_000, 2, "reject")
        for _ in range(2):
            self.come(Counter("user=ann", rate=daily))
        for number in range(1000):
            self.come(Counter(f"user={number}", rate=daily))
            self.clock.advance(0.001)
        self.failureResultOf(self.come(Counter("user=ann", rate=daily)), RateExceeded)
        for number, left in ((0, 1), (999, 0)):
            admission = self.successResultOf(self.come(Counter(f"user={number}", rate=daily, shown=True)))
            self.assertEqual(admission.quotas[f"user={number}"].tickets, left, number)

    def test_lets_those_go_who_are_due(self) -> None:
        """One that is rejected lets those go that nobody has woken yet."""
        self.come(Counter("c", rate=self.REJECT))
        self.come(Counter("c", rate=self.REJECT))
        self.come(Counter("w", rate=Rate(1_000)))
        self.come(Counter("w", rate=Rate(1_000)), name="late")
        self.clock.rightNow += 0.5
        self.failureResultOf(self.come(Counter("c", rate=self.REJECT)), RateExceeded)
        self.assertEqual(self.names, "late")


class DemoteTests(RateTestCase):
    """Over a rate that demotes, tickets give way to all others."""

    def test_nobody_else(self) -> None:
        """It does not wait where nobody else wants the slot."""
        for _ in range(10):
            self.come(Counter("user", rate=Rate(1_000_000, 1, "demote")), Counter("slot", 1))
        self.assertEqual(self.times, [0] * 10)

    def test_gives_way(self) -> None:
        """Where slots are short it goes after all that are not over the rate, though these come later."""
        slot = Counter("slot", 1)
        held = self.successResultOf(self.gate.acquire(Ticket((slot,))))
        heavy = Counter("user=heavy", rate=Rate(60_000_000, 2, "demote"))
        for name in "abcd":
            self.come(heavy, slot, name=name)
        for name in "xyz":
            self.come(Counter("user=light", rate=Rate(60_000_000, 9, "demote")), slot, name=name)
        held.release()
        self.assertEqual(self.names, "abxyzcd")

    def test_worse_already(self) -> None:
        """It is never made better by that."""
        slot = Counter("slot", 1)
        held = self.successResultOf(self.gate.acquire(Ticket((slot,))))
        for name, priority in (("a", 99), ("b", 99), ("c", 95)):
            self.come(Counter("user", rate=Rate(60_000_000, 1, "demote")), slot, name=name, priority=priority)
        held.release()
        self.assertEqual(self.names, "cab")

    def test_does_not_count(self) -> None:
        """What was demoted is not counted: the rate is that of the tickets which were not."""
        counter = Counter("user", rate=Rate(1_000_000, 1, "demote"), shown=True)
        quotas = [self.successResultOf(self.come(counter)).quotas["user"] for _ in range(5)]
        self.assertEqual(quotas, [Quota(UNLIMITED - 1, 0, 1.0)] * 5)


class QuotaTests(RateTestCase):
    """An admission tells what is left, of the counters that are to be shown."""

    def test_quotas(self) -> None:
        """Free slots, tickets that may go at once, and the time until all of the burst may."""
        shown = Counter("c", 4, weight=2, rate=Rate(1_000_000, 5), shown=True)
        slots = Counter("d", 3, shown=True)
        first = self.successResultOf(self.come(shown, slots, Counter("e", 1), hold=True))
        self.assertEqual(first.quotas, {"c": Quota(2, 3, 2.0), "d": Quota(2)})
        self.clock.advance(0.5)
        second = self.successResultOf(self.come(shown, hold=True))
        self.assertEqual(second.quotas, {"c": Quota(0, 1, 3.5)})

    def test_waited(self) -> None:
        """One that waited is told what is left when it goes."""
        shown = Counter("c", rate=Rate(1_000_000, 2), shown=True)
        told: list[Quota] = []
        for _ in range(3):
            self.come(shown, hold=True).addCallback(lambda admission: told.append(admission.quotas["c"]))
        self.clock.advance(1.0)
        self.assertEqual([(quota.tickets, quota.full_in) for quota in told], [(1, 1.0), (0, 2.0), (0, 2.0)])

    def test_none(self) -> None:
        """Nothing is told of others."""
        self.assertEqual(self.successResultOf(self.come(Counter("c", 1))).quotas, {})
