"""
One connection of a client: requests in, answers out, one after the other, and bounds on all of it.

To a request a channel is what L{twisted.web.http.HTTPChannel} is, so that any resource can be served. Other than there
a head is read whole and strictly (L{thrtwisted.listen.head}), and each wait for the client has an end:

=========== ==================================== =======================================================
state       what is awaited                      until
=========== ==================================== =======================================================
HEAD        the (next) request                   C{head_timeout}; before a next one begins C{idle_timeout}
ASKING      whether its body is wanted           the resource's own bounds
BODY        the rest of its body                 it comes slower than C{body_min_rate}
EXCHANGE    the answer                           the resource's own bounds
CLOSING     that the last answer is taken        it is taken slower than C{body_min_rate}
..          then the client's own end            C{LINGER} s
CLOSED      nothing
=========== ==================================== =======================================================

In every state an answer that waits for its client must be taken fast enough.

After its last answer a connection is closed in one direction only, and what the client still sends is read and dropped
until it closes the other one. To close both at once with something unread, be it an empty line, resets the connection,
and the client may lose what it has not yet read of its answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

from enum import Enum
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from zope.interface import implementer

from thrtwisted.errors import ExchangeError, GateUnavailable, RequestTimeout
from thrtwisted.forward.headers import drop_hop_by_hop
from thrtwisted.grammar import connection_options

from .head import RequestHead
from .incoming import IncomingBody, IncomingHeads
from .kernel import gone
from .pulled import Pulled
from .refusal import Asked, Refused, head_bytes, refusal
from .watch import LAST_LOOK, Late, Watch

if TYPE_CHECKING:
    from .site import ProxySite

#: Bytes that are read ahead of the answer that is under way. A client that leaves is noticed if it sends no more.
READ_AHEAD = 16 * 1024

#: Pipelined requests that are answered in one turn of the reactor, if they can be answered at once.
AT_ONCE = 8

#: Seconds for which a client may leave its half of a connection open after it has taken its last answer, and bytes that
#: are read of what it sends meanwhile.
LINGER = 2.0
LINGER_BYTES = 1024 * 1024

#: The same while the proxy stops, and seconds between two looks at whether an answer is taken.
STOP_LINGER = 0.25
STOP_LOOK = 0.1

#: Bytes per second at which the last answer must be taken, if there is no C{body_min_rate}.
CLOSING_RATE = 50


class State(Enum):
    """What a connection waits for."""

    HEAD = "head"
    ASKING = "asking"
    BODY = "body"
    EXCHANGE = "exchange"
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

    def __init__(self, site: ProxySite) -> None:
        self.site = self.factory = site
        self.state = State.HEAD
        self._clock = site.clock
        self._bounds = site.bounds
        self._watch: Watch
        self._heads = IncomingHeads(site.bounds)
        self._asked = Asked()  # of the request that is under way
        self._asking: Deferred[bool] | None = None
        self._body: IncomingBody | None = None
        self._request: Any = None
        self._producer: Any = None
        self._served = 0  # requests so far
        self._begun = False  # a head has
        self._last = False  # no request follows
        self._known = False  # whose it is
        self._host: IAddress | None = None
        self._congested = False  # the transport takes no more
        self._reading = True
        self._advancing = False
        self._turn: IDelayedCall | None = None
        self._written = 0
        self._dropped = 0  # bytes of what came too late

    # From the transport ---------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """A client has connected: it may have to be turned away."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._watch = Watch(self._clock, self.transport, self._late)
        # Whoever wraps a connection, other than in TLS, may learn from its first bytes who the client is (PROXY).
        wrapper = isinstance(self.transport, ProtocolWrapper)
        told_later = wrapper and not isinstance(self.transport, TLSMemoryBIOProtocol)
        if self.site.opened(self) and (told_later or self._identify()):
            self._watch.wait(self._bounds.head_timeout)

    def dataReceived(self, data: bytes) -> None:
        """Take what the client has sent."""
        if self.state is State.CLOSING:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES and self._reading:
                self._reading = False  # a reset, before the client has read its answer, could take that away
                self.transport.pauseProducing()
        elif not self._known and not self._identify():
            return
        elif self.state is State.HEAD:
            self._heads.add(data)
            self._advance()
        elif self.state is State.BODY:
            self._read_body(data)
        elif self.state in (State.ASKING, State.EXCHANGE):
            self._heads.add(data)
            self._regulate()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has gone, or was closed."""
        self.state = State.CLOSED
        self._watch.stop()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self.site.closed(self)
        self.unregisterProducer()
        request, self._request = self._request, None
        if request is not None:
            request.connectionLost(reason)
        if self._asking is not None:
            self._asking.cancel()

    # IPushProducer: the transport has room or not

    def pauseProducing(self) -> None:
        """The client takes nothing for now: neither shall it be sent more, nor asked for more requests."""
        if self._producer is not None:
            self._producer.pauseProducing()
        if not self._congested:
            self._congested = True
            if self._bounds.body_min_rate:
                self._watch.answer_waits(self._bounds.body_min_rate, self._written)
            self._regulate()

    def resumeProducing(self) -> None:
        """The client has taken everything."""
        was_congested, self._congested = self._congested, False
        self._watch.answer_taken(self._written)
        if self._producer is not None:
            self._producer.resumeProducing()
        if self.state is State.CLOSING and was_congested:
            self._half_close()
        elif self.state is State.HEAD and was_congested:
            self._await_head()
            self.site.connections.rest(self)
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
        if self.state is not State.CLOSING:
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
        self.state = State.HEAD
        self._begun = False
        self._await_head()
        if not self._congested:  # else the client has its answer to read still
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
        """Where the client has connected to. Each request asks, and the transport would ask the kernel."""
        if self._host is None:
            self._host = self.transport.getHost()
        return self._host

    def isSecure(self) -> bool:
        """Whether the client has come by TLS."""
        return _is_tls(self.transport)

    def loseConnection(self) -> None:
        """Close the connection, once all is sent that was written."""
        if self.state in (State.HEAD, State.ASKING, State.BODY, State.EXCHANGE):
            self._close()

    def has_left(self) -> bool:
        """
        Whether the client has left unnoticed, because it had sent so much ahead that it is not read from. Then
        the connection is closed.
        """
        if self._reading or not gone(self.transport):
            return False
        self.abort()
        return True

    # From the site --------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """
        The proxy stops. What is awaited from the client is not awaited any more; an exchange that is under way gets
        its answer, and is told there that it is the last.
        """
        if self.state in (State.HEAD, State.BODY):
            if self._begun:
                self._refuse(GateUnavailable.stopping())
            else:
                self._close()
        elif self._asking is not None:
            self._asking.cancel()
        elif self.state is State.CLOSING and not self._congested:
            self._await_end()

    def make_room(self) -> None:
        """
        Close this idle connection now, for it is not counted any more: who opens many, and reads and closes none, must
        not have them beside those that count. In order, if the client has taken all that it was sent.
        """
        if not self._watch.taken(self._written):
            self.abort()
            return
        self.state = State.CLOSING
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._hang_up()

    def turn_away(self, error: ExchangeError) -> None:
        """Answer with an error whatever this client would have asked for."""
        answer, _ = refusal(error, Asked())
        self.write(answer)
        self._close()

    def abort(self) -> None:
        """End the connection at once."""
        self.state = State.CLOSING
        self._watch.stop()
        self.transport.abortConnection()

    # Requests -------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Begin with what has come, as long as it can be answered at once."""
        if self._advancing or self._turn is not None:
            return
        self._advancing = True
        try:
            for _ in range(AT_ONCE):
                if self.state is not State.HEAD or self._congested or not self._heads:
                    break
                if not self._read_head():
                    break
            else:
                if self.state is State.HEAD and self._heads:
                    self._turn = self._clock.callLater(0, self._next_turn)
        finally:
            self._advancing = False
        self._regulate()

    def _next_turn(self) -> None:
        self._turn = None
        self._advance()

    def _read_head(self) -> bool:
        """Read a head and begin with its request; whether there was one."""
        try:
            head = self._heads.head()
        except ExchangeError as error:
            self._refuse(error)
            return False
        if head is not None:
            self._receive(head)
            return True
        if self._heads.begun and not self._begun:
            self._begun = True
            self.site.connections.work(self)
            if self._served:
                self._await_head()
        return False

    def _await_head(self) -> None:
        """Wait for a request, or for the rest of its head."""
        self._watch.wait(self._bounds.head_timeout if self._begun else self._bounds.idle_timeout)

    def _receive(self, head: RequestHead) -> None:
        """A head has come: its body follows, or is there already."""
        self._watch.wait_no_more()
        self.site.connections.work(self)
        self._begun = True
        self._served += 1
        self._last = not head.keeps_alive or self._served == self._bounds.requests_per_connection
        self._asked = Asked(head.method, head.target, head.version, head.headers)
        request = self._request = self.site.requestFactory(self)
        request.read_strictly = True
        drop_hop_by_hop(head.headers, self.site.kept)
        request.requestHeaders = head.headers
        request.parseCookies()
        if head.length == 0:
            request.content = BytesIO()
            self._begin()
        elif head.expects:
            self._ask(head, request)
        else:
            self._receive_body(head)

    def _ask(self, head: RequestHead, request: Any) -> None:
        """Ask the resource whether it will look at the body that the client asks leave to send."""
        wants_body = getattr(self.site.resource, "wants_body", lambda _: True)
        request.method, request.uri = self._asked.method, self._asked.target
        request.clientproto = self._asked.version
        wanted: bool | Deferred[bool] = wants_body(request)
        self.state = State.ASKING
        if isinstance(wanted, Deferred):
            self._asking = wanted
            wanted.addBoth(self._told, head)
        else:
            self._told(wanted, head)

    def _told(self, wanted: bool | Failure, head: RequestHead) -> None:
        """The resource has said whether it wants the body."""
        self._asking = None
        if self.state is not State.ASKING:
            return  # the client has left
        if isinstance(wanted, Failure):
            stops = self.site.stopping
            self._refuse(GateUnavailable.stopping() if stops else ExchangeError("The proxy failed."))
        elif wanted:
            self._receive_body(head)
        else:
            self._last = True  # the client may send its body all the same
            self._request.content = BytesIO()
            self._begin()
        self._regulate()

    def _receive_body(self, head: RequestHead) -> None:
        """A body follows."""
        if (
            head.expects and not self._heads
        ):  # what has begun to send needs no leave (RFC 9110, section 10.1.1)
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body = IncomingBody(head.length, self._bounds, self.site.make_file)
        self._request.content = self._body.file
        self.state = State.BODY
        self._read_body(self._heads.take())
        if self.state is State.BODY and self._bounds.body_min_rate:
            self._watch.body_begins(self._bounds.body_min_rate)

    def _read_body(self, data: bytes) -> None:
        """Take a part of a request's body."""
        assert self._body is not None
        try:
            rest = self._body.feed(data)
        except ExchangeError as error:
            self._refuse(error)
            return
        if rest is None:
            self._watch.body_moved(len(data))
            return
        # Whatever framing it came in: what is forwarded has this length.
        self._request.requestHeaders.setRawHeaders(b"content-length", [b"%d" % self._body.received])
        self._body = None
        self._watch.wait_no_more()
        self._heads.add(rest)
        self._begin()

    def _begin(self) -> None:
        """A request is complete: the resource has the word."""
        self.state = State.EXCHANGE
        self._request.requestReceived(self._asked.method, self._asked.target, self._asked.version)
        self._regulate()

    # Ends -----------------------------------------------------------------------------------------------------------

    def _late(self, what: Late) -> None:
        """Something has not come about in time."""
        if what is Late.ANSWER:
            self.abort()
        elif what is Late.BODY:
            self._refuse(RequestTimeout("The request's body came too slowly."))
        elif self.state is State.CLOSING:
            self._hang_up()
        elif self._begun:
            self._refuse(RequestTimeout("The request's head took too long."))
        else:
            self._close()

    def _refuse(self, error: ExchangeError) -> None:
        """Answer instead of the resource, and close the connection."""
        request = self._heads.asked() if self.state is State.HEAD else self._asked
        if self._body is not None:
            self._body.close()
        self._body = self._request = None
        answer, size = refusal(error, request)
        self.site.log(Refused(request, self.getPeer(), error.status, size))
        self.write(answer)
        self._close()

    def _close(self) -> None:
        """Close the connection, in its time: when the client has taken what was written, and has closed its half."""
        self.state = State.CLOSING
        self._heads.take()
        self.site.connections.work(self)  # it cannot make room any more
        if not self._reading:
            self._reading = True
            self.transport.resumeProducing()  # to see the client's end, and to drop what comes before
        if self._congested:
            self._watch.wait_no_more()
            self._watch.answer_waits(self._closing_rate, self._written)
        else:
            self._half_close()

    def _half_close(self) -> None:
        """The transport has taken everything: say that nothing follows."""
        self.transport.unregisterProducer()  # else the transport would wait for its end
        self._await_end()
        if _is_tls(self.transport) or not hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseConnection()  # TLS reads, and drops, until the client closes its half
        else:
            self.transport.loseWriteConnection()

    def _await_end(self) -> None:
        """Wait until the client has taken everything, and then for its end."""
        linger, every = (STOP_LINGER, STOP_LOOK) if self.site.stopping else (LINGER, LAST_LOOK)
        self._watch.ends(self._closing_rate, self._written, linger, every)

    def _hang_up(self) -> None:
        """Wait for the client's end no more."""
        self._watch.answer_waits(self._closing_rate, self._written)
        _below_tls(self.transport).loseConnection()

    @property
    def _closing_rate(self) -> int:
        return self._bounds.body_min_rate or CLOSING_RATE

    def _regulate(self) -> None:
        """After every change: read from the client, or not."""
        if self.state in (State.ASKING, State.EXCHANGE):
            reading = len(self._heads) <= READ_AHEAD
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


def _is_tls(transport: object) -> bool:
    return ISSLTransport.providedBy(transport)


def _below_tls(transport: Any) -> Any:
    """The connection itself: TLS would wait for the client's leave."""
    while _is_tls(transport) and isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport
