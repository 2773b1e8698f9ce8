"""Workers, the fork server, and what WhatsApp does: each has a next step, and hurts nobody else."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import (
    PATIENCE,
    Daemon,
    Events,
    alive,
    following,
    in_sandbox,
    link,
    running_daemon,
    running_sandbox,
    until_gone,
)

from whatsappd.errors import SandboxFailed, WrongState
from whatsappd.rpc.client import RpcClient
from whatsappd.wire.rpc import pack_request


async def pid_of(client: RpcClient, company: str) -> int:
    return int((await client.call("session.status", company=company))["worker_pid"])


async def link_two(client: RpcClient, events: Events) -> None:
    await link(client, events, "acme", "+15550100")
    await link(client, events, "globex", "+15550200")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_killed_worker_comes_back_and_the_others_do_not_notice(
    number: signal.Signals,
) -> None:
    async with in_sandbox() as (_, client, events):
        await link_two(client, events)
        other = await pid_of(client, "globex")
        victim = await pid_of(client, "acme")
        start = len(events.seen)
        os.kill(victim, number)
        ended = await events.state("acme", "backing_off", start=start)
        assert number.name in ended["data"]["cause"]
        assert ended["data"]["next_try_ms"] >= ended["time_ms"]
        await events.state("acme", "connected", start=start)
        assert await pid_of(client, "globex") == other
        assert not [event for event in events.seen[start:] if event["company"] == "globex"]
        status = await client.call("session.status", company="acme")
        assert status["restarts"] == 1


async def test_a_dead_fork_server_is_replaced_and_running_workers_live_on() -> None:
    async with in_sandbox() as (_, client, events):
        await link_two(client, events)
        workers = [await pid_of(client, company) for company in ("acme", "globex")]
        before = (await client.call("daemon.status"))["fork_server"]["pid"]
        os.kill(before, signal.SIGKILL)
        await until_gone(before)
        row = await client.call(
            "message.send", company="acme", to="+15550200", text="x", wait="delivered"
        )
        assert row["state"] == "delivered"
        assert [await pid_of(client, company) for company in ("acme", "globex")] == workers
        await link(client, events, "initech", "+15550300")
        after = (await client.call("daemon.status"))["fork_server"]
        assert after["pid"] != before
        assert after["restarts"] == 1


async def test_fork_servers_that_die_before_they_are_ready_hold_up_no_start() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        await client.call("session.stop", company="acme")
        start = len(events.seen)

        async def other_than(former: int) -> int:
            while True:
                pid = (await client.call("daemon.status"))["fork_server"]["pid"]
                if pid not in (None, former):
                    return int(pid)
                await trio.sleep(0.005)

        ready = (await client.call("daemon.status"))["fork_server"]["pid"]
        os.kill(ready, signal.SIGKILL)
        # This one imports the library first, and the session waits for it.
        early = await other_than(ready)
        await client.call("session.start", company="acme")
        await client.call("session.status", company="acme")
        os.kill(early, signal.SIGKILL)
        os.kill(await other_than(early), signal.SIGKILL)
        await events.state("acme", "connected", start=start)


#: Makes neonize's client call, while it is imported, what workers leave out of that import.
_NEEDY = """
import sys

class Needy:
    def find_spec(self, name, path=None, target=None):
        if name == "neonize.client":
            import tqdm
            list(tqdm.tqdm([], disable=True))

sys.meta_path.insert(0, Needy())
"""


async def test_a_neonize_that_cannot_be_preloaded_is_imported_by_each_worker() -> None:
    def make_needy(daemon: Daemon) -> None:
        (daemon.directory / "sitecustomize.py").write_text(_NEEDY)
        daemon.environment["PYTHONPATH"] = str(daemon.directory)

    async with in_sandbox(prepare=make_needy) as (daemon, client, events):
        await link_two(client, events)
        sent = await client.call(
            "message.send", company="acme", to="+15550200", text="hello", wait="delivered"
        )
        assert sent["state"] == "delivered"
        log = [json.loads(line) for line in daemon.log().splitlines()]
        [warning] = [line for line in log if line["event"] == "fork_server_cannot_preload"]
        assert "tqdm.tqdm() was called, and is left out" in warning["reason"]


async def test_a_worker_that_keeps_dying_ends_in_failed_and_can_be_started_again() -> None:
    async with in_sandbox("--set", "sessions.retry_base=50ms") as (_, client, events):
        await link(client, events, "acme", "+15550100")
        start = len(events.seen)
        with trio.fail_after(120):
            while True:
                status = await client.call("session.status", company="acme")
                if status["state"] == "failed":
                    break
                if status["worker_pid"]:
                    with suppress(ProcessLookupError):  # the one before may still be shown
                        os.kill(status["worker_pid"], signal.SIGKILL)
                    await until_gone(status["worker_pid"])
                await trio.sleep(0.02)
        failed = await events.state("acme", "failed", start=start)
        assert "SIGKILL" in failed["data"]["cause"]
        start = len(events.seen)
        await client.call("session.start", company="acme")
        await events.state("acme", "connected", start=start)


async def ask_and_hang_up(daemon: Daemon, method: str, **arguments: Any) -> None:
    """Send a request and close the connection before its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.socket))
        connection.sendall(pack_request(1, method, arguments))


async def test_a_restart_ends_with_a_start_though_nobody_waits_for_it() -> None:
    async with in_sandbox() as (daemon, client, events):
        await link_two(client, events)
        before = await pid_of(client, "acme")
        start = len(events.seen)
        await ask_and_hang_up(daemon, "session.restart", company="acme")
        await events.state("acme", "connected", start=start)
        assert await pid_of(client, "acme") != before


async def test_a_removal_is_whole_though_nobody_waits_for_it() -> None:
    async with in_sandbox() as (daemon, client, events):
        await link_two(client, events)
        directory = daemon.state_dir / "companies" / "acme"
        assert (directory / "session.db").exists()
        await ask_and_hang_up(daemon, "session.remove", company="acme", force=True)
        with trio.fail_after(PATIENCE):
            while "acme" in {c["company"] for c in (await client.call("session.list"))["sessions"]}:
                await trio.sleep(0.02)
            # What is left of it goes behind that, whatever becomes of the caller.
            while directory.exists():
                await trio.sleep(0.02)
        # The name is free: whoever gets it begins from nothing.
        start = len(events.seen)
        await client.call("session.start", company="acme")
        await events.of_type("acme", "session.qr", start=start)


async def test_a_pairing_session_can_be_stopped_at_once() -> None:
    async with in_sandbox("--set", "sessions.stop_grace=60s") as (_, client, events):
        await client.call("session.start", company="acme")
        await events.of_type("acme", "session.qr")
        pid = await pid_of(client, "acme")
        with trio.fail_after(PATIENCE):  # less than the grace, which it would not use
            status = await client.call("session.stop", company="acme")
        assert status["state"] == "stopped"
        assert status["qr"] is None
        assert not alive(pid)


async def test_a_worker_that_answers_nothing_can_be_stopped_and_disturbs_nobody() -> None:
    async with in_sandbox() as (_, client, events):
        await link_two(client, events)
        pid = await pid_of(client, "acme")
        os.kill(pid, signal.SIGSTOP)
        row = await client.call("message.send", company="globex", to="+15550100", text="x")
        assert row["state"] == "queued"
        hello_took: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.call("session.stop", company="acme"))
            for _ in range(20):
                began = trio.current_time()
                await client.call("daemon.hello")
                hello_took.append(trio.current_time() - began)
        assert not alive(pid)
        assert max(hello_took) < 1


async def test_a_worker_may_die_while_its_session_is_ending_it() -> None:
    async with in_sandbox() as (_, client, events):
        await link_two(client, events)
        pid = await pid_of(client, "acme")
        start = len(events.seen)
        await client.call("sandbox.unlink", phone="+15550100")
        await events.state("acme", "logged_out", start=start)
        os.kill(pid, signal.SIGKILL)  # while it has time to delete the account
        await until_gone(pid)
        await link(client, events, "acme", "+15550100")
        assert not [
            event
            for event in events.seen[start:]
            if event["type"] == "session.state" and event["data"]["state"] == "failed"
        ]


async def test_in_real_mode_the_true_cause_and_the_next_try_are_shown() -> None:
    # A proxy that is not there: nothing leaves this host, whatever network it has.
    def no_network(daemon: Daemon) -> None:
        daemon.environment["https_proxy"] = "http://127.0.0.1:9"

    async with (
        running_daemon(prepare=no_network) as daemon,
        daemon.client() as client,
        following(client) as events,
    ):
        hello = await client.call("daemon.hello")
        assert hello["mode"] == "real"
        assert not [name for name in hello["methods"] if name.startswith("sandbox.")]
        await client.call("session.start", company="acme")
        waiting = await events.state("acme", "backing_off")
        assert "127.0.0.1:9: connect: connection refused" in waiting["data"]["cause"]
        assert waiting["data"]["next_try_ms"] >= waiting["time_ms"]
        start = len(events.seen)
        await events.state("acme", "starting", start=start)  # the try comes by itself
        await client.call("session.stop", company="acme")


async def test_a_server_that_cannot_prove_to_be_whatsapp_is_refused(tmp_path: Path) -> None:
    async with running_sandbox() as sandbox:
        described = json.loads(sandbox.info.read_text())
        false = tmp_path / "false.json"
        false.write_text(json.dumps({**described, "noise_root": "11" * 32}))
        async with (
            running_daemon("--sandbox-at", str(false)) as daemon,
            daemon.client() as client,
            following(client) as events,
        ):
            await client.call("session.start", company="acme")
            waiting = await events.state("acme", "backing_off")
            assert "failed to verify" in waiting["data"]["cause"]
            assert waiting["data"]["next_try_ms"] is not None


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "drop"}, "reconnecting", "connection was lost"),
    ({"kind": "stream_error", "code": 503}, "reconnecting", "connection was lost"),
    ({"kind": "freeze", "seconds": 0.5, "cut": True}, "reconnecting", "connection was lost"),
]


@pytest.mark.parametrize(("fault", "state", "words"), FAULTS, ids=lambda value: str(value)[:40])
async def test_a_lost_connection_is_reconnected_by_whatsmeow(
    fault: dict[str, Any], state: str, words: str
) -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        pid = await pid_of(client, "acme")
        start = len(events.seen)
        await client.call("sandbox.fault", phone="+15550100", **fault)
        seen = await events.state("acme", state, start=start)
        assert words in seen["data"]["cause"]
        await events.state("acme", "connected", start=start)
        assert await pid_of(client, "acme") == pid  # the process was none of the trouble


async def test_a_replaced_stream_is_parked_and_taken_back_only_on_request() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        start = len(events.seen)
        await client.call("sandbox.fault", kind="replace_stream", phone="+15550100")
        parked = await events.state("acme", "conflict", start=start)
        assert "--take-over" in parked["data"]["cause"]
        assert parked["data"]["next_try_ms"] is None
        with pytest.raises(WrongState, match="--take-over"):
            await client.call("session.start", company="acme")
        await client.call("session.start", company="acme", take_over=True)
        await events.state("acme", "connected", start=start)


LOGIN_FAILURES: list[tuple[dict[str, int], str, str]] = [
    ({"reason": 401}, "logged_out", "unlinked from the phone"),
    ({"reason": 403}, "logged_out", "logged out or locked"),
    ({"reason": 405}, "outdated", "upgrade"),
    ({"reason": 402, "code": 101, "expire": 3600}, "banned", "3600 s"),
    ({"reason": 402, "code": 999, "expire": 3600}, "banned", "3600 s"),
    ({"reason": 409}, "backing_off", "409"),
    ({"reason": 499}, "backing_off", "refused the login"),
]


@pytest.mark.parametrize(
    ("failure", "state", "words"), LOGIN_FAILURES, ids=lambda value: str(value)[:40]
)
async def test_a_refused_login_has_its_state_and_its_words(
    failure: dict[str, int], state: str, words: str
) -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        start = len(events.seen)
        await client.call("sandbox.fault", kind="fail_login", phone="+15550100", **failure)
        await client.call("session.restart", company="acme")
        seen = await events.state("acme", state, start=start)
        assert words in seen["data"]["cause"]
        if "expire" in failure:  # it tries again when the ban ends, and not before
            assert 3_590_000 < seen["data"]["next_try_ms"] - seen["time_ms"] <= 3_600_000


async def test_a_code_is_scanned_once_and_a_false_one_never() -> None:
    async with in_sandbox() as (_, client, events):
        await client.call("session.start", company="acme")
        shown = await events.of_type("acme", "session.qr")
        with pytest.raises(SandboxFailed):
            await client.call("sandbox.scan", qr="nonsense", phone="+15550100")
        await client.call("sandbox.scan", qr=shown["data"]["qr"], phone="+15550100")
        await events.state("acme", "connected")
        with pytest.raises(SandboxFailed):
            await client.call("sandbox.scan", qr=shown["data"]["qr"], phone="+15550100")


@pytest.mark.soak
async def test_a_pairing_that_nobody_scans_times_out_and_can_be_started_again() -> None:
    async with in_sandbox() as (_, client, events):
        await client.call("session.start", company="acme")
        with trio.fail_after(200):
            while True:
                status = await client.call("session.status", company="acme")
                if status["state"] == "logged_out":
                    break
                await trio.sleep(1)
        assert "nobody scanned" in status["cause"]
        codes = {e["data"]["qr"] for e in events.seen if e["type"] == "session.qr"}
        assert len(codes) == 6
        await link(client, events, "acme", "+15550100")


async def test_the_daemon_answers_while_every_worker_is_busy() -> None:
    async with in_sandbox() as (_, client, events):
        await link_two(client, events)
        await client.call("sandbox.fault", kind="delay_acks", seconds=3, count=1, phone="+15550100")
        await client.call("message.send", company="acme", to="+15550200", text="slow")
        await events.until(
            lambda event: event["type"] == "outbox.state" and event["data"]["state"] == "sending"
        )
        with trio.fail_after(PATIENCE):
            for _ in range(50):
                began = trio.current_time()
                await client.call("daemon.status")
                assert trio.current_time() - began < 1


async def test_a_database_that_cannot_be_read_is_named_and_mending_it_helps() -> None:
    async with in_sandbox() as (daemon, client, events):
        await link_two(client, events)
        await client.call("session.stop", company="acme")
        database = daemon.state_dir / "companies" / "acme" / "session.db"
        content = database.read_bytes()
        for path in database.parent.glob("session.db*"):
            path.unlink()
        database.write_bytes(b"this is no database" * 1000)
        start = len(events.seen)
        await client.call("session.start", company="acme")
        waiting = await events.state("acme", "backing_off", start=start)
        assert "not a database" in waiting["data"]["cause"]
        assert waiting["data"]["next_try_ms"] is not None
        assert (await client.call("session.status", company="globex"))["state"] == "connected"
        database.write_bytes(content)
        await events.state("acme", "connected", "pairing", start=start)


async def test_a_company_directory_that_cannot_be_made_is_explained() -> None:
    async with in_sandbox() as (daemon, client, events):
        (daemon.state_dir / "companies" / "acme").write_text("in the way")
        await client.call("session.start", company="acme")
        waiting = await events.state("acme", "backing_off")
        assert "companies/acme" in waiting["data"]["cause"]


async def test_a_server_that_is_unavailable_is_asked_again_until_it_is_there() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        start = len(events.seen)
        await client.call("sandbox.fault", kind="fail_login", reason=503, phone="+15550100")
        await client.call("session.restart", company="acme")
        await events.state("acme", "connected", start=start + 1)
        stats = await client.call("sandbox.stats")
        assert stats["faults"] == [] or stats["faults"] == {}


@pytest.mark.parametrize("mode", ["close", "503"])
async def test_a_refused_dial_is_named_and_tried_again(mode: str) -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        await client.call("session.stop", company="acme")
        await client.call("sandbox.fault", kind="refuse_dials", count=1, mode=mode)
        start = len(events.seen)
        await client.call("session.start", company="acme")
        refused = await events.state("acme", "backing_off", start=start)
        assert refused["data"]["cause"].startswith("cannot connect: ")
        assert refused["data"]["next_try_ms"] is not None
        await events.state("acme", "connected", start=start)


async def test_a_refused_pairing_has_a_next_step() -> None:
    async with in_sandbox() as (_, client, events):
        await client.call("sandbox.fault", kind="refuse_pairing", reason=400, count=1)
        await client.call("session.start", company="acme")
        refused = await events.state("acme", "backing_off", "logged_out")
        assert "400" in refused["data"]["cause"]
        await link(client, events, "acme", "+15550100")


@pytest.mark.soak
async def test_pings_that_are_not_answered_are_seen_and_their_return_too() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        start = len(events.seen)
        await client.call("sandbox.fault", kind="mute_pings", seconds=50, phone="+15550100")
        with trio.fail_after(120):
            while not events.seen[start:]:
                await trio.sleep(0.5)
        silent = await events.state("acme", "reconnecting", start=start)
        assert "does not answer pings" in silent["data"]["cause"]
        with trio.fail_after(120):
            while (await client.call("session.status", company="acme"))["state"] != "connected":
                await trio.sleep(0.5)
