"""structlog set-up: JSON lines where machines read, readable lines on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

LEVELS = ("debug", "info", "warning", "error")


def configure_logs(
    level: str = "info", form: str = "auto", *, stream: TextIO | None = None
) -> None:
    """Send all logs to `stream` (stderr) from `level` on. May be called again to change them.

    Args:
        form: `json`, `console`, or `auto`: console if `stream` is a terminal.
    """
    stream = stream or sys.stderr
    rendering: list[structlog.typing.Processor]
    if form == "console" or (form == "auto" and stream.isatty()):
        rendering = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(),
        ]
    else:
        rendering = [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(stream),
        # The level must stay changeable at run time.
        cache_logger_on_first_use=False,
    )
