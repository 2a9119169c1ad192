"""Where Redis is, and the connections to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from .connection import Dialer
    from .url import RedisAddress


class ISource(Interface):
    """Says which server has our keys."""

    security = Attribute("What TLS is verified with, a L{Security}; None where there is none.")

    def locate(slot: int, dialer: Dialer) -> Deferred[RedisAddress]:
        """
        The server that has the keys of a cluster's slot now.

        @return: fires with its address, which need not be that of a server in order. Errbacks with what
            L{thrtwisted.redis.trouble} knows.
        """

    def watch(address: RedisAddress, slot: int, dialer: Dialer) -> Deferred[None]:
        """
        Look whether a server that was located is replaced while it goes on answering.

        @return: fires when it is; never, where the server itself would say so. Cancelling ends it.
        """

    def doubt() -> None:
        """The server that was located last did not serve: next time, ask somebody else, if there is."""

    def describe(address: RedisAddress | None) -> str:
        """A server that was located, or what is looked for, in words, without any password."""
