"""
The script twistd, whose coverage is measured to the end (twistd ends itself with the signal that stopped it, after
which nothing is saved), or with C{UNCOVERED} in the environment not at all.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if os.environ.get("CLOCK"):
        from tests.integration import wrong_clock  # noqa: F401
    if os.environ.get("UNCOVERED"):
        from tests.integration import uncovered  # noqa: F401
    elif "coverage" in sys.modules:
        from coverage import Coverage
        from twisted.internet import reactor

        measured = Coverage.current()
        if measured is not None:
            reactor.addSystemEventTrigger("after", "shutdown", measured.save)
    from twisted.scripts.twistd import run

    sys.argv[0] = "twistd"
    run()
