"""
Functions of the user's that are called for an exchange, and waited for.

What they return may be a Deferred or a coroutine, of which nothing is taken for granted: it may fire late, never, or
after it was cancelled. Whoever waits here and is cancelled goes on at once.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Coroutine, Generator, Sequence
from difflib import get_close_matches
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError
from twisted.logger import Logger
from twisted.python.failure import Failure

from thrtwisted.exchange import Exchange
from thrtwisted.exchange.response import Response
from thrtwisted.exchange.views import RequestView
from thrtwisted.functions import GENERATOR, Function
from thrtwisted.structure import quoted

_log = Logger()


#: What functions look at and change, by the names that Python's errors have for it, as these say them.
_VIEWS = {kind.__name__: kind for kind in (Exchange, RequestView, Response)}
_NO_ATTRIBUTE = re.compile(r"'(\w+)' object has no attribute '(\w+)'")


class Abandoned(CancelledError):
    """Nobody waits any more. It is raised where functions are waited for, and by none of them."""


def mend(error: BaseException | None) -> str:
    """What was meant, where a function has used a name that the exchange or a view of it does not have."""
    said = _NO_ATTRIBUTE.match(str(error)) if isinstance(error, AttributeError) else None
    if said is None or said[1] not in _VIEWS:
        return ""
    close = get_close_matches(said[2], [name for name in dir(_VIEWS[said[1]]) if name[0] != "_"], 1)
    return f"; did you mean {quoted(close[0])}?" if close else ""


class Failed(Exception):
    """
    A function has failed.

    @ivar index: which one.
    @ivar failure: how.
    """

    def __init__(self, index: int, failure: Failure) -> None:
        super().__init__(index, failure)
        self.index = index
        self.failure = failure


def call(functions: Sequence[Function], exchange: object) -> list[Any]:
    """
    Call functions with an exchange.

    @return: what each has returned; where one has to be waited for, a Deferred that L{together} waits for.
    @raise Failed: one has raised an exception. The others are given up.
    """
    results: list[Any] = []
    for index, function in enumerate(functions):
        try:
            result = _result(function(exchange))
        except (Exception, SystemExit):  # sys.exit() too ends the function, and nothing else
            failure = Failure()
            give_up(results)
            raise Failed(index, failure) from None
        results.append(detached(result) if isinstance(result, Deferred) else result)
    return results


def _result(result: Any) -> Any:
    if isinstance(result, Deferred):
        return result
    if isinstance(result, Coroutine):
        return Deferred.fromCoroutine(result)
    if isinstance(result, Generator):
        raise TypeError(GENERATOR)
    if isinstance(result, Awaitable):
        raise TypeError(f"a {type(result).__name__} cannot be waited for; return a Deferred or a coroutine")
    return result


def waits(results: Sequence[Any]) -> bool:
    """Whether something of what was called has to be waited for."""
    return any(isinstance(result, Deferred) for result in results)


def together(results: list[Any]) -> Deferred[list[Any]]:
    """
    Wait for all that was called.

    @return: fires with the results. Errbacks with L{Failed} as soon as one fails, and the others are given up.
        Cancelling gives up all, and errbacks with L{Abandoned}.
    """
    places = [place for place, result in enumerate(results) if isinstance(result, Deferred)]
    waiting: Deferred[Any] = DeferredList(
        [results[place] for place in places], fireOnOneErrback=True, consumeErrors=True
    )

    def fired(pairs: Any) -> list[Any]:
        for place, (_, result) in zip(places, pairs, strict=True):
            results[place] = result
        return results

    def failed(failure: Failure) -> Any:
        failure.trap(FirstError)
        first: Any = failure.value
        give_up(results)
        if first.subFailure.check(Abandoned):
            raise first.subFailure.value
        raise Failed(places[first.index], first.subFailure)

    return waiting.addCallbacks(fired, failed)


def detached(waiting: Deferred[Any]) -> Deferred[Any]:
    """
    What fires as another Deferred, until it is cancelled: then it errbacks with L{Abandoned} at once, the other is
    cancelled too, and whatever becomes of that interests nobody.
    """

    def abandon(echo: Deferred[Any]) -> None:
        echo.errback(Abandoned())
        try:
            waiting.cancel()
        except Exception:
            _log.failure("A Deferred of a function could not be cancelled")

    echo: Deferred[Any] = Deferred(abandon)

    def pass_on(result: Any) -> Any:
        if not echo.called:
            echo.callback(result)
        if isinstance(result, Failure):
            waiting.addErrback(lambda _: None)  # when all have it who wait for the same
        return result

    waiting.addBoth(pass_on)
    return echo


def give_up(results: Sequence[Any]) -> None:
    """Wait no more for what was called."""
    for result in results:
        if isinstance(result, Deferred):
            result.addErrback(lambda _: None)
            result.cancel()
