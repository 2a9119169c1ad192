"""
What configurations in Python have declared, call by call, and where: each mistake is told with the line of its call.

Nothing of it outlives the load. The functions of C{dsl} find it in a context variable; where there is none they refuse.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FrameType
from typing import Any, Concatenate, ParamSpec

import attrs

from thrtwisted.config import Config
from thrtwisted.structure import Path, Problem, found, place_name, printable, suggestion

P = ParamSpec("P")

_loading: ContextVar[Declared | None] = ContextVar("_loading", default=None)


@attrs.frozen
class Mistake:
    """
    What is wrong, and where.

    @ivar line: from 1; 0 if it is not at a line of its own.
    """

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


@attrs.frozen
class Origin:
    """
    Where a part of the configuration was declared.

    @ivar label: what the part is called, such as C{add_rule 3}.
    @ivar names: of the part's fields those that are called otherwise there.
    @ivar hidden: names of tables that the one who wrote it has not seen.
    @ivar separator: between the label and a place in the part.
    """

    file: str
    line: int
    label: str
    names: Mapping[str, str] = {}
    hidden: frozenset[str] = frozenset()
    separator: str = ", "

    def mistake(self, rest: Path, text: str, config: Config) -> Mistake:
        """A mistake at a place in the part."""
        parts = [self.names.get(str(part), part) for part in rest if part not in self.hidden]
        place = self.separator.join(filter(None, [self.label, place_name(tuple(parts), config)]))
        return Mistake(self.file, self.line, printable(f"{place}: {text}"))


class Declared:
    """
    What is declared so far.

    @ivar tables: as plain data, in the form of a TOML file.
    @ivar mistakes: those that only the functions themselves can see.
    @ivar files: in the order in which they were read.
    @ivar redis: pieces of where Redis is (C{host}, C{port}, C{unix_domain_socket}), each with the call and the argument
        that said it first.
    @ivar workers: how many requests at once each queue is said to have, with the call that says so.
    @ivar limits: names as they were written, each with the limit's.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.mistakes: list[Mistake] = []
        self.files: list[str] = []
        self.redis: dict[str, tuple[object, Call, str]] = {}
        self.workers: list[tuple[Any, Call]] = []
        self.limits: dict[str, str] = {}
        self._origins: dict[Path, Origin] = {}
        self._counts: Counter[str] = Counter()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While this holds, what functions declare is added here."""
        token = _loading.set(self)
        try:
            yield
        finally:
            _loading.reset(token)

    def number(self, function: str) -> int:
        """Count a call of a function; how many there are now."""
        self._counts[function] += 1
        return self._counts[function]

    def set(self, name: str, value: object, origin: Origin) -> None:
        """Set a value at the top."""
        self.tables[name] = value
        self._origins[name,] = origin

    def put(self, table: str, name: str, value: object, origin: Origin) -> None:
        """Add an entry to a table of tables."""
        self.tables.setdefault(table, {})[name] = value
        self._origins[table, str(name)] = origin

    def append(self, table: str, value: object, origin: Origin) -> None:
        """Add an entry to a list of tables."""
        entries = self.tables.setdefault(table, [])
        self._origins[table, len(entries)] = origin
        entries.append(value)

    def place_redis(self) -> None:
        """Let queues and rules say where Redis is, unless the configuration says it itself."""
        table = self.tables.get("redis", {})
        if not self.redis or not isinstance(table, dict) or "url" in table:
            return
        pieces = {piece: value for piece, (value, _, _) in self.redis.items()}
        if "unix_domain_socket" in pieces:
            url = f"unix://{pieces['unix_domain_socket']}"
        else:
            url = f"redis://{bracketed(str(pieces.get('host', 'localhost')))}:{pieces.get('port', 6379)}"
        _, call, argument = next(iter(self.redis.values()))
        self.tables["redis"] = {**table, "url": url}
        self._origins["redis", "url"] = call.origin(f"{call.label}, {argument}")

    def place_workers(self) -> None:
        """Let queues say how much a relay's worker takes at once, unless the configuration says it itself."""
        relay = self.tables.get("relay", {})
        if not isinstance(relay, dict) or relay.get("role") != "worker" or "concurrency" in relay:
            return
        said = [call for _, call in self.workers if "workers" in call.given]
        wrong = [each for each in self.workers if not _is_count(each[0])]
        for number, call in wrong:
            call.refuse("workers", f"must be a whole number from 1 on, not {found(number)}")
        if said and not wrong:
            self.tables["relay"] = {**relay, "concurrency": sum(number for number, _ in self.workers)}
            self._origins["relay", "concurrency"] = said[0].origin(f"{said[0].label}, workers")

    def located(self, problem: Problem, config: Config) -> Mistake:
        """A problem of the configuration, with the call that it comes from."""
        for end in range(len(problem.path), 0, -1):
            origin = self._origins.get(problem.path[:end])
            if origin is not None:
                if problem.at_parent and end == len(problem.path):  # the label names what the text names, too
                    return Mistake(origin.file, origin.line, problem.line(config))
                rest = problem.path[end : -1 if problem.at_parent else None]
                return origin.mistake(rest, problem.text, config)
        return Mistake(" ".join(self.files), 0, problem.line(config))

    def sorted(self, mistakes: list[Mistake]) -> list[str]:
        """Mistakes as they are shown, in the order of the files and their lines."""
        order = {file: number for number, file in enumerate(self.files)}
        mistakes = sorted(
            mistakes, key=lambda each: (order.get(each.file, len(order)), each.line or sys.maxsize)
        )
        return [str(mistake) for mistake in mistakes]


@attrs.frozen
class Call:
    """
    One call of a function that declares something.

    @ivar number: of this function, from 1.
    @ivar given: the arguments that were given, and not left at their defaults.
    """

    declared: Declared
    function: str
    number: int
    file: str
    line: int
    given: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        return f"{self.function} {self.number}"

    def origin(self, label: str = "", **options: Any) -> Origin:
        """This call, as where something was declared."""
        return Origin(self.file, self.line, label or self.label, **options)

    def refuse(self, argument: str, text: str, label: str = "") -> None:
        """
        Remember a mistake.

        @param argument: the one that is wrong; the empty string for the call as a whole.
        """
        place = ", ".join(filter(None, [label or self.label, argument]))
        self.declared.mistakes.append(Mistake(self.file, self.line, printable(f"{place}: {text}")))


def declaration(function: Callable[Concatenate[Call, P], None]) -> Callable[P, None]:
    """
    Make a function that declares something of one that is told of the call. Arguments that it does not have are
    mistakes like any other: they do not end the load.
    """
    name = function.__name__
    signature = inspect.signature(function)
    known = list(signature.parameters)[1:]
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())

    @wraps(function)
    def declare(*arguments: Any, **options: Any) -> None:
        declared = _loading.get()
        if declared is None:
            raise RuntimeError(
                f"{name} adds to a configuration while that is loaded: call it in a file that --config names, "
                "outside of functions that are called later; a program builds a Config"
            )
        frame = _caller()
        call = Call(declared, name, declared.number(name), frame.f_code.co_filename, frame.f_lineno)
        for option in [] if takes_any else sorted(options.keys() - set(known)):
            call.refuse(option, f"unknown argument; {suggestion(option, known)}")
            del options[option]
        try:
            given = signature.bind(call, *arguments, **options).arguments
        except TypeError as error:
            call.refuse("", f"{error}; it takes {', '.join(known)}")
            return
        function(attrs.evolve(call, given=frozenset(given)), *arguments, **options)

    declare.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return declare


def _caller() -> FrameType:
    """Where the function was called: the first place outside of this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"] == __name__:
        frame = frame.f_back
    return frame


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
