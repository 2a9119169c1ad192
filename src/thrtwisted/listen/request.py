"""A client's request, as resources see it."""

from __future__ import annotations

from twisted.web.server import Request

from thrtwisted.errors import ExchangeError
from thrtwisted.exchange import Exchange
from thrtwisted.timing import Timing


class ProxyRequest(Request):
    """
    A request that goes to the resources whatever its target is: Twisted's own answers C{OPTIONS *} by itself.

    @ivar ruled: what rules have made of it, or why they could not, if that was asked before its body came.
    @ivar timing: what it has waited for then.
    """

    ruled: Exchange | ExchangeError | None = None
    timing: Timing | None = None

    def process(self) -> None:
        """Find the resource, and let it answer."""
        if self.path == b"*":
            self.path = b"/*"  # for the way through a tree of resources; the target itself stays in C{uri}
        super().process()  # type: ignore[no-untyped-call]
