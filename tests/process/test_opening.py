"""A worker is begun while our own disk is not well: what its predecessor left waits for the disk,
and neither the worker nor its company is given up meanwhile.

The worker here speaks the protocol and is no WhatsApp client: what is under test is the session.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from full_disk import fill_up, make_room

from whatsappd.errors import StoreFailed
from whatsappd.model.message import NewMessage, OnUncertain, OutboxState
from whatsappd.model.session import SessionState
from whatsappd.sessions.forkserver import Spawned
from whatsappd.sessions.inbound import InboundLog
from whatsappd.sessions.process import ChildProcess
from whatsappd.sessions.session import Session
from whatsappd.sessions.settings import SessionSettings, WhatsAppAccess
from whatsappd.store.companies import Companies
from whatsappd.store.contacts import Contacts
from whatsappd.store.database import Database, open_database
from whatsappd.store.events import EventLog, open_event_log
from whatsappd.store.intake import Intake
from whatsappd.store.outbox import Handover, Outbox, open_outbox
from whatsappd.wire.frames import READ_SIZE, FrameReader
from whatsappd.wire.rpc import pack_result

OPEN_DEADLINE_S = 0.5


class Workers:
    """In place of a fork server: processes that do nothing, whose requests are answered here."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.spawned = 0

    async def spawn(self, _company: str) -> Spawned:
        self.spawned += 1
        ours, theirs = socket.socketpair()
        output, output_writer = os.pipe()
        process = subprocess.Popen(["sleep", "60"], stdout=output_writer, stderr=output_writer)
        os.close(output_writer)
        child = ChildProcess(process.pid)
        process.returncode = 0  # the session reaps it
        self._nursery.start_soon(self._answer, trio.socket.from_stdlib_socket(theirs), child)
        return Spawned(child, ours, output)

    async def _answer(self, channel: trio.socket.SocketType, child: ChildProcess) -> None:
        reader = FrameReader()
        with channel:
            while data := await channel.recv(READ_SIZE):
                for _type, msgid, *_ in reader.feed(data):
                    await channel.send(pack_result(msgid, {}))
        child.kill(signal.SIGTERM)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "whatsappd.db") as database:
        yield database


class World(NamedTuple):
    events: EventLog
    outbox: Outbox
    workers: Workers
    session: Session


async def left_behind(outbox: Outbox) -> str:
    """A row that an earlier worker left `sending`."""
    new = NewMessage("acme", "15550200@s.whatsapp.net", "x", None, None, OnUncertain.ASK)
    row, _ = await outbox.accept(new, 100)
    return (await outbox.begin(row.id)).row.id


@pytest.fixture
async def world(database: Database, tmp_path: Path, nursery: trio.Nursery) -> World:
    events = await open_event_log(database)
    outbox = await open_outbox(database, events)
    companies = Companies(database)
    await companies.put_wanted("acme", True)
    workers: Any = Workers(nursery)
    session = Session(
        "acme",
        directory=tmp_path / "acme",
        fork_server=workers,
        companies=companies,
        inbound=InboundLog(
            events, Intake(database, events, outbox, Contacts(database)), retry_s=0.01
        ),
        outbox=outbox,
        access=WhatsAppAccess,
        settings=SessionSettings(
            open_deadline_s=OPEN_DEADLINE_S, retry_store_s=0.01, retry_base_ms=1, retry_cap_ms=1
        ),
    )
    nursery.start_soon(session.run)
    return World(events, outbox, workers, session)


async def test_a_disk_that_refuses_for_long_costs_no_worker(
    world: World, database: Database
) -> None:
    row_id = await left_behind(world.outbox)
    await fill_up(database, world.events)
    await world.session.start()
    with trio.move_on_after(3 * OPEN_DEADLINE_S) as patience:
        await world.outbox.wait(row_id, {OutboxState.UNCERTAIN})
    assert patience.cancelled_caught
    await make_room(database)
    with trio.fail_after(20):
        await world.outbox.wait(row_id, {OutboxState.UNCERTAIN})
    assert world.session.state is SessionState.CONNECTING
    assert world.session.last_error is None
    assert world.workers.spawned == 1
    await world.session.stop()


async def test_a_disk_that_cannot_be_read_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = world.outbox.interrupted
    asked = 0

    async def unreadable_at_first(company: str) -> Sequence[Handover]:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise StoreFailed("the disk failed to read")
        return await interrupted(company)

    monkeypatch.setattr(world.outbox, "interrupted", unreadable_at_first)
    await world.session.start()
    with trio.fail_after(20):
        while world.session.state is not SessionState.CONNECTING:
            await world.session.wait_changed()
    assert world.session.last_error is not None
    assert "the disk failed to read" in world.session.last_error
    await world.session.stop()
