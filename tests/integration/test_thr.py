"""Configurations of this proxy's ancestor, THR, before a server that people use."""

from __future__ import annotations

import os
import time
from pathlib import Path

from twisted.internet.defer import gatherResults

from tests.integration.harness import (
    LEASE,
    Answer,
    Backend,
    Client,
    IntegrationCase,
    Missed,
    Running,
    most_at_once,
)

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

#: A second file, as THR had two: what is this test's own.
SETTINGS = """
configure(
    listen="tcp:0:interface=127.0.0.1",
    shutdown_timeout=5.0,
    redis={{"url": "{redis}", "namespace": "{namespace}", "lease": {lease}}},
)
"""


class ThrTests(IntegrationCase):
    """Its examples, from files in Python."""

    async def serve(self, example: str) -> tuple[Running, Backend]:
        """A proxy with one of the examples, before gunicorn."""
        backend = await self.gunicorn(threads=12)
        path = os.path.abspath(f"{self.mktemp()}.py")
        settings = SETTINGS.format(redis=self.redis, namespace=self.namespace, lease=LEASE)
        with open(path, "w") as file:
            file.write(settings)
        proxy = await self.twistd(
            *("--config", str(EXAMPLES / example), "--config", path, "--backend", backend.url)
        )
        return proxy, backend

    def at_once(self, proxy: Running, name: str, count: int, headers: dict[str, str]) -> list[Client]:
        """Requests of a second each, sent at once."""
        return [self.ask(proxy, f"/work/{name}-{number}?seconds=1", headers) for number in range(count)]

    async def took(self, clients: list[Client], began: float) -> float:
        """How long it took until all were answered, as they should be."""
        answers: list[Answer] = await gatherResults([client.answer for client in clients])
        self.assertEqual([answer.status for answer in answers], [200] * len(clients))
        return max(answer.at for answer in answers) - began

    def late(self, seconds: float, ideal: float) -> list[Missed]:
        """What was to take so long took no less; unless it took half a second more at most, that is told."""
        self.assertGreaterEqual(seconds, ideal)
        longest = ideal + 0.5
        return [] if seconds < longest else [Missed(f"{ideal:g} s took {seconds:.3f} s", seconds / longest)]

    async def test_hello(self) -> None:
        """A rule routes to a queue, and the application behind that answers."""
        proxy, backend = await self.serve("thr_hello.py")
        answer = await self.ask(proxy, "/work/hello?seconds=0").answer
        self.assertEqual(answer.status, 200)
        self.assertEqual(backend.names(), ["hello"])

    async def test_limits(self) -> None:
        """Ten requests of 1 s with the header take 5 s, two at a time; meanwhile ten others take 1 s."""
        proxy, backend = await self.serve("thr_limits.py")

        async def ten(prefix: str) -> Missed | None:
            began = time.monotonic()
            limited = self.at_once(proxy, f"{prefix}limited", 10, {"Foo": "bar"})
            others = self.at_once(proxy, f"{prefix}other", 10, {"Foo": "other"})
            late = self.late(await self.took(others, began), 1.0)
            late += self.late(await self.took(limited, began), 5.0)
            self.assertEqual(most_at_once(backend.work(f"{prefix}limited")), 2)
            self.assertEqual(most_at_once(backend.work(f"{prefix}other")), 10)
            await self.idle()
            return late[0] if late else None

        await self.measured(ten, ceiling=1.5)

    async def test_limits_per_value(self) -> None:
        """Each value has its own two slots: four requests of each take 2 s; those without a value take 1 s."""
        proxy, backend = await self.serve("thr_limits_per_value.py")

        async def four(prefix: str) -> Missed | None:
            began = time.monotonic()
            clients = {
                name: self.at_once(proxy, f"{prefix}{name}", 4, {"Foo": name}) for name in ("one", "two")
            }
            free = self.at_once(proxy, f"{prefix}free", 4, {})
            late = self.late(await self.took(free, began), 1.0)
            for name, those in clients.items():
                late += self.late(await self.took(those, began), 2.0)
                self.assertEqual(most_at_once(backend.work(f"{prefix}{name}")), 2)
            await self.idle()
            return late[0] if late else None

        await self.measured(four, ceiling=1.5)
