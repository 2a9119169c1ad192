"""
The demonstration: everything in one process, nothing to write first.

It is the example of this proxy's ancestor: an application that takes a second for each request, can serve ten at
once, and wants at most two at once with the header C{Foo: bar}.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.web.server import Site
from twisted.web.wsgi import WSGIResource

from .config import Backend, Config, Limit, Redis
from .listen import Listener
from .listen.site import dated_line

#: Threads of the sample application: how many requests it can serve at once.
THREADS = 10

#: Seconds that the sample application takes for a request.
WORK = 1.0

CONFIG = Config(
    listen="tcp:8888:interface=127.0.0.1",
    redis=Redis(url="embedded:"),
    backend={"app": Backend(url="http://127.0.0.1:9999", max_concurrent=THREADS)},
    limit=[Limit(name="foo", key="header:Foo", match="bar", max_concurrent=2)],
    shutdown_timeout=0.5,
)

TEXT = """
  thrtwisted's demonstration runs:

    proxy        {proxy}   at most {limit} at once with the header "Foo: bar", {threads} in all
    application  {application}   a sample WSGI application: {threads} threads, {work:g} s a request
    Redis        {redis}

  Try in another terminal:

    curl -i {proxy}/
    ab -n 10 -c 10 -H "Foo: bar" {proxy}/   # two at once: about 5 s
    ab -n 10 -c 10 {proxy}/                 # ten at once: about 1 s

  A recent ab sends its first request alone, and so takes a second more.
  Ctrl-C stops all of it.

"""

#: What a WSGI application is.
WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def sample_application(stopping: threading.Event) -> WSGIApplication:
    """A WSGI application that takes its time, unless it is stopping."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        stopping.wait(WORK)
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} took {WORK:g} s of work\n".encode()]

    return application


class Demonstration(MultiService):
    """
    The sample application, at the place that the configuration names, and the word on the terminal when all listens.

    @param listeners: of the proxy.
    @param give_up: called with one line when the application's port cannot be had.
    @param write: shows text to the user. twistd's log has taken over C{sys.stdout}, and would stamp each line.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        listeners: list[Listener],
        give_up: Callable[[str], None],
        write: Callable[[str], object] = lambda text: print(text, file=sys.__stdout__, flush=True),
        make_application: Callable[[threading.Event], WSGIApplication] = sample_application,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._write = write
        self._config = config
        self._stopping = threading.Event()
        self._threads = ThreadPool(THREADS, THREADS, "sample application")
        url = urlsplit(str(next(iter(config.backend.values())).url))
        served = WSGIResource(reactor, self._threads, make_application(self._stopping))
        application = Listener(
            TCP4ServerEndpoint(reactor, url.port or 80, interface=url.hostname or ""),
            Site(served, logFormatter=dated_line),
            f"{url.netloc} for the sample application (name another place with --backend)",
            give_up,
        )
        application.setServiceParent(self)  # type: ignore[no-untyped-call]
        ports = [listener.listening for listener in (application, *listeners)]
        # Not before the reactor runs: a Ctrl-C that followed at once would be lost in this callback.
        gatherResults(ports).addCallback(lambda found: reactor.callWhenRunning(self._announce, found))

    def startService(self) -> None:
        """Start the application's threads, and the application."""
        self._threads.start()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Let the requests that are in the application end at once, and stop it."""
        stopped: Deferred[None] = super().stopService()  # type: ignore[no-untyped-call]
        self._stopping.set()
        # Not in the reactor's thread: the application's threads wait for that one to write what they answer.
        return stopped.addCallback(
            lambda _: deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._threads.stop)
        )

    def _announce(self, ports: list[IListeningPort]) -> None:
        """Say what runs where, and what to try."""
        application, proxy = (url_of(port) for port in ports[:2])
        assert self._config.redis is not None
        self._write(
            TEXT.format(
                proxy=proxy,
                application=application,
                threads=THREADS,
                work=WORK,
                limit=self._config.limit[0].max_concurrent,
                redis=self._config.redis.url,
            )
        )


def url_of(port: IListeningPort) -> str:
    """The URL of what listens at a port."""
    address = port.getHost()
    if not isinstance(address, IPv4Address | IPv6Address):
        return str(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"
