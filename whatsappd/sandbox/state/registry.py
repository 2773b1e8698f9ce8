"""The registry of accounts: makes and finds them, links devices, keeps their keys.

Everything is held in memory and written to the database at once; nothing else writes the tables
`account`, `alias`, `device`, `prekey` and `accepted`. Callers end with `Switchboard.flush`, which
commits.
"""

from __future__ import annotations

import os
import random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from whatsappd.errors import SandboxFailed
from whatsappd.model.jid import LID_SERVER, USER_SERVER, Jid
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner
from whatsappd.sandbox.state.accounts import (
    DeviceRegistration,
    LinkedDevice,
    SandboxAccount,
    SignedPreKey,
)
from whatsappd.sandbox.state.database import SandboxDatabase

#: Devices that a phone can link.
MAX_LINKED_DEVICES = 4
#: The largest number of a device. Stanzas have a byte for it; the real server stays below 100.
_MAX_DEVICE_ID = 99
#: Characters of a name; longer ones are cut. WhatsApp allows 25.
MAX_NAME = 100
#: Message ids of a device that are remembered, to recognise frames that it sends again.
_MAX_ACCEPTED = 10_000


class AccountRegistry:
    """All accounts of the sandbox. What is new is in the database with the next commit."""

    def __init__(self, database: SandboxDatabase) -> None:
        self._database = database
        self._by_phone: dict[str, SandboxAccount] = {}
        self._by_lid: dict[str, SandboxAccount] = {}
        self._aliases: dict[str, str] = {}
        self._phone_bundles: dict[str, SignedPreKey] = {}
        self.devices_by_row: dict[int, LinkedDevice] = {}
        self._load()

    @property
    def accounts(self) -> list[SandboxAccount]:
        """All accounts, the oldest first."""
        return list(self._by_phone.values())

    def find(self, jid: Jid) -> SandboxAccount | None:
        """The account with this phone-number JID or LID, of whichever device; None if unknown."""
        if jid.server == LID_SERVER:
            return self._by_lid.get(jid.user)
        return self._by_phone.get(jid.user) if jid.server == USER_SERVER else None

    def by_phone(self, phone: str) -> SandboxAccount | None:
        """The account of a phone number (digits), or None."""
        return self._by_phone.get(phone)

    def by_number(self, number: str) -> SandboxAccount | None:
        """The account that clients find under a number (digits): its own, or an alias."""
        return self._by_phone.get(number) or self._by_phone.get(self._aliases.get(number, ""))

    def add_alias(self, number: str, account: SandboxAccount) -> None:
        """Let clients that look `number` up find `account`, as with Brazil's ninth digit.

        Raises:
            SandboxFailed: it is the number of another account.
        """
        if number in self._by_phone:
            raise SandboxFailed(f"+{number} is the number of an account of its own")
        self._aliases[number] = account.phone
        self._database.write("INSERT OR REPLACE INTO alias VALUES (?, ?)", number, account.phone)

    def device(self, jid: Jid) -> LinkedDevice | None:
        """The linked device with this phone-number JID or LID, or None."""
        account = self.find(jid)
        return account.devices.get(jid.device) if account else None

    def register(self, phone: str, name: str | None = None) -> SandboxAccount:
        """The account of a phone number (digits), made if it is new; `name`: its new push name."""
        account = self._by_phone.get(phone)
        if account is None:
            account = SandboxAccount(
                phone, self._new_lid(), XEdDsaSigner(), random.getrandbits(31), "", 1
            )
            self._index(account)
            self._database.write(
                "INSERT INTO account VALUES (?, ?, ?, ?, ?, ?)",
                *(phone, account.lid_user, account.signer.seed),
                *(account.raw_id, account.name, account.next_device),
            )
        if name is not None and (name := name[:MAX_NAME]) != account.name:
            account.name = name
            self._database.write("UPDATE account SET name = ? WHERE phone = ?", name, phone)
        return account

    def reserve_device_id(self, account: SandboxAccount) -> int:
        """A number for a device that is being paired: the next free one, from 1 to 99, then anew.

        Raises:
            SandboxFailed: the phone has linked all the devices it may.
        """
        if len(account.devices) >= MAX_LINKED_DEVICES:
            raise SandboxFailed(
                f"+{account.phone} has linked {MAX_LINKED_DEVICES} devices already, "
                "which is all WhatsApp allows: unlink one first"
            )
        number = account.next_device
        while number in account.devices:
            number = number % _MAX_DEVICE_ID + 1
        account.next_device = number % _MAX_DEVICE_ID + 1
        self._database.write(
            "UPDATE account SET next_device = ? WHERE phone = ?",
            *(account.next_device, account.phone),
        )
        return number

    def link(self, account: SandboxAccount, number: int, new: DeviceRegistration) -> LinkedDevice:
        """Link a device whose pairing is complete, under the `number` reserved for it."""
        row = self._database.write(
            "INSERT INTO device (phone, id, noise_key, registration, identity, signed_id, "
            "signed_key, signature, key_index, uploaded) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            *(account.phone, number, new.noise_key, new.registration, new.identity),
            *(*new.signed_prekey, number),  # the key index is the device's number
        )
        device = LinkedDevice(
            row, account, number, new.noise_key, new.registration, new.identity,
            new.signed_prekey, number, uploaded=False,
        )  # fmt: skip
        account.devices[number] = device
        self.devices_by_row[row] = device
        return device

    def unlink(self, device: LinkedDevice) -> None:
        """Remove a device, its keys and the stanzas that waited for it."""
        device.account.devices.pop(device.id, None)
        self.devices_by_row.pop(device.row, None)
        for table, column in (
            ("device", "row"), ("prekey", "device"), ("queue", "device"), ("accepted", "device"),
        ):  # fmt: skip
            self._database.write(f"DELETE FROM {table} WHERE {column} = ?", device.row)  # noqa: S608

    # --- keys ---------------------------------------------------------------------------------

    def upload_keys(
        self,
        device: LinkedDevice,
        registration: bytes,
        identity: bytes,
        signed_prekey: SignedPreKey,
        prekeys: dict[bytes, bytes],
    ) -> None:
        """Store a client's upload of keys. One-time `prekeys` are added, the rest is replaced."""
        device.registration, device.identity = registration, identity
        device.uploaded = True
        device.prekeys |= prekeys
        self._database.write(
            "UPDATE device SET registration = ?, identity = ?, uploaded = 1 WHERE row = ?",
            *(registration, identity, device.row),
        )
        self.rotate_signed_prekey(device, signed_prekey)
        self._database.write_many(
            "INSERT OR REPLACE INTO prekey VALUES (?, ?, ?)",
            [(device.row, number, key) for number, key in prekeys.items()],
        )

    def rotate_signed_prekey(self, device: LinkedDevice, signed_prekey: SignedPreKey) -> None:
        """Replace a device's signed prekey."""
        device.signed_prekey = signed_prekey
        self._database.write(
            "UPDATE device SET signed_id = ?, signed_key = ?, signature = ? WHERE row = ?",
            *(*signed_prekey, device.row),
        )

    def take_prekey(self, device: LinkedDevice) -> tuple[bytes, bytes] | None:
        """Take one of the device's one-time prekeys: its id and the key. None if none is left.

        None is handed out twice.
        """
        for number in device.prekeys:
            key = device.prekeys.pop(number)
            self._database.write(
                "DELETE FROM prekey WHERE device = ? AND id = ?", device.row, number
            )
            return number, key
        return None

    def phone_prekey(self, account: SandboxAccount) -> SignedPreKey:
        """The signed prekey of a virtual phone (device 0), made when it is first asked for.

        Its private half is thrown away: the phone cannot read what is encrypted for it.
        """
        bundle = self._phone_bundles.get(account.phone)
        if bundle is None:
            key = X25519PrivateKey.generate().public_key().public_bytes_raw()
            # What Signal signs is the key with its type byte before it.
            bundle = SignedPreKey(b"\0\0\1", key, account.signer.sign(b"\x05" + key))
            self._phone_bundles[account.phone] = bundle
        return bundle

    # --- messages that were accepted ----------------------------------------------------------

    def accept(self, device: LinkedDevice, message_id: str) -> bool:
        """Remember a message id of a sender. False if it is known: the sender resent the frame."""
        if message_id in device.accepted:
            return False
        device.accepted[message_id] = self._database.write(
            "INSERT INTO accepted (device, id) VALUES (?, ?)", device.row, message_id
        )
        if len(device.accepted) > _MAX_ACCEPTED:
            _, oldest = device.accepted.popitem(last=False)
            self._database.write("DELETE FROM accepted WHERE seq = ?", oldest)
        return True

    # --- loading ------------------------------------------------------------------------------

    def _load(self) -> None:
        read = self._database.read
        for phone, lid, seed, raw_id, name, next_device in read(
            "SELECT phone, lid, seed, raw_id, name, next_device FROM account"
        ):
            self._index(SandboxAccount(phone, lid, XEdDsaSigner(seed), raw_id, name, next_device))
        for row, phone, number, noise_key, registration, identity, *rest in read(
            "SELECT row, phone, id, noise_key, registration, identity, signed_id, signed_key, "
            "signature, key_index, uploaded FROM device ORDER BY id"
        ):
            account = self._by_phone[phone]
            signed_id, signed_key, signature, key_index, uploaded = rest
            device = LinkedDevice(
                row, account, number, noise_key, registration, identity,
                SignedPreKey(signed_id, signed_key, signature), key_index, bool(uploaded),
            )  # fmt: skip
            account.devices[device.id] = device
            self.devices_by_row[device.row] = device
        self._aliases.update(read("SELECT number, phone FROM alias"))
        for row, number, key in read("SELECT device, id, key FROM prekey ORDER BY id"):
            self.devices_by_row[row].prekeys[number] = key
        for row, message_id, seq in read("SELECT device, id, seq FROM accepted ORDER BY seq"):
            self.devices_by_row[row].accepted[message_id] = seq

    def _index(self, account: SandboxAccount) -> None:
        self._by_phone[account.phone] = account
        self._by_lid[account.lid_user] = account

    def _new_lid(self) -> str:
        while True:
            # 15 digits, like the real ones.
            lid = str(10**14 + int.from_bytes(os.urandom(6), "big"))
            if lid not in self._by_lid:
                return lid
