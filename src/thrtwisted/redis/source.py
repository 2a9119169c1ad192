"""
Which server has our keys now: the one that a URL names, or the one that others say.
"""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from thrtwisted.tls import Security

from . import ISource
from .cluster import ClusterSource
from .connection import Dialer
from .sentinel import SentinelSource
from .url import ClusterAddress, RedisAddress, SentinelAddress, Where, parse


@implementer(ISource)
@attrs.frozen
class FixedSource:
    """One server, which the URL names."""

    address: RedisAddress
    security: Security | None = None

    def locate(self, slot: int, dialer: Dialer) -> Deferred[RedisAddress]:
        """See L{ISource.locate}."""
        return succeed(self.address)

    def watch(self, address: RedisAddress, slot: int, dialer: Dialer) -> Deferred[None]:
        """See L{ISource.watch}. It is as the URL says."""
        return Deferred()

    def doubt(self) -> None:
        """See L{ISource.doubt}."""

    def describe(self, address: RedisAddress | None) -> str:
        """See L{ISource.describe}."""
        return self.address.masked()


def source_of(where: Where | str, ca: str | None = None, certificate: str | None = None) -> ISource:
    """
    The source for a URL, or for what it means.

    @param ca: see L{Security}, as C{certificate}.
    @raise ValueError: the URL names no server, or a file cannot be used.
    """
    if isinstance(where, str):
        where = parse(where)
    security = Security(ca, certificate) if where.has_tls else None
    if isinstance(where, SentinelAddress):
        return SentinelSource(where, security)
    if isinstance(where, ClusterAddress):
        return ClusterSource(where, security)
    if where.kind == "embedded":
        raise ValueError("embedded: is a server that only a proxy starts; name one with redis:// or unix://")
    return FixedSource(where, security)
