"""Tests for L{thrtwisted.relay.flow}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.relay.codec import Kind
from thrtwisted.relay.flow import OVERHEAD, Incoming, Numbered, Outgoing, piece_of

WINDOW = 8192


def all_of(out: Outgoing) -> list[Numbered]:
    """The frames that there is room for now."""
    frames = []
    while frame := out.next():
        frames.append(frame)
    return frames


class PieceTests(SynchronousTestCase):
    """How large a frame may be."""

    @settings(deadline=None)
    @given(st.integers(2048, 2**26))
    def test_room(self, window: int) -> None:
        """When all but a quarter of the window is acknowledged, a whole frame has room: nobody waits for nothing."""
        self.assertLessEqual(window // 4 + piece_of(window) + OVERHEAD, window)


class OutgoingTests(SynchronousTestCase):
    """What this side says."""

    def setUp(self) -> None:
        self.out = Outgoing(WINDOW, 1024)

    def test_empty(self) -> None:
        """One who has said nothing waits for nothing."""
        self.assertEqual(all_of(self.out), [])
        self.assertTrue(self.out.quiet and self.out.all_sent)
        self.assertFalse(self.out.full or self.out.begun)

    def test_order(self) -> None:
        """Frames are numbered from 1 on, as they were said."""
        self.out.put(Kind.HEAD, b"head")
        self.out.put(Kind.DATA, b"data")
        self.out.put(Kind.END, b"")
        self.assertEqual(
            all_of(self.out),
            [
                Numbered(1, Kind.HEAD, b"head", False),
                Numbered(2, Kind.DATA, b"data", False),
                Numbered(3, Kind.END, b"", False),
            ],
        )
        self.assertFalse(self.out.quiet)
        self.assertTrue(self.out.all_sent)
        self.out.acknowledged(2)
        self.assertEqual([frame.seq for frame in self.out.sent], [3])
        self.out.acknowledged(3)
        self.assertTrue(self.out.quiet)
        self.assertEqual(self.out.in_flight, 0)

    def test_pieces(self) -> None:
        """Data is cut, and put together, so that frames are neither large nor many."""
        for _ in range(1500):
            self.out.put(Kind.DATA, b"x")
        self.out.put(Kind.END, b"")
        self.assertEqual(
            [(frame.kind, len(frame.payload), frame.more) for frame in all_of(self.out)],
            [(Kind.DATA, 1024, False), (Kind.DATA, 476, False), (Kind.END, 0, False)],
        )

    def test_long_head(self) -> None:
        """What is no data is cut so that the other side can join it, and never put together with its like."""
        self.out.put(Kind.HEAD, b"h" * 2048)
        self.out.put(Kind.HEAD, b"i")
        self.assertEqual(
            [(len(frame.payload), frame.more) for frame in all_of(self.out)],
            [(1024, True), (1024, False), (1, False)],
        )

    def test_window(self) -> None:
        """No more than the window is under way; the rest follows as room is made."""
        self.out.put(Kind.DATA, b"x" * 20000)
        first = all_of(self.out)
        self.assertEqual(len(first), WINDOW // (1024 + OVERHEAD))
        self.assertLessEqual(self.out.in_flight, WINDOW)
        self.out.acknowledged(2)
        self.assertEqual([frame.seq for frame in all_of(self.out)], [8, 9])

    def test_small_window(self) -> None:
        """If nothing is under way, one frame goes in any case."""
        out = Outgoing(10, 100)
        out.put(Kind.DATA, b"x" * 150)
        self.assertEqual([len(frame.payload) for frame in all_of(out)], [100])
        out.acknowledged(1)
        self.assertEqual([len(frame.payload) for frame in all_of(out)], [50])

    def test_full(self) -> None:
        """It is full with a quarter of a window of bytes that wait, until half of them are gone."""
        self.out.put(Kind.DATA, b"x" * WINDOW)
        self.assertTrue(self.out.full)
        all_of(self.out)  # but for their heads there is room for all
        self.assertFalse(self.out.full)
        self.out.put(Kind.DATA, b"x" * (WINDOW // 4 - 1024 - 1))
        self.assertFalse(self.out.full)
        self.out.put(Kind.DATA, b"x" * 1024)
        self.assertTrue(self.out.full)
        self.out.acknowledged(self.out.sent[0].seq)
        all_of(self.out)
        self.assertTrue(self.out.full)
        self.out.acknowledged(self.out.sent[0].seq)
        all_of(self.out)
        self.assertFalse(self.out.full)

    @settings(deadline=None)
    @given(st.integers(2048, 2**20), st.lists(st.integers(1, 200_000), max_size=20))
    def test_never_stuck(self, window: int, sizes: list[int]) -> None:
        """Once all that is under way is acknowledged, again and again, it is not full."""
        out = Outgoing(window, piece_of(window))
        for size in sizes:
            out.put(Kind.DATA, bytes(size))
            all_of(out)
        while out.full:
            sent = out.sent[-1].seq
            out.acknowledged(sent)
            all_of(out)
            self.assertTrue(not out.full or out.sent[-1].seq > sent)

    def test_never_sent(self) -> None:
        """Who acknowledges what was never said has acknowledged nothing."""
        self.out.put(Kind.END, b"")
        all_of(self.out)
        self.out.acknowledged(2)
        self.out.acknowledged(-1)
        self.assertFalse(self.out.quiet)

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from([Kind.DATA, Kind.HEAD]), st.binary(max_size=60))))
    def test_bytes(self, said: list[tuple[Kind, bytes]]) -> None:
        """Cut and joined, it is what was said."""
        out, heard = Outgoing(500, 20), Incoming()
        got: list[tuple[Kind, bytes]] = []
        for kind, payload in said:
            out.put(kind, payload)
            for frame in all_of(out):
                self.assertLessEqual(out.in_flight, 500)
                data = heard.received(frame)
                if data is not None:
                    got.append((frame.kind, data))
                    heard.consumed(len(data) if frame.kind == Kind.DATA else 0)
                out.acknowledged(heard.ack)
        self.assertTrue(out.quiet)
        self.assertEqual(joined(got), joined(said))


def joined(said: list[tuple[Kind, bytes]]) -> list[tuple[Kind, bytes]]:
    """With data that stands together put together, for where it is cut is nobody's concern."""
    result: list[tuple[Kind, bytes]] = []
    for kind, payload in said:
        if kind == Kind.DATA and not payload:
            continue
        if result and kind == result[-1][0] == Kind.DATA:
            payload = result.pop()[1] + payload
        result.append((kind, payload))
    return result


class IncomingTests(SynchronousTestCase):
    """What the other side says."""

    def setUp(self) -> None:
        self.heard = Incoming()

    def receive(self, seq: int, kind: Kind, payload: bytes = b"", more: bool = False) -> bytes | None:
        return self.heard.received(Numbered(seq, kind, payload, more))

    def test_acknowledged_when_consumed(self) -> None:
        """Data is acknowledged when it has gone on, and what comes after it only then, too."""
        self.assertEqual(self.receive(1, Kind.HEAD, b"head"), b"head")
        self.assertEqual(self.heard.ack, 1)
        self.assertEqual(self.receive(2, Kind.DATA, b"abc"), b"abc")
        self.assertEqual(self.receive(3, Kind.DATA, b"de"), b"de")
        self.assertEqual(self.receive(4, Kind.END), b"")
        self.assertEqual(self.heard.ack, 1)
        self.heard.consumed(2)
        self.assertEqual(self.heard.ack, 1)
        self.heard.consumed(2)
        self.assertEqual(self.heard.ack, 2)
        self.heard.consumed(1)
        self.assertEqual(self.heard.ack, 4)
        self.assertEqual(self.heard.due, 4 * OVERHEAD + 4 + 5)

    def test_again(self) -> None:
        """What comes again is dropped, and so is what comes before its turn."""
        self.assertEqual(self.receive(1, Kind.HEAD, b"a"), b"a")
        self.assertIsNone(self.receive(1, Kind.HEAD, b"a"))
        self.assertIsNone(self.receive(3, Kind.END))
        self.assertEqual(self.receive(2, Kind.DATA, b"b"), b"b")
        self.assertEqual(self.receive(3, Kind.END), b"")

    def test_joined(self) -> None:
        """What was split comes whole."""
        self.assertIsNone(self.receive(1, Kind.OPEN, b"a", True))
        self.assertIsNone(self.receive(2, Kind.OPEN, b"b", True))
        self.assertEqual(self.heard.ack, 2)
        self.assertEqual(self.receive(3, Kind.OPEN, b"c"), b"abc")
        self.assertEqual(self.receive(4, Kind.OPEN, b"d"), b"d")

    def test_amidst(self) -> None:
        """Something else within what was split is nonsense."""
        self.receive(1, Kind.OPEN, b"a", True)
        for kind in (Kind.DATA, Kind.END):
            with self.assertRaises(ValueError):
                self.receive(2, kind, b"b")
        self.assertEqual(self.receive(2, Kind.OPEN, b"b"), b"ab")

    def test_empty_data(self) -> None:
        """Data of no bytes is nothing."""
        self.assertIsNone(self.receive(1, Kind.DATA))
        self.assertEqual(self.heard.ack, 1)

    def test_let_go(self) -> None:
        """Whoever needs nothing of it any more is done with all that has come."""
        self.receive(1, Kind.DATA, b"abc")
        self.receive(2, Kind.END)
        self.heard.consumed(1)
        self.heard.let_go()
        self.assertEqual((self.heard.ack, self.heard.due), (2, 2 * OVERHEAD + 3))

    def test_too_much(self) -> None:
        """Nobody consumes more than there is."""
        self.receive(1, Kind.DATA, b"abc")
        with self.assertRaises(ValueError):
            self.heard.consumed(4)
