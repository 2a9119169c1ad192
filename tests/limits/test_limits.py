"""Tests of thrtwisted.limits."""

from __future__ import annotations

from functools import wraps
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.exchange.test_exchange import exchange
from thrtwisted.config import Backend, Config, Limit, Queue
from thrtwisted.errors import RuleFailed
from thrtwisted.exchange import Exchange
from thrtwisted.gate import UNLIMITED, Counter, Rate, Ticket
from thrtwisted.keys import compile_key
from thrtwisted.limits import Limits, compile_weight

FULL = exchange(
    b"/a%20b?q=s+t",
    {"Foo": ["bar"], "Cookie": ["session=abc"], "Host": ["Example.org:80"]},
    method=b"PUT",
    client="2001:db8::1",
)
BARE = exchange(client="")


def by_name(found: Exchange) -> object:
    """A key function of a user's: what it returns, or raises, is in a header."""
    what = found.header(b"return")
    if what == b"leave":
        raise SystemExit(1)
    return {
        None: None,
        b"text": "é",
        b"bytes": b"\xff",
        b"number": 3,
        b"surrogate": "\ud800",
    }[what]


def by_size(found: Exchange) -> object:
    """A weight function of a user's: what it returns, or raises, is in a header."""
    what = found.header(b"size")
    return {b"big": 3, b"huge": 2**60, b"none": 0, b"text": "3", b"half": 1.5, b"yes": True}[what or b"big"]


async def later(found: Exchange) -> str:
    """What a key function must not be."""
    return "x"


class Holder:
    """A place for a function other than a module."""

    by_name = staticmethod(by_name)


def keys(limit: Limit, found: Exchange) -> list[str]:
    """The counters that one limit gives."""
    return [counter.key for counter in Limits(Config(limit=[limit])).counters(found)]


class LimitsTests(SynchronousTestCase):
    """From an exchange to its counters."""

    def test_kinds(self) -> None:
        """Each kind of key finds its value; each value has a counter of its own."""
        for key, counter in [
            ("header:foo", "l=bar"),
            ("cookie:session", "l=abc"),
            ("query:q", "l=s%20t"),
            ("path", "l=/a%2520b"),
            ("method", "l=PUT"),
            ("host", "l=example.org"),
            ("client", "l=2001:db8::1"),
        ]:
            self.assertEqual(keys(Limit(name="l", max_concurrent=1, key=key), FULL), [counter])

    def test_absent(self) -> None:
        """A limit does not apply where its key is absent, unless it has a default; not even with C{not:}."""
        for key in ("header:Foo", "cookie:session", "query:q", "host", "client"):
            self.assertEqual(keys(Limit(name="l", max_concurrent=1, key=key), BARE), [])
            self.assertEqual(keys(Limit(name="l", max_concurrent=1, key=key, match="not:x"), BARE), [])
            limit = Limit(name="l", max_concurrent=1, key=key, default="none")
            self.assertEqual(keys(limit, BARE), ["l=none"])

    def test_empty_value(self) -> None:
        """A header without a value is there, and has a counter."""
        found = exchange(headers={"Foo": [""]})
        self.assertEqual(
            keys(Limit(name="l", max_concurrent=1, key="header:Foo", default="d"), found), ["l="]
        )

    def test_match(self) -> None:
        """All requests that match share one counter; the others have none; the default is matched too."""
        limit = Limit(name="l", max_concurrent=1, key="header:Foo", match=["bar", "glob:z*"], default="zero")
        self.assertEqual(keys(limit, FULL), ["l"])
        self.assertEqual(keys(limit, exchange(headers={"Foo": ["zz"]})), ["l"])
        self.assertEqual(keys(limit, exchange(headers={"Foo": ["x"]})), [])
        self.assertEqual(keys(limit, BARE), ["l"])

    def test_match_host(self) -> None:
        """A host is matched without regard to case."""
        self.assertEqual(
            keys(Limit(name="l", max_concurrent=1, key="host", match="Example.Org"), FULL), ["l"]
        )

    def test_no_key(self) -> None:
        """A limit without a key applies to every request."""
        self.assertEqual(keys(Limit(name="all", max_concurrent=1), BARE), ["all"])

    def test_order_and_backend(self) -> None:
        """The counters come in the configuration's order, then the backend's, which rules may have changed."""
        limits = Limits(
            Config(
                limit=[
                    Limit(name="b", max_concurrent=1, key="header:Foo"),
                    Limit(name="a", max_concurrent=2, key="client"),
                ],
                backend={
                    "app": Backend(url="http://a", max_concurrent=10),
                    "other": Backend(url="http://b"),
                },
            )
        )
        found = exchange(headers={"Foo": ["x"]})
        expected = (Counter("b=x", 1), Counter("a=192.0.2.1", 2))
        self.assertEqual(limits.counters(found), (*expected, Counter("backend:app", 10)))
        found.routes = {"other": "other"}
        found.backend = "other"
        self.assertEqual(limits.counters(found), expected)

    def test_same_name(self) -> None:
        """Two limits of one name would be one counter twice."""
        limit = Limit(name="l", max_concurrent=1)
        self.assertRaises(ValueError, Limits, Config(limit=[limit, limit]))

    @settings(deadline=None)
    @given(st.binary())
    def test_any_value(self, value: bytes) -> None:
        """Whatever a client sends, counters differ and have printable names of bounded length."""
        found = exchange()
        found.headers.setRawHeaders(b"Foo", [value.replace(b"\r", b"").replace(b"\n", b"")])
        limits = Limits(Config(limit=[Limit(name=name, max_concurrent=1, key="header:Foo") for name in "ab"]))
        names = [counter.key for counter in limits.counters(found)]
        self.assertEqual(len(set(names)), 2)
        for name in names:
            self.assertLess(len(name), 200)
            self.assertTrue(name.isascii() and name.isprintable() and " " not in name, name)


class FunctionTests(SynchronousTestCase):
    """Key functions of the user's."""

    def limit(self, function: str = f"{__name__}:by_name", default: str | None = None) -> Limit:
        """A limit whose key a function finds."""
        return Limit(name="l", max_concurrent=1, key=f"python:{function}", default=default)

    def test_returns(self) -> None:
        """A text or bytes are the key; None is the default, else no limit."""
        self.assertEqual(keys(self.limit(), exchange(headers={"return": ["text"]})), ["l=%C3%A9"])
        self.assertEqual(keys(self.limit(), exchange(headers={"return": ["bytes"]})), ["l=%FF"])
        self.assertEqual(keys(self.limit(), exchange()), [])
        self.assertEqual(keys(self.limit(default="d"), exchange()), ["l=d"])
        found = exchange(headers={"return": ["text"]})
        self.assertEqual(keys(self.limit(f"{__name__}:Holder.by_name"), found), ["l=%C3%A9"])

    def test_program(self) -> None:
        """A program gives the function itself, for the weight too."""
        key: Any = by_name
        weight: Any = by_size
        limit = Limit(name="l", max_concurrent=9, key=key, weight=weight)
        limits = Limits(Config(limit=[limit]))
        self.assertEqual(
            limits.counters(exchange(headers={"return": ["text"]})), (Counter("l=%C3%A9", 9, weight=3),)
        )
        self.assertEqual(limits.counters(exchange()), ())
        self.assertEqual(limits.headers, frozenset())

    def test_program_waits(self) -> None:
        """A program's function may not be async, whatever is wrapped around it."""

        @wraps(later)
        def wrapper(found: Exchange) -> object:
            return later(found)

        for function in (later, wrapper):
            for compiled in (compile_key, compile_weight):
                error = self.assertRaises(ValueError, compiled, function)
                self.assertIn("name a plain one", str(error))

    def test_fails(self) -> None:
        """What it raises, or returns wrongly, is logged with the limit's name, and hidden from the client."""
        for what, kind in [
            ("secret", KeyError),
            ("number", TypeError),
            ("surrogate", UnicodeEncodeError),
            ("leave", SystemExit),
        ]:
            found = exchange(headers={"return": [what]})
            error = self.assertRaises(RuleFailed, keys, self.limit(), found)
            self.assertNotIn(what, str(error))
            self.assertEqual(error.status, 500)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)


class WeightTests(SynchronousTestCase):
    """How many slots an exchange takes, and how many may wait for them."""

    def weights(self, found: Exchange, weight: int | str, **options: Any) -> list[int]:
        limit = Limit(name="l", weight=weight, **{"max_concurrent": 10, **options})
        return [counter.weight for counter in Limits(Config(limit=[limit])).counters(found)]

    def test_number(self) -> None:
        """A limit has a weight, whatever its key."""
        for options in ({}, {"key": "client"}, {"key": "client", "match": "glob:*"}):
            self.assertEqual(self.weights(exchange(), 3, **options), [3])
        self.assertEqual(self.weights(BARE, 3, key="client"), [])

    def test_function(self) -> None:
        """A function says it for each exchange."""
        for size, weight in (("big", 3), ("huge", 10)):
            found = exchange(headers={"size": [size]})
            self.assertEqual(self.weights(found, f"python:{__name__}:by_size"), [weight])

    def test_heavier_than_the_limit(self) -> None:
        """One that is heavier than the limit is as heavy as the limit: it runs alone."""
        self.assertEqual(self.weights(exchange(), 3, max_concurrent=2), [2])
        self.assertEqual(self.weights(exchange(), 3, max_concurrent=0), [1])

    def test_fails(self) -> None:
        """What a function raises, or returns wrongly, is logged with the limit's name, and hidden from the client."""
        for size, kind in [
            ("secret", KeyError),
            ("none", ValueError),
            ("text", TypeError),
            ("half", TypeError),
            ("yes", TypeError),
        ]:
            found = exchange(headers={"size": [size]})
            with capturedLogs() as events:
                error = self.assertRaises(RuleFailed, self.weights, found, f"python:{__name__}:by_size")
            self.assertNotIn(size, str(error))
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
            self.assertIn("weight function of limit l failed", formatEvent(events[0]))

    def test_max_waiting(self) -> None:
        """Each counter of a limit has the limit's bound; a backend's has none, and a weight of 1."""
        config = Config(
            limit=[Limit(name="l", max_concurrent=2, key="client", weight=2, max_waiting=5)],
            backend={"app": Backend(url="http://a", max_concurrent=10)},
        )
        self.assertEqual(
            Limits(config).counters(exchange()),
            (Counter("l=192.0.2.1", 2, weight=2, max_waiting=5), Counter("backend:app", 10)),
        )


class RateTests(SynchronousTestCase):
    """Limits with a rate."""

    def counter(self, **options: Any) -> Counter:
        """The one counter of a limit."""
        (counter,) = Limits(Config(limit=[Limit(name="l", **options)])).counters(exchange())
        return counter

    def test_rate(self) -> None:
        """A counter has its limit's rate, with slots or without number; and says so where responses tell of it."""
        rate = Rate(10_000, 5, "reject")
        self.assertEqual(
            self.counter(rate="100/s", burst=5, over="reject"), Counter("l", UNLIMITED, rate=rate)
        )
        self.assertEqual(
            self.counter(rate="100/s", burst=5, over="reject", max_concurrent=2, headers=True, key="client"),
            Counter("l=192.0.2.1", 2, rate=rate, shown=True),
        )

    def test_weight(self) -> None:
        """Without slots a weight is as it is, heavier than the burst or not; but it lasts for eleven days at most."""
        self.assertEqual(self.counter(rate="100/s", weight=300).weight, 300)
        self.assertEqual(self.counter(rate="100/s", weight=300, max_concurrent=4).weight, 4)
        self.assertEqual(self.counter(rate="1/day", weight=300).weight, 11)
        self.assertEqual(self.counter(rate="1/day", weight=300, max_concurrent=20).weight, 11)
        self.assertEqual(self.counter(rate="1/day", weight=300, max_concurrent=0).weight, 1)


class FairTests(SynchronousTestCase):
    """Who takes turns with whom."""

    def fair(self, found: Exchange, key: str | None = "header:Foo") -> str | None:
        """The text of a ticket, which has to be one that a ticket may have."""
        text = Limits(Config(queue=Queue(fair=key))).fair(found)
        self.assertEqual(Ticket((), fair=text).fair, text)
        return text

    def test_values(self) -> None:
        """Each value has a text of its own, an empty one too; those that lack it share one."""
        texts = [
            self.fair(exchange(headers=headers))
            for headers in ({"Foo": ["bar"]}, {"Foo": ["b r"]}, {"Foo": [""]}, {"Foo": ["-"]}, {})
        ]
        self.assertEqual(texts, ["=bar", "=b%20r", "=", "=-", "-"])

    def test_absent(self) -> None:
        """Without a key nobody takes turns."""
        self.assertIsNone(self.fair(FULL, None))

    @settings(deadline=None)
    @given(st.binary(), st.binary())
    def test_any_value(self, one: bytes, other: bytes) -> None:
        """Whatever clients send, their texts are of bounded length, and the same only if what they send is."""
        values = [value.replace(b"\r", b"").replace(b"\n", b"").strip() for value in (one, other)]
        found = [exchange() for _ in values]
        for each, value in zip(found, values, strict=True):
            each.headers.setRawHeaders(b"Foo", [value])
        first, second = map(self.fair, found)
        assert first is not None
        self.assertLess(len(first), 200)
        self.assertEqual(first == second, values[0] == values[1])

    def test_function(self) -> None:
        """The key may be a function of the user's; what it raises is logged, and hidden from the client."""
        key = f"python:{__name__}:by_name"
        self.assertEqual(self.fair(exchange(headers={"return": ["text"]}), key), "=%C3%A9")
        with capturedLogs() as events:
            found = exchange(headers={"return": ["secret"]})
            error = self.assertRaises(RuleFailed, self.fair, found, key)
        self.assertNotIn("secret", str(error))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertIn("key function of queue.fair failed", formatEvent(events[0]))

    def test_headers(self) -> None:
        """The header that decides is among those that no Connection header takes away."""
        limits = Limits(
            Config(queue=Queue(fair="header:X-User"), limit=[Limit(name="l", rate="1/s", key="header:A")])
        )
        self.assertEqual(limits.headers, {b"x-user", b"a"})
