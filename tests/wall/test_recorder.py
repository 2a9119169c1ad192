"""Tests for what finds smuggled requests: it does."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.wall.corpus import POISON, chunked, get, post, request
from tests.wall.fuzz import compare
from tests.wall.recorder import (
    Malformed,
    Reader,
    Result,
    Seen,
    agree_with_h11,
    agree_with_httptools,
    agreed,
    answers,
    misplaced,
)

#: What a proxy must not send to its backend.
SMUGGLED = {
    "half a request": POISON[:20],
    "a request and half of another": POISON + POISON[:20],
    "half a body": post(b"Content-Length: 4", body=b"abc"),
    "half a chunk": chunked(b"4\r\nabc"),
    "no last chunk": chunked(b"3\r\nabc\r\n"),
    "bytes behind a request": get() + b"\r\n",
    "two framings": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "an odd length": post(b"Content-Length: +3", body=b"abc"),
    "an odd coding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "an odd size": chunked(b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a size with an underscore": chunked(b"0_3\r\nabc\r\n0\r\n\r\n"),
    "a trailer": chunked(b"0\r\nX: y\r\n\r\n"),
    "bare LF": get(b"X: y\nZ: z"),
    "bare CR": get(b"X: y\rZ: z"),
    "a fold": get(b"X: y", b" z"),
    "a control character": get(b"X: \x01"),
    "a blank before a colon": get(b"X : y"),
    "no colon": get(b"X"),
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": get(b"Host: evil"),
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: h\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a blank in the target": get(target=b"/a b"),
    "TE": get(b"TE: trailers"),
    "Trailer": get(b"Trailer: X"),
    "Upgrade": get(b"Upgrade: h2c"),
    "Upgrade that Connection names": get(b"Upgrade: h2c", b"Connection: Upgrade"),
    "Connection": get(b"Connection: X"),
    "two Connections": get(b"Connection: keep-alive", b"Connection: close"),
    "Keep-Alive": get(b"Keep-Alive: timeout=1"),
    "Proxy": get(b"Proxy: evil"),
    "a field of proxies": get(b"Proxy-Evil: yes"),
    "an underscore": get(b"X_Forwarded_For: 1.2.3.4"),
    "an expectation": post(b"Expect: 100-continue", b"Content-Length: 3", body=b"abc"),
    "an expectation twice": post(b"Expect: 100-continue, 100-continue", b"Content-Length: 3", body=b"abc"),
    "an expectation of nothing": get(b"Expect:"),
    "something behind close": get(b"Connection: close") + get(),
}

#: What the reader of our own takes for good; and what h11 alone catches, httptools alone, or each of them.
BY_H11 = {
    "brackets in a method": request(b"(GET) / HTTP/1.1", b"Host: h"),
    "a method outside ASCII": request(b"G\xe9T / HTTP/1.1", b"Host: h"),
    "a length of 25 digits": post(b"Content-Length: %025d" % 3, body=b"abc"),
    "a size of 21 digits": chunked(b"%021x\r\nabc\r\n0\r\n\r\n" % 3),
}
BY_HTTPTOOLS = {
    "a target that is a word": get(target=b"word"),
    "a target of colons": get(target=b"::"),
    "a blank behind a size": chunked(b"3 \r\nabc\r\n0\r\n\r\n"),
    "a tab behind a size": chunked(b"3\t\r\nabc\r\n0\r\n\r\n"),
}
BY_BOTH = {
    "an @ in a name": get(b"X@: y"),
    "a quote in a name": get(b'X": y'),
    "a name outside ASCII": get(b"X\xe9: y"),
    "a target outside ASCII": get(target=b"/\xe9"),
    "a control character in a target": get(target=b"/\x01"),
    "a blank before a size": chunked(b" 3\r\nabc\r\n0\r\n\r\n"),
    "a size with a sign": chunked(b"+3\r\nabc\r\n0\r\n\r\n"),
    "a vertical tab behind a size": chunked(b"3\x0b\r\nabc\r\n0\r\n\r\n"),
    "bare CR behind a size": chunked(b"3\r\r\nabc\r\n0\r\n\r\n"),
    "bare LF behind a size": chunked(b"3\n\r\nabc\r\n0\r\n\r\n"),
    "less than none for the last size": chunked(b"3\r\nabc\r\n-0\r\n\r\n"),
}


class AgreedTests(SynchronousTestCase):
    """Tests for what reached the backend."""

    def test_good(self) -> None:
        """Requests that all parsers see alike are theirs."""
        sent = get() + post(b"Content-Length: 3", body=b"abc") + chunked(b"3\r\nabc\r\n0\r\n\r\n") + POISON
        seen = agreed(sent + get(b"Connection: close"))
        self.assertEqual(
            [(each.method, each.target, each.body) for each in seen],
            [
                (b"GET", b"/", b""),
                (b"POST", b"/", b"abc"),
                (b"POST", b"/", b"abc"),
                (b"GET", b"/smuggled", b""),
                (b"GET", b"/", b""),
            ],
        )

    def test_unknown_method(self) -> None:
        """A method that llhttp does not know is no reason for a difference."""
        [first, second] = agreed(get() + b"FOO /" + get()[5:])
        self.assertEqual((first.method, second.method), (b"GET", b"FOO"))

    def test_smuggled(self) -> None:
        """Whatever is not a whole request that all see alike, or holds what no proxy may send, is found."""
        for name, sent in SMUGGLED.items():
            with self.subTest(name=name), self.assertRaises((Malformed, ValueError)):
                agreed(sent)

    def test_each_parser(self) -> None:
        """Each parser by itself catches what our own takes for good, and some of it only this one does."""
        for catching, inputs in (
            ({agree_with_h11}, BY_H11),
            ({agree_with_httptools}, BY_HTTPTOOLS),
            ({agree_with_h11, agree_with_httptools}, BY_BOTH),
        ):
            for name, sent in inputs.items():
                reader = self.read(sent)
                for agree in (agree_with_h11, agree_with_httptools):
                    with self.subTest(name=name, parser=agree.__name__):
                        if agree in catching:
                            self.assertRaises(Malformed, agree, reader, sent)
                        else:
                            agree(reader, sent)

    def read(self, sent: bytes) -> Reader:
        """Our own parser, which has read this and found nothing wrong."""
        reader = Reader()
        for seen in reader.feed(sent):
            misplaced(seen)
        self.assertEqual((len(reader.seen), reader.rest), (1, b""))
        return reader

    def test_other_requests(self) -> None:
        """Each parser by itself finds out when the requests are others than those that our own has seen."""
        sent = post(b"Content-Length: 3", b"X: y", body=b"abc") + POISON
        for agree in (agree_with_h11, agree_with_httptools):
            reader = Reader()
            [first, second] = reader.feed(sent)
            agree(reader, sent)
            for wrong in (
                [second, first],
                [attrs.evolve(first, body=b"ab"), second],
                [attrs.evolve(first, fields=first.fields[:-1]), second],
                [attrs.evolve(first, target=b"/other"), second],
                [attrs.evolve(first, method=b"GET"), second],
            ):
                reader.seen = wrong
                with self.subTest(parser=agree.__name__, seen=wrong), self.assertRaises(Malformed):
                    agree(reader, sent)


class CompareTests(SynchronousTestCase):
    """Tests for what clients have sent against what was forwarded."""

    def compare(self, sent: bytes, *forwarded: tuple[bytes, bytes, bytes]) -> None:
        """See whether this was forwarded rightly."""
        seen = [Seen(method, target, (), body) for method, target, body in forwarded]
        compare(sent, Result(seen, [], False, len(seen), ""))

    def test_right(self) -> None:
        """All requests, or the first of them."""
        sent = post(b"Content-Length: 3", body=b"abc") + POISON
        self.compare(sent, (b"POST", b"/", b"abc"), (b"GET", b"/smuggled", b""))
        self.compare(sent, (b"POST", b"/", b"abc"))
        self.compare(sent)

    def test_smuggled(self) -> None:
        """A request out of another's body, bytes of a body that are missing, a request that is left out."""
        sent = post(b"Content-Length: %d" % len(POISON), body=POISON) + get()
        for wrong in (
            [(b"POST", b"/", b""), (b"GET", b"/smuggled", b"")],
            [(b"POST", b"/", POISON[1:])],
            [(b"GET", b"/", b"")],
            [(b"POST", b"/", POISON), (b"GET", b"/", b""), (b"GET", b"/", b"")],
        ):
            with self.assertRaises(Malformed):
                self.compare(sent, *wrong)


class AnswersTests(SynchronousTestCase):
    """Tests for what clients receive."""

    def test_good(self) -> None:
        """Answers with a body, without one, and to HEAD."""
        ok = b"HTTP/1.1 200 OK\r\nX-Echo: GET\r\nContent-Length: 2\r\n\r\nok"
        head = b"HTTP/1.1 200 OK\r\nX-Echo: HEAD\r\nContent-Length: 2\r\n\r\n"
        refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n"
        found = answers(b"HTTP/1.1 100 Continue\r\n\r\n" + ok + head + ok + refused)
        self.assertEqual([each.status for each in found], [200, 200, 200, 400])
        self.assertEqual([each.body for each in found], [b"ok", b"", b"ok", b""])

    def test_bad(self) -> None:
        """Cut answers, and bytes that are none."""
        ok = b"HTTP/1.1 200 OK\r\nX-Echo: GET\r\nContent-Length: 2\r\n\r\n"
        for received in (
            ok,
            ok + b"okay",
            ok + b"o",
            ok[:-2],
            b"garbage\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ):
            with self.assertRaises(Malformed):
                answers(received)
