"""Somebody who writes to a company of a sandbox without a client of their own: a contact's phone.

The sandbox's server runs in the test's process, so what the contact says goes straight into the
stanzas that the company's real client gets. The contact has Signal keys and encrypts whatever bytes
it is told to: neonize as a sender can only send valid protobuf.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from daemons import PATIENCE, Daemon, running_daemon

from whatsappd.sandbox.info_file import write_info
from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.node import Attrs, Node, timestamp
from whatsappd.sandbox.server.sandbox import Sandbox
from whatsappd.sandbox.state.accounts import LinkedDevice, SandboxAccount
from whatsappd.sandbox.state.switchboard import Switchboard

_CURVE25519 = b"\x05"
_VERSION = b"\x33"  # Signal messages of version 3


class Raw(str):
    """An attribute's value of any bytes, which need be no UTF-8."""

    def __new__(cls, value: bytes) -> Raw:
        return super().__new__(cls, value.decode(errors="surrogateescape"))

    def encode(self, *_: Any, **__: Any) -> bytes:  # type: ignore[override]
        return str.encode(self, "utf-8", "surrogateescape")


def pb(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protobuf message of these fields, which may repeat, in this order."""
    return b"".join(
        protobuf.encode({number: value & (1 << 64) - 1 if isinstance(value, int) else value})
        for number, value in fields
    )


class Contact:
    """A phone of the sandbox that writes to devices of others; answers go nowhere."""

    def __init__(self, board: Switchboard, account: SandboxAccount) -> None:
        self.account = account
        self._board = board
        scalar = hashlib.sha512(account.signer.seed).digest()[:32]
        self._identity = X25519PrivateKey.from_private_bytes(scalar)
        self._sessions: dict[int, _Session] = {}

    def write(
        self, device: LinkedDevice, plaintext: bytes, *, as_it_is: bool = False, **attrs: Any
    ) -> str:
        """Send `plaintext` (a protobuf `Message`, if it is honest); the message's id.

        Args:
            as_it_is: without the padding that WhatsApp puts behind a message.
            attrs: of the stanza, in the place of what is right. None leaves one out.
        """
        session = self._sessions.get(device.row)
        if session is None:
            session = self._sessions[device.row] = _Session(self._board, self._identity, device)
        body = session.encrypt(plaintext if as_it_is else plaintext + b"\x01")
        return self.send(device, [Node("enc", {"v": "2", "type": "pkmsg"}, body)], **attrs)

    def say(self, device: LinkedDevice, text: str, **attrs: Any) -> str:
        """A plain text message."""
        return self.write(device, pb((1, text)), **attrs)

    def send(self, device: LinkedDevice, content: list[Node] | bytes | None, **attrs: Any) -> str:
        """A `<message>` of any content. Keys may have a trailing underscore (`type_`)."""
        message_id = "3A" + os.urandom(9).hex().upper()
        right: Attrs = {
            "from": self.account.lid,
            "sender_pn": self.account.jid,
            "id": message_id,
            "type": "text",
            "t": timestamp(),
            "notify": self.account.shown_name,
        }
        self.stanza(device, Node("message", _changed(right, attrs), content))
        return message_id

    def receipt(self, device: LinkedDevice, *ids: str, **attrs: Any) -> None:
        """A `<receipt>` for messages of the device."""
        listed = [Node("list", {}, [Node("item", {"id": each}) for each in ids[1:]])]
        right: Attrs = {"from": self.account.lid, "id": ids[0], "t": timestamp()}
        self.stanza(
            device, Node("receipt", _changed(right, attrs), listed if len(ids) > 1 else None)
        )

    def stanza(self, device: LinkedDevice, node: Node) -> None:
        """Any stanza. It goes out with the next flush, when the server's turn is over."""
        self._board.deliver(device, node)

    def passing(self, device: LinkedDevice, node: Node) -> None:
        """A stanza that is kept for nobody (presence, typing)."""
        client = self._board.client_of(device)
        assert client is not None
        self._board.send(client, node)


def _changed(right: Attrs, attrs: dict[str, Any]) -> Attrs:
    given = {name.rstrip("_"): value for name, value in attrs.items()}
    given = {"from" if name == "sender" else name: value for name, value in given.items()}
    return {name: value for name, value in {**right, **given}.items() if value is not None}


class _Session:
    """The sending half of a Signal session that its other end never answers (X3DH, one chain)."""

    def __init__(
        self, board: Switchboard, identity: X25519PrivateKey, device: LinkedDevice
    ) -> None:
        prekey = board.registry.take_prekey(device)
        signed = device.signed_prekey
        base, ratchet = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        secret = b"\xff" * 32 + _dh(identity, signed.key) + _dh(base, device.identity)
        secret += _dh(base, signed.key) + (_dh(base, prekey[1]) if prekey else b"")
        root = _hkdf(secret, None, b"WhisperText", 64)[:32]
        self._chain = _hkdf(_dh(ratchet, signed.key), root, b"WhisperRatchet", 64)[32:]
        self._number = 0
        self._ratchet = _CURVE25519 + _public(ratchet)
        self._ours = _CURVE25519 + _public(identity)
        self._theirs = _CURVE25519 + device.identity
        self._head = pb(*([(1, int.from_bytes(prekey[0], "big"))] if prekey else []))
        self._head += pb((2, _CURVE25519 + _public(base)), (3, self._ours))
        self._tail = pb((5, 1234), (6, int.from_bytes(signed.id, "big")))

    def encrypt(self, plaintext: bytes) -> bytes:
        seed = hmac.digest(self._chain, b"\x01", "sha256")
        self._chain = hmac.digest(self._chain, b"\x02", "sha256")
        keys = _hkdf(seed, None, b"WhisperMessageKeys", 80)
        encryptor = Cipher(algorithms.AES(keys[:32]), modes.CBC(keys[64:])).encryptor()
        padding = 16 - len(plaintext) % 16
        ciphertext = encryptor.update(plaintext + bytes([padding]) * padding)
        ciphertext += encryptor.finalize()
        body = _VERSION + pb((1, self._ratchet), (2, self._number), (3, 0), (4, ciphertext))
        self._number += 1
        body += hmac.digest(keys[32:64], self._ours + self._theirs + body, "sha256")[:8]
        return _VERSION + self._head + pb((4, body)) + self._tail


def _hkdf(secret: bytes, salt: bytes | None, info: bytes, size: int) -> bytes:
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    out = piece = b""
    while len(out) < size:
        piece = hmac.digest(key, piece + info + bytes([len(out) // 32 + 1]), "sha256")
        out += piece
    return out[:size]


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _dh(private: X25519PrivateKey, public: bytes) -> bytes:
    return private.exchange(X25519PublicKey.from_public_bytes(public))


class Place:
    """A sandbox in this process, and a daemon of its own that uses it."""

    def __init__(self, sandbox: Sandbox, board: Switchboard, daemon: Daemon) -> None:
        self.sandbox = sandbox
        self.board = board
        self.daemon = daemon

    def contact(self, phone: str, name: str | None = None) -> Contact:
        self.sandbox.register(phone, name)
        account = self.board.registry.by_phone(phone.lstrip("+"))
        assert account is not None
        return Contact(self.board, account)

    def device(self, phone: str) -> LinkedDevice:
        """The linked device of a company's phone."""
        account = self.board.registry.by_phone(phone.lstrip("+"))
        assert account is not None
        return next(iter(account.devices.values()))

    async def link(self, client: Any, events: Any, company: str, phone: str) -> LinkedDevice:
        """Start `company`, and let its phone scan the code; the device that it is linked as."""
        start = len(events.seen)
        await client.call("session.start", company=company)
        shown = await events.of_type(company, "session.qr", start=start)
        with trio.fail_after(PATIENCE):
            await self.sandbox.scan(shown["data"]["qr"], phone)
        await events.state(company, "connected", start=start)
        return self.device(phone)


@asynccontextmanager
async def a_place(*arguments: str) -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="wc-") as name:
        directory = Path(name)
        sandbox = Sandbox(directory / "sandbox")
        async with trio.open_nursery() as nursery:
            info = await nursery.start(sandbox.serve)
            write_info(directory / "info.json", info)
            async with running_daemon(
                "--sandbox-at", str(directory / "info.json"), *arguments
            ) as daemon:
                board = sandbox.board
                # Clients echo what a contact said in receipts and acknowledgements.
                board.codec.errors = "surrogateescape"
                yield Place(sandbox, board, daemon)
            nursery.cancel_scope.cancel()
