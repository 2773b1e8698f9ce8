"""The sliding window is exact: never more than the limit, never fewer than allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whatsappd.rules.sliding_window import SlidingWindow

STEPS = st.lists(st.integers(0, 60), max_size=200)
LIMITS = st.integers(1, 8)
PERIODS = st.integers(1, 200)


def count(times: list[int], now: int, period: int) -> int:
    return sum(1 for time in times if now - period < time <= now)


@given(STEPS, LIMITS, PERIODS)
def test_it_refuses_exactly_when_the_window_is_full(
    steps: list[int], limit: int, period: int
) -> None:
    window = SlidingWindow(limit, period)
    passed: list[int] = []
    now = 0
    for step in steps:
        now += step
        wait = window.check(now)
        assert (wait == 0) == (count(passed, now, period) < limit)
        if wait == 0:
            window.record(now)
            passed.append(now)
    # Any window of that length, wherever it ends, holds at most the limit.
    assert all(count(passed, end, period) <= limit for end in passed)


@given(STEPS, LIMITS, PERIODS)
def test_the_wait_it_names_is_the_shortest(steps: list[int], limit: int, period: int) -> None:
    window = SlidingWindow(limit, period)
    passed: list[int] = []
    now = 0
    for step in steps:
        now += step
        wait = window.check(now)
        assert 0 <= wait <= period
        if wait:
            assert count(passed, now + wait - 1, period) >= limit
            now += wait
            assert window.check(now) == 0
        window.record(now)
        passed.append(now)


@given(STEPS, LIMITS, LIMITS, PERIODS)
def test_the_limit_can_change_at_any_time(
    steps: list[int], first: int, second: int, period: int
) -> None:
    window = SlidingWindow(first, period)
    passed: list[int] = []
    now = 0
    for index, step in enumerate(steps):
        now += step
        window.limit = first if index % 20 < 10 else second
        wait = window.check(now)
        assert (wait == 0) == (count(passed, now, period) < window.limit)
        if wait == 0:
            window.record(now)
            passed.append(now)
        else:
            assert count(passed, now + wait, period) < window.limit


@given(st.lists(st.integers(-500, 500), max_size=100), LIMITS, PERIODS)
def test_a_clock_that_jumps_closes_it_for_one_period_at_most(
    steps: list[int], limit: int, period: int
) -> None:
    window = SlidingWindow(limit, period)
    now = 10**6
    for step in steps:
        now += step
        wait = window.check(now)
        assert 0 <= wait <= period
        if wait == 0:
            window.record(now)
        assert len(window._times) <= limit
    assert window.check(now + period) == 0


def test_a_limit_of_zero_lets_nothing_pass() -> None:
    window = SlidingWindow(0, 1000)
    assert window.check(5) == 1000


def test_it_knows_when_it_can_be_forgotten() -> None:
    window = SlidingWindow(2, 1000)
    assert window.is_empty(0)
    window.record(10)
    assert not window.is_empty(1009)
    assert window.is_empty(1010)
