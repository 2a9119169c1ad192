"""Tests for L{thrtwisted.redis.connection}, TLS included: real connections to servers that tests play."""

from __future__ import annotations

import os
from typing import Any

import txredisapi
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.error import ConnectionAborted
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.trial.unittest import TestCase

from tests.certificates import DAY, Authority, Identity
from tests.forward.support import until
from tests.redis.support import Answer, ScriptedServer, good
from thrtwisted.redis import connection as module
from thrtwisted.redis.connection import Dialer, Messages
from thrtwisted.redis.trouble import trouble_of
from thrtwisted.redis.url import RedisAddress, parse
from thrtwisted.tls import Security


class DialerCase(TestCase):
    """A dialer, whose connections are closed at the end of the test."""

    timeout = 30

    def dialer(self, security: Security | None = None) -> Dialer:
        dialer = Dialer(reactor, security)
        self.addCleanup(dialer.close)
        return dialer

    async def server(self, answer: Answer = good, tls: Any = None) -> ScriptedServer:
        return await ScriptedServer(self, answer, tls).listen()

    async def trouble(self, dialer: Dialer, address: RedisAddress) -> str:
        """What is wrong with it, in words."""
        try:
            await dialer.ask(address, "PING")
        except Exception as problem:
            return trouble_of(problem).what
        return "nothing"


class DialerTests(DialerCase):
    """Connections without TLS."""

    async def test_ask(self) -> None:
        """One question has a connection of its own, logged in, and leaves none."""
        server = await self.server()
        address = parse(f"redis://ann:s3cret@{server.place}/3")
        self.assertIn(await self.dialer().ask(address, "PING", b"\xff"), ("OK", b"OK"))  # hiredis: bytes
        self.assertEqual(
            server.commands, [[b"AUTH", b"ann", b"s3cret"], [b"SELECT", b"3"], [b"PING", b"\xff"]]
        )
        await until(lambda: not server.connections)

    async def test_slow(self) -> None:
        """Who does not answer is not waited for; nothing is left."""
        self.patch(module, "ASK_LIMIT", 0.05)
        server = await self.server(lambda command: None)
        dialer = self.dialer()
        with self.assertRaises(TimeoutError):
            await dialer.ask(server.address, "PING")
        with self.assertRaises(TimeoutError):
            await dialer.ask(parse(f"redis://:pw@{server.place}"), "PING")
        await until(lambda: not server.connections)
        self.assertEqual(dialer._connections, [])

    async def test_cancel(self) -> None:
        """A question may be given up in any phase."""
        server = await self.server(lambda command: None)
        dialer = self.dialer()
        for address in (server.address, parse(f"redis://:pw@{server.place}")):
            asking = dialer.ask(address, "PING")
            asking.cancel()
            with self.assertRaises(CancelledError):
                await asking
            before = len(server.commands)
            asking = dialer.ask(address, "PING")
            await until(lambda before=before: len(server.commands) > before)
            asking.cancel()
            with self.assertRaises(CancelledError):
                await asking
        await until(lambda: not server.connections)

    async def test_close(self) -> None:
        """All that stands is closed, whatever it is at."""
        server = await self.server(lambda command: None if command[0] == b"PING" else good(command))
        dialer = self.dialer()
        commands = await dialer.open(server.address)
        await dialer.open(server.address, Messages)
        reply = dialer.command(commands, "PING")
        await dialer.close()
        self.assertEqual(dialer._connections, [])
        with self.assertRaises(ConnectionAborted):
            await reply
        await dialer.close()

    async def test_echo(self) -> None:
        """A server that repeats what it does not know does not bring the password into the log."""
        for said in (
            b"-ERR unknown command 'AUTH', with args beginning with: 's3cret' \r\n",
            b"-ERR what is s3cret?\r\n",
        ):
            server = await self.server(lambda command, said=said: said)
            with self.assertRaises(txredisapi.ResponseError) as caught:
                await self.dialer().ask(parse(f"redis://:s3cret@{server.place}"), "PING")
            self.assertNotIn("s3cret", str(caught.exception))

    async def test_closed(self) -> None:
        """A server that closes at once."""

        def close(command: list[bytes]) -> bytes:
            raise OSError

        server = await self.server(close)
        self.assertEqual(
            await self.trouble(self.dialer(), server.address), "it closes the connection before it answers"
        )

    async def test_garbage(self) -> None:
        """A server of another kind."""
        server = await self.server(lambda command: b"\xff\r\n")
        self.assertIn("its answer cannot be read (", await self.trouble(self.dialer(), server.address))

    async def test_full(self) -> None:
        """A server that has as many connections as it may says so and closes."""
        server = await self.server(lambda command: b"-ERR max number of clients reached\r\n")
        self.assertEqual(
            await self.trouble(self.dialer(), server.address), "it has as many connections as it may"
        )


class SecurityTests(DialerCase):
    """Connections with TLS."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.place = self.mktemp()
        os.mkdir(self.place)

    def file(self, identity: Identity, name: str = "x", which: int = 2) -> str:
        """A file with the certificate (0), the key (1) or both (2); its path."""
        return identity.save(self.place, name)[which]

    def trusting(self, authority: Authority | None = None, certificate: str | None = None) -> Dialer:
        """A dialer that trusts an authority."""
        return self.dialer(Security(self.file((authority or self.authority).identity, "ca", 0), certificate))

    async def secured(self, identity: Identity, *clients: Authority) -> ScriptedServer:
        """A server that has an identity; if it names authorities, its clients need one of these."""
        certificate = PrivateCertificate.loadPEM(identity.certificate + identity.key)
        authorities = [Certificate.loadPEM(authority.certificate) for authority in clients]
        return await self.server(tls=certificate.options(*authorities))

    async def at(self, server: ScriptedServer, host: str, dialer: Dialer) -> str:
        """What is wrong with it, by the name of the host; and that it was not told anything then."""
        address = RedisAddress("tcp", host=host, port=server.port, password="s3cret", tls=True)
        trouble = await self.trouble(dialer, address)
        if trouble != "nothing":
            await until(lambda: not server.connections)
            self.assertEqual(server.received, b"", "it was sent something")
        return trouble

    async def test_verified(self) -> None:
        """A certificate of an authority that is trusted, which names the host or its IP address."""
        server = await self.secured(self.authority.identify("localhost", "127.0.0.1"))
        for host in ("localhost", "127.0.0.1"):
            self.assertEqual(await self.at(server, host, self.trusting()), "nothing")
        self.assertEqual(server.commands, [[b"AUTH", b"s3cret"], [b"PING"]] * 2)

    async def test_wildcard(self) -> None:
        """A certificate may name all hosts of a domain."""
        server = await self.secured(self.authority.identify("*.localhost"))
        self.assertEqual(
            await self.at(server, "localhost", self.trusting()), "its certificate is not for localhost"
        )

    async def test_wrong_name(self) -> None:
        """A certificate that names other hosts, or other addresses, or none at all."""
        for names in (("elsewhere.example",), ("127.0.0.2",), ()):
            server = await self.secured(self.authority.identify(*names))
            for host in ("localhost", "127.0.0.1"):
                self.assertEqual(
                    await self.at(server, host, self.trusting()), f"its certificate is not for {host}"
                )

    async def test_name_of_another_kind(self) -> None:
        """A name is no address, and an address no name."""
        server = await self.secured(self.authority.identify("localhost"))
        self.assertEqual(
            await self.at(server, "127.0.0.1", self.trusting()), "its certificate is not for 127.0.0.1"
        )
        server = await self.secured(self.authority.identify("127.0.0.1"))
        self.assertEqual(
            await self.at(server, "localhost", self.trusting()), "its certificate is not for localhost"
        )

    async def test_unknown_authority(self) -> None:
        """A certificate that somebody else has signed, be it under the same name; or that signs itself."""
        server = await self.secured(self.authority.identify("localhost"))
        what = "its certificate is signed by nobody who is trusted"
        for other in (Authority(), Authority("other")):
            self.assertEqual(await self.at(server, "localhost", self.trusting(other)), what)
        self.assertEqual(await self.at(server, "localhost", self.dialer(Security())), what)
        server = await self.secured(Authority("self").identity)
        self.assertEqual(await self.at(server, "localhost", self.trusting()), what)

    async def test_dates(self) -> None:
        """A certificate that has expired, or is not valid yet."""
        server = await self.secured(self.authority.identify("localhost", valid=(-2 * DAY, -DAY)))
        self.assertEqual(await self.at(server, "localhost", self.trusting()), "its certificate has expired")
        server = await self.secured(self.authority.identify("localhost", valid=(DAY, 2 * DAY)))
        self.assertEqual(
            await self.at(server, "localhost", self.trusting()), "its certificate is not valid yet"
        )

    async def test_client_certificate(self) -> None:
        """A server may ask for a certificate of ours."""
        server = await self.secured(self.authority.identify("localhost"), self.authority)
        self.assertEqual(
            await self.at(server, "localhost", self.trusting()), "it wants a certificate from us"
        )
        ours = self.file(self.authority.identify(), "ours")
        theirs = self.file(Authority("other").identify(), "theirs")
        self.assertEqual(
            await self.at(server, "localhost", self.trusting(certificate=theirs)),
            "it does not accept our certificate",
        )
        self.assertEqual(await self.at(server, "localhost", self.trusting(certificate=ours)), "nothing")

    async def test_several_authorities(self) -> None:
        """The file may have several certificates, with text between them."""
        other = Authority("other")
        path = f"{self.place}/both"
        with open(path, "wb") as file:
            file.write(b"one\n" + other.certificate + b"two\n" + self.authority.certificate)
        for authority in (other, self.authority):
            server = await self.secured(authority.identify("localhost"))
            self.assertEqual(await self.at(server, "localhost", self.dialer(Security(path))), "nothing")

    async def test_system(self) -> None:
        """Without a file, whoever the system trusts is trusted."""
        server = await self.secured(self.authority.identify("localhost"))
        os.environ["SSL_CERT_FILE"] = self.file(self.authority.identity, "system", 0)
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        self.assertEqual(await self.at(server, "localhost", self.dialer(Security())), "nothing")

    async def test_no_tls(self) -> None:
        """A server that does not speak TLS, and says so in its way; or waits for the end of a line."""
        server = await self.server()
        server.answer = lambda command: None
        make = server.buildProtocol
        server.buildProtocol = lambda addr: _talkative(make(addr))  # type: ignore[method-assign]
        address = RedisAddress("tcp", host="localhost", port=server.port, tls=True)
        self.assertEqual(await self.trouble(self.trusting(), address), "it does not speak TLS at this port")

    async def test_only_tls(self) -> None:
        """A server that speaks nothing but TLS."""
        server = await self.secured(self.authority.identify("localhost"))
        address = RedisAddress("tcp", host="localhost", port=server.port)
        trouble = await self.trouble(self.dialer(), address)
        self.assertEqual(trouble, "it closes the connection before it answers")


def _talkative(connection: Any) -> Any:
    """A connection that takes everything for a command that it does not know."""
    connection.dataReceived = lambda data: connection.transport.write(b"-ERR unknown command\r\n")
    return connection
