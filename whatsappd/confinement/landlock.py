"""Landlock: a process gives up all files but some, for its whole life. See landlock(7).

What a kernel can refuse depends on its ABI version; everything that the running one knows (up to
7) is used. Only the calling thread is restricted, and what it starts afterwards: call it while
there is one thread.

What no version refuses, as of ABI 7: looking at a file without opening it (stat, access), changing
modes and owners, watching with inotify, UDP, and connecting to Unix sockets by path. `seccomp`
refuses all of these but the first and UDP.
"""

from __future__ import annotations

import errno
import os
import platform
import stat
import struct
from collections.abc import Collection, Iterable
from typing import NamedTuple

from whatsappd.confinement.libc import syscall

# The same numbers on every machine (since 2021, all new system calls have that).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2

# <linux/landlock.h>, access_fs.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_FILE, MAKE_FILE = 1 << 5, 1 << 8
TRUNCATE = 1 << 14  # ABI 3
IOCTL_DEVICE = 1 << 15  # ABI 5
#: How many rights of files each ABI version has.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_FILE_RIGHTS_LATEST = 16
#: Rights that a rule for a single file may name.
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE

READ = READ_FILE | READ_DIR
#: Files in a directory: read, written, made, removed, renamed within it. No directories, links,
#: sockets, pipes or devices, and nothing can be moved or linked into it or out of it.
KEEP_FILES = READ | WRITE_FILE | REMOVE_FILE | MAKE_FILE | TRUNCATE

_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1  # access_net, ABI 4
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1  # scoped, ABI 6
ABI_PORTS, ABI_SCOPES = 4, 6


class PathRule(NamedTuple):
    """What may be done with `path`, and with all that is below it."""

    path: str
    rights: int


def abi_version() -> int:
    """The version of Landlock that the running kernel offers.

    Raises:
        OSError: none; `why_not` puts the reason into words.
    """
    return syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)


def why_not(error: OSError) -> str:
    """Why there is no Landlock, for people."""
    if error.errno == errno.ENOSYS:
        return f"this kernel ({platform.release()}) has no Landlock, or a container hides it"
    if error.errno == errno.EOPNOTSUPP:
        return "Landlock is switched off on this kernel (add it to lsm= of its command line)"
    return f"Landlock cannot be used here: {error.strerror}"


def restrict_self(
    rules: Iterable[PathRule], *, connect_ports: Collection[int] | None = None
) -> int:
    """Leave this thread only what `rules` allow; the ABI version that was used.

    With ABI 4, no TCP socket can be bound, and none connected but to `connect_ports` (None: to any
    port). With ABI 6, neither abstract Unix sockets nor signals reach processes outside. Rules for
    what does not exist are skipped. Needs `no_new_privileges`.

    Raises:
        OSError: the kernel has no Landlock, or refused. Nothing is restricted then.
    """
    abi = abi_version()
    rights = (1 << _FILE_RIGHTS.get(abi, _FILE_RIGHTS_LATEST)) - 1
    network = 0
    if abi >= ABI_PORTS:
        network = _BIND_TCP | (_CONNECT_TCP if connect_ports is not None else 0)
    attributes = struct.pack("=Q", rights)
    if abi >= ABI_PORTS:
        attributes += struct.pack("=Q", network)
    if abi >= ABI_SCOPES:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS | _SIGNALS)
    ruleset = syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for rule in rules:
            _allow_path(ruleset, rule.path, rule.rights & rights)
        if network & _CONNECT_TCP:
            for port in connect_ports or ():
                allowed = struct.pack("=QQ", _CONNECT_TCP, port)
                syscall(_ADD_RULE, ruleset, _NET_PORT, allowed, 0)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what cannot be reached needs no right
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)
