"""Tests for L{thrtwisted.redis.url}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.redis.url import ClusterAddress, RedisAddress, SentinelAddress, parse

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
    "rediss://:s3cret@h/1": RedisAddress("tcp", host="h", password="s3cret", database=1, tls=True),
    "redis://my_host.example.:06379/00000000001": RedisAddress("tcp", host="my_host.example.", database=1),
    "redis://b%C3%BCcher.example": RedisAddress("tcp", host="bücher.example"),
    "redis://[::ffff:10.0.0.1]": RedisAddress("tcp", host="::ffff:10.0.0.1"),
    "redis://HOST": RedisAddress("tcp", host="host"),
    "redis://ann:s3cret@a:1,[::1],c:3/": ClusterAddress(
        tuple(
            RedisAddress("tcp", host=host, port=port, username="ann", password="s3cret")
            for host, port in (("a", 1), ("::1", 6379), ("c", 3))
        )
    ),
    "rediss://a,b": ClusterAddress(
        (RedisAddress("tcp", host="a", tls=True), RedisAddress("tcp", host="b", tls=True))
    ),
    "sentinel://a,[::1]:2/main": SentinelAddress(
        (RedisAddress("tcp", host="a", port=26379), RedisAddress("tcp", host="::1", port=2)),
        "main",
        RedisAddress("tcp"),
    ),
    "sentinel://ann:s3cret@a/the%2Fmain?db=2&tls=true&sentinel_user=bob&sentinel_password=s3+%26&sentinel_tls=true": (
        SentinelAddress(
            (RedisAddress("tcp", host="a", port=26379, username="bob", password="s3+&", tls=True),),
            "the/main",
            RedisAddress("tcp", username="ann", password="s3cret", database=2, tls=True),
        )
    ),
    "sentinel://a/main?tls=false&sentinel_password=s3cret": SentinelAddress(
        (RedisAddress("tcp", host="a", port=26379, password="s3cret"),), "main", RedisAddress("tcp")
    ),
}

BAD = {
    "redis://a..b": "neither a name nor an IP address",
    "redis://.a": "neither a name nor an IP address",
    "redis://.": "neither a name nor an IP address",
    "redis://a%00b": "neither a name nor an IP address",
    "redis://a%20b": "neither a name nor an IP address",
    "redis://a,b%2Fc": "neither a name nor an IP address",
    "redis://" + "a" * 64: "neither a name nor an IP address",
    "redis://" + "a." * 5000: "neither a name nor an IP address",
    "redis://[....]": "neither a name nor an IP address",
    "redis://[10.0.0.1]": "neither a name nor an IP address",
    "redis://[:::]": "neither a name nor an IP address",
    "sentinel://a..b/main": "neither a name nor an IP address",
    "redis://a%ffb": "a %XX in the URL is not UTF-8",
    "redis://:s3%ff@h": "a %XX in the URL is not UTF-8",
    "redis://%ff:s3@h": "a %XX in the URL is not UTF-8",
    "unix:///%ff": "a %XX in the URL is not UTF-8",
    "sentinel://h/%ff": "a %XX in the URL is not UTF-8",
    "sentinel://h/main?sentinel_password=s3%ff": "a %XX in the URL is not UTF-8",
    "redis://:s3\udcff@h": "the URL is not UTF-8",
    "redis://h:" + "9" * 5000: "port is malformed",
    "redis://h/" + "9" * 5000: "the database's number is too large",
    "unix:///r?db=" + "9" * 5000: "the database's number is too large",
    "unix:///run/%00r": "has a NUL",
    "": "not the URL of a Redis server",
    "embedded": "not the URL of a Redis server",
    "embedded://x": "not the URL of a Redis server",
    "localhost:6379": "not the URL of a Redis server",
    "http://localhost": "not the URL of a Redis server",
    "redis:/h": "not the URL of a Redis server",
    "redis://h/\n": "no blanks",
    "redis://a b": "no blanks",
    "redis://h,": "port is malformed",
    "redis://,h": "port is malformed",
    "redis://a,b:x": "port is malformed",
    "redis://::1": "port is malformed",
    "rediss://": "rediss:// lacks the host",
    "rediss://h?x": "rediss:// takes no ?",
    "rediss://a,b/s3cret": "database is not a number",
    "sentinel://": "lacks the hosts",
    "sentinel://h": "lacks the service's name",
    "sentinel://h/": "lacks the service's name",
    "sentinel://h/main/1": "one name after the hosts",
    "sentinel://h/main?database=1": "takes nothing but db, tls, sentinel_user",
    "sentinel://h/main?tls=1": "neither true nor false",
    "sentinel://h/main?sentinel_tls=s3cret": "neither true nor false",
    "sentinel://h/main?tls=true&tls=true": "each of it once",
    "sentinel://h/main?db=s3cret": "database is not a number",
    "sentinel://h/main?sentinel_user=s3": "add sentinel_password=PASSWORD",
    "sentinel://s3cret@h/main": "a user without a password",
    "sentinel://h:0/main": "leave it out for 26379",
    "redis://": "lacks the host",
    "redis:///1": "lacks the host",
    "redis://h:0": "port 0",
    "redis://h:65536": "port is malformed",
    "redis://h:s3cret": "port is malformed",
    "redis://[::1": "port is malformed",
    "redis://u:s3/cret@h": "port is malformed",
    "redis://:s3#cret@h": "has no #",
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
    "rediss://ann:s3cret@h": "rediss://ann:***@h:6379/0",
    "redis://ann:s3cret@a,[::1]:1/2": "redis://ann:***@a:6379,[::1]:1/2",
    "sentinel://a,b:1/the%2Fmain": "sentinel://a:26379,b:1/the%2Fmain",
    "sentinel://ann:s3cret@a/m?db=2&tls=true&sentinel_user=b%26b&sentinel_password=s3&sentinel_tls=true": (
        "sentinel://ann:***@a:26379/m?db=2&tls=true&sentinel_user=b%26b&sentinel_password=***&sentinel_tls=true"
    ),
}


class AddressTests(SynchronousTestCase):
    """Tests for what is common to addresses."""

    def test_place(self) -> None:
        """Where a server is, without who we are."""
        places = {"redis://u:p@h": "h:6379", "rediss://[::1]:1": "[::1]:1", "unix:///r?db=1": "/r"}
        for url, place in places.items():
            self.assertEqual(parse(url).place, place)

    def test_at(self) -> None:
        """To another server we are the same."""
        self.assertEqual(parse("rediss://u:p@h:1/2").at("::1", 3), parse("rediss://u:p@[::1]:3/2"))
        self.assertEqual(parse("unix://u:p@/r?db=2").at("h", 3), parse("redis://u:p@h:3/2"))

    def test_has_tls(self) -> None:
        """Whether certificates mean anything."""
        for url, address in GOOD.items():
            self.assertEqual(address.has_tls, url.startswith("rediss:") or "tls=true" in url, url)


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
            self.assertEqual(parse(masked).masked(), masked)

    def test_repr(self) -> None:
        """C{repr} does not show the password."""
        for url in GOOD:
            self.assertNotIn("s3", repr(parse(url)))
