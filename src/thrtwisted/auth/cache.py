"""
What is remembered of answers: which, for how long, and how many. Pure, for the time is an argument.

It is as careful as a cache that many users share has to be (RFC 9111). What it is keyed by stands for who is asking, so
that an answer to a question with C{Authorization} may be kept, which others may do only where they are told so.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection
from typing import Generic, TypeVar

import attrs
from twisted.web.http import stringToDatetime
from twisted.web.http_headers import Headers

from thrtwisted.grammar import list_elements

T = TypeVar("T")

#: What an answer may say of its age and of its end.
_SECONDS = re.compile(rb'([0-9]{1,10})|"([0-9]{1,10})"')
#: Directives that forbid to keep it for others, or to use it without asking again, be it for some of its fields only.
_FORBIDDING = frozenset((b"no-store", b"no-cache", b"private"))
#: What a service is always told, and the key in C{cache_by} that tells such questions apart. Of C{X-Forwarded-Uri} and
#: C{-Proto} no key has all.
TOLD_APART = {b"x-forwarded-method": "method", b"x-forwarded-host": "host", b"x-forwarded-for": "client"}


def lifetime(headers: Headers, longest: float, cache_by: Collection[str] = ()) -> float:
    """
    Seconds for which an answer holds, from the question on; 0 if it may not be used again.

    @param headers: of the answer.
    @param longest: what the configuration says.
    @param cache_by: what the cache is keyed by beside the headers that were sent along.
    """
    directives = _directives(headers)
    if directives.keys() & _FORBIDDING or headers.hasHeader(b"set-cookie"):
        return 0.0
    for name in list_elements(headers.getRawHeaders(b"vary") or ()):
        if name == b"*" or (name.startswith(b"x-forwarded-") and TOLD_APART.get(name) not in cache_by):
            return 0.0
    said = _lifetime(headers, directives)
    if said is None:
        return longest
    ages = [_seconds(value) for value in headers.getRawHeaders(b"age") or ()]
    return max(0.0, min(longest, said - max(ages, default=0)))


def _lifetime(headers: Headers, directives: dict[bytes, list[bytes]]) -> float | None:
    """What an answer says of its lifetime; None if nothing."""
    for directive in (b"s-maxage", b"max-age"):
        if directive in directives:
            # Nobody knows which of several is meant (RFC 9111, section 4.2.1).
            return min(_seconds(value) for value in directives[directive])
    expires, dates = headers.getRawHeaders(b"expires"), headers.getRawHeaders(b"date")
    if expires is None:
        return None
    try:
        # Its own clock is the one that counts.
        until = min(stringToDatetime(value) for value in expires)
        return float(until - max(stringToDatetime(value) for value in dates or ()))
    except (ValueError, IndexError, KeyError):
        return 0.0  # such as "0" (RFC 9111, section 5.3)


def _directives(headers: Headers) -> dict[bytes, list[bytes]]:
    """
    What Cache-Control says: each directive with its values.

    A list of names in quotes is taken apart, so that more may seem to be there than is: then the answer is not kept.
    """
    found: dict[bytes, list[bytes]] = {}
    for element in list_elements(headers.getRawHeaders(b"cache-control") or ()):
        name, _, value = element.partition(b"=")
        found.setdefault(name.strip(), []).append(value.strip())
    return found


def _seconds(value: bytes) -> int:
    """A number of seconds; 0 where that is none: for a lifetime the careful choice."""
    match = _SECONDS.fullmatch(value)
    return int(match[1] or match[2]) if match else 0


@attrs.frozen
class _Entry(Generic[T]):
    """
    What is remembered.

    @ivar since: when it was asked for (seconds).
    @ivar until: when it holds no more.
    """

    value: T
    since: float
    until: float


class Cache(Generic[T]):
    """
    Remembers values under keys, each for its time; of too many, the one not used for longest is forgotten.

    @param size: how many.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, _Entry[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> tuple[T, float] | None:
        """What is remembered, and for how long already (seconds); None if nothing is, or it holds no more."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        # A clock that was set back must not make it hold for longer.
        if not entry.since <= now < entry.until:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry.value, now - entry.since

    def put(self, key: bytes, value: T, since: float, until: float) -> None:
        """Remember a value, asked for then, until then."""
        self._entries[key] = _Entry(value, since, until)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
