"""
One connection of a client: requests in, answers out, one after the other, and bounds on all of it.

To a request a channel is what L{twisted.web.http.HTTPChannel} is, so that any resource can be served. Other than there
a head is read whole and strictly (L{thrtwisted.listen.head}), and each wait for the client has an end:

=========== ======================================== ====================================================
state       what is awaited                          until
=========== ======================================== ====================================================
HEAD        the (next) request                       C{head_timeout}, before its first byte C{idle_timeout}
BODY        the rest of its body                     it comes slower than C{body_min_rate}
EXCHANGE    the answer                               the resource's own bounds
LINGERING   that the client has read a refusal       C{LINGER} s
CLOSING     that the last answer is taken            after C{PATIENCE} s it is taken slower than C{body_min_rate}
CLOSED      nothing
=========== ======================================== ====================================================

In every state but LINGERING an answer that waits for its client must be taken fast enough.

A connection has one timer. What is due is moved ahead without touching it: it is set again when it rings too early.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from zope.interface import implementer

from thrtwisted.errors import ExchangeError, GateUnavailable, RequestTimeout
from thrtwisted.forward.headers import end_to_end
from thrtwisted.grammar import connection_options

from .head import RequestHead, end_of_head, overflow, parse_head
from .incoming import IncomingBody
from .pace import Pace, Uptake
from .pulled import Pulled
from .refusal import Asked, Refused, asked, head_bytes, refusal

if TYPE_CHECKING:
    from .site import ProxySite

#: Bytes that are read ahead of the answer that is under way. A client that leaves is noticed if it sends no more.
READ_AHEAD = 16 * 1024

#: Pipelined requests that are answered in one turn of the reactor, if they can be answered at once.
AT_ONCE = 8

#: Seconds and bytes for which a refused client is read: to close at once would reset the connection, and the client
#: might never see the answer (RFC 9112, section 9.6).
LINGER = 2.0
LINGER_BYTES = 1024 * 1024

#: Seconds for which a close is not looked at: most come about at once.
PATIENCE = 10.0

#: Bytes per second at which the last answer must be taken after that, if there is no C{body_min_rate}.
CLOSING_RATE = 50

#: Seconds by which a timer may ring too early: sums of times are rounded.
EARLY = 0.001

#: Where Linux (since 4.1) has the bytes that a peer has acknowledged, in struct tcp_info of linux/tcp.h.
_TCP_INFO = getattr(socket, "TCP_INFO", None)
_ACKNOWLEDGED = struct.Struct("=Q")
_ACKNOWLEDGED_AT = 120


class State(Enum):
    """What a connection waits for."""

    HEAD = "head"
    BODY = "body"
    EXCHANGE = "exchange"
    LINGERING = "lingering"
    CLOSING = "closing"
    CLOSED = "closed"


@implementer(ITransport, IConsumer, IPushProducer)
class Channel(Protocol):
    """
    A client's connection.

    @ivar site: who serves it; C{factory} is the same.
    @ivar state: what it waits for.
    """

    transport: Any
    _log = Logger()

    def __init__(self, site: ProxySite) -> None:
        self.site = site
        self.factory = site
        self.state = State.HEAD
        self._clock = site.clock
        self._bounds = site.bounds
        self._buffer = bytearray()  # what has come and is not understood yet
        self._searched = 0  # how much of it has no end of a head
        self._begun = False  # a head has
        self._served = 0  # requests so far
        self._last = False  # no request follows
        self._unread = False  # the client may still be sending
        self._request: Any = None
        self._asked = Asked()
        self._body: IncomingBody | None = None
        self._producer: Any = None
        self._known = False  # whose it is
        self._congested = False  # the transport takes no more
        self._reading = True
        self._advancing = False
        self._written = 0
        self._dropped = 0
        self._deadline: float | None = None
        self._pace: Pace | None = None
        self._uptake: Uptake | None = None
        self._sees_uptake = False
        self._timer: IDelayedCall | None = None
        self._rings = 0.0
        self._turn: IDelayedCall | None = None

    # From the transport ---------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """A client has connected: it may have to be turned away."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._deadline = self._clock.seconds() + self._bounds.head_timeout
        # Whoever wraps a connection, other than by TLS, may learn from its first bytes who the client is (PROXY).
        wrapped = isinstance(self.transport, ProtocolWrapper) and not self._is_tls(self.transport)
        if self.site.opened(self) and (wrapped or self._identify()):
            self._arm()

    def dataReceived(self, data: bytes) -> None:
        """Take what the client has sent."""
        if not self._known and not self._identify():
            return
        if self.state is State.BODY:
            self._read_body(data)
        elif self.state is State.HEAD:
            self._buffer += data
            self._advance()
        elif self.state is State.EXCHANGE:
            self._buffer += data
            self._regulate()
        elif self.state is State.LINGERING:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.abort()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        """The client has gone, or was closed."""
        self.state = State.CLOSED
        for call in (self._timer, self._turn):
            if call is not None:
                call.cancel()
        self._timer = self._turn = None
        self.site.closed(self)
        request, self._request = self._request, None
        if request is not None:
            request.connectionLost(reason)
        if isinstance(self._producer, Pulled):
            self._producer.pauseProducing()
        self._producer = None

    # IPushProducer: the transport has room or not

    def pauseProducing(self) -> None:
        """The client takes nothing for now: neither shall it be sent more, nor asked for more requests."""
        if self._producer is not None:
            self._producer.pauseProducing()
        if not self._congested:
            self._congested = True
            self._await_uptake(self._bounds.body_min_rate)
            self._regulate()

    def resumeProducing(self) -> None:
        """The client has taken everything."""
        self._congested = False
        now = self._clock.seconds()
        if self._uptake is not None:
            if not self._sees_uptake:
                self._uptake.look(self._written, now)
            self._uptake.flow(now)
        if self._producer is not None:
            self._producer.resumeProducing()
        if self.state is State.HEAD and not self._congested:
            self._deadline = now + (self._bounds.head_timeout if self._begun else self._bounds.idle_timeout)
            self._arm()
            self._advance()
        self._regulate()

    def stopProducing(self) -> None:
        """The connection is gone."""
        if self._producer is not None:
            self._producer.stopProducing()

    # From a request, as twisted.web has it ---------------------------------------------------------------------------

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Begin an answer. It says whether the connection is closed after it."""
        if self.site.stopping or b"close" in connection_options(headers):
            self._last = True
        if self._last:
            headers.setRawHeaders(b"connection", [b"close"])
        self.write(head_bytes(version, code, reason, headers))

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        self._written += len(data)
        self.transport.write(data)

    def writeSequence(self, iovec: Any) -> None:
        """Send parts of an answer."""
        self.write(b"".join(iovec))

    def requestDone(self, request: object) -> None:
        """The answer is complete."""
        self._request = None
        if self.state is not State.EXCHANGE:
            return
        if self._last or self.site.stopping:
            self._close()
            return
        self._await_head()
        self.site.connections.rest(self)
        self._advance()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let a producer write the answer, at the client's speed."""
        if self._producer is not None:
            raise RuntimeError(f"{self._producer} produces already, and {producer} cannot")
        self._producer = producer if streaming else Pulled(self._clock, producer)
        if self._congested:
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """The producer has written everything."""
        if isinstance(self._producer, Pulled):
            self._producer.pauseProducing()
        self._producer = None

    def getPeer(self) -> IAddress:
        """Where the client is."""
        return self.transport.getPeer()  # type: ignore[no-any-return]

    def getHost(self) -> IAddress:
        """Where the client has connected to."""
        return self.transport.getHost()  # type: ignore[no-any-return]

    def isSecure(self) -> bool:
        """Whether the client has come by TLS."""
        return self._is_tls(self.transport)

    def loseConnection(self) -> None:
        """Close the connection, once all is sent that was written."""
        if self.state in (State.HEAD, State.BODY, State.EXCHANGE):
            self._close()

    # From the site --------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """
        The proxy stops. What waits for the client is over; an exchange that is under way gets its answer, and is told
        there that it is the last.
        """
        if self.state in (State.HEAD, State.BODY):
            if self._begun:
                self._refuse(GateUnavailable("The proxy is stopping.", retry_after=1.0), linger=False)
            else:
                self._close()
        elif self.state is State.LINGERING:
            self.abort()

    def make_room(self) -> None:
        """Close this idle connection, for another one."""
        self._close()

    def turn_away(self, error: ExchangeError) -> None:
        """Answer with an error whatever this client would have asked for."""
        answer, _ = refusal(error, Asked())
        self.write(answer)
        self._unread = True
        self._close()

    def abort(self) -> None:
        """End the connection at once."""
        self.state = State.CLOSING
        self._deadline = None
        self._uptake = None
        self.transport.abortConnection()

    # Requests -------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Begin with what has come, as long as it can be answered at once."""
        if self._advancing:
            return
        self._advancing = True
        try:
            for _ in range(AT_ONCE):
                if self.state is not State.HEAD or self._congested or not self._buffer:
                    break
                if not self._read_head():
                    break
            else:
                if self.state is State.HEAD and self._buffer and self._turn is None:
                    self._turn = self._clock.callLater(0, self._next_turn)
        finally:
            self._advancing = False
        self._regulate()

    def _next_turn(self) -> None:
        self._turn = None
        self._advance()

    def _read_head(self) -> bool:
        """Read a head and begin with its request; whether there was one."""
        buffer = self._buffer
        end = end_of_head(buffer, self._searched)
        if end < 0:
            error = overflow(buffer, self._bounds, self._searched)
            self._searched = len(buffer)
            if not self._begun and buffer != b"\r\n":  # which may follow a body (RFC 9112, section 2.2)
                self._begin_head()
            if error is not None:
                self._refuse(error, asked(buffer))
            return False
        data = bytes(buffer[: end - 4])
        del buffer[:end]
        self._searched = 0
        self.site.connections.work(self)
        try:
            head = parse_head(data, self._bounds)
        except ExchangeError as error:
            self._refuse(error, asked(data))
            return False
        self._receive(head)
        return True

    def _begin_head(self) -> None:
        """The first bytes of a head have come, and not all of it."""
        self._begun = True
        self.site.connections.work(self)
        if self._served:
            self._deadline = self._clock.seconds() + self._bounds.head_timeout
            self._arm()

    def _receive(self, head: RequestHead) -> None:
        """A head has come: its body follows, or is there already."""
        self._begun = True
        self._deadline = None
        self._served += 1
        self._last = not head.keeps_alive or self._served == self._bounds.requests_per_connection
        self._unread = head.length != 0
        self._asked = Asked(head.method, head.target, head.version, head.headers)
        request = self._request = self.site.requestFactory(self)  # type: ignore[no-untyped-call]
        request.requestHeaders = end_to_end(head.headers, self.site.kept)
        request.parseCookies()
        if head.length == 0 or (head.expects and not self._wants_body(request, head)):
            request.content = BytesIO()
            self._begin()
            return
        if head.expects and not self._buffer:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body = IncomingBody(head.length, self._bounds, self.site.make_file)
        request.content = self._body.file
        self.state = State.BODY
        data = bytes(self._buffer)
        self._buffer.clear()
        self._read_body(data)
        if self.state is State.BODY and self._bounds.body_min_rate:
            self._pace = Pace(self._bounds.body_min_rate, self._clock.seconds())
            self._arm()

    def _wants_body(self, request: Any, head: RequestHead) -> bool:
        """Whether the resource will look at the body that the client asks leave to send."""
        wants_body = getattr(self.site.resource, "wants_body", None)
        if wants_body is None:
            return True
        request.method, request.uri, request.clientproto = head.method, head.target, head.version
        if wants_body(request):
            return True
        self._last = True  # the client may send its body all the same
        return False

    def _read_body(self, data: bytes) -> None:
        """Take a part of a request's body."""
        assert self._body is not None
        try:
            rest = self._body.feed(data)
        except ExchangeError as error:
            self._refuse(error, self._asked)
            return
        if rest is None:
            if self._pace is not None:
                self._pace.moved(len(data), self._clock.seconds())
            return
        headers = self._request.requestHeaders
        # The backend's request has a body of this length, whatever framing it came in.
        headers.setRawHeaders(b"content-length", [b"%d" % self._body.received])
        self._buffer += rest
        self._body = self._pace = None
        self._unread = False
        self._begin()

    def _begin(self) -> None:
        """A request is complete: the resource has the word."""
        self.state = State.EXCHANGE
        request, asked = self._request, self._asked
        request.requestReceived(asked.method, asked.target, asked.version)
        self._regulate()

    def _await_head(self) -> None:
        """Wait for the next request."""
        self.state = State.HEAD
        self._begun = False
        self._deadline = self._clock.seconds() + self._bounds.idle_timeout
        self._arm()

    # Ends -----------------------------------------------------------------------------------------------------------

    def _refuse(self, error: ExchangeError, request: Asked | None = None, linger: bool = True) -> None:
        """Answer instead of the resource, and close the connection."""
        if self._body is not None:
            self._body.close()
        self._body = self._pace = self._request = None
        request = request or (asked(self._buffer) if self.state is State.HEAD else self._asked)
        answer, size = refusal(error, request)
        self.site.log(Refused(request, self.getPeer(), error.status, size))
        self.write(answer)
        self._unread = linger
        self._close()

    def _close(self) -> None:
        """Close the connection once all is sent: by lingering, where the client may still be sending."""
        lingers = self._unread or bool(self._buffer)
        self._buffer.clear()
        self.transport.unregisterProducer()  # else the transport would wait for its end
        if not self._reading:
            self._reading = True
            self.transport.resumeProducing()  # TLS closes when the client has
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if lingers and half_close is not None:
            self.state = State.LINGERING
            self._deadline = self._clock.seconds() + LINGER
            if self._is_tls(self.transport):
                self.transport.loseConnection()  # it reads, and drops, until the client closes its half
            else:
                half_close()
            self._arm()
        else:
            self.state = State.CLOSING
            self._deadline = self._clock.seconds() + PATIENCE
            self.transport.loseConnection()
            self._arm()

    # Waiting --------------------------------------------------------------------------------------------------------

    def _regulate(self) -> None:
        """After every change: read from the client, or not."""
        if self.state is State.EXCHANGE:
            reading = len(self._buffer) <= READ_AHEAD
        elif self.state in (State.HEAD, State.BODY):
            reading = not self._congested and self._turn is None
        else:
            return
        if reading != self._reading:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _identify(self) -> bool:
        """See whose connection this is; whether it may stay."""
        self._known = True
        return self.site.identified(self)

    def _await_uptake(self, rate: int) -> None:
        """Something waits until the client takes it."""
        if not rate:
            return
        now = self._clock.seconds()
        if self._uptake is None:
            taken = self._acknowledged()
            self._sees_uptake = taken is not None
            self._uptake = Uptake(rate, self._sees_uptake)
            self._uptake.look(self._written if taken is None else taken, now)
        if not self._uptake.waiting:
            self._uptake.wait(now)
            self._arm()

    def _acknowledged(self) -> int | None:
        """How many bytes the client's system has acknowledged; None where nobody tells."""
        below = getattr(self.transport, "socket", None)
        if below is None or _TCP_INFO is None:
            return None
        try:
            info = below.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _ACKNOWLEDGED_AT + _ACKNOWLEDGED.size)
            return int(_ACKNOWLEDGED.unpack_from(info, _ACKNOWLEDGED_AT)[0])
        except (OSError, struct.error):
            return None  # a unix socket, an old kernel

    def _due(self) -> float | None:
        """When something must have happened, None if there is no such time."""
        due = self._deadline
        if self._uptake is not None and self._uptake.waiting and self.state is not State.LINGERING:
            return self._uptake.due()
        if self._pace is not None:
            return self._pace.due
        return due

    def _arm(self) -> None:
        """See that the timer rings when something is due. It may ring too early."""
        due = self._due()
        if due is None:
            return
        if self._timer is not None:
            if self._rings <= due:
                return
            self._timer.cancel()  # rather than reset it, for which the reactor looks at all of its timers
        self._rings = due
        self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._ring)

    def _ring(self) -> None:
        """Something may be due."""
        self._timer = None
        now = self._clock.seconds() + EARLY
        if self._uptake is not None and self._uptake.waiting and self.state is not State.LINGERING:
            taken = self._acknowledged() if self._sees_uptake else None
            if taken is not None:
                self._uptake.look(taken, now)
            if self._uptake.too_slow(now):
                self.abort()
                return
        elif self._pace is not None:
            if self._pace.due <= now:
                self._refuse(RequestTimeout("The request's body came too slowly."))
                return
        elif self._deadline is not None and self._deadline <= now:
            self._overdue()
            return
        self._arm()

    def _overdue(self) -> None:
        """A time is over."""
        if self.state is State.LINGERING:
            self.abort()
        elif self.state is State.CLOSING:
            self._deadline = None
            self._await_uptake(self._bounds.body_min_rate or CLOSING_RATE)
        elif self._begun:
            self._refuse(RequestTimeout("The request's head took too long."))
        else:
            self._close()

    @staticmethod
    def _is_tls(transport: object) -> bool:
        return ISSLTransport(transport, None) is not None
