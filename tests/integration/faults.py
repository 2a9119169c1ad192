"""What the tests of Redis's faults share: several proxies, and what must be true of the work that was done."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integration.harness import (
    LEASE,
    Backend,
    IntegrationCase,
    Running,
    Work,
    most_at_once,
    most_begun,
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


class FaultCase(IntegrationCase):
    """
    Several proxies before one backend, with a Redis of the test's own.

    @ivar slots: of the one limit.
    """

    timeout = 120
    slots = 4
    config = CONFIG

    async def cluster(self, count: int) -> tuple[Backend, list[Running]]:
        """A backend and the proxies before it."""
        backend = await self.lean()
        config = self.config.format(url=backend.url, slots=self.slots)
        proxies = [await self.proxy(config) for _ in range(count)]
        for proxy in proxies:
            await proxy.child.said(b"is connected")
        return backend, proxies

    def check(self, answers: dict[str, int], work: list[Work], most: int, exact_since: float) -> None:
        """
        No request failed; all were forwarded once.

        @param most: how many may have been in the backend together.
        @param exact_since: from when on none may be over the limit, and no slot remain unused.
        """
        self.assertEqual(answers, {"200": len(work)})
        self.assertLessEqual(most_at_once(work), most)
        self.assertEqual(most_begun(work, exact_since), self.slots)

    def check_log(self, proxies: list[Running]) -> None:
        """What happened is told in a handful of lines."""
        for proxy in proxies:
            self.assertLessEqual(len(proxy.said[1:]), LINES, proxy.said)
