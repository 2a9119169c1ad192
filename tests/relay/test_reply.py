"""Tests for L{thrtwisted.relay.reply}: the body of a response, as it goes from a forwarding to a front."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed

from tests.relay.support import MemoryPosts, Talker
from thrtwisted.forward.body import ResponseBody
from thrtwisted.relay.codec import Kind
from thrtwisted.relay.conversation import Conversation
from thrtwisted.relay.reply import Reply

WINDOW = 4096


class ReplyTests(SynchronousTestCase):
    """Tests for L{Reply}."""

    def setUp(self) -> None:
        self.clock = Clock()
        posts = MemoryPosts(self.clock)
        self.front, self.worker = Talker(), Talker()
        for owner, talker, peer in (("front", self.front, "worker"), ("worker", self.worker, "front")):
            post = posts.post(owner)
            talker.conversation = Conversation(post, peer, "front", 1, WINDOW, talker)
            post.start(talker)
        self.reply = Reply(self.worker.conversation)
        self.worker.drained = self.reply.drained  # type: ignore[method-assign]
        self.backend = StringTransport()
        self.left: list[None] = []
        self.body = ResponseBody(
            100_000, on_end=lambda: None, on_leave=lambda: self.left.append(None), was_reset=lambda: False
        )
        self.body.makeConnection(self.backend)

    def turn(self) -> None:
        """All frames arrive."""
        self.clock.advance(0)

    def test_short(self) -> None:
        """A body that is there is said, with its end."""
        self.body.dataReceived(b"ok")
        self.body.connectionLost()
        self.successResultOf(self.body.deliver(self.reply))
        self.turn()
        self.assertEqual(self.front.heard, [(Kind.DATA, b"ok"), (Kind.END, b"")])

    def test_none(self) -> None:
        """Of no body the end is said; of one that is still to come, nothing."""
        delivered = self.body.deliver(self.reply)
        self.turn()
        self.assertEqual(self.front.heard, [])
        self.body.connectionLost()
        self.successResultOf(delivered)
        self.turn()
        self.assertEqual(self.front.heard, [(Kind.END, b"")])

    def test_cut(self) -> None:
        """A body that is cut is said to be so, whatever of it waits here."""
        self.front.greedy = False
        delivered = self.body.deliver(self.reply)
        self.body.dataReceived(bytes(200_000))
        self.turn()
        self.body.connectionLost(Failure(ResponseFailed([])))
        self.successResultOf(delivered)
        self.front.greedy = True
        self.front.take()
        self.turn()
        self.assertEqual(self.front.heard[-1], (Kind.CUT, b""))
        self.assertNotIn((Kind.END, b""), self.front.heard)

    def test_slow_front(self) -> None:
        """A front that takes nothing is waited for here; what it takes later is complete, and in order."""
        self.front.greedy = False
        sent = [bytes([number]) * 30_000 for number in range(80)]
        delivered = self.body.deliver(self.reply)
        while self.backend.producerState == "producing" and sent[0]:
            piece = sent.pop(0)
            sent.append(b"")
            self.body.dataReceived(piece)
            self.turn()
        self.assertEqual(self.backend.producerState, "paused")
        self.assertLessEqual(self.front.held, WINDOW)
        self.front.greedy = True
        self.front.take()
        self.turn()
        self.assertEqual(self.backend.producerState, "producing")
        for piece in sent:
            self.body.dataReceived(piece)
        self.body.connectionLost()
        self.turn()
        self.successResultOf(delivered)
        [(_, body), _] = self.front.heard
        self.assertEqual(body, b"".join(bytes([number]) * 30_000 for number in range(80)))
        self.assertFalse(self.body.spool)

    def test_dropped(self) -> None:
        """Nobody wants the rest: nothing more is said."""
        delivered = self.body.deliver(self.reply)
        self.body.dataReceived(bytes(100_000))
        self.body.drop()
        self.successResultOf(delivered)
        self.turn()
        self.body.dataReceived(b"more")
        self.reply.drained()
        self.turn()
        self.assertEqual([kind for kind, _ in self.front.heard], [Kind.DATA])
        self.assertEqual(self.left, [])
