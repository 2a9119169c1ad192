"""Tests of thrtwisted.rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.exchange.test_exchange import exchange
from tests.kinds import KINDS
from thrtwisted.check import validated
from thrtwisted.config import Auth, Backend, Config, ConfigError, Limit, Rule, Then, When
from thrtwisted.errors import AuthFailed, BadRequest, RuleFailed
from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.exchange.settable import RESERVED_HEADERS, fields
from thrtwisted.forward.headers import HOP_BY_HOP
from thrtwisted.limits import Limits
from thrtwisted.rules import Rules

BACKENDS = {name: Backend(url="http://127.0.0.1:9999") for name in ("app", "slow")}
FULL = {"Host": ["Example.org:80"], "X-Urgent": ["yes"], "Foo": ["bar"], "Cookie": ["a=12"]}


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
        if found is None:
            found = exchange(b"/batch/1?x&y=z+z", dict(FULL), method=b"PUT")
            found.remote_ip = "192.0.2.9"
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
            ({"real_ip": "192.0.2.1"}, True),
            ({"real_ip": "192.0.2.9"}, False),
            ({"remote_ip": "192.0.2.9"}, True),
            ({"remote_ip": ["192.0.2.1", "not:192.0.2.9"]}, False),
            ({"cookie": {"a": "glob:1*"}}, True),
            ({"cookie": {"a": "1", "b": "2"}}, False),
            ({"query": {"x": "", "y": "z z"}}, True),
            ({"query": {"Y": "not:z z"}}, True),
            ({"query": {"y": "not:z z"}}, False),
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
        for criteria in ({"host": "glob:*"}, {"client": "glob:*"}, {"remote_ip": "glob:*"}):
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


#: Of each action, a value and what it does: of the request, then of the response.
ACTIONS: list[tuple[str, Any, Callable[[Exchange], object], object]] = [
    ("set_custom_value", {"a": "b"}, lambda found: found.values, {"a": "b", "old": "1"}),
    ("del_custom_value", "old", lambda found: found.values, {}),
    ("set_method", "POST", lambda found: found.method, b"POST"),
    ("set_path", "/new", lambda found: found.target, b"/new?old=1"),
    ("set_query_string", "new", lambda found: found.target, b"/?new"),
    ("set_query_string_arg", {"old": "2"}, lambda found: found.target, b"/?old=2"),
    ("add_query_string_arg", {"old": ["2", "3"]}, lambda found: found.target, b"/?old=1&old=2&old=3"),
    ("del_query_string_arg", ["old"], lambda found: found.target, b"/"),
    ("set_host", "new", lambda found: found.host, b"new"),
    ("set_remote_ip", "192.0.2.7", lambda found: (found.client, found.remote_ip), ("192.0.2.7", "192.0.2.7")),
    ("set_input_header", {"Old": "2"}, lambda found: found.header(b"old"), b"2"),
    ("add_input_header", {"Old": ["2"]}, lambda found: found.header(b"old"), b"1, 2"),
    ("del_input_header", "old", lambda found: found.header(b"old"), None),
    ("set_input_body", "new", lambda found: found.input_body(), b"new"),
    ("priority", 7, lambda found: found.priority, 7),
    ("set_input_priority", 7, lambda found: found.priority, 7),
    ("backend", "slow", lambda found: found.backend, "slow"),
    ("set_redis_queue", "queue", lambda found: found.backend, "slow"),
    ("set_status_code", 403, lambda found: found.status, 403),
    ("set_output_header", {"Old": "2"}, lambda found: found.response.headers["old"], "2"),
    ("add_output_header", {"Old": "2"}, lambda found: found.response.headers["old"], "1, 2"),
    ("del_output_header", "old", lambda found: "old" in found.response.headers, False),
    ("set_output_body", "new", lambda found: found.response.body, b"new"),
    ("set_output_default_body", "new", lambda found: found.response.default_body, b"new"),
]

CONFIG = {"backend": {"app": BACKENDS["app"], "slow": Backend(url="http://127.0.0.1:9999", queues=["queue"])}}


def old() -> Exchange:
    """An exchange in which there is something to change."""
    found = exchange(b"/?old=1", {"Old": ["1"]})
    found.set_custom_value("old", "1")
    return found


class Broken(Exception):
    """A mistake of the user's."""


def breaking(_: object) -> Any:
    """A function of the user's with a mistake."""
    raise Broken


class Service:
    """A service that says who may pass: what is said is decided by the test."""

    headers = own = frozenset((b"x-user",))

    def __init__(self, say: Callable[[Exchange], Deferred[None]]) -> None:
        self.check = say


class WayTests(SynchronousTestCase):
    """Exchanges on their way in and out, where functions take part."""

    def way(
        self,
        found: Exchange,
        *rule: Rule,
        services: dict[str, Any] | None = None,
        clock: Any = None,
        **config: Any,
    ) -> Deferred[None] | None:
        """Let the rules change an exchange and its response."""
        rules = Rules(Config(rule=list(rule), **CONFIG, **config), services, clock)  # type: ignore[arg-type]
        found.routes = rules.routes

        def out(_: object) -> Deferred[None] | None:
            head = ResponseHead(200, b"OK", Headers({"Old": ["1"]}), 0)
            found.received(head, lambda limit: succeed(b"theirs"))
            return rules.apply_output(found)

        waiting = rules.apply(found)
        return out(None) if waiting is None else waiting.addCallback(out)

    def done(self, found: Exchange, *rule: Rule, **settings: Any) -> Exchange:
        """The exchange after its way."""
        waiting = self.way(found, *rule, **settings)
        if waiting is not None:
            self.successResultOf(waiting)
        return found

    def failed(self, *rule: Rule, **settings: Any) -> RuleFailed:
        """How an exchange fails."""
        try:
            waiting = self.way(old(), *rule, **settings)
        except RuleFailed as error:
            return error
        assert waiting is not None
        return self.failureResultOf(waiting, RuleFailed).value  # type: ignore[no-any-return]

    def test_all_actions(self) -> None:
        """The table below knows every action, but for those with tests of their own."""
        others = {
            "auth",
            "custom_input",
            "custom_output",
            "set_redis_host",
            "set_redis_port",
            "set_redis_uds",
        }
        self.assertEqual({name for name, *_ in ACTIONS} | others, set(Then.__struct_fields__))

    def test_constants(self) -> None:
        """Each action does what it says, and nothing is waited for."""
        for name, value, look, expected in ACTIONS:
            found = old()
            self.assertIsNone(self.way(found, Rule(then=Then(**{name: value}))))
            self.assertEqual(look(found), expected, name)

    def test_functions(self) -> None:
        """Each does the same with what a function makes of the exchange, in whichever way that gives it."""
        for name, value, look, expected in ACTIONS:
            for kind in KINDS:
                function = kind(lambda exchange: value)  # noqa: B023
                found = self.done(old(), Rule(then=Then(**{name: function})))
                self.assertEqual(look(found), expected, (name, kind))

    def test_none(self) -> None:
        """A function that makes nothing of the exchange leaves it."""
        for name, _, look, _ in ACTIONS:
            for kind in KINDS:
                found = self.done(old(), Rule(then=Then(**{name: kind(lambda exchange: None)})))
                untouched = self.done(old(), Rule())
                self.assertEqual(look(found), look(untouched), (name, kind))

    def test_pairs(self) -> None:
        """A function may give a name and a value as a pair, or several as a list of pairs."""
        for name, value, look, expected in ACTIONS:
            if isinstance(value, dict):
                ((key, text),) = value.items()
                for pairs in ((key, text), [(key, text)], [("Other", "x"), (key, text)]):
                    found = self.done(old(), Rule(then=Then(**{name: lambda exchange: pairs})))  # type: ignore  # noqa: B023
                    if len(pairs) == 2 and isinstance(pairs, list):
                        getattr(found, name.replace("set_", "del_").replace("add_", "del_"))("Other")
                    self.assertEqual(look(found), expected, (name, pairs))

    def test_wrong_values(self) -> None:
        """A value that no message may have is one line in the log, with rule and action, and no traceback."""
        for name, wrong in [
            ("set_input_header", ("A", "b\nc")),
            ("set_method", "a b"),
            ("backend", "absent"),
            ("set_redis_queue", "absent"),
            ("priority", "high"),
            ("auth", "absent"),
            ("set_status_code", 99),
            ("set_output_header", ("Content-Length", "1")),
            ("set_output_body", 5),
        ]:
            for kind in KINDS:
                with capturedLogs() as events:
                    rule = Rule(name="mine", then=Then(**{name: kind(lambda exchange: wrong)}))  # type: ignore  # noqa: B023
                    error = self.failed(Rule(), rule)
                self.assertEqual(error.status, 500)
                self.assertNotIn(name, str(error))
                (event,) = events
                text = formatEvent(event)
                self.assertTrue(text.startswith(f"mine, {name}: "), text)
                self.assertNotIn("\n", text)
                self.assertNotIn("log_failure", event)

    def test_mistakes(self) -> None:
        """A function that fails is logged with its traceback, its rule and its action."""
        for name in ("custom_input", "custom_output", "set_path", "set_output_body", "when.custom"):
            for kind in KINDS:
                function = kind(breaking)
                custom = name == "when.custom"
                rule = Rule(when=When(custom=function)) if custom else Rule(then=Then(**{name: function}))
                with capturedLogs() as events:
                    self.failed(Rule(), rule)
                (event,) = events
                self.assertEqual(formatEvent(event), f"rule 2, {name}: the function failed")
                self.assertTrue(event["log_failure"].check(Broken))
                self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)

    def test_exit(self) -> None:
        """A function that would end the process ends no more than its exchange."""

        def leave(_: object) -> None:
            raise SystemExit(1)

        for kind in KINDS:
            self.failed(Rule(then=Then(custom_input=kind(leave))))
            self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_assigned(self) -> None:
        """What a function assigns is looked at there: the log names its rule, and for a wrong name the right one."""

        def assigning(what: str, name: str, value: object) -> Callable[[Exchange], None]:
            return lambda found: setattr(getattr(found, what) if what else found, name, value)

        for what, name, value, error, says in [
            ("", "backend", "nope", ValueError, ""),
            ("", "redis_queue", "nope", ValueError, ""),
            ("", "priority", "high", ValueError, ""),
            ("", "priorty", 5, AttributeError, '; did you mean "priority"?'),
            ("", "set_path", "/", AttributeError, ""),
            ("request", "heders", {}, AttributeError, '; did you mean "headers"?'),
            ("response", "status", 403, AttributeError, '; did you mean "status_code"?'),
            ("response", "xyz", 1, AttributeError, ""),
        ]:
            rule = Rule(name="mine", then=Then(custom_input=assigning(what, name, value)))  # type: ignore[arg-type]
            with capturedLogs() as events:
                self.failed(rule)
            self.assertEqual(
                [formatEvent(event) for event in events], [f"mine, custom_input: the function failed{says}"]
            )
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

        def own(found: Exchange) -> None:
            found.no_such_name = 1  # type: ignore[attr-defined]

        self.failed(Rule(then=Then(custom_input=own)))  # type: ignore[arg-type]
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_undecided(self) -> None:
        """What a criterion's function returns may be neither true nor false: then the function has failed."""

        class Undecided:
            def __bool__(self) -> bool:
                raise Broken

        with capturedLogs() as events:
            self.failed(Rule(when=When(custom=lambda _: Undecided())))
        self.assertEqual(
            [formatEvent(event) for event in events], ["rule 1, when.custom: the function failed"]
        )
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)

    def test_errors_for_clients(self) -> None:
        """A function may say itself what the client is told."""
        for kind in KINDS:

            def refuse(_: object) -> None:
                raise BadRequest("Not so.")

            waiting = self.way(old(), Rule(then=Then(custom_input=kind(refuse))))  # type: ignore[arg-type]
            assert waiting is not None
            self.assertEqual(str(self.failureResultOf(waiting, BadRequest).value), "Not so.")

    def test_custom(self) -> None:
        """Custom functions come before the other actions of their way, and see and change everything."""
        seen: list[object] = []

        def custom_input(found: Exchange) -> str:
            seen.append(found.request.path)
            found.set_custom_value("user", "alice")
            return "of no interest"

        async def custom_output(found: Exchange) -> None:
            seen.append((found.response.status_code, await found.response.read_body()))
            found.response.status_code = 404
            found.response.headers["X-User"] = found.get_custom_value("user")

        def header(found: Exchange) -> tuple[str, str]:
            return "X-User", found.get_custom_value("user")

        then = Then(
            set_path="/new",
            set_input_header=header,  # type: ignore[arg-type]
            custom_input=custom_input,  # type: ignore[arg-type]
            custom_output=custom_output,  # type: ignore[arg-type]
            del_output_header="x-user",
        )
        found = self.done(old(), Rule(then=then))
        self.assertEqual(seen, ["/", (200, b"theirs")])
        self.assertEqual((found.header(b"X-User"), found.target), (b"alice", b"/new?old=1"))
        self.assertEqual((found.response.status_code, "X-User" in found.response.headers), (404, False))

    def test_imported(self) -> None:
        """Custom functions and criteria are named in files."""
        name = f"python:{__name__}:breaking"
        for rule in (Rule(then=Then(custom_input=name)), Rule(when=When(custom=name))):
            self.failed(rule)
            self.flushLoggedErrors(Broken)
        for wrong, message in [
            ("text", "not a function; write"),
            ("python:absent:f", "cannot be imported"),
            (f"python:{__name__}:BACKENDS", "not a function; name one"),
        ]:
            config = Config(rule=[Rule(then=Then(custom_output=wrong))])
            self.assertIn(message, str(self.assertRaises(ValueError, Rules, config)))

    def test_criterion(self) -> None:
        """A function may say whether a rule applies; it is asked where the other criteria hold."""
        asked: list[bytes] = []
        for kind in KINDS:
            for says in (True, False, None, "yes"):

                def custom(found: Exchange) -> object:
                    asked.append(found.target)
                    return says  # noqa: B023

                rules = [
                    Rule(when=When(path="/other", custom=kind(custom)), then=Then(priority=1)),
                    Rule(when=When(path="/", custom=kind(custom)), then=Then(priority=2), stop=True),
                    Rule(then=Then(backend="slow")),
                ]
                found = self.done(old(), *rules)
                expected = (2, "app") if says else (50, "slow")
                self.assertEqual((found.priority, found.backend), expected)
        self.assertEqual(set(asked), {b"/?old=1"})

    def test_output_of_those_that_matched(self) -> None:
        """On the way out the rules are those that matched on the way in, up to the one that said stop."""
        rules = [
            Rule(when=When(path="/"), then=Then(set_path="/new", add_output_header={"X": "1"})),
            Rule(when=When(path="/"), then=Then(add_output_header={"X": "2"})),
            Rule(when=When(path="/new"), then=Then(add_output_header={"X": "3"}), stop=True),
            Rule(then=Then(add_output_header={"X": "4"})),
        ]
        self.assertEqual(self.done(old(), *rules).response.headers["X"], "1, 3")
        self.assertEqual(
            self.done(old(), *rules, Rule(then=Then(custom_input=lambda _: None))).response.headers["X"],
            "1, 3",
        )  # type: ignore[call-arg]

    def test_in_parallel(self) -> None:
        """The functions of one rule are called before any is waited for; those of the next see what they did."""
        first: Deferred[Any] = Deferred()
        second: Deferred[Any] = Deferred()
        found = old()
        waiting = self.way(
            found,
            Rule(then=Then(set_path=lambda _: first, set_method=lambda _: second)),
            Rule(then=Then(set_host=lambda exchange: exchange.get_path()[1:])),
        )
        assert waiting is not None
        second.callback("PUT")
        self.assertNoResult(waiting)
        self.assertEqual(found.method, b"GET")
        first.callback("/new")
        self.successResultOf(waiting)
        self.assertEqual((found.method, found.target, found.host), (b"PUT", b"/new?old=1", b"new"))

    def test_priority_of_a_header(self) -> None:
        """A priority can be what the request says, as far as that is a number."""
        for value, expected in [("5", 5), ("0", 1), ("1000", 99), ("high", 50), (None, 50)]:
            for name in ("priority", "set_input_priority"):
                found = exchange(headers={} if value is None else {"X-Priority": [value]})
                self.assertIsNone(self.way(found, Rule(then=Then(**{name: "header:X-Priority"}))))
                self.assertEqual(found.priority, expected, value)

    def test_priority_of_a_function(self) -> None:
        """So can it be what a function finds, by its name: a number, or a text that may be one."""
        for path, expected in [(b"/7", 7), (b"/x", 50), (b"/half", 1), (b"/none", 50)]:
            found = self.done(exchange(path), Rule(then=Then(priority=f"python:{__name__}:number")))
            self.assertEqual(found.priority, expected, path)

    def test_constants_are_checked(self) -> None:
        """A constant that cannot be used is found before any request comes."""
        for then, message in [
            (Then(set_path="new"), 'starts with "/"'),
            (Then(backend="absent"), "no backend"),
            (Then(auth="absent"), "no service"),
            (Then(set_output_header={"Connection": "close"}), "leave it out"),
            (Then(priority="header"), "lacks its name"),
            (Then(priority="high"), "unknown key"),
            (Then(set_method=""), "no request has such a method"),
        ]:
            config = Config(rule=[Rule(then=then)], **CONFIG)  # type: ignore[arg-type]
            (problem,) = self.assertRaises(ConfigError, validated, config).problems
            self.assertIn(message, problem)

    # Services that say who may pass

    def test_service(self) -> None:
        """A service is asked after the changes before it, and what it says can be used by what comes after it."""
        seen: list[object] = []

        def say(found: Exchange) -> Deferred[None]:
            seen.append((found.target, found.priority))
            found.headers.setRawHeaders(b"X-User", [b"9"])
            return succeed(None)

        def user(found: Exchange) -> str:
            return found.request.headers["X-User"]

        found = self.done(
            old(),
            Rule(then=Then(auth="who", set_path="/new", priority="header:X-User")),
            Rule(then=Then(auth=lambda _: "who", set_path="/newer", set_input_priority=user)),  # type: ignore[arg-type]
            services={"who": Service(say)},
            auth={"who": Auth(url="http://127.0.0.1:1/")},
        )
        self.assertEqual(seen, [(b"/new?old=1", 50), (b"/newer?old=1", 9)])
        self.assertEqual(found.priority, 9)

    def test_service_answers(self) -> None:
        """Where a service says what is answered no rule does anything any more, neither then nor on the way out."""

        def say(found: Exchange) -> Deferred[None]:
            found.answer = ResponseHead(401, b"No", Headers(), 0), b""
            return succeed(None)

        found = self.done(
            old(),
            Rule(then=Then(auth="who", priority=1, set_output_body="mine")),
            Rule(then=Then(priority=2, set_output_body="mine")),
            services={"who": Service(say)},
            auth={"who": Auth(url="http://127.0.0.1:1/")},
        )
        self.assertEqual((found.priority, found.response.body), (50, None))

    def test_service_fails(self) -> None:
        """What a service errbacks with is what the client is told; anything else is a mistake of ours."""
        checks: list[tuple[Callable[[Exchange], Deferred[None]], type[Exception]]] = [
            (lambda _: fail(AuthFailed("No answer.")), AuthFailed),
            (lambda _: fail(Broken()), RuleFailed),
            (breaking, RuleFailed),
        ]
        for check, expected in checks:
            waiting = self.way(
                old(),
                Rule(then=Then(auth="who")),
                services={"who": Service(check)},
                auth={"who": Auth(url="http://127.0.0.1:1/")},
            )
            assert waiting is not None
            self.failureResultOf(waiting, expected)
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 2)

    # Nobody waits for ever

    def test_too_long(self) -> None:
        """What takes longer than C{rule_timeout} is cancelled, also if it will not be, and named in the log."""
        for make in (Deferred, lambda: Deferred().addErrback(lambda _: Deferred())):
            for name in ("custom_input", "set_path", "custom_output", "when.custom"):
                clock = Clock()
                give: Callable[[object], Any] = lambda _: make()  # noqa: B023, E731
                then = Then() if name == "when.custom" else Then(**{name: give})
                when = When(custom=give) if name == "when.custom" else When()  # type: ignore[arg-type]
                waiting = self.way(old(), Rule(when=when, then=then), rule_timeout=2.0, clock=clock)
                assert waiting is not None
                clock.advance(1.9)
                self.assertNoResult(waiting)
                with capturedLogs() as events:
                    clock.advance(0.1)
                self.failureResultOf(waiting, RuleFailed)
                (event,) = events
                self.assertEqual(
                    formatEvent(event),
                    f"rule 1, {name}: not done in 2 s; make it faster, or raise rule_timeout",
                )
                self.assertEqual(clock.getDelayedCalls(), [])

    def test_together(self) -> None:
        """The functions of one way have the time together; a service has its own, and takes none of theirs."""
        clock = Clock()
        first: Deferred[None] = Deferred()
        asked: Deferred[None] = Deferred()
        waiting = self.way(
            old(),
            Rule(then=Then(custom_input=lambda _: first, auth="who")),  # type: ignore[arg-type]
            Rule(then=Then(set_path=lambda _: Deferred())),  # type: ignore[arg-type]
            services={"who": Service(lambda _: asked)},
            auth={"who": Auth(url="http://127.0.0.1:1/")},
            rule_timeout=2.0,
            clock=clock,
        )
        assert waiting is not None
        clock.advance(1.5)
        first.callback(None)
        clock.advance(100)
        self.assertNoResult(waiting)
        asked.callback(None)
        clock.advance(0.4)
        self.assertNoResult(waiting)
        with capturedLogs() as events:
            clock.advance(0.1)
        self.failureResultOf(waiting, RuleFailed)
        self.assertEqual([event["action"] for event in events], ["set_path"])

    def test_times_of_their_own(self) -> None:
        """A function that has a time of its own, and is late by that, has failed like any other."""
        clock = Clock()

        def give(_: object) -> Deferred[None]:
            late: Deferred[None] = Deferred()
            return late.addTimeout(1.0, clock)

        waiting = self.way(old(), Rule(then=Then(custom_input=give)), clock=clock)  # type: ignore[arg-type]
        assert waiting is not None
        clock.advance(1.0)
        self.failureResultOf(waiting, RuleFailed)
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)

    def test_in_time(self) -> None:
        """What is done in time leaves no timer behind."""
        clock = Clock()
        slow: Deferred[str] = Deferred()
        waiting = self.way(old(), Rule(then=Then(set_path=lambda _: slow)), clock=clock)  # type: ignore[arg-type]
        assert waiting is not None
        slow.callback("/new")
        self.successResultOf(waiting)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A client that leaves ends all waiting at once: nothing is logged, and no later rule is asked."""
        cancelled: list[str] = []
        asked: list[object] = []
        slow: Deferred[None] = Deferred(lambda _: cancelled.append("slow"))
        waiting = self.way(
            old(), Rule(then=Then(custom_input=lambda _: slow)), Rule(then=Then(custom_input=asked.append))
        )  # type: ignore[arg-type]
        assert waiting is not None
        with capturedLogs() as events:
            waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((cancelled, asked, events), (["slow"], [], []))


async def number(found: Exchange) -> str | float | None:
    """A user's function that finds a priority."""
    texts: dict[str, float | None] = {"half": 0.5, "none": None}
    text = found.get_path()[1:]
    return texts.get(text, text)


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
            self.assertEqual(fields((name, value)), [(name.encode(), [value.encode()])])

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
            self.assertIn(message, str(self.assertRaises(ValueError, fields, (name, value))))

    def test_reserved(self) -> None:
        """Whatever forwarding takes away cannot be set."""
        self.assertLessEqual(HOP_BY_HOP, {name.encode() for name in RESERVED_HEADERS})
