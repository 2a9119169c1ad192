"""The end of a proxy's process, and what is left of it."""

from __future__ import annotations

import signal
import socket
import time

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from tests.integration.harness import Answer, IntegrationCase, Running, until, unused_port
from tests.integration.raw import connect

#: Bytes of an answer that no kernel takes from the proxy at once.
SIZE = 6_000_000

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
        kept = await connect(proxy, b"GET /work/kept?seconds=0 HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: self.waiting() == 4)
        stopped = proxy.signal("TERM")
        for client in clients:
            answer = await client.answer
            self.assertEqual((answer.status, answer.complete), (503, True))
            self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        answer = await kept.end()
        self.assertEqual((answer.status, answer.headers["Connection"]), (503, "close"))
        self.assertFalse(working.answer.called)
        await self.let(backend, "working")
        answer = await working.answer
        self.assertEqual((answer.status, answer.body), (200, b"working is done\n"))
        self.assertEqual(await stopped, -signal.SIGTERM)
        self.assertEqual(backend.names(), ["working"])
        await self.gone()

    async def test_stop_in_time(self) -> None:
        """A proxy whose backend does not come to an end stops all the same, and gives back its slot."""
        backend = await self.lean()
        proxy = await self.proxy(CONFIG.format(url=backend.url))
        working = await connect(proxy, b"GET /hold/working HTTP/1.1\r\nHost: h\r\n\r\n")
        await backend.begun("working")
        self.assertEqual(await proxy.signal("TERM"), -signal.SIGTERM)
        answer = await working.end()
        self.assertEqual((answer.status, answer.complete, answer.headers["Connection"]), (502, True, "close"))
        await self.gone()

    async def test_answers_are_taken(self) -> None:
        """An answer whose end is still on its way to a slow client arrives completely."""
        backend = await self.lean()
        proxy = await self.proxy(CONFIG.format(url=backend.url))
        with self.reader(proxy) as one, self.reader(proxy) as other:
            stopped = proxy.signal("TERM")
            for answer in await gatherResults(
                [deferToThread(self.take, one), deferToThread(self.take, other)]
            ):
                self.assertEqual((len(answer.body), answer.complete), (SIZE, True))
            await stopped

    async def test_answers_are_not_taken(self) -> None:
        """One that is not taken in time is broken off, so that it does not look complete."""
        backend = await self.lean()
        proxy = await self.proxy(CONFIG.format(url=backend.url))
        with self.reader(proxy) as client:
            await proxy.signal("TERM")
            with self.assertRaises(ConnectionResetError):
                while client.recv(65536):
                    pass

    def reader(self, proxy: Running) -> socket.socket:
        """A client with little room that has the beginning of an answer, all of which the backend has given."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.connect(("127.0.0.1", proxy.port))
        client.sendall(b"GET /bytes/it?size=%d HTTP/1.0\r\nHost: h\r\n\r\n" % SIZE)
        self.assertEqual(client.recv(12, socket.MSG_WAITALL), b"HTTP/1.0 200")
        return client

    def take(self, client: socket.socket) -> Answer:
        """Take three seconds to read the rest."""
        received, began = b"HTTP/1.0 200", time.monotonic()
        while piece := client.recv(65536):
            received += piece
            time.sleep(max(0.0, began + 3 * len(received) / SIZE - time.monotonic()))
        return Answer(received)


class EmbeddedTests(IntegrationCase):
    """Servers that a proxy has started itself."""

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
