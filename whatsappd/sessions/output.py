"""What child processes print, as log lines.

neonize, Go and Python's warnings print where they like. Of a worker's stdout and stderr one thing
has a meaning to the daemon: the line with which a Go runtime ends its process.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import structlog
import trio

log = structlog.get_logger()

#: A longer line is cut: a child must not fill the daemon's memory with one.
MAX_LINE = 8192
_READ = 16 * 1024

#: Noise that neonize prints at every start, of no use to anybody.
_NOISE = ("Press Ctrl+C to exit",)
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) (\S+) ")
#: How Go says that it ends the process. What it quotes came from elsewhere, and is left out.
_CRASH = re.compile(r"(panic|fatal error): .+")
_QUOTED = re.compile(r"""(["'`]).*\1""")
MAX_CRASH = 200
#: A phone number or LID inside an address; its last four digits suffice to tell two apart.
_NUMBER = re.compile(r"\b[0-9]+([0-9]{4})(?=(?:[.:][0-9]+)*@)")


async def log_output(
    descriptor: int, tags: dict[str, Any], *, on_crash: Callable[[str], None] | None = None
) -> None:
    """Log every line read from `descriptor` until it ends, then close it.

    Args:
        on_crash: told Go's own words for why it ends the process.
    """

    def take(line: bytes) -> None:
        text = _readable(line)
        _log_line(bound, text)
        if on_crash is not None and _CRASH.match(text):
            on_crash(_QUOTED.sub("…", text)[:MAX_CRASH])

    bound = log.bind(**tags)
    async with trio.lowlevel.FdStream(descriptor) as stream:
        pending = b""
        while data := await stream.receive_some(_READ):
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                take(line)
            if len(pending) > MAX_LINE:
                take(pending)
                pending = b""
        if pending:
            take(pending)


def _readable(line: bytes) -> str:
    return _NUMBER.sub(r"…\1", line[:MAX_LINE].decode(errors="replace").strip())


def _log_line(bound: Any, text: str) -> None:
    if not text or text.startswith(_NOISE):
        return
    match = _LEVEL.match(text)
    if match is None:
        bound.info("worker_output", line=text)
        return
    level = getattr(bound, match[1].lower())
    level("worker_log", logger=match[2], line=text[match.end() :])
