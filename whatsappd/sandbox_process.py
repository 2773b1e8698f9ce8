"""The sandbox that a daemon uses: its own child process, or one that already runs on the host.

`run --sandbox` starts a child process, and starts it again when it dies (`own_sandbox`);
`run --sandbox-at FILE` uses the one that FILE describes (`sandbox_at`). Either way it is another
process, so its memory and processor time are not the daemon's, and the daemon talks to it by RPC.
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

#: Seconds that a sandbox has to come up. Reading the stanza dictionary from neonize's library takes
#: 0.4 s, the first time.
_READY_DEADLINE = 30.0
#: Seconds between the end of a sandbox and the next start.
_RESTART_PAUSE = 0.5
#: Seconds that a sandbox has to end by itself; then it is killed.
_STOP_GRACE = 3.0

#: The name of the info file in the directory of a daemon's own sandbox.
INFO_FILE = "info.json"


class SandboxHandle:
    """Where the sandbox is now. A child process that is started again may move to another port."""

    def __init__(self, info: SandboxInfo) -> None:
        self.info = info
        #: The child process, while it runs; None for a sandbox that the daemon did not start.
        self.pid: int | None = None

    @property
    def control(self) -> Path:
        """The Unix socket of its RPC."""
        return Path(self.info.control or "")

    def access(self) -> WhatsAppAccess:
        """How workers reach it in the place of WhatsApp."""
        proxy = self.info.proxy
        ports = frozenset(filter(None, [proxy_port(proxy)]))
        return WhatsAppAccess(proxy, self.info.noise_root_bytes, ports)

    def environment(self) -> dict[str, str]:
        """The environment variables that make Go in a worker trust the sandbox's TLS, and no other.

        SSL_CERT_DIR names an empty directory: else Go reads the host's certificates as well, which
        costs each worker 20 ms and 3 MB.
        """
        return {"SSL_CERT_FILE": self.info.ca_file, "SSL_CERT_DIR": os.devnull}


def sandbox_at(path: Path) -> SandboxHandle:
    """Use the running sandbox that the info file at `path` describes.

    Raises:
        SandboxFailed: the file cannot be read, or describes no sandbox.
    """
    return SandboxHandle(read_info(path))


@asynccontextmanager
async def own_sandbox(directory: Path, supervision: Supervision) -> AsyncIterator[SandboxHandle]:
    """Run a sandbox on `directory` as a child process, and start it again when it dies.

    Yields when clients can connect; the end of the block ends the child process.

    Raises:
        SandboxFailed: it did not come up at first. (Later failures are logged, and tried again.)
    """
    first: list[SandboxHandle] = []
    is_up = trio.Event()

    async def run() -> None:
        """Run one child process after another; the first must come up."""
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
    """One child process, from its start to its end; its stderr goes to the daemon's log."""
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
        # However the daemon ends, its end of this pipe is closed then, and the sandbox ends.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors_writer,
        start_new_session=True,  # Ctrl-C goes to the daemon only
    )
