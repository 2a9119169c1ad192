"""
Structure: from plain data to a configuration, with every mistake in it and not only the first.

msgspec checks each single value; this walks the tables around them.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec
from msgspec import NODEFAULT, Struct, inspect
from msgspec.inspect import type_info
from msgspec.structs import FieldInfo, fields

from .config import FUNCTION, Config

#: Where a value stands in the configuration: names, and numbers from 0 in lists.
Path = tuple[str | int, ...]

S = TypeVar("S", bound=Struct)


@attrs.frozen
class Problem:
    """
    One mistake in a configuration.

    @ivar path: the value that is wrong, missing or unknown.
    @ivar text: what is wrong; the mend.
    @ivar at_parent: whether the text names the value itself, so that the place to show is the table around it.
    @ivar unless: other values that it is a problem with. Where one of them is wrong, it may be none.
    """

    path: Path
    text: str
    at_parent: bool = False
    unless: tuple[Path, ...] = ()

    def line(self, config: Config) -> str:
        """
        The problem as it is shown: C{limit 2 ("foo"), max_concurrent: must be…}. Control characters of the
        configuration are escaped, so that they neither break the line nor reach a terminal.
        """
        place = place_name(self.path[:-1] if self.at_parent else self.path, config)
        return printable(f"{place}: {self.text}" if place else self.text)


def printable(text: str) -> str:
    """A text with its control characters escaped, and so on one line."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def place_name(path: Path, config: Config) -> str:
    """A place in the configuration in words: C{backend.app.url}, C{limit 2 ("foo"), key}."""
    words = ""
    for position, part in enumerate(path):
        if isinstance(part, int):
            words += f" {part + 1}"
            if path[:position] == ("limit",) and part < len(config.limit) and config.limit[part].name:
                words += f" ({quoted(config.limit[part].name)})"
        else:
            separator = "" if not words else ", " if isinstance(path[position - 1], int) else "."
            words += separator + (part if re.fullmatch(r"[\w-]+", part) else quoted(part))
    return words


def quoted(text: str) -> str:
    """A text in quotes, on one line, not too long."""
    return json.dumps(text if len(text) <= 60 else text[:59] + "…", ensure_ascii=False)


def suggestion(name: str, known: Iterable[str]) -> str:
    """The mend of a wrong name: the known one that is most like it, or that has it within, or all of them."""
    names = list(known)
    within = [known for known in names if name and name.lower() in known.lower()]
    close = get_close_matches(name, names, 1) or (within if len(within) == 1 else [])
    if close:
        return f"did you mean {quoted(close[0])}?"
    return f"it may be {' or '.join(filter(None, [', '.join(map(quoted, names[:-1])), *map(quoted, names[-1:])]))}"


def build(data: object, kind: type[S]) -> tuple[S, list[Problem]]:
    """
    Build a structure from a table, or from such a structure that a program has built, perhaps with wrong values.

    @return: the structure, with a default or an empty value wherever there was a mistake; and the mistakes.
    """
    problems: list[Problem] = []
    built = _structure(data, kind, (), problems)
    assert isinstance(built, kind)
    return built, problems


def _value(
    data: object, kind: Any, path: Path, problems: list[Problem], default: object = NODEFAULT
) -> object:
    """A value of a type; instead of another type's value, the default and a problem."""
    if kind is Any:
        return data
    if callable(data) and takes_function(kind):
        return data
    table = _optional_structure(kind)
    if table is not None and (data is not None or kind is table):
        return _structure(data, table, path, problems)
    container = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    arguments = get_args(container)
    if get_origin(container) is dict and isinstance(data, dict):
        return _dictionary(data, arguments[0], arguments[1], path, problems)
    if get_origin(container) is list and isinstance(data, list | tuple):
        return [_value(value, arguments[0], (*path, at), problems) for at, value in enumerate(data)]
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError:
        problems.append(
            Problem(path, f"must be {wanted(type_info(kind), ranged=_is_number(data))}, not {found(data)}")
        )
        return _empty(type_info(kind)) if default is NODEFAULT else default


def _structure(data: object, kind: type[Struct], path: Path, problems: list[Problem]) -> Struct:
    """A structure of a table; problems for what is unknown, what lacks and what is wrong in it."""
    shape, hints = _shape(kind)
    if isinstance(data, kind):
        data = {field.name: getattr(data, field.name) for field in shape}
    if not isinstance(data, dict):
        problems.append(Problem(path, f"must be a table, not {found(data)}"))
        return _structure({}, kind, path, [])
    for name in data:
        if name not in hints:
            text = f"unknown name {quoted(str(name))}; {suggestion(str(name), hints)}"
            problems.append(Problem((*path, str(name)), text, at_parent=True))
    values = {}
    for field in shape:
        hint, place = hints[field.name], (*path, field.name)
        default = field.default if field.default_factory is NODEFAULT else field.default_factory()
        if field.name in data:
            values[field.name] = _value(data[field.name], hint, place, problems, default)
        elif field.required:
            values[field.name] = _empty(type_info(hint))
            text = f"lacks {quoted(field.name)}; add it, {wanted(type_info(hint))}"
            problems.append(Problem(place, text, at_parent=True))
        else:
            values[field.name] = default
    return kind(**values)


@cache
def _shape(kind: type[Struct]) -> tuple[tuple[FieldInfo, ...], dict[str, Any]]:
    """The fields of a kind of structure, and their types by their names: to find them out takes long."""
    return fields(kind), get_type_hints(kind, include_extras=True)


def _dictionary(
    data: dict[Any, object], key_kind: Any, kind: Any, path: Path, problems: list[Problem]
) -> dict[Any, object]:
    """The entries of a table whose names are the user's own."""
    built: dict[Any, object] = {}
    for name, value in data.items():
        try:
            msgspec.convert(name, key_kind)
        except msgspec.ValidationError:
            text = f"{found(name)} must be {wanted(type_info(key_kind))}"
            problems.append(Problem((*path, str(name)), text, at_parent=True))
        built[name if key_kind is Any else str(name)] = _value(value, kind, (*path, str(name)), problems)
    return built


def takes_function(kind: Any) -> bool:
    """Whether a program may put a function where a value of this type stands."""
    metadata = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return any((each.extra or {}).get(FUNCTION) for each in metadata if isinstance(each, msgspec.Meta))


def _optional_structure(kind: Any) -> type[Struct] | None:
    """The structure that a type is, perhaps annotated, perhaps optional; None for all other types."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind
    if get_origin(kind) in (Annotated, Union, UnionType):
        found = (_optional_structure(argument) for argument in get_args(kind))
        return next((table for table in found if table is not None), None)
    return None


def wanted(kind: inspect.Type, *, ranged: bool = False) -> str:
    """What a value of a type is, in the words of somebody who writes TOML; with the range of numbers if asked for."""
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            return str((extra or {}).get("title") or wanted(inner, ranged=ranged))
        case inspect.UnionType(types=kinds):
            return " or ".join(
                wanted(each, ranged=ranged) for each in kinds if not isinstance(each, inspect.NoneType)
            )
        case inspect.IntType():
            return "a whole number" + (_range(kind) if ranged else "")
        case inspect.FloatType():
            return "a number" + (_range(kind) if ranged else "")
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return " or ".join(quoted(str(value)) for value in values)
        case (
            inspect.ListType(item_type=inspect.StructType())
            | inspect.ListType(item_type=inspect.Metadata(type=inspect.StructType()))
        ):
            return "a list of tables"
        case inspect.ListType():
            return "a list of texts"
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case _:
            return "a text"


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        return f" above {kind.gt:g} and up to {kind.le:.15g}"
    return f" from {kind.ge:g} to {kind.le:.15g}"


def _is_number(data: object) -> bool:
    return isinstance(data, int | float) and not isinstance(data, bool)


def found(data: object) -> str:
    """What stands in place of the right value."""
    match data:
        case None:
            return "nothing"
        case bool():
            return "true" if data else "false"
        case str():
            return f"the text {quoted(data)}"
        case int() | float():
            return f"the number {quoted(repr(data))[1:-1]}"
        case list() | tuple():
            wrong = next((item for item in data if not isinstance(item, str)), None)
            return "a list" if wrong is None else f"a list with {found(wrong)}"
        case dict():
            return "a table"
        case datetime.date() | datetime.time():
            return f"the date or time {data}"
        case _ if callable(data):
            return "a function"
        case _:
            name = type(data).__name__
            return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _empty(kind: inspect.Type) -> object:
    """A value of a type, in the place of one that is wrong or lacks."""
    match kind:
        case inspect.Metadata(type=inner):
            return _empty(inner)
        case inspect.UnionType(types=kinds):
            return None if any(isinstance(each, inspect.NoneType) for each in kinds) else _empty(kinds[0])
        case inspect.IntType():
            return 0
        case _:
            return ""
