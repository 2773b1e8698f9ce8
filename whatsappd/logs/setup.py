"""structlog set-up: JSON lines where machines read, readable lines on a terminal.

Lines go to stderr through a `LogWriter`, so that logging neither waits nor fails. So does all that
Python itself prints on stderr: warnings, and tracebacks of what it could not raise.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import socket
import stat
import struct
import sys
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import structlog

from whatsappd.logs.writer import MAX_LINE, LogWriter
from whatsappd.wire.escape import printable, safe_json

LogLevel = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
LogFormat = Literal["auto", "json", "console"]

#: Seconds that the last lines have to be written when the process ends.
LAST_WORDS = 2.0

_STDERR = 2
#: Characters that are shown of a line that is too long.
_SHOWN = 4096
#: Made with the first use; one for the process, as stderr is.
_writers: list[LogWriter] = []


def log_writer() -> LogWriter:
    """The writer of this process's log. From the first call on, `sys.stderr` goes through it."""
    if not _writers:
        _writers.append(LogWriter(_STDERR))
        sys.stderr = _writers[0].stream()
    return _writers[0]


def close_logs() -> None:
    """Write what waits, for at most LAST_WORDS seconds, if anything was logged at all."""
    for writer in _writers:
        writer.close(within=LAST_WORDS)


def configure_logs(
    level: str = "info", form: str = "auto", *, writer: LogWriter | None = None
) -> None:
    """Send all logs to `writer` (this process's) from `level` on. May be called again.

    Args:
        form: `json`, `console`, or `auto`: console if stderr is a terminal.
    """
    writer = writer or log_writer()
    rendering: list[structlog.typing.Processor]
    if form == "console" or (form == "auto" and os.isatty(writer.fileno())):
        rendering = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.processors.format_exc_info,
            _escape,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    else:
        rendering = [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ]
        writer.describe_loss = _loss_as_json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Lines(writer),
        # The level must stay changeable at run time.
        cache_logger_on_first_use=False,
    )


class _Lines:
    """What structlog gives a finished line to."""

    def __init__(self, writer: LogWriter) -> None:
        self.msg = writer.put

    def __getattr__(self, _level: str) -> Any:
        return self.msg


def _dumps(value: Any, **options: Any) -> str:
    line = safe_json(json.dumps(value, ensure_ascii=False, **options))
    if len(line.encode()) < MAX_LINE:
        return line
    # Cut as it is, it would be no JSON any more.
    short = {name: str(value.get(name))[:_SHOWN] for name in ("event", "level", "timestamp")}
    return safe_json(json.dumps({**short, "cut": line[:_SHOWN]}, ensure_ascii=False))


def _loss_as_json(count: int) -> str:
    line = {
        "count": count,
        "event": "log_lines_dropped",
        "level": "warning",
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    return json.dumps(line)


def _escape(
    _logger: Any, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Keep what others wrote from commanding the terminal. Colours are added behind this."""
    return {
        printable(key): "\n".join(map(printable, value.split("\n")))
        if key in ("exception", "stack")
        else printable(value)
        if isinstance(value, str)
        else value
        for key, value in line.items()
    }


# --- crashes --------------------------------------------------------------------------------------


def report_crashes() -> None:
    """Have the interpreter say on stderr where it was when it crashes, or is aborted.

    It says so in the middle of dying, and must not wait for a reader of its last words.
    """
    faulthandler.enable(file=_crash_output())


def _crash_output() -> int:
    """Stderr, without waiting for its reader where that is possible."""
    kind = os.fstat(_STDERR).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        # Opened anew, because whoever shares the descriptor would not wait either.
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return os.open(f"/proc/self/fd/{_STDERR}", flags)
        except OSError:
            return _STDERR
    if stat.S_ISSOCK(kind):  # the journal's
        with socket.fromfd(_STDERR, socket.AF_UNIX, socket.SOCK_STREAM) as stderr:
            patience = struct.pack("@ll", int(LAST_WORDS), 0)
            stderr.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    return _STDERR
