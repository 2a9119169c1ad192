"""Clients that leave at every moment, and clients that mean harm."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from bench.soaking.content import content
from bench.soaking.honest import LARGE, body_request, request
from bench.soaking.talk import Client, Wrong

#: What is refused with a status of these, if at all with one.
REFUSALS = (400, 408, 413, 414, 417, 431, 501, 503, 505)

_HEAD = b"POST /digest HTTP/1.1\r\nHost: soak\r\n"

#: Requests that two servers could understand in two ways, and others that are none.
MALFORMED = (
    _HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /work/1 HTTP/1.1\r\n\r\n",
    _HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    _HEAD + b"Content-Length: +5\r\n\r\nhello",
    _HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    _HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    _HEAD + b"Content-Length : 5\r\n\r\nhello",
    _HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    _HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello",
    _HEAD + b"X: a\r\n b\r\n\r\n",
    _HEAD + b"X: a\x00b\r\n\r\n",
    _HEAD + b"X: a\nContent-Length: 5\r\n\r\nhello",
    _HEAD + b"Host: other\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: soak\r\n\r\n",
    b"GET / HTTP/3.0\r\nHost: soak\r\n\r\n",
    b"GET /\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: soak\r\n\r\n",
    _HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    _HEAD + b"X: a\r\n" * 500 + b"\r\n",
    _HEAD + b"Content-Length: 1000000000\r\n\r\n" + bytes(1000),
    bytes(range(256)) * 100,
)


async def refused(client: Client) -> str:
    """The connection must end, after a refusal or with nothing."""
    received = await client.ended()
    if not received:
        return "closed"
    status = received[9:12]
    if not received.startswith(b"HTTP/1.1 ") or int(status) not in REFUSALS:
        raise Wrong(f"answered {received[:60]!r}")
    return status.decode()


async def refused_while(client: Client, sending: Coroutine[Any, Any, None]) -> str:
    """As L{refused}, of a client that goes on sending."""
    task = asyncio.ensure_future(sending)
    try:
        return await refused(client)
    finally:
        task.cancel()
        client.close()


async def malformed(port: int) -> str:
    """A request that must be refused, at once or in pieces."""
    data = random.choice(MALFORMED)
    client = await Client.connect(port)
    try:
        cut = random.randrange(len(data))
        with suppress(OSError):
            for part in (data[:cut], data[cut:]) if random.random() < 0.5 else (data,):
                await client.send(part)
                await asyncio.sleep(0.01)
        return await refused(client)
    finally:
        client.close()


async def too_large(port: int) -> str:
    """A body in chunks, without end."""
    client = await Client.connect(port)
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"

    async def send() -> None:
        with suppress(OSError):
            await client.send(request("/digest", "POST", "Transfer-Encoding: chunked\r\n"))
            while True:
                await client.send(chunk)

    return await refused_while(client, send())


async def slowloris(port: int) -> str:
    """A head, or a body, that never ends."""
    client = await Client.connect(port)
    begin = random.choice([b"GET / HTTP/1.1\r\n", body_request("/digest", bytes(10_000), False)[:200], b""])

    async def send() -> None:
        with suppress(OSError):
            await client.send(begin)
            while True:
                await client.send(b"X")
                await asyncio.sleep(0.3)

    return await refused_while(client, send())


async def no_reader(port: int) -> str:
    """A large answer that nobody reads."""
    client = await Client.connect(port, receive_buffer=4096)
    try:
        await client.send(request(f"/bytes/1/{LARGE}"))
        await asyncio.sleep(random.uniform(0, 4))
    finally:
        client.reset()
    return "left"


async def flood(port: int) -> str:
    """Many connections that say little or nothing, and go away."""
    clients = []
    try:
        for _ in range(40):
            with suppress(OSError):
                client = await Client.connect(port)
                clients.append(client)
                if random.random() < 0.5:
                    await client.send(request("/work/1")[: random.randrange(40)])
        await asyncio.sleep(random.uniform(0, 0.5))
    finally:
        for client in clients:
            random.choice([client.close, client.reset])()
    return "left"


async def leaving(port: int) -> str:
    """A request whose client leaves: before it is sent, while it waits, while it is served, while it is answered."""
    seed = random.randrange(10**6)
    data = random.choice(
        [
            request("/work/100", user=0),
            request("/work/100", user=0),
            request("/bad/hang"),
            request("/bad/drip"),
            request(f"/bytes/{seed}/{LARGE}"),
            body_request("/digest", content(seed, 200_000), random.random() < 0.5),
            request("/bytes/1/10") * 20,
        ]
    )
    client = await Client.connect(port)
    try:
        if random.random() < 0.4:
            data = data[: random.randrange(len(data))]
        with suppress(OSError):
            await client.send(data)
            if random.random() < 0.3:
                await asyncio.wait_for(client.reader.read(100), 2)
    except asyncio.TimeoutError:
        pass
    finally:
        await asyncio.sleep(random.choice([0, 0, random.uniform(0, 0.3)]))
        random.choice([client.close, client.reset])()
    return "left"


async def half_closed(port: int) -> str:
    """A client that closes its half of the connection: it may be answered or not, but the connection ends."""
    client = await Client.connect(port)
    try:
        await client.send(request("/work/20"))
        with suppress(OSError):
            client.writer.write_eof()
        await client.ended()
    finally:
        client.close()
    return "ended"


#: Each with its share.
HOSTILE: list[tuple[Callable[[int], Awaitable[str]], int]] = [
    (malformed, 12),
    (too_large, 2),
    (slowloris, 3),
    (no_reader, 2),
    (flood, 2),
    (leaving, 20),
    (half_closed, 3),
]
