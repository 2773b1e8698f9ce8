"""Linking a client by its QR code, and logging in, as nobody does by accident."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from wire_client import ACME, LinkClient, NewClient

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner
from whatsappd.sandbox.server.sandbox import Sandbox


async def test_a_code_can_be_scanned_once_and_not_for_ever(
    sandbox: Sandbox, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_client()
    qr = await client.offer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sandbox.scan, qr, ACME)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(SandboxFailed, match="scanned before"):
            await sandbox.scan(qr, ACME)
        await client.confirm()
    monkeypatch.setattr("whatsappd.sandbox.phones.pairing._FIRST_SECONDS", -10)
    with pytest.raises(SandboxFailed, match="expired"):
        await sandbox.scan(await new_client().offer(), ACME)


async def test_a_client_that_does_not_confirm_is_not_linked(
    sandbox: Sandbox, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatsappd.sandbox.phones.pairing.CONFIRM_DEADLINE", 0.05)
    qr = await new_client().offer()
    with pytest.raises(SandboxFailed, match="did not confirm"):
        await sandbox.scan(qr, ACME)
    assert sandbox.stats()["phones"][ACME[1:]]["devices"] == []


async def test_a_client_that_confirms_with_another_key_is_not_linked(
    sandbox: Sandbox, new_client: NewClient
) -> None:
    client = new_client()
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
    sandbox: Sandbox, new_client: NewClient
) -> None:
    client = new_client()
    qr = await client.offer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sandbox.scan, qr, ACME)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await client.confirm()
    await client.close()
    await client.log_in()


async def test_a_login_with_another_noise_key_is_refused(
    link: LinkClient, new_client: NewClient
) -> None:
    linked = await link(ACME)
    thief = new_client()
    thief.jid = linked.jid
    await thief.connect(thief.login_payload())
    assert (await thief.receive()).text("reason") == "401"
    assert (await linked.request("w:p", "get")).text("type") == "result"
