"""What is used up of rates at counters that nobody needs at the moment: what is kept of it, and what is forgotten."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.gate import Counter, Rate
from thrtwisted.gate.lanes import Lanes
from thrtwisted.gate.meter import LATE, Meter, Meters


class MetersTests(SynchronousTestCase):
    """Few may be kept, of whom there are as many as clients invent values."""

    MOST = 20

    def setUp(self) -> None:
        self.patch(Meters, "MOST", self.MOST)
        self.meters = Meters()

    def test_says_the_same(self) -> None:
        """As long as it says something, and is not one too many, a meter is as it was, whatever comes and goes."""
        chance = random.Random(4)
        expected: dict[str, tuple[int, int]] = {}
        now, seen = LATE, 0
        for _ in range(5000):
            now += chance.choice((0, LATE // 3))
            key = str(chance.randrange(40))
            expected = {key: kept for key, kept in expected.items() if kept[0] + LATE > now}
            taken = self.meters.take(key)
            if key in expected:
                self.assertEqual((taken.until, taken.weight), expected.pop(key))
                seen += 1
            else:
                self.assertLessEqual(taken.until + LATE, now)
            meter = Meter(now + chance.randrange(-LATE, 20 * LATE), chance.choice((1, 1, 5)))
            if meter.until + LATE > now:
                expected[key] = meter.until, meter.weight
            if len(expected) > self.MOST:
                del expected[min(expected, key=lambda key: (expected[key][0], key))]
            self.meters.keep(key, meter, now)
            self.assertLessEqual(len(self.meters), self.MOST)
        self.assertGreater(seen, 1000)

    def test_those_that_end_first_go(self) -> None:
        """Of too many those go that say the least, be it the one that has just come."""
        for number in range(1, 2 * self.MOST):
            self.meters.keep(str(number), Meter(number * 1_000_000), 0)
        self.meters.keep("least", Meter(1), 0)
        self.assertEqual(len(self.meters), self.MOST)
        self.assertEqual(self.meters.take("least").until, 0)
        self.assertEqual(self.meters.take(str(self.MOST - 1)).until, 0)
        self.assertEqual(self.meters.take(str(self.MOST)).until, self.MOST * 1_000_000)

    def test_ended_go_bit_by_bit(self) -> None:
        """Those at which nothing is used up any more go as others come, and nobody who comes has to see off many."""
        for number in range(self.MOST):
            self.meters.keep(str(number), Meter(1_000_000), 0)
        left = []
        for _ in range(self.MOST // 2):
            self.meters.keep("nobody", Meter(), 2_000_000)
            left.append(len(self.meters))
        self.assertEqual(left, list(range(self.MOST - 2, -1, -2)))

    def test_kept_again(self) -> None:
        """What was kept last of a counter counts, and it counts once."""
        for until in (5_000_000, 3_000_000, 4_000_000):
            self.meters.keep("c", Meter(until, 2), 0)
        self.assertEqual(len(self.meters), 1)
        self.assertEqual(self.meters.take("c").until, 4_000_000)
        self.meters.forget(9_000_000)
        self.assertEqual(len(self.meters), 0)

    def test_handed_on(self) -> None:
        """Meters that are handed on are the same ones, though there be none among them yet."""
        lanes: Lanes[str] = Lanes(meters=self.meters)
        lanes.arrive("ticket", [Counter("c", rate=Rate(1_000_000))], 50)
        lanes.release("ticket")
        self.assertEqual(len(self.meters), 1)
        self.assertIs(lanes.used_up(), self.meters)
