"""
Histories of several processes with one Redis, in which anything that can fail does; and what holds in all of them.

Hypothesis decides what clients do (come, leave, release), what becomes of each batch, reply and message (late, lost,
repeated, overtaken by later ones), and what becomes of processes (frozen, killed, stopped, cut off, started), of Redis
(gone, silent, restarted empty or with what it knew before, replaced by a replica that lacks the last writes, flushed)
and of limits. Each history has some kinds of faults only, so that rare ones meet.

What is looked at after every batch, every event and every step, in the terms of the promises:

  1. I{Never too many.} What an owner believes to be admitted, Redis has as admitted; and when Redis admits a ticket,
     its counters have room for it. So no limit is exceeded, but by what is I{missing} in Redis: tickets of an owner
     that was not heard of for a lease; those that Redis has forgotten, until their owners have announced them, which
     they do before anybody is admitted unless they are frozen, cut off or slow themselves (or nobody who knew of them
     has spoken yet); and those that were admitted while Redis was gone. In an outage of less than two leases, if that
     is all that fails, all processes together exceed a limit by at most as many as there are, less one. What was killed
     counts until its lease and the reclaim delay are over. In grace nobody is admitted, and nobody whose lease has run
     out ever is. What is announced and over a limit is counted.
  2. I{Never idle.} The best lane parked at a counter does not fit there, after every batch. When everything works again
     and some heartbeats have passed, Redis and the owners agree on who is admitted, who waits and in which order; so
     nobody waits who could go. Where nothing fails, who is admitted is told so at once.
  3. I{In order.} Who is admitted was the best of its lane, and of all whom the freed slot could have let through.
  4. I{Exactly one release.} A slot is freed by its ticket's owner or by the end of its lease, never by a batch that is
     older than the owner's last. When all clients have left, no counter is left; when all owners have stopped, no key
     in Redis but what is used up of rates, no timer at any gate, and no Deferred that has not fired.

A short exploration is among the tests. For a long one::

    python -m tests.gate.explore --minutes 30

It goes in rounds. The seed of a round, which is printed, chooses the faults that its histories may have and what
Hypothesis decides in them; C{--seed} begins with it again. What is found is printed as a program of steps, as short as
Hypothesis can make it, with all batches, their replies and what became of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter as TallyOf
from collections.abc import Callable, Container, Generator, Iterable, Sequence
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any, ClassVar

import attrs
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tests import valkey
from tests.gate.simulation import (
    BATCH_FATES,
    LATENCY,
    MESSAGE_FATES,
    PROMPT,
    Owner,
    Server,
    World,
    all_is_prompt,
)
from tests.gate.test_invariants import Contents, limits, needed
from tests.machines import run_state_machine_as_test
from thrtwisted.errors import GateUnavailable, QueueFull, QueueTimeout
from thrtwisted.gate import Counter, IAdmission, Rate, Ticket

LEASE = 5.0
TIMEOUT = 0.25
HEARTBEAT = LEASE / 4
RECLAIM = 2.0

#: Fifty a second: so that some have to wait, and nobody for long.
RATE = Rate(20_000, 2)

#: Kinds of faults.
FAULTS = (
    tuple(f"batch: {fate}" for fate in BATCH_FATES),
    tuple(f"message: {fate}" for fate in MESSAGE_FATES),
    ("owner: frozen", "owner: killed", "owner: stopped"),
    ("owner: cut off", "owner: connections cut", "Redis: gone", "Redis: silent", "Redis: restarted"),
    (
        "Redis: flushed",
        "Redis: failed over",
        "Redis: scripts flushed",
        "Redis: gone",
        "Redis: restarted empty",
        "Redis: restarted with older data",
    ),
)
#: With these alone the processes together exceed a limit in an outage by as many as there are, less one.
OUTAGES = frozenset({"Redis: gone", "Redis: restarted", "Redis: silent", "owner: connections cut"})


#: What histories may have besides.
OPTIONS = ("weights", "reclaim", "timeouts", "bounds", "limits", "drift", "rates", "turns")


@attrs.frozen
class Arrival:
    """Some clients that come to one owner with the same wish; the options of a history say what of it counts."""

    number: int
    many: int
    needs: str
    weight: int
    priority: int
    timeout: float | None
    at_once: bool


arrivals = st.builds(
    Arrival,
    number=st.integers(0, 3),
    many=st.sampled_from([1, 1, 2, 4]),
    needs=st.sampled_from(["a", "b", "ab", "a", "bc", "abc", "c"]),
    weight=st.sampled_from([1, 1, 2, 4]),
    priority=st.sampled_from([50, 50, 1, 99]),
    timeout=st.sampled_from([None, None, 0.4, 4.0]),
    at_once=st.sampled_from([False, False, False, False, True]),
)

#: Seconds that pass after a step: enough for a call and its answer, or nothing, or some of them.
moments = st.sampled_from([0.003, 0.0, 0.005, 0.05])


#: Seconds that something is late by: a little, just below and above the timeout, past a heartbeat, past a lease.
LONGEST_DELAY = 6.0
delays = st.sampled_from([0.02, 0.2, 0.3, 0.7, 1.3, 2.6, LONGEST_DELAY])


@attrs.define(eq=False)
class Client:
    """
    A ticket, and what has become of it.

    @ivar name: owner and serial, as in Redis; empty if the gate never took it on.
    @ivar at_once: whether it releases the moment it is admitted.
    @ivar alone: whether it was admitted while Redis was gone.
    @ivar state: "waiting", "admitted" or "over".
    """

    owner: Owner
    ticket: Ticket
    at_once: bool
    name: str = ""
    waiting: Deferred[IAdmission] | None = None
    admission: IAdmission | None = None
    alone: bool = False
    cancelled: bool = False
    state: str = "waiting"


@attrs.frozen
class Missing:
    """Why an owner believes what Redis does not know, and since when."""

    why: str
    since: float


class Promises:
    """
    Looks at everything.

    @param outage: the policy of all owners.
    @param exact: whether the bound for outages holds.
    @ivar believed: who is admitted, as the living owners believe.
    @ivar ghosts: who was, when its owner was killed.
    @ivar missing: who of C{believed} is not admitted in Redis.
    @ivar problems: what broke a promise.
    """

    def __init__(self, world: World, outage: str, bounded: bool, exact: bool) -> None:
        self.world = world
        self.outage = outage
        self.bounded = bounded
        self.exact = exact
        self.believed: dict[str, Client] = {}
        self.ghosts: dict[str, Client] = {}
        self.missing: dict[str, Missing] = {}
        self.problems: list[str] = []
        self.met: TallyOf[str] = TallyOf()
        self._fresh: list[Client] = []
        self._forgotten: set[str] = set()
        self._renewed: dict[str, float] = {}
        self._all_knew = True
        self._somebody_knew = True
        self._outage_since: float | None = None
        self._in_outage: set[str] = set()
        self.look()
        world.executed = self.executed
        world.stepped = self.stepped

    def look(self) -> None:
        self.contents = Contents(self.world.server._client, self.world.server.prefix)
        self.places = self.contents.places()

    @property
    def disconnected(self) -> Container[str]:
        """Workers that are given nothing, though they have room."""
        return ()

    def is_held(self, name: str) -> bool:
        return self.places.get(name, "-")[0] == "+"

    # Clients --------------------------------------------------------------------------------------------------------

    def admitted(self, client: Client, admission: IAdmission) -> None:
        client.state, client.admission = "admitted", admission
        client.alone = client.owner.gate._outages.deciding
        if client.at_once:
            self.release(client)
        else:
            self._fresh.append(client)

    def release(self, client: Client) -> None:
        assert client.admission is not None
        client.state = "over"
        self.forget(client)
        client.admission.release()

    def forget(self, client: Client) -> None:
        self.believed.pop(client.name, None)
        self.missing.pop(client.name, None)

    def failed(self, client: Client, failure: Failure) -> None:
        client.state = "over"
        gate, ticket = client.owner.gate, client.ticket
        if not (
            (failure.check(CancelledError) and client.cancelled)
            or (failure.check(QueueTimeout) and ticket.timeout is not None)
            or (failure.check(QueueFull) and self.bounded)
            or (failure.check(GateUnavailable) and (gate._stopping or self.outage == "closed"))
        ):
            self.problems.append(f"{client.name} failed: {failure.value!r}")

    # Events ---------------------------------------------------------------------------------------------------------

    def stepped(self) -> None:
        """After each event."""
        fresh, self._fresh = self._fresh, []
        for client in fresh:
            if client.state != "admitted":
                continue
            self.believed[client.name] = client
            if not self.is_held(client.name):
                self.met["told of what is not held"] += 1
                if client.name in self._forgotten:
                    self.missing[client.name] = Missing("forgotten", self.world.now)
                elif client.alone:
                    self.missing[client.name] = Missing("admitted in an outage", self.world.now)
                else:
                    self.problems.append(f"{client.name} believes to be admitted, and is not")
            if self.exact:
                self._check_sum(client)
        assert not self.problems, self.problems

    def _check_sum(self, client: Client) -> None:
        """An outage costs as many as there are processes, less one; without one, there are none too many."""
        since = self._outage_since
        for counter in client.ticket.counters:
            total = sum(counter.key in needed_by(other) for other in self.believed.values())
            more = 0 if since is None else max(0, len(self._in_outage) - 1)
            if since is None or self.world.now < since + 2 * LEASE:
                assert total <= counter.max_concurrent + more, (counter, total, more)

    def outage_began(self) -> None:
        if self._outage_since is None:
            self._outage_since = self.world.now
        self._in_outage |= self.world.owners.keys()

    def outage_ended(self) -> None:
        for name, missing in self.missing.items():
            self.missing[name] = attrs.evolve(missing, since=self.world.now)

    def started(self, owner: Owner) -> None:
        if self._outage_since is not None:
            self._in_outage.add(owner.name)

    def all_is_well(self) -> None:
        self._outage_since = None
        self._in_outage = set()

    def killed(self, owner: Owner) -> None:
        for name, client in list(self.believed.items()):
            if client.owner is owner:
                if name not in self.missing:
                    self.ghosts[name] = client
                    self.met["admitted when its owner was killed"] += 1
                self.forget(client)

    def memory_lost(self, renewed: dict[str, float]) -> None:
        """Redis knows less than it did; and when it has last heard of the owners."""
        before = self.places
        registered = len(self.contents.sets.get("owners", {}))
        heard = [owner.gate._places.owners for owner in self.world.owners.values()]
        self._all_knew = all(number >= registered for number in heard if number)
        self.look()
        self._renewed = dict(renewed)
        self._somebody_knew = False
        self._forgotten |= {name for name in before if before[name][0] == "+" and not self.is_held(name)}
        self.ghosts = {name: client for name, client in self.ghosts.items() if self.is_held(name)}
        for name in self.believed:
            if not self.is_held(name) and name not in self.missing:
                self.missing[name] = Missing("forgotten", self.world.now)
                self.met["forgotten"] += 1

    @property
    def renewed(self) -> dict[str, float]:
        return dict(self._renewed)

    # Batches --------------------------------------------------------------------------------------------------------

    def executed(self, sender: str, batch: list[Any], reply: list[Any]) -> None:
        """After each batch."""
        self.world.note(f"{sender} {batch[1]}: {batch[6:]} -> {reply}")
        before, was = self.contents, self.places
        self.look()
        self.contents.check(1000 * self.world.server.milliseconds(self.world.now), self.disconnected)
        now = self.world.now
        living = any(lease >= self._milliseconds for lease in before.sets.get("owners", {}).values())
        wiped = reply[0] == "unknown" and living and "owners" not in self.contents.sets
        assert not wiped, "the script has found a contradiction, and has begun anew"
        known, announced, operations = batch[6:9]
        if known[0]:
            self._somebody_knew = True
        if reply[0] == "ok":
            self._renewed[sender] = now
        quits = ["quit"] in operations
        announced_held = (
            {f"{sender}:{ticket[0]}" for ticket in announced[4:] if ticket[1] in (1, 2)}
            if announced
            else set()
        )
        granted = [name for name in self.places if self.is_held(name) and was.get(name, "-")[0] == "-"]
        admitted = [name for name in granted if name not in announced_held]

        for name in list(self.missing):
            if self.is_held(name):
                del self.missing[name]
        for name, client in self.believed.items():
            if self.is_held(name) or name in self.missing:
                continue
            owner = client.owner.name
            assert owner != sender, f"{sender} has taken {name} away from itself"
            self._check_reaped(name, self._renewed.get(owner, -100.0) + LEASE)
            self.missing[name] = Missing("reaped", now)
            self.met["living owner reaped"] += 1
        for name, client in list(self.ghosts.items()):
            if not self.is_held(name):
                owner = client.owner.name
                if not (owner == sender and quits):
                    # What no worker has begun need not be waited for.
                    reclaim = 0.0 if client.ticket.queue else client.ticket.reclaim_delay
                    self._check_reaped(name, self._renewed.get(owner, -100.0) + LEASE + reclaim)
                del self.ghosts[name]
                self.met["slot of a dead owner freed"] += 1

        most = [before.numbers("slots"), self.contents.numbers("slots"), mentioned(announced, operations)]
        self.met[f"batch: {reply[0]}"] += 1
        self.met["admitted"] += len(admitted)
        self.met["held by announcement"] += len(granted) - len(admitted)
        self.met["grace begun"] += self.contents.hashes.get("gate", {}).get(
            "graced", "0"
        ) != before.hashes.get("gate", {}).get("graced", "0")
        if reply[0] == "ok":
            self.met["over a limit"] += reply[12]
            self.met["refused"] += len(reply[5])
        if admitted:
            assert "grace" not in self.contents.hashes["gate"], f"{admitted} were admitted in grace"
            leases = self.contents.sets["owners"]
            for name in admitted:
                owner = name.split(":")[0]
                assert round(leases[owner]) >= self._milliseconds, f"{name} was admitted after its lease"
                for counter in limits(self.places[name][1:]):
                    self._check_room(counter, max(limit.get(counter, 0) for limit in most))
            self._check_order(before, was, admitted)
            if (
                not announced
                and len(operations) == 1
                and operations[0][0] != "quit"
                and "grace" not in before.hashes["gate"]
                and before.sets["owners"].keys() == self.contents.sets["owners"].keys()
                and before.sets.get("dead") == self.contents.sets.get("dead")
                # Who was due went before the operation.
                and all(due > 1000 * self._milliseconds for due in before.sets.get("due", {}).values())
            ):
                self._check_best(before, was, admitted)
        if announced and reply[0] == "ok":
            self._check_overshoot(set(granted) & announced_held, reply[12])

    @property
    def _milliseconds(self) -> int:
        return self.world.server.milliseconds(self.world.now)

    def _check_reaped(self, name: str, end: float) -> None:
        assert self.world.now > end - 0.002, f"{name} was released {end - self.world.now:.3f} s too early"

    def _check_room(self, counter: str, limit: int) -> None:
        """A ticket was admitted at a counter: it had room."""
        weights = [
            needed(place[1:])[counter]
            for place in self.places.values()
            if place[0] == "+" and counter in needed(place[1:])
        ]
        orphans = self.contents.orphans().values()
        weights += [needed(lane)[counter] for lane in orphans if counter in needed(lane)]
        for name, missing in self.missing.items():
            if counter in needed_by(self.believed[name]) and not self._is_excused(name, missing):
                weights.append(needed_by(self.believed[name])[counter])
        assert sum(weights) <= limit or len(weights) == 1, (
            f"{sum(weights)} of {limit} slots of {counter} are taken; {self.missing}"
        )

    def _is_excused(self, name: str, missing: Missing) -> bool:
        """Whether its owner could not announce it, before others were admitted."""
        owner = self.believed[name].owner
        return (
            missing.why != "forgotten"
            or not self._somebody_knew
            or owner.frozen
            or owner.name in self.world.cut_off
            or not self._all_knew
            or owner.hampered >= missing.since - HEARTBEAT
        )

    def _check_order(self, before: Contents, was: dict[str, str], admitted: list[str]) -> None:
        """Of one lane, the best was admitted."""
        for name in admitted:
            if name in was:
                lane = before.sets[f"lane:{was[name][1:]}"]
                left = self.contents.sets.get(f"lane:{was[name][1:]}", {})
                better = [other for other, order in lane.items() if order < lane[name] and other in left]
                assert not better, f"{name} was admitted before {better}"

    def _check_best(self, before: Contents, was: dict[str, str], admitted: list[str]) -> None:
        """Of those that one operation could have let through, the best was."""
        if "weighted" in self.contents.hashes["gate"]:
            return
        used, slots = self.contents.numbers("used"), self.contents.numbers("slots")
        now = 1000 * self._milliseconds
        orders = {
            name: order
            for key, lane in before.sets.items()
            if key.startswith("lane:")
            for name, order in lane.items()
        }
        for name in admitted:
            freed = needed(self.places[name][1:])
            for other, order in orders.items():
                if name in orders and order < orders[name] and self.places.get(other, "+")[0] == "-":
                    fits = all(
                        used.get(counter, 0) - freed.get(counter, 0) < slots[counter]
                        and self.contents.ready(counter, 1) - (RATE.interval if counter in freed else 0)
                        <= now
                        for counter in limits(self.places[other][1:])
                    ) and self._fits_workers(other, name)
                    assert not fits, f"{name} was admitted, {other} was not"

    def _fits_workers(self, other: str, name: str) -> bool:
        """Whether a worker has a place for a ticket, if another is not given one."""
        return True

    def _check_overshoot(self, held: set[str], counted: int) -> None:
        """What was announced, and is over a limit, was counted."""
        used, slots = self.contents.numbers("used"), self.contents.numbers("slots")
        over = [
            name
            for name in held
            if any(
                used[counter] > slots[counter] and used[counter] > weight
                for counter, weight in limits(self.places[name][1:]).items()
            )
        ]
        assert counted or not over, f"{over} are over a limit, and nobody has counted them"

    # Quiet ----------------------------------------------------------------------------------------------------------

    def check_agreement(self) -> None:
        """Everything has worked for some heartbeats: Redis and the owners agree."""
        assert not self.missing, self.missing
        owners = self.world.owners
        assert not owners or "grace" not in self.contents.hashes["gate"]
        assert owners.keys() <= self.contents.sets.get("owners", {}).keys()
        for owner in owners.values():
            wanted = {
                f"{owner.name}:{place.serial}": "+" if place.admitted else place.order
                for place in owner.gate._places
            }
            found = {
                name: "+" if place[0] == "+" else self.contents.sets[f"lane:{place[1:]}"][name]
                for name, place in self.places.items()
                if name.startswith(owner.name + ":")
            }
            assert wanted == found, (owner.name, wanted, found)
            assert owner.gate._places.held == sum(client.owner is owner for client in self.believed.values())
            assert not owner.gate._outages.gone

    def check_dead(self) -> None:
        """Leases and reclaim delays of the dead are over: nothing of them is left."""
        assert self.contents.sets.get("owners", {}).keys() == self.world.owners.keys()
        assert "dead" not in self.contents.sets
        assert {name.split(":")[0] for name in self.places} <= self.world.owners.keys()


def needed_by(client: Client) -> dict[str, int]:
    return {counter.key: counter.weight for counter in client.ticket.counters}


def mentioned(announced: Any, operations: Iterable[list[Any]]) -> dict[str, int]:
    """The highest limit of each counter that a batch brings."""
    most: dict[str, int] = {}
    needs = [ticket[8:] for ticket in announced[4:]] if announced else []
    needs += [operation[6:] for operation in operations if operation[0] == "acquire"]
    needs += [operation[9:] for operation in operations if operation[0] == "again"]
    for words in needs:
        for key, slots in zip(words[::8], words[1::8], strict=True):
            most[key] = max(most.get(key, 0), slots)
    return most


class Exploration(RuleBasedStateMachine):
    """
    One history.

    @cvar faults: what may fail in it.
    @cvar options: what else it has.
    @cvar outage: the policy of all owners.
    """

    faults: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[frozenset[str]] = frozenset()
    outage: ClassVar[str] = "local"
    client: ClassVar[Any] = None
    steps: ClassVar[int] = 0
    histories: ClassVar[int] = 0
    met: ClassVar[TallyOf[str]] = TallyOf()

    fixed: ClassVar[dict[str, Any]] = {}
    promises_of: ClassVar[type[Promises]] = Promises

    broken = False
    world: World | None = None

    @initialize(
        owners=st.sampled_from([2, 3, 1, 4]),
        aging=st.sampled_from([0.0, 0.0, 0.5]),
        max_waiting=st.sampled_from([1000, 1000, 4]),
        parts=st.sampled_from([1000, 2, 3]),
        limits=st.tuples(*[st.sampled_from([1, 2, 3])] * 3),
    )
    def begin(
        self,
        owners: int,
        aging: float,
        max_waiting: int,
        parts: int,
        limits: tuple[int, int, int],
    ) -> None:
        self.most_owners = owners
        self.settings = {
            "outage": self.outage,
            "aging": aging,
            "max_waiting": max_waiting,
            "lease": LEASE,
            "timeout": TIMEOUT,
        }
        self.parts = parts
        self.data: Any = None
        self.names = count(1)
        self.clients: list[Client] = []
        self.limits: dict[str, dict[str, int]] = {"": dict(zip("abc", limits, strict=True))}
        self.saved: tuple[dict[bytes, bytes], dict[str, float]] | None = None
        self.world = World(Server(self.client, "explore"))
        exact = self.faults <= OUTAGES and self.outage == "local" and not self.options & {"weights", "limits"}
        bounded = max_waiting < 1000 or "bounds" in self.options
        self.promises = self.promises_of(self.world, self.outage, bounded, exact)
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.log)
        for _ in range(owners):
            self.start_owner(300.0 * len(self.world.owners), 1.0, 0.05, True)
        self.world.advance(0.1)
        self.fates = {}
        for kind in ("batch", "message"):
            faulty = [fate.partition(": ")[2] for fate in sorted(self.faults) if fate.startswith(kind)]
            if faulty:
                self.fates[kind] = st.sampled_from([PROMPT] * (3 * len(faulty) + 1) + faulty)
        self.fates["backlog"] = st.sampled_from(["lost", PROMPT])
        self.world.decide = self.decide

    def log(self, event: Any) -> None:
        if "log_failure" in event:
            self.promises.problems.append(str(event["log_failure"]))

    def decide(self, kind: str, name: str) -> tuple[str, float]:
        """What Hypothesis says."""
        fate = self.data.draw(self.fates[kind]) if kind in self.fates else PROMPT
        return (PROMPT, LATENCY) if fate == PROMPT else (fate, self.data.draw(delays))

    @contextmanager
    def step(self, data: Any = None) -> Generator[World, None, None]:
        """What is done here and in its consequence is looked at."""
        assert self.world is not None
        Exploration.steps += 1
        self.data = data
        self.world.note(sys._getframe(2).f_code.co_name)
        try:
            yield self.world
            self.world.stepped()
        except BaseException:
            self.broken = True
            note("\n".join(self.world.history))
            raise

    def owner(self, number: int) -> Owner:
        assert self.world is not None
        owners = list(self.world.owners.values())
        return owners[number % len(owners)]

    def front(self, number: int) -> Owner | None:
        """One to which clients come, if there is any."""
        return self.owner(number)

    def start_owner(self, ahead: float, rate: float, pause: float, fails_first: bool) -> None:
        assert self.world is not None
        name = f"o{next(self.names)}"
        owner = self.world.start(
            name, ahead=ahead, rate=rate, pause=pause, fails_first=fails_first, **self.settings
        )
        owner.gate._places.longest_part = self.parts
        owner.gate._places.longest_batch = 5 if self.parts < 1000 else 500
        self.limits[name] = dict(self.limits[""])
        self.promises.started(owner)

    def in_state(self, state: str) -> list[Client]:
        return [client for client in self.clients if client.state == state and client.owner.alive]

    # Clients --------------------------------------------------------------------------------------------------------

    def come(self, arrival: Arrival) -> None:
        """Clients come to an owner, unless it is frozen."""
        owner = self.front(arrival.number)
        if owner is None or owner.frozen:
            return
        owner.look_at_clock()
        counters = tuple(
            Counter(
                key,
                self.limits[owner.name][key],
                arrival.weight if "weights" in self.options else 1,
                2 if "bounds" in self.options else None,
                RATE if "rates" in self.options and key != "a" else None,
            )
            for key in arrival.needs
        )
        ticket = Ticket(
            counters,
            arrival.priority,
            arrival.timeout if "timeouts" in self.options else None,
            RECLAIM if "reclaim" in self.options and not arrival.at_once else 0.0,
            f"user{arrival.many}" if "turns" in self.options else None,
            self.queue_of(arrival),
        )
        for _ in range(arrival.many):
            client = Client(owner, ticket, arrival.at_once)
            self.clients.append(client)
            self.let_wait(client, owner.gate.acquire)

    def let_wait(self, client: Client, acquire: Callable[[Ticket], Deferred[IAdmission]]) -> None:
        """A client waits, for the first time or again."""
        client.name = f"{client.owner.name}:{client.owner.gate._places._serial + 1}"
        client.state, client.admission = "waiting", None
        client.waiting = acquire(client.ticket)
        client.waiting.addCallbacks(
            lambda admission: self.promises.admitted(client, admission),
            lambda failure: self.promises.failed(client, failure),
        )

    def queue_of(self, arrival: Arrival) -> str | None:
        """Of which workers it needs one."""
        return None

    def end_one(self, number: int) -> None:
        """A request comes to its end."""
        clients = [client for client in self.in_state("admitted") if not client.owner.frozen]
        if clients:
            client = clients[number % len(clients)]
            client.owner.look_at_clock()
            if client.state == "admitted":
                self.promises.release(client)

    @precondition(lambda self: self.world.owners)
    @rule(data=st.data(), coming=st.lists(arrivals, min_size=1, max_size=4), then=moments)
    def acquire(self, data: Any, coming: list[Arrival], then: float) -> None:
        with self.step(data) as world:
            for arrival in coming:
                self.come(arrival)
            world.advance(then)

    @precondition(lambda self: self.world.owners)
    @rule(data=st.data(), coming=st.lists(arrivals, min_size=1, max_size=5), pause=moments)
    def work(self, data: Any, coming: list[Arrival], pause: float) -> None:
        """Some come, and as many end, one after the other."""
        with self.step(data) as world:
            for number, arrival in enumerate(coming):
                self.come(arrival)
                self.end_one(number)
                world.advance(pause)

    @precondition(lambda self: self.in_state("admitted"))
    @rule(data=st.data(), numbers=st.lists(st.integers(0, 9), min_size=1, max_size=4), then=moments)
    def release(self, data: Any, numbers: list[int], then: float) -> None:
        """Requests come to their end."""
        with self.step(data) as world:
            for number in numbers:
                self.end_one(number)
            world.advance(then)

    @precondition(lambda self: self.in_state("waiting"))
    @rule(data=st.data(), number=st.integers(0, 9), then=st.sampled_from([0.003, 0.0]))
    def cancel(self, data: Any, number: int, then: float) -> None:
        """A client leaves the queue."""
        with self.step(data) as world:
            clients = [client for client in self.in_state("waiting") if not client.owner.frozen]
            if clients:
                self.leave(clients[number % len(clients)])
            world.advance(then)

    def leave(self, client: Client) -> None:
        client.owner.look_at_clock()
        if client.state == "waiting":
            client.cancelled = True
            assert client.waiting is not None
            client.waiting.cancel()

    @rule(data=st.data(), seconds=st.sampled_from([0.003, 0.05, 0.26, 0.6, 1.3, 1.3, 3.0, 5.2]))
    def wait(self, data: Any, seconds: float) -> None:
        with self.step(data) as world:
            world.advance(seconds)

    @precondition(lambda self: "limits" in self.options and self.world.owners)
    @rule(data=st.data(), key=st.sampled_from("abc"), limit=st.integers(0, 3), number=st.integers(0, 9))
    def limit(self, data: Any, key: str, limit: int, number: int) -> None:
        """A limit changes, for all owners or for one."""
        with self.step(data) as world:
            owners = [*world.owners, ""] if number > 5 else [self.owner(number).name]
            for name in owners:
                self.limits[name][key] = limit

    # Owners ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.owners) < self.most_owners)
    @rule(
        data=st.data(),
        ahead=st.sampled_from([0.0, 300.0, -200.0]),
        rate=st.sampled_from([1.0, 1.001, 0.999]),
        pause=st.sampled_from([0.05, HEARTBEAT / 2]),
        fails_first=st.booleans(),
        then=st.sampled_from([0.05, 0.0]),
    )
    def start(
        self, data: Any, ahead: float, rate: float, pause: float, fails_first: bool, then: float
    ) -> None:
        """A process starts."""
        with self.step(data) as world:
            self.start_owner(ahead, rate if "drift" in self.options else 1.0, pause, fails_first)
            world.advance(then)

    @precondition(lambda self: "owner: frozen" in self.faults and self.world.owners)
    @rule(data=st.data(), number=st.integers(0, 5))
    def freeze(self, data: Any, number: int) -> None:
        with self.step(data):
            self.owner(number).freeze()

    @precondition(lambda self: any(owner.frozen for owner in self.world.owners.values()))
    @rule(data=st.data())
    def thaw(self, data: Any) -> None:
        with self.step(data) as world:
            for owner in world.owners.values():
                owner.thaw()

    @precondition(lambda self: "owner: killed" in self.faults and self.world.owners)
    @rule(data=st.data(), number=st.integers(0, 5))
    def kill(self, data: Any, number: int) -> None:
        with self.step(data) as world:
            owner = self.owner(number)
            self.promises.killed(owner)
            world.kill(owner.name)

    @precondition(lambda self: "owner: stopped" in self.faults and self.world.owners)
    @rule(data=st.data(), number=st.integers(0, 5), politely=st.booleans())
    def stop(self, data: Any, number: int, politely: bool) -> None:
        """An owner stops in order, when its requests have ended (politely) or before."""
        owner = self.owner(number)
        if owner.frozen:
            return
        with self.step(data) as world:
            owner.look_at_clock()
            if politely:
                owner.gate.close()
                world.advance(0.05)
            self.stop_owner(owner)

    def stop_owner(self, owner: Owner) -> None:
        assert self.world is not None
        for client in self.in_state("admitted"):
            if client.owner is owner:
                client.state = "over"
                self.promises.forget(client)
        owner.look_at_clock()
        stopping = owner.gate.stop()
        self.world.advance(1.0)
        assert stopping.called
        assert owner.clock.calls == []
        self.world.kill(owner.name)

    @precondition(lambda self: "owner: cut off" in self.faults and self.world.owners)
    @rule(data=st.data(), number=st.integers(0, 5))
    def part(self, data: Any, number: int) -> None:
        """An owner cannot reach Redis."""
        with self.step(data) as world:
            world.part(self.owner(number).name)

    @precondition(lambda self: self.world.cut_off)
    @rule(data=st.data())
    def rejoin(self, data: Any) -> None:
        with self.step(data) as world:
            world.cut_off.clear()

    @precondition(lambda self: "owner: connections cut" in self.faults and self.world.owners)
    @rule(data=st.data(), number=st.integers(0, 5))
    def cut(self, data: Any, number: int) -> None:
        with self.step(data) as world:
            world.cut(self.owner(number).name)

    # Redis ----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.faults & {"Redis: gone", "Redis: silent"} and self.world.server.reachable)
    @rule(data=st.data(), silently=st.booleans())
    def take_away(self, data: Any, silently: bool) -> None:
        with self.step(data) as world:
            if "Redis: gone" not in self.faults:
                silently = True
            elif "Redis: silent" not in self.faults:
                silently = False
            self.promises.outage_began()
            world.take_away(silently)

    @precondition(lambda self: not self.world.server.reachable)
    @rule(data=st.data(), how=st.integers(0, 3))
    def bring_back(self, data: Any, how: int) -> None:
        with self.step(data):
            ways = ["restarted", "restarted empty", "restarted with older data"]
            way = ["", *(way for way in ways if f"Redis: {way}" in self.faults)]
            self.return_from_outage(way[how % len(way)])

    def return_from_outage(self, how: str) -> None:
        assert self.world is not None
        if how == "restarted empty":
            self.world.server.forget()
            self.promises.memory_lost({})
        elif how == "restarted with older data" and self.saved:
            self.world.server.restore(self.saved[0])
            self.promises.memory_lost(self.saved[1])
        self.world.bring_back(bool(how))
        self.promises.outage_ended()

    @precondition(
        lambda self: (
            self.faults & {"Redis: restarted with older data", "Redis: failed over"}
            and self.world.server.reachable
        )
    )
    @rule(data=st.data())
    def save(self, data: Any) -> None:
        """What a replica, or a file, knows from now on."""
        with self.step(data) as world:
            self.saved = (world.server.save(), self.promises.renewed)

    @precondition(
        lambda self: "Redis: failed over" in self.faults and self.saved and self.world.server.reachable
    )
    @rule(data=st.data(), ahead=st.sampled_from([0, 0, 60, -60]))
    def fail_over(self, data: Any, ahead: int) -> None:
        with self.step(data) as world:
            assert self.saved is not None
            is_exact = ahead == world.server.ahead
            world.fail_over(ahead)
            world.server.restore(self.saved[0])
            # By another clock, leases end at another time.
            self.promises.memory_lost(self.saved[1] if is_exact else {})

    @precondition(lambda self: "Redis: flushed" in self.faults and self.world.server.reachable)
    @rule(data=st.data())
    def flush(self, data: Any) -> None:
        with self.step(data) as world:
            world.server.forget()
            self.promises.memory_lost({})

    @precondition(lambda self: "Redis: scripts flushed" in self.faults)
    @rule(data=st.data())
    def flush_scripts(self, data: Any) -> None:
        with self.step(data) as world:
            world.server.knows_script = False

    # Quiet ----------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), rarely=st.integers(0, 7))
    def calm(self, data: Any, rarely: int) -> None:
        """Everything works, for some heartbeats."""
        if rarely == 0:
            with self.step(data):
                self.calm_down()

    def calm_down(self) -> None:
        world = self.world
        assert world is not None
        decide, world.decide = world.decide, all_is_prompt
        for owner in world.owners.values():
            owner.thaw()
        world.cut_off.clear()
        if not world.server.reachable:
            self.return_from_outage("")
        # What is still on its way arrives; then a grace may begin.
        world.advance(LONGEST_DELAY if len(self.fates) > 1 else 0.0)
        world.advance(5 * HEARTBEAT)
        self.promises.check_agreement()
        self.promises.all_is_well()
        world.decide = decide

    # The end --------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if self.world is None:
            return
        Exploration.histories += 1
        self.met.update(self.promises.met)
        try:
            if not self.broken:
                self.end(self.world)
        finally:
            globalLogPublisher.removeObserver(self.log)
            self.world.server.close()

    def end(self, world: World) -> None:
        """All is well again, all leave, and nothing stays."""
        with self.step():
            if not world.owners:
                self.start_owner(0.0, 1.0, 0.05, True)
            self.calm_down()
            world.decide = all_is_prompt
            world.advance(LEASE + RECLAIM + 2 * HEARTBEAT)
            self.promises.check_dead()
            self.drain(world)
            for client in self.in_state("waiting"):
                self.leave(client)
            world.advance(0.1)
            contents = self.promises.contents
            assert contents.hashes.keys() <= {"gate", "workers"}, contents.hashes
            assert {name.partition(":")[0] for name in contents.sets} <= {"owners", "serving"}, contents.sets
            for owner in list(world.owners.values()):
                self.stop_owner(owner)
            left = world.server.keys()
            assert all(b":rate:" in key for key in left), left
            assert all(
                client.waiting and client.waiting.called for client in self.clients if client.state == "over"
            )

    def drain(self, world: World) -> None:
        """Requests end one after the other, until nobody waits but for counters without slots."""
        while clients := self.in_state("admitted"):
            for client in clients:
                client.owner.look_at_clock()
                if client.state == "admitted":
                    self.promises.release(client)
            world.advance(0.5 if "rates" in self.options else 0.05)
        slots = self.promises.contents.numbers("slots")
        for client in self.in_state("waiting"):
            assert any(slots[counter.key] == 0 for counter in client.ticket.counters), client


def some_of(choice: Random, things: Sequence[str]) -> list[str]:
    """One or more."""
    return choice.sample(things, choice.randint(1, len(things)))


def explore(
    number: int, histories: int, steps: int, base: type[Exploration] = Exploration, **more: Any
) -> None:
    """A round: some histories, of some steps each, with the faults that a seed chooses, as Hypothesis's decisions."""
    choice = Random(number)
    attributes = {
        "faults": frozenset(
            fault for kind in FAULTS if choice.random() < 0.4 for fault in some_of(choice, kind)
        ),
        "options": frozenset(choice.sample(OPTIONS, choice.randint(0, 3))),
        "outage": choice.choice(["local", "local", "closed", "open"]),
        **base.fixed,
    }
    machine = seed(number)(type("Exploration", (base,), attributes))
    with valkey.client() as Exploration.client:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=histories,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
                **more,
            ),
        )


def main(base: type[Exploration] = Exploration) -> None:
    """Explore until the time is over, or something is found."""
    parser = argparse.ArgumentParser(description="Explore the gate under faults for a long time.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, help="of the first round; the next has the next number")
    parser.add_argument("--histories", type=int, default=20, help="in one round")
    parser.add_argument("--steps", type=int, default=60, help="in one history")
    options = parser.parse_args()
    number = options.seed if options.seed is not None else int(time.time())
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        print(f"seed {number}", end=": ", flush=True)
        explore(number, options.histories, options.steps, base)
        print(f"{Exploration.histories} histories, {Exploration.steps} steps so far", flush=True)
        number += 1
    for what, times in sorted(Exploration.met.items()):
        print(f"{times:10} {what}")


if __name__ == "__main__":
    main()
