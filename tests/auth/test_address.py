"""Tests for L{thrtwisted.auth.address}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.auth.address import parse_service


class ParseTests(SynchronousTestCase):
    """Where a service is."""

    def test_parts(self) -> None:
        """A URL is a server and what is asked for there."""
        for url, server, target, tls in (
            ("http://a", "http://a", b"/", False),
            ("http://a:81/auth", "http://a:81", b"/auth", False),
            ("https://a/auth/?realm=x&b=%20", "https://a", b"/auth/?realm=x&b=%20", True),
            ("HTTP://[::1]:8/auth", "HTTP://[::1]:8", b"/auth", False),
            ("unix:///run/auth.sock", "unix:///run/auth.sock", b"/", False),
        ):
            address = parse_service(url)
            self.assertEqual((address.server, address.target, address.tls), (server, target, tls), url)

    def test_refused(self) -> None:
        """What cannot be asked is refused, with the mend and without the URL, which may hold a secret."""
        for url, part in (
            ("auth", 'not the URL of a service; write "http://HOST[:PORT]/PATH"'),
            ("htp://a/auth", 'not the URL of a service; write "http://HOST[:PORT]/PATH"'),
            ("http://a:0/auth", 'no valid host and port; write "http://HOST[:PORT]/PATH"'),
            ("http:///auth", "host"),
            ("http://user:secret@a/auth", "a service's URL has no user"),
            ("http://a?secret", "/PATH"),
            ("http://a/auth#secret", "percent-encoded"),
            ("http://a/secret auth", "percent-encoded"),
            ("http://a/secr\u00e9t", "percent-encoded"),
            ("http://a/secret\\", "percent-encoded"),
            ("http://a/secret\n", "write"),
            ("unix://a/auth", "three slashes"),
        ):
            error = self.assertRaises(ValueError, parse_service, url)
            self.assertIn(part, str(error), url)
            self.assertNotIn("secr", str(error))
            self.assertNotIn("\n", str(error))
