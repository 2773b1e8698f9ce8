"""Who waits for an answer."""

from __future__ import annotations

import pytest

from whatsappd.rules.priority import REPLY_WINDOW_MS, is_answer

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
    assert is_answer(wrote_ms, NOW) is expected
