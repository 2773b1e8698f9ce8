"""What the outbox knows without the disk: how many rows are in which state, and who waits for one.

Lives in trio; the store publishes every committed change here, in order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio

from whatsappd.model.message import OutboxState, Row
from whatsappd.rules.delivery import can_reach


class OutboxChange(NamedTuple):
    """One committed change: `before` is None for a new row; `is_gone` if it was deleted."""

    before: OutboxState | None
    row: Row
    is_gone: bool = False


class RowWaiter:
    """Waits for one row to be in one of `states`, or to be unable to get there any more."""

    def __init__(self, states: Collection[OutboxState]) -> None:
        self._states = states
        self._row: Row | None = None
        self._settled = trio.Event()

    def see(self, row: Row, *, is_gone: bool = False) -> None:
        """Looks at the row as it is now. The first that settles the question counts."""
        is_settled = is_gone or row.state in self._states or not can_reach(row.state, self._states)
        if is_settled and not self._settled.is_set():
            self._row = row
            self._settled.set()

    async def result(self) -> Row:
        await self._settled.wait()
        assert self._row is not None
        return self._row


class OutboxCounts:
    """How many rows are in which state, and who waits for one."""

    def __init__(self, counts: dict[str, Counter[OutboxState]]) -> None:
        self._counts = defaultdict(Counter, counts)
        self._entered: dict[str, Counter[OutboxState]] = defaultdict(Counter)
        self._accepted: Counter[str] = Counter()
        self._replies: Counter[str] = Counter()
        self._waiters: dict[str, list[RowWaiter]] = {}
        self._versions: Counter[str] = Counter()
        self._changed: dict[str, trio.Event] = {}

    def publish(self, changes: list[OutboxChange]) -> None:
        for change in changes:
            counts = self._counts[change.row.company]
            if change.before is not None:
                counts[change.before] -= 1
            else:
                self._accepted[change.row.company] += 1
            if not change.is_gone:
                counts[change.row.state] += 1
                if change.before is not change.row.state:
                    self._entered[change.row.company][change.row.state] += 1
                if change.row.is_reply and change.row.state is OutboxState.QUEUED:
                    self._replies[change.row.company] += 1
            for waiter in self._waiters.get(change.row.id, ()):
                waiter.see(change.row, is_gone=change.is_gone)
        for company in {change.row.company for change in changes}:
            self._versions[company] += 1
            changed = self._changed.pop(company, None)
            if changed is not None:
                changed.set()

    def counts(self, company: str) -> dict[OutboxState, int]:
        """Rows by state; states without any are left out."""
        counts = self._counts.get(company, Counter())
        return {state: count for state, count in counts.items() if count}

    def has(self, company: str, state: OutboxState) -> bool:
        """Whether the company has rows in `state`."""
        counts = self._counts.get(company)
        return counts is not None and counts[state] > 0

    def existing(
        self, company: str | None, states: Collection[OutboxState] | None
    ) -> list[tuple[str, OutboxState]]:
        """The pairs of company and state that have rows, of those asked for; None: of all."""
        companies = list(self._counts) if company is None else [company]
        return [
            (each, state)
            for each in companies
            for state in self.counts(each)
            if states is None or state in states
        ]

    def forget(self, company: str) -> None:
        """The company has no rows any more, and its figures begin anew."""
        assert not self.counts(company)
        for figures in (self._counts, self._entered, self._accepted):
            figures.pop(company, None)

    def accepted(self, company: str) -> int:
        """Rows made since the daemon started."""
        return self._accepted[company]

    def replies(self, company: str) -> int:
        """Grows whenever one more answer is queued (see `rules.reply_priority`)."""
        return self._replies[company]

    def entered(self, company: str) -> dict[OutboxState, int]:
        """How often a row came into a state since the daemon started."""
        return dict(self._entered.get(company, ()))

    def companies(self) -> list[str]:
        return [company for company in self._counts if self.counts(company)]

    @contextmanager
    def waiting(self, row_id: str, states: Collection[OutboxState]) -> Iterator[RowWaiter]:
        """Lets the waiter that this gives see every change of the row, until the block ends."""
        waiter = RowWaiter(states)
        waiters = self._waiters.setdefault(row_id, [])
        waiters.append(waiter)
        try:
            yield waiter
        finally:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[row_id]

    def version(self, company: str) -> int:
        """Grows with every change of the company's rows."""
        return self._versions[company]

    async def wait_changed(self, company: str, version: int) -> int:
        """Waits until `version(company)` is no longer `version`; returns it.

        Look at the rows after taking the version and before this: then no change is missed.
        """
        await trio.lowlevel.checkpoint()
        while self._versions[company] == version:
            await self._changed.setdefault(company, trio.Event()).wait()
        return self._versions[company]
