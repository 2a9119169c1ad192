"""
Whether Redis is there, and what becomes of this process's tickets while it is not.

From the loss of a connection on it is in I{doubt}: unless it answers within C{timeout} seconds, it counts as I{gone}.
So it does when a batch has got no answer in that time, and when it refuses for a reason that does not pass.

While Redis is gone and nobody is there to be asked, this process is I{alone}, and the outage policy decides. A new
connection ends that, though Redis may not have answered on it yet; but if it was a batch without an answer, it has to
answer first, and hears then what was decided here meanwhile. With its first answer Redis is there again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from thrtwisted.redis.link import RedisGone

from . import Quota
from .fallback import Fallback, Shares
from .order import Order
from .patience import Patience
from .places import Place, Places

#: The outage policies, and what each means to whoever reads the log.
POLICIES = {
    "local": "until it does, each process keeps to the slots that it had, and then to its share of the limits",
    "closed": "requests that fall under a limit get 503 until it does",
    "open": "limits do not hold until it does",
}

Policy = Literal["local", "closed", "open"]


@attrs.frozen
class Decision:
    """
    What is decided here of tickets (serials), where otherwise a reply says it.

    @ivar admitted: who may go, in order.
    @ivar rejected: who is over a rate that rejects, and the seconds after which it is not.
    @ivar full: who may not wait, for as many do as may.
    @ivar unavailable: who neither has a place in the queue nor gets one.
    @ivar waiting: how many wait.
    @ivar due: seconds until somebody may go who waits for nothing but time: then, L{Outages.wake}. None if nobody does.
    """

    admitted: list[int] = attrs.Factory(list)
    rejected: Mapping[int, float] = attrs.Factory(dict)
    full: list[int] = attrs.Factory(list)
    unavailable: list[int] = attrs.Factory(list)
    waiting: int = 0
    due: float | None = None


class Outages:
    """
    Knows whether Redis is there, and decides in its place while it is not.

    @param policy: C{local}: this process goes on with its share of the limits. C{closed}: who has no place in the queue
        gets none. C{open}: all are admitted.
    @param meanwhile: what the log says of it instead; in an outage, that is.
    @param timeout: seconds without an answer after which Redis counts as gone.
    @param trial: seconds after which a connection on which all goes well is believed to last.
    @param places: this process's; they are announced after every doubt.
    @param decided: is told what was decided here, from within whatever led to it, or from a timer.
    @ivar connected: whether there is a connection on which nothing has gone wrong yet.
    @ivar answering: whether Redis has answered since it was connected.
    @ivar gone: whether it counts as gone.
    @ivar count: how often it was gone.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        policy: Policy,
        *,
        meanwhile: str | None = None,
        timeout: float,
        lease: float,
        trial: float,
        max_waiting: int,
        order: Order,
        places: Places,
        decided: Callable[[Decision], None],
    ) -> None:
        self.connected = False
        self.answering = False
        self.gone = False
        self.count = 0
        self._clock = clock
        self._policy = policy
        self._meanwhile = meanwhile or POLICIES[policy]
        self._timeout = timeout
        self._lease = lease
        self._trial = trial
        self._max_waiting = max_waiting
        self._order = order
        self._places = places
        self._decided = decided
        self._doubting: Patience | None = None
        self._slow = False
        self._stopping = False
        # What was said of it
        self._up_since = 0.0
        self._steady = True
        self._said_gone = False
        # Until Redis has told its time; with aging, that decides who goes first.
        self._ahead = time.time() - clock.seconds()
        # While it is gone
        self._shares: Shares | None = None
        self._fallback: Fallback | None = None
        self._changing: IDelayedCall | None = None

    # Whether Redis is there ------------------------------------------------------------------------------------

    def doubt(self) -> None:
        """Without an answer in C{timeout} seconds from now, Redis counts as gone."""
        if not self.gone and self._doubting is None and not self._stopping:
            self._doubting = Patience(self._clock, self._timeout, self.lost)

    def up(self) -> None:
        """There is a connection."""
        self.connected = True
        self.answering = False
        self._up_since = self._clock.seconds()
        if not self._slow:  # otherwise nobody waits for it again before it has answered
            self._keep_shares()
            self._fallback = None
        self._places.announce()

    def down(self) -> None:
        """The connection is lost. For C{timeout} seconds nobody needs to know."""
        self.failed()
        if self.gone:
            self._go_on_alone()
        else:
            self.doubt()

    def failed(self) -> None:
        """Whether what was under way was done is not known. The next connection begins with an announcement."""
        self.connected = False
        self._places.announce()

    def in_time(self, reply: Deferred[bytes]) -> Deferred[bytes]:
        """The reply; L{RedisGone}, and a Redis that counts as gone, if there is none in C{timeout} seconds."""
        answer: Deferred[bytes] = Deferred()

        def arrived(result: Any) -> None:
            if not answer.called:
                patience.end()
                answer.callback(result)

        def too_late() -> None:
            self._slow = True
            self.failed()
            self.lost()
            answer.errback(RedisGone(f"no answer in {self._timeout:g} s"))

        patience = Patience(self._clock, self._timeout, too_late)
        reply.addBoth(arrived)
        return answer

    def answered(self, now: float) -> bool:
        """
        Redis does what it is asked to.

        @param now: its time (seconds).
        @return: whether that is its first answer since it was connected.
        """
        self._ahead = now - self._clock.seconds()
        if self.answering:
            return False
        self.answering = True
        self._slow = self.gone = False
        self._end_doubt()
        self._keep_shares()
        self._shares = None
        if self._fallback is not None:  # it has gone on deciding since Redis was asked
            self._fallback = None
            self._places.announce()
        return True

    def heard(self) -> None:
        """Batches are done, and messages arrive."""
        self._steady = self._steady or self._clock.seconds() - self._up_since > self._trial
        if self.answering and self._said_gone:
            self._said_gone = False
            self._log.info("Redis answers again")

    def lost(self) -> None:
        """Redis counts as gone."""
        self._end_doubt()
        if self.gone:
            return
        self.gone = True
        self.count += 1
        if self._steady:  # it is said once of a Redis that comes and goes
            self._steady, self._said_gone = False, True
            self._log.warn("Redis does not answer: {meanwhile}", meanwhile=self._meanwhile)
        self._shares = Shares(
            since=self._redis_time,
            lease=self._lease,
            processes=self._places.owners,
            entitled=self._places.entitled(),
            everything=self._policy == "open",
        )
        if self._alone:  # otherwise a new connection stands, and Redis is being asked
            self._go_on_alone()

    def close(self) -> None:
        """Nothing is decided here any more."""
        self._stopping = True
        self._fallback = None

    def stop(self) -> None:
        """Let no timer be left."""
        self._end_doubt()
        self._keep_shares()

    def _end_doubt(self) -> None:
        if self._doubting is not None:
            self._doubting.end()
            self._doubting = None

    @property
    def _alone(self) -> bool:
        """Whether nobody is there to be asked."""
        return self.gone and (self._slow or not self.connected)

    @property
    def _redis_time(self) -> float:
        """The seconds of Redis's clock, as far as this process has seen it."""
        return self._clock.seconds() + self._ahead

    # Who may go meanwhile --------------------------------------------------------------------------------------

    @property
    def refusing(self) -> bool:
        """Whether nobody may come."""
        return self._alone and self._policy == "closed"

    @property
    def deciding(self) -> bool:
        """Whether it is decided here who may go."""
        return self._fallback is not None

    def acquire(self, place: Place) -> None:
        """A ticket arrives, while this is L{deciding}."""
        assert self._fallback is not None
        admitted = self._fallback.acquire(place, self._redis_time, self._max_waiting)
        stays = place in self._fallback or place.serial in self._fallback.rejected
        self._tell(self._fallback, admitted, [] if stays else [place.serial])

    def release(self, serial: int) -> None:
        """A ticket is given up, while this is L{deciding}."""
        assert self._fallback is not None
        self._tell(self._fallback, self._fallback.release(serial, self._redis_time))

    def wake(self) -> None:
        """The time has come that a L{Decision} has told, while this is L{deciding}."""
        assert self._fallback is not None
        self._tell(self._fallback, self._fallback.wake(self._redis_time))

    def quotas(self, place: Place) -> dict[str, Quota]:
        """What is left of this process's share, where that was decided here."""
        return self._fallback.quotas(place, self._redis_time) if self._fallback else {}

    def _go_on_alone(self) -> None:
        """Decide from now until Redis is there to be asked."""
        self._keep_shares()
        if self._stopping:
            return
        if self._policy == "closed":
            placeless = [place.serial for place in self._places if not (place.order or place.follows)]
            self._decided(Decision(unavailable=placeless))
            return
        assert self._shares is not None
        now = self._redis_time
        self._fallback = Fallback(self._shares, self._order, self._places, now, self._fallback)
        change = self._shares.next_change(now)
        if change is not None:
            self._changing = self._clock.callLater(change, self._go_on_alone)
        self._tell(self._fallback, self._fallback.admitted)

    def _tell(self, fallback: Fallback, admitted: list[int], full: list[int] | None = None) -> None:
        rejected, fallback.rejected = fallback.rejected, {}
        due = fallback.next_due(self._redis_time)
        self._decided(Decision(admitted, rejected, full or [], waiting=fallback.waiting, due=due))

    def _keep_shares(self) -> None:
        """Forget that they are about to change."""
        if self._changing is not None and self._changing.active():
            self._changing.cancel()
        self._changing = None
