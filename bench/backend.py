"""
A backend that costs next to nothing: one answer, always the same, on connections that are kept.

    python -m bench.backend PORT BYTES
"""

from __future__ import annotations

import asyncio
import re
import sys

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Backend(asyncio.Protocol):
    """One connection. It answers a request when it has its body."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""
        self._head = b""
        self._body = 0  # bytes of it that are to come

    def data_received(self, data: bytes) -> None:
        if self._body > len(data):
            self._body -= len(data)
            return
        if self._body:
            data, self._body = data[self._body :], 0
            self._respond()
        self._received += data
        while not self._body and (end := self._received.find(b"\r\n\r\n")) >= 0:
            self._head, self._received = self._received[:end], self._received[end + 4 :]
            length = LENGTH.search(self._head)
            self._body = int(length[1]) if length else 0
            if self._body > len(self._received):
                self._body, self._received = self._body - len(self._received), b""
            else:
                self._body, self._received = 0, self._received[self._body :]
                self._respond()

    def _respond(self) -> None:
        self._transport.write(self.answer)
        if b"HTTP/1.0\r\n" in self._head or b"connection: close" in self._head.lower():
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
