"""How long Redis is waited for."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.gate.patience import SLICES, Patience


class PatienceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.over: list[float] = []
        self.patience = Patience(self.clock, 1.0, lambda: self.over.append(self.clock.seconds()))

    def test_over(self) -> None:
        """It is over when the time has passed, and is so once."""
        self.clock.pump([0.125] * 7)
        self.assertEqual(self.over, [])
        self.clock.pump([0.125] * 17)
        self.assertEqual(len(self.over), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_busy(self) -> None:
        """A reactor that was busy for as long as that, and longer, has still turns in which it reads."""
        self.clock.advance(10.0)
        self.clock.pump([1 / SLICES] * (SLICES - 2))
        self.assertEqual(self.over, [])
        self.clock.advance(1 / SLICES)
        self.assertEqual(len(self.over), 1)

    def test_end(self) -> None:
        """What has ended is never over, and leaves no timer."""
        self.clock.advance(0.5)
        self.patience.end()
        self.patience.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(10.0)
        self.assertEqual(self.over, [])

    def test_end_when_over(self) -> None:
        """What is over may be ended."""
        self.clock.pump([0.25] * 8)
        self.patience.end()
        self.assertEqual(len(self.over), 1)
