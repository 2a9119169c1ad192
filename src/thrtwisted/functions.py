"""Functions of the user's, which a configuration names or a program gives."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.logger import Logger

from .errors import RuleFailed

T = TypeVar("T")

#: What is called with an exchange.
Function = Callable[[Any], object]

PREFIX = "python:"
FORM = '"python:module:function"'

#: What is wrong with a function that yields, and the mend.
GENERATOR = "the function is a generator, and nothing runs it; decorate it with inlineCallbacks"

_log = Logger()


def imported(name: str, *, plain: bool = False) -> Function:
    """
    Import a function.

    @param name: C{module:function}.
    @param plain: one that does not wait.
    @raise ValueError: it cannot be imported, or is none; the message is one line, with the mend.
    """
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise ValueError(f'"python:{name}" lacks the function; write {FORM}')
    try:
        function: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f'the module "{module_name}" cannot be imported ({reason}); correct it, or set PYTHONPATH'
        ) from None
    for part in function_name.split("."):
        try:
            function = getattr(function, part)
        except AttributeError:
            raise ValueError(
                f'the module "{module_name}" has no "{function_name}"; correct the name'
            ) from None
    if not callable(function) or (plain and inspect.iscoroutinefunction(function)):
        kind = "a plain function" if plain else "a function"
        raise ValueError(f'"{function_name}" of the module "{module_name}" is not {kind}; name one')
    return function


def function_of(value: str | Function) -> Function:
    """
    A function, of its name or itself.

    @param value: C{python:module:function}, or a function.
    @raise ValueError: it is neither, cannot be imported, or is a generator.
    """
    if isinstance(value, str) and not value.startswith(PREFIX):
        raise ValueError(f"not a function; write {FORM}")
    function = imported(value.removeprefix(PREFIX)) if isinstance(value, str) else value
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(GENERATOR)
    return function


def plain(function: Function) -> Function:
    """
    See that a function of a program's does not wait.

    @raise ValueError: it is C{async}.
    """
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        raise ValueError("the function is async, and nothing waits for it; name a plain one")
    return function


def found(what: str, find: Callable[[Any], T], exchange: object) -> T:
    """
    What a function that does not wait finds in an exchange.

    @param what: it is, for the log.
    @raise RuleFailed: it has raised an exception, which is logged.
    """
    try:
        return find(exchange)
    except (Exception, SystemExit):  # sys.exit() too ends the function, and nothing else
        _log.failure("{function} failed", function=what)
        raise RuleFailed() from None


def name_of(function: Callable[..., object]) -> str:
    """What a function is called, for people."""
    return getattr(function, "__qualname__", None) or type(function).__name__
