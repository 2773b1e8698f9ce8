"""What child processes print, as log lines.

neonize, Go and Python's warnings print where they like; nothing else of a worker's stdout and
stderr has a meaning to the daemon.
"""

from __future__ import annotations

import re
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
#: A phone number or LID inside an address; its last four digits suffice to tell two apart.
_NUMBER = re.compile(r"\b[0-9]+([0-9]{4})(?=(?:[.:][0-9]+)*@)")


async def log_output(descriptor: int, tags: dict[str, Any]) -> None:
    """Log every line read from `descriptor` until it ends, then close it."""
    bound = log.bind(**tags)
    async with trio.lowlevel.FdStream(descriptor) as stream:
        pending = b""
        while data := await stream.receive_some(_READ):
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                _log_line(bound, line)
            if len(pending) > MAX_LINE:
                _log_line(bound, pending)
                pending = b""
        if pending:
            _log_line(bound, pending)


def _log_line(bound: Any, line: bytes) -> None:
    text = line[:MAX_LINE].decode(errors="replace").strip()
    if not text or text.startswith(_NOISE):
        return
    text = _NUMBER.sub(r"…\1", text)
    match = _LEVEL.match(text)
    if match is None:
        bound.info("worker_output", line=text)
        return
    level = getattr(bound, match[1].lower())
    level("worker_log", logger=match[2], line=text[match.end() :])
