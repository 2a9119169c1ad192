"""
The script twistd, whose coverage is measured to the end: twistd ends itself with the signal that stopped it, after
which nothing is saved.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if "coverage" in sys.modules:
        from coverage import Coverage
        from twisted.internet import reactor

        measured = Coverage.current()
        if measured is not None:
            reactor.addSystemEventTrigger("after", "shutdown", measured.save)
    from twisted.scripts.twistd import run

    sys.argv[0] = "twistd"
    run()
