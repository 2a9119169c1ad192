"""
Requests by a grammar, spoilt here and there, and what must hold whatever they are.

Hypothesis writes one to four requests of one connection from the pieces of the grammar: methods, targets, versions,
fields that frame in many spellings, bodies that look like requests, chunks of all kinds. It spoils some bytes, cuts all
of it anywhere, and lets the backend answer at once or late. Then:

  1. Each connection to the backend carries whole requests which three parsers see alike, without a forbidden field and
     with nothing left over; they are as many as the gate has admitted.
  2. Each of them is what two other parsers (h11 and httptools) see in the client's bytes, at the same place.
  3. The client gets the answers to its own requests, in order, then at most one refusal, which ends the connection.
  4. All this does not depend on how the bytes were cut.
  5. An honest client who comes next is served as ever.

A short run is among the tests. For a long one::

    python -m tests.wall.fuzz --minutes 30

It goes in rounds, each with a seed, which is printed; C{--seed} begins with it again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import attrs
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from tests.wall.corpus import POISON
from tests.wall.recorder import (
    Malformed,
    Result,
    Seen,
    Wall,
    plain_site,
    read_by_h11,
    read_by_httptools,
    strict_site,
)
from tests.wall.test_corpus import own_answers
from thrtwisted.errors import BadRequest
from thrtwisted.forward.headers import origin_form

#: Bytes that parsers differ about.
ODD_BYTES = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\x00",
    b"\x0b",
    b"\x0c",
    b"\x1f",
    b"\x7f",
    b"\x80",
    b"\xa0",
    b"\xff",
] + [bytes([byte]) for byte in b':;,"0159aAgG+-_.\\/?#=']

METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"]
BODIES = [b"", b"a", b"abc", b"\r\n", b"0\r\n\r\n", POISON, POISON[:9], b"a" * 300]

Number = Callable[[int], bytes]

#: What can be odd, and how. An input has some kinds of oddities only, so that most of it is understood.
ODDITIES: dict[str, list[Any]] = {
    "target": [b"/a?b=c", b"//h/", b"http://h/a", b"http://evil/", b"*", b"/%00", b"/a b", b"h:80", b"/\xe9"],
    "version": [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b""],
    "line end": [b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b"\r\n "],
    "chunk's line end": [b"\n", b"\r", b"\r\r\n", b" \r\n", b"", b"\r\n\r\n"],
    "name of length": [
        b"content-length",
        b"Content_Length",
        b"Content-Length ",
        b" Content-Length",
        b"Content-Length\x0b",
    ],
    "name of coding": [
        b"transfer-encoding",
        b"Transfer_Encoding",
        b"Transfer-Encoding\t",
        b"\tTransfer-Encoding",
    ],
    "coding": [
        b"Chunked",
        b"chunked, chunked",
        b"identity",
        b"gzip, chunked",
        b"chunked;q=1",
        b'"chunked"',
        b"xchunked",
        b"chunked,",
        b"\x0bchunked",
        b"",
    ],
    "length": [
        lambda length: b"%d" % (length + 1),
        lambda length: b"%d" % max(0, length - 1),
        lambda length: b"0",
        lambda length: b"+%d" % length,
        lambda length: b"-%d" % length,
        lambda length: b"0%d" % length,
        lambda length: b"%d, %d" % (length, length),
        lambda length: b" %d " % length,
        lambda length: b"0x%x" % length,
        lambda length: b"%d.0" % length,
        lambda length: b"%d" % (length + 2**64),
        lambda length: b"",
    ],
    "framing": ["both", "lengths", "codings", "none"],
    "size": [
        lambda size: b"%X" % size,
        lambda size: b"0%x" % size,
        lambda size: b"0x%x" % size,
        lambda size: b"+%x" % size,
        lambda size: b"-%x" % size,
        lambda size: b" %x" % size,
        lambda size: b"%x " % size,
        lambda size: b"%x" % (size + 1),
        lambda size: b"%x" % max(0, size - 1),
        lambda size: b"%x" % (size + 2**64),
        lambda size: b"1_%x" % size,
        lambda size: b"",
    ],
    "extension": [b";a", b";a=b", b';a="b c"', b';a=";"', b";", b" ;a", b";a\n", b";\r\n", b",a", b';"'],
    "last chunk": [b"00", b"", b"-0", b"0x0", b"0\r\n\r\n0"],
    "trailer": [
        b"X: y\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"X : y\r\n",
        b"no colon\r\n",
        b"X: y\n",
        b" folded\r\n",
    ],
    "field": [
        b"X: y",
        b"X:",
        b"X_Y: z",
        b"Host: evil",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: Content-Length, Transfer-Encoding",
        b"Connection: Host, X",
        b"Connection: close, X",
        b"Expect: 100-continue",
        b"TE: trailers",
        b"Trailer: X",
        b"Upgrade: h2c",
        b"Proxy: evil",
        b"Keep-Alive: timeout=9",
        b"X-Forwarded-For: 1.2.3.4",
        b"Max-Forwards: 0",
        b" folded",
        b"\tfolded: too",
        b"no colon",
        b": no name",
        b"X : y",
        b"X: \x00",
        b"X: caf\xe9",
    ],
    "between": [b"\r\n", b"\n", b"\r", b" ", b"\x00", b"0\r\n\r\n"],
    "byte": ODD_BYTES,
}


class Pen:
    """
    Writes an input.

    @param odd: the kinds of oddities that it may have.
    """

    def __init__(self, draw: st.DrawFn, odd: frozenset[str]) -> None:
        self.draw = draw
        self._odd = odd

    def write(self, kind: str, plain: Any, more: Sequence[Any] = ()) -> Any:
        """What is plain, or of this kind what is odd, if it may be."""
        if kind not in self._odd or self.draw(st.integers(0, 2)):
            return plain
        return self.draw(st.sampled_from([*ODDITIES[kind], *more]))

    def one_of(self, choices: Sequence[Any]) -> Any:
        """Any of these."""
        return self.draw(st.sampled_from(choices))

    def chunks(self) -> bytes:
        """A body in chunks."""
        written = b""
        for body in self.draw(st.lists(st.sampled_from(BODIES[1:]), max_size=3)):
            size = self.write("size", _hexadecimal)(len(body))
            written += size + self.write("extension", b"") + self.write("chunk's line end", b"\r\n")
            written += body + self.write("chunk's line end", b"\r\n")
        written += self.write("last chunk", b"0") + self.write("extension", b"")
        written += self.write("chunk's line end", b"\r\n") + self.write("trailer", b"")
        return written + self.write("chunk's line end", b"\r\n")

    def framed(self) -> tuple[list[bytes], bytes]:
        """Fields that frame a body, in one way, in none or in several; and the body."""
        framing = self.write("framing", self.one_of(["length", "chunks", "none"]))
        in_chunks = framing in ("chunks", "codings") or (framing == "both" and self.draw(st.booleans()))
        body = self.chunks() if in_chunks else self.one_of(BODIES) if framing != "none" else b""
        fields = []
        for _ in range({"length": 1, "both": 1, "lengths": 2}.get(framing, 0)):
            name, length = self.write("name of length", b"Content-Length"), self.write("length", _decimal)
            fields.append(name + b": " + length(len(body)))
        for _ in range({"chunks": 1, "both": 1, "codings": 2}.get(framing, 0)):
            name = self.write("name of coding", b"Transfer-Encoding")
            fields.append(name + b": " + self.write("coding", b"chunked"))
        return fields, body

    def message(self, line: bytes, fields: list[bytes], body: bytes) -> bytes:
        """A request or a response."""
        while (field := self.write("field", None)) is not None:
            fields.insert(self.draw(st.integers(0, len(fields))), field)
        return b"".join(each + self.write("line end", b"\r\n") for each in [line, *fields]) + b"\r\n" + body

    def request(self, number: int) -> bytes:
        """A request."""
        line = b"%b %b %b" % (
            self.one_of(METHODS),
            self.write("target", b"/%d" % number),
            self.write("version", b"HTTP/1.1"),
        )
        fields, body = self.framed()
        return self.message(line, [b"Host: h", *fields], body) + self.write("between", b"")

    def spoilt(self, sent: bytes) -> bytes:
        """The same with some bytes lost, and others in their place."""
        while (odd := self.write("byte", None, [b""])) is not None:
            place = self.draw(st.integers(0, len(sent)))
            sent = sent[:place] + odd + sent[place + self.draw(st.integers(0, 2)) :]
        return sent


def _hexadecimal(size: int) -> bytes:
    return b"%x" % size


def _decimal(length: int) -> bytes:
    return b"%d" % length


@st.composite
def pens(draw: st.DrawFn) -> Pen:
    """For an input with few kinds of oddities."""
    return Pen(draw, draw(st.frozensets(st.sampled_from(sorted(ODDITIES)), max_size=3)))


@attrs.frozen
class Input:
    """
    What a client sends.

    @ivar pieces: one after another.
    @ivar late: the backend answers nothing before all is sent.
    """

    pieces: tuple[bytes, ...]
    late: bool

    @property
    def sent(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """Requests on one connection, some bytes of which are spoilt, in some pieces."""
    pen = draw(pens())
    sent = pen.spoilt(b"".join(pen.request(number) for number in range(draw(st.integers(1, 4)))))
    places = sorted(draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    pieces = tuple(sent[start:end] for start, end in pairwise([0, *places, len(sent)]))
    return Input(tuple(piece for piece in pieces if piece), draw(st.booleans()))


def look(result: Result, *, strict: bool) -> None:
    """@raise Malformed: a client's answers are not those to its requests, or the gate admitted others."""
    seen, got = result.seen, result.got
    if not own_answers(seen, got):
        raise Malformed(f"answers that are not those of the requests: {seen}, {got}")
    own = [answer.status for answer in got if not answer.echoed]
    if not len(seen) <= result.admitted <= len(seen) + len(own):
        raise Malformed(f"{result.admitted} admitted for {len(seen)} requests")
    if not strict:
        return
    if result.failed:
        raise Malformed(result.failed)
    # "OPTIONS *" is answered by Twisted. Where a request ends is known whatever its Max-Forwards: others may follow.
    refusals = [
        answer.status
        for answer in got
        if not answer.echoed and answer.status >= 400 and b"Max-Forwards is" not in answer.body
    ]
    if len(refusals) > 1 or (refusals and (got[-1].echoed or not result.ended)):
        raise Malformed(f"a refusal that does not end the connection: {got}")
    if result.admitted != len(seen):
        raise Malformed(f"{result.admitted} admitted for {len(seen)} requests")


def as_forwarded(method: bytes, target: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
    """A request that a client has sent, as the backend would see it."""
    try:
        return method, origin_form(target, method)[0], body
    except BadRequest:
        return method, target, body


def compare(sent: bytes, result: Result) -> None:
    """@raise Malformed: other parsers see other requests in what the client sent than were forwarded."""
    forwarded = [(each.method, each.target, each.body) for each in result.seen]
    for read in (read_by_h11, read_by_httptools):
        others, problem = read(sent)
        expected = [as_forwarded(each.method, each.target, each.body) for each in others]
        # "OPTIONS *" may be answered here.
        expected = [each for each in expected if each in forwarded or each[:2] != (b"OPTIONS", b"*")]
        common = min(len(expected), len(forwarded))
        if expected[:common] != forwarded[:common]:
            raise Malformed(f"{read.__name__}: {expected}, forwarded: {forwarded}")
        # llhttp refuses some good requests too: it knows few methods, and the end of a connection when it sees it.
        # h11 wants no empty line before a request.
        hard = read is read_by_h11 and problem != "h11: no request line received"
        if hard and len(forwarded) > len(expected):
            raise Malformed(f"forwarded {forwarded[common:]}, but {problem}")


def outline(result: Result) -> tuple[list[Seen], list[bool], bool]:
    """What must not depend on how the bytes were cut: requests, whose answers there are, the connection's end."""
    return result.seen, [answer.echoed for answer in result.got], result.ended


class Target:
    """
    A proxy that is attacked, made anew after it has failed.

    @ivar attempts: how many inputs there were. @ivar forwarded: of how many something was forwarded.
    """

    def __init__(self, *, strict: bool) -> None:
        self.attempts = self.forwarded = 0
        self._strict = strict
        self._wall: Wall | None = None

    def attack(self, attempt: Input) -> None:
        """@raise Malformed: something does not hold."""
        if self._wall is None:
            self._wall = Wall(strict_site if self._strict else plain_site)
        wall = self._wall
        try:
            result = wall.send(*attempt.pieces, hold=attempt.late)
            self.attempts += 1
            self.forwarded += bool(result.seen)
            look(result, strict=self._strict)
            if self._strict:
                compare(attempt.sent, result)
                whole = wall.send(attempt.sent)
                # What is refused for two reasons may be refused for either.
                if outline(whole) != outline(result):
                    raise Malformed(f"in pieces {result}, as a whole {whole}")
            wall.honest()
        except BaseException:
            self._wall = None
            raise

    def close(self) -> None:
        """Nothing may be left."""
        if self._wall is not None:
            self._wall.close()


Attack = Callable[[Any], None]


def fuzz(
    strategy: st.SearchStrategy[Any], attack: Attack, *, examples: int, number: int | None = None
) -> None:
    """
    Attack again and again.

    @param strategy: what is tried.
    @param attack: raises L{Malformed} if something does not hold.
    @param examples: how many times.
    @param number: decides what is tried; None for always the same.
    @raise Malformed: something does not hold, with the shortest input that shows it.
    """

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=number is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def attempt(each: Any) -> None:
        note(repr(each))
        attack(each)

    if number is not None:
        attempt = seed(number)(attempt)
    attempt()


def fuzz_requests(*, strict: bool, examples: int, number: int | None = None) -> float:
    """
    Attack a proxy with requests: its own site, or its resource below a site of Twisted's.

    @return: the share of the inputs of which something was forwarded.
    """
    target = Target(strict=strict)
    fuzz(inputs(), target.attack, examples=examples, number=number)
    target.close()
    return target.forwarded / target.attempts


def rounds(description: str, run: Callable[[argparse.Namespace, int], object], *options: str) -> None:
    """Fuzz for some time, in rounds, as the command line says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, help="of the first round")
    parser.add_argument("--examples", type=int, default=2000, help="of a round")
    for option in options:
        parser.add_argument(option, action="store_true")
    parsed = parser.parse_args()
    end = time.monotonic() + parsed.minutes * 60
    number = parsed.seed
    while True:
        number = Random().randrange(2**32) if number is None else number
        print(f"round {number}", flush=True)
        run(parsed, number)
        number = None
        if time.monotonic() > end:
            return


if __name__ == "__main__":
    rounds(
        "Attack a proxy in memory with requests by a grammar; --embedded: below a site of Twisted's own.",
        lambda options, number: fuzz_requests(
            strict=not options.embedded, examples=options.examples, number=number
        ),
        "--embedded",
    )
