"""What comes from a client and is not with a resource yet: heads that have begun, and a body on its way into a file."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from thrtwisted.chunks import ChunkedBody
from thrtwisted.config import Bounds

from .head import RequestHead, end_of_head, overflow, parse_head
from .refusal import Asked, asked

#: Bytes of a body of known length that is never kept anywhere but in memory.
SMALL = 100 * 1000


class IncomingHeads:
    """Bytes in which heads of requests are to be found."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._buffer = bytearray()
        self._searched = 0  # how much of it has no end of a head

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def begun(self) -> bool:
        """Whether there is a part of a head. An empty line, which some clients send after a body, is none."""
        return bool(self._buffer) and self._buffer != b"\r\n"

    def add(self, data: bytes) -> None:
        """Bytes have come."""
        self._buffer += data

    def take(self) -> bytes:
        """All of it."""
        data = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return data

    def asked(self) -> Asked:
        """What the head asks for that has begun, or was just refused."""
        return asked(self._buffer)

    def head(self) -> RequestHead | None:
        """
        Take the next head; None as long as it has not ended.

        @raise ExchangeError: it is refused, and so is what follows it. It was not taken.
        """
        end = end_of_head(self._buffer, self._searched)
        if end < 0:
            error = overflow(self._buffer, self._bounds, self._searched)
            self._searched = len(self._buffer)
            if error is not None:
                raise error
            return None
        head = parse_head(bytes(self._buffer[: end - 4]), self._bounds)
        del self._buffer[:end]
        self._searched = 0
        return head


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
            # At once: with a write for each, tiny chunks would stop the reactor for as long as a hundred requests.
            self._write(b"".join(self._chunks.feed(data)))
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
