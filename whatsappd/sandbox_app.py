"""The composition root of the sandbox's own process: the loopback WhatsApp and its control socket.

Started by `whatsappd sandbox`, by a person or by a daemon in sandbox mode.
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

CONTROL_SOCKET = "control.sock"


async def run_sandbox(
    directory: Path, info_file: Path, port: int, while_stdin: bool, log_level: str
) -> None:
    """Serve until SIGTERM, Ctrl-C, the end of the terminal, or with `while_stdin` that of stdin.

    Prints one line on stdout when it can be used.

    Raises:
        SandboxFailed: the port is taken, or the directory cannot be used.
    """
    os.umask(0o077)
    # The sandbox knows no structlog; a daemon that runs it tags its lines.
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
