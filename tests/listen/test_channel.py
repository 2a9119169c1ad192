"""Tests for L{thrtwisted.listen.channel}: connections in memory, with a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.listen.support import GET, ChannelCase, ClientWire
from thrtwisted.forward.disk import Disk
from thrtwisted.listen import channel as module
from thrtwisted.listen.channel import LINGER_BYTES, READ_AHEAD, State


def post(body: bytes, *fields: bytes) -> bytes:
    """A request with a body of known length."""
    lines = [b"POST /form HTTP/1.1", b"Host: h", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*pieces: bytes) -> bytes:
    """A request with a body in chunks."""
    head = b"POST /form HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


class RequestTests(ChannelCase):
    """What a resource sees of a request."""

    def test_request(self) -> None:
        """Method, target, version and fields are as sent; the fields of this hop are gone, and those that it names."""
        self.connect(
            b"get /a%2F?b=c HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\nX-A: 2\r\nCookie: a=b; c=d\r\n"
            b"Connection: X-Gone, keep-alive\r\nX-Gone: 1\r\nTE: trailers\r\nUpgrade: h2c\r\n\r\n"
        )
        [request] = self.teller.requests
        self.assertEqual((request.method, request.uri), (b"get", b"/a%2F?b=c"))
        self.assertEqual(request.clientproto, b"HTTP/1.1")
        self.assertEqual(
            sorted(request.requestHeaders.getAllRawHeaders()),
            [(b"Cookie", [b"a=b; c=d"]), (b"Host", [b"h"]), (b"X-A", [b"1", b"2"])],
        )
        self.assertEqual(request.getCookie(b"c"), b"d")
        self.assertEqual(request.getClientAddress().host, "192.0.2.1")
        self.assertFalse(request.isSecure())
        self.assertEqual(request.getHost().host, "10.0.0.1")

    def test_in_pieces(self) -> None:
        """However it is cut into pieces, a request is the same."""
        wire = self.connect()
        for byte in post(b"abc", b"X: y"):
            wire.receive(bytes([byte]))
        [request] = self.teller.requests
        self.assertEqual(request.getHeader(b"x"), b"y")
        self.assertEqual(self.teller.bodies, [b"abc"])

    def test_empty_line_before(self) -> None:
        """An empty line after a body, as some old clients send it, is skipped, and no beginning of a head."""
        self.teller.at_once = True
        wire = self.connect(post(b"abc") + b"\r\n")
        self.clock.advance(30)
        wire.receive(GET)
        self.assertEqual(wire.statuses(), [200, 200])

    def test_body(self) -> None:
        """A body is whole when the resource sees it, and what follows it is the next request."""
        wire = self.connect(post(b"x" * 300_000)[:-1])
        self.assertEqual(self.teller.requests, [])
        wire.receive(b"y" + GET)
        self.assertEqual(self.teller.bodies, [b"x" * 299_999 + b"y"])
        self.teller.answer(self.teller.requests[0])
        self.assertEqual(self.teller.bodies[1:], [b""])

    def test_chunked(self) -> None:
        """A body in chunks is one of a length to the resource."""
        self.connect(chunked(b"abc", b"de") + GET)
        [request] = self.teller.requests
        self.assertEqual(self.teller.bodies, [b"abcde"])
        self.assertEqual(request.getHeader(b"content-length"), b"5")
        self.assertIsNone(request.getHeader(b"transfer-encoding"))

    def test_empty_bodies(self) -> None:
        """A body that is framed and empty differs from none."""
        for data, length in ((chunked(), b"0"), (post(b""), b"0"), (GET, None)):
            self.connect(data)
            self.assertEqual(self.teller.requests[-1].getHeader(b"content-length"), length)

    def test_leaves(self) -> None:
        """A client that leaves while its answer is awaited is noticed at once, and so is one in its body."""
        wire = self.connect(post(b"abc"))
        wire.lose()
        self.assertEqual(self.teller.left, self.teller.requests)
        wire = self.connect(chunked(b"abc" * 100_000)[:-9])
        self.assertIsNotNone(wire.protocol._body)
        file = wire.protocol._body.file
        wire.lose()
        self.assertTrue(file.closed)
        self.assertEqual(len(self.teller.requests), 1)


class AnswerTests(ChannelCase):
    """What a client is sent."""

    def test_kept(self) -> None:
        """A connection serves one request after the other."""
        wire = self.connect()
        for number in range(3):
            wire.receive(GET)
            self.teller.answer(self.teller.requests[number])
        self.assertEqual(wire.statuses(), [200] * 3)
        self.assertTrue(wire.open)

    def test_pipelined(self) -> None:
        """Requests that are sent ahead are answered in order, one at a time."""
        wire = self.connect(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(20)))
        for number in range(20):
            self.assertEqual(len(self.teller.requests), number + 1)
            self.teller.answer(self.teller.requests[-1], b"%d" % number)
        self.assertEqual([answer.body for answer in wire.answers()], [b"%d" % n for n in range(20)])

    def test_pipelined_answered_at_once(self) -> None:
        """Many requests that are answered at once leave the reactor time for others in between."""
        self.teller.at_once = True
        wire = self.connect(GET * 20)
        self.assertEqual(len(wire.statuses()), module.AT_ONCE)
        self.assertFalse(wire.reading)
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(len(wire.statuses()), 20)
        self.assertTrue(wire.reading)

    def test_leaves_between_turns(self) -> None:
        """A client that leaves meanwhile is forgotten."""
        self.teller.at_once = True
        self.connect(GET * 20).lose()
        self.clock.advance(0)
        self.assertEqual(len(self.teller.requests), module.AT_ONCE)

    def test_read_ahead(self) -> None:
        """Of what is sent ahead so much is read, and the rest after the answer."""
        wire = self.connect(GET)
        wire.receive(b"G" * READ_AHEAD)
        self.assertTrue(wire.reading)
        wire.receive(b"G")
        self.assertFalse(wire.reading)
        wire = self.connect(GET)
        wire.receive(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n" + bytes(19_999))
        self.assertFalse(wire.reading)
        self.teller.answer(self.teller.requests[-1])
        self.assertTrue(wire.reading)
        wire.receive(b"z")
        self.assertEqual(len(self.teller.bodies[-1]), 20_000)

    def test_close(self) -> None:
        """Connection: close, in any field and among others, and HTTP/1.0, end the connection; and say so."""
        for data in (
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: foo\r\nConnection: bar, Close\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ):
            wire = self.connect(data)
            self.teller.answer(self.teller.requests[-1])
            self.assertEqual(self.answered(wire, 200).header("Connection"), "close")
            self.assertTrue(wire.half_closed)

    def test_close_with_more(self) -> None:
        """What came after the last request is read and dropped, else the client might not get its answer."""
        wire = self.connect(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET)
        self.teller.answer(self.teller.requests[0])
        self.assertTrue(wire.half_closed)
        self.assertFalse(wire.disconnecting)
        self.assertEqual(len(self.teller.requests), 1)

    def test_more_that_comes_late(self) -> None:
        """So is what comes when the answer is on its way already: an empty line, or a request too many."""
        for late in (b"\r\n", GET):
            wire = self.connect(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            self.teller.answer(self.teller.requests[-1])
            wire.receive(late)
            self.assertEqual((wire.half_closed, wire.disconnecting), (True, False))
            self.answered(wire, 200)
            wire.lose()

    def test_close_waits_for_the_answer(self) -> None:
        """Whatever else has come, a client may take its last answer as slowly as its bound lets it."""
        self.open_site(body_min_rate=1000)
        for data in (b"GET / HTTP/1.0\r\n\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n" + GET, b"bad\r\n\r\n"):
            wire = self.connect()
            wire.congested = True
            wire.receive(data)
            if wire.protocol.state is State.EXCHANGE:
                self.teller.answer(self.teller.requests[-1], bytes(100_000))
            self.assertIs(wire.protocol.state, State.CLOSING)
            self.clock.pump([1.0] * 100)
            self.assertTrue(wire.open)
            wire.relieve()
            self.assertTrue(wire.half_closed)
            self.clock.advance(1.9)
            self.assertFalse(wire.disconnecting)
            self.clock.advance(0.2)
            self.assertEqual((wire.lost, wire.aborted), (True, False))

    def test_writes_after_the_end(self) -> None:
        """What a resource writes after it has closed the connection is not sent."""
        wire = self.connect(GET)
        request = self.teller.requests[0]
        wire.congested = True
        request.write(b"some")
        request.loseConnection()
        before = wire.value()
        request.write(b"more")
        self.assertEqual(wire.value(), before)

    def test_closed_by_the_resource(self) -> None:
        """A resource may close the connection: by a header, or by itself."""
        wire = self.connect(GET)
        request = self.teller.requests[0]
        request.setHeader(b"Connection", b"close")
        self.teller.answer(request)
        self.assertTrue(wire.half_closed)
        wire = self.connect(GET)
        request = self.teller.requests[1]
        request.loseConnection()
        self.assertTrue(wire.half_closed)
        request.loseConnection()  # says nothing new
        self.teller.answer(request)  # has no effect

    def test_requests_per_connection(self) -> None:
        """The last request of a connection is told that it is."""
        self.open_site(requests_per_connection=2)
        self.teller.at_once = True
        wire = self.connect(GET)
        wire.receive(GET)
        self.assertEqual([answer.header("Connection") for answer in wire.answers()], [None, "close"])
        self.assertTrue(wire.half_closed)

    def test_any_number_of_requests(self) -> None:
        """Without a bound there is no last one."""
        self.open_site(requests_per_connection=0)
        self.teller.at_once = True
        wire = self.connect()
        for _ in range(1100):
            wire.receive(GET)
        self.assertTrue(wire.open)

    def test_pull_producer(self) -> None:
        """A resource that wants to be asked for each piece is, at the client's speed."""
        pieces = [b"a", b"b", b"c"]
        stopped = []

        class Puller:
            def __init__(self, request: Any) -> None:
                self.request = request

            def resumeProducing(self) -> None:
                self.request.write(pieces.pop(0))
                if not pieces:
                    self.request.unregisterProducer()
                    self.request.finish()

            def stopProducing(self) -> None:
                stopped.append(True)

        wire = self.connect(b"GET / HTTP/1.0\r\n\r\n")
        request = self.teller.requests[0]
        wire.congested = True
        request.registerProducer(Puller(request), False)
        self.assertRaises(RuntimeError, wire.protocol.registerProducer, object(), True)
        self.clock.advance(0)
        self.assertEqual(len(pieces), 2)
        wire.producer.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(len(pieces), 1)
        wire.relieve()
        self.clock.advance(0)
        self.assertTrue(wire.value().endswith(b"\r\n\r\nabc"))
        self.assertTrue(wire.half_closed)
        pieces[:] = [b"d", b"e"]
        wire = self.connect(GET)
        request = self.teller.requests[1]
        request.registerProducer(Puller(request), False)
        wire.lose()
        self.assertEqual(stopped, [True])


class BackPressureTests(ChannelCase):
    """Clients that do not read."""

    class Producer:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def pauseProducing(self) -> None:
            self.calls.append("pause")

        def resumeProducing(self) -> None:
            self.calls.append("resume")

        def stopProducing(self) -> None:
            self.calls.append("stop")

    def test_producer(self) -> None:
        """Who writes an answer is told when its client takes no more, and when it does again, and when it has left."""
        wire = self.connect(GET)
        producer = self.Producer()
        request = self.teller.requests[0]
        wire.producer.pauseProducing()
        request.registerProducer(producer, True)
        self.assertEqual(producer.calls, ["pause"])
        wire.producer.resumeProducing()
        wire.producer.pauseProducing()
        self.assertTrue(wire.reading)  # to notice that it leaves
        self.assertEqual(producer.calls, ["pause", "resume", "pause"])
        wire.lose()
        self.assertEqual(producer.calls[3:], ["stop"])

    def test_answers_unread(self) -> None:
        """A client that does not read its answers is not read from either: its answers do not pile up."""
        self.teller.at_once = True
        wire = self.connect()
        wire.congested = True
        wire.receive(GET * 5)
        self.assertEqual(len(self.teller.requests), 1)
        self.assertFalse(wire.reading)
        wire.receive(GET)  # what was on its way
        self.assertEqual(len(self.teller.requests), 1)
        wire.relieve()
        self.assertEqual(len(self.teller.requests), 6)
        self.assertTrue(wire.reading)

    def test_takes_too_little(self) -> None:
        """A client that takes nothing of its answer is closed, be there a request or not."""
        self.open_site(body_min_rate=1000)
        for complete in (True, False):
            wire = self.connect(GET)
            wire.congested = True
            request = self.teller.requests[-1]
            if complete:
                self.teller.answer(request)
            else:
                request.write(b"some")
            # in memory nobody tells how much has arrived: a quarter of a megabyte may be on its way
            passed = self.until_over(lambda wire=wire: wire.aborted, 1.0, 1000.0)
            self.assertTrue(272 <= passed <= 274, passed)
            self.assertEqual(self.teller.left, [] if complete else [request])

    def test_takes_enough(self) -> None:
        """One that takes its answer as fast as it should is not."""
        self.open_site(body_min_rate=1000)
        wire = self.connect(GET)
        request = self.teller.requests[0]
        for _ in range(100):
            request.write(bytes(100_000))
            wire.producer.pauseProducing()
            self.clock.advance(50)
            wire.producer.resumeProducing()
        self.assertTrue(wire.open)

    def test_no_rate(self) -> None:
        """Without a rate nobody is too slow."""
        self.open_site(body_min_rate=0)
        self.teller.at_once = True
        wire = self.connect()
        wire.congested = True
        wire.receive(GET)
        self.clock.pump([1000.0] * 10)
        self.assertTrue(wire.lost)  # for it was idle
        wire = self.connect(post(b"abc")[:-1])
        self.clock.pump([1000.0] * 10)
        self.assertTrue(wire.open)

    def test_close_does_not_come_about(self) -> None:
        """A client that never takes its last answer is closed in disorder in the end."""

        class Stuck(ClientWire):
            def loseConnection(self) -> None:
                self.disconnecting = True

        for rate in (1000, 0):
            self.open_site(body_min_rate=rate)
            self.teller.at_once = True
            wire = Stuck(self.clock, self.site.buildProtocol(None), "192.0.2.1")
            self.wires.append(wire)
            wire.receive(b"GET / HTTP/1.0\r\n\r\n")
            self.assertTrue(wire.half_closed)
            passed = self.until_over(lambda wire=wire: wire.aborted, 1.0, 10_000.0)
            self.assertGreater(passed, 20)


class TimeTests(ChannelCase):
    """Clients that take their time."""

    def test_silent(self) -> None:
        """A client that sends nothing is closed without a word."""
        wire = self.connect()
        self.clock.advance(9.9)
        self.assertTrue(wire.open)
        self.clock.advance(0.2)
        self.assertTrue(wire.half_closed)
        self.assertEqual(wire.value(), b"")

    def test_slow_head(self) -> None:
        """However it trickles, a head has so long from the connection."""
        wire = self.connect(b"GET / HTTP/1.1\r\nHost: h\r\n")
        for _ in range(9):
            self.clock.advance(1)
            wire.receive(b"X-Y: z\r\n")
        self.assertEqual(wire.value(), b"")
        self.clock.advance(1.1)
        self.refused(wire, 408)

    def test_slow_next_head(self) -> None:
        """On a connection that was kept a head has so long from its first byte."""
        self.teller.at_once = True
        wire = self.connect(GET)
        wire.clear()
        self.clock.advance(30)
        wire.receive(b"GET / HTTP/1.1\r\n")
        self.clock.advance(9.9)
        wire.receive(b"Host: h\r\n")
        self.assertTrue(wire.open)
        self.clock.advance(0.2)
        self.refused(wire, 408)

    def test_slow_head_behind(self) -> None:
        """So has a head whose beginning came with the request before it: from the end of that."""
        wire = self.connect(GET + b"GET /")
        self.clock.advance(100)
        self.teller.answer(self.teller.requests[0])
        wire.clear()
        self.clock.advance(9.9)
        self.assertTrue(wire.open)
        self.clock.advance(0.2)
        self.refused(wire, 408)

    def test_idle(self) -> None:
        """A connection that was kept is closed when there was no request for so long, and not earlier."""
        self.open_site(idle_timeout=20)
        self.teller.at_once = True
        wire = self.connect(GET)
        for _ in range(5):
            self.clock.advance(19)
            wire.receive(GET)
        self.clock.advance(20.1)
        self.assertTrue(wire.half_closed)
        self.assertEqual(wire.statuses(), [200] * 6)

    def test_exchange_takes_long(self) -> None:
        """While the resource thinks, its client has all the time."""
        wire = self.connect(GET)
        self.clock.pump([1000] * 10)
        self.teller.answer(self.teller.requests[0])
        self.assertTrue(wire.open)
        self.clock.advance(59.9)
        self.assertTrue(wire.open)
        self.clock.advance(0.2)
        self.assertTrue(wire.half_closed)

    def test_slow_body(self) -> None:
        """A body that comes too slowly is refused, and its file closed at once."""
        wire = self.connect(post(b"x" * 200_000)[:-150_000])
        file = wire.protocol._body.file
        self.clock.advance(9.9)
        self.assertTrue(wire.open)
        self.clock.advance(0.2)
        self.assertTrue(file.closed)
        self.refused(wire, 408)

    def test_body_in_time(self) -> None:
        """One that comes fast enough may take as long as it likes."""
        wire = self.connect(chunked()[:-5])
        for _ in range(100):
            self.clock.advance(4)
            wire.receive(b"9c4\r\n" + bytes(2500) + b"\r\n")
        wire.receive(b"0\r\n\r\n")
        self.assertEqual(len(self.teller.bodies[0]), 250_000)

    def test_body_too_slow_later(self) -> None:
        """What came early does not help later."""
        wire = self.connect(chunked(bytes(100_000))[:-5])
        for _ in range(9):
            self.clock.advance(1)
            wire.receive(b"1\r\nx\r\n")
        self.clock.advance(1.1)
        self.refused(wire, 408)

    def test_timers(self) -> None:
        """A connection has one timer, which requests that come and go quickly do not touch."""
        self.teller.at_once = True
        made: list[float] = []
        call_later = self.clock.callLater
        self.patch(
            self.clock, "callLater", lambda delay, *rest: (made.append(delay), call_later(delay, *rest))[1]
        )
        wire = self.connect()
        for _ in range(100):
            wire.receive(GET)
            wire.receive(post(b"x"))
        self.assertEqual([delay for delay in made if delay != 0.01], [10.0])  # 0.01: the access log


class RefusalTests(ChannelCase):
    """Requests that no resource sees."""

    def test_malformed(self) -> None:
        """A head that is malformed is refused, in the words of the proxy's answers, and in the access log."""
        wire = self.connect(
            b"GET /page HTTP/1.1\r\nHost : h\r\nUser-Agent: someone\r\nAccept: application/json\r\n\r\n"
        )
        answer = self.refused(wire, 400)
        self.assertEqual(answer.header("Content-Type"), "application/json")
        self.assertEqual(self.teller.requests, [])
        [line] = self.logged
        self.assertEqual((line.method, line.uri, line.clientproto), (b"GET", b"/page", b"HTTP/1.1"))
        self.assertEqual((line.code, line.sentLength), (400, len(answer.body)))
        self.assertEqual(line.getHeader(b"user-agent"), b"someone")
        self.assertIsNone(line.getHeader(b"referer"))
        self.assertEqual(line.getClientAddress().host, "192.0.2.1")

    def test_log_lines(self) -> None:
        """The site's own formatter can write such a line, whatever came."""
        from thrtwisted.listen.site import dated_line

        self.site._logFormatter = dated_line
        written: list[str] = []
        self.site.logFile = type("File", (), {"write": written.append, "close": lambda: None})
        for data in (
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/2.0\r\n\r\n",
            b"\r\n\r\n\r\n\r\n",
            b"GET  /\x00\r\n\r\n",
        ):
            self.connect(data)
        self.clock.advance(0.01)
        self.assertEqual(len(written), 4)
        self.assertIn('"GET / HTTP/2.0" 505', written[1])

    def test_at_once(self) -> None:
        """What cannot become a request is refused before it ends."""
        for data, status in (
            (b"\x16\x03\x01\x02\x00\x01\x00", 400),
            (b"GET /" + b"x" * 9000, 414),
            (b"GET / HTTP/1.1\r\nX: " + b"y" * 33_000, 431),
            (b"PRI * HTTP/2.0\r\n", 505),
        ):
            self.refused(self.connect(data), status)

    def test_after_others(self) -> None:
        """Those that came before are answered first."""
        wire = self.connect(GET + b"bad\r\n\r\n" + GET)
        self.assertEqual(wire.value(), b"")
        self.teller.answer(self.teller.requests[0])
        self.assertEqual(wire.statuses(), [200, 400])
        self.assertEqual(len(self.teller.requests), 1)
        self.assertTrue(wire.half_closed)

    def test_head_has_no_body(self) -> None:
        """A refused HEAD is answered without a body."""
        wire = self.connect(b"HEAD / HTTP/1.1\r\n\r\n")
        self.assertTrue(wire.value().startswith(b"HTTP/1.1 400 "))
        self.assertTrue(wire.value().endswith(b"\r\n\r\n"))

    def test_large_body(self) -> None:
        """A body that is announced as too large is refused at once, and nobody is asked to send it."""
        self.open_site(body_size=1000)
        expecting = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"
        self.refused(self.connect(expecting), 413)
        self.refused(self.connect(post(bytes(1001))[:-1]), 413)
        self.connect(post(bytes(1000)))
        self.assertEqual(len(self.teller.requests), 1)

    def test_large_chunked_body(self) -> None:
        """So is one in chunks as soon as they are too much, and its file is closed."""
        self.open_site(body_size=300_000)
        wire = self.connect(chunked(bytes(200_000))[:-5])
        file = wire.protocol._body.file
        self.assertGreater(self.site._disk.used, 0)
        wire.receive(b"186a1\r\n")
        self.assertTrue(file.closed)
        self.assertEqual(self.site._disk.used, 0)
        self.refused(wire, 413)

    def test_disk_full(self) -> None:
        """A body that there is no room for is refused, and may come again."""
        self.open_site()
        self.site._disk = Disk(150_000)
        staying = self.connect(post(bytes(140_000))[:-1])
        refused = self.refused(self.connect(post(bytes(140_000))[:-1]), 503, "proxy_internal_error")
        self.assertIsNotNone(refused.header("Retry-After"))
        staying.receive(b"x")
        self.assertEqual(len(self.teller.bodies[0]), 140_000)

    def test_lingers(self) -> None:
        """A refused client is read for a while, and not for more than so many bytes."""
        wire = self.connect(b"bad\r\n\r\n")
        for _ in range(LINGER_BYTES // 65536):
            wire.receive(bytes(65536))
        self.assertTrue(wire.reading)
        wire.receive(b"x")
        self.assertEqual((wire.reading, wire.lost), (False, False))  # it may still read its answer
        self.clock.advance(2.1)
        self.assertTrue(wire.lost)
        wire = self.connect(b"bad\r\n\r\n")
        self.clock.advance(1.9)
        self.assertFalse(wire.disconnecting)
        self.clock.advance(0.2)
        self.assertTrue(wire.lost)
        self.assertFalse(wire.aborted)

    def test_leaves_after_a_refusal(self) -> None:
        """A client that closes when it has read its answer leaves nothing behind."""
        wire = self.connect(b"bad\r\n\r\n")
        wire.lose()
        self.assertEqual(wire.protocol.state, State.CLOSED)


class ExpectTests(ChannelCase):
    """Clients that ask before they send a body."""

    CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

    def head(self, length: bytes = b"Content-Length: 3", version: bytes = b"1.1") -> bytes:
        lines = (b"POST /up HTTP/" + version, b"Host: h", length, b"Expect: 100-continue")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def test_wanted(self) -> None:
        """The resource is asked, and the client told to go on."""
        for length, body in (
            (b"Content-Length: 3", b"abc"),
            (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
        ):
            wire = self.connect(self.head(length))
            self.assertEqual(wire.value(), self.CONTINUE)
            self.assertEqual(self.teller.asked, [(b"POST", b"/up", b"h", None)])
            wire.clear()
            wire.receive(body)
            self.assertEqual(self.teller.bodies.pop(), b"abc")
            self.teller.answer(self.teller.requests[-1])
            self.assertEqual(wire.statuses(), [200])
            self.assertTrue(wire.open)
            self.teller.asked.clear()

    def test_not_wanted(self) -> None:
        """A body that nobody would look at is not sent, and the connection closed after the answer."""
        self.teller.wanted = False
        wire = self.connect(self.head())
        self.assertEqual(self.teller.bodies, [b""])
        self.teller.answer(self.teller.requests[0])
        self.assertEqual(self.answered(wire, 200).header("Connection"), "close")
        self.assertTrue(wire.half_closed)
        wire.receive(b"abc" + GET)
        self.assertEqual(len(self.teller.requests), 1)

    def test_sent_without_waiting(self) -> None:
        """Who sends the body without waiting needs no leave; the resource is asked all the same."""
        wire = self.connect(self.head() + b"abc")
        self.assertEqual(self.teller.bodies, [b"abc"])
        self.assertEqual(len(self.teller.asked), 1)
        self.assertEqual(wire.value(), b"")

    def test_old_client(self) -> None:
        """Nobody who speaks HTTP/1.0 is told to go on."""
        wire = self.connect(self.head(version=b"1.0"))
        self.assertEqual(wire.value(), b"")
        self.assertEqual(self.teller.asked, [])

    def test_resource_without_opinion(self) -> None:
        """A resource that cannot be asked wants every body."""

        class Plain(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                return NOT_DONE_YET

        self.site.resource = Plain()
        self.assertEqual(self.connect(self.head()).value(), self.CONTINUE)


class Announcing(ProtocolWrapper):
    """As the PROXY protocol does it: who the client is comes with its first bytes."""

    host = "198.51.100.9"

    def dataReceived(self, data: bytes) -> None:
        self.host, _, rest = data.decode().partition("|")
        super().dataReceived(rest.encode())

    def getPeer(self) -> Any:
        return ClientWire.getPeer(self)  # type: ignore[arg-type]


class ConnectionsTests(ChannelCase):
    """More clients than there is room for."""

    def test_idle_one_is_closed(self) -> None:
        """One more closes the one that has been idle for longest."""
        self.open_site(connections=3)
        self.teller.at_once = True
        wires = [self.connect(GET) for _ in range(3)]
        wires[0].receive(GET)
        self.connect(GET)
        self.assertEqual([wire.open for wire in wires], [True, False, True])
        self.teller.at_once = False
        wires[2].receive(GET)
        self.connect(GET)
        self.assertEqual([wire.open for wire in wires], [False, False, True])

    def test_none_is_idle(self) -> None:
        """If none is idle, it is answered itself, at once."""
        self.open_site(connections=3)
        wires = [self.connect(GET), self.connect(GET[:-2]), self.connect(post(b"abc")[:-1])]
        more = self.connect()
        answer = self.refused(more, 503, "connection_limit_reached")
        self.assertEqual(answer.header("Retry-After"), "1")
        self.assertEqual([wire.open for wire in wires], [True] * 3)
        wires[0].lose()
        self.connect(GET)
        self.assertEqual(len(self.teller.requests), 2)

    def test_makes_room_at_once(self) -> None:
        """One that makes room is gone at once, and one that still takes its answer is not idle."""
        self.open_site(connections=2)
        taking, idle = self.connect(), self.connect()
        taking.congested = True
        for wire in (taking, idle):
            wire.receive(GET)
            self.teller.answer(self.teller.requests[-1])
        self.connect(GET)
        self.clock.advance(0)
        self.assertEqual((idle.lost, idle.aborted, taking.open), (True, False, True))
        taking.relieve()
        self.connect(GET)
        self.assertFalse(taking.open)

    def test_turned_away_is_not_counted(self) -> None:
        """One that was turned away is told so once, whatever it sends then, and takes nobody's place."""
        self.open_site(connections=2, connections_per_client=2)
        wires = [self.connect(GET), self.connect(GET)]
        for host in ("192.0.2.1", "192.0.2.2"):
            away = self.connect(b"", host)
            away.receive(GET)
            away.receive(GET)
            self.answered(away, 503)
        self.assertEqual(len(self.site.connections), 2)
        for wire in wires:
            wire.lose()
        self.assertTrue(self.connect(GET).open)

    def test_silent_one_is_closed(self) -> None:
        """One that has just connected makes room if there is no other; one that was silent for a while goes first."""
        self.open_site(connections=2)
        self.teller.at_once = True
        silent, idle = self.connect(), self.connect(GET)
        third = self.connect(GET)
        self.assertEqual([silent.open, idle.open, third.open], [True, False, True])
        self.clock.advance(1.1)
        fourth = self.connect()
        self.assertEqual([silent.open, third.open, fourth.open], [False, True, True])
        self.teller.at_once = False
        third.receive(GET)
        self.connect(GET)
        self.assertFalse(fourth.open)

    def test_one_that_is_closing_makes_no_room(self) -> None:
        """A connection that is being closed is not closed again."""

        self.open_site(connections=1)
        closing = self.connect()
        self.clock.advance(10.1)
        self.assertTrue(closing.half_closed)
        self.refused(self.connect(), 503, "connection_limit_reached")

    def test_flood(self) -> None:
        """In a flood most are reset without an answer, and the log has one line about all of them."""
        self.open_site(connections=1)
        self.connect(GET)
        from thrtwisted.listen import site

        self.patch(site, "TOLD", 3)
        wires = [self.connect() for _ in range(10)]
        self.assertEqual([bool(wire.value()) for wire in wires], [True] * 3 + [False] * 7)
        self.assertEqual([wire.aborted for wire in wires], [False] * 3 + [True] * 7)
        self.clock.advance(2.1)
        self.assertTrue(all(wire.lost for wire in wires))
        self.refused(self.connect(), 503, "connection_limit_reached")

    def test_per_client(self) -> None:
        """One client has only so many; others are not concerned."""
        self.open_site(connections_per_client=2)
        hosts = [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "192.0.2.2",
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8:0:1::1",
        ]
        wires = [self.connect(GET, host) for host in hosts]
        self.assertTrue(all(wire.open for wire in wires))
        for host in ("::ffff:192.0.2.1", "2001:db8::ffff:1"):
            self.refused(self.connect(b"", host), 503, "connection_limit_reached")
        wires[0].lose()
        self.assertTrue(self.connect(GET).open)

    def test_not_counted_per_client(self) -> None:
        """Trusted proxies bring many clients, and so do unix sockets."""
        self.open_site(trust=["192.0.2.0/24"], connections_per_client=1)
        for host in ("192.0.2.1", None):
            wires = [self.connect(GET, host) for _ in range(5)]
            self.assertTrue(all(wire.open for wire in wires))

    def test_announced(self) -> None:
        """Where the first bytes tell who the client is, it is counted then."""
        self.open_site(connections_per_client=1)

        def connect(data: bytes) -> ClientWire:
            factory = WrappingFactory(Factory.forProtocol(Protocol))
            wire = ClientWire(self.clock, Announcing(factory, self.site.buildProtocol(None)), "198.51.100.9")
            self.wires.append(wire)
            if data:
                wire.receive(data)
            return wire

        silent = [connect(b"") for _ in range(3)]
        first, other = connect(b"192.0.2.1|" + GET), connect(b"192.0.2.2|" + GET)
        self.assertTrue(first.open and other.open)
        self.assertEqual(self.teller.requests[0].getClientAddress().host, "192.0.2.1")
        self.answered(connect(b"192.0.2.1|" + GET), 503)
        self.assertTrue(all(wire.open for wire in silent))
        self.assertEqual(len(self.teller.requests), 2)


class StopTests(ChannelCase):
    """A site whose ports are closed."""

    def test_stops(self) -> None:
        """Who is idle is closed, who is in the middle of a request is told, who waits gets a last answer."""
        silent, waiting = self.connect(), self.connect(GET)
        half, uploading = self.connect(GET[:-2]), self.connect(post(b"abc")[:-1])
        self.connect(b"bad\r\n\r\n")
        self.teller.at_once = True
        idle = self.connect(GET)
        idle.clear()
        self.site.doStop()
        self.assertEqual([wire.disconnecting for wire in self.wires], [False] * 6)
        self.assertEqual([wire.half_closed for wire in self.wires], [True, False, True, True, True, True])
        self.assertEqual((silent.value(), idle.value()), (b"", b""))
        for wire in (half, uploading):
            answer = self.answered(wire, 503)
            self.assertEqual((answer.header("Retry-After"), answer.header("Connection")), ("1", "close"))
        self.assertEqual(waiting.value(), b"")
        self.teller.answer(self.teller.requests[0])
        self.assertEqual(self.answered(waiting, 200).header("Connection"), "close")
        self.assertTrue(waiting.half_closed)
        self.clock.advance(0.3)
        self.assertTrue(all(wire.lost for wire in self.wires))
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        self.site.doStart()
        self.assertTrue(self.connect(GET).open)

    def test_parts(self) -> None:
        """The end waits for the clients that have not taken their answers, and breaks off who does not in time."""
        self.successResultOf(self.site.part(5))
        first, second = self.connect(GET), self.connect(GET)
        for wire, request in zip((first, second), self.teller.requests, strict=True):
            wire.congested = True
            self.teller.answer(request)
        self.site.stop()
        parted = [self.site.part(5) for _ in range(2)]
        late = self.connect(GET)  # by a port that is still open
        self.clock.pump([1.0] * 4)
        first.relieve()
        self.clock.advance(0.3)
        self.assertEqual((first.lost, first.aborted, second.lost), (True, False, False))
        self.assertNoResult(parted[0])
        self.clock.advance(0.8)
        self.assertTrue(second.aborted)
        for each in parted:
            self.successResultOf(each)
        self.assertFalse(late.lost)
        self.teller.answer(self.teller.requests[-1])
        self.assertEqual(self.answered(late, 200).header("Connection"), "close")

    def test_stops_while_closing(self) -> None:
        """Who is being closed then has a moment more, and not two seconds."""
        wire = self.connect(b"bad\r\n\r\n")
        self.site.stop()
        self.clock.advance(0.3)
        self.assertTrue(wire.lost)
        self.successResultOf(self.site.part(0))

    def test_stops_during_an_answer(self) -> None:
        """An answer whose head was sent before is the last, too."""
        wire = self.connect(GET)
        request = self.teller.requests[0]
        request.setHeader(b"Content-Length", b"2")
        request.write(b"o")
        self.site.doStop()
        self.assertTrue(wire.open)
        request.write(b"k")
        request.finish()
        self.assertEqual(self.answered(wire, 200).body, b"ok")
        self.assertTrue(wire.half_closed)
        self.site.doStart()
