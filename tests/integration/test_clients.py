"""Clients that leave, and clients that read slowly: what a slot says of a synchronous application."""

from __future__ import annotations

from tests.integration.application import digest, pieces
from tests.integration.harness import Backend, IntegrationCase, Running, most_at_once, until
from tests.integration.raw import connect

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

    async def test_leaves_queue_unread(self) -> None:
        """Nor is one that had sent so much ahead that it was not read from when it left, in order or in disorder."""
        backend, proxy = await self.proxied()
        working = self.ask(proxy, "/hold/working", ONE)
        await backend.begun("working")
        request = b"GET /work/%d?seconds=0 HTTP/1.1\r\nHost: h\r\nOne: a\r\n\r\n"
        ahead = b"GET / HTTP/1.1\r\nX: " + bytes(40_000)
        clients = []
        for number in range(3):
            clients.append(await connect(proxy, request % number + ahead))
            await until(lambda number=number: self.waiting() == number + 1)
        clients[0].transport.loseConnection()
        clients[1].transport.abortConnection()
        await until(lambda: clients[0].ended and clients[1].ended)
        await self.passed(proxy, "other")
        await self.let(backend, "working")
        self.assertEqual((await working.answer).status, 200)
        await clients[2].got(b"2 is done")
        self.assertEqual(backend.names(), ["working", "other", "2"])
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
