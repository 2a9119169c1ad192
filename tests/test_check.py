"""Tests of thrtwisted.check."""

from __future__ import annotations

import datetime
import json
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted import toml
from thrtwisted.check import check, effective, validated
from thrtwisted.config import (
    Auth,
    Backend,
    Bounds,
    Config,
    ConfigError,
    Limit,
    Queue,
    Redis,
    Relay,
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


def relayed(role: Literal["front", "worker"], config: Config, **fields: Any) -> Config:
    """A configuration with a half of a relay."""
    return replace(config, redis=Redis(url="redis://h"), relay=Relay(role=role, **fields))


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
            (
                limit(max_concurrent=None, rate=100, burst=5),
                'limit 1 ("l"), rate: must be a text, not the number 100',
                "",
            ),
            (limit(rate="1/s", over="demot", demote_to=80), 'limit 1 ("l"), over: must be', '"demote"'),
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
            (
                rule(set_redis_queue="ap"),
                'rule 1, then.set_redis_queue: there is no backend or queue "ap"',
                '"app"?',
            ),
            (rule(auth="who"), 'rule 1, then.auth: there is no service "who"', "add it"),
            (rule({"custom": "f"}), "rule 1, when.custom: not a function", '"python:module:function"'),
            (rule({"custom": "python:nosuch:f"}), "rule 1, when.custom: the module", "PYTHONPATH"),
            (rule({"remote_ip": "re:x"}), 'rule 1, when.remote_ip: "re:"', 'write "regexp:"'),
            (rule({"cookie": {"a b": "x"}}), 'rule 1, when.cookie."a b": the name', "correct it"),
            (
                rule({"query": {"q": "glob:"}, "real_ip": []}),
                "rule 1, when.real_ip: an empty list",
                "leave it out",
            ),
            (rule(custom_input="f"), "rule 1, then.custom_input: not a function", '"python:module:function"'),
            (
                rule(custom_output="python:os:nosuch"),
                "rule 1, then.custom_output: the module",
                "correct the name",
            ),
            (rule(set_method="A B"), "rule 1, then.set_method: no request has", "write one"),
            (rule(set_path="x"), "rule 1, then.set_path: a path starts", "percent-encode"),
            (rule(set_query_string="a b"), "rule 1, then.set_query_string: a query has", "percent-encode"),
            (
                rule(add_query_string_arg={"": "x"}),
                'rule 1, then.add_query_string_arg."": a query',
                "write one",
            ),
            (rule(set_host="a b"), "rule 1, then.set_host: this names no host", "write one"),
            (rule(set_remote_ip="x"), "rule 1, then.set_remote_ip: this is no address", "write one"),
            (
                rule(del_input_header=["A", "b c"]),
                "rule 1, then.del_input_header: no header has",
                "use letters",
            ),
            (
                rule(del_output_header="Content-Length"),
                "rule 1, then.del_output_header: this header",
                "leave",
            ),
            (
                rule(add_output_header={"A": ["b", "\n"]}),
                "rule 1, then.add_output_header.A: no header's",
                "remove",
            ),
            (rule(priority="x"), 'rule 1, then.priority: unknown key "x"', "write one of"),
            (
                rule(set_input_priority="header:a b"),
                "rule 1, then.set_input_priority: the name",
                "correct it",
            ),
            (
                replace(GOOD, rule=[Rule(then=Then(set_redis_host=host)) for host in ("a", "a", "b")]),
                "rule 3, then.set_redis_host: an earlier rule names another",
                "leave this out",
            ),
            (
                replace(GOOD, backend={**GOOD.backend, "b": Backend(url="http://b", queues=["q", "app"])}),
                'backend.b.queues 2: there is a backend "app", too',
                "name one of them otherwise",
            ),
            (
                backend(queues=["q", "q"]),
                'backend.a.queues 2: "q" stands for the backend a already',
                "leave it",
            ),
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

    def test_functions(self) -> None:
        """A function of a program may stand for each criterion and action that takes one, whatever it will return."""
        function: Any = len
        then = dict.fromkeys(Then.__struct_fields__, function)
        self.assertEqual(check(rule({"custom": function}, **then)), [])
        self.assertEqual(check(limit(key=function, weight=function)), [])

    def test_actions(self) -> None:
        """Constants that can be used are good: nothing, too, where that says something."""
        config = replace(
            GOOD,
            backend={"app": Backend(url="http://a", queues=["thr:q", "app"])},
            auth={"who": Auth(url="http://h/")},
            rule=[
                Rule(
                    when=When(custom="python:os:getpid", query={"q": "x"}, remote_ip="not:10.0.0.1"),
                    then=Then(
                        auth="who",
                        set_redis_queue="thr:q",
                        set_query_string="",
                        set_input_body="",
                        set_output_body="",
                        set_output_header={"Server": "x"},
                        add_input_header={"A": ["b", "c"]},
                        set_redis_host="h",
                        priority="header:X-Priority",
                    ),
                )
            ],
        )
        self.assertEqual(check(config), [])

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

    def test_no_url(self) -> None:
        """A backend has a URL, unless another process forwards to it."""
        lacks = ['backend.app: lacks "url"; add it, a text or a list of texts']
        nowhere = replace(GOOD, backend={"app": Backend(max_concurrent=1)})
        self.assertEqual(check(nowhere), lacks)
        self.assertEqual(check(relayed("front", nowhere)), [])
        self.assertEqual(check(relayed("worker", nowhere)), lacks)
        both = replace(GOOD, backend={"other": Backend(), **GOOD.backend})
        self.assertEqual(check(relayed("worker", both, backends=["app"])), [])

    def test_relay(self) -> None:
        """A relay needs a Redis that others reach, and a worker has backends that there are."""
        self.assertEqual(check(relayed("front", GOOD)), [])
        self.assertEqual(check(relayed("worker", GOOD, backends=["app"])), [])
        cases = [
            (
                replace(GOOD, relay=Relay(role="front")),
                'relay: goes through Redis, and there is none; add a table [redis] with url = "redis://HOST", '
                "the same for fronts and workers",
            ),
            (
                replace(relayed("worker", GOOD), redis=Redis()),
                "redis.url: embedded: is a server of this process's own, which no other reaches; "
                "write redis://HOST, the same for fronts and workers",
            ),
            (
                relayed("worker", GOOD, backends=["ap"]),
                'relay.backends 1: there is no backend "ap"; did you mean "app"?',
            ),
            (
                relayed("worker", GOOD, backends=["app", "app"]),
                'relay.backends 2: "app" stands here already; leave it out',
            ),
        ]
        for config, problem in cases:
            self.assertEqual(check(config), [problem])

    def test_relay_outage(self) -> None:
        """Without Redis a relay is closed: it is shown so, and another policy refused, the default, too, if written."""
        config = relayed("front", GOOD)
        self.assertIn('outage = "closed"\n', effective(config))
        toml.loads(effective(config))
        self.assertIn('outage = "local"\n', effective(replace(config, relay=None)))
        problem = 'redis.outage: must be "closed" in a relay: without Redis there is no way to a worker; leave it out'
        for role in ("front", "worker"):
            for outage, problems in (("local", [problem]), ("open", [problem]), ("closed", []), (None, [])):
                written = "" if outage is None else f'outage = "{outage}"\n'
                text = f'{written}[relay]\nrole = "{role}"\n[backend.app]\nurl = "http://h"\n'
                text = f'[redis]\nurl = "redis://h"\n{text}'
                if problems:
                    error = self.assertRaises(ConfigError, toml.loads, text)
                    self.assertEqual(error.problems, [f"configuration:3: {problem}"])
                else:
                    self.assertEqual(toml.loads(text).relay, Relay(role=role))
        opened = replace(config, redis=Redis(url="redis://h", outage="open"))
        self.assertEqual(check(opened), [problem])
        self.assertEqual(check(replace(opened, relay=None)), [])

    def test_relay_elsewhere(self) -> None:
        """What only the other half of a relay uses need not be there: certificates, modules, places to listen."""
        forwarding = replace(GOOD, backend={"app": Backend(url="https://h", ca="/nonexistent")})
        self.assertEqual(check(relayed("front", forwarding)), [])
        self.assertEqual(len(check(relayed("worker", forwarding))), 1)
        regulating = replace(
            GOOD,
            listen="ssl:443:privateKey=/nonexistent",
            auth={"a": Auth(url="https://h", ca="/nonexistent")},
            limit=[Limit(name="l", max_concurrent=1, key="python:nonexistent:key")],
            rule=[Rule(then=Then(auth="a", priority="python:nonexistent:priority"))],
            queue=Queue(fair="python:nonexistent:fair"),
        )
        self.assertEqual(check(relayed("worker", regulating)), [])
        self.assertEqual(len(check(relayed("front", regulating))), 5)

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

    def test_functions(self) -> None:
        """What no file can have stands as a comment, and the rest can be read."""
        keys: Any = [len, check, CheckTests, lambda exchange: "x"]
        config = replace(
            GOOD,
            limit=[Limit(name=f"l{number}", max_concurrent=1, key=key) for number, key in enumerate(keys)],
            rule=[Rule(then=Then(set_path=keys[1], set_method="PUT", set_output_header={"A": "\udcff"}))],
        )
        text = effective(config)
        for line in (
            "# key is the function len",
            "# key is the function check (check.py:",
            "# key is the function CheckTests",
            "# key is the function EffectiveTests.test_functions.<locals>.<lambda> (test_check.py:",
            "# then.set_path is the function check (check.py:",
            "# then.set_output_header is not Unicode",
            'then = { set_method = "PUT" }',
        ):
            self.assertIn(f"\n{line}", text)
        self.assertEqual(toml.loads(text).rule[0].then, Then(set_method="PUT"))

    def test_custom_values(self) -> None:
        """Of custom values TOML has what it can say, and the others are comments."""
        said = {
            "a": "b",
            "c": [1, 2.5, True, {"d": "\x7f"}],
            "e": datetime.datetime(2026, 11, 23, 3, tzinfo=datetime.timezone.utc),
            "f": datetime.time(3, 12),
        }
        for others, lines in [
            ({}, []),
            ({"g": b"x"}, ["# then.set_custom_value.g is of the type bytes"]),
            (
                {"g h": len, "i": [None]},
                ['then.set_custom_value."g h" is the function len', "value.i is of the type NoneType"],
            ),
            (
                {5: "x", "j": {"k": (1,)}},
                ["value.5 has a name that is no text", "value.j is of the type tuple"],
            ),
        ]:
            rule = Rule(then=Then(set_custom_value={**said, **others}))
            self.assertEqual(check(replace(GOOD, rule=[rule])), [])
            text = effective(replace(GOOD, rule=[rule]))
            for line in lines:
                self.assertIn(line, text)
            self.assertEqual(toml.loads(text).rule[0].then.set_custom_value, said)
        text = effective(replace(GOOD, rule=[Rule(then=Then(set_custom_value={"a": object()}))]))
        self.assertIn("# then.set_custom_value is of the type object\n", text)

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
            [
                "Auth",
                "Backend",
                "Bounds",
                "Config",
                "Limit",
                "Queue",
                "Redis",
                "Relay",
                "Rule",
                "Then",
                "When",
            ],
        )
        self.assertIs(described["$defs"]["Backend"]["additionalProperties"], False)
        self.assertIn("description", described["$defs"]["Backend"]["properties"]["url"])
