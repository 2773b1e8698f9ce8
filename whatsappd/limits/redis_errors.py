"""Turns Redis errors into sentences that say why Redis cannot be used and what to do."""

from __future__ import annotations

from collections.abc import Callable

import trio

from whatsappd.limits.redis_script import PREFIX

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


def words_for_error(error: BaseException, hide: Callable[[str], str]) -> str:
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
