"""Tests for L{thrtwisted.relay.conversation}."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.machines import run_state_machine_as_test
from tests.relay.support import MemoryPosts, Talker
from tests.relay.test_flow import joined
from thrtwisted.relay.codec import NOTHING, Frame, Kind, Question, decode, decode_payload, encode_payload
from thrtwisted.relay.conversation import Conversation, answer_unknown
from thrtwisted.relay.flow import OVERHEAD

WINDOW = 4096


class Pair:
    """A front and a worker who talk about exchange 1 of the front's."""

    def __init__(self, window: int = WINDOW, *, workers: int | None = None, greedy: bool = True) -> None:
        self.clock = Clock()
        self.posts = MemoryPosts(self.clock)
        self.front, self.worker = Talker(greedy=greedy), Talker(greedy=greedy)
        for talker, name, peer, size in (
            (self.front, "front", "worker", window),
            (self.worker, "worker", "front", workers or window),
        ):
            post = self.posts.post(name)
            talker.conversation = Conversation(post, peer, "front", 1, size, talker)
            post.start(talker)

    def turn(self) -> None:
        """All that is under way arrives, and what follows from that."""
        self.clock.advance(0)

    def kinds(self, peer: str) -> list[Kind]:
        """What was carried to one of them."""
        return [Kind(frame.kind) for owner, frame in self.posts.carried if owner == peer]


class ConversationTests(SynchronousTestCase):
    """Two who talk."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.front, self.worker = self.pair.front, self.pair.worker

    def test_exchange(self) -> None:
        """What is said is heard, in order, each in one piece; in the end both are quiet, after no frame too many."""
        self.pair = Pair(16384)
        self.front, self.worker = self.pair.front, self.pair.worker
        self.front.conversation.say(Kind.OPEN, b"o" * 3000)
        self.front.conversation.write(b"body")
        self.front.conversation.say(Kind.END)
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.OPEN, b"o" * 3000), (Kind.DATA, b"body"), (Kind.END, b"")])
        self.worker.conversation.say(Kind.HEAD, b"head")
        self.worker.conversation.write(b"answer")
        self.worker.conversation.write(b"")
        self.worker.conversation.say(Kind.END)
        self.worker.conversation.say(Kind.DONE)
        self.worker.conversation.tell(Kind.DONE)  # which was just said
        self.pair.turn()
        self.assertEqual(
            self.front.heard,
            [(Kind.HEAD, b"head"), (Kind.DATA, b"answer"), (Kind.END, b""), (Kind.DONE, b"")],
        )
        self.assertTrue(self.front.conversation.quiet)
        self.front.conversation.end()
        self.pair.turn()
        self.assertTrue(self.worker.conversation.quiet)
        self.worker.conversation.end()
        self.pair.turn()
        self.assertEqual(self.pair.posts.flying, [])
        self.assertEqual(self.pair.kinds("front"), [Kind.HEAD, Kind.DATA, Kind.END, Kind.DONE])
        self.assertEqual(self.pair.kinds("worker"), [Kind.OPEN] * 2 + [Kind.DATA, Kind.END, Kind.ACK])

    def test_windows_differ(self) -> None:
        """One who has less under way at once than the other is not kept waiting for an acknowledgement."""
        for fronts, workers in ((2048, 2**20), (2**20, 2048), (2**17, 2**19)):
            self.pair = Pair(fronts, workers=workers)
            self.front, self.worker = self.pair.front, self.pair.worker
            head, body = b"o" * 5000, bytes(300_000)
            for talker, kind in ((self.front, Kind.OPEN), (self.worker, Kind.HEAD)):
                talker.conversation.say(kind, head)
                talker.conversation.write(body)
            self.pair.turn()
            self.assertEqual(self.worker.heard, [(Kind.OPEN, head), (Kind.DATA, body)])
            self.assertEqual(self.front.heard, [(Kind.HEAD, head), (Kind.DATA, body)])

    def test_back_pressure(self) -> None:
        """Until data was consumed, no more than the window sets out; then all comes, as fast as it is taken."""
        self.front.greedy = False
        data = bytes(range(256)) * 256
        self.worker.conversation.write(data)
        self.assertTrue(self.worker.conversation.full)
        self.pair.turn()
        self.assertLessEqual(self.front.held, WINDOW)
        while self.front.held:
            self.assertLessEqual(self.front.held, WINDOW)
            self.front.take(1000)
            self.pair.turn()
        self.assertEqual(self.front.heard, [(Kind.DATA, data)])
        self.assertEqual(self.worker.drains, 1)
        self.assertFalse(self.worker.conversation.full)

    def test_writes_when_drained(self) -> None:
        """One who writes only when he is asked to keeps little more than a window."""
        worker = self.worker
        source = iter([b"x" * 1500] * 50)

        def write_more() -> None:
            while not worker.conversation.full and (data := next(source, None)):
                worker.conversation.write(data)

        worker.drained = write_more  # type: ignore[method-assign]
        write_more()
        self.pair.turn()
        self.assertEqual(self.front.heard, [(Kind.DATA, b"x" * 75000)])

    def test_trickle(self) -> None:
        """Small pieces are acknowledged now and then, not each."""
        for _ in range(100):
            self.worker.conversation.write(b"x" * 20)
            self.pair.turn()
        self.assertEqual(len(self.front.heard[0][1]), 2000)
        self.assertLess(len(self.pair.kinds("worker")), 12)

    def test_told(self) -> None:
        """What is told does not wait for what was said before, nor for room."""
        self.front.greedy = False
        self.worker.conversation.write(b"x" * WINDOW)
        self.worker.conversation.say(Kind.DONE)
        self.worker.conversation.tell(Kind.DONE)
        self.pair.turn()
        self.assertEqual([kind for kind, _ in self.front.heard], [Kind.DATA, Kind.DONE])
        self.front.take()
        self.pair.turn()
        self.assertEqual([kind for kind, _ in self.front.heard], [Kind.DATA, Kind.DONE, Kind.DATA, Kind.DONE])

    def test_lost(self) -> None:
        """What Redis has lost, both ways, comes when the post is up again; told words, too."""
        self.front.conversation.say(Kind.OPEN, b"open")
        self.pair.posts.cut()
        self.front.conversation.say(Kind.END)
        self.front.conversation.tell(Kind.ABANDON)
        self.pair.turn()
        self.assertEqual(self.worker.heard, [])
        self.pair.posts.mend()
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.OPEN, b"open"), (Kind.ABANDON, b""), (Kind.END, b"")])

    def test_lost_acknowledgement(self) -> None:
        """What was heard, and whose acknowledgement was lost, is not said again."""
        self.front.conversation.say(Kind.OPEN, b"open")
        self.pair.turn()
        self.pair.posts.carried.clear()
        self.pair.posts.mend()
        self.pair.turn()
        self.assertTrue(self.front.conversation.quiet)
        self.assertEqual(self.pair.kinds("worker"), [Kind.ACK, Kind.ACK])
        self.worker.conversation.say(Kind.REFUSED)
        self.pair.posts.cut()
        self.pair.posts.mend()
        self.pair.turn()
        self.assertEqual(self.front.heard, [(Kind.REFUSED, b"")])
        self.pair.posts.mend()
        self.pair.turn()
        self.assertEqual(self.front.heard, [(Kind.REFUSED, b"")])
        self.assertTrue(self.worker.conversation.quiet)

    def test_in_the_middle(self) -> None:
        """What comes after something that is lost does not count; nothing comes twice."""
        for number in range(6):
            self.worker.conversation.say(Kind.HEAD, b"%d" % number)
        del self.pair.posts.flying[2]
        self.pair.turn()
        self.assertEqual([payload for _, payload in self.front.heard], [b"0", b"1"])
        self.pair.posts.mend()
        self.pair.turn()
        self.assertEqual([payload for _, payload in self.front.heard], [b"0", b"1", b"2", b"3", b"4", b"5"])

    def test_repeated(self) -> None:
        """All that comes twice is heard once."""
        self.pair.posts.repeats = lambda frame: 2
        self.front.conversation.say(Kind.OPEN, b"o" * 5000)
        self.front.conversation.say(Kind.END)
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.OPEN, b"o" * 5000), (Kind.END, b"")])

    def test_ended(self) -> None:
        """After its end it says nothing, and hears nothing; the other is told, for it was not over."""
        self.front.conversation.say(Kind.OPEN)
        self.pair.turn()
        self.front.conversation.end()
        self.front.conversation.end()
        self.front.conversation.say(Kind.END)
        self.front.conversation.tell(Kind.ABANDON)
        self.front.conversation.consumed(3)
        self.front.conversation.check()
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.OPEN, b""), (Kind.GONE, b"")])
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.assertEqual(self.front.heard, [])

    def test_ended_before_it_began(self) -> None:
        """Nobody is told the end of what he has heard nothing of."""
        self.front.conversation.end()
        self.assertEqual(self.pair.posts.flying, [])

    def test_ended_amidst(self) -> None:
        """One who ends it while he is told something hears nothing more."""
        self.worker.said = lambda kind, payload: self.worker.conversation.end()  # type: ignore[method-assign]
        self.front.conversation.say(Kind.OPEN)
        self.front.conversation.say(Kind.END)
        self.pair.turn()
        self.assertEqual([kind for kind, _ in self.front.heard], [Kind.GONE])

    def test_ended_when_drained(self) -> None:
        """So it is with one who ends it when he is to write again."""
        self.worker.conversation.write(b"x" * WINDOW * 3)
        self.worker.drained = self.worker.conversation.end  # type: ignore[method-assign]
        self.pair.turn()
        self.assertEqual(self.front.heard[-1], (Kind.GONE, b""))

    def test_ask(self) -> None:
        """One who knows the exchange answers with what he has heard."""
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.assertFalse(self.worker.conversation.quiet)
        self.worker.conversation.check()
        self.pair.turn()
        self.assertTrue(self.worker.conversation.quiet)
        self.assertEqual(self.front.heard, [(Kind.HEAD, b"")])

    def lose(self) -> None:
        """What sets out now is lost, and nobody is told."""
        self.pair.turn()
        self.pair.posts.cut()

    def found(self) -> None:
        """From now on, nothing is."""
        self.pair.posts.is_up = True

    def test_ask_for_what_was_lost(self) -> None:
        """What has passed in an inbox, said or told, is sent again to one who asks; and only that."""
        self.front.greedy = False
        self.worker.conversation.write(b"heard")
        self.lose()
        self.worker.conversation.write(b"lost")
        self.worker.conversation.say(Kind.END)
        self.found()
        self.pair.posts.carried.clear()
        self.front.conversation.check()
        self.pair.turn()
        self.assertEqual(self.front.heard, [(Kind.DATA, b"heardlost"), (Kind.END, b"")])
        self.assertEqual(self.pair.kinds("front"), [Kind.ACK, Kind.DATA, Kind.END])
        self.lose()
        self.worker.conversation.tell(Kind.DONE)
        self.found()
        self.front.conversation.check()
        self.pair.turn()
        self.assertEqual(self.front.heard[2:], [(Kind.DONE, b"")])

    def test_ask_for_what_was_told(self) -> None:
        """What was told is told again to one who asks, also where nothing else was lost."""
        self.front.conversation.say(Kind.OPEN)
        self.front.conversation.check()
        self.pair.turn()
        self.lose()
        self.front.conversation.tell(Kind.ABANDON)
        self.found()
        self.worker.conversation.check()
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.OPEN, b""), (Kind.ABANDON, b"")])

    def test_told_at_once(self) -> None:
        """What was told is told again without waiting for an answer, which may not count any more when it comes."""
        self.front.conversation.say(Kind.OPEN)
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.worker.conversation.check()
        self.pair.turn()
        self.lose()
        self.front.conversation.tell(Kind.ABANDON)
        self.found()
        self.front.conversation.check()
        self.front.conversation.write(b"x")
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.OPEN, b""), (Kind.ABANDON, b""), (Kind.DATA, b"x")])

    def test_ask_what_was_heard(self) -> None:
        """One who asks learns of what was lost of his own, and sends it again; but not what is only not consumed."""
        self.front.conversation.say(Kind.OPEN)
        self.front.greedy = False
        self.worker.conversation.write(b"heard")
        self.lose()
        self.worker.conversation.say(Kind.END)
        self.found()
        for _ in range(2):
            self.pair.posts.carried.clear()
            self.worker.conversation.check()
            self.pair.turn()
            self.assertEqual(self.front.heard, [(Kind.DATA, b"heard"), (Kind.END, b"")])
        self.assertEqual(self.pair.kinds("front"), [Kind.ACK])

    def flow(self, peer: str) -> list[int]:
        """The numbers of what is in an inbox, of the flow."""
        frames = [decode(message)[0] for owner, message in self.pair.posts.flying if owner == peer]
        return [frame.seq for frame in frames if frame.seq]

    def arrived_once(self) -> list[int]:
        """The numbers of what was carried to the worker, of the flow: each once, and in order."""
        arrived = [frame.seq for owner, frame in self.pair.posts.carried if owner == "worker" and frame.seq]
        self.assertEqual(arrived, sorted(set(arrived)))
        return arrived

    def test_frozen_reader(self) -> None:
        """However often the post of one comes and goes, what the other has not read yet is there once."""
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.front.conversation.write(b"x" * 3 * WINDOW)
        there = self.flow("worker")
        for _ in range(10):
            self.pair.posts.mend()
        self.assertEqual(self.flow("worker"), there)
        self.pair.posts.carried.clear()
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.DATA, b"x" * 3 * WINDOW)])
        self.arrived_once()

    def test_many_answers(self) -> None:
        """One who was asked often, and answers often that something is lost, gets it once."""
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.front.conversation.write(b"x" * WINDOW)
        lost = self.flow("worker")
        self.pair.posts.flying.clear()
        for _ in range(10):
            self.pair.posts.mend()
        self.pair.posts.carried.clear()
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.DATA, b"x" * WINDOW)])
        self.assertEqual(self.arrived_once()[: len(lost)], lost)

    def test_sure_again(self) -> None:
        """An answer that is lost keeps nobody waiting for longer than until the next question, of whom it may be."""
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        for asks in self.front, self.worker:
            self.worker.conversation.say(Kind.END)
            self.pair.posts.flying.clear()
            self.worker.conversation.check()
            self.pair.posts.flying.clear()
            self.worker.conversation.say(Kind.DONE)
            self.assertEqual(self.flow("front"), [])
            asks.conversation.check()
            self.pair.turn()
            self.assertEqual(self.front.heard[-2:], [(Kind.END, b""), (Kind.DONE, b"")])

    def test_first_answer(self) -> None:
        """One who asks more often than answers come goes on with the first, and says nothing twice for the others."""
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.front.conversation.write(b"x" * 3 * WINDOW)
        self.pair.posts.flying.clear()
        self.pair.posts.carried.clear()
        self.front.conversation.check()
        for _ in range(2):
            self.front.conversation.check()
            self.pair.posts._deliver()  # a question, while the next is on its way
        self.front.conversation.check()
        self.pair.posts._deliver()  # the first answer
        self.assertEqual(self.flow("worker")[:2], [1, 2])
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.DATA, b"x" * 3 * WINDOW)])
        self.arrived_once()

    def test_talkative(self) -> None:
        """What was lost without a word comes though the other side talks all the time, and is never silent."""
        self.front.conversation.say(Kind.OPEN)
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        for loses, talks in ((self.front, self.worker), (self.worker, self.front)):
            loses.conversation.look()
            self.lose()
            loses.conversation.write(b"x" * 3 * WINDOW)
            loses.conversation.tell(Kind.ABANDON)
            self.found()
            talks.heard.clear()
            heard = []
            for _ in range(3):
                talks.conversation.write(b"y" * WINDOW)
                self.pair.turn()
                heard.append([kind for kind, _ in talks.heard])
                loses.conversation.look()
            self.pair.turn()
            self.assertEqual(b"".join(payload for _, payload in talks.heard), b"x" * 3 * WINDOW)
            self.assertEqual(heard[:2], [[], [Kind.ABANDON]])

    def test_look(self) -> None:
        """Nobody is asked what he is done with before the next look, nor when all is acknowledged."""
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.pair.posts.carried.clear()
        for _ in range(3):
            self.front.conversation.look()
            self.front.conversation.write(b"x" * WINDOW)
            self.pair.turn()
        self.assertEqual({frame.payload for owner, frame in self.pair.posts.carried if frame.seq == 0}, {b""})
        self.front.conversation.end()
        self.pair.posts.flying.clear()
        self.front.conversation.look()
        self.assertEqual(self.pair.posts.flying, [])

    def test_look_before_it_was_heard(self) -> None:
        """One who may not have heard of the exchange is not told what he would not understand."""
        self.lose()
        self.front.conversation.say(Kind.OPEN, b"open")
        self.front.conversation.tell(Kind.ABANDON)
        self.found()
        self.front.conversation.look()
        self.assertEqual(self.pair.posts.flying, [])
        self.front.conversation.look()
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.OPEN, b"open"), (Kind.ABANDON, b"")])

    def test_never_heard_of(self) -> None:
        """One who has heard nothing of the exchange gets all of it, once; and no more, once it was said that he had."""
        self.lose()
        self.front.conversation.say(Kind.OPEN, b"o" * 2 * WINDOW)
        self.found()
        for _ in range(2):
            self.front.conversation.check()
        questions = [decode(message)[0] for _, message in self.pair.posts.flying]
        self.assertEqual([frame.kind for frame in questions], [Kind.ACK] * 2)
        self.pair.posts.flying.clear()
        for question in questions:
            answer_unknown(self.pair.posts.posts["worker"], question)
        self.pair.turn()
        self.assertEqual(self.worker.heard, [(Kind.OPEN, b"o" * 2 * WINDOW)])
        self.arrived_once()
        self.front.conversation.check()
        [question] = [decode(message)[0] for _, message in self.pair.posts.flying]
        self.pair.turn()
        self.front.heard.clear()
        answer_unknown(self.pair.posts.posts["worker"], question)
        self.pair.turn()
        self.assertEqual(self.front.heard, [])  # it was answered
        self.front.conversation.check()
        [question] = [decode(message)[0] for _, message in self.pair.posts.flying]
        self.pair.posts.flying.clear()
        answer_unknown(self.pair.posts.posts["worker"], question)
        self.pair.turn()
        self.assertEqual(self.front.heard, [(Kind.GONE, b"")])

    def test_sure_by_acknowledgement(self) -> None:
        """Where all was acknowledged, nothing is lost, whatever has become of the answer."""
        self.front.conversation.say(Kind.OPEN)
        self.pair.turn()
        self.front.conversation.check()
        self.pair.posts.flying.clear()
        self.front.conversation.write(b"x")
        self.assertEqual(self.flow("worker"), [])
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.assertEqual(self.worker.heard[1:], [(Kind.DATA, b"x")])

    def test_drained_by_an_answer(self) -> None:
        """One who has waited for an answer alone is told to write again."""
        self.worker.greedy = False
        self.worker.conversation.say(Kind.HEAD)
        self.pair.turn()
        self.front.conversation.write(b"x")
        self.front.conversation.check()
        self.front.conversation.write(b"x" * (WINDOW // 2))
        self.assertTrue(self.front.conversation.full)
        self.pair.turn()
        self.assertFalse(self.front.conversation.full)
        self.assertEqual(self.front.drains, 1)

    def test_lost_where_only_one_was_away(self) -> None:
        """One whose post alone was away has what was said meanwhile, and has passed, sent again when it is up."""
        self.front.conversation.say(Kind.OPEN)
        self.lose()
        self.worker.conversation.say(Kind.HEAD)
        self.found()
        self.front.conversation.check()
        self.pair.turn()
        self.assertEqual(self.front.heard, [(Kind.HEAD, b"")])

    def test_nonsense(self) -> None:
        """One who talks nonsense does not know the exchange."""
        for frame in (
            Frame("front", 1, 99),
            Frame("front", 1, 99, 1),
            Frame("front", 1, Kind.ACK, 1),
            Frame("front", 1, Kind.GONE, 1),
            Frame("front", 1, Kind.HEAD),
            Frame("front", 1, Kind.ACK, payload=b"much"),
        ):
            self.front.conversation.received(frame)
            self.assertEqual(self.front.heard.pop(), (Kind.GONE, b""), frame)
        for frame in (
            Frame("front", 1, Kind.HEAD, -1),
            Frame("front", 1, Kind.HEAD, 2**60),
            Frame("front", 1, Kind.ACK, ack=77),
            Frame("front", 1, Kind.ACK, ack=-77),
        ):
            self.front.conversation.received(frame)
        self.assertEqual(self.front.heard, [])

    def test_repr(self) -> None:
        """In a log, it tells who talks with whom, and how far they are."""
        self.worker.conversation.say(Kind.HEAD)
        self.assertIn("front/1 with front", repr(self.worker.conversation))


class UnknownTests(SynchronousTestCase):
    """Frames of exchanges that are not known."""

    def setUp(self) -> None:
        self.posts = MemoryPosts(Clock())

    def answers(self, owner: str, frame: Frame) -> list[str]:
        """Who is told that an owner does not know the exchange."""
        self.posts.flying.clear()
        answer_unknown(self.posts.post(owner), frame)
        return [peer for peer, _ in self.posts.flying]

    def test_worker(self) -> None:
        """A worker tells the front, whatever it has said, but for what needs no answer."""
        self.assertEqual(self.answers("worker", Frame("front", 1, Kind.DATA, 7)), ["front"])
        self.assertEqual(self.answers("worker", Frame("front", 1, Kind.ABANDON, sender="front")), ["front"])
        self.assertEqual(self.answers("worker", Frame("front", 1, Kind.GONE)), [])
        self.assertEqual(self.answers("worker", Frame("front", 1, Kind.ACK)), [])

    def test_asked(self) -> None:
        """A worker that is asked has heard nothing; a front says that it is over, as both do to what is no question."""
        question = encode_payload(Question(7, 0, 0))

        def told(owner: str, sender: str, payload: bytes, kind: Kind = Kind.ACK) -> Frame:
            [peer] = self.answers(owner, Frame("front", 1, kind, payload=payload, sender=sender))
            self.assertEqual(peer, sender)
            [frame] = decode(self.posts.flying[0][1])
            return frame

        nothing = told("worker", "front", question)
        self.assertEqual((nothing.kind, nothing.sender), (Kind.ACK, ""))
        self.assertEqual(decode_payload(nothing.payload, Question), Question(0, 7, NOTHING))
        for gone in (
            told("worker", "front", b"much"),
            told("worker", "front", b""),
            told("worker", "front", b"", Kind.ABANDON),
            told("front", "worker", question),
        ):
            self.assertEqual(gone, Frame("front", 1, Kind.GONE))

    def test_front(self) -> None:
        """A front tells the worker that says who it is, as all do who wait."""
        self.assertEqual(self.answers("front", Frame("front", 1, Kind.DATA, 7, sender="worker")), ["worker"])
        self.assertEqual(self.answers("front", Frame("front", 1, Kind.ACK, sender="worker")), ["worker"])
        self.assertEqual(self.answers("front", Frame("front", 1, Kind.DATA, 7)), [])


class ConversationMachine(RuleBasedStateMachine):
    """Two who talk, over a post that loses, repeats and stands still: what is said arrives once, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[Talker, list[tuple[Kind, bytes]]] = {}

    @initialize(
        window=st.sampled_from([2048, 4096, 10000]),
        repeats=st.one_of(st.just([1]), st.lists(st.integers(1, 3), min_size=1)),
    )
    def begin(self, window: int, repeats: list[int]) -> None:
        self.window = window
        self.repeated = max(repeats)
        self.pair = Pair(window, greedy=False)
        numbers = iter(range(10**9))
        self.pair.posts.repeats = lambda frame: repeats[next(numbers) % len(repeats)]
        self.talkers = [self.pair.front, self.pair.worker]
        self.others = dict(zip(self.talkers, reversed(self.talkers), strict=True))
        self.said = {talker: [] for talker in self.talkers}
        self.say(0, Kind.HEAD, 3000)

    @rule(which=st.integers(0, 1), kind=st.sampled_from([Kind.DATA, Kind.HEAD]), size=st.integers(0, 9000))
    def say(self, which: int, kind: Kind, size: int) -> None:
        talker = self.talkers[which]
        if talker is self.pair.worker and not talker.heard:
            return  # it knows nothing of the exchange
        payload = bytes([len(self.said[talker]) % 256]) * size
        self.said[talker].append((kind, payload))
        if kind == Kind.DATA:
            talker.conversation.write(payload)
        else:
            talker.conversation.say(kind, payload)

    @rule(frames=st.integers(1, 20))
    def carry(self, frames: int) -> None:
        for _ in range(frames):
            self.pair.posts._deliver()

    @rule(which=st.integers(0, 1), size=st.integers(1, 9000))
    def take(self, which: int, size: int) -> None:
        self.talkers[which].take(size)

    @rule(kept=st.integers(0, 5))
    def cut(self, kept: int) -> None:
        self.pair.posts.cut(kept)

    @rule(cut=st.integers(0, 5))
    def lose(self, cut: int) -> None:
        """Redis comes back at once, empty."""
        self.pair.posts.cut(cut)
        self.pair.posts.mend()

    @rule()
    def pass_by(self) -> None:
        """What is on its way is lost, and nobody is told."""
        self.pair.posts.flying.clear()

    @rule(which=st.integers(0, 1))
    def look(self, which: int) -> None:
        self.talkers[which].conversation.look()

    @rule()
    def mend(self) -> None:
        if not self.pair.posts.is_up:
            self.pair.posts.mend()

    @invariant()
    def in_order(self) -> None:
        """What was heard is the beginning of what was said, and nothing is under way beyond the window."""
        for talker, said in self.said.items():
            heard = self.others[talker].heard
            whole = joined(said)
            assert len(heard) <= len(whole)
            if heard:
                assert heard[:-1] == whole[: len(heard) - 1]
                (kind, payload), (expected, all_of_it) = heard[-1], whole[len(heard) - 1]
                assert kind == expected
                assert payload == all_of_it or (kind == Kind.DATA and all_of_it.startswith(payload))
            assert talker.conversation._out.in_flight <= self.window + OVERHEAD
        for peer in ("front", "worker"):
            # Each is in an inbox once, as often as Redis repeats it.
            once = [decode(message)[0] for owner, message in self.pair.posts.flying if owner == peer]
            sizes = [len(frame.payload) + OVERHEAD for frame in once if frame.seq]
            assert sum(sizes) <= self.repeated * (self.window + OVERHEAD)

    def teardown(self) -> None:
        """In the end, Redis is there, and all is taken: all was heard, and both are quiet."""
        if not self.said:
            return
        self.mend()
        for _ in range(2000):
            if not self.pair.posts.flying:
                for talker in self.talkers:
                    talker.conversation.look()
            self.pair.turn()
            for talker in self.talkers:
                talker.take(1500)
            if not any(talker.held or not talker.conversation.quiet for talker in self.talkers):
                break
        for talker, said in self.said.items():
            assert self.others[talker].heard == joined(said)
            talker.conversation.check()
        self.pair.turn()
        assert all(talker.conversation.quiet for talker in self.talkers)
        assert all(not talker.conversation.full for talker in self.talkers)


class LossyConversationTests(SynchronousTestCase):
    """Conversations over any post."""

    def test_any(self) -> None:
        """All that is said arrives once and in order, and no more than the window is under way."""
        run_state_machine_as_test(
            ConversationMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
        )
