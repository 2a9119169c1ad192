"""Tests for L{thrtwisted.listen.head}."""

from __future__ import annotations

from collections.abc import Iterable
from time import process_time

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.config import Bounds
from thrtwisted.errors import (
    BadRequest,
    BodyTooLarge,
    CodingNotImplemented,
    ExchangeError,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotImplemented,
    TargetTooLong,
    VersionNotSupported,
)
from thrtwisted.listen.head import METHOD_LENGTH, RequestHead, end_of_head, overflow, parse_head

BOUNDS = Bounds()
#: For properties: all of them can be reached by short texts.
SMALL = Bounds(head_size=256, header_count=3, target_length=16, body_size=100)
#: Pieces of which a head can be made, or what nearly is one.
PIECES = [
    *(b"GET", b"OPTIONS", b"CONNECT", b" ", b"\t", b"/", b"*", b"http://h", b"https://u@h:1", b"#"),
    *(b" HTTP/1.1", b" HTTP/1.0"),
    *(b" HTTP/2.0", b"GET / HTTP/1.1\r\nHost: h", b"POST /p HTTP/1.1", b"\r\nHost: h", b"\r\nHost: h, i"),
    *(b"\r\nContent-Length: ",),
    *(b"5", b"+5", b"999", b"\r\nTransfer-Encoding: chunked", b",", b";", b"chunked", b"gzip"),
    *(b"\r\nConnection: close", b"\r\nX: y"),
    *(b"\r\nExpect: 100-continue", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\0", b"\x0b", b"\xe9", b"a"),
    *(b"a" * 20, b"a" * 250, b":"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)


def head(*lines: bytes, bounds: Bounds = BOUNDS) -> RequestHead:
    """The head of these lines."""
    return parse_head(b"\r\n".join(lines), bounds)


def with_fields(*fields: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> RequestHead:
    """A head with a Host and these fields."""
    return head(method + b" / " + version, b"Host: h", *fields)


class HeadTestCase(SynchronousTestCase):
    """Can say what is refused."""

    def assert_refused(self, kind: type[ExchangeError], *lines: bytes, bounds: Bounds = BOUNDS) -> None:
        """These lines are refused, with a message that is a sentence for everybody."""
        try:
            accepted = head(*lines, bounds=bounds)
        except ExchangeError as error:
            self.assertIs(type(error), kind, (lines, error))
            self.assertRegex(str(error), r"^[A-Z][ -~]*\.$")
        else:
            self.fail(f"{lines} was accepted: {accepted}")


class RequestLineTests(HeadTestCase):
    """Methods, targets and versions."""

    def test_accepted(self) -> None:
        """What was sent is what is read."""
        for method, target, version in [
            (b"GET", b"/", b"HTTP/1.1"),
            (b"get", b"/", b"HTTP/1.0"),
            (b"M-SEARCH", b"/a%2Fb//c/../?", b"HTTP/1.1"),
            (b"!#$%&'*+.^_`|~09", b"//x:y/?http://other/", b"HTTP/1.1"),
            (b"PUT", b'/[x]{y}|\\^`<>"', b"HTTP/1.1"),
            (b"OPTIONS", b"*", b"HTTP/1.1"),
            (b"OPTIONS", b"http://a", b"HTTP/1.1"),
            (b"GET", b"http://a/p?q", b"HTTP/1.1"),
            (b"GET", b"HTTPS://A.example:443?q@x", b"HTTP/1.0"),
            (b"GET", b"http://[::1]:80/p", b"HTTP/1.1"),
            (b"GET", b"http://127.0.0.1:/", b"HTTP/1.1"),
            (b"x" * METHOD_LENGTH, b"/" + b"a" * (BOUNDS.target_length - 1), b"HTTP/1.1"),
        ]:
            read = head(b" ".join((method, target, version)), b"Host: h")
            self.assertEqual((read.method, read.target, read.version), (method, target, version))

    def test_lines_refused(self) -> None:
        """A request line is a method, a target and a version, with one space between them."""
        for line in [
            *(b"", b" ", b"GET", b"GET /", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 "),
            *(b" GET / HTTP/1.1",),
            *(b"GET\t/\tHTTP/1.1", b"GET / a HTTP/1.1", b"GET /\tHTTP/1.1", b"GET/ HTTP/1.1"),
            *(b"GET /HTTP/1.1", b"/ HTTP/1.1"),
            *(b"G\0T / HTTP/1.1", b"G:T / HTTP/1.1", b"G\xc9T / HTTP/1.1", b"(GET) / HTTP/1.1"),
            *(b'"GET" / HTTP/1.1',),
            *(b"GET / HTTP/1.1\rX: y", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\0", b"\nGET / HTTP/1.1"),
            *(b"\rGET / HTTP/1.1",),
            *(b"GET /\xa0HTTP/1.1", b"GET\x0b/ HTTP/1.1", b"GET / \x0cHTTP/1.1"),
            *(b"\xef\xbb\xbfGET / HTTP/1.1",),
            *(b"GET / HTTP/1", b"GET / HTTP/1.", b"GET / HTTP/11", b"GET / HTTP/1.10", b"GET / HTTP/01.1"),
            *(b"GET / HTTP/1,1",),
            *(b"GET / http/1.1", b"GET / Http/1.1", b"GET / HTTPS/1.1", b"GET / HTTP/ 1.1"),
            *(b"GET / HTTP/+1.1", b"GET / ICY/1.1"),
            *(b"GET / HTTP/1.1\xe9", b"GET / HTTP/x.1", b"HTTP/1.1 200 OK", b"SSH-2.0-OpenSSH_9.2"),
            *(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2",),
        ]:
            self.assert_refused(BadRequest, line, b"Host: h")

    def test_versions_refused(self) -> None:
        """Other versions than 1.1 and 1.0 are not spoken; so begins HTTP/2, too."""
        for version in (
            b"HTTP/0.9",
            b"HTTP/1.2",
            b"HTTP/1.9",
            b"HTTP/2.0",
            b"HTTP/3.0",
            b"HTTP/0.0",
            b"HTTP/9.9",
        ):
            self.assert_refused(VersionNotSupported, b"GET / " + version, b"Host: h")
        self.assert_refused(VersionNotSupported, b"PRI * HTTP/2.0")

    def test_targets_refused(self) -> None:
        """A target is a path, an http URL with a host, or for OPTIONS an asterisk."""
        for target in [
            *(b"path", b"host:443", b"?q", b"*", b"**", b"*/", b".", b"\\", b"%2F", b"/#", b"/a#b", b"/?a#b"),
            *(b"http://h/#",),
            *(b"/\xe9", b"/\x7f", b"/\x01", b"/a\0b", b"/\x80", b"/caf\xc3\xa9"),
            *(b"http:", b"http:/", b"http:/h/", b"http://", b"http:///p", b"http://:80/", b"http://?q"),
            *(b"http:h", b"//\x00"),
            *(b"ftp://h/", b"ws://h/", b"file:///etc", b"httpx://h/", b"javascript:x", b"urn:a"),
            *(b"http://u@h/", b"http://u:p@h/", b"http://@h/", b"http://u@/", b"http://h@:80/"),
            *(b"http://h:80@i/",),
            *(b"http://h:/\x00", b"http://h:x/", b"http://h:65536/", b"http://h:-1/", b"http://h:80:80/"),
            *(b"http://a,b/", b"http://h%61/"),
            *(b"http://[::1/", b"http://[::1]x/", b"http://[x]/", b"http://::1/", b"http://h\\/"),
            *(b"http://h\\@i/", b"http://<h>/"),
        ]:
            self.assert_refused(BadRequest, b"GET " + target + b" HTTP/1.1", b"Host: h")

    def test_methods_refused(self) -> None:
        """CONNECT cannot be forwarded, and no method is longer than any that there is."""
        for line in (b"CONNECT h:443", b"CONNECT /", b"CONNECT *", b"x" * (METHOD_LENGTH + 1) + b" /"):
            self.assert_refused(MethodNotImplemented, line + b" HTTP/1.1", b"Host: h")
        for line in (
            b"x" * 9000 + b" / HTTP/1.1",
            b"x" * 40_000,
            b"x" * (METHOD_LENGTH + 1) + b" /" + b"a" * 9000,
        ):
            self.assert_refused(MethodNotImplemented, line, b"Host: h")

    def test_target_length(self) -> None:
        """A target has a bound, whatever follows it."""
        bounds = Bounds(target_length=100)
        line = b"GET /%b HTTP/1.1"
        self.assertEqual(len(head(line % (b"a" * 99), b"Host: h", bounds=bounds).target), 100)
        for length in (100, 200, 100_000):
            self.assert_refused(TargetTooLong, line % (b"a" * length), b"Host: h", bounds=bounds)
        self.assert_refused(TargetTooLong, b"GET " * 100, bounds=bounds)
        self.assert_refused(TargetTooLong, b"x " * 20_000)
        self.assert_refused(
            TargetTooLong, b"x" * METHOD_LENGTH + b" /" + b"a" * 100 + b" HTTP/1.1", bounds=bounds
        )

    def test_empty_line(self) -> None:
        """One empty line before the request line is skipped, and no more."""
        self.assertEqual(head(b"", b"GET / HTTP/1.1", b"Host: h").target, b"/")
        self.assert_refused(BadRequest, b"", b"", b"GET / HTTP/1.1", b"Host: h")
        self.assert_refused(BadRequest, b"", b"")
        self.assert_refused(BadRequest, b" ", b"GET / HTTP/1.1", b"Host: h")


class FieldsTests(HeadTestCase):
    """Header fields, and what they say of the connection."""

    def test_bytes(self) -> None:
        """Values are the same bytes, without the blanks around them; several of one name stay several."""
        value = bytes(range(0x80, 0x100)) + b'\t "a", b;'
        read = with_fields(b"X:\t" + value + b" ", b"x: ", b"X:1").headers
        self.assertEqual(read.getRawHeaders(b"x"), [value.rstrip(b" "), b"", b"1"])

    def test_refused(self) -> None:
        """One line that is no field refuses the whole."""
        for line in [
            *(b"", b"X", b": y", b"X : y", b"X\t: y", b" X: y", b"\tX: y", b"X y: z", b"X\0: y", b"X: \0"),
            *(b"X: y\rZ: a",),
            *(b"X: y\nZ: a", b"X: y\r", b"X: y\n", b"X\xe9: y", b"X: \x0b", b"X: \x7f", b"X(Y): z"),
            *(b"GET / HTTP/1.1",),
            *(b"Content-Length : 5", b"Transfer-Encoding\t: chunked", b"\rHost: h", b"\nHost: h"),
            *(b"a" * 257 + b": b",),
        ]:
            for lines in ([line, b"X: y"], [b"X: y", line], [b"X: y", line, b"Y: z"]):
                self.assert_refused(BadRequest, b"GET / HTTP/1.1", b"Host: h", *lines)
        self.assert_refused(BadRequest, b"GET / HTTP/1.1", b" Host: h", b"Host: h")

    def test_host(self) -> None:
        """There is one, and it is a host with or without a port; only HTTP/1.0 may be without. It may be empty."""
        for value in (b"", b"h", b"H.example:8080", b"[::1]:80", b"a_b", b"h:", b"*"):
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                read = head(b"GET / " + version, b"Host: " + value)
                self.assertEqual(read.headers.getRawHeaders(b"host"), [value])
        self.assertIsNone(head(b"GET / HTTP/1.0").headers.getRawHeaders(b"host"))
        self.assert_refused(BadRequest, b"GET / HTTP/1.1")
        self.assert_refused(BadRequest, b"GET http://h/ HTTP/1.1")
        for version in (b"HTTP/1.1", b"HTTP/1.0"):
            for value in [
                *(b"a b", b"a\tb", b"a,b", b"a, b", b"u@h", b"h/", b"h/p", b"http://h", b"h:x", b"h:65536"),
                *(b":80", b"h?q", b"h#f", b"[::1", b"::1", b"[x]", b"h\xe9", b"h\\", b'h;"', b"h:80, h:80"),
                *(b"h\x0b", b"h\0", b"h%61"),
            ]:
                self.assert_refused(BadRequest, b"GET / " + version, b"Host: " + value)
            for other in (b"h", b"i", b""):
                self.assert_refused(BadRequest, b"GET / " + version, b"Host: h", b"X: y", b"host: " + other)
                self.assert_refused(BadRequest, b"GET http://h/ " + version, b"Host: h", b"HOST:" + other)

    def test_keeps_alive(self) -> None:
        """The connection goes on unless one of all Connection fields says close, or in HTTP/1.0."""
        for fields, wanted in [
            ([], True),
            ([b"Connection: keep-alive"], True),
            ([b"Connection: close"], False),
            ([b"Connection: CLOSE"], False),
            ([b"Connection: keep-alive,Close"], False),
            ([b"Connection: X-A", b"X: y", b"connection: X-B ,\tclose\t, X-C"], False),
            ([b"Connection: closed, X-close"], True),
            ([b"Connection:"], True),
            ([b"Connection: , ,"], True),
            ([b"Proxy-Connection: close"], True),
        ]:
            self.assertEqual(with_fields(*fields).keeps_alive, wanted, fields)
            self.assertFalse(with_fields(*fields, version=b"HTTP/1.0").keeps_alive)
        for value in (b"close x", b'"close"', b"close;", b"\xe9"):
            self.assert_refused(BadRequest, b"GET / HTTP/1.1", b"Host: h", b"Connection: " + value)

    def test_expects(self) -> None:
        """Who expects 100-continue waits for it, if a body follows; nothing else can be expected."""
        for fields, version, wanted in [
            ([], b"HTTP/1.1", False),
            ([b"Content-Length: 5"], b"HTTP/1.1", False),
            ([b"Content-Length: 5", b"Expect: 100-continue"], b"HTTP/1.1", True),
            ([b"Transfer-Encoding: chunked", b"expect: 100-Continue"], b"HTTP/1.1", True),
            ([b"Content-Length: 5", b"Expect: 100-continue, 100-continue"], b"HTTP/1.1", True),
            ([b"Content-Length: 5", b"Expect: 100-continue"], b"HTTP/1.0", False),
            ([b"Content-Length: 0", b"Expect: 100-continue"], b"HTTP/1.1", False),
            ([b"Expect: 100-continue"], b"HTTP/1.1", False),
            ([b"Content-Length: 5", b"Expect:"], b"HTTP/1.1", False),
        ]:
            self.assertIs(with_fields(*fields, version=version).expects, wanted, fields)
        for values in (
            [b"tea"],
            [b"100-continue=1"],
            [b"100-continue, tea"],
            [b"100-continue", b"tea"],
            [b"100"],
        ):
            fields = [b"Expect: " + value for value in values]
            self.assert_refused(
                ExpectationFailed, b"POST / HTTP/1.1", b"Host: h", b"Content-Length: 5", *fields
            )

    def test_bounds(self) -> None:
        """The number of fields and the size of all has a bound."""
        bounds = Bounds(header_count=3, head_size=300)
        lines = [b"GET / HTTP/1.1", b"Host: h", b"X: y"]
        self.assertEqual(head(*lines, b"Y: z", bounds=bounds).target, b"/")
        self.assert_refused(HeadTooLarge, *lines, b"Y: z", b"Z: a", bounds=bounds)
        room = 300 - len(b"\r\n".join(lines)) - len(b"\r\nY: ")
        self.assertEqual(head(*lines, b"Y: " + b"z" * room, bounds=bounds).target, b"/")
        self.assert_refused(HeadTooLarge, *lines, b"Y: " + b"z" * (room + 1), bounds=bounds)
        self.assert_refused(HeadTooLarge, *lines, *[b"X: y"] * 100)


class FramingTests(HeadTestCase):
    """Where a body ends."""

    def test_lengths(self) -> None:
        """A body has the length that one Content-Length says, or comes in chunks, or there is none."""
        for fields, version, wanted in [
            ([], b"HTTP/1.1", 0),
            ([], b"HTTP/1.0", 0),
            ([b"Content-Length: 0"], b"HTTP/1.1", 0),
            ([b"content-length:5"], b"HTTP/1.0", 5),
            ([b"Content-Length: \t0005\t "], b"HTTP/1.1", 5),
            ([b"Transfer-Encoding: chunked"], b"HTTP/1.1", None),
            ([b"transfer-encoding:\tChunKED "], b"HTTP/1.1", None),
        ]:
            for method in (b"POST", b"GET", b"HEAD", b"DELETE"):
                self.assertEqual(with_fields(*fields, method=method, version=version).length, wanted)

    def test_lengths_refused(self) -> None:
        """What two parsers could read as two lengths is refused."""
        for value in [
            *(b"", b"+5", b"-5", b"5 5", b"5,5", b"5, 5", b"5;", b"0x5", b"5_0", b"5.0", b"five", b"\xb2"),
            *(b"5\x0b", b"5\0"),
            *(b"9" * 19, b"0" * 19, b"9" * 30_000, b'"5"', b"(5)", b"=5", b"5\r", b"\x0c5", b"5\xa0"),
        ]:
            self.assert_refused(BadRequest, b"POST / HTTP/1.1", b"Host: h", b"Content-Length: " + value)
        for other in (b"5", b"6", b"", b"0"):
            fields = [b"Content-Length: 5", b"X: y", b"content-LENGTH: " + other]
            self.assert_refused(BadRequest, b"POST / HTTP/1.1", b"Host: h", *fields)

    def test_codings_refused(self) -> None:
        """Only chunked is known; and it must be there once, in one field, and be the last."""
        for value, kind in [
            (b"gzip", CodingNotImplemented),
            (b"identity", CodingNotImplemented),
            (b"gzip, chunked", CodingNotImplemented),
            (b"gzip;q=1, chunked", CodingNotImplemented),
            (b"xchunked", CodingNotImplemented),
            (b"chunked, chunked", BadRequest),
            (b"chunked, gzip", BadRequest),
            (b"chunked, identity", BadRequest),
            (b"gzip, chunked, chunked", BadRequest),
            (b"chunked;q=1", BadRequest),
            (b"chunked ;q=1", BadRequest),
            (b"chunked;", BadRequest),
            (b"chunked;a, gzip", BadRequest),
            (b"", BadRequest),
            (b",", BadRequest),
            (b"chunked,", BadRequest),
            (b", chunked", BadRequest),
            (b"gzip,,chunked", BadRequest),
            (b'"chunked"', BadRequest),
            (b"chunked chunked", BadRequest),
            (b"chunked\x0b", BadRequest),
            (b"\x0bchunked", BadRequest),
            (b"chunked\0", BadRequest),
            (b"chun\xe9ed", BadRequest),
            (b"\xa0chunked", BadRequest),
            (b"=chunked", BadRequest),
            (b"[chunked]", BadRequest),
        ]:
            lines = [b"POST / HTTP/1.1", b"Host: h", b"Transfer-Encoding: " + value]
            self.assert_refused(kind, *lines)
        for values, kind in [
            ((b"chunked", b"chunked"), BadRequest),
            ((b"chunked", b""), BadRequest),
            ((b"", b"chunked"), BadRequest),
            ((b"chunked", b"gzip"), BadRequest),
            ((b"chunked", b"identity"), BadRequest),
            ((b"gzip", b"chunked"), CodingNotImplemented),
        ]:
            fields = [b"Transfer-Encoding: " + value for value in values]
            self.assert_refused(kind, b"POST / HTTP/1.1", b"Host: h", *fields)

    def test_both_refused(self) -> None:
        """A length beside a coding is refused, be it zero, and so is a coding in HTTP/1.0."""
        coding = b"Transfer-Encoding: chunked"
        for length in (b"5", b"0", b"", b"x"):
            for fields in ([coding, b"Content-Length: " + length], [b"Content-Length: " + length, coding]):
                self.assert_refused(BadRequest, b"POST / HTTP/1.1", b"Host: h", *fields)
        for value in (b"chunked", b"gzip", b""):
            fields = [b"Host: h", b"Transfer-Encoding: " + value]
            self.assert_refused(BadRequest, b"POST / HTTP/1.0", *fields)

    def test_body_size(self) -> None:
        """A body that is announced to be too large is refused at once."""
        bounds = Bounds(body_size=100)
        lines = [b"POST / HTTP/1.1", b"Host: h"]
        self.assertEqual(head(*lines, b"Content-Length: 100", bounds=bounds).length, 100)
        for length in (b"101", b"9" * 18):
            self.assert_refused(BodyTooLarge, *lines, b"Content-Length: " + length, bounds=bounds)


def received(pieces: Iterable[bytes], bounds: Bounds) -> tuple[str, object]:
    """What becomes of these pieces, as they come: a request and what follows it, a refusal, or nothing yet."""
    buffer = bytearray()
    for piece in pieces:
        start = len(buffer)
        buffer += piece
        end = end_of_head(buffer, start)
        if end >= 0:
            try:
                return "head", parse_head(bytes(buffer[: end - 4]), bounds)
            except ExchangeError:
                return "refused", None
        if overflow(buffer, bounds, start) is not None:
            return "refused", None
    return "waits", None


def in_pieces(text: bytes, size: int = 1) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


class ArrivalTests(HeadTestCase):
    """Tests for L{end_of_head} and L{overflow}."""

    def test_end(self) -> None:
        """The end is found however it is cut, and nothing is looked at twice."""
        text = b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nrest\r\n\r\n"
        end = text.index(b"rest")
        self.assertEqual(end_of_head(bytearray(text)), end)
        for start in range(end):
            self.assertEqual(end_of_head(bytearray(text[: end - 1]), start), -1)
            self.assertEqual(end_of_head(bytearray(text), start), end)

    def refusal(self, *pieces: bytes, bounds: Bounds = BOUNDS) -> type[ExchangeError] | None:
        """Why what has come is refused, after the last piece and not before."""
        buffer = bytearray()
        why = None
        for piece in pieces:
            self.assertIsNone(why, piece)
            why = overflow(buffer + piece, bounds, len(buffer))
            buffer += piece
        return None if why is None else type(why)

    def test_at_once(self) -> None:
        """What cannot become a request is refused as soon as that is known."""
        for pieces, kind in [
            ((b"",), None),
            ((b"G", b"E", b"T", b" ", b"/"), None),
            ((b"\r", b"\n", b"GET / HTTP/1.1", b"\r"), None),
            ((b"GET / HTTP/1.1\r", b"\n", b"X", b"\r\n"), None),
            ((b"\x16\x03\x01\x02\x00\x01",), BadRequest),
            ((b"\x80\x2e\x01",), BadRequest),
            ((b"GET /", b"\r\n"), BadRequest),
            ((b"GET /", b"\r", b"\n"), BadRequest),
            ((b"\r\nGET /", b"\r\n"), BadRequest),
            ((b"SSH-2.0-x\r\n",), BadRequest),
            ((b"GET / HTTP/1.1", b"\n"), BadRequest),
            ((b"GET / HTTP/1.1\r", b"X"), BadRequest),
            ((b"GET / HTTP/1.1\r\nX: ", b"\0"), BadRequest),
            ((b"GET / HTTP/1.1\r\nX: y", b"\n"), BadRequest),
            ((b"PRI * HTTP/2.0", b"\r\n"), VersionNotSupported),
            ((b"CONNECT h:1 HTTP/1.1\r\n",), MethodNotImplemented),
        ]:
            self.assertIs(self.refusal(*pieces), kind, pieces)

    def test_too_much(self) -> None:
        """A target and a head that end nowhere are refused at their bounds."""
        bounds = Bounds(target_length=100, head_size=1000)
        longest = METHOD_LENGTH + 100 + len(b"  HTTP/1.1")
        for begin, line, kind in (
            (b"", b"GET /", TargetTooLong),
            (b"\r\n", b"a" * METHOD_LENGTH + b" /", TargetTooLong),
            (b"", b"a", MethodNotImplemented),
            (b"\r\n", b"a" * (METHOD_LENGTH + 1) + b" /", MethodNotImplemented),
        ):
            line = line.ljust(longest + 1, b"a")
            self.assertIsNone(self.refusal(begin + line, bounds=bounds))
            self.assertIs(self.refusal(begin + line + b"a", bounds=bounds), kind)
            self.assertIs(self.refusal(*in_pieces(begin + line + b"a"), bounds=bounds), kind)
        begun = b"GET / HTTP/1.1\r\nX: "
        rest = b"a" * (1003 - len(begun))
        self.assertIsNone(self.refusal(begun, rest, bounds=bounds))
        self.assertIs(self.refusal(begun, rest, b"a", bounds=bounds), HeadTooLarge)

    @settings(deadline=None)
    @given(TEXTS | st.binary(max_size=40), st.data())
    @example(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"a" * 15), None)
    @example(b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % (b"a" * 228), None)
    @example(b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % (b"a" * 229), None)
    def test_however_cut(self, text: bytes, data: st.DataObject | None) -> None:
        """In whatever pieces a head comes, it is read alike, or refused alike."""
        for ending in (b"", b"\r\n\r\n"):
            whole = received([text + ending], SMALL)
            self.assertEqual(received(in_pieces(text + ending), SMALL), whole)
            if data is not None:
                cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
                pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
                self.assertEqual(received([*pieces, ending], SMALL), whole)

    @settings(deadline=None)
    @given(TEXTS | st.binary())
    def test_anything(self, text: bytes) -> None:
        """Whatever comes is a request or a refusal, which has a status and a message for the client."""
        try:
            read = parse_head(text, SMALL)
        except ExchangeError as error:
            self.assertIn(error.status, {400, 413, 414, 417, 431, 501, 505})
            self.assertRegex(str(error), r"^[A-Z][ -~]*\.$")
        else:
            self.assertLessEqual(len(read.target), 16)
            self.assertLessEqual(len(list(read.headers.getAllRawHeaders())), 3)
            self.assertTrue(read.length is None or 0 <= read.length <= 100)
            self.assertIn(read.version, {b"HTTP/1.1", b"HTTP/1.0"})
            self.assertNotIn(b" ", read.method + read.target)

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.text("abcdefghijklmnopqrstuvwxyz-!~", min_size=1).map(lambda name: b"X-" + name.encode()),
            st.binary().map(
                lambda value: bytes(octet | 0x20 for octet in value).replace(b"\x7f", b"").strip()
            ),
            max_size=20,
        )
    )
    def test_honest(self, fields: dict[bytes, bytes]) -> None:
        """What an honest client sends is what is read."""
        read = with_fields(*(name + b": " + value for name, value in fields.items()), method=b"GET")
        for name, value in fields.items():
            self.assertEqual(read.headers.getRawHeaders(name), [value])


class CostTests(HeadTestCase):
    """What a client can make the proxy compute."""

    def seconds(self, text: bytes, size: int) -> float:
        """Of the processor's time, for this text in such pieces."""
        bounds = Bounds(head_size=2**20, target_length=2**20)
        pieces = in_pieces(text, size)
        times = []
        for _ in range(3):
            start = process_time()
            received(pieces, bounds)
            times.append(process_time() - start)
        return min(times)

    def test_trickle(self) -> None:
        """Eight times as much, byte by byte, takes about eight times as long; not 64 times, as quadratic cost would."""
        line = b"GET / HTTP/1.1\r\n"
        for begun, unit in [
            (b"", b"a"),
            (line, b"a"),
            (line, b"X:\r\n"),
            (line, b"X: " + b"y" * 50 + b"\r\n"),
        ]:
            few, many = (self.seconds(begun + (unit * size)[:size], 1) for size in (4_000, 32_000))
            self.assertLess(many, 30 * few, unit)

    def test_large(self) -> None:
        """A head of the largest size is read, or refused, in a time that grows as it does."""
        line, end = b"GET / HTTP/1.1\r\nHost: h\r\n", b"\r\n\r\n"
        for begun, unit in [
            (line, b"X:\r\n"),
            (line, b"\r"),
            (line, b"a"),
            (line + b"X:", b" "),
            (line + b"Connection:", b"a,"),
            (line + b"Transfer-Encoding:", b"a,"),
            (line + b"Expect:", b", "),
            (line + b"Content-Length:", b"1"),
            (b"GET http://", b"a@"),
            (b"GET /", b"a "),
        ]:
            few, many = (self.seconds(begun + unit * size + end, 2**20) for size in (8_000, 64_000))
            self.assertLess(many, 30 * few + 0.001, unit)
