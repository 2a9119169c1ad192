"""Tests of where backends may be."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.forward.address import BackendAddress, check_health, parse


class BackendUrlTests(SynchronousTestCase):
    """Where a backend may be."""

    def test_good(self) -> None:
        """A host with or without a port, or a socket."""
        for url, expected in [
            ("http://127.0.0.1", BackendAddress("", "tcp", "127.0.0.1", 80, authority=b"127.0.0.1")),
            ("http://app:9999", BackendAddress("", "tcp", "app", 9999, authority=b"app:9999")),
            ("http://app:9999/", BackendAddress("", "tcp", "app", 9999, authority=b"app:9999")),
            ("HTTP://App", BackendAddress("", "tcp", "app", 80, authority=b"App")),
            ("http://[::1]:81", BackendAddress("", "tcp", "::1", 81, authority=b"[::1]:81")),
            (
                "http://münchen.example",
                BackendAddress("", "tcp", "münchen.example", 80, authority=b"xn--mnchen-3ya.example"),
            ),
            (
                "http://straße.example:81",
                BackendAddress("", "tcp", "straße.example", 81, authority=b"xn--strae-oqa.example:81"),
            ),
            ("http://app.", BackendAddress("", "tcp", "app.", 80, authority=b"app.")),
            ("https://app", BackendAddress("", "tcp", "app", 443, tls=True, authority=b"app")),
            ("HTTPS://app:8443/", BackendAddress("", "tcp", "app", 8443, tls=True, authority=b"app:8443")),
            ("unix:///run/app.sock", BackendAddress("", "unix", path="/run/app.sock")),
        ]:
            self.assertEqual(parse(url), evolve(expected, url=url))

    def test_mistakes(self) -> None:
        """Everything else is refused, with the mend."""
        for url, message in [
            ("", "not the URL"),
            ("127.0.0.1:9999", "not the URL"),
            ("app", "not the URL"),
            ("ftp://app", "not the URL"),
            ("http:app", "not the URL"),
            ("https://", "no valid host"),
            ("http://", "no valid host"),
            ("http://:80", "no valid host"),
            ("http://app:0", "no valid host"),
            ("http://app:99999", "no valid host"),
            ("http://app:x", "no valid host"),
            ("http://[::1", "no valid host"),
            ("http://a..é", "not the name of a host"),
            ("http://a..b", "not the name of a host"),
            ("http://.a", "not the name of a host"),
            ("https://*.a", "not the name of a host"),
            ("http://a%20b", "not the name of a host"),
            ("https://-", "not the name of a host"),
            ("http://-a", "not the name of a host"),
            ("http://my_app", "not the name of a host"),
            ("http://xn--a", "not the name of a host"),
            (f"http://{'a' * 64}", "not the name of a host"),
            (f"http://{'.'.join(['a' * 63] * 4)}", "not the name of a host"),
            ("http://app/path", "ends after the port"),
            ("http://app?x", "no query"),
            ("http://app?", "no query"),
            ("http://app#x", "no query"),
            ("http://user@app", "no user"),
            ("http://a b", "blanks"),
            ("http://a\nb", "blanks"),
            ("unix://run/app", "three slashes"),
            ("unix:///", "three slashes"),
            ("unix:///run/" + "x" * 200, "the socket's path has 205 bytes"),
            ("unix:/run/app", "not the URL"),
        ]:
            self.assertIn(message, str(self.assertRaises(ValueError, parse, url)), url)


class HealthTests(SynchronousTestCase):
    """What a backend may be asked for its health."""

    def test_paths(self) -> None:
        """A path, with a query perhaps, that can be sent as it is."""
        for target in ("/", "/health", "/a%20b?c=d&e"):
            check_health(target)
        for target in ("", "health", "http://app/health", "/a b", "/é", "/a\r\nX: y", "/a#b", "*"):
            self.assertIn("no path", str(self.assertRaises(ValueError, check_health, target)), target)
