"""
The head of a backend's response, as it was sent: bytes in, a head out, or a refusal. Pure.

Twisted's client reads the same bytes afterwards, and the end of the body is what it thinks it is. So nothing passes
here of which it could think otherwise: line ends that are not CRLF, continued lines, blanks before a colon, codings
other than C{chunked}, two lengths that differ. Each of these is the backend's error.
"""

from __future__ import annotations

import re

import attrs
from twisted.web.http_headers import Headers

from thrtwisted.errors import BackendProtocolError
from thrtwisted.grammar import BROKEN, Malformed, connection_options, parse_fields, parse_repeated_length

#: Statuses whose responses end with their head, whatever their fields say (RFC 9112, section 6.3).
BODILESS = frozenset((204, 304))

_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_END = re.compile(rb"\r\n\r\n|(?<!\r)\n")


@attrs.frozen
class Framing:
    """
    Where a body ends.

    @ivar length: after so many bytes; None if that was not said.
    @ivar chunked: after its last chunk. With neither, it ends with the connection.
    """

    length: int | None = None
    chunked: bool = False


#: That of a response without a body.
NOTHING = Framing(0)
#: That of a body that ends with the connection.
ENDLESS = Framing()


@attrs.frozen
class ResponseHeadAsSent:
    """
    The head of a response, final or interim (1xx).

    @ivar version: C{HTTP/1.1} or C{HTTP/1.0}.
    @ivar headers: all fields, those of one hop too.
    @ivar framing: what the fields say, which holds for a GET; see L{body}.
    @ivar keeps_alive: the connection may carry another response after this one and its body.
    """

    version: bytes
    status: int
    phrase: bytes
    headers: Headers
    framing: Framing
    keeps_alive: bool

    @property
    def interim(self) -> bool:
        """Whether another response follows, to the same request (RFC 9110, section 15.2)."""
        return self.status < 200

    def body(self, method: bytes) -> Framing:
        """Where the body ends of this response to a request with this method (RFC 9112, section 6.3)."""
        if method == b"HEAD" or self.interim or self.status in BODILESS:
            return NOTHING
        return self.framing


def end_of_head(data: bytes | bytearray, start: int = 0) -> int:
    """
    The index after the empty line that ends a head; -1 if it has not come.

    @param start: where to look from: what lies more than three bytes before it has been looked at already.
    @raise BackendProtocolError: a line ends with LF alone. Another parser would see the head end elsewhere.
    """
    found = _END.search(data, max(0, start - 3))
    if found is None:
        return -1
    if found.group() == b"\n":
        raise BackendProtocolError("A line of the backend's response does not end with CRLF.")
    return found.end()


def parse_response_head(data: bytes) -> ResponseHeadAsSent:
    """
    Parse the head of a response.

    @param data: the head, with or without the empty line at its end.
    @raise BackendProtocolError: it is no head of a response, says two things about its body's end, or switches
        protocols, which no request of ours asks for.
    """
    try:
        return _parsed(data.removesuffix(b"\r\n\r\n"))
    except Malformed as error:
        raise BackendProtocolError(f"The backend's response is malformed: {error}.") from None


def _parsed(data: bytes) -> ResponseHeadAsSent:
    if BROKEN.search(data):
        raise Malformed("its head holds a control character")
    line, *lines = data.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Malformed("it has no status line of HTTP/1.1 or HTTP/1.0")
    version, code, phrase = match.groups(b"")
    status = int(code)
    if status == 101:
        raise Malformed("it switches protocols, though nobody asked")
    headers = parse_fields(lines)
    framing = _framing(version, headers)
    kept = version == b"HTTP/1.1" and b"close" not in connection_options(headers)
    return ResponseHeadAsSent(
        version, status, phrase, headers, framing, kept and _is_all_of_it(status, framing)
    )


def _framing(version: bytes, headers: Headers) -> Framing:
    """What the fields say of the body's end."""
    codings = headers.getRawHeaders(b"transfer-encoding")
    lengths = headers.getRawHeaders(b"content-length")
    if codings is not None:
        if version == b"HTTP/1.0":
            raise Malformed("it has Transfer-Encoding in HTTP/1.0")
        if lengths is not None:
            raise Malformed("it has both Transfer-Encoding and Content-Length")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise Malformed("its Transfer-Encoding is not chunked alone")
        return Framing(chunked=True)
    if lengths is not None:
        return Framing(parse_repeated_length(lengths))
    return ENDLESS


def _is_all_of_it(status: int, framing: Framing) -> bool:
    """
    Whether its framing says where the response ends, so that what comes later is not a part of it.

    204 and 304 have no body, and no framing of it that counts. But there are servers that send what the application
    returns all the same, and a moment later: it would be taken for the next answer.
    """
    return status < 200 or (status not in BODILESS and framing != ENDLESS)
