"""The audit trail: who sent, who changed sessions, keys and webhooks, who looked at QR codes, and
who was refused.

`handlers.auditing` records a line for each such call, and `handlers.access` one for each call that
the rules deny; `daemon.audit` reads them. A line costs its caller no wait: lines gather for a
moment, so it is on disk some 50 milliseconds after the answer, and only a crash of the host or a
SIGKILL in that moment loses it. What changes rights (keys and webhooks), and the removal of a
company, writes its line in its own transaction instead (`AuditNote`): both are on disk, or neither.
No message text, phone number or secret is in a line.

Calls that fail, and looks at codes, cost nothing to repeat. So the first is a line, and what is
repeated within a minute is counted into one more; and lines of each kind have a budget of their
own, so that no flood of one kind can push out the others.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import structlog
import trio

from whatsappd.errors import StoreFailed
from whatsappd.model.audit import AuditRecord
from whatsappd.rules.bounds import FAILED_LINES, Pace
from whatsappd.store.port import AuditRecords

log = structlog.get_logger()

#: Lines held while the disk takes none; then the oldest are lost, and the log says so.
MAX_PENDING = 10_000
#: Lines of one transaction.
MAX_BATCH = 1000
#: Seconds for which lines gather: a transaction of its own for each would halve the pace of whoever
#: sends one message after the other.
GATHER_S = 0.05
#: Seconds between attempts while the disk takes nothing.
RETRY_S = 1.0
#: How long lines are kept, and how many of each kind: about 130 MB together.
MAX_AGE_MS = 90 * 24 * 3600 * 1000
MAX_LINES = {"change": 200_000, "message": 1_000_000, "failure": 100_000}
#: Seconds for which repeated calls are counted into one line.
REPEATS_FOR = 60.0
#: Different calls that are counted at a time. Those beyond are counted together, by their caller,
#: and with a thousand callers altogether.
MAX_REPEATED = 1000


class _Repeated:
    """Like calls since `began` (by trio's clock). The first of them is a line already."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.count = 0
        self.last: AuditRecord | None = None


class AuditTrail:
    """Gathers lines for the store. `run` is started by the composition root."""

    def __init__(self, stored: AuditRecords) -> None:
        self._stored = stored
        self._pending: deque[AuditRecord] = deque()
        self._more = trio.Event()
        self._lost = 0
        self._repeated: dict[tuple[str | None, ...], _Repeated] = {}
        self._pace = Pace(FAILED_LINES)

    def record(self, line: AuditRecord) -> None:
        """Take a line; it is written as soon as the writer is free."""
        if line.kind == "failure":
            self.record_repeatable(line)
        else:
            self._append(line)

    def record_repeatable(self, line: AuditRecord) -> None:
        """Take a line of a call that may be repeated without end: like ones are counted."""
        now = trio.current_time()
        which: tuple[str | None, ...] = (line.actor, line.method, line.company, line.outcome)
        repeated = self._repeated.get(which)
        is_room = repeated is None and len(self._repeated) < MAX_REPEATED
        if is_room and self._pace.allows(line.actor, now):
            self._repeated[which] = _Repeated(now)
            self._append(line)
            return
        if repeated is None:
            # So many different ones of this caller, or of all: they are counted together.
            line = line._replace(method="*", company=None, subject=None, outcome="several")
            which = (line.actor,)
            if which not in self._repeated and len(self._repeated) >= 2 * MAX_REPEATED:
                which, line = ("*",), line._replace(actor="*", pid=0)
            repeated = self._repeated.setdefault(which, _Repeated(now))
        repeated.count += 1
        repeated.last = line
        self._more.set()

    def _sum_up(self, until: float) -> None:
        """Make lines of what was counted in periods that began before `until`."""
        for which, repeated in list(self._repeated.items()):
            if repeated.began <= until:
                del self._repeated[which]
                if repeated.last is not None:
                    self._append(repeated.last._replace(times=repeated.count))

    def _append(self, line: AuditRecord) -> None:
        if len(self._pending) >= MAX_PENDING:
            self._pending.popleft()
            self._lost += 1
        self._pending.append(line)
        self._more.set()

    async def run(self) -> None:
        """Write lines until cancelled; what is pending then is written before the end."""
        try:
            while True:
                if self._repeated:
                    with trio.move_on_after(REPEATS_FOR / 2):
                        await self._more.wait()
                else:
                    await self._more.wait()
                await trio.sleep(GATHER_S)
                self._sum_up(trio.current_time() - REPEATS_FOR)
                if not await self._flush():
                    await trio.sleep(RETRY_S)
        finally:
            with trio.move_on_after(3, shield=True):
                self._sum_up(math.inf)
                await self._flush()

    async def _flush(self) -> bool:
        """Write everything that is pending; whether the disk took it."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(MAX_BATCH, len(self._pending)))]
            try:
                await self._stored.append(batch)
            except StoreFailed as error:
                self._pending.extendleft(reversed(batch))
                log.error("audit_not_written", reason=error.message, lines=len(self._pending))
                return False
            except trio.Cancelled:
                # The writer may or may not have begun; a line twice is better than none.
                self._pending.extendleft(reversed(batch))
                raise
            if self._lost:
                log.error("audit_lines_lost", lines=self._lost)
                self._lost = 0
        self._more = trio.Event()
        return True

    async def read(
        self, *, after: int | None, limit: int, company: str | None
    ) -> list[dict[str, Any]]:
        """Lines with their ids, in order: those behind `after`; without it, the newest."""
        return await self._stored.read(after=after, limit=limit, company=company)
