"""A short exploration: see L{tests.gate.explore} and C{explore_workers} for what is looked at, and long ones."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.gate.explore import explore
from tests.gate.explore_workers import WorkersExploration

#: Each chooses other faults; the same ones in every run, so that a failure is that of a change.
ROUNDS = range(1, 6)


class ExploreTests(SynchronousTestCase):
    """Whatever fails, the promises hold."""

    def test_rounds(self) -> None:
        """Some histories of each of several rounds."""
        for number in ROUNDS:
            explore(number, histories=8, steps=40)

    def test_workers(self) -> None:
        """And with fronts and workers."""
        for number in ROUNDS[:3]:
            explore(number, histories=6, steps=40, base=WorkersExploration)
