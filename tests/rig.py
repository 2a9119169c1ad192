"""A proxy's resource in memory: clients, a real site, a real gate, real forwarders, and backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from tests.forward.support import Wire
from thrtwisted.auth import Authenticator
from thrtwisted.check import validated
from thrtwisted.config import Backend, Config
from thrtwisted.forward import Forwarder, IForwarder
from thrtwisted.gate import IGate
from thrtwisted.gate.local import LocalGate
from thrtwisted.limits import Limits
from thrtwisted.listen.site import ProxySite
from thrtwisted.resource import ProxyResource

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class RecordedRequest(Request):
    """A request whose body's file the test can look at."""

    contents: list[Any]

    def process(self) -> None:
        self.contents.append(self.content)
        super().process()


class Answer:
    """What a client has got: the first response on its connection."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        self.line = line
        self.status = int(line.split(b" ")[1])
        self.headers = Headers()
        for field in fields:
            name, _, value = field.partition(b": ")
            self.headers.addRawHeader(name, value)

    def header(self, name: str) -> str | None:
        """The one value of a header."""
        values = self.headers.getRawHeaders(name, [])
        assert len(values) < 2, values
        return values[0] if values else None


class Rig:
    """
    A proxy in memory.

    @ivar authenticators: the services that say who may pass; the test's own in place of those of the configuration.
    @ivar forwarders: those who connect to the backends.
    @ivar backends: the connections to the backend, and to services, in the order in which they were accepted.
    """

    wire_class: type[Wire] = Wire

    def __init__(
        self,
        test: SynchronousTestCase,
        gate: Callable[[Any], IGate] | None = None,
        mount: Callable[[Resource], IResource] = lambda resource: resource,
        authenticators: dict[str, Any] | None = None,
        **config: Any,
    ) -> None:
        self.test = test
        self.clock = self.make_clock()
        config.setdefault("backend", {"app": Backend(url="http://127.0.0.1:9999", max_concurrent=1)})
        self.config = validated(Config(**config))
        queue = self.config.queue
        self.gate: Any = gate(self.clock) if gate else self.make_gate(queue.max_waiting)
        self.forwarders = {
            name: Forwarder(self.clock, name, backend) for name, backend in self.config.backend.items()
        }
        self.ways = self.make_ways()
        limits = Limits(self.config)
        self.authenticators: dict[str, Any] = {
            name: Authenticator(self.clock, name, auth, self.gate, queue.timeout, limits)
            for name, auth in self.config.auth.items()
        } | (authenticators or {})
        self.resource = ProxyResource(
            self.clock, self.config, limits, self.gate, self.ways, self.authenticators
        )
        self.site = self.make_site(mount(self.resource))
        self.contents: list[Any] = []
        contents = self.contents
        kinds = (RecordedRequest, self.site.requestFactory)
        self.site.requestFactory = type("R", kinds, {"contents": contents})  # type: ignore
        self.site.doStart()
        self.clients: list[Wire] = []
        self.backends: list[Wire] = []
        test.addCleanup(self.check_nothing_left)

    def make_clock(self) -> MemoryReactorClock:
        """The reactor."""
        return MemoryReactorClock()

    def make_gate(self, max_waiting: int) -> LocalGate:
        """What admits."""
        return LocalGate(self.clock, max_waiting=max_waiting)

    def make_ways(self) -> Mapping[str, IForwarder]:
        """A way to each backend."""
        return self.forwarders

    def make_site(self, root: IResource) -> Site:
        """What the clients connect to: what the proxy has at its own ports."""
        return ProxySite(self.clock, root, self.config.bounds, kept=self.resource.kept)

    def request(self, data: bytes = GET) -> Wire:
        """A client connects and sends its request."""
        wire = self.wire_class(self.clock, self.site.buildProtocol(None))
        self.clients.append(wire)
        wire.receive(data)
        return wire

    def accept(self) -> Wire:
        """The backend accepts the next connection."""
        factory = self.clock.tcpClients[len(self.backends)][2]
        wire = self.wire_class(self.clock, factory.buildProtocol(None))
        self.backends.append(wire)
        return wire

    def refuse(self, error: Exception) -> None:
        """The last connection to the backend fails."""
        self.clock.tcpClients[-1][2].clientConnectionFailed(None, Failure(error))

    @property
    def connections(self) -> int:
        """How many connections to the backend were asked for."""
        return len(self.clock.tcpClients)

    def check_nothing_left(self) -> None:
        """Everybody leaves and all is closed: no ticket, no slot, no timer, no open file, no exchange."""
        closed = [way.close() for way in self.ways.values()]
        closed += [authenticator.close() for authenticator in self.authenticators.values()]
        for wire in self.clients + self.backends:
            wire.lose()
        self.site.doStop()
        self.clock.advance(0)
        for deferred in closed:
            self.test.successResultOf(deferred)
        self.test.successResultOf(self.resource.when_idle())
        self.test.assertTrue(self.gate.idle, self.gate)
        self.test.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        self.test.assertTrue(all(content.closed for content in self.contents))


class PlainRig(Rig):
    """A proxy whose resource is served by a site of Twisted's, as in another program."""

    def make_site(self, root: IResource) -> Site:
        return Site(root, timeout=None, reactor=self.clock, parsePOSTFormSubmission=False)


def one_slot(**backend: Any) -> dict[str, Any]:
    """A configuration with one backend that has one slot."""
    return {"backend": {"app": Backend(url="http://127.0.0.1:9999", max_concurrent=1, **backend)}}
