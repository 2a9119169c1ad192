"""Rates and quotas, over several proxy processes on one Redis."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from itertools import pairwise
from statistics import quantiles
from typing import Any

from twisted.internet.defer import gatherResults

from tests.integration.harness import LEASE, IntegrationCase, Missed, Running, Work, until

#: A rate for all, under which requests wait.
WAIT = """
[backend.app]
url = "{url}"

[[limit]]
name = "all"
rate = "{rate}"
burst = {burst}

[[rule]]
when = {{ header = {{ X-Urgent = "yes" }} }}
then = {{ priority = 1 }}
"""

#: A quota for each user, past which requests are rejected.
REJECT = """
[backend.app]
url = "{url}"

[[limit]]
name = "user"
key = "header:X-User"
rate = "2/hour"
burst = 2
over = "reject"
headers = true
"""

#: A quota for each user, past which requests yield to all others.
DEMOTE = """
[backend.app]
url = "{url}"

[[limit]]
name = "slots"
max_concurrent = 1

[[limit]]
name = "user"
key = "header:X-User"
rate = "1/hour"
over = "demote"
"""

REQUESTS = 1000
RATE = 100
BURST = 10

#: How many requests come in a second, so that somebody waits from the first moments on.
ARRIVALS = 4 * RATE

#: By how much a count of a second may be wrong.
TOLERANCE = 0.02


def unsteady(work: list[Work]) -> Missed | None:
    """What is wrong with when the application was asked: a burst at once, and then each second the rate, evenly."""
    times = [each.begin for each in work]
    # Time runs from the first of the burst on, whenever the last of it may have come.
    burst, after = times[BURST - 1] - times[0], [times[0], *times[BURST:]]
    if burst > (BURST - 1) / RATE:
        return Missed(f"the burst took {burst:.3f} s, as long as without one")
    span, ideal = after[-1] - after[0], (len(after) - 1) / RATE
    if abs(span - ideal) > TOLERANCE * ideal:
        # Others on the processors make it slower, not faster.
        times = span / ideal if span > ideal else math.inf
        return Missed(f"{len(after) - 1} requests took {span:.3f} s, not {ideal:g}", times)
    seconds = [later - earlier for earlier, later in pairwise(after[::RATE])]
    worst = max(seconds, key=lambda second: abs(second - 1))
    if abs(worst - 1) > TOLERANCE:
        return Missed(f"{RATE} requests took {worst:.3f} s, not 1", max(worst, 1 / worst))
    gaps = [later - earlier for earlier, later in pairwise(after)]
    # Were they let go in bunches, of two or more, half of the gaps at least would be next to nothing.
    short, middle, long = quantiles(gaps, n=4)
    if short < 0.5 / RATE or long > 1.5 / RATE or abs(middle - 1 / RATE) > 0.2 / RATE:
        said = ", ".join(f"{gap * 1000:.1f}" for gap in (short, middle, long))
        return Missed(f"the quartiles of the gaps are {said} ms, not {1000 / RATE:g}", math.inf)
    if max(gaps) > 5 / RATE:
        return Missed(f"nobody went for {max(gaps) * 1000:.0f} ms")
    # A pause that is an accident is made up for by the next few.
    together = [bisect_left(after, begin + 2 / RATE) - number for number, begin in enumerate(after)]
    if sum(number > 4 for number in together) > len(together) / 50:
        return Missed(f"up to {max(together)} came within {2000 / RATE:g} ms")
    return None


class RatesCase(IntegrationCase):
    """Requests over a rate."""

    timeout = 180

    async def proxies(self, count: int, config: str, **options: Any) -> list[Running]:
        return [await self.proxy(config, **options) for _ in range(count)]


class WaitTests(RatesCase):
    """Those that wait for it."""

    async def test_wait(self) -> None:
        """Of 1,000 requests through three processes, 10 go at once and then 100 in each second, evenly."""
        backend = await self.lean()
        config = WAIT.format(url=backend.url, rate=f"{RATE}/s", burst=BURST)
        proxies = await self.proxies(3, config, covered=False)

        async def regulated(prefix: str) -> Missed | None:
            target = f"/work/{prefix}{{}}?seconds=0"
            answers = await self.crowd(REQUESTS, target, *proxies, per_second=ARRIVALS)
            self.assertEqual(answers, {"200": REQUESTS})
            work = backend.work(prefix)
            self.assertEqual(len(work), REQUESTS)
            await self.idle()
            return unsteady(work)

        await self.measured(regulated, ceiling=1.2)

    async def test_waker_killed(self) -> None:
        """When the process is killed that wakes the others when it is time, another does so, a heartbeat later."""
        backend = await self.lean()
        interval, lease = 0.4, 8 * LEASE
        self.settings = {"lease": lease}
        config = WAIT.format(url=backend.url, rate="150/min", burst=1)
        killed, other = await self.proxies(2, config)
        asked = time.monotonic()
        await self.ask(killed, "/work/first?seconds=0").answer
        self.ask(killed, "/work/dies?seconds=0")
        await until(lambda: self.waiting() == 1)
        waker = self.waker()
        self.assertIsNotNone(waker)
        clients = [self.ask(other, f"/work/{number}?seconds=0", {"X-Urgent": "yes"}) for number in range(5)]
        await until(lambda: self.waiting() == 6)
        self.assertEqual(self.waker(), waker)
        await killed.signal("KILL")
        answers = await gatherResults([client.answer for client in clients])
        self.assertEqual([answer.status for answer in answers], [200] * 5)
        times = [work.begin for work in backend.work()]
        # Once, somebody waits for a heartbeat, a quarter of a lease; not each time, nor until the lease is over.
        self.assertLess(times[-1] - times[0], 5 * interval + 2 * lease / 4, times)
        for number, begin in enumerate(times):
            self.assertGreater(begin - asked, number * interval - 0.01, times)
        self.assertNotEqual(self.waker(), waker)

    def waker(self) -> bytes | None:
        """The process that wakes the others when it is time."""
        with self.database() as redis:
            return redis.hget(f"{{{self.namespace}}}:gate", "waker")  # type: ignore[no-any-return]


class QuotaTests(RatesCase):
    """Those that do not, or not as they like."""

    async def test_reject(self) -> None:
        """Past the quota a request gets 429 and is told when to come again; other users go on."""
        backend = await self.lean()
        proxies = await self.proxies(2, REJECT.format(url=backend.url))
        for number, (status, left) in enumerate([(200, 1), (200, 0), (429, 0), (429, 0)]):
            ann = await self.ask(
                proxies[number % 2], f"/work/ann-{number}?seconds=0", {"X-User": "ann"}
            ).answer
            self.assertEqual(ann.status, status)
            self.assertEqual(ann.headers["RateLimit-Policy"], '"user";q=2;w=3600')
            self.assertRegex(ann.headers["RateLimit"], rf'^"user";r={left};t=(\d+)$')
        self.assertIn("error=http_request_denied", ann.headers["Proxy-Status"])
        self.assertTrue(1790 < int(ann.headers["Retry-After"]) <= 1800, ann.headers["Retry-After"])
        bob = await self.ask(proxies[0], "/work/bob?seconds=0", {"X-User": "bob"}).answer
        self.assertEqual(bob.status, 200)
        self.assertEqual(backend.names(), ["ann-0", "ann-1", "bob"])

    async def test_demote(self) -> None:
        """Past the quota a request goes if nobody else wants its slot, and else after him, whoever came first."""
        backend = await self.lean()
        proxies = await self.proxies(2, DEMOTE.format(url=backend.url))
        clients = [self.ask(proxies[0], "/hold/ann-first", {"X-User": "ann"})]
        await backend.begun("ann-first")
        for waiting, (user, proxy) in enumerate((("ann", proxies[0]), ("bob", proxies[1]))):
            clients.append(self.ask(proxy, f"/work/{user}?seconds=0", {"X-User": user}))
            await until(lambda waiting=waiting: self.waiting() == waiting + 1)
        await self.let(backend, "ann-first")
        clients.append(self.ask(proxies[0], "/work/ann-alone?seconds=0", {"X-User": "ann"}))
        answers = await gatherResults([client.answer for client in clients])
        self.assertEqual([answer.status for answer in answers], [200] * 4)
        self.assertEqual(backend.names()[:3], ["ann-first", "bob", "ann"])

    async def test_restart(self) -> None:
        """A quota is remembered though no process of the proxy is left."""
        backend = await self.lean()
        config = REJECT.format(url=backend.url)
        statuses = []
        for number in range(3):
            proxy = await self.proxy(config)
            answer = await self.ask(proxy, f"/work/{number}?seconds=0", {"X-User": "ann"}).answer
            statuses.append(answer.status)
            await proxy.signal("TERM")
            self.assertEqual(self.admitted(), 0)
        self.assertEqual(statuses, [200, 200, 429])
