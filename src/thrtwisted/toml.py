"""
The configuration as a file: TOML in, a valid configuration out, or all that is wrong with it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

from .check import examine
from .config import Config, ConfigError
from .structure import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Override = Callable[[Config], Config]

#: Where TOML's parser does not say how to go on.
_MENDS = {
    "Invalid value": "put texts in quotes",
    "Cannot overwrite a value": "it is set twice, leave one out",
    "Cannot declare": "the table is there twice, put both together",
    "Expected '=' after": "write NAME = VALUE",
}


def load(path: str | os.PathLike[str], override: Override | None = None) -> Config:
    """
    Read a configuration from a file.

    @param override: changes it before it is checked as a whole, as flags do.
    @raise ConfigError: the file cannot be read, or there are mistakes in it; it names them all.
    """
    name, content = os.fspath(path), read(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{name}:{line}: a character that is not UTF-8; save the file as UTF-8"]) from None
    return loads(text, name, override)


def read(path: str | os.PathLike[str]) -> bytes:
    """
    What is in a file.

    @raise ConfigError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError([f"{os.fspath(path)}: cannot be read: {reason}; name a file that can"]) from None


def loads(text: str, name: str = "configuration", override: Override | None = None) -> Config:
    """
    Read a configuration from a text.

    @param name: stands for the file in the messages.
    @param override: changes it before it is checked as a whole, as flags do.
    @raise ConfigError: there are mistakes; it names them all, C{FILE:LINE: PLACE: what is wrong; the mend}.
    """
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{name}: brackets are nested too deeply; close those before"]) from None
    except ValueError as error:
        raise ConfigError([_syntax(name, str(error), text)]) from None
    config, problems = examine(data, override)
    if not problems:
        return config
    lines = line_numbers(text)
    placed = [(_line(problem.path, lines), problem.line(config)) for problem in problems]
    placed.sort(key=lambda each: each[0] or sys.maxsize)
    raise ConfigError([f"{name}:{line}: {text}" if line else f"{name}: {text}" for line, text in placed])


def _syntax(name: str, message: str, text: str) -> str:
    """A mistake that TOML's own parser found in a text, on one line."""
    message = " ".join(message.split())
    at = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    mend = next((mend for start, mend in _MENDS.items() if message.startswith(start)), "correct it")
    if at is None:
        return f"{name}: not TOML: {message}; {mend}"
    if at[1] is None:
        last = text.rstrip().count("\n") + 1
        return f"{name}:{last}: not TOML: {message[: at.start()]} at the end; {mend}"
    return f"{name}:{at[1]}: not TOML: {message[: at.start()]} in column {at[2]}; {mend}"


def line_numbers(text: str) -> dict[Path, int]:
    """
    The line on which each value of a TOML document starts, or a table is first named.

    TOML's own parser is asked, statement by statement: a statement ends with the first line up to which it can be
    parsed alone.
    """
    lines: dict[Path, int] = {}
    tables: dict[Path, int] = {}  # how many there are of each [[name]], so far
    table: Path = ()
    statement, start = "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not statement:
            start = number
        statement += line + "\n"
        try:
            data = tomllib.loads(statement)
        except ValueError:
            continue
        if statement.lstrip().startswith("["):
            table = _heading(data, tables)
            for end in range(1, len(table) + 1):
                lines.setdefault(table[:end], start)
        else:
            _note(data, table, start, lines)
        statement = ""
    return lines


def _heading(data: dict[str, Any], tables: dict[Path, int]) -> Path:
    """The table that a line such as C{[a.b]} or C{[[a]]} begins."""
    path: Path = ()
    value: Any = data
    while value:
        if isinstance(value, list):
            tables[path] = tables.get(path, 0) + 1
            return (*path, tables[path] - 1)
        ((name, value),) = value.items()
        path = (*path, name)
        if isinstance(value, dict) and path in tables:
            path = (*path, tables[path] - 1)
    return path


def _note(data: dict[str, Any], table: Path, line: int, lines: dict[Path, int]) -> None:
    """Remember the line of all that a statement sets."""
    for name, value in data.items():
        path = (*table, name)
        lines.setdefault(path, line)
        if isinstance(value, dict):
            _note(value, path, line, lines)


def _line(path: Path, lines: dict[Path, int]) -> int | None:
    """The line of a value, or of what it stands in."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
