"""Rate limits in Redis, shared by several daemons; in memory while Redis is away.

Made by the composition root when `redis_url` is set; needs the extra `redis` (coredis). A script
in Redis does the counting (`limits.redis_script`).

Redis counts as away whenever the script cannot count: no connection, no answer in time, a wrong
password, a read-only replica, a full memory, a missing right, a Redis Cluster. The probe that finds
out whether Redis is back is the script itself, which writes: a server that answers PING but refuses
writes is still away.

While Redis is away, each daemon keeps the limits in its own memory. None of its own sends is
forgotten: each is also counted in memory, and what was counted there while Redis was away is sent
to Redis with the next call that reaches it. It has the same member then, so that Redis does not
count it twice if it had arrived after all.
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
from whatsappd.limits.redis_errors import words_for_error
from whatsappd.limits.redis_script import COUNT_SCRIPT, PREFIX, REDIS_CLOCK, run_script
from whatsappd.model.redis_address import RedisAddress, parse_redis_url
from whatsappd.rules.backoff import full_jitter
from whatsappd.supervision import Supervision

#: How long a call may take before Redis counts as away. A sound one answers within 1 ms.
TIMEOUT_S = 0.5
#: How often an idle connection is tried, so that health does not depend on traffic.
CHECK_S = 5.0
#: The longest pause between two tries while Redis is away.
RETRY_CAP_MS = 1000
#: Sends counted in memory that are kept for Redis. More would be older than any window.
MAX_BACKLOG = 10_000

#: The windows that the probe counts in. They have no {hash tag} in common: a Redis Cluster, whose
#: slots would scatter the windows of one message, refuses the script for them.
_PROBE_KEYS = (f"{PREFIX}probe:1", f"{PREFIX}probe:2")
_PROBE_LIMIT = 1_000_000
_PROBE_PERIOD_MS = 1000


class RedisLimiter:
    """Implements `limits.port.Limiter`. Made by `open_redis_limiter`."""

    def __init__(
        self, address: RedisAddress, on_change: Callable[[LimiterHealth], None], clock: str
    ) -> None:
        self._address = address
        self._source = clock + COUNT_SCRIPT
        self._on_change = on_change
        self._memory = MemoryLimiter()
        self._script: Script[bytes] | None = None  # None: Redis is away
        self._lost = trio.Event()
        self.tried = trio.Event()  # once it is known whether Redis is there
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

    def shift(self, by_ms: int) -> None:
        self._memory.shift(by_ms)
        self._backlog = {
            name: [(time + by_ms, member) for time, member in entries]
            for name, entries in self._backlog.items()
        }

    def forget(self, company: str) -> None:
        self._memory.forget(company)

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
        arguments: list[str | int] = [member]
        for key in keys:
            entries = taken[key.name]
            arguments += [key.limit, key.period_ms, len(entries)]
            for counted_ms, earlier in entries:
                arguments += [max(0, now_ms - counted_ms), earlier]
        try:
            longest = max((key.period_ms for key in keys), default=0)
            wait = await run_script(script, [PREFIX + key.name for key in keys], arguments, longest)
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
            words = words_for_error(error, self._address.hide)
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

    async def run(self) -> None:
        """Keeps the connection until cancelled. After an error it may be run again."""
        attempt = 0
        while True:
            try:
                # A client of its own for each stretch: whatever state a broken one is in, it goes.
                async with self._client() as client:
                    script = client.register_script(self._source)
                    await self._try(script)
                    self._regain(script)
                    attempt = 0
                    self.tried.set()
                    await self._watch(script)
            except* Exception as group:  # noqa: BLE001
                # The boundary to a library that runs tasks of its own: whatever goes wrong
                # there, sending goes on with the limits in memory, and the next try is made.
                self._lose(_first(group))
            self.tried.set()
            pause = full_jitter(attempt, base_ms=200, cap_ms=RETRY_CAP_MS, chance=random.random())
            attempt += 1
            await trio.sleep(pause / 1000)

    async def _watch(self, script: Script[bytes]) -> None:
        """Returns when Redis does not count any more."""
        while self._script is not None:
            with trio.move_on_after(CHECK_S):
                await self._lost.wait()
                return
            try:
                await self._try(script)
            except (RedisError, OSError, trio.TooSlowError) as error:
                self._lose(error)

    async def _try(self, script: Script[bytes]) -> None:
        """Count once, in windows of nobody: what this returns for, `acquire` can rely on."""
        arguments: list[str | int] = [self._member]
        for _ in _PROBE_KEYS:
            arguments += [_PROBE_LIMIT, _PROBE_PERIOD_MS, 0]
        with trio.fail_after(TIMEOUT_S):
            await run_script(script, _PROBE_KEYS, arguments, _PROBE_PERIOD_MS)

    def _client(self) -> coredis.Redis[bytes]:
        address = self._address
        return coredis.Redis(
            host=address.host,
            port=address.port,
            unix_socket_path=address.socket,
            db=address.database,
            username=address.username,
            password=address.password,
            ssl=address.tls,
            connect_timeout=TIMEOUT_S,
            stream_timeout=TIMEOUT_S,
            pool_timeout=TIMEOUT_S,
            verify_version=False,
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def open_redis_limiter(
    url: str,
    supervision: Supervision | None = None,
    *,
    on_change: Callable[[LimiterHealth], None] = lambda _health: None,
    clock: str = REDIS_CLOCK,
) -> AsyncIterator[RedisLimiter]:
    """A limiter on the Redis at `url` (`redis://`, `rediss://`, `unix://`).

    Usable at once, also while Redis is away.

    Args:
        on_change: called when Redis goes away or is back.
        clock: Lua that reads another clock, for tests.

    Raises:
        InvalidParams: `url` cannot be read.
    """
    # coredis logs a traceback for each failed try; `on_change` says it once.
    logging.getLogger("coredis").setLevel(logging.CRITICAL)
    limiter = RedisLimiter(parse_redis_url(url), on_change, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon((supervision or Supervision()).keep, "redis", limiter.run)
        await limiter.tried.wait()
        yield limiter
        nursery.cancel_scope.cancel()
