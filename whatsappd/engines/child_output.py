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

from whatsappd.rules.bounds import WORKER_OUTPUT, Pace

log = structlog.get_logger()

#: A longer line is cut: a child must not fill the daemon's memory with one.
MAX_LINE = 8192
_READ = 16 * 1024
#: Seconds for which a child that prints too much is not listened to.
QUIET = 10.0
#: Seconds between two reads meanwhile: it may go on printing 1.6 MB a second.
_PAUSE = 0.01
#: What a line takes in the log beside its own bytes.
LINE_COSTS = 100

#: Noise that neonize prints at every start, of no use to anybody.
_NOISE = ("Press Ctrl+C to exit",)
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) (\S+) ")
#: How Go says that it ends the process. What it quotes came from elsewhere, and is left out.
_CRASHES = (b"panic: ", b"fatal error: ")
_CRASH = re.compile(r"(panic|fatal error): .+")
_QUOTED = re.compile(r"""(["'`]).*\1""")
MAX_CRASH = 200
#: A phone number or LID inside an address; its last four digits suffice to tell two apart.
#: Each match takes all digits, dots and colons there are, so a line is gone through once.
_DIGITS = re.compile(r"[0-9]++(?:[.:][0-9]++)*+@?")
_LONG = re.compile(r"[0-9]+([0-9]{4})(?![0-9])")


async def log_output(
    descriptor: int, tags: dict[str, Any], *, on_crash: Callable[[str], None] | None = None
) -> None:
    """Log every line read from `descriptor` until it ends, then close it.

    A child that prints more than `WORKER_OUTPUT` allows is not listened to for QUIET seconds. What
    it prints meanwhile is read, slowly, and dropped: nothing of it reaches the log but a count.

    Args:
        on_crash: told Go's own words for why it ends the process.
    """
    output = _ChildLines(log.bind(**tags), on_crash)
    async with trio.lowlevel.FdStream(descriptor) as stream:
        while data := await stream.receive_some(_READ):
            output.take(data)
            if output.is_quiet:
                await trio.sleep(_PAUSE)
        output.end()


class _ChildLines:
    """Makes lines of what one child prints, and log lines of those that there is room for."""

    def __init__(self, bound: Any, on_crash: Callable[[str], None] | None) -> None:
        self._log = bound
        self._on_crash = on_crash
        self._pace = Pace(WORKER_OUTPUT)
        self._pending = b""
        self._quiet_until: float | None = None
        self._left_out = 0  # lines, while it is quiet

    @property
    def is_quiet(self) -> bool:
        return self._quiet_until is not None

    def take(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._pending) > MAX_LINE:
            self._line(self._pending)
            self._pending = b""

    def end(self) -> None:
        if self._pending:
            self._line(self._pending)
        self._tell_left_out()

    def _line(self, line: bytes) -> None:
        if self._on_crash is not None and line.startswith(_CRASHES):
            text = _readable(line)
            if _CRASH.match(text):
                self._on_crash(_QUOTED.sub("…", text)[:MAX_CRASH])
        now = trio.current_time()
        if self._quiet_until is not None:
            if now < self._quiet_until:
                self._left_out += 1
                return
            self._tell_left_out()
        if self._pace.allows("", now, len(line) + LINE_COSTS):
            _log_line(self._log, _readable(line))
        else:
            self._left_out = 1
            self._quiet_until = now + QUIET
            self._log.warning("output_too_fast", quiet_s=QUIET)

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._log.warning("output_left_out", lines=self._left_out)
        self._left_out = 0
        self._quiet_until = None


def _readable(line: bytes) -> str:
    return _DIGITS.sub(_shortened, line[:MAX_LINE].decode(errors="replace").strip())


def _shortened(match: re.Match[str]) -> str:
    return _LONG.sub(r"…\1", match[0]) if match[0].endswith("@") else match[0]


def _log_line(bound: Any, text: str) -> None:
    if not text or text.startswith(_NOISE):
        return
    match = _LEVEL.match(text)
    if match is None:
        bound.info("worker_output", line=text)
        return
    level = getattr(bound, match[1].lower())
    level("worker_log", logger=match[2], line=text[match.end() :])
