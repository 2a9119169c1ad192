"""
The wiring: from a configuration to a running proxy. What belongs to whom is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, gatherResults, inlineCallbacks
from twisted.logger import Logger
from twisted.web.resource import IResource

from .auth import Authenticator
from .check import validated
from .config import Config, ConfigError, served
from .errors import GateUnavailable
from .forward import Forwarder, IForwarder
from .forward.disk import Disk
from .gate.redis import RedisGate
from .ground import Ground
from .limits import Limits
from .listen.site import ProxySite
from .networks import trusted
from .relay.front import Front
from .relay.worker import Worker
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
        if config.relay is not None and config.relay.role == "worker":
            raise ConfigError(
                ["relay.role: a worker has no clients; make a RelayWorker of this configuration"]
            )
        self._ground = Ground(reactor, config)
        self._gate = self._ground.gate
        self.disk = Disk(config.bounds.spool)
        self._front = self._make_front(config)
        self._forwarders: Mapping[str, IForwarder] = {
            name: Forwarder(reactor, name, backend, self.disk)
            if self._front is None
            else self._front.forwarder(name)
            for name, backend in config.backend.items()
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
        self._ground.start()

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
        if self._front is not None:
            yield self._front.stop()
        yield unasked
        self.resource.cut_off()
        left = max(deadline - self._reactor.seconds(), FAREWELL)
        parted = gatherResults([site.part(left) for site in self._sites])
        yield self._ground.stop()
        yield parted

    def _make_front(self, config: Config) -> Front | None:
        """The way to the backends through Redis, if that is configured."""
        if config.relay is None:
            return None
        gate, post = self._ground.gate, self._ground.post
        assert isinstance(gate, RedisGate) and post is not None
        return Front(self._reactor, config, gate, post, self.disk)


class RelayWorker(Service):
    """
    A worker of a relay, ready to be put into an application: start and stop it as a service.

    It has no resource, and listens nowhere. Once stopped it is not started again.
    """

    name = "thrtwisted"
    _log = Logger()

    def __init__(self, reactor: Any, config: Config) -> None:
        """
        @param reactor: see L{Proxy}.
        @raise ConfigError: the configuration cannot be used, or is not that of a worker.
        """
        self._config = config = validated(config)
        relay = config.relay
        if relay is None or relay.role != "worker":
            raise ConfigError(['relay.role: this is no worker; write role = "worker", or make a Proxy'])
        assert config.redis is not None
        self._reactor = reactor
        self._ground = Ground(reactor, config)
        gate, post = self._ground.gate, self._ground.post
        assert isinstance(gate, RedisGate) and post is not None
        self.disk = Disk(config.bounds.spool)
        self._forwarders = {
            name: Forwarder(reactor, name, config.backend[name], self.disk) for name in served(relay, config)
        }
        self._worker = Worker(
            reactor, relay, list(self._forwarders), gate, post, self._forwarders, lease=config.redis.lease
        )
        self._started = False

    def startService(self) -> None:
        """Connect to Redis, and take what fronts have."""
        super().startService()  # type: ignore[no-untyped-call]
        self._started = True
        for forwarder in self._forwarders.values():
            forwarder.start()
        self._worker.start()
        self._ground.start()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """
        Stop: nothing new is taken; what is here has C{shutdown_timeout} seconds, until fronts have the answers.

        @return: fires when no connection, process or timer is left.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._started:
            drained = self._worker.drain()
            drained.addTimeout(self._config.shutdown_timeout, self._reactor)
            try:
                yield drained
            except TimeoutError:
                if self._worker.busy:
                    self._log.warn(
                        "Stopped with requests in the backend, or answers that fronts have not taken"
                    )
                else:
                    self._log.warn("Stopped before Redis has said that nothing is left for this worker")
            except GateUnavailable:
                pass  # it was stopped twice, and the other one was faster
        yield gatherResults([forwarder.close() for forwarder in self._forwarders.values()])
        self._worker.end()
        yield self._ground.stop()
