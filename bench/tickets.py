"""
Tickets that come and go through a gate, in a process of its own: each is released as soon as it is admitted, and the
next one comes.

    python -m bench.tickets URL NAMESPACE AT_ONCE SLOTS WEIGHTED

It says C{ready}, begins at the next line of its input, ends at the one after, and prints what it did.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver

from thrtwisted.gate import Counter, IAdmission, Ticket
from thrtwisted.gate.redis import RedisGate


class Tickets(LineOnlyReceiver):
    """
    All the tickets of one process, and the word to begin and to end.

    @param at_once: how many of them wait or hold slots at any time.
    """

    delimiter = b"\n"

    def __init__(self, gate: RedisGate, ticket: Ticket, at_once: int) -> None:
        self._gate = gate
        self._ticket = ticket
        self._left = self._at_once = at_once
        self._began = self._cpu = 0.0
        self._ending = False
        self._admitted = 0
        self._waits: list[float] = []

    def connectionMade(self) -> None:
        """Say so when the gate is connected, which is when it admits somebody."""
        self._gate.acquire(self._ticket).addCallback(self._ready)

    def _ready(self, admission: IAdmission) -> None:
        admission.release()
        self._say(b"ready")

    def lineReceived(self, line: bytes) -> None:
        """Begin, or end."""
        if not self._began:
            self._began, self._cpu = time.perf_counter(), time.process_time()
            for _ in range(self._at_once):
                self._next()
        else:
            self._cpu = time.process_time() - self._cpu
            self._began = time.perf_counter() - self._began
            self._ending = True

    def _next(self) -> None:
        self._gate.acquire(self._ticket).addCallbacks(self._admit, self._failed)

    def _admit(self, admission: IAdmission) -> None:
        self._waits.append(admission.waited)
        # What an exchange does comes from the reactor, too.
        reactor.callLater(0, self._done, admission)

    def _done(self, admission: IAdmission) -> None:
        admission.release()
        if not self._ending:
            self._admitted += 1
            self._next()
            return
        self._left -= 1
        if not self._left:
            self._tell()

    def _tell(self) -> None:
        waits = sorted(self._waits)
        told = {
            "admitted": self._admitted,
            "seconds": self._began,
            "cpu": self._cpu,
            "median": waits[len(waits) // 2],
            "p99": waits[len(waits) * 99 // 100],
        }
        self._say(json.dumps(told).encode())
        self._gate.stop().addCallback(lambda _: reactor.stop())

    def _say(self, line: bytes) -> None:
        self.sendLine(line)  # type: ignore[no-untyped-call]

    def _failed(self, failure: Any) -> None:
        if not self._ending:
            sys.stderr.write(f"{failure.getErrorMessage()}\n")
            reactor.stop()


def main(url: str, namespace: str, at_once: int, slots: int, weighted: int) -> None:
    """Run until told to end."""
    counters = [Counter("app", slots), Counter("user=bench", slots)]
    if weighted:
        counters[1] = Counter("user=bench", 2 * slots, weight=2, max_waiting=100_000)
    # Nothing is to time out here: what is measured is what it costs.
    gate = RedisGate(reactor, namespace=namespace, timeout=5.0, lease=30.0, max_waiting=100_000)
    gate.start(url)
    StandardIO(Tickets(gate, Ticket(tuple(counters)), at_once))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
