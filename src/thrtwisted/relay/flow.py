"""
What one side of an exchange says to the other, in numbered frames. Pure.

At most a I{window} of bytes is under way at once: it was sent, and the other side has not acknowledged that it is done
with it. What does not fit waits here. Frames are small in comparison, so that an acknowledgement for a quarter of the
window always makes room for the next one.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from thrtwisted.relay.codec import Kind

#: Bytes that a frame has beside its payload, at most: two owners, numbers, and what MessagePack puts around them.
OVERHEAD = 80

#: Bytes of a frame's payload: smaller ones would cost more for their heads, larger ones more for who waits behind them.
SMALLEST_PIECE = 1024
LARGEST_PIECE = 32 * 1024


def piece_of(window: int) -> int:
    """How many bytes of payload a frame has at most, given the window, in bytes."""
    return min(max(SMALLEST_PIECE, window // 8), LARGEST_PIECE, window // 2)


class Numbered(NamedTuple):
    """A frame of a flow: its C{seq}, counted from 1 on, and what it says."""

    seq: int
    kind: Kind
    payload: bytes
    more: bool

    @property
    def cost(self) -> int:
        """The bytes that it takes."""
        return OVERHEAD + len(self.payload)


class Outgoing:
    """
    What this side says, until it is acknowledged.

    @ivar full: a quarter of the window waits here; it is so until half of that has gone.
    @ivar in_flight: bytes under way.
    @ivar sent: the frames under way, oldest first.
    """

    def __init__(self, window: int, piece: int) -> None:
        self._window = window
        self._piece = piece
        # What an acknowledgement makes room for: more would only cost memory, for each slow reader.
        self._enough = max(window // 4, piece)
        self._waiting: deque[tuple[Kind, bytes]] = deque()
        self._begun = 0  # bytes of the first of those that have gone already
        self._size = 0  # bytes of those that have not
        self._number = 0
        self.full = False
        self.in_flight = 0
        self.sent: deque[Numbered] = deque()

    @property
    def begun(self) -> bool:
        """Anything was sent, ever."""
        return bool(self._number)

    @property
    def all_sent(self) -> bool:
        """Nothing waits here."""
        return not self._waiting

    @property
    def quiet(self) -> bool:
        """All was said, sent and acknowledged."""
        return not self._waiting and not self.sent

    def put(self, kind: Kind, payload: bytes) -> None:
        """Say this next."""
        self._waiting.append((kind, payload))
        self._size += len(payload)
        if self._size >= self._enough:
            self.full = True

    def next(self) -> Numbered | None:
        """The next frame, which is under way from now on; or None if there is none, or no room for it."""
        if not self._waiting:
            return None
        room = self._window - self.in_flight - OVERHEAD
        if room < min(self._piece, self._size) and self.sent:
            return None
        kind = self._waiting[0][0]
        payload = self._cut(kind)
        self._size -= len(payload)
        if self._size <= self._enough // 2:
            self.full = False
        self._number += 1
        frame = Numbered(self._number, kind, payload, more=kind != Kind.DATA and self._begun > 0)
        self.sent.append(frame)
        self.in_flight += frame.cost
        return frame

    def _cut(self, kind: Kind) -> bytes:
        """The next payload. It may be put together of what was said as data in smaller pieces."""
        parts: list[bytes] = []
        room = self._piece
        while self._waiting and (room or not parts):
            following, payload = self._waiting[0]
            if parts and not (kind == following == Kind.DATA):
                break
            part = payload[self._begun : self._begun + room]
            parts.append(part)
            room -= len(part)
            self._begun += len(part)
            if self._begun < len(payload):
                break
            self._waiting.popleft()
            self._begun = 0
        return b"".join(parts)

    def acknowledged(self, seq: int) -> None:
        """The other side is done with all frames up to this one. If they were never sent, it counts for nothing."""
        if seq > self._number:
            return
        while self.sent and self.sent[0].seq <= seq:
            self.in_flight -= self.sent.popleft().cost


class Arrived:
    """A frame that is not done with: how many bytes of it are not, and how many it counts for in the window."""

    __slots__ = ("cost", "left", "seq")

    def __init__(self, seq: int, left: int, cost: int) -> None:
        self.seq = seq
        self.left = left
        self.cost = cost


class Incoming:
    """
    What the other side says. Frames that come again are dropped, and so are those that come too early: they will come
    again.

    @ivar ack: up to this frame, this side is done with all.
    @ivar due: bytes that were acknowledged by C{ack} since the other side was told it last.
    @ivar last: the number of the last frame that has come in its order.
    """

    def __init__(self) -> None:
        self._arrived: deque[Arrived] = deque()
        self._parts: list[bytes] = []
        self._kind: Kind | None = None  # of the parts
        self.last = 0
        self.ack = 0
        self.due = 0

    def received(self, frame: Numbered) -> bytes | None:
        """
        A frame has come.

        @return: what it says: for C{DATA}, its own bytes; for others, all that was split. None if there is nothing new.
        @raise ValueError: no flow of ours has this frame at this place.
        """
        if frame.seq != self.last + 1:
            return None
        if self._kind is not None and frame.kind != self._kind:
            raise ValueError(f"a {frame.kind.name} amidst a {self._kind.name}")
        self.last = frame.seq
        data = frame.kind == Kind.DATA
        self._arrived.append(Arrived(frame.seq, len(frame.payload) if data else 0, frame.cost))
        self._advance()
        if data:
            return frame.payload or None
        self._parts.append(frame.payload)
        self._kind = frame.kind if frame.more else None
        if frame.more:
            return None
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def let_go(self) -> None:
        """Whatever has come is done with."""
        for arrived in self._arrived:
            arrived.left = 0
        self._advance()

    def consumed(self, size: int) -> None:
        """
        So many bytes of C{DATA} have gone on, after those before.

        @raise ValueError: there are not so many.
        """
        for arrived in self._arrived:
            taken = min(size, arrived.left)
            arrived.left -= taken
            size -= taken
            if not size:
                break
        self._advance()
        if size:
            raise ValueError(f"{size} bytes consumed that have not arrived")

    def _advance(self) -> None:
        while self._arrived and not self._arrived[0].left:
            arrived = self._arrived.popleft()
            self.ack = arrived.seq
            self.due += arrived.cost
