"""Short runs of the fuzzers, always the same."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wall.fuzz import fuzz_requests
from tests.wall.fuzz_responses import fuzz_responses


class FuzzTests(SynchronousTestCase):
    """Tests for what must hold whatever clients and backends send."""

    def test_strict(self) -> None:
        """Requests, to the proxy's own site."""
        fuzz_requests(strict=True, examples=350)

    def test_embedded(self) -> None:
        """Requests, to the proxy's resource below a site of Twisted's own."""
        fuzz_requests(strict=False, examples=100)

    def test_responses(self) -> None:
        """Responses."""
        fuzz_responses(examples=200)
        self.flushLoggedErrors()
