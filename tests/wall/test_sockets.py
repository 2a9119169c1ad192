"""Tests that replay the corpus over real sockets, against the command in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.integration.harness import Client, IntegrationCase, Running
from tests.wall.corpus import Entry
from tests.wall.recorder import Got, Malformed, Reader, Result, Seen, agreed, answers, echo_answer
from tests.wall.test_corpus import complaint, entries

CONFIG = """
listen = "tcp:0:interface=127.0.0.1"

[backend.app]
url = "http://127.0.0.1:{port}"
max_concurrent = 1
"""

#: Seconds after which nothing is waited for any more.
LIMIT = 10.0


class _Connection(Protocol):
    """A connection of the recorder's."""

    def __init__(self, recorder: Recorder) -> None:
        self.received = b""
        self.reader = Reader()
        self._recorder = recorder

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        try:
            for seen in self.reader.feed(data):
                self._recorder.seen.append(seen)
                assert self.transport is not None
                self.transport.write(echo_answer(seen))
        except (Malformed, ValueError) as error:
            self._recorder.broken.append(f"{error}: {self.received[-500:]!r}")


class Recorder(Factory):
    """
    A backend that answers each request that it can frame, and records every byte.

    @ivar seen: the requests of all connections, in the order in which they were complete.
    """

    noisy = False

    def __init__(self) -> None:
        self.connections: list[_Connection] = []
        self.seen: list[Seen] = []
        self.broken: list[str] = []

    def buildProtocol(self, addr: object) -> Protocol:
        self.connections.append(_Connection(self))
        return self.connections[-1]


def got(client: Client) -> list[Got] | None:
    """The answers that a client has got; None if one of them is not complete."""
    try:
        return answers(bytes(client.received), ended=client.answer.called)
    except Malformed:
        return None


class SocketTests(IntegrationCase):
    """Tests for the proxy as it is run, over sockets."""

    timeout = 180

    async def test_corpus(self) -> None:
        """Each input, followed by an honest client that is served as ever; one proxy lives through them all."""
        self.recorder = Recorder()
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.recorder)
        self.addCleanup(port.stopListening)
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write(CONFIG.format(port=port.getHost().port))
        self.proxy_process = await self.twistd("--config", path, covered=False)
        problems = []
        for name, entry in entries():
            problem = await self.replay(self.proxy_process, name, entry)
            if problem:
                problems.append(f"{name}: {problem[:300]}")
        self.assertEqual(problems, [], "\n".join(["", *problems]))
        self.assertEqual(self.recorder.broken, [])
        recorded = [seen for connection in self.recorder.connections for seen in agreed(connection.received)]
        self.assertCountEqual(recorded, self.recorder.seen)
        # What clients send is logged, but commands nobody's terminal, and is not taken for a line of its own.
        logged = self.proxy_process.child.output.decode()
        self.assertEqual([line for line in logged.split("\n") if not line.isprintable()], [])
        self.assertEqual([line for line in logged.split("\n") if line and not line.startswith("20")], [])
        for connection in self.recorder.connections:
            assert connection.transport is not None
            connection.transport.loseConnection()

    async def replay(self, proxy: Running, name: str, entry: Entry) -> str:
        """What is wrong with what comes of an input; nothing if it is as the entry says."""
        before = len(self.recorder.seen)
        client = await self.send(proxy, entry.sent)
        first = await self.honest(proxy, b"first")

        def problem() -> str:
            seen = [each for each in self.recorder.seen[before:] if each.target != b"/honest"]
            found = got(client)
            if found is None:
                return f"an incomplete answer: {bytes(client.received[:200])!r}"
            return complaint(name, entry, Result(seen, found, bool(client.answer.called), len(seen), ""))

        await self.wait(lambda: not problem())
        found = problem()
        client.leave()
        second = await self.honest(proxy, b"second")
        return found or first or second

    async def honest(self, proxy: Running, identity: bytes) -> str:
        """An honest client is served as ever; what is wrong if it is not."""
        client = await self.send(
            proxy,
            b"GET /honest HTTP/1.1\r\nHost: honest\r\nConnection: close\r\nX-Id: %b\r\n\r\n" % identity,
        )
        await self.wait(lambda: client.answer.called)
        found = got(client)
        if found is None or [each.body for each in found] != [b"GET /honest %b 0" % identity]:
            client.leave()
            return f"an honest client got {bytes(client.received)!r}"
        return ""

    async def send(self, proxy: Running, data: bytes) -> Client:
        """A client that has sent this."""
        client = Client(data)
        self._clients.append(client)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.port), client)
        return client

    async def wait(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, but not for ever: the caller sees whether it has come about."""
        deadline = time.monotonic() + LIMIT
        while not condition() and time.monotonic() < deadline:
            await deferLater(reactor, 0.001)
