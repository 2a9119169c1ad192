"""Tests of thrtwisted.exchange."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.exchange import Exchange


def exchange(
    target: bytes = b"/",
    headers: dict[str, list[str]] | None = None,
    *,
    method: bytes = b"GET",
    client: str = "192.0.2.1",
) -> Exchange:
    """An exchange that nothing has happened to yet."""
    return Exchange(method, target, Headers(headers or {}), client, "app")


class ExchangeTests(SynchronousTestCase):
    """What keys and criteria find in an exchange."""

    def test_path_and_query(self) -> None:
        """The path ends at the first question mark, and the query starts there; neither is decoded."""
        for target, path, query in [
            (b"/", b"/", b""),
            (b"/a%2Fb//c/?", b"/a%2Fb//c/", b""),
            (b"/a?b=c?d", b"/a", b"b=c?d"),
            (b"*", b"*", b""),
        ]:
            one = exchange(target)
            self.assertEqual((one.path, one.query), (path, query))

    def test_host(self) -> None:
        """The host is in lower case and without the port, also of an IPv6 address, and without the root's dot."""
        self.assertIsNone(exchange().host)
        for header, host in [
            ("Example.ORG", b"example.org"),
            ("example.org:8888", b"example.org"),
            ("[2001:DB8::1]:80", b"[2001:db8::1]"),
            ("Admin.example.", b"admin.example"),
            ("admin.example.:443", b"admin.example"),
            ("admin.example..", b"admin.example."),
            ("", b""),
        ]:
            self.assertEqual(exchange(headers={"Host": [header]}).host, host)

    def test_header(self) -> None:
        """A header's name has no case; several fields are one list."""
        one = exchange(headers={"foo": ["a", "b"], "Bar": [""]})
        self.assertEqual(one.header(b"Foo"), b"a, b")
        self.assertEqual(one.header(b"bar"), b"")
        self.assertIsNone(one.header(b"baz"))

    def test_cookie(self) -> None:
        """The first cookie of a name counts, in whichever field, its quotes removed."""
        one = exchange(headers={"Cookie": ['a=1; b="two";c', "a=3; d=x=y"]})
        for name, value in [(b"a", b"1"), (b"b", b"two"), (b"c", None), (b"d", b"x=y"), (b"A", None)]:
            self.assertEqual(one.cookie(name), value)
        self.assertIsNone(exchange().cookie(b"a"))

    def test_query_argument(self) -> None:
        """The first argument of a name counts, percent-decoded, plus signs as blanks."""
        one = exchange(b"/?a=1&a=2&b+c=d+e%26&f&&%67=%ff")
        for name, value in [(b"a", b"1"), (b"b c", b"d e&"), (b"f", b""), (b"g", b"\xff"), (b"", None)]:
            self.assertEqual(one.query_argument(name), value)
