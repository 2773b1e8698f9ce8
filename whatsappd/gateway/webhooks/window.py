"""The events of a webhook that are read and not yet delivered, and how far its cursor may move.

Events of one company are delivered in their order; companies do not wait for each other. So events
end out of the log's order, and the cursor stays before the oldest one that has not ended. An event
has ended when it is delivered or a dead letter. Used by `delivery`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from whatsappd.api.events import LoggedEvent


class Window:
    """PURE.

    Args:
        cursor: how far the webhook is, as the daemon has it.
    """

    def __init__(self, cursor: int) -> None:
        self._read = cursor  # up to here everything was read
        self._pending: dict[int, LoggedEvent] = {}  # by seq, in the log's order
        self._lanes: dict[str, deque[LoggedEvent]] = {}

    def __len__(self) -> int:
        """Events that have not ended."""
        return len(self._pending)

    @property
    def read(self) -> int:
        """Where to go on reading."""
        return self._read

    @property
    def cursor(self) -> int:
        """Everything up to and including this event has ended, or is none of ours."""
        return self.oldest - 1 if self._pending else self._read

    @property
    def oldest(self) -> int:
        """The seq of the oldest event that has not ended. Only while there is one."""
        return next(iter(self._pending))

    def add(self, events: Iterable[LoggedEvent], read: int) -> list[str]:
        """Take the events of a page, which was read up to `read`.

        Returns the companies that had no events here before: a task has to be started for each.
        """
        begun = []
        for event in events:
            company = event.company
            if company not in self._lanes:
                self._lanes[company] = deque()
                begun.append(company)
            self._lanes[company].append(event)
            self._pending[event.seq] = event
        self._read = read
        return begun

    def head(self, company: str) -> LoggedEvent | None:
        """The event that is to be delivered next for this company. Returns None if there is none:
        the company is then forgotten, and its task ends."""
        lane = self._lanes[company]
        if lane:
            return lane[0]
        del self._lanes[company]
        return None

    def end(self, company: str) -> None:
        """Note that the company's next event is delivered, or is a dead letter."""
        event = self._lanes[company].popleft()
        del self._pending[event.seq]
