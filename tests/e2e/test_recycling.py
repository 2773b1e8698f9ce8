"""Workers that use too much are replaced while messages flow: nothing is lost, doubled or moved."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import trio
from chaos import NO_LIMITS
from daemons import Daemon, Events, in_sandbox, link

from whatsappd.rpc.client import RpcClient

#: In a ring, each writes to the next and hears from the one before. (Not both ways in one chat:
#: there whatsmeow itself loses some, recycled or not; `whatsappctl help promises`.)
PHONES = {"acme": "+15550100", "beta": "+15550200", "gamma": "+15550300"}
NEXT = {"acme": "beta", "beta": "gamma", "gamma": "acme"}
#: A worker has some 16 descriptors from the beginning, so each is over this at once.
TOO_FEW = 5
#: Recyclings of each worker that the traffic goes on for; one worker at a time.
ENOUGH = 1


def recycle_often(daemon: Daemon) -> None:
    config = daemon.directory / "whatsappd.toml"
    settings = {
        "recycle_descriptors": TOO_FEW,
        "recycle_rest": 1,
        "health_deadline": 1.5,
        "health_interval": 1.5,
    }
    lines = ["[sessions]", *(f"{name} = {value}" for name, value in settings.items())]
    config.write_text("\n".join(lines))
    daemon.arguments = (*daemon.arguments, "--config", str(config))


async def write_on(client: RpcClient, company: str, to: str, stop: trio.Event) -> list[str]:
    """One message after the other until told to stop; all that were accepted."""
    accepted: list[str] = []
    while not stop.is_set():
        text = f"{company} {len(accepted):06}"
        await client.call("message.send", company=company, to=PHONES[to], text=text)
        accepted.append(text)
        with trio.move_on_after(0.02):
            await stop.wait()
    return accepted


async def until_recycled(client: RpcClient) -> dict[str, dict[str, Any]]:
    """Wait until each worker had enough successors; the sessions then."""
    with trio.fail_after(60):
        while True:
            sessions = (await client.call("session.list"))["sessions"]
            if all(session["recycled"] >= ENOUGH for session in sessions):
                return {session["company"]: session for session in sessions}
            await trio.sleep(0.1)


def arrived(events: Events) -> dict[str, list[str]]:
    """The texts that each company got, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for event in events.seen:
        if event["type"] == "message.received":
            found[event["company"]].append(event["data"]["text"])
    return found


@pytest.mark.endurance
async def test_recycling_loses_doubles_and_moves_nothing() -> None:
    async with in_sandbox(prepare=recycle_often) as (_, client, events):
        for company, phone in PHONES.items():
            await link(client, events, company, phone)
            await client.call("session.configure", company=company, **NO_LIMITS)
        # Acme's first worker is still waiting for acks when its time comes.
        await client.call(
            "sandbox.fault", kind="delay_acks", phone=PHONES["acme"], seconds=2, count=2
        )
        stop = trio.Event()
        accepted: dict[str, list[str]] = {}

        async def write(company: str, to: str) -> None:
            accepted[to] = await write_on(client, company, to, stop)

        async with trio.open_nursery() as nursery:
            for company, to in NEXT.items():
                nursery.start_soon(write, company, to)
            sessions = await until_recycled(client)
            stop.set()
        for company, texts in accepted.items():
            assert texts
            await events.until(
                lambda event, company=company, last=texts[-1]: (
                    (event["type"], event["company"]) == ("message.received", company)
                    and event["data"]["text"] == last
                )
            )
        found = arrived(events)
        for company, texts in accepted.items():
            assert [text for text in texts if text not in found[company]] == []  # lost
            assert len(found[company]) == len(set(found[company]))
            assert found[company] == texts  # in order
        states = [event["data"] for event in events.seen if event["type"] == "session.state"]
        recycled = [data for data in states if data["why"] == "recycled"]
        assert len(recycled) >= len(PHONES) * ENOUGH
        for data in recycled:
            assert (data["from"], data["state"]) == ("connected", "starting")
            assert data["cause"].startswith("recycled: ")
            assert data["cause"].endswith(" descriptors; a new worker takes over")
        # No attempt was cut off: each ended while its worker lived.
        outcomes = [event["data"] for event in events.seen if event["type"] == "outbox.state"]
        assert {data["state"] for data in outcomes} <= {"queued", "sending", "sent", "delivered"}
        assert {data["attempts"] for data in outcomes} == {0, 1}
        # It is no crash and no error: nothing backs off, and nobody is told of trouble.
        assert not {data["state"] for data in states} & {"backing_off", "failed"}
        for session in sessions.values():
            assert session["last_recycled"].endswith(" descriptors")
            assert session["last_error"] is None
        metrics = (await client.call("daemon.metrics"))["text"]
        for company in PHONES:
            name = "whatsappd_worker_restarts_total"
            assert f'{name}{{cause="recycled",company="{company}"}}' in metrics
        assert not any(f'cause="{cause}"' in metrics for cause in ("exited", "hung"))
