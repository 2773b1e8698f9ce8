"""Limits shared through Redis: two daemons count together, and none stops when Redis does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, following, link, running_daemon
from redis_process import RedisServer, running_redis

from whatsappd.errors import RateLimited
from whatsappd.rpc.client import RpcClient

pytest.importorskip("coredis", reason="the extra `redis` is not installed")

LIMITS = {"per_phone_per_minute": 0, "cold_per_hour": 0, "cold_per_day": 0}
FRIEND = "+15550200"


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="wapd-") as directory,
        running_redis(Path(directory)) as server,
    ):
        yield server


def configured(directory: Path, server: RedisServer) -> tuple[str, ...]:
    config = directory / "whatsappd.toml"
    config.write_text(f'[limits]\nredis_url = "{server.url}"\n')
    return ("--sandbox", "--config", str(config))


async def link_acme(daemon: Daemon) -> None:
    async with daemon.client() as client, following(client) as events:
        await link(client, events, "acme", "+15550100")
        await client.call("sandbox.register", phone=FRIEND)
        await client.call("session.configure", company="acme", per_minute=3, **LIMITS)


async def limiter_check(client: RpcClient) -> dict[str, Any]:
    health = await client.call("daemon.health")
    [check] = [check for check in health["checks"] if check["name"] == "limiter"]
    found: dict[str, Any] = check
    return found


async def until_limiter(client: RpcClient, *, is_well: bool) -> dict[str, Any]:
    with trio.fail_after(PATIENCE):
        while True:
            check = await limiter_check(client)
            if check["ok"] is is_well:
                return check
            await trio.sleep(0.1)


async def send(client: RpcClient, **arguments: Any) -> dict[str, Any]:
    row: dict[str, Any] = await client.call(
        "message.send", company="acme", to=FRIEND, text="x", **arguments
    )
    return row


async def test_two_daemons_share_one_limit(tmp_path: Path, redis_server: RedisServer) -> None:
    arguments = configured(tmp_path, redis_server)
    async with running_daemon(*arguments) as first, running_daemon(*arguments) as second:
        await link_acme(first)
        await link_acme(second)
        async with first.client() as one, second.client() as other:
            for client in (one, other, one):
                assert (await send(client, no_queue=True, wait="sent"))["state"] == "sent"
            for client in (one, other):
                with pytest.raises(RateLimited):
                    await send(client, no_queue=True)
            # A message that waits for its turn is held up by what the other daemon sent.
            row = await send(other)
            await other.call("session.configure", company="acme", per_minute=4)
            with trio.fail_after(PATIENCE):
                waited = await other.call("message.wait", **{"id": row["id"], "for": "sent"})
            assert waited["state"] in ("sent", "delivered")


async def test_messages_flow_while_redis_is_away_and_health_says_so(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with running_daemon(*configured(tmp_path, redis_server)) as daemon:
        await link_acme(daemon)
        async with daemon.client() as client:
            assert "redis" in (await until_limiter(client, is_well=True))["detail"]
            await send(client, wait="sent")
            redis_server.kill()
            began = trio.current_time()
            row = await send(client, wait="sent")
            assert row["state"] == "sent"
            assert trio.current_time() - began < 2  # within a second, and the message itself
            check = await until_limiter(client, is_well=False)
            assert "memory" in check["detail"]
            assert "redis_away" in daemon.log()
            # The limit holds meanwhile, and counts what Redis had counted.
            assert (await send(client, no_queue=True, wait="sent"))["state"] == "sent"
            with pytest.raises(RateLimited):
                await send(client, no_queue=True)
            redis_server.start()
            await until_limiter(client, is_well=True)
            assert daemon.log().count("redis_in_use") == 2
            with pytest.raises(RateLimited):
                await send(client, no_queue=True)
            await client.call("session.configure", company="acme", per_minute=0)
            assert (await send(client, wait="sent"))["state"] == "sent"
