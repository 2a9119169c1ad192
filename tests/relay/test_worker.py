"""Tests for L{thrtwisted.relay.worker} and L{thrtwisted.relay.served}: exchanges at a worker, in memory."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.relay.crew import WINDOW, Asker, WorkerRig, garbage
from thrtwisted.relay import worker
from thrtwisted.relay.codec import Frame, Kind, Opening, encode_payload
from thrtwisted.relay.conversation import Conversation
from thrtwisted.relay.seldom import PAUSE
from thrtwisted.relay.worker import FIRST_LOOK, LONGEST_LOOK

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nok"


class ExchangeTests(SynchronousTestCase):
    """Exchanges that nobody disturbs."""

    def setUp(self) -> None:
        self.rig = WorkerRig(self)

    def test_get(self) -> None:
        """A request is taken, forwarded as it was, and the answer comes back; then nothing is left of it."""
        asker = self.rig.open()
        self.assertEqual(self.rig.crew.taken, {("front", 10)})
        wire = self.rig.accept()
        self.assertTrue(wire.value().startswith(b"GET /path HTTP/1.1\r\n"), wire.value())
        self.assertIn(b"\r\nHost: h\r\n", wire.value())
        self.assertIn(b"\r\nVia: 1.1 ", wire.value())
        self.rig.answer(wire, OK)
        self.assertEqual(asker.kinds, [Kind.HEAD, Kind.DATA, Kind.END, Kind.DONE])
        self.assertEqual((asker.head.status, asker.head.phrase, asker.head.length), (200, b"OK", 2))
        self.assertIn((b"X-A", [b"1", b"2"]), [(name, list(values)) for name, values in asker.head.headers])
        self.assertEqual(asker.body, b"ok")
        self.assertIn("<Served front/1 finished>", map(repr, self.rig.worker._served.values()))
        self.rig.front.forget(asker)
        self.rig.turn()
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 2 places taken, 0 exchanges>")
        self.assertEqual(self.rig.crew.watched, {})

    def test_post(self) -> None:
        """A body comes in pieces, which go on to the backend as it takes them."""
        body = bytes(range(256)) * 100
        asker = self.rig.open(b"POST", len(body))
        asker.conversation.write(body[:20_000])
        self.rig.turn()
        wire = self.rig.accept()
        self.assertIn(b"Content-Length: 25600\r\n", wire.value())
        self.assertTrue(wire.value().endswith(body[:20_000]))
        asker.conversation.write(body[20_000:])
        asker.conversation.say(Kind.END)
        self.rig.turn()
        self.assertTrue(wire.value().endswith(body))
        self.rig.answer(wire, OK)
        self.assertEqual(asker.kinds[-1], Kind.DONE)
        self.rig.front.forget(asker)

    def test_empty_body(self) -> None:
        """An empty body that was announced is so for the backend, too."""
        asker = self.rig.open(b"POST", headers=[(b"Content-Length", [b"0"])])
        self.assertIn(b"Content-Length: 0\r\n", self.rig.accept().value())
        self.rig.answer(self.rig.backends[0], OK)
        self.assertEqual(asker.head.status, 200)
        self.rig.front.forget(asker)

    def test_no_body(self) -> None:
        """Answers that have no body end with their head, whatever their length says."""
        answers = {
            b"HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            b"GET": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
            b"PUT": b"HTTP/1.1 204 No Content\r\n\r\n",
        }
        for method, answer in answers.items():
            asker = self.rig.open(method)
            self.rig.answer(self.rig.accept(), answer)
            self.assertEqual(asker.kinds, [Kind.HEAD, Kind.END, Kind.DONE], method)
            self.rig.front.forget(asker)
            self.rig.turn()

    def test_interim(self) -> None:
        """Interim answers are not passed on."""
        asker = self.rig.open()
        self.rig.answer(self.rig.accept(), b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
        self.assertEqual((asker.head.status, asker.body), (200, b"ok"))
        self.rig.front.forget(asker)

    def test_streams(self) -> None:
        """An answer comes as the backend writes it: its head, and each piece, at once."""
        asker = self.rig.open()
        wire = self.rig.accept()
        self.rig.answer(wire, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertEqual((asker.kinds, asker.head.length), ([Kind.HEAD], None))
        for piece in (b"one", b"two"):
            self.rig.answer(wire, b"3\r\n" + piece + b"\r\n")
            self.assertTrue(asker.body.endswith(piece))
        self.assertIn("1 of 2", repr(self.rig.worker))
        self.rig.answer(wire, b"0\r\n\r\n")
        self.assertEqual(asker.kinds, [Kind.HEAD, Kind.DATA, Kind.END, Kind.DONE])
        self.rig.front.forget(asker)

    def test_repeated_opening(self) -> None:
        """What arrives again changes nothing."""
        self.rig.posts.repeats = lambda frame: 2
        asker = self.rig.open(b"POST", 3)
        asker.conversation.write(b"abc")
        asker.conversation.say(Kind.END)
        self.rig.turn()
        self.assertEqual(self.rig.connections, 1)
        wire = self.rig.accept()
        self.assertTrue(wire.value().endswith(b"\r\n\r\nabc"))
        self.rig.answer(wire, OK)
        self.assertEqual((asker.head.status, asker.body), (200, b"ok"))
        self.rig.front.forget(asker)

    def test_late_opening(self) -> None:
        """An opening that comes again when all is over is not begun again, though its ticket still is here."""
        asker = self.rig.open()
        [opening] = [frame for _, frame in self.rig.posts.carried if frame.kind == Kind.OPEN]
        self.rig.answer(self.rig.accept(), OK)
        self.rig.front.forget(asker)
        self.rig.turn()
        self.assertEqual(self.rig.crew.assigned, {("front", 10)})
        self.rig.worker.received(opening)
        self.rig.turn()
        self.assertEqual(self.rig.connections, 1)
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 2 places taken, 0 exchanges>")

    def test_post_down_and_up(self) -> None:
        """What Redis has lost of either side is said again."""
        asker = self.rig.front.open(b"POST", 3)
        self.rig.posts.cut()
        self.rig.turn()
        self.assertEqual(self.rig.connections, 0)
        self.rig.posts.mend()
        self.rig.turn()
        wire = self.rig.accept()
        self.rig.posts.cut()
        asker.conversation.write(b"abc")
        asker.conversation.say(Kind.END)
        self.rig.turn()
        self.rig.posts.mend()
        self.rig.turn()
        self.assertTrue(wire.value().endswith(b"\r\n\r\nabc"))
        self.rig.posts.cut()
        self.rig.answer(wire, OK)
        self.assertEqual(asker.heard, [])
        self.rig.posts.mend()
        self.rig.turn()
        self.assertEqual((asker.head.status, asker.body, asker.kinds[-1]), (200, b"ok", Kind.DONE))
        self.rig.front.forget(asker)

    def test_registers(self) -> None:
        """The gate is told of its places, and the log once that is done."""
        self.assertEqual((self.rig.crew.concurrency, self.rig.crew.queues), (2, ("app", "api")))
        self.assertIn("Worker of backend.app, backend.api: 2 places", self.rig.said)
        with capturedLogs() as log:
            self.rig.posts.mend()
            self.rig.crew.stop()
            self.rig.worker.down()
            self.rig.worker.up()
        self.assertEqual(log, [])

    def test_deaf(self) -> None:
        """As long as it cannot hear of requests, it offers no places."""
        for _ in range(2):
            self.rig.worker.down()
            self.assertEqual((self.rig.crew.concurrency, self.rig.crew.queues), (0, ("app", "api")))
            self.rig.worker.up()
            self.assertEqual((self.rig.crew.concurrency, self.rig.crew.queues), (2, ("app", "api")))
        self.rig.worker.down()
        self.rig.worker.drain()
        self.rig.worker.up()
        self.assertEqual(self.rig.crew.concurrency, 0)


class SlownessTests(SynchronousTestCase):
    """Somebody on the way is slow."""

    def test_slow_client(self) -> None:
        """A front that takes nothing holds no place; the backend is held only when the spool is full."""
        rig = WorkerRig(self, concurrency=1, max_spool=200_000)
        asker = rig.open(greedy=False)
        wire = rig.accept()
        rig.answer(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        self.assertLessEqual(asker.held, WINDOW)
        # It is done, which the front hears at once, though there is no room in the window.
        self.assertEqual(asker.kinds, [Kind.HEAD, Kind.DATA, Kind.DONE])
        self.assertIn("0 of 1", repr(rig.worker))
        asker.greedy = True
        asker.take()
        rig.turn()
        self.assertEqual(len(asker.body), 100_000)
        self.assertEqual(asker.kinds[-2:], [Kind.END, Kind.DONE])
        rig.front.forget(asker)

    def slow(self, rig: WorkerRig, size: int = 100_000) -> Asker:
        """An answer of which the backend has said all, and whose front takes nothing."""
        asker = rig.open(greedy=False)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        rig.answer(rig.accept(), head + bytes(size))
        self.assertLessEqual(asker.held, WINDOW)
        return asker

    def take(self, rig: WorkerRig, *askers: Asker) -> None:
        """Fronts take all of their answers, and have forgotten them."""
        for asker in askers:
            asker.greedy = True
            asker.take()
            rig.turn()
            self.assertEqual((len(asker.body), asker.kinds[-2:]), (100_000, [Kind.END, Kind.DONE]))
            rig.front.forget(asker)
            rig.turn()

    def test_many_slow_clients(self) -> None:
        """Few answers wait here without a place. The others keep theirs until others are taken, one for each."""
        self.patch(worker, "LINGERING", 2)
        rig = WorkerRig(self, concurrency=5)
        askers = [self.slow(rig) for _ in range(5)]
        self.assertEqual([Kind.DONE in asker.kinds for asker in askers], [True, True, False, False, False])
        self.take(rig, askers.pop(0))
        self.assertEqual([Kind.DONE in asker.kinds for asker in askers], [True, True, False, False])
        # Another one is no further for it.
        self.take(rig, askers.pop(3))
        self.assertEqual([Kind.DONE in asker.kinds for asker in askers], [True, True, False])
        self.take(rig, *askers)

    def test_hardly_slow(self) -> None:
        """So does an answer all of which was said, though not sent; but none that was sent."""
        self.patch(worker, "LINGERING", 0)
        rig = WorkerRig(self)
        asker = self.slow(rig, WINDOW)
        self.assertNotIn(Kind.DONE, asker.kinds)
        asker.take()
        rig.turn()
        self.assertIn(Kind.DONE, asker.kinds)
        other = self.slow(rig, WINDOW // 2)
        self.assertEqual(other.kinds[-1], Kind.DONE)
        for each in (asker, other):
            rig.front.forget(each)
        rig.turn()
        # Nothing is kept for a front that has it all, whether its client has, or not.
        self.assertEqual(repr(rig.worker), "<Worker 0 of 2 places taken, 0 exchanges>")

    def test_slow_clients_leave(self) -> None:
        """Where the client leaves, or the front dies, or has forgotten it, the place is free at once."""
        self.patch(worker, "LINGERING", 0)
        rig = WorkerRig(self, concurrency=3)
        left, forgotten, orphan = (self.slow(rig) for _ in range(3))
        left.conversation.tell(Kind.ABANDON)
        rig.turn()
        self.assertEqual(left.kinds, [Kind.HEAD, Kind.DATA, Kind.DONE])
        rig.front.forget(forgotten)
        rig.turn()
        self.assertIn("2 exchanges", repr(rig.worker))
        self.assertNotIn(Kind.DONE, orphan.kinds)
        rig.front.askers.clear()
        rig.crew.die("front")
        rig.turn()
        self.assertEqual(rig.crew.inherited[-1], ("front", []))
        self.assertEqual(repr(rig.worker), "<Worker 0 of 3 places taken, 0 exchanges>")

    def test_slow_client_and_cut(self) -> None:
        """An answer that is cut is over for all when the front has taken what there is of it."""
        self.patch(worker, "LINGERING", 0)
        rig = WorkerRig(self)
        asker = rig.open(greedy=False)
        wire = rig.accept()
        rig.answer(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(100_000))
        wire.lose()
        rig.turn()
        self.assertNotIn(Kind.DONE, asker.kinds)
        asker.greedy = True
        asker.take()
        rig.turn()
        self.assertEqual(asker.kinds[-2:], [Kind.CUT, Kind.DONE])
        rig.front.forget(asker)

    def test_slow_clients_of_a_stopping_worker(self) -> None:
        """It waits for them."""
        self.patch(worker, "LINGERING", 0)
        rig = WorkerRig(self)
        asker = self.slow(rig)
        drained = rig.worker.drain()
        self.assertNoResult(drained)
        self.take(rig, asker)
        self.successResultOf(drained)

    def test_full_spool(self) -> None:
        """The backend is held when the spool is full, and goes on once the front has taken half of it."""
        rig = WorkerRig(self, max_spool=200_000)
        asker = rig.open(greedy=False)
        wire = rig.accept()
        length = 3_000_000
        rig.answer(wire, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        written = 0
        while wire.producerState == "producing" and written < length:
            rig.answer(wire, bytes(50_000))
            written += 50_000
        self.assertEqual(wire.producerState, "paused")
        self.assertLess(written, 1_500_000)
        asker.greedy = True
        asker.take()
        rig.turn()
        self.assertEqual(wire.producerState, "producing")
        while written < length:
            rig.answer(wire, bytes(50_000))
            written += 50_000
        self.assertEqual(len(asker.body), length)
        self.assertEqual(asker.kinds[-1], Kind.DONE)
        rig.front.forget(asker)

    def test_slow_backend(self) -> None:
        """A backend that takes nothing holds the front: no more than its window is under way."""
        rig = WorkerRig(self)
        asker = rig.open(b"POST", 100_000)
        wire = rig.accept(congested=True)
        asker.conversation.write(bytes(range(250)) * 400)
        asker.conversation.say(Kind.END)
        rig.turn()
        self.assertLess(len(wire.value()), 2 * WINDOW)
        self.assertTrue(asker.conversation.full)
        while not wire.value().endswith(bytes(range(250)) * 400):
            before = len(wire.value())
            wire.relieve()
            wire.congested = True
            rig.turn()
            self.assertGreater(len(wire.value()), before)
        rig.answer(wire, OK)
        self.assertEqual(asker.kinds[-1], Kind.DONE)
        rig.front.forget(asker)

    def test_slow_upload(self) -> None:
        """A body that takes long to come is no fault of the backend's, which has the whole time once it has it."""
        rig = WorkerRig(self, lease=1000, response_timeout=10)
        asker = rig.open(b"POST", 6)
        wire = rig.accept()
        rig.clock.advance(9)
        asker.conversation.write(b"abc")
        rig.turn()
        rig.clock.advance(30)
        self.assertEqual(asker.heard, [])
        asker.conversation.write(b"def")
        asker.conversation.say(Kind.END)
        rig.turn()
        rig.clock.advance(9)
        self.assertEqual(asker.heard, [])
        rig.clock.advance(1)
        rig.turn()
        self.assertEqual(asker.problem.error, "BackendResponseTimeout")
        rig.answer(wire, OK)
        self.assertEqual(asker.kinds, [Kind.FAILED, Kind.DONE])
        rig.front.forget(asker)


class FailureTests(SynchronousTestCase):
    """The backend fails, in each way."""

    def setUp(self) -> None:
        self.rig = WorkerRig(
            self, concurrency=1, lease=1000, response_timeout=10, abandon_timeout=20, idle_timeout=5
        )

    def ends(self, *kinds: Kind) -> None:
        """The exchange has ended so, and nothing of it is left."""
        self.assertEqual(tuple(self.asker.kinds), kinds)
        self.rig.front.forget(self.asker)
        self.rig.turn()
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 1 places taken, 0 exchanges>")

    def test_refused(self) -> None:
        """No connection: the front is told why."""
        self.asker = self.rig.open()
        self.rig.refuse(ConnectionRefusedError())
        self.assertEqual(
            (self.asker.problem.error, self.asker.problem.text),
            ("BackendRefused", "The backend refuses connections."),
        )
        self.ends(Kind.FAILED, Kind.DONE)

    def test_refused_and_left(self) -> None:
        """Whoever leaves while it is asked whether another worker is there hears that it is over."""
        self.asker = self.rig.open()
        self.rig.crew.slow = True
        self.rig.refuse(ConnectionRefusedError())
        self.assertEqual(self.asker.kinds, [])
        self.asker.conversation.tell(Kind.ABANDON)
        self.rig.turn()
        self.rig.crew.answer()
        self.rig.turn()
        self.ends(Kind.DONE)

    def test_closed(self) -> None:
        """The connection ends without an answer."""
        self.asker = self.rig.open()
        self.rig.accept().lose(ConnectionLost())
        self.rig.turn()
        # It may be sent again: a reset says that it was not read.
        self.rig.accept().lose(ConnectionLost())
        self.rig.turn()
        self.assertEqual(self.asker.problem.error, "BackendClosed")
        self.ends(Kind.FAILED, Kind.DONE)

    def test_nonsense(self) -> None:
        """The answer is no HTTP."""
        self.asker = self.rig.open()
        self.rig.answer(self.rig.accept(), b"SSH-2.0-OpenSSH\r\n")
        self.assertEqual(self.asker.problem.error, "BackendProtocolError")
        self.ends(Kind.FAILED, Kind.DONE)

    def test_cut(self) -> None:
        """The answer is cut."""
        self.asker = self.rig.open()
        wire = self.rig.accept()
        self.rig.answer(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        wire.lose()
        self.rig.turn()
        self.assertEqual(self.asker.body, b"he")
        self.ends(Kind.HEAD, Kind.DATA, Kind.CUT, Kind.DONE)

    def test_silent(self) -> None:
        """The answer stops: it is cut after C{idle_timeout}."""
        self.asker = self.rig.open()
        self.rig.answer(self.rig.accept(), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        self.rig.clock.advance(5)
        self.rig.turn()
        self.ends(Kind.HEAD, Kind.DATA, Kind.CUT, Kind.DONE)

    def test_response_timeout(self) -> None:
        """The front hears at once; the place is taken until the backend has finished, or was broken off."""
        self.asker = self.rig.open()
        self.rig.accept()
        self.rig.clock.advance(10)
        self.rig.turn()
        self.assertEqual(self.asker.problem.error, "BackendResponseTimeout")
        self.assertIn("1 of 1", repr(self.rig.worker))
        self.rig.clock.advance(20)
        self.rig.turn()
        self.ends(Kind.FAILED, Kind.DONE)

    def test_bad_request(self) -> None:
        """What cannot be forwarded is not."""
        self.asker = self.rig.open(b"CONNECT")
        self.assertEqual((self.asker.problem.error, self.rig.connections), ("BadRequest", 0))
        self.ends(Kind.FAILED, Kind.DONE)

    def test_early_answer(self) -> None:
        """The backend answers before it has read all: the rest is dropped as it comes."""
        self.asker = self.rig.open(b"POST", 50_000)
        wire = self.rig.accept(congested=True)
        self.asker.conversation.write(bytes(50_000))
        self.asker.conversation.say(Kind.END)
        self.rig.turn()
        self.assertTrue(self.asker.conversation.full)
        self.rig.answer(wire, b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.asker.head.status, 413)
        # Whoever goes on all the same is told that it is over.
        self.assertEqual(self.asker.kinds.pop(), Kind.GONE)
        self.asker.heard = [said for said in self.asker.heard if said[0] != Kind.GONE]
        self.ends(Kind.HEAD, Kind.END, Kind.DONE)


class AdmissionTests(SynchronousTestCase):
    """What is begun, and what is not."""

    def test_not_assigned(self) -> None:
        """What the gate does not give to this worker is not begun, and the front told so."""
        rig = WorkerRig(self)
        asker = rig.open(b"POST", 3, assigned=False)
        self.assertEqual((asker.kinds, rig.connections), ([Kind.REFUSED], 0))
        rig.front.forget(asker)
        rig.turn()
        self.assertEqual(repr(rig.worker), "<Worker 0 of 2 places taken, 0 exchanges>")

    def test_other_queue(self) -> None:
        """Nor is what is for a backend that it does not serve."""
        rig = WorkerRig(self)
        asker = rig.open(queue="other")
        self.assertEqual((asker.kinds, rig.connections, rig.crew.taken), ([Kind.REFUSED], 0, set()))
        rig.front.forget(asker)

    def test_never_too_many(self) -> None:
        """No more than C{concurrency} are begun, whatever Redis says; the next one is when a place is free."""
        rig = WorkerRig(self, concurrency=2)
        askers = [rig.open() for _ in range(4)]
        self.assertEqual((len(rig.crew.taken), rig.connections), (2, 2))
        rig.answer(rig.accept(), OK)
        self.assertEqual((len(rig.crew.taken), rig.connections), (3, 3))
        # One that waits here is withdrawn; it is passed over.
        askers[3].conversation.tell(Kind.ABANDON)
        rig.turn()
        self.assertEqual(askers[3].kinds, [Kind.DONE])
        rig.answer(rig.accept(), OK)
        rig.answer(rig.accept(), OK)
        self.assertEqual(rig.connections, 3)
        for asker in askers:
            self.assertEqual(asker.kinds[-1], Kind.DONE)
            rig.front.forget(asker)

    def test_slots_of_slow_takes(self) -> None:
        """What is being taken counts."""
        rig = WorkerRig(self, concurrency=1)
        rig.crew.slow = True
        askers = [rig.open(), rig.open()]
        self.assertEqual(len(rig.crew.pending), 1)
        rig.crew.slow = False
        rig.crew.answer()
        rig.turn()
        self.assertEqual((rig.connections, rig.crew.pending), (1, []))
        rig.answer(rig.accept(), OK)
        rig.answer(rig.accept(), OK)
        for asker in askers:
            rig.front.forget(asker)

    def test_not_leased(self) -> None:
        """What was read too late is asked again: others may have taken this worker for dead meanwhile."""
        rig = WorkerRig(self)
        rig.crew.slow = True
        asker = rig.open()
        rig.gate.leased = False
        rig.crew.answer()
        self.assertEqual((rig.connections, len(rig.crew.pending)), (0, 1))
        rig.gate.leased = True
        rig.crew.assigned.clear()
        rig.crew.answer()
        rig.turn()
        self.assertEqual((rig.connections, asker.kinds), (0, [Kind.REFUSED]))
        rig.front.forget(asker)

    def test_not_leased_and_left(self) -> None:
        """Nothing is asked again for a client that has left."""
        rig = WorkerRig(self)
        rig.crew.slow = True
        asker = rig.open()
        rig.gate.leased = False
        asker.conversation.tell(Kind.ABANDON)
        rig.turn()
        rig.crew.answer()
        self.assertEqual((rig.crew.pending, asker.kinds), ([], [Kind.DONE]))
        rig.front.forget(asker)

    def test_gate_stops(self) -> None:
        """A gate that stops meanwhile gives nothing."""
        rig = WorkerRig(self)
        rig.crew.slow = True
        asker = rig.open()
        rig.crew.stop()
        rig.turn()
        self.assertEqual((rig.connections, asker.kinds), (0, [Kind.REFUSED]))
        rig.front.forget(asker)

    def test_unreadable(self) -> None:
        """A request that no front of ours sends is answered, with one line in the log."""
        negative = encode_payload(Opening(10, "app", b"GET", b"/", [], b"HTTP/1.1", -1))
        no_name = encode_payload(Opening(10, "app", b"GET", b"/", [(b"a b", [b"c"])], b"HTTP/1.1", 0))
        for payload in (b"", garbage(), negative, no_name):
            rig = WorkerRig(self)
            asker = rig.front.open(length=1)
            rig.posts.flying.clear()
            conversation = asker.conversation = Conversation(
                rig.front.post, "worker", "front", 1, WINDOW, asker
            )
            with capturedLogs() as log:
                conversation.say(Kind.OPEN, payload)
                conversation.write(b"x")
                conversation.say(Kind.OPEN, payload)
                rig.turn()
            [line] = [formatEvent(event) for event in log]
            self.assertRegex(line, "A request from front front cannot be read, .* follow: .* \\(mend: ")
            self.assertEqual((asker.problem.error, rig.connections), ("ExchangeError", 0))
            self.assertEqual(asker.kinds, [Kind.FAILED, Kind.DONE])
            rig.front.forget(asker)

    def test_many_unreadable(self) -> None:
        """Many of them, whatever fronts they name, do not fill the disk with lines."""
        rig = WorkerRig(self)
        with capturedLogs() as log:
            for number in range(10):
                rig.posts.send("worker", Frame(f"front{number}", 1, Kind.OPEN, 1))
                rig.turn()
            self.assertEqual(len(log), 1)
            rig.clock.advance(PAUSE)
            rig.posts.send("worker", Frame("front", 1, Kind.OPEN, 1))
            rig.turn()
            self.assertEqual(len(log), 2)

    def test_wrong_length(self) -> None:
        """A body of another length than was said is broken off, or not begun."""
        for begun in (True, False):
            for body in (b"ab", b"abcd"):
                rig = WorkerRig(self, concurrency=1)
                if not begun:
                    other = rig.open()
                asker = rig.open(b"POST", 3)
                if begun:
                    rig.accept()
                with capturedLogs() as log:
                    asker.conversation.write(body)
                    asker.conversation.say(Kind.END)
                    rig.turn()
                self.assertIn("cannot be read", formatEvent(log[0]))
                self.assertEqual(asker.kinds, [Kind.FAILED, Kind.DONE])
                rig.front.forget(asker)
                if not begun:
                    rig.answer(rig.accept(), OK)
                    rig.front.forget(other)

    def test_opened_twice(self) -> None:
        """Nor is what is said once more, in other words, or what only a worker says."""
        rig = WorkerRig(self)
        asker = rig.open()
        asker.conversation.say(Kind.OPEN, b"")
        asker.conversation.say(Kind.HEAD)
        rig.turn()
        rig.answer(rig.accept(), OK)
        self.assertEqual((asker.head.status, rig.connections), (200, 1))
        rig.front.forget(asker)

    def test_end_while_taking(self) -> None:
        """A worker that ends begins nothing more."""
        rig = WorkerRig(self)
        rig.crew.slow = True
        rig.open()
        rig.worker.end()
        rig.crew.stop()
        rig.turn()
        self.assertEqual(rig.connections, 0)
        rig.front.askers.clear()

    def test_unknown(self) -> None:
        """Whoever speaks of what is not known here is told so."""
        rig = WorkerRig(self)
        asker = rig.front.open(b"POST", 3)
        rig.posts.flying.clear()
        asker.conversation.tell(Kind.ABANDON)
        rig.turn()
        self.assertEqual(asker.kinds, [Kind.GONE])
        del rig.front.askers[asker.number]


class AbandonTests(SynchronousTestCase):
    """The client leaves."""

    def test_before_take(self) -> None:
        """What is not taken yet is not begun, though the gate would give it."""
        rig = WorkerRig(self)
        rig.crew.slow = True
        asker = rig.open(b"POST", 3)
        asker.conversation.tell(Kind.ABANDON)
        rig.turn()
        self.assertEqual(asker.kinds, [Kind.DONE])
        self.assertIn("0 of 2", repr(rig.worker))
        rig.crew.answer()
        self.assertEqual(rig.connections, 0)
        rig.front.forget(asker)

    def test_before_connection(self) -> None:
        """What has no connection yet is not sent."""
        rig = WorkerRig(self)
        asker = rig.open()
        asker.conversation.tell(Kind.ABANDON)
        rig.turn()
        self.assertEqual(asker.kinds, [Kind.DONE])
        rig.front.forget(asker)

    def test_before_answer(self) -> None:
        """What the backend has keeps its place until it has finished; the answer is dropped."""
        rig = WorkerRig(self, concurrency=1)
        asker = rig.open(b"POST", 6)
        wire = rig.accept()
        asker.conversation.write(b"abc")
        asker.conversation.tell(Kind.ABANDON)
        asker.conversation.tell(Kind.ABANDON)
        rig.turn()
        asker.conversation.write(b"def")
        asker.conversation.say(Kind.END)
        rig.turn()
        self.assertTrue(wire.value().endswith(b"\r\n\r\nabcdef"))
        self.assertEqual(asker.heard, [])
        self.assertIn("1 of 1", repr(rig.worker))
        rig.answer(wire, OK)
        self.assertEqual(asker.kinds, [Kind.DONE])
        self.assertIn("0 of 1", repr(rig.worker))
        rig.front.forget(asker)

    def test_during_answer(self) -> None:
        """The rest of an answer is dropped as fast as it comes."""
        rig = WorkerRig(self, concurrency=1)
        asker = rig.open(greedy=False)
        wire = rig.accept()
        rig.answer(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(100_000))
        asker.conversation.tell(Kind.ABANDON)
        asker.greedy = True
        asker.take()
        rig.turn()
        rig.answer(wire, bytes(200_000))
        self.assertLess(len(asker.body), 100_001)
        self.assertEqual(asker.kinds[-1], Kind.DONE)
        self.assertIn("0 of 1", repr(rig.worker))
        rig.front.forget(asker)

    def test_abandon_timeout(self) -> None:
        """A backend that does not answer is broken off in time."""
        rig = WorkerRig(self, abandon_timeout=20)
        asker = rig.open()
        rig.accept()
        asker.conversation.tell(Kind.ABANDON)
        rig.turn()
        rig.clock.advance(20)
        rig.turn()
        self.assertEqual(asker.kinds, [Kind.DONE])
        rig.front.forget(asker)

    def test_before_opening(self) -> None:
        """What was abandoned before all of its head was there is not begun."""
        rig = WorkerRig(self)
        asker = rig.front.open(headers=[(b"X-Long", [b"x" * 4000])])
        asker.conversation.tell(Kind.ABANDON)
        asker.conversation.tell(Kind.ABANDON)
        rig.turn()
        self.assertEqual((asker.kinds, rig.connections, rig.crew.taken), ([Kind.DONE], 0, set()))
        rig.front.forget(asker)

    def test_repeatedly(self) -> None:
        """To hear it again changes nothing."""
        rig = WorkerRig(self, concurrency=1)
        others = [rig.open(), rig.open()]
        others[1].conversation.tell(Kind.ABANDON)
        others[1].conversation.tell(Kind.ABANDON)
        rig.turn()
        self.assertEqual(others[1].kinds, [Kind.DONE])
        rig.answer(rig.accept(), OK)
        for asker in others:
            rig.front.forget(asker)


class LostFrontTests(SynchronousTestCase):
    """The front dies."""

    def setUp(self) -> None:
        self.rig = WorkerRig(self, concurrency=1)

    def die(self) -> None:
        """It is dead."""
        self.rig.front.askers.clear()
        self.rig.crew.die("front")
        self.rig.turn()

    def gone(self) -> None:
        """Nothing of it is left."""
        self.rig.turn()
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 1 places taken, 0 exchanges>")
        self.assertEqual(self.rig.crew.watched, {})
        self.assertEqual(self.rig.crew.inherited[-1], ("front", []))

    def test_before_take(self) -> None:
        """What was not taken is not begun; the gate has withdrawn it."""
        self.rig.crew.slow = True
        self.rig.open(b"POST", 3)
        self.rig.crew.answer()  # what was asked at the start
        self.rig.open()
        self.rig.crew.slow = False
        self.rig.crew.assigned.clear()
        self.die()
        self.rig.crew.answer()
        self.gone()

    def test_while_taking(self) -> None:
        """What the gate gives after the front's death is not begun, and given back."""
        self.rig.crew.slow = True
        self.rig.open()
        self.rig.crew.slow = False
        self.die()
        self.rig.crew.answer()
        self.gone()
        self.assertEqual(self.rig.connections, 0)

    def test_upload_incomplete(self) -> None:
        """A request of which the backend has a part is broken off."""
        self.rig.open(b"POST", 3)
        wire = self.rig.accept()
        self.die()
        self.assertTrue(wire.aborted)
        self.gone()

    def test_before_answer(self) -> None:
        """What the backend has goes on; its slots are this worker's until it has finished."""
        self.rig.open()
        wire = self.rig.accept()
        self.die()
        self.assertEqual(self.rig.crew.inherited, [("front", [10])])
        self.assertEqual(repr(self.rig.worker), "<Worker 1 of 1 places taken, 1 exchanges>")
        self.rig.answer(wire, OK)
        self.gone()

    def test_during_answer(self) -> None:
        """The rest of an answer is dropped."""
        self.rig.open(greedy=False)
        wire = self.rig.accept()
        self.rig.answer(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(100_000))
        self.die()
        self.assertEqual(self.rig.crew.inherited, [("front", [10])])
        self.rig.answer(wire, bytes(100_000))
        self.gone()

    def test_after_answer(self) -> None:
        """An answer that nobody takes any more is dropped."""
        self.rig.open(greedy=False)
        self.rig.answer(
            self.rig.accept(), b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)
        )
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 1 places taken, 1 exchanges>")
        self.die()
        self.gone()

    def test_frozen(self) -> None:
        """A front that was frozen only: what it opens again is not begun a second time."""
        asker = self.rig.open()
        wire = self.rig.accept()
        self.rig.crew.die("front")
        # Its tickets may be its own again: it must not give them back yet.
        asker.conversation.check()
        self.rig.turn()
        self.assertEqual(asker.kinds, [])
        self.rig.answer(wire, OK)
        del self.rig.front.askers[1]
        asker.conversation.check()
        copy = self.rig.front.askers[1] = asker
        self.rig.turn()
        self.assertEqual({*copy.kinds}, {Kind.DONE, Kind.GONE})
        self.assertEqual(self.rig.connections, 1)
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 1 places taken, 0 exchanges>")
        del self.rig.front.askers[1]

    def test_asked_meanwhile(self) -> None:
        """Of whom nothing is left here by the time that the gate hears of it, that is what it hears."""
        asker = self.rig.open()
        wire = self.rig.accept()
        self.rig.crew.slow = True
        self.rig.crew.die("front")
        self.rig.answer(wire, OK)
        self.rig.front.forget(asker)
        self.rig.turn()
        self.rig.crew.answer()
        self.assertEqual((self.rig.crew.inherited, self.rig.crew.watched), ([("front", [])], {}))

    def test_alive(self) -> None:
        """Whom the gate finds alive after all is served on, and watched on."""
        asker = self.rig.open()
        wire = self.rig.accept()
        self.rig.crew.watched.pop("front")()
        self.assertEqual(self.rig.crew.inherited, [("front", [10])])
        self.assertEqual(list(self.rig.crew.watched), ["front"])
        self.rig.answer(wire, OK)
        self.assertEqual(asker.head.status, 200)
        self.rig.front.forget(asker)

    def test_back(self) -> None:
        """One that is back while its exchange is still in the backend is watched again, and gives it back itself."""
        self.rig.open()
        wire = self.rig.accept()
        self.die()
        self.rig.crew.dead.clear()
        self.rig.crew.slow = True
        other = self.rig.open()
        self.rig.answer(wire, OK)
        self.rig.crew.answer()
        self.assertEqual(list(self.rig.crew.watched), ["front"])
        self.rig.crew.slow = False
        self.rig.crew.answer()
        self.rig.answer(self.rig.accept(), OK)
        self.assertEqual(other.head.status, 200)
        self.rig.front.forget(other)

    def test_back_and_dead(self) -> None:
        """One that is back, opens something, and dies again, is known to be dead again: what it sent is broken off."""
        self.rig = WorkerRig(self, concurrency=2)
        self.rig.open()
        wire = self.rig.accept()
        self.die()
        self.rig.crew.dead.clear()
        self.rig.open(b"POST", 3)
        upload = self.rig.accept()
        self.assertEqual(list(self.rig.crew.watched), ["front"])
        self.die()
        self.assertTrue(upload.aborted)
        self.assertEqual(repr(self.rig.worker), "<Worker 1 of 2 places taken, 1 exchanges>")
        self.assertEqual(self.rig.crew.inherited[-1], ("front", [10]))
        self.rig.answer(wire, OK)
        self.assertEqual(self.rig.crew.inherited[-1], ("front", []))

    def test_late_of_a_dead_one(self) -> None:
        """What a dead one had sent before it died is not kept when it comes at last."""
        self.rig = WorkerRig(self, concurrency=1)
        self.rig.open()
        wire = self.rig.accept()
        self.die()
        self.rig.open(b"POST", 3, assigned=False)
        self.assertEqual(repr(self.rig.worker), "<Worker 1 of 1 places taken, 1 exchanges>")
        self.rig.front.askers.clear()
        self.rig.answer(wire, OK)

    def test_not_written_to(self) -> None:
        """Nothing is sent to a dead one as long as the backend is at work: its inbox is to pass."""
        self.rig.open()
        wire = self.rig.accept()
        self.die()
        said = len(self.rig.posts.carried)
        for _ in range(5):
            self.rig.clock.advance(5)
            self.rig.turn()
        self.rig.worker.up()
        self.rig.turn()
        self.assertEqual(self.rig.posts.carried[said:], [])
        self.rig.answer(wire, OK)
        self.gone()

    def test_forgotten_by_the_front(self) -> None:
        """A front that knows nothing of an exchange any more is one whose client has left."""
        asker = self.rig.open()
        wire = self.rig.accept()
        self.rig.front.forget(asker)
        self.rig.turn()
        self.assertEqual(repr(self.rig.worker), "<Worker 1 of 1 places taken, 0 exchanges>")
        self.rig.answer(wire, OK)
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 1 places taken, 0 exchanges>")

    def test_last_word_lost(self) -> None:
        """A front that has forgotten, and whose last word was lost, is asked in time."""
        asker = self.rig.open()
        self.rig.answer(self.rig.accept(), OK)
        self.rig.posts.cut()
        self.rig.front.forget(asker)
        self.rig.posts.is_up = True
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 1 places taken, 1 exchanges>")
        for _ in range(2):
            self.rig.clock.advance(5)
            self.rig.turn()
        self.assertEqual(repr(self.rig.worker), "<Worker 0 of 1 places taken, 0 exchanges>")

    def test_lost_done(self) -> None:
        """That the backend has finished is heard of, though it was lost, and the client takes long for the answer."""
        asker = self.rig.open(greedy=False)
        wire = self.rig.accept()
        self.rig.posts.repeats = lambda frame: frame.kind != Kind.DONE
        self.rig.answer(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        self.rig.posts.repeats = lambda frame: 1
        for _ in range(5):
            self.assertNotIn(Kind.DONE, asker.kinds)
            asker.take(WINDOW // 2)
            self.rig.clock.advance(1)
            self.rig.turn()
        self.assertIn(Kind.DONE, asker.kinds)
        self.assertLess(len(asker.body), 100_000)
        asker.greedy = True
        asker.take()
        self.rig.turn()
        self.rig.front.forget(asker)

    def test_opening_lost(self) -> None:
        """An opening that was lost comes again, once it is asked after it; but not one that is over."""
        self.rig.posts.repeats = lambda frame: 0
        asker = self.rig.open(b"POST", 3)
        self.rig.posts.repeats = lambda frame: 1
        asker.conversation.check()
        self.rig.turn()
        asker.conversation.write(b"abc")
        asker.conversation.say(Kind.END)
        self.rig.turn()
        self.rig.answer(self.rig.accept(), OK)
        self.assertEqual(asker.kinds[-1], Kind.DONE)
        self.rig.front.forget(asker)
        self.rig.turn()
        self.rig.front.askers[1] = again = Asker(self.rig.front, 1)
        self.rig.posts.repeats = lambda frame: 0
        again.conversation.say(Kind.OPEN, b"")
        self.rig.posts.repeats = lambda frame: 1
        again.conversation.check()
        self.rig.turn()
        self.assertEqual(again.kinds, [Kind.GONE])
        del self.rig.front.askers[1]

    def test_bounded_memory(self) -> None:
        """What is remembered of lost fronts is bounded."""
        self.patch(worker, "REMEMBERED", 2)
        for _ in range(3):
            self.rig.open()
        self.die()
        self.assertEqual(len(self.rig.worker._forgotten), 2)


class DrainTests(SynchronousTestCase):
    """Tests for L{Worker.drain}."""

    def setUp(self) -> None:
        self.rig = WorkerRig(self)

    def test_idle(self) -> None:
        """A worker with nothing to do is done at once, and gets nothing more."""
        self.successResultOf(self.rig.worker.drain())
        self.assertEqual((self.rig.crew.concurrency, self.rig.crew.queues), (0, ("app", "api")))

    def test_without_redis(self) -> None:
        """Where Redis does not answer, and nothing is here, nothing comes any more after a lease."""
        self.rig.crew.slow = True
        drained = self.rig.worker.drain()
        self.rig.clock.advance(4.9)
        self.assertNoResult(drained)
        self.rig.clock.advance(0.1)
        self.successResultOf(drained)

    def test_under_way_without_redis(self) -> None:
        """What is here is waited for all the same, and Redis asked again after it."""
        asker = self.rig.open()
        wire = self.rig.accept()
        self.rig.crew.slow = True
        drained = self.rig.worker.drain()
        self.rig.clock.advance(20)
        self.rig.answer(wire, OK)
        self.rig.front.forget(asker)
        self.rig.turn()
        self.assertNoResult(drained)
        self.rig.crew.answer()
        self.successResultOf(drained)

    def test_under_way(self) -> None:
        """What is here is finished, until the front has heard all of it."""
        self.rig.posts.repeats = lambda frame: 1
        asker = self.rig.open(greedy=False)
        wire = self.rig.accept()
        self.rig.crew.left = 1
        drained = self.rig.worker.drain()
        self.rig.answer(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + bytes(9000))
        self.assertNoResult(drained)
        asker.greedy = True
        asker.take()
        self.rig.turn()
        self.assertEqual(asker.kinds[-1], Kind.DONE)
        self.assertNoResult(drained)
        self.rig.front.forget(asker)
        self.rig.turn()
        self.rig.crew.left = 0
        self.rig.clock.advance(FIRST_LOOK)
        self.successResultOf(drained)

    def test_arrives_still(self) -> None:
        """What is assigned already, and on its way, is served; Redis is asked less and less often."""
        self.rig.crew.left = 1
        drained = self.rig.worker.drain()
        waited, look = 0.0, FIRST_LOOK
        while look < LONGEST_LOOK:
            self.rig.clock.advance(look)
            waited, look = waited + look, 2 * look
        asker = self.rig.open()
        self.rig.answer(self.rig.accept(), OK)
        self.assertEqual(asker.head.status, 200)
        self.rig.front.forget(asker)
        self.rig.turn()
        self.assertNoResult(drained)
        self.rig.crew.left = 0
        self.rig.clock.advance(LONGEST_LOOK)
        self.rig.clock.advance(LONGEST_LOOK)
        self.successResultOf(drained)

    def test_cancelled(self) -> None:
        """Whoever waits no more leaves nothing."""
        self.rig.crew.left = 1
        drained = self.rig.worker.drain()
        drained.cancel()
        self.failureResultOf(drained)
        asker = self.rig.open()
        drained = self.rig.worker.drain()
        drained.cancel()
        self.failureResultOf(drained)
        self.rig.accept()
        self.rig.front.forget(asker)
