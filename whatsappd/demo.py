"""`whatsappd demo`: the main job, shown through the public door.

Starts `whatsappd run --sandbox` as anybody would, then uses its RPC socket only. The virtual
phones scan the very QR strings that the RPC delivers.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from whatsappd.errors import Unreachable, WhatsappdError
from whatsappd.rpc.client import RpcClient, open_client

TEXT = "Hello from acme: your order is on its way."
COMPANIES = {"acme": "+15550100", "globex": "+15550200"}
#: The whole demo takes 3 s on two cores; a step that needs this long has failed.
STEP_DEADLINE = 30.0
#: How often a daemon that is just starting is asked whether it is there.
_CONNECT_PAUSE = 0.02


class DemoFailed(Exception):
    """A step failed; the text names it and says why."""


class Timeline:
    """Prints each step with the time since the beginning and the time it took."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def mark(self, what: str) -> None:
        now = time.monotonic()
        elapsed, took = now - self._began, now - self._last
        self._last = now
        print(f"{elapsed:7.3f} s  (+{took * 1000:6.0f} ms)  {what}", flush=True)

    @property
    def total(self) -> float:
        return time.monotonic() - self._began


async def run_demo(keep: bool, log_level: str) -> None:
    """Run all steps; with `keep`, leave the daemon running.

    Raises:
        DemoFailed: a step failed.
    """
    timeline = Timeline()
    # Short, because a Unix socket's path may have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="whatsappd-demo-"))
    socket = directory / "whatsappd.sock"
    log_file = directory / "whatsappd.log"
    print(f"A daemon with a loopback WhatsApp, in {directory}\n", flush=True)
    async with _daemon(directory, socket, log_file, log_level, keep=keep) as process:
        try:
            await _steps(timeline, socket, process)
        except* WhatsappdError as group:
            raise DemoFailed(f"{_first(group)} (the daemon's log: {log_file})") from group
        print(f"\nDone in {timeline.total:.1f} s.", flush=True)
        if keep:
            _print_what_to_try(directory, socket, process.pid)
    if not keep:
        # After a failure it stays, because the log that explains it is in there.
        await trio.to_thread.run_sync(shutil.rmtree, directory)


async def _steps(timeline: Timeline, socket: Path, process: trio.Process) -> None:
    async with _connected(socket, process) as client:
        status = await client.call("daemon.status")
        sandbox = status["sandbox"]
        timeline.mark(f"sandbox up on {sandbox['host']}:{sandbox['port']}")
        timeline.mark(f"daemon up, pid {status['pid']}, mode {status['mode']}")
        async with _follow(client) as following:
            identities = {
                company: await _link(timeline, client, following, company, phone)
                for company, phone in COMPANIES.items()
            }
            await _send(timeline, client, following, identities["acme"])


async def _link(
    timeline: Timeline, client: RpcClient, following: _Following, company: str, phone: str
) -> str:
    await client.call("session.start", company=company)
    shown = await following.until(
        f"{company}: a QR code is shown",
        lambda event: event["company"] == company and event["type"] == "session.qr",
    )
    timeline.mark(f"{company}: QR code shown")
    await client.call("sandbox.scan", qr=shown["data"]["qr"], phone=phone)
    timeline.mark(f"{company}: QR code scanned by the phone {phone}")
    connected = await following.until(
        f"{company} is connected",
        lambda event: _is_state(event, company, "connected"),
        failed=lambda event: _is_state(event, company, "failed", "logged_out", "backing_off"),
    )
    timeline.mark(f"{company}: connected as {connected['data']['jid']}")
    return str(connected["data"]["jid"])


async def _send(timeline: Timeline, client: RpcClient, following: _Following, sender: str) -> None:
    row = await client.call(
        "message.send", company="acme", to=COMPANIES["globex"], text=TEXT, key="demo-1"
    )
    timeline.mark(f"acme → globex: message {row['id']} {row['state']}")

    def is_outbox(*states: str) -> Callable[[dict[str, Any]], bool]:
        return lambda event: (
            event["type"] == "outbox.state"
            and event["data"]["id"] == row["id"]
            and event["data"]["state"] in states
        )

    failed = is_outbox("failed", "uncertain", "expired", "cancelled")
    sent = await following.until("the message is sent", is_outbox("sent"), failed=failed)
    timeline.mark(f"acme → globex: sent, WhatsApp's id {sent['data']['message_id']}")
    received = await following.until(
        "globex received the message",
        lambda event: event["type"] == "message.received" and event["company"] == "globex",
    )
    text = received["data"]["text"]
    if text != TEXT:
        raise DemoFailed(f"globex received {text!r}, not {TEXT!r}")
    timeline.mark(f"globex: received from {received['data']['sender']['phone']}: “{text}”")
    await following.until("the receipt is back", is_outbox("delivered"), failed=failed)
    timeline.mark("acme: the delivery receipt is back, the message is delivered")


def _is_state(event: dict[str, Any], company: str, *states: str) -> bool:
    return (
        event["company"] == company
        and event["type"] == "session.state"
        and event["data"]["state"] in states
    )


@asynccontextmanager
async def _follow(client: RpcClient) -> AsyncIterator[_Following]:
    following = _Following()
    await client.call("events.subscribe", after=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(following.read, client)
        yield following
        nursery.cancel_scope.cancel()


class _Following:
    """All events of the daemon, each step taking those it waits for, whenever they came."""

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []
        self._more = trio.Event()

    async def read(self, client: RpcClient) -> None:
        async for notice in client.notifications:
            if notice.method == "event":
                self._seen.append(notice.arguments["event"])
                self._more.set()
                self._more = trio.Event()

    async def until(
        self,
        what: str,
        wanted: Callable[[dict[str, Any]], bool],
        *,
        failed: Callable[[dict[str, Any]], bool] = lambda _event: False,
    ) -> dict[str, Any]:
        """The first event that is wanted."""
        looked_at = 0
        with trio.move_on_after(STEP_DEADLINE):
            while True:
                while looked_at < len(self._seen):
                    event = self._seen[looked_at]
                    looked_at += 1
                    if wanted(event):
                        return event
                    if failed(event):
                        why = event["data"].get("cause") or event["data"].get("reason")
                        raise DemoFailed(f"{what}: {event['data']['state']}: {why}")
                await self._more.wait()
        raise DemoFailed(f"{what}: not within {STEP_DEADLINE:.0f} s")


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def _daemon(
    directory: Path, socket: Path, log_file: Path, log_level: str, *, keep: bool
) -> AsyncIterator[trio.Process]:
    """A daemon as anybody would start it; stopped at the end unless it is kept."""
    command = [
        *(sys.executable, "-P", "-m", "whatsappd", "run", "--sandbox"),
        *("--log-level", log_level),
        *("--state-dir", str(directory / "state"), "--socket", str(socket)),
    ]
    with log_file.open("wb") as log:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    done = False
    try:
        yield process
        done = True
    finally:
        if not (keep and done):
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


@asynccontextmanager
async def _connected(socket: Path, process: trio.Process) -> AsyncIterator[RpcClient]:
    """A connection to a daemon that is just starting."""
    deadline = time.monotonic() + STEP_DEADLINE
    while not await trio.Path(socket).exists():
        if process.poll() is not None:
            raise DemoFailed(f"the daemon ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"the daemon is not up after {STEP_DEADLINE:.0f} s")
        await trio.sleep(_CONNECT_PAUSE)
    while not await _answers(socket):  # the file is there a moment before anybody listens
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed("the daemon does not answer")
        await trio.sleep(_CONNECT_PAUSE)
    async with open_client(socket) as client:
        yield client


async def _answers(socket: Path) -> bool:
    try:
        async with open_client(socket):
            return True
    except Unreachable:
        return False


def _print_what_to_try(directory: Path, socket: Path, pid: int) -> None:
    control = shlex.quote(str(Path(sys.executable).with_name("whatsappctl")))
    print(
        f"""
Everything is left running. Try:

  export WHATSAPPD_SOCKET={socket}
  {control} status
  {control} send globex {COMPANIES["acme"]} "Thank you!"
  {control} events --after 0
  {control} start initech --no-wait && {control} sandbox scan initech --phone +15550300
  kill {pid}                     # stop it
  rm -r {directory}   # and forget it
""",
        flush=True,
    )
