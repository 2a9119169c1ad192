"""In memory: a forwarding's head and its end, whatever becomes of the client and of the backend."""

from __future__ import annotations

import re
from io import BytesIO

from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from zope.interface.verify import verifyObject

from thrtwisted.config import Backend
from thrtwisted.errors import BackendClosed, BackendProtocolError, BackendResponseTimeout, BadRequest
from thrtwisted.exchange import Exchange
from thrtwisted.forward import Forwarder, IForwarder, IForwarding, RequestBody
from thrtwisted.gate.admission import Admission

from .support import OK, MemoryRig, Wire

POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"


def post(length: int) -> bytes:
    return POST % (length, bytes(length))


class ForwardingCase(SynchronousTestCase):
    """Tests that are run over the relay, too."""

    rig_class: type[MemoryRig] = MemoryRig

    def rig(self, **config) -> MemoryRig:
        return self.rig_class(self, **config)


class OutcomeTests(ForwardingCase):
    """How a forwarding ends."""

    def assert_failed(self, rig: MemoryRig, status: int, kind: str) -> None:
        self.assertEqual([e.proxy_status for e in rig.front.errors], [kind])
        self.assertTrue(rig.clients[-1].value().startswith(b"HTTP/1.1 %d " % status))
        self.assertTrue(rig.finished)

    def test_complete(self):
        """The client gets the response, and the slot is free, as soon as the backend has sent the last byte."""
        rig = self.rig()
        client = rig.request()
        backend = rig.accept()
        self.assertEqual(backend.value(), b"GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 thrtwisted\r\n\r\n")
        backend.receive(OK[:-1])
        self.assertFalse(rig.finished)
        self.assertTrue(client.value().endswith(b"\r\n\r\no"))
        backend.receive(OK[-1:])
        self.assertTrue(rig.finished)
        self.assertTrue(client.value().endswith(b"\r\n\r\nok"))
        self.successResultOf(rig.front.delivered[0])
        self.assertIsNone(client.producer.__dict__.get("_requestProducer"))
        self.assertIn("0 under way", repr(rig.forwarder))

    def test_connection_used_again(self):
        """The next request goes over the same connection; two at once need two; the idle ones close by themselves."""
        rig = self.rig(keep_alive=10.0)
        rig.request()
        backend = rig.accept()
        backend.receive(OK)
        rig.request()
        self.assertEqual(len(rig.clock.tcpClients), 1)
        self.assertEqual(backend.value().count(b"GET"), 2)
        rig.request()
        self.assertEqual(len(rig.clock.tcpClients), 2)
        second = rig.accept()
        second.receive(OK)
        backend.receive(OK)
        self.assertEqual(len(rig.front.done), 3)
        rig.clock.advance(10)
        rig.clock.advance(0)
        self.assertTrue(backend.lost and second.lost)

    def test_grown_old(self):
        """A connection that is as old as it may be is not used, though its timer comes a moment later."""
        rig = self.rig(keep_alive=10.0)
        rig.request()
        rig.accept().receive(OK)
        rig.clock.rightNow += 10.0
        rig.request()
        self.assertEqual(len(rig.clock.tcpClients), 2)

    def test_announced_end(self):
        """A connection whose end the backend announces, in whatever letters, is not used again."""
        for fields in [b"Connection: Close\r\n", b"X: y\r\nconnection: keep-alive, close\r\n"]:
            for pieces in (1, 3):
                rig = self.rig()
                rig.request()
                backend = rig.accept()
                answer = OK.replace(b"Content-Length", fields + b"Content-Length")
                step = -(-len(answer) // pieces)
                for at in range(0, len(answer), step):
                    backend.receive(answer[at : at + step])
                self.assertTrue(rig.finished)
                rig.request()
                self.assertEqual(len(rig.clock.tcpClients), 2)
                rig.clock.advance(0)
                self.assertTrue(backend.lost)

    def test_bodies_after_head(self):
        """A connection that was asked HEAD is not used again, for some servers send the body all the same."""
        rig = self.rig()
        client = rig.request(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        backend = rig.accept()
        backend.receive(OK[:-2])
        self.assertTrue(client.value().endswith(b"\r\n\r\n"))
        self.assertTrue(rig.finished)
        rig.request()
        self.assertEqual(len(rig.clock.tcpClients), 2)
        rig.clock.advance(0)
        self.assertTrue(backend.lost)

    def test_new_connection_is_not_kept(self):
        """
        A connection that was opened because no idle one would do is not used again, and the backend is told: a body
        that it left unread it could take for another request, and connections would pile up.
        """
        for request, status, connections in [
            (post(9), b"413", 2),
            (post(9), b"302", 2),
            (post(9), b"200", 2),
            (post(9).replace(b"POST", b"GET"), b"200", 2),
            (post(0), b"200", 2),
            (b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", b"200", 2),
            (b"OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n", b"200", 1),
            (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"404", 1),
        ]:
            rig = self.rig()
            client = rig.request(request)
            backend = rig.accept()
            self.assertEqual(b"\r\nConnection: close\r\n" in backend.value(), connections == 2, request)
            backend.receive(OK.replace(b"200", status))
            self.assertTrue(client.value().endswith(b"ok"))
            rig.request()
            self.assertEqual(len(rig.clock.tcpClients), connections, (request, status))

    def test_pipelined(self):
        """A client's next request, begun within the end of the answer before it, suffers nothing from that."""
        for end, status, connections in [
            (OK, b"200", 1),
            (OK.replace(b"\r\n", b"\r\nConnection: Close\r\n", 1), b"200", 2),
            (OK.replace(b"1.1", b"1.0"), b"200", 2),
            (OK.replace(b"200", b"600"), b"502", 2),
        ]:
            for pieces in (1, 2):
                rig = self.rig()
                client = rig.request(2 * b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                backend = rig.accept()
                for piece in [end] if pieces == 1 else [end[:-1], end[-1:]]:
                    backend.receive(piece)
                self.assertEqual(len(rig.clock.tcpClients), connections, end)
                (backend if connections == 1 else rig.accept()).receive(OK)
                rig.clock.advance(0)
                statuses = re.findall(rb"HTTP/1.1 (\d+)", client.value())
                self.assertEqual(statuses, [status, b"200"], end)
                self.assertTrue(rig.finished)

    def test_pipelined_and_lost(self):
        """A pipelined request on the same connection is told, as any other, when that is lost."""
        for pieces in (1, 2):
            rig = self.rig()
            client = rig.request(2 * b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            backend = rig.accept()
            for piece in [OK] if pieces == 1 else [OK[:-1], OK[-1:]]:
                backend.receive(piece)
            self.assertEqual(backend.value().count(b"GET"), 2)
            backend.receive(b"garbage\r\n\r\n")
            rig.clock.advance(0)
            self.assertTrue(rig.finished)
            self.assertEqual(len(rig.front.done), 2)
            self.assertIn(b"HTTP/1.1 502 ", client.value())

    def test_round_robin(self):
        """Of several URLs each takes its turn."""
        rig = self.rig(url=["http://127.0.0.1:1", "http://127.0.0.2", "http://[::1]:3"])
        for _ in range(4):
            rig.request()
        self.assertEqual(
            [(host, port) for host, port, *_ in rig.clock.tcpClients],
            [("127.0.0.1", 1), ("127.0.0.2", 80), ("::1", 3), ("127.0.0.1", 1)],
        )

    def test_impossible_urls(self):
        """A URL that is not a backend's is refused when the forwarder is made."""
        for url in ["https://", "http://", "http://host/path", "http://u@host", "unix:", "ftp://host"]:
            self.assertRaises(ValueError, Forwarder, MemoryReactorClock(), "x", Backend(url=url))

    def test_connecting_fails(self):
        """Each way of not being connected has its answer."""
        for failure, status, kind in [
            (error.ConnectionRefusedError(), 502, "connection_refused"),
            (error.TimeoutError(), 504, "connection_timeout"),
            (error.NoRouteError(), 502, "destination_unavailable"),
            (error.DNSLookupError(), 502, "dns_error"),
        ]:
            rig = self.rig(connect_timeout=7.0)
            rig.request(post(3))
            self.assertEqual(rig.clock.tcpClients[0][3], 7.0)
            rig.refuse(failure)
            self.assert_failed(rig, status, kind)

    def test_closed_without_answer(self):
        """A backend that closes before its head is complete is a 502."""
        for sent in [b"", b"HTTP/1.1 200 OK\r\nX: y\r\n"]:
            rig = self.rig()
            rig.request()
            backend = rig.accept()
            if sent:
                backend.receive(sent)
            backend.lose(error.ConnectionDone())
            self.assert_failed(rig, 502, "connection_terminated")

    def test_closed_during_upload(self):
        """So is one that closes while the request is being sent; the request's file is closed."""
        rig = self.rig()
        rig.request(post(200_000))
        backend = rig.accept(congested=True)
        backend.lose(error.ConnectionLost())
        self.assert_failed(rig, 502, "connection_terminated")

    def test_garbage(self):
        """What is no HTTP response is a 502 of its own, and its connection is closed."""
        for sent in [
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: rot13\r\n\r\n",
            b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 600 OK\r\nContent-Length: 9\r\n\r\n",
            b"HTTP/1.1 200 O\0K\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok",
        ]:
            rig = self.rig()
            client = rig.request()
            backend = rig.accept()
            backend.receive(sent)
            self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "), sent)
            rig.clock.advance(0)
            self.assertTrue(backend.lost)
            self.assert_failed(rig, 502, "http_protocol_error")

    def test_garbage_during_upload(self):
        """Garbage while the request is being sent ends the forwarding too, and the request is sent no further."""
        rig = self.rig()
        rig.request(post(200_000))
        backend = rig.accept(congested=True)
        backend.receive(b"garbage\r\n\r\n")
        rig.clock.advance(0)
        self.assert_failed(rig, 502, "http_protocol_error")
        self.assertTrue(backend.lost)

    def test_impossible_requests(self):
        """What cannot be sent is a 400, and nothing is connected; the body is closed."""
        rig = self.rig()
        for method, target, fields in [
            (b"G T", b"/", {}),
            (b"CONNECT", b"h:1", {}),
            (b"GET", b"/ /", {}),
            (b"GET", b"//[x/", {}),
            (b"GET", b"/", {b"Host": [b"a", b"b"]}),
            (b"GET", b"/", {b"X": [b"\0"]}),
        ]:
            file = BytesIO(b"body")
            exchange = Exchange(method, target, Headers(fields), client="", backend="app")
            forwarding = rig.way.send(exchange, RequestBody(file))
            self.failureResultOf(forwarding.head, BadRequest)
            self.successResultOf(forwarding.done)
            self.assertTrue(file.closed)
        self.assertEqual(rig.clock.tcpClients, [])

    def test_asterisk(self):
        """The asterisk is a target like any other."""
        rig = self.rig()
        exchange = Exchange(b"OPTIONS", b"*", Headers({b"Host": [b"h"]}), client="", backend="app")
        forwarding = rig.way.send(exchange, RequestBody(BytesIO()))
        backend = rig.accept()
        self.assertEqual(backend.value(), b"OPTIONS * HTTP/1.1\r\nHost: h\r\nVia: 1.1 thrtwisted\r\n\r\n")
        backend.receive(OK)
        self.assertEqual(self.successResultOf(forwarding.head).length, 2)
        self.successResultOf(forwarding.done)
        forwarding.abandon()

    def test_admission(self):
        """An admission is given back just before all is done, and only then."""
        rig = self.rig()
        happened = []
        admission = Admission(lambda: happened.append("released"), 0.0)
        exchange = Exchange(b"GET", b"/", Headers({b"Host": [b"h"]}), client="", backend="app")
        forwarding = rig.forwarder.send(exchange, RequestBody(BytesIO()), admission)
        forwarding.done.addCallback(lambda _: happened.append("done"))
        backend = rig.accept()
        forwarding.abandon()
        self.assertEqual(happened, [])
        backend.receive(OK)
        self.assertEqual(happened, ["released", "done"])

    def test_interfaces(self):
        """The direct way is one of several."""
        rig = self.rig()
        rig.request()
        verifyObject(IForwarder, rig.forwarder)
        verifyObject(IForwarding, rig.forwarding)
        self.assertIsNone(rig.forwarder.queue)

    def test_head_before_delivery(self):
        """Nothing can be delivered before the head."""
        rig = self.rig()
        rig.request()
        self.assertRaises(RuntimeError, rig.forwarding.deliver, None)

    def test_interim_responses(self):
        """1xx responses are not the answer."""
        rig = self.rig()
        client = rig.request()
        rig.accept().receive(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
        self.assertTrue(client.value().endswith(b"ok"))
        self.assertNotIn(b"Link", client.value())

    def test_unasked_bytes(self):
        """A connection on which the backend spoke out of turn is never used again."""
        rig = self.rig()
        rig.request()
        backend = rig.accept()
        backend.receive(OK)
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        client = rig.request()
        self.assertEqual(len(rig.clock.tcpClients), 2)
        self.assertNotIn(b"evil", client.value())
        rig.clock.advance(0)
        self.assertTrue(backend.lost)

    def test_broken_connection_is_not_leased(self):
        """A connection that is lost as soon as it is made is a 502."""
        rig = self.rig()
        client = rig.request()
        factory = rig.clock.tcpClients[0][2]
        protocol = factory.buildProtocol(None)
        made = protocol.makeConnection

        def makeConnection(transport):
            # An endpoint's protocol tells of the connection after its inner one has it; that is lost within.
            protocol._wrappedProtocol.lost = True
            made(transport)

        protocol.makeConnection = makeConnection
        backend = Wire(rig.clock, protocol)
        self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
        self.assertTrue(rig.finished)
        self.assertEqual(backend.value(), b"")
        protocol._wrappedProtocol.lost = False
        backend.lose()


class TimeoutTests(ForwardingCase):
    """Backends that keep us waiting."""

    def test_response_timeout(self):
        """The client gets 504 at once; the slot stays until the backend answers."""
        rig = self.rig(response_timeout=30.0, abandon_timeout=100.0)
        client = rig.request()
        backend = rig.accept()
        rig.clock.advance(29)
        self.assertEqual(client.value(), b"")
        rig.clock.advance(1)
        self.assertTrue(client.value().startswith(b"HTTP/1.1 504 "))
        self.assertIsInstance(rig.front.errors[0], BackendResponseTimeout)
        self.assertFalse(rig.finished)
        backend.receive(OK)
        self.assertTrue(rig.finished)
        self.assertFalse(backend.lost)
        self.assertEqual(client.value().count(b"HTTP/1.1"), 1)

    def test_abandon_timeout(self):
        """A backend that goes on working is cut off after abandon_timeout, and the slot is free then."""
        rig = self.rig(response_timeout=30.0, abandon_timeout=100.0)
        rig.request()
        backend = rig.accept()
        rig.clock.advance(30)
        rig.clock.advance(99)
        self.assertFalse(backend.aborted)
        rig.clock.advance(1)
        self.assertTrue(backend.aborted)
        rig.clock.advance(0)
        self.assertTrue(rig.finished)

    def test_counts_from_the_last_byte(self):
        """Each piece of the request's body gives the backend its time again; a stalled upload ends."""
        rig = self.rig(response_timeout=30.0, abandon_timeout=5.0)
        client = rig.request(post(64 * 1024 * 3))
        backend = rig.accept(congested=True)
        for _ in range(2):
            rig.clock.advance(20)
            backend.resume()
        rig.clock.advance(29)
        self.assertEqual(client.value(), b"")
        rig.clock.advance(1)
        self.assertTrue(client.value().startswith(b"HTTP/1.1 504 "))

    def test_stalled_upload(self):
        """A backend that takes no more of the body is a 504, then cut off."""
        rig = self.rig(response_timeout=30.0, abandon_timeout=5.0)
        rig.request(post(300_000))
        backend = rig.accept(congested=True)
        rig.clock.advance(30)
        self.assertIsInstance(rig.front.errors[0], BackendResponseTimeout)
        rig.clock.advance(5)
        self.assertTrue(backend.aborted)
        rig.clock.advance(0)
        self.assertTrue(rig.finished)

    def test_upload_goes_on_after_the_timeout(self):
        """After a 504 the request is sent on: the backend may be at work on its beginning."""
        rig = self.rig(response_timeout=30.0)
        rig.request(post(300_000))
        backend = rig.accept(congested=True)
        rig.clock.advance(30)
        while backend.producer is not None:
            backend.resume()
        self.assertEqual(len(backend.value().partition(b"\r\n\r\n")[2]), 300_000)
        self.assertFalse(rig.finished)
        backend.receive(OK)
        self.assertTrue(rig.finished)

    def test_connecting_has_its_own_time(self):
        """response_timeout does not count while connecting."""
        rig = self.rig(response_timeout=1.0)
        client = rig.request()
        rig.clock.advance(3)
        self.assertEqual(client.value(), b"")

    def test_body_has_no_time_limit(self):
        """Once the head is there, the body may take as long as it takes, if no two pieces are too far apart."""
        rig = self.rig(response_timeout=1.0, idle_timeout=5.0)
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        for _ in range(20):
            rig.clock.pump([2.0, 2.0, 0.9])
            backend.receive(b"x")
        self.assertTrue(client.value().endswith(b"x" * 20))
        self.assertTrue(rig.finished)
        self.assertFalse(client.aborted)

    def test_silence_within_a_body(self):
        """A backend that says nothing more cuts its response: the client sees that, and the slot is free."""
        for left in (False, True):
            rig = self.rig(idle_timeout=5.0, abandon_timeout=1000.0)
            client = rig.request()
            backend = rig.accept()
            backend.receive(OK[:-2])
            rig.clock.advance(3)
            backend.receive(OK[-2:-1])
            if left:
                client.lose()
            rig.clock.advance(4.9)
            self.assertFalse(backend.aborted or client.aborted)
            rig.clock.advance(0.1)
            rig.clock.advance(0)
            self.assertTrue(backend.aborted)
            self.assertEqual(client.aborted, not left)
            self.assertTrue(rig.finished)
            rig.request()
            self.assertEqual(len(rig.clock.tcpClients), 2)

    def test_silence_of_ours(self):
        """A backend that is held back for a slow client may be silent; its time begins when it may go on."""
        rig = self.rig(idle_timeout=5.0, max_spool=0)
        client = rig.request()
        backend = rig.accept()
        client.congested = True
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(9):
            backend.receive(bytes(100_000))
        self.assertEqual(backend.producerState, "paused")
        rig.clock.pump([5.0] * 10)
        self.assertFalse(backend.aborted)
        client.relieve()
        self.assertEqual(backend.producerState, "producing")
        rig.clock.advance(4.9)
        self.assertFalse(backend.aborted)
        rig.clock.advance(0.2)
        self.assertTrue(backend.aborted)
        rig.clock.advance(0)
        self.assertTrue(client.aborted)


class AbandonTests(ForwardingCase):
    """
    Clients that leave.

    @cvar withheld: what the answer is that nobody gets.
    """

    withheld: type[Exception] = BackendClosed

    def test_while_connecting(self):
        """Nothing was sent yet, so nothing is: the slot is free at once."""
        rig = self.rig()
        rig.request().lose()
        self.assertTrue(rig.finished)
        self.assertIsInstance(rig.front.errors[0], self.withheld)

    def test_while_the_backend_works(self):
        """The slot stays taken until the backend has answered, and the connection is used again."""
        rig = self.rig()
        client = rig.request()
        backend = rig.accept()
        client.lose()
        self.assertFalse(rig.finished)
        backend.receive(OK[:-1])
        self.assertFalse(rig.finished)
        backend.receive(OK[-1:])
        self.assertTrue(rig.finished)
        rig.request()
        self.assertEqual(len(rig.clock.tcpClients), 1)

    def test_backend_closes(self):
        """Or until it has closed."""
        rig = self.rig()
        client = rig.request()
        backend = rig.accept()
        client.lose()
        backend.lose()
        self.assertTrue(rig.finished)

    def test_abandon_timeout(self):
        """Or until abandon_timeout has passed, counted from the first time that it was abandoned."""
        rig = self.rig(abandon_timeout=10.0)
        client = rig.request()
        backend = rig.accept()
        client.lose()
        rig.clock.advance(9)
        rig.forwarding.abandon()
        self.assertFalse(backend.aborted)
        rig.clock.advance(1)
        self.assertTrue(backend.aborted)
        rig.clock.advance(0)
        self.assertTrue(rig.finished)
        self.assertIsInstance(rig.front.errors[0], self.withheld)

    def test_during_the_body(self):
        """A client that leaves in the middle lets the rest be read and dropped."""
        rig = self.rig(abandon_timeout=10.0)
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100)
        client.lose()
        self.successResultOf(rig.front.delivered[0])
        for _ in range(9):
            backend.receive(b"x" * 100_000)
        self.assertEqual(len(rig.forwarding._download.spool), 0)
        self.assertFalse(rig.finished)
        backend.receive(b"x" * 99_900)
        self.assertTrue(rig.finished)

    def test_endless_body(self):
        """A body that has no end is cut off after abandon_timeout."""
        rig = self.rig(abandon_timeout=10.0)
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\n\r\nx")
        client.lose()
        rig.clock.advance(10)
        rig.clock.advance(0)
        self.assertTrue(backend.aborted)
        self.assertTrue(rig.finished)

    def test_upload_goes_on(self):
        """The request is sent to its end although its client has left and its file was taken from it."""
        rig = self.rig()
        client = rig.request(post(300_000))
        backend = rig.accept(congested=True)
        client.lose()
        while backend.producer is not None:
            backend.resume()
        self.assertEqual(len(backend.value().partition(b"\r\n\r\n")[2]), 300_000)
        backend.receive(OK)
        self.assertTrue(rig.finished)

    def test_after_the_end(self):
        """Abandoning a response that waits in the spool empties the spool."""
        rig = self.rig()
        exchange = Exchange(b"GET", b"/", Headers({b"Host": [b"h"]}), client="", backend="app")
        forwarding = rig.way.send(exchange, RequestBody(BytesIO()))
        body = bytes(2_000_000)
        rig.accept().receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.successResultOf(forwarding.done)
        self.assertEqual(len(forwarding._download.spool), len(body))
        forwarding.abandon()
        self.assertEqual(len(forwarding._download.spool), 0)
        self.successResultOf(forwarding.deliver(None))

    def test_cancelled_head(self):
        """Cancelling the head abandons: before the connection nothing is sent, after it the answer is dropped."""
        for connected in (False, True):
            rig = self.rig()
            exchange = Exchange(b"GET", b"/", Headers(), client="", backend="app")
            forwarding = rig.way.send(exchange, RequestBody(BytesIO()))
            if connected:
                backend = rig.accept()
            forwarding.head.cancel()
            if connected:
                self.failureResultOf(forwarding.head, CancelledError)
                self.assertNoResult(forwarding.done)
                backend.receive(OK)
            else:
                self.failureResultOf(forwarding.head, BackendClosed)
            self.successResultOf(forwarding.done)

    def test_slot_is_free_within_the_answer(self):
        """What follows on the end of a forwarding may send the next exchange at once, on the same connection."""
        rig = self.rig()
        rig.request()
        backend = rig.accept()
        rig.forwarding.done.addCallback(lambda _: rig.request())
        backend.receive(OK)
        self.assertEqual(backend.value().count(b"GET"), 2)
        backend.receive(OK)
        self.assertEqual([client.value()[-2:] for client in rig.clients], [b"ok", b"ok"])


class CloseTests(ForwardingCase):
    """The end of a forwarder."""

    def test_everything_at_once(self):
        """Idle, working, connecting: all is broken off, and closing waits for the last connection."""
        rig = self.rig()
        rig.request()
        idle = rig.accept()
        rig.request()
        idle_again = rig.request()
        working = rig.accept()
        idle.receive(OK)
        connecting = rig.request(post(3))
        del connecting
        rig.request()
        closed = rig.forwarder.close()
        self.assertNoResult(closed)
        rig.clock.advance(0)
        self.successResultOf(closed)
        self.assertTrue(idle.lost and working.lost)
        self.assertTrue(idle_again.value().startswith(b"HTTP/1.1 502 "))
        self.assertEqual(len(rig.front.done), len(rig.front.forwardings))
        self.successResultOf(rig.forwarder.close())


class InsideTests(ForwardingCase):
    """What only a look inside can tell, or bring about: these are not run over the relay."""

    def test_each_has_its_time(self):
        """Of several idle connections each is closed C{keep_alive} after its own last answer, by one timer."""
        rig = self.rig(keep_alive=10.0)
        backends = []
        for _ in range(3):
            rig.request()
            backends.append(rig.accept())
        for backend in backends:
            backend.receive(OK)
            rig.clock.advance(3)
        [pool] = rig.forwarder._pools
        self.assertEqual(repr(pool), "<Pool http://127.0.0.1:80, 3 open, 3 idle>")
        self.assertEqual(len(rig.clock.getDelayedCalls()), 1)
        for number in range(3):
            self.assertEqual([backend.lost for backend in backends], [True] * number + [False] * (3 - number))
            rig.clock.pump([1.0, 0.0] if number == 0 else [3.0, 0.0])
        self.assertTrue(all(backend.lost and not backend.aborted for backend in backends))
        self.assertEqual(rig.clock.getDelayedCalls(), [])

    def test_mistake_of_ours(self):
        """An exchange that makes forwarding itself fail is a 500, and is over."""
        rig = self.rig()
        exchange = Exchange(None, b"/", Headers(), client="", backend="app")
        forwarding = rig.way.send(exchange, RequestBody(BytesIO()))
        self.assertEqual(self.failureResultOf(forwarding.head).value.status, 500)
        self.successResultOf(forwarding.done)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_closed_body(self):
        """A body that was closed before it could be sent is a mistake of ours; the backend's connection is closed."""
        rig = self.rig()
        exchange = Exchange(b"POST", b"/", Headers(), client="", backend="app")
        body = RequestBody(BytesIO(b"body"))
        forwarding = rig.way.send(exchange, body)
        body.close()
        backend = rig.accept()
        self.assertEqual(self.failureResultOf(forwarding.head).value.status, 500)
        self.successResultOf(forwarding.done)
        rig.clock.advance(0)
        self.assertTrue(backend.lost)
        self.flushLoggedErrors()

    def test_head_without_delivery(self):
        """A head that came for nobody: nothing is delivered, and nothing kept."""
        rig = self.rig()
        client = rig.request()
        backend = rig.accept()
        client.lose()
        backend.receive(OK)
        self.successResultOf(rig.forwarding.deliver(None))

    def test_failure_in_mid_body(self):
        """A forwarding that fails after its head cuts the client's response and is done once."""
        rig = self.rig()
        client = rig.request()
        backend = rig.accept()
        backend.receive(OK[:-1])
        rig.forwarding.fail(BackendProtocolError("by a test"))
        self.assertTrue(client.aborted)
        self.assertTrue(rig.finished)
        rig.clock.advance(0)
        self.assertTrue(backend.lost)
        self.assertEqual(len(rig.front.done), 1)

    def test_failing_client_protocol(self):
        """An error in Twisted's client when it learns of a loss is logged; the shell goes on."""
        rig = self.rig()
        rig.request()
        backend = rig.accept()
        shell = rig.forwarding._attempt._connection

        def fail(reason):
            raise ZeroDivisionError

        shell.client.connectionLost = fail
        backend.lose(error.ConnectionDone())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(rig.finished)
        shell.connectionLost(Failure(error.ConnectionDone()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
