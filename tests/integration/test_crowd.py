"""Thousands of connections that do nothing, or next to nothing, beside a client that wants something."""

from __future__ import annotations

import json
import resource

from tests.integration.harness import IntegrationCase, Missed, Running, until, unused_port

CONFIG = """
[backend.app]
url = "http://127.0.0.1:{port}"

[[limit]]
name = "user"
key = "header:X-User"
max_concurrent = 10

[[rule]]
when = {{ path = "/hello" }}
then = {{ set_status_code = 204 }}

[bounds]
connections_per_client = 0
{bounds}
"""

IDLE, SLOW = 5000, 1000

#: Requests of the client that is measured, one after the other, and how often.
REQUESTS, TURNS = 100, 7

#: How much longer the client may wait because of the others: the median, and the 95th percentile.
LONGER = {"median": 1.5, "p95": 1.5}

#: Bytes of memory that a connection may cost the proxy.
EACH = 12_000


class CrowdTests(IntegrationCase):
    """Idle and slow clients cost memory, and little of it; they cost no other client its time."""

    timeout = 240
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < IDLE + SLOW + 2000:
        skip = "a process may not open 8,000 files here"

    async def proxied(self, bounds: str) -> Running:
        """A proxy before a backend that answers at once."""
        port = unused_port()
        child, _ = self.other("-m", "bench.backend", str(port), "1024")
        proxy = await self.proxy(CONFIG.format(port=port, bounds=bounds), covered=False)

        async def answered() -> bool:
            return (await self.ask(proxy, "/page").answer).status == 200

        while not await answered():
            self.assertFalse(child.ended.called, child.errors)
        return proxy

    async def hold(self, proxy: Running, *counts: int) -> Running:
        """Connections of each kind that C{bench.holding} knows."""
        child, process = self.other("-m", "bench.holding", str(proxy.port), *map(str, counts))
        await child.said(b"ready\n")
        return Running(child, process)

    async def release(self, held: Running) -> dict[str, int]:
        """Let connections go; how many of each kind the proxy had closed."""
        held.process.closeStdin()
        self.assertEqual(await held.child.ended, 0, held.child.errors)
        return json.loads(held.child.output.splitlines()[-1])  # type: ignore[no-any-return]

    async def load(self, proxy: Running) -> dict[str, float]:
        """How long an honest client waits."""
        child, _ = self.other("-m", "bench.load", str(proxy.port), str(REQUESTS), "1")
        self.assertEqual(await child.ended, 0, child.errors)
        return json.loads(child.output)  # type: ignore[no-any-return]

    async def test_honest_client(self) -> None:
        """
        5,000 idle connections and 1,000 that send a head or a body a byte at a time do not slow an honest client: one
        of a proxy without them is no faster. None is closed where the bounds allow for that, and each costs little.
        """
        # A bound on time would end the slow ones, which is another test's matter: here they are to stay.
        bounds = "head_timeout = 600.0\nidle_timeout = 600.0\nbody_min_rate = 0\n"
        alone, crowded = await self.proxied(bounds), await self.proxied(bounds)
        for proxy in alone, crowded:
            await self.load(proxy)  # what is made once
        before = crowded.memory("VmRSS")
        held = await self.hold(crowded, 0, IDLE, SLOW // 2, SLOW - SLOW // 2)
        self.assertLess((crowded.memory("VmRSS") - before) / (IDLE + SLOW), EACH)

        async def measure(_: str) -> Missed | None:
            times = [(await self.load(alone), await self.load(crowded)) for _ in range(TURNS)]
            # Others on the machine can only make a turn slower: the best of each tells what the proxy needs.
            longer = {
                what: min(one[what] for _, one in times) / min(one[what] for one, _ in times)
                for what in LONGER
            }
            said = ", ".join(f"{ratio:.2f} times the {what}" for what, ratio in longer.items())
            worst = max(longer[what] / most for what, most in LONGER.items())
            return Missed(said, worst) if worst > 1 else None

        await self.measured(measure, ceiling=5)
        self.assertEqual(await self.release(held), {"silent": 0, "idle": 0, "heads": 0, "bodies": 0})

    async def test_bounds(self) -> None:
        """With bounds, those that are too slow or do nothing are closed, all of them, and nothing is left of them."""
        proxy = await self.proxied("head_timeout = 1.0\nidle_timeout = 1.0\nbody_min_rate = 1000\n")
        descriptors = proxy.descriptors()
        held = await self.hold(proxy, 500, 500, 250, 250)
        await until(lambda: proxy.descriptors() <= descriptors, 60)
        self.assertEqual(await self.release(held), {"silent": 500, "idle": 500, "heads": 250, "bodies": 250})
        self.assertEqual((await self.ask(proxy, "/page").answer).status, 200)
