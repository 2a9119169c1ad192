"""Tests for L{thrtwisted.redis.url}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.redis.url import RedisAddress, parse

GOOD = {
    "embedded:": RedisAddress("embedded"),
    "redis://localhost": RedisAddress("tcp", host="localhost"),
    "redis://localhost/": RedisAddress("tcp", host="localhost"),
    "redis://10.0.0.1:7000": RedisAddress("tcp", host="10.0.0.1", port=7000),
    "redis://h:7000/3": RedisAddress("tcp", host="h", port=7000, database=3),
    "redis://[::1]:7000/3": RedisAddress("tcp", host="::1", port=7000, database=3),
    "redis://[fe80::1]": RedisAddress("tcp", host="fe80::1"),
    "redis://ann:s3cret@h": RedisAddress("tcp", host="h", username="ann", password="s3cret"),
    "redis://:s3cret@h": RedisAddress("tcp", host="h", password="s3cret"),
    "redis://a%40b:p%2F%3a%40%25%C3%A9@h/1": RedisAddress(
        "tcp", host="h", username="a@b", password="p/:@%é", database=1
    ),
    "unix:///run/redis.sock": RedisAddress("unix", path="/run/redis.sock"),
    "unix:///run/redis.sock?db=2": RedisAddress("unix", path="/run/redis.sock", database=2),
    "unix:///run/a%20b.sock": RedisAddress("unix", path="/run/a b.sock"),
    "unix://ann:s3cret@/run/redis.sock": RedisAddress(
        "unix", path="/run/redis.sock", username="ann", password="s3cret"
    ),
}

BAD = {
    "": "not the URL of a Redis server",
    "embedded": "not the URL of a Redis server",
    "embedded://x": "not the URL of a Redis server",
    "localhost:6379": "not the URL of a Redis server",
    "http://localhost": "not the URL of a Redis server",
    "rediss://localhost": "rediss:// is not in this version",
    "sentinel://localhost/main": "sentinel:// is not in this version",
    "redis://": "lacks the host",
    "redis:///1": "lacks the host",
    "redis://h:0": "port 0",
    "redis://h:65536": "port is malformed",
    "redis://h:s3cret": "port is malformed",
    "redis://[::1": "port is malformed",
    "redis://u:s3/cret@h": "port is malformed",
    "redis://:s3#cret@h": "malformed",
    "redis://h/0#s3cret": "has no #",
    "redis://h/s3cret": "database is not a number",
    "redis://h/-1": "database is not a number",
    "redis://h/²": "database is not a number",
    "redis://h?db=s3cret": "takes no ?",
    "redis://s3cret@h": "a user without a password",
    "unix://run/redis.sock": "three slashes",
    "unix://": "lacks the socket's path",
    "unix:///": "lacks the socket's path",
    "unix:///run/redis.sock?database=s3cret": "nothing but ?db=NUMBER",
    "unix:///run/redis.sock?db=s3cret": "database is not a number",
    "unix:///run/" + "x" * 200: "the socket's path has 205 bytes",
    "unix:///run/redis.sock?db=1&db=2": "nothing but ?db=NUMBER",
}

MASKED = {
    "embedded:": "embedded:",
    "redis://localhost": "redis://localhost:6379/0",
    "redis://[::1]:7000/3": "redis://[::1]:7000/3",
    "redis://ann:s3cret@h": "redis://ann:***@h:6379/0",
    "redis://:s3cret@h": "redis://:***@h:6379/0",
    "unix:///run/a%20b.sock?db=2": "unix:///run/a%20b.sock?db=2",
    "unix://ann:s3cret@/run/redis.sock": "unix://ann:***@/run/redis.sock",
}


class ParseTests(SynchronousTestCase):
    """Tests for L{parse}."""

    def test_good(self) -> None:
        """Each form of URL names its address."""
        for url, address in GOOD.items():
            self.assertEqual(parse(url), address, url)

    def test_bad(self) -> None:
        """Anything else is refused in one line that says why and how to mend it, and shows no part of it."""
        for url, problem in BAD.items():
            message = str(self.assertRaises(ValueError, parse, url))
            self.assertIn(problem, message, url)
            self.assertNotIn("\n", message, url)
            self.assertIn("; ", message, url)
            self.assertNotIn("s3", message, url)

    def test_quiet(self) -> None:
        """A refusal carries no exception that shows the password in a traceback."""
        error = self.assertRaises(ValueError, parse, "redis://u:s3/cret@h")
        self.assertTrue(error.__suppress_context__)


class MaskedTests(SynchronousTestCase):
    """Tests for L{RedisAddress.masked}."""

    def test_masked(self) -> None:
        """The URL is shown without its password, as text too."""
        for url, masked in MASKED.items():
            self.assertEqual(parse(url).masked(), masked)
            self.assertEqual(str(parse(url)), masked)

    def test_repr(self) -> None:
        """C{repr} does not show the password."""
        self.assertNotIn("s3cret", repr(parse("redis://ann:s3cret@h")))
