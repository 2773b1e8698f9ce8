"""Attempts that an earlier worker left without an answer: each is settled, whatever becomes of the
others, and as soon as the disk takes it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from structlog.testing import capture_logs

from whatsappd.clock import BOOT_ID_VARIABLE, boot_id
from whatsappd.engines.neonize.send_evidence import find_attempts
from whatsappd.engines.port import AttemptEvidence
from whatsappd.errors import StoreFailed
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage, OnUncertain
from whatsappd.model.message import OutboxState as S
from whatsappd.sessions.handover import settle_cut_off
from whatsappd.store.memory.store import store_in_memory
from whatsappd.store.memory.tables import MemoryTables
from whatsappd.store.port import Handover, Outbox

JID = "15550100:1@s.whatsapp.net"


class World(NamedTuple):
    tables: MemoryTables
    outbox: Outbox
    account: Path
    meanwhile: list[Callable[[], Awaitable[None]]]  # happens each time that the account was asked

    async def sending(self, text: str) -> Handover:
        new = NewMessage("acme", f"{text}@s.whatsapp.net", Text(text), None, None, OnUncertain.ASK)
        row, _ = await self.outbox.submissions.accept(new, 100)
        return await self.outbox.handovers.begin(row.id)

    async def settle(self, attempts: Collection[Handover]) -> None:
        with trio.fail_after(30):
            await settle_cut_off(
                self.outbox.handovers, "acme", [*attempts], self.find, retry_s=0.01
            )

    async def find(self, secrets: Collection[bytes]) -> AttemptEvidence:
        evidence = await find_attempts(self.account, secrets, jid=JID)
        for happen in self.meanwhile:
            await happen()
        return evidence

    async def states(self, attempts: Collection[Handover]) -> list[S]:
        return [(await self.outbox.view.get(row.id)).state for row, *_ in attempts]


@pytest.fixture
def world(tmp_path: Path) -> World:
    account = tmp_path / "session.db"
    with closing(sqlite3.connect(account)) as conn:  # what whatsmeow has of a linked account
        conn.execute("CREATE TABLE whatsmeow_device (jid)")
        conn.execute("CREATE TABLE whatsmeow_message_secrets (message_id, key)")
        conn.execute("INSERT INTO whatsmeow_device VALUES (?)", (JID,))
        conn.commit()
    tables = MemoryTables()
    return World(tables, store_in_memory(tables).outbox, account, [])


async def test_one_that_somebody_decided_about_leaves_the_others_to_be_settled(
    world: World,
) -> None:
    attempts = [await world.sending(text) for text in ("1", "2", "3")]
    await world.outbox.handovers.mark_uncertain(attempts[0].row.id, "?")

    async def decide() -> None:
        await world.outbox.submissions.resolve(attempts[0].row.id, "failed")

    world.meanwhile.append(decide)
    await world.settle(await world.outbox.handovers.interrupted("acme"))
    assert await world.states(attempts) == [S.FAILED, S.QUEUED, S.QUEUED]


async def test_one_that_is_gone_leaves_the_others_to_be_settled(world: World) -> None:
    attempts = [await world.sending(text) for text in ("1", "2")]

    async def forget() -> None:
        await world.outbox.handovers.fail(attempts[0].row.id, "?")
        await world.outbox.maintenance.retain(-1000)

    world.meanwhile.append(forget)
    await world.settle(attempts)
    assert await world.states(attempts[1:]) == [S.QUEUED]


async def test_what_the_disk_refuses_is_settled_when_it_takes_it(world: World) -> None:
    attempts = [await world.sending(text) for text in ("1", "2")]
    asked = 0

    async def refuse_at_first() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            world.tables.refuse("postpone")
        elif asked == 4:
            world.tables.take("postpone")

    world.meanwhile.append(refuse_at_first)
    with capture_logs() as logs:
        await world.settle(attempts)
    assert await world.states(attempts) == [S.QUEUED, S.QUEUED]
    assert [line["event"] for line in logs].count("attempts_wait_for_store") == 1
    assert asked == 4


async def test_what_was_settled_meanwhile_is_not_settled_again(world: World) -> None:
    # A person has it sent again while the disk refuses, and a new attempt is on its way.
    attempt, other = [await world.sending(text) for text in ("1", "2")]
    await world.outbox.handovers.mark_uncertain(attempt.row.id, "?")
    asked = 0

    async def begin_anew() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            await world.outbox.submissions.resolve(attempt.row.id, "resend")
            await world.outbox.handovers.begin(attempt.row.id)
            raise StoreFailed("the account's database cannot be read")

    world.meanwhile.append(begin_anew)
    await world.settle([attempt, other])
    assert await world.states([attempt, other]) == [S.SENDING, S.QUEUED]
    assert len(await world.outbox.handovers.interrupted("acme")) == 1


async def test_absence_proves_nothing_once_the_host_went_down(world: World) -> None:
    before, meanwhile = [await world.sending(text) for text in ("1", "2")]
    attempts = world.tables.attempts
    attempts[before.row.id] = attempts[before.row.id]._replace(of_this_boot=False)
    await world.settle(await world.outbox.handovers.interrupted("acme"))
    assert await world.states([before, meanwhile]) == [S.UNCERTAIN, S.QUEUED]


def test_the_kernel_and_the_systemd_unit_name_the_boot_alike(monkeypatch: pytest.MonkeyPatch):
    try:
        monkeypatch.delenv(BOOT_ID_VARIABLE, raising=False)
        boot_id.cache_clear()
        told = boot_id()
        assert told
        assert re.fullmatch("[0-9a-f]{32}", told)
        monkeypatch.setenv(BOOT_ID_VARIABLE, "12ab" * 8)
        boot_id.cache_clear()
        assert boot_id() == "12ab" * 8
    finally:
        boot_id.cache_clear()
