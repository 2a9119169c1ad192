"""
Where Redis is, from a URL: pure text in, addresses out.

Messages never show the URL that was given: the password is in it.
"""

from __future__ import annotations

import os
import re
import sys
from typing import ClassVar, Literal, NoReturn
from urllib.parse import quote, unquote

import attrs
from twisted.internet.abstract import isIPv6Address

#: Bytes of a unix socket's path, without the final NUL of the kernel's structure (unix(7) of Linux; the BSDs').
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103

#: The ports of Redis and of its Sentinel where a URL names none (the IANA's registration; Sentinel's own default).
DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379

LAST_PORT = 65535

#: Bytes of a host's name, without the dot of the root (RFC 1035, section 2.3.4: 255, with the lengths of the labels).
LONGEST_NAME = 253

#: Digits of the numbers that a URL may hold, zeros in front not counted: beyond, they are neither port nor database.
MOST_DIGITS = 9

_FORMS = (
    "write embedded:, redis://[user:password@]host[:port][/database] (or rediss:// with TLS), unix:///path, "
    "or sentinel://host[:port],host[:port]/service"
)
_ESCAPES = (
    "in a user or password write / as %2F, @ as %40, : as %3A, # as %23, ? as %3F, & as %26 and % as %25"
)

# RFC 3986, appendix B. urlsplit() refuses several hosts, and drops tabs and the ends of lines without a word.
_PARTS = re.compile(r"(?P<scheme>[a-z]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?")
_HOST = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@\s]+))(?::(?P<port>[0-9]*))?")

_SENTINEL_OPTIONS = ("db", "tls", "sentinel_user", "sentinel_password", "sentinel_tls")


@attrs.frozen
class RedisAddress:
    """
    Where one server listens, and who we are to it.

    @ivar kind: C{embedded} (a server of the proxy's own, which has no address yet), C{tcp} or C{unix}.
    @ivar host: of C{tcp}: a name or an IP address, without brackets.
    @ivar port: of C{tcp}.
    @ivar path: of C{unix}: the socket.
    @ivar username: for AUTH; None to send the password alone.
    @ivar password: for AUTH; None to send no AUTH.
    @ivar database: for SELECT.
    @ivar tls: of C{tcp}: whether to speak TLS, and to verify that it is this host.
    """

    kind: Literal["embedded", "tcp", "unix"]
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    database: int = 0
    tls: bool = False

    @property
    def place(self) -> str:
        """C{host:port} or the socket's path."""
        if self.kind != "tcp":
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def has_tls(self) -> bool:
        """Whether any connection is with TLS."""
        return self.tls

    def at(self, host: str, port: int) -> RedisAddress:
        """
        Another server, to which we are the same.

        @raise ValueError: no server can be there.
        """
        if not (_is_host(host) and 0 < port <= LAST_PORT):
            raise ValueError(f"no server can be at {host}:{port}")
        return attrs.evolve(self, kind="tcp", host=host, port=port, path="")

    def masked(self) -> str:
        """The URL, its password replaced by stars."""
        if self.kind == "embedded":
            return "embedded:"
        if self.kind == "unix":
            return f"unix://{_user(self)}{quote(self.path)}" + (
                f"?db={self.database}" if self.database else ""
            )
        return ClusterAddress((self,)).masked()

    __str__ = masked


@attrs.frozen
class ClusterAddress:
    """
    Some nodes of a Redis Cluster, which know the others.

    @ivar nodes: addresses of kind C{tcp} that differ in nothing but host and port.
    """

    kind: ClassVar[Literal["cluster"]] = "cluster"
    nodes: tuple[RedisAddress, ...]

    @property
    def has_tls(self) -> bool:
        """Whether any connection is with TLS."""
        return self.nodes[0].tls

    def masked(self) -> str:
        """The URL, its password replaced by stars."""
        first = self.nodes[0]
        places = ",".join(node.place for node in self.nodes)
        return f"{'rediss' if first.tls else 'redis'}://{_user(first)}{places}/{first.database}"

    __str__ = masked


@attrs.frozen
class SentinelAddress:
    """
    The sentinels that know which server of a service is the master.

    @ivar sentinels: addresses of kind C{tcp}.
    @ivar service: the name that the sentinels have for it.
    @ivar server: what we are to the master: its host and port mean nothing.
    """

    kind: ClassVar[Literal["sentinel"]] = "sentinel"
    sentinels: tuple[RedisAddress, ...]
    service: str
    server: RedisAddress

    @property
    def has_tls(self) -> bool:
        """Whether any connection is with TLS."""
        return self.server.tls or self.sentinels[0].tls

    def masked(self) -> str:
        """The URL, its passwords replaced by stars."""
        first = self.sentinels[0]
        options = {
            "db": self.server.database or None,
            "tls": "true" if self.server.tls else None,
            "sentinel_user": first.username and quote(first.username, safe=""),
            "sentinel_password": first.password and "***",
            "sentinel_tls": "true" if first.tls else None,
        }
        query = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
        places = ",".join(sentinel.place for sentinel in self.sentinels)
        service = quote(self.service, safe="")
        return f"sentinel://{_user(self.server)}{places}/{service}" + (f"?{query}" if query else "")

    __str__ = masked


#: What a URL may mean.
Where = RedisAddress | ClusterAddress | SentinelAddress


def parse(url: str) -> Where:
    """
    What a URL means.

    @raise ValueError: nothing; the message is one line, with the mend.
    """
    if url == "embedded:":
        return RedisAddress("embedded")
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        _refuse("a URL has no blanks", _ESCAPES)
    if re.search(r"[\ud800-\udfff]", url):
        _refuse("the URL is not UTF-8", "correct it, or write its other bytes as %XX, in UTF-8")
    if not url.startswith(("redis://", "rediss://", "unix://", "sentinel://")):
        _refuse("not the URL of a Redis server", _FORMS)
    if "#" in url:
        _refuse("a URL of Redis has no #", _ESCAPES)
    parts = _PARTS.fullmatch(url)
    assert parts is not None
    scheme, path, query = parts["scheme"], parts["path"], (parts["query"] or "").removeprefix("?")
    user, _, hosts = parts["authority"].rpartition("@")
    username, password = _credentials(*user.partition(":")[::2])
    server = RedisAddress("tcp", username=username, password=password)
    if scheme == "unix":
        return _unix(server, hosts, path, query)
    if scheme == "sentinel":
        return _sentinel(server, hosts, path, query)
    return _servers(attrs.evolve(server, tls=scheme == "rediss"), hosts, path, query)


def _unix(server: RedisAddress, hosts: str, path: str, query: str) -> RedisAddress:
    if hosts:
        _refuse("unix:// has no host", "write three slashes: unix:///run/redis.sock")
    if len(path) < 2:
        _refuse("unix:// lacks the socket's path", "write unix:///run/redis.sock")
    path = _decoded(path)
    check_socket_path(path)
    options = _options(query, ("db",), "unix:// takes nothing but ?db=NUMBER")
    return attrs.evolve(server, kind="unix", path=path, database=_database(options.get("db", "0")))


def _servers(server: RedisAddress, hosts: str, path: str, query: str) -> RedisAddress | ClusterAddress:
    scheme = "rediss" if server.tls else "redis"
    if not hosts:
        _refuse(f"{scheme}:// lacks the host", f"write {scheme}://host[:port][/database]")
    if query:
        _refuse(f"{scheme}:// takes no ?", f"write the database as {scheme}://host/1; {_ESCAPES}")
    places = _hosts(hosts, DEFAULT_PORT)
    server = attrs.evolve(server, database=_database(path.removeprefix("/") or "0"))
    nodes = tuple(server.at(host, port) for host, port in places)
    return nodes[0] if len(nodes) == 1 else ClusterAddress(nodes)


def _sentinel(server: RedisAddress, hosts: str, path: str, query: str) -> SentinelAddress:
    form = "write sentinel://host[:port],host[:port]/service"
    if not hosts:
        _refuse("sentinel:// lacks the hosts", form)
    service = path.removeprefix("/")
    if not service:
        _refuse("sentinel:// lacks the service's name", form)
    if "/" in service:
        _refuse("sentinel:// has one name after the hosts", f"{form}, and the database as ?db=1; {_ESCAPES}")
    known = ", ".join(_SENTINEL_OPTIONS)
    options = _options(query, _SENTINEL_OPTIONS, f"sentinel:// takes nothing but {known} after the ?")
    username, password = _credentials(
        options.get("sentinel_user", ""),
        options.get("sentinel_password", ""),
        "add sentinel_password=PASSWORD, or leave sentinel_user out for a password alone",
    )
    sentinel = RedisAddress(
        "tcp", username=username, password=password, tls=_boolean(options.get("sentinel_tls", "false"))
    )
    return SentinelAddress(
        tuple(sentinel.at(host, port) for host, port in _hosts(hosts, DEFAULT_SENTINEL_PORT)),
        _decoded(service),
        attrs.evolve(
            server,
            database=_database(options.get("db", "0")),
            tls=_boolean(options.get("tls", "false")),
        ),
    )


def check_socket_path(path: str) -> None:
    """
    See that a unix socket can have this path.

    @raise ValueError: it is too long, or has a NUL; the message is one line, with the mend.
    """
    if "\0" in path:
        raise ValueError("the socket's path has a NUL; write a path without")
    length = len(os.fsencode(path))
    if length > LONGEST_SOCKET_PATH:
        raise ValueError(
            f"the socket's path has {length} bytes, and a unix socket's {LONGEST_SOCKET_PATH} at most; "
            "put it into a directory with a shorter name"
        )


def _user(server: RedisAddress) -> str:
    """What stands before the host, its password replaced by stars."""
    return "" if server.password is None else f"{quote(server.username or '', safe='')}:***@"


def _credentials(
    username: str, password: str, mend: str = "write user:password@, or :password@ for a password alone"
) -> tuple[str | None, str | None]:
    """The user and the password, decoded."""
    if username and not password:
        _refuse("a user without a password", mend)
    return _decoded(username) if username else None, _decoded(password) if password else None


def _decoded(text: str) -> str:
    """The text that is meant."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        _refuse("a %XX in the URL is not UTF-8", f"é is %C3%A9; {_ESCAPES}")


def _number(digits: str) -> int | None:
    """What digits say, if it is not far too much; Python refuses to read thousands of them."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= MOST_DIGITS else None


def _is_host(text: str) -> bool:
    """Whether a host may be called so: an IP address, or a name that is not too long, nor a label of it, or empty."""
    if ":" in text:
        return isIPv6Address(text)
    try:
        length = len(text.removesuffix(".").encode("idna"))
        return 0 < length <= LONGEST_NAME and re.fullmatch(r"[\w.-]+", text) is not None
    except UnicodeError:
        return False


def _hosts(text: str, default_port: int) -> list[tuple[str, int]]:
    """The hosts and ports of a list with commas."""
    found = []
    for part in text.split(","):
        match = _HOST.fullmatch(part)
        port = _number(match["port"] or str(default_port)) if match is not None else None
        if match is None or port is None or port > LAST_PORT:
            _refuse(
                "the host or the port is malformed", f"the port is a number up to {LAST_PORT}; {_ESCAPES}"
            )
        if port == 0:
            _refuse("port 0 is not a port to connect to", f"leave it out for {default_port}")
        host = match["literal"] or _decoded(match["name"])
        if not _is_host(host) or (match["literal"] and ":" not in host):
            _refuse("the host is neither a name nor an IP address", "write host, 10.0.0.1 or [::1]")
        found.append((host.lower(), port))
    return found


def _options(query: str, known: tuple[str, ...], problem: str) -> dict[str, str]:
    """What a query says, each thing once. A + is a plus: passwords have them."""
    options: dict[str, str] = {}
    for argument in query.split("&") if query else ():
        name, _, value = argument.partition("=")
        if name not in known or name in options:
            _refuse(problem, f"each of it once; {_ESCAPES}")
        options[name] = value
    return options


def _database(text: str) -> int:
    """The number of a database."""
    if not (text.isascii() and text.isdigit()):
        _refuse(
            "the database is not a number",
            f"write redis://host/0, unix:///path?db=0 or sentinel://host/service?db=0; {_ESCAPES}",
        )
    number = _number(text)
    if number is None:
        _refuse("the database's number is too large", "servers have 0 to 15, unless told otherwise")
    return number


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        _refuse("tls is neither true nor false", "write ?tls=true, or leave it out")
    return text == "true"


def _refuse(problem: str, mend: str) -> NoReturn:
    raise ValueError(f"{problem}; {mend}") from None
