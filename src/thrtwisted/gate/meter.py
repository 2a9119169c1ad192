"""
How much of a counter's rate is used up: the generic cell rate algorithm (GCRA; ITU-T I.371, annex A). Pure.

One number says all: the I{theoretical arrival time}, at which the counter is as if nobody had ever come. A ticket moves
it by one interval for each unit of its weight; and it may be ahead of the present by the whole burst, with that ticket
in it. So after a quiet time as many go at once as the burst says, and then one each interval, evenly spaced. A ticket
that is heavier than the burst goes when nothing is used up.

A ticket that waited is let go by a timer, and timers are late. Counted from the present, each delay would be lost to
those that come after; so it is counted from the time at which it could have gone, if that was at most L{LATE} ago. All
in all that lets through one ticket more than the burst and the time that has passed, and no more than one.

How far the theoretical arrival time can be ahead is known: by the burst, or by what the last ticket weighed. It is cut
to that when a rate is given, for it may be another one, by which nobody has to wait for what the old one had used up;
and when the clock was set back, or everybody would wait for the difference.
"""

from __future__ import annotations

import attrs
from sortedcontainers import SortedList

from . import Rate

#: By so much a timer may be late without costing any rate (us): more than a busy reactor is, and little enough not to
#: be a burst.
LATE = 100_000


@attrs.define(eq=False)
class Meter:
    """
    What is used up at one counter. All times are in microseconds of one clock.

    @ivar until: the theoretical arrival time.
    @ivar weight: of the ticket that was charged last.
    """

    until: int = 0
    weight: int = 1

    def ready(self, rate: Rate, weight: int) -> int:
        """The time from which a ticket may go."""
        return self.until - (max(rate.burst, weight) - weight) * rate.interval

    def charge(self, rate: Rate, weight: int, now: int, *, waited: bool) -> None:
        """A ticket goes, which was ready."""
        earliest = now - min(rate.interval, LATE) if waited else now
        self.until = max(self.until, earliest) + weight * rate.interval
        self.weight = weight

    def bound(self, rate: Rate, now: int) -> None:
        """Nobody waits for more than this rate can have used up."""
        self.until = min(self.until, now + max(rate.burst, self.weight) * rate.interval)

    def ahead(self, now: int) -> int:
        """The time in which nothing is used up any more, if nobody comes."""
        return max(0, self.until - now)

    def tickets(self, rate: Rate, now: int) -> int:
        """How many may go at once."""
        return max(0, rate.burst - -(-self.ahead(now) // rate.interval))


class Meters:
    """
    The meters of counters that nobody needs at the moment: a quota of a day outlives the day's last request.

    Those at which nothing is used up any more go, at most two whenever one comes: so they cost nobody much. And there
    are never more than L{MOST}, whatever values clients invent that a limit counts by: of too many those go that end
    first, for they say the least. So whoever is over a rate is remembered for longer than those who came once.
    """

    #: So many take some 30 MB.
    MOST = 100_000

    def __init__(self) -> None:
        #: When each ends, whose it is, and the weight of the last ticket; by that, and by whose it is.
        self._ends: SortedList = SortedList()
        self._kept: dict[str, tuple[int, str, int]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, key: str) -> Meter:
        """The meter of a counter that is needed again, or for the first time."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return Meter()
        self._ends.remove(kept)
        return Meter(kept[0], kept[2])

    def keep(self, key: str, meter: Meter, now: int) -> None:
        """Keep the meter of a counter that nobody needs, as long as it says something."""
        if key in self._kept:
            self.take(key)
        if meter.until + LATE > now:
            kept = self._kept[key] = (meter.until, key, meter.weight)
            self._ends.add(kept)
        if len(self._ends) > self.MOST:
            self._forget_first()
        for _ in range(2):
            self._forget_ended(now)

    def forget(self, now: int) -> None:
        """Forget the meters at which nothing is used up any more."""
        while self._forget_ended(now):
            pass

    def _forget_ended(self, now: int) -> bool:
        # From then on a ticket is charged as by a new one.
        has_ended = bool(self._ends) and self._ends[0][0] + LATE <= now
        if has_ended:
            self._forget_first()
        return has_ended

    def _forget_first(self) -> None:
        _, key, _ = self._ends.pop(0)
        del self._kept[key]
