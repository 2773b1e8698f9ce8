"""What the kernel tells of processes and disks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from whatsappd.engines.child_process import ProcessView
from whatsappd.monitoring import health_checks as health
from whatsappd.monitoring import kernel
from whatsappd.monitoring.kernel import Disk, Memory, MemoryReader
from whatsappd.monitoring.settings import AlertSettings


def view_of_this_process() -> ProcessView:
    names = ("smaps_rollup", "fd", "status")
    return ProcessView(*(os.open(f"/proc/self/{name}", os.O_RDONLY) for name in names))


def test_memory_of_a_process_and_of_one_that_is_not_looked_at_any_more() -> None:
    view = view_of_this_process()
    memory = kernel.memory_of(view)
    assert memory is not None
    assert 1e6 < memory.private <= memory.proportional < 1e10
    assert view.count_threads() == len(list(Path("/proc/self/task").iterdir()))
    descriptors = view.count_descriptors()
    assert descriptors is not None
    with Path("/dev/null").open():
        assert view.count_descriptors() == descriptors + 1  # what is told is of now
    assert view.count_descriptors() == descriptors
    view.close()
    assert kernel.memory_of(view) is None
    assert view.count_threads() is None
    assert view.count_descriptors() is None


def test_a_view_that_is_closed_while_it_is_read_keeps_its_files_until_then() -> None:
    view = view_of_this_process()
    with view._open() as is_open:
        assert is_open
        view.close()
        os.fstat(view._memory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(view._memory)


def test_memory_of_many_is_asked_a_few_at_a_time_and_the_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    now_s = 100

    def slowly(pid: int) -> Memory | None:
        nonlocal now_s
        asked.append(pid)
        now_s += 2
        return None if pid == 3 else Memory(pid, pid)

    monkeypatch.setattr(kernel, "memory_of", slowly)
    monkeypatch.setattr(kernel, "monotonic", lambda: now_s)
    reader = MemoryReader(within_s=3, fresh_s=5)
    pids = {"a": 1, "b": 2, "c": 3, "d": 4}
    assert reader.read(pids) == {"a": Memory(1, 1), "b": Memory(2, 2)}
    assert reader.read(pids) == {name: Memory(pids[name], pids[name]) for name in "abd"}
    assert asked == [1, 2, 3, 4]
    reader.read(pids)
    assert asked[4] == 3  # gone, so nothing is known of it
    # Another process of the same name has other figures.
    assert "a" not in reader.read({"a": 3})


def test_figures_that_are_fresh_are_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(kernel, "memory_of", lambda pid: asked.append(pid) or Memory(pid, pid))
    reader = MemoryReader()
    for _ in range(3):
        assert reader.read({"a": 1}) == {"a": Memory(1, 1)}
    assert asked == [1]


def test_a_disk_that_is_gone_is_told_as_such(tmp_path: Path) -> None:
    found = kernel.disk_of(tmp_path)
    assert found is not None
    assert 0 < found.free <= found.total
    assert kernel.disk_of(tmp_path / "missing") is None
    assert not health.check_disk(None, AlertSettings()).ok


def test_of_several_disks_the_fullest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shm, root = Path("/dev/shm"), Path("/")
    assert shm.stat().st_dev != root.stat().st_dev

    def statvfs(path: Path) -> SimpleNamespace:
        free = {shm: 5, root: 50}[path]
        return SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=60, f_files=0, f_favail=0)

    monkeypatch.setattr(kernel.os, "statvfs", statvfs)
    assert kernel.disk_of(root, shm, root / "missing") == Disk(5, 60, None, "/dev/shm")
    assert kernel.disk_of(shm, root) == Disk(5, 60, None, "/dev/shm")


def test_descriptors_are_counted() -> None:
    before = kernel.open_descriptors()
    with Path("/dev/null").open():
        assert kernel.open_descriptors() == before + 1
    assert health.check_descriptors(9, 10).ok
    assert not health.check_descriptors(10, 10).ok
