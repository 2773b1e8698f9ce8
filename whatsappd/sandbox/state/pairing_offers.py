"""Clients that show QR codes and wait for a phone to scan one.

An offer begins when a client without an account connects (`phones.pairing.offer_pairing`). Each of
its QR codes has a reference, by which a scan finds the offer.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import trio

from whatsappd.sandbox.protocol.adv import PendingIdentity
from whatsappd.sandbox.state.accounts import DeviceRegistration, LinkedDevice, SandboxAccount
from whatsappd.sandbox.state.clients import ConnectedClient

#: References that are remembered, so that an expired code can be told from an unknown one.
_MAX_REFERENCES = 6_000


class PairingScan(NamedTuple):
    """A phone scanned the code, and waits for the client to confirm."""

    request: str  # the id of the `<iq>` with `<pair-success>`
    account: SandboxAccount
    device_id: int  # the number that is reserved for the device
    identity: PendingIdentity


class PairingOffer:
    """One client's wish to be linked. It ends with `linked`, or with `refusal`, and `answered`."""

    def __init__(self, client: ConnectedClient, device: DeviceRegistration) -> None:
        self.client = client
        self.device = device
        self.scan: PairingScan | None = None
        self.answered = trio.Event()
        self.linked: LinkedDevice | None = None
        self.refusal: str | None = None  # why no scan of its codes can succeed any more

    def withdraw(self, reason: str) -> None:
        """Let every scan of its codes fail with `reason`, if the device is not linked yet."""
        if self.linked is None:
            self.refusal = self.refusal or reason
        self.answered.set()


class PairingOffers:
    """The offers of all clients, by their references and by client."""

    def __init__(self) -> None:
        self._by_reference: OrderedDict[str, tuple[PairingOffer, float]] = OrderedDict()
        self._by_client: dict[ConnectedClient, PairingOffer] = {}

    def add(self, offer: PairingOffer, references: Mapping[str, float]) -> None:
        """Add an offer with its references, each with the seconds that it is valid from now."""
        began = time.monotonic()
        self._by_client[offer.client] = offer
        for reference, seconds in references.items():
            self._by_reference[reference] = (offer, began + seconds)
        while len(self._by_reference) > _MAX_REFERENCES:
            self._by_reference.popitem(last=False)

    def find(self, reference: str) -> tuple[PairingOffer, bool] | None:
        """The offer with that reference, and whether the reference has expired; None if unknown."""
        found = self._by_reference.get(reference)
        if found is None:
            return None
        offer, until = found
        return offer, time.monotonic() > until

    def of(self, client: ConnectedClient) -> PairingOffer | None:
        """The offer of a client that is still connected, or None."""
        return self._by_client.get(client)

    def withdraw(self, client: ConnectedClient) -> None:
        """Withdraw the client's offer, if it has one: the client is gone."""
        offer = self._by_client.pop(client, None)
        if offer is not None:
            offer.withdraw("the client that showed this QR code is gone")
