"""
Addresses, and the networks of those who are trusted. Pure.

Addresses are compared as addresses: an IPv4 address that IPv6 carries is that IPv4 address; zones and the case of
letters do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import attrs

Address = IPv4Address | IPv6Address

#: Characters of an address: those of IPv6 with an IPv4 part, and of a zone (if_nameindex(3)). No more is remembered.
ADDRESS_LENGTH = 45 + 1 + 16

_MEND = 'write an address, a network such as "10.0.0.0/8", or "unix:"'


@attrs.frozen
class Trusted:
    """
    The proxies before this one that are believed.

    @ivar networks: where they are.
    @ivar unix: whoever comes over a unix socket is one of them.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    def covers(self, address: str | None) -> bool:
        """
        Whether this is one of them.

        @param address: where a connection comes from, as Twisted says it; None on a unix socket.
        """
        if address is None:
            return self.unix
        found = parse_address(address)
        return found is not None and self.includes(found)

    def includes(self, address: Address) -> bool:
        """Whether the one with this address is one of them."""
        return any(address in network for network in self.networks)


def trusted(entries: Iterable[str]) -> Trusted:
    """
    Read C{trusted_proxies}.

    @raise ValueError: an entry is neither an address nor a network nor C{unix:}; the message is one line with the mend.
    """
    entries = list(entries)
    networks = tuple(_network(entry) for entry in entries if entry != "unix:")
    return Trusted(networks, "unix:" in entries)


def parse_address(text: str) -> Address | None:
    """An address, without its zone, and as IPv4 if it is one; None if the text is no address."""
    return _parsed(text) if len(text) <= ADDRESS_LENGTH else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def _network(entry: str) -> IPv4Network | IPv6Network:
    """
    One entry of C{trusted_proxies} as a network.

    @raise ValueError: it is none.
    """
    if entry.startswith("unix:"):
        raise ValueError('whoever comes over a unix socket is meant by "unix:"; leave out the path')
    if "%" in entry:
        raise ValueError(f'"{entry}" has a zone, which does not count; leave out the % and what follows')
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        raise ValueError(_mistake(entry)) from None
    address = ip_address(entry.partition("/")[0])
    if network.network_address != address:
        raise ValueError(
            f'"{entry}" has bits set past its prefix; write "{network}" for the network, '
            f'or "{address}" for the one address'
        )
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def _mistake(entry: str) -> str:
    """What is wrong with an entry that is no network."""
    host = entry.partition("]")[0].removeprefix("[") if entry.startswith("[") else entry.partition(":")[0]
    if parse_address(host) is not None:
        return f'"{entry}" has brackets or a port; write "{host}"'
    address, slash, _ = entry.partition("/")
    if slash and parse_address(address) is not None:
        return f'"{entry}" has no valid prefix length; {_MEND}'
    return f'"{entry}" is no address, and names are not looked up; {_MEND}'
