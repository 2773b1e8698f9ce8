"""Which addresses a webhook may reach: tables, and what is between them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.rules.public_addresses import is_public


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255"),
        *("100.128.0.1", "192.167.255.255", "192.169.0.1", "223.255.255.254", "11.0.0.1"),
        *("2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450:4001::1"),
        *("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
    ],
)
def test_the_internet_may_be_reached(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        # this host, and every spelling of it
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "::1", "::"),
        *("::ffff:127.0.0.1", "::ffff:0:0", "::127.0.0.1", "::ffff:0:127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2002:a00:1::"),
        # private networks
        *(
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
        ),
        *("fc00::1", "fd12:3456::1", "::ffff:10.1.2.3", "::ffff:192.168.0.1", "fec0::1"),
        # link-local, and with it the metadata services of clouds
        *("169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254"),
        *("fd00:ec2::254", "168.63.129.16", "100.100.100.200", "64:ff9b::a9fe:a9fe"),
        # multicast, broadcast, reserved, documentation, benchmarks, transition
        *("224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "ff02::1"),
        *("192.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1"),
        *("2001:db8::1", "3fff::1", "100::1", "2001::1", "2001:20::1", "5f00::1", "4000::1"),
        # no addresses at all
        *("", "localhost", "127.1", "2130706433", "0x7f000001", "8.8.8.8 ", "1.2.3.4.5", "::ffff:"),
    ],
)
def test_nothing_of_ours_may_be_reached(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_however_it_is_carried(
    address: ipaddress.IPv4Address,
) -> None:
    number = int(address)
    judged = is_public(str(address))
    assert is_public(f"::ffff:{address}") == judged
    assert is_public(str(ipaddress.IPv6Address((0x64FF9B << 96) | number))) == judged
    assert is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1))) == judged
    # Never more generous than Python's own table.
    assert not judged or address.is_global


@given(st.ip_addresses(v=6))
def test_never_more_generous_than_pythons_own_table(address: ipaddress.IPv6Address) -> None:
    assert not is_public(str(address)) or address.is_global or address.sixtofour is not None
