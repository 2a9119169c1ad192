"""
Fronts, workers and Redis that die, freeze and come back at random, while clients ask; and what has to be true of it.

    python -m tests.integration.chaos [--minutes N] [--seed S]

Each worker has an application of its own, so what that has seen is what the worker has sent. With C{retry = "never"} no
request is executed twice; an answer that looks whole is right; each client is answered, or cut, in time; limits and
places hold for all that was not torn from a process that died. Then, when all is quiet, nothing is left, and new
requests are answered at once.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from tests.integration.application import digest, pieces
from tests.integration.cutter import Cutter
from tests.integration.harness import Answer, Backend, Client, Running, Work, most_at_once, until
from tests.integration.relayed import RelayCase, relay_table

#: Seconds that a process may be silent for; and where none is to be taken for dead.
CHAOS_LEASE, LONG_LEASE = 2.0, 6.0

#: What Redis says of the time to live of a key that has none.
EVER = -1

#: Seconds within which each client has an end: the wait in the queue, two leases, what is done, what was frozen.
LONGEST = 40.0

#: Slots of all requests together, and places of each worker.
SLOTS, PLACES = 8, 4

#: Of each process to Redis: two for the gate, two for the post.
CONNECTIONS = 4

#: Clients at once.
CLIENTS = 14

LARGEST = 2_000_000

BODY = b"".join(pieces(LARGEST))


@attrs.define
class Part:
    """
    One of the fronts or workers, through all its lives.

    @ivar free: nothing else is done to it.
    @ivar base: how many descriptors it has when it is idle.
    @ivar application: of a worker.
    @ivar births: when each of its processes was there.
    @ivar broken: from when to when what it had under way may have been torn from it.
    """

    name: str
    line: Cutter
    url: str
    application: Backend | None = None
    running: Running | None = None
    free: bool = False
    births: list[float] = attrs.field(factory=list)
    broken: list[tuple[float, float]] = attrs.field(factory=list)
    base: int = 0

    def tears(self, work: Work) -> bool:
        """Whether some work may have been torn from it."""
        return any(since <= work.end and work.begin <= until for since, until in self.broken)


@attrs.define
class Request:
    """What a client asks, and what it has to get."""

    name: str
    client: Client
    front: Part
    front_process: Running
    since: float
    expected: bytes
    one: bool
    safe: bool
    size: int
    left: bool = False
    answer: Answer | None = None


class Chaos(RelayCase):
    """
    A run of it.

    @ivar seconds: how long there are faults.
    @ivar seed: of all that is random.
    @ivar gentle: none is killed, or frozen for as long as a lease: then no request fails but where Redis is gone.
    """

    seconds = 10.0
    seed = 1
    gentle = False
    log_file = ""
    timeout = 36000
    settings: ClassVar[dict[str, float]] = {"lease": CHAOS_LEASE, "timeout": 1.0}
    config = f"""
[backend.app]
url = "{{url}}"

[backend.other]
url = "{{url}}"

[queue]
timeout = 10.0

[[limit]]
name = "all"
max_concurrent = {SLOTS}

[[limit]]
name = "one"
key = "header:One"
max_concurrent = 1

[[rule]]
when = {{{{ header = {{{{ X-Other = "yes" }}}} }}}}
then = {{{{ backend = "other" }}}}
"""

    async def run_all(self) -> None:
        """Faults, then quiet, then what has to be true."""
        self.started_at = time.monotonic()
        if self.gentle:
            self.settings = {**self.settings, "lease": LONG_LEASE}
        self.random = random.Random(self.seed)
        # With the smallest, a large body takes longer than a worker that drains may.
        self.max_inline = self.random.choice([65536 if self.gentle else 4096, 65536, 1048576])
        self.retry = self.random.choice(["never", "never", "safe"])
        self.log: list[str] = []
        self.tell(f"seed {self.seed}, max_inline {self.max_inline}, retry {self.retry}, gentle {self.gentle}")
        self.requests: list[Request] = []
        self.asking = self.ended = 0
        self.emptied: list[float] = []
        self.going: list[Deferred[Any]] = []
        self.over = False
        self.server_running = await self.server()
        upstream = self.redis.removeprefix("unix://")
        self.fronts = [Part(f"front {number}", *self.line(upstream)) for number in range(2)]
        self.crew = [
            Part(f"worker {number}", *self.line(upstream), application=await self.lean())
            for number in range(3)
        ]
        try:
            await gatherResults([ensureDeferred(self.born(part)) for part in self.parts])
            await until(lambda: all(len(part.line.passages) == CONNECTIONS for part in self.parts))
            for part in self.parts:
                assert part.running is not None
                part.base = part.running.descriptors()
            await self.turmoil()
            await self.quiet()
            self.judge()
        except BaseException:
            for part in self.parts:
                if part.running is not None:
                    self.tell(f"{part.name}: {part.running.child.output[-3000:].decode()}")
            print("\n".join(self.log[-60:]), file=sys.stderr)
            raise
        self.tell(f"done: {Counter(request.answer.status for request in self.requests if request.answer)}")
        waits = [
            (round(each.answer.at - each.since, 1), each.answer.status, each.name, each.size)
            for each in self.requests
            if each.answer
        ]
        self.tell(f"the longest: {sorted(waits)[-5:]}")
        print("\n".join([*self.log[:1], *self.log[-2:]]), file=sys.stderr)
        if self.log_file:
            with open(self.log_file, "w") as file:
                file.write("\n".join(self.log))

    @property
    def parts(self) -> list[Part]:
        return [*self.fronts, *self.crew]

    def tell(self, what: str) -> None:
        """Note what happens."""
        self.log.append(f"{time.monotonic() - self.started_at:8.3f} {what}")

    # Parts

    async def born(self, part: Part) -> None:
        """Start one, and wait until it is there."""
        application = part.application or self.crew[0].application
        assert application is not None
        file = self.file(application, url=part.url, shutdown_timeout=20.0 if self.gentle else 5.0)
        relay: dict[str, Any] = {"max_inline": self.max_inline, "retry": self.retry}
        if part.application is None:
            path = self.written(f"{file}\n{relay_table('front', **relay)}")
            running = self.spawned("--config", path, covered=False)
            part.running = running
            await running.child.said(b"is connected")
            running.port = await self._listening(running.child, rb"Site(?: \(\w+\))* starting on (\d+)\n")
        else:
            backends = ["app", "other"] if part is self.crew[-1] else ["app"]
            relay.update(concurrency=PLACES, backends=backends)
            path = self.written(f"{file}\n{relay_table('worker', **relay)}")
            running = self.spawned("--config", path, covered=False)
            part.running = running
            await running.child.said(b"Worker of ")
        part.births.append(time.monotonic())
        part.free = True
        self.tell(f"{part.name} is there, {running.pid}")

    async def turmoil(self) -> None:
        """Ask, and let things happen."""
        end = time.monotonic() + self.seconds
        faults: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.kill_worker, 3),
            (self.kill_front, 2),
            (self.drain_worker, 3),
            (self.stop_briefly, 4),
            (self.stop_long, 2),
            (self.cut, 6),
            (self.freeze_redis, 1),
            (self.restart_redis, 1),
            (self.lose_inbox, 2),
        ]
        if self.gentle:
            faults = faults[2:4] + faults[5:]
        asking = [ensureDeferred(self.ask_on(end)) for _ in range(CLIENTS)]
        watching = ensureDeferred(self.watch_clients())
        self.tell("begin")
        while time.monotonic() < end:
            await deferLater(reactor, self.random.choice([self.random.uniform(0, 1), 0.3, 2]))
            [fault] = self.random.choices(*zip(*faults, strict=True))
            self.going = [each for each in self.going if not each.called]
            self.going.append(ensureDeferred(fault()))
        self.tell("the end of faults")
        await gatherResults(self.going)
        await gatherResults(asking)
        self.over = True
        await watching

    def any_free(self, parts: list[Part]) -> Part | None:
        """One with which nothing else is going on."""
        free = [part for part in parts if part.free]
        if not free:
            return None
        part = self.random.choice(free)
        part.free = False
        return part

    async def kill(self, part: Part | None) -> None:
        if part is None:
            return
        assert part.running is not None
        self.tell(f"kill {part.name}")
        since = time.monotonic()
        await part.running.signal("KILL")
        part.broken.append((since, time.monotonic() + 0.1))
        await deferLater(reactor, self.random.choice([0, 0.5, 3]))
        await self.born(part)

    async def kill_worker(self) -> None:
        await self.kill(self.any_free(self.crew))

    async def kill_front(self) -> None:
        await self.kill(self.any_free(self.fronts))

    async def drain_worker(self) -> None:
        part = self.any_free(self.crew)
        if part is not None:
            assert part.running is not None
            self.tell(f"drain {part.name}")
            since = time.monotonic()
            await part.running.signal("TERM")
            took = time.monotonic() - since
            self.tell(f"{part.name} has drained in {took:.2f} s")
            if took > 4.5 and not self.gentle:  # not all that it had
                part.broken.append((since, time.monotonic()))
            await self.born(part)

    async def stop(self, seconds: float) -> None:
        part = self.any_free(self.parts)
        if part is not None:
            assert part.running is not None
            self.tell(f"stop {part.name} for {seconds:.2f} s")
            since = time.monotonic()
            part.running.freeze()
            await deferLater(reactor, seconds)
            part.running.thaw()
            self.tell(f"wake {part.name}")
            if time.monotonic() - since > CHAOS_LEASE * 0.7:
                part.broken.append((since - 0.5, time.monotonic() + 0.5))
            part.free = True

    async def stop_briefly(self) -> None:
        await self.stop(self.random.uniform(0.1, 0.8))

    async def stop_long(self) -> None:
        await self.stop(CHAOS_LEASE + self.random.uniform(0, 3))

    async def cut(self) -> None:
        """Cut one connection, or all of a process, or at the next occasion, or let it be dead for a while."""
        line = self.random.choice(self.parts).line
        passages = line.passages
        way = self.random.randrange(4)
        if not passages:
            return
        self.tell(f"cut, way {way}")
        if way == 0:
            self.random.choice(passages).close()
        elif way == 1:
            for passage in list(passages):
                passage.close()
        elif way == 2:
            self.random.choice(passages).silent = True
        elif line.next_cut is None:
            line.cut(
                self.random.choice(["before", "after", "middle"]),
                self.random.choice(["batches", "messages", "inbox"]),
            )

    redis_busy = False

    async def freeze_redis(self) -> None:
        if self.redis_busy:
            return
        self.redis_busy = True
        seconds = self.random.choice(
            [0.5, 1.5, CHAOS_LEASE + 1, 2 * CHAOS_LEASE + 1][: 2 if self.gentle else 4]
        )
        self.tell(f"freeze Redis for {seconds} s")
        self.server_running.freeze()
        await deferLater(reactor, seconds)
        self.server_running.thaw()
        self.tell("Redis goes on")
        self.redis_busy = False

    async def restart_redis(self) -> None:
        if self.redis_busy:
            return
        self.redis_busy = True
        self.tell("kill Redis")
        await self.server_running.signal("KILL")
        await deferLater(reactor, self.random.choice([0, 0.5, CHAOS_LEASE * 1.5]))
        self.server_running = await self.server()
        self.emptied.append(time.monotonic())
        self.tell("Redis is there, empty")
        self.redis_busy = False

    async def lose_inbox(self) -> None:
        """Have an inbox pass, as that of one who is away for long, or forget all."""
        if self.redis_busy:
            return
        inboxes = sorted(self.inboxes())
        if inboxes:
            self.tell("lose an inbox")
            with self.database() as redis:
                redis.delete(self.random.choice(inboxes))

    # Clients

    async def ask_on(self, end: float) -> None:
        """A client that asks again and again."""
        while time.monotonic() < end:
            front = self.random.choice(self.fronts)
            running = front.running
            if running is None or not running.port or running.child.ended.called:
                await deferLater(reactor, 0.1)
                continue
            request = self.some_request(front, running)
            await self.behave(request)
            await deferLater(reactor, self.random.choice([0, 0.02]))

    def some_request(self, front: Part, running: Running) -> Request:
        """Any request."""
        chosen = self.random
        self.asking += 1
        name = f"r{self.asking}"
        size = chosen.choice([0, 1, 1000, 40_000, 300_000, LARGEST])
        kind = chosen.choice(["work", "work", "bytes", "digest", "digest"])
        one = chosen.random() < 0.15
        headers = {"One": "a"} if one else {}
        if chosen.random() < 0.2:
            headers["X-Other"] = "yes"
        if kind == "work":
            method = chosen.choice(["GET", "POST"])
            seconds = chosen.choice([0, 0, 0.05, 0.3, 1])
            client = self.ask(running, f"/work/{name}?seconds={seconds}", headers, method=method)
            expected = f"{name} is done\n".encode()
        elif kind == "bytes":
            method = "GET"
            client = self.ask(running, f"/bytes/{name}?size={size}", headers)
            expected = b"".join(pieces(size))
        else:
            # What was sent may not come again as what others have sent.
            body = name.encode() + BODY[:size]
            method = "POST"
            client = self.ask(running, f"/digest/{name}", headers, method=method, body=body)
            expected = digest([body]).encode()
        client.answer.addErrback(lambda _: Answer(b""))  # nobody listens
        request = Request(
            name, client, front, running, time.monotonic(), expected, one, method == "GET", size
        )
        self.requests.append(request)
        return request

    async def behave(self, request: Request) -> None:
        """Read at once, or slowly, or leave."""
        client, way = request.client, self.random.random()
        if way < 0.1:
            await deferLater(reactor, self.random.choice([0, 0.01, 0.1, 0.5]))
            request.left = True
            client.leave()
        elif way < 0.2:
            await deferLater(reactor, 0.02)
            if client.connected:
                client.pause()
                await deferLater(reactor, self.random.uniform(0.1, 2))
                if client.connected:
                    client.resume()
        request.answer = await client.answer
        self._clients.remove(client)
        self.right(request)

    def right(self, request: Request) -> None:
        """An answer that looks right is right."""
        answer = request.answer
        assert answer is not None
        if request.left:
            return
        if answer.status == 200 and answer.complete:
            self.assertEqual(answer.body, request.expected, request.name)
        else:
            said = request.name, answer.status, answer.body[:200]
            self.assertIn(answer.status, (503,) if self.gentle else (0, 200, 502, 503, 504), said)
            if answer.status not in (0, 200):
                self.tell(f"{request.name} {answer.status} after {answer.at - request.since:.2f} s")
        answer._received, answer.__dict__["_body"] = b"", (b"", answer.complete)  # it was looked at

    async def watch_clients(self) -> None:
        """See that none waits for too long."""
        while not self.over:
            now = time.monotonic()
            for request in self.requests:
                if request.answer is None and now - request.since > LONGEST:
                    self.fail(f"{request.name} at {request.front.name} has no end after {LONGEST} s")
            await deferLater(reactor, 0.5)

    # Judgement

    async def quiet(self) -> None:
        """Nothing is left, and all is as if nothing had been."""
        for part in self.parts:
            self.assertTrue(part.free, part)
        self.tell("quiet")
        await until(lambda: all(part.line.passages for part in self.parts), limit=30)
        await self.idle()
        self.tell("idle")
        with self.database() as redis:
            for key in self.inboxes():
                self.assertNotEqual(redis.pttl(key), EVER, key)  # one may go at this very moment
        self.assertEqual(self.files_of_proxies(), [])
        await until(self.all_served)
        for front in self.fronts:
            times = []
            for number in range(10):
                assert front.running is not None
                since = time.monotonic()
                client = self.ask(front.running, f"/work/{front.name[-1]}-q{number}?seconds=0")
                self.assertEqual((await client.answer).status, 200)
                times.append(time.monotonic() - since)
            self.tell(f"10 requests over {front.name} in {sum(times):.3f} s")
            # Where something waits for a heartbeat, or a lease, all are slow.
            self.assertLess(min(times), CHAOS_LEASE / 8)
            self.assertLess(max(times), CHAOS_LEASE)
        await self.all_at_work()
        await self.idle()
        # Idle connections to the applications have been closed by then.
        try:
            await until(lambda: not self.more_descriptors(), limit=10)
        except AssertionError:
            self.assertEqual(self.more_descriptors(), [])

    async def all_at_work(self) -> None:
        """All slots can be had at once."""
        applications = [part.application for part in self.crew if part.application is not None]
        names = [f"p{number}" for number in range(SLOTS)]
        clients = [
            self.ask(self.fronts[number % 2].running, f"/hold/{name}")  # type: ignore[arg-type]
            for number, name in enumerate(names)
        ]
        await until(lambda: sum(len(self.work_of(each, "p")) for each in applications) == SLOTS, limit=10)
        for application in applications:
            for name in names:
                await self.let(application, name)
        self.assertEqual(await self.done(*clients), [200] * SLOTS)

    def all_served(self) -> bool:
        """All workers have all their places."""
        with self.database() as redis:
            words = redis.hgetall(f"{{{self.namespace}}}:workers").values()
            free = redis.zrange(f"{{{self.namespace}}}:serving:app", 0, -1, withscores=True)
        places = [int(word.split()[0]) for word in words]
        return places == [PLACES] * 3 and [load for _, load in free] == [0.0] * 3

    def more_descriptors(self) -> list[str]:
        """Processes that have more open than at first, but for what Redis's sockets and timing make of it."""
        return [
            f"{part.name}: {part.running.descriptors()}, at first {part.base}"
            for part in self.parts
            if part.running is not None and part.running.descriptors() > part.base + 1
        ]

    def work_of(self, application: Backend, prefix: str = "r") -> list[Work]:
        """What it has done of what clients have asked under such names, some of it perhaps twice."""
        work: list[Work] = []
        for line in application.child.output.decode().splitlines():
            seconds, what, name = line.split()[:3]
            if what == "begin" and name.startswith(prefix):
                work.append(Work(name, float(seconds), float("inf")))
            elif what == "end" and name.startswith(prefix):
                # The latest, if there are several: then the others were torn.
                at = max(number for number, each in enumerate(work) if each.name == name)
                work[at] = attrs.evolve(work[at], end=float(seconds))
        return work

    def judge(self) -> None:
        """What the applications have seen."""
        asked = {request.name: request for request in self.requests}
        seen: Counter[str] = Counter()
        intact: list[Work] = []
        for part in self.crew:
            assert part.application is not None
            work = self.work_of(part.application)
            seen.update(each.name for each in work)
            # One that was broken off has no end, and ended when nobody saw it.
            whole = [each for each in work if each.end < float("inf") and not part.tears(each)]
            self.assertLessEqual(most_at_once(whole), PLACES, part.name)
            intact += [each for each in whole if not asked[each.name].front.tears(each)]
        most = {name: 2 if self.retry == "safe" and asked[name].safe else 1 for name in seen}
        self.assertEqual([name for name, times in seen.items() if times > most[name]], [], "executed again")
        for request in self.requests:
            answer = request.answer
            assert answer is not None
            if answer.status == 200 and answer.complete:
                self.assertIn(seen[request.name], (1, most[request.name]), request.name)
            elif answer.status == 503 and most.get(request.name) != 2:
                self.assertEqual(seen[request.name], 0, f"{request.name}: 503, but it was executed")
        self.assertLessEqual(most_at_once(intact), SLOTS)
        ones = [each for each in intact if asked[each.name].one]
        self.assertLessEqual(most_at_once(ones), 1)
        answers = Counter(request.answer.status for request in self.requests if request.answer)
        self.assertGreater(answers[200], len(self.requests) / 3, answers)


def main() -> None:
    """Run it."""
    from twisted.trial.reporter import TreeReporter
    from twisted.trial.runner import TrialRunner

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--gentle", action="store_true", help="kill nobody, and have no request fail")
    parser.add_argument("--log", default="", help="a file for what happens")
    options = parser.parse_args()
    case = Chaos("run_all")
    case.gentle, case.log_file = options.gentle, options.log
    case.seconds = options.minutes * 60
    case.seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {case.seed}")
    result = TrialRunner(TreeReporter, workingDirectory="chaos.trial").run(case)
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
