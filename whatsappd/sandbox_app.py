"""`whatsappd sandbox`: puts the loopback WhatsApp and its control socket together, and runs them.

A person starts it, or a daemon in sandbox mode (`sandbox_process`).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from whatsappd.handlers.sandbox import local_methods
from whatsappd.logs.setup import log_writer
from whatsappd.logs.writer import LogHandler
from whatsappd.rpc.listener import close_listener, open_listener
from whatsappd.rpc.method import MethodTable
from whatsappd.rpc.server import RpcServer, serve_rpc
from whatsappd.sandbox.info_file import write_info
from whatsappd.sandbox.server.sandbox import Sandbox

#: The Unix socket of its RPC, in the sandbox's directory.
CONTROL_SOCKET = "control.sock"


async def run_sandbox(
    directory: Path, info_file: Path, port: int, while_stdin: bool, log_level: str
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, or with `while_stdin` until stdin ends.

    When clients can connect, it writes `info_file` and prints one line on stdout. It removes the
    file when it ends.

    Args:
        directory: where the sandbox keeps its keys and accounts.
        info_file: what `--sandbox-at` of a daemon is told.
        port: 0: the port of the last run, or any free one.
        while_stdin: for a daemon's child process: it must not outlive the daemon.
        log_level: as in `logging`.

    Raises:
        SandboxFailed: the directory cannot be used, or neonize is not as expected.
        OSError: the port is taken.
    """
    os.umask(0o077)
    # Standard logging: a daemon that runs the sandbox puts its lines into its own log.
    logging.basicConfig(
        level=log_level.upper(),
        format="%(levelname)s %(name)s %(message)s",
        handlers=[LogHandler(log_writer().put)],
    )
    control = directory / CONTROL_SOCKET
    sandbox = Sandbox(directory, port=port, control=control)
    async with trio.open_nursery() as nursery:
        info = await nursery.start(sandbox.serve)
        table = MethodTable(local_methods(sandbox))
        listener = open_listener(control, mode=0o600)
        try:
            async with trio.open_nursery() as serving:
                server: RpcServer = await serving.start(partial(serve_rpc, listener.socket, table))
                write_info(info_file, info)
                print(f"sandbox on {info.host}:{info.port}: {info_file}", flush=True)
                await _until_told(while_stdin)
                server.stop()
        finally:
            await trio.Path(info_file).unlink(missing_ok=True)
            close_listener(listener)
        nursery.cancel_scope.cancel()


async def _until_told(while_stdin: bool) -> None:
    async with trio.open_nursery() as nursery:
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        with trio.open_signal_receiver(*signals) as received:
            if while_stdin:
                nursery.start_soon(_wait_for_stdin, nursery.cancel_scope)
            async for _ in received:
                nursery.cancel_scope.cancel()
                return


async def _wait_for_stdin(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        with suppress(trio.BrokenResourceError):  # it was closed from the start, or is now
            while await stdin.receive_some():
                pass
    scope.cancel()
