"""The relay's post over servers of a test's own: what becomes of them, and of nodes and masters."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.integration.harness import until, unused_port
from tests.integration.test_redis_cluster import ClusterCase
from tests.integration.test_sentinel import SentinelCase
from tests.relay.test_post import Notes, frame
from thrtwisted.redis.source import source_of
from thrtwisted.relay.post import Post


class PostCase(SentinelCase, ClusterCase):
    """Two posts in the test's own process, a and b, of which a sends frames until b has them."""

    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.number = 0

    def lines_of(self, log: list[LogEvent]) -> list[str]:
        """What posts have said in the log."""
        return [str(formatEvent(event)) for event in log if event["log_namespace"].startswith("thrtwisted.")]

    def post(self, owner: str, url: str, ca: str | None = None, **options: Any) -> tuple[Post, Notes]:
        post = Post(reactor, self.namespace, owner, **{"timeout": 1.0, "lease": 2.0, **options})
        notes = Notes()
        post.start(notes)
        post.connect(source_of(url, ca))
        self.addCleanup(post.stop)
        return post, notes

    def pair(self, url: str, **options: Any) -> None:
        """Two posts."""
        self.a, self.at_a = self.post("a", url, **options)
        self.b, self.at_b = self.post("b", url, **options)

    async def carries(self) -> None:
        """A frame arrives, both ways; it is sent when the sender is up, and again whenever he is up anew."""
        self.number += 1
        number = self.number
        for sender, notes, to, peer in (
            (self.a, self.at_a, self.at_b, "b"),
            (self.b, self.at_b, self.at_a, "a"),
        ):

            def send(sender: Post = sender, peer: str = peer) -> None:
                sender.send(peer, frame(number))

            notes.when_up = send
            send()
            await until(lambda to=to: number in to.numbers)
            notes.when_up = lambda: None


class ServerTests(PostCase):
    """One server."""

    async def test_restarted(self) -> None:
        """Redis is killed, and comes back empty: it goes on, and the log is left to the gate."""
        self.main = await self.started()
        with capturedLogs() as log:
            self.pair(f"redis://{self.main.place}")
            await self.carries()
            await self.main.signal("KILL")
            await until(lambda: "down" in repr(self.a) and "down" in repr(self.b))
            self.main = await self.again(self.main)
            await self.carries()
        self.assertEqual(self.lines_of(log), [])

    async def test_frozen(self) -> None:
        """Redis stands still: that is noticed in time, and what was said meanwhile is said again by whoever said it."""
        self.main = await self.started()
        with capturedLogs() as log:
            self.pair(f"redis://{self.main.place}", timeout=0.2)
            await self.carries()
            self.main.freeze()
            self.a.send("b", frame(0))
            begun = reactor.seconds()
            await until(lambda: "down" in repr(self.a))
            self.assertLess(reactor.seconds() - begun, 2 * 0.2 + 1)
            # The other one has nothing to say, and so cannot know before it hears nothing.
            await until(lambda: "down" in repr(self.b))
            self.main.thaw()
            await self.carries()
        self.assertEqual(self.lines_of(log), [])

    async def test_out_of_memory(self) -> None:
        """Redis takes in nothing: that is told once, and so is its end; it goes on then."""
        self.main = await self.started("--maxmemory-policy", "noeviction")
        with capturedLogs() as log:
            self.pair(f"redis://{self.main.place}")
            await self.carries()
            self.main.set("maxmemory", 1)
            self.at_a.when_up = lambda: self.a.send("b", frame(0))
            self.at_a.when_up()
            await self.main.met(8)  # two connections each time
            self.assertNotIn(0, self.at_b.numbers)
            self.main.set("maxmemory", 0)
            await until(lambda: 0 in self.at_b.numbers)
            await self.carries()
            again = f"Redis at redis://{self.main.place}/0 is usable for the relay again"
            await until(lambda: self.lines_of(log)[-1:] == [again])
        [trouble, _] = self.lines_of(log)
        self.assertIn(
            "is not usable for the relay: it is out of memory, and refuses to write; raise", trouble
        )

    async def test_not_permitted(self) -> None:
        """A right is missing that the relay needs: that is told, with the mend; it goes on once it is there."""
        self.main = await self.started()
        rights = ("~*", "&*", "+eval", "+xadd", "+xdel", "+xread", "+pexpire", "+del")
        for missing in ("xread", "xadd", "xdel"):
            user = f"without-{missing}"
            given = [right for right in rights if right != f"+{missing}"]
            self.main.do("ACL", "SETUSER", user, "on", ">pw", *given)
            with capturedLogs() as log:
                self.pair(f"redis://{user}:pw@{self.main.place}")
                self.at_a.when_up = lambda: self.a.send("b", frame(0))
                self.at_b.when_up = lambda: self.b.send("a", frame(0))
                await until(lambda: len(self.lines_of(log)) >= 2)
                self.main.do("ACL", "SETUSER", user, f"+{missing}")
                await self.carries()
            for line in self.lines_of(log)[:2]:
                self.assertIn("is not usable for the relay: its user may not", line)
                self.assertIn("docs/redis.md", line)
            await self.a.stop()
            await self.b.stop()

    async def test_wrong_type(self) -> None:
        """Somebody else has a key of that name: that is told."""
        self.main = await self.started()
        key = f"{{{self.namespace}}}:inbox:a"
        self.main.do("SET", key, "1")
        with capturedLogs() as log:
            self.pair(f"redis://{self.main.place}")
            await until(lambda: self.lines_of(log))
            self.assertIn("is not usable for the relay: another program uses keys", self.lines_of(log)[0])
            self.main.do("DEL", key)
            await self.carries()

    async def test_tls(self) -> None:
        """TLS and a password, of the system's Redis."""
        authority = self.authority()
        self.main = await self.secured(authority, "--requirepass", "s3cret", names=("127.0.0.1",))
        self.main.login["password"] = "s3cret"
        ca, _, _ = authority.identity.save(self._place, "ca")
        self.pair(f"rediss://:s3cret@{self.main.place}", ca=ca)
        await self.carries()
        large = [frame(1000 + number, bytes([number]) * 32 * 1024) for number in range(100)]
        for each in large:
            self.a.send("b", each)
        await until(lambda: self.at_b.numbers[-1] == 1099)
        self.assertEqual(self.at_b.frames[-100:], large)
        await self.a.stop()
        await self.b.stop()
        self.assertEqual(self.keys(), [])


class SeveralTests(PostCase):
    """Several servers, of which one has the keys."""

    async def test_cluster(self) -> None:
        """The node that has the slot is found; while the slot goes to another one it waits, and finds that one then."""
        await self.formed()
        with capturedLogs() as log:
            self.pair(f"redis://{self.others[0].place}")
            await self.carries()
            old, to = self.main, self.others[1]
            to.do("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.identity(old))
            old.do("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.identity(to))
            self.a.send("c", frame(0))
            await until(lambda: "down" in repr(self.a))
            while keys := old.do("CLUSTER", "GETKEYSINSLOT", self.slot, 100):
                old.do("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            for node in (to, old):
                node.do("CLUSTER", "SETSLOT", self.slot, "NODE", self.identity(to))
            await self.carries()
        self.assertEqual(self.lines_of(log), [])
        self.main = to
        self.assertTrue(self.keys())

    async def test_sentinel(self) -> None:
        """The master dies, and its replica takes over."""
        master = await self.started()
        await self.replica(master)
        sentinel = await self.sentinel(master)
        await self.known(sentinel)
        with capturedLogs() as log:
            self.pair(f"sentinel://127.0.0.1:{unused_port()},{sentinel.place}/main")
            await self.carries()
            await master.signal("KILL")
            await self.carries()
        self.assertEqual(self.lines_of(log), [])
