"""Where the proxy listens: endpoint strings, and a port that says in one line why it cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure

from .balancer import with_client

#: Clients that may have connected and not been seen yet: more than come in one turn of the reactor. One more would try
#: again after a second. (The kernel may have a lower bound of its own, net.core.somaxconn of Linux.)
BACKLOG = 1024

#: What stands before the endpoint string of a port that load balancers connect to, as Twisted has it.
_PROXIED = "haproxy:"

_WITH_BACKLOG = frozenset(("tcp", "tcp6", "ssl", "unix"))


def endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    """
    The endpoint of an endpoint string.

    @raise ValueError: it is not one; the message is one line, with the mend.
    """
    try:
        plain = text.removeprefix(_PROXIED)
        found: IStreamServerEndpoint = serverFromString(reactor, _with_backlog(plain))
    except Exception as error:  # Twisted and its plugins raise whatever their parsers happen to raise
        why = " ".join(str(error).split())
        raise ValueError(
            f"{text!r} is not a Twisted server endpoint ({why}); "
            "write tcp:PORT, tcp:PORT:interface=ADDRESS, unix:PATH, "
            "ssl:PORT:privateKey=FILE:certKey=FILE, or haproxy: before one of these"
        ) from None
    return found if plain == text else with_client(found)


def _with_backlog(text: str) -> str:
    """The endpoint string with a longer backlog than Twisted's 50, unless it says itself how long."""
    kind = text.partition(":")[0]
    return f"{text}:backlog={BACKLOG}" if kind in _WITH_BACKLOG and "backlog=" not in text else text


class Listener(Service):
    """
    Listens as long as it runs.

    @ivar listening: fires with the port when it listens. It does not fire if that fails.
    """

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        factory: IProtocolFactory,
        description: str,
        give_up: Callable[[str], None],
    ) -> None:
        """
        @param description: where it listens, for the message.
        @param give_up: called with one line when it cannot listen; from within the start of the service where that
            is known at once, as it is for TCP and unix sockets.
        """
        self._endpoint = endpoint
        self._factory = factory
        self._description = description
        self._give_up = give_up
        self._port: Deferred[IListeningPort | None] | None = None
        self.listening: Deferred[IListeningPort] = Deferred()

    def privilegedStartService(self) -> None:
        """Listen, while the process may still open ports below 1024."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._listen()

    def startService(self) -> None:
        """Listen, unless that has been done."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._port is None:
            self._listen()

    def stopService(self) -> Deferred[None]:
        """Listen no more. Fires when the port is closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        port.cancel()
        return port.addCallback(_close)

    def _listen(self) -> None:
        """Open the port."""
        failures: list[Failure] = []
        self._port = self._endpoint.listen(self._factory).addErrback(failures.append)
        if failures:
            self._refused(failures[0])  # not from a callback, so that it may raise
        else:
            self._port.addCallback(self._decided, failures)

    def _decided(self, port: IListeningPort | None, failures: list[Failure]) -> IListeningPort | None:
        """The port is open, or it cannot be."""
        if port is not None:
            self.listening.callback(port)
        elif not failures[0].check(CancelledError):
            self._refused(failures[0])
        return port

    def _refused(self, failure: Failure) -> None:
        """The port cannot be had."""
        error = failure.value
        self._give_up(f"cannot listen on {self._description}: {getattr(error, 'socketError', error)}")


def _close(port: IListeningPort | None) -> Any:
    """Close a port that is open."""
    return None if port is None else port.stopListening()
