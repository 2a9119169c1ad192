"""Tests for L{thrtwisted.relay.offer}: a worker that cannot connect to its backend steps back, if there are others."""

from __future__ import annotations

from twisted.internet.error import ConnectionRefusedError
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.relay.crew import WorkerRig
from thrtwisted.relay.codec import Kind

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class OfferTests(SynchronousTestCase):
    """Tests for L{Offer}, in a worker."""

    def setUp(self) -> None:
        self.rig = WorkerRig(self, down_time=10, connect_timeout=100)

    def fails(self) -> Kind:
        """A request cannot be sent; what the front hears."""
        asker = self.rig.open(b"POST", 3)
        asker.conversation.write(b"abc")
        self.rig.refuse(ConnectionRefusedError())
        kind = asker.kinds[0]
        self.rig.front.forget(asker)
        self.rig.turn()
        return kind

    def test_alone(self) -> None:
        """As long as nobody else has places, it stays, and says what is wrong."""
        self.rig.crew.elsewhere["api"] = 3
        self.assertEqual(self.fails(), Kind.FAILED)
        self.assertEqual(self.rig.crew.queues, ("app", "api"))

    def test_steps_back(self) -> None:
        """Otherwise another worker has the request, and those that follow; after C{down_time} it tries again."""
        self.rig.crew.elsewhere["app"] = 3
        with capturedLogs() as log:
            self.assertEqual(self.fails(), Kind.REFUSED)
            self.assertEqual(self.rig.crew.queues, ("api",))
            # One that was on its way already
            self.assertEqual(self.fails(), Kind.REFUSED)
            self.rig.clock.advance(10)
            self.assertEqual(self.rig.crew.queues, ("app", "api"))
            self.assertEqual(self.fails(), Kind.REFUSED)
            self.assertEqual(repr(self.rig.worker._offer), "<Offer 2 for api>")
            self.rig.clock.advance(10)
        said = [formatEvent(event) for event in log if "offer" in event["log_namespace"]]
        self.assertEqual(
            said,
            [
                "backend.app cannot be connected to from here: other workers get its requests, for 10 s at a time",
            ],
        )
        asker = self.rig.open()
        with capturedLogs() as log:
            del self.rig.clock.tcpClients[:3]  # which have failed
            self.rig.answer(self.rig.accept(), OK)
        self.assertIn("backend.app can be connected to again", [formatEvent(event) for event in log])
        self.assertEqual(asker.head.status, 200)
        self.rig.front.forget(asker)

    def test_all_step_back(self) -> None:
        """Workers that step back at the same time come back at once: a 502 is better than to wait for nobody."""
        self.rig.crew.elsewhere["app"] = 3
        asker = self.rig.open()
        self.rig.crew.slow = True
        self.rig.refuse(ConnectionRefusedError())
        self.rig.crew.answer()  # there are others
        self.rig.crew.answer()  # it has stepped back
        self.rig.crew.elsewhere.clear()
        self.rig.crew.slow = False
        self.rig.crew.answer()
        self.rig.turn()
        self.assertEqual((asker.kinds, self.rig.crew.queues), ([Kind.FAILED, Kind.DONE], ("app", "api")))
        self.rig.front.forget(asker)

    def test_drain(self) -> None:
        """A worker that drains does not come back, and leaves what it cannot send to others."""
        self.rig.crew.elsewhere["app"] = 3
        asker = self.rig.open()
        self.assertEqual(self.fails(), Kind.REFUSED)
        drained = self.rig.worker.drain()
        self.rig.clock.advance(20)
        self.assertEqual(self.rig.crew.concurrency, 0)
        self.rig.crew.elsewhere.clear()
        self.rig.clock.tcpClients[0][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.rig.turn()
        self.assertEqual(asker.kinds, [Kind.REFUSED])
        self.rig.front.forget(asker)
        self.rig.turn()
        self.successResultOf(drained)

    def test_gate_stops(self) -> None:
        """Who cannot ask says what is wrong."""
        asker = self.rig.open()
        self.rig.crew.stop()
        self.rig.refuse(ConnectionRefusedError())
        self.assertEqual(asker.kinds, [Kind.FAILED, Kind.DONE])
        self.rig.front.forget(asker)

    def test_sent(self) -> None:
        """What was sent is nobody else's."""
        self.rig.crew.elsewhere["app"] = 3
        asker = self.rig.open(b"POST")
        self.rig.accept().lose()
        self.rig.turn()
        self.assertEqual(asker.kinds, [Kind.FAILED, Kind.DONE])
        self.rig.front.forget(asker)
