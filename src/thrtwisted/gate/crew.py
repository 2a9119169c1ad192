"""
What fronts and workers ask of the gate: who serves which queue, who has taken what, and who is dead.

Questions ride in the gate's batches. One whose answer was lost is asked again, and so is one that was asked while Redis
was gone: all may be asked as often as one likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from thrtwisted.errors import GateUnavailable

from .places import word_of
from .questions import Questions

#: Seconds past the end of a lease after which it is asked whether it was renewed.
MARGIN = 0.01

_NEVER = math.inf


class Crew:
    """
    The workers of a namespace, as one of its processes knows them. All Deferreds wait while Redis is gone, and errback
    with L{GateUnavailable} when the gate stops.

    @param clock: tells the time.
    @param questions: asks.
    @param flush: called when there is something to ask.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, questions: Questions, flush: Callable[[], None]) -> None:
        self._clock = clock
        self._questions = questions
        self._flush = flush
        #: What this process serves: concurrency and queues. None if it is no worker.
        self._serving: list[Any] | None = None
        self._saying = False
        self._watched: dict[str, list[Callable[[], None]]] = {}
        #: When the leases of owners may end, as far as was heard (seconds); and of whom it is being asked.
        self._ends: dict[str, float] = {}
        self._asking: set[str] = set()
        self._timer: IDelayedCall | None = None
        self._stopped = False

    # Workers ---------------------------------------------------------------------------------------------------

    def serve(self, concurrency: int, queues: Sequence[str]) -> Deferred[int]:
        """
        This process is a worker with so many places, for tickets of these queues. It is said again, by itself, with
        each heartbeat and whenever Redis may have forgotten it. May be called again at any time.

        @param concurrency: how many places; with 0 it takes nothing new.
        @return: fires with the number of tickets that have a place at it, whether it has taken them or not, and whether
            their front is alive or not.
        """
        self._serving = [concurrency, *(word_of(queue) for queue in queues)]
        return self._ask("serve", *self._serving).addCallback(self._served)

    def take(self, front: str, serial: int) -> Deferred[bool]:
        """
        This process is about to begin what a ticket was admitted for.

        @return: fires with whether it may. It must not if the ticket has no place at it, any more.
        """
        return self._ask("take", front, serial).addCallback(bool)

    def inherit(self, front: str, serials: Callable[[], Iterable[int]]) -> Deferred[bool]:
        """
        Of a dead front's tickets, this process is at work only on some still: the slots of the others are free. Those
        of a front that nobody here watches are given back by themselves, within a heartbeat.

        @param serials: called whenever it is asked, which may be again, and late: those that it is at work on then.
        @return: fires with whether the front is dead; if it is not, it gives its slots back itself.
        """
        return self._ask("inherit", front, latest=serials).addCallback(bool)

    def served(self, queues: Iterable[str]) -> Deferred[dict[str, int]]:
        """
        @return: fires with how many places living workers have for each of the queues, taken ones too. In grace that
            cannot be told: it waits for the end of it.
        """
        asked = list(queues)
        words = (word_of(queue) for queue in asked)
        return self._ask("served", *words).addCallback(lambda places: dict(zip(asked, places, strict=True)))

    def _served(self, answer: list[Any]) -> int:
        count, *fronts = answer
        for front in fronts:
            if front not in self._watched:  # nothing of it is at work here
                _ignore(self.inherit(front, tuple))
            # It may be back already, so that nobody would be told of its death; and without what it has left here.
            self._tell_watchers(front)
        return int(count)

    # Deaths ----------------------------------------------------------------------------------------------------

    def watch(self, owner: str, lost: Callable[[], None]) -> Callable[[], None]:
        """
        Be told of another process's death. Nothing is judged while Redis is gone, or has lost its memory.

        @param lost: called once, when the lease of that owner has run out by Redis's clock, or it has said goodbye. It
            may be alive again: L{inherit} tells.
        @return: ends the watch; may be called more than once. Until then this process counts as at work on what that
            owner has sent, though it is dead.
        """
        watching = [lost]  # a list of its own: the same function may watch twice

        def told() -> None:
            if watching:
                watching.pop()()

        def end() -> None:
            watching.clear()
            watchers = self._watched.get(owner, [])
            if told in watchers:
                watchers.remove(told)
                if not watchers:
                    del self._watched[owner]

        self._watched.setdefault(owner, []).append(told)
        self._look_after([owner])
        return end

    def _look_after(self, owners: Iterable[str]) -> None:
        """Ask how long owners live of whom that is not known; and see that it is asked when it may be over."""
        now = self._clock.seconds()
        unknown = [
            owner for owner in owners if owner not in self._asking and self._ends.get(owner, now) <= now
        ]
        self._ask_after(unknown)
        self._plan()

    def _ask_after(self, owners: Sequence[str]) -> None:
        if not owners or self._stopped:
            return
        self._asking.update(owners)

        def told(lives: list[int]) -> None:
            self._asking.difference_update(owners)
            self._told(dict(zip(owners, lives, strict=True)))

        _ignore(self._ask("peers", *owners).addCallback(told))

    def _told(self, lives: dict[str, int]) -> None:
        """How long owners live (ms): 0 if they are dead, -1 if that cannot be told yet."""
        now = self._clock.seconds()
        self._ends = {owner: end for owner, end in self._ends.items() if end > now or owner in self._watched}
        for owner, left in lives.items():
            if left:
                # One of whom it is not known is asked for with the heartbeat, and when the grace is over.
                self._ends[owner] = now + left / 1000 + MARGIN if left > 0 else _NEVER
        for owner in [owner for owner, left in lives.items() if not left]:
            self._ends.pop(owner, None)
            self._tell_watchers(owner)
        self._plan()

    def _tell_watchers(self, owner: str) -> None:
        """Tell all who watch an owner of its death."""
        for lost in list(self._watched.get(owner, ())):
            try:
                lost()
            except Exception:  # others watch, too
                self._log.failure("The death of another process could not be handled")

    def _plan(self) -> None:
        """Have a timer for the first of the watched who may be dead. One that comes earlier does no harm."""
        ends = [
            self._ends[owner] for owner in self._watched if owner in self._ends and owner not in self._asking
        ]
        first = _NEVER if self._stopped else min(ends, default=_NEVER)
        if self._timer is not None:
            if self._timer.getTime() <= first < _NEVER:
                return
            self._timer.cancel()
        self._timer = None
        if first < _NEVER:
            self._timer = self._clock.callLater(max(0.0, first - self._clock.seconds()), self._look)

    def _look(self) -> None:
        self._timer = None
        self._look_after(list(self._watched))

    # The gate's side -------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """With a heartbeat: what is to be asked then, once more. The gate sends it."""
        self._questions.resume()
        self.say_again()
        self._ask_after([owner for owner in self._watched if owner not in self._asking])

    def say_again(self) -> None:
        """Redis may have forgotten that this process is a worker."""
        if self._serving is None or self._saying or self._stopped:
            return
        self._saying = True

        def said(answer: Any) -> Any:
            self._saying = False
            return answer

        question = self._questions.ask("serve", *self._serving)
        _ignore(question.addBoth(said).addCallback(self._served))

    def stop(self) -> None:
        """Ask nothing any more, and have no timer."""
        self._stopped = True
        self._plan()
        self._watched.clear()

    def _ask(self, *words: Any, latest: Callable[[], Iterable[Any]] = tuple) -> Deferred[Any]:
        answer = self._questions.ask(*words, latest=latest)
        self._flush()
        return answer


def _ignore(answer: Deferred[Any]) -> None:
    """Nobody needs to be told, if the gate stops."""

    def stopped(failure: Failure) -> None:
        failure.trap(GateUnavailable)

    answer.addErrback(stopped)
