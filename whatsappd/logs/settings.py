"""The settings of the log."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from whatsappd.logs.setup import LogFormat, LogLevel
from whatsappd.setting import setting


class LogSettings(Struct, frozen=True):
    level: Annotated[
        LogLevel,
        setting(
            "log_level",
            "The least important log lines to write. `daemon.configure` changes it while the "
            "daemon runs.",
            live=True,
        ),
    ] = "info"
    format: Annotated[
        LogFormat,
        setting(
            "log_format",
            "`json`: one object a line; `console`: for people; `auto`: console on a terminal, else "
            "json.",
            live=True,
        ),
    ] = "auto"
