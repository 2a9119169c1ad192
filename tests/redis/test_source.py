"""Tests for L{thrtwisted.redis.source} and L{thrtwisted.redis.sentinel}."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.certificates import Authority
from tests.forward.support import until
from tests.redis.support import ScriptedServer, resp
from thrtwisted.redis import ISource
from thrtwisted.redis import connection as connections
from thrtwisted.redis import sentinel as sentinels
from thrtwisted.redis.cluster import ClusterSource
from thrtwisted.redis.connection import Dialer
from thrtwisted.redis.sentinel import SentinelSource
from thrtwisted.redis.source import FixedSource, source_of
from thrtwisted.redis.trouble import NobodyAnswers, trouble_of
from thrtwisted.redis.url import parse


class SourceTests(SynchronousTestCase):
    """Tests for L{source_of}."""

    def test_kinds(self) -> None:
        """Each kind of URL has its source."""
        for url, kind in {
            "redis://u:s3cret@h": FixedSource,
            "unix:///r": FixedSource,
            "redis://a,b": ClusterSource,
            "sentinel://:s3cret@a,b/main?sentinel_password=s3cret": SentinelSource,
        }.items():
            source = source_of(url)
            self.assertIsInstance(source, kind)
            verifyObject(ISource, source)
            self.assertIsNone(source.security)
            self.assertEqual(source_of(parse(url)).describe(None), parse(url).masked())
            self.assertNotIn("s3cret", repr(source))

    def test_security(self) -> None:
        """With TLS, the files are read at once."""
        for url in (
            "rediss://h",
            "rediss://a,b",
            "sentinel://a/m?tls=true",
            "sentinel://a/m?sentinel_tls=true",
        ):
            self.assertIsNotNone(source_of(url).security, url)
            self.assertRaises(ValueError, source_of, url, "/nonexistent")
            self.assertRaises(ValueError, source_of, url, None, "/nonexistent")
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(Authority().certificate)
        self.assertIsNotNone(source_of("rediss://h", path).security)

    def test_none(self) -> None:
        """A server of the proxy's own is nowhere yet; other URLs are nothing at all."""
        self.assertRaises(ValueError, source_of, "embedded:")
        self.assertRaises(ValueError, source_of, "http://h")

    def test_fixed(self) -> None:
        """One server is where it is, whatever comes."""
        source = source_of("redis://:s3cret@h/1")
        for _ in range(2):
            located = self.successResultOf(source.locate(1, Dialer(None, None)))
            self.assertEqual(located, parse("redis://:s3cret@h/1"))
            source.doubt()
        watch = source.watch(located, 1, Dialer(None, None))
        self.assertNoResult(watch)
        watch.cancel()
        self.failureResultOf(watch, CancelledError)
        self.assertEqual(source.describe(located), "redis://:***@h:6379/1")


class SentinelSourceTests(TestCase):
    """Tests for L{SentinelSource}."""

    timeout = 30

    def setUp(self) -> None:
        self.dialer = Dialer(reactor, None)
        self.addCleanup(self.dialer.close)
        self.master: list[bytes] | None = [b"10.0.0.1", b"6379"]

    async def sentinel(self) -> ScriptedServer:
        """A sentinel that names C{self.master}."""

        def answer(command: list[bytes]) -> bytes:
            self.assertEqual(command, [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"main"])
            return resp(self.master)

        return await ScriptedServer(self, answer).listen()

    def source(self, *sentinels: ScriptedServer, user: str = "", query: str = "") -> ISource:
        return source_of(f"sentinel://{user}{','.join(each.place for each in sentinels)}/main{query}")

    async def located(self, source: ISource) -> str:
        """Where the master is; or what is wrong, in words."""
        try:
            return (await source.locate(1, self.dialer)).place
        except NobodyAnswers as problem:
            return trouble_of(problem).line

    async def test_master(self) -> None:
        """The server that the sentinels name, wherever that is by then."""
        source = self.source(await self.sentinel())
        for place in ("10.0.0.1:6379", "[::1]:7", "redis.example:6379"):
            host, _, port = place.replace("[", "").replace("]", "").encode().rpartition(b":")
            self.master = [host, port]
            self.assertEqual(await self.located(source), place)

    async def test_login(self) -> None:
        """To sentinels and servers we may be different."""
        sentinel = await self.sentinel()
        sentinel.answer = lambda command: b"+OK\r\n" if command[0] == b"AUTH" else resp(self.master)
        query = "?db=2&tls=true&sentinel_user=bob&sentinel_password=secret"
        address = await self.source(sentinel, user="ann:s3cret@", query=query).locate(1, self.dialer)
        self.assertEqual(address, parse("rediss://ann:s3cret@10.0.0.1:6379/2"))
        self.assertEqual(sentinel.commands[0], [b"AUTH", b"bob", b"secret"])
        self.assertEqual(len(sentinel.commands), 2)

    async def test_in_turn(self) -> None:
        """One after the other is asked; who answered is asked first the next time."""
        self.patch(connections, "ASK_LIMIT", 0.1)
        gone, silent, good = [await self.sentinel() for _ in range(3)]
        await gone.stop()
        silent.answer = lambda command: None
        source = self.source(gone, silent, good)
        for _ in range(3):
            self.assertEqual(await self.located(source), "10.0.0.1:6379")
        self.assertEqual((silent.accepted, good.accepted), (1, 3))
        await until(lambda: not silent.connections and not good.connections)

    async def test_doubt(self) -> None:
        """When the server that one names does not serve, another one is asked: that one may know better."""
        stale, fresh = await self.sentinel(), await self.sentinel()
        fresh.answer = lambda command: resp([b"10.0.0.2", b"6379"])
        source = self.source(stale, fresh)
        self.assertEqual(await self.located(source), "10.0.0.1:6379")
        source.doubt()
        for _ in range(2):
            self.assertEqual(await self.located(source), "10.0.0.2:6379")

    async def test_watch(self) -> None:
        """A master is watched: whoever comes after it is noticed, even when sentinels were gone in the meantime."""
        self.patch(sentinels, "WATCH_INTERVAL", 0.01)
        sentinel = await self.sentinel()
        source = self.source(sentinel)
        watch = source.watch(parse("redis://10.0.0.1:6379"), 1, self.dialer)
        await until(lambda: sentinel.accepted > 2)
        await sentinel.stop()
        self.assertIn("nobody listens there", await self.located(source))
        self.assertFalse(watch.called)
        self.master = [b"10.0.0.2", b"6379"]
        await sentinel.listen()
        self.assertIsNone(await watch)

    async def test_watch_cancelled(self) -> None:
        """A watch may be ended at any time."""
        self.patch(sentinels, "WATCH_INTERVAL", 0.01)
        sentinel = await self.sentinel()
        for answer in (sentinel.answer, lambda command: None):
            sentinel.answer = answer
            watch = self.source(sentinel).watch(parse("redis://10.0.0.1:6379"), 1, self.dialer)
            accepted = sentinel.accepted
            await until(lambda accepted=accepted: sentinel.accepted > accepted)
            watch.cancel()
            with self.assertRaises(CancelledError):
                await watch
        await until(lambda: not sentinel.connections)

    async def test_nobody(self) -> None:
        """What is wrong with each is told."""
        unknown, gone, server = [await self.sentinel() for _ in range(3)]
        await gone.stop()
        self.master = None
        server.answer = lambda command: b"-ERR unknown command 'SENTINEL'\r\n"
        line = await self.located(self.source(unknown, gone, server))
        for sentinel, what in (
            (unknown, "it knows no service main"),
            (gone, "nobody listens there"),
            (server, "it is no Sentinel"),
        ):
            self.assertIn(f"{sentinel.place}: {what}", line)

    async def test_unreadable(self) -> None:
        """A sentinel that answers nonsense is one that gives no answer: others are asked."""
        self.patch(sentinels, "WATCH_INTERVAL", 0.01)
        odd, good = await self.sentinel(), await self.sentinel()
        watch = self.source(odd).watch(parse("redis://10.0.0.1:6379"), 1, self.dialer)
        for answer in (
            *(
                [b"10.0.0.1", b"abc"],
                [b"10.0.0.1", b"65536"],
                [b"10.0.0.1", b"0"],
                [b"10.0.0.1", b"9" * 5000],
            ),
            *([b"\xff", b"6379"], [b"", b"6379"], [b"a\0b", b"6379"], [b"10.0.0.1"], [[], []], 7),
        ):
            odd.answer = lambda command, answer=answer: resp(answer)  # type: ignore[misc]
            self.assertIn(f"({odd.place}: its answer cannot be read (", await self.located(self.source(odd)))
            self.assertEqual(await self.located(self.source(odd, good)), "10.0.0.1:6379")
        self.assertFalse(watch.called)
        odd.answer = lambda command: resp([b"10.0.0.2", b"6379"])
        self.assertIsNone(await watch)

    async def test_cancel(self) -> None:
        """To be cancelled means to ask nobody else."""
        silent, other = await self.sentinel(), await self.sentinel()
        silent.answer = lambda command: None
        locating = self.source(silent, other).locate(1, self.dialer)
        await until(lambda: silent.commands)
        locating.cancel()
        with self.assertRaises(CancelledError):
            await locating
        self.assertEqual(other.accepted, 0)

    async def test_describe(self) -> None:
        """A server, and who named it, without any password."""
        source = source_of("sentinel://ann:s3cret@a/main?sentinel_password=s3cret")
        url = "sentinel://ann:***@a:26379/main?sentinel_password=***"
        self.assertEqual(source.describe(None), url)
        self.assertEqual(source.describe(parse("redis://h:1")), f"h:1 (the master of {url})")
