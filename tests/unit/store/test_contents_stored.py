"""Contents on disk: rows of older versions go on, and two contents are the same or they are not."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from older_database import older_database

from whatsappd.errors import KeyConflict
from whatsappd.model.content import MAX_TEXT, Text
from whatsappd.model.message import NewMessage, OutboxState
from whatsappd.store.sqlite import outbox_rows
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.outbox import open_outbox

CHAT = "15550100@s.whatsapp.net"
#: The last schema whose rows had a text.
OLDER_SCHEMA = 19
TEXTS = [
    "Hello", 'quotes " and \\ and /', "a\0b\x01\x1f\x7f\n\t\r", "Grüße 👍 \u2028\u2029\ufeff\ufffe",
    '{"kind": "text", "text": "JSON"}', "'); DROP TABLE outbox; --", "\U0001f600" * MAX_TEXT, " ",
]  # fmt: skip


@pytest.fixture
def older(path: Path) -> Path:
    """A database of an older version, with a queued row for each text, and one that was sent."""
    with older_database(path, OLDER_SCHEMA) as conn:
        conn.execute("INSERT INTO companies (company, wanted, created_ms) VALUES ('acme', 1, 1)")
        for number, text in enumerate([*TEXTS, "was sent"], 1):
            state = "sent" if text == "was sent" else "queued"
            conn.execute(
                "INSERT INTO outbox (id, company, chat, text, key, state, attempts, not_before_ms,"
                " on_uncertain, created_ms, updated_ms, lost_attempts)"
                " VALUES (?, 'acme', ?, ?, ?, ?, 0, 0, 'ask', 1, 1, 0)",
                (number, CHAT, text, f"key{number}", state),
            )
    return path


async def test_rows_of_an_older_version_are_listed_sent_and_recognised(older: Path) -> None:
    async with open_database(older) as database:
        outbox = await open_outbox(database, await open_event_log(database))
        waiting = await outbox.handovers.pending("acme", 100)
        assert [row.content for row in waiting] == [Text(text) for text in TEXTS]
        listed = await outbox.view.list_rows("acme", after="0" * 16)
        assert [row.text for row in listed] == [*TEXTS, "was sent"]
        assert listed[-1].state is OutboxState.SENT
        for number, text in enumerate(TEXTS, 1):
            again = NewMessage("acme", CHAT, Text(text), f"key{number}")
            row, is_new = await outbox.submissions.accept(again, 1000)
            assert (row.id, is_new) == (f"{number:016x}", False)
            with pytest.raises(KeyConflict):
                await outbox.submissions.accept(again._replace(content=Text("other")), 1000)
        handover = await outbox.handovers.begin(waiting[0].id)
        assert handover.row.content.as_wire() == {"kind": "text", "text": "Hello"}


async def test_a_content_comes_back_as_it_was_and_its_kind_is_a_column(path: Path) -> None:
    async with open_database(path) as database:
        outbox = await open_outbox(database, await open_event_log(database))
        for text in TEXTS:
            row, _ = await outbox.submissions.accept(NewMessage("acme", CHAT, Text(text)), 1000)
            assert await outbox.view.get(row.id) == row
            assert row.content == Text(text)
    with contextlib.closing(sqlite3.connect(path)) as conn:
        found = conn.execute("SELECT kind, CAST(content AS BLOB) FROM outbox ORDER BY id")
        assert found.fetchall() == [("text", outbox_rows.packed(Text(text))) for text in TEXTS]


async def test_bytes_of_older_rows_count_as_those_of_new_ones(older: Path) -> None:
    async with open_database(older) as database:
        outbox = await open_outbox(database, await open_event_log(database))
        for row in await outbox.handovers.pending("acme", 100):
            await outbox.handovers.begin(row.id)
            await outbox.handovers.acknowledge(row.id, row.id, 1)
        [company, caller] = outbox.view.report_bytes()
        assert (company["held"], caller["held"]) == (0, 0)
