"""Redis with replicas under Sentinel: the master is found, and found again after a failover."""

from __future__ import annotations

from tests.integration.harness import most_at_once, until, unused_port
from tests.integration.servers import ONE, Server, ServerCase


class SentinelCase(ServerCase):
    """A master with a replica."""

    async def known(self, sentinel: Server, replicas: int = 1) -> None:
        """A sentinel has found the replicas, and sees them well: there can be a failover."""

        def seen() -> bool:
            found = sentinel.do("SENTINEL", "REPLICAS", "main")
            return [dict(zip(each[::2], each[1::2], strict=True))[b"flags"] for each in found] == (
                [b"slave"] * replicas
            )

        await until(seen)


class SentinelTests(SentinelCase):
    """C{sentinel://}"""

    async def test_failover(self) -> None:
        """The master dies, and its replica takes over: nobody's request fails, and the limit holds."""
        master = await self.started()
        replica = await self.replica(master)
        sentinel = await self.sentinel(master)
        await self.known(sentinel)
        self.main = master
        self.redis = f"sentinel://127.0.0.1:{unused_port()},{sentinel.place}/main"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy, "before-")
        clients = [self.ask(proxy, "/hold/a", ONE)]
        await backend.begun("a")
        clients.append(self.ask(proxy, "/work/b?seconds=0", ONE))
        await until(lambda: self.waiting() == 1)
        await master.signal("KILL")
        await proxy.child.said(f"Redis at {replica.place} (the master of {self.redis}) is connected".encode())
        self.main = replica
        await until(lambda: self.waiting() == 1)
        self.assertEqual(self.admitted(), 1)
        clients.append(self.ask(proxy, "/work/c?seconds=0", ONE))
        await until(lambda: self.waiting() == 2)
        await self.let(backend, "a")
        self.assertEqual([(await client.answer).status for client in clients], [200] * 3)
        work = [each for each in backend.work() if "-" not in each.name]
        self.assertEqual([each.name for each in work], ["a", "b", "c"])
        self.assertEqual(most_at_once(work), 1)

    async def test_switch(self) -> None:
        """The master becomes a replica while it lives, as an operator may order: its successor is found."""
        master = await self.started()
        replica = await self.replica(master)
        sentinel = await self.sentinel(master)
        await self.known(sentinel)
        self.main, self.redis = master, f"sentinel://{sentinel.place}/main"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy, "before-")
        sentinel.do("SENTINEL", "FAILOVER", "main")
        await proxy.child.said(f"Redis at {replica.place} (the master of {self.redis}) is connected".encode())
        self.main = replica
        await self.regulated(backend, proxy, "after-")

    async def test_secured(self) -> None:
        """Sentinels and servers have passwords of their own, and speak nothing but TLS."""
        authority = self.authority()
        names = ("127.0.0.1",)
        self.main = await self.secured(authority, "--requirepass", "s3cret", names=names)
        self.main.login |= {"password": "s3cret", "db": 1}
        port = unused_port()
        sentinel = await self.sentinel(
            self.main,
            *(f"{name} {value}" for name, value in self.tls_settings(authority, port, names).items()),
            *("requirepass watch", "sentinel auth-pass main s3cret"),
            port=port,
        )
        url = f"sentinel://:{{}}@{sentinel.place}/main?db=1&tls=true&sentinel_password={{}}&sentinel_tls=true"
        self.redis = url.format("s3cret", "mistaken")
        backend, proxy = await self.proxied()
        await proxy.child.said(b"the user or the password is wrong")
        self.redis = url.format("s3cret", "watch")
        backend, proxy = await self.proxied(backend)
        await self.regulated(backend, proxy)
        said = proxy.child.output + proxy.child.errors
        self.assertNotIn(b"s3cret", said)
        self.assertIn(f"(the master of {url.format('***', '***')}) is connected".encode(), said)

    async def test_unknown_service(self) -> None:
        """A service that no sentinel knows, until one does."""
        self.main = await self.started()
        sentinel = await self.sentinel(self.main)
        self.redis = f"sentinel://{sentinel.place},{self.main.place}/other"
        backend, proxy = await self.proxied()
        await proxy.child.said(
            f"Redis at {self.redis} is not usable: no sentinel says which server is the master (".encode()
        )
        line = self.lines(proxy)[0]
        self.assertIn(f"{sentinel.place}: it knows no service other", line)
        self.assertIn(f"{self.main.place}: it is no Sentinel", line)
        await self.closed(proxy, "meanwhile")
        sentinel.do("SENTINEL", "MONITOR", "other", "127.0.0.1", self.main.port, 1)
        await proxy.child.said(
            f"Redis at {self.main.place} (the master of {self.redis}) is connected".encode()
        )
        await self.regulated(backend, proxy)
        self.assertEqual(len(self.lines(proxy)), 2)
