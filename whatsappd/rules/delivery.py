"""The states of an accepted message: a literal table of what each cause does in each state.

The outbox asks it before each change of a row. Rules:

1. Only `begun` hands a row to WhatsApp, and only from `queued`.
2. A row whose hand-over has an unknown fate is `uncertain`; nothing but knowledge (an ack, a
   receipt, proof that it never left) or a decision (a person's, or the sender's beforehand) moves
   it on. It is never sent again by itself.
3. Proof wins over everything that is not final: an ack or a receipt of an earlier attempt makes a
   row `sent` or `delivered` even while it is queued for the next one.
4. Receipts only move forward: delivered, read, played.
5. Only a message that nobody is known to have goes back from `sent` to `queued`, and once only: a
   device could not read it, and the library had forgotten it by then (`rules.retry_receipts`).
6. `failed`, `expired`, `cancelled` and `played` are final.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from whatsappd.errors import InvalidParams, WrongState
from whatsappd.model.message import OutboxState, Row


class Cause(StrEnum):
    """Why a row changes its state."""

    BEGUN = "begun"  # handed to the worker
    ACKNOWLEDGED = "acknowledged"  # WhatsApp's server took it
    DELIVERED = "delivered"  # receipts, by what they tell
    READ = "read"
    PLAYED = "played"
    ASKED_AGAIN = "asked_again"  # a device could not read it, and only the daemon still has it
    REFUSED = "refused"  # permanently: WhatsApp, or a check before the hand-over, says no
    POSTPONED = "postponed"  # not sent for a passing reason
    LOST = "lost"  # handed over, and nobody knows what became of it
    NEVER_SENT = "never_sent"  # there is proof now that it never left
    DECIDED_SENT = "decided_sent"  # `message.resolve`
    DECIDED_RESEND = "decided_resend"  # `message.resolve`, or `on_uncertain` beforehand
    DECIDED_FAILED = "decided_failed"  # `message.resolve`
    CANCELLED = "cancelled"
    EXPIRED = "expired"


S = OutboxState
C = Cause

TRANSITIONS: Mapping[OutboxState, Mapping[Cause, OutboxState]] = {
    S.QUEUED: {
        C.BEGUN: S.SENDING,
        C.REFUSED: S.FAILED,
        C.CANCELLED: S.CANCELLED,
        C.EXPIRED: S.EXPIRED,
        # of an earlier attempt, whose fate was unknown
        C.ACKNOWLEDGED: S.SENT,
        C.DELIVERED: S.DELIVERED,
        C.READ: S.READ,
        C.PLAYED: S.PLAYED,
    },
    S.SENDING: {
        C.ACKNOWLEDGED: S.SENT,
        C.REFUSED: S.FAILED,
        C.POSTPONED: S.QUEUED,
        C.LOST: S.UNCERTAIN,
        # The receipt of a message can overtake its ack.
        C.DELIVERED: S.DELIVERED,
        C.READ: S.READ,
        C.PLAYED: S.PLAYED,
    },
    S.UNCERTAIN: {
        C.ACKNOWLEDGED: S.SENT,
        C.DELIVERED: S.DELIVERED,
        C.READ: S.READ,
        C.PLAYED: S.PLAYED,
        C.NEVER_SENT: S.QUEUED,
        C.DECIDED_SENT: S.SENT,
        C.DECIDED_RESEND: S.QUEUED,
        C.DECIDED_FAILED: S.FAILED,
    },
    S.SENT: {
        C.DELIVERED: S.DELIVERED,
        C.READ: S.READ,
        C.PLAYED: S.PLAYED,
        C.ASKED_AGAIN: S.QUEUED,
    },
    S.DELIVERED: {
        C.READ: S.READ,
        C.PLAYED: S.PLAYED,
    },
    S.READ: {
        C.PLAYED: S.PLAYED,
    },
    S.PLAYED: {},
    S.FAILED: {},
    S.EXPIRED: {},
    S.CANCELLED: {},
}

#: WhatsApp's server has it: `sent` and whatever follows.
SENT_OR_BEYOND = frozenset({S.SENT, S.DELIVERED, S.READ, S.PLAYED})

#: Work is left to do, or a decision to take: such rows are never deleted by retention.
OPEN = frozenset({S.QUEUED, S.SENDING, S.UNCERTAIN})

#: The causes that are receipts, in the order in which they supersede each other.
RECEIPTS = (C.DELIVERED, C.READ, C.PLAYED)

#: What a person may decide about an uncertain row, as `message.resolve` names it.
DECISIONS = {
    "sent": C.DECIDED_SENT,
    "resend": C.DECIDED_RESEND,
    "failed": C.DECIDED_FAILED,
}

#: Why a row expired, in words.
TOO_LATE = "its time to live passed before it could be sent"

#: The causes that tell what became of an attempt.
KNOWLEDGE = frozenset({C.ACKNOWLEDGED, C.NEVER_SENT, *RECEIPTS})


#: Where a row is while no attempt runs: knowledge that comes then is about a lost one.
_BETWEEN = frozenset({S.QUEUED, S.UNCERTAIN})


def next_state(state: OutboxState, cause: Cause) -> OutboxState:
    """What `cause` makes of a row in `state`.

    Raises:
        WrongState: nothing; the message says what the state allows.
    """
    found = TRANSITIONS[state].get(cause)
    if found is None:
        allowed = ", ".join(TRANSITIONS[state]) or "nothing"
        raise WrongState(
            f"a message that is {state} cannot be {cause.replace('_', ' ')} "
            f"(possible from here: {allowed})",
            state=str(state),
        )
    return found


def moved(row: Row, cause: Cause, now_ms: int) -> dict[str, Any]:
    """What `cause` changes of `row`: its new state, and the fields that belong to a state.

    The reason and the time before which it must wait are the old state's, so they go.

    Raises:
        WrongState: it changes nothing; the message says what the state allows.
    """
    changes: dict[str, Any] = {
        "state": next_state(row.state, cause),
        "reason": None,
        "not_before_ms": 0,
        "updated_ms": now_ms,
    }
    if row.lost_attempts and row.state in _BETWEEN and cause in KNOWLEDGE:
        changes["lost_attempts"] = row.lost_attempts - 1  # one fate less that nobody knows
    return changes


def receipt_cause(kind: str) -> Cause:
    """The cause that a receipt of that kind is. Raises InvalidParams if it is none."""
    if kind not in RECEIPTS:
        raise InvalidParams(f"kind: {kind!r:.40} is none of {', '.join(RECEIPTS)}", field="kind")
    return Cause(kind)


def advances(state: OutboxState, cause: Cause) -> bool:
    """Whether `cause` changes a row in `state`: how receipts are kept from moving one back."""
    return cause in TRANSITIONS[state]


def can_reach(state: OutboxState, goals: Collection[OutboxState]) -> bool:
    """Whether a row in `state` is in one of `goals`, or may still get there.

    A waiter for `delivered` learns from it that waiting for a `failed` row is useless.
    """
    return not _REACHABLE[state].isdisjoint(goals)


def _reachable(state: OutboxState) -> frozenset[OutboxState]:
    found = {state}
    pending = [state]
    while pending:
        for following in TRANSITIONS[pending.pop()].values():
            if following not in found:
                found.add(following)
                pending.append(following)
    return frozenset(found)


_REACHABLE = {state: _reachable(state) for state in OutboxState}
