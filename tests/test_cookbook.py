"""Every recipe of docs/recipes.md and docs/rules.md does what is shown of it, through a proxy in memory."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from re import MULTILINE, findall, sub
from typing import Any

import msgspec
from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site

from tests.play import Asked, Play, Service
from tests.recipes import Logged, Recipe, Step, Unproven, read
from thrtwisted import toml
from thrtwisted.config import Backend, Config, ConfigError
from thrtwisted.dsl import script

DOCS = Path(__file__).resolve().parent.parent / "docs"

#: What the configurations of the page leave out, as with C{--backend}.
BACKEND = {"app": Backend(url="http://127.0.0.1:8000")}

#: What the page calls them; the modules that they name are beside.
FILE = {"toml": "thr.toml", "python": "thr.py"}

#: How the parts of a configuration are written, of which each has to matter.
PARTS = {
    "toml": {"rule": "[[rule]]", "limit": "[[limit]]"},
    "python": {"rule": "add_rule(", "limit": "add_max_limit("},
}

#: Seconds of real time for what is not expected to happen.
IMPATIENCE = 0.05


def config_of(kind: str, path: Path) -> Config:
    """The configuration that a file has, with the backend of the command line if it has none."""

    def override(config: Config) -> Config:
        return config if config.backend else msgspec.structs.replace(config, backend=BACKEND)

    return toml.load(path, override) if kind == "toml" else script.load([str(path)], override)


def write(path: Path, content: str) -> None:
    """Make a file: of SQL the database."""
    if path.suffix != ".db":
        path.write_text(content)
        return
    with closing(sqlite3.connect(path)) as database:
        database.executescript(content)


@contextmanager
def at_home_in(directory: Path) -> Iterator[None]:
    """While this holds, the directory is the current one, and its modules can be imported; nothing of it stays."""
    environment, before, modules = dict(os.environ), os.getcwd(), set(sys.modules)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(directory))
        os.environ.clear()
        os.environ.update(environment)
        for name in sys.modules.keys() - modules:
            if str(directory) in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]


@contextmanager
def logged() -> Iterator[list[str]]:
    """What the log says of rules while this holds."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        if event.get("log_namespace", "").startswith("thrtwisted.rules"):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)


def pools_of(modules: Iterable[str]) -> Iterator[ConnectionPool]:
    """The pools of connections to databases that modules have made."""
    for name in modules:
        yield from (each for each in vars(sys.modules[name]).values() if isinstance(each, ConnectionPool))


class CookbookCase(TestCase):
    """Tests that play recipes."""

    timeout = 60

    async def verify(self, recipe: Recipe, patience: float = 10.0) -> None:
        """Each configuration of a recipe does all that is shown of it."""
        used: set[str] = set()
        for kind, text in recipe.configurations:
            for steps in recipe.proofs:
                try:
                    used |= await self._verify(recipe, kind, text, steps, patience)
                except AssertionError as error:
                    raise self.failureException(f"{recipe.title}, {kind}: {error}") from None
        files = {name for name in recipe.files if name.endswith(".py")}
        self.assertEqual(files - used, set(), f"{recipe.title}: no configuration imports these")

    async def verify_parts(self, recipe: Recipe) -> None:
        """No configuration would do all that is shown of it without one of its rules or limits."""
        for kind, text in recipe.configurations:
            for part, written in PARTS[kind].items():
                for place in range(text.count(written)):
                    await self._refute(recipe, kind, text, part, place)

    async def _refute(self, recipe: Recipe, kind: str, text: str, part: str, place: int) -> None:
        """See that something that is shown does not happen without one rule or limit."""

        def without(config: Config) -> Config:
            parts = getattr(config, part)
            return msgspec.structs.replace(config, **{part: parts[:place] + parts[place + 1 :]})

        for steps in recipe.proofs:
            try:
                await self._verify(recipe, kind, text, steps, IMPATIENCE, without)
            except (AssertionError, ConfigError):
                return
        self.fail(f"{recipe.title}, {kind}: all happens without {part} {place + 1}, too; show what it does")

    async def _verify(
        self,
        recipe: Recipe,
        kind: str,
        text: str,
        steps: list[Step],
        patience: float,
        changed: Callable[[Config], Config] = lambda config: config,
    ) -> set[str]:
        """
        Let happen what is shown.

        @param changed: changes the configuration.
        @return: the files that were imported.
        """
        directory = Path(os.path.abspath(self.mktemp()))
        directory.mkdir()
        (directory / FILE[kind]).write_text(text)
        for name, content in recipe.files.items():
            write(directory / name, content)
        services = findall(r'environ\["(\w+)"\]', "".join((text, *recipe.files.values())))
        with at_home_in(directory), ExitStack() as at_end:
            log = at_end.enter_context(logged())
            asked: list[Asked] = []
            for name in set(services):
                os.environ[name] = await self.serve(Service(name.lower(), asked.append))
            modules = set(sys.modules)
            config = changed(config_of(kind, directory / FILE[kind]))
            imported = sys.modules.keys() - modules
            for pool in pools_of(imported):
                at_end.callback(pool.close)
            play = Play(config, asked, log, patience)
            at_end.callback(play.end)
            await play.play(steps)
        if any(isinstance(step, Logged) for step in steps):
            self.flushLoggedErrors()
        return {f"{name}.py" for name in imported}

    async def serve(self, service: Service) -> str:
        """The URL of a service."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(service))
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"


class CookbookTests(CookbookCase):
    """Tests for each recipe of the page; a method for each is added below."""


def _test(recipe: Recipe) -> Callable[[CookbookCase], Any]:
    async def test(self: CookbookCase) -> None:
        await self.verify(recipe)
        await self.verify_parts(recipe)

    test.__doc__ = f"{recipe.title}."
    return test


_PAGE = """# Recipes

## One

```toml
[[rule]]
when = {{ path = "/a" }}
then = {{ set_input_header = {{ X-A = "1" }}, set_output_header = {{ X-B = "2" }}, set_output_body = "three" }}
stop = true

[[rule]]
when = {{ path = "/b" }}
then = {{ set_status_code = 403 }}
```

```http
{proof}
```
"""


class ProofsTests(CookbookCase):
    """Pages that show what is not so."""

    def one(self, proof: str) -> Recipe:
        """A page with one recipe."""
        [recipe] = read(_PAGE.format(proof=proof))
        return recipe

    async def test_true(self) -> None:
        """What is so is found to be so: shown in full, or as much of it as matters."""
        for proof in (
            "> GET /a\napp > GET /a\napp > X-A: 1\napp < 200\n< 200\n< X-B: 2\n<\n< three",
            "> GET /a\napp > GET /a",
            "> GET /b\n< 403",
            "> GET /c\n> X-A: 7\napp > GET /c\napp > X-A: 7\n\n> GET /b\n< 403\n\napp < 500\n< 500",
        ):
            await self.verify(self.one(proof), patience=0.0)

    async def test_false(self) -> None:
        """Whatever is shown and is not so, or is so and is not shown, fails the test."""
        for proof, why in {
            "> GET /a\napp > GET /b": "GET /a, not GET /b",
            "> GET /a\napp > POST /a": "GET /a, not POST /a",
            "> GET /a\napp > GET /a\napp > X-A: 2": "X-A",
            "> GET /a\napp > GET /a\napp > X-A: (none)": "X-A",
            "> GET /c\napp > GET /c\napp > X-A: 1": "X-A",
            "> GET /a\napp > GET /a\n< 201": "200, not 201",
            "> GET /a\napp > GET /a\n< 200\n< X-B: 3": "X-B",
            "> GET /a\napp > GET /a\n< 200\n<\n< four": "three",
            "> GET /a\napp > GET /a\n\nslow > GET /a": "slow is not asked",
            "> GET /a": "not shown",
            "> GET /a\n< 200": "no client is answered",
            "> GET /a\n\n> GET /b\n< 403": "not shown",
            "> GET /b": "not shown",
            "> GET /b\napp > GET /b": "app is not asked",
            "> GET /a\napp > GET /a\napp < 500": "not shown",
            "> GET /a\napp < 200": "was not asked",
            "> GET /b\n< 403\n\n< 403": "no client is answered",
            "> GET /b\n< 403\nlog: rule 2": "the log says",
        }.items():
            with self.assertRaises(self.failureException, msg=proof) as caught:
                await self.verify(self.one(proof), patience=0.0)
            self.assertIn(why, str(caught.exception), proof)

    async def test_parts(self) -> None:
        """A rule of which nothing is shown fails the test."""
        both = "> GET /a\napp > GET /a\napp > X-A: 1\n\n> GET /b\n< 403"
        await self.verify_parts(self.one(both))
        for proof, why in {both.partition("\n\n")[0]: "rule 2", "> GET /b\n< 403": "rule 1"}.items():
            await self.verify(self.one(proof), patience=0.0)
            with self.assertRaises(self.failureException) as caught:
                await self.verify_parts(self.one(proof))
            self.assertIn(f"without {why}", str(caught.exception))

    async def test_unused(self) -> None:
        """A module that nothing imports fails the test."""
        page = _PAGE.format(proof="> GET /b\n< 403").replace("```http", "```python\n# a.py\n```\n\n```http")
        [recipe] = read(page)
        with self.assertRaises(self.failureException) as caught:
            await self.verify(recipe, patience=0.0)
        self.assertIn("a.py", str(caught.exception))

    def test_unproven(self) -> None:
        """A recipe without a proof, or with one that nobody can read, is no recipe."""
        page = _PAGE.format(proof="> GET /a")
        for text, why in {
            page.replace("```http\n> GET /a\n```", ""): "One: nothing shows",
            page.replace("> GET /a", ""): "One: nothing shows",
            page.replace("> GET /a", "app > GET /a"): "One: nothing shows",
            page.replace("```http", "```text"): "block of text",
            page.replace("```toml", "```yaml"): "block of yaml",
            page.replace("```toml", "```"): "One: there is no configuration",
            page.replace("> GET /a", "> GET"): "neither begins",
            page.replace("> GET /a", "GET /a"): "cannot be read",
            page.replace("> GET /a", "> GET /a\n> X-A"): "no header",
            page + "\n## Two\n\nJust believe it.\n": "Two: there is no configuration",
        }.items():
            self.assertNotEqual(text, page, why)
            with self.assertRaises(Unproven) as caught:
                list(read(text))
            self.assertIn(why, str(caught.exception))

    def test_other_pages(self) -> None:
        """On other pages the sections with configurations have to be proven, and the others need none."""
        page = _PAGE.format(proof="> GET /a").replace("# Recipes", "# Rules") + "\n## Two\n\nIt is so.\n"
        self.assertEqual([recipe.title for recipe in read(page)], ["One"])
        with self.assertRaises(Unproven):
            list(read(page.replace("> GET /a", "")))


class PageTests(SynchronousTestCase):
    """The page as a whole."""

    def test_listed(self) -> None:
        """The list at the top of the recipes names each of them."""
        table, _, rest = (DOCS / "recipes.md").read_text("utf-8").partition("\n## ")
        titles = findall(r"^## (.+)$", "## " + rest, MULTILINE)
        anchors = [sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles]
        self.assertEqual(sorted(findall(r"\(#([^)]+)\)", table)), sorted(anchors))


RECIPES = [recipe for name in ("rules.md", "recipes.md") for recipe in read((DOCS / name).read_text("utf-8"))]

for _recipe in RECIPES:
    _name = "test_" + "_".join(findall(r"[a-z0-9]+", _recipe.title.lower()))
    assert not hasattr(CookbookTests, _name), f"two recipes are called {_recipe.title}"
    setattr(CookbookTests, _name, _test(_recipe))
