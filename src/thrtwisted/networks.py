"""
Addresses and networks, and who is trusted. Pure.

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

Network = IPv4Network | IPv6Network

_MEND = 'write an address or a network such as "10.0.0.0/8"'
_MEND_TRUSTED = 'write an address, a network such as "10.0.0.0/8", or "unix:"'


@attrs.frozen
class Trusted:
    """
    The proxies before this one that are believed.

    @ivar networks: where they are.
    @ivar unix: whoever comes over a unix socket is one of them.
    """

    networks: tuple[Network, ...] = ()
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
    networks = tuple(_trusted_network(entry) for entry in entries if entry != "unix:")
    return Trusted(networks, "unix:" in entries)


def _trusted_network(entry: str) -> Network:
    if entry.startswith("unix:"):
        raise ValueError('whoever comes over a unix socket is meant by "unix:"; leave out the path')
    return network(entry, _MEND_TRUSTED)


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


def network(entry: str, mend: str = _MEND) -> Network:
    """
    An address or a network, as people write it, as a network.

    @param mend: what may be written.
    @raise ValueError: it is none; the message is one line with the mend.
    """
    if "%" in entry:
        raise ValueError(f'"{entry}" has a zone, which does not count; leave out the % and what follows')
    try:
        found = ip_network(entry, strict=False)
    except ValueError:
        raise ValueError(_mistake(entry, mend)) from None
    address = ip_address(entry.partition("/")[0])
    if found.network_address != address:
        raise ValueError(
            f'"{entry}" has bits set past its prefix; write "{found}" for the network, '
            f'or "{address}" for the one address'
        )
    if isinstance(found, IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, found.prefixlen - 96))
    return found


def _mistake(entry: str, mend: str) -> str:
    """What is wrong with an entry that is no network."""
    host = entry.partition("]")[0].removeprefix("[") if entry.startswith("[") else entry.partition(":")[0]
    if parse_address(host) is not None:
        return f'"{entry}" has brackets or a port; write "{host}"'
    address, slash, _ = entry.partition("/")
    if slash and parse_address(address) is not None:
        return f'"{entry}" has no valid prefix length; {mend}'
    return f'"{entry}" is no address, and names are not looked up; {mend}'
