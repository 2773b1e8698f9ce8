"""Who is at the other end of a Unix socket, on the kernel's word.

The server asks once per connection; `listener` asks who answers on a socket that is taken.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# struct ucred of <sys/socket.h>: pid_t, uid_t, gid_t.
_UCRED = struct.Struct("=iII")


class Peer(NamedTuple):
    """The process that connected, as it was then: it may have ended or passed the socket on."""

    pid: int
    uid: int
    gid: int


def peer_of(connected: socket.socket) -> Peer:
    """The credentials of the process at the other end (SO_PEERCRED, see unix(7)).

    On a socket that called `connect()`, they are those of the process that called `listen()`.

    Raises:
        OSError: the socket is not connected.
    """
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Peer._make(_UCRED.unpack(raw))
