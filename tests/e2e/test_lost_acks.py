"""An acknowledgement that never came: the message's id is found all the same, its receipt tells
what became of it, and it is not sent a second time."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio
from daemons import Daemon, Events, RunningSandbox, following, link, running_daemon, running_sandbox

from whatsappd.errors import UnknownMessage
from whatsappd.rpc.client import RpcClient

SENDER, RECEIVER = "+15550100", "+15550200"


class World(NamedTuple):
    """A daemon that is treated badly, and a receiver in another that is left in peace."""

    sandbox: RunningSandbox
    daemon: Daemon
    client: RpcClient
    events: Events
    receiver: RpcClient
    received: Events

    async def until_ack_is_lost(self) -> None:
        while not (await self.sandbox.stats())["acks_withheld"]:
            await trio.sleep(0.02)

    async def fates(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.sandbox.stats(messages=True))["messages"]
        return found

    async def until_state(self, row_id: str, *states: str) -> dict[str, Any]:
        found = await self.events.until(
            lambda event: (
                event["type"] == "outbox.state"
                and event["data"]["id"] == row_id
                and event["data"]["state"] in states
            )
        )
        data: dict[str, Any] = found["data"]
        return data

    async def arrivals(self, last: str) -> list[str]:
        """What has arrived, once `last` has: a receipt may overtake the message in the log."""
        await self.received.until(
            lambda event: event["type"] == "message.received" and event["data"]["text"] == last
        )
        return [
            event["data"]["text"]
            for event in self.received.seen
            if event["type"] == "message.received"
        ]


@asynccontextmanager
async def two_daemons() -> AsyncIterator[World]:
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info)) as peaceful,
        running_daemon("--sandbox-at", str(sandbox.info)) as daemon,
        peaceful.client() as receiver,
        following(receiver) as received,
        daemon.client() as client,
        following(client) as events,
    ):
        await link(receiver, received, "globex", RECEIVER)
        await link(client, events, "acme", SENDER)
        yield World(sandbox, daemon, client, events, receiver, received)


@pytest.mark.parametrize("receipt", ["comes before", "comes after"])
async def test_a_receipt_tells_the_fate_of_a_message_whose_sender_died_waiting_for_the_ack(
    receipt: str,
) -> None:
    # Not while the sender dies: it would be one of the events that a killed worker loses.
    async with two_daemons() as world:
        if receipt == "comes after":
            await world.receiver.call("session.stop", company="globex")
        await world.sandbox.fault("lose_acks", phone=SENDER, count=1)
        row = await world.client.call("message.send", company="acme", to=RECEIVER, text="once")
        await world.until_ack_is_lost()
        if receipt == "comes before":
            await world.events.of_type("acme", "message.receipt")
        status = await world.client.call("session.status", company="acme")
        os.kill(status["worker_pid"], signal.SIGKILL)
        if receipt == "comes after":
            await world.until_state(row["id"], "uncertain")
            await world.receiver.call("session.start", company="globex")
        await world.until_state(row["id"], "delivered")
        row = await world.client.call("message.get", id=row["id"])
        assert row["attempts"] == 1
        assert row["lost_attempts"] == 0
        [fate] = await world.fates()
        assert fate["id"] == row["message_id"]
        assert (fate["accepted"], fate["resent"]) == (1, 0)
        assert await world.arrivals("once") == ["once"]


async def test_a_receipt_tells_the_fate_of_a_message_that_whatsmeow_gave_up_waiting_for() -> None:
    async with two_daemons() as world:
        await world.sandbox.fault("lose_acks", phone=SENDER, count=1)
        row = await world.client.call("message.send", company="acme", to=RECEIVER, text="once")
        await world.until_ack_is_lost()
        # whatsmeow waits 5 s for a new connection before it gives a message up.
        await world.sandbox.fault("refuse_dials", seconds=6)
        await world.sandbox.fault("drop", phone=SENDER)
        await world.until_state(row["id"], "delivered")
        row = await world.client.call("message.get", id=row["id"])
        assert row["attempts"] == 1
        [fate] = await world.fates()
        assert fate["id"] == row["message_id"]
        assert (fate["accepted"], fate["resent"]) == (1, 0)
        assert await world.arrivals("once") == ["once"]


async def test_a_message_on_its_way_is_not_sent_again_after_the_account_was_linked_anew() -> None:
    # Unlinking deletes the ids of what was being sent: that they are gone proves nothing then.
    async with two_daemons() as world:
        await world.sandbox.fault("lose_acks", phone=SENDER, count=1)
        row = await world.client.call("message.send", company="acme", to=RECEIVER, text="once")
        await world.until_ack_is_lost()
        await world.sandbox.control.call("sandbox.unlink", phone=SENDER)
        await world.events.state("acme", "logged_out")
        await link(world.client, world.events, "acme", SENDER)
        await world.until_state(row["id"], "uncertain")
        # The account sends again, and what comes now finds the other one sent only once.
        after = await world.client.call(
            "message.send", company="acme", to=RECEIVER, text="after", wait="delivered"
        )
        assert after["state"] == "delivered"
        # Its recipient has it: a receipt may come to the device that was linked since.
        fate = (await world.client.call("message.get", id=row["id"]))["state"]
        assert fate in ("uncertain", "delivered")
        assert await world.arrivals("after") == ["once", "after"]
        assert [fate["accepted"] for fate in await world.fates()] == [1, 1]


async def test_a_receipt_that_comes_while_the_daemon_is_down_reaches_the_row() -> None:
    async with two_daemons() as world:
        await world.receiver.call("session.stop", company="globex")
        row = await world.client.call(
            "message.send", company="acme", to=RECEIVER, text="once", wait="sent"
        )
        assert row["state"] == "sent"
        last = (await world.client.call("daemon.status"))["last_seq"]
        await world.daemon.stop(signal.SIGKILL)
        start = len(world.received.seen)
        await world.receiver.call("session.start", company="globex")
        await world.received.of_type("globex", "message.received", start=start)
        await world.daemon.start()
        async with world.daemon.client() as client, following(client, after=last) as events:
            await events.of_type("acme", "message.receipt")
            found = await events.of_type("acme", "outbox.state")
            assert found["data"]["state"] == "delivered"


async def test_a_removed_company_leaves_nothing_that_a_new_one_of_its_name_would_send() -> None:
    async with two_daemons() as world:
        await world.client.call("session.stop", company="acme")
        row = await world.client.call("message.send", company="acme", to=RECEIVER, text="old")
        await world.client.call("session.remove", company="acme", force=True)
        await link(world.client, world.events, "acme", "+15550300")
        with pytest.raises(UnknownMessage):
            await world.client.call("message.get", id=row["id"])
        await world.client.call(
            "message.send", company="acme", to=RECEIVER, text="new", wait="delivered"
        )
        assert await world.arrivals("new") == ["new"]


async def test_a_receipt_stands_in_for_an_ack_that_does_not_come() -> None:
    async with two_daemons() as world:
        await world.sandbox.fault("lose_acks", phone=SENDER, count=1)
        first = await world.client.call(
            "message.send", company="acme", to=RECEIVER, text="once", wait="delivered"
        )
        assert first["state"] == "delivered"
        # whatsmeow alone would hold up the next one for 75 s.
        with trio.fail_after(30):
            await world.client.call(
                "message.send", company="acme", to=RECEIVER, text="next", wait="delivered"
            )
        assert await world.arrivals("next") == ["once", "next"]
        [fate, _] = await world.fates()
        assert (fate["id"], fate["accepted"]) == (first["message_id"], 1)
