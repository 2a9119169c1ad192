"""A request's body on its way into a file."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from thrtwisted.config import Bounds

from .chunks import ChunkedBody

#: Bytes of a body of known length that is never kept anywhere but in memory.
SMALL = 100 * 1000


class IncomingBody:
    """
    A body that is being received.

    @ivar file: what has come of it.
    @ivar received: how many bytes that is.
    """

    def __init__(self, length: int | None, bounds: Bounds, make_file: Callable[[], Any]) -> None:
        """
        @param length: bytes, None for chunks.
        @param make_file: makes the file of a large body.
        """
        self.file: Any = BytesIO() if length is not None and length <= SMALL else make_file()
        self.received = 0
        self._length = length
        self._chunks = ChunkedBody(bounds) if length is None else None

    def feed(self, data: bytes) -> bytes | None:
        """
        Take what has come.

        @return: what follows the body; None if it has not ended.
        @raise ExchangeError: it is malformed, too large, or there is no room for it.
        """
        if self._chunks is not None:
            for piece in self._chunks.feed(data):
                self._write(piece)
            return self._chunks.rest if self._chunks.ended else None
        assert self._length is not None
        left = self._length - self.received
        self._write(data[:left])
        return data[left:] if len(data) >= left else None

    def close(self) -> None:
        """Forget it."""
        self.file.close()

    def _write(self, piece: bytes) -> None:
        self.file.write(piece)
        self.received += len(piece)
