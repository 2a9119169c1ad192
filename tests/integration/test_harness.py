"""Tests for what tells whether a figure was missed, or the machine had other work."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.harness import IntegrationCase, Missed, is_excused, own_time

SPIN = "import time\nwhile time.process_time() < 0.5: pass"


class NoiseTests(SynchronousTestCase):
    """Tests for what the noise excuses."""

    if hasattr(IntegrationCase, "skip"):
        skip = IntegrationCase.skip

    def test_excused(self) -> None:
        """What was missed in noise each time, unless grossly each time; never what was missed in quiet."""
        for missed, excused in (
            ([(2, 0.5)], True),
            ([(2, 0.5), (4.9, 0.1)], True),
            ([(2, 0.5), (2, 0.09)], False),
            ([(2, 0.0), (2, 0.5)], False),
            ([(2, -0.01)], False),
            ([(9, 0.9), (2, 0.9)], True),
            ([(9, 0.9), (6, 0.9)], False),
        ):
            found = [(Missed("slow", times), noise) for times, noise in missed]
            self.assertEqual(is_excused(found, ceiling=5), excused, missed)

    def test_own_time(self) -> None:
        """What a process of the test's has done is the test's own work, be it gone: it is no noise of others."""
        before = own_time()
        subprocess.run([sys.executable, "-c", SPIN], check=True)
        self.assertGreater(own_time() - before, 0.4)
