"""Child processes of tests."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure


class Child(ProcessProtocol):
    """
    A child process, its output, and what a test waits for.

    @ivar ended: fires with its exit status, or the negated number of the signal that ended it.
    """

    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()
        self.output = b""
        self.errors = b""
        self._awaited: list[tuple[bytes, Deferred[None]]] = []

    def said(self, text: bytes) -> Deferred[None]:
        """Fires when the text is there, on stdout or stderr; errbacks if the child ends without it."""
        deferred: Deferred[None] = Deferred()
        self._awaited.append((text, deferred))
        self._look()
        return deferred

    def _look(self) -> None:
        found = [pair for pair in self._awaited if pair[0] in self.output or pair[0] in self.errors]
        self._awaited = [pair for pair in self._awaited if pair not in found]
        for _, deferred in found:
            deferred.callback(None)

    def outReceived(self, data: bytes) -> None:
        self.output += data
        self._look()

    def errReceived(self, data: bytes) -> None:
        self.errors += data
        self._look()

    def processEnded(self, reason: Failure) -> None:
        status: Any = reason.value
        failure = AssertionError(f"ended: {status}\n{(self.output + self.errors).decode()}")
        for _, deferred in self._awaited:
            deferred.errback(failure)
        self._awaited = []
        self.ended.callback(status.exitCode if status.signal is None else -status.signal)


def spawn(*command: str, directory: str | None = None) -> tuple[Child, Any]:
    """Run a command that sees the same packages as the tests; the child and its transport."""
    child = Child()
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    return child, reactor.spawnProcess(child, command[0], command, env=environment, path=directory)


def python(*arguments: str, directory: str | None = None) -> tuple[Child, Any]:
    """Run Python, as L{spawn} does."""
    return spawn(sys.executable, *arguments, directory=directory)


def end(child: Child, process: Any) -> Deferred[int] | None:
    """Kill a child that a test has left."""
    if child.ended.called:
        return None
    process.signalProcess("KILL")
    return child.ended
