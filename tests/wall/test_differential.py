"""Tests that the application servers which are mostly behind see what was meant in what reaches them."""

from __future__ import annotations

from collections.abc import Callable

from gunicorn.config import Config
from gunicorn.http import RequestParser
from twisted.trial.unittest import SynchronousTestCase
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from tests.wall.corpus import chunked, get, post
from tests.wall.recorder import Reader, Wall, as_known, with_known_methods
from tests.wall.test_corpus import entries

#: Method, target, body.
Request = tuple[bytes, bytes, bytes]

#: Bytes of a target that gunicorn takes: it is told by its administrator.
LINE = 4000


def read_by_gunicorn(data: bytes) -> list[Request]:
    """What gunicorn makes of a connection's bytes."""
    found = []
    for request in RequestParser(Config(), iter([data]), ("127.0.0.1", 1)):
        found.append((request.method.encode(), request.uri.encode("latin-1"), request.body.read()))
        if len(found) == data.count(b" HTTP/1.1\r\n"):
            break  # it would wait for more
    return found


def read_by_waitress(data: bytes) -> list[Request]:
    """What waitress makes of a connection's bytes."""
    found = []
    while data:
        parser = HTTPRequestParser(Adjustments())
        while data and not parser.completed:
            data = data[parser.received(data) :]
        if not parser.completed or parser.error:
            raise ValueError(f"waitress: {parser.error}")
        method, target = parser.first_line.split(b" ")[:2]
        found.append((method, target, parser.get_body_stream().read()))
        if parser.connection_close:
            break
    return found


class DifferentialTests(SynchronousTestCase):
    """Tests for what of the corpus is forwarded."""

    def check(self, read: Callable[[bytes], list[Request]]) -> None:
        """An application server sees exactly the requests that were forwarded."""
        wall = Wall()
        self.addCleanup(wall.close)
        problems = []
        forwarded = 0
        for name, entry in entries():
            for carried in wall.send(entry.sent).carried:
                reader = Reader()
                expected = [
                    (known.method, known.target, known.body)
                    for known in map(as_known, reader.feed(carried))
                    if len(known.target) < LINE
                ]
                forwarded += len(expected)
                try:
                    found = read(with_known_methods(reader, carried)) if expected else []
                except Exception as error:  # whatever they raise
                    problems.append(f"{name}: {error!r}: {carried!r}")
                else:
                    if found != expected:
                        problems.append(f"{name}: {found}, and not {expected}")
        self.assertEqual(problems, [], "\n".join(["", *problems]))
        self.assertGreater(forwarded, 100)

    def test_gunicorn(self) -> None:
        """What gunicorn sees."""
        self.check(read_by_gunicorn)

    def test_waitress(self) -> None:
        """What waitress sees."""
        self.check(read_by_waitress)

    def test_differences(self) -> None:
        """Differences are seen."""
        sent = post(b"Content-Length: 3", body=b"abc") + chunked(b"3\r\nabc\r\n0\r\n\r\n") + get(target=b"/2")
        expected = [(b"POST", b"/", b"abc"), (b"POST", b"/", b"abc"), (b"GET", b"/2", b"")]
        for read in (read_by_gunicorn, read_by_waitress):
            self.assertEqual(read(sent), expected)
            with self.assertRaises(Exception):  # noqa: B017 - each has its own
                read(post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"))
