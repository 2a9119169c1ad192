"""
Parked lanes: who is admitted, and in which order. Pure: it is told the time, and knows no Deferreds.

A naive gate looks at every waiter whenever a slot comes free. This one looks at few. Tickets that need the same
slots of the same counters form a I{lane}, ordered among themselves; a lane that cannot move is I{parked} at exactly
one of its counters. So when a slot of C comes free, only the lanes parked at C can move, and of each only its head.

A ticket takes as many slots of a counter as its I{weight} there says. It I{fits} at a counter if so many are free; a
ticket heavier than all the slots together fits where none is taken, and so runs alone. What is free at a counter is
kept for the best that is parked there: a counter I{blocks} a ticket that does not fit, and also one that is worse than
the head of a lane parked there. Else light tickets would take each slot as it comes free, and a heavy one would wait
for ever.

A counter may have a I{rate} (see L{thrtwisted.gate.meter}). Then a ticket fits only if, besides, it is I{ready}: if so
many have not gone lately. Time alone lets it fit, so a counter whose best lane lacks nothing but time is I{due} at the
time from which the head of that lane is ready; whatever comes first of all settles what is due by then. Somebody has to
come at that time, for which C{next_due} and C{wake} are there. If a rate rejects or demotes, it holds nobody up: that
is decided, and charged, when a ticket arrives.

  - C{arrive}, C{acquire}: no counter blocks it: admit. Otherwise join the lane. A new lane is parked at the first
    counter that blocks; a lane with a new head stays where it is parked if that counter blocks the new head too, and
    else is parked likewise.
  - C{release}: give the slots back; then settle: as long as the best lane at one of these counters fits there, take
    the one with the best head. Another of its counters blocks it: park it there instead. Otherwise admit the head;
    its lane stays, by its new head. What is due is settled in the same way.
  - A ticket that gives up waiting may have been the one for whom slots were kept: settle the counter of its lane.

The invariant is: B{the best lane parked at C does not fit at C, and if it lacks only time, C is due when it is ready};
so every lane is parked where it is blocked. (Where there are no rates and all weights are 1 that is: a lane parked at C
implies that C is full, and nothing is kept for anybody.) It holds because more fits only after a release, a withdrawal,
a limit that is raised or a rate that is another, and each settles the counters that it touches, or after some time, and
then they are due; an admission makes less fit; and a lane is parked where it does not fit or where a better one is
parked. A ticket that is blocked nowhere overtakes nobody who could go.

Settling ends, for the heads that it picks only get worse. A lane better than the one just picked, at a counter that is
being settled, is the best there and does not fit, or is behind such a one; settling frees no slots and takes no time,
so there it stays. What a move or an admission uncovers is worse than what was picked, by the order of the counter or of
the lane. So one settling looks at each ticket once at most.

A lane is parked at one counter, and slots are kept for it there alone: a ticket that is heavy at two counters may be
passed at the one while it waits for the other.

Of the same priority, tickets may take turns by a key that they have (see L{thrtwisted.gate.turns}). A turn is taken
when a ticket has to wait, and is part of its order from then on: so nothing above is any different.

C{gate.lua} is the same algorithm over Redis; both are held against models by one test suite. With weights it matters
which of several blocking counters comes first: that is by the counters' keys.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeAlias, TypeVar

import attrs
from sortedcontainers import SortedDict

from . import Counter, Quota, Rate
from .meter import LATE, Meter, Meters
from .order import MICROSECONDS, Order, parts
from .turns import Turns

Id = TypeVar("Id", bound=Hashable)

#: Order, then arrival here: with aging, two orders may be the same.
_Rank: TypeAlias = tuple[int, int]

#: What is parked at a counter as long as nothing ever was, which is so at most of them. It stays empty. To make one for
#: each that comes and goes would take half as long as all else that is done for its ticket.
_NONE_PARKED = SortedDict()


@attrs.define(eq=False)
class _Counter:
    """
    A counter in use.

    @ivar used: slots taken; more than C{slots} after the limit was lowered, or by a ticket heavier than that.
    @ivar waiting: how many tickets wait that need this counter, in lanes parked here or elsewhere.
    @ivar parked: the lanes parked here, by the ranks of their heads.
    @ivar meter: what is used up of its rate.
    @ivar rate: how many tickets in a time, as the last ticket said; None for any number.
    @ivar regulates: the rate, if tickets wait for it.
    @ivar due: the time (us) at which the best that is parked here lacks nothing any more, if it lacks only time.
    """

    key: str
    slots: int
    meter: Meter
    used: int = 0
    waiting: int = 0
    parked: SortedDict = _NONE_PARKED
    rate: Rate | None = None
    regulates: Rate | None = None
    due: int | None = None

    def has_slots(self, weight: int) -> bool:
        return self.used + weight <= self.slots or (not self.used and self.slots > 0)

    def fits(self, weight: int, now: int) -> bool:
        return (self.used + weight <= self.slots or (not self.used and self.slots > 0)) and (
            self.regulates is None or self.meter.ready(self.regulates, weight) <= now
        )

    def blocks(self, weight: int, rank: _Rank, now: int) -> bool:
        return not self.fits(weight, now) or bool(self.parked and self.best < rank)

    @property
    def best(self) -> _Rank:
        """The rank of the best head that is parked here."""
        rank: _Rank = self.parked.peekitem(0)[0]
        return rank

    @property
    def best_weight(self) -> int:
        """The weight here of the best head that is parked here."""
        lane: _Lane = self.parked.peekitem(0)[1]
        return next(weight for counter, weight in lane.needs if counter is self)

    def is_movable(self, now: int) -> bool:
        """Whether the best that is parked here fits: not so, unless this counter is being settled."""
        return bool(self.parked) and self.fits(self.best_weight, now)

    def next_due(self) -> int | None:
        """When this counter has to be settled, if nothing else happens."""
        if self.regulates is None or not self.parked:
            return None
        weight = self.best_weight
        return self.meter.ready(self.regulates, weight) if self.has_slots(weight) else None


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
    """
    A ticket's place: in a lane, at its rank; or, once admitted, in no lane.

    @ivar fair: what it takes turns by, if it does.
    """

    needs: _Needs
    rank: _Rank = (0, 0)
    lane: _Lane | None = None
    fair: str | None = None


@attrs.frozen
class Arrival(Generic[Id]):
    """
    What a ticket's arrival leads to.

    @ivar admitted: who was admitted, in order: this ticket, and before it those who were due, and those that a raised
        limit let through.
    @ivar priority: the ticket's priority from now on: worse than its own if it is over a rate that demotes.
    @ivar order: its order; 0 if it is over a rate that rejects.
    @ivar rejected: us after which it would not be; 0 if it is not.
    """

    admitted: list[Id]
    priority: int
    order: int = 0
    rejected: int = 0


class Lanes(Generic[Id]):
    """
    The state of a gate: counters, lanes, and the tickets in them.

    All times are microseconds of one clock. What it does at a time it does for the time before that, too; and what was
    meant by a later one, before the clock was set back, does not hold anybody up for the difference.

    @param order: ranks those who arrive.
    @param meters: what is used up of rates at the beginning.
    @ivar waiting: how many tickets wait.
    @ivar released: how many admitted tickets have been released, ever.
    """

    def __init__(self, order: Order | None = None, meters: Meters | None = None) -> None:
        self.waiting = 0
        self.released = 0
        self._order = order or Order()
        self._number = 0
        self._now = 0
        self._counters: dict[str, _Counter] = {}
        self._lanes: dict[tuple[tuple[str, int], ...], _Lane] = {}
        self._places: dict[Id, _Place] = {}
        self._meters = Meters() if meters is None else meters
        self._turns = Turns()
        #: The counters that are due, by time and key.
        self._due: SortedDict = SortedDict()
        #: Counters that may be due at another time now.
        self._touched: set[_Counter] = set()

    def __repr__(self) -> str:
        used = " ".join(f"{c.key}:{c.used}/{c.slots}" for c in self._counters.values())
        return f"<Lanes {used or 'idle'}, {self.waiting} waiting in {len(self._lanes)} lanes>"

    def __contains__(self, ticket: Id) -> bool:
        """Whether a ticket waits, or is admitted."""
        return ticket in self._places

    @property
    def idle(self) -> bool:
        """
        Whether nothing is held, by anybody, and nobody's turn is remembered. (What is used up of a rate still is.)
        """
        return not (self._counters or self._lanes or self._places or self._due or self._turns)

    @property
    def next_due(self) -> int | None:
        """The time (us) at which somebody may be able to go by whom nothing else has to be done than L{wake}."""
        return self._due.peekitem(0)[0][0] if self._due else None

    def used_up(self) -> Meters:
        """What is used up of rates at the end."""
        for counter in self._counters.values():
            self._meters.keep(counter.key, counter.meter, self._now)
        return self._meters

    def waiting_for(self, key: str) -> int:
        """How many tickets wait that need a counter."""
        counter = self._counters.get(key)
        return counter.waiting if counter else 0

    def quotas(self, counters: Iterable[Counter], now: int) -> dict[str, Quota]:
        """What is left of the counters to be shown, of those that an admitted ticket has slots of, by their keys."""
        return {
            counter.key: self._quota(self._counters[counter.key], now)
            for counter in counters
            if counter.shown
        }

    def _quota(self, counter: _Counter, now: int) -> Quota:
        slots = max(0, counter.slots - counter.used)
        if counter.rate is None:
            return Quota(slots)
        return Quota(slots, counter.meter.tickets(counter.rate, now), counter.meter.ahead(now) / MICROSECONDS)

    # Operations ----------------------------------------------------------------------------------------------------

    def arrive(
        self,
        ticket: Id,
        counters: Iterable[Counter],
        priority: int,
        now: int = 0,
        max_waiting: int | None = None,
        fair: str | None = None,
    ) -> Arrival[Id]:
        """
        Admit a ticket, or let it wait, or refuse it: then it is not here afterwards, and all that is left of it is that
        the limits and rates that it came with count from now on. (If they did not, a limit of 0 could not be raised
        while the queue is full.) A ticket that is already here is left where it is.

        @param max_waiting: if so many tickets wait, or as many as one of the counters allows, it may not wait too. None
            for no bound, not even those of the counters.
        @param fair: of the same priority, it takes turns with those for whom this is different.
        """
        if ticket in self._places:
            return Arrival([], priority)
        wanted, needs, admitted = self._come(counters, now)
        charged = []
        rejected = 0
        for counter, weight in needs:
            rate = counter.rate
            if rate is None or rate is counter.regulates:
                continue
            missing = counter.meter.ready(rate, weight) - now
            if rate.over == "reject":
                rejected = max(rejected, missing)
            elif missing > 0:
                priority = max(priority, rate.demote_to)
                continue
            charged.append((counter, weight))
        if rejected:
            self._forget_idle(needs)
            self._plan()
            return Arrival(admitted, priority, rejected=rejected)
        turn = None
        if fair is not None and self._order.takes_turns:
            turn = self._turns.turn(_keys(needs), priority, fair)
        order = self._order.next(priority, now, turn)
        if self._enter(ticket, wanted, needs, order, max_waiting, fair, charged):
            admitted.append(ticket)
        return Arrival(admitted, priority, order)

    def acquire(
        self,
        ticket: Id,
        counters: Iterable[Counter],
        order: int,
        max_waiting: int | None = None,
        now: int = 0,
        fair: str | None = None,
    ) -> list[Id]:
        """
        The same for a ticket that has arrived elsewhere, where it was decided and charged what it has to be at its
        arrival.

        @param order: the lowest goes first; of two that are the same, the earlier.
        @return: who was admitted, in order: this ticket, and before it those who were due, and those that a raised
            limit let through.
        """
        if ticket in self._places:
            return []
        wanted, needs, admitted = self._come(counters, now)
        if self._enter(ticket, wanted, needs, order, max_waiting, fair, []):
            admitted.append(ticket)
        return admitted

    def hold(self, ticket: Id, counters: Iterable[Counter], now: int = 0) -> list[Id]:
        """
        Take a ticket's slots, which it was given elsewhere: even more than there are. A ticket that is already here is
        left where it is.

        @return: who was admitted, for they were due or a limit that came with it was raised, in order.
        """
        if ticket in self._places:
            return []
        admitted = self._settle_due(now)
        wanted, needs = self._needs(counters)
        raised = self._resize(needs, wanted)
        self._take(ticket, needs, waited=None)
        admitted += self._settle(raised)
        self._plan()
        return admitted

    def release(self, ticket: Id, now: int = 0) -> list[Id]:
        """
        Give up a ticket: its slots if it was admitted, its place if it waited. An unknown one is ignored.

        @return: who was admitted, for they were due or in consequence, in order.
        """
        admitted = self._settle_due(now)
        place = self._places.pop(ticket, None)
        if place is not None:
            if place.lane is not None:
                freed = self._leave(place, place.lane)
            else:
                freed = []
                for counter, weight in place.needs:
                    counter.used -= weight
                    freed.append(counter)
                    if counter.regulates is not None:
                        self._touched.add(counter)
                self.released += 1
            admitted += self._settle(freed)
            self._forget_idle(place.needs)
        self._plan()
        return admitted

    def wake(self, now: int) -> list[Id]:
        """Time has passed; who was admitted, for they were due, in order."""
        admitted = self._settle_due(now)
        self._plan()
        return admitted

    # Steps ---------------------------------------------------------------------------------------------------------

    def _come(self, counters: Iterable[Counter], now: int) -> tuple[list[Counter], _Needs, list[Id]]:
        """A ticket comes with its limits; what it needs, and whom time and they let through."""
        admitted = self._settle_due(now)
        wanted, needs = self._needs(counters)
        changed = self._resize(needs, wanted)
        if changed:
            admitted += self._settle(changed)
        return wanted, needs, admitted

    def _enter(
        self,
        ticket: Id,
        wanted: list[Counter],
        needs: _Needs,
        order: int,
        max_waiting: int | None,
        fair: str | None,
        charged: Iterable[tuple[_Counter, int]],
    ) -> bool:
        """
        Admit a ticket, or let it wait if it may.

        @param charged: what it is charged for in either case.
        @return: whether it was admitted.
        """
        self._number += 1
        rank = (order, self._number)
        blocking = _first_blocking(needs, rank, self._now)
        if blocking is not None and max_waiting is not None and self._crowded(wanted, max_waiting):
            self._forget_idle(needs)
        else:
            for counter, weight in charged:
                assert counter.rate is not None
                counter.meter.charge(counter.rate, weight, self._now, waited=False)
            if blocking is None:
                self._take(ticket, needs, waited=False)
            else:
                self._join(ticket, needs, rank, blocking, fair if self._order.takes_turns else None)
        self._plan()
        return blocking is None

    def _needs(self, counters: Iterable[Counter]) -> tuple[list[Counter], _Needs]:
        """What a ticket needs, by the counters' keys; counters that nobody needed before are made."""
        wanted = sorted(counters, key=lambda counter: counter.key)
        needs = []
        for counter in wanted:
            state = self._counters.get(counter.key)
            if state is None:
                meter = self._meters.take(counter.key)
                state = self._counters[counter.key] = _Counter(counter.key, counter.max_concurrent, meter)
            needs.append((state, counter.weight))
        return wanted, tuple(needs)

    def _resize(self, needs: _Needs, wanted: list[Counter]) -> list[_Counter]:
        """
        Take over the limits and rates that came with a ticket; the last one given counts. Those by which somebody may
        go now are returned.
        """
        changed = []
        for (counter, _), given in zip(needs, wanted, strict=True):
            if given.max_concurrent > counter.slots:
                changed.append(counter)
            if given.max_concurrent != counter.slots:
                counter.slots = given.max_concurrent
                self._touched.add(counter)
            if given.rate is not None or counter.rate is not None:
                if given.rate != counter.rate:
                    counter.rate = given.rate
                    counter.regulates = given.rate if given.rate and given.rate.over == "wait" else None
                    changed.append(counter)
                self._bound(counter)
        return changed

    def _bound(self, counter: _Counter) -> None:
        if counter.rate is not None:
            counter.meter.bound(counter.rate, self._now)
        self._touched.add(counter)

    def _crowded(self, counters: list[Counter], max_waiting: int) -> bool:
        """Whether nobody more may wait for these counters."""
        return self.waiting >= max_waiting or any(
            counter.max_waiting is not None and self.waiting_for(counter.key) >= counter.max_waiting
            for counter in counters
        )

    def _take(self, ticket: Id, needs: _Needs, *, waited: bool | None) -> None:
        """
        Give a ticket its slots, and charge it where tickets wait for a rate.

        @param waited: None if it is not to be charged, for that was done elsewhere.
        """
        for counter, weight in needs:
            counter.used += weight
            if counter.regulates is not None:
                self._touched.add(counter)
                if waited is not None:
                    counter.meter.charge(counter.regulates, weight, self._now, waited=waited)
        self._places[ticket] = _Place(needs)

    def _join(
        self, ticket: Id, needs: _Needs, rank: _Rank, blocking: _Counter, fair: str | None = None
    ) -> None:
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
            if any(
                counter is lane.parked_at and counter.blocks(weight, rank, self._now)
                for counter, weight in needs
            ):
                at = lane.parked_at
        lane.tickets[rank] = ticket
        self._places[ticket] = _Place(lane.needs, rank, lane, fair)
        self._count_waiting(needs, 1)
        self._park(lane, at)
        if fair is not None:
            priority, turn = parts(rank[0])
            self._turns.join(_keys(needs), priority, fair, turn)

    def _leave(self, place: _Place, lane: _Lane) -> list[_Counter]:
        """Take a waiting ticket out of its lane; the counter is returned of which another may be the best now."""
        at = lane.parked_at
        del at.parked[lane.head]
        del lane.tickets[place.rank]
        if place.fair is not None:
            self._turns.leave(_keys(place.needs), parts(place.rank[0])[0], place.fair)
        self._count_waiting(lane.needs, -1)
        self._park(lane, at)
        return [at]

    def _park(self, lane: _Lane, counter: _Counter) -> None:
        """Park a lane by its head; an empty one ends."""
        if lane.tickets:
            lane.parked_at = counter
            if counter.parked is _NONE_PARKED:
                counter.parked = SortedDict()
            counter.parked[lane.head] = lane
        else:
            del self._lanes[_lane_key(lane.needs)]
        if counter.regulates is not None:
            self._touched.add(counter)

    def _settle_due(self, now: int) -> list[Id]:
        """The time is this; who was admitted by what is due."""
        if now < self._now:
            self._meters.forget(self._now)
            before, self._now = self._now, now
            for counter in self._counters.values():
                if counter.meter.until + LATE <= before:
                    counter.meter.until = 0
                self._bound(counter)
            self._plan()
        self._now = now
        if not self._due:
            return []
        due = []
        while self._due and self._due.peekitem(0)[0][0] <= now:
            _, counter = self._due.popitem(0)
            counter.due = None
            due.append(counter)
            self._touched.add(counter)
        return self._settle(due)

    def _plan(self) -> None:
        """See when those counters are due at which something has changed."""
        if not self._touched:
            return
        for counter in self._touched:
            due = counter.next_due()
            if due != counter.due:
                if counter.due is not None:
                    del self._due[counter.due, counter.key]
                if due is not None:
                    self._due[due, counter.key] = counter
                counter.due = due
        self._touched.clear()

    def _settle(self, freed: list[_Counter]) -> list[Id]:
        """Admit whoever counters let through of which more is free, best first, until nobody more can go."""
        admitted: list[Id] = []
        while movable := [counter for counter in freed if counter.is_movable(self._now)]:
            counter = min(movable, key=lambda counter: counter.best)
            rank, lane = counter.parked.popitem(0)
            blocking = _first_blocking(lane.needs, rank, self._now)
            if blocking is None:
                _, ticket = lane.tickets.popitem(0)
                if self._places[ticket].fair is not None:
                    priority, turn = parts(rank[0])
                    self._turns.serve(_keys(lane.needs), priority, turn)
                self._count_waiting(lane.needs, -1)
                self._take(ticket, lane.needs, waited=True)
                admitted.append(ticket)
            # After an admission its lane stays here: if more fits still, it is looked at again.
            self._park(lane, blocking or counter)
        return admitted

    def _count_waiting(self, needs: _Needs, change: int) -> None:
        self.waiting += change
        for counter, _ in needs:
            counter.waiting += change
        if change < 0 and self._turns:
            for counter, _ in needs:
                if not counter.waiting:
                    self._turns.forget(counter.key)
            if not self.waiting:
                self._turns.end()

    def _forget_idle(self, needs: _Needs) -> None:
        """Idle counters leave nothing behind, whatever values clients invent for a header."""
        for counter, _ in needs:
            if not counter.used and not counter.waiting:
                self._counters.pop(counter.key, None)
                self._meters.keep(counter.key, counter.meter, self._now)


def _first_blocking(needs: _Needs, rank: _Rank, now: int) -> _Counter | None:
    """The first counter, by their keys, that blocks a ticket; None if it can go."""
    return next((counter for counter, weight in needs if counter.blocks(weight, rank, now)), None)


def _keys(needs: _Needs) -> list[str]:
    return [counter.key for counter, _ in needs]


def _lane_key(needs: _Needs) -> tuple[tuple[str, int], ...]:
    return tuple((counter.key, weight) for counter, weight in needs)
