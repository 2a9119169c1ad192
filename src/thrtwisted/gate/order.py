"""
The order of waiting tickets, as one number that a double holds exactly (Redis sorts by doubles).

Without aging: priority first, then arrival number. With aging, C{S} seconds of waiting make up for one step of
priority: the number is the arrival's time plus C{S} per step, and so never changes while a ticket waits.
"""

from __future__ import annotations

#: Arrival numbers stay below this; 99 priorities times this stay below 2**53. At 10,000 arrivals a second it lasts
#: for a century.
ARRIVALS = 2**45

MICROSECONDS = 1_000_000


class Order:
    """
    Gives tickets their ranks, in one process.

    @param aging: seconds of waiting that make up for one step of priority; 0 for none.
    """

    def __init__(self, aging: float = 0.0) -> None:
        self._aging = round(aging * MICROSECONDS)
        self._last = 0

    def next(self, priority: int, now: float) -> int:
        """
        The rank of a ticket that arrives now; the lowest goes first. Without aging no two are the same.

        @param now: seconds, from a clock that does not go backwards by much.
        """
        if self._aging:
            self._last = max(self._last + 1, round(now * MICROSECONDS))
            return self._last + priority * self._aging
        self._last += 1
        return priority * ARRIVALS + self._last

    def catch_up(self, order: int, priority: int) -> None:
        """Rank whoever comes from now on after a rank that was given elsewhere, or (0) was not given at all."""
        arrival = order - priority * (self._aging or ARRIVALS)
        self._last = max(self._last, arrival)
