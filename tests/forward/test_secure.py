"""On sockets: backends with TLS."""

from __future__ import annotations

import os
import socket

from twisted.internet import reactor
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.certificates import DAY, Authority

from .support import OK, RawBackend, SocketRig, until

GET = b"GET / HTTP/1.1\r\nHost: site\r\n\r\n"


class SecureCase(TestCase):
    """An authority, and backends that it knows."""

    timeout = 30

    def setUp(self):
        self.authority = Authority()
        self.place = self.mktemp()
        os.mkdir(self.place)
        self.ca = self.authority.identity.save(self.place, "ca")[0]
        self.said = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event):
        if event["log_namespace"].startswith("thrtwisted."):
            self.said.append(event["log_format"].format(**event))

    async def rig(self, identity, host="localhost", clients=(), **config):
        """
        A front before a backend with TLS.

        @param host: in the URL.
        @param clients: authorities, of one of which a client needs a certificate.
        """
        self.names = []
        backend = RawBackend()
        certificate = PrivateCertificate.loadPEM(identity.certificate + identity.key)
        options = certificate.options(*(Certificate.loadPEM(each.certificate) for each in clients))
        options.getContext().set_tlsext_servername_callback(
            lambda connection: self.names.append(connection.get_servername())
        )
        port = reactor.listenSSL(0, backend, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        config.setdefault("ca", self.ca)
        rig = SocketRig(self, url=f"https://{host}:{port.getHost().port}", keep_alive=5.0, **config)
        rig.backend = backend
        await rig.start()
        return rig

    async def refused(self, rig, kind, words):
        """The client is answered 502, the backend was told nothing, and the log says why, and how to mend it."""
        client = await rig.exchange(GET, b"\r\n\r\n")
        self.assertTrue(client.received.startswith(b"HTTP/1.1 502 "), client.received)
        self.assertEqual([each.proxy_status for each in rig.front.errors], [kind])
        self.assertEqual(rig.backend.received, b"")
        [line] = self.said
        self.assertTrue(line.startswith(f"backend.app: {rig.config['url']} cannot be connected to: "), line)
        self.assertIn(words, line)
        self.said.clear()
        await rig.forwarder.close()
        await until(lambda: all(connection.lost for connection in rig.backend.connections))


class SecureTests(SecureCase):
    """Who is verified, and who is not."""

    async def test_verified(self):
        """A name or an address that the certificate has; a name is sent along (SNI); each request is on its own."""
        identity = self.authority.identify("localhost", "127.0.0.1")
        for host, names in (("localhost", [b"localhost"]), ("127.0.0.1", [None])):
            rig = await self.rig(identity, host)
            for _ in range(2):
                client = await rig.exchange(GET)
                self.assertTrue(client.received.endswith(b"\r\n\r\nok"))
            self.assertEqual(self.names, 2 * names)
            self.assertEqual(len(rig.backend.connections), 2)
            self.assertEqual(rig.backend.received.count(b"Connection: close\r\n"), 2)
            self.assertEqual(rig.backend.received.count(b"Host: site\r\n"), 2)
        self.assertEqual(self.said, [])

    async def test_reused(self):
        """With C{retries} safe requests without a body share connections; the others have one of their own."""
        rig = await self.rig(self.authority.identify("localhost"), retries=1)
        for _ in range(3):
            client = await rig.exchange(GET)
            self.assertTrue(client.received.endswith(b"\r\n\r\nok"))
        self.assertEqual([connection.requests for connection in rig.backend.connections], [3])
        await rig.exchange(GET.replace(b"GET", b"DELETE"))
        await rig.exchange(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
        self.assertEqual([connection.requests for connection in rig.backend.connections], [3, 1, 1])

    async def test_reused_and_closed(self):
        """One that was closed is passed over, or its request is sent again, over a new one, as often as C{retries}."""
        rig = await self.rig(self.authority.identify("localhost"), retries=1)
        for end in ("loseConnection", "abortConnection"):
            await rig.exchange(GET)
            idle = rig.backend.connections[-1]
            getattr(idle.transport, end)()
            await until(lambda idle=idle: idle.lost)
            client = await rig.exchange(GET)
            self.assertTrue(client.received.endswith(b"ok"), end)
        self.assertEqual(rig.front.errors, [])
        for end in ("loseConnection", "abortConnection"):
            for again, status in ((True, b"200"), (False, b"502")):
                rig.backend.answer = OK
                await rig.exchange(GET)
                count = len(rig.backend.connections)
                idle = rig.backend.connections[-1]
                rig.backend.answer, before = None, idle.received
                number = len(rig.front.done)
                client = await rig.request(GET)
                await until(lambda idle=idle, before=before: idle.received != before)
                rig.backend.answer = OK if again else None
                getattr(idle.transport, end)()
                if not again:
                    await until(
                        lambda count=count: rig.backend.received and len(rig.backend.connections) > count
                    )
                    new = rig.backend.connections[-1]
                    await until(lambda new=new: new.received)
                    getattr(new.transport, end)()
                await until(lambda number=number: len(rig.front.done) > number)
                await until(lambda client=client: b"\r\n\r\n" in client.received)
                self.assertEqual(client.received[9:12], status, (end, again))
                self.assertEqual(len(rig.backend.connections), count + 1)
        self.assertEqual(rig.forwarder._routes.out, [])
        self.assertEqual(self.said, [])

    async def test_large(self):
        """Bodies pass in both directions."""
        rig = await self.rig(self.authority.identify("localhost"))
        body = os.urandom(1_000_000)
        rig.backend.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        head = b"POST / HTTP/1.1\r\nHost: site\r\nContent-Length: %d\r\n\r\n" % len(body)
        client = await rig.exchange(head + body, body[-100:])
        self.assertTrue(client.body == body)
        self.assertTrue(rig.backend.received.endswith(body))

    async def test_not_trusted(self):
        """Another name, another signer, a certificate of another time: nothing is sent."""
        for identity, words in [
            (self.authority.identify("other"), "is not for localhost (mend: write a host in backend.app.url"),
            (self.authority.identify("127.0.0.1"), "is not for localhost"),
            (self.authority.identify(), "is not for localhost"),
            (
                Authority("other").identify("localhost"),
                "signed by nobody who is trusted (mend: name the signer's",
            ),
            (self.authority.identify("localhost", valid=(-2 * DAY, -DAY)), "its certificate has expired"),
            (self.authority.identify("localhost", valid=(DAY, 2 * DAY)), "its certificate is not valid yet"),
        ]:
            await self.refused(await self.rig(identity), "tls_certificate_error", words)
        rig = await self.rig(self.authority.identify("localhost"), "127.0.0.1")
        await self.refused(rig, "tls_certificate_error", "is not for 127.0.0.1")

    async def test_system(self):
        """Without C{ca} those count that the system trusts; our authority is none of them."""
        rig = await self.rig(self.authority.identify("localhost"), ca=None)
        await self.refused(rig, "tls_certificate_error", "name the signer's certificate in backend.app.ca")

    async def test_client_certificate(self):
        """A backend that wants a certificate gets it; without, the log says what is missing."""
        clients = Authority("clients")
        ours = clients.identify().save(self.place, "ours")[2]
        identity = self.authority.identify("localhost")
        rig = await self.rig(identity, clients=[clients], certificate=ours)
        client = await rig.exchange(GET)
        self.assertTrue(client.received.endswith(b"\r\n\r\nok"))
        self.assertEqual(self.said, [])
        rig = await self.rig(identity, clients=[clients])
        client = await rig.exchange(GET, b"\r\n\r\n")
        self.assertTrue(client.received.startswith(b"HTTP/1.1 502 "))
        self.assertEqual([each.proxy_status for each in rig.front.errors], ["tls_protocol_error"])
        self.assertEqual(rig.backend.received, b"")
        [line] = self.said
        self.assertIn(
            "it wants a certificate from us (mend: name one, with its key, in backend.app.cert", line
        )

    async def test_no_tls(self):
        """A port that does not speak TLS."""
        plain = await SocketRig(self).start()
        rig = await self.rig(self.authority.identify("localhost"))
        url = plain.config["url"].replace("http:", "https:").replace("127.0.0.1", "localhost")
        rig = SocketRig(self, url=url, ca=self.ca)
        plain.backend.answer = lambda head: b"HTTP/1.1 400 No\r\n\r\n"
        await rig.start()
        client = await rig.request(GET)
        await until(lambda: plain.backend.received)
        plain.backend.connections[0].transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await until(lambda: rig.front.done)
        await until(lambda: client.received)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 502 "))
        [line] = self.said
        self.assertIn("it does not speak TLS at this port (mend: correct the port, or write http://", line)
        self.assertNotIn(b"GET", plain.backend.received)

    async def test_silent(self):
        """C{connect_timeout} is for TLS too, and a client that leaves meanwhile does not wait for it."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"https://localhost:{silent.getsockname()[1]}"
            rig = await SocketRig(self, url=url, ca=self.ca, connect_timeout=0.2).start()
            client = await rig.exchange(GET, b"\r\n\r\n")
            self.assertTrue(client.received.startswith(b"HTTP/1.1 504 "))
            rig = await SocketRig(self, url=url, ca=self.ca, connect_timeout=100.0).start()
            client = await rig.request(GET)
            await until(lambda: rig.forwarder._pools[0]._open)
            client.transport.abortConnection()
            await until(lambda: rig.front.done)
            await until(lambda: not rig.forwarder._pools[0]._open)

    async def test_closed_in_the_handshake(self):
        """A server that closes before TLS stands was sent nothing."""
        plain = await SocketRig(self).start()
        url = plain.config["url"].replace("http:", "https:")
        rig = await SocketRig(self, url=url, ca=self.ca).start()
        client = await rig.request(GET)
        await until(lambda: plain.backend.connections)
        plain.backend.connections[0].transport.loseConnection()
        await until(lambda: rig.front.done)
        await until(lambda: client.received)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 502 "))
        self.assertIn("cannot be connected to", self.said[0])

    async def test_another_url(self):
        """A URL whose certificate is not trusted is as one that refuses: another one gets the request."""
        bad = await self.rig(Authority("other").identify("localhost"))
        good = await self.rig(self.authority.identify("localhost"))
        urls = [bad.config["url"], good.config["url"]]
        rig = await SocketRig(self, url=urls, ca=self.ca).start()
        client = await rig.exchange(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
        self.assertTrue(client.received.endswith(b"ok"))
        self.assertEqual((bad.backend.received, good.backend.received[-2:]), (b"", b"hi"))

    async def test_back(self):
        """One that can be connected to again has its share at once; that it takes us is known with its first answer."""
        identity = self.authority.identify("localhost")
        rigs = [await self.rig(identity) for _ in range(2)]
        rig = SocketRig(self, url=[each.config["url"] for each in rigs], ca=self.ca, down_time=1.0)
        await rig.start()
        rig.forwarder._routes.refused(0, reactor.seconds() - 1.0)
        for each in rigs:
            each.backend.answer = None
        for number in range(1, 5):
            await rig.request(GET)
            await until(
                lambda number=number: sum(each.backend.received.count(b"GET") for each in rigs) == number
            )
        self.assertEqual([len(each.backend.connections) for each in rigs], [2, 2])
        self.assertEqual(rig.forwarder._routes.out, [0])
        for connection in rigs[0].backend.connections + rigs[1].backend.connections:
            connection.transport.write(OK)
        await until(lambda: len(rig.front.done) == 4)
        self.assertEqual(rig.forwarder._routes.out, [])

    async def test_cut(self):
        """A body that ends in the middle is cut, with or without TLS's own farewell."""
        for answer in (OK[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"):
            for abort in (False, True):
                rig = await self.rig(self.authority.identify("localhost"))
                rig.backend.answer = None
                client = await rig.request(GET)
                await until(lambda rig=rig: rig.backend.received)
                transport = rig.backend.connections[0].transport
                transport.write(answer)
                await until(lambda client=client: b"\r\n\r\n" in client.received)
                transport.abortConnection() if abort else transport.loseConnection()
                await until(lambda client=client: client.lost)
                self.assertNotIn(b"0\r\n\r\n", client.received)
                await until(lambda rig=rig: rig.front.done)
