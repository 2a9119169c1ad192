"""One exchange at a worker: from the front's opening to the backend, and back until the front has all of the answer."""

from __future__ import annotations

from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from thrtwisted.errors import ExchangeError
from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.forward import Forwarder, Forwarding
from thrtwisted.forward.failures import UNREACHED

from . import IPost
from .codec import Head, Kind, Opening, Problem, decode_payload, encode_payload, fields_of, headers_of
from .conversation import Conversation, IConversationUser
from .reply import Reply
from .upload import Upload


class Host(Protocol):
    """
    The worker that has the exchange. Of each exchange it is told once of each of these, or not at all; but that it
    L{lags} perhaps twice.
    """

    def opened(self, served: Served) -> None:
        """The request's head is there: it may be taken."""

    def reached(self, served: Served) -> None:
        """The backend has answered."""

    def unreached(self, served: Served) -> Deferred[bool]:
        """
        The backend could not be connected to.

        @return: fires with whether another worker may have the request. Never errbacks.
        """

    def lags(self, served: Served) -> None:
        """
        The backend has finished, and the front cannot take all of the answer yet. It hears that the slots are free when
        it has taken the rest, or once L{Served.linger} is called: at once, or later.
        """

    def withdrawn(self, served: Served) -> None:
        """Nobody waits for it any more, and it was not begun: it will not be."""

    def finished(self, served: Served) -> None:
        """The backend has finished with it."""

    def over(self, served: Served) -> None:
        """Nothing more is to be said or heard."""

    def complain(self, served: Served, why: Exception) -> None:
        """The front has said what no front of ours says. That may be told again."""


@implementer(IConversationUser)
class Served:
    """
    An exchange that a front has opened here.

    It is begun once, if at all: by L{forward}. From then on the backend has it, until C{host.finished} is called.
    Before that or after, what is said about it ends, and C{host.over} is called.

    @ivar front: whose it is.
    @ivar number: among those of its front.
    @ivar opening: what the front asks; None as long as that has not come.
    @ivar begun: the backend has it, or had.
    @ivar silent: nothing was heard of it since L{ask}.
    """

    def __init__(self, host: Host, post: IPost, front: str, number: int, window: int) -> None:
        self.front = front
        self.number = number
        self.opening: Opening | None = None
        self.begun = False
        self.silent = False
        self.conversation = Conversation(post, front, front, number, window, self)
        self._host = host
        self._exchange: Exchange | None = None  # until it is begun
        self._upload: Upload | None = None
        self._forwarding: Forwarding | None = None
        self._reply: Reply | None = None
        self._unwanted = False
        self._deciding = False
        self._finished = False
        self._orphan = False
        self._done_told = False
        self._last_said = False
        self._over = False

    def __repr__(self) -> str:
        state = "finished" if self._finished else "begun" if self.begun else "waiting"
        return f"<Served {self.front}/{self.number} {state}{', over' * self._over}>"

    # For the worker

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._unwanted

    def forward(self, forwarder: Forwarder) -> None:
        """Begin: it was taken."""
        exchange, upload = self._exchange, self._upload
        assert exchange is not None and upload is not None
        self.begun = True
        self._exchange = None
        forwarding = self._forwarding = forwarder.send(exchange, upload)
        forwarding.head.addCallbacks(self._head, self._failed)
        forwarding.done.addCallback(self._backend_finished)

    def refuse(self) -> None:
        """It is not begun here, and will not be: another worker may have it."""
        self._withdraw()
        self._last_said = True
        self.conversation.say(Kind.REFUSED)

    def lose_front(self) -> None:
        """The front is dead, or seems so. Where the backend has a part only of the request, it is broken off."""
        self._drop()
        if self.begun and not self._finished:
            # It may have been frozen only, and have its tickets again: it gives them back when it hears that this is
            # over, so it must not hear that before the backend has finished.
            self._orphan = True
        else:
            self.end()

    def _drop(self) -> None:
        """Nobody waits for the answer, and no more of the request comes."""
        self._abandon()
        if self._forwarding is not None and self._upload is not None and not self._upload.complete:
            self._forwarding.break_off()

    def heard(self) -> None:
        """The front has said something: it may have been the last that was waited for."""
        self.silent = False
        if self.conversation.quiet and self._last_said:
            self.end()

    def ask(self) -> None:
        """If the front has said nothing since the last time, does it know of the exchange still? If it has, of all?"""
        if self._orphan:
            return  # its inbox is to pass; if the front was frozen only, it asks by itself
        if self.silent:
            self.conversation.check()
        else:
            self.conversation.look()
        self.silent = True

    def check(self) -> None:
        """The post is up again, and what was said before may be lost."""
        if not self._orphan:
            self.conversation.check()

    def linger(self) -> None:
        """The answer may wait here without a place: the front hears that the slots are free."""
        if not self._done_told:
            self._done_told = True
            self.conversation.tell(Kind.DONE)

    def end(self) -> None:
        """Say and hear nothing more."""
        if not self._over:
            self._over = True
            self.conversation.end()
            if self._upload is not None and not self.begun:
                self._upload.close()
            self._host.over(self)

    # IConversationUser

    def said(self, kind: Kind, payload: bytes) -> None:
        """See L{IConversationUser.said}."""
        if kind == Kind.DATA or kind == Kind.END:
            self._body(kind, payload)
        elif kind == Kind.OPEN:
            self._open(payload)
        elif kind == Kind.ABANDON:
            if self.begun:
                self._abandon()
            elif not self._unwanted:
                self._withdraw()
                self._say_done()
        elif kind == Kind.GONE:
            self._drop()
            self.end()

    def drained(self) -> None:
        """See L{IConversationUser.drained}."""
        if self._reply is not None:
            self._reply.drained()

    # The request

    def _open(self, payload: bytes) -> None:
        if self.opening is not None or self._last_said:
            return
        try:
            opening: Opening = decode_payload(payload, Opening)
            headers = headers_of(opening.headers)
            if opening.length < 0:
                raise ValueError("its body has fewer than 0 bytes")
        except (msgspec.DecodeError, ValueError) as error:
            self._reject(error)
            return
        self.opening = opening
        self._exchange = Exchange(
            opening.method, opening.target, headers, "", opening.queue, version=opening.version
        )
        self._upload = Upload(opening.length, self.conversation.consumed)
        if not self._unwanted:
            self._host.opened(self)

    def _body(self, kind: Kind, payload: bytes) -> None:
        upload = self._upload
        if upload is None:  # of what could not be read
            self.conversation.consumed(len(payload))
            return
        try:
            if kind == Kind.DATA:
                upload.add(payload)
            elif not upload.complete:
                raise ValueError("the request's body is shorter than was said")
        except ValueError as error:
            self.conversation.consumed(len(payload))
            self._reject(error)

    def _reject(self, why: Exception) -> None:
        """The front says what no front of ours says."""
        self._host.complain(self, why)
        if self._forwarding is not None:
            self._forwarding.break_off()
        elif not self._last_said:
            self._say_problem(ExchangeError("The worker could not read the request."))
            self._withdraw()
            self._say_done()

    def _abandon(self) -> None:
        """Nobody waits for the answer any more. The backend may go on with it."""
        if self._forwarding is not None:
            self._unwanted = True
            self._forwarding.abandon()
            if self._last_said:
                self._tell_done()
        else:
            self._withdraw()

    def _withdraw(self) -> None:
        """It will not be begun."""
        if not self._unwanted:
            self._unwanted = True
            if self._upload is not None:
                self._upload.close()
            self._host.withdrawn(self)

    # The response

    def _head(self, head: ResponseHead) -> None:
        self._host.reached(self)
        if self._over or self._unwanted:
            return
        said = Head(head.status, head.phrase, fields_of(head.headers), head.length)
        self.conversation.say(Kind.HEAD, encode_payload(said))
        assert self._forwarding is not None
        self._reply = Reply(self.conversation)
        delivered = self._forwarding.deliver(self._reply)
        delivered.addCallback(self._delivered)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        assert isinstance(error, ExchangeError) and self._forwarding is not None
        if self._over or self._unwanted:
            return
        if isinstance(error, UNREACHED) and self._forwarding.unsent:
            self._deciding = True
            self._host.unreached(self).addCallback(self._decided, error)
        else:
            self._say_problem(error)

    def _decided(self, elsewhere: bool, error: ExchangeError) -> None:
        """Whether another worker may try what certainly was not sent."""
        self._deciding = False
        if elsewhere and not self._unwanted:
            self.refuse()
            return
        if not self._unwanted:
            self._say_problem(error)
        if self._finished:
            self._say_done()

    def _say_problem(self, error: ExchangeError) -> None:
        problem = Problem(type(error).__name__, str(error), error.retry_after)
        self.conversation.say(Kind.FAILED, encode_payload(problem))

    def _delivered(self, _: None) -> None:
        """The front was given all of the body, or does not want it."""
        self._reply = None
        if self._finished:
            self._say_done()

    def _backend_finished(self, _: None) -> None:
        self._finished = True
        if self._reply is None:
            if not self._deciding:
                self._say_done()
        elif self.conversation.full:  # or else the rest of the answer is said just after this
            self._tell_done()
        self._host.finished(self)
        if self._orphan:
            self.end()

    def _say_done(self) -> None:
        if self._last_said:
            return  # it was refused
        self._last_said = True
        self.conversation.say(Kind.DONE)
        self._tell_done()

    def _tell_done(self) -> None:
        """The slot is free, however long the front takes for what was said before; unless there are many such."""
        if self._last_said and self.conversation.all_sent:
            return
        if self._unwanted:
            self.linger()
        else:
            self._host.lags(self)
