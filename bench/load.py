"""
The load: connections that send one request after the other, in a process of its own.

It speaks HTTP/1.1 and keeps its connections, as browsers do. (ab speaks HTTP/1.0, after which some servers close the
connection and others do not: that would compare how they connect.)

    python -m bench.load PORT REQUESTS CONNECTIONS [TARGET [BYTES]]

With BYTES it sends bodies that are so long.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

HEAD = "{} {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nX-User: bench\r\nAccept: */*\r\n{}\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self._left: int | None = None  # bytes of the answer that are to come, once that is known
        self._began = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        self._received, self._left = b"", None
        if self._load.left:
            self._load.left -= 1
            self._began = time.perf_counter()
            self._transport.write(self._load.request)
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._left is None:
            self._received += data
            head = self._received.find(b"\r\n\r\n")
            if head < 0:
                return
            length = LENGTH.search(self._received, 0, head)
            if length is None or not self._received.startswith(b"HTTP/1.1 200 "):
                self._load.fail(f"not a response to measure: {self._received[:200]!r}")
                return
            self._left = head + 4 + int(length[1]) - len(self._received)
        else:
            self._left -= len(data)
        if self._left <= 0:
            self._load.answered(time.perf_counter() - self._began)
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if self._received or (self._left is None and not self._load.over.done() and self._load.left):
            self._load.fail("a connection was closed")


class Load:
    """
    All the requests of one measurement.

    @ivar left: how many are still to be sent.
    @ivar request: each of them, as bytes.
    """

    def __init__(self, requests: int, request: bytes) -> None:
        self.left = requests
        self.request = request
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


def request(target: str, size: int) -> bytes:
    """A request, with a body if that has a size."""
    if not size:
        return HEAD.format("GET", target, "").encode()
    return HEAD.format("POST", target, f"Content-Length: {size}\r\n").encode() + b"x" * size


async def run(
    port: int, requests: int, connections: int, target: str = "/page?number=1", size: int = 0
) -> dict[str, float]:
    """Send requests; seconds for all, and for one the median and two percentiles."""
    load = Load(requests, request(target, size))
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
    port, requests, connections = map(int, sys.argv[1:4])
    target, size = [*sys.argv[4:], *("/page?number=1", "0")[len(sys.argv) - 4 :]]
    print(json.dumps(asyncio.run(run(port, requests, connections, target, int(size)))))
