"""
Rules: what the configuration changes on an exchange before its limits are looked at, and on its response.

The rules are compiled once; each is some criteria, which must all hold, and what to do then. Functions of the user's
may take part, and be waited for; without any, an exchange is done with at once.

A rule's actions are done in stages: C{custom_input} before the others, and after a service was asked (C{auth}) those
that can use what it has said. The functions of one stage are called together and waited for together; then its actions
take effect, in their order.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, TimeoutError, inlineCallbacks, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from thrtwisted.config import Config, Match, Rule, When
from thrtwisted.errors import ExchangeError, RuleFailed
from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.forward.headers import drop_alike
from thrtwisted.functions import Function, function_of
from thrtwisted.keys import Key, compile_key, headers_of
from thrtwisted.match import CompiledMatch, compile_match

from .actions import ON_ERRORS, OUTPUT, REDIS, Action, Asks, compile_actions, routes
from .waiting import Abandoned, Failed, call, detached, mend, together, waits

if TYPE_CHECKING:
    from thrtwisted.auth import Authenticator

#: What finds a value in an exchange, and what the value must be.
Criterion = tuple[Key, CompiledMatch]

#: Actions whose functions are called together.
Stage = tuple[Action, ...]

#: Fields of an answer about an error, beside Proxy-Status, which no rule can change: when to come again, and that it
#: must not be kept, though the rule's other answers may be.
_OF_ERROR = (b"Retry-After", b"Cache-Control")
#: Those that say what the proxy's own words are.
_OF_WORDS = (b"Content-Type", b"Content-Encoding")

_HEADERS = ("set_input_header", "add_input_header", "del_input_header")


class Rules:
    """
    The rules of a configuration, ready for each exchange.

    @ivar headers: the names, in lower case, of the headers that are looked at or changed.
    @ivar routes: the backends by the names that rules may route to; for each exchange.
    @ivar have_functions: functions of the user's take part.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        authenticators: Mapping[str, Authenticator] | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param config: as L{thrtwisted.check} has found it good: its constants are not tried again.
        @param authenticators: the services that say who may pass, by name.
        @param clock: tells the time for C{rule_timeout}; None: functions may take for ever.
        @raise ValueError: a rule that cannot be read.
        """
        authenticators = authenticators or {}
        asks = {name: authenticator.check for name, authenticator in authenticators.items()}
        self.routes: Mapping[str, str] = routes(config)
        self._clock = clock
        self._timeout = config.rule_timeout
        self._rules = tuple(
            compile_rule(rule, f"rule {number}", asks) for number, rule in enumerate(config.rule, 1)
        )
        if any(callable(getattr(rule.then, name)) for rule in config.rule for name in REDIS):
            self._log.warn(
                "A function says where Redis is for each request, in vain: a proxy has one Redis, which redis.url "
                "names. Leave out {names}",
                names=" and ".join(REDIS),
            )
        self.have_functions = any(rule.has_functions for rule in self._rules)
        self._waits = self.have_functions or any(rule.asks for rule in self._rules)
        self.headers = frozenset(name.lower().encode() for rule in config.rule for name in named(rule)).union(
            *(headers_of((rule.then.priority, rule.then.set_input_priority)) for rule in config.rule),
            *(authenticator.headers for authenticator in authenticators.values()),
        )
        # Nobody but a service speaks in its name, also where no rule asks it.
        self._spoken_for = frozenset[bytes]().union(
            *(authenticator.own for authenticator in authenticators.values())
        )

    def apply(self, exchange: Exchange) -> Deferred[None] | None:
        """
        Let every rule that matches change the exchange, in order, until one says C{stop}. A rule sees what those
        before it changed. Nor does any follow where a service has said what is answered.

        @return: None if that is done. Else fires when it is; errbacks with an L{ExchangeError}, mostly L{RuleFailed},
            or when it is cancelled, and then waits for nothing any more.
        @raise ExchangeError: the same, at once.
        """
        if self._spoken_for:
            drop_alike(exchange.headers, self._spoken_for)
        if self._waits:
            return self._apply(exchange, self._time())
        for rule in self._rules:
            if rule.matches(exchange):
                for stage in rule.input:
                    for action in stage:
                        self._write(rule, action, exchange, action.value)
                self._matched(rule, exchange)
                if rule.stop:
                    break
        return None

    def apply_output(self, exchange: Exchange) -> Deferred[None] | None:
        """
        Let every rule that matched on the way in change the response, which is there.

        @return: as L{apply}.
        """
        if not exchange.matched:
            return None
        if any(rule.has_output_functions for rule in exchange.matched):
            return self._apply_output(exchange, self._time())
        for rule in exchange.matched:
            for stage in rule.output:
                for action in stage:
                    self._write(rule, action, exchange, action.value)
        return None

    def apply_to_error(
        self, exchange: Exchange, asked: bytes, head: ResponseHead, body: bytes
    ) -> tuple[ResponseHead, bytes]:
        """
        Let every rule that matched on the way in change the answer to an exchange that has failed since, as far as
        constants say how. What tells programs of the error stays.

        @param asked: the client's method.
        """
        if not exchange.matched:
            return head, body
        told = {name: head.headers.getRawHeaders(name) for name in (*_OF_ERROR, *_OF_WORDS)}
        answered = Exchange(asked, b"/", Headers(), "", "")  # the failed one may have a response already
        answered.received(head, lambda limit: succeed(body), proxys=True)
        for rule in exchange.matched:
            for stage in rule.output:
                for action in stage:
                    if action.name in ON_ERRORS and action.function is None:
                        self._write(rule, action, answered, action.value)
        head, instead = answered.finished(asked)
        for name in _OF_ERROR if instead is not None else told:
            head.headers.removeHeader(name)
            for value in told[name] or ():
                head.headers.addRawHeader(name, value)
        return head, body if instead is None else instead

    @inlineCallbacks
    def _apply(self, exchange: Exchange, time: _Time) -> Generator[Deferred[Any], Any, None]:
        for rule in self._rules:
            if not rule.matches(exchange):
                continue
            if rule.custom is not None:
                (holds,) = yield from self._called(rule, "when.custom", (rule.custom,), exchange, time)
                if not self._holds(rule, holds):
                    continue
            for stage in rule.input:
                yield from self._do(rule, stage, exchange, time)
                if exchange.answer is not None:
                    return
            self._matched(rule, exchange)
            if rule.stop:
                break

    @inlineCallbacks
    def _apply_output(self, exchange: Exchange, time: _Time) -> Generator[Deferred[Any], Any, None]:
        for rule in exchange.matched:
            for stage in rule.output:
                yield from self._do(rule, stage, exchange, time)

    def _do(
        self, rule: CompiledRule, stage: Stage, exchange: Exchange, time: _Time
    ) -> Generator[Deferred[Any], Any, None]:
        """Call the functions of a stage, wait for them, and let its actions take effect."""
        functions = {action.name: action.function for action in stage if action.function is not None}
        found: dict[str, Any] = {}
        if functions:
            values = yield from self._called(
                rule, tuple(functions), tuple(functions.values()), exchange, time
            )
            found = dict(zip(functions, values, strict=True))
        for action in stage:
            value = action.value if action.function is None else found[action.name]
            if value is None:
                continue
            waiting = self._write(rule, action, exchange, value)
            if waiting is not None:
                try:
                    yield detached(waiting)
                except (ExchangeError, Abandoned):
                    raise
                except Exception:
                    raise self._failed(rule, action.name, Failure()) from None

    def _called(
        self,
        rule: CompiledRule,
        names: str | tuple[str, ...],
        functions: tuple[Function, ...],
        exchange: Exchange,
        time: _Time,
    ) -> Generator[Deferred[Any], Any, list[Any]]:
        """What functions make of an exchange."""
        names = (names,) if isinstance(names, str) else names
        try:
            results = call(functions, exchange)
            if waits(results):
                results = yield time.limit(together(results))
        except Failed as failed:
            raise self._failed(rule, names[failed.index], failed.failure) from None
        except TimeoutError:
            self._log.error(
                "{rule}, {action}: not done in {timeout:g} s; make it faster, or raise rule_timeout",
                rule=rule.label,
                action=", ".join(names),
                timeout=self._timeout,
            )
            raise RuleFailed() from None
        return results

    def _holds(self, rule: CompiledRule, found: Any) -> bool:
        """Whether what a function has found says that its rule applies."""
        try:
            return bool(found)
        except Exception:
            raise self._failed(rule, "when.custom", Failure()) from None

    def _write(
        self, rule: CompiledRule, action: Action, exchange: Exchange, value: Any
    ) -> Deferred[None] | None:
        """Let an action take effect."""
        try:
            return action.write(exchange, value)
        except ValueError as error:
            self._log.error(
                "{rule}, {action}: {error}",
                rule=rule.label,
                action=action.name,
                error=" ".join(str(error).split()),
            )
            raise RuleFailed() from None
        except Exception:
            raise self._failed(rule, action.name, Failure()) from None

    def _matched(self, rule: CompiledRule, exchange: Exchange) -> None:
        if rule.output:
            exchange.matched += (rule,)

    def _failed(self, rule: CompiledRule, action: str, failure: Failure) -> ExchangeError:
        """What becomes of an exchange whose function has failed: what that says, if it is something for clients."""
        if isinstance(failure.value, RuleFailed):
            self._log.error("{rule}, {action}: {error}", rule=rule.label, action=action, error=failure.value)
            return RuleFailed()
        if isinstance(failure.value, ExchangeError):
            return failure.value
        self._log.failure(
            "{rule}, {action}: the function failed{mend}",
            failure,
            rule=rule.label,
            action=action,
            mend=mend(failure.value),
        )
        return RuleFailed()

    def _time(self) -> _Time:
        return _Time(self._clock, self._timeout)


@attrs.define
class _Time:
    """
    The time that functions have for one exchange, on one of its ways. A service has its own.

    @ivar clock: tells it; None: there is no end of it.
    @ivar left: seconds.
    """

    clock: IReactorTime | None
    left: float

    def limit(self, waiting: Deferred[Any]) -> Deferred[Any]:
        """
        Wait as long as there is time left.

        @return: the same. Errbacks with a L{TimeoutError} when there is none left.
        """
        clock = self.clock
        if clock is None:
            return waiting
        began = clock.seconds()

        def count(result: Any) -> Any:
            self.left -= clock.seconds() - began
            return result

        return waiting.addTimeout(max(0.0, self.left), clock).addBoth(count)


@attrs.frozen
class CompiledRule:
    """
    One rule, ready for each exchange.

    @ivar label: names it in messages.
    @ivar criteria: all must hold.
    @ivar custom: a function, called if they do, which must hold too.
    @ivar input: what it does to the request, in stages.
    @ivar output: what it does to the response, in stages.
    """

    label: str
    criteria: tuple[Criterion, ...]
    custom: Function | None
    input: tuple[Stage, ...]
    output: tuple[Stage, ...]
    stop: bool

    @property
    def asks(self) -> bool:
        """Whether a service is asked."""
        return any(action.name == "auth" for stage in self.input for action in stage)

    @property
    def has_functions(self) -> bool:
        """Whether functions of the user's take part."""
        return self.custom is not None or _have_functions(self.input) or self.has_output_functions

    @property
    def has_output_functions(self) -> bool:
        """Whether they do on the response's way."""
        return _have_functions(self.output)

    def matches(self, exchange: Exchange) -> bool:
        """Whether all criteria hold for an exchange, but for the function."""
        # Each rule, of each exchange: all() would take twice as long.
        for find, match in self.criteria:  # noqa: SIM110
            if not match.matches(find(exchange)):
                return False
        return True


def _have_functions(stages: Iterable[Stage]) -> bool:
    return any(action.function is not None for stage in stages for action in stage)


def compile_rule(rule: Rule, label: str = "rule", asks: Asks | None = None) -> CompiledRule:
    """
    Compile one rule.

    @param label: names it in messages, if it has no name of its own.
    @param asks: asks the services that say who may pass.
    @raise ValueError: a match or a value that cannot be read, or a function that cannot be imported.
    """
    actions = list(compile_actions(rule.then, asks))
    return CompiledRule(
        label=rule.name or label,
        criteria=tuple(
            (compile_key(key), compile_match(match, ignore_case=key == "host"))
            for _, key, match in criteria(rule.when)
        ),
        custom=None if rule.when.custom is None else function_of(rule.when.custom),
        input=tuple(_stages(action for action in actions if action.name not in OUTPUT)),
        output=tuple(_stages(action for action in actions if action.name in OUTPUT)),
        stop=rule.stop,
    )


def _stages(actions: Iterable[Action]) -> Iterator[Stage]:
    """Divide actions, which are in their order: what others can use comes before these."""
    stage: list[Action] = []
    for action in actions:
        stage.append(action)
        if action.name in ("custom_input", "auth", "custom_output"):
            yield tuple(stage)
            stage = []
    if stage:
        yield tuple(stage)


def criteria(when: When) -> Iterator[tuple[tuple[str, ...], str, Match]]:
    """What a rule looks at: the place in C{when}, the key as a limit would name it, and what its value must be."""
    plain = {
        "path": (when.path, "path"),
        "method": (when.method, "method"),
        "host": (when.host, "host"),
        "client": (when.client, "client"),
        "real_ip": (when.real_ip, "client"),
        "remote_ip": (when.remote_ip, "remote_ip"),
    }
    for place, (match, key) in plain.items():
        if match is not None:
            yield (place,), key, match
    for kind in ("header", "cookie", "query"):
        for name, match in getattr(when, kind).items():
            yield (kind, name), f"{kind}:{name}", match


def named(rule: Rule) -> Iterator[str]:
    """The headers that a rule matches or changes, as far as the configuration names them."""
    yield from rule.when.header
    for action in _HEADERS:
        value: Any = getattr(rule.then, action)
        if isinstance(value, (dict, list)):
            yield from value
        elif isinstance(value, str):
            yield value
