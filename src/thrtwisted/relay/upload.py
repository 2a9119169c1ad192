"""The body of a request at a worker: given to the backend as it comes from the front."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer


@implementer(IBodyProducer)
class Upload:
    """
    What L{RequestBody<thrtwisted.forward.body.RequestBody>} is to a forwarding, for a body that is still on its way.

    What has come is kept until the backend takes it. That is little: the front sends no more than its window, until it
    hears that something was consumed.

    @ivar length: bytes of the whole body.
    @ivar progress: called each time that some of it was given to the backend's transport.
    """

    def __init__(self, length: int, consumed: Callable[[int], object]) -> None:
        """
        @param consumed: called with the number of bytes that need not be kept any more: they were given to the backend,
            or nobody wants them.
        """
        self.length = length
        self.progress: Callable[[], object] = lambda: None
        self._on_consumed = consumed
        self._awaited = length
        self._left = length
        self._pieces: deque[bytes] = deque()
        self._consumer: IConsumer | None = None
        self._sent: Deferred[None] | None = None
        self._paused = False
        self._writing = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<Upload {self.length - self._left} of {self.length} bytes, {len(self._pieces)} pieces wait>"

    @property
    def complete(self) -> bool:
        """Whether all of it has come."""
        return not self._awaited

    @property
    def starved(self) -> bool:
        """Whether the backend waits for what has not come."""
        return self.sending and not self._paused and not self._pieces

    @property
    def sending(self) -> bool:
        """Whether it was begun, and is neither sent nor closed."""
        return self._sent is not None

    def add(self, data: bytes) -> None:
        """
        More of it has come.

        @raise ValueError: that is more than its length.
        """
        if len(data) > self._awaited:
            raise ValueError("the request's body is longer than was said")
        self._awaited -= len(data)
        if self._closed:
            self._on_consumed(len(data))
        elif data:
            self._pieces.append(data)
            self._write()

    def close(self) -> None:
        """Nobody wants it any more: what comes is dropped. It may be called again."""
        self._closed = True
        self._sent = self._consumer = None
        dropped = sum(map(len, self._pieces))
        self._pieces.clear()
        if dropped:
            self._on_consumed(dropped)

    # IBodyProducer, called by Twisted's client and by the backend's transport

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        Write the body to the consumer, as it comes.

        @return: fires when all is written. Errbacks if it was closed before.
        """
        sent: Deferred[None] = Deferred(lambda _: self.close())
        if self._closed:
            sent.errback(ValueError("the request's body was closed before it was sent"))
            return sent
        self._consumer, self._sent = consumer, sent
        self._write()
        return sent

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._write()

    def stopProducing(self) -> None:
        """The connection is gone: the Deferred of L{startProducing} never fires, as IBodyProducer has it."""
        self.close()

    def _write(self) -> None:
        """Write what is there, as long as the backend takes it."""
        if self._writing:
            return  # a transport that asks for more while it is given some
        self._writing = True
        try:
            while self._consumer is not None and self._pieces and not self._paused:
                piece = self._pieces.popleft()
                self._left -= len(piece)
                self._consumer.write(piece)
                self.progress()
                self._on_consumed(len(piece))
        except Exception:
            self._end(Failure())
        else:
            if not self._left:
                self._end(None)
        finally:
            self._writing = False

    def _end(self, result: Failure | None) -> None:
        sent = self._sent
        self.close()
        if sent is not None:
            sent.callback(result)
