"""The body of a worker process: one channel to the daemon, one neonize client.

The main thread reads requests; each kind of blocking call has a thread of its own, so
that a health check is answered while a send waits. When the channel closes, the daemon is gone or
has done with us: what it has not confirmed is saved for the next worker, and the process ends,
whatever its threads are doing.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from whatsappd.engines.neonize.fork.preload import library_path
from whatsappd.engines.neonize.worker.client import NeonizeClient, WhatsmeowError
from whatsappd.engines.neonize.worker.output import print_without_waiting
from whatsappd.engines.neonize.worker.serial_thread import SerialThread
from whatsappd.engines.neonize.worker.spool import Spool
from whatsappd.engines.protocol import (
    EVENT,
    INBOUND,
    SPOOL,
    TAKEN,
    EventKind,
    WorkerEvent,
    WorkerMethod,
)
from whatsappd.errors import InvalidParams, WhatsappdError, WorkerFailed
from whatsappd.model.content import sendable_from
from whatsappd.model.jid import parse_jid
from whatsappd.sandbox.neonize_library.noise_root import replace_noise_root
from whatsappd.wire.frames import READ_SIZE, MessagePackReader
from whatsappd.wire.rpc import (
    Notification,
    Request,
    named_arguments,
    pack_error,
    pack_notification,
    pack_result,
    parse_message,
)

_PR_SET_NAME = 15

#: Held for as long as a worker lives, in its company's directory.
LOCK = "worker.lock"

#: How a worker's process ends on its own account.
EXIT_CHANNEL_CLOSED = 0
EXIT_CRASHED = 70


def run_worker(company: str, channel: socket.socket, load_library: Callable[[], None]) -> NoReturn:
    """Serve the daemon on `channel` until it closes; never returns. The company's directory is the
    working directory.

    Args:
        load_library: makes neonize's Go library usable in this process (see `fork.preload`).
    """
    _name_process(f"wa {company}")
    os.umask(0o077)
    sys.dont_write_bytecode = True  # it may write nowhere but into its company's directory
    leave_signals_to_the_daemon()
    print_without_waiting()
    threading.excepthook = _die_of_exception
    worker = WorkerServer(company, channel, load_library)
    try:
        worker.serve()
        worker.leave()
    except BaseException:
        logging.getLogger(__name__).exception("the worker's channel failed")
        _exit(EXIT_CRASHED)
    _exit(EXIT_CHANNEL_CLOSED)


def leave_signals_to_the_daemon() -> None:
    """Do not end by what reaches the whole foreground group (Ctrl-C) or the whole unit of systemd
    (SIGTERM, and its watchdog's SIGABRT).

    When the daemon ends, so does the channel, and what it has not confirmed is saved first. A
    process that aborts by itself still does.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGABRT):
        signal.signal(number, signal.SIG_IGN)


class WorkerServer:
    def __init__(
        self, company: str, channel: socket.socket, load_library: Callable[[], None]
    ) -> None:
        self._company = company
        self._channel = channel
        self._load_library = load_library
        self._write_lock = threading.Lock()
        self._client: NeonizeClient | None = None
        self._spool: Spool | None = None
        self._threads = {
            WorkerMethod.SEND: SerialThread("send"),
            WorkerMethod.LOGOUT: SerialThread("logout"),
            WorkerMethod.LOOK_UP: SerialThread("look_up"),
            WorkerMethod.HEALTH: SerialThread("health"),
            WorkerMethod.STOP: SerialThread("stop"),
        }

    def serve(self) -> None:
        reader = MessagePackReader()
        while data := self._receive():
            for value in reader.feed(data):
                message = parse_message(value)
                if isinstance(message, Request):
                    self._accept(message)
                else:
                    assert isinstance(message, Notification)
                    assert message.method == TAKEN
                    assert self._spool is not None
                    self._spool.confirmed(named_arguments(message.params)["number"])

    def leave(self) -> None:
        """Save what came from WhatsApp and may not have reached the disk."""
        if self._client is not None and self._spool is not None:
            self._client.drain()
            self._spool.save()

    def _receive(self) -> bytes:
        try:
            return self._channel.recv(READ_SIZE)
        except ConnectionError:
            return b""  # the daemon died with something unread

    def _accept(self, request: Request) -> None:
        method = WorkerMethod(request.method)
        if method is WorkerMethod.OPEN:
            self._answer(request, self._open)
        else:
            calls = {
                WorkerMethod.SEND: self._send,
                WorkerMethod.LOGOUT: self._logout,
                WorkerMethod.LOOK_UP: self._look_up,
                WorkerMethod.HEALTH: self._health,
                WorkerMethod.STOP: self._stop,
            }
            self._threads[method].run(lambda: self._answer(request, calls[method]))

    def _answer(self, request: Request, call: Callable[[dict[str, Any]], Any]) -> None:
        try:
            packed = pack_result(request.msgid, call(named_arguments(request.params)))
        except WhatsappdError as error:
            packed = pack_error(request.msgid, error)
        except WhatsmeowError as error:
            packed = pack_error(request.msgid, WorkerFailed(str(error)))
        except (sqlite3.Error, OSError) as error:
            reason = f"the account's database or directory cannot be used: {error}"
            packed = pack_error(request.msgid, WorkerFailed(reason))
        self._write(packed)

    def _open(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Load the library, make the client in this directory, and start to connect."""
        self._hold_lock()
        self._spool = Spool(Path(SPOOL), taken=arguments["taken"])
        for packed in self._spool.waiting:
            self._write(packed)
        self._load_library()
        noise_root: bytes | None = arguments.get("noise_root")
        if noise_root is not None:
            # Only a daemon started with --sandbox sends a root key.
            replace_noise_root(library_path(), noise_root)
        _quiet_neonize(arguments["log_level"])
        self._client = NeonizeClient(
            self._company,
            database=arguments["database"],
            proxy=arguments.get("proxy"),
            emit=self._emit,
        )
        threading.Thread(target=self._client.connect, name="connect", daemon=True).start()
        return {}

    def _hold_lock(self) -> None:
        """Wait until no other worker of this company lives, and keep it so.

        A worker that outlives its daemon by a moment (or by more, if it hangs) must not meet its
        successor on the same account. The daemon gives up on us when that takes too long.
        """
        self._lock = Path(LOCK).open("w")  # noqa: SIM115 -- held until the process ends
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _send(self, arguments: dict[str, Any]) -> dict[str, Any]:
        content = sendable_from(arguments["content"])
        return self._opened().send(parse_jid(arguments["to"]), content, secret=arguments["secret"])

    def _look_up(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return self._opened().look_up([parse_jid(address) for address in arguments["addresses"]])

    def _health(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        return self._opened().health()

    def _logout(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        self._opened().logout()
        return {}

    def _stop(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        if self._client is not None:  # else it is stopped before it was opened
            self._client.drain()
            self._client.stop()
        return {}

    def _opened(self) -> NeonizeClient:
        if self._client is None:
            raise InvalidParams("client.open must come first", field="method")
        return self._client

    def _emit(self, kind: EventKind, data: dict[str, Any]) -> None:
        event = WorkerEvent(self._company, kind, data)
        if kind in INBOUND:
            assert self._spool is not None
            # Numbered and written in one go: they come from two threads, of events and of the log.
            with self._write_lock, suppress(OSError):
                self._channel.sendall(self._spool.add(event))
        else:
            self._write(pack_notification(EVENT, event.as_arguments()))

    def _write(self, packed: bytes) -> None:
        with self._write_lock, suppress(OSError):
            # On an error the daemon is gone; the main thread sees the same, and ends us.
            self._channel.sendall(packed)


def _quiet_neonize(level: str) -> None:
    """Give whatsmeow's log the daemon's level."""
    heard = min(logging.INFO, logging.getLevelName(level))  # `client` listens to some of it
    logging.getLogger().setLevel(heard)
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)
    logging.getLogger("neonize.utils.log").setLevel(heard)
    # It warns at every connect that ffmpeg is missing, which only media needs.
    logging.getLogger("neonize.utils.ffmpeg").setLevel(logging.ERROR)


def _die_of_exception(arguments: threading.ExceptHookArgs) -> None:
    """A thread of ours that dies leaves a worker that looks alive and is deaf: end it loudly."""
    threading.__excepthook__(arguments)
    _exit(EXIT_CRASHED)


def _exit(status: int) -> NoReturn:
    """Leave without waiting for Go's threads, which may never end. Nothing printed is buffered."""
    os._exit(status)


def _name_process(name: str) -> None:
    """Show the company in `ps` and `top` (prctl(2), PR_SET_NAME: 15 bytes are kept)."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
