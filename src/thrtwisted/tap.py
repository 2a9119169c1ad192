"""
The command C{twistd thrproxy}: its options, and the service that they make.

Everything that can be wrong with the configuration is said while the options are read, before anything starts:
one line for each mistake on stderr, and exit status 2.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import msgspec
from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

try:
    import resource
except ImportError:  # pragma: no cover - Windows has no such limits
    resource = None  # type: ignore[assignment]

from . import check, toml
from .config import Backend, Config, ConfigError, Redis, default_backend
from .dsl import script
from .listen import Listener, endpoint
from .redis.embedded import EmbeddedServerError, installed_server

#: Files that a process has open beside its connections: its program, its log, Redis, and bodies on their way.
OTHER_FILES = 256
#: Files that a process may open which needs any number of them, where nothing says how many there may be.
MANY_FILES = 65_536

_log = Logger()


class Options(usage.Options):
    """
    The options of the command.

    @ivar config: what the file and the flags say together; there once the options are read.
    @ivar demo: whether to run the demonstration.
    """

    synopsis = "[--config FILE | --backend URL | --demo] [options]"
    longdesc = (
        "A reverse proxy that keeps requests to a slow application in a priority queue, and lets through "
        "as many at once as the limits allow, over all its processes together."
    )
    optParameters: ClassVar = [
        ["redis", None, None, "Where slots and queues live: embedded:, redis://HOST or unix:///PATH."],
        ["backend", None, None, "The application to forward to: http://HOST[:PORT] or unix:///PATH."],
    ]
    optFlags: ClassVar = [
        ["check", None, "Only check the configuration and print it as it will be used."],
        ["demo", None, "Run an embedded Redis, a sample application and the proxy before it."],
    ]

    config: Config

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.files: list[str] = []
        self.listen: list[str] = []

    def opt_config(self, path: str) -> None:
        """The configuration: a file in TOML, or one or several in Python (.py); the other options override it."""
        self.files.append(path)

    opt_c = opt_config

    def opt_listen(self, text: str) -> None:
        """Where to listen, a Twisted server endpoint string such as tcp:8888; may be given several times."""
        self.listen.append(text)

    opt_l = opt_listen

    def postOptions(self) -> None:
        """Put the configuration together, or say all that is wrong with it and exit with status 2."""
        if self["demo"] and self.files:
            raise usage.UsageError("--demo brings its own configuration: leave out --config")
        if len(self.files) > 1 and not all(map(script.is_script, self.files)):
            raise usage.UsageError("of several files with --config each has to be in Python, and end in .py")
        if not (self["demo"] or self.files or self["backend"]):
            raise usage.UsageError(
                "name a file with --config or an application with --backend, or try --demo"
            )
        if self["demo"] and self["backend"] and not self["backend"].startswith("http://"):
            raise usage.UsageError(
                "--demo puts its application at --backend: name a place as http://HOST:PORT"
            )
        try:
            self.config = self._configuration()
        except ConfigError as error:
            for problem in error.problems:
                print(problem, file=sys.stderr)
            raise SystemExit(2) from None
        if self["check"]:
            print(check.effective(self.config), end="")
            raise SystemExit(0)

    def _configuration(self) -> Config:
        """What the file and the flags say together."""
        for path in self.files:
            # A function that a limit names, or that a file imports, may be in a module beside the file.
            sys.path.append(os.path.dirname(os.path.abspath(path)))
        if self.files and script.is_script(self.files[0]):
            config = script.load(self.files, self._overridden)
        elif self.files:
            config = toml.load(self.files[0], self._overridden)
        else:
            config = check.validated(self._overridden(self._unwritten()))
        self._refuse_vain_flags(config)
        if config.redis is not None and config.redis.url == "embedded:":
            try:
                installed_server()
            except EmbeddedServerError as error:
                raise ConfigError([f"redis.url: {error}"]) from None
        return config

    def _refuse_vain_flags(self, config: Config) -> None:
        """
        Both halves of a relay may have one file, with what one of them uses. A flag is for this process alone.

        @raise ConfigError: it does not use it.
        """
        role = None if config.relay is None else config.relay.role
        if role == "worker" and self.listen:
            raise ConfigError(["--listen: a worker listens nowhere; leave it out, or give it to the front"])
        if role == "front" and self["backend"]:
            raise ConfigError(
                ["--backend: a front never connects to a backend; leave it out, or give it to the worker"]
            )

    def _unwritten(self) -> Config:
        """The configuration where there is no file."""
        if not self["demo"]:
            return Config()
        from .demo import CONFIG

        return CONFIG

    def _overridden(self, config: Config) -> Config:
        """The configuration with what the flags change in it."""
        if self.listen:
            config = msgspec.structs.replace(config, listen=self.listen)
        if self["redis"]:
            redis = msgspec.structs.replace(config.redis or Redis(), url=self["redis"])
            config = msgspec.structs.replace(config, redis=redis)
        if self["backend"]:
            if config.backend:
                name = default_backend(config)
                backend = msgspec.structs.replace(config.backend[name], url=self["backend"])
            else:
                name, backend = "app", Backend(url=self["backend"])
            config = msgspec.structs.replace(config, backend={**config.backend, name: backend})
        return config


def makeService(options: Options) -> IService:
    """
    The proxy and the places where it listens; with the application before which it stands, in the demonstration.

    Or a worker, which listens nowhere.
    """
    from twisted.internet import reactor

    from .service import Proxy, RelayWorker

    keep_time(reactor)
    relay = options.config.relay
    if relay is not None and relay.role == "worker":
        # What it needs is not known from its places: most of them, and of the answers that wait, have files, too.
        allow_files(relay.concurrency, "relay.concurrency", as_many_as_possible=True)
        return RelayWorker(reactor, options.config)
    allow_files(options.config.bounds.connections)
    services = MultiService()
    stop = partial(give_up, reactor, options.parent or {})
    proxy = Proxy(reactor, options.config)
    proxy.setServiceParent(services)  # type: ignore[no-untyped-call]
    site = proxy.site()
    listeners = [Listener(endpoint(reactor, text), site, text, stop) for text in places(options.config)]
    for listener in listeners:
        listener.setServiceParent(services)  # type: ignore[no-untyped-call]
    if options["demo"]:
        from .demo import Demonstration

        demonstration = Demonstration(reactor, options.config, listeners, stop)
        demonstration.setServiceParent(services)  # type: ignore[no-untyped-call]
    return services


def keep_time(reactor: Any) -> None:
    """
    Let the reactor measure time by a clock that nobody sets. Its own is the time of day: where that is set back by
    minutes, all timers stop for as long, heartbeats among them, and where it is set forward all go off.
    """
    if not reactor.getDelayedCalls():  # what there is was made with the other clock
        reactor.seconds = _seconds


def _seconds() -> float:
    """Seconds that have passed, those of the machine's sleep too if it can tell: others went on meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def allow_files(
    connections: int, setting: str = "bounds.connections", *, as_many_as_possible: bool = False
) -> None:
    """
    Let the process open as many files as its connections may take: two each, for there is one to a backend, too, or a
    file.

    @param connections: how many connections there may be; 0 for any number.
    @param setting: what says so.
    @param as_many_as_possible: it may have other files, nobody knows how many.
    """
    if resource is None:
        return
    needed = 2 * connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and (soft < needed or not connections or as_many_as_possible):
        wanted = max(soft, needed, MANY_FILES) if hard == resource.RLIM_INFINITY else hard
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if connections and needed > hard != resource.RLIM_INFINITY:
        _log.warn(
            "This process may open {hard} files, and {connections} connections may take {needed}: raise the limit "
            "(LimitNOFILE= of systemd, ulimit -Hn) or lower {setting}",
            setting=setting,
            hard=hard,
            connections=connections,
            needed=needed,
        )


def places(config: Config) -> list[str]:
    """The endpoint strings of a configuration."""
    return [config.listen] if isinstance(config.listen, str) else config.listen


def give_up(reactor: Any, twistd: Mapping[str, Any], problem: str) -> None:
    """
    End the process with one line and a status other than 0, for the proxy cannot do its work.

    @param twistd: twistd's own options.
    """
    _log.critical("{problem}", problem=problem)
    if reactor.running:
        os.kill(os.getpid(), signal.SIGTERM)
        return
    if not twistd.get("nodaemon", True):
        # twistd waits in the foreground for the news of this process, and passes on the line of an Exception only.
        raise RuntimeError(problem)
    # twistd would show a traceback of an Exception. What it does else at the end is to remove its file: a stale one
    # stops the next start in a container, where the process has the same id again.
    if twistd.get("pidfile"):
        with suppress(OSError):
            os.unlink(twistd["pidfile"])
    raise SystemExit(1)
