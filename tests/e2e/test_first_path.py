"""The main job, end to end: link two companies, send a message, see it arrive."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from daemons import PATIENCE, alive, following, in_sandbox, link, running_daemon

from whatsappd.errors import InvalidParams, KeyConflict, UnknownCompany, WrongState


async def test_the_demo_shows_every_step_and_ends_well(tmp_path: Path) -> None:
    began = time.monotonic()
    result = await trio.run_process(
        [sys.executable, "-m", "whatsappd", "demo"],
        capture_stdout=True,
        stdin=b"",
        check=False,
    )
    printed = result.stdout.decode()
    assert result.returncode == 0, printed
    assert time.monotonic() - began < 15
    steps = [
        "sandbox up",
        "daemon up",
        "acme: QR code shown",
        "acme: QR code scanned",
        "acme: connected",
        "globex: QR code shown",
        "globex: QR code scanned",
        "globex: connected",
        "queued",
        "sent",
        "globex: received",
        "Hello from acme",
        "delivered",
        "Done in",
    ]
    places = [printed.index(step) for step in steps]
    assert places == sorted(places), printed


async def test_a_message_arrives_with_both_identities_and_its_receipt_comes_back() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        row = await client.call(
            "message.send", company="acme", to="+1 (555) 0200", text="Grüße 🎉", wait="delivered"
        )
        assert row["state"] == "delivered"
        assert row["message_id"]
        received = await events.of_type("globex", "message.received")
        assert received["data"]["text"] == "Grüße 🎉"
        assert received["data"]["message_id"] == row["message_id"]
        assert received["data"]["content"] == {"kind": "text", "text": "Grüße 🎉"}
        for person in (received["data"]["sender"], received["data"]["chat"]):
            assert person["lid"].endswith("@lid")
            assert person["phone"] == "+15550100"
            assert person["jid"] == "15550100@s.whatsapp.net"
        await events.until(
            lambda event: event["type"] == "outbox.state" and event["data"]["state"] == "delivered"
        )
        outbox = [
            event["data"]["state"] for event in events.seen if event["type"] == "outbox.state"
        ]
        assert outbox == ["queued", "sending", "sent", "delivered"]
        # And back, without a word about who wrote first.
        answer = await client.call(
            "message.send", company="globex", to="+15550100", text="Danke", wait="delivered"
        )
        assert answer["state"] == "delivered"


async def test_a_key_makes_a_send_repeatable_and_guards_against_other_content() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        first = await client.call("message.send", company="acme", to="+15550200", text="x", key="k")
        again = await client.call("message.send", company="acme", to="+15550200", text="x", key="k")
        assert first["id"] == again["id"]
        with pytest.raises(KeyConflict, match="k"):
            await client.call("message.send", company="acme", to="+15550200", text="y", key="k")
        with pytest.raises(InvalidParams, match=r"^to: "):
            await client.call("message.send", company="acme", to="somebody", text="x")
        with pytest.raises(UnknownCompany):
            await client.call("message.send", company="initech", to="+15550200", text="x")


async def test_messages_sent_before_the_company_is_connected_wait_for_it() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "globex", "+15550200")
        await client.call("session.start", company="acme")
        row = await client.call("message.send", company="acme", to="+15550200", text="early")
        assert row["state"] == "queued"
        shown = await events.of_type("acme", "session.qr")
        await client.call("sandbox.scan", qr=shown["data"]["qr"], phone="+15550100")
        received = await events.of_type("globex", "message.received")
        assert received["data"]["text"] == "early"


async def test_watching_a_start_shows_every_state_from_the_first() -> None:
    async with running_daemon("--sandbox") as daemon, daemon.client() as client:
        status = await client.call("session.start", company="acme", watch=True)
        states: list[str] = []
        with trio.fail_after(PATIENCE):
            async for notice in client.notifications:
                assert notice.arguments["subscription"] == status["subscription"]
                event = notice.arguments["event"]
                if event["type"] == "session.qr":
                    break
                states.append(event["data"]["state"])
        assert states == ["starting", "connecting", "pairing"]


async def test_a_late_subscriber_sees_the_code_that_is_shown_now() -> None:
    async with running_daemon("--sandbox") as daemon:
        async with daemon.client() as client, following(client) as events:
            await client.call("session.start", company="acme")
            shown = await events.of_type("acme", "session.qr")
        async with daemon.client() as late:
            found = await late.call("session.qr", company="acme")
            assert found["qr"] == shown["data"]["qr"]
            assert found["expires_ms"] > found["since_ms"]
            status = await late.call("session.status", company="acme")
            assert status["state"] == "pairing"
            assert status["qr"] == found["qr"]
            await late.call("sandbox.scan", qr=found["qr"], phone="+15550100")
            async with following(late) as events:
                await events.state("acme", "connected")
            with pytest.raises(WrongState, match="shows no QR code"):
                await late.call("session.qr", company="acme")


async def test_everything_a_company_has_is_private() -> None:
    async with in_sandbox() as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        directory = daemon.state_dir / "companies" / "acme"
        assert stat.S_IMODE(daemon.state_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
        assert "session.db" in modes
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660


async def test_removing_a_company_unlinks_it_and_leaves_nothing() -> None:
    async with in_sandbox() as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        pid = (await client.call("session.status", company="acme"))["worker_pid"]
        await client.call("session.remove", company="acme")
        assert not (daemon.state_dir / "companies" / "acme").exists()
        assert not alive(pid)
        stats = await client.call("sandbox.stats")
        assert stats["phones"]["15550100"]["devices"] == []
        with pytest.raises(UnknownCompany):
            await client.call("session.status", company="acme")


async def test_logout_unlinks_and_start_pairs_anew() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        status = await client.call("session.logout", company="acme")
        assert status["state"] == "logged_out"
        assert status["jid"] is None
        with pytest.raises(WrongState, match="logged_out"):
            await client.call("session.logout", company="acme")
        connected = await link(client, events, "acme", "+15550300")
        assert connected["data"]["jid"].startswith("15550300:")


async def test_unlinking_from_the_phone_is_seen_and_explained() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        await client.call("sandbox.unlink", phone="+15550100")
        seen = await events.state("acme", "logged_out")
        assert "unlinked from the phone" in seen["data"]["cause"]
        await link(client, events, "acme", "+15550100")


async def test_a_paired_company_comes_back_connected_after_a_restart_of_the_daemon() -> None:
    async with running_daemon("--sandbox") as daemon:
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            await link(client, events, "stopped", "+15550200")
            await client.call(
                "message.send", company="acme", to="+15550200", text="x", wait="delivered"
            )
            before = await client.call("session.stop", company="stopped")
            last = (await client.call("daemon.status"))["last_seq"]
        assert await daemon.stop() == 0
        await daemon.start()
        async with daemon.client() as client, following(client, after=last) as events:
            await events.state("acme", "connected")
            status = await client.call("session.status", company="stopped")
            assert status["state"] == "stopped"
            assert status["last_inbound_ms"] >= before["last_inbound_ms"]


async def test_the_standalone_sandbox_serves_a_daemon_that_runs_elsewhere(tmp_path: Path) -> None:
    info = tmp_path / "info.json"
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "whatsappd", "sandbox", "--info", str(info), "--while-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        with trio.fail_after(PATIENCE):
            await process.stdout.receive_some()
        described = json.loads(info.read_text())
        assert set(described) == {"host", "port", "ca_file", "noise_root", "control"}
        assert described["host"] == "127.0.0.1"
        assert len(bytes.fromhex(described["noise_root"])) == 32
        async with (
            running_daemon("--sandbox-at", str(info)) as daemon,
            daemon.client() as client,
            following(client) as events,
        ):
            await link(client, events, "acme", "+15550100")
            status = await client.call("daemon.status")
            assert status["mode"] == "sandbox"
            assert status["sandbox"] == described
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            await process.wait()
    assert not info.exists()
