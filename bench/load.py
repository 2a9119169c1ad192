"""
The load: connections that send one request after the other, in a process of its own.

It speaks HTTP/1.1 and keeps its connections, as browsers do. (ab speaks HTTP/1.0, after which some servers close the
connection and others do not: that would compare how they connect.)

    python -m bench.load PORT REQUESTS CONNECTIONS
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

REQUEST = b"GET /page?number=1 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nX-User: bench\r\nAccept: */*\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self._whole: int | None = None
        self._began = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        self._received, self._whole = b"", None
        if self._load.left:
            self._load.left -= 1
            self._began = time.perf_counter()
            self._transport.write(REQUEST)
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._whole is None:
            head = self._received.find(b"\r\n\r\n")
            if head < 0:
                return
            length = LENGTH.search(self._received, 0, head)
            if length is None or not self._received.startswith(b"HTTP/1.1 200 "):
                self._load.fail(f"not a response to measure: {self._received[:200]!r}")
                return
            self._whole = head + 4 + int(length[1])
        if len(self._received) >= self._whole:
            self._load.answered(time.perf_counter() - self._began)
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if self._received or (self._whole is None and not self._load.over.done() and self._load.left):
            self._load.fail("a connection was closed")


class Load:
    """
    All the requests of one measurement.

    @ivar left: how many are still to be sent.
    """

    def __init__(self, requests: int) -> None:
        self.left = requests
        self._waiting = requests
        self.times: list[float] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(self, seconds: float) -> None:
        """One more was answered."""
        self.times.append(seconds)
        self._waiting -= 1
        if not self._waiting:
            self.over.set_result(None)

    def fail(self, why: str) -> None:
        """The measurement is worth nothing."""
        if not self.over.done():
            self.over.set_exception(RuntimeError(why))


async def run(port: int, requests: int, connections: int) -> dict[str, float]:
    """Send requests; seconds for all, and for one the median and two percentiles."""
    load = Load(requests)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = [loop.create_connection(lambda: Client(load), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.gather(*clients)
    await load.over
    elapsed = time.perf_counter() - began
    times = sorted(load.times)
    shares = {"median": 50, "p95": 95, "p99": 99}
    return {"elapsed": elapsed, **{name: times[len(times) * share // 100] for name, share in shares.items()}}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(*map(int, sys.argv[1:])))))
