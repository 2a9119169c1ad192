"""The body of a request at a worker: given to the backend as it comes from the front."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from thrtwisted.forward.sendable import SendableBody


class Upload(SendableBody):
    """
    The body of a request that is still on its way.

    What has come is kept until the backend takes it. That is little: the front sends no more than its window, until it
    hears that something was consumed.
    """

    def __init__(self, length: int, consumed: Callable[[int], object]) -> None:
        """
        @param consumed: called with the number of bytes that need not be kept any more: they were given to the backend,
            or nobody wants them.
        """
        super().__init__(length)
        self._consumed = consumed
        self._awaited = length
        self._pieces: deque[bytes] = deque()

    def __repr__(self) -> str:
        return f"<Upload {self.length - self._left} of {self.length} bytes, {len(self._pieces)} pieces wait>"

    @property
    def complete(self) -> bool:
        """Whether all of it has come."""
        return not self._awaited

    @property
    def starved(self) -> bool:
        return self.sending and not self._paused and not self._pieces

    def add(self, data: bytes) -> None:
        """
        More of it has come. What comes when nobody wants it any more is dropped.

        @raise ValueError: that is more than its length.
        """
        if len(data) > self._awaited:
            raise ValueError("the request's body is longer than was said")
        self._awaited -= len(data)
        if self._closed:
            self._consumed(len(data))
        elif data:
            self._pieces.append(data)
            self._write()

    def _next(self) -> bytes:
        return self._pieces.popleft() if self._pieces else b""

    def _given(self, size: int) -> None:
        self._consumed(size)

    def _discard(self) -> None:
        dropped = sum(map(len, self._pieces))
        self._pieces.clear()
        if dropped:
            self._consumed(dropped)
