"""Whoever logs neither waits nor fails, whatever becomes of the descriptor."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import pytest
import structlog

from whatsappd.logs.setup import configure_logs
from whatsappd.logs.writer import MAX_LINE, LogWriter

PATIENCE = 20.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def writer_to(descriptor: int, **settings: int) -> LogWriter:
    return LogWriter(
        descriptor, retry=0.01, describe_loss=lambda count: f"lost {count}", **settings
    )


def until(condition: Callable[[], object]) -> None:
    """Another thread does it, and announces nothing."""
    began = monotonic()
    while not condition():
        assert monotonic() - began < PATIENCE
        sleep(0.001)


def everything(descriptor: int, lines: int) -> list[str]:
    """So many lines read from a pipe."""
    text = b""
    while text.count(b"\n") < lines:
        text += os.read(descriptor, 65536)
    return text.decode().splitlines()


def test_lines_arrive_in_order(pipe: tuple[int, int]):
    reading, writing = pipe
    writer = writer_to(writing)
    for number in range(1000):
        writer.put(f"line {number}")
    writer.close(within=PATIENCE)
    assert everything(reading, 1000) == [f"line {number}" for number in range(1000)]
    assert writer.dropped == 0


def test_a_reader_that_stops_costs_lines_and_no_time(pipe: tuple[int, int]):
    reading, writing = pipe
    writer = writer_to(writing, capacity=100_000)
    began = monotonic()
    for number in range(20_000):
        writer.put(f"{number:099}")
    assert monotonic() - began < PATIENCE / 2
    until(lambda: writer.trouble == "nobody reads it")
    assert writer.dropped > 10_000
    reader = threading.Thread(target=lambda: arrived.extend(read_to_end(reading)))
    arrived: list[str] = []
    reader.start()
    until(lambda: writer.trouble is None)
    refused = put_at_last(writer, "again")
    writer.close(within=PATIENCE)
    os.close(writing)
    reader.join(PATIENCE)
    *arrived, last = arrived
    told = [int(line.removeprefix("lost ")) for line in arrived if line.startswith("lost ")]
    kept = [int(line) for line in arrived if not line.startswith("lost ")]
    assert last == "again"
    assert sum(told) == writer.dropped == 20_000 + refused - len(kept)
    assert kept == sorted(set(kept))
    assert writer.trouble is None


def put_at_last(writer: LogWriter, line: str) -> int:
    """Put it until there is room; how often there was none."""
    before = writer.dropped
    while True:
        dropped = writer.dropped
        writer.put(line)
        if writer.dropped == dropped:
            return dropped - before
        sleep(0.001)


def read_to_end(descriptor: int) -> list[str]:
    with open(descriptor, closefd=False) as file:
        return file.read().splitlines()


def test_the_loss_is_told_also_when_nothing_follows(pipe: tuple[int, int]):
    reading, writing = pipe
    writer = writer_to(writing, capacity=1000)
    fill(writing)
    for _ in range(20):
        writer.put("x" * 98)
    assert writer.dropped > 0
    drain(reading)
    told = everything(reading, 21 - writer.dropped)
    assert told[-1] == f"lost {writer.dropped}"
    writer.close(within=PATIENCE)


def fill(writing: int) -> None:
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 4096)
    os.set_blocking(writing, True)


def drain(reading: int) -> None:
    size = fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ)
    while size > 0:
        size -= len(os.read(reading, size))


def test_a_full_disk_is_waited_for(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = writer_to(descriptor)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        writer.put("a line that does not fit")
        until(lambda: writer.trouble == "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.put("and one behind it")
    writer.close(within=PATIENCE)
    signal.signal(signal.SIGXFSZ, before)
    os.close(descriptor)
    assert file.read_text() == "a line that does not fit\nand one behind it\n"


def closed() -> int:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.close(descriptor)
    return 900 + descriptor  # one that nobody opens meanwhile


def gone() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def hung_up() -> int:
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


@pytest.mark.parametrize(
    ("sink", "trouble"),
    [
        (closed, "Bad file descriptor"),
        (gone, "Broken pipe"),
        (hung_up, "Input/output error"),
        (lambda: os.open("/dev/full", os.O_WRONLY), "No space left on device"),
    ],
)
def test_what_refuses_costs_nothing_but_the_lines(sink: Callable[[], int], trouble: str):
    writer = writer_to(sink(), capacity=1000)
    for _ in range(100):
        writer.put("x" * 100)
    until(lambda: writer.trouble is not None)
    assert writer.trouble == trouble
    assert writer.dropped >= 90
    began = monotonic()
    writer.close(within=0.1)
    assert monotonic() - began < PATIENCE


def test_a_line_has_a_longest_length(pipe: tuple[int, int]):
    reading, writing = pipe
    writer = writer_to(writing)
    writer.put("é" * MAX_LINE)
    [line] = everything(reading, 1)
    assert line.endswith("...(cut)")
    writer.close(within=PATIENCE)


def test_what_is_printed_becomes_lines(pipe: tuple[int, int]):
    reading, writing = pipe
    writer = writer_to(writing)
    print("one\ntwo", 2, "\x1b[2J", file=writer.stream())
    assert everything(reading, 2) == ["one", "two 2 \\x1b[2J"]
    writer.close(within=PATIENCE)


def test_printing_while_a_line_is_put_locks_nobody_out(pipe: tuple[int, int]):
    """As the garbage collector does, which may run anywhere."""
    reading, writing = pipe
    writer = writer_to(writing, capacity=10)

    def describe(count: int) -> str:
        writer.put("x")
        return f"{count}"

    writer.describe_loss = describe
    writer.put("too long for it")
    done = threading.Thread(target=writer.put, args=("short",))
    done.start()
    done.join(PATIENCE)
    assert not done.is_alive()
    assert everything(reading, 1)
    writer.close(within=PATIENCE)


# --- what the lines look like ---------------------------------------------------------------------

HOSTILE = "a\x1b[2J\x9b31m\u202eb\x85c\u2028d\ud800"


@pytest.fixture
def lines(pipe: tuple[int, int]) -> Iterator[Callable[[str, int], list[str]]]:
    """Log something hostile in a form; so many lines of what arrives."""
    reading, writing = pipe
    writer = writer_to(writing)

    def logged(form: str, count: int) -> list[str]:
        configure_logs("info", form, writer=writer)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            structlog.get_logger().exception("failed", name=HOSTILE, nested={HOSTILE: [HOSTILE]})
        return everything(reading, count)

    yield logged
    writer.close(within=PATIENCE)
    structlog.reset_defaults()


def test_json_lines_are_lines_for_every_reader(lines: Callable[[str, int], list[str]]):
    [line] = lines("json", 1)
    assert line.isprintable()
    told = json.loads(line)
    assert told["name"] == HOSTILE
    assert told["nested"] == {HOSTILE: [HOSTILE]}
    assert HOSTILE in told["exception"]


def test_a_line_that_is_too_long_is_json_all_the_same(
    lines: Callable[[str, int], list[str]], pipe: tuple[int, int]
):
    lines("json", 1)
    structlog.get_logger().warning("much", text="é\x9b" * MAX_LINE)
    [line] = everything(pipe[0], 1)
    told = json.loads(line)
    assert (told["event"], told["level"]) == ("much", "warning")
    assert told["cut"].startswith('{"text": "é\\u009bé')


def test_dropped_lines_are_told_in_the_form_of_the_others(
    lines: Callable[[str, int], list[str]], pipe: tuple[int, int]
):
    lines("json", 1)
    writer = writer_to(pipe[1], capacity=1000)
    configure_logs("info", "json", writer=writer)
    fill(pipe[1])
    for _ in range(10):
        structlog.get_logger().info("x" * 200)
    drain(pipe[0])
    *_, told = map(json.loads, everything(pipe[0], 11 - writer.dropped))
    assert (told["event"], told["count"]) == ("log_lines_dropped", writer.dropped)
    writer.close(within=PATIENCE)


def test_lines_for_a_terminal_command_nothing(lines: Callable[[str, int], list[str]]):
    shown = lines("console", 5)
    for colour in ("\x1b[0m", *(f"\x1b[{style}m" for style in [1, 2, *range(31, 37)])):
        shown = [line.replace(colour, "") for line in shown]
    assert all(line.isprintable() for line in shown), shown
    assert "ValueError: a\\x1b[2J" in shown[-1]
    assert "name=a\\x1b[2J\\x9b31m\\u202eb\\x85c\\u2028d\\ud800" in shown[0]


def test_stderr_of_this_process_is_left_alone_by_a_writer_of_its_own():
    before = sys.stderr
    configure_logs(writer=LogWriter(2))
    structlog.reset_defaults()
    assert sys.stderr is before
