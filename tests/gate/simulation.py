"""
A world for L{RedisGate} and C{gate.lua} in which whoever explores it decides what becomes of each message.

The gates and the script are the product's own, and the script runs in a real server. What is simulated is time (each
owner has a clock of its own, and the server that of the world: the script's one call of C{TIME} is replaced by what it
is given) and the network (L{Wire} stands where L{thrtwisted.redis.link.Link} stands). So hours pass in seconds, and the
same decisions lead to the same history.

Nothing happens unless L{World.advance} is called; and decisions are asked for between the events only, never while code
of a gate is running, where an exception of whoever decides would be taken for an error of Redis.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from functools import cache
from itertools import count
from typing import Any

import attrs
import txredisapi
from msgspec import msgpack
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from thrtwisted.gate.redis import RedisGate
from thrtwisted.gate.script import SCRIPT
from thrtwisted.redis.link import RedisGone

#: Seconds from one process to another, if nothing is in the way.
LATENCY = 0.001

#: The server's time when a world begins (seconds).
START = 1_700_000_000

#: What becomes of a batch that is sent, or of a message that is published, if nothing is in the way; or else.
PROMPT = "prompt"
BATCH_FATES = (
    "late",  # it arrives later
    "answered late",
    "never arrives",  # the connections are cut before it does
    "never answered",  # the connections are cut after it was done
    "swallowed",  # the connections stand, and nothing comes out of them
    "done in silence",  # it is done, and the connections stand, but there is no answer
    "after its connection",  # the connections are cut, and it is done later
    "twice",
    "refused",
)
MESSAGE_FATES = ("late", "lost", "twice")


@cache
def given_time(script: bytes) -> bytes:
    """
    The script, with the time as its third and fourth argument, and who is connected as its fifth; in the server's own
    time it forgets nothing soon.
    """
    asks, takes = b"redis.call('TIME')", b"{ ARGV[3], ARGV[4] }"
    assert script.count(asks) == script.count(b"TIME'") == 1, "the script asks for the time once"
    expires, lasts = b"'PX', text(", b"'PX', text(3600000 + "
    assert script.count(expires) == script.count(b"'PX'") == 1, "the script lets what is used up of rates go"
    hears = b"tonumber(redis.call('PUBSUB', 'NUMSUB', CHANNEL .. worker)[2]) > 0"
    is_told = b"string.find(ARGV[5], ' ' .. worker .. ' ', 1, true) ~= nil"
    assert script.count(hears) == script.count(b"'NUMSUB', ") == 1, (
        "the script asks who is connected in one place"
    )
    return script.replace(asks, takes).replace(expires, lasts).replace(hears, is_told)


class Server:
    """
    Redis, as all owners see it.

    @param client: a blocking client of a real server.
    @ivar address: another one after a failover.
    @ivar life: another one after each start of a server: what was sent to an earlier one is lost.
    @ivar knows_script: not so after a restart.
    @ivar reachable: whether it answers.
    @ivar ahead: seconds by which its clock differs from the world's.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        self.prefix = "{" + namespace + "}"
        self.address = 0
        self.life = 0
        self.knows_script = False
        self.reachable = True
        self.ahead = 0
        self._client = client
        self._script = given_time(SCRIPT)
        self._digest = hashlib.sha1(self._script).hexdigest()
        self._published = client.pubsub(ignore_subscribe_messages=True)
        self._published.psubscribe(f"{self.prefix}:owner:*")
        self._published.get_message(timeout=5)
        client.script_load(self._script)
        self.forget()

    def run(
        self, batch: bytes, unfamiliar: bool, now: float, connected: Iterable[str] = ()
    ) -> tuple[bytes, list[tuple[str, bytes]]]:
        """The reply to a batch, and what it published: owners and messages."""
        known, self.knows_script = self.knows_script, True
        seconds, rest = divmod(self.milliseconds(now), 1000)
        doubt = "1" if unfamiliar or not known else ""
        hear = f" {' '.join(connected)} "
        reply = self._client.evalsha(self._digest, 1, self.prefix, batch, doubt, seconds, rest * 1000, hear)
        self._client.ping()  # it may answer before it sends what was published
        published = []
        while message := self._published.get_message():
            published.append((message["channel"].decode().rpartition(":")[2], message["data"]))
        return reply, published

    def milliseconds(self, now: float) -> int:
        """What its clock shows."""
        return (START + self.ahead) * 1000 + round(now * 1000)

    def keys(self) -> list[bytes]:
        keys: list[bytes] = self._client.keys(f"{self.prefix}:*")
        return keys

    def forget(self) -> None:
        keys = self.keys()
        if keys:
            self._client.delete(*keys)

    def save(self) -> dict[bytes, bytes]:
        """All that it knows."""
        return {key: self._client.dump(key) for key in self.keys()}

    def restore(self, saved: dict[bytes, bytes]) -> None:
        """It knows what it knew, and nothing else."""
        self.forget()
        for key, value in saved.items():
            self._client.restore(key, 0, value)

    def close(self) -> None:
        self.forget()
        self._published.close()


@attrs.define(eq=False)
class Sent:
    """
    A batch on its way.

    @ivar over: the connections that it was sent over.
    @ivar reply: of the gate that sent it.
    """

    over: Connections
    batch: bytes
    unfamiliar: bool
    reply: Deferred[bytes]


@attrs.define(eq=False)
class Connections:
    """
    One to send batches and one to hear messages, which end together.

    @ivar stand: whether anything arrives. The owner learns of the end when it looks.
    """

    wire: Wire
    address: int
    life: int
    stand: bool = True
    unanswered: list[Sent] = attrs.Factory(list)


class Wire:
    """
    Connects one owner to the server, and does for its gate what L{thrtwisted.redis.link.Link} does.

    @ivar pause: seconds before it connects anew; a gate allows for half a heartbeat.
    @ivar fails_first: whether batches fail before the gate hears that the connections are lost, or after.
    """

    def __init__(self, world: World, owner: Owner, pause: float, fails_first: bool) -> None:
        self.pause = pause
        self.fails_first = fails_first
        self._world = world
        self._owner = owner
        self.connections: Connections | None = None
        self._familiar: int | None = None
        self._unfamiliar = False
        self._stopped = False
        self._attempt: Any = None

    # What a gate calls ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._connect_in(0.0)

    def stop(self) -> Deferred[None]:
        self._stopped = True
        if self._attempt is not None and self._attempt.active():
            self._attempt.cancel()
        if self.connections is not None:
            self.cut()
            self._fail(self.connections)
            self.connections = None
        return succeed(None)

    def reset(self) -> None:
        if self.connections is not None and self.connections.stand:
            self.cut()

    def refused(self, problem: Exception) -> None:
        self.reset()

    def working(self) -> None:
        pass

    def script(self, script: bytes, key: str, argument: bytes) -> Deferred[bytes]:
        assert (script, key) == (SCRIPT, self._world.server.prefix)
        if self.connections is None:
            return fail(RedisGone("Redis is not connected"))
        sent = Sent(self.connections, argument, self._unfamiliar, Deferred())
        self.connections.unanswered.append(sent)
        self._world.at(0.0, lambda: self._world.carry(sent))
        return sent.reply

    # What the world calls -------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Nothing arrives any more on the connections that stand; the owner will see."""
        connections = self.connections
        if connections is not None and connections.stand:
            connections.stand = False
            self._world.at(0.0, lambda: self._owner.reads(lambda: self._lost(connections)))

    def answer(self, sent: Sent, reply: bytes | Exception) -> None:
        """A reply has arrived."""
        if sent in sent.over.unanswered:
            sent.over.unanswered.remove(sent)
            if isinstance(reply, bytes):
                self._familiar, self._unfamiliar = sent.over.address, False
                sent.reply.callback(reply)
            else:
                sent.reply.errback(reply)

    def _connect_in(self, pause: float) -> None:
        self._attempt = self._owner.clock.callLater(pause, self._connect)

    def _connect(self) -> None:
        if self._world.reaches(self._owner):
            self._world.at(3 * LATENCY, lambda: self._owner.reads(self._connected))
        else:
            self._owner.hampered = self._world.now
            self._connect_in(self.pause)

    def _connected(self) -> None:
        if self._stopped:
            return
        if not self._world.reaches(self._owner):
            self._connect_in(self.pause)
            return
        server = self._world.server
        self._unfamiliar |= self._familiar not in (None, server.address)
        self.connections = Connections(self, server.address, server.life)
        self._owner.gate.up()

    def _lost(self, connections: Connections) -> None:
        if connections is not self.connections:
            return
        self.connections = None
        if self.fails_first:
            self._fail(connections)
        self._owner.gate.down()
        self._fail(connections)
        if not self._stopped:
            self._connect_in(self.pause)

    def _fail(self, connections: Connections) -> None:
        while connections.unanswered:
            connections.unanswered.pop(0).reply.errback(RedisGone("the connection was lost"))


class Owner:
    """
    One process: a gate, with a clock of its own.

    @param ahead: seconds by which its clock differs from the world's.
    @param rate: seconds that pass on it while one passes in the world.
    @ivar hampered: when it last could not do at once what it was to do, or speak with Redis at once.
    @ivar frozen: whether it is stopped: nothing of it runs, and what arrives waits.
    """

    def __init__(self, world: World, name: str, ahead: float, rate: float) -> None:
        self.name = name
        self.clock = Clock()
        self.clock.rightNow = 10_000.0 + ahead + rate * world.now
        self.hampered = -1.0
        self.frozen = False
        self.alive = True
        self.gate: RedisGate
        self.wire: Wire
        self._world = world
        self._ahead = ahead
        self._rate = rate
        self._inbox: list[Callable[[], None]] = []

    def next_timer(self) -> float | None:
        """When, in the world's time, one of its timers is due."""
        if self.frozen or not self.clock.calls:
            return None
        return (self.clock.calls[0].getTime() - 10_000.0 - self._ahead) / self._rate

    def run_timers(self) -> None:
        """Those that are due, at least one."""
        self.clock.advance(max(0.0, self.clock.calls[0].getTime() - self.clock.seconds()))

    def look_at_clock(self) -> None:
        """Its clock shows the present time; what is due runs."""
        now = 10_000.0 + self._ahead + self._rate * self._world.now
        self.clock.advance(max(0.0, now - self.clock.seconds()))

    def reads(self, what: Callable[[], None]) -> None:
        """Something has arrived: it is read at once, unless the process is frozen."""
        if not self.alive:
            return
        if self.frozen:
            self._inbox.append(what)
            return
        self.look_at_clock()
        what()
        self.clock.advance(0.0)

    def freeze(self) -> None:
        self.frozen = True
        self.hampered = self._world.now

    def thaw(self) -> None:
        """It goes on: with the timers that are due, then with all that has arrived, in one turn of its reactor."""
        if self.frozen:
            self.frozen = False
            self.hampered = self._world.now
            self.look_at_clock()
            inbox, self._inbox = self._inbox, []
            for what in inbox:
                what()
            self.clock.advance(0.0)

    def kill(self) -> None:
        """Its last words may still be on their way."""
        self.alive = False
        self._inbox = []


def all_is_prompt(kind: str, name: str) -> tuple[str, float]:
    """Nothing is in the way."""
    return PROMPT, LATENCY


class World:
    """
    Time, owners, a server, and what is under way between them.

    @ivar now: seconds since it began.
    @ivar owners: the living, frozen or not, by name.
    @ivar cut_off: owners that cannot reach the server though others do.
    @ivar decide: what becomes of a "batch" or a "message" of an owner, and by how many seconds it is late; and of a
        batch of the "backlog" that a server has when it goes on, sent over connections that are no more.
    @ivar history: what has become of what, in words.
    @ivar executed: is called after each batch that was done, with its owner's name, the batch and the reply.
    @ivar stepped: is called after each event.
    """

    def __init__(self, server: Server) -> None:
        self.now = 0.0
        self.server = server
        self.owners: dict[str, Owner] = {}
        self.cut_off: set[str] = set()
        self.decide: Callable[[str, str], tuple[str, float]] = all_is_prompt
        self.history: list[str] = []
        self.executed: Callable[[str, list[Any], list[Any]], None] = lambda owner, batch, reply: None
        self.stepped: Callable[[], None] = lambda: None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._backlog: list[Sent] = []

    # Time -----------------------------------------------------------------------------------------------------------

    def at(self, delay: float, event: Callable[[], None]) -> None:
        """Let something happen after a time (seconds)."""
        heapq.heappush(self._events, (self.now + delay, next(self._numbers), event))

    def advance(self, seconds: float) -> None:
        """Let time pass, and happen what happens in it."""
        end = self.now + seconds
        while self._happen(end):
            self.stepped()
        self.now = end

    def _happen(self, end: float) -> bool:
        timers = [(due, owner) for owner in self.owners.values() if (due := owner.next_timer()) is not None]
        due, owner = min(timers, key=lambda timer: timer[0], default=(end + 1, None))
        if self._events and self._events[0][0] <= min(due, end):
            when, _, event = heapq.heappop(self._events)
            self.now = max(self.now, when)
            event()
        elif owner is not None and due <= end:
            self.now = max(self.now, due)
            owner.run_timers()
        else:
            return False
        return True

    def note(self, what: str) -> None:
        self.history.append(f"{self.now:.4f} {what}")

    # Owners ---------------------------------------------------------------------------------------------------------

    def start(
        self,
        name: str,
        *,
        ahead: float = 0.0,
        rate: float = 1.0,
        pause: float = 0.05,
        fails_first: bool = True,
        **options: Any,
    ) -> Owner:
        """A process starts, with a gate of these options."""
        owner = self.owners[name] = Owner(self, name, ahead, rate)
        owner.gate = RedisGate(owner.clock, namespace=self.server.prefix[1:-1], owner=name, **options)
        owner.wire = Wire(self, owner, pause, fails_first)
        owner.gate.connect(owner.wire)
        return owner

    def kill(self, name: str) -> None:
        self.owners.pop(name).kill()

    # The network ----------------------------------------------------------------------------------------------------

    def reaches(self, owner: Owner) -> bool:
        return self.server.reachable and owner.name not in self.cut_off

    @property
    def connected(self) -> list[str]:
        """Whom messages reach."""
        all_connections = {name: owner.wire.connections for name, owner in self.owners.items()}
        return [name for name, connections in all_connections.items() if connections and connections.stand]

    def carry(self, sent: Sent) -> None:
        """A batch leaves its owner."""
        owner, wire = sent.over.wire._owner, sent.over.wire
        fate, delay = self.decide("batch", owner.name)
        if fate != PROMPT:
            owner.hampered = self.now
            self.note(f"{owner.name}: what it sends is {fate} ({delay} s)")
        if fate in ("late", "after its connection"):
            self.at(delay, lambda: self._arrive(sent))
        elif fate == "twice":
            self.at(LATENCY, lambda: self._arrive(sent))
            self.at(delay, lambda: self._arrive(sent))
        elif fate == "refused":
            self.at(2 * LATENCY, lambda: self._reply(sent, txredisapi.ResponseError("OOM")))
        elif fate in (PROMPT, "answered late", "never answered", "done in silence"):
            back = {PROMPT: LATENCY, "answered late": delay}.get(fate)
            self.at(LATENCY, lambda: self._arrive(sent, back))
        if fate in ("never arrives", "after its connection"):
            self.at(LATENCY, wire.cut)
        elif fate == "never answered":
            self.at(2 * LATENCY, wire.cut)

    def _arrive(self, sent: Sent, back: float | None = LATENCY) -> None:
        """
        A batch is there.

        @param back: seconds until the reply is back; None if it never is.
        """
        if sent.over.life != self.server.life:
            return
        if not self.server.reachable:
            self._backlog.append(sent)
            return
        reply, published = self.server.run(sent.batch, sent.unfamiliar, self.now, self.connected)
        if back is not None:
            self.at(back, lambda: self._reply(sent, reply))
        for name, message in published:
            self._publish(name, message)
        self.executed(sent.over.wire._owner.name, msgpack.decode(sent.batch), msgpack.decode(reply))

    def _reply(self, sent: Sent, reply: bytes | Exception) -> None:
        if sent.over.stand:
            wire = sent.over.wire
            wire._owner.reads(lambda: wire.answer(sent, reply))

    def _publish(self, name: str, message: bytes) -> None:
        owner = self.owners.get(name)
        connections = owner and owner.wire.connections
        if not owner or not connections or not connections.stand:
            return

        def arrive() -> None:
            if connections.stand:
                owner.reads(lambda: owner.gate.message(message))

        fate, delay = self.decide("message", name)
        if fate in (PROMPT, "twice"):
            self.at(LATENCY, arrive)
        if fate != PROMPT:
            owner.hampered = self.now
            self.note(f"{name}: what is published to it is {fate} ({delay} s)")
            if fate != "lost":
                self.at(delay, arrive)

    # Faults ---------------------------------------------------------------------------------------------------------

    def cut(self, name: str) -> None:
        """An owner's connections are lost."""
        self.owners[name].wire.cut()

    def part(self, name: str) -> None:
        """An owner cannot reach the server."""
        self.cut_off.add(name)
        self.owners[name].hampered = self.now
        self.cut(name)

    def rejoin(self, name: str) -> None:
        self.cut_off.discard(name)

    def take_away(self, silently: bool) -> None:
        """
        The server stops answering.

        @param silently: it is frozen: connections stand, and what is sent to it may be done later.
        """
        self.server.reachable = False
        for owner in self.owners.values():
            owner.hampered = self.now
            if not silently:
                owner.wire.cut()

    def bring_back(self, restarted: bool) -> None:
        """The server answers again."""
        backlog, self._backlog = self._backlog, []
        self.server.reachable = True
        for owner in self.owners.values():
            if restarted:
                owner.wire.cut()
            if self.reaches(owner):
                owner.hampered = -1.0  # from now on it can do what it is to do
        if restarted:
            self.server.life += 1
            self.server.knows_script = False
        for sent in backlog:
            # What was sent over connections that are no more may be in the server's buffers or not.
            if sent.over.stand or self.decide("backlog", sent.over.wire._owner.name)[0] == PROMPT:
                self._arrive(sent)

    def fail_over(self, ahead: int) -> None:
        """Another server takes the place of this one; its clock is so many seconds ahead of the world's."""
        self.server.address += 1
        self.server.life += 1
        self.server.ahead = ahead
        for owner in self.owners.values():
            owner.wire.cut()
