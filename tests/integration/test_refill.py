"""How long a slot is empty between two requests."""

from __future__ import annotations

from itertools import pairwise
from statistics import median, quantiles

from twisted.internet.defer import ensureDeferred

from tests.integration.harness import Backend, IntegrationCase, Missed, Running, until

CONFIG = """
[backend.app]
url = "{url}"

[[limit]]
name = "one"
max_concurrent = 1
"""


class RefillTests(IntegrationCase):
    """The gap, as the backend sees it, between the end of a request and the next one's arrival."""

    timeout = 180

    async def test_refill(self) -> None:
        """A freed slot is taken again within 4 ms as a rule, and within 20 ms almost always."""
        backend = await self.lean()
        proxy = await self.proxy(CONFIG.format(url=backend.url), covered=False)

        async def refill(prefix: str) -> Missed | None:
            gaps = await self.gaps(backend, proxy, prefix)
            self.assertGreater(min(gaps), 0)
            usual, rare = median(gaps), quantiles(gaps, n=100)[98]
            if usual < 4 and rare < 20:
                return None
            return Missed(f"it took {usual:.1f} ms (median), {rare:.1f} ms (99th percentile)", usual / 4)

        await self.measured(refill, ceiling=10)

    async def gaps(self, backend: Backend, proxy: Running, prefix: str) -> list[float]:
        """The gaps (ms) while 300 requests of 5 ms, which waited before, go through one slot."""
        first = self.ask(proxy, f"/hold/{prefix}first")
        await backend.begun(f"{prefix}first")
        crowd = ensureDeferred(self.crowd(300, f"/work/{prefix}{{}}?seconds=0.005", proxy))
        await until(lambda: self.waiting() == 300)
        await self.let(backend, f"{prefix}first")
        self.assertEqual((await first.answer).status, 200)
        self.assertEqual(await crowd, {"200": 300})
        work = backend.work(prefix)
        self.assertEqual(len(work), 301)
        return [1000 * (after.begin - before.end) for before, after in pairwise(work)]
