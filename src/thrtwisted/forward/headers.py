"""
What of a message's head is passed on, and what belongs to one connection only (RFC 9110, section 7.6.1).

Pure: names are compared without case, values pass byte for byte.
"""

from __future__ import annotations

import re

from twisted.web.http_headers import Headers

from thrtwisted.errors import BackendProtocolError, BadRequest
from thrtwisted.exchange import ResponseHead
from thrtwisted.grammar import list_elements

#: Fields of one hop, whether or not a Connection field names them; and all whose names begin with C{Proxy-}.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy",  # nobody's; but CGI makes the variable HTTP_PROXY of it (httpoxy)
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_PROXY = b"proxy-"
#: No Connection field takes these away, for somebody's security may hang on them (Apache's CVE-2022-31813, Traefik's
#: CVE-2024-45410), and no sender may name them there: they are meant for all recipients (RFC 9110, section 7.6.1).
_END_TO_END = frozenset(
    (
        b"authorization",
        b"cache-control",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"max-forwards",
        b"origin",
        b"referer",
        b"set-cookie",
        b"strict-transport-security",
        b"via",
        b"www-authenticate",
        b"x-frame-options",
        b"x-real-ip",
    )
)
_END_TO_END_KINDS = (b"access-control-", b"content-", b"sec-", b"x-forwarded-")
#: Answers without a body, whatever their fields say (RFC 9112, section 6.3).
BODILESS = frozenset((204, 304))

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_UNSAFE = re.compile(rb"[\x00\r\n]")


def origin_form(target: bytes, method: bytes = b"GET") -> tuple[bytes, bytes | None]:
    """
    The target as an origin server expects it, and the host that it names if absolute (RFC 9112, 3.2.2).

    @return: the target, in origin form or C{*}, and the value that the Host header must have (None: its own).
    @raise BadRequest: the target is neither a path, nor C{*}, nor an absolute http URL.
    """
    if target.startswith(b"/") or target == b"*":
        return target, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadRequest("The request target is neither a path nor an http URL.")
    authority, rest = absolute.groups()
    host = authority.rpartition(b"@")[2]
    if not host or host.startswith(b":"):
        raise BadRequest("The request target names no host.")
    if not rest and method == b"OPTIONS":
        return b"*", host  # RFC 9112, section 3.2.4
    return (rest if rest.startswith(b"/") else b"/" + rest), host


def check_request_line(method: bytes, target: bytes) -> None:
    """
    See that method and target can be sent as they are.

    @raise BadRequest: they cannot; or the method is CONNECT, whose answer is no message but a tunnel.
    """
    if not _TOKEN.fullmatch(method):
        raise BadRequest("The request method is not a token.")
    if method == b"CONNECT":
        raise BadRequest("CONNECT is not forwarded.")
    if not _TARGET.fullmatch(target):
        raise BadRequest("The request target holds characters that must be percent-encoded.")


def end_to_end(headers: Headers, kept: frozenset[bytes] = frozenset()) -> Headers:
    """
    A copy without the fields of one hop: the well-known ones and those that any Connection field names.

    @param kept: names, in lower case, of fields that no Connection field takes away, beside those on which security
        hangs everywhere, such as C{Host}, C{Cookie} and C{X-Forwarded-For}.
    """
    named = list_elements(headers.getRawHeaders(b"connection") or ())
    gone = HOP_BY_HOP.union(name for name in named if name not in kept and not _is_end_to_end(name))
    rest = Headers()
    for name, values in headers.getAllRawHeaders():
        lower = name.lower()
        if lower not in gone and not lower.startswith(_PROXY):
            rest.setRawHeaders(name, values)
    return rest


def _is_end_to_end(name: bytes) -> bool:
    return name in _END_TO_END or name.startswith(_END_TO_END_KINDS)


def request_headers(headers: Headers, authority: bytes) -> Headers:
    """
    The fields to send to the backend: end to end, one Host, and no framing, which the sender adds itself.

    @param authority: the backend's own host and port, for a request without Host (HTTP/1.0).
    @raise BadRequest: there are several Host fields, or a value holds a NUL.
    """
    kept = end_to_end(headers)
    kept.removeHeader(b"content-length")
    expect = kept.getRawHeaders(b"expect")
    if expect and all(value.strip().lower() == b"100-continue" for value in expect):
        kept.removeHeader(b"expect")  # our server has sent the 100 and read the body already
    hosts = kept.getRawHeaders(b"host")
    if hosts is None:
        kept.setRawHeaders(b"host", [authority])
    elif len(hosts) > 1:
        raise BadRequest("The request has more than one Host.")
    if _first_unsafe(kept) is not None:
        raise BadRequest("A request header holds a NUL.")
    return kept


def announces_body(headers: Headers) -> bool:
    """Whether the client framed a body, be it an empty one."""
    return headers.hasHeader(b"content-length") or headers.hasHeader(b"transfer-encoding")


def response_head(
    method: bytes, status: int, phrase: bytes, headers: Headers, length: int | None
) -> ResponseHead:
    """
    What the client is told of a response.

    @param method: the request's.
    @param headers: the response's fields; for HEAD with Content-Length, for other methods perhaps without.
    @param length: bytes of the body that follows, None if it is not known beforehand.
    @raise BackendProtocolError: no client could be given this head.
    """
    if not 200 <= status <= 599:
        raise BackendProtocolError("The backend's status is out of range.")
    if _UNSAFE.search(phrase):
        raise BackendProtocolError("The backend's reason phrase holds a control character.")
    kept = end_to_end(headers)
    if _first_unsafe(kept) is not None:
        raise BackendProtocolError("A header of the backend's response holds a NUL.")
    if method == b"HEAD":
        length = _announced(kept)
    elif status in BODILESS:
        length = None
    else:
        kept.removeHeader(b"content-length")
        if length is not None:
            kept.setRawHeaders(b"content-length", [b"%d" % length])
    return ResponseHead(status, phrase, kept, length)


def _announced(headers: Headers) -> int | None:
    """The one length that a response to HEAD announces; None without one."""
    values = set(headers.getRawHeaders(b"content-length") or ())
    if not values:
        return None
    value = values.pop()
    if values or not value.isdigit():
        raise BackendProtocolError("The backend's Content-Length is not one number.")
    headers.setRawHeaders(b"content-length", [value])
    return int(value)


def _first_unsafe(headers: Headers) -> bytes | None:
    """The name of a field that would break the head apart; None if there is none."""
    for name, values in headers.getAllRawHeaders():
        for value in values:
            if _UNSAFE.search(value):
                return name
    return None
