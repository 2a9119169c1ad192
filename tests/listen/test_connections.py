"""Tests for L{thrtwisted.listen.connections}."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.errors import TooManyConnections
from thrtwisted.listen.connections import Connections, client_of


class ConnectionsTests(SynchronousTestCase):
    """Tests for L{Connections}."""

    def test_room(self) -> None:
        """As long as there is room nobody is closed."""
        connections: Connections[str] = Connections(2, 0)
        self.assertIsNone(connections.open("a", 0))
        self.assertIsNone(connections.open("b", 0))
        self.assertEqual(len(connections), 2)

    def test_longest_idle(self) -> None:
        """One more closes the one that has been idle for longest, then those that have just come."""
        connections: Connections[str] = Connections(4, 0)
        for name in "abcd":
            connections.open(name, 0)
        for name in "ba":
            connections.work(name)
            connections.rest(name)
        self.assertEqual([connections.open(name, 0) for name in "efgh"], ["b", "a", "c", "d"])
        self.assertEqual(len(connections), 4)

    def test_silent_for_long(self) -> None:
        """Those that have had their chance to send something go first, the oldest before the others."""
        connections: Connections[str] = Connections(4, 0)
        for name, now in (("idle", 0), ("a", 1), ("b", 2), ("c", 3)):
            connections.open(name, now)
        connections.work("idle")
        connections.rest("idle")
        self.assertEqual([connections.open(name, 3.5) for name in "de"], ["a", "b"])
        self.assertEqual([connections.open(name, 4) for name in "fg"], ["idle", "c"])

    def test_none_idle(self) -> None:
        """If all are at work, the new one is refused, and not counted."""
        connections: Connections[str] = Connections(1, 0)
        connections.open("a", 0)
        connections.work("a")
        error = self.assertRaises(TooManyConnections, connections.open, "b", 0)
        self.assertEqual(error.retry_after, 1.0)
        self.assertEqual(len(connections), 1)
        connections.rest("b")
        connections.close("b")
        connections.rest("a")
        self.assertEqual(connections.open("c", 0), "a")

    def test_any_number(self) -> None:
        """0 is no bound."""
        connections: Connections[int] = Connections(0, 0)
        for number in range(1000):
            self.assertIsNone(connections.open(number, 0))
            connections.belongs(number, "one")
        self.assertEqual(len(connections), 1000)

    def test_per_client(self) -> None:
        """A client has so many, and one more when one is closed."""
        connections: Connections[str] = Connections(0, 1)
        for name in "ab":
            connections.open(name, 0)
        connections.belongs("a", "one")
        self.assertRaises(TooManyConnections, connections.belongs, "b", "one")
        connections.close("a")
        connections.close("a")
        connections.belongs("b", "one")
        self.assertIn("{'one': 1}", repr(connections))
        connections.close("b")
        self.assertEqual(repr(connections), "<Connections 0, idle 0, silent 0, {}>")

    def test_any_history(self) -> None:
        """Whatever happens, the counts are those of the connections that are there."""
        random = Random(1)
        connections: Connections[int] = Connections(20, 6)
        there: dict[int, str | None] = {}
        for number in range(3000):
            act = random.choice(("open", "open", "work", "rest", "close"))
            if act == "open":
                try:
                    closed = connections.open(number, number / 10)
                except TooManyConnections:
                    self.assertEqual(len(there), 20)
                    continue
                if closed is not None:
                    del there[closed]
                there[number] = None
                client = random.choice("abcdef")
                try:
                    connections.belongs(number, client)
                    there[number] = client
                except TooManyConnections:
                    self.assertEqual(list(there.values()).count(client), 6)
            elif there:
                chosen = random.choice(list(there))
                getattr(connections, act)(chosen)
                if act == "close":
                    del there[chosen]
            self.assertEqual(len(connections), len(there))
        for number in list(there):
            connections.close(number)
        self.assertEqual(repr(connections), "<Connections 0, idle 0, silent 0, {}>")


class ClientOfTests(SynchronousTestCase):
    """Tests for L{client_of}."""

    def test_clients(self) -> None:
        """Addresses of one client are the same, and of different ones not."""
        for one, other, same in (
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
            ("192.0.2.1", "::ffff:192.0.2.1", True),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
            ("2001:db8::1", "2001:db8::ffff:2", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("fe80::1%eth0", "fe80::2%eth1", True),
            ("name", "name", True),
            ("name", "other", False),
        ):
            self.assertEqual(client_of(one) == client_of(other), same, (one, other))
