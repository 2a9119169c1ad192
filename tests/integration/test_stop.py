"""The end of a proxy's process, and what is left of it."""

from __future__ import annotations

import signal

from tests.integration.harness import IntegrationCase, Running, until, unused_port

CONFIG = """
[backend.app]
url = "{url}"

[[limit]]
name = "one"
max_concurrent = 1
"""


class StopTests(IntegrationCase):
    """SIGTERM, SIGINT and SIGKILL."""

    async def test_stop(self) -> None:
        """Those who wait get 503, the one in flight gets its answer, and nothing is left in Redis."""
        backend = await self.lean()
        proxy = await self.proxy(CONFIG.format(url=backend.url))
        working = self.ask(proxy, "/hold/working")
        await backend.begun("working")
        clients = [self.ask(proxy, f"/work/waiting-{number}?seconds=0") for number in range(3)]
        await until(lambda: self.waiting() == 3)
        stopped = proxy.signal("TERM")
        for client in clients:
            answer = await client.answer
            self.assertEqual((answer.status, answer.complete), (503, True))
            self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        self.assertFalse(working.answer.called)
        await self.let(backend, "working")
        answer = await working.answer
        self.assertEqual((answer.status, answer.body), (200, b"working is done\n"))
        self.assertEqual(await stopped, -signal.SIGTERM)
        self.assertEqual(backend.names(), ["working"])
        self.assertEqual(self.keys(), [])

    async def test_stop_in_time(self) -> None:
        """A proxy whose backend does not come to an end stops all the same, and gives back its slot."""
        backend = await self.lean()
        proxy = await self.proxy(CONFIG.format(url=backend.url))
        working = self.ask(proxy, "/hold/working")
        await backend.begun("working")
        self.assertEqual(await proxy.signal("TERM"), -signal.SIGTERM)
        self.assertEqual((await working.answer).status, 502)
        self.assertEqual(self.keys(), [])

    async def embedded(self) -> Running:
        """A proxy at work, with a Redis of its own."""
        backend = await self.lean()
        self.redis = "embedded:"
        proxy = await self.proxy(CONFIG.format(url=backend.url))
        answer = await self.ask(proxy, "/work/first?seconds=0").answer
        self.assertEqual(answer.status, 200)
        self.assertEqual((len(self.of_proxies()), len(self.files_of_proxies())), (2, 1))
        return proxy

    async def test_embedded_server_stops(self) -> None:
        """The embedded server ends before its proxy does."""
        proxy = await self.embedded()
        await proxy.signal("TERM")
        self.assertEqual((self.of_proxies(), self.files_of_proxies()), ([], []))

    async def test_embedded_server_dies(self) -> None:
        """The embedded server does not outlive a proxy that is killed."""
        proxy = await self.embedded()
        await proxy.signal("KILL")
        await until(lambda: not self.of_proxies())

    async def test_demonstration_stops(self) -> None:
        """Ctrl-C leaves no process of the demonstration."""
        demonstration = await self.twistd(
            *("--demo", "--listen", "tcp:0:interface=127.0.0.1"),
            *("--backend", f"http://127.0.0.1:{unused_port()}"),
        )
        await demonstration.child.said(b"Ctrl-C stops all of it.")
        await until(lambda: len(self.of_proxies()) == 2)
        await demonstration.signal("INT")
        self.assertEqual((self.of_proxies(), self.files_of_proxies()), ([], []))
