"""Runs `pool.mjs`, a session pool with Baileys in one Node process, for `test_bench_pool`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from whatsappd.sandbox.info_file import SandboxInfo

#: Its line of releases for Node 20; what the figures are about is pinned, as neonize is.
BAILEYS = "baileys@7.0.0-rc13"
PROGRAM = Path(__file__).with_name("pool.mjs")
#: Seconds that any one answer may take.
PATIENCE = 120.0


def missing() -> str | None:
    """What is not installed on this machine, of what the pool needs."""
    absent = [name for name in ("node", "npm") if shutil.which(name) is None]
    return " and ".join(absent) or None


async def install(directory: Path) -> str | None:
    """Install Baileys for one run; why that failed, if it did."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", BAILEYS]
    directory.mkdir()
    (directory / "package.json").write_text("{}")
    result = await trio.run_process(
        command, cwd=directory, check=False, capture_stdout=True, capture_stderr=True
    )
    return None if result.returncode == 0 else result.stderr.decode()[-400:]


class NodePool:
    """A running pool: `tell` it what to do, and `until` its events say what was wanted."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.seen: list[dict[str, Any]] = []
        self._more = trio.Event()
        self._telling = trio.Lock()

    async def read(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                event = json.loads(line)
                assert event["event"] != "defect", event
                self.seen.append(event)
            self._more.set()
            self._more = trio.Event()

    async def tell(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        async with self._telling:
            await self.process.stdin.send_all(json.dumps({"do": do, **arguments}).encode() + b"\n")

    async def until(
        self, wanted: Callable[[dict[str, Any]], bool], *, count: int = 1, start: int = 0
    ) -> list[dict[str, Any]]:
        """The first `count` events that are wanted."""
        place, found = start, []
        with trio.fail_after(PATIENCE):
            while True:
                while place < len(self.seen):
                    if wanted(self.seen[place]):
                        found.append(self.seen[place])
                        if len(found) == count:
                            return found
                    place += 1
                await self._more.wait()


@asynccontextmanager
async def running_pool(
    installed: Path, info: SandboxInfo, accounts: Path
) -> AsyncIterator[NodePool]:
    """The pool of the accounts in a directory; it is killed at the end, as a crash would."""
    job = {
        "port": info.port,
        "ca_file": info.ca_file,
        "noise_root": info.noise_root,
        "directory": str(accounts),
    }
    accounts.mkdir(exist_ok=True)
    process = await trio.lowlevel.open_process(
        ["node", "--input-type=module", "-e", PROGRAM.read_text(), json.dumps(job)],
        cwd=installed,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with trio.open_nursery() as nursery:
            pool = NodePool(process)
            nursery.start_soon(pool.read)
            await pool.until(lambda event: event["event"] == "ready")
            yield pool
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
