"""The sandbox itself: one loopback port, and the operations of its control.

`whatsappd sandbox` and `whatsappd run --sandbox` run `Sandbox.serve` and offer the other methods
over RPC (`sandbox.info`, `sandbox.scan`, …); tests call them directly.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import logging
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.info import SandboxInfo
from whatsappd.sandbox.phones import pairing
from whatsappd.sandbox.protocol import dictionary
from whatsappd.sandbox.protocol.certificates import load_authority, server_context
from whatsappd.sandbox.protocol.noise import NoiseIdentity, load_identity
from whatsappd.sandbox.protocol.secret_files import PRIVATE_DIRECTORY, PRIVATE_FILE
from whatsappd.sandbox.protocol.stanza import Codec
from whatsappd.sandbox.protocol.tcp_channel import Channel
from whatsappd.sandbox.server.connection import Connection
from whatsappd.sandbox.server.device_lists import announce_removal
from whatsappd.sandbox.server.fault_control import FaultControl, apply_fault
from whatsappd.sandbox.server.login import device_removed
from whatsappd.sandbox.state.accounts import Account, Device
from whatsappd.sandbox.state.store import Store
from whatsappd.sandbox.state.switchboard import LATENCY_S, Switchboard

log = logging.getLogger("whatsappd.sandbox")

#: Dials that may wait to be accepted; the kernel bounds it further.
_BACKLOG = 1024
#: Seconds to wait when the process has no file descriptors left for another client.
_EXHAUSTED_PAUSE = 0.1
#: Seconds for reading the dictionary out of the library; it takes a fraction of one.
_DICTIONARY_DEADLINE = 30


class Sandbox:
    """A WhatsApp on 127.0.0.1. One at a time may use a directory.

    The directory (mode 0700) keeps the CA, the Noise keys, accounts and undelivered messages, so
    that a sandbox that is started again on it is the same one to its clients.
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
            directory: made if it does not exist.
            host: a loopback address.
            port: 0 for the port of the last run if it is free, else any free one.
            control: the Unix socket under which the caller offers the operations, for `info`.
            latency_s: how long everything takes to a client.

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
        self._directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        self._directory.chmod(PRIVATE_DIRECTORY)
        with _locked(self._directory / "lock"):
            codec = Codec(await self._load_dictionary())
            identity = load_identity(self._directory / "noise.json")
            authority = load_authority(self._directory / "ca.pem", self._directory / "ca.key")
            context = server_context(authority, self._directory / "server.pem")
            store = Store(self._directory / "sandbox.db")
            try:
                self._board = Switchboard(store, codec, latency_s=self._latency_s)
                with self._listen(store) as listener:
                    self._info = SandboxInfo(
                        self._host,
                        listener.getsockname()[1],
                        str((self._directory / "ca.pem").absolute()),
                        identity.root.hex(),
                        None if self._control is None else str(self._control),
                    )
                    await self._accept(listener, context, identity, task_status)
            finally:
                self._board = None
                store.close()

    # --- operations ---------------------------------------------------------------------------

    def info(self) -> SandboxInfo:
        """How to reach it. Raises: SandboxFailed: it does not run."""
        if self._info is None:
            raise SandboxFailed("the sandbox is not running")
        return self._info

    async def scan(self, qr: str, phone_number: str) -> dict[str, Any]:
        """A phone with that number scans a QR code: `{jid, lid}` of the device it linked.

        Raises:
            SandboxFailed: the code is malformed, unknown or expired, the phone has linked all the
                devices it may, or the client did not confirm.
            InvalidParams: the number is none.
        """
        device = await pairing.scan(self._running(), qr, phone_number)
        return {"jid": str(device.jid), "lid": str(device.lid)}

    def register(
        self, phone_number: str, name: str | None = None, aliases: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Let a phone exist, without linked devices: `{jid, lid}`.

        Args:
            name: what others see.
            aliases: other numbers under which a look-up finds it.

        Raises:
            SandboxFailed: an alias is the number of another account.
        """
        board = self._running()
        account = board.registry.register(pairing.normalise_phone(phone_number), name)
        for alias in aliases:
            board.registry.add_alias(pairing.normalise_phone(alias), account)
        board.flush()
        return {"jid": str(account.jid), "lid": str(account.lid)}

    def unlink(self, phone_number: str, device: int | None = None) -> dict[str, Any]:
        """The phone removes a linked device, or all of them: `{unlinked: [jid, …]}`.

        Raises:
            SandboxFailed: there is no such phone or device.
        """
        board = self._running()
        account = self._account(phone_number)
        if device is not None and device not in account.devices:
            raise SandboxFailed(f"+{account.phone} has no linked device {device}")
        chosen = list(account.devices.values()) if device is None else [account.devices[device]]
        for removed in chosen:
            announce_removal(board, removed)
            board.registry.unlink(removed)
            connection, removed.connection = removed.connection, None
            if connection is not None:
                connection.end_stream(device_removed())
        board.flush()
        return {"unlinked": [str(removed.jid) for removed in chosen]}

    @property
    def faults(self) -> FaultControl:
        """The faults, as methods."""
        return FaultControl(self._running())

    def fault(self, kind: str, **arguments: Any) -> dict[str, Any]:
        """A fault by name (`control.KINDS`); `{hit: n}` if it acts on connections at once.

        Raises:
            InvalidParams: there is no such kind or argument, or a value has the wrong type.
        """
        return apply_fault(self.faults, kind, arguments)

    def stats(self, *, messages: bool = False) -> dict[str, Any]:
        """What happened so far; with `messages`, also to each of the latest message ids."""
        board = self._running()
        return {
            **board.statistics.as_wire(messages=messages),
            "connections": len(board.connections),
            "faults": board.faults.as_wire(),
            "phones": {
                account.phone: {
                    "jid": str(account.jid),
                    "lid": str(account.lid),
                    "name": account.name,
                    "devices": [_device_stats(device) for device in account.devices.values()],
                }
                for account in board.registry.accounts
            },
        }

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition`, usually something about `stats()`, holds.

        It is asked again whenever something happened. Callers bound the wait themselves.
        """
        await self._running().wait_until(condition)

    def _running(self) -> Switchboard:
        if self._board is None:
            raise SandboxFailed("the sandbox is not running")
        return self._board

    def _account(self, phone_number: str) -> Account:
        number = pairing.normalise_phone(phone_number)
        account = self._running().registry.by_phone(number)
        if account is None:
            raise SandboxFailed(f"no phone +{number} is known to this sandbox")
        return account

    # --- start --------------------------------------------------------------------------------

    async def _load_dictionary(self) -> dictionary.Dictionary:
        library = dictionary.library_path()
        file = dictionary.cache_file(self._directory, library)
        found = dictionary.read_cache(file)
        if found is not None:
            return found
        command = dictionary.extract_command(library, file)
        with trio.move_on_after(_DICTIONARY_DEADLINE):
            result = await trio.run_process(
                command, check=False, stdout=subprocess.DEVNULL, capture_stderr=True
            )
            found = dictionary.read_cache(file)
            if found is None:
                reason = result.stderr.decode(errors="replace").strip()
                raise SandboxFailed(f"the stanza dictionary could not be read: {reason}")
            return found
        raise SandboxFailed(
            f"reading the stanza dictionary took more than {_DICTIONARY_DEADLINE} s"
        )

    def _listen(self, store: Store) -> socket.socket:
        """A listening socket, on the port of the last run if the caller left the choice."""
        last = store.setting("port")
        choices = [self._port] if self._port else [int(last or 0), 0]
        for port in choices:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self._host, port))
                listener.listen(_BACKLOG)
                listener.setblocking(False)
            except OSError as error:
                listener.close()
                if error.errno != errno.EADDRINUSE or port == choices[-1]:
                    raise
            else:
                store.set_setting("port", str(listener.getsockname()[1]))
                store.commit()
                return listener
        raise AssertionError("unreachable: the last choice returns or raises")

    async def _accept(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        identity: NoiseIdentity,
        task_status: trio.TaskStatus[SandboxInfo],
    ) -> None:
        board = self._running()
        async with trio.open_nursery() as nursery:
            task_status.started(self.info())
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
                connection = Connection(Channel(accepted), board, identity)
                nursery.start_soon(_run_connection, connection, context, refusal is not None)


async def _run_connection(connection: Connection, context: ssl.SSLContext, refuse: bool) -> None:
    await connection.run(context, refuse=refuse)


def _device_stats(device: Device) -> dict[str, Any]:
    return {
        "id": device.id,
        "jid": str(device.jid),
        "online": device.connection is not None and device.connection.active,
        "waiting": len(device.queue),
        "prekeys": len(device.prekeys),
    }


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the directory: two sandboxes on one would hand out the same keys twice."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise SandboxFailed(
                f"another sandbox (process {holder or 'unknown'}) uses {file.parent}: "
                "stop it, or use another directory"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
