"""Tests of thrtwisted.exchange.settable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.exchange import settable


class GoodTests(SynchronousTestCase):
    """What may be set."""

    def test_values(self) -> None:
        """Each value becomes what a message carries; text and bytes are the same."""
        cases: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
            (settable.encoded, ("é",), "é".encode()),
            (settable.encoded, ("\udcff",), b"\xff"),
            (settable.encoded, (b"\xff",), b"\xff"),
            (settable.header_name, ("X-A",), b"X-A"),
            (settable.header_name, (b"X-A",), b"X-A"),
            (settable.header_values, ("a",), [b"a"]),
            (settable.header_values, (["a", b"b"],), [b"a", b"b"]),
            (settable.method, ("get",), b"get"),
            (settable.path, ("/a%2Fb//c;d='!",), b"/a%2Fb//c;d='!"),
            (settable.query, ("",), b""),
            (settable.query, ("a=b&c?/",), b"a=b&c?/"),
            (settable.argument, ("a b", "ü/&=+"), b"a%20b=%C3%BC%2F%26%3D%2B"),
            (settable.argument, (b"a", [b"\xff", ""]), b"a=%FF&a="),
            (settable.argument, ("a", []), b""),
            (settable.host, ("h:80",), b"h:80"),
            (settable.address, ("2001:db8::1",), "2001:db8::1"),
            (settable.status, (599,), 599),
            (settable.priority, (0,), 1),
            (settable.priority, (1000,), 99),
            (settable.priority, (50.4,), 50),
            (settable.priority, (" 7 ",), 7),
            (settable.priority, (float("inf"),), 99),
        ]
        for function, arguments, expected in cases:
            self.assertEqual(function(*arguments), expected, (function.__name__, arguments))

    def test_nearest_priority(self) -> None:
        """A text that is a number, of whatever size, is near some priority; another is not."""
        for text, expected in [
            ("5", 5),
            ("+5", 5),
            ("-5", 1),
            ("0", 1),
            ("12.7", 13),
            ("12.", 12),
            (b" 98\t", 98),
            ("9" * 400, 99),
            ("-" + "9" * 400, 1),
            ("", None),
            ("high", None),
            ("1e3", None),
            ("nan", None),
            ("0x10", None),
            ("1_0", None),
            ("\u0665", None),
            ("5, 6", None),
        ]:
            self.assertEqual(settable.nearest_priority(text), expected, text)

    def test_pairs(self) -> None:
        """Names and values come as a table, as one pair or as a list of pairs."""
        for value in ({"a": "b"}, ("a", "b"), ["a", "b"], [("a", "b")], (["a", "b"],)):
            self.assertEqual(settable.pairs(value, "a header"), [("a", "b")])
        self.assertEqual(settable.pairs([("a", "b"), ("c", ["d"])], ""), [("a", "b"), ("c", ["d"])])
        self.assertEqual(settable.pairs(("a", ("b", "c")), ""), [("a", ("b", "c"))])
        self.assertEqual(settable.pairs([], ""), [])
        for wrong in ("ab", ("a",), ("a", "b", "c"), [("a", "b"), "c", "d"], 5):
            with self.assertRaisesRegex(ValueError, "a header is given as a pair"):
                settable.pairs(wrong, "a header")


class WrongTests(SynchronousTestCase):
    """What may not."""

    def test_values(self) -> None:
        """What could break a message is refused in one line, which says the mend."""
        cases: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
            (settable.encoded, (5,), "this is a text, not int"),
            (settable.encoded, (None,), "not NoneType"),
            (settable.encoded, ("\ud800",), "no Unicode"),
            (settable.header_name, (5,), "a header's name is a text"),
            (settable.header_name, ("X" * 257,), "longer"),
            (settable.header_name, (b"X_A",), 'write "x-a"'),
            (settable.header_value, ("a\r\nb: c",), "control characters"),
            (settable.header_value, (b"\x00",), "control characters"),
            (settable.header_value, (" a",), "blank"),
            (settable.header_values, ([5],), "a header's value is a text"),
            (settable.method, ("",), "no request has such a method"),
            (settable.method, ("A B",), "no request has such a method"),
            (settable.method, ("A\r\n",), "no request has such a method"),
            (settable.method, ("CONNECT",), "asks for a tunnel"),
            (settable.path, ("",), 'starts with "/"'),
            (settable.path, ("a",), 'starts with "/"'),
            (settable.path, ("/a?b",), "percent-encode"),
            (settable.path, ("/a#b",), "percent-encode"),
            (settable.path, ("/é",), "percent-encode"),
            (settable.path, ("/a b",), "percent-encode"),
            (settable.path, ("/a\r\n",), "percent-encode"),
            (settable.query, ("a b",), "percent-encode"),
            (settable.query, ("a#",), "percent-encode"),
            (settable.query, ("\n",), "percent-encode"),
            (settable.argument, ("", "a"), "has a name"),
            (settable.argument, ("a", 5), "a query argument is a text"),
            (settable.host, ("",), "names no host"),
            (settable.host, ("a b",), "names no host"),
            (settable.host, ("a\r\nB: c",), "names no host"),
            (settable.address, ("localhost",), "no address"),
            (settable.address, ("10.0.0.0/8",), "no address"),
            (settable.status, (100,), "from 200 to 599"),
            (settable.status, (600,), "from 200 to 599"),
            (settable.status, ("403",), "from 200 to 599"),
            (settable.status, (True,), "from 200 to 599"),
            (settable.priority, ("high",), "from 1 (best) to 99 (worst), not 'high'"),
            (settable.priority, (True,), "from 1 (best)"),
            (settable.priority, (float("nan"),), "from 1 (best)"),
            (settable.priority, ([],), "from 1 (best)"),
        ]
        for function, arguments, message in cases:
            error = str(self.assertRaises(ValueError, function, *arguments))
            self.assertIn(message, error)
            self.assertNotIn("\n", error)

    def test_underscores(self) -> None:
        """An underscore is for responses, whose names no application has to tell from others."""
        self.assertEqual(settable.header_name("X_A", distinct=False), b"X_A")
        self.assertRaises(ValueError, settable.header_name, "X_A")
