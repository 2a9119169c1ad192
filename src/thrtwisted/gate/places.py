"""
What this process has at the gate, and what Redis is yet to hear of it. Pure: batches out, replies in.

A ticket's place is in the table from its arrival until it is given up; that table is the truth about this process.
Redis hears of changes as operations, in batches; and after every doubt of all places, in an I{announcement} that it is
made to agree with. A long announcement has parts, so that no batch takes Redis as long as it may be silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import attrs
from msgspec import Struct, msgpack
from twisted.internet.defer import Deferred

from . import IAdmission, Quota, Rate, Ticket, printable
from .order import ARRIVALS, MICROSECONDS, TURN, Order

#: Operations in one batch. One takes Redis up to some 40 us, and nobody else is served meanwhile: when hundreds of
#: requests come to all of 50 processes at once, the last of their batches waits for 0.2 s.
LONGEST_BATCH = 100

#: Announced tickets in one batch. All processes announce at once when Redis was started again; but for each part it
#: looks through all that it has of the process.
LONGEST_PART = 200

#: Above every serial, and exact in a double.
LAST_SERIAL = 2**53

#: What the script is told of a counter that has no rate.
_NO_RATE = (0, 0, 0)


@attrs.define(eq=False)
class Place:
    """
    The place of one ticket of this process.

    @ivar arrived: seconds, on the gate's clock.
    @ivar told: fires at the admission; None afterwards.
    @ivar order: its rank in the queue, once it has one; 0 before.
    @ivar priority: the ticket's own; or what it competes with, if that was found to be over a rate.
    @ivar worker: the worker that it has a place at, once it is admitted; "" if it needs none.
    @ivar follows: the place that this one comes instead of, until it is known that it does.
    @ivar followed: the place that comes instead of this one, so.
    @ivar returned: its ticket was admitted before, and waits again.
    @ivar sure: it waits again even if a worker has begun with it.
    """

    serial: int
    ticket: Ticket
    arrived: float
    told: Deferred[IAdmission] | None
    order: int = 0
    priority: int = attrs.field(default=attrs.Factory(lambda place: place.ticket.priority, takes_self=True))
    worker: str = ""
    follows: Place | None = None
    followed: Place | None = None
    returned: bool = False
    sure: bool = False

    @property
    def admitted(self) -> bool:
        """Whether it holds slots."""
        return self.told is None

    @property
    def needs(self) -> list[str | int]:
        """What it needs, as the script reads it."""
        needs: list[str | int] = [round(self.ticket.reclaim_delay * 1000), self.ticket.fair or ""]
        needs.append(word_of(self.ticket.queue) if self.ticket.queue is not None else "")
        for counter in sorted(self.ticket.counters, key=lambda counter: counter.key):
            most = -1 if counter.max_waiting is None else counter.max_waiting
            needs += (counter.key, counter.max_concurrent, counter.weight, most)
            needs += _words_of(counter.rate) if counter.rate else _NO_RATE
            needs.append(int(counter.shown))
        return needs

    @property
    def wire(self) -> list[Any]:
        """It in an announcement."""
        state, order = int(self.admitted), self.order
        if self.followed is not None:
            state, order = 2, self.followed.serial
        elif self.follows is not None:
            state = 3
        return [self.serial, state, order, self.priority, self.worker, *self.needs]

    def quotas(self, left: Mapping[str, Quota]) -> dict[str, Quota]:
        """Of what is left of all counters, what its admission tells."""
        counters = self.ticket.counters
        return {
            counter.key: left[counter.key] for counter in counters if counter.shown and counter.key in left
        }


def _part(place: Place, new: Place) -> None:
    """Neither comes instead of the other any more."""
    place.followed = new.follows = None


def word_of(queue: str) -> str:
    """A queue's name as the script reads it."""
    return printable(queue.encode())


def _words_of(rate: Rate) -> tuple[int, int, int]:
    """A rate, as the script reads it."""
    over = {"wait": 0, "reject": -1, "demote": rate.demote_to}[rate.over]
    return rate.interval, rate.burst, over


@attrs.frozen
class Reply:
    """
    What Redis says to a batch; C{gate.lua} tells what each number means.

    @ivar now: Redis's time (ms).
    @ivar grace: ms.
    @ivar wake: us.
    """

    now: int
    epoch: str
    count: int
    admitted: list[int]
    full: list[int]
    queued: list[int]
    held: int
    waiting: int
    released: int
    owners: int
    grace: int
    overshoot: int
    wake: int
    rejected: list[int]
    demoted: list[int]
    quotas: list[Any]
    answers: list[Any]
    workers: list[Any]


class Message(Struct, frozen=True, array_like=True):
    """
    What is published to an owner.

    @ivar admitted: serials that another owner's batch has admitted.
    @ivar quotas: what is left of their counters.
    @ivar wake: us after which this owner is to send a batch; 0 for nothing.
    @ivar workers: serial, worker, and so on: where they have places.
    @raise DecodeError: somebody else has published it.
    """

    admitted: list[int]
    quotas: list[Any]
    wake: int
    workers: list[Any] = []

    @classmethod
    def read(cls, payload: bytes) -> Message:
        return msgpack.decode(payload, type=cls)

    @property
    def is_echo(self) -> bool:
        """Whether it is what this owner has asked for, to see that messages arrive."""
        return not self.admitted and not self.wake


def quotas_in(words: list[Any]) -> dict[str, Quota]:
    """What is left of counters, as the script says it."""
    quotas = zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)
    return {
        key: Quota(slots, None if tickets < 0 else tickets, full_in / MICROSECONDS)
        for key, slots, tickets, full_in in quotas
    }


class Places:
    """
    The places of one owner.

    @param owner: its name in Redis.
    @param settings: what every batch says: lease and grace (ms), max_waiting, aging (us).
    @param order: learns the ranks that Redis gives.
    @ivar held: how many of the places hold slots.
    @ivar owners: how many owners there were at the last reply.
    @ivar longest_batch: operations in one batch, at most.
    @ivar longest_part: announced tickets in one batch, at most.
    """

    def __init__(self, owner: str, settings: tuple[int, int, int, int], order: Order) -> None:
        self.held = 0
        self.owners = 0
        self.longest_batch = LONGEST_BATCH
        self.longest_part = LONGEST_PART
        self._owner = owner
        self._settings = settings
        self._aging = settings[3]
        self._order = order
        self._places: dict[int, Place] = {}
        self._serial = 0
        self._sequence = 0
        self._known: tuple[str, int, int] = ("", 0, 0)
        self._outbox: list[list[Any]] = []
        #: What of the places has been announced, by serial; None if all has been.
        self._announced_to: int | None = 0
        self._registered = False
        #: What was released in the batch under way, and what since then; None from an outage to the next reply.
        self._freeing: list[Ticket] = []
        self._freed: list[Ticket] | None = []

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        """All places, in the order of their arrival. The table may change meanwhile."""
        return iter(list(self._places.values()))

    def get(self, serial: int) -> Place | None:
        """The place with a serial."""
        return self._places.get(serial)

    # Changes ---------------------------------------------------------------------------------------------------

    def add(self, ticket: Ticket, arrived: float, told: Deferred[IAdmission]) -> Place:
        """A ticket arrives."""
        self._serial += 1
        place = Place(self._serial, ticket, arrived, told)
        self._places[place.serial] = place
        if self._announced_to is None:
            self._outbox.append(["acquire", place.serial, ticket.priority, *place.needs])
        return place

    def admit(self, place: Place) -> Deferred[IAdmission]:
        """A place that waits is given its slots; what is to be told so."""
        assert place.told is not None
        told, place.told = place.told, None
        self.held += 1
        return told

    def follow(
        self, place: Place, arrived: float, told: Deferred[IAdmission], *, sure: bool = False
    ) -> Place:
        """
        An admitted ticket is to wait again, as a new one, once Redis has been asked.

        @param sure: even if a worker has begun with it.
        """
        self._serial += 1
        new = Place(self._serial, place.ticket, arrived, told, place.order, place.priority, follows=place)
        new.returned, new.sure = True, sure
        place.followed = new
        self._places[new.serial] = new
        return new

    def moved(self, new: Place) -> None:
        """A ticket waits again, or more: so Redis has nothing any more of the one that it comes instead of."""
        if new.follows is not None:
            self._places.pop(new.follows.serial)
            self.held -= 1
            _part(new.follows, new)

    def stays(self, new: Place) -> None:
        """An admitted ticket is not to wait again: the one that was to come instead of it is not known in Redis."""
        assert new.follows is not None
        _part(new.follows, new)
        del self._places[new.serial]

    def assigned(self, workers: list[Any]) -> None:
        """Where those that are admitted have their places: serial, worker, and so on."""
        for serial, worker in zip(workers[::2], workers[1::2], strict=True):
            if serial in self._places:
                self._places[serial].worker = worker

    def remove(self, serial: int, *, known: bool = True) -> Place | None:
        """
        A ticket is given up, admitted or not; and the one that it was to come instead of.

        @param known: whether Redis may know it.
        """
        place = self._places.pop(serial, None)
        if place is None:
            return None
        if place.follows is not None:
            place.follows.followed = None
            self.remove(place.follows.serial)
        if place.admitted:
            self.held -= 1
            if self._freed is not None:
                self._freed.append(place.ticket)
        if known and (self._announced_to is None or serial <= self._announced_to):
            self._outbox.append(["release", serial])
        return place

    def entitled(self) -> dict[str, int]:
        """
        The slots of each counter that nobody else can have, now that Redis is gone: those that are held, and those that
        it has not confirmed to be free.
        """
        freed, self._freed, self._freeing = [*self._freeing, *(self._freed or ())], None, []
        slots: dict[str, int] = {}
        for ticket in (*(place.ticket for place in self if place.admitted), *freed):
            for counter in ticket.counters:
                slots[counter.key] = slots.get(counter.key, 0) + counter.weight
        return slots

    # Batches ---------------------------------------------------------------------------------------------------

    @property
    def announcing(self) -> bool:
        """Whether Redis is yet to hear of some places."""
        return self._announced_to is not None

    @property
    def has_news(self) -> bool:
        """Whether there is something to send."""
        return self.announcing or bool(self._outbox)

    @property
    def freed(self) -> int:
        """How many tickets have given up slots since the last batch."""
        return len(self._freed or ())

    def announce(self) -> None:
        """Tell Redis all, from the beginning."""
        self._announced_to = 0
        self._registered = False
        # All of it is in the announcement; and a ticket that left before it was sent must not come after it.
        self._outbox = []

    def batch(self, *more: list[Any], ask: Callable[[int], list[list[Any]]] | None = None) -> bytes:
        """
        The next batch.

        @param more: operations after those that there are.
        @param ask: tells more of these, of a number at most; called once all has been announced.
        """
        announced = self._next_part() if self.announcing else False
        operations, self._outbox = self._outbox[: self.longest_batch], self._outbox[self.longest_batch :]
        if self._freed is not None:
            self._freeing, self._freed = self._freed, []
        if ask is not None and not self.announcing:
            operations += ask(max(1, self.longest_batch - len(operations)))
        return self._encode(announced, [*operations, *more])

    def last_word(self) -> bytes:
        """The batch after which Redis knows nothing of this owner."""
        # It announces what there is: so it is done even if Redis is in doubt about this owner.
        return self._encode([True, True, 0, LAST_SERIAL, *self._wire(self)], [["quit"]])

    def _encode(self, announced: object, operations: list[list[Any]]) -> bytes:
        self._sequence += 1
        known = [*self._known, self.owners]
        return msgpack.encode([self._owner, self._sequence, *self._settings, known, announced, operations])

    def _next_part(self) -> list[Any]:
        """The next part of the announcement: if there are several, first of all what holds slots."""
        first, self._registered = not self._registered, True
        assert self._announced_to is not None
        start = self._announced_to
        if first and len(self._places) > self.longest_part and self.held:
            return [True, False, 0, 0, *self._wire(place for place in self if place.admitted)]
        rest = list(islice((place for place in self if place.serial > start), self.longest_part + 1))
        final = len(rest) <= self.longest_part
        part = rest[: self.longest_part]
        end = LAST_SERIAL if final else part[-1].serial
        self._announced_to = None if final else end
        return [first, final, start, end, *self._wire(part)]

    def _wire(self, places: Iterable[Place]) -> list[list[Any]]:
        return [place.wire for place in places]

    # Replies ---------------------------------------------------------------------------------------------------

    def read(self, message: bytes) -> Reply | None:
        """
        Take over what a reply says of the order of those that wait.

        @return: the reply; None if Redis did nothing, for it does not know this owner.
        """
        status, *rest = msgpack.decode(message)
        if status != "ok":
            return None
        self._freeing = []
        self._freed = self._freed or []
        reply = Reply(*rest)
        self._known = (reply.epoch, reply.count, self._sequence)
        # In grace not all have come back.
        self.owners = max(self.owners, reply.owners) if reply.grace else reply.owners
        self.assigned(reply.workers)
        for serial, priority in zip(reply.demoted[::2], reply.demoted[1::2], strict=True):
            if serial in self._places:
                self._places[serial].priority = priority
        for serial, order in zip(reply.queued[::2], reply.queued[1::2], strict=True):
            place = self._places.get(serial)
            if place is not None:
                place.order = order
                if not self._aging:  # the reply that told of its priority may have been lost
                    place.priority = order // ARRIVALS
                if self._aging or place.ticket.fair is None:
                    self._order.catch_up(order, place.priority)
                else:  # what is left of its arrival number
                    self._order.catch_up(order % TURN, 0)
        return reply
