"""Clients that do as they should, some of them slowly, and look at every byte of what they get."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bench.soaking.content import content, digest
from bench.soaking.misbehaving import BAD, BODY, GOOD, IN_SHORT, SHORT
from bench.soaking.talk import Answer, Client, Cut, Wrong

#: How many users there are, each with a limit of its own.
USERS = 5

LARGE = 3_000_000


def request(target: str, method: str = "GET", fields: str = "", user: int | None = None) -> bytes:
    """The head of a request."""
    user = random.randrange(USERS) if user is None else user
    return f"{method} {target} HTTP/1.1\r\nHost: soak\r\nX-User: {user}\r\n{fields}\r\n".encode()


def body_request(target: str, body: bytes, chunked: bool) -> bytes:
    """A request with its body."""
    if not chunked:
        return request(target, "POST", f"Content-Length: {len(body)}\r\n") + body
    parts = []
    start = 0
    while start < len(body):
        piece = body[start : start + random.randrange(1, 50_000)]
        start += len(piece)
        parts.append(b"%x\r\n%b\r\n" % (len(piece), piece))
    return request(target, "POST", "Transfer-Encoding: chunked\r\n") + b"".join(parts) + b"0\r\n\r\n"


def regulated(answer: Answer) -> bool:
    """Whether a client is told to come later, as it may be at any time."""
    if answer.status == 503 and "retry-after" not in answer.headers:
        raise Wrong("503 without Retry-After")
    return answer.status == 503


def expect(answer: Answer, body: bytes, status: int = 200) -> str:
    """Look at an answer."""
    if regulated(answer):
        return "told to come later"
    if answer.status != status:
        raise Wrong(f"{answer.status} for {status}: {answer.body[:100]!r}")
    if answer.body != body:
        raise Wrong(f"{len(answer.body)} other bytes than the {len(body)} of the answer")
    return "answered"


def some() -> tuple[int, int]:
    """A seed and a size: of most answers small, of some not."""
    return random.randrange(10**6), int(10 ** random.uniform(0, 5.5))


async def kept(port: int) -> str:
    """Several requests on one connection, one after the other."""
    client = await Client.connect(port)
    outcome = "answered"
    try:
        for number in range(random.randrange(1, 6)):
            seed, size = some()
            kind = random.choice(["bytes", "chunked"])
            await client.send(request(f"/{kind}/{seed}/{size}"))
            try:
                answer = await client.answer()
            except Cut as cut:
                if number and not cut.begun:
                    return "closed while it was idle"  # the proxy may do so; a client asks again
                raise
            outcome = expect(answer, content(seed, size))
            if answer.last:
                break
    finally:
        client.close()
    return outcome


async def pipelined(port: int) -> str:
    """Several requests at once on one connection, answered in order."""
    client = await Client.connect(port)
    try:
        asked = [some() for _ in range(random.randrange(2, 8))]
        await client.send(b"".join(request(f"/bytes/{seed}/{size}") for seed, size in asked))
        for number, (seed, size) in enumerate(asked):
            answer = await client.answer()
            outcome = expect(answer, content(seed, size))
            if answer.last and number < len(asked) - 1:
                return "closed in order"
    finally:
        client.close()
    return outcome


async def upload(port: int) -> str:
    """A body, by its length or in chunks, small or large, after C{100 Continue} or not."""
    seed, size = some()
    if not random.randrange(8):
        size = LARGE
    body = content(seed, size)
    client = await Client.connect(port)
    try:
        with suppress(ConnectionError):  # the answer may be there all the same
            await client.send(body_request("/digest", body, random.random() < 0.5))
        return expect(await client.answer(), digest([body]).encode())
    finally:
        client.close()


async def expecting(port: int) -> str:
    """A body that is sent when it is asked for."""
    body = content(*some())
    client = await Client.connect(port)
    try:
        fields = f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n"
        await client.send(request("/digest", "POST", fields))
        first = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 30)
        if not first.startswith(b"HTTP/1.1 100 "):
            return "told to come later" if first.startswith(b"HTTP/1.1 503 ") else "not asked for"
        await client.send(body)
        return expect(await client.answer(), digest([body]).encode())
    except asyncio.IncompleteReadError as error:
        raise Cut(bool(error.partial)) from error
    finally:
        client.close()


async def download(port: int) -> str:
    """A large answer, read as fast as it comes."""
    seed = random.randrange(10**6)
    client = await Client.connect(port)
    try:
        await client.send(request(f"/{random.choice(['bytes', 'chunked'])}/{seed}/{LARGE}"))
        return expect(await client.answer(), content(seed, LARGE))
    finally:
        client.close()


async def slow_reader(port: int) -> str:
    """A large answer, read slowly."""
    seed, size = random.randrange(10**6), LARGE
    client = await Client.connect(port, receive_buffer=8192)
    try:
        await client.send(request(f"/bytes/{seed}/{size}"))
        return expect(await client.answer(pace=0.01), content(seed, size))
    finally:
        client.close()


async def slow_sender(port: int) -> str:
    """A head and a body that come in small pieces."""
    body = content(random.randrange(10**6), random.randrange(1, 3000))
    data = body_request("/digest", body, random.random() < 0.5)
    client = await Client.connect(port)
    try:
        start = 0
        while start < len(data):
            step = random.randrange(1, 200)
            await client.send(data[start : start + step])
            start += step
            await asyncio.sleep(0.02)
        return expect(await client.answer(), digest([body]).encode())
    finally:
        client.close()


async def bodyless(port: int) -> str:
    """Answers that have no body, and the next one on the same connection."""
    client = await Client.connect(port)
    try:
        for method, target, status in (
            ("HEAD", "/bytes/1/1000", 200),
            ("GET", "/status/204", 204),
            ("GET", "/status/304", 304),
            ("GET", "/status/404", 404),
        ):
            await client.send(request(target, method))
            answer = await client.answer(method)
            outcome = expect(answer, b"", status)
            if answer.last:
                break
        return outcome
    finally:
        client.close()


async def waiting(port: int) -> str:
    """A request that takes its time, of a user who has several."""
    client = await Client.connect(port)
    try:
        await client.send(request(f"/work/{random.randrange(100)}", user=0))
        return expect(await client.answer(), b"done")
    finally:
        client.close()


async def odd_backend(port: int) -> str:
    """An answer of the bad backend, which is right all the same; often over a connection that it is about to close."""
    client = await Client.connect(port)
    try:
        behaviour = random.choice([*GOOD, "unannounced", "unannounced"])
        await client.send(request(f"/bad/{behaviour}"))
        return expect(await client.answer(), SHORT if behaviour in IN_SHORT else BODY)
    finally:
        client.close()


async def bad_backend(port: int) -> str:
    """An answer of the bad backend, which must not look right."""
    behaviour = random.choice(list(BAD))
    client = await Client.connect(port)
    try:
        if random.random() < 0.3:
            data = body_request(f"/bad/{behaviour}", bytes(random.randrange(100_000)), chunked=False)
        else:
            data = request(f"/bad/{behaviour}")
        await client.send(data)
        answer = await client.answer()
        if regulated(answer):
            return "told to come later"
        if answer.status not in (502, 504):
            raise Wrong(f"{behaviour}: {answer.status} and {len(answer.body)} bytes, as if it were well")
        return f"{answer.status}"
    except Cut:
        return "seen to be cut"
    finally:
        client.close()


#: Each with its share.
HONEST: list[tuple[Callable[[int], Awaitable[str]], int]] = [
    (kept, 20),
    (pipelined, 8),
    (upload, 10),
    (expecting, 4),
    (download, 2),
    (slow_reader, 2),
    (slow_sender, 4),
    (bodyless, 4),
    (waiting, 10),
    (odd_backend, 12),
    (bad_backend, 8),
]
