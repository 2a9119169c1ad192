"""Tests for L{thrtwisted.listen.incoming}."""

from __future__ import annotations

from io import BytesIO

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.config import Bounds
from thrtwisted.errors import BadRequest, BodyTooLarge
from thrtwisted.listen.incoming import SMALL, IncomingBody, IncomingHeads

HEAD = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


class IncomingHeadsTests(SynchronousTestCase):
    """Tests for L{IncomingHeads}."""

    def setUp(self) -> None:
        self.heads = IncomingHeads(Bounds())

    def test_heads(self) -> None:
        """Heads are taken one by one, in any pieces."""
        found = []
        for byte in HEAD % 1 + b"\r\n" + HEAD % 2 + HEAD % 3:
            self.heads.add(bytes([byte]))
            head = self.heads.head()
            if head is not None:
                found.append(head.target)
        self.assertEqual(found, [b"/1", b"/2", b"/3"])
        self.assertEqual(len(self.heads), 0)

    def test_begun(self) -> None:
        """A head has begun with its first byte; an empty line before it is not one."""
        self.assertFalse(self.heads.begun)
        self.heads.add(b"\r\n")
        self.assertFalse(self.heads.begun)
        self.heads.add(b"G")
        self.assertTrue(self.heads.begun)

    def test_take(self) -> None:
        """What follows a head may be something else."""
        self.heads.add(HEAD % 1 + b"abc\r\n\r\n")
        self.heads.head()
        self.assertEqual(self.heads.take(), b"abc\r\n\r\n")
        self.assertEqual(len(self.heads), 0)
        self.heads.add(HEAD % 2)
        self.assertIsNotNone(self.heads.head())

    def test_refused(self) -> None:
        """A refused head tells what it asked for, be it complete or not."""
        for data in (b"GET /page HTTP/1.1\r\nbad\r\n\r\n", b"GET /page HTTP/1.1\r\nbad\x00"):
            heads = IncomingHeads(Bounds())
            heads.add(data)
            self.assertRaises(BadRequest, heads.head)
            self.assertEqual(heads.asked().target, b"/page")


class IncomingBodyTests(SynchronousTestCase):
    """Tests for L{IncomingBody}."""

    def setUp(self) -> None:
        self.made = BytesIO()

    def body(self, length: int | None, **bounds: int) -> IncomingBody:
        return IncomingBody(length, Bounds(**bounds), lambda: self.made)

    def test_length(self) -> None:
        """It ends after so many bytes, and tells what follows."""
        body = self.body(5)
        self.assertIsNone(body.feed(b""))
        self.assertIsNone(body.feed(b"abc"))
        self.assertEqual(body.feed(b"defg"), b"fg")
        self.assertEqual((body.file.getvalue(), body.received), (b"abcde", 5))
        self.assertIsNot(body.file, self.made)

    def test_large(self) -> None:
        """A large one, or one whose size nobody knows, has a file that may go to the disk."""
        self.assertIsNot(self.body(SMALL).file, self.made)
        self.assertIs(self.body(SMALL + 1).file, self.made)
        self.assertIs(self.body(None).file, self.made)

    def test_chunked(self) -> None:
        """So one in chunks."""
        body = self.body(None)
        self.assertIsNone(body.feed(b"3\r\nabc\r\n"))
        self.assertEqual(body.feed(b"0\r\n\r\nrest"), b"rest")
        self.assertEqual((self.made.getvalue(), body.received), (b"abc", 3))
        body.close()
        self.assertTrue(self.made.closed)

    def test_tiny_chunks(self) -> None:
        """Tiny chunks that come at once are written at once."""
        writes: list[bytes] = []
        self.made.write = lambda data: writes.append(bytes(data)) or len(data)  # type: ignore[assignment]
        self.assertEqual(self.body(None).feed(b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\nrest"), b"rest")
        self.assertEqual(writes, [b"x" * 10_000])

    def test_refused(self) -> None:
        """It may be malformed, or too large."""
        self.assertRaises(BadRequest, self.body(None).feed, b"x\r\n")
        self.assertRaises(BodyTooLarge, self.body(None, body_size=2).feed, b"3\r\n")
