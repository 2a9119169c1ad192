"""
Connections to Redis servers: TLS, the name, the password and the database, and then commands.

txredisapi brings the protocols. Connecting and logging in is done here, for its own factories stop for ever when a
connection is lost during AUTH or SELECT, queue commands without end while Redis is away, and do not verify TLS.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import txredisapi
from twisted.internet.defer import CancelledError, Deferred, DeferredList, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from thrtwisted.tls import Client, Security

from .replies import Replies
from .url import RedisAddress

#: Seconds for a short question to a sentinel or to a node of a cluster, connecting included: others can be asked too.
ASK_LIMIT = 1.0

#: Seconds between the attempts to connect to the addresses of one host. A refusal, too, is told only so much later.
ATTEMPT_DELAY = 0.05


class _Connection:
    """
    What txredisapi's protocols lack.

    @ivar secured: fires when TLS stands, or the connection is lost before.
    @ivar problem: what is wrong with the other side, where that is known.
    @ivar end: why the connection was lost, once it is.
    @ivar tls: the TLS of this connection, if any.
    """

    transport: Any
    problem: Exception | None = None
    end: BaseException | None = None
    tls: Client | None = None

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)  # type: ignore[call-arg]
        self._replies = Replies()
        self.secured: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:
        """See L{IHandshakeListener}."""
        if self.tls is not None and not self.tls.is_named(self.transport.getHandle()):
            self.transport.abortConnection()
        elif not self.secured.called:
            self.secured.callback(None)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Read replies; whoever sends something else is no Redis."""
        try:
            replies = self._replies.feed(data)
        except txredisapi.InvalidData as problem:
            self.problem = problem
            self.transport.abortConnection()
            return
        for reply in replies:
            self.replyReceived(reply)  # type: ignore[attr-defined]

    def _build_command(self, *words: object, **_: object) -> bytes:
        """A command as bytes; txredisapi's takes four times as long."""
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts += (b"$%d\r\n" % len(data), data, b"\r\n")
        return b"".join(parts)

    def connectionLost(self, why: Failure) -> None:
        """Remember why; what was under way fails."""
        self.end = self.problem or (self.tls and self.tls.problem) or why.value
        if not self.secured.called:
            self.secured.callback(None)
        super().connectionLost(why)  # type: ignore[misc]


@implementer(IHandshakeListener)
class Commands(_Connection, txredisapi.RedisProtocol):  # type: ignore[misc]
    """A connection for commands."""


@implementer(IHandshakeListener)
class Messages(_Connection, txredisapi.SubscriberProtocol):  # type: ignore[misc]
    """
    A connection for messages.

    @ivar received: is called with each.
    """

    received: Callable[[bytes], None]

    def messageReceived(self, pattern: object, channel: object, message: bytes) -> None:
        """A message has arrived on a channel that was subscribed to."""
        self.received(message)


class Dialer:
    """
    Opens connections, and closes what it has opened.

    @param security: for TLS.
    @ivar reactor: connects, and tells the time.
    """

    def __init__(self, reactor: Any, security: Security | None) -> None:
        self.reactor = reactor
        self._security = security
        self._connections: list[Any] = []

    @inlineCallbacks
    def open(self, address: RedisAddress, protocol: type[Any] = Commands) -> Generator[Any, Any, Any]:
        """
        A connection that can be used.

        @return: fires with it. Errbacks with what L{thrtwisted.redis.trouble} knows. Cancelling closes it.
        """
        connection = protocol()
        endpoint: IStreamClientEndpoint
        if address.kind == "unix":
            endpoint = UNIXClientEndpoint(self.reactor, address.path)
        else:
            endpoint = HostnameEndpoint(self.reactor, address.host, address.port, attemptDelay=ATTEMPT_DELAY)
        if address.tls:
            assert self._security is not None
            connection.tls = self._security.client(address.host)
            endpoint = wrapClientTLS(connection.tls, endpoint)
        factory = Factory.forProtocol(lambda: connection)
        factory.noisy = False
        yield _plainly(endpoint.connect(factory))
        self._connections.append(connection)
        connection.whenDisconnected().addCallback(self._connections.remove)
        try:
            if address.kind == "tcp":
                # Else the end of a batch of more than a packet waits until Redis has acknowledged its beginning.
                connection.transport.setTcpNoDelay(True)
            if address.tls:
                yield connection.secured
            yield self._log_in(connection, address)
            if connection.end is not None:
                raise connection.end
        except BaseException:
            connection.transport.abortConnection()
            raise
        return connection

    @inlineCallbacks
    def _log_in(self, connection: Any, address: RedisAddress) -> Generator[Any, Any, None]:
        if address.password is not None:
            user = [] if address.username is None else [address.username]
            try:
                yield self.command(connection, "AUTH", *user, address.password)
            except txredisapi.ResponseError as problem:
                raise txredisapi.ResponseError(str(problem).replace(address.password, "***")) from None
        if address.database:
            yield self.command(connection, "SELECT", address.database)

    @inlineCallbacks
    def command(self, connection: Any, *command: object) -> Generator[Any, Any, Any]:
        """
        What the server answers.

        @return: errbacks with C{txredisapi.ResponseError}, or with the reason why the connection was lost.
        """
        try:
            reply = yield connection.execute_command(*command)
        except txredisapi.ConnectionError:
            raise connection.end from None
        except txredisapi.ResponseError as problem:
            # Some servers repeat what they do not know.
            raise txredisapi.ResponseError(str(problem).partition(", with args beginning with")[0]) from None
        return reply

    def ask(self, address: RedisAddress, *command: object) -> Deferred[Any]:
        """
        The answer to one command, on a connection of its own.

        @return: errbacks as L{open} and L{command} do, or with L{twisted.internet.defer.TimeoutError}.
        """
        return self._ask(address, *command).addTimeout(ASK_LIMIT, self.reactor)

    @inlineCallbacks
    def _ask(self, address: RedisAddress, *command: object) -> Generator[Any, Any, Any]:
        connection = yield self.open(address)
        try:
            return (yield self.command(connection, *command))
        finally:
            connection.transport.abortConnection()

    def abort(self) -> None:
        """Begin to close all that stands."""
        for connection in list(self._connections):
            connection.transport.abortConnection()

    def close(self) -> Deferred[Any]:
        """Close all that stands. Fires when it is closed."""
        closing = DeferredList([connection.whenDisconnected() for connection in self._connections])
        self.abort()
        return closing


def _plainly(connecting: Deferred[Any]) -> Deferred[Any]:
    """The same, but cancelled it errbacks with L{CancelledError}: endpoints have errors of their own for that."""

    def cancel(outcome: Deferred[Any]) -> None:
        outcome.errback(CancelledError())
        connecting.cancel()

    outcome: Deferred[Any] = Deferred(cancel)
    connecting.addBoth(lambda result: None if outcome.called else outcome.callback(result))
    return outcome
