"""Fronts and workers at the gate, as the relay sees it: on a real server, with several gates in one reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater

from tests.gate.test_redis import ONE, RedisGateTestCase, Steps, until
from thrtwisted.errors import GateUnavailable, QueueTimeout
from thrtwisted.gate import AlreadyTaken, Counter, IAdmission, Ticket
from thrtwisted.gate.local import LocalGate
from thrtwisted.gate.redis import RedisGate
from thrtwisted.gate.script import SCRIPT

TWO = (Counter("two", 2),)


class CrewTestCase(RedisGateTestCase):
    def setUp(self) -> None:
        """A server that does not know the script may be another one: several that find that out wait for each other."""
        super().setUp()
        self.client.script_load(SCRIPT)

    def ask(
        self, gate: RedisGate, queue: str = "app", counters: tuple[Counter, ...] = (), **options: Any
    ) -> Deferred[IAdmission]:
        return gate.acquire(Ticket(counters, queue=queue, **options))

    def freeze(self, gate: RedisGate) -> None:
        """A gate's lease ends, and no heartbeat renews it."""
        gate._heart.stop()  # type: ignore[no-untyped-call]
        self.client.zadd(self.owners, {gate.owner: 1})

    def at(self, gate: RedisGate) -> dict[str, str]:
        """What has a place at a worker."""
        places = self.client.hgetall("{" + self.namespace + "}:at:" + gate.owner)
        return {ticket.decode(): state.decode() for ticket, state in places.items()}


class AssignmentTests(CrewTestCase):
    @inlineCallbacks
    def test_assigned(self) -> Steps:
        """A ticket with a queue is admitted together with a place at a worker, and gives it back."""
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        self.assertEqual((yield worker.crew.serve(1, ["app"])), 0)
        admission = yield self.ask(front, counters=ONE)
        self.assertEqual(admission.worker, worker.owner)
        self.assertEqual(self.at(worker), {f"{front.owner}:{admission.serial}": ""})
        waiting = self.ask(front)
        yield until(lambda: self.waiting() == 1)
        admission.release()
        second = yield waiting
        self.assertNotEqual(second.serial, admission.serial)
        self.assertEqual((yield worker.crew.serve(1, ["app"])), 1)
        second.release()
        yield until(lambda: not self.at(worker))

    @inlineCallbacks
    def test_no_worker(self) -> Steps:
        """Without a worker it waits; with the first that serves its queue it goes, at once."""
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        waiting = self.ask(front)
        yield until(lambda: self.waiting() == 1)
        yield worker.crew.serve(1, ["other"])
        self.assertEqual(self.waiting(), 1)
        yield worker.crew.serve(1, ["other", "app"])
        admission = yield waiting
        self.assertEqual(admission.worker, worker.owner)
        self.assertEqual(
            (yield front.crew.served(["app", "none", "other"])), {"app": 1, "none": 0, "other": 1}
        )

    @inlineCallbacks
    def test_take(self) -> Steps:
        """The worker takes what has a place at it, as often as it asks; nobody takes anything else."""
        front, worker, other = (self.gate(lease=3600.0) for _ in range(3))
        yield worker.crew.serve(2, ["app"])
        admission = yield self.ask(front)
        self.assertIs((yield other.crew.take(front.owner, admission.serial)), False)
        self.assertIs((yield worker.crew.take(front.owner, admission.serial)), True)
        self.assertIs((yield worker.crew.take(front.owner, admission.serial)), True)
        self.assertIs((yield worker.crew.take(front.owner, admission.serial + 1)), False)
        admission.release()
        yield until(lambda: not self.at(worker))
        self.assertIs((yield worker.crew.take(front.owner, admission.serial)), False)


class AgainTests(CrewTestCase):
    @inlineCallbacks
    def test_again(self) -> Steps:
        """A ticket that was not taken waits again, at its old rank, and goes to another worker with another serial."""
        front, worker, other = (self.gate(lease=3600.0) for _ in range(3))
        yield worker.crew.serve(1, ["app"])
        admission = yield self.ask(front, counters=ONE)
        later = self.ask(front, counters=ONE)
        yield worker.crew.serve(0, ["app"])
        waiting = admission.again(taken_too=False)
        yield until(lambda: self.waiting() == 2)
        self.assertEqual(self.at(worker), {})
        yield other.crew.serve(5, ["app"])
        new = yield waiting
        self.assertEqual((new.worker, self.waiting()), (other.owner, 1))
        self.assertIs((yield worker.crew.take(front.owner, admission.serial)), False)
        self.assertIs((yield other.crew.take(front.owner, new.serial)), True)
        new.release()
        (yield later).release()

    @inlineCallbacks
    def test_taken(self) -> Steps:
        """One that was taken waits again only if that is wanted; otherwise it is held until it is released."""
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        yield worker.crew.serve(1, ["app"])
        admission = yield self.ask(front, counters=ONE)
        yield worker.crew.take(front.owner, admission.serial)
        yield self.assertFailure(admission.again(taken_too=False), AlreadyTaken)
        self.assertEqual(len(self.at(worker)), 1)
        new = yield admission.again(taken_too=True)
        self.assertEqual(self.at(worker), {f"{front.owner}:{new.serial}": ""})
        self.assertRaises(ValueError, admission.again, taken_too=True)
        new.release()
        self.assertRaises(ValueError, new.again, taken_too=True)
        yield until(lambda: not self.at(worker) and not self.held("one"))

    @inlineCallbacks
    def test_leaves(self) -> Steps:
        """Whoever leaves the queue for the second time, or waits for too long, gives all back."""
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        for timeout in (None, 0.5):
            yield worker.crew.serve(1, ["app"])
            admission = yield self.ask(front, counters=ONE, timeout=timeout)
            yield worker.crew.serve(0, ["app"])
            waiting = admission.again(taken_too=False)
            if timeout is None:
                yield until(lambda: self.waiting() == 1)
                yield front.crew.served(["app"])  # so the gate has heard of it, too
                waiting.addErrback(lambda _: None)
                waiting.cancel()
            else:
                yield self.assertFailure(waiting, QueueTimeout)
            yield until(lambda: not self.waiting() and not self.held("one"))
            self.assertEqual(front._places.held, 0)

    @inlineCallbacks
    def test_leaves_at_once(self) -> Steps:
        """So it does before Redis has heard of it, if it does not matter whether a worker has begun."""
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        yield worker.crew.serve(1, ["app"])
        admission = yield self.ask(front, counters=ONE)
        waiting = admission.again(taken_too=True)
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        yield until(lambda: not self.at(worker) and not self.waiting() and not self.held("one"))

    @inlineCallbacks
    def test_leaves_unanswered(self) -> Steps:
        """Whoever waits no longer before Redis has said that no worker has begun, has to take it that one may have."""
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        yield worker.crew.serve(1, ["app"])
        for timeout in (None, 0.2):
            admission = yield self.ask(front, counters=ONE, timeout=timeout)
            yield worker.crew.take(front.owner, admission.serial)
            if timeout is not None:
                front._outages.connected = False  # so nothing is sent
            waiting = admission.again(taken_too=False)
            if timeout is None:
                waiting.cancel()
            yield self.assertFailure(waiting, AlreadyTaken)
            front._outages.connected = True
            yield front.crew.served(["app"])
            self.assertEqual(self.at(worker), {f"{front.owner}:{admission.serial}": "t"})
            self.assertEqual((self.held("one"), front._places.held), (1, 1))
            admission.release()
            yield until(lambda: not self.at(worker) and not self.waiting() and not self.held("one"))

    @inlineCallbacks
    def test_closed(self) -> Steps:
        """At a gate that is closed, what is under way waits again; when it stops, no more, and it may be begun."""
        front, worker, other = (self.gate(lease=3600.0) for _ in range(3))
        yield worker.crew.serve(3, ["app"])
        first, second, third = yield gatherResults([self.ask(front) for _ in range(3)])
        yield worker.crew.take(front.owner, second.serial)
        yield worker.crew.serve(0, ["app"])
        new = self.ask(front)
        waiting = first.again(taken_too=False)
        yield until(lambda: self.waiting() == 2)
        front.close()
        yield self.assertFailure(new, GateUnavailable)
        yield self.assertFailure(second.again(taken_too=False), AlreadyTaken)
        yield other.crew.serve(1, ["app"])
        self.assertEqual((yield waiting).worker, other.owner)
        waiting = third.again(taken_too=False)
        stopped = front.stop()
        yield self.assertFailure(waiting, AlreadyTaken)
        yield self.assertFailure(third.again(taken_too=False), AlreadyTaken)
        yield self.assertFailure(third.again(taken_too=True), GateUnavailable)
        yield stopped

    @inlineCallbacks
    def test_stopped(self) -> Steps:
        """A gate that stops says so to who waits again, and to who asks."""
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        yield worker.crew.serve(1, ["app"])
        admission = yield self.ask(front)
        yield worker.crew.serve(0, ["app"])
        waiting = admission.again(taken_too=False)
        yield until(lambda: self.waiting() == 1)
        yield front.crew.served(["app"])  # so the gate has heard of it, too
        stopped = front.stop()
        yield self.assertFailure(waiting, GateUnavailable)
        yield stopped
        yield self.assertFailure(front.crew.take("a", 1), GateUnavailable)
        self.assertEqual((self.at(worker), self.waiting()), ({}, 0))


class DeathTests(CrewTestCase):
    @inlineCallbacks
    def test_watch(self) -> Steps:
        """Whoever watches a process is told of its death when its lease has run out, or it says goodbye."""
        a, b, c = (self.gate(lease=2.0) for _ in range(3))
        lost: list[str] = []
        yield b.crew.serve(1, ["app"])
        yield c.crew.serve(1, ["app"])
        a.crew.watch(b.owner, lambda: lost.append("b"))
        a.crew.watch(c.owner, lambda: lost.append("c"))
        a.crew.watch(c.owner, lambda: lost.append("not c"))()
        b._heart.stop()  # type: ignore[no-untyped-call]
        yield until(lambda: lost)
        self.assertEqual(lost, ["b"])
        self.assertEqual(self.count("owners"), 2)
        yield c.stop()
        yield until(lambda: len(lost) == 2)
        self.assertEqual(lost, ["b", "c"])

    @inlineCallbacks
    def test_watcher_fails(self) -> Steps:
        """Whoever watches, too, is told, and of others later."""
        a, b, c = (self.gate(lease=2.0) for _ in range(3))
        lost: list[str] = []
        yield b.crew.serve(1, ["app"])
        yield c.crew.serve(1, ["app"])
        a.crew.watch(b.owner, lambda: lost.index("nothing"))
        a.crew.watch(b.owner, lambda: lost.append("b"))
        a.crew.watch(c.owner, lambda: lost.append("c"))
        yield b.stop()
        yield until(lambda: lost)
        yield c.stop()
        yield until(lambda: len(lost) == 2)
        self.assertEqual(lost, ["b", "c"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    @inlineCallbacks
    def test_orphans(self) -> Steps:
        """
        A dead front's slots stay taken as long as a worker is at work on what it has taken; what it has not, it may not
        take any more.
        """
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        yield worker.crew.serve(3, ["app"])
        asked = gatherResults([self.ask(front, counters=(Counter("three", 3),)) for _ in range(3)])
        first, second, third = yield asked
        for admission in (first, second):
            yield worker.crew.take(front.owner, admission.serial)
        lost: Deferred[None] = Deferred()
        end = worker.crew.watch(front.owner, lambda: lost.callback(None))
        self.freeze(front)
        yield worker.crew.serve(3, ["app"])
        yield until(lambda: len(self.at(worker)) == 2)
        self.assertEqual(self.held("three"), 2)
        self.assertIs((yield worker.crew.take(front.owner, third.serial)), False)
        self.assertIs((yield worker.crew.inherit(front.owner, lambda: [first.serial])), True)
        self.assertEqual((yield worker.crew.serve(3, ["app"])), 1)
        self.assertEqual(self.held("three"), 1)
        end()
        yield worker.crew.serve(3, ["app"])
        yield until(lambda: not self.held("three"))

    @inlineCallbacks
    def test_back_without(self) -> Steps:
        """
        A front that was taken for dead is back, without what it has given up meanwhile: the worker hears of it with the
        next heartbeat, though it has something of that front all the time.
        """
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        yield worker.crew.serve(3, ["app"])
        first, second = yield gatherResults([self.ask(front, counters=(Counter("three", 3),)) for _ in "ab"])
        for admission in (first, second):
            yield worker.crew.take(front.owner, admission.serial)
        self.client.zadd(self.owners, {front.owner: 1})
        yield self.gate(lease=3600.0).crew.served(["app"])  # its batch finds that
        second.release()
        yield until(lambda: self.at(worker).get(f"{front.owner}:{first.serial}") == "t")
        self.assertEqual(self.held("three"), 2)
        said: list[bool] = []
        watch = worker.crew.watch
        watch(front.owner, lambda: said.index(True))  # one that fails keeps it from nobody
        watch(
            front.owner,
            lambda: worker.crew.inherit(front.owner, lambda: [first.serial]).addCallback(said.append),
        )
        yield worker.crew.serve(3, ["app"])
        yield until(lambda: said)
        self.assertEqual((said, self.held("three"), len(self.at(worker))), ([False], 1, 1))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class HealingTests(CrewTestCase):
    @inlineCallbacks
    def test_lost_replies(self) -> Steps:
        """What was asked when the connection was lost is done once, whether or not it was done before."""
        front, worker = self.gate(lease=3600.0), self.gate(lease=3600.0)
        yield worker.crew.serve(2, ["app"])
        admission = yield self.ask(front, counters=ONE)
        for turns in range(5):
            waiting = admission.again(taken_too=True)
            for _ in range(turns):
                yield deferLater(reactor, 0)
            front._link.reset()
            admission = yield waiting
            taken = worker.crew.take(front.owner, admission.serial)
            worker._link.reset()
            self.assertIs((yield taken), True)
            self.assertEqual(self.at(worker), {f"{front.owner}:{admission.serial}": "t"})
            self.assertEqual((self.held("one"), front._places.held, len(front._places)), (1, 1, 1))
        admission.release()
        yield until(lambda: not self.at(worker) and not self.held("one"))

    @inlineCallbacks
    def test_loss_of_memory(self) -> Steps:
        """When Redis has lost its memory, the worker is one again, and what is under way has its place again."""
        front, worker = self.gate(lease=0.8), self.gate(lease=0.8)
        yield worker.crew.serve(1, ["app"])
        admission = yield self.ask(front)
        yield worker.crew.take(front.owner, admission.serial)
        lost: list[str] = []
        front.crew.watch(worker.owner, lambda: lost.append("worker"))
        worker.crew.watch(front.owner, lambda: lost.append("front"))
        self.client.delete(*self.keys())
        later = self.ask(front)
        yield until(lambda: self.at(worker) and self.waiting() == 1)
        self.assertIs((yield worker.crew.take(front.owner, admission.serial)), True)
        self.assertEqual((yield worker.crew.serve(1, ["app"])), 1)
        admission.release()
        (yield later).release()
        self.assertEqual(lost, [])

    @inlineCallbacks
    def test_served_in_grace(self) -> Steps:
        """Whoever asks in grace who serves a queue is told when the workers have said so again."""
        front, worker = self.gate(lease=0.8), self.gate(lease=0.8)
        yield worker.crew.serve(3, ["app"])
        self.assertEqual((yield front.crew.served(["app"])), {"app": 3})
        self.client.delete(*self.keys())
        self.assertEqual((yield front.crew.served(["app", "other"])), {"app": 3, "other": 0})

    @inlineCallbacks
    def test_unwatched_orphans(self) -> Steps:
        """A heartbeat gives back what a dead front has left that nobody watches."""
        front, worker = self.gate(lease=0.8), self.gate(lease=0.8)
        yield worker.crew.serve(1, ["app"])
        admission = yield self.ask(front, counters=ONE)
        yield worker.crew.take(front.owner, admission.serial)
        yield front.stop()
        yield until(lambda: not self.at(worker) and not self.held("one"))


class OtherGateTests(CrewTestCase):
    def test_local(self) -> None:
        """Within one process, and where a process would go on without Redis, there are no workers."""
        self.assertRaises(ValueError, LocalGate(reactor).acquire, Ticket((), queue="app"))
        gate = RedisGate(reactor, namespace=self.namespace)
        self.assertRaises(ValueError, gate.acquire, Ticket((), queue="app"))
        self.assertRaises(ValueError, Ticket, (), queue="")
        admission = self.successResultOf(LocalGate(reactor).acquire(Ticket(ONE)))
        self.assertRaises(ValueError, admission.again, taken_too=True)
