"""Rates: from what a limit says, such as C{100/min}, to the interval between two requests that a gate counts by."""

from __future__ import annotations

import re
from difflib import get_close_matches

import attrs

from thrtwisted.config import Limit
from thrtwisted.gate import Rate

#: What a rate can be for (seconds).
UNITS = {"s": 1, "min": 60, "hour": 3600, "day": 86_400}

_WORDS = {"sec": "s", "second": "s", "minute": "min", "h": "hour", "d": "day"}

_RATE = re.compile(r"\s*([0-9]{1,12})\s*/\s*([a-z]+)\s*")

_MICROSECONDS = 1_000_000

#: The shortest interval (microseconds): what passes faster than this is no matter of rates.
SHORTEST = 100

#: Who waits is let go by timers, which are no more exact than this (microseconds). So as many may always go at once as
#: come in this time, or a rate of a thousand a second would be one of some hundreds.
EXACT = 10_000

#: The most time (microseconds) that one request, or a burst, may use up: as long as any time of the configuration.
LONGEST = 1_000_000 * _MICROSECONDS

_FORM = 'write "100/min", of s, min, hour or day'


@attrs.frozen
class Allowance:
    """
    How many requests in which time.

    @ivar number: requests.
    @ivar window: seconds.
    """

    number: int
    window: int

    @property
    def interval(self) -> int:
        """Microseconds between two requests, rounded so that they are never more than was said."""
        return -(-self.window * _MICROSECONDS // self.number)


def read_allowance(text: str) -> Allowance:
    """
    Read a rate.

    @raise ValueError: it is none; the message is one line, with the mend.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"not a rate; {_FORM}")
    number, word = int(found[1]), found[2]
    unit = _WORDS.get(word, word)
    if unit not in UNITS:
        raise ValueError(f'"{word}" is no time of a rate; {_mend(found[1], word)}')
    if not number:
        raise ValueError("a rate of 0 lets nobody pass; write 1 or more, or max_concurrent = 0 for nobody")
    allowance = Allowance(number, UNITS[unit])
    if allowance.number * SHORTEST > allowance.window * _MICROSECONDS:
        raise ValueError(
            f"more than {_MICROSECONDS // SHORTEST} in a second cannot be counted; lower it, or leave it out"
        )
    return allowance


def _mend(number: str, word: str) -> str:
    close = get_close_matches(word, [*UNITS, *_WORDS], 1)
    if word == "m" or not close:  # a month, to some
        return _FORM
    return f'did you mean "{number}/{_WORDS.get(close[0], close[0])}"?'


def compile_rate(limit: Limit) -> Rate | None:
    """
    The rate of a limit's counters, if it has one.

    @raise ValueError: it cannot be read, or its burst would last for too long; the message is one line, with the mend.
    """
    if limit.rate is None:
        return None
    interval = read_allowance(limit.rate).interval
    if limit.burst * interval > LONGEST:
        days = LONGEST // (_MICROSECONDS * UNITS["day"])
        raise ValueError(
            f"a burst of {limit.burst} would take more than {days} days to come back at this rate; "
            f"lower burst to {LONGEST // interval} or less"
        )
    burst = max(limit.burst, EXACT // interval) if limit.over == "wait" else limit.burst
    return Rate(interval, burst, limit.over, limit.demote_to)
