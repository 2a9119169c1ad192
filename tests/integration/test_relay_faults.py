"""Redis fails while the relay is at work: what was under way goes on where it was, once, and nothing is doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.integration.application import digest, pieces
from tests.integration.cutter import Cutter
from tests.integration.faults import is_loss
from tests.integration.harness import Backend, Client, Running, most_at_once, until
from tests.integration.relayed import RelayCase, Uploads

ONE = {"One": "a"}
SIZE = 20_000_000

#: Seconds past which Redis counts as gone, in tests where it may be slow.
PATIENCE = 2.0

#: Seconds that the rest of a body may take on a busy machine.
TRANSFER = 10.0


class FaultCase(RelayCase):
    """A Redis of the test's own."""

    # A worker that could tell nobody for so long is not taken for dead.
    settings: ClassVar = {"lease": 3.0}

    async def started(self) -> tuple[Running, Backend, Running, Running]:
        """Redis, a backend, a front and a worker."""
        redis = await self.server()
        backend = await self.lean()
        return redis, backend, *await self.pair(backend)

    async def back(self, *processes: Running) -> None:
        """They have found Redis again, if they had lost it, and for so long that they tell when they lose it again."""
        for process in processes:
            await until(
                lambda process=process: process.said.count("Redis answers again") == self.losses(process)
            )
        await deferLater(reactor, self.settings["lease"] / 4)

    def losses(self, process: Running) -> int:
        """How often it has said that Redis is gone."""
        return sum(map(is_loss, process.said))


class GoneTests(FaultCase):
    """Redis is killed, frozen, or forgets."""

    async def test_killed(self) -> None:
        """
        It is started again empty: those under way get their answers, those who wait are served, each once; meanwhile
        whoever comes gets 503 at once.
        """
        redis, backend, front, worker = await self.started()
        clients = [self.ask(front, f"/hold/{name}", method="POST", body=b"x") for name in ("early", "late")]
        clients += [self.ask(front, "/hold/limited", ONE)]
        await gatherResults([backend.begun(name) for name in ("early", "late", "limited")])
        clients.append(self.ask(front, "/work/waiting?seconds=0", ONE))
        await until(lambda: self.waiting() == 1)
        await redis.signal("KILL")
        await front.child.said(b"Redis does not answer")
        asked = time.monotonic()
        refused = await self.ask(front, "/work/refused?seconds=0").answer
        self.assertEqual((refused.status, refused.complete), (503, True))
        self.assertGreaterEqual(int(refused.headers["Retry-After"]), 1)
        self.assertLess(refused.at - asked, 1.0)
        await self.let(backend, "early")
        await backend.ended("early")
        await self.server()
        await self.back(front, worker)
        self.assertEqual(await self.done(clients[0]), [200])
        for name in ("late", "limited"):
            await self.let(backend, name)
        self.assertEqual(await self.done(*clients[1:]), [200] * 3)
        self.assertEqual(backend.names().count("waiting"), 1)
        self.assertNotIn("refused", backend.names())
        self.assertEqual(most_at_once(backend.work("limited") + backend.work("waiting")), 1)
        await self.idle()

    async def test_forgets(self) -> None:
        """C{FLUSHALL}: the same, and nobody is refused."""
        _, backend, front, _ = await self.started()
        clients = [self.ask(front, "/hold/limited", ONE)]
        await backend.begun("limited")
        clients.append(self.ask(front, "/work/waiting?seconds=0", ONE))
        await until(lambda: self.waiting() == 1)
        with self.database() as redis:
            redis.flushall()
        await until(lambda: self.waiting() == 1 and self.taken() == 1)
        clients.append(self.ask(front, "/work/later?seconds=0"))
        self.assertEqual(await self.done(clients[2]), [200])
        await self.let(backend, "limited")
        self.assertEqual(await self.done(*clients[:2]), [200, 200])
        self.assertEqual(backend.names(), ["limited", "later", "waiting"])
        await self.idle()

    async def check_bodies(self, fault: Callable[[Running], Awaitable[Running]]) -> None:
        """Bodies that are on their way both ways arrive whole, though Redis fails more than once."""
        redis = await self.server()
        uploads = Uploads()
        uploads.paused = True
        app, url = await self.lean(), await uploads.listen(self)
        self.config = (
            '[backend.app]\nurl = "{url}"\nmax_spool = 1000000\n'
            f'[backend.up]\nurl = "{url}"\n'
            '[[rule]]\nwhen = {{ method = "POST" }}\nthen = {{ backend = "up" }}\n'
        )
        front, worker = await self.pair(app)
        body = b"".join(pieces(SIZE))
        down = self.ask(front, f"/bytes/down?size={SIZE}")
        up = self.ask(front, "/", method="POST", body=body)
        await until(lambda: len(down.received) > SIZE / 20 and uploads.connections)
        for turn in range(2):
            down.pause()
            redis = await fault(redis)
            await self.back(front, worker)
            down.resume()
            uploads.resume()
            await until(lambda turn=turn: len(down.received) > SIZE * (turn + 2) / 5)
        answers = await gatherResults([down.answer, up.answer])
        self.assertEqual([answer.complete for answer in answers], [True, True])
        self.assertEqual(await deferToThread(digest, [answers[0].body]), digest([body]))
        self.assertEqual(answers[1].body.decode(), digest([body]))
        self.assertEqual((app.names(), len(uploads.done)), (["down"], 1))
        await self.idle()

    async def test_bodies_killed(self) -> None:
        """It is killed and started again, empty."""

        async def restart(redis: Running) -> Running:
            await redis.signal("KILL")
            return await self.server()

        await self.check_bodies(restart)

    async def test_bodies_frozen(self) -> None:
        """It is frozen until all have given it up, and goes on with what it had."""

        async def freeze(redis: Running) -> Running:
            before = {process.pid: self.losses(process) for process in self._proxies}
            redis.freeze()
            for process in self._proxies:
                await until(lambda process=process: self.losses(process) > before[process.pid])
            redis.thaw()
            return redis

        await self.check_bodies(freeze)


class LostTests(FaultCase):
    """
    Frames of bodies are lost while all connections stand, so nobody is told that anything is.

    Every C{lease} a worker sees whether it has heard anything since the last time, and asks if it has not; the answer
    says what of both bodies has to be sent again. So what is lost costs two leases, beside what the rest takes.
    """

    config = """
[backend.app]
url = "{url}"
max_spool = 1000000
"""

    async def check_lost(self, lose: Callable[[bytes], None]) -> None:
        """
        Bodies that are on their way both ways arrive whole, each once.

        @param lose: loses what is in an inbox.
        """
        await self.server()
        backend = await self.lean()
        worker = await self.worker(backend)
        [to_worker] = self.inboxes()
        front = await self.front(backend)
        await until(lambda: len(self.connections()) == 8)
        [to_front] = {*self.inboxes()} - {to_worker}
        connections = self.connections()
        body = b"".join(pieces(SIZE))
        down = self.ask(front, f"/bytes/down?size={SIZE}")
        await until(lambda: len(down.received) > SIZE / 20)
        down.pause()
        up = self.ask(front, "/digest/up", method="POST", body=body)
        await backend.begun("up")
        for client, reader, inbox in ((up, worker, to_worker), (down, front, to_front)):
            if client is down:
                down.resume()
            await self.behind(reader, inbox, client)
            lose(inbox)
            reader.thaw()
            await until(
                lambda client=client: client.answer.called, limit=2 * self.settings["lease"] + TRANSFER
            )
        answers = await gatherResults([down.answer, up.answer])
        self.assertEqual([(answer.status, answer.complete) for answer in answers], [(200, True)] * 2)
        self.assertEqual(await deferToThread(digest, [answers[0].body]), digest([body]))
        self.assertEqual(answers[1].body.decode(), digest([body]))
        self.assertEqual(backend.names(), ["down", "up"])
        self.assertEqual(self.connections(), connections)
        await self.idle()

    def connections(self) -> set[str]:
        """Those to Redis, but for one's own."""
        with self.database() as redis:
            return {each["id"] for each in redis.client_list()} - {str(redis.client_id())}

    async def behind(self, reader: Running, inbox: bytes, client: Client) -> None:
        """Freeze a process when more of a body stands in its inbox than the message that it was just handed."""
        with self.database() as redis:
            while True:
                reader.freeze()
                try:
                    await until(lambda: redis.xlen(inbox) > 1, limit=0.3)
                    return
                except AssertionError:  # the other side waits for a word
                    reader.thaw()
                    self.assertFalse(client.answer.called)
                    await deferLater(reactor, 0.01)

    async def test_flushed(self) -> None:
        """C{FLUSHALL}: the gate's state is gone, too."""

        def flush(_: bytes) -> None:
            with self.database() as redis:
                redis.flushall()

        await self.check_lost(flush)

    async def test_deleted(self) -> None:
        """An inbox is gone, as if its time were over."""

        def delete(inbox: bytes) -> None:
            with self.database() as redis:
                redis.delete(inbox)

        await self.check_lost(delete)


class RefusingTests(FaultCase):
    """Redis has no memory left."""

    async def test_full(self) -> None:
        """What cannot be written waits until it can."""
        _, backend, front, worker = await self.started()
        client = self.ask(front, "/hold/it")
        await backend.begun("it")
        with self.database() as redis:
            redis.config_set("maxmemory", 1)
            await self.let(backend, "it")
            await backend.ended("it")
            await worker.child.said(b"is not usable for the relay: it is out of memory")
            await until(lambda: redis.info("errorstats").get("errorstat_OOM", {"count": 0})["count"] > 2)
            self.assertFalse(client.answer.called)
            redis.config_set("maxmemory", 0)
        self.assertEqual(await self.done(client), [200])
        await worker.child.said(b"is usable for the relay again")
        await self.back(front, worker)
        self.assertEqual(await self.done(self.ask(front, "/work/next?seconds=0")), [200])
        self.assertEqual(backend.names(), ["it", "next"])
        await self.idle()


class LineTests(FaultCase):
    """Bad lines between Redis and each front and worker."""

    settings: ClassVar = {"lease": 5.0, "timeout": PATIENCE}
    config = """
[backend.app]
url = "{url}"

[[limit]]
name = "all"
max_concurrent = 4
"""

    async def lined(self) -> tuple[Backend, list[Running], list[Cutter]]:
        """A backend, two fronts before two workers, and all their lines."""
        backend = await self.lean()
        lines = [self.line(self.redis.removeprefix("unix://")) for _ in range(4)]
        fronts = [await self.front(backend, url=url) for _, url in lines[:2]]
        for _, url in lines[2:]:
            await self.worker(backend, url=url, concurrency=3)
        return backend, fronts, [line for line, _ in lines]

    async def test_cut(self) -> None:
        """Connections that are cut at random moments: all are answered, none is forwarded twice, the limit holds."""
        backend, fronts, lines = await self.lined()
        clients = self.looping(20, "/work/{}?seconds=0.02", *fronts)
        await until(lambda: self.waiting() > 8)
        for _ in range(12):
            await until(lambda: any(line.passages for line in lines))
            random.choice([passage for line in lines for passage in line.passages]).close()
            await deferLater(reactor, random.uniform(0, 0.2))
        seen = len(backend.names())
        await until(lambda: len(backend.names()) > seen + 20)
        answers, work = await clients.end(), backend.work()
        self.assertEqual(answers, {"200": len(work)})
        self.assertLessEqual(most_at_once(work), 4)
        await self.idle()

    async def test_cut_bodies(self) -> None:
        """The same while bodies are on their way: every byte arrives, once."""
        backend, fronts, lines = await self.lined()
        body = b"".join(pieces(SIZE))
        clients = [
            self.ask(fronts[0], f"/bytes/down?size={SIZE}"),
            self.ask(fronts[1], "/digest/up", method="POST", body=body),
        ]
        await until(lambda: clients[0].received)
        while not all(client.answer.called for client in clients):
            passages = [passage for line in lines for passage in line.passages]
            if passages:
                random.choice(passages).close()
            await deferLater(reactor, 0.15)
        answers = await gatherResults([client.answer for client in clients])
        self.assertEqual([(answer.status, answer.complete) for answer in answers], [(200, True)] * 2)
        self.assertEqual(digest([answers[0].body]), digest([body]))
        self.assertEqual(answers[1].body.decode(), digest([body]))
        self.assertEqual(sorted(backend.names()), ["down", "up"])
        await self.idle()

    async def test_silent(self) -> None:
        """Connections that stay open, but carry nothing any more, are noticed and replaced; nobody's request fails."""
        self.settings = {"lease": 2.0, "timeout": 0.5}
        backend, fronts, lines = await self.lined()
        clients = self.looping(8, "/work/{}?seconds=0.02", *fronts)
        await until(lambda: self.waiting() > 2)
        # Those of one front and one worker.
        for line in (lines[0], lines[2]):
            dead = [passage for passage in line.passages if passage.kind == "batches"]
            self.assertGreaterEqual(len(dead), 2)
            for passage in dead[1:]:
                passage.silent = True
            await until(lambda line=line: not any(passage.silent for passage in line.passages))
        seen = len(backend.names())
        await until(lambda: len(backend.names()) > seen + 20)
        answers, work = await clients.end(), backend.work()
        self.assertEqual({*answers} - {"503"}, {"200"})
        self.assertEqual(answers["200"], len(work))
        await self.idle()
