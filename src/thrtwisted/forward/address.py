"""Where a backend is, from its URL: pure text in, an address out."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

import attrs
import idna
from twisted.internet.abstract import isIPv6Address

from thrtwisted.redis.url import check_socket_path

#: What is to be written for a backend.
MEND = 'write "http://HOST[:PORT]", "https://HOST[:PORT]" or "unix:///PATH"'
_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class BackendAddress:
    """
    Where one URL of a backend leads.

    @ivar url: as it was written.
    @ivar kind: C{tcp} or C{unix}.
    @ivar host: of C{tcp}: a name or an IP address, without brackets.
    @ivar port: of C{tcp}.
    @ivar path: of C{unix}: the socket.
    @ivar tls: of C{tcp}: whether to speak TLS, and to verify that it is this host.
    @ivar authority: the C{Host} of a request that has none.
    """

    url: str
    kind: Literal["tcp", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False
    authority: bytes = b"localhost"


def parse(url: str, server: str = "backend", mend: str = MEND) -> BackendAddress:
    """
    Read a URL.

    @param server: what is reached by it, in messages.
    @param mend: what is to be written instead.
    @raise ValueError: no server can be reached by it; the message is one line with the mend, and without the URL.
    """
    if re.search(r"[\s\x00-\x1f\x7f\\]", url):
        raise ValueError(f"a URL has neither blanks nor backslashes; {mend}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"no valid host and port; {mend}, the port from 1 to 65535") from None
    scheme = parts.scheme
    if scheme not in (*_PORTS, "unix") or not url.lower().startswith(f"{scheme}://"):
        raise ValueError(f"not the URL of a {server}; {mend}")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError(f"a {server}'s URL has no query; {mend}")
    if "@" in parts.netloc:
        raise ValueError(f"a {server}'s URL has no user; {mend}")
    if scheme == "unix":
        if parts.netloc or len(parts.path) < 2:
            raise ValueError('unix: needs the path of a socket; write three slashes, "unix:///run/app.sock"')
        check_socket_path(parts.path)
        return BackendAddress(url, "unix", path=parts.path)
    if not parts.hostname or port == 0:
        raise ValueError(f"no valid host and port; {mend}, the port from 1 to 65535")
    if parts.path not in ("", "/"):
        raise ValueError(f"a {server}'s URL ends after the port, for the request's own path follows; {mend}")
    name = _checked_name(parts.hostname)
    authority = parts.netloc.encode("ascii") if parts.netloc.isascii() else name
    if not parts.netloc.isascii() and port:
        authority += b":%d" % port
    return BackendAddress(
        url, "tcp", parts.hostname, port or _PORTS[scheme], tls=scheme == "https", authority=authority
    )


def _checked_name(host: str) -> bytes:
    """
    A host's name as it is asked for; as HostnameEndpoint has it, which says so only when it connects.

    @raise ValueError: there can be no host of this name.
    """
    if isIPv6Address(host):
        return host.encode("ascii")
    try:
        return idna.encode(host)
    except UnicodeError:
        raise ValueError(
            "not the name of a host, which has letters, digits and hyphens, with dots between parts of 1 to 63; "
            "write another name of it, or its address"
        ) from None


def check_health(target: str) -> None:
    """
    See that a URL can be asked for this.

    @raise ValueError: it cannot; the message is one line with the mend.
    """
    if not re.fullmatch(r"/[\x21-\x7e]*", target) or "#" in target:
        raise ValueError('no path of a request; write one such as "/health", percent-encoded')
