"""
With weights no brute force says whom to admit, for that is up to where lanes are parked. So what must be true of
L{Lanes} is looked at after every step; and the script, which is the same algorithm, is held against L{Lanes}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from twisted.trial.unittest import SynchronousTestCase

from tests import valkey
from tests.gate.model import START, BruteForce, Engine, Id, LanesEngine, ScriptEngine
from tests.gate.test_model import OWNERS, SETTINGS
from tests.machines import run_state_machine_as_test
from thrtwisted.gate import UNLIMITED, Counter, Rate

MAX_WAITING = 8

#: Few, so that many tickets meet at one, and many lanes have several tickets.
KEYS = ("a", "b", "c=1")

#: A counter's key, the weight there, and how many may wait for it.
Need = tuple[str, int, int | None]

needs = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(1, 3), st.sampled_from([None] * 8 + [0, 2])),
    max_size=3,
    unique_by=lambda need: need[0],
)
#: Some that get in each other's way.
common: list[list[Need]] = [
    [("a", 1, None)],
    [("a", 3, None)],
    [("a", 1, None), ("b", 1, None)],
    [("a", 1, None), ("b", 2, None)],
    [("b", 1, None)],
    [("b", 1, None), ("c=1", 2, None)],
]
priorities = st.sampled_from([1, 50, 99])
keys = st.sampled_from([None, None, "x", "y"])

#: None most of the time.
rates = st.sampled_from(
    [
        None,
        None,
        None,
        Rate(100_000),
        Rate(250_000, 2),
        Rate(1_000, 4),
        Rate(100_000, 2, "reject"),
        Rate(250_000, 1, "demote", 60),
    ]
)


def lane(counters: Sequence[Counter]) -> tuple[tuple[str, int], ...]:
    """What tickets of one lane have in common."""
    return tuple(sorted((counter.key, counter.weight) for counter in counters))


class WeightsMachine(RuleBasedStateMachine):
    """
    Acquires and releases at random, while the limits go up and down, at L{Lanes} and, in a subclass, at another engine
    that has to do precisely the same.

    @ivar now: the time (us).
    @ivar limits: what newcomers say that each counter has: slots, and a rate.
    @ivar meters: what is used up of the rates.
    @ivar slots: what the last of them said, of the counters in use.
    @ivar holding: the admitted.
    @ivar waiting: those who wait, with their rank.
    """

    engine: Engine | None = None

    def make_engine(self) -> Engine | None:
        return None

    @initialize()
    def start(self) -> None:
        self.engine = self.make_engine()
        self.model = LanesEngine(MAX_WAITING)
        self.lanes = self.model.lanes
        self.serial = 0
        self.now = START
        self.limits: dict[str, tuple[int, Rate | None]] = dict.fromkeys(KEYS, (3, None))
        self.meters = BruteForce()
        self.slots: dict[str, int] = {}
        self.holding: dict[Id, Sequence[Counter]] = {}
        self.waiting: dict[Id, tuple[tuple[int, int], Sequence[Counter]]] = {}

    # Steps ---------------------------------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), slots=st.sampled_from([0, 1, 2, 3, 3, 4, 6, UNLIMITED]), rate=rates)
    def change_limit(self, key: str, slots: int, rate: Rate | None) -> None:
        """It takes effect with the next ticket."""
        self.limits[key] = (slots, rate)

    @rule(later=st.sampled_from([1, 1_000, 50_000, 100_000, 250_000, 2_000_000]))
    def pass_time(self, later: int) -> None:
        self.wake(self.now + later)

    @precondition(lambda self: self.lanes.next_due is not None)
    @rule(late=st.sampled_from([0, 0, 1, 120_000]))
    def come_due(self, late: int) -> None:
        assert self.lanes.next_due is not None
        self.wake(self.lanes.next_due + late)

    def wake(self, now: int) -> None:
        self.now = now
        heads = self.heads()
        admitted = self.model.wake(now)
        if self.engine:
            self.same(self.engine.wake(now), admitted)
        self.admit(admitted, heads)
        self.check()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), owner=st.integers(0, OWNERS - 1), priority=priorities, fair=keys)
    def acquire_alike(self, data: st.DataObject, owner: int, priority: int, fair: str | None) -> None:
        """One more for a lane."""
        _, counters = self.waiting[data.draw(st.sampled_from(sorted(self.waiting)))]
        self.acquire(owner, [(c.key, c.weight, c.max_waiting) for c in counters], priority, fair)

    @rule(
        owner=st.integers(0, OWNERS - 1),
        needs=st.sampled_from(common) | needs,
        priority=priorities,
        fair=keys,
    )
    def acquire(self, owner: int, needs: list[Need], priority: int, fair: str | None) -> None:
        self.serial += 1
        ticket = (owner, self.serial)
        counters = [
            Counter(key, self.limits[key][0], weight, bound, self.limits[key][1])
            for key, weight, bound in needs
        ]
        heads = self.heads()
        admitted = self.model.acquire(*ticket, counters, priority, now=self.now, fair=fair)
        if self.engine:
            self.same(self.engine.acquire(*ticket, counters, priority, now=self.now, fair=fair), admitted)
            assert self.engine.refused == self.model.refused
            assert self.engine.rejected == self.model.rejected
            assert self.engine.demoted == self.model.demoted
        for counter in counters:
            self.slots[counter.key] = counter.max_concurrent
            self.meters.counters[counter.key] = counter
            self.meters.bound(counter.key, self.now)
        # Whom a raised limit lets through goes before the newcomer is looked at.
        self.admit([other for other in admitted if other != ticket], heads)
        rank = (self.model.order, self.serial)
        late = [c for c in counters if c.rate and c.rate.over != "wait" and not self.is_ready(c)]
        is_rejected = any(c.rate and c.rate.over == "reject" for c in late)
        assert is_rejected == (ticket in dict(self.model.rejected))
        if ticket in admitted:
            assert admitted[-1] == ticket
            self.waiting[ticket] = (rank, counters)
            self.admit([ticket], heads, waited=False)
        elif ticket in self.model.refused:
            assert self.crowded(counters)
            assert any(self.blocks(counter, rank) for counter in counters)
        elif not is_rejected:
            assert not self.crowded(counters)
            self.waiting[ticket] = (rank, counters)
        if ticket in self.waiting or ticket in self.holding:
            for c in counters:
                if c.rate and c.rate.over != "wait" and c not in late:
                    self.meters.charge(c.key, c.weight, self.now, waited=False)
        self.check()

    @precondition(lambda self: self.holding or self.waiting)
    @rule(data=st.data())
    def release_or_withdraw(self, data: st.DataObject) -> None:
        self.give_up(data.draw(st.sampled_from(sorted([*self.holding, *self.waiting]))))

    def give_up(self, ticket: Id) -> None:
        self.holding.pop(ticket, None)
        self.waiting.pop(ticket, None)
        heads = self.heads()
        admitted = self.model.release(*ticket, now=self.now)
        if self.engine:
            self.same(self.engine.release(*ticket, now=self.now), admitted)
        self.admit(admitted, heads)
        self.check()

    def same(self, got: list[Id], wanted: list[Id]) -> None:
        """The same were admitted in the same order. What the script admits of several owners is seen by each alone."""
        for owner in range(OWNERS):
            assert [t for t in got if t[0] == owner] == [t for t in wanted if t[0] == owner], (got, wanted)

    # What must be true ---------------------------------------------------------------------------------------------

    def used(self, key: str) -> int:
        return sum(c.weight for counters in self.holding.values() for c in counters if c.key == key)

    def holders(self, key: str) -> int:
        return sum(c.key == key for counters in self.holding.values() for c in counters)

    def waiting_for(self, key: str) -> int:
        return sum(c.key == key for _, counters in self.waiting.values() for c in counters)

    def crowded(self, counters: Sequence[Counter]) -> bool:
        return len(self.waiting) >= MAX_WAITING or any(
            c.max_waiting is not None and self.waiting_for(c.key) >= c.max_waiting for c in counters
        )

    def heads(self) -> dict[Id, str]:
        """Who is the head of a lane, and at which counter that is parked."""
        return {lane.tickets.peekitem(0)[1]: lane.parked_at.key for lane in self.lanes._lanes.values()}

    def has_slots(self, counter: Counter) -> bool:
        used, slots = self.used(counter.key), self.slots[counter.key]
        return used + counter.weight <= slots or (used == 0 and slots > 0)

    def is_ready(self, counter: Counter) -> bool:
        return self.meters.ready(counter.key, counter.weight) <= self.now

    def regulates(self, key: str) -> bool:
        """Whether tickets wait for the rate of a counter."""
        rate = self.meters.counters[key].rate
        return rate is not None and rate.over == "wait"

    def fits(self, counter: Counter) -> bool:
        return self.has_slots(counter) and (not self.regulates(counter.key) or self.is_ready(counter))

    def blocks(self, counter: Counter, rank: tuple[int, int]) -> bool:
        parked = [self.waiting[head][0] for head, key in self.heads().items() if key == counter.key]
        return not self.fits(counter) or any(other < rank for other in parked)

    def admit(self, admitted: list[Id], heads: dict[Id, str], waited: bool = True) -> None:
        """
        Note who was admitted in a step.

        @param heads: where the lanes were parked before the step.
        @param waited: whether they have waited.
        """
        ranks = [self.waiting[ticket][0] for ticket in admitted]
        assert ranks == sorted(ranks)
        stayed = heads.items() & self.heads().items()
        for ticket in admitted:
            rank, counters = self.waiting.pop(ticket)
            self.holding[ticket] = counters
            for counter in counters:
                if self.regulates(counter.key):
                    assert self.is_ready(counter)
                    self.meters.charge(counter.key, counter.weight, self.now, waited)
            # In order within the lane.
            assert all(
                rank < other for other, needs in self.waiting.values() if lane(needs) == lane(counters)
            )
            # Nobody takes what is kept for a better one.
            for head, key in stayed:
                kept = head in self.waiting and key in {counter.key for counter in counters}
                assert not kept or rank < self.waiting[head][0], (ticket, head, key)
        # Never more than there are, but for one that is heavier than all of them.
        for key in {counter.key for ticket in admitted for counter in self.holding[ticket]}:
            assert self.used(key) <= self.slots[key] or (self.slots[key] and self.holders(key) == 1), key

    def check(self) -> None:
        """What L{Lanes} has in memory is what it should be."""
        in_use = {c.key for counters in self.holding.values() for c in counters}
        in_use |= {c.key for _, counters in self.waiting.values() for c in counters}
        self.slots = {key: slots for key, slots in self.slots.items() if key in in_use}
        assert {c.key: (c.slots, c.used, c.waiting) for c in self.lanes._counters.values()} == {
            key: (self.slots[key], self.used(key), self.lanes.waiting_for(key)) for key in in_use
        }
        assert all(self.lanes.waiting_for(key) == self.waiting_for(key) for key in KEYS)
        assert self.lanes.waiting == len(self.waiting)
        assert all(ticket in self.lanes for ticket in [*self.holding, *self.waiting])

        # Each waits in its lane; each lane is parked by its head at one of its counters.
        lanes: dict[tuple[tuple[str, int], ...], list[tuple[tuple[int, int], Id]]] = {}
        for ticket, (rank, counters) in self.waiting.items():
            lanes.setdefault(lane(counters), []).append((rank, ticket))
        assert {key: list(it.tickets.values()) for key, it in self.lanes._lanes.items()} == {
            key: [ticket for _, ticket in sorted(tickets)] for key, tickets in lanes.items()
        }
        parked = {id(it): c for c in self.lanes._counters.values() for it in c.parked.values()}
        assert sum(len(c.parked) for c in self.lanes._counters.values()) == len(parked) == len(lanes)
        for it in self.lanes._lanes.values():
            assert parked[id(it)] is it.parked_at
            assert it.parked_at.parked[it.head] is it
            assert it.parked_at in [counter for counter, _ in it.needs]

        # The best that is parked at a counter does not fit there, and if it lacks only time, the counter is due then.
        due = {}
        for counter in self.lanes._counters.values():
            if counter.parked:
                head = counter.parked.peekitem(0)[1].tickets.peekitem(0)[1]
                here = next(c for c in self.waiting[head][1] if c.key == counter.key)
                assert not self.fits(here), head
                if self.has_slots(here):
                    due[counter.key] = self.meters.ready(here.key, here.weight)
        assert {key: time for time, key in self.lanes._due} == due
        # Nobody waits whom no counter blocks.
        for rank, counters in self.waiting.values():
            assert any(self.blocks(counter, rank) for counter in counters)

        if not self.holding and not self.waiting:
            assert self.lanes.idle
            assert not self.engine or self.engine.idle()

    def teardown(self) -> None:
        """As long as somebody holds a slot, a release helps, or time; who waits at the end waits for a limit of 0."""
        if not hasattr(self, "model"):
            return
        while self.holding or self.lanes.next_due is not None:
            if self.holding:
                self.give_up(min(self.holding))
            else:
                self.come_due(0)
        for _, counters in self.waiting.values():
            assert any(not self.slots[counter.key] for counter in counters)
        while self.waiting:
            self.give_up(min(self.waiting))
        assert self.lanes.idle


class ScriptWeightsMachine(WeightsMachine):
    """The script, too."""

    client: ClassVar = None

    def make_engine(self) -> Engine:
        engine = ScriptEngine(self.client, valkey.namespace(), OWNERS)
        for owner in engine.owners:
            owner.max_waiting = MAX_WAITING
        return engine

    def teardown(self) -> None:
        super().teardown()
        if isinstance(self.engine, ScriptEngine):
            self.engine.close()
            assert self.engine.keys() == set(), self.engine.keys()


class WeightsTests(SynchronousTestCase):
    def test_lanes(self) -> None:
        """The lanes of one process."""
        run_state_machine_as_test(WeightsMachine, settings=settings(SETTINGS, max_examples=200))

    def test_script(self) -> None:
        """The script in a real server, with three owners; the last to go leaves nothing in it."""
        with valkey.client() as ScriptWeightsMachine.client:
            run_state_machine_as_test(ScriptWeightsMachine, settings=settings(SETTINGS, max_examples=40))
