"""What people wrote can neither command a terminal nor break a line."""

from __future__ import annotations

import json
import sys
import unicodedata
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsappd.wire.escape import printable, safe_json

EVERY_CHARACTER = [chr(code) for code in range(sys.maxunicode + 1)]
any_text = st.text(st.characters(exclude_categories=()))

HARMLESS = [
    "Grüße 👍",
    "à 10\u00a0h, 全角\u3000空白",
    "می\u200cخواهم",  # Persian: a non-joiner between letters
    "क्\u200dष",  # Hindi: a joiner
    "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥",  # a family, a heart on fire
    'back\\slash "quotes"',
]
ENDS_OF_LINES = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_stays_as_it_is(text: str):
    assert printable(text) == text
    assert json.dumps(text, ensure_ascii=False) == safe_json(json.dumps(text, ensure_ascii=False))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J\nb", "a\\x1b[2J\\nb"),
        ("\x9b31m", "\\x9b31m"),  # what begins a command in one character (C1)
        ("\x7f", "\\x7f"),
        ("invoice\u202egpj.exe", "invoice\\u202egpj.exe"),
        ("\u2066a\u2069\u200e\u200f\u061c", "\\u2066a\\u2069\\u200e\\u200f\\u061c"),
        ("a\x85b\u2028c\u2029d", "a\\x85b\\u2028c\\u2029d"),
        ("\ud800", "\\ud800"),
        ("ac\u200bme ac\u200dme\ufeff", "ac\\u200bme ac\\u200dme\\ufeff"),
        ("\u200d👍\u200c", "\\u200d👍\\u200c"),  # joiners that join nothing
        ("\U000e0041", "\\U000e0041"),
        ("\U000e0101", "\\U000e0101"),
        ("\u3164\u115f\uffa0", "\\u3164\\u115f\\uffa0"),
    ],
)
def test_what_is_unsafe_is_escaped(text: str, shown: str):
    assert printable(text) == shown
    in_json = safe_json(json.dumps({"text": text}, ensure_ascii=False))
    assert in_json.isprintable()
    assert json.loads(in_json) == {"text": text}


def test_no_control_no_mark_and_no_end_of_a_line_is_left_in_any_character_of_unicode():
    allowed = {"\u200c", "\u200d"}  # between characters that need them
    for character in EVERY_CHARACTER:
        category = unicodedata.category(character)
        if category in ("Lo", "Cn", "Co"):  # nearly all of them
            continue
        invisible = category in ("Cc", "Cs", "Zl", "Zp")
        turns = unicodedata.bidirectional(character) in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
        )
        if invisible or turns:
            assert printable(character) != character, hex(ord(character))
        if category == "Cf" and character not in allowed:
            kept = printable(character) == character
            # Those of Arabic, Syriac, Kaithi and hieroglyphs are seen, as signs around numbers.
            assert not kept or unicodedata.name(character).startswith(
                ("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN")
            ), hex(ord(character))


@given(any_text)
def test_json_keeps_the_value_on_one_line(text: str):
    line = safe_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(line) == [text]
    assert len(line.splitlines()) == 1
    assert line.encode()  # no half of a pair is left
    assert not set(line) & set(ENDS_OF_LINES)


@given(any_text)
def test_text_for_people_is_one_line(text: str):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert shown.encode() is not None
    assert printable(shown) == shown


@pytest.mark.parametrize("unit", ["\x1b", "\u200d", "é\u200d", "\u202e\u2066", "क\u200d", "é"])
def test_64_kilobytes_of_anything_take_no_time(unit: str):
    text = unit * (65536 // len(unit))
    line = json.dumps(text, ensure_ascii=False)
    began = process_time()
    printable(text)
    safe_json(line)
    assert process_time() - began < 2.0
