"""
The wiring: from a configuration to a running proxy. What belongs to whom is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    gatherResults,
    inlineCallbacks,
    succeed,
)
from twisted.logger import Logger
from twisted.web.resource import IResource

from .auth import Authenticator
from .check import validated
from .config import Config, ConfigError
from .forward.client import Forwarder
from .forward.disk import Disk
from .gate.local import LocalGate
from .gate.redis import RedisGate
from .limits import Limits
from .listen.site import ProxySite
from .networks import trusted
from .redis import ISource
from .redis.embedded import EmbeddedServer, EmbeddedServerError, installed_server
from .redis.source import source_of
from .redis.url import RedisAddress, parse
from .resource import ProxyResource

#: Seconds in which clients can take the last that they are told, when C{shutdown_timeout} is over.
FAREWELL = 2.0


class Proxy(Service):
    """
    A proxy, ready to be put into an application: start and stop it as a service, and put its resource anywhere.

    Requests may reach the resource before the service is started; they wait. Once stopped it is not started again.

    @ivar resource: an L{IResource} that regulates and forwards every request that reaches it.
    @ivar disk: what requests and responses keep on disk.
    """

    name = "thrtwisted"
    _log = Logger()

    def __init__(self, reactor: Any, config: Config) -> None:
        """
        @param reactor: provides IReactorTime, IReactorTCP and, as the configuration's URLs need them, IReactorUNIX,
            IReactorPluggableNameResolver and IReactorProcess.
        @raise ConfigError: the configuration cannot be used.
        """
        self._config = config = validated(config)
        self._reactor = reactor
        self._embedded: EmbeddedServer | None = None
        self._source: ISource | None = None
        self._starting: Deferred[None] = succeed(None)
        self._gate: LocalGate | RedisGate = self._make_gate()
        self.disk = Disk(config.bounds.spool)
        self._forwarders = {
            name: Forwarder(reactor, name, backend, self.disk) for name, backend in config.backend.items()
        }
        limits = Limits(config)
        self._authenticators = {
            name: Authenticator(reactor, name, auth, self._gate, config.queue.timeout, limits)
            for name, auth in config.auth.items()
        }
        self._sites: list[ProxySite] = []
        self.resource = ProxyResource(
            reactor, config, limits, self._gate, self._forwarders, self._authenticators
        )

    def site(self, root: IResource | None = None) -> ProxySite:
        """
        A site that holds its clients to C{bounds}, for a program's own ports.

        @param root: of a tree in which the resource is somewhere; by default the resource itself.
        """
        site = ProxySite(
            self._reactor,
            self.resource if root is None else root,
            self._config.bounds,
            trusted(self._config.trusted_proxies),
            self.disk,
            self.resource.kept,
        )
        self._sites.append(site)
        return site

    def startService(self) -> None:
        """Connect to Redis, after its server has started if it is embedded; ask for the backends' health."""
        super().startService()  # type: ignore[no-untyped-call]
        for forwarder in self._forwarders.values():
            forwarder.start()
        if isinstance(self._gate, RedisGate):
            self._starting = self._start_gate(self._gate)

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """
        Stop: those who wait get 503; those in the backend have C{shutdown_timeout} seconds, and clients as long to take
        their answers.

        @return: fires when no connection, process or timer is left.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        deadline = self._reactor.seconds() + self._config.shutdown_timeout
        for site in self._sites:
            site.stop()  # before the gate is closed: who waits there is told that nothing follows
        self.resource.stop()
        self._gate.close()
        # Nor would anybody be admitted whom they let pass.
        unasked = gatherResults([authenticator.close() for authenticator in self._authenticators.values()])
        idle = self.resource.when_idle()
        idle.addTimeout(self._config.shutdown_timeout, self._reactor)
        try:
            yield idle
        except TimeoutError:
            self._log.warn("Stopped with requests in the backend")
        yield gatherResults([forwarder.close() for forwarder in self._forwarders.values()])
        yield unasked
        self.resource.cut_off()
        left = max(deadline - self._reactor.seconds(), FAREWELL)
        parted = gatherResults([site.part(left) for site in self._sites])
        self._starting.cancel()
        yield self._starting
        yield self._gate.stop()
        if self._embedded is not None:
            yield self._embedded.stop()
        yield parted

    def _make_gate(self) -> LocalGate | RedisGate:
        queue, redis = self._config.queue, self._config.redis
        if redis is None:
            return LocalGate(self._reactor, max_waiting=queue.max_waiting, aging=queue.aging)
        if parse(redis.url).kind == "embedded":
            try:
                installed_server()
            except EmbeddedServerError as error:
                raise ConfigError([f"redis.url: {error}"]) from None
            self._embedded = EmbeddedServer(self._reactor)
        else:
            # Now: a process that gives up its rights later could not read the files any more.
            self._source = source_of(redis.url, redis.ca, redis.certificate)
        return RedisGate(
            self._reactor,
            namespace=redis.namespace,
            timeout=redis.timeout,
            lease=redis.lease,
            outage=redis.outage,
            max_waiting=queue.max_waiting,
            aging=queue.aging,
        )

    @inlineCallbacks
    def _start_gate(self, gate: RedisGate) -> Generator[Deferred[Any], Any, None]:
        if self._embedded is not None:
            try:
                path = yield self._embedded.start()
            except CancelledError:
                return  # the service was stopped meanwhile
            except (EmbeddedServerError, OSError) as error:
                self._log.critical("{error}", error=error)
                gate.give_up()
                return
            self._source = source_of(RedisAddress("unix", path=path))
        assert self._source is not None
        gate.start(self._source)
