"""
What the second connection of a link brings: the messages of a channel, or those of an inbox.

A message on a channel is for whoever listens at that moment. An inbox is a stream: what is written to it stays until it
was read, or until its time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from .connection import Commands, Dialer, Messages
from .overdue import Overdue
from .trouble import TooSlow

#: Messages that are read from an inbox at once.
MOST_MESSAGES = 64


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


@implementer(IListening)
class Inbox:
    """
    The messages of a stream, in their order, each as soon as it is there; they are removed once they were handed on.

    What was handed on on one connection may come again on the next, if it could not be removed. It is read from the
    stream's beginning each time, and so does not hang on the ids being in order, over a server's restart or a clock
    that is set back.

    @param key: the stream.
    @param received: is called with what is in each reply: messages, or none; each is a list of fields and their values,
        one after the other. It must not raise.
    @param block: seconds after which a server that has no message says so.
    @param timeout: seconds that it may take for that.
    """

    protocol = Commands

    def __init__(
        self, key: str, received: Callable[[list[Any]], object], *, block: float, timeout: float
    ) -> None:
        self.key = key
        self._received = received
        self._patience = block + timeout
        self._read = (
            "XREAD",
            "COUNT",
            MOST_MESSAGES,
            "BLOCK",
            max(1, round(block * 1000)),
            "STREAMS",
            key,
            0,
        )

    def begin(self, connection: Any, dialer: Dialer) -> Deferred[Any]:
        """See L{IListening.begin}. Whatever is written meanwhile waits."""
        return succeed(None)

    @inlineCallbacks
    def listen(self, connection: Any, reactor: Any) -> Generator[Deferred[Any], Any, None]:
        """See L{IListening.listen}."""
        reading: Deferred[Any]

        def give_up(problem: Exception | Failure) -> None:
            if not reading.called:
                reading.errback(problem)

        overdue = Overdue(reactor, self._patience, lambda: give_up(TooSlow()))
        try:
            while True:
                reading = connection.execute_command(*self._read)
                overdue.asked()
                streams = yield reading
                overdue.answered()
                [[_, messages]] = streams or [[self.key, []]]
                self._received([fields for _, fields in messages])
                if messages:
                    # Sent together with the next question, and done before it.
                    removed = connection.execute_command("XDEL", self.key, *(id for id, _ in messages))
                    removed.addErrback(give_up)
        finally:
            overdue.forget()
