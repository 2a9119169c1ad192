"""
Matches: what a rule's criterion or a limit accepts, compiled once and asked for every request.

A match is a text, which the value must equal, or one of

- C{glob:a*}: C{*} is any text (slashes too), C{?} any character, C{[abc]} one of these;
- C{regexp:[a-z]+}: the regular expression must match the whole value;
- C{net:10.0.0.0/8}: the value must be an address in this network;
- C{text:glob:a*}: what follows, letter by letter, even if it looks like one of these;
- C{not:} before any of these: everything else, an absent value too.

Of a list, one entry must match and no C{not:} entry may stand against it: C{["glob:a*", "not:abc"]} is every text
that starts with C{a} but C{abc}; C{["not:a", "not:b"]} is everything but C{a} and C{b}.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

import attrs

from . import config
from .exchange.settable import decoded, encoded
from .networks import Network, network, parse_address

_NOT = "not:"
_TEXT = "text:"
_NET = "net:"

#: What people write for a prefix, remembered from other programs. A header or path that starts so is rare; and it can
#: still be written, as C{regexp:re:.*}.
_MISTAKEN = {
    "re": "regexp",
    "reg": "regexp",
    "regex": "regexp",
    "wildcard": "glob",
    "fnmatch": "glob",
    "network": "net",
    "cidr": "net",
}
_KINDS = ("glob", "regexp", "net", "not", "text")


@attrs.frozen
class _Alternatives:
    """Some texts, patterns and networks, of which a value may be any, or in any."""

    texts: frozenset[bytes]
    patterns: tuple[re.Pattern[str], ...]
    networks: tuple[Network, ...]

    def include(self, value: bytes) -> bool:
        """Whether the value is one of the texts, fits one of the patterns, or is in one of the networks."""
        if value in self.texts:
            return True
        if not self.patterns and not self.networks:
            return False
        text = decoded(value)
        return any(pattern.fullmatch(text) for pattern in self.patterns) or self._have(text)

    def _have(self, text: str) -> bool:
        address = parse_address(text) if self.networks else None
        return address is not None and any(address in each for each in self.networks)


@attrs.frozen
class CompiledMatch:
    """
    A match, ready to be asked.

    @ivar wanted: what the value must be one of; None if the match has C{not:} entries only.
    @ivar unwanted: what the value must not be.
    """

    wanted: _Alternatives | None
    unwanted: _Alternatives

    def matches(self, value: bytes | None) -> bool:
        """Whether the match accepts a value; None, an absent value, is accepted where all entries are C{not:}."""
        if value is None:
            return self.wanted is None
        if self.wanted is not None and not self.wanted.include(value):
            return False
        return not self.unwanted.include(value)


def compile_match(match: config.Match, *, ignore_case: bool = False) -> CompiledMatch:
    """
    Compile a match or a list of them.

    @param ignore_case: for values that have no case, such as a host.
    @raise ValueError: it can match nothing, or cannot be read; the message is one line, with the mend.
    """
    entries = [match] if isinstance(match, str) else match
    if not entries:
        raise ValueError("an empty list matches nothing; name what to match, or leave it out")
    wanted = [entry for entry in entries if not entry.startswith(_NOT)]
    unwanted = [entry.removeprefix(_NOT) for entry in entries if entry.startswith(_NOT)]
    if any(entry.startswith(_NOT) for entry in unwanted):
        raise ValueError('"not:not:" undoes itself; leave out both')
    return CompiledMatch(
        _alternatives(wanted, ignore_case) if wanted else None, _alternatives(unwanted, ignore_case)
    )


def literal(text: str) -> str:
    """The match that accepts a text and nothing else, whatever the text looks like."""
    try:
        plain = _expression(text) is None and not text.startswith((_NOT, _TEXT, _NET))
    except ValueError:
        plain = False
    return text if plain else _TEXT + text


def is_like_network(text: str) -> bool:
    """Whether somebody who writes this means a network, and not just this text."""
    address, slash, _ = text.partition("/")
    return bool(slash) and parse_address(address) is not None


def _alternatives(entries: Sequence[str], ignore_case: bool) -> _Alternatives:
    texts: set[bytes] = set()
    patterns: list[re.Pattern[str]] = []
    networks: list[Network] = []
    for entry in entries:
        if entry.startswith(_NET):
            networks.append(network(entry.removeprefix(_NET)))
            continue
        expression = _expression(entry)
        text = entry.removeprefix(_TEXT)
        if expression is None and not ignore_case:
            texts.add(encoded(text))
        else:
            patterns.append(_pattern(re.escape(text) if expression is None else expression, ignore_case))
    return _Alternatives(frozenset(texts), tuple(patterns), tuple(networks))


def _expression(entry: str) -> str | None:
    """The regular expression that an entry stands for; None if it is a plain text."""
    prefix, separator, rest = entry.partition(":")
    if is_like_network(entry):
        raise ValueError(
            f'"{entry}" is a network; write "{_NET}{entry}", or "{_TEXT}{entry}" for just this text'
        )
    if not separator:
        return None
    if prefix == "glob":
        return fnmatch.translate(rest)
    if prefix == "regexp":
        return rest
    lower = prefix.lower()
    meant = _MISTAKEN.get(lower) or (lower if lower in _KINDS else None)
    if meant is not None and prefix != "text":
        raise ValueError(f'"{prefix}:" is not a kind of match; write "{meant}:"')
    return None


def _pattern(expression: str, ignore_case: bool) -> re.Pattern[str]:
    try:
        return re.compile(expression, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression of Python: {error}; correct it") from None
