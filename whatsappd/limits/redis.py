"""Limits in Redis, shared by several daemons; in memory while Redis is away.

Made by the composition root when `redis_url` is set; needs the extra `redis` (coredis). One Lua
script checks and counts all windows of a message at once. All times in Redis are Redis' own: the
script asks for them (TIME), so the clocks of the hosts that share a Redis may differ.

Away is whatever keeps the script from counting: no connection, no answer in time, a wrong
password, a replica that is read-only, a full memory, a missing right, a Redis Cluster. Whether
Redis is back is tried with the script itself, which writes, so a server that answers a PING and
refuses writes counts as away.

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

PREFIX = "whatsappd:limit:"

#: The windows that the probe counts in. They have no {hash tag} in common: a Redis Cluster, whose
#: slots would scatter the windows of one message, refuses the script for them.
_PROBE_KEYS = (f"{PREFIX}probe:1", f"{PREFIX}probe:2")
_PROBE_LIMIT = 1_000_000
_PROBE_PERIOD_MS = 1000

#: Lua that puts the present into `now`, in milliseconds since the epoch. By Redis' own clock.
REDIS_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: the windows. ARGV: member, then for each window: limit, period, number of backlog entries,
# and each of these as age (milliseconds) and member. A key lives one period beyond its last entry.
# An entry from the future was written before Redis' clock was set back, or by another Redis before
# a failover: it counts as one of now, or it would never leave its window.
_SCRIPT = """
local member = ARGV[1]
local at, wait = 2, 0
local periods = {}
for i, key in ipairs(KEYS) do
  local limit, period = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local backlog = tonumber(ARGV[at + 2])
  at = at + 3
  periods[i] = period
  for _ = 1, backlog do
    redis.call('ZADD', key, now - tonumber(ARGV[at]), ARGV[at + 1])
    at = at + 2
  end
  for _, ahead in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf')) do
    redis.call('ZADD', key, now, ahead)
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

    def __init__(
        self, address: RedisAddress, on_change: Callable[[LimiterHealth], None], clock: str
    ) -> None:
        self._address = address
        self._source = clock + _SCRIPT
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
            wait = await _run(script, [PREFIX + key.name for key in keys], arguments, longest)
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
            words = _words(error, self._address.hide)
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
            await _run(script, _PROBE_KEYS, arguments, _PROBE_PERIOD_MS)

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


async def _run(
    script: Script[bytes], keys: Sequence[str], arguments: list[str | int], longest_ms: int
) -> int:
    """What the script answers.

    Raises:
        RedisError: Redis refuses, or it is an answer that the script does not give.
    """
    wait = int(await script(list(keys), arguments))
    if not 0 <= wait <= longest_ms:
        raise RedisError(f"an answer that our script does not give: {wait}")
    return wait


#: The rights that the limiter's user needs in Redis, besides connecting.
RIGHTS = (
    "evalsha, script|load, time, zadd, zcard, zrange, zrangebyscore, zremrangebyscore and pexpire "
    f"on ~{PREFIX}*"
)
_CLUSTER = "it is a Redis Cluster; use a single Redis"
_NO_HELLO = "it has no command HELLO: it is older than Redis 6, or the command was renamed"
#: What stands in Redis' refusals (coredis leaves out the code before them), and what it means here.
_REFUSALS = (
    ("read only replica", "it is read-only, as a replica is; write to the primary"),
    ("maxmemory", "its memory is full (maxmemory, without eviction)"),
    ("unable to persist", "it refuses writes because it cannot save to its disk"),
    ("good replicas", "it refuses writes because it has too few replicas"),
    ("invalid username-password", "the user or password in limits.redis_url is wrong"),
    ("already authenticated", "it asks for a password; write it into limits.redis_url"),
    ("authentication required", "it asks for a password; write it into limits.redis_url"),
    ("no permissions", f"its user lacks rights; allow {RIGHTS}"),
    ("can't run this command", f"its user lacks rights; allow {RIGHTS}"),
    ("hash slot", _CLUSTER),
    ("same slot", _CLUSTER),
    ("cluster", _CLUSTER),
    ("loading the dataset", "it is still loading its data"),
    ("busy running a script", "it is busy with somebody's script"),
    ("unknown command 'hello'", _NO_HELLO),
    ("unknown command `hello`", _NO_HELLO),
)
#: Behind it Redis repeats what it was given: the login, cut and with other spaces.
_REPEATED = ", with args beginning with"


def _words(error: BaseException, hide: Callable[[str], str]) -> str:
    """Why Redis counts as away, for people.

    Args:
        hide: takes the password out of a text, before anything of it is cut.
    """
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    text = str(error)
    for mark, words in _REFUSALS:
        if mark in " ".join(text.lower().split()):
            return words
    text = " ".join(hide(text).partition(_REPEATED)[0].split())
    return text[:200] or type(error).__name__


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
