"""A worker is begun while our own disk is not well: what its predecessor left waits for the disk,
and neither the worker nor its company is given up meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from full_disk import fill_up, make_room
from session_world import OPEN_DEADLINE_S, World

from whatsappd.errors import StoreFailed
from whatsappd.model.content import Text
from whatsappd.model.message import NewMessage, OnUncertain, OutboxState
from whatsappd.model.session import SessionState
from whatsappd.store.port import Handover, Outbox
from whatsappd.store.sqlite.database import Database


async def left_behind(outbox: Outbox) -> str:
    """A row that an earlier worker left `sending`."""
    new = NewMessage("acme", "15550200@s.whatsapp.net", Text("x"), None, None, OnUncertain.ASK)
    row, _ = await outbox.submissions.accept(new, 100)
    return (await outbox.handovers.begin(row.id)).row.id


async def test_a_disk_that_refuses_for_long_costs_no_worker(
    world: World, database: Database
) -> None:
    row_id = await left_behind(world.outbox)
    await fill_up(database, world.events)
    await world.session.start()
    with trio.move_on_after(3 * OPEN_DEADLINE_S) as patience:
        await world.outbox.view.wait(row_id, {OutboxState.UNCERTAIN})
    assert patience.cancelled_caught
    await make_room(database)
    with trio.fail_after(20):
        await world.outbox.view.wait(row_id, {OutboxState.UNCERTAIN})
    assert world.session.state is SessionState.CONNECTING
    assert world.session.last_error is None
    assert world.engine.spawned == 1
    await world.session.stop()


async def test_a_disk_that_cannot_be_read_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = world.outbox.handovers.interrupted
    asked = 0

    async def unreadable_at_first(company: str) -> Sequence[Handover]:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise StoreFailed("the disk failed to read")
        return await interrupted(company)

    monkeypatch.setattr(world.outbox.handovers, "interrupted", unreadable_at_first)
    await world.session.start()
    with trio.fail_after(20):
        while world.session.state is not SessionState.CONNECTING:
            await world.session.wait_changed()
    assert world.session.last_error is not None
    assert "the disk failed to read" in world.session.last_error
    await world.session.stop()
