"""The sandbox's one port: opens it, and accepts clients for as long as the sandbox runs."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable

import trio

from whatsappd.sandbox.state.switchboard import Switchboard

log = logging.getLogger("whatsappd.sandbox")

#: Connections that may wait to be accepted; the kernel has a bound of its own.
_BACKLOG = 1024
#: Seconds until the next attempt when the process has no file descriptor left for a client.
_EXHAUSTED_PAUSE = 0.1

#: Starts to serve an accepted connection; the flag: answer its HTTP request with 503.
ServeClient = Callable[[socket.socket, bool], None]


def open_listener(host: str, ports: list[int]) -> socket.socket:
    """A listening socket on the first of `ports` that is free; 0 is any free port.

    Raises:
        OSError: the last of the ports is taken, or the host has no such address.
    """
    for port in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or port == ports[-1]:
                raise
        else:
            return listener
    raise ValueError("no port to listen on was given")


async def accept_clients(listener: socket.socket, board: Switchboard, serve: ServeClient) -> None:
    """Accept clients and `serve` them, until cancelled. The fault `refuse_dials` strikes here."""
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue
        except OSError as error:
            log.error("a client cannot be accepted: %s", error)
            await trio.sleep(_EXHAUSTED_PAUSE)
            continue
        board.statistics.dials += 1
        refusal = board.faults.take("refuse_dials")
        if refusal is not None:
            board.statistics.dials_refused += 1
            if refusal["mode"] == "close":
                accepted.close()
                continue
        serve(accepted, refusal is not None)
