"""Tests for L{thrtwisted.relay.pace}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.relay.pace import LARGEST_MESSAGE, MOST_PATIENCE, SMALLEST_MESSAGE, Pace

TIMEOUT = 0.25
FRAME = 32 * 1024


class PaceTests(SynchronousTestCase):
    """What is sent over lines of various speeds."""

    def setUp(self) -> None:
        self.pace = Pace(TIMEOUT)

    def send(self, rate: float, messages: int = 100) -> int:
        """Send full messages of frames, at a rate (bytes/s). How often the connection was given up is told."""
        given_up = 0
        for _ in range(messages):
            size = self.pace.message + FRAME
            if size / rate > self.pace.patience:
                given_up += 1
                self.pace.gave_up()
            else:
                self.pace.answered(size, size / rate)
        return given_up

    def test_quick(self) -> None:
        """Messages stay large, also after something has gone wrong once."""
        self.assertEqual(self.send(10_000_000), 0)
        self.pace.gave_up()
        self.assertEqual((self.pace.message, self.pace.in_vain), (SMALLEST_MESSAGE, 1))
        self.assertEqual(self.send(10_000_000), 0)
        self.assertEqual(
            (self.pace.message, self.pace.patience, self.pace.in_vain), (LARGEST_MESSAGE, TIMEOUT, 0)
        )

    def test_slow(self) -> None:
        """After at most a few connections in vain, all goes through, for good."""
        for rate in (500_000, 200_000, 100_000, 50_000, 10_000):
            self.pace = Pace(TIMEOUT)
            self.assertLessEqual(self.send(rate, 10), 4, rate)
            self.assertEqual(self.send(rate), 0, rate)

    def test_dead(self) -> None:
        """A line that carries nothing is waited for no longer than that."""
        self.send(1)
        self.assertEqual(self.pace.patience, MOST_PATIENCE * TIMEOUT)
        self.assertEqual(self.pace.in_vain, 100)

    def test_short_end(self) -> None:
        """That the end of a body goes through quickly does not make the next pieces late."""
        for _ in range(10):
            for _ in range(20):
                self.send(80_000, 1)
            self.pace.answered(14_000, 0.03)
        self.assertGreater(self.pace.patience, (SMALLEST_MESSAGE + FRAME) / 80_000)
        self.assertEqual(self.send(80_000), 0)

    def test_small(self) -> None:
        """What small messages take says nothing."""
        self.pace.gave_up()
        for _ in range(10):
            self.pace.answered(100, 0.01)
        self.assertEqual(self.pace.message, SMALLEST_MESSAGE)
