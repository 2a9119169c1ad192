"""What passes through a proxy, and who is asking: a real process, before a backend that records every byte."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Factory, Protocol

from tests.integration.harness import Answer, Client, IntegrationCase, Running

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

CONFIG = """
listen = ["tcp:0:interface=127.0.0.1", "unix:{place}/plain", "haproxy:unix:{place}/haproxy"]
trusted_proxies = ["127.0.0.1", "2001:db8::/32", "unix:"]
server_timing = false

[backend.app]
url = "http://127.0.0.1:{port}"
keep_alive = 0

[[rule]]
when = {{ client = "192.0.2.7" }}
then = {{ set_input_header = {{ X-Known = "yes" }} }}

[[rule]]
when = {{ header = {{ X-Kept = "not:a" }} }}
"""


class Recording(Protocol):
    """Records a request, and answers it when its head is there."""

    transport: Any
    factory: Recorder

    def connectionMade(self) -> None:
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):
            self.factory.requests.append(self._received)
            self._received = b""
            self.transport.write(self.factory.response)
            if self.factory.closes:
                self.transport.loseConnection()


class Recorder(Factory):
    """
    A backend for requests without bodies.

    @ivar requests: what it got.
    @ivar response: what it sends, to each.
    @ivar closes: whether it closes the connection after it.
    """

    protocol = Recording
    response = OK
    closes = False

    def __init__(self) -> None:
        self.requests: list[bytes] = []


class SemanticsTests(IntegrationCase):
    """Byte for byte."""

    async def proxied(self) -> tuple[Recorder, Running]:
        """A recording backend, and a proxy before it."""
        recorder = Recorder()
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(recorder)
        self.addCleanup(port.stopListening)
        path = os.path.abspath(self.mktemp())
        self.sockets = self._of("others")
        with open(path, "w") as file:
            file.write(CONFIG.format(port=port.getHost().port, place=self.sockets))
        return recorder, await self.twistd("--config", path)

    async def say(self, proxy: Running, request: bytes, socket: str = "") -> bytes:
        """Send a request over TCP, or over a unix socket, and read to the connection's end."""
        client = Client(request)
        endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.port)
        if socket:
            endpoint = UNIXClientEndpoint(reactor, f"{self.sockets}/{socket}")
        await connectProtocol(endpoint, client)
        self._clients.append(client)
        await client.answer
        return bytes(client.received)

    async def test_request(self) -> None:
        """The backend gets what is meant for it, in order and byte for byte, and nothing else."""
        recorder, proxy = await self.proxied()
        received = await self.say(
            proxy,
            b"GET /caf%C3%A9//a?x=%00&y HTTP/1.1\r\n"
            b"host: Example.org:81\r\n"
            b"X-Bytes: caf\xe9 \x80\xff\r\n"
            b"X-Kept: 1\r\n"
            b"X-Bytes:\t 2 \r\n"
            b"Cookie: a=b; c=d\r\n"
            b"Connection: x-HOP , close\r\n"
            b"Connection:\t,X-Kept,, Cookie, X-Forwarded-For\r\n"
            b"X-Hop: 1\r\n"
            b"x-hop: 2\r\n"
            b"TE: trailers\r\n"
            b"Trailer: X\r\n"
            b"Upgrade: websocket\r\n"
            b"HTTP2-Settings: AA\r\n"
            b"Keep-Alive: timeout=5\r\n"
            b"Proxy: http://evil/\r\n"
            b"Proxy-Authorization: Basic eA==\r\n"
            b"Proxy-Anything: x\r\n"
            b"X_Kept: evil\r\n"
            b"X-Forwarded-For: 10.9.9.9, 192.0.2.7\r\n"
            b"X_Forwarded_For: evil\r\n"
            b"X-Forwarded-Proto: https\r\n"
            b"Forwarded: for=evil\r\n"
            b"Via: 1.0 other\r\n"
            b"\r\n",
        )
        [request] = recorder.requests
        line, *fields = request.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self.assertEqual(line, b"GET /caf%C3%A9//a?x=%00&y HTTP/1.1")
        self.assertEqual(
            sorted(fields),
            sorted(
                [
                    b"Host: Example.org:81",
                    b"X-Bytes: caf\xe9 \x80\xff",
                    b"X-Bytes: 2",
                    b"X-Kept: 1",
                    b"Cookie: a=b; c=d",
                    b"X-Forwarded-For: 10.9.9.9, 192.0.2.7, 127.0.0.1",
                    b"X-Forwarded-Proto: https",
                    b"X-Forwarded-Host: Example.org:81",
                    b"X-Real-Ip: 192.0.2.7",
                    b"Forwarded: for=10.9.9.9, for=192.0.2.7;proto=https, "
                    b'for=127.0.0.1;host="Example.org:81"',
                    b"X-Known: yes",
                    b"Via: 1.0 other",
                    b"Via: 1.1 thrtwisted",
                    b"Connection: close",
                ]
            ),
        )
        self.assertEqual(
            [field for field in fields if field.startswith((b"X-Bytes", b"Via"))],
            [b"X-Bytes: caf\xe9 \x80\xff", b"X-Bytes: 2", b"Via: 1.0 other", b"Via: 1.1 thrtwisted"],
        )
        self.assertEqual(Answer(received).body, b"ok")

    async def test_who(self) -> None:
        """The client over TCP, over a unix socket, and with the PROXY protocol."""
        recorder, proxy = await self.proxied()
        get = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n%b\r\n"
        chain = get % b"X-Forwarded-For: 192.0.2.9\r\n"
        for socket, request, client, known in [
            ("", get % b"", b"127.0.0.1", False),
            ("", chain, b"192.0.2.9", False),
            ("plain", chain, b"192.0.2.9", False),
            ("plain", get % b"", None, False),
            ("haproxy", b"PROXY TCP4 192.0.2.7 10.0.0.1 1 80\r\n" + chain, b"192.0.2.7", True),
            ("haproxy", b"PROXY TCP6 2001:DB8::1 ::1 1 80\r\n" + chain, b"192.0.2.9", False),
            ("haproxy", b"PROXY TCP6 2001:DB9::1 ::1 1 80\r\n" + chain, b"2001:db9::1", False),
        ]:
            received = await self.say(proxy, request, socket)
            self.assertEqual(Answer(received).status, 200, request)
            request = recorder.requests.pop()
            self.assertEqual(b"\r\nX-Known: yes\r\n" in request, known)
            fields = [field for field in request.split(b"\r\n") if field.startswith(b"X-Real-Ip:")]
            self.assertEqual(fields, [] if client is None else [b"X-Real-Ip: " + client])

    async def test_response(self) -> None:
        """The client gets what is meant for it: interim responses are dropped, fields pass byte for byte."""
        recorder, proxy = await self.proxied()
        recorder.response = (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 203 Tr\xe8s bien\r\nSet-Cookie: a=1\r\nDate: then\r\nSet-Cookie: b=\xff\r\n"
            b"Connection: X-Hop\r\nX-Hop: 1\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\nVia: 1.1 a\r\n\r\n"
            b"2;x=y\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
        )
        received = await self.say(proxy, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        head, _, body = received.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        self.assertEqual(line, b"HTTP/1.1 203 Tr\xe8s bien")
        self.assertEqual(
            sorted(fields),
            [
                b"Connection: close",
                b"Date: then",
                b"Set-Cookie: a=1",
                b"Set-Cookie: b=\xff",
                b"Transfer-Encoding: chunked",
                b"Via: 1.1 a",
                b"Via: 1.1 thrtwisted",
            ],
        )
        self.assertEqual(body, b"2\r\nok\r\n0\r\n\r\n")

    async def test_bodiless(self) -> None:
        """HEAD and 304 have the length of what does not follow, 204 has none; nothing follows."""
        recorder, proxy = await self.proxied()
        for method, status, expected in [
            (b"HEAD", 200, [b"Content-Length: 5"]),
            (b"GET", 304, [b"Content-Length: 5"]),
            (b"GET", 204, []),
        ]:
            recorder.response = b"HTTP/1.1 %d x\r\nContent-Length: 5\r\n\r\n" % status
            received = await self.say(
                proxy, b"%b / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % method
            )
            head, _, body = received.partition(b"\r\n\r\n")
            self.assertEqual(body, b"")
            fields = head.split(b"\r\n")[1:]
            framing = [field for field in fields if field.startswith((b"Content-Length", b"Transfer"))]
            self.assertEqual(framing, expected, status)

    async def test_broken_responses(self) -> None:
        """What is no response, or one whose end nobody knows, is a 502."""
        recorder, proxy = await self.proxied()
        recorder.closes = True
        for response in [
            b"garbage\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nA: " + 70_000 * b"b" + b"\r\n\r\n",
        ]:
            recorder.response = response
            received = await self.say(proxy, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            self.assertEqual(Answer(received).status, 502, response[:100])

    async def test_hops(self) -> None:
        """A TRACE that goes no further is answered by the proxy, one that does has a hop less."""
        recorder, proxy = await self.proxied()
        trace = (
            b"TRACE /a HTTP/1.1\r\nHost: h\r\nMax-Forwards: %d\r\nCookie: secret\r\nConnection: close\r\n\r\n"
        )
        answer = Answer(await self.say(proxy, trace % 0))
        self.assertEqual(answer.headers["Content-Type"], "message/http")
        self.assertEqual(answer.body, b"TRACE /a HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
        self.assertEqual(recorder.requests, [])
        await self.say(proxy, trace % 1)
        self.assertIn(b"\r\nMax-Forwards: 0\r\n", recorder.requests[0])
