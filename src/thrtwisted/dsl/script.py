"""
The configuration as files in Python: they are run, and what they declare is a valid configuration, or all that is
wrong with it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from thrtwisted import dsl
from thrtwisted.check import examine
from thrtwisted.config import Config, ConfigError
from thrtwisted.structure import Problem, printable, quoted
from thrtwisted.toml import Override, read

from .declared import Declared, Mistake

#: How such a file's name ends.
SUFFIX = ".py"

#: Where THR's functions were.
_THR = "thr"


def is_script(path: str) -> bool:
    """Whether a file is one in Python, by its name."""
    return path.endswith(SUFFIX)


def load(paths: Sequence[str | os.PathLike[str]], override: Override | None = None) -> Config:
    """
    Run files, which are one configuration together.

    @param override: changes it before it is checked as a whole, as flags do.
    @raise ConfigError: a file cannot be run, or there are mistakes; it names them all,
        C{FILE:LINE: CALL, PLACE: what is wrong; the mend}.
    """
    declared = Declared()
    failures = []
    with declared.loading():
        for path in [os.fspath(path) for path in paths]:
            declared.files.append(path)
            failure = _run(path, read(path))
            failures += [] if failure is None else [failure]
    if failures:  # what is not there may be because of them
        raise ConfigError(declared.sorted([*declared.mistakes, *failures]))
    declared.place_redis()
    declared.place_workers()
    config, problems = examine(declared.tables, override)
    mistakes = [*declared.mistakes, *(declared.located(_reworded(problem), config) for problem in problems)]
    if mistakes:
        raise ConfigError(declared.sorted(mistakes))
    return config


def _reworded(problem: Problem) -> Problem:
    """A problem in the words of these files."""
    if problem.path == ("backend",) and "there is none" in problem.text:
        return Problem(problem.path, 'there is none; call add_queue("app", http_port=9999)')
    return problem


def _run(path: str, source: bytes) -> Mistake | None:
    """Run a file as a module of its own, with the functions at hand; what is wrong if it fails."""
    # No module that somebody may want to import has such a name.
    module = ModuleType(f"configuration:{Path(path).stem}")
    module.__file__ = os.path.abspath(path)  # as Python does: twistd may go to another directory
    vars(module).update({name: getattr(dsl, name) for name in dsl.__all__})
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        return _failure(path, error)
    sys.modules[module.__name__] = module
    try:
        exec(code, vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        return _failure(path, error)
    return None


def _failure(path: str, error: BaseException) -> Mistake:
    """Why a file could not be run, on one line."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return _mistake(error.filename, error.lineno, f"not Python: {error.msg}; correct it")
    directory = os.path.dirname(os.path.abspath(path))
    own = [
        (frame.filename, frame.lineno or 0)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path or os.path.dirname(frame.filename) == directory
    ]
    file, line = own[-1] if own else (path, 0)
    beside = bool(own) and file != path
    return _mistake(file, line, f"{type(error).__name__}: {_text(error)}; {_mend(error, beside)}")


def _text(error: BaseException) -> str:
    """What an error says, which may fail itself."""
    try:
        return str(error)
    except Exception:
        return "it does not say why"


def _mistake(file: str, line: int, text: str) -> Mistake:
    return Mistake(file, line, printable(" ".join(text.split())))


def _mend(error: BaseException, beside: bool) -> str:
    """@param beside: it is another file's, which a file of the configuration imports."""
    match error:
        case NameError(name=str(name)) if beside and name in dsl.__all__:
            return f"in a file that is imported, write from thrtwisted.dsl import {name}"
        case ImportError(msg=str(text)) if text.startswith("attempted relative import"):
            return "a configuration is in no package: leave out the dot"
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] == _THR:
            return "leave this line out, for its names are at hand, or write thrtwisted.dsl"
        case ModuleNotFoundError():
            return "put it beside the file, install it or set PYTHONPATH"
        case NameError(name=str(name)) if close := get_close_matches(name, dsl.__all__, 1):
            return f"did you mean {quoted(close[0])}?"
        case SystemExit():
            return "a configuration does not end the process, leave that out"
        case _:
            return "correct it"
