"""A request's way past a service to the application, or back: a real site, gate and forwarders, in memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.auth.support import NO, YES
from tests.forward.support import OK, Wire
from tests.rig import Answer, PlainRig, Rig
from thrtwisted.config import Auth, Backend, Limit, Queue, Rule, Then, When

URL = "http://127.0.0.1:7000/auth"
POST = (
    b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-User: root\r\nX-Own: 1\r\nAuthorization: Basic x\r\n"
    b"Content-Length: 3\r\n\r\nabc"
)


def get(target: bytes = b"/", *fields: bytes) -> bytes:
    """A request."""
    return b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: h", *fields, b"", b""])


class WayTests(SynchronousTestCase):
    """The service is at port 7000, the application at 9999."""

    rig_class: type[Rig] = Rig

    def make(self, rule: Rule | None = None, *, limit: Limit | None = None, **auth: Any) -> Rig:
        """A proxy."""
        auth.setdefault("copy_headers", ["X-User"])
        return self.rig_class(
            self,
            backend={"app": Backend(url="http://127.0.0.1:9999")},
            auth={"main": Auth(**{"url": URL, **auth})},
            rule=[rule or Rule(then=Then(auth="main"))],
            limit=[limit] if limit else [],
        )

    def accept(self, rig: Rig, port: int) -> Wire:
        """The next connection, which leads there, is accepted."""
        self.assertEqual(rig.clock.tcpClients[len(rig.backends)][1], port)
        return rig.accept()

    def test_passes(self) -> None:
        """The application gets the request, body and all, once the service has answered, as whom that says it is."""
        rig = self.make()
        client = rig.request(POST)
        service = self.accept(rig, 7000)
        self.assertEqual(rig.connections, 1)
        asked = service.value()
        self.assertTrue(asked.startswith(b"GET /auth HTTP/1.1\r\n"), asked)
        self.assertTrue(asked.endswith(b"\r\n\r\n"), asked)
        for field in (
            b"Authorization: Basic x",
            b"X-Forwarded-Method: POST",
            b"X-Forwarded-Uri: /a?b",
            b"X-Forwarded-For: 192.168.1.1",
            b"X-Forwarded-Proto: http",
            b"X-Forwarded-Host: h",
        ):
            self.assertEqual(asked.count(field + b"\r\n"), 1, asked)
        for absent in (b"X-Own", b"root", b"Content-", b"abc"):
            self.assertNotIn(absent, asked)
        service.receive(YES)
        application = self.accept(rig, 9999)
        sent = application.value()
        self.assertTrue(sent.startswith(b"POST /a?b HTTP/1.1\r\n"), sent)
        self.assertTrue(sent.endswith(b"\r\n\r\nabc"), sent)
        self.assertEqual(sent.count(b"X-User: ann\r\n"), 1)
        self.assertNotIn(b"root", sent)
        self.assertNotIn(b"X-Other", sent)
        application.receive(OK)
        self.assertEqual(Answer(client.value()).status, 200)

    def test_denied(self) -> None:
        """Who may not pass is told so by the service; the application sees nothing of it, the connection stays."""
        rig = self.make()
        client = rig.request(POST)
        self.accept(rig, 7000).receive(NO)
        answer = Answer(client.value())
        self.assertEqual((answer.status, answer.body), (401, b"no"))
        self.assertEqual(answer.header("WWW-Authenticate"), 'Basic realm="x"')
        self.assertEqual(answer.header("Content-Length"), "2")
        self.assertIsNone(answer.header("Connection"))
        self.assertFalse(client.disconnecting)
        self.assertEqual(rig.connections, 1)

    def test_denied_head(self) -> None:
        """Who asks for a head gets the same, without the body."""
        rig = self.make()
        client = rig.request(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.accept(rig, 7000).receive(NO)
        answer = Answer(client.value())
        self.assertEqual((answer.status, answer.body, answer.header("Content-Length")), (401, b"", "2"))

    def test_spoofed(self) -> None:
        """Nobody speaks in the service's name: in no spelling, with no Connection, and not where it is not asked."""
        names = (b"x-uSER", b"X_User", b"X-User", b"X.User", b"x!user", b"X~User")
        fields = (*(name + b": root" for name in names), b"Connection: X-User, Authorization")
        rule = Rule(when=When(path="/asked"), then=Then(auth="main"))
        for target, said, expected in (
            (b"/asked", YES, b"X-User: ann\r\n"),
            (b"/asked", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
            (b"/asked", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b""),
            (b"//asked", None, b""),
        ):
            rig = self.make(rule, on_error="allow")
            rig.request(get(target, *fields))
            if said is not None:
                self.accept(rig, 7000).receive(said)
            sent = self.accept(rig, 9999).value()
            self.assertNotIn(b"root", sent)
            self.assertIn(expected, sent)

    def test_connection_header(self) -> None:
        """No Connection header takes away what the service has to see."""
        rig = self.make(send_headers=["X-Certificate"])
        rig.request(get(b"/", b"X-Certificate: c", b"Connection: X-Certificate"))
        self.assertIn(b"X-Certificate: c\r\n", self.accept(rig, 7000).value())

    def test_failing(self) -> None:
        """Where there is no answer it is 502, in the proxy's own words."""
        rig = self.make()
        client = rig.request()
        self.accept(rig, 7000).receive(b"HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\nsecret")
        answer = Answer(client.value())
        self.assertEqual(answer.status, 502)
        self.assertIn("thrtwisted; error=", answer.header("Proxy-Status") or "")
        self.assertNotIn(b"secret", client.value())

    def test_client_leaves(self) -> None:
        """A client who leaves is asked about no more, and never forwarded."""
        rig = self.make()
        client = rig.request()
        service = self.accept(rig, 7000)
        client.lose()
        self.assertTrue(service.aborted)
        self.assertEqual(rig.connections, 1)

    def test_remembered(self) -> None:
        """While an answer holds requests go on at once; what their clients say in the service's name is taken away."""
        rig = self.make(cache=30.0)
        rig.request()
        self.accept(rig, 7000).receive(YES)
        self.accept(rig, 9999)
        rig.request(get(b"/", b"X-User: root"))
        sent = self.accept(rig, 9999).value()
        self.assertIn(b"X-User: ann\r\n", sent)
        self.assertNotIn(b"root", sent)

    def test_denied_often(self) -> None:
        """A refusal that is remembered is given to each client as its own."""
        rig = self.make(cache=30.0)
        clients = [rig.request(), rig.request(get(b"/", b"Connection: close"))]
        self.accept(rig, 7000).receive(NO)
        clients += [rig.request(), rig.request(get(b"/", b"Connection: close"))]
        answers = [Answer(client.value()) for client in clients]
        self.assertEqual([(answer.status, answer.body) for answer in answers], [(401, b"no")] * 4)
        self.assertEqual([answer.header("Connection") for answer in answers], [None, "close", None, "close"])
        for answer in answers:
            self.assertEqual(len(answer.headers.getRawHeaders("Server-Timing", [])), 1)
            self.assertEqual(len(answer.headers.getRawHeaders("Date", [])), 1)
        self.assertEqual(rig.connections, 1)

    def test_limit_by_what_it_says(self) -> None:
        """A limit counts whom the service names."""
        rig = self.make(limit=Limit(name="user", key="header:X-User", max_concurrent=1))
        rig.request(get(b"/first", b"X-User: a"))
        rig.request(get(b"/second", b"X-User: b"))
        self.accept(rig, 7000)
        self.accept(rig, 7000)
        for service in rig.backends[:2]:
            service.receive(YES)
        first = self.accept(rig, 9999)
        self.assertEqual(rig.connections, 3)
        first.receive(OK)
        self.assertIn(b"GET /second", first.value())

    def test_turns(self) -> None:
        """Where questions wait for one another their clients take turns, as requests do."""
        rig = self.rig_class(
            self,
            backend={"app": Backend(url="http://127.0.0.1:9999")},
            auth={"main": Auth(url=URL, max_concurrent=1)},
            rule=[Rule(then=Then(auth="main"))],
            queue=Queue(fair="header:X-User"),
        )
        for target, user in ((b"/1", b"ann"), (b"/2", b"ann"), (b"/3", b"ann"), (b"/4", b"bob")):
            rig.request(get(target, b"X-User: " + user))
        service = self.accept(rig, 7000)
        for _ in range(3):
            service.receive(YES)
        asked = [line[-1:] for line in service.value().split(b"\r\n") if line.startswith(b"X-Forwarded-Uri")]
        self.assertEqual(asked, [b"1", b"2", b"4", b"3"])

    def test_no_slot_while_asked(self) -> None:
        """A question and its request take slots one after the other, of the same gate, and never both at once."""
        limit = Limit(name="all", max_concurrent=1)
        rig = self.make(limit=limit, max_concurrent=1)
        clients = [rig.request() for _ in range(3)]
        service = self.accept(rig, 7000)
        service.receive(YES)
        application = self.accept(rig, 9999)
        for _ in range(2):
            service.receive(YES)
        for _ in range(3):
            application.receive(OK)
        self.assertEqual([Answer(client.value()).status for client in clients], [200] * 3)


class ContinueTests(SynchronousTestCase):
    """A client that asks leave to send its body."""

    rig_class: type[Rig] = Rig

    DATA = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"

    def test_denied(self) -> None:
        """It is told at once that it may not pass, and its body is not wanted."""
        rig = self.rig_class(self, auth={"main": Auth(url=URL)}, rule=[Rule(then=Then(auth="main"))])
        client = rig.request(self.DATA)
        self.assertEqual(client.value(), b"")
        rig.accept().receive(NO)
        self.assertEqual(Answer(client.value()).status, 401)
        self.assertNotIn(b"100 Continue", client.value())

    def test_passes(self) -> None:
        """If it may, it is asked about once, before its body."""
        rig = self.rig_class(self, auth={"main": Auth(url=URL)}, rule=[Rule(then=Then(auth="main"))])
        client = rig.request(self.DATA)
        service = rig.accept()
        service.receive(YES)
        self.assertTrue(client.value().startswith(b"HTTP/1.1 100 Continue\r\n\r\n"))
        client.receive(b"abc")
        application = rig.accept()
        self.assertTrue(application.value().endswith(b"abc"))
        self.assertEqual(service.value().count(b"GET /auth"), 1)

    def test_timing(self) -> None:
        """The time of the question is told as such; that in which the client sends its body is nobody's."""
        rig = self.rig_class(self, auth={"main": Auth(url=URL)}, rule=[Rule(then=Then(auth="main"))])
        client = rig.request(self.DATA)
        rig.clock.advance(0.25)
        rig.accept().receive(YES)
        rig.clock.advance(1)
        client.receive(b"abc")
        rig.accept().receive(OK)
        answer = Answer(client.value().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
        self.assertEqual(answer.header("Server-Timing"), "rules;dur=250.0, queue;dur=0.0, backend;dur=0.0")


class PlainWayTests(WayTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig
