"""Writes a worker's log lines into the pipe that the daemon reads, without ever blocking.

A daemon that stands still reads nothing, and a full pipe would stop whoever prints next. So lines
that do not fit are dropped, and the next one that fits says how many. Half of the pipe is left to
Go, which prints little, and its reason when it ends the process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import struct
import sys
import termios
import threading
from contextlib import suppress

from whatsappd.logs.writer import LogHandler, PrintedLines

#: A pipe that may be written to takes a line of so many bytes whole and at once (PIPE_BUF).
MAX_LINE = 4096
_CUT = b"...(cut)\n"


class PipeLines:
    """Writes lines to a pipe, and never waits for its reader."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Reentrant: the garbage collector may run anywhere, and what it finalizes may print.
        self._lock = threading.RLock()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self.dropped = 0  # since the last line that told of it

    def put(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if len(data) > MAX_LINE:
            data = data[: MAX_LINE - len(_CUT)] + _CUT
        with self._lock, suppress(OSError):  # the daemon is gone, and nobody reads it
            if self.dropped and self._has_room(2 * MAX_LINE):
                told, self.dropped = self.dropped, 0
                os.write(
                    self._descriptor,
                    b"WARNING whatsappd %d lines were dropped: nobody read them in time\n" % told,
                )
            if self.dropped or not self._has_room(len(data)):
                self.dropped += 1
            else:
                os.write(self._descriptor, data)

    def _has_room(self, size: int) -> bool:
        if not self._poll.poll(0):
            return False
        try:
            waiting = struct.unpack("i", fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0" * 4))
            capacity = fcntl.fcntl(self._descriptor, fcntl.F_GETPIPE_SZ)
        except OSError:
            return True  # no pipe: a file, in tests
        return bool(waiting[0] + size <= capacity // 2)


def print_without_waiting() -> None:
    """Have Python print and log through the pipe at descriptor 2 without waiting for its reader.

    One plain line a record: the daemon tags them.
    """
    lines = PipeLines(2)
    sys.stdout = PrintedLines(lines.put, 1)
    sys.stderr = PrintedLines(lines.put, 2)
    handler = LogHandler(lines.put)
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", handlers=[handler], force=True)
