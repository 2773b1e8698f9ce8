"""What to do when a device cannot read a message and asks for it again (a retry receipt).

whatsmeow answers by itself, to that device alone, as long as it remembers the message: 256 of them,
in memory, until its process ends. After that only the outbox has the text. neonize can send it as a
new message only, to all of the recipient's devices: whoever has read the first would see it twice.
So it is sent anew only if nobody is known to have it, and once. Called by the store.
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.model.jid import LID_SERVER, USER_SERVER, parse_jid
from whatsappd.model.message import OutboxState, Row

#: Before it is sent anew, in milliseconds: another device's receipt for it may be on its way.
RECEIPT_GRACE_MS = 3_000


class AskingAnswer(NamedTuple):
    """`reason` is for people; None: there is nothing to tell."""

    sends_anew: bool
    reason: str | None


def answer_asking(row: Row, message_id: str, device: str, now_ms: int) -> AskingAnswer:
    """What follows for `row`, which `device` (a JID) cannot read under `message_id`."""
    who = f"the device {device} could not read it"
    if row.state is OutboxState.QUEUED:
        return AskingAnswer(False, None)  # it is sent anew already, or was never sent
    if parse_jid(row.chat).server not in (USER_SERVER, LID_SERVER):
        return AskingAnswer(False, f"{who}, and others of the group may have read it")
    if row.state is not OutboxState.SENT:
        return AskingAnswer(False, f"{who}; another device of the recipient has it")
    if row.former_message_id is not None:
        return AskingAnswer(False, f"{who}, though it was sent anew: it may not have arrived")
    if row.expires_ms is not None and row.expires_ms <= now_ms:
        return AskingAnswer(False, f"{who}, and its time to live has passed: it did not arrive")
    return AskingAnswer(True, f"{who} and asked for it again: it is sent anew")
