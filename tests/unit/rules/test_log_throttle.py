"""A stranger causes some log lines, and no more."""

from __future__ import annotations

from whatsappd.rules.bounds import MAX_PACED, PaceBound
from whatsappd.rules.log_throttle import LogThrottle

EACH = PaceBound("each", "lines", burst=3, per_second=0.5)
ALL = PaceBound("all", "lines", burst=10, per_second=5.0)


def test_the_first_lines_are_written_and_later_ones_tell_how_many_were_not():
    lines = LogThrottle(EACH, ALL)
    told = [lines.left_out("unauthorized", "192.0.2.1", now=0.0) for _ in range(10)]
    assert told == [0, 0, 0, *[None] * 7]
    assert lines.left_out("unauthorized", "192.0.2.1", now=1.0) is None
    assert lines.left_out("unauthorized", "192.0.2.1", now=2.1) == 8
    assert lines.left_out("unauthorized", "192.0.2.1", now=60.0) == 0
    assert lines.total_left_out == 8


def test_kinds_and_holders_are_counted_apart():
    lines = LogThrottle(EACH, ALL)
    for _ in range(5):
        lines.left_out("unauthorized", "192.0.2.1", now=0.0)
    assert lines.left_out("unauthorized", "192.0.2.2", now=0.0) == 0
    assert lines.left_out("malformed", "192.0.2.1", now=0.0) == 0


def test_many_addresses_together_have_a_bound_too():
    lines = LogThrottle(EACH, ALL)
    written = sum(
        lines.left_out("unauthorized", f"2001:db8::{number:x}", now=number / 10_000) is not None
        for number in range(100_000)
    )
    assert written <= ALL.burst + 10 * ALL.per_second + 1
    assert lines.total_left_out == 100_000 - written
    assert len(lines._left_out) <= MAX_PACED
