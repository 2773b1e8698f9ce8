"""Refuses callers that are the daemon's own descendants, such as a worker that was taken over.

Workers are of the daemon's user, so the socket's permissions let them in. What keeps them out first
is their seccomp filter, which takes Unix sockets from them (`engines.neonize.worker.confine`). This
is the second fence, and the only one on a host without seccomp. `daemon_socket` asks it for each
new connection.

A process that is orphaned becomes a child of the daemon, its subreaper, so descent cannot be shaken
off. It can be hidden: /proc may not tell of processes whose memory is private (hidepid). Direct
children are known to the kernel all the same (waitid), and workers have none of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from pathlib import Path

import structlog

from whatsappd.errors import Denied
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rules.log_throttle import is_milestone

log = structlog.get_logger()

#: Looks at the ancestors of one process, and the most of them in one.
_TRIES = 3
_GENERATIONS = 100


class DescendantCheck:
    """Refuses descendants, and counts them.

    Args:
        children: the pids of the daemon's own processes. Only they count as its children if it is
            the first process of a container, whose orphans are all given to it.
        workers_are_confined: whether workers cannot connect anyway. Else nobody is admitted whose
            process has ended since: it could have been a worker's.
    """

    def __init__(
        self, children: Callable[[], Container[int]], workers_are_confined: Callable[[], bool]
    ) -> None:
        self._children = children
        self._workers_are_confined = workers_are_confined
        self.refused = 0

    def admit(self, peer: Peer) -> None:
        """Raises Denied for a descendant."""
        # Descendants cannot become other users. A pid that is not of our namespace is 0.
        if peer.uid != os.geteuid() or peer.pid in (0, os.getpid()):
            return
        if self._is_descendant(peer.pid):
            self._refuse(peer, "a process that the daemon started may not call it")
        elif not _exists(peer.pid) and not self._workers_are_confined():
            self._refuse(
                peer,
                "the process that connected has ended, and so cannot be told from a worker: "
                "connect from the process that waits for the answer",
            )

    def _refuse(self, peer: Peer, words: str) -> None:
        self.refused += 1
        if is_milestone(self.refused):
            log.warning("rpc_descendant_refused", peer_pid=peer.pid, count=self.refused)
        raise Denied(words)

    def _is_descendant(self, pid: int) -> bool:
        children = self._children()
        is_first = os.getpid() == 1
        if pid in children or (not is_first and _is_child(pid)):
            return True
        for _ in range(_TRIES):
            ancestor = pid
            for _ in range(_GENERATIONS):
                parent = _parent_of(ancestor)
                if parent is None:
                    break  # hidden, or it has just ended: its children have another parent now
                if parent in children or (parent == os.getpid() and not is_first):
                    return True
                if parent <= 1:
                    return False
                ancestor = parent
        return False


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _parent_of(pid: int) -> int | None:
    """None if the process is gone, or hidden (proc_pid_stat(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(text.rpartition(b") ")[2].split()[1])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
