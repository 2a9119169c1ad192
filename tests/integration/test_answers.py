"""The answers that a proxy gives by itself, and what it makes of a response that was cut."""

from __future__ import annotations

import json
import time

from twisted.internet.defer import gatherResults

from tests.integration.harness import Answer, Backend, Client, IntegrationCase, Running, until, unused_port

CONFIG = """
[queue]
max_waiting = {max_waiting}
timeout = {timeout}

[backend.app]
url = "{url}"

[backend.hurried]
url = "{url}"
response_timeout = 0.3

[backend.nobody]
url = "http://127.0.0.1:{nobody}"

[backend.nowhere]
url = "unix:///nonexistent/socket"

[[limit]]
name = "one"
key = "header:One"
max_concurrent = 1

[[rule]]
when = {{ header = {{ Backend = "hurried" }} }}
then = {{ backend = "hurried" }}

[[rule]]
when = {{ header = {{ Backend = "nobody" }} }}
then = {{ backend = "nobody" }}

[[rule]]
when = {{ header = {{ Backend = "nowhere" }} }}
then = {{ backend = "nowhere" }}
"""

ONE = {"One": "a"}
JSON = {"Accept": "application/json, text/plain;q=0.5"}


class AnswerTests(IntegrationCase):
    """What clients get when they cannot get the application's answer."""

    async def proxied(self, *, max_waiting: int = 1000, timeout: float = 300.0) -> tuple[Backend, Running]:
        """A backend, and a proxy with more of them that do not work."""
        backend = await self.lean()
        config = CONFIG.format(
            url=backend.url, nobody=unused_port(), max_waiting=max_waiting, timeout=timeout
        )
        return backend, await self.proxy(config)

    def refused(self, answer: Answer, status: int, error: str, retry_after: int | None = None) -> None:
        """It is the proxy's own answer, and says why."""
        self.assertEqual((answer.status, answer.complete), (status, True))
        self.assertRegex(answer.headers["Proxy-Status"], rf'^thrtwisted; error={error}; details="[^"]+"$')
        if retry_after is None:
            self.assertNotIn("Retry-After", answer.headers)
        else:
            self.assertGreaterEqual(int(answer.headers["Retry-After"]), retry_after)
        if answer.headers["Content-Type"] == "application/json":
            said = json.loads(answer.body)
            self.assertEqual((said["status"], said["error"]), (status, error))
            self.assertTrue(said["message"])
        else:
            self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")
            self.assertRegex(answer.body.decode(), r"^[A-Z][^\n]+\.\n$")

    async def test_queue_full(self) -> None:
        """One more than may wait gets 503 at once, in text or in JSON as it prefers; those who wait stay."""
        backend, proxy = await self.proxied(max_waiting=2)
        clients = [self.ask(proxy, "/hold/working", ONE)]
        await backend.begun("working")
        clients += [self.ask(proxy, f"/work/waiting-{number}?seconds=0", ONE) for number in range(2)]
        await until(lambda: self.waiting() == 2)
        for accept, content_type in (({}, "text/plain; charset=utf-8"), (JSON, "application/json")):
            answer = await self.ask(proxy, "/work/refused?seconds=0", {**ONE, **accept}).answer
            self.refused(answer, 503, "connection_limit_reached", retry_after=1)
            self.assertEqual(answer.headers["Content-Type"], content_type)
        await self.let(backend, "working")
        self.assertEqual([(await client.answer).status for client in clients], [200] * 3)
        self.assertNotIn("refused", backend.names())

    async def test_honest_estimate(self) -> None:
        """Retry-After is about as long as it takes until those who wait at that time have been let in."""
        backend, proxy = await self.proxied(max_waiting=40)

        def crowd(prefix: str) -> list[Client]:
            return [self.ask(proxy, f"/work/{prefix}{number}?seconds=0.05", ONE) for number in range(60)]

        crowd("first-")
        await backend.ended("first-20")
        asked = time.monotonic()
        answers = await gatherResults([client.answer for client in crowd("more-")])
        refused = [answer for answer in answers if answer.status == 503]
        self.refused(refused[0], 503, "connection_limit_reached", retry_after=1)
        # It was said at some moment between these two.
        estimate, last = int(refused[0].headers["Retry-After"]), backend.work()[-1].begin
        self.assertGreater(last - asked, 40 * 0.05 * 0.9)
        self.assertGreaterEqual(estimate, (last - refused[0].at) / 2)
        self.assertLess(estimate, 2 * (last - asked) + 1)

    async def test_queue_timeout(self) -> None:
        """Whoever has waited as long as may be gets 503, and is not forwarded any more."""
        backend, proxy = await self.proxied(timeout=1.0)
        working = self.ask(proxy, "/hold/working", ONE)
        await backend.begun("working")
        answer = await self.ask(proxy, "/work/late?seconds=0", ONE).answer
        self.refused(answer, 503, "connection_limit_reached", retry_after=1)
        await until(lambda: not self.waiting())
        await self.let(backend, "working")
        self.assertEqual((await working.answer).status, 200)
        answer = await self.ask(proxy, "/work/next?seconds=0", ONE).answer
        self.assertEqual(answer.status, 200)
        self.assertEqual(backend.names(), ["working", "next"])

    async def test_backend_refused(self) -> None:
        """Where no backend listens the answer is 502, and the slot is free again."""
        _, proxy = await self.proxied()
        for accept in ({}, JSON):
            answer = await self.ask(proxy, "/", {"Backend": "nobody", **ONE, **accept}).answer
            self.refused(answer, 502, "connection_refused")
        answer = await self.ask(proxy, "/", {"Backend": "nowhere", **ONE}).answer
        self.refused(answer, 502, "destination_unavailable")
        await until(lambda: not self.admitted())

    async def test_response_timeout(self) -> None:
        """Who waits too long for the application gets 504; the slot stays taken until the application is done."""
        backend, proxy = await self.proxied()
        answer = await self.ask(proxy, "/hold/slow", {"Backend": "hurried", **ONE}).answer
        self.refused(answer, 504, "http_response_timeout")
        following = self.ask(proxy, "/work/following?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        answer = await self.ask(proxy, "/work/other?seconds=0", {"One": "b"}).answer
        self.assertEqual(answer.status, 200)
        self.assertEqual(backend.names(), ["slow", "other"])
        await self.let(backend, "slow")
        self.assertEqual((await following.answer).status, 200)
        slow, _, follower = backend.work()
        self.assertLess(slow.end, follower.begin)

    async def test_cut(self) -> None:
        """A response that the backend cuts is cut for the client too, whether or not its length was announced."""
        backend, proxy = await self.proxied()
        for name, size in (("announced", 1000), ("chunked", 0)):
            answer = await self.ask(proxy, f"/cut/{name}?size={size}", ONE).answer
            self.assertFalse(answer.complete)
            self.assertIn(answer.status, (0, 200))
        await until(lambda: not self.admitted())
        self.assertEqual(backend.names(), ["announced", "chunked"])
