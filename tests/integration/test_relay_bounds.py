"""What the relay keeps in Redis and in its processes: pieces of bounded size, for a bounded time, whoever is slow."""

from __future__ import annotations

import time
from collections.abc import Iterable

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from valkey import Valkey

from tests.integration.application import digest, pieces
from tests.integration.cutter import Cutter
from tests.integration.harness import LEASE, Running, until
from tests.integration.raw import Raw, connect
from tests.integration.relayed import GONE, Peaks, RelayCase, Uploads
from thrtwisted.config import Relay
from thrtwisted.forward.spool import MEMORY, PIECE
from thrtwisted.relay.worker import LINGERING

SIZE = 50_000_000
MAX_INLINE = Relay("front").max_inline

#: Bytes that a process may need for such a body, more than it had before.
EXTRA = 40_000_000

#: Bytes that are nobody's body: in Redis, and in the buffers of its connections.
OVERHEAD = 1_000_000


class BodyTests(RelayCase):
    """50 MB, while somebody is slow."""

    config = """
[backend.app]
url = "{url}"
max_spool = 1000000

[bounds]
body_size = 100000000
"""

    async def started(self, url: str) -> tuple[Running, Running]:
        """A front and a worker that have served a request, with a Redis of their own."""
        await self.server()
        front, worker = await self.pair(url)
        self.before = [process.memory("VmRSS") for process in (front, worker)]
        with self.database() as redis:
            self.used = int(redis.info("memory")["used_memory"])
            redis.config_resetstat()
        return front, worker

    def check(self, front: Running, worker: Running, peaks: Peaks) -> None:
        """Neither processes nor Redis have had much of it at any time."""
        self.assertGreater(peaks.times, 10)
        self.bounded(peaks)
        self.assertGreater(peaks.exchange, MAX_INLINE / 20)
        with self.database() as redis:
            self.assertLess(
                int(redis.info("memory")["used_memory_peak"]) - self.used, 2 * MAX_INLINE + OVERHEAD
            )
        for process, before in zip((front, worker), self.before, strict=True):
            self.assertLess(process.memory("VmHWM") - before, EXTRA)
        for left in peaks.left:
            self.assertTrue(0 < left <= 2000 * LEASE, peaks.left)

    def bounded(self, peaks: Peaks, max_inline: int = MAX_INLINE) -> None:
        """No exchange had more in Redis than it may have; half of that each way."""
        self.assertLessEqual(peaks.exchange, max_inline)
        self.assertLessEqual(peaks.flow, max_inline / 2)

    async def test_slow_reader(self) -> None:
        """The client does not read for a while: the application has to wait. It gets every byte."""
        backend = await self.lean()
        front, worker = await self.started(backend.url)
        with self.watched() as peaks:
            client = self.ask(front, f"/bytes/it?size={SIZE}")
            await until(lambda: len(client.received) > SIZE / 10)
            client.pause()
            with self.database() as redis:
                await self.quiet(redis)
            self.assertEqual(backend.work()[0].end, float("inf"))
            client.resume()
            answer = await client.answer
        self.assertTrue(answer.complete)
        self.assertEqual(await deferToThread(digest, [answer.body]), digest(pieces(SIZE)))
        self.check(front, worker, peaks)
        await self.idle()

    async def test_slow_backend(self) -> None:
        """The application does not read for a while: Redis and the worker do not fill. It gets every byte."""
        uploads = Uploads()
        uploads.paused = True
        url = await uploads.listen(self)
        front, worker = await self.started(url)
        body = b"".join(pieces(SIZE))
        with self.watched() as peaks:
            client = self.ask(front, "/", method="POST", body=body)
            await until(lambda: uploads.connections)
            with self.database() as redis:
                await self.quiet(redis)
            uploads.resume()
            answer = await client.answer
        self.assertEqual((answer.status, answer.body.decode()), (200, digest([body])))
        self.check(front, worker, peaks)
        await self.idle()

    async def quiet(self, redis: Valkey) -> None:
        """Nothing has been written to inboxes for a while."""
        writes, since = -1, 0.0

        def still() -> bool:
            nonlocal writes, since
            seen = redis.info("commandstats").get("cmdstat_xadd", {"calls": 0})["calls"]
            if seen != writes:
                writes, since = seen, time.monotonic()
            return time.monotonic() - since > 0.3

        await until(still)

    async def cut_often(self, line: Cutter, redis: Valkey, inbox: bytes) -> None:
        """A front's connections come and go; each time it asks the worker, which does not read its inbox."""
        for _ in range(6):
            before = redis.xlen(inbox)
            for passage in list(line.passages):
                passage.close()
            await until(lambda before=before: redis.xlen(inbox) > before)

    async def test_frozen_worker(self) -> None:
        """It does not read, and the front's connections come and go: nothing is written twice before it reads again."""
        uploads = Uploads()
        uploads.paused = True
        self.settings = {"lease": 20.0}
        await self.server()
        line, url = self.line(self.redis.removeprefix("unix://"))
        application = await uploads.listen(self)
        worker = await self.worker(application)
        [inbox] = self.inboxes()
        front = await self.front(application, url=url)
        body = b"".join(pieces(5_000_000))
        with self.watched() as peaks, self.database() as redis:
            client = self.ask(front, "/", method="POST", body=body)
            await until(lambda: uploads.connections)
            await self.quiet(redis)
            worker.freeze()
            await self.cut_often(line, redis, inbox)
            worker.thaw()
            uploads.resume()
            answer = await client.answer
        self.assertEqual((answer.status, answer.body.decode()), (200, digest([body])))
        self.bounded(peaks)
        await self.idle()

    async def test_full(self) -> None:
        """Of a body that its worker does not read, Redis has nearly all that a window has room for, and no more."""
        backend = await self.lean()
        self.settings = {"lease": 20.0}
        await self.server()
        front, worker = await self.pair(backend)
        worker.freeze()
        body = b"".join(pieces(5_000_000))
        with self.watched() as peaks, self.database() as redis:
            client = self.ask(front, "/digest/up", method="POST", body=body)
            await until(lambda: peaks.flow > 0.9 * MAX_INLINE / 2)
            await self.quiet(redis)
            worker.thaw()
            answer = await client.answer
        self.assertEqual(answer.body.decode(), digest([body]))
        self.bounded(peaks)
        await self.idle()

    async def test_frozen_before_the_head(self) -> None:
        """Nor is a head that it has not read yet, however small the window is."""
        self.settings = {"lease": 20.0}
        smallest = 4096
        await self.server()
        line, url = self.line(self.redis.removeprefix("unix://"))
        backend = await self.lean()
        worker = await self.worker(backend, max_inline=smallest)
        [inbox] = self.inboxes()
        front = await self.front(backend, url=url, max_inline=smallest)
        worker.freeze()
        with self.watched() as peaks, self.database() as redis:
            client = self.ask(front, "/work/it?seconds=0", {"X-Long": "x" * 10_000})
            await until(lambda: redis.xlen(inbox))
            await self.cut_often(line, redis, inbox)
            worker.thaw()
            self.assertEqual(await self.done(client), [200])
        self.assertLessEqual(peaks.exchange, smallest)
        self.assertEqual(backend.names(), ["it"])
        await self.idle()

    async def test_other_way(self) -> None:
        """While one body waits for its client, others pass through the same inboxes."""
        backend = await self.lean()
        front, _ = await self.started(backend.url)
        slow = self.ask(front, f"/bytes/slow?size={SIZE}")
        await until(lambda: slow.received)
        slow.pause()
        with self.database() as redis:
            await self.quiet(redis)
        others = [self.ask(front, f"/bytes/{number}?size=2000000") for number in range(5)]
        for answer in await gatherResults([client.answer for client in others]):
            self.assertEqual((answer.complete, len(answer.body)), (True, 2_000_000))
        self.assertFalse(slow.answer.called)
        slow.leave()
        await self.idle()

    async def test_small_pieces(self) -> None:
        """With the smallest C{max_inline} all passes as well, only slower."""
        backend = await self.lean()
        self.settings = {"lease": 5.0}
        smallest = 4096
        url = backend.url
        front = await self.front(url, max_inline=smallest)
        await self.worker(url, max_inline=smallest)
        body = b"".join(pieces(300_000))
        with self.watched() as peaks:
            clients = [
                self.ask(front, "/bytes/down?size=300000"),
                self.ask(front, "/digest/up", method="POST", body=body),
            ]
            down, up = await gatherResults([client.answer for client in clients])
        self.assertEqual((down.complete, down.body), (True, body))
        self.assertEqual(up.body.decode(), digest([body]))
        self.bounded(peaks, smallest)
        await self.idle()


class CrowdTests(RelayCase):
    """Clients by the dozen that do not read their answers, of which the front has no room for any on its disk."""

    size = 6_000_000
    room = 4
    config = """
[backend.app]
url = "{url}"
"""

    #: What a client costs in each half: what is under way; what waits for it to be sent; what the spool has in memory.
    #: In the front it is the transport to the client that has something instead of the second.
    each = (MAX_INLINE // 2) * 5 // 4 + PIECE + MEMORY

    async def slow(self, front: Running, names: Iterable[str]) -> list[Raw]:
        """Clients that do not read."""
        requests = [
            f"GET /bytes/{name}?size={self.size} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            for name in names
        ]
        clients = await gatherResults([connect(front, request.encode()) for request in requests])
        for client in clients:
            client.transport.pauseProducing()
            self.addCleanup(client.leave)
        return clients

    def check(self, clients: int, processes: Iterable[Running]) -> None:
        """No process has more of them than it may."""
        for process, before in zip(processes, self.before, strict=True):
            grown = process.memory("VmHWM") - before
            self.assertLess(grown, clients * self.each * 1.1 + 5_000_000)

    async def test_crowd(self) -> None:
        """Few wait without a place, and the others in theirs. Honest clients are served, or wait; nobody is cut."""
        backend = await self.lean()
        worker = await self.worker(backend, concurrency=self.room)
        self.config += "\n[bounds]\nspool = 1000000\nbody_size = 1000000\n"
        front = await self.front(backend)
        processes = front, worker
        self.assertEqual(await self.done(self.ask(front, f"/bytes/first?size={self.size}")), [200])
        self.before = [process.memory("VmHWM") for process in processes]
        most = LINGERING + self.room

        def read(count: int) -> bool:
            """The application has said so many answers to their ends."""
            work = backend.work("slow-")
            return len(work) == count and all(each.end < float("inf") for each in work)

        clients = await self.slow(front, [f"slow-{number}" for number in range(40)])
        await until(lambda: read(40), limit=60)
        self.assertEqual(await self.done(self.ask(front, "/bytes/honest?size=1000000")), [200])
        self.check(40, processes)
        clients += await self.slow(front, [f"slow-{number}" for number in range(40, most)])
        await until(lambda: read(most), limit=60)
        honest = self.ask(front, "/bytes/honest?size=1000000")
        await until(lambda: self.waiting() == 1)
        self.assertEqual(self.taken(), self.room)
        self.check(most, processes)
        clients[0].leave()
        self.assertEqual(await self.done(honest), [200])
        for client in clients[1:-5]:
            client.leave()
        whole = digest(pieces(self.size))
        for client in clients[-5:]:
            client.transport.resumeProducing()
            answer = await client.end()
            self.assertEqual((answer.complete, digest([answer.body])), (True, whole))
        await self.idle()


class LifeTests(RelayCase):
    """Times to live."""

    async def test_inboxes(self) -> None:
        """Every inbox has a time to live; an answer that takes longer than that arrives as well."""
        backend = await self.lean()
        front, _ = await self.pair(backend)
        client = self.ask(front, "/hold/it")
        await backend.begun("it")
        began = time.monotonic()
        with self.database() as redis:

            def passed() -> bool:
                for key in self.inboxes():
                    left = redis.pttl(key)
                    self.assertTrue(0 <= left <= 2000 * LEASE or left == GONE, (key, left))
                return time.monotonic() - began > 2.5 * LEASE

            await until(passed)
        await self.let(backend, "it")
        self.assertEqual(await self.done(client), [200])

    async def test_killed(self) -> None:
        """Those of killed processes are gone soon, with whatever is in them."""
        backend = await self.lean()
        front, worker = await self.pair(backend)
        worker.freeze()
        clients = [self.ask(front, f"/work/{number}?seconds=0") for number in range(3)]
        await until(lambda: self.taken() == 3)
        await gatherResults([process.signal("KILL") for process in (front, worker)])
        await until(lambda: not self.inboxes(), limit=4 * LEASE)
        self.assertEqual([(await client.answer).status for client in clients], [0] * 3)

    async def test_stopped(self) -> None:
        """Nothing at all is left of those that were stopped."""
        backend = await self.lean()
        front, worker = await self.pair(backend)
        self.assertEqual(await self.done(self.ask(front, "/bytes/it?size=1000000")), [200])
        await front.signal("TERM")
        await worker.signal("TERM")
        await self.gone()
