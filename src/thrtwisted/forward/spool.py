"""
Bytes on their way from a fast writer to a slow reader: in memory first, then in a temporary file.

The file is used as a ring, so that a reader who lags for hours never makes it longer than its limit.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO

#: Bytes kept in memory before a file is opened: most pages never need one.
MEMORY = 512 * 1024
#: Bytes handed out at once: what Twisted's transports read and write in one go.
PIECE = 64 * 1024


class Spool:
    """
    A queue of bytes. What is in memory is older than what is in the file, and that than the overflow.

    @ivar opened: whether a file was ever needed.
    """

    def __init__(self, max_file: int, memory: int = MEMORY) -> None:
        """
        @param max_file: bytes that the file may hold; 0 for no file.
        @param memory: bytes that the memory may hold (and one piece more).
        """
        self._max_memory = memory
        self._max_file = max_file
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._start = 0
        self._filed = 0
        self._overflow = bytearray()
        self.opened = False

    def __len__(self) -> int:
        """How many bytes wait to be taken."""
        return len(self._memory) + self._filed + len(self._overflow)

    @property
    def full(self) -> bool:
        """Whether the writer must stop. What it writes all the same (a read of a socket) stays in memory."""
        return bool(self._overflow) or (not self._max_file and len(self._memory) >= self._max_memory)

    @property
    def roomy(self) -> bool:
        """Whether a writer that had to stop may go on: half is free, lest it stop at each piece."""
        return not self.full and 2 * len(self) <= self._max_memory + self._max_file

    def append(self, data: bytes) -> None:
        """
        Add bytes at the end.

        @raise OSError: the disk is full; the spool is of no more use than to be closed.
        """
        if (
            not self._filed
            and not self._overflow
            and (not self._max_file or len(self._memory) < self._max_memory)
        ):
            self._memory += data
        elif not self._overflow and self._filed + len(data) <= self._max_file:
            self._store(data)
        else:
            self._overflow += data

    def take(self) -> bytes:
        """
        Take the oldest bytes, at most C{PIECE}; none if there are none.

        @raise OSError: the file cannot be read.
        """
        if not self._memory and not self._filed:
            self._memory, self._overflow = self._overflow, self._memory
        if self._memory:
            piece = bytes(memoryview(self._memory)[:PIECE])
            del self._memory[:PIECE]
            return piece
        return self._load() if self._filed else b""

    def close(self) -> None:
        """Forget everything, and give the file back. It may be called again."""
        self._memory, self._overflow, self._filed = bytearray(), bytearray(), 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _store(self, data: bytes | bytearray) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, prefix="thrtwisted-")  # noqa: SIM115
            self.opened = True
        view = memoryview(data)
        while view:
            at = (self._start + self._filed) % self._max_file
            written = os.pwrite(self._file.fileno(), view[: self._max_file - at], at)
            self._filed += written
            view = view[written:]

    def _load(self) -> bytes:
        assert self._file is not None
        wanted = min(PIECE, self._filed, self._max_file - self._start)
        piece = os.pread(self._file.fileno(), wanted, self._start)
        if not piece:
            raise OSError("the spool file is shorter than what was written to it")
        self._start = (self._start + len(piece)) % self._max_file
        self._filed -= len(piece)
        if self._overflow and self._filed + len(self._overflow) <= self._max_file:
            self._store(self._overflow)
            self._overflow = bytearray()
        if not self._filed:
            self._start = 0
            os.ftruncate(self._file.fileno(), 0)
        return piece
