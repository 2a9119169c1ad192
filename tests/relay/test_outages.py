"""Whole exchanges over a front and a worker, in memory, while Redis comes and goes: nobody notices but a delay."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.forward.support import Wire
from tests.relay.rig import RelayedRig
from tests.rig import Answer
from thrtwisted.config import Backend
from thrtwisted.relay.front import LOOK

#: The least that a relay can be told to have in Redis.
MAX_INLINE = 4096

#: Looks in a row in which nothing happens: then nothing will.
LOOKS = 12


def content(name: str, size: int) -> bytes:
    """Bytes that are nobody else's."""
    return Random(name).randbytes(size)


class Asked:
    """
    A client's request, and what it is to be answered.

    @ivar left: nobody waits for that any more.
    """

    def __init__(self, number: int, random: Random) -> None:
        self.number = number
        self.body = content(f"request {number}", random.choice([0, 0, 10, 3000, 20_000, 150_000]))
        self.response = content(f"response {number}", random.choice([0, 5, 2000, 30_000, 200_000]))
        self.left = False

    @property
    def sent(self) -> bytes:
        """What the client sends."""
        head = b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (self.number, len(self.body))
        return head + self.body

    @property
    def answer(self) -> bytes:
        """What the backend sends, in the end."""
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.response) + self.response


class OutageTests(SynchronousTestCase):
    """Nobody dies, and nobody loses patience: every request is executed once, and its answer is complete."""

    def test_any_outages(self) -> None:
        """
        Frames are lost, with and without a word, and come twice; connections stand still; clients read slowly, and some
        leave.
        """
        for seed in range(40):
            self.run_random(Random(seed))

    def run_random(self, random: Random) -> None:
        app = Backend(
            url="http://127.0.0.1:9999",
            max_concurrent=random.choice([None, 2]),
            keep_alive=0,
            max_spool=random.choice([0, 10**6]),
            abandon_timeout=10**6,
            response_timeout=10**6,
            idle_timeout=10**6,
            connect_timeout=10**6,
        )
        relay = {"max_inline": random.choice([MAX_INLINE, 65536]), "concurrency": 4}
        self.rig = rig = RelayedRig(self, relay=relay, backend={"app": app})
        often = random.choice([[1, 1, 1, 2], [1] * 20 + [0]])
        rig.posts.repeats = lambda frame: random.choice(often)
        self.asked: list[tuple[Asked, Wire]] = []
        self.working: dict[Wire, tuple[Asked, int]] = {}
        self.executed: list[int] = []
        for _ in range(random.choice([30, 150])):
            self.act(random, random.randrange(10))
        rig.posts.repeats = lambda frame: 1
        if not rig.posts.is_up:
            rig.posts.mend()
        idle = 0
        for turn in range(2000):
            for _, client in self.asked:
                if client.congested and client.producer is not None:
                    client.relieve()
            idle = 0 if self.serve(random) else idle + 1
            if idle == LOOKS:
                break
            rig.clock.advance(LOOK if idle or turn % 50 == 49 else 0)
        for asked, client in self.asked:
            if not asked.left:
                answer = Answer(client.value())
                self.assertEqual((answer.status, answer.body), (200, asked.response), asked.number)
        self.assertEqual(sorted(set(self.executed)), sorted(self.executed))
        rig.posts.carried.clear()
        rig.clients.clear()
        for _, client in self.asked:
            client.lose()
        rig.check_nothing_left()

    def act(self, random: Random, act: int) -> None:
        """Something happens."""
        rig = self.rig
        if act < 2 and len(self.asked) < 12:
            asked = Asked(len(self.asked), random)
            client = rig.request(asked.sent)
            client.congested = random.random() < 0.3
            self.asked.append((asked, client))
        elif act < 6:
            self.serve(random)
        elif act == 6 and self.asked:
            asked, client = random.choice(self.asked)
            if client.congested and client.producer is not None and not asked.left:
                client.resume()
        elif act == 7:
            rig.posts.cut(random.randrange(4))
            if random.random() < 0.5:
                rig.posts.mend()
        elif act == 8:
            rig.posts.mend()
        elif self.asked and random.random() < 0.3:
            asked, client = random.choice(self.asked)
            asked.left = True
            client.lose()
        rig.clock.advance(random.choice([0, 0, 0.1, 6.0]))

    def serve(self, random: Random) -> bool:
        """Each connection to the backend goes on a little; whether one did."""
        rig, busy = self.rig, False
        while len(rig.backends) < rig.connections:
            if rig.clock.connectors[len(rig.backends)].stoppedConnecting:
                rig.backends.append(Wire(rig.clock, rig.site.buildProtocol(None)))
                continue
            wire = rig.accept()
            wire.congested = random.random() < 0.5
            self.working[wire] = (Asked(-1, random), 0)
        for wire, (asked, done) in list(self.working.items()):
            if wire.lost:
                del self.working[wire]
                continue
            if wire.congested and wire.producer is not None:
                wire.resume()
                busy = True
            head, found, body = wire.value().partition(b"\r\n\r\n")
            if asked.number < 0 and found:
                number = int(head.split(b" ")[1][1:])
                asked = self.asked[number][0]
                if len(body) < len(asked.body):
                    continue
                self.assertEqual(body, asked.body)
                self.executed.append(number)
            if asked.number >= 0 and wire.producerState == "producing":
                busy = True
                size = random.choice([1, 100, 5000, 65536])
                piece = asked.answer[done : done + size]
                self.working[wire] = (asked, done + len(piece))
                wire.receive(piece)
                if done + len(piece) == len(asked.answer):
                    del self.working[wire]
        return busy
