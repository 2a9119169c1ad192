"""Processes whose clocks are wrong, each in its own way, or are set while they run."""

from __future__ import annotations

import os
import re
import struct

import attrs
from twisted.internet.defer import gatherResults
from valkey import Valkey

from tests.integration.harness import LEASE, Backend, Client, IntegrationCase, Running, most_at_once, until

#: Seconds: more than any time that a proxy would wait for anything here.
MINUTES = 7 * 60.0

CONFIG = """
[backend.app]
url = "{url}"
response_timeout = 60.0

[queue]
timeout = 60.0
aging = {aging}

[[limit]]
name = "all"
max_concurrent = {slots}

[[rule]]
when = {{ header = {{ X-Urgent = "yes" }} }}
then = {{ priority = 10 }}
"""


@attrs.frozen
class Clock:
    """What a process takes for the time of day."""

    path: str

    def set(self, seconds: float) -> None:
        """Make it wrong by so much."""
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as file:
            file.write(struct.pack("d", seconds))


class ClockTests(IntegrationCase):
    """Two proxies, one of which is minutes ahead of the other."""

    timeout = 120

    async def cluster(
        self, *wrong_by: float, slots: int = 2, aging: float = 0.0
    ) -> tuple[Backend, list[Running], list[Clock]]:
        """A backend and the proxies before it, with a clock each."""
        backend = await self.lean()
        proxies, clocks = [], []
        for seconds in wrong_by:
            clock = Clock(os.path.abspath(self.mktemp()))
            clock.set(seconds)
            os.environ["CLOCK"] = clock.path
            try:
                proxies.append(await self.proxy(CONFIG.format(url=backend.url, slots=slots, aging=aging)))
            finally:
                del os.environ["CLOCK"]
            clocks.append(clock)
        for proxy in proxies:
            await proxy.child.said(b"is connected")
        return backend, proxies, clocks

    def now(self) -> float:
        """The time of Redis (seconds)."""
        with Valkey.from_url(self.redis) as redis:
            seconds, microseconds = redis.time()
        return float(seconds + microseconds / 1e6)

    def lease_ends(self) -> list[float]:
        """The ends of all leases, on that clock."""
        with Valkey.from_url(self.redis) as redis:
            owners = redis.zrange(f"{{{self.namespace}}}:owners", 0, -1, withscores=True)
        return [end / 1000 for _, end in owners]

    async def lived(self, processes: int) -> None:
        """Three leases are over, and the processes have renewed theirs for as long."""
        later = self.now() + 3 * LEASE

        def over() -> bool:
            ends = self.lease_ends()
            self.assertEqual(len(ends), processes, "somebody was taken for dead")
            return min(ends) > later + LEASE

        await until(over)

    async def succeed(self, clients: list[Client]) -> None:
        """All are answered."""
        answers = await gatherResults([client.answer for client in clients])
        self.assertEqual([answer.status for answer in answers], [200] * len(clients))

    async def test_slots(self) -> None:
        """They share slots exactly, and none takes the other for dead."""
        backend, proxies, _ = await self.cluster(MINUTES, -MINUTES, slots=3)
        self.assertEqual(await self.crowd(100, "/work/{}?seconds=0.01", *proxies), {"200": 100})
        self.assertEqual(most_at_once(backend.work()), 3)
        held = [self.ask(proxy, f"/hold/{number}-held") for number, proxy in enumerate(proxies)]
        await gatherResults([backend.begun(f"{number}-held") for number in range(2)])
        await self.lived(2)
        self.assertEqual(self.admitted(), 2)
        for number in range(2):
            await self.let(backend, f"{number}-held")
        await self.succeed(held)

    async def test_order(self) -> None:
        """They share one queue: in the order of arrival, the urgent first."""
        backend, proxies, _ = await self.cluster(MINUTES, -MINUTES, slots=1)
        clients = [self.ask(proxies[0], "/hold/working")]
        await backend.begun("working")
        for number in range(8):
            clients.append(self.ask(proxies[number % 2], f"/work/{number}?seconds=0"))
            await until(lambda number=number: self.waiting() == number + 1)
        clients.append(self.ask(proxies[0], "/work/urgent?seconds=0", {"X-Urgent": "yes"}))
        await until(lambda: self.waiting() == 9)
        await self.let(backend, "working")
        await self.succeed(clients)
        self.assertEqual(backend.names(), ["working", "urgent", *map(str, range(8))])

    async def test_aging(self) -> None:
        """The time that counts in the queue is that of Redis, for both."""
        aging = 0.05  # 2 s make up for the 40 steps of an urgent one
        backend, proxies, _ = await self.cluster(MINUTES, -MINUTES, slots=1, aging=aging)
        clients = [self.ask(proxies[0], "/hold/working")]
        await backend.begun("working")

        async def ask(proxy: Running, name: str, **headers: str) -> None:
            clients.append(self.ask(proxy, f"/work/{name}?seconds=0", headers))
            waiting = len(clients) - 1
            await until(lambda: self.waiting() == waiting)

        for number, proxy in enumerate(proxies):
            await ask(proxy, f"patient-{number}")
        since = self.now()
        urgent = {"X-Urgent": "yes"}
        for number, proxy in enumerate(proxies):
            await ask(proxy, f"urgent-{number}", **urgent)
        self.assertLess(self.now(), since + 40 * aging - 0.1, "the machine is too slow for this test")
        await until(lambda: self.now() > since + 40 * aging)
        for number, proxy in enumerate(proxies):
            await ask(proxy, f"late-{number}", **urgent)
        await self.let(backend, "working")
        await self.succeed(clients)
        names = [f"{name}-{number}" for name in ("urgent", "patient", "late") for number in range(2)]
        self.assertEqual(backend.names(), ["working", *names])

    async def stepped(self, seconds: float) -> None:
        """One process's clock is set while requests wait and are at work."""
        backend, proxies, clocks = await self.cluster(0.0, 0.0)
        clients = [self.ask(proxies[0], f"/hold/{number}") for number in range(2)]
        await gatherResults([backend.begun(f"{number}") for number in range(2)])
        for number, proxy in enumerate(proxies, 2):
            clients.append(self.ask(proxy, f"/work/{number}?seconds=0"))
            await until(lambda number=number: self.waiting() == number - 1)
        clocks[0].set(seconds)
        await self.lived(2)
        self.assertEqual(sorted(backend.names()), ["0", "1"])  # both went at once
        self.assertEqual((self.admitted(), self.waiting()), (2, 2))
        for number in range(2):
            await self.let(backend, f"{number}")
            await backend.begun(f"{number + 2}")
        await self.succeed(clients)
        self.assertEqual(backend.names()[2:], ["2", "3"])
        late = re.findall(rb"ran (\S+) s late", proxies[0].child.output)
        self.assertEqual([seconds for seconds in late if float(seconds) > MINUTES / 2], [])

    async def test_set_forward(self) -> None:
        """A clock that is set forward by minutes ends no waiting, and frees no slot."""
        await self.stepped(MINUTES)

    async def test_set_back(self) -> None:
        """A clock that is set back by minutes stops no heartbeat."""
        await self.stepped(-MINUTES)
