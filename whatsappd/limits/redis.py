"""Limits in Redis, shared by several daemons; in memory while Redis is away.

Made by the composition root when `redis_url` is set; needs the extra `redis` (coredis). One Lua
script checks and counts all windows of a message at once. The times are the daemons': hosts that
share a Redis keep their clocks in step (NTP).

Falling back loses nothing of this daemon's own sends: each is mirrored in memory as it is counted,
and what was counted in memory meanwhile is handed to Redis with the next call that reaches it
(with the same member, so that one that had arrived after all is not counted twice). While Redis
is away, each daemon keeps the limits by itself.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import coredis
import trio
from coredis.commands import Script
from coredis.exceptions import RedisError

from whatsappd.clock import now_ms
from whatsappd.limits.memory import MemoryLimiter
from whatsappd.limits.port import LimiterHealth, LimitKey
from whatsappd.rules.backoff import full_jitter

#: How long a call may take before Redis counts as away. A sound one answers within 1 ms.
TIMEOUT_S = 0.5
#: How often an idle connection is tried, so that health does not depend on traffic.
CHECK_S = 5.0
#: The longest pause between two tries while Redis is away.
RETRY_CAP_MS = 1000
#: Sends counted in memory that are kept for Redis. More would be older than any window.
MAX_BACKLOG = 10_000

PREFIX = "whatsappd:limit:"

# KEYS: the windows. ARGV: now, member, then for each window: limit, period, number of backlog
# entries, and each of these as time and member. A key lives one period beyond its last entry.
_SCRIPT = """
local now, member = tonumber(ARGV[1]), ARGV[2]
local at, wait = 3, 0
local periods = {}
for i, key in ipairs(KEYS) do
  local limit, period = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local backlog = tonumber(ARGV[at + 2])
  at = at + 3
  periods[i] = period
  for _ = 1, backlog do
    redis.call('ZADD', key, ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  if backlog > 0 then redis.call('PEXPIRE', key, period) end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - period)
  if redis.call('ZCARD', key) >= limit then
    local own = period
    if limit > 0 then
      local entry = redis.call('ZRANGE', key, -limit, -limit, 'WITHSCORES')
      own = math.min(period, tonumber(entry[2]) + period - now)
    end
    wait = math.max(wait, own)
  end
end
if wait == 0 then
  for i, key in ipairs(KEYS) do
    redis.call('ZADD', key, now, member)
    redis.call('PEXPIRE', key, periods[i])
  end
end
return wait
"""


class RedisLimiter:
    """Implements `limits.port.Limiter`. Made by `open_redis_limiter`."""

    def __init__(self, url: str, on_change: Callable[[LimiterHealth], None]) -> None:
        self._url = url
        self._on_change = on_change
        self._memory = MemoryLimiter()
        self._script: Script[bytes] | None = None  # None: Redis is away
        self._lost = trio.Event()
        self._is_told = False  # that Redis is away
        self._health = LimiterHealth("redis", "not connected yet", now_ms())
        self._member = secrets.token_hex(8)  # of this process; a counter follows
        self._count = 0
        # What was counted in memory while Redis was away: (time, member) by window.
        self._backlog: dict[str, list[tuple[int, str]]] = {}
        self._backlog_size = 0

    @property
    def health(self) -> LimiterHealth:
        return self._health

    def check(self, keys: Sequence[LimitKey], now_ms: int) -> int:
        return self._memory.check(keys, now_ms)

    def restore(self, key: LimitKey, times_ms: Iterable[int]) -> None:
        self._memory.restore(key, times_ms)

    async def acquire(self, keys: Sequence[LimitKey], now_ms: int) -> int:
        await trio.lowlevel.checkpoint()
        # Our own sends are part of what Redis counts: where they alone fill a window, there is no
        # need to ask, and no harm if Redis was restarted and has forgotten them.
        wait = self._memory.check(keys, now_ms)
        if wait > 0:
            return wait
        self._count += 1
        member = f"{self._member}:{self._count}"
        script = self._script
        if script is not None:
            try:
                with trio.fail_after(TIMEOUT_S):
                    wait = await self._call(script, keys, now_ms, member)
            except Exception as error:  # noqa: BLE001
                # A connection that breaks in the middle, or is being replaced by `run`, comes as
                # RedisError, RuntimeError, or whatever coredis' own tasks met: the health tells.
                if self._script is script:  # else it belongs to a connection that is gone anyway
                    self._lose(error)
            else:
                if wait == 0:
                    self._memory.record(keys, now_ms)
                return wait
        wait = self._memory.acquire_now(keys, now_ms)
        if wait == 0:
            for key in keys:
                self._keep(key.name, [(now_ms, member)])
        return wait

    async def _call(
        self, script: Script[bytes], keys: Sequence[LimitKey], now_ms: int, member: str
    ) -> int:
        taken = {key.name: self._backlog.pop(key.name, []) for key in keys}
        self._backlog_size -= sum(map(len, taken.values()))
        arguments: list[str | int] = [now_ms, member]
        for key in keys:
            entries = taken[key.name]
            arguments += [key.limit, key.period_ms, len(entries)]
            for entry in entries:
                arguments += entry
        try:
            wait = int(await script([PREFIX + key.name for key in keys], arguments))
            if not 0 <= wait <= max((key.period_ms for key in keys), default=0):
                raise RedisError(f"an answer that our script does not give: {wait}")
        except BaseException:
            # Whether it arrived is unknown; to send it twice does no harm.
            for name, entries in taken.items():
                self._keep(name, entries)
            raise
        return wait

    def _keep(self, name: str, entries: list[tuple[int, str]]) -> None:
        """Adds to the backlog; the window that has waited longest makes room."""
        if not entries:
            return
        self._backlog.setdefault(name, []).extend(entries)
        self._backlog_size += len(entries)
        while self._backlog_size > MAX_BACKLOG:
            self._backlog_size -= len(self._backlog.pop(next(iter(self._backlog))))

    # --- the connection -----------------------------------------------------------------------

    def _lose(self, error: BaseException) -> None:
        self._script = None
        self._lost.set()
        if not self._is_told:
            self._is_told = True
            words = "no answer in time" if isinstance(error, trio.TooSlowError) else str(error)
            trouble = f"Redis is away ({words}): limits are kept in memory"
            self._set_health(LimiterHealth("redis", trouble, now_ms()))

    def _regain(self, script: Script[bytes]) -> None:
        self._lost = trio.Event()
        self._is_told = False
        self._script = script
        self._set_health(LimiterHealth("redis"))

    def _set_health(self, health: LimiterHealth) -> None:
        self._health = health
        self._on_change(health)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the connection until cancelled. Started when Redis was tried once."""
        is_started = False
        attempt = 0
        while True:
            try:
                # A client of its own for each stretch: whatever state a broken one is in, it goes.
                async with self._client() as client:
                    script = client.register_script(_SCRIPT)
                    await _try(client)
                    self._regain(script)
                    attempt = 0
                    if not is_started:
                        is_started = True
                        task_status.started()
                    await self._watch(client)
            except* Exception as group:  # noqa: BLE001
                # The boundary to a library that runs tasks of its own: whatever goes wrong
                # there, sending goes on with the limits in memory, and the next try is made.
                self._lose(_first(group))
            if not is_started:
                is_started = True
                task_status.started()
            pause = full_jitter(attempt, base_ms=200, cap_ms=RETRY_CAP_MS, chance=random.random())
            attempt += 1
            await trio.sleep(pause / 1000)

    async def _watch(self, client: coredis.Redis[bytes]) -> None:
        """Returns when Redis does not answer any more."""
        while self._script is not None:
            with trio.move_on_after(CHECK_S):
                await self._lost.wait()
                return
            try:
                await _try(client)
            except (RedisError, OSError, trio.TooSlowError) as error:
                self._lose(error)

    def _client(self) -> coredis.Redis[bytes]:
        return coredis.Redis.from_url(
            self._url,
            connect_timeout=TIMEOUT_S,
            stream_timeout=TIMEOUT_S,
            pool_timeout=TIMEOUT_S,
            verify_version=False,
        )


async def _try(client: coredis.Redis[bytes]) -> None:
    with trio.fail_after(TIMEOUT_S):
        await client.ping()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def open_redis_limiter(
    url: str, *, on_change: Callable[[LimiterHealth], None] = lambda _health: None
) -> AsyncIterator[RedisLimiter]:
    """A limiter on the Redis at `url` (`redis://`, `rediss://`, `unix://`).

    Usable at once, also while Redis is away.

    Args:
        on_change: called when Redis goes away or is back.
    """
    # coredis logs a traceback for each failed try; `on_change` says it once.
    logging.getLogger("coredis").setLevel(logging.CRITICAL)
    limiter = RedisLimiter(url, on_change)
    async with trio.open_nursery() as nursery:
        await nursery.start(limiter.run)
        yield limiter
        nursery.cancel_scope.cancel()
