"""Events to 100 subscribers over real sockets, beside Redis PUBLISH to 100 in the same run.

The subscribers are a loop on epoll that counts bytes, and parses only what the first one gets: what
is measured is the server. The aim is 300,000 deliveries a second; nothing is asserted about time.
"""

from __future__ import annotations

import select
import shutil
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
from events_server import DATA, END
from redis_process import RedisServer

pytestmark = pytest.mark.bench

SUBSCRIBERS = 100
EVENTS = 20_000
ROOT = Path(__file__).parents[2]


@contextmanager
def event_server(directory: Path) -> Iterator[str]:
    path = str(directory / "e.sock")
    script = Path(__file__).with_name("events_server.py")
    command = [sys.executable, str(script), str(directory), path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield path
        finally:
            process.kill()


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def call(sock: socket.socket, method: str, **arguments: Any) -> Any:
    sock.sendall(msgpack.packb([0, 1, method, [arguments]]))
    unpacker = msgpack.Unpacker()
    while True:
        unpacker.feed(sock.recv(1 << 20))
        for kind, _msgid, error, result in unpacker:
            assert (kind, error) == (1, None), error
            return result


class Follower:
    """Counts one subscriber's events, if `parses`; knows the last one by its text."""

    def __init__(self, sock: socket.socket, end: bytes, parse: Any = None) -> None:
        self.sock = sock
        self.done = False
        self._end = end
        self._tail = b""
        self._parse = parse

    def read(self) -> None:
        data = self.sock.recv(1 << 18)
        assert data
        if self._parse is not None:
            self._parse(data)
        self._tail = (self._tail + data)[-2 * len(self._end) :] if len(data) < 99 else data[-400:]
        self.done = self._end in self._tail


def drain(followers: list[Follower]) -> None:
    """Read until every one has had the last event."""
    epoll = select.epoll()
    by_number = {}
    for follower in followers:
        follower.sock.setblocking(False)
        by_number[follower.sock.fileno()] = follower
        epoll.register(follower.sock, select.EPOLLIN)
    while by_number:
        for number, _ in epoll.poll():
            follower = by_number[number]
            follower.read()
            if follower.done:
                epoll.unregister(number)
                del by_number[number]
    epoll.close()


def whatsappd_rate(directory: Path, *, count: int, writers: int, is_replay: bool) -> float:
    """Deliveries a second: of events as they are logged, or of a replay of all of them."""
    seqs: list[int] = []
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 24)

    def parse(data: bytes) -> None:
        unpacker.feed(data)
        for message in unpacker:
            if message[0] == 2:
                seqs.append(message[2][0]["event"]["seq"])

    with event_server(directory) as path:
        socks = [connect(path) for _ in range(SUBSCRIBERS)]
        followers = [
            Follower(sock, END.encode(), parse if number == 0 else None)
            for number, sock in enumerate(socks)
        ]
        writer = connect(path)
        if is_replay:
            call(writer, "bench.append", count=count, batch=1000, writers=1)
        else:
            for sock in socks:
                call(sock, "events.subscribe", after=0)
        began = time.perf_counter()
        if is_replay:
            for sock in socks:
                sock.sendall(msgpack.packb([0, 1, "events.subscribe", [{"after": 0}]]))
        else:
            arguments = {"count": count, "batch": 1, "writers": writers}
            writer.sendall(msgpack.packb([0, 1, "bench.append", [arguments]]))
        drain(followers)
        elapsed = time.perf_counter() - began
        for sock in (*socks, writer):
            sock.close()
    assert seqs == list(range(1, count + 2))  # all of them, once and in order
    return SUBSCRIBERS * count / elapsed


def redis_rate(directory: Path, *, pipelined: int) -> float:
    """The same with PUBLISH: `pipelined` commands are sent before their answers are read."""
    server = RedisServer(directory)
    server.start()
    try:
        socks = [connect(str(server.socket)) for _ in range(SUBSCRIBERS)]
        for sock in socks:
            sock.sendall(b"SUBSCRIBE events\r\n")
            assert sock.recv(1000).startswith(b"*3")
        payload = msgpack.packb({"seq": 1, "time_ms": 1, "company": "acme", "type": "x", **DATA})
        end = END.encode().ljust(len(payload), b"!")
        followers = [Follower(sock, END.encode()) for sock in socks]
        publisher = Publisher(str(server.socket), payload, end, pipelined)
        began = time.perf_counter()
        publisher.start()
        drain(followers)
        elapsed = time.perf_counter() - began
        publisher.wait()
        for sock in socks:
            sock.close()
    finally:
        server.kill()
    return SUBSCRIBERS * EVENTS / elapsed


class Publisher:
    """A process of its own, as the writer of events is one."""

    def __init__(self, path: str, payload: bytes, end: bytes, pipelined: int) -> None:
        self._arguments = [path, payload.hex(), end.hex(), str(pipelined), str(EVENTS)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = str(Path(__file__).with_name("redis_publisher.py"))
        self._process = subprocess.Popen([sys.executable, script, *self._arguments])

    def wait(self) -> None:
        assert self._process is not None
        assert self._process.wait() == 0


def test_events_to_100_subscribers_beside_redis(measured: Callable[..., None]) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    report = []
    with tempfile.TemporaryDirectory(prefix="wb-") as name:
        for writers, count in ((1, 2000), (10, EVENTS), (100, EVENTS)):
            directory = Path(name) / f"live{writers}"
            directory.mkdir()
            rate = whatsappd_rate(directory, count=count, writers=writers, is_replay=False)
            report.append((f"durable and live, {writers} writers of single events", rate, 1))
        directory = Path(name) / "replay"
        directory.mkdir()
        rate = whatsappd_rate(directory, count=EVENTS, writers=1, is_replay=True)
        report.append(("replay from the disk and the tail", rate, 100))
        references = {}
        for pipelined in (1, 100):
            directory = Path(name) / f"redis{pipelined}"
            directory.mkdir()
            references[pipelined] = redis_rate(directory, pipelined=pipelined)
    for what, rate, redis in report:
        measured(
            f"{SUBSCRIBERS} subscribers, {what}",
            rate,
            "deliveries/s",
            beside=f"Redis PUBLISH, {redis} at a time",
            reference=references[redis],
            aim="300,000/s",
        )
