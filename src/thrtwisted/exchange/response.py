"""
The response of an exchange, as rules and their functions see and change it.

What is said of it before it is there, on the request's way in, takes effect once it is.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from . import settable
from .settable import Text
from .views import TextHeaders

if TYPE_CHECKING:
    from . import Exchange, ResponseHead

#: Bytes of a body that a function may read: all of them are in memory.
LONGEST_READ = 16 * 1024 * 1024

#: Statuses of responses that have no body (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
BODILESS = frozenset((204, 205, 304))

#: What is said of a body, and not true of another one.
_OF_BODY = (
    b"content-digest",
    b"content-encoding",
    b"content-md5",
    b"content-range",
    b"digest",
    b"etag",
    b"repr-digest",
)
_TYPE = b"text/plain; charset=utf-8"

_OK, _NO_CONTENT, _RESET, _PARTIAL, _NOT_MODIFIED = 200, 204, 205, 206, 304


class Response:
    """What a client will get."""

    __slots__ = (
        "_body",
        "_default_body",
        "_deleted",
        "_exchange",
        "_fields",
        "_head",
        "_headers",
        "_own",
        "_proxys",
        "_read",
        "_set",
    )

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._head: ResponseHead | None = None
        self._read: Callable[[int], Deferred[bytes]] | None = None
        self._proxys = False
        self._body: bytes | None = None
        self._default_body: bytes | None = None
        self._own: set[bytes] = set()  # names of fields that rules have set or added
        self._set: set[bytes] = set()  # of these, those in place of the response's
        self._deleted: set[bytes] = set()
        self._fields = Headers()
        self._headers = TextHeaders(self._fields, distinct=False, changed=self._changed)

    @property
    def headers(self) -> TextHeaders:
        """The header fields; before the response is there, those that will be set."""
        return self._headers

    @property
    def status_code(self) -> int | None:
        """The status; None before the response is there, unless one was set: then that is answered at once."""
        if self._exchange.status is not None or self._head is None:
            return self._exchange.status
        return self._head.status

    @status_code.setter
    def status_code(self, value: int) -> None:
        self._exchange.status = settable.status(value)

    @property
    def body(self) -> bytes | None:
        """The body that is sent in place of the response's own; None for its own."""
        return self._body

    @body.setter
    def body(self, value: Text | None) -> None:
        self._body = None if value is None else settable.encoded(value, "a body")

    @property
    def default_body(self) -> bytes | None:
        """The body that is sent if the response has none; None for none."""
        return self._default_body

    @default_body.setter
    def default_body(self, value: Text | None) -> None:
        self._default_body = None if value is None else settable.encoded(value, "a body")

    def read_body(self) -> Deferred[bytes]:
        """
        Read the response's own body, which is sent on unchanged unless it is replaced. It may be asked for once, while
        the rules are waited for.

        @return: fires with all of it. Errbacks with L{RuleFailed<thrtwisted.errors.RuleFailed>} if it is longer than
            16 MiB, and with L{BackendClosed<thrtwisted.errors.BackendClosed>} if the backend cuts it.
        @raise ValueError: the response is not there yet.
        """
        if self._read is None:
            raise ValueError("there is no response yet; read its body in custom_output")
        return self._read(LONGEST_READ)

    def delete_header(self, name: Text) -> None:
        """
        Take away the fields of a name, if there are any.

        @raise ValueError: they are the connection's.
        """
        field = settable.header_name(name, distinct=False)
        self._fields.removeHeader(field)
        self._deleted.add(field.lower())

    # For the resource

    def begin(self, head: ResponseHead, read: Callable[[int], Deferred[bytes]], proxys: bool) -> None:
        """
        The response is there.

        @param read: reads its body, if that has no more than so many bytes.
        @param proxys: it is an answer of the proxy's own.
        """
        self._head, self._read, self._proxys = head, read, proxys
        early, self._fields = self._fields, head.headers
        self._headers = TextHeaders(head.headers, distinct=False, changed=self._changed)
        for name in self._deleted | self._set:
            head.headers.removeHeader(name)
        for name, values in early.getAllRawHeaders():
            for value in values:
                head.headers.addRawHeader(name, value)

    def finished(self, asked: bytes, method: bytes) -> tuple[ResponseHead, bytes | None]:
        """
        The head and the body to send.

        @param asked: the client's method.
        @param method: the backend's.
        @return: the body is None where the response's own is to be sent.
        """
        head = self._head
        assert head is not None
        status = self._exchange.status or head.status
        had_none = head.status in BODILESS or (method == b"HEAD" != asked)  # whatever its length says
        if status in BODILESS:
            body = None if status == head.status and status != _RESET else b""
        elif self._body is not None:
            body = self._body
        elif self._default_body is not None and (self._proxys or had_none or head.length == 0):
            body = self._default_body
        else:
            body = b"" if had_none else None
        if body is not None and status == _PARTIAL and self._exchange.status is None:
            status = _OK  # what was a part is none any more
        if status != head.status:
            head = attrs.evolve(head, status=status, phrase=phrase(status))
        return (head, None) if body is None else (self._with_length(head, body), body)

    def _with_length(self, head: ResponseHead, body: bytes) -> ResponseHead:
        """The head for another body than the response's own."""
        headers = head.headers
        if head.status in (
            _NO_CONTENT,
            _NOT_MODIFIED,
        ):  # what is said of a body is of the one that is not sent
            headers.removeHeader(b"content-length")
            return attrs.evolve(head, length=None)
        for name in _OF_BODY:
            if name not in self._own:
                headers.removeHeader(name)
        headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
        is_typed = b"content-type" in self._own or (headers.hasHeader(b"content-type") and not self._proxys)
        if body and not is_typed:
            headers.setRawHeaders(b"content-type", [_TYPE])
        return attrs.evolve(head, length=len(body))

    def _changed(self, name: bytes, anew: bool) -> None:
        self._own.add(name)
        self._deleted.discard(name)
        if anew:
            self._set.add(name)


def phrase(status: int) -> bytes:
    """The reason phrase of a status."""
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"
