"""A configuration that is changed on one process after the other."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from tests.integration.harness import Backend, IntegrationCase, Running, most_at_once, until

CONFIG = """
[backend.app]
url = "{url}"

[queue]
max_waiting = 6

[[limit]]
name = "all"
max_concurrent = {slots}
"""


class RollingTests(IntegrationCase):
    """Proxies with different values for one limit."""

    async def with_slots(self, backend: Backend, slots: int) -> Running:
        """A proxy with so many slots, once it is connected."""
        proxy = await self.proxy(CONFIG.format(url=backend.url, slots=slots))
        await proxy.child.said(b"is connected")
        return proxy

    async def test_fewer(self) -> None:
        """A new process with a lower limit counts what the old ones have in flight; they may be stopped then."""
        backend = await self.lean()
        old = await self.with_slots(backend, 4)
        clients = [self.ask(old, f"/hold/old-{number}") for number in range(4)]
        await gatherResults([backend.begun(f"old-{number}") for number in range(4)])
        new = await self.with_slots(backend, 2)
        clients += [self.ask(new, f"/hold/new-{number}") for number in range(2)]
        await until(lambda: self.waiting() == 2)
        for number, left in ((0, 3), (1, 2)):
            await self.let(backend, f"old-{number}")
            await until(lambda left=left: self.admitted() == left)
        self.assertEqual(self.waiting(), 2)
        stopped = old.signal("TERM")
        for number in range(2):
            await self.let(backend, f"old-{number + 2}")
            await backend.begun(f"new-{number}")
        for number in range(2):
            await self.let(backend, f"new-{number}")
        answers = await gatherResults([client.answer for client in clients])
        self.assertEqual([answer.status for answer in answers], [200] * 6)
        await stopped
        begun = [work for work in backend.work() if work.name.startswith("new")]
        self.assertEqual(most_at_once(begun), 2)
        self.assertEqual(most_at_once(backend.work()), 4)

    async def test_closed_and_opened(self) -> None:
        """Where a limit of 0 is raised on one process, those who wait at all of them go at once, in their order."""
        backend = await self.lean()
        closed = [await self.with_slots(backend, 0) for _ in range(2)]
        clients = []
        for number in range(6):
            clients.append(self.ask(closed[number % 2], f"/hold/{number}"))
            await until(lambda number=number: self.waiting() == number + 1)
        # As many wait as may: even the first request to a process that knows better could be sent away.
        self.assertEqual((await self.ask(closed[0], "/hold/refused").answer).status, 503)
        opened = await self.with_slots(backend, 6)
        last = self.ask(opened, "/work/last?seconds=0")
        await gatherResults([backend.begun(str(number)) for number in range(6)])
        self.assertEqual((self.admitted(), self.waiting()), (6, 1))
        for number in range(6):
            await self.let(backend, str(number))
        answers = await gatherResults([client.answer for client in [*clients, last]])
        self.assertEqual([answer.status for answer in answers], [200] * 7)
        self.assertEqual(backend.names()[6:], ["last"])
        self.assertEqual(most_at_once(backend.work()), 6)
