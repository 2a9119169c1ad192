"""Tests for L{thrtwisted.listen.watch}."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.listen.support import fill, tcp_pair
from thrtwisted.listen.kernel import look
from thrtwisted.listen.watch import Late, Watch


class WatchCase(SynchronousTestCase):
    """A watch, with a clock, that notes what is late."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[tuple[float, Late]] = []
        self.watch = self.make()

    def make(self, transport: Any = None) -> Watch:
        return Watch(self.clock, transport, lambda late: self.late.append((self.clock.seconds(), late)))

    def advance(self, seconds: float, step: float = 0.5) -> None:
        for _ in range(int(seconds / step)):
            self.clock.advance(step)


class WaitTests(WatchCase):
    """Times and bodies."""

    def test_time(self) -> None:
        """When a time is over it is said once, and no timer is left."""
        self.watch.wait(5)
        self.advance(20)
        self.assertEqual(self.late, [(5.0, Late.TIME)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_later(self) -> None:
        """Another time replaces it: a later one without touching the timer, a sooner one too rings in time."""
        self.watch.wait(5)
        [call] = self.clock.getDelayedCalls()
        self.clock.advance(1)
        self.watch.wait(10)
        self.assertEqual(self.clock.getDelayedCalls(), [call])
        self.advance(5)
        self.watch.wait(1)
        self.advance(20)
        self.assertEqual(self.late, [(7.0, Late.TIME)])

    def test_no_more(self) -> None:
        """What is not waited for any more is not late; the timer rings in vain."""
        self.watch.wait(5)
        self.watch.wait_no_more()
        self.advance(20)
        self.assertEqual((self.late, self.clock.getDelayedCalls()), ([], []))
        self.watch.body_moved(5)  # nobody waits for one

    def test_body(self) -> None:
        """A body is late when it comes too slowly, whatever time was waited for before."""
        self.watch.wait(5)
        self.watch.body_begins(10)
        for _ in range(8):
            self.clock.advance(2)
            self.watch.body_moved(25)
        self.advance(20)
        self.assertEqual(self.late, [(20.0, Late.BODY)])

    def test_stop(self) -> None:
        """Nothing is watched over any more."""
        self.watch.wait(5)
        self.watch.stop()
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AnswerTests(WatchCase):
    """What a client takes."""

    def test_unseen(self) -> None:
        """Where nobody tells what is taken, much must be taken in a long time."""
        self.watch.answer_waits(10_000, 0)
        self.watch.wait(1)  # is nobody's fault as long as an answer waits
        self.advance(30)
        self.assertEqual(self.late, [])
        self.watch.answer_taken(400_000)
        self.watch.answer_taken(400_000)
        self.assertEqual(self.late, [])
        self.watch.wait(1000)
        self.watch.answer_waits(10_000, 400_000)
        self.advance(60)
        # 10 s and the time for 256 kB, from the moment at which the bytes before had to be taken
        self.assertEqual([late for _, late in self.late], [Late.ANSWER])

    def acknowledged(self, served: socket.socket) -> int:
        """How much has arrived at the client."""
        seen = look(SimpleNamespace(socket=served))
        if seen is None:
            raise SkipTest("this system does not tell what has arrived")
        return seen.acknowledged

    def test_seen(self) -> None:
        """Where the kernel tells what has arrived, a client that takes nothing is late after ten seconds."""
        served, client = tcp_pair(self)
        watch = self.make(SimpleNamespace(socket=served))
        written = fill(served)
        self.assertLess(self.acknowledged(served), written)
        watch.answer_waits(100_000, written)
        for _ in range(30):
            before = self.acknowledged(served)
            taken = 0
            while taken < 500_000:  # in two seconds, twice and a half as much as it must
                taken += len(client.recv(65536))
            fill(served)
            for _ in range(1000):
                if self.acknowledged(served) > before:
                    break
                os.sched_yield()
            self.advance(2)
        self.assertEqual(self.late, [])
        self.advance(15)
        [(when, late)] = self.late
        self.assertIs(late, Late.ANSWER)
        self.assertLess(when, 60 + 13)

    def test_last(self) -> None:
        """The time after a last answer begins when the client has taken all of it."""
        served, client = tcp_pair(self)
        watch = self.make(SimpleNamespace(socket=served))
        written = fill(served)
        watch.ends(50, written, 2, 1)
        left = written
        for _ in range(8):
            self.advance(5)
            left -= len(client.recv(100_000))
        self.assertEqual(self.late, [])
        while left:
            left -= len(client.recv(left))
        while look(SimpleNamespace(socket=served)).waiting:
            os.sched_yield()
        self.advance(5)
        [(when, late)] = self.late
        self.assertIs(late, Late.TIME)
        self.assertTrue(42 <= when <= 44, when)

    def test_last_not_taken(self) -> None:
        """Who does not take it is late."""
        served, _ = tcp_pair(self)
        watch = self.make(SimpleNamespace(socket=served))
        watch.ends(1000, fill(served), 2, 1)
        self.advance(20)
        [(when, late)] = self.late
        self.assertIs(late, Late.ANSWER)
        self.assertTrue(10 <= when <= 11, when)

    def test_last_unseen(self) -> None:
        """Where nobody tells what is taken, the time begins at once, whatever was waited for."""
        self.watch.body_begins(10)
        self.watch.ends(1000, 5000, 2, 1)
        self.advance(20)
        self.assertEqual(self.late, [(2.0, Late.TIME)])
