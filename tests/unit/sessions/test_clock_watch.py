"""When the wall clock was set: followed at once, or doubted; and what is stored is moved once."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from whatsappd import clock
from whatsappd.errors import StoreFailed
from whatsappd.sessions.clock_watch import DOUBT_S, ClockWatch

DAY_MS = 24 * 3600 * 1000


class World:
    def __init__(self) -> None:
        self.wall = self.settled = 10**12
        self.stored = self.held = 0
        self.is_full = False

    async def move_stored(self, by_ms: int) -> None:
        if self.is_full:
            raise StoreFailed("full")
        self.stored += by_ms

    async def move_held(self, by_ms: int) -> None:
        self.held += by_ms

    def follow(self, by_ms: int) -> None:
        self.settled += by_ms


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(clock, "jump_ms", lambda: world.wall - world.settled)
    monkeypatch.setattr(clock, "follow", world.follow)
    return world


async def test_drift_is_followed_and_moves_nothing(world: World) -> None:
    watch = ClockWatch(world.move_stored, world.move_held)
    for _ in range(10):
        world.wall += 900
        await watch.look()
    assert world.settled == world.wall
    assert world.stored == world.held == 0


@pytest.mark.parametrize("jump", [3600_000, -3600_000, -3000 * DAY_MS])
async def test_a_jump_moves_what_is_stored_and_held(world: World, jump: int) -> None:
    watch = ClockWatch(world.move_stored, world.move_held)
    world.wall += jump
    await watch.look()
    await watch.look()
    assert world.settled == world.wall
    assert world.stored == world.held == jump


async def test_a_clock_far_ahead_is_believed_when_it_stays_there(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    watch = ClockWatch(world.move_stored, world.move_held)
    before = world.settled
    world.wall += 800 * DAY_MS
    await watch.look()
    assert world.settled == before
    world.wall -= 800 * DAY_MS  # set right again
    await watch.look()
    world.wall += 800 * DAY_MS
    await watch.look()
    await trio.sleep(DOUBT_S - 1)
    await watch.look()
    assert (world.settled, world.stored) == (before, 0)
    await trio.sleep(2)
    await watch.look()
    assert world.settled == world.wall
    assert world.stored == world.held == 800 * DAY_MS


async def test_while_the_store_takes_nothing_it_is_not_followed(world: World) -> None:
    watch = ClockWatch(world.move_stored, world.move_held)
    world.wall -= DAY_MS
    world.is_full = True
    for _ in range(2):
        with pytest.raises(StoreFailed):
            await watch.look()
    assert world.settled != world.wall
    world.is_full = False
    await watch.look()
    assert world.settled == world.wall
    assert world.stored == world.held == -DAY_MS


def test_the_settled_clock_goes_on_when_the_wall_clock_jumps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = clock.time.time_ns
    assert abs(clock.jump_ms()) < 2000
    before = clock.settled_ms()
    monkeypatch.setattr(clock.time, "time_ns", lambda: real() + DAY_MS * 1_000_000)
    assert clock.settled_ms() - before < 2000
    assert abs(clock.jump_ms() - DAY_MS) < 2000
