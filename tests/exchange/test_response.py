"""Tests of thrtwisted.exchange.response."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.exchange.test_exchange import exchange
from thrtwisted.exchange import Exchange, ResponseHead

FULL = {
    "Content-Length": ["5"],
    "Content-Type": ["text/html"],
    "Content-Encoding": ["gzip"],
    "ETag": ['"a"'],
    "Content-MD5": ["x"],
    "Digest": ["x"],
    "Content-Range": ["bytes 0-4/9"],
    "X-Own": ["1"],
}


def received(
    status: int = 200,
    headers: dict[str, list[str]] | None = None,
    length: int | None = 5,
    *,
    method: bytes = b"GET",
    proxys: bool = False,
) -> Exchange:
    """An exchange whose response is there."""
    found = exchange(method=method)
    fields = Headers(FULL if headers is None else headers)
    found.received(
        ResponseHead(status, b"Their Words", fields, length), lambda limit: succeed(b"theirs"), proxys=proxys
    )
    return found


def names(head: ResponseHead) -> set[str]:
    """Which fields there are."""
    return {name.decode().lower() for name, _ in head.headers.getAllRawHeaders()}


class FinishedTests(SynchronousTestCase):
    """What is sent in the end."""

    def test_unchanged(self) -> None:
        """A response that no rule changes is sent as it came, and no view of it is made."""
        found = received()
        head, body = found.finished(b"GET")
        self.assertEqual((head.status, head.phrase, body), (200, b"Their Words", None))
        self.assertEqual(dict(head.headers.getAllRawHeaders()), dict(Headers(FULL).getAllRawHeaders()))
        self.assertIsNone(found._response)

    def test_bodies(self) -> None:
        """Which body is sent, and of which length, by the response's status and length and by what rules say."""
        cases: list[tuple[int, int | None, dict[str, Any], tuple[int, bytes | None, str | None]]] = [
            (200, 5, {}, (200, None, "5")),
            (200, 5, {"body": "new"}, (200, b"new", "3")),
            (200, 5, {"body": ""}, (200, b"", "0")),
            (200, None, {"body": b"new"}, (200, b"new", "3")),
            (200, 5, {"default_body": "new"}, (200, None, "5")),
            (200, None, {"default_body": "new"}, (200, None, None)),
            (200, 0, {"default_body": "new"}, (200, b"new", "3")),
            (200, 0, {"default_body": "new", "body": "own"}, (200, b"own", "3")),
            (200, 0, {}, (200, None, "0")),
            (200, 5, {"status_code": 404}, (404, None, "5")),
            (200, 5, {"status_code": 204}, (204, b"", None)),
            (200, 5, {"status_code": 304}, (304, b"", None)),
            (200, 5, {"status_code": 205}, (205, b"", "0")),
            (200, 5, {"status_code": 204, "body": "new"}, (204, b"", None)),
            (204, None, {}, (204, None, None)),
            (204, None, {"body": "new"}, (204, None, None)),
            (204, None, {"default_body": "new"}, (204, None, None)),
            (204, None, {"status_code": 200}, (200, b"", "0")),
            (204, None, {"status_code": 200, "default_body": "new"}, (200, b"new", "3")),
            (304, 5, {}, (304, None, "5")),
            (304, 5, {"body": "new"}, (304, None, "5")),
            (304, 5, {"status_code": 200}, (200, b"", "0")),
            (206, 5, {}, (206, None, "5")),
            (206, 5, {"body": "new"}, (200, b"new", "3")),
            (206, 5, {"body": "new", "status_code": 206}, (206, b"new", "3")),
        ]
        for status, length, said, expected in cases:
            headers = {} if length is None else {"Content-Length": [str(length)]}
            found = received(status, headers, length)
            for name, value in said.items():
                setattr(found.response, name, value)
            head, body = found.finished(b"GET")
            announced = head.headers.getRawHeaders("Content-Length", [None])[0]
            self.assertEqual((head.status, body, announced), expected, (status, length, said))

    def test_methods(self) -> None:
        """The client's own method says whether a body is announced that is there, the backend's whether it is."""
        for asked, method, said, expected in [
            (b"HEAD", b"HEAD", {}, (None, "5")),
            (b"HEAD", b"GET", {}, (None, "5")),
            (b"GET", b"HEAD", {}, (b"", "0")),
            (b"GET", b"HEAD", {"default_body": "new"}, (b"new", "3")),
            (b"HEAD", b"HEAD", {"body": "new"}, (b"new", "3")),
            (b"HEAD", b"HEAD", {"default_body": "new"}, (None, "5")),
        ]:
            found = received(method=method)
            for name, value in said.items():
                setattr(found.response, name, value)
            head, body = found.finished(asked)
            self.assertEqual(
                (body, head.headers.getRawHeaders("Content-Length", [""])[0]), expected, (asked, said)
            )

    def test_what_is_said_of_the_body(self) -> None:
        """What is said of one body is not said of another, unless rules say it."""
        found = received()
        found.set_output_body("new")
        head, _ = found.finished(b"GET")
        self.assertEqual(names(head), {"content-length", "content-type", "x-own"})
        found = received()
        found.response.headers["ETag"] = '"mine"'
        found.set_output_body("new")
        head, _ = found.finished(b"GET")
        self.assertEqual(head.headers.getRawHeaders("ETag"), ['"mine"'])

    def test_type(self) -> None:
        """A body of the rules' is text, unless they or the application say otherwise."""
        text, html = ["text/plain; charset=utf-8"], ["text/html"]
        for headers, proxys, own, expected in [
            ({}, False, None, text),
            ({"Content-Type": html}, False, None, html),
            ({"Content-Type": html}, True, None, text),
            ({"Content-Type": text}, True, "text/html", html),
        ]:
            found = received(headers=headers, proxys=proxys)
            if own is not None:
                found.set_output_header(("content-type", own))
            found.set_output_body("new")
            self.assertEqual(found.finished(b"GET")[0].headers.getRawHeaders("Content-Type"), expected)

    def test_own_answers(self) -> None:
        """An answer of the proxy's own takes the body, else the default body, else it keeps its own."""
        for said, expected in [
            ({}, None),
            ({"default_body": "d"}, b"d"),
            ({"default_body": "d", "body": "b"}, b"b"),
        ]:
            found = received(403, proxys=True, method=b"HEAD")
            for name, value in said.items():
                setattr(found.response, name, value)
            self.assertEqual(found.finished(b"GET")[1], expected)

    def test_phrase(self) -> None:
        """Another status has its own reason phrase."""
        for status, phrase in [(404, b"Not Found"), (599, b"Unknown"), (200, b"Their Words")]:
            found = received()
            found.response.status_code = status
            self.assertEqual(found.finished(b"GET")[0].phrase, phrase)


class ViewTests(SynchronousTestCase):
    """What functions see of it."""

    def test_there(self) -> None:
        """Status, headers and body are the response's own, until they are set."""
        response = received().response
        self.assertEqual((response.status_code, response.headers["x-OWN"]), (200, "1"))
        self.assertEqual((response.body, response.default_body), (None, None))
        self.assertEqual(self.successResultOf(response.read_body()), b"theirs")
        response.body = "é"
        self.assertEqual(response.body, "é".encode())
        response.body = None
        self.assertIsNone(response.body)

    def test_not_there_yet(self) -> None:
        """Before it is there it has no status and no body to read."""
        response = exchange().response
        self.assertIsNone(response.status_code)
        self.assertIn("no response yet", str(self.assertRaises(ValueError, response.read_body)))

    def test_said_early(self) -> None:
        """What is set, added and deleted on the way in is so on the response, once that is there."""
        found = exchange()
        found.set_output_header({"X-Own": "2", "X-New": "3"})
        found.add_output_header(("Set-Cookie", "b=2"))
        found.del_output_header(["ETag", "X-New"])
        found.response.headers["X-View"] = "4"
        found.set_output_body("new")
        headers = Headers({"X-Own": ["1", "1"], "Set-Cookie": ["a=1"], "ETag": ['"a"']})
        found.received(ResponseHead(200, b"OK", headers, 5), lambda limit: succeed(b""))
        head, body = found.finished(b"GET")
        self.assertEqual(body, b"new")
        self.assertEqual(
            dict(head.headers.getAllRawHeaders()),
            {
                b"X-Own": [b"2"],
                b"Set-Cookie": [b"a=1", b"b=2"],
                b"X-View": [b"4"],
                b"Content-Length": [b"3"],
                b"Content-Type": [b"text/plain; charset=utf-8"],
            },
        )

    def test_early_status(self) -> None:
        """A status that is set before the response is there is answered without one."""
        found = exchange()
        found.response.status_code = 403
        self.assertEqual((found.status, found.response.status_code), (403, 403))

    def test_reserved(self) -> None:
        """What the connection decides can neither be set nor deleted, nor a status that ends no exchange."""
        for name in ("Content-Length", "Transfer-Encoding", "Connection", "Proxy-Authenticate"):
            found = received()
            for change in (
                lambda: found.set_output_header((name, "1")),  # noqa: B023
                lambda: found.add_output_header((name, "1")),  # noqa: B023
                lambda: found.del_output_header(name),  # noqa: B023
                lambda: found.response.headers.__setitem__(name, "1"),  # noqa: B023
                lambda: found.response.headers.__delitem__(name),  # noqa: B023
            ):
                self.assertRaises(ValueError, change)
        with self.assertRaises(ValueError):
            found.response.status_code = 101
