"""
Importing this ends the measurement of coverage in a process whose time is measured. (The variables of coverage in the
environment cannot: it puts them back when a process is spawned.)
"""

from __future__ import annotations

import sys

if "coverage" in sys.modules:
    from coverage import Coverage

    measurement = Coverage.current()
    if measurement is not None:
        measurement.stop()
