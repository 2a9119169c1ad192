"""What the tests of the listening side stand on: a site in memory, its clients, and a resource."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.forward.support import Wire
from tests.rig import Answer
from thrtwisted.config import Bounds
from thrtwisted.listen.site import ProxySite
from thrtwisted.networks import trusted

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Teller(Resource):
    """
    A resource that notes its requests, and answers them at once or when it is told to.

    @ivar at_once: it answers at once.
    @ivar bodies: of all requests.
    @ivar wanted: what C{wants_body} says; the requests that it was asked about are in C{asked}.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.at_once = False
        self.requests: list[Any] = []
        self.bodies: list[bytes] = []
        self.left: list[Any] = []
        self.asked: list[Any] = []
        self.wanted = True

    def render(self, request: Any) -> int:
        self.requests.append(request)
        self.bodies.append(request.content.read())
        request.notifyFinish().addErrback(lambda _: self.left.append(request))
        if self.at_once:
            self.answer(request)
        return NOT_DONE_YET

    def answer(self, request: Any, body: bytes = b"ok") -> None:
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()

    def wants_body(self, request: Any) -> bool:
        self.asked.append((request.method, request.uri, request.getHeader(b"host"), request.content))
        return self.wanted


class ClientWire(Wire):
    """
    A client's connection, as TCP.

    @ivar half_closed: the proxy has said that it writes no more.
    @ivar reading: the proxy reads from it.
    """

    def __init__(self, clock: Any, protocol: Any, host: str | None) -> None:
        self.host = host
        self.half_closed = False
        self.reading = True
        super().__init__(clock, protocol)

    def getPeer(self) -> Any:
        if self.host is None:
            return object()
        kind = IPv6Address if ":" in self.host else IPv4Address
        return kind("TCP", self.host, 50000)

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self.reading = False

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.reading = True

    def answers(self) -> list[Answer]:
        """What the client got: answers whose bodies are framed by length."""
        data, found = self.value(), []
        while data:
            answer = Answer(data)
            _, _, rest = data.partition(b"\r\n\r\n")
            length = int(answer.header("Content-Length") or 0)
            answer.body = rest[:length]
            data = rest[length:]
            found.append(answer)
        return found

    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers()]

    @property
    def open(self) -> bool:
        """Whether the proxy has not closed it in any way."""
        return not (self.disconnecting or self.half_closed or self.lost)


class ChannelCase(SynchronousTestCase):
    """A site with clients; in the end all have left, and nothing is left of them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.teller = Teller()
        self.wires: list[ClientWire] = []
        self.logged: list[Any] = []
        self.site: Any = None
        self.open_site()
        self.addCleanup(self.check_nothing_left)

    def open_site(self, trust: list[str] | None = None, **bounds: Any) -> ProxySite:
        """The site, with these bounds."""
        if self.site is not None:
            self.check_nothing_left()
        self.site = ProxySite(self.clock, self.teller, Bounds(**bounds), trusted(trust or []))
        self.site.doStart()
        logged = self.logged
        self.site._logFormatter = lambda _, request: f"{logged.append(request)}"
        return self.site  # type: ignore[no-any-return]

    def connect(self, data: bytes = b"", host: str | None = "192.0.2.1") -> ClientWire:
        """A client connects and sends this."""
        wire = ClientWire(self.clock, self.site.buildProtocol(None), host)
        self.wires.append(wire)
        if data:
            wire.receive(data)
        return wire

    def answered(self, wire: ClientWire, status: int) -> Answer:
        """The one answer that a client got, which has this status."""
        [answer] = wire.answers()
        self.assertEqual(answer.status, status)
        return answer

    def refused(self, wire: ClientWire, status: int, error: str = "http_request_error") -> Answer:
        """So, and it is a refusal: the connection is closed as soon as the client has read it."""
        answer = self.answered(wire, status)
        self.assertRegex(answer.header("Proxy-Status") or "", f"^thrtwisted; error={error}; ")
        self.assertEqual(answer.header("Connection"), "close")
        self.assertTrue(wire.half_closed)
        self.assertFalse(wire.disconnecting)
        wire.receive(GET)  # is read, and not understood
        self.answered(wire, status)
        self.clock.advance(2.1)
        self.assertTrue(wire.lost)
        return answer

    def until_over(self, condition: Callable[[], object], step: float, limit: float) -> float:
        """Let time pass until a condition holds; the seconds that it took."""
        passed = 0.0
        while not condition():
            self.assertLess(passed, limit)
            self.clock.advance(step)
            passed += step
        return passed

    def check_nothing_left(self) -> None:
        for wire in self.wires:
            wire.lose()
        self.clock.advance(0)
        self.site.doStop()
        self.assertEqual(len(self.site.connections), 0)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        for request in self.teller.requests:
            content = getattr(request, "content", None)  # which a finished request has no more
            self.assertTrue(content is None or content.closed)


def tcp_pair(test: SynchronousTestCase) -> tuple[socket.socket, socket.socket]:
    """The proxy's end of a TCP connection, and the client's, until the test ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        served, _ = server.accept()
    test.addCleanup(client.close)
    test.addCleanup(served.close)
    return served, client


def fill(served: socket.socket) -> int:
    """Write until the kernel takes no more; how many bytes that were."""
    served.setblocking(False)
    written = 0
    try:
        while True:
            written += served.send(bytes(65536))
    except BlockingIOError:
        return written
