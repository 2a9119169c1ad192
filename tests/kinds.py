"""The ways in which a function of the user's can give what it makes of an exchange."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed

Function = Callable[[Any], Any]


def plain(make: Function) -> Function:
    """At once."""
    return make


def deferred(make: Function) -> Function:
    """By a Deferred that has fired already."""
    return lambda exchange: succeed(exchange).addCallback(make)


def generator(make: Function) -> Function:
    """By a function that C{inlineCallbacks} runs, and that waits."""

    @inlineCallbacks
    def wait(exchange: Any) -> Generator[Deferred[Any], Any, Any]:
        yield succeed(None)
        return make(exchange)

    return wait


def coroutine(make: Function) -> Function:
    """By a function that is C{async}, and waits."""

    async def wait(exchange: Any) -> Any:
        await succeed(None)
        return make(exchange)

    return wait


#: All of them.
KINDS = (plain, deferred, generator, coroutine)
