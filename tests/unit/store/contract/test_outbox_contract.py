"""What the outbox promises: accepted once, in order, and honest about what became of a message."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing
from arrivals import receive

from whatsappd.errors import InvalidParams, KeyConflict, QueueFull, UnknownMessage, WrongState
from whatsappd.model.content import Text
from whatsappd.model.event import OUTBOX_STATE
from whatsappd.model.message import NewMessage, OnUncertain, Row
from whatsappd.model.message import OutboxState as S
from whatsappd.store.port import DaemonStore, EventLog, Outbox

LIMIT = 1000


@pytest.fixture
def log(store: DaemonStore) -> EventLog:
    return store.events


def message(text: str = "hello", **changes) -> NewMessage:
    return NewMessage("acme", "15550100@s.whatsapp.net", Text(text))._replace(**changes)


async def accepted(outbox: Outbox, text: str = "hello", **changes) -> Row:
    return (await outbox.submissions.accept(message(text, **changes), LIMIT))[0]


async def sending(outbox: Outbox, **changes) -> Row:
    row = await accepted(outbox, **changes)
    return (await outbox.handovers.begin(row.id)).row


async def uncertain(outbox: Outbox, **changes) -> Row:
    row = await sending(outbox, **changes)
    return await outbox.handovers.mark_uncertain(row.id, "worker died")


async def states_told(log: EventLog, row_id: str) -> list[tuple[str, str]]:
    batch = await log.read(0, 1000, types={OUTBOX_STATE})
    events = [stored.event for stored in batch.events]
    return [
        (event.data["cause"], event.data["state"]) for event in events if event.data["id"] == row_id
    ]


async def receipt(
    store: DaemonStore, company: str, ids: list[str], kind: str, time_ms: int
) -> list[Row]:
    """A receipt arrives; the rows that it changed, in the order of their messages."""
    before = await store.outbox.view.list_rows(company, limit=10_000)
    await receive(store.inbound, company, ids, kind, time_ms)
    now = [await store.outbox.view.get(row.id) for row in reversed(before)]
    return [row for row in now if row not in before]


async def test_the_event_is_in_the_log_with_the_row(outbox: Outbox, log: EventLog, clock) -> None:
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


async def test_concurrent_callers_with_one_key_make_one_row(outbox: Outbox) -> None:
    results: list[tuple[Row, bool]] = []

    async def call() -> None:
        results.append(await outbox.submissions.accept(message(key="k"), LIMIT))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(call)
    assert len({row.id for row, _ in results}) == 1
    assert Counter(is_new for _, is_new in results) == {True: 1, False: 99}
    assert outbox.view.counts("acme") == {S.QUEUED: 1}


async def test_the_same_key_with_other_content_is_refused(outbox: Outbox) -> None:
    row = await accepted(outbox, key="k")
    for changes in ({"content": Text("other")}, {"chat": "15550101@s.whatsapp.net"}):
        with pytest.raises(KeyConflict, match="'k'") as caught:
            await outbox.submissions.accept(message(key="k")._replace(**changes), LIMIT)
        assert caught.value.data == {"key": "k", "id": row.id}


async def test_a_full_queue_refuses_but_knows_its_keys(outbox: Outbox) -> None:
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


async def test_the_queue_limit_holds_for_concurrent_callers(outbox: Outbox) -> None:
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


async def test_the_whole_way(store: DaemonStore, outbox: Outbox, log: EventLog, clock) -> None:
    row = await accepted(outbox)
    clock.now_ms += 10
    handover = await outbox.handovers.begin(row.id)
    assert (handover.row.state, handover.row.attempts) == (S.SENDING, 1)
    assert handover.row.handed_ms == clock.now_ms
    assert len(handover.secret) == 32
    sent = await outbox.handovers.acknowledge(row.id, "M1", 123)
    assert (sent.state, sent.message_id, sent.sent_ms) == (S.SENT, "M1", 123)
    for kind in ("delivered", "read", "played"):
        (changed,) = await receipt(store, "acme", ["M1"], kind, 200)
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


async def test_an_ack_is_recorded_though_nothing_can_follow_it(outbox: Outbox, clock) -> None:
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


async def test_a_passing_failure_waits_for_its_next_try(outbox: Outbox, clock) -> None:
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


async def test_what_a_clock_that_was_ahead_postponed_waits_no_longer(outbox: Outbox, clock) -> None:
    row, behind = await sending(outbox), await accepted(outbox)
    clock.now_ms += 40 * 24 * 3600 * 1000
    await outbox.handovers.postpone(row.id, "429", clock.now_ms + 500)
    clock.now_ms -= 40 * 24 * 3600 * 1000
    assert [each.id for each in await outbox.handovers.pending("acme", 10)] == [row.id, behind.id]
    assert await outbox.handovers.next_due_ms("acme", clock.now_ms) is None


async def test_a_permanent_failure_is_final(outbox: Outbox) -> None:
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


async def test_only_a_queued_row_can_be_cancelled(outbox: Outbox) -> None:
    row = await accepted(outbox)
    assert (await outbox.submissions.cancel(row.id)).state is S.CANCELLED
    other = await sending(outbox)
    with pytest.raises(WrongState, match="sending"):
        await outbox.submissions.cancel(other.id)
    assert await outbox.handovers.pending("acme", 10) == []


async def test_a_row_is_begun_once(outbox: Outbox) -> None:
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


async def test_rows_expire_while_queued_and_only_then(outbox: Outbox, clock) -> None:
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


async def test_many_rows_expire_in_steps(outbox: Outbox, clock) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(1100):
            nursery.start_soon(outbox.submissions.accept, message(expires_ms=clock.now_ms), 10_000)
    assert await outbox.maintenance.expire(clock.now_ms) == 1100
    assert outbox.view.counts("acme") == {S.EXPIRED: 1100}


async def test_receipts_never_move_back(store: DaemonStore, outbox: Outbox) -> None:
    row = await sending(outbox)
    await outbox.handovers.acknowledge(row.id, "M1", 1)
    await receipt(store, "acme", ["M1"], "read", 2)
    assert await receipt(store, "acme", ["M1"], "delivered", 3) == []
    assert await receipt(store, "acme", ["M1"], "read", 3) == []
    assert (await outbox.view.get(row.id)).state is S.READ


async def test_one_receipt_for_several_messages(store: DaemonStore, outbox: Outbox) -> None:
    for index in range(3):
        row = await sending(outbox, text=str(index))
        await outbox.handovers.acknowledge(row.id, f"M{index}", 1)
    changed = await receipt(store, "acme", ["M0", "M2", "other"], "delivered", 2)
    assert [row.text for row in changed] == ["0", "2"]


async def test_an_early_receipt_of_another_company_is_not_taken(
    store: DaemonStore, outbox: Outbox
) -> None:
    await receipt(store, "globex", ["M1"], "read", 5)
    row = await sending(outbox)
    assert (await outbox.handovers.acknowledge(row.id, "M1", 3)).state is S.SENT


async def test_another_kind_of_receipt_is_an_error(store: DaemonStore, outbox: Outbox) -> None:
    with pytest.raises(InvalidParams, match="kind"):
        await receipt(store, "acme", ["M1"], "retry", 1)


async def test_an_ack_twice_changes_nothing(store: DaemonStore, outbox: Outbox) -> None:
    row = await sending(outbox)
    sent = await outbox.handovers.acknowledge(row.id, "M1", 1)
    await receipt(store, "acme", ["M1"], "delivered", 2)
    assert (await outbox.handovers.acknowledge(row.id, "M1", 1)).state is S.DELIVERED
    assert (await outbox.handovers.acknowledge(row.id, "M2", 9)).message_id == sent.message_id


@pytest.mark.parametrize(
    ("decision", "state"), [("sent", S.SENT), ("resend", S.QUEUED), ("failed", S.FAILED)]
)
async def test_a_person_resolves_what_is_uncertain(outbox: Outbox, decision: str, state: S) -> None:
    row = await uncertain(outbox)
    assert (await outbox.submissions.resolve(row.id, decision)).state is state
    with pytest.raises(WrongState):
        await outbox.submissions.resolve(row.id, decision)


async def test_resolving_needs_a_known_decision_and_an_uncertain_row(outbox: Outbox) -> None:
    row = await accepted(outbox)
    with pytest.raises(InvalidParams, match="decision"):
        await outbox.submissions.resolve(row.id, "maybe")
    for decision in ("sent", "resend", "failed"):
        with pytest.raises(WrongState, match="queued"):
            await outbox.submissions.resolve(row.id, decision)


async def test_a_receipt_resolves_an_attempt_whose_id_is_known(
    store: DaemonStore, outbox: Outbox
) -> None:
    row = await sending(outbox)
    row = await outbox.handovers.mark_uncertain(row.id, "worker died", message_id="M1")
    assert (row.state, row.message_id) == (S.UNCERTAIN, "M1")
    (resolved,) = await receipt(store, "acme", ["M1"], "delivered", 5)
    assert (resolved.id, resolved.state, resolved.lost_attempts) == (row.id, S.DELIVERED, 0)


async def test_an_id_found_later_takes_the_receipt_that_came_before(
    store: DaemonStore, outbox: Outbox
) -> None:
    row = await uncertain(outbox)
    await receipt(store, "acme", ["M1"], "delivered", 5)
    assert (await outbox.view.get(row.id)).state is S.UNCERTAIN
    assert (await outbox.handovers.identify(row.id, "M1")).state is S.DELIVERED


async def test_a_receipt_for_an_unknown_id_in_the_same_chat_proves_nothing(
    store: DaemonStore,
    outbox: Outbox,
) -> None:
    row = await uncertain(outbox)
    await receipt(store, "acme", ["written-on-the-phone"], "read", 5)
    assert (await outbox.view.get(row.id)).state is S.UNCERTAIN


async def test_a_late_ack_resolves_what_is_uncertain(outbox: Outbox) -> None:
    row = await uncertain(outbox)
    row = await outbox.handovers.acknowledge(row.id, "M1", 5)
    assert (row.state, row.message_id, row.lost_attempts) == (S.SENT, "M1", 0)


async def test_proof_stops_a_resend_that_has_not_begun(outbox: Outbox) -> None:
    row = await uncertain(outbox, on_uncertain=OnUncertain.RESEND)
    assert row.state is S.QUEUED
    assert (await outbox.handovers.acknowledge(row.id, "M1", 5)).state is S.SENT
    assert await outbox.handovers.pending("acme", 10) == []


async def test_proof_that_it_never_left_queues_it_again(outbox: Outbox) -> None:
    row = await uncertain(outbox)
    row = await outbox.handovers.requeue_unsent(row.id, "no trace of it in the session's database")
    assert (row.state, row.lost_attempts) == (S.QUEUED, 0)


async def test_order_is_kept_per_chat_and_chats_do_not_wait_for_each_other(
    outbox: Outbox, clock
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


async def test_an_expired_row_holds_nobody_back(outbox: Outbox, clock) -> None:
    row = await sending(outbox, expires_ms=clock.now_ms + 5)
    await outbox.handovers.postpone(row.id, "later", clock.now_ms + 1000)
    after = await accepted(outbox)
    clock.now_ms += 5
    assert [each.id for each in await outbox.handovers.pending("acme", 10)] == [after.id]


async def test_a_row_whose_time_passed_is_not_handed_over(outbox: Outbox, log, clock) -> None:
    row = await accepted(outbox, expires_ms=clock.now_ms + 5)
    clock.now_ms += 5
    with pytest.raises(WrongState, match="time to live"):
        await outbox.handovers.begin(row.id)
    assert (await outbox.view.get(row.id)).state is S.EXPIRED
    assert await states_told(log, row.id) == [("accepted", "queued"), ("expired", "expired")]


async def test_a_repetition_is_found_before_anything_is_asked_of_it(outbox: Outbox) -> None:
    row = await accepted(outbox, key="k")
    assert await outbox.submissions.find(message(key="k")) == row
    assert await outbox.submissions.find(message(key="other")) is None
    assert await outbox.submissions.find(message()) is None
    with pytest.raises(KeyConflict):
        await outbox.submissions.find(message("other", key="k"))


async def test_an_attempt_that_cannot_be_traced_is_uncertain_for_good(outbox: Outbox) -> None:
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


async def test_waiting_for_a_state(store: DaemonStore, outbox: Outbox) -> None:
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
        await receipt(store, "acme", ["M1"], "delivered", 2)
    assert results == [S.SENT, S.DELIVERED]
    await wait(S.DELIVERED)  # it is there already


async def test_waiting_ends_when_the_state_is_out_of_reach(outbox: Outbox) -> None:
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


async def test_the_dispatcher_misses_no_change(outbox: Outbox) -> None:
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


async def test_listing_pages_through_rows(outbox: Outbox) -> None:
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


async def test_every_listing_is_what_sorting_all_rows_would_give(outbox: Outbox) -> None:
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


@pytest.mark.parametrize("row_id", ["", "zz", "0" * 15, "0" * 17, "F" * 16, "f" * 16, "0" * 16])
async def test_an_unknown_id_is_an_error(outbox: Outbox, row_id: str) -> None:
    for call in (
        outbox.view.get(row_id),
        outbox.submissions.cancel(row_id),
        outbox.handovers.begin(row_id),
        outbox.handovers.acknowledge(row_id, "M1", 1),
    ):
        with pytest.raises(UnknownMessage):
            await call


async def test_the_age_of_the_queue(outbox: Outbox, clock) -> None:
    assert await outbox.view.oldest_queued() == {}
    first = await accepted(outbox)
    clock.now_ms += 50
    await accepted(outbox)
    assert await outbox.view.oldest_queued() == {"acme": first.created_ms}
    await outbox.handovers.begin(first.id)
    assert await outbox.view.oldest_queued() == {"acme": clock.now_ms}


async def test_retention_deletes_what_is_finished_and_old(
    store: DaemonStore, outbox: Outbox, clock
) -> None:
    old = await sending(outbox, key="k")
    await outbox.handovers.acknowledge(old.id, "M1", 1)
    doubtful = await uncertain(outbox)
    queued = await accepted(outbox)
    read_lately = await sending(outbox)
    await outbox.handovers.acknowledge(read_lately.id, "M2", 1)
    clock.now_ms += 1000
    await receipt(store, "acme", ["M2"], "read", 2)
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


async def test_a_companys_queue_can_be_cancelled(outbox: Outbox) -> None:
    for index in range(3):
        await accepted(outbox, str(index))
    row = await sending(outbox)
    assert await outbox.maintenance.cancel_queued("acme", "the company was removed") == 4 - 1
    assert outbox.view.counts("acme") == {S.CANCELLED: 3, S.SENDING: 1}
    assert (await outbox.view.get(row.id)).state is S.SENDING


async def test_what_came_into_a_state_is_counted_whether_or_not_it_is_still_there(
    outbox: Outbox, clock
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


async def test_the_oldest_queued_row_of_each_company_that_has_one(outbox: Outbox, clock) -> None:
    assert await outbox.view.oldest_queued() == {}
    first_ms = clock.now_ms
    await accepted(outbox)
    clock.now_ms += 1000
    await accepted(outbox)
    row = await accepted(outbox, company="globex")
    assert await outbox.view.oldest_queued() == {"acme": first_ms, "globex": first_ms + 1000}
    await outbox.submissions.cancel(row.id)
    assert await outbox.view.oldest_queued() == {"acme": first_ms}
