"""
One connection to a backend: what is below Twisted's HTTP client, and what that client does not tell.

Each connection is a thin shell between the socket and the client. It reads the response's head itself, strictly, and
shows the client another one, which says nothing but where the body ends; chunks are read here too, and shown in plain
ones. So there are no two opinions on where a response ends, what is malformed never gets far, and what follows a
response is seen. The shell also knows how the connection was lost, that it was lost at all (garbage during an upload
makes the client forget its request), and reads an answer that comes while the request is still being sent.

Of a connection that is lost before a byte of the response came it knows whether the request can have been executed. A
kernel whose application has closed the socket and left bytes of ours unread answers with a reset; so does it when they
come after that, or when the application never accepted the connection. One that has read the request, and died or gave
up, leaves nothing to answer, and the connection ends in order. So a reset says that the request was not read to its end
(unless an application resets on purpose). As it may come a little after the orderly end, that is waited for where it
matters.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from typing import Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol
from zope.interface import alsoProvides

from thrtwisted.chunks import ChunkedBody
from thrtwisted.config import Bounds
from thrtwisted.errors import BackendProtocolError, ExchangeError
from thrtwisted.tls import Client

from .head import Framing, ResponseHeadAsSent, end_of_head, parse_response_head

#: Bytes of an answer that are read while its request is still being sent: enough for any refusal (413, 401).
EARLY = 1024 * 1024
#: Bytes of a response's head, those of the interim ones (1xx) before it included.
HEAD = 64 * 1024
#: Seconds between the looks for a reset that follows an orderly end: a quarter of a second in all, for it is a round
#: trip behind.
LOOKS = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.1)
#: Seconds from the request after which the end of a connection tells nothing: TCP, too, may have given up by then on a
#: network that is gone (where net.ipv4.tcp_retries2 is low), and Twisted does not tell why.
TELLING = 2.0

#: What chunks may be: as large as they like, with trailers as a head may have fields.
_CHUNKS = Bounds(body_size=2**62, head_size=HEAD, header_count=1000)


class Occupant(Shape):
    """The exchange on a connection."""

    def failed(self, error: ExchangeError) -> None:
        """What came is no response; the connection is of no more use."""

    def connection_lost(self) -> None:
        """The connection is gone, and Twisted's client has been told."""


class Connection(Protocol):
    """
    The shell of one connection.

    @ivar client: Twisted's.
    @ivar occupant: who is told what becomes of it; None while it is idle.
    @ivar secured: fires when TLS stands and the other side is who it should be; errbacks when it is not.
    @ivar head: the response's, once it is there.
    @ivar reset: it was lost in another way than by an orderly end.
    @ivar unread: it was lost before any response, and the backend cannot have executed the request.
    @ivar silent: nothing has come since the request.
    """

    transport: Any
    occupant: Occupant | None = None
    head: ResponseHeadAsSent | None = None
    lost = False
    reset = False
    unread = False
    silent = True
    _log = Logger()

    def __init__(self, clock: Any, tls: Client | None, closed: Callable[[Connection], object]) -> None:
        self.client: Any = HTTP11ClientProtocol(self._rested)
        self.secured: Deferred[Connection] = Deferred(lambda _: self.transport.abortConnection())
        # Not both: of several interfaces Twisted's endpoints pass on the last one alone.
        alsoProvides(self, IHalfCloseableProtocol if tls is None else IHandshakeListener)
        self._clock = clock
        self._tls = tls
        self._closed = closed
        self._method = b""
        self._asked_at = 0.0
        self._evidence_matters = False
        self._at_rest = True
        self._spoiled = False
        self._told = False
        self._early = 0
        self._collected: bytearray | None = None
        self._before = 0
        self._left: int | None = None
        self._chunks: ChunkedBody | None = None
        self._looking: Any = None

    # For the pool

    @property
    def usable(self) -> bool:
        """
        Whether another request may be sent: it is open, and nothing has come that nobody asked for.

        The socket is looked at, and not read: the reactor may not have come to it yet.
        """
        if self.lost or self.occupant is not None or not self._at_rest or self._spoiled:
            return False
        wire = self._wire()
        if wire is None:
            return True
        try:
            wire.recv(1, socket.MSG_PEEK)  # it does not block, as none of Twisted's
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def retire(self) -> None:
        """Close it in order if its exchange ended in order, at once if not. Nobody uses it any more."""
        self._spoiled = True
        # The order of TLS is that the other side agrees, which may take for ever.
        if self.client.state == "QUIESCENT" and self._tls is None:
            self.transport.loseConnection()
        else:
            self.discard()

    def discard(self) -> None:
        """Close it at once, unsent bytes included. Nobody uses it any more."""
        self._spoiled = True
        if not self.lost:
            self.transport.abortConnection()

    # For an exchange

    def occupy(self, occupant: Occupant, method: bytes, *, evidence_matters: bool) -> None:
        """
        An exchange begins on this connection.

        @param evidence_matters: whether it matters if the backend has read the request, should it close without a
            response.
        """
        self.occupant, self._method, self._evidence_matters = occupant, method, evidence_matters
        self._asked_at = self._clock.seconds()
        self._at_rest, self.silent, self.unread, self.head = False, True, False, None
        self._collected, self._before, self._early = bytearray(), 0, 0
        self._left = self._chunks = None
        self._told = False

    @property
    def reusable(self) -> bool:
        """Whether the exchange has ended so that another one may follow."""
        in_order = self._at_rest and not self._spoiled and not self.lost
        return in_order and self.head is not None and self.head.keeps_alive

    # IProtocol, called by the transport

    def connectionMade(self) -> None:
        self.client.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.silent = False
        if self._spoiled:
            return
        if self._at_rest:
            self.discard()  # an unasked answer must not be taken for that of the next request
            return
        try:
            data = self._framed(data) if self._collected is None else self._after_head(data)
        except ExchangeError as error:
            self._refuse(error)
            return
        if not data:
            return
        self._told = True
        self.client.dataReceived(data)
        if self.client.state == "TRANSMITTING":
            # The client stopped reading at the head, until the request is sent: both could wait for ever.
            self._early += len(data)
            if self._early <= EARLY and not self._spoiled:
                self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.lost = True
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self.reset = reason.check(ConnectionDone) is None
        in_time = self._clock.seconds() - self._asked_at < TELLING
        # Above TLS nobody knows: it may have read the request and given it to the application.
        self.unread = self._tls is None and self.silent and in_time and bool(reason.check(ConnectionLost))
        if self._tls is not None and not self.secured.called:
            self.secured.errback(self._tls.problem or reason)
        self._closed(self)
        try:
            self.client.connectionLost(reason)
        except Exception:  # the client does so when it gave up before its request was sent
            self._log.failure("Twisted's client failed to take note of a lost connection")
        finally:
            occupant, self.occupant = self.occupant, None
            if occupant is not None:
                occupant.connection_lost()

    # IHandshakeListener

    def handshakeCompleted(self) -> None:
        assert self._tls is not None
        if not self._tls.is_named(self.transport.getHandle()):
            self.transport.abortConnection()
        elif not self.secured.called:
            self.secured.callback(self)

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        """The backend has closed. Did it read what we had sent?"""
        if self._evidence_matters and self.silent and not self._at_rest:
            self._look_for_reset(LOOKS)
        else:
            self._end(ConnectionDone())

    def writeConnectionLost(self) -> None:
        """Never: we do not close one side alone."""

    def _look_for_reset(self, looks: tuple[float, ...]) -> None:
        self._looking = None
        wire = self._wire()
        if wire is not None and wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(ConnectionLost())
        elif wire is None or not looks:
            self._end(ConnectionDone())
        else:
            self._looking = self._clock.callLater(looks[0], self._look_for_reset, looks[1:])

    def _end(self, reason: Exception) -> None:
        """What the reactor does at the end of a connection that is not half-closeable."""
        self.transport.connectionLost(Failure(reason))

    def _wire(self) -> socket.socket | None:
        """The socket below, also below TLS; None in memory."""
        transport = self.transport if self._tls is None else self.transport.transport
        handle = getattr(transport, "getHandle", lambda: None)()
        return handle if isinstance(handle, socket.socket) else None

    # What came

    def _rested(self, client: object) -> None:
        """Twisted's client has the whole response, and had sent the whole request before."""
        self._at_rest = True

    def _refuse(self, error: ExchangeError) -> None:
        self.discard()
        # Once the client knows the head, the end of the connection is what cuts the body.
        if not self._told and self.occupant is not None:
            self.occupant.failed(error)

    def _after_head(self, data: bytes) -> bytes:
        """
        Collect the response's head.

        @return: what Twisted's client is shown of it, and of what followed; nothing as long as it is not complete.
        """
        collected = self._collected
        assert collected is not None
        seen = len(collected)
        collected += data
        while True:
            if not b"HTTP/".startswith(collected[:5]) and not collected.startswith(b"HTTP/"):
                raise BackendProtocolError("The backend's answer is not an HTTP response.")
            end = end_of_head(collected, seen)
            if self._before + (len(collected) if end < 0 else end) > HEAD:
                raise BackendProtocolError("The head of the backend's response is too large.")
            if end < 0:
                return b""
            head = parse_response_head(bytes(collected[:end]))
            del collected[:end]
            if not head.interim:
                break
            self._before += end
            seen = 0
        self.head, self._collected = head, None
        body = head.body(self._method)
        self._left = body.length
        # The client knows by itself that there is none, and no length of a HEAD's should be taken for one.
        self._chunks = ChunkedBody(_CHUNKS) if body.chunked else None
        return _shown(head, body) + self._framed(bytes(collected))

    def _framed(self, data: bytes) -> bytes:
        """What of these bytes belongs to the body, as Twisted's client should read it."""
        if self._chunks is not None:
            return self._unchunked(self._chunks, data)
        if self._left is not None:
            if len(data) > self._left:
                self._spoiled = True  # nobody knows what that is; it is dropped with the connection
                data = data[: self._left]
            self._left -= len(data)
        return data

    def _unchunked(self, chunks: ChunkedBody, data: bytes) -> bytes:
        if chunks.ended:
            self._spoiled = True
            return b""
        try:
            body = b"".join(chunks.feed(data))
        except ExchangeError:
            raise BackendProtocolError("The chunks of the backend's response are malformed.") from None
        shown = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        if not chunks.ended:
            return shown
        if chunks.rest:
            self._spoiled = True
        return shown + b"0\r\n\r\n"


def _shown(head: ResponseHeadAsSent, body: Framing) -> bytes:
    """A head that says nothing but where the body ends."""
    field = b""
    if body.chunked:
        field = b"Transfer-Encoding: chunked\r\n"
    elif body.length is not None:
        field = b"Content-Length: %d\r\n" % body.length
    return b"HTTP/1.1 %d \r\n%b\r\n" % (head.status, field)
