"""
A request as functions of rules see it: as text, by the names that Tornado has for its parts.

Nothing is kept here: what is read comes from the exchange, and what is set goes there. Text and bytes are turned into
each other without loss, also where a client has sent no UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType
from typing import TYPE_CHECKING

from twisted.web.http_headers import Headers

from . import settable
from .settable import Text, argument, decoded, encoded, header_name, header_value, header_values, unquoted

if TYPE_CHECKING:
    from . import Exchange


#: A body that is arguments like a query's.
_FORM = "application/x-www-form-urlencoded"


class TextHeaders(MutableMapping[str, str]):
    """
    Header fields as text, by names that have no case. Several fields of one name are one list (RFC 9110, 5.3).

    A value that is set replaces all fields of its name. What no message may have is refused with a L{ValueError}.
    """

    def __init__(
        self,
        headers: Headers,
        *,
        distinct: bool = True,
        changed: Callable[[bytes, bool], object] = lambda name, anew: None,
    ) -> None:
        """
        @param distinct: of a request, whose names applications have to tell from each other.
        @param changed: called with each name that is set or added, in lower case, and whether it was set.
        """
        self._headers = headers
        self._distinct = distinct
        self._changed = changed

    def __repr__(self) -> str:
        return repr(dict(self))

    def __getitem__(self, name: str) -> str:
        values = self.get_list(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __setitem__(self, name: Text, value: Text | Sequence[Text]) -> None:
        field, values = self._name(name), header_values(value)
        self._headers.setRawHeaders(field, values)
        self._changed(field.lower(), True)

    def __delitem__(self, name: str) -> None:
        field = self._name(name)
        if not self._headers.hasHeader(field):
            raise KeyError(name)
        self._headers.removeHeader(field)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._headers.hasHeader(encoded(name))

    def __iter__(self) -> Iterator[str]:
        return iter([decoded(name) for name, _ in self._headers.getAllRawHeaders()])

    def __len__(self) -> int:
        return len(list(self._headers.getAllRawHeaders()))

    def get_list(self, name: str) -> list[str]:
        """The values of all fields of a name."""
        return [decoded(value) for value in self._headers.getRawHeaders(encoded(name)) or ()]

    def get_all(self) -> Iterator[tuple[str, str]]:
        """All fields, each with its name and its value."""
        for name, values in list(self._headers.getAllRawHeaders()):
            for value in values:
                yield decoded(name), decoded(value)

    def add(self, name: Text, value: Text) -> None:
        """Add a field beside those of the same name."""
        field = self._name(name)
        self._headers.addRawHeader(field, header_value(value))
        self._changed(field.lower(), False)

    def _name(self, name: Text) -> bytes:
        return header_name(name, distinct=self._distinct)


class QueryArguments(MutableMapping[str, list[bytes]]):
    """
    The arguments of a query, decoded: names, each with a list of values. One that is set or deleted is so in the
    target; the others stay there byte for byte.
    """

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __repr__(self) -> str:
        return repr(self._found())

    def __getitem__(self, name: str) -> list[bytes]:
        return self._found()[name]

    def __setitem__(self, name: Text, values: Text | list[Text]) -> None:  # type: ignore[override]
        self._exchange.set_query_string_arg((name, values))

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._exchange.del_query_string_arg(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())

    def _found(self) -> dict[str, list[bytes]]:
        return parsed(self._exchange.query)


def parsed(query: bytes) -> dict[str, list[bytes]]:
    """The values of arguments by their names, decoded."""
    found: dict[str, list[bytes]] = {}
    for pair in filter(None, query.split(b"&")):
        name, _, value = pair.partition(b"=")
        found.setdefault(decoded(unquoted(name)), []).append(unquoted(value))
    return found


class RequestView:
    """The request of an exchange, as text."""

    __slots__ = ("_exchange", "_headers")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._headers = TextHeaders(exchange.headers)

    @property
    def headers(self) -> TextHeaders:
        """The header fields."""
        return self._headers

    @property
    def method(self) -> str:
        """The method, with the client's own letters."""
        return decoded(self._exchange.method)

    @method.setter
    def method(self, value: Text) -> None:
        self._exchange.set_method(value)

    @property
    def uri(self) -> str:
        """The target, path and query, as it will be sent to the backend."""
        return decoded(self._exchange.target)

    @uri.setter
    def uri(self, value: Text) -> None:
        path, mark, query = encoded(value, "a target").partition(b"?")
        self._exchange.target = settable.path(path) + mark + settable.query(query)

    @property
    def path(self) -> str:
        """The target's path, still percent-encoded."""
        return decoded(self._exchange.path)

    @path.setter
    def path(self, value: Text) -> None:
        self._exchange.set_path(value)

    @property
    def query(self) -> str:
        """The target's query, still percent-encoded, without its C{?}."""
        return decoded(self._exchange.query)

    @query.setter
    def query(self, value: Text) -> None:
        self._exchange.set_query_string(value)

    @property
    def query_arguments(self) -> QueryArguments:
        """
        The values of the query's arguments by their names, decoded. Names can be set and deleted, and all be replaced;
        the lists are copies.
        """
        return QueryArguments(self._exchange)

    @query_arguments.setter
    def query_arguments(self, value: Mapping[str, Text | list[Text]]) -> None:
        self._exchange.set_query_string(b"&".join(filter(None, (argument(*pair) for pair in value.items()))))

    @property
    def arguments(self) -> Mapping[str, list[bytes]]:
        """The values of the query's arguments, and of those of a form in the body, as Tornado has them; to be read."""
        found = parsed(self._exchange.query)
        if (self._exchange.header("content-type") or "").partition(";")[0].strip().lower() == _FORM:
            for name, values in parsed(self.body).items():
                found.setdefault(name, []).extend(values)
        return MappingProxyType(found)

    @property
    def cookies(self) -> SimpleCookie:
        """The cookies, as Tornado has them: C{cookies["NAME"].value}; to be read."""
        found = SimpleCookie()
        for field in self.headers.get_list("cookie"):
            for pair in field.split(";"):
                name, equals, value = pair.strip().partition("=")
                try:
                    if equals and name not in found:
                        found[name] = value.strip('"')
                except CookieError:
                    continue  # a name that browsers send, and the library does not know
        return found

    @property
    def version(self) -> str:
        """The protocol that it came by, such as C{HTTP/1.1}."""
        return decoded(self._exchange.version)

    @property
    def protocol(self) -> str:
        """C{http} or C{https}, as the client, or a trusted proxy, says it."""
        return decoded(self._exchange.header(b"x-forwarded-proto") or b"http")

    @property
    def url(self) -> str:
        """The whole URL: what C{request.url} was for THR's hash functions."""
        return f"{self.protocol}://{self.host}{self.uri}"

    def full_url(self) -> str:
        """The same as C{url}, by the name that Tornado has for it."""
        return self.url

    @property
    def host(self) -> str:
        """The C{Host} header, with the port if it has one; empty without one."""
        return decoded(self._exchange.header(b"host") or b"")

    @host.setter
    def host(self, value: Text) -> None:
        self._exchange.set_host(value)

    @property
    def remote_ip(self) -> str:
        """The address that the connection comes from; empty if it is not known, as on a unix socket."""
        return self._exchange.remote_ip

    @remote_ip.setter
    def remote_ip(self, value: Text) -> None:
        self._exchange.set_remote_ip(value)

    @property
    def body(self) -> bytes:
        """The body: all of it is read into memory, each time."""
        return self._exchange.input_body()

    @body.setter
    def body(self, value: Text) -> None:
        self._exchange.set_input_body(value)
