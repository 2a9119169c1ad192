"""
The proxy's own answers: short, in text or JSON as the client prefers, and marked as the proxy's.

An answer about an error carries C{Proxy-Status} (RFC 9209), which tells the application's answers from ours.
"""

from __future__ import annotations

import json
from math import ceil

from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

from .errors import ExchangeError
from .exchange import ResponseHead
from .exchange.response import BODILESS, phrase

#: How the proxy names itself, in C{Proxy-Status} and C{Via}.
NAME = b"thrtwisted"

#: What is forwarded, of the methods that anybody might ask for.
ALLOWED = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"

#: Bytes of C{Accept} that are looked at: browsers send less than two hundred.
LOOKED_AT = 1024

JSON = b"application/json"
TEXT = b"text/plain"

#: The media ranges of interest: what falls under each, and how specific that is.
_RANGES = {
    b"*/*": ((JSON, 0), (TEXT, 0)),
    b"application/*": ((JSON, 1),),
    JSON: ((JSON, 2),),
    b"text/*": ((TEXT, 1),),
    TEXT: ((TEXT, 2),),
}


def answer(
    status: int, message: str | None, accept: bytes | None, error: str | None = None
) -> tuple[ResponseHead, bytes]:
    """
    The head and the body of an answer.

    @param message: what the body says; None for the status's own phrase.
    @param accept: the request's C{Accept}, None without one.
    @param error: the error type, for the body in JSON.
    """
    words = phrase(status)
    headers = Headers({b"Date": [datetimeToString()], b"Cache-Control": [b"no-store"]})
    if status in BODILESS:
        return ResponseHead(status, words, headers, None), b""
    message = message or words.decode()
    if prefers_json(accept):
        content_type = JSON
        fields = {"status": status, "error": error, "message": message}
        body = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    else:
        content_type = TEXT + b"; charset=utf-8"
        body = message.encode()
    headers.setRawHeaders(b"Content-Type", [content_type])
    headers.setRawHeaders(b"Content-Length", [b"%d" % (len(body) + 1)])
    return ResponseHead(status, words, headers, len(body) + 1), body + b"\n"


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
    """
    Whether an C{Accept} header (RFC 9110, section 12.5.1) prefers JSON to plain text; of equals text is taken.

    Each is wanted as much, from 0 to 1, as the most specific range says that it falls under.
    """
    accept = accept or b""
    if len(accept) > LOOKED_AT:
        accept = accept[:LOOKED_AT].rpartition(b",")[0]  # half an element may say something else
    wanted = {JSON: (-1, 0.0), TEXT: (-1, 0.0)}
    for media_range in accept.split(b","):
        media_type, *parameters = media_range.split(b";")
        for kind, specificity in _RANGES.get(media_type.strip().lower(), ()):
            if specificity > wanted[kind][0]:
                wanted[kind] = specificity, _weight(parameters)
    return wanted[JSON][1] > wanted[TEXT][1]


def _weight(parameters: list[bytes]) -> float:
    for parameter in (given.strip().lower() for given in parameters):
        if parameter.startswith(b"q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
