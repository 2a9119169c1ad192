"""Tests for L{thrtwisted.gate.fallback}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.gate import Counter, Ticket
from thrtwisted.gate.fallback import EVERYTHING, Fallback, Shares
from thrtwisted.gate.order import Order
from thrtwisted.gate.places import Place


def shares(**changes: Any) -> Shares:
    """Those of one of four processes, which had so many of the counter a."""
    return Shares(**{"since": 100.0, "lease": 5.0, "processes": 4, "entitled": {}, **changes})


def place(serial: int, *counters: Counter, order: int = 0, admitted: bool = False) -> Place:
    """The place of a ticket."""
    return Place(serial, Ticket(counters), 0.0, None if admitted else Deferred(), order)


class SharesTests(SynchronousTestCase):
    """How many slots there are."""

    def check(self, shares: Shares, max_concurrent: int, *slots: int) -> None:
        """As many at the beginning, after one lease, and after two."""
        times = (100.0, 104.9, 105.0, 109.9, 110.0, 1e6)
        found = [shares.slots("a", max_concurrent, now) for now in times]
        self.assertEqual(found, [each for each in slots for _ in range(2)])

    def test_more_than_its_share(self) -> None:
        """Who had more keeps it for one lease."""
        self.check(shares(entitled={"a": 7}), 8, 7, 2, 2)

    def test_less_than_its_share(self) -> None:
        """Who had less gets more when the others have shrunk."""
        self.check(shares(entitled={"a": 1}), 8, 1, 1, 2)

    def test_nothing(self) -> None:
        """Who had nothing has one slot."""
        self.check(shares(entitled={"b": 8}), 8, 1, 1, 2)

    def test_over_the_limit(self) -> None:
        """Nobody has more than there are, though he had."""
        self.check(shares(entitled={"a": 9}), 3, 3, 1, 1)

    def test_few(self) -> None:
        """Where there are fewer slots than processes, each has one."""
        self.check(shares(), 3, 1, 1, 1)

    def test_closed(self) -> None:
        """Where there are none, there are none."""
        self.check(shares(entitled={"a": 1}), 0, 0, 0, 0)
        self.check(shares(processes=1), 0, 0, 0, 0)

    def test_alone(self) -> None:
        """The only process has them all."""
        alone = shares(processes=1)
        self.check(alone, 8, 8, 8, 8)
        self.assertIsNone(alone.next_change(100.0))

    def test_unknown(self) -> None:
        """A process that has never known of any others begins with one slot; then it takes itself for the only one."""
        self.check(shares(processes=0), 8, 1, 1, 8)

    def test_everything(self) -> None:
        """Without limits, none holds, be it 0."""
        everything = shares(everything=True)
        self.check(everything, 0, EVERYTHING, EVERYTHING, EVERYTHING)
        self.assertIsNone(everything.next_change(100.0))

    def test_changes(self) -> None:
        """They change twice."""
        changes = [shares().next_change(now) for now in (100.0, 104.0, 105.0, 110.0)]
        self.assertEqual(changes, [5.0, 1.0, 5.0, None])


class FallbackTests(SynchronousTestCase):
    """Who may go."""

    def test_beginning(self) -> None:
        """What is held stays so; then those go for whom there is room: first those who have a rank, by that."""
        order = Order()
        ranked = [order.next(priority, 0.0) for priority in (50, 1)]
        places = [
            place(1, Counter("a", 4), admitted=True),
            place(2, Counter("a", 4)),
            place(3, Counter("a", 4), order=ranked[0]),
            place(4, Counter("a", 4), order=ranked[1]),
            place(5, Counter("b", 4)),
        ]
        fallback = Fallback(shares(entitled={"a": 2}), order, places, 100.0)
        self.assertEqual(fallback.admitted, [4, 5])
        self.assertEqual(fallback.release(1), [3])
        self.assertEqual(fallback.release(3), [2])

    def test_shrunk(self) -> None:
        """More may be held than there is: then nobody goes until enough have ended."""
        held = [place(serial, Counter("a", 4), admitted=True) for serial in range(1, 4)]
        fallback = Fallback(shares(entitled={"a": 3}), Order(), [*held, place(4, Counter("a", 4))], 105.0)
        self.assertEqual(fallback.admitted, [])
        self.assertEqual([fallback.release(serial) for serial in range(1, 4)], [[], [], [4]])

    def test_weights(self) -> None:
        """A ticket that is heavier than what there is here runs alone."""
        heavy = place(1, Counter("a", 4, weight=3))
        fallback = Fallback(shares(), Order(), [heavy], 100.0)
        self.assertEqual(fallback.admitted, [1])
        self.assertEqual(fallback.acquire(place(2, Counter("a", 4)), 100.0), [])
        self.assertEqual(fallback.release(1), [2])

    def test_refused(self) -> None:
        """Who may not wait is not here."""
        counters = (Counter("a", 4, max_waiting=1), Counter("b", 4))
        fallback = Fallback(shares(), Order(), [], 100.0)
        for serial, *needs in ((1, *counters), (2, *counters), (3, counters[1]), (4, counters[1])):
            fallback.acquire(place(serial, *needs), 100.0, 2)
        self.assertEqual([place(serial) in fallback for serial in range(1, 5)], [True, True, True, False])
        self.assertEqual(fallback.release(3), [])
        late = place(5, counters[0])
        fallback.acquire(late, 100.0, 2)
        self.assertNotIn(late, fallback)
