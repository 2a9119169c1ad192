"""
Connections to a backend: opened through endpoints, kept in a pool, and watched from below Twisted's client.

Twisted's HTTP client alone leaves five things unsaid that a proxy must know, so each connection has a thin
shell between the socket and the client: how the connection was lost (a reset, too, ends a body that has no
length, but that body was cut); that it was lost at all (garbage during an upload makes the client forget its
request); bytes that nobody asked for, after which nothing on that connection can be trusted; an answer that
comes while the request is still being sent, which the client would leave unread; and C{Connection: Close},
which the client heeds in small letters only.
"""

from __future__ import annotations

import re
from typing import Any
from typing import Protocol as Shape
from urllib.parse import urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool
from zope.interface import implementer

from thrtwisted.config import Backend

#: Bytes of an answer that are read while its request is still being sent: enough for any refusal (413, 401).
EARLY = 1024 * 1024
#: Bytes of a response's head that are searched for the end of its connection.
HEAD = 64 * 1024
_END = re.compile(rb"^connection:[^\r\n]*\bclose\b", re.IGNORECASE | re.MULTILINE)
#: Idle connections kept for one URL. Against endless growth only: keep_alive closes them long before.
MAX_IDLE = 10_000


class HTTPClientConnection(Shape):
    """What we use of Twisted's HTTP client protocol."""

    state: str
    transport: Any

    def abort(self) -> Deferred[None]: ...


class Occupant(Shape):
    """The exchange on a connection."""

    def connection_lost(self) -> None:
        """The connection is gone, and Twisted's client has been told."""


class Connection(Protocol):
    """
    The shell of one connection.

    @ivar occupant: who is told when the connection is lost; None while it is idle.
    @ivar reset: the connection was lost in another way than by an orderly end.
    """

    occupant: Occupant | None = None
    reset = False
    _log = Logger()

    def __init__(self, watched: WatchedEndpoint, client: Any) -> None:
        self._watched = watched
        self.client: HTTPClientConnection = client
        self._protocol: IProtocol = client
        self._early = 0
        self._head: bytearray | None = None

    def connectionMade(self) -> None:
        self._watched.opened(self)
        assert self.transport is not None
        self._protocol.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self.client.state == "QUIESCENT":
            self.discard()  # an unasked answer must not be taken for that of the next request
            return
        if self._head is not None:
            self._head += data[: HEAD - len(self._head)]
        self._protocol.dataReceived(data)
        if self.client.state == "TRANSMITTING":
            # The client stopped reading at the head, until the request is sent: both could wait for ever.
            self._early += len(data)
            if self._early <= EARLY:
                self.client.transport.resumeProducing()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.reset = reason.check(ConnectionDone) is None
        self._watched.closed(self)
        try:
            self._protocol.connectionLost(reason)
        except Exception:  # the client does so when it gave up before its request was sent
            self._log.failure("Twisted's client failed to take note of a lost connection")
        finally:
            occupant, self.occupant = self.occupant, None
            if occupant is not None:
                occupant.connection_lost()

    def occupy(self, occupant: Occupant) -> None:
        """An exchange begins on this connection."""
        self.occupant = occupant
        self._early = 0
        self._head = bytearray()

    def announced_its_end(self) -> bool:
        """Whether the response's head, which has just come, says that the connection will be closed."""
        head, self._head = self._head, None
        return head is not None and _END.search(head) is not None

    def retire(self) -> None:
        """Let no other exchange have this connection, and close it in order if its exchange ended in order."""
        if self.client.state == "QUIESCENT":
            self.client.abort()
        else:
            self.discard()

    def discard(self) -> None:
        """Let no other exchange have this connection, and close it at once, unsent bytes included."""
        if self.client.state == "QUIESCENT":
            self.client.abort()  # the pool hands out only quiescent ones
        self.client.transport.abortConnection()


@implementer(IProtocolFactory)
class _ShellFactory:
    def __init__(self, watched: WatchedEndpoint, clients: IProtocolFactory) -> None:
        self._watched = watched
        self._clients = clients

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        client = self._clients.buildProtocol(addr)
        return None if client is None else Connection(self._watched, client)

    def doStart(self) -> None:
        """Nothing: the client's factory would log each connection."""

    def doStop(self) -> None:
        """Nothing, likewise."""


@implementer(IStreamClientEndpoint)
class WatchedEndpoint:
    """An endpoint that knows its open connections, by the client protocols that use them."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self._open: dict[Any, Connection] = {}
        self._closed: list[Deferred[None]] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @return: fires with the protocol of the factory (not with its shell). Errbacks as the endpoint does.
            Cancelling stops connecting.
        """
        connecting: Deferred[Any] = self._endpoint.connect(_ShellFactory(self, protocolFactory))
        return connecting.addCallback(lambda connection: connection.client)

    def of(self, client: object) -> Connection | None:
        """The shell of an open connection; None if it is lost."""
        return self._open.get(client)

    def opened(self, connection: Connection) -> None:
        self._open[connection.client] = connection

    def closed(self, connection: Connection) -> None:
        self._open.pop(connection.client, None)
        if not self._open:
            waiting, self._closed = self._closed, []
            for deferred in waiting:
                deferred.callback(None)

    def close(self) -> Deferred[None]:
        """
        Close all connections at once.

        @return: fires when none is open. Never errbacks.
        """
        if not self._open:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        for connection in list(self._open.values()):
            connection.discard()
        return closed


class Route:
    """
    The way to one URL of a backend.

    @ivar authority: the host and port of the URL, for requests without a Host header.
    """

    def __init__(self, reactor: Any, url: str, config: Backend) -> None:
        """@raise ValueError: the URL is neither C{http://host[:port]} nor C{unix:///path}."""
        endpoint, self.authority = _endpoint(reactor, url, config.connect_timeout)
        self.endpoint = WatchedEndpoint(endpoint)
        self.pool = HTTPConnectionPool(reactor, persistent=config.keep_alive > 0)
        self.pool.retryAutomatically = False
        self.pool.maxPersistentPerHost = MAX_IDLE
        self.pool.cachedConnectionTimeout = config.keep_alive  # type: ignore[assignment]

    def close(self) -> Deferred[None]:
        """
        Close all connections, idle or not.

        @return: fires when no connection and no delayed call is left. Never errbacks.
        """
        closed = self.endpoint.close()
        self.pool.closeCachedConnections()
        return closed


def _endpoint(reactor: Any, url: str, timeout: float) -> tuple[IStreamClientEndpoint, bytes]:
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return UNIXClientEndpoint(reactor, parts.path, timeout=timeout), b"localhost"
    host = parts.hostname
    if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise ValueError(f"a backend's url is http://host[:port] or unix:///path, not {url!r}")
    authority = parts.netloc.encode("idna" if not parts.netloc.isascii() else "ascii")
    port = parts.port or 80
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout), authority
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout), authority
    return HostnameEndpoint(reactor, host, port, timeout), authority
