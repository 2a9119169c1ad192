"""Tests for L{thrtwisted.listen.site}."""

from __future__ import annotations

import time
from io import StringIO
from typing import Any

from twisted.internet.interfaces import IProtocolNegotiationFactory, ISSLTransport, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from zope.interface import alsoProvides

from thrtwisted.config import Bounds
from thrtwisted.listen.site import LOG_DELAY, SHOWN, ProxySite


class ProxySiteTests(SynchronousTestCase):
    """The access log, a moment later."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = ProxySite(self.clock, Resource())
        self.written: list[Any] = []
        self.site._logFormatter = lambda timestamp, request: f"{self.written.append(request)}"
        self.site.logFile = StringIO()

    def test_later(self) -> None:
        """A line is not written at once, but after a moment, in the order of the ends."""
        for number in range(2):
            self.site.log(number)
        self.assertEqual(self.written, [])
        self.clock.advance(LOG_DELAY)
        self.assertEqual(self.written, [0, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_date(self) -> None:
        """A line has the date, whatever the reactor measures time by."""
        site = ProxySite(self.clock, Resource())
        site.doStart()
        written = site.logFile = StringIO()
        channel = site.buildProtocol(None)
        channel.makeConnection(StringTransport())
        channel.dataReceived(b"GET /page HTTP/1.0\r\n\r\n")
        self.clock.advance(LOG_DELAY)
        year = time.gmtime().tm_year
        self.assertRegex(written.getvalue(), rf'/{year}:.* \+0000\] "GET /page HTTP/1.0" 404 ')
        site.doStop()

    def test_long(self) -> None:
        """What a client makes long is cut in its line, and the line shows that; what is not so long is there whole."""
        site = ProxySite(self.clock, Resource())
        site.doStart()
        written = site.logFile = StringIO()
        channel = site.buildProtocol(None)
        channel.makeConnection(StringTransport())
        for target, referer, agent in [
            (b"a" * SHOWN, b"b" * (SHOWN + 1), b"\xff" * 16_000),
            (b"a" * (SHOWN - 1), b"b" * SHOWN, b"\xff"),
        ]:
            head = b"GET /%b HTTP/1.1\r\nHost: h\r\nReferer: %b\r\nUser-Agent: %b\r\n\r\n"
            channel.dataReceived(head % (target, referer, agent))
        self.clock.advance(LOG_DELAY)
        cut, whole = written.getvalue().splitlines()
        self.assertIn("/" + "a" * (SHOWN - 1) + "... HTTP/1.1", cut)
        self.assertTrue(cut.endswith('"' + "b" * SHOWN + '..." "' + "\\xff" * SHOWN + '..."'))
        self.assertIn("/" + "a" * (SHOWN - 1) + " HTTP/1.1", whole)
        self.assertTrue(whole.endswith('"' + "b" * SHOWN + '" "\\xff"'))
        site.doStop()

    def test_stop(self) -> None:
        """What is still to be written when the site stops is written then."""
        self.site.doStart()
        self.site.log("last")
        self.site.doStop()
        self.assertEqual(self.written, ["last"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_the_stop(self) -> None:
        """What ends later is not kept for later."""
        self.site.doStart()
        self.site.doStop()
        self.site.log("late")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_protocols(self) -> None:
        """Over TLS it speaks HTTP/1.1 and nothing else."""
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])
        self.assertTrue(IProtocolNegotiationFactory.providedBy(self.site))

    def test_defaults(self) -> None:
        """Without more it has the bounds of a configuration that says nothing of them."""
        self.assertEqual(self.site.bounds, Bounds())
        self.assertEqual(self.site._disk.limit, Bounds().spool)

    def test_tls(self) -> None:
        """A channel knows whether its client has come by TLS."""
        for interfaces, secure in (((), False), ((ISSLTransport,), True)):
            channel = self.site.buildProtocol(None)
            transport = StringTransport()
            transport.setTcpNoDelay = lambda _: None
            alsoProvides(transport, *interfaces)
            channel.makeConnection(transport)
            self.assertEqual(channel.isSecure(), secure)
            channel.connectionLost()

    def test_tcp(self) -> None:
        """Small answers are sent at once, whatever was sent before (Nagle's algorithm)."""
        said: list[bool] = []
        transport = StringTransport()
        transport.setTcpNoDelay = said.append
        alsoProvides(transport, ITCPTransport)
        channel = self.site.buildProtocol(None)
        channel.makeConnection(transport)
        self.assertEqual(said, [True])
        channel.connectionLost()
