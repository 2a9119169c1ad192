"""How C{gate.lua} bears many tickets, lanes, counters and owners, on a real server."""

from __future__ import annotations

import sys
from statistics import median

from bench.crowd import Crowd, costs, memory

from tests.gate.model import acquire_operation
from tests.gate.test_script import ScriptTestCase
from thrtwisted.gate import Counter


class LargeTests(ScriptTestCase):
    """One of everything that can be large."""

    def test_counters(self) -> None:
        """A batch may need more counters than Lua can pass to one command."""
        owner = self.owner("a")
        counters = [Counter(f"{n:04}", 1) for n in range(9000)]
        groups = [counters[n : n + 20] for n in range(0, len(counters), 20)]
        reply = owner.batch(*(acquire_operation(n, group) for n, group in enumerate(groups)))
        self.assertEqual(reply.held, len(groups))
        self.assertEqual(self.client.hlen(f"{owner.key}:used"), len(counters))
        self.assertEqual(owner.batch(*(["release", n] for n in range(len(groups)))).held, 0)
        for name in ("used", "slots", "waiting"):
            self.assertFalse(self.client.exists(f"{owner.key}:{name}"))


class CrowdTests(ScriptTestCase):
    """Fifty owners, two thousand lanes, a hundred thousand tickets that wait."""

    FEW, MANY = 100, 100_000

    def crowd(self, name: str, waiting: int, **options: bool) -> Crowd:
        crowd = Crowd(self.client, f"{self.namespace}-{name}", waiting=waiting, **options)
        self.addCleanup(crowd.close)
        return crowd

    def ratio(self, few: Crowd, many: Crowd) -> float:
        """How much more an exchange costs where many wait than where few do."""
        found = zip(*costs(self.client, [few, many], exchanges=40, rounds=9), strict=True)
        before, after = map(median, found)
        return after / before

    def test_cost(self) -> None:
        """A slot that is given away costs Redis at most three times as much for a thousand times the queue."""
        few = self.crowd("few", self.FEW)
        before = memory(self.client)
        many = self.crowd("many", self.MANY)
        each = (memory(self.client) - before) / self.MANY
        ratio = self.ratio(few, many)
        sys.stdout.write(
            f"{each:.0f} bytes of Redis for each ticket that waits; {ratio:.2f} times the cost … "
        )
        self.assertLess(ratio, 3)
        self.assertLess(each, 1000)
        self.assertEqual((few.waiting, many.waiting), (self.FEW, self.MANY))

    def test_cost_of_weights(self) -> None:
        """Weights and bounds of the queue of one key change nothing about that."""
        few = self.crowd("few", self.FEW, weighted=True)
        many = self.crowd("many", self.MANY // 10, weighted=True)
        self.assertLess(self.ratio(few, many), 3)
