"""Recording who did what: wraps the handlers of methods that change something.

The one place that knows which calls go into the audit trail: everything that `writes`, but moving
a consumer's cursor (its owner's bookkeeping, thousands a minute) and the sandbox's own methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from whatsappd.clock import now_ms
from whatsappd.errors import WhatsappdError
from whatsappd.rpc.method import Call, Method
from whatsappd.store.audit import AuditTrail, Line

_NOT_AUDITED = frozenset(
    {
        *("events.ack", "key.follow"),
        # What is listed, and the bookkeeping of whoever delivers.
        *("webhook.list", "webhook.get", "webhook.dead_letters"),
        *("webhook.deliver", "webhook.work", "webhook.progress", "webhook.tested"),
        *("webhook.next_resend", "webhook.resent"),
    }
)


def audited(methods: Iterable[Method], trail: AuditTrail) -> list[Method]:
    """The same methods; those that change something leave a line in `trail`."""
    return [_audited(method, trail) if _matters(method) else method for method in methods]


def _matters(method: Method) -> bool:
    return (
        method.writes and method.name not in _NOT_AUDITED and not method.name.startswith("sandbox.")
    )


def actor_of(call: Call) -> str:
    """Who calls: what a trusted peer says, else the peer's user."""
    return call.actor or f"uid:{call.peer.uid}"


def _audited(method: Method, trail: AuditTrail) -> Method:
    handler: Callable[[Call, Any], Any] = method.handler

    def record(call: Call, params: Any, result: Any, outcome: str) -> None:
        trail.record(
            Line(
                time_ms=now_ms(),
                actor=actor_of(call),
                pid=call.peer.pid,
                method=method.name,
                company=_text(getattr(params, "company", None)) or _member(result, "company"),
                subject=_text(getattr(params, "id", None)) or _member(result, "id"),
                outcome=outcome,
            )
        )

    async def audited_async(call: Call, params: Any) -> Any:
        result: Any = None
        outcome = "interrupted"  # the caller left before the answer; the work may go on
        try:
            result = await handler(call, params)
            outcome = "ok"
        except WhatsappdError as error:
            outcome = error.name
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            record(call, params, result, outcome)
        return result

    def audited_plain(call: Call, params: Any) -> Any:
        result: Any = None
        outcome = "internal"
        try:
            result = handler(call, params)
            outcome = "ok"
        except WhatsappdError as error:
            outcome = error.name
            raise
        finally:
            record(call, params, result, outcome)
        return result

    wrapped = audited_async if method.is_async else audited_plain
    return method.with_handler(wrapped)


def _member(result: Any, name: str) -> str | None:
    return _text(result.get(name)) if isinstance(result, dict) else None


def _text(value: Any) -> str | None:
    # What a caller wrote and nobody checked yet may be long.
    return value[:100] if isinstance(value, str) else None
