"""Clients behind another proxy that speaks the PROXY protocol to ours."""

from __future__ import annotations

import socket
import struct
import time

from tests.integration.harness import IntegrationCase, Running, until
from tests.integration.raw import Raw, connect

CONFIG = """
[bounds]
connections_per_client = 2
head_timeout = 1.0

[backend.app]
url = "{url}"

[[rule]]
when = {{ client = "192.0.2.7" }}
then = {{ set_status_code = 418 }}

[[rule]]
when = {{ client = "2001:db8::7" }}
then = {{ set_status_code = 451 }}
"""

GET = b"GET /work/%s?seconds=0 HTTP/1.1\r\nHost: h\r\n\r\n"


def version_1(client: str) -> bytes:
    """The first bytes of a connection in version 1."""
    family, server = ("TCP6", "::1") if ":" in client else ("TCP4", "127.0.0.1")
    return f"PROXY {family} {client} {server} 50000 443\r\n".encode()


def version_2(client: str) -> bytes:
    """The first bytes of a connection in version 2."""
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    addresses = socket.inet_pton(family, client) + socket.inet_pton(
        family, "::1" if ":" in client else "127.0.0.1"
    )
    kind = 0x21 if ":" in client else 0x11
    payload = addresses + struct.pack("!HH", 50000, 443)
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", 0x21, kind, len(payload)) + payload


class ProxyProtocolTests(IntegrationCase):
    """A listener with C{haproxy:}."""

    async def proxied(self) -> Running:
        self.backend = await self.lean()
        self.clients: list[Raw] = []
        self.addCleanup(lambda: [client.leave() for client in self.clients])
        return await self.proxy(
            CONFIG.format(url=self.backend.url), listen="haproxy:tcp:0:interface=127.0.0.1"
        )

    async def client(self, proxy: Running, data: bytes) -> Raw:
        self.clients.append(await connect(proxy, data))
        return self.clients[-1]

    async def test_client(self) -> None:
        """The client is whom the first bytes name, in either version."""
        proxy = await self.proxied()
        for version in (version_1, version_2):
            for address, status in (("192.0.2.7", 418), ("192.0.2.8", 200), ("2001:db8::7", 451)):
                client = await self.client(proxy, version(address) + GET % version.__name__.encode())
                await client.got(b"HTTP/1.1 %d " % status)
                client.leave()
                await until(lambda client=client: client.ended)

    async def test_count(self) -> None:
        """Connections are counted for the clients that the first bytes name, not for the proxy between."""
        proxy = await self.proxied()
        for version, address in ((version_1, "192.0.2.1"), (version_2, "2001:db8::1")):
            for number in range(2):
                client = await self.client(
                    proxy, version(address) + GET % f"{version.__name__}{number}".encode()
                )
                await client.got(b"200 OK")
            answer = await (await self.client(proxy, version(address) + GET % b"more")).end()
            self.assertEqual((answer.status, answer.headers["Retry-After"]), (503, "1"))
        other = await self.client(proxy, version_1("192.0.2.2") + GET % b"other")
        await other.got(b"200 OK")
        self.assertNotIn("more", self.backend.names())

    async def test_garbage(self) -> None:
        """Who begins otherwise is closed without a word."""
        proxy = await self.proxied()
        for data in (
            GET % b"bare",
            b"PROXY TCP4 nonsense\r\n",
            b"PROXY TCP4 nonsense 127.0.0.1 1 2\r\n" + GET % b"nobody",
            b"PROXY TCP4 192.0.2.1 127.0.0.1 x y\r\n" + GET % b"x",
            b"PROXY TCP4 192.0.2.\xff 127.0.0.1 1 2\r\n" + GET % b"xff",
            b"\x00" * 100,
            version_1("192.0.2.1")[:20] + b"\r\n\r\n",
        ):
            client = await self.client(proxy, data)
            await client.end()
            self.assertEqual(bytes(client.received), b"", data)
        self.assertEqual(self.backend.names(), [])
        self.assertNotIn(b"Traceback", proxy.child.output)

    async def test_nobody(self) -> None:
        """A load balancer that names nobody asks for itself."""
        proxy = await self.proxied()
        for data in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ::1 ::1 1 2\r\n"):
            client = await self.client(proxy, data + GET % b"own")
            await client.got(b"HTTP/1.1 200 ")
            client.leave()
            await until(lambda client=client: client.ended)

    async def test_slow(self) -> None:
        """The time for a request's head begins with the connection, and counts for what comes before the head, too."""
        proxy = await self.proxied()
        began = time.monotonic()
        clients = [
            await self.client(proxy, data)
            for data in (b"", version_1("192.0.2.1")[:-2], version_1("192.0.2.1"))
        ]
        for client in clients:
            await client.end()
            self.assertEqual(bytes(client.received), b"")
        self.assertGreater(time.monotonic() - began, 0.9)
        half = await self.client(proxy, version_2("192.0.2.1") + b"GET / HTTP/1.1\r\n")
        self.assertEqual((await half.end()).status, 408)
        served = await self.client(proxy, version_2("192.0.2.1") + GET % b"served")
        await served.got(b"200 OK")
