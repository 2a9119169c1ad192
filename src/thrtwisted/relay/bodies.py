"""
The two bodies of an exchange at a front: what the request's is written to, and where the response's comes from.

The other side of each is a conversation with a worker. So back-pressure reaches from the client through Redis to the
backend, and back.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from thrtwisted.forward import RequestBody

from .conversation import Conversation


@implementer(IConsumer)
class Sender:
    """What the body of a request is written to: a conversation, as fast as the worker takes it."""

    def __init__(self, conversation: Conversation, body: RequestBody) -> None:
        self._conversation = conversation
        self._body = body

    def write(self, data: bytes) -> None:
        self._conversation.write(data)
        if self._conversation.full:
            self._body.pauseProducing()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """The body is known already."""

    def unregisterProducer(self) -> None:
        """There is nothing to forget."""


@implementer(IPushProducer)
class Valve:
    """
    Where the body of a response comes from, as the spool sees it. While it is held, the worker is told of nothing that
    was consumed, and soon sends no more.
    """

    def __init__(self, consumed: Callable[[int], object]) -> None:
        self._consumed = consumed
        self._held = False
        self._withheld = 0

    def passed(self, size: int) -> None:
        """So many bytes have come."""
        self._withheld += size
        self._give()

    def pauseProducing(self) -> None:
        self._held = True

    def resumeProducing(self) -> None:
        self._held = False
        self._give()

    def stopProducing(self) -> None:
        """It ends by itself."""

    def _give(self) -> None:
        if self._withheld and not self._held:
            size, self._withheld = self._withheld, 0
            self._consumed(size)
