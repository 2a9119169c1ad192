"""A proxy's resource in memory, whose way to the backends goes over a relay: a front and a worker, with a clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.forward.support import MemoryRig, Wire
from tests.relay.gate import FRONT, WORKER, MemoryGate
from tests.relay.support import MemoryPosts
from tests.rig import Rig
from thrtwisted.config import Config, Redis, Relay
from thrtwisted.exchange import Exchange
from thrtwisted.forward import IForwarder, IForwarding, RequestBody
from thrtwisted.forward.disk import Disk
from thrtwisted.gate import Ticket
from thrtwisted.gate.local import LocalGate
from thrtwisted.relay.front import Front
from thrtwisted.relay.worker import Worker

#: Bytes under way of one exchange, both ways together. Tests that fill it would take long with more.
MAX_INLINE = 256 * 1024


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

    def resume(self) -> None:
        super().resume()
        self.clock.settle()

    def receive(self, data: bytes) -> None:
        self.clock.settle()
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
            test,
            relay=Relay(**({"role": "front", "concurrency": 100, "max_inline": MAX_INLINE} | (relay or {}))),
            **settings,
        )

    def make_clock(self) -> SettlingClock:
        return SettlingClock()

    def make_gate(self, max_waiting: int) -> LocalGate:
        return MemoryGate(self.clock, max_waiting=max_waiting)

    def make_ways(self) -> Mapping[str, IForwarder]:
        relay = self.config.relay
        assert relay is not None
        self.posts = MemoryPosts(self.clock)
        # A gate of the test's own admits nobody to a worker.
        self.hall = self.gate if isinstance(self.gate, MemoryGate) else MemoryGate(self.clock)
        queues = list(self.config.backend)
        self.worker = Worker(
            self.clock, relay, queues, self.hall.seat, self.posts.post(WORKER), self.forwarders
        )
        self.worker.start()
        self.front = Front(
            self.clock, self.config, self.hall, self.posts.post(FRONT), Disk(self.config.bounds.spool)
        )
        ways = {name: self.front.forwarder(name) for name in queues}
        for way in ways.values():
            way.start()
        self.clock.settle()
        return ways

    def accept(self) -> Wire:
        self.clock.settle()
        return super().accept()

    def refuse(self, error: Exception) -> None:
        super().refuse(error)
        self.clock.settle()

    @property
    def connections(self) -> int:
        self.clock.settle()
        return super().connections

    def check_nothing_left(self) -> None:
        """And nothing is left between the front and the worker."""
        for wire in self.clients + self.backends:
            wire.lose()
        self.clock.settle()
        # The worker first: what it may be at work on, a front that stops leaves to the gate.
        closed = [forwarder.close() for forwarder in self.forwarders.values()]
        self.clock.settle()
        closed.append(self.front.stop())
        self.clock.settle()
        for deferred in closed:
            self.test.successResultOf(deferred)
        self.test.assertEqual(self.worker._served, {})
        self.worker.end()
        self.test.assertEqual((self.hall.at_worker, self.hall.watches, self.posts.flying), ({}, [], []))
        super().check_nothing_left()


class Admitted:
    """A way to a backend, for exchanges that are all admitted at once."""

    def __init__(self, way: IForwarder, gate: MemoryGate) -> None:
        self.way = way
        self.gate = gate
        self.close = way.close

    def send(self, exchange: Exchange, body: RequestBody) -> IForwarding:
        """See L{IForwarder.send}."""
        admitted: list[Any] = []
        self.gate.acquire(Ticket((), queue=self.way.queue)).addCallback(admitted.append)
        forwarding = self.way.send(exchange, body, admitted[0])
        self.gate.reactor.settle()
        return forwarding


class RelayedMemoryRig(MemoryRig):
    """A front, a worker, and its backend in memory, with a clock."""

    clock: SettlingClock
    wire_class = SettlingWire

    def make_clock(self) -> SettlingClock:
        return SettlingClock()

    def make_way(self) -> Admitted:
        relay = Relay(role="front", concurrency=100, max_inline=MAX_INLINE)
        config = Config(backend={"app": self.config}, relay=relay, redis=Redis(url="redis://nowhere"))
        self.posts = MemoryPosts(self.clock)
        self.gate = MemoryGate(self.clock)
        worker_post = self.posts.post(WORKER)
        self.worker = Worker(self.clock, relay, ["app"], self.gate.seat, worker_post, {"app": self.forwarder})
        self.worker.start()
        self.relay_front = Front(self.clock, config, self.gate, self.posts.post(FRONT), self.disk)
        way = self.relay_front.forwarder("app")
        way.start()
        self.clock.settle()
        return Admitted(way, self.gate)

    def accept(self, number: int = -1, **attributes: Any) -> Wire:
        self.clock.settle()
        return super().accept(number, **attributes)

    def refuse(self, error: Exception, number: int = -1) -> None:
        super().refuse(error, number)
        self.clock.settle()

    def check_nothing_left(self, test: Any) -> None:
        for wire in self.clients:
            wire.lose()
        closed = [self.forwarder.close()]
        self.clock.settle()
        closed.append(self.relay_front.stop())
        self.clock.settle()
        for deferred in closed:
            test.successResultOf(deferred)
        test.assertEqual(self.worker._served, {})
        self.worker.end()
        test.assertEqual((self.gate.at_worker, self.gate.watches, self.posts.flying), ({}, [], []))
        test.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        test.assertEqual(len(self.front.done), len(self.front.forwardings))
