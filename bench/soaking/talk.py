"""HTTP as a client speaks it that trusts nobody: requests are bytes, answers are read to the letter."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

import attrs

#: Seconds after which a client that is owed something gives up: nothing here takes so long.
PATIENCE = 40.0


class Cut(Exception):
    """
    The connection ended before the answer did.

    @ivar begun: whether any of it came.
    """

    def __init__(self, begun: bool) -> None:
        super().__init__("cut within an answer" if begun else "cut before an answer")
        self.begun = begun


class Wrong(Exception):
    """What came is no HTTP/1.1 response, or not the right one."""


@attrs.frozen
class Answer:
    """
    A complete answer.

    @ivar last: the server closes the connection after it.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    last: bool


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, receive_buffer: int = 0) -> Client:
        """
        Connect to the proxy.

        @param receive_buffer: bytes that the system may keep for a client that reads slowly; 0: as usual.
        """
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=connection, limit=64 * 1024)
        except BaseException:
            connection.close()
            raise
        return cls(reader, writer)

    def close(self) -> None:
        """Leave in order."""
        self.writer.close()

    def reset(self) -> None:
        """Leave in disorder."""
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """
        Send bytes.

        @raise OSError: the other side has gone.
        """
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def answer(self, method: str = "GET", pace: float = 0.0) -> Answer:
        """
        Read one answer; interim ones are skipped.

        @param pace: seconds between two reads of a body.
        @raise Cut: the connection ended before.
        @raise Wrong: it is no answer.
        """
        return await asyncio.wait_for(self._answer(method, pace), PATIENCE)

    async def ended(self) -> bytes:
        """What comes until the connection ends, however it does."""
        received = bytearray()

        async def read() -> None:
            with suppress(OSError):
                while data := await self.reader.read(65536):
                    received.extend(data)

        await asyncio.wait_for(read(), PATIENCE)
        return bytes(received)

    async def _answer(self, method: str, pace: float) -> Answer:
        while True:
            status, headers = await self._head()
            if status >= 200:
                break
        last = headers.get("connection", "").lower() == "close"
        body = bytearray()
        try:
            if method == "HEAD" or status in (204, 304):
                pass
            elif headers.get("transfer-encoding", "") == "chunked":
                await self._chunks(body, pace)
            elif "content-length" in headers:
                await self._exactly(int(headers["content-length"]), body, pace)
            elif last:
                body += await self.reader.read(-1)
            else:
                raise Wrong("a body without an end")
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Cut(begun=True) from error
        return Answer(status, headers, bytes(body), last)

    async def _head(self) -> tuple[int, dict[str, str]]:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise Cut(begun=bool(error.partial)) from error
        except OSError as error:
            raise Cut(begun=False) from error
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if version != "HTTP/1.1" or not rest[:3].isdigit():
            raise Wrong(f"not a status line: {first[:80]!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(rest[:3]), headers

    async def _exactly(self, size: int, body: bytearray, pace: float) -> None:
        while size:
            piece = await self.reader.readexactly(min(size, 16384))
            body += piece
            size -= len(piece)
            if pace:
                await asyncio.sleep(pace)

    async def _chunks(self, body: bytearray, pace: float) -> None:
        while True:
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            await self._exactly(size, body, pace)
            if await self.reader.readexactly(2) != b"\r\n":
                raise Wrong("a chunk without its end")
            if not size:
                return
