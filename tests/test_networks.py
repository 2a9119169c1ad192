"""Tests of addresses, and of who is trusted."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from thrtwisted.networks import Trusted, parse_address, trusted


class AddressTests(SynchronousTestCase):
    """Tests for L{parse_address}."""

    def test_normal(self) -> None:
        """One address has one form, however it is written."""
        for text, expected in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::FFFF:C000:0201", "192.0.2.1"),
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
        ]:
            self.assertEqual(str(parse_address(text)), expected)
            self.assertEqual(parse_address(text), parse_address(expected))

    def test_none(self) -> None:
        """What is no address is none, also if other programs would read one."""
        for text in [
            "",
            "localhost",
            "010.0.0.1",
            "1.2.3",
            "16909060",
            "0x7f.1",
            "1.2.3.4:80",
            "[::1]",
            " ::1",
            "1.2.3.4 ",
            "1.2.3.4\n",
            "\u0661.2.3.4",
            "fe80::1%" + "0" * 100,
        ]:
            self.assertIsNone(parse_address(text), text)


class TrustedTests(SynchronousTestCase):
    """Tests for L{trusted} and L{Trusted}."""

    def test_covers(self) -> None:
        """Addresses and networks cover what is in them, in whatever form it is written."""
        for entries, inside, outside in [
            (["10.0.0.0/8"], ["10.0.0.0", "10.255.1.2", "::ffff:10.1.1.1"], ["11.0.0.1", "::10.0.0.1", None]),
            (["192.0.2.1"], ["192.0.2.1", "::ffff:c000:201"], ["192.0.2.2"]),
            (["2001:DB8::/32"], ["2001:db8::1", "2001:db8:f::%eth0"], ["2001:db9::1", "32.1.13.184"]),
            (["fe80::1"], ["FE80::1%eth1"], ["fe80::2"]),
            (["::ffff:10.0.0.0/104"], ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.0"]),
            (["::ffff:10.0.0.1"], ["10.0.0.1"], ["10.0.0.2"]),
            (["10.0.0.0/255.0.0.0"], ["10.1.2.3"], ["11.0.0.0"]),
            (["0.0.0.0/0"], ["1.2.3.4", "::ffff:1.2.3.4"], ["::1", None]),
            (["::/0"], ["::1"], ["1.2.3.4", None]),
            (["unix:"], [None], ["127.0.0.1", "", "unix:"]),
            (["10.0.0.1", "unix:", "::1"], [None, "10.0.0.1", "::1"], ["10.0.0.2"]),
            ([], [], [None, "", "127.0.0.1", "::1"]),
        ]:
            proxies = trusted(entries)
            for address in inside:
                self.assertTrue(proxies.covers(address), (entries, address))
            for address in outside:
                self.assertFalse(proxies.covers(address), (entries, address))
        self.assertEqual(trusted([]), Trusted())

    def test_mistakes(self) -> None:
        """What cannot be read is refused, with the mend."""
        for entry, message in [
            ("10.0.0.1/8", r'bits set past its prefix; write "10.0.0.0/8" .* or "10.0.0.1"'),
            ("10.0.0.1/255.0.0.0", r'write "10.0.0.0/8"'),
            ("2001:db8::1/64", r'write "2001:db8::/64" .* or "2001:db8::1"'),
            ("10.0.0.0/33", "no valid prefix length"),
            ("10.0.0.0/", "no valid prefix length"),
            ("::/129", "no valid prefix length"),
            ("10.0.0.1:80", r'has brackets or a port; write "10.0.0.1"'),
            ("[::1]", r'has brackets or a port; write "::1"'),
            ("[2001:db8::1]:443", r'write "2001:db8::1"'),
            ("fe80::1%eth0", "has a zone, .*; leave out"),
            ("unix:/run/proxy.sock", r'is meant by "unix:"; leave out the path'),
            ("loadbalancer.example", "names are not looked up; write an address"),
            ("localhost:80", "names are not looked up"),
            ("unix", "is no address"),
            ("*", "is no address"),
            ("", "is no address"),
            ("[", "is no address"),
        ]:
            error = self.assertRaises(ValueError, trusted, ["::1", entry])
            self.assertRegex(str(error), message)
            self.assertNotIn("\n", str(error))
