"""Tests for L{thrtwisted.grammar}."""

from __future__ import annotations

import re
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.grammar import (
    BROKEN,
    NAME_LENGTH,
    QUOTED,
    Malformed,
    connection_options,
    is_authority,
    is_token,
    list_elements,
    parse_field,
    parse_fields,
    parse_length,
)

TCHAR = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: Pieces of which something like a header can be made.
PIECES = [b"a", b"Content-Length", b":", b" ", b"\t", b"\r", b"\n", b"\0", b"\x7f", b"\xe9", b"(", b",", b"5"]


class TokenTests(SynchronousTestCase):
    """Tests for L{is_token}."""

    def test_every_byte(self) -> None:
        """It consists of the characters of the RFC, and of one at least."""
        for octet in range(256):
            self.assertEqual(is_token(b"a%cb" % octet), octet in TCHAR, octet)
        self.assertFalse(is_token(b""))
        self.assertFalse(is_token(b"a\n"))


class BrokenTests(SynchronousTestCase):
    """Tests for L{BROKEN}."""

    def test_cases(self) -> None:
        """It finds control characters, and CR and LF that are not CRLF; a CR at the end may be the half of one."""
        for text, broken in [
            (b"", False),
            (b"a: b\r\nc:\td\x80\xff\r\n\r\n", False),
            (b"a\r", False),
            (b"\r\n", False),
            (b"\n", True),
            (b"a\nb", True),
            (b"a\rb", True),
            (b"a\r\rb", True),
            (b"a\r\r\nb", True),
            (b"a\r\n\nb", True),
            (b"a\n\r", True),
            (b"a\n\r\n", True),
            *(
                (bytes((octet,)), octet in {*range(9), *range(10, 13), *range(14, 32), 127})
                for octet in range(256)
            ),
        ]:
            self.assertEqual(BROKEN.search(text) is not None, broken, text)

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(PIECES)).map(b"".join), st.data())
    def test_in_two_looks(self, text: bytes, data: st.DataObject) -> None:
        """Who has looked at the beginning, need not look at more of it than its last byte."""
        plain = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n")
        whole = BROKEN.search(text) is not None
        self.assertEqual(whole, plain.search(text) is not None)
        half = data.draw(st.integers(0, len(text)))
        first, second = BROKEN.search(text[:half]), BROKEN.search(bytearray(text), max(0, half - 1))
        self.assertEqual(first is not None or second is not None, whole)


class FieldTests(SynchronousTestCase):
    """Tests for L{parse_field} and L{parse_fields}."""

    def test_cases(self) -> None:
        """A name is a token, and a value what is between the blanks after its colon and those at the end."""
        long = b"a" * NAME_LENGTH
        for line, wanted in [
            (b"a:b", (b"a", b"b")),
            (b"Content-Type: text/plain", (b"Content-Type", b"text/plain")),
            (b"a:", (b"a", b"")),
            (b"a: \t ", (b"a", b"")),
            (b"a: \t b \t c\t ", (b"a", b"b \t c")),
            (b"a: b: c", (b"a", b"b: c")),
            (b"a:\xa0b\x85", (b"a", b"\xa0b\x85")),
            (b"a: \xe9\x80\xff", (b"a", b"\xe9\x80\xff")),
            (b"!#$%&'*+-.^_`|~: 1", (b"!#$%&'*+-.^_`|~", b"1")),
            (long + b": b", (long, b"b")),
        ]:
            self.assertEqual(parse_field(line), wanted)
            self.assertEqual(next(iter(parse_fields([line]).getAllRawHeaders()))[1], [wanted[1]])

    def test_refused(self) -> None:
        """Whatever is no field line is refused, and its mistake is named."""
        name, value = "a header's name holds", "a header's value holds"
        for line, why in [
            (b"", "has no colon"),
            (b"a", "has no colon"),
            (b":", "has no name"),
            (b": b", "has no name"),
            (b" a: b", "is continued"),
            (b"\ta: b", "is continued"),
            (b" ", "is continued"),
            (b"a : b", "a blank before"),
            (b"a\t: b", "a blank before"),
            (b"a b: c", name),
            (b"a\0: b", name),
            (b"a\r: b", name),
            (b"a\n: b", name),
            (b"a\x0b: b", name),
            (b"a(b): c", name),
            (b'"a": b', name),
            (b"a/b: c", name),
            (b"\xe9: b", name),
            (b"\xef\xbb\xbfa: b", name),
            (b"a: b\0", value),
            (b"a: b\rc", value),
            (b"a: b\nc: d", value),
            (b"a: b\r", value),
            (b"a: b\n", value),
            (b"a: \x0b5", value),
            (b"a: \x0c5", value),
            (b"a: \x7f", value),
            (b"a: \x1b[0m", value),
            (b"a" * (NAME_LENGTH + 1) + b": b", "name is too long"),
        ]:
            self.assertIn(why, str(self.assertRaises(Malformed, parse_field, line)), line)
            several = [b"a: b", line, b"c: d"]
            self.assertIn(why, str(self.assertRaises(Malformed, parse_fields, several)), line)

    def test_several(self) -> None:
        """Those of one name stay several, in their order."""
        headers = parse_fields([b"SET-cookie: a=1, b", b"X: y", b"set-cookie:c"])
        wanted = [(b"Set-Cookie", [b"a=1, b", b"c"]), (b"X", [b"y"])]
        self.assertEqual(list(headers.getAllRawHeaders()), wanted)
        self.assertEqual(list(parse_fields([]).getAllRawHeaders()), [])

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(PIECES)).map(b"".join))
    def test_together_as_alone(self, text: bytes) -> None:
        """Many lines at once are what each of them is alone."""
        lines = text.split(b"\r\n")
        try:
            wanted = [parse_field(line) for line in lines]
        except Malformed:
            self.assertRaises(Malformed, parse_fields, lines)
            return
        headers = Headers()
        for name, value in wanted:
            headers.addRawHeader(name, value)
        self.assertEqual(parse_fields(lines), headers)


class ListTests(SynchronousTestCase):
    """Tests for L{list_elements} and L{connection_options}."""

    def test_elements(self) -> None:
        """They are taken from all fields, without blanks around them; empty ones do not count."""
        for values, wanted in [
            ([], []),
            ([b""], []),
            ([b" ,\t, "], []),
            ([b"a"], [b"a"]),
            ([b"A , b\t,,C c"], [b"a", b"b", b"c c"]),
            ([b"a, b", b"c"], [b"a", b"b", b"c"]),
            ([b"a\x0b, b\xa0"], [b"a\x0b", b"b\xa0"]),
        ]:
            self.assertEqual(list_elements(values), wanted)

    def test_options(self) -> None:
        """Connection's are tokens."""
        for values, wanted in [
            ([], set()),
            ([b""], set()),
            ([b"Keep-Alive"], {b"keep-alive"}),
            ([b"close, X-A", b"x-B,close"], {b"close", b"x-a", b"x-b"}),
        ]:
            self.assertEqual(connection_options(Headers({b"Connection": values})), wanted)
        for value in [b'"close"', b"close x", b"close;", b"\xe9", b"a=b"]:
            headers = Headers({b"Connection": [b"close", value]})
            self.assertRaises(Malformed, connection_options, headers)


class LengthTests(SynchronousTestCase):
    """Tests for L{parse_length}."""

    def test_cases(self) -> None:
        """It is one number of at most 18 digits."""
        for value, wanted in [(b"0", 0), (b"5", 5), (b"007", 7), (b"9" * 18, 10**18 - 1), (b"0" * 18, 0)]:
            self.assertEqual(parse_length([value]), wanted)

    def test_refused(self) -> None:
        """Everything that another parser might take for a number is refused."""
        for value in [
            *(b"", b" ", b"+5", b"-5", b"-0", b"5 ", b" 5", b"5 5", b"5,5", b"5, 5", b"5;a", b"5.0", b"5e1"),
            *(b"1_0",),
            *(b"0x5", b"0X5", b"0b1", b"five", b"5\0", b"5\n", b"\xb2", b"\xd9\xa5", b"9" * 19, b"0" * 19),
            *(b"1" * 100000,),
        ]:
            self.assertRaises(Malformed, parse_length, [value])
        for values in ([b"5", b"5"], [b"5", b"6"], [b"5", b""], [b"5", b"5", b"5"]):
            self.assertIn("more than one", str(self.assertRaises(Malformed, parse_length, values)))


class AuthorityTests(SynchronousTestCase):
    """Tests for L{is_authority}."""

    def test_cases(self) -> None:
        """It is a name or an address that is not empty, with or without a port."""
        for text in [
            *(b"a", b"example.org", b"EXAMPLE.org.", b"a:80", b"a:0", b"a:65535", b"a:00080", b"a:", b"a_b"),
            *(b"xn--caf-dma",),
            *(b"127.0.0.1", b"127.0.0.1:8080", b"1", b"a;b=c", b"~", b"-", b"."),
            *(b"[::1]", b"[::]:80", b"[2001:DB8::1]:443", b"[::ffff:10.0.0.1]", b"[1:2:3:4:5:6:7:8]"),
        ]:
            self.assertTrue(is_authority(text), text)
        for text in [
            *(b"", b":", b":80", b"a:b", b"a:-1", b"a:+1", b"a:65536", b"a:99999", b"a:100000", b"a:80:80"),
            *(b"a: 80",),
            *(b"a b", b" a", b"a\t", b"a,b", b"a, a", b"u@a", b"u:p@a", b"a/", b"a/b", b"a?b", b"a#b"),
            *(b"a\\b", b'"a"'),
            *(b"http://a", b"<a>", b"a|b", b"a^b", b"{a}", b"a%", b"a%2", b"a%zz", b"caf\xe9"),
            *(b"a%2Eb", b"exampl%65"),
            *(b"caf\xc3\xa9", b"a\n", b"a\0"),
            *(b"::1", b"[", b"[]", b"[::1", b"::1]", b"[::1]a", b"a[::1]", b"[[::1]]", b"[::1]:a"),
            *(b"[::1]80", b"[a]"),
            *(b"[1.2.3.4]", b"[::1%25eth0]", b"[::1%eth0]", b"[v1.a]", b"[1:2:3]", b"[1::2::3]", b"[:::]"),
            *(b"[12345::]",),
            *(b"[::1]:65536", b"[ ::1]", b"[" + b":" * 46 + b"]"),
        ]:
            self.assertFalse(is_authority(text), text)


class CostTests(SynchronousTestCase):
    """What takes the patterns longest does not take them long."""

    def seconds(self, unit: bytes, size: int) -> float:
        """Of the processor's time for a text of this size that nothing matches."""
        text = unit * size + b"\0"
        times = []
        for _ in range(3):
            start = process_time()
            for pattern in (BROKEN, re.compile(QUOTED)):
                pattern.fullmatch(text)
            is_authority(text)
            self.assertRaises(Malformed, parse_field, text)
            self.assertRaises(Malformed, parse_field, b"a:" + text)
            self.assertRaises(Malformed, parse_fields, [b"a: b", text, b"a:" + text])
            self.assertRaises(Malformed, parse_fields, [b"a: b", *[text[:40] + b"\0"] * (size // 40)])
            self.assertRaises(Malformed, parse_length, [text])
            times.append(process_time() - start)
        return min(times)

    def test_linear(self) -> None:
        """Eight times as much takes about eight times as long; if the cost were quadratic, it were 64 times."""
        for unit in [b"a", b" ", b"\t", b":", b",", b"\\", b"[", b"%41", b"a:", b"0", b"\xe9", b'"']:
            self.assertLess(self.seconds(unit, 64_000), 30 * self.seconds(unit, 8_000) + 0.001, unit)
