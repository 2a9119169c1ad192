"""
One exchange, as one of the two who talk about it sees it: a flow out, a flow in, and what stands outside of them.

What is said arrives once and in its order, whatever Redis loses or repeats in between: all that the other side has not
acknowledged is kept, and sent again as soon as the post is up again. No more than the window is on its way at once.
"""

from __future__ import annotations

from zope.interface import Interface

from thrtwisted.relay import IPost
from thrtwisted.relay.codec import Frame, Kind


class IConversationUser(Interface):
    """Whose exchange it is. Every call comes from within L{Conversation.received}."""

    def said(kind: Kind, payload: bytes) -> None:
        """
        The other side has said this. What was said in the flow comes once and in order; C{DATA} in pieces, and each
        byte has to be reported to L{Conversation.consumed}; anything else whole. What was told outside of the flow
        comes at once, and perhaps more often: C{ABANDON}, C{DONE}, and C{GONE}, also for an other side that talks
        nonsense. Nothing is said after L{Conversation.end}, which may be called from here.
        """

    def drained() -> None:
        """It was full and no more is: go on writing."""


def answer_unknown(post: IPost, frame: Frame) -> None:
    """Say C{GONE} to whoever has sent a frame of an exchange that is not known here (any more), if he waits for a word."""


class Conversation:
    """
    @ivar full: as much waits here, unsent, as the window: write no more until L{IConversationUser.drained}.
    @ivar quiet: all that was said is acknowledged.
    """

    def __init__(
        self, post: IPost, peer: str, front: str, number: int, window: int, user: IConversationUser
    ) -> None:
        """
        @param peer: the owner that is talked to.
        @param front: the owner whose exchange it is, and its number there.
        @param window: bytes that may be under way to the peer at once.
        """
        raise NotImplementedError

    @property
    def full(self) -> bool:
        raise NotImplementedError

    @property
    def quiet(self) -> bool:
        raise NotImplementedError

    def say(self, kind: Kind, payload: bytes = b"") -> None:
        """Say something in the flow, after all that was said before. It is split if it is long."""

    def write(self, data: bytes) -> None:
        """C{DATA}, in the flow. It may be called when full, too: what there is no room for is kept here, not in Redis."""

    def tell(self, kind: Kind) -> None:
        """Say it at once, outside of the flow; and again whenever the post was down: C{ABANDON}, C{DONE} early."""

    def consumed(self, size: int) -> None:
        """So many bytes of C{DATA} have gone on to whom they are for: others may come for them."""

    def received(self, frame: Frame) -> None:
        """The post has brought a frame of this exchange. Never raises, whatever the frame is."""

    def resend(self) -> None:
        """The post is up again: say again what is not acknowledged, and what was told, and acknowledge again."""

    def ask(self) -> None:
        """Have the other side say C{GONE} if it does not know the exchange any more: for one that is silent for long."""

    def end(self) -> None:
        """Forget it all: it says nothing any more and hears nothing; a last acknowledgement goes out, in its time."""
