"""
Hostile and odd requests: what a client sends, and what may come of it.

Each entry allows one outcome or several: refused with a status, or forwarded as these requests and no others. Where
the RFCs leave a choice (9110, 9112; 3986 for targets), all that they leave is allowed; what smuggles is not.
Nothing of an input that is refused may reach the backend, but for whole requests before it on the same connection.
"""

from __future__ import annotations

import attrs

#: What is hidden in bodies: it must never be a request of its own, unless it follows one that has ended.
POISON = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@attrs.frozen
class Asked:
    """
    A request as the backend gets it.

    @ivar host: None for the backend's own.
    @ivar has: fields with their values, in lower case. @ivar lacks: names of fields that must not be there.
    """

    method: bytes
    target: bytes
    body: bytes = b""
    host: bytes | None = b"h"
    has: tuple[tuple[bytes, bytes], ...] = ()
    lacks: tuple[bytes, ...] = ()


@attrs.frozen
class Outcome:
    """
    What comes of an input.

    @ivar asked: what the backend gets.
    @ivar status: of the refusal after that, which closes the connection. 0: none; what is not answered waits for more
        bytes, or the connection was closed in order.
    @ivar ends: the refusal must close the connection; else it need not, for the request's end is beyond doubt.
    """

    asked: tuple[Asked, ...] = ()
    status: int = 0
    ends: bool = True


@attrs.frozen
class Entry:
    """An input."""

    name: str
    sent: bytes
    allowed: tuple[Outcome, ...]


#: It may wait for more: a head or a body has not ended.
WAITS = Outcome()


def request(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """A request with these lines."""
    return b"\r\n".join([line, *fields, b"", body])


def get(*fields: bytes, target: bytes = b"/", body: bytes = b"") -> bytes:
    """A GET with a Host."""
    return request(b"GET " + target + b" HTTP/1.1", b"Host: h", *fields, body=body)


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """A POST with a Host; it frames nothing by itself."""
    return request(b"POST / HTTP/1.1", b"Host: h", *fields, body=body)


def chunked(body: bytes, *fields: bytes) -> bytes:
    """A POST with a body that says itself where it ends."""
    return post(b"Transfer-Encoding: chunked", *fields, body=body)


def refused(name: str, sent: bytes, *statuses: int) -> Entry:
    """An input of which nothing may reach the backend. Without statuses: 400."""
    return Entry(name, sent, tuple(Outcome((), status) for status in statuses or (400,)))


def refused_or_waits(name: str, sent: bytes, *statuses: int) -> Entry:
    """An input that may be refused at once, or when its time is over."""
    return Entry(name, sent, (WAITS, *(Outcome((), status) for status in statuses or (400,))))


def refused_after(name: str, sent: bytes, asked: Asked, *statuses: int) -> Entry:
    """A request that is forwarded, and another that is refused."""
    return Entry(name, sent, tuple(Outcome((asked,), status) for status in statuses or (400,)))


def forwarded(name: str, sent: bytes, *asked: Asked, or_refused: tuple[int, ...] = ()) -> Entry:
    """An input that is forwarded like this, or perhaps refused."""
    return Entry(name, sent, (Outcome(asked), *(Outcome((), status) for status in or_refused)))


GET = Asked(b"GET", b"/")
POST = Asked(b"POST", b"/")
SMUGGLED = Asked(b"GET", b"/smuggled")
#: For codings: unknown is 501, malformed is 400; which is which may be seen in different ways.
CODING = (400, 501)


def with_body(body: bytes) -> Asked:
    """A POST with a body."""
    return attrs.evolve(POST, body=body)


TWO_FRAMINGS = [
    refused("CL.TE", post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nG")),
    refused("TE.CL", post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"2\r\nab\r\n0\r\n\r\n")),
    refused(
        "CL.TE with a request in the rest",
        post(
            b"Content-Length: %d" % (5 + len(POISON)),
            b"Transfer-Encoding: chunked",
            body=b"0\r\n\r\n" + POISON,
        ),
    ),
    refused(
        "TE.CL with a request in the chunk",
        post(
            b"Content-Length: 4",
            b"Transfer-Encoding: chunked",
            body=b"%x\r\n" % len(POISON) + POISON + b"\r\n0\r\n\r\n",
        ),
    ),
    refused("CL 0 and TE", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    refused(
        "CL and TE that agree", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n")
    ),
    refused(
        "CL and TE identity",
        post(b"Content-Length: 3", b"Transfer-Encoding: identity", body=b"abc"),
        *CODING,
    ),
    refused("CL and empty TE", post(b"Content-Length: 3", b"Transfer-Encoding:", body=b"abc"), *CODING),
    refused("CL and TE gzip", post(b"Content-Length: 3", b"Transfer-Encoding: gzip", body=b"abc"), *CODING),
    refused(
        "CL and TE in capitals", post(b"CONTENT-LENGTH: 5", b"TRANSFER-ENCODING: CHUNKED", body=b"0\r\n\r\n")
    ),
    refused(
        "bad CL and TE", post(b"Content-Length: x", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), *CODING
    ),
    refused(
        "TE far behind CL",
        post(
            b"Content-Length: 5",
            *(b"X-%d: 1" % n for n in range(50)),
            b"Transfer-Encoding: chunked",
            body=b"0\r\n\r\n",
        ),
    ),
    refused(
        "GET with CL and TE", get(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")
    ),
    refused(
        "CL and TE in HTTP/1.0",
        request(
            b"POST / HTTP/1.0",
            b"Host: h",
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            body=b"0\r\n\r\n",
        ),
    ),
]

_CHUNK = b"3\r\nabc\r\n0\r\n\r\n"

CODINGS = [
    forwarded("chunked", chunked(_CHUNK), with_body(b"abc")),
    forwarded(
        "chunked in capitals",
        post(b"Transfer-Encoding: CHUNKED", body=_CHUNK),
        with_body(b"abc"),
        or_refused=CODING,
    ),
    forwarded(
        "chunked with blanks around",
        post(b"Transfer-Encoding: \t chunked \t", body=_CHUNK),
        with_body(b"abc"),
        or_refused=CODING,
    ),
    forwarded(
        "chunked without a blank before",
        post(b"transfer-encoding:chunked", body=_CHUNK),
        with_body(b"abc"),
    ),
    *(
        refused(f"coding {name}", post(*fields, body=_CHUNK), *CODING)
        for name, fields in {
            "xchunked": [b"Transfer-Encoding: xchunked"],
            "chunkedx": [b"Transfer-Encoding: chunkedx"],
            "chunke": [b"Transfer-Encoding: chunke"],
            "chunked twice in a field": [b"Transfer-Encoding: chunked, chunked"],
            "chunked in two fields": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
            "chunked, then identity": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
            "identity, then chunked": [b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"],
            "identity, chunked": [b"Transfer-Encoding: identity, chunked"],
            "chunked, identity": [b"Transfer-Encoding: chunked, identity"],
            "identity": [b"Transfer-Encoding: identity"],
            "gzip": [b"Transfer-Encoding: gzip"],
            "gzip, chunked": [b"Transfer-Encoding: gzip, chunked"],
            "chunked, gzip": [b"Transfer-Encoding: chunked, gzip"],
            "x": [b"Transfer-Encoding: x"],
            "cow, then chunked": [b"Transfer-Encoding: cow", b"Transfer-Encoding: chunked"],
            "chunked, then cow": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow"],
            "empty": [b"Transfer-Encoding:"],
            "empty, then chunked": [b"Transfer-Encoding:", b"Transfer-Encoding: chunked"],
            "comma": [b"Transfer-Encoding: ,"],
            "comma before": [b"Transfer-Encoding: , chunked"],
            "comma after": [b"Transfer-Encoding: chunked,"],
            "with a parameter": [b"Transfer-Encoding: chunked;q=1"],
            "with an empty parameter": [b"Transfer-Encoding: chunked;"],
            "in quotes": [b'Transfer-Encoding: "chunked"'],
            "in single quotes": [b"Transfer-Encoding: 'chunked'"],
            "with a vertical tab": [b"Transfer-Encoding: \x0bchunked"],
            "with a form feed": [b"Transfer-Encoding: chunked\x0c"],
            "with a NUL": [b"Transfer-Encoding: chunked\x00"],
            "with a bare CR": [b"Transfer-Encoding: chunked\r"],
            "with a no-break space": [b"Transfer-Encoding: \xa0chunked"],
            "with a next line": [b"Transfer-Encoding: \x85chunked"],
            "with a backspace": [b"Transfer-Encoding: chunkedx\x08"],
            "with a Kelvin sign": ["Transfer-Encoding: chun\u212aed".encode()],
            "in UTF-16": [b"Transfer-Encoding: " + "chunked".encode("utf-16-le")],
            "split by a blank": [b"Transfer-Encoding: chu nked"],
            "two words": [b"Transfer-Encoding: chunked chunked"],
            "folded": [b"Transfer-Encoding:", b" chunked"],
            "folded after a comma": [b"Transfer-Encoding: x,", b"\tchunked"],
            "with a colon": [b"Transfer-Encoding: : chunked"],
            "with an equals sign": [b"Transfer-Encoding= chunked"],
            "with a percent sign": [b"Transfer-Encoding: %63hunked"],
        }.items()
    ),
    refused("name with a blank before the colon", post(b"Transfer-Encoding : chunked", body=_CHUNK)),
    refused("name with a tab before the colon", post(b"Transfer-Encoding\t: chunked", body=_CHUNK)),
    refused("name with a vertical tab", post(b"Transfer-Encoding\x0b: chunked", body=_CHUNK)),
    refused("name with a NUL", post(b"Transfer-Encoding\x00: chunked", body=_CHUNK)),
    refused("name with a blank in it", post(b"Transfer Encoding: chunked", body=_CHUNK)),
    refused("name behind a blank", post(b"X: y", b" Transfer-Encoding: chunked", body=_CHUNK)),
    refused("name behind a tab", post(b"X: y", b"\tTransfer-Encoding: chunked", body=_CHUNK)),
    refused("name behind a vertical tab", post(b"\x0bTransfer-Encoding: chunked", body=_CHUNK)),
    refused("name behind a bare LF", post(b"X: y\nTransfer-Encoding: chunked", body=_CHUNK)),
    refused("name behind a bare CR", post(b"X: y\rTransfer-Encoding: chunked", body=_CHUNK)),
    refused("name behind LF CR", post(b"X: y\n\rTransfer-Encoding: chunked", body=_CHUNK)),
    refused("name behind CR CR LF", post(b"X: y\r", b"Transfer-Encoding: chunked", body=_CHUNK)),
    refused("name behind a NUL", post(b"X: y\x00Transfer-Encoding: chunked", body=_CHUNK)),
    refused(
        "TE in HTTP/1.0",
        request(b"POST / HTTP/1.0", b"Host: h", b"Transfer-Encoding: chunked", body=_CHUNK),
        *CODING,
    ),
    refused(
        "TE in HTTP/1.0, kept alive",
        request(
            b"POST / HTTP/1.0",
            b"Host: h",
            b"Connection: keep-alive",
            b"Transfer-Encoding: chunked",
            body=_CHUNK + POISON,
        ),
        *CODING,
    ),
]


def _length(value: bytes) -> bytes:
    return post(b"Content-Length: " + value, body=b"abc")


LENGTHS = [
    forwarded("length", _length(b"3"), with_body(b"abc")),
    forwarded("length with blanks around", _length(b"  3\t"), with_body(b"abc")),
    forwarded("length without a blank", post(b"Content-Length:3", body=b"abc"), with_body(b"abc")),
    forwarded("length with zeros before", _length(b"0003"), with_body(b"abc"), or_refused=(400,)),
    *(
        refused(f"length {name}", _length(value), *statuses)
        for name, (value, *statuses) in {
            "with a plus": (b"+3",),
            "with a minus": (b"-3",),
            "minus zero": (b"-0",),
            "with a blank in it": (b"1 0",),
            "with a tab in it": (b"1\t0",),
            "twice in a field": (b"3, 3",),
            "twice in a field, unequal": (b"3, 4",),
            "with a comma after": (b"3,",),
            "with a comma before": (b",3",),
            "hexadecimal": (b"0x3",),
            "hexadecimal without 0x": (b"a",),
            "octal": (b"0o3",),
            "with an exponent": (b"3e0",),
            "with a fraction": (b"3.0",),
            "with an underscore": (b"0_3",),
            "with letters after": (b"3abc",),
            "with letters before": (b"x3",),
            "with a semicolon": (b"3;",),
            "in quotes": (b'"3"',),
            "empty": (b"",),
            "a blank": (b" ",),
            "in Arabic digits": ("\u0663".encode(),),
            "in wide digits": ("\uff13".encode(),),
            "in Latin-1's superscript": (b"\xb3",),
            "with a no-break space": (b"\xa03",),
            "with a NUL": (b"3\x00",),
            "with a vertical tab": (b"\x0b3",),
            "with a form feed": (b"3\x0c",),
            "with a bare CR": (b"3\r",),
            "with a bare LF": (b"3\n",),
            "folded": (b"\r\n 3",),
            "folded after a digit": (b"3\r\n 0",),
            "2^63": (b"9223372036854775808", 400, 413),
            "2^64 + 3": (b"18446744073709551619", 400, 413),
            "of 5,000 digits": (b"9" * 5000, 400, 413),
            "of 5,000 zeros and a 3": (b"0" * 5000 + b"3", 400, 413),
            "of 500 MB": (b"500000000", 413),
            "with a percent sign": (b"%33",),
            "a word": (b"chunked",),
        }.items()
    ),
    refused("two lengths", post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd")),
    refused("two equal lengths", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc")),
    refused("a length and an empty one", post(b"Content-Length: 3", b"Content-Length:", body=b"abc")),
    refused("an empty length and one", post(b"Content-Length:", b"Content-Length: 3", body=b"abc")),
    refused(
        "0 and then a length", post(b"Content-Length: 0", b"Content-Length: %d" % len(POISON), body=POISON)
    ),
    refused("two lengths, case apart", post(b"Content-Length: 3", b"content-length: 0", body=b"abc")),
    refused(
        "two lengths, other fields between",
        post(b"Content-Length: 3", b"X: y", b"Content-Length: 5", body=b"abc"),
    ),
    refused(
        "two lengths, one with a bad sign", post(b"Content-Length: 3", b"Content-Length: +3", body=b"abc")
    ),
    refused("a length behind a blank", post(b"X: y", b" Content-Length: 3", body=b"abc")),
    refused("length's name with a blank before the colon", post(b"Content-Length : 3", body=b"abc")),
    refused("length's name with a tab before the colon", post(b"Content-Length\t: 3", body=b"abc")),
    refused("length's name with a NUL", post(b"Content-Length\x00: 3", body=b"abc")),
    refused("length's name with a blank in it", post(b"Content Length: 3", body=b"abc")),
    refused("length behind a bare LF", post(b"X: y\nContent-Length: 3", body=b"abc")),
    refused("length behind a bare CR", post(b"X: y\rContent-Length: 3", body=b"abc")),
    refused("length with two colons", post(b"Content-Length:: 3", body=b"abc")),
    forwarded("longest number that is small", _length(b"3".zfill(18)), with_body(b"abc"), or_refused=(400,)),
]

NO_LENGTH = [
    forwarded("CL.0", post(b"Content-Length: 0", body=POISON), POST, SMUGGLED),
    forwarded("no length, and a request behind", post(body=POISON), POST, SMUGGLED),
    forwarded(
        "GET with a body",
        get(b"Content-Length: %d" % len(POISON), body=POISON),
        attrs.evolve(GET, body=POISON),
    ),
    forwarded(
        "GET with a chunked body",
        get(b"Transfer-Encoding: chunked", body=b"%x\r\n" % len(POISON) + POISON + b"\r\n0\r\n\r\n"),
        attrs.evolve(GET, body=POISON),
    ),
    forwarded(
        "HEAD with a body",
        request(b"HEAD / HTTP/1.1", b"Host: h", b"Content-Length: %d" % len(POISON), body=POISON),
        Asked(b"HEAD", b"/", POISON),
    ),
    forwarded(
        "DELETE with a body",
        request(b"DELETE / HTTP/1.1", b"Host: h", b"Content-Length: %d" % len(POISON), body=POISON),
        Asked(b"DELETE", b"/", POISON),
    ),
    forwarded(
        "OPTIONS with a body",
        request(b"OPTIONS / HTTP/1.1", b"Host: h", b"Content-Length: %d" % len(POISON), body=POISON),
        Asked(b"OPTIONS", b"/", POISON),
    ),
    forwarded(
        "a request in a body, and another behind",
        post(b"Content-Length: %d" % len(POISON), body=POISON + get(target=b"/2")),
        with_body(POISON),
        Asked(b"GET", b"/2"),
    ),
    forwarded(
        "a request in a chunk, and another behind",
        chunked(b"%x\r\n" % len(POISON) + POISON + b"\r\n0\r\n\r\n" + get(target=b"/2")),
        with_body(POISON),
        Asked(b"GET", b"/2"),
    ),
    forwarded(
        "a request that looks like a last chunk",
        chunked(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
        with_body(b"0\r\n\r\n"),
    ),
    forwarded(
        "a body of one CRLF",
        post(b"Content-Length: 2", body=b"\r\n" + get(target=b"/2")),
        with_body(b"\r\n"),
        Asked(b"GET", b"/2"),
    ),
    forwarded(
        "a body with a CRLF too many behind",
        post(b"Content-Length: 1", body=b"a\r\n" + get(target=b"/2")),
        with_body(b"a"),
        Asked(b"GET", b"/2"),
    ),
    Entry(
        "a body that is longer than its length",
        post(b"Content-Length: 3", body=b"abcdef\r\n\r\n"),
        (Outcome((with_body(b"abc"),), 400),),
    ),
    Entry("a body that is shorter than its length", post(b"Content-Length: 100", body=POISON), (WAITS,)),
    Entry("a chunk that is shorter than its size", chunked(b"ff\r\n" + POISON), (WAITS,)),
    Entry("no last chunk", chunked(b"3\r\nabc\r\n"), (WAITS,)),
    Entry("no end of the trailers", chunked(b"3\r\nabc\r\n0\r\n"), (WAITS,)),
    Entry("no end of the head", b"GET / HTTP/1.1\r\nHost: h\r\n", (WAITS,)),
    Entry("no end of the request line", b"GET / HTTP/1.1", (WAITS,)),
    Entry("nothing", b"", (WAITS,)),
    Entry("an empty line", b"\r\n", (WAITS,)),
    Entry("half an empty line", b"\r", (WAITS,)),
]

LINE_ENDS = [
    *(
        Entry(name, sent, (Outcome((), 400), WAITS))
        for name, sent in {
            "bare LF everywhere": b"GET / HTTP/1.1\nHost: h\n\n",
            "bare LF everywhere, with a body": b"POST / HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc",
            "bare LF at the end": b"GET / HTTP/1.1\r\nHost: h\r\n\n",
            "bare LF at the end, twice": b"GET / HTTP/1.1\r\nHost: h\n\n",
            "bare CR everywhere": b"GET / HTTP/1.1\rHost: h\r\r",
            "bare CR at the end": b"GET / HTTP/1.1\r\nHost: h\r\r",
            "LF CR everywhere": b"GET / HTTP/1.1\n\rHost: h\n\r\n\r",
            "next lines": "GET / HTTP/1.1\x85Host: h\x85\x85".encode("latin-1"),
            "line separators": "GET / HTTP/1.1\u2028Host: h\u2028\u2028".encode(),
        }.items()
    ),
    *(
        refused(name, sent)
        for name, sent in {
            "bare LF behind the request line": b"GET / HTTP/1.1\nHost: h\r\n\r\n",
            "bare CR behind the request line": b"GET / HTTP/1.1\rHost: h\r\n\r\n",
            "CR CR LF behind the request line": b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n",
            "bare LF behind a field": get(b"X: y\nZ: z"),
            "bare LF behind the last field": b"GET / HTTP/1.1\r\nHost: h\n\r\n\r\n",
            "bare CR behind a field": get(b"X: y\rZ: z"),
            "CR CR LF behind a field": get(b"X: y\r"),
            "CR CR LF at the end": b"GET / HTTP/1.1\r\nHost: h\r\n\r\r\n\r\n",
            "bare CR before the colon": get(b"X\r: y"),
            "bare LF before the colon": get(b"X\n: y"),
            "bare CR behind the colon": get(b"X:\ry"),
            "bare LF behind the colon": get(b"X:\ny"),
            "bare CR as a value": get(b"X: \r"),
            "bare LF as a value": get(b"X: \n"),
            "bare CR before a name": get(b"\rX: y"),
            "bare LF before a name": get(b"\nX: y"),
            "bare CR in the target": get(target=b"/\rX"),
            "bare LF in the target": get(target=b"/\nX:y"),
            "bare CR before the target": b"GET\r/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "bare CR before the version": b"GET /\rHTTP/1.1\r\nHost: h\r\n\r\n",
            "bare LF before the method": b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "bare CR before the method": b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "LF CR LF before the method": b"\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "bare LF and an empty line in a value": get(b"X: y\n\nGET /smuggled HTTP/1.1\nHost: h"),
            "request behind a bare CR in a value": get(b"X: y\r\rGET /smuggled HTTP/1.1\rHost: h"),
            "a line with a blank only": get(b"X: y", b" "),
            "a line with a blank first": b"GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n",
        }.items()
    ),
    forwarded("an empty line before", b"\r\n" + get(), GET),
    forwarded("two empty lines before", b"\r\n\r\n" + get(), GET, or_refused=(400,)),
    forwarded("five empty lines before", b"\r\n" * 5 + get(), GET, or_refused=(400,)),
    refused("a blank line before", b" \r\n" + get()),
    refused("a blank before", b" " + get()),
    refused("a tab before", b"\t" + get()),
    Entry(
        "an empty line between",
        get() + b"\r\n" + get(target=b"/2"),
        (Outcome((GET, Asked(b"GET", b"/2"))), Outcome((GET,), 400)),
    ),
    refused_after("a bare LF between", get() + b"\n" + POISON, GET),
    refused_after("a bare CR between", get() + b"\r" + POISON, GET),
    refused_after("a NUL between", get() + b"\0" + POISON, GET),
]

CONTROLS = [
    *(
        refused(f"{name} {where}", sent)
        for name, byte in {
            "NUL": b"\x00",
            "SOH": b"\x01",
            "BEL": b"\x07",
            "BS": b"\x08",
            "VT": b"\x0b",
            "FF": b"\x0c",
            "ESC": b"\x1b",
            "US": b"\x1f",
            "DEL": b"\x7f",
        }.items()
        for where, sent in {
            "in a value": get(b"X: a" + byte + b"b"),
            "in a name": get(b"X" + byte + b": y"),
            "in the target": get(target=b"/a" + byte),
        }.items()
    ),
    refused("NUL in the method", b"GE\x00T / HTTP/1.1\r\nHost: h\r\n\r\n"),
    refused("NUL in the version", b"GET / HTTP/1.1\x00\r\nHost: h\r\n\r\n", 400, 505),
    refused("NUL in Host", b"GET / HTTP/1.1\r\nHost: h\x00evil\r\n\r\n"),
    refused("NUL as a name", get(b"\x00: y")),
    refused("VT before a value", get(b"X: \x0by")),
    refused("FF before a value", get(b"X: \x0cy")),
    forwarded("a tab in a value", get(b"X: a\tb"), attrs.evolve(GET, has=((b"x", b"a\tb"),))),
    forwarded(
        "bytes over 0x7f in a value",
        get(b"X: \xe9\xff\x80"),
        attrs.evolve(GET, has=((b"x", b"\xe9\xff\x80"),)),
    ),
]

FIELDS = [
    *(
        refused(f"field line: {name}", get(line))
        for name, line in {
            "blank before the colon": b"X : y",
            "tab before the colon": b"X\t: y",
            "no colon": b"X",
            "no colon, with blanks": b"X y z",
            "empty name": b": y",
            "blank as a name": b" : y",
            "only a colon": b":",
            "blank in the name": b"X Y: z",
            "in brackets": b"(X): y",
            "comma in the name": b"X,Y: z",
            "slash in the name": b"X/Y: z",
            "at sign in the name": b"X@Y: z",
            "quotes in the name": b'"X": y',
            "semicolon in the name": b"X;Y: z",
            "angle brackets": b"<X>: y",
            "equals sign": b"X=y",
            "square brackets": b"X[0]: y",
            "braces": b"{X}: y",
            "backslash": b"X\\Y: z",
            "question mark": b"X?: y",
            "byte over 0x7f in the name": b"X\xe9: y",
            "UTF-8 in the name": "Xé: y".encode(),
            "no-break space before the colon": b"X\xa0: y",
            "a request line": b"GET /smuggled HTTP/1.1",
        }.items()
    ),
    refused("fold", get(b"X: a", b" b")),
    refused("fold with a tab", get(b"X: a", b"\tb")),
    refused("fold of Host", request(b"GET / HTTP/1.1", b"Host:", b" h")),
    refused("fold behind the request line", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
    refused("fold that hides a length", post(b"X: a", b" Content-Length: 40", body=b"abc")),
    refused("fold at the end", get(b"X: a", b" ")),
    refused("no field at all but a blank", b"GET / HTTP/1.1\r\n \r\n\r\n"),
    forwarded("an empty value", get(b"X:"), attrs.evolve(GET, has=((b"x", b""),))),
    forwarded("colons in a value", get(b"X: a:b: c"), attrs.evolve(GET, has=((b"x", b"a:b: c"),))),
    forwarded("every letter of a token in a name", get(b"!#$%&'*+-.^`|~09azAZ: y"), GET, or_refused=(400,)),
    refused("too many fields", get(*(b"X: y" for _ in range(200))), 431),
    refused("a field that is too long", get(b"X: " + b"y" * 40_000), 431),
    refused("a name that is too long", get(b"X" * 40_000 + b": y"), 431),
    refused("a head without end", b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 10_000, 431),
    refused("a line without end", b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 70_000, 431),
]


def _size(size: bytes) -> bytes:
    return chunked(size + b"\r\nabc\r\n0\r\n\r\n" + POISON)


CHUNKS = [
    forwarded(
        "size with zeros before", chunked(b"0003\r\nabc\r\n0\r\n\r\n"), with_body(b"abc"), or_refused=(400,)
    ),
    forwarded("size in capitals", chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), with_body(b"0123456789")),
    forwarded("size in small letters", chunked(b"a\r\n0123456789\r\n0\r\n\r\n"), with_body(b"0123456789")),
    forwarded(
        "last chunk with many zeros",
        chunked(b"3\r\nabc\r\n000\r\n\r\n"),
        with_body(b"abc"),
        or_refused=(400,),
    ),
    forwarded("only the last chunk", chunked(b"0\r\n\r\n"), POST),
    forwarded("many small chunks", chunked(b"1\r\na\r\n" * 500 + b"0\r\n\r\n"), with_body(b"a" * 500)),
    forwarded(
        "chunks of line ends", chunked(b"2\r\n\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n"), with_body(b"\r\n" * 3)
    ),
    *(
        refused(f"size {name}", _size(size), *statuses)
        for name, (size, *statuses) in {
            "with a plus": (b"+3",),
            "with a minus": (b"-3",),
            "minus zero": (b"-0",),
            "with 0x": (b"0x3",),
            "with 0X": (b"0X3",),
            "with x": (b"x3",),
            "with an h": (b"3h",),
            "with a blank before": (b" 3",),
            "with a tab before": (b"\t3",),
            "with a blank in it": (b"0 3",),
            "with a vertical tab": (b"\x0b3",),
            "with a form feed after": (b"3\x0c",),
            "with a NUL": (b"3\x00",),
            "with an underscore": (b"0_3",),
            "with a comma": (b"0,3",),
            "with a point": (b"3.0",),
            "in quotes": (b'"3"',),
            "empty": (b"",),
            "a letter": (b"g",),
            "in wide digits": ("\uff13".encode(),),
            "in Arabic digits": ("\u0663".encode(),),
            "with a no-break space": (b"3\xa0",),
            "2^32 + 3": (b"100000003", 400, 413),
            "2^63": (b"8000000000000000", 400, 413),
            "2^64 + 3": (b"10000000000000003", 400, 413),
            "2^64 + 5": (b"10000000000000005", 400, 413),
            "of 40 digits": (b"f" * 40, 400, 413),
            "of 400 digits": (b"1" * 400, 400, 413),
            "behind a bare CR": (b"\r3",),
            "behind a bare LF": (b"\n3",),
            "before a bare CR": (b"3\r",),
        }.items()
    ),
    refused("size of 40,000 zeros", chunked(b"0" * 40_000 + b"3\r\nabc\r\n0\r\n\r\n"), 400, 413, 431),
    refused("size without end", chunked(b"1" * 70_000), 400, 413, 431),
    forwarded(
        "size with a blank after", chunked(b"3 \r\nabc\r\n0\r\n\r\n"), with_body(b"abc"), or_refused=(400,)
    ),
    refused("bare LF behind the size", chunked(b"3\nabc\r\n0\r\n\r\n")),
    refused("bare CR behind the size", chunked(b"3\rabc\r\n0\r\n\r\n")),
    refused("CR CR LF behind the size", chunked(b"3\r\r\nabc\r\n0\r\n\r\n")),
    refused("LF LF behind the size", chunked(b"3\n\nbc\r\n0\r\n\r\n")),
    refused("CR and another byte behind the size", chunked(b"3\rXabc\r\n0\r\n\r\n")),
    refused("bare LF behind the last size", chunked(b"3\r\nabc\r\n0\n\r\n")),
    refused("bare LF behind the data", chunked(b"3\r\nabc\n0\r\n\r\n")),
    refused("bare CR behind the data", chunked(b"3\r\nabc\r0\r\n\r\n")),
    refused("nothing behind the data", chunked(b"3\r\nabc0\r\n\r\n")),
    refused("two other bytes behind the data", chunked(b"3\r\nabcXX0\r\n\r\n")),
    refused("more data than the size says", chunked(b"3\r\nabcde\r\n0\r\n\r\n")),
    refused("less data than the size says", chunked(b"5\r\nabc\r\n0\r\n\r\n")),
    refused("CR CR LF behind the data", chunked(b"3\r\nabc\r\r\n0\r\n\r\n")),
    refused("an empty line before the size", chunked(b"\r\n3\r\nabc\r\n0\r\n\r\n")),
    refused("an empty line between chunks", chunked(b"3\r\nabc\r\n\r\n0\r\n\r\n")),
    refused("bare LF at the end", chunked(b"3\r\nabc\r\n0\r\n\n")),
    refused("bare CR at the end", chunked(b"3\r\nabc\r\n0\r\n\r" + POISON)),
    refused("a request for the end", chunked(b"3\r\nabc\r\n0\r\n" + POISON[:30] + b"\r\n\r\n")),
    refused("not chunked at all", chunked(b"abc=def&ghi=jkl\r\n\r\n")),
    refused("a request instead of chunks", chunked(POISON)),
    refused("bad size behind good chunks", chunked(b"1\r\na\r\n" * 3 + b"Z\r\n")),
]

_AGAIN = b"\r\nabc\r\n0\r\n\r\n"

EXTENSIONS = [
    forwarded("extension", chunked(b"3;a=b" + _AGAIN), with_body(b"abc"), or_refused=(400,)),
    forwarded("extension without a value", chunked(b"3;a" + _AGAIN), with_body(b"abc"), or_refused=(400,)),
    forwarded("extension in quotes", chunked(b'3;a="b c"' + _AGAIN), with_body(b"abc"), or_refused=(400,)),
    forwarded("several extensions", chunked(b"3;a=b;c;d=e" + _AGAIN), with_body(b"abc"), or_refused=(400,)),
    forwarded("extension with blanks", chunked(b"3 ; a = b" + _AGAIN), with_body(b"abc"), or_refused=(400,)),
    forwarded("semicolon in quotes", chunked(b'3;a=";"' + _AGAIN), with_body(b"abc"), or_refused=(400,)),
    forwarded("empty extension", chunked(b"3;" + _AGAIN), with_body(b"abc"), or_refused=(400,)),
    forwarded(
        "extension of the last chunk",
        chunked(b"3\r\nabc\r\n0;a=b\r\n\r\n"),
        with_body(b"abc"),
        or_refused=(400,),
    ),
    forwarded("quotes that do not end", chunked(b'3;a="b' + _AGAIN), with_body(b"abc"), or_refused=(400,)),
    forwarded(
        "extension that looks like a size", chunked(b"3;5" + _AGAIN), with_body(b"abc"), or_refused=(400,)
    ),
    forwarded(
        "bytes over 0x7f in an extension",
        chunked(b"3;\xff=\xfe" + _AGAIN),
        with_body(b"abc"),
        or_refused=(400,),
    ),
    refused("bare LF in an extension", chunked(b"3;a\nabc\r\n0\r\n\r\n" + POISON)),
    refused("bare LF in an extension that hides a size", chunked(b"3;\nff\r\nabc\r\n0\r\n\r\n" + POISON)),
    refused("bare CR in an extension", chunked(b"3;a\rb" + _AGAIN)),
    refused("NUL in an extension", chunked(b"3;a\x00" + _AGAIN)),
    refused("bare LF in quotes", chunked(b'3;a="\n"' + _AGAIN)),
    refused("CRLF in quotes", chunked(b'3;a="\r\n"' + _AGAIN)),
    refused("another separator", chunked(b"3,a=b" + _AGAIN)),
    refused("a word behind the size", chunked(b"3 abc" + _AGAIN)),
    refused("an extension without end", chunked(b"3;" + b"a" * 70_000), 400, 413, 431),
    refused("an extension of 40,000 bytes", chunked(b"3;" + b"a" * 40_000 + _AGAIN), 400, 413, 431),
    refused("bare LF behind a last chunk's extension", chunked(b"3\r\nabc\r\n0;a\n\r\n")),
]

_LAST = b"3\r\nabc\r\n0\r\n"
_TRAILED = attrs.evolve(POST, body=b"abc", lacks=(b"x", b"x-forwarded-for-me", b"authorization"))

TRAILERS = [
    forwarded("trailer", chunked(_LAST + b"X: y\r\n\r\n"), _TRAILED, or_refused=(400,)),
    forwarded(
        "announced trailer", chunked(_LAST + b"X: y\r\n\r\n", b"Trailer: X"), _TRAILED, or_refused=(400,)
    ),
    forwarded(
        "trailer Content-Length", chunked(_LAST + b"Content-Length: 5\r\n\r\n"), _TRAILED, or_refused=(400,)
    ),
    forwarded(
        "trailer Transfer-Encoding",
        chunked(_LAST + b"Transfer-Encoding: chunked\r\n\r\n"),
        _TRAILED,
        or_refused=(400,),
    ),
    forwarded("trailer Host", chunked(_LAST + b"Host: evil\r\n\r\n"), _TRAILED, or_refused=(400,)),
    forwarded("trailer Connection", chunked(_LAST + b"Connection: X\r\n\r\n"), _TRAILED, or_refused=(400,)),
    forwarded(
        "trailer Authorization", chunked(_LAST + b"Authorization: evil\r\n\r\n"), _TRAILED, or_refused=(400,)
    ),
    forwarded(
        "trailer, and a request behind",
        chunked(_LAST + b"X: y\r\n\r\n" + get(target=b"/2")),
        _TRAILED,
        Asked(b"GET", b"/2"),
        or_refused=(400,),
    ),
    Entry("trailer without end", chunked(_LAST + b"X: y\r\n"), (WAITS,)),
    refused("trailers that are too large", chunked(_LAST + b"X: y\r\n" * 10_000 + b"\r\n"), 400, 413, 431),
    refused(
        "a trailer that is too long", chunked(_LAST + b"X: " + b"y" * 40_000 + b"\r\n\r\n"), 400, 413, 431
    ),
    refused("trailers without end", chunked(_LAST + b"X: y\r\n" * 20_000), 400, 413, 431),
    refused("trailer without a colon", chunked(_LAST + b"X\r\n\r\n")),
    refused("trailer with a blank before the colon", chunked(_LAST + b"X : y\r\n\r\n")),
    refused("trailer with an empty name", chunked(_LAST + b": y\r\n\r\n")),
    refused("trailer with a NUL", chunked(_LAST + b"X: \x00\r\n\r\n")),
    refused("trailer with a bare LF", chunked(_LAST + b"X: y\n\r\n" + POISON)),
    refused("trailer with a bare CR", chunked(_LAST + b"X: y\rZ: z\r\n\r\n")),
    refused("trailer that is folded", chunked(_LAST + b"X: y\r\n z\r\n\r\n")),
    refused("trailer that begins with a blank", chunked(_LAST + b" X: y\r\n\r\n")),
]

ODD_HOSTS = {
    "with userinfo": b"user@h",
    "with a password": b"h:80@evil",
    "with a path": b"h/evil",
    "with a query": b"h?evil",
    "with a fragment": b"h#evil",
    "with a scheme": b"http://h",
    "with a blank in it": b"h evil",
    "with a comma": b"h, evil",
    "with a tab in it": b"h\tevil",
    "with two ports": b"h:80:81",
    "with a port of letters": b"h:http",
    "with a sign in the port": b"h:+80",
    "with a quote": b'h"',
    "with a backslash": b"h\\evil",
    "with angle brackets": b"<script>",
    "with a bracket that does not end": b"[::1",
    "with a bracket that does not begin": b"::1]",
    "with a byte over 0x7f": b"h\xe9",
    "with a percent sign alone": b"h%",
    "with a letter percent-encoded": b"admi%6e.h",
    "with a caret": b"h^evil",
}

HOSTS = [
    refused("no Host", b"GET / HTTP/1.1\r\n\r\n"),
    refused("no Host, but other fields", b"GET / HTTP/1.1\r\nX: y\r\n\r\n"),
    refused("two Hosts", get(b"Host: evil")),
    refused("two equal Hosts", get(b"Host: h")),
    refused("three Hosts, case apart", get(b"HOST: h", b"host: evil")),
    refused("two Hosts in HTTP/1.0", request(b"GET / HTTP/1.0", b"Host: h", b"Host: evil")),
    refused("two Hosts and an absolute target", get(b"Host: evil", target=b"http://h/")),
    refused("an absolute target and no Host", b"GET http://h/ HTTP/1.1\r\n\r\n"),
    forwarded(
        "no Host in HTTP/1.0",
        b"GET / HTTP/1.0\r\n\r\n",
        attrs.evolve(GET, host=None),
        or_refused=(400,),
    ),
    forwarded(
        "an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", attrs.evolve(GET, host=b""), or_refused=(400,)
    ),
    *(
        forwarded(
            f"Host {host.decode()}",
            request(b"GET / HTTP/1.1", b"Host: " + host),
            attrs.evolve(GET, host=host),
        )
        for host in (b"h:80", b"127.0.0.1", b"[::1]:8080", b"a.b-c.example", b"xn--bcher-kva.example")
    ),
    *(
        refused(f"Host {name}", request(b"GET / HTTP/1.1", b"Host: " + host))
        for name, host in ODD_HOSTS.items()
    ),
    Entry(
        "an absolute target against Host",
        get(target=b"http://evil/path"),
        (Outcome((), 400), Outcome((Asked(b"GET", b"/path", host=b"evil"),))),
    ),
    forwarded("an absolute target that agrees", get(target=b"http://h/path"), Asked(b"GET", b"/path")),
    forwarded(
        "an absolute target in capitals",
        get(target=b"HTTP://h/path"),
        Asked(b"GET", b"/path"),
        or_refused=(400,),
    ),
    forwarded("an absolute target without a path", get(target=b"http://h"), GET),
    forwarded(
        "an absolute target with a query only",
        get(target=b"http://h?q"),
        Asked(b"GET", b"/?q"),
        or_refused=(400,),
    ),
    Entry(
        "an absolute target with userinfo",
        get(target=b"http://user@h/"),
        (Outcome((), 400), Outcome((GET,))),
    ),
    Entry(
        "an absolute target with another host as userinfo",
        get(target=b"http://h@evil/"),
        (Outcome((), 400), Outcome((attrs.evolve(GET, host=b"evil"),))),
    ),
    refused("an absolute target without a host", get(target=b"http:///path")),
    refused("an absolute target with a port alone", get(target=b"http://:80/")),
    *(
        refused(f"an absolute target with {name}", get(target=target))
        for name, target in {
            "two ports": b"http://h:1:2/",
            "a backslash in its host": b"http://h\\evil/",
            "a bracket in its host": b"http://[h/",
        }.items()
    ),
    refused("an absolute target of another scheme", get(target=b"ftp://h/")),
    refused("an absolute file target", get(target=b"file:///etc/passwd")),
    refused("a target without a scheme", get(target=b"h/path")),
    refused("a scheme alone", get(target=b"http:")),
    refused("a scheme with one slash", get(target=b"http:/h/")),
]


def _line(line: bytes) -> bytes:
    return request(line, b"Host: h")


METHODS = [
    *(
        forwarded(f"method {method.decode()}", _line(method + b" / HTTP/1.1"), Asked(method, b"/"))
        for method in (b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND", b"REPORT", b"PURGE")
    ),
    *(
        forwarded(
            f"method {method[:20].decode()}",
            _line(method + b" / HTTP/1.1"),
            Asked(method, b"/"),
            or_refused=(400, 405, 414, 431, 501),
        )
        for method in (
            b"get",
            b"Get",
            b"FOO",
            b"M-SEARCH",
            b"TRACE",
            b"TRACK",
            b"DEBUG",
            b"!#$%&'*+-.^_`|~",
            b"0",
            b"GET" * 3400,
        )
    ),
    forwarded(
        "OPTIONS of the server", _line(b"OPTIONS * HTTP/1.1"), Asked(b"OPTIONS", b"*"), or_refused=(200,)
    ),
    refused("CONNECT", _line(b"CONNECT h:443 HTTP/1.1"), 400, 405, 501),
    refused("CONNECT of a path", _line(b"CONNECT / HTTP/1.1"), 400, 405, 501),
    refused("CONNECT and a request behind", _line(b"CONNECT h:443 HTTP/1.1") + POISON, 400, 405, 501),
    refused(
        "CONNECT with a body",
        request(b"CONNECT h:443 HTTP/1.1", b"Host: h", b"Content-Length: %d" % len(POISON), body=POISON),
        *(400, 405, 501),
    ),
    *(
        refused(f"method {name}", _line(line), *statuses)
        for name, (line, *statuses) in {
            "missing": (b" / HTTP/1.1",),
            "with a colon": (b"GET: / HTTP/1.1",),
            "with a slash": (b"GE/T / HTTP/1.1",),
            "in brackets": (b"(GET) / HTTP/1.1",),
            "in quotes": (b'"GET" / HTTP/1.1',),
            "with a comma": (b"GET,POST / HTTP/1.1",),
            "with an at sign": (b"G@T / HTTP/1.1",),
            "with a tab": (b"GE\tT / HTTP/1.1",),
            "with a byte over 0x7f": (b"G\xc9T / HTTP/1.1",),
            "with braces": (b"{GET} / HTTP/1.1",),
            "of two words": (b"GET POST / HTTP/1.1",),
            "that is a version": (b"HTTP/1.1 200 OK",),
            "without end": (b"G" * 70_000, 400, 414, 431, 501),
        }.items()
    ),
]

VERSIONS = [
    *(
        refused(f"version {name}", _line(b"GET / " + version), 400, 505)
        for name, version in {
            "1.2": b"HTTP/1.2",
            "2.0": b"HTTP/2.0",
            "2": b"HTTP/2",
            "3": b"HTTP/3",
            "0.9": b"HTTP/0.9",
            "1": b"HTTP/1",
            "1.": b"HTTP/1.",
            "9.9": b"HTTP/9.9",
            "in small letters": b"http/1.1",
            "in mixed letters": b"Http/1.1",
            "with a letter after": b"HTTP/1.1x",
            "01.1": b"HTTP/01.1",
            "1.01": b"HTTP/1.01",
            "1.10": b"HTTP/1.10",
            "1.1.1": b"HTTP/1.1.1",
            "11": b"HTTP/11",
            "with a comma": b"HTTP/1,1",
            "with a sign": b"HTTP/+1.1",
            "with two slashes": b"HTTP//1.1",
            "with a blank": b"HTTP/1.1 ",
            "with a tab": b"HTTP/1.1\t",
            "with blanks in it": b"HTTP / 1.1",
            "HTTPS": b"HTTPS/1.1",
            "of another protocol": b"ICY/1.1",
            "RTSP": b"RTSP/1.0",
            "in wide digits": "HTTP/\uff11.\uff11".encode(),
            "a word": b"evil",
            "empty": b"",
        }.items()
    ),
    refused("HTTP/0.9", b"GET /\r\n", 400, 505),
    refused("HTTP/0.9, with an end", b"GET /\r\n\r\n", 400, 505),
    refused("HTTP/0.9, with fields", b"GET /\r\nHost: h\r\n\r\n", 400, 505),
    refused("HTTP/0.9 and a request behind", b"GET /\r\n" + POISON, 400, 505),
    refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 501, 505),
    refused(
        "HTTP/2 preface and settings",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        *(400, 501, 505),
    ),
    forwarded(
        "PRI in HTTP/1.1",
        _line(b"PRI / HTTP/1.1"),
        Asked(b"PRI", b"/"),
        or_refused=(400, 405, 501, 505),
    ),
    forwarded("HTTP/1.0", b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", GET),
    forwarded(
        "HTTP/1.0 with a request behind",
        b"GET / HTTP/1.0\r\nHost: h\r\n\r\n" + POISON,
        GET,
    ),
    Entry(
        "HTTP/1.0, kept alive, with a request behind",
        b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n" + POISON,
        (Outcome((GET,)), Outcome((GET, SMUGGLED))),
    ),
    forwarded(
        "HTTP/1.0 with a body",
        b"POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        with_body(b"abc"),
    ),
]
PROTOCOLS = [
    Entry(f"{name} on the port", sent, (Outcome((), 400), Outcome((), 505), WAITS))
    for name, sent in {
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)) + b"\x20" + bytes(64),
        "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "SMTP": b"EHLO h\r\nMAIL FROM:<a@b>\r\n",
        "FTP": b"USER anonymous\r\n\r\n",
        "Redis": b"*1\r\n$4\r\nPING\r\n",
        "memcached": b"stats\r\n\r\n",
        "PROXY v1": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + POISON,
        "PROXY v2": b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" + POISON,
        "RDP": b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
        "a WebSocket's frame": b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        "AMQP": b"AMQP\x00\x00\x09\x01",
        "zeros": bytes(1000),
        "ones": b"\xff" * 1000,
        "a response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "JSON": b'{"a": 1}\r\n\r\n',
        "UTF-16": "GET / HTTP/1.1\r\nHost: h\r\n\r\n".encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + get(),
    }.items()
]

ODD_EXPECTATIONS = {
    "unknown": b"evil",
    "200-ok": b"200-ok",
    "with another": b"100-continue, evil",
    "with a value": b"100-continue=yes",
    "with a parameter": b"100-continue;q=1",
    "of half a word": b"100-contin",
}

EXPECTATIONS = [
    forwarded(
        "expectation", post(b"Expect: 100-continue", b"Content-Length: 3", body=b"abc"), with_body(b"abc")
    ),
    forwarded(
        "expectation in capitals",
        post(b"EXPECT: 100-CONTINUE", b"Content-Length: 3", body=b"abc"),
        with_body(b"abc"),
    ),
    forwarded(
        "expectation of a chunked body",
        post(b"Expect: 100-continue", b"Transfer-Encoding: chunked", body=_CHUNK),
        with_body(b"abc"),
    ),
    forwarded("expectation without a body", get(b"Expect: 100-continue"), GET, or_refused=(400, 417)),
    forwarded(
        "expectation of an empty body",
        post(b"Expect: 100-continue", b"Content-Length: 0", body=POISON),
        POST,
        SMUGGLED,
    ),
    forwarded(
        "expectation with a request in the body",
        post(b"Expect: 100-continue", b"Content-Length: %d" % len(POISON), body=POISON + get(target=b"/2")),
        with_body(POISON),
        Asked(b"GET", b"/2"),
    ),
    forwarded(
        "two expectations",
        post(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 3", body=b"abc"),
        with_body(b"abc"),
        or_refused=(400, 417),
    ),
    *(
        forwarded(
            f"expectation {name}",
            post(b"Expect: " + value, b"Content-Length: 3", body=b"abc"),
            attrs.evolve(with_body(b"abc"), lacks=(b"expect",)),
        )
        for name, value in {
            "twice in a list": b"100-continue, 100-continue",
            "behind a comma": b",100-continue",
            "before a comma": b"100-continue,",
            "among blanks and commas": b" ,\t, 100-CONTINUE\t,",
            "of nothing": b"",
            "of commas": b",, ,",
        }.items()
    ),
    forwarded(
        "expectation in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        with_body(b"abc"),
    ),
    *(
        refused(f"expectation {name}", post(b"Expect: " + value, b"Content-Length: 3", body=b"abc"), 417, 400)
        for name, value in ODD_EXPECTATIONS.items()
    ),
]


def _hops(method: bytes, *values: bytes) -> bytes:
    """A request that counts its hops."""
    counts = [b"Max-Forwards: " + value for value in values]
    return request(b"%b / HTTP/1.1" % method, b"Host: h", *counts)


#: Not one number (RFC 9110, section 7.6.2).
ODD_HOPS = {
    "garbage": (b"many",),
    "nothing": (b"",),
    "less than none": (b"-1",),
    "a sign": (b"+1",),
    "a fraction": (b"1.5",),
    "hexadecimal": (b"0x1",),
    "a list": (b"1, 1",),
    "another script's digit": ("\u0663".encode(),),
    "an underscore": (b"1_0",),
    "two": (b"1", b"1"),
    "two that differ": (b"5", b"0"),
}

HOPS = [
    *(
        Entry(
            f"{method.decode()} with {name} for Max-Forwards",
            _hops(method, *values),
            (Outcome((), 400, ends=False),),
        )
        for method in (b"TRACE", b"OPTIONS")
        for name, values in ODD_HOPS.items()
    ),
    *(
        forwarded(f"{method.decode()} with Max-Forwards: {sent.decode()[:20]}", _hops(method, sent), asked)
        for method in (b"TRACE", b"OPTIONS")
        for sent, left in {b"1": b"0", b"0012": b"11", b"256": b"255", b"9" * 30: b"255"}.items()
        for asked in [Asked(method, b"/", has=((b"max-forwards", left),))]
    ),
    *(
        Entry(f"{method.decode()} with no hop left", _hops(method, b"0"), (Outcome((), status),))
        for method, status in {b"TRACE": 200, b"OPTIONS": 204}.items()
    ),
    *(
        forwarded(
            f"GET with {name} for Max-Forwards",
            _hops(b"GET", *values),
            attrs.evolve(GET, has=tuple((b"max-forwards", value) for value in values)),
        )
        for name, values in {"none": (b"0",), "garbage": (b"many",), "two": (b"5", b"0")}.items()
    ),
]


def _connection(value: bytes, *fields: bytes) -> bytes:
    return post(b"Connection: " + value, b"Content-Length: 3", *fields, body=b"abc")


_ABC = with_body(b"abc")

CONNECTIONS = [
    *(
        forwarded(f"Connection names {name}", _connection(value, *fields), _ABC, or_refused=(400,))
        for name, (value, *fields) in {
            "Host": (b"Host",),
            "Content-Length": (b"Content-Length",),
            "Transfer-Encoding": (b"Transfer-Encoding",),
            "Connection": (b"Connection",),
            "itself and more": (b"Connection, Host, Content-Length",),
            "X-Forwarded-For": (b"X-Forwarded-For", b"X-Forwarded-For: 1.2.3.4"),
            "Content-Type": (b"Content-Type", b"Content-Type: text/plain"),
            "a word that is no token": (b"@",),
            "nothing": (b"",),
            "commas": (b",,,",),
            "much": (b", ".join(b"x%d" % n for n in range(1000)),),
        }.items()
    ),
    forwarded(
        "Connection names X",
        _connection(b"X", b"X: y"),
        attrs.evolve(_ABC, lacks=(b"x",)),
    ),
    forwarded(
        "the second of two Connections names X",
        _connection(b"Y", b"Connection: X", b"X: y"),
        attrs.evolve(_ABC, lacks=(b"x",)),
    ),
    forwarded(
        "Connection names X in other letters, among commas",
        _connection(b", ,x-SECRET ,", b"X-Secret: y"),
        attrs.evolve(_ABC, lacks=(b"x-secret",)),
    ),
    forwarded(
        "Connection names a chunked body's framing",
        chunked(_CHUNK + POISON, b"Connection: Transfer-Encoding"),
        _ABC,
        SMUGGLED,
        or_refused=(400,),
    ),
    forwarded("close, and a request behind", get(b"Connection: close", body=POISON), GET),
    forwarded("close in capitals, and a request behind", get(b"Connection: CLOSE", body=POISON), GET),
    forwarded(
        "close and keep-alive, and a request behind", get(b"Connection: close, keep-alive", body=POISON), GET
    ),
    forwarded(
        "keep-alive, then close, and a request behind",
        get(b"Connection: keep-alive", b"Connection: close", body=POISON),
        GET,
    ),
    forwarded(
        "close behind a comma without a blank",
        get(b"Connection: x,close", body=POISON),
        GET,
    ),
    forwarded(
        "close with a body, and a request behind",
        post(b"Connection: close", b"Content-Length: 3", body=b"abc" + POISON),
        _ABC,
    ),
    forwarded("close with a body without a length", post(b"Connection: close", body=POISON), POST),
    forwarded(
        "something like close",
        get(b"Connection: closed", body=get(target=b"/2")),
        GET,
        Asked(b"GET", b"/2"),
    ),
    forwarded(
        "Keep-Alive",
        get(b"Connection: keep-alive", b"Keep-Alive: timeout=1000000"),
        attrs.evolve(GET, lacks=(b"keep-alive",)),
    ),
    forwarded(
        "Proxy-Connection", get(b"Proxy-Connection: close"), attrs.evolve(GET, lacks=(b"proxy-connection",))
    ),
    forwarded("TE", get(b"TE: trailers", b"Connection: TE"), attrs.evolve(GET, lacks=(b"te",))),
    forwarded("TE that Connection does not name", get(b"TE: chunked;q=0"), attrs.evolve(GET, lacks=(b"te",))),
    forwarded("Trailer", get(b"Trailer: Content-Length"), attrs.evolve(GET, lacks=(b"trailer",))),
]

UPGRADES = [
    forwarded(
        "to h2c",
        get(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ),
        attrs.evolve(GET, lacks=(b"upgrade", b"http2-settings")),
        or_refused=(400, 501),
    ),
    forwarded(
        "to h2c that Connection does not name",
        get(b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        attrs.evolve(GET, lacks=(b"upgrade",)),
        or_refused=(400, 501),
    ),
    forwarded(
        "to h2c with a body and a preface behind",
        post(
            b"Connection: Upgrade",
            b"Upgrade: h2c",
            b"Content-Length: 3",
            body=b"abc" + get(target=b"/2"),
        ),
        attrs.evolve(_ABC, lacks=(b"upgrade",)),
        Asked(b"GET", b"/2"),
        or_refused=(400, 501),
    ),
    forwarded(
        "to a WebSocket, with a request behind",
        get(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 777",
            b"Sec-WebSocket-Key: aaaaaaaaaaaaaaaaaaaaaa==",
            body=get(target=b"/2"),
        ),
        attrs.evolve(GET, lacks=(b"upgrade",)),
        Asked(b"GET", b"/2"),
        or_refused=(400, 501),
    ),
    forwarded(
        "to TLS",
        request(b"OPTIONS * HTTP/1.1", b"Host: h", b"Upgrade: TLS/1.0", b"Connection: Upgrade"),
        Asked(b"OPTIONS", b"*", lacks=(b"upgrade",)),
        or_refused=(200, 400, 501),
    ),
]

#: Fields that WSGI, CGI or other proxies would take for another, or that must not pass.
LOOKALIKES = [
    *(
        forwarded(
            f"field {line.partition(b':')[0].decode()}",
            post(line, body=b""),
            attrs.evolve(POST, lacks=(line.partition(b":")[0].lower(),)),
            or_refused=(400,),
        )
        for line in (
            b"Content_Length: 40",
            b"CONTENT_LENGTH: 40",
            b"Transfer_Encoding: chunked",
            b"X_Forwarded_For: 1.2.3.4",
            b"X-Forwarded_For: 1.2.3.4",
            b"X_Real-IP: 1.2.3.4",
            b"X_Forwarded_Proto: https",
            b"_X: y",
            b"X_: y",
            b"Ho_st: evil",
            b"Proxy: http://evil:3128",
            b"PROXY: http://evil:3128",
            b"Proxy-Authorization: Basic ZXZpbDpldmls",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Evil: yes",
            b"Proxy-Status: evil",
        )
    ),
    forwarded(
        "Content_Length beside Content-Length",
        post(b"Content_Length: 40", b"Content-Length: 3", body=b"abc" + get(target=b"/2")),
        attrs.evolve(_ABC, lacks=(b"content_length",)),
        Asked(b"GET", b"/2"),
        or_refused=(400,),
    ),
    forwarded(
        "Transfer_Encoding beside Content-Length",
        post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n" + get(target=b"/2")),
        attrs.evolve(with_body(b"0\r\n\r\n"), lacks=(b"transfer_encoding",)),
        Asked(b"GET", b"/2"),
        or_refused=(400,),
    ),
    forwarded(
        "X-Content-Length and others that only look so",
        post(b"X-Content-Length: 40", b"Content-Length-X: 40", b"Content-Lengt: 40", body=get(target=b"/2")),
        POST,
        Asked(b"GET", b"/2"),
    ),
]

_TWO, _THREE = Asked(b"GET", b"/2"), Asked(b"GET", b"/3")

PIPELINES = [
    forwarded("two requests", get() + get(target=b"/2"), GET, _TWO),
    forwarded("three requests", get() + get(target=b"/2") + get(target=b"/3"), GET, _TWO, _THREE),
    forwarded(
        "twelve requests",
        b"".join(get(target=b"/%d" % n) for n in range(12)),
        *(Asked(b"GET", b"/%d" % n) for n in range(12)),
    ),
    forwarded(
        "bodies of all kinds",
        post(b"Content-Length: 3", body=b"abc")
        + chunked(_CHUNK)
        + get(target=b"/2")
        + post(b"Content-Length: 0"),
        _ABC,
        _ABC,
        _TWO,
        POST,
    ),
    forwarded(
        "HEAD between others",
        get() + _line(b"HEAD /2 HTTP/1.1") + get(target=b"/3"),
        GET,
        Asked(b"HEAD", b"/2"),
        _THREE,
    ),
    refused_after("a bad one behind a good one", get() + get(b"X : y") + POISON, GET),
    refused_after("two framings behind a good one", get() + TWO_FRAMINGS[0].sent, GET),
    refused_after(
        "a bad size behind a good request", get() + chunked(b"+3\r\nabc\r\n0\r\n\r\n") + POISON, GET
    ),
    refused_after("garbage behind a good one", get() + b"\x00\x01\x02\r\n\r\n" + POISON, GET),
    refused_after("half a request and then another", get() + b"GET /2 HT" + POISON, GET, 400, 505),
    refused_after("text behind a good one", get() + b"hello\r\n\r\n", GET),
    refused_after(
        "CONNECT behind a good one", get() + _line(b"CONNECT h:1 HTTP/1.1") + POISON, GET, 400, 405, 501
    ),
    refused_after(
        "HTTP/2 behind a good one", get() + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", GET, 400, 501, 505
    ),
    refused_after("HTTP/0.9 behind a good one", get() + b"GET /smuggled\r\n", GET, 400, 505),
    Entry("half of another behind a good one", get() + POISON[:20], (Outcome((GET,)),)),
    Entry(
        "a body's length that takes in the next request",
        post(b"Content-Length: %d" % len(get(target=b"/2")), body=get(target=b"/2") + get(target=b"/3")),
        (Outcome((with_body(get(target=b"/2")), _THREE)),),
    ),
    forwarded(
        "credentials of one are not the other's",
        get(b"Authorization: Basic YTpi", b"Cookie: a=b") + get(target=b"/2"),
        attrs.evolve(GET, has=((b"authorization", b"Basic YTpi"), (b"cookie", b"a=b"))),
        attrs.evolve(_TWO, lacks=(b"authorization", b"cookie")),
    ),
]

TARGETS = [
    *(
        forwarded(f"target {target.decode()}", get(target=target), Asked(b"GET", target))
        for target in (
            b"//",
            b"//evil/path",
            b"/a//b",
            b"/../../etc/passwd",
            b"/%2e%2e/%00",
            b"/a%0d%0aX:%20y",
            b"/?",
            b"/??",
            b"/a?b?c&d=/",
            b"/a;b=c",
            b"/:80",
            b"/@evil",
            b"/http://evil/",
            b"/%",
            b"/%zz",
            b"/a=b&c+d,e!f$g'h(i)j*k~l",
        )
    ),
    *(
        Entry(
            f"target {target.decode()}",
            get(target=target),
            (Outcome((), 400), Outcome((Asked(b"GET", target),))),
        )
        for target in (
            b'/"',
            b"/<script>",
            b"/{a}",
            b"/a|b",
            b"/a^b",
            b"/`",
            b"/\\..\\a",
            b"/[a]",
            b"/a#b",
            b"/#",
        )
    ),
    *(
        refused(f"target {name}", get(target=target), *statuses)
        for name, (target, *statuses) in {
            "empty": (b"",),
            "a blank": (b" ",),
            "with a blank": (b"/a b",),
            "with a blank at its end": (b"/a ",),
            "with two blanks before": (b" /a",),
            "with a tab": (b"/a\tb",),
            "behind a tab": (b"\t/",),
            "with a byte over 0x7f": (b"/\xe9",),
            "in UTF-8": ("/é".encode(),),
            "with a no-break space": (b"/a\xa0b",),
            "with a soft hyphen": ("/a\u00adb".encode(),),
            "without a slash": (b"a",),
            "a question mark": (b"?a",),
            "a fragment": (b"#a",),
            "in authority form": (b"h:443",),
            "with a backslash first": (b"\\a",),
            "dots": (b"..",),
            "a star and more": (b"*a",),
            "a version": (b"HTTP/1.1",),
            "that is too long": (b"/" + b"a" * 9000, 414),
            "without end": (b"/" + b"a" * 70_000, 414),
        }.items()
    ),
    Entry("target *", get(target=b"*"), (Outcome((), 400), Outcome((Asked(b"GET", b"*"),)))),
    refused("request line with tabs for blanks", _line(b"GET\t/\tHTTP/1.1")),
    refused("request line with two blanks", _line(b"GET  / HTTP/1.1")),
    refused("request line with two blanks before the version", _line(b"GET /  HTTP/1.1")),
    refused("request line with a vertical tab", _line(b"GET\x0b/ HTTP/1.1")),
    refused("request line with a no-break space", _line(b"GET\xa0/ HTTP/1.1")),
    refused("request line of one word", _line(b"GET"), 400, 505),
    refused("request line of four words", _line(b"GET / HTTP/1.1 HTTP/1.1")),
    refused("request line of two versions", _line(b"GET / HTTP/1.1 / HTTP/1.0")),
]

#: All entries, by theme.
THEMES = {
    "two framings": TWO_FRAMINGS,
    "codings": CODINGS,
    "lengths": LENGTHS,
    "no length": NO_LENGTH,
    "line ends": LINE_ENDS,
    "controls": CONTROLS,
    "fields": FIELDS,
    "chunks": CHUNKS,
    "extensions": EXTENSIONS,
    "trailers": TRAILERS,
    "hosts": HOSTS,
    "methods": METHODS,
    "versions": VERSIONS,
    "protocols": PROTOCOLS,
    "expectations": EXPECTATIONS,
    "connections": CONNECTIONS,
    "upgrades": UPGRADES,
    "hops": HOPS,
    "lookalikes": LOOKALIKES,
    "pipelines": PIPELINES,
    "targets": TARGETS,
}


_FOLDED = (
    dict.fromkeys(("codings: coding folded", "lengths: length folded"), (_ABC,))
    | dict.fromkeys(
        (
            "codings: name behind a blank",
            "codings: name behind a tab",
            "lengths: a length behind a blank",
            "fields: fold that hides a length",
        ),
        (POST,),
    )
    | dict.fromkeys(
        (
            "line ends: a line with a blank only",
            "fields: fold",
            "fields: fold with a tab",
            "fields: fold of Host",
            "fields: fold at the end",
        ),
        (GET,),
    )
)
_BEHIND_CLOSE = dict.fromkeys(
    (
        "connections: close and keep-alive, and a request behind",
        "connections: keep-alive, then close, and a request behind",
        "connections: close behind a comma without a blank",
    ),
    (GET, SMUGGLED),
)
_TRAILERS = dict.fromkeys(
    (
        "chunks: bare CR at the end",
        "chunks: a request for the end",
        *(f"trailers: {entry.name}" for entry in TRAILERS if not entry.allowed[0].asked),
    ),
    (_ABC,),
)
#: Inputs that the proxy's own site refuses, and a site of Twisted's own may take: it unfolds headers, looks at the
#: first Connection header only, drops trailers whatever they are, and has other bounds. What the backend gets is
#: well-formed.
EMBEDDED: dict[str, tuple[Asked, ...]] = {
    **_FOLDED,
    **_BEHIND_CLOSE,
    **_TRAILERS,
    "fields: too many fields": (GET,),
    "targets: target that is too long": (Asked(b"GET", b"/" + b"a" * 9000),),
}
