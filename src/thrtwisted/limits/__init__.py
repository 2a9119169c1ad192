"""
Limits: from an exchange to the counters that it needs slots of.

The limits are compiled once, when the configuration is read; what is left for each request is a look-up.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from thrtwisted.config import Config, Limit
from thrtwisted.exchange import Exchange
from thrtwisted.exchange.settable import encoded
from thrtwisted.functions import found, imported, name_of, plain
from thrtwisted.gate import UNLIMITED, Counter, Rate, printable
from thrtwisted.keys import FORMS, Key, compile_key, headers_of
from thrtwisted.match import CompiledMatch, compile_match

from .rate import LONGEST, compile_rate
from .ratelimit import Policies

Weight = Callable[[Exchange], int]

#: The turn of those that lack the key of C{queue.fair}: no value's, for these begin with an equals sign.
_NOBODY = "-"


class Limits:
    """The limits of a configuration, ready for each exchange."""

    def __init__(self, config: Config) -> None:
        """
        @raise ValueError: a limit that cannot be read, or two of one name.
        """
        self._limits = tuple(compile_limit(limit) for limit in config.limit)
        self._fair = None if config.queue.fair is None else compile_key(config.queue.fair)
        #: The names, in lower case, of the headers that are keys.
        self.headers = headers_of([*(limit.key for limit in config.limit), config.queue.fair])
        #: What responses tell of the limits.
        self.policies = Policies(config.limit)
        if len({limit.name for limit in self._limits}) < len(self._limits):
            raise ValueError("two limits have the same name; give each its own")
        self._backends = {
            # A limit's name has no colon, so that a backend's counter cannot be a limit's.
            name: Counter.of(f"backend:{name}", backend.max_concurrent)
            for name, backend in config.backend.items()
            if backend.max_concurrent is not None
        }

    def counters(self, exchange: Exchange) -> tuple[Counter, ...]:
        """
        The counters that an exchange needs slots of, no counter twice: those of the limits that apply, in the
        configuration's order, then its backend's.

        @raise RuleFailed: a key or weight function of the configuration raised an exception, or returned what is none;
            that is logged.
        """
        counters = [counter for limit in self._limits if (counter := limit.counter(exchange)) is not None]
        backend = self._backends.get(exchange.backend)
        if backend is not None:
            counters.append(backend)
        return tuple(counters)

    def fair(self, exchange: Exchange) -> str | None:
        """
        With whom an exchange takes turns, as L{thrtwisted.gate.Ticket} has it; None if all go as they come.

        @raise RuleFailed: as L{counters}.
        """
        if self._fair is None:
            return None
        value = found("The key function of queue.fair", self._fair, exchange)
        return _NOBODY if value is None else f"={printable(value)}"


@attrs.frozen
class CompiledLimit:
    """
    One limit, ready to be asked.

    @ivar key: finds the key value of an exchange; None if the limit applies to every request.
    @ivar match: which key values the limit applies to; None for all.
    @ivar default: the key value of an exchange that lacks it.
    @ivar weight: how many slots an exchange takes.
    @ivar heaviest: what counts as no heavier than this.
    @ivar max_waiting: how many tickets may wait for one counter; None for no bound.
    @ivar rate: how many in a time; None for any number.
    @ivar shown: whether responses tell what is left.
    """

    name: str
    max_concurrent: int
    key: Key | None
    match: CompiledMatch | None
    default: bytes | None
    weight: Weight
    heaviest: int
    max_waiting: int | None
    rate: Rate | None
    shown: bool

    def counter(self, exchange: Exchange) -> Counter | None:
        """The counter that an exchange needs slots of; None where the limit does not apply."""
        if self.key is None:
            return self._counter(exchange, None)
        value = found(f"The key function of limit {self.name}", self.key, exchange)
        if value is None:
            value = self.default
        if value is None:
            return None
        if self.match is None:
            return self._counter(exchange, value)
        return self._counter(exchange, None) if self.match.matches(value) else None

    def _counter(self, exchange: Exchange, value: bytes | None) -> Counter:
        # Heavier than the limit is as heavy as the limit: so lanes, which weights keep apart, do not get many.
        weight = found(f"The weight function of limit {self.name}", self.weight, exchange)
        return Counter.of(
            self.name,
            self.max_concurrent,
            value,
            min(weight, self.heaviest),
            self.max_waiting,
            self.rate,
            self.shown,
        )


def compile_limit(limit: Limit) -> CompiledLimit:
    """
    Compile one limit.

    @raise ValueError: its key, its match, its weight or its rate cannot be read.
    """
    if limit.key is None and (limit.match is not None or limit.default is not None):
        raise ValueError("match and default say nothing without a key; add a key, or leave them out")
    slots = UNLIMITED if limit.max_concurrent is None else limit.max_concurrent
    rate = compile_rate(limit)
    return CompiledLimit(
        name=limit.name,
        max_concurrent=slots,
        key=None if limit.key is None else compile_key(limit.key),
        match=None if limit.match is None else compile_match(limit.match, ignore_case=limit.key == "host"),
        default=None if limit.default is None else encoded(limit.default),
        weight=compile_weight(limit.weight),
        heaviest=max(1, min(slots, UNLIMITED if rate is None else LONGEST // rate.interval)),
        max_waiting=limit.max_waiting,
        rate=rate,
        shown=limit.headers,
    )


def compile_weight(weight: int | str | Callable[[Exchange], object]) -> Weight:
    """
    Compile a limit's weight to what finds it for an exchange.

    @param weight: as the configuration has it, or a program's function.
    @raise ValueError: it is no weight, or its function cannot be imported or waits; the message is one line, with the
        mend.
    """
    if isinstance(weight, int):
        return lambda exchange: weight
    if isinstance(weight, str):
        kind, _, name = weight.partition(":")
        if kind != "python":
            raise ValueError(
                f"not a weight; write a whole number from 1, without quotes, or {FORMS['python']}"
            )
        function = imported(name, plain=True)
    else:
        function, name = plain(weight), name_of(weight)

    def find(exchange: Exchange) -> int:
        found = function(exchange)
        if not isinstance(found, int) or isinstance(found, bool):
            raise TypeError(f"{name} returned {type(found).__name__}, not int")
        if found < 1:
            raise ValueError(f"{name} returned {found}, not 1 or more")
        return found

    return find
