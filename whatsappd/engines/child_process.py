"""Child processes by pidfd: waiting, killing, and reaping what nobody waits for.

A worker is forked twice (see `engines.neonize.fork.server`), so it reaches the daemon as an orphan:
the daemon declares itself subreaper and becomes the parent of every orphan among its descendants.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import structlog
import trio

from whatsappd.process_table import ended_children

log = structlog.get_logger()

_PR_SET_CHILD_SUBREAPER = 36
#: smaps_rollup has 1 kB, status 2.
_LARGEST_TEXT = 16 * 1024
_THREADS = re.compile(rb"^Threads:\s+(\d+)$", re.MULTILINE)
#: Seconds after which an ended child that nobody asked about is nobody's.
STRAY_AFTER_S = 1.0


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


class ProcessView:
    """What the kernel tells about a process, through files of /proc that it opened itself.

    A process whose memory is private (`confinement.process`) lets nobody of its own user open them.
    May be read from threads; `close` ends that, after those that read just now.

    Args:
        memory, descriptors, status: /proc/self/smaps_rollup, fd and status, opened.
    """

    def __init__(self, memory: int, descriptors: int, status: int) -> None:
        self._memory, self._descriptors, self._status = memory, descriptors, status
        self._lock = threading.Lock()
        self._readers = 0
        self._is_closed = False

    def smaps_rollup(self) -> bytes | None:
        """As in proc(5); None if the process is gone."""
        return self._text_of(self._memory)

    def count_descriptors(self) -> int | None:
        """How many it has open; None if the process is gone."""
        with self._lock:  # two readers would share the place where they read
            if self._is_closed:
                return None
            try:
                os.lseek(self._descriptors, 0, os.SEEK_SET)
                return len(os.listdir(self._descriptors))  # noqa: PTH208 -- it has no path
            except OSError:
                return None

    def count_threads(self) -> int | None:
        """None if the process is gone."""
        match = _THREADS.search(self._text_of(self._status) or b"")
        return None if match is None else int(match[1])

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._close_if_unused()

    def _text_of(self, descriptor: int) -> bytes | None:
        with self._open() as is_open:
            if not is_open:
                return None
            try:
                return os.pread(descriptor, _LARGEST_TEXT, 0) or None
            except OSError:
                return None

    @contextmanager
    def _open(self) -> Iterator[bool]:
        with self._lock:
            if self._is_closed:
                yield False
                return
            self._readers += 1
        try:
            yield True
        finally:
            with self._lock:
                self._readers -= 1
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_closed and not self._readers:
            for descriptor in (self._memory, self._descriptors, self._status):
                os.close(descriptor)


async def reap_strays(known: Callable[[], Container[int]]) -> None:
    """Reap ended children that nobody waits for, until cancelled.

    As process 1 and as subreaper the daemon becomes the parent of every orphan below it: of what a
    fork server started and left behind, and in a container of what anybody did.

    Args:
        known: the pids of the children that somebody waits for.
    """
    with trio.open_signal_receiver(signal.SIGCHLD) as ended:
        before = await trio.to_thread.run_sync(ended_children)
        while True:
            # Whoever waits for it comes first, also who only just learns of it.
            await trio.sleep(STRAY_AFTER_S)
            found = await trio.to_thread.run_sync(ended_children)
            waited_for = known()
            for pid in found & before:
                if pid not in waited_for:
                    _bury(pid)
                    log.debug("orphan_reaped", pid=pid)
            before = found - before
            if not before:
                await anext(ended)
                before = await trio.to_thread.run_sync(ended_children)


def _bury(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
