"""
The bad backend, which answers each path of C{BEHAVIOURS} in a way of its own; those of C{GOOD} are right, but odd.

    python -m bench.soaking.misbehaving PORT
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bench.soaking.content import content

#: Of each body here.
SEED, SIZE = 99, 150_000
BODY = content(SEED, SIZE)
SHORT = BODY[:1000]

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % SIZE
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Writer = asyncio.StreamWriter


async def cut(writer: Writer) -> None:
    """Announces more than it sends."""
    writer.write(HEAD + BODY[: SIZE // 2])


async def reset(writer: Writer) -> None:
    """The same, and ends in disorder."""
    writer.write(HEAD + BODY[: SIZE // 2])
    await writer.drain()
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def chunks_cut(writer: Writer) -> None:
    """Has no last chunk."""
    writer.write(CHUNKED + b"%x\r\n%b\r\n" % (SIZE, BODY))


async def chunks_bad(writer: Writer) -> None:
    """Has a chunk whose size is none."""
    writer.write(CHUNKED + b"5\r\nhello\r\n-1\r\nhello\r\n0\r\n\r\n")
    await asyncio.sleep(0.1)


async def garbage(writer: Writer) -> None:
    """Is no HTTP."""
    writer.write(b"\x00\xff\xfe garbage\r\n\r\n" + bytes(100))


async def lengths(writer: Writer) -> None:
    """Announces two lengths."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
    await asyncio.sleep(0.1)


async def endless_head(writer: Writer) -> None:
    """Has a head without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    with suppress(OSError):
        for _ in range(1000):
            writer.write(b"X-More: and more\r\n" * 100)
            await writer.drain()


async def close(writer: Writer) -> None:
    """Closes before it answers."""


async def hang(writer: Writer) -> None:
    """Never answers."""
    await asyncio.sleep(60)


async def stall(writer: Writer) -> None:
    """Never answers to the end."""
    writer.write(HEAD + BODY[: SIZE // 2])
    await asyncio.sleep(60)


async def twice(writer: Writer) -> None:
    """Sends another answer, which nobody has asked for."""
    # All in one piece: nobody can tell what comes after the next request was sent from the answer to that.
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(SHORT)
    writer.write(head + SHORT + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    await asyncio.sleep(0.1)


async def unannounced(writer: Writer) -> None:
    """Lets believe that the connection is kept, and closes it a moment later: the next request may be on its way."""
    # As servers do with a connection that they close: what comes for it is not read.
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(SHORT) + SHORT)
    await writer.drain()
    await asyncio.sleep(random.uniform(0, 0.1))


async def until_close(writer: Writer) -> None:
    """Says the end of its body by closing."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)


async def interim(writer: Writer) -> None:
    """Sends interim answers first."""
    writer.write(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + HEAD + BODY
    )


async def drip(writer: Writer) -> None:
    """Takes its time."""
    writer.write(HEAD)
    for start in range(0, SIZE, SIZE // 10):
        writer.write(BODY[start : start + SIZE // 10])
        await asyncio.sleep(0.05)


#: Those whose answer must never look complete.
BAD: dict[str, Callable[[Writer], Awaitable[None]]] = {
    "cut": cut,
    "reset": reset,
    "chunks-cut": chunks_cut,
    "chunks-bad": chunks_bad,
    "garbage": garbage,
    "lengths": lengths,
    "endless-head": endless_head,
    "close": close,
    "hang": hang,
    "stall": stall,
}
#: Of those that are right, those whose answer is C{SHORT}.
IN_SHORT = frozenset(("twice", "unannounced"))
#: Those whose answer is C{BODY} or C{SHORT}.
GOOD: dict[str, Callable[[Writer], Awaitable[None]]] = {
    "twice": twice,
    "unannounced": unannounced,
    "until-close": until_close,
    "interim": interim,
    "drip": drip,
}
BEHAVIOURS = BAD | GOOD


async def serve(reader: asyncio.StreamReader, writer: Writer) -> None:
    """One connection, which is closed after one answer; half of the request's body is read, if it has one."""
    with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length:
            await reader.readexactly(int(length[1]) // 2)
        await BEHAVIOURS[head.split(b" ", 2)[1].rpartition(b"/")[2].decode()](writer)
        await writer.drain()
    writer.close()


async def run(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1])))
