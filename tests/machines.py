"""Runs Hypothesis's state machines under trial, which does not print what is noted with an exception."""

from __future__ import annotations

from typing import Any

from hypothesis import settings as Settings
from hypothesis import stateful


def run_state_machine_as_test(machine: Any, *, settings: Settings) -> None:
    """
    As Hypothesis's.

    @raise AssertionError: what has failed, with the steps that lead there.
    """
    try:
        stateful.run_state_machine_as_test(machine, settings=settings)
    except Exception as error:
        raise AssertionError("\n".join([repr(error), *getattr(error, "__notes__", [])])) from error
