"""The script that decides in Redis, put together of its parts: a line C{--> FILE} in C{gate.lua} stands for a file."""

from __future__ import annotations

import re
from importlib.resources import files

_PART = re.compile(rb"^--> (\S+)$", re.MULTILINE)


def _read(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()


SCRIPT = _PART.sub(lambda part: _read(part[1].decode()), _read("gate.lua"))
