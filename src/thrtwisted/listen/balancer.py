"""
What a load balancer says first of a client, by the PROXY protocol: looked at before Twisted reads it.

Twisted's C{haproxy:} endpoint takes anything for an address, writes a traceback into the log for some malformed lines,
and does not know the short form of one that names nobody. Here it gets what is whole and well-formed.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

#: What version 1 begins with, and version 2 (section 2.2 of the protocol).
_LINE = b"PROXY "
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

#: Bytes of a line with its CRLF, at most (section 2.1), and of what precedes the addresses in version 2.
_LINE_LENGTH = 107
_FIXED = 16

#: Bytes of the addresses, by their family and protocol; of nobody's (0) and of other kinds none are read.
_ADDRESSES = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}

_LOCAL, _PROXIED = 0x20, 0x21


def with_client(endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
    """An endpoint whose connections begin with the PROXY protocol, version 1 or 2, or are aborted."""
    wrapped: IStreamServerEndpoint = proxyEndpoint(_Guarded(endpoint))
    return wrapped


def header(data: bytes | bytearray) -> tuple[bytes, int] | None:
    """
    The header that a connection begins with, as Twisted reads it; and how many bytes it took. None if it has not ended.

    @raise ValueError: it is none.
    """
    if data[: len(_LINE)] == _LINE[: len(data)]:
        return _version_1(data)
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _version_2(data)
    raise ValueError("it does not begin with the PROXY protocol")


def _version_1(data: bytes | bytearray) -> tuple[bytes, int] | None:
    end = data.find(b"\r\n", 0, _LINE_LENGTH)
    if end < 0:
        if len(data) >= _LINE_LENGTH:
            raise ValueError("its line does not end")
        return None
    line = bytes(data[:end])
    kind, *fields = line.split(b" ")[1:]
    if kind == b"UNKNOWN":  # whatever follows that is to be ignored, and nothing need follow
        return b"PROXY UNKNOWN \r\n", end + 2
    if len(fields) != 4:
        raise ValueError("its line has not two addresses and two ports")
    for address in fields[:2]:
        _check_address(kind, address.decode("ascii"))
    if not all(port.isdigit() and int(port) < 65536 for port in fields[2:]):
        raise ValueError("its line has a port that is none")
    return line + b"\r\n", end + 2


def _check_address(kind: bytes, address: str) -> None:
    if kind == b"TCP4":
        IPv4Address(address)
    elif kind != b"TCP6" or IPv6Address(address).scope_id is not None:
        raise ValueError("its line has no addresses of TCP")


def _version_2(data: bytes | bytearray) -> tuple[bytes, int] | None:
    if len(data) < _FIXED:
        return None
    command, kind, size = data[12], data[13], int.from_bytes(data[14:_FIXED], "big")
    known = kind in _ADDRESSES or not kind & 0xF0 or not kind & 0x0F
    if command != _LOCAL and (command != _PROXIED or not known or size < _ADDRESSES.get(kind, 0)):
        raise ValueError("its header is malformed")
    end = _FIXED + size
    return (bytes(data[:end]), end) if len(data) >= end else None


class _Guard(ProtocolWrapper):
    """Holds back what comes first until it is known to be well-formed; then it lets everything pass."""

    transport: Any

    _log = Logger()
    _first: bytearray | None = None

    def makeConnection(self, transport: object) -> None:
        """A load balancer has connected."""
        self._first = bytearray()
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Look at what comes first."""
        if self._first is None:
            self.wrappedProtocol.dataReceived(data)
            return
        self._first += data
        try:
            found = header(self._first)
        except ValueError as error:
            self._log.debug("A connection is aborted: {error}.", error=error)
            self.transport.abortConnection()
            return
        if found is not None:
            first, end = found
            rest, self._first = bytes(self._first[end:]), None
            self.wrappedProtocol.dataReceived(first + rest)


class _Guards(WrappingFactory):
    protocol = _Guard


@implementer(IStreamServerEndpoint)
class _Guarded:
    """An endpoint whose connections are guarded."""

    def __init__(self, endpoint: IStreamServerEndpoint) -> None:
        self._endpoint = endpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen, and guard what is accepted."""
        return self._endpoint.listen(_Guards(protocolFactory))  # type: ignore[no-untyped-call]
