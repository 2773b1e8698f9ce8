"""How many bytes of messages that never left are on disk, by company and by who sent them.

A message that WhatsApp took was paced by the limits. One that waits, or was cancelled, refused or
too late, cost its sender nothing: without a bound, sending and cancelling in turn fills the disk.
`store.sqlite.outbox_writes` counts with it in the writer thread.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Any

from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.bounds import CALLER_BYTES, COMPANY_BYTES, Bound, Holder, check_room, report
from whatsappd.store.sqlite import outbox_rows

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
    return OVERHEAD + len(outbox_rows.packed(row.content))


class OutboxBytes:
    """The counts. `change` follows rows, `check` is asked for each new one."""

    def __init__(self) -> None:
        self.company_bound: Bound = COMPANY_BYTES
        self.caller_bound: Bound = CALLER_BYTES
        self._by_company: Counter[str] = Counter()
        self._by_owner: Counter[str] = Counter()
        self._total = 0

    def change(self, row: Row, sign: int) -> None:
        """A row counts from now on (+1), or does not any more (-1)."""
        self._add(row.company, row.owner, sign * size_of(row))

    def _add(self, company: str, owner: str | None, size: int) -> None:
        self._by_company[company] += size
        self._by_owner[owner or _OURS] += size
        self._total += size

    def check(self, row: Row) -> None:
        """Whether there is room for a new row, which is counted already.

        Raises:
            QueueFull: its company, its sender, or all together have too much.
        """
        size = size_of(row)
        total = self._total - size
        company = Holder(f"company:{row.company}")
        check_room(self.company_bound, company, self._by_company[row.company] - size, total, size)
        is_ours = row.owner is None
        sender = Holder(row.owner or _OURS, is_capped=not is_ours, may_use_kept=is_ours)
        check_room(self.caller_bound, sender, self._by_owner[sender.name] - size, total, size)

    def load(self, conn: sqlite3.Connection, companies: Iterable[str]) -> None:
        """Count what is on disk."""
        states = ", ".join(f"'{state}'" for state in sorted(COUNTED))
        sql = (
            "SELECT owner, sum(length(CAST(content AS BLOB))), count(*) FROM outbox"  # noqa: S608 - ours
            f" WHERE company = ? AND state IN ({states}) GROUP BY owner"
        )
        for company in companies:
            for owner, size, count in conn.execute(sql, (company,)):
                self._add(company, owner, size + count * OVERHEAD)

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
