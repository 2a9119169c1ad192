"""
A service that says who may pass: asked about exchanges, and its answers brought to bear on them.

What a client says in the headers that the service is to set is taken away first, whatever comes of the question.
"""

from __future__ import annotations

from collections.abc import Generator
from hashlib import sha256
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from thrtwisted.answer import NAME
from thrtwisted.config import Auth, Backend
from thrtwisted.errors import AuthFailed, BadRequest, ExchangeError, GateUnavailable
from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.forward import Forwarder
from thrtwisted.forward.headers import drop_alike
from thrtwisted.functions import found
from thrtwisted.gate import Counter, IGate, Ticket
from thrtwisted.keys import Key, compile_key, headers_of
from thrtwisted.limits import Limits

from .address import parse_service
from .cache import TOLD_APART, Cache, lifetime
from .fields import check_copied, check_sent, check_single, question
from .question import Answer, Question, Unanswered, Unusable
from .sharing import Shared

#: What is passed on to the client: who may not pass, and where to go instead (RFC 9110, sections 15.4 and 15.5).
DENYING = frozenset((301, 302, 303, 307, 308, 401, 403))
#: Of these, what holds for all who ask the same.
_KEPT = frozenset((401, 403))
#: Bytes of a body that is remembered: clients can make as many such answers as C{cache_size} lets them.
LONGEST_KEPT = 8 * 1024
#: Seconds between two lines in the log that say that a service fails, though it worked meanwhile: some fail for single
#: requests, which clients can make as many of as they like.
QUIET = 10.0


@attrs.define
class Counts:
    """
    What has become of the exchanges that a service was to say something of.

    @ivar asked: questions that were sent.
    @ivar cached: exchanges for which an answer was remembered.
    @ivar shared: exchanges that waited for another's question.
    @ivar denied: exchanges whose client was given the service's answer.
    @ivar failed: exchanges for which there was no answer.
    """

    asked: int = 0
    cached: int = 0
    shared: int = 0
    denied: int = 0
    failed: int = 0


class Authenticator:
    """
    One service.

    @ivar headers: names, in lower case, of the headers that its word hangs on: no Connection header takes them away.
    @ivar copied: names, in lower case, of the headers that it sets.
    @ivar own: of these, those that it is not told itself: no client has any business to send them.
    @ivar counts: what it has done so far.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        name: str,
        config: Auth,
        gate: IGate,
        queue_timeout: float | None = None,
        limits: Limits | None = None,
    ) -> None:
        """
        @param reactor: provides IReactorTime and what the URL needs of IReactorTCP, IReactorUNIX and
            IReactorPluggableNameResolver.
        @param gate: admits questions, where C{max_concurrent} limits them.
        @param queue_timeout: seconds that a question may wait for that; None for no end.
        @param limits: say who takes turns there, as for the exchange itself; None: nobody does.
        @raise ValueError: a URL, a header or a key that cannot be read, or a file for TLS that cannot be used.
        """
        address = parse_service(config.url)
        for each in config.send_headers:
            check_sent(each)
        for each in config.copy_headers:
            check_copied(each)
        self.name = name
        self.copied = _distinct(config.copy_headers)
        self.counts = Counts()
        self._clock = reactor
        self._config = config
        self._server = address.server
        self._target = address.target
        self._sent = _distinct(config.send_headers)
        self._keys: tuple[Key, ...] = tuple(compile_key(key) for key in config.cache_by)
        self._told = tuple(name for name, key in TOLD_APART.items() if key in config.cache_by)
        looked_at = headers_of(config.cache_by).union(self._sent)
        self.headers = looked_at.union(self.copied)
        self.own = self.headers - looked_at
        self._gate = gate
        self._queue_timeout = queue_timeout
        self._limits = limits
        self._counter = None
        if config.max_concurrent is not None:
            # A limit's name has no colon, so that this counter cannot be a limit's.
            self._counter = Counter.of(f"auth:{name}", config.max_concurrent, max_waiting=config.max_waiting)
        self._forwarder = Forwarder(
            reactor, name, _as_backend(config, address.server, address.tls), quiet=True
        )
        self._cache: Cache[Answer] = Cache(config.cache_size)
        self._shared: Shared[Answer] = Shared()
        self._failing = False
        self._told_at: float | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Authenticator {self.name}, {self.counts}>"

    def check(self, exchange: Exchange) -> Deferred[None]:
        """
        Ask whether an exchange may pass, and take away what its client says in the headers that the service sets.

        It may: they are set as the service says. It may not: C{exchange.answer} is set.

        @return: fires when that is done. Errbacks with an L{ExchangeError<thrtwisted.errors.ExchangeError>}: there was
            no answer (L{AuthFailed}), the gate did not admit the question, or it cannot be asked. Cancelling gives the
            question up, unless others wait for it.
        """
        # Before they are taken away, for what is sent may be among them.
        asked = question(exchange, self._target, self._sent)
        try:
            check_single(exchange, self._sent)
            key = self._key(exchange, asked) if self._config.cache else None
            ticket = self._ticket(exchange)
        except ExchangeError as error:
            return fail(error)
        finally:
            drop_alike(exchange.headers, self.copied)
        if key is None:
            asking = self._ask(asked, ticket)
        else:
            cached = self._cache.get(key, self._clock.seconds())
            if cached is not None:
                self.counts.cached += 1
                self._apply(cached[0], exchange, cached[1])
                return succeed(None)
            asking = self._shared_question(key, asked, ticket)
        return asking.addCallbacks(self._apply, self._unanswered, callbackArgs=(exchange,))

    def close(self) -> Deferred[None]:
        """
        Break off what is under way, and close all connections: the proxy is stopping.

        @return: fires when nothing is left in the reactor. Never errbacks.
        """
        self._closed = True
        return self._forwarder.close()

    # The question

    def _key(self, exchange: Exchange, asked: Exchange) -> bytes:
        """
        What tells questions apart: all values of each header, and none from an empty one. Of the client and the host
        it is also what the service is told, which is not what the keys find where rules have changed that, or a proxy
        before this one has.

        It is a digest, so that neither passwords nor long values are remembered.

        @raise RuleFailed: a function of the configuration raised an exception, which is logged.
        """
        sent = tuple(tuple(asked.headers.getRawHeaders(name) or ()) for name in (*self._sent, *self._told))
        what = f"A function in cache_by of auth.{self.name}"
        keyed = tuple(found(what, key, exchange) for key in self._keys)
        return sha256(repr((sent, keyed)).encode()).digest()

    def _ticket(self, exchange: Exchange) -> Ticket | None:
        if self._counter is None:
            return None
        fair = None if self._limits is None else self._limits.fair(exchange)
        return Ticket((self._counter,), exchange.priority, self._queue_timeout, fair=fair)

    def _shared_question(self, key: bytes, asked: Exchange, ticket: Ticket | None) -> Deferred[Answer]:
        """
        Ask, or wait for the answer to an equal question. To the service they need not be equal: what it says of one
        alone, or cannot say of one, is nobody else's, and each of the others is asked about by itself. What it says of
        these is not remembered: of several answers at once nobody knows which is the last.
        """
        begun = False

        def begin() -> Deferred[Answer]:
            nonlocal begun
            begun = True
            return self._ask(asked, ticket, key)

        def mine(answer: Answer) -> Answer | Deferred[Answer]:
            return answer if self._holds(answer) > 0 else self._ask(asked, ticket)

        def unanswered(failure: Failure) -> Failure | Deferred[Answer]:
            if self._closed or not failure.check(Unusable, BadRequest):
                return failure
            return self._ask(asked, ticket)

        asking = self._shared.ask(key, begin)
        if begun:
            return asking
        self.counts.shared += 1
        return asking.addCallbacks(mine, unanswered)

    @inlineCallbacks
    def _ask(
        self, asked: Exchange, ticket: Ticket | None, key: bytes | None = None
    ) -> Generator[Deferred[Any], Any, Answer]:
        """
        Ask, once the gate lets it. The slot is free when the service has finished, however the question ends: nobody
        who has one waits for another.

        @param key: of the cache; None: the answer is not to be remembered.
        """
        admission = None
        if ticket is not None:
            admission = yield self._gate.acquire(ticket)
        asked_at = self._clock.seconds()
        self.counts.asked += 1
        under_way = Question(
            self._clock, self._forwarder, asked, self._config.timeout, patient=admission is not None
        )
        if admission is not None:
            under_way.done.addCallback(lambda _: admission.release())
        try:
            answer: Answer = yield under_way.answer
            status = answer.head.status
            if not (200 <= status <= 299 or status in DENYING):
                raise Unusable(f"it answers {status}")
        except Unanswered as error:
            self._note_failure(str(error))
            raise
        self._note_answer()
        if key is not None:
            self._remember(key, answer, asked_at)
        return answer

    def _remember(self, key: bytes, answer: Answer, asked_at: float) -> None:
        holds = self._holds(answer)
        kept = answer if answer.head.status >= 300 else self._without_rest(answer)
        if holds > 0 and len(kept.body) <= LONGEST_KEPT:
            self._cache.put(key, kept, asked_at, asked_at + holds)

    def _holds(self, answer: Answer) -> float:
        """Seconds for which an answer holds for all who ask the same; 0 if it is for the one alone who has asked."""
        status = answer.head.status
        if status >= 300 and status not in _KEPT:
            return 0.0
        return lifetime(answer.head.headers, self._config.cache, self._config.cache_by)

    def _without_rest(self, answer: Answer) -> Answer:
        """What matters of an answer that lets pass."""
        head = answer.head
        rest = Headers()
        for name in self.copied:
            for value in head.headers.getRawHeaders(name) or ():
                rest.addRawHeader(name, value)
        return Answer(attrs.evolve(head, headers=rest), b"")

    # What becomes of the exchange

    def _apply(self, answer: Answer, exchange: Exchange, age: float | None = None) -> None:
        """
        Let an answer decide.

        @param age: for how long it was remembered (seconds); None if it was not.
        """
        head = answer.head
        if head.status in DENYING:
            self.counts.denied += 1
            exchange.answer = _passed_on(head, answer.body, age), answer.body
            return
        for name in self.copied:
            values = head.headers.getRawHeaders(name)
            if values is not None:
                exchange.headers.setRawHeaders(name, values)

    def _unanswered(self, failure: Failure) -> Failure | None:
        """There is no answer: deny or allow. What else fails is not the service's fault, and not allowed."""
        if failure.check(Unanswered) is None:
            return failure
        if self._closed:
            return Failure(GateUnavailable.stopping())
        self.counts.failed += 1
        if self._config.on_error == "allow":
            return None
        return Failure(AuthFailed("The service that says who may pass gives no answer."))

    # The log

    def _note_failure(self, why: str) -> None:
        now = self._clock.seconds()
        if self._failing or self._closed or (self._told_at is not None and 0 <= now - self._told_at < QUIET):
            return
        self._failing, self._told_at = True, now
        means = "pass without its word" if self._config.on_error == "allow" else "are answered 502"
        self._log.warn(
            "{auth}: {url} gives no answer that could be used: {why}; requests {means}",
            **self._named(),
            why=why,
            means=means,
        )

    def _note_answer(self) -> None:
        if self._failing:
            self._failing = False
            self._log.info("{auth}: {url} answers again", **self._named())

    def _named(self) -> dict[str, str]:
        return {"auth": f"auth.{self.name}", "url": self._server}


def _as_backend(config: Auth, server: str, tls: bool) -> Backend:
    """How questions are forwarded."""
    return Backend(
        url=server,
        ca=config.ca,
        certificate=config.certificate,
        connect_timeout=config.timeout,
        response_timeout=config.timeout,
        idle_timeout=config.timeout,
        # A question that was given up may go on in the service, and keeps its slot, for as long again.
        abandon_timeout=config.timeout,
        # With TLS connections are shared only by what may be sent twice; and a new one each time would cost much.
        retries=1 if tls else 0,
    )


def _distinct(names: list[str]) -> tuple[bytes, ...]:
    """Names of headers in lower case, each once."""
    return tuple(dict.fromkeys(name.lower().encode("ascii") for name in names))


def _passed_on(head: ResponseHead, body: bytes, age: float | None) -> ResponseHead:
    """
    The head of an answer, for one client. It says whose it is.

    The channel leaves the body out for a client that wants the head only (HEAD).
    """
    headers = head.headers.copy()
    headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    headers.addRawHeader(
        b"Proxy-Status", b'%b; details="The answer of the service that says who may pass."' % NAME
    )
    if age is not None:
        headers.setRawHeaders(b"Age", [b"%d" % age])  # RFC 9111, section 5.1
    return attrs.evolve(head, headers=headers, length=len(body))
