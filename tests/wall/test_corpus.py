"""Tests that replay the corpus against the proxy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.wall.corpus import EMBEDDED, THEMES, Asked, Entry
from tests.wall.recorder import Got, Malformed, Result, Seen, Wall, answers, echo, plain_site, strict_site
from thrtwisted.config import Backend

#: Longer inputs are cut into pieces of this many bytes instead of one.
SHORT = 600
PIECE = 509


def in_pieces(sent: bytes) -> list[bytes]:
    """An input byte by byte, or in small pieces if it is long."""
    size = 1 if len(sent) <= SHORT else PIECE
    return [sent[start : start + size] for start in range(0, len(sent), size)]


def in_two(name: str, sent: bytes) -> Iterator[list[bytes]]:
    """An input in two pieces, cut in some places, always the same, or in every place."""
    places = range(1, len(sent))
    if os.environ.get("WALL") == "thorough":
        chosen = list(places) if len(sent) <= SHORT else []
    else:
        between = [place for place in places if sent[place - 1 : place + 1] == b"\r\n"]
        random = Random(name)
        chosen = [random.choice(some) for some in (places, between) if some]
    for place in chosen:
        yield [sent[:place], sent[place:]]


def matches(expected: tuple[Asked, ...], seen: list[Seen]) -> bool:
    """Whether the backend got this."""
    if len(seen) != len(expected):
        return False
    for asked, each in zip(expected, seen, strict=True):
        names = {name for name, _ in each.fields}
        if (each.method, each.target, each.body) != (asked.method, asked.target, asked.body):
            return False
        if asked.host is not None and each.values(b"host") != [asked.host]:
            return False
        if names.intersection(asked.lacks):
            return False
        if any(value not in each.values(name) for name, value in asked.has):
            return False
    return True


def own_answers(seen: list[Seen], got: list[Got]) -> bool:
    """Whether each request of the backend's has the backend's answer to it, in order."""
    expected = [b"" if each.method == b"HEAD" else echo(each) for each in seen]
    return [answer.body for answer in got if answer.echoed] == expected


def complaint(name: str, entry: Entry, result: Result) -> str:
    """What is wrong with what came of an input; nothing if it is as the entry says."""
    seen, got = result.seen, result.got
    if result.failed:
        return result.failed
    status = got[-1].status if len(got) > len(seen) else 0
    fitting = [
        outcome for outcome in entry.allowed if outcome.status == status and matches(outcome.asked, seen)
    ]
    if not fitting:
        return f"not allowed: {[each.status for each in got]}, {seen}"
    if len(got) != len(seen) + bool(status) or not own_answers(seen, got):
        return f"answers that are not those of the requests: {got}"
    if result.admitted != len(seen):
        return f"{result.admitted} admitted for {len(seen)} requests"
    if status < 400 or not all(outcome.ends for outcome in fitting):
        return ""  # nothing, or an answer of the proxy's own
    if not result.ended:
        return "refused, but the connection is open"
    if got[-1].values(b"connection") != [b"close"]:
        return "refused without Connection: close"
    return ""


def complaint_of_embedded(name: str, entry: Entry, result: Result) -> str:
    """The same below a site of Twisted's: it may refuse more, and later, and leave the connection open."""
    seen, got = result.seen, result.got
    allowed = [*(outcome.asked for outcome in entry.allowed), EMBEDDED.get(name, ())]
    if not any(matches(asked[: len(seen)], seen) for asked in allowed):
        return f"not allowed: {[each.status for each in got]}, {seen}"
    if not own_answers(seen, got):
        return f"answers that are not those of the requests: {got}"
    refusals = [answer for answer in got if not answer.echoed]
    own = {outcome.status for outcome in entry.allowed if 0 < outcome.status < 400}
    if {answer.status for answer in refusals if answer.status < 400} - own and not entry.sent.startswith(
        b"OPTIONS *"
    ):
        return f"neither refused nor forwarded: {got}"
    if not len(seen) <= result.admitted <= len(seen) + len(refusals):
        return f"{result.admitted} admitted for {len(seen)} requests"
    return ""


def entries() -> Iterator[tuple[str, Entry]]:
    """All entries, each with the name that it has in messages."""
    for theme, members in THEMES.items():
        for entry in members:
            yield f"{theme}: {entry.name}", entry


class CorpusTests(SynchronousTestCase):
    """Tests for the corpus itself."""

    def test_size(self) -> None:
        """There are many entries, and no two with one name."""
        names = [name for name, _ in entries()]
        self.assertGreaterEqual(len(names), 150)
        self.assertEqual(len(set(names)), len(names))


class Replay:
    """Tests for any site."""

    complaint = staticmethod(complaint)
    site = staticmethod(strict_site)
    wall_class = Wall

    def replay(
        self, wall: Wall, name: str, entry: Entry, pieces: list[bytes], hold: bool, canary: bool
    ) -> str:
        """What is wrong with what comes of an input, or with what an honest client gets after it."""
        try:
            result = wall.send(*pieces, hold=hold)
            if canary:
                wall.honest()
        except Malformed as error:
            return str(error)
        return self.complaint(name, entry, result)

    def check(
        self,
        replays: Iterable[tuple[str, Entry, list[bytes]]],
        *,
        hold: bool = False,
        canary: bool = False,
    ) -> None:
        """
        Nothing is wrong with these inputs, each in its pieces, one after another with one proxy.

        @param canary: an honest client comes after each of them, and not only in the end.
        """
        problems = []
        wall = self.wall()
        for name, entry, pieces in replays:
            problem = self.replay(wall, name, entry, pieces, hold, canary)
            if problem:
                problems.append(f"{name}: {problem[:300]}")
                wall = self.wall()  # what comes after it is not to suffer from it
        wall.honest()
        self.assertEqual(problems, [], "\n".join(["", *problems]))

    def wall(self) -> Wall:
        """A proxy, which is closed in the end."""
        wall = self.wall_class(self.site)
        self.addCleanup(wall.close)
        return wall

    def test_whole(self) -> None:
        """Each input, as one piece, with an honest client behind it."""
        self.check(((name, entry, [entry.sent]) for name, entry in entries()), canary=True)

    def test_byte_by_byte(self) -> None:
        """Each input, byte by byte: what comes of it does not depend on how it comes."""
        self.check((name, entry, in_pieces(entry.sent)) for name, entry in entries())


class StrictTests(Replay, SynchronousTestCase):
    """Tests for the proxy's own site."""

    def test_split_in_two(self) -> None:
        """Each input in two pieces, cut in several places; with WALL=thorough in the environment, in every place."""
        self.check((name, entry, pieces) for name, entry in entries() for pieces in in_two(name, entry.sent))

    def test_backend_that_answers_late(self) -> None:
        """Each input, of which everything has come before the backend answers anything."""
        self.check(((name, entry, [entry.sent]) for name, entry in entries()), hold=True)


class EmbeddedTests(Replay, SynchronousTestCase):
    """Tests for the proxy's resource below a site of Twisted's own."""

    complaint = staticmethod(complaint_of_embedded)
    site = staticmethod(plain_site)


class CrowdTests(SynchronousTestCase):
    """Tests for many clients at once."""

    def test_honest_among_hostile(self) -> None:
        """Honest clients get their own answers, whatever others send meanwhile, and in whatever order it is done."""
        random = Random(0)
        everybody = [entry for _, entry in entries()]
        random.shuffle(everybody)
        wall = Wall(backend={"app": Backend(url="http://127.0.0.1:9999", max_concurrent=3, keep_alive=12.0)})
        self.addCleanup(wall.close)
        for start in range(0, len(everybody), 6):
            self.crowd(wall, random, everybody[start : start + 6])

    def crowd(self, wall: Wall, random: Random, hostile: list[Entry]) -> None:
        """Some hostile clients and three honest ones, which send piece by piece in turn."""
        admitted = wall.rig.gate.admitted
        names = [b"%d" % number for number in range(3)]
        clients = [(wall.connect(), in_some_pieces(random, entry.sent)) for entry in hostile]
        honest = [wall.connect() for _ in names]
        for client, name in zip(honest, names, strict=True):
            sent = honest_request(name + b"-first") + honest_request(name + b"-second")
            clients.append((client, in_some_pieces(random, sent)))
        while clients:
            client, pieces = random.choice(clients)
            if client.lost or not pieces:
                clients.remove((client, pieces))
                continue
            client.receive(pieces.pop(0))
            wall.holding = random.random() < 0.7
            wall.settle()
        wall.holding = False
        wall.settle()
        for client, name in zip(honest, names, strict=True):
            bodies = [answer.body for answer in answers(client.value(), ended=False)]
            self.assertEqual(
                bodies, [b"POST /honest %b-first 4" % name, b"POST /honest %b-second 4" % name], hostile
            )
        self.assertEqual(len(wall.arrived()), wall.rig.gate.admitted - admitted, hostile)
        for client in wall.rig.clients:
            client.lose()
        wall.rig.clients.clear()
        wall.settle()
        wall.arrived()


def honest_request(name: bytes) -> bytes:
    """A request whose answer can be told from others'."""
    return b"POST /honest HTTP/1.1\r\nHost: h\r\nX-Id: %b\r\nContent-Length: 4\r\n\r\nbody" % name


def in_some_pieces(random: Random, sent: bytes) -> list[bytes]:
    """Up to four."""
    places = sorted(random.randrange(len(sent) + 1) for _ in range(3))
    return [sent[start:end] for start, end in pairwise([0, *places, len(sent)]) if start < end]
