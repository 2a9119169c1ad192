"""When a server has not answered for too long."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Turns of the reactor in which a sign of life may come, at least, however busy the reactor is: its own delay is not
#: that of the server.
SLICES = 5


class Overdue:
    """
    Watches over the answers to questions. It costs one timer for all of them together.

    A server that gives one answer after the other, or a part of a long one, is not late, however long the queue before
    it is: to ask everything again would only make it longer.

    @param seconds: how long there may be no sign of life while a question is open; it is noted up to a fifth later.
    @param late: is called when there was none for longer; all is forgotten then.
    """

    def __init__(self, clock: IReactorTime, seconds: float, late: Callable[[], object]) -> None:
        self._clock = clock
        self._slice = seconds / SLICES
        self._late = late
        self._open = 0
        self._silent = 0
        self._timer: IDelayedCall | None = None

    def allow(self, seconds: float) -> None:
        """From now on, there may be no sign of life for so long."""
        self._slice = seconds / SLICES

    def asked(self) -> None:
        """A question was asked."""
        if not self._open:
            self._silent = 0
        self._open += 1
        if self._timer is None:
            self._timer = self._clock.callLater(self._slice, self._next)

    def answered(self) -> None:
        """A question was answered; it may have been forgotten meanwhile."""
        self._open = max(0, self._open - 1)
        self._silent = 0

    def alive(self) -> None:
        """There is a sign of life other than an answer."""
        self._silent = 0

    def forget(self) -> None:
        """No answers come any more."""
        self._open = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        self._timer = None
        if not self._open:
            return
        self._silent += 1
        if self._silent > SLICES:
            self._open = 0
            self._late()
        else:
            self._timer = self._clock.callLater(self._slice, self._next)
