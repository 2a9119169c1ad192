"""What only the kernel knows of a TCP connection: how much has arrived at the client, and whether that is there."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

import attrs

# struct tcp_info of linux/tcp.h, of which the first bytes never change: the state, segments under way, bytes that the
# peer has acknowledged (since Linux 4.1), and bytes that were not sent yet (4.6).
_LINUX = sys.platform.startswith("linux")
_SIZE = 148
_FACTS = struct.Struct("=B23xI92xQ16xI")

#: TCP_CLOSE and TCP_CLOSE_WAIT of Linux: the peer has reset the connection, or closed its half.
_GONE = frozenset((7, 8))


@attrs.frozen
class Seen:
    """
    @ivar acknowledged: bytes that the client's system has taken, of all since the connection began; of TLS, its own.
    @ivar waiting: some are on their way, or wait in the kernel.
    @ivar gone: the client has closed its half, or all.
    """

    acknowledged: int
    waiting: bool
    gone: bool


def look(transport: Any) -> Seen | None:
    """What the kernel tells of a transport's connection; None where it does not: a unix socket, another system."""
    below = getattr(transport, "socket", None)
    if below is None or not _LINUX:
        return None
    try:
        state, under_way, acknowledged, unsent = _FACTS.unpack(
            below.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
        )
    except (OSError, struct.error):
        return None  # a unix socket, an old kernel
    return Seen(acknowledged, bool(under_way or unsent), state in _GONE)


def gone(transport: Any) -> bool:
    """Whether a client has left, as far as anybody tells."""
    seen = look(transport)
    return seen is not None and seen.gone
