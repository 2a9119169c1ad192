"""
Which URL of a backend is next: pure, for the time is an argument and URLs are their numbers.

A URL is I{out} when it could not be connected to, for C{down_time} seconds, or while its answers to the questions for
health are bad. After C{down_time} one exchange at a time tries it, until one can connect. The next URL is, of those
that are not out, the one with the fewest exchanges, and of several such the one whose turn was longest ago. If all are
out, all are tried nevertheless: a proxy that sends nothing anywhere would serve nobody.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs


@attrs.frozen(eq=False)
class Route:
    """
    An exchange's URL.

    @ivar number: of the URL.
    @ivar trial: it could not be connected to before; an idle connection from then would prove nothing.
    """

    number: int
    trial: bool = False


@attrs.define
class _Url:
    """
    What is known of one URL.

    @ivar exchanges: that are on their way to it, or with it.
    @ivar turn: when it was chosen last, as a number that grows.
    @ivar failed: it could not be connected to when that was tried last.
    @ivar until: out for that reason until then (seconds).
    @ivar trying: the route of the one exchange that now tries to connect though that failed before; None without one.
    @ivar ill: out because of bad answers.
    """

    exchanges: int = 0
    turn: int = 0
    failed: bool = False
    until: float = 0.0
    trying: Route | None = None
    ill: bool = False

    def usable(self, now: float) -> bool:
        return not self.ill and (not self.failed or (now >= self.until and self.trying is None))


class Routes:
    """
    Chooses among the URLs of one backend.

    @param count: of URLs, which are numbered from 0.
    @param down_time: seconds for which one that cannot be connected to is out.
    """

    def __init__(self, count: int, down_time: float) -> None:
        self._urls = [_Url() for _ in range(count)]
        self._down_time = down_time
        self._turns = 0

    def __repr__(self) -> str:
        return f"<Routes {[url.exchanges for url in self._urls]}, out: {self.out}>"

    @property
    def out(self) -> list[int]:
        """Those that have failed or are ill."""
        return [number for number, url in enumerate(self._urls) if url.failed or url.ill]

    def exchanges(self, number: int) -> int:
        """How many exchanges a URL has."""
        return self._urls[number].exchanges

    def take(self, now: float, tried: Collection[int] = ()) -> Route | None:
        """
        The URL for an exchange, which has it until L{leave}.

        @param tried: those that the exchange could not connect to.
        @return: None if it has tried all.
        """
        left = [number for number in range(len(self._urls)) if number not in tried]
        usable = [number for number in left if self._urls[number].usable(now)]
        if not left:
            return None
        number = min(usable or left, key=lambda each: (self._urls[each].exchanges, self._urls[each].turn))
        url = self._urls[number]
        route = Route(number, url.failed)
        self._turns += 1
        url.turn = self._turns
        url.exchanges += 1
        if url.failed and usable:
            url.trying = route
        return route

    def leave(self, route: Route) -> None:
        """An exchange has finished with its URL. If it went away before it could connect, the next one may try."""
        self._urls[route.number].exchanges -= 1
        self.tried(route)

    def tried(self, route: Route) -> None:
        """An exchange has found out what it could. Until that counts as connected, or refused, the next one may try."""
        url = self._urls[route.number]
        if url.trying is route:
            url.trying = None

    def connected(self, number: int) -> bool:
        """It could be connected to. Whether that is news."""
        url = self._urls[number]
        news, url.failed, url.trying = url.failed, False, None
        return news

    def refused(self, number: int, now: float) -> bool:
        """It could not be connected to. Whether that is news."""
        url = self._urls[number]
        news, url.failed, url.trying = not url.failed, True, None
        url.until = now + self._down_time
        return news

    def judged(self, number: int, ill: bool) -> None:
        """What its answers to the questions for health mean."""
        self._urls[number].ill = ill
