"""Who exists on this WhatsApp: phones with their LIDs, linked devices, their keys.

The registry lives in memory and in the store at once; `Registry` is the only writer of both.
Stanzas that a device has not acknowledged belong to the device, too: `Device.queue`.
"""

from __future__ import annotations

import os
import random
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from whatsappd.errors import SandboxFailed
from whatsappd.model.jid import LID_SERVER, USER_SERVER, Jid
from whatsappd.sandbox.protocol.xeddsa import Signer
from whatsappd.sandbox.state.store import Store

if TYPE_CHECKING:
    from whatsappd.sandbox.server.connection import Connection

#: A phone can link this many devices.
MAX_LINKED_DEVICES = 4
#: The byte that stanzas have for a device's number allows more; the real server stays below this.
_MAX_DEVICE_ID = 99
#: Characters of a name. WhatsApp allows 25.
MAX_NAME = 100
#: Message ids a device's resent frames are compared with.
_MAX_ACCEPTED = 10_000

#: What an undelivered stanza is known by: its tag, id, sender, and more where these repeat.
QueueKey = tuple[str, ...]


class SignedPreKey(NamedTuple):
    id: bytes  # 3 bytes
    key: bytes
    signature: bytes


class Queued(NamedTuple):
    """A stanza that its device has not acknowledged."""

    seq: int  # in the store, and the order of delivery
    stanza: bytes


class NewDevice(NamedTuple):
    """What a client brought to be paired."""

    noise_key: bytes
    registration: bytes  # 4 bytes
    identity: bytes
    signed_prekey: SignedPreKey


@dataclass(eq=False)
class Account:
    """A phone number with its account. `signer` is the phone's identity key."""

    phone: str  # digits only
    lid_user: str
    signer: Signer
    raw_id: int
    name: str
    next_device: int
    devices: dict[int, Device] = field(default_factory=dict)

    @property
    def jid(self) -> Jid:
        return Jid(self.phone, USER_SERVER)

    @property
    def lid(self) -> Jid:
        return Jid(self.lid_user, LID_SERVER)

    @property
    def shown_name(self) -> str:
        """What others see as its name."""
        return self.name or f"+{self.phone}"

    def address(self, server: str) -> Jid:
        """The account's LID where LIDs are spoken, its phone-number JID elsewhere."""
        return self.lid if server == LID_SERVER else self.jid

    def addresses(self, server: str) -> list[Jid]:
        """Of all its devices; the first is the phone's, device 0."""
        return [
            self.address(server),
            *(device.address(server) for device in self.devices.values()),
        ]


@dataclass(eq=False)
class Device:
    """A linked device. It is online while it has a connection."""

    row: int  # in the store
    account: Account
    id: int
    noise_key: bytes
    registration: bytes
    identity: bytes
    signed_prekey: SignedPreKey
    key_index: int
    uploaded: bool  # whether it ever uploaded one-time prekeys
    prekeys: dict[bytes, bytes] = field(default_factory=dict)
    queue: dict[QueueKey, Queued] = field(default_factory=dict)
    accepted: OrderedDict[str, int] = field(default_factory=OrderedDict)
    refused: set[QueueKey] = field(default_factory=set)
    connection: Connection | None = None

    def __post_init__(self) -> None:
        # Asked for with every stanza.
        self.jid = Jid(self.account.phone, USER_SERVER, self.id)
        self.lid = Jid(self.account.lid_user, LID_SERVER, self.id)

    def address(self, server: str) -> Jid:
        return self.lid if server == LID_SERVER else self.jid


class Registry:
    """All accounts. Lookups take either of an account's two identities."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_phone: dict[str, Account] = {}
        self._by_lid: dict[str, Account] = {}
        self._aliases: dict[str, str] = {}
        self._phone_bundles: dict[str, SignedPreKey] = {}
        self.devices_by_row: dict[int, Device] = {}
        self._load()

    @property
    def accounts(self) -> list[Account]:
        return list(self._by_phone.values())

    def find(self, jid: Jid) -> Account | None:
        """The account that a JID of either kind means."""
        if jid.server == LID_SERVER:
            return self._by_lid.get(jid.user)
        return self._by_phone.get(jid.user) if jid.server == USER_SERVER else None

    def by_phone(self, phone: str) -> Account | None:
        return self._by_phone.get(phone)

    def by_number(self, number: str) -> Account | None:
        """The account that somebody finds who asks for a number, which may have another one."""
        return self._by_phone.get(number) or self._by_phone.get(self._aliases.get(number, ""))

    def add_alias(self, number: str, account: Account) -> None:
        """Whoever asks for `number` finds `account` from now on (as with Brazil's ninth digit).

        Raises:
            SandboxFailed: it is the number of another account.
        """
        if number in self._by_phone:
            raise SandboxFailed(f"+{number} is the number of an account of its own")
        self._aliases[number] = account.phone
        self._store.write("INSERT OR REPLACE INTO alias VALUES (?, ?)", number, account.phone)

    def device(self, jid: Jid) -> Device | None:
        """The linked device that a JID of either kind means."""
        account = self.find(jid)
        return account.devices.get(jid.device) if account else None

    def register(self, phone: str, name: str | None = None) -> Account:
        """The account of a phone, made if it is new; `name` is what others see, if given."""
        account = self._by_phone.get(phone)
        if account is None:
            account = Account(phone, self._new_lid(), Signer(), random.getrandbits(31), "", 1)
            self._index(account)
            self._store.write(
                "INSERT INTO account VALUES (?, ?, ?, ?, ?, ?)",
                *(phone, account.lid_user, account.signer.seed),
                *(account.raw_id, account.name, account.next_device),
            )
        if name is not None and (name := name[:MAX_NAME]) != account.name:
            account.name = name
            self._store.write("UPDATE account SET name = ? WHERE phone = ?", name, phone)
        return account

    def reserve_device_id(self, account: Account) -> int:
        """A number for a device that is being paired; numbers are not used twice in a row.

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
        self._store.write(
            "UPDATE account SET next_device = ? WHERE phone = ?",
            *(account.next_device, account.phone),
        )
        return number

    def link(self, account: Account, number: int, new: NewDevice) -> Device:
        """Add a device whose pairing is complete. Its key index is its number."""
        row = self._store.write(
            "INSERT INTO device (phone, id, noise_key, registration, identity, signed_id, "
            "signed_key, signature, key_index, uploaded) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            *(account.phone, number, new.noise_key, new.registration, new.identity),
            *(*new.signed_prekey, number),
        )
        device = Device(
            row, account, number, new.noise_key, new.registration, new.identity,
            new.signed_prekey, number, uploaded=False,
        )  # fmt: skip
        account.devices[number] = device
        self.devices_by_row[row] = device
        return device

    def unlink(self, device: Device) -> None:
        """Remove a device with its keys and everything that waited for it."""
        device.account.devices.pop(device.id, None)
        self.devices_by_row.pop(device.row, None)
        for table, column in (
            ("device", "row"), ("prekey", "device"), ("queue", "device"), ("accepted", "device"),
        ):  # fmt: skip
            self._store.write(f"DELETE FROM {table} WHERE {column} = ?", device.row)  # noqa: S608

    # --- keys ---------------------------------------------------------------------------------

    def upload_keys(
        self,
        device: Device,
        registration: bytes,
        identity: bytes,
        signed_prekey: SignedPreKey,
        prekeys: dict[bytes, bytes],
    ) -> None:
        """Take a client's upload: one-time prekeys are added, the rest is replaced."""
        device.registration, device.identity = registration, identity
        device.uploaded = True
        device.prekeys |= prekeys
        self._store.write(
            "UPDATE device SET registration = ?, identity = ?, uploaded = 1 WHERE row = ?",
            *(registration, identity, device.row),
        )
        self.rotate_signed_prekey(device, signed_prekey)
        self._store.write_many(
            "INSERT OR REPLACE INTO prekey VALUES (?, ?, ?)",
            [(device.row, number, key) for number, key in prekeys.items()],
        )

    def rotate_signed_prekey(self, device: Device, signed_prekey: SignedPreKey) -> None:
        device.signed_prekey = signed_prekey
        self._store.write(
            "UPDATE device SET signed_id = ?, signed_key = ?, signature = ? WHERE row = ?",
            *(*signed_prekey, device.row),
        )

    def take_prekey(self, device: Device) -> tuple[bytes, bytes] | None:
        """A one-time prekey (number and key), which is never handed out again; None if all are."""
        for number in device.prekeys:
            key = device.prekeys.pop(number)
            self._store.write("DELETE FROM prekey WHERE device = ? AND id = ?", device.row, number)
            return number, key
        return None

    def phone_prekey(self, account: Account) -> SignedPreKey:
        """A signed prekey of the virtual phone itself, for whoever writes to it.

        Its private half is thrown away: the phone takes what it gets, and reads nothing.
        """
        bundle = self._phone_bundles.get(account.phone)
        if bundle is None:
            key = X25519PrivateKey.generate().public_key().public_bytes_raw()
            # Signal signs the key with its type byte before it.
            bundle = SignedPreKey(b"\0\0\1", key, account.signer.sign(b"\x05" + key))
            self._phone_bundles[account.phone] = bundle
        return bundle

    # --- messages that were accepted ----------------------------------------------------------

    def accept(self, device: Device, message_id: str) -> bool:
        """Remember a message id of a sender; False if it is known: a resent frame."""
        if message_id in device.accepted:
            return False
        device.accepted[message_id] = self._store.write(
            "INSERT INTO accepted (device, id) VALUES (?, ?)", device.row, message_id
        )
        if len(device.accepted) > _MAX_ACCEPTED:
            _, oldest = device.accepted.popitem(last=False)
            self._store.write("DELETE FROM accepted WHERE seq = ?", oldest)
        return True

    # --- loading ------------------------------------------------------------------------------

    def _load(self) -> None:
        read = self._store.read
        for phone, lid, seed, raw_id, name, next_device in read(
            "SELECT phone, lid, seed, raw_id, name, next_device FROM account"
        ):
            self._index(Account(phone, lid, Signer(seed), raw_id, name, next_device))
        for row, phone, number, noise_key, registration, identity, *rest in read(
            "SELECT row, phone, id, noise_key, registration, identity, signed_id, signed_key, "
            "signature, key_index, uploaded FROM device ORDER BY id"
        ):
            account = self._by_phone[phone]
            signed_id, signed_key, signature, key_index, uploaded = rest
            device = Device(
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

    def _index(self, account: Account) -> None:
        self._by_phone[account.phone] = account
        self._by_lid[account.lid_user] = account

    def _new_lid(self) -> str:
        while True:
            # 15 digits, as the real ones have.
            lid = str(10**14 + int.from_bytes(os.urandom(6), "big"))
            if lid not in self._by_lid:
                return lid
