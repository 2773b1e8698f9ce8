"""History is deleted when it is old, and not because a clock is wrong when the host comes up."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from whatsappd.clock import now_ms
from whatsappd.model.event import Draft
from whatsappd.sessions.housekeeping import Housekeeping
from whatsappd.sessions.settings import RetentionSettings
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.outbox import open_outbox

DAY_MS = 24 * 3600 * 1000
KEPT = RetentionSettings(
    events_max_age_ms=DAY_MS // 2, events_max_company_bytes=0, events_max_bytes=0
)


@pytest.mark.parametrize(
    ("newest_ms", "left"),
    [(60_000, 1), (40 * DAY_MS, 2)],
    ids=["written a minute ago", "nothing written for forty days"],
)
async def test_nothing_is_deleted_by_a_clock_that_has_jumped(
    tmp_path: Path, newest_ms: int, left: int
) -> None:
    times = iter([now_ms() - newest_ms - DAY_MS, now_ms() - newest_ms])
    async with open_database(tmp_path / "whatsappd.db") as database:
        log = await open_event_log(database, clock=lambda: next(times))
        for number in range(2):
            await log.append(Draft("acme", "session.state", {"number": number}))
    async with open_database(tmp_path / "whatsappd.db") as database:
        log = await open_event_log(database)
        housekeeping = Housekeeping(log, await open_outbox(database, log), KEPT)
        with trio.move_on_after(0.5):
            await housekeeping.retain()
        assert len((await log.read(0, 9)).events) == left
