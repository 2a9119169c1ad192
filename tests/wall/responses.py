"""
Hostile and broken responses: what a backend sends, and what its client may be given.

A client may be given 502 instead, or a response that it sees to be cut, or where that is right the response. It must
never be given a response that looks complete and is not the backend's, nor may any byte of it be taken for the answer
to another request.
"""

from __future__ import annotations

from enum import Enum

import attrs


class End(Enum):
    """What becomes of the backend's connection after the response."""

    KEPT = "kept"
    CLOSED = "closed"
    RESET = "reset"


class Fate(Enum):
    """What a client sees other than a response."""

    REFUSED = "502"
    CUT = "cut"
    LATE = "504"


@attrs.frozen
class Right:
    """
    A response that is right.

    @ivar lacks: names of fields that must not be there.
    """

    status: int
    body: bytes = b""
    lacks: tuple[bytes, ...] = ()


@attrs.frozen
class Script:
    """What a backend does when it has got a request."""

    sent: bytes
    end: End = End.KEPT


@attrs.frozen
class Answered:
    """
    A response.

    @ivar allowed: what its client may be given.
    """

    name: str
    script: Script
    allowed: tuple[Fate | Right, ...]
    method: bytes = b"GET"


REFUSED, CUT, LATE = Fate.REFUSED, Fate.CUT, Fate.LATE
#: An answer to another request, to which it must never come.
POISON = b"HTTP/1.1 200 OK\r\nX-Echo: evil\r\nContent-Length: 4\r\n\r\nevil"
_ABC = Right(200, b"abc")


def ok(*fields: bytes, body: bytes = b"", line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A response with these fields."""
    return b"\r\n".join([line, *fields, b"", body])


def kept(name: str, sent: bytes, *allowed: Fate | Right, method: bytes = b"GET") -> Answered:
    """The backend's connection stays open."""
    return Answered(name, Script(sent), allowed or (REFUSED,), method)


def closed(name: str, sent: bytes, *allowed: Fate | Right, method: bytes = b"GET") -> Answered:
    """The backend closes in order."""
    return Answered(name, Script(sent, End.CLOSED), allowed or (REFUSED,), method)


def reset(name: str, sent: bytes, *allowed: Fate | Right) -> Answered:
    """The backend's connection is reset."""
    return Answered(name, Script(sent, End.RESET), allowed or (REFUSED,))


_TE = b"Transfer-Encoding: chunked"
_OK_ABC = ok(b"Content-Length: 3", body=b"abc")
_CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"

FRAMING = [
    kept("two lengths", ok(b"Content-Length: 3", b"Content-Length: 5", body=b"abcde")),
    kept("two lengths, the longer first", ok(b"Content-Length: 5", b"Content-Length: 3", body=b"abcde")),
    kept("two equal lengths", ok(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), REFUSED, _ABC),
    kept("two lengths in a field", ok(b"Content-Length: 3, 5", body=b"abcde")),
    kept("two equal lengths in a field", ok(b"Content-Length: 3, 3", body=b"abc"), REFUSED, _ABC),
    kept("length and chunks", ok(b"Content-Length: 3", _TE, body=_CHUNKS), REFUSED, _ABC),
    kept("chunks and length", ok(_TE, b"Content-Length: 100", body=_CHUNKS), REFUSED, _ABC),
    *(
        kept(f"length {name}", ok(b"Content-Length: " + value, body=b"abc"), REFUSED, CUT)
        for name, value in {
            "with a plus": b"+3",
            "with a minus": b"-3",
            "in hexadecimal": b"0x3",
            "with a blank": b"0 3",
            "empty": b"",
            "with letters": b"3abc",
            "with a fraction": b"3.0",
            "with an underscore": b"0_3",
            "2^64 + 3": b"18446744073709551619",
            "of 5,000 digits": b"9" * 5000,
            "in wide digits": "\uff13".encode(),
        }.items()
    ),
    *(
        closed(f"coding {value.decode()}", ok(b"Transfer-Encoding: " + value, body=_CHUNKS), REFUSED)
        for value in (
            b"xchunked",
            b"gzip, chunked",
            b"chunked, chunked",
            b"chunked, identity",
            b"\x0bchunked",
            b"",
        )
    ),
    closed("coding identity", ok(b"Transfer-Encoding: identity", body=b"abc"), REFUSED, _ABC),
    kept("two codings", ok(_TE, b"Transfer-Encoding: gzip", body=_CHUNKS)),
    kept("chunks in HTTP/1.0", ok(_TE, body=_CHUNKS, line=b"HTTP/1.0 200 OK"), REFUSED, _ABC),
    kept("chunks", ok(_TE, body=_CHUNKS), _ABC),
    kept("no length, on a connection that stays open", ok(body=b"abc"), CUT, LATE),
    closed("until close", ok(body=b"abc"), _ABC),
    reset("until a reset", ok(body=b"abc"), REFUSED, CUT),
    closed("nothing until close", ok(), Right(200)),
    reset("nothing until a reset", ok(), REFUSED, CUT),
    closed("until close in HTTP/1.0", ok(body=b"abc", line=b"HTTP/1.0 200 OK"), _ABC),
    kept("of 10^17 bytes", ok(b"Content-Length: 100000000000000000", body=b"abc"), REFUSED, CUT),
]

CUT_OFF = [
    closed("before anything", b""),
    reset("before anything, by a reset", b""),
    closed("in the status line", b"HTTP/1.1 20"),
    closed("in the head", b"HTTP/1.1 200 OK\r\nX: y\r\n"),
    reset("in the head, by a reset", b"HTTP/1.1 200 OK\r\nX: y\r\n"),
    closed("in a body of known length", ok(b"Content-Length: 10", body=b"abc"), CUT, REFUSED),
    reset("in a body of known length, by a reset", ok(b"Content-Length: 10", body=b"abc"), CUT, REFUSED),
    closed("before a body of known length", ok(b"Content-Length: 10"), CUT, REFUSED),
    closed("in a chunk", ok(_TE, body=b"5\r\nabc"), CUT, REFUSED),
    closed("after a chunk", ok(_TE, body=b"3\r\nabc\r\n"), CUT, REFUSED),
    closed("in a chunk's size", ok(_TE, body=b"3\r\nabc\r\n3"), CUT, REFUSED),
    closed("in the last chunk", ok(_TE, body=b"3\r\nabc\r\n0\r\n"), CUT, REFUSED),
    closed("before any chunk", ok(_TE), CUT, REFUSED),
    kept("in the head, and silent", b"HTTP/1.1 200 OK\r\nX: y\r\n", REFUSED, LATE),
    kept("in the body, and silent", ok(b"Content-Length: 10", body=b"abc"), CUT, REFUSED, LATE),
    kept("silent", b"", REFUSED, LATE),
]

CHUNKS = [
    *(
        kept(f"size {name}", ok(_TE, body=size + b"\r\nabc\r\n0\r\n\r\n" + POISON), CUT, REFUSED)
        for name, size in {
            "with a minus": b"-3",
            "with a plus": b"+3",
            "with 0x": b"0x3",
            "with a blank before": b" 3",
            "with a letter": b"g",
            "empty": b"",
            "with an underscore": b"0_3",
            "2^64 + 3": b"10000000000000003",
            "of 1,000 digits": b"0" * 1000 + b"x",
            "of two words": b"3 3",
        }.items()
    ),
    kept("more data than the size says", ok(_TE, body=b"3\r\nabcde\r\n0\r\n\r\n"), CUT, REFUSED),
    kept("nothing behind the data", ok(_TE, body=b"3\r\nabc0\r\n\r\n"), CUT, REFUSED),
    kept("bare LF behind the size", ok(_TE, body=b"3\nabc\r\n0\r\n\r\n"), CUT, REFUSED, LATE),
    kept("bare LF behind the data", ok(_TE, body=b"3\r\nabc\n0\r\n\r\n"), CUT, REFUSED, LATE),
    kept("an extension", ok(_TE, body=b"3;a=b\r\nabc\r\n0\r\n\r\n"), _ABC, CUT, REFUSED),
    kept("an extension without end", ok(_TE, body=b"3;" + b"a" * 100_000), CUT, REFUSED, LATE),
    kept(
        "a trailer",
        ok(_TE, body=b"3\r\nabc\r\n0\r\nSet-Cookie: evil=1\r\nContent-Length: 9\r\n\r\n"),
        Right(200, b"abc", lacks=(b"set-cookie", b"content-length")),
        CUT,
        REFUSED,
    ),
    kept(
        "trailers without end", ok(_TE, body=b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 20_000), CUT, REFUSED, LATE
    ),
    kept("not chunked at all", ok(_TE, body=b"<html>\r\n</html>\r\n"), CUT, REFUSED, LATE),
]

STATUS_LINES = [
    *(
        closed(f"status line {name}", ok(b"Content-Length: 3", body=b"abc", line=line))
        for name, line in {
            "without a status": b"HTTP/1.1 OK",
            "with a status of two digits": b"HTTP/1.1 20 OK",
            "with a status of four digits": b"HTTP/1.1 2000 OK",
            "with a status below 100": b"HTTP/1.1 099 OK",
            "with a status of 600": b"HTTP/1.1 600 OK",
            "with a status of 999": b"HTTP/1.1 999 OK",
            "with a sign": b"HTTP/1.1 -200 OK",
            "with a plus": b"HTTP/1.1 +200 OK",
            "in hexadecimal": b"HTTP/1.1 0xC8 OK",
            "with HTTP/2.0": b"HTTP/2.0 200 OK",
            "of another protocol": b"ICY 200 OK",
            "with two blanks": b"HTTP/1.1  200 OK",
            "with tabs": b"HTTP/1.1\t200\tOK",
            "with a NUL": b"HTTP/1.1 200 OK\x00",
            "with a bare CR": b"HTTP/1.1 200 OK\rX: y",
            "behind a blank": b" HTTP/1.1 200 OK",
            "that is a request": b"GET / HTTP/1.1",
            "in wide digits": "HTTP/1.1 \uff12\uff10\uff10 OK".encode(),
        }.items()
    ),
    kept("no phrase", ok(b"Content-Length: 3", body=b"abc", line=b"HTTP/1.1 200"), _ABC, REFUSED),
    kept("an empty phrase", ok(b"Content-Length: 3", body=b"abc", line=b"HTTP/1.1 200 "), _ABC),
    kept(
        "a phrase outside ASCII", ok(b"Content-Length: 3", body=b"abc", line=b"HTTP/1.1 200 \xc3\xa9"), _ABC
    ),
    kept(
        "an unknown status", ok(b"Content-Length: 3", body=b"abc", line=b"HTTP/1.1 299 X"), Right(299, b"abc")
    ),
    *(
        closed(f"garbage: {name}", sent, REFUSED, LATE)
        for name, sent in {
            "HTML": b"<html><body>It works</body></html>\r\n\r\n",
            "HTTP/0.9": b"abc",
            "zeros": bytes(2000),
            "HTTP/2 frames": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),
            "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
            "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
            "an empty line": b"\r\n\r\n",
            "many bytes without a line end": b"x" * 200_000,
        }.items()
    ),
]

INTERIM = [
    kept(
        "100 before the answer",
        b"HTTP/1.1 100 Continue\r\n\r\n" + _OK_ABC,
        _ABC,
    ),
    kept(
        "three 103 before the answer",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + _OK_ABC,
        Right(200, b"abc", lacks=(b"link",)),
    ),
    kept(
        "100 with a length",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n" + _OK_ABC,
        _ABC,
        REFUSED,
    ),
    kept("100 and silence", b"HTTP/1.1 100 Continue\r\n\r\n", REFUSED, LATE),
    closed("100 and the end", b"HTTP/1.1 100 Continue\r\n\r\n"),
    kept("100 without end", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, REFUSED, LATE),
    kept("199", b"HTTP/1.1 199 X\r\n\r\n" + _OK_ABC, _ABC, REFUSED),
    kept(
        "101",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\n" + POISON,
        REFUSED,
        LATE,
    ),
    closed("101, and the end", b"HTTP/1.1 101 Switching Protocols\r\n\r\nabc", REFUSED),
    kept(
        "a garbled one",
        b"HTTP/1.1 100 Continue\r\nno colon\r\n\r\n" + _OK_ABC,
        REFUSED,
        _ABC,
    ),
]

FIELDS = [
    kept("NUL in a value", ok(b"X: a\x00b", b"Content-Length: 3", body=b"abc")),
    kept("NUL in a name", ok(b"X\x00: y", b"Content-Length: 3", body=b"abc")),
    kept("control character in a value", ok(b"X: a\x01b", b"Content-Length: 3", body=b"abc"), REFUSED, _ABC),
    kept("bare CR in a value", ok(b"X: a\rSet-Cookie: evil=1", b"Content-Length: 3", body=b"abc")),
    kept(
        "bare LF in a value",
        ok(b"X: a\nSet-Cookie: evil=1", b"Content-Length: 3", body=b"abc"),
        REFUSED,
        _ABC,
    ),
    kept("bare LF everywhere", b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", REFUSED, _ABC),
    kept("bare LF hides a length", ok(b"X: a\nContent-Length: 9", b"Content-Length: 3", body=b"abc")),
    kept("fold", ok(b"X: a", b" b", b"Content-Length: 3", body=b"abc"), REFUSED, _ABC),
    kept(
        "fold hides a length",
        ok(b"X: a", b" Content-Length: 9", b"Content-Length: 3", body=b"abc"),
        REFUSED,
        _ABC,
    ),
    kept("folded coding", ok(b"Transfer-Encoding:", b" chunked", body=_CHUNKS), REFUSED, _ABC),
    kept("blank before a colon", ok(b"X : y", b"Content-Length: 3", body=b"abc"), REFUSED, _ABC),
    kept(
        "blank before the coding's colon",
        ok(b"Transfer-Encoding : chunked", b"Content-Length: 3", body=_CHUNKS),
    ),
    kept("blank before the length's colon", ok(b"Content-Length : 3", body=b"abc"), REFUSED, _ABC),
    kept("no colon", ok(b"abc", b"Content-Length: 3", body=b"abc")),
    kept("empty name", ok(b": y", b"Content-Length: 3", body=b"abc")),
    kept("blank in a name", ok(b"X Y: z", b"Content-Length: 3", body=b"abc")),
    kept(
        "a head of 200 kB", ok(*(b"X: " + b"y" * 1000 for _ in range(200)), b"Content-Length: 3", body=b"abc")
    ),
    kept("a field of 200 kB", ok(b"X: " + b"y" * 200_000, b"Content-Length: 3", body=b"abc")),
    kept("a head without end", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000),
    kept(
        "fields of the backend's connection",
        ok(
            b"Connection: X, keep-alive",
            b"X: secret",
            b"Keep-Alive: timeout=9",
            b"Content-Length: 3",
            body=b"abc",
        ),
        Right(200, b"abc", lacks=(b"x", b"keep-alive")),
    ),
    kept(
        "fields of one hop",
        ok(
            b"Upgrade: h2c",
            b"Trailer: X",
            b"Proxy-Authenticate: Basic",
            b"TE: x",
            b"Content-Length: 3",
            body=b"abc",
        ),
        Right(200, b"abc", lacks=(b"upgrade", b"trailer", b"te")),
    ),
    kept(
        "Connection names Content-Length",
        ok(b"Connection: Content-Length", b"Content-Length: 3", body=b"abc"),
        REFUSED,
        _ABC,
    ),
]

#: What follows a response must never be anybody's.
LEFTOVERS = [
    kept("two responses", _OK_ABC + POISON, _ABC),
    kept("two responses in chunks", ok(_TE, body=_CHUNKS) + POISON, _ABC),
    kept("a body longer than its length", ok(b"Content-Length: 3", body=b"abcdef"), _ABC),
    kept("a body behind length 0", ok(b"Content-Length: 0", body=POISON), Right(200)),
    kept("a CRLF behind the response", ok(b"Content-Length: 3", body=b"abc\r\n"), _ABC),
    kept(
        "HEAD with a body",
        ok(b"Content-Length: %d" % len(POISON), body=POISON),
        Right(200),
        REFUSED,
        method=b"HEAD",
    ),
    kept("HEAD with chunks", ok(_TE, body=_CHUNKS + POISON), Right(200), REFUSED, method=b"HEAD"),
    kept(
        "HEAD with two framings",
        ok(_TE, b"Content-Length: 5", body=POISON),
        Right(200),
        REFUSED,
        method=b"HEAD",
    ),
    kept("HEAD with a bad length", ok(b"Content-Length: -1"), REFUSED, method=b"HEAD"),
    kept("HEAD without a length", ok(), Right(200), REFUSED, method=b"HEAD"),
    *(
        kept(
            f"{status} with {name}",
            ok(*fields, body=body, line=b"HTTP/1.1 %d X" % status),
            Right(status),
            REFUSED,
            CUT,
        )
        for status in (204, 304)
        for name, fields, body in (
            ("a body of a length", [b"Content-Length: %d" % len(POISON)], POISON),
            ("a body without a length", [], POISON),
            ("chunks", [_TE], _CHUNKS + POISON),
            ("a length and no body", [b"Content-Length: 5"], b""),
        )
    ),
    kept(
        "205 with a body",
        ok(b"Content-Length: 3", body=b"abc", line=b"HTTP/1.1 205 X"),
        Right(205, b"abc"),
        Right(205),
        REFUSED,
        CUT,
    ),
    closed("two responses, then the end", _OK_ABC + POISON, _ABC),
    closed("a response, and half of another", _OK_ABC + POISON[:30], _ABC),
]

THEMES = {
    "framing": FRAMING,
    "cut": CUT_OFF,
    "chunks": CHUNKS,
    "status": STATUS_LINES,
    "interim": INTERIM,
    "fields": FIELDS,
    "leftovers": LEFTOVERS,
}
