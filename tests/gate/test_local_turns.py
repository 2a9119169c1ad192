"""Turns: what one user has waiting does not stand before another's first, at the gate of one process."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.gate.test_local_rates import RateTestCase
from thrtwisted.gate import Counter, IAdmission, Rate, Ticket
from thrtwisted.gate.local import LocalGate
from thrtwisted.gate.turns import MOST, Turns

ONE = Counter("one", 1)


class TurnTests(RateTestCase):
    """Tickets are called by their user."""

    def hold(self, *counters: Counter) -> IAdmission:
        admission: IAdmission = self.successResultOf(self.gate.acquire(Ticket(counters or (ONE,))))
        return admission

    def waits(self, user: str, *counters: Counter, priority: int = 50) -> Deferred[IAdmission]:
        waiting = self.come(*(counters or (ONE,)), name=user, fair=user, priority=priority)
        self.assertNoResult(waiting)
        return waiting

    def test_first_of_another(self) -> None:
        """500 waiting of one user do not stand before another's first, but for one of them."""
        held = self.hold()
        for _ in range(500):
            self.waits("a")
        self.waits("b")
        held.release()
        self.assertEqual(self.names, "ab" + 499 * "a")

    def test_in_turns(self) -> None:
        """Users take turns, each with its tickets in their order, whoever came first."""
        held = self.hold()
        for user in "aaaabbc":
            self.waits(user)
        self.waits("d")
        held.release()
        self.assertEqual(self.names, "abcdabaa")

    def test_priority_first(self) -> None:
        """They do so among equal priorities only."""
        held = self.hold()
        for user, priority in (("a", 50), ("a", 50), ("b", 50), ("A", 1), ("A", 1), ("b", 1), ("c", 99)):
            self.waits(user, priority=priority)
        held.release()
        self.assertEqual(self.names, "AbAabac")

    def test_newcomer_amid(self) -> None:
        """One that comes when many were served gets the turn that is being served: neither before nor behind."""
        held = [self.hold()]
        for _ in range(20):
            self.come(ONE, name="a", fair="a").addCallback(lambda _: held.append(self.hold(Counter("x"))))
        slow = self.gate.acquire(Ticket((ONE,), 99))
        self.waits("b")
        held[0].release()
        self.successResultOf(slow).release()
        self.assertEqual(self.names[:3], "aba")
        for admission in held[1:]:
            admission.release()

    def test_comes_back(self) -> None:
        """Who comes back has no credit for its absence, nor has it to atone for what it was given before."""
        admissions = [self.hold()]
        order: list[str] = []

        def wait(user: str) -> None:
            waiting = self.gate.acquire(Ticket((ONE,), fair=user))
            waiting.addCallback(lambda admission: (order.append(user), admissions.append(admission)))

        for user in "bbaaaaaa":
            wait(user)
        for _ in range(6):
            admissions.pop().release()
        self.assertEqual("".join(order), "babaaa")
        for user in "bbc":
            wait(user)
        while admissions:
            admissions.pop().release()
        self.assertEqual("".join(order[6:]), "bcaba")

    def test_left(self) -> None:
        """Who leaves the queue gives its turn back to its user."""
        held = self.hold()
        for deferred in [self.waits("a") for _ in range(400)]:
            deferred.cancel()
            self.failureResultOf(deferred)
        self.waits("b")
        kept = [self.waits("c") for _ in range(3)]
        leaving = [self.waits("a") for _ in range(400)]
        for deferred in leaving:
            deferred.cancel()
            self.failureResultOf(deferred)
        self.waits("a")
        held.release()
        self.assertEqual(self.names, "bcacc")
        self.assertTrue(all(deferred.called for deferred in kept))

    def test_backends_of_different_pace(self) -> None:
        """A newcomer at a slow backend does not come after all who wait there, however many a fast one has served."""
        slow, fast = Counter("slow", 1), Counter("fast", 1)
        held = self.hold(slow)
        for _ in range(10):
            self.waits("a", slow)
        other = self.hold(fast)
        for _ in range(300):
            self.waits("f", fast)
        other.release()
        self.admitted.clear()
        other = self.hold(fast)
        self.waits("b", slow)
        self.waits("b", fast)
        other.release()
        held.release()
        self.assertEqual(self.names, "b" + "ab" + 9 * "a")

    def test_own_limit(self) -> None:
        """A user who waits for its own limit stands before nobody, nor is it forgotten when it may go."""

        def user(name: str) -> tuple[Counter, Counter]:
            return Counter("backend", 2), Counter(f"user={name}", 1)

        own, other = self.hold(*user("a")), self.hold(*user("z"))
        for _ in range(50):
            self.waits("a", *user("a"))
        self.waits("b", *user("b"))
        self.waits("c", *user("c"))
        other.release()
        self.assertEqual(self.names, "bc")
        full = [self.hold(*user("z"))]
        for name in "bc":
            self.waits(name, *user(name))
        own.release()
        # b and c have had their first turn already.
        self.assertEqual(self.names, "bc" + "aabc" + 48 * "a")
        full[0].release()

    def test_backlog_under_traffic(self) -> None:
        """
        However much of a better priority goes by, in a backlog of a worse one the users take turns from the first on.
        """
        held = self.hold()
        for _ in range(10):
            self.waits("a", priority=90)
        for _ in range(300):
            self.waits("x", priority=10)
        self.waits("b", priority=90)
        held.release()
        self.assertEqual(self.names.replace("x", ""), "ab" + 9 * "a")

    def test_demoted(self) -> None:
        """Who is demoted takes turns with the others of that priority."""
        held = self.hold()
        heavy = Counter("user=a", rate=Rate(60_000_000, 1, "demote"))
        for _ in range(4):
            self.waits("a", heavy, ONE)
        for user in "bb":
            self.waits(user, priority=90)
        held.release()
        self.assertEqual(self.names, "aababa")

    def test_without_a_key(self) -> None:
        """Tickets without a key keep to the order of their arrival."""
        held = self.hold()
        for name in "abc":
            self.come(ONE, name=name)
        held.release()
        self.assertEqual(self.names, "abc")

    def test_aging(self) -> None:
        """With aging nobody takes turns: the order is that of time."""
        self.gate = LocalGate(self.clock, aging=10.0)
        held = self.hold()
        for user in "aab":
            self.waits(user)
        held.release()
        self.assertEqual(self.names, "aab")

    def test_nothing_is_left(self) -> None:
        """Turns are remembered of nobody when nobody waits; and of a counter's when nobody waits for that."""
        held, other = self.hold(), self.hold(Counter("other", 1))
        for number in range(200):
            self.waits(f"user{number}")
        self.waits("a", Counter("other", 1))
        held.release()
        self.assertEqual(list(self.gate._lanes._turns._levels), ["other"])
        other.release()
        self.assertFalse(self.gate._lanes._turns)

    def test_served_users_are_forgotten(self) -> None:
        """While a queue never empties, those are forgotten whose turn is over."""
        turns = Turns()
        for number in range(300):
            for user in (f"user{number}", "always"):
                turn = turns.turn(["c"], 50, user)
                turns.join(["c"], 50, user, turn)
                turns.serve(["c"], 50, turn)
            self.assertLess(len(turns._levels["c"][50].following), 4)

    def test_invented_users(self) -> None:
        """Where all come once and the level does not rise, a thousand are remembered; the heaviest is."""
        turns = Turns()
        for turn in range(10):
            turns.join(["c"], 50, "heavy", turn)
        for number in range(1500):
            turns.join(["c"], 50, f"user{number}", turns.turn(["c"], 50, f"user{number}"))
            turns.serve(["c"], 50, 0)
        self.assertEqual(len(turns._levels["c"][50].following), MOST)
        self.assertEqual(turns.turn(["c"], 50, "heavy"), 10)
