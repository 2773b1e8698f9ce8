"""Webhooks end to end: a real daemon, the real deliverer, and a receiver on loopback."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, running_daemon
from gateways import Stack, make_events, running_gateway
from prometheus_client.parser import text_string_to_metric_families
from receivers import Receiver, running_receiver, verify

from whatsappd.api import webhooks as api
from whatsappd.api.schemas import schemas_of
from whatsappd.errors import InvalidParams, UnknownDeadLetter, UnknownWebhook, Unreachable
from whatsappd.gateway.webhooks.deliverer import run_deliverer
from whatsappd.model.event import EVENT_TYPES
from whatsappd.rules import webhook_policy as rules
from whatsappd.rules.bounds import WEBHOOKS
from whatsappd.rules.webhook_policy import MAX_DESCRIPTION, TURN_S, Policy

#: Short waits; patience where a test does not want the event to be given up.
BRISK = Policy(timeout_ms=20_000, attempts=3, base_ms=5, cap_ms=20, pause_after_ms=60_000)
PATIENT = BRISK._replace(attempts=10_000)


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with running_daemon("--sandbox") as daemon:
        yield daemon


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


@asynccontextmanager
async def delivering(daemon: Daemon, policy: Policy = BRISK) -> AsyncIterator[trio.Nursery]:
    """The gateway's deliverer, in this process, with a policy of the test's own."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_deliverer, daemon.socket, policy)
        yield nursery
        nursery.cancel_scope.cancel()


async def create(daemon: Daemon, receiver: Receiver, **wanted: Any) -> dict[str, Any]:
    async with daemon.client() as client:
        given = {"url": receiver.url, "allow_private": True, "after": 0, **wanted}
        return await client.call("webhook.create", **given)


async def call(daemon: Daemon, method: str, **arguments: Any) -> Any:
    async with daemon.client() as client:
        return await client.call(f"webhook.{method}", **arguments)


async def until_state(daemon: Daemon, identity: str, state: str) -> dict[str, Any]:
    async with daemon.client() as client:
        with trio.fail_after(PATIENCE):
            while True:
                found = await client.call("webhook.get", id=identity)
                if found["state"] == state:
                    return found
                await trio.sleep(0.02)


async def logged(daemon: Daemon, company: str | None = None) -> list[dict[str, Any]]:
    """The whole log."""
    found: list[dict[str, Any]] = []
    async with daemon.client() as client:
        after = 0
        while True:
            page = await client.call("events.read", after=after, limit=500)
            found += page["events"]
            after = page["next"]
            if after >= page["last_seq"]:
                return [each for each in found if company in (None, each["company"])]


async def until_delivered_by_somebody(daemon: Daemon) -> None:
    """A gateway answers requests before it delivers."""
    async with daemon.client() as client:
        with trio.fail_after(PATIENCE):
            while not (await client.call("webhook.list"))["delivering"]:
                await trio.sleep(0.02)


async def check_of_webhooks(daemon: Daemon) -> dict[str, Any]:
    async with daemon.client() as client:
        checks = (await client.call("daemon.health"))["checks"]
    [found] = [check for check in checks if check["name"] == "webhooks"]
    return found


async def figure(daemon: Daemon, name: str, **labels: str) -> float:
    async with daemon.client() as client:
        text = (await client.call("daemon.metrics"))["text"]
    [found] = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"whatsappd_{name}" and sample.labels == labels
    ]
    return float(found)


def seqs(events: list[dict[str, Any]], company: str) -> list[int]:
    return [event["seq"] for event in events if event["company"] == company]


def first_times(values: list[int]) -> list[int]:
    return list(dict.fromkeys(values))


async def test_every_event_arrives_signed_and_in_the_order_of_its_company(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver)
    async with delivering(daemon):
        await make_events(daemon, "acme", 100)
        await make_events(daemon, "globex", 100)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events))
        # Nothing is new: whoever delivers says how far it came, at the latest at its end.
    assert len(receiver.accepted) == len(events)
    for company in ("acme", "globex"):
        assert seqs(receiver.accepted, company) == seqs(events, company)
    by_seq = {event["seq"]: event for event in events}
    assert all(event == by_seq[event["seq"]] for event in receiver.accepted)
    for each in receiver.received:
        assert verify(made["secret"], each.headers, each.body)
        assert not verify(made["secret"], each.headers, each.body + b" ")
        assert abs(int(each.headers["webhook-timestamp"]) - time.time()) < 60
        event = each.event
        assert each.headers["webhook-id"] == f"evt_{event['seq']}_{event['time_ms']}"
    found = await call(daemon, "get", id=made["id"])
    assert (found["cursor"], found["behind"], found["state"]) == (len(events), 0, "ok")
    assert found["delivered"] == len(events)
    assert "secret" not in found
    assert made["secret"] not in daemon.log()


async def test_filters_choose_companies_and_types(daemon: Daemon, receiver: Receiver) -> None:
    await create(daemon, receiver, companies=["acme"], types=["outbox.state"])
    async with delivering(daemon):
        await make_events(daemon, "globex", 50)
        await make_events(daemon, "acme", 50)
        await receiver.until(lambda: len(receiver.accepted) >= 100)
    assert {(each["company"], each["type"]) for each in receiver.accepted} == {
        ("acme", "outbox.state")
    }


async def test_refusals_are_tried_again_and_the_order_holds(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver)
    tries: dict[int, int] = {}

    def every_fifth_fails_twice(event: dict[str, Any]) -> int:
        tries[event["seq"]] = tries.get(event["seq"], 0) + 1
        return 503 if event["seq"] % 5 == 0 and tries[event["seq"]] <= 2 else 200

    receiver.answer = every_fifth_fails_twice
    async with delivering(daemon):
        await make_events(daemon, "acme", 50)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events))
    assert [each["seq"] for each in receiver.accepted] == [each["seq"] for each in events]
    ids = {each.headers["webhook-id"] for each in receiver.received if each.event["seq"] == 5}
    assert len(ids) == 1
    found = await call(daemon, "get", id=made["id"])
    assert found["failures"] == 2 * (len(events) // 5)
    assert found["dead_letters"] == 0


async def test_a_receiver_that_was_down_gets_everything(daemon: Daemon, receiver: Receiver) -> None:
    made = await create(daemon, receiver)
    receiver.stop()
    # BRISK gives an event up after three failures, but not because of a receiver that is away.
    async with delivering(daemon):
        await make_events(daemon, "acme", 200)
        found = await until_state(daemon, made["id"], "failing")
        assert "cannot connect" in found["last_error"]
        events = await logged(daemon)
        await receiver.start()
        await receiver.until(lambda: len(receiver.accepted) >= len(events))
        assert (await until_state(daemon, made["id"], "ok"))["dead_letters"] == 0
    assert [each["seq"] for each in receiver.accepted] == [each["seq"] for each in events]


async def test_one_slow_company_or_receiver_does_not_hold_up_others(
    daemon: Daemon, receiver: Receiver
) -> None:
    async with running_receiver() as slow, delivering(daemon, PATIENT):
        release = trio.Event()

        async def wait(_event: dict[str, Any]) -> None:
            await release.wait()

        async def acme_waits(event: dict[str, Any]) -> None:
            if event["company"] == "acme":
                await release.wait()

        slow.before, receiver.before = wait, acme_waits
        await create(daemon, slow)
        await create(daemon, receiver)
        await make_events(daemon, "acme", 50)
        await make_events(daemon, "globex", 50)
        globex = seqs(await logged(daemon), "globex")
        await receiver.until(lambda: len(seqs(receiver.accepted, "globex")) >= len(globex))
        assert seqs(receiver.accepted, "acme") == []
        assert slow.accepted == []
        release.set()
        total = len(await logged(daemon))
        await slow.until(lambda: len(slow.accepted) >= total)
        assert slow.at_once <= 4


async def test_a_killed_gateway_loses_nothing(daemon: Daemon, receiver: Receiver) -> None:
    await create(daemon, receiver)
    await make_events(daemon, "acme", 150)
    await make_events(daemon, "globex", 150)
    events = await logged(daemon)
    for kill_at in (50, 150, 300):
        async with running_gateway(daemon) as gateway:
            await receiver.until(lambda at=kill_at: len(receiver.received) >= at)
            await gateway.stop(signal.SIGKILL)
    async with running_gateway(daemon):
        wanted = {event["seq"] for event in events}
        await receiver.until(lambda: {each["seq"] for each in receiver.accepted} >= wanted)
    for company in ("acme", "globex"):
        # What comes again comes again in order; without repetitions it is the log.
        assert first_times(seqs(receiver.accepted, company)) == seqs(events, company)


async def test_a_gateway_that_stops_in_order_repeats_nothing(
    daemon: Daemon, receiver: Receiver
) -> None:
    await create(daemon, receiver)
    await make_events(daemon, "acme", 200)
    events = await logged(daemon)

    async def slowly(_event: dict[str, Any]) -> None:
        await trio.sleep(0.005)

    receiver.before = slowly
    async with delivering(daemon):
        await receiver.until(lambda: len(receiver.received) >= 100)
    async with delivering(daemon):
        await receiver.until(lambda: len(first_times(seqs(receiver.accepted, "acme")))
                             >= len(events))  # fmt: skip
    # The one that was under way when it stopped may come twice.
    assert len(receiver.accepted) <= len(events) + 1


async def test_the_daemon_may_restart(daemon: Daemon, receiver: Receiver) -> None:
    await create(daemon, receiver)
    async with delivering(daemon):
        await make_events(daemon, "acme", 50)
        await daemon.stop()
        await daemon.start()
        await make_events(daemon, "globex", 50)
        events = await logged(daemon)
        wanted = {event["seq"] for event in events}
        await receiver.until(lambda: {each["seq"] for each in receiver.accepted} >= wanted)


async def test_what_waits_of_a_company_that_is_removed_is_never_delivered(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver)
    is_mended = False
    receiver.answer = lambda _event: 200 if is_mended else 503
    async with delivering(daemon):
        await make_events(daemon, "acme", 2)
        await make_events(daemon, "globex", 2)
        await receiver.until(
            lambda: any(each.event["company"] == "acme" for each in receiver.received)
        )
        async with daemon.client() as client:
            await client.call("session.remove", company="acme", force=True)
        # The gateway is told of the removal, and an attempt may be on its way until it has heard.
        # It begins a test delivery only after it has ended what was removed before.
        assert (await call(daemon, "test", id=made["id"]))["status"] == 503
        is_mended = True
        wanted = {event["seq"] for event in await logged(daemon)}
        await receiver.until(lambda: {each["seq"] for each in receiver.accepted} >= wanted)
        assert seqs(receiver.accepted, "acme") == []


async def test_a_poisonous_event_becomes_a_dead_letter_and_can_be_sent_again(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver)
    is_mended = False
    receiver.answer = lambda event: 422 if event["seq"] == 7 and not is_mended else 200
    async with delivering(daemon):
        await make_events(daemon, "acme", 50)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events) - 1)
        assert 7 not in seqs(receiver.accepted, "acme")
        refused = [each for each in receiver.received if each.status == 422]
        # Once more after the ping.
        assert len(refused) == BRISK.attempts + 1
        assert any(each.event["type"] == "webhook.ping" for each in receiver.received)

        found = await call(daemon, "dead_letters", id=made["id"])
        [letter] = found["dead_letters"]
        assert letter["seq"] == 7
        assert letter["attempts"] == BRISK.attempts + 1
        assert letter["reason"] == "status 422: no, thank you"
        assert found["next"] is None

        with pytest.raises(UnknownDeadLetter):
            await call(daemon, "resend", id=made["id"], letters=[letter["id"], 999])
        # It refuses still: the letter stays, with one more attempt.
        await call(daemon, "resend", id=made["id"], letters=[letter["id"]])
        await receiver.until(lambda: len([r for r in receiver.received if r.status == 422]) == 5)
        with trio.fail_after(PATIENCE):
            while True:
                [letter] = (await call(daemon, "dead_letters", id=made["id"]))["dead_letters"]
                if not letter["resend"]:
                    break
                await trio.sleep(0.02)
        assert letter["attempts"] == BRISK.attempts + 2
        is_mended = True
        assert (await call(daemon, "resend", id=made["id"]))["count"] == 1
        await receiver.until(lambda: 7 in seqs(receiver.accepted, "acme"))
        with trio.fail_after(PATIENCE):
            while (await call(daemon, "get", id=made["id"]))["dead_letters"]:
                await trio.sleep(0.02)


async def test_what_is_sent_again_goes_where_the_webhook_leads_by_now(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver, types=["outbox.state"])
    receiver.answer = lambda event: 422 if event["type"] == "outbox.state" else 200
    async with running_receiver() as moved, delivering(daemon, BRISK._replace(attempts=1)):
        await make_events(daemon, "acme", 50)
        letters = [each["seq"] for each in await logged(daemon) if each["type"] == "outbox.state"]
        with trio.fail_after(PATIENCE):
            while (await call(daemon, "get", id=made["id"]))["dead_letters"] < len(letters):
                await trio.sleep(0.02)

        held: list[int] = []

        async def hold(event: dict[str, Any]) -> None:
            held.append(event["seq"])
            await trio.sleep_forever()

        receiver.before = hold
        before = len(receiver.received)
        await call(daemon, "resend", id=made["id"])
        with trio.fail_after(PATIENCE):
            while not held:
                await trio.sleep(0.02)
        changed = await call(daemon, "update", id=made["id"], url=moved.url, rotate_secret=True)
        await moved.until(lambda: set(seqs(moved.accepted, "acme")) == set(letters))
        with trio.fail_after(PATIENCE):
            while (await call(daemon, "get", id=made["id"]))["dead_letters"]:
                await trio.sleep(0.02)
    assert held == letters[:1]
    assert len(receiver.received) == before
    assert all(verify(changed["secret"], each.headers, each.body) for each in moved.received)


async def test_dead_letters_can_be_discarded(daemon: Daemon, receiver: Receiver) -> None:
    made = await create(daemon, receiver)
    receiver.answer = lambda event: 400 if event["seq"] in (3, 4) else 200
    async with delivering(daemon):
        await make_events(daemon, "acme", 50)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events) - 2)
    found = await call(daemon, "dead_letters", id=made["id"], limit=1)
    assert found["next"] == found["dead_letters"][0]["id"]
    assert (await call(daemon, "discard", id=made["id"]))["count"] == 2
    assert (await call(daemon, "get", id=made["id"]))["dead_letters"] == 0


async def test_after_long_failure_it_pauses_with_an_alert_and_resumes_by_itself(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver, types=["outbox.state"], companies=["acme", "globex"])
    receiver.answer = lambda event: 500
    policy = BRISK._replace(pause_after_ms=200, cap_ms=50)
    async with delivering(daemon, policy):
        await make_events(daemon, "acme", 50)
        await make_events(daemon, "globex", 50)
        paused = await until_state(daemon, made["id"], "paused")
        assert paused["last_error"].startswith("status 500")
        assert paused["paused_since_ms"] is not None
        [raised] = [each for each in await logged(daemon) if each["type"] == "alert"]
        assert raised["data"]["rule"] == "webhook_failing"
        assert raised["data"]["state"] == "raised"
        assert raised["data"]["webhook"] == made["id"]
        assert "/hook" not in raised["data"]["detail"]
        check = await check_of_webhooks(daemon)
        assert not check["ok"]
        assert made["id"] in check["detail"]
        ours = {"webhook": made["id"]}
        assert await figure(daemon, "webhook_paused", **ours) == 1
        assert await figure(daemon, "alerts", rule="webhook_failing") == 1
        assert await figure(daemon, "webhook_deliveries_total", result="failed", **ours) > 0
        assert await figure(daemon, "webhook_lag_events", **ours) > 100
        assert await figure(daemon, "webhook_oldest_undelivered_age_seconds", **ours) > 0
        assert await figure(daemon, "webhooks_delivered") == 1

        # From now on only the oldest event is tried, and whether the receiver is well.
        before = len(receiver.received)
        await receiver.until(lambda: len(receiver.received) >= before + 10)
        events = [each.event for each in receiver.received[before + 2 :]]
        assert len({each["seq"] for each in events if each["type"] != "webhook.ping"}) == 1

    # Also another gateway begins paused: it does not ring again.
    async with delivering(daemon, policy):
        before = len(receiver.received)
        await receiver.until(lambda: len(receiver.received) >= before + 4)
        receiver.answer = lambda event: 200
        wanted = {each["seq"] for each in await logged(daemon) if each["type"] == "outbox.state"}
        await receiver.until(lambda: {each["seq"] for each in receiver.accepted} >= wanted)
        await until_state(daemon, made["id"], "ok")
        assert (await check_of_webhooks(daemon))["ok"]
        assert await figure(daemon, "webhook_paused", **ours) == 0
        assert await figure(daemon, "alerts", rule="webhook_failing") == 0
    # At its end it has told all that it did.
    assert await figure(daemon, "webhook_deliveries_total", result="ok", **ours) == len(wanted)
    alerts = [each["data"]["state"] for each in await logged(daemon) if each["type"] == "alert"]
    assert alerts == ["raised", "cleared"]
    assert (await call(daemon, "get", id=made["id"]))["dead_letters"] == 0


async def test_when_the_receiver_is_back_nobody_waits_for_a_pause_of_their_own(
    daemon: Daemon, receiver: Receiver
) -> None:
    """All companies fail once. Then the oldest event asks often, and its success wakes all."""
    # Without that, the others would come after up to an hour; half of them after half an hour.
    policy = PATIENT._replace(base_ms=3_600_000, cap_ms=3_600_000, probe_ms=200)
    made = await create(daemon, receiver, types=["outbox.state"])
    receiver.answer = lambda event: 503
    companies = [f"company{number}" for number in range(8)]
    async with daemon.client() as client:
        for company in companies:
            await client.call("session.start", company=company)
            await client.call("session.stop", company=company)
        for company in companies * 3:
            row = await client.call("message.send", company=company, to="+15550999", text="x")
            await client.call("message.cancel", id=row["id"])
    wanted = {each["seq"] for each in await logged(daemon) if each["type"] == "outbox.state"}
    async with delivering(daemon, policy):
        await receiver.until(
            lambda: {r.event["company"] for r in receiver.received} >= {*companies}
        )
        receiver.answer = lambda event: 200
        await receiver.until(lambda: {each["seq"] for each in receiver.accepted} == wanted)
    for company in companies:
        assert seqs(receiver.accepted, company) == sorted(seqs(receiver.accepted, company))
    assert (await call(daemon, "get", id=made["id"]))["dead_letters"] == 0


async def test_a_receiver_that_is_overloaded_gets_one_event_at_a_time_when_it_asks_for_it(
    daemon: Daemon, receiver: Receiver
) -> None:
    await create(daemon, receiver, types=["outbox.state"])
    for number in range(4):
        await make_events(daemon, f"company{number}", 50)
    refused_at: list[float] = []
    taken_at: list[float] = []

    def answer(event: dict[str, Any]) -> int | tuple[int, list[tuple[str, str]]]:
        if len(refused_at) >= 4:  # those that were on their way at once
            taken_at.append(trio.current_time())
            return 200
        refused_at.append(trio.current_time())
        return 429, [("retry-after", "1")]

    receiver.answer = answer
    async with delivering(daemon, PATIENT):
        events = [each for each in await logged(daemon) if each["type"] == "outbox.state"]
        await receiver.until(lambda: len(receiver.accepted) >= len(events))
    # Nobody asked again before the time that each of them was told.
    assert taken_at[0] - refused_at[-1] >= 0.99


async def test_a_ping_waits_as_long_as_the_receiver_asked_for(
    daemon: Daemon, receiver: Receiver
) -> None:
    times: dict[str, list[float]] = {"webhook.ping": [], "others": []}

    def answer(event: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
        kind = event["type"] if event["type"] in times else "others"
        times[kind].append(trio.current_time())
        return (200, []) if times["webhook.ping"] else (429, [("Retry-After", "1")])

    receiver.answer = answer
    await create(daemon, receiver)
    await make_events(daemon, "acme", 50)
    async with delivering(daemon, BRISK._replace(attempts=1)):
        await receiver.until(lambda: receiver.accepted)
    assert times["webhook.ping"][0] - times["others"][0] >= 0.9


async def test_gone_disables_the_webhook_and_it_keeps_its_place(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver, types=["outbox.state"])
    await make_events(daemon, "acme", 50)
    wanted = [each["seq"] for each in await logged(daemon) if each["type"] == "outbox.state"]
    receiver.answer = lambda event: 410 if event["seq"] == wanted[10] else 200
    async with delivering(daemon):
        found = await until_state(daemon, made["id"], "disabled")
        assert found["last_error"] == "status 410: the receiver wants no more events"
        assert found["dead_letters"] == 0
        [alert] = [each for each in await logged(daemon) if each["type"] == "alert"]
        assert (alert["data"]["rule"], alert["data"]["state"]) == ("webhook_disabled", "raised")
        assert seqs(receiver.accepted, "acme") == wanted[:10]
        # Somebody who knows better switches it on again: it goes on where it was.
        receiver.answer = lambda event: 200
        await call(daemon, "update", id=made["id"], enabled=True)
        await receiver.until(lambda: wanted[-1] in seqs(receiver.accepted, "acme"))
        assert first_times(seqs(receiver.accepted, "acme")) == wanted


async def test_redirects_are_not_followed(daemon: Daemon, receiver: Receiver) -> None:
    made = await create(daemon, receiver)
    async with running_receiver() as elsewhere, delivering(daemon, PATIENT):
        receiver.answer = lambda event: (307, [("location", elsewhere.url)])
        await make_events(daemon, "acme", 50)
        found = await until_state(daemon, made["id"], "failing")
        await receiver.until(lambda: len(receiver.received) >= 5)
        assert "redirects are not followed" in found["last_error"]
        assert elsewhere.connections == 0


async def test_addresses_of_our_own_are_refused_at_the_door_and_on_the_way(
    daemon: Daemon, receiver: Receiver
) -> None:
    for url in (
        "https://127.0.0.1/hook",
        "https://[::1]/hook",
        "https://[::ffff:10.0.0.1]/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://2130706433/",
        "https://0x7f.1/",
        "http://example.com/hook",
        "ftp://example.com/",
        "https://user:password@example.com/",
        "https:///nothing",
        "https://example.com/#there",
        "https://example.com:0/",
        "https://exa mple.com/",
    ):
        with pytest.raises(InvalidParams, match="url"):
            await create(daemon, receiver, url=url, allow_private=False)
    # A name that leads here: nobody can know before it is looked up.
    made = await create(
        daemon, receiver, url=f"https://localhost:{receiver.port}/hook", allow_private=False
    )
    async with delivering(daemon):
        await make_events(daemon, "acme", 50)
        found = await until_state(daemon, made["id"], "failing")
        assert "not on the Internet" in found["last_error"]
        tested = await call(daemon, "test", id=made["id"])
        assert tested["ok"] is False
        assert "not on the Internet" in tested["error"]
        assert receiver.connections == 0
        # An administrator says that it is meant: at once it works.
        await call(daemon, "update", id=made["id"], url=receiver.url, allow_private=True)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events))
        with pytest.raises(InvalidParams, match="allow_private"):
            await call(daemon, "update", id=made["id"], allow_private=False)


async def test_a_test_delivery_tells_what_the_receiver_says(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver, enabled=False)
    with pytest.raises(Unreachable, match="whatsappd gateway"):
        await call(daemon, "test", id=made["id"])
    async with delivering(daemon):
        with trio.fail_after(PATIENCE):
            while not (await call(daemon, "list"))["delivering"]:
                await trio.sleep(0.02)
        good = await call(daemon, "test", id=made["id"])
        assert (good["ok"], good["status"], good["error"]) == (True, 200, None)
        receiver.answer = lambda event: 403
        bad = await call(daemon, "test", id=made["id"])
        assert (bad["ok"], bad["status"]) == (False, 403)
    assert [each.event["type"] for each in receiver.received] == ["webhook.test"] * 2
    assert verify(made["secret"], receiver.received[0].headers, receiver.received[0].body)


async def test_a_url_that_only_an_older_version_took_holds_up_nobody(
    daemon: Daemon, receiver: Receiver
) -> None:
    await create(daemon, receiver)
    for enabled in (False, True):
        made = await create(daemon, receiver, enabled=enabled)
        with closing(sqlite3.connect(daemon.state_dir / "whatsappd.db")) as database, database:
            old = ("http://user@127.1/a b", made["id"])
            database.execute("UPDATE webhooks SET url = ? WHERE id = ?", old)
    async with delivering(daemon):
        await until_delivered_by_somebody(daemon)
        with trio.fail_after(PATIENCE):
            while (shown := await call(daemon, "get", id=made["id"]))["enabled"]:
                await trio.sleep(0.02)
        assert "give the webhook another URL" in shown["last_error"]
        tested = await call(daemon, "test", id=made["id"])
        assert (tested["ok"], tested["status"]) == (False, None)
        assert "no user or password" in tested["error"]
        await make_events(daemon, "acme", 50)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events))


async def test_disabled_keeps_its_place_and_a_new_secret_signs_from_now_on(
    daemon: Daemon, receiver: Receiver
) -> None:
    made = await create(daemon, receiver)
    async with delivering(daemon):
        await make_events(daemon, "acme", 50)
        first = len(await logged(daemon))
        await receiver.until(lambda: len(receiver.accepted) >= first)
        await call(daemon, "update", id=made["id"], enabled=False)
        await make_events(daemon, "acme", 50)
        events = await logged(daemon)
        changed = await call(daemon, "update", id=made["id"], enabled=True, rotate_secret=True)
        assert changed["secret"] != made["secret"]
        await receiver.until(lambda: len(first_times(seqs(receiver.accepted, "acme")))
                             >= len(events))  # fmt: skip
    last = receiver.received[-1]
    assert verify(changed["secret"], last.headers, last.body)
    assert not verify(made["secret"], last.headers, last.body)
    await call(daemon, "remove", id=made["id"])
    with pytest.raises(UnknownWebhook):
        await call(daemon, "get", id=made["id"])


async def test_two_gateways_do_not_deliver_twice(daemon: Daemon, receiver: Receiver) -> None:
    await create(daemon, receiver)
    async with running_gateway(daemon), delivering(daemon):
        await make_events(daemon, "acme", 100)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events))
    assert [each["seq"] for each in receiver.accepted] == [each["seq"] for each in events]


@pytest.mark.soak
async def test_a_gateway_that_stands_still_loses_its_turn(
    daemon: Daemon, receiver: Receiver
) -> None:
    await create(daemon, receiver)
    script = Path(__file__).with_name("deliverer_process.py")
    async with trio.open_nursery() as nursery:
        frozen = await nursery.start(
            trio.run_process, [sys.executable, str(script), str(daemon.socket)]
        )
        await make_events(daemon, "acme", 50)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events))
        frozen.send_signal(signal.SIGSTOP)
        try:
            async with delivering(daemon):
                await make_events(daemon, "acme", 50)
                events = await logged(daemon)
                with trio.fail_after(TURN_S + PATIENCE):
                    while events[-1]["seq"] not in seqs(receiver.accepted, "acme"):
                        await trio.sleep(0.1)
                # It wakes up, finds that its turn is over, and delivers nothing.
                frozen.send_signal(signal.SIGCONT)
                await make_events(daemon, "acme", 50)
                events = await logged(daemon)
                await receiver.until(lambda: events[-1]["seq"] in seqs(receiver.accepted, "acme"))
        finally:
            frozen.send_signal(signal.SIGCONT)
            frozen.terminate()
            nursery.cancel_scope.cancel()
    # What the frozen one had delivered and not told yet comes twice; nothing comes late.
    assert first_times(seqs(receiver.accepted, "acme")) == seqs(events, "acme")
    assert seqs(receiver.accepted[-100:], "acme") == seqs(events, "acme")[-100:]
    assert "webhooks_turn_lost" in daemon.log()


async def test_rest_makes_shows_changes_tests_and_removes_webhooks(receiver: Receiver) -> None:
    async with running_daemon("--sandbox") as daemon, running_gateway(daemon) as gateway:
        stack = Stack(daemon, gateway)
        async with stack.http(await stack.key("admin")) as http:
            made = await http.post(
                "/v1/webhooks",
                json={"url": receiver.url, "allow_private": True, "companies": ["acme"]},
            )
            assert made.status_code == 201, made.text
            secret = made.json()["secret"]
            where = made.headers["Location"]
            assert (await http.get(where)).json()["secret"] is None
            await until_delivered_by_somebody(daemon)
            tested = await http.post(f"{where}/test")
            assert tested.json()["ok"] is True, tested.text
            assert verify(secret, receiver.received[0].headers, receiver.received[0].body)

            changed = await http.patch(where, json={"companies": None, "types": ["alert"]})
            assert (changed.json()["companies"], changed.json()["types"]) == (None, ["alert"])
            rotated = await http.patch(where, json={"rotate_secret": True})
            assert rotated.json()["secret"] not in (None, secret)
            wrong = await http.patch(where, json={"url": "https://user@example.com/"})
            assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "url")
            assert (await http.get(f"{where}/dead-letters")).json()["dead_letters"] == []
            unknown = await http.post(f"{where}/dead-letters/resend", json={"letters": [1]})
            assert unknown.status_code == 404

            bound = await stack.key("admin", ["acme"])
            async with stack.http(bound) as other:
                # For all companies: it is not theirs, and so is not there.
                assert (await other.get("/v1/webhooks")).json()["webhooks"] == []
                assert (await other.get(where)).status_code == 404
                url = "https://hooks.shop.example/"
                own = {"url": url, "companies": ["acme"]}
                for denied in (
                    {"url": url},
                    {"url": url, "companies": ["acme", "globex"]},
                    {**own, "allow_private": True},
                ):
                    answer = await other.post("/v1/webhooks", json=denied)
                    assert answer.status_code == 403, answer.text
                theirs = (await other.post("/v1/webhooks", json=own)).headers["Location"]
                for denied in ({"companies": None}, {"allow_private": True}):
                    assert (await other.patch(theirs, json=denied)).status_code == 403
                assert (await http.patch(theirs, json={"allow_private": True})).status_code == 200
                # What is let in for one address is not let in for another.
                answer = await other.patch(theirs, json={"url": "http://127.0.0.1:1/"})
                assert answer.status_code == 403
                assert (await other.patch(theirs, json={"enabled": False})).status_code == 200

            assert (await http.delete(where)).status_code == 204
            assert (await http.get(where)).status_code == 404
        assert secret not in gateway.log() + daemon.log()


async def test_what_a_receiver_answers_is_read_to_a_small_bound(
    daemon: Daemon, receiver: Receiver
) -> None:
    receiver.text = b"x" * 5_000_000
    made = await create(daemon, receiver)
    async with delivering(daemon):
        await make_events(daemon, "acme", 50)
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events))
        receiver.answer = lambda event: 500
        with trio.fail_after(PATIENCE):
            while (await call(daemon, "list"))["delivering"] is False:
                await trio.sleep(0.02)
        tested = await call(daemon, "test", id=made["id"])
    assert len(tested["error"]) < 300


async def test_a_receiver_that_never_answers_times_out(daemon: Daemon, receiver: Receiver) -> None:
    async def never(_event: dict[str, Any]) -> None:
        await trio.sleep_forever()

    receiver.before = never
    made = await create(daemon, receiver)
    async with delivering(daemon, PATIENT._replace(timeout_ms=100)):
        await make_events(daemon, "acme", 50)
        found = await until_state(daemon, made["id"], "failing")
        assert found["last_error"] == "no answer within 0.1 s"
        receiver.before = None
        events = await logged(daemon)
        await receiver.until(lambda: len(receiver.accepted) >= len(events))


async def test_whatsappctl_webhooks(daemon: Daemon, receiver: Receiver) -> None:
    async def ctl(*arguments: str, code: int = 0) -> tuple[str, str]:
        done = await trio.run_process(
            [sys.executable, "-m", "whatsappctl", "--socket", str(daemon.socket), "webhooks",
             *arguments],
            capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done
        return done.stdout.decode(), done.stderr.decode()

    async with delivering(daemon):
        with trio.fail_after(PATIENCE):
            while not (await call(daemon, "list"))["delivering"]:
                await trio.sleep(0.02)
        secret, told = await ctl("create", receiver.url, "--allow-private", "--company", "acme")
        identity = told.split()[1].rstrip(":")
        assert secret.startswith("whsec_")
        assert "all events of acme" in told
        assert "status 200" in (await ctl("test", identity))[0]
        receiver.answer = lambda event: 400 if event["type"] != "webhook.ping" else 200
        assert "status 400" in (await ctl("test", identity, code=1))[1]
        await make_events(daemon, "acme", 50)
        with trio.fail_after(PATIENCE):
            while not (await call(daemon, "get", id=identity))["dead_letters"]:
                await trio.sleep(0.02)
        assert receiver.url in (await ctl("list"))[0]
        shown, _ = await ctl("show", identity)
        assert "status 400" in shown
        assert secret.strip() not in shown
        assert "no, thank you" in (await ctl("dead", identity))[0]
        _, told = await ctl("update", identity, "--disable", "--all-companies")
        assert "all events of all companies; disabled" in told
        [letter, *_] = json.loads((await ctl("dead", identity, "--json"))[0])["dead_letters"]
        assert "1 to be sent again" in (await ctl("resend", identity, str(letter["id"])))[1]
        assert "deleted" in (await ctl("discard", identity))[1]
        assert (await ctl("remove", identity))[1] == f"removed {identity}\n"
        await ctl("show", identity, code=9)
        await ctl("create", "https://127.0.0.1/", code=2)


async def test_the_most_that_can_be_configured_still_fits_into_one_answer(
    daemon: Daemon, receiver: Receiver
) -> None:
    url = f"{receiver.url}?{'x' * 1900}"
    companies = [f"{number:050}" for number in range(api.MAX_COMPANIES)]
    given = {"types": list(EVENT_TYPES), "description": "x" * MAX_DESCRIPTION}
    async with daemon.client() as client, trio.open_nursery() as nursery:
        for _ in range(WEBHOOKS.all):
            create = partial(
                client.call, "webhook.create", url=url, allow_private=True, companies=companies,
                after=0, **given,
            )  # fmt: skip
            nursery.start_soon(create)
    assert len((await call(daemon, "list"))["webhooks"]) == WEBHOOKS.all
    async with delivering(daemon):
        async with daemon.client() as client:
            await client.call("session.start", company=companies[0])
            await client.call("session.stop", company=companies[0])
        wanted = WEBHOOKS.all * len(await logged(daemon))
        await receiver.until(lambda: len(receiver.received) >= wanted)


def test_what_rest_documents_is_what_there_is() -> None:
    _, schemas = schemas_of([api.CreateWebhook])
    fields = schemas["CreateWebhook"]["properties"]
    assert tuple(fields["types"]["anyOf"][0]["items"]["enum"]) == EVENT_TYPES
    assert fields["url"]["maxLength"] == rules.MAX_URL
    assert fields["description"]["maxLength"] == MAX_DESCRIPTION
    assert fields["companies"]["anyOf"][0]["maxItems"] == api.MAX_COMPANIES
