"""
Importing this makes the time of day as wrong as a file says: the one that C{CLOCK} in the environment names, 8 bytes
with a number of seconds, which may change at any time. It comes before Twisted, which keeps the function that it finds.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

_right = time.time

with open(os.environ["CLOCK"], "r+b") as _file:
    _wrong_by = mmap.mmap(_file.fileno(), 8)


def _time() -> float:
    """Seconds since the epoch, or so."""
    return _right() + float(struct.unpack("d", _wrong_by)[0])


time.time = _time
