"""
The gate of one process while Redis is gone: how many slots of each counter it goes on with, and for whom. Pure.

Nobody knows what the other processes do meanwhile. But what Redis had given to this process when it went away, nobody
else has; so if each goes on with as much as it had, all together stay within the limit. A process that had nothing of a
counter takes one slot nevertheless, or its requests would wait as long as Redis is gone: together they have at most as
many as the limit says, and one for each process but one. A process that was the only one has all of them.

An outage that lasts is another matter: a process that happened to have nothing would have one slot for hours. So after
one lease those who have more than their share, the limit divided by the processes last seen, shrink to it as their
requests end; and after another, when that has happened, the others grow to theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from . import Counter
from .lanes import Lanes
from .order import Order
from .places import Place

#: More slots than anybody uses: where everything passes.
EVERYTHING = 2**53


@attrs.frozen
class Shares:
    """
    The slots of this process while Redis is gone.

    @ivar since: when that began (seconds).
    @ivar lease: seconds.
    @ivar processes: how many there were; 0 if that is not known.
    @ivar entitled: the slots of each counter that were this process's when it began.
    @ivar everything: whether there are no limits meanwhile.
    """

    since: float
    lease: float
    processes: int
    entitled: Mapping[str, int]
    everything: bool = False

    def slots(self, key: str, max_concurrent: int, now: float) -> int:
        """The slots of a counter. One that has none at all is closed, here too."""
        if self.everything or not max_concurrent:
            return EVERYTHING if self.everything else 0
        if self.alone:
            return max_concurrent
        share = max(1, max_concurrent // max(1, self.processes))
        entitled = max(1, min(self.entitled.get(key, 0), max_concurrent))
        if now < self.since + self.lease:
            return entitled
        if now < self.since + 2 * self.lease:
            return min(entitled, share)
        return share

    def next_change(self, now: float) -> float | None:
        """Seconds until the slots change; None if they do so no more."""
        if self.everything or self.alone:
            return None
        changes = (self.since + self.lease - now, self.since + 2 * self.lease - now)
        return next((change for change in changes if change > 0), None)

    @property
    def alone(self) -> bool:
        """Whether there was no other process: then nobody else has any."""
        return self.processes == 1


class Fallback:
    """
    Who may go while Redis is gone, of the places of this process.

    @param shares: how many slots there are.
    @param order: ranks those who come meanwhile, after all whom Redis has ranked.
    @param places: what is held and who waits at the beginning.
    @param now: seconds.
    """

    def __init__(self, shares: Shares, order: Order, places: Iterable[Place], now: float) -> None:
        self._shares = shares
        self._order = order
        self._lanes: Lanes[int] = Lanes()
        #: Who is admitted at the beginning (serials), in order.
        self.admitted: list[int] = []
        waiting = []
        for place in places:
            if place.admitted:
                self._lanes.hold(place.serial, self._counters(place, now))
            else:
                waiting.append(place)
        waiting.sort(key=lambda place: (not place.order, place.order, place.serial))
        for place in waiting:
            self.admitted += self.acquire(place, now)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._lanes.waiting

    def __contains__(self, place: Place) -> bool:
        """Whether a place is held, or waits."""
        return place.serial in self._lanes

    def acquire(self, place: Place, now: float, max_waiting: int | None = None) -> list[int]:
        """
        A ticket arrives.

        @param max_waiting: if so many wait, or as many as one of its counters allows, it is refused, and is not here
            afterwards; None for no bound.
        @return: who is admitted (serials), in order.
        """
        place.order = place.order or self._order.next(place.ticket.priority, now)
        return self._lanes.acquire(place.serial, self._counters(place, now), place.order, max_waiting)

    def release(self, serial: int) -> list[int]:
        """A ticket is given up; who is admitted."""
        return self._lanes.release(serial)

    def _counters(self, place: Place, now: float) -> list[Counter]:
        """What a place needs, of the slots that there are here."""
        return [
            attrs.evolve(counter, max_concurrent=self._shares.slots(counter.key, counter.max_concurrent, now))
            for counter in place.ticket.counters
        ]
