"""
Responses by a grammar, spoilt here and there, and what must hold whatever they are.

Hypothesis writes a status line, fields that frame, a body, perhaps interim responses before and another response
behind, spoils some bytes, and closes, resets or keeps the connection. A client that asked is given a refusal, a
response that it sees to be cut, or the response that two other parsers (h11 and httptools) see in the same bytes; what
it asks for next, and what another client asks for, gets its own answer.

A short run is among the tests. For a long one::

    python -m tests.wall.fuzz_responses --minutes 30
"""

from __future__ import annotations

from contextlib import suppress

import attrs
import h11
import httptools
from hypothesis import strategies as st

from tests.wall.fuzz import BODIES, fuzz, pens, rounds
from tests.wall.recorder import Got, Malformed, Wall
from tests.wall.responses import End, Fate, Script
from tests.wall.test_responses import fate_of, hurried, play

STATUS_LINES = [
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 404 Not Found",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 500",
    b"HTTP/1.1 20 OK",
    b"HTTP/2.0 200 OK",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1  200 OK",
    b"",
]
INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n",
    b"\r\n",
]
ANSWER = b"HTTP/1.1 200 OK\r\nX-Echo: evil\r\nContent-Length: 4\r\n\r\nevil"


@attrs.frozen
class Attempt:
    """
    What a backend does.

    @ivar size: bytes of the pieces in which its response comes.
    """

    method: bytes
    version: bytes
    script: Script
    size: int


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    """A response to a request, perhaps spoilt."""
    pen = draw(pens())
    line = draw(st.sampled_from([b"HTTP/1.1 200 OK"] * 20 + STATUS_LINES))
    fields, body = pen.framed()
    body = body or draw(st.sampled_from([b""] * 3 + BODIES))  # perhaps until the connection ends
    sent = draw(st.sampled_from([b""] * 12 + INTERIM)) + pen.message(line, fields, body)
    sent = pen.spoilt(sent + draw(st.sampled_from([b""] * 8 + [ANSWER, ANSWER[:20], b"\r\n"])))
    return Attempt(
        draw(st.sampled_from([b"GET", b"GET", b"GET", b"HEAD", b"OPTIONS"])),
        draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])),
        Script(sent, draw(st.sampled_from(list(End)))),
        draw(st.sampled_from([10**9, 1, 7, 50])),
    )


def read_by_h11(attempt: Attempt) -> tuple[int, bytes] | None:
    """The response that h11 sees; None if there is none, or no complete one."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**22)
    connection.send(h11.Request(method=attempt.method, target="/attack", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(attempt.script.sent)
    if attempt.script.end is End.CLOSED:
        connection.receive_data(b"")
    status, body = 0, b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.ProtocolError:
        return None
    return status, body


class _Collector:
    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.found: list[tuple[int, bytes]] = []
        self._body = b""

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.found.append((self.parser.get_status_code(), self._body))


def read_by_httptools(attempt: Attempt) -> tuple[int, bytes] | None:
    """The response to a GET that httptools sees; None if there is none, or it cannot tell where it ends."""
    collector = _Collector()
    with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):  # for what follows, perhaps
        collector.parser.feed_data(attempt.script.sent)
    return next((found for found in collector.found if found[0] >= 200), None)


class Target:
    """A proxy whose backend attacks it, made anew after it has failed."""

    def __init__(self) -> None:
        self._wall: Wall | None = None

    def attack(self, attempt: Attempt) -> None:
        """@raise Malformed: something does not hold."""
        if self._wall is None:
            self._wall = hurried()
        try:
            given = play(self._wall, attempt.script, attempt.method, attempt.version, attempt.size)
            fate, following = fate_of(attempt.method, given)
            self._look(attempt, fate)
            if [answer.body for answer in following] not in ([], [b"GET /next next 0"]):
                raise Malformed(f"the next answer on the connection: {following}")
            if not following and not given.lost:
                raise Malformed("the next request on the connection has no answer")
            self._wall.honest()
        except BaseException:
            self._wall = None
            raise

    def close(self) -> None:
        """Nothing may be left."""
        if self._wall is not None:
            self._wall.close()

    @staticmethod
    def _look(attempt: Attempt, fate: Fate | Got) -> None:
        if isinstance(fate, Fate):
            return
        response = fate.status, fate.body
        if (seen := read_by_h11(attempt)) != response:
            raise Malformed(f"the client got {response}, h11 sees {seen}")
        if attempt.method != b"HEAD" and (seen := read_by_httptools(attempt)) not in (response, None):
            raise Malformed(f"the client got {response}, httptools sees {seen}")


def fuzz_responses(*, examples: int, number: int | None = None) -> None:
    """Let a backend attack a proxy."""
    target = Target()
    fuzz(attempts(), target.attack, examples=examples, number=number)
    target.close()


if __name__ == "__main__":
    rounds(
        "Attack a proxy in memory with responses by a grammar.",
        lambda options, number: fuzz_responses(examples=options.examples, number=number),
    )
