"""Forwarding: an exchange's way to its backend and back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from thrtwisted.config import Backend
from thrtwisted.errors import BackendClosed, BackendResponseTimeout, BadRequest, ExchangeError
from thrtwisted.exchange import Exchange, ResponseHead

from .body import RequestBody, ResponseBody
from .connection import Connection, Route
from .disk import Disk
from .failures import exchange_error
from .headers import announces_body, check_request_line, request_headers, response_head
from .verbatim import Answer, ask


class Forwarder:
    """Forwards exchanges to one backend. A backend with several URLs gets them in turn."""

    def __init__(self, reactor: Any, name: str, config: Backend, disk: Disk | None = None) -> None:
        """
        @param disk: what its responses may keep on disk together with others; None: each as much as C{max_spool}.
        @param reactor: provides IReactorTime and what its URLs need of IReactorTCP, IReactorUNIX and
            IReactorPluggableNameResolver.
        @raise ValueError: a URL is neither C{http://host[:port]} nor C{unix:///path}.
        """
        self.name = name
        self._reactor = reactor
        self._config = config
        self._disk = disk
        urls = [config.url] if isinstance(config.url, str) else config.url
        self._routes = tuple(Route(reactor, url, config) for url in urls)
        self._turns: Iterator[Route] = cycle(self._routes)
        self._under_way: set[Forwarding] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Forwarder {self.name}, {len(self._under_way)} under way>"

    def send(self, exchange: Exchange, body: RequestBody) -> Forwarding:
        """
        Begin at once to forward an exchange.

        @param body: is closed by the forwarding, whatever happens.
        """
        forwarding = Forwarding(self._reactor, self._config, exchange.method, body, self._disk)
        self._under_way.add(forwarding)
        forwarding.done.addCallback(lambda _: self._under_way.discard(forwarding))
        if self._closed:
            forwarding.fail(BackendClosed("The proxy is stopping."))
        else:
            forwarding.begin(next(self._turns), exchange)
        return forwarding

    def close(self) -> Deferred[None]:
        """
        Break off what is under way, and close all connections.

        @return: fires when every forwarding is done and nothing is left in the reactor. Never errbacks.
        """
        self._closed = True
        under_way = list(self._under_way)
        waiting = [_echo(forwarding.done) for forwarding in under_way]
        for forwarding in under_way:
            forwarding.break_off()
        waiting += [route.close() for route in self._routes]
        return gatherResults(waiting).addCallback(lambda _: None)


def _echo(done: Deferred[None]) -> Deferred[None]:
    """Fires after another Deferred, whose result stays with its owner."""
    echo: Deferred[None] = Deferred()

    def fire(result: None) -> None:
        echo.callback(None)

    done.addCallback(fire)
    return echo


class Forwarding:
    """
    One exchange with the backend.

    It ends once, when the backend has finished with it, however that comes about: the response was read
    completely, the connection was never made, or was lost, or was aborted after C{abandon_timeout}. Until
    then the client may come and go.

    @ivar head: fires with the L{ResponseHead}. Errbacks with an L{ExchangeError} only. Cancelling abandons.
    @ivar done: fires once, when the backend has finished with the exchange: its slot is free. Never errbacks;
        do not cancel it. C{head} has always fired before.
    """

    def __init__(
        self, clock: Any, config: Backend, method: bytes, body: RequestBody, disk: Disk | None = None
    ) -> None:
        self.head: Deferred[ResponseHead] = Deferred(lambda _: self.abandon())
        self.done: Deferred[None] = Deferred()
        self._clock = clock
        self._config = config
        self._method = method
        self._upload = body
        self._disk = disk
        self._asked: Deferred[Any] | None = None
        self._connection: Connection | None = None
        self._download: ResponseBody | None = None
        self._response_timer: IDelayedCall | None = None
        self._abandon_timer: IDelayedCall | None = None
        self._reusable = False
        self._answered = False
        self._abandoned = False
        self._over = False

    # For the resource

    def deliver(self, request: Any) -> Deferred[None]:
        """
        Send the response's body to the client, and finish the request; status and headers are set already.

        If the backend cuts its response, the client's connection is aborted instead.

        @param request: a L{twisted.web.http.Request}.
        @return: fires when the client was given everything, or has left. Never errbacks.
        @raise RuntimeError: the response's head is not there yet.
        """
        if self._download is None:
            raise RuntimeError("deliver() comes after the response's head")
        return self._download.deliver(request)

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
        if self._connection is None:
            self.break_off()
        else:
            self._abandon_timer = self._clock.callLater(
                self._config.abandon_timeout, self._abandoned_for_long
            )

    # For the forwarder

    def begin(self, route: Route, exchange: Exchange) -> None:
        """Send the request. Whatever fails, at once or later, comes out through C{head}."""
        try:
            check_request_line(exchange.method, exchange.target)
            headers = request_headers(exchange.headers, route.authority)
            with_body = self._upload.length > 0 or announces_body(exchange.headers)
            body = self._upload if with_body else None
            asked = ask(self._clock, route, exchange, headers, body, self.connected)
        except ExchangeError as error:
            self.fail(error)
        except ValueError as error:
            refused = BadRequest("The request cannot be forwarded as it stands.")
            refused.__cause__ = error
            self.fail(refused)
        except Exception:
            self.fail(exchange_error(Failure()))
        else:
            self._asked = asked
            asked.addCallback(self._received)
            asked.addErrback(lambda failure: self.fail(exchange_error(failure)))

    def connected(self, connection: Connection) -> None:
        """The request is about to be written to this connection."""
        self._connection = connection
        connection.occupy(self)
        self._response_timer = self._clock.callLater(self._config.response_timeout, self._unanswered)
        self._upload.progress = self._progress

    def connection_lost(self) -> None:
        """The connection is gone, and Twisted's client has said nothing: it gave up on an upload before."""
        self.fail(BackendClosed("The backend closed the connection before it answered."))

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
        if self._connection is not None:
            self._connection.discard()
        elif self._asked is not None:
            self._asked.cancel()

    # What happens on the way

    def _progress(self) -> None:
        if self._response_timer is not None:
            self._response_timer.reset(self._config.response_timeout)

    def _unanswered(self) -> None:
        self._response_timer = None
        self.abandon()
        self._answer(BackendResponseTimeout("The backend did not answer in time."))

    def _abandoned_for_long(self) -> None:
        self._abandon_timer = None
        self.break_off()

    def _received(self, answer: Answer) -> None:
        """The head is there. The body is read from now on, whatever becomes of the client."""
        connection, response = self._connection, answer.whole
        assert connection is not None
        self._stop_response_timer()
        self._reusable = not (connection.announced_its_end() or self._spoils_connection(response))
        length = None if response.length is UNKNOWN_LENGTH else response.length
        head: ResponseHead | ExchangeError
        try:
            head = response_head(self._method, response.code, response.phrase, response.headers, length)
        except ExchangeError as error:
            head, self._reusable = error, False
        download = self._download = ResponseBody(
            self._config.max_spool,
            self._disk,
            on_end=self._ended,
            on_leave=self.abandon,
            was_reset=lambda: connection.reset,
        )
        if self._abandoned or isinstance(head, ExchangeError):
            download.drop()
        answer.bare.deliverBody(download)
        if isinstance(head, ExchangeError):
            self.break_off()
        self._answer(head)
        if download.ended:
            self._finish()

    def _spoils_connection(self, response: IResponse) -> bool:
        """Whether the next request on the same connection could suffer from this one, though nothing was announced."""
        # An HTTP/1.0 server is about to close it. After HEAD the body may follow all the same (waitress sends what the
        # application returns): it would be taken for the next answer. Who turns a request away may have left its body
        # unread, and close then (gunicorn's threads, past 64 kB).
        turned_away = response.code >= 300 and self._upload.length > 0
        return response.version[1:] < (1, 1) or self._method == b"HEAD" or turned_away

    def _ended(self) -> None:
        # At once: the client's next request may come from within the end of this one's response, and it may get
        # the same connection.
        self._leave_connection()
        if self._answered:  # else _received is still at work, and finishes
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
        self._leave_connection()
        self._upload.progress = lambda: None
        self._upload.close()
        self.done.callback(None)

    def _leave_connection(self) -> None:
        """The connection is the next exchange's, or nobody's."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.occupant = None
        if self._upload.sending:
            connection.discard()  # a server that answered early may never read the rest of the request
        elif not self._reusable:
            connection.retire()

    def _stop_response_timer(self) -> None:
        if self._response_timer is not None:
            self._response_timer.cancel()
            self._response_timer = None
