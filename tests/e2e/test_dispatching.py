"""How a queue goes out: one message after the other, each ack recorded as the next one begins."""

from __future__ import annotations

from typing import Any

from chaos import NO_LIMITS
from daemons import Events, in_sandbox, link

from whatsappd.rpc.client import RpcClient

ACME, BETA = "+15550100", "+15550200"


def changes(events: Events, start: int) -> list[dict[str, Any]]:
    """What happened to acme's rows since event `start`, with the events' numbers."""
    return [
        {"seq": event["seq"], **event["data"]}
        for event in events.seen[start:]
        if event["type"] == "outbox.state" and event["company"] == "acme"
    ]


async def queued(client: RpcClient, count: int) -> list[str]:
    """Texts that wait in acme's queue for it to be started."""
    texts = [f"message {number:03}" for number in range(count)]
    for text in texts:
        await client.call("message.send", company="acme", to=BETA, text=text)
    return texts


async def linked(client: RpcClient, events: Events) -> None:
    """Two companies that know each other; acme is stopped."""
    for company, phone in (("acme", ACME), ("beta", BETA)):
        await link(client, events, company, phone)
        await client.call("session.configure", company=company, **NO_LIMITS)
    await client.call("message.send", company="acme", to=BETA, text="hello", wait="delivered")
    await client.call("session.stop", company="acme")


def received(events: Events, start: int) -> list[str]:
    return [
        event["data"]["text"]
        for event in events.seen[start:]
        if event["type"] == "message.received" and event["company"] == "beta"
    ]


async def test_an_ack_and_the_begin_of_the_next_are_one_transaction() -> None:
    async with in_sandbox() as (_, client, events):
        await linked(client, events)
        start = len(events.seen)
        texts = await queued(client, 12)
        await client.call("session.start", company="acme")
        await events.until(lambda _: len(received(events, start)) == len(texts), start=start)
        assert received(events, start) == texts
        told = {change["seq"]: change for change in changes(events, start)}
        begins = [seq for seq, change in told.items() if change["cause"] == "begun"]
        assert len(begins) == len(texts)
        for seq in begins[1:]:
            # Directly behind the ack of the one before, or of a receipt that was even faster.
            before = told[seq - 1]
            assert before["cause"] == "acknowledged" or (
                told[seq - 2]["cause"] == "acknowledged" and told[seq - 2]["id"] == before["id"]
            ), (seq, before)


async def test_a_stop_ends_the_row_of_messages_and_the_rest_waits() -> None:
    async with in_sandbox() as (_, client, events):
        await linked(client, events)
        start = len(events.seen)
        texts = await queued(client, 40)
        # Each takes long enough for the stop to come in between.
        await client.call("sandbox.fault", kind="delay_acks", phone=ACME, seconds=0.2, count=10)
        await client.call("session.start", company="acme")
        await events.until(
            lambda event: event["type"] == "outbox.state" and event["data"]["state"] == "sent",
            start=start,
        )
        await client.call("session.stop", company="acme")
        told = changes(events, start)
        begun = [change["id"] for change in told if change["cause"] == "begun"]
        assert 0 < len(begun) < len(texts)
        rows = (await client.call("message.list", company="acme", limit=100))["rows"]
        waiting = [row for row in rows if row["state"] == "queued"]
        # None is left half-way: each was begun and sent, or has not been touched.
        assert len(waiting) == len(texts) - len(begun)
        assert {row["attempts"] for row in waiting} == {0}
        await client.call("session.start", company="acme")
        await events.until(lambda _: len(received(events, start)) >= len(texts), start=start)
        assert received(events, start) == texts
        rows = (await client.call("message.list", company="acme", limit=100))["rows"]
        assert {row["attempts"] for row in rows} == {1}
