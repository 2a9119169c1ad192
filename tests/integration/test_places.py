"""Where Redis may be."""

from __future__ import annotations

import shutil

from tests.integration.harness import Backend, IntegrationCase, Running, most_at_once, until, unused_port

CONFIG = """
[backend.app]
url = "{url}"

[[limit]]
name = "one"
key = "header:One"
max_concurrent = 1
"""

ONE = {"One": "a"}


class PlaceCase(IntegrationCase):
    """A proxy before an application, with a Redis of its own."""

    outage = "closed"

    async def proxied(self) -> tuple[Backend, Running]:
        """The proxy has Redis where C{self.redis} says."""
        backend = await self.lean()
        return backend, await self.proxy(CONFIG.format(url=backend.url))

    async def regulated(self, backend: Backend, proxy: Running) -> None:
        """Of two requests for one slot, one waits for the other."""
        first = self.ask(proxy, "/hold/first", ONE)
        await backend.begun("first")
        second = self.ask(proxy, "/work/second?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        await self.let(backend, "first")
        self.assertEqual([(await client.answer).status for client in (first, second)], [200, 200])
        self.assertEqual(most_at_once(backend.work()), 1)

    async def closed(self, proxy: Running, name: str) -> None:
        """Without Redis, requests under a limit are sent away, and all others pass."""
        answer = await self.ask(proxy, f"/work/{name}-limited?seconds=0", ONE).answer
        self.assertEqual((answer.status, answer.complete), (503, True))
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        self.assertIn("error=proxy_internal_error", answer.headers["Proxy-Status"])
        answer = await self.ask(proxy, f"/work/{name}-unlimited?seconds=0").answer
        self.assertEqual(answer.status, 200)


class PlaceTests(PlaceCase):
    """The kinds of URLs."""

    PASSWORD = "p@ss:w/rd?"
    ENCODED = "p%40ss%3Aw%2Frd%3F"

    async def secured(self, program: str = "") -> int:
        """A server on TCP that lets in one user, who may see what is the proxy's; its port."""
        port = unused_port()
        rights = (f"~{{{self.namespace}}}*", f"&{{{self.namespace}}}*", "+@all", "-@admin", "-@dangerous")
        await self.server(
            *("--bind", "127.0.0.1", "--port", str(port), "--user", "default", "off"),
            *("--user", "proxy", "on", f">{self.PASSWORD}", *rights),
            program=program,
        )
        return port

    async def test_user(self) -> None:
        """C{redis://} has a user, a password and a database, to which the proxy keeps; it tells nobody."""
        port = await self.secured()
        self.redis = f"redis://proxy:{self.ENCODED}@127.0.0.1:{port}/3"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy)
        self.assertNotEqual(self.keys(), [])
        self.redis = self.redis.replace("/3", "/0")
        self.assertEqual(self.keys(), [])
        said = proxy.child.output + proxy.child.errors
        self.assertNotIn(self.PASSWORD.encode(), said)
        self.assertNotIn(self.ENCODED.encode(), said)

    async def test_older_redis(self) -> None:
        """A Redis server of the system serves as well."""
        program = shutil.which("redis-server")
        if program is None:
            self.skipTest("there is no redis-server")
        port = await self.secured(program)
        self.redis = f"redis://proxy:{self.ENCODED}@127.0.0.1:{port}"
        await self.regulated(*await self.proxied())

    async def test_wrong_password(self) -> None:
        """A password that Redis refuses is no reason not to start: it is said, without the password."""
        port = await self.secured()
        self.redis = f"redis://proxy:mistaken@127.0.0.1:{port}"
        _, proxy = await self.proxied()
        await proxy.child.said(b"is not usable: the user or the password is wrong; correct redis.url")
        await self.closed(proxy, "refused")
        self.assertNotIn(b"mistaken", proxy.child.output)

    async def test_password_alone(self) -> None:
        """C{redis://} may have a password without a user."""
        port = unused_port()
        await self.server(
            *("--bind", "127.0.0.1", "--port", str(port), "--requirepass", self.PASSWORD),
        )
        self.redis = f"redis://:{self.ENCODED}@127.0.0.1:{port}"
        await self.regulated(*await self.proxied())

    async def test_unix(self) -> None:
        """C{unix://} may have a database."""
        await self.server()
        self.redis += "?db=2"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy)
        self.assertNotEqual(self.keys(), [])
        self.redis = self.redis.replace("db=2", "db=0")
        self.assertEqual(self.keys(), [])
