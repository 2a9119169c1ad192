"""
What the second connection of a link brings: the messages of a channel, or those of an inbox.

A message on a channel is for whoever listens at that moment. An inbox is a stream: what is written to it stays until it
was read, or until its time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from zope.interface import Attribute, Interface, implementer

from .connection import Commands, Dialer, Messages
from .overdue import Overdue
from .trouble import TooSlow

#: Messages that are read from an inbox at once.
MOST_MESSAGES = b"64"

#: An id before all others.
_BEGINNING = b"0"


class IListening(Interface):
    """What a link's second connection is for."""

    key = Attribute("What is listened to; its hash tag, or all of it, is that of our keys.")

    protocol = Attribute("The class of the connection.")

    def begin(connection: Any, dialer: Dialer) -> Deferred[Any]:
        """
        Begin, on a connection that is not in use yet.

        @return: fires when messages arrive from now on. Errbacks with what L{thrtwisted.redis.trouble} knows.
        """

    def listen(connection: Any, reactor: Any) -> Deferred[Any]:
        """
        Have messages brought, as long as the connection stands.

        @return: never fires. Errbacks with what L{thrtwisted.redis.trouble} knows; with C{txredisapi.ConnectionError}
            when the connection is lost. Cancelling ends it.
        """


@implementer(IListening)
class Subscription:
    """
    The messages of a channel.

    @param key: the channel.
    @param received: is called with each message.
    """

    protocol = Messages

    def __init__(self, key: str, received: Callable[[bytes], object]) -> None:
        self.key = key
        self._received = received

    def begin(self, connection: Any, dialer: Dialer) -> Deferred[Any]:
        """See L{IListening.begin}."""
        connection.received = self._received
        return dialer.command(connection, "SUBSCRIBE", self.key)

    def listen(self, connection: Any, reactor: Any) -> Deferred[Any]:
        """See L{IListening.listen}. They come by themselves."""
        return Deferred()


class Reader(Commands):
    """
    A connection on which long answers come.

    @ivar heard: is called with each part of one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard: Callable[[], None] = lambda: None

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Note that the other side is alive."""
        self.heard()
        super().dataReceived(data, unpause)


@implementer(IListening)
class Inbox:
    """
    The messages of a stream, in their order, each as soon as it is there. It is for whoever receives them to remove
    them: what was not removed comes again on the next connection, or after a while in which there was nothing new.

    For then the stream is read from its beginning. So no message is missed though ids are not in order, after a clock
    was set back: between two messages to a stream that has passed meanwhile there is such a while.

    @param key: the stream.
    @param received: is called with what is in each reply: messages, or none; each is a list of its id and a list of
        fields and their values, one after the other. It must not raise.
    @param block: seconds after which a server that has no message says so. The stream has to outlive its last message
        by more than that.
    @param timeout: seconds that it may take for that, or for the next part of an answer.
    """

    protocol = Reader

    def __init__(
        self, key: str, received: Callable[[list[Any]], object], *, block: float, timeout: float
    ) -> None:
        self.key = key
        self._received = received
        self._patience = block + timeout
        milliseconds = b"%d" % max(1, round(block * 1000))
        self._read = (b"XREAD", b"COUNT", MOST_MESSAGES, b"BLOCK", milliseconds, b"STREAMS", key.encode())

    def begin(self, connection: Any, dialer: Dialer) -> Deferred[Any]:
        """See L{IListening.begin}. Whatever is written meanwhile waits."""
        return succeed(None)

    @inlineCallbacks
    def listen(self, connection: Any, reactor: Any) -> Generator[Deferred[Any], Any, None]:
        """See L{IListening.listen}."""
        reading: Deferred[Any]
        overdue = Overdue(reactor, self._patience, lambda: reading.errback(TooSlow()))
        connection.heard = overdue.alive
        last = _BEGINNING
        try:
            while True:
                reading = connection.execute_command(*self._read, last)
                overdue.asked()
                streams = yield reading
                overdue.answered()
                [[_, messages]] = streams or [[self.key, []]]
                last = messages[-1][0] if messages else _BEGINNING
                self._received(messages)
        finally:
            overdue.forget()
