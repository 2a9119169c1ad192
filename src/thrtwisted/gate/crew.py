"""
What fronts and workers ask of the gate: who serves which queue, who has taken what, and who is dead.

Questions ride in the gate's batches. One whose answer was lost is asked again, and so is one that was asked while Redis
was gone: all may be asked as often as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred


class Crew:
    """
    The workers of a namespace, as one of its processes knows them. All Deferreds wait while Redis is gone, and errback
    with L{GateUnavailable<thrtwisted.errors.GateUnavailable>} when the gate stops.
    """

    def serve(self, concurrency: int, queues: Sequence[str]) -> Deferred[int]:
        """
        This process is a worker with so many places, for tickets of these queues. It is said again, by itself, whenever
        Redis may have forgotten it. May be called again at any time.

        @param concurrency: how many places; with 0 it takes nothing new.
        @return: fires with the number of tickets that are assigned to it, whether it has taken them or not, and whether
            their front is alive or not.
        """
        raise NotImplementedError

    def take(self, front: str, serial: int) -> Deferred[bool]:
        """
        This process is about to begin what a ticket was admitted for.

        @return: fires with whether it may. It must not if the ticket is not assigned to it, any more.
        """
        raise NotImplementedError

    def inherit(self, front: str, serials: Iterable[int]) -> Deferred[bool]:
        """
        Of a dead front's tickets, this process is at work only on these still: the slots of others are free. The slots
        of those of a front that nobody here watches are given back by themselves, within a heartbeat of its death.

        @return: fires with whether the front is dead; if it is not, it gives its slots back itself.
        """
        raise NotImplementedError

    def watch(self, owner: str, lost: Callable[[], None]) -> Callable[[], None]:
        """
        Be told of another process's death. Nothing is judged while Redis is gone, or has lost its memory.

        @param lost: called once, when the lease of that owner has run out by Redis's clock, or it has said goodbye.
        @return: ends the watch; may be called more than once.
        """
        raise NotImplementedError

    def served(self, queues: Iterable[str]) -> Deferred[dict[str, int]]:
        """
        @return: fires with how many places living workers have for each of the queues, taken ones too.
        """
        raise NotImplementedError
