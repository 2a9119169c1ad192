"""
A backend that costs next to nothing: one answer, always the same, on connections that are kept.

    python -m bench.backend PORT BYTES
"""

from __future__ import annotations

import asyncio
import sys


class Backend(asyncio.Protocol):
    """One connection. Requests have no body here."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        for request in requests:
            self._transport.write(self.answer)
            if b"HTTP/1.0\r\n" in request or b"connection: close" in request.lower():
                self._transport.close()


async def run(port: int, size: int) -> None:
    """Serve until killed."""
    Backend.answer = (
        b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size
    ) + b"x" * size
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(run(*map(int, sys.argv[1:])))
