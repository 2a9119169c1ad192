"""Where Redis is and cannot be used: one line in the proxy's log, no stop, and on it goes when the cause is mended."""

from __future__ import annotations

import os
from typing import Any

from tests.certificates import DAY, Authority
from tests.integration.harness import Backend, Running, until, unused_port
from tests.integration.servers import ServerCase
from tests.redis.support import ScriptedServer, good


class TroubleCase(ServerCase):
    """A trouble with a real server, and its end."""

    async def trouble(self, line: str) -> tuple[Backend, Running]:
        """
        A proxy has a trouble: it is told once, though it is met again and again.

        @param line: what is said after "is not usable".
        """
        backend, proxy = await self.proxied()
        await self.told(proxy, line)
        await self.closed(proxy, "meanwhile")
        return backend, proxy

    async def told(self, proxy: Running, line: str) -> None:
        """The proxy has said it, and says it no more."""
        await proxy.child.said(f"is not usable: {line}\n".encode())
        await self.met(4)
        self.assertEqual([each.partition(" is not usable: ")[2] for each in self.lines(proxy)][-1], line)
        self.assertEqual(len([each for each in self.lines(proxy) if each.endswith(line)]), 1)

    async def met(self, times: int) -> None:
        """Wait until the proxy has tried it so many times more."""
        await self.main.met(times)

    async def mended(self, backend: Backend, proxy: Running) -> None:
        """It is over: that is told, and requests are regulated."""
        await until(lambda: self.lines(proxy)[-1].endswith("is connected"))
        await self.regulated(backend, proxy, "mended-")


class TroubleTests(TroubleCase):
    """What goes wrong with a server."""

    async def test_wrong_password(self) -> None:
        """A password that the server does not take, until it does; nobody sees it."""
        self.main = await self.started("--requirepass", "right", password="right")
        self.redis = f"redis://:mistaken@{self.main.place}"
        backend, proxy = await self.trouble(
            "the user or the password is wrong; correct redis.url, or the user on the server"
        )
        self.main.set("requirepass", "mistaken")
        self.main.login["password"] = "mistaken"
        await self.mended(backend, proxy)
        self.assertNotIn(b"mistaken", proxy.child.output + proxy.child.errors)

    async def test_password_taken_away(self) -> None:
        """The server wants a password all at once, and the proxy has none."""
        self.main = await self.started()
        self.redis = f"redis://{self.main.place}"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy, "before-")
        self.main.set("requirepass", "s3cret")
        self.main.login["password"] = "s3cret"
        self.main.do("CLIENT", "KILL", "TYPE", "NORMAL")
        await self.told(proxy, "it wants a password; put user:password@ before the host in redis.url")
        self.main.set("requirepass", "")
        del self.main.login["password"]
        await self.mended(backend, proxy)

    async def test_rights(self) -> None:
        """A user who may not do what the gate does, until he may."""
        self.main = await self.started()
        self.main.do(
            "ACL", "SETUSER", "thr", "on", ">pass", "~*", "&*", "+@all", "-publish", "-hset", "-zadd"
        )
        self.redis = f"redis://thr:pass@{self.main.place}"
        mend = "give the user in redis.url the rights that docs/redis.md names"
        self.main.do("ACL", "SETUSER", "thr", "-subscribe")
        backend, proxy = await self.trouble(f"its user may not run the command SUBSCRIBE; {mend}")
        self.main.do("ACL", "SETUSER", "thr", "+subscribe", "resetchannels")
        await self.told(proxy, f"its user may not use the channels of the namespace; {mend}")
        self.main.do("ACL", "SETUSER", "thr", "&*", "resetkeys")
        await self.told(proxy, f"its user may not use the keys of the namespace; {mend}")
        self.main.do("ACL", "SETUSER", "thr", "~*", "+@all")
        await self.mended(backend, proxy)

    async def test_wrong_database(self) -> None:
        """A database that the server does not have."""
        self.main = await self.started("--databases", "1")
        self.redis = f"redis://{self.main.place}/5"
        backend, proxy = await self.trouble(
            "it has no database of this number; correct redis.url; a cluster has none but 0"
        )
        await self.main.signal("KILL")
        self.main.options += ("--databases", "6")
        self.main = await self.again(self.main)
        self.main.login["db"] = 5
        await self.mended(backend, proxy)

    async def test_replica(self) -> None:
        """A read-only replica, until it is promoted."""
        master = await self.started()
        self.main = await self.replica(master)
        self.redis = f"redis://{self.main.place}"
        backend, proxy = await self.trouble(
            "it is a read-only replica; name the master in redis.url, or let sentinel:// find it"
        )
        self.main.do("REPLICAOF", "NO", "ONE")
        await self.mended(backend, proxy)

    async def test_out_of_memory(self) -> None:
        """A server without memory, until it has some."""
        self.main = await self.started()
        self.redis = f"redis://{self.main.place}"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy, "before-")
        self.main.set("maxmemory", 1)
        await self.told(
            proxy,
            "it is out of memory, and refuses to write; "
            "raise its maxmemory, and leave its maxmemory-policy at noeviction",
        )
        await self.closed(proxy, "meanwhile")
        self.main.set("maxmemory", 0)
        await self.mended(backend, proxy)

    async def test_disk(self) -> None:
        """A server that cannot save, until it can."""
        self.main = await self.started()
        self.redis = f"redis://{self.main.place}"
        backend, proxy = await self.proxied()
        await self.regulated(backend, proxy, "before-")
        os.mkdir(os.path.join(self.main.directory, "dump.rdb"))
        self.main.set("save", "3600 1")
        self.main.do("BGSAVE")
        await self.told(
            proxy,
            "it cannot save to disk, and so refuses to write; "
            "mend what its own log says, or set its stop-writes-on-bgsave-error to no",
        )
        await self.closed(proxy, "meanwhile")
        self.main.set("stop-writes-on-bgsave-error", "no")
        await self.mended(backend, proxy)

    async def test_old(self) -> None:
        """A server as Redis 3 was, which knows no effects of scripts, and one that knows no scripts at all."""
        said = (
            b"-ERR Error running script (call to f_1): @user_script:99: @user_script: 99: Write commands not allowed "
            b"after non deterministic commands. \r\n"
        )
        server = await ScriptedServer(
            self, lambda command: said if command[0] in (b"EVAL", b"EVALSHA") else good(command)
        ).listen()
        self.redis = f"redis://{server.place}"
        backend, proxy = await self.proxied()
        line = "it is too old: Redis before 5 cannot run the gate's script; use Valkey, or Redis 5 or newer"
        await proxy.child.said(f"is not usable: {line}\n".encode())
        await until(lambda: server.accepted > 8)
        await self.closed(proxy, "meanwhile")
        self.assertEqual(len(self.lines(proxy)), 1)
        server.answer = lambda command: (
            b"-ERR unknown command 'EVALSHA'\r\n" if command[0] == b"EVALSHA" else good(command)
        )
        await proxy.child.said(b"is not usable: it does not know the command EVALSHA")
        await server.stop()
        self.main = await self.started(port=server.port)
        await self.mended(backend, proxy)

    async def test_not_there(self) -> None:
        """A server that is not there yet."""
        port = unused_port()
        self.redis = f"redis://127.0.0.1:{port}"
        backend, proxy = await self.proxied()
        await proxy.child.said(
            b"is not usable: nobody listens there; start the server, or correct redis.url\n"
        )
        await self.closed(proxy, "meanwhile")
        self.assertEqual(len(self.lines(proxy)), 1)
        self.main = await self.started(port=port)
        await self.mended(backend, proxy)

    async def test_full(self) -> None:
        """A server that has as many connections as it may."""
        self.main = await self.started()
        self.redis = f"redis://{self.main.place}"
        with self.main.client() as kept:
            kept.ping()
            kept.config_set("maxclients", 1)
            backend, proxy = await self.proxied()
            await proxy.child.said(
                b"is not usable: it has as many connections as it may; raise its maxclients"
            )
            await self.closed(proxy, "meanwhile")
            kept.config_set("maxclients", 100)
        await self.mended(backend, proxy)


class TLSTroubleTests(TroubleCase):
    """What goes wrong with TLS."""

    async def met(self, times: int) -> None:
        """As the server says in its log, for it does not count them."""
        text = b"Error accepting a client connection"
        before = self.main.child.output.count(text)
        await until(lambda: self.main.child.output.count(text) >= before + times)

    async def test_certificates(self) -> None:
        """The server's certificate is another host's, has expired, or is signed by a stranger; then it is good."""
        authority = self.authority()
        self.main = await self.secured(authority, names=("elsewhere.example",))
        self.redis = f"rediss://localhost:{self.main.port}"

        def give(authority: Authority, **how: Any) -> None:
            certificate, key, _ = authority.identify("localhost", **how).save(self._place, "next")
            with self.main.client() as client:
                client.config_set("tls-cert-file", certificate, "tls-key-file", key)

        backend, proxy = await self.trouble(
            "its certificate is not for localhost; write a host in redis.url that it is for, or renew the certificate"
        )
        give(authority, valid=(-2 * DAY, -DAY))
        await proxy.child.said(b"is not usable: its certificate has expired; renew the certificate\n")
        give(Authority("stranger"))
        await proxy.child.said(
            b"is not usable: its certificate is signed by nobody who is trusted; "
            b"name the signer's certificate in redis.ca\n"
        )
        give(authority)
        await self.mended(backend, proxy)
        self.assertEqual(len(self.lines(proxy)), 4)

    async def test_no_tls(self) -> None:
        """C{rediss://} meets a server without TLS, and C{redis://} one that speaks nothing else."""
        authority = self.authority()
        self.main = await self.started()
        self.redis = f"rediss://localhost:{self.main.port}"
        backend, proxy = await self.proxied()
        await proxy.child.said(
            b"is not usable: it does not answer; see that it runs, that no firewall is between"
        )
        await self.closed(proxy, "meanwhile")
        self.main = await self.secured(authority, names=("localhost",))
        self.redis, self.options = f"redis://localhost:{self.main.port}", ""
        backend, proxy = await self.proxied(backend)
        await proxy.child.said(
            b"is not usable: it closes the connection before it answers; "
            b"see its log, and whether it wants TLS at this port: then write rediss://\n"
        )
        await self.closed(proxy, "still")
