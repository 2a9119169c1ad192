"""
The resource: an exchange's way from its client to the backend and back.

L{ProxyResource._serve} is that way, from top to bottom. What a client does meanwhile, above all leave, is
L{Client<thrtwisted.client.Client>}'s.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .answer import answer, error_answer, last_hop_answer
from .client import Client, cut
from .config import Config, default_backend
from .errors import ExchangeError, GateUnavailable
from .exchange import Exchange, ResponseHead
from .forward import IForwarder, RequestBody
from .forward.headers import drop_ambiguous, end_to_end, is_last_hop, origin_form, shown
from .forward.wellformed import check_request
from .forwarded import identify
from .gate import IGate, Ticket
from .limits import Limits
from .networks import trusted
from .rules import Rules
from .rules.waiting import Abandoned
from .timing import Timing

if TYPE_CHECKING:
    from .auth import Authenticator


class ProxyResource(Resource):
    """
    Regulates and forwards every request that reaches it, whatever its method and whatever is below it.

    @param clock: tells the time.
    @param limits: of the configuration.
    @param gate: admits.
    @param forwarders: a way to each backend, by name.
    @param authenticators: the services that say who may pass, by name.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        config: Config,
        limits: Limits,
        gate: IGate,
        forwarders: Mapping[str, IForwarder],
        authenticators: Mapping[str, Authenticator] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._gate = gate
        self._forwarders = forwarders
        self._rules = Rules(config, authenticators, clock)
        self._limits = limits
        self._default_backend = default_backend(config)
        self._timeout = config.queue.timeout
        self._reclaim_delays = {name: backend.reclaim_delay for name, backend in config.backend.items()}
        self._trusted = trusted(config.trusted_proxies)
        self._timed_by = clock if config.server_timing else None
        #: Names, in lower case, of headers that limits and rules hang on: no Connection header takes them away.
        self.kept = self._limits.headers | self._rules.headers
        self._stopping = False
        self._under_way = 0
        self._requests: set[Any] = set()
        self._ruling: set[Deferred[None]] = set()  # those whom the gate has not seen yet
        self._idle: list[Deferred[None]] = []

    def render(self, request: Any) -> int:
        """Begin an exchange. It is finished later."""
        self._under_way += 1
        self._requests.add(request)
        served = self._serve(request).addErrback(self._failed, request)
        served.addCallback(lambda _: self._requests.discard(request)).addCallback(self._ended)
        return NOT_DONE_YET

    def wants_body(self, request: Any) -> bool | Deferred[bool]:
        """
        Whether the body of a request matters, of which there is a head only: not if it is answered here.

        The rules are asked now, and not again, unless they have functions of the user's: these may want the body.

        @param request: its client asks leave to send the body (C{Expect: 100-continue}).
        @return: perhaps a Deferred, which errbacks only if it is cancelled.
        """
        try:
            exchange = self._exchange(request)
            if self._rules.have_functions:
                return True
            waiting = self._rules.apply(exchange)
        except ExchangeError as error:
            request.ruled = error
            return False  # nor will it be forwarded
        request.timing = timing = Timing(self._timed_by)

        def ruled(_: None) -> bool:
            timing.end()
            request.ruled = exchange
            ends_here = exchange.answer is not None or exchange.early_status is not None
            return not ends_here and not _is_last_hop(exchange)

        def refused(failure: Failure) -> bool:
            timing.end()
            failure.trap(ExchangeError)
            request.ruled = failure.value
            return False

        if waiting is None:
            return ruled(None)
        if not waiting.called:
            timing.begin("rules")
        return waiting.addCallbacks(ruled, refused)

    def when_idle(self) -> Deferred[None]:
        """Fires when no exchange is under way any more, neither with a client nor in a backend."""
        if not self._under_way:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]

    def stop(self) -> None:
        """Wait no more for functions of rules, and services, for the sake of requests that would not be admitted."""
        self._stopping = True
        for waiting in list(self._ruling):
            waiting.cancel()

    def cut_off(self) -> None:
        """Break off the responses that clients still read: at the end of the process they could look complete."""
        for request in list(self._requests):
            cut(request)

    @inlineCallbacks
    def _serve(self, request: Any) -> Generator[Deferred[Any], Any, None]:
        timing = getattr(request, "timing", None) or Timing(self._timed_by)
        client = Client(request, timing)
        exchange: Exchange | None = None
        if client.left:
            return
        try:
            with ExitStack() as at_end:
                body = RequestBody.take(request)
                at_end.callback(body.close)
                self._check(request, client)
                exchange = yield from self._ruled(request, body, client)
                if exchange.answer is not None:
                    client.answer(*exchange.answer)
                    return
                if exchange.early_status is not None:
                    own = answer(exchange.early_status, None, exchange.header(b"accept"))
                    client.answer(*(yield from self._ruled_answer(own, exchange, request, client)))
                    return
                if is_last_hop(exchange.method, exchange.headers):
                    client.answer(*self._last_hop(request))
                    return
                forwarder = self._forwarders[exchange.backend]
                ticket = self._ticket(exchange, forwarder.queue)
                client.tells(self._limits.policies.of(ticket.counters))
                timing.begin("queue")
                waiting = self._gate.acquire(ticket)
                client.when_leaving(waiting.cancel)
                admission = yield waiting
                at_end.callback(admission.release)
                if client.has_left():
                    return
                timing.begin("backend")
                client.admitted(admission)
                forwarding = forwarder.send(exchange, body, admission)
                at_end.pop_all()  # the body and the slots are the forwarding's now
                at_end.callback(forwarding.abandon)
                self._under_way += 1
                forwarding.done.addCallback(self._ended)
                client.when_leaving(forwarding.abandon)
                head = yield forwarding.head
                timing.end()
                if client.left:
                    return
                exchange.received(head, forwarding.read, method=forwarding.method)
                yield from self._ruled_response(exchange, client)
                head, instead = exchange.finished(request.method)
                if instead is None:
                    client.begin(head)
                    yield forwarding.deliver(request)
                else:
                    client.answer(head, instead)
        except ExchangeError as error:
            client.refused(error)
            own = error_answer(error, request.getHeader(b"accept"))
            if exchange is not None:
                own = self._rules.apply_to_error(exchange, request.method, *own)
            client.answer(*own)
        except Exception as error:
            if client.left and isinstance(error, CancelledError):
                return  # the ticket has left the queue with its client, or nothing was waited for any more
            self._log.failure("An exchange failed")
            problem = ExchangeError("The proxy failed.")
            client.answer(*error_answer(problem, request.getHeader(b"accept")))

    def _ruled(
        self, request: Any, body: RequestBody, client: Client
    ) -> Generator[Deferred[Any], Any, Exchange]:
        """The exchange, after the rules, which may have been asked before its body came."""
        exchange: Exchange | ExchangeError | None = getattr(request, "ruled", None)
        if isinstance(exchange, ExchangeError):
            raise exchange
        if exchange is not None:
            length = request.requestHeaders.getRawHeaders(b"content-length")
            if length is not None:
                exchange.headers.setRawHeaders(b"content-length", length)
            exchange.take_body(body)
            return exchange
        exchange = self._exchange(request)
        exchange.take_body(body)
        waiting = self._rules.apply(exchange)
        if waiting is not None:
            self._ruling.add(waiting)
            try:
                if self._stopping:
                    waiting.cancel()
                yield from client.waits_for(waiting)
            except Abandoned:
                if client.left:
                    raise
                raise GateUnavailable.stopping() from None
            finally:
                self._ruling.discard(waiting)
        return exchange

    def _ruled_response(self, exchange: Exchange, client: Client) -> Generator[Deferred[Any], Any, None]:
        """Let the rules change the response. A client that leaves meanwhile is waited for no more."""
        waiting = self._rules.apply_output(exchange)
        if waiting is not None:
            yield from client.waits_for(waiting)

    def _ruled_answer(
        self, own: tuple[ResponseHead, bytes], exchange: Exchange, request: Any, client: Client
    ) -> Generator[Deferred[Any], Any, tuple[ResponseHead, bytes]]:
        """An answer of the proxy's own, after the rules."""
        head, body = own
        exchange.received(head, lambda limit: succeed(body), proxys=True)
        yield from self._ruled_response(exchange, client)
        head, instead = exchange.finished(request.method)
        return head, body if instead is None else instead

    def _check(self, request: Any, client: Client) -> None:
        """See that a request is well-formed, if another site than ours has read it."""
        if getattr(request, "read_strictly", False):
            return
        try:
            check_request(request.method, request.uri, request.clientproto, request.requestHeaders, self.kept)
        except ExchangeError:
            client.distrust()
            raise

    def _exchange(self, request: Any) -> Exchange:
        """
        What a request is to rules, limits and backends: only what may reach the backend, and who really asks.

        @raise ExchangeError: it cannot be forwarded as it stands.
        """
        target, host = origin_form(request.uri, request.method)
        # Before the rules: a client's "Connection: X-Via" must not take away what a rule sets.
        headers = end_to_end(request.requestHeaders, self.kept)
        drop_ambiguous(headers)
        if host is not None:
            headers.setRawHeaders(b"host", [host])
        peer = getattr(request.getClientAddress(), "host", None)
        identity = identify(peer, request.isSecure(), headers, self._trusted)
        identity.write_to(headers)
        return Exchange(
            request.method,
            target,
            headers,
            identity.client,
            self._default_backend,
            version=request.clientproto,
            remote_ip=peer or "",
            routes=self._rules.routes,
        )

    def _last_hop(self, request: Any) -> tuple[ResponseHead, bytes]:
        headers = shown(request.requestHeaders, self.kept)
        return last_hop_answer(request.method, request.uri, request.clientproto, headers)

    def _ticket(self, exchange: Exchange, queue: str | None) -> Ticket:
        return Ticket(
            self._limits.counters(exchange),
            exchange.priority,
            self._timeout,
            self._reclaim_delays[exchange.backend],
            self._limits.fair(exchange),
            queue,
        )

    def _failed(self, failure: Failure, request: Any) -> None:
        """Not even an answer could be given: let the client wait no longer."""
        self._log.failure("An exchange could not be answered", failure)
        cut(request)

    def _ended(self, _: None) -> None:
        self._under_way -= 1
        if not self._under_way:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)


def _is_last_hop(exchange: Exchange) -> bool:
    """Whether an exchange goes no further than this, without counting the hop."""
    try:
        return is_last_hop(exchange.method, exchange.headers.copy())
    except ExchangeError:
        return True
