"""
One exchange, as one of the two who talk about it sees it: a flow out, a flow in, and what stands outside of them.

What is said arrives once and in its order, whatever Redis loses or repeats in between: all that the other side has not
acknowledged is kept, and sent again if it was lost. No more than the window is on its way at once, and C{DATA} is
acknowledged only when it has gone on to whom it is for: so the slowest on the way sets the pace.

Whether anything was lost is not guessed, but asked: when the post is up again, when the other side is silent, and when
it goes on talking, but is not done with anything that was sent. The question comes after all that was sent before, so
its answer says what of that will never come; and nothing is sent meanwhile. Sent again at once, all would stand in
Redis twice, and more often, for one who does not read and one whose post comes and goes.

An acknowledgement rides with every frame. It goes alone once a quarter of the window was consumed since the last; and
when all is over. The two sides may have different windows: the smaller one counts, or the side that has it would wait
for ever.
"""

from __future__ import annotations

from contextlib import suppress

from zope.interface import Interface

from thrtwisted.relay import IPost
from thrtwisted.relay.codec import NOTHING, Frame, Kind, Question, decode_payload, encode_payload
from thrtwisted.relay.flow import Incoming, Numbered, Outgoing, piece_of

#: What is heard whenever it comes, outside of the flow.
OUTSIDE = frozenset({Kind.ABANDON, Kind.DONE, Kind.ACK, Kind.GONE})

#: What is never in a flow.
NEVER_INSIDE = frozenset({Kind.ACK, Kind.GONE})

#: The last words of a worker.
LAST_WORDS = frozenset({Kind.DONE, Kind.REFUSED})


class IConversationUser(Interface):
    """Whose exchange it is. C{drained} is called from within L{Conversation.received} alone, and so is C{said}."""

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
    """
    An exchange is not known here (any more), but a frame of it has come: say C{GONE} to whoever has sent it, if he
    waits for a word. A front that asks a worker hears that nothing was heard: its opening may be lost.
    """
    if frame.kind == Kind.GONE or (frame.kind == Kind.ACK and not frame.sender):
        return
    peer = frame.sender or frame.front
    if peer == post.owner:
        return
    answer = Frame(frame.front, frame.number, Kind.GONE)
    if frame.kind == Kind.ACK and peer == frame.front:
        with suppress(ValueError):
            question = decode_payload(frame.payload, Question)
            payload = encode_payload(Question(0, question.number, NOTHING))
            answer = Frame(frame.front, frame.number, Kind.ACK, payload=payload)
    post.send(peer, answer)


class Conversation:
    """
    @ivar full: what waits here, unsent, is enough: write no more until L{IConversationUser.drained}.
    @ivar all_sent: all that was said has been sent.
    @ivar quiet: all that was said is acknowledged.
    @ivar concluded: the worker's last word was heard, at its place in the flow: nothing follows.
    """

    def __init__(
        self, post: IPost, peer: str, front: str, number: int, window: int, user: IConversationUser
    ) -> None:
        """
        @param peer: the owner that is talked to.
        @param front: the owner whose exchange it is, and its number there.
        @param window: bytes that may be under way to the peer at once.
        """
        self._post = post
        self._peer = peer
        self._front = front
        self._number = number
        self._window = window
        self._enough = window // 4  # consumed, it is acknowledged at once
        self._user = user
        self._out = Outgoing(window, piece_of(window))
        self._in = Incoming()
        self._asked = 0  # the number of the last question
        self._counts = 1  # the first question that comes after all that was sent, and is not answered
        self._oldest = 0  # what was under way longest when it was looked last
        self._told: list[Kind] = []
        self._untold = False  # that is told with the answer only
        self._last_said: Kind | None = None
        self._last_word_heard = False
        self._ended = False

    def __repr__(self) -> str:
        return (
            f"<Conversation {self._front}/{self._number} with {self._peer}: {self._out.in_flight} bytes out, "
            f"said {self._last_said!r}, heard {self._in.last}, acknowledged {self._in.ack}>"
        )

    @property
    def full(self) -> bool:
        return self._out.full

    @property
    def all_sent(self) -> bool:
        return self._out.all_sent

    @property
    def quiet(self) -> bool:
        return self._out.quiet

    @property
    def concluded(self) -> bool:
        return self._last_word_heard

    def say(self, kind: Kind, payload: bytes = b"") -> None:
        """Say something in the flow, after all that was said before. It is split if it is long."""
        if self._ended:
            return
        self._last_said = kind
        self._out.put(kind, payload)
        self._pump()

    def write(self, data: bytes) -> None:
        """C{DATA}, in the flow. It may be called when full, too: what there is no room for is kept here."""
        if data:
            self.say(Kind.DATA, data)

    def tell(self, kind: Kind) -> None:
        """
        Say it at once, outside of the flow; and again with each L{check}: C{ABANDON}, C{DONE} early.

        What was just said in the flow, and sent, is not told in addition: to have it known at once, say it and tell it.
        """
        if self._ended or (self._last_said == kind and self._out.all_sent):
            return
        if kind not in self._told:
            self._told.append(kind)
        self._send(kind, sender=self._post.owner)

    def consumed(self, size: int) -> None:
        """So many bytes of C{DATA} have gone on to whom they are for: others may come for them."""
        if self._ended:
            return
        self._in.consumed(size)
        self._acknowledge()

    def received(self, frame: Frame) -> None:
        """The post has brought a frame of this exchange. Never raises, whatever the frame is."""
        if self._ended:
            return
        self._hear_acknowledgement(frame.ack)
        if self._ended:
            return
        try:
            kind = Kind(frame.kind)
            if frame.seq:
                if frame.seq == 1 and 0 < frame.window < self._window:
                    self._enough = frame.window // 4
                payload = self._flows_in(Numbered(frame.seq, kind, frame.payload, frame.more))
            else:
                payload = self._outside(kind, frame)
        except ValueError:  # nobody of ours says this: whoever it is, he knows nothing of the exchange
            kind, payload = Kind.GONE, b""
        if payload is not None:
            self._user.said(kind, payload)

    def check(self) -> None:
        """
        What was sent may be lost, and so may be what the other side has said: the post is up again, or the other side
        was silent for long. Whichever of both has lost something gets it again; one who does not know the exchange (any
        more) says C{GONE}.
        """
        if not self._ended and (self._out.begun or self._in.last):
            self._tell_again()
            self._ask()

    def look(self) -> None:
        """
        To be called now and then, however much the other side talks: what it has not heard may be lost nevertheless. So
        what was told is told again; and if there was no acknowledgement since the last time, see L{check}.
        """
        if self._ended:
            return
        oldest = self._out.sent[0].seq if self._out.sent else 0
        if oldest and oldest == self._oldest:
            self.check()
        else:
            self._tell_again()
        self._oldest = oldest

    def end(self) -> None:
        """
        Forget it all: it says nothing any more and hears nothing.

        What this side is done with is acknowledged, in its time; and all that has come where the worker's last word was
        heard, for the worker is to keep nothing of it any more. If the other side does not know yet that it is over
        (the worker's last word has not come through), it is told C{GONE}.
        """
        if self._ended:
            return
        if self._last_word_heard:
            self._in.let_go()
        through = self._last_word_heard or (self._last_said in LAST_WORDS and self._out.quiet)
        if not through and (self._out.begun or self._in.last):
            self._send(Kind.GONE)
        elif self._in.due:
            self._send(Kind.ACK, soon=False)
        self._ended = True

    def _hear_acknowledgement(self, ack: int) -> None:
        """The other side is done with so much: send what there is room for now."""
        self._out.acknowledged(ack)
        self._go_on()

    def _flows_in(self, numbered: Numbered) -> bytes | None:
        """What a frame of the flow says, or None."""
        if numbered.kind in NEVER_INSIDE:
            raise ValueError(f"a {numbered.kind.name} in the flow")
        heard = self._in.last
        payload = self._in.received(numbered)
        if self._in.last > heard and numbered.kind in LAST_WORDS:
            self._last_word_heard = True
        self._acknowledge()
        return payload

    def _outside(self, kind: Kind, frame: Frame) -> bytes | None:
        """What a frame outside of the flow says, or None."""
        if kind not in OUTSIDE:
            raise ValueError(f"a {kind.name} outside of the flow")
        if kind != Kind.ACK:
            return b""
        if frame.payload:
            question = decode_payload(frame.payload, Question)
            self._answered(question)
            if question.number and not self._ended:
                self._answer(question)
        return None

    @property
    def _unsure(self) -> bool:
        """Something that was sent may be lost, and it is asked whether it is."""
        return self._asked >= self._counts and bool(self._out.sent)

    def _ask(self, answers: int = 0) -> None:
        """Ask how far this side was heard. It is asked again for as long as there is no answer, and any counts."""
        self._asked += 1
        self._send_question(self._asked, answers)

    def _answer(self, question: Question) -> None:
        """Say how far the other side was heard; if it may have lost something, too, ask back."""
        self._tell_again()
        if self._out.sent and not question.answers:
            self._ask(question.number)
        else:
            self._send_question(0, question.number)

    def _answered(self, question: Question) -> None:
        """If that answers a question that counts, all that was not heard is lost: send it again, and go on."""
        if question.answers < self._counts:
            return
        if question.heard == NOTHING and self._known:
            raise ValueError("who has heard something knows nothing")
        self._counts = self._asked + 1
        lost = [numbered for numbered in self._out.sent if numbered.seq > question.heard]
        for numbered in lost[:1]:
            self._send_numbered(numbered)
        if self._untold:
            self._tell_all()
        for numbered in lost[1:]:
            self._send_numbered(numbered)
        self._go_on()

    @property
    def _known(self) -> bool:
        """The other side is known to have heard of the exchange."""
        return bool(self._in.last) or not self._out.sent or self._out.sent[0].seq > 1

    def _tell_again(self) -> None:
        """Who has not heard of the exchange yet would say that it is gone: he is told after its opening."""
        self._untold = not self._known
        if self._known:
            self._tell_all()

    def _tell_all(self) -> None:
        for kind in self._told:
            self._send(kind, sender=self._post.owner)

    def _acknowledge(self) -> None:
        """Say how far this side is, if the other may wait for it."""
        if self._in.due >= self._enough:
            self._send(Kind.ACK)

    def _go_on(self) -> None:
        """There may be room again."""
        was_full = self._out.full
        self._pump()
        if was_full and not self._out.full:
            self._user.drained()

    def _pump(self) -> None:
        """Send what there is room for, unless what was sent before may be lost."""
        while not self._unsure and (numbered := self._out.next()):
            self._send_numbered(numbered)

    def _send_question(self, number: int, answers: int) -> None:
        question = encode_payload(Question(number, answers, self._in.last))
        self._send(Kind.ACK, payload=question, sender=self._post.owner if number else "")

    def _send_numbered(self, numbered: Numbered) -> None:
        self._counts = self._asked + 1
        self._send(numbered.kind, seq=numbered.seq, more=numbered.more, payload=numbered.payload)

    def _send(
        self,
        kind: Kind,
        *,
        seq: int = 0,
        more: bool = False,
        payload: bytes = b"",
        sender: str = "",
        soon: bool = True,
    ) -> None:
        """Send a frame. It says how far this side is, as any does."""
        self._in.due = 0
        window = self._window if seq == 1 else 0
        frame = Frame(self._front, self._number, kind, seq, self._in.ack, more, payload, sender, window)
        self._post.send(self._peer, frame, soon=soon)
