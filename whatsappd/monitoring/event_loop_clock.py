"""Measures how long the event loop keeps everything waiting, without waking it up.

A trio instrument sees each pass of the loop begin and end. While a pass lasts, nothing else gets
its turn: the longest pass is the delay that the unluckiest request had.
"""

from __future__ import annotations

from time import perf_counter

import trio


class LoopClock(trio.abc.Instrument):
    """Install it with `trio.lowlevel.add_instrument`. Costs about a microsecond a pass."""

    def __init__(self) -> None:
        self._began = perf_counter()
        #: Seconds spent in passes, since the start: how busy the loop is.
        self.busy_s = 0.0
        self._longest_s = 0.0

    def after_io_wait(self, timeout: float) -> None:
        self._began = perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        took = perf_counter() - self._began
        self.busy_s += took
        if took > self._longest_s:  # noqa: PLR1730 - max() takes twice as long
            self._longest_s = took

    @property
    def longest_s(self) -> float:
        """The longest pass since `take_longest` was called last."""
        return self._longest_s

    def take_longest(self) -> float:
        """`longest_s`, to begin anew."""
        longest, self._longest_s = self._longest_s, 0.0
        return longest
