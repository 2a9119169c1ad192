"""Tests of thrtwisted.timing, beside those of what waits."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.timing import Timing


class TimingTests(SynchronousTestCase):
    """Tests for Timing."""

    def test_way(self) -> None:
        """Each has the time in which it was waited for, together where that was twice; what is between is nobody's."""
        clock = Clock()
        timing = Timing(clock)
        timing.begin("rules")
        clock.advance(1)
        timing.end()
        clock.advance(2)
        timing.begin("queue")
        clock.advance(4)
        timing.begin("backend")
        clock.advance(8)
        timing.begin("rules")
        clock.advance(16)
        timing.end()
        timing.end()
        self.assertEqual(timing.field(), b"rules;dur=17000.0, queue;dur=4000.0, backend;dur=8000.0")

    def test_not_yet(self) -> None:
        """What is waited for now has its time until now, and goes on; who has waited for nothing was in no queue."""
        clock = Clock()
        timing = Timing(clock)
        self.assertEqual(timing.field(), b"queue;dur=0.0")
        timing.begin("queue")
        clock.advance(0.5)
        self.assertEqual(timing.field(), b"queue;dur=500.0")
        clock.advance(0.25)
        self.assertEqual(timing.field(), b"queue;dur=750.0")

    def test_silent(self) -> None:
        """Without a clock nothing is told."""
        timing = Timing(None)
        timing.begin("queue")
        timing.end()
        self.assertIsNone(timing.field())
