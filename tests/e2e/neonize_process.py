"""Runs `neonize_client.py` for a test: a real client in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any, Self

import trio

from whatsappd.sandbox.info_file import SandboxInfo

PROGRAM = Path(__file__).with_name("neonize_client.py")
ROOT = PROGRAM.parents[2]
#: Seconds that any single event may take; generous, because the machine may be busy.
PATIENCE = 20


class NeonizeProcess:
    """A client process: `expect` its events in any order, `do` things with it.

    Events that were not expected yet stay, so that a test cannot miss one.
    """

    def __init__(self, info: SandboxInfo, database: Path) -> None:
        self.info = info
        self.database = database
        self.output = b""  # everything it printed, for error messages
        self._pending: deque[dict[str, Any]] = deque()
        self._arrived = trio.Event()
        self._ended = False
        self._commands = 0
        self._process: trio.Process | None = None

    async def start(
        self, nursery: trio.Nursery, *, ca_file: str | None = None, noise_root: str | None = None
    ) -> Self:
        environment = {
            **os.environ,
            "SSL_CERT_FILE": self.info.ca_file if ca_file is None else ca_file,
            "NEONIZE_BOT_TAG": "off",
            "PYTHONPATH": str(ROOT),
        }
        root = self.info.noise_root if noise_root is None else noise_root
        command = [sys.executable, str(PROGRAM), str(self.database), str(self.info.port), root]
        self._ended = False
        self._process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        nursery.start_soon(self._read, self._process)
        return self

    async def _read(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        try:
            async for data in process.stdout:
                self.output += data
                *lines, rest = (rest + data).split(b"\n")
                self._pending.extend(
                    json.loads(line.partition(b"@event ")[2])
                    for line in lines
                    if b"@event " in line
                )
                self._wake()
            self._ended = True
            self._wake()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = trio.Event()

    async def expect(self, event: str, **values: Any) -> dict[str, Any]:
        """The first event not yet taken with this name and these values."""
        with trio.move_on_after(PATIENCE):
            while True:
                for found in self._pending:
                    if found["event"] == event and values.items() <= found.items():
                        self._pending.remove(found)
                        return found
                if self._ended:
                    break
                await self._arrived.wait()
        raise AssertionError(
            f"no {event} {values} from {self.database.name}; it printed:\n"
            + self.output.decode(errors="replace")[-4000:]
        )

    def has(self, event: str, **values: Any) -> bool:
        """Whether such an event came and was not taken yet."""
        return any(
            found["event"] == event and values.items() <= found.items() for found in self._pending
        )

    def texts(self) -> list[str]:
        """The texts of all messages that were not taken yet, in order; they are taken now."""
        messages = [found for found in self._pending if found["event"] == "message"]
        for found in messages:
            self._pending.remove(found)
        return [found["text"] for found in messages]

    async def begin(self, action: str, **arguments: Any) -> int:
        """Give a command; its number, for `end`."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._commands += 1
        line = json.dumps({"do": action, "n": self._commands, **arguments}) + "\n"
        await self._process.stdin.send_all(line.encode())
        return self._commands

    async def end(self, number: int) -> dict[str, Any]:
        return await self.expect("done", n=number)

    async def do(self, action: str, **arguments: Any) -> dict[str, Any]:
        return await self.end(await self.begin(action, **arguments))

    async def fail(self, action: str, **arguments: Any) -> str:
        """Give a command that must fail; its error."""
        number = await self.begin(action, **arguments)
        error: str = (await self.expect("failed", n=number))["error"]
        return error

    async def send(self, to: str, text: str) -> str:
        """Send a text; its message id."""
        sent: str = (await self.do("send", to=to, text=text))["id"]
        return sent

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()

    async def kill_and_wait(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
