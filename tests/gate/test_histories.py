"""
Histories in which a promise was broken once, over a simulated network: the gates and the script are the product's own.

C{python -m tests.gate.explore} looks for more of them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests import valkey
from tests.gate.simulation import LATENCY, PROMPT, Server, World
from tests.gate.test_invariants import Contents
from thrtwisted.gate import Counter, IAdmission, Ticket

ONE = (Counter("one", 1),)


class HistoryTestCase(SynchronousTestCase):
    """
    A world in which nothing is in the way, but for the next things of an owner.

    @ivar fates: what becomes of them, and the seconds that they are late by, by "batch" or "message" and owner.
    """

    def setUp(self) -> None:
        self.client = valkey.client()
        self.addCleanup(self.client.close)
        server = Server(self.client, valkey.namespace())
        self.addCleanup(server.close)
        self.world = World(server)
        self.world.decide = self.decide
        self.fates: dict[tuple[str, str], list[tuple[str, float]]] = {}

    def decide(self, kind: str, name: str) -> tuple[str, float]:
        fates = self.fates.get((kind, name))
        return fates.pop(0) if fates else (PROMPT, LATENCY)

    def acquire(self, name: str, counters: tuple[Counter, ...] = ONE, **options: Any) -> Deferred[IAdmission]:
        """A ticket comes to an owner, and its batch is answered."""
        told = self.world.owners[name].gate.acquire(Ticket(counters, **options))
        self.world.advance(0.01)
        return told

    def held(self) -> set[str]:
        """The tickets that Redis has as admitted."""
        places = Contents(self.client, self.world.server.prefix).places()
        return {name for name, place in places.items() if place[0] == "+"}


class HistoryTests(HistoryTestCase):
    def test_slow_answer_on_a_new_connection(self) -> None:
        """Redis counts as gone while a new connection waits for its first answer; then that comes, and all goes on."""
        self.world.start("a")
        self.world.advance(0.1)
        self.fates["batch", "a"] = [("never arrives", 0.0), ("answered late", 0.2)]
        self.acquire("a")
        self.world.advance(0.3)
        self.successResultOf(self.acquire("a", (Counter("two", 1),)))
        self.assertEqual(self.held(), {"a:1", "a:2"})
