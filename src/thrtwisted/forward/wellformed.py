"""
Whether a request is well-formed, whichever server has read it; and the head of a response, whichever worker. Pure.

Our own site has refused before whatever is refused here. Twisted's has not: it takes C{Transfer-Encoding: identity},
and codings in HTTP/1.0, where a server before it may see another end of the body, and so other requests.

A worker of ours has refused it, too. But what a front reads of Redis may be somebody else's.
"""

from __future__ import annotations

from twisted.web.http_headers import Headers

from thrtwisted.errors import BackendProtocolError, BadRequest, ExpectationFailed, VersionNotSupported
from thrtwisted.exchange import ResponseHead
from thrtwisted.grammar import (
    CONTROL,
    Malformed,
    connection_options,
    is_authority,
    list_elements,
    parse_length,
)

from .headers import announced_length, check_request_line, check_status, taken_away

#: HTTP/2 is spoken by Twisted's own site only.
_VERSIONS = frozenset((b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2"))


def check_request(
    method: bytes, target: bytes, version: bytes, headers: Headers, kept: frozenset[bytes] = frozenset()
) -> None:
    """
    See that a request is well-formed.

    @param kept: as for L{end_to_end<thrtwisted.forward.headers.end_to_end>}.
    @raise ExchangeError: it is not; nothing that follows it on its connection can be trusted.
    """
    check_request_line(method, target)
    if b"#" in target:
        raise BadRequest("The request target has a fragment.")
    if target == b"*" and method != b"OPTIONS":
        raise BadRequest("The request target can be * for OPTIONS only.")
    if version not in _VERSIONS:
        raise VersionNotSupported("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    try:
        _check_fields(headers)
        options = connection_options(headers)
        _check_framing(version, headers)
    except Malformed as error:
        raise BadRequest(f"The request is malformed: {error}.") from None
    check_host(headers, version)
    expects_continue(headers)
    # Nobody can tell whether the client sent this field, and wants it taken away, or a resource before ours set it to
    # say who the client is. Our own site takes away what the client names before any resource sees the request.
    if any(headers.hasHeader(name) for name in taken_away(options, kept)):
        raise BadRequest("Connection names a header that is not the connection's own.")


def check_response(head: ResponseHead) -> None:
    """
    See that the head of a response is one that L{response_head<thrtwisted.forward.headers.response_head>} makes.

    @raise BackendProtocolError: it is not; whoever says it is not to be believed where its body ends.
    """
    check_status(head.status, head.phrase)
    try:
        _check_fields(head.headers)
    except Malformed as error:
        raise BackendProtocolError(f"The worker's response is malformed: {error}.") from None
    length = announced_length(head.headers)
    if head.length != length or (head.status == 204 and length is not None):
        raise BackendProtocolError("The length of the worker's response is not what its Content-Length says.")


def check_host(headers: Headers, version: bytes) -> None:
    """
    See that there is one Host, that it is valid, and that no HTTP/1.1 is without (RFC 9112, section 3.2).

    It may be empty: so says a client whose URL has no host.

    @raise BadRequest: it is not so.
    """
    hosts = headers.getRawHeaders(b"host")
    if not hosts:
        if version == b"HTTP/1.1":
            raise BadRequest("The request has no Host.")
        return
    if len(hosts) > 1:
        raise BadRequest("The request has more than one Host.")
    if hosts[0] and not is_authority(hosts[0]):
        raise BadRequest("Host does not name a host, with or without a port.")


def expects_continue(headers: Headers) -> bool:
    """
    Whether there is an expectation, which can only be C{100-continue} (RFC 9110, section 10.1.1).

    @raise ExpectationFailed: it is another one.
    """
    values = headers.getRawHeaders(b"expect")
    if values is None:
        return False
    expectations = set(list_elements(values))
    if expectations - {b"100-continue"}:
        raise ExpectationFailed("Expect can only be 100-continue.")
    return bool(expectations)


def _check_fields(headers: Headers) -> None:
    """See that no value holds a control character. Names are tokens: Twisted's Headers take no others."""
    for _, values in headers.getAllRawHeaders():
        if any(CONTROL.search(value) for value in values):
            raise Malformed("a header's value holds a control character")


def _check_framing(version: bytes, headers: Headers) -> None:
    codings = headers.getRawHeaders(b"transfer-encoding")
    lengths = headers.getRawHeaders(b"content-length")
    if lengths is not None:
        parse_length(lengths)
    if codings is None:
        return
    if lengths is not None:
        raise Malformed("it has both Content-Length and Transfer-Encoding")
    if version != b"HTTP/1.1" or [coding.lower() for coding in codings] != [b"chunked"]:
        raise Malformed("its Transfer-Encoding is not chunked alone, in HTTP/1.1")
