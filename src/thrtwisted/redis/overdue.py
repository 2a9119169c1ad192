"""When a server that answers in the order of the questions has not answered for too long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Turns of the reactor in which an answer may come, at least, however busy the reactor is: its own delay is not the
#: server's.
SLICES = 5


class Overdue:
    """
    Watches over the answers to questions. It costs one timer for all of them together.

    @param seconds: how long an answer may take; it is noted up to a fifth later.
    @param late: is called when one takes longer; all is forgotten then.
    """

    def __init__(self, clock: IReactorTime, seconds: float, late: Callable[[], object]) -> None:
        self._clock = clock
        self._slice = seconds / SLICES
        self._late = late
        self._slices = 0
        self._asked: deque[int] = deque()
        self._timer: IDelayedCall | None = None

    def asked(self) -> None:
        """A question was asked."""
        self._asked.append(self._slices)
        if self._timer is None:
            self._timer = self._clock.callLater(self._slice, self._next)

    def answered(self) -> None:
        """The first of the questions that are open was answered; all may have been forgotten meanwhile."""
        if self._asked:
            self._asked.popleft()

    def forget(self) -> None:
        """No answers come any more."""
        self._asked.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        self._timer = None
        self._slices += 1
        if not self._asked:
            return
        if self._slices - self._asked[0] > SLICES:
            self._asked.clear()
            self._late()
        else:
            self._timer = self._clock.callLater(self._slice, self._next)
