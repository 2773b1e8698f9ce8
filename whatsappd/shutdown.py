"""Receives the signals that stop a daemon or gateway, and kills the process if it is too slow.

A thread of its own receives the signals and counts the seconds, so that the process ends in time
even if its event loop or its disk hangs. `cli` makes the `ShutdownGuard` before anything else;
`app` and `gateway.run` act on the signals.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
import trio

from whatsappd.errors import EXIT_OK, EXIT_TIMED_OUT
from whatsappd.process_table import descendants

log = structlog.get_logger()

#: Seconds from SIGTERM to the end of the process and of all that it started. What has not ended by
#: itself then is killed. The units' TimeoutStopSec= is longer.
STOP_WITHIN = 15.0
#: The same for a gateway, whose requests have less to wait for.
GATEWAY_WITHIN = 11.0
#: Of the daemon's, what is left for closing the store after the sessions.
CLOSE_WITHIN = 4.0
#: Seconds that a second signal leaves.
HURRY_WITHIN = 5.0
#: Seconds for saying what hung. The output may be what hangs.
_SAY_WITHIN = 2.0
#: Seconds for the kernel to bury what was killed.
_BURY_WITHIN = 1.0

#: The signals that the daemon acts on.
HEARD = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_END = frozenset({signal.SIGTERM, signal.SIGINT})


class SignalRequests:
    """What the signals have asked for: to stop, to stop at once, or to reload the settings.

    Args:
        hurry: is cancelled by a second SIGTERM or SIGINT.
    """

    def __init__(self, hurry: trio.CancelScope) -> None:
        #: Set by the first SIGTERM or SIGINT.
        self.stopping = trio.Event()
        self._hurry = hurry
        self._reload = trio.Event()

    def take(self, number: signal.Signals) -> None:
        """Note a signal."""
        if number == signal.SIGHUP:
            self._reload.set()
        elif self.stopping.is_set():
            log.warning("stopping_at_once")
            self._hurry.cancel()
        else:
            self.stopping.set()

    async def wait_for_reload(self) -> None:
        """Wait for SIGHUP. Several that arrive before this is called again count as one."""
        await self._reload.wait()
        self._reload = trio.Event()


class ShutdownGuard:
    """Call `listen` once, in the main thread, before there are others.

    Args:
        write_log: returns when all that was logged is written, or cannot be.
    """

    def __init__(self, write_log: Callable[[], object], *, within_s: float = STOP_WITHIN) -> None:
        self.within_s = within_s
        self._write_log = write_log
        self._begun = False  # whether there is anything to end in order
        self._until: float | None = None  # when all must be over, by time.monotonic
        self._heard: list[signal.Signals] = []  # what nobody has taken yet
        self._hear: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Take the signals from now on. Child processes inherit that these are blocked."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        # Python's own handler only asks the main thread, which may be waiting for a disk.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    async def signals(self, take: Callable[[signal.Signals], None]) -> None:
        """Call `take` with each signal, the earlier ones too, until cancelled."""
        token, more = trio.lowlevel.current_trio_token(), trio.Event()

        def hear() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(more.set)

        with self._lock:
            self._begun = True
            self._hear = hear
        try:
            while True:
                more = trio.Event()
                with self._lock:
                    heard, self._heard = self._heard, []
                for number in heard:
                    take(number)
                if not heard:
                    await more.wait()
        finally:
            with self._lock:
                self._hear = None

    @property
    def left_s(self) -> float:
        """Seconds until the process is ended; all of `within_s` while nobody asked for it."""
        return self.within_s if self._until is None else max(0.0, self._until - time.monotonic())

    # --- in the thread ------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            if self._until is None:
                number = signal.Signals(signal.sigwaitinfo(HEARD).si_signo)
            else:
                found = signal.sigtimedwait(HEARD, self.left_s)
                if found is None:
                    self._cut()
                number = signal.Signals(found.si_signo) if found else signal.SIGTERM
            if number in _END and not self._begun:
                _die_of(number)
            if number in _END:
                self._count_down()
            with self._lock:
                self._heard.append(number)
                if self._hear is not None:
                    self._hear()

    def _count_down(self) -> None:
        now = time.monotonic()
        if self._until is None:
            self._until = now + self.within_s
        else:
            self._until = min(self._until, now + HURRY_WITHIN)
        # Should even this thread stand still, the kernel ends the process a moment later.
        signal.setitimer(signal.ITIMER_REAL, self._until - now + _SAY_WITHIN + 2 * _BURY_WITHIN)

    def _cut(self) -> None:
        """End everything now."""
        saying = threading.Thread(target=self._say, daemon=True)
        saying.start()
        saying.join(_SAY_WITHIN)
        kill_descendants()
        os._exit(EXIT_TIMED_OUT)

    def _say(self) -> None:
        log.error(
            "stop_forced",
            after_s=self.within_s,
            killed=sorted(descendants()),
            reason="something hangs; the threads and where they are follow",
        )
        faulthandler.dump_traceback(file=sys.stderr)
        self._write_log()


def _die_of(number: signal.Signals) -> None:
    """End as a process does that knows nothing of signals."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    if number == signal.SIGTERM:  # process 1 survives those that it does not handle
        os._exit(EXIT_OK)


def kill_descendants() -> None:
    """Kill all processes that this one started; what they start meanwhile too."""
    until = time.monotonic() + _BURY_WITHIN
    while (left := descendants()) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
