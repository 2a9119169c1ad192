"""What a worker offers to the gate: its places, for the queues that it serves; but not for those it steps back from."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from thrtwisted.errors import GateUnavailable
from thrtwisted.gate.crew import Crew


class Offer:
    """
    A worker that cannot connect to its backend would be the least busy one, and get all requests, to answer 502. So it
    steps back from that queue for C{down_time}, as long as others have places for it. Then one request, or a few, try.
    """

    _log = Logger()

    def __init__(self, clock: Any, crew: Crew, concurrency: int, down_times: Mapping[str, float]) -> None:
        """@param down_times: for each queue, the seconds to step back for."""
        self._clock = clock
        self._crew = crew
        self._concurrency = concurrency
        self._down_times = down_times
        self._away: dict[str, IDelayedCall] = {}
        self._troubled: set[str] = set()
        self._deaf = True
        self._closed = False

    def __repr__(self) -> str:
        return f"<Offer {self._places} for {', '.join(self._queues)}>"

    def say(self) -> Deferred[int]:
        """Tell the gate. Fires and errbacks as L{Crew.serve}."""
        return self._crew.serve(self._places, self._queues)

    def hear(self, hears: bool) -> Deferred[int]:
        """
        Whether it can be told of requests. As long as it cannot, nothing is offered: they would wait for it, whoever
        else has places. Fires and errbacks as L{Crew.serve}.
        """
        self._deaf = not hears
        return self.say()

    def close(self) -> Deferred[int]:
        """Offer nothing more. Fires and errbacks as L{Crew.serve}."""
        self._closed = True
        self.end()
        return self.say()

    def end(self) -> None:
        """Tell the gate nothing more by itself."""
        while self._away:
            _, back = self._away.popitem()
            back.cancel()

    def reached(self, queue: str) -> None:
        """The backend could be connected to."""
        if queue in self._troubled:
            self._troubled.discard(queue)
            self._log.info("{backend} can be connected to again", backend=f"backend.{queue}")

    def unreached(self, queue: str) -> Deferred[bool]:
        """
        The backend could not be connected to.

        @return: fires with whether another worker may have what was to be sent. Never errbacks.
        """
        if self._closed:
            return succeed(True)
        return self._step_back(queue).addErrback(_nobody)

    @inlineCallbacks
    def _step_back(self, queue: str) -> Generator[Deferred[Any], Any, bool]:
        own = 0 if queue in self._away else self._places
        places = yield self._crew.served([queue])
        if places[queue] <= own:
            return False
        if queue not in self._away and not self._closed:
            seconds = self._down_times[queue]
            self._away[queue] = self._clock.callLater(seconds, self._come_back, queue)
            # Said before the request is refused: or else it would come here again.
            yield self.say()
            places = yield self._crew.served([queue])
            if not places[queue]:  # they step back, too
                self._come_back(queue)
                return False
            if queue not in self._troubled:
                self._troubled.add(queue)
                self._log.warn(
                    "{backend} cannot be connected to from here: other workers get its requests, for {seconds:g} s "
                    "at a time",
                    backend=f"backend.{queue}",
                    seconds=seconds,
                )
        return True

    def _come_back(self, queue: str) -> None:
        back = self._away.pop(queue, None)
        if back is not None and back.active():
            back.cancel()
        if not self._closed:
            self.say().addErrback(_nobody)

    @property
    def _places(self) -> int:
        return 0 if self._closed or self._deaf else self._concurrency

    @property
    def _queues(self) -> list[str]:
        return [queue for queue in self._down_times if queue not in self._away]


def _nobody(failure: Any) -> bool:
    """The gate stops."""
    failure.trap(GateUnavailable)
    return False
