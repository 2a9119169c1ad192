"""
The worker: it takes what fronts open here, forwards it to the backends, and says to the fronts what these answer.

The gate gives it a request only when it has a place for it. An exchange is begun once the gate says that it is still to
be begun, here; whatever ends before that was certainly not executed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from thrtwisted.config import Relay
from thrtwisted.errors import GateUnavailable
from thrtwisted.forward import Forwarder

from . import IPost, IPostUser
from .codec import Frame, Kind
from .conversation import answer_unknown
from .offer import Offer
from .seldom import Seldom
from .served import Served

#: Of so many exchanges it is remembered that they were here. Their opening may come again: of a front that was frozen
#: only, or late, on a connection that was given up; and the gate may not know yet that their tickets were given back.
REMEMBERED = 10_000
#: So many answers may wait here for their fronts though the backends have finished with them, and hold no place. Each
#: costs memory here and in its front, less than 1 MB: what is under way, C{max_inline / 2}, and what spools keep of it.
#: The next one keeps its place until its front has it, as on the direct way one for which there is no room on the disk.
LINGERING = 64
#: Seconds until Redis is asked again whether anything is left here, at first, and at most.
FIRST_LOOK, LONGEST_LOOK = 0.02, 0.5


class _Front:
    """
    A front with exchanges here.

    @ivar taken: the serials of the tickets that were taken, or may have been, and whose exchanges are not finished.
    @ivar gone: its exchanges are this worker's alone.
    """

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.served: set[Served] = set()
        self.gone = False
        self.watch: Callable[[], None] | None = None

    def stop_watching(self) -> None:
        """Ask no more whether it lives. It may be called again."""
        end, self.watch = self.watch, None
        if end is not None:
            end()


@implementer(IPostUser)
class Worker:
    """
    Serves fronts.

    No more than C{concurrency} exchanges are in the backends at once, whatever Redis says: what is too much waits here,
    and is not taken.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        relay: Relay,
        queues: Sequence[str],
        gate: Any,
        post: IPost,
        forwarders: Mapping[str, Forwarder],
        *,
        lease: float = 5.0,
    ) -> None:
        """
        @param queues: the names of the backends that it serves.
        @param gate: the L{RedisGate<thrtwisted.gate.redis.RedisGate>} of the same owner as the post.
        @param lease: seconds after which a front that says nothing of an exchange is asked whether it still knows it.
        """
        self._clock = clock
        self._concurrency = relay.concurrency
        self._window = relay.max_inline // 2
        down_times = {queue: forwarders[queue].config.down_time for queue in queues}
        self._offer = Offer(clock, gate.crew, relay.concurrency, down_times)
        self._queues = tuple(queues)
        self._gate = gate
        self._crew = gate.crew
        self._post = post
        self._forwarders = forwarders
        self._served: dict[tuple[str, int], Served] = {}
        self._fronts: dict[str, _Front] = {}
        self._waiting: deque[Served] = deque()
        self._inside: set[Served] = set()
        self._lingering: set[Served] = set()
        self._lagging: dict[Served, None] = {}  # and have their places, in this order
        self._forgotten: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._idle: list[Deferred[None]] = []
        self._introduced = False
        self._seldom = Seldom(clock)
        self._lease = lease
        self._asking: IDelayedCall | None = None

    def __repr__(self) -> str:
        return (
            f"<Worker {len(self._inside)} of {self._concurrency} places taken, {len(self._served)} exchanges>"
        )

    def start(self) -> None:
        """Let the gate give it exchanges, as soon as the post is up."""
        self._post.start(self)

    @inlineCallbacks
    def drain(self) -> Generator[Deferred[Any], Any, None]:
        """
        Take nothing new, and finish what is here, or still comes.

        @return: fires when Redis says that nothing is here, or nothing for a lease, and fronts have heard all that was
            to be said. Errbacks with L{GateUnavailable} if the gate stops meanwhile. Cancelling waits no more.
        """
        look = FIRST_LOOK
        while True:
            asked = self._offer.close()
            asked.addTimeout(self._lease, self._clock)
            try:
                # A front says that an exchange is over a little after it has heard so.
                left = yield asked
            except TimeoutError:
                left = 0  # whatever was to come from Redis goes elsewhere: this worker's lease is over
            if self.busy:
                yield self._when_idle()
                look = FIRST_LOOK
            elif not left:
                return
            else:
                yield deferLater(self._clock, look)
                look = min(2 * look, LONGEST_LOOK)

    def end(self) -> None:
        """Say and hear nothing more; what is in the backends should have ended."""
        self._offer.end()
        for served in list(self._served.values()):
            served.end()
        for front in self._fronts.values():
            front.stop_watching()

    # IPostUser

    def up(self) -> None:
        """See L{IPostUser.up}."""
        registered = self._offer.hear(True)
        registered.addCallbacks(self._registered, lambda failure: failure.trap(GateUnavailable))
        for served in list(self._served.values()):
            served.check()

    def down(self) -> None:
        """See L{IPostUser.down}."""
        self._offer.hear(False).addErrback(lambda failure: failure.trap(GateUnavailable))

    def received(self, frame: Frame) -> None:
        """See L{IPostUser.received}."""
        key = frame.front, frame.number
        served = self._served.get(key)
        if served is None:
            if frame.kind != Kind.OPEN or frame.seq != 1 or key in self._forgotten:
                answer_unknown(self._post, frame)
                return
            served = self._served[key] = Served(self, self._post, *key, self._window)
            front = self._front(frame.front)
            front.served.add(served)
            if front.gone:  # it was frozen and is back, it seems: its next death has to be noticed, too
                self._inherit(frame.front, front)
            if self._asking is None:
                self._asking = self._clock.callLater(self._lease, self._ask)
        served.conversation.received(frame)
        served.heard()

    # The host of exchanges

    def opened(self, served: Served) -> None:
        """See L{Host.opened}."""
        assert served.opening is not None
        if served.opening.queue in self._queues:
            self._waiting.append(served)
            self._go_on()
        else:
            served.refuse()

    def reached(self, served: Served) -> None:
        """See L{Host.reached}."""
        assert served.opening is not None
        self._offer.reached(served.opening.queue)

    def unreached(self, served: Served) -> Deferred[bool]:
        """See L{Host.unreached}."""
        assert served.opening is not None
        return self._offer.unreached(served.opening.queue)

    def lags(self, served: Served) -> None:
        """See L{Host.lags}."""
        if served not in self._lingering:
            self._lagging[served] = None
            self._look_who_lingers()

    def withdrawn(self, served: Served) -> None:
        """See L{Host.withdrawn}."""
        self._leave(served)

    def finished(self, served: Served) -> None:
        """See L{Host.finished}."""
        self._leave(served)

    def over(self, served: Served) -> None:
        """See L{Host.over}."""
        front = self._fronts[served.front]
        key = served.front, served.number
        del self._served[key]
        self._forgotten[key] = None
        if len(self._forgotten) > REMEMBERED:
            self._forgotten.popitem(last=False)
        front.served.discard(served)
        self._let_go(served.front, front)
        self._lingering.discard(served)
        self._lagging.pop(served, None)
        self._look_who_lingers()
        self._look_whether_idle()

    def complain(self, served: Served, why: Exception) -> None:
        """See L{Host.complain}."""
        if self._seldom.now():
            self._log.error(
                "A request from front {front} cannot be read, and others like it may follow: {why} (mend: let all "
                "fronts and workers run the same version of thrtwisted, and nobody else write to the namespace)",
                front=served.front,
                why=why,
            )

    # Places

    def _go_on(self) -> None:
        """After every change: who waits here, and has a place?"""
        while self._waiting and len(self._inside) < self._concurrency:
            served = self._waiting.popleft()
            if not served.unwanted:
                self._inside.add(served)
                self._take(served)

    @inlineCallbacks
    def _take(self, served: Served) -> Generator[Deferred[Any], Any, None]:
        assert served.opening is not None
        front, serial = self._front(served.front), served.opening.serial
        front.taken.add(serial)
        taken = False
        try:
            # An answer that was read too late may not hold any more: others may have taken this process for dead.
            while not served.unwanted:
                taken = yield self._crew.take(served.front, serial)
                if not taken or self._gate.leased:
                    break
        except GateUnavailable:  # the gate stops: nothing is begun any more
            taken = False
        if served.unwanted:
            return
        if taken:
            served.forward(self._forwarders[served.opening.queue])
        else:
            served.refuse()

    def _leave(self, served: Served) -> None:
        """An exchange has its place no more, if it had one."""
        if served in self._inside:
            assert served.opening is not None
            self._inside.discard(served)
            front = self._fronts[served.front]
            front.taken.discard(served.opening.serial)
            if front.gone:
                self._inherit(served.front, front)
            self._let_go(served.front, front)
        self._go_on()
        self._look_whether_idle()

    def _look_who_lingers(self) -> None:
        """After every change: who has waited longest to, may, if there is room for one more."""
        while self._lagging and len(self._lingering) < LINGERING:
            served = next(iter(self._lagging))
            del self._lagging[served]
            self._lingering.add(served)
            served.linger()

    # Fronts

    def _front(self, name: str) -> _Front:
        """A front, which is watched as long as anything of it is here."""
        front = self._fronts.get(name)
        if front is None:
            front = self._fronts[name] = _Front()
            self._watch(name, front)
        return front

    def _watch(self, name: str, front: _Front) -> None:
        front.stop_watching()
        front.watch = self._crew.watch(name, lambda: self._inherit(name, front))

    def _inherit(self, name: str, front: _Front) -> None:
        """A front is gone, or seems so: what it has left here is this worker's, until the backends have finished."""
        asked: Deferred[bool] = self._crew.inherit(name, lambda: self._at_work_for(name))
        asked.addCallbacks(
            lambda gone: self._inherited(name, front, gone), lambda failure: failure.trap(GateUnavailable)
        )

    def _at_work_for(self, name: str) -> Iterable[int]:
        """The serials of what is not finished, of a front that may be another than it was."""
        front = self._fronts.get(name)
        return sorted(front.taken) if front is not None else ()

    def _inherited(self, name: str, front: _Front, gone: bool) -> None:
        if self._fronts.get(name) is not front:
            return  # nothing of it is here any more
        if not gone:  # it was frozen, and is back
            front.gone = False
            self._watch(name, front)
            return
        front.gone = True
        for served in list(front.served):
            served.lose_front()

    def _let_go(self, name: str, front: _Front) -> None:
        """Watch a front no longer of which nothing is here."""
        if not front.served and not front.taken and self._fronts.get(name) is front:
            del self._fronts[name]
            front.stop_watching()

    # The rest

    def _registered(self, _: int) -> None:
        if self._introduced:
            return
        self._introduced = True
        self._log.info(
            "Worker of {backends}: {places} places",
            backends=", ".join(f"backend.{queue}" for queue in self._queues),
            places=self._concurrency,
        )

    @property
    def busy(self) -> bool:
        """Whether anything of an exchange is here."""
        return bool(self._served or self._inside)

    def _when_idle(self) -> Deferred[None]:
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _ask(self) -> None:
        """What a front has said last may have been lost, and it may wait for nothing."""
        self._asking = self._clock.callLater(self._lease, self._ask)
        for served in list(self._served.values()):
            served.ask()

    def _look_whether_idle(self) -> None:
        if not self._served and self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if not self.busy:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)
