"""
The gate: it admits tickets, in order, as far as their counters have room.

Two providers share one interface and one set of rules: L{thrtwisted.gate.local.LocalGate} for one process, in
memory; L{thrtwisted.gate.redis.RedisGate} for all processes that share a namespace in Redis.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal, ParamSpec, TypeVar
from urllib.parse import quote_from_bytes

import attrs
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from zope.interface import Attribute, Interface

from thrtwisted.exchange import DEFAULT_PRIORITY

P = ParamSpec("P")
T = TypeVar("T")

#: Values longer than this are replaced by their digest, so that clients cannot fill Redis with long names (bytes).
LONGEST_VALUE = 64

#: In Redis, spaces are between the counters of a lane.
_KEY = re.compile("[!-~]+")


#: Slots of a counter that has no limit but its rate: more than anybody uses, and exact in a double.
UNLIMITED = 2**53


@attrs.frozen
class Rate:
    """
    How many tickets a counter admits in a time: one each C{interval}, and C{burst} at once after a quiet time. It is
    counted by GCRA, the generic cell rate algorithm (ITU-T I.371, annex A), on the gate's one clock.

    @ivar interval: microseconds between two tickets.
    @ivar burst: tickets that may come at once.
    @ivar over: what becomes of a ticket over the rate. C{wait}: it waits until it may go. C{reject}: it gets
        L{RateExceeded<thrtwisted.errors.RateExceeded>}. C{demote}: it does not count, and has the priority
        C{demote_to} unless its own is worse. The latter two are decided, and counted, when it arrives.
    """

    interval: int
    burst: int = 1
    over: Literal["wait", "reject", "demote"] = "wait"
    demote_to: int = 90

    def __attrs_post_init__(self) -> None:
        if not _whole(self.interval, 1):
            raise ValueError(f"an interval is 1 to 2**53 microseconds, a whole number, not {self.interval!r}")
        if not _whole(self.burst, 1):
            raise ValueError(f"a burst is 1 to 2**53 tickets, a whole number, not {self.burst!r}")
        if not 1 <= self.demote_to <= 99:
            raise ValueError(f"a priority is 1 (best) to 99 (worst), not {self.demote_to}")


@attrs.frozen
class Quota:
    """
    What is left of a counter, as an admitted ticket leaves it behind.

    @ivar slots: slots that are free.
    @ivar tickets: tickets that may go at once by the rate; None if it has none.
    @ivar full_in: seconds after which as many as the burst may; 0 without a rate.
    """

    slots: int
    tickets: int | None = None
    full_in: float = 0.0


@attrs.frozen
class Counter:
    """
    A limit with one key value, such as C{per-user=alice}; or a limit with no key value, such as C{foo}.

    @ivar key: what names the counter in the whole namespace: printable ASCII without spaces.
    @ivar max_concurrent: how many slots it has.
    @ivar weight: how many of them the ticket takes. A ticket heavier than all the slots together runs alone.
    @ivar max_waiting: how many tickets that need this counter may wait, in this and other lanes; one more gets
        L{QueueFull<thrtwisted.errors.QueueFull>}. None for no bound of its own.
    @ivar rate: how many in a time; None for any number. A ticket counts there as often as it is heavy; one that is
        heavier than the burst goes where nothing of it is used up.
    @ivar shown: whether an admission tells what is left.
    @raise ValueError: one of these numbers is not whole, is below 0 (the weight: below 1), or above 2**53.
    """

    key: str
    max_concurrent: int = UNLIMITED
    weight: int = 1
    max_waiting: int | None = None
    rate: Rate | None = None
    shown: bool = False

    def __attrs_post_init__(self) -> None:
        if not _whole(self.max_concurrent, 0):
            raise ValueError(f"a counter has 0 to 2**53 slots, a whole number, not {self.max_concurrent!r}")
        if not _whole(self.weight, 1):
            raise ValueError(f"a weight is 1 to 2**53 slots, a whole number, not {self.weight!r}")
        if not (self.max_waiting is None or _whole(self.max_waiting, 0)):
            raise ValueError(
                f"0 to 2**53 tickets may wait for a counter, a whole number, or None for any, not {self.max_waiting!r}"
            )

    @classmethod
    def of(
        cls,
        name: str,
        max_concurrent: int,
        value: bytes | None = None,
        weight: int = 1,
        max_waiting: int | None = None,
        rate: Rate | None = None,
        shown: bool = False,
    ) -> Counter:
        """The counter of a limit, for one key value or (None) for all that it applies to."""
        key = name if value is None else f"{name}={printable(value)}"
        return cls(key, max_concurrent, weight, max_waiting, rate, shown)


def _whole(number: object, least: int) -> bool:
    # Above, Redis would be sent what neither a double nor 64 bits can hold; it would refuse all that goes with it.
    return isinstance(number, int) and least <= number <= UNLIMITED


def printable(value: bytes) -> str:
    """A key value as it stands in the name of a counter and in L{Ticket.fair}: short, of printable ASCII."""
    if len(value) > LONGEST_VALUE:
        return "sha256:" + hashlib.sha256(value).hexdigest()
    return quote_from_bytes(value, safe="!#$&'()*+,-./:;<=>?@[]^_`{|}~")


@attrs.frozen
class Ticket:
    """
    What an exchange asks of the gate.

    @ivar counters: of each, as many slots as its weight says are needed; no counter twice.
    @ivar priority: 1 (best) to 99 (worst).
    @ivar timeout: seconds that it may wait; None for no end.
    @ivar reclaim_delay: seconds past the lease's end for which a dead process's slots stay taken, because the
        application may still be at work on what that process had sent.
    @ivar fair: of equal priorities, the tickets with the same text here take turns with those of other texts, as
        L{printable} makes one; None for the order of arrival.
    @ivar queue: it is admitted only together with a place at a worker that serves this queue; None if it needs none.
        Any text, as of backends' names.
    @raise ValueError: the priority or the delay is out of bounds, a counter is there twice, or its key is of other
        characters (L{Counter.of} makes one of any value).
    """

    counters: tuple[Counter, ...]
    priority: int = DEFAULT_PRIORITY
    timeout: float | None = None
    reclaim_delay: float = 0.0
    fair: str | None = None
    queue: str | None = None

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.priority <= 99:
            raise ValueError(f"a priority is 1 (best) to 99 (worst), not {self.priority}")
        if not 0 <= self.reclaim_delay < math.inf:
            raise ValueError(f"a reclaim delay is 0 seconds or more, not {self.reclaim_delay}")
        for counter in self.counters:
            if not _KEY.fullmatch(counter.key):
                raise ValueError(f"a counter's key is printable ASCII without spaces, not {counter.key!r}")
        if len({counter.key for counter in self.counters}) < len(self.counters):
            raise ValueError("a ticket needs a counter once, or not at all")
        if self.queue == "":
            raise ValueError("a queue has a name, which is not empty")
        if self.fair is not None and not _KEY.fullmatch(self.fair):
            raise ValueError(
                f"what takes turns is called in printable ASCII without spaces, not {self.fair!r}"
            )


class AlreadyTaken(Exception):
    """A worker has taken the ticket, or may have: what it was for may have been begun."""


class IAdmission(Interface):
    """The slots that a ticket was given, and its place at a worker if it asked for one."""

    serial: int = Attribute(
        "What the ticket is called, among those of its process. No two are called the same."
    )
    worker: str | None = Attribute(
        "The owner of the worker that it has a place at; None if it asked for none."
    )
    waited: float = Attribute("Seconds between the ticket's arrival and its admission.")
    quotas: Mapping[str, Quota] = Attribute(
        "What is left of the counters to be shown, by their keys, if known."
    )

    def release() -> None:
        """
        Give the slots back, at once for this process, within one round trip for the others. Call it exactly once:
        a second call is logged and changes nothing.
        """

    def again(*, taken_too: bool) -> Deferred[IAdmission]:
        """
        Give back all and queue again, at the old rank, for the worker will not answer. While Redis is gone, this waits.

        @param taken_too: even if the worker has taken the ticket.
        @return: fires with a new admission, with a serial of its own; this one is spent then, and not to be released.
            Errbacks with L{AlreadyTaken} if the worker has taken the ticket, or may have, and not C{taken_too}: then
            this admission is as it was, and has to be released. Errbacks otherwise as L{IGate.acquire} (the time that
            the ticket may wait begins anew), and this one is spent. Cancelling leaves the queue; everything is given
            back, and this one is spent. But until it is known whether the worker has taken the ticket, whoever cancels
            or has waited for too long gets L{AlreadyTaken}, unless C{taken_too}.
        @raise ValueError: it has no place at a worker, was released, or queues again already.
        """


class IGate(Interface):
    """Admits tickets: never more than a counter has slots, never fewer than fit, best first."""

    def acquire(ticket: Ticket) -> Deferred[IAdmission]:
        """
        Wait for one slot of each of the ticket's counters, and for a place at a worker if the ticket has a queue.

        @raise ValueError: the ticket has a queue, and this gate knows no workers.
        @return: fires with an L{IAdmission}. Errbacks with L{QueueFull}, L{QueueTimeout}, L{RateExceeded} or
            L{GateUnavailable} of L{thrtwisted.errors}. Cancelling leaves the queue, and gives back a slot that was
            granted meanwhile.
        """

    def close() -> None:
        """Admit nobody any more; those who wait get L{GateUnavailable}. Slots may still be released."""

    def stop() -> Deferred[None]:
        """
        Close, and release what is still held.

        @return: fires when nothing is left of this process's tickets. Never errbacks.
        """


@inlineCallbacks
def run(
    gate: IGate, ticket: Ticket, function: Callable[P, Deferred[T]], *args: P.args, **kwargs: P.kwargs
) -> Generator[Deferred[Any], Any, T]:
    """
    Call a function once the gate admits the ticket, and release the slots when its Deferred has fired.

    @return: fires or errbacks as the function's Deferred, or errbacks as L{IGate.acquire} does. Cancelling leaves the
        queue, or cancels the function's Deferred.
    """
    admission = yield gate.acquire(ticket)
    try:
        return (yield maybeDeferred(function, *args, **kwargs))  # type: ignore[no-any-return]
    finally:
        admission.release()
