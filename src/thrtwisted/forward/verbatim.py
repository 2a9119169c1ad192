"""
treq, with each thing undone that it does for programs and a proxy must not do, by public means.

Its cookie jar is deaf and dumb; an agent below it sends the exchange's own method, target and headers, whatever
treq made of them; it is shown a response without headers, so that it decodes nothing; redirects and buffering
are off. The response's real head is taken from below it.
"""

from __future__ import annotations

from collections.abc import Callable
from http.cookiejar import CookieJar
from typing import Any

import attrs
from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.components import proxyForInterface
from twisted.web.client import ProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from thrtwisted.errors import BackendClosed
from thrtwisted.exchange import Exchange

from .connection import Connection, HTTPClientConnection, Route

#: treq wants a URL. Nothing of it is sent; without a host there is none to encode for each request.
_URL = EncodedURL.from_text("http:///")


class _DeafJar(CookieJar):
    """Keeps no cookie and sends none: the clients' cookies are their own."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass

    def add_cookie_header(self, request: Any) -> None:
        pass


_DEAF = _DeafJar()


class _BareResponse(proxyForInterface(IResponse, "whole")):  # type: ignore[misc]
    """A response without its headers, for treq: where there is no Content-Encoding, nothing is decoded."""

    headers: Headers = Headers()

    def __init__(self, whole: IResponse) -> None:
        super().__init__(whole)
        self.headers = Headers()


@implementer(IAgent)
class _VerbatimAgent:
    """Sends one exchange as it is, whatever method, URL and headers treq asks for."""

    def __init__(self, agent: IAgent, exchange: Exchange, headers: Headers) -> None:
        self._agent = agent
        self._exchange = exchange
        self._headers = headers
        self._response: IResponse | None = None

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        asked = self._agent.request(self._exchange.method, self._exchange.target, self._headers, bodyProducer)
        return asked.addCallback(self._bare)

    def _bare(self, response: IResponse) -> IResponse:
        self._response = response
        return _BareResponse(response)

    def answer(self, bare: Any) -> Answer:
        """What came out of treq, with what came out of the agent below."""
        assert self._response is not None
        return Answer(self._response, bare)


class _Lease:
    """A route's pool, as one request's agent sees it: it tells which connection the request has."""

    def __init__(self, route: Route, connected: Callable[[Connection], object]) -> None:
        self.persistent = route.pool.persistent
        self._route = route
        self._connected = connected

    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        taken: Deferred[Any] = self._route.pool.getConnection(key, endpoint)
        return taken.addCallback(self._take)

    def _take(self, client: Any) -> HTTPClientConnection:
        connection = self._route.endpoint.of(client)
        if connection is None or client.state != "QUIESCENT":
            raise BackendClosed("The backend closed the connection before the request was sent.")
        self._connected(connection)
        return connection.client


@attrs.frozen
class Answer:
    """
    A response whose head is there.

    @ivar whole: with the head as the backend sent it, but for what Twisted hides.
    @ivar bare: what came through treq: its C{deliverBody} must be called.
    """

    whole: IResponse
    bare: Any


def ask(
    reactor: Any,
    route: Route,
    exchange: Exchange,
    headers: Headers,
    body: IBodyProducer | None,
    connected: Callable[[Connection], object],
) -> Deferred[Answer]:
    """
    Send an exchange's request.

    @param headers: what is sent instead of the exchange's own.
    @param body: None for a request without framing.
    @param connected: called with the connection, just before the request is written to it.
    @return: fires with the L{Answer}. Errbacks as L{twisted.web.client.Agent} does. Cancelling it stops connecting,
        or aborts the connection.
    @raise ValueError: the target cannot be sent.
    """
    agent: Any = ProxyAgent(route.endpoint, reactor, _Lease(route, connected))
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
    return asked.addCallback(verbatim.answer)
