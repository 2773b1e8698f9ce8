"""The sandbox speaks WhatsApp's protocol to real, unmodified neonize clients.

Every client is a process of its own with real encryption; only the server is ours.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio
from neonize_process import NeonizeProcess

from whatsappd.errors import InvalidParams, SandboxFailed
from whatsappd.sandbox.info_file import SandboxInfo, read_info, write_info
from whatsappd.sandbox.server.sandbox import Sandbox

ACME = "+15550100"
GLOBEX = "+15550101"
ACME_JID = "15550100@s.whatsapp.net"
GLOBEX_JID = "15550101@s.whatsapp.net"

#: Links a client, by its name, to the phone of that number.
LinkClient = Callable[[str, str], Awaitable[NeonizeProcess]]


class StartClient(Protocol):
    """Starts a client on the database of that name; the rest is what it trusts."""

    async def __call__(
        self, name: str, *, ca_file: str | None = None, noise_root: str | None = None
    ) -> NeonizeProcess: ...


@pytest.fixture
async def sandbox(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Sandbox]:
    running = Sandbox(tmp_path / "sandbox")
    await nursery.start(running.serve)
    yield running
    stats = running.stats()
    assert stats["defects"] == 0
    assert stats["violations"] == 0, stats["last_violation"]
    assert stats["unknown"] == {}


@pytest.fixture
async def start(sandbox: Sandbox, tmp_path: Path, nursery: trio.Nursery) -> StartClient:

    async def start(
        name: str, *, ca_file: str | None = None, noise_root: str | None = None
    ) -> NeonizeProcess:
        client = NeonizeProcess(sandbox.info(), tmp_path / f"{name}.db")
        return await client.start(nursery, ca_file=ca_file, noise_root=noise_root)

    return start


@pytest.fixture
def link(sandbox: Sandbox, start: StartClient) -> LinkClient:
    """Starts a client, links it to a phone, and waits until it is connected."""

    async def link(name: str, phone: str) -> NeonizeProcess:
        client = await start(name)
        qr = await client.expect("qr")
        await sandbox.scan(qr["qr"], phone)
        await client.expect("connected")
        return client

    return link


@pytest.fixture
async def acme(link: LinkClient) -> NeonizeProcess:
    """A connected client that is linked to the phone ACME."""
    return await link("acme", ACME)


@pytest.fixture
async def globex(link: LinkClient) -> NeonizeProcess:
    """A connected client that is linked to the phone GLOBEX."""
    return await link("globex", GLOBEX)


async def until(sandbox: Sandbox, condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        await sandbox.wait_until(condition)


def message_counts(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    return {counts["id"]: counts for counts in sandbox.stats(messages=True)["messages"]}


def devices(sandbox: Sandbox, phone: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = sandbox.stats()["phones"][phone.removeprefix("+")]["devices"]
    return listed


# --- pairing and login ------------------------------------------------------------------------


async def test_a_scanned_client_is_linked_and_logs_in_again(
    sandbox: Sandbox, start: StartClient
) -> None:
    client = await start("acme")
    qr = await client.expect("qr")
    linked = await sandbox.scan(qr["qr"], "+1 (555) 01-00")
    assert linked["jid"] == "15550100:1@s.whatsapp.net"
    assert linked["lid"].endswith(":1@lid")
    assert (await client.expect("paired"))["jid"] == linked["jid"]
    await client.expect("connected")
    assert devices(sandbox, ACME) == [
        {"id": 1, "jid": linked["jid"], "online": True, "waiting": 0, "prekeys": 50}
    ]
    await client.kill_and_wait()

    again = await start("acme")
    await again.expect("connected")
    assert not again.has("qr")
    assert sandbox.stats()["logins"] == 2


async def test_codes_that_cannot_be_scanned_are_refused_with_the_reason(
    sandbox: Sandbox, start: StartClient
) -> None:
    client = await start("acme")
    qr = (await client.expect("qr"))["qr"]
    with pytest.raises(SandboxFailed, match="not the QR code"):
        await sandbox.scan("https://example.com", ACME)
    with pytest.raises(InvalidParams, match="phone"):
        await sandbox.scan(qr, "nobody")
    reference, _, rest = qr.partition(",")
    with pytest.raises(SandboxFailed, match="no client"):
        await sandbox.scan(f"{reference}x,{rest}", ACME)
    noise, identity, secret, kind = rest.split(",")
    with pytest.raises(SandboxFailed, match="keys are not those"):
        await sandbox.scan(",".join((reference, identity, noise, secret, kind)), ACME)
    # A code with another secret reaches the client, which refuses.
    with pytest.raises(SandboxFailed, match="refused to be linked: 401 hmac-mismatch"):
        await sandbox.scan(",".join((reference, noise, identity, identity, kind)), ACME)
    assert devices(sandbox, ACME) == []

    other = await start("other")
    qr = (await other.expect("qr"))["qr"]
    other.kill()
    await until(sandbox, lambda: sandbox.stats()["connections"] <= 1)
    with pytest.raises(SandboxFailed, match="gone"):
        await sandbox.scan(qr, ACME)


async def test_a_phone_links_four_devices_and_no_fifth(sandbox: Sandbox, link: LinkClient) -> None:
    for number in range(4):
        await link(f"device{number}", ACME)
    fifth = link("fifth", ACME)
    with pytest.raises(SandboxFailed, match="unlink one first"):
        await fifth
    assert [device["id"] for device in devices(sandbox, ACME)] == [1, 2, 3, 4]


async def test_without_the_ca_the_client_refuses(start: StartClient, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    client = await start("acme", ca_file=str(tmp_path / "empty.pem"))
    assert "x509" in (await client.expect("connect_failed"))["error"]


async def test_without_the_root_key_the_client_refuses(start: StartClient) -> None:
    client = await start("acme", noise_root="-")
    error = (await client.expect("connect_failed"))["error"]
    assert "failed to verify intermediate cert signature" in error


# --- messages ---------------------------------------------------------------------------------


async def test_messages_both_ways_with_receipts(sandbox: Sandbox, link: LinkClient) -> None:
    sandbox.register(ACME, "Acme Ltd")
    acme, globex = await link("acme", ACME), await link("globex", GLOBEX)
    await globex.do("receipts")
    sent = await acme.send(GLOBEX_JID, "good morning ☀")
    message = await globex.expect("message")
    assert message["text"] == "good morning ☀"
    assert message["id"] == sent
    assert message["name"] == "Acme Ltd"
    assert message["sender_alt"] == "15550100:1@s.whatsapp.net"
    assert message["chat"].endswith("@lid")
    await acme.expect("receipt", ids=[sent])

    answer = await globex.send(ACME_JID, "good evening")
    assert (await acme.expect("message", id=answer))["text"] == "good evening"
    for _ in range(5):
        await acme.send(GLOBEX_JID, "more")
    await until(sandbox, lambda: message_counts(sandbox)[sent]["receipts"] == {"": 1})
    for counts in message_counts(sandbox).values():
        assert (counts["accepted"], counts["forwarded"], counts["acks"]) == (1, 1, 1)


async def test_numbers_that_are_on_whatsapp(sandbox: Sandbox, acme: NeonizeProcess) -> None:
    sandbox.register(GLOBEX)
    found = await acme.do("on_whatsapp", phones=["15550101", "15550199"])
    assert found["in"] == {"15550101": True, "15550199": False}
    # A phone without linked devices takes messages, and says nothing.
    await acme.send(GLOBEX_JID, "are you there?")
    assert "no LID found" in await acme.fail("send", to="15550199@s.whatsapp.net", text="hello?")


async def test_a_recipient_who_was_away_gets_everything_in_order(
    sandbox: Sandbox, start: StartClient, acme: NeonizeProcess, globex: NeonizeProcess
) -> None:
    await globex.kill_and_wait()
    await until(sandbox, lambda: not devices(sandbox, GLOBEX)[0]["online"])
    texts = [f"message {number}" for number in range(20)]
    sent = [await acme.send(GLOBEX_JID, text) for text in texts]
    assert devices(sandbox, GLOBEX)[0]["waiting"] == 20
    await acme.kill_and_wait()
    await until(sandbox, lambda: not devices(sandbox, ACME)[0]["online"])

    globex = await start("globex")
    await globex.expect("offline_done", count=20)
    received = [(await globex.expect("message"))["text"] for _ in texts]
    assert received == texts
    # Now the sender is away: its receipts wait, too.
    await until(sandbox, lambda: devices(sandbox, GLOBEX)[0]["waiting"] == 0)
    acme = await start("acme")
    for message_id in sent:
        await acme.expect("receipt", ids=[message_id])
    await until(sandbox, lambda: devices(sandbox, ACME)[0]["waiting"] == 0)


async def test_crossing_first_messages_both_arrive(
    acme: NeonizeProcess, globex: NeonizeProcess
) -> None:
    # Each begins a session of its own, and the two may exclude each other: then one is resent.
    # Only the first messages: later ones that cross may get lost within whatsmeow, which encrypts
    # and decrypts with the same session without a lock.
    first = await acme.begin("send", to=GLOBEX_JID, text="from acme")
    second = await globex.begin("send", to=ACME_JID, text="from globex")
    await acme.end(first)
    await globex.end(second)
    await acme.expect("message", text="from globex")
    await globex.expect("message", text="from acme")


async def test_a_message_that_cannot_be_read_is_resent(
    sandbox: Sandbox,
    start: StartClient,
    tmp_path: Path,
    acme: NeonizeProcess,
    globex: NeonizeProcess,
) -> None:
    await acme.send(GLOBEX_JID, "readable")
    answer = await globex.send(ACME_JID, "so is this")
    await acme.expect("message", id=answer)
    await globex.kill_and_wait()
    with closing(sqlite3.connect(tmp_path / "globex.db")) as database, database:
        database.execute("DELETE FROM whatsmeow_sessions")
    globex = await start("globex")
    await globex.expect("connected")
    sent = await acme.send(GLOBEX_JID, "at first unreadable")
    await globex.expect("undecryptable")
    await globex.expect("message", id=sent, text="at first unreadable")
    assert sandbox.stats()["retries"] >= 1
    await until(sandbox, lambda: devices(sandbox, GLOBEX)[0]["waiting"] == 0)


async def test_all_devices_of_both_sides_see_a_message(sandbox: Sandbox, link: LinkClient) -> None:
    acme, office = await link("acme", ACME), await link("office", ACME)
    globex = await link("globex", GLOBEX)
    sent = await acme.send(GLOBEX_JID, "one")
    await globex.expect("message", id=sent, text="one", from_me=False)
    copy = await office.expect("message", id=sent, text="one", from_me=True)
    assert copy["chat"].endswith("@lid")
    # A device that is linked later is written to as well: the clients are told of it.
    branch = await link("branch", GLOBEX)
    sent = await acme.send(GLOBEX_JID, "two")
    for client in (globex, branch):
        await client.expect("message", id=sent, text="two")
    answer = await branch.send(ACME_JID, "three")
    for client, mine in ((acme, False), (office, False), (globex, True)):
        await client.expect("message", id=answer, text="three", from_me=mine)
    assert message_counts(sandbox)[answer]["forwarded"] == 3
    # And one that was unlinked no more.
    sandbox.unlink(GLOBEX, 2)
    await branch.expect("logged_out")
    sent = await acme.send(GLOBEX_JID, "four")
    await globex.expect("message", id=sent, text="four")
    assert message_counts(sandbox)[sent]["forwarded"] == 2


async def test_groups(
    sandbox: Sandbox, link: LinkClient, acme: NeonizeProcess, globex: NeonizeProcess
) -> None:
    office = await link("office", ACME)
    group = (await acme.do("create_group", name="Both", members=[GLOBEX_JID]))["jid"]
    await globex.expect("joined_group")
    await office.expect("joined_group")
    for text, sender, others in (
        ("hello all", acme, (office, globex)),
        ("and again", acme, (office, globex)),
        ("hello back", globex, (acme, office)),
    ):
        sent = await sender.send(group, text)
        for other in others:
            message = await other.expect("message", id=sent, text=text)
            assert message["chat"] == group
            assert message["sender"].endswith("@lid")
            assert message["sender_alt"].endswith("@s.whatsapp.net")
        await sender.expect("receipt", ids=[sent])
    stranger = await link("stranger", "+15550102")
    assert "not participating" in await stranger.fail("send", to=group, text="let me in")


# --- restarts of the sandbox ------------------------------------------------------------------


async def test_a_restarted_sandbox_is_the_same_one(tmp_path: Path) -> None:
    directory = tmp_path / "sandbox"
    async with trio.open_nursery() as nursery:
        clients = {}
        async with trio.open_nursery() as serving:
            sandbox = Sandbox(directory)
            info = await serving.start(sandbox.serve)
            for name, phone in (("acme", ACME), ("globex", GLOBEX)):
                client = NeonizeProcess(info, tmp_path / f"{name}.db")
                clients[name] = await client.start(nursery)
                await sandbox.scan((await client.expect("qr"))["qr"], phone)
                await client.expect("connected")
            await clients["globex"].kill_and_wait()
            await until(sandbox, lambda: not devices(sandbox, GLOBEX)[0]["online"])
            await clients["acme"].send(GLOBEX_JID, "kept")
            serving.cancel_scope.cancel()
        await clients["acme"].expect("disconnected")

        sandbox = Sandbox(directory)
        assert await nursery.start(sandbox.serve) == info
        await clients["acme"].expect("connected")
        globex = await clients["globex"].start(nursery)
        await globex.expect("message", text="kept")
        nursery.cancel_scope.cancel()


async def test_one_sandbox_per_directory_and_secrets_are_private(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with pytest.raises(SandboxFailed, match="another sandbox"):
        await Sandbox(tmp_path / "sandbox").serve()
    assert stat.S_IMODE((tmp_path / "sandbox").stat().st_mode) == 0o700
    for file in (tmp_path / "sandbox").iterdir():
        public = file.name == "ca.pem" or file.name.startswith("dictionary-")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 or public, file
    with pytest.raises(ValueError, match="loopback"):
        Sandbox(tmp_path, host="0.0.0.0")


def test_info_files_are_read_as_written_and_complain_clearly(tmp_path: Path) -> None:
    info = SandboxInfo("127.0.0.1", 4000, "/ca.pem", "ab" * 32, "/control.sock")
    write_info(tmp_path / "info.json", info)
    assert read_info(tmp_path / "info.json") == info
    with pytest.raises(SandboxFailed, match="whatsappd sandbox --info"):
        read_info(tmp_path / "missing.json")
    for text in ("", "[]", "{}", '{"host": "x", "port": "y"}'):
        (tmp_path / "info.json").write_text(text)
        with pytest.raises(SandboxFailed):
            read_info(tmp_path / "info.json")


# --- faults -----------------------------------------------------------------------------------


async def test_a_lost_ack_makes_the_client_resend_and_nothing_arrives_twice(
    sandbox: Sandbox, acme: NeonizeProcess, globex: NeonizeProcess
) -> None:
    assert sandbox.fault("lose_acks", phone=ACME) == {}
    number = await acme.begin("send", to=GLOBEX_JID, text="once")
    message = await globex.expect("message", text="once")
    assert sandbox.fault("drop", phone=ACME) == {"hit": 1}
    sent = await acme.end(number)
    assert sent["id"] == message["id"]
    counts = message_counts(sandbox)[message["id"]]
    assert (counts["accepted"], counts["resent"], counts["acks_withheld"], counts["acks"]) == (
        1,
        1,
        1,
        1,
    )
    await acme.send(GLOBEX_JID, "next")
    await globex.expect("message", text="next")
    assert globex.texts() == []


async def test_a_refused_message_fails_with_the_number(
    sandbox: Sandbox, acme: NeonizeProcess, globex: NeonizeProcess
) -> None:
    sandbox.faults.nack_sends(ACME, error=463)
    assert "463" in await acme.fail("send", to=GLOBEX_JID, text="refused")
    await acme.send(GLOBEX_JID, "accepted")
    await globex.expect("message")
    assert globex.texts() == []


async def test_a_late_ack(sandbox: Sandbox, acme: NeonizeProcess, globex: NeonizeProcess) -> None:
    sandbox.faults.delay_acks(ACME, seconds=0.5)
    began = trio.current_time()
    number = await acme.begin("send", to=GLOBEX_JID, text="slow")
    await globex.expect("message")
    await acme.end(number)
    assert trio.current_time() - began >= 0.5


async def test_a_dropped_connection_comes_back(sandbox: Sandbox, acme: NeonizeProcess) -> None:
    assert sandbox.faults.drop(ACME) == 1
    await acme.expect("disconnected")
    await acme.expect("connected")


async def test_a_frozen_connection_is_cut_and_loses_nothing(
    sandbox: Sandbox, acme: NeonizeProcess, globex: NeonizeProcess
) -> None:
    await acme.send(GLOBEX_JID, "before")
    sandbox.faults.freeze(GLOBEX, seconds=0.5)
    await acme.send(GLOBEX_JID, "during")
    await globex.expect("disconnected")
    await globex.expect("connected")
    await globex.expect("message", text="during")

    sandbox.faults.freeze(GLOBEX, seconds=0.3, cut=False)
    await acme.send(GLOBEX_JID, "held back")
    await globex.expect("message", text="held back")
    assert not globex.has("disconnected")


@pytest.mark.parametrize("mode", ["close", "503"])
async def test_refused_dials(
    sandbox: Sandbox, start: StartClient, mode: str, acme: NeonizeProcess
) -> None:
    sandbox.faults.refuse_dials(count=1, mode=mode)
    sandbox.faults.drop(ACME)
    await acme.expect("connected")
    assert sandbox.stats()["dials_refused"] == 1
    sandbox.faults.refuse_dials(seconds=60, mode=mode)
    fresh = await start("fresh")
    assert (await fresh.expect("connect_failed"))["error"]
    sandbox.faults.clear()


@pytest.mark.parametrize(
    ("fault", "event"),
    [
        ({"reason": 401}, {"event": "logged_out"}),
        (
            {"reason": 402, "code": 101, "expire": 3600},
            {"event": "temporary_ban", "expire": 3600},
        ),
        ({"reason": 403}, {"event": "logged_out"}),
        ({"reason": 405}, {"event": "client_outdated"}),
        ({"reason": 409, "message": "why"}, {"event": "connect_failure", "message": "why"}),
        # A number that neonize has no name for makes its connect() raise.
        ({"reason": 499}, {"event": "connect_failed"}),
    ],
    ids=lambda value: str(value.get("reason", "")),
)
async def test_a_refused_login(
    sandbox: Sandbox, fault: dict[str, Any], event: dict[str, Any], acme: NeonizeProcess
) -> None:
    sandbox.fault("fail_login", phone=ACME, **fault)
    sandbox.faults.drop(ACME)
    await acme.expect(**event)
    assert not acme.has("connected")
    assert sandbox.stats()["login_failures"] == 1


async def test_a_login_that_is_refused_for_now(sandbox: Sandbox, acme: NeonizeProcess) -> None:
    sandbox.faults.fail_login(ACME, reason=503)
    sandbox.faults.drop(ACME)
    await acme.expect("connected")
    assert sandbox.stats()["login_failures"] == 1


async def test_ends_of_the_stream(sandbox: Sandbox, acme: NeonizeProcess) -> None:
    for code in (503, 515):
        assert sandbox.faults.stream_error(ACME, code=code) == 1
        await acme.expect("connected")
    assert sandbox.faults.replace_stream(ACME) == 1
    await acme.expect("stream_replaced")
    await until(sandbox, lambda: sandbox.stats()["connections"] == 0)


async def test_the_second_login_of_a_device_replaces_the_first(
    sandbox: Sandbox, link: LinkClient, start: StartClient
) -> None:
    first = await link("acme", ACME)
    second = await start("acme")
    await second.expect("connected")
    await first.expect("stream_replaced")
    assert [device["online"] for device in devices(sandbox, ACME)] == [True]


async def test_an_unlinked_device_is_logged_out(
    sandbox: Sandbox, start: StartClient, acme: NeonizeProcess, globex: NeonizeProcess
) -> None:
    assert sandbox.unlink(ACME) == {"unlinked": ["15550100:1@s.whatsapp.net"]}
    await acme.expect("logged_out")
    # The other one is away when it happens, and learns of it at its next login.
    await globex.kill_and_wait()
    sandbox.unlink(GLOBEX)
    globex = await start("globex")
    await globex.expect("logged_out")
    assert (devices(sandbox, ACME), devices(sandbox, GLOBEX)) == ([], [])
    with pytest.raises(SandboxFailed, match="no phone"):
        sandbox.unlink("+15550199")


async def test_a_client_logs_itself_out(sandbox: Sandbox, acme: NeonizeProcess) -> None:
    await acme.do("logout")
    assert devices(sandbox, ACME) == []


async def test_a_refused_pairing(sandbox: Sandbox, start: StartClient) -> None:
    sandbox.faults.refuse_pairing(reason=503)
    client = await start("acme")
    await until(sandbox, lambda: sandbox.stats()["login_failures"] == 1)
    assert not client.has("qr")


@pytest.mark.parametrize(
    ("kind", "arguments", "complaint"),
    [
        ("explode", {}, "no fault 'explode'; there are drop, freeze"),
        ("drop", {"telephone": ACME}, "telephone: drop has no such argument; it has phone"),
        ("drop", {"phone": 5}, "phone: 5 is no text"),
        ("drop", {"phone": "nobody"}, "is no phone number"),
        ("freeze", {"phone": ACME}, "seconds: freeze needs this argument"),
        ("freeze", {"seconds": -1}, "seconds: -1 is no number from 0"),
        ("lose_acks", {"count": True}, "count: True is no whole number"),
        ("refuse_dials", {"mode": "rudely"}, "mode: must be one of close, 503"),
    ],
)
async def test_wrong_faults_are_named(
    sandbox: Sandbox, kind: str, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidParams, match=complaint):
        sandbox.fault(kind, **arguments)


async def test_nothing_works_before_it_runs(tmp_path: Path) -> None:
    stopped = Sandbox(tmp_path)
    for operation in (stopped.info, stopped.stats, partial(stopped.unlink, ACME)):
        with pytest.raises(SandboxFailed, match="not running"):
            operation()
