"""Tests for the public names of the package, and for what asking for them loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import thrtwisted

#: Says what has been imported once the code before it has run.
LOADED = "; import json, sys; print(json.dumps(sorted(sys.modules)))"


def loaded_by(code: str) -> set[str]:
    """The modules that a new Python has loaded after this."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    command = [sys.executable, "-W", "error", "-c", code + LOADED]
    output = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path})
    return set(json.loads(output.stdout))


class PublicTests(SynchronousTestCase):
    """Tests for L{thrtwisted}."""

    def test_names(self) -> None:
        """Every public name is there, and says what it is."""
        self.assertEqual(
            sorted(thrtwisted.__all__),
            [
                *(
                    "Config",
                    "ConfigError",
                    "Counter",
                    "LocalGate",
                    "Proxy",
                    "Rate",
                    "RedisGate",
                    "RelayWorker",
                ),
                *("Ticket", "run"),
            ],
        )
        for name in thrtwisted.__all__:
            public = getattr(thrtwisted, name)
            self.assertEqual(public.__name__, name)
            self.assertTrue(public.__module__.startswith("thrtwisted."))
            self.assertTrue(public.__doc__)

    def test_star(self) -> None:
        """All of them can be imported at once."""
        names: dict[str, object] = {}
        exec("from thrtwisted import *", names)
        self.assertEqual(set(names) - {"__builtins__"}, set(thrtwisted.__all__))

    def test_unknown(self) -> None:
        """A name that is not there is missed as in any module."""
        with self.assertRaisesRegex(AttributeError, "module 'thrtwisted' has no attribute 'Nothing'"):
            thrtwisted.Nothing  # noqa: B018
        with self.assertRaises(ImportError):
            exec("from thrtwisted import Nothing")

    def test_package_alone(self) -> None:
        """The package alone loads none of its modules, and nothing of Twisted."""
        modules = loaded_by("import thrtwisted")
        self.assertEqual([name for name in modules if name.startswith(("thrtwisted.", "twisted."))], [])
        self.assertNotIn("txredisapi", modules)

    def test_no_reactor(self) -> None:
        """Configuration and gate leave the choice of a reactor, and the client of Redis, to the program."""
        modules = loaded_by(
            "from thrtwisted import Config, ConfigError, Counter, LocalGate, Rate, Ticket, run"
        )
        self.assertNotIn("twisted.internet.reactor", modules)
        self.assertNotIn("txredisapi", modules)

    def test_chosen_reactor(self) -> None:
        """A program that installs its reactor first may use everything."""
        modules = loaded_by(
            "from thrtwisted import Config; from twisted.internet import asyncioreactor; asyncioreactor.install(); "
            "from thrtwisted import *"
        )
        self.assertIn("twisted.internet.asyncioreactor", modules)
        self.assertIn("txredisapi", modules)
        self.assertNotIn("twisted.internet.epollreactor", modules)
