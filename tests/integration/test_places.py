"""Where Redis may be: the kinds of URLs, users and their rights, and TLS."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.integration.harness import until
from tests.integration.servers import ONE, Server, ServerCase, system_redis

ROOT = Path(__file__).parents[2]


class PlaceTests(ServerCase):
    """One server, on TCP or a socket, with or without users and databases."""

    PASSWORD = "p@ss:w/rd?"
    ENCODED = "p%40ss%3Aw%2Frd%3F"

    async def secret(self, *options: str, program: str = "") -> Server:
        """A server that lets in one user, who may see what is the proxy's."""
        rights = (f"~{{{self.namespace}}}*", f"&{{{self.namespace}}}*", "+@all", "-@admin", "-@dangerous")
        self.main = await self.started(
            *("--user", "proxy", "on", f">{self.PASSWORD}", *rights),
            *("--user", "admin", "on", ">admin", "~*", "&*", "+@all"),
            *("--user", "default", "off", *options),
            program=program,
            username="admin",
            password="admin",
        )
        return self.main

    async def check_database(self, database: int) -> None:
        """The proxy's keys are in one database alone."""
        backend, proxy = await self.proxied()
        self.main.login["db"] = database
        await self.regulated(backend, proxy)
        self.assertNotEqual(self.keys(), [])
        self.main.login["db"] = 0
        self.assertEqual(self.keys(), [])
        said = proxy.child.output + proxy.child.errors
        self.assertNotIn(self.PASSWORD.encode(), said)
        self.assertNotIn(self.ENCODED.encode(), said)

    async def test_user(self) -> None:
        """C{redis://} has a user, a password and a database, to which the proxy keeps; it tells nobody."""
        server = await self.secret()
        self.redis = f"redis://proxy:{self.ENCODED}@{server.place}/3"
        await self.check_database(3)

    async def test_unix(self) -> None:
        """C{unix://} has them too."""
        path = os.path.join(self._of("others"), "redis.sock")
        await self.secret("--unixsocket", path)
        self.redis = f"unix://proxy:{self.ENCODED}@{path}?db=2"
        await self.check_database(2)

    async def test_older_redis(self) -> None:
        """A Redis server of the system serves as well."""
        server = await self.secret(program=system_redis())
        self.redis = f"redis://proxy:{self.ENCODED}@{server.place}"
        await self.regulated(*await self.proxied())

    async def test_password_alone(self) -> None:
        """C{redis://} may have a password without a user."""
        self.main = await self.started("--requirepass", self.PASSWORD, password=self.PASSWORD)
        self.redis = f"redis://:{self.ENCODED}@{self.main.place}"
        await self.regulated(*await self.proxied())

    async def test_host_name(self) -> None:
        """A host may have a name."""
        self.main = await self.started()
        self.redis = f"redis://localhost:{self.main.port}"
        await self.regulated(*await self.proxied())


def documented_rights(relay: bool = False) -> list[str]:
    """
    The rules in docs/redis.md.

    @param relay: with what fronts and workers need, too.
    """
    text = (ROOT / "docs" / "redis.md").read_text("utf-8")
    rules = re.findall(r"^ACL SETUSER thr (?:on >PASSWORD )?(.*?)\n```", text, re.DOTALL | re.MULTILINE)
    gate, more = [str(rule.replace("\\\n", " ")).split() for rule in rules]
    return gate + more if relay else gate


class RightsTests(ServerCase):
    """What a user has to be allowed."""

    async def check_rights(self, program: str = "") -> None:
        """The rule is enough for all that a gate does."""
        self.main = await self.started(program=program)
        rights = [right.replace("{thr}", f"{{{self.namespace}}}") for right in documented_rights()]
        self.main.do("ACL", "SETUSER", "thr", "on", ">pass", *rights)
        self.redis = f"redis://thr:pass@{self.main.place}/1"
        self.main.login["db"] = 1
        backend, proxy = await self.proxied()
        _, other = await self.proxied(backend)
        await self.regulated(backend, proxy, "a-")
        # One that leaves; one that waits in another process; a server that forgets its scripts.
        first = self.ask(proxy, "/hold/b-first", ONE)
        await backend.begun("b-first")
        leaving = self.ask(other, "/work/b-leaving?seconds=0", ONE)
        waiting = self.ask(other, "/work/b-waiting?seconds=0", ONE)
        await until(lambda: self.waiting() == 2)
        leaving.leave()
        await until(lambda: self.waiting() == 1)
        self.main.do("SCRIPT", "FLUSH")
        await self.let(backend, "b-first")
        self.assertEqual([(await client.answer).status for client in (first, waiting)], [200, 200])
        # A process that dies while it holds the slot, and a server that forgets everything.
        self.ask(other, "/hold/c-held", ONE)
        await backend.begun("c-held")
        later = self.ask(proxy, "/work/c-later?seconds=0", ONE)
        await until(lambda: self.waiting() == 1)
        await other.signal("KILL")
        self.assertEqual((await later.answer).status, 200)
        self.main.do("FLUSHALL")
        self.assertEqual((await self.ask(proxy, "/work/d?seconds=0", ONE).answer).status, 200)
        self.assertEqual(self.main.do("ACL", "LOG"), [])
        self.assertEqual(len(self.lines(proxy)), 1, self.lines(proxy))

    async def test_valkey(self) -> None:
        """In Valkey."""
        await self.check_rights()

    async def test_redis(self) -> None:
        """In the system's Redis."""
        await self.check_rights(system_redis())

    def test_nothing_else(self) -> None:
        """The rule names what the script calls, and what the link sends, and nothing else."""
        scripts = {
            path.name: path.read_text("utf-8") for path in (ROOT / "src/thrtwisted/gate").glob("*.lua")
        }
        script = "\n".join(scripts.values())
        self.assertEqual(re.findall(r"redis\.p?call\(\s*(\w+)", script), ["command"])  # of in_parts
        of_relay = {"PUBSUB|NUMSUB", "XADD", "XREAD", "XDEL", "PEXPIRE"} | (
            self.called(scripts.pop("workers.lua")) - {"PUBSUB"}
        )
        of_gate = {"EVALSHA", "EVAL", "SUBSCRIBE", "SELECT", "CLUSTER|SLOTS"} | (
            self.called("\n".join(scripts.values()))
        )
        for relay, expected in ((False, of_gate), (True, of_gate | of_relay)):
            named = {right[1:].upper() for right in documented_rights(relay) if right.startswith("+")}
            self.assertEqual(named, expected)

    def called(self, script: str) -> set[str]:
        """The commands that a script calls."""
        return {*re.findall(r"(?:redis\.p?call|in_parts)\(\s*'(\w+)'", script)}


class TLSTests(ServerCase):
    """C{rediss://}"""

    async def test_verified(self) -> None:
        """A certificate that an authority in the file has signed, for the host's name or its address."""
        self.main = await self.secured(self.authority(), names=("localhost", "127.0.0.1"))
        self.main.login["db"] = 1
        backend = await self.lean()
        for host in ("localhost", "127.0.0.1"):
            self.redis = f"rediss://{host}:{self.main.port}/1"
            await self.regulated(*await self.proxied(backend), f"{host}-")

    async def test_user(self) -> None:
        """Users are the same with TLS."""
        self.main = await self.secured(self.authority(), "--requirepass", "s3cret", names=("localhost",))
        self.main.login["password"] = "s3cret"
        self.redis = f"rediss://:s3cret@localhost:{self.main.port}"
        await self.regulated(*await self.proxied())

    async def test_our_certificate(self) -> None:
        """A server that wants to see a certificate of ours."""
        authority = self.authority()
        certificate, key, both = authority.identify().save(self._place, "ours")
        self.main = await self.secured(authority, "--tls-auth-clients", "yes", names=("localhost",))
        self.main.login |= {"ssl_certfile": certificate, "ssl_keyfile": key}
        self.redis = f"rediss://localhost:{self.main.port}"
        backend, proxy = await self.proxied()
        await proxy.child.said(b"is not usable: it wants a certificate from us; name one")
        self.options += f'certificate = "{both}"\n'
        await self.regulated(*await self.proxied(backend))
