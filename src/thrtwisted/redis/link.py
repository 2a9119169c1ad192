"""
The link to Redis: one connection for scripts and commands, one for messages, both to the server that has our keys, and
both kept up together, whatever becomes of that server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from functools import lru_cache
from random import uniform
from typing import Any, NoReturn

import txredisapi
from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface

from . import ISource
from .cluster import ClusterSource, is_on_its_way, moved_to, slot_of
from .connection import Dialer
from .listening import IListening
from .trouble import Lost, NobodyAnswers, Replaced, TooSlow, TooSlowHere, trouble_of
from .url import ClusterAddress, RedisAddress

#: Seconds that connecting to a server and logging in may take, on both connections together.
HANDSHAKE = 2.0

#: Seconds before the first of the attempts to connect again, and before the last ones: to a server that cannot be
#: reached, so that a restarted one is found quickly, and to one that refuses, until somebody mends that.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
LONGEST_PAUSE_REFUSED = 5.0

#: How often in a row others may send us to another server before they count as being at odds.
MOVES = 5


class RedisGone(Exception):
    """Redis is not there, or went away before it answered: what was sent may or may not have been done."""


class ILinkUser(Interface):
    """Whoever uses a link. Every call comes from the reactor."""

    def up() -> None:
        """Both connections stand, and messages arrive."""

    def down() -> None:
        """A connection was lost, and the link with it. What was under way fails."""


class Link:
    """
    Keeps two connections to Redis, and tells its user when they stand.

    When one is lost the other is closed too: a user that missed messages has to take stock in either case, and so has
    one thing to handle instead of three. In a cluster a message would reach each node; still both are to the same one.

    @param reactor: connects, and tells the time.
    @param source: which server to connect to.
    @param listening: what the second connection is for.
    @param user: is told when the link is up or down.
    @param longest_pause: seconds between the attempts to reach a server that is not there, at most. Connections that
        stand for twice as long are believed to last.
    @param beside: where another link of this process leads to the same server, and says what is wrong with it: what
        this one is for, as in "is not usable for WHAT". It says only what it alone may be refused.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        source: ISource,
        listening: IListening,
        user: Any,
        longest_pause: float = LONGEST_PAUSE,
        beside: str | None = None,
    ) -> None:
        self._reactor = reactor
        self._source: ISource = source
        self._given: ISource = source
        self._cluster: ClusterSource | None = None
        self._slot = slot_of(listening.key.encode())
        self._listening: IListening = listening
        self._user = user
        self._beside = beside
        self._dialer = Dialer(reactor, source.security)
        self._commands: Any = None
        self._messages: Any = None
        self._running: Deferred[None] | None = None
        self._wait: Deferred[Any] = succeed(None)
        self._stopping = False
        # Where the connections lead, and who answered last
        self._address: RedisAddress | None = None
        self._server: object = None
        self._familiar: object = None
        self._unfamiliar = False
        # What went wrong
        self._cause: Exception = Lost()
        self._pause_soon = _pauses(longest_pause)
        self._pause_late = _pauses(max(longest_pause, LONGEST_PAUSE_REFUSED))
        self._attempts = 0
        self._moves = 0
        # What was told since the link last worked; since when the connections stand, whether they do or did in the
        # latest attempt; how long makes them believed
        self._working = False
        self._told: set[str] = set()
        self._since = 0.0
        self._stood = False
        self._trial = 2 * longest_pause

    def start(self) -> None:
        """Begin to connect; it goes on until L{stop}."""
        self._running = self._run()

    def stop(self) -> Deferred[None]:
        """
        Close the connections and try no more; the user is told nothing any more. There is no second start.

        @return: fires when nothing is left.
        """
        self._stopping = True
        running, self._running = self._running, None
        if running is None:
            return succeed(None)
        self._wait.cancel()
        return running

    def reset(self, *, alone: bool = False) -> None:
        """
        Redis does not answer on the connections that stand: give them up, at once, and connect anew.

        @param alone: another link of this process, which would say so, has its answers.
        """
        self._give_up(TooSlowHere() if alone else TooSlow())

    def refused(self, problem: Exception) -> None:
        """
        Redis answers, but does not do what it is asked to: say so once, however long it lasts, give up the connections,
        and connect anew after a pause, to whatever server has our keys then.
        """
        self._give_up(problem)

    def working(self) -> None:
        """
        Redis does what it is asked to. After trouble that is believed only of connections that have stood for a while:
        a server may do some of what it is asked to, and each connection be lost again. So it is to be called with the
        first answer, and from time to time as long as all goes well.
        """
        if self._commands is None:
            return
        lasts = self._reactor.seconds() - self._since >= self._trial
        if lasts:
            self._moves = 0
        if self._working or (self._told and not lasts):
            return
        self._working = True
        self._attempts = 0
        told = bool(self._told)
        self._told.clear()
        if self._source is self._given:
            self._cluster = None
        if self._beside is None:
            self._log.info("{line}", line=f"{self._subject} is connected")
        elif told:
            self._log.info("{line}", line=f"{self._subject} is usable for {self._beside} again")

    def command(self, *words: object) -> Deferred[Any]:
        """
        Have Redis do one thing. What is asked is done, and answered, in the order in which it was asked.

        @return: fires with the reply. Errbacks as L{script} does.
        """
        if self._commands is None:
            return fail(RedisGone("Redis is not connected"))
        reply: Deferred[Any] = maybeDeferred(self._commands.execute_command, *words)
        return reply.addErrback(_gone)

    def script(self, script: bytes, key: str, argument: bytes) -> Deferred[bytes]:
        """
        Run a script with one key and one argument, by its digest if Redis knows it.

        It is given C{1} as a second argument if the server may lack what an earlier one had: it does not know the
        script, as after a restart; or it is not the one that answered last, as after a failover; or the slot was on its
        way.

        @return: fires with the reply. Errbacks with L{RedisGone} if there is no answer to be had, or with
            L{txredisapi.ResponseError} if Redis refuses.
        """
        if self._commands is None:
            return fail(RedisGone("Redis is not connected"))
        commands, server = self._commands, self._server
        unfamiliar = [b"1"] if self._unfamiliar else []
        reply: Deferred[bytes] = maybeDeferred(
            commands.execute_command, "EVALSHA", _digest(script), 1, key, argument, *unfamiliar
        )

        def load(failure: Any) -> Any:
            failure.trap(txredisapi.ResponseError)
            if not str(failure.value).startswith("NOSCRIPT"):
                return failure
            return commands.execute_command("EVAL", script, 1, key, argument, b"1")

        def answered(answer: bytes) -> bytes:
            self._familiar, self._unfamiliar = server, False
            return answer

        return reply.addErrback(load).addCallbacks(answered, _gone)

    @inlineCallbacks
    def _run(self) -> Generator[Deferred[Any], Any, None]:
        while not self._stopping:
            try:
                pause = yield self._once()
            except Exception as problem:  # one of our own, else the link would be gone for good
                self._failed("The link to Redis has failed; it is made anew", problem)
                self._working = False
                self._source = self._given
                pause = self._pause_late(self._attempts)
                self._attempts += 1
            yield self._dialer.close()
            if not self._stopping:
                yield self._until_stop(deferLater(self._reactor, pause)).addErrback(_stopped)

    @inlineCallbacks
    def _once(self) -> Generator[Deferred[Any], Any, float]:
        """Connect, and let the user work. Fires when that is over, with the pause before it is done anew."""
        self._address = None
        self._cause = Lost()
        self._stood = False
        try:
            yield self._until_stop(self._connect())
        except Exception as problem:
            self._cause = problem
        else:
            self._stood = True
            yield self._stand()
        yield self._dialer.close()
        return 0.0 if self._stopping else self._after(self._cause)

    @inlineCallbacks
    def _connect(self) -> Generator[Deferred[Any], Any, None]:
        """Find the server, and open both connections."""
        self._address = yield self._source.locate(self._slot, self._dialer)
        yield self._open(self._address).addTimeout(HANDSHAKE, self._reactor)

    @inlineCallbacks
    def _open(self, address: RedisAddress) -> Generator[Deferred[Any], Any, None]:
        commands = yield self._dialer.open(address)
        messages = yield self._dialer.open(address, self._listening.protocol)
        yield self._listening.begin(messages, self._dialer)
        if commands.end is not None:
            raise commands.end
        # A host's name may lead to another server than it did, which the address alone does not tell.
        self._server = (address, commands.transport.getPeer())
        if self._familiar not in (None, self._server):
            self._unfamiliar = True
        self._commands, self._messages = commands, messages

    @inlineCallbacks
    def _stand(self) -> Generator[Deferred[Any], Any, None]:
        """Let the user work until a connection is lost."""
        lost = _any(self._commands.whenDisconnected(), self._messages.whenDisconnected())
        assert self._address is not None
        watch = self._watch(self._address)
        listening = self._listen()
        self._since = self._reactor.seconds()
        try:
            self._user.up()
            yield self._until_stop(lost).addErrback(_stopped)
        finally:
            watch.cancel()
            listening.cancel()
            self._cause = self._commands.problem or self._messages.problem or self._cause
            self._commands = self._messages = None
            if not self._stopping:
                self._user.down()

    @inlineCallbacks
    def _listen(self) -> Generator[Deferred[Any], Any, None]:
        """Give the connections up when no messages can be had; cancelling ends it."""
        try:
            yield self._listening.listen(self._messages, self._reactor)
        except (CancelledError, txredisapi.ConnectionError):
            return
        except Exception as problem:
            self._give_up(problem)

    @inlineCallbacks
    def _watch(self, address: RedisAddress) -> Generator[Deferred[Any], Any, None]:
        """Give the connections up when another server has our keys; cancelling ends it."""
        while True:
            try:
                yield self._source.watch(address, self._slot, self._dialer)
            except CancelledError:
                return
            except Exception as problem:
                self._failed("The watch on who has the keys has failed; it is begun anew", problem)
            else:
                self._give_up(Replaced())
                return
            try:
                yield deferLater(self._reactor, LONGEST_PAUSE_REFUSED)
            except CancelledError:
                return

    def _give_up(self, cause: Exception) -> None:
        if self._commands is not None:
            self._cause = cause
            self._dialer.abort()

    def _after(self, cause: Exception) -> float:
        """What to do after the connections have ended, or could not be made; the pause before they are made anew."""
        self._working = False
        to = self._address and moved_to(cause, self._address)
        if (to or isinstance(cause, Replaced)) and self._moves < MOVES:
            self._moves += 1
            if to:
                self._follow(to)
            return 0.0
        trouble = trouble_of(cause)
        if self._beside is None:
            self._report(f"{self._subject} is not usable: {trouble.line}")
        elif self._stood and (not trouble.passes or isinstance(cause, TooSlowHere)):
            self._report(f"{self._subject} is not usable for {self._beside}: {trouble.line}")
        # Whoever moved the slot may have given up in the middle.
        self._unfamiliar |= is_on_its_way(cause)
        self._source.doubt()
        self._look_elsewhere(cause)
        pause = (self._pause_soon if trouble.passes else self._pause_late)(self._attempts)
        self._attempts += 1
        return pause

    def _follow(self, node: RedisAddress) -> None:
        """The server is a node of a cluster, if that was not known, and says that another node has the slot."""
        assert self._address is not None
        if isinstance(self._source, ClusterSource):
            self._source.follow(node)
        else:
            if self._cluster is None:
                self._cluster = ClusterSource(ClusterAddress((self._address,)), self._source.security)
            self._source = self._cluster
            self._cluster.follow(node)

    def _look_elsewhere(self, cause: Exception) -> None:
        """
        A server that was a node of a cluster may be none any more, and a cluster may outlive the server of the URL:
        while neither serves, they are asked in turn. Once the latter does, the cluster is forgotten.
        """
        if self._source is self._given:
            self._source = self._cluster or self._given
        elif isinstance(cause, NobodyAnswers):
            self._source = self._given

    def _until_stop(self, wait: Deferred[Any]) -> Deferred[Any]:
        """What is waited for from now on: L{stop} cancels it."""
        self._wait = wait
        if self._stopping:
            wait.cancel()
        return wait

    def _report(self, line: str) -> None:
        """Each trouble is told once, until the link has worked; they may take turns."""
        if line not in self._told:
            self._told.add(line)
            self._log.warn("{line}", line=line)

    @property
    def _subject(self) -> str:
        return f"Redis at {self._source.describe(self._address)}"

    def _failed(self, what: str, problem: Exception) -> None:
        """Something that should not happen, with its traceback; it too is told once."""
        told = f"{what}: {problem!r}"
        if told not in self._told:
            self._told.add(told)
            self._log.failure("{what}", Failure(problem), what=what)


def _pauses(longest: float) -> Callable[[int], float]:
    """The pause before an attempt, by how many were in vain before."""
    # The policy's own jitter, up to a second, would make each short loss of a connection an outage.
    first = min(FIRST_PAUSE, longest)
    return backoffPolicy(first, longest - first / 2, jitter=lambda: uniform(0, first / 2))


def _any(*events: Deferred[Any]) -> Deferred[None]:
    """Fires after the first of several Deferreds that never errback. Cancelling it leaves them alone."""
    first: Deferred[None] = Deferred()

    def fire(_: object) -> None:
        if not first.called:
            first.callback(None)

    for event in events:
        event.addCallback(fire)
    return first


@lru_cache(maxsize=4)
def _digest(script: bytes) -> str:
    """What Redis calls a script."""
    return hashlib.sha1(script).hexdigest()


def _gone(failure: Failure) -> NoReturn:
    """A reply that does not come any more."""
    failure.trap(txredisapi.ConnectionError)
    raise RedisGone(str(failure.value)) from None


def _stopped(failure: Failure) -> None:
    """A wait that L{Link.stop} has ended."""
    failure.trap(CancelledError)
