"""How C{gate.lua} bears many tickets, lanes, counters and owners, on a real server."""

from __future__ import annotations

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
