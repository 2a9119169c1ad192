"""Tests of thrtwisted.functions."""

from __future__ import annotations

from functools import partial, wraps
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.functions import function_of, imported, name_of, plain


def some(exchange: object) -> object:
    """A function of the user's."""
    return exchange


async def waiting(exchange: object) -> object:
    """Another, which waits."""
    return exchange


@wraps(waiting)
def wrapped(exchange: object) -> Any:
    """The same, decorated."""
    return waiting(exchange)


class Made:
    """What makes functions."""

    def method(self, exchange: object) -> object:
        """A function."""
        return exchange

    def __call__(self, exchange: object) -> object:
        return exchange


class FunctionTests(SynchronousTestCase):
    """Functions, by their names and as they are."""

    def test_imported(self) -> None:
        """A function is found by module and name, also inside of something else, and may wait where that is allowed."""
        self.assertIs(imported(f"{__name__}:some", plain=True), some)
        self.assertIs(imported(f"{__name__}:Made.method"), Made.method)
        self.assertIs(imported(f"{__name__}:waiting"), waiting)
        self.assertIs(function_of(f"python:{__name__}:some"), some)
        self.assertIs(function_of(some), some)

    def test_not_imported(self) -> None:
        """What is none is refused in one line with the mend."""
        for name, message in [
            ("module", "lacks the function; write"),
            ("absent.module:f", "cannot be imported (ModuleNotFoundError"),
            (f"{__name__}:absent", 'has no "absent"'),
            (f"{__name__}:__name__", "is not a plain function; name one"),
            (f"{__name__}:waiting", "is not a plain function; name one"),
        ]:
            error = str(self.assertRaises(ValueError, imported, name, plain=True))
            self.assertIn(message, error)
            self.assertNotIn("\n", error)
        self.assertIn(
            "is not a function", str(self.assertRaises(ValueError, imported, f"{__name__}:__name__"))
        )
        self.assertIn("not a function; write", str(self.assertRaises(ValueError, function_of, "some")))

    def test_plain(self) -> None:
        """Where nothing waits no function may wait."""
        self.assertIs(plain(some), some)
        for function in (waiting, wrapped):
            self.assertIn("nothing waits for it", str(self.assertRaises(ValueError, plain, function)))

    def test_names(self) -> None:
        """Functions are called what people call them."""
        self.assertEqual(
            [name_of(each) for each in (some, Made().method, Made(), partial(some))],
            ["some", "Made.method", "Made", "partial"],
        )
