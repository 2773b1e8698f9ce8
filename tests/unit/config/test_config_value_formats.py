"""How values may be written, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.config.definitions import DEFINITIONS
from whatsappd.config.quoting import masked
from whatsappd.config.value_formats import (
    BadValue,
    Choice,
    Count,
    Duration,
    FilePath,
    GroupName,
    Permissions,
    RedisUrl,
    Size,
    ValueFormat,
)

DAY_S = 86_400
DURATION = Duration(0, 1000 * DAY_S)
DURATION_MS = Duration(0, 1000 * DAY_S * 1000, in_ms=True)
SIZE = Size(0, 10**15)
PERMISSIONS = Permissions(0o600, 0o777)


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (Count(0, 10), 7, 7),
        (Count(-5, 10), -5, -5),
        (DURATION, "30s", 30),
        (DURATION, "5m", 300),
        (DURATION, "12h", 43_200),
        (DURATION, "7d", 604_800),
        (DURATION, "1h30m", 5400),
        (DURATION, "1h 30m", 5400),
        (DURATION, "250ms", 0.25),
        (DURATION, "1.5s", 1.5),
        (DURATION, "90", 90),
        (DURATION_MS, "250ms", 250),
        (DURATION_MS, "1h30m", 5_400_000),
        (DURATION_MS, 0.5, 500),
        (DURATION_MS, "90", 90_000),
        (DURATION, 90, 90),
        (DURATION, 0.5, 0.5),
        (DURATION, 0, 0),
        (SIZE, "512MB", 512_000_000),
        (SIZE, "1GiB", 1 << 30),
        (SIZE, "1.5 kB", 1500),
        (SIZE, "2mib", 2 << 20),
        (SIZE, "100", 100),
        (SIZE, 100, 100),
        (Choice(("a", "b")), "b", "b"),
        (FilePath(), "/var/x", Path("/var/x")),
        (FilePath(), "~/x", Path("~/x").expanduser()),
        (PERMISSIONS, "0660", 0o660),
        (PERMISSIONS, "660", 0o660),
        (PERMISSIONS, "0o600", 0o600),
        (PERMISSIONS, 0o777, 0o777),
        (GroupName(), "whatsappd", "whatsappd"),
        (GroupName(), 33, "33"),
        (GroupName(), "", ""),
        (RedisUrl(), "redis://localhost/0", "redis://localhost/0"),
        (RedisUrl(), "", ""),
    ],
)
def test_toml_values(form: ValueFormat, value: Any, expected: Any) -> None:
    assert form.from_toml(value) == expected


@pytest.mark.parametrize(
    ("form", "value", "words"),
    [
        (Count(0, 10), 11, "out of range"),
        (Count(0, 10), -1, "out of range"),
        (Count(0, 10), "7", "remove the quotes"),
        (Count(0, 10), 7.0, "no whole number"),
        (Count(0, 10), True, "no whole number"),
        (DURATION, "soon", "no duration"),
        (DURATION, "", "no duration"),
        (DURATION, "5 parsecs", "no duration"),
        (DURATION, "-5s", "no duration"),
        (DURATION, "5m3", "no duration"),
        (DURATION, "9" * 400, "no duration"),
        (DURATION, -1, "out of range"),
        (DURATION, float("nan"), "no duration"),
        (DURATION, float("inf"), "no duration"),
        (DURATION, True, "no duration"),
        (DURATION, [], "no duration"),
        (Duration(1, 3600), "2h", "out of range"),
        (Duration(1000, 3_600_000, in_ms=True), "2h", "out of range"),
        (Duration(1000, 3_600_000, in_ms=True), "900ms", "out of range"),
        (SIZE, "12 parsecs", "no size"),
        (SIZE, "", "no size"),
        (SIZE, "9" * 400, "no size"),
        (SIZE, 1.5, "no size"),
        (SIZE, -1, "out of range"),
        (Choice(("a", "b")), "c", "none of the choices"),
        (Choice(("a", "b")), 1, "none of the choices"),
        (Choice(("a", "b")), ["a"], "none of the choices"),
        (FilePath(), "", "no path"),
        (FilePath(), "a\0b", "no path"),
        (FilePath(), 1, "no path"),
        (PERMISSIONS, 660, "no permissions"),  # decimal 660 is octal 1224
        (PERMISSIONS, 640, "no permissions"),
        (PERMISSIONS, 600, "no permissions"),
        (PERMISSIONS, "0888", "no octal"),
        (PERMISSIONS, "0044", "no permissions"),
        (PERMISSIONS, True, "no octal"),
        (GroupName(), "a b", "no group"),
        (GroupName(), -1, "no group"),
        (GroupName(), True, "no group"),
        (RedisUrl(), "http://x", "begin it with redis://"),
        (RedisUrl(), "redis://[::1", "no URL of a Redis"),
        (RedisUrl(), 6379, "no URL"),
    ],
)
def test_toml_values_that_are_refused(form: ValueFormat, value: Any, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        form.from_toml(value)


def test_texts_from_outside_the_file_need_no_types() -> None:
    assert Count(0, 10).from_text(" 7 ") == 7
    for text in ("seven", "7.0", "", "9" * 30):
        with pytest.raises(BadValue):
            Count(0, 10).from_text(text)


@given(st.integers(0, 10**11))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    written = DURATION.as_toml(milliseconds / 1000).strip('"')
    assert DURATION_MS.as_toml(milliseconds).strip('"') == written
    if milliseconds <= DURATION_MS.high:
        assert DURATION.from_text(written) == pytest.approx(milliseconds / 1000)
        assert DURATION_MS.from_text(written) == milliseconds


@given(st.integers(0, 10**15))
def test_a_size_survives_being_written(size: int) -> None:
    assert SIZE.from_text(SIZE.as_toml(size).strip('"')) == size


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for definition in DEFINITIONS.values():
        for parse in (definition.format.from_text, definition.format.from_toml):
            try:
                parse(text)
            except BadValue as error:
                assert str(error)  # noqa: PT017 - any other exception fails the test


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_toml_value_is_parsed_or_refused(value: Any) -> None:
    for definition in DEFINITIONS.values():
        try:
            definition.format.from_toml(value)
        except BadValue as error:
            assert str(error)  # noqa: PT017 - as above


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("redis://user:se@cret@host/0", "redis://user:***@host/0"),
        ("unix:///run/r.sock?db=0&password=secret&x=1", "unix:///run/r.sock?db=0&password=***&x=1"),
        ("redis://host/0", "redis://host/0"),
        ("redis://host:6379", "redis://host:6379"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://:se/cr#et wi?th@all@host/0", "redis://:***@host/0"),
        ("redis://user:se:cret", "redis://user:***"),
        ("redis://:1234secret", "redis://:***"),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert RedisUrl().as_toml(url) == f'"{shown}"'
