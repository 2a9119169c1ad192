"""
The grammar of HTTP/1.1 messages (RFC 9110 and RFC 9112), for requests and responses.

Pure, and stricter than the RFCs where they let a recipient choose: what two parsers could read differently is refused
and never mended. Every pattern takes time linear in its input, also where it does not match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address

from twisted.web.http_headers import Headers

#: token = 1*tchar (RFC 9110, section 5.6.2)
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: What a quoted-string consists of between its quotes (RFC 9110, section 5.6.4).
QUOTED = rb"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"

#: Bytes of a field's name. Twisted remembers ten thousand names for as long as the process lives.
NAME_LENGTH = 256
#: Digits of a length: what can be added to another without passing 64 bits.
LENGTH_DIGITS = 18

#: What no value and no reason phrase may contain (RFC 9110, section 5.5): control characters but HTAB.
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: What no head may contain (RFC 9112, section 2.2; RFC 9110, section 5.5): control characters but HTAB and CRLF. A CR
#: at the end is let pass: its LF may be yet to come. One class of characters with its exceptions is three times as fast
#: as three alternatives.
BROKEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f](?<!\r\n)(?<!\r(?=\n|\Z))")

_TOKEN = re.compile(TOKEN)
#: field-line = field-name ":" OWS field-value OWS (RFC 9112, section 5). The blanks are taken off the value later:
#: two neighbours that both match blanks would make the pattern quadratic.
_FIELD = rb"([!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d}):([\t\x20-\x7e\x80-\xff]*)" % NAME_LENGTH
_FIELD_LINE = re.compile(_FIELD)
#: The same for many lines at once, each with the CRLF before it. Nothing in a match but its beginning matches CR, so
#: that a search that finds nothing is over after one look at each line, too.
_FIELD_LINES = re.compile(rb"\r\n" + _FIELD + rb"(?=\r\n|\Z)")
_LENGTH = re.compile(rb"[0-9]{1,%d}" % LENGTH_DIGITS)
#: uri-host [ ":" port ] (RFC 9110, section 7.2; RFC 3986, section 3.2.2). A comma, which RFC 3986 allows in a reg-name,
#: stands between two values that somebody has joined; a percent-encoded letter is another spelling of a name, which one
#: program would read and the next would not; of IP literals only IPv6 addresses are known.
_AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|[A-Za-z0-9._~!$&'()*+;=-]+)(?::([0-9]{0,5}))?")


class Malformed(ValueError):
    """
    What was sent is not HTTP.

    The message is a clause for whoever sent it, without a capital letter and a full stop.
    """


def is_token(text: bytes) -> bool:
    """Whether this is a token (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """
    The name of a field line, and its value without the blanks around it (RFC 9112, section 5).

    @param line: without its CRLF.
    @raise Malformed: it is none. This includes what continues another line (obs-fold, section 5.2).
    """
    match = _FIELD_LINE.fullmatch(line)
    if match is None:
        raise Malformed(_mistake(line))
    name, value = match.groups()
    return name, value.strip(b" \t")


def parse_fields(lines: Sequence[bytes]) -> Headers:
    """
    The fields of these lines; several of one name in their order, and values byte for byte.

    @param lines: as they were between one CRLF and the next.
    @raise Malformed: a line is no field line.
    """
    fields: list[tuple[bytes, bytes]] = _FIELD_LINES.findall(b"\r\n".join((b"", *lines)))
    if len(fields) != len(lines):
        raise Malformed(next(_mistake(line) for line in lines if not _FIELD_LINE.fullmatch(line)))
    headers = Headers()
    add = headers.addRawHeader
    for name, value in fields:
        add(name, value.strip(b" \t"))
    return headers


def capitalized(names: Iterable[bytes]) -> frozenset[bytes]:
    """
    Names of fields with the letters that L{Headers} gives all names: those of its C{getAllRawHeaders} are found among
    these as they are.
    """
    return frozenset(name for name, _ in Headers({name: [] for name in names}).getAllRawHeaders())


def list_elements(values: Iterable[bytes]) -> list[bytes]:
    """
    The elements of a field that is a comma-separated list, over all its values, in lower case; empty ones are
    left out (RFC 9110, section 5.6.1.2). Not for lists of quoted strings.
    """
    elements = [element.strip(b" \t").lower() for value in values for element in value.split(b",")]
    return [element for element in elements if element]


def connection_options(headers: Headers) -> frozenset[bytes]:
    """
    What all Connection fields name, in lower case (RFC 9110, section 7.6.1).

    @raise Malformed: one of them is not a list of tokens.
    """
    values = headers.getRawHeaders(b"connection")
    if values is None:
        return frozenset()
    if len(values) == 1 and is_token(values[0]):
        return frozenset((values[0].lower(),))  # as in nearly all messages
    options = frozenset(list_elements(values))
    if not all(map(is_token, options)):
        raise Malformed("Connection is not a list of tokens")
    return options


def parse_length(values: Iterable[bytes]) -> int:
    """
    What the values of Content-Length say (RFC 9110, section 8.6).

    @raise Malformed: there are several, be they equal, or it is not a number of at most 18 digits.
    """
    value, *others = values
    if others:
        raise Malformed("there is more than one Content-Length")
    if not _LENGTH.fullmatch(value):
        raise Malformed("Content-Length is not a number of at most 18 digits")
    return int(value)


def parse_repeated_length(values: Iterable[bytes]) -> int:
    """
    As L{parse_length}, but the same length several times, also in one list, is taken for one (RFC 9110, section 8.6).

    @raise Malformed: there are different ones, or it is not a number of at most 18 digits.
    """
    return parse_length({part.strip(b" \t") for value in values for part in value.split(b",")})


def is_authority(text: bytes) -> bool:
    """Whether this is a host that is not empty, perhaps with a port (RFC 9110, sections 4.2.1 and 7.2)."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return False
    address, port = match.groups()
    if port and int(port) > 65535:
        return False
    if address is None:
        return True
    try:
        IPv6Address(address.decode())
    except ValueError:
        return False
    return True


def _mistake(line: bytes) -> str:
    """What is wrong with a line that is no field line."""
    if line.startswith((b" ", b"\t")):
        return "a header is continued on a second line"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "a header has no colon"
    if not name:
        return "a header has no name"
    if name.endswith((b" ", b"\t")):
        return "there is a blank before a header's colon"
    if not is_token(name):
        return "a header's name holds a character that must not be there"
    if len(name) > NAME_LENGTH:
        return "a header's name is too long"
    return "a header's value holds a control character"
