"""
Operations that have an answer. Pure: batches take them along, and replies answer them.

Until it has its answer, a question is asked again: so it is one that may be asked twice. Some answers are put off, for
in grace not everything can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from thrtwisted.errors import GateUnavailable

#: The answer that cannot be given yet.
_NOT_YET = -1


@attrs.define(eq=False)
class _Question:
    """
    @ivar words: the operation, but for those of its words that are looked up whenever it is asked.
    @ivar latest: looks these up.
    @ivar told: fires with the answer. Whoever cancels it does not need it any more.
    """

    words: list[Any]
    latest: Callable[[], Iterable[Any]]
    told: Deferred[Any]


class Questions:
    """What this process is yet to be told."""

    def __init__(self) -> None:
        self._pending: list[_Question] = []
        self._asked: list[_Question] = []
        self._put_off: list[_Question] = []
        self._stopped = False

    def __len__(self) -> int:
        """How many are to be asked."""
        return len(self._pending)

    def ask(self, *words: Any, latest: Callable[[], Iterable[Any]] = tuple) -> Deferred[Any]:
        """
        Ask in the next batch.

        @param latest: called whenever it is asked: more words, as they are then.
        @return: fires with the answer; errbacks with L{GateUnavailable} after L{stop}. Cancelling withdraws the
            question: if it is under way, it may still be done.
        """
        question = _Question(list(words), latest, Deferred(lambda _: self._forget(question)))
        if self._stopped:
            question.told.errback(GateUnavailable.stopping())
        else:
            self._pending.append(question)
        return question.told

    def next(self, most: int) -> list[list[Any]]:
        """
        The operations that the next batch takes along.

        @param most: how many there may be.
        """
        self._asked, self._pending = self._pending[:most], self._pending[most:]
        return [[*question.words, *question.latest()] for question in self._asked]

    def answered(self, answers: list[Any]) -> None:
        """The batch is done, and these are the answers, in order."""
        asked, self._asked = self._asked, []
        for question, answer in zip(asked, answers, strict=True):
            if question.told.called:
                continue
            if answer == _NOT_YET:
                self._put_off.append(question)
            else:
                question.told.callback(answer)

    def unanswered(self) -> None:
        """The batch may not have been done."""
        asked, self._asked = self._asked, []
        self._pending[:0] = [question for question in asked if not question.told.called]

    def resume(self) -> None:
        """Ask again what was put off."""
        put_off, self._put_off = self._put_off, []
        self._pending += put_off

    def stop(self) -> None:
        """Nothing is answered any more."""
        self._stopped = True
        questions = [*self._asked, *self._pending, *self._put_off]
        self._asked, self._pending, self._put_off = [], [], []
        for question in questions:
            if not question.told.called:
                question.told.errback(GateUnavailable.stopping())

    def _forget(self, question: _Question) -> None:
        # One that is under way stays, for answers come in order.
        for questions in (self._pending, self._put_off):
            if question in questions:
                questions.remove(question)
