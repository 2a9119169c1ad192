"""
Where Redis is, from a URL: pure text in, an address out.

Messages never show the URL that was given: the password is in it.
"""

from __future__ import annotations

import os
import sys
from typing import Literal, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import attrs

#: Bytes of a unix socket's path, without the final NUL of the kernel's structure (unix(7) of Linux; the BSDs').
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103

#: The port of Redis where a URL names none (the IANA's registration).
DEFAULT_PORT = 6379

_FORMS = "write embedded:, redis://[user:password@]host[:port][/database] or unix:///path"
_ESCAPES = "in a user or password write / as %2F, @ as %40, : as %3A, # as %23, ? as %3F and % as %25"


@attrs.frozen
class RedisAddress:
    """
    Where a Redis server listens, and who we are to it.

    @ivar kind: C{embedded} (a server of the proxy's own, which has no address yet), C{tcp} or C{unix}.
    @ivar host: of C{tcp}: a name or an IP address, without brackets.
    @ivar port: of C{tcp}.
    @ivar path: of C{unix}: the socket.
    @ivar username: for AUTH; None to send the password alone.
    @ivar password: for AUTH; None to send no AUTH.
    @ivar database: for SELECT.
    """

    kind: Literal["embedded", "tcp", "unix"]
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    database: int = 0

    def masked(self) -> str:
        """The URL, its password replaced by stars."""
        if self.kind == "embedded":
            return "embedded:"
        user = "" if self.password is None else f"{quote(self.username or '', safe='')}:***@"
        if self.kind == "unix":
            return f"unix://{user}{quote(self.path)}" + (f"?db={self.database}" if self.database else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis://{user}{host}:{self.port}/{self.database}"

    __str__ = masked


def parse(url: str) -> RedisAddress:
    """
    The address that a URL names.

    @raise ValueError: it names none; the message is one line, with the mend.
    """
    if url == "embedded:":
        return RedisAddress("embedded")
    scheme, separator, _ = url.partition(":")
    if separator and scheme in ("rediss", "sentinel"):
        _refuse(f"{scheme}:// is not in this version", "use embedded:, redis:// or unix://")
    if not url.startswith(("redis://", "unix://")):
        _refuse("not the URL of a Redis server", _FORMS)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number, or unbalanced brackets
        _refuse("the host or the port is malformed", f"the port is a number up to 65535; {_ESCAPES}")
    if parts.fragment:
        _refuse("a URL of Redis has no #", _ESCAPES)
    username, password = _credentials(parts.username, parts.password)
    if parts.scheme == "unix":
        if parts.netloc.rpartition("@")[2]:
            _refuse("unix:// has no host", "write three slashes: unix:///run/redis.sock")
        if len(parts.path) < 2:
            _refuse("unix:// lacks the socket's path", "write unix:///run/redis.sock")
        path = unquote(parts.path)
        check_socket_path(path)
        return RedisAddress(
            "unix",
            path=path,
            username=username,
            password=password,
            database=_database_of_query(parts.query),
        )
    if not parts.hostname:
        _refuse("redis:// lacks the host", "write redis://host[:port][/database]")
    if port == 0:
        _refuse("port 0 is not a port to connect to", f"leave it out for {DEFAULT_PORT}")
    if parts.query:
        _refuse("redis:// takes no ?", f"write the database as redis://host/1; {_ESCAPES}")
    database = parts.path.removeprefix("/")
    return RedisAddress(
        "tcp",
        host=parts.hostname,
        port=port or DEFAULT_PORT,
        username=username,
        password=password,
        database=_database(database) if database else 0,
    )


def check_socket_path(path: str) -> None:
    """
    See that a unix socket can have this path.

    @raise ValueError: it is too long; the message is one line, with the mend.
    """
    length = len(os.fsencode(path))
    if length > LONGEST_SOCKET_PATH:
        raise ValueError(
            f"the socket's path has {length} bytes, and a unix socket's {LONGEST_SOCKET_PATH} at most; "
            "put it into a directory with a shorter name"
        )


def _credentials(username: str | None, password: str | None) -> tuple[str | None, str | None]:
    """The user and the password, decoded."""
    if username and not password:
        _refuse("a user without a password", "write user:password@, or :password@ for a password alone")
    return unquote(username) if username else None, unquote(password) if password else None


def _database_of_query(query: str) -> int:
    """The database of a query that may say C{db=N}, and nothing else."""
    if not query:
        return 0
    arguments = parse_qsl(query, keep_blank_values=True)
    if [name for name, _ in arguments] != ["db"]:
        _refuse("unix:// takes nothing but ?db=NUMBER", _ESCAPES)
    return _database(arguments[0][1])


def _database(text: str) -> int:
    """The number of a database."""
    if not (text.isascii() and text.isdigit()):
        _refuse("the database is not a number", f"write redis://host/0 or unix:///path?db=0; {_ESCAPES}")
    return int(text)


def _refuse(problem: str, mend: str) -> NoReturn:
    raise ValueError(f"{problem}; {mend}") from None
