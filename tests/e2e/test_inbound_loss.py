"""What ends under inbound load really lose, measured.

whatsmeow acknowledges a message to WhatsApp beside handing it on, so what a killed worker had not
handed on yet is gone: WhatsApp does not deliver it again. The figures are printed, and the guide
states them. What is asserted is what we promise: whatever was logged stays, nothing is logged
twice, and neither the daemon's death nor an orderly end of a session loses anything.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
import trio
from chaos import NO_LIMITS
from daemons import Daemon, RunningSandbox, following, link, running_daemon, running_sandbox

Figure = Callable[[str], None]

RECEIVER = "+15550200"
#: Seconds: longer than a worker is given to disconnect, when nobody takes its last news.
LOCKED_S = 7.0
SENDERS = {f"sender{number}": f"+1555010{number:04}" for number in range(3)}


class Load:
    """Senders in a daemon that is left in peace, as fast as they can, all to one receiver."""

    def __init__(self, daemon: Daemon) -> None:
        self.sent: set[str] = set()
        self._daemon = daemon
        self._stopping = False

    async def run(self) -> None:
        """Until `stop`, and then until everything is sent."""
        async with trio.open_nursery() as nursery:
            for company in SENDERS:
                nursery.start_soon(self._send_on, company)

    def stop(self) -> None:
        self._stopping = True

    async def _send_on(self, company: str) -> None:
        number = 0
        async with self._daemon.client() as client:
            while not self._stopping:
                number += 1
                text = f"{company} {number:06}"
                row = await client.call(
                    "message.send", company=company, to=RECEIVER, text=text, wait="sent"
                )
                assert row["state"] in ("sent", "delivered"), row
                self.sent.add(text)


async def logged(daemon: Daemon) -> tuple[Counter[str], Counter[str]]:
    """How often the log holds each text, and each of WhatsApp's ids."""
    async with daemon.client() as client, following(client) as events:
        last = (await client.call("daemon.status"))["last_seq"]
        await events.until(lambda event: event["seq"] >= last)
        messages = [e["data"] for e in events.seen if e["type"] == "message.received"]
    return (
        Counter(data["text"] for data in messages),
        Counter(data["message_id"] for data in messages),
    )


@asynccontextmanager
async def loaded() -> AsyncIterator[tuple[RunningSandbox, Daemon, Load]]:
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info)) as peaceful,
        running_daemon("--sandbox-at", str(sandbox.info)) as daemon,
    ):
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "globex", RECEIVER)
        async with peaceful.client() as client, following(client) as events:
            for company, phone in SENDERS.items():
                await link(client, events, company, phone)
                await client.call("session.configure", company=company, **NO_LIMITS)
        yield sandbox, daemon, Load(peaceful)


async def measure(
    figure: Figure, what: str, end: Callable[[Daemon], Awaitable[None]], times: int
) -> set[str]:
    """The messages that WhatsApp counts as delivered, and that were never logged."""
    async with loaded() as (sandbox, daemon, load):
        kept: Counter[str] = Counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            began = trio.current_time()
            for _ in range(times):
                await trio.sleep(0.4)
                await end(daemon)
                texts, _ = await logged(daemon)
                assert not kept - texts, "what was logged did not stay"
                kept = texts
            load.stop()
        rate = len(load.sent) / (trio.current_time() - began)
        async with daemon.client() as client:
            # Whatever WhatsApp still holds for the receiver is no loss.
            with trio.fail_after(30):
                while not await _is_settled(sandbox, client):
                    await trio.sleep(0.1)
        texts, ids = await logged(daemon)
    lost = load.sent - texts.keys()
    figure(
        f"{what} {times} times at {rate:.0f} messages/s: {len(lost)} of {len(load.sent)} "
        f"acknowledged messages were never logged ({len(lost) / times:.2f} a time)"
    )
    assert not kept - texts
    assert [text for text, times in texts.items() if times > 1] == []
    assert [message for message, times in ids.items() if times > 1] == []
    return lost


async def _is_settled(sandbox: RunningSandbox, client: Any) -> bool:
    if (await client.call("session.status", company="globex"))["state"] != "connected":
        return False
    phones = (await sandbox.stats())["phones"]
    return all(device["waiting"] == 0 for device in phones["15550200"]["devices"])


async def kill_worker(daemon: Daemon) -> None:
    async with daemon.client() as client:
        last = (await client.call("daemon.status"))["last_seq"]
    async with daemon.client() as client, following(client, after=last) as events:
        pid = (await client.call("session.status", company="globex"))["worker_pid"]
        os.kill(pid, signal.SIGKILL)
        await events.state("globex", "backing_off")
        await client.call("session.start", company="globex")  # without the pause
        await events.state("globex", "connected")


async def kill_daemon(daemon: Daemon) -> None:
    """As it ends under systemd: SIGTERM, or the watchdog's SIGABRT, reaches all of the unit."""
    async with daemon.client() as client:
        fork_server = (await client.call("daemon.status"))["fork_server"]["pid"]
        worker = (await client.call("session.status", company="globex"))["worker_pid"]
    for pid in (worker, fork_server):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGABRT)
    await daemon.stop(signal.SIGKILL)
    await daemon.start()
    async with daemon.client() as client:
        while (await client.call("session.status", company="globex"))["state"] != "connected":
            await trio.sleep(0.02)


async def restart_session(daemon: Daemon) -> None:
    async with daemon.client() as client:
        await client.call("session.restart", company="globex")
        while (await client.call("session.status", company="globex"))["state"] != "connected":
            await trio.sleep(0.02)


@pytest.mark.endurance
async def test_what_a_killed_worker_loses(figure: Figure) -> None:
    await measure(figure, "the receiving worker was killed", kill_worker, 5)


@pytest.mark.soak
async def test_what_a_worker_loses_that_is_killed_often(figure: Figure) -> None:
    await measure(figure, "the receiving worker was killed", kill_worker, 60)


@pytest.mark.endurance
async def test_a_killed_daemon_loses_nothing(figure: Figure) -> None:
    assert await measure(figure, "the daemon was killed", kill_daemon, 3) == set()


@pytest.mark.endurance
async def test_a_session_that_is_restarted_loses_nothing(figure: Figure) -> None:
    assert await measure(figure, "the session was restarted", restart_session, 3) == set()


async def stop_with_a_locked_store(daemon: Daemon) -> None:
    """Somebody's own transaction holds the database while the daemon is stopped in order: nothing
    that arrives can be stored, and the workers must save what they hold."""
    with closing(sqlite3.connect(daemon.state_dir / "whatsappd.db", isolation_level=None)) as other:
        other.execute("PRAGMA busy_timeout = 20000")
        other.execute("BEGIN IMMEDIATE")
        await trio.sleep(0.3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.stop)
            await trio.sleep(LOCKED_S)
            other.execute("ROLLBACK")
    await daemon.start()
    async with daemon.client() as client:
        while (await client.call("session.status", company="globex"))["state"] != "connected":
            await trio.sleep(0.02)


@pytest.mark.endurance
async def test_a_daemon_that_is_stopped_while_its_store_is_locked_loses_nothing(
    figure: Figure,
) -> None:
    what = "the daemon was stopped with a locked store"
    assert await measure(figure, what, stop_with_a_locked_store, 1) == set()
