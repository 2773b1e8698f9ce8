"""A session that is stopped in an awkward moment: its waiters are told, and it starts again."""

from __future__ import annotations

import pytest
import trio
from session_world import World

from whatsappd.model.session import SessionState

#: Seconds, longer than any grace of the settings.
PATIENCE = 20


async def becomes(world: World, state: SessionState) -> None:
    with trio.fail_after(PATIENCE):
        while world.session.state is not state:
            await world.session.wait_changed()


async def test_a_session_can_be_stopped_before_its_worker_was_opened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = trio.Event()

    async def never(_company: str) -> int:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(world.inbound, "taken", never)
    await world.session.start()
    await asked.wait()
    with trio.fail_after(PATIENCE):
        await world.session.stop()
    monkeypatch.undo()
    await world.session.start()
    await becomes(world, SessionState.CONNECTING)
    await world.session.stop()


async def test_a_worker_that_could_not_be_opened_is_followed_by_another(world: World) -> None:
    """It knows nothing that could be stopped, and says so."""
    world.engine.refusals.append("worker.lock: No space left on device")
    await world.session.start()
    await becomes(world, SessionState.CONNECTING)
    assert world.engine.spawned == 2
    assert world.session.last_error is not None
    assert "No space left on device" in world.session.last_error
    await world.session.stop()


async def test_who_stops_a_session_that_is_started_meanwhile_is_told(world: World) -> None:
    session = world.session
    await session.start()
    await becomes(world, SessionState.CONNECTING)
    stopped = trio.Event()

    async def stop() -> None:
        await session.stop()
        stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        await becomes(world, SessionState.STOPPED)
        assert not stopped.is_set()
        await session.start()
        with trio.fail_after(PATIENCE):
            await stopped.wait()
    await becomes(world, SessionState.CONNECTING)
    await session.stop()
