"""What a process says to Redis of its tickets, batch by batch."""

from __future__ import annotations

from typing import Any

import attrs
from msgspec import DecodeError, msgpack
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.gate.model import needs
from thrtwisted.gate import Counter, Quota, Rate, Ticket
from thrtwisted.gate.order import ARRIVALS, TURN, Order
from thrtwisted.gate.places import LAST_SERIAL, Message, Place, Places, quotas_in

SETTINGS = (5000, 1500, 1000, 0)
COUNTERS = (Counter("a", 2), Counter("b", 3, weight=2, max_waiting=7))
TICKET = Ticket(COUNTERS, priority=9, reclaim_delay=1.5)
NEEDS = needs(COUNTERS, 1500)


@attrs.frozen
class Batch:
    """A batch, as the script reads it."""

    owner: str
    sequence: int
    lease: int
    grace: int
    max_waiting: int
    aging: int
    known: list[Any]
    announced: Any
    operations: list[Any]


class PlacesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.order = Order()
        self.places = Places("me", SETTINGS, self.order)

    def add(self, number: int = 1, admitted: bool = False) -> list[Place]:
        """Tickets arrive; they may be admitted at once."""
        places = [self.places.add(TICKET, 0.0, Deferred()) for _ in range(number)]
        if admitted:
            for place in places:
                self.places.admit(place)
        return places

    def batch(self, *more: list[Any]) -> Batch:
        return Batch(*msgpack.decode(self.places.batch(*more)))

    def reply(
        self,
        *,
        status: str = "ok",
        queued: list[int] | None = None,
        owners: int = 1,
        grace: int = 0,
        demoted: list[int] | None = None,
    ) -> Any:
        """Redis answers."""
        ok = [
            "ok",
            0,
            "epoch",
            7,
            [],
            [],
            queued or [],
            0,
            0,
            0,
            owners,
            grace,
            0,
            0,
            [],
            demoted or [],
            [],
            [],
            [],
        ]
        return self.places.read(msgpack.encode(ok if status == "ok" else [status]))

    def announce_all(self) -> None:
        """Redis has heard of everything."""
        while self.places.announcing:
            self.batch()
            self.reply()


class BatchTests(PlacesTestCase):
    def test_settings(self) -> None:
        """A batch says whose it is, its number, and what holds for all of them."""
        for sequence in (1, 2):
            batch = self.batch()
            self.assertEqual((batch.owner, batch.sequence), ("me", sequence))
            self.assertEqual((batch.lease, batch.grace, batch.max_waiting, batch.aging), SETTINGS)

    def test_known(self) -> None:
        """It says of which batch the owner has last had a reply, and what that said."""
        self.assertEqual(self.batch().known, ["", 0, 0, 0])
        self.reply(owners=3)
        self.assertEqual(self.batch().known, ["epoch", 7, 1, 3])
        self.reply(status="unknown")
        self.reply(status="stale")
        self.assertEqual(self.batch().known, ["epoch", 7, 1, 3])

    def test_owners_in_grace(self) -> None:
        """While not all have come back, there are as many as there were."""
        for owners, grace, known in ((3, 0, 3), (1, 100, 3), (4, 100, 4), (2, 0, 2)):
            self.reply(owners=owners, grace=grace)
            self.assertEqual(self.places.owners, known)

    def test_operations(self) -> None:
        """What has happened since the last batch is in the next one, in order, and in no other."""
        self.announce_all()
        self.assertFalse(self.places.has_news)
        [place] = self.add()
        self.places.remove(place.serial)
        self.assertTrue(self.places.has_news)
        batch = self.batch(["echo"])
        self.assertEqual(batch.operations, [["acquire", 1, 9, *NEEDS], ["release", 1], ["echo"]])
        self.assertFalse(batch.announced)
        self.assertFalse(self.places.has_news)
        self.assertEqual(self.batch().operations, [])

    def test_rates(self) -> None:
        """A ticket says the rate of each counter, what becomes of it over that, and whether to show what is left."""
        for rate, words in (
            (None, [0, 0, 0]),
            (Rate(100, 3), [100, 3, 0]),
            (Rate(100, 3, "reject"), [100, 3, -1]),
            (Rate(100, 3, "demote", 80), [100, 3, 80]),
        ):
            ticket = Ticket((Counter("a", 2, rate=rate, shown=True),), fair="user")
            place = self.places.add(ticket, 0.0, Deferred())
            self.assertEqual(place.needs, [0, "user", "", "a", 2, 1, -1, *words, 1])

    def test_demoted(self) -> None:
        """A ticket that was over a rate goes by another priority; its order tells it, if nothing else did."""
        places = self.add(2)
        order = 90 * ARRIVALS + 5
        self.reply(queued=[1, order, 2, order + 1], demoted=[1, 90, 99, 90])
        self.assertEqual([place.priority for place in places], [90, 90])
        announced = self.batch().announced
        self.assertEqual([ticket[2:4] for ticket in announced[4:]], [[order, 90], [order + 1, 90]])

    def test_turns(self) -> None:
        """What is left of the arrival number of a ticket that takes turns is no number of arrivals."""
        self.places.add(Ticket(COUNTERS, fair="user"), 0.0, Deferred())
        self.reply(queued=[1, 50 * ARRIVALS + 7 * TURN + 5])
        self.assertEqual(self.order.next(9, 0), 9 * ARRIVALS + 6)

    def test_quotas(self) -> None:
        """An admission tells what is left of the counters of its own that are to be shown."""
        left = quotas_in(["a", 3, 2, 1_500_000, "b", 0, -1, 0, "c", 1, -1, 0])
        self.assertEqual(left["a"], Quota(3, 2, 1.5))
        counters = (Counter("a", 2, shown=True), Counter("b", 2), Counter("unknown", 2, shown=True))
        place = self.places.add(Ticket(counters), 0.0, Deferred())
        self.assertEqual(place.quotas(left), {"a": left["a"]})

    def test_messages(self) -> None:
        """What is published is an echo, or says who is admitted, or when to send a batch; or is somebody else's."""
        for said, is_echo in (([[], [], 0], True), ([[3], [], 0], False), ([[], [], 5], False)):
            self.assertEqual(Message.read(msgpack.encode(said)).is_echo, is_echo)
        for said in ([], [[], []], [["3"], [], 0], 7):
            self.assertRaises(DecodeError, Message.read, msgpack.encode(said))

    def test_counters_in_order(self) -> None:
        """Two tickets with the same counters are in one lane, in whatever order these were given."""
        [place, _] = (
            self.places.add(Ticket(counters), 0.0, Deferred()) for counters in (COUNTERS, COUNTERS[::-1])
        )
        self.assertEqual(*(each.needs for each in self.places))
        self.assertEqual(place.needs[3::8], ["a", "b"])

    def test_long(self) -> None:
        """A batch has so many operations at most; the next has more."""
        self.announce_all()
        self.places.longest_batch = 2
        self.add(3)
        self.assertEqual([operation[1] for operation in self.batch().operations], [1, 2])
        self.assertTrue(self.places.has_news)
        self.assertEqual([operation[1] for operation in self.batch().operations], [3])

    def test_refused(self) -> None:
        """Of a ticket that Redis has refused, it need not be told that it has gone."""
        self.announce_all()
        [place] = self.add()
        self.batch()
        self.assertIs(self.places.remove(place.serial, known=False), place)
        self.assertIsNone(self.places.remove(place.serial))
        self.assertFalse(self.places.has_news)

    def test_last_word(self) -> None:
        """It tells what there is, in case Redis knows nothing of it, and that all of it goes."""
        self.add(admitted=True)
        last = Batch(*msgpack.decode(self.places.last_word()))
        self.assertEqual(last.announced, [True, True, 0, LAST_SERIAL, [1, 1, 0, 9, "", *NEEDS]])
        self.assertEqual(last.operations, [["quit"]])

    def test_queued(self) -> None:
        """A ticket has the order that Redis gives it, unless it has left; who comes afterwards comes after it."""
        [place] = self.add()
        self.reply(queued=[1, 9 * ARRIVALS + 5, 99, 9 * ARRIVALS + 6])
        self.assertEqual(place.order, 9 * ARRIVALS + 5)
        self.assertEqual(self.order.next(9, 0), 9 * ARRIVALS + 6)


class AnnouncementTests(PlacesTestCase):
    def parts(self) -> list[tuple[Any, list[int]]]:
        """The announcement: of each part what it is (first, final, from, to), and the serials in it."""
        parts = []
        while self.places.announcing:
            announced = self.batch().announced
            parts.append((tuple(announced[:4]), [ticket[0] for ticket in announced[4:]]))
        return parts

    def test_first(self) -> None:
        """A process begins with an announcement, be it of nothing."""
        self.assertTrue(self.places.has_news)
        self.assertEqual(self.parts(), [((True, True, 0, LAST_SERIAL), [])])

    def test_tickets(self) -> None:
        """It says of each ticket whether it holds slots, its order, its priority and its needs."""
        self.add(admitted=True)
        [waiting] = self.add()
        waiting.order = 123
        announced = self.batch().announced
        self.assertEqual(announced[4:], [[1, 1, 0, 9, "", *NEEDS], [2, 0, 123, 9, "", *NEEDS]])

    def test_in_place_of_operations(self) -> None:
        """What was not sent before an announcement is in it, or has left."""
        self.announce_all()
        [_, left] = self.add(2)
        self.places.remove(left.serial)
        self.places.announce()
        batch = self.batch()
        self.assertEqual([ticket[0] for ticket in batch.announced[4:]], [1])
        self.assertEqual(batch.operations, [])

    def test_parts(self) -> None:
        """A long one has parts, each of some serials, that leave out none."""
        self.places.longest_part = 2
        self.add(5)
        self.assertEqual(
            self.parts(),
            [
                ((True, False, 0, 2), [1, 2]),
                ((False, False, 2, 4), [3, 4]),
                ((False, True, 4, LAST_SERIAL), [5]),
            ],
        )

    def test_slots_first(self) -> None:
        """If there are parts, the first is of all that hold slots: nobody is to be admitted in their place."""
        self.places.longest_part = 2
        self.add(2)
        self.add(3, admitted=True)
        self.assertEqual(
            self.parts(),
            [
                ((True, False, 0, 0), [3, 4, 5]),
                ((False, False, 0, 2), [1, 2]),
                ((False, False, 2, 4), [3, 4]),
                ((False, True, 4, LAST_SERIAL), [5]),
            ],
        )

    def test_changes_between_parts(self) -> None:
        """What changes meanwhile is in a later part, or an operation if its part is over."""
        self.places.longest_part = 2
        self.add(4)
        self.batch()
        self.places.remove(1)
        self.places.remove(3)
        self.add()
        batch = self.batch()
        self.assertEqual([ticket[0] for ticket in batch.announced[4:]], [4, 5])
        self.assertEqual(tuple(batch.announced[:4]), (False, True, 2, LAST_SERIAL))
        self.assertEqual(batch.operations, [["release", 1]])
        self.add()
        self.assertEqual(self.batch().operations, [["acquire", 6, 9, *NEEDS]])

    def test_again(self) -> None:
        """One that is interrupted begins anew."""
        self.places.longest_part = 1
        self.add(2)
        first = self.batch().announced
        self.places.announce()
        self.assertEqual(self.batch().announced, first)


class FollowingTests(PlacesTestCase):
    """A ticket that is to wait again has two places until Redis has said whether it does."""

    def setUp(self) -> None:
        super().setUp()
        [self.old] = self.add(1, admitted=True)
        self.announce_all()
        self.old.order, self.old.priority, self.old.worker = 77, 12, "worker"
        self.new = self.places.follow(self.old, 5.0, Deferred())

    def announced(self) -> list[list[Any]]:
        self.places.announce()
        tickets: list[list[Any]] = self.batch().announced[4:]
        return [ticket[:5] for ticket in tickets]

    def test_announced(self) -> None:
        """Both are announced, with what the one has to do with the other; and no operation is sent for either."""
        self.assertEqual(self.announced(), [[1, 2, 2, 12, "worker"], [2, 3, 77, 12, ""]])
        self.assertEqual(self.batch().operations, [])

    def test_moved(self) -> None:
        """Once it waits again, the first is gone, and nothing needs to be released."""
        self.places.moved(self.new)
        self.places.moved(self.new)
        self.assertEqual((self.announced(), self.places.held), ([[2, 0, 77, 12, ""]], 0))
        self.assertEqual(self.places.freed, 0)

    def test_stays(self) -> None:
        """Where it may not, the first is as it was."""
        self.places.stays(self.new)
        self.assertEqual((self.announced(), self.places.held), ([[1, 1, 77, 12, "worker"]], 1))

    def test_leaves(self) -> None:
        """Whoever leaves gives up both."""
        self.places.remove(self.new.serial)
        self.assertEqual(self.batch().operations, [["release", 1], ["release", 2]])
        self.assertEqual((len(self.places), self.places.held), (0, 0))

    def test_questions(self) -> None:
        """What is asked goes with a batch that announces the last, or nothing; there is some room for it always."""
        self.places.longest_batch, self.places.longest_part = 2, 1
        self.places.announce()
        asked: list[int] = []

        def ask(most: int) -> list[list[Any]]:
            asked.append(most)
            return [["take", "front", 1]]

        batches = [Batch(*msgpack.decode(self.places.batch(ask=ask))) for _ in range(3)]
        self.assertEqual(asked, [2])
        self.assertEqual([len(batch.operations) for batch in batches], [0, 0, 1])
        self.reply()
        self.add(2)
        self.places.batch(ask=ask)
        self.assertEqual(asked, [2, 1])


class HeldTests(PlacesTestCase):
    def test_held(self) -> None:
        """It is counted how many tickets hold slots, and how many have given them up since the last batch."""
        self.announce_all()
        self.add(2, admitted=True)
        self.add()
        self.batch()
        self.assertEqual((self.places.held, self.places.freed, len(self.places)), (2, 0, 3))
        for serial in (1, 3):
            self.places.remove(serial)
        self.assertEqual((self.places.held, self.places.freed, len(self.places)), (1, 1, 1))
        self.batch()
        self.assertEqual(self.places.freed, 0)

    def test_entitled(self) -> None:
        """Slots that are held nobody else has, nor those of which Redis has not confirmed that they are free."""
        self.announce_all()
        self.add(3, admitted=True)
        self.places.remove(1)
        self.batch()
        self.reply()
        self.places.remove(2)
        self.batch()
        self.assertEqual(self.places.entitled(), {"a": 2, "b": 4})

    def test_entitled_to_what_is_not_sent(self) -> None:
        """What has been released since the last batch was sent, Redis cannot have given away."""
        self.announce_all()
        self.add(2, admitted=True)
        self.add()
        self.places.remove(2)
        self.assertEqual(self.places.entitled(), {"a": 2, "b": 4})

    def test_released_in_an_outage(self) -> None:
        """What is released after that is not asked for before Redis has answered."""
        self.announce_all()
        self.add(2, admitted=True)
        self.places.entitled()
        self.places.remove(1)
        self.assertEqual(self.places.freed, 0)
        self.places.announce()
        self.batch()
        self.reply()
        self.places.remove(2)
        self.assertEqual((self.places.freed, self.places.entitled()), (1, {"a": 1, "b": 2}))
