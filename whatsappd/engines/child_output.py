"""Logs the lines that child processes print. An engine may give some of them a meaning."""

from __future__ import annotations

import re
from typing import Any, Protocol

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

_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) (\S+) ")
#: A phone number or LID inside an address; its last four digits suffice to tell two apart.
#: Each match takes all digits, dots and colons there are, so a line is gone through once.
_DIGITS = re.compile(r"[0-9]++(?:[.:][0-9]++)*+@?")
_LONG = re.compile(r"[0-9]+([0-9]{4})(?![0-9])")


class OutputWatch(Protocol):
    """Knows what some of a process's lines mean."""

    @property
    def crash(self) -> str | None:
        """The process's own words for why it ended itself, if it did."""
        ...

    def sees(self, line: bytes) -> bool:
        """Take note of a line, also of one that there is no room for in the log; whether it may
        be of use to anybody."""
        ...


class PlainOutput:
    """An `OutputWatch` of processes that say nothing that has a meaning."""

    crash: str | None = None

    def sees(self, line: bytes) -> bool:
        return True


async def log_output(
    descriptor: int, tags: dict[str, Any], watch: OutputWatch | None = None
) -> None:
    """Log every line read from `descriptor` until it ends, then close it.

    A child that prints more than `WORKER_OUTPUT` allows is not listened to for QUIET seconds. What
    it prints meanwhile is read, slowly, and dropped: nothing of it reaches the log but a count.
    """
    output = _ChildLines(log.bind(**tags), watch or PlainOutput())
    async with trio.lowlevel.FdStream(descriptor) as stream:
        while data := await stream.receive_some(_READ):
            output.take(data)
            if output.is_quiet:
                await trio.sleep(_PAUSE)
        output.end()


class _ChildLines:
    """Makes lines of what one child prints, and log lines of those that there is room for."""

    def __init__(self, bound: Any, watch: OutputWatch) -> None:
        self._log = bound
        self._watch = watch
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
        is_of_use = self._watch.sees(line)
        now = trio.current_time()
        if self._quiet_until is not None:
            if now < self._quiet_until:
                self._left_out += 1
                return
            self._tell_left_out()
        if self._pace.allows("", now, len(line) + LINE_COSTS):
            if is_of_use:
                _log_line(self._log, readable(line))
        else:
            self._left_out = 1
            self._quiet_until = now + QUIET
            self._log.warning("output_too_fast", quiet_s=QUIET)

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._log.warning("output_left_out", lines=self._left_out)
        self._left_out = 0
        self._quiet_until = None


def readable(line: bytes) -> str:
    """A line as text, cut to what a log line may have, with addresses shortened."""
    return _DIGITS.sub(_shortened, line[:MAX_LINE].decode(errors="replace").strip())


def _shortened(match: re.Match[str]) -> str:
    return _LONG.sub(r"…\1", match[0]) if match[0].endswith("@") else match[0]


def _log_line(bound: Any, text: str) -> None:
    if not text:
        return
    match = _LEVEL.match(text)
    if match is None:
        bound.info("worker_output", line=text)
        return
    level = getattr(bound, match[1].lower())
    level("worker_log", logger=match[2], line=text[match.end() :])
