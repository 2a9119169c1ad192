"""Who may go while Redis is gone."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.gate import Counter, Ticket
from thrtwisted.gate.fallback import Fallback, Shares
from thrtwisted.gate.order import ARRIVALS, Order
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

    def test_everything(self) -> None:
        """Where everything passes there are no limits, and nothing changes."""
        self.assertGreater(shares(everything=True).slots("a", 1, SINCE + 100), 10**9)
        self.assertIsNone(shares(everything=True).next_change(SINCE))

    def test_next_change(self) -> None:
        """It is known when the slots change."""
        for now, change in ((SINCE, 5.0), (SINCE + 4, 1.0), (SINCE + 5, 5.0), (SINCE + 10, None)):
            self.assertEqual(shares().next_change(now), change)

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

    def place(self, *counters: Counter, order: int = 0, admitted: bool = False, priority: int = 50) -> Place:
        self.serial += 1
        told: Any = None if admitted else Deferred()
        return Place(self.serial, Ticket(counters, priority), 0.0, told, order)

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
