"""What the tests of this directory stand on: a link's user that takes notes, and servers that say what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.forward.support import until
from thrtwisted.redis.link import ILinkUser
from thrtwisted.redis.url import RedisAddress


@implementer(ILinkUser)
class User:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.when_up: Callable[[], object] = lambda: None
        self.when_down: Callable[[], object] = lambda: None

    def up(self) -> None:
        self.told.append("up")
        self.when_up()

    def down(self) -> None:
        self.told.append("down")
        self.when_down()

    def message(self, payload: bytes) -> None:
        self.told.append(payload)


class Commands:
    """How a scripted server reads: commands as lists of bytes."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[list[bytes]]:
        self._data += data
        commands = []
        while (command := self._take()) is not None:
            commands.append(command)
        return commands

    def _take(self) -> list[bytes] | None:
        lines = self._data.split(b"\r\n")
        if len(lines) < 2 or not lines[0].startswith(b"*"):
            return None
        count = 2 * int(lines[0][1:])
        if len(lines) < count + 2:
            return None
        self._data = b"\r\n".join(lines[count + 1 :])
        return lines[2 : count + 1 : 2]


Answer = Callable[[list[bytes]], bytes | None]


class ScriptedServer(Factory):
    """
    A server on 127.0.0.1 that says what the test wants. It listens until it is stopped, or the test is over.

    @ivar answer: from a command to the reply; None to say nothing, an exception to close.
    @ivar commands: what was asked.
    @ivar received: all bytes of a command or of none.
    @ivar accepted: how many connections there were.
    """

    noisy = False

    def __init__(self, test: TestCase, answer: Answer, tls: Any = None) -> None:
        """
        @param tls: the context factory of a server that speaks TLS.
        """
        self.answer = answer
        self.tls = tls
        self.commands: list[list[bytes]] = []
        self.received = b""
        self.connections: list[ScriptedConnection] = []
        self.accepted = 0
        self.port = 0
        self._listening: Any = None
        test.addCleanup(self.stop)

    async def listen(self) -> ScriptedServer:
        """Listen; at the same port again, after a stop."""
        endpoint: Any
        if self.tls is None:
            endpoint = TCP4ServerEndpoint(reactor, self.port, interface="127.0.0.1")
        else:
            endpoint = SSL4ServerEndpoint(reactor, self.port, self.tls, interface="127.0.0.1")
        self._listening = await endpoint.listen(self)
        self.port = self._listening.getHost().port
        return self

    def stop(self) -> Deferred[None]:
        """Listen no more, and close all connections."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        for connection in self.connections:
            connection.transport.abortConnection()
        await until(lambda: not self.connections)

    @property
    def address(self) -> RedisAddress:
        """Where it is."""
        return RedisAddress("tcp", host="127.0.0.1", port=self.port, tls=self.tls is not None)

    @property
    def place(self) -> str:
        """Where it is, for a URL."""
        return self.address.place

    def buildProtocol(self, addr: object) -> Protocol:
        self.accepted += 1
        return ScriptedConnection(self)


class ScriptedConnection(Protocol):
    """One connection to it."""

    transport: Any

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.reader = Commands()

    def connectionMade(self) -> None:
        self.server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.server.received += data
        for command in self.reader.feed(data):
            self.server.commands.append(command)
            try:
                reply = self.server.answer(command)
            except Exception:
                self.transport.abortConnection()
                return
            if reply is not None:
                self.transport.write(reply)

    def connectionLost(self, reason: object = None) -> None:
        self.server.connections.remove(self)


def good(command: list[bytes]) -> bytes | None:
    """What a server in order says, whose scripts all reply "hi"."""
    if command[0] == b"SUBSCRIBE":
        return resp([b"subscribe", command[1], 1])
    if command[0] in (b"EVALSHA", b"EVAL"):
        return resp(b"hi")
    return b"+OK\r\n"


def resp(value: Any) -> bytes:
    """A reply: None, bytes, a number, or a list of such."""
    if value is None:
        return b"*-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"*%d\r\n" % len(value) + b"".join(map(resp, value))
