"""A response on its way from a worker to a front: what a forwarding uses of a client's request, said to the front."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from .codec import Kind
from .conversation import Conversation


class Reply:
    """
    What L{Forwarding.deliver<thrtwisted.forward.IForwarding.deliver>} gives a response's body to.

    A front that takes it slowly is as a client that reads slowly: the rest waits in the worker's spool, and holds the
    backend only when that is full.

    @ivar transport: can be aborted, as that of a request: then the front is told that the response is cut.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.transport = self
        self._conversation = conversation
        self._producer: Any = None

    def notifyFinish(self) -> Deferred[None]:
        """Never fires: whoever leaves says so to the forwarding itself."""
        return Deferred()

    def write(self, data: bytes) -> None:
        """Say a piece of the body; nothing, for the front has the head already, if there is none."""
        if data:
            self._conversation.write(data)
            self._hold()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let who writes be held, as long as the front takes no more."""
        self._producer = producer
        self._hold()

    def unregisterProducer(self) -> None:
        """Nothing more is written."""
        self._producer = None

    def finish(self) -> None:
        """The body is complete."""
        self._conversation.say(Kind.END)

    def abortConnection(self) -> None:
        """The body is not complete, and will not be."""
        self._producer = None
        self._conversation.say(Kind.CUT)

    def drained(self) -> None:
        """The front takes more."""
        if self._producer is not None:
            self._producer.resumeProducing()

    def _hold(self) -> None:
        if self._producer is not None and self._conversation.full:
            self._producer.pauseProducing()
