"""What WhatsApp, the way to it and the client library may come to, one by one, on the sandbox.

Each has its state, its words and its next step. Those that need a person at a linked account, or a
worker killed from outside, are in `test_supervision`.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
from pathlib import Path

import pytest
from daemons import following, in_sandbox, link, running_daemon, running_sandbox

from whatsappd.errors import SandboxFailed

PIDFD_GETFD = 438  # pidfd_getfd(2), on every architecture


def channel_of(worker: int) -> socket.socket:
    """A duplicate of a worker's end of its channel, which is its only Unix socket."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(worker)
    try:
        for entry in Path(f"/proc/{worker}/fd").iterdir():
            if not str(entry.readlink()).startswith("socket:"):
                continue
            descriptor = libc.syscall(PIDFD_GETFD, pidfd, int(entry.name), 0)
            assert descriptor >= 0, os.strerror(ctypes.get_errno())
            duplicate = socket.socket(fileno=descriptor)
            if duplicate.family == socket.AF_UNIX:
                return duplicate
            duplicate.close()
    finally:
        os.close(pidfd)
    raise AssertionError("the worker has no channel")


async def test_a_worker_that_ends_by_itself_is_told_with_its_code_and_comes_back() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        pid = (await client.call("session.status", company="acme"))["worker_pid"]
        start = len(events.seen)
        with channel_of(pid) as channel:
            channel.shutdown(socket.SHUT_RD)  # as if the daemon had done with it
        ended = await events.state("acme", "backing_off", start=start)
        assert ended["data"]["cause"] == "the worker ended: exit code 0"
        await events.state("acme", "connected", start=start)


async def test_a_panic_of_the_client_library_is_named_and_the_session_comes_back() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        start = len(events.seen)
        await client.call("sandbox.fault", kind="empty_frame", phone="+15550100")
        ended = await events.state("acme", "backing_off", start=start)
        assert ended["data"]["cause"] == (
            "the WhatsApp library crashed (panic: runtime error: slice bounds out of range [1:0]); "
            "killed by SIGABRT"
        )
        assert ended["data"]["next_try_ms"] >= ended["time_ms"]
        await events.state("acme", "connected", start=start)
        status = await client.call("session.status", company="acme")
        assert status["last_error"] == ended["data"]["cause"]
        assert status["restarts"] == 1
        assert not [event for event in events.seen[start:] if event["company"] == "globex"]


async def test_an_account_that_asks_for_a_passkey_is_told_apart() -> None:
    async with in_sandbox() as (_, client, events):
        await client.call("sandbox.fault", kind="ask_passkey", phone="+15550100")
        await client.call("session.start", company="acme")
        shown = await events.of_type("acme", "session.qr")
        with pytest.raises(SandboxFailed, match="asks for a passkey"):
            await client.call("sandbox.scan", qr=shown["data"]["qr"], phone="+15550100")
        parked = await events.state("acme", "logged_out")
        assert "passkey" in parked["data"]["cause"]
        assert "not supported" in parked["data"]["cause"]
        assert parked["data"]["next_try_ms"] is None
        await link(client, events, "acme", "+15550200")  # another account's phone


async def test_a_name_that_cannot_be_resolved_is_told_and_tried_again(tmp_path: Path) -> None:
    # A name with an empty label is none: Go's resolver knows without asking anybody.
    async with running_sandbox() as sandbox:
        described = json.loads(sandbox.info.read_text())
        elsewhere = tmp_path / "elsewhere.json"
        elsewhere.write_text(json.dumps({**described, "host": "whatsapp..invalid"}))
        async with (
            running_daemon("--sandbox-at", str(elsewhere)) as daemon,
            daemon.client() as client,
            following(client) as events,
        ):
            await client.call("session.start", company="acme")
            waiting = await events.state("acme", "backing_off")
            assert "lookup whatsapp..invalid" in waiting["data"]["cause"]
            assert "no such host" in waiting["data"]["cause"]
            start = len(events.seen)
            await events.state("acme", "starting", start=start)  # the try comes by itself


async def test_a_connection_that_is_lost_while_codes_are_shown_leads_to_new_codes() -> None:
    async with in_sandbox() as (_, client, events):
        await client.call("session.start", company="acme")
        await events.of_type("acme", "session.qr")
        start = len(events.seen)
        await client.call("sandbox.fault", kind="drop")
        waiting = await events.state("acme", "backing_off", start=start)
        assert "connection was lost" in waiting["data"]["cause"]
        assert waiting["data"]["next_try_ms"] is not None
        shown = await events.of_type("acme", "session.qr", start=start)
        await client.call("sandbox.scan", qr=shown["data"]["qr"], phone="+15550100")
        await events.state("acme", "connected", start=start)


async def test_a_stream_error_of_unknown_meaning_is_the_last_error() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        start = len(events.seen)
        await client.call("sandbox.fault", kind="stream_error", code=516, phone="+15550100")
        await events.state("acme", "reconnecting", start=start)
        await events.state("acme", "connected", start=start)
        status = await client.call("session.status", company="acme")
        assert status["cause"] == "connected"
        assert status["last_error"] is not None
        assert status["last_error_ms"] >= status["since_ms"] - 60_000
