"""Tests of what rules do to whole exchanges: a real site, a real gate and real forwarders, in memory, with a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from tests.forward.support import OK, Wire
from tests.kinds import KINDS
from tests.rig import GET, Answer, PlainRig, Rig, one_slot
from thrtwisted.config import Auth, Backend, Queue, Rule, Then, When
from thrtwisted.errors import AuthFailed, RuleFailed
from thrtwisted.exchange import Exchange, ResponseHead


class Broken(Exception):
    """A mistake of the user's."""


def breaking(_: object) -> Any:
    """A function of the user's with a mistake."""
    raise Broken


def head_and_body(wire: Wire) -> tuple[list[bytes], bytes]:
    """What a backend has got: the head's lines, and the body."""
    head, _, body = wire.value().partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def post(*fields: bytes, body: bytes = b"abc") -> bytes:
    """A request with a body."""
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join((b"POST /p HTTP/1.1", b"Host: h", length, *fields, b"", body))


class RuledCase(SynchronousTestCase):
    """Tests of rules, over the proxy's own site and (below) over one of Twisted's."""

    rig_class: type[Rig] = Rig

    def rig(self, *then: dict[str, Any] | Rule, **settings: Any) -> Rig:
        """A proxy in memory, with a backend that has one slot, and rules that do this."""
        rules = [each if isinstance(each, Rule) else Rule(then=Then(**each)) for each in then]
        settings.setdefault("backend", one_slot()["backend"])
        return self.rig_class(self, rule=rules, **settings)

    def failed(self, wire: Wire) -> None:
        """The client is told that the configuration failed, and no more than that."""
        answer = Answer(wire.value())
        self.assertEqual(answer.status, 500)
        self.assertIn("error=proxy_configuration_error", answer.header("Proxy-Status") or "")


class RequestTests(RuledCase):
    """What the backend gets."""

    def test_everything(self) -> None:
        """Method, target, host and headers are what the rules say, and the rest is what the client said."""
        rig = self.rig(
            {
                "set_method": "PUT",
                "set_path": "/new",
                "add_query_string_arg": {"b": "1 2"},
                "set_host": "inner",
                "set_input_header": {"X-Set": "1"},
                "del_input_header": ["X-Gone"],
            }
        )
        rig.request(
            b"POST /p?%7e=%2F HTTP/1.1\r\nHost: h\r\nX-Gone: 1\r\nX-Own: 1\r\nContent-Length: 3\r\n\r\nabc"
        )
        lines, body = head_and_body(rig.accept())
        self.assertEqual((lines[0], body), (b"PUT /new?%7e=%2F&b=1%202 HTTP/1.1", b"abc"))
        for line in (b"Host: inner", b"X-Set: 1", b"X-Own: 1", b"Content-Length: 3"):
            self.assertEqual(lines.count(line), 1, lines)
        self.assertFalse([line for line in lines if b"X-Gone" in line])

    def test_body(self) -> None:
        """Another body comes with its own length, whatever framing and coding the client's had."""
        chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        coded = post(b"Content-Encoding: gzip")
        for data in (chunked, coded, GET):
            for kind in KINDS:
                rig = self.rig({"set_input_body": kind(lambda exchange: exchange.request.body + b"-new")})
                rig.request(data)
                lines, body = head_and_body(rig.accept())
                expected = b"-new" if data is GET else b"abc-new"
                self.assertEqual(body, expected)
                self.assertEqual(lines.count(b"Content-Length: %d" % len(expected)), 1, lines)
                framing = [line for line in lines if line.lower().startswith((b"transfer-", b"content-"))]
                self.assertEqual(len(framing), 1, lines)

    def test_body_that_is_read(self) -> None:
        """A body that a function reads, from a file too, is sent on as it came."""
        large = b"x" * 300_000
        seen: list[int] = []
        rig = self.rig({"custom_input": lambda exchange: seen.append(len(exchange.request.body))})
        rig.request(post(body=large))
        _, body = head_and_body(rig.accept())
        self.assertEqual((seen, len(body)), ([300_000], 300_000))

    def test_backend_and_priority(self) -> None:
        """Functions say where to, and how urgent it is."""
        backends = {name: Backend(url=f"http://127.0.0.1:{port}") for name, port in (("app", 1), ("slow", 2))}
        rig = self.rig({"backend": lambda exchange: "slow"}, backend=backends)
        rig.request()
        self.assertEqual(rig.clock.tcpClients[0][1], 2)
        rig.accept()

    def test_body_that_is_sent(self) -> None:
        """On the way out the request's body is gone: whoever reads or replaces it then has failed, with a mend."""
        for late in (lambda exchange: exchange.request.body, lambda exchange: exchange.set_input_body("x")):
            rig = self.rig({"custom_output": late})
            client = rig.request(post())
            rig.accept().receive(OK)
            self.failed(client)
            (failure,) = self.flushLoggedErrors(ValueError)
            self.assertIn("read or set it in custom_input", str(failure.value))

    def test_method_that_is_set_late(self) -> None:
        """What ends a response is the method that the backend saw, whatever functions set after that."""
        for sent, late in (("HEAD", "GET"), ("GET", "HEAD")):
            rig = self.rig(
                {"set_method": sent, "custom_output": lambda exchange: exchange.set_method(late)}  # noqa: B023
            )
            client = rig.request()
            backend = rig.accept()
            backend.receive(
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + (b"body" if sent == "GET" else b"")
            )
            answer = Answer(client.value())
            self.assertEqual(
                (answer.header("Content-Length"), answer.body),
                (("4", b"body") if sent == "GET" else ("0", b"")),
            )

    def test_methods(self) -> None:
        """Whether a body follows is the client's method's matter, and whether one comes the backend's."""
        full = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        for asked, method, sent, length, body in [
            (b"GET", "HEAD", full, "0", b""),
            (b"HEAD", "GET", full + b"ok", "2", b""),
            (b"POST", "GET", full + b"ok", "2", b"ok"),
            (b"HEAD", "HEAD", full, "2", b""),
        ]:
            rig = self.rig({"set_method": method})
            client = rig.request(b"%b / HTTP/1.1\r\nHost: h\r\n\r\n" % asked)
            backend = rig.accept()
            self.assertTrue(backend.value().startswith(method.encode()))
            backend.receive(sent)
            answer = Answer(client.value())
            self.assertEqual((answer.header("Content-Length"), answer.body), (length, body), (asked, method))
            self.assertFalse(client.disconnecting)
            self.assertTrue(rig.gate.idle)
            client.clear()
            client.receive(GET)  # the connection is still in step
            backend = rig.accept() if rig.connections > len(rig.backends) else rig.backends[-1]
            backend.receive(full if method == "HEAD" else OK)
            self.assertEqual(Answer(client.value()).status, 200)


class AnswerTests(RuledCase):
    """Answers without forwarding."""

    def test_status(self) -> None:
        """The body is what the rules say, else their default, else the proxy's own words."""
        for then, expected in [
            ({}, b"Forbidden\n"),
            ({"set_output_default_body": "default"}, b"default"),
            ({"set_output_default_body": "default", "set_output_body": "own"}, b"own"),
        ]:
            rig = self.rig({"set_status_code": 403, "set_output_header": {"X-Own": "1"}} | then)
            answer = Answer(rig.request().value())
            self.assertEqual((answer.status, answer.body, answer.header("X-Own")), (403, expected, "1"))
            self.assertEqual(answer.header("Content-Length"), str(len(expected)))
            self.assertEqual(rig.connections, 0)

    def test_nobodys_queue(self) -> None:
        """What is routed to the queue "null" is answered 404, unless a later rule routes it on."""
        null = Rule(then=Then(set_redis_queue="null", set_output_header={"X-Own": "1"}))
        onward = Rule(when=When(path="/on"), then=Then(set_redis_queue="app"))
        for then in (
            null,
            Rule(then=Then(set_redis_queue=lambda _: "null", set_output_header={"X-Own": "1"})),
        ):
            rig = self.rig(then, onward)
            answer = Answer(rig.request().value())
            self.assertEqual((answer.status, answer.header("X-Own")), (404, "1"))
            self.assertEqual(rig.connections, 0)
            rig.request(b"GET /on HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertEqual(rig.connections, 1)
            rig.accept()

    def test_later_rules(self) -> None:
        """All rules are asked before it is answered, and those on the way out see the answer."""

        async def custom_output(exchange: Exchange) -> None:
            body = await exchange.response.read_body()
            exchange.response.headers["X-Seen"] = f"{exchange.response.status_code} {body!r}"
            exchange.response.status_code = 404

        rig = self.rig({"set_status_code": 403}, {"custom_output": custom_output})
        answer = Answer(rig.request().value())
        self.assertEqual(
            (answer.line, answer.header("X-Seen")), (b"HTTP/1.1 404 Not Found", "403 b'Forbidden\\n'")
        )

    def test_redirect(self) -> None:
        """A redirect is a status and a header."""
        rig = self.rig({"set_status_code": 308, "set_output_header": {"Location": "https://h/"}})
        answer = Answer(rig.request(post()).value())
        self.assertEqual((answer.status, answer.header("Location")), (308, "https://h/"))

    def test_no_content(self) -> None:
        """A status without body has none, whatever the rules say."""
        for status in (204, 304):
            rig = self.rig({"set_status_code": status, "set_output_body": "new"})
            client = rig.request(GET + GET)
            self.assertEqual(client.value().count(b"HTTP/1.1 %d" % status), 2)
            self.assertNotIn(b"new", client.value())
            self.assertIsNone(Answer(client.value().partition(b"\r\n\r\n")[0]).header("Content-Length"))

    def test_head(self) -> None:
        """The answer to HEAD has the length of the body that it does not have."""
        rig = self.rig({"set_status_code": 403, "set_output_body": "new"})
        answer = Answer(rig.request(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").value())
        self.assertEqual((answer.header("Content-Length"), answer.body), ("3", b""))

    def test_asked_by_functions(self) -> None:
        """Functions of every kind can say so."""
        for kind in KINDS:
            rig = self.rig({"set_status_code": kind(lambda _: 403), "set_output_body": kind(lambda _: "new")})
            answer = Answer(rig.request().value())
            self.assertEqual((answer.status, answer.body), (403, b"new"))


class ErrorTests(RuledCase):
    """The proxy's own answers to what goes wrong behind the rules."""

    def test_headers(self) -> None:
        """Rules that matched set, add and delete headers, but for those that are about the error and its words."""
        rig = self.rig(
            Rule(when=When(path="/other"), then=Then(set_output_header={"X-Other": "1"})),
            {
                "set_output_header": {
                    "X-Set": "1",
                    "Retry-After": "0",
                    "Cache-Control": "max-age=1",
                    "Content-Type": "text/html",
                },
                "add_output_header": {"X-Set": "2"},
                "del_output_header": ["X-Gone"],
            },
            {"del_output_header": ["Retry-After", "X-Set"], "set_output_header": {"X": "3"}},
            queue=Queue(max_waiting=0),
        )
        working = rig.request()
        answer = Answer(rig.request().value())
        self.assertEqual((answer.status, answer.header("X"), answer.header("X-Set")), (503, "3", None))
        self.assertIsNone(answer.header("X-Other"))
        self.assertIn("error=connection_limit_reached", answer.header("Proxy-Status") or "")
        self.assertGreaterEqual(int(answer.header("Retry-After") or 0), 1)
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertEqual(answer.header("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(answer.header("Content-Length"), str(len(answer.body)))
        rig.refuse(ConnectionRefusedError())
        answer = Answer(working.value())
        self.assertEqual((answer.status, answer.header("X")), (502, "3"))

    def test_body(self) -> None:
        """A default body takes the place of the proxy's words, of the type that a rule says; another body does not."""
        page = {"set_output_default_body": "<p>Soon.", "set_output_header": {"Content-Type": "text/html"}}
        for then, expected, content_type in [
            (page, b"<p>Soon.", "text/html"),
            ({"set_output_default_body": "Soon."}, b"Soon.", "text/plain; charset=utf-8"),
            ({"set_output_body": "own", **page}, b"<p>Soon.", "text/html"),
        ]:
            for accept in (b"text/plain", b"application/json"):
                rig = self.rig(then)
                client = rig.request(b"GET / HTTP/1.1\r\nHost: h\r\nAccept: " + accept + b"\r\n\r\n")
                rig.refuse(ConnectionRefusedError())
                answer = Answer(client.value())
                self.assertEqual((answer.status, answer.body), (502, expected))
                self.assertEqual(answer.header("Content-Type"), content_type)
                self.assertEqual(answer.header("Content-Length"), str(len(expected)))
        rig = self.rig({"set_output_body": "own"})
        client = rig.request()
        rig.refuse(ConnectionRefusedError())
        self.assertNotIn(b"own", client.value())

    def test_head(self) -> None:
        """The answer to HEAD has the length of the body that it does not have, whatever method the backend sees."""
        for method in ("GET", "HEAD"):
            rig = self.rig({"set_method": method, "set_output_default_body": "Soon."})
            client = rig.request(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
            rig.refuse(ConnectionRefusedError())
            answer = Answer(client.value())
            self.assertEqual((answer.status, answer.header("Content-Length"), answer.body), (502, "5", b""))

    def test_functions(self) -> None:
        """Functions are not called, and what they have said of a response that never came is not said."""
        called: list[object] = []

        def early(exchange: Exchange) -> None:
            exchange.response.headers["X-Early"] = "1"
            exchange.response.default_body = "early"

        rig = self.rig(
            {
                "custom_input": early,
                "custom_output": called.append,
                "set_output_header": called.append,
                "add_output_header": {"X": "1"},
            }
        )
        client = rig.request()
        rig.refuse(ConnectionRefusedError())
        answer = Answer(client.value())
        self.assertEqual((answer.status, answer.header("X"), answer.header("X-Early")), (502, "1", None))
        self.assertEqual(called, [])
        self.assertNotEqual(answer.body, b"early")

    def test_behind_the_response(self) -> None:
        """Where it goes wrong when the response is there already, nothing of that is in the answer."""

        async def read(exchange: Exchange) -> None:
            exchange.response.status_code = 404
            exchange.response.headers["X-Set"] = "1"
            await exchange.response.read_body()

        rig = self.rig({"custom_output": read, "set_output_header": {"X": "1"}})
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nX-Theirs: 1\r\nContent-Length: 9\r\n\r\nhalf")
        backend.lose()
        answer = Answer(client.value())
        self.assertEqual((answer.status, answer.header("X")), (502, "1"))
        self.assertEqual((answer.header("X-Theirs"), answer.header("X-Set")), (None, None))

    def test_rules_that_fail(self) -> None:
        """Where the rules themselves have failed on the way in, they say nothing of the answer."""
        rig = self.rig({"set_output_header": {"X": "1"}}, {"custom_input": breaking})
        client = rig.request()
        self.failed(client)
        self.assertIsNone(Answer(client.value()).header("X"))
        self.flushLoggedErrors(Broken)


class PlainErrorTests(ErrorTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class ResponseTests(RuledCase):
    """What the client gets of the backend's response."""

    def test_headers(self) -> None:
        """Headers are set, added and deleted, and the body is passed on as it comes."""
        for kind in KINDS:
            rig = self.rig(
                {
                    "set_output_header": kind(lambda exchange: ("X-Set", exchange.response.headers["X-A"])),
                    "add_output_header": kind(lambda exchange: {"X-A": ["2", "3"]}),
                    "del_output_header": kind(lambda exchange: "Server"),
                }
            )
            client = rig.request()
            backend = rig.accept()
            backend.receive(b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nServer: s\r\nContent-Length: 4\r\n\r\nab")
            answer = Answer(client.value())
            self.assertEqual((answer.line, answer.body), (b"HTTP/1.1 200 Fine", b"ab"))
            self.assertEqual(answer.headers.getRawHeaders("X-A"), ["1", "2", "3"])
            self.assertEqual((answer.header("X-Set"), answer.header("Server")), ("1", None))
            backend.receive(b"cd")
            self.assertTrue(client.value().endswith(b"abcd"))

    def test_body(self) -> None:
        """Another body is sent at once; the backend's is read and dropped, and its slot taken until it has ended."""
        for kind in KINDS:
            rig = self.rig({"set_output_body": kind(lambda _: "new")})
            client = rig.request()
            waiting = rig.request()
            backend = rig.accept()
            backend.receive(
                b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nth'
            )
            answer = Answer(client.value())
            self.assertEqual((answer.body, answer.header("Content-Length")), (b"new", "3"))
            self.assertEqual((answer.header("ETag"), answer.header("Content-Encoding")), (None, None))
            self.assertEqual(backend.value().count(b"GET /"), 1)
            backend.receive(b"eir")
            self.assertEqual(backend.value().count(b"GET /"), 2)
            backend.receive(OK)
            self.assertEqual(Answer(waiting.value()).body, b"new")

    def test_default_body(self) -> None:
        """The default body is for responses without one."""
        rig = self.rig({"set_output_default_body": "new"})
        for sent, expected in [(OK, b"ok"), (b"HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n", b"new")]:
            client = rig.request()
            backend = rig.backends[0] if rig.backends else rig.accept()
            backend.receive(sent)
            self.assertEqual(Answer(client.value()).body, expected)

    def test_unknown_length(self) -> None:
        """A body of which the length was not known beforehand can be replaced, too."""
        rig = self.rig({"set_output_body": "new"})
        client = rig.request()
        rig.accept().receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        answer = Answer(client.value())
        self.assertEqual((answer.header("Content-Length"), answer.body), ("3", b"new"))
        self.assertIsNone(answer.header("Transfer-Encoding"))

    def test_read(self) -> None:
        """A function may read the whole body; then it is sent on as it came, with what had come and what follows."""
        seen: list[bytes] = []

        async def look(exchange: Exchange) -> None:
            seen.append(await exchange.response.read_body())
            exchange.response.headers["X-Length"] = str(len(seen[-1]))

        rig = self.rig({"custom_output": look})
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        backend.receive(b"3\r\ncde\r\n")
        self.assertEqual((seen, client.value()), ([], b""))
        backend.receive(b"0\r\n\r\n")
        answer = Answer(client.value())
        self.assertEqual((seen, answer.header("X-Length")), ([b"abcde"], "5"))
        self.assertEqual(answer.body, b"5\r\nabcde\r\n0\r\n\r\n")

    def test_read_and_replaced(self) -> None:
        """So it can make another one of it."""

        async def shout(exchange: Exchange) -> bytes:
            return (await exchange.response.read_body()).upper()

        rig = self.rig({"set_output_body": shout})
        client = rig.request()
        rig.accept().receive(OK)
        self.assertEqual(Answer(client.value()).body, b"OK")

    def test_read_past_the_spool(self) -> None:
        """What is read is not held back for want of room for slow clients."""
        rig = self.rig(
            {"custom_output": lambda exchange: exchange.response.read_body()}, **one_slot(max_spool=0)
        )
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(10):
            self.assertNotEqual(backend.producerState, "paused")
            backend.receive(b"x" * 100_000)
        self.assertEqual(len(Answer(client.value()).body), 1_000_000)

    def test_read_too_much(self) -> None:
        """A body past 16 MiB is not read: one line in the log, 500, and the rest is dropped."""
        rig = self.rig(Rule(name="mine", then=Then(custom_output=lambda each: each.response.read_body())))  # type: ignore
        client = rig.request()
        backend = rig.accept()
        with capturedLogs() as events:
            backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
            for _ in range(17):
                backend.receive(b"x" * 1024 * 1024)
        self.failed(client)
        self.assertEqual([event.get("rule") for event in events if "rule" in event], ["mine"])
        self.assertNotIn("log_failure", events[-1])
        backend.receive(b"x" * (20_000_000 - 17 * 1024 * 1024))
        self.assertTrue(rig.gate.idle)

    def test_read_too_much_and_go_on(self) -> None:
        """A function that sees to it lets a long body pass as it comes."""

        async def look(exchange: Exchange) -> None:
            try:
                await exchange.response.read_body()
            except RuleFailed:
                exchange.response.headers["X-Long"] = "1"

        rig = self.rig({"custom_output": look})
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (18 * 1024 * 1024))
        for number in range(18):
            backend.receive(b"%c" % (65 + number) * 1024 * 1024)
        answer = Answer(client.value())
        self.assertEqual((answer.header("X-Long"), len(answer.body)), ("1", 18 * 1024 * 1024))
        self.assertEqual(answer.body[:: 1024 * 1024], b"ABCDEFGHIJKLMNOPQR")

    def test_read_when_it_is_too_long_already(self) -> None:
        """So it is with one that had come before a function asked for it."""
        asked: Deferred[None] = Deferred()

        async def look(exchange: Exchange) -> None:
            await asked
            await exchange.response.read_body()

        rig = self.rig({"custom_output": look})
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (17 * 1024 * 1024))
        for _ in range(17):
            backend.receive(b"x" * 1024 * 1024)
        asked.callback(None)
        self.failed(client)

    def test_read_twice(self) -> None:
        """A body can be read again, but not by two at a time."""

        async def look(exchange: Exchange) -> tuple[str, bytes]:
            first = exchange.response.read_body()
            try:
                exchange.response.read_body()
            except ValueError as error:
                exchange.response.headers["X-Why"] = str(error)
            await first
            return "X-Again", await exchange.response.read_body()

        rig = self.rig({"set_output_header": look})
        client = rig.request()
        rig.accept().receive(OK)
        answer = Answer(client.value())
        self.assertEqual((answer.header("X-Again"), answer.body), ("ok", b"ok"))
        self.assertIn("is being read already", answer.header("X-Why") or "")

    def test_read_and_cut(self) -> None:
        """If the backend cuts the body that is read the client is told 502, unless the function sees to it."""

        async def careful(exchange: Exchange) -> str | None:
            try:
                await exchange.response.read_body()
            except Exception:
                return "sorry"
            return None

        def careless(exchange: Exchange) -> Deferred[bytes]:
            return exchange.response.read_body()

        for function, status, body in [(careless, 502, None), (careful, 200, b"sorry")]:
            rig = self.rig({"set_output_body": function})
            client = rig.request()
            backend = rig.accept()
            backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
            backend.lose()
            answer = Answer(client.value())
            self.assertEqual(answer.status, status)
            if body is not None:
                self.assertEqual(answer.body, body)

    def test_read_and_not_awaited(self) -> None:
        """Who reads and does not wait for it holds nobody up."""
        rig = self.rig({"custom_output": lambda exchange: (exchange.response.read_body(), None)[1]})
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        self.assertEqual(Answer(client.value()).body, b"ab")
        backend.receive(b"cd")
        self.assertEqual(Answer(client.value()).body, b"abcd")

    def test_errors_are_the_proxys(self) -> None:
        """What the proxy says of its own accord is no rule's business."""
        rig = self.rig({"set_output_body": "new"})
        answer = Answer(rig.request(b"TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n").value())
        self.assertEqual(answer.header("Content-Type"), "message/http")


class MistakeTests(RuledCase):
    """Functions that fail."""

    def test_on_the_way_in(self) -> None:
        """The client is told, nothing is forwarded, and nothing is held."""
        for kind in KINDS:
            rig = self.rig({"custom_input": kind(breaking)})
            self.failed(rig.request(post()))
            self.assertEqual((rig.connections, rig.gate.idle), (0, True))
            self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)

    def test_on_the_way_out(self) -> None:
        """The client is told at once; the slot is taken until the backend has finished (promise 5)."""
        for kind in KINDS:
            rig = self.rig({"custom_output": kind(breaking)})
            client, _ = rig.request(), rig.request()
            backend = rig.accept()
            backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            self.failed(client)
            self.assertEqual(backend.value().count(b"GET /"), 1)
            backend.receive(b"cd")
            self.assertEqual(backend.value().count(b"GET /"), 2)
            backend.receive(OK)
            self.assertEqual(len(self.flushLoggedErrors(Broken)), 2)
            self.assertTrue(rig.gate.idle)

    def test_of_answers(self) -> None:
        """So it is where the proxy answers by itself."""
        rig = self.rig({"set_status_code": 403, "custom_output": breaking})
        self.failed(rig.request())
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)

    def test_too_long(self) -> None:
        """A function that takes longer than C{rule_timeout} has failed, on either way."""
        for name in ("custom_input", "custom_output"):
            rig = self.rig({name: lambda _: Deferred()}, rule_timeout=5.0)
            client = rig.request()
            if name == "custom_output":
                rig.accept().receive(OK)
            rig.clock.advance(4.9)
            self.assertEqual(client.value(), b"")
            rig.clock.advance(0.1)
            self.failed(client)
            self.assertTrue(rig.gate.idle)


class LeavingTests(RuledCase):
    """Clients that leave, and proxies that stop, while functions wait."""

    def make_slow(self, name: str, **settings: Any) -> tuple[Rig, list[str]]:
        """A proxy whose function waits, and what becomes of that."""
        cancelled: list[str] = []
        return self.rig({name: lambda _: Deferred(lambda _: cancelled.append(name))}, **settings), cancelled

    def test_on_the_way_in(self) -> None:
        """The function is cancelled, nothing is forwarded, and nothing is logged."""
        rig, cancelled = self.make_slow("custom_input")
        client = rig.request(post())
        with capturedLogs() as events:
            client.lose()
        self.assertEqual((cancelled, rig.connections, rig.gate.idle), (["custom_input"], 0, True))
        self.assertEqual(
            [event for event in events if event["log_level"].name in ("warn", "error", "critical")], []
        )

    def test_on_the_way_out(self) -> None:
        """The function is cancelled, and the slot is taken until the backend has finished."""
        rig, cancelled = self.make_slow("custom_output")
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        with capturedLogs() as events:
            client.lose()
        self.assertEqual(cancelled, ["custom_output"])
        self.assertFalse(rig.gate.idle)
        backend.receive(b"cd")
        self.assertTrue(rig.gate.idle)
        self.assertEqual(
            [event for event in events if event["log_level"].name in ("warn", "error", "critical")], []
        )

    def test_while_it_reads(self) -> None:
        """So it is while a function reads the body."""
        rig = self.rig({"custom_output": lambda exchange: exchange.response.read_body()})
        client = rig.request()
        backend = rig.accept()
        backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        client.lose()
        backend.receive(b"cd")
        self.assertTrue(rig.gate.idle)

    def test_function_that_goes_on(self) -> None:
        """A function that takes no notice, and changes the exchange later, changes nothing."""
        shield: Deferred[None] = Deferred()

        def goes_on(exchange: Exchange) -> Deferred[None]:
            waiting: Deferred[None] = Deferred(lambda _: None)
            waiting.addErrback(lambda _: shield).addCallback(lambda _: exchange.set_input_body("new"))
            return waiting

        rig = self.rig({"custom_input": goes_on})
        client = rig.request(post())
        client.lose()
        shield.callback(None)
        self.assertEqual((rig.connections, rig.gate.idle), (0, True))

    def test_stopped_on_the_way_in(self) -> None:
        """Who is not admitted yet is told at once that the proxy stops."""
        rig, cancelled = self.make_slow("custom_input")
        client = rig.request()
        rig.resource.stop()
        self.assertEqual((cancelled, Answer(client.value()).status), (["custom_input"], 503))
        self.assertIsNotNone(Answer(client.value()).header("Retry-After"))
        self.assertEqual(Answer(rig.request().value()).status, 503)

    def test_stopped_on_the_way_out(self) -> None:
        """Who has a response has the time to stop, then is cut off, and the function cancelled."""
        rig, cancelled = self.make_slow("custom_output")
        client = rig.request()
        rig.accept().receive(OK)
        rig.resource.stop()
        self.assertEqual((cancelled, client.value()), ([], b""))
        rig.resource.cut_off()
        rig.clock.advance(0)
        self.assertEqual((cancelled, client.value()), (["custom_output"], b""))

    def test_nobody_else_waits(self) -> None:
        """While functions wait for one exchange the others go on."""
        slow: Deferred[None] = Deferred()
        then = Then(custom_input=lambda _: slow)  # type: ignore[arg-type]
        rig = self.rig(Rule(when=When(path="/slow"), then=then))
        client = rig.request(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        other = rig.request()
        backend = rig.accept()
        backend.receive(OK)
        self.assertEqual((Answer(other.value()).body, client.value()), (b"ok", b""))
        slow.callback(None)
        backend.receive(OK)
        self.assertEqual(Answer(client.value()).body, b"ok")


class PlainRequestTests(RequestTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class PlainAnswerTests(AnswerTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class PlainResponseTests(ResponseTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class PlainMistakeTests(MistakeTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class Service:
    """
    A service that says who may pass: each question waits for the test's word.

    @ivar knows: everybody may, at once.
    """

    headers = own = frozenset[bytes]()

    def __init__(self, knows: bool = False) -> None:
        self.knows = knows
        self.asked: list[tuple[Exchange, Deferred[None]]] = []
        self.cancelled = 0

    def check(self, exchange: Exchange) -> Deferred[None]:
        if self.knows:
            return succeed(None)
        self.asked.append((exchange, Deferred(self._cancel)))
        return self.asked[-1][1]

    def close(self) -> Deferred[None]:
        """There is nothing to close."""
        return succeed(None)

    def deny(self) -> None:
        """The last exchange may not pass."""
        exchange, asked = self.asked[-1]
        exchange.answer = ResponseHead(401, b"No", Headers({"Content-Length": ["3"]}), 3), b"no\n"
        asked.callback(None)

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class TimingTests(RuledCase):
    """What clients are told of the time that rules take."""

    def timing(self, client: Wire) -> str | None:
        """What C{Server-Timing} says."""
        return Answer(client.value()).header("Server-Timing")

    def test_both_ways(self) -> None:
        """The waiting of functions, before the gate and after the backend's head, is theirs: neither the queue's nor
        the backend's."""
        waiting: list[Deferred[None]] = []

        def wait(_: Exchange) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        rig = self.rig({"custom_input": wait, "custom_output": wait})
        first, second = rig.request(), rig.request()
        rig.clock.advance(0.25)
        waiting[0].callback(None)
        waiting[1].callback(None)
        backend = rig.accept()
        rig.clock.advance(0.5)
        backend.receive(OK)
        rig.clock.advance(2)
        waiting[2].callback(None)
        self.assertEqual(self.timing(first), "rules;dur=2250.0, queue;dur=0.0, backend;dur=500.0")
        rig.clock.advance(1)
        backend.receive(OK)
        waiting[3].callback(None)
        self.assertEqual(self.timing(second), "rules;dur=250.0, queue;dur=500.0, backend;dur=3000.0")

    def test_failing(self) -> None:
        """So it is where a function, or the time for it, has failed: that was no waiting in a queue."""
        waiting: Deferred[None] = Deferred()
        rig = self.rig({"custom_input": lambda _: waiting})
        client = rig.request()
        rig.clock.advance(0.5)
        waiting.errback(Broken())
        self.flushLoggedErrors(Broken)
        self.assertEqual(self.timing(client), "rules;dur=500.0, queue;dur=0.0")

    def test_at_once(self) -> None:
        """Where nobody was waited for nothing is said of rules."""
        rig = self.rig({"custom_input": lambda _: None, "custom_output": lambda _: succeed(None)})
        client = rig.request()
        rig.accept().receive(OK)
        self.assertEqual(self.timing(client), "queue;dur=0.0, backend;dur=0.0")

    def test_silence(self) -> None:
        """It is switched off for these, too."""
        waiting: Deferred[None] = Deferred()
        rig = self.rig({"custom_input": lambda _: waiting}, server_timing=False)
        client = rig.request()
        waiting.callback(None)
        rig.accept().receive(OK)
        self.assertIsNone(self.timing(client))


class PlainTimingTests(TimingTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class ExpectTests(RuledCase):
    """Clients that ask leave to send their request's body."""

    EXPECTING = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

    def asking(self, *then: dict[str, Any], **settings: Any) -> tuple[Rig, Service]:
        """A proxy that asks a service."""
        service = Service()
        auth = {"who": Auth(url="http://127.0.0.1:1/")}
        return self.rig(
            {"auth": "who"}, *then, authenticators={"who": service}, auth=auth, **settings
        ), service

    def test_passes(self) -> None:
        """The service is asked before the body comes, once; then the body is forwarded, as the rules have said."""
        rig, service = self.asking({"set_input_header": {"X-Via": "1"}})
        client = rig.request(self.EXPECTING)
        self.assertEqual(client.value(), b"")
        service.asked[0][1].callback(None)
        self.assertEqual(client.value(), self.CONTINUE)
        client.receive(b"abc")
        lines, body = head_and_body(rig.accept())
        self.assertEqual((body, lines.count(b"X-Via: 1"), lines.count(b"Content-Length: 3")), (b"abc", 1, 1))
        self.assertEqual(len(service.asked), 1)

    def test_chunks(self) -> None:
        """So it is with a body in chunks, be it empty."""
        for chunks, expected in ((b"3\r\nabc\r\n0\r\n\r\n", b"abc"), (b"0\r\n\r\n", b"")):
            rig, service = self.asking()
            client = rig.request(
                b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            service.asked[0][1].callback(None)
            client.receive(chunks)
            lines, body = head_and_body(rig.accept())
            self.assertEqual((body, lines.count(b"Content-Length: %d" % len(expected))), (expected, 1), lines)

    def test_other_body(self) -> None:
        """A rule's body takes the place of the one that comes."""
        rig, service = self.asking({"set_input_body": "new body"})
        client = rig.request(self.EXPECTING)
        service.asked[0][1].callback(None)
        client.receive(b"abc")
        lines, body = head_and_body(rig.accept())
        self.assertEqual((body, lines.count(b"Content-Length: 8")), (b"new body", 1))

    def test_denied(self) -> None:
        """Who may not pass is told so, and not asked for the body."""
        rig, service = self.asking()
        client = rig.request(self.EXPECTING)
        service.deny()
        answer = Answer(client.value())
        self.assertEqual((answer.status, answer.body, answer.header("Connection")), (401, b"no\n", "close"))
        self.assertEqual((len(service.asked), rig.connections), (1, 0))

    def test_unanswered(self) -> None:
        """If the service does not answer, nobody is asked twice."""
        rig, service = self.asking()
        client = rig.request(self.EXPECTING)
        service.asked[0][1].errback(AuthFailed("No answer."))
        self.assertEqual((Answer(client.value()).status, len(service.asked)), (502, 1))

    def test_already_known(self) -> None:
        """If the service's word is there at once, so is the answer."""
        rig, service = self.asking()
        service.knows = True
        self.assertEqual(rig.request(self.EXPECTING).value(), self.CONTINUE)

    def test_impatient(self) -> None:
        """A client that sends its body all the same is read to a bound, and its body is forwarded whole."""
        rig, service = self.asking()
        body = b"x" * 100_000
        client = rig.request(self.EXPECTING.replace(b"3", b"100000"))
        for start in range(0, len(body), 10_000):
            if client.producerState == "paused":
                break
            client.receive(body[start : start + 10_000])
        self.assertEqual(client.producerState, "paused")
        service.asked[0][1].callback(None)
        self.assertEqual((client.producerState, client.value()), ("producing", b""))
        client.receive(body[start:])
        self.assertEqual(len(head_and_body(rig.accept())[1]), 100_000)

    def test_leaving(self) -> None:
        """A client that leaves meanwhile is asked about no more."""
        rig, service = self.asking()
        client = rig.request(self.EXPECTING)
        with capturedLogs() as events:
            client.lose()
        self.assertEqual((service.cancelled, rig.connections), (1, 0))
        self.assertEqual([event for event in events if event["log_level"].name in ("error", "critical")], [])

    def test_stopped(self) -> None:
        """A proxy that stops asks no more, and says so."""
        rig, service = self.asking()
        client = rig.request(self.EXPECTING)
        rig.site.stop()  # type: ignore[attr-defined]
        answer = Answer(client.value())
        self.assertEqual((service.cancelled, answer.status, answer.header("Connection")), (1, 503, "close"))

    def test_mistaken(self) -> None:
        """What cannot be forwarded for want of sense needs no body either."""
        rig = self.rig({})
        wrong = b"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        self.assertEqual(Answer(rig.request(wrong).value()).status, 400)

    def test_functions(self) -> None:
        """Functions may want the body: they are called when it is there, once."""
        seen: list[bytes] = []
        look: Callable[[Exchange], None] = lambda exchange: seen.append(exchange.request.body)  # noqa: E731
        rig = self.rig({"custom_input": look})
        client = rig.request(self.EXPECTING)
        self.assertEqual((client.value(), seen), (self.CONTINUE, []))
        client.receive(b"abc")
        self.assertEqual(seen, [b"abc"])
        rig.accept()

    def test_status(self) -> None:
        """A rule's answer needs no body, and its output is applied."""
        for then, status in (({"set_status_code": 403}, 403), ({"set_redis_queue": "null"}, 404)):
            rig = self.rig(then | {"set_output_body": "new"})  # type: ignore[operator]
            answer = Answer(rig.request(self.EXPECTING).value())
            self.assertEqual((answer.status, answer.body), (status, b"new"))

    def test_resource_that_fails(self) -> None:
        """A resource of another program's that cannot say whether it wants the body is not given the request."""

        class Failing(Resource):
            isLeaf = True

            def wants_body(self, request: object) -> Deferred[bool]:
                return fail(Broken())

            def render(self, request: object) -> bytes:
                raise AssertionError("it was not to be asked")

        rig = self.rig(mount=lambda resource: Failing())
        answer = Answer(rig.request(self.EXPECTING).value())
        self.assertEqual((answer.status, answer.header("Connection")), (500, "close"))
