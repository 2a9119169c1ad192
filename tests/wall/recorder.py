"""
A proxy in memory before a backend that records every byte, and what independent parsers make of these bytes.

Three parsers read what a connection to the backend carried: a plain one of our own (L{Reader}, which the backend
answers by), h11 and httptools (llhttp). A request that one of them sees otherwise than the others was smuggled,
whatever its client wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import h11
import httptools
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from tests.forward.support import Wire
from tests.rig import Rig
from thrtwisted.config import Backend
from thrtwisted.gate import IAdmission, Ticket
from thrtwisted.gate.local import LocalGate

Fields = tuple[tuple[bytes, bytes], ...]

#: What llhttp takes for a method. It knows no others.
KNOWN_METHODS = frozenset(
    b"DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK REPORT PURGE "
    b"PATCH M-SEARCH".split()
)
#: Never on the way to the backend, but for what the proxy itself writes there (L{misplaced}).
FORBIDDEN = frozenset(
    b"te trailer upgrade keep-alive proxy proxy-connection proxy-authorization proxy-authenticate "
    b"http2-settings".split()
)


@attrs.frozen
class Seen:
    """
    A request as a parser sees it.

    @ivar fields: in the order in which they were sent, names in lower case.
    """

    method: bytes
    target: bytes
    fields: Fields
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this name."""
        return [value for field, value in self.fields if field == name]


class Malformed(Exception):
    """Bytes that are no request, or not as a proxy may write one."""


class Reader:
    """
    Frames the requests of one connection.

    @ivar seen: those that are complete. @ivar rest: the bytes behind them.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.starts: list[int] = []
        self.rest = b""
        self._read = 0

    def feed(self, data: bytes) -> Iterator[Seen]:
        """Yield each request that is complete now."""
        self.rest += data
        while (found := self._next()) is not None:
            seen, length = found
            self.starts.append(self._read)
            self._read += length
            self.rest = self.rest[length:]
            self.seen.append(seen)
            yield seen

    def _next(self) -> tuple[Seen, int] | None:
        head, end, body = self.rest.partition(b"\r\n\r\n")
        if not end:
            return None
        line, *lines = head.split(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or words[2] != b"HTTP/1.1" or not all(words):
            raise Malformed(f"a request line {line!r}")
        fields = []
        for field in lines:
            name, colon, value = field.partition(b":")
            if not colon or not name or name.strip() != name:
                raise Malformed(f"a field line {field!r}")
            fields.append((name.lower(), value.strip(b" \t")))
        seen = Seen(words[0], words[1], tuple(fields), b"")
        content = self._body(seen, body)
        if content is None:
            return None
        body, length = content
        return attrs.evolve(seen, body=body), len(head) + 4 + length

    def _body(self, seen: Seen, data: bytes) -> tuple[bytes, int] | None:
        """The body, and how many bytes it takes; None if it is not complete."""
        lengths, codings = seen.values(b"content-length"), seen.values(b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise Malformed(f"lengths {lengths} and codings {codings}")
        if lengths:
            if not lengths[0].isdigit():
                raise Malformed(f"a length {lengths[0]!r}")
            length = int(lengths[0])
            return None if len(data) < length else (data[:length], length)
        if not codings:
            return b"", 0
        if codings != [b"chunked"]:
            raise Malformed(f"a coding {codings[0]!r}")
        return self._chunks(data)

    def _chunks(self, data: bytes) -> tuple[bytes, int] | None:
        body, rest = b"", data
        while True:
            line, end, rest = rest.partition(b"\r\n")
            if not end:
                return None
            size = int(line, 16)
            if len(rest) < size + 2:
                return None
            if rest[size : size + 2] != b"\r\n":
                raise Malformed("a chunk without its end, or a trailer")
            body, rest = body + rest[:size], rest[size + 2 :]
            if not size:
                return body, len(data) - len(rest)


def read_by_h11(data: bytes) -> tuple[list[Seen], str]:
    """What h11 makes of these bytes, and why it stopped before their end; nothing if it did not."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**22)
    connection.receive_data(data)
    found: list[Seen] = []
    request, body = None, b""
    try:
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                found.append(Seen(request.method, request.target, tuple(request.headers), body))
                request = None
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    break
                connection.start_next_cycle()
            else:
                break
    except h11.ProtocolError as error:
        return found, f"h11: {error}"
    return found, "h11: something is left over" if request or connection.trailing_data[0] else ""


class _Collector:
    """The callbacks of httptools."""

    def __init__(self) -> None:
        self.found: list[Seen] = []
        self.begun = 0
        self.parser = httptools.HttpRequestParser(self)
        self._start()

    def _start(self) -> None:
        self._url = self._body = b""
        self._fields: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self.begun += 1
        self._start()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.found.append(Seen(self.parser.get_method(), self._url, tuple(self._fields), self._body))


def read_by_httptools(data: bytes) -> tuple[list[Seen], str]:
    """What httptools makes of these bytes, and why it stopped before their end; nothing if it did not."""
    collector = _Collector()
    try:
        if data:
            collector.parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        return collector.found, f"httptools: {error!r}"
    left_over = collector.begun != len(collector.found)
    return collector.found, "httptools: something is left over" if left_over else ""


def agreed(data: bytes) -> list[Seen]:
    """
    The requests that one connection to the backend carried.

    @raise Malformed: the parsers differ, or refuse something, or something is left over; or a request holds what no
        proxy may send.
    """
    reader = Reader()
    found = list(reader.feed(data))
    if reader.rest:
        raise Malformed(f"something is left over: {reader.rest[:100]!r}")
    for agree in (agree_with_h11, agree_with_httptools):
        agree(reader, data)
    for seen in found:
        misplaced(seen)
    return found


def agree_with_h11(reader: Reader, data: bytes) -> None:
    """@raise Malformed: h11 sees other requests in these bytes than a reader that has read them."""
    _compare(*read_by_h11(data), reader.seen)


def agree_with_httptools(reader: Reader, data: bytes) -> None:
    """@raise Malformed: httptools sees other requests, methods that it does not know aside."""
    _compare(*read_by_httptools(with_known_methods(reader, data)), [as_known(seen) for seen in reader.seen])


def with_known_methods(reader: Reader, data: bytes) -> bytes:
    """These bytes, which a reader has read, with POST in place of methods that not every parser takes."""
    for start, seen in reversed(list(zip(reader.starts, reader.seen, strict=True))):
        if seen.method not in KNOWN_METHODS:
            data = data[:start] + b"POST" + data[start + len(seen.method) :]
    return data


def as_known(seen: Seen) -> Seen:
    """The same for a request."""
    return seen if seen.method in KNOWN_METHODS else attrs.evolve(seen, method=b"POST")


def _compare(others: list[Seen], problem: str, found: list[Seen]) -> None:
    if problem:
        raise Malformed(problem)
    if others != found:
        raise Malformed(f"one parser sees {others}, another {found}")


def misplaced(seen: Seen) -> None:
    """@raise Malformed: a request holds a field that no proxy may send."""
    for name, value in seen.fields:
        if name in FORBIDDEN or name.startswith(b"proxy-") or b"_" in name:
            raise Malformed(f"a field {name!r}")
        if name == b"expect":
            raise Malformed(f"an expectation {value!r}: the proxy meets its client's itself, and has none")
        if name == b"connection" and value.lower() not in (b"close", b"keep-alive"):
            raise Malformed(f"Connection: {value!r}")
        if any((byte < 32 and byte != 9) or byte == 127 for byte in value):
            raise Malformed(f"a value {value!r}")
    if len(seen.values(b"host")) != 1 or len(seen.values(b"connection")) > 1:
        raise Malformed(f"Hosts {seen.values(b'host')}, Connections {seen.values(b'connection')}")


def echo(seen: Seen) -> bytes:
    """What the backend answers: it tells one request from another."""
    identity = b" ".join(seen.values(b"x-id"))
    return b"%b %b %b %d" % (seen.method, seen.target[:100], identity, len(seen.body))


def answer_with_echo(seen: Seen, wire: Wire) -> None:
    """Answer a request that has come over this connection."""
    wire.receive(echo_answer(seen))


def echo_answer(seen: Seen) -> bytes:
    """The whole answer."""
    body = echo(seen)
    head = b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\nContent-Length: %d\r\n\r\n" % (seen.method, len(body))
    return head if seen.method == b"HEAD" else head + body


@attrs.frozen
class Got:
    """An answer as a client got it."""

    status: int
    fields: Fields
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this name."""
        return [value for field, value in self.fields if field == name]

    @property
    def echoed(self) -> bool:
        """Whether it is the backend's."""
        return bool(self.values(b"x-echo"))


def answers(received: bytes, *, ended: bool = True) -> list[Got]:
    """
    What a client makes of what it received.

    @param ended: whether the connection is closed, which ends a body without a length.
    @raise Malformed: something of it is no answer, or no complete one.
    """
    found = []
    while received:
        got, received = first_answer(received, _method_of(received), ended)
        found.append(got)
    return found


def _method_of(received: bytes) -> bytes:
    """What the request was to which this is the answer, as far as it matters here: HEAD, or another."""
    head, _, rest = received.partition(b"\r\n\r\n")
    while re.match(rb"HTTP/1\.1 1[0-9][0-9] ", head):
        head, _, rest = rest.partition(b"\r\n\r\n")
    if b"\r\nX-Echo: " in head:
        return b"HEAD" if b"\r\nX-Echo: HEAD\r\n" in head + b"\r\n" else b"GET"
    # A refusal, which does not say what it refuses. No body of ours is empty, or looks like an answer.
    return b"HEAD" if not rest or rest.startswith(b"HTTP/1.") else b"GET"


def first_answer(received: bytes, method: bytes, ended: bool) -> tuple[Got, bytes]:
    """
    The answer to a request with this method, and what follows it.

    @raise Malformed: it is none, or not complete.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**22)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(received)
    if ended:
        connection.receive_data(b"")
    head, body = None, b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                raise Malformed(f"an incomplete answer: {received[:200]!r}")
    except h11.ProtocolError as error:
        raise Malformed(f"no answer ({error}): {received[:200]!r}") from error
    assert head is not None
    return Got(head.status_code, tuple(head.headers), body), connection.trailing_data[0]


class CountingGate(LocalGate):
    """
    A gate that counts.

    @ivar admitted: how many tickets.
    """

    admitted = 0

    def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
        return super().acquire(ticket).addCallback(self._count)

    def _count(self, admission: IAdmission) -> IAdmission:
        self.admitted += 1
        return admission


class _RecordingWire(Wire):
    """A connection to the backend."""

    def __init__(self, clock: Any, protocol: Any, order: list[tuple[Wire, Seen]]) -> None:
        self.reader = Reader()
        self.broken = ""
        self._order = order
        self._looked_at = 0
        super().__init__(clock, protocol)

    def answer(self, how: Callable[[Seen, Wire], object]) -> bool:
        """Answer what is there by now; whether there was anything."""
        sent = self.value()
        fresh, self._looked_at = sent[self._looked_at :], len(sent)
        answered = False
        if fresh and not self.broken:
            try:
                for seen in self.reader.feed(fresh):
                    answered = True
                    self._order.append((self, seen))
                    how(seen, self)
            except (Malformed, ValueError) as error:
                self.broken = str(error)
        return answered

    def taken(self) -> bytes:
        """What has come since this was last asked."""
        sent = self.value()
        self.clear()
        self._looked_at = 0
        return sent


class ClientWire(Wire):
    """A client's connection, which goes on sending when nothing more is sent to it."""

    ended = False

    def loseWriteConnection(self) -> None:
        """The proxy has said all, and reads on."""
        self.ended = True

    def write(self, data: bytes) -> None:
        assert not self.ended, data
        super().write(data)


@attrs.frozen
class Result:
    """
    What came of an input.

    @ivar seen: what reached the backend because of it.
    @ivar got: what its client was answered.
    @ivar ended: the connection was closed.
    @ivar admitted: how many tickets the gate admitted because of it.
    @ivar failed: an error that only the reactor caught.
    @ivar carried: the bytes that connections to the backend carried because of it.
    """

    seen: list[Seen]
    got: list[Got]
    ended: bool
    admitted: int
    failed: str = ""
    carried: tuple[bytes, ...] = ()


def strict_site(rig: Rig) -> Any:
    """The site that the command makes."""
    return rig.site


def plain_site(rig: Rig) -> Any:
    """A site of Twisted's own, as a program may have that embeds the proxy's resource."""
    return Site(rig.resource, timeout=None, reactor=rig.clock, parsePOSTFormSubmission=False)


class Wall:
    """
    A proxy in memory, whose only slot every request needs in turn, before a backend that records.

    @ivar holding: the backend answers nothing for now.
    @ivar wires: the connections to the backend.
    @ivar how: what the backend does with a request.
    """

    rig_class: type[Rig] = Rig
    gate_class: type[LocalGate] = CountingGate

    def __init__(self, site: Callable[[Rig], Any] = strict_site, **config: Any) -> None:
        self._case = SynchronousTestCase()
        config.setdefault(
            "backend", {"app": Backend(url="http://127.0.0.1:9999", max_concurrent=1, keep_alive=12.0)}
        )
        self.rig = self.rig_class(self._case, gate=self.gate_class, **config)  # type: ignore[arg-type]
        self.clock = self.rig.clock
        self.site = site(self.rig)
        self.holding = False
        self.how: Callable[[Seen, Wire], object] = answer_with_echo
        self.wires: list[_RecordingWire] = []
        self.carried: list[bytes] = []
        self._accepted = 0
        self._order: list[tuple[Wire, Seen]] = []
        self._honest = 0

    def close(self) -> None:
        """Everybody leaves; nothing may be left."""
        self.rig.clients.clear()
        self.rig.check_nothing_left()

    def connect(self) -> ClientWire:
        """A client connects."""
        wire = ClientWire(self.clock, self.site.buildProtocol(None))
        self.rig.clients.append(wire)
        return wire

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        busy = True
        while busy:
            self.clock.advance(0)
            busy = False
            while self._accepted < self.rig.connections:
                factory = self.clock.tcpClients[self._accepted][2]
                self._accepted += 1
                wire = _RecordingWire(self.clock, factory.buildProtocol(None), self._order)
                self.wires.append(wire)
                self.rig.backends.append(wire)
            if not self.holding:
                for wire in self.wires:
                    busy = wire.answer(self.how) or busy

    def send(self, *pieces: bytes, hold: bool = False) -> Result:
        """
        A client sends these pieces one after another, and reads to the end of what it is answered.

        @param hold: the backend answers nothing before all is sent.
        @raise Malformed: a connection to the backend, or the client's, carries what it must not.
        """
        admitted = self.rig.gate.admitted
        client, failed = self.connect(), ""
        self.holding = hold
        for piece in pieces:
            if client.lost:
                break
            try:
                client.receive(piece)
            except Exception as error:
                failed = repr(error)
                client.lose(error)  # as the reactor does
            self.settle()
        self.holding = False
        self.settle()
        self.clock.advance(5)  # a refusal lingers
        self.settle()
        ended = client.lost
        client.lose()
        self.settle()
        self.rig.clients.remove(client)
        seen = self.arrived()
        got = answers(client.value())
        return Result(seen, got, ended, self.rig.gate.admitted - admitted, failed, tuple(self.carried))

    def arrived(self) -> list[Seen]:
        """What has reached the backend since this was last asked, in the order in which it was answered."""
        order = self._order[:]
        self._order.clear()
        self.carried.clear()
        for wire in self.wires:
            if wire.broken:
                raise Malformed(wire.broken)
            carried = wire.taken()
            if carried:
                self.carried.append(carried)
            if agreed(carried) != [seen for other, seen in order if other is wire]:
                raise Malformed("a request that was not answered")
        self.wires = [wire for wire in self.wires if not wire.lost]
        return [seen for _, seen in order]

    def honest(self) -> None:
        """
        An honest client, on a connection of its own, is served as ever.

        @raise Malformed: it is not.
        """
        self._honest += 1
        identity = b"honest-%d" % self._honest
        result = self.send(
            # Without a body, so that it may come over a connection that was used before.
            b"GET /honest HTTP/1.1\r\nHost: honest\r\nX-Id: %b\r\n\r\n" % identity
        )
        if len(result.seen) != 1 or len(result.got) != 1:
            raise Malformed(f"an honest client: {result}")
        seen, got = result.seen[0], result.got[0]
        if got.body != b"GET /honest %b 0" % identity or seen.body or result.admitted != 1:
            raise Malformed(f"an honest client: {result}")
        if seen.values(b"host") != [b"honest"]:
            raise Malformed(f"an honest client's Host: {seen}")
