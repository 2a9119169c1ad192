"""
Places at workers, against brute force: after every change look at all waiters in order, and admit whoever has room and
a worker.

Fronts acquire, release, let tickets wait again, die and come back; workers come with more places or fewer, for these
queues or those, take what they have, lose their connection, die, and give back what dead fronts have left to them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from tests import valkey
from tests.gate.model import ScriptOwner, acquire_operation, needs
from tests.gate.test_invariants import Contents
from tests.machines import run_state_machine_as_test
from thrtwisted.gate import Counter

FRONTS, WORKERS = 2, 3
QUEUES = ("", "a", "b")
LIMITS = (Counter("one", 1), Counter("two", 2))

fronts = st.integers(0, FRONTS - 1)
workers = st.integers(0, WORKERS - 1)

Id = tuple[str, int]


@attrs.define(eq=False)
class Held:
    """
    A ticket that was admitted.

    @ivar state: as in Redis; None if it has no place at a worker.
    """

    counters: list[Counter]
    order: int
    queue: str
    worker: str = ""
    state: str | None = None


@attrs.define(eq=False)
class Waiter:
    order: int
    counters: list[Counter]
    queue: str


@attrs.define
class Worker:
    concurrency: int
    queues: list[str]


class Crowd:
    """The model."""

    def __init__(self) -> None:
        self.arrivals = 0
        self.waiting: dict[Id, Waiter] = {}
        self.held: dict[Id, Held] = {}
        self.orphans: dict[Id, Held] = {}
        self.workers: dict[str, Worker] = {}
        self.disconnected: set[str] = set()

    def used(self, key: str) -> int:
        all_held = [*self.held.values(), *self.orphans.values()]
        return sum(counter.key == key for held in all_held for counter in held.counters)

    def taken(self, worker: str) -> int:
        return sum(held.worker == worker for held in [*self.held.values(), *self.orphans.values()])

    def best(self, queue: str) -> str | None:
        loads = [
            (self.taken(name) / worker.concurrency, name)
            for name, worker in self.workers.items()
            if queue in worker.queues
            and name not in self.disconnected
            and self.taken(name) < worker.concurrency
        ]
        return min(loads)[1] if loads else None

    def settle(self) -> list[Id]:
        """Admit whoever fits, best first, until nobody more does."""
        admitted = []
        while True:
            for ticket, waiter in sorted(self.waiting.items(), key=lambda item: item[1].order):
                worker = self.best(waiter.queue) if waiter.queue else ""
                full = any(self.used(counter.key) >= counter.max_concurrent for counter in waiter.counters)
                if worker is not None and not full:
                    self.admit(ticket, waiter, worker)
                    admitted.append(ticket)
                    break
            else:
                return admitted

    def admit(self, ticket: Id, waiter: Waiter, worker: str) -> None:
        del self.waiting[ticket]
        state = "" if waiter.queue else None
        self.held[ticket] = Held(waiter.counters, waiter.order, waiter.queue, worker, state)

    def bury(self, name: str) -> None:
        """Workers first, then fronts; nobody is settled in between."""
        self.workers.pop(name, None)
        for ticket in [ticket for ticket in self.waiting if ticket[0] == name]:
            del self.waiting[ticket]
        for ticket, held in list(self.held.items()):
            if ticket[0] == name:
                del self.held[ticket]
                if held.state == "t" and held.worker in self.workers:
                    self.orphans[ticket] = held
        for ticket, held in list(self.orphans.items()):
            if held.worker == name:
                del self.orphans[ticket]


class WorkersMachine(RuleBasedStateMachine):
    """One history."""

    client: ClassVar[Any] = None

    @initialize()
    def start(self) -> None:
        namespace = valkey.namespace()
        self.fronts = [ScriptOwner(self.client, namespace, f"front{n}") for n in range(FRONTS)]
        self.crew = [ScriptOwner(self.client, namespace, f"worker{n}") for n in range(WORKERS)]
        self.key = self.fronts[0].key
        self.model = Crowd()
        self.serial = 0
        self.over = False
        for owner in (*self.fronts, *self.crew):
            owner.batch(announced=[])

    def do(self, owner: ScriptOwner, *operations: list[Any], announced: list[Any] | None = None) -> Any:
        """Send a batch; who is admitted is who the model admits, wherever it is told."""
        reply = owner.batch(*operations, announced=announced)
        told = {(owner.name, serial) for serial in reply.admitted}
        places = dict(zip(reply.workers[::2], reply.workers[1::2], strict=True))
        where = {(owner.name, serial): worker for serial, worker in places.items()}
        for front in self.fronts:
            front.workers = []
            told |= {(front.name, serial) for serial in front.published()}
            assigned = dict(zip(front.workers[::2], front.workers[1::2], strict=True))
            where |= {(front.name, serial): worker for serial, worker in assigned.items()}
        expected = set(self.model.settle())
        assert told == expected, (told, expected)
        assert where == {t: self.model.held[t].worker for t in expected if self.model.held[t].queue}
        return reply

    @rule(
        front=fronts,
        counters=st.lists(st.sampled_from(LIMITS), unique=True),
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from([1, 50, 50, 99]),
    )
    def acquire(self, front: int, counters: list[Counter], queue: str, priority: int) -> None:
        if not counters and not queue:
            return
        self.serial += 1
        owner = self.fronts[front]
        ticket = (owner.name, self.serial)
        # Where nobody is overtaken by who is admitted at once, the number does not matter.
        self.model.arrivals += 1
        order = priority * 2**45 + self.model.arrivals
        self.model.waiting[ticket] = Waiter(order, counters, queue)
        reply = self.do(owner, acquire_operation(self.serial, counters, priority, queue=queue))
        orders = dict(zip(reply.queued[::2], reply.queued[1::2], strict=True))
        assert (self.serial in orders) == (ticket in self.model.waiting or bool(queue))
        if ticket in self.model.held and not queue:
            self.model.arrivals -= 1  # it had no number
        else:
            assert orders[self.serial] == order

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        tickets = sorted([*self.model.held, *self.model.waiting])
        if tickets:
            name, serial = ticket = data.draw(st.sampled_from(tickets))
            self.model.held.pop(ticket, None)
            self.model.waiting.pop(ticket, None)
            self.do(self.owner(name), *[["release", serial]] * data.draw(st.integers(1, 2)))

    @rule(data=st.data(), taken_too=st.booleans(), repeated=st.booleans())
    def again(self, data: st.DataObject, taken_too: bool, repeated: bool) -> None:
        tickets = sorted(ticket for ticket, held in self.model.held.items() if held.state is not None)
        if not tickets:
            return
        name, serial = ticket = data.draw(st.sampled_from(tickets))
        held, owner = self.model.held[ticket], self.owner(name)
        self.serial += 1
        new, priority = self.serial, held.order // 2**45
        words = needs(held.counters, queue=held.queue)
        done = taken_too or held.state == ""
        if done:
            del self.model.held[ticket]
            self.model.waiting[name, new] = Waiter(held.order, held.counters, held.queue)
        operation = ["again", serial, new, int(taken_too), held.order, priority, *words]
        assert self.do(owner, operation).answers == [int(done)]
        if repeated:  # its reply was lost
            reply = owner.batch(operation)
            assert reply.answers == [int(done)]
            assert (new in reply.admitted) == ((name, new) in self.model.held)
            assert (new in reply.queued[::2]) == ((name, new) in self.model.waiting)

    @rule(
        worker=workers,
        concurrency=st.integers(0, 3),
        queues=st.lists(st.sampled_from(QUEUES[1:]), unique=True),
    )
    def serve(self, worker: int, concurrency: int, queues: list[str]) -> None:
        owner = self.crew[worker]
        self.model.workers[owner.name] = Worker(concurrency, queues)
        before = {ticket[0] for ticket, held in self.model.orphans.items() if held.worker == owner.name}
        [[count, *fronts]] = self.do(owner, ["serve", concurrency, *queues]).answers
        assert (count, set(fronts)) == (self.model.taken(owner.name), before)

    @rule(data=st.data(), worker=workers)
    def take(self, data: st.DataObject, worker: int) -> None:
        tickets = sorted(
            ticket for ticket, held in self.model.held.items() if held.worker == self.crew[worker].name
        )
        everything = [*tickets, *tickets, *sorted(self.model.held), *sorted(self.model.orphans)]
        if everything:
            ticket = data.draw(st.sampled_from(everything))
            reply = self.do(self.crew[worker], ["take", *ticket])
            assert reply.answers == [int(ticket in tickets)]
            if ticket in tickets:
                self.model.held[ticket].state = "t"

    @rule(data=st.data(), worker=workers, front=fronts)
    def inherit(self, data: st.DataObject, worker: int, front: int) -> None:
        name = self.fronts[front].name
        mine = [
            ticket
            for ticket, held in self.model.orphans.items()
            if held.worker == self.crew[worker].name and ticket[0] == name
        ]
        kept = data.draw(st.sets(st.sampled_from(sorted(mine)))) if mine else set()
        for ticket in set(mine) - kept:
            del self.model.orphans[ticket]
        self.do(self.crew[worker], ["inherit", name, *sorted(serial for _, serial in kept)])

    @rule(dead=st.sets(st.integers(0, FRONTS + WORKERS - 1), min_size=1, max_size=2), back=st.booleans())
    def die(self, dead: set[int], back: bool) -> None:
        """Leases run out, and another's batch finds it; they come back, fronts with nothing or with all they had."""
        everybody = [*self.fronts, *self.crew]
        owners = [everybody[n] for n in sorted(dead)]
        finder = next(owner for owner in everybody if owner not in owners)
        self.client.zadd(f"{self.key}:owners", {owner.name: 1 for owner in owners})
        had = {ticket: held for ticket, held in self.model.held.items() if held.queue}
        for owner in owners:  # workers are dismissed before any front's tickets are looked at
            self.model.workers.pop(owner.name, None)
        for owner in owners:
            self.model.bury(owner.name)
        self.do(finder)
        for owner in owners:
            announced: list[Any] = []
            for ticket, held in had.items():
                # What was its own when it fell silent, and is still with the worker, goes on.
                if back and ticket[0] == owner.name and ticket in self.model.orphans:
                    self.model.held[ticket] = self.model.orphans.pop(ticket)
                    words = needs(held.counters, queue=held.queue)
                    announced.append([ticket[1], 1, 0, held.order // 2**45, held.worker, *words])
            assert self.do(owner, announced=announced).overshoot == 0

    @rule(worker=workers)
    def connection(self, worker: int) -> None:
        """A worker loses its connection, or has it again; then it says once more what it serves."""
        owner = self.crew[worker]
        channel = f"{owner.key}:owner:{owner.name}"
        if owner.name in self.model.disconnected:
            owner.channel.subscribe(channel)
            owner.channel.get_message(timeout=5)
            self.model.disconnected.remove(owner.name)
            known = self.model.workers.get(owner.name, Worker(0, []))
            self.model.workers[owner.name] = known
            self.do(owner, ["serve", known.concurrency, *known.queues])
        else:
            owner.channel.unsubscribe(channel)
            owner.channel.get_message(timeout=5)
            self.model.disconnected.add(owner.name)

    def owner(self, name: str) -> ScriptOwner:
        return next(front for front in self.fronts if front.name == name)

    @invariant()
    def true(self) -> None:
        """What is in Redis is what the model has; and a lane is parked where it is full."""
        if not hasattr(self, "model"):
            return
        model, contents = self.model, Contents(self.client, self.key)
        places = contents.places()
        assert {ticket for ticket, place in places.items() if place[0] == "-"} == {
            f"{name}:{serial}" for name, serial in model.waiting
        }
        assert {ticket for ticket, place in places.items() if place[0] == "+"} == {
            f"{name}:{serial}" for name, serial in model.held
        }
        for worker in self.crew:
            states = {
                f"{name}:{serial}": held.state
                for (name, serial), held in model.held.items()
                if held.worker == worker.name
            }
            orphans = {
                f"{name}:{serial}"
                for (name, serial), held in model.orphans.items()
                if held.worker == worker.name
            }
            at = contents.hashes.get(f"at:{worker.name}", {})
            assert {t: s for t, s in at.items() if s[:1] != "o"} == states
            assert {t for t, s in at.items() if s[:1] == "o"} == orphans
        used = contents.numbers("used")
        for counter in LIMITS:
            assert used.get(counter.key, 0) == model.used(counter.key) <= counter.max_concurrent
        for at in contents.hashes.get("lanes", {}).values():
            if at[0] == "\4":
                assert model.best(at[1:]) is None
            else:
                assert used[at] >= {counter.key: counter.max_concurrent for counter in LIMITS}[at]

    def teardown(self) -> None:
        if hasattr(self, "model"):
            for owner in (*self.fronts, *self.crew):
                owner.batch(["quit"], announced=[])
                owner.close()
            assert self.client.keys("[{]" + self.key[1:] + "*") == []


class WorkersModelTests(SynchronousTestCase):
    def test_histories(self) -> None:
        """It admits whom brute force admits, to the same workers; and nothing is left in the end."""
        with valkey.client() as client:
            machine = type("Machine", (WorkersMachine,), {"client": client})
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=60,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
