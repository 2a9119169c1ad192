"""What the user of a relay's halves has to be allowed in Redis."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.internet.defer import gatherResults

from tests.integration.relayed import Relayed
from tests.integration.servers import ONE, ServerCase
from tests.integration.test_places import documented_rights

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "redis.md"


def more_rights() -> list[str]:
    """What docs/redis.md adds for a relay."""
    [rights] = re.findall(r"^ACL SETUSER thr (\+.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    return str(rights).split()


class RightsTests(Relayed, ServerCase):
    """The rules in docs/redis.md."""

    async def test_rights(self) -> None:
        """They are enough for a front and a worker, be these served, killed, stopped or forgotten."""
        self.main = await self.started()
        rights = [right.replace("{thr}", f"{{{self.namespace}}}") for right in documented_rights()]
        self.main.do("ACL", "SETUSER", "thr", "on", ">pass", *rights, *more_rights())
        self.redis = f"redis://thr:pass@{self.main.place}/1"
        self.main.login["db"] = 1
        backend, front = await self.proxied()
        await self.regulated(backend, front, "a-")
        answers = await gatherResults(
            [self.ask(front, f"/bytes/b-{number}?size=1000000", ONE).answer for number in range(3)]
        )
        self.assertEqual([(answer.status, len(answer.body)) for answer in answers], [(200, 1_000_000)] * 3)
        # A front that dies with a request under way, and a worker that does.
        _, other = await self.proxied(backend)
        self.ask(other, "/hold/c-orphan")
        held = self.ask(front, "/hold/c-held")
        await backend.begun("c-orphan")
        await backend.begun("c-held")
        await other.signal("KILL")
        await self.workers[0].signal("KILL")
        await self.let(backend, "c-orphan")
        await self.let(backend, "c-held")
        self.assertIn((await held.answer).status, (200, 502))
        # A server that forgets its scripts, and then everything.
        self.main.do("SCRIPT", "FLUSH")
        self.assertEqual((await self.ask(front, "/work/d?seconds=0").answer).status, 200)
        self.main.do("FLUSHALL")
        self.assertEqual((await self.ask(front, "/work/e?seconds=0").answer).status, 200)
        self.assertEqual(self.main.do("ACL", "LOG"), [])
