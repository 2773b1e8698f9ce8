"""URLs that a webhook may have, and when it waits, pauses and gives up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.errors import InvalidParams
from whatsappd.rules.webhooks import MAX_URL, Policy, validate_url

POLICY = Policy()


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hook?token=1",
        "https://example.com:8443/hook",
        "https://8.8.8.8/hook",
        "https://[2606:4700:4700::1111]/hook",
        "HTTPS://Example.COM/",
    ],
)
def test_urls_of_the_internet_are_good(url: str) -> None:
    assert validate_url(url, allow_private=False) == url
    assert validate_url(url, allow_private=True) == url


@pytest.mark.parametrize(
    ("url", "private_too"),
    [
        ("", False), ("example.com", False), ("//example.com/", False), ("https://", False),
        ("ftp://example.com/", False), ("file:///etc/passwd", False), ("https:///x", False),
        ("https://a@example.com/", False), ("https://a:b@example.com/", False),
        ("https://@example.com/", False), ("https://example.com/#a", False),
        ("https://example.com/#", False), ("https://example.com:0/", False),
        ("https://example.com:99999/", False), ("https://exam ple.com/", False),
        ("https://example.com/\n", False), ("https://exämple.com/", False),
        ("https://[::1/", False), ("https://example.com/" + "x" * MAX_URL, False),
        ("http://example.com/", True), ("http://127.0.0.1:8080/", True),
        ("https://127.0.0.1/", True), ("https://[::1]/", True), ("https://10.0.0.1/", True),
        ("https://[::ffff:127.0.0.1]/", True), ("https://169.254.169.254/", True),
        ("https://2130706433/", True), ("https://0x7f000001/", True), ("https://127.1/", True),
        ("https://0/", True),
    ],
)  # fmt: skip
def test_all_else_is_refused_and_names_the_field(url: str, private_too: bool) -> None:
    with pytest.raises(InvalidParams) as refused:
        validate_url(url, allow_private=False)
    assert refused.value.data["field"] == "url"
    if private_too:
        assert validate_url(url, allow_private=True) == url
    else:
        with pytest.raises(InvalidParams):
            validate_url(url, allow_private=True)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_a_cap(failures: int, chance: float) -> None:
    wait_ms = POLICY.wait_ms(failures, chance)
    assert 0 <= wait_ms <= min(POLICY.cap_ms, POLICY.base_ms * 2 ** (failures - 1))


def test_an_event_is_looked_at_after_enough_failures() -> None:
    assert not POLICY.is_hopeless(POLICY.attempts - 1)
    assert POLICY.is_hopeless(POLICY.attempts)


def test_it_pauses_after_long_failure_only() -> None:
    assert not POLICY.should_pause(None, 10**12)
    assert not POLICY.should_pause(1000, 1000 + POLICY.pause_after_ms - 1)
    assert POLICY.should_pause(1000, 1000 + POLICY.pause_after_ms)
