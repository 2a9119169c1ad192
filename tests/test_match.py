"""Tests of thrtwisted.match."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.match import compile_match, literal

#: A match, values that it accepts, values that it does not.
CASES: list[tuple[str | list[str], list[bytes | None], list[bytes | None]]] = [
    ("bar", [b"bar"], [b"Bar", b"bar ", b"", None]),
    ("", [b""], [b"x", None]),
    ("foo:bar", [b"foo:bar"], [b"bar"]),
    ("http://a/", [b"http://a/"], [b"http"]),
    ("é", ["é".encode()], [b"\xe9"]),
    ("\udce9", [b"\xe9"], ["é".encode()]),
    ("glob:a*", [b"a", b"abc", b"a/b\n"], [b"ba", b"", None]),
    ("glob:/batch/*", [b"/batch/", b"/batch/x/y"], [b"/batch"]),
    ("glob:?[bc]", [b"xb", b"\xffc"], [b"b", b"xd"]),
    ("glob:a.c", [b"a.c"], [b"abc"]),
    ("regexp:[a-z]+", [b"abc"], [b"abc1", b"1abc", b"abc\n", b"", None]),
    ("regexp:a|b", [b"a", b"b"], [b"ab"]),
    ("regexp:re:.*", [b"re:x"], [b"x"]),
    ("not:text", [b"other", b"", None], [b"text"]),
    ("text:glob:a*", [b"glob:a*"], [b"a", b"glob:ab", None]),
    ("text:text:", [b"text:"], [b"", None]),
    ("not:text:not:a", [b"a", None], [b"not:a"]),
    ("not:glob:/static/*", [b"/app", None], [b"/static/x"]),
    ("not:regexp:[0-9]+", [b"a1"], [b"11"]),
    ("net:10.0.0.0/8", [b"10.1.2.3", b"::ffff:10.1.2.3"], [b"11.0.0.0", b"10", b"net:10.0.0.0/8", b"", None]),
    ("net:2001:db8::/32", [b"2001:DB8::1", b"2001:db8::1%eth0"], [b"2001:db9::1", b"10.1.2.3"]),
    ("net:192.0.2.1", [b"192.0.2.1"], [b"192.0.2.10"]),
    ("not:net:10.0.0.0/8", [b"11.0.0.0", b"x", None], [b"10.1.2.3"]),
    (["net:10.0.0.0/8", "not:10.0.0.5", "::1"], [b"10.0.0.4", b"::1"], [b"10.0.0.5", b"0::1", None]),
    ("text:10.0.0.0/8", [b"10.0.0.0/8"], [b"10.1.2.3"]),
    (["GET", "HEAD"], [b"GET", b"HEAD"], [b"POST", None]),
    (["x", "glob:a*"], [b"x", b"ab"], [b"b"]),
    (["not:a", "not:b"], [b"c", None], [b"a", b"b"]),
    (["glob:a*", "not:abc"], [b"a", b"abcd"], [b"abc", b"b", None]),
]

#: A match that cannot be read, and what the message must say.
MISTAKES: list[tuple[str | list[str], str]] = [
    ([], "an empty list"),
    ("regexp:[", "not a regular expression"),
    ("not:regexp:(", "not a regular expression"),
    ("regex:a", 'write "regexp:"'),
    ("re:a", 'write "regexp:"'),
    ("Glob:a", 'write "glob:"'),
    ("NOT:a", 'write "not:"'),
    ("not:Regexp:a", 'write "regexp:"'),
    ("Text:a", 'write "text:"'),
    ("not:not:a", "undoes itself"),
    ("net:", "is no address"),
    ("net:10.0.0.1/8", 'write "10.0.0.0/8" for the network'),
    ("net:10.0.0.0/33", "no valid prefix length"),
    ("net:example.org", "names are not looked up"),
    ("network:10.0.0.0/8", 'write "net:"'),
    ("Net:10.0.0.0/8", 'write "net:"'),
    ("10.0.0.0/8", 'is a network; write "net:10.0.0.0/8"'),
    ("10.0.0.1/8", 'is a network; write "net:10.0.0.1/8"'),
    ("not:2001:db8::/32", 'is a network; write "net:2001:db8::/32"'),
    ("\ud800", "no Unicode"),
]


class MatchTests(SynchronousTestCase):
    """What a match accepts."""

    def test_cases(self) -> None:
        """Each kind of match accepts what it says, and nothing else."""
        for match, accepted, refused in CASES:
            compiled = compile_match(match)
            for value in accepted:
                self.assertTrue(compiled.matches(value), (match, value))
            for value in refused:
                self.assertFalse(compiled.matches(value), (match, value))

    def test_ignore_case(self) -> None:
        """Where case does not matter, no kind of match looks at it."""
        for match in ("Example.org", "text:Example.org", "glob:Ex*.org", "regexp:Example\\.org"):
            compiled = compile_match(match, ignore_case=True)
            self.assertTrue(compiled.matches(b"example.org"), match)
            self.assertFalse(compiled.matches(b"examplexorg"), match)
        self.assertFalse(compile_match("not:Example.org", ignore_case=True).matches(b"example.org"))

    def test_mistakes(self) -> None:
        """What cannot be read is refused, with the mend, on one line."""
        for match, message in MISTAKES:
            error = self.assertRaises(ValueError, compile_match, match)
            self.assertIn(message, str(error))
            self.assertNotIn("\n", str(error))

    @settings(deadline=None)
    @given(st.binary())
    def test_any_bytes(self, value: bytes) -> None:
        """Any bytes can be asked about, and a text made of them equals them."""
        text = value.decode("utf-8", "surrogateescape")
        self.assertTrue(compile_match("glob:*").matches(value))
        self.assertTrue(compile_match("regexp:" + re.escape(text)).matches(value))
        self.assertFalse(compile_match(["not:regexp:" + re.escape(text)]).matches(value))

    @settings(deadline=None)
    @given(
        st.sampled_from(["", "glob:", "regexp:", "not:", "text:", "net:", "re:", "NOT:", "x:", "10.0.0.0/8"]),
        st.text(),
    )
    def test_literal(self, start: str, rest: str) -> None:
        """The literal of a text accepts just this text, and so does its opposite refuse it."""
        text = start + rest.encode("utf-8", "replace").decode()
        self.assertTrue(compile_match(literal(text)).matches(text.encode()))
        self.assertFalse(compile_match(literal(text)).matches(text.encode() + b"x"))
        self.assertFalse(compile_match("not:" + literal(text)).matches(text.encode()))
