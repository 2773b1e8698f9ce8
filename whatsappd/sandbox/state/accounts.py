"""Phone accounts and their linked devices, as values. `registry` creates, stores and finds them.

An account has two addresses, a phone-number JID (`15550100@s.whatsapp.net`) and a LID
(`123456789012345@lid`), and one phone, which is its device 0. Linked devices have numbers from 1;
a device's address is the account's with its number (`15550100:1@s.whatsapp.net`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from whatsappd.model.jid import LID_SERVER, USER_SERVER, Jid
from whatsappd.sandbox.protocol.node import Node
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner

#: What identifies a stanza among those that a device has not acknowledged; see `queue_key`.
QueueKey = tuple[str, ...]


class SignedPreKey(NamedTuple):
    """A prekey of Signal's X3DH, signed by its owner's identity key."""

    id: bytes  # 3 bytes, big-endian
    key: bytes  # an X25519 public key, 32 bytes
    signature: bytes  # XEdDSA, 64 bytes, of the byte 5 and the key


class UndeliveredStanza(NamedTuple):
    """A stanza that its device has not acknowledged."""

    seq: int  # its row in the database, and the order of delivery
    stanza: bytes


class DeviceRegistration(NamedTuple):
    """What a client that wants to be linked says about itself (DevicePairingRegistrationData)."""

    noise_key: bytes  # the static key of its handshake, 32 bytes: later logins must have it
    registration: bytes  # Signal's registration id, 4 bytes
    identity: bytes  # the device's identity key, an X25519 public key, 32 bytes
    signed_prekey: SignedPreKey


@dataclass(eq=False)
class SandboxAccount:
    """A phone number with its account."""

    phone: str  # digits only
    lid_user: str  # the user part of the LID: 15 digits
    signer: XEdDsaSigner  # the phone's identity key
    raw_id: int  # the account's number for its list of devices (`adv`)
    name: str  # the push name; empty if it has none
    next_device: int  # the number for the device that is linked next
    devices: dict[int, LinkedDevice] = field(default_factory=dict)  # by their numbers

    @property
    def jid(self) -> Jid:
        """The phone-number JID."""
        return Jid(self.phone, USER_SERVER)

    @property
    def lid(self) -> Jid:
        """The LID."""
        return Jid(self.lid_user, LID_SERVER)

    @property
    def shown_name(self) -> str:
        """The name that others see: the push name, or the phone number."""
        return self.name or f"+{self.phone}"

    def address(self, server: str) -> Jid:
        """The LID if `server` is that of LIDs, else the phone-number JID."""
        return self.lid if server == LID_SERVER else self.jid

    def addresses(self, server: str) -> list[Jid]:
        """The addresses of all its devices, the phone (device 0) first."""
        return [
            self.address(server),
            *(device.address(server) for device in self.devices.values()),
        ]


@dataclass(eq=False)
class LinkedDevice:
    """A device that is linked to an account: its keys, and the stanzas that wait for it.

    Whether it is connected is not written here: `Switchboard.client_of` knows.
    """

    row: int  # in the database
    account: SandboxAccount
    id: int  # the device's number, from 1
    noise_key: bytes
    registration: bytes
    identity: bytes
    signed_prekey: SignedPreKey
    key_index: int  # its number in the account's signed list of devices (`adv`)
    uploaded: bool  # whether it ever uploaded one-time prekeys
    prekeys: dict[bytes, bytes] = field(default_factory=dict)  # one-time keys by their ids
    queue: dict[QueueKey, UndeliveredStanza] = field(default_factory=dict)  # in order of delivery
    #: Message ids that were accepted from it, with their rows: resent ones are delivered once.
    accepted: OrderedDict[str, int] = field(default_factory=OrderedDict)
    #: Messages that it asked for again (retry receipt) and has yet to acknowledge once.
    refused: set[QueueKey] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Attributes and no properties: they are asked for with every stanza.
        self.jid = Jid(self.account.phone, USER_SERVER, self.id)
        self.lid = Jid(self.account.lid_user, LID_SERVER, self.id)

    def address(self, server: str) -> Jid:
        """The device's LID if `server` is that of LIDs, else its phone-number JID."""
        return self.lid if server == LID_SERVER else self.jid


def queue_key(node: Node) -> QueueKey:
    """What a stanza for a device and that device's acknowledgement of it have in common.

    That is tag, id, `from`, `participant` and, except for messages, `type`: several receipts for
    one message differ by it, and clients echo it.
    """
    attrs = node.attrs
    return (
        node.tag,
        node.text("id"),
        str(attrs.get("from", "")),
        str(attrs.get("participant", "")),
        "" if node.tag == "message" else node.text("type"),
    )
