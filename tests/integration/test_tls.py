"""TLS between clients and a proxy process."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.web.http import H2_ENABLED

from tests.certificates import Authority
from tests.integration.harness import Answer, IntegrationCase, Running, until

CONFIG = """
[bounds]
head_timeout = {head_timeout}
body_size = 1000000
connections = 8
connections_per_client = 5

[backend.app]
url = "{url}"

[[rule]]
when = {{ header = {{ X-Forwarded-Proto = "https" }}, path = "/secure" }}
then = {{ set_status_code = 418 }}
"""

GET = b"GET /work/%s?seconds=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"


class TlsTests(IntegrationCase):
    """A listener with a certificate, by an endpoint string."""

    async def proxied(self, head_timeout: float = 10.0) -> Running:
        """A proxy that listens with TLS, and clients that trust it."""
        authority = Authority()
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        certificate, key, _ = authority.identify("localhost").save(directory, "server")
        self.context = ssl.create_default_context(cadata=authority.certificate.decode())
        self.backend = await self.lean()
        return await self.proxy(
            CONFIG.format(url=self.backend.url, head_timeout=head_timeout),
            listen=f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}",
        )

    def client(
        self, proxy: Running, protocols: tuple[str, ...] = (), host: str = "127.0.0.1"
    ) -> ssl.SSLSocket:
        """A client's connection."""
        context = self.context
        context.set_alpn_protocols(list(protocols))
        plain = socket.create_connection(("127.0.0.1", proxy.port), 20, (host, 0))
        client = context.wrap_socket(plain, server_hostname="localhost")
        self.addCleanup(client.close)
        return client

    def talk(self, client: Any, data: bytes, until: bytes = b"") -> bytes:
        """Send, and read until a text comes, or the end."""
        client.sendall(data)
        received = b""
        while not until or until not in received:
            piece = client.recv(65536)
            if not piece:
                break
            received += piece
        return received

    async def test_served(self) -> None:
        """Requests are served, one after the other on one connection, and rules see that they came by TLS."""
        proxy = await self.proxied()
        client = await deferToThread(self.client, proxy)
        for name in (b"one", b"two"):
            received = await deferToThread(self.talk, client, GET % name, b"is done")
            self.assertEqual(Answer(received).status, 200)
        self.assertEqual(self.backend.names(), ["one", "two"])
        received = await deferToThread(
            self.talk, client, b"GET /secure HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        self.assertEqual((Answer(received).status, Answer(received).complete), (418, True))

    async def test_protocols(self) -> None:
        """HTTP/1.1 is spoken and nothing else, whatever the client would like better, and Twisted could speak."""
        self.assertTrue(H2_ENABLED, "without twisted[http2] nobody could speak anything else")
        proxy = await self.proxied()
        for offered, chosen in (
            (("h2", "http/1.1"), "http/1.1"),
            (("http/1.1",), "http/1.1"),
            ((), None),
        ):
            client = await deferToThread(self.client, proxy, offered)
            self.assertEqual(client.selected_alpn_protocol(), chosen)
            received = await deferToThread(
                self.talk, client, GET % str(offered).encode().hex().encode(), b"is done"
            )
            self.assertEqual(Answer(received).status, 200)

    async def test_refused(self) -> None:
        """A refusal reaches its client, be it still sending; then the connection is closed in order."""
        proxy = await self.proxied()
        client = await deferToThread(self.client, proxy)
        head = b"POST /digest/it HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"
        received = await deferToThread(self.talk, client, head + bytes(300_000))
        self.assertEqual((Answer(received).status, Answer(received).complete), (413, True))
        client = await deferToThread(self.client, proxy)
        received = await deferToThread(self.talk, client, b"GET / HTTP/1.1\r\nHost : h\r\n\r\n")
        self.assertEqual(Answer(received).status, 400)

    async def test_large_answer(self) -> None:
        """Large answers and bodies pass, at the client's speed."""
        proxy = await self.proxied()
        client = await deferToThread(self.client, proxy)
        request = b"GET /bytes/it?size=5000000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        received = await deferToThread(self.talk, client, request)
        self.assertEqual((len(Answer(received).body), Answer(received).complete), (5_000_000, True))

    async def test_one_client(self) -> None:
        """A client has only so many connections with TLS, too."""
        proxy = await self.proxied()
        clients = [await deferToThread(self.client, proxy) for _ in range(5)]
        self.assertEqual(
            Answer(await deferToThread(self.talk, clients[0], GET % b"one", b"is done")).status, 200
        )
        client = await deferToThread(self.client, proxy)
        received = await deferToThread(self.talk, client, b"")
        self.assertEqual(Answer(received).status, 503)

    async def test_room_is_made(self) -> None:
        """An idle connection that makes room for another one is gone at once, though its client says nothing to it."""
        proxy = await self.proxied()
        holding = await deferToThread(self.client, proxy)
        await deferToThread(self.talk, holding, GET % b"first", b"is done")
        before, clients = proxy.descriptors(), []
        for number in range(40):
            clients.append(await deferToThread(self.client, proxy, (), f"127.0.0.{2 + number % 20}"))
            await deferToThread(self.talk, clients[-1], GET % b"%d" % number, b"is done")
        self.assertLess(proxy.descriptors(), before + 15)
        self.assertEqual(await deferToThread(self.talk, clients[0], b""), b"")  # closed in order

    async def test_silent(self) -> None:
        """Who does not come to the end of a handshake, or says nothing after it, is closed in a head's time."""
        proxy = await self.proxied(head_timeout=1.0)
        client = await deferToThread(self.client, proxy)  # what is made once
        await deferToThread(self.talk, client, GET % b"first", b"is done")
        client.close()
        before = proxy.descriptors()
        began = time.monotonic()
        hello = b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc\x03\x03" + bytes(1000)
        silent = await deferToThread(self.client, proxy)
        waiting = [deferToThread(self.drip, silent, b"", began)]
        for data in (b"", hello):
            plain = socket.create_connection(("127.0.0.1", proxy.port), 20)
            self.addCleanup(plain.close)
            waiting.append(deferToThread(self.drip, plain, data, began))
        for seconds, received in await gatherResults(waiting):
            self.assertGreater(seconds, 0.8)
            self.assertLess(seconds, 10)
            self.assertNotIn(b"HTTP/", received)
        await until(lambda: proxy.descriptors() <= before)
        self.assertEqual(self.backend.names(), ["first"])

    def drip(self, client: socket.socket, data: bytes, began: float) -> tuple[float, bytes]:
        """Send a byte now and then; after how many seconds the proxy has closed, and what it has said."""
        received = b""
        client.settimeout(0.05)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while time.monotonic() - began < 15:
                try:
                    piece = client.recv(65536)
                    if not piece:
                        break
                    received += piece
                except TimeoutError:
                    client.sendall(data[:1])
                    data = data[1:]
        return time.monotonic() - began, received

    async def test_plain(self) -> None:
        """Who speaks no TLS gets nothing, and others are served."""
        proxy = await self.proxied()
        with socket.create_connection(("127.0.0.1", proxy.port), 20) as plain:
            received = await deferToThread(self.talk, plain, GET % b"plain")
        self.assertNotIn(b"HTTP/", received)
        client = await deferToThread(self.client, proxy)
        received = await deferToThread(self.talk, client, GET % b"one", b"is done")
        self.assertEqual(Answer(received).status, 200)
        self.assertEqual(self.backend.names(), ["one"])
