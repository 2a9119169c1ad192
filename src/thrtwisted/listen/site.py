"""The site: what the ports serve, and its access log."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.http import combinedLogFormatter, datetimeToLogString
from twisted.web.iweb import IAccessLogFormatter
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import provider

#: Seconds from the end of a request to its line in the access log.
LOG_DELAY = 0.01


@provider(IAccessLogFormatter)
def _line(_: str, request: Any) -> str:
    """A line of the access log, with the time of day: what the reactor measures time by need not be that."""
    line: str = combinedLogFormatter(datetimeToLogString(time.time()), request)
    return line


class PatientSite(Site):
    """
    A site that writes its access log a moment later: the slot of a request that has just ended is given away first,
    which a line of the log would delay by half a millisecond.

    @param clock: tells when the moment is over.
    """

    def __init__(self, clock: IReactorTime, resource: IResource, timeout: float) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, parsePOSTFormSubmission=False, timeout=timeout, logFormatter=_line
        )
        self._clock = clock
        self._ended: list[Any] = []
        self._writing: IDelayedCall | None = None

    def log(self, request: Any) -> None:
        """Write a line about a request that has ended, soon."""
        self._ended.append(request)
        if self._writing is None:
            self._writing = self._clock.callLater(LOG_DELAY, self._write)

    def stopFactory(self) -> None:
        """Write what is still to be written."""
        if self._writing is not None:
            self._writing.cancel()
            self._write()
        super().stopFactory()

    def _write(self) -> None:
        self._writing = None
        ended, self._ended = self._ended, []
        for request in ended:
            super().log(request)
