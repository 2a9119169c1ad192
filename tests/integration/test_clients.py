"""Clients that leave, and clients that read slowly: what a slot says of a synchronous application."""

from __future__ import annotations

from tests.integration.application import digest, pieces
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
OTHER = {"One": "b"}


class ClientTests(IntegrationCase):
    """At one slot."""

    async def proxied(self) -> tuple[Backend, Running]:
        """An application on a real server, which goes on working whoever leaves."""
        backend = await self.gunicorn(threads=4)
        return backend, await self.proxy(CONFIG.format(url=backend.url))

    async def passed(self, proxy: Running, name: str) -> None:
        """Whatever the gate was told before has had its effect: a request through another counter was answered."""
        answer = await self.ask(proxy, f"/work/{name}?seconds=0", OTHER).answer
        self.assertEqual(answer.status, 200)

    async def test_leaves_queue(self) -> None:
        """Whoever leaves the queue is never forwarded; those behind go on."""
        backend, proxy = await self.proxied()
        working = self.ask(proxy, "/hold/working", ONE)
        await backend.begun("working")
        leaving = self.ask(proxy, "/work/leaving?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        staying = self.ask(proxy, "/work/staying?seconds=0", ONE)
        await until(lambda: self.waiting() == 2)
        leaving.leave()
        await until(lambda: self.waiting() == 1)
        await self.let(backend, "working")
        self.assertEqual((await working.answer).status, 200)
        self.assertEqual((await staying.answer).status, 200)
        await self.passed(proxy, "other")
        self.assertEqual(backend.names(), ["working", "staying", "other"])
        await until(lambda: not self.admitted())

    async def test_leaves_in_flight(self) -> None:
        """Whoever leaves while the application works keeps the slot until it is done."""
        backend, proxy = await self.proxied()
        leaving = self.ask(proxy, "/hold/leaving", ONE)
        await backend.begun("leaving")
        leaving.leave()
        following = self.ask(proxy, "/work/following?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        await self.passed(proxy, "other")
        self.assertEqual(backend.names(), ["leaving", "other"])
        await self.let(backend, "leaving")
        self.assertEqual((await following.answer).status, 200)
        self.assertEqual(most_at_once([work for work in backend.work() if work.name != "other"]), 1)

    async def test_reads_slowly(self) -> None:
        """Whoever reads slowly, or for the time being not at all, holds no slot, and gets every byte."""
        backend, proxy = await self.proxied()
        size = 30_000_000  # more than the kernel keeps for a connection
        slow = self.ask(proxy, f"/bytes/slow?size={size}", ONE)
        await until(lambda: slow.received)
        slow.pause()
        await backend.ended("slow")
        following = self.ask(proxy, "/work/following?seconds=0", ONE)
        self.assertEqual((await following.answer).status, 200)
        self.assertLess(len(slow.received), size / 2)
        slow.resume()
        answer = await slow.answer
        self.assertTrue(answer.complete)
        self.assertEqual(digest([answer.body]), digest(pieces(size)))
