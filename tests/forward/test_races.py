"""
On sockets: connections that a backend closes while a request is on its way to it.

The backend is a socket that the test itself reads, writes and closes, each at a moment of its choice: what the kernel
answers is the kernel's own.
"""

import contextlib
import os
import select
import socket
import tempfile
from io import BytesIO

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.http_headers import Headers

from thrtwisted.config import Backend
from thrtwisted.errors import BackendClosed, BackendConnectTimeout, BackendRefused, BackendUnreachable
from thrtwisted.exchange import Exchange
from thrtwisted.forward import Forwarder, RequestBody

from .support import OK, until


def readable(connection):
    return bool(select.select([connection], [], [], 0)[0])


class RaceCase(TestCase):
    """A forwarder, and an application that is the test."""

    timeout = 5

    def listen(self):
        """@return: a listening socket and the URL."""
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        return server, f"http://127.0.0.1:{server.getsockname()[1]}"

    def start(self, **config):
        self.server, url = self.listen()
        self.server.listen()
        self.addCleanup(self.server.close)
        self.connections = []
        self.forwarder = Forwarder(reactor, "app", Backend(url=url, **{"keep_alive": 20.0, **config}))
        self.addCleanup(self.stop, self.forwarder, self.connections)

    async def stop(self, forwarder, connections):
        await forwarder.close()
        for connection in connections:
            connection.close()

    def send(self, method=b"GET", body=b""):
        headers = Headers({b"Host": [b"h"]})
        if body:
            headers.setRawHeaders(b"content-length", [b"%d" % len(body)])
        exchange = Exchange(method, b"/", headers, client="", backend="app")
        forwarding = self.forwarder.send(exchange, RequestBody(BytesIO(body)))
        forwarding.status = None

        def answered(head):
            forwarding.status = head.status

        def refused(failure):
            forwarding.status = failure.value.status
            return None if failure.check(BackendClosed) else failure

        forwarding.head.addCallbacks(answered, refused)
        return forwarding

    async def accept(self):
        await until(lambda: readable(self.server))
        connection, _ = self.server.accept()
        self.connections.append(connection)
        return connection

    async def read(self, connection):
        await until(lambda: readable(connection))
        return connection.recv(65536)

    async def over(self, forwarding):
        """@return: the status, when head and end are there."""
        await until(lambda: forwarding.status and forwarding.done.called)
        return forwarding.status

    async def idle(self):
        """@return: the application's side of a connection that is idle now."""
        forwarding = self.send()
        connection = await self.accept()
        self.assertTrue((await self.read(connection)).startswith(b"GET / "))
        connection.send(OK)
        self.assertEqual(await self.over(forwarding), 200)
        return connection

    async def answered_anew(self, forwarding):
        """The request is sent once more, on a new connection, and answered."""
        connection = await self.accept()
        request = await self.read(connection)
        self.assertEqual(request.count(b"GET / "), 1)
        connection.send(OK)
        self.assertEqual(await self.over(forwarding), 200)
        self.assertFalse(readable(self.server))


class RaceTests(RaceCase):
    """Who closes a connection that had been idle."""

    async def test_reused(self):
        """To begin with: a connection that stays open is used again."""
        self.start()
        connection = await self.idle()
        forwarding = self.send()
        await self.read(connection)
        connection.send(OK)
        self.assertEqual(await self.over(forwarding), 200)
        self.assertFalse(readable(self.server))

    async def test_closed_before(self):
        """One that was closed is passed over, though the reactor has not come to it yet."""
        self.start()
        connection = await self.idle()
        connection.close()
        await self.answered_anew(self.send())

    async def test_reset_before(self):
        """One that was reset is passed over likewise."""
        self.start()
        connection = await self.idle()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        await self.answered_anew(self.send())

    async def test_unasked_before(self):
        """So is one on which something came that nobody asked for."""
        self.start()
        connection = await self.idle()
        connection.send(OK.replace(b"ok", b"no"))
        await self.answered_anew(self.send())
        with self.assertRaises(ConnectionError):  # it was closed with these bytes unread
            while True:
                await self.read(connection)
                connection.send(b"x")

    async def test_closed_as_it_is_sent(self):
        """Closed after it was looked at, before the request came: that is sent again."""
        self.start()
        connection = await self.idle()
        forwarding = self.send()
        connection.close()
        await self.answered_anew(forwarding)

    async def test_reset_as_it_is_sent(self):
        """The same, where something of ours was left unread from before: a reset instead of an end."""
        self.start()
        connection = await self.idle()
        forwarding = self.send()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        await self.answered_anew(forwarding)

    async def test_closed_unread(self):
        """Closed when the request was there, but not read."""
        self.start()
        connection = await self.idle()
        forwarding = self.send()
        await until(lambda: readable(connection))
        connection.close()
        await self.answered_anew(forwarding)

    async def test_closed_partly_read(self):
        """Closed when only a part of the request was read: it cannot have been executed."""
        self.start()
        connection = await self.idle()
        forwarding = self.send()
        await until(lambda: readable(connection))
        connection.recv(3)
        connection.close()
        await self.answered_anew(forwarding)

    async def test_closed_after_reading(self):
        """Closed when the request had been read: it may have been executed, so the client is told, and that is all."""
        self.start()
        connection = await self.idle()
        forwarding = self.send()
        self.assertTrue((await self.read(connection)).endswith(b"\r\n\r\n"))
        connection.close()
        self.assertEqual(await self.over(forwarding), 502)
        self.assertFalse(readable(self.server))

    async def test_new_connection_unread(self):
        """What was not read on a new connection is sent again likewise: a stopping server never accepted it."""
        self.start()
        forwarding = self.send()
        connection = await self.accept()
        await until(lambda: readable(connection))
        connection.close()
        await self.answered_anew(forwarding)

    async def test_never_accepted(self):
        """When a server stops, another URL gets the requests that it had not accepted."""
        other, url = self.listen()
        other.listen()
        self.addCleanup(other.close)
        self.server, stopping = self.listen()
        self.server.listen()
        self.connections = []
        self.forwarder = Forwarder(reactor, "app", Backend(url=[stopping, url]))
        self.addCleanup(self.stop, self.forwarder, self.connections)
        forwarding = self.send()
        await until(lambda: forwarding._attempt.connected and readable(self.server))
        self.server.close()
        self.server = other
        await self.answered_anew(forwarding)

    async def test_only_once(self):
        """What was not read on a new connection, and is lost again, is not sent a third time."""
        for reused in (False, True):
            self.start()
            if reused:
                connection = await self.idle()
                forwarding = self.send()
                connection.close()
            else:
                forwarding = self.send()
            for _ in range(2):
                again = await self.accept()
                await until(lambda again=again: readable(again))
                again.close()
            self.assertEqual(await self.over(forwarding), 502)
            self.assertFalse(readable(self.server))

    async def test_answer_begun(self):
        """A connection that ends in the middle of a head is a 502: something was executed."""
        self.start()
        connection = await self.idle()
        forwarding = self.send()
        await until(lambda: readable(connection))
        connection.send(b"HTTP/1.1 200")
        connection.close()  # with the request unread
        self.assertEqual(await self.over(forwarding), 502)
        self.assertFalse(readable(self.server))

    async def test_unsafe(self):
        """A request with a body, or whose method may change something, is sent over a new connection, and once."""
        for method, body in [(b"POST", b""), (b"DELETE", b""), (b"GET", b"body"), (b"get", b"")]:
            self.start(retries=3)
            idle = await self.idle()
            forwarding = self.send(method, body)
            connection = await self.accept()
            await until(lambda connection=connection: readable(connection))
            connection.close()
            self.assertEqual(await self.over(forwarding), 502)
            self.assertFalse(readable(self.server) or readable(idle), method)

    async def test_youngest_first(self):
        """Of several idle connections the one that was used last is used first."""
        self.start()
        forwardings = [self.send() for _ in range(3)]
        connections = [await self.accept() for _ in range(3)]
        for number in (1, 2, 0):
            await self.read(connections[number])
            connections[number].send(OK)
            await until(
                lambda number=number: sum(f.done.called for f in forwardings) == (1, 2, 0).index(number) + 1
            )
        for number in (0, 2, 1):
            forwarding = self.send()
            self.assertIn(b"GET", await self.read(connections[number]))
            forwarding.break_off()
            await self.over(forwarding)
        self.assertFalse(readable(self.server))

    async def test_client_leaves_meanwhile(self):
        """Nothing is sent again for a client that has left."""
        self.start(retries=3)
        connection = await self.idle()
        forwarding = self.send()
        await until(lambda: readable(connection))
        forwarding.abandon()
        connection.close()
        self.assertEqual(await self.over(forwarding), 502)
        self.assertFalse(readable(self.server))

    async def test_close_while_waiting_for_evidence(self):
        """A proxy that stops while it waits for a reset does not wait for it."""
        self.start()
        connection = await self.idle()
        forwarding = self.send()
        await self.read(connection)
        connection.close()
        await until(lambda: forwarding._attempt._connection._looking)
        await self.forwarder.close()
        self.assertEqual(await self.over(forwarding), 502)


class RetryTests(RaceCase):
    """C{retries}."""

    async def test_retries(self):
        """A safe request without a body that had no answer is sent again so many times, each on a new connection."""
        for method in (b"GET", b"HEAD", b"OPTIONS"):
            self.start(retries=2)
            await self.idle()
            forwarding = self.send(method)
            await self.read(self.connections[-1])
            self.connections[-1].close()
            for _ in range(2):
                self.assertEqual(forwarding.status, None)
                connection = await self.accept()
                await self.read(connection)
                connection.close()
            self.assertEqual(await self.over(forwarding), 502)
            self.assertFalse(readable(self.server))

    async def test_answered(self):
        """The first answer is the client's."""
        self.start(retries=2)
        forwarding = self.send()
        (await self.accept()).close()
        await self.answered_anew(forwarding)

    async def test_begun(self):
        """Once a byte of an answer has come nothing is sent again."""
        self.start(retries=2)
        forwarding = self.send()
        connection = await self.accept()
        await self.read(connection)
        connection.send(b"H")
        connection.close()
        self.assertEqual(await self.over(forwarding), 502)
        self.assertFalse(readable(self.server))


class Unix:
    """The same over a unix socket."""

    def listen(self):
        directory = tempfile.TemporaryDirectory()  # trial's own may be too deep for a socket's path
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "app.sock")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        return server, f"unix://{path}"


class UnixCrowdTests(Unix, RaceCase):
    """A unix socket whose server does not accept, at the moment."""

    def crowd(self):
        """So many connections that no other one has room."""
        crowd = []
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = socket.socket(socket.AF_UNIX)
                crowd.append(waiting)
                waiting.setblocking(False)
                waiting.connect(self.server.getsockname())
        for waiting in crowd:
            self.addCleanup(waiting.close)

    def crowded(self, **config):
        """@return: a forwarding that cannot be connected to the crowded server."""
        self.start(**config)
        self.server.listen(0)
        self.crowd()
        return self.send()

    async def test_accepted_later(self):
        """The request waits for its turn, as it would with TCP."""
        forwarding = self.crowded()
        for _ in range(3):
            await deferLater(reactor, 0)
        self.assertEqual(forwarding.status, None)
        (await self.accept()).close()
        await self.answered_anew(forwarding)

    async def test_not_accepted(self):
        """After C{connect_timeout} it is over."""
        forwarding = self.crowded(connect_timeout=0.2)
        failure = []
        forwarding.head.addErrback(failure.append)
        await until(lambda: forwarding.done.called)
        self.assertIsInstance(failure[0].value, BackendConnectTimeout)

    async def test_not_there(self):
        """A socket that is not there, or that nobody listens to, is another matter: that is told at once."""
        for gone in (True, False):
            self.start(connect_timeout=1000.0)
            if gone:
                os.unlink(self.server.getsockname())
            self.server.close()
            failure = []
            self.send().head.addErrback(failure.append)
            await until(lambda failure=failure: failure)
            self.assertIsInstance(failure[0].value, BackendUnreachable if gone else BackendRefused)


class UnixRaceTests(Unix, RaceTests):
    """Who closes a connection that had been idle, over a unix socket."""


class UnixRetryTests(Unix, RetryTests):
    """C{retries}, over a unix socket."""
