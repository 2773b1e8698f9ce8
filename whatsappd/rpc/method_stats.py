"""How often a method was called, how it ended, and how long it took.

The server counts on every request, so this costs about half a microsecond: no lock, because all
of it happens in trio's thread, and no metrics library. `monitoring` reads it when asked.
"""

from __future__ import annotations

from bisect import bisect_left

#: Upper bounds of the histogram's buckets, in seconds; the last bucket has none. A plain handler
#: takes tens of microseconds, one that writes a few milliseconds, and one that was told to wait
#: for something as long as its caller likes.
BOUNDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)


class Tally:
    """One method's figures since the daemon started."""

    __slots__ = ("counts", "errors", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)  # by bucket, not cumulated
        self.seconds = 0.0
        self.errors: dict[str, int] = {}  # by the error's name

    def took(self, seconds: float) -> None:
        """Counts a request that was answered, also with an error."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def failed(self, name: str) -> None:
        self.errors[name] = self.errors.get(name, 0) + 1

    @property
    def requests(self) -> int:
        return sum(self.counts)
