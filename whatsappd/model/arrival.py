"""What arrives from WhatsApp through a company's worker, with all that follows from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from whatsappd.model.event import Draft


class Receipt(NamedTuple):
    """`kind` is delivered, read or played; `time_ms` epoch milliseconds."""

    message_ids: Sequence[str]
    kind: str
    time_ms: int


class AskedAgain(NamedTuple):
    """A device (a JID) could not read a message, and WhatsApp's library has forgotten it."""

    message_id: str
    chat: str  # of the receipt, by which whoever asks is known to be the recipient
    device: str
    wait_ms: int  # before it is sent anew


class Arrival(NamedTuple):
    """One event from a worker, with what follows from it."""

    draft: Draft | None  # None: it is told by what follows from it
    number: int | None = None  # the worker's; None: it is not numbered
    receipt: Receipt | None = None
    people: Collection[str] = ()
    writers: Collection[str] = ()  # those of the people who wrote to the company
    identity: tuple[str, str] | None = None  # somebody's LID and phone-number JID
    asked_again: AskedAgain | None = None
