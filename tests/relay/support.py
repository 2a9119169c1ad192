"""What the tests of the relay stand on: posts of several processes in memory, and one who talks over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from thrtwisted.relay import IPost, IPostUser
from thrtwisted.relay.codec import Frame, Kind, decode, encode
from thrtwisted.relay.conversation import IConversationUser


class MemoryPosts:
    """
    Posts of several owners. What they carry arrives with the clock's next turn, as bytes.

    @ivar repeats: asked for each frame how often it arrives; twice, say, for a lost reply of Redis's.
    @ivar carried: all frames that have arrived, each with whom it was for.
    """

    def __init__(self, clock: Clock, repeats: Callable[[Frame], int] = lambda frame: 1) -> None:
        self.clock = clock
        self.repeats = repeats
        self.is_up = True
        self.posts: dict[str, MemoryPost] = {}
        self.flying: list[tuple[str, bytes]] = []
        self.carried: list[tuple[str, Frame]] = []

    def post(self, owner: str) -> MemoryPost:
        """The post of a process."""
        self.posts[owner] = post = MemoryPost(self, owner)
        return post

    def send(self, peer: str, frame: Frame) -> None:
        """A frame sets out, if Redis is there."""
        if self.is_up:
            for _ in range(self.repeats(frame)):
                self.flying.append((peer, encode([frame])))
                self.clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        """The next frame arrives, if it was not lost meanwhile."""
        if not self.flying:
            return
        peer, message = self.flying.pop(0)
        for frame in decode(message):
            self.carried.append((peer, frame))
            if (post := self.posts.get(peer)) and post.user:
                post.user.received(frame)

    def cut(self, kept: int = 0) -> None:
        """Redis is gone, and all that was on its way is lost but the first few. To nobody it seems long."""
        self.is_up = False
        del self.flying[kept:]

    def mend(self) -> None:
        """Redis is there again."""
        self.is_up = True
        for post in list(self.posts.values()):
            if post.user:
                post.user.up()


@implementer(IPost)
class MemoryPost:
    """The post of one process."""

    def __init__(self, posts: MemoryPosts, owner: str) -> None:
        self.posts = posts
        self.owner = owner
        self.user: Any = None

    def send(self, peer: str, frame: Frame, *, soon: bool = True) -> None:
        self.posts.send(peer, frame)

    def start(self, user: IPostUser) -> None:
        self.user = user
        if self.posts.is_up:
            user.up()

    def stop(self) -> Deferred[None]:
        self.user = None
        self.posts.posts.pop(self.owner, None)
        return succeed(None)


@implementer(IConversationUser, IPostUser)
class Talker:
    """
    One who takes part in one conversation.

    @ivar heard: what the other has said, data joined.
    @ivar held: bytes of data that were heard, and not consumed yet.
    """

    conversation: Any = None

    def __init__(self, *, greedy: bool = True) -> None:
        self.greedy = greedy
        self.heard: list[tuple[Kind, bytes]] = []
        self.held = 0
        self.drains = 0

    def up(self) -> None:
        if self.conversation is not None:
            self.conversation.check()

    def down(self) -> None:
        pass

    def received(self, frame: Frame) -> None:
        self.conversation.received(frame)

    def said(self, kind: Kind, payload: bytes) -> None:
        if kind == Kind.DATA:
            self.held += len(payload)
            if self.heard and self.heard[-1][0] == Kind.DATA:
                payload = self.heard.pop()[1] + payload
        self.heard.append((kind, payload))
        if self.greedy:
            self.take()

    def drained(self) -> None:
        self.drains += 1

    def take(self, size: int | None = None) -> None:
        """Consume so much of what is held; by default all."""
        size = self.held if size is None else min(size, self.held)
        if size:
            self.held -= size
            self.conversation.consumed(size)
