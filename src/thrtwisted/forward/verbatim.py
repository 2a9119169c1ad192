"""
treq, with each thing undone that it does for programs and a proxy must not do, by public means.

Its cookie jar is deaf and dumb; an agent below it sends the exchange's own method, target and headers, whatever
treq made of them; redirects and buffering are off. A connection shows it a response without headers, so that it
decodes nothing (see L{thrtwisted.forward.connection}).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.cookiejar import Cookie, CookieJar
from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.client import ProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from thrtwisted.errors import BackendClosed
from thrtwisted.exchange import Exchange

from .connection import Connection


class _Nowhere(EncodedURL):
    """treq wants a URL, and encodes it for each request. Nothing of this one is sent, nor is there any to encode."""

    def to_uri(self) -> EncodedURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return "http:///"


_URL = _Nowhere.from_text("http:///")


class _DeafJar(CookieJar):
    """Keeps no cookie and sends none: the clients' cookies are their own."""

    def __iter__(self) -> Iterator[Cookie]:  # by which treq puts it into itself for each request
        return iter(())

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass

    def add_cookie_header(self, request: Any) -> None:
        pass


_DEAF = _DeafJar()


@implementer(IAgent)
class _VerbatimAgent:
    """Sends one exchange as it is, whatever method, URL and headers treq asks for."""

    def __init__(self, agent: IAgent, exchange: Exchange, headers: Headers) -> None:
        self._agent = agent
        self._exchange = exchange
        self._headers = headers

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        return self._agent.request(self._exchange.method, self._exchange.target, self._headers, bodyProducer)


class _Lease:
    """What an agent takes for its pool: one connection, for one request."""

    def __init__(
        self,
        persistent: bool,
        find: Callable[[], Deferred[Connection]],
        connected: Callable[[Connection], object],
    ) -> None:
        self.persistent = persistent
        self._find = find
        self._connected = connected

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[Any]:
        return self._find().addCallback(self._take)

    def _take(self, connection: Connection) -> Any:
        if connection.lost:
            raise BackendClosed("The backend closed the connection before the request was sent.")
        self._connected(connection)
        return connection.client


def ask(
    reactor: Any,
    exchange: Exchange,
    headers: Headers,
    body: IBodyProducer | None,
    *,
    persistent: bool,
    find: Callable[[], Deferred[Connection]],
    connected: Callable[[Connection], object],
) -> Deferred[Any]:
    """
    Send an exchange's request.

    @param headers: what is sent instead of the exchange's own.
    @param body: None for a request without framing.
    @param persistent: whether the backend is asked to keep the connection.
    @param find: brings the connection.
    @param connected: called with the connection, just before the request is written to it.
    @return: fires when the response's head is there, which the connection has, with what came through treq: its
        C{deliverBody} must be called. Errbacks as L{twisted.web.client.Agent} does. Cancelling it stops connecting,
        or aborts the connection.
    @raise ValueError: the target cannot be sent.
    """
    agent: Any = ProxyAgent(None, reactor, _Lease(persistent, find, connected))
    verbatim = _VerbatimAgent(agent, exchange, headers)
    asked: Deferred[Any] = HTTPClient(verbatim, _DEAF).request(  # type: ignore[arg-type]
        exchange.method.decode("ascii"),
        _URL,
        data=body,
        cookies=_DEAF,
        allow_redirects=False,
        unbuffered=True,
        reactor=reactor,
    )
    return asked
