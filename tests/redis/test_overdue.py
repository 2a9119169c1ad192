"""Tests for L{thrtwisted.redis.overdue}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.redis.overdue import Overdue


class OverdueTests(SynchronousTestCase):
    """Answers that take at most a second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[float] = []
        self.overdue = Overdue(self.clock, 1.0, lambda: self.late.append(self.clock.seconds()))

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))

    def test_late(self) -> None:
        """It is noted once, soon after the time is over."""
        self.pass_time(0.5)
        self.overdue.asked()
        self.overdue.asked()
        self.pass_time(5)
        [late] = self.late
        self.assertGreaterEqual(late, 1.5)
        self.assertLess(late, 1.75)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_time(self) -> None:
        """As long as one answer after the other comes nothing is late; without questions there is no timer."""
        for _ in range(20):
            self.overdue.asked()
            self.overdue.asked()
            self.pass_time(0.9)
            self.overdue.answered()
        self.assertEqual(self.late, [])
        for _ in range(20):
            self.overdue.answered()
        self.pass_time(1)
        self.assertEqual((self.late, self.clock.getDelayedCalls()), ([], []))

    def test_alive(self) -> None:
        """Other signs of life are as good; it is late when there is none any more."""
        self.overdue.asked()
        for _ in range(20):
            self.pass_time(0.9)
            self.overdue.alive()
        self.assertEqual(self.late, [])
        self.pass_time(1.5)
        self.assertEqual(len(self.late), 1)

    def test_asked_anew(self) -> None:
        """The time begins with the question, not with the answer before."""
        self.overdue.asked()
        self.pass_time(0.95)
        self.overdue.answered()
        self.pass_time(0.1)
        self.overdue.asked()
        self.pass_time(0.95)
        self.assertEqual(self.late, [])

    def test_busy(self) -> None:
        """A reactor that was busy itself has not waited: the answer may be there already."""
        self.overdue.asked()
        self.clock.advance(60)
        self.assertEqual(self.late, [])
        self.overdue.answered()
        self.pass_time(2)
        self.assertEqual(self.late, [])

    def test_forget(self) -> None:
        """What was asked is forgotten, and answers to it are none."""
        self.overdue.asked()
        self.overdue.forget()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.overdue.answered()
        self.pass_time(2)
        self.overdue.forget()
        self.assertEqual(self.late, [])
