"""All settings of the daemon: each part's own structure, put together.

`load` makes one of what people gave, `app` hands each part its structure. What can be set, with its
range, default and meaning, is declared in those structures (`whatsappd.setting`).
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from whatsappd.engines.settings import EngineSettings
from whatsappd.limits.settings import LimiterSettings, SendLimits
from whatsappd.logs.settings import LogSettings
from whatsappd.model.access import AccessRule
from whatsappd.monitoring.settings import AlertSettings, RecycleSettings
from whatsappd.rpc.settings import SocketSettings
from whatsappd.sessions.settings import RetentionSettings, SessionSettings
from whatsappd.state_directory import StateSettings


class Settings(Struct, frozen=True, kw_only=True):
    """The settings in force. The order is that of the sample file, within each of its sections."""

    state: StateSettings
    socket: SocketSettings
    logs: LogSettings
    send_limits: SendLimits  # of companies that have none of their own
    limiter: LimiterSettings
    retention: RetentionSettings
    sessions: SessionSettings
    engine: EngineSettings
    recycling: RecycleSettings
    alerts: AlertSettings
    #: `[[access]]`; see `config.access`.
    access: tuple[AccessRule, ...] = ()
    #: The command line's alone: run a sandbox of our own, or use the one that this file describes.
    sandbox: bool = False
    sandbox_at: Path | None = None

    @property
    def is_sandboxed(self) -> bool:
        return self.sandbox or self.sandbox_at is not None
