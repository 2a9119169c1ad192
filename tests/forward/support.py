"""What the tests of forwarding stand on: a front that forwards, in memory or on sockets, and backends of raw bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from thrtwisted.config import Backend
from thrtwisted.errors import ExchangeError
from thrtwisted.exchange import Exchange
from thrtwisted.forward import Forwarder, Forwarding, RequestBody, origin_form
from thrtwisted.forward.disk import Disk

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@inlineCallbacks
def until(condition: Callable[[], Any]):
    """Wait until a condition holds; trial's own time limit ends a wait in vain."""
    while not condition():
        yield deferLater(reactor, 0.001)


class Front(Resource):
    """The least that a proxy's resource does: every request is forwarded at once."""

    isLeaf = True

    def __init__(self, forwarder: Forwarder) -> None:
        super().__init__()
        self.forwarder = forwarder
        self.forwardings: list[Forwarding] = []
        self.errors: list[ExchangeError] = []
        self.delivered: list[Deferred[None]] = []
        self.done: list[Forwarding] = []

    def render(self, request):
        try:
            target, host = origin_form(request.uri, request.method)
        except ExchangeError as error:
            self._refuse(request, error)
            return NOT_DONE_YET
        if host is not None:
            request.requestHeaders.setRawHeaders(b"host", [host])
        exchange = Exchange(request.method, target, request.requestHeaders, client="", backend="app")
        forwarding = self.forwarder.send(exchange, RequestBody.take(request))
        self.forwardings.append(forwarding)
        gone = []
        request.notifyFinish().addErrback(lambda _: (gone.append(True), forwarding.abandon()))
        forwarding.done.addCallback(lambda _: self.done.append(forwarding))

        def head_came(head):
            if not gone:
                request.setResponseCode(head.status, head.phrase)
                request.responseHeaders = head.headers.copy()
                self.delivered.append(forwarding.deliver(request))

        def failed(failure):
            self.errors.append(failure.value)
            if not gone:
                self._refuse(request, failure.value)

        forwarding.head.addCallbacks(head_came, failed)
        return NOT_DONE_YET

    def _refuse(self, request, error):
        error = error if isinstance(error, ExchangeError) else ExchangeError(repr(error))
        request.setResponseCode(error.status)
        request.setHeader(b"content-length", b"0")
        request.finish()


class Wire(StringTransport):
    """
    One end of a connection in memory.

    @ivar congested: the other side takes nothing more: a streaming producer is paused by each write.
    """

    congested = False
    aborted = False

    def __init__(self, clock, protocol):
        super().__init__(lenient=True)
        self.clock = clock
        self.protocol = protocol
        self.lost = False
        protocol.makeConnection(self)

    def write(self, data):
        super().write(data)
        self._congest()

    def writeSequence(self, data):
        super().writeSequence(data)
        self._congest()

    def _congest(self):
        if self.congested and self.producer is not None:
            self.producer.pauseProducing()

    def relieve(self):
        """The other side takes bytes again."""
        self.congested = False
        self.producer.resumeProducing()

    def resume(self):
        """The other side takes a little more."""
        self.producer.resumeProducing()

    def receive(self, data):
        """Bytes arrive from the other side."""
        self.protocol.dataReceived(data)

    def loseConnection(self):
        if not self.disconnecting:
            super().loseConnection()
            self.clock.callLater(0, self.lose)

    def abortConnection(self):
        self.aborted = True
        super().loseConnection()
        self.clock.callLater(0, self.lose, ConnectionAborted())

    def lose(self, reason=None):
        """The connection is over."""
        if not self.lost:
            self.lost = True
            if self.producer is not None:
                self.producer.stopProducing()
                self.producer = None
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))


class MemoryRig:
    """A front and its backend in memory, with a clock."""

    wire_class: type[Wire] = Wire

    def __init__(self, test: TestCase, disk: Disk | None = None, **config):
        self.clock = self.make_clock()
        config.setdefault("url", "http://127.0.0.1:80")
        config.setdefault("keep_alive", 10.0)
        self.config = Backend(**config)
        self.disk = disk
        self.forwarder = Forwarder(self.clock, "app", self.config, disk)
        self.way = self.make_way()
        self.front = Front(self.way)
        self.site = Site(self.front, timeout=None, reactor=self.clock, parsePOSTFormSubmission=False)
        self.clients: list[Wire] = []
        test.addCleanup(self.check_nothing_left, test)

    def make_clock(self) -> Any:
        """The reactor."""
        return MemoryReactorClock()

    def make_way(self) -> Any:
        """The way to the backend."""
        return self.forwarder

    def check_nothing_left(self, test):
        """Close everything; the clock must be empty, and every forwarding done."""
        closed = self.forwarder.close()
        for wire in self.clients:
            wire.lose()
        self.clock.advance(0)
        test.successResultOf(closed)
        test.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        test.assertEqual(len(self.front.done), len(self.front.forwardings))
        for forwarding in self.front.forwardings:
            test.assertTrue(forwarding._upload._file.closed)
            if forwarding._download is not None:
                test.assertEqual((len(forwarding._download.spool), forwarding._download.spool.taken), (0, 0))

    def request(self, data: bytes = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") -> Wire:
        """A client connects and sends its request."""
        wire = self.wire_class(self.clock, self.site.buildProtocol(None))
        self.clients.append(wire)
        wire.receive(data)
        return wire

    def accept(self, number: int = -1, **attributes) -> Wire:
        """The backend accepts a connection."""
        factory = self.clock.tcpClients[number][2]
        protocol = factory.buildProtocol(None)
        wire = self.wire_class.__new__(self.wire_class)
        for name, value in attributes.items():
            setattr(wire, name, value)
        wire.__init__(self.clock, protocol)
        return wire

    def refuse(self, error: Exception, number: int = -1) -> None:
        """The connection is not made."""
        factory = self.clock.tcpClients[number][2]
        factory.clientConnectionFailed(None, Failure(error))

    @property
    def forwarding(self) -> Forwarding:
        return self.front.forwardings[-1]

    @property
    def finished(self) -> bool:
        """Whether the last forwarding's slot is free."""
        return self.forwarding in self.front.done


class RawBackendConnection(Protocol):
    """A connection that records what it gets; with an answer it answers each complete request."""

    def __init__(self, backend):
        self.backend = backend
        self.received = b""
        self.lost = False
        self.requests = 0
        self._rest = b""

    def connectionMade(self):
        self.backend.connections.append(self)

    def dataReceived(self, data):
        self.received += data
        self._rest += data
        while self.backend.answer is not None and b"\r\n\r\n" in self._rest:
            head, _, body = self._rest.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(body) < length:
                return
            self._rest = body[length:]
            self.requests += 1
            answer = self.backend.answer
            self.transport.write(answer(head) if callable(answer) else answer)

    def connectionLost(self, reason=None):
        self.lost = True


class RawBackend(Factory):
    """
    A server of raw bytes.

    @ivar answer: bytes, or what makes them of a request's head; None to answer by hand.
    """

    noisy = False

    def __init__(self, answer=OK):
        self.answer = answer
        self.connections: list[RawBackendConnection] = []

    def buildProtocol(self, addr):
        return RawBackendConnection(self)

    @property
    def received(self) -> bytes:
        """What all connections got together."""
        return b"".join(connection.received for connection in self.connections)


class RawClient(Protocol):
    """A client that records what it gets."""

    def __init__(self):
        self.received = bytearray()
        self.lost: Failure | None = None

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason=None):
        self.lost = reason

    @property
    def body(self) -> bytes:
        return bytes(self.received.partition(b"\r\n\r\n")[2])


class SocketRig:
    """A front and its backend on sockets of 127.0.0.1."""

    def __init__(self, test: TestCase, **config):
        self.test = test
        self.config = config
        self.backend = RawBackend()
        self.clients: list[RawClient] = []
        self.ports: list[Any] = []

    @inlineCallbacks
    def start(self):
        """Listen. What was opened is closed at the end of the test, in the order in which a proxy would."""
        self.test.addCleanup(self.stop)
        if "url" not in self.config:
            port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.backend)
            self.ports.append(port)
            self.config["url"] = f"http://127.0.0.1:{port.getHost().port}"
        self.forwarder = Forwarder(reactor, "app", Backend(**self.config))
        self.front = Front(self.forwarder)
        site = Site(self.front, timeout=None, parsePOSTFormSubmission=False)
        self.site_port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        self.ports.append(self.site_port)
        return self

    @inlineCallbacks
    def stop(self):
        for client in self.clients:
            client.transport.abortConnection()
        yield self.forwarder.close()
        for port in self.ports:
            yield port.stopListening()
        for connection in self.backend.connections:
            if not connection.lost:
                connection.transport.abortConnection()
        yield until(lambda: all(c.lost for c in self.clients + self.backend.connections))
        self.test.assertEqual(len(self.front.done), len(self.front.forwardings))

    @inlineCallbacks
    def request(self, data: bytes, client=None):
        """Connect as a client and send this."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.site_port.getHost().port)
        client = yield connectProtocol(endpoint, client or RawClient())
        self.clients.append(client)
        client.transport.write(data)
        return client

    @inlineCallbacks
    def exchange(self, data: bytes, end: bytes = b"ok"):
        """Send a request, and wait for the end of the answer and of the forwarding."""
        number = len(self.front.forwardings) + 1
        client = yield self.request(data)
        yield until(lambda: client.received.endswith(end) or client.lost)
        yield until(lambda: len(self.front.done) == number)
        return client
