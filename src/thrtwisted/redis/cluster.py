"""
Redis Cluster: the node that has the slot of our namespace.

All keys of a namespace have one hash tag, hence one slot, and one node has it: the cluster's nodes say which. A node
that lost the slot says where it went (MOVED), and that is followed at once.

While a slot is on its way from one node to another its keys are on both, and the one that had it says ASK for each key
that it lacks. That is B{not} followed: the gate's script works on keys that are not declared, which only a whole slot
has; at the other node it would run on a part of the state, and admit too many. The script's one declared key is the
bare namespace, which never exists; so the node says ASK before the script has begun, and not in its middle. The slot is
not usable then, until its move has ended and the node says MOVED.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Generator
from typing import Any

import txredisapi
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from zope.interface import implementer

from thrtwisted.tls import Security

from . import ISource
from .connection import Dialer
from .trouble import NobodyAnswers
from .url import ClusterAddress, RedisAddress

#: Slots of a cluster (the cluster specification).
SLOTS = 16384

_MOVED = re.compile(r"MOVED \d+ (?P<host>.*):(?P<port>\d+)")


def slot_of(key: bytes) -> int:
    """The slot of a key: of its hash tag, if it has one."""
    tag = re.match(rb"[^{]*\{([^}]+)\}", key)
    return binascii.crc_hqx(tag[1] if tag else key, 0) % SLOTS


def moved_to(problem: Exception, asked: RedisAddress) -> RedisAddress | None:
    """Where the slot is, if that is what a server says; no host means that of the server that was asked."""
    match = _MOVED.match(str(problem)) if isinstance(problem, txredisapi.ResponseError) else None
    if match is None or match["host"] == "?":  # a node that does not know its own name: others may
        return None
    try:
        return asked.at(match["host"] or asked.host or "localhost", int(match["port"]))
    except ValueError:
        return None


def is_on_its_way(problem: Exception) -> bool:
    """Whether the slot is being moved to another node, as a server says."""
    # It says the latter to a command with several keys, some of which have moved already.
    return isinstance(problem, txredisapi.ResponseError) and str(problem).startswith(("ASK ", "TRYAGAIN"))


@implementer(ISource)
class ClusterSource:
    """
    Asks the nodes that it knows, and learns the others from them: so it outlives those that the URL names.

    @param address: the nodes to begin with.
    @param security: see L{ISource}.
    """

    def __init__(self, address: ClusterAddress, security: Security | None = None) -> None:
        self.security = security
        self._address = address
        self._nodes = list(address.nodes)

    @inlineCallbacks
    def locate(self, slot: int, dialer: Dialer) -> Generator[Any, Any, RedisAddress]:
        """See L{ISource.locate}."""
        problems: list[tuple[RedisAddress, Exception]] = []
        for node in list(self._nodes):
            try:
                answer = yield dialer.ask(node, "CLUSTER", "SLOTS")
                nodes, master = _read(answer, node, slot)
            except CancelledError:
                raise
            except Exception as problem:
                problems.append((node, problem))
                continue
            # Who has answered is asked first the next time; those that the URL names may have come back under a name.
            self._nodes = [node]
            self._nodes += [other for other in (*nodes, *self._address.nodes) if other not in self._nodes]
            if master is not None:
                return master
            problems.append((node, txredisapi.ResponseError("CLUSTERDOWN Hash slot not served")))
        raise NobodyAnswers("no node of the cluster says who has the namespace", problems)

    def watch(self, address: RedisAddress, slot: int, dialer: Dialer) -> Deferred[None]:
        """See L{ISource.watch}. A node that loses the slot says so."""
        return Deferred()

    def doubt(self) -> None:
        """See L{ISource.doubt}."""
        self._nodes.append(self._nodes.pop(0))

    def follow(self, node: RedisAddress) -> None:
        """A node has said that this one has the slot: it is asked first, and so tells of the others too."""
        self._nodes = [node, *(other for other in self._nodes if other != node)]

    def describe(self, address: RedisAddress | None) -> str:
        """See L{ISource.describe}."""
        cluster = self._address.masked()
        return cluster if address is None else f"{address.place} (in the cluster {cluster})"


def _read(
    answer: list[Any], asked: RedisAddress, slot: int
) -> tuple[list[RedisAddress], RedisAddress | None]:
    """All nodes in the answer to CLUSTER SLOTS, and the one that has the slot, if any."""
    nodes: list[RedisAddress] = []
    found = None
    for first, last, *members in answer:
        members = [_node(member, asked) for member in members]
        if first <= slot <= last:
            found = members[0]
        nodes += members
    return nodes, found


def _node(member: list[Any], asked: RedisAddress) -> RedisAddress:
    host, port = member[0], member[1]
    if host == b"?":  # it should have a name, and has none; the address stands in what follows
        more = member[3] if len(member) > 3 else []
        host = dict(zip(more[::2], more[1::2], strict=False)).get(b"ip")
    return asked.at(host.decode() if host else asked.host or "localhost", port)
