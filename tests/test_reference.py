"""Tests of docs/configuration.md."""

from __future__ import annotations

import runpy
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.toml import load

DOCS = Path(__file__).parent.parent / "docs"


class ReferenceTests(SynchronousTestCase):
    """The reference of the configuration."""

    def test_up_to_date(self) -> None:
        """It is what the structures give; if not, run C{python docs/generate_reference.py --write}."""
        reference = runpy.run_path(str(DOCS / "generate_reference.py"))["reference"]()
        self.assertEqual((DOCS / "configuration.md").read_text(encoding="utf-8"), reference)

    def test_example(self) -> None:
        """Its example is a configuration without mistakes."""
        config = load(DOCS / "example.toml")
        self.assertEqual([limit.name for limit in config.limit], ["foo", "per-user"])
        self.assertEqual(len(config.rule), 3)
