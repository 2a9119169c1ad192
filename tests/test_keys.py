"""Tests of thrtwisted.keys, beside those of what has keys."""

from __future__ import annotations

import sys
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.exchange import Exchange
from thrtwisted.keys import compile_key, headers_of


async def later(found: Exchange) -> str:
    """What a key function must not be."""
    return "x"


class KeyTests(SynchronousTestCase):
    """Keys that cannot be read."""

    def test_mistakes(self) -> None:
        """Each is refused, with the mend, on one line."""
        broken = ModuleType("thrtwisted_test_value")
        broken.__dict__["value"] = 3
        sys.modules[broken.__name__] = broken
        self.addCleanup(sys.modules.pop, broken.__name__)
        for key, message in [
            ("", "write one of"),
            ("headr:Foo", 'did you mean "header:NAME"?'),
            ("Method", 'did you mean "method"?'),
            ("header", 'write "header:NAME"'),
            ("header:", 'write "header:NAME"'),
            ("header:a b", "the name of a header"),
            ("header: Foo", "the name of a header"),
            ("header:X_User_Id", 'write "X-User-Id"'),
            ("cookie:é", "the name of a cookie"),
            ("path:/x", 'write "path"'),
            ("client:", 'write "client"'),
            ("python:nosuchmodule", "lacks the function"),
            ("python:nosuchmodule:f", "cannot be imported (ModuleNotFoundError"),
            ("python::f", "cannot be imported (ValueError"),
            ("python:.x:f", "cannot be imported (TypeError"),
            ("python:os:nosuch", 'has no "nosuch"'),
            ("python:thrtwisted_test_value:value", "is not a plain function"),
            (f"python:{__name__}:later", "is not a plain function"),
        ]:
            error = self.assertRaises(ValueError, compile_key, key)
            self.assertIn(message, str(error))
            self.assertNotIn("\n", str(error))

    def test_headers(self) -> None:
        """Of keys of all kinds, those of headers are told, as they are compared."""
        keys = ["header:X-User", "path", None, later, "cookie:header:a", "header:B"]
        self.assertEqual(headers_of(keys), {b"x-user", b"b"})
