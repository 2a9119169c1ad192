"""
Who waits for time at Redis, which has no timers: one of the processes wakes them. Over a simulated network, where hours
pass in seconds; the gates and the script are the product's own.
"""

from __future__ import annotations

from collections import Counter as TallyOf
from itertools import pairwise
from typing import Any

from msgspec import msgpack
from twisted.internet.defer import Deferred

from tests.gate.test_histories import ONE, HistoryTestCase
from thrtwisted.errors import RateExceeded
from thrtwisted.gate import Counter, IAdmission, Quota, Rate, Ticket

SECOND = 1_000_000

#: One in two seconds.
SLOW = (Counter("slow", rate=Rate(2 * SECOND)),)


class WakingTestCase(HistoryTestCase):
    """@ivar batches: how many have been done, by owner."""

    def setUp(self) -> None:
        super().setUp()
        self.batches: TallyOf[str] = TallyOf()
        self.world.executed = lambda owner, batch, reply: self.batches.update([owner])

    def start(self, *names: str, **options: Any) -> None:
        for name in names:
            self.world.start(name, **options)
        self.advance(0.5)

    def advance(self, seconds: float) -> None:
        """Time passes, and all look at their clocks: what is asked of them next, is asked then."""
        self.world.advance(seconds)
        for owner in self.world.owners.values():
            if not owner.frozen:
                owner.look_at_clock()

    def acquire(self, name: str, counters: tuple[Counter, ...] = ONE, **options: Any) -> Deferred[IAdmission]:
        told = super().acquire(name, counters, **options)
        self.advance(0.0)
        return told

    def use_up(self, name: str) -> None:
        """A ticket goes, and the next one has to wait for two seconds."""
        self.successResultOf(self.acquire(name, SLOW)).release()

    def waits_until_due(self, waiting: Deferred[IAdmission]) -> None:
        """It is admitted when it may be, 1.98 s after it came, and not before."""
        self.advance(1.97)
        self.assertNoResult(waiting)
        self.advance(0.03)
        self.successResultOf(waiting).release()

    def keys(self) -> set[str]:
        prefix = self.world.server.prefix
        keys = self.world.server.keys()
        return {key.decode().removeprefix(prefix) for key in keys}


class WakerTests(WakingTestCase):
    def test_one_timer(self) -> None:
        """One process has the timer, and sends one batch when it is time. Nobody else does, and nobody asks before."""
        self.start("a", "b", "c", lease=3600.0)  # no heartbeat can help
        self.use_up("a")
        waiting = self.acquire("b", SLOW)
        later = self.acquire("c", SLOW)
        self.batches.clear()
        self.advance(1.97)
        self.assertEqual((self.batches, self.called(waiting)), ({}, False))
        self.advance(0.02)
        self.assertEqual((self.batches, self.called(waiting), self.called(later)), ({"b": 1}, True, False))
        self.advance(1.99)
        self.assertTrue(self.called(later))
        self.assertLessEqual(sum(self.batches.values()), 3)
        self.batches.clear()
        self.advance(60.0)
        self.assertEqual(self.batches, {})

    def called(self, waiting: Deferred[IAdmission]) -> bool:
        return bool(waiting.called)

    def test_earlier(self) -> None:
        """If somebody may go before the timer of another process ends, this one has a timer, too."""
        self.start("a", "b", lease=3600.0)
        soon = (Counter("soon", rate=Rate(SECOND // 10)),)
        self.use_up("a")
        self.successResultOf(self.acquire("a", soon)).release()
        late = self.acquire("a", SLOW)
        early = self.acquire("b", soon)
        self.advance(0.1)
        self.successResultOf(early).release()
        self.advance(1.9)
        self.successResultOf(late).release()

    def waker_without_ticket(self, **options: Any) -> Deferred[IAdmission]:
        """C{b} has the timer, and C{a} has the ticket that waits for it, for 1.97 s."""
        self.start("a", "b", **options)
        self.use_up("a")
        leaving = self.acquire("b", SLOW)
        waiting = self.acquire("a", SLOW)
        leaving.cancel()
        self.failureResultOf(leaving)
        self.advance(0.01)
        self.assertEqual(self.waker(), "b")
        return waiting

    def waker(self) -> str | None:
        waker = self.client.hget(f"{self.world.server.prefix}:gate", "waker")
        return waker.decode() if waker else None

    def test_waker_dies(self) -> None:
        """Whoever sends a batch when the one with the timer is late, be it a heartbeat, takes its place."""
        waiting = self.waker_without_ticket()
        self.world.kill("b")
        self.advance(1.95)
        self.assertNoResult(waiting)
        self.advance(1.3)
        self.successResultOf(waiting).release()

    def test_waker_freezes(self) -> None:
        """One that is frozen is late likewise; when it goes on, it does no harm."""
        waiting = self.waker_without_ticket()
        self.world.owners["b"].freeze()
        self.advance(3.3)
        self.successResultOf(waiting).release()
        self.world.owners["b"].thaw()
        self.advance(1.0)
        self.assertIsNone(self.waker())

    def test_waker_forgotten(self) -> None:
        """A timer that Redis has forgotten is given to whoever sends the next batch."""
        waiting = self.waker_without_ticket()
        self.world.kill("b")
        self.client.hdel(f"{self.world.server.prefix}:gate", "waker", "wake")
        self.advance(1.3)
        self.assertEqual(self.waker(), "a")
        self.advance(0.7)
        self.successResultOf(waiting).release()

    def test_waker_stops(self) -> None:
        """One that says goodbye leaves the timer to another at once."""
        waiting = self.waker_without_ticket(lease=3600.0)
        self.world.owners["b"].gate.stop()
        self.advance(0.05)
        self.assertEqual(self.waker(), "a")
        self.advance(1.95)
        self.successResultOf(waiting).release()

    def test_all_stop_at_once(self) -> None:
        """One that has said goodbye begins no timer when another, which did so a moment before, leaves it one."""
        self.start("a")
        owner = self.world.owners["a"]
        owner.gate.stop()
        self.advance(0.1)
        owner.gate.message(msgpack.encode([[], [], SECOND]))
        self.assertEqual(owner.clock.getDelayedCalls(), [])

    def test_lost_reply(self) -> None:
        """A reply that said who has the timer may be lost; the answer to the announcement says it again."""
        self.start("a", "b", lease=3600.0)
        self.use_up("a")
        self.fates["batch", "b"] = [("never answered", 0.0)]
        self.waits_until_due(self.acquire("b", SLOW))

    def test_lost_connection(self) -> None:
        """Nobody loses a place because a connection is lost when it is time: the announcement comes late, and does."""
        self.start("a", lease=3600.0)
        self.use_up("a")
        waiting = self.acquire("a", SLOW)
        self.advance(1.97)
        self.world.cut("a")
        self.advance(0.1)
        self.successResultOf(waiting).release()

    def test_memory_lost(self) -> None:
        """When Redis has forgotten everything, who waits is there again, and the rate begins anew."""
        self.start("a", "b")
        self.use_up("a")
        waiting = [self.acquire(name, SLOW) for name in ("a", "b")]
        self.world.server.forget()
        self.advance(4.0)
        for each in waiting:
            self.successResultOf(each).release()

    def test_clock_set_back(self) -> None:
        """Nobody waits for the hour by which the clock of Redis is set back."""
        self.start("a")
        self.use_up("a")
        waiting = self.acquire("a", SLOW)
        self.world.server.ahead = -3600
        self.advance(5.0)
        self.successResultOf(waiting).release()

    def test_nothing_is_left(self) -> None:
        """Who is idle leaves nothing in Redis but what is used up of rates; and that holds for those who come after."""
        self.start("a")
        self.use_up("a")
        leaving = self.acquire("a", SLOW)
        leaving.cancel()
        self.failureResultOf(leaving)
        self.advance(0.1)
        self.assertEqual(self.keys(), {":owners", ":gate", ":rate:slow"})
        self.world.owners["a"].gate.stop()
        self.advance(0.1)
        self.world.kill("a")
        self.assertEqual(self.keys(), {":rate:slow"})
        self.start("b")
        waiting = self.acquire("b", SLOW)
        self.assertNoResult(waiting)
        self.advance(2.0)
        self.successResultOf(waiting).release()


class RateTests(WakingTestCase):
    def test_evenly(self) -> None:
        """Over three processes there go as many as the burst says, then one each interval; nobody is sent away."""
        self.start("a", "b", "c")
        counters = (Counter("fast", rate=Rate(SECOND // 100, 10)),)
        began, times = self.world.now, []

        def admitted(admission: IAdmission) -> None:
            times.append(self.world.now - began)
            admission.release()

        for number in range(210):
            gate = self.world.owners["abc"[number % 3]].gate
            gate.acquire(Ticket(counters)).addCallback(admitted)
        self.advance(3.0)
        self.assertEqual(len(times), 210)
        for number, when in enumerate(times[10:], 1):
            self.assertLess(abs(when - number / 100), 0.02, number)
        gaps = [later - earlier for earlier, later in pairwise(times[9:])]
        self.assertTrue(0.009 < min(gaps) <= max(gaps) < 0.011, gaps)
        # The one with the timer for each that goes, the one whose it is to release it; and heartbeats.
        self.assertLess(sum(self.batches.values()), 2 * 210 + 3 * 10)

    def test_rejected(self) -> None:
        """One that comes over a rate that rejects is told when it would not; it takes no slot, and counts nowhere."""
        self.start("a", "b")
        counters = (Counter("one", 1), Counter("r", rate=Rate(10 * SECOND, over="reject")))
        self.successResultOf(self.acquire("a", counters)).release()
        problem = self.failureResultOf(self.acquire("b", counters), RateExceeded).value
        self.assertTrue(9.9 < problem.retry_after < 10, problem.retry_after)
        self.advance(10.0)
        self.successResultOf(self.acquire("b", counters)).release()

    def test_demoted(self) -> None:
        """One that comes over a rate that demotes yields to others, also after Redis has forgotten it and all else."""
        for lost in (False, True):
            name, other = f"a{lost}", f"b{lost}"
            self.start(name, other)
            one = Counter(f"one{lost}", 1)
            demoting = (one, Counter(f"r{lost}", rate=Rate(3600 * SECOND, over="demote", demote_to=90)))
            first = self.successResultOf(self.acquire(name, demoting))
            # Its priority is known by its order, if the reply that tells it was lost.
            self.fates["batch", name] = [("never answered", 0.0)] if lost else []
            demoted = self.acquire(name, demoting)
            self.advance(1.0)
            self.assertEqual([place.priority for place in self.world.owners[name].gate._places], [50, 90])
            self.world.server.forget()
            self.advance(4.0)
            better = self.acquire(other, (one,))
            first.release()
            self.advance(0.1)
            self.assertNoResult(demoted)
            self.successResultOf(better).release()
            self.advance(0.1)
            self.successResultOf(demoted).release()

    def test_quotas(self) -> None:
        """An admission tells what is left, whosever batch has led to it."""
        self.start("a", "b")
        counters = (
            Counter("shown", 2, rate=Rate(60 * SECOND, 5), shown=True),
            Counter("one", 1, shown=True),
            Counter("hidden", 1),
        )
        first = self.successResultOf(self.acquire("a", counters))
        self.assertEqual(first.quotas.keys(), {"shown", "one"})
        self.assertEqual(first.quotas["one"], Quota(0))
        waiting = self.acquire("b", counters)
        first.release()
        self.advance(0.01)
        quotas = self.successResultOf(waiting).quotas
        self.assertEqual((quotas["shown"].slots, quotas["shown"].tickets), (1, 3))
        self.assertTrue(119 < quotas["shown"].full_in < 120, quotas)

    def test_redis_gone(self) -> None:
        """While Redis is gone a process keeps to its share of the rates, and wakes its own."""
        self.start("a")
        self.world.take_away(silently=False)
        self.advance(0.5)
        self.use_up("a")
        waiting = self.acquire("a", SLOW)
        rejecting = (Counter("r", rate=Rate(10 * SECOND, over="reject"), shown=True),)
        shown = self.successResultOf(self.acquire("a", rejecting)).quotas
        self.assertEqual(shown["r"].tickets, 0)
        problem = self.failureResultOf(self.acquire("a", rejecting), RateExceeded).value
        self.assertTrue(9.9 < problem.retry_after < 10, problem.retry_after)
        self.advance(1.9)
        self.assertNoResult(waiting)
        self.advance(0.1)
        self.successResultOf(waiting).release()

    def test_waiting_while_redis_goes(self) -> None:
        """Who waits for time when Redis goes, waits here for it, and there again when it is back."""
        self.start("a")
        self.use_up("a")
        waiting = [self.acquire("a", SLOW) for _ in range(3)]
        self.world.take_away(silently=False)
        self.advance(1.0)
        self.successResultOf(waiting[0]).release()
        self.assertNoResult(waiting[1])
        self.world.bring_back(restarted=True)
        self.advance(10.0)
        for each in waiting[1:]:
            self.successResultOf(each).release()


class TurnTests(WakingTestCase):
    def order_of(self, waiting: dict[str, Deferred[IAdmission]], first: IAdmission) -> list[str]:
        """In which order they go, as each releases at once."""
        told: list[str] = []

        def note(admission: IAdmission, name: str) -> None:
            told.append(name)
            admission.release()

        for name, each in waiting.items():
            each.addCallback(note, name)
        first.release()
        self.advance(1.0)
        return told

    def queue(self) -> tuple[IAdmission, dict[str, Deferred[IAdmission]]]:
        """Five of one user wait, then one of another at another process."""
        first = self.successResultOf(self.acquire("a"))
        waiting = {f"x{number}": self.acquire("a", fair="x") for number in range(5)}
        waiting["y"] = self.acquire("b", fair="y")
        return first, waiting

    def test_turns(self) -> None:
        """One user's waiting requests do not stand before another's first."""
        self.start("a", "b")
        first, waiting = self.queue()
        self.assertEqual(self.order_of(waiting, first), ["x0", "y", "x1", "x2", "x3", "x4"])
        self.advance(0.1)
        self.assertEqual(self.keys(), {":owners", ":gate"})

    def test_turns_after_a_loss_of_memory(self) -> None:
        """When Redis has forgotten everything, each has its turn still, and new ones come after."""
        self.start("a", "b")
        first, waiting = self.queue()
        self.world.server.forget()
        self.advance(4.0)
        waiting["y again"] = self.acquire("b", fair="y")
        waiting["z"] = self.acquire("b", fair="z")
        order = self.order_of(waiting, first)
        self.assertEqual(order, ["x0", "y", "z", "x1", "y again", "x2", "x3", "x4"])

    def test_with_aging(self) -> None:
        """With aging, it counts how long a ticket has waited, and nothing else."""
        self.start("a", "b", aging=10.0)
        first, waiting = self.queue()
        self.assertEqual(self.order_of(waiting, first), ["x0", "x1", "x2", "x3", "x4", "y"])
