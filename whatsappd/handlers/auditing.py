"""Recording who did what: wraps the handlers of methods that change something.

This decides which calls go into the audit trail: every method that `writes`, and every answer that
shows a QR code. Left out are acknowledgements of events, thousands a minute, and the sandbox's own
methods. `handlers.access` records the calls that the access rules deny.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from whatsappd.api.daemon import DaemonStatus
from whatsappd.api.sessions import SessionInfo, SessionList
from whatsappd.clock import now_ms
from whatsappd.errors import Denied, WhatsappdError
from whatsappd.model.audit import AuditNote, AuditRecord
from whatsappd.rpc.method import Call, Method
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.store.audit_trail import AuditTrail

_NOT_AUDITED = frozenset(
    {
        *("events.ack", "key.follow", "gateway.report"),
        # What is listed, and the bookkeeping of whoever delivers.
        *("webhook.list", "webhook.get", "webhook.dead_letters"),
        *("webhook.deliver", "webhook.work", "webhook.progress", "webhook.tested"),
        *("webhook.next_resend", "webhook.resent"),
    }
)
#: What writes its line with the change itself (see `note`): only its failures are recorded here.
_WITHIN = frozenset(
    {
        *("key.create", "key.revoke", "session.remove"),
        *("webhook.create", "webhook.update", "webhook.remove"),
    }
)
#: What may show QR codes beside other things.
_SHOWING = frozenset({"session.status", "session.list", "daemon.status"})
#: The subject of a line about somebody who was shown a QR code.
QR = "qr"


def audited(methods: Iterable[Method], trail: AuditTrail) -> list[Method]:
    """The same methods, of which those that change something or show codes write to `trail`."""
    return [_audited(method, trail) if _matters(method) else method for method in methods]


def _matters(method: Method) -> bool:
    if method.name in _SHOWING:
        return True
    return (
        method.writes and method.name not in _NOT_AUDITED and not method.name.startswith("sandbox.")
    )


def note(call: Call, method: str, company: str | None = None) -> AuditNote:
    """The audit line of `method`, to be written in the same transaction as its change."""
    return lambda subject: line_of(call.peer, call.actor, method, company, subject, "ok")


def line_of(
    peer: Peer,
    actor: str | None,
    method: str,
    company: str | None,
    subject: str | None,
    outcome: str,
) -> AuditRecord:
    """A line about a call that was just answered.

    Args:
        actor: whom the peer calls for, if it is trusted to say so; None: for its own user.
    """
    who = actor or f"uid:{peer.uid}"
    return AuditRecord(now_ms(), who, peer.pid, method, company, subject, outcome)


def subject_of(params: Any) -> str | None:
    """What a call is about beside a company: an id, or a file."""
    return _text(getattr(params, "id", None)) or _text(getattr(params, "path", None))


def company_of(params: Any) -> str | None:
    return _text(getattr(params, "company", None))


def _audited(method: Method, trail: AuditTrail) -> Method:
    handler: Callable[[Call, Any], Any] = method.handler
    name = method.name
    is_within, is_showing = name in _WITHIN, name in _SHOWING

    def record(call: Call, params: Any, result: Any, outcome: str, about: str | None) -> None:
        who = call.peer, call.actor
        if is_showing:
            for shown in _codes_in(result):
                trail.record_repeatable(line_of(*who, name, shown, QR, "ok"))
            return
        if is_within and outcome in ("ok", "interrupted"):
            return
        company = company_of(params) or about or _member(result, "company")
        subject = subject_of(params) or _member(result, "id")
        if name == "session.qr":
            trail.record_repeatable(line_of(*who, name, company, QR, outcome))
        else:
            trail.record(line_of(*who, name, company, subject, outcome))

    async def audited_async(call: Call, params: Any) -> Any:
        result: Any = None
        about: str | None = None
        outcome: str | None = "interrupted"  # the caller left before the answer
        try:
            result = await handler(call, params)
            outcome = "ok"
        except WhatsappdError as error:
            outcome, about = _failure(error)
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            if outcome is not None:
                record(call, params, result, outcome, about)
        return result

    def audited_plain(call: Call, params: Any) -> Any:
        result: Any = None
        about: str | None = None
        outcome: str | None = "internal"
        try:
            result = handler(call, params)
            outcome = "ok"
        except WhatsappdError as error:
            outcome, about = _failure(error)
            raise
        finally:
            if outcome is not None:
                record(call, params, result, outcome, about)
        return result

    wrapped = audited_async if method.is_async else audited_plain
    return method.with_handler(wrapped)


def _failure(error: WhatsappdError) -> tuple[str | None, str | None]:
    """The outcome, and the company that it was about. No outcome: it is recorded already."""
    if isinstance(error, Denied) and "method" in error.data:
        return None, None  # by `handlers.access`
    return error.name, error.company or _text(error.data.get("company"))


def _codes_in(result: Any) -> Iterator[str]:
    """The companies whose QR codes are in an answer."""
    match result:
        case SessionInfo():
            shown = [result]
        case SessionList():
            shown = result.sessions
        case DaemonStatus():
            shown = result.companies
        case _:
            return
    for status in shown:
        if status.qr:
            yield status.company


def _member(result: Any, name: str) -> str | None:
    return _text(getattr(result, name, None))


def _text(value: Any) -> str | None:
    # What a caller wrote and nobody checked yet may be long.
    return value[:100] if isinstance(value, str) else None
