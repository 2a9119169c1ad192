"""
The head of a request: bytes in, a L{RequestHead} out or a refusal.

Pure and strict (RFC 9112, sections 2, 3, 5 and 6): whatever a server behind could read in another way is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs
from twisted.web.http_headers import Headers

from thrtwisted.config import Bounds
from thrtwisted.errors import (
    BadRequest,
    BodyTooLarge,
    CodingNotImplemented,
    ExchangeError,
    HeadTooLarge,
    MethodNotImplemented,
    TargetTooLong,
    VersionNotSupported,
)
from thrtwisted.forward.wellformed import check_host, expects_continue
from thrtwisted.grammar import (
    BROKEN,
    TOKEN,
    Malformed,
    connection_options,
    is_authority,
    is_token,
    parse_fields,
    parse_length,
)

#: Letters of a method; of those registered the longest, UPDATEREDIRECTREF, has 17.
METHOD_LENGTH = 64

_END = b"\r\n\r\n"
_VERSIONS = frozenset((b"HTTP/1.1", b"HTTP/1.0"))
#: request-line = method SP request-target SP HTTP-version (RFC 9112, sections 2.3 and 3). Of the target's characters
#: more are let pass than a URI may have (browsers send some of them bare), but no blanks and nothing outside ASCII.
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) (HTTP/[0-9]\.[0-9])" % TOKEN)
#: absolute-form with the schemes that are forwarded (RFC 9112, section 3.2.2; RFC 9110, section 4.2)
_ABSOLUTE = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)


@attrs.frozen
class RequestHead:
    """
    A request up to its body.

    @ivar method: with the letters as sent.
    @ivar target: as sent: a path, C{*} for OPTIONS, or an absolute http or https URL, whose host then counts in place
        of the Host header's (RFC 9112, section 3.2.2).
    @ivar version: C{HTTP/1.1} or C{HTTP/1.0}.
    @ivar headers: all of them, also those of this hop; values byte for byte, without the blanks around them.
    @ivar length: bytes of the body, 0 without one; None if it comes in chunks.
    @ivar keeps_alive: the connection may carry another request after this one.
    @ivar expects: the client waits for a C{100 Continue} before it sends the body.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: Headers
    length: int | None
    keeps_alive: bool
    expects: bool


def end_of_head(buffer: bytearray, start: int = 0) -> int:
    """
    The index of what follows the head at the beginning of the buffer, -1 if it has not ended.

    @param start: bytes that were there when this was last asked: they are not looked at again.
    """
    found = buffer.find(_END, max(0, start - 3))
    return found if found < 0 else found + len(_END)


def overflow(buffer: bytearray, bounds: Bounds, start: int = 0) -> ExchangeError | None:
    """
    Why a head that has not ended is refused already; None if it may yet become a request.

    What cannot become one is refused at once, so that nobody waits in vain: too much of it, a request line that is
    none, TLS on a plain port.

    @param start: bytes that were there when this was last asked: they are not looked at again.
    """
    try:
        _check_beginning(buffer, bounds, start)
    except ExchangeError as error:
        return error
    return None


def parse_head(data: bytes, bounds: Bounds) -> RequestHead:
    """
    The request that this head begins.

    @param data: the head without the C{CRLF CRLF} at its end. One empty line before it is skipped (RFC 9112, 2.2).
    @raise ExchangeError: it is refused; the message is for the client.
    """
    lines = data.split(b"\r\n")
    if not lines[0] and len(lines) > 1:
        del lines[0]
    method, target, version = _request_line(lines.pop(0), bounds)
    if len(data) > bounds.head_size:
        raise _too_large()
    if len(lines) > bounds.header_count:
        raise HeadTooLarge("The request has too many headers.")
    try:
        headers = parse_fields(lines)
        options = connection_options(headers)
        length = _body_length(headers, version)
    except Malformed as error:
        raise BadRequest(f"The request is malformed: {error}.") from None
    if length is not None and length > bounds.body_size:
        raise BodyTooLarge("The request's body is too large.")
    check_host(headers, version)
    expects = expects_continue(headers) and version == b"HTTP/1.1" and length != 0
    keeps_alive = version == b"HTTP/1.1" and b"close" not in options
    return RequestHead(method, target, version, headers, length, keeps_alive, expects)


def _check_beginning(buffer: bytearray, bounds: Bounds, start: int) -> None:
    before = max(0, start - 1)  # a CR may have come alone
    if BROKEN.search(buffer, before):
        raise _broken()
    line_start = 2 if buffer.startswith(b"\r\n") else 0
    longest = line_start + _longest_line(bounds) + 1  # where the line's LF is at the latest
    line_end = buffer.find(b"\r\n", max(line_start, before))
    if line_end >= 0 and buffer.find(b"\r\n", line_start, line_end) < 0:
        _request_line(bytes(buffer[line_start:line_end]), bounds)
    elif start <= longest < len(buffer) and buffer.find(b"\r\n", line_start, longest + 1) < 0:
        raise _line_too_long(bytes(buffer[line_start:longest]))
    if len(buffer) > bounds.head_size + len(_END) - 1:
        raise _too_large()


def _longest_line(bounds: Bounds) -> int:
    """Bytes of the longest request line that can be one."""
    return METHOD_LENGTH + bounds.target_length + len(b"  HTTP/1.1")


def _request_line(line: bytes, bounds: Bounds) -> tuple[bytes, bytes, bytes]:
    """Method, target and version."""
    if len(line) > _longest_line(bounds):
        raise _line_too_long(line)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if BROKEN.search(line):
            raise _broken()
        raise BadRequest(
            "The request line is not a method, a target and a version, with one space between them."
        )
    method, target, version = match.groups()
    if version not in _VERSIONS:
        raise VersionNotSupported("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if len(method) > METHOD_LENGTH:
        raise _method_too_long()
    if len(target) > bounds.target_length:
        raise _target_too_long()
    if method == b"CONNECT":
        raise MethodNotImplemented("CONNECT is not possible here.")
    _check_target(method, target)
    return method, target, version


def _check_target(method: bytes, target: bytes) -> None:
    """See that it has one of the forms of RFC 9112, section 3.2, other than authority-form."""
    if b"#" in target:
        raise BadRequest("The request target has a fragment.")
    if target.startswith(b"/"):
        return
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequest("The request target can be * for OPTIONS only.")
        return
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise BadRequest("The request target is neither a path nor an http URL.")
    if not is_authority(absolute[1]):  # nor with a user's name before an @ (RFC 9110, section 4.2.4)
        raise BadRequest("The request target does not name a host, with or without a port.")


def _body_length(headers: Headers, version: bytes) -> int | None:
    """Bytes of the body, None for chunks (RFC 9112, section 6.3)."""
    lengths = headers.getRawHeaders(b"content-length")
    codings = headers.getRawHeaders(b"transfer-encoding")
    if codings is None:
        return 0 if lengths is None else parse_length(lengths)
    if lengths is not None:
        raise Malformed("it has both Content-Length and Transfer-Encoding")
    if version != b"HTTP/1.1":
        raise Malformed("Transfer-Encoding is not for HTTP/1.0")  # RFC 9112, section 6.1
    if len(codings) > 1 or codings[0].lower() != b"chunked":
        raise _coding_refused(codings)
    return None


def _coding_refused(values: Sequence[bytes]) -> Exception:
    """The refusal of codings other than C{chunked} alone: unknown ones, or what cannot be framed."""
    codings = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
    names = [coding.partition(b";")[0].rstrip(b" \t") for coding in codings]
    if not all(map(is_token, names)):
        return Malformed("Transfer-Encoding is not a list of codings")
    if b"chunked" in names[:-1] or (names[-1] == b"chunked" and codings[-1] != b"chunked"):
        return Malformed("chunked is not the last transfer coding, once and without parameters")
    return CodingNotImplemented("Of transfer codings only chunked is known.")


def _broken() -> BadRequest:
    return BadRequest("The request holds a control character, or a line that does not end with CR LF.")


def _line_too_long(line: bytes) -> ExchangeError:
    """The refusal of a request line that goes on where none can: its method is too long, or its target."""
    return _method_too_long() if is_token(line[: METHOD_LENGTH + 1]) else _target_too_long()


def _method_too_long() -> MethodNotImplemented:
    return MethodNotImplemented("The method is not known.")


def _target_too_long() -> TargetTooLong:
    return TargetTooLong("The request target is too long.")


def _too_large() -> HeadTooLarge:
    return HeadTooLarge("The request's headers are too large.")
