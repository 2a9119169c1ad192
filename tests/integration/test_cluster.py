"""Two proxy processes on one Redis: one set of slots, one queue."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from tests.integration.harness import Backend, IntegrationCase, Missed, Running, busy, most_at_once, until

CONFIG = """
[backend.app]
url = "{url}"

[[limit]]
name = "all"
max_concurrent = {slots}

[[rule]]
when = {{ header = {{ X-Urgent = "yes" }} }}
then = {{ priority = 1 }}
"""


class ClusterCase(IntegrationCase):
    """Both processes together."""

    timeout = 180

    async def cluster(self, slots: int, *, covered: bool = True) -> tuple[Backend, Running, Running]:
        """A backend and the two proxies before it."""
        backend = await self.lean()
        config = CONFIG.format(url=backend.url, slots=slots)
        first = await self.proxy(config, covered=covered)
        return backend, first, await self.proxy(config, covered=covered)


class SlotTests(ClusterCase):
    """One set of slots."""

    async def test_slots(self) -> None:
        """With four slots, 200 requests of 50 ms through both at once never meet a fifth, and waste no slot."""
        backend, *proxies = await self.cluster(4, covered=False)

        async def share(prefix: str) -> Missed | None:
            answers = await self.crowd(200, f"/work/{prefix}{{}}?seconds=0.05", *proxies)
            self.assertEqual(answers, {"200": 200})
            work = backend.work(prefix)
            self.assertEqual(len(work), 200)
            self.assertEqual(most_at_once(work), 4)
            used = busy(work, 4)
            return (
                None
                if used > 0.9
                else Missed(f"the slots were in use for {used:.1%} of the time", 0.9 / used)
            )

        await self.measured(share, ceiling=3)


class OrderTests(ClusterCase):
    """One queue."""

    async def test_order(self) -> None:
        """Those who wait go in the order of their arrival, wherever they wait; an urgent one goes first."""
        backend, *proxies = await self.cluster(1)
        clients = [self.ask(proxies[0], "/hold/working")]
        await backend.begun("working")
        for number in range(12):
            clients.append(self.ask(proxies[number % 2], f"/work/waiting-{number}?seconds=0"))
            await until(lambda number=number: self.waiting() == number + 1)
        clients.append(self.ask(proxies[1], "/work/urgent?seconds=0", {"X-Urgent": "yes"}))
        await until(lambda: self.waiting() == 13)
        await self.let(backend, "working")
        await gatherResults([client.answer for client in clients])
        patient = [f"waiting-{number}" for number in range(12)]
        self.assertEqual(backend.names(), ["working", "urgent", *patient])
        self.assertEqual(most_at_once(backend.work()), 1)
