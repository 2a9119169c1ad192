"""Tests of responses' heads as they are sent."""

from __future__ import annotations

from itertools import combinations, product

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ProxyAgent, readBody
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from thrtwisted.errors import BackendProtocolError
from thrtwisted.forward.head import NOTHING, Framing, end_of_head, parse_response_head

CLOSE = Framing()
CHUNKED = Framing(chunked=True)
LF = b"\n"


def head(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A head of these lines."""
    return b"\r\n".join((line, *lines, b"", b""))


class EndTests(SynchronousTestCase):
    """Tests for L{end_of_head}."""

    def test_found(self) -> None:
        """It ends after its empty line, from wherever one looks, and however much has come."""
        data = head(b"A: b") + b"body\n"
        end = len(data) - 5
        for start in range(end):
            self.assertEqual(end_of_head(data, start), end)
            self.assertEqual(end_of_head(bytearray(data[:start])), -1)
        self.assertEqual(end_of_head(data[:end], end - 1), end)

    def test_line_feed(self) -> None:
        """A line that does not end with CRLF is refused as soon as it is there, and in the body it is not."""
        for data in [LF, b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\r\nA: b\n\r\n", b"A\r\n\n", b"A\n\n"]:
            for start in range(len(data)):
                self.assertRaises(BackendProtocolError, end_of_head, data, start)


class ParseTests(SynchronousTestCase):
    """Tests for L{parse_response_head}."""

    def test_parts(self) -> None:
        """Everything is there as it was sent: bytes, several fields of one name, fields of one hop."""
        data = head(
            b"Set-Cookie: a=1, b",
            b"X-Bytes:\t caf\xe9\x80 \t",
            b"set-cookie: c=2",
            b"Connection: X-Hop, keep-alive",
            b"X-Empty:",
            b"Content-Length: 3",
            line=b"HTTP/1.1 299 Tr\xe8s\tbien ",
        )
        parsed = parse_response_head(data)
        self.assertEqual(
            (parsed.version, parsed.status, parsed.phrase), (b"HTTP/1.1", 299, b"Tr\xe8s\tbien ")
        )
        self.assertEqual(parsed.headers.getRawHeaders(b"set-cookie"), [b"a=1, b", b"c=2"])
        self.assertEqual(parsed.headers.getRawHeaders(b"x-bytes"), [b"caf\xe9\x80"])
        self.assertEqual(parsed.headers.getRawHeaders(b"x-empty"), [b""])
        self.assertEqual(parsed.headers.getRawHeaders(b"connection"), [b"X-Hop, keep-alive"])
        self.assertEqual((parsed.framing, parsed.keeps_alive, parsed.interim), (Framing(3), True, False))
        self.assertEqual(parse_response_head(data.removesuffix(b"\r\n\r\n")), parsed)

    def test_status_lines(self) -> None:
        """Status lines of HTTP/1.1 and HTTP/1.0, with a phrase or without."""
        for line, expected in [
            (b"HTTP/1.1 200 OK", (b"HTTP/1.1", 200, b"OK")),
            (b"HTTP/1.0 404 Not Found", (b"HTTP/1.0", 404, b"Not Found")),
            (b"HTTP/1.1 200 ", (b"HTTP/1.1", 200, b"")),
            (b"HTTP/1.1 200", (b"HTTP/1.1", 200, b"")),
            (b"HTTP/1.1 200  two", (b"HTTP/1.1", 200, b" two")),
            (b"HTTP/1.1 999 x", (b"HTTP/1.1", 999, b"x")),
        ]:
            parsed = parse_response_head(head(line=line))
            self.assertEqual((parsed.version, parsed.status, parsed.phrase), expected)

    def test_no_status_line(self) -> None:
        """Anything else is the backend's error."""
        for line in [
            b"",
            b" HTTP/1.1 200 OK",
            b"\r\nHTTP/1.1 200 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 +20 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 2 0 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 200\tOK",
            b"HTTP/1.1 \xb2\xb2\xb2 OK",
            b"HTTP/1.1",
            b"HTTP/1.2 200 OK",
            b"HTTP/2 200 OK",
            b"HTTP/2.0 200 OK",
            b"HTTP/01.1 200 OK",
            b"http/1.1 200 OK",
            b"ICY 200 OK",
            b"200 OK",
            b"<html>",
            b"HTTP/1.1 200 O\x00K",
            b"HTTP/1.1 200 O\x1bK",
            b"HTTP/1.1 200 O\x7fK",
            b"HTTP/1.1 200 O\rK",
            b"HTTP/1.1 101 Switching Protocols",
        ]:
            self.assertRaises(BackendProtocolError, parse_response_head, head(b"A: b", line=line))

    def test_fields(self) -> None:
        """So is what is no field: another parser could find something else in it."""
        for lines in [
            [b"no colon"],
            [b": no name"],
            [b"A : b"],
            [b"A\t: b"],
            [b" A: b"],
            [b"A: b", b" continued"],
            [b"A: b", b"\tcontinued"],
            [b"A: b", b" ", b"C: d"],
            [b"A b: c"],
            [b"A\x00: b"],
            [b"A: \x00"],
            [b"A: \x0b"],
            [b"A: \x1b"],
            [b"A: \x7f"],
            [b"A: b\rC: d"],
            [b"A: b\r"],
            [b"A: b\nC: d"],
            [b"A\xe9: b"],
            [b"A" * 300 + b": b"],
            [b"Connection: a b"],
        ]:
            self.assertRaises(BackendProtocolError, parse_response_head, head(*lines))
            self.assertRaises(BackendProtocolError, parse_response_head, head(*lines, b"D: e"))

    def test_framing(self) -> None:
        """Where the body ends (RFC 9112, section 6.3)."""
        for line, lines, expected in [
            (b"HTTP/1.1 200 OK", [], CLOSE),
            (b"HTTP/1.0 200 OK", [], CLOSE),
            (b"HTTP/1.1 200 OK", [b"Content-Length: 0"], NOTHING),
            (b"HTTP/1.1 200 OK", [b"content-length:7"], Framing(7)),
            (b"HTTP/1.1 200 OK", [b"Content-Length: 007"], Framing(7)),
            (b"HTTP/1.1 200 OK", [b"Content-Length: " + b"9" * 18], Framing(10**18 - 1)),
            (b"HTTP/1.1 200 OK", [b"Content-Length: 7", b"Content-Length: 7"], Framing(7)),
            (b"HTTP/1.1 200 OK", [b"Content-Length: 7, 7"], Framing(7)),
            (b"HTTP/1.0 200 OK", [b"Content-Length: 7"], Framing(7)),
            (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], CHUNKED),
            (b"HTTP/1.1 200 OK", [b"transfer-encoding:\t CHUNKED "], CHUNKED),
        ]:
            parsed = parse_response_head(head(*lines, line=line))
            self.assertEqual((parsed.framing, parsed.body(b"GET")), (expected, expected))
            self.assertEqual(parsed.body(b"HEAD"), NOTHING)
            self.assertEqual(parsed.body(b"head"), expected)
        for status, lines in product(
            (100, 103, 204, 304), ([], [b"Content-Length: 7"], [b"Transfer-Encoding: chunked"])
        ):
            parsed = parse_response_head(head(*lines, line=b"HTTP/1.1 %d x" % status))
            self.assertEqual(parsed.body(b"GET"), NOTHING)
            self.assertEqual(parsed.interim, status < 200)

    def test_two_ends(self) -> None:
        """A body that could end in two places, or nobody knows where, is the backend's error, whatever the status."""
        for line, *lines in [
            (b"HTTP/1.1 200 OK", b"Content-Length: 7", b"Content-Length: 8"),
            (b"HTTP/1.1 200 OK", b"Content-Length: 7", b"Content-Length: 07"),
            (b"HTTP/1.1 200 OK", b"Content-Length: 7, 8"),
            (b"HTTP/1.1 200 OK", b"Content-Length: 7,"),
            (b"HTTP/1.1 200 OK", b"Content-Length:"),
            (b"HTTP/1.1 200 OK", b"Content-Length: -1"),
            (b"HTTP/1.1 200 OK", b"Content-Length: +1"),
            (b"HTTP/1.1 200 OK", b"Content-Length: 1 0"),
            (b"HTTP/1.1 200 OK", b"Content-Length: 0x7"),
            (b"HTTP/1.1 200 OK", b"Content-Length: 1_0"),
            (b"HTTP/1.1 200 OK", b"Content-Length: 7;"),
            (b"HTTP/1.1 200 OK", b"Content-Length: \xb2"),
            (b"HTTP/1.1 200 OK", b"Content-Length: " + b"9" * 19),
            (b"HTTP/1.1 200 OK", b"Content-Length: 7", b"Transfer-Encoding: chunked"),
            (b"HTTP/1.1 204 OK", b"Content-Length: 0", b"Transfer-Encoding: chunked"),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: gzip"),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: identity"),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: gzip, chunked"),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked, chunked"),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked;a=b"),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked,"),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: xchunked"),
            (b"HTTP/1.1 200 OK", b'Transfer-Encoding: "chunked"'),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"HTTP/1.1 200 OK", b"Transfer-Encoding:"),
            (b"HTTP/1.1 304 OK", b"Transfer-Encoding: gzip"),
            (b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked"),
        ]:
            self.assertRaises(BackendProtocolError, parse_response_head, head(*lines, line=line))

    def test_keeps_alive(self) -> None:
        """A connection carries another response if nobody announced its end, and it is sure where this one ends."""
        length = b"Content-Length: 7"
        for line, lines, expected in [
            (b"HTTP/1.1 200 OK", [length], True),
            (b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], True),
            (b"HTTP/1.1 200 OK", [length, b"Connection: Keep-Alive"], True),
            (b"HTTP/1.1 200 OK", [length, b"Connection: CLOSE"], False),
            (b"HTTP/1.1 200 OK", [length, b"Connection: x, Close ,"], False),
            (b"HTTP/1.1 200 OK", [length, b"Connection: x", b"connection: close"], False),
            (b"HTTP/1.1 200 OK", [], False),
            (b"HTTP/1.0 200 OK", [length, b"Connection: keep-alive"], False),
            (b"HTTP/1.1 204 OK", [], False),
            (b"HTTP/1.1 204 OK", [b"Content-Length: 0"], False),
            (b"HTTP/1.1 204 OK", [length], False),
            (b"HTTP/1.1 204 OK", [b"Transfer-Encoding: chunked"], False),
            (b"HTTP/1.1 304 OK", [], False),
            (b"HTTP/1.1 304 OK", [length], False),
            (b"HTTP/1.1 304 OK", [b"Transfer-Encoding: chunked"], False),
            (b"HTTP/1.1 100 OK", [], True),
            (b"HTTP/1.1 100 OK", [b"Connection: close"], False),
        ]:
            self.assertEqual(
                parse_response_head(head(*lines, line=line)).keeps_alive, expected, (line, lines)
            )


class TwistedTests(SynchronousTestCase):
    """Twisted's client, which reads the same bytes."""

    def ask(self, method: bytes, data: bytes) -> tuple[IResponse, StringTransport, Deferred[bytes]]:
        """What Twisted makes of a response."""
        reactor = MemoryReactorClock()
        asked = ProxyAgent(TCP4ClientEndpoint(reactor, "127.0.0.1", 1), reactor).request(method, b"/")
        client = reactor.tcpClients[0][2].buildProtocol(None)
        transport = StringTransport()
        client.makeConnection(transport)
        client.dataReceived(data)
        response = self.successResultOf(asked)
        return response, transport, readBody(response)

    def test_same_end(self) -> None:
        """Whatever is not refused has the same end for Twisted's client: its length, chunks, or the connection."""
        suspicious = [
            b"Content-Length: 3",
            b"Content-Length: 5",
            b"content-LENGTH:\t3 ",
            b"Content-Length: 3, 3",
            b"Content-Length: 3,5",
            b"Content-Length: 03",
            b"Content-Length : 5",
            b"Content-Length: 3\r\n ,5",
            b"X: y\r\n Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: CHUNKED",
            b"Transfer-Encoding:\tchunked ",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding\t: chunked",
            b"Connection: close, Content-Length, Transfer-Encoding",
            b"Trailer: Content-Length",
        ]
        chunks = b"3\r\nabc\r\n0\r\n\r\n"
        accepted = 0
        lines = [
            b"HTTP/1.1 200 OK",
            b"HTTP/1.0 200 OK",
            b"HTTP/1.1 204 OK",
            b"HTTP/1.1 304 OK",
            b"HTTP/1.1 206",
        ]
        fields = [(), *combinations(suspicious, 1), *combinations(suspicious, 2)]
        for line, few, method in product(lines, fields, (b"GET", b"HEAD")):
            data = head(*few, line=line)
            try:
                parsed = parse_response_head(data)
            except BackendProtocolError:
                continue
            accepted += 1
            expected = parsed.body(method)
            response, _, body = self.ask(method, data + (b"" if expected == NOTHING else chunks))
            if expected == NOTHING:
                self.assertEqual((response.length, self.successResultOf(body)), (0, b""))
            elif expected.chunked:
                self.assertEqual((response.length, self.successResultOf(body)), (UNKNOWN_LENGTH, b"abc"))
            elif expected.length is not None:
                self.assertEqual(response.length, expected.length)
                self.assertEqual(self.successResultOf(body), chunks[: expected.length])
            else:
                self.assertEqual(response.length, UNKNOWN_LENGTH)
                self.assertNoResult(body)
        self.assertGreater(accepted, 100)
