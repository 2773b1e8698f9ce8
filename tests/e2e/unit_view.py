"""Run a command with the view of the file system that the daemon's unit has.

`python unit_view.py WRITABLE PRIVATE COMMAND...`, as root: all is read-only but WRITABLE
(ProtectSystem=strict with StateDirectory= and RuntimeDirectory=), and PRIVATE is an empty directory
of its own (PrivateTmp=, ProtectHome=tmpfs). systemd does this with the same mounts.

Exit code 77 and a line on stderr: this host cannot do that.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import NoReturn

UNAVAILABLE = 77

_CLONE_NEWNS = 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    writable, private = (os.fsencode(each) for each in sys.argv[1:3])
    if _libc.unshare(_CLONE_NEWNS) != 0:
        print("no mount namespaces here", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE)
    _mount(writable, writable, None, _MS_BIND)
    _mount(b"none", private, b"tmpfs", 0)
    _mount(b"none", b"/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    os.execv(sys.argv[3], sys.argv[3:])


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    if _libc.mount(source, target, kind, ctypes.c_ulong(flags), None) != 0:
        print(f"mount {target!r}: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        sys.exit(UNAVAILABLE)


if __name__ == "__main__":
    main()
