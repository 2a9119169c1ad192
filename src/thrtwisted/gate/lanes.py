"""
Parked lanes: who is admitted, and in which order. Pure; it knows neither time nor Deferreds.

A naive gate looks at every waiter whenever a slot comes free. This one looks at few. Tickets that need the same
slots of the same counters form a I{lane}, ordered among themselves; a lane that cannot move is I{parked} at exactly
one of its counters. So when a slot of C comes free, only the lanes parked at C can move, and of each only its head.

A ticket takes as many slots of a counter as its I{weight} there says. It I{fits} at a counter if so many are free; a
ticket heavier than all the slots together fits where none is taken, and so runs alone. What is free at a counter is
kept for the best that is parked there: a counter I{blocks} a ticket that does not fit, and also one that is worse than
the head of a lane parked there. Else light tickets would take each slot as it comes free, and a heavy one would wait
for ever.

  - C{acquire}: no counter blocks it: admit. Otherwise join the lane. A new lane is parked at the first counter that
    blocks; a lane with a new head stays where it is parked if that counter blocks the new head too, and else is
    parked likewise.
  - C{release}: give the slots back; then settle: as long as the best lane at one of these counters fits there, take
    the one with the best head. Another of its counters blocks it: park it there instead. Otherwise admit the head;
    its lane stays, by its new head.
  - A ticket that gives up waiting may have been the one for whom slots were kept: settle the counter of its lane.

The invariant is: B{the best lane parked at C does not fit at C}; so every lane is parked where it is blocked. (Where
all weights are 1 that is: a lane parked at C implies that C is full, and nothing is kept for anybody.) It holds because
more fits only after a release, a raised limit or a withdrawal, and each settles the counters that it touches; an
admission makes less fit; and a lane is parked where it does not fit or where a better one is parked. A ticket that is
blocked nowhere overtakes nobody who could go.

Settling ends, for the heads that it picks only get worse. A lane better than the one just picked, at a counter that is
being settled, is the best there and does not fit, or is behind such a one; settling frees no slots, so there it stays.
What a move or an admission uncovers is worse than what was picked, by the order of the counter or of the lane. So one
settling looks at each ticket once at most.

A lane is parked at one counter, and slots are kept for it there alone: a ticket that is heavy at two counters may be
passed at the one while it waits for the other.

C{gate.lua} is the same algorithm over Redis; both are held against models by one test suite. With weights it matters
which of several blocking counters comes first: that is by the counters' keys.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeAlias, TypeVar

import attrs
from sortedcontainers import SortedDict

from . import Counter

Id = TypeVar("Id", bound=Hashable)

#: Order, then arrival here: with aging, two orders may be the same.
_Rank: TypeAlias = tuple[int, int]


@attrs.define(eq=False)
class _Counter:
    """
    A counter in use.

    @ivar used: slots taken; more than C{slots} after the limit was lowered, or by a ticket heavier than that.
    @ivar waiting: how many tickets wait that need this counter, in lanes parked here or elsewhere.
    @ivar parked: the lanes parked here, by the ranks of their heads.
    """

    key: str
    slots: int
    used: int = 0
    waiting: int = 0
    parked: SortedDict = attrs.field(factory=SortedDict)

    def fits(self, weight: int) -> bool:
        return self.used + weight <= self.slots or (not self.used and self.slots > 0)

    def blocks(self, weight: int, rank: _Rank) -> bool:
        return not self.fits(weight) or bool(self.parked and self.best < rank)

    @property
    def best(self) -> _Rank:
        """The rank of the best head that is parked here."""
        rank: _Rank = self.parked.peekitem(0)[0]
        return rank

    @property
    def movable(self) -> bool:
        """Whether the best that is parked here fits: not so, unless this counter is being settled."""
        if not self.parked:
            return False
        lane: _Lane = self.parked.peekitem(0)[1]
        return self.fits(next(weight for counter, weight in lane.needs if counter is self))


#: What a ticket needs: counters with the weight that it has there, by the counters' keys.
_Needs: TypeAlias = tuple[tuple[_Counter, int], ...]


@attrs.define(eq=False)
class _Lane:
    """
    The waiting tickets that need the same.

    @ivar tickets: their ids, by rank.
    @ivar parked_at: the counter that this lane waits for.
    """

    needs: _Needs
    parked_at: _Counter
    tickets: SortedDict = attrs.field(factory=SortedDict)

    @property
    def head(self) -> _Rank:
        rank: _Rank = self.tickets.peekitem(0)[0]
        return rank


@attrs.define(eq=False)
class _Place:
    """A ticket's place: in a lane, at its rank; or, once admitted, in no lane."""

    needs: _Needs
    rank: _Rank = (0, 0)
    lane: _Lane | None = None


class Lanes(Generic[Id]):
    """
    The state of a gate: counters, lanes, and the tickets in them.

    @ivar waiting: how many tickets wait.
    @ivar released: how many admitted tickets have been released, ever.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.released = 0
        self._number = 0
        self._counters: dict[str, _Counter] = {}
        self._lanes: dict[tuple[tuple[str, int], ...], _Lane] = {}
        self._places: dict[Id, _Place] = {}

    def __repr__(self) -> str:
        used = " ".join(f"{c.key}:{c.used}/{c.slots}" for c in self._counters.values())
        return f"<Lanes {used or 'idle'}, {self.waiting} waiting in {len(self._lanes)} lanes>"

    def __contains__(self, ticket: Id) -> bool:
        """Whether a ticket waits, or is admitted."""
        return ticket in self._places

    @property
    def idle(self) -> bool:
        """Whether nothing is held, by anybody."""
        return not (self._counters or self._lanes or self._places)

    def waiting_for(self, key: str) -> int:
        """How many tickets wait that need a counter."""
        counter = self._counters.get(key)
        return counter.waiting if counter else 0

    def acquire(
        self, ticket: Id, counters: Iterable[Counter], order: int, max_waiting: int | None = None
    ) -> list[Id]:
        """
        Admit a ticket, or let it wait, or refuse it: then it is not here afterwards, and all that is left of it is that
        the limits it came with count from now on. (If they did not, a limit of 0 could not be raised while the queue
        is full.) A ticket that is already here is left where it is.

        @param order: the lowest goes first; of two that are the same, the earlier.
        @param max_waiting: if so many tickets wait, or as many as one of the counters allows, it may not wait too. None
            for no bound, not even those of the counters.
        @return: who was admitted, in order: this ticket, and before it those that a raised limit let through.
        """
        if ticket in self._places:
            return []
        wanted, needs = self._needs(counters)
        admitted = self._settle(_resize(needs, wanted))
        self._number += 1
        rank = (order, self._number)
        blocking = _first_blocking(needs, rank)
        if blocking is None:
            self._take(ticket, needs)
            admitted.append(ticket)
        elif max_waiting is not None and self._crowded(wanted, max_waiting):
            self._forget_idle(needs)
        else:
            self._join(ticket, needs, rank, blocking)
        return admitted

    def hold(self, ticket: Id, counters: Iterable[Counter]) -> list[Id]:
        """
        Take a ticket's slots, which it was given elsewhere: even more than there are. A ticket that is already here is
        left where it is.

        @return: who was admitted because a limit that came with it was raised, in order.
        """
        if ticket in self._places:
            return []
        wanted, needs = self._needs(counters)
        raised = _resize(needs, wanted)
        self._take(ticket, needs)
        return self._settle(raised)

    def release(self, ticket: Id) -> list[Id]:
        """
        Give up a ticket: its slots if it was admitted, its place if it waited. An unknown one is ignored.

        @return: who was admitted in consequence, in order.
        """
        place = self._places.pop(ticket, None)
        if place is None:
            return []
        if place.lane is not None:
            freed = self._leave(place, place.lane)
        else:
            for counter, weight in place.needs:
                counter.used -= weight
            self.released += 1
            freed = [counter for counter, _ in place.needs]
        admitted = self._settle(freed)
        self._forget_idle(place.needs)
        return admitted

    def _needs(self, counters: Iterable[Counter]) -> tuple[list[Counter], _Needs]:
        """What a ticket needs, by the counters' keys; counters that nobody needed before are made."""
        wanted = sorted(counters, key=lambda counter: counter.key)
        needs = []
        for counter in wanted:
            state = self._counters.get(counter.key)
            if state is None:
                state = self._counters[counter.key] = _Counter(counter.key, counter.max_concurrent)
            needs.append((state, counter.weight))
        return wanted, tuple(needs)

    def _crowded(self, counters: list[Counter], max_waiting: int) -> bool:
        """Whether nobody more may wait for these counters."""
        return self.waiting >= max_waiting or any(
            counter.max_waiting is not None and self.waiting_for(counter.key) >= counter.max_waiting
            for counter in counters
        )

    def _take(self, ticket: Id, needs: _Needs) -> None:
        for counter, weight in needs:
            counter.used += weight
        self._places[ticket] = _Place(needs)

    def _join(self, ticket: Id, needs: _Needs, rank: _Rank, blocking: _Counter) -> None:
        """
        Let a ticket wait in its lane.

        @param blocking: the first counter that blocks it.
        """
        key = _lane_key(needs)
        lane = self._lanes.get(key)
        at = blocking
        if lane is None:
            lane = self._lanes[key] = _Lane(needs, at)
        elif rank > lane.head:
            at = lane.parked_at
        else:
            del lane.parked_at.parked[lane.head]
            # It is not the best there, for then it would not fit, and block each of its own: nobody gains by its going.
            if any(counter is lane.parked_at and counter.blocks(weight, rank) for counter, weight in needs):
                at = lane.parked_at
        lane.tickets[rank] = ticket
        self._places[ticket] = _Place(lane.needs, rank, lane)
        self._count_waiting(needs, 1)
        self._park(lane, at)

    def _leave(self, place: _Place, lane: _Lane) -> list[_Counter]:
        """Take a waiting ticket out of its lane; the counter is returned of which another may be the best now."""
        at = lane.parked_at
        del at.parked[lane.head]
        del lane.tickets[place.rank]
        self._count_waiting(lane.needs, -1)
        self._park(lane, at)
        return [at]

    def _park(self, lane: _Lane, counter: _Counter) -> None:
        """Park a lane by its head; an empty one ends."""
        if lane.tickets:
            lane.parked_at = counter
            counter.parked[lane.head] = lane
        else:
            del self._lanes[_lane_key(lane.needs)]

    def _settle(self, freed: list[_Counter]) -> list[Id]:
        """Admit whoever counters let through of which more is free, best first, until nobody more can go."""
        admitted: list[Id] = []
        while movable := [counter for counter in freed if counter.movable]:
            counter = min(movable, key=lambda counter: counter.best)
            rank, lane = counter.parked.popitem(0)
            blocking = _first_blocking(lane.needs, rank)
            if blocking is None:
                _, ticket = lane.tickets.popitem(0)
                self._count_waiting(lane.needs, -1)
                self._take(ticket, lane.needs)
                admitted.append(ticket)
            # After an admission its lane stays here: if more fits still, it is looked at again.
            self._park(lane, blocking or counter)
        return admitted

    def _count_waiting(self, needs: _Needs, change: int) -> None:
        self.waiting += change
        for counter, _ in needs:
            counter.waiting += change

    def _forget_idle(self, needs: _Needs) -> None:
        """Idle counters leave nothing behind, whatever values clients invent for a header."""
        for counter, _ in needs:
            if not counter.used and not counter.waiting:
                self._counters.pop(counter.key, None)


def _resize(needs: _Needs, wanted: list[Counter]) -> list[_Counter]:
    """Take over the limits that came with a ticket; the last one given counts. Those that were raised are returned."""
    raised = []
    for (counter, _), given in zip(needs, wanted, strict=True):
        if given.max_concurrent > counter.slots:
            raised.append(counter)
        counter.slots = given.max_concurrent
    return raised


def _first_blocking(needs: _Needs, rank: _Rank) -> _Counter | None:
    """The first counter, by their keys, that blocks a ticket; None if it can go."""
    return next((counter for counter, weight in needs if counter.blocks(weight, rank)), None)


def _lane_key(needs: _Needs) -> tuple[tuple[str, int], ...]:
    return tuple((counter.key, weight) for counter, weight in needs)
