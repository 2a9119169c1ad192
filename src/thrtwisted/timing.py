"""Where the time of an exchange goes, for C{Server-Timing} (W3C Server Timing)."""

from __future__ import annotations

from typing import Literal

from twisted.internet.interfaces import IReactorTime

#: What an exchange can wait for: functions of rules and services, on both ways; the gate; the backend's head.
Phase = Literal["rules", "queue", "backend"]


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
        self.end()
        if self._clock is not None:
            self._seconds.setdefault(phase, 0.0)
            self._phase, self._since = phase, self._clock.seconds()

    def end(self) -> None:
        """It waits for nothing."""
        if self._clock is not None and self._phase is not None:
            self._seconds[self._phase] += self._clock.seconds() - self._since
        self._phase = None

    def field(self) -> bytes | None:
        """
        The value of C{Server-Timing}: milliseconds for all that it has waited for until now, in the order of its way;
        for the queue also where it never came there. None if nothing is told.
        """
        if self._clock is None:
            return None
        phase = self._phase
        self.end()
        if phase is not None:
            self.begin(phase)
        told: tuple[Phase, ...] = ("rules", "queue", "backend")
        return b", ".join(
            b"%b;dur=%.1f" % (name.encode(), self._seconds.get(name, 0.0) * 1000)
            for name in told
            if name == "queue" or name in self._seconds
        )
