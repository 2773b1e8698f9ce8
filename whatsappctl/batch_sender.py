"""Sending a batch: many lines in flight, each accepted once, whatever happens meanwhile.

For `send --batch`. Every line has an idempotency key, so whatever was in flight when a connection
was lost is simply sent again. Lines of one chat go one after the other, because the daemon
accepts what is in flight together in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from heapq import heappop, heappush
from time import monotonic, time
from typing import Any, NamedTuple

from whatsappctl.batch_lines import BatchLine
from whatsappctl.connection import BlockingConnection
from whatsappctl.interrupts import Interrupts
from whatsappd.errors import (
    Malformed,
    QueueFull,
    Stopping,
    StoreFailed,
    TimedOut,
    TooManyRequests,
    Unreachable,
    WhatsappdError,
)
from whatsappd.wire.client_exchange import Answer

#: Requests in flight. The daemon allows 128 to a connection, and counts one a moment longer.
IN_FLIGHT = 100
#: Lines read ahead that wait for an earlier line of their chat.
LOOK_AHEAD = 1000
#: Answers after which the next lines leave.
FEW = 16
#: Bytes handed to the socket at a time, at the most.
UNSENT = 256 * 1024
#: Seconds without any answer (the daemon restarts, or hangs) after which the batch ends.
PATIENCE = 60.0
#: Seconds for one try to connect.
CONNECT_WITHIN = 5.0
#: Seconds that answers still have after Ctrl-C, so that the account of what was accepted is exact.
DRAIN_FOR = 5.0
#: Seconds between tries while the queue is full or the daemon away; doubled up to the longest.
SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


class LineOutcome(NamedTuple):
    """What became of a line: the daemon's row, or why it has none.

    `before`: it was accepted by an earlier run.
    """

    line: BatchLine
    row: dict[str, Any] | None
    error: WhatsappdError | None = None
    before: bool = False


class BatchSender:
    """Sends `lines` once each. `report` gets every outcome, `notice` what a person should know.

    Args:
        deadline: seconds for all of it; None: however long it takes.
    """

    def __init__(
        self,
        path: str,
        lines: Iterator[BatchLine],
        *,
        report: Callable[[LineOutcome], None],
        notice: Callable[[str], None],
        interrupts: Interrupts,
        deadline: float | None = None,
    ) -> None:
        self._path = path
        self._lines = lines
        self._report = report
        self._notice = notice
        self._interrupts = interrupts
        self._began_ms = int(time() * 1000)
        self._until = None if deadline is None else monotonic() + deadline
        self._in_flight: dict[int, BatchLine] = {}
        self._posted: set[int] = set()  # numbers of lines without an answer, on any connection
        # A heap by number: refused for now, or of a lost connection.
        self._again: list[BatchLine] = []
        self._ready: deque[BatchLine] = deque()  # their chat's turn has come
        # By chat: behind one that is not done.
        self._held: dict[tuple[str, str], deque[BatchLine]] = {}
        self._waiting = 0  # lines in the values of _held
        self._told: set[str] = set()  # companies whose queue was full
        self._window = IN_FLIGHT
        self._pause = SHORTEST_PAUSE
        self._paused_until = 0.0
        self._answered_at = monotonic()
        self._drain_until: float | None = None
        self._fatal: WhatsappdError | None = None

    @property
    def in_doubt(self) -> int:
        """Lines that were given to the daemon, and not answered."""
        return len(self._posted)

    def run(self) -> None:
        """Return when all lines are accepted or refused, or after an interruption.

        Raises:
            Unreachable, Denied: the daemon cannot be reached, or did not come back.
            TimedOut: the deadline passed, or the daemon gave no answer for PATIENCE.
            StoreFailed: its disk takes nothing any more.
            Malformed: it says what no daemon says.
        """
        connection = BlockingConnection(self._path, deadline=CONNECT_WITHIN)
        while True:
            try:
                with closing(connection):
                    self._work(connection)
                break
            except (Unreachable, Stopping, TooManyRequests) as error:
                self._lost(error)
            if (found := self._reconnected()) is None:
                break
            connection = found
        if self._fatal is not None:
            raise self._fatal

    def _work(self, connection: BlockingConnection) -> None:
        while True:
            self._look_at_the_clock()
            if self._drain_until is None:
                self._fill(connection)
                if not self._in_flight and not self._again and not connection.lost:
                    return
            elif not self._in_flight or monotonic() > self._drain_until:
                return
            answers = connection.turn(self._may_wait(), self._interrupts.wake)
            for place, answer in enumerate(answers, 1):
                self._take(answer)
                if place % FEW == 0 and self._drain_until is None:
                    # The daemon need not wait until all answers are noted.
                    self._fill(connection)
                    connection.send()
            self._interrupts.drain()

    def _look_at_the_clock(self) -> None:
        now = monotonic()
        if self._drain_until is None and self._interrupts.asked:
            self._drain_until = now + DRAIN_FOR
        if self._until is not None and now > self._until:
            self._stop(TimedOut("the time for the batch is over"))
        if self._in_flight and now > self._answered_at + PATIENCE:
            self._stop(TimedOut(f"whatsappd gave no answer for {PATIENCE:g} s"))
            self._drain_until = now

    def _stop(self, error: WhatsappdError) -> None:
        """Send no more, and raise `error` when what is in flight is answered."""
        if self._drain_until is None:
            self._drain_until = monotonic() + DRAIN_FOR
        self._fatal = self._fatal or error

    def _is_ending(self) -> bool:
        return self._drain_until is not None or self._fatal is not None

    def _may_wait(self) -> float:
        now = monotonic()
        ends = [now + 1.0, self._until, self._drain_until]
        if self._paused_until > now:
            ends.append(self._paused_until)
        return min(end for end in ends if end is not None) - now

    # --- which line is next -------------------------------------------------------------------

    def _fill(self, connection: BlockingConnection) -> None:
        if monotonic() < self._paused_until or connection.lost:
            return  # `turn` says why
        while len(self._in_flight) < self._window and connection.unsent < UNSENT:
            line = self._next()
            if line is None:
                return
            if not self._in_flight:
                self._answered_at = monotonic()  # nobody owed an answer until now
            msgid = connection.post("message.send", line.arguments)
            self._in_flight[msgid] = line
            self._posted.add(line.number)

    def _next(self) -> BatchLine | None:
        if self._again:
            return heappop(self._again)
        if self._ready:
            return self._ready.popleft()
        while self._waiting < LOOK_AHEAD:
            line = next(self._lines, None)
            if line is None:
                return None
            behind = self._held.get(line.chat)
            if behind is None:
                self._held[line.chat] = deque()
                return line
            behind.append(line)
            self._waiting += 1
        return None

    def _done(self, outcome: LineOutcome) -> None:
        behind = self._held[outcome.line.chat]
        if behind:
            self._waiting -= 1
            self._ready.append(behind.popleft())
        else:
            del self._held[outcome.line.chat]
        self._report(outcome)

    # --- answers ------------------------------------------------------------------------------

    def _take(self, answer: Answer) -> None:
        line = self._in_flight.pop(answer.msgid)
        self._posted.discard(line.number)
        self._answered_at = monotonic()
        if answer.error is None:
            self._window = min(IN_FLIGHT, self._window + 1)
            self._pause = SHORTEST_PAUSE
            match row := answer.result:
                case {"id": str(), "state": str(), "key": _, "company": str(),
                      "created_ms": int(created_ms)}:  # fmt: skip
                    self._done(LineOutcome(line, row, before=created_ms < self._began_ms))
                    return
            raise Malformed(f"whatsappd answered no row of the outbox: {row!r:.200}")
        error = answer.error
        if isinstance(error, (QueueFull, TooManyRequests, Stopping)):
            self._hold_back(line, error)
        elif isinstance(error, StoreFailed):
            heappush(self._again, line)
            self._stop(error)
        else:
            self._done(LineOutcome(line, None, error))

    def _hold_back(self, line: BatchLine, error: WhatsappdError) -> None:
        """Try it again after a while, one at a time at first."""
        heappush(self._again, line)
        now = monotonic()
        if now < self._paused_until:
            return  # the others that were in flight with it
        if isinstance(error, QueueFull) and line.chat[0] not in self._told:
            self._told.add(line.chat[0])
            self._notice(f"{error.message}; going on as there is room (Ctrl-C is safe)")
        self._window = 1
        self._paused_until = now + self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * 2)

    # --- a daemon that goes away --------------------------------------------------------------

    def _lost(self, error: WhatsappdError) -> None:
        if self._drain_until is not None or monotonic() > self._answered_at + PATIENCE:
            self._fatal = self._fatal or (None if self._interrupts.asked else error)
            return
        self._notice(f"{error.message}; trying again for {PATIENCE:g} s (Ctrl-C is safe)")
        for line in self._in_flight.values():
            heappush(self._again, line)
        self._in_flight.clear()

    def _reconnected(self) -> BlockingConnection | None:
        """A new connection; None: there will be none, or nobody wants one any more."""
        pause = SHORTEST_PAUSE
        while not self._is_ending():
            self._interrupts.wait(pause)
            self._look_at_the_clock()
            if self._is_ending():
                break
            try:
                return BlockingConnection(self._path, deadline=CONNECT_WITHIN)
            except (Unreachable, TimedOut):
                if monotonic() > self._answered_at + PATIENCE:
                    raise
                pause = min(LONGEST_PAUSE, pause * 2)
        return None
