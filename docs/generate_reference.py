"""
The reference of the configuration, in Markdown, from its structures: C{python docs/generate_reference.py}.

C{--write} puts it where it belongs, which a test looks after.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

from msgspec import NODEFAULT, Struct
from msgspec.inspect import Metadata, type_info
from msgspec.structs import FieldInfo, fields

from thrtwisted import config
from thrtwisted.structure import wanted

HERE = Path(__file__).parent
REFERENCE = HERE / "configuration.md"
EXAMPLE = HERE / "example.toml"

TABLES: list[tuple[str, type[Struct]]] = [
    ("At the top of the file", config.Config),
    ("`[redis]`", config.Redis),
    ("`[relay]`", config.Relay),
    ("`[backend.NAME]`", config.Backend),
    ("`[auth.NAME]`", config.Auth),
    ("`[bounds]`", config.Bounds),
    ("`[queue]`", config.Queue),
    ("`[[limit]]`", config.Limit),
    ("`[[rule]]`", config.Rule),
    ("`when` of a rule", config.When),
    ("`then` of a rule", config.Then),
]

INTRODUCTION = """\
<!-- Written by docs/generate_reference.py --write: change that, or src/thrtwisted/config.py. -->

# Configuration

The proxy reads one file, `twistd -n thrproxy --config FILE`. The flags `--listen`, `--redis` and `--backend`
override what it says. It is TOML, or Python where its name ends in `.py`: there functions may stand for values, and
several files may be one configuration. [Coming from THR](coming-from-thr.md) shows such files; `configure` in them
takes all that stands here, as plain data. In TOML:

```toml
{example}```

`--check` reads the file, prints the configuration as it will be used, with every default, and ends: with status 0,
or with status 2 and one line for each mistake:

```
thr.toml:12: limit 2 ("per-user"), max_concurrent: must be a whole number, not the text "two"
thr.toml:18: backend.app: unknown name "conect_timeout"; did you mean "connect_timeout"?
```

With a mistake the proxy does not start. A program builds the same from the same structures,
`Config(backend={{"app": Backend(url="http://127.0.0.1:9999")}})`, with the same checks.

## Matches

A limit's `match` and each criterion of a rule's `when` is a text or a list of texts.

| text | accepts |
| --- | --- |
| `"bar"` | just this, letter by letter |
| `"glob:a*"` | `*` is any text (also with slashes), `?` any character, `[abc]` one of these |
| `"regexp:[a-z]+"` | the regular expression (Python's) must match the whole value |
| `"net:10.0.0.0/8"` | an address in this network, or of an address just this, however it is written |
| `"not:bar"` | all but this; after `not:` may also stand `glob:`, `regexp:`, `net:` or `text:` |
| `"text:glob:a*"` | just `glob:a*`: what follows, letter by letter, even if it looks like one of these |

Of a list, one entry must accept the value and no `not:` entry may stand against it: `["GET", "HEAD"]` is either;
`["glob:/batch/*", "not:/batch/status"]` is all below `/batch/` but one; `["not:a", "not:b"]` is all but two. What the
request does not have, such as a header, is accepted only where all entries are `not:`. Hosts are compared without
regard to case, all else letter by letter; bytes are read as UTF-8. Another word before a colon, as in `"foo:bar"`, is
plain text; but `re:`, `regex:` and other slips of the words above are refused, as is a network without `net:`.

Matches say what is counted, and which way a request goes; they are no access control. Paths are compared as the client
has written them, and an application may take `/%61dmin`, `//admin` or `/x/../admin` for `/admin`.

## Keys

A limit's `key` says what in a request is counted. Requests with the same value share the limit's slots; with `match`,
all requests that match do, and the others are free of this limit. A request without the value is free of it too, unless
`default` says what counts instead. A request may fall under any number of limits, and then needs a slot of each.

| key | is |
| --- | --- |
| `"header:NAME"` | the header's value; of several, joined with a comma and a blank |
| `"cookie:NAME"` | the value of the first cookie of this name |
| `"query:NAME"` | the first query argument of this name, percent-decoded |
| `"path"` | the target's path, as sent, without the query |
| `"method"` | the method, as sent |
| `"host"` | the Host header in lower case, without the port and a dot at its end |
| `"client"` | the address of the client; a client on a unix socket has none |
| `"remote_ip"` | the address that the connection comes from: a proxy's, if there is one before this |
| `"python:module:function"` | what the function returns for the exchange: `str`, `bytes`, or `None` for none |

The function is called for every request, in the proxy's one thread: it must not wait for anything. If it raises an
exception, that is logged with the limit's name and the request is answered 500. twistd finds the module in the
directory of the file, and on `PYTHONPATH`. The exchange offers `method`, `target`, `path`, `query`, `host` and
`headers` (bytes, and Twisted's `Headers`), `client` (a text), `backend` and `priority`; and the methods `header(name)`,
`cookie(name)` and `query_argument(name)`, which give bytes if the name is bytes and a text if it is one, or `None`
where there is none. [Rules](rules.md) tell of all that functions may do.

```python
def tenant(exchange):
    # Each first part of the path has its own slots: /shop/basket and /shop/pay share them.
    return exchange.path.split(b"/")[1] or None
```

## Weights

A request takes one slot of each limit that it falls under, or as many as the limit's `weight` says. A number is the
weight of each request; a function says it for each, and so lets large requests count for more than small ones:

```python
def months(exchange):
    # weight = "python:reports:months": the report of a year takes as many slots as those of twelve months.
    return 12 if exchange.query_argument(b"span") == b"year" else 1
```

It returns a whole number from 1, and is called as key functions are; if it raises an exception or returns anything
else, that is logged with the limit's name and the request is answered 500. A request that is heavier than
`max_concurrent` runs alone. While a heavy request waits, slots that come free are kept for it until there are enough:
lighter ones that come after it, or have a worse priority, do not pass it, but better ones do.

## Full queues

`queue.max_waiting` bounds how many requests wait in all, a limit's `max_waiting` how many wait that share its slots:
of one user, for instance. One more is answered 503 with `Retry-After`, unless there are slots for it at once; the
others still find room in the queue. With `max_waiting = 0` nobody waits for this limit.

## Rates and fairness

A limit may also say how many in a time, with `rate`, `burst` and `over`; and `queue.fair` lets users take turns.
[Regulation](regulation.md) tells how they work together, and what `headers = true` tells clients.

## Rules

Rules apply in order, before the limits are looked at. Each changes the request for all that comes after it: later
rules, keys and the backend see the headers that it has set. A header that is set replaces all of the same name. Headers
of the connection itself (`Connection`, `Content-Length`, `Transfer-Encoding` and the like) cannot be set; `Host` can.

## Tables

"Required" is what must be there; what is absent is not limited, not looked at, or has the defaults
of its own table. Times are in seconds, up to 1,000,000.
"""

EDITORS = """
## In an editor

Editors with a TOML language server (Taplo, Even Better TOML) complete and check the file while it is written, with the
JSON Schema of the configuration:

```
python -c "from thrtwisted.config import schema; print(schema().decode())" > thr.schema.json
```

and, as the first line of the file, `#:schema ./thr.schema.json`.
"""


def reference() -> str:
    """The whole page."""
    introduction = INTRODUCTION.format(example=EXAMPLE.read_text(encoding="utf-8"))
    return "\n".join([introduction, *(line for table in TABLES for line in section(*table))]) + EDITORS


def section(heading: str, structure: type[Struct]) -> Iterator[str]:
    """One table of the configuration."""
    hints = get_type_hints(structure, include_extras=True)
    yield f"### {heading}"
    yield ""
    yield str(structure.__doc__).strip()
    yield ""
    yield "| name | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for field in fields(structure):
        kind = type_info(hints[field.name])
        assert isinstance(kind, Metadata)
        description = (kind.extra_json_schema or {})["description"]
        # A proxy without a backend is refused; the structure has an empty default so that --backend can fill it. And
        # a backend without a URL is, but for the front of a relay.
        required = (structure, field.name) in ((config.Config, "backend"), (config.Backend, "url"))
        value = "required" if required else default(field)
        cells = [f"`{field.name}`", wanted(kind, ranged=True), value, description]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def default(field: FieldInfo) -> str:
    """A field's default, as it would be written."""
    if field.required:
        return "required"
    if field.default is NODEFAULT or field.default is None or isinstance(field.default, Struct):
        return "absent"
    if isinstance(field.default, bool):
        return "`true`" if field.default else "`false`"
    return f'`"{field.default}"`' if isinstance(field.default, str) else f"`{field.default}`"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        REFERENCE.write_text(reference(), encoding="utf-8")
    else:
        print(reference(), end="")
