"""The server against clients that real ones never are: slow, wrong, hostile, or very many messages.

In one process, over real sockets, without neonize.
"""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from wire_client import HEADER, NoiseClient, WireClient, websocket_frame

from whatsappd.errors import InvalidParams, SandboxFailed
from whatsappd.model.jid import Jid, parse_jid
from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.protocol.noise_frames import MAX_FRAME, frame
from whatsappd.sandbox.protocol.stanza_codec import MAX_STANZA
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner
from whatsappd.sandbox.server.device_lists import device_hash
from whatsappd.sandbox.server.fault_control import apply_fault
from whatsappd.sandbox.server.messages import MAX_ID
from whatsappd.sandbox.server.prekeys import FIRST_COUNT, LOW_COUNT
from whatsappd.sandbox.server.sandbox import Sandbox
from whatsappd.sandbox.state.database import SandboxDatabase
from whatsappd.sandbox.state.registry import AccountRegistry
from whatsappd.sandbox.state.switchboard import MAX_IN_FLIGHT

ACME = "+15550100"
GLOBEX = "+15550101"
UPGRADE = (
    b"GET /ws/chat HTTP/1.1\r\nHost: x\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: abc\r\n\r\n"
)

Linker = Callable[..., Awaitable[WireClient]]


@pytest.fixture
async def sandbox(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Sandbox]:
    running = Sandbox(tmp_path)
    await nursery.start(running.serve)
    yield running
    assert running.stats()["defects"] == 0


@pytest.fixture
async def new(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Callable[[], WireClient]]:
    """Makes clients, which are closed in the end."""
    clients = []

    def new() -> WireClient:
        clients.append(WireClient(sandbox.info().port, tmp_path))
        return clients[-1]

    yield new
    for client in clients:
        await client.close()


@pytest.fixture
def link(sandbox: Sandbox, new: Callable[[], WireClient]) -> Linker:
    """Makes a client that is linked to a phone and logged in."""

    async def link(phone: str) -> WireClient:
        return await (await new().pair(sandbox, phone)).log_in()

    return link


async def until(sandbox: Sandbox, condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        await sandbox.wait_until(condition)


async def closed(stream: trio.abc.ReceiveStream) -> None:
    """Return when the server has closed a connection, politely or not."""
    with trio.fail_after(10), suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


# --- the port ---------------------------------------------------------------------------------


async def test_every_way_in_leads_to_the_websocket(sandbox: Sandbox, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=sandbox.info().ca_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    request = UPGRADE.replace(b"/ws/chat", b"/ws/chat?ED=abc")
    socks = [
        b"\5\1\0",
        b"\5\1\0\3\x10web.whatsapp.com\1\xbb",
    ]
    connect = [b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"]
    for proxy in ([], connect, socks):
        for tls in (True, False):
            stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", sandbox.info().port)
            for greeting in proxy:
                await stream.send_all(greeting)
                assert await stream.receive_some()
            if tls:
                stream = trio.SSLStream(stream, context, server_hostname="web.whatsapp.com")
            # In small pieces: nothing may depend on how the stream is cut.
            for start in range(0, len(request), 20):
                await stream.send_all(request[start : start + 20])
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            await stream.aclose() if not tls else await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0",
        b"\x05\xff",
        b"\5\1\0\5\2\0\1\1\2\3\4\0\1",
        b"\x16\x03\x01\x00\x05hello",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ws/chat HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET " + b"x" * 20_000,
        b"CONNECT x SPDY\r\n\r\n",
        UPGRADE + b"\x82\1x",
    ],
    ids=range(9),
)
async def test_garbage_ends_its_own_connection_only(
    sandbox: Sandbox, link: Linker, garbage: bytes
) -> None:
    client = await link(ACME)
    async with await trio.open_tcp_stream("127.0.0.1", sandbox.info().port) as stream:
        await stream.send_all(garbage)
        await stream.send_eof()
        await closed(stream)
    await until(sandbox, lambda: sandbox.stats()["connections"] == 1)
    assert (await client.request("w:p", "get")).text("type") == "result"


@pytest.mark.parametrize("payload", [b"", b"\xff", protobuf.encode({33: 1})])
async def test_a_payload_that_is_neither_login_nor_registration(
    sandbox: Sandbox, new: Callable[[], WireClient], payload: bytes
) -> None:
    client = new()
    await client.connect(payload)
    with pytest.raises((EOFError, trio.BrokenResourceError)):
        await client.receive()
    await until(sandbox, lambda: sandbox.stats()["connections"] == 0)
    assert sandbox.stats()["violations"] == 1


async def test_frames_that_do_not_decrypt_end_the_connection(
    sandbox: Sandbox, link: Linker
) -> None:
    client = await link(ACME)
    await client._stream.send_all(websocket_frame(frame(os.urandom(40))))
    with pytest.raises(EOFError):
        await client.expect("nothing")
    assert "does not decrypt" in sandbox.stats()["last_violation"]


@pytest.mark.parametrize(
    "stanza",
    [b"\x02" + zlib.compress(bytes(MAX_STANZA + 1)), bytes(MAX_FRAME)],
    ids=["inflated", "plain"],
)
async def test_what_is_too_large_ends_its_connection_only(
    sandbox: Sandbox, link: Linker, stanza: bytes
) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    with suppress(trio.BrokenResourceError):  # it hangs up before it has read all of it
        await acme.send_encoded(stanza)
    await until(sandbox, lambda: sandbox.stats()["connections"] == 1)
    assert "exceeds" in sandbox.stats()["last_violation"]
    assert (await globex.request("w:p", "get")).text("type") == "result"
    await acme.close()
    await acme.log_in()
    assert (await acme.request("w:p", "get")).text("type") == "result"


async def test_two_groups_have_two_ids(
    sandbox: Sandbox, link: Linker, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await link(ACME)
    numbers = iter((7, 7, 8))
    monkeypatch.setattr("random.randrange", lambda _: next(numbers))
    made = [
        (await acme.request("w:g2", "set", Node("create", {"subject": "s"}))).children[0].text("id")
        for _ in range(2)
    ]
    assert made == ["120363000000000007", "120363000000000008"]


async def test_a_message_id_has_a_longest(sandbox: Sandbox, link: Linker) -> None:
    acme = await link(ACME)
    await acme.send(acme.message(Jid("15550199", "s.whatsapp.net"), "M" * MAX_ID))
    assert (await acme.expect("ack")).text("id") == "M" * MAX_ID
    await acme.send(acme.message(Jid("15550199", "s.whatsapp.net"), "M" * (MAX_ID + 1)))
    with pytest.raises(EOFError):
        await acme.expect("ack")


async def test_words_of_any_length_leave_the_figures_short(sandbox: Sandbox, link: Linker) -> None:
    acme, globex = await link(ACME), await link(GLOBEX)
    await acme.send(Node("x" * 1_000_000))
    await acme.request("y" * 1_000_000, "get")
    await acme.send(Node("presence", {"type": "available", "name": "n" * 1_000_000}))
    tag = b"\xfe" + (100_000).to_bytes(4, "big") + b"z" * 100_000
    await acme.send_encoded(b"\0\xf8\3" + tag + b"\xfa\0\3\3")  # an attribute named by a JID
    await until(sandbox, lambda: sandbox.stats()["connections"] == 1)
    assert sandbox.stats()["last_violation"].startswith("an attribute of <zzz")
    assert len(repr(sandbox.stats())) < 5000
    assert (await globex.request("w:p", "get")).text("type") == "result"


async def test_a_code_can_be_scanned_once_and_not_for_ever(
    sandbox: Sandbox, new: Callable[[], WireClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new()
    qr = await client.offer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sandbox.scan, qr, ACME)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(SandboxFailed, match="scanned before"):
            await sandbox.scan(qr, ACME)
        await client.confirm()
    monkeypatch.setattr("whatsappd.sandbox.phones.pairing._FIRST_SECONDS", -10)
    with pytest.raises(SandboxFailed, match="expired"):
        await sandbox.scan(await new().offer(), ACME)


async def test_a_client_that_does_not_confirm_is_not_linked(
    sandbox: Sandbox, new: Callable[[], WireClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatsappd.sandbox.phones.pairing.CONFIRM_DEADLINE", 0.05)
    qr = await new().offer()
    with pytest.raises(SandboxFailed, match="did not confirm"):
        await sandbox.scan(qr, ACME)
    assert sandbox.stats()["phones"][ACME[1:]]["devices"] == []


async def test_a_client_that_confirms_with_another_key_is_not_linked(
    sandbox: Sandbox, new: Callable[[], WireClient]
) -> None:
    client = new()
    qr = await client.offer()
    client.identity = XEdDsaSigner()

    async def confirm_wrongly() -> None:
        with pytest.raises(EOFError):
            await client.confirm()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(confirm_wrongly)
        with pytest.raises(SandboxFailed, match="signature of its identity is wrong"):
            await sandbox.scan(qr, ACME)
    assert sandbox.stats()["phones"][ACME[1:]]["devices"] == []


async def test_a_scan_that_is_cancelled_still_links_a_client_that_confirms(
    sandbox: Sandbox, new: Callable[[], WireClient]
) -> None:
    client = new()
    qr = await client.offer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sandbox.scan, qr, ACME)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await client.confirm()
    await client.close()
    await client.log_in()


async def test_a_login_with_another_noise_key_is_refused(
    link: Linker, new: Callable[[], WireClient]
) -> None:
    linked = await link(ACME)
    thief = new()
    thief.jid = linked.jid
    await thief.connect(thief.login_payload())
    assert (await thief.receive()).text("reason") == "401"
    assert (await linked.request("w:p", "get")).text("type") == "result"


async def test_a_handshake_that_stops_is_ended(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatsappd.sandbox.server.connection.OPENING_DEADLINE", 0.05)
    async with await trio.open_tcp_stream("127.0.0.1", sandbox.info().port) as stream:
        await stream.send_all(UPGRADE + websocket_frame(HEADER + frame(NoiseClient().hello())))
        await closed(stream)


# --- requests ---------------------------------------------------------------------------------


async def test_unknown_requests_are_answered_and_counted(sandbox: Sandbox, link: Linker) -> None:
    client = await link(ACME)
    for namespace in ("w:unheard", "w:g2"):
        answer = await client.request(namespace, "get", Node("thing"))
        error = answer.child("error")
        assert answer.text("type") == "error"
        assert error is not None
        assert error.attrs == {"code": "501", "text": "feature-not-implemented"}
    assert sandbox.stats()["unknown"] == {"w:unheard get <thing>": 1}


async def test_pings_can_be_muted(sandbox: Sandbox, link: Linker) -> None:
    client = await link(ACME)
    sandbox.faults.mute_pings(ACME, seconds=60)
    await client.send(Node("iq", {"id": "muted", "xmlns": "w:p", "type": "get"}))
    assert (await client.request("privacy", "get")).child("privacy") is not None
    assert sandbox.stats()["pings_muted"] == 1
    sandbox.faults.clear()
    assert (await client.request("w:p", "get")).text("type") == "result"


async def test_one_time_keys_are_handed_out_once_and_then_bundles_without(
    sandbox: Sandbox, link: Linker
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


async def test_bundles_of_nobody_and_of_a_phone(sandbox: Sandbox, link: Linker) -> None:
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
    sandbox: Sandbox, link: Linker, node: Node
) -> None:
    client = await link(ACME)
    await client.send(node)
    with pytest.raises(EOFError):
        await client.expect("nothing")
    assert sandbox.stats()["violations"] == 1


# --- messages ---------------------------------------------------------------------------------


async def test_a_stale_device_list_is_answered_with_the_right_hash(
    sandbox: Sandbox, link: Linker
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
    sandbox: Sandbox, link: Linker
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


async def test_a_phone_without_linked_devices_says_that_a_message_arrived(
    sandbox: Sandbox, link: Linker
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


async def test_what_is_sent_takes_its_time_and_keeps_its_order(
    sandbox: Sandbox, link: Linker
) -> None:
    acme = await link(ACME)
    sandbox.fault("latency", seconds=0.2)
    began = trio.current_time()
    await acme.send(*(acme.message(acme.lid.account, f"M{n}") for n in range(3)))
    while sandbox.stats()["accepted"] < 3:  # their acks are on the way
        await trio.sleep(0.005)
    sandbox.fault("latency", seconds=0)
    await acme.send(acme.message(acme.lid.account, "M3"))
    acks = [(await acme.expect("ack")).text("id") for _ in range(4)]
    assert acks == ["M0", "M1", "M2", "M3"]
    # By the client's own clock, which began before the server's.
    assert trio.current_time() - began >= 0.2


def test_a_number_leads_to_an_account_under_another(tmp_path: Path) -> None:
    store = SandboxDatabase(tmp_path / "sandbox.db")
    registry = AccountRegistry(store)
    account = registry.register("557199990000")
    registry.add_alias("5571999990000", account)
    registry.register("15550100")
    with pytest.raises(SandboxFailed, match="an account of its own"):
        registry.add_alias("15550100", account)
    store.close()
    store = SandboxDatabase(tmp_path / "sandbox.db")
    registry = AccountRegistry(store)
    found = registry.by_number("5571999990000")
    assert found is not None
    assert found.phone == "557199990000"
    assert registry.by_phone("5571999990000") is None
    assert registry.by_number("15550199") is None
    store.close()


async def test_all_that_one_read_brings_is_answered_in_one_piece(
    sandbox: Sandbox, link: Linker
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
    sandbox: Sandbox, link: Linker
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
    with trio.move_on_after(0.05):
        await globex.receive()
        raise AssertionError("more than may be in flight")
    globex._received -= 1  # the cancelled attempt took no frame
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
    sandbox: Sandbox, link: Linker
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


async def test_a_reader_that_never_reads_holds_up_nobody(sandbox: Sandbox, link: Linker) -> None:
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


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), -1.0, -5])
async def test_a_fault_needs_a_number_that_is_a_time(
    sandbox: Sandbox, link: Linker, number: float
) -> None:
    acme = await link(ACME)
    for kind in ("freeze", "delay_acks", "mute_pings", "refuse_dials"):
        with pytest.raises(InvalidParams, match=r"^seconds: .* is no number from 0"):
            apply_fault(sandbox.faults, kind, {"seconds": number})
    assert sandbox.stats()["faults"] == {}
    assert (await acme.request("w:p", "get")).text("type") == "result"


async def test_stats_are_plain_values(sandbox: Sandbox, link: Linker) -> None:
    acme = await link(ACME)
    assert acme.lid is not None
    await acme.send(acme.message(Jid("15550101", "s.whatsapp.net"), "M1"))
    await acme.expect("ack")
    sandbox.faults.lose_acks(ACME)
    stats = sandbox.stats(messages=True)
    assert [(fate["id"], fate["accepted"]) for fate in stats["messages"]] == [("M1", 1)]
    assert stats["faults"] == {"lose_acks": [{"phone": "15550100", "left": 1}]}
    assert "messages" not in sandbox.stats()


# --- the store --------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from pathlib import Path
from whatsappd.sandbox.state.database import SandboxDatabase

store = SandboxDatabase(Path(sys.argv[1]))
kept = store.enqueue(1, b"kept")
gone = store.enqueue(1, b"gone")
store.commit()
store.dequeue(gone)
store.enqueue(1, b"also kept")
store.commit()
store.enqueue(1, b"never committed")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(file)], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    store = SandboxDatabase(file)
    assert store.read("SELECT stanza FROM queue ORDER BY seq") == [(b"kept",), (b"also kept",)]
    store.close()
