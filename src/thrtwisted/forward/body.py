"""
The bodies of an exchange: the request's, sent from its file, and the response's, read as fast as it comes.

A request body respects the backend's back-pressure. A response body keeps the client's from the backend until
C{max_spool} bytes wait for the client (promise 5: a slow reader holds no slot).
"""

from __future__ import annotations

from collections.abc import Callable
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from thrtwisted.errors import BackendClosed, RuleFailed

from .disk import Disk
from .sendable import SendableBody
from .spool import PIECE, Spool, nothing


class RequestBody(SendableBody):
    """
    The body of a request, which now belongs to the forwarding and to nobody else. All of it has come.

    The file is closed exactly once: when all of it is sent, or when the forwarding is over. Whoever may have to send it
    again says so with L{keep}.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        super().__init__(file.seek(0, SEEK_END))
        file.seek(0)
        self._kept = False

    @classmethod
    def take(cls, request: Any) -> RequestBody:
        """
        Take the content of a L{twisted.web.http.Request}, which would close it as soon as its client leaves.

        Whoever takes it and does not send it must L{close} it.
        """
        content, request.content = request.content, BytesIO()
        return cls(BytesIO() if content is None else content)

    def read(self) -> bytes:
        """
        All of it, before it is sent.

        @raise OSError: the file cannot be read.
        @raise ValueError: it is being sent, or is not kept any more.
        """
        self._check_whole()
        self._file.seek(0)
        body = self._file.read()
        self._file.seek(0)
        return body

    def replace(self, body: bytes) -> None:
        """
        Let another body take the place of this one, before it is sent.

        @raise ValueError: it is being sent, or is not kept any more.
        """
        self._check_whole()
        self._file.close()
        self._file = BytesIO(body)
        self.length = self._left = len(body)

    def keep(self) -> None:
        """Do not close it when all is sent, until L{let_go}: it may have to be sent again."""
        self._kept = True

    def rewind(self) -> None:
        """Send no more of it, to begin again from its start; it is kept."""
        self._sent = self._consumer = None
        self._paused = False
        if not self._closed:
            self._left = self.length
            self._file.seek(0)

    def let_go(self) -> None:
        """It is not sent again: close it as soon as all is sent, at once if none is. It may be called again."""
        self._kept = False
        if not self.sending:
            self.close()

    def _check_whole(self) -> None:
        if self._closed or self._kept or self.sending:
            raise ValueError(
                "the request's body is sent already, and not kept; read or set it in custom_input"
            )

    def _next(self) -> bytes:
        piece = self._file.read(min(PIECE, self._left))
        if not piece:
            raise OSError("the request's body is shorter than it was")
        return piece

    def _all_given(self) -> None:
        if self._kept:
            self._sent = self._consumer = None
        else:
            self.close()

    def _discard(self) -> None:
        self._file.close()


@implementer(IPushProducer)
class ResponseBody(Protocol):
    """
    The body of a response, between the backend that writes it and the client that reads it.

    - Until L{deliver} it is spooled, and may be read as a whole. From then on it goes to the client, through the spool
      where the client is slower than the backend.
    - The backend has ended: the spool is emptied to the client, and the request is finished.
    - The backend cut its response, or the spool's disk is full: the client's connection is aborted.
    - The client has left: the rest is read and dropped.

    @ivar ended: the backend has finished, one way or the other.
    """

    _log = Logger()

    def __init__(
        self,
        max_spool: int,
        disk: Disk | None = None,
        *,
        on_end: Callable[[], object],
        on_leave: Callable[[], object],
        was_reset: Callable[[], bool],
    ) -> None:
        """
        @param disk: what it may keep on disk beside others; None: as much as C{max_spool}.
        @param on_end: called once, when the backend has ended.
        @param on_leave: called when the client leaves before it has everything.
        @param was_reset: whether the backend's connection ended in disorder.
        """
        self._on_end = on_end
        self._on_leave = on_leave
        self._was_reset = was_reset
        self.spool = Spool(max_spool, disk=disk, on_room=self._let_backend_go)
        self.ended = False
        self._clock: Any = None
        self._heard = 0.0
        self._silence: IDelayedCall | None = None
        self._cut = False
        self._dropping = False
        self._holding_backend = False
        self._request: Any = None
        self._delivered: Deferred[None] | None = None
        self._client_paused = False
        self._registered = False
        self._sent = 0
        self._pumping = False
        self._reader: Deferred[bytes] | None = None
        self._read_limit = 0
        self._collected = bytearray()

    def expect(self, clock: Any, seconds: float, on_silence: Callable[[], object]) -> None:
        """
        Do not wait for ever for the next piece.

        @param seconds: without a byte, while the backend may write, after which C{on_silence} is called.
        """
        self._clock, self._heard = clock, clock.seconds()
        self._silence = clock.callLater(seconds, self._listen, seconds, on_silence)

    # IProtocol, called by Twisted's client

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, or keep it. Raises nothing: the client would take an error for the end of the body."""
        if self._clock is not None:
            self._heard = self._clock.seconds()
        if self._dropping:
            return
        if self._reader is not None:
            self._collect(data)
            return
        try:
            if self._request is not None and not self._client_paused and not self._pumping and not self.spool:
                self._write(data)
                return
            self.spool.append(data)
        except Exception as error:
            self._break(error)
            return
        if self.spool.full:
            self._holding_backend = True
            self._backend.pauseProducing()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        """
        The backend has ended: well; or by closing, where there is neither length nor chunks, which an error
        of the connection spoils (RFC 9112, section 8); or by cutting its response.
        """
        self.ended = True
        self._holding_backend = False
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        well = reason.check(ResponseDone) or (reason.check(PotentialDataLoss) and not self._was_reset())
        self._cut = self._cut or not well
        on_end, self._on_end = self._on_end, nothing
        try:
            on_end()  # first: what the client sends next finds the slot and the connection free
        finally:
            self._settle()
            self._read_to_its_end()

    @property
    def _backend(self) -> IPushProducer:
        return IPushProducer(self.transport)

    # The client's side

    def deliver(self, request: Any) -> Deferred[None]:
        """
        Send the body to the client; status and headers are set already.

        @return: fires when the client was given everything, or has left, or was cut off. Never errbacks.
        """
        if self._dropping and not self._cut:
            return succeed(None)
        self._put_back()
        delivered = self._delivered = Deferred()
        self._request = request
        request.notifyFinish().addCallbacks(lambda _: None, lambda _: self._leave())
        if not self._cut and not self.spool and not self.ended:
            request.write(b"")  # the head, at once: the body may take its time
        self._pump()
        return delivered

    def read(self, limit: int) -> Deferred[bytes]:
        """
        Read all of it before L{deliver}, which sends it all the same.

        Meanwhile the backend is not held back: C{limit} bytes, at least, are kept in memory.

        @return: fires with all of it, once the backend has ended. Errbacks with L{BackendClosed} if that cuts it, and
            with L{RuleFailed} as soon as it is longer than C{limit}. It does not fire any more once the body is
            delivered or dropped.
        @raise ValueError: it is read already.
        """
        if self._reader is not None:
            raise ValueError("the body is being read already; wait for that")
        reader = self._reader = Deferred()
        self._read_limit = limit
        if self._dropping:
            self._cut = True  # nothing of it is there
        elif len(self.spool) > limit:
            self._read_too_much()
            return reader
        try:
            while self.spool:
                self._collected += self.spool.take()
        except OSError as error:
            self._break(error)
        self._let_backend_go()
        if self.ended or self._cut:
            self._read_to_its_end()
        return reader

    def drop(self) -> None:
        """Nobody wants the rest: read it as fast as it comes, and keep none of it. It may be called again."""
        self._dropping = True
        self._request = self._reader = None
        self._collected = bytearray()
        self.spool.close()
        self._let_backend_go()
        self._fire_delivered()

    # IPushProducer, called by the client's transport

    def pauseProducing(self) -> None:
        self._client_paused = True

    def resumeProducing(self) -> None:
        self._client_paused = False
        self._pump()

    def stopProducing(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._request is not None:
            on_leave = self._on_leave
            self.drop()
            on_leave()

    def _collect(self, data: bytes) -> None:
        self._collected += data
        if len(self._collected) > self._read_limit:
            self._read_too_much()

    def _read_too_much(self) -> None:
        reader = self._put_back()
        if reader is not None:
            reader.errback(
                RuleFailed(f"the response's body is longer than {self._read_limit} bytes; do not read it")
            )

    def _read_to_its_end(self) -> None:
        body = bytes(self._collected)
        reader = self._put_back()
        if reader is not None and self._cut:
            reader.errback(
                BackendClosed("The backend closed the connection before its response was complete.")
            )
        elif reader is not None:
            reader.callback(body)

    def _put_back(self) -> Deferred[bytes] | None:
        """Read no more: what was read waits to be delivered, before what follows."""
        reader, self._reader = self._reader, None
        collected, self._collected = self._collected, bytearray()
        if collected and not self._dropping:
            self.spool.append(bytes(collected))  # which was empty: it takes this into memory
        return reader

    def _pump(self) -> None:
        """Write from the spool as long as the client takes it."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._request is not None and not self._client_paused and not self._cut and self.spool:
                self._write(self.spool.take())
        except Exception as error:
            self._break(error)
        finally:
            self._pumping = False
        if self.spool.roomy:
            self._let_backend_go()
        self._settle()

    def _write(self, data: bytes) -> None:
        if not self._registered and self._sent + len(data) > PIECE:
            # Less than this fits into the transport's own buffer: most responses need no producer.
            self._registered = True
            self._request.registerProducer(self, True)
        self._sent += len(data)
        self._request.write(data)

    def _break(self, problem: Exception) -> None:
        """The spool or the client's transport does not work: the client must see a cut."""
        if isinstance(problem, OSError):
            self._log.error(
                "A response cannot be kept for its client, who is cut off: {problem}", problem=problem
            )
        else:
            self._log.failure("A response could not be passed on")
        self._cut = True
        self._dropping = True
        self.spool.close()
        self._let_backend_go()
        self._settle()

    def _settle(self) -> None:
        """After every change: is the client's response over?"""
        request = self._request
        if request is None or self._pumping:
            return
        if self._cut:
            self._request = None
            self._dropping = True
            self.spool.close()
            request.transport.abortConnection()
        elif self.ended and not self.spool:
            self._request = None
            self.spool.close()
            if self._registered:
                request.unregisterProducer()
            request.finish()
        else:
            return
        self._fire_delivered()

    def _listen(self, seconds: float, on_silence: Callable[[], object]) -> None:
        """
        It is some time since something was heard. One timer does for many pieces.

        As long as we hold the backend back it is our silence.
        """
        self._silence = None
        now = self._clock.seconds()
        left = seconds if self._holding_backend else self._heard + seconds - now
        if left > 0:
            self._silence = self._clock.callLater(left, self._listen, seconds, on_silence)
        else:
            on_silence()

    def _let_backend_go(self) -> None:
        """There is room in the spool: the client has read on, or others have left the disk."""
        if self._holding_backend:
            self._holding_backend = False
            if self._clock is not None:
                self._heard = self._clock.seconds()
            self._backend.resumeProducing()

    def _fire_delivered(self) -> None:
        """The client has all that it gets. Whom this was made by is not told of it any more, nor kept in memory."""
        self._on_leave = nothing
        delivered, self._delivered = self._delivered, None
        if delivered is not None:
            delivered.callback(None)
