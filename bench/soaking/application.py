"""
The good backend: a WSGI application.

    /bytes/SEED/SIZE    so many bytes, with their length; those of C{/chunked/SEED/SIZE} without
    /digest             the digest of the body
    /work/MILLISECONDS  takes so long
    /status/CODE        nothing but a status
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from bench.soaking.content import PIECE, digest, pieces


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do what the path says."""
    _, kind, *rest = environ["PATH_INFO"].split("/")
    headers = [("Content-Type", "application/octet-stream")]
    status = HTTPStatus(int(rest[0])) if kind == "status" else HTTPStatus.OK
    body: Iterable[bytes]
    if kind in ("bytes", "chunked"):
        seed, size = map(int, rest)
        body = pieces(seed, size)
        if kind == "bytes":
            headers.append(("Content-Length", str(size)))
    else:
        said = b""
        if kind == "digest":
            said = digest(_sent(environ)).encode()
        elif kind == "work":
            time.sleep(int(rest[0]) / 1000)
            said = b"done"
        body = [said]
        if status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            headers.append(("Content-Length", str(len(said))))
    start_response(f"{status.value} {status.phrase}", headers)
    return body


def _sent(environ: dict[str, Any]) -> Iterator[bytes]:
    while piece := environ["wsgi.input"].read(PIECE):
        yield piece
