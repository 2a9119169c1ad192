"""
The gate of all processes that share a namespace in Redis.

The decisions are C{gate.lua}'s; this is its shell. Operations go in batches, of which at most one is under way: what
arrives meanwhile rides in the next, so that the cost of an exchange falls as the load grows. Redis holds what this
process has announced; after every doubt (a new connection, a lost reply, a lease that ran out, a count that differs) it
announces all its tickets, and the script makes Redis agree.

While Redis is gone the outage policy decides: from C{timeout} after it was last heard of to the next connection. A
process that is connected again asks Redis, though that may not have answered yet.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from importlib.resources import files
from typing import Any, Literal

import attrs
from msgspec import DecodeError
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from thrtwisted.errors import GateUnavailable
from thrtwisted.redis import ISource
from thrtwisted.redis.link import LONGEST_PAUSE, ILinkUser, Link, RedisGone
from thrtwisted.redis.source import source_of
from thrtwisted.redis.trouble import trouble_of
from thrtwisted.redis.url import Where

from . import IAdmission, IGate, Quota, Ticket
from .admission import Admission, Throughput, limit_waiting, queue_full, rate_exceeded
from .fallback import Fallback, Shares
from .order import MICROSECONDS, Order
from .places import Message, Place, Places, Reply, quotas_in

SCRIPT = files(__package__).joinpath("gate.lua").read_bytes()

#: Heartbeats in one lease: two may be late or lost before anybody takes this process for dead.
HEARTBEATS = 4

#: Turns of the reactor that a batch has at least, however busy it is: to be sent, and to be answered.
SLICES = 5

_GONE = "The queue is not available for the moment."

_MEANWHILE = {
    "local": "until it does, each process keeps to the slots that it had, and then to its share of the limits",
    "closed": "requests that fall under a limit get 503 until it does",
    "open": "limits do not hold until it does",
}


@attrs.define
class Figures:
    """
    What went wrong at a gate so far, for whoever watches it.

    @ivar outages: how often Redis was gone.
    @ivar overshoot: how many requests this process had in a backend that were over a limit: they were admitted while
        Redis was gone, or it had lost its memory, or this process was taken for dead and went on.
    @ivar latest: by how much the latest heartbeat was late (seconds).
    """

    outages: int = 0
    overshoot: int = 0
    latest: float = 0.0


@implementer(IGate, ILinkUser)
class RedisGate:
    """
    Admits tickets over all processes with one namespace.

    @param reactor: connects, and tells the time.
    @param namespace: whom to share slots and queues with.
    @param timeout: seconds for one batch, past which Redis counts as gone.
    @param lease: seconds without a heartbeat after which others free what this process holds.
    @param outage: what happens while Redis is gone. C{local}: this process goes on with its share of the limits, see
        L{thrtwisted.gate.fallback}. C{closed}: L{GateUnavailable}, but who has a place keeps it. C{open}: all are
        admitted.
    @param max_waiting: tickets that may wait in the namespace; one more gets L{QueueFull}.
    @param aging: seconds of waiting that make up for one step of priority; 0 for none.
    @param owner: what this process is called in Redis, of letters and digits; no other may ever be called so.
    @raise ValueError: the namespace holds a brace, or a time is not above 0.
    @ivar figures: what went wrong so far.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        namespace: str = "thr",
        timeout: float = 0.25,
        lease: float = 5.0,
        outage: Literal["local", "closed", "open"] = "local",
        max_waiting: int = 1000,
        aging: float = 0.0,
        owner: str | None = None,
    ) -> None:
        if set(namespace) & set("{}"):
            raise ValueError(f"a namespace has no braces: {namespace!r}")
        if not (timeout > 0 and lease > 0):
            raise ValueError("timeout and lease are seconds above 0")
        if outage not in _MEANWHILE:
            raise ValueError(f"an outage policy is one of {', '.join(_MEANWHILE)}, not {outage!r}")
        self.figures = Figures()
        self._clock = reactor
        self._link: Link | None = None
        self._namespace = "{" + namespace + "}"
        self._timeout = timeout
        self._lease = lease
        self._interval = lease / HEARTBEATS
        self._outage = outage
        self._max_waiting = max_waiting
        self._aging = aging
        self._owner = owner or secrets.token_hex(8)
        # In a heartbeat every living process is heard of, unless its batch has to wait for an answer.
        grace = self._interval + timeout
        settings = (round(lease * 1000), round(grace * 1000), max_waiting, round(aging * MICROSECONDS))
        self._order = Order(aging)
        self._places = Places(self._owner, settings, self._order)
        self._admitted: deque[tuple[int, Mapping[str, Quota] | None]] = deque()
        self._telling = False
        self._throughput = Throughput()
        self._waiting = 0
        # Batches and heartbeats
        self._sending = False
        self._batches: Deferred[None] = succeed(None)
        self._heart = LoopingCall(self._beat)
        self._heart.clock = reactor
        self._beaten = 0.0
        self._checking = False
        self._unheard: float | None = None
        self._published = False
        self._graceful: IDelayedCall | None = None
        # Whoever waits for time
        self._waking: IDelayedCall | None = None
        self._woken = False
        # What is known of Redis
        self._connected = False
        self._answering = False
        self._slow = False
        self._gone = False
        self._doubting: IDelayedCall | None = None
        self._leased_until = 0.0
        # What was said of it
        self._up_since = 0.0
        self._steady = True
        self._said_gone = False
        self._said_mute = False
        # Until Redis has told its time; with aging, that decides who goes first.
        self._ahead = time.time() - reactor.seconds()
        # While Redis is gone
        self._shares: Shares | None = None
        self._fallback: Fallback | None = None
        self._changing: IDelayedCall | None = None
        # The end
        self._stopping = False
        self._quit = False

    def __repr__(self) -> str:
        return f"<RedisGate {self._owner} {len(self._places)} tickets, {self._places.held} admitted>"

    # The gate --------------------------------------------------------------------------------------------------

    def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
        """See L{IGate.acquire}."""
        if self._stopping:
            return fail(GateUnavailable.stopping())
        if not ticket.counters:
            return succeed(Admission(_nothing, 0.0))
        if self._alone and self._outage == "closed":
            return fail(GateUnavailable(_GONE, retry_after=self._lease))
        told: Deferred[IAdmission] = Deferred(lambda _: self._release(place.serial))
        place = self._places.add(ticket, self._clock.seconds(), told)
        if self._fallback is None:
            self._flush()
        else:
            admitted = self._fallback.acquire(place, self._redis_time, self._max_waiting)
            if place.serial not in self._fallback.rejected and place not in self._fallback:
                problem = queue_full(self._fallback.waiting, self._max_waiting, self._estimate())
                self._send_away(place, problem, known=False)
            self._decided_alone(self._fallback, admitted)
        return limit_waiting(told, ticket.timeout, self._clock, self._estimate)

    def start(self, where: ISource | Where | str) -> None:
        """
        Connect to Redis, and connect again whenever the connection is lost. Tickets may be acquired before, and wait;
        from now on for C{timeout} at most, unless Redis answers.

        @param where: where Redis is: a source, or any URL but C{embedded:}, or what that means.
        @raise ValueError: the URL names no server.
        """
        source: ISource = where if ISource.providedBy(where) else source_of(where)
        channel = f"{self._namespace}:owner:{self._owner}"
        # Whoever comes back late from an outage finds that the grace is over.
        self.connect(
            Link(self._clock, source, channel, self, longest_pause=min(LONGEST_PAUSE, self._interval / 2))
        )

    def connect(self, link: Link) -> None:
        """As L{start}, over a link whose user this gate is."""
        self._doubt()
        self._link = link
        link.start()

    def give_up(self) -> None:
        """There is no Redis to connect to: it counts as gone, for good."""
        self._lost()

    def close(self) -> None:
        """See L{IGate.close}."""
        self._stopping = True
        self._fallback = None
        problem = GateUnavailable.stopping()
        for place in self._places:
            if not place.admitted:
                self._send_away(place, problem)
        self._flush()

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """See L{IGate.stop}. Fires when Redis has been told, or does not answer, and the connections are closed."""
        self.close()
        yield self._batches
        if self._heart.running:
            self._heart.stop()
        # Any batch after the last word would make this process known to Redis again, and leave there what it holds.
        quitting, self._quit = self._connected and not self._quit, True
        if quitting:
            self._batches = self._say_goodbye()
        yield self._batches
        self._cancel_timers()
        if self._link is not None:
            yield self._link.stop()

    @inlineCallbacks
    def _say_goodbye(self) -> Generator[Deferred[Any], Any, None]:
        try:
            yield self._ask(self._places.last_word())
        except Exception as problem:
            self._log.warn(
                "Redis could not be told that this process ends; its slots are free in {lease:g} s: {problem}",
                lease=self._lease,
                problem=problem,
            )

    def _release(self, serial: int) -> None:
        """Give up a ticket, admitted or not. Its place is gone at once; Redis hears of it in the next batch."""
        if self._places.remove(serial) is None:
            return
        if self._fallback is not None:
            self._decided_alone(self._fallback, self._fallback.release(serial, self._redis_time))
        self._flush()

    def _admit(self, serials: Iterable[int], left: Mapping[str, Quota] | None = None) -> None:
        """
        Tell tickets that they are admitted. One that has left has its release on the way already.

        Who is told may release at once and so admit the next, where Redis is gone; that one is told from the same loop.

        @param left: what Redis says that is left of the counters to be shown.
        """
        self._admitted.extend((serial, left) for serial in serials)
        if self._telling:
            return
        self._telling = True
        try:
            while self._admitted:
                serial, left = self._admitted.popleft()
                place = self._places.get(serial)
                if place is not None and not place.admitted:
                    told = self._places.admit(place)
                    told.callback(self._admission(place, left))
        finally:
            self._telling = False

    def _admission(self, place: Place, left: Mapping[str, Quota] | None) -> Admission:
        waited = self._clock.seconds() - place.arrived
        if left is not None:
            quotas = place.quotas(left)
        else:
            quotas = self._fallback.quotas(place, self._redis_time) if self._fallback else {}
        return Admission(lambda: self._release(place.serial), waited, quotas)

    def _send_away(self, place: Place | None, problem: Exception, *, known: bool = True) -> None:
        """
        A ticket is not admitted, unless it is or has left already.

        @param known: whether Redis may know it.
        """
        if place is not None and place.told is not None and self._places.get(place.serial) is place:
            self._places.remove(place.serial, known=known)
            place.told.errback(problem)

    def _estimate(self) -> float:
        return self._throughput.drain_time(self._waiting)

    # Batches ---------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what there is to send, unless a batch is under way: then it rides in the next."""
        if not self._sending and self._has_news:
            self._sending = True
            self._batches = self._send()

    @property
    def _has_news(self) -> bool:
        return self._connected and not self._quit and (self._places.has_news or self._checking or self._woken)

    @inlineCallbacks
    def _send(self) -> Generator[Deferred[Any], Any, None]:
        """Send batches, one after the other, until nothing is left to send."""
        link = self._link
        assert link is not None
        while self._has_news:
            checking, self._checking = self._checking, False
            self._woken = False
            sent = self._clock.seconds()
            try:
                batch = self._places.batch(*([["echo"]] if checking else []))
                # While something is left over for the next batch, the counts differ for a good reason.
                comparable = checking and not self._places.has_news
                if checking:
                    self._published = False
                    self._unheard = sent if self._unheard is None else self._unheard
                reply = self._places.read((yield self._ask(batch)))
                if reply is None:  # nothing was done: the echo, too, is asked for again
                    self._checking |= checking
                elif checking:
                    self._published = True
                self._read(reply, sent, comparable)
            except Exception as problem:
                self._disconnected()
                if isinstance(problem, RedisGone):
                    link.reset()
                else:
                    if not trouble_of(problem).passes:
                        self._lost()
                    link.refused(problem)
        self._sending = False

    def _ask(self, batch: bytes) -> Deferred[bytes]:
        """The reply to a batch; L{RedisGone}, and a Redis that counts as gone, after C{timeout} seconds."""
        assert self._link is not None
        return self._within_timeout(self._link.script(SCRIPT, self._namespace, batch))

    def _within_timeout(self, reply: Deferred[bytes]) -> Deferred[bytes]:
        """
        The reply, unless it comes too late.

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
                self._slow = True
                self._disconnected()
                self._lost()
                answer.errback(RedisGone(f"no answer in {self._timeout:g} s"))

        timers: list[IDelayedCall] = []
        wait(SLICES)
        reply.addBoth(arrived)
        return answer

    def _read(self, reply: Reply | None, sent: float, comparable: bool) -> None:
        """Do what the reply to a batch says that was sent at a time."""
        now = self._clock.seconds()
        if reply is not None:
            self._leased_until = sent + self._lease
        if reply is None or not self._leased:
            self._places.announce()
            return
        self._ahead = reply.now / 1000 - now
        self._waiting = reply.waiting
        self._sure()
        self._throughput.observe(reply.now / 1000, reply.released, reply.waiting)
        if reply.overshoot:
            self._overshot(reply.overshoot)
        self._wake_in(reply.wake / MICROSECONDS if reply.wake else None)
        self._admit(reply.admitted, quotas_in(reply.quotas))
        for serial, delay in zip(reply.rejected[::2], reply.rejected[1::2], strict=True):
            self._send_away(self._places.get(serial), rate_exceeded(delay / MICROSECONDS), known=False)
        if reply.full:
            problem = queue_full(reply.waiting, self._max_waiting, self._estimate())
            for serial in reply.full:
                self._send_away(self._places.get(serial), problem, known=False)
        if reply.grace and self._graceful is None:
            # Whoever comes first when it is over lets those go who wait.
            self._graceful = self._clock.callLater(reply.grace / 1000, self._end_grace)
        if comparable and reply.held != self._places.held + self._places.freed:
            self._places.announce()

    def _overshot(self, count: int) -> None:
        self.figures.overshoot += count
        self._log.warn(
            "Over a limit: {count} of this process's requests. They were admitted while Redis was gone, or it has lost "
            "its memory, or this process was taken for dead",
            count=count,
        )

    # Waiting for time ------------------------------------------------------------------------------------------

    def _wake_in(self, delay: float | None) -> None:
        """
        Redis has no timers: whoever waits for time there goes with the batch that one of the processes sends then.

        @param delay: seconds until it is for this process to wake somebody, there or here; None if it is not.
        """
        self._waking = _cancelled(self._waking)
        if delay is not None:  # in whole ms, and rather late than early: one that is early has to come again
            self._waking = self._clock.callLater(math.ceil(delay * 1000) / 1000, self._wake)

    def _wake(self) -> None:
        if self._fallback is not None:
            self._decided_alone(self._fallback, self._fallback.wake(self._redis_time))
        else:
            self._woken = True
            self._flush()

    # Heartbeats ------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Renew the lease, and compare the counts: a lost message costs at most one heartbeat."""
        now = self._clock.seconds()
        late, self._beaten = now - self._beaten - self._interval, now
        self.figures.latest = max(self.figures.latest, late)
        if late > self._interval:
            self._log.warn(
                "A heartbeat ran {late:.2f} s late: something keeps this process busy. Once it is {limit:.2f} s, other "
                "processes take this one for dead and its slots for free",
                late=late,
                limit=self._lease - self._interval,
            )
        elif self._published and self._unheard is not None and now - self._unheard > self._interval / 2:
            # Not even our own echo has come back, though its batch was answered.
            if not self._said_mute:
                self._said_mute = True
                self._log.warn("Messages from Redis do not arrive; connecting anew until they do")
            assert self._link is not None
            self._link.reset()
            return
        self._checking = True
        self._flush()

    def _end_grace(self) -> None:
        self._graceful = None
        self._checking = True
        self._flush()

    # The link --------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """The link stands: say what we have, see that messages arrive, and go on."""
        self._connected = True
        self._answering = False
        self._unheard = None
        self._up_since = self._clock.seconds()
        if not self._slow:  # otherwise nobody waits for it again before it has answered
            self._changing = _cancelled(self._changing)
            self._fallback = None
        self._places.announce()
        self._checking = True
        self._flush()
        if not self._heart.running and not self._quit:
            self._beaten = self._clock.seconds()
            self._heart.start(self._interval, now=False)

    def down(self) -> None:
        """The link is lost. For C{timeout} seconds nobody needs to know."""
        self._disconnected()
        if self._heart.running:
            self._heart.stop()
        if self._gone:
            self._go_on_alone()
        else:
            self._doubt()

    def _disconnected(self) -> None:
        """Whether what was under way was done is not known. The next connection begins with an announcement."""
        self._connected = False
        self._places.announce()

    def message(self, payload: bytes) -> None:
        """
        Another process's batch has admitted tickets of ours: unless the message was read so late that they may have
        been freed since, when this process was frozen. The answer to an announcement says it again, if it still holds.
        """
        try:
            message = Message.read(payload)
        except DecodeError:  # somebody else's; what it may have replaced is lost
            message = None
        if message is not None and message.is_echo:
            self._heard()
        elif message is not None and self._leased:
            if message.wake:
                self._wake_in(message.wake / MICROSECONDS)
            self._admit(message.admitted, quotas_in(message.quotas))
        else:
            self._places.announce()
            self._flush()

    def _heard(self) -> None:
        """Our own echo has come back: batches are done, and messages arrive."""
        self._unheard = None
        self._said_mute = False
        self._steady = self._steady or self._clock.seconds() - self._up_since > self._interval / 2
        if self._answering:
            assert self._link is not None
            self._link.working()
            if self._said_gone:
                self._said_gone = False
                self._log.info("Redis answers again")

    @property
    def _leased(self) -> bool:
        """Whether nobody can have taken this process for dead yet."""
        return bool(self._clock.seconds() < self._leased_until)

    # Outages ---------------------------------------------------------------------------------------------------

    @property
    def _alone(self) -> bool:
        """Whether nobody is there to be asked."""
        return self._gone and (self._slow or not self._connected)

    @property
    def _redis_time(self) -> float:
        """The seconds of Redis's clock, as far as this process has seen it."""
        return float(self._clock.seconds() + self._ahead)

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
        if self._answering:
            return
        self._answering = True
        self._slow = self._gone = False
        self._doubting = _cancelled(self._doubting)
        self._changing = _cancelled(self._changing)
        self._shares = None
        if self._fallback is not None:  # it has gone on deciding since Redis was asked
            self._fallback = None
            self._places.announce()
        if self._link is not None:
            self._link.working()
        if self._unheard is None:
            self._heard()

    def _lost(self) -> None:
        """Redis counts as gone: the outage policy decides from now on."""
        self._doubting = _cancelled(self._doubting)
        if self._gone:
            return
        self._gone = True
        self.figures.outages += 1
        if self._steady:  # it is said once of a Redis that comes and goes
            self._steady, self._said_gone = False, True
            self._log.warn("Redis does not answer: {meanwhile}", meanwhile=_MEANWHILE[self._outage])
        self._shares = Shares(
            since=self._redis_time,
            lease=self._lease,
            processes=self._places.owners,
            entitled=self._places.entitled(),
            everything=self._outage == "open",
        )
        if self._alone:  # otherwise a new connection stands, and Redis is being asked
            self._go_on_alone()

    def _go_on_alone(self) -> None:
        """Decide here who may go, from now until Redis is there to be asked."""
        self._changing = _cancelled(self._changing)
        if self._stopping:
            return
        if self._outage == "closed":
            problem = GateUnavailable(_GONE, retry_after=self._lease)
            for place in self._places:
                if not place.order:
                    self._send_away(place, problem)
            return
        assert self._shares is not None
        now = self._redis_time
        self._fallback = Fallback(self._shares, self._order, self._places, now, self._fallback)
        change = self._shares.next_change(now)
        if change is not None:
            self._changing = self._clock.callLater(change, self._go_on_alone)
        self._decided_alone(self._fallback, self._fallback.admitted)

    def _decided_alone(self, fallback: Fallback, admitted: list[int]) -> None:
        """Tell what came of something that was done here."""
        self._wake_in(fallback.next_due(self._redis_time))
        rejected, fallback.rejected = fallback.rejected, {}
        for serial, delay in rejected.items():
            self._send_away(self._places.get(serial), rate_exceeded(delay), known=False)
        self._admit(admitted)

    def _cancel_timers(self) -> None:
        self._doubting = _cancelled(self._doubting)
        self._changing = _cancelled(self._changing)
        self._graceful = _cancelled(self._graceful)
        self._waking = _cancelled(self._waking)


def _cancelled(call: IDelayedCall | None) -> IDelayedCall | None:
    """Nothing, in place of a call that is not to be made any more."""
    if call is not None and call.active():
        call.cancel()
    return None


def _nothing() -> None:
    """The release of a ticket that needs no slot."""
