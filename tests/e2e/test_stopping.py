"""`kill -TERM`, and the process and all that it started are gone in time, whatever hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
import trio
from daemons import (
    Daemon,
    following,
    in_sandbox,
    link,
    running_daemon,
    until_gone,
)

from whatsappd.errors import EXIT_OK, EXIT_TIMED_OUT
from whatsappd.process_table import all_processes
from whatsappd.shutdown import STOP_WITHIN
from whatsappd.wire.rpc import pack_request

#: Seconds that a busy machine may add to what is measured.
SLACK = 5.0


def lines(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


async def stopped(daemon: Daemon, pids: list[int]) -> tuple[int, float]:
    """Stop it; its exit code, and the seconds until it and all of `pids` were gone."""
    began = trio.current_time()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    with trio.fail_after(STOP_WITHIN + SLACK + 10):
        code = await daemon.process.wait()
        for pid in pids:
            await until_gone(pid)
    return code, trio.current_time() - began


async def test_frozen_workers_and_a_frozen_fork_server_are_killed() -> None:
    """The longest grace that can be set changes nothing about it."""
    async with in_sandbox("--set", "sessions.stop_grace=1m") as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        status = await client.call("daemon.status")
        workers = [each["worker_pid"] for each in status["companies"]]
        pids = [*workers, status["fork_server"]["pid"]]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        code, took = await stopped(daemon, pids)
        assert took < STOP_WITHIN + SLACK
        assert code == EXIT_OK  # all that is the daemon's own was closed
        [cut] = lines(daemon, "sessions_cut_off")
        assert cut["companies"] == ["acme", "globex"]


async def test_a_frozen_sandbox_is_killed_and_callers_that_do_not_read_are_left() -> None:
    async with in_sandbox() as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        status = await client.call("daemon.status")
        children = children_of(daemon.pid)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(str(daemon.socket))
            deaf.sendall(b"".join(pack_request(n, "daemon.metrics", {}) for n in range(100)))
            [sandbox] = set(children) - {
                status["fork_server"]["pid"],
                *(each["worker_pid"] for each in status["companies"]),
            }
            os.kill(sandbox, signal.SIGSTOP)
            code, took = await stopped(daemon, children)
        assert took < STOP_WITHIN + SLACK
        assert code == EXIT_OK


#: What hangs, put into the daemon as it is started; each for much longer than a stop may take.
HANGS = {
    "a disk": """
        import sqlite3, threading, whatsappd.store.sqlite.writer as writer
        class Slow(sqlite3.Connection):
            pass
        plain = writer.Writer._transaction
        def slow(self, *arguments):
            if stopping.is_set():
                time.sleep(3600)
            return plain(self, *arguments)
        writer.Writer._transaction = slow
    """,
    "the event loop": """
        import whatsappd.sessions.pool as pool
        async def hang(self):
            time.sleep(3600)
        pool.Pool.shut_down = hang
    """,
    "a thread": """
        import trio, whatsappd.sessions.pool as pool
        async def hang(self):
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(time.sleep, 3600)
        pool.Pool.shut_down = hang
    """,
    "a handler": """
        import trio, whatsappd.sessions.pool as pool
        plain = pool.Pool.remove
        async def hang(self, *arguments, **options):
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()
        pool.Pool.remove = hang
    """,
}


@pytest.mark.parametrize("what", HANGS)
async def test_whatever_hangs_all_is_gone_in_time(what: str) -> None:
    """The limit is shortened, so that the test is quick; nothing else is."""

    def prepare(daemon: Daemon) -> None:
        hang = "\n".join(line[8:] for line in HANGS[what].splitlines())
        (daemon.directory / "sitecustomize.py").write_text(
            "import sys\n"
            "if 'whatsappd' in sys.orig_argv and 'run' in sys.orig_argv:\n"
            "    import threading, time, signal\n"
            "    import whatsappd.shutdown as guard\n"
            "    stopping = threading.Event()\n"
            "    guard.STOP_WITHIN = 3.0\n"
            "    guard.ShutdownGuard.__init__.__kwdefaults__['within_s'] = 3.0\n"
            "    plain_count = guard.ShutdownGuard._count_down\n"
            "    def count(self):\n"
            "        stopping.set()\n"
            "        plain_count(self)\n"
            "    guard.ShutdownGuard._count_down = count\n"
            + "\n".join(f"    {line}" for line in hang.splitlines())
        )
        daemon.environment["PYTHONPATH"] = str(daemon.directory)

    async with running_daemon("--sandbox", prepare=prepare) as daemon:
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            status = await client.call("daemon.status")
            pids = [status["fork_server"]["pid"], status["companies"][0]["worker_pid"]]
            os.kill(pids[1], signal.SIGSTOP)
            if what == "a handler":
                with socket.socket(socket.AF_UNIX) as caller:
                    caller.connect(str(daemon.socket))
                    arguments = {"company": "acme", "force": True}
                    caller.sendall(pack_request(1, "session.remove", arguments))
                    await client.call("daemon.hello")
            code, took = await stopped(daemon, pids)
        assert took < 3.0 + SLACK
        assert code == EXIT_TIMED_OUT
        [forced] = lines(daemon, "stop_forced")
        assert set(pids) <= set(forced["killed"])
        assert "Thread" in daemon.log()  # where each of them was
        # Nothing of it stands in the way of the next.
        (daemon.directory / "sitecustomize.py").unlink()
        await daemon.start()


async def test_a_signal_before_there_is_anything_to_end_ends_it() -> None:
    program = (
        "import time, whatsappd.shutdown as shutdown\n"
        "guard = shutdown.ShutdownGuard(bool); guard.listen()\n"
        "print('listening', flush=True)\n"
        "time.sleep(3600)"
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(number)
            with trio.fail_after(SLACK):
                assert await trio.to_thread.run_sync(process.wait) == -number


async def test_as_process_1_it_leaves_no_zombies() -> None:
    """As in a container: what its children leave behind is the daemon's, and is reaped."""
    try:
        await trio.run_process(["unshare", "--pid", "--fork", "--mount-proc", "true"])
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no PID namespaces here")

    def prepare(daemon: Daemon) -> None:
        daemon.wrapper = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

    async with running_daemon("--sandbox", prepare=prepare) as daemon:
        async with daemon.client() as client, following(client) as events:
            assert (await client.call("daemon.hello"))["pid"] == 1
            await link(client, events, "acme", "+15550100")
            # A stranger: started in the namespace by somebody else, and left to process 1.
            [inside] = children_of(daemon.pid)
            enter = ["nsenter", "-t", str(inside), "-p", "-m"]
            await trio.run_process([*enter, "sh", "-c", "(sleep 0.2 &)"])
            fork_server = (await client.call("daemon.status"))["fork_server"]["pid"]
            await trio.run_process([*enter, "kill", "-KILL", str(fork_server)])
            await link(client, events, "globex", "+15550200")  # by the next fork server
            assert len(children_of(inside)) >= 4
            with trio.fail_after(20):
                while zombies_below(inside):
                    await trio.sleep(0.05)
            os.kill(inside, signal.SIGTERM)
        assert daemon.process is not None
        with trio.fail_after(STOP_WITHIN + SLACK):
            assert await daemon.process.wait() == EXIT_OK


def children_of(pid: int) -> list[int]:
    return [each.pid for each in all_processes() if each.parent == pid]


def zombies_below(pid: int) -> list[int]:
    """Those of the process and of all that it started."""
    ended = {each.pid for each in all_processes() if each.has_ended}
    found, todo = [], [pid]
    while todo:
        children = children_of(todo.pop())
        found += [child for child in children if child in ended]
        todo += children
    return found
