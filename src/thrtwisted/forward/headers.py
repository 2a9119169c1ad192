"""
What of a message's head is passed on, and what belongs to one connection only (RFC 9110, section 7.6).

Pure: names are compared without case, values pass byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from twisted.web.http_headers import Headers

from thrtwisted.answer import NAME
from thrtwisted.errors import BackendProtocolError, BadRequest
from thrtwisted.exchange import ResponseHead
from thrtwisted.grammar import (
    CONTROL,
    Malformed,
    capitalized,
    is_authority,
    is_token,
    list_elements,
    parse_repeated_length,
)

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
#: The same as L{Headers} have them, so that the letters of each request's names need not be changed.
_CAPITALIZED = capitalized(HOP_BY_HOP)
_PROXY_CAPITALIZED = b"Proxy-"
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
#: The most hops that are granted to a request that counts them (RFC 9110, section 7.6.2).
MOST_HOPS = 255

_TARGET = re.compile(rb"[\x21-\x7e]+")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_UNSAFE = re.compile(rb"[\x00\r\n]")
_DIGITS = re.compile(rb"[0-9]+")
#: Letters in lower case and digits; a hyphen for each other character.
_ALIKE = (
    bytes(ord(chr(code).lower()) if chr(code).isalnum() else ord("-") for code in range(128)) + b"-" * 128
)


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
    if not is_authority(host):
        raise BadRequest("The request target names no host.")
    if not rest and method == b"OPTIONS":
        return b"*", host  # RFC 9112, section 3.2.4
    return (rest if rest.startswith(b"/") else b"/" + rest), host


def check_request_line(method: bytes, target: bytes) -> None:
    """
    See that method and target can be sent as they are.

    @raise BadRequest: they cannot; or the method is CONNECT, whose answer is no message but a tunnel.
    """
    if not is_token(method):
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
    rest = headers.copy()
    drop_hop_by_hop(rest, kept)
    return rest


def is_hop_by_hop(name: bytes) -> bool:
    """Whether the fields of this name belong to one hop, whatever Connection says."""
    return name.lower() in HOP_BY_HOP or name.lower().startswith(_PROXY)


def drop_hop_by_hop(headers: Headers, kept: frozenset[bytes] = frozenset()) -> None:
    """Remove what L{end_to_end} leaves out, which costs less than a copy."""
    for name in _of_one_hop(headers, kept):
        headers.removeHeader(name)


def _of_one_hop(headers: Headers, kept: frozenset[bytes]) -> list[bytes]:
    """The names of the fields that belong to one hop."""
    names = [name for name, _ in headers.getAllRawHeaders()]
    gone = [name for name in names if name in _CAPITALIZED or name.startswith(_PROXY_CAPITALIZED)]
    if gone and (connection := headers.getRawHeaders(b"connection")):
        named = taken_away(list_elements(connection), kept)
        gone += [name for name in names if name.lower() in named]
    return gone


def taken_away(named: Iterable[bytes], kept: frozenset[bytes]) -> list[bytes]:
    """Of the names in Connection, those of fields that are not known and that it takes away."""
    return [
        name
        for name in named
        if name not in kept
        and name not in HOP_BY_HOP
        and name not in _END_TO_END
        and not name.startswith((_PROXY, *_END_TO_END_KINDS))
    ]


def shown(headers: Headers, kept: frozenset[bytes]) -> Headers:
    """
    The fields that may be shown to whoever sent the request: not those that say who somebody is, which a resource
    before ours may have set (RFC 9110, section 9.3.8).

    @param kept: as for L{end_to_end}: what limits and rules hang on is not shown.
    """
    rest = end_to_end(headers, kept)
    for name in kept.union((b"authorization", b"cookie")):
        rest.removeHeader(name)
    return rest


def drop_ambiguous(headers: Headers) -> None:
    """Remove fields whose names applications cannot tell from others: for CGI and WSGI C{X_User} is C{X-User}."""
    for name in [name for name, _ in headers.getAllRawHeaders() if b"_" in name]:
        headers.removeHeader(name)


def drop_alike(headers: Headers, names: Collection[bytes]) -> None:
    """
    Remove the fields of these names, and those whose names some applications take for them: PHP makes the same variable
    of C{X.User} and C{X-User}, and there are servers that do so with whatever is no letter and no digit.

    @param names: in lower case.
    """
    alike = {name.translate(_ALIKE) for name in names}
    for name in [name for name, _ in headers.getAllRawHeaders() if name.translate(_ALIKE) in alike]:
        headers.removeHeader(name)


def is_last_hop(method: bytes, headers: Headers) -> bool:
    """
    Whether a request goes no further than this, as its C{Max-Forwards} says; else count the hop (RFC 9110, 7.6.2).

    @raise BadRequest: C{Max-Forwards} is not one number.
    """
    values = headers.getRawHeaders(b"max-forwards")
    if values is None or method not in (b"TRACE", b"OPTIONS"):
        return False
    if len(values) > 1 or not _DIGITS.fullmatch(values[0]):
        raise BadRequest("Max-Forwards is not a number.")
    number = values[0].lstrip(b"0")
    if not number:
        return True
    left = MOST_HOPS if len(number) > 3 else min(int(number) - 1, MOST_HOPS)
    headers.setRawHeaders(b"max-forwards", [b"%d" % left])
    return False


def add_via(headers: Headers, version: bytes) -> None:
    """
    Say that a message has come this way (RFC 9110, section 7.6.3).

    @param version: the protocol that it came by, such as C{HTTP/1.1}.
    """
    headers.addRawHeader(b"Via", b"%b %b" % (version.removeprefix(b"HTTP/"), NAME))


def request_headers(headers: Headers, authority: bytes, version: bytes = b"HTTP/1.1") -> Headers:
    """
    The fields to send to the backend: end to end, one Host, and no framing, which the sender adds itself.

    @param authority: the backend's own host and port, for a request without Host (HTTP/1.0).
    @param version: the protocol that the request came by.
    @raise BadRequest: there are several Host fields, or a value holds a NUL or the end of a line.
    """
    kept = end_to_end(headers)
    kept.removeHeader(b"content-length")
    # The server has met it, for it has read the body already; it knows no other than 100-continue.
    kept.removeHeader(b"expect")
    hosts = kept.getRawHeaders(b"host")
    if hosts is None:
        kept.setRawHeaders(b"host", [authority])
    elif len(hosts) > 1:
        raise BadRequest("The request has more than one Host.")
    if _is_unsafe(kept):
        raise BadRequest("A request header holds a NUL or the end of a line.")
    add_via(kept, version)
    return kept


def announces_body(headers: Headers) -> bool:
    """Whether the client framed a body, be it an empty one."""
    return headers.hasHeader(b"content-length") or headers.hasHeader(b"transfer-encoding")


def response_head(
    method: bytes,
    status: int,
    phrase: bytes,
    headers: Headers,
    length: int | None,
    version: bytes = b"HTTP/1.1",
) -> ResponseHead:
    """
    What the client is told of a response.

    @param method: the request's.
    @param headers: the response's fields, which become the client's: they are changed. For HEAD and 304 with
        Content-Length, for others perhaps without.
    @param length: bytes of the body that follows, None if it is not known beforehand.
    @param version: the protocol that the response came by.
    @raise BackendProtocolError: no client could be given this head.
    """
    check_status(status, phrase)
    drop_hop_by_hop(headers)
    if _is_unsafe(headers):
        raise BackendProtocolError("A header of the backend's response holds a NUL or the end of a line.")
    if status == 204:
        headers.removeHeader(b"content-length")  # RFC 9110, section 8.6
        length = None
    elif method == b"HEAD" or status == 304:
        length = announced_length(headers)
    else:
        headers.removeHeader(b"content-length")
        if length is not None:
            headers.setRawHeaders(b"content-length", [b"%d" % length])
    add_via(headers, version)
    return ResponseHead(status, phrase, headers, length)


def check_status(status: int, phrase: bytes) -> None:
    """
    See that this is the status of a final response, and that no reason phrase breaks its head apart.

    @raise BackendProtocolError: it is not so.
    """
    if not 200 <= status <= 599:
        raise BackendProtocolError("The backend's status is out of range.")
    if CONTROL.search(phrase):
        raise BackendProtocolError("The backend's reason phrase holds a control character.")


def announced_length(headers: Headers) -> int | None:
    """
    The length that a response announces of a body, whether or not one follows; None without one.

    @raise BackendProtocolError: it announces two, or what is none.
    """
    values = headers.getRawHeaders(b"content-length")
    if values is None:
        return None
    try:
        length = parse_repeated_length(values)
    except Malformed as error:
        raise BackendProtocolError(f"The backend's response is malformed: {error}.") from None
    headers.setRawHeaders(b"content-length", [b"%d" % length])
    return length


def _is_unsafe(headers: Headers) -> bool:
    """
    Whether a value would break the head apart. A second lock: the parsers of heads refuse such values, and Twisted's
    Headers take no line ends; but what rules and programs put in has passed no parser.
    """
    values = [value for _, values in headers.getAllRawHeaders() for value in values]
    return _UNSAFE.search(b"".join(values)) is not None
