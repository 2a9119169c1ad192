"""Tests for L{thrtwisted.relay.seldom}."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.relay.seldom import PAUSE, Seldom


class SeldomTests(SynchronousTestCase):
    def test_seldom(self) -> None:
        """At once, and then once in each pause; what was not said does not make it longer."""
        clock = Clock()
        seldom = Seldom(clock)
        self.assertEqual([seldom.now(), seldom.now()], [True, False])
        clock.advance(PAUSE - 1)
        self.assertFalse(seldom.now())
        clock.advance(1)
        self.assertEqual([seldom.now(), seldom.now()], [True, False])
