"""The process, user and groups at the other end of a Unix socket, as the kernel reports them.

The server asks once per connection; `listener` asks who answers on a socket that is taken.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

# struct ucred of <sys/socket.h>: pid_t, uid_t, gid_t.
_UCRED = struct.Struct("=iII")
# <asm/socket.h>, since Linux 4.13; the socket module does not name it.
_SO_PEERGROUPS = 59
_GID = struct.Struct("=I")
#: The most that getsockopt() of Python takes: 256 groups.
_GROUPS_BYTES = 1024


class Peer(NamedTuple):
    """The process that connected, as it was then: it may have ended or passed the socket on."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()  # supplementary


def peer_of(connected: socket.socket) -> Peer:
    """The credentials of the process at the other end (SO_PEERCRED, see unix(7)).

    On a socket that called `connect()`, they are those of the process that called `listen()`.

    The supplementary groups are the process's own (SO_PEERGROUPS), as they count for the
    permissions of files, not those that a look-up of its user would give. Of a process with more
    than 256 of them, none counts.

    Raises:
        OSError: the socket is not connected.
    """
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return Peer(pid, uid, gid, _groups_of(connected))


def _groups_of(connected: socket.socket) -> frozenset[int]:
    try:
        raw = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno in (errno.ERANGE, errno.ENOPROTOOPT):
            return frozenset()
        raise
    return frozenset(gid for (gid,) in _GID.iter_unpack(raw))
