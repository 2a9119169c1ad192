"""Producers that write when they are asked, for resources other than the proxy's on the same site."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer


@implementer(IPushProducer)
class Pulled:
    """
    A pull producer that is asked again and again, once in each turn of the reactor, unless it is told to pause.

    @param producer: provides IPullProducer.
    """

    def __init__(self, clock: IReactorTime, producer: Any) -> None:
        self._clock = clock
        self._producer = producer
        self._next: IDelayedCall | None = None
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Ask no more for now."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def resumeProducing(self) -> None:
        """Ask, beginning with the reactor's next turn."""
        if self._next is None:
            self._next = self._clock.callLater(0, self._ask)

    def stopProducing(self) -> None:
        """Ask never again: nobody reads any more."""
        self.pauseProducing()
        self._producer.stopProducing()

    def _ask(self) -> None:
        self._next = None
        self.resumeProducing()
        self._producer.resumeProducing()  # may pause, or be the last time
