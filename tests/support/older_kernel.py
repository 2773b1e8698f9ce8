"""Run a command as on a kernel that has no Landlock, or no seccomp: `python older_kernel.py
landlock,seccomp COMMAND...` lets the calls fail as they would there."""

from __future__ import annotations

import errno
import os
import struct
import sys

from whatsappd.confinement.calls import numbers_for
from whatsappd.confinement.process import no_new_privileges
from whatsappd.confinement.seccomp import install

_LOAD_NUMBER = (0x20, 0, 0, 0)
_EQUAL, _RETURN = 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
CALLS = {"landlock": "landlock_create_ruleset", "seccomp": "seccomp"}


def main() -> None:
    numbers = numbers_for(os.uname().machine)
    lacking = [numbers[CALLS[name]] for name in sys.argv[1].split(",")]
    count = len(lacking)
    program = [
        _LOAD_NUMBER,
        *((_EQUAL, count - place, 0, number) for place, number in enumerate(lacking)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    no_new_privileges()
    install(b"".join(struct.pack("=HBBI", *each) for each in program))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
