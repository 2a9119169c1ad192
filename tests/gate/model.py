"""
What a gate has to do, said by brute force: after every change look at all waiters in order, admit whoever fits.

L{Lanes} and C{gate.lua} look at far fewer, and are held against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import msgpack

from thrtwisted.gate import Counter
from thrtwisted.gate.lanes import Lanes
from thrtwisted.gate.order import MICROSECONDS, Order
from thrtwisted.gate.places import Reply
from thrtwisted.gate.redis import SCRIPT

#: Who acquires: an owner's number and its serial.
Id = tuple[int, int]


class Engine(Protocol):
    """
    A gate's decisions, one operation at a time.

    @ivar refused: who was refused, ever.
    """

    refused: list[Id]

    def acquire(self, owner: int, serial: int, counters: Sequence[Counter], priority: int) -> list[Id]: ...

    def release(self, owner: int, serial: int) -> list[Id]: ...

    def idle(self) -> bool: ...


class BruteForce:
    """The model."""

    def __init__(self) -> None:
        self.order = Order()
        self.slots: dict[str, int] = {}
        self.waiting: dict[Id, tuple[int, Sequence[Counter]]] = {}
        self.holding: dict[Id, Sequence[Counter]] = {}

    def used(self, key: str) -> int:
        return sum(key == c.key for counters in self.holding.values() for c in counters)

    def in_use(self) -> set[str]:
        places = [*self.holding.values(), *(counters for _, counters in self.waiting.values())]
        return {c.key for counters in places for c in counters}

    def acquire(self, owner: int, serial: int, counters: Sequence[Counter], priority: int) -> list[Id]:
        self.slots = {key: n for key, n in self.slots.items() if key in self.in_use()}
        self.slots.update({c.key: c.max_concurrent for c in counters})
        before = self._settle()
        self.waiting[owner, serial] = (self.order.next(priority, 0.0), counters)
        return before + self._settle()

    def release(self, owner: int, serial: int) -> list[Id]:
        self.waiting.pop((owner, serial), None)
        self.holding.pop((owner, serial), None)
        return self._settle()

    def idle(self) -> bool:
        return not self.waiting and not self.holding

    def _settle(self) -> list[Id]:
        admitted = []
        for ticket, (_, counters) in sorted(self.waiting.items(), key=lambda item: item[1][0]):
            if all(self.used(c.key) < self.slots[c.key] for c in counters):
                self.holding[ticket] = counters
                admitted.append(ticket)
        for ticket in admitted:
            del self.waiting[ticket]
        return admitted


class LanesEngine:
    """L{Lanes}, with arrival numbers."""

    def __init__(self, max_waiting: int = 1000) -> None:
        self.order = Order()
        self.lanes: Lanes[Id] = Lanes()
        self.max_waiting = max_waiting
        self.refused: list[Id] = []

    def acquire(self, owner: int, serial: int, counters: Sequence[Counter], priority: int) -> list[Id]:
        ticket = (owner, serial)
        order = self.order.next(priority, 0.0)
        admitted = self.lanes.acquire(ticket, counters, order, self.max_waiting)
        if ticket not in self.lanes:
            self.refused.append(ticket)
        return admitted

    def release(self, owner: int, serial: int) -> list[Id]:
        return self.lanes.release((owner, serial))

    def idle(self) -> bool:
        return self.lanes.idle


class ScriptOwner:
    """
    One process's side of C{gate.lua}, spoken through a blocking client.

    @ivar told: serials that other owners' batches have admitted, as they were published.
    @ivar known: what its batches say that it knows; taken from each reply.
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
        arguments = [msgpack.encode(batch), *([b"1"] if unfamiliar else [])]
        status, *rest = msgpack.decode(self.client.eval(SCRIPT, 1, self.key, *arguments))
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
            serials += msgpack.decode(message["data"])
        return serials

    def close(self) -> None:
        self.channel.close()


def needs(counters: Sequence[Counter], reclaim: int = 0) -> list[Any]:
    """What a ticket needs, as the script reads it; the reclaim delay in ms."""
    words: list[Any] = [reclaim]
    for counter in sorted(counters, key=lambda counter: counter.key):
        most = -1 if counter.max_waiting is None else counter.max_waiting
        words += (counter.key, counter.max_concurrent, counter.weight, most)
    return words


def acquire_operation(
    serial: int, counters: Sequence[Counter], priority: int = 50, reclaim: int = 0
) -> list[Any]:
    return ["acquire", serial, priority, *needs(counters, reclaim)]


class ScriptEngine:
    """C{gate.lua} over a real server, with as many owners as are asked for."""

    def __init__(self, client: Any, namespace: str, owners: int) -> None:
        self.client = client
        self.namespace = namespace
        self.owners = [ScriptOwner(client, namespace, f"owner{n}") for n in range(owners)]
        self.refused: list[Id] = []
        for owner in self.owners:
            owner.batch(announced=[])

    def acquire(self, owner: int, serial: int, counters: Sequence[Counter], priority: int) -> list[Id]:
        return self._run(owner, acquire_operation(serial, counters, priority))

    def release(self, owner: int, serial: int) -> list[Id]:
        return self._run(owner, ["release", serial])

    def _run(self, owner: int, operation: list[Any]) -> list[Id]:
        reply = self.owners[owner].batch(operation)
        self.refused += [(owner, serial) for serial in reply.full]
        told = [(n, serial) for n, other in enumerate(self.owners) for serial in other.published()]
        return [(owner, serial) for serial in reply.admitted] + told

    def keys(self) -> set[str]:
        """What of this namespace is in the server, without its common prefix."""
        prefix = "{" + self.namespace + "}"
        return {
            key.decode().removeprefix(prefix) for key in self.client.keys(prefix.replace("{", "[{]") + "*")
        }

    def idle(self) -> bool:
        return self.keys() <= {":owners", ":gate"}

    def close(self) -> None:
        for owner in self.owners:
            owner.batch(["quit"])
            owner.close()
