"""Who a request is from, as a proxy writes it; whatever a client makes of the same headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.rules.client_address import address_of, forwarded_for, network_of


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.9", "192.0.2.9"),
        (" 192.0.2.9:4711 ", "192.0.2.9"),
        ("192.0.2.9:_hidden", "192.0.2.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("[2001:DB8::9]", "2001:db8::9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("[::ffff:192.0.2.9]:80", "192.0.2.9"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("unix:", None),
        ("192.0.2.256", None),
        ("192.0.2.9:port", None),
        ("192.0.2.9, 192.0.2.8", None),
        ("127.0.0.1\n", "127.0.0.1"),
        ("localhost", None),
        ("1" * 10_000, None),
        ("[2001:db8::9", None),
        ("٣.٣.٣.٣", None),
    ],
)
def test_an_address_is_read_in_each_of_its_forms(text: str, address: str | None) -> None:
    found = address_of(text)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize(
    ("x_forwarded_for", "forwarded", "address"),
    [
        (["6.6.6.6, 192.0.2.9:1"], [], "192.0.2.9"),
        (["6.6.6.6", "192.0.2.9"], [], "192.0.2.9"),
        (["192.0.2.9, unknown"], [], None),
        ([""], ["for=192.0.2.9"], None),
        ([], [], None),
        ([], ["for=192.0.2.9"], "192.0.2.9"),
        ([], ["for=6.6.6.6", "For=192.0.2.9;proto=https"], "192.0.2.9"),
        ([], ["for=6.6.6.6, proto=http;for=192.0.2.9;by=1.2.3.4"], "192.0.2.9"),
        ([], ['for="[2001:db8::9]:4711"'], "2001:db8::9"),
        ([], ['for="[2001:db8::9]:47\\11"'], "2001:db8::9"),
        ([], ["for=192.0.2.9, proto=https"], None),
        ([], ['for="6.6.6.6, for=192.0.2.9'], None),
        ([], ["for=6.6.6.6 nonsense"], None),
        ([], ["for=unknown"], None),
        ([], ["for=6.6.6.6;"], None),
    ],
)
def test_only_what_the_proxy_added_last_counts(
    x_forwarded_for: list[str], forwarded: list[str], address: str | None
) -> None:
    found = forwarded_for(x_forwarded_for, forwarded)
    assert (None if found is None else str(found)) == address


lines = st.lists(st.text('for=;,"[]:.%\\ 0123456789abcdef', max_size=60), max_size=3)


@given(lines, lines)
def test_whatever_a_client_writes_is_no_error(first: list[str], second: list[str]) -> None:
    found = forwarded_for(first, second)
    if found is not None:
        assert address_of(str(found)) == found
        assert network_of(found)


def test_one_subscriber_is_counted_as_one() -> None:
    def counted(text: str) -> str:
        found = address_of(text)
        assert found is not None
        return network_of(found)

    assert counted("2001:db8::1") == counted("[2001:db8::ffff]:1") == "2001:db8::/64"
    assert counted("2001:db8:0:1::1") != counted("2001:db8::1")
    assert counted("192.0.2.1:99") == counted("::ffff:192.0.2.1") == "192.0.2.1"
    assert counted("::1") == "::/64"
