"""Tests for L{thrtwisted.resource}: a real site, a real gate and real forwarders, in memory, with a clock."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from tests.forward.support import OK, Wire
from tests.rig import GET, Answer, PlainRig, RecordedRequest, Rig, one_slot
from thrtwisted.config import Backend, Limit, Queue, Rule, Then, When
from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.gate import Counter, IAdmission, IGate, Ticket
from thrtwisted.gate.local import LocalGate


def failing_key(exchange: Exchange) -> str | None:
    """A user's key function with a mistake."""
    if exchange.path == b"/fail":
        raise ZeroDivisionError
    return None


def size(exchange: Exchange) -> int:
    """A user's weight function: what the header says."""
    return int(exchange.header(b"Size") or 1)


class RigCase(SynchronousTestCase):
    """Tests that are run over the proxy's own site, and over one of Twisted's (below, in C{Plain...})."""

    rig_class: type[Rig] = Rig

    def make_rig(self, **settings: Any) -> Rig:
        """A proxy in memory."""
        return self.rig_class(self, **settings)


class ForwardedTests(RigCase):
    """An exchange that goes all the way."""

    def test_interface(self) -> None:
        """It is a resource, and a leaf: everything below it is the application's."""
        rig = self.make_rig()
        self.assertTrue(IResource.providedBy(rig.resource))
        self.assertTrue(rig.resource.isLeaf)

    def test_way(self) -> None:
        """A request reaches the backend, and its response the client, in the backend's own words."""
        rig = self.make_rig()
        client = rig.request(
            b"POST /a%2Fb//c/? HTTP/1.1\r\nHost: h:8888\r\nX-Own: 1\r\nX-Own:  2\r\nContent-Length: 3\r\n\r\nabc"
        )
        backend = rig.accept()
        line, *fields = backend.value().partition(b"\r\n\r\n")[0].split(b"\r\n")
        self.assertEqual(line, b"POST /a%2Fb//c/? HTTP/1.1")
        for field in (b"Host: h:8888", b"X-Own: 1", b"X-Own: 2", b"Content-Length: 3"):
            self.assertEqual(fields.count(field), 1, fields)
        self.assertTrue(backend.value().endswith(b"\r\n\r\nabc"))
        backend.receive(
            b"HTTP/1.1 201 Made It\r\nServer: theirs\r\nDate: then\r\nX-A: 1\r\nX-A: 2\r\n"
            b"Content-Length: 2\r\n\r\n\xff\x00"
        )
        answer = Answer(client.value())
        self.assertEqual((answer.line, answer.body), (b"HTTP/1.1 201 Made It", b"\xff\x00"))
        self.assertEqual((answer.header("Server"), answer.header("Date")), ("theirs", "then"))
        self.assertEqual(answer.headers.getRawHeaders("X-A"), ["1", "2"])
        self.assertFalse(client.disconnecting)

    def test_server_timing(self) -> None:
        """The client is told how long the request waited, and how long the backend took until its answer."""
        rig = self.make_rig()
        first, second = rig.request(), rig.request()
        rig.clock.advance(0.25)
        backend = rig.accept()
        backend.receive(OK)
        self.assertEqual(
            Answer(first.value()).header("Server-Timing"),
            "queue;dur=0.0, backend;dur=250.0",
        )
        rig.clock.advance(0.5)
        backend.receive(OK)
        self.assertEqual(
            Answer(second.value()).header("Server-Timing"),
            "queue;dur=250.0, backend;dur=500.0",
        )

    def test_server_timing_beside_the_backends(self) -> None:
        """A backend that says its own timing is not overruled."""
        rig = self.make_rig()
        client = rig.request()
        rig.accept().receive(b"HTTP/1.1 200 OK\r\nServer-Timing: db;dur=1\r\nContent-Length: 0\r\n\r\n")
        values = Answer(client.value()).headers.getRawHeaders("Server-Timing", [])
        self.assertEqual(len(values), 2)
        self.assertEqual(values[0], "db;dur=1")

    def test_no_server_timing(self) -> None:
        """It can be switched off, for answers of the backend's and of ours."""
        rig = self.make_rig(server_timing=False)
        client = rig.request()
        rig.accept().receive(OK)
        self.assertIsNone(Answer(client.value()).header("Server-Timing"))
        self.assertIsNone(Answer(rig.request(b"GET x HTTP/1.1\r\n\r\n").value()).header("Server-Timing"))

    def test_nothing_invented(self) -> None:
        """A response without Date gets one, for a proxy must; without Content-Type or Server it stays so."""
        rig = self.make_rig()
        client = rig.request()
        rig.accept().receive(OK)
        answer = Answer(client.value())
        names = {name for name, _ in answer.headers.getAllRawHeaders()}
        self.assertEqual(names, {b"Content-Length", b"Date", b"Server-Timing", b"Via"})
        self.assertRegex(answer.header("Date") or "", r"\w+, \d\d \w+ \d{4} [\d:]{8} GMT")

    def test_close(self) -> None:
        """A client that wants to close is told so, and closed; the backend's own Connection is not passed on."""
        rig = self.make_rig()
        client = rig.request(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        rig.accept().receive(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(Answer(client.value()).header("Connection"), "close")
        self.assertTrue(client.disconnecting)

    def test_close_of_our_own(self) -> None:
        """So it is with an answer of the proxy's own."""
        rig = self.make_rig()
        client = rig.request(b"GET x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        self.assertEqual(Answer(client.value()).header("Connection"), "close")
        self.assertTrue(client.disconnecting)

    def test_kept_open(self) -> None:
        """A connection serves one exchange after the other, sent at once or later."""
        rig = self.make_rig()
        client = rig.request(GET + GET)
        rig.accept().receive(OK)
        rig.backends[0].receive(OK)
        self.assertEqual(client.value().count(b"HTTP/1.1 200 OK"), 2)
        client.clear()
        client.receive(GET)
        rig.backends[0].receive(OK)
        self.assertEqual(Answer(client.value()).body, b"ok")

    def test_unknown_length(self) -> None:
        """A response whose end nobody knows yet is passed on in chunks; to an old client, by closing."""
        for version, wanted in ((b"1.1", b"2\r\nok\r\n0\r\n\r\n"), (b"1.0", b"ok")):
            rig = self.make_rig()
            client = rig.request(b"GET / HTTP/%b\r\nHost: h\r\n\r\n" % version)
            backend = rig.accept()
            backend.receive(b"HTTP/1.1 200 OK\r\n\r\n")
            self.assertEqual(Answer(client.value()).status, 200)  # at once
            backend.receive(b"ok")
            backend.lose()
            self.assertEqual(Answer(client.value()).body, wanted)
            self.assertEqual(client.disconnecting, version == b"1.0")

    def test_head(self) -> None:
        """The answer to HEAD has the length of the body that it does not have."""
        rig = self.make_rig()
        client = rig.request(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        rig.accept().receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        answer = Answer(client.value())
        self.assertEqual((answer.header("Content-Length"), answer.body), ("5000", b""))
        self.assertTrue(rig.gate.idle)

    def test_head_refused(self) -> None:
        """An answer of the proxy's own to HEAD has no body either."""
        rig = self.make_rig()
        answer = Answer(rig.request(b"HEAD x HTTP/1.1\r\nHost: h\r\n\r\n").value())
        self.assertEqual((answer.status, answer.body), (400, b""))
        self.assertGreater(int(answer.header("Content-Length") or 0), 0)

    def test_absolute_target(self) -> None:
        """Of an absolute target the backend gets the path, and its host instead of the Host header."""
        rig = self.make_rig()
        rig.request(b"GET http://they/a?b HTTP/1.1\r\nHost: h\r\n\r\n")
        sent = rig.accept().value()
        self.assertTrue(sent.startswith(b"GET /a?b HTTP/1.1\r\n"))
        self.assertIn(b"Host: they\r\n", sent)
        self.assertEqual(sent.lower().count(b"\r\nhost:"), 1)

    def test_any_method(self) -> None:
        """No method is the proxy's own business."""
        for method in (b"PROPFIND", b"get", b"DELETE", b"OPTIONS"):
            rig = self.make_rig()
            rig.request(method + b" /x HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue(rig.accept().value().startswith(method + b" /x HTTP/1.1\r\n"))

    def test_no_limits(self) -> None:
        """Without limits nobody waits."""
        rig = self.make_rig(backend={"app": Backend(url="http://127.0.0.1:9999")})
        for _ in range(3):
            rig.request()
        self.assertEqual(rig.connections, 3)


class QueueTests(RigCase):
    """Exchanges that wait."""

    def test_one_after_the_other(self) -> None:
        """At most as many are in the backend as it has slots; the next is sent when one has finished."""
        rig = self.make_rig()
        clients = [rig.request() for _ in range(3)]
        backend = rig.accept()
        for number, client in enumerate(clients):
            self.assertEqual(rig.connections, 1)
            self.assertEqual(backend.value().count(b"GET /"), number + 1)
            backend.receive(OK)
            self.assertEqual(Answer(client.value()).body, b"ok")
        self.assertTrue(rig.gate.idle)

    def test_limits_and_rules(self) -> None:
        """A rule makes a request urgent, and a limit holds for those that it names."""
        rig = self.make_rig(
            limit=[Limit(name="foo", key="header:Foo", match="bar", max_concurrent=1)],
            rule=[Rule(when=When(path="/urgent"), then=Then(priority=1, set_input_header={"X-Via": "thr"}))],
            backend={"app": Backend(url="http://127.0.0.1:9999")},
        )
        for path in (b"/1", b"/2", b"/urgent"):
            rig.request(b"GET %b HTTP/1.1\r\nHost: h\r\nFoo: bar\r\n\r\n" % path)
        rig.request(b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n")
        limited, other = rig.accept(), rig.accept()
        self.assertIn(b"/other", other.value())
        limited.receive(OK)
        limited.receive(OK)
        lines = [line for line in limited.value().split(b"\r\n") if line.startswith((b"GET", b"X-Via"))]
        self.assertEqual(
            lines, [b"GET /1 HTTP/1.1", b"GET /urgent HTTP/1.1", b"X-Via: thr", b"GET /2 HTTP/1.1"]
        )

    def test_heavy_request(self) -> None:
        """A request that takes several slots waits until they are free, and lighter ones do not pass it for ever."""
        rig = self.make_rig(
            limit=[Limit(name="size", max_concurrent=3, weight=f"python:{__name__}:size")],
            backend={"app": Backend(url="http://127.0.0.1:9999", keep_alive=0)},
        )
        for name, size in zip("abHcdZ", (1, 1, 3, 1, 1, 9), strict=True):
            rig.request(f"GET /{name} HTTP/1.1\r\nHost: h\r\nSize: {size}\r\n\r\n".encode())
        sent = ""
        for _ in range(6):
            while len(rig.backends) < rig.connections:
                sent += chr(rig.accept().value()[len(b"GET /")])
            sent += "."
            rig.backends[sent.count(".") - 1].receive(OK)
        self.assertEqual(sent, "ab..H.cd..Z.")

    def test_reclaim_delay(self) -> None:
        """A ticket says how long the slots stay taken if the proxy dies: as its backend's configuration does."""
        tickets: list[Ticket] = []

        class NotingGate(LocalGate):
            def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
                tickets.append(ticket)
                return super().acquire(ticket)

        url = "http://127.0.0.1:9999"
        rig = Rig(
            self,
            gate=NotingGate,
            backend={"one": Backend(url=url), "two": Backend(url=url, max_concurrent=1, reclaim_delay=20.0)},
            rule=[Rule(when=When(path="/two"), then=Then(backend="two", priority=7))],
        )
        for path in (b"/one", b"/two"):
            rig.request(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
        self.assertEqual(
            tickets,
            [
                Ticket((), timeout=300.0, reclaim_delay=0.0),
                Ticket((Counter("backend:two", 1),), 7, timeout=300.0, reclaim_delay=20.0),
            ],
        )

    def test_backend_of_a_rule(self) -> None:
        """A rule sends a request elsewhere, where it needs a slot of that backend."""
        rig = self.make_rig(
            backend={
                "one": Backend(url="http://127.0.0.1:1", max_concurrent=1),
                "two": Backend(url="http://127.0.0.1:2", max_concurrent=1),
            },
            rule=[Rule(when=When(method="POST"), then=Then(backend="two"))],
        )
        for method in (b"GET", b"POST", b"GET", b"POST"):
            rig.request(method + b" / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual([client[1] for client in rig.clock.tcpClients], [1, 2])

    def test_leaves_while_waiting(self) -> None:
        """A client that leaves the queue is forgotten, its body closed, and never forwarded."""
        rig = self.make_rig()
        rig.request()
        leaving = rig.request(b"POST /gone HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        staying = rig.request()
        leaving.lose()
        self.assertEqual(rig.gate._lanes.waiting, 1)
        self.assertTrue(rig.contents[1].closed)
        backend = rig.accept()
        backend.receive(OK)
        backend.receive(OK)
        self.assertEqual(Answer(staying.value()).status, 200)
        self.assertNotIn(b"/gone", backend.value())
        self.assertEqual(leaving.value(), b"")
        self.assertTrue(rig.gate.idle)

    def test_leaves_at_its_turn(self) -> None:
        """Clients that leave in the same moment in which slots come free take no slot with them."""
        rig = self.make_rig()
        clients = [rig.request() for _ in range(5)]
        backend = rig.accept()
        for client in clients[1:4]:
            client.lose()
        backend.receive(OK)
        backend.receive(OK)
        self.assertEqual(Answer(clients[4].value()).status, 200)
        self.assertEqual(backend.value().count(b"GET /"), 2)

    def test_left_before_it_was_rendered(self) -> None:
        """An application may think for long before it renders the resource: a client that left is forgotten."""
        late: list[Any] = []

        class Thinking(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                late.append(request)
                return NOT_DONE_YET

        rig = self.make_rig(mount=lambda resource: Thinking())
        rig.request(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").lose()
        self.assertEqual(rig.resource.render(late[0]), NOT_DONE_YET)
        self.assertEqual(rig.connections, 0)
        self.assertTrue(rig.gate.idle)
        self.successResultOf(rig.resource.when_idle())

    def test_leaves_while_connecting(self) -> None:
        """A client that leaves before there is a connection is not sent, and its slot is free at once."""
        rig = self.make_rig()
        first = rig.request(b"POST /gone HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        second = rig.request()
        first.lose()
        self.assertTrue(rig.clock.connectors[0].stoppedConnecting)
        self.assertTrue(rig.contents[0].closed)
        self.assertEqual(rig.connections, 2)
        rig.backends.append(first)  # the first connection was never accepted
        rig.accept().receive(OK)
        self.assertEqual(Answer(second.value()).status, 200)

    def test_leaves_in_flight(self) -> None:
        """A client that leaves while the backend works keeps its slot until the backend has answered."""
        rig = self.make_rig()
        first, second = rig.request(), rig.request()
        backend = rig.accept()
        first.lose()
        rig.clock.advance(100)
        self.assertEqual(backend.value().count(b"GET /"), 1)
        self.assertNoResult(rig.resource.when_idle())
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        self.assertEqual(backend.value().count(b"GET /"), 1)
        backend.receive(b"k")
        self.assertEqual(backend.value().count(b"GET /"), 2)
        backend.receive(OK)
        self.assertEqual(Answer(second.value()).status, 200)
        self.assertEqual(first.value(), b"")

    def test_leaves_during_the_body(self) -> None:
        """So does one that leaves in the middle of its response."""
        rig = self.make_rig()
        first = rig.request()
        rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        first.lose()
        self.assertEqual(backend.value().count(b"GET /"), 1)
        self.assertFalse(backend.aborted)
        backend.receive(b"k")
        self.assertEqual(backend.value().count(b"GET /"), 2)

    def test_abandoned_for_long(self) -> None:
        """A backend that never answers a client that has left is given up in the end."""
        rig = self.make_rig(**one_slot(abandon_timeout=20))
        first = rig.request()
        backend = rig.accept()
        first.lose()
        idle = rig.resource.when_idle()
        rig.clock.advance(19.9)
        self.assertFalse(rig.gate.idle)
        self.assertNoResult(idle)
        rig.clock.advance(0.1)
        rig.clock.advance(0)
        self.assertTrue(backend.aborted)
        self.assertTrue(rig.gate.idle)
        self.successResultOf(idle)

    def test_slow_reader(self) -> None:
        """A client that reads slowly holds no slot, but is under way until it has everything."""
        rig = self.make_rig()
        client = rig.request()
        client.congested = True
        backend = rig.accept()
        body = b"x" * 400_000
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 65536):
            backend.receive(body[at : at + 65536])
        self.assertTrue(rig.gate.idle)
        idle = rig.resource.when_idle()
        self.assertNoResult(idle)
        client.relieve()
        self.assertEqual(Answer(client.value()).body, body)
        self.successResultOf(idle)

    def test_cut_off(self) -> None:
        """At the end a response that its client still reads is cut; one that it was given stays whole."""
        rig = self.make_rig()
        for client, congested in [(rig.request(), False), (rig.request(), True)]:
            client.congested = congested
        rig.accept().receive(OK)
        rig.backends[0].receive(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
        for _ in range(2):
            rig.backends[0].receive(bytes(100_000))
        rig.resource.cut_off()
        self.assertEqual([client.aborted for client in rig.clients], [False, True])
        rig.clock.advance(0)
        self.successResultOf(rig.resource.when_idle())

    def test_when_idle(self) -> None:
        """It is told when the last exchange is over, to everybody who asked."""
        rig = self.make_rig()
        self.successResultOf(rig.resource.when_idle())
        rig.request(), rig.request()
        asked = [rig.resource.when_idle(), rig.resource.when_idle()]
        backend = rig.accept()
        backend.receive(OK)
        self.assertNoResult(asked[0])
        backend.receive(OK)
        for deferred in asked:
            self.successResultOf(deferred)
        self.successResultOf(rig.resource.when_idle())


class AnsweredTests(RigCase):
    """Exchanges that the proxy answers itself."""

    def check(self, client: Wire, status: int, error: str) -> Answer:
        """A short text, marked as the proxy's."""
        answer = Answer(client.value())
        self.assertEqual(answer.status, status)
        self.assertRegex(answer.header("Proxy-Status") or "", f'^thrtwisted; error={error}; details="[^"]+"$')
        self.assertEqual(answer.header("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(answer.header("Content-Length"), str(len(answer.body)))
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertIsNotNone(answer.header("Date"))
        self.assertTrue(answer.body.endswith(b".\n"))
        return answer

    def test_queue_full(self) -> None:
        """One more than may wait is sent away, and told when to come again."""
        rig = self.make_rig(queue=Queue(max_waiting=1))
        rig.request(), rig.request()
        answer = self.check(rig.request(), 503, "connection_limit_reached")
        self.assertGreaterEqual(int(answer.header("Retry-After") or 0), 1)
        self.assertEqual(answer.header("Server-Timing"), "queue;dur=0.0")

    def test_queue_full_for_one(self) -> None:
        """One user cannot fill the queue: only so many of theirs may wait, and others still get in."""
        limit = Limit(name="per-user", key="header:User", max_concurrent=1, max_waiting=2)
        backend = Backend(url="http://127.0.0.1:9999", max_concurrent=2)
        rig = self.make_rig(backend={"app": backend}, limit=[limit], queue=Queue(max_waiting=4))
        alice, bob = (b"GET / HTTP/1.1\r\nHost: h\r\nUser: %b\r\n\r\n" % user for user in (b"alice", b"bob"))
        for _ in range(3):
            rig.request(alice)
        for _ in range(5):
            answer = self.check(rig.request(alice), 503, "connection_limit_reached")
            self.assertIn(b"Too many requests of this kind are waiting already.", answer.body)
            self.assertNotIn(b"alice", answer.body)
            self.assertGreaterEqual(int(answer.header("Retry-After") or 0), 1)
        served, waiting = rig.request(bob), rig.request(bob)
        rig.accept()
        rig.accept().receive(OK)
        self.assertEqual((Answer(served.value()).status, waiting.value()), (200, b""))
        rig.backends[1].receive(OK)
        self.assertEqual(Answer(waiting.value()).status, 200)

    def test_queue_timeout(self) -> None:
        """One that has waited too long is sent away; its place is gone, and its body."""
        rig = self.make_rig(queue=Queue(timeout=5))
        rig.request()
        backend = rig.accept()
        client = rig.request(b"POST /late HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        rig.clock.advance(4.9)
        self.assertEqual(client.value(), b"")
        rig.clock.advance(0.1)
        answer = self.check(client, 503, "connection_limit_reached")
        self.assertGreaterEqual(int(answer.header("Retry-After") or 0), 1)
        self.assertEqual(answer.header("Server-Timing"), "queue;dur=5000.0")
        self.assertTrue(rig.contents[1].closed)
        backend.receive(OK)
        self.assertNotIn(b"/late", backend.value())

    def test_closed_gate(self) -> None:
        """A proxy that stops sends away who waits and who comes; who is in the backend gets its answer."""
        rig = self.make_rig()
        served, waiting = rig.request(), rig.request()
        rig.gate.close()
        self.check(waiting, 503, "proxy_internal_error")
        answer = self.check(rig.request(), 503, "proxy_internal_error")
        self.assertEqual(answer.header("Retry-After"), "1")
        rig.accept().receive(OK)
        self.assertEqual(Answer(served.value()).status, 200)

    def test_bad_target(self) -> None:
        """A target that no application can be sent."""
        for line in (b"GET x", b"GET ftp://h/", b"GET http:///", b"CONNECT h:80", b"CONNECT /"):
            rig = self.make_rig()
            # The proxy's own site knows no tunnels at all.
            plain = issubclass(self.rig_class, PlainRig)
            status = 501 if not plain and line.startswith(b"CONNECT") else 400
            self.check(rig.request(line + b" HTTP/1.1\r\nHost: h\r\n\r\n"), status, "http_request_error")
            self.assertEqual(rig.connections, 0)
            self.assertTrue(rig.gate.idle)

    def test_two_hosts(self) -> None:
        """A request that names two hosts is the client's mistake; its slot is given back."""
        rig = self.make_rig()
        client = rig.request(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        self.check(client, 400, "http_request_error")

    def test_refused(self) -> None:
        """Connecting to the backend fails, in each way that it can."""
        for error, status, kind in (
            (ConnectionRefusedError(), 502, "connection_refused"),
            (ConnectError(), 502, "destination_unavailable"),
            (DNSLookupError(), 502, "dns_error"),
        ):
            rig = self.make_rig()
            client, waiting = rig.request(), rig.request()
            rig.refuse(error)
            answer = self.check(client, status, kind)
            self.assertEqual(answer.header("Server-Timing"), "queue;dur=0.0, backend;dur=0.0")
            self.assertEqual(waiting.value(), b"")
            self.assertEqual(rig.connections, 2)  # the slot went on to the next

    def test_connect_timeout(self) -> None:
        """The backend does not accept."""
        rig = self.make_rig()
        client = rig.request()
        rig.refuse(TimeoutError())
        self.check(client, 504, "connection_timeout")

    def test_closed(self) -> None:
        """The backend closes before it answers."""
        rig = self.make_rig()
        client = rig.request()
        rig.accept().lose()
        self.check(client, 502, "connection_terminated")

    def test_garbage(self) -> None:
        """What the backend says is not HTTP."""
        rig = self.make_rig()
        client = rig.request()
        rig.accept().receive(b"HELO\r\n\r\n")
        rig.clock.advance(0)
        self.check(client, 502, "http_protocol_error")

    def test_response_timeout(self) -> None:
        """The backend takes too long: the client is told at once, and the slot stays taken while it works."""
        rig = self.make_rig(**one_slot(response_timeout=3, abandon_timeout=60))
        client, waiting = rig.request(), rig.request()
        backend = rig.accept()
        idle = rig.resource.when_idle()
        rig.clock.advance(3)
        self.check(client, 504, "http_response_timeout")
        self.assertEqual(waiting.value(), b"")
        waiting.lose()
        self.assertNoResult(idle)  # the application still works
        backend.receive(OK)
        self.assertTrue(rig.gate.idle)
        self.successResultOf(idle)
        self.assertEqual(client.value().count(b"HTTP/1.1"), 1)

    def test_cut(self) -> None:
        """A response that the backend cuts is cut for the client, and never completed."""
        for head in (b"Content-Length: 5\r\n\r\nhe", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"):
            rig = self.make_rig()
            client = rig.request()
            backend = rig.accept()
            backend.receive(b"HTTP/1.1 200 OK\r\n" + head)
            backend.lose()
            self.assertTrue(client.aborted)
            self.assertNotIn(b"0\r\n\r\n", Answer(client.value()).body)
            self.assertTrue(rig.gate.idle)

    def test_rule_answers(self) -> None:
        """A rule may answer: nothing is forwarded, and no slot is asked for."""
        rig = self.make_rig(rule=[Rule(when=When(path="/teapot"), then=Then(set_status_code=418))])
        rig.request(), rig.request()
        answer = Answer(rig.request(b"GET /teapot HTTP/1.1\r\nHost: h\r\n\r\n").value())
        self.assertEqual(answer.line, b"HTTP/1.1 418 I'm a Teapot")
        self.assertEqual(answer.body, b"I'm a Teapot\n")
        self.assertIsNone(answer.header("Proxy-Status"))
        self.assertEqual(answer.header("Server-Timing"), "queue;dur=0.0")
        self.assertEqual(rig.connections, 1)
        self.assertEqual(rig.gate._lanes.waiting, 1)

    def test_rule_answers_before_the_body(self) -> None:
        """Who asks before it sends a body is not told to, where a rule answers or the request cannot be forwarded."""
        rig = self.make_rig(
            rule=[Rule(when=When(path="/teapot"), then=Then(set_status_code=418))],
            limit=[Limit(name="user", key="header:User", max_concurrent=1)],
        )
        for target, wanted in ((b"/teapot", b"418"), (b"/", b"100"), (b"http://h:1/teapot", b"418")):
            client = rig.request(
                b"POST %b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n" % target
            )
            continued = client.value().startswith(b"HTTP/1.1 100 ")
            if issubclass(self.rig_class, PlainRig):  # Twisted's tells everybody to go on
                self.assertTrue(continued)
            else:
                self.assertEqual(continued, wanted == b"100")
                self.assertTrue(client.value().startswith(b"HTTP/1.1 " + wanted))
        self.assertEqual(rig.connections, 0)

    def test_wants_body(self) -> None:
        """The resource wants a body unless a rule answers, or nobody can."""
        rig = self.make_rig(rule=[Rule(when=When(path="/teapot"), then=Then(set_status_code=418))])
        rig.request()
        [request] = rig.resource._requests
        for target, wanted in ((b"/", True), (b"/teapot", False), (b"ftp://h/", False)):
            request.uri = target
            self.assertEqual(rig.resource.wants_body(request), wanted)

    def test_rule_answers_without_body(self) -> None:
        """Some statuses have no body."""
        rig = self.make_rig(rule=[Rule(then=Then(set_status_code=204))])
        client = rig.request(b"DELETE / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" + GET)
        self.assertEqual(client.value().count(b"HTTP/1.1 204 No Content"), 2)
        self.assertTrue(client.value().endswith(b"\r\n\r\n"))
        self.assertNotIn(b"Content-Type", client.value())

    def test_json(self) -> None:
        """A program that prefers JSON gets it."""
        rig = self.make_rig()
        client = rig.request(b"GET x HTTP/1.1\r\nHost: h\r\nAccept: application/json, text/*;q=0.5\r\n\r\n")
        answer = Answer(client.value())
        self.assertEqual(answer.header("Content-Type"), "application/json")
        told = json.loads(answer.body)
        self.assertEqual((told["status"], told["error"]), (400, "http_request_error"))

    def test_key_function_fails(self) -> None:
        """A key function of the user's that raises: 500, the trace in the log, and nothing is held."""
        rig = self.make_rig(
            limit=[
                Limit(name="all", max_concurrent=1),
                Limit(name="theirs", key="python:tests.test_resource:failing_key", max_concurrent=1),
            ],
        )
        client = rig.request(b"POST /fail HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        self.check(client, 500, "proxy_configuration_error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(rig.gate.idle)
        self.assertTrue(rig.contents[0].closed)
        rig.request()
        self.assertEqual(rig.connections, 1)


class Broken(RuntimeError):
    """Something that must not happen."""


class BrokenForwarder:
    """Stands in for a forwarder with a mistake, which a real one cannot be made to have."""

    queue = None

    def __init__(self, forwarding: Any = None) -> None:
        self.forwarding = forwarding

    def send(self, exchange: Exchange, body: Any, admission: IAdmission) -> Any:
        if self.forwarding is None:
            raise Broken
        body.close()
        self.forwarding.done.addCallback(lambda _: admission.release())
        return self.forwarding

    def close(self) -> Deferred[None]:
        return succeed(None)


class BrokenForwarding:
    """A forwarding that fails when its response is to be delivered, and notes whether it was abandoned."""

    def __init__(self, head: Deferred[Any], started: bool) -> None:
        self.head = head
        self.done: Deferred[None] = Deferred()
        self.method = b"GET"
        self.started = started

    def read(self, limit: int) -> Deferred[bytes]:
        """There is nothing to read."""
        return succeed(b"")

    def deliver(self, request: Any) -> Deferred[None]:
        if self.started:
            request.write(b"some")
        raise Broken

    def abandon(self) -> None:
        if not self.done.called:
            self.done.callback(None)


@implementer(IGate)
class BrokenGate:
    """A gate that fails."""

    idle = True

    def __init__(self, problem: Exception) -> None:
        self.problem = problem

    def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
        return fail(self.problem)

    def close(self) -> None:
        """Nothing to close."""

    def stop(self) -> Deferred[None]:
        return succeed(None)


class MistakeTests(RigCase):
    """What a mistake elsewhere costs: its own exchange, and never a slot."""

    def check_failed(self, client: Wire) -> None:
        self.assertEqual(Answer(client.value()).status, 500)
        self.assertIn(b"proxy_internal_error", client.value())
        self.assertEqual(len(self.flushLoggedErrors(Broken, CancelledError)), 1)

    def test_gate(self) -> None:
        """The gate fails."""
        rig = self.make_rig(gate=lambda clock: BrokenGate(Broken()))
        self.check_failed(rig.request())

    def test_cancelled_by_another(self) -> None:
        """A ticket is cancelled, and not by its client, who gets an answer."""
        rig = self.make_rig(gate=lambda clock: BrokenGate(CancelledError()))
        self.check_failed(rig.request())

    def test_forwarder(self) -> None:
        """The forwarder fails: the slot and the body are given back."""
        rig = self.make_rig()
        rig.forwarders["app"] = BrokenForwarder()  # type: ignore[assignment]
        rig.resource._forwarders = rig.forwarders
        self.check_failed(rig.request())
        self.assertTrue(rig.gate.idle)
        self.assertTrue(rig.contents[0].closed)

    def broken_forwarding(self, started: bool) -> tuple[Rig, Wire]:
        rig = self.make_rig()
        forwarding = BrokenForwarding(succeed(ResponseHead(200, b"OK", Headers(), None)), started)
        rig.resource._forwarders = {"app": BrokenForwarder(forwarding)}  # type: ignore[dict-item]
        return rig, rig.request()

    def test_delivery(self) -> None:
        """The response cannot be delivered: the client is told, and the backend's work is abandoned."""
        rig, client = self.broken_forwarding(started=False)
        self.check_failed(client)
        self.assertTrue(rig.gate.idle)

    def test_delivery_begun(self) -> None:
        """It fails when a part was sent: the client sees a cut, not an end."""
        rig, client = self.broken_forwarding(started=True)
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)
        self.assertTrue(client.aborted)
        self.assertEqual(Answer(client.value()).body, b"4\r\nsome\r\n")
        self.assertTrue(rig.gate.idle)

    def test_no_answer_possible(self) -> None:
        """Not even an answer can be given: the client does not wait for ever."""

        class Mute(RecordedRequest):
            contents: list[Any] = []  # noqa: RUF012

            def setResponseCode(self, code: int, message: bytes | None = None) -> None:
                raise Broken

        rig = self.make_rig(rule=[Rule(then=Then(set_status_code=204))])
        rig.site.requestFactory = Mute  # type: ignore[assignment]
        client = rig.request()
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 2)
        self.assertTrue(client.aborted)

    def test_file_of_the_body(self) -> None:
        """The file of the request's body cannot be used."""

        class Torn:
            closed = True

            def seek(self, *_: int) -> int:
                raise OSError("torn")

            def close(self) -> None:
                """It is."""

        class Tearing(RecordedRequest):
            contents: list[Any] = []  # noqa: RUF012

            def process(self) -> None:
                self.content = Torn()  # type: ignore[assignment]
                super().process()

        rig = self.make_rig()
        rig.site.requestFactory = Tearing  # type: ignore[assignment]
        client = rig.request()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(Answer(client.value()).status, 500)


class ReleaseTests(RigCase):
    """Each slot is released exactly once; a second release would be an error in the log, and fail the test."""

    def test_every_end(self) -> None:
        """Random ends of many exchanges on few slots leave the gate idle, and never let too many in."""
        self.statuses: set[int] = set()
        for seed in range(40):
            self.run_random(seed)
        self.assertEqual(self.statuses, {200, 502, 503, 504})

    def run_random(self, seed: int) -> None:
        random = Random(seed)
        backend = Backend(
            url="http://127.0.0.1:9999", max_concurrent=2, response_timeout=3, abandon_timeout=5, keep_alive=0
        )
        rig = self.make_rig(backend={"app": backend}, queue=Queue(max_waiting=6, timeout=4))
        working: list[Wire] = []  # connections to the backend
        for _ in range(60):
            act = random.randrange(8)
            if act < 3:
                rig.request()
            elif act == 3 and rig.clients:
                random.choice(rig.clients).lose()
            elif act == 4:
                rig.clock.advance(random.random())
            elif act == 5:
                self.connect(rig, working, random.random() < 0.7)
            elif working:
                wire = working.pop(random.randrange(len(working)))
                if random.random() < 0.7 and not wire.lost:
                    wire.receive(random.choice((OK, OK[:-1], b"garbage\r\n\r\n")))
                wire.lose()
            self.assertLessEqual(len(rig.forwarders["app"]._under_way), 2)
        self.statuses |= {Answer(client.value()).status for client in rig.clients if client.value()}

    def connect(self, rig: Rig, working: list[Wire], accepted: bool) -> None:
        """The backend accepts or refuses the oldest connection that was asked for."""
        while len(rig.backends) < rig.connections:
            number = len(rig.backends)
            if rig.clock.connectors[number].stoppedConnecting:
                rig.backends.append(Wire(rig.clock, Site(Resource()).buildProtocol(None)))
                continue
            if accepted:
                working.append(rig.accept())
            else:
                factory = rig.clock.tcpClients[number][2]
                rig.backends.append(Wire(rig.clock, Site(Resource()).buildProtocol(None)))
                factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            return

    def test_counters_of_the_ticket(self) -> None:
        """The ticket asks for what the configuration says, once each."""
        asked: list[Ticket] = []

        class Recording(LocalGate):
            def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
                asked.append(ticket)
                return super().acquire(ticket)

        rig = Rig(
            self,
            gate=Recording,
            limit=[Limit(name="user", key="header:X-User", max_concurrent=3)],
            rule=[Rule(then=Then(priority=7))],
            queue=Queue(timeout=12),
        )
        rig.request(b"GET / HTTP/1.1\r\nHost: h\r\nX-User: ann\r\n\r\n")
        rig.refuse(ConnectionRefusedError())
        self.assertEqual(asked, [Ticket((Counter("user=ann", 3), Counter("backend:app", 1)), 7, 12.0)])


class PlainForwardedTests(ForwardedTests):
    rig_class = PlainRig


class PlainQueueTests(QueueTests):
    rig_class = PlainRig


class PlainAnsweredTests(AnsweredTests):
    rig_class = PlainRig


class PlainMistakeTests(MistakeTests):
    rig_class = PlainRig


class PlainReleaseTests(ReleaseTests):
    rig_class = PlainRig
