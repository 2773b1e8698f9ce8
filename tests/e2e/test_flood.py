"""One contact says in seconds what others say in months.

The company stays connected, everything arrives in order, what others write with it; memory is
bounded in its worker and in the daemon, and other companies hardly notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from contacts import Contact, Place, a_place
from daemons import Events, following

from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.state.accounts import LinkedDevice

Figure = Callable[[str], None]
Send = Callable[[Contact, LinkedDevice, int], object]

#: Stanzas that the server hands over before it does anything else.
BATCH = 200
#: What a process may grow by, whatever comes.
MOST_MB = 60
#: Seconds. Its messages are a sandbox's, which is as busy as the flood.
MOST_LATENCY = 5.0


def _resident_mb(pid: int) -> float:
    [line] = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines()
              if each.startswith("VmRSS")]  # fmt: skip
    return int(line.split()[1]) / 1024


async def _flood(figure: Figure, what: str, number: int, send: Send) -> None:
    async with (
        a_place() as place,
        place.daemon.client() as client,
        following(client) as events,
    ):
        device = await place.link(client, events, "acme", "+15550100")
        other = await place.link(client, events, "globex", "+15550101")
        mallory, friend = place.contact("+15550300"), place.contact("+15550301")
        worker = (await client.call("session.status", company="acme"))["worker_pid"]
        pids = {"its worker": worker, "the daemon": place.daemon.pid}
        before = {name: _resident_mb(pid) for name, pid in pids.items()}
        peaks, latencies, start = dict(before), list[float](), len(events.seen)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write_to_another, place, friend, other, latencies, events)
            began = time.monotonic()
            for first in range(0, number, BATCH):
                for each in range(first, min(first + BATCH, number)):
                    send(mallory, device, each)
                friend.say(device, f"between {first}")
                place.board.flush()
                for name, pid in pids.items():
                    peaks[name] = max(peaks[name], _resident_mb(pid))
                await trio.sleep(0.001)
            heard = start
            for first in range(0, number, BATCH):
                heard = await _until_heard(events, f"between {first}", heard)
            took = time.monotonic() - began
            nursery.cancel_scope.cancel()
        status = await client.call("session.status", company="acme")
        assert (status["state"], status["worker_pid"]) == ("connected", worker)
        told = [event for event in events.seen[start:] if event["company"] == "acme"]
        assert not [event for event in told if event["type"] == "session.state"]
        texts = [event["data"]["text"] for event in told if event["type"] == "message.received"]
        friends = [text for text in texts if text.startswith("between")]
        assert friends == [f"between {first}" for first in range(0, number, BATCH)]
        floods = [text for text in texts if text.startswith("flood")]
        assert floods in ([], [f"flood {each}" for each in range(number)])
        for name, most in peaks.items():
            assert most - before[name] < MOST_MB, (name, before[name], most)
        latencies.sort()
        assert latencies[-1] < MOST_LATENCY * max(1, number / 2000)
        grown = ", ".join(f"{name} +{peaks[name] - before[name]:.0f} MB" for name in peaks)
        figure(
            f"{number} {what} in {took:.1f} s: {grown}; another company's message after "
            f"{latencies[len(latencies) // 2] * 1000:.0f} ms (p50), {latencies[-1] * 1000:.0f} ms "
            "at the most"
        )


async def _until_heard(events: Events, text: str, start: int) -> int:
    """However long it takes, as long as something still arrives. Where it stands in `seen`."""
    while True:
        for place in range(start, len(events.seen)):
            if events.seen[place]["data"].get("text") == text:
                return place
        start = len(events.seen)
        await events.until(lambda event: event["company"] == "acme", start=start)


async def _write_to_another(
    place: Place, friend: Contact, device: LinkedDevice, latencies: list[float], events: Events
) -> None:
    for number in range(1_000_000):
        began, start = time.monotonic(), len(events.seen)
        friend.say(device, f"elsewhere {number}")
        place.board.flush()
        await events.until(lambda event: event["company"] == "globex", start=start)
        latencies.append(time.monotonic() - began)
        await trio.sleep(0.05)


def _message(contact: Contact, device: LinkedDevice, number: int) -> None:
    contact.say(device, f"flood {number}")


def _receipt(contact: Contact, device: LinkedDevice, number: int) -> None:
    contact.receipt(device, *(f"3EB0{number:07}{each}" for each in range(10)), type_="read")


def _presence(contact: Contact, device: LinkedDevice, _number: int) -> None:
    contact.passing(device, Node("presence", {"from": contact.account.lid}))


async def test_a_flood_of_messages_drowns_nobody(figure: Figure) -> None:
    await _flood(figure, "messages of one contact", 1000, _message)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("what", "send"),
    [("messages", _message), ("receipts", _receipt), ("presences", _presence)],
)
async def test_fifty_thousand_drown_nobody(figure: Figure, what: str, send: Send) -> None:
    await _flood(figure, f"{what} of one contact", 50_000, send)
