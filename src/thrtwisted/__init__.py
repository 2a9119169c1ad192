"""
thrtwisted: a regulating reverse proxy before a slow, synchronous application.

L{Config} says what to do; L{Proxy} does it, with a L{RelayWorker} where it has no way to the application itself. The
gate is of use by itself: L{LocalGate}, L{RedisGate}, L{Ticket}, L{Counter}, L{Rate} and L{run}.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config, ConfigError
    from .gate import Counter, Rate, Ticket, run
    from .gate.local import LocalGate
    from .gate.redis import RedisGate
    from .service import Proxy, RelayWorker

__all__ = [
    "Config",
    "ConfigError",
    "Counter",
    "LocalGate",
    "Proxy",
    "Rate",
    "RedisGate",
    "RelayWorker",
    "Ticket",
    "run",
]

_HOMES = {
    "Config": "config",
    "ConfigError": "config",
    "Counter": "gate",
    "LocalGate": "gate.local",
    "Proxy": "service",
    "Rate": "gate",
    "RedisGate": "gate.redis",
    "RelayWorker": "service",
    "Ticket": "gate",
    "run": "gate",
}


def __getattr__(name: str) -> Any:
    # Looked up when it is asked for: txredisapi, below RedisGate, installs the default reactor when it is imported.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
