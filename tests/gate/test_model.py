"""
Both gates admit whom the brute-force model admits, in its order, over random histories: first those of slots alone,
then those with time, rates and turns, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests import valkey
from tests.gate.model import MOST, START, BruteForce, Engine, Id, LanesEngine, ScriptEngine
from tests.machines import run_state_machine_as_test
from thrtwisted.errors import QueueFull, RateExceeded
from thrtwisted.gate import UNLIMITED, Counter, IAdmission, Rate, Ticket
from thrtwisted.gate.local import LocalGate
from thrtwisted.gate.order import MICROSECONDS

OWNERS = 3
KEYS = ("a", "b", "c", "d=1")
counters = st.lists(
    st.builds(Counter, st.sampled_from(KEYS), st.integers(0, 3)), max_size=3, unique_by=lambda c: c.key
)


class GateMachine(RuleBasedStateMachine):
    """Acquires and releases at random, at a gate and at the model."""

    engine: Engine

    def make_engine(self) -> Engine:
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        self.engine = self.make_engine()
        self.model = BruteForce()
        self.serial = 0

    def same(self, got: list[Id], wanted: list[Id]) -> None:
        """The same were admitted in the same order. What the script admits of several owners is seen by each alone."""
        for owner in range(OWNERS):
            assert [t for t in got if t[0] == owner] == [t for t in wanted if t[0] == owner], (got, wanted)

    @rule(owner=st.integers(0, OWNERS - 1), needs=counters, priority=st.sampled_from([1, 50, 50, 99]))
    def acquire(self, owner: int, needs: list[Counter], priority: int) -> None:
        self.serial += 1
        args = (owner, self.serial, needs, priority)
        self.same(self.engine.acquire(*args), self.model.acquire(*args))

    @precondition(lambda self: self.model.holding)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.model.holding)))
        self.same(self.engine.release(*ticket), self.model.release(*ticket))

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.model.waiting)))
        self.same(self.engine.release(*ticket), self.model.release(*ticket))

    @rule(owner=st.integers(0, OWNERS - 1))
    def release_again(self, owner: int) -> None:
        """A ticket that is not here is not released."""
        assert self.engine.release(owner, self.serial + 1) == []

    @invariant()
    def nobody_is_refused(self) -> None:
        assert not hasattr(self, "engine") or not self.engine.refused

    @invariant()
    def idle_leaves_nothing(self) -> None:
        if hasattr(self, "engine") and self.model.idle():
            assert self.engine.idle()

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        while not self.model.idle():
            ticket = min(self.model.holding or self.model.waiting)
            self.same(self.engine.release(*ticket), self.model.release(*ticket))
        assert self.engine.idle(), self.engine


class LanesMachine(GateMachine):
    def make_engine(self) -> Engine:
        return LanesEngine()

    def same(self, got: list[Id], wanted: list[Id]) -> None:
        assert got == wanted, (got, wanted)


class ScriptMachine(GateMachine):
    client: ClassVar = None

    def make_engine(self) -> Engine:
        return ScriptEngine(self.client, valkey.namespace(), OWNERS)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "engine"):
            assert isinstance(self.engine, ScriptEngine)
            self.engine.close()
            assert self.engine.keys() == set(), self.engine.keys()


#: So many may wait.
MAX_WAITING = 12
rates = st.none() | st.builds(
    Rate,
    st.sampled_from([200_000, 50_000, 1_000, 1_000_000, 333_333, 3600 * MICROSECONDS]),
    st.sampled_from([1, 1, 2, 5]),
    st.sampled_from(["wait", "wait", "wait", "reject", "demote"]),
    st.sampled_from([90, 40]),
)
slots = st.sampled_from([UNLIMITED, 1, 2, 3, 0])


class RegulatedMachine(RuleBasedStateMachine):
    """
    Time passes between acquires and releases; limits and rates change; keys take turns.

    @cvar clock_goes_back: whether the clock is set back now and then.
    """

    clock_goes_back: ClassVar[bool] = False

    def make_engine(self) -> Engine:
        raise NotImplementedError

    @initialize(brought=st.fixed_dictionaries({key: st.tuples(slots, rates) for key in KEYS}))
    def start(self, brought: dict[str, tuple[int, Rate | None]]) -> None:
        self.engine = self.make_engine()
        self.model = BruteForce(MAX_WAITING)
        self.serial = 0
        self.now = START
        self.brought = brought

    def same(self, got: list[Id], wanted: list[Id]) -> None:
        """The same were admitted in the same order. What the script admits of several owners is seen by each alone."""
        for owner in range(OWNERS):
            assert [t for t in got if t[0] == owner] == [t for t in wanted if t[0] == owner], (got, wanted)

    @rule(key=st.sampled_from(KEYS), brought=st.tuples(slots, rates))
    def change(self, key: str, brought: tuple[int, Rate | None]) -> None:
        """It takes effect with the next ticket."""
        self.brought[key] = brought

    @rule(
        owner=st.integers(0, OWNERS - 1),
        keys=st.lists(st.sampled_from(KEYS), max_size=3, unique=True),
        priority=st.sampled_from([50, 50, 1, 99]),
        fair=st.sampled_from(["x", "y", "z", None]),
        bound=st.sampled_from([None] * 9 + [1]),
        many=st.sampled_from([1, 1, 3]),
    )
    def acquire(
        self, owner: int, keys: list[str], priority: int, fair: str | None, bound: int | None, many: int
    ) -> None:
        for _ in range(many):
            self.serial += 1
            needs = [
                Counter(key, self.brought[key][0], 1, bound, self.brought[key][1], shown=True) for key in keys
            ]
            ticket = (owner, self.serial)
            self.same(
                self.engine.acquire(*ticket, needs, priority, now=self.now, fair=fair),
                self.model.acquire(*ticket, needs, priority, now=self.now, fair=fair),
            )

    @precondition(lambda self: self.model.holding)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.give_up(data.draw(st.sampled_from(sorted(self.model.holding))))

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.give_up(data.draw(st.sampled_from(sorted(self.model.waiting))))

    def give_up(self, ticket: Id) -> None:
        self.same(
            self.engine.release(*ticket, now=self.now),
            self.model.release(*ticket, now=self.now),
        )

    @rule(later=st.sampled_from([1, 100, 1_000, 49_999, 50_000, 100_000, 150_000, 200_000, 1_000_000, 10**7]))
    def pass_time(self, later: int) -> None:
        """What is due by then goes late, together with what happens next."""
        self.now += later

    @rule(late=st.sampled_from([0, 0, 0, 1, 20_000, 100_000, 300_000]))
    def wake(self, late: int) -> None:
        """A timer goes off, in time or late."""
        due = self.engine.next_due()
        if due is not None:
            self.now = max(self.now, due + late)
            self.same(self.engine.wake(self.now), self.model.wake(self.now))

    @precondition(lambda self: self.clock_goes_back)
    @rule(earlier=st.sampled_from([10**5, 10**6, 10**9]))
    def set_back(self, earlier: int) -> None:
        self.now -= earlier
        self.same(self.engine.wake(self.now), self.model.wake(self.now))

    @invariant()
    def same_refusals(self) -> None:
        """The same were turned away, and competed by another priority."""
        if hasattr(self, "engine"):
            assert self.engine.refused == self.model.refused
            assert self.engine.rejected == self.model.rejected
            assert self.engine.demoted == self.model.demoted

    @invariant()
    def nobody_oversleeps(self) -> None:
        """A timer is set for whoever lacks only time, and not for the past."""
        if hasattr(self, "engine") and self.model.last == self.now:
            due, wanted = self.engine.next_due(), self.model.next_due()
            assert due is None or due > self.now
            assert wanted is None or (due is not None and due <= wanted), (due, wanted)

    @invariant()
    def idle_leaves_nothing(self) -> None:
        if hasattr(self, "engine") and self.model.idle():
            assert self.engine.idle(), self.engine
            assert not self.model.level
            assert not self.model.next_turn

    def teardown(self) -> None:
        """As long as slots are released and time passes, all go, but for those who wait for a limit of 0."""
        if not hasattr(self, "engine"):
            return
        while self.model.holding or self.engine.next_due() is not None:
            for ticket in sorted(self.model.holding):
                self.give_up(ticket)
            due = self.engine.next_due()
            if due is not None:
                self.now = max(self.now, due)
                self.same(self.engine.wake(self.now), self.model.wake(self.now))
        for ticket, waiter in sorted(self.model.waiting.items()):
            assert any(self.model.counters[c.key].max_concurrent == 0 for c in waiter.counters), waiter
            self.give_up(ticket)
        assert self.engine.idle(), self.engine


class RegulatedLanesMachine(RegulatedMachine):
    clock_goes_back = True

    def make_engine(self) -> Engine:
        return LanesEngine(MAX_WAITING)

    def same(self, got: list[Id], wanted: list[Id]) -> None:
        assert got == wanted, (got, wanted)

    @invariant()
    def same_quotas(self) -> None:
        """The same is left of what is held."""
        if hasattr(self, "engine"):
            assert isinstance(self.engine, LanesEngine)
            for counters in self.model.holding.values():
                wanted = {c.key: self.model.quota(c.key, self.now) for c in counters}
                assert self.engine.lanes.quotas(counters, self.now) == wanted


class RegulatedScriptMachine(RegulatedMachine):
    client: ClassVar = None
    clock_goes_back = True

    def make_engine(self) -> Engine:
        engine = ScriptEngine(self.client, valkey.namespace(), OWNERS)
        for owner in engine.owners:
            owner.max_waiting = MAX_WAITING
        return engine

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "engine"):
            assert isinstance(self.engine, ScriptEngine)
            self.engine.close()
            assert self.engine.keys() == set(), self.engine.keys()


class LocalEngine:
    """L{LocalGate}, by its own timer."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gate = LocalGate(self.clock, max_waiting=MAX_WAITING)
        self.refused: list[Id] = []
        self.rejected: list[tuple[Id, int]] = []
        self.demoted: list[tuple[Id, int]] = []
        self.tickets: dict[Id, Deferred[IAdmission]] = {}
        self.admissions: dict[Id, IAdmission] = {}
        self.news: list[Id] = []

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
        id_ = (owner, serial)

        def admitted(admission: IAdmission) -> None:
            self.admissions[id_] = admission
            self.news.append(id_)

        def failed(failure: Failure) -> None:
            if failure.check(RateExceeded):
                self.rejected.append((id_, round(failure.value.retry_after * MICROSECONDS)))
            elif failure.check(QueueFull):
                self.refused.append(id_)
            else:
                failure.trap(CancelledError)

        self.clock.rightNow = now / MICROSECONDS
        self.tickets[id_] = self.gate.acquire(Ticket(tuple(counters), priority, fair=fair))
        self.tickets[id_].addCallbacks(admitted, failed)
        return self._news()

    def release(self, owner: int, serial: int, *, now: int = START) -> list[Id]:
        self.clock.rightNow = now / MICROSECONDS
        admission = self.admissions.pop((owner, serial), None)
        if admission:
            admission.release()
        else:
            self.tickets[owner, serial].cancel()
        return self._news()

    def wake(self, now: int) -> list[Id]:
        # A timer's time is a float, which may be a little more than that.
        times = [call.getTime() for call in self.clock.getDelayedCalls()]
        due = [time for time in times if round(time * MICROSECONDS) <= now]
        self.clock.rightNow = max([now / MICROSECONDS, *due])
        self.clock.advance(0)
        return self._news()

    def next_due(self) -> int | None:
        calls = self.clock.getDelayedCalls()
        assert len(calls) < 2
        return round(calls[0].getTime() * MICROSECONDS) if calls else None

    def idle(self) -> bool:
        return self.gate.idle and not self.clock.getDelayedCalls()

    def _news(self) -> list[Id]:
        news, self.news = self.news, []
        return news


class RegulatedLocalMachine(RegulatedMachine):
    def make_engine(self) -> Engine:
        return LocalEngine()

    def give_up(self, ticket: Id) -> None:
        """Who leaves is told nothing, though it was due."""
        got, wanted = (each.release(*ticket, now=self.now) for each in (self.engine, self.model))
        self.same(got, [other for other in wanted if other != ticket])

    def same(self, got: list[Id], wanted: list[Id]) -> None:
        # Who is admitted at its arrival is told so first of all.
        assert sorted(got) == sorted(wanted), (got, wanted)
        newest = (ticket for ticket in wanted if ticket[1] == self.serial)
        late = next(newest, None)
        assert [t for t in got if t != late] == [t for t in wanted if t != late], (got, wanted)

    @invariant()
    def same_refusals(self) -> None:
        if hasattr(self, "engine"):
            assert self.engine.refused == self.model.refused
            assert self.engine.rejected == self.model.rejected


SETTINGS = settings(
    deadline=None, stateful_step_count=60, suppress_health_check=list(HealthCheck), derandomize=False
)


class GateModelTests(SynchronousTestCase):
    def test_lanes(self) -> None:
        """The lanes of one process."""
        run_state_machine_as_test(LanesMachine, settings=settings(SETTINGS, max_examples=200))

    def test_regulated_lanes(self) -> None:
        """The lanes of one process, with time, rates and turns."""
        run_state_machine_as_test(RegulatedLanesMachine, settings=settings(SETTINGS, max_examples=200))

    def test_regulated_gate(self) -> None:
        """The gate of one process, woken by its own timer."""
        run_state_machine_as_test(RegulatedLocalMachine, settings=settings(SETTINGS, max_examples=60))

    def test_script(self) -> None:
        """The script in a real server, with three owners; the last to go leaves nothing in it."""
        with valkey.client() as ScriptMachine.client:
            run_state_machine_as_test(ScriptMachine, settings=settings(SETTINGS, max_examples=40))

    def test_regulated_script(self) -> None:
        """The script, with time, rates and turns, and an owner that is told to wake the others."""
        with valkey.client() as RegulatedScriptMachine.client:
            run_state_machine_as_test(RegulatedScriptMachine, settings=settings(SETTINGS, max_examples=40))

    def test_invented_keys(self) -> None:
        """Where all keys come once, both gates remember the turns of the same thousand."""
        with valkey.client() as client:
            engine = ScriptEngine(client, valkey.namespace(), 1)
            lanes = LanesEngine(10_000)
            engine.owners[0].max_waiting = 10_000
            one = [Counter("one", 1)]
            for serial in range(1, 1100):
                for each in (engine, lanes):
                    each.acquire(0, serial, one, 50, fair="heavy" if serial % 100 == 0 else f"key{serial}")
            members = client.zrange("{" + engine.namespace + "}:turns:one", 0, -1)
            level = lanes.lanes._turns._levels["one"][50]
            self.assertEqual(len(level.following), MOST)
            self.assertEqual(
                {member.decode() for member in members}, {"50", *(f"50:{key}" for key in level.following)}
            )
            self.assertIn("heavy", level.following)
            for serial in range(1, 1100):
                engine.release(0, serial)
            engine.close()
            self.assertEqual(engine.keys(), set())
