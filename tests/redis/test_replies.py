"""Tests for L{thrtwisted.redis.replies}."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import txredisapi
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.redis.support import resp
from thrtwisted.redis.replies import LONGEST_LINE, Replies

VALUES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20),
    lambda values: st.lists(values, max_size=5),
    max_leaves=20,
)


class RepliesTests(SynchronousTestCase):
    """What a server says, as values."""

    def read(self, *pieces: bytes) -> list[Any]:
        reader = Replies()
        return [reply for piece in pieces for reply in reader.feed(piece)]

    @settings(deadline=None)
    @given(st.lists(VALUES), st.lists(st.integers(0, 400)))
    def test_any(self, values: list[Any], cuts: list[int]) -> None:
        """Whatever is said, and however it is cut on its way, is read."""
        data = b"".join(map(resp, values))
        ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
        pieces = [data[a:b] for a, b in pairwise(ends)]
        self.assertEqual(self.read(*pieces), values)

    def test_bytes(self) -> None:
        """It may come byte by byte, and each reply is there with its last byte."""
        reader = Replies()
        data = resp([b"a\r\nb", [b"", None, -1], []])
        for number in range(len(data) - 1):
            self.assertEqual(reader.feed(data[number : number + 1]), [])
        self.assertEqual(reader.feed(data[-1:]), [[b"a\r\nb", [b"", None, -1], []]])

    def test_null(self) -> None:
        """There are two kinds of nothing."""
        self.assertEqual(self.read(b"$-1\r\n*-1\r\n"), [None, None])

    def test_simple(self) -> None:
        """Simple strings are bytes, too."""
        self.assertEqual(self.read(b"+OK\r\n*1\r\n+QUEUED\r\n"), [b"OK", [b"QUEUED"]])

    def test_error(self) -> None:
        """Errors are values, also in a list, whatever bytes they are of."""
        error, [other] = self.read(b"-ERR no \xff\r\n*1\r\n-MOVED 1 a:2\r\n")
        self.assertIsInstance(error, txredisapi.ResponseError)
        self.assertEqual((str(error), str(other)), ("ERR no \ufffd", "MOVED 1 a:2"))

    def test_nonsense(self) -> None:
        """Whoever says something else is no Redis."""
        for data in (b"HTTP/1.1 400 Bad\r\n", b"$x\r\n", b"*\r\n", b":1.5\r\n", b"*1\r\n\r\n", b"\r\n"):
            self.assertRaises(txredisapi.InvalidData, self.read, data)

    def test_endless(self) -> None:
        """So is who never ends a line."""
        self.assertEqual(self.read(b"-" * LONGEST_LINE), [])
        self.assertRaises(txredisapi.InvalidData, self.read, b"-" * LONGEST_LINE, b"-")

    def test_large(self) -> None:
        """A string of megabytes is put together once, not with each piece of it."""
        content = bytes(8 << 20)
        data = resp([content, 1])
        reader = Replies()
        replies = [reply for at in range(0, len(data), 1000) for reply in reader.feed(data[at : at + 1000])]
        self.assertTrue(replies == [[content, 1]])
