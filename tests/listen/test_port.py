"""Tests for L{thrtwisted.listen.port}."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from thrtwisted.listen.port import Listener, endpoint


@implementer(IStreamServerEndpoint)
class LateEndpoint:
    """An endpoint that takes its time to listen."""

    def __init__(self) -> None:
        self.port: Deferred[Any] = Deferred()

    def listen(self, factory: Any) -> Deferred[Any]:
        return self.port


class EndpointTests(SynchronousTestCase):
    """Tests for L{endpoint}."""

    def test_good(self) -> None:
        """An endpoint string makes an endpoint."""
        self.assertIsInstance(endpoint(None, "tcp:8888:interface=127.0.0.1"), TCP4ServerEndpoint)

    def test_backlog(self) -> None:
        """Many clients may connect in one moment; who wants another number says so."""
        memory = MemoryReactorClock()
        for text in ("tcp:1", "haproxy:tcp:2", "tcp:3:backlog=7"):
            endpoint(memory, text).listen(Factory())
        endpoint(memory, "unix:/somewhere").listen(Factory())
        self.assertEqual([server[2] for server in memory.tcpServers], [1024, 1024, 7])
        self.assertEqual([server[2] for server in memory.unixServers], [1024])

    def test_bad(self) -> None:
        """Whatever is wrong with an endpoint string is said in one line, with the mend."""
        for text in (
            "",
            "8888",
            "tcp:",
            "tcp:http",
            "tcp:8888:port=1",
            "tcp:1:2:3:4",
            "nosuch:1",
            "ssl:443:privateKey=/no",
        ):
            message = str(self.assertRaises(ValueError, endpoint, None, text))
            self.assertIn(f"{text!r} is not a Twisted server endpoint", message)
            self.assertIn("tcp:PORT", message)
            self.assertNotIn("\n", message)


class ListenerTests(TestCase):
    """Tests for L{Listener}."""

    def listener(self, endpoint: Any) -> Listener:
        """A listener whose complaints are in C{self.problems}."""
        self.problems: list[str] = []
        return Listener(endpoint, Factory.forProtocol(Protocol), "the door", self.problems.append)

    def local(self, port: int = 0) -> TCP4ServerEndpoint:
        """A TCP port of this host."""
        return TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")

    async def test_listens(self) -> None:
        """It listens from its privileged start to its stop."""
        listener = self.listener(self.local())
        listener.privilegedStartService()
        listener.startService()
        port = await listener.listening
        here = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        protocol = await connectProtocol(here, Protocol())
        protocol.transport.abortConnection()
        await listener.stopService()
        self.assertFalse(listener.running)
        self.assertEqual(self.problems, [])

    async def test_unprivileged(self) -> None:
        """Started without the privileged part, it listens too; stopped, it can be started again."""
        listener = self.listener(self.local())
        listener.startService()
        await listener.listening
        await listener.stopService()
        await listener.stopService()

    async def test_taken(self) -> None:
        """A port that is taken is a problem at once, said in one line."""
        first = self.listener(self.local())
        first.startService()
        self.addCleanup(first.stopService)
        number = (await first.listening).getHost().port
        second = self.listener(self.local(number))
        second.privilegedStartService()
        [problem] = self.problems
        self.assertRegex(problem, r"^cannot listen on the door: .*in use$")
        await second.stopService()

    def test_taken_raises(self) -> None:
        """Who is told at once may raise, and so end the process."""

        def give_up(problem: str) -> None:
            raise SystemExit(1)

        door = LateEndpoint()
        door.port.errback(OSError("no"))
        listener = Listener(door, Factory(), "the door", give_up)
        self.assertRaises(SystemExit, listener.privilegedStartService)

    def test_taken_late(self) -> None:
        """A port that turns out to be taken later is a problem then."""
        door = LateEndpoint()
        listener = self.listener(door)
        listener.startService()
        self.assertEqual(self.problems, [])
        door.port.errback(OSError("no luck"))
        self.assertEqual(self.problems, ["cannot listen on the door: no luck"])
        self.assertNoResult(listener.listening)
        self.successResultOf(listener.stopService())

    def test_stopped_early(self) -> None:
        """Stopped before it listens, it never does, and that is no problem."""
        door = LateEndpoint()
        listener = self.listener(door)
        listener.startService()
        self.successResultOf(listener.stopService())
        self.assertEqual(self.problems, [])
