"""Fairness between users, over two proxy processes on one Redis."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from tests.integration.harness import IntegrationCase, until

CONFIG = """
[backend.app]
url = "{url}"
max_concurrent = 1

[queue]
fair = "header:X-User"

[[rule]]
when = {{ header = {{ X-Urgent = "yes" }} }}
then = {{ priority = 1 }}
"""

MANY = 200


class FairTests(IntegrationCase):
    """Users take turns."""

    timeout = 120

    async def test_turns(self) -> None:
        """One user's 200 waiting requests do not stand before another's first one, on another process; nor do some."""
        backend = await self.lean()
        config = CONFIG.format(url=backend.url)
        one, other = await self.proxy(config), await self.proxy(config)
        clients = [self.ask(one, "/hold/working", {"X-User": "ann"})]
        await backend.begun("working")
        clients += [
            self.ask(one, f"/work/ann-{number}?seconds=0", {"X-User": "ann"}) for number in range(MANY)
        ]
        await until(lambda: self.waiting() == MANY)
        for number, user in enumerate(("bob", "bob", "eve")):
            clients.append(self.ask(other, f"/work/{user}-{number}?seconds=0", {"X-User": user}))
            await until(lambda number=number: self.waiting() == MANY + number + 1)
        clients.append(self.ask(other, "/work/urgent?seconds=0", {"X-User": "ann", "X-Urgent": "yes"}))
        await until(lambda: self.waiting() == MANY + 4)
        await self.let(backend, "working")
        answers = await gatherResults([client.answer for client in clients])
        self.assertEqual({answer.status for answer in answers}, {200})
        names = backend.names()
        self.assertEqual(len(names), MANY + 5)
        self.assertEqual(names[:2], ["working", "urgent"])
        # A first turn for each, then a second for who wants one; and who wants more comes to them at last.
        users = [name.partition("-")[0] for name in names[2:7]]
        self.assertEqual(sorted(users[:3]), ["ann", "bob", "eve"])
        self.assertEqual(sorted(users[3:]), ["ann", "bob"])
        self.assertEqual({name.partition("-")[0] for name in names[7:]}, {"ann"})
        await self.idle()
