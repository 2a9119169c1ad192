"""
Who is asking: from the connection, the request's fields and whom the configuration trusts to the client. Pure.

Whoever connects is known by its address. If that is a trusted proxy, it is believed about who connected to it, and so
on along the chain that C{X-Forwarded-For} or C{Forwarded} (RFC 7239) tells, from its right end. The client is the
first who is not trusted, or the last who is known. From one who is not trusted nothing is believed.

If both fields are there, C{X-Forwarded-For} counts, and C{Forwarded} is written anew from it, be they equal or not: a
proxy that knows only one of them passes on whatever its client says in the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address

import attrs
from twisted.web.http_headers import Headers

from .grammar import QUOTED, TOKEN, capitalized, is_authority, is_token
from .networks import Address, Trusted, parse_address

#: Links of a chain, from its right end, that are looked at and passed on. Nobody has so many proxies; a client behind
#: a trusted one could make the backend's fields several times as long as its own.
LONGEST = 50
#: Bytes of a host past which no identity is remembered: no name is so long.
HOST_LENGTH = 256
#: What is replaced, whoever the request comes from, with the letters that L{Headers} give names.
_WRITTEN = capitalized(
    (
        b"forwarded",
        b"x-forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    )
)

#: An address with a port, as some proxies write it, or an IPv6 address in brackets (RFC 7239, section 6).
_PORT = r":(?:[0-9]{1,5}|_[A-Za-z0-9._-]+)"
_NODE = re.compile(rf"\[([^\]]+)\](?:{_PORT})?|([0-9.]+){_PORT}")
_BLANKS = re.compile(rb"[ \t]*")
#: forwarded-pair (RFC 7239, section 4)
_PAIR = re.compile(rb'(%b)=(?:(%b)|"(%b)")' % (TOKEN, TOKEN, QUOTED))


@attrs.frozen
class Identity:
    """
    Who is asking.

    @ivar client: its address; empty if that is not known, as on a unix socket.
    @ivar fields: what the backend is told of it: names and values.
    @ivar believed: a trusted proxy brought the request.
    """

    client: str
    fields: tuple[tuple[bytes, bytes], ...]
    believed: bool

    def write_to(self, headers: Headers) -> None:
        """Replace what a request says of its client. Other C{X-Forwarded-*} fields stay only if they are believed."""
        names = [name for name, _ in headers.getAllRawHeaders()]
        for name in names:
            if name in _WRITTEN or (name.startswith(b"X-Forwarded") and not self.believed):
                headers.removeHeader(name)
        for name, value in self.fields:
            headers.setRawHeaders(name, [value])


def identify(peer: str | None, has_tls: bool, headers: Headers, trusted: Trusted) -> Identity:
    """
    Find out who is asking.

    @param peer: the address that the connection comes from, as Twisted says it; None on a unix socket.
    @param has_tls: the connection has TLS.
    @param headers: the request's.
    """
    address = None if peer is None else parse_address(peer)
    host = headers.getRawHeaders(b"host", [b""])[-1]
    if trusted.covers(peer):
        return _identify(_told(headers), address, has_tls, host, trusted)
    return (_stranger if len(host) < HOST_LENGTH else _stranger.__wrapped__)(address, has_tls, host)


@lru_cache(maxsize=1024)
def _stranger(address: Address | None, has_tls: bool, host: bytes) -> Identity:
    """Who is asking, where nothing that the request says of it is believed."""
    return _identify(_Story(), address, has_tls, host, None)


def _identify(
    story: _Story, address: Address | None, has_tls: bool, host: bytes, trusted: Trusted | None
) -> Identity:
    """
    Who is asking.

    @param address: the peer's.
    @param trusted: those who are; None: the peer is not, and there is no story.
    """
    chain = [*(link.address for link in story.links), address]
    asking = _who(chain, trusted) if trusted is not None else 0
    told = story.told_of(asking)
    own = {b"proto": b"https" if has_tls else b"http"}
    if is_authority(host):
        own[b"host"] = host
    known = own | told
    elements = [*(link.pairs for link in story.links), {} if address is None else {b"for": _node(address)}]
    # What the proxies say of the client's connection stands in the client's element, and what we say in ours.
    elements[asking] = {k: v for k, v in elements[asking].items() if k not in (b"proto", b"host")} | told
    elements[-1] = elements[-1] | {name: value for name, value in own.items() if name not in told}
    texts = [link.text for link in story.links] + ([] if address is None else [_text(address)])
    client = chain[asking]
    fields = {
        b"X-Forwarded-For": b", ".join(texts),
        b"X-Forwarded-Proto": known[b"proto"],
        b"X-Forwarded-Host": known.get(b"host", b""),
        b"X-Real-IP": b"" if client is None else _text(client),
        b"Forwarded": b", ".join(_element(element) for element in elements if element),
    }
    return Identity(
        "" if client is None else str(client),
        tuple((name, value) for name, value in fields.items() if value),
        trusted is not None,
    )


@attrs.frozen
class _Link:
    """
    One in the chain that a request has come along.

    @ivar address: None if it is not known, or hidden.
    @ivar text: how C{X-Forwarded-For} names it.
    @ivar pairs: what its element of C{Forwarded} says.
    """

    address: Address | None
    text: bytes
    pairs: dict[bytes, bytes]


@attrs.frozen
class _Story:
    """
    What a request's fields tell of its way.

    @ivar links: who connected to whom, the client first.
    @ivar protos: which protocol was spoken, by each of the links or by the client alone.
    @ivar hosts: which host was asked for, likewise.
    """

    links: Sequence[_Link] = ()
    protos: Sequence[bytes] = ()
    hosts: Sequence[bytes] = ()

    def told_of(self, place: int) -> dict[bytes, bytes]:
        """
        Protocol and host that a link used, where something sane was said of it.

        The last value is of the last link, and so on to the left; where proxies pass on what the first of them said,
        that is all there is.
        """
        from_the_right = max(1, len(self.links) - place)
        proto, host = (
            values[-min(from_the_right, len(values))] if values else b""
            for values in (self.protos, self.hosts)
        )
        told = {}
        if proto.lower() in (b"http", b"https"):
            told[b"proto"] = proto.lower()
        if is_authority(host):
            told[b"host"] = host
        return told


def _who(chain: Sequence[Address | None], trusted: Trusted) -> int:
    """The place of the client in a chain whose last link is trusted, or alone."""
    place = len(chain) - 1
    while place and (address := chain[place - 1]) is not None:
        place -= 1
        if not trusted.includes(address):
            break
    return place


def _told(headers: Headers) -> _Story:
    """What a trusted proxy tells."""
    protos, hosts = _listed(headers, b"x-forwarded-proto"), _listed(headers, b"x-forwarded-host")
    entries = _listed(headers, b"x-forwarded-for")
    if entries:
        return _Story([_from_entry(entry) for entry in entries], protos, hosts)
    elements = parse_forwarded(headers.getRawHeaders(b"forwarded") or ())[-LONGEST:]
    said_protos = [pairs.get(b"proto", b"") for pairs in elements]
    said_hosts = [pairs.get(b"host", b"") for pairs in elements]
    return _Story(
        [_from_element(pairs) for pairs in elements],
        said_protos if any(said_protos) else protos,
        said_hosts if any(said_hosts) else hosts,
    )


def _from_entry(entry: bytes) -> _Link:
    """A link of C{X-Forwarded-For}."""
    address = parse_node(entry)
    return _Link(address, entry, {b"for": _node(address)})


def _from_element(pairs: dict[bytes, bytes]) -> _Link:
    """A link of C{Forwarded}."""
    address = parse_node(pairs.get(b"for", b""))
    return _Link(address, b"unknown" if address is None else _text(address), pairs)


def _listed(headers: Headers, name: bytes) -> list[bytes]:
    """The last elements of a field that is a list."""
    values = headers.getRawHeaders(name) or ()
    elements = [element.strip(b" \t") for value in values for element in value.split(b",")]
    return [element for element in elements if element][-LONGEST:]


def parse_node(node: bytes) -> Address | None:
    """
    The address that a link is named by, with or without a port; None for C{unknown}, hidden names and what is neither
    (RFC 7239, section 6).
    """
    text = node.decode("ascii", "replace")
    match = _NODE.fullmatch(text)
    return parse_address(match[1] or match[2] if match else text)


def parse_forwarded(values: Iterable[bytes]) -> list[dict[bytes, bytes]]:
    """
    The elements of C{Forwarded}, each with its parameters by their names in lower case (RFC 7239, section 4).

    @return: empty if there are none, or if anything in the field is no C{Forwarded}.
    """
    elements: list[dict[bytes, bytes]] = []
    for value in values:
        pairs: dict[bytes, bytes] = {}
        end = -1
        while end < len(value):
            end = _after_blanks(value, end + 1)
            pair = _PAIR.match(value, end)
            if pair is not None:
                name, token, quoted = pair.groups()
                if name.lower() in pairs:
                    return []
                pairs[name.lower()] = token or re.sub(rb"\\(.)", rb"\1", quoted)
                end = _after_blanks(value, pair.end())
            separator = value[end : end + 1]
            if separator not in (b",", b";", b""):
                return []
            if separator != b";" and pairs:
                elements.append(pairs)
                pairs = {}
    return elements


def _after_blanks(value: bytes, start: int) -> int:
    match = _BLANKS.match(value, start)
    assert match is not None
    return match.end()


def _text(address: Address) -> bytes:
    return str(address).encode("ascii")


def _node(address: Address | None) -> bytes:
    """How C{Forwarded} names a link."""
    if address is None:
        return b"unknown"
    return b"[%b]" % _text(address) if isinstance(address, IPv6Address) else _text(address)


def _element(pairs: dict[bytes, bytes]) -> bytes:
    """An element of C{Forwarded}."""
    return b";".join(name + b"=" + _token_or_quoted(value) for name, value in pairs.items())


def _token_or_quoted(value: bytes) -> bytes:
    return value if is_token(value) else b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", value)
