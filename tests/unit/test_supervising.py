"""The boundary around a task: errors are told and the task begins anew; cancellation passes."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from whatsappd.supervision import Supervision, in_words, within


async def test_a_task_that_fails_is_told_and_begins_anew() -> None:
    supervision = Supervision(base_ms=1)
    runs: list[str | None] = []

    async def task() -> None:
        runs.append(within.get())
        if len(runs) == 1:
            raise OSError(28, "No space left on device")
        if len(runs) == 2:
            async with trio.open_nursery():
                raise KeyError("seq")

    with capture_logs() as logs:
        await supervision.keep("audit", task, company="acme")
    assert runs == ["audit of acme"] * 3
    assert within.get() is None
    [found] = supervision.tasks()
    assert (found.name, found.company, found.failures) == ("audit", "acme", 2)
    assert found.error == "KeyError: 'seq'"
    assert found.failed_ms is not None
    assert not found.is_well
    assert not found.is_running
    told = [line for line in logs if line["event"] == "task_failed"]
    assert [line["error"] for line in told] == [
        "OSError: [Errno 28] No space left on device",
        "KeyError: 'seq'",
    ]
    assert all(line["exc_info"] for line in told)


async def test_cancellation_passes_also_beside_an_error() -> None:
    supervision = Supervision(base_ms=1)
    starts = 0

    async def task() -> None:
        nonlocal starts
        starts += 1
        async with trio.open_nursery() as nursery:

            async def fail_at_the_end() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("in the cleanup")

            nursery.start_soon(fail_at_the_end)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervision.keep, "task", task)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert starts == 1


async def test_a_fatal_error_is_raised() -> None:
    async def task() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        await Supervision().keep("task", task, fatal=(PermissionError,))


async def test_pauses_grow_to_a_cap_and_begin_anew_after_a_stable_time(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr("whatsappd.supervision.random.random", lambda: 0.999)
    supervision = Supervision(base_ms=100, cap_ms=1000, stable_s=60)
    began: list[float] = []
    runs_for = [0.0] * 8 + [61.0, 0.0]

    async def task() -> None:
        began.append(trio.current_time())
        if len(began) <= len(runs_for):
            await trio.sleep(runs_for[len(began) - 1])
            raise RuntimeError

    await supervision.keep("task", task)
    ended = [start + lasted for start, lasted in zip(began, runs_for, strict=False)]
    pauses = [round(start - end, 1) for start, end in zip(began[1:], ended, strict=True)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 0.1, 0.2]
    [found] = supervision.tasks()
    assert not found.is_well
    await trio.sleep(60)
    [found] = supervision.tasks()
    assert found.is_well
    assert found.failures == 10


async def test_what_is_attempted_ends_with_its_error() -> None:
    supervision = Supervision()

    async def fail() -> None:
        raise OSError("gone")

    async def succeed() -> None:
        await trio.lowlevel.checkpoint()

    with capture_logs() as logs:
        assert not await supervision.attempt("round", fail, company="acme")
    assert [line["event"] for line in logs] == ["task_failed"]
    assert await supervision.attempt("round", succeed, company="globex")
    failures = {task.company: task.failures for task in supervision.tasks()}
    assert failures == {"acme": 1, "globex": 0}
    supervision.forget("acme")
    assert [task.company for task in supervision.tasks()] == ["globex"]


def test_an_error_in_words_is_one_short_line() -> None:
    assert in_words(RuntimeError()) == "RuntimeError"
    assert in_words(ValueError("two\nlines")) == "ValueError: two lines"
    assert len(in_words(ValueError("x" * 10_000))) == 300
    group = ExceptionGroup("both", [OSError("a"), KeyError("b")])
    assert in_words(group) == "OSError: a; KeyError: 'b'"
