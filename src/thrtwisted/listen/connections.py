"""
How many connections of clients there are, whose they are, and which has been idle for longest: pure.

Every operation takes the same time, however many connections there are.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Generic, TypeVar

from thrtwisted.errors import TooManyConnections
from thrtwisted.networks import parse_address

#: Seconds after which a client that was one too many may try again.
RETRY_AFTER = 1.0

#: Seconds in which a client that has connected can have sent something, from far away and by TLS, too.
CHANCE = 1.0

Connection = TypeVar("Connection")


class Connections(Generic[Connection]):
    """
    The connections of one process.

    One that waits for its client's next request is idle; one that has not yet sent anything is silent. Where there is
    no room for another one, the oldest of those that have been silent for longer than C{CHANCE} is closed, else the
    one that has been idle for longest, else the oldest silent one. Who connects in order to ask something does so at
    once: a crowd that only sits there pushes out itself, and not those who were served and will come back. But who has
    just connected is not closed before he could ask as long as somebody else is idle: clients know that an idle
    connection may be closed at any time, and try again.

    @param total: how many there may be; 0: any number.
    @param per_client: how many of one client; 0: any number.
    """

    def __init__(self, total: int, per_client: int) -> None:
        self._total = total
        self._per_client = per_client
        self._clients: dict[Connection, str | None] = {}
        self._counts: dict[str, int] = {}
        self._idle: dict[
            Connection, None
        ] = {}  # in the order in which they became idle, as dictionaries have it
        self._silent: dict[Connection, float] = {}  # since when, in this order

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        return (
            f"<Connections {len(self)}, idle {len(self._idle)}, silent {len(self._silent)}, {self._counts}>"
        )

    def open(self, connection: Connection, now: float) -> Connection | None:
        """
        There is one more, of nobody yet.

        @param now: seconds of a clock that does not go back.
        @return: another one that is to be closed for it and is not counted any more, None if there is room.
        @raise TooManyConnections: there is no room; it is not counted.
        """
        closed = None
        if self._total and len(self._clients) >= self._total:
            closed = self._dispensable(now)
            if closed is None:
                raise TooManyConnections(
                    "There are too many connections to this proxy.", retry_after=RETRY_AFTER
                )
            self.close(closed)
        self._clients[connection] = None
        self._silent[connection] = now
        return closed

    def belongs(self, connection: Connection, client: str) -> None:
        """
        It turns out to be of this client (L{client_of}).

        @raise TooManyConnections: the client has too many; this one is of nobody as before.
        """
        count = self._counts.get(client, 0)
        if self._per_client and count >= self._per_client:
            raise TooManyConnections("There are too many connections of yours.", retry_after=RETRY_AFTER)
        self._counts[client] = count + 1
        self._clients[connection] = client

    def _dispensable(self, now: float) -> Connection | None:
        """Which is to be closed for another one; None if all are at work."""
        silent = next(iter(self._silent), None)
        if silent is not None and now - self._silent[silent] > CHANCE:
            return silent
        return next(iter(self._idle), silent)

    def work(self, connection: Connection) -> None:
        """Its client sends a request, or is sent a response. Nothing happens if it is not counted."""
        self._idle.pop(connection, None)
        self._silent.pop(connection, None)

    def rest(self, connection: Connection) -> None:
        """It waits for the next request. Nothing happens if it is not counted."""
        if connection in self._clients:
            self._idle[connection] = None

    def close(self, connection: Connection) -> None:
        """It does not count any more. It may be said again."""
        self.work(connection)
        client = self._clients.pop(connection, None)
        if client is not None:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]


def client_of(host: str) -> str:
    """
    Whom an address stands for: an IPv4 address for itself, an IPv6 address for its first 64 bits, of which one
    household or one machine has all the rest (RFC 6177).
    """
    address = parse_address(host)
    if address is None:
        return host
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{int(address) >> 64:x}/64"
