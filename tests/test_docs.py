"""What the documents say is true."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted import toml

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Their configurations leave out the backend; tests.test_cookbook runs them.
COOKBOOK = {ROOT / "docs" / name for name in ("rules.md", "recipes.md")}


class PagesTests(SynchronousTestCase):
    """Tests for README.md and the pages in docs/."""

    def test_configurations(self) -> None:
        """A configuration that the README or the architecture shows can be used as it stands."""
        for page in PAGES:
            if page in COOKBOOK:
                continue
            for text in re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
                toml.loads(text, page.name)

    def test_links(self) -> None:
        """A link to a file of the repository leads to one."""
        for page in PAGES:
            for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
                self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")

    def test_anchors(self) -> None:
        """A link into a page leads to one of its headings."""
        for page in PAGES:
            for name, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text("utf-8")):
                text = (page.parent / name if name else page).read_text("utf-8")
                anchors = {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
                self.assertIn(anchor, anchors, f"{page.name}: {name}#{anchor}")

    def test_modules(self) -> None:
        """The architecture names every module of the package, and none that is not there."""
        package = ROOT / "src" / "thrtwisted"
        names = {path.name for path in package.rglob("*.[pl]*") if path.suffix in (".py", ".lua")}
        page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
        named = set(re.findall(r"\b[a-z]+\.(?:py|lua)\b", page))
        self.assertEqual(named, names - {"__init__.py"})


def _anchor(heading: str) -> str:
    """What GitHub calls the place of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
