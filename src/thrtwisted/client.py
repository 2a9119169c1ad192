"""
The client of an exchange, as the exchange's way has it: somebody who may leave, and is told once how it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString

from .errors import ExchangeError, RateExceeded
from .exchange import ResponseHead
from .gate import IAdmission
from .limits.ratelimit import Fields
from .timing import Timing


class Client:
    """
    Who sent the request: told once how it ends, and free to leave before.

    @param timing: says in C{Server-Timing} where the exchange's time goes.
    @ivar left: it has gone; nothing can be said to it.
    """

    def __init__(self, request: Any, timing: Timing) -> None:
        # An application that thinks before it renders this resource may take longer than its client has patience.
        self.left = request.channel is None
        self._request = request
        self._timing = timing
        self._fields: Fields | None = None
        self._leaving: Callable[[], object] = lambda: None
        request.notifyFinish().addErrback(self._leave)

    def when_leaving(self, action: Callable[[], object]) -> None:
        """What is to be done if the client leaves from now on, instead of what was to be done so far."""
        self._leaving = action

    def waits_for(self, rules: Deferred[None]) -> Generator[Deferred[Any], Any, None]:
        """Wait for rules, which are waited for no more if the client leaves meanwhile."""
        self.when_leaving(rules.cancel)
        if not rules.called:
            self._timing.begin("rules")
        try:
            yield rules
        finally:
            self._timing.end()

    def has_left(self) -> bool:
        """Look whether it has gone, where it is not noticed by itself: nothing is forwarded for nobody (promise 5)."""
        look = getattr(self._request.channel, "has_left", None)
        self.left = self.left or (look is not None and look())
        return self.left

    def tells(self, fields: Fields | None) -> None:
        """What its response tells of the limits of the exchange, whatever comes of it."""
        self._fields = fields

    def admitted(self, admission: IAdmission) -> None:
        """The exchange was admitted now."""
        if self._fields:
            self._fields.admitted(admission.quotas)

    def refused(self, error: ExchangeError) -> None:
        """The exchange has failed; perhaps for its rate."""
        if self._fields and isinstance(error, RateExceeded) and error.retry_after is not None:
            self._fields.rejected(error.retry_after)

    def distrust(self) -> None:
        """Let nothing follow this request on its connection: other servers may see other ends of it."""
        if self._request.clientproto in (b"HTTP/1.0", b"HTTP/1.1"):
            self._request.responseHeaders.setRawHeaders(b"connection", [b"close"])
            self._request.channel.persistent = False

    def begin(self, head: ResponseHead) -> None:
        """Set the status and the headers of the response; its body follows."""
        request = self._request
        request.setResponseCode(head.status, head.phrase)
        # The channel says so when it will close the connection after this response.
        closing = request.responseHeaders.getRawHeaders(b"connection")
        request.responseHeaders = head.headers
        request.defaultContentType = None
        if closing:
            head.headers.setRawHeaders(b"Connection", closing)
        if not head.headers.hasHeader(b"date"):
            head.headers.setRawHeaders(b"Date", [datetimeToString()])  # RFC 9110, section 6.6.1
        timing = self._timing.field()
        if timing is not None:
            head.headers.addRawHeader(b"Server-Timing", timing)
        if self._fields:
            self._fields.write_to(head.headers)

    def answer(self, head: ResponseHead, body: bytes) -> None:
        """Give the whole of an answer of the proxy's own."""
        if self.left:
            return
        if self._request.startedWriting:
            cut(self._request)  # too late for an answer
            return
        self.begin(head)
        self._request.write(body)
        self._request.finish()

    def _leave(self, _: Failure) -> None:
        self.left = True
        self._leaving()


def cut(request: Any) -> None:
    """Break off a response. An orderly close of the connection could look like the end of it."""
    request.transport.abortConnection()
