"""Tests for L{thrtwisted.relay.upload}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IBodyProducer
from zope.interface.verify import verifyObject

from thrtwisted.relay.upload import Upload


class Backend:
    """
    Takes a body.

    @ivar patience: pieces after which it wants no more for the moment.
    """

    def __init__(self, upload: Upload, patience: int = 1000) -> None:
        self.upload = upload
        self.patience = patience
        self.taken: list[bytes] = []
        self.broken = False

    def write(self, data: bytes) -> None:
        if self.broken:
            raise OSError("broken")
        self.taken.append(data)
        self.patience -= 1
        if not self.patience:
            self.upload.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Not called."""

    def unregisterProducer(self) -> None:
        """Not called."""


class UploadTests(SynchronousTestCase):
    """Tests for L{Upload}."""

    def setUp(self) -> None:
        self.consumed: list[int] = []
        self.upload = Upload(6, self.consumed.append)
        self.backend = Backend(self.upload)

    def test_interface(self) -> None:
        """It is what a client of Twisted's sends as a body."""
        verifyObject(IBodyProducer, self.upload)
        self.assertEqual(self.upload.length, 6)

    def test_comes_before(self) -> None:
        """What has come before the backend wants it is kept, and is not consumed."""
        self.upload.add(b"abc")
        self.upload.add(b"def")
        self.assertEqual((self.consumed, self.upload.complete, self.upload.sending), ([], True, False))
        sent = self.upload.startProducing(self.backend)
        self.successResultOf(sent)
        self.assertEqual((self.backend.taken, self.consumed), ([b"abc", b"def"], [3, 3]))
        self.assertFalse(self.upload.sending)

    def test_comes_late(self) -> None:
        """What comes later goes on at once; as long as something is missing, the backend starves."""
        progress: list[None] = []
        self.upload.progress = lambda: progress.append(None)
        sent = self.upload.startProducing(self.backend)
        self.assertEqual((self.upload.sending, self.upload.starved), (True, True))
        self.upload.add(b"abc")
        self.upload.add(b"")
        self.assertNoResult(sent)
        self.assertEqual(repr(self.upload), "<Upload 3 of 6 bytes, 0 pieces wait>")
        self.upload.add(b"def")
        self.successResultOf(sent)
        self.assertEqual((self.consumed, len(progress)), ([3, 3], 2))
        self.assertFalse(self.upload.starved)

    def test_back_pressure(self) -> None:
        """A backend that takes no more is given no more; nothing more is consumed, and it does not starve."""
        self.backend.patience = 1
        sent = self.upload.startProducing(self.backend)
        self.upload.add(b"abc")
        self.upload.add(b"def")
        self.assertEqual((self.consumed, self.upload.starved), ([3], False))
        self.upload.resumeProducing()
        self.successResultOf(sent)
        self.assertEqual(self.backend.taken, [b"abc", b"def"])

    def test_asks_within(self) -> None:
        """A transport that asks for more while it is given some gets the pieces in their order."""
        write = self.backend.write

        def eager(data: bytes) -> None:
            write(data)
            self.upload.resumeProducing()

        self.backend.write = eager  # type: ignore[method-assign]
        self.upload.add(b"ab")
        self.upload.add(b"cd")
        self.upload.add(b"ef")
        self.successResultOf(self.upload.startProducing(self.backend))
        self.assertEqual(self.backend.taken, [b"ab", b"cd", b"ef"])

    def test_closed(self) -> None:
        """What nobody wants any more is consumed, whenever it comes."""
        self.upload.add(b"abc")
        self.upload.close()
        self.upload.close()
        self.upload.add(b"def")
        self.assertEqual(self.consumed, [3, 3])
        self.failureResultOf(self.upload.startProducing(self.backend), ValueError)

    def test_connection_lost(self) -> None:
        """The backend's connection is gone while it is sent, or the client gives up."""
        for end in (self.upload.stopProducing, None):
            self.upload = Upload(6, self.consumed.append)
            sent = self.upload.startProducing(self.backend)
            if end is None:
                sent.cancel()
                self.failureResultOf(sent)
            else:
                self.upload.stopProducing()
                self.assertNoResult(sent)
            self.upload.add(b"abcdef")
            self.assertEqual((self.consumed.pop(), self.backend.taken), (6, []))

    def test_transport_broken(self) -> None:
        """A transport that fails is the end of it."""
        self.backend.broken = True
        sent = self.upload.startProducing(self.backend)
        self.upload.add(b"abc")
        self.failureResultOf(sent, OSError)
        self.assertFalse(self.upload.sending)

    def test_too_long(self) -> None:
        """More than was said is refused."""
        self.upload.add(b"abcde")
        self.assertRaises(ValueError, self.upload.add, b"fg")
        self.assertFalse(self.upload.complete)

    def test_empty(self) -> None:
        """A body of no bytes is sent at once."""
        upload = Upload(0, self.consumed.append)
        self.assertTrue(upload.complete)
        self.successResultOf(upload.startProducing(self.backend))
