"""Short runs of the fuzzers, always the same."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wall.fuzz import Input, Target, fuzz_requests
from tests.wall.fuzz_responses import fuzz_responses


class FuzzTests(SynchronousTestCase):
    """Tests for what must hold whatever clients and backends send."""

    def test_strict(self) -> None:
        """Requests, to the proxy's own site. Half of the inputs at least are understood: else little would be tried."""
        self.assertGreaterEqual(fuzz_requests(strict=True, examples=350), 0.5)

    def test_hops(self) -> None:
        """A request that is refused for its hops is whole: the connection goes on."""
        target = Target(strict=True)
        hops = b"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nMax-Forwards: 0\r\n\r\n"
        target.attack(Input((hops, hops), late=False))
        target.close()

    def test_embedded(self) -> None:
        """Requests, to the proxy's resource below a site of Twisted's own, likewise."""
        self.assertGreaterEqual(fuzz_requests(strict=False, examples=100), 0.5)

    def test_responses(self) -> None:
        """Responses."""
        fuzz_responses(examples=200)
        self.flushLoggedErrors()
