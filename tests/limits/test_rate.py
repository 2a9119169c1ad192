"""Tests of thrtwisted.limits.rate."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.config import Limit
from thrtwisted.gate import Rate
from thrtwisted.limits.rate import LONGEST, SHORTEST, UNITS, Allowance, compile_rate, read_allowance


class AllowanceTests(SynchronousTestCase):
    """What a rate says."""

    def test_times(self) -> None:
        """A rate is a number in a time, which may be written in several ways."""
        for text, number, window in [
            ("100/s", 100, 1),
            ("100/sec", 100, 1),
            ("100/second", 100, 1),
            ("100/min", 100, 60),
            (" 100 / minute ", 100, 60),
            ("5/h", 5, 3600),
            ("5/hour", 5, 3600),
            ("7/d", 7, 86_400),
            ("7/day", 7, 86_400),
            ("10000/s", 10_000, 1),
        ]:
            self.assertEqual(read_allowance(text), Allowance(number, window), text)

    def test_mistakes(self) -> None:
        """Each is refused, with the mend, on one line."""
        for text, message in [
            ("", 'write "100/min"'),
            ("100", 'write "100/min"'),
            ("/s", 'write "100/min"'),
            ("-1/s", 'write "100/min"'),
            ("1.5/s", 'write "100/min"'),
            ("100/10s", 'write "100/min"'),
            ("100/s/s", 'write "100/min"'),
            ("٣/s", 'write "100/min"'),
            ("100\n/\ns\nx", 'write "100/min"'),
            ("9999999999999/day", 'write "100/min"'),
            ("100/minutes", 'did you mean "100/min"?'),
            ("100/hours", 'did you mean "100/hour"?'),
            ("100/m", "of s, min, hour or day"),
            ("100/month", "of s, min, hour or day"),
            ("0/s", "max_concurrent = 0"),
            ("10001/s", "more than 10000 in a second"),
            ("600001/min", "more than 10000 in a second"),
        ]:
            error = self.assertRaises(ValueError, read_allowance, text)
            self.assertIn(message, str(error))
            self.assertNotIn("\n", str(error))

    @settings(deadline=None)
    @given(st.integers(1, 10**9), st.sampled_from(sorted(UNITS.values())))
    def test_interval(self, number: int, window: int) -> None:
        """In its time no more pass than a rate says, and less than one in ten thousand fewer."""
        interval = Allowance(number, window).interval
        self.assertGreaterEqual(number * interval, window * 1_000_000)
        if interval > SHORTEST:
            self.assertLess(number * (interval - 1), window * 1_000_000)


class RateTests(SynchronousTestCase):
    """What a gate counts by."""

    def test_fields(self) -> None:
        """A limit's fields are the rate's; without a rate there is none."""
        self.assertIsNone(compile_rate(Limit(name="l", max_concurrent=1)))
        self.assertEqual(compile_rate(Limit(name="l", rate="100/min")), Rate(600_000))
        limit = Limit(name="l", rate="100/s", burst=10, over="demote", demote_to=80)
        self.assertEqual(compile_rate(limit), Rate(10_000, 10, "demote", 80))

    def test_fast(self) -> None:
        """
        As many may go at once as come in ten milliseconds, where requests wait for timers: these are no more exact, and
        what they are late by would be lost.
        """
        self.assertEqual(compile_rate(Limit(name="l", rate="100/s")), Rate(10_000, 1))
        self.assertEqual(compile_rate(Limit(name="l", rate="1000/s")), Rate(1000, 10))
        self.assertEqual(compile_rate(Limit(name="l", rate="10000/s", burst=5)), Rate(100, 100))
        self.assertEqual(compile_rate(Limit(name="l", rate="10000/s", burst=500)), Rate(100, 500))
        self.assertEqual(compile_rate(Limit(name="l", rate="1000/s", over="reject")), Rate(1000, 1, "reject"))

    def test_longest(self) -> None:
        """A burst that takes longer to come back than any time of the configuration is refused, with the longest."""
        for rate in ("1/day", "7/hour", "10000/s"):
            interval = read_allowance(rate).interval
            longest = min(LONGEST // interval, 1_000_000)
            self.assertIsNotNone(compile_rate(Limit(name="l", rate=rate, burst=longest)))
        error = self.assertRaises(ValueError, compile_rate, Limit(name="l", rate="1/day", burst=12))
        self.assertIn("more than 11 days", str(error))
        self.assertIn("lower burst to 11 or less", str(error))
