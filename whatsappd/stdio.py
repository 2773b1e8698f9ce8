"""A command's standard streams: open, in UTF-8, and harmless when nobody reads or writes them.

Both commands call `prepare` before anything else. After it:

- Descriptors 0, 1 and 2 are taken, so that no socket or database becomes one of them and is written
  to by somebody who means to print. One that was closed refuses to be read or written, as before.
- Text is UTF-8 in both directions, in arguments, file names and the environment too, whatever the
  locale says.
- Writing never raises. What became of stdout is asked at the end, with `failure_of_stdout`, and
  decides the exit code. What cannot be written to stderr can be told to nobody.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from time import monotonic
from typing import Any

#: Placeholders for closed streams: each is open the wrong way round, so using it still fails.
_PLACEHOLDERS = ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY))
#: How a reader that has gone away is told: a pipe's, and a socket's.
_GONE = (errno.EPIPE, errno.ECONNRESET)
#: Seconds that a line on stderr waits for its reader.
PATIENCE = 10.0
#: A pipe that may be written to has room for at least as much (PIPE_BUF).
_PIECE = 4096


#: Bytes that are read of stdin: eight times what a call may hold, as JSON may write it longer.
MAX_STDIN = 8 << 20


class BadText(Exception):
    """What should be text is none; the message says what, where, and why."""


class _Output(io.FileIO):
    """Descriptor 1 or 2. What cannot be written is forgotten, and the first reason kept.

    Args:
        patience: seconds to wait for a reader that has stopped; None: for ever, as pipes do. What
            it did not take in time is lost, and nothing is waited for until it reads again.
    """

    def __init__(self, descriptor: int, patience: float | None) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._patience = patience
        self._has_stopped = False  # the reader
        self.failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        try:
            self._write(view)
        except TimeoutError:
            self._has_stopped = True
        except OSError as error:
            self.failure = error
        return len(view)

    def _write(self, view: memoryview) -> None:
        until = None
        if self._patience is not None:
            until = monotonic() + (0.0 if self._has_stopped else self._patience)
        while view and self.failure is None:
            if until is not None:
                self._wait(until)
            written = super().write(view[:_PIECE] if until is not None else view)
            if written is None:  # somebody made it non-blocking, for all who share it
                self._wait(until)
                continue
            view = view[written:]
            self._has_stopped = False

    def _wait(self, until: float | None) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        left = None if until is None else max(0.0, until - monotonic()) * 1000
        if not poll.poll(left):
            raise TimeoutError(errno.ETIMEDOUT, "nobody reads it")


def prepare(*, patience: float = PATIENCE) -> None:
    """Make the standard streams safe. May replace this process by one that speaks UTF-8.

    Args:
        patience: seconds that a line on stderr may wait for its reader.
    """
    _take_places()
    _speak_utf8()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor
    sys.stdout = _writer(_Output(1, None))
    sys.stderr = _writer(_Output(2, patience))


def _writer(raw: _Output) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=raw.fileno() == 2 or raw.isatty(),
    )


def _take_places() -> None:
    for descriptor, flags in _PLACEHOLDERS:
        try:
            os.fstat(descriptor)
        except OSError:
            found = os.open(os.devnull, flags)  # the lowest that is free: this one
            os.set_inheritable(found, True)


def _speak_utf8() -> None:
    """Under a locale that is not UTF-8, begin again in Python's UTF-8 mode.

    The locale has decided how arguments, the environment and file names were read, and only another
    process can read them anew. Children are to speak UTF-8, too.
    """
    os.environ.pop("PYTHONIOENCODING", None)
    os.environ["PYTHONUTF8"] = "1"
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    try:
        os.execv(sys.executable, command)  # noqa: S606 - the same program again
    except OSError:
        return


def arguments() -> list[str]:
    """The command line behind the program's name.

    Raises:
        BadText: an argument is no UTF-8 text.
    """
    for place, argument in enumerate(sys.argv[1:], 1):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(argument).decode("utf-8", "backslashreplace")
            raise BadText(f"argument {place} ({shown:.80}) is no UTF-8 text") from error
    return sys.argv[1:]


def read_stdin() -> str:
    """All of stdin as text, without a byte-order mark at its beginning.

    Raises:
        BadText: it is no UTF-8 (the message names the line), or longer than MAX_STDIN.
        OSError: it is closed, or cannot be read.
    """
    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise BadText(f"stdin has more than {MAX_STDIN} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadText(
            f"stdin is no UTF-8 text: byte 0x{data[error.start]:02x} in line {line}"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def failure_of_stdout() -> OSError | None:
    """Why what was printed may not have arrived; None: nothing failed."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Output) else None


def is_gone(failure: OSError) -> bool:
    """Whether whoever read it has gone away, having had enough."""
    return failure.errno in _GONE


def wait_for(descriptor: int, *, until: float | None) -> bool:
    """Wait until `descriptor` can be read; False: whoever reads stdout has gone away first.

    Args:
        until: a time by `monotonic`, at which it returns in any case; None: for ever.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(1, 0)  # errors and hang-ups are told without asking
    left = None if until is None else max(0.0, until - monotonic()) * 1000
    return 1 not in dict(poll.poll(left))
