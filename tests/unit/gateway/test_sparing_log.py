"""Lines that a stranger causes are few, however many times they try; none is lost uncounted."""

from __future__ import annotations

import structlog
import trio

from whatsappd.gateway.sparing_log import SparingLog


async def test_what_is_beyond_the_budget_is_counted_and_told(autojump_clock) -> None:
    log = SparingLog(burst=10, per_second=2)
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            log.info("request_refused", status=401)
        log.info("connection_refused")  # a budget of its own
        assert [line["event"] for line in lines].count("request_refused") == 10
        assert lines[-1]["event"] == "connection_refused"
        await trio.sleep(1)
        for _ in range(10):
            log.info("request_refused", status=401)
    assert len(lines) == 13
    assert lines[11]["left_out"] == 990
    assert "left_out" not in lines[12]
