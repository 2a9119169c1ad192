"""Work that several wait for, done once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


@attrs.define(eq=False)
class _Work(Generic[T]):
    """
    What is under way.

    @ivar done: what does it; None until it has begun.
    @ivar waiting: who waits for it.
    """

    done: Deferred[T] | None = None
    waiting: list[Deferred[T]] = attrs.Factory(list)


class Shared(Generic[T]):
    """
    Does what is asked for under a key once, as long as it is under way.

    Who waits may leave, the one who asked first as well; when nobody waits any more the work is cancelled.
    """

    def __init__(self) -> None:
        self._under_way: dict[bytes, _Work[T]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def ask(self, key: bytes, begin: Callable[[], Deferred[T]]) -> Deferred[T]:
        """
        Wait for what is under way under this key, or begin it.

        @return: fires or errbacks as the Deferred that C{begin} returned, for each who waits. Cancelling leaves.
        """
        work = self._under_way.get(key)
        if work is not None:
            return self._join(key, work)
        work = self._under_way[key] = _Work()
        waiting = self._join(key, work)
        work.done = begin()
        work.done.addBoth(lambda result: self._end(key, work, result))
        return waiting

    def _join(self, key: bytes, work: _Work[T]) -> Deferred[T]:
        waiting: Deferred[T] = Deferred(lambda _: self._leave(key, work, waiting))
        work.waiting.append(waiting)
        return waiting

    def _leave(self, key: bytes, work: _Work[T], waiting: Deferred[T]) -> None:
        work.waiting.remove(waiting)
        if not work.waiting and work.done is not None:
            self._forget(key, work)
            work.done.cancel()

    def _end(self, key: bytes, work: _Work[T], result: T | Failure) -> None:
        self._forget(key, work)
        while work.waiting:
            # One may make another leave.
            work.waiting.pop(0).callback(result)

    def _forget(self, key: bytes, work: _Work[T]) -> None:
        if self._under_way.get(key) is work:
            del self._under_way[key]
