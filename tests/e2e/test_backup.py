"""Backup and restore as the guide tells them, under load and under the unit's own view of the file
system; and a daemon that goes on from what was restored."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, following, link, running_daemon
from documents import documents

from whatsappd.errors import EXIT_ALREADY_RUNNING, TooManyRequests

VIEW = Path(__file__).with_name("unit_view.py")


async def run(daemon: Daemon, *command: str | Path) -> subprocess.CompletedProcess[bytes]:
    """`whatsappctl` or `whatsappd` with arguments, for that daemon."""
    program, *arguments = map(str, command)
    if program == "whatsappctl":
        options = ["--socket", str(daemon.socket)]
    else:
        options = ["--state-dir", str(daemon.state_dir), "--socket", str(daemon.socket)]
        options.append("--sandbox")
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [sys.executable, "-m", program, *arguments, *options],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


def names(directory: str | Path) -> list[str]:
    return [path.name for path in Path(directory).iterdir()]


@asynccontextmanager
async def linked(daemon: Daemon) -> AsyncIterator[Any]:
    async with daemon.client() as client, following(client) as events:
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        yield client


#: This is not about pace.
NO_LIMITS = [
    *("--set", "limits.per_company_per_minute=0"),
    *("--set", "limits.per_phone_per_minute=0"),
]


async def send(client: Any, text: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await client.call(
        "message.send", company="acme", to="+15550200", text=text, **more
    )
    return answer


@pytest.mark.endurance
@pytest.mark.parametrize("accounts", [False, True], ids=["database", "with accounts"])
async def test_a_daemon_goes_on_from_a_backup_made_under_load(
    tmp_path: Path, accounts: bool
) -> None:
    """The guide's steps, with the daemon in its unit's view: what it writes to `place`, or to
    anything but its own directories, would not be there."""
    place = tmp_path / "var-backups"
    place.mkdir()
    target = place / ("whatsappd.tar" if accounts else "whatsappd.db")
    options = ["--with-accounts"] if accounts else []
    async with running_daemon("--sandbox", *NO_LIMITS) as daemon:
        await daemon.stop()
        if os.geteuid() == 0:
            view = [sys.executable, str(VIEW), str(daemon.directory), str(place)]
            daemon.wrapper = view
            if (await trio.run_process([*view, "/bin/true"], check=False)).returncode != 0:
                daemon.wrapper = []
        await daemon.start()
        async with linked(daemon) as client:
            before = await send(client, "x", wait="delivered")
            async with trio.open_nursery() as nursery:

                async def load() -> None:
                    for number in range(30):
                        await send(client, str(number))

                nursery.start_soon(load)
                made = await run(daemon, "whatsappctl", "backup", target, *options)
            assert made.returncode == 0, made.stderr
            assert stat.S_IMODE(target.stat().st_mode) == 0o600
            assert names(place) == [target.name]
            assert names(daemon.state_dir / "backups") == []
            again = await run(daemon, "whatsappctl", "backup", target, *options)
            assert again.returncode == 1
            assert b"exists already" in again.stderr
            piped = await run(daemon, "whatsappctl", "backup", "-", *options)
            assert piped.returncode == 0, piped.stderr
            assert len(piped.stdout) >= target.stat().st_size // 2
            refused = await run(daemon, "whatsappd", "restore", target)
            assert refused.returncode == EXIT_ALREADY_RUNNING, refused.stderr
            assert b"already owns" in refused.stderr
        assert await daemon.stop() == 0
        dry = await run(daemon, "whatsappd", "restore", target, "--dry-run")
        assert dry.returncode == 0, dry.stderr
        assert dry.stdout.startswith(b"sound, and would be restored")
        restored = await run(daemon, "whatsappd", "restore", target)
        assert restored.returncode == 0, restored.stderr
        kept = re.search(rb"(/\S+/before-restore-\w+);", restored.stdout)
        assert kept is not None
        assert ("companies" in names(os.fsdecode(kept[1]))) == accounts
        checked = await run(daemon, "whatsappd", "check")
        assert checked.returncode == 0, checked.stdout
        await daemon.start()
        async with daemon.client() as client, following(client) as events:
            found = await client.call("message.get", id=before["id"])
            assert found["state"] == "delivered"
            # What waited then was sent since: nothing is sent a second time unasked.
            rows = (await client.call("message.list", limit=200))["rows"]
            assert not [row for row in rows if row["state"] in ("queued", "sending")]
            await events.state("acme", "connected")
            row = await send(client, "again", wait="sent")
            assert row["state"] in ("sent", "delivered"), daemon.log()


async def test_a_reader_that_vanishes_or_stops_leaves_nothing_and_no_place_taken() -> None:
    async with running_daemon("--sandbox") as daemon:
        async with daemon.client() as client:
            await client.call("session.start", company="acme")
            for number in range(40):
                await client.call(
                    "message.send", company="acme", to="+15550200", text=f"{number}" + "x" * 60_000
                )
        backups = daemon.state_dir / "backups"
        arguments = [sys.executable, "-m", "whatsappctl", "backup", "-"]
        reading, writing = os.pipe()
        stuck = await trio.lowlevel.open_process(
            [*arguments, "--socket", str(daemon.socket)], stdout=writing
        )
        os.close(writing)
        assert await trio.to_thread.run_sync(os.read, reading, 6) == b"SQLite"
        assert names(backups) == []  # what is read has no name any more
        stuck.kill()
        await stuck.wait()
        os.close(reading)
        with trio.fail_after(PATIENCE):
            while True:
                async with daemon.client() as client:
                    try:
                        answer = await client.call("daemon.backup")
                        break
                    except TooManyRequests:
                        await trio.sleep(0.05)
        assert answer["bytes"] > 2_000_000
        assert names(backups) == []


async def test_copies_of_a_daemon_that_was_killed_are_gone_after_its_start() -> None:
    async with running_daemon("--sandbox") as daemon:
        os.kill(daemon.pid, signal.SIGKILL)
        assert daemon.process is not None
        await daemon.process.wait()
        leftover = daemon.state_dir / "backups" / "0123456789abcdef.db"
        leftover.write_bytes(b"half of it")
        await daemon.start()
        assert not leftover.exists()


def test_the_guide_tells_these_steps() -> None:
    guide = documents()["backup.md"]
    for step in (
        "whatsappctl backup",
        "--with-accounts",
        "systemctl stop whatsappd.socket whatsappd.service",
        "whatsappd restore",
        "systemctl start whatsappd.socket whatsappd.service",
    ):
        assert step in guide, step
