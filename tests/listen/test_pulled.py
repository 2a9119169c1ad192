"""Tests for L{thrtwisted.listen.pulled}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.listen.pulled import Pulled


class Producer:
    """A pull producer that counts how often it is asked, and pauses itself then."""

    pulled: Pulled
    asked = 0
    stopped = 0

    def resumeProducing(self) -> None:
        self.asked += 1
        self.pulled.pauseProducing()

    def stopProducing(self) -> None:
        self.stopped += 1


class PulledTests(SynchronousTestCase):
    """Tests for L{Pulled}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.producer = Producer()
        self.pulled = self.producer.pulled = Pulled(self.clock, self.producer)

    def test_asked(self) -> None:
        """It is asked in the reactor's next turn, once, however often it is resumed, and not while it is paused."""
        self.pulled.resumeProducing()
        self.assertEqual(self.producer.asked, 0)
        for number in range(1, 3):
            self.clock.advance(0)
            self.assertEqual(self.producer.asked, number)
            self.clock.advance(10)
            self.assertEqual(self.producer.asked, number)
            self.pulled.resumeProducing()

    def test_again(self) -> None:
        """It is asked again as long as nobody says otherwise."""
        times = []

        class Endless(Producer):
            def resumeProducing(self) -> None:
                times.append(True)
                if len(times) == 5:
                    self.pulled.pauseProducing()

        producer = Endless()
        producer.pulled = Pulled(self.clock, producer)
        self.clock.advance(0)
        self.assertEqual(len(times), 5)

    def test_stopped(self) -> None:
        """Stopped, it is told and not asked any more."""
        self.pulled.stopProducing()
        self.pulled.pauseProducing()
        self.clock.advance(1)
        self.assertEqual((self.producer.asked, self.producer.stopped), (0, 1))
