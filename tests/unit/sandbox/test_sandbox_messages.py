"""Messages and receipts between clients: order, queues, resends, and readers that do not read."""

from __future__ import annotations

import pytest
from wire_client import (
    ACME,
    GLOBEX,
    LinkClient,
    until,
)

from whatsappd.model.jid import Jid, parse_jid
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.server.messages import MAX_ID
from whatsappd.sandbox.server.sandbox import Sandbox
from whatsappd.sandbox.state.switchboard import MAX_IN_FLIGHT


async def test_a_message_id_has_a_longest(sandbox: Sandbox, link: LinkClient) -> None:
    acme = await link(ACME)
    await acme.send(acme.message(Jid("15550199", "s.whatsapp.net"), "M" * MAX_ID))
    assert (await acme.expect("ack")).text("id") == "M" * MAX_ID
    await acme.send(acme.message(Jid("15550199", "s.whatsapp.net"), "M" * (MAX_ID + 1)))
    with pytest.raises(EOFError):
        await acme.expect("ack")


async def test_a_stale_device_list_is_answered_with_the_right_hash(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    assert globex.lid is not None
    assert acme.lid is not None
    phones = (globex.lid.account, acme.lid.account)  # device 0 of each
    await acme.send(acme.message(globex.lid.account, "M1", globex.lid, *phones))
    assert "phash" not in (await acme.expect("ack")).attrs
    await link(GLOBEX)
    await acme.send(acme.message(globex.lid.account, "M2", globex.lid))
    assert (await acme.expect("ack")).text("phash").startswith("2:")


async def test_a_phone_without_linked_devices_says_that_a_message_arrived(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme = await link(ACME)
    assert acme.lid is not None
    phone = parse_jid(sandbox.register(GLOBEX)["lid"])
    await acme.send(acme.message(phone, "M1", phone, acme.lid.account))
    assert "phash" not in (await acme.expect("ack")).attrs
    receipt = await acme.expect("receipt")
    assert (receipt.text("id"), receipt.jid("from"), receipt.text("type")) == ("M1", phone, "")
    # A note to self: the account's own phone has it.
    own = acme.lid.account
    await acme.send(acme.message(own, "M2", own))
    await acme.expect("ack")
    receipt = await acme.expect("receipt")
    assert (receipt.text("id"), receipt.jid("from"), receipt.text("type")) == ("M2", own, "sender")
    # With a linked device it leaves that to it.
    await link(GLOBEX)
    await acme.send(acme.message(phone, "M3", phone, own))
    assert (await acme.expect("ack")).text("phash")
    await acme.send(acme.message(own, "M4", own))
    assert (await acme.expect("receipt")).text("id") == "M4"


async def test_all_that_one_read_brings_is_answered_in_one_piece(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    assert globex.lid is not None
    to = globex.lid.account
    await acme.send(*(acme.message(to, f"M{n}", globex.lid) for n in range(50)))
    assert [(await acme.expect("ack")).text("id") for _ in range(50)] == [
        f"M{n}" for n in range(50)
    ]
    received = [await globex.expect("message") for _ in range(50)]
    assert [node.text("id") for node in received] == [f"M{n}" for n in range(50)]


async def test_a_long_queue_is_handed_over_in_order_as_it_is_acknowledged(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    assert globex.lid is not None
    await globex.close()
    await until(sandbox, lambda: sandbox.stats()["connections"] == 1)
    total = MAX_IN_FLIGHT + 200
    for start in range(0, total, 100):
        await acme.send(
            *(
                acme.message(globex.lid.account, f"M{n}", globex.lid)
                for n in range(start, start + 100)
            )
        )
        for _ in range(100):
            await acme.expect("ack")
    await globex.log_in(active=False)
    await globex.send(Node("iq", {"id": "a", "xmlns": "passive", "type": "set"}, [Node("active")]))
    preview = (await globex.expect("ib")).children[0]
    assert preview.tag == "offline_preview"
    assert (preview.text("count"), preview.text("message")) == (str(total), str(total))
    first = [await globex.expect("message") for _ in range(MAX_IN_FLIGHT)]
    assert all("offline" in node.attrs for node in first)
    # No more than may be in flight: what comes next is the answer to the next question.
    await globex.send(Node("iq", {"id": "ping", "xmlns": "w:p", "type": "get"}))
    assert (await globex.receive()).text("id") == "ping"
    # What comes live now must not overtake.
    await acme.send(acme.message(globex.lid.account, "live", globex.lid))
    await acme.expect("ack")
    received = []
    done = None
    for node in first:
        received.append(node.text("id"))
        await globex.acknowledge(node)
    while len(received) < total + 1:
        node = await globex.receive()
        if node.tag == "message":
            received.append(node.text("id"))
            await globex.acknowledge(node)
        elif node.tag == "ib":
            done = (len(received), node.children[0].text("count"))
    assert received == [*(f"M{n}" for n in range(total)), "live"]
    assert done == (total, str(total))
    await until(
        sandbox,
        lambda: sandbox.stats()["phones"][GLOBEX[1:]]["devices"][0]["waiting"] == 0,
    )


async def test_a_resend_survives_the_late_ack_of_the_copy_before(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    assert globex.lid is not None
    assert acme.lid is not None
    await acme.send(acme.message(globex.lid.account, "M1", globex.lid))
    await globex.expect("message")
    retry = Node("retry", {"id": "M1", "count": "1", "t": "1"})
    await globex.send(Node("receipt", {"id": "M1", "to": acme.lid, "type": "retry"}, [retry]))
    asked = await acme.expect("receipt")
    assert asked.jid("from") == globex.lid
    assert asked.children == [retry]
    enc = Node("enc", {"v": "2", "type": "pkmsg", "count": "1"}, b"again")
    await acme.send(Node("message", {"id": "M1", "to": globex.lid, "type": "text"}, [enc]))
    assert (await globex.expect("message")).children == [enc]
    # Only now the ack of the first copy arrives: the second must stay until its own.
    await globex.send(Node("ack", {"class": "message", "id": "M1", "to": acme.lid}))
    await globex.close()
    await globex.log_in()
    again = await globex.expect("message")
    assert again.children == [enc]
    await globex.acknowledge(again)
    receipt = await acme.expect("receipt")
    assert "type" not in receipt.attrs


async def test_a_reader_that_never_reads_holds_up_nobody(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    assert globex.lid is not None
    assert acme.lid is not None
    # Far more than the kernel buffers, to a client that does not read.
    big = Node("enc", {"v": "2", "type": "msg"}, bytes(100_000))
    for number in range(100):
        node = acme.message(globex.lid.account, f"M{number}", globex.lid)
        node.children[0].children[0].children[0] = big
        await acme.send(node)
        await acme.expect("ack")
    for number in range(100):
        assert (await globex.expect("message")).text("id") == f"M{number}"


async def test_stats_are_plain_values(sandbox: Sandbox, link: LinkClient) -> None:
    acme = await link(ACME)
    assert acme.lid is not None
    await acme.send(acme.message(Jid("15550101", "s.whatsapp.net"), "M1"))
    await acme.expect("ack")
    sandbox.faults.lose_acks(ACME)
    stats = sandbox.stats(messages=True)
    assert [(counts["id"], counts["accepted"]) for counts in stats["messages"]] == [("M1", 1)]
    assert stats["faults"] == {"lose_acks": [{"phone": "15550100", "left": 1}]}
    assert "messages" not in sandbox.stats()
