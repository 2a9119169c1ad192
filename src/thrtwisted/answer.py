"""
The proxy's own answers: short, in text or JSON as the client prefers, and marked as the proxy's.

An answer about an error carries C{Proxy-Status} (RFC 9209), which tells the application's answers from ours.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from math import ceil

from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

from .errors import ExchangeError
from .exchange import ResponseHead

#: How the proxy names itself in C{Proxy-Status}.
NAME = b"thrtwisted"

#: What is forwarded, of the methods that anybody might ask for.
ALLOWED = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"

_BODILESS = frozenset((204, 205, 304))


def answer(
    status: int, message: str | None, accept: bytes | None, error: str | None = None
) -> tuple[ResponseHead, bytes]:
    """
    The head and the body of an answer.

    @param message: what the body says; None for the status's own phrase.
    @param accept: the request's C{Accept}, None without one.
    @param error: the error type, for the body in JSON.
    """
    phrase = _phrase(status)
    headers = Headers({b"Date": [datetimeToString()], b"Cache-Control": [b"no-store"]})
    if status in _BODILESS:
        return ResponseHead(status, phrase.encode(), headers, None), b""
    message = message or phrase
    if prefers_json(accept):
        content_type = b"application/json"
        fields = {"status": status, "error": error, "message": message}
        body = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    else:
        content_type = b"text/plain; charset=utf-8"
        body = message.encode()
    headers.setRawHeaders(b"Content-Type", [content_type])
    headers.setRawHeaders(b"Content-Length", [b"%d" % (len(body) + 1)])
    return ResponseHead(status, phrase.encode(), headers, len(body) + 1), body + b"\n"


def error_answer(error: ExchangeError, accept: bytes | None) -> tuple[ResponseHead, bytes]:
    """The head and the body that tell a client of an error."""
    head, body = answer(error.status, str(error), accept, error.proxy_status)
    details = str(error).encode("ascii", "replace").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    head.headers.setRawHeaders(
        b"Proxy-Status", [b'%b; error=%b; details="%b"' % (NAME, error.proxy_status.encode(), details)]
    )
    if error.retry_after is not None:
        head.headers.setRawHeaders(b"Retry-After", [b"%d" % max(1, ceil(error.retry_after))])
    return head, body


def last_hop_answer(
    method: bytes, target: bytes, version: bytes, headers: Headers
) -> tuple[ResponseHead, bytes]:
    """
    The answer to a TRACE or OPTIONS request that goes no further, for its C{Max-Forwards} says so.

    @param headers: what a TRACE shows its sender of the request (RFC 9110, section 9.3.8).
    """
    if method != b"TRACE":
        head, body = answer(204, None, None)
        head.headers.setRawHeaders(b"Allow", [ALLOWED])
        return head, body
    fields = [name + b": " + value for name, values in headers.getAllRawHeaders() for value in values]
    body = b"\r\n".join((b"%b %b %b" % (method, target, version), *fields, b"", b""))
    head, _ = answer(200, None, None)
    head.headers.setRawHeaders(b"Content-Type", [b"message/http"])
    head.headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    return ResponseHead(head.status, head.phrase, head.headers, len(body)), body


def prefers_json(accept: bytes | None) -> bool:
    """Whether an C{Accept} header (RFC 9110, section 12.5.1) prefers JSON to plain text; of equals text is taken."""
    return _quality(accept, b"application", b"json") > _quality(accept, b"text", b"plain")


def _quality(accept: bytes | None, kind: bytes, subtype: bytes) -> float:
    """How much a media type is wanted, from 0 to 1, by the most specific range that it falls under."""
    best = (-1, 0.0)
    for media_range in (accept or b"").split(b","):
        media_type, *parameters = (part.strip().lower() for part in media_range.split(b";"))
        specificity = {b"*/*": 0, kind + b"/*": 1, kind + b"/" + subtype: 2}.get(media_type)
        if specificity is not None and specificity > best[0]:
            best = (specificity, _weight(parameters))
    return best[1]


def _weight(parameters: list[bytes]) -> float:
    for parameter in parameters:
        if parameter.startswith(b"q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
