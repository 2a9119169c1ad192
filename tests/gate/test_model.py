"""Both gates admit whom the brute-force model admits, in its order, over random histories."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from tests import valkey
from tests.gate.model import BruteForce, Engine, Id, LanesEngine, ScriptEngine
from thrtwisted.gate import Counter

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


SETTINGS = settings(
    deadline=None, stateful_step_count=60, suppress_health_check=list(HealthCheck), derandomize=False
)


class GateModelTests(SynchronousTestCase):
    def test_lanes(self) -> None:
        """The lanes of one process."""
        run_state_machine_as_test(LanesMachine, settings=settings(SETTINGS, max_examples=200))

    def test_script(self) -> None:
        """The script in a real server, with three owners; the last to go leaves nothing in it."""
        with valkey.client() as ScriptMachine.client:
            run_state_machine_as_test(ScriptMachine, settings=settings(SETTINGS, max_examples=40))
