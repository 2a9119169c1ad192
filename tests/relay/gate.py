"""
A gate with a crew in memory, in place of L{thrtwisted.gate.redis.RedisGate}, which cannot do without Redis.

One front and one worker of this process share it. Tickets that ask for a place at a worker get it at the one that there
is, as if its places were slots of a counter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock, deferLater

from thrtwisted.gate import AlreadyTaken, Counter, IAdmission, Ticket
from thrtwisted.gate.admission import Admission
from thrtwisted.gate.crew import Crew
from thrtwisted.gate.local import LocalGate

FRONT, WORKER = "front", "worker"
PLACES = "places-of-the-worker"


class MemoryGate(LocalGate):
    """
    The gate as the front sees it.

    @ivar seat: the gate as the worker sees it.
    @ivar at_worker: the tickets that are assigned to the worker, with whether it has taken them.
    """

    owner = FRONT
    leased = True
    answering = True

    def __init__(self, clock: Clock, **settings: Any) -> None:
        super().__init__(clock, **settings)
        self.reactor = clock
        self.queues: Sequence[str] = ()
        self.places = 0
        self.at_worker: dict[int, bool] = {}
        self.watches: list[tuple[str, Callable[[], None]]] = []
        self.dead: set[str] = set()
        self.crew: Crew = MemoryCrew(self)
        self.seat = Seat(self)

    def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
        """See L{IGate.acquire}."""
        if ticket.queue is None:
            return super().acquire(ticket)
        places = self.places if ticket.queue in self.queues else 0
        counters = (*ticket.counters, Counter(PLACES, places))
        return super().acquire(attrs.evolve(ticket, counters=counters, queue=None))

    def die(self, owner: str) -> None:
        """The lease of a process runs out."""
        self.dead.add(owner)
        for watch in [watch for watch in self.watches if watch[0] == owner]:
            self.watches.remove(watch)
            watch[1]()

    def _admission(self, serial: int, ticket: Ticket, waited: float) -> Admission:
        if not any(counter.key == PLACES for counter in ticket.counters):
            return super()._admission(serial, ticket, waited)
        self.at_worker[serial] = False
        quotas = self._lanes.quotas(ticket.counters, self._microseconds)

        def again(taken_too: bool) -> Deferred[IAdmission]:
            if self.at_worker[serial] and not taken_too:
                return fail(AlreadyTaken())
            self._release(serial)
            return LocalGate.acquire(self, ticket)

        return Admission(lambda: self._release(serial), waited, quotas, serial, WORKER, again)

    def _release(self, serial: int) -> None:
        self.at_worker.pop(serial, None)
        super()._release(serial)


class MemoryCrew(Crew):
    """See L{Crew}: it answers with the clock's next turn."""

    def __init__(self, gate: MemoryGate) -> None:
        self.gate = gate

    def _answer(self, ask: Callable[[], Any]) -> Deferred[Any]:
        return deferLater(self.gate.reactor, 0, ask)

    def serve(self, concurrency: int, queues: Sequence[str]) -> Deferred[int]:
        self.gate.places, self.gate.queues = concurrency, queues
        return self._answer(lambda: len(self.gate.at_worker))

    def take(self, front: str, serial: int) -> Deferred[bool]:
        def take() -> bool:
            if serial not in self.gate.at_worker:
                return False
            self.gate.at_worker[serial] = True
            return True

        return self._answer(take)

    def inherit(self, front: str, serials: Callable[[], Iterable[int]]) -> Deferred[bool]:
        return self._answer(lambda: front in self.gate.dead)

    def watch(self, owner: str, lost: Callable[[], None]) -> Callable[[], None]:
        watch = (owner, lost)
        self.gate.watches.append(watch)

        def end() -> None:
            if watch in self.gate.watches:
                self.gate.watches.remove(watch)

        return end

    def served(self, queues: Iterable[str]) -> Deferred[dict[str, int]]:
        wanted = list(queues)
        return self._answer(
            lambda: {queue: self.gate.places if queue in self.gate.queues else 0 for queue in wanted}
        )


class Seat:
    """The gate as the worker sees it."""

    owner = WORKER
    leased = True

    def __init__(self, gate: MemoryGate) -> None:
        self.crew = MemoryCrew(gate)
