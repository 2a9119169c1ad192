"""
Real Redis servers of a test's own, on TCP: Valkey, or the system's Redis, which has TLS; with replicas and sentinels,
or in a cluster.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs
from twisted.trial.unittest import SkipTest
from valkey import Valkey
from valkey.exceptions import ConnectionError as Unconnected
from valkey.exceptions import ResponseError

from tests.certificates import Authority
from tests.integration.harness import (
    LEASE,
    Backend,
    IntegrationCase,
    Running,
    most_at_once,
    until,
    unused_port,
)
from thrtwisted.redis import launch
from thrtwisted.redis.cluster import SLOTS, slot_of
from thrtwisted.redis.embedded import READY, WAY, installed_server

CONFIG = f"""
listen = "tcp:0:interface=127.0.0.1"
shutdown_timeout = 5.0

[backend.app]
url = "{{app}}"

[[limit]]
name = "one"
key = "header:One"
max_concurrent = 1

[redis]
url = "{{redis}}"
namespace = "{{namespace}}"
lease = {LEASE}
timeout = 0.8
outage = "{{outage}}"
"""

#: The header of requests that share one slot.
ONE = {"One": "a"}

#: Milliseconds without a sign after which sentinels, or the nodes of a cluster, take a server for dead.
DEAD_AFTER = 500


def system_redis() -> str:
    """The Redis server of the system, which can do TLS."""
    program = shutil.which("redis-server")
    if program is None:
        raise SkipTest("there is no redis-server on this system")
    return program


@attrs.define
class Server(Running):
    """
    A Redis server on 127.0.0.1, or a sentinel.

    @ivar options: it was started with these.
    @ivar login: what a blocking client needs to talk to it.
    """

    directory: str = ""
    program: str = ""
    options: tuple[str, ...] = ()
    login: dict[str, Any] = attrs.field(factory=dict)

    @property
    def place(self) -> str:
        """Where it is, for a URL."""
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def client(self, **options: Any) -> Iterator[Any]:
        """A blocking client."""
        with Valkey(port=self.port, **{"socket_timeout": 10, **self.login, **options}) as client:
            yield client

    def do(self, *command: object) -> Any:
        """The answer to one command, as it came."""
        with self.client() as client:
            connection = client.connection_pool.get_connection("")
            try:
                connection.send_command(*command)
                return connection.read_response()
            finally:
                client.connection_pool.release(connection)

    def set(self, name: str, value: object) -> None:
        """CONFIG SET."""
        self.do("CONFIG", "SET", name, str(value))

    async def met(self, times: int) -> None:
        """Wait until somebody else has connected so many times."""
        with self.client() as client:

            def connections() -> int:
                return int(client.info("stats")["total_connections_received"])

            before = connections()
            await until(lambda: connections() >= before + times)


class ServerCase(IntegrationCase):
    """
    A proxy before an application, with Redis servers of the test's own.

    @ivar options: lines of the table C{[redis]}.
    @ivar main: the server with the namespace, for whoever looks at it.
    """

    options = ""
    outage = "closed"
    main: Server

    # Servers

    async def started(
        self, *options: str, program: str = "", port: int = 0, directory: str = "", **login: Any
    ) -> Server:
        """
        A server.

        @param options: more of them than those that every server has.
        @param login: what clients of the test need.
        """
        program = program or installed_server()
        if not directory:
            directory = os.path.join(self._of("others"), f"server-{len(self._others)}")
            os.mkdir(directory)
        port = port or unused_port()
        basic = (
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""),
            *("--repl-diskless-sync-delay", "0"),  # else each replica waits 5 s for more of them
        )
        server = await self._launched(program, directory, (*basic, *options), READY.encode())
        server.port, server.login = port, login
        return server

    async def again(self, server: Server) -> Server:
        """The same server, started again after it was killed: empty."""
        new = await self._launched(server.program, server.directory, server.options, READY.encode())
        new.port, new.login = server.port, server.login
        return new

    async def _launched(self, program: str, directory: str, options: tuple[str, ...], ready: bytes) -> Server:
        command = ("-I", launch.__file__, WAY, str(os.getpid()), program, *options)
        server = Server(*self.other(*command), directory=directory, program=program, options=options)
        await server.child.said(ready)
        return server

    async def replica(self, master: Server, *options: str) -> Server:
        """A replica, once it has what its master has."""
        replica = await self.started("--replicaof", "127.0.0.1", str(master.port), *options)

        def synchronous() -> bool:
            with replica.client() as client:
                return bool(client.info("replication")["master_link_status"] == "up")

        await until(synchronous)
        return replica

    async def sentinel(self, master: Server, *lines: str, port: int = 0) -> Server:
        """
        A sentinel that looks after a service with the name of main, and has found it well.

        @param lines: more of its configuration.
        """
        directory = os.path.join(self._of("others"), f"sentinel-{len(self._others)}")
        os.mkdir(directory)
        port = port or unused_port()
        path = os.path.join(directory, "sentinel.conf")
        with open(path, "w") as file:
            file.write(
                f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
                f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
                f"sentinel down-after-milliseconds main {DEAD_AFTER}\nsentinel failover-timeout main 2000\n"
                + "".join(f"{line}\n" for line in lines)
            )
        sentinel = await self._launched(
            master.program, directory, (path, "--sentinel"), b"+monitor master main"
        )
        sentinel.port = port
        return sentinel

    async def cluster(self, size: int, start: Callable[..., Awaitable[Server]]) -> list[Server]:
        """
        A cluster of so many masters, each with its share of the slots.

        @param start: starts one server, given its options.
        """
        nodes = [await start(*self.node_settings()) for _ in range(size)]
        for number, node in enumerate(nodes):
            node.do("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.do("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // size, SLOTS * (number + 1) // size - 1)
        for node in nodes[1:]:
            self.meet(nodes[0], node)
        await until(lambda: all(self._knows_all(node) for node in nodes))
        return nodes

    def _knows_all(self, node: Server) -> bool:
        """Whether a node serves, and has heard of each slot whose it is."""
        said = node.do("CLUSTER", "INFO")
        return b"cluster_state:ok" in said and b"cluster_slots_assigned:%d\r" % SLOTS in said

    def node_settings(self) -> tuple[str, ...]:
        """What a server has to be told to become a node."""
        return (
            *("--cluster-enabled", "yes", "--cluster-port", str(unused_port())),
            *("--cluster-node-timeout", str(DEAD_AFTER), "--cluster-require-full-coverage", "no"),
        )

    def meet(self, node: Server, other: Server) -> None:
        """Nodes get to know each other."""
        bus = other.options[other.options.index("--cluster-port") + 1]
        node.do("CLUSTER", "MEET", "127.0.0.1", other.port, bus)

    def has_slot(self, nodes: list[Server]) -> Server:
        """The node of a cluster that has the namespace."""
        [node] = [node for node in nodes if self._serves(node)]
        return node

    def _serves(self, node: Server) -> bool:
        with suppress(ResponseError, Unconnected):
            node.do("GET", f"{{{self.namespace}}}")
            return True
        return False

    @property
    def slot(self) -> int:
        """The namespace's."""
        return slot_of(self.namespace.encode())

    # Certificates

    def authority(self) -> Authority:
        """An authority whose certificate the proxies trust."""
        authority = Authority()
        path, _, _ = authority.identity.save(self._place, "ca")
        self.options += f'ca = "{path}"\n'
        return authority

    async def secured(self, authority: Authority, *options: str, names: tuple[str, ...]) -> Server:
        """A server that speaks nothing but TLS, under these names; it is asked for certificates as the options say."""
        port = unused_port()
        settings = self.tls_settings(authority, port, names)
        return await self.started(
            *(word for name, value in settings.items() for word in (f"--{name}", value)),
            *options,
            program=system_redis(),
            port=port,
            ssl=True,
            ssl_cert_reqs="none",
        )

    def tls_settings(self, authority: Authority, port: int, names: tuple[str, ...]) -> dict[str, str]:
        """What a server, or a sentinel, has to be told to speak nothing but TLS."""
        certificate, key, _ = authority.identify(*names).save(self._place, f"server-{len(self._others)}")
        ca, _, _ = authority.identity.save(self._place, "ca")
        return {
            "port": "0",
            "tls-port": str(port),
            "tls-replication": "yes",
            "tls-auth-clients": "no",
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": ca,
        }

    # Proxies

    async def proxied(self, backend: Backend | None = None) -> tuple[Backend, Running]:
        """A backend, and a proxy that has Redis where C{self.redis} says."""
        backend = backend or await self.lean()
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            places = {"app": backend.url, "redis": self.redis, "namespace": self.namespace}
            file.write(CONFIG.format(outage=self.outage, **places) + self.options)
        return backend, await self.twistd("--config", path)

    async def regulated(self, backend: Backend, proxy: Running, name: str = "") -> None:
        """Of two requests for one slot, one waits for the other."""
        first = self.ask(proxy, f"/hold/{name}first", ONE)
        await backend.begun(f"{name}first")
        second = self.ask(proxy, f"/work/{name}second?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        await self.let(backend, f"{name}first")
        self.assertEqual([(await client.answer).status for client in (first, second)], [200, 200])
        self.assertEqual(most_at_once(backend.work(f"{name}")), 1)

    async def closed(self, proxy: Running, name: str) -> None:
        """Without Redis, requests under a limit are sent away, and all others pass."""
        answer = await self.ask(proxy, f"/work/{name}-limited?seconds=0", ONE).answer
        self.assertEqual((answer.status, answer.complete), (503, True))
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        self.assertIn("error=proxy_internal_error", answer.headers["Proxy-Status"])
        answer = await self.ask(proxy, f"/work/{name}-unlimited?seconds=0").answer
        self.assertEqual(answer.status, 200)

    def lines(self, proxy: Running) -> list[str]:
        """What the proxy has said of where Redis is."""
        said = (proxy.child.output + proxy.child.errors).decode()
        return [line.partition("] ")[2] for line in said.splitlines() if "] Redis at " in line]

    # Redis

    def waiting(self) -> int:
        """How many tickets wait, as Redis has it."""
        with self.main.client() as redis:
            return int(redis.hget(f"{{{self.namespace}}}:gate", "waiting") or 0)

    def admitted(self) -> int:
        """How many slots are taken, as Redis has it."""
        with self.main.client() as redis:
            return sum(map(int, redis.hvals(f"{{{self.namespace}}}:used")))

    def keys(self) -> list[bytes]:
        """What this test has in Redis."""
        with self.main.client() as redis:
            return list(redis.scan_iter(match=f"{{{self.namespace}}}*"))
