"""One daemon per state directory, one worker per company, whatever is killed and when."""

from __future__ import annotations

import json
import os
import random
import signal
import socket as sockets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import (
    PATIENCE,
    Daemon,
    alive,
    following,
    link,
    running_daemon,
    until_gone,
)

from whatsappd.errors import EXIT_ALREADY_RUNNING, EXIT_FAILED, Unreachable


async def run_to_end(daemon: Daemon) -> tuple[int, str]:
    """Start a daemon that is expected to refuse; its exit code and what it printed."""
    process = await daemon.launch()
    with trio.fail_after(PATIENCE):
        return await process.wait(), daemon.log()


async def test_a_second_daemon_names_the_first_and_leaves_it_alone(tmp_path: Path) -> None:
    async with running_daemon("--sandbox") as first:
        second = Daemon(tmp_path, "--sandbox")
        second.state_dir = first.state_dir
        code, printed = await run_to_end(second)
        assert code == EXIT_ALREADY_RUNNING
        assert f"pid {first.pid}" in printed
        assert "since 20" in printed
        assert str(first.socket) in printed
        async with first.client() as client:
            assert (await client.call("daemon.hello"))["pid"] == first.pid


async def test_a_daemon_on_another_state_directory_does_not_steal_the_socket() -> None:
    async with running_daemon("--sandbox") as first:
        other = Daemon(first.directory, "--sandbox")
        other.state_dir = first.directory / "other"
        code, printed = await run_to_end(other)
        assert code == EXIT_ALREADY_RUNNING
        assert str(first.pid) in printed
        async with first.client() as client:
            assert (await client.call("daemon.hello"))["pid"] == first.pid


async def test_after_kill_9_the_workers_are_gone_and_the_next_start_succeeds_at_once() -> None:
    async with running_daemon("--sandbox") as daemon:
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            status = await client.call("daemon.status")
        children = [
            status["fork_server"]["pid"],
            *(company["worker_pid"] for company in status["companies"]),
        ]
        os.kill(daemon.pid, signal.SIGKILL)
        assert daemon.process is not None
        await daemon.process.wait()
        assert daemon.socket.exists()  # stale now
        await daemon.start()
        for pid in children:
            await until_gone(pid)
        async with (
            daemon.client() as client,
            following(client, after=status["last_seq"]) as events,
        ):
            await events.state("acme", "connected")


async def test_a_file_that_is_no_socket_is_never_replaced(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "--sandbox")
    daemon.socket.write_text("precious")
    code, printed = await run_to_end(daemon)
    assert code == EXIT_FAILED
    assert "is no socket" in printed
    assert daemon.socket.read_text() == "precious"


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [(["--sandbox"], [], "belongs to sandbox"), ([], ["--sandbox"], "belongs to real")],
    ids=["sandbox then real", "real then sandbox"],
)
async def test_a_state_directory_serves_one_mode_only(
    first: list[str], second: list[str], words: str
) -> None:
    async with running_daemon(*first) as daemon:
        assert await daemon.stop() == 0
        daemon.arguments = tuple(second)
        code, printed = await run_to_end(daemon)
        assert code == EXIT_FAILED
        assert words in printed


async def test_half_a_mark_of_the_mode_is_none() -> None:
    """A disk that was full at the very first start."""

    def begin_to_mark(daemon: Daemon) -> None:
        daemon.state_dir.mkdir(mode=0o700)
        (daemon.state_dir / "mode").touch()

    async with running_daemon("--sandbox", prepare=begin_to_mark) as daemon:
        assert (daemon.state_dir / "mode").read_text() == "sandbox\n"


async def test_a_state_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "--sandbox")
    daemon.state_dir.mkdir(mode=0o755)
    daemon.state_dir.chmod(0o755)
    code, printed = await run_to_end(daemon)
    assert code == EXIT_FAILED
    assert f"chmod 700 {daemon.state_dir}" in printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_daemon_and_leaves_nothing(number: signal.Signals) -> None:
    async with running_daemon("--sandbox") as daemon:
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            await client.call("session.start", company="pairing")
            await events.of_type("pairing", "session.qr")
            status = await client.call("daemon.status")
        control = Path(status["sandbox"]["control"])
        pids = [
            status["fork_server"]["pid"],
            *(company["worker_pid"] for company in status["companies"]),
        ]
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.connect(str(control))
            credentials = probe.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, 12)
            pids.append(int.from_bytes(credentials[:4], sys.byteorder))
        with trio.fail_after(15):  # the README's promise
            assert await daemon.stop(number) == 0
        assert [pid for pid in pids if alive(pid)] == []
        assert not daemon.socket.exists()
        assert not control.exists()


async def logged(daemon: Daemon, event: str, *, count: int = 1) -> dict[str, Any]:
    """The `count`th line of the daemon's log with that event."""
    with trio.fail_after(PATIENCE):
        while True:
            lines = [json.loads(line) for line in daemon.log().splitlines() if line[:1] == "{"]
            found = [line for line in lines if line["event"] == event]
            if len(found) >= count:
                return found[count - 1]
            await trio.sleep(0.01)


async def test_sighup_applies_what_can_be_and_names_what_needs_a_restart(tmp_path: Path) -> None:
    config = tmp_path / "whatsappd.toml"
    config.write_text("[limits]\nper_company_per_minute = 20\n[queue]\nlimit = 7\n")
    async with (
        running_daemon("--sandbox", "--config", str(config)) as daemon,
        daemon.client() as client,
    ):
        await client.call("session.start", company="acme")
        answer = await client.call("session.configure", company="acme")
        assert answer["limits"]["per_minute"] == 20
        config.write_text("[limits]\nper_company_per_minute = 10\n[queue]\nlimit = 8\n")
        os.kill(daemon.pid, signal.SIGHUP)
        line = await logged(daemon, "configuration_reloaded")
        assert line["applied"] == ["limits.per_company_per_minute: 20 → 10"]
        assert line["needs_restart"] == ["queue.limit: 7 → 8"]
        answer = await client.call("session.configure", company="acme")
        assert answer["limits"]["per_minute"] == 10


async def test_a_default_file_that_is_gone_on_sighup_changes_nothing(tmp_path: Path) -> None:
    config = tmp_path / "whatsappd.toml"
    config.write_text("[limits]\nper_company_per_minute = 20\n")

    def prepare(daemon: Daemon) -> None:
        daemon.environment["CONFIGURATION_DIRECTORY"] = str(tmp_path)

    async with (
        running_daemon("--sandbox", prepare=prepare) as daemon,
        daemon.client() as client,
    ):
        await client.call("session.start", company="acme")
        config.unlink()
        os.kill(daemon.pid, signal.SIGHUP)
        line = await logged(daemon, "configuration_not_reloaded")
        assert [problem["origin"] for problem in line["problems"]] == [str(config)]
        answer = await client.call("session.configure", company="acme")
        assert answer["limits"]["per_minute"] == 20


async def test_a_wrong_file_on_sighup_changes_nothing_and_is_logged_whole(tmp_path: Path) -> None:
    config = tmp_path / "whatsappd.toml"
    config.write_text("[limits]\nper_company_per_minute = 20\n")
    async with (
        running_daemon("--sandbox", "--config", str(config)) as daemon,
        daemon.client() as client,
    ):
        await client.call("session.start", company="acme")
        config.write_text('log_level = "loud"\n[limits]\nper_company_per_minute = -1\n')
        os.kill(daemon.pid, signal.SIGHUP)
        line = await logged(daemon, "configuration_not_reloaded")
        assert [problem["key"] for problem in line["problems"]] == [
            "log_level",
            "limits.per_company_per_minute",
        ]
        answer = await client.call("session.configure", company="acme")
        assert answer["limits"]["per_minute"] == 20


#: A contender: takes the lock and holds it until told, or says that it was refused.
CONTENDER = """
import sys, time
from pathlib import Path
from whatsappd.errors import AlreadyRunning
from whatsappd.owner_lock import hold_lock
directory = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    round_name = sys.stdin.readline().strip()
    try:
        lock = hold_lock(directory / round_name, socket=directory / "s", purpose="the test")
        with lock:
            print("owner", flush=True)
            sys.stdin.readline()
    except AlreadyRunning as error:
        print("refused", flush=True)
        sys.stdin.readline()
"""


async def test_of_two_that_take_the_lock_at_once_exactly_one_has_it_200_times(
    tmp_path: Path,
) -> None:
    rounds = 200
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(tmp_path), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for number in range(rounds):
            answers: list[str] = []
            for contender in contenders:
                assert contender.stdin
                contender.stdin.write(f"{number}.lock\n")
            for contender in contenders:
                assert contender.stdin
                contender.stdin.flush()
            for contender in contenders:
                assert contender.stdout
                answers.append(contender.stdout.readline().strip())
            assert sorted(answers) == ["owner", "refused"], f"round {number}"
            for contender in contenders:
                assert contender.stdin
                contender.stdin.write("\n")
                contender.stdin.flush()
    finally:
        for contender in contenders:
            contender.kill()
            contender.communicate()


async def pid_that_answers(daemon: Daemon) -> int:
    """The socket's file is there a moment before anybody listens."""
    while True:
        with suppress(Unreachable):
            async with daemon.client() as client:
                return int((await client.call("daemon.hello"))["pid"])
        await trio.sleep(0.01)


async def start_two_at_once(directory: Path, rounds: int) -> None:
    for number in range(rounds):
        daemons = [Daemon(directory / f"{number}-{which}") for which in "ab"]
        for daemon in daemons:
            daemon.directory.mkdir()
            daemon.state_dir = directory / f"{number}-state"
            daemon.socket = directory / f"{number}.sock"
        processes = [await daemon.launch() for daemon in daemons]
        codes: list[int] = []

        async def wait(process: trio.Process, codes: list[int]) -> None:
            codes.append(await process.wait())

        try:
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for process in processes:
                        nursery.start_soon(wait, process, codes)
                    while not codes:
                        await trio.sleep(0.01)
                    [survivor] = [
                        daemon
                        for daemon, process in zip(daemons, processes, strict=True)
                        if process.poll() is None
                    ]
                    assert await pid_that_answers(survivor) == survivor.pid
                    await survivor.stop()
        finally:
            for process in processes:
                process.kill()  # where the test failed
        assert sorted(codes) == [0, EXIT_ALREADY_RUNNING], [daemon.log() for daemon in daemons]


async def test_of_two_daemons_started_at_once_exactly_one_survives(tmp_path: Path) -> None:
    await start_two_at_once(tmp_path, rounds=5)


@pytest.mark.soak
async def test_of_two_daemons_started_at_once_exactly_one_survives_200_times(
    tmp_path: Path,
) -> None:
    await start_two_at_once(tmp_path, rounds=200)


async def test_an_anonymous_holder_is_reported_too(tmp_path: Path) -> None:
    # Between taking the lock and writing its name a holder has none.
    daemon = Daemon(tmp_path, "--sandbox")
    daemon.state_dir.mkdir(mode=0o700)
    lock = daemon.state_dir / "whatsappd.lock"
    program = (
        f"import fcntl, sys; file = open({str(lock)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout
        holder.stdout.readline()
        code, printed = await run_to_end(daemon)
        assert code == EXIT_ALREADY_RUNNING
        assert "just starting" in printed
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.endurance
async def test_a_random_process_is_killed_again_and_again_and_all_come_back() -> None:
    chance = random.Random(7)
    async with running_daemon("--sandbox") as daemon:
        async with daemon.client() as client, following(client) as events:
            for number, company in enumerate(("acme", "globex")):
                await link(client, events, company, f"+1555010{number}")
        for _ in range(6):
            async with daemon.client() as client:
                status = await client.call("daemon.status")
                pids = [
                    daemon.pid,
                    status["fork_server"]["pid"],
                    *(company["worker_pid"] for company in status["companies"]),
                ]
            victim = chance.choice([pid for pid in pids if pid])
            os.kill(victim, signal.SIGKILL)
            if victim == daemon.pid:
                assert daemon.process is not None
                await daemon.process.wait()
                await daemon.start()
            await trio.sleep(chance.random() * 0.3)
        async with daemon.client() as client:
            with trio.fail_after(PATIENCE):
                while True:
                    status = await client.call("daemon.status")
                    if all(company["state"] == "connected" for company in status["companies"]):
                        break
                    await trio.sleep(0.05)
            row = await client.call(
                "message.send", company="acme", to="+15550101", text="still here", wait="delivered"
            )
            assert row["state"] == "delivered"


def test_the_lock_file_names_its_holder_as_json(tmp_path: Path) -> None:
    from whatsappd.owner_lock import hold_lock

    with hold_lock(tmp_path / "l", socket=tmp_path / "s", purpose="the test"):
        holder = json.loads((tmp_path / "l").read_text())
        assert holder["pid"] == os.getpid()
    assert (tmp_path / "l").read_text() == ""
