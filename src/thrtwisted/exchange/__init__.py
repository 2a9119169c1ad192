"""
The exchange: one client request and its response, on the way through the proxy.

This is what rules change and what keys and criteria look at. It knows neither the reactor nor the connection. Inside it
is bytes; C{request} and C{response} show it as text. The methods whose names begin with C{set_}, C{add_} and C{del_}
are the actions of rules; each takes a value as rules have it, and raises a L{ValueError} for what no message may have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, AnyStr

import attrs
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from . import settable
from .response import Response
from .settable import Text, decoded, encoded, unquoted
from .views import RequestView

if TYPE_CHECKING:
    from thrtwisted.forward.body import RequestBody

DEFAULT_PRIORITY = 50

#: THR's name of a queue that nobody serves, unless there is one of this name.
NO_QUEUE = "null"

#: What is said of a request's body, and not true of another one.
_OF_BODY = (b"content-digest", b"content-encoding", b"content-md5", b"digest", b"expect", b"repr-digest")

#: Reads a response's body, if it has no more than so many bytes.
Read = Callable[[int], Deferred[bytes]]

#: Fields of a header or arguments of a query, as a pair, a list of pairs or a table: a name, and one value or several.
Pair = tuple[Text, Text | list[Text]]
Fields = Pair | list[Pair] | Mapping[str, Text | list[Text]]


@attrs.define(eq=False)  # with slots, so that a name that there is not cannot be set in vain
class Exchange:
    """
    A client's request, with what the proxy has decided about it.

    @ivar method: the method, with the client's own letters.
    @ivar target: the request target, byte for byte as it will be sent to the backend (RFC 9112, section 3.2).
    @ivar headers: the request's header fields; rules change them before they are forwarded.
    @ivar client: the client's address: of the connection, or what a trusted proxy says; the empty string if it is not
        known, as on a unix socket.
    @ivar unserved: a rule has routed it to nobody: it is answered 404, unless another one routes it on.
    @ivar version: the protocol that the request came by.
    @ivar remote_ip: the address that the connection comes from; the empty string if it is not known.
    @ivar routes: the backends by the names that rules may route to.
    @ivar body: the request's; None as long as it has not come.
    @ivar answer: what the client is answered instead of forwarding, as it stands: no rule applies any more.
    @ivar matched: the rules that apply to the response.
    """

    method: bytes
    target: bytes
    headers: Headers
    client: str
    _backend: str
    _priority: int = DEFAULT_PRIORITY
    _status: int | None = None
    version: bytes = b"HTTP/1.1"
    remote_ip: str = ""
    routes: Mapping[str, str] = {}
    answer: tuple[ResponseHead, bytes] | None = None
    matched: tuple[Any, ...] = ()
    body: RequestBody | None = None
    unserved: bool = False
    _new_body: bytes | None = attrs.field(default=None, init=False)
    _received: tuple[ResponseHead, Read, bool] | None = attrs.field(default=None, init=False)
    _sent_as: bytes = attrs.field(default=b"", init=False)
    _request: RequestView | None = attrs.field(default=None, init=False)
    _response: Response | None = attrs.field(default=None, init=False)
    _values: dict[Any, Any] | None = attrs.field(default=None, init=False)

    @property
    def request(self) -> RequestView:
        """The request as text, for functions."""
        if self._request is None:
            self._request = RequestView(self)
        return self._request

    @property
    def response(self) -> Response:
        """The response as text, for functions."""
        if self._response is None:
            self._response = Response(self)
            if self._received is not None:
                self._response.begin(*self._received)
        return self._response

    @property
    def values(self) -> dict[Any, Any]:
        """Values that rules and functions keep with the exchange."""
        if self._values is None:
            self._values = {}
        return self._values

    @property
    def priority(self) -> int:
        """1 (best) to 99 (worst); of another number that is set the nearest."""
        return self._priority

    @priority.setter
    def priority(self, value: float | Text) -> None:
        self.set_input_priority(value)

    @property
    def backend(self) -> str:
        """The name of the backend to forward to; it can be set by one that routes to it, too."""
        return self._backend

    @backend.setter
    def backend(self, value: str) -> None:
        self.set_backend(value)

    @property
    def redis_queue(self) -> str:
        """THR's name of where the request goes: of the backend's queues the first, or its own name."""
        if self.unserved:
            return NO_QUEUE
        return next(
            (name for name, backend in self.routes.items() if backend == self._backend), self._backend
        )

    @redis_queue.setter
    def redis_queue(self, value: str) -> None:
        self.set_redis_queue(value)

    @property
    def redis_host(self) -> None:
        """Nothing, whatever is set: one Redis serves all exchanges, C{redis.url} says where it is."""

    @redis_host.setter
    def redis_host(self, value: object) -> None:
        pass

    redis_port = redis_uds = redis_host

    @property
    def status(self) -> int | None:
        """
        What a rule has set: answer with this status, without forwarding; once the response is there, instead of its
        own.
        """
        return self._status

    @status.setter
    def status(self, value: int | None) -> None:
        self._status = None if value is None else settable.status(value)

    @property
    def early_status(self) -> int | None:
        """The status that is answered without forwarding; None if it is to be forwarded."""
        return 404 if self.status is None and self.unserved else self.status

    @property
    def path(self) -> bytes:
        """The target's path, still percent-encoded."""
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """The target's query, still percent-encoded, without its C{?}."""
        return self.target.partition(b"?")[2]

    @property
    def host(self) -> bytes | None:
        """
        The C{Host} header in lower case, without the port; None without one.

        Nor does it have the dot that may end a name (RFC 3986, section 3.2.2): that is the same host.
        """
        value = self.header(b"host")
        if value is None:
            return None
        if value.startswith(b"["):
            return value.partition(b"]")[0].lower() + b"]"
        return value.partition(b":")[0].lower().removesuffix(b".")

    def header(self, name: AnyStr) -> AnyStr | None:
        """
        The value of a header; several of one name are joined as RFC 9110, section 5.3, says. None without one.

        @param name: as bytes or as text, which the value is, too.
        """
        values = self.headers.getRawHeaders(encoded(name))
        return _alike(b", ".join(values) if values else None, name)

    def cookie(self, name: AnyStr) -> AnyStr | None:
        """
        The value of the first cookie of this name (RFC 6265, section 4.2); None without one.

        @param name: as bytes or as text, which the value is, too.
        """
        wanted = encoded(name)
        for field in self.headers.getRawHeaders(b"cookie") or ():
            for pair in field.split(b";"):
                key, equals, value = pair.strip().partition(b"=")
                if equals and key == wanted:
                    return _alike(value.strip(b'"'), name)
        return None

    def query_argument(self, name: AnyStr) -> AnyStr | None:
        """
        The first query argument of this name, percent-decoded; None without one.

        @param name: as bytes or as text, which the value is, too.
        """
        wanted = encoded(name)
        for pair in self.query.split(b"&"):
            key, _, value = pair.partition(b"=")
            if pair and unquoted(key) == wanted:
                return _alike(unquoted(value), name)
        return None

    # What functions ask

    def get_method(self) -> str:
        """The method."""
        return decoded(self.method)

    def get_path(self) -> str:
        """The target's path, still percent-encoded."""
        return decoded(self.path)

    def get_remote_ip(self) -> str:
        """The address that the connection comes from; empty if it is not known."""
        return self.remote_ip

    def get_real_ip(self) -> str:
        """The client's address, as trusted proxies tell it; empty if it is not known."""
        return self.client

    def get_custom_value(self, key: Any, default: Any = None) -> Any:
        """A value that was kept with the exchange."""
        return self.values.get(key, default)

    # What rules do to the request

    def set_custom_value(self, key: Any, value: Any) -> None:
        """Keep a value with the exchange."""
        self.values[key] = value

    def del_custom_value(self, key: Any) -> None:
        """Keep a value no more, if there is one."""
        self.values.pop(key, None)

    def set_method(self, value: Text) -> None:
        """The method that the backend sees."""
        self.method = settable.method(value)
        if self.target == b"*" and self.method != b"OPTIONS":
            self.target = b"/"  # RFC 9112, section 3.2.4

    def set_path(self, value: Text) -> None:
        """The path that the backend sees; the query stays."""
        _, mark, query = self.target.partition(b"?")
        self.target = settable.path(value) + mark + query

    def set_query_string(self, value: Text) -> None:
        """The query that the backend sees; empty for none."""
        self._set_query(settable.query(value))

    def set_query_string_arg(self, value: Fields) -> None:
        """Query arguments in place of those of the same names. The others stay byte for byte."""
        for name, texts in settable.merged(settable.arguments(value)):
            self.del_query_string_arg(name)
            self._add_query(settable.argument(name, texts))

    def add_query_string_arg(self, value: Fields) -> None:
        """Query arguments beside those of the same names."""
        for name, texts in settable.arguments(value):
            self._add_query(settable.argument(name, texts))

    def del_query_string_arg(self, value: Text | list[Text]) -> None:
        """Take away the query arguments of a name, or of several. The others stay byte for byte."""
        names = {settable.encoded(name, "a query argument's name") for name in settable.listed(value)}
        arguments = self.query.split(b"&")
        left = [each for each in arguments if not each or settable.argument_name(each) not in names]
        if len(left) < len(arguments):
            self._set_query(b"&".join(left))

    def set_host(self, value: Text) -> None:
        """The Host header that the backend sees."""
        self.headers.setRawHeaders(b"host", [settable.host(value)])

    def set_remote_ip(self, value: Text) -> None:
        """The client's address, for the rules that follow and the limits."""
        self.remote_ip = self.client = settable.address(value)

    def set_input_header(self, value: Fields) -> None:
        """Header fields of the request, in place of those of the same names."""
        for name, values in settable.merged(settable.fields(value), ignore_case=True):
            if name.lower() == b"host":
                if len(values) != 1:
                    raise ValueError("a request has one Host; write one")
                values = [settable.host(values[0])]
            self.headers.setRawHeaders(name, values)

    def add_input_header(self, value: Fields) -> None:
        """Header fields of the request, beside those of the same names."""
        for name, values in settable.fields(value):
            if name.lower() == b"host":
                raise ValueError("a request has one Host; set it, with set_host")
            for text in values:
                self.headers.addRawHeader(name, text)

    def del_input_header(self, value: Text | list[Text]) -> None:
        """Take away the request's header fields of a name, or of several."""
        for name in settable.listed(value):
            self.headers.removeHeader(settable.header_name(name))

    def set_input_body(self, value: Text) -> None:
        """The request's body, in place of its own."""
        self._new_body = settable.encoded(value, "a body")
        if self.body is not None:
            self.take_body(self.body)

    def set_input_priority(self, value: float | Text) -> None:
        """The priority: of 1 (best) to 99 (worst) the nearest to a number."""
        self._priority = settable.priority(value)

    def set_backend(self, value: str) -> None:
        """The backend to forward to, by its name or one that routes to it."""
        found = self.routes.get(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"there is no backend or queue {value!r:.100}; add it, or correct the name")
        self._backend = found
        self.unserved = False

    def set_redis_queue(self, value: str) -> None:
        """The same as L{set_backend}; and C{null}, unless there is one of this name, for a 404."""
        if value == NO_QUEUE and value not in self.routes:
            self.unserved = True
        else:
            self.set_backend(value)

    def set_redis_host(self, value: object) -> None:
        """Nothing: one Redis serves all exchanges, C{redis.url} says where it is."""

    set_redis_port = set_redis_uds = set_redis_host

    # What rules do to the response

    def set_status_code(self, value: int) -> None:
        """Answer with this status: before the exchange is forwarded, without that."""
        self.response.status_code = value

    def set_output_header(self, value: Fields) -> None:
        """Header fields of the response, in place of those of the same names."""
        for name, texts in settable.merged(settable.fields(value, distinct=False), ignore_case=True):
            self.response.headers[name] = texts

    def add_output_header(self, value: Fields) -> None:
        """Header fields of the response, beside those of the same names."""
        for name, texts in settable.fields(value, distinct=False):
            for text in texts:
                self.response.headers.add(name, text)

    def del_output_header(self, value: Text | list[Text]) -> None:
        """Take away the response's header fields of a name, or of several."""
        for name in settable.listed(value):
            self.response.delete_header(name)

    def set_output_body(self, value: Text) -> None:
        """The response's body, in place of its own."""
        self.response.body = value

    def set_output_default_body(self, value: Text) -> None:
        """The response's body, if it is an answer of L{set_status_code}'s, or has none."""
        self.response.default_body = value

    # For the resource

    def input_body(self) -> bytes:
        """All of the request's body."""
        if self.body is not None:
            return self.body.read()
        return self._new_body or b""

    def take_body(self, body: RequestBody) -> None:
        """The request's body has come; a rule may have put another one in its place already."""
        self.body = body
        if self._new_body is None:
            return
        body.replace(self._new_body)
        for name in _OF_BODY:
            self.headers.removeHeader(name)
        if self._new_body or self.headers.hasHeader(b"content-length"):
            self.headers.setRawHeaders(b"content-length", [b"%d" % len(self._new_body)])
        self._new_body = None

    def received(
        self, head: ResponseHead, read: Read, *, proxys: bool = False, method: bytes | None = None
    ) -> None:
        """
        The response is there.

        @param read: reads its body, if that has no more than so many bytes.
        @param proxys: it is an answer of the proxy's own.
        @param method: what the backend saw; functions may have set another one meanwhile.
        """
        self._received = head, read, proxys
        self._sent_as = self.method if method is None else method
        if self._response is not None:
            self._response.begin(head, read, proxys)

    def finished(self, asked: bytes) -> tuple[ResponseHead, bytes | None]:
        """
        The head and the body to send to the client.

        @param asked: the client's own method.
        @return: the body is None where the response's own is to be sent.
        """
        assert self._received is not None
        head, _, proxys = self._received
        if self._response is None and (self._sent_as == asked or proxys):
            return head, None
        return self.response.finished(asked, asked if proxys else self._sent_as)

    def _add_query(self, added: bytes) -> None:
        query = self.query
        self._set_query(query + b"&" + added if query and added else query or added)

    def _set_query(self, query: bytes) -> None:
        path = self.path
        if path != b"*":  # the whole server, and nothing of it
            self.target = path + b"?" + query if query else path


def _alike(value: bytes | None, name: AnyStr) -> AnyStr | None:
    """A value as its name is, bytes or text."""
    if value is None or isinstance(name, bytes):
        return value
    return decoded(value)


@attrs.frozen
class ResponseHead:
    """
    The head of a backend's response, its hop-by-hop fields removed.

    @ivar length: bytes of the body as the backend announced them; None if it did not.
    """

    status: int
    phrase: bytes
    headers: Headers
    length: int | None
