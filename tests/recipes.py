"""
Pages of recipes, read: each section with its configurations and with what one sees of it.

What one sees is a block of C{http}, which is told from top to bottom as time goes::

    > GET /orders (from 192.0.2.1)      a client sends a request
    > X-Debug: 1
    app > GET /orders                   the backend "app" gets it...
    app > X-Debug: (none)               ...without this header
    app < 200                           and answers
    app <
    app < its body
    after 2 s                           time goes by
    log: rule 1: a line of the log
    < 200                               the client gets an answer
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs
from twisted.web.http_headers import Headers

#: A header that is not there.
NONE = "(none)"

_HEADING = re.compile(r"^#{2,} (.+)\n", re.MULTILINE)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"(?:#|--) (\S+\.\w+)\n")
_MESSAGE = re.compile(r"(?:(?P<who>[a-z]\w*) )?(?P<way>[<>])(?: (?P<text>.*))?")
_REQUEST = re.compile(r"(?P<line>[A-Z]+ /\S*)(?: \(from (?P<address>\S+)\))?")
_RESPONSE = re.compile(r"[2-5]\d\d")
_FIELD = re.compile(r"([\w-]+): (.*)")
_AFTER = re.compile(r"after (\d+(?:\.\d+)?) (ms|s)")

#: The title of a page whose sections are recipes, each of them.
RECIPES = "# Recipes\n"


class Unproven(Exception):
    """A page shows what nobody could verify."""


@attrs.define
class Message:
    """
    A request or a response, or a part of it.

    @ivar who: the backend or service that gets or gives it; the empty string for a client.
    @ivar way: C{>} for a request, C{<} for a response.
    @ivar line: method and target, or the status.
    @ivar address: of the client.
    @ivar body: None if it is not shown.
    """

    who: str
    way: str
    line: str
    address: str = "192.0.2.1"
    fields: list[tuple[str, str]] = attrs.field(factory=list)
    body: str | None = None

    def headers(self) -> Headers:
        """The header fields, to be sent."""
        headers = Headers()
        for name, value in self.fields:
            headers.addRawHeader(name, value)
        return headers

    def expected(self) -> dict[str, list[str]]:
        """The values of each header that is shown; none for one that is not to be there."""
        found: dict[str, list[str]] = {}
        for name, value in self.fields:
            found.setdefault(name, []).extend([] if value == NONE else [value])
        return found


@attrs.frozen
class After:
    """Time that goes by."""

    seconds: float


@attrs.frozen
class Logged:
    """What the log says."""

    text: str


Step = Message | After | Logged


@attrs.frozen
class Recipe:
    """
    A section of a page.

    @ivar configurations: kind (C{toml} or C{python}) and text of each; they do the same.
    @ivar files: other files that they need, by name.
    @ivar proofs: what one sees of each of them.
    """

    title: str
    configurations: list[tuple[str, str]]
    files: dict[str, str]
    proofs: list[list[Step]]


def read(page: str) -> Iterator[Recipe]:
    """
    Read a page: of one that is called otherwise, the sections with a configuration.

    @raise Unproven: one of these, or any section of a page of recipes, does not show what one sees of it, or shows what
        cannot be read.
    """
    _, *parts = _HEADING.split(page)
    titles, texts = parts[::2], parts[1::2]
    for title, text in zip(titles, texts, strict=True):
        recipe = _recipe(title, text)
        if recipe.configurations or recipe.files or recipe.proofs or page.startswith(RECIPES):
            if not recipe.configurations:
                raise Unproven(f"{title}: there is no configuration; write one, in toml or python")
            if not any(step for proof in recipe.proofs for step in proof if _is_request(step)):
                raise Unproven(f"{title}: nothing shows that it works; add a block of http with a request")
            yield recipe


def _recipe(title: str, text: str) -> Recipe:
    recipe = Recipe(title, [], {}, [])
    for kind, content in _FENCED.findall(text):
        named = _FILE.match(content)
        if kind == "http":
            recipe.proofs.append(list(_steps(title, content)))
        elif kind in ("python", "sql") and named:
            recipe.files[named[1]] = content
        elif kind in ("toml", "python"):
            recipe.configurations.append((kind, content))
        elif kind:
            raise Unproven(f"{title}: nothing is known of a block of {kind}; write another, or none")
    return recipe


def _steps(title: str, content: str) -> Iterator[Step]:
    """What a block tells; a message is complete before it is given."""
    message: Message | None = None
    for text in map(str.strip, content.splitlines()):
        if not text and message is not None:
            yield message
            message = None
        if not text:
            continue
        said = _MESSAGE.fullmatch(text)
        if said is not None:
            who, way, rest = said["who"] or "", said["way"], said["text"] or ""
            line = (_REQUEST if way == ">" else _RESPONSE).fullmatch(rest)
            is_same = message is not None and (message.who, message.way) == (who, way)
            if message is not None and is_same and (line is None or message.body is not None):
                _add(title, message, rest)
                continue
            if line is None:
                raise Unproven(f"{title}: {text!r} neither begins a message nor belongs to one; correct it")
            if message is not None:
                yield message
            message = Message(who, way, line["line"] if way == ">" else rest)
            if way == ">" and line["address"]:
                message.address = line["address"]
            continue
        if message is not None:
            yield message
            message = None
        after = _AFTER.fullmatch(text)
        if after is not None:
            yield After(float(after[1]) / (1000 if after[2] == "ms" else 1))
        elif text.startswith("log: "):
            yield Logged(text.removeprefix("log: "))
        else:
            raise Unproven(f"{title}: {text!r} cannot be read; correct it")
    if message is not None:
        yield message


def _add(title: str, message: Message, text: str) -> None:
    """A line of a message that has begun."""
    field = _FIELD.fullmatch(text)
    if message.body is not None:
        message.body += text + "\n"
    elif not text:
        message.body = ""
    elif field is not None:
        message.fields.append((field[1], field[2]))
    else:
        raise Unproven(f"{title}: {text!r} is no header; correct it, or leave a line free before a body")


def _is_request(step: Step) -> bool:
    return isinstance(step, Message) and not step.who and step.way == ">"
