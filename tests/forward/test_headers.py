"""Tests of what of a head is passed on."""

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.errors import BackendProtocolError, BadRequest
from thrtwisted.forward.headers import (
    announces_body,
    check_request_line,
    end_to_end,
    origin_form,
    request_headers,
    response_head,
)


def pairs(headers: Headers) -> dict[bytes, list[bytes]]:
    return {name.lower(): list(values) for name, values in headers.getAllRawHeaders()}


class TargetTests(SynchronousTestCase):
    """Request targets."""

    def test_forms(self):
        """Paths and the asterisk stay as they are; an absolute target gives a path and a host."""
        for target, method, expected in [
            (b"/", b"GET", (b"/", None)),
            (b"/a%2Fb//c/?", b"GET", (b"/a%2Fb//c/?", None)),
            (b"//x:y/", b"GET", (b"//x:y/", None)),
            (b"/?http://other/", b"GET", (b"/?http://other/", None)),
            (b"*", b"OPTIONS", (b"*", None)),
            (b"http://host/path?q", b"GET", (b"/path?q", b"host")),
            (b"HTTP://Host:81/p", b"GET", (b"/p", b"Host:81")),
            (b"https://host", b"GET", (b"/", b"host")),
            (b"http://host?q", b"GET", (b"/?q", b"host")),
            (b"http://host", b"OPTIONS", (b"*", b"host")),
            (b"http://host/", b"OPTIONS", (b"/", b"host")),
            (b"http://user:word@host/p", b"GET", (b"/p", b"host")),
            (b"http://[::1]:80/p", b"GET", (b"/p", b"[::1]:80")),
        ]:
            self.assertEqual(origin_form(target, method), expected)

    def test_refused(self):
        """What is no target of an origin server is a bad request."""
        for target in [
            b"",
            b"path",
            b"host:443",
            b"ftp://host/",
            b"http:///p",
            b"http://:80/",
            b"http://u@/",
        ]:
            self.assertRaises(BadRequest, origin_form, target)

    def test_request_line(self):
        """Methods are tokens other than CONNECT, targets printable ASCII."""
        for method in [b"GET", b"get", b"M-SEARCH", b"!#$%&'*+.^_`|~09"]:
            check_request_line(method, b'/[x]{y}|\\^`<>"')
        for method, target in [
            (b"CONNECT", b"/"),
            (b"", b"/"),
            (b"G T", b"/"),
            (b"G\xc9T", b"/"),
            (b"GET", b""),
            (b"GET", b"/a b"),
            (b"GET", b"/\xe9"),
            (b"GET", b"/\x00"),
            (b"GET", b"/\r\nX: y"),
        ]:
            self.assertRaises(BadRequest, check_request_line, method, target)


class RequestHeadersTests(SynchronousTestCase):
    """The fields that the backend gets."""

    def test_hop_by_hop(self):
        """Fields of one hop go: the well-known ones, and what any Connection field names."""
        headers = Headers(
            {
                b"Host": [b"h"],
                b"Connection": [b"close, X-One", b"x-TWO ,,host"],
                b"X-One": [b"1"],
                b"X-Two": [b"2", b"2"],
                b"X-Three": [b"3", b"4"],
                b"Keep-Alive": [b"5"],
                b"Proxy-Authenticate": [b"a"],
                b"Proxy-Authorization": [b"b"],
                b"Proxy-Connection": [b"keep-alive"],
                b"TE": [b"trailers"],
                b"Trailer": [b"X"],
                b"Transfer-Encoding": [b"chunked"],
                b"Upgrade": [b"h2c"],
            }
        )
        self.assertEqual(pairs(request_headers(headers, b"b")), {b"host": [b"h"], b"x-three": [b"3", b"4"]})
        self.assertTrue(headers.hasHeader(b"x-one"), "the exchange's own headers were changed")
        self.assertEqual(pairs(end_to_end(headers)), pairs(end_to_end(end_to_end(headers))))

    def test_framing(self):
        """Neither Content-Length nor an expectation that our server has met is copied; other expectations are."""
        for expect, kept in [(b"100-Continue", None), (b"tea", [b"tea"])]:
            headers = Headers({b"Host": [b"h"], b"Content-Length": [b"3"], b"Expect": [expect]})
            result = request_headers(headers, b"b")
            self.assertIsNone(result.getRawHeaders(b"content-length"))
            self.assertEqual(result.getRawHeaders(b"expect"), kept)

    def test_host(self):
        """The client's Host is sent, an empty one too; without one the backend's; never two."""
        for hosts, expected in [([b"h"], [b"h"]), ([b""], [b""]), ([], [b"backend:1"])]:
            headers = Headers({b"Host": hosts})
            self.assertEqual(request_headers(headers, b"backend:1").getRawHeaders(b"host"), expected)
        self.assertRaises(BadRequest, request_headers, Headers({b"Host": [b"a", b"a"]}), b"b")

    def test_bytes(self):
        """Bytes outside ASCII pass; a NUL is refused."""
        value = bytes(range(0x80, 0x100)) + b"\t\x7f"
        headers = Headers({b"Host": [b"h"], b"X": [value]})
        self.assertEqual(request_headers(headers, b"b").getRawHeaders(b"x"), [value])
        headers.setRawHeaders(b"x", [b"a\0b"])
        self.assertRaises(BadRequest, request_headers, headers, b"b")

    def test_announces_body(self):
        """A body is announced by its length or by chunks."""
        self.assertFalse(announces_body(Headers()))
        self.assertTrue(announces_body(Headers({b"content-length": [b"0"]})))
        self.assertTrue(announces_body(Headers({b"transfer-encoding": [b"chunked"]})))


class ResponseHeadTests(SynchronousTestCase):
    """The head that the client gets."""

    def head(self, fields, *, method=b"GET", status=200, phrase=b"OK", length=None):
        return response_head(method, status, phrase, Headers(fields), length)

    def test_fields(self):
        """Fields of one hop go, repeated ones stay repeated, bytes stay the same."""
        head = self.head(
            {
                b"Set-Cookie": [b"a=1, b", b"c=\xe9"],
                b"Connection": [b"X-Hop"],
                b"X-Hop": [b"1"],
                b"Proxy-Authenticate": [b"x"],
                b"Trailer": [b"x"],
                b"Content-Encoding": [b"gzip"],
            },
            phrase=b"Tr\xe8s bien",
        )
        self.assertEqual(
            pairs(head.headers), {b"set-cookie": [b"a=1, b", b"c=\xe9"], b"content-encoding": [b"gzip"]}
        )
        self.assertEqual((head.status, head.phrase, head.length), (200, b"Tr\xe8s bien", None))

    def test_length(self):
        """The length is that of the body, once; a response to HEAD has the backend's, 204 and 304 have none."""
        for method, status, fields, length, expected in [
            (b"GET", 200, {}, 3, (3, [b"3"])),
            (b"GET", 200, {}, 0, (0, [b"0"])),
            (b"GET", 200, {b"Content-Length": [b"3", b"3"]}, 3, (3, [b"3"])),
            (b"GET", 200, {}, None, (None, None)),
            (b"GET", 200, {b"Content-Length": [b"3"]}, None, (None, None)),
            (b"GET", 204, {}, 0, (None, None)),
            (b"GET", 304, {}, 0, (None, None)),
            (b"HEAD", 200, {b"Content-Length": [b"7"]}, 0, (7, [b"7"])),
            (b"HEAD", 200, {b"Content-Length": [b"7", b"7"]}, 0, (7, [b"7"])),
            (b"HEAD", 200, {}, 0, (None, None)),
        ]:
            head = self.head(fields, method=method, status=status, length=length)
            self.assertEqual((head.length, head.headers.getRawHeaders(b"content-length")), expected)

    def test_unusable(self):
        """A head that no client could be given is the backend's error."""
        for case in [
            {"fields": {}, "status": 20},
            {"fields": {}, "status": 199},
            {"fields": {}, "status": 600},
            {"fields": {}, "phrase": b"O\0K"},
            {"fields": {}, "phrase": b"O\rX: y"},
            {"fields": {b"X": [b"a", b"\0"]}},
            {"fields": {b"Content-Length": [b"1", b"2"]}, "method": b"HEAD"},
            {"fields": {b"Content-Length": [b"-1"]}, "method": b"HEAD"},
        ]:
            self.assertRaises(BackendProtocolError, self.head, **case)
