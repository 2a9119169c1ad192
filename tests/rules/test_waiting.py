"""Tests of thrtwisted.rules.waiting."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.kinds import KINDS
from thrtwisted.rules.waiting import Abandoned, Failed, call, detached, give_up, together, waits


class Broken(Exception):
    """A mistake of the user's."""


def breaking(_: object) -> Any:
    """A function with a mistake."""
    raise Broken


class CallTests(SynchronousTestCase):
    """Functions that are called and waited for."""

    def test_interrupt(self) -> None:
        """An interrupt of the process, or the end of a generator, is no failure of the function that it meets."""
        for error in (KeyboardInterrupt(), GeneratorExit()):

            def interrupted(_: object) -> None:
                raise error  # noqa: B023

            self.assertRaises(type(error), call, [interrupted], None)

    def test_kinds(self) -> None:
        """However a function gives its result, that is what comes."""
        results = call([kind(lambda exchange: exchange + 1) for kind in KINDS], 1)
        self.assertTrue(waits(results))
        self.assertEqual(self.successResultOf(together(results)), [2, 2, 2, 2])

    def test_at_once(self) -> None:
        """Where nobody waits no Deferred is made."""
        results = call([lambda exchange: exchange, lambda exchange: None], 5)
        self.assertFalse(waits(results))
        self.assertEqual(results, [5, None])

    def test_parallel(self) -> None:
        """All are called before any is waited for, and their results keep their places."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        waiting = together(call([lambda _: first, lambda _: 0, lambda _: second], None))
        second.callback(2)
        self.assertNoResult(waiting)
        first.callback(1)
        self.assertEqual(self.successResultOf(waiting), [1, 0, 2])

    def test_mistakes(self) -> None:
        """Which function failed is told, however it fails, and the others are cancelled."""
        for kind in KINDS:
            cancelled: list[str] = []
            other: Deferred[None] = Deferred(lambda _: cancelled.append("other"))  # noqa: B023
            functions = [lambda _: 0, lambda _: other, kind(breaking)]  # noqa: B023
            try:
                failed = self.failureResultOf(together(call(functions, None)), Failed).value
            except Failed as error:
                failed = error
            self.assertEqual(failed.index, 2, kind)
            self.assertTrue(failed.failure.check(Broken))
            self.assertEqual(cancelled, ["other"], kind)

    def test_several_mistakes(self) -> None:
        """Of several that fail the first is told, and the others are not logged."""
        slow: Deferred[None] = Deferred()
        waiting = together(call([lambda _: slow, lambda _: fail(Broken())], None))
        self.assertEqual(self.failureResultOf(waiting, Failed).value.index, 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancelled_by_itself(self) -> None:
        """A function that fails because something of its own was cancelled has failed, and was not abandoned."""
        own: Deferred[None] = Deferred()
        waiting = together(call([lambda _: own], None))
        own.cancel()
        self.assertTrue(self.failureResultOf(waiting, Failed).value.failure.check(CancelledError))

    def test_not_to_be_waited_for(self) -> None:
        """What nobody could wait for is a mistake, not a result: a generator that nothing runs, and its like."""

        def forgotten(_: object) -> Any:
            yield succeed(None)

        class Future:
            """What something else than Twisted waits for."""

            def __await__(self) -> Any:
                yield self

        for function, message in [
            (forgotten, "inlineCallbacks"),
            (lambda _: Future(), "a Future cannot be waited for"),
        ]:
            failed = self.assertRaises(Failed, call, [function], None)
            self.assertTrue(failed.failure.check(TypeError))
            self.assertIn(message, str(failed.failure.value))


class AbandonedTests(SynchronousTestCase):
    """Nobody waits any more."""

    def test_cancelled(self) -> None:
        """Who waited goes on at once, and all functions are cancelled."""
        cancelled: list[int] = []
        functions = [lambda _, n=number: Deferred(lambda _: cancelled.append(n)) for number in range(3)]
        waiting = together(call(functions, None))
        waiting.cancel()
        self.failureResultOf(waiting, Abandoned)
        self.assertEqual(sorted(cancelled), [0, 1, 2])

    def test_stubborn(self) -> None:
        """A function that will not be cancelled holds nobody up, and what becomes of it is not even logged."""
        shielded: Deferred[None] = Deferred()
        never: Deferred[None] = Deferred()
        for late in (lambda: shielded.callback(None), lambda: None):
            stubborn: Deferred[None] = Deferred()
            stubborn.addErrback(lambda _: never)
            waiting = together(call([lambda _: stubborn], None))  # noqa: B023
            waiting.cancel()
            self.failureResultOf(waiting, Abandoned)
            late()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_late_failure(self) -> None:
        """What fails after it was given up is not logged."""
        late: Deferred[None] = Deferred(lambda _: None)
        echo = detached(late)
        echo.cancel()
        self.failureResultOf(echo, Abandoned)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_shared(self) -> None:
        """Functions that return the same Deferred all get its result."""
        for result in (succeed("x"), Deferred()):
            waiting = together(call([lambda _: result, lambda _: result], None))  # noqa: B023
            if not result.called:
                result.callback("x")
            self.assertEqual(self.successResultOf(waiting), ["x", "x"])
        failing: Deferred[None] = Deferred()
        echoes = [detached(failing), detached(failing)]
        failing.errback(Broken())
        for echo in echoes:
            self.failureResultOf(echo, Broken)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_broken_canceller(self) -> None:
        """A canceller with a mistake is logged, and holds nobody up."""
        echo = detached(Deferred(breaking))
        echo.cancel()
        self.failureResultOf(echo, Abandoned)
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)

    def test_give_up(self) -> None:
        """To give up what is done already does nothing."""
        give_up([1, None, detached(succeed(2)), detached(fail(Broken()))])
        self.assertEqual(self.flushLoggedErrors(), [])
