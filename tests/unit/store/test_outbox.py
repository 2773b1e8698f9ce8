"""The outbox: accepted once, durable, in order, and honest about what became of a message."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
import trio.testing
from arrivals import intake_of, receive

from whatsappd.clock import now_ms
from whatsappd.errors import (
    QueueFull,
    StoreFailed,
)
from whatsappd.model.content import Text
from whatsappd.model.event import OUTBOX_STATE
from whatsappd.model.message import NewMessage, OnUncertain, Row
from whatsappd.model.message import OutboxState as S
from whatsappd.sessions.handover import give_up_orphans
from whatsappd.store.port import Inbound
from whatsappd.store.sqlite import outbox_maintenance, outbox_reads
from whatsappd.store.sqlite.acquaintances import SqliteAcquaintances
from whatsappd.store.sqlite.backup import copy_database
from whatsappd.store.sqlite.database import Database, open_database
from whatsappd.store.sqlite.event_log import SqliteEventLog, open_event_log
from whatsappd.store.sqlite.integrity import check
from whatsappd.store.sqlite.outbox import SqliteOutbox, open_outbox
from whatsappd.store.sqlite.outbox_maintenance import EARLY_RECEIPT_MS
from whatsappd.store.sqlite.outbox_writes import MAX_EARLY_RECEIPTS

LIMIT = 1000


@pytest.fixture
async def outbox(database: Database, log: SqliteEventLog, clock) -> SqliteOutbox:
    return await open_outbox(database, log, clock=clock)


@pytest.fixture
def intake(database: Database, log: SqliteEventLog, outbox: SqliteOutbox) -> Inbound:
    return intake_of(database, log, outbox)


class Opened(NamedTuple):
    outbox: SqliteOutbox
    log: SqliteEventLog
    intake: Inbound


@asynccontextmanager
async def opened(path: Path, clock) -> AsyncIterator[Opened]:
    async with open_database(path) as database:
        log = await open_event_log(database, clock=clock)
        outbox = await open_outbox(database, log, clock=clock)
        yield Opened(outbox, log, intake_of(database, log, outbox))


def message(text: str = "hello", **changes) -> NewMessage:
    return NewMessage("acme", "15550100@s.whatsapp.net", Text(text))._replace(**changes)


async def accepted(outbox: SqliteOutbox, text: str = "hello", **changes) -> Row:
    return (await outbox.submissions.accept(message(text, **changes), LIMIT))[0]


async def sending(outbox: SqliteOutbox, **changes) -> Row:
    row = await accepted(outbox, **changes)
    return (await outbox.handovers.begin(row.id)).row


async def uncertain(outbox: SqliteOutbox, **changes) -> Row:
    row = await sending(outbox, **changes)
    return await outbox.handovers.mark_uncertain(row.id, "worker died")


async def recover(outbox: SqliteOutbox) -> Sequence[Row]:
    """What the daemon does at its start about companies that are not to be running."""
    return await give_up_orphans(outbox.handovers, wanted=())


async def states_told(log: SqliteEventLog, row_id: str) -> list[tuple[str, str]]:
    batch = await log.read(0, 1000, types={OUTBOX_STATE})
    events = [stored.event for stored in batch.events]
    return [
        (event.data["cause"], event.data["state"]) for event in events if event.data["id"] == row_id
    ]


# --- accepting ------------------------------------------------------------------------------------


async def test_an_accepted_message_survives_a_restart(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, *_):
        row, is_new = await outbox.submissions.accept(message(key="order-1", expires_ms=5), LIMIT)
        assert is_new
    async with opened(path, clock) as (outbox, *_):
        assert await outbox.view.get(row.id) == row
        assert row.state is S.QUEUED
        assert (row.key, row.expires_ms, row.created_ms) == ("order-1", 5, clock.now_ms)
        assert outbox.view.counts("acme") == {S.QUEUED: 1}


async def test_ids_are_16_hex_digits_in_the_order_of_acceptance(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, *_):
        rows = [await accepted(outbox) for _ in range(20)]
        clock.now_ms += 1
        rows.append(await accepted(outbox))
    clock.now_ms -= 3_600_000  # the host's clock went back
    async with opened(path, clock) as (outbox, *_):
        rows.append(await accepted(outbox))
        ids = [row.id for row in rows]
        assert ids == sorted(set(ids))
        assert all(len(row_id) == 16 and int(row_id, 16) for row_id in ids)
        assert [row.id for row in await outbox.handovers.pending("acme", 100)] == ids


async def test_the_same_key_and_content_is_the_same_row(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, *_):
        first, is_new = await outbox.submissions.accept(message(key="k"), LIMIT)
        assert is_new
        # How long to wait and what to do in doubt are no content.
        again = message(key="k", expires_ms=99, on_uncertain=OnUncertain.RESEND)
        assert await outbox.submissions.accept(again, LIMIT) == (first, False)
        other, is_new = await outbox.submissions.accept(message(key="k", company="globex"), LIMIT)
        assert is_new
        assert other.id != first.id
    async with opened(path, clock) as (outbox, *_):
        await outbox.handovers.begin(first.id)
        row, is_new = await outbox.submissions.accept(message(key="k"), LIMIT)
        assert not is_new
        assert (row.id, row.state) == (first.id, S.SENDING)


async def test_what_the_disk_refuses_was_not_accepted(
    outbox: SqliteOutbox, log: SqliteEventLog, database: Database
) -> None:
    await database.write(lambda conn: conn.execute("PRAGMA max_page_count = 60").fetchone())
    with pytest.raises(StoreFailed):
        await outbox.submissions.accept(message("x" * 500_000, key="big"), 1)
    row = await accepted(outbox, "small")  # the queue's count forgot the failed one
    assert outbox.view.counts("acme") == {S.QUEUED: 1}
    with pytest.raises(QueueFull):
        await outbox.submissions.accept(message(), 1)
    assert [stored.event.data["id"] for stored in (await log.read(0, 9)).events] == [row.id]


# --- the way of a message -------------------------------------------------------------------------


async def test_an_ack_and_the_next_begin_are_one_transaction(
    outbox: SqliteOutbox, log: SqliteEventLog, database: Database
) -> None:
    row, following = await sending(outbox), await accepted(outbox)
    begin = log.last_seq
    sent, handover = await outbox.handovers.acknowledge_and_begin(row.id, "M1", 1, following.id)
    assert sent.state is S.SENT
    assert handover is not None
    assert handover.row == await outbox.view.get(following.id)
    assert (handover.row.state, handover.row.attempts) == (S.SENDING, 1)
    assert [attempt.secret for attempt in await outbox.handovers.interrupted("acme")] == [
        handover.secret
    ]
    told = [stored.event.data["cause"] for stored in (await log.read(begin, 9)).events]
    assert told == ["acknowledged", "begun"]
    # Nothing of it, where the disk refuses the second half.
    third = await accepted(outbox)
    await database.write(
        lambda conn: conn.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE OF secret ON outbox"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        ).fetchone()
    )
    with pytest.raises(sqlite3.IntegrityError, match="refused"):
        await outbox.handovers.acknowledge_and_begin(following.id, "M2", 2, third.id)
    assert (await outbox.view.get(following.id)).state is S.SENDING
    assert await outbox.view.get(third.id) == third


# --- receipts -------------------------------------------------------------------------------------


async def test_a_receipt_that_overtakes_the_ack_is_applied_with_it(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _, intake):
        row = await sending(outbox)
        await receive(intake, "acme", ["M1"], "read", 5)
        await receive(intake, "acme", ["M1"], "delivered", 4)
    async with opened(path, clock) as (outbox, log, _):  # also over a restart
        row = await outbox.handovers.acknowledge(row.id, "M1", 3)
        assert (row.state, row.sent_ms) == (S.READ, 3)
        assert (await states_told(log, row.id))[2:] == [("acknowledged", "sent"), ("read", "read")]


async def test_receipts_for_messages_that_never_were_are_bounded(
    outbox: SqliteOutbox, intake: Inbound, database: Database, clock
) -> None:
    """A contact can send them without end; the newest stay, and so do those of other companies."""
    await receive(intake, "beta", ["B"], "read", 1)
    for number in range(0, 2 * MAX_EARLY_RECEIPTS, 1000):
        clock.now_ms += 1
        ids = [f"3EB0{number + each:08}" for each in range(1000)]
        await receive(intake, "acme", ids, "read", 1)

    def kept(conn: sqlite3.Connection) -> list[tuple[str, int]]:
        return conn.execute("SELECT company, count(*) FROM receipts GROUP BY company").fetchall()

    [(_, acme), (_, beta)] = await database.read(kept)
    assert MAX_EARLY_RECEIPTS // 2 < acme <= MAX_EARLY_RECEIPTS
    assert beta == 1
    row = await sending(outbox)
    row = await outbox.handovers.acknowledge(row.id, ids[-1], 1)
    assert row.state == "read"


async def test_unknown_receipts_are_kept_for_a_bounded_time(
    outbox: SqliteOutbox, intake: Inbound, database: Database, clock
) -> None:
    await receive(intake, "acme", ["old"], "read", 1)
    clock.now_ms += EARLY_RECEIPT_MS + 1
    await receive(intake, "acme", ["new"], "read", 1)
    await outbox.maintenance.retain(10**12)
    kept = await database.read(
        lambda conn: conn.execute("SELECT message_id FROM receipts").fetchall()
    )
    assert kept == [("new",)]


# --- crashes --------------------------------------------------------------------------------------


async def test_a_row_that_was_being_sent_is_uncertain_after_a_crash(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, *_):
        row = await sending(outbox)
        waiting = await accepted(outbox)
    async with opened(path, clock) as (outbox, log, _):
        (recovered,) = await recover(outbox)
        assert (recovered.id, recovered.state, recovered.lost_attempts) == (row.id, S.UNCERTAIN, 1)
        assert "being sent" in str(recovered.reason)
        assert await recover(outbox) == []
        # It is not sent again, and holds nobody back.
        assert [each.id for each in await outbox.handovers.pending("acme", 10)] == [waiting.id]
        assert (await states_told(log, row.id))[-1] == ("lost", "uncertain")


async def test_the_sender_can_choose_a_resend_beforehand(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, *_):
        row = await sending(outbox, on_uncertain=OnUncertain.RESEND)
    async with opened(path, clock) as (outbox, log, _):
        (recovered,) = await recover(outbox)
        assert (recovered.state, recovered.lost_attempts) == (S.QUEUED, 1)
        assert (await states_told(log, row.id))[-2:] == [
            ("lost", "uncertain"),
            ("decided_resend", "queued"),
        ]
        await outbox.handovers.begin(row.id)
        again = await outbox.handovers.mark_uncertain(
            row.id, "timeout", not_before_ms=clock.now_ms + 5
        )
        assert (again.state, again.not_before_ms) == (S.QUEUED, clock.now_ms + 5)


async def test_interrupted_attempts_are_told_with_their_secret(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, *_):
        row = await accepted(outbox)
        first = await outbox.handovers.begin(row.id)
        await outbox.handovers.postpone(row.id, "later", 0)
        second = await outbox.handovers.begin(row.id)
        assert first.secret != second.secret
        other = await uncertain(outbox, company="globex")
        known = await sending(outbox)
        await outbox.handovers.mark_uncertain(known.id, "timeout", message_id="M1")
    async with opened(path, clock) as (outbox, *_):
        found = await outbox.handovers.interrupted()
        assert [handover.row.id for handover in found] == [row.id, other.id]
        assert found[0] == second
        assert [each.row.id for each in await outbox.handovers.interrupted("globex")] == [other.id]


# --- order ----------------------------------------------------------------------------------------


async def test_chats_can_be_left_out_or_asked_for(
    outbox: SqliteOutbox, database: Database, clock
) -> None:
    friend, stranger, hidden = "1@s.whatsapp.net", "2@s.whatsapp.net", "3@lid"
    for chat in (friend, stranger, hidden, "4-5@g.us"):
        await accepted(outbox, chat, chat=chat)
    await SqliteAcquaintances(database).add("acme", [friend])

    async def chats(**which) -> list[str]:
        return [row.chat for row in await outbox.handovers.pending("acme", 10, **which)]

    assert await chats(without=[friend, "4-5@g.us"]) == [stranger, hidden]
    assert await chats(only=[hidden]) == [hidden]
    assert await chats(only=[]) == []
    assert await chats(known_only=True) == [friend, "4-5@g.us"]
    assert await chats(known_only=True, without=[friend]) == ["4-5@g.us"]


async def test_first_messages_are_remembered_as_such(
    outbox: SqliteOutbox, database: Database, clock
) -> None:
    await SqliteAcquaintances(database).add("acme", ["1@s.whatsapp.net"])
    clock.now_ms = now_ms() + 1000  # the friend was known before
    for chat in ("1@s.whatsapp.net", "2@s.whatsapp.net", "3@lid", "4-5@g.us"):
        await sending(outbox, text=chat, chat=chat)
    assert await outbox.view.cold_times("acme", clock.now_ms, 10) == [clock.now_ms, clock.now_ms]
    assert await outbox.view.cold_times("acme", clock.now_ms, 1) == [clock.now_ms]
    assert await outbox.view.cold_times("acme", clock.now_ms + 1, 10) == []
    assert await outbox.view.cold_times("globex", 0, 10) == []


async def test_what_waits_in_a_backup_is_not_sent_again_unasked(
    outbox: SqliteOutbox, database: Database, tmp_path: Path, clock
) -> None:
    queued = await accepted(outbox, "queued")
    underway = await sending(outbox, text="underway")
    resend = await sending(outbox, text="resend", on_uncertain=OnUncertain.RESEND)
    done = await sending(outbox, text="done")
    await outbox.handovers.acknowledge(done.id, "M1", 1)
    await trio.to_thread.run_sync(
        copy_database, database.path, tmp_path / "copy.db", trio.from_thread.check_cancelled
    )
    assert (await outbox.view.get(queued.id)).state is S.QUEUED  # here everything goes on
    async with opened(tmp_path / "copy.db", clock) as (restored, *_):
        for row in (queued, underway):
            found = await restored.view.get(row.id)
            assert (found.state, found.lost_attempts) == (S.UNCERTAIN, 1)
            assert "backup" in str(found.reason)
        assert (await restored.view.get(resend.id)).state is S.QUEUED
        assert (await restored.view.get(done.id)).state is S.SENT
        assert await restored.handovers.interrupted() == []
        assert (await restored.submissions.resolve(queued.id, "resend")).state is S.QUEUED


# --- waiting --------------------------------------------------------------------------------------


async def test_a_cancelled_waiter_changes_nothing(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox)
    with trio.move_on_after(0.02):
        await outbox.view.wait(row.id, {S.SENT})
    assert await outbox.view.get(row.id) == row
    await outbox.handovers.begin(row.id)
    assert outbox.view._counts._waiters == {}


# --- looking --------------------------------------------------------------------------------------


async def test_no_listing_costs_more_with_more_rows(
    outbox: SqliteOutbox, database: Database
) -> None:
    """Counted in steps of SQLite's virtual machine: a scan or a sort takes several for each row."""
    row = await accepted(outbox, company="company0")
    first = int(row.id, 16)

    def fill(conn: sqlite3.Connection) -> None:
        conn.executemany(
            "INSERT INTO outbox (id, company, state, chat, content, attempts, not_before_ms,"
            " on_uncertain, created_ms, updated_ms, lost_attempts)"
            " SELECT ?, ?, ?, chat, content, attempts, not_before_ms, on_uncertain, created_ms,"
            " updated_ms, lost_attempts FROM outbox WHERE id = ?",
            [
                (first + 1 + n, f"company{n % 5}", ("sent", "read")[n % 2], first)
                for n in range(20_000)
            ],
        )

    await database.write(fill)
    log = await open_event_log(database)
    outbox = await open_outbox(database, log)
    steps = [0]

    def counted() -> int:
        steps[0] += 1
        return 0

    original = database.query

    async def query(read):
        def counting(conn: sqlite3.Connection):
            conn.set_progress_handler(counted, 1)
            return read(conn)

        return await original(counting)

    database.query = query  # type: ignore[method-assign]
    for company in ("company0", "nobody", None):
        for states in (None, [S.SENT], [S.UNCERTAIN], [S.SENT, S.READ, S.QUEUED]):
            for place in ({}, {"before": row.id}, {"after": row.id}):
                steps[0] = 0
                await outbox.view.list_rows(company, states, limit=10, **place)
                assert steps[0] < 5000, (company, states, place)


async def test_answers_are_found_among_many_rows_without_looking_at_all(
    outbox: SqliteOutbox, database: Database
) -> None:
    row = await accepted(outbox, company="company0")
    first = int(row.id, 16)

    def fill(conn: sqlite3.Connection) -> None:
        conn.executemany(
            "INSERT INTO outbox (id, company, state, chat, content, attempts, not_before_ms,"
            " on_uncertain, created_ms, updated_ms, lost_attempts)"
            " SELECT ?, company, state, chat, content, attempts, not_before_ms, on_uncertain,"
            " created_ms, updated_ms, lost_attempts FROM outbox WHERE id = ?",
            [(first + 1 + n, first) for n in range(20_000)],
        )
        conn.execute("UPDATE outbox SET is_reply = 1 WHERE id IN (?, ?)", (first + 7, first + 9999))

    await database.write(fill)
    steps = [0]

    def counted() -> int:
        steps[0] += 1
        return 0

    def pending(conn: sqlite3.Connection, **more: bool) -> list[int]:
        steps[0] = 0
        conn.set_progress_handler(counted, 1)
        found = outbox_reads.pending(
            conn, "company0", 10, 1, only=None, without=(), known_only=False, **more
        )
        conn.set_progress_handler(None, 1)
        return [int(each.id, 16) - first for each in found]

    assert await database.read(pending) == [7, 9999]
    assert steps[0] < 1000
    others = await database.read(lambda conn: pending(conn, others_first=True))
    assert others == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert steps[0] < 1000


async def test_counts_agree_with_the_disk_after_everything(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _, intake):
        for index in range(40):
            row = await accepted(outbox, str(index), company=f"company{index % 3}")
            if index % 2:
                await outbox.handovers.begin(row.id)
            if index % 4 == 1:
                await outbox.handovers.acknowledge(row.id, f"M{index}", 1)
            if index % 8 == 1:
                await receive(intake, row.company, [f"M{index}"], "read", 1)
            if index % 10 == 0:
                await outbox.submissions.cancel(row.id)
        before = {company: outbox.view.counts(company) for company in outbox.view.companies()}
    async with opened(path, clock) as (outbox, *_):
        assert {
            company: outbox.view.counts(company) for company in outbox.view.companies()
        } == before
    assert check(path) == []


async def test_hand_overs_are_remembered_for_the_limits(path: Path, clock) -> None:
    begin = clock.now_ms
    async with opened(path, clock) as (outbox, *_):
        for index in range(4):
            clock.now_ms = begin + index * 1000
            row = await sending(outbox, chat=f"chat{index}")
            if index == 2:
                await outbox.handovers.mark_uncertain(row.id, "crash")
        await accepted(outbox)
    async with opened(path, clock) as (outbox, *_):
        assert await outbox.view.sent_times("acme", begin + 1000) == [
            ("chat1", begin + 1000),
            ("chat2", begin + 2000),
            ("chat3", begin + 3000),
        ]


async def test_retention_holds_no_rows_in_memory_and_passes_those_that_stay(
    outbox: SqliteOutbox, database: Database, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    find = outbox_maintenance._find

    def finding(*arguments) -> list[Row]:
        looked.append(len(find(*arguments)))
        return find(*arguments)

    monkeypatch.setattr(outbox_maintenance, "_find", finding)
    async with trio.open_nursery() as nursery:
        for number in range(900):
            nursery.start_soon(outbox.submissions.accept, message(str(number)), LIMIT)
    for row in (await outbox.view.list_rows(limit=900))[::2]:
        await outbox.submissions.cancel(row.id)
    clock.now_ms += 1000
    assert await outbox.maintenance.retain(1) == 450
    assert outbox.view.counts("acme") == {S.QUEUED: 450}
    # Each row was looked at once, also those that stay; none but a slice of them at a time.
    assert sum(looked) == 900
    assert len(looked) > 2


# --- figures ----------------------------------------------------------------------------------
