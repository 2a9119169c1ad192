"""Tests of what is refused of requests that another site has read, and of responses of other workers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.errors import BackendProtocolError, BadRequest, ExchangeError
from thrtwisted.exchange import ResponseHead
from thrtwisted.forward.headers import response_head
from thrtwisted.forward.wellformed import check_request, check_response

HOST = {b"Host": [b"h"]}


class CheckRequestTests(SynchronousTestCase):
    """Tests for L{check_request}."""

    def test_good(self) -> None:
        """What is well-formed passes."""
        for method, target, version, fields in [
            (b"GET", b"/", b"HTTP/1.1", {}),
            (b"M-SEARCH", b'/[x]{y}|\\^`<>"', b"HTTP/1.1", {}),
            (b"OPTIONS", b"*", b"HTTP/1.1", {}),
            (b"GET", b"http://h/", b"HTTP/1.1", {}),
            (b"GET", b"/", b"HTTP/1.1", {b"Host": [b""]}),
            (b"GET", b"/", b"HTTP/1.1", {b"Host": [b"[::1]:80"]}),
            (b"GET", b"/", b"HTTP/1.0", {b"Host": []}),
            (b"GET", b"/", b"HTTP/2", {b"Host": []}),
            (b"POST", b"/", b"HTTP/1.1", {b"Content-Length": [b"007"]}),
            (b"POST", b"/", b"HTTP/1.1", {b"Transfer-Encoding": [b"Chunked"]}),
            (b"POST", b"/", b"HTTP/1.1", {b"Expect": [b"100-Continue"]}),
            (b"GET", b"/", b"HTTP/1.1", {b"A": [b"\t \x80\xff"]}),
            (b"GET", b"/", b"HTTP/1.1", {b"Connection": [b"close, x-absent"]}),
            (b"GET", b"/", b"HTTP/1.1", {b"Connection": [b"TE, upgrade"], b"TE": [b"a"], b"Upgrade": [b"b"]}),
            (b"GET", b"/", b"HTTP/1.1", {b"Connection": [b"proxy-x"], b"Proxy-X": [b"a"]}),
            (b"GET", b"/", b"HTTP/1.1", {b"Connection": [b"host,cookie"], b"Cookie": [b"a=b"]}),
            (b"GET", b"/", b"HTTP/1.1", {b"Connection": [b"X-User"], b"X-User": [b"a"]}),
        ]:
            headers = Headers(HOST | fields)
            check_request(method, target, version, headers, frozenset((b"x-user",)))

    def test_refused(self) -> None:
        """What is not is refused: an error of the client's."""
        for method, target, version, fields, status in [
            (b"CONNECT", b"/", b"HTTP/1.1", {}, 400),
            (b"G(T", b"/", b"HTTP/1.1", {}, 400),
            (b"GET", b"/\x80", b"HTTP/1.1", {}, 400),
            (b"GET", b"/\x7f", b"HTTP/1.1", {}, 400),
            (b"GET", b"/ a", b"HTTP/1.1", {}, 400),
            (b"GET", b"/#a", b"HTTP/1.1", {}, 400),
            (b"GET", b"*", b"HTTP/1.1", {}, 400),
            (b"GET", b"/", b"HTTP/1.2", {}, 505),
            (b"GET", b"/", b"HTTP/0.9", {}, 505),
            (b"GET", b"/", b"http/1.1", {}, 505),
            (b"GET", b"/", b"HTTP/1.1", {b"Host": []}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"Host": [b"h", b"h"]}, 400),
            (b"GET", b"/", b"HTTP/1.0", {b"Host": [b"h", b""]}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"Host": [b"h, i"]}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"Host": [b"u@h"]}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"Host": [b"h/p"]}, 400),
            (b"GET", b"/", b"HTTP/1.0", {b"Host": [b"h:p"]}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"A": [b"b", b"\x00"]}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"A": [b"\x1b"]}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"A": [b"\x7f"]}, 400),
            (b"POST", b"/", b"HTTP/1.1", {b"Content-Length": [b"1", b"1"]}, 400),
            (b"POST", b"/", b"HTTP/1.1", {b"Content-Length": [b"+1"]}, 400),
            (b"POST", b"/", b"HTTP/1.1", {b"Content-Length": [b"1" * 19]}, 400),
            (b"POST", b"/", b"HTTP/1.1", {b"Transfer-Encoding": [b"identity"]}, 400),
            (b"POST", b"/", b"HTTP/1.1", {b"Transfer-Encoding": [b"chunked", b"identity"]}, 400),
            (b"POST", b"/", b"HTTP/1.1", {b"Transfer-Encoding": [b"gzip, chunked"]}, 400),
            (b"POST", b"/", b"HTTP/1.0", {b"Transfer-Encoding": [b"chunked"]}, 400),
            (b"POST", b"/", b"HTTP/2", {b"Transfer-Encoding": [b"chunked"]}, 400),
            (
                b"POST",
                b"/",
                b"HTTP/1.1",
                {b"Transfer-Encoding": [b"chunked"], b"Content-Length": [b"1"]},
                400,
            ),
            (b"POST", b"/", b"HTTP/1.1", {b"Expect": [b"tea"]}, 417),
            (b"POST", b"/", b"HTTP/1.1", {b"Expect": [b"100-continue", b"tea"]}, 417),
            (b"GET", b"/", b"HTTP/1.1", {b"Connection": [b"a b"]}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"Connection": [b"close", b"x-USER"], b"X-User": [b"a"]}, 400),
            (b"GET", b"/", b"HTTP/1.1", {b"Connection": [b"accept"], b"Accept": [b"a"]}, 400),
        ]:
            headers = Headers(HOST | fields)
            error = self.assertRaises(ExchangeError, check_request, method, target, version, headers)
            self.assertEqual(error.status, status, (method, target, version, fields))

    def test_kept(self) -> None:
        """A header that limits or rules hang on may be named: it is not taken away."""
        headers = Headers({b"Host": [b"h"], b"Connection": [b"X-User"], b"X-User": [b"bob"]})
        check_request(b"GET", b"/", b"HTTP/1.1", headers, frozenset((b"x-user",)))
        self.assertRaises(BadRequest, check_request, b"GET", b"/", b"HTTP/1.1", headers, frozenset((b"x",)))


class CheckResponseTests(SynchronousTestCase):
    """Tests for L{check_response}."""

    def test_good(self) -> None:
        """What this version makes of a backend's response passes."""
        for method, status, length, fields in [
            (b"GET", 200, 3, {b"A": [b"\t \x80\xff", b""]}),
            (b"GET", 200, None, {}),
            (b"GET", 599, 0, {}),
            (b"GET", 204, 3, {b"Content-Length": [b"3"]}),
            (b"GET", 304, 0, {b"Content-Length": [b"3, 3"]}),
            (b"HEAD", 200, 0, {b"Content-Length": [b"003"]}),
            (b"HEAD", 200, 0, {}),
        ]:
            check_response(response_head(method, status, b"\xe9", Headers(fields), length))

    def test_refused(self) -> None:
        """What it does not make is refused."""
        for status, phrase, fields, length in [
            (199, b"", {}, None),
            (600, b"", {}, None),
            (200, b"a\nb", {}, None),
            (200, b"", {b"A": [b"\x1b"]}, None),
            (200, b"", {b"Content-Length": [b"3"]}, None),
            (200, b"", {}, 3),
            (200, b"", {b"Content-Length": [b"-3"]}, -3),
            (204, b"", {b"Content-Length": [b"3"]}, 3),
        ]:
            head = ResponseHead(status, phrase, Headers(fields), length)
            self.assertRaises(BackendProtocolError, check_response, head)
