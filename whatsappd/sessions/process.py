"""Child processes by pidfd: waiting, killing, and reaping what nobody waits for.

A worker is forked twice (see `worker.forkserver`), so it reaches the daemon as an orphan: the
daemon declares itself subreaper and becomes the parent of every orphan among its descendants.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Container
from typing import NamedTuple

import trio

_PR_SET_CHILD_SUBREAPER = 36


class ExitStatus(NamedTuple):
    """How a process ended: by `code`, by `signal`, or in a way nobody saw (both None)."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal.Signals(self.signal).name}"
        return f"exit code {self.code}" if self.code is not None else "gone"


def become_subreaper() -> None:
    """Make this process the parent of its orphaned descendants (prctl(2)).

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


class ChildProcess:
    """A child known by pid, held by a pidfd so that the pid cannot be mistaken for a later one.

    Raises:
        OSError: there is no such process, or it is no child of this one.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        try:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            os.close(self._pidfd)
            raise
        self._status: ExitStatus | None = None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if self._status is None:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    async def wait(self) -> ExitStatus:
        """Wait for the end, and reap. Cancellation leaves the process as it is."""
        if self._status is None:
            await trio.lowlevel.wait_readable(self._pidfd)
            self._status = self._reap()
            os.close(self._pidfd)
        return self._status

    def _reap(self) -> ExitStatus:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            return ExitStatus(None, None)
        if result is None:
            return ExitStatus(None, None)
        if result.si_code == os.CLD_EXITED:
            return ExitStatus(result.si_status, None)
        return ExitStatus(None, result.si_status)


def reap_orphans(known: Container[int]) -> list[int]:
    """Reap ended children that nobody waits for: those not in `known`. Their pids.

    Such children are rare (a fork server killed between its two forks), but a daemon that runs for
    months must not collect them.
    """
    reaped: list[int] = []
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return reaped
        if found is None or found.si_pid in known:
            return reaped
        os.waitpid(found.si_pid, os.WNOHANG)
        reaped.append(found.si_pid)
