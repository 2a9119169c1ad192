"""
Why Redis is not usable, in words for whoever has to mend it: from what a server, a network or TLS says to one line with
the mend. No password ever gets here, see L{thrtwisted.redis.connection}.
"""

from __future__ import annotations

import re
from errno import EACCES, ENOENT

import attrs
import txredisapi
from twisted.internet import error
from twisted.internet.defer import TimeoutError

from thrtwisted.tls import complaint, shown

from .url import RedisAddress


@attrs.frozen
class Trouble:
    """
    Why a server is not usable.

    @ivar what: a sentence's end, as in "Redis is not usable: WHAT".
    @ivar mend: what to do about it.
    @ivar passes: whether it may well pass by itself, soon: then it is tried often.
    """

    what: str
    mend: str
    passes: bool = False

    @property
    def line(self) -> str:
        """Both."""
        return f"{self.what}; {self.mend}"


class NobodyAnswers(Exception):
    """
    Of several servers that could say where to go, none did.

    @ivar problems: what was wrong with each.
    """

    def __init__(self, what: str, problems: list[tuple[RedisAddress, Exception]]) -> None:
        super().__init__(what)
        self.problems = problems


class UnknownService(Exception):
    """A sentinel does not know the service of this name."""


class Replaced(Exception):
    """Another server has our keys now, as others say."""


class Lost(Exception):
    """A connection that stood was lost."""


class TooSlow(Exception):
    """A server did not answer in time."""


class TooSlowHere(Exception):
    """A server that answers others did not answer in time to what was written to it."""


_RIGHTS = "give the user in redis.url the rights that docs/redis.md names"
_MOVES = "it goes on by itself when that is over"
_OLD = "use Valkey, or Redis 5 or newer"

# What a server says, and what that means. The first that is found counts; {0} is what stands in the parentheses.
_SAID: list[tuple[str, Trouble]] = [
    # Who we are
    (
        r"WRONGPASS|invalid password|invalid username-password",
        Trouble("the user or the password is wrong", "correct redis.url, or the user on the server"),
    ),
    (r"NOAUTH", Trouble("it wants a password", "put user:password@ before the host in redis.url")),
    (
        r"without any password configured|no password is set",
        Trouble(
            "it has no password, and was given one", "leave it out of redis.url, or set one on the server"
        ),
    ),
    (
        r"wrong number of arguments for 'auth'",
        Trouble(
            "it knows no users, for it is older than Redis 6",
            "write :password@ without the user in redis.url",
        ),
    ),
    (
        r"DENIED .*protected mode",
        Trouble("it is in protected mode, which lets only its own host in", "set a password on the server"),
    ),
    # What we may do
    (
        r"(?:NOPERM|ACL failure).*(?:run the) '([^']*)' command",
        Trouble("its user may not run the command {0}", _RIGHTS),
    ),
    (
        r"(?:NOPERM|ACL failure|user executing the script).*\bkeys?\b",
        Trouble("its user may not use the keys of the namespace", _RIGHTS),
    ),
    (
        r"(?:NOPERM|ACL failure|user executing the script).*\bchannels?\b",
        Trouble("its user may not use the channels of the namespace", _RIGHTS),
    ),
    (
        r"NOPERM|ACL failure|user executing the script",
        Trouble("its user may not run a command that the gate needs", _RIGHTS),
    ),
    (
        r"DB index is out of range|invalid DB index|SELECT is not allowed",
        Trouble("it has no database of this number", "correct redis.url; a cluster has none but 0"),
    ),
    # What it is
    (
        r"Write commands not allowed after non deterministic",
        Trouble("it is too old: Redis before 5 cannot run the gate's script", _OLD),
    ),
    (
        r"unknown command .?SENTINEL",
        Trouble(
            "it is no Sentinel", "name the ports of sentinels, often 26379, or write redis:// for a server"
        ),
    ),
    (
        r"cluster support disabled|unknown command .?CLUSTER",
        Trouble("it is no node of a cluster", "name only one server in redis.url"),
    ),
    (
        r"unknown command .?(\w+)",
        Trouble(
            "it does not know the command {0}: it is a Sentinel, or too old, or the command was renamed",
            f"write sentinel:// for a Sentinel; otherwise {_OLD}, with that command under its name",
        ),
    ),
    (
        r"READONLY",
        Trouble(
            "it is a read-only replica", "name the master in redis.url, or let sentinel:// find it", True
        ),
    ),
    # How it is
    (
        r"\bOOM\b",
        Trouble(
            "it is out of memory, and refuses to write",
            "raise its maxmemory, and leave its maxmemory-policy at noeviction",
        ),
    ),
    (
        r"MISCONF",
        Trouble(
            "it cannot save to disk, and so refuses to write",
            "mend what its own log says, or set its stop-writes-on-bgsave-error to no",
        ),
    ),
    (
        r"NOREPLICAS",
        Trouble(
            "it has fewer replicas than it needs to write",
            "start them, or lower its min-replicas-to-write",
            True,
        ),
    ),
    (
        r"max number of clients",
        Trouble("it has as many connections as it may", "raise its maxclients, or close some"),
    ),
    (r"LOADING", Trouble("it is loading its data from disk", _MOVES, True)),
    (
        r"\bBUSY\b",
        Trouble(
            "it is busy with a script", "wait, or end the script of another program with SCRIPT KILL", True
        ),
    ),
    (r"MASTERDOWN", Trouble("it is a replica whose master is away", "start the master, or promote it", True)),
    (
        r"CLUSTERDOWN Hash slot not served",
        Trouble("no node of the cluster has the slot of the namespace", "give the slot to a node", True),
    ),
    (r"CLUSTERDOWN", Trouble("its cluster is down", "see CLUSTER NODES for what is missing", True)),
    (r"ASK \d|TRYAGAIN", Trouble("the slot of the namespace is on its way to another node", _MOVES, True)),
    (
        r"MOVED \d",
        Trouble(
            "nodes of its cluster disagree on who has the slot of the namespace", "see CLUSTER NODES", True
        ),
    ),
    (
        r"WRONGTYPE",
        Trouble("another program uses keys of the namespace", "choose another redis.namespace, or database"),
    ),
]

# What a network says.
_NETWORK: list[tuple[type[Exception] | tuple[type[Exception], ...], Trouble]] = [
    (Lost, Trouble("the connection was lost", "it is made anew", True)),
    (Replaced, Trouble("the sentinels disagree on who is the master", "see SENTINEL MASTERS on each", True)),
    (TooSlow, Trouble("it does not answer in time", "the connection is made anew", True)),
    (
        TooSlowHere,
        Trouble(
            "it does not answer in time to what is written there",
            "the connection is made anew; if the line to it is slow, make redis.timeout longer",
            True,
        ),
    ),
    (
        error.ConnectionRefusedError,
        Trouble("nobody listens there", "start the server, or correct redis.url", True),
    ),
    (
        error.DNSLookupError,
        Trouble("there is no host of this name", "correct redis.url, or the name service", True),
    ),
    (
        error.NoRouteError,
        Trouble("there is no way to its network", "correct redis.url, or the network", True),
    ),
    (
        (error.TimeoutError, TimeoutError),
        Trouble(
            "it does not answer",
            "see that it runs, that no firewall is between, and that redis.url says rediss:// only if it has TLS there",
            True,
        ),
    ),
    (
        (error.ConnectionDone, error.ConnectionLost),
        Trouble(
            "it closes the connection before it answers",
            "see its log, and whether it wants TLS at this port: then write rediss://",
            True,
        ),
    ),
]

_SOCKET = {
    ENOENT: Trouble("there is no such socket", "start the server, or correct redis.url", True),
    EACCES: Trouble(
        "this user may not open the socket", "give it the right, as with the server's unixsocketperm"
    ),
}


def trouble_of(problem: Exception) -> Trouble:
    """What is wrong, and how to mend it."""
    if isinstance(problem, txredisapi.ResponseError):
        return _said(str(problem))
    if isinstance(problem, NobodyAnswers):
        return _nobody(problem)
    if isinstance(problem, UnknownService):
        return Trouble(f"it knows no service {shown(problem)}", "write the name as in sentinel monitor NAME")
    words = complaint(problem, "redis", "redis")
    if words is not None:
        return Trouble(*words)
    for kinds, trouble in _NETWORK:
        if isinstance(problem, kinds):
            return trouble
    if isinstance(problem, error.ConnectError):
        default = Trouble(
            f"it cannot be reached ({shown(problem)})", "correct redis.url, or the network", True
        )
        return _SOCKET.get(problem.osError, default)
    return Trouble(
        f"its answer cannot be read ({shown(problem) or type(problem).__name__})",
        "see that this is a Redis, and that all proxies are of one version",
    )


def _said(text: str) -> Trouble:
    for pattern, trouble in _SAID:
        match = re.search(pattern, text)
        if match is not None:
            return attrs.evolve(
                trouble, what=trouble.what.format(*(group.upper() for group in match.groups()))
            )
    return Trouble(f"it says {shown(text) or 'nothing but no'}", "see its documentation, and docs/redis.md")


def _nobody(problem: NobodyAnswers) -> Trouble:
    """
    What is wrong with each, always in one order, whoever was asked first; the mend of what will not pass, if there is
    such a thing.
    """
    troubles = {address.place: trouble_of(each) for address, each in problem.problems}
    places = sorted(troubles)
    lasting = [place for place in places if not troubles[place].passes]
    each = ", ".join(f"{place}: {troubles[place].what}" for place in places)
    return Trouble(f"{problem} ({each})", troubles[(lasting or places)[0]].mend, passes=not lasting)
