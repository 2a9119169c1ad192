"""
Rules: what the configuration changes on an exchange before its limits are looked at.

The rules are compiled once; each is some criteria, which must all hold, and what to do then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from .config import Config, Match, Rule, When
from .exchange import Exchange
from .limits import TOKEN, Key, check_distinct, compile_key
from .match import CompiledMatch, compile_match, encoded

#: What finds a value in an exchange, and what the value must be.
Criterion = tuple[Key, CompiledMatch]

#: What the connection to the backend decides for itself (RFC 9110, sections 7.6.1 and 8.6; RFC 9112, section 6): a
#: second one of these tells the backend another end of the request than the proxy means.
RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

#: RFC 9110, section 5.5: no control characters, and no white space at the ends.
_VALUE = re.compile(r"(?![ \t])[^\x00-\x08\x0a-\x1f\x7f]*(?<![ \t])")


class Rules:
    """The rules of a configuration, ready for each exchange."""

    def __init__(self, config: Config) -> None:
        """
        @raise ValueError: a rule that cannot be read.
        """
        self._rules = tuple(compile_rule(rule) for rule in config.rule)
        #: The names, in lower case, of the headers that are looked at or set.
        self.headers = frozenset(
            name.lower().encode()
            for rule in config.rule
            for name in (*rule.when.header, *rule.then.set_input_header)
        )

    def apply(self, exchange: Exchange) -> None:
        """
        Let every rule that matches change the exchange, in order, until one says C{stop}. A rule sees what those
        before it changed.
        """
        for rule in self._rules:
            if rule.matches(exchange):
                rule.change(exchange)
                if rule.stop:
                    return


@attrs.frozen
class CompiledRule:
    """
    One rule, ready for each exchange.

    @ivar criteria: all must hold.
    @ivar headers: the header fields that it sets.
    """

    criteria: tuple[Criterion, ...]
    priority: int | None
    backend: str | None
    headers: tuple[tuple[bytes, bytes], ...]
    status: int | None
    stop: bool

    def matches(self, exchange: Exchange) -> bool:
        """Whether all criteria hold for an exchange."""
        return all(match.matches(find(exchange)) for find, match in self.criteria)

    def change(self, exchange: Exchange) -> None:
        """Do to an exchange what the rule says."""
        if self.priority is not None:
            exchange.priority = self.priority
        if self.backend is not None:
            exchange.backend = self.backend
        if self.status is not None:
            exchange.status = self.status
        for name, value in self.headers:
            exchange.headers.setRawHeaders(name, [value])


def compile_rule(rule: Rule) -> CompiledRule:
    """
    Compile one rule.

    @raise ValueError: a match or a header that cannot be read.
    """
    return CompiledRule(
        criteria=tuple(
            (compile_key(key), compile_match(match, ignore_case=key == "host"))
            for _, key, match in criteria(rule.when)
        ),
        priority=rule.then.priority if isinstance(rule.then.priority, int) else None,
        backend=rule.then.backend,
        headers=tuple(compile_header(name, str(value)) for name, value in rule.then.set_input_header.items()),
        status=rule.then.set_status_code,
        stop=rule.stop,
    )


def criteria(when: When) -> Iterator[tuple[tuple[str, ...], str, Match]]:
    """What a rule looks at: the place in C{when}, the key as a limit would name it, and what its value must be."""
    plain = {"path": when.path, "method": when.method, "host": when.host, "client": when.client}
    for key, match in plain.items():
        if match is not None:
            yield (key,), key, match
    for name, match in when.header.items():
        yield ("header", name), f"header:{name}", match


def compile_header(name: str, value: str) -> tuple[bytes, bytes]:
    """
    Compile a header field that a rule sets.

    @raise ValueError: no header has such a name or value, or the proxy sets it itself.
    """
    if not TOKEN.fullmatch(name):
        raise ValueError("no header has such a name; use letters, digits and !#$%&'*+-.^_`|~ only")
    check_distinct(name)
    if name.lower() in RESERVED_HEADERS or name.lower().startswith("proxy-"):
        raise ValueError("this header is the connection's own, not the application's; leave it out")
    if not _VALUE.fullmatch(value):
        raise ValueError(
            "no header's value starts or ends with a blank or has control characters; remove them"
        )
    return name.encode("ascii"), encoded(value)
