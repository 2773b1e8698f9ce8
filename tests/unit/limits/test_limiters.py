"""One contract for all limiters: in memory, in Redis, and in memory because Redis is away."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.port import Limiter, LimitKey
from whatsappd.rules.sliding_window import SlidingWindow

NOW = 1_700_000_000_000
MINUTE = 60_000


@pytest.fixture(params=["memory", "redis", "redis away"])
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[Limiter]:
    if request.param == "memory":
        yield MemoryLimiter()
        return
    redis = pytest.importorskip(
        "whatsappd.limits.redis", reason="the extra `redis` is not installed", exc_type=ImportError
    )
    server = request.getfixturevalue("redis_server")
    if request.param == "redis away":
        server.kill()
    if request.param == "redis":
        server.ask("SET", "now", str(NOW))
    async with redis.open_redis_limiter(server.url, clock=KEPT_CLOCK) as limiter:
        assert (limiter.health.trouble is None) == (request.param == "redis")
        yield limiter if request.param == "redis away" else _InItsTime(limiter, server)
        assert (limiter.health.trouble is None) == (request.param == "redis")


#: In Redis, in place of its own clock: the time that the test says it is.
KEPT_CLOCK = "local now = tonumber(redis.call('GET', 'now'))\n"


class _InItsTime:
    """A limiter whose Redis has the clock that each call is told."""

    def __init__(self, limiter: Any, server: Any) -> None:
        self._limiter = limiter
        self._server = server

    async def acquire(self, keys: list[LimitKey], now_ms: int) -> int:
        self._server.ask("SET", "now", str(now_ms))
        wait: int = await self._limiter.acquire(keys, now_ms)
        return wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self._limiter, name)


def key(name: str = "acme", limit: int = 3, period_ms: int = MINUTE) -> LimitKey:
    return LimitKey(name, limit, period_ms)


async def test_as_many_as_the_limit_pass_and_the_next_is_told_when(limiter: Limiter) -> None:
    for offset in (0, 10, 20):
        assert await limiter.acquire([key()], NOW + offset) == 0
    assert await limiter.acquire([key()], NOW + 30) == MINUTE - 30
    assert await limiter.acquire([key()], NOW + MINUTE - 1) == 1
    assert await limiter.acquire([key()], NOW + MINUTE) == 0
    assert await limiter.acquire([key()], NOW + MINUTE) == 10


async def test_names_do_not_share_a_window(limiter: Limiter) -> None:
    assert await limiter.acquire([key("acme", 1)], NOW) == 0
    assert await limiter.acquire([key("globex", 1)], NOW) == 0
    assert await limiter.acquire([key("acme", 1)], NOW) > 0


async def test_all_windows_or_none(limiter: Limiter) -> None:
    company, number = key("acme", 10), key("acme:15550100", 1)
    assert await limiter.acquire([company, number], NOW) == 0
    for _ in range(20):  # refused by the number, and not counted for the company
        assert await limiter.acquire([company, number], NOW + 5) == MINUTE - 5
    for _ in range(9):
        assert await limiter.acquire([company], NOW + 10) == 0
    assert await limiter.acquire([company], NOW + 10) > 0


async def test_the_longest_wait_is_told(limiter: Limiter) -> None:
    short, long = key("short", 1, 1000), key("long", 1, MINUTE)
    assert await limiter.acquire([short, long], NOW) == 0
    assert await limiter.acquire([short, long], NOW + 100) == MINUTE - 100
    assert await limiter.acquire([short], NOW + 100) == 900


async def test_no_window_is_no_limit(limiter: Limiter) -> None:
    assert await limiter.acquire([], NOW) == 0


async def test_the_limit_can_change_between_calls(limiter: Limiter) -> None:
    for _ in range(3):
        assert await limiter.acquire([key(limit=3)], NOW) == 0
    assert await limiter.acquire([key(limit=5)], NOW + 10) == 0
    assert await limiter.acquire([key(limit=4)], NOW + 20) == MINUTE - 20
    assert await limiter.acquire([key(limit=1)], NOW + 20) == MINUTE - 10
    assert await limiter.acquire([key(limit=0)], NOW + 20) == MINUTE


async def test_callers_at_the_same_time_do_not_pass_more(limiter: Limiter) -> None:
    outcomes: Counter[bool] = Counter()

    async def call() -> None:
        outcomes[await limiter.acquire([key(limit=10)], NOW) == 0] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(call)
    assert outcomes == {True: 10, False: 50}


async def test_it_decides_as_the_pure_window_does(limiter: Limiter) -> None:
    chance = random.Random(7)
    windows = {name: SlidingWindow(4, MINUTE) for name in "abc"}
    now = NOW
    for _ in range(400):
        now += chance.randrange(0, 9000)
        names = chance.sample("abc", chance.randrange(1, 4))
        expected = max(windows[name].check(now) for name in names)
        if expected == 0:
            for name in names:
                windows[name].record(now)
        assert await limiter.acquire([key(name, 4) for name in names], now) == expected


async def test_health_says_which_kind_it_is(limiter: Limiter) -> None:
    assert limiter.health.kind in ("memory", "redis")
    assert limiter.health.as_wire()["kind"] == limiter.health.kind
