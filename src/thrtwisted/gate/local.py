"""The gate of one process, in memory."""

from __future__ import annotations

from collections import deque

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from thrtwisted.errors import GateUnavailable

from . import IAdmission, IGate, Ticket
from .admission import Admission, Throughput, limit_waiting, queue_full, rate_exceeded
from .lanes import Lanes
from .order import MICROSECONDS, Order


@attrs.define(eq=False)
class _Waiter:
    """A ticket that waits, or is about to be told that it was admitted."""

    ticket: Ticket
    arrived: float
    deferred: Deferred[IAdmission]


@implementer(IGate)
class LocalGate:
    """
    Admits tickets within this process.

    @param clock: tells the time, lets those go who wait for a rate, and ends the waiting of tickets that have a
        timeout.
    @param max_waiting: tickets that may wait, of all counters; one more gets L{QueueFull}.
    @param aging: seconds of waiting that make up for one step of priority; 0 for none.
    """

    def __init__(self, clock: IReactorTime, *, max_waiting: int = 1000, aging: float = 0.0) -> None:
        self._clock = clock
        self._max_waiting = max_waiting
        self._lanes: Lanes[int] = Lanes(Order(aging))
        self._throughput = Throughput()
        self._serial = 0
        self._waiters: dict[int, _Waiter] = {}
        self._admitted: deque[int] = deque()
        self._telling = False
        #: When somebody may be able to go (us), and the call that sees to it.
        self._due: int | None = None
        self._timer: IDelayedCall | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<LocalGate {self._lanes!r}>"

    @property
    def idle(self) -> bool:
        """Whether nobody waits and nobody holds a slot."""
        return self._lanes.idle and not self._waiters

    def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
        """See L{IGate.acquire}."""
        if ticket.queue is not None:
            raise ValueError("within one process there are no workers")
        if self._closed:
            return fail(GateUnavailable.stopping())
        self._serial += 1
        serial = self._serial
        arrival = self._lanes.arrive(
            serial, ticket.counters, ticket.priority, self._microseconds, self._max_waiting, ticket.fair
        )
        self._plan()
        admitted = arrival.admitted
        if admitted == [serial]:
            return succeed(self._admission(serial, ticket, 0.0))
        if serial not in self._lanes:
            problem = (
                rate_exceeded(arrival.rejected / MICROSECONDS)
                if arrival.rejected
                else queue_full(self._lanes.waiting, self._max_waiting, self._estimate())
            )
            self._tell(admitted)
            return fail(problem)
        deferred: Deferred[IAdmission] = Deferred(lambda _: self._leave(serial))
        waiter = self._waiters[serial] = _Waiter(ticket, self._clock.seconds(), deferred)
        self._observe()
        self._tell(admitted)
        return limit_waiting(waiter.deferred, ticket.timeout, self._clock, self._estimate)

    def close(self) -> None:
        """See L{IGate.close}."""
        self._closed = True
        # All leave before any is told: who is told may release, and cancel others.
        waiters, self._waiters = self._waiters, {}
        for serial in waiters:
            self._release(serial)
        for waiter in waiters.values():
            if not waiter.deferred.called:
                waiter.deferred.errback(GateUnavailable.stopping())

    def stop(self) -> Deferred[None]:
        """See L{IGate.stop}."""
        self.close()
        return succeed(None)

    @property
    def _microseconds(self) -> int:
        return round(self._clock.seconds() * MICROSECONDS)

    def _admission(self, serial: int, ticket: Ticket, waited: float) -> Admission:
        quotas = self._lanes.quotas(ticket.counters, self._microseconds)
        return Admission(lambda: self._release(serial), waited, quotas, serial)

    def _leave(self, serial: int) -> None:
        self._waiters.pop(serial, None)
        self._release(serial)

    def _release(self, serial: int) -> None:
        admitted = self._lanes.release(serial, self._microseconds)
        self._plan()
        self._observe()
        self._tell(admitted)

    def _plan(self) -> None:
        """Have a timer for those who wait for nothing but time, if there are any."""
        due = self._lanes.next_due
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = due
        if due is not None:
            delay = max(0, due - self._microseconds) / MICROSECONDS
            self._timer = self._clock.callLater(delay, self._wake)

    def _wake(self) -> None:
        self._due = self._timer = None
        admitted = self._lanes.wake(self._microseconds)
        self._plan()
        self._observe()
        self._tell(admitted)

    def _observe(self) -> None:
        self._throughput.observe(self._clock.seconds(), self._lanes.released, self._lanes.waiting)

    def _estimate(self) -> float:
        self._observe()
        return self._throughput.drain_time(self._lanes.waiting)

    def _tell(self, admitted: list[int]) -> None:
        """
        Fire the Deferreds of the admitted.

        Who is told may release at once and so admit the next; that one is told from the same loop, for a queue of
        a thousand would otherwise be a thousand calls deep.
        """
        self._admitted.extend(admitted)
        if self._telling:
            return
        self._telling = True
        try:
            while self._admitted:
                serial = self._admitted.popleft()
                waiter = self._waiters.pop(serial, None)
                if waiter is not None:
                    waited = self._clock.seconds() - waiter.arrived
                    waiter.deferred.callback(self._admission(serial, waiter.ticket, waited))
        finally:
            self._telling = False
