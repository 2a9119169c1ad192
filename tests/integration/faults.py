"""What the tests of Redis's faults share: several proxies, and what must be true of the work that was done."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integration.harness import (
    LEASE,
    Backend,
    IntegrationCase,
    Missed,
    Running,
    most_at_once,
    most_begun,
    until,
)

CONFIG = """
[backend.app]
url = "{url}"

[[limit]]
name = "all"
max_concurrent = {slots}
"""

HEARTBEAT = LEASE / 4

#: Lines in the log of a process that has lost Redis once: that it is not usable, and why, if that changes; that it does
#: not answer, and what happens meanwhile; that it is connected, and answers again; how many are over a limit.
LINES = 7


async def pause(seconds: float) -> None:
    """Let things happen."""
    await deferLater(reactor, seconds)


def is_loss(line: str) -> bool:
    """Whether a line of the log says that Redis counts as gone."""
    return line.startswith("Redis does not answer")


class FaultCase(IntegrationCase):
    """
    Several proxies before one backend, with a Redis of the test's own.

    @ivar slots: of the one limit.
    @ivar lines: in the log of each process about a fault, at most.
    """

    timeout = 120
    slots = 4
    lines = LINES
    config = CONFIG

    async def cluster(self, count: int) -> tuple[Backend, list[Running]]:
        """A backend and the proxies before it."""
        backend = await self.lean()
        config = self.config.format(url=backend.url, slots=self.slots)
        proxies = [await self.proxy(config) for _ in range(count)]
        for proxy in proxies:
            await proxy.child.said(b"is connected")
        return backend, proxies

    async def back(self, proxy: Running) -> None:
        """Redis answers again, and for so long that it is told when it does so no more."""
        await until(lambda: proxy.said.count("Redis answers again") == sum(map(is_loss, proxy.said)))
        await pause(HEARTBEAT)

    async def check_unnoticed(
        self,
        backend: Backend,
        proxies: list[Running],
        fault: Callable[[], Awaitable[Missed | None]],
        most: int | None = None,
    ) -> None:
        """
        Clients that ask again and again notice nothing of a fault; and two heartbeats after it none is over the limit,
        and no slot is unused.

        @param fault: begins it and ends it; it may say what was not good meanwhile.
        @param most: how many may be in the backend together meanwhile; or the limit and one for each process but one.
        """

        async def unnoticed(prefix: str) -> Missed | None:
            told = [len(proxy.said) for proxy in proxies]
            clients = self.looping(24, f"/work/{prefix}{{}}?seconds=0.04", *proxies)
            await until(lambda: self.waiting() >= 10)
            problem = await fault()
            exact = time.monotonic() + 2 * HEARTBEAT
            await pause(4 * HEARTBEAT)
            answers, work = await clients.end(), backend.work(prefix)
            self.assertEqual(answers, {"200": len(work)})
            self.assertLessEqual(most_at_once(work), most or self.slots + len(proxies) - 1)
            for proxy, before in zip(proxies, told, strict=True):
                self.assertLessEqual(len(proxy.said[before:]), self.lines, proxy.said)
            begun = most_begun(work, exact)
            if begun != self.slots:
                return Missed(f"after two heartbeats there were {begun} together")
            return problem

        await self.measured(unnoticed)
        await self.idle()
