"""
The gate of all processes that share a namespace in Redis.

The decisions are C{gate.lua}'s; this is its shell. Operations go in batches, of which at most one is under way: what
arrives meanwhile rides in the next, so that the cost of an exchange falls as the load grows. Redis holds what this
process has announced; after every doubt (a new connection, a lost reply, a lease that ran out, a count that differs) it
announces all its tickets, and the script makes Redis agree.

A ticket's place is in C{_places} from C{acquire} until its release is in the outbox; that table is the truth about
this process, and the announcement is made from it.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator
from importlib.resources import files
from typing import Any

import attrs
from msgspec import msgpack
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from thrtwisted.errors import GateUnavailable, QueueFull
from thrtwisted.redis.link import ILinkUser, Link, RedisGone
from thrtwisted.redis.url import RedisAddress, parse

from . import IAdmission, IGate, Ticket
from .admission import Admission, Throughput, limit_waiting
from .order import MICROSECONDS

SCRIPT = files(__package__).joinpath("gate.lua").read_bytes()

#: Heartbeats in one lease: two may be late or lost before anybody takes this process for dead.
HEARTBEATS = 4

#: Operations in one batch. One takes Redis some 30 us, and nobody else is served meanwhile.
LONGEST_BATCH = 500

#: Turns of the reactor that a batch has at least, however busy it is: to be sent, and to be answered.
SLICES = 5

_STOPPING = "The proxy is stopping."
_GONE = "The queue is not available for the moment."


@attrs.define(eq=False)
class _Place:
    """
    A ticket of this process, as Redis should hold it.

    @ivar order: its rank in the queue, once Redis has given one; 0 before.
    @ivar told: fires at the admission; None afterwards.
    """

    serial: int
    ticket: Ticket
    arrived: float
    told: Deferred[IAdmission] | None
    order: int = 0

    @property
    def wire(self) -> list[str | int]:
        counters: list[str | int] = []
        for counter in self.ticket.counters:
            counters += (counter.key, counter.max_concurrent)
        return counters


@implementer(IGate, ILinkUser)
class RedisGate:
    """
    Admits tickets over all processes with one namespace.

    @param reactor: connects, and tells the time.
    @param namespace: whom to share slots and queues with.
    @param timeout: seconds for one batch, past which Redis counts as gone.
    @param lease: seconds without a heartbeat after which others free what this process holds.
    @param max_waiting: tickets that may wait in the namespace; one more gets L{QueueFull}.
    @param aging: seconds of waiting that make up for one step of priority; 0 for none.
    @raise ValueError: the namespace holds a brace, or a time is not above 0.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        namespace: str = "thr",
        timeout: float = 0.25,
        lease: float = 5.0,
        max_waiting: int = 1000,
        aging: float = 0.0,
    ) -> None:
        if set(namespace) & set("{}"):
            raise ValueError(f"a namespace has no braces: {namespace!r}")
        if not (timeout > 0 and lease > 0):
            raise ValueError("timeout and lease are seconds above 0")
        self._clock = reactor
        self._link: Link | None = None
        self._namespace = "{" + namespace + "}"
        self._timeout = timeout
        self._lease = lease
        self._max_waiting = max_waiting
        self._aging = round(aging * MICROSECONDS)
        self._owner = secrets.token_hex(8)
        self._heart = LoopingCall(self._beat)
        self._heart.clock = reactor
        self._throughput = Throughput()
        self._serial = 0
        self._sequence = 0
        self._places: dict[int, _Place] = {}
        self._held = 0
        self._waiting = 0
        self._outbox: list[list[str | int]] = []
        self._releasing = 0
        self._sending = False
        self._batches: Deferred[None] = succeed(None)
        self._connected = False
        self._announcing = True
        self._checking = False
        self._gone = False
        self._leased_until = 0.0
        self._doubting: IDelayedCall | None = None
        self._stopping = False
        self._quit = False

    def __repr__(self) -> str:
        return f"<RedisGate {self._owner} {len(self._places)} tickets, {self._held} admitted>"

    # The gate --------------------------------------------------------------------------------------------------

    def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
        """See L{IGate.acquire}."""
        if self._stopping:
            return fail(GateUnavailable(_STOPPING, retry_after=1.0))
        if not ticket.counters:
            return succeed(Admission(_nothing, 0.0))
        if self._gone:
            return fail(GateUnavailable(_GONE, retry_after=self._lease))
        self._serial += 1
        serial = self._serial
        told: Deferred[IAdmission] = Deferred(lambda _: self._release(serial))
        place = self._places[serial] = _Place(serial, ticket, self._clock.seconds(), told)
        self._outbox.append(["acquire", serial, ticket.priority, *place.wire])
        self._flush()
        return limit_waiting(told, ticket.timeout, self._clock, self._estimate)

    def start(self, address: RedisAddress | str) -> None:
        """
        Connect to Redis, and connect again whenever the connection is lost. Tickets may be acquired before, and wait;
        from now on for C{timeout} at most, unless Redis answers.

        @param address: where Redis is; C{redis://} and C{unix://} URLs will do.
        @raise ValueError: the URL names no server.
        """
        if isinstance(address, str):
            address = parse(address)
        if address.kind == "embedded":
            raise ValueError("a gate starts no server of its own; name one with redis:// or unix://")
        self._doubt()
        self._link = Link(self._clock, address, f"{self._namespace}:owner:{self._owner}", self)
        self._link.start()

    def give_up(self) -> None:
        """There is no Redis to connect to: it counts as gone, for good."""
        self._lost()

    def close(self) -> None:
        """See L{IGate.close}."""
        self._stopping = True
        self._refuse(GateUnavailable(_STOPPING, retry_after=1.0), everybody=True)
        self._flush()

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """See L{IGate.stop}. Fires when Redis has been told, or does not answer, and the connections are closed."""
        self.close()
        yield self._batches
        if self._heart.running:
            self._heart.stop()
        if self._connected and not self._quit:
            self._announcing = False
            self._outbox = [["quit"]]
            self._flush()
        # Any batch after this one would make this process known to Redis again, and leave there what it holds.
        self._quit = True
        yield self._batches
        self._stop_doubting()
        if self._link is not None:
            yield self._link.stop()

    def _release(self, serial: int) -> None:
        """Give up a ticket, admitted or not. Its place is gone at once; Redis hears of it in the next batch."""
        place = self._places.pop(serial, None)
        if place is None:
            return
        if place.told is None:
            self._held -= 1
            self._releasing += 1
        if self._connected:
            self._outbox.append(["release", serial])
            self._flush()

    def _admit(self, serials: list[int]) -> None:
        """Tell tickets that they are admitted. One that has left has its release on the way already."""
        for serial in serials:
            place = self._places.get(serial)
            if place is None or place.told is None:
                continue
            told, place.told = place.told, None
            self._held += 1
            waited = self._clock.seconds() - place.arrived
            told.callback(Admission(lambda serial=serial: self._release(serial), waited))  # type: ignore[misc]

    def _refuse(self, problem: Exception, *, everybody: bool) -> None:
        """
        Send those away who wait; or only those who do not know that Redis has given them a place. The next batch
        announces who is left.
        """
        for serial, place in list(self._places.items()):
            if place.told is not None and (everybody or not place.order):
                self._announcing = True
                self._send_away(serial, problem)

    def _send_away(self, serial: int, problem: Exception) -> None:
        place = self._places.get(serial)
        if place is not None and place.told is not None:
            del self._places[serial]
            place.told.errback(problem)

    def _estimate(self) -> float:
        return self._throughput.drain_time(self._waiting)

    # Batches ---------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Renew the lease, and compare the counts: a lost message costs at most one heartbeat."""
        self._checking = True
        self._flush()

    def _flush(self) -> None:
        """Send what there is to send, unless a batch is under way: then it rides in the next."""
        if not self._sending and self._has_news:
            self._sending = True
            self._batches = self._send()

    @property
    def _has_news(self) -> bool:
        return self._connected and not self._quit and bool(self._outbox or self._announcing or self._checking)

    @inlineCallbacks
    def _send(self) -> Generator[Deferred[Any], Any, None]:
        """Send batches, one after the other, until nothing is left to send."""
        link = self._link
        assert link is not None
        while self._has_news:
            checking, self._checking = self._checking, False
            sent = self._clock.seconds()
            try:
                batch = self._batch()
                # While operations are left over for the next batch, the counts differ for a good reason.
                checking = checking and not self._outbox
                reply = yield self._within_timeout(link.script(SCRIPT, self._namespace, batch))
                self._read(msgpack.decode(reply), sent, checking)
            except Exception as problem:
                if not isinstance(problem, RedisGone):
                    self._log.error("Redis refuses the gate's script: {problem}", problem=problem)
                    self._lost()
                # Whether it was done is not known. The next connection begins with an announcement.
                self._connected = False
                link.reset()
        self._sending = False

    def _batch(self) -> bytes:
        announced = None
        if self._announcing:
            announced = [
                [place.serial, int(place.told is None), place.order, place.ticket.priority, *place.wire]
                for place in self._places.values()
            ]
            # All of it is in the announcement; and a ticket that left before it was sent must not come after it.
            self._outbox = []
        operations, self._outbox = self._outbox[:LONGEST_BATCH], self._outbox[LONGEST_BATCH:]
        self._announcing = False
        if not self._outbox:
            self._releasing = 0
        self._sequence += 1
        return msgpack.encode(
            [
                self._owner,
                self._sequence,
                round(self._lease * 1000),
                self._max_waiting,
                self._aging,
                False if announced is None else announced,
                operations,
            ]
        )

    def _within_timeout(self, reply: Deferred[bytes]) -> Deferred[bytes]:
        """
        The reply, or L{RedisGone} after C{timeout} seconds.

        The time is counted in slices, one after the other. A reactor that was busy finds its timers before it sends
        and reads what is due: so its own delay costs one slice, and is not taken for that of Redis.
        """
        answer: Deferred[bytes] = Deferred()

        def arrived(result: Any) -> None:
            if not answer.called:
                timers.pop().cancel()
                answer.callback(result)

        def wait(slices: int) -> None:
            if slices:
                timers[:] = [self._clock.callLater(self._timeout / SLICES, wait, slices - 1)]
            else:
                self._lost()
                answer.errback(RedisGone(f"no answer in {self._timeout:g} s"))

        timers: list[IDelayedCall] = []
        wait(SLICES)
        reply.addBoth(arrived)
        return answer

    def _read(self, reply: Any, sent: float, checking: bool) -> None:
        """Do what the reply to a batch says that was sent at a time."""
        self._leased_until = sent + self._lease
        if reply[0] != "ok" or not self._leased:
            self._announcing = True
            return
        _, now, admitted, full, queued, held, self._waiting, released, _ = reply
        self._sure()
        self._throughput.observe(now / 1000, released, self._waiting)
        for serial, order in zip(queued[::2], queued[1::2], strict=True):
            if serial in self._places:
                self._places[serial].order = order
        self._admit(admitted)
        if full:
            problem = QueueFull("Too many requests are waiting already.", retry_after=self._estimate())
            for serial in full:
                self._send_away(serial, problem)
        if checking and held != self._held + self._releasing:
            self._announcing = True

    # The link --------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """The link stands: say what we have, and go on."""
        self._connected = True
        self._announcing = True
        self._flush()
        if not self._heart.running and not self._quit:
            self._heart.start(self._lease / HEARTBEATS, now=False)

    def down(self) -> None:
        """The link is lost. For C{timeout} seconds nobody needs to know."""
        self._connected = False
        self._outbox = []
        if self._heart.running:
            self._heart.stop()
        self._doubt()

    def message(self, payload: bytes) -> None:
        """
        Another process's batch has admitted tickets of ours: unless the message was read so late that they may have
        been freed since, when this process was frozen. The answer to an announcement says it again, if it still holds.
        """
        if self._leased:
            self._admit(msgpack.decode(payload))
        else:
            self._announcing = True
            self._flush()

    @property
    def _leased(self) -> bool:
        """Whether nobody can have taken this process for dead yet."""
        return bool(self._clock.seconds() < self._leased_until)

    def _doubt(self) -> None:
        """Without an answer in C{timeout} seconds from now, Redis counts as gone."""
        if not self._gone and self._doubting is None and not self._stopping:
            self._doubt_for(SLICES)

    def _doubt_for(self, slices: int) -> None:
        """In slices here too: while this process is busy, nobody can connect."""
        if slices:
            self._doubting = self._clock.callLater(self._timeout / SLICES, self._doubt_for, slices - 1)
        else:
            self._lost()

    def _sure(self) -> None:
        """Redis answers."""
        self._stop_doubting()
        if self._gone:
            self._gone = False
            self._log.info("Redis answers again")

    def _lost(self) -> None:
        """Redis counts as gone: whom it has not given a place is sent away, and who comes now too."""
        self._stop_doubting()
        if not self._gone:
            self._gone = True
            self._log.warn("Redis does not answer: requests that fall under a limit get 503 until it does")
            self._refuse(GateUnavailable(_GONE, retry_after=self._lease), everybody=False)

    def _stop_doubting(self) -> None:
        doubting, self._doubting = self._doubting, None
        if doubting is not None and doubting.active():
            doubting.cancel()


def _nothing() -> None:
    """The release of a ticket that needs no slot."""
