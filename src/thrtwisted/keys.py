"""
Keys: what finds a value in an exchange, of limits, rules, services and turns.

A key is compiled once, when the configuration is read; what is left for each request is a look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from thrtwisted.exchange import Exchange
from thrtwisted.exchange.settable import check_distinct, encoded
from thrtwisted.forward.headers import is_hop_by_hop
from thrtwisted.functions import imported, name_of, plain
from thrtwisted.grammar import is_token

Key = Callable[[Exchange], bytes | None]

_HEADER = "header:"


def compile_key(key: str | Callable[[Exchange], object]) -> Key:
    """
    Compile a key to what finds its value in an exchange; None where the exchange lacks it.

    @param key: as the configuration has it, or a program's function.
    @raise ValueError: there is no such kind of key, or its function cannot be imported or waits; the message is one
        line, with the mend.
    """
    if not isinstance(key, str):
        return _key_of(plain(key), name_of(key))
    kind, separator, name = key.partition(":")
    if kind in _NAMED and name:
        return _NAMED[kind](name)
    if kind in _NAMED:
        raise ValueError(f'"{kind}" lacks its name; write {FORMS[kind]}')
    if kind in _PLAIN and not separator:
        return _PLAIN[kind]
    if kind in _PLAIN:
        raise ValueError(f'"{kind}" takes no name; write "{kind}"')
    close = get_close_matches(kind.lower(), FORMS, 1)
    mend = f"did you mean {FORMS[close[0]]}?" if close else f"write one of {', '.join(FORMS.values())}"
    raise ValueError(f'unknown key "{kind}"; {mend}')


def headers_of(keys: Iterable[object]) -> frozenset[bytes]:
    """The names, in lower case, of the headers that keys look at."""
    return frozenset(
        key.removeprefix(_HEADER).lower().encode()
        for key in keys
        if isinstance(key, str) and key.startswith(_HEADER)
    )


def _header(name: str) -> Key:
    field = _token(name, "header")
    check_distinct(name)
    if is_hop_by_hop(field):
        raise ValueError(
            f'the header "{name}" is the connection\'s own, and taken away before anything looks at it; name another'
        )
    return lambda exchange: exchange.header(field)


def _cookie(name: str) -> Key:
    cookie = _token(name, "cookie")
    return lambda exchange: exchange.cookie(cookie)


def _query(name: str) -> Key:
    argument = encoded(name)
    return lambda exchange: exchange.query_argument(argument)


def _token(name: str, kind: str) -> bytes:
    if not (name.isascii() and is_token(name.encode())):
        raise ValueError(f"the name of a {kind} has letters, digits and !#$%&'*+-.^_`|~ only; correct it")
    return name.encode("ascii")


def _function(name: str) -> Key:
    """The key that a function of the user's computes."""
    return _key_of(imported(name, plain=True), name)


def _key_of(function: Callable[[Exchange], object], name: str) -> Key:
    """The key that a function computes; what it returns is checked each time."""

    def key(exchange: Exchange) -> bytes | None:
        value = function(exchange)
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if value is None or isinstance(value, bytes):
            return value
        raise TypeError(f"{name} returned {type(value).__name__}, not str, bytes or None")

    return key


def _client(exchange: Exchange) -> bytes | None:
    """The client's address; a client on a unix socket has none."""
    return encoded(exchange.client) or None


_NAMED: dict[str, Callable[[str], Key]] = {
    "header": _header,
    "cookie": _cookie,
    "query": _query,
    "python": _function,
}

_PLAIN: dict[str, Key] = {
    "path": lambda exchange: exchange.path,
    "method": lambda exchange: exchange.method,
    "host": lambda exchange: exchange.host,
    "client": _client,
    "remote_ip": lambda exchange: encoded(exchange.remote_ip) or None,
}

#: How each kind of key is written.
FORMS = {
    "header": '"header:NAME"',
    "cookie": '"cookie:NAME"',
    "query": '"query:NAME"',
    "path": '"path"',
    "method": '"method"',
    "host": '"host"',
    "client": '"client"',
    "remote_ip": '"remote_ip"',
    "python": '"python:module:function"',
}
