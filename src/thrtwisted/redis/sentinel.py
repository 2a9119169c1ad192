"""
Sentinel: the server that the sentinels say is the master of a service.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, inlineCallbacks
from twisted.internet.task import deferLater
from zope.interface import implementer

from thrtwisted.tls import Security

from . import ISource
from .connection import Dialer
from .trouble import NobodyAnswers, UnknownService
from .url import RedisAddress, SentinelAddress

#: Seconds between two looks at who is the master now.
WATCH_INTERVAL = 1.0


@implementer(ISource)
class SentinelSource:
    """
    Asks one sentinel after the other, the one that answered last first.

    @param address: the sentinels, and the service.
    @param security: see L{ISource}.
    """

    def __init__(self, address: SentinelAddress, security: Security | None = None) -> None:
        self.security = security
        self._address = address
        self._sentinels = list(address.sentinels)

    @inlineCallbacks
    def locate(self, slot: int, dialer: Dialer) -> Generator[Any, Any, RedisAddress]:
        """See L{ISource.locate}."""
        problems: list[tuple[RedisAddress, Exception]] = []
        for sentinel in list(self._sentinels):
            try:
                answer = yield dialer.ask(
                    sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service
                )
                if answer is None:
                    raise UnknownService(self._address.service)
                host, port = answer
                master = self._address.server.at(host.decode(), int(port))
            except CancelledError:
                raise
            except Exception as problem:
                problems.append((sentinel, problem))
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return master
        raise NobodyAnswers("no sentinel says which server is the master", problems)

    @inlineCallbacks
    def watch(self, address: RedisAddress, slot: int, dialer: Dialer) -> Generator[Any, Any, None]:
        """
        See L{ISource.watch}. An old master that lives goes on as such until the sentinels tell it: some ten seconds.
        """
        master = address
        while master == address:
            yield deferLater(dialer.reactor, WATCH_INTERVAL)
            with suppress(NobodyAnswers):  # the server answers still
                master = yield self.locate(slot, dialer)

    def doubt(self) -> None:
        """See L{ISource.doubt}. A sentinel that was cut off from the others goes on naming the old master."""
        self._sentinels.append(self._sentinels.pop(0))

    def describe(self, address: RedisAddress | None) -> str:
        """See L{ISource.describe}."""
        sentinels = self._address.masked()
        return sentinels if address is None else f"{address.place} (the master of {sentinels})"
