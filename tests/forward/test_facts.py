"""On sockets: what Twisted's and treq's clients would do to an exchange, and forwarding does not."""

import gzip
import os
import socket
import struct
import tempfile

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.trial.unittest import TestCase

from .support import OK, RawBackend, RawClient, SocketRig, until


def response(*fields: bytes, body: bytes = b"ok") -> bytes:
    lines = [b"HTTP/1.1 200 OK", *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def request(target: bytes = b"/", *fields: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join([b"%s %s HTTP/1.1" % (method, target), b"Host: h", *fields]) + b"\r\n\r\n"


class VerbatimTests(TestCase):
    """What the client sends, the backend gets, and the other way round."""

    timeout = 30

    def setUp(self):
        self.rig = SocketRig(self, keep_alive=5.0)
        self.backend = self.rig.backend
        return self.rig.start()

    @inlineCallbacks
    def test_cookies(self):
        """Two clients never see each other's cookies, and each gets all of its own."""
        self.backend.answer = response(b"Set-Cookie: id=alice; Path=/", b"Set-Cookie: b=2")
        first = yield self.rig.exchange(request())
        second = yield self.rig.exchange(request(b"/", b"Cookie: mine=1"))
        third = yield self.rig.exchange(request())
        for client in (first, second, third):
            self.assertEqual(client.received.count(b"Set-Cookie: "), 2)
        self.assertNotIn(b"alice", self.backend.received)
        self.assertEqual(self.backend.received.lower().count(b"cookie:"), 1)

    @inlineCallbacks
    def test_gzip(self):
        """Encoded bytes pass as they are, with their Content-Encoding."""
        body = gzip.compress(b"text" * 100)
        self.backend.answer = response(b"Content-Encoding: gzip", body=body)
        client = yield self.rig.exchange(request(b"/", b"Accept-Encoding: gzip, br"), body)
        self.assertEqual(client.body, body)
        self.assertIn(b"\r\nContent-Encoding: gzip\r\n", client.received)
        self.assertIn(b"\r\nAccept-Encoding: gzip, br\r\n", self.backend.received)

    @inlineCallbacks
    def test_no_encoding_added(self):
        """Without Accept-Encoding none is sent, without Content-Encoding none comes back."""
        client = yield self.rig.exchange(request())
        self.assertNotIn(b"encoding", self.backend.received.lower())
        self.assertNotIn(b"encoding", client.received.lower())

    @inlineCallbacks
    def test_methods(self):
        """The letters of a method are kept."""
        for method in [b"get", b"Patch", b"M-SEARCH"]:
            yield self.rig.exchange(request(method=method))
            self.assertIn(b"%s / HTTP/1.1\r\n" % method, self.backend.received)

    @inlineCallbacks
    def test_targets(self):
        """Odd targets pass byte for byte."""
        targets = [
            b"/a%2Fb//c/?",
            b"//x:y/",
            b"//u@:/",
            b"/?",
            b"/#",
            b"/..;/%zz?a=b?c&&",
            b'/|"<>`{}^\\',
        ]
        for target in targets:
            yield self.rig.exchange(request(target))
            self.assertIn(b"GET %s HTTP/1.1\r\nHost: h\r\n" % target, self.backend.received)
        self.assertEqual(len(self.rig.front.errors), 0)

    @inlineCallbacks
    def test_impossible_targets(self):
        """A target that cannot be sent is a 400, and the backend sees nothing of it."""
        for target in [b"//[x/", b"/\xe9", b"host:443"]:
            client = yield self.rig.request(request(target))
            yield until(lambda client=client: b"\r\n\r\n" in client.received)
            self.assertTrue(client.received.startswith(b"HTTP/1.1 400 "), client.received)
        self.assertEqual(self.backend.received, b"")

    @inlineCallbacks
    def test_absolute_target(self):
        """An absolute target becomes a path, and its host the Host."""
        yield self.rig.exchange(request(b"http://site:81/p?q"))
        self.assertEqual(
            self.backend.received, b"GET /p?q HTTP/1.1\r\nHost: site:81\r\nVia: 1.1 thrtwisted\r\n\r\n"
        )

    @inlineCallbacks
    def test_no_body(self):
        """A GET without a body is sent without any framing."""
        yield self.rig.exchange(request())
        self.assertEqual(self.backend.received, b"GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 thrtwisted\r\n\r\n")

    @inlineCallbacks
    def test_one_content_length(self):
        """A body has one Content-Length, be it empty, counted or chunked by the client."""
        for fields, body, length in [
            ([b"Content-Length: 4"], b"body", 4),
            ([b"Content-Length: 0"], b"", 0),
            ([b"Transfer-Encoding: chunked"], b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", 4),
            ([], b"", 0),
        ]:
            before = len(self.backend.received)
            yield self.rig.exchange(request(b"/", *fields, method=b"POST") + body)
            sent = self.backend.received[before:]
            self.assertEqual(sent.lower().count(b"content-length: %d\r\n" % length), 1, sent)
            self.assertEqual(sent.lower().count(b"content-length"), 1, sent)
            self.assertNotIn(b"transfer-encoding", sent.lower())
            self.assertTrue(sent.endswith(b"\r\n\r\n" + b"body"[:length]))

    @inlineCallbacks
    def test_empty_body_of_any_method(self):
        """An announced empty body stays announced, whatever the method."""
        yield self.rig.exchange(request(b"/", b"Content-Length: 0", method=b"PATCH"))
        self.assertIn(b"Content-Length: 0\r\n", self.backend.received)

    @inlineCallbacks
    def test_expect(self):
        """The client is told to go on by our server; the backend need not be asked."""
        client = yield self.rig.request(
            request(b"/", b"Expect: 100-continue", b"Content-Length: 2", method=b"PUT")
        )
        yield until(lambda: client.received == b"HTTP/1.1 100 Continue\r\n\r\n")
        client.transport.write(b"hi")
        yield until(lambda: client.received.endswith(b"ok"))
        self.assertNotIn(b"expect", self.backend.received.lower())

    @inlineCallbacks
    def test_host_of_http_1_0(self):
        """A request without Host gets the backend's own."""
        yield self.rig.exchange(b"GET / HTTP/1.0\r\n\r\n")
        authority = self.rig.config["url"].removeprefix("http://").encode()
        self.assertIn(b"\r\nHost: " + authority + b"\r\n", self.backend.received)

    @inlineCallbacks
    def test_two_hosts(self):
        """Two Hosts are a 400 of the client's, not an error of the backend's."""
        client = yield self.rig.request(request(b"/", b"Host: other"))
        yield until(lambda: client.received)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 400 "))
        self.assertEqual(self.backend.connections, [])

    @inlineCallbacks
    def test_redirects(self):
        """A redirect is the client's to follow."""
        self.backend.answer = b"HTTP/1.1 302 Elsewhere\r\nLocation: /b\r\nContent-Length: 2\r\n\r\nok"
        client = yield self.rig.exchange(request(b"/a"))
        self.assertTrue(client.received.startswith(b"HTTP/1.1 302 Elsewhere\r\n"))
        self.assertIn(b"\r\nLocation: /b\r\n", client.received)
        self.assertEqual(self.backend.received.count(b"HTTP/1.1"), 1)

    @inlineCallbacks
    def test_bytes_of_headers(self):
        """Header values and the reason phrase pass byte for byte, in both directions."""
        self.backend.answer = b"HTTP/1.1 200 Tr\xe8s\r\nX: \xff\xe9\tz\r\nContent-Length: 2\r\n\r\nok"
        client = yield self.rig.exchange(request(b"/", b"X: \xfe \xe9"))
        self.assertIn(b"\r\nX: \xfe \xe9\r\n", self.backend.received)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 200 Tr\xe8s\r\n"))
        self.assertIn(b"\r\nX: \xff\xe9\tz\r\n", client.received)

    @inlineCallbacks
    def test_head(self):
        """A response to HEAD has the backend's length and no body."""
        self.backend.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
        client = yield self.rig.exchange(request(method=b"HEAD"), b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Length: 1234\r\n", client.received)
        self.assertEqual(client.body, b"")

    @inlineCallbacks
    def test_bodiless(self):
        """204 and 304 pass without a body."""
        for status in (b"204 No Content", b"304 Not Modified"):
            self.backend.answer = b"HTTP/1.1 %s\r\nETag: x\r\n\r\n" % status
            client = yield self.rig.exchange(request(), b"\r\n\r\n")
            self.assertTrue(client.received.startswith(b"HTTP/1.1 " + status))
            self.assertNotIn(b"ransfer", client.received)


class ConnectionTests(TestCase):
    """Which connection a request goes over, and how often."""

    timeout = 30

    @inlineCallbacks
    def test_reused(self):
        """Requests one after the other share a connection."""
        rig = yield SocketRig(self, keep_alive=5.0).start()
        for _ in range(3):
            yield rig.exchange(request())
        self.assertEqual(len(rig.backend.connections), 1)

    @inlineCallbacks
    def test_many_idle(self):
        """More than two idle connections are kept."""
        rig = yield SocketRig(self, keep_alive=5.0).start()
        rig.backend.answer = None
        for _ in range(2):
            number = len(rig.front.done)
            clients = []
            for _ in range(5):
                clients.append((yield rig.request(request())))
            yield until(lambda: rig.backend.received.count(b"\r\n\r\n") == 5)
            for connection in rig.backend.connections:
                connection.received = b""
                connection.transport.write(OK)
            yield until(lambda number=number: len(rig.front.done) == number + 5)
            yield until(lambda clients=clients: all(c.received.endswith(b"ok") for c in clients))
        self.assertEqual(len(rig.backend.connections), 5)

    @inlineCallbacks
    def test_not_persistent(self):
        """With keep_alive = 0 each request has a connection of its own, and says so."""
        rig = yield SocketRig(self, keep_alive=0.0).start()
        for _ in range(2):
            yield rig.exchange(request())
        self.assertEqual(len(rig.backend.connections), 2)
        self.assertEqual(rig.backend.received.count(b"Connection: close\r\n"), 2)

    @inlineCallbacks
    def test_http_1_0_backend(self):
        """The connection of an HTTP/1.0 server is not used again: it is about to close it."""
        rig = yield SocketRig(self, keep_alive=5.0).start()
        rig.backend.answer = OK.replace(b"1.1", b"1.0")
        for _ in range(2):
            yield rig.exchange(request())
        self.assertEqual([c.requests for c in rig.backend.connections], [1, 1])

    @inlineCallbacks
    def test_no_retry(self):
        """A DELETE has a connection of its own; when that is lost, it is not sent again: the client gets 502."""
        rig = yield SocketRig(self, keep_alive=5.0, retries=3).start()
        yield rig.exchange(request())
        rig.backend.answer = None
        client = yield rig.request(request(b"/once", method=b"DELETE"))
        yield until(lambda: b"/once" in rig.backend.received)
        self.assertEqual(len(rig.backend.connections), 2)
        rig.backend.connections[1].transport.abortConnection()
        yield until(lambda: client.received)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 502 "))
        yield until(lambda: len(rig.front.done) == 2)
        self.assertEqual(rig.backend.received.count(b"/once"), 1)
        self.assertEqual(len(rig.backend.connections), 2)

    @inlineCallbacks
    def test_unix(self):
        """A backend may be a unix socket."""
        directory = tempfile.TemporaryDirectory()  # trial's own may be too deep for a socket's path
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "app.sock")
        backend = RawBackend()
        port = yield UNIXServerEndpoint(reactor, path).listen(backend)
        self.addCleanup(port.stopListening)
        rig = SocketRig(self, url=f"unix://{path}")
        rig.backend = backend
        yield rig.start()
        client = yield rig.exchange(b"GET / HTTP/1.0\r\n\r\n")
        self.assertTrue(client.received.endswith(b"ok"))
        self.assertIn(b"\r\nHost: localhost\r\n", backend.received)

    @inlineCallbacks
    def test_no_unix_socket(self):
        """A unix socket that is not there is a 502."""
        rig = yield SocketRig(self, url="unix:///nonexistent/app.sock").start()
        client = yield rig.exchange(request(), b"\r\n\r\n")
        self.assertTrue(client.received.startswith(b"HTTP/1.1 502 "))
        self.assertEqual(rig.front.errors[0].proxy_status, "destination_unavailable")

    @inlineCallbacks
    def test_refused(self):
        """A port where nobody listens is a 502."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            rig = yield SocketRig(self, url=f"http://127.0.0.1:{taken.getsockname()[1]}").start()
            client = yield rig.exchange(request(), b"\r\n\r\n")
        self.assertTrue(client.received.startswith(b"HTTP/1.1 502 "))
        self.assertEqual(rig.front.errors[0].proxy_status, "connection_refused")

    @inlineCallbacks
    def test_host_name(self):
        """A backend may have a name."""
        rig = SocketRig(self)
        yield rig.start()
        named = SocketRig(self, url=rig.config["url"].replace("127.0.0.1", "localhost"))
        named.backend = rig.backend
        yield named.start()
        yield named.exchange(request())
        self.assertEqual(len(rig.backend.connections), 1)

    @inlineCallbacks
    def test_close(self):
        """Closing breaks off what is under way, and refuses what comes later."""
        rig = yield SocketRig(self, keep_alive=5.0).start()
        yield rig.exchange(request())
        rig.backend.answer = None
        client = yield rig.request(request(b"/2"))
        yield until(lambda: b"/2" in rig.backend.received)
        yield rig.forwarder.close()
        self.assertEqual(len(rig.front.done), 2)
        yield until(lambda: client.received)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 502 "))
        late = yield rig.exchange(request(), b"\r\n\r\n")
        self.assertTrue(late.received.startswith(b"HTTP/1.1 502 "))


class StreamTests(TestCase):
    """Bodies on sockets."""

    timeout = 60

    @inlineCallbacks
    def test_unbuffered(self):
        """The head and the first bytes reach the client before the backend has sent the last."""
        rig = yield SocketRig(self).start()
        rig.backend.answer = None
        client = yield rig.request(request())
        yield until(lambda: rig.backend.received)
        backend = rig.backend.connections[0].transport
        backend.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        yield until(lambda: b"\r\n\r\n" in client.received)
        backend.write(b"5\r\nfirst\r\n")
        yield until(lambda: b"first" in client.received)
        self.assertEqual(rig.front.done, [])
        backend.write(b"4\r\nlast\r\n0\r\n\r\n")
        yield until(lambda: client.received.endswith(b"4\r\nlast\r\n0\r\n\r\n"))
        yield until(lambda: rig.front.done)

    @inlineCallbacks
    def test_cut(self):
        """A body that the backend cuts is cut for the client, never completed."""
        for head, sent in [
            (b"Content-Length: 9\r\n\r\n", b"part"),
            (b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\npart\r\n"),
            (b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\npartXX"),
        ]:
            rig = yield SocketRig(self).start()
            rig.backend.answer = None
            client = yield rig.request(request())
            yield until(lambda rig=rig: rig.backend.received)
            rig.backend.connections[0].transport.write(b"HTTP/1.1 200 OK\r\n" + head)
            yield until(lambda client=client: b"\r\n\r\n" in client.received)
            rig.backend.connections[0].transport.write(sent)
            rig.backend.connections[0].transport.loseConnection()
            yield until(lambda client=client: client.lost)
            self.assertFalse(client.received.endswith(b"0\r\n\r\n"))
            yield until(lambda rig=rig: rig.front.done)

    @inlineCallbacks
    def test_closed_body(self):
        """A body that ends with the connection is complete if the connection ended in order, cut if by a reset."""
        for reset in (False, True):
            rig = yield SocketRig(self).start()
            rig.backend.answer = None
            client = yield rig.request(request())
            yield until(lambda rig=rig: rig.backend.received)
            backend = rig.backend.connections[0].transport
            backend.write(b"HTTP/1.1 200 OK\r\n\r\npart")
            yield until(lambda client=client: b"part" in client.received)
            if reset:
                backend.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                backend.abortConnection()
                yield until(lambda client=client: client.lost)
                self.assertNotIn(b"\r\n0\r\n\r\n", client.received)
            else:
                backend.loseConnection()
                yield until(lambda client=client: client.received.endswith(b"part\r\n0\r\n\r\n"))
            yield until(lambda rig=rig: rig.front.done)

    @inlineCallbacks
    def test_slow_reader(self):
        """A client that does not read holds no slot: the backend is done while bytes wait in the spool."""
        rig = yield SocketRig(self).start()
        body = os.urandom(16 * 1024 * 1024)
        rig.backend.answer = response(body=body)
        client = yield rig.request(b"")
        client.transport.write(request())
        client.transport.pauseProducing()
        yield until(lambda: rig.front.done)
        self.assertLess(len(client.received), len(body))
        self.assertTrue(rig.front.forwardings[0]._download.spool.opened)
        self.assertFalse(rig.front.delivered[0].called)
        client.transport.resumeProducing()
        yield until(lambda: len(client.received) > len(body))
        yield rig.front.delivered[0]
        yield until(lambda: len(client.body) == len(body))
        self.assertTrue(client.body == body)

    @inlineCallbacks
    def test_early_answer(self):
        """An answer that comes while the request is still being sent is passed on, and the sending stops."""
        rig = yield SocketRig(self, keep_alive=5.0).start()
        rig.backend.answer = None
        length = 20 * 1024 * 1024
        client = yield rig.request(
            request(b"/", b"Content-Length: %d" % length, method=b"POST"), CountingClient(length)
        )
        yield until(lambda: rig.backend.received)
        backend = rig.backend.connections[0]
        backend.transport.pauseProducing()
        backend.transport.write(b"HTTP/1.1 413 Too much\r\nContent-Length: 4\r\n\r\n")
        backend.transport.write(b"stop")
        yield until(lambda: rig.front.done)
        yield until(lambda: client.received.endswith(b"stop"))
        self.assertTrue(client.received.startswith(b"HTTP/1.1 413 Too much\r\n"))
        backend.transport.resumeProducing()
        yield until(lambda: backend.lost)
        self.assertLess(len(backend.received), length)


class Zeros:
    """A push producer of so many zero bytes."""

    def __init__(self, transport, length):
        self.transport = transport
        self.left = length
        self.paused = False
        transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self):
        self.paused = True

    def resumeProducing(self):
        self.paused = False
        while self.left and not self.paused:
            piece = min(self.left, 65536)
            self.left -= piece
            self.transport.write(bytes(piece))
        if not self.left:
            self.transport.unregisterProducer()

    def stopProducing(self):
        self.left = 0


class CountingClient(RawClient):
    """Sends so many bytes after its head, and keeps the first thousand that it gets."""

    def __init__(self, length):
        super().__init__()
        self.length = length
        self.count = 0

    def connectionMade(self):
        reactor.callLater(0, Zeros, self.transport, self.length)

    def dataReceived(self, data):
        self.count += len(data)
        if len(self.received) < 1000:
            super().dataReceived(data)
