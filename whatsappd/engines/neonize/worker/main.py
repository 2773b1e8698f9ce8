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

import msgspec

from whatsappd.engines.neonize.fork.preload import library_path
from whatsappd.engines.neonize.worker.client import NeonizeClient, WhatsmeowError
from whatsappd.engines.neonize.worker.output import print_without_waiting
from whatsappd.engines.neonize.worker.send_errors import classify, fate_unknown
from whatsappd.engines.neonize.worker.serial_thread import SerialThread
from whatsappd.engines.neonize.worker.spool import Spool
from whatsappd.engines.protocol import (
    ACCOUNT,
    EVENT,
    INBOUND,
    REQUESTS,
    SPOOL,
    TAKEN,
    AskHealth,
    EventKind,
    EventOnWire,
    LogOutDevice,
    LookUpAddresses,
    OpenClient,
    RequestDone,
    SendContent,
    SendFate,
    SendRefusal,
    StopClient,
    WorkerAnswer,
    WorkerMethod,
    WorkerRequest,
    as_map,
)
from whatsappd.errors import InvalidParams, WhatsappdError, WorkerFailed
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
        asked = msgspec.convert(named_arguments(request.params), REQUESTS[method])
        if method is WorkerMethod.OPEN:
            self._answer(request.msgid, asked)
        else:
            self._threads[method].run(lambda: self._answer(request.msgid, asked))

    def _answer(self, msgid: int, asked: WorkerRequest) -> None:
        try:
            packed = pack_result(msgid, as_map(self._do(asked)))
        except WhatsappdError as error:
            packed = pack_error(msgid, error)
        except WhatsmeowError as error:
            packed = pack_error(msgid, WorkerFailed(str(error)))
        except (sqlite3.Error, OSError) as error:
            packed = pack_error(msgid, WorkerFailed(_unusable(error)))
        self._write(packed)

    def _do(self, asked: WorkerRequest) -> WorkerAnswer:
        match asked:
            case OpenClient():
                self._open(asked)
            case SendContent():
                return self._send(asked)
            case LookUpAddresses():
                return self._opened().look_up([parse_jid(each) for each in asked.addresses])
            case AskHealth():
                return self._opened().health()
            case LogOutDevice():
                self._opened().logout()
            case StopClient():
                if self._client is not None:  # else it is stopped before it was opened
                    self._client.drain()
                    self._client.stop()
        return RequestDone()

    def _open(self, asked: OpenClient) -> None:
        """Load the library, make the client in this directory, and start to connect."""
        self._hold_lock()
        self._spool = Spool(Path(SPOOL), taken=asked.taken)
        for packed in self._spool.waiting:
            self._write(packed)
        self._load_library()
        if asked.noise_root is not None:
            # Only a daemon started with --sandbox sends a root key.
            replace_noise_root(library_path(), asked.noise_root)
        _quiet_neonize(asked.log_level)
        self._client = NeonizeClient(
            self._company, database=ACCOUNT, proxy=asked.proxy, emit=self._emit
        )
        threading.Thread(target=self._client.connect, name="connect", daemon=True).start()

    def _hold_lock(self) -> None:
        """Wait until no other worker of this company lives, and keep it so.

        A worker that outlives its daemon by a moment (or by more, if it hangs) must not meet its
        successor on the same account. The daemon gives up on us when that takes too long.
        """
        self._lock = Path(LOCK).open("w")  # noqa: SIM115 -- held until the process ends
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _send(self, asked: SendContent) -> WorkerAnswer:
        """The server's ack, or what became of the message without one."""
        try:
            return self._opened().send(parse_jid(asked.to), asked.content, secret=asked.secret)
        except WhatsmeowError as error:
            return classify(str(error))
        except WhatsappdError as error:
            return SendRefusal(SendFate.UNKNOWN, fate_unknown(error.message))
        except (sqlite3.Error, OSError) as error:
            return SendRefusal(SendFate.UNKNOWN, fate_unknown(_unusable(error)))

    def _opened(self) -> NeonizeClient:
        if self._client is None:
            raise InvalidParams("client.open must come first", field="method")
        return self._client

    def _emit(self, kind: EventKind, data: dict[str, Any]) -> None:
        told = EventOnWire(self._company, kind, data)
        if kind in INBOUND:
            assert self._spool is not None
            # Numbered and written in one go: they come from two threads, of events and of the log.
            with self._write_lock, suppress(OSError):
                self._channel.sendall(self._spool.add(told))
        else:
            self._write(pack_notification(EVENT, told.as_arguments()))

    def _write(self, packed: bytes) -> None:
        with self._write_lock, suppress(OSError):
            # On an error the daemon is gone; the main thread sees the same, and ends us.
            self._channel.sendall(packed)


def _unusable(error: sqlite3.Error | OSError) -> str:
    return f"the account's database or directory cannot be used: {error}"


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
