"""Forwarding: an exchange's way to its backend and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import implementer

from thrtwisted.errors import BackendClosed, BackendResponseTimeout, BackendTLSFailed, ExchangeError
from thrtwisted.exchange import Exchange, ResponseHead

from .attempt import Attempt
from .body import ResponseBody
from .connection import Connection
from .delivery import Delivering, as_sent
from .failures import UNREACHED, exchange_error, is_ours
from .headers import announces_body, check_request_line, response_head
from .interfaces import IForwarding
from .sendable import SendableBody

if TYPE_CHECKING:
    from .client import Forwarder

#: Methods that change nothing (RFC 9110, section 9.2.1), so that to send one again does no harm.
SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))


@implementer(IForwarding)
class Forwarding(Delivering):
    """
    One exchange with the backend, which this process has connections to.

    It ends once, when the backend has finished with it, however that comes about: the response was read
    completely, no connection was ever made, or the last one was lost, or was aborted after C{abandon_timeout}.
    Until then the client may come and go, and attempts may fail of which nothing was executed.

    @ivar head: as L{IForwarding.head}.
    @ivar done: as L{IForwarding.done}.
    @ivar unsent: nothing of it was written to a connection, so far: it was certainly not executed.
    """

    def __init__(self, forwarder: Forwarder, exchange: Exchange, body: SendableBody) -> None:
        self.head: Deferred[ResponseHead] = Deferred(lambda _: self.abandon())
        self.done: Deferred[None] = Deferred()
        self.unsent = True
        self._forwarder = forwarder
        self._clock = forwarder.clock
        self._config = forwarder.config
        self._exchange = as_sent(exchange)
        self._upload = body
        self._with_body = False
        self._attempt: Attempt | None = None
        self._tried: set[int] = set()
        self._resent = False
        self._fresh = False
        self._retries = self._config.retries
        self._download: ResponseBody | None = None
        self._response_timer: IDelayedCall | None = None
        self._abandon_timer: IDelayedCall | None = None
        self._reusable = False
        self._answered = False
        self._abandoned = False
        self._broken_off = False
        self._over = False

    # For the resource

    def abandon(self) -> None:
        """
        Nobody wants the answer any more. The request goes on being sent, the response is read and dropped;
        after C{abandon_timeout} seconds the connection is aborted. What has no connection yet is not sent.

        It may be called at any time, and again.
        """
        if self._download is not None:
            self._download.drop()
        if self._over or self._abandoned:
            return
        self._abandoned = True
        if self._attempt is None or not self._attempt.connected:
            self.break_off()
        else:
            self._abandon_timer = self._clock.callLater(
                self._config.abandon_timeout, self._abandoned_for_long
            )

    # For the forwarder

    def begin(self) -> None:
        """Send the request. Whatever fails, at once or later, comes out through C{head}."""
        exchange = self._exchange
        try:
            check_request_line(exchange.method, exchange.target)
            self._with_body = self._upload.length > 0 or announces_body(exchange.headers)
        except Exception:
            self.fail(exchange_error(Failure()))
        else:
            self._send(self._forwarder.attempt(self, self._tried))

    def fail(self, error: ExchangeError) -> None:
        """The backend has finished, and not well."""
        if self._over:
            return
        self._reusable = False
        self._answer(error)
        if self._download is not None and not self._download.ended:
            self._download.connectionLost(Failure(error))
        self._finish()

    def break_off(self) -> None:
        """Stop at once, wherever it is: C{done} fires when the connection is closed."""
        self._broken_off = True
        if self._attempt is not None:
            self._attempt.break_off()

    # Attempts

    @property
    def _repeatable(self) -> bool:
        """Whether it may be sent over a connection that had been idle, and again (promise 6)."""
        return not self._with_body and self._exchange.method in SAFE

    def _send(self, attempt: Attempt | None) -> None:
        assert attempt is not None
        self._attempt = attempt
        attempt.begin(
            self._exchange,
            self._upload if self._with_body else None,
            idle=self._repeatable and not self._fresh and not attempt.route.trial,
            last=self._spoils_connection,
            evidence_matters=self._repeatable,
        )

    def sent(self, attempt: Attempt) -> None:
        """The request is about to be written to a connection."""
        self.unsent = False
        if attempt.secured:
            self._forwarder.secured(attempt)
        elif not attempt.reused:
            self._forwarder.reached(attempt.route.number)
        self._response_timer = self._clock.callLater(self._config.response_timeout, self._unanswered)
        self._upload.progress = self._progress

    def failed(self, attempt: Attempt, error: ExchangeError) -> None:
        """An attempt has failed: send the request again if that does no harm, or else it is over."""
        self._stop_response_timer()
        again = None
        if is_ours(error):
            self._forwarder.exhausted(error)
        elif not attempt.connected and not self._broken_off and isinstance(error, UNREACHED):
            self._tried.add(attempt.route.number)
            self._forwarder.unreached(attempt.route.number, error)
            again = self._forwarder.attempt(self, self._tried)
        elif isinstance(error, BackendTLSFailed) and not attempt.reused:
            # The backend does not take us, which in TLS 1.3 comes after the request. That may have been executed.
            self._forwarder.unreached(attempt.route.number, error)
        elif attempt.connected and isinstance(error, (BackendClosed, BackendTLSFailed)):
            again = self._repeated(attempt)
        if again is None:
            self.fail(error)
            return
        self._leave()
        self._fresh = self._fresh or attempt.connected
        self._send(again)

    def _repeated(self, attempt: Attempt) -> Attempt | None:
        """
        Another attempt after one that was sent, and has ended without a byte of a response.

        What the backend did not read was not executed: the request of an idle connection that was being closed, or of a
        new one that a stopping server did not accept. It is sent again, once in each case. What else was sent may have
        been executed: C{retries} says how often that is risked.
        """
        if self._abandoned or self._broken_off or not self._repeatable or not attempt.silent:
            return None
        if attempt.unread and (attempt.reused or not self._resent):
            self._resent = not attempt.reused  # once a connection was reused the next ones are new
        elif self._retries:
            self._retries -= 1
        else:
            return None
        elsewhere = self._forwarder.attempt(self, self._tried | {attempt.route.number})
        return elsewhere or self._forwarder.attempt(self, self._tried)

    # What happens on the way

    def _progress(self) -> None:
        if self._response_timer is not None:
            self._response_timer.reset(self._config.response_timeout)

    def _unanswered(self) -> None:
        self._response_timer = None
        if self._upload.starved:  # how could it answer?
            self._response_timer = self._clock.callLater(self._config.response_timeout, self._unanswered)
            return
        self.abandon()
        self._answer(BackendResponseTimeout("The backend did not answer in time."))

    def _abandoned_for_long(self) -> None:
        self._abandon_timer = None
        self.break_off()

    def received(self, attempt: Attempt, connection: Connection, response: Any) -> None:
        """The head is there. The body is read from now on, whatever becomes of the client."""
        self._stop_response_timer()
        if attempt.secured and attempt.route.trial:
            self._forwarder.reached(attempt.route.number)
        sent = connection.head
        assert sent is not None
        self._reusable = not self._spoils_connection
        head: ResponseHead | ExchangeError
        try:
            length = sent.body(self._exchange.method).length
            head = response_head(
                self._exchange.method, sent.status, sent.phrase, sent.headers, length, sent.version
            )
        except ExchangeError as error:
            head, self._reusable = error, False
        download = self._download = ResponseBody(
            self._config.max_spool,
            self._forwarder.disk,
            on_end=self._ended,
            on_leave=self.abandon,
            was_reset=lambda: connection.reset,
        )
        if self._abandoned or isinstance(head, ExchangeError):
            download.drop()
        response.deliverBody(download)
        if isinstance(head, ExchangeError):
            self.break_off()
        elif not download.ended:
            download.expect(self._clock, self._config.idle_timeout, self.break_off)
        self._answer(head)
        if download.ended:
            self._finish()

    @property
    def _spoils_connection(self) -> bool:
        """Whether the next request on the same connection could suffer from this one."""
        # After HEAD the body may follow all the same (waitress sends what the application returns): it would be taken
        # for the next answer. And who answers may have left the request's body unread: it would be taken for the
        # next request (http.server), or the connection be closed (gunicorn's threads, past 64 kB). Nor is one kept that
        # was opened because no idle one would do: with such requests alone they would pile up.
        return self._exchange.method == b"HEAD" or not self._repeatable

    def _ended(self) -> None:
        # At once: the client's next request may come from within the end of this one's response, and it may get
        # the same connection.
        self._leave()
        if self._answered:  # else received() is still at work, and finishes
            self._finish()

    def _answer(self, answer: ResponseHead | ExchangeError) -> None:
        """Fire C{head}, the first time."""
        self._stop_response_timer()
        if self._answered:
            return
        self._answered = True
        if self.head.called:
            return  # it was cancelled
        if isinstance(answer, ExchangeError):
            self.head.errback(answer)
        else:
            self.head.callback(answer)

    def _finish(self) -> None:
        """The backend has finished."""
        if self._over:
            return
        self._over = True
        self._stop_response_timer()
        if self._abandon_timer is not None:
            self._abandon_timer.cancel()
            self._abandon_timer = None
        self._leave()
        self._upload.progress = lambda: None
        self._upload.close()
        self.done.callback(None)

    def _leave(self) -> None:
        """The attempt is over, and its connection the next exchange's, or nobody's."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            # A server that answered early may never read the rest of the request.
            attempt.leave(reusable=self._reusable and not self._upload.sending)
            self._forwarder.left(attempt)

    def _stop_response_timer(self) -> None:
        if self._response_timer is not None:
            self._response_timer.cancel()
            self._response_timer = None
