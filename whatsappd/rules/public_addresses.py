"""Which IP addresses are on the Internet, and which could lead to something of ours.

Webhooks go to URLs that somebody typed in. A URL that leads to this host, to its network or to its
cloud's metadata service would let its author reach what only we can (server-side request forgery).
`gateway.webhooks.network` asks here about each address before it connects to it.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)

#: Global by the registries' tables of some Python versions, and yet not the Internet at large.
_V4_RESERVED = (
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT (RFC 6598)
    IPv4Network("192.0.0.0/24"),  # protocol assignments (RFC 6890)
    IPv4Network("192.88.99.0/24"),  # 6to4 relays (RFC 7526)
    IPv4Network("198.18.0.0/15"),  # benchmarks (RFC 2544)
    IPv4Network("168.63.129.16/32"),  # Azure's host agent, at a public address
)
#: All that is assigned to the Internet so far (RFC 4291); the rest is local, or nobody's.
_V6_GLOBAL = IPv6Network("2000::/3")
_V6_RESERVED = (
    IPv6Network("2001::/23"),  # protocol assignments, Teredo included (RFC 2928, RFC 4380)
    IPv6Network("2001:db8::/32"),  # documentation (RFC 3849)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the IPv4 address is in the last 32 bits


def is_public(address: str) -> bool:
    """Whether a connection to that IP address leaves for the Internet.

    False for what is private, loopback, link-local (cloud metadata too), shared, multicast or
    reserved; for IPv6 addresses that carry such an IPv4 address; and for what is no address.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return _is_public_v4(parsed)
    return _is_public_v6(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in _V4_RESERVED)


def _is_public_v6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False  # an interface of ours
    carried = _carried_v4(address)
    if carried is not None:
        return _is_public_v4(carried)
    if address not in _V6_GLOBAL or not address.is_global:
        return False
    return not any(address in network for network in _V6_RESERVED)


def _carried_v4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which packets for this one are translated."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
