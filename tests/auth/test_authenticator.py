"""Tests for L{thrtwisted.auth.authenticator} and L{thrtwisted.auth.question}: a real gate and forwarder, in memory."""

from __future__ import annotations

import errno
import re
import sys
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectionLost, ConnectionRefusedError

from tests.auth.support import NO, YES, AuthCase, exchange, header
from tests.forward.support import Wire
from thrtwisted.auth.authenticator import LONGEST_KEPT, QUIET
from thrtwisted.auth.question import LONGEST_BODY
from thrtwisted.errors import AuthFailed, BadRequest, GateUnavailable, QueueFull, QueueTimeout, RuleFailed
from thrtwisted.exchange import Exchange
from thrtwisted.gate import Counter, Ticket


def failing(exchange: Exchange) -> str:
    """A user's function with a mistake."""
    raise ZeroDivisionError


def leaving(exchange: Exchange) -> str:
    sys.exit("a function is no program")


def with_status(status: int, *fields: bytes, body: bytes = b"body") -> bytes:
    """An answer."""
    lines = [b"HTTP/1.1 %d Said" % status, *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


class QuestionTests(AuthCase):
    """What the service is asked."""

    def test_request(self) -> None:
        """It is a GET without a body, with the service's own Host and what the configuration names."""
        authenticator = self.make(url="http://127.0.0.1:7000/auth?realm=x", send_headers=["X-Key"])
        asked = exchange(
            b"POST",
            b"/a?b",
            X_Key="1",
            Cookie="a=b",
            Host="app",
            Content_Length="3",
            X_Forwarded_For="192.0.2.1",
        )
        authenticator.check(asked).addErrback(lambda _: None)
        line, *fields = self.accept().value().split(b"\r\n")
        self.assertEqual(line, b"GET /auth?realm=x HTTP/1.1")
        self.assertEqual(
            sorted(fields),
            [
                b"",
                b"",
                b"Host: 127.0.0.1:7000",
                b"Via: 1.1 thrtwisted",
                b"X-Forwarded-For: 192.0.2.1",
                b"X-Forwarded-Method: POST",
                b"X-Forwarded-Uri: /a?b",
                b"X-Key: 1",
            ],
        )

    def test_unix(self) -> None:
        """A service behind a unix socket is asked for its root."""
        self.make(url="unix:///run/auth.sock").check(exchange()).addErrback(lambda _: None)
        [(path, factory, *_)] = self.clock.unixClients
        self.assertEqual(path, "/run/auth.sock")
        self.wires.append(Wire(self.clock, factory.buildProtocol(None)))
        self.assertTrue(self.wires[0].value().startswith(b"GET / HTTP/1.1\r\n"))
        self.assertIn(b"Host: localhost\r\n", self.wires[0].value())

    def test_kept_connection(self) -> None:
        """A connection is used for one question after the other."""
        authenticator = self.make()
        wire = None
        for _ in range(3):
            checked = authenticator.check(exchange())
            wire = wire or self.accept()
            wire.receive(YES)
            self.successResultOf(checked)
        self.assertEqual(self.connections, 1)
        self.assertEqual(authenticator.counts.asked, 3)

    def test_refused_configuration(self) -> None:
        """A configuration that cannot be used is refused."""
        for wrong in (
            {"url": "nowhere"},
            {"send_headers": ["Host"]},
            {"copy_headers": ["Content-Length"]},
            {"cache_by": ["nothing"]},
        ):
            self.assertRaises(ValueError, self.make, **wrong)

    def test_names(self) -> None:
        """It tells which headers its word hangs on, and shows itself in a debugger."""
        authenticator = self.make(
            send_headers=["X-Key", "x-key"],
            copy_headers=["X-User", "X-Key"],
            cache_by=["header:X-More", "path"],
        )
        self.assertEqual(authenticator.headers, {b"x-key", b"x-user", b"x-more"})
        self.assertEqual(authenticator.own, {b"x-user"})
        self.assertIn("main", repr(authenticator))


class AnswerTests(AuthCase):
    """What becomes of an exchange."""

    def test_passes(self) -> None:
        """It passes, with what the service says in place of what its client says."""
        for status in (200, 204, 299):
            for spoofed in ({}, {"X_User": "root"}, {"x_uSER": "root"}):
                answer = b"HTTP/1.1 %d OK\r\nX-User: ann\r\nX-User: beth\r\nX-Other: 1\r\n" % status
                framing = b"\r\n" if status == 204 else b"Content-Length: 0\r\n\r\n"
                asked = self.check_one(self.make(), answer + framing, X_Other="own", **spoofed)
                self.assertEqual(header(asked, "X-User"), ["ann", "beth"])
                self.assertEqual(header(asked, "X-Other"), ["own"])
                self.assertIsNone(getattr(asked, "answer", None))

    def test_absent(self) -> None:
        """A header that the service does not set is not there, whatever the client says."""
        asked = self.check_one(self.make(), with_status(200), X_User="root")
        self.assertIsNone(header(asked, "X-User"))

    def test_sent_and_copied(self) -> None:
        """A header may be sent to the service, which sets it anew."""
        authenticator = self.make(send_headers=["Authorization"], copy_headers=["Authorization"])
        asked = exchange(Authorization="Basic x")
        checked = authenticator.check(asked)
        wire = self.accept()
        self.assertIn(b"Authorization: Basic x\r\n", wire.value())
        wire.receive(with_status(200, b"Authorization: Bearer y"))
        self.successResultOf(checked)
        self.assertEqual(header(asked, "Authorization"), ["Bearer y"])

    def test_denied(self) -> None:
        """401, 403 and redirects are the client's, with their headers but for those of the connection."""
        for status in (301, 302, 303, 307, 308, 401, 403):
            fields = (
                b"Location: /login",
                b"Set-Cookie: a=1",
                b"Set-Cookie: b=2",
                b"Keep-Alive: 5",
                b"X-User: ann",
            )
            authenticator = self.make()
            asked = self.check_one(authenticator, with_status(status, *fields), X_User="root")
            assert asked.answer is not None
            head, body = asked.answer
            self.assertEqual((head.status, head.phrase, head.length, body), (status, b"Said", 4, b"body"))
            self.assertEqual(head.headers.getRawHeaders("Set-Cookie"), ["a=1", "b=2"])
            self.assertEqual(head.headers.getRawHeaders("Location"), ["/login"])
            self.assertEqual(head.headers.getRawHeaders("Content-Length"), ["4"])
            [marked] = head.headers.getRawHeaders("Proxy-Status", [])
            self.assertTrue(marked.startswith("thrtwisted; details="), marked)
            self.assertFalse(head.headers.hasHeader("Keep-Alive"))
            self.assertIsNone(header(asked, "X-User"))
            self.assertEqual(authenticator.counts.denied, 1)

    def test_denied_in_chunks(self) -> None:
        """An answer in chunks becomes one with a length."""
        head_only = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
        data = head_only + b"2\r\nno\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n"
        asked = self.check_one(self.make(), data)
        assert asked.answer is not None
        head, body = asked.answer
        self.assertEqual((head.length, body), (3, b"no!"))
        self.assertEqual(head.headers.getRawHeaders("Content-Length"), ["3"])
        self.assertFalse(head.headers.hasHeader("Transfer-Encoding"))
        self.assertFalse(head.headers.hasHeader("X"))

    def test_until_the_end(self) -> None:
        """An answer that ends with its connection is read to that end; nothing is decided before."""
        asked = exchange()
        checked = self.make().check(asked)
        wire = self.accept()
        wire.receive(b"HTTP/1.0 200 OK\r\nX-User: ann\r\n\r\nsome")
        self.assertNoResult(checked)
        self.assertIsNone(header(asked, "X-User"))
        wire.lose()
        self.successResultOf(checked)
        self.assertEqual(header(asked, "X-User"), ["ann"])


class FailureTests(AuthCase):
    """There is no answer that could be used."""

    def failed(self, checked: Any) -> None:
        """The client is told of a 502 that names no place."""
        error = self.failureResultOf(checked, AuthFailed).value
        self.assertEqual(error.status, 502)
        self.assertNotIn("127", str(error))

    def test_statuses(self) -> None:
        """Whatever is not meant for a client is no answer."""
        for status in (300, 304, 305, 400, 404, 407, 429, 500, 503, 599):
            authenticator = self.make()
            asked = exchange(X_User="root")
            checked = authenticator.check(asked)
            self.answer(with_status(status, b"X-User: ann"))
            self.failed(checked)
            self.assertIsNone(header(asked, "X-User"))
            self.assertEqual(authenticator.counts.failed, 1)
        self.assertIn("it answers 599; requests are answered 502", self.said[-1])

    def test_unusable(self) -> None:
        """Garbage, half an answer or two answers in one are no answer, and what was read of it is not used."""
        for data, said in (
            (b"garbage\r\n\r\n", "is not an HTTP response"),
            (b"", "closed the connection"),
            (b"HTTP/1.1 200 OK\r\nX-User: ann\r\n", "closed the connection"),
            (b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 5\r\n\r\nhalf", "cut off"),
            (b"HTTP/1.1 200 OK\r\nX-User: ann\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf", "cut off"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "malformed"),
            (b"HTTP/1.1 200 OK\r\nX-User: a\0nn\r\nContent-Length: 0\r\n\r\n", "malformed"),
            (b"HTTP/1.1 101 Switching\r\n\r\n", "malformed"),
            (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000, "too large"),
        ):
            asked = exchange(X_User="root")
            checked = self.make().check(asked)
            self.answer(data)
            self.failed(checked)
            self.assertIsNone(header(asked, "X-User"))
            self.assertIn(said, self.said[-1])
            self.assertNotIn("backend", self.said[-1])

    def test_reset(self) -> None:
        """An answer without a length whose connection ends in disorder may be half of one."""
        checked = self.make().check(exchange())
        wire = self.accept()
        wire.receive(b"HTTP/1.0 200 OK\r\nX-User: ann\r\n\r\nsome")
        wire.lose(ConnectionLost())
        self.failed(checked)

    def test_too_large(self) -> None:
        """An answer with too long a body is broken off."""
        for size, is_denied in ((LONGEST_BODY, True), (LONGEST_BODY + 1, False), (LONGEST_BODY * 4, False)):
            asked = exchange()
            checked = self.make().check(asked)
            wire = self.accept()
            wire.receive(with_status(403, body=b"x" * size))
            if is_denied:
                self.successResultOf(checked)
                assert asked.answer is not None
                self.assertEqual(len(asked.answer[1]), size)
            else:
                self.failed(checked)
                self.assertTrue(wire.aborted)

    def test_endless(self) -> None:
        """So is one that has no end."""
        checked = self.make().check(exchange())
        wire = self.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(LONGEST_BODY // 1024 + 1):
            wire.receive(b"x" * 1024)
        self.failed(checked)
        self.assertTrue(wire.aborted)
        self.assertIn("larger than 64 KiB", self.said[-1])

    def test_refused(self) -> None:
        """A service that refuses gives no answer."""
        checked = self.make().check(exchange())
        self.refuse(ConnectionRefusedError())
        self.failed(checked)
        self.assertEqual(
            self.said,
            [
                "auth.main: http://127.0.0.1:7000 gives no answer that could be used: "
                "the service refuses connections; requests are answered 502"
            ],
        )

    def test_ours(self) -> None:
        """Where the proxy itself cannot open connections the log says so."""
        checked = self.make().check(exchange())
        self.refuse(ConnectError(osError=errno.EMFILE))
        self.failed(checked)
        self.assertIn("the proxy cannot open connections", self.said[0])
        self.assertIn("(mend: let it have more file descriptors", self.said[0])

    def test_timeout(self) -> None:
        """All of an answer has to be there in time: connecting, its head and its body together."""
        for data in (b"", b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 100\r\n\r\nsome"):
            asked = exchange()
            checked = self.make(timeout=2.0).check(asked)
            self.clock.advance(1)
            wire = self.accept()
            wire.receive(data) if data else None
            self.clock.advance(0.9)
            self.assertNoResult(checked)
            self.clock.advance(0.1)
            self.assertTrue(wire.aborted)
            self.failed(checked)
            self.assertIsNone(header(asked, "X-User"))
            self.assertIn("it does not answer in 2 s", self.said[-1])

    def test_connect_timeout(self) -> None:
        """A service that does not even accept the connection is one that does not answer."""
        checked = self.make(timeout=2.0).check(exchange())
        self.clock.advance(1.9)
        self.assertNoResult(checked)
        self.clock.advance(0.1)
        self.failed(checked)
        self.assertIn("the service did not accept the connection in time", self.said[-1])

    def test_allowed(self) -> None:
        """Where that is configured it passes then, without anything that its client says in the service's name."""
        authenticator = self.make(on_error="allow")
        asked = exchange(X_User="root")
        checked = authenticator.check(asked)
        self.answer(b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 5\r\n\r\nhalf")
        self.successResultOf(checked)
        self.assertIsNone(header(asked, "X-User"))
        self.assertEqual(authenticator.counts.failed, 1)
        self.assertIn("requests pass without its word", self.said[0])

    def test_bad_request(self) -> None:
        """A request that cannot be asked about is the client's fault, or a rule's, and is never allowed."""
        checked = self.make(on_error="allow").check(exchange(Authorization="a\0b"))
        self.failureResultOf(checked, BadRequest)
        self.assertEqual(self.said, [])

    def test_two_credentials(self) -> None:
        """Of two credentials the application could take others than the service: that is 400, and not asked."""
        for sent, expected in ((["authorization"], 0), (["X-Key"], 1)):
            asked = exchange(X_User="root")
            asked.headers.setRawHeaders("Authorization", ["Basic ann", "Basic bob"])
            authenticator = self.make(on_error="allow", send_headers=sent)
            checked = authenticator.check(asked)
            self.assertEqual(self.connections, expected)
            self.assertIsNone(header(asked, "X-User"))
            if expected:
                self.answer()
                self.successResultOf(checked)
            else:
                self.failureResultOf(checked, BadRequest)

    def test_log(self) -> None:
        """One line when it begins to fail, and one when it works again, however many requests there are."""
        authenticator = self.make()
        for _ in range(3):
            checked = authenticator.check(exchange())
            self.answer(with_status(500))
            self.failed(checked)
            self.clock.advance(QUIET)
        for _ in range(3):
            self.check_one(authenticator)
        self.assertEqual(
            [line.partition(" gives")[0] for line in self.said],
            ["auth.main: http://127.0.0.1:7000", "auth.main: http://127.0.0.1:7000 answers again"],
        )
        # It fails for every other request, as some do for what clients send.
        for lines in (4, 4, 4):
            checked = authenticator.check(exchange())
            self.answer(with_status(500))
            self.failed(checked)
            self.check_one(authenticator)
            self.assertEqual(len(self.said), lines)
        self.clock.advance(QUIET)
        checked = authenticator.check(exchange())
        self.answer(with_status(500))
        self.failed(checked)
        self.assertEqual(len(self.said), 5)


class LeavingTests(AuthCase):
    """A client leaves, or the proxy is stopped."""

    def test_while_connecting(self) -> None:
        """Nothing is asked for a client who has left."""
        checked = self.make().check(exchange())
        checked.cancel()
        self.failureResultOf(checked, CancelledError)
        self.assertEqual(self.said, [])
        [connector] = self.clock.connectors
        self.assertTrue(connector.stoppedConnecting)

    def test_while_asked(self) -> None:
        """A question that nobody waits for is broken off; the service is not to blame."""
        authenticator = self.make()
        checked = authenticator.check(exchange())
        wire = self.accept()
        checked.cancel()
        self.failureResultOf(checked, CancelledError)
        self.assertTrue(wire.aborted)
        self.assertEqual((self.said, authenticator.counts.failed), ([], 0))

    def test_while_read(self) -> None:
        """So is one whose answer has begun."""
        asked = exchange()
        checked = self.make().check(asked)
        wire = self.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 5\r\n\r\nha")
        checked.cancel()
        self.failureResultOf(checked, CancelledError)
        self.assertTrue(wire.aborted)
        self.assertIsNone(header(asked, "X-User"))

    def test_stopped(self) -> None:
        """When the proxy stops it answers 503 itself, whatever is configured, and nothing is said of the service."""
        authenticator = self.make(on_error="allow")
        checked = authenticator.check(exchange())
        self.accept()
        closed = authenticator.close()
        self.clock.advance(0)
        self.failureResultOf(checked, GateUnavailable)
        self.successResultOf(closed)
        self.failureResultOf(authenticator.check(exchange()), GateUnavailable)
        self.assertEqual((self.said, authenticator.counts.failed), ([], 0))


class CacheTests(AuthCase):
    """Answers are remembered."""

    def test_off(self) -> None:
        """Without a time nothing is remembered, nor are questions shared: each request has its own."""
        authenticator = self.make()
        checked = [authenticator.check(exchange()) for _ in range(2)]
        self.assertEqual(self.connections, 2)
        for _ in checked:
            self.answer()
        self.assertFalse(self.remembered(authenticator, exchange()))

    def test_passes(self) -> None:
        """An answer that lets pass holds for its time, with what it sets, whatever the next client says."""
        authenticator = self.make(cache=30.0)
        self.check_one(authenticator)
        for _ in range(2):
            asked = exchange(X_User="root")
            self.assertTrue(self.remembered(authenticator, asked))
            self.assertEqual(header(asked, "X-User"), ["ann"])
            asked.headers.setRawHeaders("X-User", ["changed"])  # by a rule
        self.clock.advance(29.9)
        self.assertTrue(self.remembered(authenticator, exchange()))
        self.clock.advance(0.1)
        self.assertFalse(self.remembered(authenticator, exchange()))
        self.assertEqual((authenticator.counts.asked, authenticator.counts.cached), (2, 3))

    def test_denied(self) -> None:
        """So do 401 and 403, each client with a head of its own; they tell their age."""
        for status in (401, 403):
            authenticator = self.make(cache=30.0)
            self.check_one(authenticator, with_status(status, b"WWW-Authenticate: Basic"))
            self.clock.advance(7)
            for _ in range(2):
                asked = exchange()
                self.assertTrue(self.remembered(authenticator, asked))
                assert asked.answer is not None
                head, body = asked.answer
                self.assertEqual((head.status, body), (status, b"body"))
                self.assertEqual(head.headers.getRawHeaders("Age"), ["7"])
                self.assertEqual(head.headers.getRawHeaders("Connection"), None)
                self.assertEqual(len(head.headers.getRawHeaders("Proxy-Status", [])), 1)
                head.headers.setRawHeaders("Connection", ["close"])  # as the channel may

    def test_not_remembered(self) -> None:
        """Redirects, failures, long pages, and what the service forbids, are not remembered."""
        for data in (
            with_status(302, b"Location: /login"),
            with_status(401, body=b"x" * (LONGEST_KEPT + 1)),
            with_status(200, b"Cache-Control: no-store"),
            with_status(200, b"Set-Cookie: a=b"),
            with_status(200, b"Cache-Control: max-age=0"),
        ):
            authenticator = self.make(cache=30.0)
            self.check_one(authenticator, data)
            self.assertFalse(self.remembered(authenticator, exchange()), data[:99])
        authenticator = self.make(cache=30.0)
        checked = authenticator.check(exchange())
        self.answer(with_status(500))
        self.failureResultOf(checked, AuthFailed)
        self.assertFalse(self.remembered(authenticator, exchange()))

    def test_shorter(self) -> None:
        """The service may say a shorter time."""
        authenticator = self.make(cache=30.0)
        self.check_one(authenticator, with_status(200, b"Cache-Control: max-age=5"))
        self.clock.advance(4.9)
        self.assertTrue(self.remembered(authenticator, exchange()))
        self.clock.advance(0.1)
        self.assertFalse(self.remembered(authenticator, exchange()))

    def test_since_the_question(self) -> None:
        """The time runs from the question on: the answer may be as old as that."""
        authenticator = self.make(cache=4.0)
        checked = authenticator.check(exchange())
        self.clock.advance(3)
        self.answer()
        self.successResultOf(checked)
        self.clock.advance(1)
        self.assertFalse(self.remembered(authenticator, exchange()))

    def test_key(self) -> None:
        """Requests that differ in any value of the headers that are sent, or of the keys, are asked about each."""
        authenticator = self.make(cache=30.0, send_headers=["X-A", "X-B"], cache_by=["method", "query:q"])

        def build(
            a: list[str] | None = None,
            b: list[str] | None = None,
            method: bytes = b"GET",
            target: bytes = b"/",
        ) -> Exchange:
            asked = exchange(method, target, X_Ignored=repr((a, b)))
            for name, values in (("X-A", a), ("X-B", b)):
                if values is not None:
                    asked.headers.setRawHeaders(name, values)
            return asked

        different: list[dict[str, Any]] = [
            {},
            {"a": [""]},
            {"a": ["", ""]},
            {"a": ["1"]},
            {"b": ["1"]},
            {"a": ["1", "2"]},
            {"a": ["1, 2"]},
            {"a": ["2", "1"]},
            {"a": ["1"], "b": ["2"]},
            {"a": ["1', '2"]},
            {"method": b"PUT"},
            {"target": b"/?q="},
            {"target": b"/?q=1"},
        ]
        for each in different:
            checked = authenticator.check(build(**each))
            self.assertNoResult(checked)
            self.answer()
            self.successResultOf(checked)
        for each in different:
            self.assertTrue(self.remembered(authenticator, build(**each)), each)
        self.assertTrue(self.remembered(authenticator, build(target=b"/elsewhere")))

    def test_told(self) -> None:
        """Where rules or a proxy before this one have changed the host or the client, the service is told others."""
        for key, field in (("host", "X-Forwarded-Host"), ("client", "X-Forwarded-For")):
            authenticator = self.make(cache=30.0, cache_by=[key])
            fields = {"Host": "h"}
            self.check_one(authenticator, **fields, **{field: "192.0.2.1"})
            self.assertTrue(self.remembered(authenticator, exchange(**fields, **{field: "192.0.2.1"})))
            self.assertFalse(self.remembered(authenticator, exchange(**fields, **{field: "192.0.2.2"})))

    def test_failing_key(self) -> None:
        """A key function that fails answers 500, and still takes away what the client says."""
        authenticator = self.make(cache=30.0, cache_by=[f"python:{__name__}:failing"])
        asked = exchange(X_User="root")
        self.failureResultOf(authenticator.check(asked), RuleFailed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(header(asked, "X-User"))
        self.assertEqual(self.connections, 0)

    def test_key_that_exits(self) -> None:
        """Nor does a key function end the exchange, or more, by sys.exit()."""
        authenticator = self.make(cache=30.0, cache_by=[f"python:{__name__}:leaving"])
        self.failureResultOf(authenticator.check(exchange()), RuleFailed)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_size(self) -> None:
        """So many are remembered."""
        authenticator = self.make(cache=30.0, cache_size=2)
        for user in "abc":
            self.check_one(authenticator, Authorization=user)
        self.assertFalse(self.remembered(authenticator, exchange(Authorization="a")))
        self.assertTrue(self.remembered(authenticator, exchange(Authorization="b")))
        self.assertTrue(self.remembered(authenticator, exchange(Authorization="c")))

    def test_shared(self) -> None:
        """Equal questions at the same time are asked once, and answer all."""
        authenticator = self.make(cache=30.0)
        exchanges = [exchange(X_User="root") for _ in range(3)]
        checked = [authenticator.check(each) for each in exchanges]
        other = authenticator.check(exchange(Authorization="other"))
        self.assertEqual(self.connections, 2)
        self.answer()
        for asked, each in zip(exchanges, checked, strict=True):
            self.successResultOf(each)
            self.assertEqual(header(asked, "X-User"), ["ann"])
        self.assertNoResult(other)
        self.answer()
        self.assertEqual((authenticator.counts.asked, authenticator.counts.shared), (2, 2))

    def test_shared_failure(self) -> None:
        """If it fails, it fails for all."""
        authenticator = self.make(cache=30.0)
        checked = [authenticator.check(exchange()) for _ in range(3)]
        self.refuse(ConnectionRefusedError())
        for each in checked:
            self.failureResultOf(each, AuthFailed)
        self.assertEqual((authenticator.counts.asked, authenticator.counts.failed), (1, 3))

    def test_not_shared(self) -> None:
        """
        What the service says of one alone is given to nobody else: they are asked about by themselves; and as these
        questions overlap, an answer to one could be older than another's, and is not remembered.
        """
        for said in (
            with_status(200, b"Cache-Control: no-store", b"X-User: bob"),
            with_status(200, b"Vary: X-Forwarded-Uri", b"X-User: bob"),
            with_status(401, b"Set-Cookie: session=bob"),
            with_status(302, b"Location: /login?state=bob"),
            with_status(414, b"X-User: bob"),
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            b"garbage",
        ):
            authenticator = self.make(cache=30.0)
            exchanges = [exchange(target=target) for target in (b"/allowed", b"/b", b"/c")]
            first, *others = [authenticator.check(each) for each in exchanges]
            before = self.connections
            self.answer(said.replace(b"Said\r\n", b"Said\r\nConnection: close\r\n"))
            first.addErrback(lambda failure: failure.trap(AuthFailed))
            self.assertTrue(first.called)
            self.assertEqual(self.connections, before + 2)
            for wanted, asked, each in zip((b"/b", b"/c"), exchanges[1:], others, strict=True):
                self.assertNoResult(each)
                wire = self.accept()
                self.assertIn(b"X-Forwarded-Uri: %b\r\n" % wanted, wire.value())
                wire.receive(YES)
                wire.lose()
                self.successResultOf(each)
                self.assertIsNone(asked.answer)
                self.assertEqual(header(asked, "X-User"), ["ann"])
            self.assertFalse(self.remembered(authenticator, exchange()))

    def test_not_shared_and_left(self) -> None:
        """Who leaves while he is asked about by himself is asked about no more."""
        authenticator = self.make(cache=30.0)
        first, second = [authenticator.check(exchange()) for _ in range(2)]
        self.answer(with_status(302, b"Connection: close"))
        self.successResultOf(first)
        wire = self.accept()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertTrue(wire.aborted)

    def test_not_shared_and_stopped(self) -> None:
        """Nobody is asked about by himself when the proxy stops."""
        authenticator = self.make(cache=30.0)
        checked = [authenticator.check(exchange()) for _ in range(2)]
        wire = self.accept()
        authenticator.close()
        wire.lose()
        for each in checked:
            self.failureResultOf(each, GateUnavailable)
        self.assertEqual(self.connections, 1)

    def test_shared_first_leaves(self) -> None:
        """It goes on for the others when the one who asked first leaves; and ends with the last."""
        authenticator = self.make(cache=30.0)
        checked = [authenticator.check(exchange()) for _ in range(3)]
        wire = self.accept()
        checked[0].cancel()
        self.failureResultOf(checked[0], CancelledError)
        wire.receive(YES)
        for each in checked[1:]:
            self.successResultOf(each)
        self.clock.advance(31)
        checked = [authenticator.check(exchange()) for _ in range(2)]
        for each in checked:
            self.assertFalse(wire.aborted)
            each.cancel()
            self.failureResultOf(each, CancelledError)

    def test_newer_answer(self) -> None:
        """What the service says later counts: an answer that may not be remembered ends one that was."""
        authenticator = self.make(cache=30.0)
        first = exchange()
        self.check_one(authenticator, with_status(200, b"Cache-Control: max-age=1"))
        self.clock.advance(1)
        checked = authenticator.check(first)
        self.answer(with_status(403, b"Cache-Control: no-store"))
        self.successResultOf(checked)
        self.assertFalse(self.remembered(authenticator, exchange()))


class LimitTests(AuthCase):
    """Questions are limited by the gate."""

    def test_slots(self) -> None:
        """So many questions are asked at once; the next one when the service has finished with one."""
        authenticator = self.make(max_concurrent=2)
        checked = [authenticator.check(exchange()) for _ in range(3)]
        self.assertEqual(self.connections, 2)
        first, second = self.accept(), self.accept()
        second.receive(YES)
        self.successResultOf(checked[1])
        self.assertEqual(second.value().count(b"GET "), 2)
        first.receive(YES)
        self.assertNoResult(checked[2])
        second.receive(YES)
        self.successResultOf(checked[2])
        self.assertEqual(self.connections, 2)

    def test_priority(self) -> None:
        """The best exchange is asked about first."""
        authenticator = self.make(max_concurrent=1, send_headers=["X-Number"])
        for priority in (50, 50, 10):
            authenticator.check(exchange(priority=priority, X_Number=str(priority))).addErrback(
                lambda _: None
            )
        wire = self.accept()
        for _ in range(2):
            wire.receive(YES)
        self.assertEqual(re.findall(rb"X-Number: (\d+)", wire.value()), [b"50", b"10", b"50"])

    def test_waits_too_long(self) -> None:
        """A question that waits too long for its turn is 503, as a request is; the service is not to blame."""
        authenticator = self.make(max_concurrent=0, on_error="allow")
        asked = exchange(X_User="root")
        checked = authenticator.check(asked)
        self.clock.advance(20)
        self.failureResultOf(checked, QueueTimeout)
        self.assertIsNone(header(asked, "X-User"))
        self.assertEqual((self.said, authenticator.counts.failed), ([], 0))

    def test_too_many_wait(self) -> None:
        """So many questions wait, and no more, whatever else the queue has room for; those are answered 503."""
        authenticator = self.make(max_concurrent=1, max_waiting=1, on_error="allow")
        checked = [authenticator.check(exchange()) for _ in range(3)]
        self.assertEqual(self.failureResultOf(checked[2], QueueFull).value.status, 503)
        other = self.gate.acquire(Ticket((Counter("all", 0),), timeout=1.0))
        self.assertNoResult(other)
        service = self.accept()
        for each in checked[:2]:
            service.receive(NO)
            self.successResultOf(each)
        self.clock.advance(1.0)
        self.failureResultOf(other, QueueTimeout)

    def test_leaves_the_queue(self) -> None:
        """A client who leaves while its question waits is forgotten."""
        authenticator = self.make(max_concurrent=0)
        checked = authenticator.check(exchange())
        self.assertFalse(self.gate.idle)
        checked.cancel()
        self.failureResultOf(checked, CancelledError)
        self.assertTrue(self.gate.idle)

    def test_closed_gate(self) -> None:
        """When the proxy stops, who waits is answered 503."""
        checked = self.make(max_concurrent=0).check(exchange())
        self.gate.close()
        self.failureResultOf(checked, GateUnavailable)

    def test_remembered(self) -> None:
        """What is remembered takes no slot."""
        authenticator = self.make(max_concurrent=1, cache=30.0)
        self.check_one(authenticator)
        other = authenticator.check(exchange(Authorization="other"))
        self.assertTrue(self.remembered(authenticator, exchange()))
        self.answer()
        self.successResultOf(other)

    def test_given_up(self) -> None:
        """
        A question that is given up keeps its slot until the service has finished, for at most its time again: there
        it is still worked on.
        """
        authenticator = self.make(max_concurrent=1, timeout=2.0)
        for late in (False, True):
            checked = authenticator.check(exchange())
            wire = self.accept()
            if late:
                self.clock.advance(2)
                self.failureResultOf(checked, AuthFailed)
            else:
                checked.cancel()
                self.failureResultOf(checked, CancelledError)
            self.assertFalse(self.gate.idle)
            self.assertFalse(wire.aborted)
            if late:
                self.clock.advance(1.9)
                self.assertFalse(self.gate.idle)
                self.clock.advance(0.1)
                self.assertTrue(wire.aborted)
                self.clock.advance(0)
            else:
                wire.receive(YES)
                wire.lose()
            self.assertTrue(self.gate.idle)

    def test_before_the_exchange(self) -> None:
        """The slot is free before the exchange goes on, so that it cannot wait for itself."""
        authenticator = self.make(max_concurrent=1)
        free: list[bool] = []
        checked = authenticator.check(exchange())
        checked.addCallback(lambda _: free.append(self.gate.idle))
        self.answer()
        self.assertEqual(free, [True])

    def test_counter(self) -> None:
        """The service's counter is its own, beside those of limits and backends."""
        authenticator = self.make(max_concurrent=1)
        held = self.successResultOf(self.gate.acquire(Ticket((Counter("auth:main", 1),))))
        checked = authenticator.check(exchange())
        self.assertEqual(self.connections, 0)
        held.release()
        self.answer(NO)
        self.successResultOf(checked)
