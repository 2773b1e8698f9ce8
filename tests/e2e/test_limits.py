"""How fast, to whom, and until when: rate limits, the outreach guard, and what ends a message.

Full minutes are waited for in the long form only (`-m soak`).
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
from daemons import PATIENCE, Daemon, Events, following, in_sandbox, link

from whatsappd.errors import QueueFull, RateLimited, WrongState
from whatsappd.rpc.client import RpcClient

PHONE = "+15550100"
OFF = {"per_minute": 0, "per_phone_per_minute": 0, "cold_per_hour": 0, "cold_per_day": 0}


def person(number: int) -> str:
    return f"+1555020{number:04}"


class World(NamedTuple):
    daemon: Daemon
    client: RpcClient
    events: Events

    async def limit(self, **limits: int | None) -> dict[str, int]:
        answer = await self.client.call("session.configure", company="acme", **{**OFF, **limits})
        found: dict[str, int] = answer["limits"]
        return found

    async def send(self, to: str, text: str = "x", **arguments: Any) -> dict[str, Any]:
        row: dict[str, Any] = await self.client.call(
            "message.send", company="acme", to=to, text=text, **arguments
        )
        return row

    async def state(self, row: dict[str, Any]) -> str:
        """Where the row is; that it arrived, which a phone says at once, counts as `sent`."""
        state = str((await self.client.call("message.get", id=row["id"]))["state"])
        return "sent" if state == "delivered" else state

    async def until(self, row: dict[str, Any], *states: str) -> dict[str, Any]:
        """Wait until the row is in one of `states`; what the event says."""
        seen = await self.events.until(
            lambda event: (
                event["type"] == "outbox.state"
                and event["data"]["id"] == row["id"]
                and event["data"]["state"] in states
            )
        )
        data: dict[str, Any] = seen["data"]
        return data

    async def until_postponed(self, row: dict[str, Any]) -> dict[str, Any]:
        seen = await self.events.until(
            lambda event: (
                event["type"] == "outbox.state"
                and event["data"]["id"] == row["id"]
                and event["data"]["cause"] == "postponed"
            )
        )
        data: dict[str, Any] = seen["data"]
        return data

    async def fault(self, kind: str, **arguments: Any) -> None:
        await self.client.call("sandbox.fault", kind=kind, phone=PHONE, **arguments)

    async def stats(self) -> Any:
        return await self.client.call("sandbox.stats", messages=True)


@asynccontextmanager
async def linked(*arguments: str, people: int = 6) -> AsyncIterator[World]:
    """A linked company without limits, and people on WhatsApp who read nothing."""
    async with in_sandbox(*arguments) as (daemon, client, events):
        await link(client, events, "acme", PHONE)
        for number in range(people):
            await client.call("sandbox.register", phone=person(number))
        world = World(daemon, client, events)
        await world.limit()
        yield world


# --- rates -------------------------------------------------------------------------------------


async def test_as_many_as_the_limit_go_and_a_new_limit_counts_at_once() -> None:
    async with linked() as world:
        await world.limit(per_minute=5)
        rows = [await world.send(person(0), str(number)) for number in range(8)]
        await world.until(rows[4], "sent")
        with pytest.raises(RateLimited) as refused:
            await world.send(person(1), no_queue=True)
        assert 50_000 < refused.value.data["retry_after_ms"] < 66_000
        assert [await world.state(row) for row in rows] == ["sent"] * 5 + ["queued"] * 3
        # Waiting rows heed the new limit at once, not when the old one would have let them go.
        with trio.fail_after(10):
            await world.limit(per_minute=7)
            await world.until(rows[6], "sent")
        assert await world.state(rows[7]) == "queued"
        assert (await world.stats())["accepted"] == 7
        with trio.fail_after(10):
            await world.limit(per_minute=None)
            await world.until(rows[7], "sent")


async def test_a_restart_does_not_forget_the_last_minute() -> None:
    async with linked() as world:
        await world.limit(per_minute=3)
        for number in range(3):
            await world.send(person(0), str(number), wait="sent")
        await world.daemon.stop(signal.SIGKILL)
        await world.daemon.start()
        async with world.daemon.client() as client, following(client) as events:
            await events.state("acme", "connected", start=len(world.events.seen))
            again = World(world.daemon, client, events)
            with pytest.raises(RateLimited):
                await again.send(person(1), no_queue=True)
            waiting = await again.send(person(1))
            await again.limit(per_minute=4)
            await again.until(waiting, "sent")


async def test_the_limit_for_one_number_holds_up_no_other() -> None:
    async with linked() as world:
        await world.limit(per_phone_per_minute=1)
        # More than the dispatcher looks at in one go, to more chats than one.
        held = [await world.send(person(number % 4), str(number)) for number in range(120)]
        with trio.fail_after(PATIENCE):
            free = await world.send(person(4), wait="sent")
            assert free["state"] == "sent"
        states = [await world.state(row) for row in held]
        assert states.count("sent") == 4
        assert states.count("queued") == 116
        with pytest.raises(RateLimited):
            await world.send(person(0), no_queue=True)
        row = await world.send(person(5), no_queue=True, wait="sent")
        assert row["state"] == "sent"


async def test_what_was_accepted_without_queueing_goes_before_what_waits() -> None:
    async with linked() as world:
        await world.limit(per_minute=2, per_phone_per_minute=1)
        await world.send(person(0), wait="sent")
        waiting = await world.send(person(0))
        with trio.fail_after(10):  # it has the last place of this minute
            row = await world.send(person(1), no_queue=True, wait="sent")
        assert row["state"] == "sent"
        assert await world.state(waiting) == "queued"


async def test_each_of_many_without_queueing_is_counted() -> None:
    async with linked() as world:
        await world.limit(per_phone_per_minute=1)
        await world.fault("delay_acks", seconds=1.5, count=1)
        await world.until(await world.send(person(0), "slow"), "sending")
        # It has the only place, and waits for the slow one; it makes no place for others.
        row = await world.send(person(1), no_queue=True)
        for _ in range(3):
            with pytest.raises(RateLimited):
                await world.send(person(1), no_queue=True)
        assert await world.state(row) == "queued"
        await world.until(row, "sent")


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_the_place_of_a_message_that_ended_goes_to_no_other(end: str) -> None:
    async with linked() as world:
        await world.limit(per_phone_per_minute=1)
        await world.fault("delay_acks", seconds=1.5, count=1)
        await world.until(await world.send(person(0), "slow"), "sending")
        ttl = {"ttl_ms": 1} if end == "expired" else {}
        ended = await world.send(person(1), no_queue=True, **ttl)
        if end == "cancelled":
            await world.client.call("message.cancel", id=ended["id"])
        waiting = await world.send(person(1))
        behind = await world.send(person(2))
        await world.until(behind, "sent")
        assert await world.state(waiting) == "queued"
        await world.until(ended, end)


async def test_the_place_of_a_message_to_nobody_goes_to_no_other() -> None:
    async with linked() as world:
        await world.limit(per_phone_per_minute=1)
        row = await world.send(person(7), no_queue=True, wait="sent")
        assert row["state"] == "failed"
        await world.client.call("sandbox.register", phone=person(7))
        waiting = await world.send(person(7))
        behind = await world.send(person(0))
        await world.until(behind, "sent")
        assert await world.state(waiting) == "queued"


async def test_a_key_is_repeatable_without_queueing_too() -> None:
    async with linked() as world:
        await world.limit(per_minute=1)
        row = await world.send(person(0), key="k", no_queue=True, wait="sent")
        again = await world.send(person(0), key="k", no_queue=True)
        assert again["id"] == row["id"]
        await world.client.call("session.stop", company="acme")
        assert (await world.send(person(0), key="k", no_queue=True))["id"] == row["id"]


@pytest.mark.soak
async def test_exactly_as_many_as_the_limit_go_in_any_minute() -> None:
    async with linked() as world:
        await world.limit(per_minute=30)
        rows = [await world.send(person(0), str(number)) for number in range(70)]
        with trio.fail_after(180):
            while await world.state(rows[-1]) != "sent":
                await trio.sleep(1)
        handed = [
            (await world.client.call("message.get", id=row["id"]))["handed_ms"] for row in rows
        ]
        assert handed == sorted(handed)
        gaps = [later - earlier for earlier, later in zip(handed, handed[30:], strict=False)]
        assert min(gaps) >= 60_000
        assert max(gaps) < 60_000 * 1.1 + 5_000  # the wait is lengthened by a tenth at the most


# --- what ends a message -----------------------------------------------------------------------


async def test_a_message_whose_time_passed_is_not_sent() -> None:
    async with linked() as world:
        await world.client.call("session.stop", company="acme")
        row = await world.send(person(0), ttl_ms=300)
        expired = await world.until(row, "expired")
        assert "time to live" in expired["reason"]
        await world.client.call("session.start", company="acme")
        await world.send(person(0), wait="sent")
        assert (await world.stats())["accepted"] == 1


async def test_a_message_whose_time_passes_behind_another_is_not_sent() -> None:
    async with linked() as world:
        await world.send(person(0), wait="sent")
        await world.fault("delay_acks", seconds=1.5, count=1)
        slow = await world.send(person(0), "slow")
        late = await world.send(person(0), "late", ttl_ms=500)
        await world.until(slow, "sent", "delivered")  # its receipt may stand in for the ack
        await world.until(late, "expired")
        last = await world.send(person(0), "last", wait="sent")
        assert last["state"] == "sent"
        assert (await world.stats())["accepted"] == 3


async def test_a_queued_message_can_be_cancelled_and_a_sent_one_cannot() -> None:
    async with linked() as world:
        await world.limit(per_minute=1)
        sent = await world.send(person(0), wait="sent")
        queued = await world.send(person(0))
        cancelled = await world.client.call("message.cancel", id=queued["id"])
        assert cancelled["state"] == "cancelled"
        with pytest.raises(WrongState):
            await world.client.call("message.cancel", id=sent["id"])
        await world.limit()
        await world.send(person(0), wait="sent")
        assert (await world.stats())["accepted"] == 2


async def test_a_full_queue_refuses_clearly_and_takes_repetitions(tmp_path: Path) -> None:
    config = tmp_path / "whatsappd.toml"
    config.write_text("[queue]\nlimit = 3\n")
    async with linked("--config", str(config)) as world:
        await world.client.call("session.stop", company="acme")
        rows = [await world.send(person(0), str(number), key=str(number)) for number in range(3)]
        with pytest.raises(QueueFull) as refused:
            await world.send(person(0), "one too many")
        assert refused.value.data == {"queued": 3, "limit": 3}
        assert (await world.send(person(0), "1", key="1"))["id"] == rows[1]["id"]
        await world.client.call("message.cancel", id=rows[0]["id"])
        await world.send(person(0), "fits now")


PERMANENT = [(400, "malformed"), (403, "forbids"), (404, "does not exist")]


@pytest.mark.parametrize(("error", "words"), PERMANENT)
async def test_a_permanent_refusal_ends_the_message_and_whoever_waits_for_it(
    error: int, words: str
) -> None:
    async with linked() as world:
        for wait in ("sent", "delivered"):
            await world.fault("nack_sends", error=error, count=1)
            with trio.fail_after(PATIENCE):
                row = await world.send(person(0), wait=wait)
            assert row["state"] == "failed"
            assert words in row["reason"]
            assert row["attempts"] == 1
        assert (await world.stats())["accepted"] == 0
        assert (await world.send(person(0), wait="sent"))["state"] == "sent"


async def test_a_passing_refusal_is_tried_again_and_holds_up_its_chat_only() -> None:
    async with linked() as world:
        await world.fault("nack_sends", error=500, count=1)
        refused = await world.send(person(0), "refused")
        behind = await world.send(person(0), "behind")
        other = await world.send(person(1), "other")
        assert "500" in (await world.until_postponed(refused))["reason"]
        for row in (other, refused, behind):
            await world.until(row, "sent")
        sent = [
            event["data"]["id"]
            for event in world.events.seen
            if event["type"] == "outbox.state" and event["data"]["state"] == "sent"
        ]
        assert sent.index(refused["id"]) < sent.index(behind["id"])
        row = await world.client.call("message.get", id=refused["id"])
        assert row["attempts"] == 2
        assert (await world.stats())["accepted"] == 3


# --- outreach ----------------------------------------------------------------------------------


async def test_a_number_that_is_not_on_whatsapp_fails_without_being_sent() -> None:
    async with linked() as world:
        row = await world.send("+15550999999", wait="sent")
        assert row["state"] == "failed"
        assert "not on WhatsApp" in row["reason"]
        assert row["attempts"] == 0
        stats = await world.stats()
        assert stats["accepted"] == 0
        assert stats["messages"] == []


async def test_first_messages_have_a_budget_of_their_own() -> None:
    async with linked() as world:
        await world.send(person(0), wait="sent")
        await world.limit(cold_per_hour=2)
        known = await world.send(person(0), wait="sent")
        assert known["state"] == "sent"
        rows = [await world.send(person(number)) for number in (1, 2, 3)]
        await world.until(rows[1], "sent")
        assert (await world.send(person(0), wait="sent"))["state"] == "sent"
        with pytest.raises(RateLimited, match="first messages"):
            await world.send(person(4), no_queue=True)
        assert [await world.state(row) for row in rows] == ["sent", "sent", "queued"]
        await world.daemon.stop(signal.SIGKILL)
        await world.daemon.start()
        async with world.daemon.client() as client, following(client) as events:
            await events.state("acme", "connected", start=len(world.events.seen))
            again = World(world.daemon, client, events)
            assert (await again.send(person(0), wait="sent"))["state"] == "sent"
            assert [await again.state(row) for row in rows] == ["sent", "sent", "queued"]
            with pytest.raises(RateLimited, match="first messages"):
                await again.send(person(4), no_queue=True)


async def test_463_pauses_first_messages_visibly_and_nobody_elses() -> None:
    async with linked() as world:
        await world.send(person(0), wait="sent")
        await world.fault("nack_sends", error=463, count=1)
        struck = await world.send(person(1))
        paused = await world.events.of_type("acme", "session.outreach")
        assert paused["data"]["paused"] is True
        assert "463" in paused["data"]["reason"]
        until_ms = paused["data"]["until_ms"]
        assert 3_500_000 < until_ms - paused["time_ms"] < 3_700_000
        row = await world.until_postponed(struck)
        assert "463" in row["reason"]
        assert row["not_before_ms"] == until_ms
        status = await world.client.call("session.status", company="acme")
        assert status["outreach_paused_until_ms"] == until_ms
        stranger = await world.send(person(2))
        assert (await world.send(person(0), wait="sent"))["state"] == "sent"
        assert await world.state(stranger) == "queued"
        with pytest.raises(RateLimited, match="463"):
            await world.send(person(3), no_queue=True)
        # A restart does not end it.
        await world.daemon.stop(signal.SIGKILL)
        await world.daemon.start()
        async with world.daemon.client() as client, following(client) as events:
            await events.state("acme", "connected", start=len(world.events.seen))
            status = await client.call("session.status", company="acme")
            assert status["outreach_paused_until_ms"] == until_ms
            again = World(world.daemon, client, events)
            assert (await again.send(person(0), wait="sent"))["state"] == "sent"
            assert await again.state(stranger) == "queued"


async def test_a_stranger_who_writes_first_is_answered_during_a_pause() -> None:
    async with linked() as world:
        await link(world.client, world.events, "globex", "+15550300")
        await world.fault("nack_sends", error=463, count=1)
        await world.send(person(1))
        await world.events.of_type("acme", "session.outreach")
        answer = await world.send("+15550300", "welcome back")
        assert await world.state(answer) == "queued"
        await world.client.call("message.send", company="globex", to=PHONE, text="hello")
        with trio.fail_after(10):
            await world.until(answer, "sent")
