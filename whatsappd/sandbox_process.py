"""The daemon's use of a sandbox: one that it runs itself, or one that runs elsewhere on the host.

Either way the sandbox is a process of its own that is described by its info file; so what it costs
is not counted as the daemon's, and there is one way to talk to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import trio

from whatsappd.engines.child_output import log_output
from whatsappd.engines.neonize.worker_environment import proxy_port
from whatsappd.engines.port import WhatsAppAccess
from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.info_file import SandboxInfo, read_info
from whatsappd.supervision import Supervision, in_words

log = structlog.get_logger()

#: Reading the stanza dictionary from neonize's library takes 0.4 s, the first time.
_READY_DEADLINE = 30.0
#: A sandbox that dies at once is not started in a tight loop.
_RESTART_PAUSE = 0.5
_STOP_GRACE = 3.0

INFO_FILE = "info.json"


class SandboxHandle:
    """Where the sandbox in use is just now."""

    def __init__(self, info: SandboxInfo) -> None:
        self.info = info
        self.pid: int | None = None  # of one that we run ourselves

    @property
    def control(self) -> Path:
        return Path(self.info.control or "")

    def access(self) -> WhatsAppAccess:
        proxy = self.info.proxy
        ports = frozenset(filter(None, [proxy_port(proxy)]))
        return WhatsAppAccess(proxy, self.info.noise_root_bytes, ports)

    def environment(self) -> dict[str, str]:
        """What the workers' environment needs so that Go trusts the sandbox's TLS, and no other.

        Without a directory of its own, Go reads the host's beside the file: some hundred
        certificates a worker, which cost it 20 ms and 3 MB.
        """
        return {"SSL_CERT_FILE": self.info.ca_file, "SSL_CERT_DIR": os.devnull}


def sandbox_at(path: Path) -> SandboxHandle:
    """The sandbox that the info file at `path` describes.

    Raises:
        SandboxFailed: the file cannot be read, or describes no sandbox that can be controlled.
    """
    return SandboxHandle(read_info(path))


@asynccontextmanager
async def own_sandbox(directory: Path, supervision: Supervision) -> AsyncIterator[SandboxHandle]:
    """Run a sandbox on `directory`; one that dies is started again.

    Raises:
        SandboxFailed: it did not come up.
    """
    first: list[SandboxHandle] = []
    is_up = trio.Event()

    async def run() -> None:
        """One sandbox's life after another; the first must come up."""
        while True:
            try:
                async with _sandbox_process(directory) as (process, info):
                    if not first:
                        first.append(SandboxHandle(info))
                        is_up.set()
                    handle = first[0]
                    handle.info, handle.pid = info, process.pid
                    try:
                        await process.wait()
                    finally:
                        handle.pid = None
            except* SandboxFailed as group:
                if not first:
                    raise
                log.error("sandbox_not_started", reason=in_words(group))
            else:
                log.error("sandbox_ended", returncode=process.returncode)
            await trio.sleep(_RESTART_PAUSE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(supervision.keep, "sandbox", run, fatal=(SandboxFailed,)))
        await is_up.wait()
        yield first[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _sandbox_process(
    directory: Path,
) -> AsyncIterator[tuple[trio.Process, SandboxInfo]]:
    errors, errors_writer = os.pipe()
    try:
        process = await _start(directory, errors_writer)
    except BaseException:
        os.close(errors)
        raise
    finally:
        os.close(errors_writer)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log_output, errors, {"part": "sandbox"})
            with trio.move_on_after(_READY_DEADLINE):
                await process.stdout.receive_some()  # one line, when it serves
            if process.poll() is not None or not (directory / INFO_FILE).exists():
                raise SandboxFailed("the sandbox did not come up; the log has its reasons")
            yield process, read_info(directory / INFO_FILE)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            with trio.move_on_after(_STOP_GRACE):
                await process.wait()
            process.kill()
            await process.wait()


async def _start(directory: Path, errors_writer: int) -> trio.Process:
    return await trio.lowlevel.open_process(
        [
            *(sys.executable, "-P", "-m", "whatsappd", "sandbox", "--while-stdin"),
            *("--directory", str(directory)),
            *("--info", str(directory / INFO_FILE)),
        ],
        # Its end of stdin closes when we end, however we end; so does it then.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors_writer,
        start_new_session=True,  # Ctrl-C is the daemon's to handle
    )
