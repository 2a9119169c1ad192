"""
Configurations in Python: the functions that THR's files call, and C{configure} for all that TOML can say.

A file that C{--config} names has them at hand without an import. They build the same configuration as TOML does.
Nothing is raised for a mistake: it is remembered with its line, so that all are told at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from msgspec import Struct
from msgspec.structs import fields

from thrtwisted.config import Then, When
from thrtwisted.exchange import settable
from thrtwisted.structure import found, quoted, suggestion

from .declared import Call, bracketed, declaration
from .pattern import diff, glob, match_of, network, regexp

__all__ = [
    "Actions",
    "Criteria",
    "add_max_limit",
    "add_queue",
    "add_rule",
    "configure",
    "diff",
    "glob",
    "network",
    "regexp",
]

#: The port of an application that is named without one, as in THR.
HTTP_PORT = 8082

#: What the names of backends and limits may not have.
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]")
_LONGEST_NAME = 64

#: Where Redis is, in the words of rules and of queues.
_REDIS = {"set_redis_host": "host", "set_redis_port": "port", "set_redis_uds": "unix_domain_socket"}

Key = Callable[[Any], object]


class Criteria:
    """
    What a request must be for a rule to apply, all of it: C{path}, C{method}, C{host}, C{remote_ip} (the connection's
    address), C{real_ip} (the client's, as trusted proxies tell it; also C{client}), each a text, a list of texts of
    which it may be any, C{glob(…)}, C{regexp(…)}, C{network(…)} or C{diff(…)}; C{header}, C{cookie} and C{query},
    dictionaries of names, each with such a value; and C{custom}, a function of the exchange, which may return a
    Deferred or a coroutine.
    """

    def __init__(self, **values: object) -> None:
        self.values = values


class Actions:
    """
    What a rule does: each of the names that C{then} of a rule has in TOML, with a constant or with a function of the
    exchange that makes the value, or None for none, and may return a Deferred or a coroutine of it. Where there are
    names and values (headers, arguments of the query, custom values), a constant is a pair, a list of pairs or a
    dictionary.
    """

    def __init__(self, **values: object) -> None:
        self.values = values


@declaration
def add_rule(call: Call, /, criteria: Criteria, actions: Actions, stop: object = False) -> None:
    """Add a rule. Rules apply in order, until one that matches says C{stop}."""
    rule = {
        "name": f"{call.label} ({os.path.basename(call.file)}:{call.line})",
        "when": _when(call, criteria),
        "then": _then(call, actions),
        "stop": bool(stop),
    }
    call.declared.append("rule", rule, call.origin(hidden=frozenset(("when", "then"))))


def _when(call: Call, /, criteria: object) -> dict[str, object]:
    """What C{when} of a rule says in TOML."""
    if not isinstance(criteria, Criteria):
        call.refuse("criteria", f"must be Criteria(…), not {found(criteria)}")
        return {}
    when: dict[str, object] = {}
    tables = _of_kind(When, dict)
    for name, value in _known(call, criteria.values, When, "criterion"):
        if name == "custom":
            when[name] = value
        elif name in tables and isinstance(value, dict):
            entries = {str(key): _match(call, f"{name}.{key}", each) for key, each in value.items()}
            when[name] = {key: entry for key, entry in entries.items() if entry is not None}
        elif name in tables:
            call.refuse(name, f"must be a dictionary of names and values, not {found(value)}")
        else:
            when[name] = _match(call, name, value)
    return when


def _match(call: Call, argument: str, value: object, label: str = "") -> list[str] | None:
    """A criterion in the words of TOML; None if it cannot be read, which is remembered."""
    try:
        return match_of(value)
    except ValueError as error:
        call.refuse(argument, str(error), label)
        return None


def _then(call: Call, actions: object) -> dict[str, object]:
    """What C{then} of a rule says in TOML."""
    if not isinstance(actions, Actions):
        call.refuse("actions", f"must be Actions(…), not {found(actions)}")
        return {}
    then: dict[str, object] = {}
    tables, lists = _of_kind(Then, dict), _of_kind(Then, list)
    for name, value in _known(call, actions.values, Then, "action"):
        if callable(value):
            then[name] = value
        elif name in tables:
            then[name] = _table(call, name, value)
        elif name == "set_input_priority":
            then[name] = _priority(_text(value))
        elif name in lists and isinstance(value, tuple):
            then[name] = [_text(each) for each in value]
        elif name in _REDIS:
            _at_redis(call, name, _REDIS[name], value)
        else:
            then[name] = _text(value)
    return then


def _table(call: Call, action: str, value: object) -> dict[Any, object]:
    """Names and values, of a pair, a list of pairs or a dictionary; a name that stands there twice has both values."""
    try:
        pairs = settable.pairs(value, action)
        if action == "set_custom_value":
            return dict(pairs)
        if not all(isinstance(name, str | bytes) for name, _ in pairs):
            raise TypeError
    except (ValueError, TypeError):  # no pairs, or of no names
        call.refuse(
            action, f'must be ("NAME", "value"), a list of such pairs or a dictionary, not {found(value)}'
        )
        return {}
    table: dict[str, object] = {}
    # The names of headers are the same in other letters; but in a dictionary both stand there, which is refused later.
    first: dict[str, str] = {}
    ignores_case = action.endswith("_header") and not isinstance(value, Mapping)
    for name, given in ((str(_text(name)), _text(given)) for name, given in pairs):
        same = first.setdefault(name.lower() if ignores_case else name, name)
        table[same] = [*_list(table[same]), *_list(given)] if same in table else given
    return table


def _priority(value: object) -> object:
    """A priority of THR's: a number, or a text that is one, of which the nearest priority counts."""
    try:
        return value if isinstance(value, bool) else settable.priority(value)
    except ValueError:
        return value  # perhaps a key


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _text(value: object) -> object:
    """Bytes as the text that stands for them; all else, and what is in a list, as it is."""
    if isinstance(value, bytes):
        return settable.decoded(value)
    return [_text(each) for each in value] if isinstance(value, list) else value


def _known(
    call: Call, values: Mapping[str, object], kind: type[Struct], what: str
) -> Iterable[tuple[str, object]]:
    """Those of the values that are given and have a name that there is."""
    names = kind.__struct_fields__
    for name, value in values.items():
        if name not in names:
            call.refuse(name, f"unknown {what}; {suggestion(name, names)}")
        elif value is not None:
            yield name, value


def _of_kind(kind: type[Struct], container: type) -> frozenset[str]:
    """The fields of a structure that are such containers."""
    return frozenset(field.name for field in fields(kind) if field.default_factory is container)


@declaration
def add_queue(
    call: Call,
    /,
    queues: str | list[str] | tuple[str, ...],
    host: str = "localhost",
    port: int = 6379,
    http_host: str = "localhost",
    http_port: int = HTTP_PORT,
    workers: int = 1,
    unix_domain_socket: str | None = None,
) -> None:
    """
    Add an application, by names that rules route to with C{set_redis_queue}. The first one has all other requests.

    @param host: with C{port} and C{unix_domain_socket}, where Redis is; the same for all queues.
    @param http_host: where the application is; a path is a unix socket.
    @param workers: in the file of a relay's worker, how many requests it has in the application at once; those of all
        queues together are its C{concurrency}. Elsewhere without effect, for nothing is fetched from queues:
        C{add_max_limit} says how many at once.
    """
    names = [queues] if isinstance(queues, str) else queues
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        call.refuse("queues", f'must be a name such as "app", or a list of names, not {found(queues)}')
        return
    for argument, value in zip(_REDIS.values(), (host, port, unix_domain_socket), strict=True):
        if argument in call.given and value is not None:
            _at_redis(call, argument, argument, value)
    call.declared.workers.append((workers, call))
    url = _application(call, http_host, http_port)
    if url is None:
        return
    backends = call.declared.tables.get("backend", {})
    for backend in backends.values():
        if isinstance(backend, dict) and backend.get("queues") == list(names):
            # Several of THR's consumers of a queue: one application with several URLs.
            backend["url"] = list(dict.fromkeys([*_list(backend["url"]), url]))
            return
    entry = {"url": url, "queues": list(names)}
    call.declared.put("backend", _name(names[0], backends), entry, call.origin(names={"url": "http_host"}))


def _application(call: Call, http_host: object, http_port: object) -> str | None:
    """The URL of an application; None if there is none of that, which is remembered."""
    if not isinstance(http_host, str) or not http_host:
        call.refuse("http_host", f"must be a host or the path of a unix socket, not {found(http_host)}")
    elif http_host.startswith("/"):
        return f"unix://{http_host}"
    elif _is_port(http_port):
        return f"http://{bracketed(http_host)}:{http_port}"
    else:
        call.refuse("http_port", f"{_PORT}, not {found(http_port)}")
    return None


_PORT = "must be a whole number from 1 to 65535"


def _is_port(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _at_redis(call: Call, argument: str, piece: str, value: object) -> None:
    """A piece of where Redis is, which has to be the same everywhere."""
    if piece == "port" and not _is_port(value):
        call.refuse(argument, f"{_PORT}, not {found(value)}")
    elif piece != "port" and not (isinstance(value, str) and value):
        call.refuse(argument, f"must be a text, not {found(value)}")
    else:
        said = call.declared.redis.setdefault(piece, (value, call, argument))
        if said[0] != value:
            call.refuse(
                argument,
                f"is {found(value)}, where {said[1].label} has {found(said[0])}; a proxy has one Redis: name the same "
                "everywhere, or leave it out",
            )


@declaration
def add_max_limit(
    call: Call,
    /,
    name: str,
    hash_func: Key,
    hash_value: object,
    max_limit: int,
    show_in_stats: object = True,
) -> None:
    """
    Let no more than so many requests be in the application at once whose hash is the same.

    @param hash_func: makes a text, or None for no limit, of the request.
    @param hash_value: a text, C{glob(…)}, C{regexp(…)} or C{diff(…)}, whose requests share one counter; or C{hash_func}
        itself, for a counter of each value's own.
    """
    limits = call.declared.tables.get("limit", [])
    label = f"{call.label} ({quoted(name)})" if isinstance(name, str) else call.label
    entry: dict[str, object] = {
        "name": name,
        "max_concurrent": max_limit,
        "show_in_stats": bool(show_in_stats),
    }
    if isinstance(name, str):
        said = call.declared.limits.get(name)
        entry["name"] = said or _name(
            name, {limit.get("name") for limit in limits if isinstance(limit, dict)}
        )
        call.declared.limits[name] = str(entry["name"])
    if not callable(hash_value):
        entry["match"] = _match(call, "hash_value", hash_value, label)
    elif callable(hash_func) and hash_value != hash_func:
        call.refuse(
            "hash_value", "must be a text, a pattern or hash_func itself, not another function", label
        )
    if callable(hash_func):
        entry["key"] = _of_request(hash_func)
    else:
        call.refuse("hash_func", f"must be a function of the request, not {found(hash_func)}", label)
        entry["match"] = None  # of nothing
    names = {"max_concurrent": "max_limit", "key": "hash_func", "match": "hash_value"}
    call.declared.append("limit", entry, call.origin(label, names=names))


def _of_request(hash_func: Key) -> Key:
    """A key of the exchange, of a function of its request."""

    @wraps(hash_func)
    def key(exchange: Any) -> object:
        found = hash_func(exchange.request)
        return str(found) if isinstance(found, int) else found  # in THR it could be any value

    return key


def _name(wanted: str, taken: Iterable[object]) -> str:
    """A name for a backend or a limit that is like another one, and not taken."""
    name = _FORBIDDEN.sub("-", wanted)[:_LONGEST_NAME] or "-"
    number, others = 1, set(taken)
    unique = name
    while unique in others:
        number += 1
        unique = f"{name[: _LONGEST_NAME - 6]}-{number}"
    return unique


@declaration
def configure(call: Call, /, **tables: object) -> None:
    """
    Set anything that a configuration can say, as plain data: C{listen=}, C{redis={…}}, C{backend={"app": {…}}},
    C{limit=[…]}, C{queue={…}}. It may be called several times; entries are added to those that there are.
    """
    for name, value in tables.items():
        if name in ("rule", "limit"):
            _configure_list(call, name, value)
        elif name in ("backend", "auth"):
            _configure_table(call, name, value)
        elif name in call.declared.tables:
            call.refuse(name, "it is set already; leave one out")
        else:
            call.declared.set(name, value, call.origin(name, separator="."))


def _configure_list(call: Call, name: str, value: object) -> None:
    if not isinstance(value, list | tuple):
        call.refuse(name, f"must be a list of tables, not {found(value)}")
        return
    for number, entry in enumerate(value, 1):
        said = entry.get("name") if isinstance(entry, dict) else getattr(entry, "name", None)
        label = f"{name} {number}" + (
            f" ({quoted(said)})" if isinstance(said, str) and name == "limit" else ""
        )
        call.declared.append(name, entry, call.origin(label))


def _configure_table(call: Call, table: str, value: object) -> None:
    if not isinstance(value, dict):
        call.refuse(table, f"must be a table of tables, not {found(value)}")
        return
    for name, entry in value.items():
        if name in call.declared.tables.get(table, {}):
            call.refuse(f"{table}.{name}", "there is one of this name; give each its own")
        else:
            call.declared.put(table, name, entry, call.origin(f"{table}.{name}", separator="."))
