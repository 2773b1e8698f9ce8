"""The three ways to show a guide, on one small guide and on all real ones."""

from __future__ import annotations

import re

import pytest

from whatsappd.manual.as_html import as_html
from whatsappd.manual.as_roff import as_roff
from whatsappd.manual.as_terminal import as_terminal
from whatsappd.manual.parsed import column_widths
from whatsappd.manual.topics import TOPICS, read

GUIDE = """\
# Parcels

For sending *one* parcel. See [boxes](boxes.md#big ones), [below](#the-way) and
[the post](https://post.example).

## The way

<!-- test:parcel -->
```sh
parcel send --to "Ann" <file
```

1. `parcel pack`
2. **Send** it, with
   - a stamp
   - a name

| state | meaning |
|---|---|
| `sent` | it left |
| `lost` | nobody knows |
"""

PLAIN = """\
Parcels
=======

For sending one parcel. See boxes (help boxes), below and the post
<https://post.example>.

The way
-------

    parcel send --to "Ann" <file

1. `parcel pack`

2. Send it, with

   - a stamp
   - a name

state   meaning
------  ------------
`sent`  it left
`lost`  nobody knows
"""


def guide() -> str:
    return GUIDE.replace("#big ones", "")


def test_plain_text() -> None:
    assert as_terminal(guide(), width=70) == PLAIN


def test_on_a_terminal_type_takes_the_place_of_marks() -> None:
    shown = as_terminal(guide(), width=70, styled=True)
    assert "\x1b[1mParcels\x1b[0m" in shown
    assert "\x1b[36mparcel pack\x1b[0m" in shown
    assert "===" not in shown
    without = re.sub(r"\x1b\[\d+m", "", shown)
    assert without.splitlines()[-1] == "lost   nobody knows"


def test_a_table_that_is_too_wide_for_columns_becomes_records() -> None:
    wide = "| name | default | meaning |\n|---|---|---|\n" + (
        f"| `{'n' * 40}` | `{'d' * 40}` | {'word ' * 20}|\n" * 2
    )
    assert 'class="records"' in as_html(wide)
    shown = as_terminal(wide, width=60)
    assert shown.startswith(f"`{'n' * 40}`\n    default: `{'d' * 40}`\n    word word")
    assert max(map(len, shown.splitlines())) <= 60


def test_columns_are_cut_to_what_there_is_room_for() -> None:
    assert column_widths([("a", "b")], 80) == [1, 1]
    assert column_widths([("name", "word " * 30)], 40) == [4, 34]
    assert column_widths([("x" * 30, "y" * 30)], 50) is None
    assert column_widths([("word " * 30, "word " * 30, "word " * 30)], 60) is None


def test_html_has_anchors_and_links_to_other_guides() -> None:
    shown = as_html(guide())
    assert '<h2 id="the-way">The way</h2>' in shown
    assert '<a href="boxes">boxes</a>' in shown
    assert "&lt;file" in shown
    assert "<!--" not in shown
    assert '<div class="wide"><table class="columns2">' in shown
    assert '<td data-title="meaning">it left</td>' in shown


def test_roff_escapes_what_commands_it() -> None:
    shown = as_roff(
        "# X\n\nFor x.\n\n.start \\ of\n'line\n\n```\n.nf 'a' --b\n```\n",
        name="x-y", about="about it", version="1",
    )  # fmt: skip
    assert "\n\\&.start \\e of 'line\n" in shown
    assert "\n\\&.nf \\(aqa\\(aq \\-\\-b\n" in shown
    assert "\nx\\-y \\- about it\n" in shown.replace("x-y \\-", "x\\-y \\-")


@pytest.mark.parametrize("topic", TOPICS)
def test_each_guide_fits_80_columns(topic: str) -> None:
    for line in as_terminal(read(topic)).splitlines():
        assert len(line) <= 80 or "http" in line, line


@pytest.mark.parametrize("topic", TOPICS)
def test_each_guide_can_be_shown_in_all_ways(topic: str) -> None:
    assert "\x1b[1m" in as_terminal(read(topic), width=40, styled=True)
    assert as_html(read(topic)).startswith("<h1 id=")
    assert ".TH" in as_roff(read(topic), name=topic, about="x", version="1")
