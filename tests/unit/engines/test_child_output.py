"""What workers print: logged within bounds, however much and whatever it is."""

from __future__ import annotations

from collections.abc import Iterator
from time import process_time

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio.testing import MockClock

from whatsappd.engines.child_output import (
    LINE_COSTS,
    QUIET,
    PlainOutput,
    _ChildLines,
    readable,
)
from whatsappd.engines.neonize.library_output import LibraryOutput


@pytest.fixture
def logged() -> Iterator[list[dict[str, object]]]:
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture.entries
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("to 15550100200:3@s.whatsapp.net", "to …0200:3@s.whatsapp.net"),
        ("15550100200.0:12@lid and 999", "…0200.0:12@lid and 999"),
        ("at 12:34:56.7890 of 20260101", "at 12:34:56.7890 of 20260101"),
        ("1234@g.us", "1234@g.us"),
        ("x15550100200@y 12.15550100200@z", "x…0200@y 12.…0200@z"),
    ],
)
def test_numbers_in_addresses_are_shortened(line: str, shown: str):
    assert readable(line.encode()) == shown


@pytest.mark.parametrize("unit", ["12345.", "1:", "1", "12345@", ".", "\xff", "1.@"])
def test_a_line_takes_time_in_proportion_to_its_length(unit: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("whatsappd.engines.child_output.MAX_LINE", 1 << 20)
    line = (unit * 65536)[:65536].encode("latin-1")
    began = process_time()
    readable(line)
    assert process_time() - began < 1


async def test_what_is_too_much_is_dropped_counted_and_told_once(
    logged: list[dict[str, object]], autojump_clock: MockClock
):
    watch = LibraryOutput()
    output = _ChildLines(structlog.get_logger(), watch)
    line = b"INFO whatsmeow " + b"x" * 885
    for _ in range(16_000):  # 16 MB
        output.take(line + b"\n")
    output.take(b"panic: concurrent map writes\n")  # is heard all the same
    assert watch.crash == "panic: concurrent map writes"
    told = [entry["event"] for entry in logged]
    assert told.count("worker_log") == (1 << 20) // (len(line) + LINE_COSTS)
    assert told.count("output_too_fast") == 1
    await trio.sleep(QUIET)
    output.take(line + b"\n")
    assert logged[-2] == {
        "event": "output_left_out",
        "lines": 16_001 - told.count("worker_log"),
        "log_level": "warning",
    }
    assert logged[-1]["event"] == "worker_log"


async def test_the_count_is_told_also_at_the_end(
    logged: list[dict[str, object]], autojump_clock: MockClock
):
    output = _ChildLines(structlog.get_logger(), PlainOutput())
    output.take(b"x" * 8000 + b"\n" + b"y\n" * 11_000)
    output.end()
    assert logged[-1]["event"] == "output_left_out"


def test_of_a_crash_the_first_words_are_kept_without_what_they_quote():
    watch = LibraryOutput()
    assert watch.sees(b'panic: runtime error: cannot read "what a stranger wrote"')
    assert watch.sees(b"panic: another one")
    assert watch.crash == "panic: runtime error: cannot read …"
    assert not watch.sees(b"Press Ctrl+C to exit")
