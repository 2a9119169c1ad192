"""Tests for L{thrtwisted.relay.codec}."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.relay.codec import (
    Frame,
    Head,
    Kind,
    Opening,
    Problem,
    decode,
    decode_payload,
    encode,
    encode_payload,
)
from thrtwisted.relay.flow import OVERHEAD

headers = st.lists(st.tuples(st.binary(max_size=9), st.lists(st.binary(max_size=9), max_size=3)), max_size=3)
payloads = st.one_of(
    st.builds(
        Opening,
        st.integers(0, 2**53),
        st.text(),
        st.binary(),
        st.binary(),
        headers,
        st.binary(),
        st.integers(0, 10**18),
    ),
    st.builds(Head, st.integers(100, 999), st.binary(), headers, st.none() | st.integers(0, 2**53)),
    st.builds(Problem, st.text(), st.text(), st.none() | st.floats(0, 100)),
)
frames = st.builds(
    Frame,
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.integers(1, 2**53),
    st.sampled_from(Kind),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
    st.booleans(),
    st.binary(max_size=100),
    st.just("") | st.text("0123456789abcdef", min_size=16, max_size=16),
    st.integers(0, 2**26),
)


class CodecTests(SynchronousTestCase):
    """Messages, frames and payloads."""

    @settings(deadline=None)
    @given(st.lists(frames, max_size=5))
    def test_message(self, said: list[Frame]) -> None:
        """Frames come out of a message as they went in."""
        self.assertEqual(decode(encode(said)), said)

    @settings(deadline=None)
    @given(payloads)
    def test_payload(self, payload: Opening | Head | Problem) -> None:
        """So does what a frame carries; bytes stay bytes, whatever they are."""
        self.assertEqual(decode_payload(encode_payload(payload), type(payload)), payload)

    @settings(deadline=None)
    @given(frames)
    def test_overhead(self, frame: Frame) -> None:
        """A frame takes no more beside its payload than flows count for it."""
        self.assertLessEqual(len(encode([frame])) - 1 - len(frame.payload), OVERHEAD)

    def test_binary(self) -> None:
        """A body's bytes stand in a message as they are."""
        body = bytes(range(256))
        self.assertIn(body, encode([Frame("f", 1, Kind.DATA, 1, payload=body)]))

    def test_later_field(self) -> None:
        """A frame with more fields than are known, as of a later release, is read; so is one with fewer."""
        front, number, kind = "f", 3, int(Kind.DONE)
        self.assertEqual(
            decode(msgspec.msgpack.encode([[front, number, kind]])), [Frame(front, number, kind)]
        )
        longer = [front, number, kind, 1, 2, False, b"", "", 3, "later"]
        self.assertEqual(
            decode(msgspec.msgpack.encode([longer])), [Frame(front, number, kind, 1, 2, window=3)]
        )

    @settings(deadline=None)
    @given(st.binary(max_size=50))
    def test_garbage(self, message: bytes) -> None:
        """Of what is no message, there is one error to expect."""
        try:
            said = decode(message)
        except msgspec.DecodeError:
            return
        self.assertTrue(all(isinstance(frame, Frame) for frame in said))

    def test_no_text(self) -> None:
        """So it is where a text is not UTF-8."""
        with self.assertRaises(msgspec.DecodeError):
            decode(b"\x91\x93\xa2\xff\xfe\x01\x01")
        with self.assertRaises(msgspec.DecodeError):
            decode_payload(b"\x92\xa1\xff\xa1a", Problem)

    def test_deep(self) -> None:
        """So it is where something is nested deeper than Python likes."""
        deep = b"\x91" * 100_000
        with self.assertRaises(msgspec.DecodeError):
            decode(b"\x91\x9a" + encode([Frame("f", 1, 1)])[2:] + deep)
        with self.assertRaises(msgspec.DecodeError):
            decode_payload(b"\x94\xa1e\xa1t\xc0" + deep, Problem)

    def test_garbage_payload(self) -> None:
        """So it is with payloads."""
        for kind in (Opening, Head, Problem):
            with self.assertRaises(msgspec.DecodeError):
                decode_payload(b"\x00\xff", kind)
