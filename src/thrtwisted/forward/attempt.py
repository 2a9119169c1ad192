"""One request on its way to one URL: over an idle connection or a new one, to a response's head or a failure."""

from __future__ import annotations

from typing import Any
from typing import Protocol as Shape

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer

from thrtwisted.errors import BackendClosed, BadRequest, ExchangeError
from thrtwisted.exchange import Exchange

from .connection import Connection
from .failures import exchange_error
from .headers import request_headers
from .pool import Pool
from .routes import Route
from .verbatim import ask


class Owner(Shape):
    """Whose request it is."""

    def sent(self, attempt: Attempt) -> None:
        """The request is about to be written to a connection."""

    def received(self, attempt: Attempt, connection: Connection, response: Any) -> None:
        """The response's head is there."""

    def failed(self, attempt: Attempt, error: ExchangeError) -> None:
        """There will be no response. Called once, and not after the head."""


class Attempt:
    """
    An attempt to get a response.

    @ivar route: to the URL.
    @ivar secured: over TLS.
    @ivar connected: the request was given to a connection.
    @ivar reused: that had been idle.
    @ivar silent: it ended before a byte of a response came.
    @ivar unread: it ended so that the backend cannot have executed the request.
    """

    connected = False
    reused = False
    silent = False
    unread = False

    def __init__(self, clock: Any, owner: Owner, route: Route, pool: Pool) -> None:
        self.route = route
        self.secured = pool.address.tls
        self._clock = clock
        self._owner = owner
        self._pool = pool
        self._connection: Connection | None = None
        self._asked: Deferred[Any] | None = None
        self._idle = False
        self._evidence_matters = False
        self._method = b""
        self._over = False

    def begin(
        self,
        exchange: Exchange,
        body: IBodyProducer | None,
        *,
        idle: bool,
        last: bool,
        evidence_matters: bool,
    ) -> None:
        """
        Send the request. Whatever fails, at once or later, the owner is told.

        @param body: None for a request without framing.
        @param idle: an idle connection will do.
        @param last: no other request may follow on the connection, and the backend is told so.
        @param evidence_matters: it matters whether the backend has read the request.
        """
        self._idle, self._evidence_matters, self._method = idle, evidence_matters, exchange.method
        try:
            headers = request_headers(exchange.headers, self._pool.address.authority, exchange.version)
            asked = ask(
                self._clock,
                exchange,
                headers,
                body,
                persistent=self._pool.persistent and not last,
                find=self._find,
                connected=self._send,
            )
        except ValueError as error:
            refused = BadRequest("The request cannot be forwarded as it stands.")
            refused.__cause__ = error
            self.failed(refused)
        except Exception:
            self.failed(exchange_error(Failure()))
        else:
            self._asked = asked
            asked.addCallback(self._received)
            asked.addErrback(lambda failure: self.failed(exchange_error(failure)))

    def break_off(self) -> None:
        """Stop at once, wherever it is. The owner is told when the connection is closed."""
        if self._connection is not None:
            self._connection.discard()
        elif self._asked is not None:
            self._asked.cancel()

    def leave(self, *, reusable: bool) -> None:
        """It is over, and the connection the next exchange's, or nobody's. It may be called again."""
        self._over = True
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.occupant = None
        if reusable and connection.reusable:
            self._pool.give(connection)
        else:
            connection.retire()

    def _find(self) -> Deferred[Connection]:
        connection = self._pool.take() if self._idle else None
        if connection is None:
            return self._pool.connect()
        self.reused = True
        return succeed(connection)

    def _send(self, connection: Connection) -> None:
        self.connected = True
        self._connection = connection
        connection.occupy(self, self._method, evidence_matters=self._evidence_matters)
        self._owner.sent(self)

    def _received(self, response: Any) -> None:
        if not self._over:
            assert self._connection is not None
            self._owner.received(self, self._connection, response)

    # Occupant of the connection

    def failed(self, error: ExchangeError) -> None:
        """See L{thrtwisted.forward.connection.Occupant}; the same for whatever else goes wrong."""
        if self._over:
            return
        if self._connection is not None:
            self.silent, self.unread = self._connection.silent, self._connection.unread
        self._over = True
        self._owner.failed(self, error)

    def connection_lost(self) -> None:
        self.failed(BackendClosed("The backend closed the connection before it answered."))
