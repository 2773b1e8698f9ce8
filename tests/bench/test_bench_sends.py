"""`message.send` over the socket of a real daemon, beside the raw writer thread in the same run;
and the daemon's memory with a long history.

The company is stopped, so that accepting is measured and not sending. Aim: 10,000/s and above with
100 callers; no growth with history. Nothing is asserted about time.
"""

from __future__ import annotations

import itertools
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
from raw_rows import SECONDS, TEXT, Rate, rate_of, raw_rate, say_rates

from whatsappd.clock import now_ms
from whatsappd.model.content import Text
from whatsappd.model.event import MESSAGE_RECEIVED, Draft
from whatsappd.model.message import NewMessage
from whatsappd.store.sqlite.database import open_database
from whatsappd.store.sqlite.event_log import open_event_log
from whatsappd.store.sqlite.outbox import open_outbox

pytestmark = pytest.mark.bench

EVENTS = 1_000_000
ROWS = 100_000
ROOT = Path(__file__).parents[2]


@contextmanager
def running_daemon(directory: Path) -> Iterator[tuple[str, int]]:
    """A daemon on `directory` with room for all rows; its socket and pid."""
    path = str(directory / "d.sock")
    config = directory / "whatsappd.toml"
    config.write_text("[queue]\nlimit = 1000000\n")
    command = [
        *(sys.executable, "-m", "whatsappd", "run", "--sandbox", "--log-level", "warning"),
        *("--config", str(config), "--state-dir", str(directory / "state"), "--socket", path),
    ]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            while True:
                try:
                    with connect(path) as sock:
                        call(sock, "daemon.hello")
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    assert process.poll() is None
                    time.sleep(0.02)
            yield path, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def call(sock: socket.socket, method: str, **arguments: Any) -> Any:
    sock.sendall(msgpack.packb([0, 1, method, [arguments]]))
    unpacker = msgpack.Unpacker()
    while True:
        unpacker.feed(sock.recv(1 << 20))
        for kind, _msgid, error, result in unpacker:
            assert (kind, error) == (1, None), error
            return result


class Caller:
    """One connection with one request in flight at a time."""

    def __init__(self, path: str, next_request: Callable[[], bytes]) -> None:
        self.sock = connect(path)
        self.times: list[float] = []
        self._next_request = next_request
        self._unpacker = msgpack.Unpacker()
        self._began = 0.0

    def ask(self) -> None:
        self._began = time.perf_counter()
        self.sock.sendall(self._next_request())

    def read(self) -> bool:
        """Whether the answer is complete."""
        self._unpacker.feed(self.sock.recv(1 << 16))
        for _kind, _msgid, error, _result in self._unpacker:
            assert error is None, error
            self.times.append(time.perf_counter() - self._began)
            return True
        return False


def send_rate(path: str, callers: int, numbers: Iterator[int]) -> Rate:
    def next_request() -> bytes:
        number = next(numbers)
        packed: bytes = msgpack.packb(
            [
                *(0, 1, "message.send"),
                [
                    {
                        "company": "acme",
                        "to": f"1555{number % 500:07}",
                        "text": TEXT,
                        "key": f"key{number}",
                    }
                ],
            ]
        )
        return packed

    epoll = select.epoll()
    by_number = {}
    for _ in range(callers):
        caller = Caller(path, next_request)
        by_number[caller.sock.fileno()] = caller
        epoll.register(caller.sock, select.EPOLLIN)
    began = time.perf_counter()
    for caller in by_number.values():
        caller.ask()
    busy = callers
    while busy:
        for number, _ in epoll.poll():
            if not by_number[number].read():
                continue
            if time.perf_counter() - began < SECONDS:
                by_number[number].ask()
            else:
                busy -= 1
    elapsed = time.perf_counter() - began
    epoll.close()
    for caller in by_number.values():
        caller.sock.close()
    times = [one for caller in by_number.values() for one in caller.times]
    return rate_of(times, elapsed)


def make_company(path: str) -> None:
    with connect(path) as sock:
        call(sock, "session.start", company="acme")
        call(sock, "session.stop", company="acme")


@pytest.mark.parametrize("callers", [1, 100])
async def test_durable_sends_over_the_socket(measured: Callable[..., None], callers: int) -> None:
    with tempfile.TemporaryDirectory(prefix="wb-") as name:
        directory = Path(name)
        raw = await raw_rate(directory, callers)
        with running_daemon(directory) as (path, _pid):
            make_company(path)
            sends = send_rate(path, callers, itertools.count())
    aim = "10,000/s" if callers == 100 else None
    say_rates(measured, f"message.send over the socket, {callers} callers", sends, raw, aim=aim)


def resident_mb(pid: int) -> float:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(fields["VmRSS"].split()[0]) / 1000


async def fill(database_file: Path) -> None:
    """A long history: what a busy daemon has after weeks."""
    day_ms = 24 * 3600 * 1000
    ticks = itertools.count(now_ms() - 25 * day_ms, 20 * day_ms // (EVENTS + 4 * ROWS))
    data = {"chat": "15550100@s.whatsapp.net", "sender": "15550100@s.whatsapp.net", "text": TEXT}
    async with open_database(database_file) as database:
        log = await open_event_log(database, clock=lambda: next(ticks))
        outbox = await open_outbox(database, log, clock=lambda: next(ticks))
        for _ in range(0, EVENTS - 3 * ROWS, 2000):
            await log.append(*[Draft("acme", MESSAGE_RECEIVED, data)] * 2000)

        async def accept(count: int) -> None:
            for number in range(count):
                new = NewMessage("acme", f"1555{number % 500:07}@s.whatsapp.net", Text(TEXT))
                row, _ = await outbox.submissions.accept(new, 10**9)
                await outbox.handovers.begin(row.id)
                await outbox.handovers.acknowledge(row.id, f"3EB0{row.id}", now_ms())

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(accept, ROWS // 200)
        assert log.last_seq >= EVENTS


def use(path: str) -> None:
    """What makes a daemon touch its history: replays, pages, and sends."""
    with connect(path) as sock:
        last = call(sock, "daemon.status")["last_seq"]
        cursor = 0
        while cursor < last:
            cursor = call(sock, "events.read", after=cursor, limit=500)["next"]
        before = None
        for _ in range(100):
            page = call(sock, "message.list", limit=200, before=before)
            before = page["next"]
            if before is None:
                break
        for number in range(2000):
            call(sock, "message.send", company="acme", to="15550200", text=TEXT, key=f"m{number}")


async def test_memory_of_the_daemon_does_not_grow_with_its_history(
    measured: Callable[..., None],
) -> None:
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="wb-") as name:
        for what in ("empty", "filled"):
            directory = Path(name) / what
            directory.mkdir()
            with running_daemon(directory) as (path, _pid):
                make_company(path)
            if what == "filled":
                await fill(directory / "state" / "whatsappd.db")
            began = time.perf_counter()
            with running_daemon(directory) as (path, pid):
                ready = time.perf_counter() - began
                at_start = resident_mb(pid)
                use(path)
                found[what] = [ready, at_start, resident_mb(pid)]
    history = f"with {EVENTS:,} events and {ROWS:,} messages"
    for what, unit, ours, empty in zip(
        ("ready", "resident at the start", "resident after reading all of it and 2,000 sends"),
        ("s", "MB", "MB"),
        found["filled"],
        found["empty"],
        strict=True,
    ):
        measured(f"{what}, {history}", ours, unit, beside="with none", reference=empty)
