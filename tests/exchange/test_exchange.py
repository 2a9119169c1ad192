"""Tests of thrtwisted.exchange."""

from __future__ import annotations

from io import BytesIO

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.exchange import Exchange
from thrtwisted.exchange.settable import decoded
from thrtwisted.forward import RequestBody
from thrtwisted.forward.headers import check_request_line


def exchange(
    target: bytes = b"/",
    headers: dict[str, list[str]] | None = None,
    *,
    method: bytes = b"GET",
    client: str = "192.0.2.1",
) -> Exchange:
    """An exchange that nothing has happened to yet."""
    fields = Headers()
    for name, values in (headers or {}).items():
        fields.setRawHeaders(name.encode(), [value.encode("utf-8", "surrogateescape") for value in values])
    return Exchange(method, target, fields, client, "app")


class ExchangeTests(SynchronousTestCase):
    """What keys and criteria find in an exchange."""

    def test_path_and_query(self) -> None:
        """The path ends at the first question mark, and the query starts there; neither is decoded."""
        for target, path, query in [
            (b"/", b"/", b""),
            (b"/a%2Fb//c/?", b"/a%2Fb//c/", b""),
            (b"/a?b=c?d", b"/a", b"b=c?d"),
            (b"*", b"*", b""),
        ]:
            one = exchange(target)
            self.assertEqual((one.path, one.query), (path, query))

    def test_host(self) -> None:
        """The host is in lower case and without the port, also of an IPv6 address, and without the root's dot."""
        self.assertIsNone(exchange().host)
        for header, host in [
            ("Example.ORG", b"example.org"),
            ("example.org:8888", b"example.org"),
            ("[2001:DB8::1]:80", b"[2001:db8::1]"),
            ("Admin.example.", b"admin.example"),
            ("admin.example.:443", b"admin.example"),
            ("admin.example..", b"admin.example."),
            ("", b""),
        ]:
            self.assertEqual(exchange(headers={"Host": [header]}).host, host)

    def test_header(self) -> None:
        """A header's name has no case; several fields are one list."""
        one = exchange(headers={"foo": ["a", "b"], "Bar": [""]})
        self.assertEqual(one.header(b"Foo"), b"a, b")
        self.assertEqual(one.header(b"bar"), b"")
        self.assertIsNone(one.header(b"baz"))

    def test_cookie(self) -> None:
        """The first cookie of a name counts, in whichever field, its quotes removed."""
        one = exchange(headers={"Cookie": ['a=1; b="two";c', "a=3; d=x=y"]})
        for name, value in [(b"a", b"1"), (b"b", b"two"), (b"c", None), (b"d", b"x=y"), (b"A", None)]:
            self.assertEqual(one.cookie(name), value)
        self.assertIsNone(exchange().cookie(b"a"))

    def test_as_text(self) -> None:
        """Whoever asks with a text gets one: bytes that are none come back from it."""
        one = exchange(b"/?\xc3\xa9=%ff&b", headers={"Foo": ["a", "é"], "Cookie": ["é=\udcff"]})
        self.assertEqual((one.header("foo"), one.header("bar")), ("a, é", None))
        self.assertEqual((one.cookie("é"), one.cookie("e")), ("\udcff", None))
        self.assertEqual((one.query_argument("é"), one.query_argument("b")), ("\udcff", ""))
        self.assertIsNone(one.query_argument("c"))

    def test_query_argument(self) -> None:
        """The first argument of a name counts, percent-decoded, plus signs as blanks."""
        one = exchange(b"/?a=1&a=2&b+c=d+e%26&f&&%67=%ff")
        for name, value in [(b"a", b"1"), (b"b c", b"d e&"), (b"f", b""), (b"g", b"\xff"), (b"", None)]:
            self.assertEqual(one.query_argument(name), value)


class SetTests(SynchronousTestCase):
    """What rules and functions do to the request."""

    def test_targets(self) -> None:
        """The target changes where it is said, and stays byte for byte where not (promise 8)."""
        for target, action, value, expected in [
            (b"/a?b", "set_path", "/c%20d", b"/c%20d?b"),
            (b"/a?", "set_path", "/c", b"/c?"),
            (b"/a", "set_path", b"/c", b"/c"),
            (b"/a?b=%2f+", "set_query_string", "c", b"/a?c"),
            (b"/a", "set_query_string", "c", b"/a?c"),
            (b"/a?b", "set_query_string", "", b"/a"),
            (b"*", "set_query_string", "c", b"*"),
            (b"/a", "add_query_string_arg", ("b", "c d"), b"/a?b=c%20d"),
            (b"/a?%7e=%2f+&&x", "add_query_string_arg", ("b", ["1", "2"]), b"/a?%7e=%2f+&&x&b=1&b=2"),
            (b"/a?b", "add_query_string_arg", {"c": "1", "d": []}, b"/a?b&c=1"),
            (b"*", "add_query_string_arg", ("b", "c"), b"*"),
            (b"/a?b=1&%62=2&%7e&b", "set_query_string_arg", ("b", "3"), b"/a?%7e&b=3"),
            (b"/a?x", "set_query_string_arg", ("b", "3"), b"/a?x&b=3"),
            (b"/a?b=1&c&b&&+=", "del_query_string_arg", "b", b"/a?c&&+="),
            (b"/a?b=1&c", "del_query_string_arg", ["b", "c", "d"], b"/a"),
            (b"/a?", "del_query_string_arg", "b", b"/a?"),
            (b"/a?%7e", "del_query_string_arg", "b", b"/a?%7e"),
        ]:
            one = exchange(target)
            getattr(one, action)(value)
            self.assertEqual(one.target, expected, (target, action, value))
            self.assertEqual(
                (one.path, one.query), (expected.partition(b"?")[0], expected.partition(b"?")[2])
            )

    @settings(deadline=None)
    @given(st.text("ab=&+%26;/?~", min_size=1), st.binary(min_size=1), st.binary())
    def test_others_arguments(self, query: str, name: bytes, value: bytes) -> None:
        """Whatever argument is added and taken away again: it is found in between, and the others are as they were."""
        one = exchange(b"/a?" + query.encode())
        before = dict(one.request.query_arguments)
        assume(decoded(name) not in before)
        one.add_query_string_arg((name, value))
        check_request_line(b"GET", one.target)
        self.assertTrue(one.target.startswith(b"/a?" + query.encode() + b"&"))
        self.assertEqual(one.query_argument(name), value)
        self.assertEqual(dict(one.request.query_arguments), before | {decoded(name): [value]})
        one.del_query_string_arg(name)
        self.assertEqual(one.target, b"/a?" + query.encode())

    def test_headers(self) -> None:
        """Headers are set in place of others, added beside them, and deleted, by names without case."""
        one = exchange(headers={"A": ["1", "2"], "B": ["1"], "C": ["1"]})
        one.set_input_header(("a", "é"))
        one.set_input_header({"New": ["1", b"2"]})
        one.add_input_header(("b", "2"))
        one.del_input_header(["c", "absent"])
        one.del_input_header("absent")
        self.assertEqual(
            dict(one.headers.getAllRawHeaders()),
            {b"A": ["é".encode()], b"B": [b"1", b"2"], b"New": [b"1", b"2"]},
        )

    def test_whole_server(self) -> None:
        """Nothing but OPTIONS is asked of the whole server."""
        one = exchange(b"*", method=b"OPTIONS")
        one.set_method("OPTIONS")
        self.assertEqual(one.target, b"*")
        one.set_method("GET")
        self.assertEqual(one.target, b"/")

    def test_one_host(self) -> None:
        """Actions on headers keep to one Host, and one that names a host."""
        one = exchange(headers={"Host": ["h"]})
        one.set_input_header({"host": ["inner"]})
        self.assertEqual(one.headers.getRawHeaders(b"host"), [b"inner"])
        for wrong in ("a b@c", ["a", "b"], ""):
            self.assertRaises(ValueError, one.set_input_header, ("Host", wrong))
        self.assertRaises(ValueError, one.add_input_header, ("Host", "other"))
        self.assertEqual(one.headers.getRawHeaders(b"host"), [b"inner"])

    def test_no_status(self) -> None:
        """What is no status is refused, also where it is not set by an action."""
        one = exchange()
        for wrong in (99, 600, "404", True):
            with self.assertRaises(ValueError):
                one.status = wrong  # type: ignore[assignment]
        one.status = None
        self.assertIsNone(one.early_status)

    def test_lists_of_pairs(self) -> None:
        """Several pairs are all taken; a name that stands there twice is set with both values."""
        twice = [("A", "1"), ("b", "2"), ("a", ["3"])]
        one = exchange(b"/?a=0&A=0", {"A": ["0"], "C": ["0"]})
        one.set_input_header(twice)
        one.add_input_header([("c", "1"), ("C", "2")])
        self.assertEqual(
            dict(one.headers.getAllRawHeaders()), {b"A": [b"1", b"3"], b"B": [b"2"], b"C": [b"0", b"1", b"2"]}
        )
        one.set_query_string_arg([("a", "1"), ("b", "2"), ("a", "3")])
        one.add_query_string_arg([("b", "4"), ("c", "5")])
        self.assertEqual(one.target, b"/?A=0&a=1&a=3&b=2&b=4&c=5")
        one.set_output_header(twice)
        one.add_output_header([("B", "3"), ("D", "4")])
        self.assertEqual(
            list(one.response.headers.get_all()), [("A", "1"), ("A", "3"), ("B", "2"), ("B", "3"), ("D", "4")]
        )

    def test_assigned(self) -> None:
        """What is assigned is looked at as if its action had been called, and no name that there is not is taken."""
        one = exchange()
        one.routes = {"queue": "slow", "other": "slow", "app": "app", "slow": "slow"}
        for value, expected in [(1000, 99), ("5", 5), (0, 1), (2.4, 2)]:
            one.priority = value
            self.assertEqual(one.priority, expected)
        self.assertEqual(one.redis_queue, "app")
        one.redis_queue = "other"
        self.assertEqual((one.backend, one.redis_queue), ("slow", "queue"))
        one.redis_queue = "null"
        self.assertEqual((one.early_status, one.redis_queue), (404, "null"))
        one.backend = "app"
        self.assertEqual((one.backend, one.early_status), ("app", None))
        one.redis_host, one.redis_port, one.redis_uds = "h", 1, None
        self.assertEqual((one.redis_host, one.redis_port, one.redis_uds), (None, None, None))
        for name, wrong in [
            ("priority", "high"),
            ("backend", "absent"),
            ("redis_queue", "absent"),
            ("status", 99),
        ]:
            self.assertRaises(ValueError, setattr, one, name, wrong)
        for view, name in [
            (one, "priorty"),
            (one, "set_path"),
            (one.request, "uris"),
            (one.response, "status"),
        ]:
            self.assertRaises(AttributeError, setattr, view, name, 1)
        for view in (one.request, one.response):
            self.assertRaises(AttributeError, setattr, view, "headers", {"A": "b"})
        self.assertEqual((one.priority, one.backend, one.status), (2, "app", None))

    def test_nobodys_queue(self) -> None:
        """The queue "null" means 404, until another rule routes on; but not if there is one of this name."""
        one = exchange()
        one.routes = {"app": "app"}
        self.assertIsNone(one.early_status)
        one.set_redis_queue("null")
        self.assertEqual((one.early_status, one.status, one.backend), (404, None, "app"))
        one.set_redis_queue("app")
        self.assertIsNone(one.early_status)
        one.set_redis_queue("null")
        one.set_status_code(410)
        self.assertEqual(one.early_status, 410)
        two = exchange()
        two.routes = {"app": "app", "null": "slow"}
        two.set_redis_queue("null")
        self.assertEqual((two.early_status, two.backend), (None, "slow"))
        self.assertRaises(ValueError, one.set_backend, "null")

    def test_others(self) -> None:
        """Method, host, address, priority, backend and values."""
        one = exchange(headers={"Host": ["h"]})
        one.routes = {"app": "app", "slow": "slow", "queue": "slow"}
        one.set_method("PUT")
        one.set_host("inner:80")
        one.set_remote_ip("2001:db8::1")
        one.set_input_priority("7")
        one.set_redis_queue("queue")
        one.set_custom_value("a", 1)
        self.assertEqual((one.method, one.host, one.priority, one.backend), (b"PUT", b"inner", 7, "slow"))
        self.assertEqual((one.client, one.remote_ip), ("2001:db8::1", "2001:db8::1"))
        self.assertEqual((one.get_method(), one.get_path()), ("PUT", "/"))
        self.assertEqual((one.get_remote_ip(), one.get_real_ip()), ("2001:db8::1", "2001:db8::1"))
        self.assertEqual((one.get_custom_value("a"), one.get_custom_value("b", 2)), (1, 2))
        one.del_custom_value("a")
        one.del_custom_value("a")
        self.assertIsNone(one.get_custom_value("a"))
        for same in (one.set_redis_host, one.set_redis_port, one.set_redis_uds):
            same("anywhere")

    def test_wrong(self) -> None:
        """What no message may have is refused, and nothing has changed."""
        for action, value in [
            ("set_path", "a"),
            ("set_query_string", "#"),
            ("set_query_string_arg", "a"),
            ("add_query_string_arg", ("", "b")),
            ("del_query_string_arg", 5),
            ("set_method", "a b"),
            ("set_host", ""),
            ("set_remote_ip", "h"),
            ("set_input_header", ("Content-Length", "1")),
            ("set_input_header", ("A", "b\r\nC: d")),
            ("set_input_header", ("X_A", "b")),
            ("add_input_header", ("Connection", "close")),
            ("del_input_header", "Transfer-Encoding"),
            ("set_input_body", 5),
            ("set_input_priority", "high"),
            ("set_backend", "absent"),
            ("set_redis_queue", []),
            ("set_status_code", 99),
            ("set_output_body", 5),
            ("set_output_default_body", 5),
        ]:
            one = exchange(b"/a?b", {"Host": ["h"]})
            before = (one.method, one.target, one.client, one.backend, one.priority, one.status)
            error = self.assertRaises(ValueError, getattr(one, action), value)
            self.assertNotIn("\n", str(error))
            self.assertEqual(
                (one.method, one.target, one.client, one.backend, one.priority, one.status), before
            )
            self.assertEqual(dict(one.headers.getAllRawHeaders()), {b"Host": [b"h"]})


class BodyTests(SynchronousTestCase):
    """The request's body."""

    def test_read(self) -> None:
        """It is read when it is asked for, as often as that is, and is all there to be sent."""
        one = exchange(method=b"POST")
        self.assertEqual(one.request.body, b"")
        file = BytesIO(b"abc")
        one.take_body(RequestBody(file))
        self.assertEqual((one.request.body, one.request.body), (b"abc", b"abc"))
        self.assertEqual(file.tell(), 0)

    def test_replaced(self) -> None:
        """Another body has its own length, and nothing is said of it that was said of the first."""
        fields = {
            "Content-Length": ["3"],
            "Content-Encoding": ["gzip"],
            "Digest": ["x"],
            "Content-Type": ["a/b"],
        }
        for early in (True, False):
            one = exchange(headers=dict(fields), method=b"POST")
            file = BytesIO(b"abc")
            if early:
                one.set_input_body("long é")
                self.assertEqual(one.request.body, "long é".encode())
            one.take_body(RequestBody(file))
            if not early:
                one.request.body = "long é"
            self.assertTrue(file.closed)
            self.assertEqual(one.request.body, "long é".encode())
            self.assertEqual(
                dict(one.headers.getAllRawHeaders()), {b"Content-Length": [b"7"], b"Content-Type": [b"a/b"]}
            )
            assert one.body is not None
            self.assertEqual(one.body.length, 7)
            one.body.close()

    def test_emptied(self) -> None:
        """An empty body is announced where one was, and nowhere else."""
        for headers, expected in [({"Content-Length": ["3"]}, [b"0"]), ({}, None)]:
            one = exchange(headers=headers)
            one.take_body(RequestBody(BytesIO(b"abc")))
            one.set_input_body("")
            self.assertEqual(one.headers.getRawHeaders(b"content-length"), expected)


class RequestViewTests(SynchronousTestCase):
    """The request as functions see it."""

    def test_text(self) -> None:
        """All of it is text, and what is no UTF-8 comes back as it was."""
        headers = {"Host": ["h:80"], "A": ["\udcff", "b"]}
        one = exchange(b"/a?b=1&b=%ff&c+d=", headers, method=b"POST")
        one.remote_ip = "192.0.2.9"
        request = one.request
        self.assertEqual((request.method, request.uri, request.path), ("POST", "/a?b=1&b=%ff&c+d=", "/a"))
        self.assertEqual(
            (request.query, request.host, request.remote_ip), ("b=1&b=%ff&c+d=", "h:80", "192.0.2.9")
        )
        self.assertEqual(dict(request.query_arguments), {"b": [b"1", b"\xff"], "c d": [b""]})
        self.assertEqual(exchange().request.host, "")

    def test_assigned(self) -> None:
        """What is assigned is on the exchange, and checked like everything that rules set."""
        one = exchange(b"/a?b")
        request = one.request
        request.method, request.host, request.remote_ip = "PUT", "h", "192.0.2.7"
        request.path = "/c"
        self.assertEqual(one.target, b"/c?b")
        request.query = "d"
        self.assertEqual(one.target, b"/c?d")
        request.query_arguments = {"a b": ["1", b"\xff"], "c": []}
        self.assertEqual(one.target, b"/c?a%20b=1&a%20b=%FF")
        request.uri = "/e?f?"
        self.assertEqual(one.target, b"/e?f?")
        self.assertEqual((one.method, one.host, one.client), (b"PUT", b"h", "192.0.2.7"))
        for name, value in [
            ("uri", "e"),
            ("uri", "http://h/"),
            ("uri", "/a#"),
            ("method", ""),
            ("body", None),
        ]:
            self.assertRaises(ValueError, setattr, request, name, value)

    def test_query_arguments(self) -> None:
        """Arguments can be set, replaced and deleted by their names, and the others stay byte for byte."""
        one = exchange(b"/a?%7e=%2f&b=1&b=2")
        found = one.request.query_arguments
        found["b"] = [b"3", b"\xff"]
        self.assertEqual(one.target, b"/a?%7e=%2f&b=3&b=%FF")
        found["c d"] = "e"
        del found["b"]
        self.assertEqual(one.target, b"/a?%7e=%2f&c%20d=e")
        self.assertEqual(
            (found, len(found), repr(found)), ({"~": [b"/"], "c d": [b"e"]}, 2, repr(dict(found)))
        )
        self.assertRaises(KeyError, found.pop, "b")
        self.assertEqual(found.pop("~"), [b"/"])
        self.assertEqual(one.target, b"/a?c%20d=e")

    def test_tornados(self) -> None:
        """Functions written for Tornado's requests find the same names: what the client asked for, and how."""
        one = exchange(b"/a?b=1", {"Host": ["h:80"], "Cookie": ['c="x"; c=y; d', "e:=1; f=é"]})
        request = one.request
        self.assertEqual((request.url, request.full_url()), ("http://h:80/a?b=1", "http://h:80/a?b=1"))
        self.assertEqual((request.version, request.protocol), ("HTTP/1.1", "http"))
        one.headers.setRawHeaders(b"x-forwarded-proto", [b"https"])
        self.assertEqual((request.url, request.protocol), ("https://h:80/a?b=1", "https"))
        cookies = {name: morsel.value for name, morsel in request.cookies.items()}
        self.assertEqual({name: cookies[name] for name in ("c", "f")}, {"c": "x", "f": "é"})
        self.assertEqual(request.arguments, {"b": [b"1"]})
        one.take_body(RequestBody(BytesIO(b"b=2&c=%20")))
        self.assertEqual(request.arguments, {"b": [b"1"]})
        one.headers.setRawHeaders(b"content-type", [b"application/x-www-form-urlencoded; charset=utf-8"])
        self.assertEqual(request.arguments, {"b": [b"1", b"2"], "c": [b" "]})
        assert one.body is not None
        one.body.close()

    def test_headers(self) -> None:
        """Headers are a mapping without case; several fields of a name are a list."""
        one = exchange(headers={"Foo": ["a", "b"], "Bar": ["\udcff"]})
        headers = one.request.headers
        self.assertEqual((headers["foo"], headers["BAR"], headers.get("baz")), ("a, b", "\udcff", None))
        self.assertEqual(headers.get_list("foo"), ["a", "b"])
        self.assertEqual(list(headers.get_all()), [("Foo", "a"), ("Foo", "b"), ("Bar", "\udcff")])
        self.assertEqual(
            (len(headers), list(headers), "FOO" in headers, 5 in headers), (2, ["Foo", "Bar"], True, False)
        )
        headers["Foo"] = "c"
        headers.add("foo", "d")
        headers["New"] = ["1", "2"]
        del headers["bar"]
        self.assertEqual(repr(headers), "{'Foo': 'c, d', 'New': '1, 2'}")
        self.assertEqual(one.headers.getRawHeaders("foo"), ["c", "d"])
        self.assertRaises(KeyError, headers.__getitem__, "absent")
        self.assertRaises(KeyError, headers.__delitem__, "absent")
        for wrong in (("Host", "a\nb"), ("TE", "trailers"), ("a b", "c")):
            self.assertRaises(ValueError, headers.__setitem__, *wrong)
            self.assertRaises(ValueError, headers.add, *wrong)
