"""Which worker gets which request, and when: queues, places, priorities and limits."""

from __future__ import annotations

import os
import time
from itertools import chain
from typing import ClassVar

from tests.integration.harness import (
    LEASE,
    Backend,
    Client,
    IntegrationCase,
    Missed,
    Running,
    busy,
    most_at_once,
    until,
)
from tests.integration.relayed import RelayCase

CONFIG = """
[backend.app]
url = "{url}"

[backend.api]
url = "{url}"

[queue]
timeout = 30.0

[[limit]]
name = "one"
key = "header:One"
max_concurrent = 1

[[rule]]
when = {{ header = {{ X-Api = "yes" }} }}
then = {{ backend = "api" }}

[[rule]]
when = {{ header = {{ X-Urgent = "yes" }} }}
then = {{ priority = 1 }}

[[rule]]
when = {{ header = {{ X-Patient = "yes" }} }}
then = {{ priority = 90 }}
"""

API = {"X-Api": "yes"}
URGENT = {"X-Urgent": "yes"}
PATIENT = {"X-Patient": "yes"}


class QueueTests(RelayCase):
    """Several queues."""

    config = CONFIG

    async def waits(self, front: Running, name: str, headers: dict[str, str]) -> Client:
        """One more waits."""
        before = self.waiting()
        client = self.ask(front, f"/work/{name}?seconds=0", headers)
        await until(lambda: self.waiting() == before + 1)
        return client

    async def test_nobody_serves(self) -> None:
        """What no worker serves waits for one that does, and others are not kept by it; the front says so, once."""
        backend = await self.lean()
        front = await self.front(backend)
        await self.worker(backend, backends=["app"])
        waiting = [await self.waits(front, f"api-{number}", API) for number in range(2)]
        self.assertEqual(await self.done(self.ask(front, "/work/app?seconds=0")), [200])
        await front.child.said(b"o worker serves backend.api")
        await self.worker(backend, backends=["api"])
        self.assertEqual(await self.done(*waiting), [200, 200])
        self.assertEqual(front.child.output.count(b"o worker serves backend.api"), 1)
        self.assertEqual(front.child.output.count(b"o worker serves backend.app"), 0)
        await self.idle()

    async def test_started_later(self) -> None:
        """Workers may come when requests wait already, and go again."""
        backend = await self.lean()
        front = await self.front(backend)
        for turn in range(2):
            waiting = [await self.waits(front, f"{turn}-{number}", {}) for number in range(3)]
            worker = await self.worker(backend, concurrency=1)
            self.assertEqual(await self.done(*waiting), [200] * 3)
            await worker.signal("TERM")
        self.assertEqual(backend.names(), [f"{turn}-{number}" for turn in range(2) for number in range(3)])

    async def test_priorities(self) -> None:
        """A free place goes to the best of all queues that the worker serves, whichever front it waits at."""
        backend = await self.lean()
        fronts = [await self.front(backend) for _ in range(2)]
        await self.worker(backend, concurrency=1)
        clients = [self.ask(fronts[0], "/hold/working")]
        await backend.begun("working")
        for number, (name, headers) in enumerate(
            [
                ("patient-app", PATIENT),
                ("patient-api", {**PATIENT, **API}),
                ("api-1", API),
                ("app-1", {}),
                ("api-2", API),
                ("app-2", {}),
                ("urgent-api", {**URGENT, **API}),
                ("urgent-app", URGENT),
            ]
        ):
            clients.append(await self.waits(fronts[number % 2], name, headers))
        await self.let(backend, "working")
        self.assertEqual(await self.done(*clients), [200] * 9)
        expected = [
            "urgent-api",
            "urgent-app",
            "api-1",
            "app-1",
            "api-2",
            "app-2",
            "patient-app",
            "patient-api",
        ]
        self.assertEqual(backend.names(), ["working", *expected])
        self.assertEqual(most_at_once(backend.work()), 1)
        await self.idle()

    async def test_own_queue(self) -> None:
        """A place at a worker that serves one queue does not go to another queue, however urgent."""
        backend = await self.lean()
        front = await self.front(backend)
        await self.worker(backend, concurrency=1, backends=["api"])
        working = self.ask(front, "/hold/working", API)
        await backend.begun("working")
        urgent = await self.waits(front, "urgent", URGENT)
        waiting = await self.waits(front, "waiting", {**PATIENT, **API})
        await self.let(backend, "working")
        self.assertEqual(await self.done(working, waiting), [200, 200])
        self.assertEqual((self.waiting(), urgent.answer.called), (1, False))
        await self.worker(backend, backends=["app"])
        self.assertEqual(await self.done(urgent), [200])
        await self.idle()


class PlaceTests(RelayCase):
    """The places of workers."""

    config = CONFIG

    async def test_least_busy(self) -> None:
        """Whoever comes goes to the worker that is the least busy, for its size."""
        backends = [await self.lean() for _ in range(2)]
        front = await self.front(backends[0])
        for backend, places in zip(backends, (6, 2), strict=True):
            await self.worker(backend, concurrency=places)
        clients = [self.ask(front, f"/hold/first-{number}") for number in range(4)]
        await until(lambda: len(self.begun(backends)) == 4)
        self.assertEqual([len(backend.names()) for backend in backends], [3, 1])
        clients += [self.ask(front, f"/hold/more-{number}") for number in range(6)]
        await until(lambda: len(self.begun(backends)) == 8 and self.waiting() == 2)
        self.assertEqual([len(backend.names()) for backend in backends], [6, 2])
        for backend in backends:
            for name in backend.names():
                await self.let(backend, name)
        await until(lambda: len(self.begun(backends)) == 10)
        for backend in backends:
            for name in backend.names():
                await self.let(backend, name)
        self.assertEqual(await self.done(*clients), [200] * 10)
        await self.idle()

    def begun(self, backends: list[Backend]) -> list[str]:
        """What was begun anywhere."""
        return list(chain.from_iterable(backend.names() for backend in backends))

    async def test_never_more(self) -> None:
        """Three workers and two fronts under load: each worker has as many as it has places, and is never idle."""
        backends = [await self.lean() for _ in range(3)]
        fronts = [await self.front(backends[0], covered=False) for _ in range(2)]
        for number, backend in enumerate(backends):
            await self.worker(backend, concurrency=number + 1, covered=False)

        async def share(prefix: str) -> Missed | None:
            answers = await self.crowd(180, f"/work/{prefix}{{}}?seconds=0.05", *fronts)
            self.assertEqual(answers, {"200": 180})
            work = [backend.work(prefix) for backend in backends]
            self.assertEqual([most_at_once(each) for each in work], [1, 2, 3])
            self.assertEqual(sum(map(len, work)), 180)
            used = busy(list(chain.from_iterable(work)), 6)
            return None if used > 0.8 else Missed(f"the places were in use for {used:.1%}", 0.8 / used)

        await self.measured(share, ceiling=3)
        await self.idle()

    async def test_limits(self) -> None:
        """A limit holds over all workers and fronts, and who waits for it takes no place."""
        backends = [await self.lean() for _ in range(2)]
        fronts = [await self.front(backends[0]) for _ in range(2)]
        for backend in backends:
            await self.worker(backend, concurrency=2)
        one = {"One": "a"}
        first = self.ask(fronts[0], "/hold/first", one)
        await until(lambda: self.begun(backends) == ["first"])
        limited = []
        for number in range(6):
            limited.append(self.ask(fronts[number % 2], f"/work/{number}?seconds=0.05", one))
            await until(lambda number=number: self.waiting() == number + 1)
        # There are three places more.
        free = [self.ask(fronts[number % 2], f"/hold/free-{number}") for number in range(3)]
        await until(lambda: len(self.begun(backends)) == 4)
        for backend in backends:
            for name in backend.names():
                await self.let(backend, name)
        self.assertEqual(await self.done(first, *limited, *free), [200] * 10)
        work = sorted(
            (each for backend in backends for each in backend.work() if not each.name.startswith("f")),
            key=lambda each: each.begin,
        )
        self.assertEqual([each.name for each in work], [str(number) for number in range(6)])
        self.assertEqual(most_at_once(work), 1)
        await self.idle()


class PushTests(RelayCase):
    """Workers are told, they do not ask."""

    # Were anything to wait for a heartbeat, or for the end of a blocking read, it would take seconds.
    settings: ClassVar = {"lease": 20.0}

    async def test_prompt(self) -> None:
        """Twenty requests, one after the other, do not take a second; nor do twenty that wait for one place."""
        backend = await self.lean()
        front = await self.front(backend, covered=False)
        await self.worker(backend, concurrency=1, covered=False)

        async def prompt(prefix: str) -> Missed | None:
            began = time.monotonic()
            for number in range(20):
                client = self.ask(front, f"/work/{prefix}{number}?seconds=0")
                self.assertEqual(await self.done(client), [200])
            alone = time.monotonic() - began
            began = time.monotonic()
            clients = [self.ask(front, f"/work/{prefix}together-{number}?seconds=0") for number in range(20)]
            self.assertEqual(await self.done(*clients), [200] * 20)
            together = time.monotonic() - began
            if max(alone, together) < 1.0:
                return None
            return Missed(f"it took {alone:.3f} s and {together:.3f} s", max(alone, together))

        await self.measured(prompt, ceiling=5)

    async def test_no_polling(self) -> None:
        """A front and a worker with nothing to do ask Redis once a heartbeat, and read from it for as long."""
        self.settings = {"lease": 4.0}
        await self.server()
        backend = await self.lean()
        front, _ = await self.pair(backend)
        self.assertEqual(await self.done(self.ask(front, "/work/first?seconds=0")), [200])
        await self.idle()
        heartbeats = self.calls("evalsha")
        await until(lambda: self.calls("evalsha") > heartbeats)
        before, began = self.calls(), time.monotonic()
        await until(lambda: time.monotonic() - began > 4.0)
        # In a lease: four heartbeats of each, two reads of each that time out, and what keeps an inbox.
        self.assertLessEqual(self.calls() - before, 2 * (4 + 2 + 4) + 4)

    def calls(self, *names: str) -> int:
        """How many commands were sent so far by others."""
        with self.database() as redis:
            stats = redis.info("commandstats")
        names = names or ("evalsha", "eval", "xread", "xadd", "xdel", "publish")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)


class ScriptTests(RelayCase):
    """THR's functions, in files in Python."""

    script = """
configure(
    listen="tcp:0:interface=127.0.0.1",
    shutdown_timeout=5.0,
    relay={{"role": "{role}"}},
    redis={{"url": "{redis}", "namespace": "{namespace}", "lease": {lease}}},
)
add_queue("main", http_host="127.0.0.1", http_port={port}, workers=2)
"""

    async def test_add_queue(self) -> None:
        """C{add_queue} says how many requests a worker has at once."""
        backend = await self.lean()
        paths = {}
        for role in ("front", "worker"):
            paths[role] = f"{os.path.abspath(self.mktemp())}.py"
            with open(paths[role], "w") as file:
                file.write(
                    self.script.format(
                        role=role,
                        redis=self.redis,
                        namespace=self.namespace,
                        lease=LEASE,
                        port=backend.port,
                    )
                )
        worker = self.spawned("--config", paths["worker"])
        await worker.child.said(b"Worker of ")
        front = await IntegrationCase.twistd(self, "--config", paths["front"])
        clients = [self.ask(front, f"/hold/{number}") for number in range(3)]
        await until(lambda: self.waiting() == 1 and len(backend.names()) == 2)
        for name in list(backend.names()):
            await self.let(backend, name)
        await until(lambda: len(backend.names()) == 3)
        await self.let(backend, backend.names()[2])
        self.assertEqual(await self.done(*clients), [200] * 3)
        await self.idle()
