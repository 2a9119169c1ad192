"""Redis is gone: killed, or frozen, where connections stay open. The outage policy decides meanwhile."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

from tests.integration.faults import HEARTBEAT, FaultCase, is_loss, pause
from tests.integration.harness import (
    LEASE,
    Backend,
    Client,
    Missed,
    Running,
    Work,
    most_at_once,
    most_begun,
    until,
)

#: Seconds past which Redis counts as gone.
TIMEOUT = 0.25

#: Seconds for all else.
MARGIN = 0.1

#: Seconds of a long outage: more than two leases.
LONG = 2.5


class Gone(FaultCase):
    """
    One proxy and one slot.

    @ivar status: of requests that need a slot while Redis is gone.
    """

    slots = 1
    status = 200

    async def check_prompt(self) -> tuple[Running, Backend, Running]:
        """The first request waits for C{timeout} at most, and the next ones not at all. Then Redis is back."""
        redis = await self.server()
        backend, [proxy] = await self.cluster(1)

        async def prompt(prefix: str) -> Missed | None:
            nonlocal redis
            redis.freeze()
            frozen = await self.waits(proxy, f"{prefix}frozen")
            redis.thaw()
            await self.back(proxy)
            await redis.signal("KILL")
            killed = await self.waits(proxy, f"{prefix}killed")
            redis = await self.server()
            await self.back(proxy)
            for first, later in (frozen, killed):
                if first > TIMEOUT + MARGIN or later > MARGIN:
                    return Missed(f"it took {first:.3f} s, and then {later:.3f} s")
            return None

        await self.measured(prompt)
        return redis, backend, proxy

    async def waits(self, proxy: Running, name: str) -> tuple[float, float]:
        """Seconds until a request is answered as it must be; and until the slowest is of those that come then."""
        waits = []
        for number in range(4):
            asked = time.monotonic()
            answer = await self.ask(proxy, f"/work/{name}-{number}?seconds=0").answer
            self.assertEqual(answer.status, self.status)
            self.assertEqual("Retry-After" in answer.headers, self.status == 503)
            waits.append(answer.at - asked)
        return waits[0], max(waits[1:])

    async def held(self, backend: Backend, proxy: Running) -> list[Client]:
        """One is in the backend, and one waits."""
        clients = [self.ask(proxy, "/hold/working")]
        await backend.begun("working")
        clients.append(self.ask(proxy, "/work/waiting?seconds=0"))
        await until(lambda: self.waiting() == 1)
        return clients


class LocalTests(Gone):
    """The policy C{local}."""

    async def test_prompt(self) -> None:
        """Whoever comes is admitted here, if there is room."""
        await self.check_prompt()


class ClosedTests(Gone):
    """The policy C{closed}."""

    outage = "closed"
    status = 503

    async def test_prompt(self) -> None:
        """Whoever comes is sent away; who has a place keeps it."""
        redis, backend, proxy = await self.check_prompt()
        clients = await self.held(backend, proxy)
        redis.freeze()
        await self.waits(proxy, "later")
        await self.let(backend, "working")
        redis.thaw()
        self.assertEqual([(await client.answer).status for client in clients], [200, 200])
        self.assertEqual(backend.names(), ["working", "waiting"])
        self.assertEqual(most_at_once(backend.work()), 1)
        await self.idle()


class OpenTests(Gone):
    """The policy C{open}."""

    outage = "open"

    async def test_prompt(self) -> None:
        """All are admitted; when Redis is back, those are counted, and nobody more is admitted until there is room."""
        redis, backend, proxy = await self.check_prompt()
        clients = await self.held(backend, proxy)
        await redis.signal("KILL")
        clients += [self.ask(proxy, f"/hold/open-{number}") for number in range(2)]
        for name in ("waiting", "open-0", "open-1"):
            await backend.begun(name)
        await self.server()
        await proxy.child.said(b"Over a limit: 2 of this process's requests")
        clients.append(self.ask(proxy, "/work/later?seconds=0"))
        await until(lambda: self.waiting() == 1)
        for name, admitted in (("open-1", 2), ("working", 1)):
            await self.let(backend, name)
            await until(lambda admitted=admitted: self.admitted() == admitted)
        self.assertEqual(backend.work("later"), [])
        await self.let(backend, "open-0")
        self.assertEqual([(await client.answer).status for client in clients], [200] * 5)
        await self.idle()


class BoundTests(FaultCase):
    """The queue, while Redis is gone."""

    slots = 1
    config = """
[backend.app]
url = "{url}"

[queue]
max_waiting = 3

[[limit]]
name = "user"
key = "header:User"
max_concurrent = {slots}
max_waiting = 2
"""

    async def test_full(self) -> None:
        """As many may wait as ever, in all and at one limit; one more gets 503."""
        redis = await self.server()
        backend, [proxy] = await self.cluster(1)
        await redis.signal("KILL")
        await proxy.child.said(b"Redis does not answer")
        clients = []
        for user in "ab":
            clients.append(self.ask(proxy, f"/hold/{user}", {"User": user}))
            await backend.begun(user)
        refused = []
        for user, number in (("a", 2), ("b", 1)):
            clients += [self.ask(proxy, f"/work/{user}-{n}?seconds=0", {"User": user}) for n in range(number)]
            answer = await self.ask(proxy, "/work/refused?seconds=0", {"User": user}).answer
            refused.append((answer.status, int(answer.headers["Retry-After"]) >= 1))
        self.assertEqual(refused, [(503, True)] * 2)
        for user in "ab":
            await self.let(backend, user)
        self.assertEqual([(await client.answer).status for client in clients], [200] * 5)


class LoadTests(FaultCase):
    """Two proxies under load, which nobody shall notice."""

    def begun(self, work: list[Work], since: float, before: float) -> int:
        """How many were in the backend together when one of those began that began in a time."""
        return most_begun([each for each in work if each.begin < before], since)

    async def check_long(
        self, away: Callable[[], Awaitable[None]], back: Callable[[], Awaitable[None]]
    ) -> None:
        """Redis is gone for longer than two leases, and the proxies go on."""
        backend, proxies = await self.cluster(2)

        async def long() -> Missed | None:
            gone = time.monotonic()
            await away()
            await pause(LONG)
            done = sum(gone + TIMEOUT + MARGIN < work.begin for work in backend.work())
            await back()
            used = done * 0.04 / self.slots
            return (
                None if used > LONG / 2 else Missed(f"meanwhile the slots were in use for {used:.1f} s only")
            )

        await self.check_unnoticed(backend, proxies, long)

    async def test_killed(self) -> None:
        """It is killed, and started again empty."""
        redis = await self.server()

        async def kill() -> None:
            await redis.signal("KILL")

        async def restart() -> None:
            nonlocal redis
            redis = await self.server()

        await self.check_long(kill, restart)

    async def test_frozen(self) -> None:
        """It is frozen, and goes on."""
        redis = await self.server()

        async def freeze() -> None:
            redis.freeze()

        async def thaw() -> None:
            redis.thaw()

        await self.check_long(freeze, thaw)

    async def test_shares(self) -> None:
        """Who had all the slots keeps them for a lease, then shrinks to its share; after another the others grow."""
        redis = await self.server()
        backend, [rich, poor] = await self.cluster(2)

        async def divided(prefix: str) -> Missed | None:
            nonlocal redis
            # Each process knows how many there are.
            await pause(2 * HEARTBEAT)
            told = [len(proxy.said) for proxy in (rich, poor)]
            clients = [self.looping(10, f"/work/{prefix}rich-{{}}?seconds=0.05", rich)]
            await until(lambda: self.admitted() == 4 and self.waiting() > 4)
            await redis.signal("KILL")
            clients.append(self.looping(10, f"/work/{prefix}poor-{{}}?seconds=0.05", poor))
            for proxy, before in zip((rich, poor), told, strict=True):
                await until(lambda proxy=proxy, before=before: any(map(is_loss, proxy.said[before:])))
            gone = time.monotonic()
            await pause(2 * LEASE + 3 * MARGIN)
            for client in clients:
                self.assertEqual(list(await client.end()), ["200"])
            redis = await self.server()
            for proxy in (rich, poor):
                await self.back(proxy)
            changes = [gone, gone + LEASE, gone + 2 * LEASE, gone + 3 * LEASE]
            shares = [
                [
                    self.begun(backend.work(prefix + name), since + MARGIN, before - MARGIN)
                    for name in ("rich", "poor")
                ]
                for since, before in pairwise(changes)
            ]
            self.assertLessEqual(most_at_once(backend.work(prefix)), self.slots + 1)
            return None if shares == [[4, 1], [2, 1], [2, 2]] else Missed(f"the shares were {shares}")

        await self.measured(divided)
