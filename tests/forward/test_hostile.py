"""Backends whose responses are broken, in memory: none is ever taken for a complete one, and no connection is kept."""

from __future__ import annotations

import re

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase, TestCase

from thrtwisted.forward.connection import HEAD

from .support import OK, MemoryRig, SocketRig, until

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSED = b"HTTP/1.1 200 OK\r\n\r\n"


def fields(*lines: bytes) -> bytes:
    """A head with these fields."""
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines)) + b"\r\n\r\n"


#: Heads that are none: answered 502. Each is complete, so nothing is waited for.
BROKEN_HEADS = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "ICY": b"ICY 200 OK\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "signed": b"HTTP/1.1 +20 OK\r\n\r\n",
    "out of range": b"HTTP/1.1 600 OK\r\n\r\n",
    "zero": b"HTTP/1.1 000 OK\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "tab": b"HTTP/1.1\t200 OK\r\n\r\n",
    "NUL in the phrase": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "CR in the phrase": b"HTTP/1.1 200 O\rK\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF in the middle": b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n",
    "bare CR": fields(b"X: y\rContent-Length: 4"),
    "NUL": fields(b"X: \0"),
    "control character": fields(b"X: \x01"),
    "no colon": fields(b"hello"),
    "no name": fields(b": x"),
    "blank before the colon": fields(b"Content-Length : 0"),
    "blank before a name": fields(b" X: y"),
    "continued": fields(b"X: a", b" b"),
    "name that is none": fields(b"X(y): z"),
    "two lengths": fields(b"Content-Length: 4", b"Content-Length: 5"),
    "two lengths in one": fields(b"Content-Length: 4, 5"),
    "length with a sign": fields(b"Content-Length: +4"),
    "negative length": fields(b"Content-Length: -4"),
    "hexadecimal length": fields(b"Content-Length: 0x4"),
    "length with a blank": fields(b"Content-Length: 1 2"),
    "empty length": fields(b"Content-Length:"),
    "length of many digits": fields(b"Content-Length: " + b"9" * 30),
    "both": fields(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    "unknown coding": fields(b"Transfer-Encoding: rot13"),
    "two codings": fields(b"Transfer-Encoding: gzip, chunked"),
    "chunked twice": fields(b"Transfer-Encoding: chunked, chunked"),
    "chunked in two fields": fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "identity": fields(b"Transfer-Encoding: identity"),
    "obscured coding": fields(b"Transfer-Encoding: \x0bchunked"),
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    "giant field": b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD,
    "giant line": b"HTTP/1.1 200 " + b"x" * HEAD,
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (HEAD // 6),
    "giant and complete": fields(b"X: " + b"x" * HEAD),
    "endless interim": b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" * (HEAD // 28 + 1),
    "broken interim": b"HTTP/1.1 100\nX\r\n\r\n" + OK,
    "empty line first": b"\r\n" + OK,
}

#: Bodies that are broken, after the head: the client's connection is cut, in the middle of the response.
BROKEN_BODIES = {
    "no size": CHUNKED + b"\r\n",
    "garbage": CHUNKED + b"hello\r\n",
    "negative": CHUNKED + b"-4\r\nbody\r\n0\r\n\r\n",
    "signed": CHUNKED + b"+4\r\nbody\r\n0\r\n\r\n",
    "0x": CHUNKED + b"0x4\r\nbody\r\n0\r\n\r\n",
    "underscore": CHUNKED + b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "blank before": CHUNKED + b" 4\r\nbody\r\n0\r\n\r\n",
    "many digits": CHUNKED + b"0" * 17 + b"4\r\nbody\r\n0\r\n\r\n",
    "huge": CHUNKED + b"f" * 16 + b"\r\nbody",
    "bare LF": CHUNKED + b"4\nbody\n0\n\n",
    "longer than its size": CHUNKED + b"4\r\nbody!\r\n0\r\n\r\n",
    "shorter than its size": CHUNKED + b"6\r\nbody\r\n0\r\n\r\n",
    "broken extension": CHUNKED + b"4;\x01\r\nbody\r\n0\r\n\r\n",
    "endless extension": CHUNKED + b"4;" + b"x" * 100_000,
    "broken trailer": CHUNKED + b"4\r\nbody\r\n0\r\nhello\r\n\r\n",
    "endless trailers": CHUNKED + b"4\r\nbody\r\n0\r\n" + b"X: y\r\n" * 20_000,
}

#: What ends too early with the connection.
CUT = {
    "length": LENGTH + b"bod",
    "length, nothing": LENGTH,
    "in a chunk": CHUNKED + b"4\r\nbod",
    "after a chunk": CHUNKED + b"4\r\nbody\r\n",
    "before the last line": CHUNKED + b"4\r\nbody\r\n0\r\n",
    "in a size": CHUNKED + b"4\r\nbody\r\n0",
    "in a trailer": CHUNKED + b"4\r\nbody\r\n0\r\nX: y\r\n",
}

#: Complete responses after which nothing on the connection can be trusted: the client has its answer, they are closed.
SPOILED = {
    "more than its length": (LENGTH + b"body+", b"body"),
    "a second answer": (LENGTH + b"body" + OK, b"body"),
    "bytes after the last chunk": (CHUNKED + b"4\r\nbody\r\n0\r\n\r\n+", b"body"),
    "an answer after the last chunk": (CHUNKED + b"4\r\nbody\r\n0\r\n\r\n" + OK, b"body"),
    "204 with a body": (b"HTTP/1.1 204 None\r\nContent-Length: 4\r\n\r\nbody", b""),
    "204 with a length": (b"HTTP/1.1 204 None\r\nContent-Length: 4\r\n\r\n", b""),
    "204 with chunks": (b"HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
    "204": (b"HTTP/1.1 204 None\r\n\r\n", b""),
    "204 of nothing": (b"HTTP/1.1 204 None\r\nContent-Length: 0\r\n\r\n", b""),
    "304": (b"HTTP/1.1 304 Same\r\n\r\n", b""),
    "304 with a body": (b"HTTP/1.1 304 Same\r\n\r\nbody", b""),
    "no length, nothing after": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nbody", b""),
    "close": (fields(b"Connection: close", b"Content-Length: 4") + b"body", b"body"),
    "Close": (fields(b"Connection: x, Close", b"Content-Length: 4") + b"body", b"body"),
    "close in a second field": (
        fields(b"Connection: keep-alive", b"Connection: close", b"Content-Length: 4") + b"body",
        b"body",
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody", b"body"),
}

#: Complete responses, after which the connection is used again.
WELL = {
    "length": (LENGTH + b"body", b"body"),
    "empty": (fields(b"Content-Length: 0"), b""),
    "the same length twice": (fields(b"Content-Length: 4", b"Content-Length: 4") + b"body", b"body"),
    "chunks": (CHUNKED + b"1\r\nb\r\n3\r\nody\r\n0\r\n\r\n", b"body"),
    "capital chunks": (
        fields(b"Transfer-Encoding: Chunked") + b"A\r\n0123456789\r\n0\r\n\r\n",
        b"0123456789",
    ),
    "extensions": (CHUNKED + b'4;a=b;c="d e"\r\nbody\r\n0;x\r\n\r\n', b"body"),
    "trailers": (CHUNKED + b"4\r\nbody\r\n0\r\nX-Secret: y\r\nContent-Length: 9\r\n\r\n", b"body"),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + LENGTH + b"body",
        b"body",
    ),
    "no phrase": (b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nbody", b"body"),
    "large field": (fields(b"X: " + b"x" * 60_000, b"Content-Length: 4") + b"body", b"body"),
}


def body_of(received: bytes) -> bytes:
    """The body that a client understands, chunked or not."""
    head, _, body = received.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


def complete(received: bytes) -> bool:
    """Whether a client could take this for a complete response."""
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head, re.IGNORECASE)
    if length:
        return len(body) >= int(length[1])
    return b"chunked" not in head or body.endswith(b"0\r\n\r\n")


class HostileTests(SynchronousTestCase):
    """Tables of responses, each in one piece and byte by byte."""

    def pieces(self, data: bytes) -> list[list[bytes]]:
        """The same bytes, cut in several ways; not byte by byte where they are many."""
        step = 1 if len(data) < 1000 else len(data) // 50
        return [[data], [data[at : at + step] for at in range(0, len(data), step)]]

    def asked(self, request: bytes = GET):
        rig = MemoryRig(self)
        client = rig.request(request)
        return rig, client, rig.accept()

    def check_not_used_again(self, rig, backend):
        rig.clock.advance(0)
        self.assertTrue(backend.lost)
        rig.request()
        self.assertEqual(len(rig.clock.tcpClients), 2)

    def test_broken_heads(self):
        """What is no head of a response is a 502, at once, and nothing of it reaches the client."""
        for what, sent in BROKEN_HEADS.items():
            for pieces in self.pieces(sent):
                rig, client, backend = self.asked()
                for piece in pieces:
                    backend.receive(piece)
                self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "), what)
                self.assertEqual(
                    [each.proxy_status for each in rig.front.errors], ["http_protocol_error"], what
                )
                rig.clock.advance(0)
                self.assertTrue(rig.finished, what)
                self.check_not_used_again(rig, backend)

    def test_cut_heads(self):
        """A head that is not complete is a 502, wherever it is cut."""
        whole = b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH
        for end in range(len(whole)):
            rig, client, backend = self.asked()
            if end:
                backend.receive(whole[:end])
            backend.lose()
            self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "), end)
            self.assertEqual([each.proxy_status for each in rig.front.errors], ["connection_terminated"])
            self.assertTrue(rig.finished)

    def test_broken_bodies(self):
        """What is no body cuts the client's connection: its response is never complete."""
        for what, sent in BROKEN_BODIES.items():
            for pieces in self.pieces(sent):
                rig, client, backend = self.asked()
                for piece in pieces:
                    backend.receive(piece)
                rig.clock.advance(0)
                if client.value().startswith(b"HTTP/1.1 502 "):  # it was in one piece with the head
                    kinds = [each.proxy_status for each in rig.front.errors]
                    self.assertEqual((len(pieces), kinds), (1, ["http_protocol_error"]), what)
                else:
                    self.assertTrue(client.aborted, what)
                    self.assertFalse(complete(client.value()), what)
                self.assertTrue(rig.finished, what)
                self.check_not_used_again(rig, backend)

    def test_cut_bodies(self):
        """So does what ends too early, in order or not."""
        for what, sent in CUT.items():
            for end in (error.ConnectionDone(), error.ConnectionLost()):
                rig, client, backend = self.asked()
                backend.receive(sent)
                backend.lose(end)
                self.assertTrue(client.aborted, what)
                self.assertFalse(complete(client.value()), what)
                self.assertTrue(rig.finished, what)

    def test_until_close(self):
        """A body without length and chunks ends with the connection; a reset cuts it."""
        for end, cut in [(error.ConnectionDone(), False), (error.ConnectionLost(), True)]:
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                rig, client, backend = self.asked()
                backend.receive(CLOSED.replace(b"HTTP/1.1", version) + b"body")
                self.assertFalse(rig.finished)
                backend.lose(end)
                self.assertEqual(client.aborted, cut)
                self.assertEqual(complete(client.value()), not cut)
                self.assertTrue(rig.finished)

    def test_spoiled(self):
        """A response followed by what nobody asked for is passed on, and its connection is not used again."""
        for what, (sent, body) in SPOILED.items():
            for pieces in self.pieces(sent):
                rig, client, backend = self.asked()
                for piece in pieces:
                    backend.receive(piece)
                self.assertEqual(body_of(client.value()), body, what)
                self.assertTrue(complete(client.value()), what)
                self.assertNotIn(b"HTTP/1.1", client.value()[8:], what)
                self.assertTrue(rig.finished, what)
                self.check_not_used_again(rig, backend)

    def test_late(self):
        """What comes after a complete response while its request is still being sent changes nothing of it."""
        for sent in (LENGTH + b"body", CHUNKED + b"4\r\nbody\r\n0\r\n\r\n"):
            rig = MemoryRig(self)
            client = rig.request(
                b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)
            )
            backend = rig.accept(congested=True)
            backend.receive(sent)
            backend.receive(b"more")
            backend.receive(OK)
            self.assertEqual(body_of(client.value()), b"body")
            self.assertTrue(rig.finished)
            rig.clock.advance(0)
            self.assertTrue(backend.lost)

    def test_well(self):
        """To compare with: these are passed on, trailers and interim responses are not, and the connection is kept."""
        for what, (sent, body) in WELL.items():
            for pieces in self.pieces(sent):
                rig, client, backend = self.asked()
                for piece in pieces:
                    backend.receive(piece)
                self.assertEqual(body_of(client.value()), body, what)
                self.assertTrue(rig.finished, what)
                for dropped in (b"Secret", b"Link", b"HTTP/1.1 100"):
                    self.assertNotIn(dropped, client.value())
                rig.request()
                self.assertEqual(len(rig.clock.tcpClients), 1, what)
                backend.receive(OK)
                self.assertEqual(body_of(rig.clients[-1].value()), b"ok", what)

    def test_head_with_body(self):
        """An answer to HEAD ends with its head, whatever its fields say; what follows is nobody's."""
        for sent in (LENGTH, LENGTH + b"body", CHUNKED, CHUNKED + b"4\r\nbody\r\n0\r\n\r\n", CLOSED):
            rig, client, backend = self.asked(GET.replace(b"GET", b"HEAD"))
            backend.receive(sent)
            self.assertTrue(client.value().endswith(b"\r\n\r\n"), sent)
            self.assertNotIn(b"body", client.value())
            self.assertTrue(rig.finished)
            self.check_not_used_again(rig, backend)

    def test_bodiless_with_late_body(self):
        """What a backend sends late after an answer that has no body is not the next client's answer."""
        for sent in (
            b"HTTP/1.1 304 Same\r\n\r\n",
            b"HTTP/1.1 304 Same\r\nContent-Length: 4\r\n\r\n",
            b"HTTP/1.1 204 None\r\nContent-Length: 0\r\n\r\n",
        ):
            rig, _, backend = self.asked()
            backend.receive(sent)
            client = rig.request()
            if not backend.lost:
                backend.receive(OK.replace(b"ok", b"no"))
            rig.accept().receive(OK)
            self.assertEqual(body_of(client.value()), b"ok", sent)

    def test_during_upload(self):
        """The same while the request is still being sent."""
        post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)
        for sent in (BROKEN_HEADS["both"], BROKEN_HEADS["endless interim"], BROKEN_BODIES["garbage"]):
            rig = MemoryRig(self)
            client = rig.request(post)
            backend = rig.accept(congested=True)
            backend.receive(sent)
            rig.clock.advance(0)
            self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "), sent)
            self.assertTrue(rig.finished and backend.lost)


class HostileSocketTests(TestCase):
    """A handful of the same on sockets."""

    timeout = 30

    async def test_handful(self):
        """A 502 or a cut connection, and another connection for the next request."""
        for sent in [
            BROKEN_HEADS["both"],
            BROKEN_HEADS["endless interim"],
            BROKEN_HEADS["giant field"],
            BROKEN_BODIES["longer than its size"],
            BROKEN_BODIES["endless trailers"],
        ]:
            rig = await SocketRig(self, keep_alive=5.0).start()
            rig.backend.answer = sent
            client = await rig.request(GET)
            await until(lambda rig=rig: rig.front.done)
            await until(lambda client=client: client.lost or b"\r\n\r\n" in client.received)
            if not client.received.startswith(b"HTTP/1.1 502 "):
                await until(lambda client=client: client.lost)
                self.assertFalse(client.received and complete(bytes(client.received)))
            rig.backend.answer = OK
            await rig.exchange(GET)
            self.assertEqual(len(rig.backend.connections), 2)
