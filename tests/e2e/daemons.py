"""Real daemons and sandboxes for the end-to-end tests: processes started as anybody would.

Everything runs in directories of the test's own, and what was started is ended by its pid.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio

from whatsappd.errors import Unreachable
from whatsappd.rpc.client import RpcClient, open_client

#: Generous: the machine may be busy with other tests. Nothing waits this long when all is well.
PATIENCE = 40.0


class Daemon:
    """A `whatsappd run` process, and a way to start it again on the same state."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.socket = directory / "d.sock"
        self.log_file = directory / "daemon.log"
        self.arguments = arguments
        #: What its environment has beside ours, what command starts it, and what it inherits.
        self.environment: dict[str, str] = {}
        self.wrapper: list[str] = []
        self.descriptors: tuple[int, ...] = ()
        self.process: trio.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start the process, and return when it answers."""
        await self.launch()
        assert self.process is not None
        with trio.fail_after(PATIENCE):
            while True:
                assert self.process.poll() is None, self.log()
                try:
                    async with open_client(self.socket) as client:
                        await client.call("daemon.hello")
                        return
                except Unreachable:
                    await trio.sleep(0.02)

    async def launch(self) -> trio.Process:
        """Start the process without waiting for anything."""
        with self.log_file.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                [
                    *self.wrapper,
                    *(sys.executable, "-m", "whatsappd", "run", "--log-level", "info"),
                    *("--state-dir", str(self.state_dir), "--socket", str(self.socket)),
                    *self.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
                pass_fds=self.descriptors,
            )
        return self.process

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE):
            return await self.process.wait()

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RpcClient]:
        async with open_client(self.socket) as client:
            yield client


class Events:
    """All events from `after` on; `until` takes what is wanted, in whatever order it came."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._more = trio.Event()

    async def read(self, client: RpcClient) -> None:
        async for notice in client.notifications:
            if notice.method == "event":
                self.seen.append(notice.arguments["event"])
                self._more.set()
                self._more = trio.Event()

    async def until(
        self, wanted: Callable[[dict[str, Any]], bool], *, start: int = 0
    ) -> dict[str, Any]:
        """The first event (from the index `start`) that is wanted."""
        place = start
        with trio.move_on_after(PATIENCE):
            while True:
                while place < len(self.seen):
                    if wanted(self.seen[place]):
                        return self.seen[place]
                    place += 1
                await self._more.wait()
        raise AssertionError(f"not seen within {PATIENCE} s; last events: {self.seen[-5:]}")

    async def state(self, company: str, *states: str, start: int = 0) -> dict[str, Any]:
        return await self.until(
            lambda event: (
                event["type"] == "session.state"
                and event["company"] == company
                and event["data"]["state"] in states
            ),
            start=start,
        )

    async def of_type(self, company: str, kind: str, *, start: int = 0) -> dict[str, Any]:
        return await self.until(
            lambda event: event["type"] == kind and event["company"] == company, start=start
        )


@asynccontextmanager
async def following(client: RpcClient, *, after: int = 0) -> AsyncIterator[Events]:
    events = Events()
    await client.call("events.subscribe", after=after)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.read, client)
        yield events
        nursery.cancel_scope.cancel()


async def link(client: RpcClient, events: Events, company: str, phone: str) -> dict[str, Any]:
    """Start `company` and let a virtual phone scan its code; the `connected` event."""
    start = len(events.seen)
    await client.call("session.start", company=company)
    shown = await events.of_type(company, "session.qr", start=start)
    await client.call("sandbox.scan", qr=shown["data"]["qr"], phone=phone)
    return await events.state(company, "connected", start=start)


@asynccontextmanager
async def running_daemon(
    *arguments: str, prepare: Callable[[Daemon], None] = lambda _daemon: None
) -> AsyncIterator[Daemon]:
    """A daemon in a directory of its own, stopped at the end however the test ends."""
    # Short, because a Unix socket's path may have 107 bytes and pytest's are long.
    with tempfile.TemporaryDirectory(prefix="wd-") as name:
        daemon = Daemon(Path(name), *arguments)
        prepare(daemon)
        await daemon.start()
        try:
            yield daemon
        except BaseException:
            print(daemon.log()[-8000:])
            raise
        finally:
            with trio.CancelScope(shield=True):
                if daemon.process is not None and daemon.process.poll() is None:
                    daemon.process.terminate()
                    with trio.move_on_after(20):
                        await daemon.process.wait()
                    daemon.process.kill()
                    await daemon.process.wait()


class InSandbox(NamedTuple):
    """What most tests begin with."""

    daemon: Daemon
    client: RpcClient
    events: Events


@asynccontextmanager
async def in_sandbox(
    *arguments: str, prepare: Callable[[Daemon], None] = lambda _daemon: None
) -> AsyncIterator[InSandbox]:
    """A daemon with a sandbox of its own, a connection to it, and all its events."""
    async with (
        running_daemon("--sandbox", *arguments, prepare=prepare) as daemon,
        daemon.client() as client,
        following(client) as events,
    ):
        yield InSandbox(daemon, client, events)


class RunningSandbox(NamedTuple):
    """A sandbox in a process of its own, which outlives the daemons that use it."""

    info: Path
    control: RpcClient
    pid: int

    async def fault(self, kind: str, **arguments: Any) -> Any:
        return await self.control.call("sandbox.fault", kind=kind, **arguments)

    async def stats(self, *, messages: bool = False) -> Any:
        return await self.control.call("sandbox.stats", messages=messages)


@asynccontextmanager
async def running_sandbox() -> AsyncIterator[RunningSandbox]:
    """`whatsappd sandbox` on its own: give daemons `--sandbox-at` and its `info`."""
    with tempfile.TemporaryDirectory(prefix="ws-") as name:
        info = Path(name) / "info.json"
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "whatsappd", "sandbox", "--info", str(info), "--while-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            with trio.fail_after(PATIENCE):
                await process.stdout.receive_some()
            async with open_client(json.loads(info.read_text())["control"]) as control:
                yield RunningSandbox(info, control, process.pid)
        finally:
            with trio.CancelScope(shield=True):
                await process.stdin.aclose()
                await process.stdout.aclose()
                with trio.move_on_after(10):
                    await process.wait()
                process.kill()
                await process.wait()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_gone(pid: int) -> None:
    """Wait for the end of a process that need not be our child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
