"""Tests for L{thrtwisted.auth.fields}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.auth.fields import check_copied, check_sent, question
from thrtwisted.exchange import Exchange


class NamesTests(SynchronousTestCase):
    """What may be sent and copied."""

    def test_sent(self) -> None:
        """What says who the client is may be sent; what is the connection's, the body's or the proxy's own may not."""
        for name in ("Authorization", "cookie", "X-Api-Key", "Origin", "Accept"):
            check_sent(name)
        for name, part in (
            ("Connection", "the connection's own"),
            ("te", "the connection's own"),
            ("Proxy-Authorization", "the connection's own"),
            ("X_Key", 'write "X-Key"'),
            ("X Key", "no header has such a name"),
            ("", "no header has such a name"),
            ("Host", "X-Forwarded-Host"),
            ("Content-Length", "the connection's own"),
            ("Content-Type", "body"),
            ("Expect", "the connection's own"),
            ("x-forwarded-uri", "always sent"),
            ("X-Forwarded-For", "always sent"),
        ):
            self.assertIn(part, str(self.assertRaises(ValueError, check_sent, name)), name)

    def test_copied(self) -> None:
        """What the service finds out may be copied; what frames a request, or says where it comes from, may not."""
        for name in ("X-User", "Authorization", "X-Groups", "Cookie"):
            check_copied(name)
        for name, part in (
            ("Transfer-Encoding", "the connection's own"),
            ("Content-Length", "the connection's own"),
            ("Content-Type", "the request itself"),
            ("Host", "the request itself"),
            ("Expect", "the connection's own"),
            ("X-Forwarded-For", "who the client is"),
            ("Forwarded", "who the client is"),
            ("X-Real-IP", "who the client is"),
            ("X_User", 'write "X-User"'),
            ("X:User", "no header has such a name"),
        ):
            self.assertIn(part, str(self.assertRaises(ValueError, check_copied, name)), name)


class QuestionTests(SynchronousTestCase):
    """What a service is asked."""

    def test_fields(self) -> None:
        """It is told who asks for what, and what the configuration names; nothing else of what the client sent."""
        headers = Headers(
            {
                "Authorization": ["Bearer x"],
                "X-Key": ["1", ""],
                "Cookie": ["a=b"],
                "Host": ["app"],
                "Content-Length": ["3"],
                "X-Forwarded-For": ["192.0.2.1"],
                "X-Forwarded-Proto": ["https"],
                "X-Forwarded-Host": ["app"],
                "X-Forwarded-Method": ["GET"],
                "X-Forwarded-Uri": ["/harmless"],
                "X-Original-Url": ["/harmless"],
            }
        )
        exchange = Exchange(
            b"DELETE", b"/a%2F?b=c", headers, client="192.0.2.1", backend="app", version=b"HTTP/2"
        )
        asked = question(exchange, b"/auth", [b"authorization", b"x-key", b"absent"])
        self.assertEqual((asked.method, asked.target, asked.version), (b"GET", b"/auth", b"HTTP/2"))
        self.assertEqual(
            {name.lower(): values for name, values in asked.headers.getAllRawHeaders()},
            {
                b"authorization": [b"Bearer x"],
                b"x-key": [b"1", b""],
                b"x-forwarded-for": [b"192.0.2.1"],
                b"x-forwarded-proto": [b"https"],
                b"x-forwarded-host": [b"app"],
                b"x-forwarded-method": [b"DELETE"],
                b"x-forwarded-uri": [b"/a%2F?b=c"],
            },
        )
