"""`daemon.hello` round trips beside a bare trio server of the same framing, in the same run.

The load comes from a loop on epoll that parses nothing, so that what is measured is the server.
The aim is at least 0.8 of the bare server with one request in flight on each of 50 connections,
where trio's own cost counts as it does in use. With 64 in flight on one, that cost is shared by 64
and what remains is our work on a request (validation, rights, errors: 1 us) beside none at all.
The floors below only catch accidents: cores are shared.
"""

from __future__ import annotations

import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest
from rpc_servers import ANSWER

#: Many short rounds in turn, and the median of their ratios: a busy moment hits both servers.
SECONDS = 0.25
ROUNDS = 11
REQUEST = msgpack.packb([0, 1, "daemon.hello", []])
ANSWER_SIZE = len(msgpack.packb([1, 1, None, ANSWER]))

pytestmark = pytest.mark.bench


@contextmanager
def running(name: str, directory: Path) -> Iterator[str]:
    path = str(directory / f"{name}.sock")
    script = Path(__file__).with_name("rpc_servers.py")
    command = [sys.executable, str(script), name, path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env={"PYTHONPATH": "."}
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield path
        finally:
            process.kill()


def requests_per_second(path: str, connections: int, in_flight: int) -> float:
    """Each connection sends `in_flight` requests, and again when all of them are answered."""
    epoll = select.epoll()
    socks = {}
    missing = {}
    batch = REQUEST * in_flight
    for _ in range(connections):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        socks[sock.fileno()] = sock
        epoll.register(sock, select.EPOLLIN)
    for number, sock in socks.items():
        missing[number] = in_flight * ANSWER_SIZE
        sock.sendall(batch)
    done = 0
    began = time.perf_counter()
    busy = connections
    while busy:
        more = time.perf_counter() - began < SECONDS
        for number, _ in epoll.poll():
            missing[number] -= len(socks[number].recv(65536))
            if missing[number]:
                continue
            done += in_flight
            if more:
                missing[number] = in_flight * ANSWER_SIZE
                socks[number].sendall(batch)
            else:
                busy -= 1
    elapsed = time.perf_counter() - began
    for sock in socks.values():
        sock.close()
    epoll.close()
    return done / elapsed


@pytest.mark.parametrize(
    ("connections", "in_flight", "floor"), [(1, 64, 0.25), (50, 1, 0.65), (1000, 1, 0.35)]
)
def test_hello_beside_a_bare_trio_server(tmp_path, measured, connections, in_flight, floor):
    figures: dict[str, list[float]] = {"bare": [], "whatsappd": []}
    with running("bare", tmp_path) as reference, running("whatsappd", tmp_path) as daemon:
        for _ in range(ROUNDS):
            figures["bare"].append(requests_per_second(reference, connections, in_flight))
            figures["whatsappd"].append(requests_per_second(daemon, connections, in_flight))
    ours = statistics.median(figures["whatsappd"])
    pairs = zip(figures["whatsappd"], figures["bare"], strict=True)
    ratio = statistics.median(one / bare for one, bare in pairs)
    measured(
        f"daemon.hello, {connections} connections with {in_flight} in flight",
        ours,
        "/s",
        beside="bare trio server",
        reference=ours / ratio,
        aim="0.8 of it" if in_flight == 1 and connections == 50 else None,
    )
    assert ratio > floor
