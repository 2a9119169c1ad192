"""
The gate of one process while Redis is gone: how many slots of each counter it goes on with, and for whom. Pure.

Nobody knows what the other processes do meanwhile. But what Redis had given to this process when it went away, nobody
else has; so if each goes on with as much as it had, all together stay within the limit. A process that had nothing of a
counter takes one slot nevertheless, or its requests would wait as long as Redis is gone: together they have at most as
many as the limit says, and one for each process but one. A process that was the only one has all of them.

An outage that lasts is another matter: a process that happened to have nothing would have one slot for hours. So after
one lease those who have more than their share, the limit divided by the processes last seen, shrink to it as their
requests end; and after another, when that has happened, the others grow to theirs.

A rate is shared likewise, from the beginning and as if nothing of it were used up: each process has one ticket in as
many intervals as there are processes, and its share of the burst, or one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from . import UNLIMITED, Counter, Quota, Rate
from .lanes import Lanes
from .order import MICROSECONDS, Order
from .places import Place


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
        if self.everything or max_concurrent == UNLIMITED:
            return UNLIMITED
        if self.alone or not max_concurrent:
            return max_concurrent
        share = max(1, max_concurrent // max(1, self.processes))
        entitled = max(1, min(self.entitled.get(key, 0), max_concurrent))
        if now < self.since + self.lease:
            return entitled
        if now < self.since + 2 * self.lease:
            return min(entitled, share)
        return share

    def rate(self, rate: Rate | None) -> Rate | None:
        """How many of a counter may go in a time."""
        if rate is None or self.everything:
            return None
        processes = max(1, self.processes)
        interval = min(rate.interval * processes, UNLIMITED)
        return attrs.evolve(rate, interval=interval, burst=max(1, rate.burst // processes))

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
    @param before: what decided until now, in the same outage: what it let go counts for the rates.
    @ivar admitted: who is admitted at the beginning (serials), in order.
    @ivar rejected: who was refused, for it was over a rate that rejects (serials), and the seconds after which it is
        not. Whoever tells it so takes it out.
    """

    def __init__(
        self,
        shares: Shares,
        order: Order,
        places: Iterable[Place],
        now: float,
        before: Fallback | None = None,
    ) -> None:
        self._shares = shares
        self._lanes: Lanes[int] = Lanes(order, before._lanes.used_up() if before else None)
        self._now = 0
        self.admitted: list[int] = []
        self.rejected: dict[int, float] = {}
        waiting = []
        for place in places:
            if place.admitted:
                self._lanes.hold(place.serial, self._counters(place, now), self._at(now))
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
        A ticket arrives, or did so before. If it has no order yet it is given one, and the priority that it goes by.

        @param max_waiting: if so many wait, or as many as one of its counters allows, it is refused, and is not here
            afterwards; None for no bound. The same becomes of one that is over a rate: see C{rejected}.
        @return: who is admitted (serials), in order.
        """
        counters, fair = self._counters(place, now), place.ticket.fair
        if place.order:
            return self._lanes.acquire(place.serial, counters, place.order, max_waiting, self._at(now), fair)
        arrival = self._lanes.arrive(place.serial, counters, place.priority, self._at(now), max_waiting, fair)
        place.order, place.priority = arrival.order, arrival.priority
        if arrival.rejected:
            self.rejected[place.serial] = arrival.rejected / MICROSECONDS
        return arrival.admitted

    def release(self, serial: int, now: float | None = None) -> list[int]:
        """A ticket is given up; who is admitted. Without a time it is the latest that was told."""
        return self._lanes.release(serial, self._now if now is None else self._at(now))

    def next_due(self, now: float) -> float | None:
        """Seconds until somebody may be able to go; then, L{wake}. None if nobody waits for time alone."""
        due = self._lanes.next_due
        return None if due is None else max(0, due - self._at(now)) / MICROSECONDS

    def wake(self, now: float) -> list[int]:
        """Time has passed; who is admitted."""
        return self._lanes.wake(self._at(now))

    def quotas(self, place: Place, now: float) -> dict[str, Quota]:
        """What is left of the counters of an admitted place that are to be shown, of this process's share."""
        return self._lanes.quotas(place.ticket.counters, self._at(now))

    def _at(self, now: float) -> int:
        """A time as it is reckoned here: us."""
        self._now = round(now * MICROSECONDS)
        return self._now

    def _counters(self, place: Place, now: float) -> list[Counter]:
        """What a place needs, of the slots that there are here."""
        return [
            attrs.evolve(
                counter,
                max_concurrent=self._shares.slots(counter.key, counter.max_concurrent, now),
                rate=self._shares.rate(counter.rate),
            )
            for counter in place.ticket.counters
        ]
