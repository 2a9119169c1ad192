"""Tests of thrtwisted.structure."""

from __future__ import annotations

import datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.config import Backend, Config, Limit, Rule, Then, When
from thrtwisted.structure import build, place_name, suggestion


def lines(data: object) -> list[str]:
    """What is wrong with some data, in words."""
    config, problems = build(data, Config)
    return [problem.line(config) for problem in problems]


class BuildTests(SynchronousTestCase):
    """From plain data to a configuration."""

    def test_good(self) -> None:
        """Good data become the configuration, whole numbers too where a number is wanted."""
        data: dict[str, Any] = {
            "listen": ["tcp:1", "tcp:2"],
            "redis": {"url": "embedded:"},
            "backend": {"app": {"url": "http://a", "connect_timeout": 3}},
            "limit": [{"name": "l", "max_concurrent": 2, "match": ["a"]}],
            "rule": [{"when": {"header": {"A": ["b"]}}, "then": {"priority": 1}}],
        }
        config, problems = build(data, Config)
        self.assertEqual(problems, [])
        self.assertEqual(config.backend["app"], Backend(url="http://a", connect_timeout=3.0))
        self.assertIsInstance(config.backend["app"].connect_timeout, float)
        self.assertEqual(config.limit, [Limit(name="l", max_concurrent=2, match=["a"])])
        self.assertEqual(config.rule, [Rule(when=When(header={"A": ["b"]}), then=Then(priority=1))])
        self.assertIsNotNone(config.redis)

    def test_again(self) -> None:
        """A configuration that a program has built is built again as it is."""
        config = Config(backend={"app": Backend(url="http://a")}, rule=[Rule(when=When(path="/"))])
        self.assertEqual(build(config, Config), (config, []))

    def test_functions(self) -> None:
        """A program's functions stay where there may be one, and are a mistake elsewhere."""
        upper: Any = str.upper
        length: Any = len
        config, problems = build(
            {
                "limit": [{"name": "l", "key": str.lower, "weight": len, "max_concurrent": abs}],
                "rule": [
                    {
                        "when": {"custom": str.upper, "path": len},
                        "then": {"set_path": len, "del_input_header": len},
                    }
                ],
                "auth": {"a": len},
            },
            Config,
        )
        self.assertEqual(
            [problem.line(config) for problem in problems],
            [
                "auth.a: must be a table, not a function",
                'limit 1 ("l"), max_concurrent: must be a whole number, not a function',
                "rule 1, when.path: must be a text or a list of texts, not a function",
            ],
        )
        self.assertEqual([config.limit[0].key, config.limit[0].weight], [str.lower, len])
        self.assertEqual(
            config.rule[0],
            Rule(when=When(custom=upper), then=Then(set_path=length, del_input_header=length)),
        )
        self.assertEqual(build(config, Config)[0], config)

    def test_program(self) -> None:
        """A program's mistakes are found too, for nothing has checked its types."""
        wrong: Any = 3
        config = Config(
            listen=wrong, backend={wrong: Backend(url="http://a", max_concurrent=wrong)}, redis=wrong
        )
        self.assertEqual(
            lines(config),
            [
                "listen: must be a text or a list of texts, not the number 3",
                "redis: must be a table, not the number 3",
                "backend: the number 3 must be a name of 1 to 64 letters, digits, dots, hyphens and underscores",
            ],
        )
        self.assertEqual(lines(Config(limit=(Limit(name="l", max_concurrent=1),))), [])  # type: ignore[arg-type]

    def test_leaves(self) -> None:
        """Each wrong value is named, with what it must be."""
        moment = datetime.datetime(2026, 1, 2)
        for data, line in [
            ({"server_timing": 1}, "server_timing: must be true or false, not the number 1"),
            ({"server_timing": "no"}, 'server_timing: must be true or false, not the text "no"'),
            ({"shutdown_timeout": True}, "shutdown_timeout: must be a number, not true"),
            ({"shutdown_timeout": False}, "shutdown_timeout: must be a number, not false"),
            (
                {"shutdown_timeout": -1},
                "shutdown_timeout: must be a number from 0 to 1000000, not the number -1",
            ),
            (
                {"shutdown_timeout": moment},
                f"shutdown_timeout: must be a number, not the date or time {moment}",
            ),
            ({"listen": {}}, "listen: must be a text or a list of texts, not a table"),
            (
                {"listen": ["a", 1]},
                "listen: must be a text or a list of texts, not a list with the number 1",
            ),
            ({"listen": None}, "listen: must be a text or a list of texts, not nothing"),
            ({"listen": b"x"}, "listen: must be a text or a list of texts, not a bytes"),
            ({"limit": {}}, "limit: must be a list of tables, not a table"),
            ({"limit": "x" * 99}, f'limit: must be a list of tables, not the text "{"x" * 59}…"'),
            ({"backend": []}, "backend: must be a table, not a list"),
            ({"queue": []}, "queue: must be a table, not a list"),
            (
                {"queue": {"timeout": 0}},
                "queue.timeout: must be a number above 0 and up to 1000000, not the number 0",
            ),
            (
                {"queue": {"max_waiting": 1.5}},
                "queue.max_waiting: must be a whole number from 0 to 1000000000, not the number 1.5",
            ),
            (
                {"redis": {"outage": "opened"}},
                'redis.outage: must be "closed" or "local" or "open", not the text "opened"',
            ),
            (
                {"rule": [{"then": {"set_status_code": "x"}}]},
                'rule 1, then.set_status_code: must be a whole number, not the text "x"',
            ),
            (
                {"rule": [{"when": {"header": {"A b": 1}}}]},
                'rule 1, when.header."A b": must be a text or a list of texts, not the number 1',
            ),
        ]:
            self.assertEqual(lines(data), [line])

    def test_all_at_once(self) -> None:
        """Every mistake is found, and what is right beside it stays."""
        data = {
            "backend": {"app": {"conect_timeout": 1, "max_concurrent": 3}},
            "limit": [3, {"name": "foo", "max_concurrent": "two"}, {"key": "path", "max_concurrent": 1}],
            "lisen": "tcp:1",
        }
        config, problems = build(data, Config)
        self.assertEqual(
            [problem.line(config) for problem in problems],
            [
                'unknown name "lisen"; did you mean "listen"?',
                'backend.app: unknown name "conect_timeout"; did you mean "connect_timeout"?',
                "limit 1: must be a table, not the number 3",
                'limit 2 ("foo"), max_concurrent: must be a whole number, not the text "two"',
                'limit 3: lacks "name"; add it, a name of 1 to 64 letters, digits, dots, hyphens and underscores',
            ],
        )
        self.assertEqual(config.backend["app"].max_concurrent, 3)
        self.assertEqual(config.limit[2].key, "path")

    def test_control_characters(self) -> None:
        """No control character of the data breaks the line or reaches a terminal."""
        for letter, escape in [("\n", "\\n"), ("\x1b", "\\u001b"), ("\x85", "\\x85"), ("\u2028", "\\u2028")]:
            self.assertEqual(
                lines({"queue": f"a{letter}b"}), [f'queue: must be a table, not the text "a{escape}b"']
            )
            (line,) = lines({f"a{letter}b": 1})
            self.assertTrue(line.startswith(f'unknown name "a{escape}b"'), line)

    def test_nothing(self) -> None:
        """Nothing is a mistake where a table has to be, in a table or in a list of tables."""
        self.assertEqual(
            lines({"backend": {"a": None}, "limit": [None], "redis": None}),
            ["backend.a: must be a table, not nothing", "limit 1: must be a table, not nothing"],
        )

    def test_not_a_table(self) -> None:
        """Not even a table is one line."""
        self.assertEqual(lines([]), ["must be a table, not a list"])


class WordsTests(SynchronousTestCase):
    """The words of the messages."""

    def test_place(self) -> None:
        """Places count from 1 and name the limit."""
        config = Config(limit=[Limit(name="a", max_concurrent=1), Limit(name="", max_concurrent=1)])
        for path, words in [
            ((), ""),
            (("backend", "app", "url"), "backend.app.url"),
            (("backend", "a.b"), 'backend."a.b"'),
            (("limit", 0), 'limit 1 ("a")'),
            (("limit", 0, "key"), 'limit 1 ("a"), key'),
            (("limit", 1, "key"), "limit 2, key"),
            (("limit", 7), "limit 8"),
            (("rule", 2, "then", "set_status_code"), "rule 3, then.set_status_code"),
        ]:
            self.assertEqual(place_name(path, config), words)

    def test_suggestion(self) -> None:
        """The nearest name is meant; without one, all are named."""
        self.assertEqual(suggestion("ap", ["app", "other"]), 'did you mean "app"?')
        self.assertEqual(suggestion("status", ["set_status_code", "auth"]), 'did you mean "set_status_code"?')
        self.assertEqual(suggestion("ab", ["xxxxxxab", "abyyyyyy"]), 'it may be "xxxxxxab" or "abyyyyyy"')
        self.assertEqual(suggestion("zzz", ["app", "b", "c"]), 'it may be "app", "b" or "c"')
        self.assertEqual(suggestion("zzz", ["app"]), 'it may be "app"')
