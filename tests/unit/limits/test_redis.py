"""What only the limiter in Redis promises: sharing, falling back, and returning by itself."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

import pytest
import trio
from redis_answers import answering
from redis_process import RedisServer, running_redis

from whatsappd.limits.port import LimiterHealth, LimitKey

pytest.importorskip("coredis", reason="the extra `redis` is not installed")

from whatsappd.limits.redis import RedisLimiter, open_redis_limiter
from whatsappd.model.redis_address import parse_redis_url

NOW = 1_700_000_000_000
KEY = LimitKey("acme", 10, 60_000)


class Changes:
    """Collects health changes, and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[LimiterHealth] = []
        self._event = trio.Event()

    def __call__(self, health: LimiterHealth) -> None:
        self.seen.append(health)
        self._event.set()
        self._event = trio.Event()

    async def wait(self, limiter: RedisLimiter, *, is_away: bool) -> None:
        with trio.fail_after(5):
            while (limiter.health.trouble is not None) != is_away:
                await self._event.wait()

    async def wait_shared(self, limiter: RedisLimiter) -> None:
        await self.wait(limiter, is_away=False)


async def test_several_daemons_share_one_window(redis_server) -> None:
    async with (
        open_redis_limiter(redis_server.url) as first,
        open_redis_limiter(redis_server.url) as second,
    ):
        passed = 0
        for index in range(10):
            for limiter in (first, second):
                passed += await limiter.acquire([KEY], NOW + index) == 0
        assert passed == 10


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_it_falls_back_within_a_second_and_returns(redis_server, how: str) -> None:
    changes = Changes()
    async with open_redis_limiter(redis_server.url, on_change=changes) as limiter:
        for index in range(4):
            assert await limiter.acquire([KEY], NOW + index) == 0
        getattr(redis_server, how)()
        before = time.monotonic()
        assert await limiter.acquire([KEY], NOW + 10) == 0
        assert time.monotonic() - before < 1
        assert "Redis is away" in str(limiter.health.trouble)
        assert limiter.health.since_ms
        # Away, it answers at once, and knows what was counted in Redis before.
        before = time.monotonic()
        passed = sum([await limiter.acquire([KEY], NOW + 20) == 0 for _ in range(50)])
        assert passed == 5
        assert time.monotonic() - before < 0.5

        if how == "kill":
            redis_server.start()
        else:
            redis_server.thaw()
        await changes.wait_shared(limiter)
        # What was counted meanwhile counts in Redis too: nothing passes before its time.
        assert await limiter.acquire([KEY], NOW + 30) > 0
        assert [health.trouble is None for health in changes.seen] == [True, False, True]


async def test_what_was_counted_while_away_reaches_the_others(redis_server) -> None:
    changes, second_changes = Changes(), Changes()
    async with (
        open_redis_limiter(redis_server.url, on_change=changes) as first,
        open_redis_limiter(redis_server.url, on_change=second_changes) as second,
    ):
        redis_server.freeze()
        for index in range(7):
            assert await first.acquire([KEY], NOW + index) == 0
        redis_server.thaw()
        await changes.wait_shared(first)
        assert await first.acquire([KEY], NOW + 10) == 0
        await second_changes.wait_shared(second)
        # The frozen call may have arrived in the end; it is counted once all the same.
        passed = sum([await second.acquire([KEY], NOW + 20) == 0 for _ in range(5)])
        assert passed == 2


async def test_a_daemon_starts_without_redis_and_finds_it_later(redis_server) -> None:
    redis_server.kill()
    changes = Changes()
    before = time.monotonic()
    async with open_redis_limiter(redis_server.url, on_change=changes) as limiter:
        assert time.monotonic() - before < 2
        assert limiter.health.trouble
        assert await limiter.acquire([KEY], NOW) == 0
        redis_server.start()
        await changes.wait_shared(limiter)
        assert await limiter.acquire([KEY], NOW) == 0


async def test_many_cycles_leave_it_working(redis_server) -> None:
    changes = Changes()
    async with open_redis_limiter(redis_server.url, on_change=changes) as limiter:
        for cycle in range(5):
            redis_server.kill()
            await limiter.acquire([KEY], NOW + cycle)
            redis_server.start()
            await changes.wait_shared(limiter)
        passed = sum([await limiter.acquire([KEY], NOW + 10) == 0 for _ in range(20)])
        assert passed == 5
    assert limiter._backlog_size == 0
    assert limiter._backlog == {}


async def test_an_idle_daemon_notices_too(redis_server, monkeypatch) -> None:
    monkeypatch.setattr("whatsappd.limits.redis.CHECK_S", 0.05)
    changes = Changes()
    async with open_redis_limiter(redis_server.url, on_change=changes) as limiter:
        redis_server.kill()
        await changes.wait(limiter, is_away=True)
        redis_server.start()
        await changes.wait_shared(limiter)


@pytest.mark.parametrize(
    "answer",
    [
        *(b":-1\r\n", b":60001\r\n", b":9223372036854775807\r\n", b"+soon\r\n", b"$-1\r\n"),
        *(b"*0\r\n", b"_\r\n", b"-ERR no\r\n", b",nan\r\n", b",inf\r\n", b"what?\r\n"),
    ],
)
async def test_a_wrong_answer_counts_as_none(answer: bytes) -> None:
    changes = Changes()
    answers = {b"EVALSHA": SOUND_COUNT}
    async with (
        answering(answers, hang_up=False) as url,
        open_redis_limiter(url, on_change=changes) as limiter,
    ):
        assert limiter.health.trouble is None
        answers[b"EVALSHA"] = answer
        for index in range(9):
            assert await limiter.acquire([KEY], NOW + index) == 0
        assert "Redis is away" in str(changes.seen[1].trouble)
        # As long as the answers are wrong it stays away: what it is tried with is the script.
        assert await limiter.acquire([KEY], NOW + 9) == 0
        assert await limiter.acquire([KEY], NOW + 10) == 60_000 - 10
        assert len(changes.seen) == 2
        # What was counted meanwhile is not lost by a wrong answer.
        assert [at for at, _ in limiter._backlog[KEY.name]] == [NOW + each for each in range(10)]
        answers[b"EVALSHA"] = SOUND_COUNT
        await changes.wait_shared(limiter)


#: What the script answers when it has counted.
SOUND_COUNT = b":0\r\n"

RIGHTS_OF_ANOTHER = ("+@all", "~other:*")
RIGHTS = (
    *("~whatsappd:limit:*", "+evalsha", "+script|load", "+time", "+zadd", "+zcard", "+zrange"),
    *("+zrangebyscore", "+zremrangebyscore", "+pexpire"),
)


@pytest.mark.parametrize(
    ("options", "commands", "login", "trouble"),
    [
        ((), [("REPLICAOF", "127.0.0.1", "1")], "", "read-only"),
        (("--requirepass", "secret"), [], "", "asks for a password"),
        (("--requirepass", "secret"), [], ":geheim@", "password in limits.redis_url is wrong"),
        (("--requirepass", "x"), [], "nobody:geheim@", "password in limits.redis_url is wrong"),
        ((), [("ACL", "SETUSER", "u", "on", ">geheim", *RIGHTS_OF_ANOTHER)], "u:geheim@", "rights"),
        ((), [("ACL", "SETUSER", "u", "on", ">geheim", *RIGHTS[:-1])], "u:geheim@", "rights"),
        ((), [("ACL", "SETUSER", "u", "on", ">geheim", *RIGHTS)], "u:geheim@", None),
        (("--cluster-enabled", "yes"), [], "", "Redis Cluster"),
        (("--min-replicas-to-write", "1"), [], "", "too few replicas"),
        # Redis counts even then, because the script deletes before it writes.
        (("--maxmemory", "100kb", "--maxmemory-policy", "noeviction"), [], "", None),
    ],
)
async def test_every_refusal_is_a_visible_fallback(
    redis_directory: Path,
    options: tuple[str, ...],
    commands: list[tuple[str, ...]],
    login: str,
    trouble: str | None,
) -> None:
    with running_redis(redis_directory, *options) as server:
        for command in commands:
            assert server.ask(*command) == b"+OK\r\n"
        url = server.url.replace("unix://", f"unix://{login}")
        changes = Changes()
        async with open_redis_limiter(url, on_change=changes) as limiter:
            if trouble is None:
                assert limiter.health.trouble is None
            else:
                assert trouble in str(limiter.health.trouble)
                assert "geheim" not in str(limiter.health.trouble)
            assert sum([await limiter.acquire([KEY], NOW) == 0 for _ in range(12)]) == 10
            # It stays at what it said: nothing flaps.
            assert len(changes.seen) == 1


async def test_a_redis_that_begins_to_refuse_writes_is_noticed_without_traffic(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatsappd.limits.redis.CHECK_S", 0.05)
    changes = Changes()
    async with open_redis_limiter(redis_server.url, on_change=changes) as limiter:
        redis_server.ask("REPLICAOF", "127.0.0.1", "1")
        await changes.wait(limiter, is_away=True)
        assert "read-only" in str(limiter.health.trouble)
        redis_server.ask("REPLICAOF", "NO", "ONE")
        await changes.wait_shared(limiter)


PASSWORD = "a/b==#?@:%ü w"


@pytest.mark.parametrize("written", [PASSWORD, quote(PASSWORD, safe="")])
async def test_a_password_may_have_any_character(redis_directory: Path, written: str) -> None:
    with running_redis(redis_directory, "--requirepass", PASSWORD) as server:
        url = server.url.replace("unix://", f"unix://:{written}@")
        async with open_redis_limiter(url) as limiter:
            assert limiter.health.trouble is None


@pytest.mark.parametrize("password", ["geheim", "geheim-" + "x" * 150, "geheim  with  spaces"])
async def test_a_redis_that_repeats_the_login_is_not_repeated(
    redis_directory: Path, password: str
) -> None:
    """Redis cuts what it repeats, and writes line breaks as spaces."""
    options = ("--requirepass", password, "--rename-command", "HELLO", "")
    with running_redis(redis_directory, *options) as server:
        url = server.url.replace("unix://", f"unix://:{quote(password)}@")
        async with open_redis_limiter(url) as limiter:
            assert "geheim" not in str(limiter.health.trouble)
            assert "no command HELLO" in str(limiter.health.trouble)


@pytest.mark.parametrize("told", ["tell-it", "tell-it-who", "tell-i"])
def test_what_is_left_of_a_password_is_hidden_too(told: str) -> None:
    address = parse_redis_url("redis://:tell-it-whole@localhost")
    assert "tell" not in address.hide(f"wrong: '{told}'")
    assert address.hide("tell me") == "tell me"


async def test_hosts_whose_clocks_differ_share_one_window(redis_server: RedisServer) -> None:
    async with (
        open_redis_limiter(redis_server.url) as first,
        open_redis_limiter(redis_server.url) as second,
    ):
        passed = 0
        for index in range(12):
            passed += await first.acquire([KEY], NOW + index) == 0
            passed += await second.acquire([KEY], NOW + 86_400_000 + index) == 0
        assert passed == 10


async def test_what_a_clock_ahead_wrote_leaves_its_window_in_time(
    redis_server: RedisServer,
) -> None:
    clock = "local now = tonumber(redis.call('GET', 'now'))\n"
    redis_server.ask("SET", "now", str(NOW + 10**9))
    async with open_redis_limiter(redis_server.url, clock=clock) as before:
        for _ in range(10):
            assert await before.acquire([KEY], NOW) == 0
    redis_server.ask("SET", "now", str(NOW))
    async with open_redis_limiter(redis_server.url, clock=clock) as limiter:
        assert await limiter.acquire([KEY], NOW) == KEY.period_ms
        redis_server.ask("SET", "now", str(NOW + KEY.period_ms))
        assert await limiter.acquire([KEY], NOW) == 0


async def test_the_backlog_is_bounded(redis_server, monkeypatch) -> None:
    monkeypatch.setattr("whatsappd.limits.redis.MAX_BACKLOG", 50)
    redis_server.kill()
    async with open_redis_limiter(redis_server.url) as limiter:
        for index in range(300):
            await limiter.acquire([LimitKey(f"acme:{index % 70}", 100, 60_000)], NOW)
        assert limiter._backlog_size == sum(map(len, limiter._backlog.values())) <= 50


async def test_windows_in_redis_expire(redis_server) -> None:
    async with open_redis_limiter(redis_server.url) as limiter:
        await limiter.acquire([LimitKey("short", 5, 50)], NOW)
    async with await trio.open_unix_socket(redis_server.socket) as stream:
        with trio.fail_after(5):
            answer = b""
            while answer != b":0\r\n":
                await stream.send_all(b"DBSIZE\r\n")
                answer = await stream.receive_some(100)
