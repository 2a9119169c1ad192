"""
The link to Redis: one connection for scripts, one for messages, both kept up together.

txredisapi brings the protocols; connecting and reconnecting is done here, for its own factories stop for ever when a
connection is lost during AUTH or SELECT, and queue commands without end while Redis is away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from functools import lru_cache
from random import uniform
from typing import Any

import txredisapi
from twisted.application.internet import backoffPolicy
from twisted.internet import error
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    TimeoutError,
    fail,
    inlineCallbacks,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface

from .url import RedisAddress

#: Seconds that connecting and AUTH together may take.
HANDSHAKE = 5.0

#: Seconds before the first of the attempts to connect again, and before the last ones: to a server that cannot be
#: reached, so that a restarted one is found quickly, and to one that refuses, until somebody mends that.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 0.5
LONGEST_PAUSE_REFUSED = 5.0


class RedisGone(Exception):
    """Redis is not there, or went away before it answered: what was sent may or may not have been done."""


class _Refused(Exception):
    """Redis answers, and does not let us in."""


class ILinkUser(Interface):
    """Whoever uses a link. Every call comes from the reactor."""

    def up() -> None:
        """Both connections stand, and messages arrive."""

    def down() -> None:
        """A connection was lost, and the link with it. What was under way fails."""

    def message(payload: bytes) -> None:
        """A message has arrived on the channel."""


class _Commands(txredisapi.RedisProtocol):
    """The connection for scripts."""


class _Messages(txredisapi.SubscriberProtocol):
    """The connection for messages."""

    received: Callable[[bytes], None]

    def messageReceived(self, pattern: object, channel: object, message: bytes) -> None:
        self.received(message)


class _LinkFactory(Factory):
    """Builds one connection's protocol; txredisapi tells it why a handshake failed."""

    noisy = False
    isLazy = False

    def __init__(self, protocol: type[Any], address: RedisAddress) -> None:
        self.failure = ""
        self._protocol = protocol
        self._address = address

    def buildProtocol(self, addr: object) -> Any:
        connection = self._protocol(
            charset=None,
            convertNumbers=False,
            username=self._address.username,
            password=self._address.password,
            dbid=self._address.database or None,
        )
        connection.factory = self
        return connection

    def stopTrying(self) -> None:
        """txredisapi's word for a failed handshake. The link decides when to try again."""

    def connectionError(self, why: str) -> None:
        self.failure = why.removeprefix("Redis error: ")


class Link:
    """
    Keeps two connections to Redis, and tells its user when they stand.

    When one is lost the other is closed too: a user that missed messages has to take stock in either case, and so has
    one thing to handle instead of three.

    @param reactor: connects, and tells the time.
    @param address: of kind C{tcp} or C{unix}.
    @param channel: what to listen to.
    @param user: is told when the link is up or down, and of messages.
    @param longest_pause: seconds between the attempts to reach a server that is not there, at most.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        address: RedisAddress,
        channel: str,
        user: Any,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._channel = channel
        self._user = user
        self._commands: Any = None
        self._connections: list[Any] = []
        self._running: Deferred[None] | None = None
        self._wait: Deferred[Any] = succeed(None)
        self._stopping = False
        self._pause_unreachable = _pauses(longest_pause)
        self._pause_refused = _pauses(max(longest_pause, LONGEST_PAUSE_REFUSED))
        self._attempt = 0
        self._refusal: Exception | None = None
        self._answered: RedisAddress | None = None
        self._reported = ""

    def start(self) -> None:
        """Begin to connect; it goes on until L{stop}."""
        self._running = self._run()

    def stop(self) -> Deferred[None]:
        """
        Close the connections and try no more; the user is told nothing any more. There is no second start.

        @return: fires when nothing is left.
        """
        self._stopping = True
        running, self._running = self._running, None
        if running is None:
            return succeed(None)
        self._wait.cancel()
        return running

    def reset(self) -> None:
        """Give up the connections that stand, at once, and connect anew: Redis does not answer on them."""
        for connection in self._connections:
            connection.transport.abortConnection()

    def refused(self, problem: Exception) -> None:
        """
        Redis answers, but does not do what it is asked to: say so once, however long it lasts, give up the connections,
        and connect anew after a pause.
        """
        if self._commands is not None:
            self._refusal = problem
            self.reset()

    def working(self) -> None:
        """Redis does what it is asked to: whatever was wrong is over."""
        self._attempt = 0
        self._report(f"Redis at {self._address} is connected")

    def script(self, script: bytes, key: str, argument: bytes) -> Deferred[bytes]:
        """
        Run a script with one key and one argument, by its digest if Redis knows it.

        It is given C{1} as a second argument if the server may lack what an earlier one had: it does not know the
        script, as after a restart, or it is not the one that answered last, as after a failover.

        @return: fires with the reply. Errbacks with L{RedisGone} if there is no answer to be had, or with
            L{txredisapi.ResponseError} if Redis refuses.
        """
        if self._commands is None:
            return fail(RedisGone("Redis is not connected"))
        commands = self._commands
        unfamiliar = [b"1"] if self._answered not in (None, self._address) else []
        reply: Deferred[bytes] = maybeDeferred(
            commands.execute_command, "EVALSHA", _digest(script), 1, key, argument, *unfamiliar
        )

        def load(failure: Any) -> Any:
            failure.trap(txredisapi.ResponseError)
            if not str(failure.value).startswith("NOSCRIPT"):
                return failure
            return commands.execute_command("EVAL", script, 1, key, argument, b"1")

        def answered(answer: bytes) -> bytes:
            self._answered = self._address
            return answer

        def gone(failure: Any) -> Any:
            failure.trap(txredisapi.ConnectionError)
            raise RedisGone(str(failure.value)) from None

        return reply.addErrback(load).addCallbacks(answered, gone)

    @inlineCallbacks
    def _run(self) -> Generator[Deferred[Any], Any, None]:
        while not self._stopping:
            since = self._reactor.seconds()
            pause = self._pause_unreachable
            try:
                yield self._until_stop(self._connect().addTimeout(HANDSHAKE, self._reactor))
            except Exception as problem:
                if not self._stopping:
                    self._report(f"Redis at {self._address} is not usable: {_reason(problem)}")
                if isinstance(problem, _Refused):
                    pause = self._pause_refused
            else:
                yield self._stand()
                if self._refusal is not None:
                    pause = self._pause_refused
            yield self._disconnect()
            # A server that accepts and then refuses is no reason to connect ten times a second.
            self._attempt = (
                self._attempt + 1 if self._reactor.seconds() - since < LONGEST_PAUSE_REFUSED else 0
            )
            yield self._until_stop(deferLater(self._reactor, pause(self._attempt))).addErrback(_stopped)

    @inlineCallbacks
    def _stand(self) -> Generator[Deferred[Any], Any, None]:
        """Let the user work until a connection is lost."""
        lost = _any(*(connection.whenDisconnected() for connection in self._connections))
        self._refusal = None
        self._user.up()
        yield self._until_stop(lost).addErrback(_stopped)
        self._commands = None
        if not self._stopping:
            if self._refusal is not None:
                self._report(f"Redis at {self._address} is not usable: {_reason(self._refusal)}")
            else:
                self._report(f"The connection to Redis at {self._address} was lost")
            self._user.down()

    def _until_stop(self, wait: Deferred[Any]) -> Deferred[Any]:
        """What is waited for from now on: L{stop} cancels it."""
        self._wait = wait
        if self._stopping:
            wait.cancel()
        return wait

    @inlineCallbacks
    def _connect(self) -> Generator[Deferred[Any], Any, None]:
        commands = yield self._open(_Commands)
        messages = yield self._open(_Messages)
        messages.received = self._user.message
        try:
            yield messages.subscribe(self._channel)
        except txredisapi.ResponseError as problem:
            raise _Refused(str(problem)) from None
        if not commands.connected:
            raise RedisGone("the connection was closed")
        self._commands = commands

    @inlineCallbacks
    def _open(self, protocol: type[Any]) -> Generator[Deferred[Any], Any, Any]:
        """One connection, its handshake done."""
        factory = _LinkFactory(protocol, self._address)
        connection = yield self._endpoint().connect(factory)
        self._connections.append(connection)
        if self._address.kind == "tcp":
            # Else the end of a batch of more than one packet waits until Redis has acknowledged its beginning.
            connection.transport.setTcpNoDelay(True)
        yield _any(connection.whenConnected(), connection.whenDisconnected())
        if not connection.connected:
            raise _Refused(factory.failure) if factory.failure else RedisGone("the connection was closed")
        return connection

    def _endpoint(self) -> IStreamClientEndpoint:
        if self._address.kind == "unix":
            return UNIXClientEndpoint(self._reactor, self._address.path, timeout=HANDSHAKE)
        return HostnameEndpoint(self._reactor, self._address.host, self._address.port, timeout=HANDSHAKE)

    def _disconnect(self) -> Deferred[Any]:
        """Close what stands. Fires when all of it is closed."""
        connections, self._connections = self._connections, []
        closing = []
        for connection in connections:
            if connection.connected:
                closing.append(connection.whenDisconnected())
                connection.transport.abortConnection()
        return DeferredList(closing)

    def _report(self, line: str) -> None:
        """One line for a change; the same trouble again is not told again."""
        if line != self._reported:
            self._reported = line
            self._log.info("{line}", line=line)


def _pauses(longest: float) -> Callable[[int], float]:
    """The pause before an attempt, by how many were in vain before."""
    # The policy's own jitter, up to a second, would make each short loss of a connection an outage.
    first = min(FIRST_PAUSE, longest)
    return backoffPolicy(first, longest - first / 2, jitter=lambda: uniform(0, first / 2))


def _any(*events: Deferred[Any]) -> Deferred[None]:
    """Fires after the first of several Deferreds that never errback. Cancelling it leaves them alone."""
    first: Deferred[None] = Deferred()

    def fire(_: object) -> None:
        if not first.called:
            first.callback(None)

    for event in events:
        event.addCallback(fire)
    return first


@lru_cache(maxsize=4)
def _digest(script: bytes) -> str:
    """What Redis calls a script."""
    return hashlib.sha1(script).hexdigest()


def _stopped(failure: Failure) -> None:
    """A wait that L{Link.stop} has ended."""
    failure.trap(CancelledError)


def _reason(problem: Exception) -> str:
    # An attempt to connect that is cut short has an error of its own.
    if isinstance(problem, (TimeoutError, error.TimeoutError, error.ConnectingCancelledError)):
        return f"no answer in {HANDSHAKE:g} s"
    return str(problem) or type(problem).__name__
