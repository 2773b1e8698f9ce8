"""The default paths of the daemon's socket, state directory and configuration.

The daemon, the gateway and `whatsappctl` must agree without talking to each other, so the rules
live here. Little is imported: `whatsappctl` loads this on every call.
"""

from __future__ import annotations

import os

from whatsappd.errors import InvalidParams

SOCKET_NAME = "whatsappd.sock"
#: Where root's daemon, and the systemd service, listen and keep their state.
SYSTEM_SOCKET = "/run/whatsappd/" + SOCKET_NAME
SYSTEM_STATE_DIR = "/var/lib/whatsappd"


def default_state_dir() -> str:
    """The state directory: WHATSAPPD_STATE_DIR, else the system's for root, else the user's.

    Raises:
        InvalidParams: this user has no home directory where one could be.
    """
    given = os.environ.get("WHATSAPPD_STATE_DIR")
    if given:
        return given
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    # The XDG specification: relative paths are invalid and to be ignored.
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        found = home()
        if found is None:
            raise InvalidParams(
                f"there is no default: user {os.geteuid()} has no home directory; say where the "
                "state is kept with --state-dir or WHATSAPPD_STATE_DIR",
                field="state_dir",
            )
        base = found + "/.local/state"
    return base + "/whatsappd"


def home() -> str | None:
    """This user's home directory: HOME, else what the host says of the user; None: there is none,
    as for a user id without an entry in passwd(5)."""
    found = os.environ.get("HOME", "")
    if not found.startswith("/"):
        import pwd

        try:
            found = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return found.rstrip("/") if found.startswith("/") else None


def default_socket() -> str:
    """The socket that a daemon of this user makes.

    WHATSAPPD_SOCKET; else, for root, the system's; else in XDG_RUNTIME_DIR; and where there is none
    (cron jobs, containers), in the state directory.

    Raises:
        InvalidParams: this user has no directory where one could be.
    """
    given = os.environ.get("WHATSAPPD_SOCKET")
    if given:
        return given
    if os.geteuid() == 0:
        return SYSTEM_SOCKET
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return f"{runtime}/whatsappd/{SOCKET_NAME}"
    try:
        return f"{default_state_dir()}/{SOCKET_NAME}"
    except InvalidParams:
        raise InvalidParams(
            f"there is no default: user {os.geteuid()} has neither XDG_RUNTIME_DIR nor a home "
            "directory; say where the socket is with --socket or WHATSAPPD_SOCKET",
            field="socket",
        ) from None


def socket_to_reach() -> str:
    """The socket that a client of this user should try: its own daemon's, else the system's.

    Raises:
        InvalidParams: there is neither.
    """
    try:
        path = default_socket()
    except InvalidParams:
        if _exists(SYSTEM_SOCKET):
            return SYSTEM_SOCKET
        raise
    if "WHATSAPPD_SOCKET" in os.environ or path == SYSTEM_SOCKET:
        return path
    if not _exists(path) and _exists(SYSTEM_SOCKET):
        return SYSTEM_SOCKET
    return path


def _exists(path: str) -> bool:
    # A directory that may not be entered (0750, and we are not in its group) counts as existing:
    # "permission denied" tells its user more than "no such file".
    try:
        os.stat(path)  # noqa: PTH116 - as above
    except PermissionError:
        return True
    except OSError:
        return False
    return True
