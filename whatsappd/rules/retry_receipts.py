"""What to do when a device cannot read a message and asks for it again (a retry receipt).

whatsmeow answers such a receipt by itself while it remembers the message; it remembers the last 256
of them, in memory, until its process ends. After that only the outbox has the content. neonize can
send that only as a new message, to all of the recipient's devices, and a device that could read the
first one would show both. So the message is sent again at most once, and only if no device is known
to have it. Called by the store.
"""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.model.jid import LID_SERVER, USER_SERVER, parse_jid
from whatsappd.model.message import OutboxState, Row

#: Milliseconds to wait before the message is sent again: another device's receipt for it may be on
#: its way.
RECEIPT_GRACE_MS = 3_000


class RetryReceiptAnswer(NamedTuple):
    """What follows from a retry receipt.

    Attributes:
        sends_anew: whether the message is sent again.
        reason: why or why not, for people; None if nothing needs to be said.
    """

    sends_anew: bool
    reason: str | None


def answer_retry_receipt(row: Row, message_id: str, device: str, now_ms: int) -> RetryReceiptAnswer:
    """Decide what follows when `device` (a JID) could not read `row`, sent as `message_id`."""
    who = f"the device {device} could not read it"
    if row.state is OutboxState.QUEUED:
        return RetryReceiptAnswer(False, None)  # it is sent anew already, or was never sent
    if parse_jid(row.chat).server not in (USER_SERVER, LID_SERVER):
        return RetryReceiptAnswer(False, f"{who}, and others of the group may have read it")
    if row.state is not OutboxState.SENT:
        return RetryReceiptAnswer(False, f"{who}; another device of the recipient has it")
    if row.former_message_id is not None:
        return RetryReceiptAnswer(False, f"{who}, though it was sent anew: it may not have arrived")
    if row.expires_ms is not None and row.expires_ms <= now_ms:
        return RetryReceiptAnswer(
            False, f"{who}, and its time to live has passed: it did not arrive"
        )
    return RetryReceiptAnswer(True, f"{who} and asked for it again: it is sent anew")
