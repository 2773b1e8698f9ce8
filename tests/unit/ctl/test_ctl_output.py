"""How answers look, and how QR codes are drawn."""

from __future__ import annotations

import json

import pytest
import segno

from whatsappctl.output import age, in_time, json_text, number, session_line, shortened, table
from whatsappctl.qrcode import BORDER, drawn

SECOND = 1000
HOUR = 3600 * SECOND
NOW = 1_000_000 * HOUR


@pytest.mark.parametrize(
    ("ago_ms", "text"),
    [
        (0, "0s"),
        (59 * SECOND, "59s"),
        (180 * SECOND, "3m"),
        (HOUR, "1h"),
        (HOUR + 300 * SECOND, "1h 5m"),
        (24 * HOUR, "1d"),
        (97 * HOUR, "4d 1h"),
        (-5 * SECOND, "0s"),
    ],
)
def test_ages(ago_ms: int, text: str):
    assert age(NOW - ago_ms, now_ms=NOW) == text


def test_never():
    assert age(None) == in_time(None) == number(None) == "-"


def test_times_ahead():
    assert in_time(NOW + 12_500, now_ms=NOW) == "in 12s"
    assert in_time(NOW + 300, now_ms=NOW) == "now"
    assert in_time(NOW - 300, now_ms=NOW) == "now"


@pytest.mark.parametrize(
    ("jid", "text"),
    [
        ("15550100:3@s.whatsapp.net", "+15550100"),
        ("15550100@s.whatsapp.net", "+15550100"),
        ("99:1@lid", "99@lid"),
        ("1234-5678@g.us", "1234-5678@g.us"),
    ],
)
def test_numbers(jid: str, text: str):
    assert number(jid) == text


def test_json_is_one_line_for_every_reader_and_keeps_the_value():
    value = {"text": "a\x9b2J\x85b\u2028c\u202e", "name": "Zoë"}
    line = json_text(value)
    assert line.splitlines() == [line]
    assert line.isprintable()
    assert "Zoë" in line
    assert json.loads(line) == value


def test_tables_line_up():
    assert table(("A", "LONG"), [("wide", 1), ("x", "free text")]) == (
        "A     LONG\nwide  1\nx     free text"
    )
    assert table(("A", "LONG"), [("名前", 1), ("e\u0301x", 2), ("\x1b", 3)]) == (
        "A     LONG\n名前  1\ne\u0301x    2\n\\x1b  3"
    )


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("short", "short"),
        ("exactly ten", "exactly t…"),
        ("名前名前名", "名前名前名"),
        ("名前名前名前", "名前名前…"),
        ("\x1b\x1b\x1b", "\\x1b\\x1b\\…"),
        ("x" * 65536, "x" * 9 + "…"),
    ],
)
def test_a_long_text_is_shortened_to_columns(text: str, short: str):
    assert shortened(text, 10) == short


def test_a_session_in_one_line():
    status = {"company": "acme", "state": "backing_off", "cause": "no such host"}
    assert session_line(status) == "acme: backing_off (no such host)"


@pytest.mark.parametrize("color", [True, False])
def test_a_drawn_code_is_the_code(color: bool):
    """Read the half blocks back into modules."""
    text = "https://wa.me/settings/linked_devices#2@" + "x" * 180
    dark = {" ": "00", "▄": "01", "▀": "10", "█": "11"}
    light = {" ": "11", "▄": "10", "▀": "01", "█": "00"}
    rows: list[list[int]] = []
    for line in drawn(text, color=color).splitlines():
        bare = line.removeprefix("\x1b[38;5;16;48;5;231m").removesuffix("\x1b[0m")
        pairs = [(dark if color else light)[block] for block in bare]
        rows += [[int(pair[0]) for pair in pairs], [int(pair[1]) for pair in pairs]]
    wanted = [list(row) for row in segno.make(text, error="l").matrix_iter(border=BORDER)]
    assert rows[: len(wanted)] == wanted
