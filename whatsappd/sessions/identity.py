"""Who a session is on WhatsApp, and its status as a value."""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.model.session import SessionStatus
from whatsappd.rules.lifecycle import SessionCause
from whatsappd.sessions.machine import SessionMachine


class SessionIdentity(NamedTuple):
    """The linked device, by both of its addresses; None: it is not linked, or that is not known."""

    jid: str | None = None
    lid: str | None = None
    push_name: str | None = None


class StatusFacts(NamedTuple):
    """What `status` tells beside the machine's state. Times are epoch milliseconds."""

    company: str
    wanted: bool
    identity: SessionIdentity
    account: str | None  # the JID of the account that the company is bound to
    worker_pid: int | None
    qr: str | None  # the code to scan, while pairing
    last_inbound_ms: int | None


def status_of(
    machine: SessionMachine,
    facts: StatusFacts,
    *,
    queued: int,
    outreach_paused_until_ms: int | None,
) -> SessionStatus:
    """A session's status, as `session.status` answers it."""
    return SessionStatus(
        company=facts.company,
        wanted=facts.wanted,
        state=str(machine.state),
        since_ms=machine.since.wall_ms,
        cause=machine.cause,
        next_try_ms=machine.next_try.wall_ms if machine.next_try else None,
        restarts=machine.restarts,
        recycled=machine.counters.restarts[SessionCause.RECYCLED],
        last_recycled=machine.last_recycled,
        worker_pid=facts.worker_pid,
        jid=facts.identity.jid,
        lid=facts.identity.lid,
        push_name=facts.identity.push_name,
        qr=facts.qr,
        last_inbound_ms=facts.last_inbound_ms,
        last_error=machine.last_error,
        last_error_ms=machine.last_error_ms,
        queued=queued,
        outreach_paused_until_ms=outreach_paused_until_ms,
        account=facts.account,
    )
