"""Tests of who is asking."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from thrtwisted.forwarded import LONGEST, identify, parse_forwarded, parse_node
from thrtwisted.networks import Trusted, trusted

PROXIES = trusted(["10.0.0.0/8", "2001:db8:ffff::/48", "unix:"])

Fields = dict[str, "str | list[str]"]


def headers_of(fields: Fields) -> Headers:
    """The headers of a request."""
    headers = Headers()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            headers.addRawHeader(name.encode(), value.encode("latin-1"))
    return headers


def told(
    fields: Fields, peer: str | None = "10.0.0.1", *, tls: bool = False, proxies: Trusted = PROXIES
) -> dict[str, str]:
    """What the backend is told of a client; of C{client} the address that keys and rules see."""
    headers = headers_of(fields)
    identity = identify(peer, tls, headers, proxies)
    identity.write_to(headers)
    result = {"client": identity.client}
    for name, values in headers.getAllRawHeaders():
        (value,) = values
        result[name.decode().lower()] = value.decode("latin-1")
    return result


class StrangerTests(SynchronousTestCase):
    """Requests that no trusted proxy brings."""

    def test_replaced(self) -> None:
        """What a stranger says of itself is replaced by what is known, and the rest of it is dropped."""
        spoof: Fields = {
            "Host": "example.com:8080",
            "X-Forwarded-For": ["1.1.1.1", "10.0.0.1"],
            "x-forwarded-PROTO": "https",
            "X-Forwarded-Host": "evil",
            "X-Real-IP": "1.1.1.1",
            "Forwarded": "for=1.1.1.1;proto=https",
            "X-Forwarded-Port": "443",
            "X-Forwarded-Prefix": "/admin",
            "X-Forwarded-Ssl": "on",
            "X-Forwarded-Scheme": "https",
            "X-Forwarded-Server": "evil",
            "X-Forwarded": "for=1.1.1.1",
            "X-Forward": "kept",
        }
        for proxies in (PROXIES, Trusted()):
            self.assertEqual(
                told(spoof, "192.0.2.7", proxies=proxies),
                {
                    "client": "192.0.2.7",
                    "host": "example.com:8080",
                    "x-forwarded-for": "192.0.2.7",
                    "x-forwarded-proto": "http",
                    "x-forwarded-host": "example.com:8080",
                    "x-real-ip": "192.0.2.7",
                    "forwarded": 'for=192.0.2.7;proto=http;host="example.com:8080"',
                    "x-forward": "kept",
                },
            )

    def test_peers(self) -> None:
        """A stranger is known by its address, in its normal form; on a unix socket it has none."""
        for peer, client, node in [
            ("192.0.2.7", "192.0.2.7", "for=192.0.2.7;"),
            ("::ffff:192.0.2.7", "192.0.2.7", "for=192.0.2.7;"),
            ("2001:DB8::7", "2001:db8::7", 'for="[2001:db8::7]";'),
            ("fe80::7%eth0", "fe80::7", 'for="[fe80::7]";'),
            ("not an address", "", ""),
            (None, "", ""),
        ]:
            result = told({"X-Real-IP": "1.1.1.1"}, peer, tls=True, proxies=Trusted())
            self.assertEqual(result["client"], client)
            self.assertEqual(result.get("x-forwarded-for", ""), client)
            self.assertEqual(result.get("x-real-ip", ""), client)
            self.assertEqual(result["forwarded"], f"{node}proto=https")
            self.assertEqual(result["x-forwarded-proto"], "https")

    def test_host(self) -> None:
        """The host is that of the request, if it is one."""
        for host, field, element in [
            ("h", "h", ";host=h"),
            ("[::1]:80", "[::1]:80", ';host="[::1]:80"'),
            ("h" * 300, "h" * 300, f";host={'h' * 300}"),
            ("", None, ""),
            ('a",for=1.1.1.1;b="', None, ""),
            ("caf\xe9", None, ""),
        ]:
            result = told({"Host": host}, "192.0.2.7")
            self.assertEqual(result.get("x-forwarded-host"), field)
            self.assertEqual(result["forwarded"], "for=192.0.2.7;proto=http" + element)


class ChainTests(SynchronousTestCase):
    """Requests that a trusted proxy brings."""

    def test_client(self) -> None:
        """The client is the first from the right who is not trusted; the leftmost if all are; garbage ends the walk."""
        for chain, client in [
            ("192.0.2.7", "192.0.2.7"),
            ("1.1.1.1, 192.0.2.7", "192.0.2.7"),
            ("1.1.1.1,192.0.2.7,10.1.1.1", "192.0.2.7"),
            (["1.1.1.1", "192.0.2.7", " 10.1.1.1 , 10.2.2.2"], "192.0.2.7"),
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("192.0.2.7, 2001:db8:FFFF::1", "192.0.2.7"),
            ("192.0.2.7, ::ffff:10.9.9.9", "192.0.2.7"),
            ("2001:DB8::7", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711, 10.1.1.1:80", "2001:db8::7"),
            ("fe80::7%eth0", "fe80::7"),
            ("192.0.2.7, , ,,10.1.1.1,", "192.0.2.7"),
            ("192.0.2.7, unknown", "10.0.0.1"),
            ("192.0.2.7, unknown, 10.1.1.1", "10.1.1.1"),
            ("192.0.2.7, _hidden, 10.1.1.1", "10.1.1.1"),
            ("192.0.2.7, 010.1.1.1", "10.0.0.1"),
            ("192.0.2.7 10.1.1.1", "10.0.0.1"),
            ('"192.0.2.7"', "10.0.0.1"),
            ("caf\xe9", "10.0.0.1"),
            ("", "10.0.0.1"),
            (", ,", "10.0.0.1"),
        ]:
            result = told({"X-Forwarded-For": chain})
            self.assertEqual((result["client"], result["x-real-ip"]), (client, client), chain)

    def test_no_chain(self) -> None:
        """A trusted proxy that says nothing is the client itself, whatever X-Real-IP says."""
        self.assertEqual(told({"X-Real-IP": "1.1.1.1"})["x-real-ip"], "10.0.0.1")

    def test_appended(self) -> None:
        """What is believed is appended to, and other X-Forwarded fields stay."""
        result = told(
            {
                "Host": "inner",
                "X-Forwarded-For": ["1.1.1.1:1, x", "192.0.2.7"],
                "X-Forwarded-Proto": "HTTPS",
                "X-Forwarded-Host": "outer:443",
                "X-Forwarded-Port": "443",
                "X-Forwarded": "old",
            }
        )
        self.assertEqual(
            result,
            {
                "client": "192.0.2.7",
                "host": "inner",
                "x-forwarded-for": "1.1.1.1:1, x, 192.0.2.7, 10.0.0.1",
                "x-forwarded-proto": "https",
                "x-forwarded-host": "outer:443",
                "x-forwarded-port": "443",
                "x-real-ip": "192.0.2.7",
                "forwarded": "for=1.1.1.1, for=unknown, "
                'for=192.0.2.7;proto=https;host="outer:443", for=10.0.0.1',
            },
        )

    def test_our_own_word(self) -> None:
        """What the proxies do not say of protocol and host, we say of the connection that we see."""
        result = told({"Host": "h", "X-Forwarded-For": "192.0.2.7"}, tls=True)
        self.assertEqual((result["x-forwarded-proto"], result["x-forwarded-host"]), ("https", "h"))
        self.assertEqual(result["forwarded"], "for=192.0.2.7, for=10.0.0.1;proto=https;host=h")

    def test_protocol_and_host(self) -> None:
        """Of several values the one said of the client counts; what is not sane does not count."""
        for chain, value, proto in [
            ("", "https", "https"),
            ("192.0.2.7", "https", "https"),
            ("192.0.2.7", "Https", "https"),
            ("192.0.2.7", "http, https", "https"),
            ("192.0.2.7, 10.1.1.1", "https", "https"),
            ("192.0.2.7, 10.1.1.1", "https, http", "https"),
            ("1.1.1.1, 192.0.2.7, 10.1.1.1", "http, https, http", "https"),
            ("10.2.2.2, 10.1.1.1", "https, http", "https"),
            ("192.0.2.7, unknown", "http, https", "https"),
            ("192.0.2.7", "https, ftp", "http"),
            ("192.0.2.7", "wss", "http"),
            ("192.0.2.7", 'https"', "http"),
            ("192.0.2.7", "", "http"),
        ]:
            result = told({"X-Forwarded-For": chain, "X-Forwarded-Proto": value})
            self.assertEqual(result["x-forwarded-proto"], proto, (chain, value))
            self.assertEqual(result["forwarded"].count("proto=" + proto), 1)
            self.assertEqual(result["forwarded"].count("proto="), 1)
        for chain, value, host in [
            ("192.0.2.7", "outer", "outer"),
            ("192.0.2.7", "evil, outer:80", "outer:80"),
            ("192.0.2.7, 10.1.1.1", "outer, inner", "outer"),
            ("192.0.2.7", "[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("192.0.2.7", "out er", "h"),
            ("192.0.2.7", 'o"', "h"),
            ("192.0.2.7", "user@outer", "h"),
        ]:
            result = told({"Host": "h", "X-Forwarded-For": chain, "X-Forwarded-Host": value})
            self.assertEqual(result["x-forwarded-host"], host, (chain, value))
            (element,) = (
                pairs for pairs in parse_forwarded([result["forwarded"].encode()]) if b"host" in pairs
            )
            self.assertEqual(element[b"host"].decode(), host)

    def test_unix_socket(self) -> None:
        """A trusted proxy on a unix socket has no address to be appended."""
        result = told({"X-Forwarded-For": "192.0.2.7"}, None)
        self.assertEqual(
            result,
            {
                "client": "192.0.2.7",
                "x-forwarded-for": "192.0.2.7",
                "x-forwarded-proto": "http",
                "x-real-ip": "192.0.2.7",
                "forwarded": "for=192.0.2.7, proto=http",
            },
        )
        self.assertEqual(told({"X-Forwarded-For": "x"}, None)["client"], "")
        self.assertEqual(told({"X-Forwarded-Proto": "https"}, None)["forwarded"], "proto=https")

    def test_longest(self) -> None:
        """Of a long chain the right end counts, and no more than that is passed on."""
        chain = ["1.1.1.1", "192.0.2.7"] + ["10.1.1.1"] * (LONGEST - 1)
        result = told({"X-Forwarded-For": ",".join(chain), "Forwarded": ",".join(["for=a"] * 1000)})
        self.assertEqual(result["client"], "192.0.2.7")
        self.assertEqual(result["x-forwarded-for"], ", ".join(chain[1:]) + ", 10.0.0.1")
        self.assertEqual(result["forwarded"].count("for="), LONGEST + 1)
        result = told({"Forwarded": ",".join(f"for={link}" for link in chain)})
        self.assertEqual(result["client"], "192.0.2.7")
        self.assertEqual(result["forwarded"].count("for="), LONGEST + 1)


class ForwardedFieldTests(SynchronousTestCase):
    """C{Forwarded} (RFC 7239)."""

    def test_client(self) -> None:
        """Without X-Forwarded-For its chain counts, by the same walk."""
        for value, client, chain in [
            ("for=192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ('For="[2001:DB8::7]:4711"', "2001:db8::7", "2001:db8::7"),
            ('for="192.0.2.7:80";by=_x', "192.0.2.7", "192.0.2.7"),
            (
                "for=1.1.1.1, for=192.0.2.7;proto=http, for=10.1.1.1",
                "192.0.2.7",
                "1.1.1.1, 192.0.2.7, 10.1.1.1",
            ),
            (["for=1.1.1.1", "for=192.0.2.7"], "192.0.2.7", "1.1.1.1, 192.0.2.7"),
            ("for=192.0.2.7, for=unknown", "10.0.0.1", "192.0.2.7, unknown"),
            ("for=192.0.2.7, for=_hidden, for=10.1.1.1", "10.1.1.1", "192.0.2.7, unknown, 10.1.1.1"),
            ("for=192.0.2.7, proto=https", "10.0.0.1", "192.0.2.7, unknown"),
            ("for=2001:db8::7", "10.0.0.1", ""),
            ("for=192.0.2.7, x", "10.0.0.1", ""),
            ("for=192.0.2.7, for=10.1.1.1;for=1.1.1.1", "10.0.0.1", ""),
            ('for="192.0.2.7', "10.0.0.1", ""),
        ]:
            result = told({"Forwarded": value})
            self.assertEqual(result["client"], client, value)
            self.assertEqual(result["x-forwarded-for"], f"{chain}, 10.0.0.1" if chain else "10.0.0.1")

    def test_appended(self) -> None:
        """What it says stays, with what is appended; protocol and host are the client's."""
        result = told(
            {
                "Host": "h",
                "Forwarded": 'for=1.1.1.1;ext="a\\"b\\\\,", FOR="192.0.2.7";by=_edge;proto=https;host="a:80", '
                "for=10.1.1.1;proto=http;host=b",
            }
        )
        self.assertEqual(
            result["forwarded"],
            'for=1.1.1.1;ext="a\\"b\\\\,", for=192.0.2.7;by=_edge;proto=https;host="a:80", '
            "for=10.1.1.1;proto=http;host=b, for=10.0.0.1",
        )
        self.assertEqual((result["x-forwarded-proto"], result["x-forwarded-host"]), ("https", "a:80"))

    def test_not_sane(self) -> None:
        """A protocol or host of the client that is not sane is not passed on."""
        result = told({"Host": "h", "Forwarded": 'for=192.0.2.7;proto=ftp;host="a,b"'})
        self.assertEqual(result["forwarded"], "for=192.0.2.7, for=10.0.0.1;proto=http;host=h")
        self.assertEqual((result["x-forwarded-proto"], result["x-forwarded-host"]), ("http", "h"))

    def test_protocol_beside(self) -> None:
        """Where it says nothing of protocol and host, X-Forwarded-Proto and X-Forwarded-Host count."""
        fields: Fields = {"Forwarded": "for=192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "o"}
        self.assertEqual(told(fields)["forwarded"], "for=192.0.2.7;proto=https;host=o, for=10.0.0.1")
        fields["Forwarded"] = "for=192.0.2.7;proto=http;host=i"
        result = told(fields)
        self.assertEqual((result["x-forwarded-proto"], result["x-forwarded-host"]), ("http", "i"))

    def test_never_contradicts(self) -> None:
        """Beside X-Forwarded-For it is written anew, so that a client's own, which a proxy passed on, says nothing."""
        for forwarded in [
            "for=1.1.1.1",
            "for=192.0.2.7;proto=https;host=evil",
            "for=192.0.2.7, for=10.1.1.1;proto=https;host=evil",
            'for="',
        ]:
            result = told({"Host": "h", "X-Forwarded-For": "192.0.2.7, 10.1.1.1", "Forwarded": forwarded})
            self.assertEqual(result["x-forwarded-for"], "192.0.2.7, 10.1.1.1, 10.0.0.1")
            self.assertEqual(
                result["forwarded"], "for=192.0.2.7, for=10.1.1.1, for=10.0.0.1;proto=http;host=h"
            )
            self.assertEqual((result["x-forwarded-proto"], result["x-forwarded-host"]), ("http", "h"))

    def test_parse(self) -> None:
        """Elements, parameters and quoted strings; anything else makes the whole field worth nothing."""
        for values, expected in [
            ([], []),
            ([b""], []),
            ([b" , ;, "], []),
            ([b"for=a"], [{b"for": b"a"}]),
            ([b"for=a;"], [{b"for": b"a"}]),
            ([b"FOR=a ;\tBy=b , ,;proto=c,"], [{b"for": b"a", b"by": b"b"}, {b"proto": b"c"}]),
            ([b'for="a,b;c=\\"\\d\xe9"', b"for=e"], [{b"for": b'a,b;c="d\xe9'}, {b"for": b"e"}]),
            ([b'for=""'], [{b"for": b""}]),
            ([b'for="a', b'b"'], []),
            ([b"for=a", b"for"], []),
            ([b"for"], []),
            ([b"for="], []),
            ([b"=a"], []),
            ([b"for =a"], []),
            ([b"for=a by=b"], []),
            ([b"for=a;for=b"], []),
            ([b"for=[::1]"], []),
            ([b"for=a\x00"], []),
        ]:
            self.assertEqual(parse_forwarded(values), expected, values)

    def test_nodes(self) -> None:
        """Links are named by an address, with or without a port; or they hide."""
        for node, expected in [
            (b"192.0.2.7", "192.0.2.7"),
            (b"192.0.2.7:80", "192.0.2.7"),
            (b"[2001:DB8::7]", "2001:db8::7"),
            (b"[2001:db8::7]:65535", "2001:db8::7"),
            (b"2001:db8::7", "2001:db8::7"),
            (b"[192.0.2.7]:80", "192.0.2.7"),
            (b"unknown", "None"),
            (b"_hidden", "None"),
            (b"192.0.2.7:", "None"),
            (b"192.0.2.7:_port", "192.0.2.7"),
            (b"[2001:db8::7]:_", "None"),
            (b"192.0.2.7:123456", "None"),
            (b"[2001:db8::7", "None"),
            (b"[]", "None"),
            (b"", "None"),
            (b"192.0.2.\xb2", "None"),
            (b"localhost", "None"),
        ]:
            self.assertEqual(str(parse_node(node)), expected, node)


#: What a link may be called, in both fields.
NODES = st.sampled_from(
    [
        "1.1.1.1",
        "192.0.2.7",
        "10.1.1.1",
        "10.2.2.2",
        "[2001:db8::7]:80",
        "::ffff:10.3.3.3",
        "unknown",
        "_x",
        "a b",
        "",
    ]
)
VALUES = st.sampled_from(["http", "https", "HTTPS", "ftp", "h", "h:80", "a b", 'x"', ""])
STORIES = st.fixed_dictionaries(
    {},
    optional={
        "Host": VALUES,
        "X-Forwarded-For": st.lists(st.lists(NODES, max_size=3).map(", ".join), min_size=1, max_size=2),
        "X-Forwarded-Proto": st.lists(VALUES, max_size=3).map(", ".join),
        "X-Forwarded-Host": st.lists(VALUES, max_size=3).map(", ".join),
        "X-Real-IP": NODES,
        "Forwarded": st.lists(
            st.tuples(NODES, VALUES, VALUES).map(lambda said: 'for="{}";proto="{}";host="{}"'.format(*said)),
            max_size=4,
        ).map(", ".join),
    },
)


def by_hand(chain: list[str]) -> str:
    """The client of a chain that ends with a trusted link, found by looking at all that could be."""
    addresses = [parse_node(node.encode()) for node in chain]
    start = len(chain) - 1
    while start > 0 and addresses[start - 1] is not None and PROXIES.covers(str(addresses[start])):
        start -= 1
    return str(addresses[start])


class AnyStoryTests(SynchronousTestCase):
    """Whatever is told."""

    @settings(deadline=None)
    @given(STORIES, st.sampled_from(["10.0.0.1", "192.0.2.9", "2001:db8:ffff::1"]))
    def test_one_voice(self, fields: Fields, peer: str) -> None:
        """The fields never contradict each other, and name the client that the proxy itself takes for it."""
        result = told(fields, peer)
        chain = result["x-forwarded-for"].split(", ")
        elements = parse_forwarded([result["forwarded"].encode()])
        self.assertEqual(
            [parse_node(node.encode()) for node in chain],
            [parse_node(pairs.get(b"for", b"")) for pairs in elements],
        )
        self.assertEqual(chain[-1], peer)
        self.assertEqual(result["client"], result["x-real-ip"])
        self.assertIn(result["x-forwarded-proto"], ("http", "https"))
        if not PROXIES.covers(peer):
            self.assertEqual((chain, result["client"]), ([peer], peer))
            self.assertEqual(result["x-forwarded-proto"], "http")
        else:
            self.assertEqual(result["client"], by_hand(chain))
        if any(field.strip(", ") for field in fields.get("X-Forwarded-For", [])):
            for name, said in ((b"proto", "x-forwarded-proto"), (b"host", "x-forwarded-host")):
                values = [pairs[name].decode() for pairs in elements if name in pairs]
                self.assertEqual(values, [result[said]] if said in result else [])
