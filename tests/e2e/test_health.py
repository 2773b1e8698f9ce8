"""The daemon watches itself: hung workers, vain reconnections, alerts, figures."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, Events, following, in_sandbox, link
from prometheus_client.parser import text_string_to_metric_families

from whatsappd.errors import StoreFailed
from whatsappd.rpc.client import RpcClient

#: The shortest that the settings allow: a round of health checks in a second.
SHORT = {
    "WHATSAPPD_SESSIONS_HEALTH_INTERVAL": "1s",
    "WHATSAPPD_SESSIONS_HEALTH_DEADLINE": "500ms",
}
INTERVAL = 1.0
RESULTS = ("ok", "failed")
ACME, GLOBEX = "+15550100", "+15550200"


@asynccontextmanager
async def watched(
    monkeypatch: pytest.MonkeyPatch, **settings: str
) -> AsyncIterator[tuple[Daemon, RpcClient, Events]]:
    """A sandbox daemon with short intervals and `settings` (variables without their prefix)."""
    for name, value in {
        **SHORT,
        **{f"WHATSAPPD_{name}": value for name, value in settings.items()},
    }.items():
        monkeypatch.setenv(name, value)
    async with in_sandbox() as (daemon, client, events):
        yield daemon, client, events


async def alert(events: Events, rule: str, state: str, *, start: int = 0) -> dict[str, Any]:
    return await events.until(
        lambda event: (
            event["type"] == "alert"
            and (event["data"]["rule"], event["data"]["state"]) == (rule, state)
        ),
        start=start,
    )


def told(events: Events, rule: str) -> list[str]:
    """What was told of one rule. (Others may rightly speak up on a busy machine.)"""
    return [
        event["data"]["state"]
        for event in events.seen
        if event["type"] == "alert" and event["data"]["rule"] == rule
    ]


class Figures:
    """All samples of one scrape; called with a name and labels."""

    def __init__(self, text: str) -> None:
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples[f"whatsappd_{name}", frozenset(labels.items())]


async def figures(client: RpcClient) -> Figures:
    return Figures((await client.call("daemon.metrics"))["text"])


async def whatsappctl(daemon: Daemon, *arguments: str) -> tuple[int, str]:
    done = await trio.run_process(
        [sys.executable, "-m", "whatsappctl", "--socket", str(daemon.socket), *arguments],
        capture_stdout=True,
        check=False,
    )
    return done.returncode, done.stdout.decode()


async def test_a_worker_that_answers_nothing_is_replaced_within_two_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched(monkeypatch) as (_, client, events):
        await link(client, events, "acme", ACME)
        await link(client, events, "globex", GLOBEX)
        status = {
            company: await client.call("session.status", company=company)
            for company in ("acme", "globex")
        }
        start = len(events.seen)
        stopped_at = trio.current_time()
        os.kill(status["acme"]["worker_pid"], signal.SIGSTOP)
        replaced = await events.state("acme", "backing_off", start=start)
        assert trio.current_time() - stopped_at < 2 * INTERVAL + 1  # a busy machine's second
        assert replaced["data"]["why"] == "hung"
        assert "does not answer" in replaced["data"]["cause"]
        await events.state("acme", "connected", start=start)
        globex = await client.call("session.status", company="globex")
        assert globex["worker_pid"] == status["globex"]["worker_pid"]
        found = await figures(client)
        assert found("worker_restarts_total", company="acme", cause="hung") == 1
        assert found("session_connections_total", company="acme") == 2


async def test_reconnecting_in_vain_ends_in_a_new_worker_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched(monkeypatch, SESSIONS_SILENCE_LIMIT="1s") as (_, client, events):
        await link(client, events, "acme", ACME)
        start = len(events.seen)
        await client.call("sandbox.fault", kind="refuse_dials", seconds=6)
        await client.call("sandbox.fault", kind="drop", phone=ACME)
        await events.state("acme", "reconnecting", start=start)
        replaced = await events.state("acme", "backing_off", start=start)
        assert replaced["data"]["why"] == "silent"
        assert "reconnecting in vain" in replaced["data"]["cause"]
        await events.state("acme", "connected", start=start)


async def test_health_names_what_is_not_well_and_the_command_ends_accordingly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched(monkeypatch) as (daemon, client, events):
        await link(client, events, "acme", ACME)
        with trio.fail_after(20):
            while (await client.call("daemon.health"))["sessions"]["acme"]["checked_ms"] is None:
                await trio.sleep(0.1)
        with trio.fail_after(PATIENCE):  # a busy machine's event loop may need a moment
            while (await whatsappctl(daemon, "health"))[0] != 0:
                await trio.sleep(0.1)
        report = await client.call("daemon.health")
        assert {check["name"] for check in report["checks"]} == {
            *("store", "fork_server", "event_loop", "disk", "descriptors", "limiter", "webhooks"),
            *("log", "tasks", "rounds", "state_dir", "confinement", "sessions"),
        }
        assert report["sessions"]["acme"]["detail"] == "connected"
        await client.call("sandbox.fault", kind="replace_stream", phone=ACME)
        await events.state("acme", "conflict")
        code, printed = await whatsappctl(daemon, "health")
        assert code == 1
        assert "whatsappctl start --take-over acme" in printed
        await client.call("session.stop", company="acme")  # nobody wants it any more
        report = await client.call("daemon.health")
        assert report["sessions"]["acme"]["ok"]


async def rounds(client: RpcClient, company: str, count: int) -> None:
    """Wait until the daemon has checked a company `count` times."""
    name = "session_health_checks_total"
    with trio.fail_after(PATIENCE):
        while True:
            found = await figures(client)
            if sum(found(name, company=company, result=result) for result in RESULTS) >= count:
                return
            await trio.sleep(0.2)


async def test_an_alert_is_raised_once_and_cleared_once_across_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched(monkeypatch, ALERTS_SESSION_DOWN_FOR="2s") as (daemon, client, events):
        await link(client, events, "acme", ACME)
        await client.call("sandbox.unlink", phone=ACME)
        raised = await alert(events, "session_down", "raised")
        assert raised["company"] == raised["data"]["company"] == "acme"
        assert raised["data"]["since_ms"] <= raised["time_ms"] - 2000
        assert "logged_out" in raised["data"]["detail"]
        assert (await figures(client))("alerts", rule="session_down") == 1
        await daemon.stop()
        await daemon.start()
        async with daemon.client() as again, following(again) as later:
            # It is wanted, so it is started again; but nothing was mended by the restart.
            await rounds(again, "acme", 3)
            assert told(later, "session_down") == ["raised"]
            start = len(later.seen)
            await again.call("session.restart", company="acme")
            shown = await later.of_type("acme", "session.qr", start=start)
            await again.call("sandbox.scan", qr=shown["data"]["qr"], phone=ACME)
            cleared = await alert(later, "session_down", "cleared")
            assert cleared["data"]["since_ms"] == raised["data"]["since_ms"]
            await rounds(again, "acme", 6)
            assert told(later, "session_down") == ["raised", "cleared"]


def can_mount() -> bool:
    return subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))


async def send_for_ever(client: RpcClient) -> None:
    while True:
        await client.call("message.send", company="acme", to=GLOBEX, text="x" * 999)


@pytest.mark.skipif(not can_mount(), reason="no mount namespaces here, so no disk of our own")
async def test_a_full_disk_is_an_alert_and_ends_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHORT.items():
        monkeypatch.setenv(name, value)
    with tempfile.TemporaryDirectory(prefix="wd-") as name:
        daemon = Daemon(Path(name), "--sandbox")
        daemon.state_dir.mkdir(mode=0o700)
        mount = f'mount -t tmpfs -o size=32m,mode=700 none {daemon.state_dir} && exec "$@"'
        daemon.wrapper = ["unshare", "-rm", "sh", "-c", mount, "sh"]
        await daemon.start()
        # Its disk, as it sees it.
        ballast = Path(f"/proc/{daemon.pid}/root{daemon.state_dir}/ballast")
        try:
            async with daemon.client() as client, following(client) as events:
                await link(client, events, "acme", ACME)
                pid = (await client.call("session.status", company="acme"))["worker_pid"]
                with pytest.raises(OSError, match="No space"):
                    fill(ballast)
                with pytest.raises(StoreFailed):  # once the write-ahead log has used up its room
                    await send_for_ever(client)
                with trio.fail_after(PATIENCE):
                    while not (await figures(client))("alerts", rule="store_failing"):
                        await trio.sleep(0.1)
                report = await client.call("daemon.health")
                assert not report["healthy"]
                [store] = [check for check in report["checks"] if check["name"] == "store"]
                assert "full" in store["detail"]
                assert "make room" in store["remedy"]
                ballast.unlink()
                await alert(events, "store_failing", "raised")
                await alert(events, "store_failing", "cleared")
                assert (await client.call("session.status", company="acme"))["worker_pid"] == pid
        finally:
            with trio.CancelScope(shield=True):
                await daemon.stop()


async def test_an_old_queue_is_an_alert_until_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch, ALERTS_QUEUE_OLDER_THAN="2s") as (_, client, events):
        await link(client, events, "acme", ACME)
        await link(client, events, "globex", GLOBEX)
        await client.call("session.stop", company="acme")
        await client.call("message.send", company="acme", to=GLOBEX, text="x")
        raised = await alert(events, "queue_old", "raised")
        assert "1 messages wait" in raised["data"]["detail"]
        found = await figures(client)
        assert found("outbox_messages", company="acme", state="queued") == 1
        assert found("outbox_oldest_queued_age_seconds", company="acme") >= 2
        await client.call("session.start", company="acme")
        await alert(events, "queue_old", "cleared")
        assert told(events, "queue_old") == ["raised", "cleared"]


async def test_the_figures_agree_with_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as (_, client, events):
        await link(client, events, "acme", ACME)
        await link(client, events, "globex", GLOBEX)
        for number in range(3):
            await client.call(
                "message.send", company="acme", to=GLOBEX, text=f"{number}", wait="delivered"
            )
        with pytest.raises(Exception, match="nonsense"):
            await client.call("nonsense.method")
        found = await figures(client)
        acme = {"company": "acme"}
        assert found("sessions", state="connected") == 2
        assert found("session_connected", **acme) == 1
        assert found("session_qr_codes_total", **acme) == 1
        assert found("messages_accepted_total", **acme) == 3
        assert found("messages_total", company="acme", state="sent") == 3
        assert found("messages_total", company="acme", state="delivered") == 3
        assert found("messages_received_total", company="globex") == 3
        assert found("receipts_received_total", **acme) >= 3
        assert found("rpc_request_duration_seconds_count", method="message.send") == 3
        assert found("rpc_errors_total", method="unknown", error="unknown_method") == 1
        assert found("event_subscribers") == 1
        assert found("rpc_connections") == 1
        assert found("event_log_last_seq") >= events.seen[-1]["seq"]
        assert 1e6 < found("worker_private_memory_bytes", **acme) < 1e9
        text = (await client.call("daemon.metrics"))["text"]
        assert not re.search(r"1?5550[12]00", text)  # no phone number, whatever its form


async def test_compressed_metrics_are_the_same_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as (daemon, client, events):
        await link(client, events, "acme", ACME)
        plain = (await client.call("daemon.metrics"))["text"]
        code, printed = await whatsappctl(daemon, "metrics")
        assert code == 0
        names = [line for line in plain.splitlines() if line.startswith("# TYPE")]
        assert [line for line in printed.splitlines() if line.startswith("# TYPE")] == names
