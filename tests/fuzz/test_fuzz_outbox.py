"""The outbox, moved about in any order, and crashed: against the table of `rules.delivery`."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from arrivals import intake_of, receive
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
)
from machines import run_machine

from whatsappd.errors import KeyConflict, QueueFull, WrongState
from whatsappd.model.content import Text
from whatsappd.model.event import OUTBOX_STATE
from whatsappd.model.message import NewMessage, OnUncertain, OutboxState
from whatsappd.rules.delivery import RECEIPTS, TRANSITIONS, Cause
from whatsappd.sessions.handover import give_up_orphans
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import SqliteEventLog, open_event_log
from whatsappd.store.sqlite.outbox import open_outbox

QUEUE_LIMIT = 6
START_MS = 1_700_000_000_000


class Store:
    """An outbox in a thread of its own, which can lose its power."""

    def __init__(self, file: Path, clock: Callable[[], int]) -> None:
        file.parent.mkdir(exist_ok=True)
        self._file = file
        self._clock = clock
        self._up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,))
        self._thread.start()
        assert self._up.wait(30)

    async def _serve(self) -> None:
        async with open_database(self._file) as database:
            self.log: SqliteEventLog = await open_event_log(database, clock=self._clock)
            self.outbox = await open_outbox(database, self.log, clock=self._clock)
            self.intake = intake_of(database, self.log, self.outbox)
            self._token = trio.lowlevel.current_trio_token()
            self._closing = trio.Event()
            self._up.set()
            await self._closing.wait()

    def do(self, call: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        async def run() -> Any:
            with trio.fail_after(30):
                return await call(*arguments, **named)

        return trio.from_thread.run(run, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._closing.set, trio_token=self._token)
        self._thread.join(30)


class OutboxMachine(RuleBasedStateMachine):
    """What every step leaves: no row is lost, every change is one that the table has, and the log
    tells all of them, without a gap."""

    rows = Bundle("rows")

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="wf-")
        self._lives = 0
        self.now_ms = START_MS
        self.accepted: dict[str, NewMessage] = {}
        self.by_key: dict[str, tuple[str, str, str]] = {}  # key to chat, text, id
        self.store = self._open()

    def _open(self) -> Store:
        return Store(self._file(), lambda: self.now_ms)

    def _file(self) -> Path:
        return Path(self._directory.name) / str(self._lives) / "whatsappd.db"

    def teardown(self) -> None:
        self.store.close()
        self._directory.cleanup()

    def _try(self, call: str, *arguments: Any, **named: Any) -> None:
        """A change that the table may refuse; `the_log_tells_every_change` judges what it did."""
        try:
            self.store.do(attrgetter(call)(self.store), *arguments, **named)
        except WrongState as error:
            assert error.message

    # --- senders ------------------------------------------------------------------------------

    @rule(
        target=rows,
        chat=st.sampled_from(("1@lid", "2@lid")),
        text=st.sampled_from(("a", "b\0\r\U0001f4a9")),
        key=st.none() | st.sampled_from(("k1", "k2", "k3")),
        ttl_ms=st.none() | st.sampled_from((1, 1000)),
        on_uncertain=st.sampled_from(OnUncertain),
    )
    def accept(
        self, chat: str, text: str, key: str | None, ttl_ms: int | None, on_uncertain: OnUncertain
    ) -> Any:
        expires_ms = None if ttl_ms is None else self.now_ms + ttl_ms
        new = NewMessage("acme", chat, Text(text), key, expires_ms, on_uncertain)
        known = self.by_key.get(key) if key is not None else None
        try:
            row, created = self.store.do(self.store.outbox.submissions.accept, new, QUEUE_LIMIT)
        except KeyConflict:
            assert known is not None
            assert known[:2] != (chat, text)
            return multiple()
        except QueueFull:
            assert known is None
            counts = self.store.outbox.view.counts("acme")
            assert counts[OutboxState.QUEUED] + counts.get(OutboxState.SENDING, 0) >= QUEUE_LIMIT
            return multiple()
        if known is not None:
            assert (row.chat, row.text, row.id, created) == (*known, False)
            return multiple()
        assert created
        assert row.id not in self.accepted
        self.accepted[row.id] = new
        if key is not None:
            self.by_key[key] = (chat, text, row.id)
        return row.id

    @rule(row=rows)
    def cancel(self, row: str) -> None:
        self._try("outbox.submissions.cancel", row)

    @rule(row=rows, decision=st.sampled_from(("sent", "resend", "failed")))
    def resolve(self, row: str, decision: str) -> None:
        self._try("outbox.submissions.resolve", row, decision)

    # --- the dispatcher and WhatsApp ----------------------------------------------------------

    @rule(row=rows)
    def begin(self, row: str) -> None:
        self._try("outbox.handovers.begin", row)

    @rule(row=rows, attempt=st.integers(0, 1))
    def acknowledge(self, row: str, attempt: int) -> None:
        self._try("outbox.handovers.acknowledge", row, f"{row}-{attempt}", self.now_ms)

    @rule(row=rows, how=st.sampled_from(("fail", "requeue_unsent")))
    def learn(self, row: str, how: str) -> None:
        self._try(f"outbox.handovers.{how}", row, "for a reason")

    @rule(row=rows)
    def postpone(self, row: str) -> None:
        self._try("outbox.handovers.postpone", row, "not now", self.now_ms + 500)

    @rule(row=rows, message_id=st.none() | st.integers(0, 1))
    def lose(self, row: str, message_id: int | None) -> None:
        known = None if message_id is None else f"{row}-{message_id}"
        self._try("outbox.handovers.mark_uncertain", row, "nobody knows", message_id=known)

    @rule(row=rows, attempt=st.integers(0, 1))
    def identify(self, row: str, attempt: int) -> None:
        self._try("outbox.handovers.identify", row, f"{row}-{attempt}")

    @rule(row=rows, attempt=st.integers(0, 1), kind=st.sampled_from(RECEIPTS))
    def receipt(self, row: str, attempt: int, kind: Cause) -> None:
        ids = [f"{row}-{attempt}", "of somebody else"]
        self.store.do(receive, self.store.intake, "acme", ids, str(kind), self.now_ms)

    # --- time, and the loss of power ----------------------------------------------------------

    @rule(milliseconds=st.sampled_from((1, 600, 5000)))
    def wait(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.store.do(self.store.outbox.maintenance.expire, self.now_ms)

    @rule()
    def crash(self) -> None:
        """What was answered is in the files; a daemon finds no more than those."""
        old = self._file().parent
        self._lives += 1
        shutil.copytree(old, self._file().parent, ignore=shutil.ignore_patterns("*-shm"))
        abandoned, self.store = self.store, self._open()
        abandoned.close()
        shutil.rmtree(old)
        self.store.do(give_up_orphans, self.store.outbox.handovers, ())

    # --- what holds ---------------------------------------------------------------------------

    @invariant()
    def the_log_tells_every_change(self) -> None:
        batch = self.store.do(self.store.log.read, 0, 10_000)
        assert [stored.seq for stored in batch.events] == list(range(1, batch.last + 1))
        assert batch.last == self.store.log.last_seq
        states: dict[str, OutboxState] = {}
        for stored in batch.events:
            assert stored.type == OUTBOX_STATE
            told = stored.event.data
            state = OutboxState(told["state"])
            if told["previous"] is None:
                assert (told["cause"], state) == ("accepted", OutboxState.QUEUED)
                assert told["id"] not in states
            else:
                before = states[told["id"]]
                assert before == told["previous"]
                assert TRANSITIONS[before][Cause(told["cause"])] is state
            states[told["id"]] = state
        rows = self.store.do(self.store.outbox.view.list_rows, limit=10_000)
        assert {row.id: row.state for row in rows} == states
        assert set(states) == set(self.accepted)
        for row in rows:
            new = self.accepted[row.id]
            assert (row.chat, row.content, row.key) == (new.chat, new.content, new.key)
        counted = {state: list(states.values()).count(state) for state in set(states.values())}
        assert self.store.outbox.view.counts("acme") == counted


def test_no_order_of_things_loses_a_message_or_leaves_the_table() -> None:
    run_machine(OutboxMachine, examples=4, steps=30, derandomize=True)


@pytest.mark.soak
def test_no_order_of_things_does_in_many_runs() -> None:
    run_machine(OutboxMachine, examples=150, steps=60, derandomize=False)
