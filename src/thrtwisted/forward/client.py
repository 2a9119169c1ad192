"""The way to one backend: its URLs, and the exchanges that are on their way."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger, LogPublisher
from zope.interface import implementer

from thrtwisted.config import Backend, urls
from thrtwisted.errors import STOPPING, BackendClosed, ExchangeError
from thrtwisted.exchange import Exchange
from thrtwisted.gate import IAdmission
from thrtwisted.tls import Security

from .address import parse
from .attempt import Attempt
from .disk import Disk
from .failures import reason
from .forwarding import Forwarding
from .health import Health
from .interfaces import IForwarder
from .pool import Pool
from .routes import Routes
from .sendable import SendableBody


@implementer(IForwarder)
class Forwarder:
    """Forwards exchanges to one backend. A backend with several URLs gets them where the fewest are."""

    queue: str | None = None
    _log = Logger()

    def __init__(
        self, reactor: Any, name: str, config: Backend, disk: Disk | None = None, *, quiet: bool = False
    ) -> None:
        """
        @param disk: what its responses may keep on disk together with others; None: each as much as C{max_spool}.
        @param quiet: nothing of its URLs is said in the log, for whoever sends exchanges says it.
        @param reactor: provides IReactorTime and what its URLs need of IReactorTCP, IReactorUNIX and
            IReactorPluggableNameResolver.
        @raise ValueError: a URL is none of a backend, or a file for TLS cannot be used.
        """
        self.name = name
        if quiet:
            self._log = Logger(observer=LogPublisher())  # to whom nobody listens
        self._reactor = reactor
        self._config = config
        self._disk = disk
        addresses = [parse(url) for url in urls(config)]
        # Now: a process that gives up its rights later could not read the files any more.
        uses_tls = any(address.tls for address in addresses)
        security = Security(config.ca, config.certificate) if uses_tls else None
        self._pools = [Pool(reactor, address, config, security) for address in addresses]
        self._routes = Routes(len(addresses), config.down_time)
        self._health = Health(reactor, name, config, self._pools, self._routes, self.reached)
        self._under_way: set[Forwarding] = set()
        self._closed = False
        self._exhausted = False

    def __repr__(self) -> str:
        return f"<Forwarder {self.name}, {len(self._under_way)} under way>"

    def start(self) -> None:
        """Begin to ask for the URLs' health, if that is configured."""
        self._health.start()

    def send(self, exchange: Exchange, body: SendableBody, admission: IAdmission | None = None) -> Forwarding:
        """Begin at once to forward an exchange, as L{IForwarder.send} has it."""
        forwarding = Forwarding(self, exchange, body)
        self._under_way.add(forwarding)
        forwarding.done.addCallback(lambda _: self._under_way.discard(forwarding))
        if admission is not None:
            forwarding.done.addCallback(lambda _: admission.release())
        if self._closed:
            forwarding.fail(BackendClosed(STOPPING))
        else:
            forwarding.begin()
        return forwarding

    def close(self) -> Deferred[None]:
        """
        Break off what is under way, and close all connections.

        @return: fires when every forwarding is done and nothing is left in the reactor. Never errbacks.
        """
        self._closed = True
        self._health.stop()
        under_way = list(self._under_way)
        waiting = [_echo(forwarding.done) for forwarding in under_way]
        for forwarding in under_way:
            forwarding.break_off()
        waiting += [pool.close() for pool in self._pools]
        return gatherResults(waiting).addCallback(lambda _: None)

    # For its forwardings

    @property
    def clock(self) -> Any:
        """Tells the time."""
        return self._reactor

    @property
    def config(self) -> Backend:
        """The backend's."""
        return self._config

    @property
    def disk(self) -> Disk | None:
        """What its responses may keep on disk."""
        return self._disk

    def attempt(self, forwarding: Forwarding, tried: set[int]) -> Attempt | None:
        """The next attempt of an exchange, which has its URL until L{left}; None if it has tried them all."""
        route = self._routes.take(self._reactor.seconds(), tried)
        if route is None:
            return None
        return Attempt(self._reactor, forwarding, route, self._pools[route.number])

    def reached(self, number: int) -> None:
        """A URL could be connected to."""
        self._exhausted = False
        if self._routes.connected(number) and len(self._pools) > 1:
            self._log.info(
                "{backend}: {url} can be connected to again, and gets requests", **self._named(number)
            )

    def secured(self, attempt: Attempt) -> None:
        """TLS stands. In TLS 1.3 the backend may refuse us later, but nobody has to wait for that."""
        self._routes.tried(attempt.route)

    def unreached(self, number: int, error: ExchangeError) -> None:
        """A URL could not be connected to."""
        if not self._routes.refused(number, self._reactor.seconds()):
            return
        means = "requests are answered 502 or 504"
        if len(self._pools) > 1:
            means = f"it gets no requests for {self._config.down_time:g} s, while another can"
        self._log.warn(
            "{backend}: {url} cannot be connected to: {why}; {means}",
            why=reason(error, self.name),
            means=means,
            **self._named(number),
        )

    def exhausted(self, error: ExchangeError) -> None:
        """Nothing could be connected to, which says nothing of the URLs. It is told once, until something can."""
        if not self._exhausted:
            self._exhausted = True
            self._log.warn(
                "{backend}: the proxy cannot open connections: {why}; requests are answered 502 "
                "(mend: let it have more file descriptors, with ulimit -n or LimitNOFILE, or ports)",
                backend=f"backend.{self.name}",
                why=error.__cause__,
            )

    def left(self, attempt: Attempt) -> None:
        """An attempt is over."""
        self._routes.leave(attempt.route)

    def _named(self, number: int) -> dict[str, str]:
        return {"backend": f"backend.{self.name}", "url": self._pools[number].address.url}


def _echo(done: Deferred[None]) -> Deferred[None]:
    """Fires after another Deferred, whose result stays with its owner."""
    echo: Deferred[None] = Deferred()

    def fire(result: None) -> None:
        echo.callback(None)

    done.addCallback(fire)
    return echo
