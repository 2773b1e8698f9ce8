"""Whether the host went down since an attempt is told by its boot, not by its clock."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import trio

from whatsappd.clock import now_ms
from whatsappd.engines.port import AttemptEvidence
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage
from whatsappd.model.message import OutboxState as S
from whatsappd.sessions.handover import settle_cut_off
from whatsappd.store.port import Handover
from whatsappd.store.sqlite.database import Database
from whatsappd.store.sqlite.event_log import SqliteEventLog
from whatsappd.store.sqlite.outbox import SqliteOutbox, open_outbox

YEAR_MS = 365 * 86_400_000
NEW = NewMessage("acme", "15550100@s.whatsapp.net", Text("1"))


async def sending(outbox: SqliteOutbox) -> Handover:
    row, _ = await outbox.submissions.accept(NEW, 100)
    return await outbox.handovers.begin(row.id)


async def settled(outbox: SqliteOutbox, attempt: Handover) -> S:
    """What becomes of the attempt if the account's database has no trace of it."""

    async def find(_secrets: Collection[bytes]) -> AttemptEvidence:
        return AttemptEvidence({}, proves_absence=True)

    with trio.fail_after(30):
        await settle_cut_off(
            outbox.handovers,
            "acme",
            await outbox.handovers.interrupted("acme"),
            find,
            retry_s=0.01,
        )
    return (await outbox.view.get(attempt.row.id)).state


@pytest.mark.parametrize("ahead_ms", [0, YEAR_MS, -YEAR_MS])
@pytest.mark.parametrize(
    ("boot_now", "expected"), [("before", S.QUEUED), ("after", S.UNCERTAIN)], ids=["same", "other"]
)
async def test_absence_proves_nothing_once_the_host_went_down_whatever_its_clock_said(
    database: Database, log: SqliteEventLog, boot_now: str, expected: S, ahead_ms: int
) -> None:
    before = await open_outbox(database, log, clock=lambda: now_ms() + ahead_ms, boot="before")
    attempt = await sending(before)
    now = await open_outbox(database, log, clock=now_ms, boot=boot_now)
    assert await settled(now, attempt) == expected


async def test_an_attempt_of_an_older_version_counts_as_one_of_another_boot(
    database: Database, log: SqliteEventLog
) -> None:
    outbox = await open_outbox(database, log)
    attempt = await sending(outbox)
    await database.write(lambda conn: conn.execute("UPDATE outbox SET boot_id = NULL"))
    assert await settled(outbox, attempt) == S.UNCERTAIN
