"""The example of a relay: a Django application behind gunicorn, which nobody but the worker reaches."""

from __future__ import annotations

import json
import random
import time
from hashlib import sha256
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.integration.harness import Answer, Backend, Client, IntegrationCase, Running, until

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "django_relay"

#: Bytes of a body that is far above what may stand in Redis of one request.
LONG = 5_000_000


class DjangoTests(IntegrationCase):
    """Tests for examples/django_relay."""

    async def halves(self) -> tuple[Running, Running, Backend]:
        """The example's front, its worker and its application."""
        application = await self._backend(
            rb"Listening at: \S+:(\d+) ",
            *("gunicorn", "--threads=4", "--bind=127.0.0.1:0", f"--pythonpath={EXAMPLE}", "application"),
        )
        worker = await self.worker(application)
        place = ("--redis", self.redis, "--listen", "tcp:0:interface=127.0.0.1")
        return await self.twistd("--config", str(EXAMPLE / "front.toml"), *place), worker, application

    async def worker(self, application: Backend) -> Running:
        """The example's worker, once it is registered."""
        file = str(EXAMPLE / "worker.toml")
        worker = self.spawned("--config", file, "--redis", self.redis, "--backend", application.url)
        await worker.child.said(b"Worker of backend.app: 4 places")
        return worker

    async def upload(self, front: Running, body: bytes) -> Answer:
        """Send a body, and have the answer."""
        head = f"PUT /upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        client = Client(head.encode() + body)
        self._clients.append(client)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", front.port), client)
        return await client.answer

    async def reports(self, clients: list[Client]) -> None:
        """All of them are answered, as the application does it; it is told who asks."""
        for number, answer in enumerate(await gatherResults([client.answer for client in clients])):
            self.assertEqual(answer.status, 200)
            said = json.loads(answer.body)
            self.assertEqual((said["report"], said["for"]), (f"number-{number}", "127.0.0.1"))

    async def test_reports(self) -> None:
        """Eight reports of a second each, four at a time, take two seconds."""
        front, _, _ = await self.halves()
        began = time.monotonic()
        await self.reports([self.ask(front, f"/reports/number-{number}") for number in range(8)])
        took = time.monotonic() - began
        self.assertGreaterEqual(took, 2.0)
        self.assertLess(took, 3.0)

    async def test_user(self) -> None:
        """One user has two reports made at once."""
        front, _, _ = await self.halves()
        began = time.monotonic()
        user = {"X-User": "ann"}
        await self.reports([self.ask(front, f"/reports/number-{number}", user) for number in range(4)])
        self.assertGreaterEqual(time.monotonic() - began, 2.0)

    async def test_bodies(self) -> None:
        """Long bodies go through whole, both ways."""
        front, _, _ = await self.halves()
        body = random.Random(1).randbytes(LONG)
        answer = await self.upload(front, body)
        self.assertEqual(json.loads(answer.body), {"size": LONG, "sha256": sha256(body).hexdigest()})
        answer = await self.ask(front, "/export?rows=200000").answer
        lines = answer.body.splitlines()
        self.assertTrue(answer.complete)
        self.assertEqual((len(lines), lines[-1]), (200_000, b"199999,row 199999"))

    async def test_restart(self) -> None:
        """A worker is stopped and another one started meanwhile: nobody is told of an error."""
        front, worker, application = await self.halves()
        clients = [self.ask(front, f"/reports/number-{number}") for number in range(8)]
        with self.database() as redis:
            await until(lambda: sum(map(redis.hlen, redis.scan_iter(match="{django}:at:*"))) == 4)
        ended = worker.signal("TERM")
        await self.worker(application)
        await self.reports(clients)
        await ended
