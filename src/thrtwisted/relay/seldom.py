"""What is said in a log no more often than now and then. Pure, but for the clock."""

from __future__ import annotations

import math

from twisted.internet.interfaces import IReactorTime

#: Seconds between one line and the next of its kind.
PAUSE = 60.0


class Seldom:
    """Whoever can make a process write a line, as often as he likes, must not fill its disk so."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._said_at = -math.inf

    def now(self) -> bool:
        """Whether it is to be said now: it was not for a while."""
        now = self._clock.seconds()
        if now - self._said_at < PAUSE:
            return False
        self._said_at = now
        return True
