"""
Turns: of equal priorities, the tickets of one key do not stand before those of others. Pure.

This is start-time fair queueing (Goyal, Vin and Cheng, 1996), where each ticket is as long as any other. A ticket that
has to wait takes a I{turn}, a number; who has the lowest goes first, and of the same turn the earliest. A key's tickets
have turns one after the other; the first of a key that has none waiting has the turn that is being served. So if one
user has 500 tickets waiting, another's first comes after one of them, not after all.

Which turn is being served is known for each counter and each priority, its I{level}: the highest turn of those who were
let go from there. One level for all would be driven by the counter that is served fastest; and a newcomer at a slow one
would take a turn that comes after those of all who wait there. So a ticket takes the lowest of the turns that its
counters offer. Where nobody waits there is no level; then it takes that of whoever was served last anywhere.

As a turn is part of a ticket's order, which does not change while it waits, everything else is as without: lanes, where
they are parked, and that priority comes first.

What is known goes by itself: a key's next turn when its counter's level has passed it, for then it is that of a key
that never came; all of a counter's when nobody waits for it. A ticket that leaves unserved gives its turn back to its
key. Where all come for the first time nobody's turn is over, and the level does not rise: so of one counter and
priority no more than L{MOST} keys are remembered, those with the latest turns, which have the most waiting.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from sortedcontainers import SortedSet

from .order import LAST_TURN

#: Keys of one counter and priority whose next turn is remembered, at most; as in C{gate.lua}.
MOST = 1000


@attrs.define(eq=False)
class _Level:
    """
    The turns at one counter, of one priority.

    @ivar turn: the one that is being served.
    @ivar following: by key, the turn that its next ticket has.
    @ivar by_turn: the same, the lowest first.
    """

    turn: int
    following: dict[str, int] = attrs.field(factory=dict)
    by_turn: SortedSet = attrs.field(factory=SortedSet)

    def set(self, fair: str, turn: int) -> None:
        before = self.following.get(fair)
        if before is not None:
            self.by_turn.remove((before, fair))
        self.following[fair] = turn
        self.by_turn.add((turn, fair))

    def serve(self, turn: int) -> None:
        self.turn = max(self.turn, turn)
        while self.by_turn and self.by_turn[0][0] < self.turn:
            self.forget_lowest()

    def forget_lowest(self) -> None:
        _, fair = self.by_turn.pop(0)
        del self.following[fair]


class Turns:
    """Whose turn it is, at all counters."""

    def __init__(self) -> None:
        #: By counter, and by priority.
        self._levels: dict[str, dict[int, _Level]] = {}
        #: The highest turn served.
        self._base = 0

    def __bool__(self) -> bool:
        """Whether anything is to be known of anybody's turn."""
        return bool(self._levels or self._base)

    def turn(self, counters: Iterable[str], priority: int, fair: str) -> int:
        """The turn of a ticket with a key, should it have to wait for some counters."""
        turns = [
            max(level.turn, level.following.get(fair, 0))
            for counter in counters
            if (level := self._levels.get(counter, {}).get(priority)) is not None
        ]
        return min(min(turns, default=self._base), LAST_TURN)

    def join(self, counters: Iterable[str], priority: int, fair: str, turn: int) -> None:
        """A ticket waits, with a turn."""
        for counter in counters:
            levels = self._levels.setdefault(counter, {})
            level = levels.get(priority)
            if level is None:
                level = levels[priority] = _Level(turn)
            level.set(fair, max(level.following.get(fair, 0), turn + 1))
            if len(level.following) > MOST:
                level.forget_lowest()

    def serve(self, counters: Iterable[str], priority: int, turn: int) -> None:
        """A ticket that waited is let go."""
        self._base = max(self._base, turn)
        for counter in counters:
            self._levels[counter][priority].serve(turn)

    def leave(self, counters: Iterable[str], priority: int, fair: str) -> None:
        """A ticket leaves the queue unserved."""
        for counter in counters:
            level = self._levels[counter][priority]
            following = level.following.get(fair)
            if following is not None:
                level.set(fair, following - 1)

    def forget(self, counter: str) -> None:
        """Nobody waits for a counter."""
        self._levels.pop(counter, None)

    def end(self) -> None:
        """Nobody waits."""
        self._base = 0
