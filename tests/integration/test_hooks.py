"""Rules that ask a real PostgreSQL and a web service: examples/ask_services.py."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests import postgres
from tests.integration.harness import IntegrationCase, Missed, Running

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "ask_services.py"

#: What each service takes for an answer (seconds).
DELAY = 0.3

REQUESTS = 20
AT_ONCE = 10

#: For all requests (seconds); in the least they would take twice the delay.
MOST = 0.75

#: The database answers with one row, after the delay.
CUSTOMERS = f"""
create or replace view customers as
    select people.name, people.plan
    from pg_sleep({DELAY}), (values ('ann', 'gold'), ('bob', 'free')) as people (name, plan)
"""


class Credits(Resource):
    """A web service, which answers after the delay with the length of the user's name."""

    isLeaf = True

    def render(self, request: Any) -> int:
        [user] = request.args[b"user"]
        deferLater(reactor, DELAY, self.answer, request, b"%d" % len(user))
        return NOT_DONE_YET

    def answer(self, request: Any, credits: bytes) -> None:
        request.write(credits)
        request.finish()


class Application(Resource):
    """An application, which says what the services have said."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"%b %b" % (request.getHeader(b"x-plan") or b"-", request.getHeader(b"x-credits") or b"-")


class HooksTests(IntegrationCase):
    """Each of the three ways in which the example asks."""

    if postgres.installed() is None:
        skip = "there is no PostgreSQL"

    async def serve(self, resource: Resource) -> str:
        """The URL of a resource."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(resource))
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}/"

    async def example(self) -> Running:
        """A proxy with the example as its configuration."""
        postgres.execute(CUSTOMERS)
        services = {"DATABASE": postgres.url(), "CREDITS": await self.serve(Credits())}
        self.patch(os, "environ", {**os.environ, **services})
        return await self.twistd(
            *("--config", str(EXAMPLE), "--listen", "tcp:0:interface=127.0.0.1"),
            *("--backend", await self.serve(Application())),
            covered=False,  # the time is what is looked at
        )

    async def check(self, way: str) -> None:
        """Twenty requests, ten at a time, wait for both services, and not for each other."""
        proxy = await self.example()

        async def one_after_the_other(user: str, count: int) -> list[tuple[int, bytes]]:
            answers = []
            for _ in range(count):
                answer = await self.ask(proxy, f"/{way}/x", {"X-User": user}).answer
                answers.append((answer.status, answer.body))
            return answers

        async def all_of_them(_: str) -> Missed | None:
            began = time.monotonic()
            users = ("ann", "bob") * (AT_ONCE // 2)
            answers = await gatherResults(
                [Deferred.fromCoroutine(one_after_the_other(user, REQUESTS // AT_ONCE)) for user in users]
            )
            took = time.monotonic() - began
            for user, of_one in zip(users, answers, strict=True):
                expected = b"gold 3" if user == "ann" else b"free 3"
                self.assertEqual(of_one, [(200, expected)] * (REQUESTS // AT_ONCE))
            self.assertGreaterEqual(took, 2 * DELAY)
            return None if took < MOST else Missed(f"all took {took:.3f} s", took / MOST)

        # Its connections to the database are opened when they are needed: that is no matter of the rule's.
        await all_of_them("")
        # Questions that wait for each other, in a pool that is too small, take twice the ideal at least.
        await self.measured(all_of_them, ceiling=1.5)

    async def test_callbacks(self) -> None:
        """With callbacks."""
        await self.check("callbacks")

    async def test_inline_callbacks(self) -> None:
        """With inlineCallbacks."""
        await self.check("inline")

    async def test_coroutine(self) -> None:
        """With async def."""
        await self.check("coroutine")

    async def test_others(self) -> None:
        """Meanwhile a request that asks nobody is not held up, and a user whom the database lacks has no plan."""
        proxy = await self.example()
        asking = self.ask(proxy, "/callbacks/x", {"X-User": "eve"})
        other = await self.ask(proxy, "/other").answer
        self.assertFalse(asking.answer.called)
        self.assertEqual((other.status, other.body), (200, b"- -"))
        self.assertEqual((await asking.answer).body, b"none 3")
