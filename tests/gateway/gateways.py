"""A `whatsappd gateway` process, and clients for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import trio
from daemons import PATIENCE, Daemon


class Gateway:
    """The process; `url` is where it listens."""

    def __init__(self, directory: Path, socket: Path, *arguments: str) -> None:
        self.log_file = directory / "gateway.log"
        self.command = [
            *(sys.executable, "-m", "whatsappd", "gateway", "--log-level", "debug"),
            *("--bind", "127.0.0.1:0", "--socket", str(socket), *arguments),
        ]
        self.environment: dict[str, str] = {}  # what it has beside ours
        self.process: trio.Process | None = None
        self.port = 0
        self.is_ready = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        before = len(self.log())
        with self.log_file.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        with trio.fail_after(PATIENCE):
            while not self.find_ready(before):
                assert self.process.poll() is None, self.log()
                await trio.sleep(0.02)

    def find_ready(self, after: int = 0) -> bool:
        """Whether the gateway said (behind that place of its log) where it listens."""
        for line in self.lines(after):
            if line.get("event") == "gateway_ready":
                self.is_ready = True
                port = line["bind"].rpartition(":")[2]
                self.port = int(port) if port.isdecimal() else 0  # 0: a Unix socket
        return self.is_ready

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def lines(self, after: int = 0) -> list[dict[str, Any]]:
        complete = self.log()[after:].rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines() if line.startswith("{")]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


class Stack(NamedTuple):
    """A daemon and its gateway."""

    daemon: Daemon
    gateway: Gateway

    async def last_seq(self) -> int:
        async with self.daemon.client() as client:
            return (await client.call("daemon.status"))["last_seq"]

    async def key(self, scope: str = "admin", companies: list[str] | None = None) -> str:
        return (await self.make_key(scope, companies))["key"]

    async def make_key(
        self, scope: str = "admin", companies: list[str] | None = None
    ) -> dict[str, Any]:
        async with self.daemon.client() as client:
            given = {} if companies is None else {"companies": companies}
            return await client.call("key.create", name="test", scope=scope, **given)

    def http(self, key: str | None = None) -> httpx.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.gateway.url, headers=headers, timeout=PATIENCE)


@asynccontextmanager
async def running_gateway(daemon: Daemon, *arguments: str) -> AsyncIterator[Gateway]:
    gateway = Gateway(daemon.directory, daemon.socket, *arguments)
    await gateway.start()
    try:
        yield gateway
    except BaseException:
        print(gateway.log()[-8000:])
        raise
    finally:
        with trio.CancelScope(shield=True):
            if gateway.process is not None and gateway.process.poll() is None:
                gateway.process.terminate()
                with trio.move_on_after(15):
                    await gateway.process.wait()
                gateway.process.kill()
                await gateway.process.wait()


async def link(stack: Stack, http: httpx.AsyncClient, company: str, phone: str) -> None:
    """Make the company by REST, and let a virtual phone scan the code that REST shows."""
    made = await http.put(f"/v1/sessions/{company}")
    assert made.status_code == 201, made.text
    async with stack.daemon.client() as phones:
        with trio.fail_after(PATIENCE):
            while True:
                shown = await http.get(f"/v1/sessions/{company}/qr?format=text")
                if shown.status_code == 200:
                    break
                assert shown.status_code == 409
                assert shown.json()["name"] == "wrong_state"
                await trio.sleep(0.05)
            await phones.call("sandbox.scan", qr=shown.text, phone=phone)
            while not (await http.get(f"/v1/sessions/{company}/pairing")).json()["linked"]:
                await trio.sleep(0.05)
            while (await http.get(f"/v1/sessions/{company}")).json()["state"] != "connected":
                await trio.sleep(0.05)


async def make_events(daemon: Daemon, company: str, messages: int) -> None:
    """Two events for each message: queued, and cancelled. The company is not linked."""
    async with daemon.client() as client:
        await client.call("session.start", company=company)
        await client.call("session.stop", company=company)

        async def some(count: int) -> None:
            for _ in range(count):
                row = await client.call("message.send", company=company, to="+15550999", text="x")
                await client.call("message.cancel", id=row["id"])

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(some, messages // 50)
