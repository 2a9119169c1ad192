"""A forwarding ends over the relay as it does on the direct way: the same tests, in memory, over both."""

from __future__ import annotations

from io import BytesIO

from twisted.internet.defer import CancelledError
from twisted.web.http_headers import Headers

from tests.forward import test_body, test_client, test_urls
from tests.forward.support import OK
from tests.relay.rig import MAX_INLINE, RelayedMemoryRig
from thrtwisted.errors import WorkerLost
from thrtwisted.exchange import Exchange
from thrtwisted.forward import RequestBody
from thrtwisted.forward.spool import MEMORY

PIECE = test_body.PIECE
#: What a front has of a response before it tells the worker that it takes no more, at most.
WINDOW = MAX_INLINE // 2


class RelayedOutcomeTests(test_client.OutcomeTests):
    """How a forwarding ends."""

    rig_class = RelayedMemoryRig


class RelayedTimeoutTests(test_client.TimeoutTests):
    """Backends that keep us waiting."""

    rig_class = RelayedMemoryRig


class RelayedAbandonTests(test_client.AbandonTests):
    """Clients that leave."""

    rig_class = RelayedMemoryRig
    withheld = WorkerLost

    def test_cancelled_head(self):
        """Cancelling the head abandons; whether something was sent is known later, when the worker has said so."""
        for connected in (False, True):
            rig = self.rig()
            exchange = Exchange(b"GET", b"/", Headers(), client="", backend="app")
            forwarding = rig.way.send(exchange, RequestBody(BytesIO()))
            if connected:
                backend = rig.accept()
            forwarding.head.cancel()
            self.failureResultOf(forwarding.head, CancelledError)
            self.assertNoResult(forwarding.done)
            rig.clock.settle()
            if connected:
                self.assertNoResult(forwarding.done)
                backend.receive(OK)
            self.successResultOf(forwarding.done)


class RelayedCloseTests(test_client.CloseTests):
    """The end."""

    rig_class = RelayedMemoryRig


class RelayedBodyTests(test_body.ResponseBodyTests):
    """The response's body."""

    rig_class = RelayedMemoryRig

    def test_max_spool(self):
        """
        The front and the worker keep so much each, and a window of it is between them; then the backend is paused. It
        goes on when the client has taken what it takes.
        """
        for max_spool in (0, 4 * PIECE):
            client, backend = self.begin(10**7, congested=True, max_spool=max_spool)
            received = 0
            while backend.producerState == "producing":
                backend.receive(bytes(PIECE))
                received += PIECE
            self.assertLessEqual(len(self.spool), MEMORY + max_spool + PIECE + WINDOW)
            self.assertLessEqual(received, 2 * (MEMORY + max_spool + PIECE) + 3 * WINDOW)
            self.assertGreaterEqual(received, 2 * (MEMORY + max_spool))
            while backend.producerState == "paused":
                client.resume()
            self.assertFalse(self.rig.finished)
            client.relieve()
            self.feed(backend, 10**7 - received)
            self.assertEqual(len(client.value().partition(b"\r\n\r\n")[2]), 10**7)
            self.assertTrue(self.rig.finished)

    def test_backend_dies_while_paused(self):
        """A backend that dies while it is paused frees its slot at once; the client sees the cut when it is there."""
        client, backend = self.begin(10**9, congested=True, max_spool=0)
        while backend.producerState == "producing":
            backend.receive(bytes(PIECE))
        backend.lose()
        self.assertTrue(self.rig.gate.idle)
        self.assertFalse(client.aborted)
        client.relieve()
        self.assertTrue(client.aborted)
        self.assertTrue(self.rig.finished)


class RelayedUrlsTests(test_urls.PassiveTests):
    """A worker's backend with several URLs."""

    rig_class = RelayedMemoryRig

    def rig(self, **config):
        rig = super().rig(**config)
        self.said.remove("Worker of backend.app: 100 places")
        return rig
