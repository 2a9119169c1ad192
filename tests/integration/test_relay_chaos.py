"""A little of what L{tests.integration.chaos} does for as long as one likes."""

from __future__ import annotations

from tests.integration.chaos import Chaos


class ChaosTests(Chaos):
    """Faults at random, of which the same seed makes the same choice."""

    seconds = 4.0
    timeout = 180

    async def test_some(self) -> None:
        """Nothing is doubled, wrong, without an end, or left."""
        await self.run_all()
