"""The line through samples, against textbook values and against chance."""

from __future__ import annotations

import random

import pytest
import trends
from trends import FEWEST, trend

#: Student's t, 97.5 %, from the tables.
TABLE = {6: 2.447, 8: 2.306, 10: 2.228, 20: 2.086, 30: 2.042, 60: 2.000, 120: 1.980}


@pytest.mark.parametrize(("freedom", "quantile"), TABLE.items())
def test_the_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert trends._student(freedom) == pytest.approx(quantile, abs=0.001)


def test_a_straight_line_is_found_exactly() -> None:
    times = range(10)
    found = trend(times, [3 + 2 * time for time in times])
    assert found == pytest.approx((2, 2, 2, 12))
    assert found.grows


def test_a_worked_example() -> None:
    # Residuals alternate between -1 and +1 around a slope of 0.5 (nearly: they lean a little).
    times = [0, 1, 2, 3, 4, 5, 6, 7]
    values = [time / 2 + (1 if time % 2 else -1) for time in times]
    found = trend(times, values)
    # By hand: Sxx = 42, Sxy = 21 + 4, s² = (8 - 4²/42)/6, t(6) = 2.447.
    assert found.slope == pytest.approx(25 / 42)
    error = ((8 - 16 / 42) / 6 / 42) ** 0.5
    assert found.high - found.slope == pytest.approx(2.447 * error, rel=0.001)
    assert found.slope - found.low == pytest.approx(found.high - found.slope)


def test_what_stays_the_same_does_not_grow() -> None:
    assert not trend(range(20), [7] * 20).grows
    assert not trend(range(20), range(20, 0, -1)).grows


def test_the_interval_holds_the_true_slope_19_times_out_of_20() -> None:
    chance = random.Random(5)
    held = 0
    for _ in range(1000):
        values = [0.3 * time + chance.gauss(0, 4) for time in range(12)]
        held += trend(range(12), values).low <= 0.3 <= trend(range(12), values).high
    assert 930 <= held <= 970


def test_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        trend(range(FEWEST - 1), range(FEWEST - 1))
    with pytest.raises(ValueError, match="same time"):
        trend([1] * FEWEST, range(FEWEST))
