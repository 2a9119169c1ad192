"""
What a gate has to do, said by brute force: after every change look at all waiters in order, admit whoever fits.

L{Lanes} and C{gate.lua} look at far fewer, and are held against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs
from msgspec import msgpack

from tests.gate.simulation import given_time
from thrtwisted.gate import Counter, Quota
from thrtwisted.gate.lanes import Lanes
from thrtwisted.gate.order import MICROSECONDS
from thrtwisted.gate.places import Reply
from thrtwisted.gate.script import SCRIPT

#: Who acquires: an owner's number and its serial.
Id = tuple[int, int]

#: When histories begin (us), on the gate's clock.
START = 1_000_000 * MICROSECONDS

#: By so much a timer may be late without costing any rate (us).
LATE = 100_000

#: What the order of a ticket is made of.
PRIORITY, TURN, LAST_TURN = 2**45, 2**16, 2**29 - 1

#: Keys of one counter and priority whose next turn is remembered.
MOST = 1000


class Engine(Protocol):
    """
    A gate's decisions, one operation at a time. Each is told the time (us), and first of all admits whoever is due by
    then.

    @ivar refused: who was refused, ever, for as many wait as may.
    @ivar rejected: who was over a rate that rejects, ever, and the us after which it is not.
    @ivar demoted: who was over a rate that demotes, ever, and its priority from then on.
    """

    refused: list[Id]
    rejected: list[tuple[Id, int]]
    demoted: list[tuple[Id, int]]

    def acquire(
        self,
        owner: int,
        serial: int,
        counters: Sequence[Counter],
        priority: int,
        *,
        now: int = START,
        fair: str | None = None,
    ) -> list[Id]: ...

    def release(self, owner: int, serial: int, *, now: int = START) -> list[Id]: ...

    def wake(self, now: int) -> list[Id]:
        """Time has passed."""

    def next_due(self) -> int | None:
        """A time at which to wake it, by when nobody could have gone yet; None if nobody may go by time alone."""

    def idle(self) -> bool: ...


@attrs.frozen
class Waiter:
    """A ticket that waits. Its turn is in its order."""

    order: int
    counters: Sequence[Counter]
    priority: int
    turn: int
    fair: str | None


class BruteForce:
    """
    The model, for tickets that weigh the same everywhere: with others it matters where lanes are parked, see
    C{test_weights.py}.

    Every operation begins with what is due; then the limits and rates that a ticket brings count, and whomever they let
    through goes; then the ticket is looked at.

    @ivar counters: those in use, as the last ticket said that they are.
    @ivar used_up: the theoretical arrival time of a counter (us), and the weight of who was charged last. It is no
        further ahead than that one, or the whole burst, can have put it: that is looked to when a ticket brings a rate,
        which may be another one, and for all counters in use when the clock was set back.
    @ivar level: by counter and priority, the turn that is being served.
    @ivar next_turn: by counter, priority and key, the turn that the key's next ticket has.
    @ivar base: the highest turn served.
    """

    def __init__(self, max_waiting: int = 1000) -> None:
        self.max_waiting = max_waiting
        self.arrivals = 0
        self.last = 0
        self.counters: dict[str, Counter] = {}
        self.waiting: dict[Id, Waiter] = {}
        self.holding: dict[Id, Sequence[Counter]] = {}
        self.used_up: dict[str, tuple[int, int]] = {}
        self.level: dict[tuple[str, int], int] = {}
        self.next_turn: dict[tuple[str, int, str], int] = {}
        self.base = 0
        self.refused: list[Id] = []
        self.rejected: list[tuple[Id, int]] = []
        self.demoted: list[tuple[Id, int]] = []

    # Counters ------------------------------------------------------------------------------------------------------

    def used(self, key: str) -> int:
        return sum(c.weight for counters in self.holding.values() for c in counters if c.key == key)

    def waiting_for(self, key: str) -> int:
        return sum(c.key == key for waiter in self.waiting.values() for c in waiter.counters)

    def in_use(self) -> set[str]:
        places = [*self.holding.values(), *(waiter.counters for waiter in self.waiting.values())]
        return {c.key for counters in places for c in counters}

    def ready(self, key: str, weight: int) -> int:
        """The time from which a counter's rate lets a ticket go."""
        rate = self.counters[key].rate
        assert rate is not None
        tat, _ = self.used_up.get(key, (0, 1))
        return tat - (max(rate.burst, weight) - weight) * rate.interval

    def charge(self, key: str, weight: int, now: int, waited: bool) -> None:
        rate = self.counters[key].rate
        assert rate is not None
        tat, _ = self.used_up.get(key, (0, 1))
        earliest = now - min(rate.interval, LATE) if waited else now
        self.used_up[key] = (max(tat, earliest) + weight * rate.interval, weight)

    def bound(self, key: str, now: int) -> None:
        rate = self.counters[key].rate
        if rate and key in self.used_up:
            tat, weight = self.used_up[key]
            self.used_up[key] = (min(tat, now + max(rate.burst, weight) * rate.interval), weight)

    def fits(self, wanted: Counter, now: int) -> bool:
        counter = self.counters[wanted.key]
        used = self.used(wanted.key)
        has_room = used + wanted.weight <= counter.max_concurrent or (used == 0 < counter.max_concurrent)
        is_late = counter.rate and counter.rate.over == "wait" and self.ready(wanted.key, wanted.weight) > now
        return has_room and not is_late

    # Turns ---------------------------------------------------------------------------------------------------------

    def turn(self, counters: Sequence[Counter], priority: int, fair: str) -> int:
        turns = [
            max(self.level[c.key, priority], self.next_turn.get((c.key, priority, fair), 0))
            for c in counters
            if (c.key, priority) in self.level
        ]
        return min(min(turns) if turns else self.base, LAST_TURN)

    def joins(self, waiter: Waiter) -> None:
        for c in waiter.counters if waiter.fair else ():
            self.level.setdefault((c.key, waiter.priority), waiter.turn)
            of_key = (c.key, waiter.priority, waiter.fair or "")
            self.next_turn[of_key] = max(self.next_turn.get(of_key, 0), waiter.turn + 1)
            remembered = sorted((turn, o) for o, turn in self.next_turn.items() if o[:2] == of_key[:2])
            if len(remembered) > MOST:
                del self.next_turn[remembered[0][1]]

    def leaves(self, waiter: Waiter, served: bool) -> None:
        """It is not among the waiting any more."""
        for c in waiter.counters if waiter.fair else ():
            place, of_key = (c.key, waiter.priority), (c.key, waiter.priority, waiter.fair or "")
            if served:
                self.level[place] = max(self.level[place], waiter.turn)
                for other in [o for o in self.next_turn if o[:2] == place]:
                    if self.next_turn[other] < self.level[place]:
                        del self.next_turn[other]
            elif of_key in self.next_turn:
                self.next_turn[of_key] -= 1
        if served and waiter.fair:
            self.base = max(self.base, waiter.turn)
        awaited = {c.key for other in self.waiting.values() for c in other.counters}
        self.level = {place: level for place, level in self.level.items() if place[0] in awaited}
        self.next_turn = {place: turn for place, turn in self.next_turn.items() if place[0] in awaited}
        if not self.waiting:
            self.base = 0

    # Operations ----------------------------------------------------------------------------------------------------

    def acquire(
        self,
        owner: int,
        serial: int,
        counters: Sequence[Counter],
        priority: int,
        *,
        now: int = START,
        fair: str | None = None,
    ) -> list[Id]:
        ticket = (owner, serial)
        admitted = self.wake(now)
        self.counters = {key: c for key, c in self.counters.items() if key in self.in_use()}
        for c in counters:
            self.counters[c.key] = c
            self.bound(c.key, now)
        admitted += self._settle(now)

        def over(policy: str) -> list[Counter]:
            return [c for c in counters if c.rate and c.rate.over == policy]

        late = [c for c in over("reject") if self.ready(c.key, c.weight) > now]
        if late:
            self.rejected.append((ticket, max(self.ready(c.key, c.weight) for c in late) - now))
            return admitted
        charged, effective = over("reject"), priority
        for c in over("demote"):
            if self.ready(c.key, c.weight) <= now:
                charged.append(c)
            elif c.rate:
                effective = max(effective, c.rate.demote_to)
        goes = all(self.fits(c, now) for c in counters)
        crowded = len(self.waiting) >= self.max_waiting or any(
            c.max_waiting is not None and self.waiting_for(c.key) >= c.max_waiting for c in counters
        )
        if not goes and crowded:
            self.refused.append(ticket)
            return admitted
        if effective > priority:
            self.demoted.append((ticket, effective))
        for c in charged:
            self.charge(c.key, c.weight, now, waited=False)
        if goes:
            self._admit(ticket, counters, now, waited=False)
            return [*admitted, ticket]
        self.arrivals += 1
        turn, rank = 0, self.arrivals
        if fair:
            turn = self.turn(counters, effective, fair)
            rank = turn * TURN + self.arrivals % TURN
        waiter = Waiter(effective * PRIORITY + rank, counters, effective, turn, fair)
        self.waiting[ticket] = waiter
        self.joins(waiter)
        return admitted

    def release(self, owner: int, serial: int, *, now: int = START) -> list[Id]:
        admitted = self.wake(now)
        waiter = self.waiting.pop((owner, serial), None)
        if waiter:
            self.leaves(waiter, served=False)
        self.holding.pop((owner, serial), None)
        return admitted + self._settle(now)

    def wake(self, now: int) -> list[Id]:
        if now < self.last:
            in_use = self.in_use()
            self.used_up = {key: used for key, used in self.used_up.items() if used[0] + LATE > self.last}
            for key in in_use:
                self.bound(key, now)
        self.last = now
        return self._settle(now)

    def next_due(self) -> int | None:
        """The earliest time at which one goes that lacks nothing but time."""
        return min(
            (self._goes_at(waiter) for waiter in self.waiting.values() if self._has_slots(waiter)),
            default=None,
        )

    def quota(self, key: str, now: int) -> Quota:
        """What is left of a counter in use."""
        counter = self.counters[key]
        slots = max(0, counter.max_concurrent - self.used(key))
        if counter.rate is None:
            return Quota(slots)
        ahead = max(0, self.used_up.get(key, (0, 1))[0] - now)
        tickets = (counter.rate.burst * counter.rate.interval - ahead) // counter.rate.interval
        return Quota(slots, max(0, tickets), ahead / MICROSECONDS)

    def idle(self) -> bool:
        return not self.waiting and not self.holding

    def _has_slots(self, waiter: Waiter) -> bool:
        return all(
            self.used(c.key) + c.weight <= self.counters[c.key].max_concurrent for c in waiter.counters
        )

    def _goes_at(self, waiter: Waiter) -> int:
        rates = {c.key: self.counters[c.key].rate for c in waiter.counters}
        return max(
            self.ready(c.key, c.weight)
            for c in waiter.counters
            if (rate := rates[c.key]) and rate.over == "wait"
        )

    def _settle(self, now: int) -> list[Id]:
        admitted = []
        for ticket, waiter in sorted(self.waiting.items(), key=lambda item: item[1].order):
            if all(self.fits(c, now) for c in waiter.counters):
                del self.waiting[ticket]
                self._admit(ticket, waiter.counters, now, waited=True)
                self.leaves(waiter, served=True)
                admitted.append(ticket)
        return admitted

    def _admit(self, ticket: Id, counters: Sequence[Counter], now: int, waited: bool) -> None:
        self.holding[ticket] = counters
        for c in counters:
            rate = self.counters[c.key].rate
            if rate and rate.over == "wait":
                self.charge(c.key, c.weight, now, waited)


class LanesEngine:
    """
    L{Lanes}.

    @ivar order: of who came last.
    """

    def __init__(self, max_waiting: int = 1000) -> None:
        self.lanes: Lanes[Id] = Lanes()
        self.max_waiting = max_waiting
        self.order = 0
        self.refused: list[Id] = []
        self.rejected: list[tuple[Id, int]] = []
        self.demoted: list[tuple[Id, int]] = []

    def acquire(
        self,
        owner: int,
        serial: int,
        counters: Sequence[Counter],
        priority: int,
        *,
        now: int = START,
        fair: str | None = None,
    ) -> list[Id]:
        ticket = (owner, serial)
        arrival = self.lanes.arrive(ticket, counters, priority, now, self.max_waiting, fair)
        self.order = arrival.order
        if arrival.rejected:
            self.rejected.append((ticket, arrival.rejected))
        elif ticket not in self.lanes:
            self.refused.append(ticket)
        elif arrival.priority > priority:
            self.demoted.append((ticket, arrival.priority))
        return arrival.admitted

    def release(self, owner: int, serial: int, *, now: int = START) -> list[Id]:
        return self.lanes.release((owner, serial), now)

    def wake(self, now: int) -> list[Id]:
        return self.lanes.wake(now)

    def next_due(self) -> int | None:
        return self.lanes.next_due

    def idle(self) -> bool:
        return self.lanes.idle


class ScriptOwner:
    """
    One process's side of C{gate.lua}, spoken through a blocking client.

    @ivar known: what its batches say that it knows; taken from each reply.
    @ivar now: the time that the script is given (us); None for the server's.
    @ivar quotas: what was last published to it of what is left of counters.
    @ivar workers: what was last published to it of where its tickets have their places.
    @ivar woken: after how many us it has last been asked by a message to send a batch; 0 for never.
    """

    def __init__(self, client: Any, namespace: str, name: str, *, lease: int = 60_000, aging: float = 0.0):
        self.client = client
        self.key = "{" + namespace + "}"
        self.name = name
        self.lease = lease
        self.grace = lease // 4
        self.aging = round(aging * MICROSECONDS)
        self.max_waiting = 1000
        self.sequence = 0
        self.known: list[Any] = ["", 0, 0, 0]
        self.now: int | None = None
        self.quotas: list[Any] = []
        self.workers: list[Any] = []
        self.woken = 0
        self.channel = client.pubsub(ignore_subscribe_messages=True)
        self.channel.subscribe(f"{self.key}:owner:{name}")
        self.channel.get_message(timeout=5)

    def batch(
        self,
        *operations: list[Any],
        announced: list[list[Any]] | None = None,
        part: tuple[bool, bool, int, int] = (True, True, 0, 2**53),
        sequence: int | None = None,
        unfamiliar: bool = False,
    ) -> Any:
        """
        Send a batch; the script's reply, or its status alone if nothing was done.

        @param part: which part of the announcement it is: first, final, from, to.
        """
        self.sequence += 1
        batch = [
            self.name,
            self.sequence if sequence is None else sequence,
            self.lease,
            self.grace,
            self.max_waiting,
            self.aging,
            self.known,
            False if announced is None else [*part, *announced],
            operations,
        ]
        script, arguments = SCRIPT, [msgpack.encode(batch), b"1" if unfamiliar else b""]
        if self.now is not None:
            script = given_time(SCRIPT)
            arguments += [b"%d" % number for number in divmod(self.now, MICROSECONDS)]
            channels = self.client.pubsub_channels("[{]" + self.key[1:] + ":owner:*")
            connected = (channel.decode().rpartition(":")[2] for channel in channels)
            arguments.append(f" {' '.join(connected)} ".encode())
        status, *rest = msgpack.decode(self.client.eval(script, 1, self.key, *arguments))
        if status != "ok":
            return status
        reply = Reply(*rest)
        self.known = [reply.epoch, reply.count, self.sequence, reply.owners]
        return reply

    def published(self) -> list[int]:
        """The serials published to this owner since the last call."""
        serials: list[int] = []
        self.client.ping()  # a server may answer the batch before it sends what the batch published
        while message := self.channel.get_message():
            admitted, self.quotas, woken, *workers = msgpack.decode(message["data"])
            self.workers = workers[0] if workers else []
            serials += admitted
            self.woken = woken or self.woken
        return serials

    def close(self) -> None:
        self.channel.close()


def needs(
    counters: Sequence[Counter], reclaim: int = 0, fair: str | None = None, queue: str = ""
) -> list[Any]:
    """What a ticket needs, as the script reads it; the reclaim delay in ms."""
    words: list[Any] = [reclaim, fair or "", queue]
    for counter in sorted(counters, key=lambda counter: counter.key):
        most = -1 if counter.max_waiting is None else counter.max_waiting
        words += (counter.key, counter.max_concurrent, counter.weight, most)
        rate = counter.rate
        if rate is None:
            words += (0, 0, 0)
        else:
            words += (
                rate.interval,
                rate.burst,
                {"wait": 0, "reject": -1, "demote": rate.demote_to}[rate.over],
            )
        words.append(int(counter.shown))
    return words


def acquire_operation(
    serial: int,
    counters: Sequence[Counter],
    priority: int = 50,
    reclaim: int = 0,
    fair: str | None = None,
    queue: str = "",
) -> list[Any]:
    return ["acquire", serial, priority, *needs(counters, reclaim, fair, queue)]


class ScriptEngine:
    """
    C{gate.lua} over a real server, with as many owners as are asked for, at the times that it is given.

    @ivar timer: who has been told to send a batch, and when (us).
    """

    def __init__(self, client: Any, namespace: str, owners: int) -> None:
        self.client = client
        self.namespace = namespace
        # However much time passes from one operation to the next, nobody is taken for dead.
        self.owners = [ScriptOwner(client, namespace, f"owner{n}", lease=10**12) for n in range(owners)]
        self.refused: list[Id] = []
        self.rejected: list[tuple[Id, int]] = []
        self.demoted: list[tuple[Id, int]] = []
        self.timer: tuple[int, int] | None = None
        for owner in self.owners:
            owner.now = START
            owner.batch(announced=[])

    def acquire(
        self,
        owner: int,
        serial: int,
        counters: Sequence[Counter],
        priority: int,
        *,
        now: int = START,
        fair: str | None = None,
    ) -> list[Id]:
        return self._run(now, owner, acquire_operation(serial, counters, priority, fair=fair))

    def release(self, owner: int, serial: int, *, now: int = START) -> list[Id]:
        return self._run(now, owner, ["release", serial])

    def wake(self, now: int) -> list[Id]:
        owner, _ = self.timer or (0, now)
        return self._run(now, owner)

    def next_due(self) -> int | None:
        """When somebody may go. The owner that has the timer sends a batch by then."""
        due = self.client.zrange("{" + self.namespace + "}:due", 0, 0, withscores=True)
        assert not due or (self.timer is not None and self.timer[1] <= due[0][1])
        return int(due[0][1]) if due else None

    def _run(self, now: int, owner: int, *operations: list[Any]) -> list[Id]:
        before = self.owners[0].now or now
        if now < before:
            # In the server's own time they have not gone by themselves yet.
            for key in self.client.keys("[{]" + self.namespace + "}:rate:*"):
                if int(self.client.get(key).split()[0]) + LATE <= before:
                    self.client.delete(key)
        for each in self.owners:
            each.now = now
        reply = self.owners[owner].batch(*operations)
        if reply.wake:
            self.timer = (owner, now + reply.wake)
        elif self.timer and self.timer[0] == owner:
            self.timer = None
        self.refused += [(owner, serial) for serial in reply.full]
        for found, words in ((self.rejected, reply.rejected), (self.demoted, reply.demoted)):
            found += [
                ((owner, serial), number) for serial, number in zip(words[::2], words[1::2], strict=True)
            ]
        told = [(n, serial) for n, other in enumerate(self.owners) for serial in other.published()]
        return [(owner, serial) for serial in reply.admitted] + told

    def keys(self) -> set[str]:
        """What of this namespace is in the server and does not go by itself, without its common prefix."""
        prefix = "{" + self.namespace + "}"
        keys = self.client.keys(prefix.replace("{", "[{]") + "*")
        return {key.decode().removeprefix(prefix) for key in keys if self.client.pttl(key) == -1}

    def idle(self) -> bool:
        return self.keys() <= {":owners", ":gate"}

    def close(self) -> None:
        for owner in self.owners:
            owner.batch(["quit"])
            owner.close()
