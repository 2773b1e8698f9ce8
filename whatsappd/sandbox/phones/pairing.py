"""Virtual phones: they scan QR codes, and with that link devices to their account.

The exchange, as whatsmeow's and Baileys' pairing expect it: the server offers references in
`<pair-device>`, the client shows each in a QR code together with its keys, the phone that scanned
one vouches for these keys (`adv`) in `<pair-success>`, the client signs in `<pair-device-sign>`,
and the stream ends with code 515, upon which the client logs in as the new device.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from typing import TYPE_CHECKING, NamedTuple

import trio

from whatsappd.errors import InvalidParams, SandboxFailed
from whatsappd.model.jid import USER_SERVER, parse_recipient
from whatsappd.sandbox.protocol import adv
from whatsappd.sandbox.protocol.stanza import Attrs, Node
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.server.device_lists import announce_link
from whatsappd.sandbox.state.accounts import Account, Device, NewDevice
from whatsappd.sandbox.state.switchboard import SERVER, Switchboard, now

if TYPE_CHECKING:
    from whatsappd.sandbox.server.connection import Connection

_REFERENCES = 6
#: How long the client shows the first code, and each other; some seconds of grace on top.
_FIRST_SECONDS, _NEXT_SECONDS, _GRACE_SECONDS = 60, 20, 5
#: References that are remembered, to tell an expired code from an unknown one.
_MAX_REFERENCES = 6_000
#: Seconds that a client has to confirm. Its part is one database write.
CONFIRM_DEADLINE = 20
#: Ends the stream after pairing: the client must connect again, as the new device.
RESTART_REQUIRED = "515"
_KEY_SIZE = 32


def normalise_phone(text: str) -> str:
    """The digits of an international phone number.

    Raises:
        InvalidParams: it is none.
    """
    jid = parse_recipient(text, field="phone")
    if jid.server != USER_SERVER:
        raise InvalidParams(f"phone: {text!r:.80} is no phone number", field="phone")
    return jid.user


class QrCode(NamedTuple):
    """What a QR code says."""

    reference: str
    noise_key: bytes
    identity: bytes
    secret: bytes


def parse_qr(text: str) -> QrCode:
    """The content of a QR code: `[URL#]reference,noise,identity,secret[,type]`.

    Raises:
        SandboxFailed: it is not the code of a linking device.
    """
    parts = text.strip().rpartition("#")[2].split(",")
    try:
        reference, *rest = parts[:4]
        noise_key, identity, secret = (base64.b64decode(part, validate=True) for part in rest)
    except (ValueError, binascii.Error) as error:
        raise SandboxFailed(
            "that is not the QR code of a device that wants to be linked: pass the whole text"
        ) from error
    if not len(noise_key) == len(identity) == len(secret) == _KEY_SIZE:
        raise SandboxFailed("the QR code is damaged: its keys have the wrong size")
    return QrCode(reference, noise_key, identity, secret)


class Scan(NamedTuple):
    """A phone scanned the code, and waits for the client to confirm."""

    request: str  # the id of <pair-success>
    account: Account
    device_id: int
    identity: adv.PendingIdentity


class Offer:
    """A client that shows QR codes, until a phone scans one or the client goes."""

    def __init__(self, connection: Connection, device: NewDevice) -> None:
        self.connection = connection
        self.device = device
        self.scan: Scan | None = None
        self.answered = trio.Event()
        self.linked: Device | None = None
        self.refusal: str | None = None  # why it cannot be linked (any more)

    def withdraw(self, reason: str) -> None:
        """No scan of its codes will succeed from now on."""
        if self.linked is None:
            self.refusal = self.refusal or reason
        self.answered.set()


def offer(board: Switchboard, connection: Connection, device: NewDevice) -> None:
    """Ask a new client to show QR codes."""
    fault = board.faults.take("refuse_pairing")
    if fault is not None:
        board.statistics.login_failures += 1
        connection.end_stream(Node("failure", {"location": "sandbox", **fault}))
        return
    made = Offer(connection, device)
    connection.offer = made
    nodes = []
    until = time.monotonic() + _FIRST_SECONDS + _GRACE_SECONDS
    for _ in range(_REFERENCES):
        reference = "2@" + base64.b64encode(os.urandom(48)).decode()
        nodes.append(Node("ref", {}, reference.encode()))
        board.references[reference] = (made, until)
        until += _NEXT_SECONDS
    while len(board.references) > _MAX_REFERENCES:
        board.references.popitem(last=False)
    board.send(
        connection,
        Node(
            "iq",
            {"from": SERVER, "type": "set", "id": board.next_id(), "xmlns": "md"},
            [Node("pair-device", {}, nodes)],
        ),
    )


async def scan(board: Switchboard, qr: str, phone: str) -> Device:
    """A phone scans a QR code; returns when the device is linked.

    When cancelled, the client may still confirm and then is linked.

    Raises:
        SandboxFailed: the code is malformed, unknown or expired, the phone has linked all the
            devices it may, or the client did not confirm.
        InvalidParams: `phone` is no phone number.
    """
    number = normalise_phone(phone)
    code = parse_qr(qr)
    found = _find_offer(board, code)
    account = board.registry.register(number)
    if board.faults.take("ask_passkey", account.phone) is not None:
        _ask_for_passkey(board, found)
        board.flush()
        raise SandboxFailed("this account asks for a passkey, and a virtual phone has none")
    _vouch(board, found, account, code)
    board.flush()
    with trio.move_on_after(CONFIRM_DEADLINE):
        await found.answered.wait()
    if found.linked is None:
        found.withdraw(f"the client did not confirm within {CONFIRM_DEADLINE} s")
        assert found.refusal is not None
        raise SandboxFailed(found.refusal)
    return found.linked


def _find_offer(board: Switchboard, code: QrCode) -> Offer:
    found, until = board.references.get(code.reference, (None, 0.0))
    if found is None:
        raise SandboxFailed("no client of this sandbox shows that QR code")
    if found.refusal is not None:
        raise SandboxFailed(found.refusal)
    if found.scan is not None:
        raise SandboxFailed("the QR code has been scanned before: ask for a new one")
    if time.monotonic() > until:
        raise SandboxFailed("the QR code has expired: scan the current one")
    if code.noise_key != found.device.noise_key or code.identity != found.device.identity:
        raise SandboxFailed("the QR code's keys are not those of the client that shows it")
    return found


def _ask_for_passkey(board: Switchboard, found: Offer) -> None:
    """In the place of `<pair-success>`, as whatsmeow (pair-passkey.go) expects it."""
    options = {"challenge": "", "rpId": "whatsapp.com", "allowCredentials": []}
    content = Node("passkey_request_options", {}, json.dumps(options).encode())
    attrs: Attrs = {"from": SERVER, "type": "passkey_prologue_request", "id": board.next_id()}
    board.send(found.connection, Node("notification", {**attrs, "t": now()}, [content]))
    found.withdraw("the account asked for a passkey")


def _vouch(board: Switchboard, found: Offer, account: Account, code: QrCode) -> None:
    device_id = board.registry.reserve_device_id(account)
    identity = adv.vouch(
        account.signer,
        code.identity,
        code.secret,
        raw_id=account.raw_id,
        key_index=device_id,
        now=int(time.time()),
    )
    found.scan = Scan(board.next_id(), account, device_id, identity)
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
    attrs: Attrs = {"from": SERVER, "type": "set", "id": found.scan.request, "t": now()}
    board.send(found.connection, Node("iq", {**attrs, "xmlns": "md"}, [success]))


def confirm(board: Switchboard, found: Offer, node: Node) -> None:
    """A client's answer to `<pair-device>` or `<pair-success>`: an iq result or error.

    Raises:
        ProtocolViolation: it confirms wrongly.
    """
    scanned = found.scan
    if scanned is None or node.text("id") != scanned.request or found.answered.is_set():
        return
    error = node.child("error")
    if node.text("type") != "result" or error is not None:
        reason = f"{error.text('code')} {error.text('text')}" if error else "no reason"
        found.withdraw(f"the client refused to be linked: {reason}")
        return
    sign = node.child("pair-device-sign")
    identity = sign.child("device-identity") if sign else None
    try:
        adv.check_device_signature(scanned.identity, identity.data if identity else b"")
    except ProtocolViolation as violation:
        found.withdraw(str(violation))
        raise
    found.linked = board.registry.link(scanned.account, scanned.device_id, found.device)
    found.answered.set()
    board.statistics.pairings += 1
    announce_link(board, found.linked)
    # The client closes by itself, and only if it read this does it come back.
    last = Node("stream:error", {"code": RESTART_REQUIRED})
    found.connection.end_stream(last, grace=CONFIRM_DEADLINE)
