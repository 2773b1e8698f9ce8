"""`sandbox.*`: control of the loopback WhatsApp. In real mode none of this exists.

The process that runs a sandbox offers these methods on its control socket; a daemon in sandbox
mode offers the same, and passes them on.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from whatsappd.api.daemon import SandboxPlace
from whatsappd.api.declaration import Declaration, NoParams, Params, Result

Phone = Annotated[str, Meta(description="A phone number.", examples=["+15550100"])]


class ScanCode(Params):
    """Which phone scans which code."""

    qr: Annotated[str, Meta(description="What the QR code says.")]
    phone: Phone


class RegisterPhone(Params):
    """The phone that is to exist."""

    phone: Phone
    name: Annotated[str | None, Meta(description="What others see.")] = None
    aliases: Annotated[
        list[str], Meta(description="Other numbers under which a look-up finds it.")
    ] = msgspec.field(default_factory=list)


class UnlinkDevice(Params):
    """What to unlink."""

    phone: Phone
    device: Annotated[int | None, Meta(description="Left out: all of its devices.")] = None


class ProvokeFault(Params):
    """A fault and its arguments; the sandbox knows them all, with their types."""

    kind: str
    phone: Any = UNSET
    seconds: Any = UNSET
    count: Any = UNSET
    cut: Any = UNSET
    code: Any = UNSET
    conflict: Any = UNSET
    mode: Any = UNSET
    reason: Any = UNSET
    expire: Any = UNSET
    message: Any = UNSET
    error: Any = UNSET


class ReadStatistics(Params):
    messages: Annotated[
        bool, Meta(description="Also what became of each of the latest messages.")
    ] = False


class LinkedIdentity(Result):
    """Both identities of an account or a device."""

    jid: str
    lid: str


class UnlinkedDevices(Result):
    unlinked: Annotated[list[str], Meta(description="The devices' JIDs.")]


class FaultTaken(Result):
    hit: Annotated[
        int | UnsetType,
        Meta(description="How many connections it hit, if it acts on connections at once."),
    ] = UNSET


class VirtualDevice(Result):
    """A device that is linked with a virtual phone."""

    id: int
    jid: str
    online: bool
    waiting: Annotated[int, Meta(description="Stanzas that wait for it.")]
    prekeys: int


class VirtualPhone(Result):
    """A phone that exists in the sandbox."""

    jid: str
    lid: str
    name: str | None
    devices: list[VirtualDevice]


class MessageFate(Result):
    """What became of one message id of one sender at the server."""

    id: str
    sender: str
    to: str
    accepted: int
    resent: int
    forwarded: int
    acks: int
    acks_withheld: int
    refused: int
    receipts: Annotated[dict[str, int], Meta(description="By type; empty is plain delivery.")]


class SandboxStatistics(Result):
    """What happened in the sandbox since it started."""

    dials: int
    dials_refused: int
    logins: int
    login_failures: int
    pairings: int
    accepted: int
    resent: int
    forwarded: int
    queued_offline: int
    redelivered: int
    retries: int
    receipts: int
    refused: int
    acks_withheld: int
    pings: int
    pings_muted: int
    violations: int
    last_violation: str | None
    defects: int
    unknown: Annotated[dict[str, int], Meta(description="Requests that it does not know.")]
    connections: int
    faults: Annotated[
        dict[str, list[dict[str, Any]]], Meta(description="What is armed, by the kind of fault.")
    ]
    phones: dict[str, VirtualPhone]
    messages: list[MessageFate] | UnsetType = UNSET


INFO = Declaration(
    "sandbox.info", NoParams, SandboxPlace, "Where the sandbox is, and how to trust it.",
    writes=False,
)  # fmt: skip
SCAN = Declaration(
    "sandbox.scan", ScanCode, LinkedIdentity, "A virtual phone scans a QR code.", writes=True
)
REGISTER = Declaration(
    "sandbox.register", RegisterPhone, LinkedIdentity, "Let a phone exist.", writes=True
)
UNLINK = Declaration(
    "sandbox.unlink", UnlinkDevice, UnlinkedDevices, "The phone unlinks a device.", writes=True
)
FAULT = Declaration(
    "sandbox.fault", ProvokeFault, FaultTaken, "Make the sandbox misbehave.", writes=True
)
STATS = Declaration(
    "sandbox.stats", ReadStatistics, SandboxStatistics, "What passed through the sandbox.",
    writes=False,
)  # fmt: skip

METHODS = (INFO, SCAN, REGISTER, UNLINK, FAULT, STATS)
