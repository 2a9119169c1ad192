"""The body of a request, as whoever sends it sees it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer


@implementer(IBodyProducer)
class SendableBody:
    """
    A body that is given to the backend as fast as that takes it. Where it comes from is the subclasses'.

    @ivar length: its bytes.
    @ivar progress: called each time that some of it was given to the backend's transport.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.progress: Callable[[], object] = lambda: None
        self._left = length
        self._consumer: IConsumer | None = None
        self._sent: Deferred[None] | None = None
        self._paused = False
        self._writing = False
        self._closed = False

    @property
    def sending(self) -> bool:
        """Whether it was begun, and is neither sent nor closed."""
        return self._sent is not None

    @property
    def starved(self) -> bool:
        """Whether the backend waits for what has not come."""
        return False

    def close(self) -> None:
        """Nobody wants it any more: what was not sent will not be. It may be called again."""
        self._sent = self._consumer = None
        if not self._closed:
            self._closed = True
            self._discard()

    # IBodyProducer, called by Twisted's client and by the backend's transport

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        Write the body to the consumer.

        @return: fires when all is written. Errbacks if it cannot be had, or was closed before.
        """
        sent: Deferred[None] = Deferred(lambda _: self.close())
        if self._closed:
            sent.errback(ValueError("the request's body was closed before it was sent"))
            return sent
        self._consumer, self._sent = consumer, sent
        self.resumeProducing()
        return sent

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._write()

    def stopProducing(self) -> None:
        """The connection is gone: the Deferred of L{startProducing} never fires, as IBodyProducer has it."""
        self.close()

    # For subclasses

    def _next(self) -> bytes:
        """The next piece of it; nothing, if that is not there yet."""
        raise NotImplementedError

    def _given(self, size: int) -> None:
        """So many bytes were given to the backend."""

    def _all_given(self) -> None:
        """All of it was given to the backend, or no more of it can be had."""
        self.close()

    def _discard(self) -> None:
        """Give back what holds it."""
        raise NotImplementedError

    def _write(self) -> None:
        """Write what is there, as long as the backend takes it."""
        if self._writing:
            return  # a transport that asks for more while it is given some
        self._writing = True
        try:
            while self._consumer is not None and self._left and not self._paused:
                piece = self._next()
                if not piece:
                    break
                self._left -= len(piece)
                self._consumer.write(piece)
                self.progress()
                self._given(len(piece))
        except Exception:
            self._end(Failure())
        else:
            if not self._left:
                self._end(None)
        finally:
            self._writing = False

    def _end(self, result: Failure | None) -> None:
        sent = self._sent
        self._all_given()
        if sent is not None:
            sent.callback(result)
