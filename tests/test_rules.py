"""Tests of thrtwisted.rules."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.config import Backend, Config, Limit, Rule, Then, When
from thrtwisted.exchange import Exchange
from thrtwisted.forward.headers import HOP_BY_HOP
from thrtwisted.limits import Limits
from thrtwisted.rules import Rules
from thrtwisted.settable import RESERVED_HEADERS, compile_header

from .test_exchange import exchange

BACKENDS = {name: Backend(url="http://127.0.0.1:9999") for name in ("app", "slow")}
FULL = {"Host": ["Example.org:80"], "X-Urgent": ["yes"], "Foo": ["bar"]}


def applied(rule: list[Rule], found: Exchange) -> Exchange:
    """The exchange, changed by the rules."""
    rules = Rules(Config(rule=rule, backend=BACKENDS))
    found.routes = rules.routes
    assert rules.apply(found) is None
    return found


class WhenTests(SynchronousTestCase):
    """Which exchanges a rule applies to."""

    def holds(self, when: When, found: Exchange | None = None) -> bool:
        """Whether the rule applied."""
        found = found or exchange(b"/batch/1?x", dict(FULL), method=b"PUT")
        return applied([Rule(when=when, then=Then(priority=1))], found).priority == 1

    def test_criteria(self) -> None:
        """Each criterion looks at its part of the request."""
        cases: list[tuple[dict[str, Any], bool]] = [
            ({}, True),
            ({"path": "/batch/1"}, True),
            ({"path": "/batch/1?x"}, False),
            ({"path": "glob:/batch/*"}, True),
            ({"path": "not:glob:/batch/*"}, False),
            ({"method": ["GET", "PUT"]}, True),
            ({"method": "put"}, False),
            ({"host": "Example.ORG"}, True),
            ({"host": "other"}, False),
            ({"client": "192.0.2.1"}, True),
            ({"client": "glob:10.*"}, False),
            ({"header": {"x-urgent": "yes"}}, True),
            ({"header": {"X-Urgent": "no"}}, False),
            ({"header": {"X-Urgent": "yes", "Foo": "bar"}}, True),
            ({"header": {"X-Urgent": "yes", "Foo": "baz"}}, False),
            ({"header": {"Absent": "glob:*"}}, False),
            ({"header": {"Absent": "not:x"}}, True),
            ({"path": "glob:/batch/*", "method": "GET"}, False),
        ]
        for criteria, expected in cases:
            self.assertIs(self.holds(When(**criteria)), expected, criteria)

    def test_absent_host_and_client(self) -> None:
        """A request may have no host, and a client no address."""
        bare = exchange(client="")
        for criteria in ({"host": "glob:*"}, {"client": "glob:*"}):
            self.assertFalse(self.holds(When(**criteria), bare), criteria)


class ThenTests(SynchronousTestCase):
    """What rules do."""

    def test_all(self) -> None:
        """A rule changes all that it names, and nothing else."""
        then = Then(
            priority=90, backend="slow", set_input_header={"X-Via": "thr", "foo": "é"}, set_status_code=403
        )
        found = applied([Rule(then=then)], exchange(headers=dict(FULL, Foo=["a", "b"])))
        self.assertEqual((found.priority, found.backend, found.status), (90, "slow", 403))
        self.assertEqual(found.header(b"X-Via"), b"thr")
        self.assertEqual(found.header(b"Foo"), "é".encode())
        self.assertEqual(found.header(b"X-Urgent"), b"yes")
        self.assertEqual((found.method, found.target), (b"GET", b"/"))

    def test_nothing(self) -> None:
        """A rule that names nothing changes nothing."""
        found = applied([Rule()], exchange())
        self.assertEqual((found.priority, found.backend, found.status), (50, "app", None))
        self.assertEqual(list(found.headers.getAllRawHeaders()), [])

    def test_order(self) -> None:
        """Rules apply in order, the later over the earlier."""
        found = applied([Rule(then=Then(priority=1)), Rule(then=Then(priority=2))], exchange())
        self.assertEqual(found.priority, 2)

    def test_stop(self) -> None:
        """No rule applies after one that matches and says stop; one that does not match stops nothing."""
        rules = [
            Rule(when=When(path="/other"), stop=True),
            Rule(then=Then(priority=1), stop=True),
            Rule(then=Then(priority=2)),
        ]
        self.assertEqual(applied(rules, exchange()).priority, 1)

    def test_seen_later(self) -> None:
        """Later rules and the limits see what a rule has set."""
        rules = [
            Rule(then=Then(set_input_header={"User": "alice", "Host": "inner"})),
            Rule(when=When(header={"User": "alice"}, host="inner"), then=Then(priority=3)),
        ]
        found = applied(rules, exchange())
        self.assertEqual(found.priority, 3)
        limits = Limits(Config(limit=[Limit(name="user", max_concurrent=1, key="header:user")]))
        self.assertEqual([counter.key for counter in limits.counters(found)], ["user=alice"])


class NamedTests(SynchronousTestCase):
    """Which headers a configuration hangs on."""

    def test_names(self) -> None:
        """Those that rules look at or set, and those that are limits' keys, in lower case."""
        config = Config(
            rule=[
                Rule(
                    when=When(header={"X-Urgent": "yes"}, host="h"),
                    then=Then(set_input_header={"X-Via": "a"}),
                ),
                Rule(when=When(header={"Foo": "not:x"})),
            ],
            limit=[
                Limit(name="a", max_concurrent=1, key="header:X-User"),
                Limit(name="b", max_concurrent=1, key="cookie:c"),
                Limit(name="c", max_concurrent=1),
            ],
        )
        self.assertEqual(Rules(config).headers, {b"x-urgent", b"x-via", b"foo"})
        self.assertEqual(Limits(config).headers, {b"x-user"})


class HeaderTests(SynchronousTestCase):
    """Which headers a rule may set."""

    def test_good(self) -> None:
        """Any header of the application's, the host too, with any text or none."""
        for name, value in [
            ("X-Via", "thr"),
            ("Host", "inner:80"),
            ("A", ""),
            ("A", "a\tb c"),
            ("a", "x" * 9),
        ]:
            self.assertEqual(compile_header(name, value), (name.encode(), value.encode()))

    def test_mistakes(self) -> None:
        """What could break the message, or the connection, is refused."""
        for name, value, message in [
            ("", "a", "no header has such a name"),
            ("a b", "a", "no header has such a name"),
            ("a:", "a", "no header has such a name"),
            ("é", "a", "no header has such a name"),
            ("A", "a\r\nB: c", "control characters"),
            ("A", "a\x00", "control characters"),
            ("A", "a\x7f", "control characters"),
            ("A", "a\n", "control characters"),
            ("A", " a", "blank"),
            ("A", "a ", "blank"),
            ("A", "\t", "blank"),
            ("A", "\ud800", ""),
            ("Content-Length", "1", "leave it out"),
            ("transfer-Encoding", "chunked", "leave it out"),
            ("Connection", "close", "leave it out"),
            ("proxy", "http://evil/", "leave it out"),
            ("Proxy-Authorization", "a", "leave it out"),
            ("X_User", "a", 'write "X-User"'),
        ]:
            self.assertIn(message, str(self.assertRaises(ValueError, compile_header, name, value)))

    def test_reserved(self) -> None:
        """Whatever forwarding takes away cannot be set."""
        self.assertLessEqual(HOP_BY_HOP, {name.encode() for name in RESERVED_HEADERS})
