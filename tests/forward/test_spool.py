"""Tests of the spool."""

import os
import random

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.forward.spool import PIECE, Spool


def drain(spool: Spool) -> bytes:
    return b"".join(iter(spool.take, b""))


class SpoolTests(SynchronousTestCase):
    """Bytes come out as they went in, whatever lies between."""

    def spool(self, max_file: int, memory: int = 10) -> Spool:
        spool = Spool(max_file, memory)
        self.addCleanup(spool.close)
        return spool

    def size_of_file(self, spool: Spool) -> int:
        return os.fstat(spool._file.fileno()).st_size

    def test_little_needs_no_file(self):
        """What fits into memory opens no file."""
        spool = self.spool(100)
        spool.append(b"hello")
        self.assertEqual((len(spool), spool.opened, spool.full, spool.roomy), (5, False, False, True))
        self.assertEqual((spool.take(), spool.take(), len(spool)), (b"hello", b"", 0))

    def test_order(self):
        """Memory, file and overflow come out in the order in which they were filled."""
        spool = self.spool(8)
        data = [b"0123456789", b"abcd", b"efg", b"overflow", b"more"]
        for piece in data:
            spool.append(piece)
        self.assertTrue(spool.full)
        self.assertTrue(spool.opened)
        self.assertEqual(drain(spool), b"".join(data))
        self.assertEqual(len(spool), 0)
        self.assertFalse(spool.full)

    def test_without_file(self):
        """With no file the memory alone counts; what comes all the same is kept."""
        spool = self.spool(0)
        spool.append(b"12345")
        self.assertFalse(spool.full)
        spool.append(b"67890")
        self.assertTrue(spool.full)
        spool.append(b"x")
        self.assertEqual(drain(spool), b"1234567890x")
        self.assertFalse(spool.opened)

    def test_pieces(self):
        """It hands out pieces that a transport can take at once, from memory and from the file."""
        spool = self.spool(4 * PIECE, memory=2 * PIECE)
        data = os.urandom(2 * PIECE) + os.urandom(3 * PIECE)
        spool.append(data[: 2 * PIECE])
        spool.append(data[2 * PIECE :])
        pieces = list(iter(spool.take, b""))
        self.assertEqual(max(map(len, pieces)), PIECE)
        self.assertEqual(b"".join(pieces), data)

    def test_lagging_reader(self):
        """A reader who lags behind for ever never makes the file longer than its limit, and gets every byte."""
        generator = random.Random(7)
        spool = self.spool(1000, memory=50)
        written, read, longest = bytearray(), bytearray(), 0
        for _ in range(3000):
            if not spool.full:
                piece = generator.randbytes(generator.randrange(1, 200))
                spool.append(piece)
                written += piece
            if spool.full or (len(spool) > 600 and generator.random() < 0.6):
                read += spool.take()
            if spool._file is not None:
                longest = max(longest, self.size_of_file(spool))
        self.assertLessEqual(longest, 1000)
        self.assertGreater(len(written), 20_000)
        self.assertEqual(bytes(read) + drain(spool), bytes(written))

    def test_drained_file_is_empty(self):
        """Once everything is read, nothing stays on the disk."""
        spool = self.spool(100)
        spool.append(b"0123456789")
        spool.append(b"in the file")
        drain(spool)
        self.assertEqual(self.size_of_file(spool), 0)
        spool.append(b"again")
        self.assertEqual(drain(spool), b"again")

    def test_roomy(self):
        """A writer that had to stop goes on when half is free, not at the first byte."""
        spool = self.spool(20)
        spool.append(b"0123456789")
        spool.append(b"0123456789ABCDEFGHI")
        self.assertFalse(spool.full)
        spool.append(b"xyz")
        self.assertTrue(spool.full)
        spool.take()
        self.assertFalse(spool.roomy)
        spool.take()
        self.assertTrue(spool.roomy)
        self.assertEqual(drain(spool), b"xyz")

    def test_close(self):
        """Closing gives the file back, and may be done again."""
        spool = Spool(100, 1)
        spool.append(b"a")
        spool.append(b"b")
        file = spool._file
        spool.close()
        spool.close()
        self.assertTrue(file.closed)
        self.assertEqual((len(spool), spool.take()), (0, b""))

    def test_truncated_file(self):
        """A file that lost what was written to it is an error, not an endless loop."""
        spool = self.spool(100, 1)
        spool.append(b"a")
        spool.append(b"b")
        os.ftruncate(spool._file.fileno(), 0)
        self.assertEqual(spool.take(), b"a")
        self.assertRaises(OSError, spool.take)
