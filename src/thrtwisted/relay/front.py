"""
The front: it opens what the gate has admitted at the worker that the gate names, and hears what the worker answers.

Nothing is judged here that the gate knows better: which worker, whether one is dead, and whether it had begun.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from thrtwisted.config import Backend, Config
from thrtwisted.errors import STOPPING, BackendClosed, GateUnavailable
from thrtwisted.exchange import Exchange
from thrtwisted.forward import IForwarder, RequestBody
from thrtwisted.forward.disk import Disk
from thrtwisted.gate import IAdmission
from thrtwisted.redis.link import LONGEST_PAUSE_REFUSED

from . import IPost, IPostUser
from .codec import Frame
from .conversation import Conversation, answer_unknown
from .forwarding import RelayedForwarding
from .seldom import Seldom

#: Seconds that requests wait for the post to be up, at the worker that has a place for them: after Redis was gone it
#: may be up so much later than the gate.
#: It is looked in so many steps whether Redis is there all the time.
PATIENCE, STEPS = LONGEST_PAUSE_REFUSED + 1.0, 4

#: Seconds between two looks whether somebody serves each backend.
LOOK = 5.0

#: Seconds after which a worker that has said nothing of an exchange is asked whether it has it. One who has not said
#: anything of it yet is asked after L{LOOK}: he may not have heard of it, and so will not ask by himself.
SILENCE = 30.0


class _Peer:
    """
    A worker that has exchanges of this front.

    @ivar exchanges: their numbers.
    """

    def __init__(self) -> None:
        self.exchanges: set[int] = set()
        self.unwatch: Any = None


@implementer(IPostUser)
class Front:
    """
    The exchanges of this process that workers have.

    Frames may come as soon as there is one; C{start}, of any of its forwarders, begins what goes on beside them.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, config: Config, gate: Any, post: IPost, disk: Disk | None
    ) -> None:
        """
        @param gate: the L{RedisGate<thrtwisted.gate.redis.RedisGate>} of the same owner as the post.
        @param disk: what the responses may keep on disk, together with others.
        """
        assert config.relay is not None
        self.clock = clock
        self.disk = disk
        self._config = config
        self._relay = config.relay
        self._window = config.relay.max_inline // 2
        self._gate = gate
        self._crew = gate.crew
        self._post = post
        self._number = 0
        self._exchanges: dict[int, tuple[RelayedForwarding, str]] = {}
        self._peers: dict[str, _Peer] = {}
        self._forwarders: list[RelayForwarder] = []
        self._unserved: set[str] = set()
        self._seldom = Seldom(clock)
        self._looking: IDelayedCall | None = None
        self._started = False
        self._stopped = False
        # As long as the post is not up: what waits for it, and for how long; whether nothing waits any more
        self._up = False
        self._deaf = False
        self._unopened: list[RelayedForwarding] = []
        self._patience: IDelayedCall | None = None
        self._steps = 0
        post.start(self)

    def __repr__(self) -> str:
        return f"<Front {self._post.owner}, {len(self._exchanges)} exchanges at {len(self._peers)} workers>"

    def forwarder(self, name: str) -> RelayForwarder:
        """The way to a backend of the configuration."""
        forwarder = RelayForwarder(self, name, self._config.backend[name], self._relay.retry)
        self._forwarders.append(forwarder)
        return forwarder

    def start(self) -> None:
        """Look, again and again, whether somebody serves the backends. It may be called again."""
        if not self._started:
            self._started = True
            self._look_later()

    def stop(self) -> Deferred[None]:
        """
        Break off what is under way.

        @return: fires when nothing is left in the reactor. Never errbacks. The post may be stopped then.
        """
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._end_patience()
        for forwarder in self._forwarders:
            forwarder.close()
        # Of those who have finished, the responses may still be on their way.
        for forwarding, _ in list(self._exchanges.values()):
            forwarding.close(BackendClosed(STOPPING))
        return succeed(None)

    # For its forwarders

    def reach(self, forwarding: RelayedForwarding) -> None:
        """Begin a forwarding, as soon as workers can be told of it; refuse it if that takes too long."""
        if self._up:
            forwarding.begin()
        elif self._deaf:
            self._refuse(forwarding)
        else:
            self._unopened.append(forwarding)
            if self._patience is None:
                self._steps = 0
                self._wait()

    def leave(self, forwarding: RelayedForwarding) -> None:
        """It need not be begun any more, if it was not."""
        if forwarding in self._unopened:
            self._unopened.remove(forwarding)

    def join(self, forwarding: RelayedForwarding, worker: str) -> tuple[int, Conversation]:
        """
        Begin to talk about an exchange with a worker, whose death is told.

        @return: the number of the exchange there, and the conversation.
        """
        self._number += 1
        number = self._number
        conversation = Conversation(self._post, worker, self._post.owner, number, self._window, forwarding)
        self._exchanges[number] = forwarding, worker
        peer = self._peers.get(worker)
        if peer is None:
            peer = self._peers[worker] = _Peer()
            peer.unwatch = self._crew.watch(worker, lambda: self._lost(worker))
        peer.exchanges.add(number)
        return number, conversation

    def part(self, number: int) -> None:
        """An exchange is over at its worker."""
        _, worker = self._exchanges.pop(number)
        peer = self._peers.get(worker)
        if peer is not None:
            peer.exchanges.discard(number)
            if not peer.exchanges:
                del self._peers[worker]
                peer.unwatch()

    def complain(self, worker: str, why: Exception) -> None:
        """A worker has said what no worker of ours says."""
        if self._seldom.now():
            self._log.error(
                "An answer of worker {worker} cannot be passed on, and others like it may follow: {why} (mend: let all "
                "fronts and workers run the same version of thrtwisted, and nobody else write to the namespace)",
                worker=worker,
                why=why,
            )

    # IPostUser

    def up(self) -> None:
        """See L{IPostUser.up}."""
        self._up, self._deaf = True, False
        self._end_patience()
        for forwarding, _ in list(self._exchanges.values()):
            forwarding.check()
        unopened, self._unopened = self._unopened, []
        for forwarding in unopened:
            forwarding.begin()

    def down(self) -> None:
        """See L{IPostUser.down}."""
        self._up = False

    def _wait(self) -> None:
        self._patience = self.clock.callLater(PATIENCE / STEPS, self._step)

    def _step(self) -> None:
        """While Redis is gone nobody can be told anything, but nobody else is admitted either: that does not count."""
        self._steps = self._steps + 1 if self._gate.answering else 0
        if self._steps < STEPS:
            self._wait()
            return
        self._patience = None
        self._deaf = True
        unopened, self._unopened = self._unopened, []
        for forwarding in unopened:
            self._refuse(forwarding)

    def _refuse(self, forwarding: RelayedForwarding) -> None:
        forwarding.refuse(
            GateUnavailable("The workers cannot be reached for the moment.", retry_after=PATIENCE)
        )

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def received(self, frame: Frame) -> None:
        """See L{IPostUser.received}."""
        known = self._exchanges.get(frame.number) if frame.front == self._post.owner else None
        if known is None:
            answer_unknown(self._post, frame)
        else:
            known[0].received(frame)

    # Workers

    def _lost(self, worker: str) -> None:
        """A worker is dead."""
        peer = self._peers.pop(worker)
        peer.unwatch()
        numbers = sorted(peer.exchanges)
        self._log.warn(
            "Worker {worker} is lost, with {count} requests of this front", worker=worker, count=len(numbers)
        )
        for number in numbers:
            known = self._exchanges.get(number)
            if known is not None:
                try:
                    known[0].lost()
                except Exception:  # the others are lost, too
                    self._log.failure("A request of a lost worker could not be ended")

    def _look_later(self) -> None:
        if not self._stopped:
            self._looking = self.clock.callLater(LOOK, self._look)

    def _look(self) -> None:
        """See who is silent, and who serves."""
        self._looking = None
        now = self.clock.seconds()
        silent: Counter[str] = Counter()
        for forwarding, worker in list(self._exchanges.values()):
            forwarding.ask(now - (SILENCE if forwarding.heard else LOOK))
            silent[worker] += forwarding.look()
        for worker in +silent:
            self._log.warn(
                "Worker {worker} is alive, but nothing is heard of {count} requests that it has (mend: see whether its "
                "log, or this one, says that Redis is not usable for the relay)",
                worker=worker,
                count=silent[worker],
            )
        served: Deferred[dict[str, int]] = self._crew.served(
            [forwarder.queue for forwarder in self._forwarders]
        )
        served.addCallback(self._served).addErrback(self._not_told)

    def _served(self, places: dict[str, int]) -> None:
        if self._stopped:
            return
        for queue, count in places.items():
            if not count and queue not in self._unserved:
                self._unserved.add(queue)
                self._log.warn(
                    "No worker serves {backend}: its requests wait (mend: start one, with the same redis.namespace, "
                    'and relay.role = "worker")',
                    backend=f"backend.{queue}",
                )
            elif count and queue in self._unserved:
                self._unserved.discard(queue)
                self._log.info(
                    "{backend} is served again, by workers with {count} places",
                    backend=f"backend.{queue}",
                    count=count,
                )
        self._look_later()

    def _not_told(self, failure: Any) -> None:
        """The gate stops."""
        failure.trap(GateUnavailable)


@implementer(IForwarder)
class RelayForwarder:
    """
    The way to one backend, through Redis.

    @ivar front: has the exchanges of all backends.
    @ivar config: the backend's, as the front has it.
    """

    def __init__(self, front: Front, name: str, config: Backend, retry: str) -> None:
        self.name = name
        self.queue: str = name
        self.config = config
        self.retry = retry
        self.front = front
        self._under_way: set[RelayedForwarding] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<RelayForwarder {self.name}, {len(self._under_way)} under way>"

    def start(self) -> None:
        """See L{Front.start}."""
        self.front.start()

    def send(
        self, exchange: Exchange, body: RequestBody, admission: IAdmission | None = None
    ) -> RelayedForwarding:
        """
        Begin to forward an exchange, as L{IForwarder.send} has it.

        @param admission: with a place at a worker.
        @raise ValueError: it has none.
        """
        if admission is None or admission.worker is None:
            raise ValueError("a worker needs an admission with a place there")
        forwarding = RelayedForwarding(self, exchange, body, admission)
        self._under_way.add(forwarding)
        forwarding.done.addCallback(lambda _: self._under_way.discard(forwarding))
        if self._closed:
            forwarding.refuse(BackendClosed(STOPPING))
        else:
            self.front.reach(forwarding)
        return forwarding

    def close(self) -> Deferred[None]:
        """Break off what is under way, as L{IForwarder.close} has it. That is done at once."""
        self._closed = True
        for forwarding in list(self._under_way):
            forwarding.close(BackendClosed(STOPPING))
        return succeed(None)
