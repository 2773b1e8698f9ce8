"""Backoff with full jitter, and restart intensity."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whatsappd.rules.backoff import RestartIntensity, full_jitter


def test_the_longest_wait_doubles_up_to_the_cap() -> None:
    almost_one = 1 - 2**-53
    waits = [
        full_jitter(attempt, base_ms=1000, cap_ms=60_000, chance=almost_one) for attempt in range(9)
    ]
    assert [round(wait, -1) for wait in waits] == [
        1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000,
    ]  # fmt: skip


@given(
    st.integers(0, 10**6),
    st.integers(1, 10**5),
    st.integers(1, 10**7),
    st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_within_nothing_and_the_cap(
    attempt: int, base: int, cap: int, chance: float
) -> None:
    wait = full_jitter(attempt, base_ms=base, cap_ms=cap, chance=chance)
    assert 0 <= wait <= cap
    assert full_jitter(attempt, base_ms=base, cap_ms=cap, chance=0.0) == 0


def test_more_restarts_than_the_limit_within_the_window_are_too_many() -> None:
    intensity = RestartIntensity(3, 1000)
    assert [intensity.exceeded(now) for now in (0, 100, 200, 300)] == [False, False, False, True]
    intensity.clear()
    assert not intensity.exceeded(301)


def test_restarts_spread_wider_than_the_window_go_on_for_ever() -> None:
    intensity = RestartIntensity(3, 1000)
    assert not any(intensity.exceeded(now) for now in range(0, 100_000, 334))


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 5), st.integers(1, 200))
def test_intensity_agrees_with_counting(steps: list[int], limit: int, window: int) -> None:
    intensity = RestartIntensity(limit, window)
    times: list[int] = []
    now = 0
    for step in steps:
        now += step
        times.append(now)
        recent = sum(1 for time in times if now - time < window)
        assert intensity.exceeded(now) == (recent > limit)
