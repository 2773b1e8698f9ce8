"""A device that cannot read a message: what is sent anew, and what is only told."""

from __future__ import annotations

import pytest

from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.retry_receipts import answer_retry_receipt

ROW = Row._make([None] * len(Row._fields))._replace(
    chat="15550200@s.whatsapp.net", state=OutboxState.SENT, message_id="M1"
)
DEVICE = "200:4@lid"


@pytest.mark.parametrize(
    ("changes", "sends_anew", "words"),
    [
        ({}, True, "sent anew"),
        ({"chat": "200@lid"}, True, "sent anew"),
        ({"expires_ms": 1001}, True, "sent anew"),
        ({"expires_ms": 1000}, False, "time to live"),
        ({"former_message_id": "M0"}, False, "may not have arrived"),
        ({"chat": "120363@g.us"}, False, "others of the group"),
        ({"state": OutboxState.DELIVERED}, False, "another device"),
        ({"state": OutboxState.READ}, False, "another device"),
        ({"state": OutboxState.PLAYED}, False, "another device"),
        ({"state": OutboxState.QUEUED}, False, None),
    ],
)
def test_what_follows(changes: dict[str, object], sends_anew: bool, words: str | None) -> None:
    answer = answer_retry_receipt(ROW._replace(**changes), "M1", DEVICE, 1000)
    assert answer.sends_anew is sends_anew
    if words is None:
        assert answer.reason is None
    else:
        assert answer.reason is not None
        assert words in answer.reason
        assert DEVICE in answer.reason
