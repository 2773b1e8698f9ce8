"""Lines that a stranger causes are few, however many times they try; none is lost uncounted."""

from __future__ import annotations

import structlog
import trio

from whatsappd.gateway.limited_log import LimitedLog
from whatsappd.rules.bounds import PaceBound

EACH = PaceBound("each", "lines", burst=10, per_second=2.0)
ALL = PaceBound("all", "lines", burst=25, per_second=2.0)


async def test_what_is_beyond_the_budget_is_counted_and_told(autojump_clock) -> None:
    log = LimitedLog(each=EACH, all=ALL)
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            log.info("request_refused", status=401, address="192.0.2.1")
        log.info("connection_refused", address="192.0.2.1")  # a budget of its own
        log.info("request_refused", address="192.0.2.2")  # so has another's line
        assert len(lines) == 12
        await trio.sleep(1)
        for _ in range(10):
            log.info("request_refused", status=401, address="192.0.2.1")
    assert len(lines) == 14
    assert lines[12]["left_out"] == 990
    assert "left_out" not in lines[13]


async def test_many_addresses_have_a_budget_together(autojump_clock) -> None:
    log = LimitedLog(each=EACH, all=ALL)
    with structlog.testing.capture_logs() as lines:
        for number in range(1000):
            log.info("request_refused", address=f"2001:db8::{number:x}")
    assert len(lines) == ALL.burst
