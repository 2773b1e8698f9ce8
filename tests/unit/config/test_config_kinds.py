"""How values may be written, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.config.definitions import DEFINITIONS
from whatsappd.config.kinds import (
    Account,
    Choice,
    Count,
    Duration,
    FilePath,
    Kind,
    Mode,
    RedisUrl,
    Refused,
    Size,
    masked,
)

DURATION = Duration("0s", "1000d")
SIZE = Size("0B", "1000TB")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
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
        (Mode(), "0660", 0o660),
        (Mode(), "660", 0o660),
        (Mode(), "0o600", 0o600),
        (Mode(), 0o777, 0o777),
        (Account(), "whatsappd", "whatsappd"),
        (Account(), 33, "33"),
        (Account(), "", ""),
        (RedisUrl(), "redis://localhost/0", "redis://localhost/0"),
        (RedisUrl(), "", ""),
    ],
)
def test_toml_values(kind: Kind, value: Any, expected: Any) -> None:
    assert kind.from_toml(value) == expected


@pytest.mark.parametrize(
    ("kind", "value", "words"),
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
        (Duration("1s", "1h"), "2h", "out of range"),
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
        (Mode(), 660, "no permissions"),  # decimal 660 is octal 1224
        (Mode(), 640, "no permissions"),
        (Mode(), 600, "no permissions"),
        (Mode(), "0888", "no octal"),
        (Mode(), "0044", "no permissions"),
        (Mode(), True, "no octal"),
        (Account(), "a b", "no group"),
        (Account(), -1, "no group"),
        (Account(), True, "no group"),
        (RedisUrl(), "http://x", "begin it with redis://"),
        (RedisUrl(), "redis://[::1", "no URL of a Redis"),
        (RedisUrl(), 6379, "no URL"),
    ],
)
def test_toml_values_that_are_refused(kind: Kind, value: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        kind.from_toml(value)


def test_texts_from_outside_the_file_need_no_types() -> None:
    assert Count(0, 10).from_text(" 7 ") == 7
    for text in ("seven", "7.0", "", "9" * 30):
        with pytest.raises(Refused):
            Count(0, 10).from_text(text)


@given(st.integers(0, 10**11))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    written = DURATION.as_toml(milliseconds / 1000).strip('"')
    if milliseconds <= 1000 * 86_400_000:
        assert DURATION.from_text(written) == pytest.approx(milliseconds / 1000)


@given(st.integers(0, 10**15))
def test_a_size_survives_being_written(size: int) -> None:
    assert SIZE.from_text(SIZE.as_toml(size).strip('"')) == size


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for definition in DEFINITIONS.values():
        for parse in (definition.setting.kind.from_text, definition.setting.kind.from_toml):
            try:
                parse(text)
            except Refused as error:
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
            definition.setting.kind.from_toml(value)
        except Refused as error:
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
