"""
Patterns of configurations in Python: what a value may be, other than one text.
"""

from __future__ import annotations

import re

import attrs

from thrtwisted.exchange.settable import encoded
from thrtwisted.match import compile_match, is_like_network, literal
from thrtwisted.structure import found

#: Flags of a regular expression, which may stand nowhere but at its start.
_FLAGS = re.compile(r"(?:\(\?[aiLmsux]+\))*")


@attrs.frozen
class Pattern:
    """
    What a value may be, other than a text.

    @ivar kind: what it was made by: C{glob}, C{regexp}, C{network} or C{diff}.
    """

    kind: str
    arguments: tuple[object, ...]

    def entries(self) -> list[str]:
        """
        In the words of TOML.

        @raise ValueError: it can match nothing, or cannot be read; the message is one line, with the mend.
        """
        if not self.arguments:
            raise ValueError(f"{self.kind}() is empty; name what it stands for")
        return [entry for argument in self.arguments for entry in self._entries(argument)]

    def _entries(self, argument: object) -> list[str]:
        if self.kind == "diff":
            if isinstance(argument, Pattern) and argument.kind != "diff":
                return [f"not:{entry}" for entry in argument.entries()]
            if not isinstance(argument, str):
                raise ValueError(f"diff(…) takes texts and patterns, not {found(argument)}")
            return [f"not:{_literal(argument)}"]
        if not isinstance(argument, str):
            raise ValueError(f"{self.kind}(…) takes texts, not {found(argument)}")
        if self.kind == "regexp":
            return [f"regexp:{_to_the_end(argument)}"]
        return [f"net:{argument}" if self.kind == "network" else f"glob:{argument}"]

    def match(self, text: str) -> bool:
        """
        Whether a text is accepted.

        @raise ValueError: as L{entries}.
        """
        return compile_match(self.entries()).matches(encoded(text))


def glob(*patterns: str) -> Pattern:
    """Any text that one of the patterns describes: C{*} is any text, C{?} any character, C{[abc]} one of these."""
    return Pattern("glob", patterns)


def regexp(*patterns: str) -> Pattern:
    """Any text at whose start one of the regular expressions matches; C{$} at the end, for the whole text."""
    return Pattern("regexp", patterns)


def network(*networks: str) -> Pattern:
    """Any address in one of the networks, such as C{10.0.0.0/8}."""
    return Pattern("network", networks)


def diff(*texts: str | Pattern) -> Pattern:
    """Any value but these texts, and but those that these patterns accept."""
    return Pattern("diff", texts)


def _to_the_end(expression: str) -> str:
    """The regular expression that matches whole texts at whose start another one matches."""
    compile_match(f"regexp:{expression}")  # as it stands: brackets around it could make sense of nonsense
    flags = _FLAGS.match(expression)
    assert flags is not None
    rest = expression[flags.end() :]
    end = "\n" if "x" in flags[0] else ""  # of a comment
    return f"{flags[0]}(?:{rest}{end})(?s:.*)"


def match_of(value: object) -> list[str]:
    """
    What a value of a request may be, in the words of TOML.

    @param value: a text, taken as it stands; a pattern; or a list of these, of which it may be any.
    @raise ValueError: it is none of them, or cannot be read; the message is one line, with the mend.
    """
    if isinstance(value, list | tuple) and value:
        return [entry for each in value for entry in _alternative(each)]
    return _entries(value)


def _alternative(value: object) -> list[str]:
    if isinstance(value, Pattern) and value.kind == "diff":
        raise ValueError("diff(…) cannot be one of several; write it alone, with all the texts")
    return _entries(value)


def _entries(value: object) -> list[str]:
    if isinstance(value, str):
        return [_literal(value)]
    if isinstance(value, Pattern):
        return value.entries()
    if callable(value):
        raise ValueError(
            "a function says here nothing; it is the criterion custom, and is given the exchange"
        )
    raise ValueError(
        f"must be a text, a list of them, glob(…), regexp(…), network(…) or diff(…), not {found(value)}"
    )


def _literal(text: str) -> str:
    if is_like_network(text):
        raise ValueError(f'"{text}" is a network; write network("{text}"), or a regexp(…) for just this text')
    return literal(text)
