"""Ctrl-C as a request rather than an exception, for commands that owe an account of what they did.

A `KeyboardInterrupt` can come between receiving an answer and noting it. Here a signal sets a flag
and wakes whoever waits; only the second one raises.
"""

from __future__ import annotations

import select
import signal
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While it is entered, SIGINT and SIGTERM set `asked`. For the main thread.

    Attributes:
        wake: becomes readable with a signal; give it to `select`.
    """

    def __init__(self) -> None:
        self.asked = False
        self.wake, self._signalled = socket.socketpair()

    def __enter__(self) -> Interrupts:
        self.wake.setblocking(False)
        self._signalled.setblocking(False)
        self._old_fd = signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        self._old: list[Any] = [signal.signal(number, self._ask) for number in SIGNALS]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in zip(SIGNALS, self._old, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        self.wake.close()
        self._signalled.close()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or with a signal."""
        select.select([self.wake], [], [], seconds)
        self.drain()

    def drain(self) -> None:
        """Take what woke us, so that it does not wake us again."""
        try:
            self.wake.recv(1024)
        except BlockingIOError:
            return
