"""What the sandbox's operations return: plain values, as they go over RPC (`api/sandbox.py`)."""

from __future__ import annotations

from typing import TypedDict

from whatsappd.sandbox.state.accounts import LinkedDevice
from whatsappd.sandbox.state.switchboard import Switchboard


class Addresses(TypedDict):
    """The two addresses of an account or a device, as text."""

    jid: str  # the phone-number JID
    lid: str


class Unlinked(TypedDict):
    """The devices that were unlinked."""

    unlinked: list[str]  # their phone-number JIDs


class FaultHit(TypedDict, total=False):
    """What a fault struck."""

    hit: int  # connections; missing if the fault is armed and strikes later


class DeviceState(TypedDict):
    """A linked device as `sandbox.stats` shows it."""

    id: int
    jid: str  # the phone-number JID
    online: bool  # whether it gets stanzas as they come
    waiting: int  # stanzas that it has not acknowledged
    prekeys: int  # one-time prekeys that are left


class PhoneState(TypedDict):
    """A phone as `sandbox.stats` shows it."""

    jid: str  # the phone-number JID
    lid: str
    name: str
    devices: list[DeviceState]


def phone_states(board: Switchboard) -> dict[str, PhoneState]:
    """All phones, by their numbers (digits)."""
    return {
        account.phone: {
            "jid": str(account.jid),
            "lid": str(account.lid),
            "name": account.name,
            "devices": [_device_state(board, device) for device in account.devices.values()],
        }
        for account in board.registry.accounts
    }


def _device_state(board: Switchboard, device: LinkedDevice) -> DeviceState:
    client = board.client_of(device)
    return {
        "id": device.id,
        "jid": str(device.jid),
        "online": client is not None and client.active,
        "waiting": len(device.queue),
        "prekeys": len(device.prekeys),
    }
