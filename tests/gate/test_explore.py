"""A short exploration: see L{tests.gate.explore} for what is looked at, and for a long one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.gate.explore import explore

#: Each chooses other faults; the same ones in every run, so that a failure is that of a change.
ROUNDS = range(1, 6)


class ExploreTests(SynchronousTestCase):
    """Whatever fails, the promises hold."""

    def test_rounds(self) -> None:
        """Some histories of each of several rounds."""
        for number in ROUNDS:
            explore(number, histories=8, steps=40)
