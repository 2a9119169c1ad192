"""
Carries frames between processes, over Redis.

Each process has an inbox, a stream; whoever has frames for it appends them, many in one message. What is sent in one
turn of the reactor, and what comes while the messages before are under way, goes together: the cost of a frame falls as
the load grows. Nothing is kept for later: while Redis is gone all is dropped, for whoever sends knows what was not
acknowledged, and says it again when the post is up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from thrtwisted.redis import ISource
from thrtwisted.redis.link import ILinkUser, Link, RedisGone
from thrtwisted.redis.listening import Inbox
from thrtwisted.redis.overdue import Overdue
from thrtwisted.redis.source import source_of
from thrtwisted.redis.url import Where

from . import IPost, IPostUser
from .codec import Frame, decode, encode
from .flow import OVERHEAD
from .pace import Pace

#: Messages to one process that are under way to Redis at once. One more than one keeps Redis busy in the time that an
#: answer takes to come back; with many, each would carry little.
UNDER_WAY = 2

#: After so many connections on which nothing was answered it is said, if Redis answers others.
MOST_IN_VAIN = 3

#: Seconds that a frame that is not urgent waits for others to go with.
LATER = 0.05

#: So many messages that were read do not wait for something that they may be removed together with; and so many are
#: removed with one command, for a script of Redis cannot unpack more than some thousands.
MOST_READ = 64
MOST_REMOVED = 1000

#: Appends a message, and lets the inbox live on for a while: one without the other would leave it there for ever. With
#: it goes what was read from one's own inbox: what a message acknowledges does not stand in Redis any more. That comes
#: last, for a script that has written may go on to write where there is no memory.
APPEND = b"""
redis.call("XADD", KEYS[1], "*", "m", ARGV[1])
redis.call("PEXPIRE", KEYS[1], ARGV[2])
if #ARGV > 2 then
  redis.call("XDEL", KEYS[2], unpack(ARGV, 3))
end
return 1
"""


class _Outbox:
    """
    What is on its way to one process.

    @ivar frames: what was not sent yet.
    @ivar urgent: whether it is to be sent as soon as it may.
    @ivar under_way: how many messages are.
    """

    __slots__ = ("frames", "key", "peer", "under_way", "urgent")

    def __init__(self, peer: str, key: bytes) -> None:
        self.peer = peer
        self.key = key
        self.frames: list[Frame] = []
        self.urgent = False
        self.under_way = 0

    def take(self, most: int) -> list[Frame]:
        """The frames for the next message, of so many bytes and one frame more."""
        size = count = 0
        for frame in self.frames:
            size += len(frame.payload) + OVERHEAD
            count += 1
            if size >= most:
                break
        taken, self.frames = self.frames[:count], self.frames[count:]
        return taken


@implementer(IPost, ILinkUser)
class Post:
    """
    The post of one process.

    @param reactor: connects, and tells the time.
    @param namespace: that of the gate.
    @param owner: see L{IPost}; that of the gate.
    @param timeout: seconds within which Redis answers; otherwise the connections are made anew. On a slow line they may
        become more, see L{Pace}.
    @param lease: seconds that a process may be silent for without being taken for dead. An inbox that nobody has
        written to for twice as long is gone.
    @param redis_answers: whether Redis answers to others of this process: then it is said if it does not answer here.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        namespace: str,
        owner: str,
        *,
        timeout: float,
        lease: float,
        redis_answers: Callable[[], bool] = lambda: False,
    ) -> None:
        self.owner = owner
        self._clock = reactor
        self._prefix = f"{{{namespace}}}:inbox:"
        self._life = b"%d" % round(2 * lease * 1000)
        self._inbox = Inbox(self._prefix + owner, self._received, block=lease / 2, timeout=timeout)
        self._inbox_key = self._inbox.key.encode()
        self._overdue = Overdue(reactor, timeout, self._too_late)
        self._pace = Pace(timeout)
        self._redis_answers = redis_answers
        self._latest = 0.0  # answer to a message
        self._user: IPostUser | None = None
        self._link: Link | None = None
        self._connecting = False
        # While the link is up; whether anything could be written and read
        self._up = False
        self._writes = self._reads = self._proven = False
        self._outboxes: dict[str, _Outbox] = {}
        self._removable: list[bytes] = []
        self._now: IDelayedCall | None = None
        self._later: IDelayedCall | None = None
        self._stopping = False
        self._gone = False
        self._stopped: list[Deferred[None]] = []
        self._refused = False
        self._told_garbage = False

    def __repr__(self) -> str:
        return f"<Post {self.owner} {'up' if self._proven else 'down'}, {len(self._outboxes)} peers>"

    # The post --------------------------------------------------------------------------------------------------

    def start(self, user: IPostUser) -> None:
        """See L{IPost.start}. Nothing is carried before L{connect}, too."""
        self._user = user
        self._begin()

    def connect(self, where: ISource | Where | str) -> None:
        """
        Connect to Redis, and connect again whenever the connection is lost.

        @param where: where Redis is: a source, or any URL but C{embedded:}, or what that means.
        @raise ValueError: the URL names no server.
        """
        source: ISource = where if ISource.providedBy(where) else source_of(where)
        # The gate, which is connected to the same server, says what is wrong with it.
        self._link = Link(self._clock, source, self._inbox, self, beside="the relay")
        self._begin()

    def send(self, peer: str, frame: Frame, *, soon: bool = True) -> None:
        """See L{IPost.send}."""
        if not self._up or self._stopping:
            return
        outbox = self._outboxes.get(peer)
        if outbox is None:
            outbox = self._outboxes[peer] = _Outbox(peer, (self._prefix + peer).encode())
        outbox.frames.append(frame)
        if soon:
            outbox.urgent = True
        self._hurry(soon)

    def stop(self) -> Deferred[None]:
        """See L{IPost.stop}. Whoever writes to this process nevertheless leaves what passes by itself."""
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        if not self._stopping:
            self._stopping = True
            self._user = None
            self._stop()
        elif self._gone:
            self._end()
        return stopped

    @inlineCallbacks
    def _stop(self) -> Generator[Deferred[Any], Any, None]:
        if self._up:
            for outbox in list(self._outboxes.values()):
                self._send(outbox, without_limit=True)
            # It is answered after all that was asked before.
            yield self._ask(b"DEL", self._inbox_key).addErrback(_unimportant)
        self._forget()
        if self._link is not None:
            yield self._link.stop()
        self._gone = True
        self._end()

    def _end(self) -> None:
        """Tell all who wait for the end, as far as they do still."""
        stopped, self._stopped = self._stopped, []
        for each in stopped:
            each.callback(None)

    # Sending ---------------------------------------------------------------------------------------------------

    def _hurry(self, soon: bool) -> None:
        """Send what is urgent at the end of this turn, or all a little later."""
        if soon and self._now is None:
            self._now = self._clock.callLater(0, self._send_urgent)
        elif not soon and self._later is None:
            # It may find that all was sent before: a timer that is set anew each time would cost more.
            self._later = self._clock.callLater(LATER, self._send_all)

    def _send_urgent(self) -> None:
        self._now = None
        for outbox in list(self._outboxes.values()):
            if outbox.urgent:
                self._send(outbox)
        if len(self._removable) >= MOST_READ:
            self._remove().addErrback(self._not_done)

    def _send_all(self) -> None:
        self._later = None
        for outbox in list(self._outboxes.values()):
            self._send(outbox)
        while self._removable:
            self._remove().addErrback(self._not_done)

    def _send(self, outbox: _Outbox, *, without_limit: bool = False) -> None:
        """Send what there is to send to a process, unless enough is under way; then it goes with the next answer."""
        while outbox.frames and (outbox.under_way < UNDER_WAY or without_limit):
            outbox.under_way += 1
            message = encode(outbox.take(self._pace.message))
            removable = [] if self._refused else self._take_removable()
            sent = self._ask(
                b"EVAL", APPEND, b"2", outbox.key, self._inbox_key, message, self._life, *removable
            )
            sent.addCallback(self._through, len(message), self._clock.seconds())
            sent.addCallbacks(self._sent, self._not_done, callbackArgs=(outbox,))
        outbox.urgent = bool(outbox.frames)

    def _ask(self, *words: bytes) -> Deferred[Any]:
        """What Redis answers, see L{Link.command}; in time, or the link is made anew."""
        assert self._link is not None
        self._overdue.asked()
        return self._link.command(*words).addBoth(self._answered)

    def _answered(self, result: Any) -> Any:
        self._overdue.answered()
        return result

    def _through(self, _: object, size: int, since: float) -> None:
        """A message has gone through, which was asked for at a time."""
        now = self._clock.seconds()
        self._pace.answered(size, now - max(since, self._latest))
        self._overdue.allow(self._pace.patience)
        self._latest = now

    def _too_late(self) -> None:
        assert self._link is not None
        self._pace.gave_up()
        self._overdue.allow(self._pace.patience)
        # By then the gate knows, too, of a Redis that is gone.
        self._link.reset(alone=self._pace.in_vain > MOST_IN_VAIN and self._redis_answers())

    def _sent(self, _: object, outbox: _Outbox) -> None:
        self._refused = False
        self._working()
        outbox.under_way -= 1
        if outbox.urgent:
            self._send(outbox)
        elif not (outbox.frames or outbox.under_way) and self._outboxes.get(outbox.peer) is outbox:
            del self._outboxes[outbox.peer]

    def _not_done(self, failure: Failure) -> None:
        """Redis has gone, which the link says; or it refuses, and would refuse the next, too."""
        if failure.check(RedisGone) is not None or self._stopping:
            return
        assert self._link is not None and isinstance(failure.value, Exception)
        self._refused = True
        if self._removable:
            # Memory may be just what it lacks.
            self._remove().addBoth(lambda _: self._not_done(failure))
        else:
            self._link.refused(failure.value)

    def _remove(self) -> Deferred[Any]:
        """Remove from the inbox what was read."""
        return self._ask(b"XDEL", self._inbox_key, *self._take_removable())

    def _working(self) -> None:
        """A Redis that refuses to take in may go on to hand out: that alone is no good sign."""
        if not self._refused:
            assert self._link is not None
            self._link.working()

    def _take_removable(self) -> list[bytes]:
        """What is to be removed from the inbox with one command."""
        taken, self._removable = self._removable[:MOST_REMOVED], self._removable[MOST_REMOVED:]
        return taken

    # Receiving -------------------------------------------------------------------------------------------------

    def _received(self, messages: list[Any]) -> None:
        """Hand on what has arrived."""
        self._working()
        if messages and not self._reads:
            self._reads = True
            self._prove()
        for number, fields in messages:
            self._removable.append(number)
            try:
                frames = decode(fields[1])
            except msgspec.DecodeError as problem:
                self._drop(problem)
                continue
            for frame in frames:
                if self._user is None:
                    return
                try:
                    self._user.received(frame)
                except Exception:
                    self._log.failure("A frame from another process could not be handled; it is dropped")
        if self._removable:
            self._hurry(len(self._removable) >= MOST_READ)

    def _drop(self, problem: Exception) -> None:
        """Said once for each time that the link stands: whoever writes such things may write many."""
        if not self._told_garbage:
            self._told_garbage = True
            self._log.warn(
                "A message for the relay cannot be read, and is dropped, as others like it will be ({problem}); see "
                "that nothing else writes to the keys of the namespace, and that all proxies are of one version",
                problem=problem,
            )

    # The link --------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """
        See L{ILinkUser.up}. That connections stand says little: Redis may allow this process to do all that its gate
        needs, and not this. So it writes to itself, and is up once it may write and has read.
        """
        self._up = True
        self._told_garbage = False
        self._writes = self._reads = False
        sent = self._ask(b"EVAL", APPEND, b"2", self._inbox_key, self._inbox_key, encode([]), self._life)
        sent.addCallbacks(self._wrote, self._not_done)

    def _wrote(self, _: object) -> None:
        self._refused = False
        self._writes = True
        self._prove()

    def _prove(self) -> None:
        """Tell the user, once both ways are proven; but not of connections that have gone meanwhile."""
        if self._up and self._writes and self._reads and not self._proven:
            self._proven = True
            if self._user is not None:
                self._user.up()

    def down(self) -> None:
        """See L{ILinkUser.down}."""
        proven = self._proven
        self._forget()
        if proven and self._user is not None:
            self._user.down()

    def _begin(self) -> None:
        """Connect, once it is known where to, and for whom."""
        if self._link is not None and self._user is not None and not self._connecting:
            self._connecting = True
            self._link.start()

    def _forget(self) -> None:
        """Drop all that is not sent yet."""
        self._up = self._proven = False
        for outbox in self._outboxes.values():
            outbox.frames.clear()
        self._outboxes.clear()
        self._removable.clear()
        self._overdue.forget()
        for timer in (self._now, self._later):
            if timer is not None:
                timer.cancel()
        self._now = self._later = None


def _unimportant(failure: Failure) -> None:
    """The inbox passes by itself."""
