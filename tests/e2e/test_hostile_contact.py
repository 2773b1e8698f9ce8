"""A contact who sends what no honest client does, to a company that is linked by the real neonize.

After each thing the company is connected, with the worker that it had, and what an innocent contact
wrote beside it has arrived.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
import trio
from contacts import Contact, Place, Raw, a_place, pb
from daemons import Events, following

from whatsappd.model.jid import Jid
from whatsappd.rpc.client import RpcClient
from whatsappd.sandbox.protocol.node import Node, timestamp
from whatsappd.sandbox.state.accounts import LinkedDevice
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.wire.shortening import MAX_TEXT


class Company(NamedTuple):
    place: Place
    client: RpcClient
    events: Events
    device: LinkedDevice
    mallory: Contact
    friend: Contact

    async def hears(self, text: str, *, worker: int | None = None) -> None:
        """What the friend says arrives; by `worker`, if that is given."""
        self.friend.say(self.device, text)
        self.place.board.flush()
        await self.received(text)
        if worker is not None:
            assert await self.worker() == worker, self.place.daemon.log()[-3000:]

    async def received(self, text: str) -> dict[str, Any]:
        """The data of the message that begins so."""
        event = await self.events.until(
            lambda event: (
                event["type"] == "message.received" and event["data"]["text"].startswith(text)
            )
        )
        return event["data"]

    async def of_mallory(self, type_: str, start: int) -> dict[str, Any]:
        address = str(self.mallory.account.lid)
        event = await self.events.until(
            lambda event: (
                event["type"] == type_ and (event["data"].get("chat") or {}).get("lid") == address
            ),
            start=start,
        )
        return event["data"]

    async def worker(self) -> int | None:
        status = await self.client.call("session.status", company="acme")
        return status["worker_pid"] if status["state"] == "connected" else None


@pytest.fixture
async def company() -> AsyncIterator[Company]:
    async with (
        a_place() as place,
        place.daemon.client() as client,
        following(client) as events,
    ):
        device = await place.link(client, events, "acme", "+15550100")
        mallory, friend = (
            place.contact("+15550300", "Mallory"),
            place.contact("+15550301", "Friend"),
        )
        yield Company(place, client, events, device, mallory, friend)


def nested(depth: int) -> bytes:
    message = pb((1, "deep"))
    for _ in range(depth):
        message = pb((40, pb((1, message))))
    return message


def quoted(depth: int) -> bytes:
    message = pb((1, "q"))
    for _ in range(depth):
        message = pb((6, pb((1, "deep"), (17, pb((3, message))))))
    return message


Does = Callable[[Contact, LinkedDevice], object]
#: What one read brings at once, with the friend's words between.
HOSTILE: dict[str, Does] = {
    "a name that is no UTF-8": lambda m, d: m.say(d, "x", notify=Raw(b"\xff\xfe")),
    "a name of a megabyte": lambda m, d: m.say(d, "x", notify="N" * 1_000_000),
    "a name that commands terminals": lambda m, d: m.say(d, "x", notify="\0\x1b[2J\u2028\u202e"),
    "an edit that is none": lambda m, d: m.say(d, "x", edit=Raw(b"\xff")),
    "a text of two megabytes": lambda m, d: m.say(d, "x" * 2_000_000),
    "a text that is no UTF-8": lambda m, d: m.write(d, pb((1, b"x\xf0\x9f"))),
    "an id of 10 KB": lambda m, d: m.say(d, "x", id="I" * 10_000),
    "an id that is no UTF-8": lambda m, d: m.say(d, "x", id=Raw(b"\xff\xfe")),
    "the year 292277026596": lambda m, d: m.say(d, "x", t=str(2**63 - 1)),
    "the year 0": lambda m, d: m.say(d, "x", t=str(-(2**63))),
    "no time": lambda m, d: m.say(d, "x", t="0"),
    "an address of 10 KB": lambda m, d: m.say(
        d, "x", sender_pn=Jid("9" * 10_000, "s.whatsapp.net")
    ),
    "another server": lambda m, d: m.say(d, "x", sender=Jid("a b", "example.com")),
    "a group of nobody": lambda m, d: m.say(
        d, "x", sender=Jid("1-2", "g.us"), participant=m.account.lid
    ),
    "60 messages in each other": lambda m, d: m.write(d, nested(60)),
    "2000 messages in each other": lambda m, d: m.write(d, nested(2000)),
    "50 quotations in each other": lambda m, d: m.write(d, quoted(50)),
    "every field at once": lambda m, d: m.write(d, pb(*((n, b"") for n in range(1, 136)))),
    "5000 options": lambda m, d: m.write(
        d, pb((49, pb((2, "Q" * 99_999), *[(3, pb((1, "o" * 999)))] * 5000)))
    ),
    "100,000 mentions": lambda m, d: m.write(
        d, pb((6, pb((1, "x"), (17, pb(*[(15, "1@lid")] * 100_000)))))
    ),
    "no protobuf": lambda m, d: m.write(d, b"\xff" * 50),
    "nothing": lambda m, d: m.write(d, b""),
    "no padding": lambda m, d: m.write(d, b"", as_it_is=True),
    "no ciphertext": lambda m, d: m.send(d, [Node("enc", {"v": "2", "type": "pkmsg"}, b"")]),
    "a receipt for 10,001": lambda m, d: m.receipt(d, *(f"3EB{n:07}" for n in range(10_001))),
    "a receipt that is no UTF-8": lambda m, d: m.receipt(d, Raw(b"\xff")),
    "a receipt of long ago": lambda m, d: m.receipt(d, "3EB0", t=str(-(2**63))),
    "a receipt to come": lambda m, d: m.receipt(d, "3EB1", t=str(2**63 - 1)),
    "presence": lambda m, d: m.passing(
        d, Node("presence", {"from": m.account.lid, "type": "x", "last": "9" * 30})
    ),
    "typing": lambda m, d: m.passing(
        d, Node("chatstate", {"from": m.account.lid}, [Node("x", {"media": "y"})])
    ),
    "a call": lambda m, d: m.passing(
        d, Node("call", {"from": m.account.lid, "id": "c", "t": timestamp()}, [Node("offer", {})])
    ),
    "a picture": lambda m, d: m.passing(
        d,
        Node("notification", {"from": m.account.lid, "id": "p", "t": "x", "type": "picture"},
             [Node("set", {"id": Raw(b"\xff")})]),
    ),
    "a group's news": lambda m, d: m.passing(
        d,
        Node("notification",
             {"from": Jid("1-2", "g.us"), "id": "g", "t": timestamp(), "type": "w:gp2"},
             [Node("subject", {"subject": Raw(b"\xff"), "s_t": "9" * 30})]),
    ),
}  # fmt: skip


async def test_whatever_a_contact_sends_costs_nobody_elses_message(company: Company) -> None:
    """All of it at once, and one by one: a single worker through all of that."""
    worker = await company.worker()
    for number, does in enumerate(HOSTILE.values()):
        does(company.mallory, company.device)
        company.friend.say(company.device, f"between {number:03}")
    company.place.board.flush()
    for number in range(len(HOSTILE)):
        await company.received(f"between {number:03}")
    assert await company.worker() == worker
    for name, does in HOSTILE.items():
        does(company.mallory, company.device)
        await company.hears(f"after {name}", worker=worker)
    log = company.place.daemon.log()
    assert "Traceback" not in log
    assert "worker_channel_corrupt" not in log


async def test_an_event_says_what_was_shortened(company: Company) -> None:
    company.mallory.say(company.device, "y" * 1_000_000, notify="N" * 100_000)
    company.place.board.flush()
    data = await company.received("yyy")
    assert data["shortened"] == {
        "content.text": 1_000_000, "sender.name": 100_000, "chat.name": 100_000,
    }  # fmt: skip
    assert data["sender"]["name"] == "N" * MAX_TEXT
    assert data["text"] == data["content"]["text"] == "y" * 65_536
    company.mallory.say(company.device, "named", notify=Raw(b"ok \xf0\x9f"), t="0")
    company.place.board.flush()
    data = await company.received("named")
    assert data["sender"]["name"] == "ok �"
    assert data["odd"] == ["timestamp_ms"]


async def test_a_message_that_cannot_be_read_is_told_with_who_sent_it(company: Company) -> None:
    start = len(company.events.seen)
    message_id = company.mallory.write(company.device, nested(90))
    company.place.board.flush()
    data = await company.of_mallory("message.unreadable", start)
    assert data["message_id"] == message_id
    assert data["of"] == "message"
    assert "depth" in data["error"] or "Error" in data["error"]
    metrics = await company.client.call("daemon.metrics")
    assert 'whatsappd_events_unreadable_total{company="acme"} 1' in metrics["text"]
    status = await company.client.call("session.status", company="acme")
    assert status["state"] == "connected"


async def test_a_receipt_that_neonize_cannot_hand_on_costs_a_moment(company: Company) -> None:
    """Its type has no number there: neonize ends. No backoff follows, and no message is lost."""
    start = len(company.events.seen)
    company.mallory.receipt(company.device, "3EB0", type_="gossip")
    company.place.board.flush()
    state = await company.events.state("acme", "starting", start=start)
    assert state["data"]["why"] == "broken_off"
    assert "Receipt.Type" in state["data"]["cause"]
    await company.events.state("acme", "connected", start=start)
    await company.hears("still here")


async def test_keys_of_the_account_are_not_logged(company: Company) -> None:
    """From the own phone, as it sends them after linking."""
    phone = Contact(company.place.board, company.device.account)
    key = os.urandom(32)
    fingerprint = pb((1, company.device.account.raw_id), (2, 1), (3, b"\0\1"))
    data = pb((1, key), (2, fingerprint), (3, 1_700_000_000_000))
    share = pb((1, pb((1, pb((1, b"\0\0\0\0\0\1"))), (2, data))))
    history = pb((6, 3), (3, key), (11, b"\x78\x9c\x03\x00\x00\x00\x00\x01"))
    own = company.device.account.jid
    for content in (pb((2, 6), (7, share)), pb((2, 5), (6, history)), pb((2, 8))):
        for attrs in ({"category": "peer"}, {}):
            message = pb((12, content))
            phone.write(company.device, message, sender=own, sender_pn=None, **attrs)
            phone.write(
                company.device,
                pb((31, pb((1, str(own)), (2, message)))),
                sender=own, sender_pn=None, **attrs,
            )  # fmt: skip
    await company.hears("after the keys")
    with trio.fail_after(10):
        async with company.place.daemon.client() as client, following(client) as all_events:
            await all_events.until(lambda event: event["data"].get("text") == "after the keys")
    told = [event["data"] for event in all_events.seen if event["type"].startswith("message.")]
    assert [data["text"] for data in told] == ["after the keys"]
    state = company.place.daemon.state_dir
    account = state.glob("companies/acme/session.db*")
    assert any(key in file.read_bytes() for file in account), "whatsmeow did not get them either"
    for file in state.glob("whatsappd.db*"):
        assert key not in file.read_bytes()
    assert key.hex() not in company.place.daemon.log()


async def test_what_crashes_the_library_at_each_login_is_waited_out() -> None:
    """As a message would that WhatsApp delivers again after each restart: the session goes on
    trying by itself, with long pauses, and says what is the matter."""
    async with (
        a_place("--set", "sessions.crash_limit=1") as place,
        place.daemon.client() as client,
        following(client) as events,
    ):
        device = await place.link(client, events, "acme", "+15550100")
        board, hand_over = place.board, place.board.activate

        def poisoned(client: ConnectedClient) -> None:
            hand_over(client)
            client.wire.enqueue(b"")  # whatsmeow looks into an empty frame: a panic of Go's

        board.activate = poisoned  # type: ignore[method-assign]
        connected = board.client_of(device)
        assert connected is not None
        connected.wire.drop()
        state = await events.until(lambda event: event["data"].get("why") == "crashing")
        assert state["data"]["state"] == "backing_off"
        assert "crashed 2 times" in state["data"]["cause"]
        assert "panic" in state["data"]["cause"]
        left_ms = state["data"]["next_try_ms"] - state["time_ms"]
        assert left_ms > 60_000
        board.activate = hand_over  # type: ignore[method-assign]
        await client.call("session.start", company="acme")
        await events.state("acme", "connected", start=len(events.seen))
