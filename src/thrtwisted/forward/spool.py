"""
Bytes on their way from a fast writer to a slow reader: in memory first, then in temporary files.

A file is written to its end and read from its beginning, and given back when all of it was read: a reader who lags for
hours holds little more of the disk than the bytes that wait for him.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable
from typing import IO

from .disk import Disk, store

#: Bytes kept in memory before a file is opened: most pages never need one. Nothing counts them over all responses:
#: each client who reads slowly costs as much memory, and as much again in the transport.
MEMORY = 128 * 1024
#: Bytes handed out at once: what Twisted's transports read and write in one go.
PIECE = 64 * 1024
#: Bytes of a file, at least: smaller ones would cost descriptors.
FILE = 1024 * 1024
#: In so many files at most what waits on disk is divided; each may have been read for the most part.
FILES = 4


class _File:
    """
    One file of a spool.

    @ivar size: bytes that were written, all of them taken of the disk.
    @ivar read: how many of them were read.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0, prefix="thrtwisted-")  # noqa: SIM115
        self.size = 0
        self.read = 0

    @property
    def waiting(self) -> int:
        return self.size - self.read

    def write(self, data: bytes | bytearray) -> None:
        store(self._file, data, self.size)
        self.size += len(data)

    def take(self) -> bytes:
        piece = os.pread(self._file.fileno(), min(PIECE, self.waiting), self.read)
        if not piece:
            raise OSError("the spool file is shorter than what was written to it")
        self.read += len(piece)
        return piece

    def close(self) -> None:
        self._file.close()


class Spool:
    """
    A queue of bytes. What is in memory is older than what is in the files, and that than the overflow.

    @ivar opened: whether a file was ever needed.
    @ivar taken: bytes that it has of the disk.
    """

    def __init__(
        self,
        max_file: int,
        memory: int = MEMORY,
        disk: Disk | None = None,
        on_room: Callable[[], object] = lambda: None,
    ) -> None:
        """
        @param max_file: bytes that the files may hold; 0 for none.
        @param memory: bytes that the memory may hold (and one piece more).
        @param disk: what it shares with others; None: nothing.
        @param on_room: called when the spool was full for want of room on the disk, and is so no more because some was
            given back, or because the disk is broken (which the next call then raises). It must not raise.
        """
        self._max_memory = memory
        self._max_file = max_file
        self._disk = Disk(max_file) if disk is None else disk
        self._on_room = on_room
        self._memory = bytearray()
        self._files: deque[_File] = deque()
        self._filed = 0
        self._overflow = bytearray()
        self.taken = 0
        self.opened = False
        self._broken: OSError | None = None

    def __len__(self) -> int:
        """How many bytes wait to be taken."""
        return len(self._memory) + self._filed + len(self._overflow)

    @property
    def full(self) -> bool:
        """Whether the writer must stop. What it writes all the same (a read of a socket) stays in memory."""
        if self._broken is not None:
            return False  # so that the writer comes, and learns of it
        return bool(self._overflow) or (not self._max_file and len(self._memory) >= self._max_memory)

    @property
    def roomy(self) -> bool:
        """Whether a writer that had to stop may go on: half is free, lest it stop at each piece."""
        return not self.full and 2 * len(self) <= self._max_memory + self._max_file

    def append(self, data: bytes) -> None:
        """
        Add bytes at the end.

        @raise OSError: the disk does not work; the spool is of no more use than to be closed.
        """
        self._check()
        if (
            not self._filed
            and not self._overflow
            and (not self._max_file or len(self._memory) < self._max_memory)
        ):
            self._memory += data
            return
        waited = bool(self._overflow)
        self._overflow += data
        if not waited:
            self._move_or_wait()

    def take(self) -> bytes:
        """
        Take the oldest bytes, at most C{PIECE}; none if there are none.

        @raise OSError: the files cannot be read or written.
        """
        self._check()
        if self._overflow and not self._filed and 2 * len(self._memory) <= self._max_memory:
            self._memory += self._overflow
            self._overflow = bytearray()
            self._disk.leave(self._asked)
        if self._memory:
            piece = bytes(memoryview(self._memory)[:PIECE])
            del self._memory[:PIECE]
            return piece
        return self._load() if self._filed else b""

    def close(self) -> None:
        """
        Forget everything, whom it was made by too, and give back what was taken of the disk. It may be called again.
        """
        self._memory, self._overflow, self._filed = bytearray(), bytearray(), 0
        while self._files:
            self._files.pop().close()
        self._disk.leave(self._asked)
        self._on_room = nothing
        taken, self.taken = self.taken, 0
        self._disk.give(taken)

    def _move_or_wait(self) -> None:
        """Move the overflow to the files, or wait for room: on the disk, if it is that which is missing."""
        if self._move():
            self._disk.leave(self._asked)
        else:
            self._disk.wait(self._asked)

    def _asked(self) -> bool:
        """Others have given room back, which may be enough."""
        try:
            moved = self._move()
        except OSError as error:
            self._broken, moved = error, True
        if moved and not self.full:
            self._on_room()
        return moved

    def _move(self) -> bool:
        """Move the overflow to the files, unless these are full; false if the disk has no room for it."""
        size = len(self._overflow)
        if self.taken + size > self._max_file:
            return True
        if not self._disk.take(size):
            return False
        self.taken += size
        overflow, self._overflow = self._overflow, bytearray()
        self._store(overflow)
        return True

    def _store(self, data: bytes | bytearray) -> None:
        if not self._files or self._files[-1].size >= max(FILE, self._max_file // FILES):
            self._files.append(_File())
            self.opened = True
        self._files[-1].write(data)
        self._filed += len(data)

    def _load(self) -> bytes:
        file = self._files[0]
        piece = file.take()
        self._filed -= len(piece)
        if not file.waiting:
            del self._files[0]
            file.close()
            self.taken -= file.size
            self._disk.give(file.size)
            if self._overflow:
                self._move_or_wait()
        return piece

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken


def nothing() -> None:
    """In place of what was called for the last time: objects that know each other stay until Python looks for such."""
