"""
The exchange: one client request and its response, on the way through the proxy.

This is what rules change and what keys and criteria look at. It knows neither the reactor nor the connection.
"""

from __future__ import annotations

from functools import cached_property
from urllib.parse import unquote_to_bytes

import attrs
from twisted.web.http_headers import Headers

DEFAULT_PRIORITY = 50


@attrs.define(slots=False, eq=False)
class Exchange:
    """
    A client's request, with what the proxy has decided about it.

    @ivar method: the method, with the client's own letters.
    @ivar target: the request target, byte for byte as it will be sent to the backend (RFC 9112, section 3.2).
    @ivar headers: the request's header fields; rules change them before they are forwarded.
    @ivar client: the client's address: of the connection, or what a trusted proxy says; the empty string if it is not
        known, as on a unix socket.
    @ivar backend: the name of the backend to forward to.
    @ivar priority: 1 (best) to 99 (worst).
    @ivar status: set by a rule: answer with this status, without forwarding.
    @ivar version: the protocol that the request came by.
    """

    method: bytes
    target: bytes
    headers: Headers
    client: str
    backend: str
    priority: int = DEFAULT_PRIORITY
    status: int | None = None
    version: bytes = b"HTTP/1.1"

    @cached_property
    def path(self) -> bytes:
        """The target's path, still percent-encoded."""
        return self.target.partition(b"?")[0]

    @cached_property
    def query(self) -> bytes:
        """The target's query, still percent-encoded, without its C{?}."""
        return self.target.partition(b"?")[2]

    @property
    def host(self) -> bytes | None:
        """
        The C{Host} header in lower case, without the port; None without one.

        Nor does it have the dot that may end a name (RFC 3986, section 3.2.2): that is the same host.
        """
        value = self.header(b"host")
        if value is None:
            return None
        if value.startswith(b"["):
            return value.partition(b"]")[0].lower() + b"]"
        return value.partition(b":")[0].lower().removesuffix(b".")

    def header(self, name: bytes) -> bytes | None:
        """The value of a header; several of one name are joined as RFC 9110, section 5.3, says. None without one."""
        values = self.headers.getRawHeaders(name)
        return b", ".join(values) if values else None

    def cookie(self, name: bytes) -> bytes | None:
        """The value of the first cookie of this name (RFC 6265, section 4.2); None without one."""
        for field in self.headers.getRawHeaders(b"cookie") or ():
            for pair in field.split(b";"):
                key, equals, value = pair.strip().partition(b"=")
                if equals and key == name:
                    return value.strip(b'"')
        return None

    def query_argument(self, name: bytes) -> bytes | None:
        """The first query argument of this name, percent-decoded; None without one."""
        for pair in self.query.split(b"&"):
            key, _, value = pair.partition(b"=")
            if pair and unquote_to_bytes(key.replace(b"+", b" ")) == name:
                return unquote_to_bytes(value.replace(b"+", b" "))
        return None


@attrs.frozen
class ResponseHead:
    """
    The head of a backend's response, its hop-by-hop fields removed.

    @ivar length: bytes of the body as the backend announced them; None if it did not.
    """

    status: int
    phrase: bytes
    headers: Headers
    length: int | None
