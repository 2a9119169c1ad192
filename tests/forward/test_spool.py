"""Tests of the spool."""

import os
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.forward.disk import Disk
from thrtwisted.forward.spool import FILE, FILES, PIECE, Spool


def drain(spool: Spool) -> bytes:
    return b"".join(iter(spool.take, b""))


class SpoolTests(SynchronousTestCase):
    """Bytes come out as they went in, whatever lies between."""

    def spool(self, max_file: int, memory: int = 10) -> Spool:
        spool = Spool(max_file, memory)
        self.addCleanup(spool.close)
        return spool

    def on_disk(self, spool: Spool) -> int:
        """What its files really have."""
        return sum(os.fstat(file._file.fileno()).st_size for file in spool._files)

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
            longest = max(longest, self.on_disk(spool))
            self.assertEqual(self.on_disk(spool), spool.taken)
        self.assertLessEqual(longest, 1000)
        self.assertGreater(len(written), 20_000)
        self.assertEqual(bytes(read) + drain(spool), bytes(written))

    def test_drained_file(self):
        """Once everything is read, nothing stays on the disk."""
        disk = Disk(1000)
        spool = Spool(100, 10, disk)
        self.addCleanup(spool.close)
        spool.append(b"0123456789")
        spool.append(b"in the file")
        self.assertEqual((disk.used, self.on_disk(spool)), (11, 11))
        drain(spool)
        self.assertEqual((disk.used, self.on_disk(spool)), (0, 0))
        spool.append(b"again")
        self.assertEqual(drain(spool), b"again")

    def test_memory(self) -> None:
        """Of what waits for a slow reader no more than 128 kB is in memory, which nothing counts."""
        disk = Disk(10**7)
        spool = Spool(10**7, disk=disk)
        self.addCleanup(spool.close)
        for _ in range(20):
            spool.append(bytes(PIECE))
            self.assertLessEqual(len(spool) - disk.used, 128 * 1024)

    def test_several_files(self):
        """What was read of many bytes is given back before all of them are read."""
        size = 4 * FILES * FILE
        disk = Disk(size)
        spool = Spool(size, PIECE, disk)
        self.addCleanup(spool.close)
        data = os.urandom(PIECE)
        for _ in range((size + PIECE) // PIECE):
            spool.append(data)
        self.assertFalse(spool.full)
        self.assertEqual((len(spool._files), disk.used, self.on_disk(spool)), (FILES, size, size))
        for _ in range((size // FILES + PIECE) // PIECE):
            self.assertEqual(spool.take(), data)
        self.assertEqual((len(spool._files), disk.used), (FILES - 1, size - size // FILES))
        self.assertEqual(drain(spool), data * ((size - size // FILES) // PIECE))
        self.assertEqual(disk.used, 0)

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
        [file] = spool._files
        spool.close()
        spool.close()
        self.assertTrue(file._file.closed)
        self.assertEqual((len(spool), spool.take(), spool.taken), (0, b"", 0))

    def test_truncated_file(self):
        """A file that lost what was written to it is an error, not an endless loop."""
        spool = self.spool(100, 1)
        spool.append(b"a")
        spool.append(b"b")
        os.ftruncate(spool._files[0]._file.fileno(), 0)
        self.assertEqual(spool.take(), b"a")
        self.assertRaises(OSError, spool.take)


class SharedDiskTests(SynchronousTestCase):
    """Spools that share a disk take turns, and none is forgotten."""

    def setUp(self):
        self.rooms = []

    def spool(self, disk: Disk, name: str = "", max_file: int = 1000, memory: int = 10) -> Spool:
        spool = Spool(max_file, memory, disk, lambda: self.rooms.append(name))
        self.addCleanup(spool.close)
        return spool

    def test_full_disk(self):
        """A spool for which the disk has no room is full, though its own limit is far."""
        disk = Disk(10)
        spool = self.spool(disk)
        spool.append(b"0123456789")
        spool.append(b"abcdefgh")
        self.assertFalse(spool.full)
        spool.append(b"ijk")
        self.assertEqual((spool.full, spool.roomy, disk.used), (True, False, 8))
        self.assertEqual(drain(spool), b"0123456789abcdefghijk")
        self.assertEqual((disk.used, spool.roomy), (0, True))

    def test_no_disk(self):
        """Without any disk a spool lives in memory, and goes on when its client has taken half of that."""
        disk = Disk(0)
        spool = self.spool(disk, memory=4 * PIECE)
        data = os.urandom(4 * PIECE)
        spool.append(data)
        spool.append(b"more")
        self.assertTrue(spool.full)
        taken = [spool.take()]
        self.assertTrue(spool.full)
        while spool.full:
            taken.append(spool.take())
        self.assertGreater(len(spool), PIECE)
        self.assertTrue(spool.roomy)
        self.assertEqual(b"".join(taken) + drain(spool), data + b"more")
        self.assertFalse(spool.opened)
        self.assertEqual(repr(disk), "<Disk 0 of 0, 0 waiting>")

    def test_woken(self):
        """A full spool whose client takes nothing is told when others give room back, in the order of waiting."""
        disk = Disk(20)
        first, second, third = (self.spool(disk, name) for name in "abc")
        for spool in first, second, third:
            spool.append(b"0123456789")
        first.append(bytes(20))
        second.append(b"second")
        third.append(b"third")
        self.assertEqual([first.full, second.full, third.full], [False, True, True])
        first.close()
        self.assertEqual(self.rooms, ["b", "c"])
        self.assertEqual([second.full, third.full, disk.used], [False, False, 11])
        self.assertEqual(drain(second), b"0123456789second")
        self.assertEqual(drain(third), b"0123456789third")
        self.assertEqual((disk.used, self.rooms), (0, ["b", "c"]))

    def test_woken_in_part(self):
        """One that still does not fit goes on waiting, and is told later."""
        disk = Disk(20)
        others = [self.spool(disk) for _ in range(2)]
        for spool in others:
            spool.append(b"0123456789")
            spool.append(b"0123456789")
        waiting = self.spool(disk, "waiting")
        waiting.append(b"0123456789")
        waiting.append(bytes(15))
        others[0].close()
        self.assertEqual((self.rooms, waiting.full, disk.used), ([], True, 10))
        others[1].close()
        self.assertEqual((self.rooms, waiting.full, disk.used), (["waiting"], False, 15))

    def test_served_by_itself(self):
        """One that finds room in what it has read itself waits no more, though somebody before it does."""
        disk = Disk(30)
        other, waiting = self.spool(disk), self.spool(disk)
        for spool, filed, more in (other, 10, 25), (waiting, 20, 5):
            spool.append(b"0123456789")
            spool.append(bytes(filed))
            spool.append(bytes(more))
        self.assertEqual(repr(disk), "<Disk 30 of 30, 2 waiting>")
        waiting.take()
        waiting.take()
        self.assertEqual((waiting.full, len(waiting), repr(disk)), (False, 5, "<Disk 15 of 30, 1 waiting>"))

    def test_leaving(self):
        """A spool that is closed while it waits is told nothing, and takes nothing."""
        disk = Disk(5)
        other, waiting = self.spool(disk), self.spool(disk, "waiting")
        for spool in other, waiting:
            spool.append(b"0123456789")
            spool.append(b"abc")
        waiting.close()
        other.close()
        self.assertEqual((self.rooms, disk.used, repr(disk)), ([], 0, "<Disk 0 of 5, 0 waiting>"))

    def test_writer_that_goes_on_at_once(self):
        """A writer that fills the disk again as soon as it is told so waits again, and is told again."""
        disk = Disk(30)
        other = self.spool(disk)
        other.append(b"0123456789")
        other.append(bytes(30))
        more = [bytes(25)]

        def room():
            self.rooms.append("told")
            if more:
                waiting.append(more.pop())

        waiting = Spool(1000, 10, disk, room)
        self.addCleanup(waiting.close)
        waiting.append(b"0123456789")
        waiting.append(bytes(25))
        other.close()
        self.assertEqual((self.rooms, waiting.full, len(waiting)), (["told"], True, 60))
        self.assertEqual(drain(waiting), b"0123456789" + bytes(50))
        self.assertEqual((self.rooms, repr(disk)), (["told", "told"], "<Disk 0 of 30, 0 waiting>"))

    def test_more_than_its_own_limit(self):
        """One that waits for the disk and meanwhile has more than its files may hold waits for its own client."""
        disk = Disk(50)
        other, waiting = self.spool(disk), self.spool(disk, "waiting", max_file=60, memory=10)
        other.append(b"0123456789")
        other.append(bytes(40))
        waiting.append(b"0123456789")
        waiting.append(bytes(20))
        waiting.append(bytes(50))
        other.close()
        self.assertEqual((waiting.full, self.rooms, disk.used), (True, [], 0))
        self.assertEqual(drain(waiting), b"0123456789" + bytes(70))

    def test_broken_disk(self):
        """A disk that breaks while others wake a spool is found by the next who uses that, and nobody else."""
        for use in (lambda spool: spool.append(b"x"), lambda spool: spool.take()):
            disk = Disk(20)
            other, waiting = self.spool(disk), self.spool(disk, "waiting")
            for spool in other, waiting:
                spool.append(b"0123456789")
                spool.append(b"0123456789AB")
            no_room = OSError(28, "No space left on device")

            def fail(data, error=no_room):
                raise error

            waiting._store = fail
            other.close()
            self.assertEqual((self.rooms, waiting.full), (["waiting"], False))
            self.assertRaises(OSError, use, waiting)
            waiting.close()
            self.assertEqual(disk.used, 0)
            self.rooms.clear()

    @settings(max_examples=150, deadline=None)
    @given(
        limit=st.integers(0, 120),
        max_file=st.integers(0, 80),
        steps=st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from(["write", "read", "close"]), st.integers(1, 30)),
            max_size=80,
        ),
    )
    def test_anything(self, limit, max_file, steps):
        """
        Whatever they do: bytes come out as they went in, the disk counts what the files have, it never has more than
        its limit, and nobody is full for want of room that is there.
        """
        disk = Disk(limit)
        count = 0
        spools = [Spool(max_file, 10, disk) for _ in range(4)]
        expected = [bytearray() for _ in spools]
        for who, what, size in steps:
            spool = spools[who]
            if what == "write":
                if not spool.full:
                    count += 1
                    data = bytes([count % 256]) * size
                    spool.append(data)
                    expected[who] += data
            elif what == "read":
                piece = spool.take()
                self.assertEqual(piece, bytes(expected[who][: len(piece)]))
                self.assertTrue(piece or not expected[who])
                del expected[who][: len(piece)]
            else:
                spool.close()
                expected[who].clear()
            self.assertEqual([len(spool) for spool in spools], [len(data) for data in expected])
            sizes = [os.fstat(file._file.fileno()).st_size for spool in spools for file in spool._files]
            self.assertEqual((sum(sizes), sum(spool.taken for spool in spools)), (disk.used, disk.used))
            self.assertLessEqual(disk.used, limit)
            self.assertTrue(all(spool.taken <= max_file for spool in spools))
            starved = [spool for spool in spools if spool._asked in disk._waiting]
            self.assertTrue(all(spool._overflow for spool in starved))
            for spool in spools:
                if spool._overflow and spool.taken + len(spool._overflow) <= max_file:
                    self.assertIn(spool, starved)
            if starved:
                first = next(iter(disk._waiting)).__self__
                self.assertGreater(disk.used + len(first._overflow), limit)
        for who, spool in enumerate(spools):
            self.assertEqual(drain(spool), bytes(expected[who]))
            spool.close()
        self.assertEqual(repr(disk), f"<Disk 0 of {limit}, 0 waiting>")
