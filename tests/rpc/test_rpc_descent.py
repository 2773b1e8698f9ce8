"""Who is a descendant of the daemon, and who is not. Real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from whatsappd.errors import Denied
from whatsappd.rpc.own_descendants import DescendantCheck
from whatsappd.rpc.peer_credentials import Peer
from whatsappd.rules.log_throttle import is_milestone


def peer(pid: int) -> Peer:
    return Peer(pid, os.geteuid(), os.getegid())


def descent(*children: int, confined: bool = True) -> DescendantCheck:
    return DescendantCheck(lambda: set(children), lambda: confined)


#: Starts a child that waits, and says its pid.
PARENT = """
import subprocess, sys
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
child.wait()
"""


@contextmanager
def child_and_grandchild() -> Iterator[tuple[int, int]]:
    child = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout
        assert child.stdin
        yield child.pid, int(child.stdout.readline())
        child.stdin.close()


def test_children_and_theirs_are_refused_and_counted() -> None:
    found = descent()
    with child_and_grandchild() as (child, grandchild):
        for pid in (child, grandchild):
            with pytest.raises(Denied, match="a process that the daemon started"):
                found.admit(peer(pid))
    assert found.refused == 2


def test_parents_oneself_others_and_unknown_namespaces_are_admitted() -> None:
    found = descent(confined=False)
    for pid in (os.getppid(), os.getpid(), 1, 0):
        found.admit(peer(pid))
    with child_and_grandchild() as (child, _):
        found.admit(Peer(child, os.geteuid() + 1, 0))  # descendants cannot become others
    assert found.refused == 0


def test_one_that_has_ended_is_told_from_no_worker_where_workers_can_connect() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    descent(confined=True).admit(peer(ended.pid))
    with pytest.raises(Denied, match="has ended"):
        descent(confined=False).admit(peer(ended.pid))


def test_the_first_process_of_a_container_refuses_its_own_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Orphans of `docker exec` are its children, too."""
    with child_and_grandchild() as (child, grandchild):
        monkeypatch.setattr("whatsappd.rpc.own_descendants.os.getpid", lambda: 1)
        descent().admit(peer(child))
        for pid in (child, grandchild):
            with pytest.raises(Denied):
                descent(child).admit(peer(pid))


def test_milestones() -> None:
    assert [count for count in range(1002) if is_milestone(count)] == [1, 10, 100, 1000]
