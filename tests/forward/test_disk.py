"""Tests of what a process keeps on disk."""

import os
import tempfile
from collections.abc import Callable
from errno import ENOSPC
from io import SEEK_CUR, SEEK_END

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.errors import SpoolFull
from thrtwisted.forward.disk import MEMORY, Disk, RequestFile


class DiskTests(SynchronousTestCase):
    """What is taken is given back, and whoever waits hears of it."""

    def waits(self, disk: Disk, name: str, size: int) -> Callable[[], bool]:
        """Let somebody wait for so many bytes."""

        def satisfied() -> bool:
            if disk.take(size):
                self.served.append(name)
                return True
            return False

        disk.wait(satisfied)
        return satisfied

    def setUp(self):
        self.served = []

    def test_take(self):
        """Bytes are there up to the limit, and again after they were given back."""
        disk = Disk(100)
        self.assertTrue(disk.take(60))
        self.assertFalse(disk.take(41))
        self.assertTrue(disk.take(40))
        disk.give(60)
        self.assertEqual(disk.used, 40)
        self.assertTrue(disk.take(60))
        self.assertEqual(repr(disk), "<Disk 100 of 100, 0 waiting>")

    def test_nothing(self):
        """A disk without bytes is full from the beginning."""
        self.assertFalse(Disk(0).take(1))
        self.assertTrue(Disk(0).take(0))

    def test_more_than_was_taken(self):
        """To give back more than was taken is an error in the caller."""
        disk = Disk(100)
        disk.take(10)
        self.assertRaises(ValueError, disk.give, 11)
        self.assertEqual(disk.used, 10)

    def test_waiting_in_order(self):
        """Those who wait are served in order, each once, and none is passed over for one who needs less."""
        disk = Disk(100)
        disk.take(100)
        for name, size in ("a", 50), ("b", 60), ("c", 10):
            self.waits(disk, name, size)
        disk.give(50)
        self.assertEqual(self.served, ["a"])
        disk.give(50)
        self.assertEqual(self.served, ["a"])
        disk.give(50)
        self.assertEqual(self.served, ["a", "b", "c"])
        self.assertEqual(disk.used, 70)
        disk.give(70)
        self.assertEqual(self.served, ["a", "b", "c"])

    def test_leaving(self):
        """Who waits no more is not asked, and does not keep others from being served."""
        disk = Disk(100)
        disk.take(100)
        first = self.waits(disk, "a", 100)
        self.waits(disk, "b", 10)
        disk.leave(first)
        disk.leave(first)
        disk.give(10)
        self.assertEqual(self.served, ["b"])

    def test_leaving_when_asked(self):
        """Who leaves while it is asked does not keep others from being served."""
        disk = Disk(100)
        disk.take(100)

        def leave() -> bool:
            disk.leave(leave)
            return True

        disk.wait(leave)
        self.waits(disk, "b", 10)
        disk.give(10)
        self.assertEqual(self.served, ["b"])

    def test_waiting_again_when_asked(self):
        """Who has got what it needed and waits again from within is asked after those who wait already."""
        disk = Disk(100)
        disk.take(100)

        def again() -> bool:
            if not disk.take(5):
                return False
            self.served.append("again")
            disk.wait(again)
            return True

        disk.wait(again)
        self.waits(disk, "b", 10)
        disk.give(14)
        self.assertEqual(self.served, ["again"])
        disk.give(11)
        self.assertEqual(self.served, ["again", "b", "again", "again"])
        self.assertEqual(repr(disk), "<Disk 100 of 100, 1 waiting>")

    def test_giving_when_asked(self):
        """What is given back by one who is asked is there for the next, and for itself."""
        disk = Disk(100)
        disk.take(100)
        held = [50]

        def give() -> bool:
            if held:
                disk.give(held.pop())
                return False
            self.served.append("gave")
            return True

        disk.wait(give)
        self.waits(disk, "b", 60)
        disk.give(10)
        self.assertEqual(self.served, ["gave", "b"])
        self.assertEqual(disk.used, 100)


class RequestFileTests(SynchronousTestCase):
    """A request's body is what was written, whatever it lies in; and what it took is given back."""

    def setUp(self):
        self.disk = Disk(1000)

    def file(self, memory: int = 10) -> RequestFile:
        file = RequestFile(self.disk, memory)
        self.addCleanup(file.close)
        return file

    def test_memory(self):
        """A small body takes nothing of the disk."""
        file = self.file()
        self.assertEqual(file.write(b"0123"), 4)
        file.write(b"456789")
        self.assertEqual((file.on_disk, self.disk.used, file.seek(0, SEEK_END)), (False, 0, 10))
        file.seek(0)
        self.assertEqual((file.read(3), file.read(), file.read()), (b"012", b"3456789", b""))

    def test_default(self):
        """By default 100 kB are in memory."""
        disk = Disk(10**6)
        file = RequestFile(disk)
        self.addCleanup(file.close)
        file.write(bytes(MEMORY))
        self.assertEqual(disk.used, 0)
        file.write(b"x")
        self.assertEqual(disk.used, MEMORY + 1)

    def test_disk(self):
        """A larger one is on disk, all of it, and its file has no name."""
        file = self.file()
        for piece in (b"01234", b"56789", b"abc", b"", bytearray(b"def")):
            file.write(piece)
        self.assertEqual((file.on_disk, self.disk.used), (True, 16))
        self.assertEqual(os.fstat(file._file.fileno()).st_size, 16)
        self.assertEqual(os.fstat(file._file.fileno()).st_nlink, 0)
        self.assertEqual(file.seek(0, SEEK_END), 16)
        file.seek(0)
        self.assertEqual((file.read(3), file.read(), file.read(5)), (b"012", b"3456789abcdef", b""))

    def test_reading_anywhere(self):
        """It is read from any place, in lines too, as an application in the same process may; it grows at its end."""
        for memory in (10, 100):
            file = self.file(memory)
            self.assertTrue(file.readable() and file.writable() and file.seekable())
            file.write(b"one\ntwo\n")
            file.write(b"three")
            file.seek(4)
            file.write(b"\nfour")
            self.assertEqual(file.tell(), 4)
            self.assertEqual(list(file), [b"two\n", b"three\n", b"four"])
            file.seek(-4, SEEK_END)
            self.assertEqual(file.read(), b"four")
            file.seek(-2, SEEK_CUR)
            self.assertEqual(file.readline(), b"ur")
            self.assertRaises(ValueError, file.seek, -1)
            file.seek(100)
            self.assertEqual(file.read(1), b"")

    def test_close(self):
        """What it took is given back, once, whether it was read or not."""
        file = self.file()
        file.write(bytes(100))
        inner = file._file
        other = self.file()
        other.write(bytes(50))
        file.close()
        file.close()
        self.assertTrue(inner.closed)
        self.assertEqual(self.disk.used, 50)
        for used in (file.read, lambda: file.write(b"x"), lambda: file.seek(0)):
            self.assertRaises(ValueError, used)

    def test_forgotten(self):
        """A body that nobody closes gives everything back all the same."""
        file = RequestFile(self.disk, 10)
        file.write(bytes(100))
        del file
        self.assertEqual(self.disk.used, 0)

    def test_full(self):
        """What does not fit beside others is refused with 503 and Retry-After, and takes nothing more."""
        other = self.file()
        other.write(bytes(600))
        file = self.file()
        file.write(bytes(300))
        error = self.assertRaises(SpoolFull, file.write, bytes(101))
        self.assertEqual(error.status, 503)
        self.assertGreater(error.retry_after, 0)
        self.assertEqual(self.disk.used, 900)
        file.close()
        self.assertEqual(self.disk.used, 600)
        again = self.file()
        again.write(bytes(400))
        self.assertEqual(self.disk.used, 1000)

    def test_full_at_once(self):
        """A body that does not fit from its first byte on disk has no file."""
        file = self.file(memory=100)
        file.write(bytes(100))
        self.disk.take(900)
        self.assertRaises(SpoolFull, file.write, b"x")
        self.assertEqual((file.on_disk, self.disk.used), (False, 900))
        file.close()
        self.assertEqual(self.disk.used, 900)

    def test_disk_without_room(self):
        """A file that takes no more is answered like a full disk; all is given back, whatever was written."""
        file = self.file()
        file.write(bytes(90))
        file._file.close()
        file._file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115
        error = self.assertRaises(SpoolFull, file.write, bytes(200))
        self.assertEqual(error.__cause__.errno, ENOSPC)
        self.assertGreater(self.disk.used, 0)
        file.close()
        self.assertEqual(self.disk.used, 0)

    def test_no_file(self):
        """So is a file that cannot be opened."""
        self.patch(tempfile, "tempdir", os.path.abspath(self.mktemp()))
        file = self.file()
        error = self.assertRaises(SpoolFull, file.write, bytes(200))
        self.assertIsInstance(error.__cause__, OSError)
        file.close()
        self.assertEqual(self.disk.used, 0)
