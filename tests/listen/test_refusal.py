"""Tests for L{thrtwisted.listen.refusal}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.errors import BadRequest
from thrtwisted.listen.refusal import LINE, Asked, asked, head_bytes, refusal


class AskedTests(SynchronousTestCase):
    """Tests for L{asked}."""

    def test_lines(self) -> None:
        """The request line is split as well as it can be, whatever it is."""
        for data, wanted in (
            (b"", (b"-", b"-", b"-")),
            (b"\r\n\r\n", (b"-", b"-", b"-")),
            (b"\r\nGET / HTTP/1.1\r\nHost", (b"GET", b"/", b"HTTP/1.1")),
            (b"GET /a b HTTP/1.1", (b"GET", b"/a b", b"HTTP/1.1")),
            (b"GET /", (b"GET", b"/", b"-")),
            (b"GET", (b"GET", b"-", b"-")),
            (b" / HTTP/1.1", (b"-", b"/", b"HTTP/1.1")),
            (b"\x16\x03\x01", (b"\x16\x03\x01", b"-", b"-")),
        ):
            found = asked(bytearray(data))
            self.assertEqual((found.method, found.target, found.version), wanted, data)

    def test_long(self) -> None:
        """Of a long line so much is told."""
        self.assertEqual(len(asked(b"GET /" + b"x" * 10_000).target), LINE - 4)

    def test_headers(self) -> None:
        """Of the headers those that matter for the answer and the log are taken, well-formed or not."""
        found = asked(b"GET / HTTP/1.1\r\nAccept:  a/b \r\nbroken\r\nHost: h\r\nReferer:x")
        self.assertEqual(
            sorted(found.headers.getAllRawHeaders()), [(b"Accept", [b"a/b"]), (b"Referer", [b"x"])]
        )


class RefusalTests(SynchronousTestCase):
    """Tests for L{refusal}."""

    def test_answer(self) -> None:
        """It says why, and that the connection ends."""
        answer, size = refusal(BadRequest("No."), Asked())
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertEqual((body, size), (b"No.\n", 4))
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"HTTP/1.1 400 Bad Request")
        self.assertIn(b"Connection: close", lines)
        self.assertIn(b"Content-Length: 4", lines)
        self.assertIn(b'Proxy-Status: thrtwisted; error=http_request_error; details="No."', lines)

    def test_head(self) -> None:
        """A HEAD request is told the same without a body."""
        answer, size = refusal(BadRequest("No."), Asked(b"HEAD"))
        self.assertEqual(size, 0)
        self.assertTrue(answer.endswith(b"\r\n\r\n"))
        self.assertIn(b"Content-Length: 4\r\n", answer)

    def test_json(self) -> None:
        """It has the form that the client prefers."""
        headers = Headers({b"Accept": [b"text/plain;q=0.5", b"application/json"]})
        answer, _ = refusal(BadRequest("No."), Asked(headers=headers))
        self.assertIn(b'"message": "No."', answer)


class HeadBytesTests(SynchronousTestCase):
    """Tests for L{head_bytes}."""

    def test_head(self) -> None:
        """A status line and the fields, each value in a line of its own."""
        self.assertEqual(
            head_bytes(b"HTTP/1.0", b"200", b"Fine", Headers({b"X-A": [b"1", b"\xff"]})),
            b"HTTP/1.0 200 Fine\r\nX-A: 1\r\nX-A: \xff\r\n\r\n",
        )
        self.assertEqual(head_bytes(b"HTTP/1.1", b"204", b"", Headers()), b"HTTP/1.1 204 \r\n\r\n")
