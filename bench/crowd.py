"""
A namespace with many owners, lanes and tickets that wait, over the script itself: what one more of them costs Redis.

The owners are the pure part of a gate, C{Places}, each with the batches that it would send; a client that blocks sends
them. So it is Redis alone that is measured, one batch after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from thrtwisted.gate import Counter, IAdmission, Ticket
from thrtwisted.gate.order import Order
from thrtwisted.gate.places import LONGEST_BATCH, Message, Places
from thrtwisted.gate.script import SCRIPT

#: Of the first counter of each ticket. All of them need that one.
SLOTS = 10

#: Lease and grace (ms): nobody is to be taken for dead here.
FOREVER = 3_600_000


class Owner:
    """
    One process's side of the gate.

    @param client: a client of the package C{valkey}.
    """

    def __init__(self, client: Any, namespace: str, name: str) -> None:
        self.name = name
        self._client = client
        self._key = "{" + namespace + "}"
        self._digest = client.script_load(SCRIPT)
        order = Order(0.0)
        self.places = Places(name, (FOREVER, FOREVER, 10_000_000, 0), order)

    def submit(self, ticket: Ticket) -> None:
        """A ticket comes; Redis hears of it with the next batch."""
        told: Deferred[IAdmission] = Deferred()
        self.places.add(ticket, 0.0, told)

    def release(self, serial: int) -> None:
        """A ticket is given up; Redis hears of it with the next batch."""
        self.places.remove(serial)

    def admit(self, serials: list[int]) -> None:
        """Redis says that tickets are admitted."""
        for serial in serials:
            place = self.places.get(serial)
            assert place is not None
            self.places.admit(place)

    def send(self) -> list[int]:
        """Send one batch; who of this owner was admitted in it."""
        reply = self.places.read(self._run(self.places.batch()))
        assert reply is not None
        self.admit(reply.admitted)
        return reply.admitted

    def send_all(self, sent: Callable[[], object] = lambda: None) -> None:
        """
        Send batches until nothing is left to send.

        @param sent: called after each.
        """
        self.send()
        sent()
        while self.places.has_news:
            self.send()
            sent()

    def quit(self) -> None:
        """Say the last word."""
        self._run(self.places.last_word())

    def _run(self, batch: bytes) -> bytes:
        reply: bytes = self._client.evalsha(self._digest, 1, self._key, batch)
        return reply


class Crowd:
    """
    Owners whose tickets wait in as many lanes as are asked for: each ticket needs the application, a user and a path.

    @param weighted: whether the tickets take one slot or several of the application, and bound the queue of their user.
    """

    def __init__(
        self,
        client: Any,
        namespace: str,
        *,
        waiting: int,
        owners: int = 50,
        lanes: int = 2000,
        weighted: bool = False,
    ) -> None:
        self._client = client
        self._random = Random(1)
        self._weighted = weighted
        self._users = max(1, lanes // 5)
        self._lanes = lanes
        self._submitted = 0
        self._tickets = cache(self._make_ticket)
        self.owners = [Owner(client, namespace, f"{number:016x}") for number in range(owners)]
        self._held: list[tuple[Owner, int]] = []
        self._messages = client.pubsub(ignore_subscribe_messages=True)
        self._key = "{" + namespace + "}"
        self._channel = self._key + ":owner:"
        self._messages.subscribe(*(self._channel + owner.name for owner in self.owners))
        for _ in self.owners:
            self._messages.get_message(timeout=5)
        self._add(waiting + SLOTS)

    def _add(self, count: int) -> None:
        """Submit tickets, of all owners and in all lanes, many in a batch."""
        turns = cycle(self.owners)
        while count:
            owner = next(turns)
            part = min(count, max(1, min(LONGEST_BATCH, count // len(self.owners))))
            for _ in range(part):
                owner.submit(self._ticket())
            self._held += [(owner, serial) for serial in owner.send()]
            count -= part

    def _ticket(self) -> Ticket:
        # Each lane once, then any of them.
        number = self._submitted if self._submitted < self._lanes else self._random.randrange(self._lanes)
        self._submitted += 1
        return self._tickets(number, self._random.choice((1, 50, 50, 99)))

    def _make_ticket(self, number: int, priority: int) -> Ticket:
        """A ticket of a lane."""
        weight = 1 + number % 3 if self._weighted else 1
        bound = 1_000_000 if self._weighted else None
        counters = (
            Counter("app", SLOTS, weight),
            Counter(f"user={number % self._users}", 5, max_waiting=bound),
            Counter(f"path=/{number // self._users}", 50),
        )
        return Ticket(counters, priority)

    def exchange(self) -> None:
        """One that holds slots ends, those are admitted who come next, and one more comes and waits: two batches."""
        owner, serial = self._held.pop(0)
        owner.release(serial)
        self._held += [(owner, admitted) for admitted in owner.send()]
        self._listen()
        owner = self._random.choice(self.owners)
        owner.submit(self._ticket())
        self._held += [(owner, admitted) for admitted in owner.send()]
        self._listen()

    def _listen(self) -> None:
        """Hear what a batch has admitted of others. A server may send its answer before what the batch published."""
        self._client.ping()
        while message := self._messages.get_message(timeout=0 if self._held else 5):
            name = message["channel"].decode().removeprefix(self._channel)
            owner = next(owner for owner in self.owners if owner.name == name)
            admitted = Message.read(message["data"]).admitted
            owner.admit(admitted)
            self._held += [(owner, serial) for serial in admitted]

    @property
    def waiting(self) -> int:
        """How many tickets wait."""
        return sum(len(owner.places) - owner.places.held for owner in self.owners)

    def close(self) -> None:
        """Leave nothing in Redis."""
        self._messages.close()
        self._client.unlink(*self._client.scan_iter("[" + self._key[0] + "]" + self._key[1:] + ":*", 10_000))


def script_time(client: Any) -> int:
    """Microseconds that the server has spent in scripts so far."""
    return int(client.info("commandstats").get("cmdstat_evalsha", {"usec": 0})["usec"])


def memory(client: Any) -> int:
    """Bytes that the server has in use."""
    client.memory_purge()
    return int(client.info("memory")["used_memory"])


def costs(client: Any, crowds: list[Crowd], exchanges: int, rounds: int) -> Iterator[list[float]]:
    """
    What one exchange of each crowd costs Redis (microseconds in the script), in rounds: each of them asks all in turn,
    so that whatever else the machine does concerns all alike.
    """
    for _ in range(rounds):
        found = []
        for crowd in crowds:
            before = script_time(client)
            for _ in range(exchanges):
                crowd.exchange()
            found.append((script_time(client) - before) / exchanges)
        yield found
