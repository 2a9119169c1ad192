"""Operations that have an answer, until they have it."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.errors import GateUnavailable
from thrtwisted.gate.questions import Questions


class QuestionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.questions = Questions()

    def test_answered(self) -> None:
        """Questions are asked in their order, as many as a batch may have; each has its own answer."""
        told = [self.questions.ask("take", "front", serial) for serial in (1, 2, 3)]
        self.assertEqual(self.questions.next(2), [["take", "front", 1], ["take", "front", 2]])
        self.questions.answered([1, 0])
        self.assertEqual([self.successResultOf(each) for each in told[:2]], [1, 0])
        self.assertEqual((len(self.questions), self.questions.next(2)), (1, [["take", "front", 3]]))
        self.assertNoResult(told[2])

    def test_unanswered(self) -> None:
        """Those of a batch that may not have been done are asked again, before others."""
        for word in ("a", "b"):
            self.questions.ask(word)
        self.assertEqual(self.questions.next(1), [["a"]])
        self.questions.unanswered()
        self.assertEqual(self.questions.next(9), [["a"], ["b"]])

    def test_latest(self) -> None:
        """What may change is looked up whenever it is asked."""
        serials = [1, 2]
        told = self.questions.ask("inherit", "front", latest=lambda: serials)
        self.assertEqual(self.questions.next(9), [["inherit", "front", 1, 2]])
        self.questions.unanswered()
        serials[:] = [2, 3]
        self.assertEqual(self.questions.next(9), [["inherit", "front", 2, 3]])
        self.questions.answered([1])
        self.assertEqual(self.successResultOf(told), 1)

    def test_put_off(self) -> None:
        """What cannot be told yet is asked again later, not at once."""
        told = self.questions.ask("a")
        self.questions.next(9)
        self.questions.answered([-1])
        self.assertFalse(self.questions)
        self.questions.resume()
        self.assertEqual(self.questions.next(9), [["a"]])
        self.questions.answered([1])
        self.assertEqual(self.successResultOf(told), 1)

    def test_cancelled(self) -> None:
        """One that is cancelled is not asked, nor asked again; the answers of others stay theirs."""
        unsent, sent, other = (self.questions.ask(word) for word in ("a", "b", "c"))
        unsent.cancel()
        self.assertEqual(self.questions.next(9), [["b"], ["c"]])
        sent.cancel()
        self.questions.answered([1, 2])
        self.assertEqual(self.successResultOf(other), 2)
        for each in (unsent, sent):
            self.failureResultOf(each, CancelledError)
        lost = self.questions.ask("d")
        self.questions.next(9)
        lost.cancel()
        self.questions.unanswered()
        self.assertFalse(self.questions)
        self.failureResultOf(lost, CancelledError)

    def test_stopped(self) -> None:
        """When the gate stops nothing is answered any more, wherever it is."""
        put_off = self.questions.ask("a")
        self.questions.next(9)
        self.questions.answered([-1])
        asked = self.questions.ask("b")
        self.questions.next(9)
        pending = self.questions.ask("c")
        self.questions.stop()
        for told in (put_off, asked, pending, self.questions.ask("d")):
            self.failureResultOf(told, GateUnavailable)
