"""
Parked lanes: who is admitted, and in which order. Pure; it knows neither time nor Deferreds.

A naive gate looks at every waiter whenever a slot comes free. This one looks at few. Tickets that need the same
set of counters form a I{lane}, ordered among themselves; a lane that cannot move is I{parked} at exactly one of its
counters that is full. The invariant is: a lane parked at C implies that C is full. So when a slot of C comes free,
only the lanes parked at C can move, and of each only its head.

  - C{acquire}: all counters have room: admit. Otherwise join the lane; a new lane is parked at a full counter.
  - C{release}: give the slots back; then, as long as one of these counters has room and lanes are parked there, take
    the lane with the best head. Another of its counters is full: park it there instead. Otherwise admit the head.

A ticket that finds room everywhere overtakes nobody: were somebody waiting in its lane, one of its counters would be
full. C{gate.lua} is the same algorithm over Redis; both are held against a brute-force model by one test suite.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import attrs
from sortedcontainers import SortedDict

from . import Counter

Id = TypeVar("Id", bound=Hashable)


@attrs.define(eq=False)
class _Counter:
    """
    A counter in use.

    @ivar used: slots taken; more than C{slots} after the limit was lowered.
    @ivar lanes: how many lanes need this counter, parked here or elsewhere.
    @ivar parked: the lanes parked here, by the order of their heads.
    """

    key: str
    slots: int
    used: int = 0
    lanes: int = 0
    parked: SortedDict = attrs.field(factory=SortedDict)

    @property
    def full(self) -> bool:
        return self.used >= self.slots


@attrs.define(eq=False)
class _Lane:
    """
    The waiting tickets that need one set of counters.

    @ivar tickets: their ids, by order.
    @ivar parked_at: the full counter that this lane waits for.
    """

    counters: tuple[_Counter, ...]
    parked_at: _Counter
    tickets: SortedDict = attrs.field(factory=SortedDict)

    @property
    def head(self) -> int:
        order: int = self.tickets.peekitem(0)[0]
        return order


@attrs.define(eq=False)
class _Place:
    """A ticket's place: in a lane, at C{order}; or, once admitted, in no lane."""

    counters: tuple[_Counter, ...]
    order: int
    lane: _Lane | None


class Lanes(Generic[Id]):
    """
    The state of a gate: counters, lanes, and the tickets in them.

    @ivar waiting: how many tickets wait.
    @ivar released: how many admitted tickets have been released, ever.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.released = 0
        self._counters: dict[str, _Counter] = {}
        self._lanes: dict[frozenset[str], _Lane] = {}
        self._places: dict[Id, _Place] = {}

    def __repr__(self) -> str:
        used = " ".join(f"{c.key}:{c.used}/{c.slots}" for c in self._counters.values())
        return f"<Lanes {used or 'idle'}, {self.waiting} waiting in {len(self._lanes)} lanes>"

    @property
    def idle(self) -> bool:
        """Whether nothing is held, by anybody."""
        return not (self._counters or self._lanes or self._places)

    def fits(self, counters: Iterable[Counter]) -> bool:
        """Whether a ticket for these counters would be admitted now."""
        known = ((self._counters.get(counter.key), counter) for counter in counters)
        return all((state.used if state else 0) < counter.max_concurrent for state, counter in known)

    def acquire(self, ticket: Id, counters: Iterable[Counter], order: int) -> list[Id]:
        """
        Admit a ticket, or let it wait. A ticket that is already here is left where it is.

        @param order: its rank: the lowest goes first. No two tickets have the same.
        @return: who was admitted, in order: this ticket, and before it those that a raised limit let through.
        """
        if ticket in self._places:
            return []
        wanted = list(counters)
        states = tuple(self._counter(counter) for counter in wanted)
        admitted = self._resize(states, wanted)
        place = self._places[ticket] = _Place(states, order, None)
        full = _first_full(states)
        if full is None:
            self._take(states)
            admitted.append(ticket)
        else:
            self._join(ticket, place, full)
        return admitted

    def release(self, ticket: Id) -> list[Id]:
        """
        Give up a ticket: its slots if it was admitted, its place if it waited. An unknown one is ignored.

        @return: who was admitted in consequence, in order.
        """
        place = self._places.pop(ticket, None)
        if place is None:
            return []
        if place.lane is not None:
            self._leave(place, place.lane)
            return []
        for counter in place.counters:
            counter.used -= 1
        self.released += 1
        admitted = self._settle(place.counters)
        self._forget_idle(place.counters)
        return admitted

    def _counter(self, counter: Counter) -> _Counter:
        state = self._counters.get(counter.key)
        if state is None:
            state = self._counters[counter.key] = _Counter(counter.key, counter.max_concurrent)
        return state

    def _resize(self, states: tuple[_Counter, ...], wanted: list[Counter]) -> list[Id]:
        """Take over the limits that came with a ticket; the last one given counts."""
        raised = []
        for state, counter in zip(states, wanted, strict=True):
            if counter.max_concurrent > state.slots:
                raised.append(state)
            state.slots = counter.max_concurrent
        return self._settle(tuple(raised)) if raised else []

    def _take(self, counters: tuple[_Counter, ...]) -> None:
        for counter in counters:
            counter.used += 1

    def _join(self, ticket: Id, place: _Place, full: _Counter) -> None:
        key = frozenset(counter.key for counter in place.counters)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(place.counters, full)
            for counter in lane.counters:
                counter.lanes += 1
        elif place.order < lane.head:
            del lane.parked_at.parked[lane.head]
        lane.tickets[place.order] = ticket
        lane.parked_at.parked[lane.head] = lane
        place.lane = lane
        self.waiting += 1

    def _leave(self, place: _Place, lane: _Lane) -> None:
        del lane.parked_at.parked[lane.head]
        del lane.tickets[place.order]
        self.waiting -= 1
        self._park(lane, lane.parked_at)

    def _park(self, lane: _Lane, counter: _Counter) -> None:
        """Park a lane that is parked nowhere; an empty one ends."""
        if lane.tickets:
            lane.parked_at = counter
            counter.parked[lane.head] = lane
            return
        del self._lanes[frozenset(c.key for c in lane.counters)]
        for needed in lane.counters:
            needed.lanes -= 1
        self._forget_idle(lane.counters)

    def _settle(self, freed: tuple[_Counter, ...]) -> list[Id]:
        """Admit whoever the freed counters let through, best first, until nobody more fits."""
        admitted: list[Id] = []
        while True:
            movable = [counter for counter in freed if counter.parked and not counter.full]
            if not movable:
                return admitted
            counter = min(movable, key=lambda c: c.parked.peekitem(0)[0])
            _, lane = counter.parked.popitem(0)
            full = _first_full(lane.counters)
            if full is None:
                _, ticket = lane.tickets.popitem(0)
                self._places[ticket].lane = None
                self.waiting -= 1
                self._take(lane.counters)
                admitted.append(ticket)
            # After an admission its lane stays here: if the counter has room still, it is looked at again.
            self._park(lane, full or counter)

    def _forget_idle(self, counters: tuple[_Counter, ...]) -> None:
        """Idle counters leave nothing behind, whatever values clients invent for a header."""
        for counter in counters:
            if not counter.used and not counter.lanes:
                self._counters.pop(counter.key, None)


def _first_full(counters: tuple[_Counter, ...]) -> _Counter | None:
    return next((counter for counter in counters if counter.full), None)
