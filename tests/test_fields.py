"""
Tests of what a request's fields are to rules, limits and backends, and a response's to clients: a real site, a real
gate and real forwarders, in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import succeed
from twisted.protocols.haproxy import proxyEndpoint
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from tests.forward.support import OK, Wire
from tests.rig import Answer, PlainRig, Rig
from thrtwisted.config import Backend, Limit, Rule, Then, When

BACKEND = {"app": Backend(url="http://127.0.0.1:9999")}


class From(Wire):
    """A client's connection from somewhere."""

    peer: Any = None

    def getPeer(self) -> Any:
        return self.peer


def come_from(rig: Rig, peer: object, data: bytes, factory: Any = None) -> Wire:
    """A client connects from an address and sends its request."""
    wire_class = type("FromThere", (From,), {"peer": peer})
    wire: Wire = wire_class(rig.clock, (factory or rig.site).buildProtocol(peer))
    rig.clients.append(wire)
    wire.receive(data)
    return wire


class CapturingEndpoint:
    """A server endpoint that keeps the factory that it is given."""

    factory: Any = None

    def listen(self, factory: Any) -> Any:
        self.factory = factory
        return succeed(None)


def sent(backend: Wire) -> dict[str, list[str]]:
    """The fields of the last request that a backend was sent."""
    head = backend.value().rpartition(b"\r\n\r\n")[0].rpartition(b"\r\n\r\n")[2].decode("latin-1")
    fields: dict[str, list[str]] = {}
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        fields.setdefault(name, []).append(value)
    return fields


class Authenticating(Resource):
    """Stands before the proxy, and says who the user is."""

    isLeaf = True

    def __init__(self, inner: Resource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner

    def render(self, request: Any) -> Any:
        request.requestHeaders.setRawHeaders(b"X-User", [b"bob"])
        return self._inner.render(request)


class FieldsCase(SynchronousTestCase):
    """Tests that are run over the proxy's own site, and over one of Twisted's."""

    rig_class: type[Rig] = Rig

    def make_rig(self, **settings: Any) -> Rig:
        """A proxy in memory."""
        return self.rig_class(self, **({"backend": BACKEND} | settings))


class IdentityTests(FieldsCase):
    """Who is asking."""

    def test_stranger(self) -> None:
        """What a client says of itself is replaced, whatever the letters and however often."""
        rig = self.make_rig(trusted_proxies=["10.0.0.0/8", "unix:"])
        come_from(
            rig,
            IPv4Address("TCP", "192.0.2.7", 4711),
            b"GET / HTTP/1.1\r\nHost: h:80\r\nx-forwarded-for: 10.0.0.1\r\nX-Forwarded-For: 1.1.1.1\r\n"
            b"X_Forwarded_For: 1.1.1.1\r\nX-REAL-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-Port: 1\r\n"
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nConnection: X-Forwarded-For, X-Real-IP\r\n\r\n",
        )
        self.assertEqual(
            sent(rig.accept()),
            {
                "Host": ["h:80"],
                "X-Forwarded-For": ["192.0.2.7"],
                "X-Forwarded-Proto": ["http"],
                "X-Forwarded-Host": ["h:80"],
                "X-Real-Ip": ["192.0.2.7"],
                "Forwarded": ['for=192.0.2.7;proto=http;host="h:80"'],
                "Via": ["1.1 thrtwisted"],
            },
        )

    def test_client_of_rules_and_limits(self) -> None:
        """Rules and keys see the client behind a trusted proxy, and a stranger's own address."""
        rig = self.make_rig(
            trusted_proxies=["10.0.0.0/8", "2001:db8::1", "unix:"],
            rule=[Rule(when=When(client="192.0.2.7"), then=Then(set_input_header={"X-Known": "yes"}))],
            limit=[Limit(name="client", key="client", max_concurrent=1)],
        )
        said = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
        come_from(rig, IPv4Address("TCP", "10.0.0.1", 1), said)
        backend = rig.accept()
        self.assertEqual(sent(backend)["X-Known"], ["yes"])
        for peer in [
            IPv4Address("TCP", "10.9.9.9", 1),
            IPv6Address("TCP", "2001:DB8:0::1", 1),
            IPv6Address("TCP", "::ffff:10.0.0.2", 1),
            UNIXAddress(None),
            UNIXAddress("/run/sock"),
            IPv6Address("TCP", "::ffff:192.0.2.7", 1),
            IPv4Address("TCP", "192.0.2.7", 1),
        ]:
            come_from(rig, peer, said)
            self.assertEqual(rig.connections, 1, peer)  # it waits for the slot of the same client
        come_from(rig, IPv4Address("TCP", "192.0.2.8", 1), said)
        self.assertNotIn("X-Known", sent(rig.accept()))

    def test_haproxy(self) -> None:
        """With the PROXY protocol it is the client that the header names."""
        for header, client in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n", "192.0.2.7"),
            (b"PROXY TCP6 2001:DB8::7 ::1 4711 80\r\n", "2001:db8::7"),
            (b"PROXY UNKNOWN a b 1 2\r\n", "10.0.0.1"),
            (b"PROXY TCP4 garbage 10.0.0.1 4711 80\r\n", ""),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x0a\x00\x00\x01\x12\x67\x00\x50",
                "192.0.2.7",
            ),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24"
                + b"\x20\x01\x0d\xb8"
                + bytes(11)
                + b"\x07"
                + bytes(20),
                "2001:db8::7",
            ),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", "10.0.0.1"),
        ]:
            rig = self.make_rig()
            endpoint = CapturingEndpoint()
            proxyEndpoint(endpoint).listen(rig.site)  # type: ignore[arg-type]
            request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
            come_from(rig, IPv4Address("TCP", "10.0.0.1", 1), header + request, endpoint.factory)
            self.assertEqual(sent(rig.accept()).get("X-Real-Ip", [""]), [client], header)

    def test_unix_socket(self) -> None:
        """Who comes over a unix socket and is not trusted has no address, and says none."""
        rig = self.make_rig()
        come_from(rig, UNIXAddress(None), b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n")
        fields = sent(rig.accept())
        self.assertNotIn("X-Forwarded-For", fields)
        self.assertEqual(fields["Forwarded"], ["proto=http;host=h"])

    def test_absolute_target(self) -> None:
        """The host that is told is that of an absolute target."""
        rig = self.make_rig()
        rig.request(b"GET http://they:81/ HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(sent(rig.accept())["X-Forwarded-Host"], ["they:81"])

    def test_rules_have_the_last_word(self) -> None:
        """What a rule sets is sent, whatever we would say."""
        rig = self.make_rig(rule=[Rule(then=Then(set_input_header={"X-Forwarded-Proto": "https"}))])
        rig.request()
        self.assertEqual(sent(rig.accept())["X-Forwarded-Proto"], ["https"])


class SpoofTests(FieldsCase):
    """A header that says who the user is, set before the request or by a rule."""

    #: What a client may try: none of it must take bob's name away, nor add another.
    attacks = (
        b"GET / HTTP/1.1\r\nHost: h\r\nX-User: eve\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nx-uSER: eve\r\nX-User: eve\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX_User: eve\r\nx_USER: eve\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: X-User\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX-User: eve\r\nConnection: close\r\nConnection: , x-USER ,\r\n",
        b"GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: keep-alive,x-user\r\nX_User: eve\r\n",
        b"GET http://evil/?X-User=eve HTTP/1.1\r\nHost: h\r\nX-User: eve\r\n",
        b"GET / HTTP/1.0\r\nX-User: eve\r\nConnection: X-User\r\n",
    )

    def check(self, rig: Rig, attacks: tuple[bytes, ...]) -> None:
        """All requests are bob's: so they share his one slot."""
        rig.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        backend = rig.accept()
        for attack in attacks:
            rig.request(attack + b"\r\n")
            self.assertEqual(rig.connections, 1, attack)
        for attack in attacks:
            backend.receive(OK)
            if len(rig.backends) < rig.connections:
                backend = rig.accept()
            fields = sent(backend)
            users = {name: values for name, values in fields.items() if "user" in name.lower()}
            self.assertEqual(users, {"X-User": ["bob"]}, attack)
        backend.receive(OK)

    def test_set_by_a_resource(self) -> None:
        """A resource before the proxy sets it, and it is a limit's key."""
        limit = Limit(name="user", key="header:X-User", default="nobody", max_concurrent=1)
        self.check(self.make_rig(mount=Authenticating, limit=[limit]), self.attacks)

    def test_set_by_a_rule(self) -> None:
        """A rule sets it, and it is a limit's key."""
        limit = Limit(name="user", key="header:x-user", max_concurrent=1)
        rule = Rule(then=Then(set_input_header={"X-User": "bob"}))
        self.check(self.make_rig(rule=[rule], limit=[limit]), self.attacks)

    def test_unknown_to_the_configuration(self) -> None:
        """
        A resource sets it, and the configuration does not know it. Over another site nobody can tell whose it is,
        so that a request is refused that wants it taken away.
        """
        for attack in self.attacks:
            rig = self.make_rig(mount=Authenticating)
            client = rig.request(attack + b"\r\n")
            if rig.connections:
                fields = sent(rig.accept())
                users = {name: values for name, values in fields.items() if "user" in name.lower()}
                self.assertEqual(users, {"X-User": ["bob"]}, attack)
            else:
                self.assertIs(self.rig_class, PlainRig)
                self.assertIn(b"connection:", attack.lower())
                self.assertEqual(Answer(client.value()).status, 400)

    def test_dropped_before_rules(self) -> None:
        """Neither rules nor keys see what applications cannot tell apart, or what belongs to the connection."""
        # Of the connection's own headers the configuration may name none: --check says so.
        rig = self.make_rig(
            rule=[Rule(when=When(header={"X-User": "glob:*"}), then=Then(set_status_code=418))]
        )
        rig.request(
            b"GET / HTTP/1.1\r\nHost: h\r\nX_User: eve\r\nProxy: http://evil/\r\nProxy-User: eve\r\n"
            b"TE: trailers\r\n\r\n"
        )
        self.assertEqual(
            set(sent(rig.accept())),
            {
                "Host",
                "X-Forwarded-For",
                "X-Forwarded-Proto",
                "X-Forwarded-Host",
                "X-Real-Ip",
                "Forwarded",
                "Via",
            },
        )


class MessageTests(FieldsCase):
    """What passes of requests and responses."""

    def test_request(self) -> None:
        """Several fields of one name stay several and in order, bytes stay bytes; Via tells the version."""
        rig = self.make_rig(rule=[Rule(then=Then(set_input_header={"X-Rule": "caf\udce9 \u00e9"}))])
        rig.request(
            b"GET / HTTP/1.0\r\nHost: h\r\nX-A: 1\r\nVia: 1.0 a\r\nX-A:\t\xe9\x80\xff\t\r\nX-A: 1\r\nTrailer: X\r\n\r\n"
        )
        fields = sent(rig.accept())
        self.assertEqual(fields["X-A"], ["1", "\xe9\x80\xff", "1"])
        self.assertEqual(fields["X-Rule"], ["caf\xe9 \xc3\xa9"])
        self.assertEqual(fields["Via"], ["1.0 a", "1.0 thrtwisted"])
        self.assertNotIn("Trailer", fields)

    def test_response(self) -> None:
        """So do those of a response; what its Connection names goes."""
        rig = self.make_rig()
        client = rig.request()
        rig.accept().receive(
            b"HTTP/1.1 200 \xc9t\xe9\r\nSet-Cookie: a=1\r\nX-A: \xe9\x80\r\nSet-Cookie: b=\xff; Path=/\r\n"
            b"Connection: close, X-Hop , set-cookie\r\nX-Hop: 1\r\nProxy-Authenticate: x\r\nKeep-Alive: timeout=5\r\n"
            b"Set-Cookie: a=1\r\nX_Own: 1\r\nContent-Length: 0\r\n\r\n"
        )
        answer = Answer(client.value())
        self.assertEqual(answer.line, b"HTTP/1.1 200 \xc9t\xe9")
        headers = answer.headers
        self.assertEqual(headers.getRawHeaders(b"set-cookie"), [b"a=1", b"b=\xff; Path=/", b"a=1"])
        self.assertEqual(headers.getRawHeaders(b"x-a"), [b"\xe9\x80"])
        self.assertEqual(headers.getRawHeaders(b"x_own"), [b"1"])
        self.assertEqual(headers.getRawHeaders(b"via"), [b"1.1 thrtwisted"])
        for name in (b"x-hop", b"proxy-authenticate", b"keep-alive", b"connection"):
            self.assertFalse(headers.hasHeader(name), name)

    def test_old_backend(self) -> None:
        """Via tells the version of the response, too."""
        rig = self.make_rig()
        client = rig.request()
        rig.accept().receive(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(Answer(client.value()).header("Via"), "1.0 thrtwisted")

    def test_not_modified(self) -> None:
        """304 and HEAD have the length of what does not follow; 204 has none."""
        for method, status, length in [(b"GET", 304, "7"), (b"HEAD", 200, "7"), (b"GET", 204, None)]:
            rig = self.make_rig()
            client = rig.request(b"%b / HTTP/1.1\r\nHost: h\r\n\r\n" % method)
            rig.accept().receive(b"HTTP/1.1 %d x\r\nContent-Length: 7\r\n\r\n" % status)
            answer = Answer(client.value())
            self.assertEqual(
                (answer.status, answer.header("Content-Length"), answer.body), (status, length, b"")
            )
            self.assertIsNone(answer.header("Transfer-Encoding"))

    def test_last_hop(self) -> None:
        """TRACE and OPTIONS are answered here when they go no further; else they are told of one hop less."""
        rig = self.make_rig(rule=[Rule(then=Then(set_input_header={"X-Secret": "s"}))])
        client = rig.request(
            b"TRACE http://h/a HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nCookie: a=b\r\nX-Mine: \xe9\r\n"
            b"Authorization: x\r\nProxy-Authorization: y\r\nX-Secret: mine\r\n\r\n"
        )
        answer = Answer(client.value())
        self.assertEqual((answer.status, answer.header("Content-Type")), (200, "message/http"))
        line, *fields = answer.body.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self.assertEqual(line, b"TRACE http://h/a HTTP/1.1")
        self.assertEqual(sorted(fields), [b"Host: h", b"Max-Forwards: 0", b"X-Mine: \xe9"])
        client = rig.request(b"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
        answer = Answer(client.value())
        self.assertEqual(answer.status, 204)
        self.assertIn("OPTIONS", answer.header("Allow") or "")
        self.assertEqual(rig.connections, 0)
        rig.request(b"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 3\r\n\r\n")
        self.assertEqual(sent(rig.accept())["Max-Forwards"], ["2"])

    def test_last_hop_of_a_ruled_request(self) -> None:
        """A rule answers first."""
        rig = self.make_rig(rule=[Rule(then=Then(set_status_code=403))])
        client = rig.request(b"TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
        self.assertEqual(Answer(client.value()).status, 403)

    def test_hops_that_are_no_number(self) -> None:
        """They are refused."""
        rig = self.make_rig()
        client = rig.request(b"TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: -1\r\n\r\n")
        self.assertEqual(Answer(client.value()).status, 400)


class AsteriskTests(SynchronousTestCase):
    """C{OPTIONS *}, over our own site: Twisted's answers it by itself."""

    def test_forwarded(self) -> None:
        """It goes the way of every request."""
        rig = Rig(self, rule=[Rule(when=When(path="*"), then=Then(set_input_header={"X-Rule": "yes"}))])
        for target in (b"*", b"http://h"):
            rig.request(b"OPTIONS %b HTTP/1.1\r\nHost: h\r\nMax-Forwards: 1\r\n\r\n" % target)
            backend = rig.accept()
            self.assertTrue(backend.value().startswith(b"OPTIONS * HTTP/1.1\r\n"))
            fields = sent(backend)
            self.assertEqual((fields["X-Rule"], fields["Max-Forwards"]), (["yes"], ["0"]))
            backend.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        client = rig.request(b"OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
        self.assertEqual(Answer(client.value()).status, 204)


class PlainIdentityTests(IdentityTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class PlainSpoofTests(SpoofTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class PlainMessageTests(MessageTests):
    """The same over a site of Twisted's."""

    rig_class = PlainRig


class RefusedTests(SynchronousTestCase):
    """What a site of Twisted's lets pass, and we do not."""

    def test_refused_before_the_gate(self) -> None:
        """It is refused while all slots are taken, and nothing that follows on its connection is served."""
        rig = PlainRig(self)
        rig.request()
        rig.accept()
        for request in [
            b"GET /\x80 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET /#a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nA: \x1b\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
            b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: X-A\r\nX-A: 1\r\n\r\n",
        ]:
            client = rig.request(request + b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = Answer(client.value())
            self.assertEqual((answer.status, answer.header("Connection")), (400, "close"), request)
            self.assertEqual(client.value().count(b"HTTP/1.1 "), 1 if b"HTTP/1.1\r" in request else 0)
            self.assertTrue(client.disconnecting)
        self.assertEqual(rig.connections, 1)
