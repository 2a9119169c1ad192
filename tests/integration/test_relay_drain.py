"""Workers that are stopped while requests come: no client and no front is to notice."""

from __future__ import annotations

import signal
import time
from itertools import pairwise
from typing import ClassVar

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, gatherResults

from tests.integration.application import digest, pieces
from tests.integration.harness import Client, Missed, Running, most_at_once, until
from tests.integration.relayed import RelayCase, Uploads

ONE = {"One": "a"}
SIZE = 20_000_000


class DrainTests(RelayCase):
    """SIGTERM to a worker."""

    async def test_drain(self) -> None:
        """It takes nothing new, finishes what it has, and ends; the next worker has the others then."""
        backend = await self.lean()
        front, old = await self.pair(backend, concurrency=2)
        working = [self.ask(front, f"/hold/{number}") for number in range(2)]
        await gatherResults([backend.begun(f"{number}") for number in range(2)])
        waiting = [self.ask(front, f"/work/waiting-{number}?seconds=0") for number in range(2)]
        await until(lambda: self.waiting() == 2)
        stopped = old.signal("TERM")
        await self.let(backend, "0")
        self.assertEqual(await self.done(working[0]), [200])
        await until(lambda: self.taken() == 1)
        # It has a place free, and would be given something if it took anything.
        self.assertEqual((self.waiting(), stopped.called), (2, False))
        await self.let(backend, "1")
        self.assertEqual(await stopped, -signal.SIGTERM)
        self.assertEqual(await self.done(working[1]), [200])
        self.assertEqual((self.taken(), self.waiting()), (0, 2))
        self.assertEqual(backend.work("waiting"), [])
        await self.worker(backend)
        self.assertEqual(await self.done(*waiting), [200, 200])
        await self.idle()

    async def test_idle(self) -> None:
        """One that has nothing to do ends at once, and leaves nothing."""
        backend = await self.lean()
        worker = await self.worker(backend)

        async def stops(prefix: str) -> Missed | None:
            nonlocal worker
            began = time.monotonic()
            self.assertEqual(await worker.signal("TERM"), -signal.SIGTERM)
            took = time.monotonic() - began
            self.assertEqual(self.keys(), [])
            worker = await self.worker(backend)
            return None if took < 1.0 else Missed(f"it took {took:.3f} s", took)

        await self.measured(stops)

    async def test_slow_reader(self) -> None:
        """It hands over the rest of an answer that the client does not read yet; then it is not needed any more."""
        backend = await self.lean()
        front, worker = await self.pair(backend)
        client = self.ask(front, f"/bytes/large?size={SIZE}")
        await until(lambda: client.received)
        client.pause()
        self.assertEqual(await worker.signal("TERM"), -signal.SIGTERM)
        self.assertLess(len(client.received), SIZE)
        client.resume()
        answer = await client.answer
        self.assertTrue(answer.complete)
        self.assertEqual(digest([answer.body]), digest(pieces(SIZE)))
        await self.idle()

    async def test_upload(self) -> None:
        """It takes an upload to its end."""
        uploads = Uploads()
        uploads.paused = True
        url = await uploads.listen(self)
        front, worker = await self.pair(url)
        body = b"".join(pieces(SIZE))
        client = self.ask(front, "/", method="POST", body=body)
        await until(lambda: uploads.connections)
        stopped = worker.signal("TERM")
        await until(lambda: b"Received SIGTERM" in worker.child.output)
        uploads.resume()
        answer = await client.answer
        self.assertEqual((answer.status, answer.body.decode()), (200, digest([body])))
        self.assertEqual(await stopped, -signal.SIGTERM)
        await self.idle()

    async def test_in_time(self) -> None:
        """What does not come to an end in C{shutdown_timeout} is given up: 502, and the slot is free."""
        backend = await self.lean()
        front, worker = await self.pair(backend, shutdown_timeout=0.5)
        client = self.ask(front, "/hold/it", ONE)
        await backend.begun("it")
        self.assertEqual(await worker.signal("TERM"), -signal.SIGTERM)
        answer = await client.answer
        self.assertEqual((answer.status, answer.complete), (502, True))
        await until(lambda: (self.admitted(), self.taken()) == (0, 0))
        await self.idle()

    async def test_without_redis(self) -> None:
        """One that has nothing to do ends after a lease, though Redis is not there; or before, in its time."""
        redis = await self.server()
        backend = await self.lean()
        hasty = await self.worker(backend, shutdown_timeout=0.5)
        patient = await self.worker(backend, shutdown_timeout=60.0)
        await redis.signal("KILL")
        began = time.monotonic()
        ends = [worker.signal("TERM") for worker in (hasty, patient)]
        self.assertEqual(await gatherResults(ends), [-signal.SIGTERM] * 2)
        self.assertLess(time.monotonic() - began, 30.0)
        self.assertIn(b"Stopped before Redis has said", hasty.child.output)
        for worker in (hasty, patient):
            self.assertNotIn(b"Stopped with requests", worker.child.output)


class SlowCase(RelayCase):
    """Clients that may be as slow as they like, and a front that keeps little for them: answers wait at workers."""

    # None is to be taken for dead, however busy the machine is.
    settings: ClassVar = {"lease": 6.0, "timeout": 1.5}
    config = """
[backend.app]
url = "{url}"
max_spool = 100000

[bounds]
body_min_rate = 0
"""


class LongTests(SlowCase):
    """Answers that are at the worker, for the front takes no more of them."""

    async def stopped(self, shutdown_timeout: float) -> tuple[Client, Running]:
        """A client that reads nothing of an answer that has begun, and its worker, which was told to stop."""
        backend = await self.lean()
        front, worker = await self.pair(backend, shutdown_timeout=shutdown_timeout)
        client = self.ask(front, f"/bytes/large?size={SIZE}")
        await until(lambda: client.received)
        client.pause()
        worker.signal("TERM")
        await worker.child.said(b"Received SIGTERM")
        return client, worker

    async def test_waits(self) -> None:
        """The worker waits for the client."""
        client, worker = await self.stopped(30.0)
        await until(lambda: not self.free_places())
        self.assertFalse(worker.child.ended.called)
        client.resume()
        answer = await client.answer
        self.assertEqual((answer.status, answer.complete), (200, True))
        self.assertEqual(digest([answer.body]), digest(pieces(SIZE)))
        self.assertEqual(await worker.child.ended, -signal.SIGTERM)
        await self.idle()

    async def test_in_time(self) -> None:
        """It does for C{shutdown_timeout}; then the answer is cut, and does not look complete."""
        client, worker = await self.stopped(0.5)
        self.assertEqual(await worker.child.ended, -signal.SIGTERM)
        client.resume()
        answer = await client.answer
        self.assertEqual((answer.status, answer.complete), (200, False))
        await self.idle()

    def free_places(self) -> list[bytes]:
        """The keys of queues that a worker has places for."""
        return [key for key in self.keys() if b"}:serving:" in key]


class RollingTests(SlowCase):
    """All workers are replaced, one after the other, under load."""

    upload = b"".join(pieces(300_000))
    download = 10_000_000

    def setUp(self) -> None:
        super().setUp()
        self.over = False
        self.stops = self.paused = 0
        self.beside: list[Deferred[int]] = []
        self.addCleanup(self.end_beside)

    async def end_beside(self) -> None:
        """Wait for those who ask beside the crowd."""
        self.over = True
        await DeferredList(self.beside, consumeErrors=True)

    async def test_rolling(self) -> None:
        """
        All are answered, none is forwarded twice, and the places of those that run are never exceeded; bodies both ways
        are among it, and downloads that take longer than the stop of a worker.
        """
        backend = await self.lean()
        fronts = [await self.front(backend) for _ in range(2)]
        workers = [await self.worker(backend, concurrency=3, shutdown_timeout=60.0) for _ in range(2)]
        clients = self.looping(12, "/work/get-{}?seconds=0.03", *fronts)
        self.beside = [ensureDeferred(self.uploads(front)) for front in fronts]
        self.beside += [ensureDeferred(self.downloads(front)) for front in fronts]
        await until(lambda: self.waiting() >= 4)
        for number in range(2):
            await until(lambda: self.paused == 2)
            old = workers.pop(0)
            if number % 2:  # its successor comes first
                workers.append(await self.worker(backend, concurrency=3, shutdown_timeout=60.0))
            old.signal("TERM")
            await old.child.said(b"Received SIGTERM")
            self.stops += 1
            self.assertEqual(await old.child.ended, -signal.SIGTERM)
            if not number % 2:
                workers.append(await self.worker(backend, concurrency=3, shutdown_timeout=60.0))
        seen = len(backend.names())
        await until(lambda: len(backend.names()) > seen + 20)
        self.over = True
        self.assertGreater(min(await gatherResults(self.beside)), 0)
        answers, work = await clients.end(), backend.work()
        self.assertEqual(answers, {"200": len(backend.work("get-"))})
        self.assertLessEqual(most_at_once(work), 9)
        begins = [each.begin for each in work]
        self.assertLess(max(later - earlier for earlier, later in pairwise(begins)), 1.0)
        await self.idle()

    async def uploads(self, front: Running) -> int:
        """Send bodies, one after the other, until all is over; how many."""
        count = 0
        while not self.over:
            client = self.ask(front, f"/digest/up-{front.port}-{count}", method="POST", body=self.upload)
            answer = await client.answer
            self.assertEqual((answer.status, answer.body.decode()), (200, digest([self.upload])))
            count += 1
        return count

    async def downloads(self, front: Running) -> int:
        """The same with answers, of which each is only read when one more worker is being stopped."""
        count = 0
        while not self.over:
            client = self.ask(front, f"/bytes/down-{front.port}-{count}?size={self.download}")
            await until(lambda client=client: client.received)
            client.pause()
            stops = self.stops
            self.paused += 1
            await until(lambda stops=stops: self.over or self.stops > stops, limit=60.0)
            self.paused -= 1
            client.resume()
            answer = await client.answer
            self.assertEqual((answer.status, answer.complete), (200, True))
            self.assertEqual(digest([answer.body]), digest(pieces(self.download)))
            count += 1
        return count

    async def test_fronts(self) -> None:
        """A front that is stopped finishes what it has; the worker goes on for the next."""
        backend = await self.lean()
        old, _ = await self.pair(backend)
        clients = [self.ask(old, "/hold/it")]
        await backend.begun("it")
        stopped = old.signal("TERM")
        new = await self.front(backend)
        clients.append(self.ask(new, "/work/new?seconds=0"))
        self.assertEqual(await self.done(clients[1]), [200])
        await self.let(backend, "it")
        self.assertEqual(await self.done(clients[0]), [200])
        self.assertEqual(await stopped, -signal.SIGTERM)
        await self.idle()
