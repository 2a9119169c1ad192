"""Clients that send what they like, when they like."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from tests.integration.harness import Answer, Running, until


class Raw(Protocol):
    """
    A connection to a proxy.

    @ivar received: the bytes so far.
    @ivar ended: the proxy has closed it.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.ended = True

    def send(self, data: bytes) -> None:
        """Send, whatever it is."""
        self.transport.write(data)

    async def end(self) -> Answer:
        """What there is when the proxy has closed the connection."""
        await until(lambda: self.ended)
        return Answer(bytes(self.received))

    async def got(self, text: bytes) -> None:
        """Wait for a text."""
        await until(lambda: text in self.received or self.ended)
        assert text in self.received, bytes(self.received)

    def leave(self) -> None:
        """Close the connection at once."""
        if self.connected:
            self.transport.abortConnection()


def connect(proxy: Running, data: bytes = b"", host: str = "127.0.0.1") -> Deferred[Raw]:
    """
    Connect, and send this.

    @param host: the address to come from.
    """
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.port, bindAddress=(host, 0))

    def connected(client: Raw) -> Raw:
        if data:
            client.send(data)
        return client

    return connectProtocol(endpoint, Raw()).addCallback(connected)
