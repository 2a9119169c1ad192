"""Tests for L{thrtwisted.auth.cache}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.auth.cache import Cache, lifetime

EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
TWENTY = "Thu, 01 Jan 1970 00:00:20 GMT"


class LifetimeTests(SynchronousTestCase):
    """For how long an answer holds."""

    def check(self, expected: float, fields: dict[str, list[str]], *cache_by: str) -> None:
        """With a configuration of 30 s."""
        self.assertEqual(lifetime(Headers(fields), 30.0, cache_by), expected, fields)

    def test_cache_control(self) -> None:
        """It holds for as long as the configuration says, or less where the service says so; in doubt not at all."""
        for value, expected in (
            ("", 30.0),
            ("public, must-revalidate", 30.0),
            ("max-age=10", 10.0),
            ("Max-Age=10", 10.0),
            ('max-age="10"', 10.0),
            ("max-age=100", 30.0),
            ("max-age=10, s-maxage=20", 20.0),
            ("max-age=20, s-maxage=10", 10.0),
            ("max-age=10, max-age=5", 5.0),
            ("max-age=0", 0.0),
            ("max-age=-1", 0.0),
            ("max-age=", 0.0),
            ("max-age", 0.0),
            ("max-age=1.5", 0.0),
            ("max-age=99999999999", 0.0),
            ("no-store", 0.0),
            ("NO-STORE", 0.0),
            ("max-age=10, no-store", 0.0),
            ("no-cache", 0.0),
            ('no-cache="X-User"', 0.0),
            ("private", 0.0),
            ('private="X-User, X-Other"', 0.0),
        ):
            self.check(expected, {"Cache-Control": [value]})
        self.check(0.0, {"Cache-Control": ["max-age=10", "no-store"]})

    def test_age(self) -> None:
        """What a cache before the service has kept it counts."""
        self.check(4.0, {"Cache-Control": ["max-age=10"], "Age": ["6"]})
        self.check(0.0, {"Cache-Control": ["max-age=10"], "Age": ["60"]})
        self.check(30.0, {"Age": ["60"]})

    def test_expires(self) -> None:
        """Expires counts where nothing else is said, by the service's own clock."""
        self.check(20.0, {"Expires": [TWENTY], "Date": [EPOCH]})
        self.check(0.0, {"Expires": [EPOCH], "Date": [TWENTY]})
        self.check(10.0, {"Expires": [EPOCH], "Date": [TWENTY], "Cache-Control": ["max-age=10"]})
        self.check(0.0, {"Expires": [TWENTY]})
        self.check(0.0, {"Expires": ["0"], "Date": [EPOCH]})
        self.check(0.0, {"Expires": [TWENTY], "Date": ["now"]})

    def test_set_cookie(self) -> None:
        """What sets a cookie is for one client alone."""
        self.check(0.0, {"Set-Cookie": ["a=b"], "Cache-Control": ["max-age=10"]})

    def test_vary(self) -> None:
        """What hangs on what the cache does not tell apart is not kept."""
        self.check(30.0, {"Vary": ["Authorization, Accept"]})
        self.check(0.0, {"Vary": ["Authorization, *"]})
        self.check(0.0, {"Vary": ["X-Forwarded-Method"]}, "path")
        self.check(30.0, {"Vary": ["X-Forwarded-Method, X-Forwarded-For"]}, "method", "client")
        self.check(0.0, {"Vary": ["X-Forwarded-Uri"]}, "path", "method", "host", "client")


class CacheTests(SynchronousTestCase):
    """What is remembered."""

    def test_time(self) -> None:
        """It is remembered until its time is over, or the clock was set back."""
        cache: Cache[str] = Cache(10)
        cache.put(b"a", "A", 100.0, 110.0)
        self.assertEqual(cache.get(b"a", 100.0), ("A", 0.0))
        self.assertEqual(cache.get(b"a", 109.0), ("A", 9.0))
        self.assertIsNone(cache.get(b"a", 110.0))
        self.assertEqual(len(cache), 0)
        cache.put(b"a", "A", 100.0, 110.0)
        self.assertIsNone(cache.get(b"a", 99.0))
        self.assertEqual(len(cache), 0)

    def test_size(self) -> None:
        """Of too many, the one not used for longest is forgotten."""
        cache: Cache[str] = Cache(2)
        cache.put(b"a", "A", 0.0, 9.0)
        cache.put(b"b", "B", 0.0, 9.0)
        cache.get(b"a", 1.0)
        cache.put(b"c", "C", 1.0, 9.0)
        self.assertEqual(len(cache), 2)
        self.assertEqual([cache.get(key, 1.0) for key in (b"a", b"b", b"c")], [("A", 1.0), None, ("C", 0.0)])

    def test_anew(self) -> None:
        """What is remembered anew counts alone."""
        cache: Cache[str] = Cache(2)
        cache.put(b"a", "A", 0.0, 9.0)
        cache.put(b"a", "B", 1.0, 5.0)
        self.assertEqual((len(cache), cache.get(b"a", 2.0), cache.get(b"a", 5.0)), (1, ("B", 1.0), None))
