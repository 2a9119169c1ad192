"""C{gate.lua}, batch by batch, on a real server."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from valkey.exceptions import ResponseError

from tests import valkey
from tests.gate.model import ScriptOwner, acquire_operation, needs
from thrtwisted.gate import Counter, Rate

SECOND = 1_000_000

ONE = [Counter("one", 1)]
TWO = [Counter("two", 2)]


class ScriptTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = valkey.client()
        self.addCleanup(self.client.close)
        self.namespace = valkey.namespace()
        self.owners: list[ScriptOwner] = []

    def tearDown(self) -> None:
        """When all owners have said goodbye, nothing is left."""
        for owner in self.owners:
            owner.batch(["quit"], announced=[])
            owner.close()
        self.assertEqual(self.keys(), [])

    def keys(self) -> list[bytes]:
        keys: list[bytes] = self.client.keys("[{]" + self.namespace + "}*")
        return keys

    def owner(self, name: str, **options: Any) -> ScriptOwner:
        owner = ScriptOwner(self.client, self.namespace, name, **options)
        self.owners.append(owner)
        owner.batch(announced=[])
        return owner

    def expire(self, owner: ScriptOwner) -> None:
        """Let an owner's lease end."""
        self.client.zadd(f"{owner.key}:owners", {owner.name: 1})


class BatchTests(ScriptTestCase):
    def test_reply(self) -> None:
        """The reply says who was admitted and who waits, and the counts."""
        owner = self.owner("a")
        reply = owner.batch(*(acquire_operation(serial, TWO) for serial in (1, 2, 3)))
        self.assertEqual((reply.admitted, reply.full, reply.queued[0]), ([1, 2], [], 3))
        self.assertEqual((reply.held, reply.waiting, reply.released, reply.owners), (2, 1, 0, 1))
        reply = owner.batch(["release", 1])
        self.assertEqual((reply.admitted, reply.held, reply.waiting, reply.released), ([3], 2, 0, 1))

    def test_operations_in_order(self) -> None:
        """Operations of one batch are done one after the other."""
        owner = self.owner("a")
        reply = owner.batch(
            acquire_operation(1, ONE),
            acquire_operation(2, ONE),
            ["release", 1],
            acquire_operation(3, ONE, priority=1),
        )
        self.assertEqual((reply.admitted, reply.queued[0]), ([1, 2], 2))
        self.assertEqual(owner.batch(["release", 2]).admitted, [3])

    def test_acquire_again(self) -> None:
        """A ticket that is here, waiting or admitted, is not acquired twice."""
        owner = self.owner("a")
        owner.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        reply = owner.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        self.assertEqual((reply.held, reply.waiting), (1, 1))

    def test_release_again(self) -> None:
        """A slot is freed once."""
        owner = self.owner("a")
        owner.batch(*(acquire_operation(serial, TWO) for serial in (1, 2, 3, 4)))
        reply = owner.batch(["release", 1], ["release", 1], ["release", 99])
        self.assertEqual((reply.admitted, reply.waiting), ([3], 1))

    def test_full(self) -> None:
        """When as many wait as may, one more is refused, and leaves nothing; one with room everywhere is admitted."""
        owner = self.owner("a")
        owner.max_waiting = 1
        reply = owner.batch(*(acquire_operation(serial, ONE) for serial in (1, 2, 3)))
        self.assertEqual((reply.admitted, reply.full, reply.waiting), ([1], [3], 1))
        reply = owner.batch(acquire_operation(4, TWO), acquire_operation(5, [*ONE, Counter("other", 1)]))
        self.assertEqual((reply.admitted, reply.full), ([4], [5]))
        self.assertFalse(self.client.hexists(f"{owner.key}:slots", "other"))

    def test_published(self) -> None:
        """What one owner's release admits of another is published to that one, and only to it."""
        a, b, c = self.owner("a"), self.owner("b"), self.owner("c")
        a.batch(acquire_operation(1, ONE))
        b.batch(acquire_operation(7, ONE))
        self.assertEqual(a.batch(["release", 1]).admitted, [])
        self.assertEqual((a.published(), b.published(), c.published()), ([], [7], []))
        self.assertEqual(b.batch().held, 1)

    def test_priority_across_owners(self) -> None:
        """The best priority goes first, whoever's it is."""
        a, b = self.owner("a"), self.owner("b")
        a.batch(*(acquire_operation(serial, ONE) for serial in range(1, 6)))
        b.batch(acquire_operation(1, ONE, priority=1))
        self.assertEqual(a.batch(["release", 1]).admitted, [])
        self.assertEqual(b.published(), [1])
        self.assertEqual(b.batch(["release", 1]).admitted, [])
        self.assertEqual(a.published(), [2])

    def test_aging(self) -> None:
        """With aging, an earlier arrival overtakes a better priority once it has waited for long enough."""
        for aging, first in ((0.0, 3), (1.0, 3), (0.1, 2)):
            owner = self.owner(f"a{first}", aging=aging)
            owner.batch(acquire_operation(1, ONE))
            owner.batch(acquire_operation(2, ONE, priority=99))
            # Ticket 3 arrives 20 s after ticket 2: time for 20 or 200 of the 98 steps that are between them.
            seconds, microseconds = self.client.time()
            self.client.hset(f"{owner.key}:gate", "clock", (seconds + 20) * 1_000_000 + microseconds)
            owner.batch(acquire_operation(3, ONE, priority=1))
            self.assertEqual(owner.batch(["release", 1]).admitted, [first], aging)
            owner.batch(["quit"])

    def test_large_arrival_numbers(self) -> None:
        """The order is exact for as many arrivals as fit."""
        owner = self.owner("a")
        self.client.hset(f"{owner.key}:gate", "arrival", 2**45 - 10)
        owner.batch(acquire_operation(1, ONE))
        reply = owner.batch(
            acquire_operation(2, ONE, 99), acquire_operation(3, ONE, 99), acquire_operation(4, ONE, 98)
        )
        self.assertEqual(reply.queued[3] - reply.queued[1], 1)
        order = [owner.batch(["release", serial]).admitted[0] for serial in (1, 4, 2)]
        self.assertEqual(order, [4, 2, 3])

    def test_raised_and_lowered(self) -> None:
        """The last limit given counts: a raised one lets waiters through at once, a lowered one waits for releases."""
        owner = self.owner("a")
        owner.batch(*(acquire_operation(serial, ONE) for serial in (1, 2, 3)))
        self.assertEqual(owner.batch(acquire_operation(4, [Counter("one", 3)])).admitted, [2, 3])
        self.assertEqual(owner.batch(acquire_operation(5, ONE), ["release", 1]).admitted, [])
        self.assertEqual(owner.batch(["release", 2]).admitted, [])
        self.assertEqual(owner.batch(["release", 3]).admitted, [4])


class RateTests(ScriptTestCase):
    def test_goes_by_itself(self) -> None:
        """What is used up of a rate outlasts all who have used it, until it is there again; then nothing is left."""
        hour, moment = Rate(3600 * SECOND), Rate(1000)
        owner = self.owner("a")
        owner.batch(acquire_operation(1, [Counter("hour", rate=hour), Counter("moment", rate=moment)]))
        left = self.client.pttl(f"{owner.key}:rate:moment")
        self.assertTrue(-2 <= left <= 101, left)
        owner.batch(["quit"])
        name = f"{owner.key}:rate:hour"
        self.assertTrue(3_590_000 < self.client.pttl(name) <= 3_600_100)
        self.assertIn(
            set(self.keys()), ({name.encode()}, {name.encode(), f"{owner.key}:rate:moment".encode()})
        )
        reply = self.owner("b").batch(acquire_operation(1, [Counter("hour", rate=hour)]))
        self.assertEqual((reply.admitted, reply.waiting), ([], 1))
        self.assertTrue(3590 * SECOND < reply.wake <= 3600 * SECOND)
        self.owners[-1].batch(["release", 1])
        self.client.delete(*self.keys())

    def test_refused_costs_nothing(self) -> None:
        """One that may not wait is not counted at any rate."""
        owner = self.owner("a")
        owner.max_waiting = 0
        counted = [
            *ONE,
            Counter("r", rate=Rate(3600 * SECOND, over="reject")),
            Counter("w", rate=Rate(3600 * SECOND)),
        ]
        owner.batch(acquire_operation(1, ONE))
        self.assertEqual(owner.batch(acquire_operation(2, counted)).full, [2])
        reply = owner.batch(["release", 1], acquire_operation(3, counted), acquire_operation(4, counted))
        self.assertEqual((reply.admitted, reply.full, reply.rejected[0]), ([3], [], 4))
        self.client.delete(f"{owner.key}:rate:r", f"{owner.key}:rate:w")

    def test_announced(self) -> None:
        """What is announced as admitted, or with its order, was counted when it came."""
        owner = self.owner("a")
        rejecting = [Counter("r", rate=Rate(3600 * SECOND, over="reject"))]
        waiting = [2, 0, 50 * 2**45 + 3, 50, "", *needs(rejecting)]
        reply = owner.batch(announced=[[1, 1, 0, 50, "", *needs(rejecting)], waiting])
        self.assertEqual((reply.admitted, reply.held, reply.rejected), ([2], 2, []))
        self.assertEqual(owner.batch(acquire_operation(3, rejecting)).admitted, [3])
        self.assertEqual(owner.batch(acquire_operation(4, rejecting)).rejected[0], 4)
        self.client.delete(f"{owner.key}:rate:r")


class OwnerTests(ScriptTestCase):
    def test_unknown(self) -> None:
        """An owner that has not announced itself is told so, and nothing is done."""
        stranger = ScriptOwner(self.client, self.namespace, "x")
        self.addCleanup(stranger.close)
        self.assertEqual(stranger.batch(acquire_operation(1, ONE)), "unknown")
        self.assertEqual(self.keys(), [])

    def test_stale(self) -> None:
        """A batch that was overtaken by a later one of its owner is not done."""
        owner = self.owner("a")
        owner.batch()
        self.assertEqual(owner.batch(acquire_operation(1, ONE), sequence=1), "stale")
        self.assertEqual(owner.batch().held, 0)

    def test_stale_does_nothing(self) -> None:
        """Such a batch frees nothing either: whoever is admitted by it would not hear of it."""
        dead, owner = self.owner("dead"), self.owner("a")
        dead.batch(acquire_operation(1, ONE))
        owner.batch(acquire_operation(1, ONE))
        self.expire(dead)
        self.assertEqual(owner.batch(sequence=1), "stale")
        self.assertEqual(owner.batch().admitted, [1])

    def test_stale_has_no_timer(self) -> None:
        """Nor does its owner have to wake anybody, for it would not hear of it."""
        a, b = self.owner("a"), self.owner("b")
        hourly = [Counter("hourly", rate=Rate(3600 * SECOND))]
        a.batch(acquire_operation(1, hourly), acquire_operation(2, hourly))
        self.client.hdel(f"{a.key}:gate", "waker")
        self.assertEqual(a.batch(sequence=1), "stale")
        self.assertGreater(b.batch().wake, 0)
        self.assertEqual(a.batch(["release", 2]).wake, 0)
        self.client.delete(f"{a.key}:rate:hourly")

    def test_reaped(self) -> None:
        """Whoever comes after a lease has run out frees the dead owner's slots and places, and admits who waits."""
        dead, living = self.owner("dead"), self.owner("living")
        dead.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        living.batch(acquire_operation(3, ONE))
        self.expire(dead)
        reply = living.batch()
        self.assertEqual((reply.admitted, reply.waiting, reply.owners), ([3], 0, 1))
        self.assertEqual(dead.published(), [])

    def test_nothing_for_the_dead(self) -> None:
        """Slots that one dead owner frees are not given to another dead one, but to the living."""
        a, b, living = self.owner("a"), self.owner("b"), self.owner("living")
        a.batch(acquire_operation(1, ONE))
        b.batch(acquire_operation(1, ONE, priority=1))
        living.batch(acquire_operation(1, ONE))
        self.expire(a)
        self.expire(b)
        self.assertEqual(living.batch().admitted, [1])
        self.assertEqual((a.published(), b.published()), ([], []))

    def test_nothing_for_the_dead_that_are_light(self) -> None:
        """What was kept for a dead owner's heavy ticket is not given to its light one, but to the living."""
        dead, living = self.owner("dead"), self.owner("living")
        living.batch(acquire_operation(1, [Counter("three", 3)]))
        dead.batch(
            acquire_operation(1, [Counter("three", 3, weight=3)]), acquire_operation(2, [Counter("three", 3)])
        )
        living.batch(acquire_operation(2, [Counter("three", 3)]))
        self.expire(dead)
        self.assertEqual(living.batch().admitted, [2])
        self.assertEqual(dead.published(), [])

    def test_reaped_by_a_stranger(self) -> None:
        """What is freed by a batch that is refused itself is published all the same."""
        dead, living = self.owner("dead"), self.owner("living")
        dead.batch(acquire_operation(1, ONE))
        living.batch(acquire_operation(2, ONE))
        self.expire(dead)
        stranger = ScriptOwner(self.client, self.namespace, "x")
        self.addCleanup(stranger.close)
        self.assertEqual(stranger.batch(), "unknown")
        self.assertEqual(living.published(), [2])

    def test_expired_and_not_reaped(self) -> None:
        """An owner that is late, and that nobody has taken for dead so far, has all that it had."""
        owner = self.owner("a")
        owner.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        self.expire(owner)
        reply = owner.batch()
        self.assertEqual((reply.held, reply.waiting), (1, 1))

    def test_quit(self) -> None:
        """An owner that says goodbye releases all that it has."""
        a, b = self.owner("a"), self.owner("b")
        a.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        b.batch(acquire_operation(3, ONE))
        a.batch(["quit"])
        self.assertEqual(b.published(), [3])
        self.assertEqual(b.batch().owners, 1)


class AnnounceTests(ScriptTestCase):
    def announced(
        self,
        serial: int,
        admitted: bool,
        order: int = 0,
        counters: list[Counter] = ONE,
        priority: int = 50,
    ) -> list[Any]:
        return [serial, int(admitted), order, priority, "", *needs(counters)]

    def test_after_a_loss_of_memory(self) -> None:
        """What holds a slot holds it again, though that be too many; who waits has the place it had."""
        a, b = self.owner("a"), self.owner("b")
        a.batch(acquire_operation(1, ONE))
        orders = dict([b.batch(acquire_operation(2, ONE)).queued, a.batch(acquire_operation(3, ONE)).queued])
        self.client.delete(*self.keys())
        reply = a.batch(announced=[self.announced(1, True), self.announced(3, False, orders[3])])
        self.assertEqual((reply.admitted, reply.held, reply.waiting), ([], 1, 1))
        b.batch(announced=[self.announced(2, False, orders[2]), self.announced(9, True)])
        self.assertEqual(a.batch(["release", 1]).admitted, [])
        self.assertEqual(b.batch(["release", 9]).admitted, [2])
        self.assertEqual(a.published(), [])

    def test_newcomers_after_a_loss_of_memory(self) -> None:
        """Who comes afterwards comes after those of its priority who waited before."""
        a = self.owner("a")
        for serial in range(1, 10):
            reply = a.batch(acquire_operation(serial, ONE))
        self.client.delete(*self.keys())
        a.batch(announced=[self.announced(1, True), self.announced(9, False, reply.queued[1])])
        a.batch(acquire_operation(10, ONE), acquire_operation(11, ONE, 49))
        order = [a.batch(["release", serial]).admitted for serial in (1, 11, 9)]
        self.assertEqual(order, [[11], [9], [10]])

    def test_best_first(self) -> None:
        """When there is room for some of those who are announced as waiting, it is for the best of them."""
        a = self.owner("a")
        a.batch(announced=[self.announced(serial, False, priority=100 - serial) for serial in range(1, 4)])
        self.assertEqual(a.batch(["release", 3]).admitted, [2])
        self.assertEqual(a.batch(["release", 2]).admitted, [1])
        orders = a.batch(*(acquire_operation(serial, ONE) for serial in (4, 5, 6))).queued
        self.client.delete(*self.keys())
        a.batch(announced=[self.announced(s, False, o) for s, o in ((7, 0), (6, orders[5]), (5, orders[3]))])
        self.assertEqual([a.batch(["release", serial]).admitted for serial in (5, 6)], [[6], [7]])

    def test_best_first_of_raised_limits(self) -> None:
        """When an announcement raises several limits, the best of all who wait for them goes first."""
        a, b = self.owner("a"), self.owner("b")
        x, y, one = Counter("x", 0), Counter("y", 0), Counter("one", 1)
        a.batch(acquire_operation(1, [one, x], 99), acquire_operation(2, [one, y], 1))
        raised = [[Counter("x", 2)], [Counter("y", 2)]]
        b.batch(announced=[self.announced(n, True, counters=counters) for n, counters in enumerate(raised)])
        self.assertEqual(a.published(), [2])

    def test_full_of_what_has_left(self) -> None:
        """What an owner no longer has takes no place from what it has now."""
        a = self.owner("a")
        a.max_waiting = 1
        a.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        reply = a.batch(announced=[self.announced(1, True), self.announced(3, False)])
        self.assertEqual((reply.full, reply.queued[0], reply.waiting), ([], 3, 1))

    def test_not_announced(self) -> None:
        """What an owner no longer has is released."""
        a, b = self.owner("a"), self.owner("b")
        a.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        b.batch(acquire_operation(3, ONE))
        reply = a.batch(announced=[])
        self.assertEqual((reply.held, reply.waiting), (0, 0))
        self.assertEqual(b.published(), [3])

    def test_nothing_for_what_has_left(self) -> None:
        """What an owner no longer has is not admitted because its heavier one has left too."""
        a, b = self.owner("a"), self.owner("b")
        b.batch(acquire_operation(1, [Counter("three", 3)]))
        a.batch(
            acquire_operation(1, [Counter("three", 3, weight=3)]), acquire_operation(2, [Counter("three", 3)])
        )
        self.assertEqual(a.batch(announced=[]).admitted, [])

    def test_lost_reply(self) -> None:
        """A ticket that is announced as waiting, and was admitted meanwhile, is told so."""
        owner = self.owner("a")
        owner.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        reply = owner.batch(announced=[self.announced(1, False), self.announced(2, False)])
        self.assertEqual((reply.admitted, reply.queued[0], reply.held), ([1], 2, 1))

    def test_admitted_and_waiting(self) -> None:
        """A ticket that is announced as admitted, and that Redis believes to wait, is admitted."""
        owner = self.owner("a")
        owner.batch(acquire_operation(1, ONE), acquire_operation(2, ONE))
        reply = owner.batch(announced=[self.announced(1, True), self.announced(2, True)])
        self.assertEqual((reply.held, reply.waiting), (2, 0))
        self.assertEqual(owner.batch(["release", 1], acquire_operation(3, ONE)).admitted, [])

    def test_again(self) -> None:
        """Announcing what is there changes nothing."""
        owner = self.owner("a")
        order = owner.batch(acquire_operation(1, ONE), acquire_operation(2, ONE)).queued[1]
        for _ in range(2):
            reply = owner.batch(announced=[self.announced(1, True), self.announced(2, False, order)])
            self.assertEqual((reply.admitted, reply.queued, reply.held), ([], [2, order], 1))


class GraceTests(ScriptTestCase):
    """A namespace that was found empty, or older than it was."""

    def held(self, serial: int, counters: list[Counter] = ONE) -> list[Any]:
        return [serial, 1, 0, 50, "", *needs(counters)]

    def stranger(self, name: str) -> ScriptOwner:
        """An owner that has not been heard of."""
        owner = ScriptOwner(self.client, self.namespace, name)
        self.owners.append(owner)
        return owner

    def lose(self) -> None:
        self.client.delete(*self.keys())

    def over(self, owner: ScriptOwner) -> None:
        """Let the grace end."""
        self.client.hset(f"{owner.key}:gate", "grace", 1)

    def test_first_start(self) -> None:
        """Who knows nothing waits for nothing."""
        reply = self.owner("a").batch(acquire_operation(1, ONE))
        self.assertEqual((reply.admitted, reply.grace), ([1], 0))

    def test_unknown_first(self) -> None:
        """Nothing is done for an owner that finds the namespace empty, until it has announced what it has."""
        owner = self.owner("a")
        self.lose()
        self.assertEqual(owner.batch(acquire_operation(1, ONE)), "unknown")
        self.assertEqual(owner.batch(acquire_operation(1, ONE), announced=[]).admitted, [1])

    def test_until_all_are_back(self) -> None:
        """Nobody is admitted until all have announced of whom anybody knew; then whoever may is."""
        a, b = self.owner("a"), self.owner("b")
        a.batch()
        b.batch(acquire_operation(1, TWO))
        self.lose()
        reply = a.batch(announced=[self.held(1, TWO)])
        self.assertEqual(reply.grace, a.grace)
        reply = a.batch(acquire_operation(2, TWO))
        self.assertEqual((reply.admitted, reply.waiting), ([], 1))
        stranger = self.owner("c")
        self.assertEqual(stranger.batch(acquire_operation(1, [Counter("other", 1)])).admitted, [])
        reply = b.batch(announced=[self.held(1, TWO)])
        self.assertEqual((reply.grace, reply.overshoot), (0, 0))
        self.assertEqual(stranger.published(), [1])
        self.assertEqual(a.batch(["release", 1]).admitted, [2])

    def test_until_the_last_part(self) -> None:
        """An announcement in parts counts as one, and what is expected is what was known before it."""
        a, b = self.owner("a"), self.owner("b")
        a.batch()
        b.batch()
        self.lose()
        a.batch(announced=[self.held(1)], part=(True, False, 0, 0))
        reply = a.batch(announced=[self.held(1)], part=(False, True, 0, 2**53))
        self.assertEqual(reply.grace > 0, True)
        self.assertEqual(b.batch(announced=[]).grace, 0)

    def test_time_is_over(self) -> None:
        """Who does not come back is not waited for; the best of those who wait is admitted."""
        a, b = self.owner("a"), self.owner("b")
        a.batch()
        self.lose()
        a.batch(announced=[])
        a.batch(acquire_operation(1, ONE), acquire_operation(2, ONE, 1), acquire_operation(3, TWO))
        self.over(a)
        reply = a.batch()
        self.assertEqual((sorted(reply.admitted), reply.grace), ([2, 3], 0))
        reply = b.batch(announced=[self.held(7)])
        self.assertEqual((reply.overshoot, reply.grace), (1, 0))
        self.assertEqual(self.client.hget(f"{a.key}:gate", "overshoot"), b"1")
        self.assertEqual(a.batch(["release", 2]).admitted, [])
        self.assertEqual(b.batch(["release", 7]).admitted, [])
        self.assertEqual(a.published(), [1])

    def test_over_the_limit(self) -> None:
        """What was admitted in place of others is not over it; of what is, as many are counted as are too many."""
        a, b = self.owner("a"), self.owner("b")
        a.batch(acquire_operation(1, TWO), acquire_operation(2, TWO))
        reply = a.batch(announced=[self.held(3, TWO), self.held(4, TWO)])
        self.assertEqual((reply.held, reply.overshoot), (2, 0))
        self.assertEqual(b.batch(announced=[self.held(serial, TWO) for serial in range(3)]).overshoot, 3)
        a.batch(["release", 3], ["release", 4])
        self.assertEqual(a.batch(announced=[self.held(5, TWO)]).overshoot, 1)

    def test_older_than_it_was(self) -> None:
        """A replica that lacks the last batches is as good as empty; leases that ran out meanwhile are forgiven."""
        a, b = self.owner("a"), self.owner("b")
        kept = {key: self.client.dump(key) for key in self.keys()}
        b.batch(acquire_operation(1, ONE))
        a.batch()
        self.lose()
        for key, value in kept.items():
            self.client.restore(key, 0, value)
        self.expire(a)
        self.expire(b)
        reply = a.batch(acquire_operation(1, ONE), announced=[])
        self.assertEqual((reply.admitted, reply.owners), ([], 2))
        self.assertEqual(b.batch(announced=[self.held(1)]).overshoot, 0)
        self.assertEqual(b.batch(["release", 1]).admitted, [])
        self.assertEqual(a.published(), [1])

    def test_older_again(self) -> None:
        """A replica may be taken over that knows of a grace shortly before: that one was for something else."""
        a, b = self.owner("a"), self.owner("b")
        a.batch()
        for owner in (a, b):
            self.assertEqual(owner.batch(unfamiliar=True), "unknown")
        self.assertEqual([owner.batch(announced=[]).grace > 0 for owner in (a, b)], [True, False])
        kept = {key: self.client.dump(key) for key in self.keys()}
        b.batch(acquire_operation(1, ONE))
        self.lose()
        for key, value in kept.items():
            self.client.restore(key, 0, value)
        self.assertEqual(a.batch(acquire_operation(1, ONE), unfamiliar=True), "unknown")
        self.assertEqual(a.batch(acquire_operation(1, ONE), announced=[]).admitted, [])
        self.assertEqual(b.batch(announced=[self.held(1)]).overshoot, 0)

    def test_all_announce(self) -> None:
        """In grace everybody announces, also one who has seen nothing that Redis lacks: it may have been told of it."""
        a, b = self.owner("a"), self.owner("b")
        a.batch(acquire_operation(1, ONE))
        b.batch(acquire_operation(1, ONE))
        kept = {key: self.client.dump(key) for key in self.keys()}
        a.batch(["release", 1])
        self.assertEqual(b.published(), [1])
        self.lose()
        for key, value in kept.items():
            self.client.restore(key, 0, value)
        self.assertEqual(a.batch(), "unknown")
        self.assertEqual(b.batch(), "unknown")
        a.batch(acquire_operation(2, ONE), announced=[])
        self.assertEqual(b.batch(announced=[self.held(1)]).overshoot, 0)
        self.assertEqual(a.batch().held, 0)

    def test_other_server(self) -> None:
        """A server that may be another one is in doubt, though nobody sees what it lacks."""
        a, b = self.owner("a"), self.owner("b")
        a.batch()
        self.assertEqual(b.batch(acquire_operation(1, ONE), unfamiliar=True), "unknown")
        reply = b.batch(acquire_operation(1, ONE), announced=[])
        self.assertEqual(reply.admitted, [])
        a.batch(announced=[])
        self.assertEqual(b.published(), [1])

    def test_other_server_and_a_stranger(self) -> None:
        """So it is when a new owner is the first to come; unless nobody was there."""
        self.assertEqual(self.stranger("s").batch(announced=[], unfamiliar=True).grace, 0)
        a = self.owner("a")
        reply = self.stranger("t").batch(acquire_operation(1, ONE), announced=[], unfamiliar=True)
        self.assertEqual((reply.admitted, reply.grace > 0), ([], True))
        self.assertEqual(a.batch(), "unknown")
        self.assertEqual(a.batch(announced=[self.held(1)]).overshoot, 0)

    def test_silence(self) -> None:
        """Where nobody was heard for long Redis was away, and nobody is dead; one that is alone waits for nobody."""
        a, b = self.owner("a"), self.owner("b")
        a.batch()
        b.batch(acquire_operation(1, ONE))
        self.client.hset(f"{a.key}:gate", "last", 1)
        self.expire(b)
        reply = a.batch(acquire_operation(1, ONE), announced=[])
        self.assertEqual((reply.admitted, reply.owners, reply.waiting), ([], 2, 1))
        b.batch(["quit"], announced=[])
        self.assertEqual(a.published(), [1])
        self.client.hset(f"{a.key}:gate", "last", 1, mapping={"graced": 1})
        self.assertEqual(a.batch(acquire_operation(2, TWO)).admitted, [2])

    def test_other_leases(self) -> None:
        """An owner with a long lease is silent for longer; one with a short lease does not take Redis for gone."""
        slow, fast = self.owner("slow", lease=60_000), self.owner("fast", lease=1000)
        seconds, _ = self.client.time()
        self.client.hset(f"{slow.key}:gate", "last", (seconds - 10) * 1000)
        self.assertEqual(fast.batch(acquire_operation(1, ONE)).admitted, [1])
        self.lose()
        slow.batch(announced=[])
        self.assertEqual(fast.batch(announced=[self.held(1)]).grace, 0)

    def test_earlier_time(self) -> None:
        """What was meant by a later time, be it that of another server, does not last for the difference."""
        a, b, dead = self.owner("a"), self.owner("b"), self.owner("dead")
        dead.batch(["acquire", 1, 50, *needs(ONE, 1000)])
        self.expire(dead)
        a.batch()
        self.client.hset(f"{a.key}:gate", "death:dead", self.now() - 10)
        self.client.zadd(f"{a.key}:dead", {"dead": self.now() + 990})
        later = 3_600_000
        for key in ("owners", "dead"):
            for owner, ends in self.client.zrange(f"{a.key}:{key}", 0, -1, withscores=True):
                self.client.zadd(f"{a.key}:{key}", {owner: ends + later})
        for field in ("last", "graced", "grace", "death:dead"):
            self.client.hincrby(f"{a.key}:gate", field, later)
        reply = a.batch()
        self.assertLessEqual(reply.grace, a.grace)
        soon = self.now() + 2 * a.lease
        self.assertLess(self.client.zscore(f"{a.key}:owners", b.name), soon)
        self.assertLess(self.client.zscore(f"{a.key}:dead", dead.name), soon)
        self.assertEqual(a.batch(unfamiliar=True), "unknown")
        self.assertGreater(a.batch(announced=[]).grace, 0)

    def now(self) -> int:
        """The time in Redis (ms)."""
        seconds, microseconds = self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


class ReclaimTests(ScriptTestCase):
    """A dead owner's slots, where the application may still be at work."""

    def test_delay(self) -> None:
        """Its places go at once, its slots each in its time."""
        dead, living = self.owner("dead"), self.owner("living")
        dead.batch(
            acquire_operation(1, ONE, reclaim=3_600_000),
            acquire_operation(2, TWO),
            acquire_operation(3, ONE),
        )
        living.batch(acquire_operation(1, ONE))
        seconds, _ = self.client.time()
        self.client.zadd(f"{dead.key}:owners", {dead.name: (seconds - 1) * 1000})
        reply = living.batch()
        self.assertEqual((reply.admitted, reply.waiting, reply.owners, reply.released), ([], 1, 1, 1))
        self.client.zadd(f"{dead.key}:dead", {dead.name: 1})
        self.assertEqual(living.batch().admitted, [])
        self.client.hset(f"{dead.key}:gate", "death:dead", 1)
        self.client.zadd(f"{dead.key}:dead", {dead.name: 1})
        self.assertEqual(living.batch().admitted, [1])

    def test_back(self) -> None:
        """An owner that comes back has its slots still."""
        dead, living = self.owner("dead"), self.owner("living")
        dead.batch(acquire_operation(1, ONE, reclaim=3_600_000))
        self.expire(dead)
        self.client.zadd(f"{dead.key}:owners", {dead.name: self.client.time()[0] * 1000 - 1000})
        living.batch()
        self.assertEqual(dead.batch(), "unknown")
        reply = dead.batch(announced=[[1, 1, 0, 50, "", *needs(ONE, 3_600_000)]])
        self.assertEqual((reply.held, reply.overshoot, reply.owners), (1, 0, 2))
        self.assertEqual(living.batch(acquire_operation(1, ONE)).admitted, [])
        dead.batch(["release", 1])
        self.assertEqual(living.published(), [1])


class EvictedTests(ScriptTestCase):
    """Redis is short of memory, and may let those keys go that would go by themselves."""

    def evict(self) -> None:
        """Redis has no memory for what it may let go."""
        before = self.client.config_get("maxmemory*")
        self.client.config_set("maxmemory-policy", "volatile-ttl")
        try:
            while [key for key in self.keys() if self.client.pttl(key) >= 0]:
                self.client.config_set("maxmemory", 1)
                self.client.ping()
                self.client.config_set("maxmemory", before["maxmemory"])
        finally:
            for name in ("maxmemory", "maxmemory-policy"):
                self.client.config_set(name, before[name])

    def test_quota(self) -> None:
        """Quotas begin anew, and nothing else is forgotten: neither who has a slot nor who waits."""
        daily = [[Counter(f"user={n}", rate=Rate(86_400 * SECOND, over="reject"))] for n in range(20)]
        a, b = self.owner("a"), self.owner("b")
        for serial, counters in enumerate(daily):
            self.assertEqual(
                a.batch(acquire_operation(serial, counters), ["release", serial]).admitted, [serial]
            )
        a.batch(acquire_operation(101, ONE))
        b.batch(acquire_operation(101, ONE))
        lasting = {key for key in self.keys() if b":rate:" not in key}
        self.assertEqual(len(self.keys()), len(lasting) + 20)
        self.evict()
        self.assertEqual(set(self.keys()), lasting)
        for serial, counters in enumerate(daily, 200):
            reply = b.batch(acquire_operation(serial, counters), ["release", serial])
            self.assertEqual((reply.admitted, reply.rejected), ([serial], []))
        self.assertEqual((reply.waiting, reply.grace), (1, 0))
        a.batch(["release", 101])
        self.assertEqual(b.published(), [101])
        b.batch(["release", 101])
        self.evict()

    def test_waits(self) -> None:
        """Who waits for a rate goes when it would have, whatever comes and goes meanwhile, and nobody overtakes it."""
        counters = {
            "light": [Counter("light", rate=Rate(SECOND, 5))],
            "heavy": [Counter("heavy", weight=4, rate=Rate(SECOND // 4, 20))],
        }
        for name, needed in counters.items():
            for other in (["release", 7], acquire_operation(8, needed), ["release", 1]):
                a = self.owner(f"{name}-{other[0]}-{other[1]}")
                a.now = 1_000_000 * SECOND
                reply = a.batch(*(acquire_operation(serial, needed) for serial in range(1, 8)))
                self.assertEqual((reply.admitted, reply.wake), ([1, 2, 3, 4, 5], SECOND))
                a.now += SECOND // 2
                self.evict()
                reply = a.batch(other)
                self.assertEqual((reply.admitted, reply.wake), ([], SECOND // 2), other)
                a.now += SECOND // 2
                reply = a.batch()
                self.assertEqual((reply.admitted, reply.wake), ([6], 0 if other[1] == 7 else SECOND), other)
                a.batch(["quit"])
                self.evict()


class TornTests(ScriptTestCase):
    """Somebody has deleted a part of the namespace."""

    def test_any_part(self) -> None:
        """Whatever is missing, owners are served again after they have announced, and in the end nothing is left."""
        heavy = [Counter("one", 1), Counter("three", 3, weight=3)]
        late = [Counter("late", 2, rate=Rate(3600 * SECOND))]
        parts = ["owners", "lanes", "used", "slots", "waiting", "gate", "lane:one", "parked:one", "tickets:a"]
        parts += ["due", "rates", "rate:late", "turns:one"]
        for number, part in enumerate(parts):
            a, b = self.owner(f"a{number}"), self.owner(f"b{number}")
            places = {
                owner.name: [[1, 0, 0, 50, "", *needs(ONE)], [2, 0, 0, 50, "", *needs(heavy)]]
                for owner in (a, b)
            }
            for owner in (a, b):
                owner.batch(acquire_operation(1, ONE, fair="x"), acquire_operation(2, heavy))
            # One has gone already, or goes now.
            b.batch(acquire_operation(5, late), acquire_operation(6, late))
            self.assertEqual(
                self.client.delete(f"{a.key}:{part.replace('tickets:a', f'tickets:a{number}')}"), 1, part
            )
            for _ in range(3):
                for owner in (a, b):
                    if owner.batch(["release", 3], acquire_operation(4, ONE), ["release", 4]) == "unknown":
                        owner.batch(announced=places[owner.name])
            for owner in (a, b, a, b):
                owner.batch(announced=[])
            self.over(a)
            for owner in (a, b):
                self.assertEqual(owner.batch(acquire_operation(7, heavy), ["release", 7]).admitted, [7], part)
            for owner in (a, b):
                owner.batch(["quit"], announced=[])
            self.client.delete(f"{a.key}:rate:late")
            self.assertEqual(self.keys(), [], part)

    def over(self, owner: ScriptOwner) -> None:
        self.client.hdel(f"{owner.key}:gate", "grace", "graced")

    def test_slots_taken(self) -> None:
        """If nobody knows any more which slots are taken, none is given away before the owners have said it."""
        a, b = self.owner("a"), self.owner("b")
        a.batch(acquire_operation(1, ONE))
        self.client.delete(f"{a.key}:used")
        self.assertEqual(b.batch(acquire_operation(1, ONE)), "unknown")
        self.assertEqual(b.batch(acquire_operation(1, ONE), announced=[]).admitted, [])
        reply = a.batch(announced=[[1, 1, 0, 50, "", *needs(ONE)]])
        self.assertEqual((reply.grace, reply.overshoot), (0, 0))
        a.batch(["release", 1])
        self.assertEqual(b.published(), [1])

    def test_rates(self) -> None:
        """If it is not known any more by which rate somebody waits, nobody goes without one; owners say it again."""
        hourly = [Counter("hourly", rate=Rate(3600 * SECOND))]
        for number, part in enumerate(("rates", "rated")):
            a = self.owner(f"a{number}")
            a.batch(*(acquire_operation(serial, hourly) for serial in (1, 2, 3)))
            key = f"{a.key}:rates"
            self.assertEqual(
                self.client.delete(key) if part == "rates" else self.client.hdel(f"{a.key}:gate", part), 1
            )
            self.client.zadd(f"{a.key}:due", {"hourly": 1})
            self.assertEqual(a.batch(), "unknown", part)
            orders = [50 * 2**45 + serial for serial in (2, 3)]
            waiting = [
                [serial, 0, order, 50, "", *needs(hourly)]
                for serial, order in zip((2, 3), orders, strict=True)
            ]
            reply = a.batch(announced=[[1, 1, 0, 50, "", *needs(hourly)], *waiting])
            self.assertEqual((reply.admitted, reply.held, reply.waiting), ([], 1, 2), part)
            self.assertTrue(3590 * SECOND < reply.wake <= 3600 * SECOND, reply.wake)
            a.batch(["quit"])
            self.client.delete(f"{a.key}:rate:hourly")

    def test_wrong_type(self) -> None:
        """What is another program's is not touched."""
        a = self.owner("a")
        self.client.delete(f"{a.key}:gate")
        self.client.set(f"{a.key}:gate", "other")
        self.assertRaises(ResponseError, a.batch)
        self.assertEqual(self.client.get(f"{a.key}:gate"), b"other")
        self.client.delete(f"{a.key}:gate")
