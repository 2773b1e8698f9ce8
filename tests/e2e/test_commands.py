"""`whatsappctl` against a real daemon: its exit codes, batches, and what killing it costs."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, in_sandbox, link, running_daemon
from documents import block

from whatsappd.rpc.client import RpcClient

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "whatsappctl"]


def environment(daemon: Daemon) -> dict[str, str]:
    return {**os.environ, "WHATSAPPD_SOCKET": str(daemon.socket), "PYTHONPATH": str(ROOT)}


async def ctl(daemon: Daemon, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    with trio.fail_after(PATIENCE):
        ended = await trio.run_process(
            [*COMMAND, *arguments],
            stdin=input.encode(),
            env=environment(daemon),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return subprocess.CompletedProcess(
        ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode()
    )


@asynccontextmanager
async def started(
    daemon: Daemon, *arguments: str, stdout: Any = subprocess.PIPE
) -> AsyncIterator[trio.Process]:
    """The command as a process, which is gone at the end."""
    process = await trio.lowlevel.open_process(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(daemon),
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


async def rest_of(process: trio.Process, so_far: bytes = b"") -> tuple[int, str, str]:
    """Its exit code, and all that it still writes."""
    collected = {"out": so_far, "err": b""}

    async def collect(name: str, stream: Any) -> None:
        async for part in stream:
            collected[name] += part

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, "out", process.stdout)
            nursery.start_soon(collect, "err", process.stderr)
        code = await process.wait()
    return code, collected["out"].decode(), collected["err"].decode()


async def lines_from(process: trio.Process, count: int) -> bytes:
    """What it wrote until it wrote so many lines."""
    assert process.stdout is not None
    written = b""
    with trio.fail_after(PATIENCE):
        while written.count(b"\n") < count:
            part = await process.stdout.receive_some()
            assert part, "it ended"
            written += part
    return written


async def queued(client: RpcClient, company: str = "acme") -> int:
    status = await client.call("session.status", company=company)
    return int(status["queued"])


def batch_file(directory: Path, count: int) -> str:
    file = directory / "batch.ndjson"
    with file.open("w") as out:
        for number in range(count):
            line = {"to": f"+1555{number % 1500:07}", "text": f"Message {number} for you."}
            out.write(json.dumps(line) + "\n")
    return str(file)


async def test_messages_from_the_command_line_to_the_phone_and_every_way_they_can_end() -> None:
    async with in_sandbox() as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")

        sent = await ctl(daemon, "send", "acme", "+15550200", "Hello", "--wait", "delivered")
        assert sent.returncode == 0, sent.stderr
        id, state = sent.stdout.split()
        assert state == "delivered"
        shown = await ctl(daemon, "outbox", "show", id, "--json")
        assert json.loads(shown.stdout)["text"] == "Hello"
        listed = await ctl(daemon, "outbox", "list", "acme", "--state", "delivered", "--json")
        assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == [id]

        # A number that is not on WhatsApp.
        failed = await ctl(daemon, "send", "acme", "+15559999", "Hello", "--wait", "sent")
        assert failed.returncode == 1
        assert failed.stdout.split()[1] == "failed"
        assert "is failed: " in failed.stderr

        # Above the limit there is no place, and below it messages wait, expire, or are cancelled.
        changed = await ctl(daemon, "limits", "acme", "--per-minute", "1", "--json")
        assert json.loads(changed.stdout)["limits"]["per_minute"] == 1
        refused = await ctl(daemon, "send", "acme", "+15550200", "No", "--no-queue", "--json")
        assert refused.returncode == 5, refused.stderr
        assert 0 < json.loads(refused.stderr)["error"]["data"]["retry_after_ms"] <= 66_000
        waiting = await ctl(
            daemon, "send", "acme", "+15550200", "x", "--wait", "sent", "--timeout", "0.2"
        )
        assert waiting.returncode == 6
        id, state = waiting.stdout.split()
        assert state == "queued"
        cancelled = await ctl(daemon, "outbox", "cancel", id)
        assert (cancelled.returncode, cancelled.stdout) == (0, f"{id} cancelled\n")
        again = await ctl(daemon, "outbox", "cancel", id)
        assert again.returncode == 7
        expired = await ctl(
            daemon, "send", "acme", "+15550200", "x", "--wait", "sent", "--ttl", "0.2"
        )
        assert (expired.returncode, expired.stdout.split()[1]) == (1, "expired")
        reset = await ctl(daemon, "limits", "acme", "--reset", "--json")
        assert json.loads(reset.stdout)["limits"]["per_minute"] == 30

        stopped = await ctl(daemon, "stop", "acme")
        assert stopped.returncode == 0
        refused = await ctl(daemon, "send", "acme", "+15550200", "No", "--no-queue")
        assert refused.returncode == 4
        assert (await ctl(daemon, "send", "initech", "+15550200", "No")).returncode == 9
        assert (await ctl(daemon, "outbox", "show", "0" * 16)).returncode == 9
        assert (await ctl(daemon, "configure", "--log-level", "debug")).returncode == 0


async def test_an_uncertain_message_ends_the_waiting_and_is_resolved_by_a_person() -> None:
    async with in_sandbox() as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        await client.call("session.stop", company="globex")  # whose receipt would settle it
        # The server takes it without a word, and the worker dies over it.
        await client.call("sandbox.fault", kind="lose_acks", phone="+15550100", count=1)
        async with started(daemon, "send", "acme", "+15550200", "x", "--wait", "sent") as process:
            with trio.fail_after(PATIENCE):
                while not (await client.call("sandbox.stats"))["acks_withheld"]:
                    await trio.sleep(0.02)
            status = await client.call("session.status", company="acme")
            os.kill(status["worker_pid"], signal.SIGKILL)
            code, out, err = await rest_of(process)
        assert code == 11, (out, err)
        id, state = out.split()
        assert state == "uncertain"
        assert f"whatsappctl outbox resolve {id}" in err
        resolved = await ctl(daemon, "outbox", "resolve", id, "--as", "sent")
        assert (resolved.returncode, resolved.stdout) == (0, f"{id} sent\n")


async def test_a_batch_is_accepted_once_however_often_it_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 4000
    file = batch_file(tmp_path, count)
    async with running_daemon("--sandbox") as daemon, daemon.client() as client:
        await client.call("session.start", company="acme")
        began = time.monotonic()
        first = await ctl(daemon, "send", "acme", "--batch", file)
        seconds = time.monotonic() - began
        assert (first.returncode, first.stdout) == (0, f"{count} lines: {count} accepted\n")
        again = await ctl(daemon, "send", "acme", "--batch", "-", input=Path(file).read_text())
        assert again.stdout == f"{count} lines: 0 accepted, {count} accepted before\n"
        assert await queued(client) == count
    with capsys.disabled():
        print(f"\nsend --batch: {count} lines in {seconds:.2f} s = {count / seconds:.0f} lines/s")


async def test_ctrl_c_says_what_was_accepted_and_the_next_run_completes_it(tmp_path: Path) -> None:
    count = 4000
    arguments = ("send", "acme", "--batch", batch_file(tmp_path, count), "--json")
    async with running_daemon("--sandbox") as daemon, daemon.client() as client:
        await client.call("session.start", company="acme")
        async with started(daemon, *arguments) as process:
            some = await lines_from(process, 300)
            process.send_signal(signal.SIGINT)
            code, out, err = await rest_of(process, some)
        assert code == 130, err
        told = json.loads(err)
        assert told["error"]["name"] == "interrupted"
        accepted = told["summary"]["accepted"]
        assert 300 <= accepted < count
        assert told["summary"]["in_doubt"] == 0
        assert out.count("\n") == accepted == await queued(client)

        second = await ctl(daemon, *arguments)
        assert second.returncode == 0
        summary = json.loads(second.stderr)["summary"]
        assert (summary["accepted_before"], summary["accepted"]) == (accepted, count - accepted)
        assert await queued(client) == count


async def test_a_batch_outlives_the_daemon(tmp_path: Path) -> None:
    count = 4000
    async with running_daemon("--sandbox") as daemon:
        async with daemon.client() as client:
            await client.call("session.start", company="acme")
        file = batch_file(tmp_path, count)
        async with started(daemon, "send", "acme", "--batch", file, "--json") as process:
            some = b""
            for _ in range(2):
                some += await lines_from(process, 400)
                await daemon.stop(signal.SIGKILL)
                await daemon.start()
            code, out, err = await rest_of(process, some)
        assert code == 0, err
        results = [json.loads(line) for line in out.splitlines()]
        assert sorted(result["line"] for result in results) == list(range(1, count + 1))
        assert len({result["id"] for result in results}) == count
        assert err.count("trying again") == 2
        async with daemon.client() as client:
            assert await queued(client) == count


async def test_a_full_queue_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATSAPPD_QUEUE_LIMIT", "200")
    count = 500
    async with running_daemon("--sandbox") as daemon, daemon.client() as client:
        await client.call("session.start", company="acme")
        file = batch_file(tmp_path, count)
        async with started(daemon, "send", "acme", "--batch", file, "--json") as process:
            some = await lines_from(process, 200)
            ids = [json.loads(line)["id"] for line in some.splitlines()]
            assert await queued(client) == 200
            seen = 0
            while len(ids) < count:  # room for as many as were cancelled, and no more
                for id in ids[seen:]:
                    await client.call("message.cancel", id=id)
                done, seen = len(ids) - seen, len(ids)
                more = await lines_from(process, min(done, count - len(ids)))
                ids += [json.loads(line)["id"] for line in more.splitlines()]
                some += more
            code, _, err = await rest_of(process)
        assert code == 0
        assert "200 messages of acme wait" in err
        assert len(set(ids)) == count


async def test_the_guides_batch_works_when_pasted(tmp_path: Path) -> None:
    script = block("test:batch")
    shim = tmp_path / "whatsappctl"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m whatsappctl "$@"\n')
    shim.chmod(0o755)
    async with running_daemon("--sandbox") as daemon:
        with trio.fail_after(PATIENCE):
            pasted = await trio.run_process(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=tmp_path,
                env={**environment(daemon), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
                capture_stdout=True,
            )
    printed = pasted.stdout.decode()
    # What the comments promise.
    assert all(promise in printed for promise in re.findall(r"# (\d+ lines: .*)", script))
    assert (tmp_path / "results.ndjson").read_text().count("\n") == 1000
    assert (tmp_path / "events.ndjson").read_text().count('"state": "queued"') >= 1000


@asynccontextmanager
async def traffic(daemon: Daemon) -> AsyncIterator[None]:
    """An event every few milliseconds: messages of a company that is not connected."""

    async def send() -> None:
        async with daemon.client() as client:
            while True:
                await client.call("message.send", company="acme", to="+15550200", text="x")
                await trio.sleep(0.002)  # the pace of the traffic

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        yield
        nursery.cancel_scope.cancel()


def seqs_in(file: Path) -> list[int]:
    """Of the complete lines; the last one may be cut off."""
    return [json.loads(line)["seq"] for line in file.read_text().splitlines(True) if "\n" in line]


@pytest.mark.parametrize("resumes_by", ["--consumer", "--after"])
async def test_events_killed_at_any_moment_are_resumed_without_loss(
    tmp_path: Path, resumes_by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.ndjson"
    file.touch()
    chance = random.Random(7)
    kills = 12

    def place() -> tuple[str, str]:
        if resumes_by == "--consumer":
            return "--consumer", "crm"
        return "--after", str(max(seqs_in(file), default=0))

    async with running_daemon("--sandbox") as daemon, daemon.client() as client:
        await client.call("session.start", company="acme")
        # A new consumer begins with what comes; this one with the oldest event.
        await client.call("events.subscribe", consumer="crm", after=0)
        async with traffic(daemon):
            for _ in range(kills):
                seen = file.stat().st_size
                with file.open("a") as out:
                    async with started(daemon, "events", "--json", *place(), stdout=out) as process:
                        with trio.fail_after(PATIENCE):
                            while file.stat().st_size == seen:
                                await trio.sleep(0.005)
                        await trio.sleep(chance.uniform(0, 0.15))
                        process.kill()
        with file.open("a") as out:
            async with started(
                daemon, "events", "--json", "--no-follow", *place(), stdout=out
            ) as process:
                assert await process.wait() == 0
        last = (await client.call("daemon.status"))["last_seq"]
        seqs = seqs_in(file)
        if resumes_by == "--after":
            assert seqs == list(range(1, seqs[-1] + 1))
        else:
            assert sorted(set(seqs)) == list(range(1, max(seqs) + 1))
        assert last - max(seqs) <= 5  # what the session did since
    with capsys.disabled():
        print(
            f"\nevents {resumes_by}: {kills} SIGKILLs, {max(seqs)} events, none missing, "
            f"{len(seqs) - len(set(seqs))} printed twice"
        )
