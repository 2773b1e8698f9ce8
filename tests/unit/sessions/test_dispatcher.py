"""The dispatcher's decisions: real limits, and a store and a worker that do what the test says.

What WhatsApp and its client library do is for the end-to-end tests. Here answers come, disks fail
and receipts arrive in moments that no real worker could be made to meet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec.structs as structs
import pytest
import trio
import trio.testing
from arrivals import ask_again, receive
from fake_engine import PASSING, PERMANENT, UNKNOWN, FakeWorker, Script, acknowledge_all

from whatsappd import clock
from whatsappd.clock import now_ms, settled_ms
from whatsappd.engines.protocol import SendRefusal
from whatsappd.errors import StoreFailed, WhatsappdError, WorkerGone, WrongState
from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.port import LimitKey
from whatsappd.limits.settings import SendLimits
from whatsappd.model.arrival import Arrival
from whatsappd.model.content import Text
from whatsappd.model.durations import MINUTE_MS
from whatsappd.model.event import MESSAGE_RECEIVED, Draft
from whatsappd.model.message import NewMessage, OnUncertain, OutboxState, Row
from whatsappd.model.session import SessionState
from whatsappd.rules.reply_priority import REPLY_WINDOW_MS
from whatsappd.sessions import dispatcher
from whatsappd.sessions.counters import SessionCounters
from whatsappd.sessions.dispatcher import Dispatcher
from whatsappd.sessions.pacing import Pacing, PacingParts, PacingVerdict
from whatsappd.sessions.rate_holds import RateHolds
from whatsappd.sessions.sendable_rows import LookUp, SendableRows
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.memory.store import store_in_memory
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.store.port import DaemonStore

CHAT = "15550200@s.whatsapp.net"
FRIEND, OTHERS = "15550300@s.whatsapp.net", "15550400@s.whatsapp.net"
NO_LIMITS = SendLimits(per_minute=0, per_phone_per_minute=0, cold_per_hour=0, cold_per_day=0)
#: Seconds after which a test gives up.
PATIENCE = 10.0


class ScriptedSession:
    """The part of a session that its dispatcher knows; the test changes its state."""

    def __init__(self, worker: FakeWorker) -> None:
        self.company = "acme"
        self.state = SessionState.CONNECTED
        self.handing_over = trio.Lock()
        self.counters = SessionCounters()
        self.worker = worker
        self.traced: str | None = None
        self.replaced = 0
        self._changed = trio.Event()

    @property
    def can_send(self) -> bool:
        return self.state is SessionState.CONNECTED and not self.worker.is_gone

    def become(self, state: SessionState) -> None:
        self.state = state
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        await self._changed.wait()

    def connected_worker(self, purpose: str) -> FakeWorker:
        if self.state is not SessionState.CONNECTED:
            raise WrongState(f"not connected: {self.state}")
        return self.worker

    async def replace_stuck_worker(self) -> None:
        self.replaced += 1

    async def replace_worker(self) -> None:
        raise AssertionError("no hand-over was cut off")

    async def replace_hung_worker(self) -> None:
        raise AssertionError("no worker hung")

    async def trace(self, secret: bytes) -> str | None:
        return self.traced


class World:
    limiter: MemoryLimiter

    def __init__(
        self, tables: MemoryTables, store: DaemonStore, pacing: Pacing, script: Script
    ) -> None:
        self.tables = tables
        self.outbox = store.outbox
        self.intake = store.inbound
        self.worker = FakeWorker(script)
        self.session = ScriptedSession(self.worker)
        self.dispatcher = Dispatcher(
            self.session,
            store.outbox,
            pacing,
            SessionSettings(retry_store_s=0.05, slow_ack_s=0.3, late_ack_s=0.3),
        )

    async def accept(self, *texts: str, **changes: Any) -> list[Row]:
        return [
            (
                await self.outbox.submissions.accept(
                    NewMessage("acme", CHAT, Text(text))._replace(**changes), 1000
                )
            )[0]
            for text in texts
        ]

    async def run_until(self, row: Row, *states: OutboxState) -> Row:
        """Let the dispatcher run until `row` is in one of the states."""
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.dispatcher.run)
                ended = await self.outbox.view.wait(row.id, states)
                nursery.cancel_scope.cancel()
        return ended


@asynccontextmanager
async def world(
    script: Script = acknowledge_all, limits: SendLimits = NO_LIMITS
) -> AsyncIterator[World]:
    tables = MemoryTables(settled_ms)
    store = store_in_memory(tables)
    limiter = MemoryLimiter()
    await store.acquaintances.add("acme", [CHAT, FRIEND, OTHERS])
    shared = PacingParts(limiter, store, lambda: limits)
    made = World(tables, store, Pacing("acme", shared), script)
    made.limiter = limiter
    yield made


def chance(monkeypatch: pytest.MonkeyPatch, delay_ms: float) -> None:
    """The first retry after a passing refusal is due after about this long."""
    monkeypatch.setattr(dispatcher.random, "random", lambda: (delay_ms + 0.5) / 4000)


def first_refused(refusal: SendRefusal) -> Script:
    async def script(number: int) -> SendRefusal | None:
        return refusal if number == 1 else None

    return script


# --- order ----------------------------------------------------------------------------------------


async def test_what_is_resent_goes_before_the_later_ones_of_its_chat() -> None:
    async with world(first_refused(UNKNOWN)) as here:
        rows = await here.accept("A", "B", "C", on_uncertain=OnUncertain.RESEND)
        await here.run_until(rows[-1], OutboxState.SENT)
        assert here.worker.sent == ["A", "A", "B", "C"]


async def test_a_retry_that_is_due_at_once_goes_before_the_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance(monkeypatch, 0)
    async with world(first_refused(PASSING)) as here:
        rows = await here.accept("A", "B", "C")
        await here.run_until(rows[-1], OutboxState.SENT)
        assert here.worker.sent == ["A", "A", "B", "C"]


async def test_what_a_blip_put_back_goes_before_the_later_ones() -> None:
    async with world() as here:
        rows = await here.accept("A", "B", "C")
        here.tables.meanwhile("begin", lambda: here.session.become(SessionState.RECONNECTING))
        here.tables.meanwhile("postpone", lambda: here.session.become(SessionState.CONNECTED))
        await here.run_until(rows[-1], OutboxState.SENT)
        assert here.worker.sent == ["A", "B", "C"]
        assert (await here.outbox.view.get(rows[0].id)).attempts == 2


# --- retries --------------------------------------------------------------------------------------


async def test_a_retry_that_falls_due_while_it_is_looked_for_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance(monkeypatch, 3000)
    passed_ms = 0

    def time_passes() -> None:
        nonlocal passed_ms
        passed_ms = 10_000
        clock.follow(passed_ms)

    async with world() as here:

        async def script(number: int) -> SendRefusal | None:
            if number == 1:
                # As a look through a long queue may take.
                here.tables.meanwhile("pending", time_passes)
            return PASSING if number == 1 else None

        here.worker.script = script
        [row] = await here.accept("A")
        try:
            assert (await here.run_until(row, OutboxState.SENT)).attempts == 2
        finally:
            clock.follow(-passed_ms)
        assert passed_ms


# --- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [PASSING, UNKNOWN, PERMANENT], ids=lambda each: str(each.fate))
async def test_a_receipt_that_is_faster_than_a_refusal_counts(refusal: SendRefusal) -> None:
    """The first attempt arrived, though nobody knew when it was resent."""
    async with world(acknowledge_all) as here:

        async def script(number: int) -> SendRefusal | None:
            if number == 1:
                return UNKNOWN
            if number == 2:
                await receive(here.intake, "acme", ["M1"], "delivered", 1)
                return refusal
            return None

        here.worker.script = script
        here.session.traced = "M1"
        [row] = await here.accept("A", on_uncertain=OnUncertain.RESEND)
        [later] = await here.accept("B")
        await here.run_until(later, OutboxState.SENT)
        assert (await here.outbox.view.get(row.id)).state is OutboxState.DELIVERED
        assert here.worker.sent == ["A", "A", "B"]


async def test_while_the_disk_refuses_an_ack_nothing_is_begun() -> None:
    """The daemon ends while the ack is recorded at last: nothing is `sending` then."""
    async with world() as here:
        first, second = await here.accept("A", "B")
        here.tables.refuse("acknowledge_and_begin", times=1)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for operation in ("acknowledge", "acknowledge_and_begin"):
                    here.tables.meanwhile(operation, nursery.cancel_scope.cancel)
                nursery.start_soon(here.dispatcher.run)
        assert (await here.outbox.view.get(first.id)).state is OutboxState.SENT
        assert (await here.outbox.view.get(second.id)).state is OutboxState.QUEUED


@pytest.mark.parametrize("error", [StoreFailed("the disk is full"), WrongState("it was faster")])
async def test_one_that_could_not_be_begun_is_not_overtaken_in_its_chat(
    error: WhatsappdError,
) -> None:
    async with world() as here:
        first, *_, last = await here.accept("A", "B", "C")

        async def script(number: int) -> None:
            if number == 1 and isinstance(error, WrongState):
                await here.outbox.handovers.acknowledge(first.id, "M1", 1)

        here.worker.script = script
        here.tables.refuse("acknowledge_and_begin", error, times=1)
        await here.run_until(last, OutboxState.SENT)
        assert here.worker.sent == ["A", "B", "C"]


async def test_a_worker_that_went_is_given_nothing_more() -> None:
    async with world() as here:

        async def script(_number: int) -> None:
            here.worker.is_gone = True
            raise WorkerGone("the worker went away before it answered")

        here.worker.script = script
        (first,) = await here.accept("A")
        (other,) = await here.accept("B", chat="15550300@s.whatsapp.net")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.dispatcher.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert here.worker.sent == ["A"]
        assert (await here.outbox.view.get(first.id)).state is OutboxState.SENDING
        assert await here.outbox.view.get(other.id) == other


# --- strangers ------------------------------------------------------------------------------------


async def test_nobody_is_written_to_without_a_look_up_because_a_window_just_freed() -> None:
    class FreedInBetween:
        def check(self, _chat: str, *, is_cold: bool) -> PacingVerdict:
            assert is_cold
            return PacingVerdict(1, "full")

        async def admit(self, _chat: str, *, is_cold: bool) -> PacingVerdict:
            raise AssertionError("its turn has not come")

    class Owner:
        async def look_up(self, _row: Row) -> LookUp:
            raise AssertionError("its turn has not come")

        def is_overtaken(self) -> bool:
            return False

    row = Row._make([None] * len(Row._fields))._replace(id="1", chat=CHAT)
    holds = RateHolds()
    turn = SendableRows([row], [CHAT], FreedInBetween(), holds, Owner())
    assert await turn.next() is None
    assert holds.chats == {CHAT}


# --- answers go first -----------------------------------------------------------------------------


async def wrote(here: World, *people: str) -> None:
    """These people write to the company now."""
    await here.intake.take(
        "acme",
        [
            Arrival(Draft("acme", MESSAGE_RECEIVED, {}), people=[who], writers=[who])
            for who in people
        ],
    )


async def test_an_answer_leaves_before_a_batch_that_was_queued_first() -> None:
    async with world() as here:
        gate = trio.Event()

        async def script(number: int) -> None:
            if number == 1:
                await wrote(here, FRIEND)
                await here.accept("answer", chat=FRIEND)
                gate.set()

        here.worker.script = script
        batch = await here.accept(*(f"bulk {n}" for n in range(60)))
        await here.run_until(batch[-1], OutboxState.SENT)
        assert gate.is_set()
        # The second of the batch was begun together with the record of the first.
        assert here.worker.sent.index("answer") <= 2
        bulk = [text for text in here.worker.sent if text != "answer"]
        assert bulk == [f"bulk {n}" for n in range(60)]


async def test_the_next_place_within_a_full_limit_is_the_answers() -> None:
    """30 a minute were sent, a hundred more wait, and then somebody is answered."""
    async with world(limits=structs.replace(NO_LIMITS, per_minute=30)) as here:
        batch = await here.accept(*(f"bulk {n}" for n in range(100)))
        # A minute's worth went a minute ago, but for half a second and five.
        key = LimitKey("acme", 30, MINUTE_MS)
        here.limiter.restore(key, [now_ms() - MINUTE_MS + 500])
        here.limiter.restore(key, [now_ms() - MINUTE_MS + 60_000] * 29)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.dispatcher.run)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert here.worker.sent == []
                await wrote(here, FRIEND)
                (answer,) = await here.accept("answer", chat=FRIEND)
                await here.outbox.view.wait(answer.id, [OutboxState.SENT])
                nursery.cancel_scope.cancel()
        assert here.worker.sent == ["answer"]
        assert (await here.outbox.view.get(batch[0].id)).state is OutboxState.QUEUED


async def test_what_was_queued_before_the_question_is_an_answer_too() -> None:
    async with world() as here:
        await here.accept("bulk 1", "bulk 2")
        early, late = await here.accept("early", "late", chat=FRIEND)
        await wrote(here, FRIEND)
        assert [row.text for row in await here.outbox.handovers.pending("acme", 9)] == [
            "early",
            "late",
        ]
        assert (await here.outbox.view.get(early.id)).is_reply
        await here.run_until(late, OutboxState.SENT)
        assert here.worker.sent[:2] == ["early", "late"]


async def test_answers_leave_every_fifth_message_to_the_others() -> None:
    async with world() as here:
        await wrote(here, FRIEND)
        bulk = await here.accept(*(f"bulk {n}" for n in range(3)))
        answers = await here.accept(*(f"answer {n}" for n in range(12)), chat=FRIEND)
        await here.run_until(answers[-1], OutboxState.SENT)
        await here.run_until(bulk[-1], OutboxState.SENT)
        kinds = "".join("b" if text.startswith("bulk") else "a" for text in here.worker.sent)
        assert kinds == "aaaabaaaabaaaab"
        assert [text for text in here.worker.sent if "answer" in text] == [
            f"answer {n}" for n in range(12)
        ]


async def test_who_wrote_long_ago_waits_like_everybody() -> None:
    async with world() as here:
        here.tables.clock = lambda: settled_ms() - REPLY_WINDOW_MS - 1000
        await wrote(here, FRIEND)
        here.tables.clock = settled_ms
        await here.accept("bulk")
        (row,) = await here.accept("no answer", chat=FRIEND)
        assert not row.is_reply
        await here.run_until(row, OutboxState.SENT)
        assert here.worker.sent == ["bulk", "no answer"]


async def test_two_spellings_of_a_person_are_one_chat_in_one_order() -> None:
    async with world() as here:
        (first,) = await here.accept("one", chat=OTHERS)
        (second,) = await here.accept("two", chat=FRIEND)
        (third,) = await here.accept("three", chat=OTHERS, key="k")
        await here.outbox.handovers.readdress("acme", OTHERS, FRIEND)
        rows = [await here.outbox.view.get(row.id) for row in (first, second, third)]
        assert {row.chat for row in rows} == {FRIEND}
        assert [row.asked for row in rows] == [OTHERS, None, OTHERS]
        (fourth,) = await here.accept("four", chat=OTHERS)
        assert (fourth.chat, fourth.asked) == (FRIEND, OTHERS)
        (same,) = await here.accept("three", chat=OTHERS, key="k")
        assert same.id == third.id
        assert [row.text for row in await here.outbox.handovers.pending("acme", 9)] == [
            "one", "two", "three", "four",
        ]  # fmt: skip
        await here.outbox.handovers.postpone(
            (await here.outbox.handovers.begin(first.id)).row.id, "later", 2**60
        )
        later = now_ms() + 60_000
        await here.outbox.handovers.postpone(
            (await here.outbox.handovers.begin(second.id)).row.id, "later", later
        )
        assert [row.text for row in await here.outbox.handovers.pending("acme", 9)] == ["one"]


# --- a missing ack --------------------------------------------------------------------------------


async def test_a_receipt_settles_a_message_whose_ack_does_not_come() -> None:
    async with world() as here:

        async def script(number: int) -> None:
            if number == 1:
                await receive(here.intake, "acme", ["LOST"], "delivered", 1)
                await trio.sleep_forever()

        here.worker.script = script
        here.session.traced = "LOST"
        first, second = await here.accept("A", "B")
        row = await here.run_until(second, OutboxState.SENT)
        settled = await here.outbox.view.get(first.id)
        assert (settled.state, settled.message_id) == (OutboxState.DELIVERED, "LOST")
        assert here.session.replaced == 1
        assert (row.attempts, here.worker.sent) == (1, ["A", "B"])


async def test_an_ack_that_is_only_late_replaces_nothing() -> None:
    async with world() as here:
        moved = trio.Event()

        async def script(number: int) -> None:
            if number == 1:
                await receive(here.intake, "acme", ["M1"], "delivered", 1)
                await moved.wait()

        here.worker.script = script
        here.session.traced = "M1"
        first, second = await here.accept("A", "B")
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.dispatcher.run)
                await here.outbox.view.wait(first.id, [OutboxState.DELIVERED])
                moved.set()
                await here.outbox.view.wait(second.id, [OutboxState.SENT])
                nursery.cancel_scope.cancel()
        assert here.session.replaced == 0
        assert (await here.outbox.view.get(first.id)).sent_ms == 1


# --- a message that a device could not read -------------------------------------------------------


async def test_what_nobody_could_read_is_sent_anew_once() -> None:
    async with world() as here:
        (row,) = await here.accept("A")
        await here.run_until(row, OutboxState.SENT)
        device = "100200300:4@lid"
        sent = await here.outbox.view.get(row.id)
        await ask_again(here.intake, "acme", "M1", FRIEND, device)  # not theirs
        await ask_again(here.intake, "acme", "M9", CHAT, device)
        assert await here.outbox.view.get(row.id) == sent
        await ask_again(here.intake, "acme", "M1", CHAT, device)
        queued = await here.outbox.view.get(row.id)
        assert (queued.state, queued.former_message_id) == (OutboxState.QUEUED, "M1")
        await ask_again(here.intake, "acme", "M1", CHAT, device)
        assert queued == await here.outbox.view.get(row.id)
        sent = await here.run_until(row, OutboxState.SENT)
        assert (sent.message_id, sent.former_message_id, sent.attempts) == ("M2", "M1", 2)
        # Once is enough: the row says that it may not have arrived.
        await ask_again(here.intake, "acme", "M2", CHAT, device)
        again = await here.outbox.view.get(row.id)
        assert again.state is OutboxState.SENT
        assert "may not have arrived" in (again.reason or "")
        # A receipt counts by either id.
        await receive(here.intake, "acme", ["M1"], "delivered", 1)
        assert (await here.outbox.view.get(row.id)).state is OutboxState.DELIVERED
        await receive(here.intake, "acme", ["M2"], "read", 1)
        assert (await here.outbox.view.get(row.id)).state is OutboxState.READ
        await ask_again(here.intake, "acme", "M2", CHAT, device)
        late = await here.outbox.view.get(row.id)
        assert late.state is OutboxState.READ
        assert "another device" in (late.reason or "")


async def test_a_group_never_gets_a_message_twice() -> None:
    async with world() as here:
        group = "120363000000000001@g.us"
        (row,) = await here.accept("A", chat=group)
        await here.run_until(row, OutboxState.SENT)
        await ask_again(here.intake, "acme", "M1", group, "100200300:4@lid")
        told = await here.outbox.view.get(row.id)
        assert told.state is OutboxState.SENT
        assert "others of the group" in (told.reason or "")
