"""Run a command as another user who sees no process in /proc that is not his own: as systemd's
ProtectProc=invisible and ProcSubset=pid have it. `python as_service.py UID PYTHON...`, as root; if
that Python is in a home, the host's own of the same version takes its place.

Exit code 77 and a line on stderr: this host cannot do that.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

UNAVAILABLE = 77

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def main() -> None:
    uid, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.unshare(_CLONE_NEWNS) != 0
        or libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) != 0
        or libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=invisible,subset=pid") != 0
    ):
        print(f"no such /proc here: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    for program in (command[0], f"/usr/bin/python3.{sys.version_info.minor}"):
        with suppress(PermissionError, FileNotFoundError):
            os.execv(program, [program, *command[1:]])
    print(f"{command[0]} is not for other users", file=sys.stderr)
    sys.exit(UNAVAILABLE)


if __name__ == "__main__":
    main()
