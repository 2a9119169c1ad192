"""Where the time of an exchange goes, for C{Server-Timing} (W3C Server Timing)."""

from __future__ import annotations

from typing import Literal

from twisted.internet.interfaces import IReactorTime

#: What an exchange can wait for: functions of rules and services, on both ways; the gate; the backend's head.
Phase = Literal["rules", "queue", "backend"]

#: What is told of each, in the order of an exchange's way.
_TOLD: tuple[tuple[Phase, bytes], ...] = (
    ("rules", b"rules;dur=%.1f"),
    ("queue", b"queue;dur=%.1f"),
    ("backend", b"backend;dur=%.1f"),
)


class Timing:
    """
    What an exchange has waited for, one thing at a time.

    @param clock: tells the time; None: nothing is measured, and nothing told.
    """

    def __init__(self, clock: IReactorTime | None) -> None:
        self._clock = clock
        self._seconds: dict[Phase, float] = {}
        self._phase: Phase | None = None
        self._since = 0.0

    def begin(self, phase: Phase) -> None:
        """It waits for this from now on, and no more for what it waited for."""
        if self._clock is not None:
            now = self._clock.seconds()
            self._count(now)
            self._seconds.setdefault(phase, 0.0)
            self._phase, self._since = phase, now

    def end(self) -> None:
        """It waits for nothing."""
        if self._clock is not None and self._phase is not None:
            self._count(self._clock.seconds())
            self._phase = None

    def field(self) -> bytes | None:
        """
        The value of C{Server-Timing}: milliseconds for all that it has waited for until now, in the order of its way;
        for the queue also where it never came there. None if nothing is told.
        """
        if self._clock is None:
            return None
        if self._phase is not None:
            self.begin(self._phase)
        seconds = self._seconds
        return b", ".join(
            [
                told % (seconds.get(phase, 0.0) * 1000)
                for phase, told in _TOLD
                if phase == "queue" or phase in seconds
            ]
        )

    def _count(self, now: float) -> None:
        """What it waits for has this time so far."""
        if self._phase is not None:
            self._seconds[self._phase] += now - self._since
