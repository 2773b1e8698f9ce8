"""Requests: keys, device lists, groups, pings; and faults that were asked for wrongly."""

from __future__ import annotations

import pytest
from wire_client import (
    ACME,
    GLOBEX,
    LinkClient,
    WireClient,
)

from whatsappd.errors import InvalidParams
from whatsappd.model.jid import Jid
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.server.device_lists import device_hash
from whatsappd.sandbox.server.fault_control import apply_fault
from whatsappd.sandbox.server.prekeys import FIRST_COUNT, LOW_COUNT
from whatsappd.sandbox.server.sandbox import Sandbox


async def test_unknown_requests_are_answered_and_counted(
    sandbox: Sandbox, link: LinkClient
) -> None:
    client = await link(ACME)
    for namespace in ("w:unheard", "w:g2"):
        answer = await client.request(namespace, "get", Node("thing"))
        error = answer.child("error")
        assert answer.text("type") == "error"
        assert error is not None
        assert error.attrs == {"code": "501", "text": "feature-not-implemented"}
    assert sandbox.stats()["unknown"] == {"w:unheard get <thing>": 1}


async def test_pings_can_be_muted(sandbox: Sandbox, link: LinkClient) -> None:
    client = await link(ACME)
    sandbox.faults.mute_pings(ACME, seconds=60)
    await client.send(Node("iq", {"id": "muted", "xmlns": "w:p", "type": "get"}))
    assert (await client.request("privacy", "get")).child("privacy") is not None
    assert sandbox.stats()["pings_muted"] == 1
    sandbox.faults.clear()
    assert (await client.request("w:p", "get")).text("type") == "result"


async def test_one_time_keys_are_handed_out_once_and_then_bundles_without(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    count = (await globex.request("encrypt", "get", Node("count"))).child("count")
    assert count is not None
    assert count.text("value") == str(FIRST_COUNT)
    await globex.upload_keys(LOW_COUNT + 2)

    async def fetch() -> bytes | None:
        assert globex.lid is not None
        wanted = Node("key", {}, [Node("user", {"jid": globex.lid})])
        answer = (await acme.request("encrypt", "get", wanted)).child("list")
        assert answer is not None
        [user] = answer.children
        assert user.attrs == {"jid": globex.lid}
        assert [child.tag for child in user.children[:4]] == [
            "registration", "type", "identity", "skey",
        ]  # fmt: skip
        key = user.child("key")
        return key.children[0].data if key else None

    fetched = [await fetch() for _ in range(LOW_COUNT + 4)]
    expected = [number.to_bytes(3, "big") for number in range(1, LOW_COUNT + 3)]
    assert fetched == [*expected, None, None]
    # The device was told when few were left.
    notification = await globex.expect("notification")
    assert notification.text("type") == "encrypt"
    assert notification.children[0].text("value") == str(LOW_COUNT)


async def test_bundles_of_nobody_and_of_a_phone(sandbox: Sandbox, link: LinkClient) -> None:
    client = await link(ACME)
    jids = [Jid("15550199", "s.whatsapp.net", 1), Jid("15550100", "s.whatsapp.net")]
    wanted = Node("key", {}, [Node("user", {"jid": jid}) for jid in jids])
    answer = (await client.request("encrypt", "get", wanted)).child("list")
    assert answer is not None
    nobody, phone = answer.children
    assert nobody.child("error") is not None
    assert phone.child("identity") is not None
    assert phone.child("key") is None


@pytest.mark.parametrize(
    "node",
    [
        Node("message", {"id": "1", "type": "text"}),
        Node("receipt", {"id": "1"}),
        Node("iq", {"id": "1", "xmlns": "encrypt", "type": "set"}, [Node("list", {}, [])]),
    ],
    ids=lambda node: node.tag,
)
async def test_stanzas_that_lack_what_they_need_are_violations(
    sandbox: Sandbox, link: LinkClient, node: Node
) -> None:
    client = await link(ACME)
    await client.send(node)
    with pytest.raises(EOFError):
        await client.expect("nothing")
    assert sandbox.stats()["violations"] == 1


async def asked_devices(client: WireClient, *jids: Jid) -> list[Node]:
    """The `<user>`s of a query for device lists; the server remembers who asked."""
    users = [Node("user", {"jid": jid}) for jid in jids]
    usync = Node(
        "usync",
        {"sid": "1", "mode": "query", "last": "true", "index": "0", "context": "message"},
        [Node("query", {}, [Node("devices", {"version": "2"})]), Node("list", {}, users)],
    )
    listed = (await client.request("usync", "get", usync)).child("usync").child("list")
    return listed.children


async def test_a_device_that_comes_or_goes_is_told_by_number_and_by_lid(
    sandbox: Sandbox, link: LinkClient
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    assert globex.jid is not None
    assert globex.lid is not None
    number, lid = globex.jid.account, globex.lid.account
    for user in await asked_devices(acme, number, lid):
        listed = user.child("devices").child("device-list")
        # The phone itself is device 0.
        assert [device.text("id") for device in listed.children] == ["0", str(globex.jid.device)]
        addressed = user.jid("jid")
        everybody = [addressed, addressed._replace(device=globex.jid.device)]
        assert listed.text("hash") == device_hash(everybody)
    second = await link(GLOBEX)
    assert second.jid is not None
    sandbox.unlink(GLOBEX, second.jid.device)
    for change, devices in (
        ("add", [0, globex.jid.device, second.jid.device]),
        ("remove", [0, globex.jid.device]),
    ):
        by_lid = device_hash(lid._replace(device=device) for device in devices)
        by_number = device_hash(number._replace(device=device) for device in devices)
        told = await acme.expect("notification")
        assert (told.jid("from"), told.attrs.get("lid")) == (lid, None)
        body = told.child(change)
        assert body.text("device_hash") == by_lid
        assert body.child("device").jid("jid") == lid._replace(device=second.jid.device)
        told = await acme.expect("notification")
        assert (told.jid("from"), told.jid("lid")) == (number, lid)
        body = told.child(change)
        assert (body.text("device_hash"), body.text("device_lid_hash")) == (by_number, by_lid)
        changed = body.child("device")
        assert changed.jid("jid") == number._replace(device=second.jid.device)
        assert changed.jid("lid") == lid._replace(device=second.jid.device)


async def test_two_groups_have_two_ids(
    sandbox: Sandbox, link: LinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await link(ACME)
    numbers = iter((7, 7, 8))
    monkeypatch.setattr("random.randrange", lambda _: next(numbers))
    made = [
        (await acme.request("w:g2", "set", Node("create", {"subject": "s"}))).children[0].text("id")
        for _ in range(2)
    ]
    assert made == ["120363000000000007", "120363000000000008"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), -1.0, -5])
async def test_a_fault_needs_a_number_that_is_a_time(
    sandbox: Sandbox, link: LinkClient, number: float
) -> None:
    acme = await link(ACME)
    for kind in ("freeze", "delay_acks", "mute_pings", "refuse_dials"):
        with pytest.raises(InvalidParams, match=r"^seconds: .* is no number from 0"):
            apply_fault(sandbox.faults, kind, {"seconds": number})
    assert sandbox.stats()["faults"] == {}
    assert (await acme.request("w:p", "get")).text("type") == "result"
