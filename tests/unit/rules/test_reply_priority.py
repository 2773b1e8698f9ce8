"""A message is a reply for a day after its recipient wrote."""

from __future__ import annotations

import pytest

from whatsappd.rules.reply_priority import REPLY_WINDOW_MS, is_reply_to

NOW = 10 * REPLY_WINDOW_MS


@pytest.mark.parametrize(
    ("wrote_ms", "expected"),
    [
        (0, False),  # never
        (NOW, True),
        (NOW - REPLY_WINDOW_MS + 1, True),
        (NOW - REPLY_WINDOW_MS, False),
        (NOW + 1000, True),  # the clock was set back a little
        (NOW + REPLY_WINDOW_MS, False),  # it had been far ahead
    ],
)
def test_a_day_counts(wrote_ms: int, expected: bool) -> None:
    assert is_reply_to(wrote_ms, NOW) is expected
