"""Tests for L{thrtwisted.relay.front} and L{thrtwisted.relay.forwarding}: workers and a gate by hand, in memory."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from zope.interface.verify import verifyObject

from tests.relay.fronts import WINDOW, Client, FrontRig, Hand, Place
from thrtwisted.errors import (
    BackendClosed,
    BackendProtocolError,
    BackendResponseTimeout,
    ExchangeError,
    GateUnavailable,
    QueueFull,
    QueueTimeout,
    WorkerLost,
)
from thrtwisted.exchange import Exchange
from thrtwisted.forward import IForwarder, IForwarding, RequestBody
from thrtwisted.relay import IPostUser
from thrtwisted.relay.codec import Frame, Kind
from thrtwisted.relay.flow import OVERHEAD
from thrtwisted.relay.forwarding import MOST_LOOKS, MOST_REFUSALS, RelayedForwarding
from thrtwisted.relay.front import LOOK, PATIENCE, SILENCE, STEPS
from thrtwisted.relay.seldom import PAUSE


class ForwardedTests(SynchronousTestCase):
    """Exchanges that a worker answers."""

    def setUp(self) -> None:
        self.rig = FrontRig(self)

    def test_interfaces(self) -> None:
        """A front forwards as others do."""
        verifyObject(IPostUser, self.rig.front)
        verifyObject(IForwarder, self.rig.way)
        verifyObject(IForwarding, self.rig.send())
        self.assertEqual((self.rig.way.name, self.rig.way.queue), ("app", "app"))
        self.assertIn("1 under way", repr(self.rig.way))
        self.assertIn("under way", repr(self.rig.forwardings[0]))

    def test_request(self) -> None:
        """The worker gets all of the request, and what it has to take."""
        forwarding = self.rig.send(b"POST", b"body")
        hand = self.rig.worker().hand
        opening = hand.opening
        self.assertEqual(hand.kinds, [Kind.OPEN, Kind.DATA, Kind.END])
        self.assertEqual((opening.serial, opening.queue), (100, "app"))
        self.assertEqual((opening.method, opening.target), (b"POST", b"/path?q"))
        self.assertEqual((opening.version, opening.length, hand.body), (b"HTTP/1.0", 4, b"body"))
        self.assertEqual(
            sorted(opening.headers), [(b"Host", [b"h"]), (b"X-B", [b"1", b"2"]), (b"X-Number", [b"1"])]
        )
        self.assertEqual(forwarding.method, b"POST")

    def test_response(self) -> None:
        """The client gets the answer, and the slots are free."""
        forwarding = self.rig.send()
        self.assertEqual(self.rig.worker().hand.kinds, [Kind.OPEN])
        self.rig.worker().hand.answer()
        self.rig.turn()
        head = self.rig.head(forwarding)
        self.assertEqual((head.status, head.phrase, head.length), (200, b"Fine", None))
        self.assertEqual(list(head.headers.getAllRawHeaders()), [(b"X-A", [b"1", b"2"])])
        self.assertEqual((self.rig.done, self.rig.places[0].releases), ([forwarding], 1))
        client = self.rig.deliver(forwarding)
        self.assertEqual((client.body, client.finished), (b"ok", True))
        self.assertEqual(self.rig.worker().unknown, [])
        self.assertTrue(self.rig.worker().hand.conversation.quiet)

    def test_streamed(self) -> None:
        """A body is passed on as it comes."""
        forwarding = self.rig.send()
        hand = self.rig.worker().hand
        hand.head()
        self.rig.turn()
        client = self.rig.deliver(forwarding)
        hand.conversation.write(b"one")
        self.rig.turn()
        self.assertEqual((client.body, client.finished, self.rig.done), (b"one", False, []))
        hand.say(Kind.END)
        self.rig.turn()
        self.assertTrue(client.finished)
        self.assertEqual(self.rig.done, [])
        hand.say(Kind.DONE)
        self.rig.turn()
        self.assertEqual(self.rig.done, [forwarding])

    def test_read(self) -> None:
        """A body may be read before it is delivered."""
        forwarding = self.rig.send()
        self.rig.worker().hand.answer(b"all")
        self.rig.turn()
        self.assertEqual(self.successResultOf(forwarding.read(10)), b"all")
        self.assertEqual(self.rig.deliver(forwarding).body, b"all")

    def test_too_early(self) -> None:
        """There is nothing to read or to deliver before the head."""
        forwarding = self.rig.send()
        self.assertRaises(RuntimeError, forwarding.read, 1)
        self.assertRaises(RuntimeError, forwarding.deliver, None)

    def test_done_before_head(self) -> None:
        """The backend has finished, and a long head is still on its way: the slots are free at once."""
        forwarding = self.rig.send()
        hand = self.rig.worker().hand
        hand.conversation.tell(Kind.DONE)
        self.rig.turn()
        self.assertEqual((self.rig.places[0].releases, self.rig.done), (1, []))
        hand.answer()
        self.rig.turn()
        self.assertEqual(self.rig.done, [forwarding])
        self.assertEqual(self.rig.deliver(forwarding).body, b"ok")

    def test_slow_worker(self) -> None:
        """No more of a request's body is under way than the window, however long it is; then it goes on."""
        worker = self.rig.worker(greedy=False)
        body = bytes(range(256)) * 1024
        self.rig.send(b"POST", body)
        hand = worker.hand
        self.assertLess(len(hand.body), WINDOW)
        while len(hand.body) < len(body):
            hand.take()
            self.rig.turn()
        hand.take()
        self.rig.turn()
        self.assertEqual(hand.body, body)
        self.assertEqual(hand.kinds, [Kind.OPEN, Kind.DATA, Kind.END])

    def paused(self) -> tuple[FrontRig, RelayedForwarding, Hand, Client]:
        """A front without room on its disk, and a client that reads no more after 100 kB of the hand's answer."""
        rig = FrontRig(self, max_spool=0)
        forwarding = rig.send()
        hand = rig.worker().hand
        hand.head()
        rig.turn()
        client = rig.deliver(forwarding)
        hand.conversation.write(bytes(100_000))
        rig.turn()
        client.producer.pauseProducing()
        return rig, forwarding, hand, client

    def test_slow_client(self) -> None:
        """A client that reads slowly holds the worker once the spool is full."""
        rig, _, hand, client = self.paused()
        body = bytes(1_000_000)
        hand.conversation.write(body[100_000:])
        hand.say(Kind.END, Kind.DONE)
        rig.turn()
        self.assertLess(len(client.body), 110_000)
        self.assertTrue(hand.conversation.full)
        client.producer.resumeProducing()
        rig.turn()
        self.assertEqual((client.body, client.finished), (body, True))

    def test_full_at_the_end(self) -> None:
        """The last word comes through, also if what the client is yet to take fills the window to its end."""
        rig, forwarding, hand, client = self.paused()
        while not hand.conversation._out.in_flight:
            hand.conversation.write(bytes(1000))
            rig.turn()
        while (room := WINDOW - hand.conversation._out.in_flight - 2 * OVERHEAD) > 0:
            hand.conversation.write(bytes(min(room, 1000)))
            rig.turn()
        hand.say(Kind.END, Kind.DONE)
        rig.turn()
        self.assertFalse(client.finished)
        self.assertEqual(
            (rig.done, repr(rig.front)), ([forwarding], "<Front front, 0 exchanges at 0 workers>")
        )
        client.producer.resumeProducing()
        self.assertTrue(client.finished)

    def test_early_answer(self) -> None:
        """An answer that comes before all of the body is sent lets the rest go on."""
        worker = self.rig.worker(greedy=False)
        forwarding = self.rig.send(b"POST", bytes(100 * WINDOW))
        worker.hand.head()
        self.rig.turn()
        self.rig.deliver(forwarding)
        self.assertFalse(self.rig.files[0].closed)
        while len(worker.hand.body) < 100 * WINDOW:
            worker.hand.take()
            self.rig.turn()
        self.assertTrue(self.rig.files[0].closed)
        worker.hand.say(Kind.END, Kind.DONE)
        self.rig.turn()

    def test_file_kept(self) -> None:
        """The body of a request is kept until there is an answer, for it may have to be sent again."""
        self.rig.send(b"POST", b"body")
        self.assertFalse(self.rig.files[0].closed)
        self.rig.worker().hand.head()
        self.rig.turn()
        self.assertTrue(self.rig.files[0].closed)

    def test_unreadable_body(self) -> None:
        """A body that cannot be read: the client is told, and the worker breaks off."""
        self.rig.worker(greedy=False)
        forwarding = self.rig.send(b"POST", bytes(100 * WINDOW))
        self.rig.files[0].truncate(1)
        hand = self.rig.worker().hand
        while not self.rig.heads[forwarding]:
            hand.take()
            self.rig.turn()
        self.assertEqual(self.rig.error(forwarding).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        hand.greedy = True
        hand.take()
        self.rig.turn()
        self.assertIn(Kind.ABANDON, hand.kinds)
        self.assertEqual(hand.kinds[-1], Kind.END)
        self.assertLess(len(hand.body), 100 * WINDOW)
        hand.say(Kind.DONE)
        self.rig.turn()
        self.assertEqual(self.rig.done, [forwarding])

    def test_no_place(self) -> None:
        """Without a place at a worker there is nobody to send to."""
        exchange = Exchange(b"GET", b"/", Headers(), "", "app")
        for place in (None, Place(1, None)):
            body = RequestBody(BytesIO())
            self.assertRaises(ValueError, self.rig.way.send, exchange, body, place)


class FailedTests(SynchronousTestCase):
    """Exchanges that come to nothing at the worker."""

    def setUp(self) -> None:
        self.rig = FrontRig(self)
        self.forwarding = self.rig.send()
        self.hand = self.rig.worker().hand

    def test_error(self) -> None:
        """What went wrong there is told here; the slots are free when the backend has finished."""
        self.hand.fail("BackendResponseTimeout", "Too late.", 3.0)
        self.rig.turn()
        error = self.rig.error(self.forwarding)
        self.assertIs(type(error), BackendResponseTimeout)
        self.assertEqual((str(error), error.retry_after), ("Too late.", 3.0))
        self.assertEqual(self.rig.done, [])
        self.hand.say(Kind.DONE)
        self.rig.turn()
        self.assertEqual(self.rig.done, [self.forwarding])
        self.assertEqual(self.rig.worker().unknown, [])

    def test_unknown_error(self) -> None:
        """An error that this version does not know, or that is none."""
        for number, name in enumerate(["SomethingNew", "STOPPING", "annotations"]):
            forwarding = self.rig.send()
            self.rig.worker().hand.fail(name)
            self.rig.worker().hand.say(Kind.DONE)
            self.rig.turn()
            self.assertIs(type(self.rig.error(forwarding)), ExchangeError, number)

    def test_unreadable(self) -> None:
        """What nobody of ours says is an error of the worker's."""
        for kind, payload in [
            (Kind.HEAD, b"\xc1"),
            (Kind.HEAD, b"\x94\xcc\xc8\xc4\x00\x91\x92\xc4\x01a\x91\x01\xc0"),
            (Kind.FAILED, b""),
        ]:
            forwarding = self.rig.send()
            hand = self.rig.worker().hand
            hand.conversation.say(kind, payload)
            hand.conversation.write(b"body of whatever it is")
            hand.say(Kind.END, Kind.DONE)
            self.rig.turn()
            self.assertIsInstance(self.rig.error(forwarding), BackendProtocolError)
            self.assertIn(forwarding, self.rig.done)

    def test_cut(self) -> None:
        """A response that is cut there is cut here."""
        self.hand.head()
        self.hand.conversation.write(b"some")
        self.rig.turn()
        client = self.rig.deliver(self.forwarding)
        self.hand.say(Kind.CUT, Kind.DONE)
        self.rig.turn()
        self.assertEqual((client.body, client.aborted, client.finished), (b"some", True, False))
        self.assertEqual(self.rig.done, [self.forwarding])

    def test_no_word(self) -> None:
        """A worker that is done and has not said anything is as good as lost."""
        self.hand.say(Kind.DONE)
        self.rig.turn()
        self.assertIsInstance(self.rig.error(self.forwarding), WorkerLost)
        self.assertEqual(self.rig.done, [self.forwarding])

    def test_no_end(self) -> None:
        """Nor is a response complete that has no end."""
        self.hand.head()
        self.hand.say(Kind.DONE)
        self.rig.turn()
        self.assertTrue(self.rig.deliver(self.forwarding).aborted)

    def test_nonsense(self) -> None:
        """Who answers what a front says has not understood; it is left, and the exchange queues again."""
        self.hand.say(Kind.OPEN)
        self.rig.turn()
        self.assertTrue(self.rig.places[0].waits)
        self.rig.places[0].admit(self.rig.place("w2"))
        self.rig.turn()
        self.rig.worker("w2").hand.answer()
        self.rig.turn()
        self.rig.head(self.forwarding)

    def test_twice(self) -> None:
        """Only the first head counts, and a worker that has begun cannot refuse."""
        self.hand.head(200)
        self.hand.head(201)
        self.hand.say(Kind.REFUSED)
        self.rig.turn()
        self.assertEqual(self.rig.head(self.forwarding).status, 200)
        self.assertEqual(self.rig.done, [self.forwarding])
        self.assertTrue(self.rig.deliver(self.forwarding).aborted)


class StrangeTests(SynchronousTestCase):
    """Answers that no worker of ours gives: somebody else can write to Redis, or a worker is of another version."""

    def setUp(self) -> None:
        self.rig = FrontRig(self)
        self.log: list[str] = []

        def keep(event: Any) -> None:
            self.log.append(formatEvent(event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)

    def exchange(self, method: bytes = b"GET") -> tuple[RelayedForwarding, Hand]:
        """An exchange that is under way, of which the log is to say something."""
        self.rig.clock.advance(PAUSE)
        self.log.clear()
        return self.rig.send(method), self.rig.worker().hand

    def check_refused(self, forwarding: RelayedForwarding, hand: Hand, why: str) -> None:
        """The client is told of a bad worker, the log says why, and it ends as any: its place is free once."""
        hand.conversation.write(b"body of whatever it is")
        hand.say(Kind.END)
        self.rig.turn()
        self.assertIsInstance(self.rig.error(forwarding), BackendProtocolError)
        self.assertNotIn(forwarding, self.rig.done)
        self.assertIn(Kind.ABANDON, hand.kinds)
        hand.say(Kind.DONE)
        self.rig.turn()
        self.assertEqual((self.rig.done[-1], self.rig.places[-1].releases), (forwarding, 1))
        [line] = self.log
        self.assertRegex(line, f"answer of worker w1 cannot be passed on, .* follow: .*{why}.* \\(mend: ")

    def test_heads(self) -> None:
        """A head that a client must not be given, or that says two things of its body's end."""
        out_of_range, control, length = "out of range", "control character", "Content-Length"
        cases: list[tuple[dict[str, Any], str]] = [
            *(({"status": status}, out_of_range) for status in (-1, 0, 100, 101, 199, 600, 99999)),
            ({"phrase": b"OK\r\nEvil: 1"}, control),
            ({"phrase": b"OK\0"}, control),
            ({"X_B": b"\0"}, control),
            ({"X_B": b"\x1b[2J"}, control),
            ({"X B": b"b"}, "X B"),
            ({"X\r\nB": b"b"}, "B"),
            ({"": b"b"}, ""),
            ({"Content_Length": b"3"}, length),
            ({"length": 3, "Content_Length": b""}, length),
            ({"length": 3, "Content_Length": b"4"}, length),
            ({"length": 3, "Content_Length": b"3, 4"}, length),
            ({"length": -3}, length),
            ({"length": 10**18}, length),
            ({"status": 204, "length": 3}, length),
            ({"status": 304, "length": 3, "Content_Length": b""}, length),
        ]
        for fields, why in cases:
            forwarding, hand = self.exchange()
            hand.head(**fields)
            self.check_refused(forwarding, hand, why)

    def test_unreadable(self) -> None:
        """What is no head at all, or no problem."""
        for kind in (Kind.HEAD, Kind.FAILED):
            forwarding, hand = self.exchange()
            hand.conversation.say(kind, b"\xc1")
            self.check_refused(forwarding, hand, "")

    def test_one_hop(self) -> None:
        """Fields that belong to one connection are not passed on, for their own would be the front's."""
        forwarding, hand = self.exchange()
        hand.head(Transfer_Encoding=b"chunked", Connection=b"x-b", X_B=b"b", Keep_Alive=b"timeout=1")
        hand.say(Kind.END, Kind.DONE)
        self.rig.turn()
        self.assertEqual(self.rig.head(forwarding).headers, Headers({b"X-A": [b"1", b"2"]}))
        self.rig.deliver(forwarding)

    def test_problems(self) -> None:
        """Nor can a client be told to come back at a time that is none, or with a text that breaks lines."""
        for retry_after in (float("inf"), float("nan"), -1.0):
            forwarding, hand = self.exchange()
            hand.fail("GateUnavailable", retry_after=retry_after)
            self.check_refused(forwarding, hand, f"in {retry_after} seconds")
        forwarding, hand = self.exchange()
        hand.fail("GateUnavailable", "No.\r\nX: y")
        self.check_refused(forwarding, hand, "control character")

    def test_lengths(self) -> None:
        """
        A body of another length than was said is cut, and nothing of it sent that is too much: the client would take
        that for the next answer, or wait.
        """
        for body, why in ((b"ab", "shorter"), (b"abcd", "longer")):
            for delivered_before in (True, False):
                forwarding, hand = self.exchange()
                hand.head(length=3)
                self.rig.turn()
                if delivered_before:
                    client = self.rig.deliver(forwarding)
                hand.conversation.write(body)
                hand.say(Kind.END)
                self.rig.turn()
                if not delivered_before:
                    client = self.rig.deliver(forwarding)
                self.assertEqual((client.aborted, client.finished), (True, False))
                self.assertLessEqual(len(client.body), 3)
                hand.conversation.write(b"more")
                hand.say(Kind.END, Kind.DONE)
                self.rig.turn()
                self.assertTrue(hand.conversation.quiet)
                self.assertEqual((self.rig.done[-1], self.rig.places[-1].releases), (forwarding, 1))
                [line] = self.log
                self.assertIn(f"{why} than was said", line)

    def test_right_lengths(self) -> None:
        """One of just its length is not, in however many pieces; nor is one that has none, whatever its head says."""
        for method, status, length, pieces in [
            (b"GET", 200, 3, [b"a", b"b", b"c"]),
            (b"GET", 200, 0, []),
            (b"GET", 200, None, [b"abc", b"d"]),
            (b"HEAD", 200, 3, []),
            (b"GET", 304, 3, []),
            (b"GET", 204, None, []),
        ]:
            forwarding, hand = self.exchange(method)
            hand.head(status, length)
            self.rig.turn()
            client = self.rig.deliver(forwarding)
            for piece in pieces:
                hand.conversation.write(piece)
                self.rig.turn()
            hand.say(Kind.END, Kind.DONE)
            self.rig.turn()
            self.assertEqual((client.body, client.finished), (b"".join(pieces), True))
            self.assertEqual(self.log, [])

    def test_no_body(self) -> None:
        """What has no body gets none: a client would take it for the next answer."""
        for method, status in ((b"HEAD", 200), (b"GET", 204), (b"GET", 304)):
            forwarding, hand = self.exchange(method)
            hand.head(status)
            self.rig.turn()
            client = self.rig.deliver(forwarding)
            hand.conversation.write(b"x")
            self.rig.turn()
            self.assertEqual((client.body, client.aborted), (b"", True))
            hand.say(Kind.END, Kind.DONE)
            self.rig.turn()

    def test_after_the_end(self) -> None:
        """What follows the end of a body is dropped."""
        forwarding, hand = self.exchange()
        hand.head()
        hand.say(Kind.END)
        hand.conversation.write(b"x")
        hand.say(Kind.DONE)
        self.rig.turn()
        client = self.rig.deliver(forwarding)
        self.assertEqual((client.body, client.finished, self.log), (b"", True, []))
        self.assertTrue(hand.conversation.quiet)

    def test_many(self) -> None:
        """Many of them do not fill the disk with lines."""
        self.exchange()
        for _ in range(10):
            self.rig.send()
            hand = self.rig.worker().hand
            hand.head(99)
            hand.say(Kind.DONE)
            self.rig.turn()
        self.assertEqual(len(self.log), 1)


class RefusedTests(SynchronousTestCase):
    """Workers that do not begin."""

    def setUp(self) -> None:
        self.rig = FrontRig(self)

    def test_another(self) -> None:
        """Another worker gets all of it, with a new ticket; whatever the method, for nothing was executed."""
        body = bytes(range(256)) * 100
        self.rig.worker(greedy=False)
        forwarding = self.rig.send(b"POST", body)
        self.rig.worker().hand.say(Kind.REFUSED)
        self.rig.turn()
        [first] = self.rig.places
        assert first.queued is not None
        self.assertEqual((first.waits, first.queued[1]), (True, True))
        self.assertIn("queued", repr(forwarding))
        second = first.admit(self.rig.place("w2"))
        self.rig.turn()
        hand = self.rig.worker("w2").hand
        self.assertEqual((hand.opening.serial, hand.body), (second.serial, body))
        hand.answer()
        self.rig.turn()
        self.assertEqual((first.releases, second.releases), (0, 1))
        self.assertEqual(self.rig.done, [forwarding])

    def test_same_worker(self) -> None:
        """The same worker may have it after all: that is another exchange to it."""
        forwarding = self.rig.send()
        self.rig.worker().hand.say(Kind.REFUSED)
        self.rig.turn()
        self.rig.places[0].admit(self.rig.place("w1"))
        self.rig.turn()
        self.assertEqual(sorted(self.rig.worker().hands), [1, 2])
        self.rig.worker().hand.answer()
        self.rig.turn()
        self.rig.head(forwarding)

    def test_nobody_waits(self) -> None:
        """The client has left meanwhile: it does not queue again."""
        forwarding = self.rig.send()
        self.rig.worker().hand.say(Kind.REFUSED)
        forwarding.abandon()
        self.rig.turn()
        self.assertEqual((self.rig.places[0].releases, self.rig.done), (1, [forwarding]))

    def test_never(self) -> None:
        """If all refuse there is an end to it."""
        forwarding = self.rig.send()
        for _ in range(MOST_REFUSALS - 1):
            self.rig.worker().hand.say(Kind.REFUSED)
            self.rig.turn()
            self.rig.places[-1].admit(self.rig.place())
            self.rig.turn()
        self.assertEqual(self.rig.heads[forwarding], [])
        self.rig.worker().hand.say(Kind.REFUSED)
        self.rig.turn()
        self.assertIsInstance(self.rig.error(forwarding), WorkerLost)
        self.assertEqual((self.rig.places[-1].releases, self.rig.done), (1, [forwarding]))

    def test_not_admitted(self) -> None:
        """Its place in the queue comes to nothing: the client hears of it, and nothing is released."""
        for error in (QueueTimeout("x"), QueueFull("x"), GateUnavailable("x")):
            forwarding = self.rig.send()
            self.rig.worker().hand.say(Kind.REFUSED)
            self.rig.turn()
            self.rig.places[-1].refuse(error)
            self.assertIs(self.rig.error(forwarding), error)
            self.assertIn(forwarding, self.rig.done)
            self.assertEqual(self.rig.places[-1].releases, 0)

    def test_mistake(self) -> None:
        """A mistake in the gate is logged."""
        forwarding = self.rig.send()
        self.rig.worker().hand.say(Kind.REFUSED)
        self.rig.turn()
        self.rig.places[-1].refuse(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.rig.done, [forwarding])

    def test_admitted_at_last(self) -> None:
        """A place that comes in spite of that is given back."""
        forwarding = self.rig.send()
        self.rig.worker().hand.say(Kind.REFUSED)
        self.rig.turn()
        second = self.rig.place("w2")
        self.rig.places[0].when_left = second
        forwarding.abandon()
        self.assertEqual((second.releases, self.rig.done), (1, [forwarding]))

    def test_leaves_queue(self) -> None:
        """A client that leaves while it queues again leaves the queue."""
        forwarding = self.rig.send()
        self.rig.worker().hand.say(Kind.REFUSED)
        self.rig.turn()
        forwarding.abandon()
        [place] = self.rig.places
        self.assertFalse(place.waits)
        self.assertEqual((place.releases, self.rig.done), (0, [forwarding]))


class LostTests(SynchronousTestCase):
    """Workers that die, or do not know any more what they had."""

    def lose(self, rig: FrontRig, worker: str = "w1") -> None:
        """The worker is lost."""
        rig.die(worker)

    def test_not_begun(self) -> None:
        """What was certainly not begun goes to another worker, whatever its method and the configuration."""
        rig = FrontRig(self)
        forwarding = rig.send(b"POST", b"body")
        self.lose(rig)
        [first] = rig.places
        assert first.queued is not None
        self.assertEqual(first.queued[1], False)
        first.admit(rig.place("w2"))
        rig.turn()
        self.assertEqual(rig.worker("w2").hand.body, b"body")
        rig.worker("w2").hand.answer()
        rig.turn()
        self.assertEqual((rig.done, rig.head(forwarding).status), ([forwarding], 200))

    def test_begun(self) -> None:
        """What may have been begun is answered 502."""
        for method in (b"POST", b"GET"):
            rig = FrontRig(self)
            forwarding = rig.send(method)
            self.lose(rig)
            rig.places[0].was_taken()
            self.assertIsInstance(rig.error(forwarding), WorkerLost)
            self.assertEqual((rig.places[0].releases, rig.done), (1, [forwarding]))

    def test_retried(self) -> None:
        """A safe method is risked again if that is configured: once, with its body."""
        rig = FrontRig(self, retry="safe")
        forwarding = rig.send(b"GET", b"body")
        self.lose(rig)
        rig.places[0].was_taken()
        assert rig.places[0].queued is not None
        self.assertEqual((rig.places[0].waits, rig.places[0].queued[1]), (True, True))
        rig.places[0].admit(rig.place("w2"))
        rig.turn()
        self.assertEqual(rig.worker("w2").hand.body, b"body")
        self.lose(rig, "w2")
        rig.places[1].was_taken()
        self.assertIsInstance(rig.error(forwarding), WorkerLost)
        self.assertEqual([place.releases for place in rig.places], [0, 1])
        self.assertEqual(rig.done, [forwarding])

    def test_retried_in_time(self) -> None:
        """The slots are not given to the next one while the application may still be at work on the first."""
        rig = FrontRig(self, retry="safe", reclaim_delay=7.0)
        forwarding = rig.send()
        self.lose(rig)
        rig.places[0].was_taken()
        rig.clock.advance(6.9)
        self.assertEqual((rig.places[0].held, rig.heads[forwarding]), (True, []))
        rig.clock.advance(0.1)
        rig.places[0].admit(rig.place("w2"))
        rig.turn()
        rig.worker("w2").hand.answer()
        rig.turn()
        rig.head(forwarding)

    def test_leaves_before_retry_in_time(self) -> None:
        """If the client leaves meanwhile there is no need for it."""
        rig = FrontRig(self, retry="safe", reclaim_delay=7.0)
        forwarding = rig.send()
        self.lose(rig)
        rig.places[0].was_taken()
        forwarding.abandon()
        self.assertEqual((rig.places[0].releases, rig.done), (0, []))
        rig.clock.advance(7.0)
        self.assertEqual((rig.places[0].releases, rig.done), (1, [forwarding]))

    def test_not_safe(self) -> None:
        """Other methods are not."""
        rig = FrontRig(self, retry="safe")
        forwarding = rig.send(b"POST")
        self.lose(rig)
        rig.places[0].was_taken()
        self.assertIsInstance(rig.error(forwarding), WorkerLost)

    def test_leaves_before_retry(self) -> None:
        """Nobody waits for what would be retried."""
        rig = FrontRig(self, retry="safe")
        forwarding = rig.send(b"GET")
        self.lose(rig)
        queued = rig.places[0].queued
        assert queued is not None
        queued[0].addErrback(lambda failure: failure.trap(CancelledError))
        forwarding.abandon()
        self.assertEqual((rig.places[0].releases, rig.done), (0, [forwarding]))

    def test_reclaim_delay(self) -> None:
        """The application may still be at work: the client hears at once, the slots stay taken for a while."""
        rig = FrontRig(self, reclaim_delay=7.0)
        forwarding = rig.send()
        self.lose(rig)
        rig.places[0].was_taken()
        self.assertIsInstance(rig.error(forwarding), WorkerLost)
        forwarding.abandon()
        rig.clock.advance(6.9)
        self.assertEqual((rig.places[0].releases, rig.done), (0, []))
        rig.clock.advance(0.1)
        self.assertEqual((rig.places[0].releases, rig.done), (1, [forwarding]))

    def test_leaves_unanswered(self) -> None:
        """If the client leaves before it is known whether it was begun, the slots stay taken for that while, too."""
        rig = FrontRig(self, reclaim_delay=7.0)
        forwarding = rig.send()
        self.lose(rig)
        rig.places[0].is_answered = False
        forwarding.abandon()
        rig.clock.advance(6.9)
        self.assertEqual((rig.places[0].releases, rig.done), (0, []))
        rig.clock.advance(0.1)
        self.assertEqual((rig.places[0].releases, rig.done), (1, [forwarding]))

    def test_closed_unanswered(self) -> None:
        """A process that stops leaves that to the gate."""
        rig = FrontRig(self, reclaim_delay=7.0)
        forwarding = rig.send()
        self.lose(rig)
        rig.places[0].is_answered = False
        rig.close()
        rig.left += 1
        self.assertEqual((rig.places[0].held, rig.done), (True, [forwarding]))

    def test_closed_while_reclaimed(self) -> None:
        """A process that stops does not wait for that: the gate does."""
        rig = FrontRig(self, reclaim_delay=7.0)
        forwarding = rig.send()
        self.lose(rig)
        rig.places[0].was_taken()
        rig.close()
        self.assertEqual((rig.places[0].held, rig.done), (True, [forwarding]))

    def test_amidst_response(self) -> None:
        """A response that has begun is cut, whatever is configured."""
        rig = FrontRig(self, retry="safe", reclaim_delay=1.0)
        forwarding = rig.send()
        rig.worker().hand.head()
        rig.turn()
        client = rig.deliver(forwarding)
        self.lose(rig)
        self.assertTrue(client.aborted)
        self.assertEqual(rig.done, [])
        rig.clock.advance(1.0)
        self.assertEqual((rig.places[0].releases, rig.done), (1, [forwarding]))

    def test_after_response(self) -> None:
        """A response that is complete stays so, though the backend was not done."""
        rig = FrontRig(self)
        forwarding = rig.send()
        rig.worker().hand.head()
        rig.worker().hand.say(Kind.END)
        rig.turn()
        self.lose(rig)
        self.assertTrue(rig.deliver(forwarding).finished)
        self.assertEqual(rig.done, [forwarding])

    def test_after_error(self) -> None:
        """So does an answer of ours."""
        rig = FrontRig(self)
        forwarding = rig.send()
        rig.worker().hand.fail("BackendResponseTimeout")
        rig.turn()
        self.lose(rig)
        self.assertIsInstance(rig.error(forwarding), BackendResponseTimeout)
        self.assertEqual(rig.done, [forwarding])

    def test_after_done(self) -> None:
        """The slots are free already, and the rest of the response is lost."""
        rig = FrontRig(self)
        forwarding = rig.send()
        rig.worker().hand.head()
        rig.worker().hand.conversation.tell(Kind.DONE)
        rig.turn()
        client = rig.deliver(forwarding)
        self.assertEqual(rig.done, [forwarding])
        self.lose(rig)
        self.assertTrue(client.aborted)

    def test_after_done_without_head(self) -> None:
        """Nothing of the response is there."""
        rig = FrontRig(self)
        forwarding = rig.send()
        rig.worker().hand.conversation.tell(Kind.DONE)
        rig.turn()
        self.lose(rig)
        self.assertIsInstance(rig.error(forwarding), WorkerLost)
        self.assertEqual(rig.done, [forwarding])

    def test_abandoned(self) -> None:
        """Nobody waits for it: it is not sent again."""
        rig = FrontRig(self, retry="safe")
        forwarding = rig.send()
        forwarding.abandon()
        self.lose(rig)
        self.assertEqual((rig.places[0].releases, rig.done), (1, [forwarding]))

    def test_late_word(self) -> None:
        """What a worker says that was taken for dead counts for nothing, and it is told so."""
        rig = FrontRig(self)
        rig.send()
        hand = rig.worker().hand
        self.lose(rig)
        rig.places[0].was_taken()
        hand.answer()
        rig.turn()
        self.assertIn(Kind.GONE, [frame.kind for frame in rig.worker().unknown])


class DeadTests(SynchronousTestCase):
    """What is so of deaths alone."""

    def test_all(self) -> None:
        """All that a worker had is lost, and others' is not; the log says so once."""
        rig = FrontRig(self)
        forwardings = [rig.send(), rig.send(), rig.send(worker="w2")]
        rig.die("w1")
        self.assertEqual([place.waits for place in rig.places], [True, True, False])
        self.assertEqual(list(rig.crew.watched), ["w2"])
        rig.worker("w2").hand.answer()
        rig.turn()
        self.assertEqual(rig.done, forwardings[2:])

    def test_comes_back(self) -> None:
        """A worker that was frozen may have others, and is watched again."""
        rig = FrontRig(self)
        rig.send()
        rig.die()
        rig.places[0].was_taken()
        forwarding = rig.send()
        self.assertEqual(list(rig.crew.watched), ["w1"])
        rig.worker().hand.answer()
        rig.turn()
        rig.head(forwarding)

    def test_watched_while_needed(self) -> None:
        """A worker that has nothing is not watched."""
        rig = FrontRig(self)
        rig.send()
        self.assertEqual(list(rig.crew.watched), ["w1"])
        rig.worker().hand.answer()
        rig.turn()
        self.assertEqual(rig.crew.watched, {})


class GoneTests(LostTests):
    """A worker that lives, and does not know the exchange any more, is as lost."""

    def lose(self, rig: FrontRig, worker: str = "w1") -> None:
        numbers = list(rig.workers[worker].hands)
        rig.workers[worker].forget()
        for number in numbers:
            rig.workers[worker].post.send("front", Frame("front", number, Kind.GONE))
        rig.turn()


class LeavingTests(SynchronousTestCase):
    """Clients that leave."""

    def setUp(self) -> None:
        self.rig = FrontRig(self)
        self.forwarding = self.rig.send(b"POST", b"body")
        self.hand = self.rig.worker().hand

    def test_not_begun(self) -> None:
        """The worker is told, and when it says so all is over."""
        self.forwarding.abandon()
        self.forwarding.abandon()
        self.rig.turn()
        self.assertEqual(self.hand.kinds.count(Kind.ABANDON), 1)
        self.assertEqual((self.rig.places[0].releases, self.rig.done), (0, []))
        self.hand.say(Kind.DONE)
        self.rig.turn()
        self.assertEqual((self.rig.places[0].releases, self.rig.done), (1, [self.forwarding]))
        self.assertEqual(self.rig.worker().unknown, [])

    def test_cancelled(self) -> None:
        """To wait no more for the head is the same."""
        heads = self.rig.heads[self.forwarding]
        self.forwarding.head.addErrback(lambda failure: heads.append(failure.value))
        self.forwarding.head.cancel()
        self.rig.turn()
        self.assertIn(Kind.ABANDON, self.hand.kinds)
        self.hand.say(Kind.DONE)
        self.rig.turn()
        self.assertEqual(self.rig.done, [self.forwarding])
        self.assertEqual(len(heads), 1)

    def test_before_head(self) -> None:
        """The backend goes on, and its answer is dropped: the worker is not held up."""
        self.forwarding.abandon()
        self.hand.head()
        self.hand.conversation.write(bytes(100 * WINDOW))
        self.hand.say(Kind.END, Kind.DONE)
        self.rig.turn()
        self.assertTrue(self.hand.conversation.quiet)
        self.assertEqual(self.rig.done, [self.forwarding])

    def test_amidst_response(self) -> None:
        """The rest is dropped, and the worker hears that nobody wants it."""
        self.hand.head()
        self.rig.turn()
        client = self.rig.deliver(self.forwarding)
        client.leave()
        self.rig.turn()
        self.assertIn(Kind.ABANDON, self.hand.kinds)
        self.hand.conversation.write(bytes(100 * WINDOW))
        self.hand.say(Kind.DONE)
        self.rig.turn()
        self.assertEqual((client.body, self.rig.done), (b"", [self.forwarding]))

    def test_after_done(self) -> None:
        """The worker hears that nobody wants the rest, though the slots are free already."""
        self.hand.head()
        self.hand.conversation.tell(Kind.DONE)
        self.rig.turn()
        client = self.rig.deliver(self.forwarding)
        client.leave()
        self.rig.turn()
        self.assertIn(Kind.ABANDON, self.hand.kinds)
        self.hand.say(Kind.DONE)
        self.rig.turn()
        self.assertEqual(self.rig.places[0].releases, 1)

    def test_upload_goes_on(self) -> None:
        """What was begun of a request is sent to its end, as on the direct way."""
        rig = FrontRig(self)
        rig.worker(greedy=False)
        forwarding = rig.send(b"POST", bytes(100 * WINDOW))
        hand = rig.worker().hand
        forwarding.abandon()
        rig.turn()
        while len(hand.body) < 100 * WINDOW:
            hand.take()
            rig.turn()
        self.assertTrue(rig.files[0].closed)
        hand.say(Kind.DONE)
        rig.turn()
        self.assertEqual(rig.done, [forwarding])


class BadLineTests(SynchronousTestCase):
    """Redis goes and comes back."""

    def test_cut_at_each_moment(self) -> None:
        """Wherever frames are lost, and whatever comes twice, all is said once when Redis is back."""
        for twice in (False, True):
            for kept in range(8):
                for moment in range(4):
                    self.exchange(kept, moment, twice)

    def exchange(self, kept: int, moment: int, twice: bool) -> None:
        """One exchange, with a cut at a moment."""
        rig = FrontRig(self)
        rig.posts.repeats = lambda frame: 2 if twice else 1
        worker = rig.worker()

        def now(number: int) -> None:
            if number == moment:
                rig.posts.cut(kept)
                rig.turn()
                rig.posts.mend()
                rig.turn()

        if moment == 0:
            rig.posts.cut()
        forwarding = rig.send(b"POST", bytes(10_000))
        if moment == 0:
            self.assertEqual(worker.hands, {})
            rig.posts.mend()
            rig.turn()
        now(1)
        self.assertEqual(len(worker.hand.body), 10_000)
        worker.hand.head()
        worker.hand.conversation.write(bytes(10_000))
        now(2)
        worker.hand.conversation.tell(Kind.DONE)
        worker.hand.say(Kind.END, Kind.DONE)
        now(3)
        rig.turn()
        rig.head(forwarding)
        client = rig.deliver(forwarding)
        self.assertEqual((len(client.body), client.finished), (10_000, True))
        self.assertEqual((rig.places[0].releases, rig.done), (1, [forwarding]))

    def test_abandoned_while_down(self) -> None:
        """A worker hears of a client that has left as soon as Redis is back."""
        rig = FrontRig(self)
        forwarding = rig.send()
        rig.posts.cut()
        forwarding.abandon()
        rig.turn()
        self.assertNotIn(Kind.ABANDON, rig.worker().hand.kinds)
        rig.posts.mend()
        rig.turn()
        self.assertIn(Kind.ABANDON, rig.worker().hand.kinds)

    def test_unknown(self) -> None:
        """Of exchanges that it does not have a front says so, and never of others'."""
        rig = FrontRig(self)
        worker = rig.worker()
        worker.post.send("front", Frame("front", 7, Kind.DONE, sender="w1"))
        worker.post.send("front", Frame("other", 7, Kind.DONE, sender="w1"))
        worker.post.send("front", Frame("front", 7, Kind.GONE, sender="w1"))
        rig.turn()
        self.assertEqual(
            [(frame.front, frame.kind) for frame in worker.unknown],
            [("front", Kind.GONE), ("other", Kind.GONE)],
        )


class ClosedTests(SynchronousTestCase):
    """A process that stops."""

    def setUp(self) -> None:
        self.rig = FrontRig(self)

    def test_under_way(self) -> None:
        """The client is told, and the worker, who may be at work on it: so its slots are left to the gate."""
        forwarding = self.rig.send(b"POST", bytes(10 * WINDOW))
        self.rig.close()
        self.assertIsInstance(self.rig.error(forwarding), BackendClosed)
        self.assertEqual((self.rig.places[0].held, self.rig.done), (True, [forwarding]))
        self.assertIn(Kind.GONE, self.rig.worker().hand.kinds)

    def test_queued(self) -> None:
        """Who queues again leaves the queue."""
        forwarding = self.rig.send()
        self.rig.worker().hand.say(Kind.REFUSED)
        self.rig.turn()
        self.rig.close()
        self.assertIsInstance(self.rig.error(forwarding), BackendClosed)
        self.assertEqual((self.rig.places[0].releases, self.rig.done), (0, [forwarding]))

    def test_amidst_response(self) -> None:
        """A response that is not complete is cut."""
        forwarding = self.rig.send()
        self.rig.worker().hand.head()
        self.rig.turn()
        client = self.rig.deliver(forwarding)
        self.rig.close()
        self.assertTrue(client.aborted)

    def test_after_done(self) -> None:
        """That goes for one of which the backend has finished, too, once the front stops."""
        forwarding = self.rig.send()
        self.rig.worker().hand.head()
        self.rig.worker().hand.conversation.tell(Kind.DONE)
        self.rig.turn()
        client = self.rig.deliver(forwarding)
        self.rig.close()
        self.assertFalse(client.aborted)
        self.successResultOf(self.rig.front.stop())
        self.assertTrue(client.aborted)

    def test_afterwards(self) -> None:
        """Nothing is begun any more."""
        self.rig.close()
        forwarding = self.rig.send()
        self.assertIsInstance(self.rig.error(forwarding), BackendClosed)
        self.assertEqual(self.rig.worker().hands, {})
        self.assertEqual((self.rig.places[0].releases, self.rig.done), (1, [forwarding]))


class LookTests(SynchronousTestCase):
    """What a front looks after beside its exchanges."""

    def setUp(self) -> None:
        self.rig = FrontRig(self)
        self.rig.front.forwarder("api")
        self.rig.way.start()
        self.rig.way.start()

    def look(self) -> list[str]:
        """What is said at the next look."""
        lines: list[str] = []

        def observe(event: dict[str, object]) -> None:
            lines.append(formatEvent(event))  # type: ignore[arg-type]

        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        try:
            self.rig.clock.advance(LOOK)
        finally:
            globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]
        return [line for line in lines if "backend." in line]

    def test_unserved(self) -> None:
        """That nobody serves a backend is said once, and once that somebody does."""
        self.rig.crew.elsewhere = {"api": 3}
        [line] = self.look()
        self.assertIn("No worker serves backend.app: its requests wait", line)
        self.assertEqual(self.look(), [])
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        self.assertEqual(self.look(), ["backend.app is served again, by workers with 5 places"])
        self.rig.crew.elsewhere = {"app": 5}
        [line] = self.look()
        self.assertIn("No worker serves backend.api", line)

    def test_redis_is_gone(self) -> None:
        """While Redis is gone nothing is said, and it is asked once."""
        self.rig.crew.slow = True
        self.assertEqual(self.look() + self.look(), [])
        self.assertEqual(len(self.rig.crew.pending), 1)
        self.rig.crew.answer()
        self.rig.crew.slow = False
        self.look()

    def test_stopped_meanwhile(self) -> None:
        """A front that stops does not wait for the answer."""
        self.rig.crew.slow = True
        self.look()
        self.successResultOf(self.rig.front.stop())
        self.rig.crew.answer()
        self.assertEqual(self.rig.clock.getDelayedCalls(), [])

    def wait(self) -> None:
        """For as long as requests wait for the post."""
        self.rig.clock.pump([PATIENCE / STEPS] * STEPS)

    def test_mute_while_redis_is_gone(self) -> None:
        """That Redis is gone for long is no reason to refuse what has a place."""
        self.rig.front.down()
        self.rig.gate.answering = False
        waits = self.rig.send()
        for _ in range(10):
            self.wait()
        self.rig.gate.answering = True
        self.rig.clock.advance(PATIENCE / STEPS)
        self.assertEqual(self.rig.heads[waits], [])
        self.rig.front.up()
        self.rig.turn()
        self.assertEqual(self.rig.worker().hand.kinds, [Kind.OPEN])

    def test_mute(self) -> None:
        """What cannot be said to a worker is not begun, and not for long: it is refused; until the post is up again."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        self.rig.front.down()
        waits = self.rig.send()
        self.rig.clock.advance(PATIENCE / 2)
        left = self.rig.send()
        left.abandon()
        self.assertEqual(self.rig.heads[waits], [])
        self.wait()
        refused = self.rig.send()
        for forwarding in (waits, refused):
            self.assertIsInstance(self.rig.error(forwarding), GateUnavailable)
        self.assertEqual([place.releases for place in self.rig.places], [1, 1, 1])
        self.assertEqual(self.rig.posts.carried, [])
        self.rig.front.up()
        self.rig.send()
        self.assertEqual(self.rig.worker().hand.kinds, [Kind.OPEN])

    def test_mute_for_a_moment(self) -> None:
        """Once the post is up, it is begun."""
        self.rig.front.down()
        waits = self.rig.send()
        self.rig.clock.advance(PATIENCE / 2)
        self.rig.front.up()
        self.rig.turn()
        self.rig.worker().hand.answer()
        self.rig.turn()
        self.assertEqual((self.rig.head(waits).status, self.rig.places[0].releases), (200, 1))

    def test_mute_and_refused(self) -> None:
        """What another worker is to get waits for the post, too."""
        waits = self.rig.send()
        self.rig.worker().hand.say(Kind.REFUSED)
        self.rig.turn()
        self.rig.front.down()
        self.rig.places[0].admit(self.rig.place("w2"))
        self.wait()
        self.assertIsInstance(self.rig.error(waits), GateUnavailable)
        self.assertEqual((self.rig.worker("w2").hands, self.rig.places[1].releases), ({}, 1))

    def test_mute_and_stopped(self) -> None:
        """A front that stops waits for nothing."""
        self.rig.front.down()
        self.rig.send()
        self.rig.close()
        self.assertIsInstance(self.rig.error(self.rig.forwardings[0]), BackendClosed)

    def test_lost_all(self) -> None:
        """A fault with one request of a lost worker leaves the others as they are: lost."""
        self.rig.send()
        self.rig.send()
        self.patch(self.rig.forwardings[0], "lost", lambda: 1 // 0)
        self.rig.die()
        self.assertEqual([place.waits for place in self.rig.places], [False, True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_never_heard(self) -> None:
        """A worker that is alive, and says nothing though it is asked, is waited for no longer than that."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        silent, begun = self.rig.send(), self.rig.send()
        self.rig.worker().hands[2].head()
        self.rig.turn()
        client = self.rig.deliver(begun)
        self.rig.worker().post.send = lambda *args, **options: None  # type: ignore[method-assign]
        self.rig.clock.pump([LOOK] * (MOST_LOOKS - 2))
        self.assertEqual((self.rig.heads[silent], client.aborted), ([], False))
        self.rig.clock.pump([LOOK] * 2)
        self.assertIsInstance(self.rig.error(silent), BackendResponseTimeout)
        self.assertTrue(client.aborted)
        self.assertIn(Kind.ABANDON, self.rig.worker().hands[1].kinds)
        self.assertEqual([place.releases for place in self.rig.places], [0, 0])
        self.rig.clock.pump([LOOK] * MOST_LOOKS)
        self.assertEqual([place.releases for place in self.rig.places], [1, 1])

    def test_long(self) -> None:
        """A request may take as long as it likes, as long as its worker knows of it."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        forwarding = self.rig.send()
        self.rig.clock.pump([LOOK] * (5 * MOST_LOOKS))
        self.rig.worker().hand.answer()
        self.rig.turn()
        self.assertEqual(self.rig.head(forwarding).status, 200)

    def test_redis_is_gone_for_long(self) -> None:
        """Time in which nothing can be heard does not count."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        forwarding = self.rig.send()
        self.rig.posts.cut()
        self.rig.crew.slow = True
        self.rig.clock.pump([LOOK] * (5 * MOST_LOOKS))
        self.assertEqual(self.rig.heads[forwarding], [])
        self.rig.crew.slow = False
        self.rig.crew.answer()
        self.rig.posts.mend()
        self.rig.turn()
        self.rig.worker().hand.answer()
        self.rig.turn()
        self.assertEqual(self.rig.head(forwarding).status, 200)

    def test_gate_stops(self) -> None:
        """Nor does the end of the gate do any harm."""
        self.rig.crew.slow = True
        self.look()
        self.rig.crew.stop()
        self.assertEqual(self.rig.clock.getDelayedCalls(), [])

    def test_silence(self) -> None:
        """A worker that says nothing for long is asked whether it has the exchange, and not others."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        self.rig.send()
        asked = len(self.rig.posts.carried)
        self.rig.clock.pump([LOOK] * int(SILENCE / LOOK))
        self.assertGreater(len(self.rig.posts.carried), asked)
        self.assertFalse(self.rig.places[0].waits)
        self.assertEqual(self.rig.worker().hand.kinds, [Kind.OPEN])

    def test_silence_of_one_who_forgot(self) -> None:
        """If it does not know the exchange any more, that is lost."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        self.rig.worker(greedy=False)
        self.rig.send()
        hand = self.rig.worker().hand
        self.rig.turn()
        hand.conversation.check()  # it has acknowledged the opening
        self.rig.turn()
        self.rig.worker().forget()
        self.rig.clock.pump([LOOK] * int(SILENCE / LOOK + 1))
        self.assertTrue(self.rig.places[0].waits)

    def test_lost_opening(self) -> None:
        """An opening that Redis has lost without a word is sent again."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        self.rig.posts.repeats = lambda frame: 0
        self.rig.send()
        self.rig.posts.repeats = lambda frame: 1
        self.assertEqual(self.rig.worker().hands, {})
        self.rig.clock.pump([LOOK] * 2)
        self.rig.worker().hand.answer()
        self.rig.turn()
        self.assertEqual(len(self.rig.done), 1)

    def test_lost_amidst(self) -> None:
        """What Redis has lost of a body without a word is sent again, though the worker talks all the time."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        self.rig.posts.repeats = lambda frame: frame.kind != Kind.DATA
        body = b"x" * 3 * WINDOW
        forwarding = self.rig.send(b"POST", body)
        self.rig.posts.repeats = lambda frame: 1
        hand = self.rig.worker().hand
        hand.head()
        self.rig.turn()
        client = self.rig.deliver(forwarding)
        for _ in range(round(2 * LOOK)):
            hand.conversation.write(b"y" * WINDOW)
            self.rig.clock.advance(1)
            self.rig.turn()
        self.assertEqual((hand.body, hand.kinds[-1]), (body, Kind.END))
        hand.say(Kind.END, Kind.DONE)
        self.rig.turn()
        self.assertTrue(client.finished)

    def test_lost_abandon(self) -> None:
        """Nor does a worker go on for one who has left, because that was lost."""
        self.rig.crew.elsewhere = {"api": 3, "app": 5}
        forwarding = self.rig.send()
        hand = self.rig.worker().hand
        hand.head()
        self.rig.turn()
        self.rig.posts.repeats = lambda frame: frame.kind != Kind.ABANDON
        forwarding.abandon()
        self.rig.posts.repeats = lambda frame: 1
        for _ in range(round(LOOK)):
            self.assertNotIn(Kind.ABANDON, hand.kinds)
            hand.conversation.write(b"y" * WINDOW)
            self.rig.clock.advance(1)
            self.rig.turn()
        self.assertIn(Kind.ABANDON, hand.kinds)
        hand.say(Kind.CUT, Kind.DONE)
        self.rig.turn()
