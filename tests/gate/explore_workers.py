"""
Histories of fronts and workers: as L{tests.gate.explore}, with places at workers.

Some processes are workers, which serve queues with some places, and change that at any time. They take what is assigned
to them, and what is not any more; they finish it, whether its front is alive or not. Fronts let tickets wait again:
when their worker is lost, and when they like.

Besides what that looks at:

  1. I{Begun once.} Of a ticket that waits again only if nobody has taken it, one worker at most begins; of others, one
     more with each time that it was risked. No ticket is begun by two workers under one serial.
  2. I{Never too many.} A worker is given a ticket only if it is connected, serves the queue, and has a free place. What
     a living worker is at work on keeps its place and its slots, whether its front is dead or not.
  3. I{Never idle.} No lane is parked at a queue while a worker that is connected, and has served since, has room.
  4. I{In order.} Of those that a place could have let through, over all queues, the best was.
  5. Nobody is told of the death of a process that was heard of in its lease; and in the end no place is left.

A long one::

    python -m tests.gate.explore_workers --minutes 30
"""

from __future__ import annotations

from collections.abc import Container
from itertools import count
from typing import Any, ClassVar

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from twisted.python.failure import Failure

from tests.gate.explore import (
    HEARTBEAT,
    LEASE,
    Arrival,
    Client,
    Exploration,
    Promises,
    main,
)
from tests.gate.simulation import Connections, Owner, World
from thrtwisted.errors import GateUnavailable
from thrtwisted.gate import AlreadyTaken

QUEUES = ("x", "y")

Ticket = tuple[str, int]


@attrs.define(eq=False)
class Worker:
    """
    A process that serves queues.

    @ivar running: what it has begun, and not finished.
    @ivar asking: what it has asked to begin.
    @ivar fronts: ends of the watches of those of which anything is here; None once one was lost.
    """

    owner: Owner
    running: dict[Ticket, Client] = attrs.Factory(dict)
    asking: set[Ticket] = attrs.Factory(set)
    fronts: dict[str, Any] = attrs.Factory(dict)

    def of(self, front: str) -> list[int]:
        """The serials of what is here of a front."""
        return sorted({serial for name, serial in (*self.running, *self.asking) if name == front})


class Crews(Promises):
    """Looks at workers too."""

    workers: dict[str, Worker]

    def __init__(self, *args: Any) -> None:
        self.workers = {}
        self._served: dict[str, Connections | None] = {}
        self._lost_memory = -100.0
        super().__init__(*args)

    def is_held(self, name: str) -> bool:
        return super().is_held(name) or name in self.contents.orphans()

    @property
    def disconnected(self) -> Container[str]:
        everybody = self.contents.hashes.get("workers", {})
        return [name for name in everybody if not self._is_given(name)]

    def _is_given(self, name: str) -> bool:
        if name not in self.world.connected:
            return False
        return self._served.get(name) is self.world.owners[name].wire.connections

    def is_dead(self, name: str) -> bool:
        """Whether others may take it for dead."""
        return self.world.now > self._renewed.get(name, -100.0) + LEASE - 0.002

    def check_death(self, name: str) -> None:
        """Somebody is told of a death."""
        # After a loss of memory those are dead who have not said so in the grace that they live.
        owner = self.world.owners.get(name)
        is_alive = owner is not None and not owner.gate._quit and not self.is_dead(name)
        if is_alive and self.world.now > self._lost_memory + LEASE:
            self.problems.append(f"{name} is alive")

    def memory_lost(self, renewed: dict[str, float]) -> None:
        super().memory_lost(renewed)
        self._lost_memory = self.world.now

    def executed(self, sender: str, batch: list[Any], reply: list[Any]) -> None:
        before = self.contents
        were = self.places.keys() | before.orphans().keys()
        if reply[0] == "ok" and any(operation[0] == "serve" for operation in batch[8]):
            owner = self.world.owners.get(sender)
            self._served[sender] = owner.wire.connections if owner else None
        super().executed(sender, batch, reply)
        self._check_work(sender, batch[8], were)
        announced = {f"{sender}:{ticket[0]}" for ticket in batch[7][4:]} if batch[7] else set()
        offers = self._offers(before.hashes.get("workers", {}), sender, batch[8])
        at = before.at_workers()
        for name, worker in self.contents.at_workers().items():
            if name in at or name in announced:
                continue
            taken = len(self.contents.hashes[f"at:{worker}"])
            queue = self._queue(self.places[name])
            assert worker in self.world.connected, f"{name} was given to {worker}, which is not connected"
            offered = [(places, of) for places, of in offers[worker] if queue in of]
            if (
                len(offers[worker]) > 3
            ):  # it has said several things in this batch, and each held for a moment
                offered = [(max(places for places, _ in offers[worker]), of) for _, of in offered]
            assert any(taken <= places for places, _ in offered), (name, worker, offers)
            self.met["assigned"] += 1

    def check_agreement(self) -> None:
        """Whatever is left of the dead is being worked at; and all that has a place has it at a living worker."""
        super().check_agreement()
        for name, states in self.contents.hashes.items():
            kind, _, worker = name.partition(":")
            orphans = [ticket for ticket, state in states.items() if state[:1] == "o"] if kind == "at" else []
            if worker in self.workers and worker in self.world.owners:
                running = {f"{front}:{serial}" for front, serial in self.workers[worker].running}
                assert running.issuperset(orphans), f"{orphans} have places at {worker}: {running}"

    def _offers(
        self, before: dict[str, str], sender: str, operations: list[list[Any]]
    ) -> dict[str, list[tuple[int, list[str]]]]:
        """What workers have offered in the time of a batch."""
        offers: dict[str, list[tuple[int, list[str]]]] = {}
        for known in (before, self.contents.hashes.get("workers", {})):
            for worker, words in known.items():
                concurrency, *queues = words.split()
                offers.setdefault(worker, []).append((int(concurrency), queues))
        for operation in operations:
            if operation[0] == "serve":
                offers.setdefault(sender, []).append((operation[1], operation[2:]))
        return offers

    def _check_work(self, sender: str, operations: list[list[Any]], were: set[str]) -> None:
        """What a living worker is at work on keeps its place."""
        for worker in self.workers.values():
            name = worker.owner.name
            for front, serial in worker.running:
                ticket = f"{front}:{serial}"
                if ticket not in were or self.is_held(ticket) or self.is_dead(name):
                    continue
                is_own = sender == name and any(
                    operation[0] in ("inherit", "quit") for operation in operations
                )
                gives_back = sender == front and ["quit"] not in operations
                assert gives_back or is_own, f"{ticket}, at work at {name}, was freed"

    def _queue(self, place: str) -> str:
        return next((word[1:] for word in place[1:].split(" ") if word[0] == "\4"), "")

    def _fits_workers(self, other: str, name: str) -> bool:
        queue, at = self._queue(self.places[other]), self.contents.at_workers()
        if not queue:
            return True
        for worker, words in self.contents.hashes.get("workers", {}).items():
            concurrency, *queues = words.split()
            taken = len(self.contents.hashes.get(f"at:{worker}", {})) - (at.get(name) == worker)
            if queue in queues and self._is_given(worker) and taken < int(concurrency):
                return True
        return False


class WorkersExploration(Exploration):
    """One history."""

    fixed: ClassVar[dict[str, Any]] = {"outage": "closed"}
    promises_of = Crews
    promises: Crews

    def begin_crews(self) -> None:
        if not hasattr(self, "begun"):
            self.kinds = count()
            self.begun: dict[Client, list[Ticket]] = {}
            self.risked: dict[Client, int] = {}
            #: All that was ever assigned: the worker, the ticket and the client.
            self.assigned: list[tuple[str, Ticket, Client]] = []
            self.watches: dict[tuple[str, str], Any] = {}

    @property
    def workers(self) -> list[Worker]:
        """Those that are alive."""
        assert self.world is not None
        all_workers = self.promises.workers
        for name in [name for name in all_workers if name not in self.world.owners]:
            del all_workers[name]
        return list(all_workers.values())

    @property
    def awake(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.owner.frozen]

    def front(self, number: int) -> Owner | None:
        assert self.world is not None
        fronts = [owner for name, owner in self.world.owners.items() if name not in self.promises.workers]
        return fronts[number % len(fronts)] if fronts else None

    def queue_of(self, arrival: Arrival) -> str | None:
        return {"c": None, "a": "x", "ab": "x"}.get(arrival.needs, "y")

    def start_owner(self, ahead: float, rate: float, pause: float, fails_first: bool) -> None:
        self.begin_crews()
        super().start_owner(ahead, rate, pause, fails_first)
        assert self.world is not None
        owner = list(self.world.owners.values())[-1]
        if len(self.world.owners) > 1 and (not self.workers or next(self.kinds) % 2):
            worker = self.promises.workers[owner.name] = Worker(owner)
            self.serve_now(worker, 2, QUEUES)

    # Fronts ---------------------------------------------------------------------------------------------------------

    def let_wait(self, client: Client, acquire: Any) -> None:
        super().let_wait(client, acquire)
        assert client.waiting is not None
        client.waiting.addCallback(lambda _: self.was_assigned(client))

    def was_assigned(self, client: Client) -> None:
        """The front watches the worker of a ticket."""
        admission = client.admission
        if admission is None or admission.worker is None:
            return
        front, worker = client.owner, admission.worker
        self.assigned.append((worker, (front.name, admission.serial), client))
        if (front.name, worker) not in self.watches:
            self.watches[front.name, worker] = front.gate.crew.watch(worker, lambda: self.lost(front, worker))

    def lost(self, front: Owner, worker: str) -> None:
        """A front is told that a worker is dead."""
        del self.watches[front.name, worker]
        self.promises.check_death(worker)
        self.promises.met["worker lost"] += 1
        for client in self.in_state("admitted"):
            if client.owner is front and client.admission and client.admission.worker == worker:
                self.wait_again(client, False, give_up=True)

    def wait_again(self, client: Client, taken_too: bool, *, give_up: bool = False) -> None:
        old, name = client.admission, client.name
        assert old is not None
        self.promises.forget(client)
        if taken_too:
            self.risked[client] = self.risked.get(client, 0) + 1

        def acquire(_: Any) -> Any:
            return old.again(taken_too=taken_too).addErrback(stays)

        def stays(failure: Failure) -> Any:
            failure.trap(AlreadyTaken)
            client.name = name
            self.promises.met["taken already"] += 1
            if give_up or client.cancelled:  # whether it waits again may not be known; it leaves
                client.at_once = True
            return old

        self.let_wait(client, acquire)

    @precondition(lambda self: self.in_state("admitted"))
    @rule(
        data=st.data(), number=st.integers(0, 9), taken_too=st.booleans(), then=st.sampled_from([0.003, 0.0])
    )
    def again(self, data: Any, number: int, taken_too: bool, then: float) -> None:
        """A front lets a ticket wait again."""
        with self.step(data) as world:
            clients = [
                client
                for client in self.in_state("admitted")
                if client.ticket.queue and not client.owner.frozen
            ]
            if clients:
                client = clients[number % len(clients)]
                client.owner.look_at_clock()
                if client.state == "admitted":
                    self.wait_again(client, taken_too)
            world.advance(then)

    # Workers --------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.awake)
    @rule(
        data=st.data(),
        number=st.integers(0, 5),
        places=st.integers(0, 3),
        queues=st.lists(st.sampled_from(QUEUES), unique=True),
        then=st.sampled_from([0.003, 0.0]),
    )
    def serve(self, data: Any, number: int, places: int, queues: list[str], then: float) -> None:
        """A worker serves others, or drains."""
        with self.step(data) as world:
            self.serve_now(self.awake[number % len(self.awake)], places, queues)
            world.advance(then)

    def serve_now(self, worker: Worker, places: int, queues: Any) -> None:
        worker.owner.look_at_clock()
        worker.owner.gate.crew.serve(places, queues).addErrback(lambda failure: failure.trap(GateUnavailable))

    @precondition(lambda self: self.awake and self.assigned)
    @rule(
        data=st.data(),
        numbers=st.lists(st.integers(0, 9), min_size=1, max_size=4),
        then=st.sampled_from([0.003, 0.003, 0.0]),
    )
    def take(self, data: Any, numbers: list[int], then: float) -> None:
        """Workers are about to begin what was sent to them, lately or long ago."""
        with self.step(data) as world:
            for number in numbers:
                self.take_one(*self.assigned[-1 - number % len(self.assigned)])
            world.advance(then)

    @precondition(lambda self: self.awake and self.in_state("admitted"))
    @rule(data=st.data(), spared=st.integers(0, 2), then=st.sampled_from([0.003, 0.003, 0.0]))
    def take_all(self, data: Any, spared: int, then: float) -> None:
        """Workers are about to begin what they have been given, but for some."""
        with self.step(data) as world:
            serials = {
                (client.owner.name, client.name.rpartition(":")[2]) for client in self.in_state("admitted")
            }
            for name, ticket, client in self.assigned[-20:][spared:]:
                if (ticket[0], str(ticket[1])) in serials:
                    self.take_one(name, ticket, client)
            world.advance(then)

    def take_one(self, name: str, ticket: Ticket, client: Client) -> None:
        worker = next((worker for worker in self.awake if worker.owner.name == name), None)
        front, serial = ticket
        if (
            worker is None
            or ticket in worker.asking
            or ticket in self.begun.get(client, ())
            or (front in worker.fronts and worker.fronts[front] is None)
        ):
            return
        worker.owner.look_at_clock()
        worker.asking.add(ticket)
        self.watch_front(worker, front)

        def told(taken: bool) -> None:
            worker.asking.discard(ticket)
            if taken and worker.owner.gate.leased and worker.fronts.get(front) is not None:
                self.promises.met["taken"] += 1
                begun = self.begun.setdefault(client, [])
                begun.append(ticket)
                worker.running[ticket] = client
                if len(begun) > 1 + self.risked.get(client, 0):
                    self.promises.problems.append(f"{begun} of one client were begun")
            self.let_go(worker, front)

        worker.owner.gate.crew.take(front, serial).addCallbacks(
            told, lambda failure: failure.trap(GateUnavailable)
        )

    def watch_front(self, worker: Worker, front: str) -> None:
        if front not in worker.fronts:
            worker.fronts[front] = worker.owner.gate.crew.watch(front, lambda: self.front_lost(worker, front))

    def front_lost(self, worker: Worker, front: str) -> None:
        """A worker is told that a front is dead, or was."""
        asked = worker.owner.gate.crew.inherit(front, lambda: worker.of(front))

        def told(gone: bool) -> None:
            end = worker.fronts.pop(front, None)
            if end is not None:
                end()
            if gone:
                self.promises.check_death(front)
                self.promises.met["front lost"] += 1
                worker.fronts[front] = None
            else:
                self.watch_front(worker, front)
            self.let_go(worker, front)

        asked.addCallbacks(told, lambda failure: failure.trap(GateUnavailable))

    def let_go(self, worker: Worker, front: str) -> None:
        """Watch a front no longer of which nothing is here."""
        if front in worker.fronts and not worker.of(front):
            end = worker.fronts.pop(front)
            if end is not None:
                end()

    @precondition(lambda self: any(worker.running for worker in self.awake))
    @rule(data=st.data(), number=st.integers(0, 9), then=st.sampled_from([0.003, 0.0]))
    def finish(self, data: Any, number: int, then: float) -> None:
        """A worker has finished something."""
        with self.step(data) as world:
            work = [(worker, ticket) for worker in self.awake for ticket in worker.running]
            self.finish_one(*work[number % len(work)])
            world.advance(then)

    def finish_one(self, worker: Worker, ticket: Ticket) -> None:
        worker.owner.look_at_clock()
        client = worker.running.pop(ticket, None)
        if client is None:
            return
        front, serial = ticket
        if worker.fronts.get(front) is None:
            self.front_lost(worker, front)
        elif client.owner.alive and not client.owner.frozen and client.state == "admitted":
            client.owner.look_at_clock()
            if client.state == "admitted" and client.admission and client.admission.serial == serial:
                self.promises.release(client)
        self.let_go(worker, front)

    def stop_owner(self, owner: Owner) -> None:
        super().stop_owner(owner)
        for client in [client for client in self.clients if client.owner is owner]:
            if client.state == "admitted":  # it was not to wait again, as it turned out meanwhile
                client.state = "over"
            self.promises.forget(client)
        self.promises.workers.pop(owner.name, None)

    def drain(self, world: World) -> None:
        if not self.workers:
            self.start_worker()
        for worker in self.workers:
            self.serve_now(worker, 3, QUEUES)
        world.advance(0.05)
        # Some go on at all times, so that no worker has a moment without anything of a front.
        for _ in range(3):
            world.advance(HEARTBEAT)
        for worker in self.workers:
            for ticket in list(worker.running):
                self.finish_one(worker, ticket)
        world.advance(2 * HEARTBEAT)
        super().drain(world)
        world.advance(2 * HEARTBEAT)

    def start_worker(self) -> None:
        assert self.world is not None
        Exploration.start_owner(self, 0.0, 1.0, 0.05, True)
        owner = list(self.world.owners.values())[-1]
        self.promises.workers[owner.name] = Worker(owner)
        self.world.advance(0.1)


if __name__ == "__main__":
    main(WorkersExploration)
