"""Tests for L{thrtwisted.chunks}."""

from __future__ import annotations

import contextlib
import gc
import weakref
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.chunks import LINE_LENGTH, ChunkedBody
from thrtwisted.config import Bounds
from thrtwisted.errors import BadRequest, BodyTooLarge, ExchangeError, HeadTooLarge

BOUNDS = Bounds()
#: For properties: all of them can be reached by short texts.
SMALL = Bounds(body_size=40, head_size=256, header_count=3)
END = b"0\r\n\r\n"
#: Pieces of which chunks can be made, or what nearly is one.
PIECES = [
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"1;a=b\r\nx\r\n", b"A\r\n0123456789\r\n", b"0\r\n", b"\r\n", b"\r"),
    *(b"\n", b"0", b"5"),
    *(b"5\r\n", b"hello", b";", b'="q\\" ;"', b" ", b"X: y\r\n", b":", b"ffffffff", b"-", b"\0", b"\xe9"),
    *(b";" + b"a" * 200,),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join) | st.binary(max_size=60)


def read(pieces: list[bytes], bounds: Bounds = BOUNDS) -> tuple[bytes, bool, bytes]:
    """The body that these bytes bring, whether it has ended, and what follows it."""
    chunked = ChunkedBody(bounds)
    body = b"".join([piece for data in pieces for piece in chunked.feed(data)])
    return body, chunked.ended, chunked.rest


def outcome(pieces: list[bytes], bounds: Bounds) -> tuple[bytes, bool, bytes] | None:
    """The same, or None where it is refused."""
    try:
        return read(pieces, bounds)
    except ExchangeError:
        return None


def in_bytes(text: bytes) -> list[bytes]:
    return [text[index : index + 1] for index in range(len(text))]


class ChunksTestCase(SynchronousTestCase):
    """Can say what is refused."""

    def assert_refused(self, kind: type[ExchangeError], text: bytes, bounds: Bounds = BOUNDS) -> None:
        """This is refused, at once and byte by byte, with a message that is a sentence for everybody."""
        for pieces in ([text], in_bytes(text)):
            try:
                accepted = read(pieces, bounds)
            except ExchangeError as error:
                self.assertIs(type(error), kind, (text, error))
                self.assertRegex(str(error), r"^[A-Z][ -~]*\.$")
            else:
                self.fail(f"{text!r} was accepted: {accepted!r}")


class BodyTests(ChunksTestCase):
    """What is read, and what is refused."""

    def test_accepted(self) -> None:
        """The chunks make the body; extensions and trailers are dropped; what follows is another's."""
        quoted = b'5;a="b;\\"\r\n'
        for text, wanted in [
            (END, (b"", True, b"")),
            (b"5\r\nhello\r\n" + END, (b"hello", True, b"")),
            (b"5\r\nhello\r\n1\r\n!\r\n" + END, (b"hello!", True, b"")),
            (b"0005\r\nhello\r\n000\r\n\r\n", (b"hello", True, b"")),
            (b"a\r\n0123456789\r\nA\r\n0123456789\r\n" + END, (b"01234567890123456789", True, b"")),
            (b"0000000000000005\r\nhello\r\n" + b"0" * 16 + b"\r\n\r\n", (b"hello", True, b"")),
            (b"4\r\n\r\n\r\n\r\n" + END, (b"\r\n\r\n", True, b"")),
            (b"3\r\n0\r\n\r\n" + END, (b"0\r\n", True, b"")),
            (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", (b"hello", True, b"")),
            (b'5;a=b;c="d \\" \xe9;\\\\";e\r\nhello\r\n0;z=""\r\n\r\n', (b"hello", True, b"")),
            (b"0\r\nX: y\r\nContent-Length: 5\r\n\r\n", (b"", True, b"")),
            (b"0\r\nX:\r\n\r\nGET / HTTP/1.1\r\n", (b"", True, b"GET / HTTP/1.1\r\n")),
            (END + END, (b"", True, END)),
            (b"", (b"", False, b"")),
            (b"5", (b"", False, b"")),
            (b"5\r", (b"", False, b"")),
            (b"5\r\nhel", (b"hel", False, b"")),
            (b"5\r\nhello", (b"hello", False, b"")),
            (b"5\r\nhello\r", (b"hello", False, b"")),
            (b"5\r\nhello\r\n", (b"hello", False, b"")),
            (b"0\r\n", (b"", False, b"")),
            (b"0\r\nX: y\r\n\r", (b"", False, b"")),
            (quoted[:-2], (b"", False, b"")),
        ]:
            self.assertEqual(read([text]), wanted, text)
            self.assertEqual(read(in_bytes(text)), wanted, text)

    def test_sizes_refused(self) -> None:
        """A size is hexadecimal digits, sixteen at most, and nothing but extensions follows it."""
        for line in [
            *(b"", b" ", b"-1", b"+5", b"-0", b"0x5", b"0X5", b"5h", b"g", b" 5", b"5 ", b"5\t", b"\t5"),
            *(b"5 5", b"5,5", b"5.0"),
            *(b"5_0", b"0_5", b"five", b"#5", b"$5", b'"5"', b"5\0", b"\x005", b"5\x0b", b"\x0c5", b"\xb2"),
            *(b"\xef\xbc\x95",),
            *(b"0" * 17, b"0" * 16 + b"5", b"f" * 17, b"1" * 1000, b"5\r", b"\r5", b"5\n", b"\n5", b"5:"),
            *(b"5=a", b"hello"),
        ]:
            self.assert_refused(BadRequest, line + b"\r\nhello\r\n" + END)
            self.assert_refused(BadRequest, b"5\r\nhello\r\n" + line + b"\r\nhello\r\n" + END)

    def test_extensions_refused(self) -> None:
        """Extensions have names and values, no blanks between them, and no control characters in them."""
        for extension in [
            *(b";", b";;a", b";a;", b"; a", b" ;a", b";a ", b";a =b", b";a= b", b";=b", b";a=", b";a=b c"),
            *(b";a=b=c", b"\t;a"),
            *(b';a="b', b';a=b"', b';a="b"c', b';a="b\\"', b';a="\0"', b';a="\x7f"', b';a="\\\n"'),
            *(b';a="b\nc"', b';a="\r"'),
            *(b";a\0", b";\xe9", b";a=\xe9", b";a=b\x0b", b";a\rb", b";a\nb", b";a\r", b";a\n", b",a"),
            *(b";a,b", b";(a)", b";a/b"),
        ]:
            for digit in (b"5", b"0"):
                self.assert_refused(BadRequest, digit + extension + b"\r\nhello\r\n" + END)

    def test_ends_refused(self) -> None:
        """A line ends with CR LF, and so does a chunk, where its size says."""
        for text in [
            *(b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\n\rhello", b"5\r\r\nhello", b"0\n\n"),
            *(b"0\r\n\n", b"0\r\n\rX"),
            *(b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r0\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello \r\n"),
            *(b"5\r\nhello!\r\n0\r\n\r\n",),
            *(b"5\r\nhell\r\n0\r\n\r\n", b"5\r\nhello\n\r", b"5\r\nhello\r\r"),
            *(b"5\r\nhello\r\n\r\n0\r\n\r\n", b"5\r\nhello\0\r\n"),
            *(b"5\nhello\n0\n\n", b"5\r\nhello\r\n0\n\r\n", b"\r\n5\r\nhello\r\n", b"0\r\n \r\n"),
            *(b"0\r\n\0\r\n",),
        ]:
            self.assert_refused(BadRequest, text)

    def test_trailers_refused(self) -> None:
        """What stands after the last chunk are fields."""
        for line in [
            *(b"X", b": y", b"X : y", b" X: y", b"\tX: y", b"X y: z", b"X: \0", b"X: y\rz", b"X: y\nZ: a"),
            *(b"\xe9: y", b" "),
            *(b"GET / HTTP/1.1", b"0", b"X\0: y", b"X: y\n", b"X: y\r", b"a" * 257 + b": b"),
        ]:
            self.assert_refused(BadRequest, b"0\r\n" + line + b"\r\n\r\n")
            self.assert_refused(BadRequest, b"0\r\nY: z\r\n" + line + b"\r\n\r\n")

    def test_at_once(self) -> None:
        """What can only be wrong is refused before its line has ended."""
        for text in [
            b"5\n",
            b"5\rh",
            b"5\r\nhello\n",
            b"5\r\nhellox",
            b"5\r\nhello\rx",
            b"0\r\n\n",
            b"0\r\nX: y\n",
            b"\n",
        ]:
            chunked = ChunkedBody(BOUNDS)
            chunked.feed(text[:-1])
            self.assertRaises(BadRequest, chunked.feed, text[-1:])

    def test_rest(self) -> None:
        """What follows is kept, also if it comes later."""
        chunked = ChunkedBody(BOUNDS)
        self.assertEqual([chunked.feed(data) for data in (END + b"a", b"b", b"")], [[], [], []])
        self.assertEqual((chunked.ended, chunked.rest), (True, b"ab"))

    def test_gone(self) -> None:
        """A body that nobody needs any more does not wait for the collector of cycles."""
        gc.disable()
        self.addCleanup(gc.enable)
        chunked = ChunkedBody(BOUNDS)
        chunked.feed(b"5\r\nhello\r\n0\r\nX:")
        gone = weakref.ref(chunked)
        del chunked
        self.assertIsNone(gone())


class BoundsTests(ChunksTestCase):
    """How much a body may be."""

    def test_body_size(self) -> None:
        """It is too large as soon as a chunk says so."""
        bounds = Bounds(body_size=10)
        self.assertEqual(read([b"5\r\nhello\r\n5\r\nworld\r\n" + END], bounds), (b"helloworld", True, b""))
        for text in (
            b"b\r\n",
            b"5\r\nhello\r\n6\r\n",
            b"5\r\nhello\r\n5\r\nworld\r\n1\r\n",
            b"f" * 16 + b"\r\n",
        ):
            self.assert_refused(BodyTooLarge, text, bounds)
        self.assert_refused(BodyTooLarge, b"1\r\n", Bounds(body_size=0))
        self.assertEqual(read([END], Bounds(body_size=0)), (b"", True, b""))

    def test_line(self) -> None:
        """A line has a bound, whether or not it ends."""
        for start in (b"5;", b"0\r\n" + b"X:"):
            room = LINE_LENGTH - len(start.rpartition(b"\n")[2])
            for pieces in ([start + b"a" * room + b"\r\n"], in_bytes(start + b"a" * room + b"\r\n")):
                self.assertEqual(read(pieces), (b"", False, b""))
            for ending in (b"a", b"a\r\n", b"a" * 10_000, b"a" * 10_000 + b"\r\n", b"a" * 100_000):
                self.assert_refused(BadRequest, start + b"a" * room + ending)

    def test_extensions(self) -> None:
        """Extensions may be as large as a head, and as the body so far on top."""
        bounds = Bounds(head_size=300)
        chunk = b"1;" + b"a" * 99 + b"\r\nx\r\n"
        self.assertEqual(read([chunk * 3 + END], bounds), (b"xxx", True, b""))
        self.assert_refused(BadRequest, chunk * 4 + END, bounds)
        chunk = b"64;" + b"a" * 99 + b"\r\n" + b"x" * 100 + b"\r\n"
        self.assertEqual(read([chunk * 100 + END], bounds)[1], True)
        self.assert_refused(BadRequest, b"0;" + b"a" * 300 + b"\r\n\r\n", bounds)

    def test_trailers(self) -> None:
        """Trailers are bounded in number and in all, like the head."""
        bounds = Bounds(header_count=3, head_size=300)
        self.assertEqual(read([b"0\r\n" + b"X: y\r\n" * 3 + b"\r\n"], bounds)[1], True)
        self.assert_refused(HeadTooLarge, b"0\r\n" + b"X: y\r\n" * 4 + b"\r\n", bounds)
        self.assertEqual(read([b"0\r\nX:" + b"y" * 296 + b"\r\n\r\n"], bounds)[1], True)
        self.assert_refused(HeadTooLarge, b"0\r\nX:" + b"y" * 297 + b"\r\n\r\n", bounds)
        self.assert_refused(
            HeadTooLarge, b"0\r\nX:" + b"y" * 200 + b"\r\nY:" + b"z" * 93 + b"\r\n\r\n", bounds
        )


class PropertiesTests(ChunksTestCase):
    """What holds of all bodies."""

    @settings(deadline=None)
    @given(
        st.lists(st.binary(min_size=1, max_size=40)),
        st.sampled_from([b"%x", b"%X", b"0%x", b'%x;a="\\"";b', b"%x;a=b"]),
        st.sampled_from([b"", b"X: y\r\n", b"X: y\r\nY:\r\n"]),
        st.binary(max_size=10),
        st.integers(1, 50),
    )
    def test_round(self, chunks: list[bytes], size: bytes, trailers: bytes, rest: bytes, step: int) -> None:
        """What was put into chunks comes out again, and what follows them stays."""
        text = b"".join(size % len(chunk) + b"\r\n" + chunk + b"\r\n" for chunk in chunks)
        text += b"0\r\n" + trailers + b"\r\n" + rest
        pieces = [text[start : start + step] for start in range(0, len(text), step)]
        self.assertEqual(read(pieces), (b"".join(chunks), True, rest))

    @settings(deadline=None)
    @given(TEXTS, st.data())
    def test_however_cut(self, text: bytes, data: st.DataObject) -> None:
        """In whatever pieces the bytes come, they are read alike, or refused alike."""
        whole = outcome([text], SMALL)
        self.assertEqual(outcome(in_bytes(text), SMALL), whole)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        self.assertEqual(outcome(pieces, SMALL), whole)
        if whole is not None:
            self.assertLessEqual(len(whole[0]), SMALL.body_size)


class CostTests(ChunksTestCase):
    """What a client can make the proxy compute."""

    def seconds(self, text: bytes, step: int) -> float:
        """Of the processor's time, for this text in pieces of so many bytes."""
        bounds = Bounds(body_size=2**30, head_size=2**20, header_count=10_000)
        pieces = [text[start : start + step] for start in range(0, len(text), step)]
        times = []
        for _ in range(3):
            chunked = ChunkedBody(bounds)
            start = process_time()
            with contextlib.suppress(ExchangeError):
                for piece in pieces:
                    chunked.feed(piece)  # what it returns is not joined: new memory has a price of its own
            times.append(process_time() - start)
        return min(times)

    def test_linear(self) -> None:
        """Eight times as much takes about eight times as long; not 64 times, as quadratic cost would."""
        chunk = b"1;" + b"a" * 90 + b"\r\nx\r\n"
        large = b"ffff\r\n" + b"x" * 65535 + b"\r\n"
        for begun, unit, size, step in [
            (b"", b"1\r\nx\r\n", 16_000, 2**30),
            (b"", b"1\r\nx\r\n", 16_000, 1),
            (b"", chunk, 64_000, 2**30),
            (b"", chunk, 16_000, 1),
            (b"", large, 2**22, 2**30),
            (b"4000000\r\n", b"x", 64_000, 1),
            (b"0\r\n", b"X:\r\n", 16_000, 2**30),
            (b"0\r\n", b"X:" + b"y" * 4000 + b"\r\n", 32_000, 1),
        ]:
            text = begun + (unit * (size // len(unit) + 1))[:size]
            few, many = self.seconds(text[: size // 8], step), self.seconds(text, step)
            self.assertLess(many, 30 * few + 0.001, unit[:10])

    def test_lines(self) -> None:
        """A line that is nearly an extension costs no more than its length."""
        for unit in (b";", b";a", b";a=", b";a=b", b';a="', b'";', b"\\", b'\\"', b"a", b"="):
            few, many = (
                self.seconds(b"5;a" + (unit * 4000)[:size] + b"\0\r\n", 2**30) for size in (500, 4000)
            )
            self.assertLess(many, 30 * few + 0.001, unit)
