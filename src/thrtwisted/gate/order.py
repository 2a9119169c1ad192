"""
The order of waiting tickets, as one number that a double holds exactly (Redis sorts by doubles).

Without aging: priority first, then arrival number; for a ticket that takes turns with others, first its turn, then as
much of the arrival number as there is room for. With aging, C{S} seconds of waiting make up for one step of priority:
the number is the arrival's time plus C{S} per step, and so never changes while a ticket waits. Then nobody takes turns.
"""

from __future__ import annotations

#: Arrival numbers stay below this; 99 priorities times this stay below 2**53. At 10,000 arrivals a second it lasts
#: for a century.
ARRIVALS = 2**45

#: Arrival numbers of one turn. Of more than these, some later ones come before earlier ones.
TURN = 2**16

#: Whoever would have a later turn has this one: at 10,000 a second of one key, after a queue that was never empty for
#: half a day.
LAST_TURN = ARRIVALS // TURN - 1

MICROSECONDS = 1_000_000


class Order:
    """
    Gives tickets their ranks, in one process.

    @param aging: seconds of waiting that make up for one step of priority; 0 for none.
    """

    def __init__(self, aging: float = 0.0) -> None:
        self._aging = round(aging * MICROSECONDS)
        self._last = 0

    @property
    def takes_turns(self) -> bool:
        """Whether a turn is part of the order."""
        return not self._aging

    def next(self, priority: int, now: int, turn: int | None = None) -> int:
        """
        The rank of a ticket that arrives now; the lowest goes first. Without aging and turns no two are the same.

        @param now: us, from a clock that does not go backwards by much.
        @param turn: its turn, if it takes turns with others.
        """
        if self._aging:
            self._last = max(self._last + 1, now)
            return self._last + priority * self._aging
        self._last += 1
        return priority * ARRIVALS + (self._last if turn is None else turn * TURN + self._last % TURN)

    def catch_up(self, order: int, priority: int) -> None:
        """Rank whoever comes from now on after a rank that was given elsewhere, or (0) was not given at all."""
        arrival = order - priority * (self._aging or ARRIVALS)
        self._last = max(self._last, arrival)


def parts(order: int) -> tuple[int, int]:
    """The priority and the turn of a ticket that takes turns with others."""
    priority, rest = divmod(order, ARRIVALS)
    return priority, rest // TURN
