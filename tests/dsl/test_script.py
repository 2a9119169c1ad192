"""Tests of thrtwisted.dsl.script, thrtwisted.dsl and thrtwisted.dsl.declared: configurations in Python."""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.exchange.test_exchange import exchange
from thrtwisted import dsl, toml
from thrtwisted.check import effective
from thrtwisted.config import Auth, Backend, Config, ConfigError, Limit, Queue, Redis, Relay, Rule, Then, When
from thrtwisted.dsl import script
from thrtwisted.limits import Limits
from thrtwisted.match import compile_match
from thrtwisted.rules import Rules

ROOT = Path(__file__).resolve().parent.parent.parent

QUEUE = 'add_queue("app", http_port=9999)\n'

#: What a criterion may be, as messages say it.
KINDS = "must be a text, a list of them, glob(…), regexp(…), network(…) or diff(…)"


class ScriptTestCase(SynchronousTestCase):
    """Files, and what is loaded of them."""

    def setUp(self) -> None:
        """A directory for the files, in which modules are found; what is imported is forgotten."""
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.patch(sys, "path", [*sys.path, os.path.abspath(self.directory)])
        for name in set(sys.modules):
            self.assertFalse(name.startswith("beside_"), name)
        self.addCleanup(self.forget)

    def forget(self) -> None:
        """Forget what was imported."""
        for name in list(sys.modules):
            if name.startswith(("beside_", "configuration:")):
                del sys.modules[name]

    def file(self, text: str | bytes, name: str = "thr_conf.py") -> str:
        """A file."""
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        return path

    def load(self, *texts: str) -> Config:
        """The configuration of files."""
        return script.load([self.file(text, f"conf{number}.py") for number, text in enumerate(texts)])

    def problems(self, *texts: str | bytes) -> list[str]:
        """What is wrong with files, without the directory; each on one line, with a place."""
        paths = [self.file(text, f"conf{number}.py") for number, text in enumerate(texts)]
        problems = self.assertRaises(ConfigError, script.load, paths).problems
        for problem in problems:
            self.assertEqual(len(problem.splitlines()), 1)
            self.assertTrue(problem.startswith((self.directory, os.path.abspath(self.directory))), problem)
        return [
            problem.replace(f"{os.path.abspath(self.directory)}/", "").replace(f"{self.directory}/", "")
            for problem in problems
        ]


class LoadTests(ScriptTestCase):
    """From files to a configuration."""

    def test_two_files(self) -> None:
        """THR's two files are one configuration, with its functions at hand or imported; a text is taken as it is."""
        config = self.load(
            """
add_rule(Criteria(path="glob:/x", method=("GET", "HEAD")), Actions(set_redis_queue="thr:queue:x"), stop=True)
""",
            """
from thrtwisted.dsl import add_max_limit, add_queue
def foo(request): return request.headers.get("Foo")
add_queue("thr:queue:x", http_port=9999)
add_max_limit("foo limit", foo, "bar", 2)
""",
        )
        key: Any = config.limit[0].key
        self.assertEqual(key.__name__, "foo")
        rule = Rule(
            name="add_rule 1 (conf0.py:2)",
            when=replace(config.rule[0].when, path=["text:glob:/x"], method=["GET", "HEAD"]),
            then=replace(config.rule[0].then, set_redis_queue="thr:queue:x"),
            stop=True,
        )
        self.assertEqual(
            config,
            Config(
                backend={"thr-queue-x": Backend(url="http://localhost:9999", queues=["thr:queue:x"])},
                limit=[Limit(name="foo-limit", key=key, match=["bar"], max_concurrent=2)],
                rule=[rule],
            ),
        )

    def test_configure(self) -> None:
        """What TOML can say, plain data and structures say too, beside the functions and in the order of the calls."""
        config = self.load(
            """
from thrtwisted.config import Queue
configure(listen="tcp:1", redis={"url": "redis://h"}, queue=Queue(aging=3), backend={"a": {"url": "http://a"}})
add_queue("b")
configure(limit=[{"name": "l", "max_concurrent": 1}], auth={"who": {"url": "http://auth/"}})
configure(limit=({"name": "m", "max_concurrent": 1},), backend={"c": {"url": "http://c"}})
configure(rule=[{"then": {"auth": "who"}}])
""",
        )
        self.assertEqual(
            config,
            Config(
                listen="tcp:1",
                redis=Redis(url="redis://h"),
                queue=Queue(aging=3.0),
                backend={
                    "a": Backend(url="http://a"),
                    "b": Backend(url="http://localhost:8082", queues=["b"]),
                    "c": Backend(url="http://c"),
                },
                limit=[Limit(name="l", max_concurrent=1), Limit(name="m", max_concurrent=1)],
                auth={"who": Auth(url="http://auth/")},
                rule=[Rule(then=Then(auth="who"))],
            ),
        )
        self.assertEqual(list(config.backend), ["a", "b", "c"])

    def test_beside(self) -> None:
        """A file can import what is beside it, and functions there can declare something, too."""
        self.file("from thrtwisted.dsl import add_queue\ndef more(): add_queue('more')\n", "beside_more.py")
        config = self.load(QUEUE + "import beside_more\nbeside_more.more()\n")
        self.assertEqual(list(config.backend), ["app", "more"])

    def test_module(self) -> None:
        """A file is a module like others: what looks up its own module finds it."""
        config = self.load(
            "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass Place:\n    port: int = 1234\n"
            "add_queue('app', http_port=Place().port)\nassert __file__.endswith('conf0.py')\n"
        )
        self.assertEqual(config.backend["app"].url, "http://localhost:1234")

    def test_place(self) -> None:
        """A file knows its place, also after twistd has gone to another directory."""
        path = os.path.relpath(self.file(QUEUE + "configure(listen='unix:' + __file__)"))
        self.assertEqual(script.load([path]).listen, f"unix:{os.path.abspath(path)}")

    def test_nothing_left(self) -> None:
        """Nothing of one load is in the next one, also where one fails; and functions called elsewhere refuse."""
        self.problems(QUEUE + "1 / 0")
        for _ in range(2):
            self.assertEqual(len(self.load(QUEUE + "add_rule(Criteria(), Actions())").rule), 1)
        for function in (dsl.add_queue, dsl.add_rule, dsl.configure):
            error = self.assertRaises(RuntimeError, function)
            self.assertIn("call it in a file that --config names", str(error))

    def test_nobodys_queue(self) -> None:
        """The queue "null" needs no application."""
        config = self.load('add_queue("app")\nadd_rule(Criteria(), Actions(set_redis_queue="null"))')
        self.assertEqual(config.rule[0].then.set_redis_queue, "null")

    def test_override(self) -> None:
        """Flags change the configuration before its sense is looked at."""
        path = self.file("add_rule(Criteria(), Actions(backend='app'))")
        config = script.load([path], lambda config: replace(config, backend={"app": Backend(url="http://a")}))
        self.assertEqual(list(config.backend), ["app"])

    def test_unreadable(self) -> None:
        """A file that is not there is one line."""
        (problem,) = self.assertRaises(ConfigError, script.load, ["/nonexistent/conf.py"]).problems
        self.assertEqual(
            problem, "/nonexistent/conf.py: cannot be read: No such file or directory; name a file that can"
        )

    def test_failures(self) -> None:
        """A file that cannot be run is one line, with the reason."""
        self.file("import nosuch_module\n", "beside_import.py")
        self.file("\n\na b\n", "beside_syntax.py")
        self.file("def f():\n    raise KeyError('x\\ny')\n", "beside_raise.py")
        self.file("\nadd_queue('x')\n", "beside_name.py")
        for text, line in [
            ("a b", "conf0.py:1: not Python: invalid syntax; correct it"),
            ("\nif x:\na\n", "conf0.py:3: not Python: expected an indented block after 'if' "),
            ("\n1 / 0", "conf0.py:2: ZeroDivisionError: division by zero; correct it"),
            ("def f():\n    return x\nf()", "conf0.py:2: NameError: name 'x' is not defined; correct it"),
            ("add_rul()", "conf0.py:1: NameError: name 'add_rul' is not defined; did you mean \"add_rule\"?"),
            (
                "import beside_name",
                "beside_name.py:2: NameError: name 'add_queue' is not defined; in a file that is",
            ),
            (
                "\nfrom . import x",
                "conf0.py:2: ImportError: attempted relative import with no known parent package; a",
            ),
            (
                "class E(Exception):\n    def __str__(self):\n        return 1\nraise E",
                "conf0.py:4: E: it does not say why; correct it",
            ),
            ("import sys\nsys.exit('bye')", "conf0.py:2: SystemExit: bye; a configuration does not end"),
            (
                "\nfrom thr.http2redis.rules import add_rule",
                "conf0.py:2: ModuleNotFoundError: No module named 'thr'; leave this line out, for its names are at",
            ),
            (
                "import beside_import",
                "beside_import.py:1: ModuleNotFoundError: No module named 'nosuch_module'; put",
            ),
            ("import beside_syntax", "beside_syntax.py:3: not Python: invalid syntax; correct it"),
            ("from beside_raise import f\n\nf()", "beside_raise.py:2: KeyError: 'x\\ny'; correct it"),
            (
                "import json\njson.loads('')",
                "conf0.py:2: JSONDecodeError: Expecting value: line 1 column 1 (char 0);",
            ),
            ("raise ValueError('a\\n b\\x1b')", "conf0.py:1: ValueError: a b\\x1b; correct it"),
        ]:
            (problem,) = self.problems(text)
            self.assertEqual(problem[: len(line)], line)
        (problem,) = self.problems(b"# a\n# \xe9\n")
        self.assertIn("conf0.py", problem)
        (problem,) = self.problems(b"a\0b")
        self.assertIn("null bytes", problem)

    def test_failure_and_mistakes(self) -> None:
        """Where one file fails, the mistakes of the calls before it and those of the next file are told as well."""
        self.assertEqual(
            [
                line.split(": ")[0]
                for line in self.problems("add_queue()\n1 / 0", "\nadd_queue('x', http_port=0)")
            ],
            ["conf0.py:1", "conf0.py:2", "conf1.py:2"],
        )


class MistakesTests(ScriptTestCase):
    """What is wrong with calls."""

    def test_generators(self) -> None:
        """A function that nothing would run is refused, wherever it stands; one of inlineCallbacks is none."""
        text = (
            QUEUE + "from twisted.internet.defer import inlineCallbacks\ndef f(exchange): yield\n"
            "async def g(exchange): yield\nrun = inlineCallbacks(f)\n"
            "add_rule(Criteria(custom=run), Actions(custom_input=run, set_path=run))\n"
            "add_rule(Criteria(custom=f), Actions(custom_output=g, set_path=f))"
        )
        problems = self.problems(text)
        self.assertEqual(len(problems), 3)
        for problem, place in zip(problems, ("custom", "set_path", "custom_output"), strict=True):
            self.assertIn(f"add_rule 2, {place}: the function is a generator, and nothing runs it", problem)

    def test_lines(self) -> None:
        """Each mistake is one line, with that of its call, which says what is wrong and the mend."""
        cases: list[tuple[str, list[str]]] = [
            (
                'add_rule(Criteria(), Actions())\nadd_rule(Criteria(), Actions(set_input_heder=("A", "b")))',
                ['2: add_rule 2, set_input_heder: unknown action; did you mean "set_input_header"?'],
            ),
            (
                'add_rule(\n    Criteria(\n        pth="/"),\n    Actions())',
                ['1: add_rule 1, pth: unknown criterion; did you mean "path"?'],
            ),
            (
                "add_rule(Criteria(), Actions(), stp=True)",
                ['1: add_rule 1, stp: unknown argument; did you mean "stop"?'],
            ),
            (
                "add_rule(Criteria())",
                ["1: add_rule 1: missing a required argument: 'actions'; it takes criteria, actions, stop"],
            ),
            (
                "add_rule(Actions(), None)",
                [
                    "1: add_rule 1, criteria: must be Criteria(…), not an Actions",
                    "1: add_rule 1, actions: must be Actions(…), not nothing",
                ],
            ),
            (
                "add_rule(Criteria(path={}, method=glob(), host=regexp('('), real_ip=diff(1), client=[]), Actions())",
                [
                    f"1: add_rule 1, path: {KINDS}, not a table",
                    "1: add_rule 1, method: glob() is empty; name what it stands for",
                    "1: add_rule 1, host: not a regular expression of Python: missing ), unterminated subpattern at "
                    "position 0; correct it",
                    "1: add_rule 1, real_ip: diff(…) takes texts and patterns, not the number 1",
                    f"1: add_rule 1, client: {KINDS}, not a list",
                ],
            ),
            (
                "add_rule(Criteria(client='10.0.0.0/8', real_ip=diff('::/8'), remote_ip=network('10')), Actions())",
                [
                    '1: add_rule 1, client: "10.0.0.0/8" is a network; write network("10.0.0.0/8"), or a regexp(…) for '
                    "just this text",
                    '1: add_rule 1, real_ip: "::/8" is a network; write network("::/8"), or a regexp(…) for just this '
                    "text",
                    '1: add_rule 1, remote_ip: "10" is no address, and names are not looked up; write an address or a '
                    'network such as "10.0.0.0/8"',
                ],
            ),
            (
                "add_rule(Criteria(path=['a', diff('b')], method=len, header='A', query={'q': 1}), Actions())",
                [
                    "1: add_rule 1, path: diff(…) cannot be one of several; write it alone, with all the texts",
                    "1: add_rule 1, method: a function says here nothing; it is the criterion custom",
                    '1: add_rule 1, header: must be a dictionary of names and values, not the text "A"',
                    f"1: add_rule 1, query.q: {KINDS}, not the number 1",
                ],
            ),
            (
                "add_rule(Criteria(), Actions(set_input_header='A', set_output_header=('A', 3), set_status_code=20))",
                [
                    '1: add_rule 1, set_input_header: must be ("NAME", "value"), a list of such pairs or a dictionary, '
                    'not the text "A"',
                    "1: add_rule 1, set_status_code: must be a whole number from 200 to 599, not the number 20",
                    "1: add_rule 1, set_output_header.A: must be a text or a list of texts, not the number 3",
                ],
            ),
            (
                "add_rule(Criteria(), Actions(set_input_header=[('A', 'b'), ('c',)]))",
                [
                    '1: add_rule 1, set_input_header: must be ("NAME", "value"), a list of such pairs or a dictionary, '
                    "not a list",
                ],
            ),
            (
                "add_queue([])\nadd_queue(3)\nadd_queue('x', http_prt=1)",
                [
                    '1: add_queue 1, queues: must be a name such as "app", or a list of names, not a list',
                    '2: add_queue 2, queues: must be a name such as "app", or a list of names, not the number 3',
                    '3: add_queue 3, http_prt: unknown argument; did you mean "http_port"?',
                ],
            ),
            (
                "add_queue('a', http_port='80')\nadd_queue('b', http_host=None)\nadd_queue('c', http_host='a b')",
                [
                    '1: add_queue 1, http_port: must be a whole number from 1 to 65535, not the text "80"',
                    "2: add_queue 2, http_host: must be a host or the path of a unix socket, not nothing",
                    "3: add_queue 3, http_host: a URL has neither blanks",
                ],
            ),
            (
                "add_queue('a', host='h', port='1')\nadd_queue('b', host='i')\n"
                "add_rule(Criteria(), Actions(set_redis_host='h', set_redis_port=0, set_redis_uds=3))",
                [
                    '1: add_queue 1, port: must be a whole number from 1 to 65535, not the text "1"',
                    '2: add_queue 2, host: is the text "i", where add_queue 1 has the text "h"; a proxy has one Redis: '
                    "name the same everywhere, or leave it out",
                    "3: add_rule 1, set_redis_port: must be a whole number from 1 to 65535, not the number 0",
                    "3: add_rule 1, set_redis_uds: must be a text, not the number 3",
                ],
            ),
            (
                "add_queue('a', host='a b')",
                ["1: add_queue 1, host: a URL has no blanks"],
            ),
            (
                "def f(r): pass\nasync def g(r): pass\nadd_max_limit(3, f, 'a', 1)\nadd_max_limit('a', 'f', 'a', 1)\n"
                "add_max_limit('b', f, g, 1)\nadd_max_limit('c', g, g, 1)\nadd_max_limit('d', f, f, 'x')\n"
                "add_max_limit('d', f, glob(3), 1)\nadd_max_limit('e', f, f)",
                [
                    "3: add_max_limit 1, name: must be a name of 1 to 64 letters, digits, dots, hyphens and "
                    "underscores, not the number 3",
                    '4: add_max_limit 2 ("a"), hash_func: must be a function of the request, not the text "f"',
                    '5: add_max_limit 3 ("b"), hash_value: must be a text, a pattern or hash_func itself, not another',
                    '6: add_max_limit 4 ("c"), hash_func: the function is async, and nothing waits for it; name a',
                    '7: add_max_limit 5 ("d"), max_limit: must be a whole number, not the text "x"',
                    '8: add_max_limit 6 ("d"), hash_value: glob(…) takes texts, not the number 3',
                    '8: add_max_limit 6 ("d"), name: an earlier limit has the name "d" too; give each its own',
                    "9: add_max_limit 7: missing a required argument: 'max_limit'; it takes name, hash_func,",
                ],
            ),
            (
                "configure(lisen='tcp:1', queue={'agin': 1}, limit=[{'name': 'q'}, 3], rule=3, backend=[])\n"
                "configure(backend={'one': {'url': 'http://h'}})\n"
                "configure(queue={}, backend={'one': {}, 'b c': {'url': 'x'}}, redis={'timeout': 'x'})",
                [
                    "1: configure 1, rule: must be a list of tables, not the number 3",
                    "1: configure 1, backend: must be a table of tables, not a list",
                    '1: unknown name "lisen"; did you mean "listen"?',
                    '1: queue: unknown name "agin"; did you mean "aging"?',
                    '1: limit 1 ("q"): it limits nothing; add max_concurrent',
                    "1: limit 2: must be a table, not the number 3",
                    "3: configure 3, queue: it is set already; leave one out",
                    "3: configure 3, backend.one: there is one of this name; give each its own",
                    '3: backend: the text "b c" must be a name of 1 to 64 letters',
                    '3: redis.timeout: must be a number, not the text "x"',
                ],
            ),
        ]
        for text, expected in cases:
            problems = [line.removeprefix("conf0.py:") for line in self.problems(f"{text}\n{QUEUE}")]
            self.assertEqual(len(problems), len(expected), "\n".join(problems))
            for problem, start in zip(sorted(problems), sorted(expected), strict=True):
                self.assertEqual(problem[: len(start)], start)
            numbers = [problem.split(":")[0] for problem in problems]
            self.assertEqual(numbers, sorted(numbers))

    def test_workers(self) -> None:
        """In a worker's file queues say how much it takes at once, all together; unless the table says it."""
        redis = 'configure(redis={"url": "redis://h"})\n'
        queues = 'add_queue("a", workers=4)\nadd_queue("b", workers=5)\nadd_queue("c")\n'
        worker = redis + 'configure(relay={"role": "worker"})\n'
        for text, concurrency in [
            (queues + worker, 10),
            (worker + 'add_queue("a", http_port=1, workers=2)\nadd_queue("a", http_port=2, workers=3)', 5),
            (worker + 'add_queue("a", workers=7)', 7),
            (worker + 'add_queue("a")\nadd_queue("b")', Relay(role="worker").concurrency),
            (queues + redis + 'configure(relay={"role": "worker", "concurrency": 3})', 3),
            (queues + redis + 'configure(relay={"role": "front"})', Relay(role="front").concurrency),
        ]:
            relay = self.load(text).relay
            assert relay is not None
            self.assertEqual(relay.concurrency, concurrency)
        self.assertIsNone(self.load(queues).relay)
        self.assertEqual(
            self.problems(worker + 'add_queue("a", workers=0)\nadd_queue("b", workers="2")'),
            [
                "conf0.py:3: add_queue 1, workers: must be a whole number from 1 on, not the number 0",
                'conf0.py:4: add_queue 2, workers: must be a whole number from 1 on, not the text "2"',
            ],
        )
        self.assertEqual(
            self.problems(worker + 'add_queue("a", workers=10)\nadd_queue("b", workers=9999)'),
            [
                "conf0.py:3: add_queue 1, workers: must be a whole number from 1 to 10000, not the number 10009",
            ],
        )

    def test_no_queue(self) -> None:
        """Without an application the mend is one in Python, and the place is all files."""
        (problem,) = self.problems("add_rule(Criteria(), Actions())")
        self.assertEqual(problem, 'conf0.py: backend: there is none; call add_queue("app", http_port=9999)')


def names(*kinds: Any) -> st.SearchStrategy[str]:
    """Names of the configuration, and some others."""
    return st.sampled_from([*(name for kind in kinds for name in kind.__struct_fields__), "", "a b", "Foo"])


leaves: st.SearchStrategy[Any] = (
    st.sampled_from(
        [None, True, 0, 1, 2, 10**30, -1, 1.5, float("nan"), b"\xff", object(), ..., len, Redis(), Queue()]
    )
    | st.sampled_from(
        ["", "a", "/a", "re:x", "Foo", "\n", "\ud800", "http://a", "x" * 99, "python:os:nosuch"]
    )
    | st.sampled_from(
        [dsl.glob("a*"), dsl.glob(), dsl.regexp("("), dsl.regexp("a"), dsl.diff("b"), dsl.Criteria()]
    )
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(leaves.filter(lambda leaf: leaf.__hash__ is not None), inner, max_size=3)
    ),
    max_leaves=6,
)
calls = st.one_of(
    st.tuples(
        st.just(dsl.add_rule),
        st.tuples(
            st.dictionaries(names(When), values, max_size=3).map(lambda criteria: dsl.Criteria(**criteria))
            | values,
            st.dictionaries(names(Then), values, max_size=4).map(lambda actions: dsl.Actions(**actions))
            | values,
        ),
        st.dictionaries(st.sampled_from(["stop", "x"]), values, max_size=1),
    ),
    st.tuples(
        st.sampled_from([dsl.add_queue, dsl.add_max_limit]),
        st.lists(values, max_size=6).map(tuple),
        st.dictionaries(
            st.sampled_from(["host", "port", "http_port", "http_host", "hash_func", "max_limit"]),
            values,
            max_size=2,
        ),
    ),
    st.tuples(
        st.just(dsl.configure),
        st.just(()),
        st.dictionaries(
            names(Config),
            values
            | st.dictionaries(names(Backend, Limit), values, max_size=3)
            | st.lists(values, max_size=2),
            max_size=3,
        ),
    ),
)


class AnyCallsTests(ScriptTestCase):
    """Whatever is given to the functions."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(calls, max_size=5))
    def test_any_calls(self, some: list[Any]) -> None:
        """It is a configuration, or every mistake is one line; nothing is raised."""
        raised = []

        def run() -> None:
            try:
                for function, arguments, options in some:
                    function(*arguments, **options)
            except Exception as error:
                raised.append(error)

        module: Any = ModuleType("beside_calls")
        module.run = run
        sys.modules["beside_calls"] = module
        try:
            effective(self.load("import beside_calls\nbeside_calls.run()\n"))
        except ConfigError as error:
            for problem in error.problems:
                self.assertEqual(len(problem.splitlines()), 1, problem)
        self.assertEqual(raised, [])


class CriteriaTests(ScriptTestCase):
    """What criteria accept."""

    def match(self, criterion: str) -> Any:
        """A criterion, compiled."""
        config = self.load(f"{QUEUE}add_rule(Criteria(path={criterion}), Actions())")
        path = config.rule[0].when.path
        assert path is not None
        return compile_match(path)

    def test_kinds(self) -> None:
        """Texts, lists, and each kind of pattern, also of several."""
        for criterion, accepted, refused in [
            ("'/a'", [b"/a"], [b"/ab"]),
            ("'regexp:.*'", [b"regexp:.*"], [b"x"]),
            ("'not:x'", [b"not:x"], [b"y"]),
            ("['/a', glob('/b*'), regexp('/c')]", [b"/a", b"/bx", b"/cx"], [b"/ab", b"c"]),
            ("glob('/a*', '/b*')", [b"/ax", b"/b/c"], [b"/c"]),
            ("regexp('/a', '/b$')", [b"/a/x", b"/b"], [b"/bx", b"x/a"]),
            ("diff('/a', 'glob:*')", [b"/b", b"x"], [b"/a", b"glob:*"]),
            ("diff('/a', glob('/b*'), regexp('/c'))", [b"/d", b"c"], [b"/a", b"/bx", b"/cx"]),
            ("network('10.0.0.0/8', '::1')", [b"10.1.2.3", b"0::1"], [b"11.1.2.3", b"10", b"x"]),
            ("['x', network('10.0.0.0/8')]", [b"10.1.2.3", b"x"], [b"11.1.2.3"]),
            ("diff(network('10.0.0.0/8'), '11.1.2.3')", [b"11.1.2.4", b"x"], [b"11.1.2.3", b"10.1.2.3"]),
        ]:
            match = self.match(criterion)
            for value in accepted:
                self.assertTrue(match.matches(value), (criterion, value))
            for value in refused:
                self.assertFalse(match.matches(value), (criterion, value))

    def test_tables(self) -> None:
        """Headers, cookies and arguments have names; a function is the criterion C{custom}."""
        config = self.load(
            "add_rule(Criteria(header={'A': 'b'}, query={'q': glob('*')}, custom=len, host=None), Actions())\n"
            + QUEUE
        )
        when = config.rule[0].when
        self.assertEqual((when.header, when.query, when.host), ({"A": ["b"]}, {"q": ["glob:*"]}, None))
        self.assertIs(when.custom, len)

    @settings(deadline=None)
    @given(
        st.sampled_from(
            [
                "a",
                "a|ab",
                "(?i)AB",
                "(?x) a b # c",
                "(?s)a.",
                "(?i)(?m)^A$",
                "a$",
                "",
                "(?P<n>a)(?P=n)",
                "[a-b]+?$",
            ]
        ),
        st.text("abB\n #", max_size=4),
    )
    @example("a|ab", "abc")
    @example("(?x)a#", "ab")
    def test_regexp(self, expression: str, text: str) -> None:
        """A regular expression is one of the start, as C{re.match} has it, whatever flags it begins with."""
        self.assertEqual(dsl.regexp(expression).match(text), re.match(expression, text) is not None)

    @settings(deadline=None)
    @given(st.text("a*?[]!.", max_size=4), st.text("a*b[].\n", max_size=4))
    def test_glob(self, pattern: str, text: str) -> None:
        """A glob is one of C{fnmatch}."""
        self.assertEqual(dsl.glob(pattern).match(text), fnmatch.fnmatchcase(text, pattern))

    def test_nonsense(self) -> None:
        """What is no regular expression alone does not become one by what is put around it."""
        self.assertRaises(ValueError, dsl.regexp("a)(b").match, "ab")


class ActionsTests(ScriptTestCase):
    """What actions become."""

    def then(self, actions: str) -> Any:
        """The actions of a rule."""
        return (
            self.load(f"{QUEUE}def f(exchange): pass\nadd_rule(Criteria(), Actions({actions}))").rule[0].then
        )

    def test_pairs(self) -> None:
        """Names and values are a pair, pairs or a dictionary; of one name set twice the last counts, added both do."""
        for value, expected in [
            ("('A', 'b')", {"A": "b"}),
            ("['A', b'b']", {"A": "b"}),
            ("[('A', 'b'), ('C', 'd')]", {"A": "b", "C": "d"}),
            ("(('A', 'b'), ('A', 'c'))", {"A": ["b", "c"]}),
            ("[('A', 'b'), ('a', ['c', b'd'])]", {"A": ["b", "c", "d"]}),
            ("(b'A', 'b')", {"A": "b"}),
            ("{'A': ['b', 'c']}", {"A": ["b", "c"]}),
            ("[]", {}),
        ]:
            self.assertEqual(self.then(f"set_input_header={value}").set_input_header, expected)
        self.assertEqual(
            self.then("add_output_header=[('A', 'b'), ('A', ['c', 'd'])]").add_output_header,
            {"A": ["b", "c", "d"]},
        )

    def test_custom_values(self) -> None:
        """A custom value may be anything, under any name, and is not changed."""
        for value, expected in [
            ("('k', 5)", {"k": 5}),
            ("('k', ['a', b'b'])", {"k": ["a", b"b"]}),
            ("('k', None)", {"k": None}),
            ("[('k', {1: (2,)}), (7, b'x')]", {"k": {1: (2,)}, 7: b"x"}),
            ("{('a', 1): f}", None),
        ]:
            kept = self.then(f"set_custom_value={value}").set_custom_value
            if expected is None:
                self.assertEqual(kept["a", 1].__name__, "f")
            else:
                self.assertEqual(kept, expected)
                self.assertEqual(repr(kept), repr(expected))

    def test_priority(self) -> None:
        """A priority is a number or a text that is one, and of another number the nearest, as in THR; or a key."""
        for value, expected in [("100", 99), ("0", 1), ("'10'", 10), ("b'1000'", 99), ("2.6", 3)]:
            self.assertEqual(self.then(f"set_input_priority={value}").set_input_priority, expected)
        key = self.then("set_input_priority='header:X-Priority'").set_input_priority
        self.assertEqual(key, "header:X-Priority")
        for wrong in ("True", "'high'", "[]"):
            (problem,) = self.problems(f"{QUEUE}add_rule(Criteria(), Actions(set_input_priority={wrong}))")
            self.assertIn("add_rule 1, set_input_priority: ", problem)

    def test_constants(self) -> None:
        """Names are one or several; bytes are the text that stands for them; None is as if it were not there."""
        then = self.then(
            "del_input_header='A', del_output_header=('B', 'C'), set_output_body=b'\\xff', set_path=None,"
            "set_query_string='', set_input_priority=7, set_status_code=403"
        )
        self.assertEqual((then.del_input_header, then.del_output_header), ("A", ["B", "C"]))
        self.assertEqual((then.set_output_body, then.set_path, then.set_query_string), ("\udcff", None, ""))
        self.assertEqual((then.set_input_priority, then.set_status_code), (7, 403))

    def test_functions(self) -> None:
        """A function may stand for each of them."""
        names = Then.__struct_fields__
        then = self.then(", ".join(f"{name}=f" for name in names))
        for name in names:
            self.assertEqual(getattr(then, name).__name__, "f")

    def test_stop(self) -> None:
        """What is true stops."""
        for value, stop in [("True", True), ("1", True), ("0", False), ("None", False)]:
            config = self.load(f"{QUEUE}add_rule(Criteria(), Actions(), {value})")
            self.assertIs(config.rule[0].stop, stop)


class QueueTests(ScriptTestCase):
    """What queues become."""

    def test_applications(self) -> None:
        """A queue is a backend at a URL, by a name like its own; a queue with several is one with several URLs."""
        config = self.load(
            """
add_queue("thr:queue:a")
add_queue(("thr/queue/a", "b"), http_host="::1", http_port=1)
add_queue("s", http_host="/run/app.sock", workers=10)
add_queue("s", http_port=2)
add_queue("s", http_port=2)
add_queue("é" * 70)
"""
        )
        self.assertEqual(
            {name: (backend.url, backend.queues) for name, backend in config.backend.items()},
            {
                "thr-queue-a": ("http://localhost:8082", ["thr:queue:a"]),
                "thr-queue-a-2": ("http://[::1]:1", ["thr/queue/a", "b"]),
                "s": (["unix:///run/app.sock", "http://localhost:2"], ["s"]),
                "-" * 64: ("http://localhost:8082", ["é" * 70]),
            },
        )

    def test_redis(self) -> None:
        """Redis is where queues and rules say, if they say it, and the configuration does not."""
        for text, url in [
            ("add_queue('a')", None),
            ("add_queue('a', host='h')", "redis://h:6379"),
            ("add_queue('a', port=1)", "redis://localhost:1"),
            ("add_queue('a', host='::1', port=1)\nadd_queue('b', port=1)", "redis://[::1]:1"),
            ("add_queue('a', host='h', unix_domain_socket='/s')", "unix:///s"),
            ("add_queue('a', unix_domain_socket=None)", None),
            (QUEUE + "add_rule(Criteria(), Actions(set_redis_host='h', set_redis_port=2))", "redis://h:2"),
            (QUEUE + "add_rule(Criteria(), Actions(set_redis_uds='/s'))", "unix:///s"),
            ("configure(redis={'url': 'redis://i'})\nadd_queue('a', host='h')", "redis://i"),
            ("add_queue('a', host='h')\nconfigure(redis={'namespace': 'n'})", "redis://h:6379"),
        ]:
            redis = self.load(text).redis
            self.assertEqual(redis and redis.url, url, text)
        self.assertEqual(redis and redis.namespace, "n")

    def test_redis_of_each_request(self) -> None:
        """A function cannot say where Redis is for each request: it is not called, and the log warns, once."""
        config = self.load(
            f"{QUEUE}def f(exchange): return 'h'\n"
            "for name in ('set_redis_host', 'set_redis_uds'): add_rule(Criteria(), Actions(**{name: f}))"
        )
        with capturedLogs() as events:
            rules = Rules(config)
        (event,) = events
        self.assertEqual((event["log_level"], config.redis), (LogLevel.warn, None))
        self.assertIn("in vain: a proxy has one Redis", formatEvent(event))
        self.assertFalse(rules.have_functions)


class LimitTests(ScriptTestCase):
    """What limits count."""

    def counters(self, hash_value: str, value: str | None) -> list[str]:
        """The counters of a request with a header."""
        config = self.load(
            f"{QUEUE}def foo(request): return request.headers.get('Foo')\n"
            f"add_max_limit('limit on foo', foo, {hash_value}, 2, show_in_stats=False)"
        )
        self.assertEqual((config.limit[0].max_concurrent, config.limit[0].show_in_stats), (2, False))
        found = exchange(headers={} if value is None else {"Foo": [value]})
        return [counter.key for counter in Limits(config).counters(found)]

    def test_values(self) -> None:
        """Of a text or a pattern, all that match share one counter; of the function itself, each value has its own."""
        for hash_value, value, counters in [
            ("'bar'", "bar", ["limit-on-foo"]),
            ("'bar'", "barx", []),
            ("'glob:b*'", "bar", []),
            ("glob('b*')", "bar", ["limit-on-foo"]),
            ("regexp('b')", "bar", ["limit-on-foo"]),
            ("diff('a', 'b')", "bar", ["limit-on-foo"]),
            ("diff('a', 'bar')", "bar", []),
            ("('a', 'bar')", "bar", ["limit-on-foo"]),
            ("foo", "bar", ["limit-on-foo=bar"]),
            ("foo", "other", ["limit-on-foo=other"]),
        ]:
            self.assertEqual(self.counters(hash_value, value), counters, hash_value)

    def test_numbers(self) -> None:
        """A number counts as the text that it is written as."""
        text = f"{QUEUE}def shard(request): return len(request.path)\nadd_max_limit('shard', shard, shard, 2)"
        counters = Limits(self.load(text)).counters(exchange())
        self.assertEqual([counter.key for counter in counters], ["shard=1"])

    def test_tornados(self) -> None:
        """A function finds what Tornado's requests have, such as the whole URL."""
        text = (
            f"{QUEUE}def url(request): return request.url\nadd_max_limit('url', url, glob('http://h/a*'), 2)"
        )
        for target, expected in [(b"/a?b", ["url"]), (b"/b", [])]:
            counters = Limits(self.load(text)).counters(exchange(target, {"Host": ["h"]}))
            self.assertEqual([counter.key for counter in counters], expected)

    def test_none(self) -> None:
        """None is no limit, whatever the value is to be."""
        for hash_value in ("'bar'", "glob('*')", "diff('a')", "foo"):
            self.assertEqual(self.counters(hash_value, None), [])

    def test_names(self) -> None:
        """Names that become the same are told apart."""
        config = self.load(
            QUEUE + "def f(request): pass\nfor name in ('a b', 'a:b', 'a-b'): add_max_limit(name, f, f, 1)"
        )
        self.assertEqual([limit.name for limit in config.limit], ["a-b", "a-b-2", "a-b-3"])


class PageTests(ScriptTestCase):
    """Tests for docs/coming-from-thr.md."""

    def test_message(self) -> None:
        """The mistake that the page shows is the one of its file."""
        page = (ROOT / "docs" / "coming-from-thr.md").read_text("utf-8")
        first, second, *_ = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        (problem,) = self.problems(first.replace("set_input_priority", "set_input_prority"), second)
        self.assertIn(f"\n{problem.replace('conf0', 'http2redis_conf')}\n", page)

    def test_migration(self) -> None:
        """The two files of the page are the configuration that it shows in TOML, as far as that can be."""
        page = (ROOT / "docs" / "coming-from-thr.md").read_text("utf-8")
        pieces = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[:3]
        (written,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        config = self.load(*pieces)
        self.assertEqual(config.queue.max_waiting, 500)
        same = toml.loads(written)
        self.assertEqual(config.redis, same.redis)
        self.assertEqual(
            [backend.url for backend in config.backend.values()],
            [backend.url for backend in same.backend.values()],
        )
        self.assertEqual(
            [(limit.name, limit.max_concurrent) for limit in config.limit],
            [(limit.name, limit.max_concurrent) for limit in same.limit],
        )
        user = exchange(headers={"X-User": ["a b"]})
        self.assertEqual(Limits(config).counters(user), Limits(same).counters(user))
        for path in (b"/old", b"/batch/a", b"/map/v1/", b"/map/v1/x", b"/map/v", b"/"):
            ours, theirs = exchange(path, method=b"GET"), exchange(path, method=b"GET")
            for found, source in ((ours, config), (theirs, same)):
                rules = Rules(source)
                found.routes, found.backend = rules.routes, next(iter(source.backend))
                rules.apply(found)
            self.assertEqual((ours.status, ours.priority), (theirs.status, theirs.priority), path)
            self.assertEqual(
                list(config.backend).index(ours.backend), list(same.backend).index(theirs.backend), path
            )
            asked = ours.header(b"x-asked-by")
            self.assertEqual(asked, None if path in (b"/old", b"/map/v1/", b"/map/v1/x") else b"192.0.2.1")

    def test_halves(self) -> None:
        """With the page's last two files, the first two are the halves of a relay."""
        page = (ROOT / "docs" / "coming-from-thr.md").read_text("utf-8")
        rules, queues, _, front, worker = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        for role, files in (("front", (rules, queues, front)), ("worker", (queues, worker))):
            config = self.load(*files)
            assert config.relay is not None
            self.assertEqual(config.relay.role, role)
            self.assertEqual(list(config.backend), ["thr-queue-app", "thr-queue-maps"])
            self.assertEqual(len(config.limit), 2)
