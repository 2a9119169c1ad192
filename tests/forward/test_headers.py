"""Tests of what of a head is passed on."""

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.errors import BackendProtocolError, BadRequest
from thrtwisted.forward.headers import (
    MOST_HOPS,
    add_via,
    announces_body,
    check_request_line,
    drop_alike,
    drop_ambiguous,
    drop_hop_by_hop,
    end_to_end,
    is_last_hop,
    origin_form,
    request_headers,
    response_head,
    shown,
    taken_away,
)

VIA = [b"1.1 thrtwisted"]


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
            b"http://[::1/",
            b"http://a,b/",
            b"http://h:99999/",
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
                b"HTTP2-Settings": [b"AA"],
                b"Keep-Alive": [b"5"],
                b"Proxy": [b"http://evil/"],
                b"Proxy-Authenticate": [b"a"],
                b"Proxy-Authorization": [b"b"],
                b"Proxy-Connection": [b"keep-alive"],
                b"Proxy-Of-Somebody": [b"c"],
                b"TE": [b"trailers"],
                b"Trailer": [b"X"],
                b"Transfer-Encoding": [b"chunked"],
                b"Upgrade": [b"h2c"],
            }
        )
        wanted = {b"host": [b"h"], b"x-three": [b"3", b"4"], b"via": VIA}
        self.assertEqual(pairs(request_headers(headers, b"b")), wanted)
        self.assertTrue(headers.hasHeader(b"x-one"), "the exchange's own headers were changed")
        self.assertEqual(pairs(end_to_end(headers)), pairs(end_to_end(end_to_end(headers))))

    def test_named(self):
        """Whatever the letters, blanks and empty items of however many Connection fields: what they name goes."""
        for fields in [
            [b"X-One"],
            [b"x-one"],
            [b"X-ONE , close"],
            [b",, ,\tX-one\t,"],
            [b"close", b"", b"x-One"],
            [b"keep-alive,X-One"],
            [b"X-One, X-One"],
        ]:
            headers = Headers({b"Connection": fields, b"X-One": [b"1", b"2"], b"X-One-More": [b"3"]})
            self.assertEqual(pairs(end_to_end(headers)), {b"x-one-more": [b"3"]}, fields)

    def test_never_named(self):
        """No Connection field takes away what security hangs on, nor what it is told to keep."""
        for name in [
            b"Host",
            b"Via",
            b"Forwarded",
            b"X-Forwarded-For",
            b"X-Forwarded-Proto",
            b"X-Forwarded-Anything",
            b"X-Real-IP",
            b"Authorization",
            b"Cookie",
            b"Set-Cookie",
            b"Cache-Control",
            b"Content-Length",
            b"Content-Type",
            b"Content-Security-Policy",
            b"Sec-Fetch-Site",
            b"Access-Control-Allow-Origin",
            b"Origin",
            b"Max-Forwards",
            b"X-User",
        ]:
            headers = Headers({b"Connection": [b"close, " + name.upper()], name: [b"v"]})
            self.assertEqual(pairs(end_to_end(headers, frozenset((b"x-user",)))), {name.lower(): [b"v"]})

    def test_taken_away(self):
        """Of the names in Connection those take a field away that nobody knows, and that are not to be kept."""
        for named, kept, gone in [
            ([], [], []),
            ([b"x-one", b"x-two"], [], [b"x-one", b"x-two"]),
            ([b"x-one", b"x-two"], [b"x-one"], [b"x-two"]),
            ([b"close", b"keep-alive", b"upgrade"], [], [b"close"]),  # a field of the name "close" would go
            ([b"te", b"trailer", b"transfer-encoding", b"connection", b"proxy", b"http2-settings"], [], []),
            ([b"proxy-connection", b"proxy-anything", b"proxyish"], [], [b"proxyish"]),
            ([b"content-length", b"content-anything", b"contents"], [], [b"contents"]),
            ([b"x-forwarded-for", b"x-forwarded-new", b"x-forwarded"], [], [b"x-forwarded"]),
            ([b"sec-fetch-site", b"access-control-max-age", b"second"], [], [b"second"]),
            ([b"host", b"cookie", b"authorization", b"expect", b"x-real-ip", b"via"], [], []),
        ]:
            self.assertEqual(taken_away(named, frozenset(kept)), gone)

    def test_dropped(self):
        """To drop the fields of one hop leaves what a copy without them has, and all else as it was."""
        for fields, kept, left in [
            ({}, [], {}),
            ({b"X": [b"1", b"2"]}, [], {b"x": [b"1", b"2"]}),
            ({b"Connection": [b"close"], b"Keep-Alive": [b"5"], b"TE": [b"trailers"]}, [], {}),
            ({b"Connection": [b"X"], b"X": [b"1"], b"Y": [b"2"]}, [], {b"y": [b"2"]}),
            ({b"Connection": [b"X"], b"X": [b"1"], b"Y": [b"2"]}, [b"x"], {b"x": [b"1"], b"y": [b"2"]}),
            ({b"Connection": [b"y", b"a, x"], b"X": [b"1"], b"Y": [b"2"]}, [], {}),
            (
                {b"Connection": [b"Host, Via"], b"Host": [b"h"], b"Via": [b"v"]},
                [],
                {b"host": [b"h"], b"via": [b"v"]},
            ),
            ({b"Proxy": [b"p"], b"Proxy-New": [b"q"], b"Proxies": [b"r"]}, [], {b"proxies": [b"r"]}),
            (
                {b"Transfer-Encoding": [b"chunked"], b"Content-Length": [b"3"]},
                [],
                {b"content-length": [b"3"]},
            ),
            ({b"Upgrade": [b"h2c"], b"HTTP2-Settings": [b"AA"], b"Trailer": [b"X"]}, [b"upgrade"], {}),
        ]:
            headers = Headers(fields)
            copy = end_to_end(headers, frozenset(kept))
            drop_hop_by_hop(headers, frozenset(kept))
            self.assertEqual(pairs(headers), left)
            self.assertEqual(pairs(copy), left)

    def test_named_hop(self):
        """To be told to keep a field does not make it pass that belongs to the connection."""
        headers = Headers({b"Connection": [b"te"], b"TE": [b"trailers"], b"Proxy-User": [b"u"]})
        self.assertEqual(pairs(end_to_end(headers, frozenset((b"te", b"proxy-user")))), {})

    def test_ambiguous(self):
        """Names that applications cannot tell from others go."""
        headers = Headers(
            {b"X_User": [b"1"], b"X-User": [b"2"], b"_": [b"3"], b"Content_Length": [b"4"], b"X.User": [b"5"]}
        )
        drop_ambiguous(headers)
        self.assertEqual(pairs(headers), {b"x-user": [b"2"], b"x.user": [b"5"]})

    def test_alike(self):
        """Fields go with all that some application could take for them; what differs in a letter stays."""
        names = (b"X-User", b"x.user", b"X!USER", b"X_User", b"XUser", b"X-User2", b"X--User", b"User")
        headers = Headers({name: [b"1"] for name in names})
        drop_alike(headers, (b"x-user", b"x-absent"))
        self.assertEqual(
            sorted(name.lower() for name in pairs(headers)), [b"user", b"x--user", b"x-user2", b"xuser"]
        )

    def test_via(self):
        """Via says by which protocol the message came, after what it says already."""
        for version, before, expected in [
            (b"HTTP/1.1", [], [b"1.1 thrtwisted"]),
            (b"HTTP/1.0", [], [b"1.0 thrtwisted"]),
            (b"HTTP/2", [b"1.0 a, 1.1 b", b"1.1 c"], [b"1.0 a, 1.1 b", b"1.1 c", b"2 thrtwisted"]),
        ]:
            headers = Headers({b"Via": before} if before else {})
            add_via(headers, version)
            self.assertEqual(headers.getRawHeaders(b"via"), expected)
            headers = Headers({b"Via": before, b"Host": [b"h"]} if before else {})
            self.assertEqual(request_headers(headers, b"b", version).getRawHeaders(b"via"), expected)

    def test_shown(self):
        """What a request's sender is shown of it: not who somebody is, nor what limits and rules hang on."""
        headers = Headers(
            {
                b"Via": [b"1.1 a"],
                b"X-Other": [b"\xe9", b"2"],
                b"Authorization": [b"secret"],
                b"Cookie": [b"secret"],
                b"Proxy-Authorization": [b"secret"],
                b"X-User": [b"secret"],
                b"Connection": [b"X-Hop, X-User"],
                b"X-Hop": [b"1"],
            }
        )
        self.assertEqual(
            pairs(shown(headers, frozenset((b"x-user",)))), {b"via": [b"1.1 a"], b"x-other": [b"\xe9", b"2"]}
        )

    def test_framing(self):
        """Neither Content-Length nor an expectation is copied: the server has met that, however it was written."""
        for expect in [
            [b"100-Continue"],
            [b"100-continue", b"100-continue"],
            [b"100-continue, 100-continue"],
            [b",100-continue"],
            [b""],
            [b"tea"],
        ]:
            headers = Headers({b"Host": [b"h"], b"Content-Length": [b"3"], b"Expect": expect})
            self.assertEqual(pairs(request_headers(headers, b"b")), {b"host": [b"h"], b"via": VIA})

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
        headers.setRawHeaders(b"x", [b"a", b"a\0b"])
        self.assertRaises(BadRequest, request_headers, headers, b"b")

    def test_announces_body(self):
        """A body is announced by its length or by chunks."""
        self.assertFalse(announces_body(Headers()))
        self.assertTrue(announces_body(Headers({b"content-length": [b"0"]})))
        self.assertTrue(announces_body(Headers({b"transfer-encoding": [b"chunked"]})))


class LastHopTests(SynchronousTestCase):
    """Max-Forwards."""

    def test_counted(self):
        """OPTIONS and TRACE count their hops, and end with the last; no other method does."""
        most = b"%d" % MOST_HOPS
        for method, values, last, left in [
            (b"OPTIONS", [b"0"], True, [b"0"]),
            (b"TRACE", [b"0"], True, [b"0"]),
            (b"TRACE", [b"000"], True, [b"000"]),
            (b"TRACE", [b"1"], False, [b"0"]),
            (b"OPTIONS", [b"10"], False, [b"9"]),
            (b"OPTIONS", [b"0012"], False, [b"11"]),
            (b"OPTIONS", [most], False, [b"%d" % (MOST_HOPS - 1)]),
            (b"OPTIONS", [b"257"], False, [most]),
            (b"OPTIONS", [b"9" * 5000], False, [most]),
            (b"OPTIONS", None, False, None),
            (b"GET", [b"0"], False, [b"0"]),
            (b"options", [b"0"], False, [b"0"]),
            (b"POST", [b"x"], False, [b"x"]),
        ]:
            headers = Headers({} if values is None else {b"Max-Forwards": values})
            self.assertEqual(is_last_hop(method, headers), last, (method, values))
            self.assertEqual(headers.getRawHeaders(b"max-forwards"), left)

    def test_refused(self):
        """What is not one number is refused: nobody knows how far it may go."""
        for values in [[b""], [b"-1"], [b"+1"], [b"1.0"], [b"a"], [b"0, 5"], [b"1", b"1"], [b"\xb2"]]:
            self.assertRaises(BadRequest, is_last_hop, b"TRACE", Headers({b"Max-Forwards": values}))


class ResponseHeadTests(SynchronousTestCase):
    """The head that the client gets."""

    def head(self, fields, *, method=b"GET", status=200, phrase=b"OK", length=None, **more):
        return response_head(method, status, phrase, Headers(fields), length, **more)

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
            pairs(head.headers),
            {b"set-cookie": [b"a=1, b", b"c=\xe9"], b"content-encoding": [b"gzip"], b"via": VIA},
        )
        self.assertEqual((head.status, head.phrase, head.length), (200, b"Tr\xe8s bien", None))

    def test_via(self):
        """Via says by which protocol the response came."""
        head = self.head({b"Via": [b"1.1 a"]}, version=b"HTTP/1.0")
        self.assertEqual(head.headers.getRawHeaders(b"via"), [b"1.1 a", b"1.0 thrtwisted"])

    def test_length(self):
        """The length is that of the body, once; a response to HEAD and 304 have the backend's, 204 has none."""
        for method, status, fields, length, expected in [
            (b"GET", 200, {}, 3, (3, [b"3"])),
            (b"GET", 200, {}, 0, (0, [b"0"])),
            (b"GET", 200, {b"Content-Length": [b"3", b"3"]}, 3, (3, [b"3"])),
            (b"GET", 200, {}, None, (None, None)),
            (b"GET", 200, {b"Content-Length": [b"3"]}, None, (None, None)),
            (b"GET", 204, {}, 0, (None, None)),
            (b"GET", 204, {b"Content-Length": [b"3"]}, 0, (None, None)),
            (b"HEAD", 204, {b"Content-Length": [b"3"]}, 0, (None, None)),
            (b"GET", 304, {}, 0, (None, None)),
            (b"GET", 304, {b"Content-Length": [b"7"]}, 0, (7, [b"7"])),
            (b"HEAD", 304, {b"Content-Length": [b"7"]}, None, (7, [b"7"])),
            (b"HEAD", 200, {b"Content-Length": [b"7"]}, 0, (7, [b"7"])),
            (b"HEAD", 200, {b"Content-Length": [b"7", b"7"]}, 0, (7, [b"7"])),
            (b"HEAD", 200, {b"Content-Length": [b"7, 7"]}, 0, (7, [b"7"])),
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
            {"fields": {}, "phrase": b"O\x1bK"},
            {"fields": {b"X": [b"a", b"\0"]}},
            {"fields": {b"Content-Length": [b"1", b"2"]}, "method": b"HEAD"},
            {"fields": {b"Content-Length": [b"-1"]}, "method": b"HEAD"},
            {"fields": {b"Content-Length": [b"7, 8"]}, "status": 304},
            {"fields": {b"Content-Length": [b"9" * 19]}, "status": 304},
        ]:
            self.assertRaises(BackendProtocolError, self.head, **case)
