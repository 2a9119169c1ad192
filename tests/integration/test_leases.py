"""Processes that die, are frozen, or are only busy: what they held comes back, and not too early."""

from __future__ import annotations

import re
import time

from twisted.internet.defer import gatherResults
from valkey import Valkey

from tests.integration.harness import (
    LEASE,
    Backend,
    Client,
    IntegrationCase,
    Running,
    most_at_once,
    most_begun,
    until,
)

CONFIG = """
[backend.app]
url = "{url}"
reclaim_delay = {reclaim_delay}

[[limit]]
name = "all"
key = "python:tests.integration.slow_key:blocking"
max_concurrent = {slots}
"""


class LeaseTests(IntegrationCase):
    """Two proxies, of which something happens to one."""

    async def cluster(self, slots: int, reclaim_delay: float = 0.0) -> tuple[Backend, Running, Running]:
        """A backend and the two proxies before it."""
        backend = await self.lean()
        config = CONFIG.format(url=backend.url, slots=slots, reclaim_delay=reclaim_delay)
        proxies = [await self.proxy(config) for _ in range(2)]
        for proxy in proxies:
            await proxy.child.said(b"is connected")
        return backend, *proxies

    async def filled(
        self, backend: Backend, proxy: Running, working: list[str], waiting: list[str]
    ) -> list[Client]:
        """All slots are taken by requests of a process, and more of its requests wait."""
        clients = [self.ask(proxy, f"/hold/{name}") for name in working]
        await gatherResults([backend.begun(name) for name in working])
        clients += [self.ask(proxy, f"/hold/{name}") for name in waiting]
        await until(lambda: self.waiting() == len(waiting))
        return clients

    def overshoot(self) -> int:
        """How many requests were over the limit so far, as Redis has it."""
        with Valkey.from_url(self.redis) as redis:
            return int(redis.hget(f"{{{self.namespace}}}:gate", "overshoot") or 0)

    def lease_ends(self) -> dict[bytes, float]:
        """When the leases of all processes end, on the clock of the application; rather too early than too late."""
        with Valkey.from_url(self.redis) as redis:
            owners = redis.zrange(f"{{{self.namespace}}}:owners", 0, -1, withscores=True)
            asked = time.monotonic()
            seconds, microseconds = redis.time()
        ahead = seconds + microseconds / 1e6 - asked
        return {owner: end / 1000 - ahead for owner, end in owners}

    async def test_killed(self) -> None:
        """What a killed process held and waited for is free for the other within its lease and a second."""
        backend, doomed, other = await self.cluster(2)
        lost = await self.filled(backend, doomed, ["lost-1", "lost-2"], ["lost-3", "lost-4"])
        kept = [self.ask(other, f"/work/kept-{number}?seconds=0") for number in range(2)]
        await until(lambda: self.waiting() == 4)
        killed = time.monotonic()
        await doomed.signal("KILL")
        answers = await gatherResults([client.answer for client in kept])
        self.assertEqual([answer.status for answer in answers], [200, 200])
        began = {work.name: work.begin - killed for work in backend.work()}
        self.assertLess(max(began["kept-0"], began["kept-1"]), LEASE + 1.0)
        self.assertEqual(sorted(began), ["kept-0", "kept-1", "lost-1", "lost-2"])
        for client in lost:
            self.assertEqual((await client.answer).status, 0)

    async def test_reclaim_delay(self) -> None:
        """Its places come back as early; its slots so much later as the backend's C{reclaim_delay} says, not less."""
        delay = 1.0
        backend, doomed, other = await self.cluster(1, delay)
        await self.filled(backend, doomed, ["lost-1"], ["lost-2"])
        kept = self.ask(other, "/work/kept?seconds=0")
        await until(lambda: self.waiting() == 2)
        killed = time.monotonic()
        await doomed.signal("KILL")
        end = min(self.lease_ends().values())
        await until(lambda: self.waiting() == 1)
        self.assertLess(time.monotonic() - killed, LEASE + 1.0)
        self.assertEqual((await kept.answer).status, 200)
        self.assertEqual(backend.names(), ["lost-1", "kept"])
        begin = backend.work("kept")[0].begin
        self.assertGreater(begin - end, delay)
        self.assertLess(begin - killed, LEASE + 1.0 + delay)

    async def test_frozen(self) -> None:
        """A process that was frozen past its lease admits nobody until there is room again, whoever used its slots."""
        backend, frozen, other = await self.cluster(2)
        clients = await self.filled(backend, frozen, ["frozen-1", "frozen-2"], ["early"])
        stopped = time.monotonic()
        frozen.freeze()
        for name in ("other-1", "other-2"):
            clients.append(self.ask(other, f"/hold/{name}"))
            await backend.begun(name)
        self.assertLess(max(work.begin for work in backend.work("other")), stopped + LEASE + 1.0)
        late = self.ask(frozen, "/hold/late")
        frozen.thaw()
        resumed = time.monotonic()
        await frozen.child.said(b"Over a limit: 2 of this process's requests")
        await until(lambda: (self.admitted(), self.waiting(), self.overshoot()) == (4, 2, 2))
        for name, admitted in (("frozen-2", 3), ("other-1", 2)):
            await self.let(backend, name)
            await until(lambda admitted=admitted: self.admitted() == admitted)
        self.assertEqual(sorted(backend.names()), ["frozen-1", "frozen-2", "other-1", "other-2"])
        for name in ("frozen-1", "early", "other-2", "late"):
            await self.let(backend, name)
        answers = await gatherResults([client.answer for client in (*clients, late)])
        self.assertEqual({answer.status for answer in answers}, {200})
        self.assertEqual(sorted(backend.names()[4:]), ["early", "late"])
        self.assertLessEqual(most_begun(backend.work(), resumed), 2)
        self.assertEqual((self.overshoot(), most_at_once(backend.work())), (2, 4))
        await self.idle()

    async def test_busy(self) -> None:
        """A process that is busy for less than its lease keeps what it has; it says how late its heartbeat was."""
        lease = 4 * LEASE  # so that it is not late by more where others keep it waiting, too
        self.settings = {"lease": lease}
        backend, blocked, other = await self.cluster(1)
        clients = await self.filled(backend, blocked, ["kept"], [])
        clients.append(self.ask(other, "/work/waiting?seconds=0"))
        await until(lambda: self.waiting() == 1)
        blocked_for = 0.55 * lease
        await self.ask(blocked, "/work/unlimited?seconds=0", {"Block": f"{blocked_for}"}).answer
        await blocked.child.said(b"A heartbeat ran")
        [late] = re.findall(rb"A heartbeat ran (\S+) s late", blocked.child.output)
        self.assertGreaterEqual(float(late), round(blocked_for - lease / 4, 2))
        ends = self.lease_ends()
        await until(lambda: min(self.lease_ends().values()) > max(ends.values()))
        self.assertEqual((self.admitted(), self.waiting(), self.overshoot()), (1, 1, 0))
        await self.let(backend, "kept")
        self.assertEqual([(await client.answer).status for client in clients], [200, 200])
        self.assertEqual(backend.names(), ["kept", "unlimited", "waiting"])

    async def test_shortest(self) -> None:
        """The shortest lease does for a proxy with a Redis of its own, though it is busy."""
        backend = await self.lean()
        self.redis, self.settings = "embedded:", {"lease": 0.5}
        proxy = await self.proxy(CONFIG.format(url=backend.url, slots=4, reclaim_delay=0))
        answers = await self.crowd(120, "/work/{}?seconds=0.05", proxy)
        self.assertEqual(answers, {"200": 120})
        self.assertEqual(most_at_once(backend.work()), 4)
        self.assertNotIn("Over a limit", " ".join(proxy.said))
