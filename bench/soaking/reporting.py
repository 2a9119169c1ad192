"""
The command twistd, which writes down at SIGUSR2 what there is in the process.

    REPORT=FILE python -m bench.soaking.reporting -n thrproxy --config FILE

It looks at nothing before it is asked. The report is one JSON object: C{objects}, how many there are of each class that
is watched; C{timers} and C{readers} of the reactor; C{blocks} of memory that Python has given out.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from typing import Any

#: Classes of Twisted's whose objects come and go with exchanges and connections; all of the proxy's own count too.
WATCHED = frozenset(
    ("Deferred", "Failure", "Request", "HTTPChannel", "HTTP11ClientProtocol", "Server", "Client")
)


def report(file: str) -> None:
    """Write down what there is."""
    from twisted.internet import reactor

    some: Any = reactor
    for _ in range(3):
        gc.collect()
    objects = Counter(kind.__name__ for kind in map(type, gc.get_objects()) if _is_watched(kind))
    found = {
        "objects": dict(objects),
        "timers": sorted(_name(call.func) for call in some.getDelayedCalls()),
        "readers": len(some.getReaders()),
        "blocks": sys.getallocatedblocks(),
    }
    with open(file + ".new", "w") as writing:
        json.dump(found, writing)
    os.replace(file + ".new", file)


def _is_watched(kind: type) -> bool:
    return str(kind.__module__).startswith("thrtwisted.") or kind.__name__ in WATCHED


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
