"""How many bytes of messages that never left are on disk, by company and by who sent them.

A message that WhatsApp took was paced by the limits. One that waits, or was cancelled, refused or
too late, cost its sender nothing: without a bound, sending and cancelling in turn fills the disk.
The stores count with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.bounds import CALLER_BYTES, COMPANY_BYTES, Bound, Holder, check_room, report
from whatsappd.store.outbox_counts import OutboxChange

#: The states of rows that count.
COUNTED = frozenset(
    {
        OutboxState.QUEUED,
        OutboxState.SENDING,
        OutboxState.UNCERTAIN,
        OutboxState.CANCELLED,
        OutboxState.EXPIRED,
        OutboxState.FAILED,
    }
)
#: Bytes of a row and its events beside its content, roughly.
OVERHEAD = 1024
#: Who sent what root and the daemon's own user sent.
_OURS = "uid:0"


def size_of(row: Row) -> int:
    """Bytes that the row takes, about; its content as it is stored, which is JSON."""
    return OVERHEAD + len(msgspec.json.encode(row.content))


class OutboxBytes:
    """The counts: told of each change of a row, and asked before each new one."""

    def __init__(self) -> None:
        self.company_bound: Bound = COMPANY_BYTES
        self.caller_bound: Bound = CALLER_BYTES
        self._by_company: Counter[str] = Counter()
        self._by_owner: Counter[str] = Counter()
        self._total = 0

    def count(self, change: OutboxChange, sign: int = +1) -> None:
        """Counts a change; with -1, takes it back."""
        counted = int(change.row.state in COUNTED and not change.is_gone)
        counted -= int(change.before in COUNTED)
        if counted:
            row = change.row
            self.add(row.company, row.owner, counted * sign * size_of(row))

    def follow(self, changes: Iterable[OutboxChange]) -> None:
        for change in changes:
            self.count(change)

    def add(self, company: str, owner: str | None, size: int) -> None:
        """So many bytes more."""
        self._by_company[company] += size
        self._by_owner[owner or _OURS] += size
        self._total += size

    def check(self, row: Row) -> None:
        """Whether there is room for a new row, which is not counted yet.

        Raises:
            QueueFull: its company, its sender, or all together have too much.
        """
        size = size_of(row)
        held = self._by_company[row.company]
        check_room(self.company_bound, Holder(f"company:{row.company}"), held, self._total, size)
        is_ours = row.owner is None
        sender = Holder(row.owner or _OURS, is_capped=not is_ours, may_use_kept=is_ours)
        check_room(self.caller_bound, sender, self._by_owner[sender.name], self._total, size)

    def report(self) -> list[dict[str, Any]]:
        """For `daemon.limits`. May be called in any thread."""
        by_company = [
            (f"company:{company}", held) for company, held in self._by_company.copy().most_common()
        ]
        by_owner = self._by_owner.copy().most_common()
        return [
            report(self.company_bound, self._total, _held(by_company), None),
            report(self.caller_bound, self._total, _held(by_owner), None),
        ]


def _held(counts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(name, held) for name, held in counts if held]
