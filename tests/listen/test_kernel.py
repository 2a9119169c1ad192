"""Tests for L{thrtwisted.listen.kernel}: connections of this machine."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from tests.listen.support import fill, tcp_pair
from thrtwisted.listen.kernel import Seen, gone, look


class LookTests(SynchronousTestCase):
    """Tests for L{look}."""

    if not sys.platform.startswith("linux"):
        skip = "only Linux tells"

    def seen(self, served: socket.socket) -> Seen:
        seen = look(SimpleNamespace(socket=served))
        assert seen is not None
        return seen

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)

    def test_taken(self) -> None:
        """What was sent waits until the client's system has it."""
        served, client = tcp_pair(self)
        self.assertEqual(self.seen(served), Seen(0, False, False))
        written = fill(served)
        self.assertTrue(self.seen(served).waiting)
        left = written
        while left:
            left -= len(client.recv(65536))
        self.until(lambda: not self.seen(served).waiting)
        self.assertGreaterEqual(self.seen(served).acknowledged, written)
        self.assertFalse(self.seen(served).gone)

    def test_gone(self) -> None:
        """A client that has closed its half, or reset the connection, is seen without reading."""
        for how in (
            lambda client: client.shutdown(socket.SHUT_WR),
            lambda client: client.close(),
            lambda client: (
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
                client.close(),
            ),
        ):
            served, client = tcp_pair(self)
            client.send(b"unread")
            self.assertFalse(gone(SimpleNamespace(socket=served)))
            how(client)
            self.until(lambda served=served: gone(SimpleNamespace(socket=served)))

    def test_nobody_tells(self) -> None:
        """A unix socket does not tell, nor one that is closed, nor a transport without one."""
        served, client = socket.socketpair()
        self.assertIsNone(look(SimpleNamespace(socket=served)))
        served.close()
        client.close()
        self.assertIsNone(look(SimpleNamespace(socket=served)))
        self.assertIsNone(look(object()))
        self.assertFalse(gone(object()))
