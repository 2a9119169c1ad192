"""Tests of thrtwisted.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.check import _toml as written
from thrtwisted.config import Backend, Config, ConfigError, Limit, Queue, Redis, Rule, Then, When
from thrtwisted.toml import line_numbers, load, loads

GOOD = """
[backend.app]
url = "http://127.0.0.1:9999"
"""

WRONG = """\
# every line with a mistake says so at its end
listen = [
  "tcp:8888",
  "tpc:1",
]
lisen = 3                                                       # 6
shutdown_timeout = inf                                          # 7
[redis]
url = "redos://:secret@x"                                       # 9
outage = "opened"                                               # 10
[backend.app]                                                   # 11
conect_timeout = 3                                              # 12
[[limit]]
name = "foo"
key = '''
headr:Foo'''
max_concurrent = "two"                                          # 17
[[limit]]                                                       # 18 twice
key = "path"
[[rule]]
when = { path = [3, "a"], header = { "X Y" = "re:b" } }         # 21 thrice
[rule.then]
priority = 100                                                  # 23
backend = "ap"                                                  # 24
[[rule]]
[rule.when.header]
A = 3                                                           # 27
[rule.then]
set_input_header.TE = "x"                                       # 29
"""


class LoadsTests(SynchronousTestCase):
    """From a text to a configuration."""

    def problems(self, text: str) -> list[str]:
        """What is wrong with a text; each on one line."""
        error = self.assertRaises(ConfigError, loads, text, "thr.toml")
        for line in error.problems:
            self.assertNotIn("\n", line)
            self.assertTrue(line.startswith("thr.toml:"), line)
        return error.problems

    def test_good(self) -> None:
        """Every table and kind of value."""
        config = loads(
            """
            listen = ["tcp:8888", "unix:/run/thr.sock"]
            server_timing = false
            redis = { url = "redis://user:pass@host:1/2", namespace = "ns" }
            [backend.second]
            url = ["http://b", "unix:///run/b"]
            [backend.first]
            url = "http://a"
            max_concurrent = 10
            connect_timeout = 3
            reclaim_delay = 20
            [queue]
            aging = 0.5
            [[limit]]
            name = "foo"
            key = "header:Foo"
            match = "bar"
            default = "none"
            max_concurrent = 2
            weight = 2
            max_waiting = 20
            [[limit]]
            name = "size"
            max_concurrent = 8
            weight = "python:os.path:basename"
            [[rule]]
            when = { path = "glob:/batch/*", method = ["GET", "HEAD"], header = { X-Urgent = "yes" } }
            then = { priority = 90, backend = "first", set_input_header = { X-Via = "thr" } }
            stop = true
            """
        )
        self.assertEqual(
            config,
            Config(
                listen=["tcp:8888", "unix:/run/thr.sock"],
                server_timing=False,
                redis=Redis(url="redis://user:pass@host:1/2", namespace="ns"),
                backend={
                    "second": Backend(url=["http://b", "unix:///run/b"]),
                    "first": Backend(
                        url="http://a", max_concurrent=10, connect_timeout=3.0, reclaim_delay=20.0
                    ),
                },
                queue=Queue(aging=0.5),
                limit=[
                    Limit(
                        name="foo",
                        key="header:Foo",
                        match="bar",
                        default="none",
                        max_concurrent=2,
                        weight=2,
                        max_waiting=20,
                    ),
                    Limit(name="size", max_concurrent=8, weight="python:os.path:basename"),
                ],
                rule=[
                    Rule(
                        when=When(path="glob:/batch/*", method=["GET", "HEAD"], header={"X-Urgent": "yes"}),
                        then=Then(priority=90, backend="first", set_input_header={"X-Via": "thr"}),
                        stop=True,
                    )
                ],
            ),
        )
        self.assertEqual(next(iter(config.backend)), "second")

    def test_all_at_once(self) -> None:
        """Every mistake is one line, with the line in the file, in the file's order."""
        problems = self.problems(WRONG)
        numbers = [int(line.split(":")[1]) for line in problems]
        self.assertEqual(
            numbers, [2, 6, 7, 9, 10, 11, 12, 15, 17, 18, 18, 21, 21, 21, 23, 24, 27, 29], "\n".join(problems)
        )
        self.assertIn(
            'thr.toml:12: backend.app: unknown name "conect_timeout"; did you mean "connect_timeout"?',
            problems,
        )
        self.assertIn(
            'thr.toml:17: limit 1 ("foo"), max_concurrent: must be a whole number, not the text "two"',
            problems,
        )
        self.assertNotIn("secret", "".join(problems))

    def test_unknown_tables(self) -> None:
        """Tables with a name that there is not have the line of the first of them."""
        good = '[backend.app]\nurl = "http://127.0.0.1:9999"\n'
        for heading in ("[[limits]]", "[limits.a]", "[limits]"):
            (problem,) = self.problems(f'{good}{heading}\nname = "a"\n')
            self.assertEqual(problem, 'thr.toml:3: unknown name "limits"; did you mean "limit"?')

    def test_no_line(self) -> None:
        """What lacks altogether has no line."""
        (problem,) = self.problems("")
        self.assertTrue(problem.startswith("thr.toml: backend: there is none"), problem)

    def test_syntax(self) -> None:
        """What is no TOML is one line too."""
        for text, start in [
            ("a = x", "thr.toml:1: not TOML: Invalid value"),
            ("\na = [", "thr.toml:2: not TOML: "),
            ("a = 1\na = 2", "thr.toml:2: not TOML: Cannot overwrite a value"),
            ("[a]\n\n[a]\n", "thr.toml:3: not TOML: Cannot declare"),
            ("a b", "thr.toml:1: not TOML: Expected '='"),
            ("url = 'x", "thr.toml:1: not TOML: "),
            ("a = " + "[" * 100_000, "thr.toml"),
            ("a = " + "9" * 10_000, "thr.toml: not TOML: "),
            ("\0", "thr.toml:1: not TOML: "),
        ]:
            (problem,) = self.problems(text)
            self.assertTrue(problem.startswith(start), problem)

    def test_override(self) -> None:
        """Flags change the configuration before its sense is looked at; wrong types are told all the same."""

        def override(config: Config) -> Config:
            return replace(config, backend={"app": Backend(url="http://a")})

        self.assertEqual(list(loads("", override=override).backend), ["app"])
        error = self.assertRaises(
            ConfigError, loads, '[[limit]]\nkey = "path"\nmax_concurrent = 1', "f", override
        )
        (problem,) = error.problems
        self.assertTrue(problem.startswith('f:1: limit 1: lacks "name"'), problem)

    @settings(max_examples=50, deadline=None)
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """A text is a configuration, or it is told what is wrong with it; nothing else happens."""
        self.check(text)

    def check(self, text: str) -> None:
        """See that a text is a configuration, or is refused properly."""
        try:
            loads(text, "thr.toml")
        except ConfigError:
            self.problems(text)


#: Names of the configuration, and some others.
names = st.sampled_from(
    [
        *(
            field.name
            for kind in (Config, Redis, Backend, Queue, Limit, Rule, When, Then)
            for field in fields(kind)
        ),
        "a.b",
        "",
        "é",
        '"\n',
    ]
)
leaves = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["http://a", "tcp:1", "header:Foo", "glob:a*", "python:os:getpid", "embedded:"])
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


class AnyDataTests(SynchronousTestCase):
    """Whatever stands in the file."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.fixed_dictionaries(
            {},
            optional={field.name: values for field in fields(Config)}
            | {
                "backend": st.dictionaries(names, st.dictionaries(names, values, max_size=4), max_size=2)
                | values,
                "limit": st.lists(st.dictionaries(names, values, max_size=5), max_size=3) | values,
                "rule": st.lists(st.dictionaries(names, values, max_size=3), max_size=3) | values,
            },
        )
    )
    @example({"limit": [[{}]], "rule": [{"when": [{}]}]})
    @example({"limit": [{"match": [[{"a": 1}]]}]})
    def test_any_data(self, data: dict[str, Any]) -> None:
        """It is a configuration, or every mistake is one line; nothing else happens."""
        text = "".join(f"{name} = {written(value)}\n" for name, value in data.items())
        try:
            loads(text, "thr.toml")
        except ConfigError as error:
            self.assertTrue(error.problems)
            for line in error.problems:
                self.assertTrue(line.startswith("thr.toml:"), line)
                self.assertEqual(len(line.splitlines()), 1, line)
                self.assertNotIn("not TOML", line)


class LineNumbersTests(SynchronousTestCase):
    """Where things stand in a text."""

    def test_lines(self) -> None:
        """Tables in tables, lists of tables, dotted and quoted names, values of several lines."""
        text = '''
a.b = 1
"c d" = """
e = 2
"""
f = [
  "g = 3",  # ]
]
[h.i]  # j
k = { l = { m = 1 }, n = 2 }
[[o]]
p = 1\r
[o.q]
r = 1
[[o.s]]
t = 1
[[o.s]]
t = 2
  [[o]]
p = 3
'''
        self.assertEqual(
            line_numbers(text),
            {
                ("a",): 2,
                ("a", "b"): 2,
                ("c d",): 3,
                ("f",): 6,
                ("h",): 9,
                ("h", "i"): 9,
                ("h", "i", "k"): 10,
                ("h", "i", "k", "l"): 10,
                ("h", "i", "k", "l", "m"): 10,
                ("h", "i", "k", "n"): 10,
                ("o",): 11,
                ("o", 0): 11,
                ("o", 0, "p"): 12,
                ("o", 0, "q"): 13,
                ("o", 0, "q", "r"): 14,
                ("o", 0, "s"): 15,
                ("o", 0, "s", 0): 15,
                ("o", 0, "s", 0, "t"): 16,
                ("o", 0, "s", 1): 17,
                ("o", 0, "s", 1, "t"): 18,
                ("o", 1): 19,
                ("o", 1, "p"): 20,
            },
        )


class LoadTests(SynchronousTestCase):
    """From a file to a configuration."""

    def file(self, content: bytes) -> Path:
        """A file."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return path

    def problem(self, path: str | os.PathLike[str]) -> str:
        """The one line that tells what is wrong with a file, without its name."""
        (problem,) = self.assertRaises(ConfigError, load, path).problems
        self.assertTrue(problem.startswith(os.fspath(path)))
        return problem[len(os.fspath(path)) :]

    def test_good(self) -> None:
        """A file is read, whichever way its lines end and whether or not it has a byte order mark."""
        for content in (GOOD, GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD):
            self.assertEqual(list(load(self.file(content.encode())).backend), ["app"])

    def test_override(self) -> None:
        """Flags count more than the file."""
        config = load(self.file(GOOD.encode()), lambda config: replace(config, listen="tcp:1"))
        self.assertEqual(config.listen, "tcp:1")

    def test_unreadable(self) -> None:
        """A file that cannot be read is one line."""
        self.assertIn(": cannot be read: No such file", self.problem(self.mktemp()))
        directory = self.mktemp()
        os.mkdir(directory)
        self.assertIn(": cannot be read: Is a directory", self.problem(directory))
        self.assertIn(": cannot be read: embedded null", self.problem("a\0b"))

    def test_not_utf8(self) -> None:
        """A file in another encoding says on which line."""
        path = self.file(b"# a\n# \xe9\n")
        self.assertTrue(self.problem(path).startswith(":2: a character that is not UTF-8"))

    def test_mistake(self) -> None:
        """The file's name stands before the line."""
        self.assertTrue(self.problem(self.file(b"x = 1\n" + GOOD.encode())).startswith(":1: unknown name"))
