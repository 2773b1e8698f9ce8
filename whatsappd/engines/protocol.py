"""The protocol between the daemon and its workers: a class for each request, answer and event.

MessagePack-RPC frames on a socketpair. The daemon sends requests, the worker answers them and sends
`event` notifications. Every event names its company, so that one worker could hold several clients.
On the wire each class is a map of its fields; `EVENTS`, `REQUESTS` and `ANSWERS` say which name
goes with which class. The daemon checks what it is told (`engines.decode`): a worker runs native
code on what strangers send.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from whatsappd.errors import Malformed
from whatsappd.model.content import Sendable
from whatsappd.model.message import Message, Source
from whatsappd.wire.shortening import bounded

#: Files of a company's directory: the account itself, and what a worker brought and the daemon did
#: not take.
ACCOUNT = "session.db"
SPOOL = "inbox.spool"

EVENT = "event"
#: Tells a worker that its events up to `number` are on disk.
TAKEN = "taken"

# --- requests and answers ------------------------------------------------------------------------


class WorkerMethod(StrEnum):
    OPEN = "client.open"
    SEND = "client.send"
    LOOK_UP = "client.look_up"
    HEALTH = "client.health"
    LOGOUT = "client.logout"
    STOP = "client.stop"


class OpenClient(Struct, frozen=True):
    """Make the client of the company's account, and connect. It must come first, and comes once.

    It is answered once no other worker of the company lives any more.
    """

    taken: int  # the number of the last event that is on disk
    log_level: str
    proxy: str | None = None
    noise_root: bytes | None = None  # replaces WhatsApp's own key (sandbox only)


class SendContent(Struct, frozen=True):
    """Send a message to `to`, a JID. `secret` (32 bytes) identifies the attempt."""

    to: str
    content: Sendable
    secret: bytes


class LookUpAddresses(Struct, frozen=True):
    """Which accounts are behind `addresses`: JIDs of phone numbers and LIDs, without a device."""

    addresses: list[str]


class AskHealth(Struct, frozen=True):
    """How is the connection to WhatsApp?"""


class LogOutDevice(Struct, frozen=True):
    """Unlink this device at WhatsApp."""


class StopClient(Struct, frozen=True):
    """Disconnect; answered when that is done."""


WorkerRequest = OpenClient | SendContent | LookUpAddresses | AskHealth | LogOutDevice | StopClient

REQUESTS: dict[WorkerMethod, type[WorkerRequest]] = {
    WorkerMethod.OPEN: OpenClient,
    WorkerMethod.SEND: SendContent,
    WorkerMethod.LOOK_UP: LookUpAddresses,
    WorkerMethod.HEALTH: AskHealth,
    WorkerMethod.LOGOUT: LogOutDevice,
    WorkerMethod.STOP: StopClient,
}
METHODS: dict[type[WorkerRequest], WorkerMethod] = {
    request: method for method, request in REQUESTS.items()
}


class RequestDone(Struct, frozen=True):
    """The answer of what gives no other."""


class MessageSent(Struct, frozen=True):
    """WhatsApp's server took the message."""

    message_id: str
    timestamp_ms: int


class SendFate(StrEnum):
    """What became of an attempt to send that WhatsApp's server did not acknowledge."""

    PERMANENT = "permanent"  # not sent, and trying again gives the same
    PASSING = "passing"  # not sent; trying again later makes sense
    RESTRICTED = "restricted"  # not sent: for now, the account may not write to strangers
    UNKNOWN = "unknown"  # it may have been sent


class SendRefusal(Struct, frozen=True):
    """The message was not sent, or nobody knows whether it was."""

    fate: SendFate
    reason: str  # for people
    code: int | None = None  # WhatsApp's own number for it, where there is one


class AddressesFound(Struct, frozen=True):
    """By address, for each that exists: the account's JID (that of the phone number where it is
    known), which may be another one than was asked for; and the LID, where it is known."""

    accounts: dict[str, str]
    lids: dict[str, str]


class ClientHealth(Struct, frozen=True):
    """Whether the socket is up, and whether WhatsApp accepted the login on it."""

    connected: bool
    logged_in: bool


WorkerAnswer = RequestDone | MessageSent | SendRefusal | AddressesFound | ClientHealth

#: Of a request with two answers, the second one stands in a map with the one key `REFUSED`.
ANSWERS: dict[WorkerMethod, type[WorkerAnswer]] = {
    WorkerMethod.OPEN: RequestDone,
    WorkerMethod.SEND: MessageSent,
    WorkerMethod.LOOK_UP: AddressesFound,
    WorkerMethod.HEALTH: ClientHealth,
    WorkerMethod.LOGOUT: RequestDone,
    WorkerMethod.STOP: RequestDone,
}
REFUSED = "refused"


def as_map(value: Struct) -> dict[str, Any]:
    """A request, answer or event as the map that goes over the wire."""
    fields: dict[str, Any] = msgspec.to_builtins(value, builtin_types=(bytes,))
    return {REFUSED: fields} if isinstance(value, SendRefusal) else fields


# --- events about the session --------------------------------------------------------------------


class QrShown(Struct, frozen=True):
    """A QR code to link the account with."""

    code: str


class PairingEnd(StrEnum):
    """How the QR codes of one attempt came to their end without a phone that scanned one."""

    OVER = "over"  # no more codes, or the connection went away while they were shown
    NO_MULTIDEVICE = "no_multidevice"  # the phone that scanned has no linked devices enabled
    PASSKEY = "passkey"  # the account asks for one to link a device
    OUTDATED = "outdated"  # WhatsApp refuses this client version
    UNEXPECTED = "unexpected"  # the client was not in the state for it
    REFUSED = "refused"


class PairingEnded(Struct, frozen=True):
    end: PairingEnd
    detail: str


class DevicePaired(Struct, frozen=True):
    """The phone accepted; the login follows."""

    jid: str | None = None
    business_name: str | None = None
    platform: str | None = None


class PairingRefused(Struct, frozen=True):
    error: str | None = None


class ClientConnected(Struct, frozen=True):
    """Logged in, as whom; None: that could not be read."""

    jid: str | None = None
    lid: str | None = None
    push_name: str | None = None


class ClientDisconnected(Struct, frozen=True):
    """The connection was lost; the client reconnects by itself."""


class KeepaliveLost(Struct, frozen=True):
    """WhatsApp does not answer pings."""

    error_count: int = 0
    last_success_ms: int = 0


class KeepaliveRestored(Struct, frozen=True):
    """WhatsApp answers pings again."""


class DeviceUnlinked(Struct, frozen=True):
    """WhatsApp logged the device out. `reason` is its number."""

    on_connect: bool = False
    reason: int = 0


class StreamReplaced(Struct, frozen=True):
    """Another process connected with this account."""


class AccountBanned(Struct, frozen=True):
    """For `expire_s`. `code` is WhatsApp's number for the reason; 0: not known."""

    code: int = 0
    expire_s: int = 0


class LoginRefused(Struct, frozen=True):
    """`reason` is WhatsApp's number; None: one that the library does not know."""

    reason: int | None = 0
    message: str = ""


class ClientOutdated(Struct, frozen=True):
    """WhatsApp refuses this client version."""


class StreamFailed(Struct, frozen=True):
    """WhatsApp sent a stream error; it closes the connection after it."""

    code: str = ""


class ClientBrokenOff(Struct, frozen=True):
    """The library met an event that it cannot hand on, nor any after it. `field` is what it does
    not know. Nothing more will come."""

    field: str


class ClientEnded(Struct, frozen=True):
    """The client does not connect any more, and why; None: no reason. Nothing more will come."""

    error: str | None = None


# --- events from WhatsApp ------------------------------------------------------------------------


class ReceiptArrived(Source, frozen=True, kw_only=True):
    """What became of messages: `receipt` is "delivered", "read" and others."""

    message_ids: list[str]
    receipt: str
    timestamp_ms: int


class UndecryptableArrived(Source, frozen=True, kw_only=True):
    """A message that this device cannot decrypt."""

    message_id: str
    timestamp_ms: int
    unavailable: bool


class UnreadableEvent(Struct, frozen=True, kw_only=True):
    """An event that could not be taken over. `of` is its kind, `error` what is wrong with it,
    `size` its bytes. Who sent it, as in a message, stands beside where that is known."""

    of: str
    error: str
    size: int
    message_id: str | None


class MessageForgotten(Struct, frozen=True, kw_only=True):
    """A device could not read a message of ours and asked for it, and the library has forgotten
    it. `sender` is the device."""

    message_id: str
    chat: str
    sender: str


class EventKind(StrEnum):
    """The name of each class of events on the wire and in a worker's spool."""

    QR = "qr"
    PAIRING_ENDED = "pairing_ended"
    PAIRED = "paired"
    PAIR_ERROR = "pair_error"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    KEEPALIVE_TIMEOUT = "keepalive_timeout"
    KEEPALIVE_RESTORED = "keepalive_restored"
    LOGGED_OUT = "logged_out"
    STREAM_REPLACED = "stream_replaced"
    TEMPORARY_BAN = "temporary_ban"
    CONNECT_FAILURE = "connect_failure"
    CLIENT_OUTDATED = "client_outdated"
    STREAM_ERROR = "stream_error"
    BROKEN_OFF = "broken_off"
    ENDED = "ended"
    MESSAGE = "message"
    RECEIPT = "receipt"
    UNDECRYPTABLE = "undecryptable"
    UNREADABLE = "unreadable"
    FORGOTTEN = "forgotten"


#: What comes from WhatsApp once and never again.
InboundEvent = Message | ReceiptArrived | UndecryptableArrived | UnreadableEvent | MessageForgotten
#: What is about the session.
SessionNews = (
    QrShown
    | PairingEnded
    | DevicePaired
    | PairingRefused
    | ClientConnected
    | ClientDisconnected
    | KeepaliveLost
    | KeepaliveRestored
    | DeviceUnlinked
    | StreamReplaced
    | AccountBanned
    | LoginRefused
    | ClientOutdated
    | StreamFailed
    | ClientBrokenOff
    | ClientEnded
)
ClientEvent = SessionNews | InboundEvent

EVENTS: dict[EventKind, type[ClientEvent]] = {
    EventKind.QR: QrShown,
    EventKind.PAIRING_ENDED: PairingEnded,
    EventKind.PAIRED: DevicePaired,
    EventKind.PAIR_ERROR: PairingRefused,
    EventKind.CONNECTED: ClientConnected,
    EventKind.DISCONNECTED: ClientDisconnected,
    EventKind.KEEPALIVE_TIMEOUT: KeepaliveLost,
    EventKind.KEEPALIVE_RESTORED: KeepaliveRestored,
    EventKind.LOGGED_OUT: DeviceUnlinked,
    EventKind.STREAM_REPLACED: StreamReplaced,
    EventKind.TEMPORARY_BAN: AccountBanned,
    EventKind.CONNECT_FAILURE: LoginRefused,
    EventKind.CLIENT_OUTDATED: ClientOutdated,
    EventKind.STREAM_ERROR: StreamFailed,
    EventKind.BROKEN_OFF: ClientBrokenOff,
    EventKind.ENDED: ClientEnded,
    EventKind.MESSAGE: Message,
    EventKind.RECEIPT: ReceiptArrived,
    EventKind.UNDECRYPTABLE: UndecryptableArrived,
    EventKind.UNREADABLE: UnreadableEvent,
    EventKind.FORGOTTEN: MessageForgotten,
}
KINDS: dict[type[ClientEvent], EventKind] = {event: kind for kind, event in EVENTS.items()}

#: Numbered, and confirmed when it is on disk.
INBOUND = frozenset(
    {
        *(EventKind.MESSAGE, EventKind.RECEIPT, EventKind.UNDECRYPTABLE, EventKind.UNREADABLE),
        EventKind.FORGOTTEN,
    }
)


#: The largest number of an event: what SQLite stores.
MAX_NUMBER = 2**63 - 1


class EventOnWire(NamedTuple):
    """An event as it travels, and as it lies in a worker's spool: its data is not checked yet."""

    company: str
    kind: EventKind
    data: dict[str, Any]
    number: int | None = None  # of one in INBOUND; grows by one, from worker to worker

    def as_arguments(self) -> dict[str, Any]:
        """The arguments of an `event` notification."""
        return {
            "company": self.company,
            "kind": str(self.kind),
            "data": self.data,
            "number": self.number,
        }


def parse_event(arguments: dict[str, Any]) -> EventOnWire:
    """The event in an `event` notification's arguments, within `wire.shortening`.

    Raises:
        Malformed: it is none.
    """
    match arguments:
        case {
            "company": str(company),
            "kind": str(kind),
            "data": dict(data),
            "number": number,
        } if number is None or (type(number) is int and 0 < number <= MAX_NUMBER):
            try:
                return EventOnWire(company, EventKind(kind), bounded(data), number)
            except ValueError:
                pass
    raise Malformed(f"a worker sent no event: {arguments!r:.200}")


def unpackable(event: EventOnWire, error: Malformed) -> EventOnWire:
    """What is told in the place of an event that cannot be packed."""
    about = UnreadableEvent(of=str(event.kind), error=error.message, size=0, message_id=None)
    return event._replace(kind=EventKind.UNREADABLE, data=as_map(about))
