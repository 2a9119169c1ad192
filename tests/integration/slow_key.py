"""Keys of a limit that take the proxy so long that it can do nothing else meanwhile."""

from __future__ import annotations

import time

from thrtwisted.exchange import Exchange


def key(exchange: object) -> str:
    """The same for all, after a while."""
    time.sleep(0.005)
    return "a"


def blocking(exchange: Exchange) -> str | None:
    """As many seconds as the request says; then no limit applies to it. The same for all others."""
    seconds = exchange.header(b"block")
    if seconds is None:
        return "a"
    time.sleep(float(seconds))
    return None
