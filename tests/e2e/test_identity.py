"""Who is who: spellings of a number, addresses that nobody has, whose account a company may use."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from daemons import Events, following, in_sandbox, link, running_daemon, running_sandbox

from whatsappd.errors import WrongState
from whatsappd.rpc.client import RpcClient

ACME, GLOBEX, OTHER = "+15550100", "+15550200", "+15550300"
#: A Brazilian number as people write it, and as WhatsApp has its account.
ASKED, ANSWERED = "5571999990000", "557199990000"
BRAZIL = f"{ANSWERED}@s.whatsapp.net"


async def send(client: RpcClient, to: str, text: str, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = await client.call(
        "message.send", company="acme", to=to, text=text, **more
    )
    return row


async def until_row(events: Events, row: dict[str, Any], *states: str) -> dict[str, Any]:
    found = await events.until(
        lambda event: (
            event["type"] == "outbox.state"
            and event["data"]["id"] == row["id"]
            and event["data"]["state"] in states
        )
    )
    data: dict[str, Any] = found["data"]
    return data


async def scan(client: RpcClient, events: Events, company: str, phone: str) -> int:
    """Start a company and let a phone scan its code; where in `events` that began."""
    start = len(events.seen)
    await client.call("session.start", company=company)
    shown = await events.of_type(company, "session.qr", start=start)
    await client.call("sandbox.scan", qr=shown["data"]["qr"], phone=phone)
    return start


async def test_a_message_goes_to_the_account_that_the_look_up_answered() -> None:
    async with in_sandbox() as (_, client, events):
        await client.call("sandbox.register", phone=f"+{ANSWERED}", aliases=[f"+{ASKED}"])
        await link(client, events, "acme", ACME)
        first = await send(client, f"+{ASKED}", "one", key="k")
        again = await send(client, f"+{ASKED}", "one", key="k")
        assert again["id"] == first["id"]
        # It has no linked device: the receipt is the phone's own.
        row = await until_row(events, first, "delivered")
        assert (row["chat"], row["asked"]) == (BRAZIL, f"{ASKED}@s.whatsapp.net")
        assert row["attempts"] == 1
        # Both spellings are one chat, and known from here on.
        by_alias = await send(client, f"+{ASKED}", "two", wait="delivered")
        by_number = await send(client, f"+{ANSWERED}", "three", wait="delivered")
        assert [by_alias["chat"], by_number["chat"]] == [BRAZIL, BRAZIL]
        assert by_number["asked"] is None
        shown = await client.call("message.get", id=first["id"])
        assert (shown["chat"], shown["asked"]) == (BRAZIL, f"{ASKED}@s.whatsapp.net")


@pytest.mark.parametrize("to", ["999999999999999@lid", "+15550999"])
async def test_an_address_that_nobody_has_is_refused_and_never_sent(to: str) -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", ACME)
        row = await until_row(events, await send(client, to, "hello"), "failed", "sent")
        assert row["state"] == "failed"
        assert "this address is not on WhatsApp" in row["reason"]
        assert (await client.call("sandbox.stats", messages=True))["messages"] == []


async def test_somebody_known_who_has_no_device_any_more_is_refused_before_anything_is_sent() -> (
    None
):
    """whatsmeow would send it to nobody, and WhatsApp acknowledge that."""
    gone = "999999999999999@lid"
    async with in_sandbox() as (daemon, client, events):
        await link(client, events, "acme", ACME)
        await daemon.stop()
        with closing(sqlite3.connect(daemon.state_dir / "whatsappd.db")) as database, database:
            database.execute("INSERT INTO contacts VALUES ('acme', ?, 1, 0)", (gone,))
        await daemon.start()
        async with daemon.client() as again, following(again) as later:
            row = await until_row(later, await send(again, gone, "hello"), "failed", "sent")
            assert row["state"] == "failed"
            assert "nobody has this address" in row["reason"]
            assert (await again.call("sandbox.stats", messages=True))["messages"] == []


async def test_another_number_is_held_until_a_person_says_that_it_is_meant() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "globex", GLOBEX)
        await link(client, events, "acme", ACME)
        await send(client, GLOBEX, "known", wait="delivered")
        await client.call("sandbox.unlink", phone=ACME)
        await events.state("acme", "logged_out")
        waiting = await send(client, GLOBEX, "from the first number")

        start = await scan(client, events, "acme", OTHER)
        held = await events.state("acme", "held", "connected", start=start)
        assert held["data"]["state"] == "held"
        assert held["data"]["why"] == "other_account"
        assert "+15550300" in held["data"]["cause"]
        assert "+15550100" in held["data"]["cause"]
        assert "--new-account" in held["data"]["cause"]
        status = await client.call("session.status", company="acme")
        assert status["account"] == "15550100@s.whatsapp.net"
        health = (await client.call("daemon.health"))["sessions"]["acme"]
        assert not health["ok"]
        assert "--new-account acme" in health["remedy"]
        # Nothing changes by itself, nor by a plain start.
        start = len(events.seen)
        await client.call("session.start", company="acme")
        await events.state("acme", "held", start=start)
        assert (await client.call("message.get", id=waiting["id"]))["state"] == "queued"

        # What was written to the other number meanwhile arrives when that is meant.
        note = await client.call("message.send", company="globex", to=OTHER, text="to the other")
        start = len(events.seen)
        await client.call("session.start", company="acme", new_account=True)
        await events.state("acme", "connected", start=start)
        assert (await client.call("message.get", id=waiting["id"]))["state"] == "cancelled"
        arrived = await events.of_type("acme", "message.received", start=start)
        assert arrived["data"]["text"] == "to the other"
        assert note["company"] == "globex"
        status = await client.call("session.status", company="acme")
        assert status["account"] == "15550300@s.whatsapp.net"


async def test_a_number_that_was_not_meant_is_unlinked_and_the_company_keeps_its_own() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", ACME)
        await client.call("sandbox.unlink", phone=ACME)
        await events.state("acme", "logged_out")
        waiting = await send(client, GLOBEX, "from the first number")
        start = await scan(client, events, "acme", OTHER)
        await events.state("acme", "held", start=start)
        status = await client.call("session.logout", company="acme")
        assert status["state"] == "logged_out"
        assert status["cause"].startswith("unlinked on request")
        assert status["account"] == "15550100@s.whatsapp.net"
        phones = (await client.call("sandbox.stats"))["phones"]
        assert phones[OTHER.removeprefix("+")]["devices"] == []
        # The right phone is taken without a question, and what waited goes.
        await client.call("sandbox.register", phone=GLOBEX)
        start = await scan(client, events, "acme", ACME)
        await events.state("acme", "connected", start=start)
        await until_row(events, waiting, "delivered")


async def test_the_account_of_another_company_is_refused_and_unlinked_again() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", ACME)
        await client.call("session.stop", company="acme")  # that makes no difference
        start = await scan(client, events, "globex", ACME)
        refused = await events.state("globex", "logged_out", "connected", "held", start=start)
        assert refused["data"]["state"] == "logged_out"
        assert "the account of company acme" in refused["data"]["cause"]
        assert len((await client.call("sandbox.stats"))["phones"][ACME[1:]]["devices"]) == 1
        with pytest.raises(WrongState):  # it never was this company's
            await client.call("session.qr", company="globex")

        # Unlinked on the phone it still is the first one's; logged out, it is free for others.
        await client.call("sandbox.unlink", phone=ACME)
        start = len(events.seen)
        await client.call("session.start", company="acme")
        await events.state("acme", "logged_out", start=start)
        status = await client.call("session.status", company="acme")
        assert (status["jid"], status["account"]) == (None, "15550100@s.whatsapp.net")
        status = await client.call("session.logout", company="acme")
        assert status["account"] is None
        start = await scan(client, events, "globex", ACME)
        await events.state("globex", "connected", start=start)


async def test_a_logout_that_whatsapp_ends_first_is_told_as_what_it_is() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", ACME)
        await client.call("sandbox.fault", kind="end_logouts", phone=ACME)
        status = await client.call("session.logout", company="acme")
        assert status["state"] == "logged_out"
        told = [
            event["data"]["cause"]
            for event in events.seen
            if event["type"] == "session.state" and event["data"]["state"] == "logged_out"
        ]
        assert told in ([], ["unlinked on request; start again to link anew"])
        assert status["cause"] == "unlinked on request; start again to link anew"


async def test_own_messages_are_told_apart_and_a_note_to_self_is_delivered() -> None:
    async with (
        running_sandbox() as sandbox,
        running_daemon("--sandbox-at", str(sandbox.info)) as daemon,
        running_daemon("--sandbox-at", str(sandbox.info)) as elsewhere,
        daemon.client() as client,
        following(client) as events,
        elsewhere.client() as other,
        following(other) as their_events,
    ):
        await link(client, events, "acme", ACME)
        await sandbox.control.call("sandbox.register", phone=GLOBEX)
        note = await send(client, ACME, "remember", wait="delivered")
        assert note["state"] == "delivered"
        # The same account on another device writes to a customer.
        await link(other, their_events, "desk", ACME)
        await other.call("message.send", company="desk", to=GLOBEX, text="from the desk")
        seen = await events.of_type("acme", "message.received")
        assert seen["data"]["from_me"] is True
        metrics = (await client.call("daemon.metrics"))["text"]
        assert 'whatsappd_messages_received_total{company="acme"} 0' in metrics


async def test_a_message_that_cannot_be_read_after_a_restart_is_sent_anew_once() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "globex", GLOBEX)
        await link(client, events, "acme", ACME)
        # The recipient is away, and what waits for it is damaged.
        await client.call("session.stop", company="globex")
        await client.call("sandbox.fault", kind="garble", phone=GLOBEX)
        row = await send(client, GLOBEX, "read me", wait="sent")
        assert row["state"] == "sent"
        # With the worker goes whatsmeow's memory of what it sent.
        start = len(events.seen)
        await client.call("session.restart", company="acme")
        await events.state("acme", "connected", start=start)
        start = len(events.seen)
        await client.call("session.start", company="globex")
        arrived = await events.of_type("globex", "message.received", start=start)
        assert arrived["data"]["text"] == "read me"
        done = await until_row(events, row, "delivered")
        assert done["former_message_id"] == row["message_id"]
        assert done["message_id"] not in (None, row["message_id"])
        assert done["attempts"] == 2
        shown = [
            event["data"]
            for event in events.seen
            if event["type"] == "outbox.state" and event["data"]["cause"] == "asked_again"
        ]
        assert ["asked for it again" in data["reason"] for data in shown] == [True]
        texts = [
            event["data"]["text"]
            for event in events.seen
            if event["type"] == "message.received" and event["company"] == "globex"
        ]
        assert texts == ["read me"]


async def test_a_retry_that_the_library_answers_itself_sends_nothing_anew() -> None:
    async with in_sandbox() as (_, client, events):
        await link(client, events, "globex", GLOBEX)
        await link(client, events, "acme", ACME)
        await client.call("sandbox.fault", kind="garble", phone=GLOBEX)
        row = await send(client, GLOBEX, "read me", wait="delivered")
        assert row["state"] == "delivered"
        assert (row["attempts"], row["former_message_id"]) == (1, None)
