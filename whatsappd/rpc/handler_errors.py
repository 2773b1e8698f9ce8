"""Turns an exception of a handler into an answer for the caller; details go to the log only."""

from __future__ import annotations

import secrets
from time import monotonic

import structlog

from whatsappd.errors import Internal, WhatsappdError
from whatsappd.rules.bounds import ALL_DEFECT_LINES, DEFECT_LINES
from whatsappd.rules.log_throttle import LogThrottle

log = structlog.get_logger()

_lines = LogThrottle(DEFECT_LINES, ALL_DEFECT_LINES)


def answerable(error: Exception, *, doing: str) -> WhatsappdError:
    """The error to answer: `error` itself if it is meant for callers, else an `Internal`.

    An `Internal` carries a reference only; the traceback is logged beside the same reference,
    because it may name what the caller must not see. Of many failures of one method some are
    logged, and the others counted.

    Args:
        doing: the method or task, for the log.
    """
    cause = _only_cause(error)
    if isinstance(cause, WhatsappdError):
        return cause
    # Whoever finds a defect may call it again and again, and a traceback has kilobytes.
    doing = doing[:80]
    left_out = _lines.left_out("rpc_handler_failed", doing, now=monotonic())
    if left_out is None:
        return Internal("a defect of the daemon; its log has the details of earlier ones like it")
    reference = secrets.token_hex(4)
    log.error(
        "rpc_handler_failed", method=doing, reference=reference, left_out=left_out, exc_info=error
    )
    return Internal(
        f"a defect of the daemon; its log has the details under reference {reference}",
        reference=reference,
    )


def _only_cause(error: BaseException) -> BaseException:
    # A handler's own nursery wraps what one of its tasks raised, also when it is alone.
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
