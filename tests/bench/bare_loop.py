"""Runs `bare_clients.py`, the bare loop around neonize, on the accounts of a stopped daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from whatsappd.engines.neonize.worker.client import DATABASE_OPTIONS
from whatsappd.sandbox_process import sandbox_at

PROGRAM = Path(__file__).with_name("bare_clients.py")
#: Before each line of its report: Go and neonize print to the same stream.
MARK = b"@report "
#: Seconds for all clients to be connected.
PATIENCE = 120


@asynccontextmanager
async def running_bare(
    sandbox: Path, clients: list[dict[str, Any]], *, is_tuned: bool = False
) -> AsyncIterator[tuple[trio.Process, Lines, list[int]]]:
    """The process, its reports, and its clients' processes, once all are connected.

    Args:
        sandbox: the file that describes it.
        clients: as `bare_clients.py` takes them.
        is_tuned: as the daemon's workers are: Go on one core, whatsmeow's statements kept prepared.
    """
    handle = sandbox_at(sandbox)
    tuning = {"GOMAXPROCS": "1"} if is_tuned else {}
    process = await trio.lowlevel.open_process(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # As the daemon starts its fork server: what Go and neonize print is not read here.
        stderr=subprocess.DEVNULL,
        env={**os.environ, **handle.environment(), **tuning, "NEONIZE_BOT_TAG": "off"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = Lines(process.stdout)
    info = handle.info
    options = DATABASE_OPTIONS if is_tuned else None
    job = {
        "proxy": info.proxy,
        "noise_root": info.noise_root,
        "options": options,
        "clients": clients,
    }
    pids: list[int] = []
    try:
        with trio.fail_after(PATIENCE):
            await process.stdin.send_all(json.dumps(job).encode() + b"\n")
            pids = await lines.next()
        yield process, lines, pids
    finally:
        is_running = process.poll() is None
        process.kill()
        for pid in pids if is_running else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()


class Lines:
    """JSON, a line each, among others that are none."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def next(self) -> Any:
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if not newline:
                data = await self._stream.receive_some()
                assert data, self._rest
                self._rest += data
                continue
            self._rest = rest
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
