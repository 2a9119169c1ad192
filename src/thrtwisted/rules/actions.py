"""
Actions: what a rule does, compiled once from the fields of its C{then}, in their order.

Each is a method of the exchange with a value: a constant, which was tried beforehand, or what a function makes of the
exchange, which the method looks at each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from thrtwisted.config import Config, Then
from thrtwisted.exchange import Exchange, settable
from thrtwisted.functions import PREFIX, Function, function_of
from thrtwisted.keys import Key, compile_key

#: What does it: it returns a Deferred if it has to be waited for, and raises a ValueError if the value is none for it.
Write = Callable[[Exchange, Any], "Deferred[None] | None"]

#: Where Redis is: said in the rules, and meant for all requests.
REDIS = ("set_redis_host", "set_redis_port", "set_redis_uds")
#: What happens on the response's way.
OUTPUT = frozenset(
    (
        "custom_output",
        "set_output_header",
        "add_output_header",
        "del_output_header",
        "set_output_body",
        "set_output_default_body",
    )
)
#: Of these, what holds for the proxy's own answers about errors, too.
ON_ERRORS = frozenset(
    ("set_output_header", "add_output_header", "del_output_header", "set_output_default_body")
)
_CUSTOM = frozenset(("custom_input", "custom_output"))
_PRIORITY = frozenset(("priority", "set_input_priority"))
_NAMED = {"priority": "set_input_priority", "backend": "set_backend"}

#: Who may pass, by the name of the service.
Asks = Mapping[str, Callable[[Exchange], "Deferred[None]"]]


@attrs.frozen
class Action:
    """
    One action of a rule.

    @ivar name: of the field.
    @ivar value: the constant; None with a function.
    """

    name: str
    write: Write
    value: Any = None
    function: Function | None = None


def compile_actions(then: Then, asks: Asks | None = None) -> Iterator[Action]:
    """
    Compile what a rule does.

    @param asks: asks the services that say who may pass.
    @raise ValueError: a value that cannot be used, or a function that cannot be imported.
    """
    for name, value in given(then):
        yield compile_action(name, value, asks or {})


def given(then: Then) -> Iterator[tuple[str, Any]]:
    """The fields that say something, each with its value."""
    for name in then.__struct_fields__:
        value = getattr(then, name)
        if value is not None and value != {} and value != [] and name not in REDIS:
            yield name, value


def compile_action(name: str, value: Any, asks: Asks) -> Action:
    """
    Compile one action.

    @raise ValueError: its value cannot be used, or its function cannot be imported.
    """
    if name in _CUSTOM:
        return Action(name, _nothing, function=function_of(value))
    if name in _PRIORITY and isinstance(value, str):
        if value.startswith(PREFIX):
            return Action(name, _set_found, function=function_of(value))
        return Action(name, _set_nearest, compile_key(value))
    write = _write(name, asks)
    if callable(value):
        return Action(name, write, function=function_of(value))
    return Action(name, write, value)


def try_action(name: str, value: Any, config: Config) -> None:
    """
    See that an action can be done with a constant, as it will be done to each exchange.

    @param value: as the configuration has it; of a table perhaps one entry, as a pair.
    @raise ValueError: it cannot; the message is one line, with the mend.
    """
    action = compile_action(name, value, dict.fromkeys(config.auth, _answered))
    if action.function is not None:
        return
    exchange = Exchange(b"GET", b"/", Headers(), "192.0.2.1", "", routes=routes(config))
    action.write(exchange, action.value)


def routes(config: Config) -> dict[str, str]:
    """The backends by the names that rules may route to: their own, and those of their queues."""
    named = {queue: name for name, backend in config.backend.items() for queue in backend.queues}
    return named | {name: name for name in config.backend}


def _write(name: str, asks: Asks) -> Write:
    if name == "auth":
        return lambda exchange, service: _ask(exchange, service, asks)
    if name == "set_custom_value":
        return _set_custom_value
    if name == "del_custom_value":
        return _del_custom_value
    write: Write = getattr(Exchange, _NAMED.get(name, name))
    return write


def _ask(exchange: Exchange, service: Any, asks: Asks) -> Deferred[None] | None:
    if not isinstance(service, str) or service not in asks:
        raise ValueError(
            f"there is no service {service!r:.100}; add a table [auth.NAME], or correct the name"
        )
    return asks[service](exchange)


def _set_custom_value(exchange: Exchange, value: Any) -> None:
    for key, each in settable.pairs(value, "a custom value"):
        exchange.set_custom_value(key, each)


def _del_custom_value(exchange: Exchange, value: Any) -> None:
    for key in settable.listed(value):
        exchange.del_custom_value(key)


def _set_nearest(exchange: Exchange, key: Key) -> None:
    value = key(exchange)
    if value is not None:
        _set_found(exchange, value)


def _set_found(exchange: Exchange, value: Any) -> None:
    """A number as it is; of a text, what it says, if that is a number."""
    if not isinstance(value, (str, bytes)) or settable.nearest_priority(value) is not None:
        exchange.set_input_priority(value)


def _nothing(exchange: Exchange, value: object) -> None:
    """What a custom function returns is of no interest."""


def _answered(exchange: Exchange) -> Any:
    return None
