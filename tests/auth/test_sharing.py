"""Tests for L{thrtwisted.auth.sharing}."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.auth.sharing import Shared


class SharedTests(SynchronousTestCase):
    """Work that several wait for."""

    def setUp(self) -> None:
        self.shared: Shared[str] = Shared()
        self.begun: list[Deferred[str]] = []
        self.cancelled: list[Deferred[str]] = []

    def begin(self) -> Deferred[str]:
        """Work begins."""
        self.begun.append(Deferred(self.cancelled.append))
        return self.begun[-1]

    def ask(self, key: bytes = b"a") -> Deferred[str]:
        """Somebody asks."""
        return self.shared.ask(key, self.begin)

    def test_once(self) -> None:
        """What several ask for at once is done once, and what is asked for later again."""
        waiting = [self.ask(), self.ask(), self.ask(b"b")]
        self.assertEqual((len(self.begun), len(self.shared)), (2, 2))
        self.begun[0].callback("done")
        self.assertEqual([self.successResultOf(each) for each in waiting[:2]], ["done", "done"])
        self.assertNoResult(waiting[2])
        self.ask()
        self.assertEqual(len(self.begun), 3)

    def test_failure(self) -> None:
        """It fails for all."""
        waiting = [self.ask(), self.ask()]
        self.begun[0].errback(ZeroDivisionError())
        for each in waiting:
            self.failureResultOf(each, ZeroDivisionError)
        self.assertEqual(len(self.shared), 0)

    def test_leaving(self) -> None:
        """Who leaves, the first as well, does not disturb the others; when nobody is left it is cancelled."""
        waiting = [self.ask(), self.ask(), self.ask()]
        for each in waiting[:2]:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual((self.cancelled, len(self.shared)), ([], 1))
        waiting[2].cancel()
        self.failureResultOf(waiting[2], CancelledError)
        self.assertEqual((self.cancelled, len(self.shared)), (self.begun, 0))

    def test_after_leaving(self) -> None:
        """What was cancelled is begun anew for the next one, and its late end changes nothing."""
        end: Deferred[str] = Deferred()
        late: Deferred[str] = Deferred()
        late.addErrback(lambda _: end)
        self.shared.ask(b"a", lambda: late).addErrback(lambda _: None).cancel()
        first = self.ask()
        end.callback("late")
        second = self.ask()
        self.assertEqual(len(self.begun), 1)
        self.begun[0].callback("done")
        self.assertEqual([self.successResultOf(each) for each in (first, second)], ["done", "done"])

    def test_at_once(self) -> None:
        """What is done at once, or fails at once, is not under way."""
        self.assertEqual(self.successResultOf(self.shared.ask(b"a", lambda: succeed("done"))), "done")
        self.failureResultOf(self.shared.ask(b"a", lambda: fail(ZeroDivisionError())), ZeroDivisionError)
        self.assertEqual(len(self.shared), 0)

    def test_leaving_from_within(self) -> None:
        """One who is told may make another leave, who is then not told."""
        first = self.ask()
        second = self.ask()
        first.addCallback(lambda _: second.cancel())
        self.begun[0].callback("done")
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.cancelled, [])
