"""A worker that makes refused calls all the time is slowed down, not the daemon."""

from __future__ import annotations

import os

import pytest
import trio

from whatsappd.confinement.seccomp import RefusedCall
from whatsappd.engines.refused_calls import AT_ONCE, WITHIN_S, answer_refused


async def test_a_flood_of_refused_calls_is_answered_at_a_bounded_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows = 4
    left = AT_ONCE * windows

    def always(_listener: int) -> RefusedCall:
        nonlocal left
        if left == 0:
            raise OSError("its processes have ended")
        left -= 1
        return RefusedCall(1, "socket", ())

    monkeypatch.setattr("whatsappd.engines.refused_calls.next_refused", always)
    readable, writer = os.pipe()
    os.write(writer, b"x")  # there is always more
    try:
        taken: list[RefusedCall] = []
        began = trio.current_time()
        await answer_refused(readable, taken.append)
        assert len(taken) == AT_ONCE * windows
        assert trio.current_time() - began >= WITHIN_S * (windows - 1)
    finally:
        os.close(readable)
        os.close(writer)
