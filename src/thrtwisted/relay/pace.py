"""
How much goes to Redis in one message, and how long its answer may take: as much as the line carries.

A message that takes longer than an answer may is never through: the connection is made anew, and all of it is sent
again, for ever. So messages are small until the line has shown what it carries, and where even a small one is too much,
its answer may take longer.
"""

from __future__ import annotations

from .flow import LARGEST_PIECE

#: Bytes of frames in one message, and one frame more, at most: few enough for Redis to go on with others soon.
LARGEST_MESSAGE = 128 * 1024

#: The same, at least. With a frame of 32 KiB that is what is sent at once on the slowest line.
SMALLEST_MESSAGE = 4 * 1024

#: An answer may take so many times longer than the timeout, at most: a frame of 32 KiB at 8 KiB/s.
MOST_PATIENCE = 16


class Pace:
    """
    @param timeout: seconds that the answer to a small message may take.
    @ivar message: bytes of frames in one message.
    @ivar patience: seconds without an answer after which the connection counts as dead.
    @ivar in_vain: so many connections in a row were given up without a single answer to a message.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.message = LARGEST_MESSAGE
        self.patience = timeout
        self.in_vain = 0

    def answered(self, size: int, seconds: float) -> None:
        """
        A message has gone through.

        @param size: its bytes.
        @param seconds: since it was sent, or since the one before was answered, if that was later.
        """
        self.in_vain = 0
        if seconds > self._timeout / 2:
            self.message = max(SMALLEST_MESSAGE, self.message // 2)
        elif size >= self.message:  # what a small one took says nothing of large ones
            self.message = min(LARGEST_MESSAGE, 2 * self.message)
            if size >= LARGEST_PIECE:
                self.patience = max(self._timeout, self.patience / 2)

    def gave_up(self) -> None:
        """There was no answer for too long."""
        self.in_vain += 1
        self.message = SMALLEST_MESSAGE
        self.patience = min(MOST_PATIENCE * self._timeout, 2 * self.patience)
