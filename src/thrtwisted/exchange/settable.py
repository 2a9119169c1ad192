"""
What rules and functions may put into messages: pure.

Each function takes a value as people write it, and gives it as messages carry it. The messages of its errors are one
line each: what is wrong; the mend.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from thrtwisted.grammar import NAME_LENGTH, is_authority, is_token
from thrtwisted.networks import parse_address

Text = str | bytes

T = TypeVar("T")

#: What the connection decides for itself (RFC 9110, sections 7.6.1 and 8.6; RFC 9112, section 6): a second one of these
#: tells the other side another end of the message than the proxy means.
RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

#: RFC 9110, section 5.5: no control characters, and no white space at the ends.
_VALUE = re.compile(rb"(?![ \t])[^\x00-\x08\x0a-\x1f\x7f]*(?<![ \t])")
_PATH = re.compile(rb"/[\x21\x22\x24-\x3e\x40-\x7e]*")
_QUERY = re.compile(rb"[\x21\x22\x24-\x7e]*")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")


def encoded(text: Text, what: str = "this") -> bytes:
    """
    A text as the bytes of a message: UTF-8, and bytes that were none come back from C{surrogateescape}.

    @raise ValueError: it is no text.
    """
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise ValueError(f"{what} is a text, not {type(text).__name__}; make one of it")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"{what} is no Unicode; correct it") from None


def decoded(value: bytes) -> str:
    """The bytes of a message as a text, which L{encoded} makes the same bytes of."""
    return value.decode("utf-8", "surrogateescape")


def header_name(name: Text, *, distinct: bool = True) -> bytes:
    """
    The name of a header that may be set, added or taken away.

    @param distinct: of a request, whose names applications have to tell from each other.
    @raise ValueError: no header has such a name, or the proxy sets it itself.
    """
    found = encoded(name, "a header's name")
    if not is_token(found):
        raise ValueError("no header has such a name; use letters, digits and !#$%&'*+-.^_`|~ only")
    if len(found) > NAME_LENGTH:
        raise ValueError(f"no header's name is longer than {NAME_LENGTH} letters; shorten it")
    lower = found.decode("ascii").lower()
    if distinct:
        check_distinct(lower if isinstance(name, bytes) else name)
    if lower in RESERVED_HEADERS or lower.startswith("proxy-"):
        raise ValueError("this header is the connection's own, not the application's; leave it out")
    return found


def header_value(value: Text) -> bytes:
    """
    A header's value.

    @raise ValueError: no header has such a value.
    """
    found = encoded(value, "a header's value")
    if not _VALUE.fullmatch(found):
        raise ValueError(
            "no header's value starts or ends with a blank or has control characters; remove them"
        )
    return found


def header_values(values: Text | Sequence[Text]) -> list[bytes]:
    """
    The values of one header.

    @raise ValueError: one of them is none of a header.
    """
    return [header_value(value) for value in listed(values)]


def check_distinct(name: str) -> None:
    """
    See that a header of this name reaches rules, limits and applications.

    @raise ValueError: it has an underscore.
    """
    if "_" in name:
        mend = name.replace("_", "-")
        raise ValueError(
            f'a header with an underscore is dropped, for applications cannot tell it from "{mend}"; write "{mend}"'
        )


def method(value: Text) -> bytes:
    """
    A request's method.

    @raise ValueError: it is none, or cannot be forwarded.
    """
    found = encoded(value, "a method")
    if not is_token(found):
        raise ValueError('no request has such a method; write one such as "GET"')
    if found == b"CONNECT":
        raise ValueError('"CONNECT" asks for a tunnel, which is not forwarded; write another method')
    return found


def path(value: Text) -> bytes:
    """
    The path of a target.

    @raise ValueError: it is none as it stands.
    """
    found = encoded(value, "a path")
    if not _PATH.fullmatch(found):
        raise ValueError(
            'a path starts with "/" and has neither "?" nor "#" nor blanks nor other than ASCII letters; '
            "percent-encode these"
        )
    return found


def query(value: Text) -> bytes:
    """
    The query of a target.

    @raise ValueError: it is none as it stands.
    """
    found = encoded(value, "a query")
    if not _QUERY.fullmatch(found):
        raise ValueError(
            'a query has neither "#" nor blanks nor other than ASCII letters; percent-encode these'
        )
    return found


def argument(name: Text, values: Text | Sequence[Text]) -> bytes:
    """
    Arguments of one name as a query has them, percent-encoded.

    @raise ValueError: there is no name, or no text.
    """
    found = _argument_name(name)
    texts = (encoded(value, "a query argument") for value in listed(values))
    return b"&".join(b"%b=%b" % (_quoted(found), _quoted(text)) for text in texts)


def _argument_name(name: Text) -> bytes:
    found = encoded(name, "a query argument's name")
    if not found:
        raise ValueError("a query argument has a name; write one")
    return found


def argument_name(pair: bytes) -> bytes:
    """The name of an argument of a query, decoded."""
    return unquoted(pair.partition(b"=")[0])


def unquoted(part: bytes) -> bytes:
    """A name or a value of a query, decoded as forms encode them."""
    return unquote_to_bytes(part.replace(b"+", b" "))


def _quoted(part: bytes) -> bytes:
    return quote_from_bytes(part, safe="").encode("ascii")


def host(value: Text) -> bytes:
    """
    What the Host header says.

    @raise ValueError: it names no host.
    """
    found = encoded(value, "a host")
    if not is_authority(found):
        raise ValueError('this names no host; write one such as "example.org" or "example.org:8080"')
    return found


def address(value: Text) -> str:
    """
    A client's address.

    @raise ValueError: it is none.
    """
    found = decoded(encoded(value, "an address"))
    if parse_address(found) is None:
        raise ValueError('this is no address; write one such as "192.0.2.1" or "2001:db8::1"')
    return found


def status(value: Any) -> int:
    """
    The status of an answer.

    @raise ValueError: it is none of a final answer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 599:
        raise ValueError(f"a status is a whole number from 200 to 599, not {value!r:.100}; correct it")
    return int(value)


def priority(value: Any) -> int:
    """
    The nearest priority to a number, or to a text that is one.

    @raise ValueError: it is no number.
    """
    found = nearest_priority(value) if isinstance(value, (str, bytes)) else value
    if not isinstance(found, (int, float)) or isinstance(found, bool) or found != found:
        raise ValueError(
            f"a priority is a number from 1 (best) to 99 (worst), not {value!r:.100}; correct it"
        )
    return round(min(99, max(1, found)))


def nearest_priority(text: Text) -> int | None:
    """The nearest priority to what a text says; None if it is no number."""
    found = decoded(encoded(text)).strip()
    if not _NUMBER.fullmatch(found):
        return None
    return round(min(99.0, max(1.0, float(found))))


def listed(values: Any) -> list[Text]:
    """One text, or several."""
    return list(values) if isinstance(values, (list, tuple)) else [values]


def pairs(value: Any, what: str) -> list[tuple[Any, Any]]:
    """
    Names and their values, of a pair, of a list of pairs or of a table.

    @raise ValueError: it is none of these.
    """
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        if all(isinstance(each, (tuple, list)) and len(each) == 2 for each in value):
            return [(name, each) for name, each in value]
        if len(value) == 2:
            return [(value[0], value[1])]
    raise ValueError(
        f"{what} is given as a pair, such as (name, value), as a list of pairs, or as a table; write one"
    )


def merged(
    named: Iterable[tuple[bytes, list[T]]], *, ignore_case: bool = False
) -> list[tuple[bytes, list[T]]]:
    """Names, each once and with all its values: who names one twice means both."""
    found: dict[bytes, tuple[bytes, list[T]]] = {}
    for name, values in named:
        found.setdefault(name.lower() if ignore_case else name, (name, []))[1].extend(values)
    return list(found.values())


def fields(value: Any, *, distinct: bool = True) -> list[tuple[bytes, list[bytes]]]:
    """
    Header fields.

    @param distinct: as L{header_name}.
    @raise ValueError: no message has such ones.
    """
    return [
        (header_name(name, distinct=distinct), header_values(texts))
        for name, texts in pairs(value, "a header")
    ]


def arguments(value: Any) -> list[tuple[bytes, list[bytes]]]:
    """
    Names and values of arguments of a query.

    @raise ValueError: no query has such ones.
    """
    return [
        (_argument_name(name), [encoded(text, "a query argument") for text in listed(texts)])
        for name, texts in pairs(value, "a query argument")
    ]
