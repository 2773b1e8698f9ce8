"""The pause after a 463, by any clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whatsappd.model.durations import DAY_MS
from whatsappd.rules.outreach_pause import FIRST_PAUSE_MS, LONGEST_PAUSE_MS, OutreachPause

NOW = 1_700_000_000_000


def test_a_pause_lasts_and_ends_and_grows_with_each_strike() -> None:
    pause = OutreachPause().struck(NOW)
    assert pause.is_on(NOW)
    assert not pause.is_on(NOW + FIRST_PAUSE_MS)
    again = pause.struck(NOW + FIRST_PAUSE_MS)
    assert again.is_on(NOW + 3 * FIRST_PAUSE_MS - 1)
    assert pause.struck(NOW + 3 * DAY_MS).strikes == 1


@given(ahead_ms=st.integers(0, 10**13), strikes=st.integers(1, 10))
def test_a_clock_that_was_ahead_pauses_nobody_for_longer(ahead_ms: int, strikes: int) -> None:
    pause = OutreachPause()
    for _ in range(strikes):
        pause = pause.struck(NOW + ahead_ms)
    assert not pause.is_on(NOW) or pause.until_ms <= NOW + LONGEST_PAUSE_MS
