"""
What C{gate.lua} leaves in Redis is true after every batch, whatever the batches are and in whatever order.

Owners acquire, release, announce what is so and what is not, repeat batches, fall silent, come back and say goodbye;
limits change with every ticket; the server loses its memory. After each step the keys themselves are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from msgspec import msgpack
from twisted.trial.unittest import SynchronousTestCase

from tests import valkey
from tests.gate.model import START, ScriptOwner, acquire_operation
from tests.machines import run_state_machine_as_test
from thrtwisted.gate import UNLIMITED, Counter, Rate
from thrtwisted.gate.order import ARRIVALS
from thrtwisted.gate.places import Reply

OWNERS = 3
#: Some are parts of others, or look like what the script puts between names.
KEYS = ("a", "aa", "a=a", "b:a", "=", "b:a:1")

owners = st.integers(0, OWNERS - 1)
serials = st.integers(1, 12)
rates = st.builds(
    Rate,
    st.sampled_from([1000, 20_000, 700_000, 3_600_000_000]),
    st.sampled_from([1, 1, 2, 4]),
    st.sampled_from(["wait", "wait", "reject", "demote"]),
    st.sampled_from([40, 90]),
)
needs = st.lists(
    st.builds(
        Counter,
        st.sampled_from(KEYS),
        st.sampled_from([0, 1, 2, 3, 4, UNLIMITED]),
        st.sampled_from([1, 1, 2, 5]),
        rate=st.one_of(st.none(), rates),
        shown=st.booleans(),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda c: c.key,
)
priorities = st.sampled_from([1, 50, 50, 99])
acquires = st.builds(
    acquire_operation,
    serials,
    needs,
    priorities,
    fair=st.sampled_from([None, None, "x", "x", "y=1:2"]),
    queue=st.sampled_from(["", "", "", "app", "b:a"]),
)
releases = st.builds(lambda serial: ["release", serial], serials)
serves = st.builds(
    lambda places, queues: ["serve", places, *queues],
    st.integers(0, 3),
    st.lists(st.sampled_from(["app", "b:a", "a"]), unique=True),
)
operations = st.lists(st.one_of(acquires, acquires, releases, serves), max_size=6)


#: All keys of a kind, in one reply, for it is asked for often: what type each is, and what it holds.
LOOK = """
local all = {}
for i, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local type, what = redis.call('TYPE', key).ok
  if type == 'hash' then
    what = redis.call('HGETALL', key)
  elseif type == 'zset' then
    what = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif type == 'string' then
    what = redis.call('GET', key)
  end
  all[i] = { key, type, what }
end
return cmsgpack.pack(all)
"""


class Contents:
    """What a namespace holds in Redis, read as the head of C{gate.lua} describes it."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.hashes: dict[str, dict[str, str]] = {}
        self.sets: dict[str, dict[str, float]] = {}
        self.strings: dict[str, str] = {}
        for key, kind, *what in msgpack.decode(client.eval(LOOK, 0, "[{]" + prefix[1:] + ":*")):
            name = key.removeprefix(prefix + ":")
            if kind == "hash":
                self.hashes[name] = dict(zip(what[0][::2], what[0][1::2], strict=True))
            elif kind == "zset":
                self.sets[name] = dict(zip(what[0][::2], map(float, what[0][1::2]), strict=True))
            elif kind == "string":
                self.strings[name] = what[0]

    def numbers(self, name: str) -> dict[str, int]:
        texts = ("epoch", "waker")
        return {field: int(value) for field, value in self.hashes.get(name, {}).items() if field not in texts}

    def places(self) -> dict[str, str]:
        """The tickets of all owners, with their lane and whether they hold its slots."""
        return {ticket: re.split("[\2\3]", place)[0] for ticket, place in self._places()}

    def at_workers(self) -> dict[str, str]:
        """The worker that a ticket has a place at."""
        return {ticket: place.partition("\3")[2] for ticket, place in self._places() if "\3" in place}

    def orphans(self) -> dict[str, str]:
        """What workers are at work on though its front is dead, with its lane."""
        return {
            ticket: state[1:]
            for name, states in self.hashes.items()
            if name.startswith("at:")
            for ticket, state in states.items()
            if state[:1] == "o"
        }

    def takes_turns(self) -> set[str]:
        """The tickets that take turns with others."""
        return {ticket for ticket, place in self._places() if "\2" in place}

    def _places(self) -> list[tuple[str, str]]:
        return [
            (f"{name.removeprefix('tickets:')}:{serial}", place)
            for name, places in self.hashes.items()
            if name.startswith("tickets:")
            for serial, place in places.items()
        ]

    def rates(self) -> dict[str, tuple[int, int, int]]:
        """The rates of counters: interval, burst, and what becomes of a ticket that is over it."""
        words = {counter: said.split() for counter, said in self.hashes.get("rates", {}).items()}
        return {counter: (int(said[0]), int(said[1]), int(said[2])) for counter, said in words.items()}

    def ready(self, counter: str, weight: int) -> int:
        """The time from which a ticket may go by a counter's rate, if it is one that tickets wait for (us)."""
        interval, burst, over = self.rates().get(counter, (0, 0, 0))
        if not interval or over:
            return 0
        tat = int(self.strings.get(f"rate:{counter}", "0 1").split()[0])
        return tat - (max(burst, weight) - weight) * interval

    def check(self, now: int | None = None, disconnected: Container[str] = ()) -> None:
        """
        @param now: the time of the last batch (us), if that may have been refused in a time earlier than before.
        @param disconnected: workers that no messages reach, or that have not served since they do.
        @raise AssertionError: something is not as it should be.
        """
        places, gate = self.places(), self.numbers("gate")
        held = {ticket: place[1:] for ticket, place in places.items() if place[0] == "+"}
        waiting = {ticket: place[1:] for ticket, place in places.items() if place[0] == "-"}
        lanes, orphans = self.hashes.get("lanes", {}), self.orphans()
        used, slots, wanted = self.numbers("used"), self.numbers("slots"), self.numbers("waiting")

        # Tickets: each is in the one lane that its place says, and counted.
        in_lanes = {
            ticket: name.removeprefix("lane:")
            for name, tickets in self.sets.items()
            if name.startswith("lane:")
            for ticket in tickets
        }
        assert in_lanes == waiting
        assert gate.get("waiting", 0) == len(waiting)
        for owner in {ticket.split(":")[0] for ticket in places}:
            assert owner in self.sets.get("owners", {}) or owner in self.sets.get("dead", {})
            assert gate.get(f"held:{owner}", 0) == sum(ticket.startswith(f"{owner}:") for ticket in held)
        for owner in self.sets.get("dead", {}):
            own = [ticket for ticket in held if ticket.startswith(f"{owner}:")]
            assert own or "o" in "".join(state[:1] for state in self.hashes[f"at:{owner}"].values())
            assert not any(ticket.startswith(f"{owner}:") for ticket in waiting)

        # Counters: the slots taken are those of the tickets, and nothing is known of what nobody needs.
        taken: dict[str, int] = {}
        for lane in (*held.values(), *orphans.values()):
            for counter, weight in limits(lane).items():
                taken[counter] = taken.get(counter, 0) + weight
        assert {c: n for c, n in used.items() if n} == taken
        assert gate.get("taken", 0) == sum(taken.values())
        assert wanted == _count(c for lane in waiting.values() for c in needed(lane))
        assert slots.keys() == {c for place in places.values() for c in limits(place[1:])} | {
            c for lane in orphans.values() for c in limits(lane)
        }
        assert used.keys() <= slots.keys()
        assert self.hashes.get("rates", {}).keys() <= slots.keys()

        # Workers: each ticket with a queue has its place where it says, and those with free places are to be found.
        at_workers = {
            ticket: name.removeprefix("at:")
            for name, tickets in self.hashes.items()
            if name.startswith("at:")
            for ticket in tickets
        }
        own_places = {ticket: worker for ticket, worker in at_workers.items() if ticket not in orphans}
        assert own_places == self.at_workers()
        assert own_places.keys() <= {ticket for ticket, lane in held.items() if "\4" in lane}
        serving: dict[str, set[str]] = {}
        for worker, words in self.hashes.get("workers", {}).items():
            assert worker in self.sets["owners"]
            concurrency, *queues = words.split()
            for queue in queues:
                if list(at_workers.values()).count(worker) < int(concurrency):
                    serving.setdefault(f"serving:{queue}", set()).add(worker)
        assert {name: set(of) for name, of in self.sets.items() if name.startswith("serving:")} == serving

        # Turns: they are known where somebody waits, and there only.
        turns = {
            name.removeprefix("turns:"): of for name, of in self.sets.items() if name.startswith("turns:")
        }
        assert turns.keys() <= wanted.keys()
        assert waiting or "base" not in gate
        for ticket in self.takes_turns():
            lane = waiting[ticket]
            priority = int(self.sets[f"lane:{lane}"][ticket]) // ARRIVALS
            assert all(str(priority) in turns[counter] for counter in needed(lane))

        # Lanes: each has tickets, and is parked by its head at one of its counters.
        assert lanes.keys() == set(waiting.values())
        parked = {
            (name.removeprefix("parked:"), lane): head
            for name, heads in self.sets.items()
            if name.startswith("parked:")
            for lane, head in heads.items()
        }
        assert parked == {(at, lane): min(self.sets[f"lane:{lane}"].values()) for lane, at in lanes.items()}
        assert all(at in needed(lane) for lane, at in lanes.items())
        if "grace" in gate:
            assert "waker" not in self.hashes["gate"]
            return
        # But for grace, the best lane parked at a counter does not fit there. Where it lacks time alone, that is due.
        due, last = {}, 1000 * gate.get("last", 0)
        now = last if now is None else min(now, last)
        for at in set(lanes.values()):
            if at[0] == "\4":
                assert all(worker in disconnected for worker in self.sets.get(f"serving:{at[1:]}", ()))
                continue
            _, best = min((head, lane) for (where, lane), head in parked.items() if where == at)
            weight = needed(best)[at]
            if used.get(at, 0) + weight <= slots[at] or used.get(at, 0) == 0 < slots[at]:
                due[at] = self.ready(at, weight)
                assert due[at] > now, (best, at)
        assert self.sets.get("due", {}) == due
        # Somebody with a lease is to send a batch by then.
        if due and self.sets.get("owners"):
            assert self.hashes["gate"]["waker"] in self.sets["owners"]
            assert gate["wake"] <= min(due.values())
        elif not due:
            assert "waker" not in self.hashes.get("gate", {})


def needed(lane: str) -> dict[str, int]:
    """What the tickets of a lane take of each counter."""
    words = (word.partition("\1") for word in lane.split(" "))
    return {counter: int(weight or 1) for counter, _, weight in words if counter}


def limits(lane: str) -> dict[str, int]:
    """Of these, what has slots; not what stands for a queue."""
    return {counter: weight for counter, weight in needed(lane).items() if counter[0] != "\4"}


def _count(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


class ContentsMachine(RuleBasedStateMachine):
    """Batches of all kinds, from several owners."""

    client: ClassVar[Any] = None

    @initialize()
    def start(self) -> None:
        namespace = valkey.namespace()
        self.owners = [ScriptOwner(self.client, namespace, f"owner{n}") for n in range(OWNERS)]
        self.prefix = self.owners[0].key
        self.orders: list[dict[int, int]] = [{} for _ in range(OWNERS)]
        self.now = self.asked = START
        self.pass_time(0)

    def batch(self, owner: int, *args: Any, announced: list[Any] | None = None, **kwargs: Any) -> None:
        self.asked = self.now
        self.owners[owner].max_waiting = 3
        reply = self.owners[owner].batch(*args, announced=announced, **kwargs)
        if isinstance(reply, Reply):
            contents = Contents(self.client, self.prefix)
            mine = contents.hashes.get(f"tickets:{self.owners[owner].name}", {})
            # The reply says who is to wake others exactly if it is this owner.
            waker = contents.hashes.get("gate", {}).get("waker")
            assert (reply.wake > 0) == (waker == self.owners[owner].name)
            assert not reply.wake or reply.wake == contents.numbers("gate")["wake"] - self.now
            # What is told is so, unless a later operation of the batch has changed it, the last word too; or an
            # announcement, before which the dead are buried and with their slots goes who is due.
            released = {operation[1] for operation in args if operation[0] == "release"}
            if ["quit"] in args:
                released |= set(reply.admitted)
            if announced is not None:
                released |= set(reply.admitted) - {ticket[0] for ticket in announced}
            assert all(mine[str(serial)][0] == "+" for serial in reply.admitted if serial not in released)
            assert reply.held == sum(place[0] == "+" for place in mine.values())
            assert reply.waiting == contents.numbers("gate").get("waiting", 0)
            orders = dict(zip(reply.queued[::2], reply.queued[1::2], strict=True))
            self.orders[owner].update(orders)
            for serial, order in orders.items():
                place = mine.get(str(serial), "+").partition("\2")[0]
                if place[0] == "-":
                    lane = contents.sets[f"lane:{place[1:]}"]
                    assert serial in released or lane[f"{self.owners[owner].name}:{serial}"] == order

    @rule(ms=st.sampled_from([1, 19, 20, 700, 5000, 3_600_000]))
    def pass_time(self, ms: int) -> None:
        """The time in Redis, in whole ms."""
        self.now += 1000 * ms
        for owner in self.owners:
            owner.now = self.now

    @rule(owner=owners, ms=st.sampled_from([20, 5000, 3_600_000]))
    def set_back(self, owner: int, ms: int) -> None:
        """The clock of Redis is set back; nobody waits for the difference."""
        self.pass_time(-ms)
        self.batch(owner)
        contents = Contents(self.client, self.prefix)
        if "grace" not in contents.hashes.get("gate", {}):
            longest = max(
                (max(burst, 5) * interval for interval, burst, _ in contents.rates().values()), default=0
            )
            assert all(due <= self.now + longest for due in contents.sets.get("due", {}).values())

    @rule(owner=owners, operations=operations)
    def operate(self, owner: int, operations: list[Any]) -> None:
        self.batch(owner, *operations)

    @rule(owner=owners, operations=operations)
    def operate_twice(self, owner: int, operations: list[Any]) -> None:
        """A batch that arrives again is stale; the same operations in another batch do no harm."""
        self.batch(owner, *operations)
        before = Contents(self.client, self.prefix)
        self.owners[owner].batch(*operations, sequence=self.owners[owner].sequence)
        after = Contents(self.client, self.prefix)
        assert before.hashes == after.hashes or self.owners[owner].name not in before.sets.get("owners", {})
        self.batch(owner, *operations)

    @rule(
        owner=owners,
        tickets=st.lists(st.tuples(acquires, st.booleans(), st.booleans()), max_size=8),
        operations=operations,
    )
    def announce(self, owner: int, tickets: list[tuple[Any, bool, bool]], operations: list[Any]) -> None:
        """What is announced may be new to Redis, or other than it thinks; what is not announced goes."""
        name = self.owners[owner].name
        announced = {
            serial: [
                serial,
                int(admitted),
                self.orders[owner].get(serial, 0) if known else 0,
                priority,
                "",
                *rest,
            ]
            for (_, serial, priority, *rest), admitted, known in tickets
        }
        self.batch(owner, *operations, announced=list(announced.values()))
        contents = Contents(self.client, self.prefix)
        mine = {int(serial): place for serial, place in contents.hashes.get(f"tickets:{name}", {}).items()}
        touched = {operation[1] for operation in operations}
        assert mine.keys() <= announced.keys() | touched
        for serial, (_, admitted, *_) in announced.items():
            assert not admitted or serial in touched or mine[serial][0] == "+"

    @rule(dead=st.sets(owners, min_size=1), owner=owners)
    def reap(self, dead: set[int], owner: int) -> None:
        """Leases run out, and somebody's batch finds it. One's own is renewed, and in grace everybody's is."""
        names = [self.owners[n].name for n in dead]
        self.client.zadd(f"{self.prefix}:owners", dict.fromkeys(names, 1), xx=True)
        self.batch(owner)
        contents = Contents(self.client, self.prefix)
        if "grace" not in contents.hashes.get("gate", {}):
            reaped = {f"tickets:{name}" for name in names if name != self.owners[owner].name}
            assert not reaped & contents.hashes.keys()

    @rule(owner=owners)
    def quit(self, owner: int) -> None:
        self.batch(owner, ["quit"])

    @rule()
    def forget(self) -> None:
        """The server loses its memory."""
        keys = self.client.keys("[{]" + self.prefix[1:] + ":*")
        if keys:
            self.client.delete(*keys)

    @invariant()
    def true(self) -> None:
        if hasattr(self, "owners"):
            Contents(self.client, self.prefix).check(self.asked)

    def teardown(self) -> None:
        if hasattr(self, "owners"):
            for owner in self.owners:
                owner.batch(["quit"], announced=[])
                owner.close()
            contents = Contents(self.client, self.prefix)
            assert not contents.hashes and not contents.sets, (contents.hashes, contents.sets)
            assert all(name.startswith("rate:") for name in contents.strings)


class InvariantTests(SynchronousTestCase):
    def test_contents(self) -> None:
        """A lane parked at a counter implies that it is full; nothing is counted wrongly, and nothing stays."""
        with valkey.client() as ContentsMachine.client:
            run_state_machine_as_test(
                ContentsMachine,
                settings=settings(
                    max_examples=60,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
