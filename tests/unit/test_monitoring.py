"""The parts of monitoring that need no daemon: the loop's clock, /proc, the checks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from whatsappd.engines.child_process import ProcessView
from whatsappd.limits.port import LimiterHealth
from whatsappd.monitoring import health, kernel
from whatsappd.monitoring.event_loop_clock import LoopClock
from whatsappd.monitoring.kernel import Disk, Memory, MemoryReader
from whatsappd.monitoring.metrics import ALL_METRICS
from whatsappd.monitoring.settings import AlertSettings
from whatsappd.rules.bounds import DEAD_LETTER_BYTES, DEAD_LETTERS
from whatsappd.rules.session_health import Judgement
from whatsappd.state_directory import Place
from whatsappd.store.sqlite.webhooks import Wanted, Webhook

THRESHOLDS = AlertSettings()
WEBHOOK = Webhook(
    id="5pk2wczu",
    revision=1,
    wanted=Wanted("https://shop.example/secret-path"),
    secret="whsec_",
    created_ms=1,
    updated_ms=1,
    delivered=0,
    failures=0,
    last_success_ms=None,
    failing_since_ms=None,
    paused_since_ms=None,
    last_error=None,
    gone=0,
    cursor=0,
    dead_letters=0,
    dead_bytes=0,
    owner=None,
)


async def test_the_clock_sees_the_longest_time_that_everything_waited() -> None:
    clock = LoopClock()
    trio.lowlevel.add_instrument(clock)
    try:
        await trio.sleep(0.01)
        clock.take_longest()
        time.sleep(0.05)  # noqa: ASYNC251 - what it must notice
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert clock.longest_s >= 0.05
        busy = clock.busy_s
        await trio.sleep(0.2)  # waiting is not work
        assert clock.busy_s - busy < 0.1
        assert clock.take_longest() >= 0.05
        assert clock.longest_s < 0.05
    finally:
        trio.lowlevel.remove_instrument(clock)


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
    assert not health.check_disk(None, THRESHOLDS).ok


def test_of_several_disks_the_fullest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shm, root = Path("/dev/shm"), Path("/")
    assert shm.stat().st_dev != root.stat().st_dev

    def statvfs(path: Path) -> SimpleNamespace:
        free = {shm: 5, root: 50}[path]
        return SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=60, f_files=0, f_favail=0)

    monkeypatch.setattr(kernel.os, "statvfs", statvfs)
    assert kernel.disk_of(root, shm, root / "missing") == Disk(5, 60, None, "/dev/shm")
    assert kernel.disk_of(shm, root) == Disk(5, 60, None, "/dev/shm")


def test_a_file_that_is_not_the_one_in_use_any_more_is_told(tmp_path: Path) -> None:
    path = tmp_path / "whatsappd.db"
    path.touch()
    places = [Place.of(tmp_path), Place.of(path)]
    assert health.check_places(places).ok
    path.rename(tmp_path / "old")
    assert "whatsappd.db was removed" in health.check_places(places).detail
    path.touch()
    assert "whatsappd.db was replaced" in health.check_places(places).detail
    path.unlink()
    (tmp_path / "old").rename(path)
    assert health.check_places(places).ok


def test_descriptors_are_counted() -> None:
    before = kernel.open_descriptors()
    with Path("/dev/null").open():
        assert kernel.open_descriptors() == before + 1
    assert health.check_descriptors(9, 10).ok
    assert not health.check_descriptors(10, 10).ok


def test_each_check_that_fails_has_a_remedy() -> None:
    ill = health.SessionHealth("acme", True, "failed", Judgement(False, "x", "y"), None, None, 1)
    failed = [
        health.check_store("the disk is full"),
        health.check_event_loop(THRESHOLDS.event_loop_delay_ms, THRESHOLDS),
        health.check_disk(Disk(1, 2), THRESHOLDS),
        health.check_disk(Disk(1 << 40, 1 << 41, files_free=99), THRESHOLDS),
        health.check_disk(Disk(1 << 40, 1 << 41), THRESHOLDS, "the disk quota is exceeded"),
        health.check_rounds(False),
        health.check_descriptors(10, 10),
        health.check_limiter(LimiterHealth("redis", "no answer")),
        health.check_sessions([ill]),
        health.check_webhooks([WEBHOOK._replace(paused_since_ms=1)], None),
        health.check_webhooks([WEBHOOK._replace(dead_letters=DEAD_LETTERS.each)], None),
        health.check_webhooks([WEBHOOK._replace(dead_bytes=DEAD_LETTER_BYTES.each - 1)], None),
        health.check_webhooks([WEBHOOK], 180_000),
        health.check_webhooks(None, None),
    ]
    for check in failed:
        assert not check.ok
        assert check.remedy
    assert not health.HealthReport(failed, []).healthy
    assert not health.HealthReport([], [ill]).healthy
    assert health.HealthReport([], []).healthy


def test_webhooks_that_nobody_waits_for_are_well() -> None:
    disabled = WEBHOOK._replace(wanted=Wanted("https://shop.example/", enabled=False))
    assert health.check_webhooks([], 10**9).ok
    assert health.check_webhooks([disabled._replace(paused_since_ms=1)], 10**9).ok
    # A gateway that is only being restarted, an attempt that failed, a letter for somebody to read.
    assert health.check_webhooks([WEBHOOK], 60_000).ok
    assert health.check_webhooks([WEBHOOK._replace(failing_since_ms=1, dead_letters=3)], None).ok


def test_what_is_told_of_webhooks_holds_no_url() -> None:
    check = health.check_webhooks([WEBHOOK._replace(paused_since_ms=1)] * 7, None)
    assert "5pk2wczu" in check.detail
    assert "…" in check.detail
    assert "shop.example" not in f"{check.detail} {check.remedy}"


def test_a_check_that_is_switched_off_always_passes() -> None:
    nothing = AlertSettings(0, 0, 0, 0, 0, 0)
    assert health.check_event_loop(10**6, nothing).ok
    assert health.check_disk(Disk(0, 1), nothing).ok


def test_the_table_of_metrics_is_light() -> None:
    assert len(ALL_METRICS) > 40
