"""How long those who are sent away are told to stay away."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.gate.admission import Throughput


class ThroughputTests(SynchronousTestCase):
    def test_nothing_known(self) -> None:
        """Before anything was released, the answer is the length of the window."""
        self.assertEqual(Throughput().drain_time(10), Throughput.WINDOW)

    def test_nothing_released(self) -> None:
        """While nothing is released, the answer is the length of the window."""
        throughput = Throughput()
        for now in range(100):
            throughput.observe(now, 7, 1)
        self.assertEqual(throughput.drain_time(10), Throughput.WINDOW)

    def test_pace(self) -> None:
        """At two releases a second, 30 who wait are admitted in 15 seconds."""
        throughput = Throughput()
        for now in range(21):
            throughput.observe(now, 2 * now, 1)
        self.assertEqual(throughput.drain_time(30), 15)

    def test_recent_pace(self) -> None:
        """What was released before the window does not count."""
        throughput = Throughput()
        for now in range(1000):
            throughput.observe(now, 10 * min(now, 900) + max(0, now - 900), 1)
        self.assertAlmostEqual(throughput.drain_time(30), 30, delta=0.1)

    def test_idle_is_not_slow(self) -> None:
        """Hours in which nobody waited are no part of the pace, nor is what was released in them."""
        throughput = Throughput()
        throughput.observe(0, 0, 0)
        throughput.observe(10_000, 5, 0)
        throughput.observe(10_001, 5, 1)
        throughput.observe(10_003, 9, 30)
        self.assertEqual(throughput.drain_time(30), 15)

    def test_bounds(self) -> None:
        """The answer is at least a second, and at most an hour."""
        throughput = Throughput()
        throughput.observe(0, 0, 1)
        throughput.observe(10, 1, 1)
        self.assertEqual((throughput.drain_time(0), throughput.drain_time(10**6)), (1, Throughput.LONGEST))

    def test_emptied(self) -> None:
        """When the count starts anew, so does the measuring."""
        throughput = Throughput()
        throughput.observe(0, 1000, 1)
        throughput.observe(10, 0, 1)
        throughput.observe(20, 10, 1)
        self.assertEqual(throughput.drain_time(10), 10)
