"""Lines of the audit trail: who did what."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class AuditRecord(NamedTuple):
    """One call, or `times` like calls, of which it is the last. `time_ms` is when it was answered,
    in epoch milliseconds.

    `actor` is `uid:1000` for a process on this host (then `pid` is its own), and what the gateway
    says for its callers: `key:ID` (then `pid` is the gateway's).
    """

    time_ms: int
    actor: str
    pid: int
    method: str
    company: str | None
    subject: str | None  # a message's, key's or webhook's id, a file's path, or `qr` for a look
    outcome: str  # "ok", or the error's name
    times: int = 1

    @property
    def kind(self) -> str:
        """Whose budget it takes: `change`, `message` or `failure`."""
        if self.outcome not in ("ok", "interrupted"):
            return "failure"
        return "message" if self.method.startswith("message.") else "change"


#: Makes the line of a change, which is stored in the change's own transaction. It is given the
#: subject's id, if there is a subject beside the company, and runs in any thread.
AuditNote = Callable[[str | None], AuditRecord]
