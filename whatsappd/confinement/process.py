"""What a process gives up without any help of Landlock or seccomp."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from whatsappd.confinement.libc import prctl

# <linux/prctl.h>
_SET_DUMPABLE, _SET_NO_NEW_PRIVS, _CAP_AMBIENT = 4, 38, 47
_CLEAR_ALL = 4
# <linux/capability.h>
_CAPABILITY_VERSION = 0x20080522
_CAP_DAC_READ_SEARCH = 2

#: Behind the last descriptor that a process may have (sysctl fs.nr_open is below).
_BEHIND_ALL = 2**31 - 1


def no_new_privileges() -> None:
    """No program that this process runs will have more rights than it. Landlock needs that.

    Raises:
        OSError: the kernel refused.
    """
    prctl(_SET_NO_NEW_PRIVS, 1)


def keep_memory_private() -> None:
    """Leave no core file, and let no other process of this user read the memory (ptrace(2)).

    For others, what is about this process in /proc belongs to root afterwards.

    Raises:
        OSError: the kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(_SET_DUMPABLE, 0)


def drop_capabilities() -> None:
    """Give up root's powers, if this process has some, except for reading files.

    Reading stays, because the libraries may lie in another user's home.

    Raises:
        OSError: the kernel refused.
    """
    with suppress(OSError):  # before Linux 4.3 there are none
        prctl(_CAP_AMBIENT, _CLEAR_ALL)
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; twice
    if libc.capget(header, held) != 0:
        raise OSError(ctypes.get_errno(), "capget failed")
    effective, permitted, _, _, more, _ = struct.unpack("=6I", held.raw)
    permitted |= more << 32
    kept = permitted & (1 << _CAP_DAC_READ_SEARCH)
    if permitted == kept:
        return  # asking could be refused (by a filter of systemd's)
    if libc.capset(header, struct.pack("=6I", effective & kept, kept, 0, 0, 0, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def limit_descriptors(most: int) -> None:
    """This process may have at most so many descriptors from now on; it may have fewer already.

    Raises:
        OSError: the kernel refused.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > most:
        hard = most
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def die_before_others() -> None:
    """When memory runs out, the kernel ends this process and what it starts before others (proc(5),
    oom_score_adj). Call it before `keep_memory_private`; what cannot be had is done without."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def close_all_but(descriptors: Collection[int]) -> None:
    """Close every open descriptor that is not named."""
    begin = 0
    for descriptor in sorted(descriptors):
        if begin < descriptor:  # from 0 to 0, Python would close all that there are
            os.closerange(begin, descriptor)
        begin = descriptor + 1
    os.closerange(begin, _BEHIND_ALL)
