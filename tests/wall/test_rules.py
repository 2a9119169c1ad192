"""Whatever rules do to requests and responses, messages on both sides end where everybody thinks that they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.forward.support import Wire
from tests.kinds import KINDS
from tests.wall.corpus import POISON
from tests.wall.recorder import Seen, Wall, agreed, first_answer
from thrtwisted.config import Rule, Then

METHODS = ["GET", "GET", "HEAD", "HEAD", "POST", "OPTIONS", "DELETE"]
BODIES = ["", "abc", POISON.decode(), "x" * 100_000]

#: What a rule may do before the exchange is forwarded, and after.
ACTIONS: dict[str, list[Any]] = {
    "set_method": METHODS,
    "set_path": ["/new"],
    "set_host": ["inner:80"],
    "set_input_header": [{"X-Set": "1"}, {"Content-Type": "text/plain"}, {"Max-Forwards": "0"}],
    "del_input_header": [["Host"], ["Content-Type"]],
    "set_input_body": BODIES,
    "set_status_code": [200, 204, 205, 206, 304, 404, 503],
    "set_output_header": [{"X-Set": "1"}, {"Content-Type": "text/html"}, {"ETag": '"1"'}],
    "del_output_header": [["Content-Type"], ["Date"]],
    "set_output_body": BODIES,
    "set_output_default_body": BODIES,
}
_FUNCTIONS = sorted(ACTIONS.keys() - {"del_input_header", "del_output_header"})


def reads(exchange: Any) -> Any:
    """Read the response's body."""
    return exchange.response.read_body().addErrback(lambda _: None)


def changes(status: int, method: str, body: str) -> Callable[[Any], None]:
    """Change all that can be changed, when the response is there."""

    def change(exchange: Any) -> None:
        exchange.set_status_code(status)
        exchange.set_method(method)
        exchange.response.default_body = body

    return change


def functions(made: Any) -> Any:
    """The ways in which a function gives a value, of which it may be a Deferred."""

    def make(exchange: Any) -> Any:
        return (
            made(exchange) if callable(made) else next(iter(made.items())) if isinstance(made, dict) else made
        )

    return st.sampled_from(KINDS).map(lambda kind: kind(make))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """A rule that does a few things."""
    then: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=4, unique=True)):
        value = draw(st.sampled_from(ACTIONS[name]))
        if name == "set_status_code" and draw(st.booleans()):
            continue  # or else little would be forwarded
        then[name] = draw(functions(value)) if name in _FUNCTIONS and draw(st.booleans()) else value
    if draw(st.booleans()):
        change = changes(
            draw(st.sampled_from(ACTIONS["set_status_code"])),
            draw(st.sampled_from(METHODS)),
            draw(st.sampled_from(BODIES)),
        )
        then["custom_output"] = draw(st.sampled_from([reads, *(kind(change) for kind in KINDS)]))
    return Rule(then=Then(**then))


@attrs.frozen
class Asked:
    """A request, and whether another may follow it on its connection."""

    method: bytes
    data: bytes
    last: bool


@st.composite
def requests(draw: st.DrawFn, number: int) -> Asked:
    """A well-formed request."""
    method = draw(st.sampled_from(METHODS)).encode()
    version = draw(st.sampled_from([b"1.1"] * 5 + [b"1.0"]))
    body = draw(st.sampled_from(BODIES)).encode()
    fields, closing = [b"Host: h", b"X-Id: %d" % number], version == b"1.0"
    if draw(st.integers(0, 5)) == 0:
        fields.append(b"Connection: close")
        closing = True
    if draw(st.integers(0, 3)) == 0:
        fields.append(b"Expect: 100-continue")
    framing = draw(st.sampled_from(["none", "length", "length", "chunks"]))
    if framing == "none":
        body = b""
    elif framing == "length" or version == b"1.0":
        fields.append(b"Content-Length: %d" % len(body))
    else:
        fields.append(b"Transfer-Encoding: chunked")
        body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    head = b"\r\n".join((b"%b /%d HTTP/%b" % (method, number, version), *fields, b"", b""))
    return Asked(method, head + body, closing)


#: What backends answer: the head's beginning, and the body as it is sent, but after HEAD.
ANSWERS: list[tuple[bytes, bytes]] = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", b"four"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"4\r\nfour\r\n0\r\n\r\n"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", b""),
    (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n", b"four"),
    (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/9\r\nContent-Length: 4\r\n", b"four"),
    (b"HTTP/1.1 204 No Content\r\n", b""),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n", b""),
    (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 4\r\n", b"four"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n", b"x" * 100_000),
    (b"HTTP/1.0 200 OK\r\n", b"to the end"),
]


def answering(kinds: list[tuple[bytes, bytes]]) -> Callable[[Seen, Wire], None]:
    """A backend that gives these answers in turn."""
    left = list(kinds)

    def answer(seen: Seen, wire: Wire) -> None:
        head, body = left.pop(0) if left else ANSWERS[0]
        wire.receive(head + b"X-Answer: %b\r\n\r\n" % b" ".join(seen.values(b"x-id")))
        if seen.method != b"HEAD":
            wire.receive(body)
        if head.startswith(b"HTTP/1.0"):
            wire.lose()

    return answer


class RulesTests(SynchronousTestCase):
    """Tests of framing, with rules that change what is framed."""

    @settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(rules(), min_size=1, max_size=2),
        st.tuples(requests(1), requests(2), requests(3)),
        st.lists(st.sampled_from(ANSWERS), max_size=3),
        st.booleans(),
    )
    def test_any_rules(
        self,
        some: list[Rule],
        asked: tuple[Asked, ...],
        kinds: list[tuple[bytes, bytes]],
        pipelined: bool,
    ) -> None:
        """The backend gets whole requests, and the client one whole answer to each of its own, in order."""
        wall = Wall(rule=some)
        wall.how = answering(kinds)
        client = wall.connect()
        sent = []
        for each in asked:
            sent.append(each)
            client.receive(each.data)
            if not pipelined:
                wall.settle()
            if each.last:
                break
        wall.settle()
        for wire in wall.wires:
            self.assertEqual(wire.broken, "")
            for seen in agreed(wire.value()):
                self.assertIn(seen.values(b"x-id"), [[b"1"], [b"2"], [b"3"]])
        ended = client.ended or client.lost or client.disconnecting
        received, got = client.value(), []
        for each in sent:
            if not received and ended and got:
                break  # it was the last that the proxy answered
            answer, received = first_answer(received, each.method, ended)
            got.append(answer)
            self.assertIn(answer.values(b"x-answer"), [[], [b"%d" % len(got)]])
            self.assertNotEqual(answer.status, 500, answer)
        self.assertEqual(received, b"")
        client.lose()
        wall.close()
        self.assertEqual(self.flushLoggedErrors(), [])
