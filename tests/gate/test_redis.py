"""The gate over Redis, as its users see it: on a real server, with several gates in one reactor."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests import valkey
from tests.gate.model import ScriptOwner, acquire_operation
from thrtwisted.errors import GateUnavailable, QueueFull, QueueTimeout
from thrtwisted.gate import Counter, IAdmission, IGate, Rate, Ticket
from thrtwisted.gate.redis import RedisGate
from thrtwisted.redis.url import RedisAddress

ONE = (Counter("one", 1),)
TWO = (Counter("two", 2),)

Steps = Generator[Deferred[Any], Any, None]


def until(condition: Any) -> Deferred[None]:
    """Fires when a condition holds; it is looked at in every turn of the reactor."""

    @inlineCallbacks
    def wait() -> Steps:
        while not condition():
            yield deferLater(reactor, 0.001)

    return wait()


class RedisGateTestCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.namespace = valkey.namespace()
        self.client = valkey.client()
        self.addCleanup(self.client.close)
        self.addCleanup(lambda: self.assertEqual(self.keys(), []))

    def keys(self) -> list[bytes]:
        """What the namespace has in Redis; nothing once all gates have stopped."""
        keys: list[bytes] = self.client.keys("[{]" + self.namespace + "}*")
        return keys

    def count(self, key: str) -> int:
        """How many owners, lanes… there are."""
        return int(self.client.zcard("{" + self.namespace + "}:" + key))

    def gate(self, address: RedisAddress | None = None, **options: Any) -> RedisGate:
        options = {"namespace": self.namespace, "timeout": 5.0, "outage": "closed", **options}
        gate = RedisGate(reactor, **options)
        gate.start(address or valkey.address())
        self.addCleanup(gate.stop)
        return gate

    def acquire(
        self, gate: RedisGate, counters: tuple[Counter, ...] = ONE, priority: int = 50
    ) -> Deferred[IAdmission]:
        return gate.acquire(Ticket(counters, priority))

    @property
    def owners(self) -> str:
        return "{" + self.namespace + "}:owners"

    def held(self, counter: str) -> int:
        return int(self.client.hget("{" + self.namespace + "}:used", counter) or 0)

    def waiting(self) -> int:
        return int(self.client.hget("{" + self.namespace + "}:gate", "waiting") or 0)


class RedisGateTests(RedisGateTestCase):
    def test_interface(self) -> None:
        """It provides IGate."""
        self.assertTrue(IGate.providedBy(self.gate()))

    def test_impossible(self) -> None:
        """What can hold no slot is refused where a program makes it."""
        for options in ({"namespace": "a{b}"}, {"lease": 0.0}, {"timeout": 0.0}):
            self.assertRaises(ValueError, RedisGate, reactor, **options)
        for slots in (-1, 1.5, 2**53 + 1):
            self.assertRaises(ValueError, Counter, "one", slots)
        for options in ({"interval": 0}, {"interval": 2**64}, {"interval": 1, "burst": 2**64}):
            self.assertRaises(ValueError, Rate, **options)

    def test_no_counters(self) -> None:
        """A ticket without counters asks nobody."""
        gate = RedisGate(reactor, namespace=self.namespace)
        self.successResultOf(self.acquire(gate, ())).release()

    @inlineCallbacks
    def test_admit_and_release(self) -> Steps:
        """A slot is held in Redis from the admission to the release."""
        gate = self.gate()
        admission = yield self.acquire(gate)
        self.assertEqual(self.held("one"), 1)
        admission.release()
        yield until(lambda: not self.held("one"))

    @inlineCallbacks
    def test_two_gates(self) -> Steps:
        """A slot that one process frees goes to the other's ticket, at once: pushed, not polled."""
        a, b = self.gate(lease=3600.0), self.gate(lease=3600.0)  # no heartbeat can help
        first = yield self.acquire(a)
        second = self.acquire(b)
        yield until(self.waiting)
        self.assertNoResult(second)
        first.release()
        admission = yield second
        self.assertGreater(admission.waited, 0)
        admission.release()

    @inlineCallbacks
    def test_urgent_from_another(self) -> Steps:
        """The best priority goes first, whichever process it came to."""
        a, b = self.gate(), self.gate()
        first = yield self.acquire(a)
        told: list[str] = []

        def note(admission: IAdmission, name: str) -> None:
            told.append(name)
            admission.release()

        others = [self.acquire(a).addCallback(note, f"{n}") for n in range(12)]
        yield until(lambda: self.waiting() == 12)
        urgent = self.acquire(b, priority=1).addCallback(note, "urgent")
        yield until(lambda: self.waiting() == 13)
        first.release()
        yield gatherResults([urgent, *others])
        self.assertEqual(told, ["urgent", *(f"{n}" for n in range(12))])

    @inlineCallbacks
    def test_never_too_many_never_idle(self) -> Steps:
        """Four hundred tickets over three processes: never more than the limit at once, and all slots busy."""
        gates = [self.gate() for _ in range(3)]
        now, most = 0, 0

        @inlineCallbacks
        def exchange(gate: RedisGate) -> Steps:
            nonlocal now, most
            admission = yield self.acquire(gate, (Counter("four", 4),))
            now += 1
            most = max(most, now)
            yield deferLater(reactor, 0)
            now -= 1
            admission.release()

        yield gatherResults([exchange(gates[n % 3]) for n in range(400)])
        self.assertEqual((now, most), (0, 4))

    @inlineCallbacks
    def test_rate(self) -> Steps:
        """Over two processes there go no more than the rate allows, and who waits is woken by a timer."""
        gates = [self.gate(lease=3600.0) for _ in range(2)]  # no heartbeat can help
        counters = (Counter("rate", rate=Rate(10_000, 2), shown=True),)
        began = time.monotonic()
        admissions = yield gatherResults([self.acquire(gates[n % 2], counters) for n in range(12)])
        self.assertGreater(time.monotonic() - began, 0.085)  # the lateness of a timer costs nothing
        self.assertLessEqual({admission.quotas["rate"].tickets for admission in admissions}, {0, 1, 2})
        for admission in admissions:
            admission.release()
        yield until(lambda: not self.client.hlen("{" + self.namespace + "}:used"))
        self.assertFalse(self.client.exists("{" + self.namespace + "}:due"))
        yield until(lambda: not self.client.exists("{" + self.namespace + "}:rate:rate"))

    @inlineCallbacks
    def test_batches(self) -> Steps:
        """What arrives while a batch is under way rides in the next: few batches carry many tickets."""
        gate = self.gate()
        (yield self.acquire(gate)).release()
        before = self.client.info("commandstats")["cmdstat_evalsha"]["calls"]
        many = (Counter("many", 300),)
        admissions = yield gatherResults([self.acquire(gate, many) for _ in range(300)])
        for admission in admissions:
            admission.release()
        yield until(lambda: not self.held("many"))
        self.assertLess(self.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before, 10)

    @inlineCallbacks
    def test_batches_are_bounded(self) -> Steps:
        """However many arrive at once, no batch keeps Redis busy for so long that it counts as gone."""
        gate = self.gate(max_waiting=20_000, timeout=0.5)
        yield self.acquire(gate, TWO)
        counters = tuple(Counter(f"{n}", 1) for n in range(8))
        first = yield self.acquire(gate, counters)
        waiting = [self.acquire(gate, counters) for _ in range(15_000)]
        yield until(lambda: list(gate._places)[-1].order)
        for deferred in waiting[1:]:
            deferred.addErrback(lambda _: None).cancel()
        first.release()
        (yield waiting[0]).release()

    @inlineCallbacks
    def test_cancel_waiting(self) -> Steps:
        """A ticket that is cancelled leaves the queue in Redis too."""
        gate = self.gate()
        first = yield self.acquire(gate)
        leaving = self.acquire(gate)
        yield until(self.waiting)
        leaving.cancel()
        self.failureResultOf(leaving)
        yield until(lambda: not self.waiting())
        first.release()

    @inlineCallbacks
    def test_cancel_before_the_reply(self) -> Steps:
        """A ticket that is cancelled while Redis admits it gives its slot back."""
        gate = self.gate()
        (yield self.acquire(gate, TWO)).release()
        leaving = self.acquire(gate)
        leaving.cancel()
        self.failureResultOf(leaving)
        (yield self.acquire(gate)).release()

    @inlineCallbacks
    def test_full(self) -> Steps:
        """When as many wait in the namespace as may, one more gets QueueFull with a time to come back after."""
        a, b = self.gate(max_waiting=2), self.gate(max_waiting=2)
        first = yield self.acquire(a)
        waiting = [self.acquire(a), self.acquire(b)]
        yield until(lambda: self.waiting() == 2)
        problem = yield self.assertFailure(self.acquire(b), QueueFull)
        self.assertGreaterEqual(problem.retry_after, 1)
        first.release()
        # Which of them came first is not known: they were sent over two connections.
        yield gatherResults(
            [deferred.addCallback(lambda admission: admission.release()) for deferred in waiting]
        )

    @inlineCallbacks
    def test_timeout(self) -> Steps:
        """A ticket that waits for too long gets QueueTimeout, and leaves the queue."""
        gate = self.gate()
        first = yield self.acquire(gate)
        yield self.assertFailure(gate.acquire(Ticket(ONE, timeout=0.05)), QueueTimeout)
        yield until(lambda: not self.waiting())
        first.release()

    @inlineCallbacks
    def test_close_and_stop(self) -> Steps:
        """After close, who waits gets GateUnavailable; stop releases what is still held, and leaves nothing."""
        gate = self.gate()
        yield self.acquire(gate)
        waiting = self.acquire(gate)
        yield until(self.waiting)
        gate.close()
        self.failureResultOf(waiting, GateUnavailable)
        self.failureResultOf(self.acquire(gate), GateUnavailable)
        yield gate.stop()
        self.assertEqual(self.keys(), [])

    @inlineCallbacks
    def test_close_leaves_the_queue(self) -> Steps:
        """Those who are sent away by close get no slot any more: it goes to another process at once."""
        a, b = self.gate(lease=3600.0), self.gate(lease=3600.0)  # no heartbeat can help
        first = yield self.acquire(a)
        refused = self.acquire(a)
        yield until(lambda: self.waiting() == 1)
        waiting = self.acquire(b)
        yield until(lambda: self.waiting() == 2)
        a.close()
        self.failureResultOf(refused, GateUnavailable)
        first.release()
        (yield waiting).release()

    @inlineCallbacks
    def test_heartbeats_after_close(self) -> Steps:
        """A gate that is closed keeps its slots for as long as it takes, though its connections be cut."""
        gate = self.gate(lease=0.5)
        admission = yield self.acquire(gate)
        gate.close()
        self.client.client_kill_filter(_type="normal", skipme=True)
        yield until(lambda: not gate._outages.connected)
        yield until(lambda: gate._outages.connected)
        lease = self.client.zscore(self.owners, gate._owner)
        yield until(lambda: self.client.zscore(self.owners, gate._owner) > lease + 500)
        admission.release()

    @inlineCallbacks
    def test_quit_is_the_last_word(self) -> Steps:
        """Whatever happens while a gate says goodbye, Redis does not know it again."""
        gate = self.gate()
        first, _ = yield gatherResults([self.acquire(gate, TWO) for _ in range(2)])
        stopping = [gate.stop(), gate.stop()]
        gate._beat()
        first.release()
        yield gatherResults(stopping)
        self.assertEqual(self.keys(), [])

    @inlineCallbacks
    def test_stop_before_start(self) -> Steps:
        """A gate that was never started stops."""
        gate = RedisGate(reactor, namespace=self.namespace)
        waiting = self.acquire(gate)
        yield gate.stop()
        self.failureResultOf(waiting, GateUnavailable)

    @inlineCallbacks
    def test_start_with_url(self) -> Steps:
        """A URL says where Redis is; a gate starts no server of its own."""
        gate = RedisGate(reactor, namespace=self.namespace, timeout=5.0)
        self.addCleanup(gate.stop)
        self.assertRaises(ValueError, gate.start, "embedded:")
        self.assertRaises(ValueError, gate.start, "localhost")
        gate.start(valkey.url())
        (yield self.acquire(gate)).release()

    def test_stop_while_connecting(self) -> Deferred[None]:
        """A gate stops while its connections are being made."""
        return self.gate().stop()


class HealingTests(RedisGateTestCase):
    """What Redis and the process believe comes to agree again."""

    @inlineCallbacks
    def test_lost_message(self) -> Steps:
        """An admission whose message was lost costs one heartbeat."""
        a, b = self.gate(), self.gate(lease=1.0)
        first = yield self.acquire(a)
        second = self.acquire(b)
        yield until(self.waiting)
        assert b._link is not None
        for connection in b._link._dialer._connections:
            connection.received = lambda payload: None
        first.release()
        (yield second).release()

    @inlineCallbacks
    def test_scripts_flushed(self) -> Steps:
        """A server that has forgotten the script is given it again."""
        gate = self.gate()
        (yield self.acquire(gate)).release()
        self.client.script_flush()
        (yield self.acquire(gate)).release()

    @inlineCallbacks
    def test_namespace_flushed(self) -> Steps:
        """When Redis has forgotten everything, the next batch is refused, and all is announced and as before."""
        gate = self.gate(lease=1.0)
        first = yield self.acquire(gate)
        second = self.acquire(gate)
        yield until(self.waiting)
        self.client.delete(*self.keys())
        yield until(lambda: self.held("one") == 1 and self.waiting() == 1)
        self.assertNoResult(second)
        first.release()
        (yield second).release()

    @inlineCallbacks
    def test_connections_killed(self) -> Steps:
        """When the connections are cut, nobody is sent away, and nobody loses a slot or a place."""
        gate = self.gate()
        first = yield self.acquire(gate)
        second = self.acquire(gate)
        yield until(self.waiting)
        for kind in ("normal", "pubsub"):
            self.client.client_kill_filter(_type=kind, skipme=True)
            third = self.acquire(gate, TWO)
            (yield third).release()
        self.assertNoResult(second)
        self.assertEqual(self.held("one"), 1)
        first.release()
        (yield second).release()

    @inlineCallbacks
    def test_frozen_past_its_lease(self) -> Steps:
        """A process that was frozen while it was admitted, and then taken for dead, does not believe what it reads."""
        gate = self.gate(lease=0.4)
        other = ScriptOwner(self.client, self.namespace, "other")
        self.addCleanup(other.close)
        other.batch(acquire_operation(1, ONE), announced=[])
        waiting = self.acquire(gate)
        yield until(self.waiting)
        other.batch(["release", 1])
        time.sleep(0.5)
        other.batch(acquire_operation(2, ONE))
        yield until(self.waiting)
        self.assertNoResult(waiting)
        other.batch(["release", 2], ["quit"])
        (yield waiting).release()

    @inlineCallbacks
    def test_garbled_reply(self) -> Steps:
        """After a reply that cannot be read the gate connects anew, and goes on."""
        gate = self.gate()
        first = yield self.acquire(gate)
        second = self.acquire(gate)
        yield until(self.waiting)
        link = gate._link
        assert link is not None
        script, link.script = link.script, lambda *args: succeed(b"\xc1")  # type: ignore[method-assign]
        yield self.assertFailure(self.acquire(gate), GateUnavailable)
        link.script = script  # type: ignore[method-assign]
        first.release()
        (yield second).release()

    @inlineCallbacks
    def test_left_before_the_connection(self) -> Steps:
        """A ticket that comes and leaves while there is no connection never takes a slot."""
        gate = RedisGate(reactor, namespace=self.namespace, timeout=5.0, lease=3600.0)
        leaving = self.acquire(gate)
        leaving.cancel()
        self.failureResultOf(leaving)
        gate.start(valkey.address())
        self.addCleanup(gate.stop)
        other = self.gate()
        yield until(lambda: self.count("owners") == 2)
        (yield self.acquire(other)).release()

    @inlineCallbacks
    def test_gone(self) -> Steps:
        """Where no Redis is, a ticket waits for the timeout; the next ones not at all; nothing is left of them."""
        gate = self.gate(RedisAddress("unix", path="/nonexistent/redis.sock"), timeout=0.05)
        problem = yield self.assertFailure(self.acquire(gate), GateUnavailable)
        self.assertGreaterEqual(problem.retry_after, 1)
        self.failureResultOf(self.acquire(gate), GateUnavailable)
        self.successResultOf(self.acquire(gate, ())).release()

    @inlineCallbacks
    def test_frozen(self) -> Steps:
        """A server that does not answer counts as gone; who has a place keeps it until it answers again."""
        gate = self.gate(timeout=0.3)
        first = yield self.acquire(gate)
        second = self.acquire(gate)
        yield until(lambda: gate._places.get(2).order)
        self.client.client_pause(1000, all=True)
        yield self.assertFailure(self.acquire(gate), GateUnavailable)
        self.failureResultOf(self.acquire(gate), GateUnavailable)
        first.release()
        (yield second).release()
