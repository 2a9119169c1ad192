"""Tests for L{thrtwisted.redis.link}: in memory, where each phase can be stopped, and with a real server."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import Any

import txredisapi
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests import valkey
from tests.forward.support import Wire, until
from tests.redis.support import Answer, ScriptedServer, User, good, resp
from thrtwisted.redis import ISource
from thrtwisted.redis import link as module
from thrtwisted.redis.connection import Dialer
from thrtwisted.redis.link import (
    HANDSHAKE,
    LONGEST_PAUSE,
    LONGEST_PAUSE_REFUSED,
    MOVES,
    ILinkUser,
    Link,
    RedisGone,
)
from thrtwisted.redis.listening import Subscription
from thrtwisted.redis.source import source_of
from thrtwisted.redis.url import RedisAddress

#: Seconds after which the connections of a link with the usual pauses are believed to last, and a little more.
BELIEVED = 2 * LONGEST_PAUSE + 0.005

WATCH_FAILED = "The watch on who has the keys has failed; it is begun anew"

CHANNEL = "{test}:owner:me"
SCRIPT = b"return {KEYS[1], ARGV[1]}"
SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$15\r\n{test}:owner:me\r\n:1\r\n"


class MemoryLinkTestCase(SynchronousTestCase):
    """A link in memory, whose server is the test."""

    address = RedisAddress("unix", path="/run/redis.sock")

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        # txredisapi takes the global reactor's, which does not run here.
        self.patch(txredisapi.LineReceiver, "callLater", self.clock.callLater)
        self.user = User()
        self.link = Link(
            self.clock, source_of(self.address), Subscription(CHANNEL, self.user.message), self.user
        )
        self.wires: list[Wire] = []
        self.answered = 0

    def stop(self) -> None:
        """Stop the link: nothing is left, and nothing is told."""
        told = list(self.user.told)
        stopped = self.link.stop()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.check_nothing_left()
        self.assertEqual(self.user.told, told)

    def check_nothing_left(self) -> None:
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        self.assertTrue(all(wire.lost for wire in self.wires))
        for connector in self.clock.connectors[self.answered :]:
            self.assertTrue(connector.stoppedConnecting)

    @property
    def attempts(self) -> int:
        """How many connections were asked for."""
        return len(self.clock.unixClients)

    def accept(self) -> Wire:
        """The server accepts the connection that was asked for last."""
        self.assertEqual(self.answered, self.attempts - 1)
        self.answered += 1
        factory = self.clock.unixClients[-1][1]
        wire = Wire(self.clock, factory.buildProtocol(UNIXAddress(None)))
        self.wires.append(wire)
        return wire

    def refuse(self, error: Exception | None = None) -> None:
        """It refuses it."""
        self.answered += 1
        factory = self.clock.unixClients[-1][1]
        factory.clientConnectionFailed(self.clock.connectors[-1], Failure(error or ConnectionRefusedError()))

    def receive(self, wire: Wire, data: bytes) -> None:
        wire.receive(data)
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def connect(self) -> tuple[Wire, Wire]:
        """Let both connections stand."""
        commands, messages = self.accept(), self.accept()
        self.receive(messages, SUBSCRIBED)
        return commands, messages

    def await_attempt(self, number: int, within: float) -> None:
        """Let time pass until the link has asked for so many connections."""
        end = self.clock.seconds() + within
        while self.attempts < number and self.clock.seconds() < end:
            self.clock.advance(0.01)
        self.assertEqual(self.attempts, number)


class LinkTests(MemoryLinkTestCase):
    """A link in use."""

    def setUp(self) -> None:
        super().setUp()
        self.link.start()
        self.addCleanup(self.stop)

    def test_interface(self) -> None:
        """Its user provides an interface, and the connections go where the address says."""
        self.assertTrue(ILinkUser.providedBy(self.user))
        self.assertEqual(self.clock.unixClients[0][0], "/run/redis.sock")

    def test_up(self) -> None:
        """The user is told once both connections stand and the channel is subscribed to."""
        commands = self.accept()
        messages = self.accept()
        self.assertEqual(commands.value(), b"")
        self.assertEqual(messages.value(), b"*2\r\n$9\r\nSUBSCRIBE\r\n$15\r\n{test}:owner:me\r\n")
        self.assertEqual(self.user.told, [])
        self.receive(messages, SUBSCRIBED)
        self.assertEqual(self.user.told, ["up"])
        self.assertEqual(self.attempts, 2)

    def test_message(self) -> None:
        """What arrives on the channel is told as it is, be it in pieces, be it a number in letters."""
        _, messages = self.connect()
        head = b"*3\r\n$7\r\nmessage\r\n$15\r\n{test}:owner:me\r\n"
        for byte in head + b"$5\r\n\xff\x00\r\n1\r\n":
            self.receive(messages, bytes([byte]))
        self.receive(messages, head + b"$3\r\n007\r\n" + head + b"$0\r\n\r\n")
        self.assertEqual(self.user.told, ["up", b"\xff\x00\r\n1", b"007", b""])

    def test_script(self) -> None:
        """A script is run by its digest, with its key and its argument."""
        commands, _ = self.connect()
        reply = self.link.script(SCRIPT, "{key}", b"\x00argument")
        self.assertEqual(
            commands.value(),
            b"*5\r\n$7\r\nEVALSHA\r\n$40\r\nd006f1a90249474274c76f5be725b8f5804a346b\r\n"
            b"$1\r\n1\r\n$5\r\n{key}\r\n$9\r\n\x00argument\r\n",
        )
        self.assertNoResult(reply)
        self.receive(commands, b"$4\r\n\xffyes\r\n")
        self.assertEqual(self.successResultOf(reply), b"\xffyes")

    def test_script_not_known(self) -> None:
        """A server that does not know the script is given its text, and told that it may lack more than that."""
        commands, _ = self.connect()
        reply = self.link.script(SCRIPT, "{key}", b"argument")
        commands.clear()
        self.receive(commands, b"-NOSCRIPT No matching script.\r\n")
        self.assertEqual(
            commands.value(),
            b"*6\r\n$4\r\nEVAL\r\n$%d\r\n%b\r\n$1\r\n1\r\n$5\r\n{key}\r\n$8\r\nargument\r\n$1\r\n1\r\n"
            % (len(SCRIPT), SCRIPT),
        )
        self.receive(commands, b"$3\r\nyes\r\n")
        self.assertEqual(self.successResultOf(reply), b"yes")

    def test_other_server_of_the_same_name(self) -> None:
        """A server with another IP address may lack something, though the URL names it so."""
        commands, _ = self.connect()
        reply = self.link.script(SCRIPT, "{key}", b"argument")
        self.receive(commands, b"$3\r\nyes\r\n")
        self.successResultOf(reply)
        for address, unfamiliar in (("10.0.0.1", True), ("10.0.0.1", False), ("10.0.0.2", True)):
            self.link.reset()
            self.clock.advance(0)
            self.await_attempt(self.attempts + 1, within=1)
            commands, messages = self.accept(), self.accept()
            commands.peerAddr = IPv4Address("TCP", address, 6379)
            self.receive(messages, SUBSCRIBED)
            reply = self.link.script(SCRIPT, "{key}", b"argument")
            self.assertEqual(commands.value().endswith(b"argument\r\n$1\r\n1\r\n"), unfamiliar)
            self.receive(commands, b"$3\r\nyes\r\n")
            self.successResultOf(reply)

    def test_script_refused(self) -> None:
        """An error of the script's is told as it is."""
        commands, _ = self.connect()
        reply = self.link.script(SCRIPT, "{key}", b"argument")
        self.receive(commands, b"-ERR no memory\r\n")
        self.assertEqual(
            self.failureResultOf(reply, txredisapi.ResponseError).getErrorMessage(), "ERR no memory"
        )

    def test_script_without_redis(self) -> None:
        """Nobody waits for a connection."""
        self.failureResultOf(self.link.script(SCRIPT, "{key}", b""), RedisGone)
        self.accept()
        self.failureResultOf(self.link.script(SCRIPT, "{key}", b""), RedisGone)
        self.accept()
        self.failureResultOf(self.link.script(SCRIPT, "{key}", b""), RedisGone)

    def test_command(self) -> None:
        """Commands are sent as they are, and answered in their order, each with what it is told."""
        commands, _ = self.connect()
        commands.clear()
        replies = [self.link.command(b"GET", "k\xe9y", number) for number in range(3)]
        ask = b"*3\r\n$3\r\nGET\r\n$4\r\nk\xc3\xa9y\r\n$1\r\n%d\r\n"
        self.assertEqual(commands.value(), ask % 0 + ask % 1 + ask % 2)
        self.receive(commands, b"$-1\r\n-ERR no\r\n*2\r\n:1\r\n$0\r\n\r\n")
        self.assertIsNone(self.successResultOf(replies[0]))
        self.assertEqual(str(self.failureResultOf(replies[1], txredisapi.ResponseError).value), "ERR no")
        self.assertEqual(self.successResultOf(replies[2]), [1, b""])

    def test_command_without_redis(self) -> None:
        """Nobody waits for a connection, nor for a reply that does not come any more."""
        self.failureResultOf(self.link.command("PING"), RedisGone)
        commands, _ = self.connect()
        reply = self.link.command("PING")
        self.receive(commands, b"$4\r\nPO")
        commands.lose()
        self.failureResultOf(reply, RedisGone)
        self.failureResultOf(self.link.command("PING"), RedisGone)

    def check_lost(self, wires: tuple[Wire, Wire], lost: int) -> None:
        """One of the connections is lost."""
        reply = self.link.script(SCRIPT, "{key}", b"")
        wires[lost].lose()
        self.assertEqual(self.user.told, ["up", "down"])
        self.failureResultOf(self.link.script(SCRIPT, "{key}", b""), RedisGone)
        self.clock.advance(0)
        self.failureResultOf(reply, RedisGone)
        self.assertTrue(wires[1 - lost].lost)
        self.await_attempt(3, within=1)
        wires = self.connect()
        self.assertEqual(self.user.told, ["up", "down", "up"])
        answer = self.link.script(SCRIPT, "{key}", b"")
        self.receive(wires[0], b"$3\r\nyes\r\n")
        self.assertEqual(self.successResultOf(answer), b"yes")

    def test_commands_lost(self) -> None:
        """The connection for scripts is lost: the other is closed, and both are made anew."""
        self.check_lost(self.connect(), 0)

    def test_messages_lost(self) -> None:
        """The connection for messages is lost: the other is closed, and both are made anew."""
        self.check_lost(self.connect(), 1)

    def test_lost_between_digest_and_text(self) -> None:
        """The connection is lost when the server has said that it does not know the script."""
        commands, _ = self.connect()
        reply = self.link.script(SCRIPT, "{key}", b"")
        self.receive(commands, b"-NOSCRIPT\r\n")
        commands.lose()
        self.failureResultOf(reply, RedisGone)

    def test_reset(self) -> None:
        """Connections that do not answer are given up, and made anew."""
        wires = self.connect()
        reply = self.link.script(SCRIPT, "{key}", b"")
        self.link.reset()
        self.link.reset()
        self.clock.advance(0)
        self.failureResultOf(reply, RedisGone)
        self.assertTrue(all(wire.aborted for wire in wires))
        self.assertEqual(self.user.told, ["up", "down"])
        self.await_attempt(3, within=1)

    def test_reset_by_user(self) -> None:
        """A user may give up the connections as soon as they stand."""
        self.user.when_up = self.link.reset
        self.connect()
        self.assertEqual(self.user.told, ["up", "down"])
        self.await_attempt(3, within=1)

    def test_unreachable(self) -> None:
        """A server that is not there is tried again, less and less often, but as often as was asked for."""
        pauses = []
        for number in range(1, 30):
            since = self.clock.seconds()
            self.refuse()
            self.await_attempt(number + 1, within=10)
            pauses.append(self.clock.seconds() - since)
        self.assertLess(pauses[0], 0.25)  # as long as Redis may be silent by default
        self.assertLess(pauses[0], pauses[5])
        self.assertLess(max(pauses), LONGEST_PAUSE + 0.02)
        self.connect()
        self.assertEqual(self.user.told, ["up"])

    def test_refused(self) -> None:
        """A server that does not do what it is asked to is tried again, ever less often; it is said once."""
        pauses = []
        with capturedLogs() as log:
            for _ in range(30):
                self.connect()
                since = self.clock.seconds()
                self.link.refused(txredisapi.ResponseError("OOM no memory"))
                self.clock.advance(0)
                self.await_attempt(self.attempts + 1, within=10)
                pauses.append(self.clock.seconds() - since)
            self.connect()
            self.clock.advance(BELIEVED)
            self.link.working()
            self.link.working()
        self.assertEqual(self.user.told, [*["up", "down"] * 30, "up"])
        self.assertLess(pauses[0], 0.25)
        self.assertGreater(pauses[-1], 4.5)
        self.assertLess(max(pauses), LONGEST_PAUSE_REFUSED + 0.02)
        self.assertEqual(
            [event["line"] for event in log],
            [
                "Redis at unix:///run/redis.sock is not usable: it is out of memory, and refuses to write; "
                "raise its maxmemory, and leave its maxmemory-policy at noeviction",
                "Redis at unix:///run/redis.sock is connected",
            ],
        )

    def test_refused_after_working(self) -> None:
        """Once the server has done what it was asked to, the pauses begin anew."""
        for _ in range(20):
            self.connect()
            self.link.refused(Exception())
            self.await_attempt(self.attempts + 1, within=10)
        self.connect()
        self.clock.advance(BELIEVED)
        self.link.working()
        self.link.refused(Exception())
        self.await_attempt(self.attempts + 1, within=0.25)

    def lines(self, log: Any) -> list[str]:
        """What the link has logged, without the mends."""
        lines = [event["line"].replace("unix:///run/redis.sock", "X") for event in log if "line" in event]
        return [line.partition(";")[0] for line in lines]

    def test_works_a_little(self) -> None:
        """
        A server that does the first thing that it is asked to, and then fails in one way or another, is tried again
        ever less often; each trouble is said once, and that it is connected only once it lasts.
        """
        pauses = []
        with capturedLogs() as log:
            for turn in range(30):
                wires = self.connect()
                self.link.working()
                since = self.clock.seconds()
                if turn % 3:
                    self.link.refused(txredisapi.ResponseError("OOM" if turn % 3 == 1 else "NOPERM"))
                else:
                    wires[1].lose()
                self.clock.advance(0)
                self.await_attempt(self.attempts + 1, within=10)
                pauses.append(self.clock.seconds() - since)
            self.connect()
            self.link.working()
            self.clock.advance(BELIEVED - 0.01)
            self.link.working()
            self.assertEqual(len(self.lines(log)), 4)
            self.clock.advance(0.01)
            self.link.working()
        self.assertEqual(
            self.lines(log),
            [
                "Redis at X is connected",
                "Redis at X is not usable: the connection was lost",
                "Redis at X is not usable: it is out of memory, and refuses to write",
                "Redis at X is not usable: its user may not run a command that the gate needs",
                "Redis at X is connected",
            ],
        )
        self.assertLess(pauses[0], 0.25)
        self.assertGreater(pauses[-1], 4.5)

    def test_told_anew(self) -> None:
        """After good work the same trouble is told anew, and the server found quickly, each time."""
        with capturedLogs() as log:
            for _ in range(3):
                wires = self.connect()
                self.link.working()
                self.clock.advance(BELIEVED)
                self.link.working()
                wires[0].lose()
                self.await_attempt(self.attempts + 1, within=0.25)
        lines = ["Redis at X is connected", "Redis at X is not usable: the connection was lost"]
        self.assertEqual(self.lines(log), lines * 3)

    def test_working_without_redis(self) -> None:
        """A late word of good work changes nothing."""
        with capturedLogs() as log:
            self.link.working()
            self.connect()[0].lose()
            self.link.working()
            self.clock.advance(0)
        self.assertEqual(self.lines(log), ["Redis at X is not usable: the connection was lost"])

    def test_refused_without_redis(self) -> None:
        """Where no connection stands there is nothing to give up."""
        with capturedLogs() as log:
            self.link.refused(Exception())
        self.assertEqual(log, [])
        self.connect()
        self.assertEqual(self.user.told, ["up"])

    def test_refused_second(self) -> None:
        """The second connection is refused: the first is not kept."""
        first = self.accept()
        self.refuse()
        self.clock.advance(0)
        self.assertTrue(first.lost)
        self.assertEqual(self.user.told, [])
        self.await_attempt(3, within=1)

    def test_flapping(self) -> None:
        """A server that accepts and closes at once is no reason to connect ten times a second."""
        for _ in range(20):
            for wire in self.connect():
                wire.lose()
            self.await_attempt(self.attempts + 1, within=10)
        self.assertGreater(self.clock.seconds(), 20 * LONGEST_PAUSE / 2)

    def test_back_quickly(self) -> None:
        """A server that did what it was asked to and restarts is found quickly."""
        for _ in range(10):
            self.refuse()
            self.await_attempt(self.attempts + 1, within=10)
        wires = self.connect()
        self.clock.advance(BELIEVED)
        self.link.working()
        wires[0].lose()
        self.await_attempt(self.attempts + 1, within=0.25)

    def test_failing_user(self) -> None:
        """A fault of the user's is told once, and no reason to stay without Redis; nor to connect all the time."""

        def fail() -> None:
            raise ZeroDivisionError("no luck")

        what = "The link to Redis has failed; it is made anew"
        with capturedLogs() as log:
            for name in ("when_up", "when_down"):
                setattr(self.user, name, fail)
                for _ in range(10):
                    wires = self.connect()
                    if name == "when_down":
                        wires[0].lose()
                    self.clock.advance(0)
                    self.assertTrue(all(wire.lost for wire in wires))
                    self.await_attempt(self.attempts + 1, within=10)
                setattr(self.user, name, lambda: None)
        self.assertEqual([event["what"] for event in log if "what" in event], [what])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertGreater(self.clock.seconds(), 10 * LONGEST_PAUSE_REFUSED / 2)
        self.assertEqual(self.user.told, ["up", "down"] * 20)
        self.connect()
        self.assertEqual(self.user.told[40:], ["up"])

    def test_silent_server(self) -> None:
        """A server that accepts and says nothing is given up."""
        wires = self.accept(), self.accept()
        self.clock.advance(HANDSHAKE - 0.01)
        self.assertFalse(wires[0].lost or wires[1].lost)
        self.clock.advance(0.01)
        self.clock.advance(0)
        self.assertTrue(wires[0].aborted and wires[1].aborted)
        self.assertEqual(self.user.told, [])
        self.await_attempt(3, within=1)

    def test_silent_network(self) -> None:
        """A server that does not even accept is given up."""
        self.clock.advance(HANDSHAKE)
        self.clock.advance(0)
        self.assertTrue(self.clock.connectors[0].stoppedConnecting)
        self.answered = 1
        self.await_attempt(2, within=1)

    def test_late_subscription(self) -> None:
        """An answer that comes after the link gave up is not taken for a link that stands."""
        _, messages = self.accept(), self.accept()
        self.clock.advance(HANDSHAKE)
        messages.receive(SUBSCRIBED)
        self.clock.advance(0)
        self.assertEqual(self.user.told, [])

    def test_lost_while_subscribing(self) -> None:
        """The connection for scripts is lost while the other one subscribes: the link does not stand."""
        commands, messages = self.accept(), self.accept()
        commands.lose()
        self.receive(messages, SUBSCRIBED)
        self.assertEqual(self.user.told, [])
        self.assertTrue(messages.lost)
        self.await_attempt(3, within=1)

    def test_subscription_refused(self) -> None:
        """A server that wants a password, and gets none, is not usable."""
        with capturedLogs() as log:
            self.accept()
            self.receive(self.accept(), b"-NOAUTH Authentication required.\r\n")
        self.assertIn("it wants a password", log[-1]["line"])
        self.assertEqual(self.user.told, [])
        self.await_attempt(3, within=1)

    def test_report(self) -> None:
        """The log tells each change once: where Redis is, and what the trouble is."""
        with capturedLogs() as log:
            for _ in range(3):
                self.refuse()
                self.await_attempt(self.attempts + 1, within=10)
            self.refuse(ConnectError(string="no way"))
            self.await_attempt(self.attempts + 1, within=10)
            commands, _ = self.connect()
            self.clock.advance(BELIEVED)
            self.link.working()
            commands.lose()
            self.await_attempt(self.attempts + 1, within=10)
            self.clock.advance(HANDSHAKE)
            self.answered += 1
        self.assertEqual(
            self.lines(log),
            [
                "Redis at X is not usable: nobody listens there",
                "Redis at X is not usable: it cannot be reached (An error occurred while connecting: no way.)",
                "Redis at X is connected",
                "Redis at X is not usable: the connection was lost",
                "Redis at X is not usable: it does not answer",
            ],
        )


class HandshakeTests(MemoryLinkTestCase):
    """A link that has to give a name, a password and a database."""

    address = RedisAddress("unix", path="/r", username="we", password="s3cret", database=7)
    AUTH = b"*3\r\n$4\r\nAUTH\r\n$2\r\nwe\r\n$6\r\ns3cret\r\n"
    SELECT = b"*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.link.start()
        self.addCleanup(self.stop)

    def said(self, wire: Wire) -> bytes:
        """What the server has got since the last time."""
        data: bytes = wire.value()
        wire.clear()
        return data

    def handshake(self, wire: Wire) -> None:
        self.assertEqual(self.said(wire), self.AUTH)
        self.receive(wire, b"+OK\r\n")
        self.assertEqual(self.said(wire), self.SELECT)
        self.receive(wire, b"+OK\r\n")

    def test_handshake(self) -> None:
        """Each connection says who it is, then chooses its database."""
        self.handshake(self.accept())
        messages = self.accept()
        self.handshake(messages)
        self.assertIn(b"SUBSCRIBE", self.said(messages))
        self.receive(messages, SUBSCRIBED)
        self.assertEqual(self.user.told, ["up"])

    def check_refused(self, reason: str) -> None:
        """The server has refused: the log says why, without the password; it is tried again."""
        [line] = [event["line"] for event in self.log if "line" in event]
        self.assertTrue(line.startswith(f"Redis at unix://we:***@/r?db=7 is not usable: {reason}; "), line)
        self.assertEqual(self.user.told, [])
        self.assertTrue(self.wires[0].lost)
        self.await_attempt(2, within=1)
        self.handshake(self.accept())
        messages = self.accept()
        self.handshake(messages)
        self.receive(messages, SUBSCRIBED)
        self.assertEqual(self.user.told, ["up"])

    def test_wrong_password(self) -> None:
        """A password that the server does not take."""
        with capturedLogs() as self.log:
            wire = self.accept()
            self.assertEqual(self.said(wire), self.AUTH)
            self.receive(wire, b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
        self.check_refused("the user or the password is wrong")

    def test_wrong_database(self) -> None:
        """A database that the server does not have."""
        with capturedLogs() as self.log:
            wire = self.accept()
            self.receive(wire, b"+OK\r\n")
            self.receive(wire, b"-ERR DB index is out of range\r\n")
        self.check_refused("it has no database of this number")

    def test_lost_during_auth(self) -> None:
        """The server closes instead of an answer, which txredisapi's own factories never get over."""
        with capturedLogs() as self.log:
            self.accept().lose()
        self.check_refused("it closes the connection before it answers")

    def test_lost_during_select(self) -> None:
        """The server closes after the password."""
        with capturedLogs() as self.log:
            wire = self.accept()
            self.receive(wire, b"+OK\r\n")
            wire.lose()
        self.check_refused("it closes the connection before it answers")

    def test_silent_during_auth(self) -> None:
        """The server does not answer."""
        with capturedLogs() as self.log:
            self.accept()
            self.clock.advance(HANDSHAKE)
            self.clock.advance(0)
        self.check_refused("it does not answer")

    def test_stop_during_auth(self) -> None:
        """The end comes before the server's answer."""
        self.accept()
        self.stop()

    def test_stop_during_second_auth(self) -> None:
        """The end comes when one connection stands."""
        self.handshake(self.accept())
        self.accept()
        self.stop()


class StopTests(MemoryLinkTestCase):
    """The end leaves nothing, in whichever phase it comes: no connection, no timer, and no word to the user."""

    def test_before_start(self) -> None:
        """A link that was never started."""
        self.stop()
        self.assertEqual(self.attempts, 0)

    def test_connecting(self) -> None:
        """The server has not accepted yet."""
        self.link.start()
        self.stop()

    def test_second_connecting(self) -> None:
        """It has accepted one connection."""
        self.link.start()
        self.accept()
        self.stop()

    def test_subscribing(self) -> None:
        """It has accepted both, and not answered."""
        self.link.start()
        self.accept(), self.accept()
        self.stop()

    def test_up(self) -> None:
        """The link stands; who waits for a reply is told that there is none."""
        self.link.start()
        self.connect()
        reply = self.link.script(SCRIPT, "{key}", b"")
        self.stop()
        self.failureResultOf(reply, RedisGone)
        self.failureResultOf(self.link.script(SCRIPT, "{key}", b""), RedisGone)

    def test_disconnecting(self) -> None:
        """One connection was lost, and the other is being closed: the end waits for it."""
        self.link.start()
        self.connect()[0].lose()
        stopped = self.link.stop()
        self.assertNoResult(stopped)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.check_nothing_left()

    def test_pausing(self) -> None:
        """The server has refused, and is to be asked again later."""
        self.link.start()
        self.refuse()
        self.stop()

    def test_from_up(self) -> None:
        """The user ends it when it hears that the link stands."""
        stopped: list[Deferred[None]] = []
        self.user.when_up = lambda: stopped.append(self.link.stop())
        self.link.start()
        self.connect()
        self.clock.advance(0)
        self.successResultOf(stopped[0])
        self.check_nothing_left()
        self.assertEqual(self.user.told, ["up"])

    def test_from_down(self) -> None:
        """The user ends it when it hears that the link is lost."""
        stopped: list[Deferred[None]] = []
        self.user.when_down = lambda: stopped.append(self.link.stop())
        self.link.start()
        self.connect()[0].lose()
        self.clock.advance(0)
        self.successResultOf(stopped[0])
        self.check_nothing_left()
        self.assertEqual(self.user.told, ["up", "down"])

    def test_twice(self) -> None:
        """A second end changes nothing."""
        self.link.start()
        self.connect()
        self.stop()
        self.stop()


class SocketLinkTests(TestCase):
    """A link on TCP, to a server that the test plays."""

    timeout = 30

    def setUp(self) -> None:
        self.patch(module, "FIRST_PAUSE", 0.01)
        self.patch(module, "LONGEST_PAUSE_REFUSED", 0.05)
        catcher = capturedLogs()
        self.log = catcher.__enter__()
        self.addCleanup(catcher.__exit__, None, None, None)

    async def serve(self, answer: Answer = good) -> ScriptedServer:
        """A server."""
        return await ScriptedServer(self, answer).listen()

    def link(self, url: str) -> tuple[Link, User]:
        """Start a link, which is stopped at the end of the test."""
        user = User()
        link = Link(reactor, source_of(url), Subscription(CHANNEL, user.message), user, longest_pause=0.05)
        self.addCleanup(link.stop)
        link.start()
        return link, user

    @property
    def lines(self) -> list[str]:
        """What the link has logged."""
        return [event["line"] for event in self.log if "line" in event]

    async def test_refused_then_accepted(self) -> None:
        """A server that starts after the proxy is found."""
        server = await self.serve()
        await server.stop()
        link, user = self.link(f"redis://{server.place}")
        await until(lambda: self.lines)
        self.assertIn("nobody listens there", self.lines[0])
        await server.listen()
        await until(lambda: user.told == ["up"])
        self.assertEqual(await link.script(SCRIPT, "k", b"a"), b"hi")

    async def test_no_delay(self) -> None:
        """The end of a batch that fills more than a packet does not wait for an acknowledgement."""
        server = await self.serve()
        link, user = self.link(f"redis://{server.place}")
        await until(lambda: user.told == ["up"])
        self.assertTrue(all(c.transport.getTcpNoDelay() for c in link._dialer._connections))

    async def test_auth_refused(self) -> None:
        """A wrong password is tried again, until it is right."""
        right = False

        def answer(command: list[bytes]) -> bytes | None:
            if command[0] == b"AUTH" and not right:
                return b"-WRONGPASS no\r\n"
            return good(command)

        server = await self.serve(answer)
        _, user = self.link(f"redis://:pw@localhost:{server.port}/3")
        await until(lambda: server.accepted > 2)
        self.assertEqual(user.told, [])
        right = True
        await until(lambda: user.told == ["up"])
        self.assertEqual(
            server.commands[-5:],
            [
                *([b"AUTH", b"pw"], [b"SELECT", b"3"]),
                *([b"AUTH", b"pw"], [b"SELECT", b"3"], [b"SUBSCRIBE", CHANNEL.encode()]),
            ],
        )
        self.assertEqual(len(self.lines), 1)

    async def test_lost_during_auth(self) -> None:
        """Connections that are reset while they log in are made again, which txredisapi alone would not do."""
        lost = 0

        def answer(command: list[bytes]) -> bytes | None:
            nonlocal lost
            if command[0] in (b"AUTH", b"SELECT") and lost < 4:
                lost += command[0] == b"AUTH" or lost % 2
                if lost % 2:
                    raise OSError
            return good(command)

        server = await self.serve(answer)
        _, user = self.link(f"redis://we:pw@{server.place}/3")
        await until(lambda: user.told == ["up"])
        self.assertEqual(lost, 4)

    async def test_silent(self) -> None:
        """A server that accepts and never answers is given up after a time."""
        self.patch(module, "HANDSHAKE", 0.05)
        server = await self.serve(lambda command: None)
        _, user = self.link(f"redis://{server.place}")
        await until(lambda: server.accepted >= 4)
        server.answer = good
        await until(lambda: user.told == ["up"])

    async def test_reply_lost(self) -> None:
        """The server dies while it works: who waits for its reply hears of it, and the link comes back."""
        server = await self.serve()
        link, user = self.link(f"redis://{server.place}")
        await until(lambda: user.told == ["up"])

        def die(command: list[bytes]) -> bytes | None:
            server.answer = good
            raise OSError

        server.answer = die
        reply = link.script(SCRIPT, "k", b"a")
        with self.assertRaises(RedisGone):
            await reply
        await until(lambda: user.told == ["up", "down", "up"])
        self.assertEqual(await link.script(SCRIPT, "k", b"a"), b"hi")

    async def test_garbage(self) -> None:
        """What is no reply is said; the connections are made anew."""
        server = await self.serve()
        link, user = self.link(f"redis://{server.place}")
        await until(lambda: user.told == ["up"])
        server.answer = lambda command: b"\xff\r\n"
        with self.assertRaises(RedisGone):
            await link.script(SCRIPT, "k", b"a")
        server.answer = good
        await until(lambda: user.told == ["up", "down", "up"])
        self.assertIn("its answer cannot be read (", self.lines[0])

    async def test_name_unknown(self) -> None:
        """A host that cannot be resolved is trouble like any other; the end may come while it is looked up."""
        self.link("redis://nowhere.invalid")
        await until(lambda: any("there is no host of this name" in line for line in self.lines))
        link, _ = self.link("redis://nowhere.invalid")
        await link.stop()

    async def ask(self, link: Link) -> bytes | None:
        """Run a script as the gate does; its reply, or None if the server refuses."""
        try:
            reply = await link.script(SCRIPT, "k", b"a")
        except txredisapi.ResponseError as problem:
            link.refused(problem)
            return None
        except RedisGone:
            return None
        link.working()
        return reply

    def node(self, has: ScriptedServer | None, command: list[bytes]) -> bytes | None:
        """A node of a cluster: itself or another one has the slot."""
        if command[0] == b"CLUSTER":
            assert has is not None
            return resp([[0, 16383, [b"127.0.0.1", has.port, b"id", []]]])
        if command[0] == b"EVALSHA" and has is not None:
            return b"-MOVED 1234 127.0.0.1:%d\r\n" % has.port
        return good(command)

    async def test_moved(self) -> None:
        """A server that is a node of a cluster, and has not our slot, says who has it: that is followed at once."""
        other = await self.serve()
        other.answer = lambda command: self.node(other if command[0] == b"CLUSTER" else None, command)
        first = await self.serve(partial(self.node, other))
        link, user = self.link(f"redis://:pw@{first.place}")
        await until(lambda: user.told == ["up"])
        self.patch(link, "_pause_soon", None)  # there is none
        self.assertIsNone(await self.ask(link))
        await until(lambda: user.told == ["up", "down", "up"])
        self.assertEqual(await self.ask(link), b"hi")
        self.assertEqual(first.accepted, 2)
        self.assertIn([b"AUTH", b"pw"], other.commands)
        line = f"Redis at {other.place} (in the cluster redis://:***@{first.place}/0) is connected"
        self.assertEqual(self.lines, [line])

    async def test_no_cluster_any_more(self) -> None:
        """A server that was a node of a cluster for a while, and is none any more, is found again."""
        other = await self.serve()
        other.answer = lambda command: self.node(other if command[0] == b"CLUSTER" else None, command)
        first = await self.serve(partial(self.node, other))
        link, user = self.link(f"redis://{first.place}")
        user.when_up = lambda: Deferred.fromCoroutine(self.ask(link))
        await until(lambda: len(self.lines) == 1)
        self.assertIn("(in the cluster", self.lines[0])

        def alone(command: list[bytes]) -> bytes | None:
            no_cluster = b"-ERR This instance has cluster support disabled\r\n"
            return no_cluster if command[0] == b"CLUSTER" else good(command)

        first.answer = alone
        await other.stop()
        asked = f"Redis at redis://{first.place}/0 is connected"
        await until(lambda: link.working() or self.lines[-1] == asked)
        # For good: it may be away now and then, and nobody looks for a cluster any more.
        commands = len(first.commands)
        ups = user.told.count("up")
        await first.stop()
        await until(lambda: "nobody listens there" in self.lines[-1])
        await first.listen()
        await until(lambda: user.told.count("up") > ups)
        self.assertNotIn(b"CLUSTER", [command[0] for command in first.commands[commands:]])

    async def test_cluster_outlives_the_url(self) -> None:
        """A cluster is found again after all of it was away, though the node of the URL never comes back."""
        other = await self.serve()
        other.answer = lambda command: self.node(other if command[0] == b"CLUSTER" else None, command)
        first = await self.serve(partial(self.node, other))
        link, user = self.link(f"redis://{first.place}")
        user.when_up = lambda: Deferred.fromCoroutine(self.ask(link))
        await until(lambda: len(self.lines) == 1)
        await first.stop()
        await other.stop()
        await until(lambda: any(f"Redis at redis://{first.place}/0 is not" in line for line in self.lines))
        ups = user.told.count("up")
        await other.listen()
        await until(lambda: user.told.count("up") > ups)

    async def test_moved_in_a_circle(self) -> None:
        """Nodes that send us to each other are followed a few times, and then with pauses; it is said."""
        one, other = await self.serve(), await self.serve()
        one.answer, other.answer = partial(self.node, other), partial(self.node, one)
        link, user = self.link(f"redis://{one.place}")
        user.when_up = lambda: Deferred.fromCoroutine(self.ask(link))
        await until(lambda: any("disagree on who has the slot" in line for line in self.lines))
        self.assertEqual(len(user.told), 2 * MOVES + 2)
        user.when_up = lambda: None

    async def test_slot_on_its_way(self) -> None:
        """A slot that is being moved is waited for; whoever has it in the end may lack something."""
        asks = 5

        def answer(command: list[bytes]) -> bytes | None:
            nonlocal asks
            if command[0] == b"EVALSHA" and asks:
                asks -= 1
                return b"-ASK 1234 127.0.0.1:1\r\n"
            return good(command)

        server = await self.serve(answer)
        link, user = self.link(f"redis://{server.place}")
        user.when_up = lambda: Deferred.fromCoroutine(self.ask(link))
        await until(lambda: user.told.count("up") == 6)
        await until(lambda: link.working() or len(self.lines) == 2)
        self.assertIn("the slot of the namespace is on its way to another node", self.lines[0])
        self.assertIn("is connected", self.lines[1])
        asked = [command[-1] for command in server.commands if command[0] == b"EVALSHA"]
        self.assertEqual(asked, [b"a", *[b"1"] * 5])
        self.assertEqual(user.told, [*["up", "down"] * 5, "up"])

    async def test_unfamiliar(self) -> None:
        """The script is told of a server that is not the one that answered last, until that one has answered."""
        servers = [await self.serve() for _ in range(2)]
        source = Alternating([server.address for server in servers])
        user = User()
        link = Link(reactor, source, Subscription(CHANNEL, user.message), user)
        self.addCleanup(link.stop)
        link.start()
        for ups in range(1, 5):
            await until(lambda ups=ups: user.told.count("up") == ups)
            if ups == 2:
                servers[1].answer = lambda command: b"-LOADING\r\n"
                self.assertIsNone(await self.ask(link))
                continue
            for _ in range(2):
                self.assertEqual(await self.ask(link), b"hi")
            servers[1].answer = good
            link.reset()
        familiar, unfamiliar = [b"k", b"a"], [b"k", b"a", b"1"]
        asked = [[c[3:] for c in server.commands if c[0] == b"EVALSHA"] for server in servers]
        self.assertEqual(asked[0], [familiar, familiar, unfamiliar, familiar])
        self.assertEqual(asked[1], [unfamiliar, unfamiliar, familiar])

    async def test_replaced(self) -> None:
        """A server that is replaced while it answers is left at once; the watch ends with the connections."""
        servers = [await self.serve() for _ in range(2)]
        source = Alternating([server.address for server in servers])
        user = User()
        link = Link(reactor, source, Subscription(CHANNEL, user.message), user)
        self.addCleanup(link.stop)
        link.start()
        await until(lambda: user.told == ["up"])
        self.assertEqual(await self.ask(link), b"hi")
        self.patch(link, "_pause_soon", None)  # there is none
        source.watched.callback(None)
        await until(lambda: user.told == ["up", "down", "up"])
        self.assertEqual(await self.ask(link), b"hi")
        self.assertEqual(servers[1].commands[-1][3:], [b"k", b"a", b"1"])
        watched = source.watched
        await link.stop()
        self.assertTrue(watched.called)

    async def test_watch_fails(self) -> None:
        """A watch that fails is begun anew, and that is told once; the end may come meanwhile."""
        servers = [await self.serve() for _ in range(2)]
        source = Alternating([server.address for server in servers])
        user = User()
        link = Link(reactor, source, Subscription(CHANNEL, user.message), user)
        self.addCleanup(link.stop)
        link.start()
        await until(lambda: user.told == ["up"])
        for watches in range(2, 5):
            source.watched.errback(ZeroDivisionError("no luck"))
            await until(lambda watches=watches: source.watches == watches)
        self.assertEqual([event["what"] for event in self.log if "what" in event], [WATCH_FAILED])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(user.told, ["up"])
        source.watched.callback(None)
        await until(lambda: user.told == ["up", "down", "up"])
        source.watched.errback(ZeroDivisionError("no luck"))
        await link.stop()

    async def test_failing_source(self) -> None:
        """A fault of the source's is no reason to stay without Redis."""
        server = await self.serve()
        source = Alternating([server.address])
        user = User()
        link = Link(reactor, source, Subscription(CHANNEL, user.message), user)
        self.addCleanup(link.stop)
        for name in ("describe", "doubt"):
            self.patch(source, name, None)
        link.start()
        await until(lambda: user.told == ["up"])
        link.reset()
        await until(lambda: user.told == ["up", "down", "up"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    async def test_nobody_knows(self) -> None:
        """Where nobody says which server it is, that is said once, and the asking goes on."""
        sentinel = await self.serve(lambda command: resp(None))
        link, user = self.link(f"sentinel://{sentinel.place}/main")
        await until(lambda: sentinel.accepted > 3)
        self.assertEqual(
            self.lines,
            [
                f"Redis at sentinel://{sentinel.place}/main is not usable: no sentinel says which server is the master "
                f"({sentinel.place}: it knows no service main); write the name as in sentinel monitor NAME"
            ],
        )
        self.assertEqual(user.told, [])
        await link.stop()


@implementer(ISource)
class Alternating:
    """Names one server after the other."""

    security = None

    def __init__(self, addresses: list[RedisAddress]) -> None:
        self._addresses = cycle(addresses)
        self.watches = 0

    def locate(self, slot: int, dialer: Dialer) -> Deferred[RedisAddress]:
        return succeed(next(self._addresses))

    def watch(self, address: RedisAddress, slot: int, dialer: Dialer) -> Deferred[None]:
        self.watches += 1
        self.watched: Deferred[None] = Deferred()
        return self.watched

    def doubt(self) -> None:
        pass

    def describe(self, address: RedisAddress | None) -> str:
        return str(address)


class ValkeyLinkTests(TestCase):
    """A link to a real server."""

    timeout = 30

    def setUp(self) -> None:
        self.patch(module, "FIRST_PAUSE", 0.01)
        self.client = valkey.client()
        self.addCleanup(self.client.close)
        self.channel = valkey.namespace()
        self.addCleanup(self.check_nothing_left)
        self.before = self.ids()

    def ids(self) -> dict[int, str]:
        """The server's connections, each with its last command."""
        return {int(client["id"]): client["cmd"] for client in self.client.client_list()}

    def check_nothing_left(self) -> Any:
        """Fires when the server has no connection more than before."""
        return until(lambda: self.ids().keys() <= self.before.keys())

    async def link(self, address: RedisAddress | None = None) -> tuple[Link, User]:
        user = User()
        link = Link(
            reactor, source_of(address or valkey.address()), Subscription(self.channel, user.message), user
        )
        self.addCleanup(link.stop)
        link.start()
        await until(lambda: user.told == ["up"])
        return link, user

    async def test_script(self) -> None:
        """A script runs, by its digest or by its text, with bytes that are no text."""
        link, _ = await self.link()
        script = b"return ARGV[1] .. KEYS[1] .. '%s'" % self.channel.encode()
        for _ in range(3):
            answer = await link.script(script, "{k}", b"\x00\xff\r\n")
            self.assertEqual(answer, b"\x00\xff\r\n{k}" + self.channel.encode())
        self.client.script_flush()
        answers = [link.script(script, "{k}", b"%d" % number) for number in range(3)]
        for number, answer in enumerate(answers):
            self.assertEqual(await answer, b"%d{k}" % number + self.channel.encode())

    async def test_large(self) -> None:
        """A reply of megabytes arrives whole."""
        link, _ = await self.link()
        data = bytes(range(256)) * 4 * 4096
        self.assertEqual(await link.script(b"return ARGV[1]", "k", data), data)

    async def test_messages(self) -> None:
        """Messages arrive in their order, many at once."""
        _, user = await self.link()
        payloads = [b"\x93%d\r\n" % number for number in range(500)]
        with self.client.pipeline() as pipeline:
            for payload in payloads:
                pipeline.publish(self.channel, payload)
            pipeline.execute()
        await until(lambda: len(user.told) == 501)
        self.assertEqual(user.told, ["up", *payloads])

    async def check_killed(self, kind: str) -> None:
        """The server closes one of the link's connections."""
        link, user = await self.link()
        ours = {number: cmd for number, cmd in self.ids().items() if number not in self.before}
        self.assertEqual(len(ours), 2)
        [victim] = [number for number, cmd in ours.items() if (cmd == "subscribe") == (kind == "messages")]
        self.client.client_kill_filter(_id=victim)
        await until(lambda: user.told == ["up", "down", "up"])
        self.assertFalse(ours.keys() & self.ids().keys())
        self.assertEqual(await link.script(b"return ARGV[1]", "k", b"a"), b"a")
        self.client.publish(self.channel, b"hello")
        await until(lambda: user.told[3:] == [b"hello"])

    async def test_commands_killed(self) -> None:
        """The connection for scripts is lost: both are made anew."""
        await self.check_killed("commands")

    async def test_messages_killed(self) -> None:
        """The connection for messages is lost: both are made anew."""
        await self.check_killed("messages")

    async def test_user(self) -> None:
        """A user with a password, and a database of its own."""
        self.client.acl_setuser(
            "we", enabled=True, passwords=["+p:w/d@"], keys=["*"], channels=["*"], commands=["+@all"]
        )
        self.addCleanup(self.client.acl_deluser, "we")
        address = RedisAddress(
            "unix", path=valkey.address().path, username="we", password="p:w/d@", database=3
        )
        link, _ = await self.link(address)
        script = b"return server.acl_check_cmd and 'x' or 'y'"
        self.assertEqual(await link.script(script, "k", b""), b"x")
        ours = [c for c in self.client.client_list() if int(c["id"]) not in self.before]
        self.assertEqual({(c["user"], c["db"]) for c in ours}, {("we", "3")})

    async def test_error(self) -> None:
        """A script that fails says so, and the link stands."""
        link, user = await self.link()
        with self.assertRaises(txredisapi.ResponseError):
            await link.script(b"return redis.call('nonsense')", "k", b"")
        with self.assertRaises(txredisapi.ResponseError):
            await link.script(b"not lua", "k", b"")
        self.assertEqual(user.told, ["up"])
