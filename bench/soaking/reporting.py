"""
The command twistd, which writes down at SIGUSR2 what there is in the process.

    REPORT=FILE python -m bench.soaking.reporting -n thrproxy --config FILE

It looks at nothing before it is asked. The report is one JSON object: C{objects}, how many there are of each class that
belongs to an exchange; C{timers} and C{readers} of the reactor; C{blocks} of memory that Python has given out.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from typing import Any

#: Classes whose objects come and go with exchanges and connections.
WATCHED = frozenset(
    (
        "Deferred",
        "Failure",
        "Channel",
        "HTTPChannel",
        "Request",
        "Exchange",
        "Ticket",
        "Forwarding",
        "Attempt",
        "RequestBody",
        "ResponseBody",
        "RequestFile",
        "Spool",
        "Connection",
        "Server",
        "Client",
        "HTTP11ClientProtocol",
        "_Client",
    )
)


def report(file: str) -> None:
    """Write down what there is."""
    from twisted.internet import reactor

    some: Any = reactor
    for _ in range(3):
        gc.collect()
    objects = Counter(type(each).__name__ for each in gc.get_objects() if type(each).__name__ in WATCHED)
    found = {
        "objects": dict(objects),
        "timers": sorted(_name(call.func) for call in some.getDelayedCalls()),
        "readers": len(some.getReaders()),
        "blocks": sys.getallocatedblocks(),
    }
    with open(file + ".new", "w") as writing:
        json.dump(found, writing)
    os.replace(file + ".new", file)


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", function))


def main() -> None:
    """Run twistd."""
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    some: Any = reactor
    file = os.environ["REPORT"]

    def asked(*_: Any) -> None:
        some.callFromThread(report, file)

    signal.signal(signal.SIGUSR2, asked)
    sys.argv[0] = "twistd"
    run()


if __name__ == "__main__":
    main()
