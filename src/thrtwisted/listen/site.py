"""The site: what the ports serve, to how many, and its access log."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.http import combinedLogFormatter, datetimeToLogString
from twisted.web.iweb import IAccessLogFormatter
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import provider

from thrtwisted.config import Bounds
from thrtwisted.errors import ExchangeError, TooManyConnections
from thrtwisted.forward.disk import Disk, RequestFile
from thrtwisted.networks import Trusted

from .channel import Channel
from .connections import Connections, client_of
from .request import ProxyRequest

#: Seconds from the end of a request to its line in the access log.
LOG_DELAY = 0.01

#: Clients that are turned away at the same time and told so; what comes beyond is reset.
TOLD = 200

#: Seconds between two lines in the log about clients that were turned away.
QUIET = 10.0


#: Bytes of a target or a header that a line of the access log shows; each may take four characters.
SHOWN = 1000


class _Brief:
    """A request as a line of the access log has room for it, whatever the client has sent."""

    def __init__(self, request: Any) -> None:
        self.method, self.uri, self.clientproto = request.method, _cut(request.uri), request.clientproto
        self.code, self.sentLength = request.code, request.sentLength
        self.getClientAddress = request.getClientAddress
        self._request = request

    def getHeader(self, name: bytes) -> bytes | None:
        """The last value of a header; None without one."""
        value = self._request.getHeader(name)
        return None if value is None else _cut(value)


def _cut(value: bytes) -> bytes:
    return value if len(value) <= SHOWN else value[:SHOWN] + b"..."


@provider(IAccessLogFormatter)
def dated_line(_: str, request: Any) -> str:
    """A line of the access log, with the time of day: what the reactor measures time by need not be that."""
    line: str = combinedLogFormatter(datetimeToLogString(time.time()), _Brief(request))
    return line


class ProxySite(Site):
    """
    A site that holds its clients to bounds. It speaks HTTP/1.1, and HTTP/1.0 to those who do.

    It writes its access log a moment later: the slot of a request that has just ended is given away first, which a line
    of the log would delay by half a millisecond.

    @ivar connections: those that count.
    @ivar stopping: each connection is closed after its answer.
    """

    requestFactory: Any = ProxyRequest
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        resource: IResource,
        bounds: Bounds | None = None,
        trusted: Trusted | None = None,
        disk: Disk | None = None,
        kept: frozenset[bytes] = frozenset(),
    ) -> None:
        """
        @param clock: tells the time.
        @param resource: the root. It may have a method C{wants_body(request)}: whether a client that asks (C{Expect:
            100-continue}) may send its request's body. The request has a head only. It may return a Deferred, which is
            cancelled if the client leaves, or the site stops.
        @param trusted: whose connections are not counted per client.
        @param disk: what requests and responses together may keep there; C{bounds.spool} by default.
        @param kept: names, in lower case, of headers that no Connection header takes away.
        """
        super().__init__(  # type: ignore[no-untyped-call]
            resource, parsePOSTFormSubmission=False, timeout=None, logFormatter=dated_line, reactor=clock
        )
        self.clock = clock
        self.bounds = bounds or Bounds()
        self.kept = kept
        self.stopping = False
        self.connections: Connections[Channel] = Connections(
            self.bounds.connections, self.bounds.connections_per_client
        )
        self._trusted = trusted or Trusted()
        self._disk = disk or Disk(self.bounds.spool)
        self._channels: set[Channel] = set()
        self._turned_away: set[Channel] = set()
        self._parting: set[Channel] = set()  # who was there when it stopped, and still is
        self._parted: list[Deferred[None]] = []
        self._unsaid = 0
        self._quiet_until = 0.0
        self._ended: list[Any] = []
        self._writing: IDelayedCall | None = None

    # IProtocolFactory

    def buildProtocol(self, addr: object) -> Channel:  # type: ignore[override]
        """A channel for a client."""
        return Channel(self)

    def acceptableProtocols(self) -> list[bytes]:
        """What is spoken over TLS: not HTTP/2, whatever is installed."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """The first port is opened."""
        self.stopping = False
        super().startFactory()

    def stopFactory(self) -> None:
        """The last port is closed: so are the connections, at once or after their answers."""
        self.stop()
        super().stopFactory()

    # From the proxy

    def stop(self) -> None:
        """
        Close the connections, at once or after their answers, which say so. It may be said again.

        Ports that are still open serve new ones, each of them once.
        """
        self.stopping = True
        self._parting |= self._channels
        for channel in list(self._channels):
            channel.stop()
        if self._writing is not None:
            self._writing.cancel()
            self._write()

    def part(self, seconds: float) -> Deferred[None]:
        """
        Wait until the clients that were there at the L{stop} have taken what they are owed.

        @param seconds: past which those who are left are broken off, in disorder: else a part of an answer could look
            like all of it.
        @return: fires when their connections are closed. Never errbacks; do not cancel it.
        """
        if not self._parting:
            return succeed(None)
        late = self.clock.callLater(seconds, self._break_off)

        def parted(_: None) -> None:
            if late.active():
                late.cancel()

        self._parted.append(Deferred().addCallback(parted))
        return self._parted[-1]

    # From channels

    def opened(self, channel: Channel) -> bool:
        """There is one more connection; whether it may stay."""
        self._channels.add(channel)
        try:
            idle = self.connections.open(channel, self.clock.seconds())
        except TooManyConnections as error:
            self._turn_away(channel, error)
            return False
        if idle is not None:
            idle.make_room()
        return True

    def identified(self, channel: Channel) -> bool:
        """It is known where a connection comes from; whether it may stay."""
        peer: Any = channel.getPeer()
        host = None if isinstance(peer, UNIXAddress) else getattr(peer, "host", None)
        if host is None or self._trusted.covers(host):
            return True
        try:
            self.connections.belongs(channel, client_of(host))
        except TooManyConnections as error:
            self.connections.close(channel)
            self._turn_away(channel, error)
            return False
        return True

    def closed(self, channel: Channel) -> None:
        """A connection is over."""
        self.connections.close(channel)
        self._channels.discard(channel)
        self._turned_away.discard(channel)
        self._parting.discard(channel)
        if not self._parting:
            parted, self._parted = self._parted, []
            for waiting in parted:
                waiting.callback(None)

    def make_file(self) -> RequestFile:
        """A file for a request's body."""
        return RequestFile(self._disk)

    def log(self, request: Any) -> None:
        """Write a line about a request that has ended, soon."""
        if self.stopping:
            super().log(request)
            return
        self._ended.append(request)
        if self._writing is None:
            self._writing = self.clock.callLater(LOG_DELAY, self._write)

    def _break_off(self) -> None:
        for channel in list(self._parting):
            channel.abort()

    def _write(self) -> None:
        self._writing = None
        ended, self._ended = self._ended, []
        for request in ended:
            super().log(request)

    def _turn_away(self, channel: Channel, error: ExchangeError) -> None:
        """Answer a client that is one too many; in a flood of them no answer is worth its price."""
        self._unsaid += 1
        now = self.clock.seconds()
        if now >= self._quiet_until:
            self._log.warn("Clients turned away: {count}. {error}", count=self._unsaid, error=error)
            self._unsaid = 0
            self._quiet_until = now + QUIET
        if len(self._turned_away) >= TOLD:
            channel.abort()
        else:
            self._turned_away.add(channel)
            channel.turn_away(error)
