"""What is the same on each way to a backend: what is sent, and what becomes of the response."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from thrtwisted.exchange import Exchange

from .body import ResponseBody


def as_sent(exchange: Exchange) -> Exchange:
    """What is sent of an exchange; functions may go on changing theirs."""
    return Exchange(
        exchange.method,
        exchange.target,
        exchange.headers,
        exchange.client,
        exchange.backend,
        version=exchange.version,
    )


class Delivering:
    """The part of an L{IForwarding} that is the same on each way."""

    _exchange: Exchange
    _download: ResponseBody | None

    @property
    def method(self) -> bytes:
        """The method that the backend sees."""
        return self._exchange.method

    def deliver(self, request: Any) -> Deferred[None]:
        """Send the response's body to the client, as L{IForwarding.deliver} has it."""
        if self._download is None:
            raise RuntimeError("deliver() comes after the response's head")
        return self._download.deliver(request)

    def read(self, limit: int) -> Deferred[bytes]:
        """Read the response's body before it is delivered, as L{IForwarding.read} has it."""
        if self._download is None:
            raise RuntimeError("read() comes after the response's head")
        return self._download.read(limit)
