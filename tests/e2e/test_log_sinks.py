"""No log sink ends, stalls or slows the daemon."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, following, link, running_daemon
from full_pipe import full_pipe

from whatsappd.rpc.client import RpcClient


@pytest.fixture
def stuck() -> Iterator[int]:
    with full_pipe() as writing:
        yield writing


SINKS = {
    "full": ("2>/dev/full", "No space left on device"),
    "all closed": ("<&- >&- 2>&-", "Bad file descriptor"),
    "stuck": ("2>&{stuck}", "nobody reads it"),
}


@pytest.mark.parametrize("sink", SINKS)
async def test_a_daemon_works_and_ends_whatever_its_log_goes_to(sink: str, stuck: int):
    redirection, trouble = SINKS[sink]

    def redirect(daemon: Daemon) -> None:
        words = redirection.format(stuck=stuck)
        daemon.wrapper = ["bash", "-c", f'exec "$@" {words}', "bash"]  # sh knows no 2>&10
        daemon.descriptors = (stuck,)

    async with (
        running_daemon("--sandbox", "--log-level", "debug", prepare=redirect) as daemon,
        daemon.client() as client,
        following(client) as events,
    ):
        await link(client, events, "acme", "+15550100")
        row = await client.call("message.send", company="acme", to="+15550100", text="Hello")
        await events.until(
            lambda event: event["type"] == "outbox.state" and event["data"]["state"] == "sent"
        )
        assert row["state"] == "queued"
        with trio.fail_after(PATIENCE):
            # A reader that is slow for a moment is not told of.
            while (check := await log_check(client))["ok"]:
                await trio.sleep(0.05)
        assert trouble in check["detail"]
        assert await daemon.stop() == 0


async def log_check(client: RpcClient) -> dict[str, Any]:
    report = await client.call("daemon.health")
    [check] = [check for check in report["checks"] if check["name"] == "log"]
    found: dict[str, Any] = check
    return found


async def test_a_daemon_that_is_aborted_does_not_wait_for_a_reader_of_its_last_words(stuck: int):
    def redirect(daemon: Daemon) -> None:
        daemon.wrapper = ["bash", "-c", f'exec "$@" 2>&{stuck}', "bash"]
        daemon.descriptors = (stuck,)

    async with running_daemon(prepare=redirect) as daemon:
        assert await daemon.stop(signal.SIGABRT) == -signal.SIGABRT


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_daemon_that_cannot_start_says_so_with_its_exit_code(redirection: str):
    line = f"exec {sys.executable} -m whatsappd run --set nonsense=1 {redirection}"
    assert subprocess.run(["sh", "-c", line], check=False, timeout=60).returncode == 2
