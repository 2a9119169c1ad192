"""Tests of thrtwisted.check."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted import toml
from thrtwisted.check import check, effective, validated
from thrtwisted.config import (
    Backend,
    Bounds,
    Config,
    ConfigError,
    Limit,
    Queue,
    Redis,
    Rule,
    Then,
    When,
    schema,
)

GOOD = Config(backend={"app": Backend(url="http://127.0.0.1:9999")})


def backend(**fields: Any) -> Config:
    """A configuration with one backend."""
    return Config(backend={"a": Backend(**{"url": "http://h", **fields})})


def rule(when: dict[str, Any] | None = None, **then: Any) -> Config:
    """A configuration with one rule."""
    return replace(GOOD, rule=[Rule(when=When(**(when or {})), then=Then(**then))])


def limit(**fields: Any) -> Config:
    """A configuration with one limit."""
    return replace(GOOD, limit=[Limit(**{"name": "l", "max_concurrent": 1, **fields})])


def bounds(**fields: Any) -> Config:
    """A configuration with bounds."""
    return replace(GOOD, bounds=Bounds(**fields))


class CheckTests(SynchronousTestCase):
    """What is wrong with a configuration."""

    def test_good(self) -> None:
        """With nothing wrong, the configuration itself comes back."""
        self.assertEqual(check(GOOD), [])
        self.assertEqual(validated(GOOD), GOOD)

    def test_mistakes(self) -> None:
        """Each mistake is one line that begins with its place and has the mend."""
        cases: list[tuple[Config, str, str]] = [
            (Config(), "backend: there is none", "[backend.app]"),
            (replace(GOOD, listen=[]), "listen: an empty list", "tcp:8888"),
            (replace(GOOD, listen="8888"), "listen: ", "write tcp:PORT"),
            (replace(GOOD, listen=["tcp:80", "tcp:x"]), "listen: ", "write tcp:PORT"),
            (
                replace(GOOD, redis=Redis(url="redis://h", ca="/nonexistent")),
                "redis.ca: redis.url has no TLS",
                "rediss://",
            ),
            (
                replace(GOOD, redis=Redis(url="sentinel://h/m", certificate="/nonexistent")),
                "redis.certificate: redis.url has no TLS",
                "tls=true",
            ),
            (
                replace(GOOD, redis=Redis(url="rediss://h", ca="/nonexistent")),
                "redis.ca: the file cannot be read (No such file or directory)",
                "correct its name",
            ),
            (
                replace(GOOD, redis=Redis(url="rediss://h", certificate="/dev/null")),
                "redis.certificate: there is no certificate",
                "PEM",
            ),
            (replace(GOOD, redis=Redis(url="http://h")), "redis.url: ", "redis://"),
            (replace(GOOD, redis=Redis(timeout=5, lease=5)), "redis.timeout: must be less than", "lower it"),
            (
                backend(url=["http://h", "http://h"]),
                "backend.a.url: the same URL stands here twice",
                "leave one",
            ),
            (backend(ca="x"), "backend.a.ca: no url of this backend has TLS", "write https:// there"),
            (backend(certificate="x"), "backend.a.certificate: no url of this backend has TLS", "leave this"),
            (backend(url="unix:///s", ca="x"), "backend.a.ca: no url of this backend has TLS", "https://"),
            (
                backend(url=["http://h", "https://h"], ca="/nonexistent/ca.pem"),
                "backend.a.ca: the file cannot be read (No such file or directory)",
                "correct its name",
            ),
            (
                backend(url="https://h", certificate="/dev/null"),
                "backend.a.certificate: there is no certificate with its key",
                "put both into it",
            ),
            (backend(health="health"), "backend.a.health: no path of a request", '"/health"'),
            (backend(health="/a b"), "backend.a.health: no path of a request", "percent-encoded"),
            (replace(GOOD, backend={"a": Backend(url=[])}), "backend.a.url: an empty list", "http://"),
            (
                replace(GOOD, backend={"a": Backend(url=["http://h", "x"])}),
                "backend.a.url: not the URL",
                "http://",
            ),
            (
                replace(GOOD, trusted_proxies=["10.0.0.0/8", "10.0.0.1/8"]),
                'trusted_proxies 2: "10.0.0.1/8" has bits set past its prefix',
                'write "10.0.0.0/8" for the network',
            ),
            (replace(GOOD, trusted_proxies=["proxy.example"]), "trusted_proxies 1: ", "write an address"),
            (replace(GOOD, trusted_proxies=["unix:/run/s"]), "trusted_proxies 1: ", "leave out the path"),
            (limit(key="header:X_User"), 'limit 1 ("l"), key: a header with an underscore', '"X-User"'),
            (
                rule(when={"header": {"X_User": "a"}}, priority=1),
                "rule 1, when.header.X_User: a header with an underscore",
                'write "X-User"',
            ),
            (
                rule(set_input_header={"X_User": "a"}),
                "rule 1, then.set_input_header.X_User: a header with an underscore",
                'write "X-User"',
            ),
            (
                limit(key="header:Proxy-Authorization"),
                'limit 1 ("l"), key: the header "Proxy-Authorization" is the connection\'s own',
                "name another",
            ),
            (limit(key="header:te"), 'limit 1 ("l"), key: the header "te" is the', "name another"),
            (
                rule({"header": {"Upgrade": "websocket"}}, priority=1),
                'rule 1, when.header.Upgrade: the header "Upgrade" is the connection\'s own',
                "name another",
            ),
            (
                bounds(spool=10_000_000),
                "bounds.body_size: more than bounds.spool (10000000) can hold",
                "raise bounds.spool",
            ),
            (bounds(body_size=100_001, spool=0), "bounds.body_size: more than bounds.spool (0)", "lower it"),
            (
                bounds(target_length=4097, head_size=4096),
                "bounds.target_length: more than bounds.head_size (4096)",
                "raise bounds.head_size",
            ),
            (
                bounds(connections=10, connections_per_client=11),
                "bounds.connections_per_client: more than bounds.connections (10)",
                "or write 0",
            ),
            (limit(key="headr:Foo"), 'limit 1 ("l"), key: unknown key', "did you mean"),
            (limit(key="python:nosuch:f"), 'limit 1 ("l"), key: the module', "PYTHONPATH"),
            (limit(key="path", match="re:x"), 'limit 1 ("l"), match: "re:"', 'write "regexp:"'),
            (limit(key="path", match=[]), 'limit 1 ("l"), match: an empty list', "leave it out"),
            (limit(key="path", default="\ud800"), 'limit 1 ("l"), default: ', "correct it"),
            (limit(weight="3"), 'limit 1 ("l"), weight: not a weight', "without quotes"),
            (limit(weight="python:nosuch:f"), 'limit 1 ("l"), weight: the module', "PYTHONPATH"),
            (limit(weight=0), 'limit 1 ("l"), weight: must be a whole number from 1 to', "not the number 0"),
            (limit(max_waiting=-1), 'limit 1 ("l"), max_waiting: must be a whole number from 0', "-1"),
            (limit(match="x"), 'limit 1 ("l"), key: match and default say nothing', "add a key"),
            (limit(default="x"), 'limit 1 ("l"), key: match and default say nothing', "add a key"),
            (limit(max_concurrent=None), 'limit 1 ("l"): it limits nothing', 'rate = "100/min"'),
            (limit(rate="100/m"), 'limit 1 ("l"), rate: "m" is no time of a rate', "s, min, hour or day"),
            (limit(rate="1/day", burst=12), 'limit 1 ("l"), rate: a burst of 12', "lower burst to 11"),
            (limit(burst=2), 'limit 1 ("l"), burst: says nothing without a rate', "leave it out"),
            (limit(over="reject"), 'limit 1 ("l"), over: says nothing without a rate', "leave it out"),
            (limit(demote_to=80), 'limit 1 ("l"), demote_to: says nothing without a rate', "add rate"),
            (
                limit(rate="1/s", demote_to=80),
                'limit 1 ("l"), demote_to: says nothing unless over = "demote"',
                "leave it out",
            ),
            (replace(GOOD, queue=Queue(fair="headr:X")), "queue.fair: unknown key", "did you mean"),
            (
                replace(GOOD, queue=Queue(fair="header:X", aging=1.0)),
                "queue.fair: does not go with queue.aging",
                "leave out one",
            ),
            (rule({"path": "regexp:("}), "rule 1, when.path: not a regular", "correct it"),
            (rule({"header": {"A b": "x"}}), 'rule 1, when.header."A b": the name', "correct it"),
            (rule(backend="ap"), 'rule 1, then.backend: there is no backend "ap"', 'did you mean "app"?'),
            (rule(set_input_header={"TE": "x"}), "rule 1, then.set_input_header.TE: ", "leave it out"),
            (
                rule(set_input_header={"A": "1", "a": "2"}),
                "rule 1, then.set_input_header.a: the same",
                "leave one",
            ),
        ]
        for config, start, mend in cases:
            (line,) = check(config)
            self.assertTrue(line.startswith(start), line)
            self.assertIn(mend, line)
            self.assertNotIn("\n", line)

    def test_rates(self) -> None:
        """A limit has slots, a rate, or both; what a rate says goes with each."""
        for good in [
            limit(rate="100/s"),
            limit(max_concurrent=None, rate="1/day", burst=11),
            limit(rate="100/min", burst=100, over="reject", headers=True),
            limit(rate="100/min", over="demote", demote_to=80, weight=3),
            replace(GOOD, queue=Queue(fair="client")),
            limit(headers=True),
        ]:
            self.assertEqual(check(good), [])

    def test_bounds(self) -> None:
        """Bounds that are reached are good, and so are defaults that are not."""
        for good in [
            bounds(body_size=100_000, spool=0),
            bounds(body_size=10_000_000, spool=10_000_000),
            bounds(target_length=4096, head_size=4096),
            bounds(head_size=4096),
            bounds(connections=10, connections_per_client=10),
            bounds(connections=10, connections_per_client=0),
            bounds(connections=0, connections_per_client=10_000),
            bounds(connections=10),
        ]:
            self.assertEqual(check(good), [])

    def test_all_at_once(self) -> None:
        """All mistakes are told at once, those of types and those of sense, and each value once."""
        wrong: Any = "two"
        config = Config(
            backend={"app": Backend(url=wrong, max_concurrent=wrong)},
            limit=[
                Limit(name="a", max_concurrent=wrong, key="x", match=["regexp:(", "re:y"]),
                Limit(name="a", max_concurrent=1),
            ],
            rule=[Rule(when=When(path=3, header={"A b": "re:x"}), then=Then(backend="b"))],  # type: ignore[arg-type]
        )
        error = self.assertRaises(ConfigError, validated, config)
        self.assertEqual(str(error), "\n".join(error.problems))
        self.assertEqual(error.problems, check(config))
        self.assertEqual(
            sorted(line.split(": ")[0] for line in error.problems),
            [
                "backend.app.max_concurrent",
                "backend.app.url",
                'limit 1 ("a"), key',
                'limit 1 ("a"), match',
                'limit 1 ("a"), match',
                'limit 1 ("a"), max_concurrent',
                'limit 2 ("a"), name',
                "rule 1, then.backend",
                'rule 1, when.header."A b"',
                'rule 1, when.header."A b"',
                "rule 1, when.path",
            ],
        )

    def test_no_backend_for_rule(self) -> None:
        """Where there is no backend, a rule cannot mean another one."""
        config = Config(rule=[Rule(then=Then(backend="b"))])
        self.assertEqual(check(config)[1], 'rule 1, then.backend: there is no backend "b"; add it')

    def test_passwords(self) -> None:
        """No message shows a password."""
        for config in (
            replace(GOOD, redis=Redis(url="redis://user:secret@h:x")),
            replace(GOOD, redis=Redis(url="rediss://user:secret@h?x")),
            replace(GOOD, backend={"app": Backend(url="http://user:secret@h")}),
            replace(GOOD, backend={"app": Backend(url="https://user:secret@h")}),
        ):
            (line,) = check(config)
            self.assertNotIn("secret", line)


class EffectiveTests(SynchronousTestCase):
    """The configuration as it will be used, printed."""

    def test_round_trip(self) -> None:
        """Read again, it is the same."""
        config = Config(
            listen=["tcp:1", "unix:/tmp/\x7f\"\\é\t'"],
            redis=Redis(url="redis://h:6379/2"),
            backend={
                "app": Backend(url=["http://a", "http://b"], max_concurrent=0),
                "a.b": Backend(url="unix:///x", connect_timeout=1e-7),
            },
            queue=Queue(aging=0.5),
            limit=[
                Limit(name="a", max_concurrent=1),
                Limit(name="b", max_concurrent=2, key="path", match=["x"]),
            ],
            rule=[
                Rule(),
                Rule(
                    when=When(path="glob:*", header={"X-A": "a", "b.c": ["d", "not:e"]}),
                    then=Then(priority=3, set_input_header={"A": "b"}),
                    stop=True,
                ),
            ],
            server_timing=False,
        )
        self.assertEqual(check(config), [])
        self.assertEqual(toml.loads(effective(config)), config)

    def test_defaults(self) -> None:
        """Every name stands in it, what is not set as a comment, what is a table without entries empty."""
        text = effective(replace(GOOD, rule=[Rule()]))
        self.assertIn("# redis is not set\n", text)
        self.assertIn("# max_concurrent is not set\n", text)
        self.assertIn("connect_timeout = 5.0\n", text)
        self.assertIn("limit = []\n", text)
        self.assertIn("then = {}\n", text)

    def test_password(self) -> None:
        """The password of Redis is not shown, and what is shown can be read again."""
        config = replace(GOOD, redis=Redis(url="redis://user:se%2Fcret@h/1"))
        text = effective(config)
        self.assertNotIn("cret", text)
        redis = toml.loads(text).redis
        assert redis is not None
        self.assertEqual(redis.url, "redis://user:***@h:6379/1")

    @settings(deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_text(self, text: str) -> None:
        """Any text comes back as it was."""
        config = limit(key="path", default=text)
        self.assertEqual(toml.loads(effective(config)), config)


class SchemaTests(SynchronousTestCase):
    """The JSON Schema."""

    def test_schema(self) -> None:
        """It names every table and refuses unknown names."""
        described = json.loads(schema())
        self.assertEqual(
            sorted(described["$defs"]),
            ["Auth", "Backend", "Bounds", "Config", "Limit", "Queue", "Redis", "Rule", "Then", "When"],
        )
        self.assertIs(described["$defs"]["Backend"]["additionalProperties"], False)
        self.assertIn("description", described["$defs"]["Backend"]["properties"]["url"])
