"""Pairing: a client shows QR codes, a virtual phone scans one, and the client is linked to it.

    server -> client   <iq type=set xmlns=md><pair-device><ref>…</ref> (six)       `offer_pairing`
    client             shows each reference in turn in a QR code, with its keys
    phone              scans a code, and signs the keys in it                      `scan`
    server -> client   <iq type=set><pair-success><device-identity/><device/><platform/>
    client -> server   <iq type=result><pair-device-sign><device-identity/>        `confirm`
    server -> client   <stream:error code=515>: connect again, as the new device

The client answers `<pair-device>` with a result, too, which says nothing. What is signed is in
`protocol.adv`. whatsmeow: pair.go.
"""

from __future__ import annotations

import base64
import json
import os
import time

import trio

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.phones.qr_code import LinkingQrCode, normalise_phone, parse_qr_code
from whatsappd.sandbox.protocol import adv
from whatsappd.sandbox.protocol.node import SERVER, Attrs, Node, timestamp
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.state.accounts import DeviceRegistration, LinkedDevice, SandboxAccount
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.pairing_offers import PairingOffer, PairingScan
from whatsappd.sandbox.state.switchboard import Switchboard

_REFERENCES = 6
#: Seconds that whatsmeow shows the first code, and each later one, and a few more for slow scans.
_FIRST_SECONDS, _NEXT_SECONDS, _GRACE_SECONDS = 60, 20, 5
#: Seconds that a client has to confirm. All that it has to do is one write to its database.
CONFIRM_DEADLINE = 20
#: Ends the stream after pairing: the client must connect again, as the new device.
RESTART_REQUIRED = "515"


def offer_pairing(board: Switchboard, client: ConnectedClient, device: DeviceRegistration) -> None:
    """Ask a client without an account to show QR codes; the fault `refuse_pairing` strikes here."""
    fault = board.faults.take("refuse_pairing")
    if fault is not None:
        board.statistics.login_failures += 1
        board.end_stream(client, Node("failure", {"location": "sandbox", **fault}))
        return
    references = {}
    valid_seconds = _FIRST_SECONDS + _GRACE_SECONDS
    for _ in range(_REFERENCES):
        references["2@" + base64.b64encode(os.urandom(48)).decode()] = valid_seconds
        valid_seconds += _NEXT_SECONDS
    board.offers.add(PairingOffer(client, device), references)
    refs = [Node("ref", {}, reference.encode()) for reference in references]
    attrs: Attrs = {"from": SERVER, "type": "set", "id": board.next_id(), "xmlns": "md"}
    board.send(client, Node("iq", attrs, [Node("pair-device", {}, refs)]))


async def scan(board: Switchboard, qr: str, phone: str) -> LinkedDevice:
    """Let a phone scan a QR code; returns when the device is linked.

    If it is cancelled, the client may still confirm, and then is linked.

    Raises:
        SandboxFailed: the code is malformed, unknown or expired, the phone has linked all the
            devices it may, or the client did not confirm.
        InvalidParams: `phone` is no phone number.
    """
    number = normalise_phone(phone)
    code = parse_qr_code(qr)
    offer = _find_offer(board, code)
    account = board.registry.register(number)
    if board.faults.take("ask_passkey", account.phone) is not None:
        _ask_for_passkey(board, offer)
        board.flush()
        raise SandboxFailed("this account asks for a passkey, and a virtual phone has none")
    _vouch(board, offer, account, code)
    board.flush()
    with trio.move_on_after(CONFIRM_DEADLINE):
        await offer.answered.wait()
    if offer.linked is None:
        offer.withdraw(f"the client did not confirm within {CONFIRM_DEADLINE} s")
        assert offer.refusal is not None
        raise SandboxFailed(offer.refusal)
    return offer.linked


def _find_offer(board: Switchboard, code: LinkingQrCode) -> PairingOffer:
    found = board.offers.find(code.reference)
    if found is None:
        raise SandboxFailed("no client of this sandbox shows that QR code")
    offer, has_expired = found
    if offer.refusal is not None:
        raise SandboxFailed(offer.refusal)
    if offer.scan is not None:
        raise SandboxFailed("the QR code has been scanned before: ask for a new one")
    if has_expired:
        raise SandboxFailed("the QR code has expired: scan the current one")
    if code.noise_key != offer.device.noise_key or code.identity != offer.device.identity:
        raise SandboxFailed("the QR code's keys are not those of the client that shows it")
    return offer


def _ask_for_passkey(board: Switchboard, offer: PairingOffer) -> None:
    """Send what comes in the place of `<pair-success>` (whatsmeow: pair-passkey.go)."""
    options = {"challenge": "", "rpId": "whatsapp.com", "allowCredentials": []}
    content = Node("passkey_request_options", {}, json.dumps(options).encode())
    attrs: Attrs = {"from": SERVER, "type": "passkey_prologue_request", "id": board.next_id()}
    board.send(offer.client, Node("notification", {**attrs, "t": timestamp()}, [content]))
    offer.withdraw("the account asked for a passkey")


def _vouch(
    board: Switchboard, offer: PairingOffer, account: SandboxAccount, code: LinkingQrCode
) -> None:
    """Sign the client's keys as its phone, and send `<pair-success>`."""
    device_id = board.registry.reserve_device_id(account)
    identity = adv.vouch(
        account.signer,
        code.identity,
        code.secret,
        raw_id=account.raw_id,
        key_index=device_id,
        now=int(time.time()),
    )
    offer.scan = PairingScan(board.next_id(), account, device_id, identity)
    jid = account.jid._replace(device=device_id)
    lid = account.lid._replace(device=device_id)
    success = Node(
        "pair-success",
        {},
        [
            Node("device-identity", {}, identity.container),
            Node("device", {"jid": jid, "lid": lid}),
            Node("platform", {"name": "android"}),
        ],
    )
    attrs: Attrs = {"from": SERVER, "type": "set", "id": offer.scan.request, "t": timestamp()}
    board.send(offer.client, Node("iq", {**attrs, "xmlns": "md"}, [success]))


def confirm(board: Switchboard, offer: PairingOffer, node: Node) -> LinkedDevice | None:
    """Take a client's answer, an `<iq>` of type result or error, to one of the server's requests.

    Returns the device if it is linked now; its stream has been ended, and the caller tells other
    clients of it. None: the answer was to another request, or the client refused.

    Raises:
        ProtocolViolation: what it signed, or with which key, is wrong.
    """
    scanned = offer.scan
    if scanned is None or node.text("id") != scanned.request or offer.answered.is_set():
        return None
    error = node.child("error")
    if node.text("type") != "result" or error is not None:
        reason = f"{error.text('code')} {error.text('text')}" if error else "no reason"
        offer.withdraw(f"the client refused to be linked: {reason}")
        return None
    sign = node.child("pair-device-sign")
    identity = sign.child("device-identity") if sign else None
    try:
        adv.check_device_signature(scanned.identity, identity.data if identity else b"")
    except ProtocolViolation as violation:
        offer.withdraw(str(violation))
        raise
    offer.linked = board.registry.link(scanned.account, scanned.device_id, offer.device)
    offer.answered.set()
    board.statistics.pairings += 1
    # The client closes by itself; it comes back only if it has read this stanza.
    last = Node("stream:error", {"code": RESTART_REQUIRED})
    board.end_stream(offer.client, last, grace=CONFIRM_DEADLINE)
    return offer.linked
