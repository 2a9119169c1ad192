"""Tests for L{thrtwisted.listen.balancer}."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.listen import endpoint
from thrtwisted.listen.balancer import header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
IPV4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 5, 80)
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack("!HH", 5, 80)
UNIX = b"/run/s".ljust(108, b"\0") * 2
GET = b"GET / HTTP/1.1\r\n"


def version_2(command: int, kind: int, payload: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(payload)) + payload


#: Whole headers, and whom Twisted takes for the client.
GOOD = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n", "192.0.2.7"),
    (b"PROXY TCP6 2001:DB8::7 ::1 65535 0\r\n", "2001:DB8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN \r\n", None),
    (b"PROXY UNKNOWN ffff::1 nonsense\xff 1 2\r\n", None),
    (version_2(0x21, 0x11, IPV4), "192.0.2.7"),
    (version_2(0x21, 0x12, IPV4), "192.0.2.7"),
    (version_2(0x21, 0x21, IPV6 + b"\x04\x00\x01x"), "2001:db8:0:0:0:0:0:7"),
    (version_2(0x21, 0x31, UNIX), UNIXAddress("/run/s")),
    (version_2(0x20, 0), None),
    (version_2(0x20, 0x11, IPV4), None),
    (version_2(0x20, 0xFF, b"x"), None),
    (version_2(0x21, 0), None),
    (version_2(0x21, 0x10), None),
    (version_2(0x21, 0x01, b"xyz"), None),
]

BAD = [
    *(b"GET / HTTP/1.1\r\n", b"\x00", b"PROXX", b"proxy TCP4", b"\r\n\r\nX", b"PROXY\tTCP4 ", b"PROXY\r\n"),
    *(b"PROXY \r\n", b"PROXY TCP4\r\n", b"PROXY TCP5 192.0.2.7 192.0.2.1 5 80\r\n"),
    *(b"PROXY unknown\r\n", b"PROXY tcp4 192.0.2.7 192.0.2.1 5 80\r\n"),
    b"PROXY TCP4 192.0.2.7 192.0.2.1 5\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80 x\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 5 80 \r\n",
    b"PROXY TCP4  192.0.2.7 192.0.2.1 5 80\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 x y\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 5 65536\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 -5 80\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 \xb2 80\r\n",
    b"PROXY TCP4 garbage 192.0.2.1 5 80\r\n",
    b"PROXY TCP4 192.0.2.7 garbage 5 80\r\n",
    b"PROXY TCP4 192.0.2.\xff 192.0.2.1 5 80\r\n",
    b'PROXY TCP4 \x1f\x00evil" 192.0.2.1 5 80\r\n',
    b"PROXY TCP4 127.0.0.1,192.0.2.7 192.0.2.1 5 80\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 5 80\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.1 5 80\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 5 80\r\n",
    b"PROXY UNKNOWN " + b"x" * 93,
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    version_2(0x21, 0x11, IPV4[:-1]),
    version_2(0x21, 0x21, IPV4),
    version_2(0x21, 0x31, UNIX[:-1]),
    version_2(0x21, 0x41, IPV6),
    version_2(0x21, 0x13, IPV4),
    *(version_2(command, 0x11, IPV4) for command in (0x11, 0x22, 0x2F, 0x00, 0x31)),
]


class HeaderTests(SynchronousTestCase):
    """Tests for L{header}."""

    def test_good(self) -> None:
        """A header is known when its last byte has come, whatever follows; before, nobody knows."""
        for data, _ in GOOD:
            self.assertEqual([header(data[:end]) for end in range(len(data))], [None] * len(data))
            for rest in (b"", GET):
                found = header(data + rest)
                assert found is not None, data
                self.assertEqual(found[1], len(data))

    def test_bad(self) -> None:
        """What is none is refused."""
        for data in BAD:
            self.assertRaises(ValueError, header, data)

    def test_length(self) -> None:
        """The longest line is read."""
        self.assertIsNotNone(header(b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n"))

    @settings(deadline=None)
    @given(
        st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0"]), st.binary()
    )
    def test_anything(self, start: bytes, data: bytes) -> None:
        """Nothing but a ValueError comes of anything."""
        with contextlib.suppress(ValueError):
            header(start + data)


class Server(Protocol):
    """What stands behind the endpoint."""

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class EndpointTests(SynchronousTestCase):
    """A port that load balancers connect to."""

    def setUp(self) -> None:
        memory = MemoryReactorClock()
        self.servers: list[Server] = []
        factory = Factory()
        factory.buildProtocol = self.build  # type: ignore[method-assign]
        endpoint(memory, "haproxy:tcp:80").listen(factory)
        self.factory: Any = memory.tcpServers[0][1]

    def build(self, address: object) -> Server:
        self.servers.append(Server())
        return self.servers[-1]

    def receive(self, *pieces: bytes) -> tuple[StringTransport, Server]:
        transport = StringTransport()
        protocol = self.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        for piece in pieces:
            protocol.dataReceived(piece)
        return transport, self.servers[-1]

    def test_good(self) -> None:
        """The server sees what follows the header, and whom it names, in whatever pieces it comes."""
        for data, client in GOOD:
            in_bytes = [bytes([byte]) for byte in data + GET]
            for pieces in ([data + GET], [data, GET], in_bytes):
                transport, server = self.receive(*pieces)
                self.assertEqual(server.received, GET, data)
                peer: Any = server.transport.getPeer()  # type: ignore[union-attr]
                wanted = transport.getPeer() if client is None else client
                self.assertEqual(getattr(peer, "host", peer), getattr(wanted, "host", wanted))
                self.assertFalse(transport.disconnecting)

    def test_bad(self) -> None:
        """Others are aborted; the server sees nothing of them, and the log no traceback."""
        for data in BAD:
            transport, server = self.receive(data + b"\r\n" + GET)
            self.assertEqual(server.received, b"", data)
            self.assertTrue(transport.disconnected, data)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_late(self) -> None:
        """What comes after a refusal is not looked at either."""
        _, server = self.receive(b"X", GOOD[0][0] + GET)
        self.assertEqual(server.received, b"")
