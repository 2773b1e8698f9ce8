"""Files that are removed or replaced while the daemon runs: health says so; the lock ends it."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import trio
from daemons import PATIENCE, in_sandbox, link

from whatsappd.rpc.client import RpcClient

ROUNDS = ("sessions.health_interval=1s", "sessions.health_deadline=1s")


async def until_told(client: RpcClient, name: str, words: str | None) -> None:
    """Wait until a check, or a company, is not well because of `words`; None: until it is well."""
    with trio.fail_after(PATIENCE):
        while True:
            report = await client.call("daemon.health")
            found: dict[str, Any] = {check["name"]: check for check in report["checks"]}
            found |= report["sessions"]
            told = found[name]
            if told["ok"] if words is None else (words in told["detail"] and not told["ok"]):
                assert words is None or told["remedy"]
                return
            await trio.sleep(0.1)


async def test_what_is_removed_or_replaced_is_told_and_a_lost_lock_ends_the_daemon() -> None:
    settings = [part for each in ROUNDS for part in ("--set", each)]
    async with in_sandbox(*settings) as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        await until_told(client, "acme", None)
        await until_told(client, "state_dir", None)
        directory = daemon.state_dir / "companies" / "acme"
        aside = directory.with_name("aside")
        directory.rename(aside)
        await until_told(client, "acme", "was removed")
        shutil.copytree(aside, directory)
        await until_told(client, "acme", "was replaced by another one")
        shutil.rmtree(directory)
        aside.rename(directory)
        await until_told(client, "acme", None)

        database = daemon.state_dir / "whatsappd.db"
        database.rename(database.with_name("aside"))
        await until_told(client, "state_dir", "whatsappd.db was removed")
        database.with_name("aside").rename(database)
        await until_told(client, "state_dir", None)

        (daemon.state_dir / "whatsappd.lock").unlink()
        assert daemon.process is not None
        with trio.fail_after(PATIENCE):
            assert await daemon.process.wait() == 1
        said = daemon.log().splitlines()
        assert any("whatsappd.lock was removed while the daemon ran" in line for line in said)
        assert not any("Traceback" in line for line in said if not line.startswith("{"))
        stops = [json.loads(line) for line in said if line.startswith("{")]
        assert not [line for line in stops if line["event"] == "task_failed"]
    with pytest.raises(OSError, match="No such"):
        (daemon.state_dir / "whatsappd.lock").read_text()
