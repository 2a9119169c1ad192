"""A Redis that forgets: restarted, flushed, or replaced by a replica that lacks the last writes."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from twisted.internet.defer import ensureDeferred
from valkey import Valkey

from tests.integration.faults import CONFIG, HEARTBEAT, LINES, FaultCase, pause
from tests.integration.harness import LEASE, most_at_once, most_begun, until
from tests.integration.servers import ServerCase


class RestartTests(FaultCase):
    """The server is killed, and started again at once: empty."""

    lines = 5 * LINES

    async def test_local(self) -> None:
        """Nobody notices, though each process may have had one request too many until Redis was back."""
        server = await self.server()

        async def restart(pause_for: float = 0.0) -> None:
            nonlocal server
            await server.signal("KILL")
            await pause(pause_for)
            server = await self.server()

        async def time_and_again() -> None:
            # For as long as it takes until Redis counts as gone, or not quite.
            for seconds in (0.0, 0.1, 0.2, 0.3, 0.0):
                await restart(seconds)
                await until(lambda: self.waiting() >= 10)

        await self.check_unnoticed(*await self.cluster(3), time_and_again)


class ClosedTests(FaultCase):
    """The same where nobody is admitted without Redis."""

    outage = "closed"

    async def test_restarted(self) -> None:
        """Those who wait keep their places, and never is one too many in the backend."""
        server = await self.server()
        backend, proxies = await self.cluster(3)
        held = [self.ask(proxies[number % 3], f"/hold/{number}") for number in range(self.slots)]
        for number in range(self.slots):
            await backend.begun(f"{number}")
        crowd = ensureDeferred(self.crowd(60, "/work/waiting-{}?seconds=0.02", *proxies))
        await until(lambda: self.waiting() == 60)
        await server.signal("KILL")
        await self.let(backend, "0")
        await self.server()
        for number in range(1, self.slots):
            await until(lambda: self.admitted() == self.slots)
            await self.let(backend, f"{number}")
        self.assertEqual([(await client.answer).status for client in held], [200] * self.slots)
        self.assertEqual(await crowd, {"200": 60})
        self.assertEqual(most_at_once(backend.work()), self.slots)
        await self.idle()


class FlushTests(FaultCase):
    """C{FLUSHALL}, while all are connected, and nobody takes a Redis for gone that is only slow."""

    settings: ClassVar = {"lease": LEASE, "timeout": 0.8}

    async def test_flushed(self) -> None:
        """Nothing is admitted until all have announced: never is one too many in the backend, and nobody fails."""
        await self.server()
        backend, proxies = await self.cluster(3)

        async def flush() -> None:
            with Valkey.from_url(self.redis) as redis:
                for number in range(4):
                    await until(lambda: self.waiting() >= 10)
                    redis.flushall()
                    if number % 2:
                        redis.script_flush()
                    await pause(HEARTBEAT / 2)

        await self.check_unnoticed(backend, proxies, flush, self.slots)
        for proxy in proxies:
            self.assertEqual(proxy.said[1:], [])


class NoGraceTests(FaultCase):
    """When there is nobody to wait for. With this lease, grace would last for more than a minute."""

    slots = 1
    settings: ClassVar = {"lease": 300.0}

    async def test_first_start(self) -> None:
        """The first requests of the first processes do not wait, nor after a restart those of one that is alone."""
        server = await self.server()
        backend, [proxy] = await self.cluster(1)
        answer = await self.ask(proxy, "/work/first?seconds=0").answer
        self.assertEqual(answer.status, 200)
        clients = [self.ask(proxy, "/hold/working")]
        await backend.begun("working")
        clients.append(self.ask(proxy, "/work/waiting?seconds=0"))
        await until(lambda: self.waiting() == 1)
        await server.signal("KILL")
        await self.server()
        await until(lambda: self.waiting() == 1)
        await self.let(backend, "working")
        self.assertEqual([(await client.answer).status for client in clients], [200, 200])
        other = await self.proxy(CONFIG.format(url=backend.url, slots=1))
        self.assertEqual((await self.ask(other, "/work/other?seconds=0").answer).status, 200)
        self.assertEqual(backend.names(), ["first", "working", "waiting", "other"])
        self.assertEqual(most_at_once(backend.work()), 1)


class FailoverTests(FaultCase, ServerCase):
    """A sentinel makes a replica the master."""

    outage = "local"

    def database(self) -> Any:
        """See L{IntegrationCase}."""
        return self.main.client()

    async def test_last_writes(self) -> None:
        """It lacks what happened last: nobody notices that either."""
        self.main = master = await self.started()
        replica = await self.replica(master)
        sentinel = await self.sentinel(master)
        await sentinel.child.said(b"+slave ")
        self.redis = f"sentinel://127.0.0.1:{sentinel.port}/main"
        backend, proxies = await self.cluster(2)
        clients = self.looping(20, "/work/{}?seconds=0.05", *proxies)
        await until(lambda: self.waiting() >= 10)
        master.do("ACL", "SETUSER", "default", "-psync", "-sync")
        master.do("CLIENT", "KILL", "TYPE", "REPLICA")
        gate = f"{{{self.namespace}}}:gate"
        seen = int(replica.do("HGET", gate, "count"))
        await until(lambda: int(master.do("HGET", gate, "count")) > seen + 10)
        self.assertEqual(int(replica.do("HGET", gate, "count")), seen)
        await master.signal("KILL")
        await sentinel.child.said(b"+switch-master")
        self.main = replica
        for proxy in proxies:
            await proxy.child.said(b"Redis answers again")
        exact = time.monotonic() + HEARTBEAT
        await pause(3 * HEARTBEAT)
        answers, work = await clients.end(), backend.work()
        self.assertEqual(answers, {"200": len(work)})
        self.assertLessEqual(most_at_once(work), self.slots + len(proxies) - 1)
        self.assertEqual(most_begun(work, exact), self.slots)
        for proxy in proxies:
            self.assertLessEqual(len(proxy.said[1:]), LINES, proxy.said)
        await self.idle()
