"""Real application servers: connections that they close at the wrong moment, workers that die, URLs that go away."""

from __future__ import annotations

import os
import signal

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from tests.integration.harness import Backend, IntegrationCase, Running, until, unused_port


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(each) for each in file.read().split()]


class BackendCase(IntegrationCase):
    """An application on gunicorn."""

    async def application(self, *options: str, bind: str = "127.0.0.1:0") -> Backend:
        """
        Gunicorn with threads.

        @param options: more of its options.
        """
        command = ("gunicorn", f"--bind={bind}", "--worker-class=gthread", "--threads=8", *options)
        backend = Backend(*self.other("-m", *command, "tests.integration.application"))
        if bind.startswith("unix:"):
            await backend.child.said(b"Listening at: ")
        else:
            backend.port = await self._listening(backend.child, rb"Listening at: \S+:(\d+) ")
        await backend.child.said(b"Booting worker")
        return backend

    def said_of_backends(self, proxy: Running) -> list[str]:
        """What the proxy's log says of backends."""
        lines = proxy.child.output.decode().splitlines()
        return [line.partition("] ")[2] for line in lines if "[thrtwisted.forward." in line]

    async def asked_again(self, proxy: Running, prefix: str, count: int, gap: float) -> list[int]:
        """A client that asks again and again, each time after a pause; the statuses."""
        statuses = []
        for number in range(count):
            answer = await self.ask(proxy, f"/work/{prefix}-{number}?seconds=0").answer
            statuses.append(answer.status)
            await deferLater(reactor, gap)
        return statuses


class KeepAliveTests(BackendCase):
    """A backend that closes idle connections when we are about to use them."""

    async def asked_at_the_end(self, backend: Backend, proxy: Running) -> None:
        """Ask as often as possible at the moment at which the backend's second is over."""
        gaps = [0.96 + 0.01 * number for number in range(16)]
        asking = [self.asked_again(proxy, f"c{number}", 8, gap) for number, gap in enumerate(gaps)]
        answered = await gatherResults([ensureDeferred(each) for each in asking])
        statuses = [status for each in answered for status in each]
        self.assertEqual(statuses, [200] * len(statuses))
        # work() itself sees to it that nothing was executed twice.
        self.assertEqual(len(backend.work()), len(statuses))

    async def test_as_long_as_ours(self) -> None:
        """The backend's keep-alive is as long as ours: nobody sees an error, and nothing is executed twice."""
        backend = await self.application("--keep-alive=1")
        proxy = await self.proxy(f'[backend.app]\nurl = "{backend.url}"\nkeep_alive = 1.0')
        await self.asked_at_the_end(backend, proxy)

    async def test_shorter_than_ours(self) -> None:
        """Or shorter, over a unix socket: it is always the backend that closes."""
        path = f"{self._of('others')}/app.sock"
        backend = await self.application("--keep-alive=1", bind=f"unix:{path}")
        proxy = await self.proxy(f'[backend.app]\nurl = "unix://{path}"\nkeep_alive = 30.0')
        await self.asked_at_the_end(backend, proxy)


class DeathTests(BackendCase):
    """Workers that die."""

    async def test_while_it_works(self) -> None:
        """A worker that is killed at work: its client is told, and the request was executed once."""
        backend = await self.application("--keep-alive=20")
        proxy = await self.proxy(
            f'[backend.app]\nurl = "{backend.url}"\nkeep_alive = 20.0\nmax_concurrent = 1'
        )
        self.assertEqual((await self.ask(proxy, "/work/first?seconds=0").answer).status, 200)
        client = self.ask(proxy, "/hold/victim")
        await backend.begun("victim")
        [worker] = children(backend.pid)
        os.kill(worker, signal.SIGKILL)
        answer = await client.answer
        self.assertEqual(answer.status, 502)
        self.assertIn("connection_terminated", answer.headers["Proxy-Status"])
        self.assertEqual((await self.ask(proxy, "/work/next?seconds=0").answer).status, 200)
        self.assertEqual(backend.names(), ["first", "victim", "next"])

    async def test_replaced(self) -> None:
        """While all workers are replaced, again and again, idle connections and all, nobody sees an error."""
        backend = await self.application("--keep-alive=20", "--workers=2", "--graceful-timeout=5")
        proxy = await self.proxy(f'[backend.app]\nurl = "{backend.url}"\nkeep_alive = 20.0')
        asking = [ensureDeferred(self.asked_again(proxy, f"c{number}", 40, 0.1)) for number in range(8)]
        for _ in range(3):
            before = children(backend.pid)
            os.kill(backend.pid, signal.SIGHUP)
            await until(lambda before=before: not set(before) & set(children(backend.pid)))  # type: ignore[misc]
        answered = await gatherResults(asking)
        self.assertEqual([status for each in answered for status in each], [200] * 320)
        self.assertEqual(len(backend.work()), 320)


class UrlsTests(BackendCase):
    """Several URLs."""

    async def test_one_goes_away_and_comes_back(self) -> None:
        """Nobody sees an error when a URL is gone; it gets requests again when it is back."""
        port = unused_port()
        first, second = await self.application(bind=f"127.0.0.1:{port}"), await self.application()
        proxy = await self.proxy(
            f'[backend.app]\nurl = ["{first.url}", "{second.url}"]\ndown_time = 1.0\nmax_concurrent = 4'
        )

        async def asked(name: str) -> None:
            clients = [self.ask(proxy, f"/work/{name}{number}?seconds=0") for number in range(8)]
            self.assertEqual([(await client.answer).status for client in clients], [200] * 8)

        await asked("a")
        self.assertTrue(first.work() and second.work())
        await first.signal("TERM")
        await asked("b")
        self.assertEqual(len(first.work()) + len(second.work()), 16)
        again = await self.application(bind=f"127.0.0.1:{port}")

        async def back() -> None:
            number = 0
            while not again.work():
                number += 1
                await asked(f"c{number}-")
                await deferLater(reactor, 0.1)

        await back()
        self.assertEqual(
            self.said_of_backends(proxy),
            [
                f"backend.app: {first.url} cannot be connected to: the backend refuses connections; "
                "it gets no requests for 1 s, while another can",
                f"backend.app: {first.url} can be connected to again, and gets requests",
            ],
        )

    async def test_health(self) -> None:
        """A URL whose answers are bad gets no requests, though it can be connected to."""
        good, bad = await self.application(), await self.application()
        proxy = await self.proxy(
            f'[backend.app]\nurl = ["{bad.url}", "{good.url}"]\nhealth = "/work/health?seconds=0"\n'
            "health_interval = 0.5"
        )
        await until(lambda: b" end health\n" in good.child.output and b" end health\n" in bad.child.output)
        self.assertEqual(self.said_of_backends(proxy), [])
        [worker] = children(bad.pid)
        os.kill(worker, signal.SIGSTOP)
        try:
            await proxy.child.said(f"{bad.url} is ill: asked for /work/health?seconds=0".encode())
            clients = [self.ask(proxy, f"/work/{number}?seconds=0") for number in range(8)]
            self.assertEqual([(await client.answer).status for client in clients], [200] * 8)
        finally:
            os.kill(worker, signal.SIGCONT)
        await proxy.child.said(f"{bad.url} is well again".encode())
