"""How long Redis is waited for."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Turns of the reactor that Redis is waited for at least, however busy it is: to be sent, and to be answered.
SLICES = 5


class Patience:
    """
    A time that begins now.

    It is counted in slices, one after the other. A reactor that was busy finds its timers before it sends and
    reads what is due: so its own delay costs one slice, and is not taken for that of Redis.

    @param over: called when the time is over, unless that is ended before.
    """

    def __init__(self, clock: IReactorTime, seconds: float, over: Callable[[], object]) -> None:
        self._clock = clock
        self._slice = seconds / SLICES
        self._over = over
        self._timer: IDelayedCall | None = None
        self._wait(SLICES)

    def end(self) -> None:
        """It is waited for no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, slices: int) -> None:
        if slices:
            self._timer = self._clock.callLater(self._slice, self._wait, slices - 1)
        else:
            self._timer = None
            self._over()
