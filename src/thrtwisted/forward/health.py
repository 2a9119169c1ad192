"""
Questions for the health of a backend's URLs, on connections of their own: they take no slots.

One good answer is enough to be well, two bad ones in a row are needed to be ill. What changes is told, once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from thrtwisted.config import Backend
from thrtwisted.errors import ExchangeError
from thrtwisted.exchange import Exchange

from .connection import Connection
from .failures import exchange_error, reason
from .pool import Pool
from .routes import Routes
from .verbatim import ask

#: So many bad answers in a row take a URL out: one may be chance.
BAD = 2

USER_AGENT = b"thrtwisted-health"


class Health:
    """
    Asks each URL of a backend again and again. A question that has no answer when the next one is due is a bad answer.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        name: str,
        config: Backend,
        pools: Sequence[Pool],
        routes: Routes,
        reached: Callable[[int], object],
    ) -> None:
        """@param reached: called with the number of a URL that could be connected to."""
        self._clock = clock
        self._name = name
        self._path = config.health
        self._interval = config.health_interval
        self._pools = pools
        self._routes = routes
        self._reached = reached
        self._bad = [0] * len(pools)
        self._watching: list[Deferred[None]] = []
        self._stopped = False

    def start(self) -> None:
        """Begin, if there is a path to ask for."""
        if self._path is not None and not self._watching and not self._stopped:
            self._watching = [
                self._watch(number, self._path.encode("ascii")) for number in range(len(self._pools))
            ]

    def stop(self) -> None:
        """Stop at once, for good. Connections that are still open belong to the pools."""
        self._stopped = True
        for watching in self._watching:
            watching.cancel()

    @inlineCallbacks
    def _watch(self, number: int, path: bytes) -> Generator[Deferred[Any], Any, None]:
        """Ask one URL until it is cancelled."""
        while not self._stopped:
            asked_at = self._clock.seconds()
            wrong = yield self._asked(number, path)
            if not self._stopped:
                self._judge(number, wrong)
                left = max(0.0, asked_at + self._interval - self._clock.seconds())
                # Cancelled, it is over.
                yield deferLater(self._clock, left).addErrback(lambda failure: failure.trap(CancelledError))

    @inlineCallbacks
    def _asked(self, number: int, path: bytes) -> Generator[Deferred[Any], Any, str | None]:
        """Fires with what is wrong with the answer, None if nothing is. Never errbacks."""
        asking = _Question(self._clock, self._pools[number], path).ask()
        limit = self._clock.callLater(self._interval, asking.cancel)
        try:
            wrong = yield asking
        except Exception:
            if limit.active():
                return reason(exchange_error(Failure()), self._name)
            return f"it does not answer in {self._interval:g} s"
        finally:
            if limit.active():
                limit.cancel()
        return wrong  # type: ignore[no-any-return]

    def _judge(self, number: int, wrong: str | None) -> None:
        """Keep count of the bad answers."""
        named = {"backend": f"backend.{self._name}", "url": self._pools[number].address.url}
        if wrong is None:
            if self._bad[number] >= BAD:
                self._log.info("{backend}: {url} is well again, and gets requests", **named)
            self._bad[number] = 0
            self._routes.judged(number, ill=False)
            self._reached(number)
            return
        self._bad[number] += 1
        if self._bad[number] == BAD:
            means = "it is the only one, and gets requests nevertheless"
            if len(self._pools) > 1:
                means = "it gets no requests, while another can, until it is well again"
            self._log.warn(
                "{backend}: {url} is ill: asked for {path}, {wrong}; {means}",
                path=self._path,
                wrong=wrong,
                means=means,
                **named,
            )
            self._routes.judged(number, ill=True)


class _Question:
    """One question, on a connection of its own."""

    def __init__(self, clock: Any, pool: Pool, path: bytes) -> None:
        self._clock = clock
        self._pool = pool
        headers = Headers({b"Host": [pool.address.authority], b"User-Agent": [USER_AGENT]})
        self._exchange = Exchange(b"GET", path, headers, client="", backend="")
        self._connection: Connection | None = None
        self._error: ExchangeError | None = None

    @inlineCallbacks
    def ask(self) -> Generator[Deferred[Any], Any, str | None]:
        """
        @return: fires with what is wrong with the answer, None if nothing is. Errbacks if there is none.
        """
        try:
            yield ask(
                self._clock,
                self._exchange,
                self._exchange.headers,
                None,
                persistent=False,
                find=self._pool.connect,
                connected=self._begin,
            )
        except Exception:
            if self._error is not None:
                raise self._error from None
            raise
        finally:
            if self._connection is not None:
                self._connection.occupant = None
                self._connection.discard()
        assert self._connection is not None and self._connection.head is not None
        status = self._connection.head.status
        return None if 200 <= status <= 399 else f"it answers {status}"

    def _begin(self, connection: Connection) -> None:
        self._connection = connection
        connection.occupy(self, b"GET", evidence_matters=False)

    # Occupant of the connection

    def failed(self, error: ExchangeError) -> None:
        """What came is no response. The connection's end is told to Twisted's client."""
        self._error = error

    def connection_lost(self) -> None:
        """Twisted's client has been told."""
