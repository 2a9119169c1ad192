"""Redis Cluster: the node that has the namespace is found, and found again, whatever becomes of nodes and slots."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from valkey.exceptions import ResponseError

from tests.integration.harness import Backend, Client, Running, most_at_once, until
from tests.integration.servers import ONE, Server, ServerCase, system_redis
from thrtwisted.redis.cluster import slot_of


class ClusterCase(ServerCase):
    """A cluster of three masters."""

    nodes: list[Server]

    async def formed(self, start: Callable[..., Awaitable[Server]] | None = None) -> None:
        """Make the cluster; C{main} is the node that has the namespace."""
        self.nodes = await self.cluster(3, start or self.started)
        self.main = self.has_slot(self.nodes)

    def given(self) -> bool:
        """Give the slot to the main node. What it had forgotten another one may have told it again."""
        try:
            self.main.do("CLUSTER", "ADDSLOTS", self.slot)
        except ResponseError:
            self.main.do("CLUSTER", "DELSLOTS", self.slot)
            return False
        return True

    @property
    def others(self) -> list[Server]:
        """The nodes that have not the namespace."""
        return [node for node in self.nodes if node is not self.main]

    def identity(self, node: Server) -> bytes:
        """What nodes call a node."""
        answer: bytes = node.do("CLUSTER", "MYID")
        return answer

    async def connected(self, proxy: Running, node: Server) -> None:
        """The proxy has said that it works with a node."""
        line = f"Redis at {node.place} (in the cluster {self.redis}/0) is connected"
        await until(lambda: self.lines(proxy)[-1:] == [line])

    async def clients(self, backend: Backend, proxy: Running) -> list[Client]:
        """One request that is at work, and one that waits."""
        clients = [self.ask(proxy, "/hold/a", ONE)]
        await backend.begun("a")
        clients.append(self.ask(proxy, "/work/b?seconds=0", ONE))
        await until(lambda: self.waiting() == 1)
        return clients

    async def kept(self, backend: Backend, proxy: Running, clients: list[Client]) -> None:
        """They are known still, or again; nobody's request has failed, and the limit holds."""
        await until(lambda: (self.admitted(), self.waiting()) == (1, 1))
        clients.append(self.ask(proxy, "/work/c?seconds=0", ONE))
        await until(lambda: self.waiting() == 2)
        await self.let(backend, "a")
        self.assertEqual([(await client.answer).status for client in clients], [200] * 3)
        work = [each for each in backend.work() if "-" not in each.name]
        self.assertEqual([each.name for each in work], ["a", "b", "c"])
        self.assertEqual(most_at_once(work), 1)


class RestTests(ClusterCase):
    """A cluster at rest."""

    async def test_any_node(self) -> None:
        """C{redis://} names a node that has not the namespace; or several, of which one is gone."""
        await self.formed()
        for key in (b"foo", b"{thr}:x", b"foo{}{bar}", b"foo{bar", b"foo{{bar}}zap", b"123456789"):
            self.assertEqual(self.main.do("CLUSTER", "KEYSLOT", key), slot_of(key))
        backend = await self.lean()
        self.redis = f"redis://{self.others[0].place}"
        _, proxy = await self.proxied(backend)
        await self.regulated(backend, proxy, "one-")
        await self.connected(proxy, self.main)
        self.assertEqual(len(self.lines(proxy)), 1)
        await self.others[0].signal("KILL")
        self.redis = f"redis://{','.join(node.place for node in self.others)}"
        _, proxy = await self.proxied(backend)
        await self.regulated(backend, proxy, "several-")
        await self.connected(proxy, self.main)
        self.assertEqual(len(self.lines(proxy)), 1)

    async def test_secured(self) -> None:
        """A password and TLS are those of all nodes; here they are of the system's Redis."""
        authority = self.authority()

        async def start(*options: str) -> Server:
            more = ("--tls-cluster", "yes", "--requirepass", "s3cret")
            server = await self.secured(authority, *options, *more, names=("127.0.0.1",))
            server.login["password"] = "s3cret"
            return server

        await self.formed(start)
        self.redis = f"rediss://:s3cret@{self.others[0].place}"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy)
        self.redis = self.redis.replace("s3cret", "***")
        await self.connected(proxy, self.main)

    async def test_slot_of_nobody(self) -> None:
        """The slot is taken from its node, and given to another one."""
        await self.formed()
        self.redis = f"redis://{self.main.place},{self.others[0].place}"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy, "before-")
        for node in self.nodes:
            node.do("CLUSTER", "DELSLOTS", self.slot)
        await proxy.child.said(
            b"no node of the cluster has the slot of the namespace; give the slot to a node\n"
        )
        await self.closed(proxy, "meanwhile")
        self.main = self.others[0]
        await until(self.given)
        await self.connected(proxy, self.main)
        await self.regulated(backend, proxy, "after-")


class ChangeTests(ClusterCase):
    """Nodes die, and slots are moved, while a request is at work and another one waits."""

    async def test_seed_killed(self) -> None:
        """The only node that the URL names is gone, and then so is the connection to the other."""
        await self.formed()
        seed = self.others[0]
        self.redis = f"redis://{seed.place}"
        backend, proxy = await self.proxied()
        clients = await self.clients(backend, proxy)
        await seed.signal("KILL")
        self.main.do("CLIENT", "KILL", "TYPE", "NORMAL")
        await proxy.child.said(b"is not usable: the connection was lost")
        await self.kept(backend, proxy, clients)

    def knows(self, node: Server, other: Server) -> bool:
        """Whether a node knows another one."""
        return self.identity(other) in node.do("CLUSTER", "NODES")

    async def test_failover(self) -> None:
        """The node dies, and its replica takes its place."""
        await self.formed()
        replica = await self.started(*self.node_settings())
        self.meet(self.main, replica)
        await until(
            lambda: all(self.knows(replica, node) and self.knows(node, replica) for node in self.nodes)
        )
        replica.do("CLUSTER", "REPLICATE", self.identity(self.main))
        await until(lambda: b"master_link_status:up" in replica.do("INFO", "replication"))
        follows = b"slave " + self.identity(self.main)
        await until(lambda: all(follows in node.do("CLUSTER", "NODES") for node in self.nodes))
        self.redis = f"redis://{self.others[0].place}"
        backend, proxy = await self.proxied()
        clients = await self.clients(backend, proxy)
        await self.main.signal("KILL")
        self.main = replica
        await self.connected(proxy, replica)
        await self.kept(backend, proxy, clients)

    def keys_of_slot(self, node: Server) -> list[bytes]:
        """The namespace's keys that a node has."""
        return sorted(node.do("CLUSTER", "GETKEYSINSLOT", self.slot, 1000))

    async def halfway(self, proxy: Running, to: Server) -> tuple[list[bytes], list[bytes]]:
        """Move half of the slot's keys to a node; what is on either side, after the proxy has noticed."""
        source = self.main
        to.do("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.identity(source))
        source.do("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.identity(to))
        before = self.keys_of_slot(source)
        half = before[: len(before) // 2]
        source.do("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *half)
        await proxy.child.said(
            b"is not usable: the slot of the namespace is on its way to another node; "
            b"it goes on by itself when that is over\n"
        )
        await self.closed(proxy, "halfway")
        # On this it rests: the source refuses the script's one key, which never exists, before the script begins.
        for node, word in ((source, "ASK "), (to, "MOVED ")):
            with self.assertRaises(ResponseError) as caught:
                node.do("EVAL", "redis.call('SET', KEYS[1] .. ':x', 'x')", 1, f"{{{self.namespace}}}")
            self.assertTrue(str(caught.exception).startswith(word))
        rest = [key for key in before if key not in half]
        self.assertEqual((self.keys_of_slot(source), self.keys_of_slot(to)), (rest, half))
        return rest, half

    async def check_slot_moved(self, program: str = "") -> None:
        """The slot is moved key by key: halfway it is not used; then all goes on at the other node."""
        await self.formed(partial(self.started, program=program))
        self.redis = f"redis://{self.others[0].place},{self.others[1].place}"
        backend, proxy = await self.proxied()
        clients = await self.clients(backend, proxy)
        source, to = self.main, self.others[0]
        rest, _ = await self.halfway(proxy, to)
        source.do("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *rest)
        for node in (to, source):
            node.do("CLUSTER", "SETSLOT", self.slot, "NODE", self.identity(to))
        self.main = to
        await self.connected(proxy, to)
        await self.kept(backend, proxy, clients)
        self.assertEqual(self.keys_of_slot(source), [])

    async def test_slot_moved(self) -> None:
        """In Valkey."""
        await self.check_slot_moved()

    async def test_slot_moved_in_redis(self) -> None:
        """In the system's Redis."""
        await self.check_slot_moved(system_redis())

    async def test_move_given_up(self) -> None:
        """
        Halfway, the move is given up, and half of the keys are lost with it. When the others are deleted the processes
        say what they have, and go on.
        """
        await self.formed()
        self.redis = f"redis://{self.others[0].place},{self.others[1].place}"
        backend, proxy = await self.proxied()
        clients = await self.clients(backend, proxy)
        source, to = self.main, self.others[0]
        await self.halfway(proxy, to)
        for node in (source, to):
            node.do("CLUSTER", "SETSLOT", self.slot, "STABLE")
        source.do("DEL", *self.keys_of_slot(source))
        await self.connected(proxy, source)
        await self.kept(backend, proxy, clients)

    async def test_slot_moved_at_once(self) -> None:
        """Valkey moves the slot in one go: nobody has to wait for that."""
        await self.formed()
        self.redis = f"redis://{self.others[0].place},{self.others[1].place}"
        backend, proxy = await self.proxied()
        clients = await self.clients(backend, proxy)
        source, to = self.main, self.others[0]
        slot = str(self.slot)
        source.do("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.identity(to))
        await self.connected(proxy, to)
        self.main = to
        await self.kept(backend, proxy, clients)
        self.assertEqual([line for line in self.lines(proxy) if "not usable" in line], [])
        self.assertNotIn(b"Redis does not answer", proxy.child.output)
