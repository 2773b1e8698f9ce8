"""The event log from outside: nobody who follows it misses an event or sees one twice, whatever is
killed; what retention deleted is told; who does not read is dropped and disturbs nobody."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, Events, following, in_sandbox, link

from whatsappd.errors import WhatsappdError
from whatsappd.rpc.client import RpcClient
from whatsappd.rpc.limits import SEND_STALLED_AFTER
from whatsappd.wire.rpc import pack_request

OFF = {"per_minute": 0, "per_phone_per_minute": 0, "cold_per_hour": 0, "cold_per_day": 0}


@asynccontextmanager
async def two_companies(*arguments: str) -> AsyncIterator[tuple[Daemon, RpcClient, Events]]:
    async with in_sandbox(*arguments) as (daemon, client, events):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        await client.call("session.configure", company="acme", **OFF)
        yield daemon, client, events


async def chatter(daemon: Daemon, stopping: trio.Event) -> None:
    """Messages, and with them events, for as long as there is a daemon to take them."""
    number = 0
    while not stopping.is_set():
        number += 1
        try:
            async with daemon.client() as client:
                await client.call(
                    "message.send", company="acme", to="+15550200", text="x", key=str(number)
                )
        except WhatsappdError:
            await trio.sleep(0.05)
        await trio.sleep(0.005)


class Stretch:
    """What one subscription brought."""

    def __init__(self, begun: int) -> None:
        self.begun = begun
        self.seen: list[int] = []
        self.confirmed = begun  # the cursor that the daemon answered last


class Follower:
    """A program that follows the log, and begins again whenever the daemon is gone."""

    def __init__(self, daemon: Daemon, consumer: str | None) -> None:
        self.stretches: list[Stretch] = []
        self._daemon = daemon
        self._consumer = consumer
        self._more = trio.Event()

    @property
    def seen(self) -> list[int]:
        return [seq for stretch in self.stretches for seq in stretch.seen]

    async def run(self) -> None:
        while True:
            try:
                async with self._daemon.client() as client:
                    await self._follow(client)
            except WhatsappdError:
                await trio.sleep(0.05)

    async def _follow(self, client: RpcClient) -> None:
        where: dict[str, Any] = {"consumer": self._consumer} if self._consumer else {}
        if not self._consumer or not self.stretches:
            where["after"] = self.seen[-1] if self.stretches else 0
        answer = await client.call("events.subscribe", **where)
        assert answer["gap"] is None
        stretch = Stretch(answer["after"])
        self.stretches.append(stretch)
        async for notice in client.notifications:
            seq = notice.arguments["event"]["seq"]
            stretch.seen.append(seq)
            self._more.set()
            self._more = trio.Event()
            if self._consumer is not None and seq % 7 == 0:
                answer = await client.call("events.ack", consumer=self._consumer, seq=seq)
                stretch.confirmed = answer["cursor"]

    async def until(self, seq: int) -> None:
        with trio.fail_after(PATIENCE):
            while not self.seen or self.seen[-1] < seq:
                await self._more.wait()


@pytest.mark.endurance
async def test_followers_resume_over_kills_without_loss_or_duplicate() -> None:
    async with two_companies() as (daemon, _client, _events):
        remembers = Follower(daemon, None)
        consumer = Follower(daemon, "crm")
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remembers.run)
            nursery.start_soon(consumer.run)
            async with trio.open_nursery() as busy:
                busy.start_soon(chatter, daemon, stopping)
                for _ in range(3):
                    await trio.sleep(0.8)
                    await daemon.stop(signal.SIGKILL)
                    await daemon.start()
                await trio.sleep(0.5)
                stopping.set()
            async with daemon.client() as client:
                await client.call("session.stop", company="acme")
                last = (await client.call("daemon.status"))["last_seq"]
            for follower in (remembers, consumer):
                await follower.until(last)
            nursery.cancel_scope.cancel()
        # Who remembers the last one gets each exactly once, in order.
        assert remembers.seen[:last] == list(range(1, last + 1))
        assert len(remembers.stretches) == 4
        # A consumer goes on behind what it acknowledged, and nothing is left out.
        assert len(consumer.stretches) == 4
        assert set(range(1, last + 1)) <= set(consumer.seen)
        for stretch in consumer.stretches:
            assert stretch.seen == list(
                range(stretch.begun + 1, stretch.begun + 1 + len(stretch.seen))
            )
        for earlier, later in itertools.pairwise(consumer.stretches):
            # One that was acknowledged may have been stored although its answer got lost.
            assert later.begun in (earlier.confirmed, earlier.confirmed + 7)


async def test_the_command_can_be_killed_and_resumed_without_loss(tmp_path: Path) -> None:
    async with two_companies() as (daemon, client, _events):
        stopping = trio.Event()
        printed: list[int] = []
        starts: list[int] = []

        async def follow(kill_after: float | None, *arguments: str) -> None:
            target = tmp_path / f"{len(starts)}.ndjson"
            with target.open("wb") as output:
                process = await trio.lowlevel.open_process(
                    [
                        *(sys.executable, "-m", "whatsappctl", "--socket", str(daemon.socket)),
                        *("events", "--json", "--consumer", "crm", *arguments),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                )
                if kill_after is not None:
                    while not target.stat().st_size:
                        await trio.sleep(0.02)
                    await trio.sleep(kill_after)
                    process.kill()
                await process.wait()
            lines = target.read_bytes().split(b"\n")
            seqs = [json.loads(line)["seq"] for line in lines if line]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
            starts.append(seqs[0])
            printed.extend(seqs)

        async with trio.open_nursery() as busy:
            busy.start_soon(chatter, daemon, stopping)
            await follow(0.5, "--after", "0")
            await follow(0.3)
            await follow(0.4)
            stopping.set()
        await client.call("session.stop", company="acme")
        await client.call("session.stop", company="globex")
        last = (await client.call("daemon.status"))["last_seq"]
        await follow(None, "--no-follow")
        assert set(range(1, last + 1)) <= set(printed)


async def test_what_retention_deleted_is_told(tmp_path: Path) -> None:
    config = tmp_path / "whatsappd.toml"
    config.write_text("")
    async with two_companies("--config", str(config)) as (daemon, client, _events):
        await client.call("events.subscribe", consumer="crm", after=3)
        for _ in range(20):
            await client.call(
                "message.send", company="acme", to="+15550200", text="x", wait="delivered"
            )
        last = (await client.call("daemon.status"))["last_seq"]
        await daemon.stop()
        config.write_text('[retention]\nevents_max_bytes = "8KiB"\n')
        await daemon.start()
        async with daemon.client() as late:
            with trio.fail_after(PATIENCE):
                while True:
                    answer = await late.call("events.subscribe", after=0, companies=["acme"])
                    if answer["gap"] is not None:
                        break
                    await trio.sleep(0.05)
            first = answer["gap"]
            assert 1 < first <= last
            notice = await late.notifications.receive()
            while notice.arguments.get("subscription") != answer["subscription"]:
                notice = await late.notifications.receive()
            if notice.method == "events.gap":
                assert notice.arguments["first_seq"] == first
                notice = await late.notifications.receive()
            # The numbers between are other companies'.
            assert notice.arguments["event"]["seq"] >= first
        async with daemon.client() as consumer:
            answer = await consumer.call("events.subscribe", consumer="crm")
            assert answer["after"] == 3
            assert answer["gap"] >= first
        async with daemon.client() as reader:
            page = await reader.call("events.read", after=0, limit=1, companies=["acme"])
            assert page["gap"] <= page["events"][0]["seq"]


async def test_who_does_not_read_is_dropped_and_resumes_and_disturbs_nobody() -> None:
    async with two_companies() as (daemon, client, events):
        # Of a size that the kernel's buffers cannot hide.
        lazy = socket.socket(socket.AF_UNIX)
        lazy.connect(str(daemon.socket))
        lazy.sendall(pack_request(1, "events.subscribe", {"after": 0}))
        for number in range(25):
            row = await client.call(
                "message.send",
                company="acme",
                to="+15550200",
                text=f"{number:02}" + "x" * 60_000,
                wait="delivered",
            )
            assert row["state"] == "delivered"
        last = await events.until(
            lambda event: (
                event["type"] == "message.received" and event["data"]["text"].startswith("24")
            )
        )
        status = await client.call("daemon.status")
        dropped_at = trio.current_time() + SEND_STALLED_AFTER + 5
        with trio.fail_after(PATIENCE):
            while (await client.call("daemon.status"))["connections"] == status["connections"]:
                await trio.sleep(0.1)
        assert trio.current_time() < dropped_at
        lazy.close()
        async with daemon.client() as again, following(again, after=0) as replayed:
            await replayed.until(lambda event: event["seq"] == last["seq"])
            seqs = [event["seq"] for event in replayed.seen]
            assert seqs[: last["seq"]] == list(range(1, last["seq"] + 1))


async def test_whatever_a_subscriber_saw_is_in_the_log_after_a_kill() -> None:
    async with two_companies() as (daemon, _client, _events):
        for number in range(2):
            async with daemon.client() as fresh:
                with trio.fail_after(PATIENCE):
                    while any(
                        session["state"] != "connected"
                        for session in (await fresh.call("session.list"))["sessions"]
                    ):
                        await trio.sleep(0.02)
                await fresh.call("events.subscribe", types=["message.received"])
                await fresh.call("message.send", company="acme", to="+15550200", text=str(number))
                with trio.fail_after(PATIENCE):
                    notice = await fresh.notifications.receive()
                assert daemon.process is not None
                os.kill(daemon.pid, signal.SIGKILL)  # in the moment in which it is seen
            await daemon.process.wait()
            event: dict[str, Any] = notice.arguments["event"]
            await daemon.start()
            async with daemon.client() as fresh:
                page = await fresh.call("events.read", after=event["seq"] - 1, limit=1)
            assert page["events"] == [event]
            assert event["data"]["text"] == str(number)
