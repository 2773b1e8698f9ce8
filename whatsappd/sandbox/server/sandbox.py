"""The sandbox: a WhatsApp on one loopback port, and the operations that control it.

`whatsappd sandbox` and `whatsappd run --sandbox` run `Sandbox.serve`, and offer its other methods
by RPC (`sandbox.info`, `sandbox.scan`, …: `handlers/sandbox.py`). Tests call them directly.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.info_file import SandboxInfo
from whatsappd.sandbox.phones import pairing
from whatsappd.sandbox.phones.qr_code import normalise_phone
from whatsappd.sandbox.protocol.stanza_codec import StanzaCodec
from whatsappd.sandbox.server.connection import ClientConnection
from whatsappd.sandbox.server.device_lists import remove_device
from whatsappd.sandbox.server.directory import (
    ServerIdentity,
    held_directory,
    load_dictionary,
    load_identity,
)
from whatsappd.sandbox.server.fault_control import FaultControl, apply_fault
from whatsappd.sandbox.server.listener import accept_clients, open_listener
from whatsappd.sandbox.server.login import device_removed
from whatsappd.sandbox.server.operation_results import (
    Addresses,
    FaultHit,
    Unlinked,
    phone_states,
)
from whatsappd.sandbox.server.stanza_handlers import HANDLERS
from whatsappd.sandbox.server.tcp_channel import TcpChannel
from whatsappd.sandbox.state.accounts import SandboxAccount
from whatsappd.sandbox.state.database import SandboxDatabase
from whatsappd.sandbox.state.switchboard import LATENCY_S, Switchboard


class Sandbox:
    """A WhatsApp on a loopback address.

    Its directory keeps the keys, accounts and undelivered stanzas, so a sandbox that is started
    again on it is the same one to its clients. One sandbox at a time can use a directory.

    All operations raise SandboxFailed while `serve` does not run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        control: Path | None = None,
        latency_s: float = LATENCY_S,
    ) -> None:
        """Args:
            directory: made if it does not exist (`server.directory` has what is in it).
            host: a loopback address.
            port: 0: the port of the last run if it is free, else any free one.
            control: the Unix socket on which the caller offers the operations; told in `info`.
            latency_s: seconds that everything takes to a client.

        Raises:
            ValueError: `host` is no loopback address.
        """
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"the sandbox listens on loopback only, not on {host}")
        self._directory = directory
        self._host = host
        self._port = port
        self._control = control
        self._latency_s = latency_s
        self._info: SandboxInfo | None = None
        self._board: Switchboard | None = None

    async def serve(
        self, *, task_status: trio.TaskStatus[SandboxInfo] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; `started` with the info when clients can connect.

        Raises:
            SandboxFailed: the directory is in use or damaged, or neonize is not as expected.
            OSError: the directory cannot be written, or `port` is taken.
        """
        with held_directory(self._directory):
            codec = StanzaCodec(await load_dictionary(self._directory))
            identity = load_identity(self._directory)
            database = SandboxDatabase(self._directory / "sandbox.db")
            try:
                self._board = Switchboard(database, codec, latency_s=self._latency_s)
                with self._listen(database) as listener:
                    self._info = SandboxInfo(
                        self._host,
                        listener.getsockname()[1],
                        str(identity.ca_file),
                        identity.noise.root.hex(),
                        None if self._control is None else str(self._control),
                    )
                    async with trio.open_nursery() as nursery:
                        serve = partial(_start_client, nursery, self._board, identity)
                        task_status.started(self._info)
                        await accept_clients(listener, self._board, serve)
            finally:
                self._board = None
                database.close()

    def _listen(self, database: SandboxDatabase) -> socket.socket:
        last = int(database.setting("port") or 0)
        listener = open_listener(self._host, [self._port] if self._port else [last, 0])
        database.set_setting("port", str(listener.getsockname()[1]))
        database.commit()
        return listener

    # --- operations ---------------------------------------------------------------------------

    def info(self) -> SandboxInfo:
        """How clients reach it."""
        if self._info is None:
            raise SandboxFailed("the sandbox is not running")
        return self._info

    async def scan(self, qr: str, phone_number: str) -> Addresses:
        """Let the phone with that number scan a QR code. Returns the device that is linked then.

        Raises:
            SandboxFailed: the code is malformed, unknown or expired, the phone has linked all the
                devices it may, or the client did not confirm.
            InvalidParams: the number is no phone number.
        """
        device = await pairing.scan(self.board, qr, phone_number)
        return {"jid": str(device.jid), "lid": str(device.lid)}

    def register(
        self, phone_number: str, name: str | None = None, aliases: Sequence[str] = ()
    ) -> Addresses:
        """Let a phone exist, without linked devices. Returns its account.

        Args:
            phone_number: an international number.
            name: the push name that others see; None: as it is.
            aliases: other numbers under which clients find it.

        Raises:
            SandboxFailed: an alias is the number of another account.
            InvalidParams: a number is no phone number.
        """
        board = self.board
        account = board.registry.register(normalise_phone(phone_number), name)
        for alias in aliases:
            board.registry.add_alias(normalise_phone(alias), account)
        board.flush()
        return {"jid": str(account.jid), "lid": str(account.lid)}

    def unlink(self, phone_number: str, device: int | None = None) -> Unlinked:
        """Let the phone unlink a device by its number, or all of its devices.

        Raises:
            SandboxFailed: there is no such phone or device.
            InvalidParams: the number is no phone number.
        """
        board = self.board
        account = self._account(phone_number)
        if device is not None and device not in account.devices:
            raise SandboxFailed(f"+{account.phone} has no linked device {device}")
        chosen = list(account.devices.values()) if device is None else [account.devices[device]]
        for removed in chosen:
            client = remove_device(board, removed)
            if client is not None:
                board.end_stream(client, device_removed())
        board.flush()
        return {"unlinked": [str(removed.jid) for removed in chosen]}

    @property
    def faults(self) -> FaultControl:
        """The faults, as methods."""
        return FaultControl(self.board)

    def fault(self, kind: str, **arguments: Any) -> FaultHit:
        """A fault by its name (`fault_control.KINDS`). Returns `{hit: n}` if it strikes at once.

        Raises:
            InvalidParams: there is no such kind or argument, or a value has the wrong type.
        """
        return apply_fault(self.faults, kind, arguments)

    def stats(self, *, messages: bool = False) -> dict[str, Any]:
        """Counters since the start, phones with their devices, and armed faults.

        With `messages` also what the server did with each of the latest message ids.
        """
        board = self.board
        return {
            **board.statistics.as_wire(messages=messages),
            "connections": len(board.clients),
            "faults": board.faults.as_wire(),
            "phones": phone_states(board),
        }

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition`, usually something about `stats()`, holds.

        It is asked again after everything that happens. Callers limit how long they wait.
        """
        await self.board.wait_until(condition)

    @property
    def board(self) -> Switchboard:
        """All of its state, for those that run it in their own process."""
        if self._board is None:
            raise SandboxFailed("the sandbox is not running")
        return self._board

    def _account(self, phone_number: str) -> SandboxAccount:
        number = normalise_phone(phone_number)
        account = self.board.registry.by_phone(number)
        if account is None:
            raise SandboxFailed(f"no phone +{number} is known to this sandbox")
        return account


def _start_client(
    nursery: trio.Nursery,
    board: Switchboard,
    identity: ServerIdentity,
    accepted: socket.socket,
    refuse: bool,
) -> None:
    """Serve an accepted connection in a task of its own."""
    connection = ClientConnection(TcpChannel(accepted), board, identity.noise, HANDLERS)
    nursery.start_soon(partial(connection.run, identity.tls, refuse=refuse))
