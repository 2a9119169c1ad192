"""Who may go while Redis is gone."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.gate import UNLIMITED, Counter, Quota, Rate, Ticket
from thrtwisted.gate.fallback import Fallback, Shares
from thrtwisted.gate.order import ARRIVALS, TURN, Order
from thrtwisted.gate.places import Place

#: Seconds: when Redis went, and the lease.
SINCE, LEASE = 100.0, 5.0


def shares(processes: int = 4, everything: bool = False, **entitled: int) -> Shares:
    return Shares(SINCE, LEASE, processes, entitled, everything)


class SharesTests(SynchronousTestCase):
    def over_time(self, of: Shares, max_concurrent: int) -> list[int]:
        """The slots of counter C{a} at first, after one lease, and after another."""
        times = (SINCE, SINCE + 4.9, SINCE + 5.0, SINCE + 9.9, SINCE + 10.0, SINCE + 1000.0)
        slots = [of.slots("a", max_concurrent, now) for now in times]
        self.assertEqual(slots[::2], slots[1::2])
        return slots[::2]

    def test_more_than_its_share(self) -> None:
        """A process goes on with what it had, and shrinks to its share after a lease."""
        self.assertEqual(self.over_time(shares(a=7), 12), [7, 3, 3])

    def test_less_than_its_share(self) -> None:
        """One that had less grows to its share when the others have shrunk."""
        self.assertEqual(self.over_time(shares(a=2), 12), [2, 2, 3])

    def test_nothing(self) -> None:
        """One that had nothing has one slot, also where there are fewer than processes."""
        self.assertEqual(self.over_time(shares(), 12), [1, 1, 3])
        self.assertEqual(self.over_time(shares(), 2), [1, 1, 1])

    def test_over_the_limit(self) -> None:
        """What was held over a limit is not held on to."""
        self.assertEqual(self.over_time(shares(a=20), 12), [12, 3, 3])

    def test_alone(self) -> None:
        """Where there was no other process, nothing changes."""
        alone = shares(processes=1)
        self.assertEqual(self.over_time(alone, 12), [12, 12, 12])
        self.assertIsNone(alone.next_change(SINCE))

    def test_closed(self) -> None:
        """A limit of 0 is one, unless everything passes."""
        for of in (shares(), shares(a=3), shares(processes=1)):
            self.assertEqual(self.over_time(of, 0), [0, 0, 0])
        self.assertGreater(shares(everything=True).slots("a", 0, SINCE), 10**9)

    def test_rates(self) -> None:
        """Each process has its share of a rate, and of the burst or one; where everything passes there is none."""
        rate = Rate(1_000, 10, "demote", 70)
        self.assertEqual(shares(4).rate(rate), Rate(4_000, 2, "demote", 70))
        self.assertEqual(shares(20).rate(rate), Rate(20_000, 1, "demote", 70))
        for processes in (0, 1):
            self.assertEqual(shares(processes).rate(rate), rate)
        self.assertIsNone(shares(everything=True).rate(rate))
        self.assertIsNone(shares().rate(None))

    def test_rate_only(self) -> None:
        """A counter that has no limit but its rate has none of slots here."""
        self.assertEqual(self.over_time(shares(a=3), UNLIMITED), [UNLIMITED] * 3)

    def test_everything(self) -> None:
        """Where everything passes there are no limits, and nothing changes."""
        self.assertGreater(shares(everything=True).slots("a", 1, SINCE + 100), 10**9)
        self.assertIsNone(shares(everything=True).next_change(SINCE))

    def test_next_change(self) -> None:
        """It is known when the slots change."""
        for now, change in ((SINCE, 5.0), (SINCE + 4, 1.0), (SINCE + 5, 5.0), (SINCE + 10, None)):
            self.assertEqual(shares().next_change(now), change)

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(0, 5))
    def test_sum(self, held: list[int], free: int) -> None:
        """
        All together have as many as the limit says, and one for each process but one; in the end no more than the
        limit, or one each.
        """
        limit = max(1, sum(held) + free)
        several = [shares(len(held), a=slots) for slots in held]
        for now in (SINCE, SINCE + LEASE, SINCE + 2 * LEASE):
            total = sum(each.slots("a", limit, now) for each in several)
            self.assertLessEqual(total, limit + len(held) - 1)
        self.assertLessEqual(total, max(limit, len(held)))
        self.assertGreaterEqual(total, 1)


class FallbackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.order = Order()
        self.serial = 0

    def place(
        self,
        *counters: Counter,
        order: int = 0,
        admitted: bool = False,
        priority: int = 50,
        fair: str | None = None,
    ) -> Place:
        self.serial += 1
        told: Any = None if admitted else Deferred()
        return Place(self.serial, Ticket(counters, priority, fair=fair), 0.0, told, order)

    def fallback(self, places: list[Place], of: Shares | None = None) -> Fallback:
        return Fallback(of or shares(), self.order, places, SINCE)

    def test_held(self) -> None:
        """What is held takes slots, even more than there are, and frees them when it is released."""
        a = Counter("a", 4)
        held = [self.place(a, admitted=True) for _ in range(2)]
        fallback = self.fallback(held)
        late = self.place(a)
        self.assertEqual((fallback.admitted, fallback.acquire(late, SINCE)), ([], []))
        self.assertEqual((late in fallback, fallback.waiting), (True, 1))
        self.assertEqual([fallback.release(place.serial) for place in held], [[], [late.serial]])
        self.assertEqual(fallback.waiting, 0)

    def test_order(self) -> None:
        """Those that Redis had ranked go first, in that order; then the others as they came; then newcomers."""
        one = Counter("one", 1)
        held = self.place(one, admitted=True)
        unranked = [self.place(one), self.place(one)]
        ranked = [self.place(one, order=50 * ARRIVALS + number) for number in (9, 7)]
        self.order.catch_up(50 * ARRIVALS + 9, 50)
        fallback = self.fallback([held, *unranked, *ranked])
        newcomer, urgent = self.place(one), self.place(one, priority=1)
        for place in (newcomer, urgent):
            fallback.acquire(place, SINCE)
        expected = [urgent, *ranked[::-1], *unranked, newcomer]
        admitted = [held.serial]
        for _ in expected:
            admitted += fallback.release(admitted[-1])
        self.assertEqual(admitted[1:], [place.serial for place in expected])

    def test_admitted_at_the_beginning(self) -> None:
        """Whoever has room goes at once, the best first."""
        a, b = Counter("a", 4), Counter("b", 4)
        held = self.place(a, admitted=True)
        waiting = [
            self.place(a, order=1),
            self.place(b, order=3),
            self.place(b, order=2),
            self.place(a, b, order=4),
        ]
        fallback = self.fallback([held, *waiting], shares(a=2))
        self.assertEqual(fallback.admitted, [waiting[0].serial, waiting[2].serial])

    def test_keeps_its_order(self) -> None:
        """The rank given here is the ticket's, and Redis may be told of it."""
        place = self.place(Counter("one", 1))
        self.fallback([place])
        self.assertGreater(place.order, 50 * ARRIVALS)

    def test_full(self) -> None:
        """Newcomers may be refused, by the bound of all or of a counter; who was here before never is."""
        one, bounded = Counter("one", 1), Counter("one", 1, max_waiting=1)
        fallback = self.fallback([self.place(one, admitted=True), *(self.place(bounded) for _ in range(3))])
        self.assertEqual(fallback.waiting, 3)
        for counter, most in ((one, 3), (bounded, 100)):
            refused = self.place(counter)
            self.assertEqual(fallback.acquire(refused, SINCE, most), [])
            self.assertNotIn(refused, fallback)
        welcome = self.place(one)
        fallback.acquire(welcome, SINCE, 4)
        self.assertIn(welcome, fallback)

    def test_weights(self) -> None:
        """A ticket that is heavier than the share runs alone."""
        heavy, light = Counter("a", 8, weight=3), Counter("a", 8)
        fallback = self.fallback([self.place(light, admitted=True)], shares(a=1))
        late = self.place(heavy)
        self.assertEqual(fallback.acquire(late, SINCE), [])
        self.assertEqual(fallback.release(1), [late.serial])

    def test_everything(self) -> None:
        """Where everything passes, all go at once."""
        closed = Counter("closed", 0)
        places = [self.place(closed) for _ in range(3)]
        fallback = self.fallback(places, shares(everything=True))
        self.assertEqual(fallback.admitted, [place.serial for place in places])

    def test_waits_for_time(self) -> None:
        """Who waits for a rate goes when it is woken in time; a rate does not begin anew when the shares change."""
        tenth = Counter("a", rate=Rate(100_000, 1))
        places = [self.place(tenth) for _ in range(5)]
        fallback = self.fallback(places, shares(2))
        self.assertEqual(fallback.admitted, [1])
        self.assertAlmostEqual(fallback.next_due(SINCE) or 0.0, 0.2)
        self.assertEqual(fallback.wake(SINCE + 0.1), [])
        self.assertEqual(fallback.wake(SINCE + 0.2), [2])
        for place in places[:2]:
            place.told = None
        fallback = Fallback(shares(2), self.order, places, SINCE + 0.3, fallback)
        self.assertEqual(fallback.admitted, [])
        self.assertAlmostEqual(fallback.next_due(SINCE + 0.3) or 0.0, 0.1)
        self.assertEqual(fallback.release(1, SINCE + 0.4), [3])
        for serial in (4, 5):
            self.assertEqual(fallback.release(serial), [])
        self.assertIsNone(fallback.next_due(SINCE + 0.4))

    def test_rejected(self) -> None:
        """Who is over a rate that rejects is refused, at the beginning too, with the time after which it is not."""
        reject = Counter("a", rate=Rate(500_000, 1, "reject"))
        places = [self.place(reject) for _ in range(2)]
        fallback = self.fallback(places, shares(2))
        late = self.place(reject)
        self.assertEqual((fallback.admitted, fallback.acquire(late, SINCE + 0.25)), ([1], []))
        self.assertEqual(fallback.rejected, {2: 1.0, 3: 0.75})
        self.assertNotIn(late, fallback)

    def test_ranked_is_not_rejected(self) -> None:
        """Who was ranked by Redis was let into the queue there, and is not looked at again."""
        reject = Counter("a", 1, rate=Rate(500_000, 1, "reject"))
        places = [self.place(reject, order=50 * ARRIVALS + number) for number in range(1, 4)]
        fallback = self.fallback(places)
        self.assertEqual((fallback.waiting, fallback.rejected), (2, {}))

    def test_demoted(self) -> None:
        """Who is over a rate that demotes competes with another priority from then on, of which its place tells."""
        slot, demote = Counter("slot", 1), Counter("a", rate=Rate(500_000, 1, "demote", 80))
        places = [self.place(slot, demote), self.place(slot, demote), self.place(slot, priority=70)]
        fallback = self.fallback(places)
        self.assertEqual([place.priority for place in places], [50, 80, 70])
        self.assertEqual(places[1].order // ARRIVALS, 80)
        self.assertEqual((fallback.release(1), fallback.release(3)), ([3], [2]))

    def test_turns(self) -> None:
        """Those whom Redis has given a turn keep it; newcomers take theirs after that."""
        slot = Counter("slot", 1)
        held = self.place(slot, admitted=True)
        ranked = [
            self.place(slot, order=50 * ARRIVALS + turn * TURN + 9, fair=fair)
            for turn, fair in ((7, "a"), (8, "a"), (9, "a"), (7, "b"))
        ]
        for place in ranked:
            self.order.catch_up(place.order, 50)
        fallback = self.fallback([held, *ranked])
        for fair in "bcc":
            fallback.acquire(self.place(slot, fair=fair), SINCE)
        # a, b and c with turn 7; then a, b and c with 8; then the last of a.
        admitted = [held.serial]
        for _ in range(7):
            admitted += fallback.release(admitted[-1])
        self.assertEqual(admitted[1:], [2, 5, 7, 3, 6, 8, 4])

    def test_quotas(self) -> None:
        """What is left is said of this process's share."""
        shown = Counter("a", 8, rate=Rate(500_000, 4), shown=True)
        place = self.place(shown, Counter("b", 1))
        fallback = self.fallback([place], shares(2, a=4))
        self.assertEqual(fallback.quotas(place, SINCE), {"a": Quota(3, 1, 1.0)})
