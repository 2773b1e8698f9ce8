"""What the library's last words mean, when it stops connecting or shows no more codes."""

from __future__ import annotations

import pytest

from whatsappd.engines.neonize.worker.connect_endings import (
    UNKNOWN_BAN_S,
    end_of_connect,
    end_of_pairing,
)
from whatsappd.engines.protocol import (
    AccountBanned,
    ClientBrokenOff,
    ClientEnded,
    LoginRefused,
    PairingEnd,
)


def test_what_neonize_cannot_encode_is_recognised_by_the_field_it_names() -> None:
    ban = "proto: required field neonize.TemporaryBan.Code not set"
    assert end_of_connect(ban) == AccountBanned(0, UNKNOWN_BAN_S)
    refusal = "proto: required field neonize.ConnectFailure.Reason not set"
    assert isinstance(end_of_connect(refusal), LoginRefused)
    event = "proto: required field neonize.Receipt.Type not set"
    assert end_of_connect(event) == ClientBrokenOff("Receipt.Type")
    assert end_of_connect("dial tcp: refused") == ClientEnded("dial tcp: refused")
    assert end_of_connect(None) == ClientEnded(None)


def test_the_true_cause_of_a_failed_dial_is_told() -> None:
    error = (
        "failed to dial whatsapp web websocket: failed to WebSocket dial: failed to send "
        'handshake request: Get "https://web.whatsapp.com/ws/chat": dial tcp: '
        "lookup web.whatsapp.com: no such host"
    )
    assert end_of_connect(error) == ClientEnded("dial tcp: lookup web.whatsapp.com: no such host")


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        ("success", None),
        ("timeout", PairingEnd.OVER),
        ("err-client-outdated", PairingEnd.OUTDATED),
        ("passkey-request", PairingEnd.PASSKEY),
        ("err-scanned-without-multidevice", PairingEnd.NO_MULTIDEVICE),
        ("err-unexpected-state", PairingEnd.UNEXPECTED),
        ("error: pairing rejected", PairingEnd.REFUSED),
    ],
)
def test_how_pairing_ends(outcome: str, end: PairingEnd | None) -> None:
    assert end_of_pairing(outcome) is end
