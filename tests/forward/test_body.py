"""In memory: bodies, their back-pressure, and who is cut off when one side fails."""

from __future__ import annotations

import gc
import weakref
from io import BytesIO
from types import SimpleNamespace

from twisted.internet import error
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.forward.body import RequestBody
from thrtwisted.forward.disk import Disk
from thrtwisted.forward.spool import MEMORY, PIECE

from .support import MemoryRig

CUT_OFF = "A response cannot be kept for its client, who is cut off: [Errno %d] "

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


class Consumer:
    """Keeps what is written; pauses its producer after each of the first writes."""

    def __init__(self, producer: RequestBody, pauses: int = 0, *, asks_again: bool = False) -> None:
        self.producer = producer
        self.pauses = pauses
        self.asks_again = asks_again
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data
        if self.pauses:
            self.pauses -= 1
            self.producer.pauseProducing()
            if self.asks_again:
                self.producer.resumeProducing()


class RequestBodyTests(SynchronousTestCase):
    """The request's body, from its file to the backend."""

    def test_taken(self):
        """The body is taken from a request, which may then close its content as it likes."""
        content = BytesIO(b"body")
        content.seek(2)
        request = SimpleNamespace(content=content)
        body = RequestBody.take(request)
        request.content.close()
        self.assertEqual(body.length, 4)
        self.assertFalse(content.closed)
        body.close()
        body.close()
        self.assertTrue(content.closed)

    def test_no_content(self):
        """A request that never had any content has an empty body."""
        body = RequestBody.take(SimpleNamespace(content=None))
        self.assertEqual(body.length, 0)
        self.successResultOf(body.startProducing(Consumer(body)))

    def test_whole(self):
        """A body that is being sent is neither read nor replaced: its length was announced, and its place is lost."""
        body = RequestBody(BytesIO(b"x" * PIECE * 2))
        consumer = Consumer(body, pauses=1)
        body.startProducing(consumer)
        for late in (body.read, lambda: body.replace(b"")):
            self.assertRaises(ValueError, late)
        body.resumeProducing()
        self.assertEqual(consumer.written, b"x" * PIECE * 2)
        for late in (body.read, lambda: body.replace(b"")):
            self.assertRaises(ValueError, late)

    def test_all_at_once(self):
        """A consumer that takes everything gets it at once; the file is closed, and each piece is progress."""
        file = BytesIO(bytes(3 * PIECE + 1))
        body = RequestBody(file)
        progress = []
        body.progress = lambda: progress.append(body.sending)
        consumer = Consumer(body)
        self.assertFalse(body.sending)
        self.successResultOf(body.startProducing(consumer))
        self.assertEqual(len(consumer.written), 3 * PIECE + 1)
        self.assertEqual(progress, [True] * 4)
        self.assertFalse(body.sending)
        self.assertTrue(file.closed)

    def test_back_pressure(self):
        """A consumer that pauses gets nothing until it resumes, and may resume while it is written to."""
        body = RequestBody(BytesIO(bytes(3 * PIECE)))
        consumer = Consumer(body, 1)
        sent = body.startProducing(consumer)
        self.assertEqual(len(consumer.written), PIECE)
        self.assertNoResult(sent)
        self.assertTrue(body.sending)
        consumer.pauses, consumer.asks_again = 2, True
        body.resumeProducing()
        self.assertEqual(len(consumer.written), 3 * PIECE)
        self.successResultOf(sent)

    def test_sent_again(self):
        """A body that is kept may be sent again from its start, whether all of it was sent or a part."""
        data = bytes(range(256)) * 1024
        for pauses in (1, 0):
            file = BytesIO(data)
            body = RequestBody(file)
            body.keep()
            first = Consumer(body, pauses)
            sent = body.startProducing(first)
            self.assertEqual(sent.called, not pauses)
            self.assertRaises(ValueError, body.read)
            body.rewind()
            body.resumeProducing()
            self.assertLessEqual(len(first.written), len(data))
            self.assertFalse(body.sending)
            second = Consumer(body)
            self.successResultOf(body.startProducing(second))
            self.assertEqual(second.written, data)
            self.assertFalse(file.closed)
            body.let_go()
            self.assertTrue(file.closed)
            body.rewind()
            self.failureResultOf(body.startProducing(Consumer(body)), ValueError)
            body.let_go()

    def test_let_go_amidst(self):
        """One that is let go of while it is sent is closed when all is."""
        file = BytesIO(bytes(2 * PIECE))
        body = RequestBody(file)
        body.keep()
        consumer = Consumer(body, 1)
        body.startProducing(consumer)
        body.let_go()
        self.assertFalse(file.closed)
        body.resumeProducing()
        self.assertEqual(len(consumer.written), 2 * PIECE)
        self.assertTrue(file.closed)

    def test_let_go_unsent(self):
        """One of which nothing is sent is closed at once."""
        file = BytesIO(bytes(2))
        body = RequestBody(file)
        body.keep()
        body.let_go()
        self.assertTrue(file.closed)

    def test_stopped(self):
        """A stopped body closes its file and never says that it was sent."""
        file = BytesIO(bytes(2 * PIECE))
        body = RequestBody(file)
        sent = body.startProducing(Consumer(body, 1))
        body.stopProducing()
        body.resumeProducing()
        self.assertNoResult(sent)
        self.assertTrue(file.closed)

    def test_stopped_by_the_last_write(self):
        """A consumer may stop it while it is written to."""
        body = RequestBody(BytesIO(b"body"))
        consumer = Consumer(body)
        consumer.write = lambda data: body.stopProducing()
        self.assertNoResult(body.startProducing(consumer))

    def test_cancelled(self):
        """So does a cancelled one, whose Deferred says so."""
        file = BytesIO(bytes(2 * PIECE))
        body = RequestBody(file)
        sent = body.startProducing(Consumer(body, 1))
        sent.cancel()
        self.failureResultOf(sent)
        self.assertTrue(file.closed)

    def test_shorter_than_announced(self):
        """A file that shrank is an error, not an endless request."""
        file = BytesIO(bytes(2 * PIECE))
        body = RequestBody(file)
        file.truncate(PIECE)
        self.failureResultOf(body.startProducing(Consumer(body)), OSError)
        self.assertTrue(file.closed)


class ResponseBodyCase(SynchronousTestCase):
    """A response whose body is on its way from the backend to the client."""

    rig_class: type[MemoryRig] = MemoryRig

    def begin(self, length: int, *, congested: bool = False, **config):
        """A request whose response's head is there."""
        self.rig = self.rig_class(self, **config)
        client = self.rig.request()
        backend = self.rig.accept()
        client.congested = congested
        backend.receive(HEAD % length)
        return client, backend

    def feed(self, backend, length: int) -> None:
        """The backend sends so many bytes, as a socket does."""
        while length:
            piece = min(length, PIECE)
            backend.receive(bytes(piece))
            length -= piece

    @property
    def spool(self):
        return self.rig.forwarding._download.spool


class ResponseBodyTests(ResponseBodyCase):
    """The response's body, from the backend to the client."""

    def test_small_needs_nothing(self):
        """A response smaller than a transport's buffer needs neither a producer nor a spool."""
        client, backend = self.begin(1000)
        backend.receive(bytes(999))
        self.assertFalse(self.rig.forwarding._download._registered)
        backend.receive(b"x")
        self.assertFalse(self.spool.opened)
        self.assertTrue(client.value().endswith(b"\0x"))

    def test_head_at_once(self):
        """The head goes to the client before there is a body."""
        client, backend = self.begin(5)
        self.assertTrue(client.value().endswith(b"\r\n\r\n"))
        backend.receive(b"12345")

    def test_fast_client(self):
        """A client that takes everything gets it as it comes; a producer is registered, and gone at the end."""
        client, backend = self.begin(4 * PIECE)
        channel = client.producer
        for _ in range(4):
            self.assertTrue(self.rig.front.delivered)
            backend.receive(bytes(PIECE))
            self.assertEqual(len(self.spool), 0)
        self.assertTrue(self.rig.forwarding._download._registered)
        self.assertEqual(len(client.value().partition(b"\r\n\r\n")[2]), 4 * PIECE)
        self.assertIsNone(channel._requestProducer)

    def test_slow_client(self):
        """The backend is done while a client that takes nothing has its bytes in the spool; it gets them all."""
        body = bytes(range(256)) * 8192
        client, backend = self.begin(len(body), congested=True)
        for at in range(0, len(body), PIECE):
            backend.receive(body[at : at + PIECE])
        self.assertTrue(self.rig.finished)
        self.assertTrue(self.spool.opened)
        self.assertNoResult(self.rig.front.delivered[0])
        client.relieve()
        self.successResultOf(self.rig.front.delivered[0])
        self.assertEqual(client.value().partition(b"\r\n\r\n")[2], body)

    def test_slow_client_bit_by_bit(self):
        """A client that takes a piece now and then gets every byte, in order, while more arrives."""
        body = bytes(range(256)) * 8192
        client, backend = self.begin(len(body), congested=True)
        for at in range(0, len(body), PIECE):
            backend.receive(body[at : at + PIECE])
            client.resume()
            backend.receive(b"")
        while client.producer._requestProducer is not None:
            client.resume()
        self.assertEqual(client.value().partition(b"\r\n\r\n")[2], body)

    def test_leaving_frees_a_paused_backend(self):
        """A client that leaves while the backend is paused for it lets the backend go on."""
        client, backend = self.begin(10**9, congested=True, max_spool=0)
        while backend.producerState == "producing":
            backend.receive(bytes(PIECE))
        client.lose()
        self.assertEqual(backend.producerState, "producing")
        self.assertEqual(len(self.spool), 0)

    def test_leaving_with_bytes_in_the_spool(self):
        """A client that leaves after the backend is done leaves no file behind."""
        client, backend = self.begin(2 * 10**6, congested=True)
        self.feed(backend, 2 * 10**6)
        self.assertTrue(self.spool.opened)
        client.lose()
        self.assertEqual(self.spool.taken, 0)
        self.successResultOf(self.rig.front.delivered[0])

    def test_cut(self):
        """A body that the backend cuts: the client's connection is aborted, and its request not finished."""
        for sent, congested in [(b"part", False), (bytes(PIECE * 2), True)]:
            client, backend = self.begin(10**6, congested=congested)
            backend.receive(sent)
            backend.lose()
            self.assertTrue(client.aborted)
            self.assertTrue(self.rig.finished)
            self.successResultOf(self.rig.front.delivered[0])
            self.rig.clock.advance(0)

    def test_cut_before_delivery(self):
        """A body that was cut before it could be delivered is cut for the client too."""
        rig = self.rig = self.rig_class(self)
        client = rig.request()
        request = client.producer.requests[0]
        backend = rig.accept()
        forwarding = rig.forwarding
        late = []
        forwarding.deliver, deliver = late.append, forwarding.deliver
        backend.receive(HEAD % 10 + b"part")
        backend.lose()
        self.assertEqual(late, [request])
        self.successResultOf(deliver(request))
        self.assertTrue(client.aborted)
        self.assertEqual(client.value(), b"")
        self.assertTrue(rig.finished)

    def test_late_delivery(self):
        """What came before it could be delivered waits."""
        rig = self.rig = self.rig_class(self)
        client = rig.request()
        request = client.producer.requests[0]
        backend = rig.accept()
        forwarding = rig.forwarding
        forwarding.deliver, deliver = lambda _: None, forwarding.deliver
        backend.receive(HEAD % 4 + b"body")
        self.assertTrue(rig.finished)
        self.successResultOf(deliver(request))
        self.assertTrue(client.value().endswith(b"body"))

    def test_full_disk(self):
        """A spool that cannot be written cuts the client; the backend is read to its end, and keeps its slot."""
        client, backend = self.begin(MEMORY * 3, congested=True)
        self.feed(backend, MEMORY * 2)

        def fail(data):
            raise OSError(28, "No space left on device")

        self.spool._store = fail
        with capturedLogs() as events:
            backend.receive(bytes(10))
        self.assertEqual([formatEvent(event) for event in events], [CUT_OFF % 28 + "No space left on device"])
        self.assertTrue(client.aborted)
        self.assertFalse(self.rig.finished)
        backend.receive(bytes(MEMORY - 10))
        self.assertTrue(self.rig.finished)

    def test_broken_disk(self):
        """So does a spool that cannot be read."""
        client, backend = self.begin(MEMORY * 4, congested=True)
        self.feed(backend, MEMORY * 3)

        def fail():
            raise OSError(5, "Input/output error")

        self.spool._load = fail
        with capturedLogs() as events:
            client.relieve()
        self.assertEqual([formatEvent(event) for event in events], [CUT_OFF % 5 + "Input/output error"])
        self.assertTrue(client.aborted)
        self.successResultOf(self.rig.front.delivered[0])
        self.assertFalse(self.rig.finished)

    def test_failing_client(self):
        """A client's transport that fails is a client that is cut, not a backend that is."""
        client, backend = self.begin(10)

        def fail(data):
            raise ZeroDivisionError

        client.write = fail
        backend.receive(b"12345")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(client.aborted)
        backend.receive(b"67890")
        self.assertTrue(self.rig.finished)

    def test_eager_transport(self):
        """A client's transport that asks for more while it is written to gets each byte once."""
        client, backend = self.begin(3 * PIECE, congested=True)
        for _ in range(3):
            backend.receive(bytes(range(256)) * (PIECE // 256))
        congest = client._congest

        def eager():
            congest()
            if client.producer is not None:
                client.resume()

        client._congest = eager
        client.resume()
        self.assertEqual(client.value().partition(b"\r\n\r\n")[2], bytes(range(256)) * (3 * PIECE // 256))

    def test_answer_during_upload(self):
        """An answer that comes while the request is sent is read, within bounds, and ends the sending."""
        rig = self.rig = self.rig_class(self)
        client = rig.request(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" + bytes(300000))
        backend = rig.accept(congested=True)
        backend.receive(HEAD % 8)
        self.assertEqual(backend.producerState, "producing")
        backend.receive(b"too much")
        self.assertTrue(client.value().endswith(b"too much"))
        self.assertTrue(rig.finished)
        self.assertTrue(backend.aborted)


class BoundTests(ResponseBodyCase):
    """How much is kept of a response before its backend is held. Over the relay it is held later."""

    def test_max_spool(self):
        """Past max_spool the backend is paused; it goes on when the client has taken half; so max_spool bounds."""
        for max_spool in (0, 4 * PIECE):
            client, backend = self.begin(10**9, congested=True, max_spool=max_spool)
            received = 0
            while backend.producerState == "producing":
                backend.receive(bytes(PIECE))
                received += PIECE
            self.assertLessEqual(len(self.spool), MEMORY + max_spool + PIECE)
            self.assertGreaterEqual(received, MEMORY + max_spool)
            while backend.producerState == "paused":
                client.resume()
            self.assertLessEqual(len(self.spool), (MEMORY + max_spool) // 2)
            self.assertGreater(len(self.spool), 0)
            self.assertFalse(self.rig.finished)

    def test_disk_that_others_have(self):
        """
        A backend that is paused because others have the disk goes on when they leave it, though its client takes
        nothing: it finishes, and its slot is free. The client gets every byte in the end.
        """
        disk = Disk(2 * PIECE)
        other, backend = self.begin(10**9, congested=True, disk=disk)
        while disk.used < 2 * PIECE:
            self.feed(backend, PIECE)
        self.assertEqual(backend.producerState, "producing")
        length = 4 * MEMORY
        client = self.rig.request()
        backend = self.rig.accept()
        client.congested = True
        backend.receive(HEAD % length)
        sent = 0
        while backend.producerState == "producing":
            self.feed(backend, PIECE)
            sent += PIECE
        self.assertLess(sent, MEMORY + 4 * PIECE)
        other.lose()
        self.assertEqual((disk.used, backend.producerState), (PIECE, "producing"))
        disk.take(PIECE)
        self.feed(backend, PIECE)
        self.assertEqual(backend.producerState, "paused")
        disk.limit = 10**9
        disk.give(PIECE)
        self.feed(backend, length - sent - PIECE)
        self.assertEqual(len(self.rig.front.done), 1)
        while self.spool:
            client.resume()
        self.assertEqual(client.value().partition(b"\r\n\r\n")[2], bytes(length))
        self.assertEqual(disk.used, 0)

    def test_disk_that_others_keep(self):
        """A backend that is paused because others have the disk, and keep it, goes on when its own client reads."""
        disk = Disk(0)
        length = 3 * MEMORY
        client, backend = self.begin(length, congested=True, disk=disk)
        sent = 0
        while sent < length:
            while backend.producerState == "producing" and sent < length:
                self.feed(backend, PIECE)
                sent += PIECE
            self.assertLessEqual(len(self.spool), MEMORY + PIECE)
            client.resume()
        while not client.value().endswith(bytes(length)):
            client.resume()
        self.assertTrue(self.rig.finished)
        self.assertFalse(self.spool.opened)

    def test_backend_dies_while_paused(self):
        """A backend that dies while it is paused cuts the client's response."""
        client, backend = self.begin(10**9, congested=True, max_spool=0)
        while backend.producerState == "producing":
            backend.receive(bytes(PIECE))
        backend.lose(error.ConnectionLost())
        self.assertTrue(client.aborted)
        self.assertTrue(self.rig.finished)

    def test_endless_answer_during_upload(self):
        """Only so much of it is read as long as the request is being sent; then the rest follows."""
        rig = self.rig = self.rig_class(self)
        client = rig.request(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" + bytes(300000))
        backend = rig.accept(congested=True)
        backend.receive(HEAD % (10 * MEMORY))
        while backend.producerState == "producing":
            backend.receive(bytes(PIECE))
            backend.pauseProducing() if rig.forwarding._attempt._connection._early > 2 * MEMORY else None
        self.assertEqual(client.value(), b"")
        backend.congested = False
        backend.resume()
        self.assertEqual(backend.producerState, "producing")
        backend.receive(bytes(10 * MEMORY))
        self.assertEqual(len(client.value().partition(b"\r\n\r\n")[2]), 10 * MEMORY)


class EndTests(ResponseBodyCase):
    """What is left of an exchange that was forwarded directly."""

    def test_over(self):
        """What is over is not kept in memory until Python looks for objects that only know each other."""
        gc.disable()
        self.addCleanup(gc.enable)
        for length, congested in ((4, False), (4 * MEMORY, True)):
            client, backend = self.begin(length, congested=congested)
            self.feed(backend, length)
            if congested:
                client.relieve()
            front = self.rig.front
            self.successResultOf(front.delivered[0])
            kept = [weakref.ref(self.rig.forwarding), weakref.ref(self.spool)]
            front.forwardings.clear()
            front.done.clear()
            self.assertEqual([each() for each in kept], [None, None])
