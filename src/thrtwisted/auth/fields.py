"""
What of a request's head is sent to a service, and what of its answer is set on the request. Pure.

The question's fields are made anew: nothing that a client sends is in them but what the configuration names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from twisted.web.http_headers import Headers

from thrtwisted.errors import BadRequest
from thrtwisted.exchange import Exchange
from thrtwisted.exchange.settable import header_name

#: What every service is told of who is asking, as L{thrtwisted.forwarded} has found it out.
_TOLD = (b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto")
#: And of what is asked for.
METHOD = b"X-Forwarded-Method"
URI = b"X-Forwarded-Uri"
_ALWAYS = frozenset(name.lower() for name in (*_TOLD, METHOD, URI))

#: What says who is asking, and is written by the proxy alone.
_IDENTITY = frozenset((b"forwarded", b"x-real-ip"))
#: Of what is sent along, the field that cannot be a list (RFC 9110, section 11.6.2).
_CREDENTIALS = b"authorization"
#: What frames a message, or says what its body is; that of the question is none, that of the answer goes nowhere.
_BODY = b"content-"


def check_sent(name: str) -> None:
    """
    See that a header of this name can be sent along with a question.

    @raise ValueError: it cannot; the message is one line with the mend.
    """
    field = header_name(name).lower()
    if field in _ALWAYS:
        raise ValueError(f'"{name}" is always sent, with what the proxy has found out; leave it out')
    if field == b"host":
        raise ValueError("Host is the service's own; the request's is in X-Forwarded-Host: leave it out")
    if field.startswith(_BODY):
        raise ValueError(f'"{name}" is about the request\'s body, which is not sent; leave it out')


def check_copied(name: str) -> None:
    """
    See that a header of this name can be set on a request.

    @raise ValueError: it cannot; the message is one line with the mend.
    """
    field = header_name(name).lower()
    if field in _IDENTITY or field.startswith(b"x-forwarded"):
        raise ValueError(f'"{name}" says who the client is, and the proxy writes it; name another')
    if field in (b"host", b"via") or field.startswith(_BODY):
        raise ValueError(
            f'"{name}" is about the request itself, which the service does not change; name another'
        )


def check_single(exchange: Exchange, sent: Collection[bytes]) -> None:
    """
    See that an exchange says once who it is: of two the service could take the one, and the application the other.

    @param sent: as for L{question}; in lower case.
    @raise BadRequest: it does not.
    """
    if _CREDENTIALS in sent and len(exchange.headers.getRawHeaders(_CREDENTIALS) or ()) > 1:
        raise BadRequest("The request has more than one Authorization.")


def question(exchange: Exchange, target: bytes, sent: Iterable[bytes]) -> Exchange:
    """
    What a service is asked about an exchange, as it stands now.

    @param target: of the question.
    @param sent: names of the exchange's headers that are sent along.
    """
    headers = Headers()
    for name in (*sent, *_TOLD):
        for value in exchange.headers.getRawHeaders(name) or ():
            headers.addRawHeader(name, value)
    headers.setRawHeaders(METHOD, [exchange.method])
    headers.setRawHeaders(URI, [exchange.target])
    return Exchange(b"GET", target, headers, client="", backend="", version=exchange.version)
