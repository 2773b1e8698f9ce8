"""What became of a hand-over, told to the outbox: the one place where a row's fate is decided.

Called by the dispatcher after each attempt, and by the session when a worker opens the account
after an attempt was cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from whatsappd.clock import now_ms
from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.backoff import full_jitter
from whatsappd.rules.send_errors import Fate, Verdict
from whatsappd.sessions.attempts import Evidence
from whatsappd.store.outbox import Handover, Outbox

log = structlog.get_logger()

#: Between attempts of a message that WhatsApp (or the way to it) refused for a passing reason.
RETRY_BASE_MS = 2_000
RETRY_CAP_MS = 600_000

_CUT_OFF = "the session ended while the message was being handed over"


async def settle_refusal(
    outbox: Outbox, row: Row, verdict: Verdict, *, message_id: str | None, chance: float
) -> Row:
    """Record what an attempt that whatsmeow refused came to.

    Args:
        message_id: of an attempt of unknown fate, if the account's database has it: receipts then
            tell its fate.
    """
    match verdict.fate:
        case Fate.PERMANENT:
            return await outbox.failed(row.id, verdict.reason)
        case Fate.PASSING:
            delay = full_jitter(
                row.attempts, base_ms=RETRY_BASE_MS, cap_ms=RETRY_CAP_MS, chance=chance
            )
            return await outbox.passing(row.id, verdict.reason, now_ms() + delay)
        case Fate.UNKNOWN:
            return await outbox.uncertain(row.id, verdict.reason, message_id=message_id)


async def settle_cut_off(
    outbox: Outbox,
    company: str,
    attempts: Sequence[Handover],
    evidence: Evidence,
    *,
    boot_ms: int,
) -> None:
    """Settle attempts that ended without an answer, now that the account's database was asked.

    Args:
        evidence: an attempt whose absence is proved is queued again: unless the host went down
            since, which may have taken the database's last writes along.
        boot_ms: when the host came up.
    """
    for row, secret in attempts:
        message_id = evidence.message_ids.get(secret)
        was_sending = row.state is OutboxState.SENDING
        if message_id is None and not evidence.proves_absence:
            row_now = await outbox.untraceable(row.id, "the account was unlinked meanwhile")
        elif message_id is None and (row.handed_ms or 0) < boot_ms:
            if not was_sending:
                continue
            row_now = await outbox.uncertain(row.id, "the host went down while it was being sent")
        elif message_id is None:
            if was_sending:
                row_now = await outbox.passing(row.id, f"{_CUT_OFF}; it was not sent", 0)
            else:
                row_now = await outbox.never_sent(row.id, f"{_CUT_OFF}; it was not sent")
        elif was_sending:
            row_now = await outbox.uncertain(row.id, _CUT_OFF, message_id=message_id)
        else:
            row_now = await outbox.identified(row.id, message_id)
        log.info("attempt_settled", company=company, id=row.id, state=str(row_now.state))
