"""Rates, fairness and what clients are told of limits, through the whole of a proxy in memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.rig import Answer, Rig
from thrtwisted.config import Backend, Limit, Queue

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(user: str = "ann", **headers: str) -> bytes:
    """A request of a user."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in {"X-User": user, **headers}.items())
    return f"GET /{user} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()


class RegulationTests(SynchronousTestCase):
    """What becomes of requests over a rate, and in which order they go."""

    rig_class: type[Rig] = Rig

    def rig(self, *limits: Limit, slots: int | None = None, **config: Any) -> Rig:
        """A proxy with these limits."""
        backend = {"app": Backend(url="http://127.0.0.1:9999", max_concurrent=slots, keep_alive=0)}
        return self.rig_class(self, limit=list(limits), backend=backend, **config)

    def answered(self, rig: Rig, data: bytes, response: bytes = ANSWER) -> Answer:
        """A request is forwarded at once and answered."""
        client = rig.request(data)
        rig.accept().receive(response)
        return Answer(client.value())

    def test_wait(self) -> None:
        """Over the rate a request waits for its time, no longer, and its answer says nothing of it."""
        rig = self.rig(Limit(name="l", rate="2/s"))
        self.assertEqual(self.answered(rig, get()).status, 200)
        client = rig.request(get())
        rig.clock.advance(0.49)
        self.assertEqual(rig.connections, 1)
        rig.clock.advance(0.01)
        rig.accept().receive(ANSWER)
        answer = Answer(client.value())
        self.assertEqual(answer.status, 200)
        self.assertIsNone(answer.header("RateLimit-Policy"))
        self.assertIsNone(answer.header("RateLimit"))

    def test_left(self) -> None:
        """A client that leaves while it waits for its time has used nothing up."""
        rig = self.rig(Limit(name="l", rate="2/s"))
        self.answered(rig, get())
        rig.request(get()).lose()
        rig.clock.advance(0.5)
        self.assertEqual(rig.connections, 1)
        self.answered(rig, get())

    def test_too_long(self) -> None:
        """Who would wait for too long gets 503, and is told of the limit."""
        rig = self.rig(Limit(name="l", rate="1/hour", headers=True), queue=Queue(timeout=5.0))
        self.answered(rig, get())
        client = rig.request(get())
        rig.clock.advance(5)
        answer = Answer(client.value())
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.header("RateLimit-Policy"), '"l";q=1;w=3600')
        self.assertIsNone(answer.header("RateLimit"))
        retry_after = answer.header("Retry-After")
        assert retry_after is not None
        self.assertGreaterEqual(int(retry_after), 1)

    def test_reject(self) -> None:
        """Over a rate that rejects a request gets 429 at once, and is told when it may come again."""
        limit = Limit(name="l", key="header:X-User", rate="1/min", burst=2, over="reject", headers=True)
        rig = self.rig(limit)
        for left, full in ((1, 60), (0, 120)):
            answer = self.answered(rig, get())
            self.assertEqual(answer.header("RateLimit-Policy"), '"l";q=1;w=60')
            self.assertEqual(answer.header("RateLimit"), f'"l";r={left};t={full}')
        rig.clock.advance(0.5)
        answer = Answer(rig.request(get(Accept="application/json")).value())
        self.assertEqual(answer.status, 429)
        self.assertEqual(answer.header("Retry-After"), "60")
        self.assertEqual(answer.header("RateLimit-Policy"), '"l";q=1;w=60')
        self.assertEqual(answer.header("RateLimit"), '"l";r=0;t=60')
        self.assertIn("error=http_request_denied", answer.header("Proxy-Status") or "")
        self.assertIn(b'"status": 429', answer.body)
        self.answered(rig, get("bob"))
        rig.clock.advance(60)
        self.answered(rig, get())

    def test_demote(self) -> None:
        """Over a rate that demotes a request goes at once while there is room, and else after all others."""
        limit = Limit(name="l", key="header:X-User", rate="1/hour", over="demote", headers=True)
        rig = self.rig(limit, slots=1)
        self.answered(rig, get("ann"))
        self.answered(rig, get("ann"))
        working = rig.request(get("eve"))
        clients = [rig.request(get("ann")), rig.request(get("bob"))]
        rig.accept().receive(ANSWER)
        rig.accept().receive(ANSWER)
        self.assertEqual([bool(client.value()) for client in [working, *clients]], [True, False, True])
        rig.accept().receive(ANSWER)
        self.assertEqual(Answer(clients[0].value()).status, 200)

    def test_slots(self) -> None:
        """Slots are told as concurrent requests, beside what the backend tells of its own."""
        rig = self.rig(Limit(name="l", max_concurrent=3, headers=True))
        rig.request(get())
        response = (
            b'HTTP/1.1 200 OK\r\nRateLimit-Policy: "own";q=9;w=1\r\nRateLimit: "own";r=8;t=1\r\n'
            b"Content-Length: 2\r\n\r\nok"
        )
        rig.accept()
        client = rig.request(get())
        rig.accept().receive(response)
        headers = Answer(client.value()).headers
        self.assertEqual(
            headers.getRawHeaders("RateLimit-Policy"),
            ['"own";q=9;w=1', '"l";q=3;qu="concurrent-requests"'],
        )
        self.assertEqual(headers.getRawHeaders("RateLimit"), ['"own";r=8;t=1', '"l";r=1'])

    def test_not_answered(self) -> None:
        """An answer that the proxy gives in place of the backend's tells of limits, too."""
        rig = self.rig(Limit(name="l", rate="1/min", headers=True))
        client = rig.request(get())
        rig.refuse(ConnectionRefusedError())
        answer = Answer(client.value())
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer.header("RateLimit"), '"l";r=0;t=60')

    def test_fair(self) -> None:
        """Users take turns; those without a name have one together."""
        rig = self.rig(slots=1, queue=Queue(fair="header:X-User"))
        rig.request(get("working"))
        users = ["ann", "ann", "ann", "bob", "bob", "eve"]
        clients = [rig.request(get(user)) for user in users]
        nameless = [rig.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") for _ in range(2)]
        order = []
        for _ in range(len(users) + len(nameless) + 1):
            backend = rig.accept()
            order.append(backend.value().split()[1].decode())
            backend.receive(ANSWER)
        self.assertEqual(order, ["/working", "/ann", "/bob", "/eve", "/", "/ann", "/bob", "/", "/ann"])
        self.assertTrue(all(client.value() for client in clients + nameless))
