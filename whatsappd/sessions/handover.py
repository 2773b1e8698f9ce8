"""What became of a hand-over, told to the outbox: the one place where a row's fate is decided.

Called by the dispatcher after each attempt, and by the session when a worker opens the account.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog

from whatsappd.clock import booted_ms, now_ms
from whatsappd.errors import StoreFailed, UnknownMessage, WrongState
from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.backoff import full_jitter
from whatsappd.rules.send_errors import Fate, Verdict
from whatsappd.sessions.attempts import Evidence, find_attempts
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
    database: Path,
    *,
    jid: str | None,
) -> None:
    """Settle attempts that an earlier worker left without an answer.

    Args:
        database: the account's own, which is asked about them.
        jid: the linked device's; None: there is none any more.
    """
    secrets = [secret for _, secret in attempts]
    try:
        evidence = await find_attempts(database, secrets, jid=jid)
        await _settle_by(evidence, outbox, company, attempts, boot_ms=booted_ms())
    except (StoreFailed, WrongState, UnknownMessage) as error:
        # The disk is full, or somebody decided about one meanwhile. The others stay as they are,
        # shown as such, and the next worker asks again.
        log.error("attempts_not_settled", company=company, reason=error.message)


async def _settle_by(
    evidence: Evidence,
    outbox: Outbox,
    company: str,
    attempts: Sequence[Handover],
    *,
    boot_ms: int,
) -> None:
    """An attempt whose absence is proved is queued again.

    Unless the host went down since (it came up at `boot_ms`), which may have taken the database's
    last writes along.
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
