"""Tests for L{thrtwisted.listen.pace}."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.listen.pace import BLIND, LOT, WINDOW, Pace, Uptake


class PaceTests(SynchronousTestCase):
    """Tests for L{Pace}: 100 bytes a second, in any ten."""

    def setUp(self) -> None:
        self.pace = Pace(100, 50.0)

    def test_nothing(self) -> None:
        """Where nothing moves it is too slow after the first window."""
        self.assertEqual(self.pace.due, 60.0)

    def test_too_little(self) -> None:
        """Too little is as nothing."""
        for second in range(9):
            self.pace.moved(111, 51.0 + second)
        self.assertEqual(self.pace.due, 60.0)

    def test_enough(self) -> None:
        """Enough at a time lasts for a window from then on."""
        self.pace.moved(1000, 57.0)
        self.assertEqual(self.pace.due, 67.0)
        self.pace.moved(999, 65.0)
        self.assertEqual(self.pace.due, 67.0)
        self.pace.moved(1, 66.5)
        self.assertEqual(self.pace.due, 75.0 if LOT < 1.5 else 76.5)

    def test_early_bytes_do_not_last(self) -> None:
        """However many came early, each window needs its own."""
        self.pace.moved(1_000_000, 51.0)
        for second in range(10):
            self.pace.moved(10, 52.0 + second)
        self.assertEqual(self.pace.due, 61.0)

    def test_against_the_definition(self) -> None:
        """It is as if all windows were looked at; the bytes of a second may count as one lot."""
        for seed in range(30):
            random = Random(seed)
            start, now, moves = 5.0, 5.0, []
            pace = Pace(100, start)
            while pace.due > now and now < 100:
                now += random.choice((0.25, 0.5, 2.0, 4.0))  # floats hold their sums exactly
                if pace.due <= now:
                    break
                moves.append((now, random.choice((1, 200, 500))))
                pace.moved(moves[-1][1], now)
            exact = self.too_slow(start, moves)
            self.assertGreaterEqual(pace.due, exact)
            self.assertLessEqual(pace.due, exact + LOT)

    def too_slow(self, start: float, moves: list[tuple[float, int]]) -> float:
        """The first moment at which the window that ends there has brought too little."""
        ends = sorted({start + WINDOW, *(at + WINDOW for at, _ in moves if at > start)})
        for end in ends:
            if sum(count for at, count in moves if end - WINDOW < at <= end) < 1000:
                return end
        raise AssertionError


class UptakeTests(SynchronousTestCase):
    """Tests for L{Uptake}."""

    def test_takes_nothing(self) -> None:
        """A client that takes nothing for a window is too slow; it is looked at several times until then."""
        uptake = Uptake(100, seen=True)
        uptake.look(5000, 0.0)
        uptake.wait(0.0)
        looks = []
        while not uptake.too_slow(uptake.due()) and len(looks) < 9:
            looks.append(uptake.due())
            uptake.look(5000, looks[-1])
        self.assertEqual(looks, [2.5, 5.0, 7.5])
        self.assertEqual(uptake.due(), 10.0)

    def test_takes_enough(self) -> None:
        """One that takes enough is not, for as long as that lasts."""
        uptake = Uptake(100, seen=True)
        uptake.wait(0.0)
        for number in range(1, 100):
            now = number * 5.0
            uptake.look(number * 600, now)
            self.assertFalse(uptake.too_slow(now))

    def test_waiting_counts(self) -> None:
        """Only time counts in which something waits."""
        uptake = Uptake(100, seen=True)
        for number in range(9):
            uptake.wait(number * 1000.0)
            self.assertFalse(uptake.too_slow(number * 1000.0 + 0.9))
            uptake.flow(number * 1000.0 + 1.0)
            self.assertFalse(uptake.waiting)
        uptake.wait(10_000.0)
        self.assertEqual(uptake.due(), 10_001.0)
        self.assertTrue(uptake.too_slow(10_001.0))

    def test_unseen(self) -> None:
        """Where nobody tells, so much more time is given as a kernel may take without a sign."""
        uptake = Uptake(1000, seen=False)
        uptake.wait(0.0)
        late = WINDOW + BLIND / 1000
        self.assertFalse(uptake.too_slow(late - 0.1))
        self.assertTrue(uptake.too_slow(late + 0.1))
        self.assertAlmostEqual(uptake.due(), late)
