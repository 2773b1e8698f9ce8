"""Run a command under the restrictions of a unit file, as far as that needs no systemd.

`python confined.py UNIT COMMAND...`: what systemd would take away is read from the unit itself, so
that a test which passes here says something about the unit: system calls, address families,
capabilities, new privileges, memory that is writable and executable.

Exit code 77 and a line on stderr: this host cannot do that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

UNAVAILABLE = 77

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 24, 38, 65
_PR_MDWE_REFUSE_EXEC_GAIN = 1
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # <seccomp.h>
_SCMP_CMP_EQ = 4


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: which argument, how, and with what."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def main() -> NoReturn:
    unit = _settings(Path(sys.argv[1]))
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["MemoryDenyWriteExecute"] == ["yes"]
    libc = ctypes.CDLL(None, use_errno=True)
    capability = 0
    while libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if capability == 0:
        _give_up("only root can drop capabilities")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        _give_up("no_new_privs is not available")
    if libc.prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
        _give_up("the kernel is older than 6.3 and knows no PR_SET_MDWE")
    families = [
        getattr(socket, family)
        for each in unit["RestrictAddressFamilies"]
        for family in each.split()
    ]
    _filter(_allowed(unit["SystemCallFilter"]), families)
    os.execv(sys.argv[2], sys.argv[2:])


def _settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def _allowed(filters: list[str]) -> set[str]:
    """The system calls that an allow list, and lists of what to take from it again, leave."""
    allowed: set[str] = set()
    for each in filters:
        names = each.removeprefix("~").split()
        calls = {call for name in names for call in (_expand(name) if name[0] == "@" else {name})}
        allowed = allowed - calls if each.startswith("~") else allowed | calls
    return allowed


def _expand(group: str) -> set[str]:
    if shutil.which("systemd-analyze") is None:
        _give_up("systemd-analyze is missing")
    printed = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], check=True, capture_output=True, text=True
    ).stdout
    calls: set[str] = set()
    for line in printed.splitlines()[1:]:
        name = line.strip()
        if name and name[0] != "#":
            calls |= _expand(name) if name[0] == "@" else {name}
    return calls


def _filter(calls: set[str], families: list[int]) -> None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        _give_up("libseccomp is missing")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    context = library.seccomp_init(ctypes.c_uint32(_ERRNO | errno.EPERM))
    for name in sorted(calls - {"socket"}):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else it is none of this architecture
            assert library.seccomp_rule_add_array(context, _ALLOW, number, 0, None) == 0
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in families:
        comparison = _Comparison(0, _SCMP_CMP_EQ, family, 0)
        assert library.seccomp_rule_add_array(context, _ALLOW, number, 1, comparison) == 0
    library.seccomp_load.argtypes = (ctypes.c_void_p,)
    assert library.seccomp_load(context) == 0


def _give_up(reason: str) -> NoReturn:
    print(reason, file=sys.stderr)
    sys.exit(UNAVAILABLE)


if __name__ == "__main__":
    main()
