"""Settings of a real daemon: refused when wrong, shown by `check`, changed while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, following, link, running_daemon

from whatsappd.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, InvalidParams
from whatsappd.owner_lock import hold_lock, holder_of


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`whatsappd check` in an environment without settings of its own."""
    inherited = {key: text for key, text in os.environ.items() if not key.startswith("WHATSAPPD_")}
    return subprocess.run(
        [sys.executable, "-m", "whatsappd", "check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, **environment},
    )


def report(*arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    run = check("--json", *arguments, **environment)
    return run.returncode, json.loads(run.stdout)


def finding(found: dict[str, Any], subject: str) -> dict[str, Any]:
    [one] = [each for each in found["findings"] if each["subject"].startswith(subject)]
    return dict(one)


async def test_a_daemon_with_wrong_settings_says_all_that_is_wrong_and_does_not_start(
    tmp_path: Path,
) -> None:
    daemon = Daemon(tmp_path, "--sandbox", "--set", "queue.limit=0", "--set", "queue.limt=5")
    process = await daemon.launch()
    with trio.fail_after(PATIENCE):
        assert await process.wait() == EXIT_USAGE
    printed = daemon.log()
    assert "2 problems" in printed
    assert "queue.limit" in printed
    assert "did you mean queue.limit?" in printed
    assert "Traceback" not in printed
    assert not daemon.state_dir.exists()


def test_check_tells_every_setting_and_where_it_came_from(tmp_path: Path) -> None:
    config = tmp_path / "whatsappd.toml"
    config.write_text('log_level = "debug"\n[[access]]\nuser = 4711\nread_only = true\n')
    where = ("--config", str(config), "--state-dir", str(tmp_path / "state"))
    code, found = report(*where, WHATSAPPD_QUEUE_LIMIT="5", WHATSAPPD_QUEUE_LIMT="6")
    assert code == EXIT_OK
    assert found["file"] == str(config)
    assert found["settings"]["log_level"] == {"value": "debug", "origin": str(config)}
    assert found["settings"]["queue.limit"] == {"value": 5, "origin": "WHATSAPPD_QUEUE_LIMIT"}
    assert found["settings"]["limits.redis_url"]["origin"] == "default"
    assert found["access"] == ["user 4711: reads all companies"]
    [warning] = found["warnings"]
    assert "WHATSAPPD_QUEUE_LIMIT?" in warning
    readable = check(*where).stdout
    [line] = [line for line in readable.splitlines() if line.startswith("log_level ")]
    assert line.split() == ["log_level", '"debug"', str(config)]
    assert "is made at the first start" in readable
    assert not (tmp_path / "state").exists()


def test_check_refuses_a_wrong_configuration(tmp_path: Path) -> None:
    run = check("--set", "log_level=loud", WHATSAPPD_LOG_FORMAT="xml")
    assert run.returncode == EXIT_USAGE
    assert "2 problems" in run.stderr
    assert run.stdout == ""


def test_the_sample_that_check_prints_is_a_configuration_that_check_accepts(
    tmp_path: Path,
) -> None:
    sample = check("--sample")
    assert sample.returncode == EXIT_OK
    config = tmp_path / "whatsappd.toml"
    config.write_text(sample.stdout)
    code, found = report("--config", str(config), "--state-dir", str(tmp_path / "state"))
    assert code == EXIT_OK
    assert {each["origin"] for key, each in found["settings"].items() if key != "state_dir"} == {
        "default"
    }


async def test_check_runs_beside_the_daemon_and_finds_damage() -> None:
    async with running_daemon("--sandbox") as daemon:
        where = (
            *("--sandbox", "--state-dir", str(daemon.state_dir)),
            *("--socket", str(daemon.socket)),
        )
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            code, found = report(*where)
            assert (code, found["ok"]) == (EXIT_OK, True), found
            words = finding(found, "state directory")["words"]
            assert f"in use by process {daemon.pid}" in words
            assert "sandbox accounts of 1 companies" in words
            assert finding(found, "database")["words"] == "sound"
            assert finding(found, "account acme")["words"] == "sound"
        assert await daemon.stop() == 0
        code, found = report(*where)
        assert "not in use" in finding(found, "state directory")["words"]

        database = daemon.state_dir / "whatsappd.db"
        whole = database.read_bytes()
        database.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
        code, found = report(*where)
        assert (code, found["ok"]) == (EXIT_FAILED, False)
        assert not finding(found, "database")["is_ok"]
        database.write_bytes(whole)

        code, found = report(*where[1:])  # without --sandbox
        assert code == EXIT_FAILED
        assert "belongs to sandbox accounts" in finding(found, "state directory")["words"]

        daemon.state_dir.chmod(0o755)
        code, found = report(*where)
        assert code == EXIT_FAILED
        assert f"chmod 700 {daemon.state_dir}" in finding(found, "state directory")["words"]


def test_check_finds_a_socket_path_that_is_too_long(tmp_path: Path) -> None:
    code, found = report("--state-dir", str(tmp_path / "state"), "--socket", "/tmp/" + "x" * 120)
    assert code == EXIT_FAILED
    assert "Linux allows 107" in finding(found, "socket")["words"]


def test_who_holds_the_lock_is_told_without_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "whatsappd.lock"
    assert holder_of(path) is None
    with hold_lock(path, socket=tmp_path / "s", purpose="the test"):
        assert holder_of(path) == os.getpid()
    assert holder_of(path) is None


async def test_the_log_level_changes_while_the_daemon_runs(tmp_path: Path) -> None:
    config = tmp_path / "whatsappd.toml"
    config.write_text("")
    async with running_daemon("--sandbox", "--config", str(config)) as daemon:
        async with daemon.client() as client:
            assert await client.call("daemon.configure") == {"log_level": "info"}
            answer = await client.call("daemon.configure", log_level="debug")
            assert answer == {"log_level": "debug"}
            with pytest.raises(InvalidParams, match="accepted: debug, info, warning, error"):
                await client.call("daemon.configure", log_level="loud")
        async with daemon.client() as client:
            await client.call("daemon.hello")
        with trio.fail_after(PATIENCE):
            while "rpc_peer_lost" not in daemon.log():  # a debug line
                await trio.sleep(0.01)
        # A reload puts the configured one in force again.
        os.kill(daemon.pid, signal.SIGHUP)
        async with daemon.client() as client:
            with trio.fail_after(PATIENCE):
                while await client.call("daemon.configure") != {"log_level": "info"}:
                    await trio.sleep(0.01)
