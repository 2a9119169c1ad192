"""
How fast bytes come or go, over any window of time, and when they will have been too slow: arithmetic, pure.

Times are seconds of any one clock.
"""

from __future__ import annotations

from collections import deque
from math import inf

#: Seconds over which bytes are counted: a client may pause for so long.
WINDOW = 10.0

#: Seconds whose bytes are counted as one lot: so much later at most is it seen that a client is too slow.
LOT = 1.0

#: Seconds between two looks at how much a client has taken of what waits for it.
LOOK = 2.5

#: Bytes that may wait in a kernel, which takes and gives them in large lots, where nobody tells how much has arrived.
BLIND = 256 * 1024


class Pace:
    """
    Bytes over time. They are too slow once any window, that begins after the start, has brought too few.

    @param rate: bytes per second.
    @param start: when it begins.
    @param window: seconds.
    """

    def __init__(self, rate: float, start: float, window: float = WINDOW) -> None:
        self._needed = rate * window
        self._window = window
        self._start = start
        self._lots: deque[tuple[float, float, int]] = deque()  # first and last byte, and how many
        self._sum = 0

    def moved(self, count: int, now: float) -> None:
        """So many bytes have moved."""
        if self._lots and now - self._lots[-1][0] < LOT:
            first, _, before = self._lots[-1]
            self._lots[-1] = (first, now, before + count)
        else:
            self._lots.append((now, now, count))
        self._sum += count
        while self._sum - self._lots[0][2] >= self._needed:  # what is newer suffices
            self._sum -= self._lots.popleft()[2]

    @property
    def due(self) -> float:
        """When it will have been too slow, if no more bytes move."""
        last = self._lots[0][1] if self._sum >= self._needed and self._lots else self._start
        return max(last, self._start) + self._window


class Uptake:
    """
    How fast a client takes what waits for it. Only the time counts in which something waits.

    @param rate: bytes per second.
    @param seen: whether somebody tells how much has arrived at the client (L{look}); else bytes count when the
        transport is empty again, and much more of them for the same rate, because kernels do not take them evenly.
    @param every: seconds between two looks, if so.
    @ivar waiting: something waits.
    """

    def __init__(self, rate: float, seen: bool, every: float = LOOK) -> None:
        self.waiting = False
        self._pace = Pace(rate, 0.0) if seen else Pace(rate, 0.0, WINDOW + BLIND / rate)
        self._look = every if seen else inf
        self._taken = 0
        self._waited = 0.0
        self._since = 0.0
        self._looked = 0.0

    def wait(self, now: float) -> None:
        """From now on something waits."""
        self.waiting = True
        self._since = self._looked = now

    def flow(self, now: float) -> None:
        """All was taken."""
        self._waited = self._time(now)
        self.waiting = False

    def look(self, taken: int, now: float) -> None:
        """
        So much has the client taken until now.

        @param taken: bytes, of all since the connection began.
        """
        self._pace.moved(taken - self._taken, self._time(now))
        self._taken = taken
        self._looked = now

    def due(self) -> float:
        """When to look again, at the latest."""
        too_slow = self._since + self._pace.due - self._waited
        return min(too_slow, self._looked + self._look)

    def too_slow(self, now: float) -> bool:
        """Whether too little was taken, by the last look."""
        return self._time(now) >= self._pace.due

    def _time(self, now: float) -> float:
        """Seconds in which something waited."""
        return self._waited + (now - self._since if self.waiting else 0.0)
