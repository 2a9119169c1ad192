"""Tests for L{thrtwisted.relay.post}: several posts in one reactor, over a real server."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests import valkey
from tests.forward.support import until
from tests.integration.cutter import POINTS, Cutter, Passage
from tests.relay.support import Talker
from thrtwisted.redis.embedded import private_directory
from thrtwisted.redis.link import ILinkUser
from thrtwisted.redis.url import parse
from thrtwisted.relay import IPost, IPostUser
from thrtwisted.relay.codec import Frame, Kind, encode
from thrtwisted.relay.conversation import Conversation
from thrtwisted.relay.pace import LARGEST_MESSAGE
from thrtwisted.relay.post import MOST_IN_VAIN, UNDER_WAY, Post


def frame(number: int, payload: bytes = b"", kind: Kind = Kind.DATA) -> Frame:
    """A frame; its number tells it from others."""
    return Frame("front", number, kind, payload=payload)


def said(log: list[LogEvent]) -> list[str]:
    """What the proxy's own modules say."""
    return [str(formatEvent(event)) for event in log if event["log_namespace"].startswith("thrtwisted.")]


@implementer(IPostUser)
class Notes:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.ups = self.downs = 0
        self.frames: list[Frame] = []
        self.when_up: Callable[[], object] = lambda: None
        self.when_received: Callable[[Frame], object] = lambda frame: None

    def up(self) -> None:
        self.ups += 1
        self.when_up()

    def down(self) -> None:
        self.downs += 1

    def received(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.when_received(frame)

    @property
    def numbers(self) -> list[int]:
        """Of the frames, in the order in which they came."""
        return [frame.number for frame in self.frames]

    @property
    def first_times(self) -> list[int]:
        """The same, but each only once."""
        return list(dict.fromkeys(self.numbers))


class PostCase(TestCase):
    """Posts that stop with the test, and leave nothing."""

    timeout = 60

    def setUp(self) -> None:
        self.namespace = valkey.namespace()
        self.client = valkey.client()
        self.addCleanup(self.client.close)
        before = self.connections()
        self.addCleanup(lambda: until(lambda: self.connections() == before))
        self.addCleanup(self.check_left)

    def check_left(self) -> None:
        """Nothing is left in Redis."""
        self.assertEqual(self.keys(), [])

    def connections(self) -> int:
        """How many the server has."""
        return len(self.client.client_list())

    def keys(self) -> list[bytes]:
        """What the namespace has in Redis."""
        keys: list[bytes] = self.client.keys("[{]" + self.namespace + "}*")
        return keys

    def inbox(self, owner: str) -> str:
        """Its key."""
        return f"{{{self.namespace}}}:inbox:{owner}"

    def calls(self) -> dict[str, int]:
        """How often each command was called since the statistics were reset, but for those of the test."""
        stats = self.client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
        return {name: count for name, count in calls.items() if name not in ("info", "config|resetstat")}

    def post(self, owner: str, url: str = "", **options: Any) -> tuple[Post, Notes]:
        """A post, connecting, and its user."""
        post = Post(reactor, self.namespace, owner, **{"timeout": 5.0, "lease": 10.0, **options})
        notes = Notes()
        post.start(notes)
        post.connect(url or valkey.url())
        self.addCleanup(post.stop)
        return post, notes

    async def pair(self, **options: Any) -> tuple[Post, Notes, Post, Notes]:
        """Two posts that are up, a and b, and their users."""
        a, at_a = self.post("a", **options)
        b, at_b = self.post("b", **options)
        await until(lambda: at_a.ups and at_b.ups)
        # What each has written to itself is away, too.
        await until(lambda: not any(self.client.xlen(self.inbox(owner)) for owner in "ab"))
        return a, at_a, b, at_b

    async def carries(self, sender: Post, notes: Notes, to: Notes, peer: str, number: int) -> None:
        """A frame arrives, sent again whenever the sender's post is up anew."""
        notes.when_up = lambda: sender.send(peer, frame(number))
        notes.when_up()
        await until(lambda: number in to.numbers)
        notes.when_up = lambda: None


class PostTests(PostCase):
    """Posts over a server in order."""

    async def test_interface(self) -> None:
        """It provides what others count on, and says how it is."""
        post, notes = self.post("a")
        self.assertTrue(IPost.providedBy(post) and ILinkUser.providedBy(post))
        self.assertEqual((post.owner, repr(post)), ("a", "<Post a down, 0 peers>"))
        await until(lambda: notes.ups)
        self.assertEqual(repr(post), "<Post a up, 0 peers>")

    async def test_any_order(self) -> None:
        """It connects once it knows where to, and for whom, whichever comes first."""
        post, notes = Post(reactor, self.namespace, "a", timeout=5.0, lease=10.0), Notes()
        self.addCleanup(post.stop)
        post.connect(valkey.url())
        post.start(notes)
        await until(lambda: notes.ups)

    async def test_late_proof(self) -> None:
        """What comes once the link is down proves nothing, though both ways have worked."""
        post, notes = self.post("a")
        await until(lambda: notes.ups)
        post.down()
        post.up()
        post.down()
        assert post._link is not None
        await post._link.command(b"PING")  # answered after all before it
        await until(lambda: post._reads)
        self.assertEqual((notes.ups, notes.downs), (1, 1))
        post.up()
        await until(lambda: notes.ups == 2)

    async def test_frames(self) -> None:
        """Frames arrive as they were sent, in their order, from and to several, each once."""
        a, at_a, b, at_b = await self.pair()
        c, at_c = self.post("c")
        await until(lambda: at_c.ups)
        whole = Frame("b", 2**40, Kind.HEAD, 7, 3, True, bytes(range(256)), "a")
        for number in range(100):
            a.send("b", frame(number))
            a.send("c", frame(number))
            c.send("b", frame(1000 + number))
            b.send("b", frame(2000 + number))
        b.send("a", whole)
        await until(lambda: len(at_b.frames) == 300 and len(at_c.frames) == 100 and at_a.frames)
        self.assertEqual(at_a.frames, [whole])
        self.assertEqual(at_c.numbers, list(range(100)))
        for first in (0, 1000, 2000):
            numbers = [number for number in at_b.numbers if first <= number < first + 1000]
            self.assertEqual(numbers, list(range(first, first + 100)))
        self.assertEqual((at_a.ups, at_b.ups, at_c.ups), (1, 1, 1))

    async def test_one_turn(self) -> None:
        """What is sent in one turn goes in one message, in as many turns as it may."""
        a, _, _, at_b = await self.pair()
        self.client.config_resetstat()
        for number in range(1000):
            a.send("b", frame(number, b"x" * 50))
        await until(lambda: len(at_b.frames) == 1000)
        self.assertEqual(self.calls(), {"eval": 1, "xadd": 1, "pexpire": 1, "xread": 1})

    async def test_many_turns(self) -> None:
        """What is sent while Redis is slow waits, and goes together; the order is kept."""
        a, _, _, at_b = await self.pair()
        self.client.config_resetstat()
        self.client.client_pause(5000)
        for number in range(200):
            a.send("b", frame(number))
            await until(lambda: a._now is None)
        self.client.client_unpause()
        await until(lambda: len(at_b.frames) == 200)
        self.assertEqual(at_b.numbers, list(range(200)))
        self.assertEqual(self.calls()["xadd"], UNDER_WAY + 1)

    async def test_answer(self) -> None:
        """Whoever answers at once sends one command, which also removes what he has read."""
        a, at_a, b, at_b = await self.pair()
        at_b.when_received = lambda frame: b.send("a", frame)
        at_a.when_received = lambda old: old.number < 50 and a.send("b", frame(old.number + 1))
        self.client.config_resetstat()
        a.send("b", frame(1))
        await until(lambda: 50 in at_a.numbers)
        calls = self.calls()
        self.assertEqual((calls["eval"], calls["xadd"]), (100, 100))
        self.assertLess(calls["xdel"], 110)
        for owner in "ab":
            self.assertLessEqual(self.client.xlen(self.inbox(owner)), 1)

    async def test_later(self) -> None:
        """What is not urgent goes with what is, or a little later by itself."""
        a, _, _, at_b = await self.pair()
        self.client.config_resetstat()
        a.send("b", frame(1), soon=False)
        for _ in range(3):
            self.assertEqual(self.calls(), {})
        a.send("b", frame(2))
        await until(lambda: len(at_b.frames) == 2)
        self.assertEqual(self.calls()["xadd"], 1)
        a.send("b", frame(3), soon=False)
        a.send("b", frame(4), soon=False)
        await until(lambda: len(at_b.frames) == 4)
        self.assertEqual(at_b.numbers, [1, 2, 3, 4])
        self.assertEqual(self.calls()["xadd"], 2)

    async def test_waiting(self) -> None:
        """What is for somebody who is not there waits for a while, in messages that are not too large."""
        a, notes = self.post("a", lease=10.0)
        await until(lambda: notes.ups)
        piece = 32 * 1024
        for number in range(100):
            a.send("b", frame(number, bytes(piece)))

        def sizes() -> list[int]:
            return [len(fields[b"m"]) for _, fields in self.client.xrange(self.inbox("b"))]

        await until(lambda: sum(sizes()) > 100 * piece)
        self.assertLess(max(sizes()), LARGEST_MESSAGE + 2 * piece)
        self.assertLess(self.client.xlen(self.inbox("b")), 2 * 100 * piece / LARGEST_MESSAGE)
        self.assertGreater(self.client.pttl(self.inbox("b")), 0)
        self.assertLessEqual(self.client.pttl(self.inbox("b")), 20_000)
        _, at_b = self.post("b")
        await until(lambda: len(at_b.frames) == 100)
        self.assertEqual(at_b.numbers, list(range(100)))
        await until(lambda: not self.client.xlen(self.inbox("b")))
        await until(lambda: repr(a) == "<Post a up, 0 peers>")

    async def test_passes(self) -> None:
        """An inbox that nobody reads or writes to is gone after two leases; nothing is left there for ever."""
        a, notes = self.post("a", lease=0.1)
        await until(lambda: notes.ups)
        for _ in range(3):
            a.send("b", frame(1))
            await until(lambda: self.client.exists(self.inbox("b")))
            self.assertNotEqual(self.client.pttl(self.inbox("b")), -1)
            await until(lambda: not self.client.exists(self.inbox("b")))

    async def test_idle(self) -> None:
        """Whoever has nothing to do asks Redis once in half a lease, and waits there."""
        await self.pair(lease=0.4)
        self.client.config_resetstat()
        begun = reactor.seconds()
        await until(lambda: self.calls().get("xread", 0) >= 10)
        self.assertEqual(list(self.calls()), ["xread"])
        self.assertGreater(reactor.seconds() - begun, 4 * 0.2)

    async def test_set_back(self) -> None:
        """After the clock of Redis was set back, ids may be lower than before: those messages are found, too."""
        _, _, _, at_b = await self.pair(lease=0.4)
        self.client.xadd(self.inbox("b"), {"m": encode([frame(1)])}, id="99999999999999-0")
        await until(lambda: at_b.numbers == [1])
        await until(lambda: not self.client.xlen(self.inbox("b")))
        self.client.delete(self.inbox("b"))
        self.client.xadd(self.inbox("b"), {"m": encode([frame(2)])}, id="5-1")
        await until(lambda: 2 in at_b.numbers)

    async def test_backlog(self) -> None:
        """More messages than are read at once, and than are removed at once, are read and removed."""
        with self.client.pipeline() as pipeline:
            for number in range(3000):
                pipeline.xadd(self.inbox("b"), {"m": encode([frame(number)])})
            pipeline.execute()
        _, at_b = self.post("b")
        await until(lambda: len(at_b.frames) == 3000)
        self.assertEqual(at_b.numbers, list(range(3000)))
        await until(lambda: not self.client.xlen(self.inbox("b")))

    async def test_garbage(self) -> None:
        """What cannot be read is dropped, and said once; what comes with it arrives."""
        inbox = self.inbox("b")
        self.client.xadd(inbox, {"m": b"\xc1"})
        self.client.xadd(inbox, {"x": b"", "y": b"1"})
        self.client.xadd(inbox, {"m": encode([frame(1)])})
        self.client.xadd(inbox, {"m": b"\x91\x01"})
        self.client.xadd(inbox, {"m": b"\x91\x93\xa1\xff\x01\x01"})
        with capturedLogs() as log:
            a, at_a, _, at_b = await self.pair()
            await until(lambda: at_b.numbers == [1])
            await self.carries(a, at_a, at_b, "b", 2)
        [line] = said(log)
        self.assertIn("cannot be read, and is dropped", line)
        await until(lambda: not self.client.xlen(inbox))

    async def test_user_fails(self) -> None:
        """A frame that its user cannot handle does not take others with it."""
        a, _, _, at_b = await self.pair()
        at_b.when_received = lambda frame: 1 // (frame.number - 1)
        for number in range(3):
            a.send("b", frame(number))
        await until(lambda: at_b.numbers == [0, 1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class StopTests(PostCase):
    """The end. What is left is looked at by all tests."""

    async def test_last_words(self) -> None:
        """What was sent in the last turn is carried, however much it is, also what is not urgent."""
        a, at_a, _, at_b = await self.pair()
        for number in range(100):
            a.send("b", frame(number, bytes(32 * 1024)))
            a.send("a", frame(number))
        a.send("b", frame(100), soon=False)
        stopped = a.stop()
        a.send("b", frame(101))
        await stopped
        await until(lambda: 100 in at_b.numbers)
        self.assertEqual(at_b.numbers, list(range(101)))
        self.assertEqual(at_a.frames, [])
        await a.stop()
        a.send("b", frame(102))

    async def test_early(self) -> None:
        """It may stop before it was started, before it is connected, and as soon as it is."""
        await Post(reactor, self.namespace, "a", timeout=5.0, lease=10.0).stop()
        post, _ = self.post("a")
        post.send("b", frame(1))
        await post.stop()
        post, notes = self.post("a")
        notes.when_up = post.stop
        await until(lambda: notes.ups)
        await post.stop()
        await post.stop()

    async def test_while_receiving(self) -> None:
        """It may be stopped from where a frame is received: the others are dropped."""
        a, _, b, at_b = await self.pair()
        at_b.when_received = lambda frame: b.stop()
        for number in range(3):
            a.send("b", frame(number))
        await until(lambda: at_b.frames)
        await b.stop()
        self.assertEqual(at_b.numbers, [0])


class CutTests(PostCase):
    """A bad line to Redis."""

    def setUp(self) -> None:
        super().setUp()
        self.line = Cutter(valkey.address().path)
        directory = private_directory()
        self.addCleanup(shutil.rmtree, directory)
        self.bad = self.line.listen(os.path.join(directory, "line"))
        self.addCleanup(lambda: self.line.stop())

    def check_left(self) -> None:
        """What could not be removed, or was written later by somebody else, passes by itself."""
        for key in self.keys():
            self.assertNotEqual(self.client.pttl(key), -1)
            self.client.delete(key)

    async def cut_pair(self, **options: Any) -> tuple[Post, Notes, Post, Notes]:
        """Two posts, of which a has the bad line."""
        a, at_a = self.post("a", self.bad, **options)
        b, at_b = self.post("b")
        await until(lambda: at_a.ups and at_b.ups)
        return a, at_a, b, at_b

    async def test_sending(self) -> None:
        """Its connection is cut at any point of a message: it is up again, and what is sent again arrives in order."""
        a, at_a, _, at_b = await self.cut_pair()
        sent: list[int] = []
        at_a.when_up = lambda: [a.send("b", frame(number)) for number in sent]

        def send(size: int) -> None:
            for _ in range(30):
                sent.append(len(sent))
                a.send("b", frame(sent[-1], bytes(size)))

        with capturedLogs() as log:
            for point in POINTS * 3:
                cut, ups = self.line.cut(point), at_a.ups
                send(20_000)
                await cut
                send(0)
                await until(lambda ups=ups: at_a.ups > ups and sent[-1] in at_b.numbers)
                self.assertEqual(at_b.first_times, sent)
        self.assertEqual(said(log), [])

    async def test_receiving(self) -> None:
        """Its connection is cut at any point of an answer: what was in it comes again, in order."""
        a, at_a, b, _ = await self.cut_pair()
        sent: list[int] = []
        for point in POINTS * 3:
            cut, ups = self.line.cut(point, "inbox"), at_a.ups
            for _ in range(30):
                sent.append(len(sent))
                b.send("a", frame(sent[-1], bytes(20_000)))
            await cut
            await until(lambda ups=ups: at_a.ups > ups and sent[-1] in at_a.numbers)
            self.assertEqual(at_a.first_times, sent)
            self.assertEqual(at_a.downs, at_a.ups - 1)
        self.assertEqual(repr(a), "<Post a up, 0 peers>")

    async def test_silent(self) -> None:
        """A connection that is dead without anybody noticing is given up, whichever it is."""
        a, at_a, b, at_b = await self.cut_pair(timeout=0.2, lease=1.0)
        self.line.silence("batches")
        await self.carries(a, at_a, at_b, "b", 1)
        self.assertEqual(at_a.ups, 2)
        self.line.silence("inbox")
        await self.carries(b, at_b, at_a, "a", 2)
        self.assertEqual(at_a.ups, 3)

    async def test_slow(self) -> None:
        """An answer may take longer than anything else, as long as it goes on to come."""
        free_at: dict[Passage, float] = {}  # a long answer on one connection does not hold up the other

        def piecewise(passage: Passage, data: bytes) -> None:
            for at in range(0, len(data), 10_000):
                now = reactor.seconds()
                free_at[passage] = due = max(now, free_at.get(passage, now) + 0.02)
                reactor.callLater(due - now, passage.transport.write, data[at : at + 10_000])

        self.patch(self.line, "pass_on", piecewise)
        _, notes = self.post("b")
        await until(lambda: notes.ups)
        with self.client.pipeline() as pipeline:
            for each in range(40):
                pipeline.xadd(self.inbox("a"), {"m": encode([frame(each, bytes(20_000))])})
            pipeline.execute()
        begun = reactor.seconds()
        _, at_a = self.post("a", self.bad, timeout=0.2, lease=0.4)
        await until(lambda: len(at_a.frames) == 40)
        self.assertGreater(reactor.seconds() - begun, 2 * (0.2 + 0.2))
        self.assertEqual(at_a.ups, 1)

    def throttle(self, rate: int) -> None:
        """What is written over the bad line arrives at so many bytes a second, on each connection."""
        passed_on = Passage.dataReceived

        def resume(passage: Passage) -> None:
            if passage.connected:
                passage.transport.resumeProducing()

        def dataReceived(passage: Passage, data: bytes) -> None:
            passed_on(passage, data)
            passage.transport.pauseProducing()
            self.line._late.append(reactor.callLater(len(data) / rate, resume, passage))

        self.patch(Passage, "dataReceived", dataReceived)

    async def test_narrow(self) -> None:
        """Over a line that takes longer for a large message than an answer may, all gets through nevertheless."""
        a, at_a, b, at_b = await self.cut_pair(timeout=0.1)
        self.throttle(500_000)
        speaking, hearing = self.talkers(a, at_a, "b"), self.talkers(b, at_b, "a")
        data = bytes(100_000)
        for talker in speaking:
            talker.conversation.write(data)
            talker.conversation.say(Kind.END)
        await until(lambda: all(talker.heard and talker.heard[-1][0] == Kind.END for talker in hearing))
        self.assertTrue(all(talker.heard[0] == (Kind.DATA, data) for talker in hearing))

    async def test_nothing_passes(self) -> None:
        """If nothing that is written is answered though Redis answers others, that is said, once."""
        swallowed = Passage.replied
        self.patch(Passage, "replied", lambda p, data: p.kind == "inbox" and swallowed(p, data))
        with capturedLogs() as log:
            _, notes = self.post("a", self.bad, timeout=0.02, redis_answers=lambda: True)
            await until(lambda: said(log))
            tries = self.client.info("commandstats")["cmdstat_eval"]["calls"] + MOST_IN_VAIN
            await until(lambda: self.client.info("commandstats")["cmdstat_eval"]["calls"] > tries)
        [line] = said(log)
        self.assertIn("is not usable for the relay: it does not answer in time to what is written", line)
        self.assertEqual((notes.ups, notes.downs), (0, 0))

    async def test_deaf(self) -> None:
        """A post that cannot read what it has written is not up, though both connections stand."""
        swallowed = Passage.replied
        self.patch(Passage, "replied", lambda p, data: p.kind != "inbox" and swallowed(p, data))
        a, notes = self.post("a", self.bad)
        await until(lambda: a._writes)
        self.assertEqual((notes.ups, repr(a)), (0, "<Post a down, 0 peers>"))
        self.patch(Passage, "replied", swallowed)
        await self.line.stop()
        self.line.listen(parse(self.bad).path)
        await until(lambda: notes.ups)
        self.assertEqual(notes.downs, 0)

    async def test_gone(self) -> None:
        """While Redis cannot be reached all is dropped, and nothing is kept."""
        a, at_a, _, at_b = await self.cut_pair()
        await self.line.stop()
        await until(lambda: repr(a) == "<Post a down, 0 peers>")
        for number in range(100):
            a.send("b", frame(number))
        self.assertEqual(repr(a), "<Post a down, 0 peers>")
        self.line.listen(parse(self.bad).path)
        at_a.when_up = lambda: a.send("b", frame(100))
        await until(lambda: at_b.frames)
        self.assertEqual(at_b.numbers, [100])

    async def test_conversations(self) -> None:
        """Whatever is cut, and when: what conversations say over it arrives whole, both ways."""
        seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
        print(f"SEED={seed}")
        choose = random.Random(seed)
        other = Cutter(valkey.address().path)
        self.addCleanup(other.stop)
        a, at_a = self.post("a", self.bad)
        b, at_b = self.post("b", other.listen(parse(self.bad).path + "2"))
        sides = [self.talkers(a, at_a, "b"), self.talkers(b, at_b, "a")]
        await until(lambda: at_a.ups and at_b.ups)
        said = {}
        for side in sides:
            for talker in side:
                data = said[talker] = choose.randbytes(500_000)
                talker.conversation.say(Kind.HEAD, data[:20])
                talker.conversation.write(data)
                talker.conversation.say(Kind.END)
        for _ in range(15):
            line = choose.choice([self.line, other])
            if line.next_cut is None:
                line.cut(choose.choice(POINTS), choose.choice(["batches", "inbox"]))
            await deferLater(reactor, choose.uniform(0, 0.05))
        for here, there in zip(*sides, strict=True):
            for talker, heard in ((here, there.heard), (there, here.heard)):
                data = said[talker]
                await until(lambda heard=heard: heard and heard[-1][0] == Kind.END)
                kinds = [(Kind.HEAD, data[:20]), (Kind.DATA, data), (Kind.END, b"")]
                self.assertTrue(heard == kinds, f"SEED={seed}")

    def talkers(self, post: Post, notes: Notes, peer: str) -> list[Talker]:
        """Ten who talk to a peer over a post."""
        talkers = [Talker() for _ in range(10)]
        for number, talker in enumerate(talkers):
            talker.conversation = Conversation(post, peer, "a", number, 64 * 1024, talker)
        notes.when_up = lambda: [talker.up() for talker in talkers]
        notes.when_received = lambda frame: talkers[frame.number].received(frame)
        return talkers

    async def test_stop(self) -> None:
        """It stops though Redis does not answer."""
        a, _, _, _ = await self.cut_pair(timeout=0.2)
        a.send("b", frame(1))
        for passage in self.line.passages:
            passage.silent = True
        await a.stop()
