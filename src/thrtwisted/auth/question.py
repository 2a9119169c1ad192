"""
One question to a service, from its sending to its answer, which is read whole or not used at all.

It is sent as exchanges are to backends. Its client, in the words of L{Forwarding.deliver
<thrtwisted.forward.forwarding.Forwarding.deliver>}, is the question itself.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from thrtwisted.errors import BackendClosed, BackendProtocolError, BadRequest, ExchangeError
from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.forward import Forwarder, RequestBody
from thrtwisted.forward.failures import is_ours, reason

#: Bytes of an answer's body: a page that asks for a password, or that says why not, is much shorter.
LONGEST_BODY = 64 * 1024

#: What a service that was reached may do instead of answering.
_REACHED = (BackendClosed, BackendProtocolError)


class Unanswered(Exception):
    """There is no answer that could be used. The message, for the log, says why, as a part of a sentence."""


class Unusable(Unanswered):
    """The service was reached, and what it did is no answer: perhaps for the sake of this one question."""


@attrs.frozen
class Answer:
    """
    What a service says.

    @ivar head: without the fields of one hop.
    @ivar body: all of it.
    """

    head: ResponseHead
    body: bytes


class Question:
    """
    A question that is under way.

    @ivar answer: fires with the L{Answer}. Errbacks with L{Unanswered}, or with L{BadRequest} if it cannot even be
        asked. Cancelling gives it up.
    @ivar done: fires once, when the service has finished with it. Never errbacks; do not cancel it.
    """

    def __init__(
        self, clock: Any, forwarder: Forwarder, asked: Exchange, timeout: float, *, patient: bool
    ) -> None:
        """
        Send it.

        @param timeout: seconds for all of it.
        @param patient: given up, it is C{done} when the service has finished nevertheless, or when the forwarder's
            C{abandon_timeout} is over. Else its connection is closed at once.
        """
        self.answer: Deferred[Answer] = Deferred(lambda _: self._give_up())
        self._patient = patient
        self._name = forwarder.name
        self._head: ResponseHead | None = None
        self._pieces: list[bytes] = []
        self._length = 0
        self._over = False
        self._forwarding = forwarder.send(asked, RequestBody(BytesIO()))
        self.done = self._forwarding.done
        self._timer = clock.callLater(timeout, self._late, timeout)
        self._forwarding.head.addCallbacks(self._begun, self._failed)

    def _begun(self, head: ResponseHead) -> None:
        self._head = head
        self._forwarding.deliver(self)

    def _failed(self, failure: Failure) -> None:
        error: Any = failure.value
        if isinstance(error, BadRequest):
            self._end(failure)  # it is the request's fault, or a rule's
        else:
            kind = Unusable if isinstance(error, _REACHED) and not is_ours(error) else Unanswered
            self._end(Failure(kind(_why(error, self._name))))

    def _late(self, timeout: float) -> None:
        self._end(Failure(Unanswered(f"it does not answer in {timeout:g} s")))
        self._give_up()

    def _give_up(self) -> None:
        self._over = True
        self._stop_timer()
        if self._patient:
            self._forwarding.abandon()
        else:
            self._forwarding.break_off()

    def _end(self, result: Answer | Failure) -> None:
        if self._over:
            return
        self._over = True
        self._stop_timer()
        self._pieces = []
        self.answer.callback(result)

    def _stop_timer(self) -> None:
        if self._timer.active():
            self._timer.cancel()

    # As the request of a client has them

    @property
    def transport(self) -> Question:
        """What the answer is written to."""
        return self

    def notifyFinish(self) -> Deferred[None]:
        """It stays until the end."""
        return Deferred()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """It takes everything at once."""

    def unregisterProducer(self) -> None:
        """There is none."""

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        self._length += len(data)
        self._pieces.append(data)
        if self._length > LONGEST_BODY:
            text = f"the body of its answer is larger than {LONGEST_BODY // 1024} KiB"
            self._end(Failure(Unusable(text)))
            self._forwarding.break_off()

    def finish(self) -> None:
        """The body is complete."""
        assert self._head is not None
        self._end(Answer(self._head, b"".join(self._pieces)))

    def abortConnection(self) -> None:
        """The body was cut."""
        self._end(Failure(Unusable("its answer was cut off")))


def _why(error: ExchangeError, name: str) -> str:
    """What failed, with the mend where that is known."""
    if is_ours(error):
        return (
            f"the proxy cannot open connections: {error.__cause__} "
            "(mend: let it have more file descriptors, with ulimit -n or LimitNOFILE, or ports)"
        )
    return reason(error, name, "auth").replace("the backend", "the service")
