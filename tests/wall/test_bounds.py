"""Tests that what is answered before it was read is not read as something else."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.wall.corpus import POISON, chunked, get, post, request
from tests.wall.recorder import Result, Wall, plain_site, strict_site
from thrtwisted.config import Bounds, Rule, Then, When

_HIDDEN = b"Content-Length: %d" % len(POISON)
_CHUNK = b"%x\r\n" % len(POISON) + POISON + b"\r\n0\r\n\r\n"
REFUSING = [Rule(when=When(path="/refused"), then=Then(set_status_code=403))]


def refused(*fields: bytes, body: bytes = b"") -> bytes:
    """A POST that a rule refuses."""
    return request(b"POST /refused HTTP/1.1", b"Host: h", *fields, body=body)


class RefusedByRuleTests(SynchronousTestCase):
    """Tests for requests with bodies that a rule refuses."""

    site = staticmethod(strict_site)

    def send(self, *pieces: bytes) -> Result:
        """What comes of these pieces, and of all of them together; an honest client is served after it."""
        results = []
        for sent in (pieces, (b"".join(pieces),)):
            wall = Wall(self.site, rule=REFUSING)
            self.addCleanup(wall.close)
            results.append(wall.send(*sent))
            wall.honest()
        first, second = results
        self.assertEqual(first.seen, second.seen)
        return first

    def test_body(self) -> None:
        """The body of a refused request is read as such, and the request behind it is the next one."""
        for sent in (refused(_HIDDEN, body=POISON), refused(b"Transfer-Encoding: chunked", body=_CHUNK)):
            result = self.send(sent, get(target=b"/2"))
            self.assertIn(len(result.seen), (0, 1))
            self.assertEqual([seen.target for seen in result.seen], [b"/2"][: len(result.seen)])
            self.assertEqual(result.got[0].status, 403)

    def test_expectation(self) -> None:
        """Whether a client waits for leave to send its body or does not: no byte of it is a request."""
        for framing, body in ((_HIDDEN, POISON), (b"Transfer-Encoding: chunked", _CHUNK)):
            result = self.send(refused(b"Expect: 100-continue", framing), body)
            self.assertEqual(result.seen, [])
            self.assertEqual([got.status for got in result.got], [403])

    def test_expectation_and_another_request(self) -> None:
        """What comes instead of the body is no request either: the client may have sent the body's beginning."""
        result = self.send(refused(b"Expect: 100-continue", _HIDDEN), POISON, get(target=b"/2"))
        self.assertNotIn(b"/smuggled", [seen.target for seen in result.seen])


class EmbeddedRefusedByRuleTests(RefusedByRuleTests):
    """The same below a site of Twisted's own."""

    site = staticmethod(plain_site)


class BoundsTests(SynchronousTestCase):
    """Tests for what comes behind something that went past a bound."""

    def refused(self, status: int, *pieces: bytes, seconds: float = 0.0, **bounds: Any) -> None:
        """
        The client gets this status, and nothing reaches the backend.

        @param seconds: that pass before the last piece.
        """
        wall = Wall(bounds=Bounds(**bounds))
        self.addCleanup(wall.close)
        client = wall.connect()
        for piece in pieces[:-1]:
            client.receive(piece)
            wall.settle()
        wall.clock.pump([1.0] * int(seconds))
        if not client.lost:
            client.receive(pieces[-1])
        wall.settle()
        wall.clock.advance(5)
        self.assertTrue(client.lost)
        self.assertEqual(client.value().partition(b"\r\n")[0].split(b" ")[1], b"%d" % status)
        self.assertEqual(client.value().count(b"HTTP/1.1 "), 1)
        self.assertEqual(wall.arrived(), [])
        wall.honest()

    def test_body_size(self) -> None:
        """A body that is too large: no byte of it is a request, nor is what follows it."""
        self.refused(413, post(_HIDDEN), POISON + POISON, body_size=10)
        self.refused(413, post(_HIDDEN) + POISON + POISON, body_size=10)
        self.refused(413, chunked(_CHUNK[:20]), _CHUNK[20:] + POISON, body_size=10)
        self.refused(413, chunked(b"5\r\nabcde\r\n"), b"6\r\n", POISON, body_size=10)

    def test_head_size(self) -> None:
        """A head that is too large: no line of it is a request."""
        long = get(*(b"X: y" for _ in range(200)))
        self.refused(431, long + POISON, head_size=300)
        self.refused(431, long[:300], long[300:], POISON, head_size=300)
        self.refused(431, get(*(b"X: y" for _ in range(20))), POISON, header_count=10)

    def test_target_length(self) -> None:
        """A target that is too long: nothing of it is a request."""
        self.refused(414, b"GET /" + b"a" * 200, POISON + POISON, target_length=100)

    def test_head_timeout(self) -> None:
        """A head that comes too slowly: what completes it is nothing any more."""
        self.refused(408, POISON[:20], POISON[20:] + POISON, seconds=3, head_timeout=2.0)
        self.refused(408, get()[:-2], b"\r\n" + POISON, seconds=3, head_timeout=2.0)

    def test_body_rate(self) -> None:
        """A body that comes too slowly: its rest is no request."""
        self.refused(408, post(b"Content-Length: 100", body=b"abc"), POISON, seconds=60)
        self.refused(408, chunked(b"100\r\nabc"), POISON, seconds=60)

    def test_requests_per_connection(self) -> None:
        """What comes behind the last request of a connection is none."""
        wall = Wall(bounds=Bounds(requests_per_connection=2))
        self.addCleanup(wall.close)
        for pieces in ([get() + get() + POISON], [get(), get(), POISON]):
            result = wall.send(*pieces)
            self.assertEqual([seen.target for seen in result.seen], [b"/", b"/"])
            self.assertEqual([got.status for got in result.got], [200, 200])
            self.assertTrue(result.ended)
            wall.honest()
