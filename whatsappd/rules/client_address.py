"""Which client an HTTP request came from, also behind our own reverse proxy.

The gateway counts wrong keys and connections by client: `forwarded_for` reads the address that the
proxy wrote into a header, `network_of` says which addresses count as one client.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
#: `[2001:db8::1]:4711`, `[fe80::1%eth0]`
_BRACKETED = re.compile(rf"\[([0-9A-Fa-f:.]+)(?:%[^\]]*)?\]{_PORT}")
#: `192.0.2.9:4711`
_IPV4 = re.compile(rf"([0-9.]+){_PORT}")
#: `2001:db8::1`, `fe80::1%eth0`; a port behind it could not be told from it.
_IPV6 = re.compile(r"([0-9A-Fa-f:.]+)(?:%\S*)?")
#: One parameter of an element of Forwarded (RFC 7239, section 4), its value quoted or not.
_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^",;\s]*)\s*')
#: What is longer is no address.
_MAX_LENGTH = 200


def address_of(text: str) -> Address | None:
    """The address in `text`: IPv4 or IPv6, with or without brackets, zone and port.

    An IPv4 address that is written as an IPv6 one (`::ffff:192.0.2.9`) is that IPv4 address.
    None: there is none.
    """
    text = text.strip()
    if len(text) > _MAX_LENGTH:
        return None
    for form in (_BRACKETED, _IPV4, _IPV6):
        if found := form.fullmatch(text):
            try:
                address = ipaddress.ip_address(found[1])
            except ValueError:
                continue
            if isinstance(address, ipaddress.IPv6Address):
                return address.ipv4_mapped or address
            return address
    return None


def network_of(address: Address) -> str:
    """The network that a client is counted by: an IPv4 address, or a /64 of IPv6.

    Whoever has one IPv6 address has 2^64 of them.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def forwarded_for(x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> Address | None:
    """The address that our own proxy wrote: the last one, because clients can forge all before.

    Args:
        x_forwarded_for, forwarded: the lines of these headers, as they came. The second one
            (RFC 7239) counts only where there is none of the first.

    Returns:
        None if the last entry is no address: the entries before it are not believed.
    """
    if x_forwarded_for:
        return address_of(x_forwarded_for[-1].rpartition(",")[2])
    if forwarded:
        return _last_for(forwarded[-1])
    return None


def _last_for(line: str) -> Address | None:
    """The `for` of the last element of a Forwarded line."""
    named: Address | None = None
    place = 0
    while found := _PAIR.match(line, place):
        if found[1].lower() == "for":
            value = found[2]
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            named = address_of(value)
        place = found.end()
        if place == len(line):
            return named
        if line[place] == ",":
            named = None  # another element begins
        elif line[place] != ";":
            return None
        place += 1
    return None  # it is not what the RFC says
