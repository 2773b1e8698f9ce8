"""The outbox: accepted once, durable, in order, and honest about what became of a message."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from arrivals import intake_of, receive

from whatsappd.clock import now_ms
from whatsappd.errors import (
    InvalidParams,
    KeyConflict,
    QueueFull,
    StoreFailed,
    UnknownMessage,
    WrongState,
)
from whatsappd.model.content import Text
from whatsappd.model.event import OUTBOX_STATE
from whatsappd.model.message import NewMessage, OnUncertain, Row
from whatsappd.model.message import OutboxState as S
from whatsappd.sessions.handover import give_up_orphans
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


@asynccontextmanager
async def opened(path: Path, clock) -> AsyncIterator[tuple[SqliteOutbox, SqliteEventLog]]:
    async with open_database(path) as database:
        log = await open_event_log(database, clock=clock)
        yield await open_outbox(database, log, clock=clock), log


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


async def receipt(
    outbox: SqliteOutbox, company: str, ids: list[str], kind: str, time_ms: int
) -> list[Row]:
    """A receipt arrives; the rows that it changed, in the order of their messages."""
    before = await outbox.view.list_rows(company, limit=10_000)
    await receive(intake_of(outbox), company, ids, kind, time_ms)
    now = [await outbox.view.get(row.id) for row in reversed(before)]
    return [row for row in now if row not in before]


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
    async with opened(path, clock) as (outbox, _):
        row, is_new = await outbox.submissions.accept(message(key="order-1", expires_ms=5), LIMIT)
        assert is_new
    async with opened(path, clock) as (outbox, _):
        assert await outbox.view.get(row.id) == row
        assert row.state is S.QUEUED
        assert (row.key, row.expires_ms, row.created_ms) == ("order-1", 5, clock.now_ms)
        assert outbox.view.counts("acme") == {S.QUEUED: 1}


async def test_ids_are_16_hex_digits_in_the_order_of_acceptance(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _):
        rows = [await accepted(outbox) for _ in range(20)]
        clock.now_ms += 1
        rows.append(await accepted(outbox))
    clock.now_ms -= 3_600_000  # the host's clock went back
    async with opened(path, clock) as (outbox, _):
        rows.append(await accepted(outbox))
        ids = [row.id for row in rows]
        assert ids == sorted(set(ids))
        assert all(len(row_id) == 16 and int(row_id, 16) for row_id in ids)
        assert [row.id for row in await outbox.handovers.pending("acme", 100)] == ids


async def test_the_event_is_in_the_log_with_the_row(
    outbox: SqliteOutbox, log: SqliteEventLog, clock
) -> None:
    row = await accepted(outbox, key="order-1")
    (stored,) = (await log.read(0, 10)).events
    assert stored.event.type == OUTBOX_STATE
    assert stored.event.data == {
        "id": row.id,
        "key": "order-1",
        "kind": "text",
        "chat": row.chat,
        "asked": None,
        "state": "queued",
        "previous": None,
        "cause": "accepted",
        "reason": None,
        "message_id": None,
        "former_message_id": None,
        "attempts": 0,
        "not_before_ms": 0,
        "sent_ms": None,
    }


async def test_the_same_key_and_content_is_the_same_row(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _):
        first, is_new = await outbox.submissions.accept(message(key="k"), LIMIT)
        assert is_new
        # How long to wait and what to do in doubt are no content.
        again = message(key="k", expires_ms=99, on_uncertain=OnUncertain.RESEND)
        assert await outbox.submissions.accept(again, LIMIT) == (first, False)
        other, is_new = await outbox.submissions.accept(message(key="k", company="globex"), LIMIT)
        assert is_new
        assert other.id != first.id
    async with opened(path, clock) as (outbox, _):
        await outbox.handovers.begin(first.id)
        row, is_new = await outbox.submissions.accept(message(key="k"), LIMIT)
        assert not is_new
        assert (row.id, row.state) == (first.id, S.SENDING)


async def test_concurrent_callers_with_one_key_make_one_row(outbox: SqliteOutbox) -> None:
    results: list[tuple[Row, bool]] = []

    async def call() -> None:
        results.append(await outbox.submissions.accept(message(key="k"), LIMIT))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(call)
    assert len({row.id for row, _ in results}) == 1
    assert Counter(is_new for _, is_new in results) == {True: 1, False: 99}
    assert outbox.view.counts("acme") == {S.QUEUED: 1}


async def test_the_same_key_with_other_content_is_refused(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox, key="k")
    for changes in ({"content": Text("other")}, {"chat": "15550101@s.whatsapp.net"}):
        with pytest.raises(KeyConflict, match="'k'") as caught:
            await outbox.submissions.accept(message(key="k")._replace(**changes), LIMIT)
        assert caught.value.data == {"key": "k", "id": row.id}


async def test_a_full_queue_refuses_but_knows_its_keys(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox, key="k")
    await accepted(outbox)
    with pytest.raises(QueueFull, match="limit is 2"):
        await outbox.submissions.accept(message(), 2)
    assert (await outbox.submissions.accept(message(key="k"), 2))[0] == row
    await outbox.submissions.accept(message(company="globex"), 2)
    # A message that is being sent still waits; one that was sent does not.
    await outbox.handovers.begin(row.id)
    with pytest.raises(QueueFull):
        await outbox.submissions.accept(message(), 2)
    await outbox.handovers.acknowledge(row.id, "M1", 1)
    await outbox.submissions.accept(message(), 2)


async def test_the_queue_limit_holds_for_concurrent_callers(outbox: SqliteOutbox) -> None:
    outcomes: Counter[str] = Counter()

    async def call() -> None:
        try:
            await outbox.submissions.accept(message(), 30)
            outcomes["accepted"] += 1
        except QueueFull:
            outcomes["full"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(call)
    assert outcomes == {"accepted": 30, "full": 70}
    assert outbox.view.counts("acme") == {S.QUEUED: 30}


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


async def test_the_whole_way(outbox: SqliteOutbox, log: SqliteEventLog, clock) -> None:
    row = await accepted(outbox)
    clock.now_ms += 10
    handover = await outbox.handovers.begin(row.id)
    assert (handover.row.state, handover.row.attempts) == (S.SENDING, 1)
    assert handover.row.handed_ms == clock.now_ms
    assert len(handover.secret) == 32
    sent = await outbox.handovers.acknowledge(row.id, "M1", 123)
    assert (sent.state, sent.message_id, sent.sent_ms) == (S.SENT, "M1", 123)
    for kind in ("delivered", "read", "played"):
        (changed,) = await receipt(outbox, "acme", ["M1"], kind, 200)
        assert changed.state == kind
        assert await outbox.view.get(row.id) == changed
    assert await states_told(log, row.id) == [
        ("accepted", "queued"),
        ("begun", "sending"),
        ("acknowledged", "sent"),
        ("delivered", "delivered"),
        ("read", "read"),
        ("played", "played"),
    ]
    assert outbox.view.counts("acme") == {S.PLAYED: 1}


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


async def test_an_ack_is_recorded_though_nothing_can_follow_it(outbox: SqliteOutbox, clock) -> None:
    cancelled = await outbox.submissions.cancel((await accepted(outbox)).id)
    late = (await outbox.submissions.accept(message()._replace(expires_ms=clock.now_ms), LIMIT))[0]
    for following, state in ((cancelled.id, S.CANCELLED), (late.id, S.EXPIRED)):
        row = await sending(outbox)
        sent, handover = await outbox.handovers.acknowledge_and_begin(
            row.id, f"M{row.id}", 1, following
        )
        assert (sent.state, handover) == (S.SENT, None)
        assert (await outbox.view.get(following)).state is state
    row = await sending(outbox)
    sent, handover = await outbox.handovers.acknowledge_and_begin(row.id, "M", 1, "0" * 16)
    assert (sent.state, handover) == (S.SENT, None)


async def test_a_passing_failure_waits_for_its_next_try(outbox: SqliteOutbox, clock) -> None:
    row = await sending(outbox)
    row = await outbox.handovers.postpone(row.id, "429", clock.now_ms + 500)
    assert (row.state, row.reason, row.attempts) == (S.QUEUED, "429", 1)
    assert await outbox.handovers.pending("acme", 10) == []
    looked_ms = clock.now_ms
    assert await outbox.handovers.next_due_ms("acme", looked_ms) == looked_ms + 500
    clock.now_ms += 500
    # Due by now, and after the look: still the time to look again.
    assert await outbox.handovers.next_due_ms("acme", looked_ms) == clock.now_ms
    assert [each.id for each in await outbox.handovers.pending("acme", 10)] == [row.id]
    assert await outbox.handovers.next_due_ms("acme", clock.now_ms) is None
    again = (await outbox.handovers.begin(row.id)).row
    assert (again.attempts, again.reason, again.not_before_ms) == (2, None, 0)


async def test_what_a_clock_that_was_ahead_postponed_waits_no_longer(
    outbox: SqliteOutbox, clock
) -> None:
    row, behind = await sending(outbox), await accepted(outbox)
    clock.now_ms += 40 * 24 * 3600 * 1000
    await outbox.handovers.postpone(row.id, "429", clock.now_ms + 500)
    clock.now_ms -= 40 * 24 * 3600 * 1000
    assert [each.id for each in await outbox.handovers.pending("acme", 10)] == [row.id, behind.id]
    assert await outbox.handovers.next_due_ms("acme", clock.now_ms) is None


async def test_a_permanent_failure_is_final(outbox: SqliteOutbox) -> None:
    row = await sending(outbox)
    row = await outbox.handovers.fail(row.id, "not on WhatsApp")
    assert (row.state, row.reason) == (S.FAILED, "not on WhatsApp")
    for call in (
        outbox.handovers.begin(row.id),
        outbox.submissions.cancel(row.id),
        outbox.submissions.resolve(row.id, "sent"),
    ):
        with pytest.raises(WrongState, match="failed"):
            await call


async def test_only_a_queued_row_can_be_cancelled(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox)
    assert (await outbox.submissions.cancel(row.id)).state is S.CANCELLED
    other = await sending(outbox)
    with pytest.raises(WrongState, match="sending"):
        await outbox.submissions.cancel(other.id)
    assert await outbox.handovers.pending("acme", 10) == []


async def test_a_row_is_begun_once(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox)
    outcomes = []

    async def begin() -> None:
        try:
            outcomes.append((await outbox.handovers.begin(row.id)).row.state)
        except WrongState as error:
            outcomes.append(error.name)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(begin)
    assert Counter(outcomes) == {S.SENDING: 1, "wrong_state": 9}


async def test_rows_expire_while_queued_and_only_then(outbox: SqliteOutbox, clock) -> None:
    late = await accepted(outbox, expires_ms=clock.now_ms + 10)
    handed = await sending(outbox, expires_ms=clock.now_ms + 10)
    await accepted(outbox, expires_ms=clock.now_ms + 99)
    await accepted(outbox)
    assert await outbox.maintenance.expire(clock.now_ms + 9) == 0
    clock.now_ms += 10
    assert late.id not in [row.id for row in await outbox.handovers.pending("acme", 10)]
    assert await outbox.maintenance.expire(clock.now_ms) == 1
    assert (await outbox.view.get(late.id)).state is S.EXPIRED
    assert (await outbox.view.get(handed.id)).state is S.SENDING
    await outbox.handovers.postpone(handed.id, "later", 0)
    assert await outbox.maintenance.expire(clock.now_ms) == 1
    assert (await outbox.view.get(handed.id)).state is S.EXPIRED


async def test_many_rows_expire_in_steps(outbox: SqliteOutbox, clock) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(1100):
            nursery.start_soon(outbox.submissions.accept, message(expires_ms=clock.now_ms), 10_000)
    assert await outbox.maintenance.expire(clock.now_ms) == 1100
    assert outbox.view.counts("acme") == {S.EXPIRED: 1100}


# --- receipts -------------------------------------------------------------------------------------


async def test_receipts_never_move_back(outbox: SqliteOutbox) -> None:
    row = await sending(outbox)
    await outbox.handovers.acknowledge(row.id, "M1", 1)
    await receipt(outbox, "acme", ["M1"], "read", 2)
    assert await receipt(outbox, "acme", ["M1"], "delivered", 3) == []
    assert await receipt(outbox, "acme", ["M1"], "read", 3) == []
    assert (await outbox.view.get(row.id)).state is S.READ


async def test_one_receipt_for_several_messages(outbox: SqliteOutbox) -> None:
    for index in range(3):
        row = await sending(outbox, text=str(index))
        await outbox.handovers.acknowledge(row.id, f"M{index}", 1)
    changed = await receipt(outbox, "acme", ["M0", "M2", "other"], "delivered", 2)
    assert [row.text for row in changed] == ["0", "2"]


async def test_a_receipt_that_overtakes_the_ack_is_applied_with_it(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _):
        row = await sending(outbox)
        await receipt(outbox, "acme", ["M1"], "read", 5)
        await receipt(outbox, "acme", ["M1"], "delivered", 4)
    async with opened(path, clock) as (outbox, log):  # also over a restart
        row = await outbox.handovers.acknowledge(row.id, "M1", 3)
        assert (row.state, row.sent_ms) == (S.READ, 3)
        assert (await states_told(log, row.id))[2:] == [("acknowledged", "sent"), ("read", "read")]


async def test_receipts_for_messages_that_never_were_are_bounded(
    outbox: SqliteOutbox, database: Database, clock
) -> None:
    """A contact can send them without end; the newest stay, and so do those of other companies."""
    await receipt(outbox, "beta", ["B"], "read", 1)
    for number in range(0, 2 * MAX_EARLY_RECEIPTS, 1000):
        clock.now_ms += 1
        ids = [f"3EB0{number + each:08}" for each in range(1000)]
        await receipt(outbox, "acme", ids, "read", 1)

    def kept(conn: sqlite3.Connection) -> list[tuple[str, int]]:
        return conn.execute("SELECT company, count(*) FROM receipts GROUP BY company").fetchall()

    [(_, acme), (_, beta)] = await database.read(kept)
    assert MAX_EARLY_RECEIPTS // 2 < acme <= MAX_EARLY_RECEIPTS
    assert beta == 1
    row = await sending(outbox)
    row = await outbox.handovers.acknowledge(row.id, ids[-1], 1)
    assert row.state == "read"


async def test_an_early_receipt_of_another_company_is_not_taken(outbox: SqliteOutbox) -> None:
    await receipt(outbox, "globex", ["M1"], "read", 5)
    row = await sending(outbox)
    assert (await outbox.handovers.acknowledge(row.id, "M1", 3)).state is S.SENT


async def test_unknown_receipts_are_kept_for_a_bounded_time(
    outbox: SqliteOutbox, database: Database, clock
) -> None:
    await receipt(outbox, "acme", ["old"], "read", 1)
    clock.now_ms += EARLY_RECEIPT_MS + 1
    await receipt(outbox, "acme", ["new"], "read", 1)
    await outbox.maintenance.retain(10**12)
    kept = await database.read(
        lambda conn: conn.execute("SELECT message_id FROM receipts").fetchall()
    )
    assert kept == [("new",)]


async def test_another_kind_of_receipt_is_an_error(outbox: SqliteOutbox) -> None:
    with pytest.raises(InvalidParams, match="kind"):
        await receipt(outbox, "acme", ["M1"], "retry", 1)


async def test_an_ack_twice_changes_nothing(outbox: SqliteOutbox) -> None:
    row = await sending(outbox)
    sent = await outbox.handovers.acknowledge(row.id, "M1", 1)
    await receipt(outbox, "acme", ["M1"], "delivered", 2)
    assert (await outbox.handovers.acknowledge(row.id, "M1", 1)).state is S.DELIVERED
    assert (await outbox.handovers.acknowledge(row.id, "M2", 9)).message_id == sent.message_id


# --- crashes --------------------------------------------------------------------------------------


async def test_a_row_that_was_being_sent_is_uncertain_after_a_crash(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _):
        row = await sending(outbox)
        waiting = await accepted(outbox)
    async with opened(path, clock) as (outbox, log):
        (recovered,) = await recover(outbox)
        assert (recovered.id, recovered.state, recovered.lost_attempts) == (row.id, S.UNCERTAIN, 1)
        assert "being sent" in str(recovered.reason)
        assert await recover(outbox) == []
        # It is not sent again, and holds nobody back.
        assert [each.id for each in await outbox.handovers.pending("acme", 10)] == [waiting.id]
        assert (await states_told(log, row.id))[-1] == ("lost", "uncertain")


async def test_the_sender_can_choose_a_resend_beforehand(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _):
        row = await sending(outbox, on_uncertain=OnUncertain.RESEND)
    async with opened(path, clock) as (outbox, log):
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


@pytest.mark.parametrize(
    ("decision", "state"), [("sent", S.SENT), ("resend", S.QUEUED), ("failed", S.FAILED)]
)
async def test_a_person_resolves_what_is_uncertain(
    outbox: SqliteOutbox, decision: str, state: S
) -> None:
    row = await uncertain(outbox)
    assert (await outbox.submissions.resolve(row.id, decision)).state is state
    with pytest.raises(WrongState):
        await outbox.submissions.resolve(row.id, decision)


async def test_resolving_needs_a_known_decision_and_an_uncertain_row(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox)
    with pytest.raises(InvalidParams, match="decision"):
        await outbox.submissions.resolve(row.id, "maybe")
    for decision in ("sent", "resend", "failed"):
        with pytest.raises(WrongState, match="queued"):
            await outbox.submissions.resolve(row.id, decision)


async def test_a_receipt_resolves_an_attempt_whose_id_is_known(outbox: SqliteOutbox) -> None:
    row = await sending(outbox)
    row = await outbox.handovers.mark_uncertain(row.id, "worker died", message_id="M1")
    assert (row.state, row.message_id) == (S.UNCERTAIN, "M1")
    (resolved,) = await receipt(outbox, "acme", ["M1"], "delivered", 5)
    assert (resolved.id, resolved.state, resolved.lost_attempts) == (row.id, S.DELIVERED, 0)


async def test_an_id_found_later_takes_the_receipt_that_came_before(outbox: SqliteOutbox) -> None:
    row = await uncertain(outbox)
    await receipt(outbox, "acme", ["M1"], "delivered", 5)
    assert (await outbox.view.get(row.id)).state is S.UNCERTAIN
    assert (await outbox.handovers.identify(row.id, "M1")).state is S.DELIVERED


async def test_a_receipt_for_an_unknown_id_in_the_same_chat_proves_nothing(
    outbox: SqliteOutbox,
) -> None:
    row = await uncertain(outbox)
    await receipt(outbox, "acme", ["written-on-the-phone"], "read", 5)
    assert (await outbox.view.get(row.id)).state is S.UNCERTAIN


async def test_a_late_ack_resolves_what_is_uncertain(outbox: SqliteOutbox) -> None:
    row = await uncertain(outbox)
    row = await outbox.handovers.acknowledge(row.id, "M1", 5)
    assert (row.state, row.message_id, row.lost_attempts) == (S.SENT, "M1", 0)


async def test_proof_stops_a_resend_that_has_not_begun(outbox: SqliteOutbox) -> None:
    row = await uncertain(outbox, on_uncertain=OnUncertain.RESEND)
    assert row.state is S.QUEUED
    assert (await outbox.handovers.acknowledge(row.id, "M1", 5)).state is S.SENT
    assert await outbox.handovers.pending("acme", 10) == []


async def test_proof_that_it_never_left_queues_it_again(outbox: SqliteOutbox) -> None:
    row = await uncertain(outbox)
    row = await outbox.handovers.requeue_unsent(row.id, "no trace of it in the session's database")
    assert (row.state, row.lost_attempts) == (S.QUEUED, 0)


async def test_interrupted_attempts_are_told_with_their_secret(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _):
        row = await accepted(outbox)
        first = await outbox.handovers.begin(row.id)
        await outbox.handovers.postpone(row.id, "later", 0)
        second = await outbox.handovers.begin(row.id)
        assert first.secret != second.secret
        other = await uncertain(outbox, company="globex")
        known = await sending(outbox)
        await outbox.handovers.mark_uncertain(known.id, "timeout", message_id="M1")
    async with opened(path, clock) as (outbox, _):
        found = await outbox.handovers.interrupted()
        assert [handover.row.id for handover in found] == [row.id, other.id]
        assert found[0] == second
        assert [each.row.id for each in await outbox.handovers.interrupted("globex")] == [other.id]


# --- order ----------------------------------------------------------------------------------------


async def test_order_is_kept_per_chat_and_chats_do_not_wait_for_each_other(
    outbox: SqliteOutbox, clock
) -> None:
    a1 = await accepted(outbox, "a1", chat="a")
    b1 = await accepted(outbox, "b1", chat="b")
    a2 = await accepted(outbox, "a2", chat="a")
    await accepted(outbox, "b2", chat="b")

    async def texts(limit: int = 10) -> list[str]:
        return [row.text for row in await outbox.handovers.pending("acme", limit)]

    assert await texts() == ["a1", "b1", "a2", "b2"]
    assert await texts(2) == ["a1", "b1"]
    await outbox.handovers.begin(a1.id)
    assert await texts() == ["b1", "b2"]
    await outbox.handovers.postpone(a1.id, "later", clock.now_ms + 100)
    assert await texts() == ["b1", "b2"]
    await outbox.handovers.begin(b1.id)
    await outbox.handovers.acknowledge(b1.id, "M1", 1)
    assert await texts() == ["b2"]
    clock.now_ms += 100
    assert await texts() == ["a1", "a2", "b2"]
    await outbox.handovers.begin(a1.id)
    await outbox.handovers.mark_uncertain(a1.id, "crash")
    assert await texts() == ["a2", "b2"]
    await outbox.submissions.cancel(a2.id)
    assert await texts() == ["b2"]
    assert await outbox.handovers.pending("globex", 10) == []


async def test_an_expired_row_holds_nobody_back(outbox: SqliteOutbox, clock) -> None:
    row = await sending(outbox, expires_ms=clock.now_ms + 5)
    await outbox.handovers.postpone(row.id, "later", clock.now_ms + 1000)
    after = await accepted(outbox)
    clock.now_ms += 5
    assert [each.id for each in await outbox.handovers.pending("acme", 10)] == [after.id]


async def test_a_row_whose_time_passed_is_not_handed_over(outbox: SqliteOutbox, log, clock) -> None:
    row = await accepted(outbox, expires_ms=clock.now_ms + 5)
    clock.now_ms += 5
    with pytest.raises(WrongState, match="time to live"):
        await outbox.handovers.begin(row.id)
    assert (await outbox.view.get(row.id)).state is S.EXPIRED
    assert await states_told(log, row.id) == [("accepted", "queued"), ("expired", "expired")]


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


async def test_a_repetition_is_found_before_anything_is_asked_of_it(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox, key="k")
    assert await outbox.submissions.find(message(key="k")) == row
    assert await outbox.submissions.find(message(key="other")) is None
    assert await outbox.submissions.find(message()) is None
    with pytest.raises(KeyConflict):
        await outbox.submissions.find(message("other", key="k"))


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
    async with opened(tmp_path / "copy.db", clock) as (restored, _log):
        for row in (queued, underway):
            found = await restored.view.get(row.id)
            assert (found.state, found.lost_attempts) == (S.UNCERTAIN, 1)
            assert "backup" in str(found.reason)
        assert (await restored.view.get(resend.id)).state is S.QUEUED
        assert (await restored.view.get(done.id)).state is S.SENT
        assert await restored.handovers.interrupted() == []
        assert (await restored.submissions.resolve(queued.id, "resend")).state is S.QUEUED


async def test_an_attempt_that_cannot_be_traced_is_uncertain_for_good(outbox: SqliteOutbox) -> None:
    row = await sending(outbox)
    assert len(await outbox.handovers.interrupted("acme")) == 1
    row = await outbox.handovers.mark_untraceable(row.id, "the account was unlinked")
    assert row.state is S.UNCERTAIN
    assert row.lost_attempts == 1
    assert await outbox.handovers.interrupted("acme") == []
    resent = await sending(outbox, on_uncertain=OnUncertain.RESEND)
    assert (
        await outbox.handovers.mark_untraceable(resent.id, "the account was unlinked")
    ).state is S.QUEUED


# --- waiting --------------------------------------------------------------------------------------


async def test_waiting_for_a_state(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox)
    results: list[S] = []

    async def wait(*states: S) -> None:
        results.append((await outbox.view.wait(row.id, states)).state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, S.DELIVERED)
        nursery.start_soon(wait, S.SENT, S.DELIVERED)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await outbox.handovers.begin(row.id)
        assert results == []
        await outbox.handovers.acknowledge(row.id, "M1", 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert results == [S.SENT]
        await receipt(outbox, "acme", ["M1"], "delivered", 2)
    assert results == [S.SENT, S.DELIVERED]
    await wait(S.DELIVERED)  # it is there already


async def test_waiting_ends_when_the_state_is_out_of_reach(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                assert (await outbox.view.wait(row.id, {S.SENT})).state is S.CANCELLED

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await outbox.submissions.cancel(row.id)
        assert (await outbox.view.wait(row.id, {S.SENT})).state is S.CANCELLED
    with pytest.raises(UnknownMessage):
        await outbox.view.wait("0" * 16, {S.SENT})


async def test_a_cancelled_waiter_changes_nothing(outbox: SqliteOutbox) -> None:
    row = await accepted(outbox)
    with trio.move_on_after(0.02):
        await outbox.view.wait(row.id, {S.SENT})
    assert await outbox.view.get(row.id) == row
    await outbox.handovers.begin(row.id)
    assert outbox.view._counts._waiters == {}


async def test_the_dispatcher_misses_no_change(outbox: SqliteOutbox) -> None:
    total = 200
    seen: set[str] = set()

    async def dispatch() -> None:
        while len(seen) < total:
            version = outbox.handovers.version("acme")
            rows = await outbox.handovers.pending("acme", 50)
            for row in rows:
                await outbox.handovers.begin(row.id)
                await outbox.handovers.acknowledge(row.id, f"M{row.id}", 1)
                seen.add(row.id)
            if not rows:
                await outbox.handovers.wait_changed("acme", version)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatch)
            for index in range(total):
                await accepted(outbox, chat=str(index % 7))
    assert outbox.view.counts("acme") == {S.SENT: total}


# --- looking --------------------------------------------------------------------------------------


async def test_listing_pages_through_rows(outbox: SqliteOutbox) -> None:
    rows = [await accepted(outbox, str(index)) for index in range(5)]
    await accepted(outbox, company="globex")
    await outbox.submissions.cancel(rows[1].id)

    async def texts(**query) -> list[str]:
        return [row.text for row in await outbox.view.list_rows("acme", **query)]

    assert await texts() == ["4", "3", "2", "1", "0"]
    assert await texts(limit=2) == ["4", "3"]
    assert await texts(limit=2, before=rows[3].id) == ["2", "1"]
    assert await texts(limit=2, after=rows[0].id) == ["1", "2"]
    assert await texts(states=[S.CANCELLED]) == ["1"]
    assert await texts(states=[]) == []
    assert len(await outbox.view.list_rows()) == 6
    assert outbox.view.companies() == ["acme", "globex"]


async def test_every_listing_is_what_sorting_all_rows_would_give(outbox: SqliteOutbox) -> None:
    made: list[Row] = []
    for index in range(60):
        row = await accepted(outbox, str(index), company=f"company{index % 3}")
        if index % 4 == 1:
            row = await outbox.submissions.cancel(row.id)
        elif index % 4 == 2:
            row = (await outbox.handovers.begin(row.id)).row
            if index % 8 == 2:
                row = await outbox.handovers.mark_uncertain(row.id, "crash")
        made.append(row)
    choices = [None, [], [S.QUEUED], [S.UNCERTAIN, S.CANCELLED], [S.PLAYED], list(S)]
    for company in ("company0", "company2", "nobody", None):
        for states in choices:
            fitting = [
                row
                for row in made
                if (company is None or row.company == company)
                and (states is None or row.state in states)
            ]
            newest = list(reversed(fitting))
            assert await outbox.view.list_rows(company, states) == newest
            assert await outbox.view.list_rows(company, states, limit=4) == newest[:4]
            middle = made[31].id
            before = [row for row in newest if row.id < middle]
            assert (
                await outbox.view.list_rows(company, states, before=middle, limit=5) == before[:5]
            )
            after = [row for row in fitting if row.id > middle]
            assert await outbox.view.list_rows(company, states, after=middle, limit=5) == after[:5]


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


@pytest.mark.parametrize("row_id", ["", "zz", "0" * 15, "0" * 17, "F" * 16, "f" * 16, "0" * 16])
async def test_an_unknown_id_is_an_error(outbox: SqliteOutbox, row_id: str) -> None:
    for call in (
        outbox.view.get(row_id),
        outbox.submissions.cancel(row_id),
        outbox.handovers.begin(row_id),
        outbox.handovers.acknowledge(row_id, "M1", 1),
    ):
        with pytest.raises(UnknownMessage):
            await call


async def test_counts_agree_with_the_disk_after_everything(path: Path, clock) -> None:
    async with opened(path, clock) as (outbox, _):
        for index in range(40):
            row = await accepted(outbox, str(index), company=f"company{index % 3}")
            if index % 2:
                await outbox.handovers.begin(row.id)
            if index % 4 == 1:
                await outbox.handovers.acknowledge(row.id, f"M{index}", 1)
            if index % 8 == 1:
                await receipt(outbox, row.company, [f"M{index}"], "read", 1)
            if index % 10 == 0:
                await outbox.submissions.cancel(row.id)
        before = {company: outbox.view.counts(company) for company in outbox.view.companies()}
    async with opened(path, clock) as (outbox, _):
        assert {
            company: outbox.view.counts(company) for company in outbox.view.companies()
        } == before
    assert check(path) == []


async def test_the_age_of_the_queue(outbox: SqliteOutbox, clock) -> None:
    assert await outbox.view.oldest_queued() == {}
    first = await accepted(outbox)
    clock.now_ms += 50
    await accepted(outbox)
    assert await outbox.view.oldest_queued() == {"acme": first.created_ms}
    await outbox.handovers.begin(first.id)
    assert await outbox.view.oldest_queued() == {"acme": clock.now_ms}


async def test_hand_overs_are_remembered_for_the_limits(path: Path, clock) -> None:
    begin = clock.now_ms
    async with opened(path, clock) as (outbox, _):
        for index in range(4):
            clock.now_ms = begin + index * 1000
            row = await sending(outbox, chat=f"chat{index}")
            if index == 2:
                await outbox.handovers.mark_uncertain(row.id, "crash")
        await accepted(outbox)
    async with opened(path, clock) as (outbox, _):
        assert await outbox.view.sent_times("acme", begin + 1000) == [
            ("chat1", begin + 1000),
            ("chat2", begin + 2000),
            ("chat3", begin + 3000),
        ]


async def test_retention_deletes_what_is_finished_and_old(outbox: SqliteOutbox, clock) -> None:
    old = await sending(outbox, key="k")
    await outbox.handovers.acknowledge(old.id, "M1", 1)
    doubtful = await uncertain(outbox)
    queued = await accepted(outbox)
    read_lately = await sending(outbox)
    await outbox.handovers.acknowledge(read_lately.id, "M2", 1)
    clock.now_ms += 1000
    await receipt(outbox, "acme", ["M2"], "read", 2)
    fresh = await accepted(outbox)
    await outbox.submissions.cancel(fresh.id)
    assert await outbox.maintenance.retain(1000) == 0
    clock.now_ms += 1
    assert await outbox.maintenance.retain(1000) == 1
    left = {row.id for row in await outbox.view.list_rows()}
    assert left == {doubtful.id, queued.id, read_lately.id, fresh.id}
    assert outbox.view.counts("acme") == {S.UNCERTAIN: 1, S.QUEUED: 1, S.READ: 1, S.CANCELLED: 1}
    _, is_new = await outbox.submissions.accept(message(key="k"), LIMIT)
    assert is_new


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


async def test_a_companys_queue_can_be_cancelled(outbox: SqliteOutbox) -> None:
    for index in range(3):
        await accepted(outbox, str(index))
    row = await sending(outbox)
    assert await outbox.maintenance.cancel_queued("acme", "the company was removed") == 4 - 1
    assert outbox.view.counts("acme") == {S.CANCELLED: 3, S.SENDING: 1}
    assert (await outbox.view.get(row.id)).state is S.SENDING


# --- figures ----------------------------------------------------------------------------------


async def test_what_came_into_a_state_is_counted_whether_or_not_it_is_still_there(
    outbox: SqliteOutbox, clock
) -> None:
    row = await sending(outbox)
    await outbox.handovers.postpone(row.id, "try later", 0)
    await outbox.handovers.begin(row.id)
    await outbox.handovers.acknowledge(row.id, "WA1", 5)
    await accepted(outbox, company="globex")
    assert outbox.view.accepted("acme") == 1
    assert outbox.view.entered("acme") == {S.QUEUED: 2, S.SENDING: 2, S.SENT: 1}
    assert outbox.view.entered("globex") == {S.QUEUED: 1}
    assert outbox.view.entered("nobody") == {}
    clock.now_ms += 10**10
    await outbox.maintenance.retain(1)
    assert outbox.view.entered("acme")[S.SENT] == 1


async def test_the_oldest_queued_row_of_each_company_that_has_one(
    outbox: SqliteOutbox, clock
) -> None:
    assert await outbox.view.oldest_queued() == {}
    first_ms = clock.now_ms
    await accepted(outbox)
    clock.now_ms += 1000
    await accepted(outbox)
    row = await accepted(outbox, company="globex")
    assert await outbox.view.oldest_queued() == {"acme": first_ms, "globex": first_ms + 1000}
    await outbox.submissions.cancel(row.id)
    assert await outbox.view.oldest_queued() == {"acme": first_ms}
