"""Where a service is, and what it is asked for there: pure text in, an address out."""

from __future__ import annotations

import re

import attrs

from thrtwisted.forward.address import parse as parse_server

_URL = re.compile(r"(https?://[^/?#]*)(/.*)?", re.IGNORECASE)
_MEND = 'write "http://HOST[:PORT]/PATH", "https://HOST[:PORT]/PATH" or "unix:///PATH"'
_TARGET = re.compile(r"/[\x21-\x7e]*")


@attrs.frozen
class ServiceAddress:
    """
    Where a service is.

    @ivar server: the URL of the server alone, as of a backend.
    @ivar target: of the questions: a path, with a query if there is one.
    @ivar tls: whether to speak TLS.
    """

    server: str
    target: bytes
    tls: bool


def parse_service(url: str) -> ServiceAddress:
    """
    Read the URL of a service.

    @raise ValueError: nothing can be asked there; the message is one line with the mend, and without the URL.
    """
    match = _URL.fullmatch(url)
    if match is None and not url.lower().startswith("unix:"):
        raise ValueError(f"not the URL of a service; {_MEND}")
    server, target = (match[1], match[2] or "/") if match is not None else (url, "/")
    if not _TARGET.fullmatch(target) or "#" in target or "\\" in target:
        raise ValueError('no path of a request after the host; write one such as "/auth", percent-encoded')
    return ServiceAddress(server, target.encode("ascii"), parse_server(server, "service", _MEND).tls)
