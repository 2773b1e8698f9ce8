"""Which of many equal things the log is told of."""

from __future__ import annotations


def is_milestone(count: int) -> bool:
    """Whether a count is 1, 10, 100, …: others can repeat what is counted as often as they like."""
    while count >= 10 and count % 10 == 0:
        count //= 10
    return count == 1
