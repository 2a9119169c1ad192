"""What the tests of authentication stand on: a service in memory, a real gate, and a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.forward.support import Wire
from thrtwisted.auth import Authenticator
from thrtwisted.config import Auth
from thrtwisted.exchange import Exchange
from thrtwisted.gate.local import LocalGate

URL = "http://127.0.0.1:7000/auth"
YES = b"HTTP/1.1 200 OK\r\nX-User: ann\r\nX-Other: 1\r\nContent-Length: 2\r\n\r\nok"
NO = b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 2\r\n\r\nno'


def exchange(method: bytes = b"GET", target: bytes = b"/x", priority: int = 50, **headers: str) -> Exchange:
    """A request; an underscore in the name of a header stands for a hyphen."""
    fields = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
    return Exchange(method, target, fields, client="192.0.2.1", backend="app", priority=priority)


class AuthCase(SynchronousTestCase):
    """
    An authenticator, and its service.

    @ivar said: what the log says of it.
    """

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(1000)
        self.gate = LocalGate(self.clock)
        self.wires: list[Wire] = []
        self.said: list[str] = []
        self._under_test: list[Authenticator] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)
        self.addCleanup(self.check_nothing_left)

    def _observe(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace", "").startswith("thrtwisted.auth") and "log_failure" not in event:
            self.said.append(event["log_format"].format(**event))

    def make(self, **config: Any) -> Authenticator:
        """An authenticator."""
        config.setdefault("url", URL)
        config.setdefault("copy_headers", ["X-User"])
        made = Authenticator(self.clock, "main", Auth(**config), self.gate, queue_timeout=20.0)
        self._under_test.append(made)
        return made

    def accept(self) -> Wire:
        """The service accepts the next connection."""
        factory = self.clock.tcpClients[len(self.wires)][2]
        self.wires.append(Wire(self.clock, factory.buildProtocol(None)))
        return self.wires[-1]

    def refuse(self, error: Exception) -> None:
        """The service does not accept the next connection."""
        factory = self.clock.tcpClients[len(self.wires)][2]
        factory.clientConnectionFailed(None, Failure(error))
        self.wires.append(Wire.__new__(Wire))
        self.wires[-1].lost = True

    @property
    def connections(self) -> int:
        """How many connections were asked for."""
        return len(self.clock.tcpClients)

    def answer(self, data: bytes = YES) -> None:
        """The service accepts a connection, answers, and closes it."""
        wire = self.accept()
        wire.receive(data)
        wire.lose()
        self.clock.advance(0)

    def check_one(self, authenticator: Authenticator, data: bytes = YES, **headers: str) -> Exchange:
        """An exchange is asked about, and the service answers."""
        asked = exchange(**headers)
        checked = authenticator.check(asked)
        self.answer(data)
        self.successResultOf(checked)
        return asked

    def remembered(self, authenticator: Authenticator, asked: Exchange) -> bool:
        """Whether an exchange is decided without the service."""
        before = self.connections
        checked = authenticator.check(asked)
        if self.connections == before:
            self.successResultOf(checked)
            return True
        checked.addErrback(lambda _: None)
        checked.cancel()
        self.wires += [Wire.__new__(Wire)]
        self.wires[-1].lost = True
        return False

    def check_nothing_left(self) -> None:
        """All is closed: no slot is taken, and nothing is left in the reactor."""
        closed = [authenticator.close() for authenticator in self._under_test]
        for wire in self.wires:
            if not wire.lost:
                wire.lose()
        self.clock.advance(0)
        for each in closed:
            self.successResultOf(each)
        self.assertTrue(self.gate.idle, self.gate)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])


def header(asked: Exchange, name: str) -> list[str] | None:
    """The values of a header."""
    return asked.headers.getRawHeaders(name)
