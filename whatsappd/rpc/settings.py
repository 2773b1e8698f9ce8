"""The settings of the daemon's socket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Struct

from whatsappd.model.paths import default_socket
from whatsappd.setting import HostDefault, WrittenAs, setting
from whatsappd.working_directory import from_start


def _default(_is_sandboxed: bool) -> Path:
    return from_start(Path(default_socket()))


class SocketSettings(Struct, frozen=True):
    path: Annotated[
        Path,
        setting(
            "socket",
            "The Unix socket to listen on, at most 107 bytes. `whatsappctl` does not read this "
            "file: set WHATSAPPD_SOCKET for it.",
            default=HostDefault(
                _default,
                "`/run/whatsappd/whatsappd.sock` for root, "
                "`$XDG_RUNTIME_DIR/whatsappd/whatsappd.sock` for users",
            ),
        ),
    ]
    mode: Annotated[
        int,
        setting(
            "socket_mode",
            "The socket's permissions: who may connect at all.",
            ge=0o600,
            le=0o777,
            written_as=WrittenAs.PERMISSIONS,
        ),
    ] = 0o660
    group: Annotated[
        str,
        setting(
            "socket_group",
            "The group that the socket is given to. Empty: the daemon's own.",
            written_as=WrittenAs.GROUP,
        ),
    ] = ""
