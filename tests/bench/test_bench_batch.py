"""`whatsappctl send --batch` on a real daemon: lines a second, and memory that does not grow.

The reference is the same number of messages, sent by one bare MessagePack-RPC client with as many
in flight, which checks nothing, keeps no order and makes no keys.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from whatsappctl.batch_sender import IN_FLIGHT
from whatsappd.rpc.client import RpcClient

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from daemons import Daemon, running_daemon

ROOT = Path(__file__).parents[2]
LINES = 100_000
FEW = 1_000
#: KiB that a batch of LINES may need beyond one of FEW.
GROWTH = 8 * 1024

pytestmark = pytest.mark.bench


def write_lines(file: Path, count: int) -> None:
    with file.open("w") as out:
        for number in range(count):
            line = {"to": f"+1555{number:07}", "text": f"Your order {number} is ready."}
            out.write(json.dumps(line) + "\n")


async def timed(daemon: Daemon, company: str, file: Path, *, end: str) -> tuple[float, int]:
    """Seconds, and the most memory in KiB; `end` is what its summary ends with."""
    program = (
        "import os, resource, sys; code = os.spawnv(os.P_WAIT, sys.executable, sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    began = time.perf_counter()
    result = await trio.run_process(
        [
            *(sys.executable, "-c", program),
            *(sys.executable, "-m", "whatsappctl", "send", company, "--batch", str(file)),
        ],
        env={**os.environ, "WHATSAPPD_SOCKET": str(daemon.socket), "PYTHONPATH": str(ROOT)},
        capture_stdout=True,
        stderr=subprocess.STDOUT,
    )
    seconds = time.perf_counter() - began
    summary, memory = result.stdout.decode().splitlines()
    assert summary.endswith(end), summary
    return seconds, int(memory)


async def bare(client: RpcClient, company: str, count: int) -> float:
    numbers = iter(range(count))

    async def send() -> None:
        for number in numbers:
            await client.call(
                "message.send", company=company, to=f"+1555{number:07}",
                text=f"Your order {number} is ready.", key=f"k{number}",
            )  # fmt: skip

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(send)
    return time.perf_counter() - began


async def test_a_long_batch(
    tmp_path: Path, measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHATSAPPD_QUEUE_LIMIT", "1000000")
    few, many = tmp_path / "few", tmp_path / "many"
    write_lines(few, FEW)
    write_lines(many, LINES)
    async with running_daemon("--sandbox") as daemon, daemon.client() as client:
        for company in ("acme", "globex", "initech"):
            await client.call("session.start", company=company)
        _, small = await timed(daemon, "acme", few, end=f" {FEW} accepted")
        seconds, large = await timed(daemon, "globex", many, end=f" {LINES} accepted")
        reference = await bare(client, "initech", LINES)
        again, _ = await timed(daemon, "globex", many, end=f" 0 accepted, {LINES} accepted before")
    measured(
        f"send --batch of {LINES:,} lines",
        LINES / seconds,
        "lines/s",
        beside=f"bare client, {IN_FLIGHT} in flight",
        reference=LINES / reference,
    )
    measured("the same batch again", LINES / again, "lines/s")
    measured(
        f"most memory, {LINES:,} lines",
        large / 1024,
        "MiB",
        beside=f"with {FEW:,} lines",
        reference=small / 1024,
    )
    assert large - small < GROWTH
