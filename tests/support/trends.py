"""Whether a quantity grows: a straight line through its samples, with its uncertainty. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

#: With fewer samples the interval would say more about chance than about the quantity.
FEWEST = 8
_Z = statistics.NormalDist().inv_cdf(0.975)


class Trend(NamedTuple):
    """A slope, and the interval that holds it with 95 % confidence; per unit of the first axis.

    The interval takes the deviations from the line as independent of each other. Those of memory
    are not quite (it grows in steps), so a bound close to 0 is no verdict by itself.
    """

    slope: float
    low: float
    high: float
    level: float  # the line's value in the middle of the samples

    @property
    def grows(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """The least-squares line through `values` over `times`.

    Raises:
        ValueError: there are fewer than `FEWEST` samples, or all are of one time.
    """
    count = len(times)
    if count < FEWEST:
        raise ValueError(f"{count} samples are too few for a trend; it takes {FEWEST}")
    middle, level = statistics.fmean(times), statistics.fmean(values)
    spread = sum((time - middle) ** 2 for time in times)
    if not spread:
        raise ValueError("all samples are of the same time")
    pairs = list(zip(times, values, strict=True))
    slope = sum((time - middle) * (value - level) for time, value in pairs) / spread
    residual = sum((value - level - slope * (time - middle)) ** 2 for time, value in pairs)
    error = math.sqrt(residual / (count - 2) / spread)
    margin = _student(count - 2) * error
    return Trend(slope, slope - margin, slope + margin, level)


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (Abramowitz and Stegun, 26.7.5): from 6 degrees of
    freedom on, exact to three digits."""
    z = _Z
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
    )
