"""
Until when a connection waits, and for what: one timer, which is touched as seldom as possible.

What is due is moved ahead without touching the timer: it is set again when it rings too early. So a request that comes
and goes quickly costs none, and an idle connection one in all its time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .kernel import Seen, look
from .pace import LOOK, Pace, Uptake

#: Seconds by which a timer may ring too early: sums of times are rounded.
EARLY = 0.001

#: Seconds between two looks at whether a last answer is taken: most are at once.
LAST_LOOK = 1.0


class Late(Enum):
    """What has not come about in time."""

    TIME = "a time is over"
    BODY = "a request's body comes too slowly"
    ANSWER = "an answer is taken too slowly"


class Watch:
    """
    Watches over one connection: over a time, or over a request's body, and beside either over an answer that waits
    for the client to take it. While one waits, nothing else is due: it is the client's fault that all else waits.
    """

    def __init__(self, clock: IReactorTime, transport: Any, late: Callable[[Late], object]) -> None:
        """
        @param transport: the connection's; if it is a TCP connection on Linux, it is known how much the client has
            taken, else only when it has taken all of what waits.
        @param late: called when something is late; then nothing is watched over any more.
        """
        self._clock = clock
        self._transport = transport
        self._late = late
        self._deadline: float | None = None
        self._pace: Pace | None = None
        self._uptake: Uptake | None = None
        self._sees = False
        self._last: tuple[int, float] | None = None  # bytes in all, and the seconds after them
        self._timer: IDelayedCall | None = None
        self._rings = 0.0

    @property
    def _answer(self) -> Uptake | None:
        """The uptake, if something waits for it."""
        return self._uptake if self._uptake is not None and self._uptake.waiting else None

    def wait(self, seconds: float) -> None:
        """Wait so long from now, instead of what was waited for."""
        self._pace = None
        self._deadline = self._clock.seconds() + seconds
        self._arm()

    def wait_no_more(self) -> None:
        """There is no time, nor a body, that is waited for."""
        self._pace = self._deadline = None

    def body_begins(self, rate: float) -> None:
        """
        A body is waited for.

        @param rate: bytes per second.
        """
        self._deadline = None
        self._pace = Pace(rate, self._clock.seconds())
        self._arm()

    def body_moved(self, count: int) -> None:
        """So many bytes of the body have come."""
        if self._pace is not None:
            self._pace.moved(count, self._clock.seconds())

    def answer_waits(self, rate: float, written: int) -> None:
        """
        Something waits that the client must take.

        @param rate: bytes per second.
        @param written: bytes that the client was sent in all.
        """
        now = self._clock.seconds()
        if self._uptake is None:
            self._uptake = self._new_uptake(rate, written, LOOK)
        if not self._uptake.waiting:
            self._uptake.wait(now)
            self._arm()

    def answer_taken(self, written: int) -> None:
        """
        Nothing waits any more.

        @param written: bytes that the client was sent in all.
        """
        if self._answer is not None:
            now = self._clock.seconds()
            if not self._sees:
                self._answer.look(written, now)
            self._answer.flow(now)
            self._arm()

    def ends(self, rate: float, written: int, seconds: float, every: float) -> None:
        """
        The last answer was written: the client must take it, and has so much time from then on. Where nobody tells how
        much it has taken, the time begins now.

        @param rate: bytes per second.
        @param written: bytes that the client was sent in all.
        @param every: seconds between two looks.
        """
        self.wait_no_more()
        now = self._clock.seconds()
        self._uptake = self._new_uptake(rate, written, every)
        if self._sees:
            self._last = written, seconds
            self._uptake.wait(now)
        else:
            self._uptake, self._deadline = None, now + seconds
        self._arm()

    def taken(self, written: int) -> bool:
        """
        Whether the client has taken all, as far as anybody tells.

        @param written: bytes that the client was sent in all.
        """
        seen = look(self._transport)
        return seen is None or _all(seen, written)

    def stop(self) -> None:
        """Watch over nothing any more."""
        self._deadline = self._pace = self._uptake = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _new_uptake(self, rate: float, written: int, every: float) -> Uptake:
        seen = look(self._transport)
        self._sees = seen is not None
        uptake = Uptake(rate, self._sees, every)
        uptake.look(written if seen is None else seen.acknowledged, self._clock.seconds())
        return uptake

    def _due(self) -> float | None:
        """When something may be late, None if nothing can be."""
        if self._answer is not None:
            return self._answer.due()
        return self._deadline if self._pace is None else self._pace.due

    def _arm(self) -> None:
        """See that the timer rings when something may be late. It may ring too early."""
        due = self._due()
        if due is None:
            return
        if self._timer is not None:
            if self._rings <= due:
                return
            self._timer.cancel()  # rather than reset it, for which the reactor looks at all of its timers
        self._rings = due
        self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        late = self._what_is_late(self._clock.seconds() + EARLY)
        if late is None:
            self._arm()
        else:
            self._deadline = self._pace = self._uptake = None
            self._late(late)

    def _what_is_late(self, now: float) -> Late | None:
        if self._answer is not None:
            seen = look(self._transport) if self._sees else None
            if seen is not None:
                self._answer.look(seen.acknowledged, now)
                if self._last is not None and _all(seen, self._last[0]):
                    self._uptake, self._deadline, self._last = None, now + self._last[1], None
                    return None
            return Late.ANSWER if self._answer.too_slow(now) else None
        if self._pace is not None:
            return Late.BODY if self._pace.due <= now else None
        return Late.TIME if self._deadline is not None and self._deadline <= now else None


def _all(seen: Seen, written: int) -> bool:
    """Whether so many bytes were taken. What TLS adds is more than that: hence the second look."""
    return seen.acknowledged >= written and not seen.waiting
