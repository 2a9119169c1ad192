"""A short run of the fuzzer, always the same."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wall.fuzz import fuzz


class FuzzTests(SynchronousTestCase):
    """Tests for what must hold whatever clients send."""

    def test_strict(self) -> None:
        """The proxy's own site."""
        fuzz(strict=True, examples=500)

    def test_embedded(self) -> None:
        """The proxy's resource below a site of Twisted's own."""
        fuzz(strict=False, examples=250)
