"""The Lua script that checks and counts all windows of a message at once, in Redis.

All times in it are Redis' own: the script asks for them (TIME), so the clocks of the hosts that
share a Redis may differ. Each window is a sorted set of members by time.
"""

from __future__ import annotations

from collections.abc import Sequence

from coredis.commands import Script
from coredis.exceptions import RedisError

#: What all keys of ours in Redis begin with.
PREFIX = "whatsappd:limit:"

#: Lua that puts the present into `now`, in milliseconds since the epoch. By Redis' own clock.
REDIS_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: the windows. ARGV: member, then for each window: limit, period, number of backlog entries,
# and each of these as age (milliseconds) and member. A key lives one period beyond its last entry.
# An entry from the future was written before Redis' clock was set back, or by another Redis before
# a failover: it counts as one of now, or it would never leave its window.
COUNT_SCRIPT = """
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


async def run_script(
    script: Script[bytes], keys: Sequence[str], arguments: list[str | int], longest_ms: int
) -> int:
    """Run it: 0 if it counted one in all windows, else the milliseconds until one may pass.

    Raises:
        RedisError: Redis refuses, or it is an answer that the script does not give.
    """
    wait = int(await script(list(keys), arguments))
    if not 0 <= wait <= longest_ms:
        raise RedisError(f"an answer that our script does not give: {wait}")
    return wait
