"""Attacks on a proxy process, each of which must meet its bound while honest clients are served."""

from __future__ import annotations

import socket
import time
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from tests.integration.harness import Answer, IntegrationCase, Running, until
from tests.integration.raw import Raw, connect
from tests.integration.test_bodies import on_disk

GET = b"GET /work/%s?seconds=0 HTTP/1.1\r\nHost: h\r\n\r\n"


def post(length: int) -> bytes:
    """The head of a request with a body."""
    return b"POST /digest/it HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length


class BoundsCase(IntegrationCase):
    """A proxy with bounds, before the lean application."""

    async def bounded(self, *bounds: str, **proxy: Any) -> Running:
        """A proxy with these lines in its table C{[bounds]}, which answers some requests itself."""
        self.backend = await self.lean()
        table = "\n".join(bounds)
        self.clients: list[Raw] = []
        self.addCleanup(lambda: [client.leave() for client in self.clients])
        rule = '[[rule]]\nwhen = { path = ["/", "/digest/no"] }\nthen = { set_status_code = 403 }\n'
        return await self.proxy(
            f'[bounds]\n{table}\n[backend.app]\nurl = "{self.backend.url}"\n{rule}', **proxy
        )

    async def client(self, proxy: Running, data: bytes = b"", host: str = "127.0.0.1") -> Raw:
        client = await connect(proxy, data, host)
        self.clients.append(client)
        return client

    async def honest(self, proxy: Running, name: str = "honest") -> None:
        """Others are served."""
        self.assertEqual((await self.ask(proxy, f"/work/{name}?seconds=0").answer).status, 200)

    async def refused(self, proxy: Running, data: bytes, status: int) -> None:
        """This is answered, and the connection closed."""
        answer = await (await self.client(proxy, data)).end()
        self.assertEqual((answer.status, answer.headers["Connection"]), (status, "close"))
        self.assertTrue(answer.complete)
        self.assertTrue(answer.headers["Proxy-Status"].startswith("thrtwisted; error="))


class HeadTests(BoundsCase):
    """Requests that are too much."""

    async def test_heads(self) -> None:
        """Large heads, many headers, long targets: refused while they are still being sent, and told so."""
        proxy = await self.bounded("head_size = 4096", "header_count = 20", "target_length = 200")
        await self.refused(proxy, b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 20 + b"\r\n", 431)
        await self.refused(proxy, b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 5000, 431)
        await self.refused(proxy, b"GET /" + b"x" * 1_000_000, 414)
        await self.refused(proxy, b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 500_000, 431)
        await self.honest(proxy)
        self.assertEqual(self.backend.names(), ["honest"])

    async def test_bodies(self) -> None:
        """Large bodies, announced or in chunks: refused before they are on the disk, and never forwarded."""
        proxy = await self.bounded("body_size = 2000000")
        await self.honest(proxy)
        descriptors = proxy.descriptors()
        await self.refused(proxy, post(2_000_001), 413)
        expecting = post(2_000_001).replace(b"Host:", b"Expect: 100-continue\r\nHost:")
        await self.refused(proxy, expecting, 413)
        chunk = b"%x\r\n%b\r\n" % (500_000, bytes(500_000))
        head = b"POST /digest/it HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self.refused(proxy, head + chunk * 5, 413)
        fitting = await self.client(proxy, head + chunk * 4 + b"0\r\n\r\n")
        await fitting.got(b"200 OK")
        fitting.leave()
        await until(lambda: proxy.descriptors() <= descriptors)
        self.assertEqual(self.backend.names(), ["honest", "it"])

    async def test_disk(self) -> None:
        """Bodies of many clients together take no more of the disk than they may; one more is told to come again."""
        proxy = await self.bounded("spool = 2000000", "body_size = 2000000")
        half = [await self.client(proxy, post(900_000) + bytes(890_000)) for _ in range(2)]
        await until(lambda: on_disk(proxy) > 1_700_000)
        await self.honest(proxy)
        third = await (await self.client(proxy, post(900_000) + bytes(800_000))).end()
        self.assertEqual(third.status, 503)
        self.assertGreaterEqual(int(third.headers["Retry-After"]), 1)
        for client in half:
            client.send(bytes(10_000))
            await client.got(b"200 OK")
        again = await self.client(proxy, post(900_000) + bytes(900_000))
        await again.got(b"200 OK")


class TimeTests(BoundsCase):
    """Clients that take their time."""

    async def test_slow_heads(self) -> None:
        """However many trickle their heads, each is told and closed when its time is over; others are served."""
        proxy = await self.bounded("head_timeout = 1.0")
        began = time.monotonic()
        slow = [await self.client(proxy, b"GET / HTTP/1.1\r\nHost: h\r\n") for _ in range(200)]
        silent = [await self.client(proxy) for _ in range(20)]

        def trickle() -> bool:
            for client in slow:
                if not client.ended:
                    client.send(b"X")
            return all(client.ended for client in slow + silent)

        await self.honest(proxy)
        await until(trickle)
        self.assertLess(time.monotonic() - began, 12)
        self.assertEqual({(await client.end()).status for client in slow}, {408})
        self.assertEqual({bytes(client.received) for client in silent}, {b""})
        await self.honest(proxy, "again")

    async def test_idle(self) -> None:
        """A connection that was kept is closed when it is idle for too long, and when it has served enough requests."""
        proxy = await self.bounded("idle_timeout = 1.0", "requests_per_connection = 3")
        idle = await self.client(proxy, GET % b"1")
        await idle.got(b"1 is done")
        self.assertFalse(idle.ended)
        answer = await idle.end()
        self.assertIsNone(answer.headers["Connection"])
        busy = await self.client(proxy, b"".join(GET % name for name in (b"2", b"3", b"4", b"5")))
        await busy.end()
        self.assertEqual(busy.received.count(b"HTTP/1.1 200 OK"), 3)
        self.assertEqual(busy.received.count(b"Connection: close"), 1)
        self.assertEqual(self.backend.names(), ["1", "2", "3", "4"])

    async def test_slow_bodies(self) -> None:
        """
        Who sends a body, or takes an answer, slower than C{body_min_rate} over ten seconds is closed; who does so a
        little faster is not.
        """
        proxy = await self.bounded("body_min_rate = 2000")
        began = time.monotonic()
        uploads = [await self.client(proxy, post(100_000)) for _ in range(2)]
        readers = [
            await self.client(proxy, b"GET /bytes/%d?size=30000000 HTTP/1.1\r\nHost: h\r\n\r\n" % n)
            for n in (1, 2)
        ]
        for reader in readers:
            await reader.got(b"200 OK")
            reader.transport.pauseProducing()
        moved = began

        def move() -> bool:
            nonlocal moved
            if time.monotonic() - moved > 0.5:
                moved = time.monotonic()
                uploads[0].send(b"x" * 100)
                uploads[1].send(b"x" * 2000)
                readers[1].transport.resumeProducing()  # some hundred kilobytes, until the next look
            elif not readers[1].ended:
                readers[1].transport.pauseProducing()
            readers[0].ended = not self.connections_of(proxy, readers[0])
            return uploads[0].ended and readers[0].ended

        await until(move, limit=40)
        self.assertGreater(time.monotonic() - began, 9)
        self.assertEqual((await uploads[0].end()).status, 408)
        self.assertEqual([uploads[1].ended, readers[1].ended], [False, False])
        readers[1].transport.resumeProducing()
        await until(lambda: len(readers[1].received) > 30_000_000)
        self.assertIn(b"HTTP/1.1 200 OK", readers[0].received)

    def connections_of(self, proxy: Running, client: Raw) -> bool:
        """Whether the proxy has the other end of this connection (which the client does not read)."""
        port = b":%04X " % client.transport.getHost().port
        with open(f"/proc/{proxy.pid}/net/tcp", "rb") as table:
            lines = [line.split() for line in table.read().splitlines()[1:]]
        theirs = b":%04X" % proxy.port
        return any(
            line[1].endswith(theirs) and line[2].endswith(port.strip()) and line[3] == b"01" for line in lines
        )


class CrowdTests(BoundsCase):
    """More connections than there is room for."""

    timeout = 120

    async def test_connections(self) -> None:
        """One more than there may be closes the one that has been idle for longest; without one it is told."""
        proxy = await self.bounded("connections = 4")
        clients = [await self.client(proxy, GET % name) for name in (b"a", b"b", b"c", b"d")]
        for client in clients:
            await client.got(b"is done")
        clients[0].send(GET % b"e")
        await clients[0].got(b"e is done")
        await self.honest(proxy)
        await until(lambda: clients[1].ended)
        self.assertEqual([client.ended for client in clients], [False, True, False, False])
        holding = [
            await self.client(proxy, b"GET /hold/%d HTTP/1.1\r\nHost: h\r\n\r\n" % n) for n in range(4)
        ]
        for number in range(4):
            await self.backend.begun(str(number))
        await until(lambda: all(client.ended for client in clients))
        answer = await (await self.client(proxy)).end()
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "1"))
        for number in range(4):
            await self.let(self.backend, str(number))
            await holding[number].got(f"{number} is done".encode())
        await self.honest(proxy, "again")

    async def test_one_client(self) -> None:
        """One client has only so many; others are served, and so is it as soon as it has closed one."""
        proxy = await self.bounded("connections_per_client = 3")
        greedy = [await self.client(proxy, GET % b"%d" % n, "127.0.0.2") for n in range(3)]
        for client in greedy:
            await client.got(b"is done")
        answer = await (await self.client(proxy, GET % b"4", "127.0.0.2")).end()
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "1"))
        await self.honest(proxy)
        greedy[0].leave()

        async def served() -> bool:
            client = await self.client(proxy, GET % b"again", "127.0.0.2")
            await until(lambda: client.received)
            return client.received.startswith(b"HTTP/1.1 200")

        while not await served():
            pass

    async def test_room_is_made(self) -> None:
        """Connections that make room for others are gone at once, though their clients read and close nothing."""
        proxy = await self.bounded("connections = 5")
        await self.honest(proxy)
        before = proxy.descriptors()
        crowd: list[socket.socket] = []
        self.addCleanup(lambda: [each.close() for each in crowd])
        await deferToThread(self.hoard, proxy, crowd)
        self.assertLess(proxy.descriptors(), before + 20)
        await self.honest(proxy, "again")

    def hoard(self, proxy: Running, crowd: list[socket.socket]) -> None:
        """Many clients, one after the other, ask for much and read the beginning of it."""
        for number in range(60):
            client = socket.socket()
            crowd.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", proxy.port))
            client.sendall(b"GET /bytes/%d?size=120000 HTTP/1.1\r\nHost: h\r\n\r\n" % number)
            client.recv(12)

    async def test_flood(self) -> None:
        """A flood of connections is turned away, and leaves nothing behind."""
        proxy = await self.bounded("connections = 10", "head_timeout = 2.0")
        before = proxy.descriptors()
        holding = [
            await self.client(proxy, b"GET /hold/%d HTTP/1.1\r\nHost: h\r\n\r\n" % n) for n in range(10)
        ]
        await gatherResults([self.backend.begun(str(number)) for number in range(10)])
        flood = [await self.client(proxy) for _ in range(500)]
        await until(lambda: all(client.ended for client in flood))
        told = sum(client.received.startswith(b"HTTP/1.1 503 ") for client in flood)
        self.assertGreaterEqual(told, 100)
        self.assertEqual(told, sum(bool(client.received) for client in flood))
        for number, client in enumerate(holding):
            await self.let(self.backend, str(number))
            await client.got(b"is done")
            client.leave()
        await self.honest(proxy)
        await until(lambda: proxy.descriptors() <= before + 5)
        self.assertIn(b"Clients turned away", proxy.child.output)


class OrderTests(BoundsCase):
    """Requests that are sent ahead."""

    async def test_pipelined(self) -> None:
        """They are answered in order, one after the other."""
        proxy = await self.bounded()
        names = [b"%d" % number for number in range(50)]
        client = await self.client(proxy, b"".join(GET % name for name in names))
        await client.got(b"49 is done")
        places = [client.received.index(b"\r\n%b is done" % name) for name in names]
        self.assertEqual(places, sorted(places))
        self.assertEqual(self.backend.names(), [name.decode() for name in names])

    async def test_read_ahead(self) -> None:
        """Whatever a client sends ahead, so much is read and no more; the rest waits with the client."""
        proxy = await self.bounded()
        client = await self.client(proxy, b"GET /hold/first HTTP/1.1\r\nHost: h\r\n\r\n")
        await self.backend.begun("first")
        before = proxy.memory("VmRSS")
        client.send(GET % b"second" + b"X" * 50_000_000)
        await self.honest(proxy)
        self.assertLess(proxy.memory("VmRSS") - before, 10_000_000)
        await self.let(self.backend, "first")
        answer = await client.end()
        self.assertEqual(answer.status, 200)
        self.assertEqual(client.received.count(b"is done"), 2)
        self.assertIn(b"HTTP/1.1 501 ", client.received)  # a method of so many letters

    async def test_expect(self) -> None:
        """Who asks before it sends a body is told to, or gets the answer of a rule without sending it."""
        proxy = await self.bounded()
        head = b"POST /digest/%s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        asked = await self.client(proxy, head % b"yes")
        await asked.got(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.backend.names(), [])
        asked.send(b"abcde")
        await asked.got(b"HTTP/1.1 200 OK")
        refused = await self.client(proxy, head % b"no")
        answer = await refused.end()
        self.assertEqual((answer.status, answer.headers["Connection"]), (403, "close"))
        self.assertEqual(self.backend.names(), ["yes"])


class EndTests(BoundsCase):
    """Last answers."""

    SIZE = 700_000

    async def test_all_of_it(self) -> None:
        """Who takes a last answer slowly gets all of it, whatever was sent behind its request, and when."""
        proxy = await self.bounded("requests_per_connection = 1")
        late = {b"": 0.0, b"\r\n": 0.0, GET % b"1": 0.0, b"\r\n\r\n": 0.5, GET % b"2": 0.5}
        taken = [deferToThread(self.take, proxy, data, when) for data, when in late.items()]
        for answer in await gatherResults(taken):
            self.assertEqual((len(answer.body), answer.complete), (self.SIZE, True))
        self.assertEqual({name[:2] for name in self.backend.names()}, {"it"})

    def take(self, proxy: Running, data: bytes, when: float) -> Answer:
        """Ask for an answer, send more at once or later, and take five seconds to read it."""
        request = b"GET /bytes/it-%d?size=%d HTTP/1.1\r\nHost: h\r\n\r\n" % (id(data), self.SIZE)
        received, began = b"", time.monotonic()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            client.connect(("127.0.0.1", proxy.port))
            client.sendall(request if when else request + data)
            while piece := client.recv(16384):
                received += piece
                if when and time.monotonic() - began > when:
                    client.sendall(data)
                    when = 0.0
                time.sleep(max(0.0, began + 5 * len(received) / self.SIZE - time.monotonic()))
        return Answer(received)


class StopTests(BoundsCase):
    """A proxy that stops."""

    async def test_stops(self) -> None:
        """Idle connections are closed at once, and an exchange gets its answer, told that it is the last."""
        proxy = await self.bounded()
        idle = await self.client(proxy, GET % b"idle")
        await idle.got(b"is done")
        half = await self.client(proxy, b"GET /")
        holding = await self.client(proxy, b"GET /hold/it HTTP/1.1\r\nHost: h\r\n\r\n")
        await self.backend.begun("it")
        proxy.process.signalProcess("TERM")
        await idle.end()
        self.assertEqual((await half.end()).status, 503)
        await self.let(self.backend, "it")
        answer = await holding.end()
        self.assertEqual((answer.status, answer.headers["Connection"]), (200, "close"))
        await proxy.child.ended
