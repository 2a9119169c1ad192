"""One exchange of a front, from its worker's acceptance to the end of the response; perhaps with several workers."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from zope.interface import implementer

from thrtwisted import errors
from thrtwisted.errors import (
    BackendClosed,
    BackendProtocolError,
    BackendResponseTimeout,
    ExchangeError,
    WorkerLost,
)
from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.forward import IForwarding, RequestBody
from thrtwisted.forward.body import ResponseBody
from thrtwisted.forward.delivery import Delivering, as_sent
from thrtwisted.forward.forwarding import SAFE
from thrtwisted.forward.head import BODILESS
from thrtwisted.forward.headers import drop_hop_by_hop
from thrtwisted.forward.wellformed import check_response
from thrtwisted.gate import AlreadyTaken, IAdmission
from thrtwisted.grammar import CONTROL

from .bodies import Sender, Valve
from .codec import Frame, Head, Kind, Opening, Problem, decode_payload, encode_payload, fields_of, headers_of
from .conversation import Conversation, IConversationUser

if TYPE_CHECKING:
    from .front import RelayForwarder

#: So many workers may refuse an exchange. Each had a place for it in Redis: if they all refuse, something is wrong.
MOST_REFUSALS = 32

#: So often a front looks whether it has heard of an exchange, at most.
MOST_LOOKS = 24

_LOST = "The worker that had the request is gone."


@implementer(IForwarding, IConversationUser)
class RelayedForwarding(Delivering):
    """
    One exchange that workers forward, one after the other if need be.

    A worker has it from its C{OPEN} on. If it refuses, or is lost, the exchange queues again, and the next worker gets
    all of it from its start; but not if it may have been begun, unless C{retry} and its method allow that.

    @ivar head: as L{IForwarding.head}.
    @ivar done: as L{IForwarding.done}.
    @ivar heard: the worker that it was opened at last has said something of it.
    """

    _log = Logger()

    def __init__(
        self, forwarder: RelayForwarder, exchange: Exchange, body: RequestBody, admission: IAdmission
    ) -> None:
        self.head: Deferred[ResponseHead] = Deferred(lambda _: self.abandon())
        self.done: Deferred[None] = Deferred()
        self._forwarder = forwarder
        self._front = forwarder.front
        self._exchange = as_sent(exchange)
        self._upload = body
        self._may_repeat = forwarder.retry == "safe" and exchange.method in SAFE
        self._refusals = 0
        # What it holds at the gate: an admission, or a place in the queue
        self._admission: IAdmission | None = admission
        self._queued: Deferred[IAdmission] | None = None
        # With the worker
        self._conversation: Conversation | None = None
        self._number = 0
        self._worker = ""
        self._unopened = True  # it waits to be, for the post
        self._download: ResponseBody | None = None
        self._awaited: int | None = None  # bytes of the response's body, where that was said
        self._reclaim_timer: IDelayedCall | None = None
        self._heard_at = 0.0
        self._looks = 0
        self.heard = False
        # How far it is
        self._answered = False
        self._abandoned = False
        self._finished = False

    def __repr__(self) -> str:
        state = "finished" if self._finished else "queued" if self._queued else "under way"
        return f"<RelayedForwarding {self._number} {state}{', abandoned' * self._abandoned}>"

    # For the resource

    def abandon(self) -> None:
        """
        Nobody wants the answer any more. If no worker has begun with the request, none will; what was begun goes on at
        the worker, as on the direct way. It may be called at any time, and again.
        """
        if self._abandoned:
            return
        self._abandoned = True
        if self._download is not None:
            self._download.drop()
        self._upload.let_go()
        if self._unopened:
            self._front.leave(self)
            self._finish()
        elif self._queued is not None:
            self._queued.cancel()
        elif self._conversation is not None and (self._download is None or not self._download.ended):
            self._conversation.tell(Kind.ABANDON)  # else the worker has said all of the answer

    # For the forwarder

    def begin(self) -> None:
        """Open it at the worker that it was admitted to."""
        self._unopened = False
        self._upload.keep()
        self._open()

    def refuse(self, error: ExchangeError) -> None:
        """It was not begun, and will not be."""
        self._unopened = False
        self._answer(error)
        self._finish()

    def close(self, error: ExchangeError) -> None:
        """
        The process stops: wait for nothing any more. The worker is told, if Redis is there.

        It may be at work on the request. So nothing is released here: the gate, when it stops in its turn, gives back
        what was not begun, and leaves the rest to the worker.
        """
        self._front.leave(self)
        self._answer(error)
        self._cut(error)
        if self._queued is not None:
            self._queued.cancel()
        self._admission = None
        self._leave()
        self._finish()

    # For the front

    def received(self, frame: Frame) -> None:
        """The post has brought a frame of this exchange."""
        conversation = self._conversation
        assert conversation is not None
        self._heard_at = self._front.clock.seconds()
        self.heard = True
        self._looks = 0
        conversation.received(frame)
        if conversation is self._conversation and conversation.concluded:
            self._concluded()

    def check(self) -> None:
        """The post is up again, and what was sent before may be lost."""
        assert self._conversation is not None
        self._conversation.check()

    def ask(self, silent_since: float) -> None:
        """See whether the worker has all that was sent; and if nothing was heard since a time, the exchange, still."""
        if self._conversation is None:
            return
        if self._heard_at <= silent_since:
            self._heard_at = self._front.clock.seconds()
            self._conversation.check()
        else:
            self._conversation.look()

    def look(self) -> bool:
        """
        Redis was there, and so it could be heard: for how long was it not, though it was asked? Whoever has it answers.
        The client waits for no longer than L{MOST_LOOKS}, and its slots are held for twice as long.

        @return: whether the client is told now.
        """
        self._looks += 1
        if self._looks == 2 * MOST_LOOKS:
            self.lost()
        if self._looks != MOST_LOOKS:
            return False
        error = BackendResponseTimeout("Nothing is heard of the worker that has the request.")
        self._answer(error)
        self._cut(error)
        self.abandon()
        return True

    def lost(self) -> None:
        """
        The worker is dead, or does not know the exchange any more.

        The gate knows whether it had begun: if it had not, the exchange queues again.
        """
        self._leave()
        if self._finished:
            self._answer(WorkerLost(_LOST))
            self._cut(WorkerLost(_LOST))
        elif self._answered or self._abandoned:
            self._cut(WorkerLost(_LOST))
            self._reclaim()
        else:
            self._queue_again(taken_too=False)

    # With a worker

    def _open(self) -> None:
        admission, exchange = self._admission, self._exchange
        assert admission is not None and admission.worker is not None
        self._heard_at = self._front.clock.seconds()
        self.heard = False
        self._looks = 0
        self._worker = admission.worker
        self._number, self._conversation = self._front.join(self, admission.worker)
        opening = Opening(
            serial=admission.serial,
            queue=self._forwarder.queue,
            method=exchange.method,
            target=exchange.target,
            headers=fields_of(exchange.headers),
            version=exchange.version,
            length=self._upload.length,
        )
        self._conversation.say(Kind.OPEN, encode_payload(opening))
        if self._upload.length:
            sent = self._upload.startProducing(Sender(self._conversation, self._upload))
            sent.addCallbacks(self._sent, self._unreadable, callbackArgs=(self._conversation,))

    def _leave(self) -> None:
        """The worker has no more to do with it, as far as this side goes."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            self._front.part(self._number)
            conversation.end()

    def _sent(self, _: None, conversation: Conversation) -> None:
        """All of the request's body was said."""
        conversation.say(Kind.END)

    def _unreadable(self, failure: Failure) -> None:
        """The request's body cannot be read. The worker hears of its end before it is complete, and breaks off."""
        self._log.failure("A request could not be forwarded", failure)
        self._answer(ExchangeError("The proxy could not forward the request."))
        self.abandon()
        assert self._conversation is not None
        self._conversation.say(Kind.END)

    # IConversationUser

    def said(self, kind: Kind, payload: bytes) -> None:
        """See L{IConversationUser.said}."""
        if kind == Kind.DATA:
            self._data(payload)
        elif kind == Kind.HEAD:
            self._head(payload)
        elif kind == Kind.END:
            self._ended()
        elif kind == Kind.CUT:
            self._cut(BackendClosed("The backend closed the connection before its response was complete."))
        elif kind == Kind.FAILED:
            self._failed(payload)
        elif kind == Kind.DONE:
            self._finish()
        elif kind == Kind.REFUSED and not (self._answered or self._finished):
            self._refused()
        else:
            self.lost()

    def drained(self) -> None:
        """See L{IConversationUser.drained}."""
        self._upload.resumeProducing()

    def _concluded(self) -> None:
        """The worker has said its last word. Whatever it has not said by now, it never will."""
        self._leave()
        self._answer(WorkerLost(_LOST))
        self._cut(WorkerLost(_LOST))

    # The response

    def _head(self, payload: bytes) -> None:
        if self._answered:
            return
        try:
            said: Head = decode_payload(payload, Head)
            head = ResponseHead(said.status, said.phrase, headers_of(said.headers), said.length)
            drop_hop_by_hop(head.headers)
            check_response(head)
        except (ValueError, BackendProtocolError) as error:
            self._reject(error)
            return
        self._awaited = 0 if self.method == b"HEAD" or head.status in BODILESS else head.length
        assert self._conversation is not None
        download = self._download = ResponseBody(
            self._forwarder.config.max_spool,
            self._front.disk,
            on_end=lambda: None,
            on_leave=self.abandon,
            was_reset=lambda: False,
        )
        download.makeConnection(Valve(self._conversation.consumed))  # type: ignore[no-untyped-call]
        if self._abandoned:
            download.drop()
        self._answer(head)

    def _data(self, data: bytes) -> None:
        conversation = self._conversation
        assert conversation is not None
        download = self._download
        if download is None or download.ended:
            conversation.consumed(len(data))
            return
        if self._awaited is not None:
            if len(data) > self._awaited:
                conversation.consumed(len(data))
                self._reject(ValueError("a response's body is longer than was said"))
                return
            self._awaited -= len(data)
        valve: Any = download.transport
        download.dataReceived(data)
        valve.passed(len(data))

    def _ended(self) -> None:
        """The worker has said all of the body."""
        if self._awaited and self._download is not None and not self._download.ended:
            self._reject(ValueError("a response's body is shorter than was said"))
        else:
            self._end(Failure(ResponseDone()))

    def _failed(self, payload: bytes) -> None:
        if self._answered:
            return
        try:
            error = _error(decode_payload(payload, Problem))
        except ValueError as problem:
            self._reject(problem)
            return
        self._answer(error)

    def _reject(self, why: Exception) -> None:
        """The worker says what no worker of ours says. Nothing of its answer is passed on any more."""
        self._front.complain(self._worker, why)
        error = BackendProtocolError("The worker's answer cannot be read.")
        self._answer(error)
        self._cut(error)
        self.abandon()

    def _answer(self, answer: ResponseHead | ExchangeError) -> None:
        """Fire C{head}, the first time."""
        if self._answered:
            return
        self._answered = True
        self._upload.let_go()
        if not self.head.called:  # else it was cancelled
            if isinstance(answer, ExchangeError):
                self.head.errback(answer)
            else:
                self.head.callback(answer)
        self._fire_done()

    def _cut(self, error: ExchangeError) -> None:
        """The response ends before its end, unless it has ended already."""
        self._end(Failure(error))

    def _end(self, reason: Failure) -> None:
        download = self._download
        if download is not None and not download.ended:
            valve: Any = download.transport
            download.connectionLost(reason)
            valve.resumeProducing()  # nothing follows but the last word, for which there may be no room else

    # The slots

    def _refused(self) -> None:
        """The worker has not begun, and will not."""
        self._leave()
        self._refusals += 1
        if self._abandoned:
            self._finish()
        elif self._refusals >= MOST_REFUSALS:
            self._answer(WorkerLost("No worker takes the request."))
            self._finish()
        else:
            self._queue_again(taken_too=True)

    def _queue_again(self, *, taken_too: bool) -> None:
        """Wait for another worker."""
        admission, self._admission = self._admission, None
        assert admission is not None
        self._upload.rewind()
        queued = admission.again(taken_too=taken_too)
        if not queued.called:
            self._queued = queued
        queued.addCallbacks(self._admitted, self._not_admitted, errbackArgs=(admission,))

    def _admitted(self, admission: IAdmission) -> None:
        self._queued = None
        self._admission = admission
        if self._finished or self._abandoned:
            self._finish()
        else:
            self._unopened = True
            self._front.reach(self)

    def _not_admitted(self, failure: Failure, admission: IAdmission) -> None:
        self._queued = None
        if failure.check(AlreadyTaken):
            self._admission = admission
            self._begun_elsewhere()
            return
        error = failure.value
        if not isinstance(error, ExchangeError):
            if not failure.check(CancelledError):
                self._log.failure("A request could not queue again", failure)
            error = WorkerLost(_LOST)
        self._answer(error)
        self._finish()

    def _begun_elsewhere(self) -> None:
        """A worker that is lost had begun with the request, or may have. It is risked again once, if that is wanted."""
        if not self._may_repeat:
            self._answer(WorkerLost(_LOST))
        self._reclaim()

    def _reclaim(self) -> None:
        """The application may still be at work on what a lost worker had sent."""
        delay = self._forwarder.config.reclaim_delay
        if delay:
            self._reclaim_timer = self._front.clock.callLater(delay, self._reclaimed)
        else:
            self._reclaimed()

    def _reclaimed(self) -> None:
        self._reclaim_timer = None
        if self._answered or self._abandoned:
            self._finish()
        else:
            self._may_repeat = False
            self._queue_again(taken_too=True)

    def _finish(self) -> None:
        """The backend has finished, or nobody knows better: the slots are free."""
        if self._finished:
            return
        self._finished = True
        if self._reclaim_timer is not None:
            self._reclaim_timer.cancel()
            self._reclaim_timer = None
        self._upload.close()
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.release()
        if self._abandoned and self._conversation is None:
            self._answer(WorkerLost(_LOST))
        self._fire_done()

    def _fire_done(self) -> None:
        if self._finished and self._answered and not self.done.called:
            self.done.callback(None)


def _error(said: Problem) -> ExchangeError:
    """
    What a worker says that went wrong.

    @raise ValueError: no worker of ours says so.
    """
    if said.retry_after is not None and not (isfinite(said.retry_after) and said.retry_after >= 0):
        raise ValueError(f"a client cannot be told to come again in {said.retry_after} seconds")
    if CONTROL.search(said.text.encode()):
        raise ValueError("what is to be told holds a control character")
    kind = getattr(errors, said.error, None)
    if not (isinstance(kind, type) and issubclass(kind, ExchangeError)):
        kind = ExchangeError
    return kind(said.text, retry_after=said.retry_after)
