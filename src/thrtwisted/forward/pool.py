"""
The connections to one URL of a backend: opened, kept while they are idle, and closed.

The last one that became idle is used first: it is the one that the backend will close last, and when there is less to
do the others grow old and are closed. Before it is used its socket is looked at: a connection that the backend has
closed, or on which it spoke out of turn, is passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, TimeoutError, inlineCallbacks, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from thrtwisted.config import Backend
from thrtwisted.tls import Security

from .address import BackendAddress
from .connection import Connection

#: Seconds from one address of a name to the next, while none of them has answered. RFC 8305, section 5, proposes 0.25
#: on the way to anywhere; a backend is near.
NEXT_ADDRESS = 0.02
#: Seconds until a unix socket is tried again that has too many connections which its server has not accepted.
NEXT_LOOK = 0.05


class Pool:
    """
    The connections to one URL.

    @ivar address: of the URL.
    @ivar persistent: connections are kept. With TLS only where a request may be sent again in any case (C{retries}):
        above it nobody sees whether a backend that closed one had read a request.
    """

    def __init__(
        self, reactor: Any, address: BackendAddress, config: Backend, security: Security | None
    ) -> None:
        """
        @param reactor: provides IReactorTime and what the address needs of IReactorTCP, IReactorUNIX and
            IReactorPluggableNameResolver.
        @param security: for TLS.
        """
        self.address = address
        self.persistent = config.keep_alive > 0 and (config.retries > 0 or not address.tls)
        self._reactor = reactor
        self._security = security if address.tls else None
        self._timeout = config.connect_timeout
        self._keep_alive = config.keep_alive
        self._endpoint = _endpoint(reactor, address, config.connect_timeout)
        self._open: set[Connection] = set()
        self._idle: deque[tuple[float, Connection]] = deque()
        self._sweep: Any = None
        self._closing: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<Pool {self.address.url}, {len(self._open)} open, {len(self._idle)} idle>"

    def connect(self) -> Deferred[Connection]:
        """
        Open a connection.

        @return: fires with it, TLS and all. Errbacks as endpoints do, or with what L{thrtwisted.tls.complaint} knows.
            Cancelling stops it.
        """
        tls = self._security.client(self.address.host) if self._security is not None else None
        connection = Connection(self._reactor, tls, self._lost)
        factory = Factory.forProtocol(lambda: self._opened(connection))
        factory.noisy = False
        endpoint = self._endpoint if tls is None else wrapClientTLS(tls, self._endpoint)
        connecting: Deferred[Any] = (
            self._unix(factory) if self.address.kind == "unix" else endpoint.connect(factory)
        )
        if tls is not None:
            connecting.addCallback(lambda _: connection.secured)
        # For all of it: a name's resolution, each of its addresses, the wait for a crowded socket, TLS.
        return connecting.addTimeout(self._timeout, self._reactor, _too_late)

    @inlineCallbacks
    def _unix(self, factory: Factory[Any]) -> Generator[Deferred[Any], Any, Any]:
        """
        Connect to a unix socket.

        Where its server has not accepted enough, connect(2) says EAGAIN, and does not wait as TCP does. Twisted's
        reactor takes that for a connection that has begun, and then was closed: an error without a number.
        """
        while True:
            try:
                connection = yield self._endpoint.connect(factory)
            except ConnectError as error:
                if type(error) is not ConnectError or error.osError is not None:
                    raise
            else:
                return connection
            yield deferLater(self._reactor, NEXT_LOOK)

    def take(self) -> Connection | None:
        """An idle connection that can be used, the youngest; None if there is none."""
        now = self._reactor.seconds()
        while self._idle:
            since, connection = self._idle.pop()
            if now - since < self._keep_alive and connection.usable:
                return connection
            connection.retire()
        return None

    def give(self, connection: Connection) -> None:
        """Its exchange has ended in order: keep it for the next one."""
        self._idle.append((self._reactor.seconds(), connection))
        if self._sweep is None:
            self._sweep = self._reactor.callLater(self._keep_alive, self._close_old)

    def close(self) -> Deferred[None]:
        """
        Close all connections at once, idle or not.

        @return: fires when no connection and no delayed call is left. Never errbacks.
        """
        self._idle.clear()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if not self._open:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        for connection in list(self._open):
            connection.discard()
        return closed

    def _close_old(self) -> None:
        """The oldest are in front. One timer does for all."""
        self._sweep = None
        now = self._reactor.seconds()
        while self._idle and (self._idle[0][1].lost or self._idle[0][0] + self._keep_alive <= now):
            self._idle.popleft()[1].retire()
        if self._idle:
            wait = max(0.0, self._idle[0][0] + self._keep_alive - now)
            self._sweep = self._reactor.callLater(wait, self._close_old)

    def _opened(self, connection: Connection) -> Connection:
        self._open.add(connection)
        return connection

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            closing, self._closing = self._closing, []
            for closed in closing:
                closed.callback(None)


def _too_late(result: Any, seconds: float) -> Any:
    """What becomes of the result of connecting, where it was stopped after so many seconds."""
    if isinstance(result, Failure):  # which says that it was cancelled, in several ways
        raise TimeoutError(seconds, "connecting")
    return result


def _endpoint(reactor: Any, address: BackendAddress, timeout: float) -> IStreamClientEndpoint:
    if address.kind == "unix":
        return UNIXClientEndpoint(reactor, address.path, timeout=timeout)
    host, port = address.host, address.port
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout)
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout)
    # A name such as localhost may have two addresses, the first of which refuses: the next one is not long after.
    return HostnameEndpoint(reactor, host, port, timeout, attemptDelay=NEXT_ADDRESS)
