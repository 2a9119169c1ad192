"""What both gates hand out, and how they reckon when a place in the queue will be worth asking for again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from thrtwisted.errors import QueueFull, QueueTimeout, RateExceeded

from . import AlreadyTaken, IAdmission, Quota


@implementer(IAdmission)
class Admission:
    """
    An admission whose release is a call to its gate.

    @param release: called at the first release.
    @param again: queues again; it is told whether to do so though the worker has taken the ticket.
    @ivar waited: seconds between the ticket's arrival and its admission.
    @ivar quotas: what is left of the counters to be shown, by their keys.
    @ivar serial: what the ticket is called.
    @ivar worker: the worker that it has a place at.
    """

    _log = Logger()

    def __init__(
        self,
        release: Callable[[], None],
        waited: float,
        quotas: Mapping[str, Quota] | None = None,
        serial: int = 0,
        worker: str | None = None,
        again: Callable[[bool], Deferred[IAdmission]] | None = None,
    ) -> None:
        self.serial = serial
        self.worker = worker
        self._again = again
        self.waited = waited
        self.quotas: Mapping[str, Quota] = quotas or {}
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give the slots back. A second call is a mistake of the caller's: it is logged, and changes nothing."""
        release, self._release = self._release, None
        if release is None:
            self._log.failure("A slot was released twice", Failure(RuntimeError("released twice")))
            return
        release()

    def again(self, *, taken_too: bool) -> Deferred[IAdmission]:
        """See L{IAdmission.again}."""
        if self._again is None:
            raise ValueError("no place at a worker was asked for")
        if self._release is None:
            raise ValueError("it was released, or queues again already")
        release, self._release = self._release, None

        def is_kept(failure: Failure) -> Failure:
            if failure.check(AlreadyTaken):
                self._release = release
            return failure

        return self._again(taken_too).addErrback(is_kept)


def limit_waiting(
    waiting: Deferred[IAdmission], timeout: float | None, clock: IReactorTime, estimate: Callable[[], float]
) -> Deferred[IAdmission]:
    """
    Let a ticket leave the queue after a time.

    @param timeout: seconds; None for no end.
    @param estimate: the seconds to say in C{Retry-After}.
    @return: C{waiting}, which errbacks with L{QueueTimeout} when the time is over; but if it says L{AlreadyTaken} when
        it is cancelled, with that.
    """

    def timed_out(result: Any, _: float) -> Failure:
        if isinstance(result, Failure) and result.check(AlreadyTaken):
            return result
        return Failure(
            QueueTimeout(f"The request waited {timeout:g} s for its turn.", retry_after=estimate())
        )

    if timeout is not None:
        waiting.addTimeout(timeout, clock, onTimeoutCancel=timed_out)
    return waiting


def queue_full(waiting: int, max_waiting: int, retry_after: float) -> QueueFull:
    """
    What a ticket gets that may not wait: for too many wait in all or, if they do not, for one of its counters.

    @param waiting: how many wait.
    @param max_waiting: how many may.
    @param retry_after: seconds.
    """
    kind = "" if waiting >= max_waiting else "of this kind "
    return QueueFull(f"Too many requests {kind}are waiting already.", retry_after=retry_after)


def rate_exceeded(delay: float) -> RateExceeded:
    """
    What a ticket gets that comes over a rate that rejects.

    @param delay: seconds until it could go.
    """
    return RateExceeded("There were too many requests of this kind lately.", retry_after=delay)


class Throughput:
    """
    How fast the gate lets tickets through while somebody waits, from the releases it has seen lately.

    What C{Retry-After} says is the time in which those who wait now will have been admitted at that pace. Times when
    nobody waits do not count: an idle gate is not a slow one.
    """

    #: Seconds that the pace is measured over, and the answer while nothing at all is released.
    WINDOW = 60.0
    #: Seconds between two marks: a minute needs no more than a few dozen.
    STEP = 1.0
    #: Nobody is sent away for longer than this (seconds): the pace may have changed by then.
    LONGEST = 3600.0

    def __init__(self) -> None:
        self._seen: tuple[float, int, int] | None = None
        self._latest = (0.0, 0)
        self._marks: deque[tuple[float, int]] = deque([self._latest])

    def observe(self, now: float, released: int, waiting: int) -> None:
        """
        Note how many tickets have been released.

        @param now: seconds.
        @param released: a count that only grows; one that is lower than before starts anew (Redis was emptied).
        @param waiting: how many wait from now on.
        """
        before, self._seen = self._seen, (now, released, waiting)
        if before is None:
            return
        then, earlier, waited = before
        if released < earlier:
            self._marks = deque([self._latest])
        elif waited:
            busy, done = self._latest
            self._latest = (busy + max(0.0, now - then), done + released - earlier)
            if self._latest[0] - self._marks[-1][0] >= self.STEP:
                self._marks.append(self._latest)
            while len(self._marks) > 1 and self._latest[0] - self._marks[1][0] >= self.WINDOW:
                self._marks.popleft()

    def drain_time(self, waiting: int) -> float:
        """Seconds, at least 1, in which so many waiting tickets are admitted at the present pace."""
        since, before = self._marks[0]
        busy, done = self._latest
        if done == before:
            return self.WINDOW
        pace = (done - before) / max(busy - since, self.STEP)
        return min(max(1.0, waiting / pace), self.LONGEST)
