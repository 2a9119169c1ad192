"""What is said to a client whose request no resource has seen, and what the access log says of it. Pure."""

from __future__ import annotations

import attrs
from twisted.web.http_headers import Headers

from thrtwisted.answer import error_answer
from thrtwisted.errors import ExchangeError

#: Bytes of a request line that the access log has room for, of a request that could not be understood.
LINE = 500

#: Bytes of such a request that are looked at at all.
LOOKED_AT = 4096

#: What the answer's form and the log depend on.
_OF_INTEREST = frozenset((b"accept", b"referer", b"user-agent"))


@attrs.frozen
class Asked:
    """
    What is known of a request that is refused.

    @ivar method, target, version: of its request line; C{-} for what is not known.
    """

    method: bytes = b"-"
    target: bytes = b"-"
    version: bytes = b"-"
    headers: Headers = attrs.field(factory=Headers)


def asked(beginning: bytes | bytearray) -> Asked:
    """What may have been asked for, by what has come of a head: for the answer's form and the log, and nothing else."""
    first, *lines = bytes(beginning[:LOOKED_AT]).lstrip(b"\r\n").split(b"\r\n")
    method, _, rest = first[:LINE].partition(b" ")
    target, _, version = rest.rpartition(b" ")
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and name.lower() in _OF_INTEREST:
            headers.addRawHeader(name, value.strip(b" \t"))
    return Asked(method or b"-", target or rest or b"-", (version if target else b"") or b"-", headers)


def refusal(error: ExchangeError, request: Asked) -> tuple[bytes, int]:
    """
    The answer that tells of an error and of the end of the connection.

    @return: the bytes, and how many of them are its body.
    """
    accept = request.headers.getRawHeaders(b"accept")
    head, body = error_answer(error, b", ".join(accept) if accept else None)
    head.headers.setRawHeaders(b"Connection", [b"close"])
    if request.method == b"HEAD":
        body = b""
    return head_bytes(b"HTTP/1.1", b"%d" % head.status, head.phrase, head.headers) + body, len(body)


def head_bytes(version: bytes, status: bytes, phrase: bytes, headers: Headers) -> bytes:
    """The head of a response."""
    lines = [b"%b %b %b" % (version, status, phrase)]
    for name, values in headers.getAllRawHeaders():
        for value in values:
            lines.append(b"%b: %b" % (name, value))
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


class Refused:
    """
    A refused request as the access log looks at requests.

    @param address: the client's.
    @param status: what it was answered.
    @param size: bytes of the answer's body.
    """

    def __init__(self, request: Asked, address: object, status: int, size: int) -> None:
        self.method, self.uri, self.clientproto = request.method, request.target, request.version
        self.code = status
        self.sentLength = size
        self._headers = request.headers
        self._address = address

    def getClientAddress(self) -> object:
        """Who it was."""
        return self._address

    def getHeader(self, name: bytes) -> bytes | None:
        """The last value of a header, as Twisted's requests have it; None without one."""
        values = self._headers.getRawHeaders(name)
        return values[-1] if values else None
