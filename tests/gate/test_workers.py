"""Places at workers, batch by batch, on a real server: C{gate.lua} and C{workers.lua}."""

from __future__ import annotations

from typing import Any

from valkey.exceptions import ResponseError

from tests import valkey
from tests.gate.model import ScriptOwner, acquire_operation, needs
from tests.gate.test_script import ScriptTestCase
from thrtwisted.gate import Counter, Rate
from thrtwisted.gate.order import ARRIVALS

SECOND = 1_000_000

ONE = [Counter("one", 1)]
FIVE = [Counter("five", 5)]


def acquire(serial: int, counters: list[Counter] = FIVE, queue: str = "app", **options: Any) -> list[Any]:
    return acquire_operation(serial, counters, queue=queue, **options)


def again(
    serial: int,
    new: int,
    counters: list[Counter] = FIVE,
    *,
    taken_too: int = 0,
    order: int = 0,
    queue: str = "app",
) -> list[Any]:
    return ["again", serial, new, taken_too, order, 50, *needs(counters, queue=queue)]


class WorkersTestCase(ScriptTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.front = self.owner("front")

    def worker(self, name: str = "worker", places: int = 1, *queues: str) -> ScriptOwner:
        worker = self.owner(name)
        worker.batch(["serve", places, *(queues or ("app",))])
        return worker

    def at(self, worker: ScriptOwner) -> dict[str, str]:
        states = self.client.hgetall(f"{worker.key}:at:{worker.name}")
        return {ticket.decode(): state.decode() for ticket, state in states.items()}

    def used(self, counter: str) -> int:
        return int(self.client.hget(f"{self.front.key}:used", counter) or 0)

    def dies(self, owner: ScriptOwner) -> None:
        """An owner's lease has just ended."""
        seconds, microseconds = self.client.time()
        self.client.zadd(f"{owner.key}:owners", {owner.name: seconds * 1000 + microseconds // 1000 - 1})

    def answers(self, owner: ScriptOwner, *operations: list[Any]) -> list[Any]:
        answers: list[Any] = owner.batch(*operations).answers
        return answers


class AssignmentTests(WorkersTestCase):
    def test_least_busy(self) -> None:
        """A ticket goes to the worker that has the smallest part of its places taken; never to one that has none."""
        big, small = self.worker("big", 4), self.worker("small", 2)
        reply = self.front.batch(*(acquire(serial, [Counter("many", 9)]) for serial in range(1, 8)))
        self.assertEqual((reply.admitted, reply.waiting), ([1, 2, 3, 4, 5, 6], 1))
        workers = reply.workers[1::2]
        self.assertEqual(reply.workers[::2], reply.admitted)
        self.assertEqual(workers, ["big", "small", "big", "big", "small", "big"])
        self.assertEqual((len(self.at(big)), len(self.at(small))), (4, 2))

    def test_published(self) -> None:
        """Who is admitted by another's batch is told of its worker, too."""
        worker = self.worker("worker", 1)
        other = self.owner("other")
        self.front.batch(acquire(1))
        other.batch(acquire(7))
        self.front.batch(["release", 1])
        self.assertEqual((other.published(), other.workers), ([7], [7, "worker"]))
        self.assertEqual(self.at(worker), {"other:7": ""})

    def test_priority_over_queues(self) -> None:
        """A place goes to the best ticket of all the queues that its worker serves."""
        self.worker("worker", 1, "a", "b")
        self.front.batch(acquire(1, queue="a"), acquire(2, queue="a"))
        self.front.batch(acquire(3, queue="b", priority=1), acquire(4, queue="c", priority=1))
        order = [self.front.batch(["release", serial]).admitted for serial in (1, 3)]
        self.assertEqual(order, [[3], [2]])
        self.assertEqual(self.front.batch().waiting, 1)

    def test_counters_too(self) -> None:
        """A place is not kept for a ticket that a limit holds up, nor a slot for one that no worker can take."""
        self.worker("worker", 1, "a")
        self.front.batch(acquire_operation(1, ONE))
        reply = self.front.batch(acquire(2, ONE, queue="a", priority=1), acquire(3, queue="a"))
        self.assertEqual(reply.admitted, [3])
        reply = self.front.batch(["release", 1], acquire_operation(4, ONE))
        self.assertEqual(reply.admitted, [4])
        self.assertEqual(self.front.batch(["release", 3], ["release", 4]).admitted, [2])

    def test_disconnected(self) -> None:
        """A worker to which no messages arrive gets no ticket, until it serves again."""
        worker = self.worker("worker", 5)
        worker.channel.unsubscribe()
        worker.channel.get_message(timeout=5)
        self.assertEqual(self.front.batch(acquire(1)).admitted, [])
        other = self.worker("other", 1)
        self.assertEqual((self.front.published(), self.front.workers), ([1], [1, "other"]))
        self.front.batch(acquire(2))
        worker.channel.subscribe(f"{worker.key}:owner:{worker.name}")
        worker.channel.get_message(timeout=5)
        worker.batch(["serve", 5, "app"])
        self.assertEqual((self.front.published(), self.front.workers), ([2], [2, "worker"]))
        self.assertEqual(len(self.at(other)), 1)

    def test_connected_again(self) -> None:
        """Until a worker that is connected again has said that it serves, nobody overtakes those who wait for it."""
        worker = self.worker("worker", 5)
        worker.channel.unsubscribe()
        worker.channel.get_message(timeout=5)
        self.assertEqual(self.front.batch(acquire(1, priority=1)).admitted, [])
        worker.channel.subscribe(f"{worker.key}:owner:{worker.name}")
        worker.channel.get_message(timeout=5)
        self.front.batch(acquire_operation(2, ONE), acquire(3, ONE, priority=40))
        self.assertEqual(self.front.batch(acquire(4, priority=99)).admitted, [])
        self.assertEqual(self.front.batch(["release", 2]).admitted, [])
        self.assertEqual(self.front.batch(acquire(5, [], priority=0)).admitted, [5])
        self.assertEqual(self.front.batch(["release", 1]).admitted, [3, 4])

    def test_many_places(self) -> None:
        """A batch gives away so many places and no more; the next goes on, by whoever it is, and nobody overtakes."""
        many = [Counter("many", 2000)]
        self.front.max_waiting = 2000
        self.front.batch(*(acquire(serial, many) for serial in range(1, 701)))
        worker = self.owner("worker")
        reply = worker.batch(["serve", 1000, "app"])
        self.assertEqual((reply.wake, reply.waiting), (1, 200))
        self.assertEqual(self.front.published(), list(range(1, 501)))
        other = self.owner("other")
        self.assertEqual(self.front.published(), list(range(501, 701)))
        reply = other.batch(acquire(1, many, priority=99))
        self.assertEqual((reply.wake, reply.admitted), (0, [1]))
        self.assertFalse(self.client.hexists(f"{worker.key}:gate", "rest"))

    def test_better_than_the_rest(self) -> None:
        """Who comes in the batch that leaves others for the next, waits with them, each at its rank."""
        self.front.max_waiting = 2000
        self.front.batch(*(acquire(serial, []) for serial in range(1, 502)))
        worker = self.owner("worker")
        reply = worker.batch(["serve", 502, "app"], acquire(1, [], priority=99), acquire(2, [], priority=1))
        self.assertEqual((reply.admitted, reply.waiting), ([], 3))
        self.assertNotIn(501, self.front.published())
        reply = worker.batch()
        self.assertEqual((reply.admitted, self.front.published(), reply.waiting), ([2], [501], 1))

    def test_serves_others(self) -> None:
        """A worker may serve other queues, and have more or fewer places, at any time."""
        worker = self.worker("worker", 1, "a")
        self.front.batch(acquire(1, queue="a"), acquire(2, queue="a"), acquire(3, queue="b"))
        self.assertEqual(self.answers(worker, ["serve", 3, "b"]), [[2]])
        self.assertEqual(self.front.published(), [3])
        self.assertEqual(self.answers(self.front, ["served", "a", "b"]), [[0, 3]])
        worker.batch(["serve", 0, "a", "b"])
        self.assertEqual(self.front.batch(["release", 3]).admitted, [])
        self.assertEqual(self.answers(worker, ["serve", 3, "a", "b"]), [[2]])
        self.assertEqual(self.front.published(), [2])

    def test_turns(self) -> None:
        """Who waits for a worker takes turns."""
        self.worker("worker", 1)
        reply = self.front.batch(
            acquire(1, [], fair="x"),
            *(acquire(serial, [], fair="x") for serial in (2, 3)),
            acquire(4, [], fair="y"),
        )
        order = [self.front.batch(["release", serial]).admitted for serial in (1, 2, 4)]
        self.assertEqual((reply.admitted, order), ([1], [[2], [4], [3]]))

    def test_order_is_told(self) -> None:
        """A ticket that is admitted at once has a rank all the same, for it may have to come back."""
        self.worker()
        reply = self.front.batch(acquire(1))
        self.assertEqual((reply.admitted, reply.queued), ([1], [1, 50 * ARRIVALS + 1]))


class TakingTests(WorkersTestCase):
    def test_take(self) -> None:
        """A worker takes what has a place at it, and is told so as often as it asks."""
        worker, other = self.worker(), self.worker("other", 1, "none")
        self.front.batch(acquire(1), acquire(2))
        self.assertEqual(self.answers(other, ["take", "front", 1]), [0])
        self.assertEqual(self.answers(worker, ["take", "front", 1], ["take", "front", 1]), [1, 1])
        self.assertEqual(self.answers(worker, ["take", "front", 2], ["take", "other", 1]), [0, 0])
        self.front.batch(["release", 1], ["release", 2])
        self.assertEqual(self.answers(worker, ["take", "front", 1]), [0])
        self.assertEqual(self.at(worker), {})

    def test_again(self) -> None:
        """What was not taken waits again, before those that came later; saying it twice changes nothing."""
        worker = self.worker()
        order = self.front.batch(acquire(1, ONE), acquire(2, ONE)).queued[1]
        worker.batch(["serve", 0, "app"])
        for _ in range(2):
            reply = self.front.batch(again(1, 3, ONE, order=order))
            self.assertEqual((reply.answers, reply.waiting, reply.held), ([1], 2, 0))
            self.assertEqual(reply.queued, [3, order])
        self.assertEqual((self.used("one"), self.at(worker)), (0, {}))
        worker.batch(["serve", 1, "app"])
        self.assertEqual(self.front.published(), [3])
        reply = self.front.batch(again(1, 3, ONE, order=order))  # the reply that said so was lost
        self.assertEqual((reply.answers, reply.admitted, reply.workers), ([1], [3], [3, "worker"]))
        self.assertEqual(self.answers(worker, ["take", "front", 1], ["take", "front", 3]), [0, 1])
        self.assertEqual(self.front.batch(["release", 3]).admitted, [2])

    def test_again_taken(self) -> None:
        """What was taken waits again only if that is wanted."""
        worker = self.worker()
        order = self.front.batch(acquire(1)).queued[1]
        worker.batch(["take", "front", 1])
        reply = self.front.batch(again(1, 2, order=order))
        self.assertEqual((reply.answers, reply.held, reply.waiting), ([0], 1, 0))
        reply = self.front.batch(again(1, 2, order=order, taken_too=1))
        self.assertEqual((reply.answers, reply.admitted, reply.held), ([1], [2], 1))
        self.assertEqual(self.at(worker), {"front:2": ""})

    def test_again_overtakes_nobody(self) -> None:
        """Of what it gives back, somebody better may have some: then it waits."""
        self.worker("worker", 2, "app")
        order = self.front.batch(acquire(1, ONE)).queued[1]
        self.front.batch(acquire(2, ONE, priority=1))
        self.assertEqual(self.front.batch(again(1, 3, ONE, order=order)).admitted, [2])
        self.assertEqual(self.front.batch(["release", 2]).admitted, [3])

    def test_again_without_a_rank(self) -> None:
        """One whose rank nobody knows comes after those who wait; no bound holds for it."""
        worker = self.worker()
        self.front.batch(acquire(1), acquire(2))
        worker.batch(["serve", 0, "app"])
        self.front.max_waiting = 0
        reply = self.front.batch(again(1, 3))
        self.assertEqual((reply.answers, reply.full, reply.waiting), ([1], [], 2))
        worker.batch(["serve", 1, "app"])
        self.assertEqual(self.front.published(), [2])

    def test_again_counts_once(self) -> None:
        """A ticket that waits again is not counted again by a rate."""
        counted = [Counter("hourly", rate=Rate(3600 * SECOND))]
        self.worker()
        order = self.front.batch(acquire(1, counted)).queued[1]
        reply = self.front.batch(again(1, 2, counted, order=order))
        self.assertEqual((reply.admitted, reply.waiting), ([2], 0))
        self.front.batch(["release", 2])
        self.assertEqual(self.front.batch(acquire(3, counted)).admitted, [])
        self.front.batch(["release", 3])
        self.client.delete(f"{self.front.key}:rate:hourly")

    def test_again_with_weights(self) -> None:
        """So it is where tickets are unequal."""
        heavy = [Counter("three", 3, weight=3)]
        self.worker("worker", 5)
        order = self.front.batch(acquire(1, heavy)).queued[1]
        self.front.batch(acquire(2, [Counter("three", 3)]), acquire(3, heavy, priority=1))
        self.assertEqual(self.front.batch(again(1, 4, heavy, order=order)).admitted, [3])
        self.assertEqual(self.front.batch(["release", 3]).admitted, [4])
        self.assertEqual(self.front.batch(["release", 4]).admitted, [2])


class DeathTests(WorkersTestCase):
    def test_peers(self) -> None:
        """It is told how long others live, by Redis's clock; and nothing in grace of those that are not there."""
        a = self.owner("a")
        [[left, dead]] = self.answers(self.front, ["peers", "a", "none"])
        self.assertTrue(59_000 < left <= 60_000)
        self.assertEqual(dead, 0)
        self.expire(a)
        self.assertEqual(self.answers(self.front, ["peers", "a"]), [[0]])
        self.owner("b")
        self.front.batch()
        self.client.delete(*self.keys())
        self.front.batch(announced=[])
        self.assertEqual(self.answers(self.front, ["peers", "a"]), [[-1]])
        self.assertEqual(self.answers(self.front, ["take", "a", 1]), [-1])
        self.assertEqual(self.answers(self.front, ["served", "app"]), [-1])

    def test_worker(self) -> None:
        """What has a place at a dead worker is its front's to give back, and nothing more is given to that worker."""
        worker = self.worker("worker", 3)
        self.front.batch(acquire(1), acquire(2))
        worker.batch(["take", "front", 2])
        self.expire(worker)
        reply = self.front.batch(acquire(3))
        self.assertEqual((reply.admitted, reply.held), ([], 2))
        self.assertEqual(self.answers(self.front, ["served", "app"]), [[0]])
        self.assertEqual(
            self.answers(self.front, again(1, 4), again(2, 5), again(2, 6, taken_too=1)), [1, 0, 1]
        )
        self.assertEqual((self.used("five"), self.at(worker)), (0, {}))

    def test_front(self) -> None:
        """
        A dead front's tickets leave the queue; those that were not taken are released, and those that were are the
        worker's, until it is done with them.
        """
        worker, other = self.worker("worker", 2), self.owner("other")
        self.front.batch(acquire(1), acquire(2), acquire(3))
        worker.batch(["take", "front", 1])
        other.batch(acquire(7), acquire(8))
        self.expire(self.front)
        self.assertEqual(other.batch().admitted, [7])
        self.assertEqual(self.at(worker), {"front:1": "o" + "five \4app", "other:7": ""})
        self.assertEqual(self.used("five"), 2)
        self.assertEqual(self.answers(worker, ["serve", 2, "app"]), [[2, "front"]])
        self.assertEqual(self.answers(worker, ["take", "front", 1], ["take", "front", 2]), [0, 0])
        self.assertEqual(self.answers(worker, ["inherit", "front", 1]), [1])
        self.assertEqual(other.published(), [])
        self.assertEqual(self.answers(worker, ["inherit", "front"], ["inherit", "front"]), [1, 1])
        self.assertEqual(other.published(), [8])
        self.assertEqual(self.used("five"), 2)

    def test_front_comes_back(self) -> None:
        """A front that was taken for dead has again what its workers are at work on, counted once."""
        worker = self.worker("worker", 2)
        self.front.batch(acquire(1))
        worker.batch(["take", "front", 1])
        self.expire(self.front)
        worker.batch()
        reply = self.front.batch(announced=[[1, 1, 0, 50, "worker", *needs(FIVE, queue="app")]])
        self.assertEqual((reply.held, reply.overshoot, self.used("five")), (1, 0, 1))
        self.assertEqual(self.at(worker), {"front:1": "t"})
        self.assertEqual(self.answers(worker, ["inherit", "front"]), [0])
        self.front.batch(["release", 1])
        self.assertEqual((self.used("five"), self.at(worker)), (0, {}))

    def test_both_at_once(self) -> None:
        """If its worker is dead too, a dead front's ticket is free; with a reclaim delay, when that is over."""
        for reclaim in (0, 3_600_000):
            front, worker = self.owner(f"front{reclaim}"), self.worker(f"worker{reclaim}")
            front.batch(acquire(1, reclaim=reclaim))
            worker.batch(["take", front.name, 1])
            self.dies(front)
            self.dies(worker)
            self.front.batch()
            self.assertEqual(self.used("five"), 1 if reclaim else 0)
        self.client.zadd(f"{self.front.key}:dead", {front.name: 1})
        self.client.hset(f"{self.front.key}:gate", f"death:{front.name}", 1)
        self.front.batch()
        self.assertEqual((self.used("five"), self.at(worker)), (0, {}))

    def test_orphans_of_the_dead(self) -> None:
        """A worker that dies after a front leaves that one's slots, once their reclaim delay is over."""
        for reclaim in (0, 3_600_000):
            front, worker = self.owner(f"front{reclaim}"), self.worker(f"worker{reclaim}")
            front.batch(acquire(1, reclaim=reclaim))
            worker.batch(["take", front.name, 1])
            self.dies(front)
            self.front.batch()
            self.assertEqual(self.used("five"), 1)
            self.dies(worker)
            self.front.batch()
            self.assertEqual(self.used("five"), 1 if reclaim else 0)
        self.client.zadd(f"{self.front.key}:dead", {worker.name: 1})
        self.client.hset(f"{self.front.key}:gate", f"death:{worker.name}", 1)
        self.front.batch()
        self.assertEqual((self.used("five"), self.at(worker)), (0, {}))

    def test_front_quits(self) -> None:
        """A front that says goodbye leaves to its workers what they have taken."""
        worker = self.worker("worker", 3)
        leaving = self.owner("leaving")
        leaving.batch(acquire(1), acquire(2))
        worker.batch(["take", "leaving", 1])
        leaving.batch(["quit"])
        self.assertEqual(list(self.at(worker)), ["leaving:1"])
        self.assertEqual(self.answers(worker, ["inherit", "leaving"]), [1])
        self.assertEqual(self.used("five"), 0)

    def test_worker_quits(self) -> None:
        """A worker that says goodbye gets nothing any more."""
        worker = self.worker("worker", 3)
        worker.batch(["quit"])
        self.assertEqual(self.front.batch(acquire(1)).admitted, [])
        self.assertEqual(self.answers(self.front, ["served", "app"]), [[0]])


class MemoryTests(WorkersTestCase):
    def announced(self, serial: int, state: int, order: int = 0, worker: str = "") -> list[Any]:
        return [serial, state, order, 50, worker, *needs(FIVE, queue="app")]

    def test_loss(self) -> None:
        """After a loss of memory, what fronts announce has its places again, and counts as taken."""
        worker = self.worker("worker", 1)
        self.front.batch(acquire(1), acquire(2))
        self.client.delete(*self.keys())
        order = 50 * ARRIVALS + 2
        announced = [self.announced(1, 1, worker="worker"), self.announced(2, 0, order)]
        reply = self.front.batch(announced=announced)
        self.assertEqual((reply.held, reply.waiting, self.at(worker)), (1, 1, {"front:1": "t"}))
        worker.batch(["serve", 1, "app"], announced=[])
        self.assertEqual(self.front.published(), [])
        self.assertEqual(self.answers(worker, ["take", "front", 1]), [1])
        self.assertEqual(self.front.batch(["release", 1]).admitted, [2])

    def test_take_lost(self) -> None:
        """What Redis has as assigned may have been taken in a time that it has forgotten: it counts as taken."""
        worker = self.worker("worker", 2)
        order = self.front.batch(acquire(1)).queued[1]
        other = self.owner("other")
        other.batch(acquire(7))
        self.assertEqual(self.at(worker), {"front:1": "", "other:7": ""})  # as a replica has it that lags
        self.assertEqual(self.front.batch(unfamiliar=True), "unknown")
        self.assertEqual(self.at(worker), {"front:1": "t", "other:7": "t"})
        self.front.batch(announced=[self.announced(1, 1, order, "worker")])
        worker.batch(["serve", 2, "app"], announced=[])
        self.expire(worker)
        self.expire(other)
        self.assertEqual(self.answers(self.front, again(1, 2, order=order)), [0])

    def test_take_lost_again(self) -> None:
        """So it is soon after a grace, when no other one begins."""
        worker = self.worker("worker", 2)
        order = self.front.batch(acquire(1)).queued[1]
        self.front.batch(unfamiliar=True)
        announced = [self.announced(1, 1, order, "worker")]
        self.front.batch(announced=announced)
        worker.batch(["serve", 2, "app"], announced=[])
        self.client.hset(f"{worker.key}:at:worker", "front:1", "")
        self.front.known[0] = "another"
        reply = self.front.batch(announced=announced)
        self.assertEqual((reply.grace, self.at(worker)), (0, {"front:1": "t"}))

    def test_announced_in_between(self) -> None:
        """A ticket that may wait again, as a new one, is announced with that one: only one of them is there."""
        worker = self.worker()
        order = self.front.batch(acquire(1)).queued[1]
        announced = [self.announced(1, 2, 2, "worker"), self.announced(2, 3, order)]
        reply = self.front.batch(announced=announced)
        self.assertEqual((reply.held, reply.waiting, reply.admitted), (1, 0, []))
        worker.batch(["serve", 0, "app"])
        self.front.batch(again(1, 2, order=order))
        reply = self.front.batch(announced=announced)
        self.assertEqual((reply.held, reply.waiting, reply.queued), (0, 1, [2, order]))
        worker.batch(["serve", 1, "app"])
        reply = self.front.batch(announced=announced)
        self.assertEqual((reply.held, reply.admitted, reply.workers), (1, [2], [2, "worker"]))
        self.client.delete(*self.keys())
        reply = self.front.batch(announced=announced)
        self.assertEqual((reply.held, reply.waiting, self.at(worker)), (1, 0, {"front:1": "t"}))

    def test_in_grace(self) -> None:
        """In grace nobody is admitted, nor again; when it is over, all go that may."""
        worker = self.worker("worker", 5)
        order = self.front.batch(acquire(1)).queued[1]
        self.client.delete(*self.keys())
        self.front.batch(announced=[self.announced(1, 1, worker="worker")])
        reply = self.front.batch(again(1, 2, order=order, taken_too=1))
        self.assertTrue(reply.grace)
        self.assertEqual((reply.answers, reply.waiting, reply.held), ([1], 1, 0))
        reply = worker.batch(["serve", 5, "app"], announced=[])
        self.assertEqual((reply.grace, self.front.published()), (0, [2]))

    def test_wiped(self) -> None:
        """Where something was deleted and the rest makes no sense, all of it goes."""
        worker = self.worker("worker", 3, "app", "other")
        self.front.batch(acquire(1), acquire(2))
        worker.batch(["take", "front", 1])
        self.expire(self.front)
        worker.batch()
        self.owner("again").batch(acquire(1), acquire(2, queue="none"))
        self.client.delete(f"{worker.key}:used")
        self.assertEqual(worker.batch(), "unknown")
        self.assertEqual(self.keys(), [])
        for owner in self.owners:
            owner.batch(announced=[])

    def test_rank_is_told(self) -> None:
        """A ticket whose rank was told in a reply that was lost is given one, when it is announced."""
        self.worker()
        self.front.batch(acquire(1))
        reply = self.front.batch(announced=[self.announced(1, 0)])
        self.assertEqual((reply.admitted, reply.queued), ([1], [1, 50 * ARRIVALS + 2]))


class LifetimeTests(WorkersTestCase):
    """What is known of workers goes by itself, and nothing depends on it then."""

    def lives(self) -> dict[str, float]:
        """The seconds that keys of workers have."""
        prefix = f"{self.front.key}:"
        names = [key.decode().removeprefix(prefix) for key in self.keys()]
        kept = [name for name in names if name.split(":")[0] in ("workers", "serving", "at")]
        return {name: self.client.pttl(prefix + name) / 1000 for name in kept}

    def forget(self) -> None:
        """The time of all that has one is over."""
        for name in self.lives():
            self.client.delete(f"{self.front.key}:{name}")

    def test_all(self) -> None:
        """All of it has a time, which a worker renews when it says that it serves."""
        worker = self.worker("worker", 2)
        self.front.batch(acquire(1))
        for name in ("workers", "serving:app", "at:worker"):
            self.client.pexpire(f"{self.front.key}:{name}", 5000)
        worker.batch(["serve", 2, "app"])
        lives = self.lives()
        self.assertEqual(set(lives), {"workers", "serving:app", "at:worker"})
        self.assertTrue(all(235 < life <= 240 for life in lives.values()), lives)  # four leases
        self.front.batch(acquire(2))
        self.assertEqual(set(self.lives()), {"workers", "at:worker"})
        self.front.batch(["release", 2])
        lives = self.lives()
        self.assertEqual(set(lives), {"workers", "serving:app", "at:worker"})
        self.assertTrue(all(life > 0 for life in lives.values()), lives)

    def test_orphans(self) -> None:
        """What is known of orphans stays for a day, and for as much longer as they need their slots."""
        worker = self.worker("worker", 2)
        leaving = self.owner("leaving")
        leaving.batch(acquire(1, reclaim=3_600_000))
        worker.batch(["take", "leaving", 1])
        leaving.batch(["quit"])
        self.assertGreater(self.lives()["at:worker"], 86_000)
        worker.batch(["serve", 2, "app"])
        self.assertGreater(self.lives()["at:worker"], 86_000)
        self.dies(worker)
        self.front.batch()
        self.assertGreater(self.lives()["at:worker"], 86_000 + 3_500)
        self.client.zadd(f"{self.front.key}:dead", {worker.name: 1})
        self.client.hset(f"{self.front.key}:gate", f"death:{worker.name}", 1)
        self.front.batch()
        self.assertEqual((self.at(worker), self.used("five")), ({}, 0))

    def test_both_come_back(self) -> None:
        """A front says what it has; it counts as taken, and the worker has no more places than before."""
        worker = self.worker("worker", 2)
        order = self.front.batch(acquire(1)).queued[1]
        self.forget()
        announced = [1, 1, order, 50, "worker", *needs(FIVE, queue="app")]
        self.front.batch(announced=[announced])
        worker.batch(["serve", 2, "app"])
        self.assertEqual((self.at(worker), self.used("five")), ({"front:1": "t"}, 1))
        self.assertGreater(min(self.lives().values()), 0)
        self.front.batch(["release", 1])
        self.assertEqual((self.at(worker), self.used("five")), ({}, 0))

    def test_not_announced(self) -> None:
        """A ticket of which nothing is known counts as taken; its slots come free once."""
        worker = self.worker("worker", 2)
        order = self.front.batch(acquire(1), acquire(2)).queued[1]
        self.forget()
        self.assertEqual(self.answers(worker, ["take", "front", 1]), [0])
        self.assertEqual(self.answers(self.front, again(1, 3, order=order)), [0])
        self.front.batch(["release", 1], ["release", 2])
        self.assertEqual((self.at(worker), self.used("five")), ({}, 0))

    def test_dead_front(self) -> None:
        """So it does when its front is dead: then it is the worker's."""
        worker = self.worker("worker", 2)
        self.front.batch(acquire(1))
        self.forget()
        worker.batch(["serve", 2, "app"])
        self.expire(self.front)
        self.assertEqual(self.answers(worker, ["serve", 2, "app"]), [[1, "front"]])
        self.assertEqual(self.used("five"), 1)
        self.assertEqual(self.answers(worker, ["inherit", "front"]), [1])
        self.assertEqual((self.at(worker), self.used("five")), ({}, 0))

    def test_silence(self) -> None:
        """After a day without a word all is forgotten, for orphans may be."""
        self.worker("worker", 2)
        self.front.batch(acquire(1))
        self.client.hincrby(f"{self.front.key}:gate", "last", -86_400_001)
        self.assertEqual(self.front.batch(), "unknown")
        self.assertEqual(self.keys(), [])
        for owner in self.owners:
            owner.batch(announced=[])

    def test_left_behind(self) -> None:
        """What an older version leaves that wipes the namespace, and knows of no workers, takes up no place."""
        worker = self.worker("worker", 1)
        self.front.batch(acquire(1))
        kept = ("workers", "serving:app", "at:worker")
        known = {f"{self.front.key}:{name}".encode() for name in kept}
        self.client.delete(*(key for key in self.keys() if key not in known))
        self.front.batch(announced=[])
        worker.batch(["serve", 1, "app"], announced=[])
        self.assertEqual(self.at(worker), {})
        reply = self.front.batch(acquire(2))
        self.assertEqual((reply.admitted, reply.workers), ([2], [2, "worker"]))

    def test_not_allowed(self) -> None:
        """A user that may not ask who is connected is told so, and nothing is done half way."""
        self.worker("worker", 1)
        self.client.execute_command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "&*", "+@all", "-pubsub")
        self.addCleanup(self.client.execute_command, "ACL", "DELUSER", "deaf")
        with valkey.client() as client:
            deaf = ScriptOwner(client, self.namespace, "deaf")
            self.addCleanup(deaf.close)
            client.execute_command("AUTH", "deaf", "secret")
            before = {key: self.client.dump(key) for key in self.keys()}
            operations = [acquire_operation(1, ONE), acquire_operation(2, ONE), acquire(3)]
            problem = self.assertRaises(ResponseError, deaf.batch, *operations, announced=[])
        self.assertIn("'pubsub|numsub'", str(problem))
        self.assertEqual({key: self.client.dump(key) for key in self.keys()}, before)


class QuietTests(ScriptTestCase):
    def test_costs_nothing(self) -> None:
        """Where no ticket has a queue, nothing is done for workers."""
        owner = self.owner("a")
        with valkey.client() as client, client.monitor() as monitor:
            owner.batch(acquire_operation(1, ONE))
            self.client.echo("end")
            said = []
            for command in monitor.listen():
                if "ECHO" in command["command"].upper():
                    break
                said.append(command["command"])
        self.assertFalse(
            [line for line in said if "NUMSUB" in line or ":workers" in line.split("\x00")[0][:60]]
        )
        self.assertFalse(self.client.hexists(f"{owner.key}:gate", "relayed"))
