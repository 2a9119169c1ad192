"""
The gate of all processes that share a namespace in Redis.

The decisions are C{gate.lua}'s; this is its shell. Operations go in batches, of which at most one is under way: what
arrives meanwhile rides in the next, so that the cost of an exchange falls as the load grows. Redis holds what this
process has announced; after every doubt (a new connection, a lost reply, a lease that ran out, a count that differs) it
announces all its tickets, and the script makes Redis agree.

Whether Redis is there L{thrtwisted.gate.outage} knows, and decides while it is not.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import attrs
from msgspec import DecodeError
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from thrtwisted.errors import GateUnavailable
from thrtwisted.redis import ISource
from thrtwisted.redis.link import LONGEST_PAUSE, ILinkUser, Link, RedisGone
from thrtwisted.redis.listening import Subscription
from thrtwisted.redis.source import source_of
from thrtwisted.redis.trouble import trouble_of
from thrtwisted.redis.url import Where

from . import AlreadyTaken, IAdmission, IGate, Quota, Ticket
from .admission import Admission, Throughput, limit_waiting, queue_full, rate_exceeded
from .crew import Crew
from .order import MICROSECONDS, Order
from .outage import POLICIES, Decision, Outages, Policy
from .places import Message, Place, Places, Reply, quotas_in
from .questions import Questions
from .script import SCRIPT

#: Heartbeats in one lease: two may be late or lost before anybody takes this process for dead.
HEARTBEATS = 4

_GONE = "The queue is not available for the moment."


@attrs.frozen
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
    @param meanwhile: what the log says happens then; absent: what the policy is.
    @param max_waiting: tickets that may wait in the namespace; one more gets L{QueueFull}.
    @param aging: seconds of waiting that make up for one step of priority; 0 for none.
    @param owner: what this process is called in Redis, of letters and digits; no other may ever be called so.
    @ivar crew: the workers, as this process knows them.
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
        outage: Policy = "local",
        meanwhile: str | None = None,
        max_waiting: int = 1000,
        aging: float = 0.0,
        owner: str | None = None,
    ) -> None:
        if set(namespace) & set("{}"):
            raise ValueError(f"a namespace has no braces: {namespace!r}")
        if not (timeout > 0 and lease > 0):
            raise ValueError("timeout and lease are seconds above 0")
        if outage not in POLICIES:
            raise ValueError(f"an outage policy is one of {', '.join(POLICIES)}, not {outage!r}")
        self._clock = reactor
        self._link: Link | None = None
        self._namespace = "{" + namespace + "}"
        self._lease = lease
        self._interval = lease / HEARTBEATS
        self._max_waiting = max_waiting
        self._policy = outage
        self._owner = owner or secrets.token_hex(8)
        # In a heartbeat every living process is heard of, unless its batch has to wait for an answer.
        grace = self._interval + timeout
        settings = (round(lease * 1000), round(grace * 1000), max_waiting, round(aging * MICROSECONDS))
        order = Order(aging)
        self._places = Places(self._owner, settings, order)
        self._outages = Outages(
            reactor,
            outage,
            meanwhile=meanwhile,
            timeout=timeout,
            lease=lease,
            trial=self._interval / 2,
            max_waiting=max_waiting,
            order=order,
            places=self._places,
            decided=self._decided,
        )
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
        self._said_mute = False
        self._leased_until = 0.0
        self._graceful: IDelayedCall | None = None
        # Whoever waits for time
        self._waking: IDelayedCall | None = None
        self._woken = False
        # What went wrong
        self._overshoot = 0
        self._latest = 0.0
        # Workers
        self._questions = Questions()
        self.crew = Crew(reactor, self._questions, self._flush)
        self._moving: dict[int, Deferred[Any]] = {}
        # The end
        self._stopping = False
        self._ending = False
        self._quit = False

    def __repr__(self) -> str:
        return f"<RedisGate {self._owner} {len(self._places)} tickets, {self._places.held} admitted>"

    @property
    def owner(self) -> str:
        """What this process is called in Redis."""
        return self._owner

    @property
    def leased(self) -> bool:
        """Whether nobody can have taken this process for dead yet."""
        return bool(self._clock.seconds() < self._leased_until)

    @property
    def answering(self) -> bool:
        """Whether Redis does what it is asked to, as far as is known."""
        return self._outages.connected and self._outages.answering

    @property
    def figures(self) -> Figures:
        """What went wrong so far."""
        return Figures(self._outages.count, self._overshoot, self._latest)

    # The gate --------------------------------------------------------------------------------------------------

    def acquire(self, ticket: Ticket) -> Deferred[IAdmission]:
        """See L{IGate.acquire}. A ticket may have a queue if the outage policy is C{closed}."""
        if self._stopping:
            return fail(GateUnavailable.stopping())
        if ticket.queue is not None and self._policy != "closed":
            raise ValueError(
                "while Redis is gone there are no workers, and this gate would admit tickets then"
            )
        if not ticket.counters and ticket.queue is None:
            return succeed(Admission(_nothing, 0.0))
        if self._outages.refusing:
            return fail(self._unavailable)
        told: Deferred[IAdmission] = Deferred(lambda _: self._release(place.serial))
        place = self._places.add(ticket, self._clock.seconds(), told)
        if self._outages.deciding:
            self._outages.acquire(place)
        else:
            self._flush()
        return limit_waiting(told, ticket.timeout, self._clock, self._estimate)

    def start(self, where: ISource | Where | str) -> None:
        """
        Connect to Redis, and connect again whenever the connection is lost. Tickets may be acquired before, and wait;
        from now on for C{timeout} at most, unless Redis answers.

        @param where: where Redis is: a source, or any URL but C{embedded:}, or what that means.
        @raise ValueError: the URL names no server.
        """
        source: ISource = where if ISource.providedBy(where) else source_of(where)
        channel = Subscription(f"{self._namespace}:owner:{self._owner}", self.message)
        # Whoever comes back late from an outage finds that the grace is over.
        self.connect(
            Link(self._clock, source, channel, self, longest_pause=min(LONGEST_PAUSE, self._interval / 2))
        )

    def connect(self, link: Link) -> None:
        """As L{start}, over a link whose user this gate is."""
        self._outages.doubt()
        self._link = link
        link.start()

    def give_up(self) -> None:
        """There is no Redis to connect to: it counts as gone, for good."""
        self._outages.lost()

    def close(self) -> None:
        """See L{IGate.close}."""
        self._stopping = True
        self._outages.close()
        problem = GateUnavailable.stopping()
        for place in self._places:
            # What waits again is under way: it has until the stop.
            if not place.admitted and not place.returned:
                self._send_away(place.serial, problem)
        self._flush()

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """See L{IGate.stop}. Fires when Redis has been told, or does not answer, and the connections are closed."""
        self.close()
        self._ending = True
        for place in self._places:
            if place.told is not None:
                self._leave(place, GateUnavailable.stopping())
        yield self._batches
        self.crew.stop()
        self._questions.stop()
        if self._heart.running:
            self._heart.stop()
        # Any batch after the last word would make this process known to Redis again, and leave there what it holds.
        quitting, self._quit = self._outages.connected and not self._quit, True
        if quitting:
            self._batches = self._say_goodbye()
        yield self._batches
        self._outages.stop()
        self._graceful = _cancelled(self._graceful)
        self._waking = _cancelled(self._waking)
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
        self._do_not_move(serial)
        if self._places.remove(serial) is None:
            return
        if self._outages.deciding:
            self._outages.release(serial)
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
                    self._do_not_move(serial)
                    self._places.moved(place)
                    told = self._places.admit(place)
                    told.callback(self._admission(place, left))
        finally:
            self._telling = False

    def _admission(self, place: Place, left: Mapping[str, Quota] | None) -> Admission:
        waited = self._clock.seconds() - place.arrived
        quotas = self._outages.quotas(place) if left is None else place.quotas(left)
        return Admission(
            lambda: self._release(place.serial),
            waited,
            quotas,
            place.serial,
            place.worker or None,
            None if place.ticket.queue is None else lambda taken_too: self._again(place, taken_too),
        )

    def _again(self, place: Place, taken_too: bool) -> Deferred[IAdmission]:
        """
        Let an admitted ticket wait again, as a new one: what was said to a worker of the old one is not valid for it.
        Until Redis has said that it does, both have places here.
        """
        if self._ending:
            if not taken_too:
                return fail(
                    AlreadyTaken("nobody can be asked any more whether a worker has taken the ticket")
                )
            self._release(place.serial)
            return fail(GateUnavailable.stopping())
        told: Deferred[IAdmission] = Deferred(lambda _: self._leave(new, CancelledError()))
        new = self._places.follow(place, self._clock.seconds(), told, sure=taken_too)
        rank = (int(taken_too), place.order, place.priority)
        answer = self._questions.ask("again", place.serial, new.serial, *rank, *place.needs)
        self._moving[new.serial] = answer
        answer.addCallback(self._moved, new).addErrback(_not_told)
        self._flush()
        return limit_waiting(told, place.ticket.timeout, self._clock, self._estimate)

    def _moved(self, done: int, new: Place) -> None:
        """Whether a ticket waits instead of another."""
        del self._moving[new.serial]
        if done:
            self._places.moved(new)
            return
        self._places.stays(new)
        assert new.told is not None
        new.told.errback(AlreadyTaken("a worker has taken the ticket"))

    def _leave(self, new: Place, problem: Exception) -> None:
        """
        A ticket that was to wait again does not wait any more. As long as Redis has not said that no worker has begun
        with it, one may have: then it stays what it was before.
        """
        told = new.told
        assert told is not None
        if new.follows is None or new.sure:
            self._release(new.serial)
            told.errback(problem)
            return
        self._do_not_move(new.serial)
        self._places.stays(new)
        # It may be done all the same. So Redis is told again what there is.
        self._places.announce()
        self._flush()
        told.errback(AlreadyTaken("a worker may have taken the ticket"))

    def _do_not_move(self, serial: int) -> None:
        """Whether this ticket waits instead of another need not be answered any more, if it was asked."""
        answer = self._moving.pop(serial, None)
        if answer is not None:
            answer.cancel()

    def _send_away(self, serial: int, problem: Exception, *, known: bool = True) -> None:
        """
        A ticket is not admitted, unless it is or has left already.

        @param known: whether Redis may know it.
        """
        place = self._places.get(serial)
        if place is not None and place.told is not None:
            self._do_not_move(serial)
            self._places.remove(serial, known=known)
            place.told.errback(problem)

    @property
    def _unavailable(self) -> GateUnavailable:
        """What a ticket gets that may not even wait, for Redis is gone."""
        return GateUnavailable(_GONE, retry_after=self._lease)

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
        news = self._places.has_news or self._checking or self._woken or bool(self._questions)
        return news and self._outages.connected and not self._quit

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
                if self._places.announcing:
                    self.crew.say_again()
                batch = self._places.batch(*([["echo"]] if checking else []), ask=self._questions.next)
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
                self._questions.unanswered()
                self._outages.failed()
                if isinstance(problem, RedisGone):
                    link.reset()
                else:
                    if not trouble_of(problem).passes:
                        self._outages.lost()
                    link.refused(problem)
        self._sending = False

    def _ask(self, batch: bytes) -> Deferred[bytes]:
        """The reply to a batch; L{RedisGone}, and a Redis that counts as gone, after C{timeout} seconds."""
        assert self._link is not None
        return self._outages.in_time(self._link.script(SCRIPT, self._namespace, batch))

    def _read(self, reply: Reply | None, sent: float, comparable: bool) -> None:
        """Do what the reply to a batch says that was sent at a time."""
        if reply is not None:
            self._leased_until = sent + self._lease
        if reply is None or not self.leased:
            self._questions.unanswered()
            self._places.announce()
            return
        self._questions.answered(reply.answers)
        self._waiting = reply.waiting
        if self._outages.answered(reply.now / 1000):
            self._first_answer()
        self._throughput.observe(reply.now / 1000, reply.released, reply.waiting)
        if reply.overshoot:
            self._overshot(reply.overshoot)
        self._wake_in(reply.wake / MICROSECONDS if reply.wake else None)
        self._admit(reply.admitted, quotas_in(reply.quotas))
        rejected = zip(reply.rejected[::2], reply.rejected[1::2], strict=True)
        self._refuse({serial: delay / MICROSECONDS for serial, delay in rejected}, reply.full, reply.waiting)
        if reply.grace and self._graceful is None:
            # Whoever comes first when it is over lets those go who wait.
            self._graceful = self._clock.callLater(reply.grace / 1000, self._end_grace)
        if comparable and reply.held != self._places.held + self._places.freed:
            self._places.announce()

    def _decided(self, decision: Decision) -> None:
        """Do what is decided here while Redis is gone."""
        self._wake_in(decision.due)
        for serial in decision.unavailable:
            self._send_away(serial, self._unavailable)
        self._refuse(decision.rejected, decision.full, decision.waiting)
        self._admit(decision.admitted)

    def _refuse(self, rejected: Mapping[int, float], full: Iterable[int], waiting: int) -> None:
        """
        Send tickets away that are not in the queue.

        @param rejected: who comes over a rate, and the seconds for which it does.
        @param full: who may not wait.
        @param waiting: how many wait.
        """
        for serial, delay in rejected.items():
            self._send_away(serial, rate_exceeded(delay), known=False)
        for serial in full:
            problem = queue_full(waiting, self._max_waiting, self._estimate())
            self._send_away(serial, problem, known=False)

    def _overshot(self, count: int) -> None:
        self._overshoot += count
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
        if delay is not None and not self._quit:
            # In whole ms, and rather late than early: one that is early has to come again.
            self._waking = self._clock.callLater(math.ceil(delay * 1000) / 1000, self._wake)

    def _wake(self) -> None:
        if self._outages.deciding:
            self._outages.wake()
        else:
            self._woken = True
            self._flush()

    # Heartbeats ------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Renew the lease, and compare the counts: a lost message costs at most one heartbeat."""
        now = self._clock.seconds()
        late, self._beaten = now - self._beaten - self._interval, now
        self._latest = max(self._latest, late)
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
        self.crew.beat()
        self._flush()

    def _end_grace(self) -> None:
        self._graceful = None
        self._checking = True
        self.crew.beat()
        self._flush()

    # The link --------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """The link stands: say what we have, see that messages arrive, and go on."""
        self._unheard = None
        self._outages.up()
        self._checking = True
        self._flush()
        if not self._heart.running and not self._quit:
            self._beaten = self._clock.seconds()
            self._heart.start(self._interval, now=False)

    def down(self) -> None:
        """The link is lost."""
        if self._heart.running:
            self._heart.stop()
        self._outages.down()

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
        elif message is not None and self.leased:
            if message.wake:
                self._wake_in(message.wake / MICROSECONDS)
            self._places.assigned(message.workers)
            self._admit(message.admitted, quotas_in(message.quotas))
        else:
            self._places.announce()
            self._flush()

    def _first_answer(self) -> None:
        """Redis has done a batch, for the first time on this link."""
        assert self._link is not None
        self._link.working()
        if self._unheard is None:
            self._heard()

    def _heard(self) -> None:
        """Our own echo has come back: batches are done, and messages arrive."""
        self._unheard = None
        self._said_mute = False
        if self._outages.answering:
            assert self._link is not None
            self._link.working()
        self._outages.heard()


def _cancelled(call: IDelayedCall | None) -> IDelayedCall | None:
    """Nothing, in place of a call that is not to be made any more."""
    if call is not None and call.active():
        call.cancel()
    return None


def _not_told(failure: Failure) -> None:
    """Whether a ticket waits instead of another is of no interest any more."""
    failure.trap(CancelledError, GateUnavailable)


def _nothing() -> None:
    """The release of a ticket that needs no slot."""
