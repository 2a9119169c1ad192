"""Tests for L{thrtwisted.answer}, and for the family of errors that it tells of."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted import errors
from thrtwisted.answer import JSON, LOOKED_AT, answer, error_answer, last_hop_answer, prefers_json
from thrtwisted.errors import ExchangeError, GateUnavailable, QueueFull
from thrtwisted.exchange import ResponseHead

#: Those of RFC 9209, section 2.3, that we use.
ERROR_TYPES = {
    "connection_limit_reached",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "destination_unavailable",
    "dns_error",
    "http_protocol_error",
    "http_request_denied",
    "http_request_error",
    "http_response_timeout",
    "proxy_configuration_error",
    "proxy_internal_error",
    "tls_certificate_error",
    "tls_protocol_error",
}

FAMILY = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ExchangeError)
]


def header(head: ResponseHead, name: str) -> str | None:
    """The one value of a header."""
    values = head.headers.getRawHeaders(name, [])
    assert len(values) < 2
    return values[0] if values else None


class AnswerTests(SynchronousTestCase):
    """Tests for L{answer}."""

    def test_text(self) -> None:
        """Without a wish it is a line of text."""
        head, body = answer(403, "Not for you.", None)
        self.assertEqual((head.status, head.phrase, head.length), (403, b"Forbidden", len(body)))
        self.assertEqual(body, b"Not for you.\n")
        self.assertEqual(header(head, "Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(header(head, "Content-Length"), str(len(body)))
        self.assertEqual(header(head, "Cache-Control"), "no-store")
        self.assertRegex(header(head, "Date") or "", r"GMT$")

    def test_text_is_utf8(self) -> None:
        """Letters beyond ASCII are counted in bytes."""
        head, body = answer(403, "Café", None)
        self.assertEqual(body, b"Caf\xc3\xa9\n")
        self.assertEqual(header(head, "Content-Length"), "6")

    def test_phrase(self) -> None:
        """Without a message it is the status's own phrase, if the status has one."""
        self.assertEqual(answer(404, None, None)[1], b"Not Found\n")
        self.assertEqual(answer(299, None, None)[0].phrase, b"Unknown")

    def test_json(self) -> None:
        """As JSON it names the status, the error and the message."""
        head, body = answer(503, "Full.", b"application/json", "connection_limit_reached")
        self.assertEqual(header(head, "Content-Type"), "application/json")
        self.assertEqual(header(head, "Content-Length"), str(len(body)))
        wanted = {"status": 503, "error": "connection_limit_reached", "message": "Full."}
        self.assertEqual(json.loads(body), wanted)
        self.assertTrue(body.endswith(b"}\n"))
        self.assertEqual(
            json.loads(answer(404, None, b"application/json")[1]), {"status": 404, "message": "Not Found"}
        )

    def test_bodiless(self) -> None:
        """A status without a body has neither body nor what describes one."""
        for status in (204, 205, 304):
            head, body = answer(status, "Not seen.", b"application/json")
            self.assertEqual((body, head.length), (b"", None))
            self.assertIsNone(header(head, "Content-Type"))
            self.assertIsNone(header(head, "Content-Length"))


class ErrorAnswerTests(SynchronousTestCase):
    """Tests for L{error_answer}."""

    def test_family(self) -> None:
        """Every error has a status for the client, and an error type of the RFC."""
        self.assertGreater(len(FAMILY), 10)
        for kind in FAMILY:
            head, body = error_answer(kind("What went wrong."), None)
            self.assertEqual(head.status, kind.status)
            self.assertTrue(400 <= kind.status <= 505)
            self.assertIn(kind.proxy_status, ERROR_TYPES)
            self.assertEqual(
                header(head, "Proxy-Status"),
                f'thrtwisted; error={kind.proxy_status}; details="What went wrong."',
            )
            self.assertEqual(body, b"What went wrong.\n")
            self.assertIsNone(header(head, "Retry-After"))

    def test_json(self) -> None:
        """Its type is in the body, too, if that is JSON."""
        _, body = error_answer(QueueFull("Full."), b"application/json")
        wanted = {"status": 503, "error": "connection_limit_reached", "message": "Full."}
        self.assertEqual(json.loads(body), wanted)

    def test_details(self) -> None:
        """The details are a string as RFC 8941 wants it."""
        head, _ = error_answer(ExchangeError('a "b" \\ é'), None)
        self.assertEqual(
            header(head, "Proxy-Status"),
            'thrtwisted; error=proxy_internal_error; details="a \\"b\\" \\\\ ?"',
        )

    def test_retry_after(self) -> None:
        """The client is told whole seconds, at least one."""
        for seconds, wanted in ((0.0, "1"), (0.2, "1"), (1.0, "1"), (1.1, "2"), (3600.0, "3600")):
            head, _ = error_answer(GateUnavailable("Gone.", retry_after=seconds), None)
            self.assertEqual(header(head, "Retry-After"), wanted)


class LastHopTests(SynchronousTestCase):
    """Tests for L{last_hop_answer}."""

    def test_options(self) -> None:
        """OPTIONS is told what is forwarded."""
        head, body = last_hop_answer(b"OPTIONS", b"*", b"HTTP/1.1", Headers({b"A": [b"b"]}))
        self.assertEqual((head.status, head.length, body), (204, None, b""))
        self.assertIn("OPTIONS", header(head, "Allow") or "")

    def test_trace(self) -> None:
        """TRACE is shown the request, byte for byte."""
        headers = Headers({b"A": [b"\xe9", b"c"]})
        head, body = last_hop_answer(b"TRACE", b"/%41?", b"HTTP/1.0", headers)
        self.assertEqual(body, b"TRACE /%41? HTTP/1.0\r\nA: \xe9\r\nA: c\r\n\r\n")
        self.assertEqual((head.status, head.length), (200, len(body)))
        self.assertEqual(header(head, "Content-Type"), "message/http")
        self.assertEqual(header(head, "Content-Length"), str(len(body)))


class PrefersJSONTests(SynchronousTestCase):
    """Tests for L{prefers_json}."""

    def test_wishes(self) -> None:
        """What clients say, and what they get."""
        for accept, wanted in (
            (None, False),
            (b"", False),
            (b"*/*", False),
            (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
            (b"application/json", True),
            (b"Application/JSON ; Q=0.5", True),
            (b"application/json, text/plain, */*", False),
            (b"application/json, text/plain;q=0.9", True),
            (b"application/json;q=0.8, */*;q=0.9", False),
            (b"application/json, */*;q=0.9", True),
            (b"application/*, text/*;q=0.1", True),
            (b"text/plain;q=0, */*", True),
            (b"application/json;q=0", False),
            (b"application/json;q=high", False),
            (b"application/json;version=2;q=0.5, text/plain;q=0.4", True),
            (b"application/problem+json", False),
        ):
            self.assertEqual(prefers_json(accept), wanted, accept)

    def test_long(self) -> None:
        """No more than the beginning of a long one is looked at, and of that no element that was cut."""
        self.assertTrue(prefers_json(b"a/b," * 200 + b"application/json"))
        self.assertFalse(prefers_json(b"a/b," * 300 + b"application/json"))
        self.assertTrue(prefers_json(b"application/json," + b"a/b," * 8000))
        beginning = b"a/b," * ((LOOKED_AT - len(JSON)) // 4)
        for blanks in range(4):
            self.assertFalse(prefers_json(beginning + b" " * blanks + JSON + b";q=0" + b",a/b" * 300))

    @settings(deadline=None)
    @given(st.binary())
    def test_anything(self, accept: bytes) -> None:
        """Whatever clients say, they get an answer."""
        self.assertIn(prefers_json(accept), (False, True))

    @settings(deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [b"*", b"/", b"application", b"json", b"text", b"plain", b";", b",", b"q=", b"nan"]
            )
        )
    )
    def test_anything_alike(self, parts: list[bytes]) -> None:
        """So they do when it is nearly right."""
        self.assertIn(prefers_json(b"".join(parts)), (False, True))
