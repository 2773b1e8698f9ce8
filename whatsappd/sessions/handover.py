"""Records in the outbox what became of attempts that were refused, or that had no answer.

The dispatcher calls it after a refusal, and records acknowledgements itself (`Dispatcher._record`).
The session calls it when a new worker opens the account, for attempts that the last one left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog
import trio

from whatsappd.clock import settled_ms
from whatsappd.engines.port import AttemptEvidence
from whatsappd.engines.protocol import SendFate, SendRefusal
from whatsappd.errors import StoreFailed, UnknownMessage, WrongState
from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.backoff import full_jitter
from whatsappd.store.port import Handover, OutboxHandovers

log = structlog.get_logger()

#: Between attempts of a message that WhatsApp (or the way to it) refused for a passing reason.
RETRY_BASE_MS = 2_000
RETRY_CAP_MS = 600_000

_CUT_OFF = "the session ended while the message was being handed over"


async def settle_refusal(
    handovers: OutboxHandovers,
    row: Row,
    refusal: SendRefusal,
    *,
    message_id: str | None,
    chance: float,
) -> Row:
    """Record a refused attempt: the row fails, is tried again later, or becomes `uncertain`.

    Args:
        message_id: of an attempt of unknown fate, if the account's database has it: receipts then
            tell its fate.
    """
    match refusal.fate:
        case SendFate.PERMANENT:
            return await handovers.fail(row.id, refusal.reason)
        case SendFate.PASSING | SendFate.RESTRICTED:
            delay = full_jitter(
                row.attempts, base_ms=RETRY_BASE_MS, cap_ms=RETRY_CAP_MS, chance=chance
            )
            return await handovers.postpone(row.id, refusal.reason, settled_ms() + delay)
        case SendFate.UNKNOWN:
            return await handovers.mark_uncertain(row.id, refusal.reason, message_id=message_id)


async def give_up_orphans(handovers: OutboxHandovers, wanted: Collection[str]) -> Sequence[Row]:
    """At the daemon's start: settle attempts that its last end cut off, and nobody will look up.

    The next worker of a company in `wanted` finds out what became of its attempts; those of other
    companies become `uncertain`, or `queued` where the sender chose `resend`. Returns these rows.
    """
    return [
        await handovers.mark_uncertain(row.id, "the daemon ended while it was being sent")
        for row, *_ in await handovers.interrupted()
        if row.company not in wanted and row.state is OutboxState.SENDING
    ]


async def settle_cut_off(
    handovers: OutboxHandovers,
    company: str,
    attempts: Sequence[Handover],
    find: Callable[[Collection[bytes]], Awaitable[AttemptEvidence]],
    *,
    retry_s: float,
) -> None:
    """Settle attempts that an earlier worker left without an answer.

    If the disk is full or fails, this tries again until it succeeds; the chats of these messages
    wait meanwhile.

    Args:
        find: asks the account's database about them, by their secrets; see
            `Engine.find_attempts`.
        retry_s: between two tries.
    """
    secrets = {attempt.secret for attempt in attempts}
    complained = False
    while secrets:
        try:
            # Looked up anew: somebody may have decided about one, and another attempt be under way.
            left = [each for each in await handovers.interrupted(company) if each.secret in secrets]
            evidence = await find(secrets)
            for attempt in left:
                await _settle(attempt, evidence, handovers)
            return
        except StoreFailed as error:
            if not complained:
                log.error("attempts_wait_for_store", company=company, reason=error.message)
            complained = True
        await trio.sleep(retry_s)


async def _settle(attempt: Handover, evidence: AttemptEvidence, handovers: OutboxHandovers) -> None:
    """Record what became of one attempt; if somebody was faster, that counts."""
    row = attempt.row
    try:
        row_now = await _settle_by(evidence, handovers, attempt)
    except (WrongState, UnknownMessage) as error:
        log.info("attempt_settled_already", company=row.company, id=row.id, reason=error.message)
        return
    if row_now is not None:
        log.info("attempt_settled", company=row.company, id=row.id, state=str(row_now.state))


async def _settle_by(
    evidence: AttemptEvidence, handovers: OutboxHandovers, attempt: Handover
) -> Row | None:
    """Record what the account's database says about one attempt.

    If the message was certainly not sent, it is queued again; but not if the host went down since,
    because the last writes of that database may be lost. Returns None if the row stays as it is.
    """
    row = attempt.row
    message_id = evidence.message_ids.get(attempt.secret)
    was_sending = row.state is OutboxState.SENDING
    if message_id is None and not evidence.proves_absence:
        return await handovers.mark_untraceable(row.id, evidence.why_not)
    if message_id is None and not attempt.of_this_boot:
        if not was_sending:
            return None
        return await handovers.mark_uncertain(row.id, "the host went down while it was being sent")
    if message_id is None:
        if was_sending:
            return await handovers.postpone(row.id, f"{_CUT_OFF}; it was not sent", 0)
        return await handovers.requeue_unsent(row.id, f"{_CUT_OFF}; it was not sent")
    if was_sending:
        return await handovers.mark_uncertain(row.id, _CUT_OFF, message_id=message_id)
    return await handovers.identify(row.id, message_id)
