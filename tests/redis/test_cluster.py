"""Tests for L{thrtwisted.redis.cluster}: nodes that a test plays."""

from __future__ import annotations

from typing import Any

import txredisapi
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.forward.support import until
from tests.redis.support import ScriptedServer, resp
from thrtwisted.redis import ISource
from thrtwisted.redis import connection as connections
from thrtwisted.redis.cluster import ClusterSource, is_on_its_way, moved_to, slot_of
from thrtwisted.redis.connection import Dialer
from thrtwisted.redis.trouble import NobodyAnswers, trouble_of
from thrtwisted.redis.url import ClusterAddress, parse


class SlotTests(SynchronousTestCase):
    """Tests for L{slot_of}."""

    def test_slots(self) -> None:
        """As the cluster specification has it (and a server's CLUSTER KEYSLOT)."""
        slots = {
            b"123456789": 0x31C3,
            b"foo": 12182,
            b"{thr}": 6302,
            b"{thr}:owner:1": 6302,
            b"thr": 6302,
            b"foo{bar}{zap}": slot_of(b"bar"),
            b"foo{{bar}}zap": slot_of(b"{bar"),
            b"foo{bar": 15278,
            b"foo{}{bar}": 8363,
            b"": 0,
        }
        for key, slot in slots.items():
            self.assertEqual(slot_of(key), slot, key)


class RedirectionTests(SynchronousTestCase):
    """Tests for what nodes say of other nodes."""

    asked = parse("rediss://u:p@h:1/2")

    def test_moved(self) -> None:
        """Another node, to which we are the same; perhaps on the host that was asked."""
        for text, url in {
            "MOVED 6302 10.0.0.1:7001": "rediss://u:p@10.0.0.1:7001/2",
            "MOVED 6302 ::1:7001": "rediss://u:p@[::1]:7001/2",
            "MOVED 6302 node.example:7001": "rediss://u:p@node.example:7001/2",
            "MOVED 6302 :7001": "rediss://u:p@h:7001/2",
        }.items():
            self.assertEqual(moved_to(txredisapi.ResponseError(text), self.asked), parse(url))
        moved = moved_to(txredisapi.ResponseError("MOVED 1 :7001"), parse("unix:///r"))
        self.assertEqual(moved, parse("redis://localhost:7001"))

    def test_nothing_else(self) -> None:
        """What says something else, or nothing to go by, is followed nowhere."""
        nowhere = ("MOVED 6302 h:0", "MOVED 6302 h:65536", "MOVED 6302 h:" + "9" * 5000)
        for text in (
            "ASK 6302 10.0.0.1:7001",
            "MOVED 6302 ?:7001",
            "MOVED 6302 h:port",
            "MOVED",
            "",
            *nowhere,
        ):
            self.assertIsNone(moved_to(txredisapi.ResponseError(text), self.asked), text)
        self.assertIsNone(moved_to(ValueError("MOVED 6302 10.0.0.1:7001"), self.asked))

    def test_on_its_way(self) -> None:
        """ASK, and nothing else."""
        self.assertTrue(is_on_its_way(txredisapi.ResponseError("ASK 6302 10.0.0.1:7001")))
        self.assertFalse(is_on_its_way(txredisapi.ResponseError("MOVED 6302 10.0.0.1:7001")))
        self.assertFalse(is_on_its_way(ValueError("ASK 6302 10.0.0.1:7001")))


class ClusterSourceTests(TestCase):
    """Tests for L{ClusterSource}. At the ports below 10, which its nodes name, nobody listens."""

    timeout = 30

    def setUp(self) -> None:
        self.dialer = Dialer(reactor, None)
        self.addCleanup(self.dialer.close)
        self.slots: Any = []

    async def node(self) -> ScriptedServer:
        """A node that says C{self.slots}."""

        def answer(command: list[bytes]) -> bytes:
            self.assertEqual(command, [b"CLUSTER", b"SLOTS"])
            return self.slots if isinstance(self.slots, bytes) else resp(self.slots)

        return await ScriptedServer(self, answer).listen()

    def source(self, *nodes: ScriptedServer) -> ClusterSource:
        return ClusterSource(ClusterAddress(tuple(node.address for node in nodes)))

    async def located(self, source: ClusterSource, slot: int = 100) -> str:
        """Where the slot is; or what is wrong, in words."""
        try:
            return (await source.locate(slot, self.dialer)).place
        except NobodyAnswers as problem:
            return trouble_of(problem).line

    async def test_interface(self) -> None:
        """It is a source."""
        verifyObject(ISource, self.source(await self.node()))

    async def test_master_of_the_slot(self) -> None:
        """The first of those that have the slot is the master."""
        node = await self.node()
        self.slots = [
            [0, 99, [b"127.0.0.1", 1, b"a", []]],
            [100, 200, [b"127.0.0.1", 2, b"b", []], [b"127.0.0.1", 3, b"c", []]],
            [201, 16383, [b"127.0.0.1", 4, b"d", []]],
        ]
        source = self.source(node)
        found = {
            0: "127.0.0.1:1",
            99: "127.0.0.1:1",
            100: "127.0.0.1:2",
            200: "127.0.0.1:2",
            16383: "127.0.0.1:4",
        }
        for slot, place in found.items():
            self.assertEqual(await self.located(source, slot), place)

    async def test_hosts(self) -> None:
        """A node without a host is on the one that was asked; one without its name has an address besides."""
        node = await self.node()
        for member, place in (
            ([None, 7], "127.0.0.1:7"),
            ([b"", 7, b"id"], "127.0.0.1:7"),
            ([b"?", 7, b"id", [b"hostname", b"x", b"ip", b"127.0.0.9"]], "127.0.0.9:7"),
            ([b"?", 7, b"id"], "127.0.0.1:7"),
            ([b"::1", 7, b"id", []], "[::1]:7"),
        ):
            self.slots = [[0, 16383, member]]
            self.assertEqual(await self.located(self.source(node)), place)

    async def test_login(self) -> None:
        """To each node we are the same."""
        node = await self.node()
        self.slots = [[0, 16383, [b"127.0.0.1", 2, b"b"]]]
        node.answer = lambda command: b"+OK\r\n" if command[0] == b"AUTH" else resp(self.slots)
        where = parse(f"redis://u:p@{node.place},127.0.0.1:1/0")
        assert isinstance(where, ClusterAddress)
        address = await ClusterSource(where).locate(1, self.dialer)
        self.assertEqual(address, parse("redis://u:p@127.0.0.1:2/0"))
        self.assertEqual(node.commands[0], [b"AUTH", b"u", b"p"])

    async def test_loss_of_the_seeds(self) -> None:
        """A node that an earlier answer has named is asked when those of the URL are gone."""
        seed, other = await self.node(), await self.node()
        self.slots = [[0, 16383, [b"127.0.0.1", other.port, b"b", []], [b"127.0.0.1", seed.port, b"a", []]]]
        source = self.source(seed)
        self.assertEqual(await self.located(source), other.place)
        await seed.stop()
        self.slots = [[0, 16383, [b"127.0.0.1", 9, b"c", []]]]
        self.assertEqual(await self.located(source), "127.0.0.1:9")

    async def test_seeds_again(self) -> None:
        """Those that the URL names are never forgotten: a name may have got another address."""
        seed = await self.node()
        source = self.source(seed)
        self.slots = [[0, 16383, [b"127.0.0.1", 1, b"b", []]]]
        await self.located(source)
        source.doubt()
        self.assertEqual(await self.located(source), "127.0.0.1:1")
        self.assertEqual(len(seed.commands), 2)

    async def test_doubt(self) -> None:
        """After a master that did not serve, another node is asked."""
        nodes = [await self.node() for _ in range(2)]
        self.slots = [[0, 16383, [b"127.0.0.1", 9, b"c", []]]]
        source = self.source(*nodes)
        for asked in ([1, 0], [1, 1], [1, 2]):
            await self.located(source)
            self.assertEqual([len(node.commands) for node in nodes], asked)
            if asked == [1, 0]:
                source.doubt()

    async def test_follow(self) -> None:
        """The node of which a node has said that it has the slot is asked first, if it is there at all."""
        seed, other = await self.node(), await self.node()
        self.slots = [[0, 16383, [b"127.0.0.1", 9, b"c", []]]]
        source = self.source(seed)
        source.follow(other.address)
        self.assertEqual(await self.located(source), "127.0.0.1:9")
        self.assertEqual((len(seed.commands), len(other.commands)), (0, 1))
        await other.stop()
        source.follow(other.address)
        self.assertEqual(await self.located(source), "127.0.0.1:9")
        self.assertEqual((len(seed.commands), len(other.commands)), (1, 1))

    async def test_not_served(self) -> None:
        """A slot that no node has."""
        nodes = [await self.node() for _ in range(2)]
        self.slots = [[0, 99, [b"127.0.0.1", 1, b"a", []]]]
        what = "no node of the cluster has the slot of the namespace"
        line = await self.located(self.source(*nodes))
        places = sorted(node.place for node in nodes)
        self.assertTrue(
            line.startswith(
                f"no node of the cluster says who has the namespace ({places[0]}: {what}, {places[1]}: {what}); "
            ),
            line,
        )

    async def test_no_cluster(self) -> None:
        """Servers that are no nodes, do not answer, or nonsense."""
        self.patch(connections, "ASK_LIMIT", 0.1)
        good, gone, silent, odd = [await self.node() for _ in range(4)]
        self.slots = b"-ERR This instance has cluster support disabled\r\n"
        await gone.stop()
        silent.answer = lambda command: None
        odd.answer = lambda command: b"$2\r\nhi\r\n"
        line = await self.located(self.source(good, gone, silent, odd))
        for node, what in (
            (good, "it is no node of a cluster"),
            (gone, "nobody listens there"),
            (silent, "it does not answer"),
            (odd, "its answer cannot be read ("),
        ):
            self.assertIn(f"{node.place}: {what}", line)

    async def test_cancel(self) -> None:
        """To be cancelled means to ask nobody else."""
        nodes = [await self.node() for _ in range(2)]
        nodes[0].answer = lambda command: None
        locating = self.source(*nodes).locate(1, self.dialer)
        await until(lambda: nodes[0].commands)
        locating.cancel()
        with self.assertRaises(CancelledError):
            await locating
        self.assertEqual(nodes[1].accepted, 0)

    async def test_describe(self) -> None:
        """A node, and how the cluster was found, without the password."""
        where = parse("rediss://u:s3cret@a,b:1/0")
        assert isinstance(where, ClusterAddress)
        source = ClusterSource(where)
        self.assertEqual(source.describe(None), "rediss://u:***@a:6379,b:1/0")
        self.assertEqual(source.describe(where.nodes[1]), "b:1 (in the cluster rediss://u:***@a:6379,b:1/0)")
