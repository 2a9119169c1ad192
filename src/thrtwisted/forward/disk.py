"""
The bytes that a process keeps on disk: counted over all exchanges together, and the file of one request's body.

Responses that wait for slow clients are L{thrtwisted.forward.spool}'s. Neither kind of files has a name: nothing is
left of them when the process ends, however it ends.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from typing import IO, TYPE_CHECKING

from twisted.logger import Logger

from thrtwisted.errors import SpoolFull

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: Bytes of a request's body that are kept in memory: what Twisted keeps there too. Most requests need no file.
MEMORY = 100 * 1000

#: Seconds after which a client whose request did not fit may try again: requests leave the disk as they are sent.
RETRY_AFTER = 5.0


class Disk:
    """
    How many bytes the exchanges of one process keep on disk together. It keeps none itself.

    Whoever takes bytes gives back as many. Whoever cannot have some may wait: those who wait are asked one after the
    other, in the order in which they came, each time that some are given back.

    @ivar used: bytes that are taken.
    @ivar limit: bytes that there are.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: OrderedDict[Callable[[], bool], None] = OrderedDict()
        self._waking = False

    def __repr__(self) -> str:
        return f"<Disk {self.used} of {self.limit}, {len(self._waiting)} waiting>"

    def take(self, size: int) -> bool:
        """Take bytes, if there are so many."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Give bytes back; then those who wait are asked, who may themselves take, give and leave meanwhile."""
        if size > self.used:
            raise ValueError(f"{size} bytes are given back, and {self.used} were taken")
        self.used -= size
        if size and not self._waking:
            self._wake()

    def wait(self, satisfied: Callable[[], bool]) -> None:
        """
        Wait for bytes.

        @param satisfied: called when some were given back, until it returns true: it has what it waited for, or has
            given up. It may then wait for more, from within. It must not raise.
        """
        self._waiting[satisfied] = None

    def leave(self, satisfied: Callable[[], bool]) -> None:
        """Wait no more. Nothing happens if it does not wait."""
        self._waiting.pop(satisfied, None)

    def _wake(self) -> None:
        """Ask those who wait, up to the first that must go on waiting."""
        self._waking = True
        try:
            while self._waiting:
                first, _ = self._waiting.popitem(last=False)
                used = self.used
                if not first():
                    self._waiting[first] = None
                    self._waiting.move_to_end(first, last=False)
                    if self.used >= used:  # nothing came back meanwhile
                        break
        finally:
            self._waking = False


class RequestFile(RawIOBase):
    """
    The body of a request, from its first byte until it is sent: in memory first, then in a file.

    What is written is added at the end, wherever it is read. Closing it gives back what it has taken of the disk.
    """

    _log = Logger()

    def __init__(self, disk: Disk, memory: int = MEMORY) -> None:
        """
        @param memory: bytes that are kept without a file.
        """
        super().__init__()
        self._disk = disk
        self._max_memory = memory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._taken = 0
        self._size = 0
        self._position = 0

    @property
    def on_disk(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def write(self, data: ReadableBuffer) -> int:
        """
        Add bytes at the end.

        @raise SpoolFull: there is no room for them; the body is of no more use than to be closed.
        """
        self._check_open()
        view = memoryview(data).cast("B")
        if self._file is None and self._size + len(view) <= self._max_memory:
            self._memory += view
            self._size += len(view)
        else:
            self._store(view)
        return len(view)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what is next, as much as there is and the buffer takes."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        if self._file is None:
            piece = bytes(memoryview(self._memory)[self._position : self._position + len(view)])
        else:
            piece = os.pread(self._file.fileno(), len(view), self._position)
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Read on from another place."""
        self._check_open()
        base = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("there is nothing before the beginning")
        self._position = base + offset
        return self._position

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Forget everything, and give back what was taken. It may be called again."""
        if not self.closed:
            super().close()
            self._memory.clear()
            if self._file is not None:
                self._file.close()  # before others hear of the room
            self._disk.give(self._taken)

    def _store(self, view: memoryview) -> None:
        """Write to the file, after what is in memory."""
        needed = len(self._memory) + len(view)
        if not self._disk.take(needed):
            raise SpoolFull("The proxy has no room for the request's body.", retry_after=RETRY_AFTER)
        self._taken += needed
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0, prefix="thrtwisted-")  # noqa: SIM115
                store(self._file, self._memory, 0)
                self._memory.clear()
            store(self._file, view, self._size)
        except OSError as error:
            self._log.error("A request's body cannot be kept: {error}", error=error)
            raise SpoolFull(
                "The proxy has no room for the request's body.", retry_after=RETRY_AFTER
            ) from error
        self._size += len(view)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the request's body is closed")


def store(file: IO[bytes], data: ReadableBuffer, at: int) -> None:
    """
    Write all of it to a place in a file without a buffer.

    @raise OSError: not all of it could be written.
    """
    view = memoryview(data)
    while view:
        written = os.pwrite(file.fileno(), view, at)
        at += written
        view = view[written:]
