"""THR's example: a slow application, ten requests at once, two of which may be in it at a time."""

from __future__ import annotations

import time

from twisted.internet.defer import gatherResults

from tests.integration.harness import Backend, IntegrationCase, Missed, most_at_once

CONFIG = """
[backend.app]
url = "{url}"

[[limit]]
name = "foo"
key = "header:Foo"
match = "bar"
max_concurrent = 2
"""


class ExampleCase(IntegrationCase):
    """The example."""

    async def ten(self, backend: Backend) -> None:
        """Ten requests at once, which share two slots, and then ten that do not."""
        proxy = await self.proxy(CONFIG.format(url=backend.url))
        for headers, ideal, most in (({"Foo": "bar"}, 5.0, 2), ({}, 1.0, 10)):

            async def took(
                prefix: str, headers: dict[str, str] = headers, ideal: float = ideal, most: int = most
            ) -> Missed | None:
                names = [f"{most}-{prefix}{number}" for number in range(10)]
                began = time.monotonic()
                clients = [self.ask(proxy, f"/work/{name}?seconds=1", headers) for name in names]
                answers = await gatherResults([client.answer for client in clients])
                seconds = max(answer.at for answer in answers) - began
                self.assertEqual([answer.status for answer in answers], [200] * 10)
                self.assertEqual(most_at_once(backend.work(f"{most}-{prefix}")), most)
                self.assertGreaterEqual(seconds, ideal)
                longest = ideal + 0.5
                if seconds < longest:
                    return None
                return Missed(f"{most} at a time took {seconds:.3f} s", seconds / longest)

            await self.measured(took, ceiling=1.5)


class ExampleTests(ExampleCase):
    """Before servers that people use."""

    async def test_waitress(self) -> None:
        """Before waitress, two at a time take 5 s for ten requests of 1 s, and ten at a time take 1 s."""
        await self.ten(await self.waitress(threads=12))

    async def test_gunicorn(self) -> None:
        """Before gunicorn, two at a time take 5 s for ten requests of 1 s, and ten at a time take 1 s."""
        await self.ten(await self.gunicorn(threads=12))
