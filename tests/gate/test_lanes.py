"""Parked lanes: what a heavy ticket does to others, bounds of the queue, and tickets that were admitted elsewhere."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.gate import Counter
from thrtwisted.gate.lanes import Lanes


class LanesTests(SynchronousTestCase):
    """Tickets are letters; their order is that of C{order}, or of their arrival."""

    def setUp(self) -> None:
        self.lanes: Lanes[str] = Lanes()
        self.arrivals = 0

    def acquire(
        self, ticket: str, *counters: Counter, order: int | None = None, max_waiting: int | None = None
    ) -> str:
        self.arrivals += 1
        rank = self.arrivals if order is None else order
        return "".join(self.lanes.acquire(ticket, counters, rank, max_waiting))

    def release(self, ticket: str) -> str:
        return "".join(self.lanes.release(ticket))

    def tearDown(self) -> None:
        for ticket in [ticket for ticket in map(chr, range(128)) if ticket in self.lanes]:
            self.lanes.release(ticket)
        self.assertTrue(self.lanes.idle, self.lanes)

    def test_heavy_among_light(self) -> None:
        """A heavy ticket is not passed by light ones that come after it, nor does it pass those before it."""
        light, heavy = Counter("c", 3), Counter("c", 3, weight=3)
        for ticket in "abc":
            self.assertEqual(self.acquire(ticket, light), ticket)
        self.acquire("d", light)
        self.acquire("H", heavy)
        for ticket in "efgh":
            self.assertEqual(self.acquire(ticket, light), "")
        self.assertEqual(self.release("a"), "d")
        for ticket in "bc":
            self.assertEqual(self.release(ticket), "")
        self.assertEqual(self.acquire("i", light), "")  # though two slots are free
        self.assertEqual(self.release("d"), "H")
        self.assertEqual(self.release("H"), "efg")
        self.assertEqual(self.acquire("J", heavy), "")
        for ticket, admitted in zip("efghi", ["h", "i", "", "", "J"], strict=True):
            self.assertEqual(self.release(ticket), admitted)

    def test_better_than_heavy(self) -> None:
        """What is kept for a heavy ticket is not kept from better ones."""
        self.acquire("a", Counter("c", 3))
        self.acquire("H", Counter("c", 3, weight=3), order=50)
        self.assertEqual(self.acquire("b", Counter("c", 3), order=49), "b")

    def test_heavier_than_all(self) -> None:
        """A ticket that is heavier than all slots together runs alone; of no slots nobody gets any."""
        heavy, light = Counter("c", 2, weight=5), Counter("c", 2)
        self.assertEqual(self.acquire("H", heavy), "H")
        self.acquire("I", heavy)
        self.acquire("a", light)
        self.assertEqual(self.release("H"), "I")
        self.assertEqual(self.release("I"), "a")
        self.acquire("J", heavy)
        self.assertEqual(self.release("a"), "J")
        self.assertEqual(self.acquire("Z", Counter("none", 0, weight=5)), "")

    def test_heavy_leaves(self) -> None:
        """When a heavy ticket gives up waiting, those go at once from whom slots were kept."""
        self.acquire("a", Counter("c", 3))
        self.acquire("H", Counter("c", 3, weight=3))
        for ticket in "bcd":
            self.acquire(ticket, Counter("c", 3))
        self.assertEqual(self.release("H"), "bc")

    def test_worse_leaves(self) -> None:
        """When somebody behind a heavy ticket gives up waiting, nothing changes."""
        self.acquire("a", Counter("c", 3))
        self.acquire("H", Counter("c", 3, weight=3))
        self.acquire("b", Counter("c", 3))
        self.assertEqual(self.release("b"), "")
        self.assertEqual(self.release("a"), "H")

    def test_better_head_elsewhere(self) -> None:
        """
        A lane that waits behind a heavy ticket gets a head that is better than that, and must wait for another counter:
        from then on, what comes free there is for this head.
        """
        c, d = Counter("c", 3), Counter("d", 1)
        self.acquire("a", c)
        self.acquire("H", Counter("c", 3, weight=3), order=50)
        self.acquire("b", c, d, order=60)
        self.acquire("x", d, order=70)
        self.assertEqual(self.acquire("y", c, d, order=10), "")
        self.assertEqual(self.release("x"), "y")

    def test_better_head_here(self) -> None:
        """A lane that is parked where it does not fit stays there, whatever other counter blocks its new head."""
        c, d = Counter("c", 1), Counter("d", 2, weight=2)
        self.acquire("a", Counter("d", 2))
        self.acquire("b", c, d, order=60)  # waits at d
        self.acquire("e", Counter("d", 2), order=70)  # one slot is free there, but kept
        self.acquire("x", c, order=80)
        self.assertEqual(self.acquire("y", c, d, order=10), "")
        self.assertEqual(self.acquire("z", Counter("d", 2), order=65), "")
        self.assertEqual(self.release("x"), "")
        self.assertEqual(self.release("a"), "y")
        self.assertEqual(self.release("y"), "b")
        self.assertEqual(self.release("b"), "ze")

    def test_moves_on(self) -> None:
        """A heavy ticket that fits at one counter waits at the next, and slots are kept for it there."""
        c, d = Counter("c", 2, weight=2), Counter("d", 2, weight=2)
        self.acquire("a", Counter("c", 2))
        self.acquire("b", Counter("d", 2))
        self.acquire("H", c, d)
        self.assertEqual(self.acquire("e", Counter("d", 2)), "e")
        self.assertEqual(self.release("a"), "")
        self.assertEqual(self.acquire("f", Counter("d", 2)), "")
        self.assertEqual(self.release("b"), "")
        self.assertEqual(self.release("e"), "H")
        self.assertEqual(self.release("H"), "f")

    def test_raised_from_none(self) -> None:
        """When a limit of 0 is raised, those who wait go at once, before the one who brought it."""
        for ticket in "abcd":
            self.acquire(ticket, Counter("c", 0))
        self.assertEqual(self.acquire("e", Counter("c", 3)), "abc")
        self.assertEqual(self.release("a"), "d")
        self.assertEqual(self.release("b"), "e")

    def test_bound_of_the_queue(self) -> None:
        """So many may wait; one more is refused, unless it need not wait."""
        self.acquire("a", Counter("c", 1))
        self.acquire("b", Counter("c", 1), max_waiting=1)
        self.assertEqual(self.acquire("x", Counter("c", 1), max_waiting=1), "")
        self.assertNotIn("x", self.lanes)
        self.assertEqual(self.acquire("d", Counter("d", 1), max_waiting=1), "d")
        self.assertEqual(self.acquire("e", Counter("c", 1)), "")  # no bound
        self.assertIn("e", self.lanes)

    def test_bound_of_a_counter(self) -> None:
        """So many may wait that need a counter, whatever else they need; others are free of this bound."""
        c, d = Counter("c", 1, max_waiting=2), Counter("d", 1)
        self.acquire("a", c, d, max_waiting=9)
        self.acquire("b", c, max_waiting=9)
        self.acquire("e", c, d, max_waiting=9)
        self.assertEqual((self.lanes.waiting_for("c"), self.lanes.waiting_for("d")), (2, 1))
        for counters in ((c,), (d, c), (c, Counter("new", 5))):
            self.acquire("x", *counters, max_waiting=9)
            self.assertNotIn("x", self.lanes)
        self.acquire("f", d, max_waiting=9)
        self.assertEqual(self.release("b"), "")
        self.assertEqual((self.lanes.waiting_for("c"), self.lanes.waiting_for("new")), (1, 0))
        self.acquire("g", c, max_waiting=9)
        self.assertIn("g", self.lanes)

    def test_none_may_wait(self) -> None:
        """With a bound of 0 a ticket is admitted at once or refused."""
        c = Counter("c", 1, max_waiting=0)
        self.assertEqual(self.acquire("a", c, max_waiting=9), "a")
        self.acquire("x", c, max_waiting=9)
        self.assertNotIn("x", self.lanes)

    def test_refused_leaves_nothing(self) -> None:
        """A refused ticket leaves no place, no lane, and no counter that nobody else needs."""
        self.acquire("x", Counter("c", 0, max_waiting=0), Counter("d", 1, weight=2), max_waiting=9)
        self.assertTrue(self.lanes.idle)

    def test_refused_raises(self) -> None:
        """The limits that a refused ticket came with count: else none could be raised while the queue is full."""
        self.acquire("a", Counter("c", 0))
        self.acquire("b", Counter("d", 0, max_waiting=1))
        self.assertEqual(
            self.acquire("x", Counter("c", 1), Counter("d", 0, max_waiting=1), max_waiting=9), "a"
        )
        self.assertNotIn("x", self.lanes)

    def test_room_by_raising(self) -> None:
        """Whom a raised limit lets through makes room in the queue for the ticket that brought it."""
        for ticket in "abc":
            self.acquire(ticket, Counter("c", 0))
        self.assertEqual(self.acquire("d", Counter("c", 1), max_waiting=3), "a")
        self.assertIn("d", self.lanes)

    def test_hold(self) -> None:
        """A ticket that was admitted elsewhere takes its slots, even more than there are."""
        for ticket in "abc":
            self.assertEqual(self.lanes.hold(ticket, [Counter("c", 2)]), [])
        self.assertEqual(self.lanes.hold("a", [Counter("d", 1)]), [])  # it is here already
        self.assertEqual(self.acquire("d", Counter("c", 2)), "")
        self.assertEqual((self.release("a"), self.release("b")), ("", "d"))

    def test_hold_raises(self) -> None:
        """A limit that comes with it lets others through, after its own slots are counted."""
        for ticket in "abc":
            self.acquire(ticket, Counter("c", 0))
        self.assertEqual(self.lanes.hold("H", [Counter("c", 3, weight=2)]), ["a"])

    def test_twice(self) -> None:
        """A ticket that is here already is left where it is; one that is not, is not released."""
        self.acquire("a", Counter("c", 1))
        self.assertEqual(self.acquire("a", Counter("c", 1)), "")
        self.assertEqual(self.release("x"), "")

    def test_same_order(self) -> None:
        """With aging, a later and better one may have the same order; none is lost, in a lane or beside."""
        c, d = Counter("c", 1), Counter("d", 1)
        self.acquire("a", c)
        for ticket, counters in (("b", [c]), ("e", [c]), ("f", [c, d]), ("g", [c, d])):
            self.assertEqual(self.acquire(ticket, *counters, order=7), "")
        self.assertEqual([self.release(ticket) for ticket in "abef"], ["b", "e", "f", "g"])

    def test_repr(self) -> None:
        """It shows what is taken, and who waits."""
        self.assertEqual(repr(self.lanes), "<Lanes idle, 0 waiting in 0 lanes>")
        self.acquire("a", Counter("c", 3, weight=2))
        self.acquire("b", Counter("c", 3, weight=2))
        self.assertEqual(repr(self.lanes), "<Lanes c:2/3, 1 waiting in 1 lanes>")
