"""
A bad line between a proxy and Redis: it passes everything on, until a test has it cut at a chosen point.

It runs in the test's own reactor, so a test knows at which moment something was cut; and a test must not reach Redis
through it with a client that blocks.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory, Protocol

#: Of a process's connections: one for batches and other commands, one that brings messages, or one that reads an inbox.
Kind = Literal["batches", "messages", "inbox"]

#: Where a connection is cut: before a batch has arrived, after it ran but before its reply, in the middle of the reply.
#: On the connection for messages: instead of the next message, or in the middle of it; on one that reads an inbox, the
#: same, or before it asks for the next.
Point = Literal["before", "after", "middle"]

POINTS: tuple[Point, ...] = ("before", "after", "middle")


@attrs.define
class _Cut:
    """The next cut."""

    kind: Kind
    point: Point
    done: Deferred[None]


class _Redis(Protocol):
    """The far side of a passage."""

    transport: Any

    def __init__(self, passage: Passage) -> None:
        self._passage = passage

    def connectionMade(self) -> None:
        self._passage.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self._passage.replied(data)

    def connectionLost(self, reason: object = None) -> None:
        self._passage.transport.loseConnection()


class Passage(Protocol):
    """
    One connection of a proxy, and what it leads to.

    @ivar kind: C{messages} once it has subscribed, C{inbox} once it has asked for what is in one.
    @ivar silent: whether all is swallowed, in both directions, while the connection stays open.
    """

    transport: Any

    def __init__(self, cutter: Cutter) -> None:
        self.kind: Kind = "batches"
        self.silent = False
        self._cutter = cutter
        self._redis: _Redis | None = None
        self._early = b""
        self._answered = False
        self._doom: _Cut | None = None

    def connectionMade(self) -> None:
        self._cutter.passages.append(self)
        connecting = connectProtocol(UNIXClientEndpoint(reactor, self._cutter.upstream), _Redis(self))
        connecting.addErrback(lambda _: self.transport.abortConnection())

    def opened(self, redis: _Redis) -> None:
        """The far side is there."""
        self._redis = redis
        if not self.connected:
            redis.transport.abortConnection()
        elif self._early:
            redis.transport.write(self._early)

    def dataReceived(self, data: bytes) -> None:
        """A batch, or a part of one."""
        if data.startswith(b"*") and b"SUBSCRIBE" in data[:40].upper():
            self.kind = "messages"
        elif data.startswith(b"*") and b"XREAD" in data[:40]:
            self.kind = "inbox"
        if self.silent:
            return
        cut = self._cutter.next_cut
        if (
            cut is not None
            and cut.kind == self.kind != "messages"
            and (self.kind == "batches" or cut.point == "before")
        ):
            self._cutter.next_cut = None
            if cut.point == "before":
                self._cut(cut)
                return
            self._doom = cut
        if self._redis is None:
            self._early += data
        else:
            self._redis.transport.write(data)

    def replied(self, data: bytes) -> None:
        """A reply or a message, or a part of one."""
        if self.silent:
            return
        cut = self._cutter.next_cut
        answered = self._answered or self.kind == "inbox"
        if cut is not None and cut.kind == self.kind != "batches" and answered:
            self._cutter.next_cut, self._doom = None, cut
        self._answered = True
        if self._doom is None:
            self._cutter.pass_on(self, data)
        elif self._doom.point == "after":
            self._cut(self._doom)
        else:
            self.transport.write(data[: len(data) // 2])
            self._cut(self._doom)

    def _cut(self, cut: _Cut) -> None:
        self.close()
        cut.done.callback(None)

    def close(self) -> None:
        """Close both sides; what was written to them before arrives."""
        self.silent = True
        self.transport.loseConnection()
        if self._redis is not None:
            self._redis.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self._cutter.passages.remove(self)
        if self._redis is not None:
            self._redis.transport.loseConnection()


class Cutter(Factory):
    """
    The line.

    @param upstream: the path of the socket that it leads to; for connections that are opened from now on, a test may
        change it.
    @ivar passages: the connections that stand.
    @ivar delay: seconds by which replies and messages are late; it is set once.
    """

    noisy = False

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.passages: list[Passage] = []
        self.delay = 0.0
        self.next_cut: _Cut | None = None
        self._port: IListeningPort | None = None
        self._late: list[IDelayedCall] = []

    def listen(self, path: str) -> str:
        """Begin; the URL for a proxy."""
        self._port = reactor.listenUNIX(path, self)
        return f"unix://{path}"

    async def stop(self) -> None:
        """Refuse everybody from now on, and close all that stands."""
        if self._port is not None:
            await self._port.stopListening()
            self._port = None
        for passage in list(self.passages):
            passage.close()
        for call in self._late:
            if call.active():
                call.cancel()

    def buildProtocol(self, addr: object) -> Passage:
        return Passage(self)

    def cut(self, point: Point, kind: Kind = "batches") -> Deferred[None]:
        """Cut a connection at the next occasion; fires when that is done."""
        assert self.next_cut is None, "one cut at a time"
        self.next_cut = _Cut(kind, point, Deferred())
        return self.next_cut.done

    def silence(self, kind: Kind) -> None:
        """Swallow all on the connections of this kind that stand."""
        for passage in self.passages:
            if passage.kind == kind:
                passage.silent = True

    def pass_on(self, passage: Passage, data: bytes) -> None:
        """Let a proxy have what came from Redis."""
        if self.delay:
            self._late = [call for call in self._late if call.active()]
            self._late.append(reactor.callLater(self.delay, passage.transport.write, data))
        else:
            passage.transport.write(data)
