"""What happens when Redis is not there."""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import gatherResults

from tests.integration.harness import Backend, IntegrationCase, Running, most_at_once, until

CONFIG = """
[backend.app]
url = "{url}"

[[limit]]
name = "one"
key = "header:One"
max_concurrent = 1
"""

ONE = {"One": "a"}


class RedisCase(IntegrationCase):
    """A proxy before an application, with a Redis of its own."""

    outage = "closed"

    async def proxied(self) -> tuple[Backend, Running]:
        """The proxy has Redis where C{self.redis} says."""
        backend = await self.lean()
        return backend, await self.proxy(CONFIG.format(url=backend.url))

    async def regulated(self, backend: Backend, proxy: Running) -> None:
        """Of two requests for one slot, one waits for the other."""
        first = self.ask(proxy, "/hold/first", ONE)
        await backend.begun("first")
        second = self.ask(proxy, "/work/second?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        await self.let(backend, "first")
        self.assertEqual([(await client.answer).status for client in (first, second)], [200, 200])
        self.assertEqual(most_at_once(backend.work()), 1)

    async def closed(self, proxy: Running, name: str) -> None:
        """Without Redis, requests under a limit are sent away, and all others pass."""
        answer = await self.ask(proxy, f"/work/{name}-limited?seconds=0", ONE).answer
        self.assertEqual((answer.status, answer.complete), (503, True))
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        self.assertIn("error=proxy_internal_error", answer.headers["Proxy-Status"])
        answer = await self.ask(proxy, f"/work/{name}-unlimited?seconds=0").answer
        self.assertEqual(answer.status, 200)


class GoneTests(RedisCase):
    """Redis dies, or is not there yet, or only seems to be gone."""

    async def test_restarted(self) -> None:
        """Those who were in the backend or waited go on when Redis is back, though it has forgotten all."""
        server = await self.server()
        backend, proxy = await self.proxied()
        clients = [self.ask(proxy, "/hold/working", ONE)]
        await backend.begun("working")
        clients.append(self.ask(proxy, "/work/waiting?seconds=0", ONE))
        await until(lambda: self.waiting() == 1)
        await server.signal("KILL")
        await self.closed(proxy, "gone")
        await self.server()
        await proxy.child.said(b"Redis answers again")
        clients.append(self.ask(proxy, "/work/later?seconds=0", ONE))
        await until(lambda: self.waiting() == 2)
        self.assertEqual(self.admitted(), 1)
        await self.let(backend, "working")
        self.assertEqual([(await client.answer).status for client in clients], [200] * 3)
        limited = [work for work in backend.work() if work.name != "gone-unlimited"]
        self.assertEqual([work.name for work in limited], ["working", "waiting", "later"])
        self.assertEqual(most_at_once(limited), 1)

    async def test_not_there_yet(self) -> None:
        """A proxy that starts before its Redis serves what it can, and everything as soon as Redis is there."""
        await (await self.server()).signal("KILL")
        backend, proxy = await self.proxied()
        await self.closed(proxy, "early")
        await self.server()
        await proxy.child.said(b"Redis answers again")
        answer = await self.ask(proxy, "/work/later?seconds=0", ONE).answer
        self.assertEqual(answer.status, 200)
        self.assertEqual(backend.names(), ["early-unlimited", "later"])

    async def test_busy(self) -> None:
        """A proxy that is at work for longer than Redis may be silent does not take its own delay for that of Redis."""
        backend = await self.lean()
        config = CONFIG.replace("header:One", "python:tests.integration.slow_key:key").format(url=backend.url)
        proxy = await self.proxy(config)
        clients = [self.ask(proxy, f"/work/{number}?seconds=0") for number in range(100)]
        answers = await gatherResults([client.answer for client in clients])
        self.assertEqual(Counter(answer.status for answer in answers), {200: 100})
        self.assertEqual(most_at_once(backend.work()), 1)
