"""Workers and fronts that die or are frozen: who is told what, who goes to another worker, and what comes back when."""

from __future__ import annotations

import random
import time
from itertools import chain
from typing import ClassVar

from twisted.internet.defer import gatherResults

from tests.integration.harness import (
    LEASE,
    Backend,
    Client,
    Running,
    most_at_once,
    until,
)
from tests.integration.raw import connect
from tests.integration.relayed import RelayCase, Uploads
from thrtwisted.config import Relay

ONE = {"One": "a"}

#: Of a worker whose configuration does not say.
PLACES = Relay("worker").concurrency


class WorkerKilledTests(RelayCase):
    """SIGKILL to a worker."""

    async def test_under_way(self) -> None:
        """Who was under way gets 502 within the lease and a second, and the slot is free then; who waited goes on."""
        backend = await self.lean()
        front, doomed = await self.pair(backend, concurrency=2)
        lost = [self.ask(front, "/hold/lost", ONE), self.ask(front, "/hold/other", method="POST", body=b"x")]
        await gatherResults([backend.begun("lost"), backend.begun("other")])
        clients = [self.ask(front, f"/work/waiting-{number}?seconds=0", ONE) for number in range(2)]
        await until(lambda: self.waiting() == 2)
        killed = time.monotonic()
        await doomed.signal("KILL")
        for client in lost:
            self.lost(await client.answer, killed)
        await until(lambda: (self.admitted(), self.taken()) == (0, 0))
        self.assertLess(time.monotonic() - killed, LEASE + 1.0)
        self.assertEqual(self.waiting(), 2)
        await self.worker(backend, concurrency=2)
        self.assertEqual(await self.done(*clients), [200, 200])
        self.assertEqual(most_at_once(backend.work("waiting")), 1)
        await self.idle()

    async def test_other_worker(self) -> None:
        """What another worker has is untouched; it gets what waits as soon as the slot is free."""
        backend, other = await self.lean(), await self.lean()
        front = await self.front(backend)
        doomed = await self.worker(backend, concurrency=1)
        lost = self.ask(front, "/hold/lost", ONE)
        await backend.begun("lost")
        await self.worker(other, concurrency=2)
        kept = self.ask(front, "/hold/kept")
        await other.begun("kept")
        waiting = self.ask(front, "/work/waiting?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        killed = time.monotonic()
        await doomed.signal("KILL")
        self.lost(await lost.answer, killed)
        self.assertEqual(await self.done(waiting), [200])
        self.assertLess(other.work("waiting")[0].begin - killed, LEASE + 1.0)
        await self.let(other, "kept")
        self.assertEqual(await self.done(kept), [200])
        await self.idle()


class ReclaimTests(RelayCase):
    """A backend that may be at work for a while on what a dead worker had sent."""

    delay = 1.0
    config = f"""
[backend.app]
url = "{{url}}"
reclaim_delay = {delay}

[[limit]]
name = "one"
key = "header:One"
max_concurrent = 1
"""

    async def test_reclaim_delay(self) -> None:
        """The client is told as early as ever; the slot is free so much later."""
        backend = await self.lean()
        front, doomed = await self.pair(backend)
        lost = self.ask(front, "/hold/lost", ONE)
        await backend.begun("lost")
        await self.worker(backend)
        waiting = self.ask(front, "/work/waiting?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        killed = time.monotonic()
        await doomed.signal("KILL")
        answer = await lost.answer
        self.lost(answer, killed)
        self.assertEqual(await self.done(waiting), [200])
        begin = backend.work("waiting")[0].begin
        # The worker's lease was renewed in the last quarter of it, and ends so much later than it was killed.
        self.assertGreater(begin - killed, self.delay + LEASE / 2)
        self.assertLess(begin - killed, LEASE + 1.0 + self.delay)
        await self.idle()


class CutTests(RelayCase):
    """A response that has begun."""

    config = """
[backend.app]
url = "{url}"
max_spool = 100000
"""

    async def test_cut(self) -> None:
        """It is cut for the client: it does not look complete."""
        backend = await self.lean()
        front, doomed = await self.pair(backend)
        client = self.ask(front, "/bytes/large?size=50000000")
        await until(lambda: client.received)
        client.pause()
        self.assertEqual(backend.work()[0].end, float("inf"))
        await doomed.signal("KILL")
        await until(lambda: not self.admitted() and not self.taken())
        client.resume()
        answer = await client.answer
        self.assertEqual((answer.status, answer.complete), (200, False))
        self.assertLess(len(answer.body), 50_000_000)
        await self.idle()


class RetryTests(RelayCase):
    """With C{retry = "safe"}, two workers, each with an application of its own."""

    async def held(self, method: str) -> tuple[Backend, Running, Running, Client]:
        """A request is held in the one worker's application; the other's is idle."""
        backend, other = await self.lean(), await self.lean()
        front = await self.front(backend, retry="safe")
        doomed = await self.worker(backend)
        client = self.ask(front, "/hold/it", ONE, method=method)
        await backend.begun("it")
        await self.worker(other)
        return other, front, doomed, client

    async def test_safe(self) -> None:
        """A safe request is sent to the other worker, once; it keeps its place before those who wait."""
        other, front, doomed, client = await self.held("GET")
        waiting = self.ask(front, "/work/waiting?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        await doomed.signal("KILL")
        await other.begun("it")
        self.assertEqual(self.waiting(), 1)
        await self.let(other, "it")
        self.assertEqual(await self.done(client, waiting), [200, 200])
        self.assertEqual(other.names(), ["it", "waiting"])
        await self.idle()

    async def test_once(self) -> None:
        """It is lost with the second worker."""
        other, _, doomed, client = await self.held("GET")
        await doomed.signal("KILL")
        await other.begun("it")
        killed = time.monotonic()
        await self.workers[1].signal("KILL")
        self.lost(await client.answer, killed)
        await self.idle()

    async def test_not_safe(self) -> None:
        """Any other request is not sent again."""
        other, _, doomed, client = await self.held("DELETE")
        killed = time.monotonic()
        await doomed.signal("KILL")
        self.lost(await client.answer, killed)
        await self.idle()
        self.assertEqual(other.names(), [])


class WorkerFrozenTests(RelayCase):
    """A worker that does nothing for longer than its lease, while its connections stay open."""

    async def test_not_taken(self) -> None:
        """What it had not taken goes to another worker, whatever its method, in its order; it does nothing with it."""
        backend, other = await self.lean(), await self.lean()
        front, frozen = await self.pair(backend)
        frozen.freeze()
        first = self.ask(front, "/digest/first", ONE, method="POST", body=b"x" * 100_000)
        await until(self.taken)
        second = self.ask(front, "/work/second?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        await self.worker(other)
        self.assertEqual(await self.done(first, second), [200, 200])
        self.assertEqual(other.names(), ["first", "second"])
        frozen.thaw()
        await self.serves(front, backend, other)
        self.assertEqual(backend.work("first"), [])
        await self.idle()

    async def test_taken(self) -> None:
        """What it had taken is 502; what it says of it later nobody hears, and it serves again."""
        backend = await self.lean()
        front, frozen = await self.pair(backend)
        lost = self.ask(front, "/hold/lost", ONE)
        await backend.begun("lost")
        stopped = time.monotonic()
        frozen.freeze()
        self.lost(await lost.answer, stopped)
        waiting = self.ask(front, "/work/waiting?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        frozen.thaw()
        self.assertEqual(await self.done(waiting), [200])
        await self.let(backend, "lost")
        await self.serves(front, backend)
        self.assertEqual(backend.names()[:2], ["lost", "waiting"])
        await self.idle()

    async def serves(self, front: Running, *backends: Backend) -> None:
        """All places of all workers can be taken, each of which has an application of its own."""
        names = [f"late-{number}" for number in range(PLACES * len(backends))]
        clients = [self.ask(front, f"/hold/{name}") for name in names]
        await until(lambda: [len(backend.work("late-")) for backend in backends] == [PLACES] * len(backends))
        for backend in backends:
            for work in backend.work("late-"):
                await self.let(backend, work.name)
        self.assertEqual(await self.done(*clients), [200] * len(names))


class FrontTests(RelayCase):
    """Fronts that die."""

    async def test_killed(self) -> None:
        """Those of its requests that wait are never forwarded; those under way finish, with their slots."""
        backend = await self.lean()
        doomed, other = await self.front(backend), await self.front(backend)
        worker = await self.worker(backend, concurrency=3)
        lost = [self.ask(doomed, "/hold/limited", ONE), self.ask(doomed, "/hold/free")]
        await gatherResults([backend.begun("limited"), backend.begun("free")])
        lost += [self.ask(doomed, f"/work/never-{number}?seconds=0", ONE) for number in range(2)]
        await until(lambda: self.waiting() == 2)
        kept = self.ask(other, "/work/kept?seconds=0", ONE)
        await until(lambda: self.waiting() == 3)
        killed = time.monotonic()
        await doomed.signal("KILL")
        await until(lambda: self.waiting() == 1)
        self.assertLess(time.monotonic() - killed, LEASE + 1.0)
        self.assertEqual(await self.done(self.ask(other, "/work/meanwhile?seconds=0")), [200])
        self.assertEqual((self.admitted(), self.taken(), self.waiting()), (1, 2, 1))
        await self.let(backend, "limited")
        self.assertEqual(await self.done(kept), [200])
        self.assertEqual(self.taken(), 1)
        await self.let(backend, "free")
        await self.idle()
        self.assertEqual(sorted(backend.names()), ["free", "kept", "limited", "meanwhile"])
        self.assertLess(backend.work("limited")[0].end, backend.work("kept")[0].begin)
        self.assertEqual([(await client.answer).status for client in lost], [0] * 4)
        await until(lambda: len(self.inboxes()) <= 2, limit=4 * LEASE)
        self.assertEqual(await worker.signal("TERM"), -15)

    async def test_inbox(self) -> None:
        """The inbox of a killed one passes, though the application is still at work on what it has sent."""
        backend = await self.lean()
        front, _ = await self.pair(backend)
        self.ask(front, "/hold/it", ONE)
        await backend.begun("it")
        await front.signal("KILL")
        await until(lambda: [place[:1] for place in self.places()] == [b"o"])
        known = time.monotonic()
        seen: list[float] = []

        def passed() -> bool:
            """It was looked for long enough."""
            now = time.monotonic() - known
            with self.database() as redis:
                [worker] = redis.hkeys(f"{{{self.namespace}}}:workers")
            if not all(key.endswith(worker) for key in self.inboxes()):
                seen.append(now)
            return now > 5 * LEASE

        await until(passed)
        self.assertLess(max(seen, default=0.0), 3 * LEASE)
        self.assertEqual(self.taken(), 1)
        await self.let(backend, "it")
        await self.idle()

    async def test_frozen(self) -> None:
        """What one has begun that is frozen past its lease keeps its slot until the application has finished."""
        backend = await self.lean()
        frozen, other = await self.front(backend), await self.front(backend)
        await self.worker(backend)
        client = self.ask(frozen, "/hold/it", ONE)
        await backend.begun("it")
        frozen.freeze()
        waiting = self.ask(other, "/work/waiting?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        # The worker knows, and holds the slot itself.
        await until(lambda: [place[:1] for place in self.places()] == [b"o"])
        frozen.thaw()
        await until(lambda: [place[:1] for place in self.places()] == [b"t"])
        for front in (frozen, other):
            self.assertEqual(await self.done(self.ask(front, f"/work/free-{front.port}?seconds=0")), [200])
        self.assertEqual((self.admitted(), self.taken(), self.waiting()), (1, 1, 1))
        await self.let(backend, "it")
        self.assertEqual((await client.answer).status, 502)
        self.assertEqual(await self.done(waiting), [200])
        self.assertLess(backend.work("it")[0].end, backend.work("waiting")[0].begin)
        await self.idle()

    async def test_upload(self) -> None:
        """An upload that is not complete is broken off, and its slot is free."""
        uploads = Uploads()
        uploads.paused = True
        url = await uploads.listen(self)
        front = await self.front(url)
        await self.worker(url)
        await connect(
            front, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000000\r\n\r\n" + bytes(20_000_000)
        )
        await until(lambda: uploads.connections and self.taken())
        await front.signal("KILL")
        await until(lambda: not self.taken())
        uploads.resume()
        await until(lambda: not uploads.connections)
        self.assertEqual(uploads.done, [])
        await self.idle()

    async def test_all(self) -> None:
        """When all processes were killed, new ones take up; nobody waits for what is gone."""
        backend = await self.lean()
        old = await self.pair(backend)
        self.ask(old[0], "/hold/lost", ONE)
        await backend.begun("lost")
        self.ask(old[0], "/work/never?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        killed = time.monotonic()
        await gatherResults([process.signal("KILL") for process in old])
        front = await self.front(backend)
        await self.worker(backend)
        asked = time.monotonic()
        self.assertEqual(await self.done(self.ask(front, "/work/next?seconds=0", ONE)), [200])
        self.assertLess(backend.work("next")[0].begin, max(asked, killed + LEASE) + 1.0)
        self.assertEqual(backend.names(), ["lost", "next"])
        await self.idle()


class StormTests(RelayCase):
    """Workers that are killed again and again, under load."""

    config = """
[backend.app]
url = "{url}"

[[limit]]
name = "all"
max_concurrent = 6
"""
    # A stall of a busy machine is no outage, which would be answered 503.
    settings: ClassVar = {"lease": 2.0, "timeout": 1.0}
    rounds = 3
    places = 3

    async def test_storm(self) -> None:
        """Never is a limit exceeded, nor the places of a worker, nor is anything forwarded twice; few are lost."""
        backends = [await self.lean() for _ in range(3)]
        fronts = [await self.front(backends[0]) for _ in range(2)]
        workers = [await self.worker(backend, concurrency=self.places) for backend in backends]
        clients = self.looping(20, "/work/{}?seconds=0.03", *fronts)
        doomed = await self.front(backends[0])
        await until(lambda: self.waiting() >= 5)
        for number in range(20):
            self.ask(doomed, f"/work/doomed-{number}?seconds=0.03")
        for _ in range(self.rounds):
            number = random.randrange(len(workers))
            await workers[number].signal("KILL")
            workers[number] = await self.worker(backends[number], concurrency=self.places)
            seen = len(backends[number].names())
            await until(lambda number=number, seen=seen: len(backends[number].names()) > seen)
            if not doomed.child.ended.called:
                await doomed.signal("KILL")
        answers = await clients.end()
        work = list(chain.from_iterable(backend.work() for backend in backends))
        self.assertEqual(len({each.name for each in work}), len(work))
        self.assertLessEqual({*answers}, {"200", "502"})
        self.assertLessEqual(answers.get("502", 0), self.rounds * self.places)
        self.assertLessEqual(most_at_once(work), 6)
        for backend in backends:
            self.assertLessEqual(most_at_once(backend.work()), self.places)
        await self.idle()


class PlacesTests(RelayCase):
    """Workers whose places are all that bounds anything, under more load than they have places for."""

    # None is taken for dead that lives, however busy the machine is.
    settings: ClassVar = {"lease": 4.0, "timeout": 1.0}
    config = """
[backend.app]
url = "{url}"
"""
    sizes = (2, 3, 4)

    async def test_places(self) -> None:
        """
        No worker ever has more in its application than it has places, nor is it given more: while workers are killed, a
        front with requests in all of them, and Redis forgets everything.
        """
        await self.server()
        backends = [await self.lean() for _ in self.sizes]
        fronts = [await self.front(backends[0]) for _ in range(2)]
        workers = [
            await self.worker(backend, concurrency=places)
            for backend, places in zip(backends, self.sizes, strict=True)
        ]
        doomed = await self.front(backends[0])
        for number in range(3):
            self.ask(doomed, f"/hold/doomed-{number}")
        await until(lambda: sum(len(backend.work("doomed-")) for backend in backends) == 3)
        clients = self.looping(20, "/work/{}?seconds=0.03", *fronts)
        await self.goes_on(backends)
        await doomed.signal("KILL")
        # They are the workers' own then, and keep their places.
        await until(lambda: sum(place[:1] == b"o" for place in self.places()) == 3)
        await self.goes_on(backends)
        with self.database() as redis:
            redis.flushall()
        await self.goes_on(backends)
        lives = list(zip(backends, self.sizes, strict=True))
        for number, places in enumerate(self.sizes):
            await workers[number].signal("KILL")
            # What was torn from the dead is still in its application; so its successor has one of its own.
            backends[number] = await self.lean()
            lives.append((backends[number], places))
            workers[number] = await self.worker(backends[number], concurrency=places)
            await self.goes_on(backends)
        answers = await clients.end()
        self.assertLessEqual({*answers}, {"200", "502"})
        self.assertLessEqual(answers.get("502", 0), sum(self.sizes))
        self.assertEqual(
            [most_at_once(backend.work()) for backend, _ in lives], [places for _, places in lives]
        )
        names = [name for backend, _ in lives for name in backend.names()]
        self.assertEqual(len({*names}), len(names))
        await self.idle()

    async def goes_on(self, backends: list[Backend]) -> None:
        """See that requests wait, and that each worker has some more; meanwhile, that Redis gives none too many."""
        seen = [len(backend.work()) for backend in backends]

        def more() -> bool:
            self.assertEqual([each for each in self.given() if each[0] > each[1]], [])
            return all(
                len(backend.work()) > before + 5 for backend, before in zip(backends, seen, strict=True)
            )

        await until(lambda: self.waiting() >= 5)
        await until(more)

    def given(self) -> list[tuple[int, int]]:
        """How many requests each worker was given, and how many places it has."""
        own = f"{{{self.namespace}}}"
        with self.database() as redis:
            words = redis.hgetall(f"{own}:workers")
            return [
                (redis.hlen(f"{own}:at:{name.decode()}"), int(word.split()[0]))
                for name, word in words.items()
            ]
