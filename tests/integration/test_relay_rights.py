"""What the user of a relay's halves has to be allowed in Redis."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.internet.defer import gatherResults

from tests.integration.relayed import Relayed, relay_table
from tests.integration.servers import ONE, ServerCase
from tests.integration.test_places import documented_rights

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "redis.md"


def more_rights() -> list[str]:
    """What docs/redis.md adds for a relay."""
    [rights] = re.findall(r"^ACL SETUSER thr (\+.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    return str(rights).split()


class RightsTests(Relayed, ServerCase):
    """The rules in docs/redis.md."""

    def user(self, name: str, *but: str) -> str:
        """A user with all rights but these; the URL for it."""
        rights = [right.replace("{thr}", f"{{{self.namespace}}}") for right in documented_rights()]
        self.main.do("ACL", "SETUSER", name, "on", ">pass", *rights, *more_rights(), *but)
        return f"redis://{name}:pass@{self.main.place}/1"

    async def test_deaf(self) -> None:
        """
        A front or a worker that may do all that the gate needs, but not read its inbox or write to others, is in
        nobody's way: the one refuses its requests, the other gets none.
        """
        self.main = await self.started()
        self.redis = self.user("thr")
        self.main.login["db"] = 1
        backend, front = await self.proxied()
        file = f'[backend.app]\nurl = "{backend.url}"\n'
        for but in ("-xread", "-xadd"):
            self.redis = self.user(f"deaf{but}", but)
            path = self.written(f"{file}{self.redis_table()}{relay_table('worker', concurrency=50)}")
            worker = self.spawned("--config", path)
            await worker.child.said(b"is not usable for the relay: its user may not run the command X")
            self.workers.append(worker)
        asked = [self.ask(front, f"/work/a-{number}?seconds=0.05") for number in range(20)]
        self.assertEqual([(await each.answer).status for each in asked], [200] * 20)
        self.redis = self.user("deaf", "-xread")
        listen = 'listen = "tcp:0:interface=127.0.0.1"\n'
        deaf = await self.start_front(f"{listen}{file}{self.redis_table()}")
        refused = [self.ask(deaf, f"/work/b-{number}?seconds=0") for number in range(50)]
        asked = [self.ask(front, f"/work/c-{number}?seconds=0") for number in range(5)]
        self.assertEqual([(await each.answer).status for each in asked], [200] * 5)
        self.assertEqual({(await each.answer).status for each in refused}, {503})
        self.assertEqual([name for name in backend.names() if name.startswith("b-")], [])

    async def test_rights(self) -> None:
        """They are enough for a front and a worker, be these served, killed, stopped or forgotten."""
        self.main = await self.started()
        self.redis = self.user("thr")
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
