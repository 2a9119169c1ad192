"""What is wrong with a service in a configuration."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.check import check
from thrtwisted.config import Auth, Backend, Config, Rule, Then, When


def configured(**fields: Any) -> Config:
    """A configuration with one service."""
    auth = Auth(**{"url": "http://127.0.0.1:7000/auth", **fields})
    return Config(
        backend={"app": Backend(url="http://127.0.0.1:9999")},
        auth={"main": auth},
        rule=[Rule(then=Then(auth="main"))],
    )


class CheckTests(SynchronousTestCase):
    """What makes no sense is said with its place and its mend."""

    def test_good(self) -> None:
        """A service with everything that it may have is one."""
        everything = {
            "send_headers": ["Cookie"],
            "copy_headers": ["X-User"],
            "max_concurrent": 1,
            "max_waiting": 0,
            "cache": 30.0,
            "cache_by": ["method", "path", "header:X-Key"],
        }
        self.assertEqual(check(configured(**everything)), [])

    def test_not_asked(self) -> None:
        """A service that no rule asks guards nothing; where a function says which is asked, any may be."""
        config = configured()
        for rules, expected in (
            ([], ["main"]),
            ([Rule(then=Then(priority=1))], ["main"]),
            ([Rule(stop=True), *config.rule], ["main"]),
            ([Rule(when=When(path="/health"), stop=True), *config.rule], []),
            ([Rule(then=Then(auth=str))], []),
            ([Rule(then=Then(auth="mian"))], None),
        ):
            problems = check(msgspec.structs.replace(config, rule=rules))
            if expected is None:
                self.assertEqual([problem.partition(":")[0] for problem in problems], ["rule 1, then.auth"])
                continue
            self.assertEqual(
                problems,
                [
                    f"auth.{name}: no rule that is reached asks it, so that everybody passes; "
                    f'let one have auth = "{name}", or leave this out'
                    for name in expected
                ],
            )

    def test_not_asked_by_mistake(self) -> None:
        """A rule with a mistake may be the one that was to ask it: only the mistake is said."""
        wrong: Any = ["main"]
        for rule, place in (
            (Rule(then=Then(auth=wrong)), "rule 1, then.auth: must be"),
            ({"then": {"outh": "main"}}, 'rule 1, then: unknown name "outh"'),
        ):
            (problem,) = check(msgspec.structs.replace(configured(), rule=[rule]))
            self.assertTrue(problem.startswith(place), problem)

    def test_mistakes(self) -> None:
        """Each mistake is a line."""
        for fields, place, mend in (
            ({"url": "somewhere"}, "auth.main.url: not the URL of a service", "/PATH"),
            ({"url": "http://h/a b"}, "auth.main.url: ", "percent-encoded"),
            ({"ca": "x"}, "auth.main.ca: the url of this service has no TLS", "https://"),
            (
                {"url": "https://h", "ca": "/nonexistent/ca.pem"},
                "auth.main.ca: the file cannot be read (No such file or directory)",
                "correct its name",
            ),
            ({"send_headers": ["Cookie", "Host"]}, "auth.main.send_headers", "leave it out"),
            ({"copy_headers": ["Content-Length"]}, "auth.main.copy_headers", "leave it out"),
            ({"copy_headers": ["X_User"]}, "auth.main.copy_headers", 'write "X-User"'),
            ({"cache": 1.0, "cache_by": ["paths"]}, "auth.main.cache_by", 'did you mean "path"?'),
            (
                {"cache": 1.0, "send_headers": []},
                "auth.main.cache: one answer would hold for all",
                "cache_by",
            ),
            ({"max_waiting": 1}, "auth.main.max_waiting: it says nothing without max_concurrent", "add"),
            ({"cache_by": ["path"]}, "auth.main.cache_by: it says nothing without cache", "add cache"),
            ({"cache_by": ["path"], "cache": "x"}, "auth.main.cache: must be a number", "not the text"),
            ({"send_headers": "Cookie", "cache": 1.0}, "auth.main.send_headers: must be a list", "not the"),
            ({"max_waiting": 1, "max_concurrent": "x"}, "auth.main.max_concurrent: must be a whole", "not"),
        ):
            problems = check(configured(**fields))
            self.assertEqual(len(problems), 1, problems)
            self.assertTrue(problems[0].startswith(place), problems)
            self.assertIn(mend, problems[0])
