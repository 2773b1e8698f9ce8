"""seccomp: the system calls that a process may make, and whom it tells of the others.

A filter (seccomp(2), in classic BPF) is made for a role of `calls`, with checks of arguments where
the number alone does not decide. What it refuses fails with EPERM, and whoever holds the filter's
listener is asked first, and so can count (seccomp_unotify(2)): the daemon. Without a listener, what
is refused fails as well, and nobody counts.

A filter is inherited by threads and processes that are made afterwards, and cannot be taken off.
Argument checks look at the low half of a register, as the kernel does for the arguments checked.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

from whatsappd.confinement.calls import FORK_SERVER, WORKER, CallRights, numbers_for
from whatsappd.confinement.libc import syscall

_MACHINE = os.uname().machine
#: AUDIT_ARCH_* of <linux/audit.h>, by machine.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: Where the numbers of x32 begin, another set of them for the calls of x86-64.
_X32 = 0x40000000

# <linux/seccomp.h>
_SET_MODE_FILTER, _ACTION_IS_AVAILABLE = 1, 2
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*
_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")

# <linux/bpf_common.h>
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _EQUAL, _AT_LEAST, _ANY_BIT = 0x05, 0x15, 0x35, 0x45
_FARTHEST = 255  # instructions that a conditional jump can skip
_OF_NUMBER, _OF_ARCHITECTURE = 0, 4  # offsets in struct seccomp_data

_CLONE_THREAD = 0x00010000
#: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x70000000
#: It connects without connect(2), where Landlock does not look.
_MSG_FASTOPEN = 0x20000000
#: Signals by way of a descriptor: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY. And F_SETLEASE:
#: whoever opens a file that has a lease waits for its holder.
_FCNTL_REFUSED = (8, 10, 15, 1024, 1026)
#: Typing for others (TIOCSTI, TIOCLINUX), signals (FIOSETOWN, SIOCSPGRP).
_IOCTL_REFUSED = (0x5412, 0x541C, 0x8901, 0x8902)
#: Terminal or not (TCGETS, TIOCGWINSZ), FIONREAD, FIONBIO, FIOCLEX, FIONCLEX.
_IOCTL_ALLOWED = (0x5401, 0x5413, 0x541B, 0x5421, 0x5451, 0x5450)
#: PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ, PR_SET_TIMERSLACK,
#: PR_GET_NO_NEW_PRIVS, PR_SET_VMA (Go names its memory).
_PRCTL_ALLOWED = (3, 15, 16, 21, 23, 29, 39, 0x53564D41)

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


class RefusedCall(NamedTuple):
    """A system call that a filter did not allow."""

    thread: int
    call: str  # its name; its number if it has none here
    arguments: tuple[int, ...]


def is_known_machine() -> bool:
    """Whether there are filters for this machine, and this process runs its 64-bit code."""
    return _MACHINE in _ARCHITECTURES and sys.maxsize > 2**32


def worker_filter(pid: int, *, is_counted: bool) -> bytes:
    """The filter of the worker with that pid, which may signal itself only.

    Args:
        is_counted: whether there will be a listener.
    """
    refuse = _NOTIFY if is_counted else _ERRNO | errno.EPERM
    own = (pid,)
    checks = {
        "socket": _check_socket(refuse),
        "clone": [
            _load_argument(0),
            (_ANY_BIT, 2, 0, _CLONE_NAMESPACES),
            (_ANY_BIT, 0, 1, _CLONE_THREAD),
            _answer(_ALLOW),
            _answer(refuse),
        ],
        "kill": _one_of(0, own, refuse),
        "tgkill": _one_of(0, own, refuse),
        "rt_sigqueueinfo": _one_of(0, own, refuse),
        "rt_tgsigqueueinfo": _one_of(0, own, refuse),
        "prlimit64": _one_of(0, (0, pid), refuse),
        "prctl": _one_of(0, _PRCTL_ALLOWED, refuse),
        "fcntl": _one_of(1, _FCNTL_REFUSED, _ALLOW, then=refuse),
        "ioctl": _check_ioctl(refuse),
        "sendto": _without_bit(3, _MSG_FASTOPEN, refuse),
        "sendmsg": _without_bit(2, _MSG_FASTOPEN, refuse),
        "sendmmsg": _without_bit(3, _MSG_FASTOPEN, refuse),
    }
    return _assemble(WORKER, checks, refuse)


def fork_server_filter() -> bytes:
    """The fork server's. It asks a listener that it has not: what it refuses fails with ENOSYS.

    So a worker, which inherits it, is refused by its own filter, the younger of two that say the
    same; refused with an errno, the call would be nobody's to count.
    """
    refuse = _NOTIFY if can_notify() else _ERRNO | errno.EPERM
    checks = {
        "socket": _check_socket(refuse),
        "clone": _without_bit(0, _CLONE_NAMESPACES, refuse),
        "ioctl": _check_ioctl(refuse),
        "sendmmsg": _without_bit(3, _MSG_FASTOPEN, refuse),
    }
    return _assemble(FORK_SERVER, checks, refuse)


def can_notify() -> bool:
    """Whether the kernel knows listeners (since 5.0); an older one would kill, not refuse."""
    action = ctypes.create_string_buffer(struct.pack("=I", _NOTIFY))
    try:
        return syscall(_number(), _ACTION_IS_AVAILABLE, 0, action) == 0
    except OSError:
        return False


def install(program: bytes) -> None:
    """Put this thread, and what it starts afterwards, under a filter. Needs `no_new_privileges`.

    Raises:
        OSError: the kernel has no seccomp filters, or refused.
    """
    _install(program, 0)


def install_with_listener(program: bytes) -> int:
    """The same; a descriptor for `next_refused`. Nobody whom the filter restricts may keep it.

    Raises:
        OSError: as above; EBUSY if somebody listens to a filter of this process already (some
            container runtimes do).
    """
    try:
        return _install(program, _NEW_LISTENER | _WAIT_KILLABLE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _install(program, _NEW_LISTENER)  # before Linux 5.19


def next_refused(listener: int) -> RefusedCall | None:
    """The next call that is being refused, which ends it with EPERM; None if there is none now.

    Does not block.

    Raises:
        OSError: nobody is under the filter any more.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    flags = dict(poll.poll(0)).get(listener, 0)
    if not flags & select.POLLIN:
        if flags & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            raise OSError(errno.ESRCH, "the filter's processes have ended")
        return None
    notice = bytearray(_NOTICE.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, notice)
        number, thread, _, call, architecture, _, *arguments = _NOTICE.unpack(notice)
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(number, 0, -errno.EPERM, 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None  # its thread ended, or was interrupted and asks anew
        raise
    return RefusedCall(thread, _name(call, architecture), tuple(arguments))


def _name(number: int, architecture: int) -> str:
    if architecture != _ARCHITECTURES.get(_MACHINE):
        return "foreign_architecture"
    if not _NAMES:
        _NAMES.update({each: name for name, each in numbers_for(_MACHINE).items()})
    return _NAMES.get(number, "unknown")


_NAMES: dict[int, str] = {}


def _install(program: bytes, flags: int) -> int:
    code = ctypes.create_string_buffer(program, len(program))
    length = len(program) // 8
    header = ctypes.create_string_buffer(struct.pack("@HP", length, ctypes.addressof(code)))
    return syscall(_number(), _SET_MODE_FILTER, flags, header)


def _number() -> int:
    return numbers_for(_MACHINE)["seccomp"]


# --- the program ---------------------------------------------------------------------------------


def _load_argument(index: int) -> _Instruction:
    return _LOAD, 0, 0, 16 + 8 * index


def _answer(action: int) -> _Instruction:
    return _RETURN, 0, 0, action


def _one_of(
    argument: int, values: tuple[int, ...], otherwise: int, *, then: int = _ALLOW
) -> list[_Instruction]:
    count = len(values)
    tests = [(_EQUAL, count - place, 0, value) for place, value in enumerate(values)]
    return [_load_argument(argument), *tests, _answer(otherwise), _answer(then)]


def _without_bit(argument: int, bits: int, refuse: int) -> list[_Instruction]:
    return [_load_argument(argument), (_ANY_BIT, 1, 0, bits), _answer(_ALLOW), _answer(refuse)]


def _check_socket(refuse: int) -> list[_Instruction]:
    """TCP and UDP, by IPv4 and IPv6: no Unix sockets, no raw ones, none of Landlock's blind spots
    (MPTCP, SCTP)."""
    return [
        _load_argument(0),
        (_EQUAL, 1, 0, socket.AF_INET),
        (_EQUAL, 0, 8, socket.AF_INET6),
        _load_argument(1),
        (_AND, 0, 0, 0xF),  # less SOCK_CLOEXEC and SOCK_NONBLOCK
        (_EQUAL, 1, 0, socket.SOCK_STREAM),
        (_EQUAL, 0, 4, socket.SOCK_DGRAM),
        _load_argument(2),
        (_EQUAL, 3, 0, 0),
        (_EQUAL, 2, 0, socket.IPPROTO_TCP),
        (_EQUAL, 1, 0, socket.IPPROTO_UDP),
        _answer(refuse),
        _answer(_ALLOW),
    ]


def _check_ioctl(refuse: int) -> list[_Instruction]:
    """What is neither allowed nor dangerous is answered as by a file that does not know it."""
    allowed, refused = _IOCTL_ALLOWED, _IOCTL_REFUSED
    count = len(allowed) + len(refused)
    return [
        _load_argument(1),
        *((_EQUAL, count - place, 0, value) for place, value in enumerate(allowed)),
        *((_EQUAL, len(refused) - place + 1, 0, value) for place, value in enumerate(refused)),
        _answer(_ERRNO | errno.ENOTTY),
        _answer(_ALLOW),
        _answer(refuse),
    ]


def _assemble(rights: CallRights, checks: dict[str, list[_Instruction]], refuse: int) -> bytes:
    """A filter: what machine, then a search for the number, then the checks of arguments."""
    numbers = numbers_for(_MACHINE)
    blocks: list[list[_Instruction]] = [
        [_answer(_ALLOW)],
        [_answer(refuse)],
        [_answer(_ERRNO | errno.ENOSYS)],
        [_answer(_ERRNO | errno.EPERM)],
    ]
    allow, refused, absent, unneeded = range(4)
    leaves: dict[int, int] = {}  # which block decides about a number
    for name, number in numbers.items():
        if name in checks:
            leaves[number] = len(blocks)
            blocks.append(checks[name])
        elif name in rights.allowed:
            leaves[number] = allow
        elif name in rights.absent:
            leaves[number] = absent
        elif name in rights.unneeded:
            leaves[number] = unneeded
        else:
            leaves[number] = refused
    runs = list(_runs(leaves, refused=refused, absent=absent))
    search = _search(runs)
    head: list[_Instruction] = [
        (_LOAD, 0, 0, _OF_ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[_MACHINE]),
        _answer(refuse),
        (_LOAD, 0, 0, _OF_NUMBER),
    ]
    starts: list[int] = []
    place = len(head) + len(search)
    for block in blocks:
        starts.append(place)
        place += len(block)
    code = [*head]
    for kind, if_true, if_false, operand in search:
        distance = starts[operand] - len(code) - 1 if kind == _JUMP else operand
        code.append((kind, if_true, if_false, distance))
    for block in blocks:
        code += block
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _runs(leaves: dict[int, int], *, refused: int, absent: int) -> Iterable[tuple[int, int]]:
    """The first number of each run that one block decides about, and which."""
    last: int | None = None
    for number in range(max(leaves) + 2):
        block = leaves.get(number, absent)
        if block != last:
            yield number, block
            last = block
    if last != absent:
        yield max(leaves) + 1, absent
    yield _X32, refused  # negative numbers are above as well


def _search(runs: list[tuple[int, int]]) -> list[_Instruction]:
    """Halve the runs until one is left, and jump to its block (by its index, for now)."""
    if len(runs) == 1:
        return [(_JUMP, 0, 0, runs[0][1])]
    middle = len(runs) // 2
    low, high = _search(runs[:middle]), _search(runs[middle:])
    assert len(low) <= _FARTHEST, "too many runs for one search"
    return [(_AT_LEAST, len(low), 0, runs[middle][0]), *low, *high]
