"""
What is wrong with a configuration, all of it at once; and the configuration that will be used, as TOML.

Files and programs are checked alike. What can be compiled is compiled, so that nothing is read in two ways.
"""

from __future__ import annotations

import datetime
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, fields, replace

from .auth.address import parse_service
from .auth.fields import check_copied, check_sent
from .config import (
    Auth,
    Backend,
    Bounds,
    Config,
    ConfigError,
    Limit,
    Match,
    Queue,
    Redis,
    Relay,
    Rule,
    When,
    served,
    urls,
)
from .exchange import NO_QUEUE
from .exchange.settable import encoded
from .forward.address import check_health
from .forward.address import parse as parse_backend
from .forward.disk import MEMORY
from .functions import function_of, name_of
from .keys import compile_key
from .limits import compile_limit, compile_weight
from .limits.rate import compile_rate
from .listen import endpoint
from .match import compile_match
from .networks import trusted as trusted_proxies
from .redis.url import parse
from .rules import criteria
from .rules.actions import REDIS, given, routes, try_action
from .structure import Path, Problem, build, printable, quoted, suggestion
from .tls import own, trusted

#: The server of Redis that a process starts for itself.
EMBEDDED = "embedded:"


def check(config: Config) -> list[str]:
    """What is wrong with a configuration that a program has built: a line for each mistake, with place and mend."""
    built, problems = examine(config)
    return [problem.line(built) for problem in problems]


def validated(config: Config) -> Config:
    """
    The configuration, if nothing is wrong with it.

    @raise ConfigError: there are mistakes; it names them all.
    """
    built, problems = examine(config)
    if problems:
        raise ConfigError([problem.line(built) for problem in problems])
    return built


def examine(data: object, override: Callable[[Config], Config] | None = None) -> tuple[Config, list[Problem]]:
    """
    Build a configuration of a table or of another configuration, and find what is wrong with it.

    @param override: changes the configuration before its sense is looked at, as flags do with a file's.
    @return: the configuration, to be used only if there are no problems; and the problems.
    """
    config, problems = build(data, Config)
    if override is not None:
        config, more = build(override(config), Config)
        problems = _with_new(problems, more)
    return config, _with_new(problems, [*_senseless(config), *_senseless_outage(config, data)])


def _with_new(problems: list[Problem], more: Iterable[Problem]) -> list[Problem]:
    """Add problems, but for those with values that had a problem already, for such values have been replaced."""
    wrong = {problem.path for problem in problems}
    within = {path[:end] for path in wrong for end in range(1, len(path) + 1)}
    return problems + [
        problem
        for problem in more
        if within.isdisjoint(problem.unless)
        and not any(problem.path[:end] in wrong for end in range(1, len(problem.path) + 1))
    ]


def _senseless(config: Config) -> Iterator[Problem]:
    """
    What has the right type, and still cannot be used.

    A front and a worker may have the same file. What only the other one uses is not looked at, as far as that would
    need more than the file: certificates, or modules with functions, that are on the other's machine.
    """
    relay = config.relay
    has_clients = relay is None or relay.role == "front"
    if has_clients:
        yield from _senseless_places_to_listen(config.listen)
    if config.redis is not None:
        yield from _senseless_redis(config.redis)
    if relay is not None:
        yield from _senseless_relay(relay, config)
    if not config.backend:
        mend = 'add a table [backend.app] with url = "http://127.0.0.1:9999"'
        yield Problem(("backend",), f"there is none; {mend}")
    for name, backend in config.backend.items():
        forwards = relay is None or (relay.role == "worker" and name in served(relay, config))
        yield from _senseless_backend(name, backend, forwards)
    yield from _senseless_queues(config.backend)
    for index, entry in enumerate(config.trusted_proxies):
        yield from _refused(("trusted_proxies", index), trusted_proxies, [entry])
    yield from _senseless_bounds(config.bounds)
    if has_clients:
        yield from _senseless_regulation(config)


def _senseless_places_to_listen(places: str | list[str]) -> Iterator[Problem]:
    listen = [places] if isinstance(places, str) else places
    if not listen:
        yield Problem(("listen",), 'an empty list; name a place to listen, such as "tcp:8888"')
    for text in listen:
        yield from _refused(("listen",), endpoint, None, text)


def _senseless_regulation(config: Config) -> Iterator[Problem]:
    """Services, queue, limits and rules."""
    for name, auth in config.auth.items():
        yield from _senseless_auth(("auth", name), auth)
    yield from _senseless_services(config)
    yield from _senseless_queue(config.queue)
    names: set[str] = set()
    for index, limit in enumerate(config.limit):
        if limit.name in names:
            text = f"an earlier limit has the name {quoted(limit.name)} too; give each its own"
            yield Problem(("limit", index, "name"), text)
        names.add(limit.name)
        yield from _senseless_limit(("limit", index), limit)
    for index, rule in enumerate(config.rule):
        yield from _senseless_rule(("rule", index), rule, config)
    yield from _senseless_places(config.rule)


def _senseless_redis(redis: Redis) -> Iterator[Problem]:
    wrong = list(_refused(("redis", "url"), parse, redis.url))
    yield from wrong
    has_tls = bool(wrong) or parse(redis.url).has_tls
    mend = "redis.url has no TLS; write rediss:// there (or tls=true with sentinel://), or leave this out"
    yield from _senseless_files(("redis",), redis, has_tls, mend)
    if redis.timeout >= redis.lease:
        text = f"must be less than redis.lease ({redis.lease:g}), or slots are lost while Redis is slow; lower it"
        yield Problem(("redis", "timeout"), text)


def _senseless_relay(relay: Relay, config: Config) -> Iterator[Problem]:
    mend = "the same for fronts and workers"
    if config.redis is None:
        text = f'goes through Redis, and there is none; add a table [redis] with url = "redis://HOST", {mend}'
        yield Problem(("relay",), text)
    elif config.redis.url == EMBEDDED:
        text = f"{EMBEDDED} is a server of this process's own, which no other reaches; write redis://HOST, {mend}"
        yield Problem(("redis", "url"), text)
    for index, name in enumerate(relay.backends):
        place = ("relay", "backends", index)
        if name in relay.backends[:index]:
            yield Problem(place, f"{quoted(name)} stands here already; leave it out")
        else:
            yield from _unknown(place, name, "backend", config.backend)


def _senseless_outage(config: Config, data: object) -> Iterator[Problem]:
    """
    What a front or a worker is to do without Redis, and cannot.

    @param data: what the configuration was built of: a table, unlike a structure, tells a default that was written.
    """
    if config.relay is None or config.redis is None or config.redis.outage == "closed":
        return
    redis = data.get("redis") if isinstance(data, dict) else None
    if config.redis.outage != Redis().outage or (isinstance(redis, dict) and "outage" in redis):
        text = 'must be "closed" in a relay: without Redis there is no way to a worker; leave it out'
        yield Problem(("redis", "outage"), text)


def _senseless_backend(name: str, backend: Backend, forwards: bool) -> Iterator[Problem]:
    """@param forwards: whether this process forwards to it, rather than another one."""
    place = ("backend", name)
    if backend.url is None and forwards:
        text = 'lacks "url"; add it, a text or a list of texts'
        yield Problem((*place, "url"), text, at_parent=True)
    elif backend.url is not None and not urls(backend):
        text = 'an empty list; name the application\'s URL, such as "http://127.0.0.1:9999"'
        yield Problem((*place, "url"), text)
    wrong = [problem for url in urls(backend) for problem in _refused((*place, "url"), parse_backend, url)]
    yield from wrong
    if not wrong and len(set(urls(backend))) < len(urls(backend)):
        yield Problem((*place, "url"), "the same URL stands here twice; leave one out")
    if forwards:
        has_tls = bool(wrong) or backend.url is None or any(parse_backend(url).tls for url in urls(backend))
        mend = "no url of this backend has TLS; write https:// there, or leave this out"
        yield from _senseless_files(place, backend, has_tls, mend)
    if backend.health is not None:
        yield from _refused((*place, "health"), check_health, backend.health)


def _senseless_auth(place: Path, auth: Auth) -> Iterator[Problem]:
    wrong = list(_refused((*place, "url"), parse_service, auth.url))
    yield from wrong
    has_tls = bool(wrong) or parse_service(auth.url).tls
    mend = "the url of this service has no TLS; write https:// there, or leave this out"
    yield from _senseless_files(place, auth, has_tls, mend)
    readers: dict[str, Callable[[str], object]] = {
        "send_headers": check_sent,
        "copy_headers": check_copied,
        "cache_by": compile_key,
    }
    for field, read in readers.items():
        for index, entry in enumerate(getattr(auth, field)):
            yield from _refused((*place, field, index), read, entry)
    if auth.cache_by and not auth.cache:
        text = "it says nothing without cache; add cache, or leave this out"
        yield Problem((*place, "cache_by"), text, unless=((*place, "cache"),))
    if auth.cache and not auth.cache_by and not auth.send_headers:
        text = (
            "one answer would hold for all requests; name in send_headers or cache_by what tells them apart"
        )
        yield Problem((*place, "cache"), text, unless=((*place, "cache_by"), (*place, "send_headers")))
    if auth.max_waiting is not None and auth.max_concurrent is None:
        text = "it says nothing without max_concurrent; add max_concurrent, or leave this out"
        yield Problem((*place, "max_waiting"), text, unless=((*place, "max_concurrent"),))


def _senseless_services(config: Config) -> Iterator[Problem]:
    """Services that nobody is asked about: whoever configured them believes that not everybody may pass."""
    asked = []
    for rule in config.rule:
        asked.append(rule.then.auth)
        if rule.stop and rule.when == When():
            break  # no other is ever reached
    if any(callable(name) or (name is not None and name not in config.auth) for name in asked):
        return  # a function may name each; and who has made a mistake in a name is told so there
    for name in config.auth:
        if name not in asked:
            text = (
                "no rule that is reached asks it, so that everybody passes; "
                f'let one have auth = "{name}", or leave this out'
            )
            yield Problem(("auth", name), text, unless=(("rule",),))


def _senseless_bounds(bounds: Bounds) -> Iterator[Problem]:
    """Bounds that are never reached, because another is lower. Of two that only some clients meet, a default may be."""
    if bounds.body_size > max(bounds.spool, MEMORY):
        text = f"more than bounds.spool ({bounds.spool}) can hold: such a body would be told to come again, in vain"
        yield Problem(("bounds", "body_size"), f"{text}; lower it, or raise bounds.spool")
    if bounds.head_size < bounds.target_length != Bounds().target_length:
        text = f"more than bounds.head_size ({bounds.head_size}), of which a target is a part"
        yield Problem(("bounds", "target_length"), f"{text}; lower it, or raise bounds.head_size")
    if 0 < bounds.connections < bounds.connections_per_client != Bounds().connections_per_client:
        text = f"more than bounds.connections ({bounds.connections}), so that one client could have them all"
        yield Problem(("bounds", "connections_per_client"), f"{text}; lower it, or write 0 for no bound")


def _senseless_files(
    place: Path, table: Redis | Backend | Auth, has_tls: bool, mend: str
) -> Iterator[Problem]:
    """The files of TLS, which have to be of use and readable."""
    readers: dict[str, Callable[[str], object]] = {"ca": trusted, "certificate": own}
    for name, read in readers.items():
        path = getattr(table, name)
        if path is not None and not has_tls:
            yield Problem((*place, name), mend)
        elif path is not None:
            yield from _refused((*place, name), read, path)


def _senseless_limit(place: Path, limit: Limit) -> Iterator[Problem]:
    problems = [
        *(_refused((*place, "key"), compile_key, limit.key) if limit.key is not None else ()),
        *_senseless_match((*place, "match"), limit.match),
        *(_refused((*place, "default"), encoded, limit.default) if limit.default is not None else ()),
        *_refused((*place, "weight"), compile_weight, limit.weight),
        *_refused((*place, "rate"), compile_rate, limit),
        *_senseless_rate(place, limit),
    ]
    # The parts first, which have a place of their own; then the whole.
    yield from problems or _refused((*place, "key"), compile_limit, limit)


def _senseless_rate(place: Path, limit: Limit) -> Iterator[Problem]:
    """What a limit says of a rate that it has not."""
    rate = (*place, "rate")
    if limit.max_concurrent is None and limit.rate is None:
        text = 'it limits nothing; add max_concurrent = 10, or rate = "100/min", or both'
        yield Problem((*place, "max_concurrent"), text, at_parent=True, unless=(rate,))
    for field in fields(Limit):
        if field.name in ("burst", "over", "demote_to") and getattr(limit, field.name) != field.default:
            if limit.rate is None:
                text = 'says nothing without a rate; add rate = "100/min", or leave it out'
                yield Problem((*place, field.name), text, unless=(rate,))
            elif field.name == "demote_to" and limit.over != "demote":
                text = 'says nothing unless over = "demote"; add that, or leave it out'
                yield Problem((*place, field.name), text, unless=((*place, "over"),))


def _senseless_queue(queue: Queue) -> Iterator[Problem]:
    if queue.fair is not None:
        yield from _refused(("queue", "fair"), compile_key, queue.fair)
        if queue.aging:
            text = "does not go with queue.aging, which makes an order of its own; leave out one of them"
            yield Problem(("queue", "fair"), text)


def _senseless_rule(place: Path, rule: Rule, config: Config) -> Iterator[Problem]:
    for where, key, match in criteria(rule.when):
        yield from _refused((*place, "when", *where), compile_key, key)
        yield from _senseless_match((*place, "when", *where), match)
    if rule.when.custom is not None:
        yield from _refused((*place, "when", "custom"), function_of, rule.when.custom)
    known: dict[str, tuple[str, Iterable[str]]] = {
        "backend": ("backend", config.backend),
        "set_redis_queue": ("backend or queue", routes(config)),
        "auth": ("service", config.auth),
    }
    for name, value in given(rule.then):
        action: Path = (*place, "then", name)
        if (name, value) == ("set_redis_queue", NO_QUEUE):
            continue
        if name in known and isinstance(value, str):
            yield from _unknown(action, value, *known[name])
        elif isinstance(value, dict):
            yield from _senseless_table(action, value, config)
        else:
            yield from _refused(action, try_action, name, value, config)


def _unknown(place: Path, name: str, what: str, known: Iterable[str]) -> Iterator[Problem]:
    """A name of something that there is not."""
    if name not in known:
        mend = suggestion(name, known) if list(known) else "add it"
        yield Problem(place, f"there is no {what} {quoted(name)}; {mend}")


def _senseless_table(place: Path, table: dict[str, object], config: Config) -> Iterator[Problem]:
    """Names and values that an action sets: each has its own place."""
    action = str(place[-1])
    if action == "set_custom_value":
        return  # it takes anything
    seen: set[str] = set()
    for name, value in table.items():
        yield from _refused((*place, name), try_action, action, (name, value), config)
        if action.endswith("_header") and name.lower() in seen:
            text = "the same header, in other letters, stands here already; leave one out"
            yield Problem((*place, name), text)
        seen.add(name.lower())


def _senseless_places(rules: list[Rule]) -> Iterator[Problem]:
    """What rules say of where Redis is, which is one place."""
    said: dict[str, object] = {}
    for index, rule in enumerate(rules):
        for name in REDIS:
            value = getattr(rule.then, name)
            if value is not None and not callable(value) and said.setdefault(name, value) != value:
                text = "an earlier rule names another; a proxy has one Redis, which redis.url names: leave this out"
                yield Problem(("rule", index, "then", name), text)


def _senseless_queues(backends: dict[str, Backend]) -> Iterator[Problem]:
    """Queues whose name stands for several backends."""
    seen: dict[str, str] = {}
    for name, backend in backends.items():
        for index, queue in enumerate(backend.queues):
            place = ("backend", name, "queues", index)
            if queue in seen:
                yield Problem(
                    place, f"{quoted(queue)} stands for the backend {seen[queue]} already; leave it out"
                )
            elif queue in backends and queue != name:
                yield Problem(place, f"there is a backend {quoted(queue)}, too; name one of them otherwise")
            seen.setdefault(queue, name)


def _senseless_match(place: Path, match: Match | None) -> Iterator[Problem]:
    entries = match if isinstance(match, list) else []
    problems = [problem for entry in entries for problem in _refused(place, compile_match, entry)]
    # The entries first, each with its own problem; then the whole.
    yield from problems or (() if match is None else _refused(place, compile_match, match))


def _refused(place: Path, read: Callable[..., object], *arguments: object) -> Iterator[Problem]:
    """The problem that a reader has with its arguments, if any."""
    try:
        read(*arguments)
    except ValueError as error:
        yield Problem(place, " ".join(str(error).split()))


def effective(config: Config) -> str:
    """
    A valid configuration as TOML, with every default, and stars for the password of Redis.

    What is not set stands there as a comment. Read again, it gives the same configuration, but for the password, and
    for what a relay says of outages, whatever is the default.
    """
    if config.relay is not None and config.redis is not None:
        config = replace(config, redis=replace(config.redis, outage="closed"))
    return "\n".join(_lines(config)).strip() + "\n"


def _lines(config: Config) -> Iterator[str]:
    tables: list[tuple[str, Struct]] = []
    for name, value in asdict(config).items():
        if isinstance(value, Struct):
            tables.append((f"[{name}]", value))
        elif isinstance(value, dict):
            tables += [(f"[{name}.{_name(key)}]", table) for key, table in value.items()]
        elif isinstance(value, list) and value and isinstance(value[0], Struct):
            tables += [(f"[[{name}]]", table) for table in value]
        else:
            yield _line(name, value)
    for heading, table in tables:
        yield ""
        yield heading
        for name, value in asdict(table).items():
            if isinstance(value, Struct):
                yield from _inline(name, value)
            else:
                yield _line(
                    name, parse(value).masked() if isinstance(table, Redis) and name == "url" else value
                )


def _line(name: str, value: object) -> str:
    if value is None:
        return f"# {name} is not set"
    return f"# {name} {_unwritten(value)}" if _unwritten(value) else f"{name} = {_toml(value)}"


def _inline(name: str, table: Struct) -> Iterator[str]:
    """A table on one line, and what cannot stand there as comments."""
    parts = {part: value for part, value in asdict(table).items() if value not in (None, {}, [])}
    unwritten: list[str] = []
    for part, value in parts.items():
        entries = value if isinstance(value, dict) else {}
        without = {key: entry for key, entry in entries.items() if not _unwritten({key: entry})}
        if 0 < len(without) < len(entries):
            unwritten += [
                f"# {name}.{part}.{_name(str(key))} {_unwritten({key: entry})}"
                for key, entry in entries.items()
                if key not in without
            ]
            parts[part] = without
        elif _unwritten(value):
            unwritten.append(f"# {name}.{part} {_unwritten(value)}")
    yield f"{name} = {_toml({part: value for part, value in parts.items() if not _unwritten(value)})}"
    yield from map(printable, unwritten)


#: Beside texts, lists and tables, what TOML has.
_PLAIN = (bool, int, float, datetime.datetime, datetime.date, datetime.time)


def _unwritten(value: object) -> str:
    """What a value is that no file in TOML can have; empty for others."""
    if callable(value):
        code = getattr(inspect.unwrap(value), "__code__", None)
        place = f" ({os.path.basename(code.co_filename)}:{code.co_firstlineno})" if code else ""
        return printable(f"is the function {name_of(value)}{place}")
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            return "has a name that is no text"
        return next(filter(None, map(_unwritten, [*value, *value.values()])), "")
    if isinstance(value, list):
        return next(filter(None, map(_unwritten, value)), "")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "is not Unicode"
    elif type(value) not in _PLAIN:
        return f"is of the type {type(value).__name__}"
    return ""


def _toml(value: Any) -> str:
    """A value on one line of TOML."""
    if isinstance(value, str):
        # TOML's escapes are JSON's; only it forbids one character more.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        entries = ", ".join(f"{_name(name)} = {_toml(part)}" for name, part in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return repr(value)


def _name(name: str) -> str:
    """A key of TOML, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
