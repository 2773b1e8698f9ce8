"""Settings of the daemon: where things are, and which WhatsApp it talks to.

Values come from the command line, then from the environment (`WHATSAPPD_*`), then from defaults
that suit root (systemd's directories) and users (XDG).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from whatsappd.errors import InvalidParams
from whatsappd.model.paths import default_socket, default_state_dir


class Settings(NamedTuple):
    state_dir: Path
    socket: Path
    log_level: str
    sandbox: bool  # run a sandbox of our own
    sandbox_at: Path | None  # use the one that this file describes
    socket_mode: int = 0o660

    @property
    def is_sandboxed(self) -> bool:
        return self.sandbox or self.sandbox_at is not None


def make_settings(
    *,
    state_dir: Path | None,
    socket: Path | None,
    log_level: str,
    sandbox: bool,
    sandbox_at: Path | None,
) -> Settings:
    """Settings with defaults filled in, and paths made absolute.

    A daemon in sandbox mode has a state directory of its own by default, beside the real one.

    Raises:
        InvalidParams: values contradict each other.
    """
    if sandbox and sandbox_at is not None:
        raise InvalidParams(
            "sandbox: use --sandbox (a sandbox of its own) or --sandbox-at FILE (another's), "
            "not both",
            field="sandbox",
        )
    if state_dir is None:
        state_dir = Path(default_state_dir())
        if sandbox or sandbox_at is not None:
            state_dir = state_dir.with_name(f"{state_dir.name}-sandbox")
    return Settings(
        state_dir=state_dir.absolute(),
        socket=(socket or Path(default_socket())).absolute(),
        log_level=log_level,
        sandbox=sandbox,
        sandbox_at=sandbox_at.absolute() if sandbox_at else None,
    )
