"""The dispatcher's decisions: real store, real limits, and a worker whose answers the test writes.

What WhatsApp and its client library do is for the end-to-end tests. Here answers come, disks fail
and receipts arrive in moments that no real worker could be made to meet.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from whatsappd.errors import StoreFailed, WorkerFailed, WorkerGone, WrongState
from whatsappd.limits.memory import MemoryLimiter
from whatsappd.model.message import NewMessage, OnUncertain, OutboxState, Row
from whatsappd.model.session import SessionState
from whatsappd.rules.outreach import SendLimits
from whatsappd.sessions import dispatcher as dispatching
from whatsappd.sessions.batch import Batch
from whatsappd.sessions.counters import Counters
from whatsappd.sessions.dispatcher import Dispatcher
from whatsappd.sessions.holds import Holds
from whatsappd.sessions.pacing import Pacing, Shared, Verdict
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.companies import Companies
from whatsappd.store.contacts import Contacts
from whatsappd.store.database import Database, open_database
from whatsappd.store.events import open_event_log
from whatsappd.store.outbox import Outbox, open_outbox
from whatsappd.wire.worker import WorkerMethod

CHAT = "15550200@s.whatsapp.net"
NO_LIMITS = SendLimits(per_minute=0, per_phone_per_minute=0, cold_per_hour=0, cold_per_day=0)
#: whatsmeow's words for a passing refusal, and for an attempt of which nobody knows the fate.
PASSING = "server returned error 479"
UNKNOWN = "message timed out"
#: Seconds after which a test gives up.
PATIENCE = 10.0

Script = Callable[[int], Awaitable[None]]


async def nothing(_number: int) -> None:
    """Every attempt is acknowledged."""


class ScriptedWorker:
    """Acknowledges each attempt, unless `script`, given its number from 1, raises an error."""

    is_gone = False

    def __init__(self, script: Script) -> None:
        self._script = script
        self.sent: list[str] = []

    async def call(self, method: WorkerMethod, **arguments: Any) -> Any:
        assert method is WorkerMethod.SEND
        self.sent.append(arguments["text"])
        number = len(self.sent)
        await self._script(number)
        return {"message_id": f"M{number}", "timestamp_ms": number}


class ScriptedSession:
    """The part of a session that its dispatcher knows; the test changes its state."""

    def __init__(self, worker: ScriptedWorker) -> None:
        self.company = "acme"
        self.state = SessionState.CONNECTED
        self.handing_over = trio.Lock()
        self.counters = Counters()
        self.worker = worker
        self.traced: str | None = None
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

    def connected_worker(self, _purpose: str) -> ScriptedWorker:
        if self.state is not SessionState.CONNECTED:
            raise WrongState(f"not connected: {self.state}")
        return self.worker

    async def trace(self, _secret: bytes) -> str | None:
        return self.traced


class World:
    def __init__(self, database: Database, outbox: Outbox, pacing: Pacing, script: Script) -> None:
        self.database = database
        self.outbox = outbox
        self.worker = ScriptedWorker(script)
        self.session = ScriptedSession(self.worker)
        self.dispatcher = Dispatcher(
            self.session,  # type: ignore[arg-type]
            outbox,
            pacing,
            SessionSettings(retry_store_s=0.05),
        )

    async def accept(self, *texts: str, **changes: Any) -> list[Row]:
        return [
            (await self.outbox.accept(NewMessage("acme", CHAT, text)._replace(**changes), 100))[0]
            for text in texts
        ]

    async def run_until(self, row: Row, *states: OutboxState) -> Row:
        """Let the dispatcher run until `row` is in one of the states."""
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.dispatcher.run)
                ended = await self.outbox.wait(row.id, states)
                nursery.cancel_scope.cancel()
        return ended


@asynccontextmanager
async def world(path: Path, script: Script = nothing) -> AsyncIterator[World]:
    async with open_database(path / "whatsappd.db") as database:
        events = await open_event_log(database)
        outbox = await open_outbox(database, events)
        contacts = Contacts(database)
        await contacts.add("acme", [CHAT])
        shared = Shared(
            MemoryLimiter(), Companies(database), contacts, events, outbox, lambda: NO_LIMITS
        )
        yield World(database, outbox, Pacing("acme", shared), script)


def chance(monkeypatch: pytest.MonkeyPatch, delay_ms: float) -> None:
    """The first retry after a passing refusal is due after about this long."""
    monkeypatch.setattr(dispatching.random, "random", lambda: (delay_ms + 0.5) / 4000)


def first_raises(error: Exception) -> Script:
    async def script(number: int) -> None:
        if number == 1:
            raise error

    return script


# --- order ----------------------------------------------------------------------------------------


async def test_what_is_resent_goes_before_the_later_ones_of_its_chat(tmp_path: Path) -> None:
    async with world(tmp_path, first_raises(WorkerFailed(UNKNOWN))) as here:
        rows = await here.accept("A", "B", "C", on_uncertain=OnUncertain.RESEND)
        await here.run_until(rows[-1], OutboxState.SENT)
        assert here.worker.sent == ["A", "A", "B", "C"]


async def test_a_retry_that_is_due_at_once_goes_before_the_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance(monkeypatch, 0)
    async with world(tmp_path, first_raises(WorkerFailed(PASSING))) as here:
        rows = await here.accept("A", "B", "C")
        await here.run_until(rows[-1], OutboxState.SENT)
        assert here.worker.sent == ["A", "A", "B", "C"]


async def test_what_a_blip_put_back_goes_before_the_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as here:
        rows = await here.accept("A", "B", "C")
        begin, passing = here.outbox.begin, here.outbox.passing

        async def begin_in_a_blip(row_id: str) -> Any:
            handover = await begin(row_id)
            if handover.row.text == "A" and handover.row.attempts == 1:
                here.session.become(SessionState.RECONNECTING)
            return handover

        async def back_meanwhile(*arguments: Any) -> Row:
            row = await passing(*arguments)
            here.session.become(SessionState.CONNECTED)
            return row

        monkeypatch.setattr(here.outbox, "begin", begin_in_a_blip)
        monkeypatch.setattr(here.outbox, "passing", back_meanwhile)
        await here.run_until(rows[-1], OutboxState.SENT)
        assert here.worker.sent == ["A", "B", "C"]


# --- retries --------------------------------------------------------------------------------------


async def test_a_retry_that_falls_due_while_it_is_looked_for_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance(monkeypatch, 20)
    async with world(tmp_path, first_raises(WorkerFailed(PASSING))) as here:
        pending = here.outbox.pending

        async def slow(*arguments: Any, **keywords: Any) -> Any:
            found = await pending(*arguments, **keywords)
            await trio.sleep(0.04)  # as a long queue may take
            return found

        monkeypatch.setattr(here.outbox, "pending", slow)
        [row] = await here.accept("A")
        assert (await here.run_until(row, OutboxState.SENT)).attempts == 2


# --- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal", [PASSING, UNKNOWN, "server returned error 404", "websocket not connected"]
)
async def test_a_receipt_that_is_faster_than_a_refusal_counts(tmp_path: Path, refusal: str) -> None:
    """The first attempt arrived, though nobody knew when it was resent."""
    async with world(tmp_path, nothing) as here:

        async def script(number: int) -> None:
            if number == 1:
                raise WorkerFailed(UNKNOWN)
            if number == 2:
                await here.outbox.receipt("acme", ["M1"], "delivered", 1)
                raise WorkerFailed(refusal)

        here.worker._script = script
        here.session.traced = "M1"
        [row] = await here.accept("A", on_uncertain=OnUncertain.RESEND)
        [later] = await here.accept("B")
        await here.run_until(later, OutboxState.SENT)
        assert (await here.outbox.get(row.id)).state is OutboxState.DELIVERED
        assert here.worker.sent == ["A", "A", "B"]


async def test_while_the_disk_refuses_an_ack_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon ends while the ack is recorded at last: nothing is `sending` then."""
    async with world(tmp_path) as here:
        first, second = await here.accept("A", "B")
        both = here.outbox.acknowledged_and_begun
        alone = here.outbox.acknowledged
        writing, gate = trio.Event(), threading.Event()

        async def slowly(write: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.database.write, lambda _conn: gate.wait(PATIENCE))
                await trio.sleep(0.05)
                writing.set()
                return await write(*arguments)

        refused = False

        async def refuse_once(*arguments: Any) -> Any:
            nonlocal refused
            if not refused:
                refused = True
                raise StoreFailed("the disk is full")
            return await slowly(both, *arguments)

        monkeypatch.setattr(here.outbox, "acknowledged_and_begun", refuse_once)
        monkeypatch.setattr(here.outbox, "acknowledged", lambda *a: slowly(alone, *a))
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.dispatcher.run)
                await writing.wait()
                await trio.sleep(0.05)  # so that the write waits behind the gate
                nursery.cancel_scope.cancel()
                gate.set()
        await here.database.write(lambda _conn: None)
        assert (await here.outbox.get(first.id)).state is OutboxState.SENT
        assert (await here.outbox.get(second.id)).state is OutboxState.QUEUED


async def test_a_worker_that_went_is_given_nothing_more(tmp_path: Path) -> None:
    async with world(tmp_path) as here:

        async def script(_number: int) -> None:
            here.worker.is_gone = True
            raise WorkerGone("the worker went away before it answered")

        here.worker._script = script
        (first,) = await here.accept("A")
        (other,) = await here.accept("B", chat="15550300@s.whatsapp.net")
        with trio.move_on_after(0.3):
            await here.dispatcher.run()
        assert here.worker.sent == ["A"]
        assert (await here.outbox.get(first.id)).state is OutboxState.SENDING
        assert await here.outbox.get(other.id) == other


# --- strangers ------------------------------------------------------------------------------------


async def test_nobody_is_written_to_without_a_look_up_because_a_window_just_freed() -> None:
    class FreedInBetween:
        def check(self, _chat: str, *, is_cold: bool) -> Verdict:
            assert is_cold
            return Verdict(1, "full")

        async def admit(self, _chat: str, *, is_cold: bool) -> Verdict:
            raise AssertionError("its turn has not come")

    async def exists(_row: Row) -> bool:
        raise AssertionError("its turn has not come")

    row = Row._make([None] * len(Row._fields))._replace(id="1", chat=CHAT)
    holds = Holds()
    batch = Batch(
        [row],
        [CHAT],
        pacing=FreedInBetween(),
        holds=holds,
        exists=exists,  # type: ignore[arg-type]
    )
    assert await batch.next() is None
    assert holds.chats == {CHAT}
