"""Tests that answer with hostile responses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from tests.forward.support import Wire
from tests.wall.recorder import (
    Got,
    Malformed,
    Seen,
    Wall,
    answer_with_echo,
    answers,
    first_answer,
    plain_site,
    strict_site,
)
from tests.wall.responses import POISON, THEMES, Answered, End, Fate, Right, Script
from thrtwisted.config import Backend

#: Longer ones are cut into pieces of this many bytes instead of one.
SHORT = 600
PIECE = 509

#: Of the backend, seconds.
PATIENCE = 5.0

_BROKEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")


def responses() -> Iterator[tuple[str, Answered]]:
    """All entries, each with the name that it has in messages."""
    for theme, members in THEMES.items():
        for entry in members:
            yield f"{theme}: {entry.name}", entry


@attrs.frozen
class Given:
    """
    What a client was given.

    @ivar aborted: its connection was broken off. @ivar lost: it was closed, in this way or in another.
    """

    received: bytes
    aborted: bool
    lost: bool


def hurried(site: Any = strict_site, wall_class: type[Wall] = Wall) -> Wall:
    """A proxy that waits for a few seconds only, with one slot."""
    app = Backend(
        url="http://127.0.0.1:9999",
        max_concurrent=1,
        keep_alive=12.0,
        response_timeout=PATIENCE,
        idle_timeout=PATIENCE,
        abandon_timeout=PATIENCE,
    )
    return wall_class(site, backend={"app": app})


def play(wall: Wall, script: Script, method: bytes, version: bytes, size: int) -> Given:
    """
    A client asks, the backend plays its script, and then the client asks for something else.

    @param size: bytes of the pieces in which the backend's come.
    @raise Malformed: something else goes wrong.
    """

    def how(seen: Seen, wire: Wire) -> None:
        if seen.target != b"/attack":
            answer_with_echo(seen, wire)
            return
        for start in range(0, len(script.sent), size):
            if wire.lost:
                return
            wire.receive(script.sent[start : start + size])
        if script.end is End.CLOSED:
            wire.lose()
        elif script.end is End.RESET:
            wire.lose(ConnectionLost())

    wall.how = how
    wall.honest()  # leaves a connection that is used again
    client = wall.connect()
    client.receive(b"%b /attack %b\r\nHost: h\r\n\r\n" % (method, version))
    wall.settle()
    if not client.lost:
        client.receive(b"GET /next HTTP/1.1\r\nHost: h\r\nX-Id: next\r\n\r\n")
        wall.settle()
    for _ in range(4):
        wall.clock.advance(PATIENCE + 1)
        wall.settle()
    given = Given(client.value(), client.aborted, client.lost)
    client.lose()
    wall.settle()
    wall.rig.clients.remove(client)
    wall.arrived()
    return given


def is_right(got: Got, allowed: object) -> bool:
    """Whether a response is what the backend meant."""
    names = {name for name, _ in got.fields}
    return (
        isinstance(allowed, Right)
        and (got.status, got.body) == (allowed.status, allowed.body)
        and (names.isdisjoint(allowed.lacks))
    )


def fate_of(method: bytes, given: Given) -> tuple[Fate | Got, list[Got]]:
    """What a client sees: a refusal, a cut, or a response; and what follows it."""
    received, aborted, lost = given.received, given.aborted, given.lost
    if not received or b"\r\n\r\n" not in received:
        if not lost:
            raise Malformed(f"the client got {received!r}, and waits")
        return Fate.CUT, []
    head = received.partition(b"\r\n\r\n")[0]
    if _BROKEN.search(head):
        raise Malformed(f"a broken head: {head!r}")
    until_close = re.search(rb"^(content-length|transfer-encoding):", head, re.I | re.M) is None
    try:
        first, rest = first_answer(received, method, True)
    except Malformed:
        if not lost:
            raise
        return Fate.CUT, []
    if until_close and aborted:
        return Fate.CUT, []
    following = answers(rest)
    if not first.values(b"proxy-status"):
        return first, following
    return {502: Fate.REFUSED, 504: Fate.LATE}.get(first.status, first), following


class CorpusTests(SynchronousTestCase):
    """Tests for the corpus of responses itself."""

    def test_size(self) -> None:
        """There are many, and no two with one name."""
        names = [name for name, _ in responses()]
        self.assertGreaterEqual(len(names), 40)
        self.assertEqual(len(set(names)), len(names))


class Play:
    """Tests for what clients are given of broken responses, and what comes after them."""

    site = staticmethod(strict_site)
    wall_class = Wall

    def wall(self) -> Wall:
        """A proxy, which is closed in the end."""
        wall = hurried(self.site, self.wall_class)
        self.addCleanup(wall.close)
        return wall

    def complaint(self, entry: Answered, given: Given) -> str:
        """What is wrong with what a client got."""
        fate, following = fate_of(entry.method, given)
        if fate not in entry.allowed and not (
            isinstance(fate, Got) and any(is_right(fate, allowed) for allowed in entry.allowed)
        ):
            return f"not allowed: {fate}"
        if following and [answer.body for answer in following] != [b"GET /next next 0"]:
            return f"the next answer on the connection: {following}"
        if not following and not given.lost:
            return "the next request on the connection has no answer"
        return ""

    def check(self, version: bytes = b"HTTP/1.1", size: int = 10**9) -> None:
        """Nothing is wrong, whatever the backend answers."""
        problems = []
        proxy = self.wall()
        for name, entry in responses():
            pieces = size if len(entry.script.sent) <= SHORT else max(size, PIECE)
            try:
                problem = self.complaint(entry, play(proxy, entry.script, entry.method, version, pieces))
                proxy.honest()
            except Malformed as error:
                problem = str(error)
            if problem:
                problems.append(f"{name}: {problem[:300]}")
                proxy = self.wall()
        self.flushLoggedErrors()
        self.assertEqual(problems, [], "\n".join(["", *problems]))

    def test_whole(self) -> None:
        """Each response, as one piece."""
        self.check()

    def test_old_client(self) -> None:
        """Each response, to a client that speaks HTTP/1.0: only the way in which its connection ends tells a cut."""
        self.check(b"HTTP/1.0")


class ResponseTests(Play, SynchronousTestCase):
    """Tests for clients of the proxy's own site."""

    def test_byte_by_byte(self) -> None:
        """Each response, byte by byte."""
        self.check(size=1)

    def test_unasked(self) -> None:
        """A response that nobody has asked for, on an idle connection, is nobody's."""
        for sent in (POISON, POISON[:20], b"\r\n", b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"x"):
            wall = self.wall()
            wall.honest()
            [wire] = wall.wires
            self.assertFalse(wire.lost)
            wire.receive(sent)
            wall.settle()
            wall.honest()


class EmbeddedResponseTests(Play, SynchronousTestCase):
    """Tests for clients of a site of Twisted's own."""

    site = staticmethod(plain_site)
