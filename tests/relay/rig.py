"""A proxy's resource in memory, whose way to the backends goes over a relay: a front and a worker, with a clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.forward.support import Wire
from tests.relay.gate import FRONT, WORKER, MemoryGate
from tests.relay.support import MemoryPosts
from tests.rig import Rig
from thrtwisted.config import Redis, Relay
from thrtwisted.forward import IForwarder
from thrtwisted.forward.disk import Disk
from thrtwisted.gate.local import LocalGate
from thrtwisted.relay.front import Front
from thrtwisted.relay.worker import Worker


class SettlingClock(MemoryReactorClock):
    """A reactor that can be brought to where it has nothing to do now."""

    _running = False

    def advance(self, amount: float) -> None:
        running, self._running = self._running, True
        try:
            super().advance(amount)  # type: ignore[no-untyped-call]
        finally:
            self._running = running

    def settle(self) -> None:
        """Do what is to be done now, unless that is being done."""
        if not self._running:
            self.advance(0)


class SettlingWire(Wire):
    """After whatever happens at one end of a connection, all that follows from it happens, too."""

    clock: SettlingClock

    def __init__(self, clock: SettlingClock, protocol: Any) -> None:
        super().__init__(clock, protocol)
        clock.settle()

    def receive(self, data: bytes) -> None:
        super().receive(data)
        self.clock.settle()

    def relieve(self) -> None:
        super().relieve()
        self.clock.settle()

    def lose(self, reason: Exception | None = None) -> None:
        super().lose(reason)
        self.clock.settle()

    def value(self) -> bytes:
        self.clock.settle()
        return bytes(super().value())


class RelayedRig(Rig):
    """
    A proxy in memory that is a front, and a worker: what goes from one to the other takes a turn of the reactor.

    @ivar posts: what carries it.
    @ivar front: has the clients.
    @ivar worker: has the backends.
    """

    clock: SettlingClock
    wire_class = SettlingWire

    def __init__(
        self, test: SynchronousTestCase, relay: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        settings.setdefault("redis", Redis(url="redis://nowhere"))
        super().__init__(
            test, relay=Relay(**({"role": "front", "concurrency": 100} | (relay or {}))), **settings
        )

    def make_clock(self) -> SettlingClock:
        return SettlingClock()

    def make_gate(self, max_waiting: int) -> LocalGate:
        return MemoryGate(self.clock, max_waiting=max_waiting)

    def make_ways(self) -> Mapping[str, IForwarder]:
        relay = self.config.relay
        assert relay is not None
        self.posts = MemoryPosts(self.clock)
        queues = list(self.config.backend)
        self.worker = Worker(
            self.clock, relay, queues, self.gate.seat, self.posts.post(WORKER), self.forwarders
        )
        self.worker.start()
        self.front = Front(
            self.clock, self.config, self.gate, self.posts.post(FRONT), Disk(self.config.bounds.spool)
        )
        ways = {name: self.front.forwarder(name) for name in queues}
        for way in ways.values():
            way.start()
        self.clock.settle()
        return ways

    def refuse(self, error: Exception) -> None:
        super().refuse(error)
        self.clock.settle()

    @property
    def connections(self) -> int:
        self.clock.settle()
        return super().connections

    def check_nothing_left(self) -> None:
        """And nothing is left between the front and the worker."""
        closed = [way.close() for way in self.ways.values()]
        self.clock.settle()
        for wire in self.clients + self.backends:
            wire.lose()
        self.clock.settle()
        closed += [forwarder.close() for forwarder in self.forwarders.values()]
        self.clock.settle()
        closed.append(self.front.stop())
        self.clock.settle()
        for deferred in closed:
            self.test.successResultOf(deferred)
        self.test.assertEqual(self.worker._served, {})
        self.worker.end()
        self.test.assertEqual((self.gate.at_worker, self.gate.watches, self.posts.flying), ({}, [], []))
        super().check_nothing_left()
