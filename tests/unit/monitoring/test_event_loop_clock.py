"""How long the event loop kept everything waiting."""

from __future__ import annotations

import time

import trio

from whatsappd.monitoring.event_loop_clock import LoopClock


async def test_the_clock_sees_the_longest_time_that_everything_waited() -> None:
    clock = LoopClock()
    trio.lowlevel.add_instrument(clock)
    try:
        await trio.sleep(0.01)
        clock.take_longest()
        time.sleep(0.05)  # noqa: ASYNC251 - what it must notice
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert clock.longest_s >= 0.05
        busy = clock.busy_s
        await trio.sleep(0.2)  # waiting is not work
        assert clock.busy_s - busy < 0.1
        assert clock.take_longest() >= 0.05
        assert clock.longest_s < 0.05
    finally:
        trio.lowlevel.remove_instrument(clock)
