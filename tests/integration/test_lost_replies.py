"""Connections to Redis that are cut, at any point, or dead without anybody noticing: nothing is lost, nothing twice."""

from __future__ import annotations

import os
import random
import time
from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater

from tests.integration.cutter import POINTS, Cutter
from tests.integration.harness import LEASE, Backend, IntegrationCase, Missed, Running, most_at_once, until

CONFIG = """
[backend.app]
url = "{url}"

[[limit]]
name = "all"
max_concurrent = {slots}
"""

HEARTBEAT = LEASE / 4


class CutCase(IntegrationCase):
    """Two proxies before one backend, each with a bad line to Redis."""

    timeout = 120

    async def proxied(self, slots: int) -> tuple[Backend, list[Running], list[Cutter]]:
        """The backend, the proxies and their lines."""
        backend = await self.lean()
        lines = [self.line(self.redis.removeprefix("unix://")) for _ in range(2)]
        config = CONFIG.format(url=backend.url, slots=slots)
        proxies = [await self.proxy(config, url=url) for _, url in lines]
        for proxy in proxies:
            await proxy.child.said(b"is connected")
        return backend, proxies, [line for line, _ in lines]

    async def finish(self, proxies: list[Running]) -> None:
        """Nothing is left in Redis when nobody asks; and nothing at all of proxies that have stopped."""
        await self.idle()
        for proxy in proxies:
            # One that stops while it has no connection can tell nobody.
            await until(lambda proxy=proxy: "is not usable" not in proxy.said[-1])
            await proxy.signal("TERM")
        await self.gone()


class LostTests(CutCase):
    """Connections that are cut while a hundred requests are on their way through both proxies."""

    # However long a proxy takes to connect again, it shall not go on alone: so the limit is exact.
    settings: ClassVar = {"lease": 5.0, "timeout": 4.0}

    async def test_cut(self) -> None:
        """At each point, of each connection, of each proxy: all are answered, none is forwarded twice."""
        backend, proxies, lines = await self.proxied(4)
        clients = self.looping(100, "/work/{}?seconds=0.02", *proxies)
        await until(lambda: self.waiting() > 80)
        for point in POINTS:
            for line in lines:
                await line.cut(point)
        for line in lines:
            await line.cut("after", "messages")
            await line.cut("middle", "messages")
        answers = await clients.end()
        work = backend.work()
        self.assertEqual((answers, most_at_once(work)), ({"200": len(work)}, 4))
        await self.finish(proxies)

    async def test_cut_at_random(self) -> None:
        """The same, at random moments, whatever is cut."""
        seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
        print(f"SEED={seed}")
        choose = random.Random(seed)
        backend, proxies, lines = await self.proxied(4)
        clients = self.looping(100, "/work/{}?seconds=0.02", *proxies)
        await until(lambda: self.waiting() > 80)
        for _ in range(10):
            line = choose.choice(lines)
            await line.cut(choose.choice(POINTS), choose.choice(["batches", "batches", "messages"]))
            await deferLater(reactor, choose.uniform(0, 0.2))
        answers = await clients.end()
        work = backend.work()
        self.assertEqual((answers, most_at_once(work)), ({"200": len(work)}, 4), f"SEED={seed}")
        await self.finish(proxies)

    async def test_slow(self) -> None:
        """Replies that are late, but in time, are no reason to connect anew."""
        backend, proxies, lines = await self.proxied(4)
        for line in lines:
            line.delay = 0.1
        self.assertEqual(await self.crowd(16, "/work/{}?seconds=0.05", *proxies), {"200": 16})
        self.assertLessEqual(most_at_once(backend.work()), 4)
        await self.finish(proxies)
        for proxy in proxies:
            self.assertEqual(len(proxy.said), 1, proxy.said)


class SilentTests(CutCase):
    """Connections that stay open, but on which nothing arrives any more."""

    async def handed_over(self, backend: Backend, proxies: list[Running], name: str) -> float:
        """How long (s) after a request in the one proxy the next goes, which waits in the other."""
        first = self.ask(proxies[0], f"/hold/{name}-first")
        await backend.begun(f"{name}-first")
        second = self.ask(proxies[1], f"/work/{name}-second?seconds=0")
        await until(lambda: self.waiting() == 1)
        await self.let(backend, f"{name}-first")
        self.assertEqual([(await client.answer).status for client in (first, second)], [200, 200])
        before, after = backend.work(name)
        return after.begin - before.end

    async def test_messages(self) -> None:
        """If no messages arrive, that costs two heartbeats at most, once; then they do again."""
        self.settings = {"lease": LEASE, "timeout": 0.8}  # a Redis that is only slow is no loss
        backend, proxies, lines = await self.proxied(1)
        stood = len(proxies[1].said)
        lost = []

        async def heal(prefix: str) -> Missed | None:
            lines[1].silence("messages")
            lost.append(await self.handed_over(backend, proxies, f"{prefix}lost"))
            await until(lambda: not any(passage.silent for passage in lines[1].passages))
            await until(lambda: len(lines[1].passages) == 2 and proxies[1].said[-1].endswith("is connected"))
            healed = await self.handed_over(backend, proxies, f"{prefix}healed")
            if lost[-1] < 2 * HEARTBEAT + 0.1 and healed < HEARTBEAT / 2:
                return None
            return Missed(f"it took {lost[-1]:.3f} s, and then {healed:.3f} s")

        await self.measured(heal)
        [_, line, *more] = proxies[1].said[stood - 1 :]
        self.assertEqual(line, "Messages from Redis do not arrive; connecting anew until they do")
        self.assertLess(len(more), 3 * len(lost))
        self.assertEqual(most_at_once(backend.work()), 1)
        await self.finish(proxies)

    async def test_batches(self) -> None:
        """If no replies arrive, the proxy goes on alone after C{timeout}, until it has a new connection."""
        backend, proxies, lines = await self.proxied(4)
        crowd = ensureDeferred(self.crowd(100, "/work/{}?seconds=0.05", *proxies))
        await until(lambda: self.waiting() > 80)
        for line in lines:
            line.silence("batches")
            await until(lambda line=line: not any(passage.silent for passage in line.passages))
        self.assertEqual(await crowd, {"200": 100})
        work = backend.work()
        self.assertEqual(len(work), 100)
        self.assertLessEqual(most_at_once(work), 4 + len(proxies) - 1)
        await self.finish(proxies)
        for proxy in proxies:
            self.assertLess(len(proxy.said), 7, proxy.said)
