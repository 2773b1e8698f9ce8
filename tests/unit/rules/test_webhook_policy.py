"""URLs that a webhook may have, and when it waits, pauses and gives up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.errors import InvalidParams
from whatsappd.rules.webhook_policy import (
    MAX_RETRY_AFTER_MS,
    MAX_URL,
    Policy,
    parse_url,
    retry_after_ms,
    validate_url,
)

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
        ("https://example.com/\n", False), ("https://example.com/ä", False),
        ("https://[::1/", False), ("https://example.com/" + "x" * MAX_URL, False),
        ("http://example.com/", True), ("http://127.0.0.1:8080/", True),
        ("https://127.0.0.1/", True), ("https://[::1]/", True), ("https://10.0.0.1/", True),
        ("https://[::ffff:127.0.0.1]/", True), ("https://169.254.169.254/", True),
        ("https://2130706433/", False), ("https://0x7f000001/", False), ("https://127.1/", False),
        ("https://0/", False), ("https://127.0.0.1./", False), ("https://010.0.0.1/", False),
        ("https://example.com\\@127.0.0.1/", False), ("https://example.com/\\", False),
        ("https://[fe80::1%25eth0]/", False), ("https://[127.0.0.1]/", False),
        ("https://ex%61mple.com/", False), ("https://example..com/", False),
        ("https://-example.com/", False), ("https://example.com:+80/", False),
        ("https://example.com:8_0/", False), ("https://\u2100.example/", False),
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


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "header"),
    [
        ("https://example.com", "example.com", 443, "/", "example.com"),
        ("https://example.com?x=1", "example.com", 443, "/?x=1", "example.com"),
        ("https://example.com/a?", "example.com", 443, "/a?", "example.com"),
        ("https://example.com/a;v=1?x=1", "example.com", 443, "/a;v=1?x=1", "example.com"),
        ("https://example.com//a/../b", "example.com", 443, "//a/../b", "example.com"),
        ("https://example.com/%2e%2E?a=%zz", "example.com", 443, "/%2e%2E?a=%zz", "example.com"),
        ("http://[::1]:18203/hook", "::1", 18203, "/hook", "[::1]:18203"),
        ("https://[2606:4700:0::1]/", "2606:4700::1", 443, "/", "[2606:4700::1]"),
        ("http://EXAMPLE.com:80/", "example.com", 80, "/", "example.com"),
        ("http://example.com:443/", "example.com", 443, "/", "example.com:443"),
        ("https://example.com:/", "example.com", 443, "/", "example.com"),
        ("https://straße.example/", "xn--strae-oqa.example", 443, "/", "xn--strae-oqa.example"),
    ],
)
def test_a_url_is_read_once(url: str, host: str, port: int, target: str, header: str) -> None:
    found = parse_url(url)
    assert (found.host, found.port, found.target, found.host_header) == (host, port, target, header)
    assert parse_url(str(found)) == found


def test_an_international_name_is_kept_in_ascii() -> None:
    kept = validate_url("https://Bücher.example/x", allow_private=False)
    assert kept == "https://xn--bcher-kva.example/x"


@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [
        ("0", 0), ("120", 120_000), (" 7 ", 7000), ("99999", MAX_RETRY_AFTER_MS),
        ("Thu, 01 Jan 1970 00:17:10 GMT", 30_000), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_MS),
        *[(each, None) for each in ("", "soon", "-1", "1.5", "1e9", "9" * 30, "\x00", "١")],
    ],
)  # fmt: skip
def test_what_a_receiver_asks_us_to_wait(header: str, wait_ms: int | None) -> None:
    assert retry_after_ms(header, 1_000_000) == wait_ms


@given(st.text(max_size=60))
def test_no_retry_after_header_breaks_anything(header: str) -> None:
    wait_ms = retry_after_ms(header, 1_000_000)
    assert wait_ms is None or 0 <= wait_ms <= MAX_RETRY_AFTER_MS


def test_while_the_receiver_is_away_the_oldest_event_asks_often() -> None:
    waits = [POLICY.wait_ms(20, chance / 100, is_probe=True) for chance in range(100)]
    assert max(waits) <= POLICY.probe_ms < POLICY.wait_ms(20, 0.99)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_a_cap(failures: int, chance: float) -> None:
    wait_ms = POLICY.wait_ms(failures, chance)
    assert 0 <= wait_ms <= min(POLICY.cap_ms, POLICY.base_ms * 2 ** (failures - 1))


def test_an_event_is_looked_at_after_enough_failures() -> None:
    assert not POLICY.is_hopeless(POLICY.attempts - 1)
    assert POLICY.is_hopeless(POLICY.attempts)


def test_it_pauses_after_long_failure_only() -> None:
    assert not POLICY.should_pause(0)
    assert not POLICY.should_pause((POLICY.pause_after_ms - 1) / 1000)
    assert POLICY.should_pause(POLICY.pause_after_ms / 1000)
