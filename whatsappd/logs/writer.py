"""Where the lines of a log go: into a bounded queue, which a thread writes to a descriptor.

Whoever logs never waits and never fails. A full disk, a closed terminal, a pipe whose reader has
stopped: lines wait in the queue meanwhile, those that do not fit are dropped and counted, and when
it goes on, a line in their place tells how many.

`logs` and the sandbox write through it; health and metrics show what it counts.
"""

from __future__ import annotations

import io
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from whatsappd.wire.escape import printable

#: Bytes of lines that wait. At a company's usual rate that is hours of log.
CAPACITY = 1 << 20
#: A longer line is cut.
MAX_LINE = 64 << 10
#: Seconds between two tries of a descriptor that refuses.
RETRY = 1.0
#: A pipe or terminal that may be written to takes at least as much without waiting (PIPE_BUF).
_PIECE = 4096
_CUT = b"...(cut)"


def describe_loss(count: int) -> str:
    return f"{count} log lines were dropped here: the log could not be written in time"


class LogWriter:
    """Writes lines to a descriptor, from a thread that begins with the first line.

    Args:
        descriptor: stays open; it may be closed, broken or full at any time.
        describe_loss: makes the line that stands for so many dropped ones.

    Attributes:
        dropped: lines so far that did not fit.
        trouble: why lines cannot be written just now; None: they can.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        capacity: int = CAPACITY,
        retry: float = RETRY,
        describe_loss: Callable[[int], str] = describe_loss,
    ) -> None:
        self.describe_loss = describe_loss
        self.dropped = 0
        self.trouble: str | None = None
        self._descriptor = descriptor
        self._capacity = capacity
        self._retry = retry
        # Reentrant: the garbage collector may run anywhere, and what it finalizes may print.
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lost = 0  # since the last line that tells of it
        self._thread: threading.Thread | None = None
        self._until: float | None = None  # when it must have ended

    def put(self, line: str) -> None:
        """Have `line` written, if there is room for it. Returns at once."""
        data = line.encode("utf-8", "backslashreplace")
        if len(data) > MAX_LINE:
            data = data[: MAX_LINE - len(_CUT)] + _CUT
        with self._changed:
            if self._size + len(data) >= self._capacity:
                self._lost += 1
                self.dropped += 1
                return
            self._tell_loss()
            self._add(data)
            if self._thread is None and self._until is None:
                self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, *, within: float) -> None:
        """Write what waits, for at most so many seconds, and end."""
        with self._changed:
            self._until = monotonic() + within
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            thread.join(within + self._retry)

    def stream(self) -> io.TextIOBase:
        """A text file, to stand for `sys.stderr`, whose lines are written here."""
        return PrintedLines(self.put, self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    # --- under the lock -----------------------------------------------------------------------

    def _add(self, data: bytes) -> None:
        self._waiting.append(data + b"\n")
        self._size += len(data) + 1

    def _tell_loss(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._add(self.describe_loss(lost).encode())

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while (piece := self._next()) is not None:
            self._write(piece)
            with self._changed:
                self._size -= len(piece)

    def _next(self) -> bytes | None:
        """The next lines: as many as fit into a piece, or one that is longer. None: it is over."""
        with self._changed:
            while not self._waiting:
                self._tell_loss()
                if self._waiting:
                    break
                if self._until is not None:
                    return None
                self._changed.wait()
            piece = self._waiting.popleft()
            while self._waiting and len(piece) + len(self._waiting[0]) <= _PIECE:
                piece += self._waiting.popleft()
            return piece

    def _write(self, data: bytes) -> None:
        """Write all of it, however long that takes; give up only when it must end."""
        view = memoryview(data)
        while view:
            if self._until is not None and monotonic() > self._until:
                return
            try:
                if not self._is_ready():
                    self.trouble = "nobody reads it"
                    continue
                view = view[os.write(self._descriptor, view[:_PIECE]) :]
                self.trouble = None
            except OSError as error:
                self.trouble = error.strerror or str(error)
                if self._until is not None:
                    return  # what refuses now is not waited for at the end
                with self._changed:
                    self._changed.wait_for(lambda: self._until is not None, self._retry)

    def _is_ready(self) -> bool:
        """Whether a piece can be written without waiting for a reader; waits for that a while."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        wait = self._retry
        if self._until is not None:
            wait = max(0.0, min(wait, self._until - monotonic()))
        return bool(poll.poll(wait * 1000))


class LogHandler(logging.Handler):
    """For programs that log with Python's own `logging`."""

    def __init__(self, put: Callable[[str], object]) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).split("\n"):
            self._put(printable(line))


class PrintedLines(io.TextIOBase):
    """A text file, to stand for `sys.stderr`, that makes safe lines of what is printed.

    Args:
        put: takes each line, without its end.
        descriptor: what it stands for.
    """

    def __init__(self, put: Callable[[str], object], descriptor: int) -> None:
        self._put = put
        self._descriptor = descriptor
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str, /) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._put(printable(line))
        if len(self._begun) > MAX_LINE:
            self._put(printable(self._begun))
            self._begun = ""
        return len(text)
