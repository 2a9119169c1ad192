"""
The application behind the proxies of these tests: a plain WSGI function, for any server.

Its paths, each with a name that tells the requests apart:

    /work/NAME?seconds=S    takes so long
    /hold/NAME              takes until somebody asks for /let/NAME
    /bytes/NAME?size=N      answers with so many bytes, no two pieces of which are the same
    /digest/NAME            answers with the digest of what it was sent
    /cut/NAME?size=N        announces so many bytes (0: does not), and breaks off after some

On stdout it says what it does, a line for each begin and each end, C{SECONDS begin NAME}. The seconds are those of
C{time.monotonic}, one clock for all processes of a machine. The end is noted before the server sends the answer's last
bytes, so that nobody who waits for that can seem to have been too early.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

PIECE = 64 * 1024

_FILLING = random.Random(1).randbytes(PIECE - 8)
_held: dict[str, threading.Event] = {}


def pieces(size: int) -> Iterator[bytes]:
    """So many bytes, which anybody can make again."""
    for number in range(-(-size // PIECE)):
        yield (number.to_bytes(8, "big") + _FILLING)[: size - number * PIECE]


def digest(body: Iterable[bytes]) -> str:
    """What tells a body from any other."""
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Do what the path says."""
    _, kind, name = environ["PATH_INFO"].split("/")
    query = parse_qs(environ["QUERY_STRING"])
    if kind == "let":
        _event(name).set()
        return _answer(start_response, b"it may go on\n")
    _say("begin", name)
    if kind == "bytes":
        return _bytes(start_response, name, int(query["size"][0]))
    if kind == "cut":
        return _cut(start_response, name, int(query["size"][0]))
    said = f"{name} is done\n"
    if kind == "work":
        time.sleep(float(query["seconds"][0]))
    elif kind == "hold":
        _event(name).wait(60)
    elif kind == "digest":
        said = digest(_sent(environ))
    _say("end", name)
    return _answer(start_response, said.encode())


def _answer(start_response: Callable[..., Any], body: bytes) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return iter([body])


def _sent(environ: dict[str, Any]) -> Iterator[bytes]:
    left = int(environ["CONTENT_LENGTH"])
    while left:
        piece = environ["wsgi.input"].read(min(PIECE, left))
        if not piece:
            raise RuntimeError("the request was cut")
        left -= len(piece)
        yield piece


def _bytes(start_response: Callable[..., Any], name: str, size: int) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Length", str(size))])
    yield from pieces(size)
    _say("end", name)


def _cut(start_response: Callable[..., Any], name: str, size: int) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Length", str(size))] if size else [])
    yield b"some of it"
    _say("end", name)
    raise RuntimeError("broken off, as the path says")


def _event(name: str) -> threading.Event:
    return _held.setdefault(name, threading.Event())


def _say(what: str, name: str) -> None:
    os.write(1, b"%.6f %b %b\n" % (time.monotonic(), what.encode(), name.encode()))
